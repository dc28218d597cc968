#!/usr/bin/env bash
# The boot test: a real Debian with its own systemd and Docker engine under systemd-nspawn, the
# package installed in it, and clients that call through the gateway while everything is restarted,
# killed, upgraded and rebooted. README.md says what is checked.
#
# It needs root and the programs below, and fails where they are not: nothing is skipped. The guest has
# a network, a cgroup tree and a disk of its own. Its root is made once from Debian and kept as an
# archive in the cache; everything else goes when this script ends, however it ends.
set -Eeuo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly HERE
readonly SUITES=(bookworm trixie)
SUITE=bookworm
readonly CACHE=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/mcp-orchestrator
# The guest's system. nodejs is for a server that runs as a process.
PACKAGES=systemd,systemd-sysv,dbus,docker.io,iptables,nodejs,procps,iproute2
readonly NEEDED=(systemd-nspawn mmdebstrap nsenter unshare setpriv zstd tar dpkg-deb python3)
WORK='' NEW_ARCHIVE=''

usage() {
  cat <<'USAGE'
Usage: tests/boot/run.sh --deb FILE --fixture FILE [--suite NAME]
                         [--logs DIRECTORY] [SCENARIO...]

  --deb FILE       the package to test
  --fixture FILE   the static mcp-fixture of tests/fixture
  --suite NAME     the guest's Debian: bookworm (12, the default) or trixie (13)
  --logs DIRECTORY where the guest's journal and console go
  SCENARIO         only these, and what they stand on

./tests/run.sh --only boot builds both and runs everything. Root is needed.
USAGE
}

fail() {
  printf 'FAIL %s\n%s' "$1" "${2:+     hint: $2$'\n'}"
  echo '0 passed, 1 failed'
  exit 1
}

clean_up() {
  trap - EXIT
  [ -z "$NEW_ARCHIVE" ] || rm -f -- "$NEW_ARCHIVE"
  [ -n "$WORK" ] || return 0
  # The guest is dead by now; a mount that it left would take the host's files with it.
  while read -r mounted; do umount --lazy "$mounted" || true; done < <(
    awk -v below="$WORK/" 'index($5, below) == 1 { print $5 }' /proc/self/mountinfo | sort -r)
  rm -rf --one-file-system -- "$WORK"
}

need() {
  local missing=() tool
  [ "$(id -u)" = 0 ] || fail "the boot test boots a machine: it needs root" "sudo tests/boot/run.sh ..."
  for tool in "${NEEDED[@]}"; do command -v "$tool" >/dev/null || missing+=("$tool"); done
  [ ${#missing[@]} = 0 ] || fail "not there: ${missing[*]}" "apt-get install systemd-container mmdebstrap zstd python3"
  [ -r "$DEB" ] || fail "no package '$DEB'" "./tests/run.sh --only boot builds it"
  [ -x "$FIXTURE" ] || fail "no fixture '$FIXTURE'" "./tests/run.sh --only boot builds it"
}

# The guest's root: unpacked from an archive that is named by what it is made from.
unpack_root() {
  local key archive options=() line
  key=$(printf '%s\n' "$SUITE" "$PACKAGES" "$(declare -f make_root)" | sha256sum | cut -c1-12)
  archive=$CACHE/boot-root-$SUITE-$key.tar.zst
  if [ ! -s "$archive" ]; then
    echo "     the guest's system is made from Debian packages"
    while read -r line; do options+=("--aptopt=$line"); done < <(
      apt-config dump 2>/dev/null | grep -E '^Acquire::https?::Proxy ' || true)
    mkdir -p "$CACHE"
    NEW_ARCHIVE=$archive.new.$$
    make_root "$NEW_ARCHIVE" "${options[@]}" >"$LOGS/mmdebstrap.txt" 2>&1 || {
      tail -n 15 "$LOGS/mmdebstrap.txt"
      fail "the guest's system cannot be made from Debian" "is the package mirror reachable? see $LOGS/mmdebstrap.txt"
    }
    mv "$NEW_ARCHIVE" "$archive"
  fi
  mkdir "$WORK/root"
  tar --zstd --extract --preserve-permissions --numeric-owner --xattrs --xattrs-include='*' \
    --file "$archive" --directory "$WORK/root"
  tr -d - </proc/sys/kernel/random/uuid >"$WORK/root/etc/machine-id"
}

# make_root ARCHIVE OPTION...
make_root() {
  local archive=$1
  shift
  # shellcheck disable=SC2016 # for the shell of the hook
  mmdebstrap --mode=root --variant=minbase --format=tar --include="$PACKAGES" --aptopt='Acquire::Retries "3"' \
    --dpkgopt=force-unsafe-io "$@" --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook='mkdir -p "$1/var/log/journal" "$1/opt/boot-test"' \
    --customize-hook='rm -f "$1/etc/machine-id" "$1/etc/resolv.conf" "$1/etc/modules-load.d/"* "$1/usr/lib/modules-load.d/"*' \
    --customize-hook='ln -sf /dev/null "$1/etc/systemd/system/systemd-modules-load.service"' \
    "$SUITE" - | zstd -q -T0 -3 >"$archive"
}

main() {
  DEB='' FIXTURE='' LOGS=''
  local scenarios=() rc=0
  while [ $# != 0 ]; do
    case $1 in
      -h | --help) usage && return ;;
      --deb) DEB=${2:-} && shift ;;
      --fixture) FIXTURE=${2:-} && shift ;;
      --suite) SUITE=${2:-} && shift ;;
      --logs) LOGS=${2:-} && shift ;;
      -*) usage >&2 && return 2 ;;
      *) scenarios+=("$1") ;;
    esac
    shift
  done
  [[ " ${SUITES[*]} " = *" $SUITE "* ]] || fail "no guest is made of '$SUITE'" "--suite takes ${SUITES[*]}"
  # The client is a package of its own there.
  [ "$SUITE" = bookworm ] || PACKAGES+=,docker-cli
  need
  trap clean_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  WORK=$(mktemp -d /var/tmp/mcpo-boot.XXXXXX)
  LOGS=${LOGS:-$WORK/logs}
  mkdir -p "$LOGS"
  unpack_root
  python_for_checks -B "$HERE/main.py" "$WORK/root" "$DEB" "$FIXTURE" "$LOGS" "${scenarios[@]}" || rc=$?
  return $rc
}

# The system's own: what else is called python3 may be a wrapper that is slow to start.
python_for_checks() { if [ -x /usr/bin/python3 ]; then /usr/bin/python3 "$@"; else python3 "$@"; fi; }

main "$@"
