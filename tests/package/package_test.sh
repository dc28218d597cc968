#!/usr/bin/env bash
# The .deb as an administrator meets it: built, looked at by lintian, installed, installed again,
# upgraded over changed files, removed and purged in a Debian of its own; then setup.sh in the same.
# No systemd runs there: what one does with the unit is tests/boot's business.
#
# package_test.sh BINARY LOGS; needs root. Ends with `N passed, N failed`.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
BINARY=$(realpath "${1:?which program}")
LOGS=$(realpath -m "${2:?where logs go}")
CACHE=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/mcp-orchestrator
SUITE=bookworm
EXPOSURE_MAX=15 # tenths, for `systemd-analyze security`
PASSED=0 FAILED=0

fail_all() {
  printf 'FAILED %s\n' "$1"
  echo "$PASSED passed, $((FAILED + 1)) failed"
  exit 1
}

[ "$(id -u)" = 0 ] || fail_all "this needs root, for a chroot"
for tool in lintian dpkg-deb rpmbuild rpm tar unshare chroot; do command -v "$tool" >/dev/null || fail_all "there is no $tool"; done

BOX=$(mktemp -d /var/tmp/mcpo-package.XXXXXX)
trap 'rm -rf --one-file-system -- "$BOX"' EXIT
ROOT=$BOX/root
mkdir -p "$LOGS" "$ROOT"

# expect WHAT COMMAND...
expect() {
  local what=$1 out
  shift
  if out=$("$@" 2>&1); then
    PASSED=$((PASSED + 1))
    printf 'ok     %s%s\n' "$what" "${NOTE:+: $NOTE}"
  else
    FAILED=$((FAILED + 1))
    printf 'FAILED %s\n%s\n' "$what" "$(tail -n 20 <<<"$out" | sed 's/^/       /')"
  fi
  NOTE=''
}
NOTE=''

# ---- a Debian ------------------------------------------------------------------------------------

# The boot test's archive serves too; without one a smaller one is made and kept.
unpack_debian() {
  local archive
  archive=$(find "$CACHE" -maxdepth 1 -name "boot-root-$SUITE-*.tar.zst" 2>/dev/null | head -n 1)
  [ -n "$archive" ] || archive=$(find "$CACHE" -maxdepth 1 -name "package-root-$SUITE.tar" 2>/dev/null)
  if [ -z "$archive" ]; then
    archive=$CACHE/package-root-$SUITE.tar
    mkdir -p "$CACHE"
    mmdebstrap -q --mode=root --variant=minbase --format=tar --include=systemd --aptopt='Acquire::Retries "3"' \
      --dpkgopt=force-unsafe-io "$SUITE" "$archive.new" || fail_all "no Debian could be made: is the mirror reachable?"
    mv "$archive.new" "$archive"
  fi
  tar -xf "$archive" -C "$ROOT" --exclude='./usr/share/doc/*' --exclude='./usr/lib/x86_64-linux-gnu/dri/*'
}

inside() {
  # shellcheck disable=SC2016 # the inner shell expands them
  unshare --mount --propagation private bash -c 'mount -t proc proc "$1/proc"; root=$1; shift
    exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
      DEBIAN_FRONTEND=noninteractive NO_COLOR=1 chroot "$root" "$@"' inside "$ROOT" "$@"
}

# Everything in the root that is not the package manager's own book-keeping or a user.
snapshot() {
  (cd "$ROOT" && find . -xdev \( -path ./proc -o -path ./tmp -o -path ./var/lib/dpkg -o -path ./var/lib/systemd/deb-systemd-helper-enabled \
    -o -path ./var/lib/systemd/catalog -o -path ./var/log -o -path ./var/cache -o -path ./run \) -prune -o -type f -print -o -type l -print -o -type d -print |
    grep -vE '^\./etc/(passwd|group|shadow|gshadow|subuid|subgid)-?$|^\./etc/\.pwd.lock$' | LC_ALL=C sort)
}
contents() { (cd "$ROOT" && find etc/mcp-orchestrator etc/credstore var/lib/mcp-orchestrator -type f -exec sha256sum {} + | sort -k2); }

