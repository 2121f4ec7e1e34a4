#!/usr/bin/env bash
# prepare.sh BUILD_DIR: the published livekit-client, as npm has it. Does nothing when it is there.
set -euo pipefail
readonly CLIENT=2.23.0
out=$1/browser
[[ -f $out/stamp && $(<"$out/stamp") == "$CLIENT" ]] && exit 0
command -v npm >/dev/null || { echo "npm is needed for LiveKit's client: apt-get install npm" >&2; exit 1; }
rm -rf "$out"
mkdir -p "$out"
(cd "$out" && npm pack --silent "livekit-client@$CLIENT" >/dev/null && tar -xzf livekit-client-*.tgz)
cp "$out/package/dist/livekit-client.umd.js" "$out/"
printf '%s' "$CLIENT" >"$out/stamp"
