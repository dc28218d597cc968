#!/usr/bin/env bash
# Packages from one laid out tree: all hold the same files (packaging/install/layout.sh).
#
# Building a package takes seconds and no packer of its own: dpkg-deb and rpmbuild are used. The same
# input gives the same bytes: times are SOURCE_DATE_EPOCH (the last commit's unless set), owners root.
set -Eeuo pipefail

# shellcheck source=setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/../setup.sh"
PROGRAM=packaging/build.sh
readonly NAME=mcp-orchestrator
OUT=$TARGET_DIR/package
STATIC_BINARY=

build_usage() {
  cat <<USAGE
Usage: packaging/build.sh KIND... [OPTION...]

  deb      NAME_VERSION_ARCH.deb, for Debian 12, Ubuntu 22.04 and newer
  rpm      NAME-VERSION.ARCH.rpm, for RHEL 9, Amazon Linux 2023 and newer
  static   NAME-VERSION-ARCH-linux.tar.gz: a static program and setup.sh
  image    the container image $NAME:VERSION, from the static program
  sbom     what is linked in, as CycloneDX
  made     man pages, completions and schema from the program, in target/package/made:
           what \`cargo deb\` and \`cargo generate-rpm\` find there
  all      each of them

  --binary FILE         pack this program in deb and rpm, else it is built
  --static-binary FILE  the same for static and image
  --out DIR             where packages go (target/package)

Environment
  SOURCE_DATE_EPOCH  the time in the packages
  PACKAGE_VERSION    another version than Cargo.toml's
  REPRODUCIBLE=yes   build without paths of this machine: the same program
                     wherever it is built (static ones always are)
  DEB_COMPRESS       xz, gzip, zstd or none (xz)
  TARGET             for static: another target, such as
                     aarch64-unknown-linux-musl (its std and a linker needed)
USAGE
}

# ---- facts ---------------------------------------------------------------------------------------

version() { echo "${PACKAGE_VERSION:-$(sed -n 's/^version = "\(.*\)"/\1/p' "$HERE/Cargo.toml" | head -n 1)}"; }

set_epoch() {
  : "${SOURCE_DATE_EPOCH:=$(git -C "$HERE" log -1 --format=%ct 2>/dev/null || date +%s)}"
  export SOURCE_DATE_EPOCH
  export TZ=UTC LC_ALL=C.UTF-8
}

# Paths of this machine would differ from those of the next one that builds.
path_flags() {
  echo "--remap-path-prefix=$HERE=/build --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
}

# deb_arch BINARY: from the program itself, as it may be another machine's.
machine_of() { od -An -tu2 -j18 -N2 "$1" | tr -d ' '; }
deb_arch() { case $(machine_of "$1") in 62) echo amd64 ;; 183) echo arm64 ;; *) die "$1 is for a machine that has no name here" "" ;; esac; }
rpm_arch() { case $(machine_of "$1") in 62) echo x86_64 ;; 183) echo aarch64 ;; *) die "$1 is for a machine that has no name here" "" ;; esac; }

need_tool() { has "$1" || die "there is no $1" "install the package $2"; }

# ---- programs ------------------------------------------------------------------------------------

ensure_program() {
  if [ -n "$GIVEN_BINARY" ]; then
    BINARY=$(realpath "$GIVEN_BINARY")
    [ -x "$BINARY" ] || die "$GIVEN_BINARY is no program" ""
    return
  fi
  find_cargo || die "there is no cargo of at least $(rust_wanted)" "./setup.sh installs one"
  doing "build"
  if [ "${REPRODUCIBLE:-no}" = no ]; then
    # The artifacts of `cargo build --release`, which may be there already.
    "$CARGO" build -q --release --locked --bin "$NAME" --target-dir "$TARGET_DIR"
    BINARY=$TARGET_DIR/release/$NAME
    return
  fi
  # With --target the flags stay away from build scripts.
  local host
  host=$(rustc -vV | sed -n 's/^host: //p')
  RUSTFLAGS="${RUSTFLAGS:-} $(path_flags)" "$CARGO" build -q --release --locked --bin "$NAME" --target "$host" --target-dir "$TARGET_DIR"
  BINARY=$TARGET_DIR/$host/release/$NAME
}

# musl where its target is installed, else a static glibc.
ensure_static_program() {
  if [ -n "$STATIC_BINARY" ]; then
    [ -x "$STATIC_BINARY" ] || die "$STATIC_BINARY is no program" ""
    return
  fi
  find_cargo || die "there is no cargo of at least $(rust_wanted)" "./setup.sh installs one"
  local target=${TARGET:-$(build_target)}
  doing "build a static program for $target"
  RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static $(path_flags)" "$CARGO" build -q --release --locked --bin "$NAME" --target "$target" --target-dir "$TARGET_DIR"
  STATIC_BINARY=$TARGET_DIR/$target/release/$NAME
}

# No interpreter, no libraries: nothing of the host is needed.
is_static() {
  local needed
  needed=$(ldd "$1" 2>/dev/null || true)
  [[ $needed != *'=>'* ]]
}

# ---- the tree ------------------------------------------------------------------------------------

# A program for another machine cannot make its own man pages; one of this machine's does.
runnable() { if "$1" --version >/dev/null 2>&1; then echo "$1"; else echo "$TARGET_DIR/release/$NAME"; fi; }

# stage KIND BINARY: the files of a package below $WORK/KIND.
stage() {
  local kind=$1 binary=$2 root=$WORK/$1 mode source target
  generate "$(runnable "$binary")" /usr "$WORK/made-$kind"
  gzip -9n "$WORK/made-$kind"/man/*.1
  PACKAGE_KIND=$kind layout "$binary" /usr "$WORK/made-$kind" >"$WORK/layout"
  while IFS=$'\t' read -r mode source target; do
    install -D -m "$mode" "$source" "$root$target"
  done <"$WORK/layout"
  install -D -m 0644 "$HERE/etc/$NAME/settings.conf" "$root/etc/$NAME/settings.conf"
}

# Everything as of the same moment.
same_times() { find "$1" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +; }

# ---- kinds ---------------------------------------------------------------------------------------

# shellcheck source=packaging/debian/package.sh
source "$HERE/packaging/debian/package.sh"
# shellcheck source=packaging/rpm/package.sh
source "$HERE/packaging/rpm/package.sh"

build_sbom() {
  find_cargo || die "there is no cargo" ""
  "$CARGO" metadata --format-version 1 --locked --offline --filter-platform "$(rustc -vV | sed -n 's/^host: //p')" --manifest-path "$HERE/Cargo.toml" |
    python3 "$HERE/packaging/sbom.py" "$(version)" >"$OUT/$NAME-$(version).cdx.json"
  have "$(tilde "$OUT/$NAME-$(version).cdx.json")"
}

# For other packers: Cargo.toml names what is made here.
build_made() {
  local made=$TARGET_DIR/package/made
  ensure_program
  rm -rf -- "$made"
  generate "$(runnable "$BINARY")" /usr "$made"
  gzip -9n "$made"/man/*.1
  gzip -9n <"$HERE/CHANGELOG.md" >"$made/changelog.gz"
  same_times "$made"
  have "$(tilde "$made")"
}

# What one unpacks and installs with ./setup.sh, without a compiler.
build_static() {
  local name tree arch
  ensure_static_program
  is_static "$STATIC_BINARY" || die "$STATIC_BINARY needs libraries of the system" "give a static one, or none to have it built"
  arch=$(rpm_arch "$STATIC_BINARY")
  name=$NAME-$(version)-$arch-linux
  tree=$WORK/$name
  mkdir -p "$tree/packaging" "$tree/bin" "$tree/docs"
  install -m 0755 "$STATIC_BINARY" "$tree/bin/$NAME"
  install -m 0755 "$HERE/setup.sh" "$tree/setup.sh"
  cp -R "$HERE/packaging/install" "$HERE/packaging/$NAME.catalog" "$HERE/packaging/iam-policy.json" "$HERE/packaging/alloy" "$tree/packaging/"
  cp -R "$HERE/systemd" "$HERE/etc" "$HERE/README.md" "$HERE/SECURITY.md" "$HERE"/LICENSE-* "$tree/"
  cp -R "$HERE/docs/reference" "$HERE/docs/operations.md" "$tree/docs/"
  chmod -R u=rwX,go=rX "$tree"
  same_times "$tree"
  tar -C "$WORK" --sort=name --owner=0 --group=0 --numeric-owner --format=gnu -cf - "$name" | gzip -9n >"$OUT/$name.tar.gz"
  have "$(tilde "$OUT/$name.tar.gz")"
}

# image_root ROOT BINARY: the files of the image. Certificates are the one thing of a system that the
# program needs.
image_root() {
  local root=$1
  mkdir -p "$root"/{usr/bin,etc/ssl/certs,tmp,run/lock,etc/$NAME,run/$NAME,var/lib/$NAME}
  install -m 0755 "$2" "$root/usr/bin/$NAME"
  install -m 0644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
  chmod 1777 "$root/tmp" "$root/run/lock"
}

# image_from ROOT TAG: the image. A tar keeps owners: what the user of the image writes to is its own.
image_from() {
  local root=$1 context own tar=(tar --sort=name --numeric-owner --format=gnu)
  context=$(mktemp -d "$WORK/image.XXXXXX")
  own=("./etc/$NAME" "./run/$NAME" "./var/lib/$NAME")
  same_times "$root"
  "${tar[@]}" -C "$root" --owner=0 --group=0 "${own[@]/#/--exclude=}" -cf "$context/rootfs.tar" .
  "${tar[@]}" -C "$root" --owner=65532 --group=65532 -rf "$context/rootfs.tar" "${own[@]}"
  as_docker docker build -q --build-arg "VERSION=$(version)" -t "$2" -f "$HERE/packaging/Dockerfile" "$context" >/dev/null
}

build_image() {
  local tag
  tag=$NAME:$(version)
  ensure_static_program
  is_static "$STATIC_BINARY" || die "$STATIC_BINARY needs libraries, and the image has none" "give a static one, or none to have it built"
  need_tool docker docker.io
  choose_sudo
  choose_docker_access
  image_root "$WORK/rootfs" "$STATIC_BINARY"
  image_from "$WORK/rootfs" "$tag"
  have "the image $tag"
}

# ---- main ----------------------------------------------------------------------------------------

build_main() {
  local word kinds=()
  while [ $# != 0 ]; do
    case $1 in
      deb | rpm | static | image | sbom | made) kinds+=("$1") ;;
      all) kinds=(deb rpm static image sbom) ;;
      --binary) GIVEN_BINARY=${2:-} && shift ;;
      --static-binary) STATIC_BINARY=${2:-} && shift ;;
      --out) OUT=$(realpath -m "${2:-.}") && shift ;;
      -h | --help) build_usage && return ;;
      *) usage_error "unknown word '$1'" ;;
    esac
    shift || usage_error "an option lacks its value"
  done
  [ ${#kinds[@]} != 0 ] || usage_error "say what to build: deb, rpm, static, image, sbom, made or all"
  set_colours
  set_epoch
  umask 022
  mkdir -p "$OUT"
  WORK=$(mktemp -d)
  STATE_DIR=$WORK
  trap 'rm -rf -- "$WORK"' EXIT
  trap 'die "line $LINENO failed: $BASH_COMMAND" "run: bash -x packaging/build.sh"' ERR
  for word in "${kinds[@]}"; do "build_$word"; done
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then build_main "$@"; fi
