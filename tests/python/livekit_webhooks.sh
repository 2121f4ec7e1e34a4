#!/usr/bin/env bash
# livekit_webhooks.sh BUILD_DIR: webhooks of a real broker, judged by LiveKit's own receiver from its published package.
set -euo pipefail
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=$1
venv=$build/python/livekit-venv
stamp=$venv/stamp
wanted=$(<"$source_dir/livekit-requirements.txt")
if [[ ! -f $stamp || $(<"$stamp") != "$wanted" ]]; then
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --retries 5 -r "$source_dir/livekit-requirements.txt"
  printf '%s' "$wanted" >"$stamp"
fi
dump=$(mktemp)
trap 'rm -f "$dump"' EXIT
PARLEY_WEBHOOK_DUMP=$dump "$build/bin/webhooks_test" --gtest_filter='*SignedAndInOrder*'
"$venv/bin/python" "$source_dir/livekit_webhooks.py" "$dump"
