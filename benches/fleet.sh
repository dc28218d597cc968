#!/usr/bin/env bash
# What looking after fifty servers costs, and searching a home of a hundred thousand files.
#
# fleet.sh [--only health|discovery] [--quick] [--json FILE]
# Needs Python 3 and the release binary, which is built or taken from $MCPO_BIN; no engine, no network.
set -Eeuo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
case " $* " in
  *' -h '* | *' --help '*) sed -n '2,5s/^# \{0,1\}//p' "$0" && exit ;;
esac
if [ -z "${MCPO_BIN:-}" ]; then
  cargo build -q --release --locked --bin mcp-orchestrator --manifest-path "$HERE/Cargo.toml"
  MCPO_BIN=${CARGO_TARGET_DIR:-$HERE/target}/release/mcp-orchestrator
fi
exec python3 -B "$HERE/benches/fleet.py" "$(realpath "$MCPO_BIN")" "$@"
