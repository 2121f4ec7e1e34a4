#!/usr/bin/env bash
# published_client.sh BUILD_DIR NAME: ours, judged by a client from its published package (NAME-requirements.txt), as NAME_test.py says.
set -euo pipefail
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=$1 name=$2
venv=$build/python/$name-venv
stamp=$venv/stamp
wanted=$(<"$source_dir/$name-requirements.txt")
if [[ ! -f $stamp || $(<"$stamp") != "$wanted" ]]; then
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --retries 5 -r "$source_dir/$name-requirements.txt"
  printf '%s' "$wanted" >"$stamp"
fi
exec "$venv/bin/python" "$source_dir/${name}_test.py" "$build"
