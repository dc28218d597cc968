#!/usr/bin/env bash
# Official clients and real servers through the gateway: a daemon of our own, server-everything and
# mcp-server-time behind it, and every client's own checks against the port of each.
#
# What a client has to pass stands here, not in its script: one that ends early does not pass.
# What the clients said stays in target/interop/said, the daemon's log in target/interop/gateway.log.
set -Eeuo pipefail

# shellcheck source=tests/interop/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=tests/daemon.sh
source "$PROJECT/tests/daemon.sh"
# shellcheck source=tests/interop/images.sh
source "$SUITE_DIR/images.sh"

readonly STACK=interop-$$
readonly LOG=$CACHE/gateway.log
readonly SAID=$CACHE/said
readonly UP_SECS_MAX=60
readonly STOP_SECS_MAX=20
readonly CLIENT_SECS_MAX=240
# Most of a client's time is waiting.
readonly AT_ONCE=4
# Below the ports the kernel gives out; two runs at once hardly meet.
readonly PORT_FIRST=$((19000 + $$ % 200 * 50))

# In this order.
readonly CLIENTS=(ts ts-sse py2 py2-modern py2-sse py1 py1-sse inspector litellm mcpo faults contained)
readonly BASICS="initialize list call"
readonly OFFERS="resources prompts"
readonly ASKED="sampling elicitation roots"
readonly EXAMPLES="single config index stdio disabled memory sse streamable key key-basic docs-locked headers"
readonly WEBUI="webui-list webui-call webui-browser"
readonly BEFALLS="up kill hang noise garbage slow exits alone ends clean"

usage() {
  cat >&2 <<USAGE
Usage: $0 [--images] BINARY [CLIENT...]

  --images  the servers in containers instead, from images without a base
  BINARY    the mcp-orchestrator to test
  CLIENT    ${CLIENTS[*]}; all when none is named
USAGE
  exit 2
}

place='' daemon='' images='' packed='' row=0 failed=0
declare -A urls=()

clean_up() {
  [ -z "$daemon" ] || stop_daemon || true
  [ -z "$packed" ] || remove_stack "$STACK" "$(image_of everything)" "$(image_of time)"
  [ -z "$place" ] || rm -rf "$place"
}

# Whether it ends by itself when asked to.
stop_daemon() {
  local pid=$daemon
  daemon=''
  end_daemon "$pid" $STOP_SECS_MAX
}

# Servers of this run that still live. A process has the run in its environment; the container
# that all clients of a server share goes on without the daemon, and is none of them.
survivors() {
  if [ -n "$images" ]; then
    echo $(($(docker ps -q --filter "label=io.mcp-orchestrator.stack=$STACK" | wc -l) - 2))
    return
  fi
  grep -lzsFx "INTEROP_RUN=$STACK" /proc/[0-9]*/environ 2>/dev/null | wc -l || true
}

entry() {
  if [ -n "$images" ]; then
    printf '{"command": "docker", "args": ["run", "-i", "--rm", "--network", "none", "-e", "INTEROP_RUN=%s", "%s"]}' \
      "$STACK" "$(image_of "$1")"
  elif [ "$1" = everything ]; then
    printf '{"command": "%s", "args": ["%s", "stdio"], "env": {"INTEROP_RUN": "%s"}}' \
      "$NODE" "$MODULES/@modelcontextprotocol/server-everything/dist/index.js" "$STACK"
  else
    printf '{"command": "%s", "args": ["--local-timezone", "UTC"], "env": {"INTEROP_RUN": "%s"}}' \
      "$CACHE/py2/bin/mcp-server-time" "$STACK"
  fi
}

