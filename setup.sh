#!/usr/bin/env bash
# From a fresh checkout or a release archive to an installed service or a running demo, and back.
#
# Made for a bare Debian 12: bash, coreutils, util-linux and apt are enough. Every step first
# looks whether its work is done already, so a second run takes seconds and a run that broke
# off is continued by starting it again. Nothing is asked; `--dry-run` names every step.
#
# packaging/install holds the installation, packaging/demo the demo. tests/run.sh, tests/setup/
# and packaging/build.sh source this file for its functions; only `main` acts.
set -Eeuo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly HERE
readonly STACK=demo
readonly DEFAULT_ENGINE=unix:///var/run/docker.sock
# No limit below is tight: each is several times what a slow two-core machine needs.
ENGINE_WAIT_SECS=60
STOP_WAIT_SECS=40

: "${HOME:=$(getent passwd "$(id -u)" | cut -d: -f6)}"
export HOME
# One engine for the docker command line and for the daemon, whatever `docker context` says.
export DOCKER_HOST=${DOCKER_HOST:-$DEFAULT_ENGINE}
STATE_DIR=${XDG_STATE_HOME:-$HOME/.local/state}/mcp-orchestrator-$STACK
TARGET_DIR=$(cd "$HERE" && realpath -m "${CARGO_TARGET_DIR:-target}")
PROGRAM=./setup.sh # in messages
DRY_RUN=no
CARGO=cargo
BINARY=
DOCKER_AS=() # how to run something that talks to the engine
SUDO=()      # how to become root
MISSING=()   # packages to install

# ---- talking -------------------------------------------------------------------------------

BOLD='' GREEN='' RED='' RESET=''
set_colours() {
  if [ -t 1 ] && [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ]; then
    BOLD=$'\e[1m' GREEN=$'\e[32m' RED=$'\e[31m' RESET=$'\e[0m'
  fi
}

have() { printf '%s  have%s  %s\n' "$GREEN" "$RESET" "$1"; }
doing() {
  if [ "$DRY_RUN" = yes ]; then printf ' would  %s\n' "$1"; else printf '%s    do%s  %s\n' "$BOLD" "$RESET" "$1"; fi
}

# die WHAT HINT: the one way to fail.
die() {
  trap - ERR
  printf '%s%s: %s%s\n' "$RED" "$PROGRAM" "$1" "$RESET" >&2
  [ -z "${2:-}" ] || printf '  hint: %s\n' "$2" >&2
  exit 1
}

usage_error() {
  printf '%s: %s\n  hint: %s --help\n' "$PROGRAM" "$1" "$PROGRAM" >&2
  exit 2
}

# Shows the end of a log under an error.
log_tail() {
  [ -s "$1" ] || return 0
  printf '  the end of %s:\n' "$1" >&2
  tail -n 8 "$1" | cut -c1-300 | sed 's/^/    /' >&2
}

tilde() { printf '%s' "${1/#"$HOME"\//\~/}"; }

