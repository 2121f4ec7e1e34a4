#!/usr/bin/env bash
# prepare.sh BUILD_DIR: a virtual environment with the provider's own package. Does nothing when it is up to date.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=$1/realtime
wanted=$(cat "$here/prepare.sh" "$here/requirements.txt" | sha256sum)
[[ -f $out/stamp && $(<"$out/stamp") == "$wanted" ]] && exit 0
rm -rf "$out"
python3 -m venv "$out/venv"
"$out/venv/bin/pip" install --quiet --disable-pip-version-check --retries 5 -r "$here/requirements.txt"
printf '%s' "$wanted" >"$out/stamp"
