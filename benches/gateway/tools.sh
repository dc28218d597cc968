#!/usr/bin/env bash
# Measures tools over HTTP beside mcpo, the gateways that speak MCP over HTTP and the bare HTTP floor; see
# benches/README.md. No engine is needed: all servers are local processes.
set -Eeuo pipefail

# shellcheck source=benches/gateway/programs.sh
. "$(dirname "${BASH_SOURCE[0]}")/programs.sh"
perhaps_help tools.py "$@"
programs
exec python3 -B "$HERE/tools.py" --binary "$BINARY" --tools "$TOOLS" --peers "$PEERS" "$@"