usage() {
  cat <<'USAGE'
Usage: ./setup.sh [COMMAND] [OPTION...]

  install          install or upgrade the service: program, unit, user,
                   configuration, password; this is the default
    --prefix DIR   where the program goes (/usr/local)
    --binary FILE  this program instead of building one
    --no-start     install only
    --with-docker  install Docker from the distribution if there is none
  --uninstall      stop the service, remove the program, keep configuration
                   and state
    --purge        remove those as well
  --check          look whether the installation is whole
  demo             install what is missing (Rust, a C compiler, Docker), build,
                   make the image mcp/example:latest, start the daemon on
                   etc/mcp-orchestrator/mcp.config.json and call a tool
  demo --down      stop the demo and remove what it made

Options
  --dry-run        say what would be done, change nothing
  -h, --help       this text

Environment
  DESTDIR          install below this directory, for another system
  RUSTUP_INIT_URL  where the Rust installer is fetched (https://sh.rustup.rs)
  CARGO_TARGET_DIR where the build goes (./target)
  DOCKER_HOST      another engine than unix:///var/run/docker.sock
  NO_COLOR         plain text
USAGE
}

# ---- probes: they change nothing --------------------------------------------------------------

systemd_runs() { [ -d /run/systemd/system ]; }
is_root() { [ "$(id -u)" = 0 ]; }
has() { command -v "$1" >/dev/null 2>&1; }
# Where nobody waits for orphans they stay as zombies: those are dead.
alive() { [ -n "${1:-}" ] && [ -d "/proc/$1" ] && ! grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2>/dev/null; }
socket_there() { [ -S /var/run/docker.sock ]; }
socket_open() { [ -w /var/run/docker.sock ]; }
ca_certificates_there() { [ -n "${SSL_CERT_FILE:-}" ] || [ -s /etc/ssl/certs/ca-certificates.crt ]; }
static_libc_there() { [ -e "$(cc -print-file-name=libc.a)" ]; }
start_of() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  cut -d' ' -f20 <<<"${stat##*) }" # the 22nd field; the second may hold blanks
}
# A process of ours is its id and the moment it began: the id alone may be another's by now.
remember_process() { printf '%s %s\n' "$1" "$(start_of "$1")" >"$2"; }
remembered_process() {
  local pid begun
  { read -r pid begun <"$1"; } 2>/dev/null && alive "$pid" && [ "$(start_of "$pid")" = "$begun" ] && echo "$pid"
}
sum_of() { sha256sum <"$1" | cut -d' ' -f1; }

# at_least HAVE WANT: compares versions.
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

rust_wanted() { sed -n 's/^rust-version = "\(.*\)"/\1/p' "$HERE/Cargo.toml"; }

# Finds a cargo that is new enough; Debian's own is not.
find_cargo() {
  local candidate version
  for candidate in "$(command -v cargo || true)" "${CARGO_HOME:-$HOME/.cargo}/bin/cargo"; do
    [ -x "$candidate" ] || continue
    read -r _ version _ < <("$candidate" --version 2>/dev/null) || continue
    at_least "$version" "$(rust_wanted)" || continue
    CARGO=$candidate
    PATH=$(dirname "$candidate"):$PATH
    return 0
  done
  return 1
}

# A user outside the group `docker` gets it for single commands through sudo, not for good.
choose_docker_access() {
  DOCKER_AS=()
  if [ "$DOCKER_HOST" = "$DEFAULT_ENGINE" ] && ! is_root && socket_there && ! socket_open && has sudo; then
    DOCKER_AS=("${SUDO[@]}" -u "$(id -un)" -g docker env "HOME=$HOME" "PATH=$PATH" "DOCKER_HOST=$DOCKER_HOST")
  fi
}
as_docker() { "${DOCKER_AS[@]}" "$@"; }

engine_version() {
  has docker || return 1
  choose_docker_access
  as_docker timeout 20 docker version --format '{{.Server.Version}}' 2>/dev/null
}

# ---- packages ---------------------------------------------------------------------------------

choose_sudo() {
  SUDO=()
  is_root && return
  SUDO=(sudo)
  [ -t 0 ] || SUDO=(sudo -n) # no terminal, no password prompt
}

need_root() {
  is_root || has sudo || die "root is needed to $1, and there is no sudo" "run ./setup.sh as root"
}

find_missing_build_packages() {
  if ! has cc; then
    MISSING+=(gcc libc6-dev)
  elif ! static_libc_there; then
    MISSING+=(libc6-dev)
  fi
  ca_certificates_there || MISSING+=(ca-certificates)
  find_cargo || has rustup || has curl || has wget || MISSING+=(curl)
}

find_missing_engine_packages() {
  if ! engine_version >/dev/null; then
    { has docker && { has dockerd || [ "$DOCKER_HOST" != "$DEFAULT_ENGINE" ]; }; } || MISSING+=(docker.io)
  fi
}

