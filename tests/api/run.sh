#!/usr/bin/env bash
# What is served against the documents of it: run.sh BINARY SCHEMATHESIS LOGS
#
# A daemon with local processes as servers is asked everything that /openapi.json and the documents of tools
# describe, with what they allow and with what they do not; no answer may be other than described. The last line
# is `N passed, N failed`, an operation each. LOGS keeps what was sent and answered.
set -Eeuo pipefail

# shellcheck source=tests/site.sh
source "$(dirname "${BASH_SOURCE[0]}")/../site.sh"
HERE_API=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# Seconds for what is made up; the cases that the document gives come first and take about 15.
readonly BUDGET=${API_BUDGET:-35} TOOLS_BUDGET=${API_TOOLS_BUDGET:-14} EXAMPLES=${API_EXAMPLES:-15} SEED=${API_SEED:-1}
schemathesis='' logs='' passed=0 failed=0

# against NAME DOCUMENT CONFIG SECONDS LEAST [OPTION...]: LEAST operations have to be tried.
against() {
  local out=$logs/schemathesis-$1.txt rc=0 tested wrong
  (cd "$SITE_DIR" && SCHEMATHESIS_HOOKS=hooks PYTHONPATH=$HERE_API PYTHONDONTWRITEBYTECODE=1 \
    "$schemathesis" --config-file "$HERE_API/$3" run "http://127.0.0.1:$SITE_PORT/$2" \
    --phases examples,coverage,fuzzing --mode all --max-examples "$EXAMPLES" --max-time "$4" --request-timeout 20 \
    --seed "$SEED" --continue-on-failure --warnings off --no-color "${@:6}") >"$out" 2>&1 || rc=$?
  tested=$(sed -n 's/^  Tested: *\([0-9]*\).*/\1/p' "$out" | head -n 1)
  if [ "$rc" = 0 ] && [ "${tested:-0}" -ge "$5" ] && kill -0 "$SITE_PID"; then
    printf '%s: %s operations, ' "$1" "$tested"
    grep -E 'generated' "$out"
    passed=$((passed + tested))
    return
  fi
  echo "$1:"
  sed -n '/= ERRORS =/,$p; /= FAILURES =/,$p' "$out" | awk '!seen[NR]++' | head -n 200
  wrong=$(grep -cE '^[0-9]+\. Test Case ID|^Network Error' "$out" || true)
  failed=$((failed + (wrong > 0 ? wrong : 1)))
}

main() {
  local binary dir
  binary=$(realpath "$1")
  schemathesis=$2 logs=$(mkdir -p "$3" && realpath "$3")
  dir=$(mktemp -d /tmp/mcpo-api.XXXXXX)
  # shellcheck disable=SC2064 # as it is now
  trap "end_site; rm -rf -- '$dir'" EXIT
  sed "s,PROGRAM,$binary,g; s,HERE,$HERE_API,g" "$HERE_API/mcp.config.json" >"$dir/mcp.config.json"
  begin_site "$dir" "$binary" "api$$"
  site_converged time
  site_converged shapes
  # Before the API, which sets and removes servers.
  against tools openapi/shapes/openapi.json tools.toml "$TOOLS_BUDGET" 11
  against all-tools openapi/openapi.json tools.toml "$TOOLS_BUDGET" 17
  # An event stream does not end: tests/live/panel.rs reads it.
  against api openapi.json schemathesis.toml "$BUDGET" 21 --auth "admin:$SITE_PASSWORD" --exclude-path /api/v1/events
  cp "$dir/daemon.log" "$logs/daemon.log"
  echo "$passed passed, $failed failed"
  [ "$failed" = 0 ]
}

main "$@"
