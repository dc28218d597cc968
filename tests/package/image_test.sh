#!/usr/bin/env bash
# The daemon in a container, from packaging/Dockerfile and as packaging/docker-compose.yml runs it: not
# root, nothing writable, no capability. It must become healthy, start a server on the host's engine,
# answer a call, come up again, and end in order.
#
# image_test.sh BINARY SERVER-IMAGE STACK TAG; the engine's client must be usable as it is. A program that is
# not static gets its libraries into the image. Everything carries STACK. Ends with `N passed, N failed`.
set -euo pipefail

# shellcheck source=packaging/build.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../packaging/build.sh"
# shellcheck source=tests/site.sh
source "$HERE/tests/site.sh"
# shellcheck source=tests/daemon.sh
source "$HERE/tests/daemon.sh"
readonly HEALTHY_WITHIN=60 ENDED_WITHIN=30
PASSED=0 FAILED=0
as_docker() { "$@"; }

# expect WHAT COMMAND...
expect() {
  local what=$1 out
  shift
  if out=$("$@" 2>&1); then
    PASSED=$((PASSED + 1)) && printf 'ok     %s\n' "$what"
  else
    FAILED=$((FAILED + 1)) && printf 'FAILED %s\n%s\n' "$what" "$(tail -n 20 <<<"$out" | sed 's/^/       /')"
  fi
}

# make_image: with the libraries of a program that has some.
make_image() {
  local library
  image_root "$WORK/root" "$BINARY"
  for library in $(ldd "$BINARY" 2>/dev/null | grep -oE '/[^ ]+' || true); do install -D -m 0755 "$library" "$WORK/root$library"; done
  image_from "$WORK/root" "$TEST_TAG"
}

# eventually SECS COMMAND...
eventually() {
  local end=$((SECONDS + $1))
  until "${@:2}"; do
    [ $SECONDS -lt $end ] || return 1
    sleep 0.2
  done
}

# The flags of docker-compose.yml, and what keeps tests apart.
start_daemon() {
  docker run -d --name "$TEST_STACK" --network host --group-add "$(stat -Lc %g "$ENGINE_SOCKET")" \
    -v "$ENGINE_SOCKET:/var/run/docker.sock" -v /run/lock:/run/lock -v "$WORK/config:/etc/$NAME" -v "$TEST_STACK:/var/lib/$NAME" \
    --tmpfs "/run/$NAME:uid=65532,gid=65532,mode=0750" --tmpfs /tmp --read-only --cap-drop ALL \
    --security-opt no-new-privileges:true --health-interval 1s --label "io.mcp-orchestrator.test=$TEST_STACK" \
    -e "MCP_ORCHESTRATOR__SERVICE__STACK=$TEST_STACK" -e "MCP_ORCHESTRATOR__SERVICE__NAME_PREFIX=$TEST_STACK-" \
    -e "MCP_ORCHESTRATOR__SERVICE__PORT_RANGE_START=$((HOST_PORT + 3))" -e "MCP_ORCHESTRATOR__SERVICE__PORT_RANGE_END=$((HOST_PORT + 9))" \
    -e "MCP_ORCHESTRATOR__DASHBOARD__PORT=$HOST_PORT" -e "MCP_ORCHESTRATOR__DASHBOARD__HOST=127.0.0.1" "$TEST_TAG"
}

state() { docker inspect --format "{{$1}}" "$TEST_STACK"; }
is_healthy() { [ "$(state .State.Health.Status)" = healthy ]; }
said() { docker logs --tail 20 "$TEST_STACK" && false; }
healthy() { eventually $HEALTHY_WITHIN is_healthy || said; }
inside() { docker exec "$TEST_STACK" "$NAME" "$@"; }
is_converged() { inside status >/dev/null; }
converged() { eventually $HEALTHY_WITHIN is_converged || { inside status --detailed && said; }; }
confined() {
  local status
  status=$(cat "/proc/$(state .State.Pid)/status") || return 1
  echo "$status"
  grep -qE '^Uid:[[:space:]]+65532[[:space:]]' <<<"$status" && grep -qE '^CapEff:[[:space:]]+0+$' <<<"$status" &&
    grep -qE '^NoNewPrivs:[[:space:]]+1$' <<<"$status"
}
answers() { inside call example echo '{"text": "from within"}' | grep -F 'from within'; }
# Over the network: host ports are the host's own.
ready_over_http() {
  local answer
  exec 9<>"/dev/tcp/127.0.0.1/$HOST_PORT" && printf 'GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n' >&9 && answer=$(cat <&9)
  [[ $answer = 'HTTP/1.'?' 200 '* ]] || { echo "$answer" && false; }
}
# A mount of an empty directory must not keep it from starting.
restarted() { docker restart -t $ENDED_WITHIN "$TEST_STACK" && healthy && converged && answers; }
same_server() { [ "$(docker ps -q --no-trunc --filter "name=^$TEST_STACK-example$")" = "$SERVER_ID" ]; }
ended() {
  docker stop -t $ENDED_WITHIN "$TEST_STACK"
  [ "$(state .State.ExitCode)" = 0 ] || said
}
clean_up() {
  docker rm -f -v "$TEST_STACK" >/dev/null 2>&1 || true
  docker volume rm "$TEST_STACK" >/dev/null 2>&1 || true
  remove_stack "$TEST_STACK" "$TEST_TAG"
  rm -rf -- "$WORK"
}

image_main() {
  BINARY=$(realpath "$1") TEST_STACK=$3 TEST_TAG=$4
  ENGINE_SOCKET=${DOCKER_HOST:-unix:///var/run/docker.sock} && ENGINE_SOCKET=${ENGINE_SOCKET#unix://}
  HOST_PORT=$(site_ports)
  set_epoch
  WORK=$(mktemp -d /tmp/mcpo-image.XXXXXX)
  trap clean_up EXIT
  mkdir -m 0755 "$WORK/config"
  chmod 0755 "$WORK"
  printf '{"mcpServers": {"example": {"command": "docker", "args": ["run", "-i", "%s"]}}}\n' "$2" >"$WORK/config/mcp.config.json"
  expect 'the image is made' make_image
  expect 'a container of it starts' start_daemon
  expect 'it becomes healthy' healthy
  expect 'it is not root and has no capability' confined
  expect 'its server converges on the engine of the host' converged
  expect 'a call is answered' answers
  expect 'the main listener answers on the host' ready_over_http
  SERVER_ID=$(docker ps -q --no-trunc --filter "name=^$TEST_STACK-example$")
  expect 'it comes up again after a restart' restarted
  expect 'and its server was left alone' same_server
  expect 'it ends in order' ended
  echo "$PASSED passed, $FAILED failed"
  [ $FAILED = 0 ]
}

image_main "$@"
