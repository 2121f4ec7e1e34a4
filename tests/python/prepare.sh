#!/usr/bin/env bash
# prepare.sh BUILD_DIR: a virtual environment with the published packages and the code generated from our protos.
# Does nothing when both are up to date.
set -euo pipefail
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
out=$1/python
stamp=$out/stamp
wanted=$(cat "${BASH_SOURCE[0]}" "$source_dir/tests/python/requirements.txt" "$source_dir"/protos/parley/*/v1/*.proto | sha256sum)
[[ -f $stamp && $(<"$stamp") == "$wanted" ]] && exit 0
rm -rf "$out"
python3 -m venv "$out/venv"
"$out/venv/bin/pip" install --quiet --disable-pip-version-check --retries 5 -r "$source_dir/tests/python/requirements.txt"
mkdir -p "$out/gen"
"$out/venv/bin/python" -m grpc_tools.protoc -I "$source_dir/protos" --python_out="$out/gen" --grpc_python_out="$out/gen" \
  "$source_dir"/protos/parley/{common,registry,dispatch,llm,riva,speech}/v1/*.proto
printf '%s' "$wanted" >"$stamp"
