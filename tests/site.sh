# shellcheck shell=bash
# A daemon of a script's own, with servers that are local processes: no engine is needed.

SITE_DIR='' SITE_BINARY='' SITE_PID='' SITE_PORT='' SITE_PASSWORD='' SITE_ENV=()
readonly SITE_PORTS_EACH=130 SITE_READY_SECS=60

# site_ports: the first of a row of ports that nobody listens on.
site_ports() {
  local base port busy try
  for try in {1..50}; do
    base=$((20000 + (($$ + RANDOM + try) % 80) * SITE_PORTS_EACH)) busy=
    for port in "$base" $((base + 1)) $((base + 2)); do
      if (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then busy=yes; fi
    done
    [ -n "$busy" ] || { echo "$base" && return; }
  done
  return 1
}

# begin_site DIR BINARY STACK [VARIABLE=VALUE...]: starts a daemon on DIR/mcp.config.json and waits
# until it listens. SITE_PORT is its main listener, SITE_PASSWORD admin's password; end it with end_site.
begin_site() {
  local end=$((SECONDS + SITE_READY_SECS))
  SITE_DIR=$1 SITE_BINARY=$2
  SITE_PORT=$(site_ports) || return 1
  SITE_PASSWORD=$(od -An -tx1 -N12 /dev/urandom | tr -d ' \n')
  mkdir -p "$SITE_DIR"/{home,state,run}
  # Not those of this machine.
  : >"$SITE_DIR/settings.conf"
  SITE_ENV=(PATH="$PATH" HOME="$SITE_DIR/home" XDG_STATE_HOME="$SITE_DIR/state" XDG_RUNTIME_DIR="$SITE_DIR/run"
    MCP_ORCHESTRATOR__SERVICE__STACK="$3" MCP_ORCHESTRATOR__SERVICE__NAME_PREFIX="$3-"
    MCP_ORCHESTRATOR__SERVICE__PORT_RANGE_START=$((SITE_PORT + 3))
    MCP_ORCHESTRATOR__SERVICE__PORT_RANGE_END=$((SITE_PORT + SITE_PORTS_EACH - 1))
    MCP_ORCHESTRATOR__DASHBOARD__HOST=127.0.0.1 MCP_ORCHESTRATOR__DASHBOARD__PORT="$SITE_PORT"
    MCP_ORCHESTRATOR__DASHBOARD__PASSWORD="$SITE_PASSWORD")
  [ -z "${DOCKER_HOST:-}" ] || SITE_ENV+=(DOCKER_HOST="$DOCKER_HOST")
  SITE_ENV+=("${@:4}")
  env -i "${SITE_ENV[@]}" "$SITE_BINARY" --config "$SITE_DIR/mcp.config.json" --settings "$SITE_DIR/settings.conf" run >"$SITE_DIR/daemon.log" 2>&1 &
  SITE_PID=$!
  until (: <"/dev/tcp/127.0.0.1/$SITE_PORT") 2>/dev/null; do
    if [ $SECONDS -ge $end ] || ! kill -0 "$SITE_PID" 2>/dev/null; then
      echo "the daemon does not listen on port $SITE_PORT:" && tail -n 20 "$SITE_DIR/daemon.log"
      return 1
    fi
    sleep 0.1
  done
}

# site WORD...: the program of this site with these arguments.
site() { env -i "${SITE_ENV[@]}" COLUMNS=80 "$SITE_BINARY" --config "$SITE_DIR/mcp.config.json" --settings "$SITE_DIR/settings.conf" "$@"; }

# site_converged SERVER: waits until a server is as it should be, whatever else is not (an engine may
# be away).
site_converged() {
  local end=$((SECONDS + SITE_READY_SECS))
  until site list-servers --status converged 2>/dev/null | grep -q "^$1 "; do
    if [ $SECONDS -ge $end ]; then
      site status --detailed || true
      tail -n 20 "$SITE_DIR/daemon.log"
      return 1
    fi
    sleep 0.2
  done
}

# end_site: whatever stands, also half of it.
end_site() {
  local end=$((SECONDS + 30))
  [ -n "$SITE_PID" ] || return 0
  kill "$SITE_PID" 2>/dev/null || true
  while kill -0 "$SITE_PID" 2>/dev/null && [ $SECONDS -lt $end ]; do sleep 0.1; done
  kill -9 "$SITE_PID" 2>/dev/null || true
  wait "$SITE_PID" 2>/dev/null || true
  SITE_PID=
}
