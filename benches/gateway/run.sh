#!/usr/bin/env bash
# Measures the gateway beside its peers, the bare HTTP floor and the raw attached stream; see
# benches/README.md.
#
# Builds the load generator, the stdio server behind every gateway and the floor, as static
# programs; makes an image of that server; takes the product from $MCPO_BIN or builds it. Then
# hands over to run.py, which installs the peers below target/bench-peers when they are first asked for.
set -Eeuo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
PLATFORM=$(uname -m)-unknown-linux-gnu
readonly HERE ROOT PLATFORM
readonly TARGET_DIR=${CARGO_TARGET_DIR:-$ROOT/target}
readonly IMAGE=mcpo-bench/fastmcp:$$

case " $* " in
  *' -h '* | *' --help '*) exec python3 -B "$HERE/run.py" --binary - --image - --tools - --peers - --help ;;
esac
for program in cargo docker python3 tar; do
  command -v "$program" >/dev/null || { echo "benches/gateway/run.sh: there is no $program" >&2 && exit 1; }
done
RUSTFLAGS='-C target-feature=+crt-static' nice cargo build --release --locked --target "$PLATFORM" \
  --target-dir "$TARGET_DIR/bench-gateway" --manifest-path "$HERE/Cargo.toml"
readonly TOOLS=$TARGET_DIR/bench-gateway/$PLATFORM/release
if [ -z "${MCPO_BIN:-}" ]; then
  nice cargo build --release --locked --manifest-path "$ROOT/Cargo.toml"
  MCPO_BIN=$TARGET_DIR/release/mcp-orchestrator
fi
trap 'docker image rm -f "$IMAGE" >/dev/null 2>&1 || true' EXIT
tar -C "$TOOLS" -cf - --owner=0 --group=0 fastmcp |
  docker import --change 'ENTRYPOINT ["/fastmcp"]' - "$IMAGE" >/dev/null
# A session is a connection; a thousand are held open.
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
python3 -B "$HERE/run.py" --binary "$MCPO_BIN" --image "$IMAGE" --tools "$TOOLS" \
  --peers "$TARGET_DIR/bench-peers" "$@"
