# Sourced by run.sh and tools.sh: where things are, and the programs that both need.
#
# Builds the load generator, the stdio server behind every gateway and the floor as static programs, or takes
# them from $MCPO_BENCH_TOOLS; takes the product from $MCPO_BIN or builds it. Peers are in $MCPO_BENCH_PEERS,
# else below target/bench-peers, and installed there when they are first asked for.
# shellcheck shell=bash disable=SC2034

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
PLATFORM=$(uname -m)-unknown-linux-gnu
readonly HERE ROOT PLATFORM
readonly TARGET_DIR=${CARGO_TARGET_DIR:-$ROOT/target}
readonly PEERS=${MCPO_BENCH_PEERS:-$TARGET_DIR/bench-peers}

# Prints the usage of the program named first when one of the other words asks for it, and ends.
perhaps_help() {
  local program=$1
  case " $* " in
    *' -h '* | *' --help '*)
      exec python3 -B "$HERE/$program" --binary - --image - --tools - --peers - --help
      ;;
  esac
}

# Sets TOOLS and BINARY.
programs() {
  TOOLS=${MCPO_BENCH_TOOLS:-}
  if [ -z "$TOOLS" ]; then
    RUSTFLAGS='-C target-feature=+crt-static' nice cargo build --release --locked --target "$PLATFORM" \
      --target-dir "$TARGET_DIR/bench-gateway" --manifest-path "$HERE/Cargo.toml"
    TOOLS=$TARGET_DIR/bench-gateway/$PLATFORM/release
  fi
  BINARY=${MCPO_BIN:-}
  if [ -z "$BINARY" ]; then
    nice cargo build --release --locked --manifest-path "$ROOT/Cargo.toml"
    BINARY=$TARGET_DIR/release/mcp-orchestrator
  fi
  # A session is a connection; a thousand are held open.
  ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
}
