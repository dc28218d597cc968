#!/usr/bin/env bash
# The API against its own document: run.sh BINARY SCHEMATHESIS LOGS
#
# A daemon with local processes as servers is asked everything that /openapi.json describes, with
# what it allows and with what it does not; no answer may be other than described. The last line is
# `N passed, N failed`, an operation each. LOGS keeps what was sent and answered.
set -Eeuo pipefail

# shellcheck source=tests/site.sh
source "$(dirname "${BASH_SOURCE[0]}")/../site.sh"
HERE_API=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# Seconds for what is made up; the cases that the document gives come first and take about 15.
readonly BUDGET=${API_BUDGET:-35} EXAMPLES=${API_EXAMPLES:-15} SEED=${API_SEED:-1}

main() {
  local binary schemathesis=$2 logs=$3 dir out rc=0 tested failed
  binary=$(realpath "$1")
  mkdir -p "$logs"
  dir=$(mktemp -d /tmp/mcpo-api.XXXXXX)
  # shellcheck disable=SC2064 # as it is now
  trap "end_site; rm -rf -- '$dir'" EXIT
  sed "s,PROGRAM,$binary,g" "$HERE_API/mcp.config.json" >"$dir/mcp.config.json"
  begin_site "$dir" "$binary" "api$$"
  site_converged time
  out=$logs/schemathesis.txt
  # An event stream does not end: tests/live/panel.rs reads it.
  (cd "$dir" && "$schemathesis" --config-file "$HERE_API/schemathesis.toml" run "http://127.0.0.1:$SITE_PORT/openapi.json" \
    --auth "admin:$SITE_PASSWORD" --exclude-path /api/v1/events --phases examples,coverage,fuzzing --mode all \
    --max-examples "$EXAMPLES" --max-time "$BUDGET" --request-timeout 20 --seed "$SEED" --continue-on-failure \
    --warnings off --no-color) >"$out" 2>&1 || rc=$?
  cp "$dir/daemon.log" "$logs/daemon.log"
  tested=$(sed -n 's/^  Tested: *\([0-9]*\).*/\1/p' "$out" | head -n 1)
  if [ "$rc" = 0 ] && [ "${tested:-0}" -gt 20 ]; then
    kill -0 "$SITE_PID" || { echo "the daemon is gone" && echo "0 passed, 1 failed" && return 1; }
    grep -E 'generated|Seed' "$out"
    echo "$tested passed, 0 failed"
    return
  fi
  sed -n '/= ERRORS =/,$p; /= FAILURES =/,$p' "$out" | awk '!seen[NR]++' | head -n 200
  failed=$(grep -cE '^[0-9]+\. Test Case ID|^Network Error' "$out" || true)
  echo "0 passed, $((failed > 0 ? failed : 1)) failed"
  return 1
}

main "$@"