ensure_packages() {
  if [ ${#MISSING[@]} = 0 ]; then
    have "the Debian packages needed"
    return
  fi
  doing "install from $(distribution_label): ${MISSING[*]}"
  [ "$DRY_RUN" = no ] || return 0
  install_packages "${MISSING[@]}"
  # Since Debian 13 the client is a package of its own.
  [[ " ${MISSING[*]} " != *' docker.io '* ]] || has docker || install_packages docker-cli
}

# ---- Rust -------------------------------------------------------------------------------------

download() {
  if has curl; then
    curl --proto '=https' --tlsv1.2 -fsSL --connect-timeout 20 --retry 3 -o "$2" "$1"
  else
    wget --https-only -q --timeout=20 --tries=3 -O "$2" "$1"
  fi
}

ensure_rust() {
  local url=${RUSTUP_INIT_URL:-https://sh.rustup.rs} script=$STATE_DIR/rustup-init.sh
  if find_cargo; then
    have "$("$CARGO" --version)"
    return
  fi
  if has rustup; then
    doing "install a newer Rust by rustup (at least $(rust_wanted) is needed)"
    [ "$DRY_RUN" = no ] || return 0
    rustup toolchain install stable --profile minimal 9>&- || die "rustup cannot install a toolchain" "run: rustup toolchain install stable"
    export RUSTUP_TOOLCHAIN=stable
  else
    doing "install Rust into $(tilde "${CARGO_HOME:-$HOME/.cargo}") by rustup from $url"
    [ "$DRY_RUN" = no ] || return 0
    download "$url" "$script" || die "cannot fetch the Rust installer from $url" "check the network or set RUSTUP_INIT_URL, or install Rust $(rust_wanted) or newer yourself"
    # Saved before it runs: half a download must not run. PATH and dot files stay as they are.
    RUSTUP_INIT_SKIP_PATH_CHECK=yes sh "$script" -y --quiet --profile minimal --default-toolchain stable --no-modify-path 9>&- ||
      die "the Rust installer failed" "read its message above; Rust $(rust_wanted) or newer from elsewhere will do too"
    rm -f "$script"
    echo 'rust (rustup self uninstall)' >>"$STATE_DIR/installed"
  fi
  find_cargo || die "there is still no cargo of at least $(rust_wanted)" "remove older ones from PATH, or run: rustup update stable"
}

# ---- Docker engine ------------------------------------------------------------------------------

engine_pid() { remembered_process "$STATE_DIR/engine.pid"; }

# Stops with the engine's own words when it does not answer in time.
wait_for_engine() {
  local deadline=$((SECONDS + ENGINE_WAIT_SECS)) log=$1
  until engine_version >/dev/null; do
    if [ $SECONDS -ge $deadline ] || { [ -e "$STATE_DIR/engine.pid" ] && ! engine_pid >/dev/null; }; then
      [ -z "$log" ] || log_tail "$log"
      rm -f "$STATE_DIR/engine.pid"
      die "the Docker engine does not answer at $DOCKER_HOST" "see ${log:-journalctl -u docker}; then run this again"
    fi
    sleep 0.2
  done
}

# Where no systemd runs the engine is ours: `engine.pid` says so, and stop_engine ends it.
start_engine() {
  local log=$STATE_DIR/dockerd.log pid
  : >"$log"
  # shellcheck disable=SC2016 # the inner shell expands it
  pid=$("${SUDO[@]}" sh -c 'setsid dockerd >>"$1" 2>&1 </dev/null & echo $!' sh "$log" 9>&-)
  remember_process "$pid" "$STATE_DIR/engine.pid"
  wait_for_engine "$log"
}

ensure_engine() {
  local version
  if version=$(engine_version); then
    have "Docker engine $version"
    return
  fi
  [ "$DOCKER_HOST" = "$DEFAULT_ENGINE" ] || die "no Docker engine answers at DOCKER_HOST=$DOCKER_HOST" "start it, or unset DOCKER_HOST"
  if systemd_runs; then
    doing "start the Docker engine: systemctl start docker"
    [ "$DRY_RUN" = no ] || return 0
    need_root "start Docker"
    "${SUDO[@]}" systemctl start docker 9>&- || die "systemctl cannot start docker" "see: journalctl -u docker"
    wait_for_engine ''
  else
    doing "start the Docker engine in the background, log in $(tilde "$STATE_DIR/dockerd.log")"
    [ "$DRY_RUN" = no ] || return 0
    need_root "start Docker"
    start_engine
  fi
  have "Docker engine $(engine_version)"
}

# The kill command is not part of a bare system, only the shell's own is.
send() { kill "-$1" "$2" 2>/dev/null || "${SUDO[@]}" sh -c "kill -$1 $2" 2>/dev/null || true; }

# end_process PID: TERM, then KILL when it is late. It may be root's.
end_process() {
  local deadline=$((SECONDS + STOP_WAIT_SECS))
  send TERM "$1"
  while alive "$1"; do
    if [ $SECONDS -ge $((deadline + 5)) ]; then die "process $1 does not end" "end it: sudo kill -KILL $1"; fi
    if [ $SECONDS -ge $deadline ]; then send KILL "$1"; fi
    sleep 0.1
  done
}

stop_engine() {
  local others pid
  pid=$(engine_pid) || return 0
  others=$(as_docker docker ps --format '{{.Label "io.mcp-orchestrator.stack"}}' | grep -vxc "$STACK" || true)
  if [ "$others" != 0 ]; then
    have "the Docker engine stays up: $others container(s) of others run on it (sudo kill $pid ends it)"
    return
  fi
  doing "stop the Docker engine that was started here"
  [ "$DRY_RUN" = no ] || return 0
  end_process "$pid"
  rm -f "$STATE_DIR/engine.pid"
}

# ---- build ------------------------------------------------------------------------------

# musl where its target and compiler are installed, else glibc; either way linked statically.
build_target() {
  local host musl
  host=$(rustc -vV | sed -n 's/^host: //p')
  musl=${host/-gnu/-musl}
  if has musl-gcc && [ -d "$(rustc --print sysroot)/lib/rustlib/$musl" ]; then echo "$musl"; else echo "$host"; fi
}

# One static binary is the host's daemon and the image's content: a second build would cost
# minutes. With --target the flags below stay away from build scripts, and the artifacts
# stay away from those of a plain `cargo build`.
ensure_binary() {
  local target before=none quiet=(-q)
  if [ "$DRY_RUN" = yes ]; then
    doing "build: cargo build --release --locked, statically linked"
    return
  fi
  target=$(build_target)
  BINARY=$TARGET_DIR/$target/release/mcp-orchestrator
  [ -x "$BINARY" ] && before=$(sum_of "$BINARY")
  if [ "$before" = none ]; then doing "build for $target; the first time takes some minutes"; fi
  [ -t 2 ] && quiet=()
  RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static" "$CARGO" build "${quiet[@]}" --release --locked \
    --bin mcp-orchestrator --target "$target" --target-dir "$TARGET_DIR" 9>&- </dev/null ||
    die "the build failed" "read the compiler's message above; with 'signal: 9' memory ran out: try CARGO_BUILD_JOBS=1"
  if [ "$before" = "$(sum_of "$BINARY")" ]; then have "the binary, already built"; else have "the binary $(tilde "$BINARY")"; fi
}

# ---- commands -------------------------------------------------------------------------------------

# shellcheck source=packaging/install/packages.sh
source "$HERE/packaging/install/packages.sh"
# shellcheck source=packaging/install/layout.sh
source "$HERE/packaging/install/layout.sh"
# shellcheck source=packaging/install/install.sh
source "$HERE/packaging/install/install.sh"
# shellcheck source=packaging/install/uninstall.sh
source "$HERE/packaging/install/uninstall.sh"
# shellcheck source=packaging/demo/demo.sh
[ ! -e "$HERE/packaging/demo/demo.sh" ] || source "$HERE/packaging/demo/demo.sh"

main() {
  local word
  for word in "$@"; do
    case $word in -h | --help) usage && return ;; esac
  done
  set_colours
  trap 'die "line $LINENO failed: $BASH_COMMAND" "run it again; if that does not help: bash -x ./setup.sh"' ERR
  case ${1:-install} in
    demo) shift && demo "$@" ;;
    install | --*) install_main "$@" ;;
    *) usage_error "unknown command '$1'" ;;
  esac
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then main "$@"; fi
