# shellcheck shell=bash disable=SC2154 # setup.sh sources this and has the rest
# Installing on this system, or below DESTDIR for another one; upgrading is installing again.
#
# Files of the program are replaced when they differ. Files of the user are made once and never
# touched again; only --purge removes them.

readonly SERVICE=mcp-orchestrator.service
readonly RUNNER=mcp-orchestrator-runner.service
readonly UNIT_NAME=mcp-orchestrator
readonly ETC_DIR=/etc/mcp-orchestrator
PREFIX=/usr/local
DESTDIR=${DESTDIR:-}
NO_START=no
WITH_DOCKER=no
GIVEN_BINARY=
CHANGES=0  # things done, or that a dry run would do
REPLACED=0 # of them: files the running daemon was started from
WORK_DIR=

here_root() { [ -z "$DESTDIR" ]; }
manifest() { echo "$DESTDIR$PREFIX/share/mcp-orchestrator/installed-files"; }
as_root() { "${SUDO[@]}" "$@"; }

# act TEXT COMMAND...: one change.
act() {
  CHANGES=$((CHANGES + 1))
  doing "$1"
  shift
  [ "$DRY_RUN" = yes ] || "$@"
}

parse_install() {
  while [ $# != 0 ]; do
    case $1 in
      install) ;;
      --prefix) PREFIX=${2:-} && shift ;;
      --prefix=*) PREFIX=${1#*=} ;;
      --binary) GIVEN_BINARY=${2:-} && shift ;;
      --binary=*) GIVEN_BINARY=${1#*=} ;;
      --no-start) NO_START=yes ;;
      --with-docker) WITH_DOCKER=yes ;;
      --dry-run) DRY_RUN=yes ;;
      --uninstall) ACTION=uninstall ;;
      --purge) PURGE=yes ;;
      --check) ACTION=check ;;
      *) usage_error "unknown word '$1'" ;;
    esac
    shift || usage_error "an option lacks its value"
  done
  PREFIX=${PREFIX%/} DESTDIR=${DESTDIR%/}
  [[ $PREFIX = /* && $PREFIX != *[[:space:]]* ]] || usage_error "--prefix needs an absolute path without blanks, not '$PREFIX'"
  [[ -z $DESTDIR || $DESTDIR = /* ]] || usage_error "DESTDIR needs an absolute path, not '$DESTDIR'"
  [ "$PURGE" = no ] || [ "$ACTION" = uninstall ] || usage_error "--purge goes with --uninstall"
}

# ---- what is in the way -------------------------------------------------------------------------

# package_version: of a package of ours that this system has.
package_version() {
  if has dpkg-query; then
    dpkg-query -W -f '${db:Status-Status} ${Version}\n' "$UNIT_NAME" 2>/dev/null | sed -n 's/^installed //p' | grep . && return
  fi
  if has rpm; then rpm -q --qf '%{VERSION}-%{RELEASE}\n' "$UNIT_NAME" 2>/dev/null && return; fi
  return 1
}

refuse_beside_package() {
  local version
  here_root || return 0
  version=$(package_version) || return 0
  die "the package $UNIT_NAME $version is installed: two installations would share one configuration" \
    "upgrade or remove the package with $(manager || echo 'the package manager') instead"
}

# ---- the program ---------------------------------------------------------------------------------

# From --binary, from a release archive (bin/ beside this script), else built here.
find_program() {
  if [ -n "$GIVEN_BINARY" ]; then
    [ -x "$GIVEN_BINARY" ] || die "$GIVEN_BINARY is no program" "give the path of the binary with --binary"
    BINARY=$(realpath "$GIVEN_BINARY")
  elif [ -x "$HERE/bin/mcp-orchestrator" ]; then
    BINARY=$HERE/bin/mcp-orchestrator
  else
    build_program
    return
  fi
  "$BINARY" --version >/dev/null 2>&1 || die "$BINARY does not run here" "is it made for $(uname -m), and is the C library new enough (glibc 2.34)?"
}

# As users build it: their own C library, and nothing that a release needs besides.
build_program() {
  BINARY=$TARGET_DIR/release/mcp-orchestrator
  find_missing_build_packages
  ensure_packages
  ensure_rust
  if [ "$DRY_RUN" = yes ]; then
    doing "build: cargo build --release --locked"
    return
  fi
  [ -x "$BINARY" ] || doing "build; the first time takes some minutes"
  "$CARGO" build -q --release --locked --bin mcp-orchestrator --target-dir "$TARGET_DIR" 9>&- </dev/null ||
    die "the build failed" "read the compiler's message above; with 'signal: 9' memory ran out: try CARGO_BUILD_JOBS=1"
}

# ---- files ---------------------------------------------------------------------------------------

# look_at FILE...: fills SUMS and MODES for those that exist, with two calls for all of them.
look_at() {
  local file sum mode
  local -a there=()
  for file in "$@"; do [ ! -f "$file" ] || there+=("$file"); done
  [ ${#there[@]} != 0 ] || return 0
  while read -r sum file; do SUMS[$file]=$sum; done < <(sha256sum -- "${there[@]}")
  while read -r mode file; do MODES[$file]=$mode; done < <(stat -c '%a %n' -- "${there[@]}")
}

# A new file beside the old one, then renamed: a program that runs is not written to, and there is
# always a whole one.
place() {
  as_root mkdir -p "$(dirname "$3")"
  as_root install -m "$1" "$2" "$3.new"
  as_root mv "$3.new" "$3"
}

# place_all MODE DIRECTORY SOURCES: pages and the like, with one call; SOURCES has a line for each.
place_all() {
  local -a sources
  mapfile -t sources <<<"$3"
  as_root mkdir -p "$2"
  as_root install -m "$1" -t "$2" -- "${sources[@]}"
}

# One line for each directory says enough.
lay_files() {
  local mode source target dir key count=0
  local -A SUMS=() MODES=() names=() batches=()
  local -a sources targets
  mapfile -t sources < <(cut -f2 "$WORK_DIR/layout")
  mapfile -t targets < <(cut -f3 "$WORK_DIR/layout")
  look_at "${sources[@]}" "${targets[@]/#/$DESTDIR}"
  while IFS=$'\t' read -r mode source target; do
    count=$((count + 1)) dir=${target%/*}
    if [ "${MODES[$DESTDIR$target]:-}" = "${mode#0}" ] && [ "${SUMS[$DESTDIR$target]}" = "${SUMS[$source]}" ]; then continue; fi
    names[$dir]="${names[$dir]:-} ${target##*/}"
    case $target in
      */bin/* | *.service | *.socket)
        REPLACED=$((REPLACED + 1))
        [ "$DRY_RUN" = yes ] || place "$mode" "$source" "$DESTDIR$target"
        ;;
      *) batches[$mode$dir]="${batches[$mode$dir]:+${batches[$mode$dir]}$'\n'}$source" ;;
    esac
  done <"$WORK_DIR/layout"
  for key in "${!batches[@]}"; do
    [ "$DRY_RUN" = yes ] || place_all "${key%%/*}" "$DESTDIR/${key#*/}" "${batches[$key]}"
  done
  while read -r dir; do
    [ -z "$dir" ] || act "install $dir/$(shortened "${names[$dir]}")" true
  done < <(printf '%s\n' "${!names[@]}" | sort)
  [ ${#names[@]} != 0 ] || have "the $count files of the program"
}

# shortened NAMES: the name, or how many there are.
shortened() {
  local -a words
  read -ra words <<<"$1"
  if [ ${#words[@]} = 1 ]; then echo "${words[0]}"; else echo " (${#words[@]} files)"; fi
}

# What an older version had and this one has not.
remove_stale() {
  local file
  cut -f3 "$WORK_DIR/layout" | sort >"$WORK_DIR/manifest"
  if [ -e "$(manifest)" ]; then
    while read -r file; do
      [ ! -e "$DESTDIR$file" ] || act "remove $file, which this version has not" as_root rm -f -- "$DESTDIR$file"
    done < <(sort "$(manifest)" | grep -vxFf "$WORK_DIR/manifest" | grep "^/" || true)
  fi
  if [ "$DRY_RUN" = no ] && [ "$(<"$WORK_DIR/manifest")" != "$(cat "$(manifest)" 2>/dev/null)" ]; then place 0644 "$WORK_DIR/manifest" "$(manifest)"; fi
}

# ---- users, directories, configuration, password ----------------------------------------------------

configure_words() {
  printf '%s\n' --prefix "$PREFIX" --units "$(units_of "$PREFIX")"
  here_root || printf '%s\n' --root "$DESTDIR"
  [ "$DRY_RUN" = no ] || echo --dry-run
}

configure_system() {
  local -a words
  local line before=$CHANGES
  mapfile -t words < <(configure_words)
  as_root "$HERE/packaging/install/configure" "${words[@]}" >"$WORK_DIR/configured" ||
    die "the system could not be set up" "see the message above"
  while read -r line; do
    case $line in *.service.d*) REPLACED=$((REPLACED + 1)) ;; esac
    act "$line" true
  done <"$WORK_DIR/configured"
  [ "$CHANGES" != "$before" ] || have "user, directories, configuration and password"
}

# ---- Docker ----------------------------------------------------------------------------------------

# The daemon works without an engine and waits for one; so does this.
look_at_docker() {
  local version package
  here_root || return 0
  if version=$(engine_version); then
    have "Docker engine $version"
  elif [ $WITH_DOCKER = yes ]; then
    install_docker
  elif has dockerd; then
    note "Docker is installed and does not answer; the daemon waits for it"
  elif package=$(docker_package); then
    note "no Docker here, and the daemon waits for one: run this with --with-docker
        to install $package from $(distribution_name)"
  else
    note "no Docker here, and the daemon waits for one. $(distribution_name) has no
        Docker of its own: see https://docs.docker.com/engine/install/"
  fi
}

install_docker() {
  MISSING=()
  find_missing_engine_packages
  ensure_packages
  [ ${#MISSING[@]} = 0 ] || CHANGES=$((CHANGES + 1))
  if systemd_runs && ! systemctl -q is-active docker; then act "start Docker: systemctl enable --now docker" as_root systemctl enable -q --now docker; fi
}

# The shipped configuration names an image that no registry has.
make_example() {
  here_root && grep -qs '^copy mcp.config.json' "$WORK_DIR/configured" || return 0
  engine_version >/dev/null && ! as_docker docker image inspect mcp/example:latest >/dev/null 2>&1 || return 0
  act "make the image mcp/example:latest, for the shipped example" image_or_say
}

image_or_say() {
  as_docker "$HERE/packaging/install/example-image" "$BINARY" >"$WORK_DIR/example" 2>&1 ||
    note "the image could not be made: $(tail -n 1 "$WORK_DIR/example")"
}

# ---- service ---------------------------------------------------------------------------------------

# A restart and not stop and start: the listening sockets stay open over it.
run_service() {
  here_root || return 0
  systemd_runs || return 0
  [ "$REPLACED" = 0 ] || [ "$DRY_RUN" = yes ] || as_root systemctl daemon-reload
  systemctl -q is-enabled $SERVICE 2>/dev/null || act "start it at boot: systemctl enable $SERVICE" as_root systemctl -q enable $SERVICE
  if ! systemctl -q is-active $SERVICE; then
    [ $NO_START = no ] || { note "not started, as asked: systemctl start $SERVICE" && return; }
    act "start $SERVICE" start_or_say start
  elif [ "$REPLACED" != 0 ] && [ $NO_START = no ]; then
    ! systemctl -q is-active $RUNNER || act "restart $RUNNER" as_root systemctl restart $RUNNER
    act "restart $SERVICE" start_or_say restart
  else
    have "$SERVICE, running"
  fi
}

start_or_say() {
  as_root systemctl "$1" $SERVICE || {
    journalctl -u $SERVICE -n 15 --no-pager -o cat >&2 || true
    die "$SERVICE does not start" "see: journalctl -u $SERVICE; then: $PREFIX/bin/mcp-orchestrator validate"
  }
}

say_next() {
  [ "$DRY_RUN" = no ] || return 0
  here_root || { printf '\nStaged below %s. At its first boot the system makes the users itself.\n' "$DESTDIR" && return; }
  printf '\nConfiguration  %s\n' "$ETC_DIR/mcp.config.json, settings.conf"
  printf 'Dashboard      user admin, password in %s\n' /etc/credstore/mcp-orchestrator.dashboard-password
  if systemd_runs; then
    printf 'Next           mcp-orchestrator status; journalctl -u mcp-orchestrator\n'
  else
    printf 'No systemd     run it in the foreground, as root or in the group docker:\n'
    printf '               %s run\n' "$PREFIX/bin/mcp-orchestrator"
  fi
}

note() { printf '%s  note%s  %s\n' "$BOLD" "$RESET" "$1"; }

# ---- commands ----------------------------------------------------------------------------------------

# The build is the caller's, the rest is root's. Below DESTDIR nobody needs to be root.
become_root() {
  SUDO=()
  here_root && ! is_root && [ "$DRY_RUN" = no ] || return 0
  need_root "install below $PREFIX"
  choose_sudo
}

install_program() {
  refuse_beside_package
  find_program
  become_root
  look_at_docker
  if [ ! -x "$BINARY" ]; then
    # A dry run has built nothing to compare with.
    doing "install program, units, man pages and completions below $PREFIX"
    CHANGES=$((CHANGES + 1))
  else
    generate "$BINARY" "$PREFIX" "$WORK_DIR/made"
    layout "$BINARY" "$PREFIX" "$WORK_DIR/made" >"$WORK_DIR/layout"
    lay_files
    remove_stale
  fi
  configure_system
  make_example
  run_service
  if [ "$CHANGES" = 0 ]; then
    have "everything; nothing was changed"
  else
    say_next
  fi
}

install_main() {
  ACTION=install PURGE=no
  parse_install "$@"
  [ "$(uname -s)" = Linux ] || die "this needs Linux" ""
  choose_sudo
  umask 022
  WORK_DIR=$(mktemp -d)
  # What the build functions want to keep; nothing of it is needed later.
  # shellcheck disable=SC2034 # setup.sh's functions use it
  STATE_DIR=$WORK_DIR
  trap 'rm -rf -- "$WORK_DIR"' EXIT
  case $ACTION in
    install) install_program ;;
    uninstall) uninstall_program ;;
    check) check_program ;;
  esac
}
