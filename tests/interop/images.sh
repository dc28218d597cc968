# shellcheck shell=bash
# The two servers as images without a base: the files they need, at the paths they have here.
#
# A single layer each, so no registry is asked. An image lives as long as its run.

image_of() { printf 'mcpo-interop/%s:%s' "$1" "$STACK"; }

# libraries FILE...: what the loader adds to them.
libraries() {
  ldd "$@" 2>/dev/null | sed -n 's#.*=> \(/[^ ]*\) (.*#\1#p; s#^[[:space:]]*\(/[^ ]*\) (.*#\1#p' | sort -u
}

# pack IMAGE ENTRYPOINT PATH... [-- TAR-OPTION...]: links become what they point at.
pack() {
  local image=$1 entry=$2
  local -a paths=()
  shift 2
  while [ $# != 0 ] && [ "$1" != -- ]; do
    paths+=("${1#/}") && shift
  done
  [ $# = 0 ] || shift
  tar -C / -chf - --hard-dereference --owner=0 --group=0 "$@" "${paths[@]}" |
    docker import --change "ENTRYPOINT $entry" --change 'WORKDIR /' - "$image" >/dev/null ||
    fail "cannot make $image"
}

make_images() {
  local -a libs objects
  local home stdlib
  command -v docker >/dev/null || fail "docker is not installed"
  mapfile -t libs < <(libraries "$NODE")
  pack "$(image_of everything)" \
    "[\"$NODE\",\"$MODULES/@modelcontextprotocol/server-everything/dist/index.js\",\"stdio\"]" \
    "$MODULES" "${libs[@]}" -- --exclude="$(basename "$MODULES")/.bin" \
    --exclude=@modelcontextprotocol/inspector --exclude=@rolldown --exclude='lightningcss*' --exclude=es-toolkit

  home=$(python3 -c 'import sys; print(sys.base_prefix)')
  stdlib=$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
  mapfile -t objects < <(find "$stdlib/lib-dynload" "$CACHE/py2/lib" -name '*.so*')
  mapfile -t libs < <(libraries "$(readlink -f "$CACHE/py2/bin/python")" "${objects[@]}")
  pack "$(image_of time)" "[\"$CACHE/py2/bin/python\",\"-m\",\"mcp_server_time\",\"--local-timezone\",\"UTC\"]" \
    "$CACHE/py2" "$(readlink -f "$home/bin/python3")" "$stdlib" "${libs[@]}" -- \
    --exclude="${stdlib#/}/test" --exclude="${stdlib#/}/site-packages" \
    --exclude="${stdlib#/}/config-*" --exclude="${stdlib#/}/ensurepip" --exclude="${stdlib#/}/idlelib" \
    --exclude="${stdlib#/}/tkinter" --exclude='py2/lib64' --exclude='*/site-packages/pip'
}
