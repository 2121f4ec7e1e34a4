#!/usr/bin/env bash
# prepare.sh BUILD_DIR: LiveKit's own client packages, as PyPI and npm have them. Does nothing when they are there.
set -euo pipefail
readonly SERVER_SDK=2.19.2 CLIENT=2.23.0
readonly COMPONENTS=2.9.24 REACT=19.3.1 ESBUILD=0.28.2 # for the page of docs/migrate-from-livekit.md
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=$1/livekit
wanted="$(<"$source_dir/requirements.txt") $SERVER_SDK $CLIENT $COMPONENTS $REACT $ESBUILD"
[[ -f $out/stamp && $(<"$out/stamp") == "$wanted" ]] && exit 0
command -v npm >/dev/null || { echo "npm is needed for LiveKit's Node packages: apt-get install npm" >&2; exit 1; }
rm -rf "$out"
mkdir -p "$out"
python3 -m venv "$out/venv"
"$out/venv/bin/pip" install --quiet --disable-pip-version-check --retries 5 -r "$source_dir/requirements.txt"
printf '{"private": true, "type": "module"}\n' >"$out/package.json"
(cd "$out" && npm install --silent --no-audit --no-fund "livekit-server-sdk@$SERVER_SDK" "livekit-client@$CLIENT" \
  "@livekit/components-react@$COMPONENTS" "react@$REACT" "react-dom@$REACT" "esbuild@$ESBUILD")
printf '%s' "$wanted" >"$out/stamp"