# ---- what is expected ----------------------------------------------------------------------------

same() { diff -u "$1" "$2"; }
stat_is() { [ "$(inside stat -c '%a %U:%G' "$2")" = "$1" ] || { inside stat -c '%a %U:%G' "$2" && false; }; }
absent() { [ ! -e "$ROOT$1" ] && [ ! -L "$ROOT$1" ]; }
there() { [ -e "$ROOT$1" ] || [ -L "$ROOT$1" ]; }
holds() { grep -qF -- "$2" "$ROOT$1"; }

build() { "$HERE/packaging/build.sh" deb --binary "$BINARY" --out "$1"; }

build_twice() {
  DEB_COMPRESS=gzip build "$BOX/a" && DEB_COMPRESS=gzip build "$BOX/b" && cmp "$BOX"/a/*.deb "$BOX"/b/*.deb
}

# next_version: the same program as a newer package with other defaults in the conffile.
next_version() {
  local tree=$BOX/next
  dpkg-deb -R "$BOX"/a/*.deb "$tree" &&
    sed -i 's/^Version: .*/Version: 999.0-1/' "$tree/DEBIAN/control" &&
    echo '# a line of the newer version' >>"$tree/etc/mcp-orchestrator/settings.conf" &&
    mkdir -p "$BOX/c" && dpkg-deb --root-owner-group -Znone --build "$tree" "$BOX/c/next.deb"
}

rpm_twice() {
  "$HERE/packaging/build.sh" rpm --binary "$BINARY" --out "$BOX/r" && "$HERE/packaging/build.sh" rpm --binary "$BINARY" --out "$BOX/r2" &&
    cmp "$BOX"/r/*.rpm "$BOX"/r2/*.rpm
}

# Nothing but what the overrides explain.
lintian_clean() {
  local out
  out=$(lintian --fail-on error,warning --suppress-tags initial-upload-closes-no-bugs "$BOX"/a/*.deb 2>&1) || { echo "$out" && return 1; }
  ! grep -E '^[EW]:' <<<"$out"
}

manual_of_every_command() {
  local command
  dpkg-deb -c "$BOX"/a/*.deb >"$LOGS/contents.txt"
  for command in $("$BINARY" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z-]*\) .*/\1/p'); do
    [ "$command" = help ] || grep -q "/man1/mcp-orchestrator-$command.1.gz$" "$LOGS/contents.txt" || { echo "no page: $command" && return 1; }
  done
  for command in bash-completion/completions/mcp-orchestrator zsh/vendor-completions/_mcp-orchestrator \
    fish/vendor_completions.d/mcp-orchestrator.fish doc/mcp-orchestrator/copyright doc/mcp-orchestrator/operations.md; do
    grep -q "usr/share/$command$" "$LOGS/contents.txt" || { echo "not in it: $command" && return 1; }
  done
}

units() { (cd "$ROOT/usr/lib/systemd/system" && ls -d mcp-orchestrator*.service mcp-orchestrator*.socket); }
unit_verified() {
  local out rc=0
  out=$(inside systemd-analyze verify --man=no "/usr/lib/systemd/system/$1" 2>&1) || rc=$?
  echo "$out"
  [ $rc = 0 ] && [ -z "$out" ]
}
exposure() { inside systemd-analyze security --offline=yes --no-pager "/usr/lib/systemd/system/$1" | sed -n 's/.*: \([0-9.]*\) .*/\1/p' | tail -n 1; }
exposure_fine() { [ "$(tr -d . <<<"$1")" -le $EXPOSURE_MAX ]; }

# ---- the package ---------------------------------------------------------------------------------

package_is_built() {
  expect 'two builds give the same bytes' build_twice
  [ -n "$(find "$BOX/a" -name '*.deb')" ] || fail_all 'no package'
  expect 'a newer package' next_version
  expect 'lintian finds neither errors nor warnings' lintian_clean
  expect 'a man page for every command, completions, copyright' manual_of_every_command
}

