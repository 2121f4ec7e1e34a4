#!/usr/bin/env bash
# Makes the classes of parley.job.v1 in DIRECTORY (default: generated, here). Needs protobuf-compiler.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${1:-$here/generated}
protos=$here/../../protos
mkdir -p "$out"
(cd "$protos" && protoc -I . --python_out="$out" \
  parley/common/v1/*.proto parley/dispatch/v1/*.proto parley/job/v1/*.proto parley/llm/v1/*.proto \
  parley/room/v1/*.proto parley/speech/v1/*.proto)
