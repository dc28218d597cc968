#!/usr/bin/env bash
# Measures tools over HTTP beside mcpo, the gateways that speak MCP over HTTP and the bare HTTP floor; see
# benches/README.md. No engine is needed: all servers are local processes.
#
# Builds the load generator, the stdio server behind every gateway and the floor, or takes them from
# $MCPO_BENCH_TOOLS; takes the product from $MCPO_BIN or builds it, and peers from $MCPO_BENCH_PEERS or
# installs them below target/bench-peers.
set -Eeuo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
PLATFORM=$(uname -m)-unknown-linux-gnu
readonly HERE ROOT PLATFORM
readonly TARGET_DIR=${CARGO_TARGET_DIR:-$ROOT/target}

case " $* " in
  *' -h '* | *' --help '*) exec python3 -B "$HERE/tools.py" --binary - --tools - --peers - --help ;;
esac
if [ -z "${MCPO_BENCH_TOOLS:-}" ]; then
  RUSTFLAGS='-C target-feature=+crt-static' nice cargo build --release --locked --target "$PLATFORM" \
    --target-dir "$TARGET_DIR/bench-gateway" --manifest-path "$HERE/Cargo.toml"
  MCPO_BENCH_TOOLS=$TARGET_DIR/bench-gateway/$PLATFORM/release
fi
if [ -z "${MCPO_BIN:-}" ]; then
  nice cargo build --release --locked --manifest-path "$ROOT/Cargo.toml"
  MCPO_BIN=$TARGET_DIR/release/mcp-orchestrator
fi
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
exec python3 -B "$HERE/tools.py" --binary "$MCPO_BIN" --tools "$MCPO_BENCH_TOOLS" \
  --peers "${MCPO_BENCH_PEERS:-$TARGET_DIR/bench-peers}" "$@"
