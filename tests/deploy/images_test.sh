#!/usr/bin/env bash
# images_test.sh SOURCE_DIR BUILD_DIR [TARGET...]: builds the images of docker/Dockerfile around binaries that are built already,
# prints their sizes, and runs each: not root, nothing writable but /tmp, no capabilities, no network but its own loopback; it gets
# healthy, and SIGTERM ends it with 0. Exit 77 (skipped) and a line that says why where the host cannot do it.
set -euo pipefail
source_dir=$1 build_dir=$2
shift 2
readonly SERVICES=(agent-registry dispatch-broker room-server llm-gateway api-server stt-gateway tts-gateway agent-server)
# Those compile, or need what was compiled with the SDK.
readonly COMPILED='^(packages|build|sdk|parley-agent-dev)$'
# No systemd here: podman says of each container that it cannot set timers up.
podman() { command podman --log-level=fatal "$@"; }
skip() {
  printf 'skipped: %s\n' "$*"
  exit 77
}
[[ $(id -u) == 0 ]] || skip 'needs root'
for tool in buildah podman runc debootstrap; do
  command -v "$tool" >/dev/null || skip "needs $tool: the packages of section [images] in scripts/packages.txt"
done
targets=("$@")
((${#targets[@]})) || targets=("${SERVICES[@]}" redis-tls coturn parley)

work=$build_dir/images
mkdir -p "$work"
printf '[storage]\ndriver="overlay"\nrunroot="%s/run"\ngraphroot="%s/graph"\n' "$work" "$work" >"$work/storage.conf"
# The limits of this process are the container's too: raising them needs a capability that CI has not.
printf '[containers]\ndefault_ulimits=["nofile=1024:1024","nproc=1000:1000"]\n[engine]\nruntime="runc"\ncgroup_manager="cgroupfs"\nevents_logger="file"\n' >"$work/containers.conf"
export CONTAINERS_STORAGE_CONF=$work/storage.conf CONTAINERS_CONF=$work/containers.conf BUILDAH_ISOLATION=chroot

if ! buildah inspect --type image localhost/debian:bookworm-slim >/dev/null 2>&1; then
  rm -rf "$work/base"
  debootstrap --variant=minbase --include=ca-certificates bookworm "$work/base" >"$work/debootstrap.log" 2>&1 || skip 'no Debian to be had'
  # Where this machine gets its packages, its images get them, too.
  rm -f "$work"/base/etc/apt/sources.list
  cp -r /etc/apt/sources.list /etc/apt/sources.list.d /etc/apt/apt.conf.d "$work/base/etc/apt/" 2>/dev/null || true
  rm -rf "$work"/base/var/cache/apt/archives/*.deb "$work"/base/var/lib/apt/lists/*
  container=$(buildah from scratch)
  buildah add -q "$container" "$work/base" / >/dev/null
  buildah config --cmd /bin/bash --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
  buildah commit -q --rm "$container" localhost/debian:bookworm-slim >/dev/null
  rm -rf "$work/base"
fi

# The Dockerfile without the stages that compile; what they would have made comes from this build.
awk -v compiled="$COMPILED" '/^FROM /{skipped = $4 ~ compiled} !skipped' "$source_dir/docker/Dockerfile" \
  | sed 's|^FROM debian:|FROM localhost/debian:|' >"$work/Dockerfile"
context=$work/context/src
rm -rf "$work/context"
mkdir -p "$context/build/release/bin"
cp -r "$build_dir/share" "$context/build/release/"
for binary in "$build_dir"/bin/parley{,-agent-registry,-dispatch-broker,-room-server,-llm-gateway,-api-server,-stt-gateway,-stt-decoder,-tts-gateway,-agent-server}; do
  strip -o "$context/build/release/bin/${binary##*/}" "$binary"
done

# Starts the image, waits until it is healthy, ends it: prints what was seen, fails unless all is well.
try() {
  local target=$1 image=$2
  local arguments=(--dev --address 127.0.0.1) command=("/usr/local/bin/parley-$target") healthy=no code
  [[ $target != agent-server ]] || command=() arguments=(start "${arguments[@]}")
  local container
  container=$(podman run -d --network none --read-only --tmpfs /tmp --cap-drop=all --security-opt no-new-privileges --memory 512m \
    "$image" "${command[@]}" "${arguments[@]}")
  for _ in $(seq 100); do
    if podman healthcheck run "$container" >/dev/null 2>&1; then
      healthy=yes
      break
    fi
    sleep 0.1
  done
  podman stop -t 20 "$container" >/dev/null
  code=$(podman inspect --format '{{.State.ExitCode}}' "$container")
  [[ $healthy == yes && $code == 0 ]] || podman logs "$container" 2>&1 | tail -n 5
  podman rm -f "$container" >/dev/null
  printf ', healthy %s, SIGTERM ends it with %s' "$healthy" "$code"
  [[ $healthy == yes && $code == 0 ]]
}

failed=0
for target in "${targets[@]}"; do
  image=localhost/parley/$target:test
  buildah bud -q --format docker --isolation chroot --pull-never --layers --build-context "build=$work/context" --target "$target" \
    -t "$image" -f "$work/Dockerfile" "$source_dir" >"$work/$target.log" 2>&1 || {
    tail -n 20 "$work/$target.log"
    exit 1
  }
  size=$(podman image inspect --format '{{.Size}}' "$image")
  user=$(podman image inspect --format '{{.User}}' "$image")
  printf '%-16s %4d MB, user %s' "$target" $((size / 1000000)) "$user"
  [[ $user == 10001:10001 ]] || failed=1
  if [[ " ${SERVICES[*]} " == *" $target "* ]]; then
    try "$target" "$image" || failed=1
  elif [[ $target == parley ]]; then
    version=$(podman run --rm --network none --read-only --cap-drop=all "$image" version) || failed=1
    printf ', runs: %s' "$version"
  fi
  printf '\n'
done
exit "$failed"
