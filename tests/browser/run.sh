#!/usr/bin/env bash
# The dashboard in a real browser: run.sh BINARY IMAGE STACK LOGS
#
# IMAGE has the demo server as its entrypoint. Containers carry STACK, which begins with the run's
# id, and go at the end. LOGS keeps pictures of every page. The last line is `N passed, N failed`.
set -Eeuo pipefail

# shellcheck source=tests/site.sh
source "$(dirname "${BASH_SOURCE[0]}")/../site.sh"
# shellcheck source=tests/daemon.sh
source "$(dirname "${BASH_SOURCE[0]}")/../daemon.sh"
HERE_BROWSER=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

main() {
  local binary image=$2 stack=$3 logs=$4 dir rc=0
  binary=$(realpath "$1")
  mkdir -p "$logs"
  dir=$(mktemp -d /tmp/mcpo-browser.XXXXXX)
  # shellcheck disable=SC2064 # as it is now
  trap "end_site; remove_stack '$stack'; rm -rf -- '$dir'" EXIT
  cat >"$dir/mcp.config.json" <<JSON
{
  "orchestrator": { "sections": { "tools": { "description": "small tools" } } },
  "mcpServers": {
    // A container, stopped and started again by the test.
    "time": {
      "command": "docker",
      "args": ["run", "-i", "$image"],
      "orchestrator": { "section": "tools" }
    },
    "forms": { "command": "python3", "args": ["-B", "$HERE_BROWSER/forms.py"] },
    "local": { "command": "$binary", "args": ["demo-server"], "env": { "API_KEY": "planted-secret" } }
  }
}
JSON
  begin_site "$dir" "$binary" "$stack" MCP_ORCHESTRATOR__SERVICE__SETTLE_SECONDS=1
  site_converged time && site_converged local && site_converged forms
  python3 -B "$HERE_BROWSER/panel.py" "http://127.0.0.1:$SITE_PORT/monitor" admin "$SITE_PASSWORD" time "$logs" || rc=$?
  cp "$dir/daemon.log" "$logs/daemon.log"
  return $rc
}

main "$@"
