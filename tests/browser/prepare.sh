#!/usr/bin/env bash
# prepare.sh BUILD_DIR client|sdks: the published livekit-client as npm has it; the Node SDK likewise, and the Python SDK in an environment
# of its own. Does nothing when they are there. 77: there is no npm.
set -euo pipefail
readonly CLIENT=2.23.0 SDK=1.2.0 NODE=1.1.0
out=$1/browser
mkdir -p "$out"
have() { [[ -f $out/stamp-$1 && $(<"$out/stamp-$1") == "$2" ]]; }
need_npm() { command -v npm >/dev/null || { echo "npm is needed for LiveKit's packages: apt-get install npm" >&2; exit 77; }; }
case $2 in
  client)
    have client "$CLIENT" && exit 0
    need_npm
    rm -rf "$out/package" "$out"/livekit-client*
    (cd "$out" && npm pack --silent "livekit-client@$CLIENT" >/dev/null && tar -xzf livekit-client-*.tgz)
    cp "$out/package/dist/livekit-client.umd.js" "$out/"
    printf '%s' "$CLIENT" >"$out/stamp-client"
    ;;
  sdks)
    have sdks "$SDK $NODE" && exit 0
    need_npm
    rm -rf "$out/venv" "$out/node"
    python3 -m venv "$out/venv"
    "$out/venv/bin/pip" install --quiet --disable-pip-version-check --retries 5 "livekit==$SDK"
    mkdir "$out/node"
    (cd "$out/node" && npm init -y >/dev/null && npm install --silent --no-audit --no-fund "@livekit/rtc-node@$NODE" >/dev/null)
    printf '%s' "$SDK $NODE" >"$out/stamp-sdks"
    ;;
esac