write_config() {
  cat >"$place/mcp.config.json" <<CONFIG
{"mcpServers": {"everything": $(entry everything), "time": $(entry time)}}
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

start_daemon() {
  mkdir -p "$place/state" "$place/run" "$place/home"
  STATE_DIRECTORY=$place/state RUNTIME_DIRECTORY=$place/run setsid \
    "$BINARY" --config "$place/mcp.config.json" --settings "$place/settings.conf" run \
    >"$LOG" 2>&1 </dev/null &
  daemon=$!
}

# port_of SERVER: the port it has in the ledger.
port_of() {
  STATE_DIRECTORY=$place/state RUNTIME_DIRECTORY=$place/run \
    "$BINARY" --config "$place/mcp.config.json" --settings "$place/settings.conf" ports --json 2>/dev/null |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["leases"][sys.argv[1]]["port"])' "$1" 2>/dev/null
}

# wait_up SERVER: until an initialize is answered at its own port.
wait_up() {
  local end=$((SECONDS + UP_SECS_MAX)) port
  while [ $SECONDS -lt $end ]; do
    kill -0 "$daemon" 2>/dev/null || break
    if port=$(port_of "$1"); then
      urls[$1]=http://127.0.0.1:$port/mcp/$1
      ! python3 "$SUITE_DIR/../conformance/answers.py" "${urls[$1]}" || return 0
    fi
    sleep 0.3
  done
  tail -n 5 "$LOG" | cut -c1-160 >&2
  kill -0 "$daemon" 2>/dev/null || fail "the daemon has ended; the end of $LOG is above"
  fail "$1 does not answer within $UP_SECS_MAX s; the end of $LOG is above"
}

# client LABEL SERVER CHECKS COMMAND...: one row of the table, with others at the same time.
client() {
  local file label=$1 server=$2 checks=$3
  row=$((row + 1))
  file=$(printf '%s/%02d' "$SAID" $row)
  shift 3
  while [ "$(jobs -rp | grep -vcx "$daemon")" -ge $AT_ONCE ]; do sleep 0.1; done
  {
    local begin=${EPOCHREALTIME/[.,]/} code=0
    HOME=$place/home timeout "$CLIENT_SECS_MAX" "$@" >"$file.out" 2>"$file.err" </dev/null || code=$?
    local tenths=$(((${EPOCHREALTIME/[.,]/} - begin) / 100000))
    python3 "$SUITE_DIR/report.py" "$label" "$server" "$((tenths / 10)).$((tenths % 10))" \
      "$code" "$checks" "$file.out" "$file.err" >"$file.row" || : >"$file.failed"
  } &
  rows+=("$!")
}

# What befalls the two servers, as processes or from their images: each has a daemon of its own.
run_faults() {
  local kind server how="as processes" first=$PORT_FIRST
  local -a line where
  [ "$1" = faults ] || { how="in containers" && first=$((PORT_FIRST + 20)); }
  for kind in npm pypi; do
    first=$((first + 10)) server=everything
    line=("$NODE" "$MODULES/@modelcontextprotocol/server-everything/dist/index.js" stdio)
    [ $kind = npm ] || { server="time" && line=("$CACHE/py2/bin/python" -m mcp_server_time --local-timezone UTC); }
    where=("$BINARY" "$place/$1-$kind" "$first" "$kind")
    [ "$1" = faults ] || where+=(--image "$(image_of $server)")
    client "real faults, $how ($kind)" $server "$BEFALLS" \
      python3 -B "$SUITE_DIR/faults.py" "${where[@]}" -- "${line[@]}"
  done
}

