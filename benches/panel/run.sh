#!/usr/bin/env bash
# The dashboard and the API with a hundred servers: run.sh [--quick] [--only crowd] [--servers N] [--failing PERCENT, at most 97] [--json FILE]
#
# Needs Python 3 and no engine: servers are local processes. The release binary is built, or taken from
# $MCPO_BIN; the reader and the floor (benches/gateway's `pages`) too, or taken from $MCPO_BENCH_PAGES.
set -Eeuo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=tests/site.sh
source "$HERE/tests/site.sh"
SERVERS=100 FAILING=20 QUICK='' ONLY='' JSON=''

while [ $# != 0 ]; do
  case $1 in
    --quick) QUICK=--quick SERVERS=10 ;;
    --only) ONLY=$2 && shift ;;
    --servers) SERVERS=$2 && shift ;;
    --failing) FAILING=$2 && shift ;;
    --json) JSON=$2 && shift ;;
    *) sed -n '2,5s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
  esac
  shift
done
# Each has a port, and there are three beside them.
[ "$SERVERS" -le $((SITE_PORTS_EACH - 3)) ] || { echo "at most $((SITE_PORTS_EACH - 3)) servers" >&2 && exit 2; }

if [ -z "${MCPO_BIN:-}" ]; then
  cargo build -q --release --locked --bin mcp-orchestrator --manifest-path "$HERE/Cargo.toml"
  MCPO_BIN=${CARGO_TARGET_DIR:-$HERE/target}/release/mcp-orchestrator
fi
MCPO_BIN=$(realpath "$MCPO_BIN")
if [ -z "${MCPO_BENCH_PAGES:-}" ]; then
  platform=$(uname -m)-unknown-linux-gnu built=${CARGO_TARGET_DIR:-$HERE/target}/bench-gateway
  RUSTFLAGS='-C target-feature=+crt-static' nice cargo build -q --release --locked --bin pages --target "$platform" \
    --target-dir "$built" --manifest-path "$HERE/benches/gateway/Cargo.toml"
  MCPO_BENCH_PAGES=$built/$platform/release/pages
fi
DIR=$(mktemp -d /tmp/mcpo-bench.XXXXXX)
trap 'end_site; rm -rf -- "$DIR"' EXIT
# Every third has a section, every tenth is not to run, some end at once with many words: pages show all
# of that.
python3 - "$MCPO_BIN" "$SERVERS" "$FAILING" >"$DIR/mcp.config.json" <<'PYTHON'
import json, sys
binary, count, failing = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
words = "echo 'Error: Cannot find module server-with-a-long-name: is it installed, and is NODE_PATH right?' >&2; exit 3"
def entry(n):
    entry = {"command": binary, "args": ["demo-server"], "description": f"server number {n}"}
    # Spread out, and the same each time; number 1 answers.
    if (n * 37 + 60) % 100 < failing:
        entry = {"command": "sh", "args": ["-c", words], "description": f"server number {n}"}
    if n % 3 == 0:
        entry["orchestrator"] = {"section": f"section-{n % 9}"}
    if n % 10 == 0:
        entry["disabled"] = True
    return entry
sections = {f"section-{n}": {"description": f"section {n}"} for n in range(0, 9, 3)}
json.dump({"orchestrator": {"sections": sections}, "mcpServers": {f"server-{n:03}": entry(n) for n in range(count)}}, sys.stdout, indent=2)
PYTHON
begin_site "$DIR" "$MCPO_BIN" "bench$$"
site_converged server-001
SITE_PASSWORD=$SITE_PASSWORD python3 -B "$HERE/benches/panel/measure.py" "$SITE_PORT" "$SITE_PID" "$MCPO_BENCH_PAGES" $QUICK ${ONLY:+--only "$ONLY"} ${JSON:+--json "$JSON"}
