#!/usr/bin/env bash
# build.sh WORK OUT MODE: bundles src/ with its packages into OUT/console.js. In mode AUTO a machine that cannot get the
# packages goes without: the page then says so.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
readonly here work=$1 out=$2 mode=$3
without() {
  [[ $mode == AUTO ]] || exit 1
  echo "console: npm could not get its packages; the page is built without its script" >&2
  rm -f "$out/console.js"
  exit 0
}
mkdir -p "$work"
cp "$here/package.json" "$here/package-lock.json" "$work/"
rm -rf "$work/src"
cp -r "$here/src" "$work/src"
cd "$work"
npm ci --silent --no-audit --no-fund --fetch-retries 3 --fetch-timeout 60000 || without
npm run --silent build || without
mv console.js "$out/console.js"
