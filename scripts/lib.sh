# shellcheck shell=bash
# What the scripts share: where the checkout is, which packages it needs, and how to run a long step quietly.
# Source it; it changes into the checkout and sets -euo pipefail.
set -euo pipefail

PARLEY_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly PARLEY_ROOT
cd "$PARLEY_ROOT"

say() { printf '%s\n' "$*"; }
die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# packages SECTION...: their names, one per line.
packages() {
  local wanted=" $* " line section=''
  while read -r line; do
    case $line in
      '' | '#'*) ;;
      '['*']') section=${line:1:-1} ;;
      *) if [[ $wanted == *" $section "* ]]; then printf '%s\n' "$line"; fi ;;
    esac
  done <scripts/packages.txt
}

# need_debian: ends with one line elsewhere than on Debian 12, unless everything that is looked for is there already.
need_debian() {
  local id='' version=''
  if [[ -r /etc/os-release ]]; then
    id=$(. /etc/os-release && printf '%s' "${ID:-}")
    version=$(. /etc/os-release && printf '%s' "${VERSION_ID:-}")
  fi
  [[ $id == debian && $version == 12 ]] ||
    die "this needs Debian 12 (here: ${id:-unknown} ${version}); elsewhere run: docker compose -f docker/compose.yaml up"
}

# missing_packages SECTION...: what of these sections is not installed.
missing_packages() {
  local name
  for name in $(packages "$@"); do
    # dpkg's database, not apt: no network and no root for the answer.
    [[ $(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null) == installed ]] || printf '%s\n' "$name"
  done
}

# as_root COMMAND...: as root, or with sudo.
as_root() {
  if [[ $(id -u) == 0 ]]; then
    "$@"
  elif have sudo; then
    sudo "$@"
  else
    die "installing packages needs root: run it as root, or install sudo"
  fi
}

# run_step TEXT COMMAND...: one line that says what goes on and for how long; the output goes to a log, whose end is
# shown when the command fails.
run_step() {
  local text=$1 log started status=0 pid
  shift
  mkdir -p build/logs
  log=build/logs/$(printf '%s' "$text" | tr -cs 'A-Za-z0-9' '-' | cut -c1-40).log
  started=$SECONDS
  "$@" >"$log" 2>&1 </dev/null &
  pid=$!
  trap 'kill "$pid" 2>/dev/null; exit 130' INT TERM
  _watch_step "$text" "$log" "$started" "$pid" || true
  wait "$pid" || status=$?
  trap - INT TERM
  [[ ! -t 1 ]] || printf '\r\033[K'
  if [[ $status != 0 ]]; then
    grep -E 'error:|FAILED:|^E: |CMake Error' "$log" | head -n 12 >&2 || true
    tail -n 15 "$log" >&2
    die "failed: $text (all of it: $log)"
  fi
  printf '  %s: %ds\n' "$text" $((SECONDS - started))
}

_watch_step() {
  local text=$1 log=$2 started=$3 pid=$4 tick=0 last=''
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.2
    tick=$((tick + 1))
    last=$(tail -c 300 "$log" | tr '\r' '\n' | grep -oE '^\[[0-9]+/[0-9]+\]' | tail -n 1 || true)
    if [[ -t 1 ]]; then
      ((tick % 5)) || printf '\r\033[K  %s: %ds %s' "$text" $((SECONDS - started)) "$last"
    elif ((tick % 150 == 0)); then
      printf '  %s: %ds %s\n' "$text" $((SECONDS - started)) "$last"
    fi
  done
}

# install_packages SECTION...: installs what is missing; touches no network when nothing is.
install_packages() {
  local missing
  mapfile -t missing < <(missing_packages "$@")
  ((${#missing[@]})) || return 0
  as_root true
  say "Installing ${#missing[@]} Debian packages: ${missing[*]:0:6}$( ((${#missing[@]} > 6)) && echo ' …')"
  run_step "read the package lists" as_root apt-get -q -o Acquire::Retries=3 update
  run_step "install the packages" _install_stopped "${missing[@]}"
}

# Debian starts the servers it installs, at every boot and Prometheus on all interfaces. Not on somebody's machine for our
# sake: tests and `parley dev` start what they need.
_install_stopped() (
  policy=/usr/sbin/policy-rc.d
  if [[ ! -e $policy ]]; then
    trap 'as_root rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
  fi
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y \
    --no-install-recommends -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 install "$@"
  [[ -d /run/systemd/system ]] || return 0
  for package in "$@"; do
    case $package in
      coturn | prometheus | redis-server | stunnel4) as_root systemctl disable --quiet "$package" ;;
    esac
  done
)

# build PRESET [TARGET...]: configures once and builds; all targets when none is named.
build() {
  local preset=$1
  shift
  run_step "configure $preset" cmake --preset "$preset"
  if (($#)); then
    run_step "build $preset: $*" cmake --build --preset "$preset" --target "$@"
  else
    run_step "build $preset" cmake --build --preset "$preset"
  fi
}
