# shellcheck shell=bash disable=SC2154 # setup.sh sources this and has the rest
# Package managers. Packages are asked for by Debian's names; elsewhere they are translated.
#
# Tried: apt on Debian 12 and 13. Only read: apt on Ubuntu, dnf on Amazon Linux 2023, Fedora and the
# families of RHEL 9.

OS_RELEASE=/etc/os-release

# shellcheck disable=SC1090 # each system has its own
of_release() { [ -r "$OS_RELEASE" ] && (. "$OS_RELEASE" && printf '%s' "${!1:-}"); }

# What this distribution is and is like: `debian`, `ubuntu debian`, `amzn fedora`, `rocky rhel centos fedora`.
distribution() { echo "$(of_release ID) $(of_release ID_LIKE)"; }
distribution_name() { of_release PRETTY_NAME | grep . || echo 'this system'; }

distribution_label() { case " $(distribution)" in ' debian '*) echo Debian ;; *) distribution_name ;; esac; }

manager() {
  local name
  for name in apt-get dnf; do
    if has "$name"; then
      echo "$name"
      return
    fi
  done
  return 1
}

# docker_package: the engine as the distribution has it; fails where it has none.
docker_package() {
  case " $(distribution) " in
    *' amzn '*) echo docker ;;
    *' rhel '* | *' centos '*) return 1 ;; # RHEL and its rebuilds have podman only
    *' fedora '*) echo moby-engine ;;
    *' debian '* | *' ubuntu '*) echo docker.io ;;
    *) return 1 ;;
  esac
}

# translated NAME: this distribution's packages for a package of Debian.
translated() {
  [ "$(manager)" = dnf ] || { echo "$1" && return; }
  case $1 in
    libc6-dev) echo glibc-devel glibc-static ;;
    docker.io) docker_package ;;
    *) echo "$1" ;;
  esac
}

run_manager() {
  case $(manager) in
    apt-get)
      "${SUDO[@]}" apt-get update -qq -o Acquire::Retries=3 &&
        "${SUDO[@]}" env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
          apt-get install -y -qq -o Acquire::Retries=3 --no-install-recommends "$@"
      ;;
    dnf) "${SUDO[@]}" dnf install -y -q --setopt=install_weak_deps=False "$@" ;;
  esac
}

install_packages() {
  local log=$STATE_DIR/packages.log name manager
  local -a names=()
  need_root "install $*"
  manager=$(manager) || die "this system has neither apt-get nor dnf" "install what matches the Debian packages $*, then run this again"
  for name in "$@"; do
    name=$(translated "$name") || die "$(distribution_name) has no Docker of its own" "install it as https://docs.docker.com/engine/install/ says, then run this again"
    # shellcheck disable=SC2206 # one name may stand for several
    names+=($name)
  done
  run_manager "${names[@]}" >"$log" 2>&1 9>&- </dev/null || {
    log_tail "$log"
    die "cannot install ${names[*]}" "make '$manager install ${names[*]}' work, then run this again"
  }
  printf '%s\n' "${names[@]}" >>"$STATE_DIR/installed"
}
