#!/usr/bin/env bash
# The official MCP conformance suite through the gateway: a daemon of our own, three servers behind
# it, both revisions against the port of each.
#
#   legacy   the fixture over stdio in a container, handshake era
#   modern   the same, 2026-07-28
#   http     the fixture over HTTP in a container, handshake era
#
# Scenarios that may fail: expected-gateway-SERVER-REVISION.txt. Everything made carries a stack of
# this run and goes when it ends, however it ends; the daemon's log stays in target/conformance.
set -Eeuo pipefail

# shellcheck source=tests/conformance/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=tests/daemon.sh
source "$PROJECT/tests/daemon.sh"

readonly STACK=conformance-$$
readonly IMAGE=mcpo-conformance/fixture:$STACK
readonly SERVERS=(legacy modern http)
readonly LOG=$CACHE/gateway.log
readonly UP_SECS_MAX=90
readonly STOP_SECS_MAX=20
# Below the ports the kernel gives out; two runs at once hardly meet.
readonly PORT_FIRST=$((14000 + $$ % 500 * 10))

usage() {
  cat >&2 <<USAGE
Usage: $0 BINARY [SERVER...]

  BINARY   the mcp-orchestrator to test
  SERVER   ${SERVERS[*]}; all when none is named
USAGE
  exit 2
}

place='' daemon=''

clean_up() {
  [ -z "$daemon" ] || end_daemon "$daemon" $STOP_SECS_MAX || true
  remove_stack "$STACK" "$IMAGE"
  [ -z "$place" ] || rm -rf "$place"
}

# A single layer with a single file, so no registry is asked.
make_image() {
  tar -C "$(dirname "$FIXTURE")" -cf - --owner=0 --group=0 --mode=0755 mcp-fixture |
    docker import --change 'ENTRYPOINT ["/mcp-fixture"]' --change 'USER 65532:65532' - "$IMAGE" >/dev/null
}

write_config() {
  cat >"$place/mcp.config.json" <<CONFIG
{
  "mcpServers": {
    "legacy": {"command": "docker", "args": ["run", "-i", "--rm", "$IMAGE", "--era", "legacy"]},
    "modern": {"command": "docker", "args": ["run", "-i", "--rm", "$IMAGE", "--era", "modern"]},
    "http": {
      "command": "docker",
      "args": ["run", "--rm", "$IMAGE", "--era", "legacy", "--http", "8000", "--host", "0.0.0.0", "--any-host"],
      "orchestrator": {"transport": "http", "containerPort": 8000, "httpPath": "/mcp", "route": "edge"}
    }
  }
}
CONFIG
  cat >"$place/settings.conf" <<SETTINGS
[service]
stack = $STACK
name_prefix = $STACK-
port_range_start = $PORT_FIRST
port_range_end = $((PORT_FIRST + 8))
settle_seconds = 1

[dashboard]
host = 127.0.0.1
port = $((PORT_FIRST + 9))

[gateway]
host = 127.0.0.1
auth = none
SETTINGS
}

product() {
  STATE_DIRECTORY=$place/state RUNTIME_DIRECTORY=$place/run \
    "$BINARY" --config "$place/mcp.config.json" --settings "$place/settings.conf" "$@"
}

start_daemon() {
  mkdir -p "$place/state" "$place/run"
  STATE_DIRECTORY=$place/state RUNTIME_DIRECTORY=$place/run setsid \
    "$BINARY" --config "$place/mcp.config.json" --settings "$place/settings.conf" run \
    >"$LOG" 2>&1 </dev/null &
  daemon=$!
}

# port_of SERVER: the port it has in the ledger.
port_of() {
  product ports --json 2>/dev/null |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["leases"][sys.argv[1]]["port"])' "$1" 2>/dev/null
}

# wait_up SERVER: until an initialize is answered at its own port; URL is set.
wait_up() {
  local end=$((SECONDS + UP_SECS_MAX)) port
  while [ $SECONDS -lt $end ]; do
    kill -0 "$daemon" 2>/dev/null || return 1
    if port=$(port_of "$1"); then
      URL=http://127.0.0.1:$port/mcp/$1
      ! answers "$URL" || return 0
    fi
    sleep 0.5
  done
  return 1
}

run_server() {
  local revision code=0
  if ! wait_up "$1"; then
    echo "gateway-$1: no answer to initialize within $UP_SECS_MAX s; the end of $LOG:"
    tail -n 5 "$LOG" | cut -c1-160 | sed 's/^/  /'
    return 1
  fi
  for revision in "${REVISIONS[@]}"; do
    run_suite "$URL" "gateway-$1" "$revision" || code=1
  done
  return $code
}

main() {
  local server code=0
  if [ $# = 0 ] || [[ $1 = -* ]]; then usage; fi
  BINARY=$(realpath "$1")
  [ -x "$BINARY" ] || fail "$1 is no program"
  shift
  [ $# != 0 ] || set -- "${SERVERS[@]}"
  for server in "$@"; do
    [[ " ${SERVERS[*]} " = *" $server "* ]] || fail "no server $server; there are ${SERVERS[*]}"
  done
  install_suite
  build_fixture
  trap clean_up EXIT
  trap 'exit 130' INT TERM
  place=$(mktemp -d)
  make_image
  write_config
  start_daemon
  for server in "$@"; do
    run_server "$server" || code=1
  done
  return $code
}

main "$@"
