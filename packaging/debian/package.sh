# shellcheck shell=bash disable=SC2154 # packaging/build.sh sources this and has the rest
# The .deb, by dpkg-deb.

# The C library it was linked with, from the program itself.
libc_wanted() { grep -aoE 'GLIBC_2\.[0-9]+' "$1" | sort -Vu | tail -n 1 | cut -d_ -f2; }

deb_depends() {
  local all=
  is_static "$1" || all="libc6 (>= $(libc_wanted "$1")), libgcc-s1 (>= 4.2), "
  echo "${all}systemd | systemd-standalone-sysusers, systemd | systemd-standalone-tmpfiles"
}

deb_control() {
  cat <<CONTROL
Package: $NAME
Version: $1
Architecture: $(deb_arch "$BINARY")
Maintainer: mcp-orchestrator maintainers <maintainers@mcp-orchestrator.invalid>
Installed-Size: $2
Depends: $(deb_depends "$BINARY")
Recommends: ca-certificates, docker.io | docker-ce
Section: admin
Priority: optional
Description: MCP servers, host ports and AWS load balancer rules from one file
$(sed -e 's/^$/./' -e 's/^/ /' "$HERE/packaging/debian/description")
CONTROL
}

# What lintian wants under its own names.
deb_documents() {
  local root=$1 doc=$1/usr/share/doc/$NAME
  install -m 0644 "$HERE/packaging/debian/copyright" "$doc/copyright"
  gzip -9n <"$HERE/CHANGELOG.md" >"$doc/changelog.gz"
  gzip -9n <"$HERE/packaging/debian/changelog" >"$doc/changelog.Debian.gz"
  install -D -m 0644 "$HERE/packaging/debian/doc-base" "$root/usr/share/doc-base/$NAME.$NAME"
  install -D -m 0644 "$HERE/packaging/debian/lintian-overrides" "$root/usr/share/lintian/overrides/$NAME"
}

build_deb() {
  local root=$WORK/deb file version script level=3
  case ${DEB_COMPRESS:-xz} in none) level=0 ;; gzip) level=1 ;; esac
  need_tool dpkg-deb dpkg
  ensure_program
  version=$(version)-1
  file=${NAME}_${version}_$(deb_arch "$BINARY").deb
  stage deb "$BINARY"
  deb_documents "$root"
  mkdir "$root/DEBIAN"
  (cd "$root" && find usr etc -type f | LC_ALL=C sort | grep -v '^etc/' | xargs md5sum) >"$root/DEBIAN/md5sums"
  deb_control "$version" "$(du -sk --apparent-size --exclude=DEBIAN "$root" | cut -f1)" >"$root/DEBIAN/control"
  echo "/etc/$NAME/settings.conf" >"$root/DEBIAN/conffiles"
  install -m 0644 "$HERE/packaging/debian/triggers" "$root/DEBIAN/triggers"
  for script in preinst postinst prerm postrm; do install -m 0755 "$HERE/packaging/debian/$script" "$root/DEBIAN/$script"; done
  same_times "$root"
  dpkg-deb --root-owner-group -Z"${DEB_COMPRESS:-xz}" -z"$level" --build "$root" "$OUT/$file" >/dev/null
  have "$(tilde "$OUT/$file")"
}
