# shellcheck shell=bash disable=SC2154 # packaging/build.sh sources this and has the rest
# The .rpm, by rpmbuild from the tree that the .deb has too; Debian's package `rpm` has it.

# rpm_files ROOT: the file list. Configuration is the user's once it is there; mcp.config.json is in no
# package, so that removing one leaves it.
rpm_files() {
  echo '%defattr(-,root,root,-)'
  (cd "$1" && find usr -type d -path "*/$NAME*" -printf '%%dir /%p\n' | LC_ALL=C sort)
  (cd "$1" && find usr -type f -printf '/%p\n' | LC_ALL=C sort) | sed 's,^/usr/share/doc/,%doc /usr/share/doc/,'
  echo "%dir %attr(2770,root,$NAME) /etc/$NAME"
  echo "%config(noreplace) %attr(0640,root,$NAME) /etc/$NAME/settings.conf"
}

build_rpm() {
  local root=$WORK/rpm file doc
  need_tool rpmbuild rpm
  ensure_program
  stage rpm "$BINARY"
  doc=$root/usr/share/doc/$NAME
  install -m 0644 "$HERE/CHANGELOG.md" "$HERE"/LICENSE-* "$doc/"
  rpm_files "$root" >"$WORK/files"
  same_times "$root"
  rpmbuild -bb --quiet --target "$(rpm_arch "$BINARY")" --buildroot "$WORK/buildroot" \
    --define "_topdir $WORK/rpmbuild" --define "_rpmdir $WORK/rpms" --define "stage $root" --define "file_list $WORK/files" \
    --define "scripts $HERE/packaging/rpm" --define "wanted_version $(version)" --define "_dbpath $WORK/rpmdb" "$HERE/packaging/rpm/$NAME.spec" >"$WORK/rpmbuild.log" 2>&1 || {
    cat "$WORK/rpmbuild.log" >&2
    die "rpmbuild failed" ""
  }
  file=$(find "$WORK/rpms" -name '*.rpm')
  cp "$file" "$OUT/"
  have "$(tilde "$OUT/${file##*/}")"
}
