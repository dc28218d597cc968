# shellcheck shell=bash
# Ending what a script of the tests began: a daemon of its own, and what that made on the engine.

# end_daemon PID SECS: asks it to end; fails when it did not end by itself in time, and kills it.
end_daemon() {
  local end=$((SECONDS + $2))
  kill "$1" 2>/dev/null || return 1
  while kill -0 "$1" 2>/dev/null; do
    if [ $SECONDS -ge $end ]; then
      kill -9 "$1" 2>/dev/null || true
      wait "$1" 2>/dev/null || true
      return 1
    fi
    sleep 0.1
  done
  wait "$1" 2>/dev/null
}

# remove_stack STACK [IMAGE...]: its containers, and the images; after the daemon, which would start
# again what is removed.
remove_stack() {
  local -a left
  mapfile -t left < <(docker ps -aq --filter "label=io.mcp-orchestrator.stack=$1")
  [ ${#left[@]} = 0 ] || docker rm -f "${left[@]}" >/dev/null || true
  [ $# = 1 ] || docker image rm -f "${@:2}" >/dev/null 2>&1 || true
}
