#!/usr/bin/env bash
# prepare.sh BUILD_DIR: the published clients: livekit-client and the Node SDK as npm has them, the Python SDK in an environment
# of its own.
# Does nothing when they are there.
set -euo pipefail
readonly CLIENT=2.23.0 SDK=1.2.0 NODE=1.1.0
out=$1/browser
[[ -f $out/stamp && $(<"$out/stamp") == "$CLIENT $SDK $NODE" ]] && exit 0
command -v npm >/dev/null || { echo "npm is needed for LiveKit's client: apt-get install npm" >&2; exit 1; }
rm -rf "$out"
mkdir -p "$out"
(cd "$out" && npm pack --silent "livekit-client@$CLIENT" >/dev/null && tar -xzf livekit-client-*.tgz)
cp "$out/package/dist/livekit-client.umd.js" "$out/"
python3 -m venv "$out/venv"
"$out/venv/bin/pip" install --quiet --disable-pip-version-check --retries 5 "livekit==$SDK"
mkdir "$out/node"
(cd "$out/node" && npm init -y >/dev/null && npm install --silent --no-audit --no-fund "@livekit/rtc-node@$NODE" >/dev/null)
printf '%s' "$CLIENT $SDK $NODE" >"$out/stamp"
