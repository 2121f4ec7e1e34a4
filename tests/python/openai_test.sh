#!/usr/bin/env bash
# openai_test.sh BUILD_DIR: our HTTP edge, judged by OpenAI's own client from its published package.
set -euo pipefail
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=$1
venv=$build/python/openai-venv
stamp=$venv/stamp
wanted=$(<"$source_dir/openai-requirements.txt")
if [[ ! -f $stamp || $(<"$stamp") != "$wanted" ]]; then
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --retries 5 -r "$source_dir/openai-requirements.txt"
  printf '%s' "$wanted" >"$stamp"
fi
exec "$venv/bin/python" "$source_dir/openai_test.py" "$build"
