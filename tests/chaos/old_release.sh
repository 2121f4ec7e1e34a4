#!/usr/bin/env bash
# old_release.sh SOURCE_DIR BUILD_DIR [REF]: the services of an older version, in BUILD_DIR/old/bin, to upgrade from: of REF, else
# PARLEY_OLD_REF, else of the newest tag, or, while there is none, of the commit before records named their form. Does nothing
# when they are there already.
set -euo pipefail
source_dir=$1 out=$2/old
cd "$source_dir"
ref=${3:-${PARLEY_OLD_REF:-$(git describe --tags --abbrev=0 HEAD^ 2>/dev/null || true)}}
[[ -n $ref ]] || ref=$(git log --diff-filter=A --format=%H -- libs/job_redis/scripts/mark_form.lua | tail -n 1)^
commit=$(git rev-parse --verify --quiet "$ref^{commit}") || {
  printf 'there is no older version: %s is not in this clone\n' "$ref"
  exit 1
}
printf 'upgrading from %s\n' "$(git log -1 --format='%h %s' "$commit")"
[[ -f $out/commit && $(<"$out/commit") == "$commit" ]] && exit 0
rm -rf "$out"
mkdir -p "$out/source"
git archive "$commit" | tar -x -C "$out/source"
cmake -S "$out/source" --preset release -B "$out/build" -DPARLEY_BUILD_TESTS=OFF -DPARLEY_BUILD_BENCH=OFF
cmake --build "$out/build" -j"$(nproc)" --target parley-{agent-registry,dispatch-broker,room-server,stt-gateway,tts-gateway,llm-gateway,api-server,agent-server,stt-decoder}
mkdir "$out/bin"
cp "$out"/build/bin/parley-* "$out/bin/"
rm -rf "$out/source" "$out/build"
printf '%s' "$commit" >"$out/commit"
