#!/usr/bin/env bash
# prepare.sh BUILD_DIR python|node: LiveKit's own packages, as their registries have them. Does nothing when they are there.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=$1/livekit_workers/$2
if [[ $2 == python ]]; then wanted=$(<"$here/python-requirements.txt"); else wanted=$(<"$here/package.json"); fi
[[ -f $out/stamp && $(<"$out/stamp") == "$wanted" ]] && exit 0
rm -rf "$out"
mkdir -p "$out"
if [[ $2 == python ]]; then
  python3 -m venv "$out/venv"
  "$out/venv/bin/pip" install --quiet --disable-pip-version-check --retries 5 -r "$here/python-requirements.txt"
else
  command -v npm >/dev/null || { echo "npm is needed for LiveKit's Node worker: apt-get install npm" >&2; exit 1; }
  cp "$here/package.json" "$out/"
  (cd "$out" && npm install --silent --no-audit --no-fund)
fi
printf '%s' "$wanted" >"$out/stamp"