package_is_installed() {
  local etc=/etc/mcp-orchestrator password=/etc/credstore/mcp-orchestrator.dashboard-password score
  snapshot >"$BOX/before"
  cp "$BOX"/a/*.deb "$ROOT/tmp/first.deb"
  cp "$BOX/c/next.deb" "$ROOT/tmp/next.deb"
  expect 'it installs' inside dpkg -i /tmp/first.deb
  expect 'the program runs as its user' inside setpriv --reuid mcp-orchestrator --regid mcp-orchestrator --clear-groups mcp-orchestrator --version
  expect "$etc" stat_is '2770 root:mcp-orchestrator' $etc
  expect "$etc/mcp.config.json" stat_is '660 root:mcp-orchestrator' $etc/mcp.config.json
  expect "$etc/settings.conf" stat_is '640 root:mcp-orchestrator' $etc/settings.conf
  expect 'the state directory' stat_is '700 mcp-orchestrator:mcp-orchestrator' /var/lib/mcp-orchestrator
  expect 'the password' stat_is '600 root:root' $password
  expect 'the password has 24 characters' grep -qxE '[A-Za-z0-9]{24}' "$ROOT$password"
  expect 'it starts at boot' there /etc/systemd/system/multi-user.target.wants/mcp-orchestrator.service
  expect 'the optional socket does not' absent /etc/systemd/system/sockets.target.wants/mcp-orchestrator.socket
  expect 'both files are good' inside mcp-orchestrator validate
  for unit in $(units); do
    expect "systemd-analyze verify $unit" unit_verified "$unit"
  done
  score=$(exposure mcp-orchestrator.service)
  NOTE=$score expect 'systemd-analyze security mcp-orchestrator.service, at most 1.5' exposure_fine "$score"
  expect 'dpkg finds no changed file' inside dpkg -V mcp-orchestrator
}

package_is_upgraded() {
  contents >"$BOX/files"
  expect 'it installs again' inside dpkg -i /tmp/first.deb
  expect 'which changes nothing of the user' same "$BOX/files" <(contents)
  echo '// mine' >>"$ROOT/etc/mcp-orchestrator/mcp.config.json"
  sed -i 's/^#port = 5000/port = 5001/' "$ROOT/etc/mcp-orchestrator/settings.conf"
  echo state >"$ROOT/var/lib/mcp-orchestrator/state.db"
  rm "$ROOT/etc/systemd/system/multi-user.target.wants/mcp-orchestrator.service"
  contents >"$BOX/files"
  expect 'it is upgraded over changed files' inside dpkg -i --force-confold /tmp/next.deb
  expect 'which keeps them' same "$BOX/files" <(contents | grep -v dpkg-dist)
  expect 'the new settings.conf lies beside the changed one' holds /etc/mcp-orchestrator/settings.conf.dpkg-dist 'newer version'
  expect 'what was disabled stays so' absent /etc/systemd/system/multi-user.target.wants/mcp-orchestrator.service
  rm "$ROOT/etc/mcp-orchestrator/mcp.config.json"
  expect 'it is installed once more' inside dpkg -i --force-confold /tmp/next.deb
  expect 'a removed mcp.config.json does not come back' absent /etc/mcp-orchestrator/mcp.config.json
}

package_is_removed() {
  contents >"$BOX/files"
  expect 'it is removed' inside dpkg -r mcp-orchestrator
  expect 'the program is gone' absent /usr/bin/mcp-orchestrator
  expect 'what is the user'\''s is still there' same "$BOX/files" <(contents)
  expect 'it is purged' inside dpkg -P mcp-orchestrator
  expect 'nothing is left' same "$BOX/before" <(snapshot)
}

# ---- the other package ------------------------------------------------------------------------------

# Its files and scriptlets in the same tree; what it depends on has other names there.
rpm_works_too() {
  local rpm=(rpm --root "$ROOT" --dbpath /var/lib/rpm --nodeps)
  expect 'the .rpm is built, twice with the same bytes' rpm_twice
  rpm -qpl "$BOX"/r/*.rpm >"$LOGS/rpm.txt" 2>/dev/null
  rpm -qp --scripts "$BOX"/r/*.rpm >>"$LOGS/rpm.txt" 2>/dev/null
  expect 'it installs' "${rpm[@]}" -i --ignorearch "$BOX"/r/*.rpm
  expect 'with the same owners' stat_is '640 root:mcp-orchestrator' /etc/mcp-orchestrator/settings.conf
  expect 'and of the file that is in no package' stat_is '660 root:mcp-orchestrator' /etc/mcp-orchestrator/mcp.config.json
  contents >"$BOX/files"
  expect 'it is erased' "${rpm[@]}" -e mcp-orchestrator
  expect 'the program is gone' absent /usr/bin/mcp-orchestrator
  expect 'no directory of its own is left' absent /usr/share/mcp-orchestrator
  expect 'what is made for the user is not' same <(grep -v settings.conf "$BOX/files") <(contents)
  rm -rf "$ROOT/etc/mcp-orchestrator" "$ROOT/etc/credstore" "$ROOT/var/lib/mcp-orchestrator" "$ROOT/var/lib/rpm"
  rmdir "$ROOT/usr/share/zsh/site-functions" # no package of this tree owns it
}

# ---- setup.sh ------------------------------------------------------------------------------------

setup_works_too() {
  mkdir -p "$ROOT/tmp/checkout" "$ROOT/tmp/checkout/bin"
  cp -R "$HERE/setup.sh" "$HERE/packaging" "$HERE/systemd" "$HERE/etc" "$HERE/docs" "$HERE/README.md" "$HERE/SECURITY.md" "$ROOT/tmp/checkout/"
  cp "$BINARY" "$ROOT/tmp/checkout/bin/mcp-orchestrator"
  expect 'setup.sh installs' inside /tmp/checkout/setup.sh
  expect 'the program is in /usr/local' inside /usr/local/bin/mcp-orchestrator --version
  expect 'its unit starts it there' holds /usr/local/lib/systemd/system/mcp-orchestrator.service 'ExecStart=/usr/local/bin/mcp-orchestrator run'
  expect 'the same owners' stat_is '660 root:mcp-orchestrator' /etc/mcp-orchestrator/mcp.config.json
  snapshot >"$BOX/installed"
  contents >"$BOX/files"
  inside /tmp/checkout/setup.sh >"$BOX/second" || true
  expect 'a second run says that nothing was changed' grep -q 'nothing was changed' "$BOX/second"
  expect 'and changes nothing' same "$BOX/installed" <(snapshot)
  expect 'nor any content' same "$BOX/files" <(contents)
  expect 'setup.sh --uninstall' inside /tmp/checkout/setup.sh --uninstall
  expect 'keeps what is the user'\''s' same "$BOX/files" <(contents)
  expect 'setup.sh --uninstall --purge' inside /tmp/checkout/setup.sh --uninstall --purge
  expect 'leaves nothing' same <(grep -v '^\./usr/local' "$BOX/before") <(snapshot | grep -v '^\./usr/local')
  expect 'not even in /usr/local' test -z "$(find "$ROOT/usr/local" -name '*mcp*')"
  inside dpkg -i /tmp/first.deb >/dev/null 2>&1 || true
  expect 'beside the package it refuses' refused_beside_package
}

refused_beside_package() {
  local out rc=0
  out=$(inside /tmp/checkout/setup.sh 2>&1) || rc=$?
  [ $rc = 1 ] && grep -q 'is installed: two installations' <<<"$out"
}

unpack_debian
package_is_built
package_is_installed
package_is_upgraded
package_is_removed
rpm_works_too
setup_works_too
echo "$PASSED passed, $FAILED failed"
[ $FAILED = 0 ]
