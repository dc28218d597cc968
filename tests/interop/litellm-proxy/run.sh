#!/usr/bin/env bash
# LiteLLM's own proxy in front of the daemon: run.sh BINARY [TRANSCRIPT]
#
# Installs `litellm[proxy]` at pinned versions (740 MB below target/litellm, three minutes the first
# time), gives it what `export litellm` prints, and has its clients list and call tools, over streamable HTTP
# and by the OpenAPI document, while one server hangs. Too big for CI: there tests/interop/litellm.py replays
# what this version sends, and here what it sends is compared with that.
# TRANSCRIPT keeps what was asked and answered. The last line is `N passed, N failed`.
set -Eeuo pipefail

HERE_LITELLM=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/site.sh
source "$HERE_LITELLM/../../site.sh"
readonly VENV=$HERE_LITELLM/../../../target/litellm PROXY_SECS=120
proxy='' dir=''

clean_up() {
  if [ -n "$proxy" ]; then kill "$proxy" 2>/dev/null || true; fi
  if [ -n "${wire:-}" ]; then kill "$wire" 2>/dev/null || true; fi
  end_site
  [ -z "$dir" ] || rm -rf -- "$dir"
}

install() {
  local wanted
  wanted=$(sha256sum <"$HERE_LITELLM/requirements.txt")
  [ "$(cat "$VENV/installed" 2>/dev/null)" != "$wanted" ] || return 0
  rm -rf "$VENV"
  mkdir -p "$(dirname "$VENV")"
  python3 -m venv "$VENV"
  "$VENV/bin/pip" install --quiet --no-input --no-deps --requirement "$HERE_LITELLM/requirements.txt"
  printf '%s\n' "$wanted" >"$VENV/installed"
}

write_config() {
  cat >"$dir/mcp.config.json" <<CONFIG
{"mcpServers": {
  "time": {"command": "$1", "args": ["demo-server"]},
  "far-away": {"command": "$1", "args": ["demo-server"],
    "orchestrator": {"tools": {"allow": ["echo", "time"], "rename": {"echo": "say"}}}},
  "hangs": {"command": "python3", "args": ["$HERE_LITELLM/hangs.py"]}
}}
CONFIG
  printf 'litellm:%s\n' "$2" >"$dir/tokens"
  chmod 600 "$dir/tokens"
}

# The exported block, the same server by its document, and LiteLLM's own key.
write_litellm() {
  local base=http://127.0.0.1:$1
  curl -fsS -H "Authorization: Bearer $2" "http://127.0.0.1:$SITE_PORT/openapi/time/openapi.json" >"$dir/time.json"
  site export litellm --base-url "$base" --token-env MCP_TOKEN >"$dir/litellm.yaml"
  cat >>"$dir/litellm.yaml" <<YAML
  time_document:
    url: "$base/openapi/time"
    spec_path: "$dir/time.json"
    auth_type: bearer_token
    auth_value: "os.environ/MCP_TOKEN"
general_settings:
  master_key: os.environ/LITELLM_KEY
YAML
}

main() {
  local binary token transcript=${2:-/dev/null} wire_port proxy_port end rc=0
  binary=$(realpath "$1")
  install
  dir=$(mktemp -d /tmp/mcpo-litellm.XXXXXX)
  trap clean_up EXIT
  token=$(od -An -tx1 -N16 /dev/urandom | tr -d ' \n')
  write_config "$binary" "$token"
  begin_site "$dir" "$binary" "litellm$$" MCP_ORCHESTRATOR__GATEWAY__AUTH=bearer \
    MCP_ORCHESTRATOR__GATEWAY__TOKENS_FILE="$dir/tokens"
  site_converged time
  site_converged far-away
  # Two ports that the daemon does not have: they are above its range.
  wire_port=$((SITE_PORT + SITE_PORTS_EACH + 20000)) proxy_port=$((SITE_PORT + SITE_PORTS_EACH + 20001))
  python3 "$HERE_LITELLM/wire.py" "$wire_port" "$SITE_PORT" "$dir/wire.jsonl" &
  wire=$!
  write_litellm "$wire_port" "$token"
  # Nothing is asked of the network: prices come along, and no telemetry is sent.
  env -i PATH="$PATH" HOME="$dir/home" MCP_TOKEN="$token" LITELLM_KEY=sk-test LITELLM_LOCAL_MODEL_COST_MAP=True \
    LITELLM_TELEMETRY=False "$VENV/bin/litellm" --config "$dir/litellm.yaml" --host 127.0.0.1 --port "$proxy_port" \
    --telemetry False >"$dir/litellm.log" 2>&1 &
  proxy=$!
  end=$((SECONDS + PROXY_SECS))
  until curl -fsS "http://127.0.0.1:$proxy_port/health/liveliness" >/dev/null 2>&1; do
    if [ $SECONDS -ge $end ] || ! kill -0 "$proxy" 2>/dev/null; then
      tail -n 30 "$dir/litellm.log"
      echo "0 passed, 1 failed"
      return 1
    fi
    sleep 0.5
  done
  "$VENV/bin/python" "$HERE_LITELLM/client.py" "http://127.0.0.1:$proxy_port" sk-test "$dir/wire.jsonl" "$dir/litellm.yaml" |
    tee "$transcript" || rc=$?
  if [ $rc != 0 ]; then tail -n 40 "$dir/litellm.log"; fi
  return $rc
}

main "$@"