# The rows of one kind of client.
run_client() {
  local python=$CACHE/py${1:2:1}/bin/python script=$SUITE_DIR/python_sdk.py mode sdk
  case $1 in
    ts) client "TypeScript SDK $TS_SDK" everything "$BASICS $OFFERS progress $ASKED plain resume end" \
      "$NODE" "$CACHE/typescript.mjs" http "${urls[everything]}" ;;
    ts-sse) client "TypeScript SDK $TS_SDK, HTTP+SSE" everything "$BASICS $OFFERS progress $ASKED plain" \
      "$NODE" "$CACHE/typescript.mjs" sse "${urls[everything]}" ;;
    py*)
      mode=legacy
      [[ $1 != *-* ]] || mode=${1#*-}
      sdk="Python SDK $(pinned "requirements-${1:2:1}.txt" mcp), ${mode/#sse/HTTP+SSE}"
      client "$sdk" everything "$BASICS $OFFERS progress $ASKED changes plain" \
        "$python" "$script" "$mode" everything "${urls[everything]}"
      client "$sdk" time "$BASICS" "$python" "$script" "$mode" time "${urls[time]}"
      ;;
    inspector)
      for server in everything time; do
        client "Inspector CLI $INSPECTOR" $server "list call sse" python3 "$SUITE_DIR/inspector.py" \
          $server "${urls[$server]}" "$NODE" "$MODULES/@modelcontextprotocol/inspector/clients/launcher/build/index.js"
      done
      ;;
    litellm)
      for server in everything time; do
        client "LiteLLM 1.106.2, its wire sequence" $server "list call many together" \
          python3 "$SUITE_DIR/litellm.py" $server "${urls[$server]}"
      done
      ;;
    mcpo)
      # Processes in every form: --images changes nothing of them.
      client "mcpo's examples, Open WebUI's requests" "five of its own" "$EXAMPLES $WEBUI" \
        "$SUITE_DIR/mcpo/run.sh" "$BINARY" ${MCPO_PEER:+"$MCPO_PEER"}
      ;;
  esac
}

# The last row: the daemon ends in time, and all it started with it.
run_stop() {
  local file=$SAID/99 left begin=$SECONDS end=$((SECONDS + STOP_SECS_MAX))
  if stop_daemon; then printf 'PASS\tends\t\n'; else printf 'FAIL\tends\tnot within %s s\n' $STOP_SECS_MAX; fi >"$file.out"
  # A container whose input was closed ends on its own, a moment later.
  until left=$(survivors) && [ "$left" = 0 ] || [ $SECONDS -ge $end ]; do sleep 0.2; done
  if [ "$left" = 0 ]; then printf 'PASS\tclean\t\n'; else printf 'FAIL\tclean\t%s servers live on\n' "$left"; fi >>"$file.out"
  : >"$file.err"
  python3 "$SUITE_DIR/report.py" "the daemon's end" all "$((SECONDS - begin)).0" 0 "ends clean" \
    "$file.out" "$file.err" >"$file.row" || : >"$file.failed"
}

main() {
  local name begin=$SECONDS
  local -a rows=() clients=()
  [ "${1-}" != --images ] || { images=yes && shift; }
  if [ $# = 0 ] || [[ $1 = -* ]]; then usage; fi
  BINARY=$(realpath "$1")
  [ -x "$BINARY" ] || fail "$1 is no program"
  shift
  [ $# != 0 ] || set -- "${CLIENTS[@]}"
  for name in "$@"; do [[ " ${CLIENTS[*]} " = *" $name "* ]] || usage; done
  install_all
  trap clean_up EXIT
  trap 'exit 130' INT TERM
  place=$(mktemp -d)
  rm -rf "$SAID"
  mkdir -p "$SAID"
  if [ -n "$images" ] || [[ " $* " = *" contained "* ]]; then packed=yes && make_images; fi
  write_config
  start_daemon
  wait_up everything
  wait_up time
  for name in "$@"; do
    # What is judged by the second does not share the machine with clients.
    if [[ $name = faults || $name = contained ]]; then
      [ ${#clients[@]} = 0 ] || wait "${clients[@]}"
      clients=()
      run_faults "$name"
    else
      run_client "$name"
      clients=("${rows[@]}")
    fi
  done
  wait "${rows[@]}"
  run_stop
  printf '%-40s %-16s %7s %5s\n' client server passed s
  cat "$SAID"/*.row
  failed=$(find "$SAID" -name '*.failed' | wc -l)
  printf '%s rows, %s failed, %s s\n' "$((row + 1))" "$failed" "$((SECONDS - begin))"
  [ "$failed" = 0 ]
}

main "$@"
