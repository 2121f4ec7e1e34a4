#!/usr/bin/env bash
# webhooks.sh BUILD_DIR: webhooks of a real broker, judged by LiveKit's own receivers from their published packages.
set -euo pipefail
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=$1
dump=$(mktemp)
trap 'rm -f "$dump"' EXIT
PARLEY_WEBHOOK_DUMP=$dump "$build/bin/webhooks_test" --gtest_filter='*SignedAndInOrder*'
"$build/livekit/venv/bin/python" "$source_dir/webhooks.py" "$dump"
PARLEY_BUILD_DIR=$build node "$source_dir/webhooks.mjs" "$dump"
