#!/usr/bin/env bash
# prepare.sh BUILD_DIR python|node: LiveKit's own packages, as their registries have them. Does nothing when they are there. Python's
# (300 MB) are kept in the user's cache, for every build.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=$1/livekit_workers/$2
if [[ $2 == python ]]; then wanted=$(<"$here/python-requirements.txt"); else wanted=$(<"$here/package.json"); fi
[[ -f $out/stamp && $(<"$out/stamp") == "$wanted" ]] && exit 0
rm -rf "$out"
mkdir -p "$out"
if [[ $2 == python ]]; then
  key=$( (python3 --version; printf '%s' "$wanted") | sha256sum | cut -c1-12)
  venv=${XDG_CACHE_HOME:-$HOME/.cache}/parley/livekit-agents-$key
  mkdir -p "${venv%/*}"
  exec {lock}>"$venv.lock"
  flock "$lock" # another build may be at it
  if [[ ! -f $venv/whole ]]; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --retries 5 --no-compile -r "$here/python-requirements.txt"
    touch "$venv/whole"
  fi
  ln -s "$venv" "$out/venv"
else
  command -v npm >/dev/null || { echo "npm is needed for LiveKit's Node worker: apt-get install npm" >&2; exit 1; }
  cp "$here/package.json" "$out/"
  (cd "$out" && npm install --silent --no-audit --no-fund)
fi
printf '%s' "$wanted" >"$out/stamp"
