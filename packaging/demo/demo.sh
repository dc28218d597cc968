# shellcheck shell=bash disable=SC2154 # setup.sh sources this and has the rest
# The demo: an image made from our own binary, a daemon on the shipped configuration, a real call.
#
# All of it lies in STATE_DIR, in the image IMAGE and in containers labelled with STACK; `demo --down`
# removes exactly that. An image or a container without our labels is never touched.

readonly IMAGE=mcp/example:latest
# The image carries the sum of the binary it was made from; its presence marks the image as ours.
readonly IMAGE_LABEL=io.mcp-orchestrator.binary-sha256
readonly SERVER=example-mcp-server
readonly CONFIG=$HERE/etc/mcp-orchestrator/mcp.config.json
readonly SETTINGS=$HERE/etc/mcp-orchestrator/settings.conf
CONVERGE_WAIT_SECS=120
ANSWER_WAIT_SECS=60
readonly STATE_DIR_CHARS_MAX=85 # a socket's path has 107 at most, and `/run/control.sock` follows

# ---- image ---------------------------------------------------------------------------------------

# image_sum: the sum in the image's label; fails when there is no such image.
image_sum() { as_docker docker image inspect --format "{{index .Config.Labels \"$IMAGE_LABEL\"}}" "$IMAGE" 2>/dev/null; }

# A single layer with a single file: `FROM scratch`, so no registry is asked.
make_image() {
  tar -C "$(dirname "$BINARY")" -cf - --owner=0 --group=0 --mode=0755 mcp-orchestrator |
    as_docker docker import \
      --change 'ENTRYPOINT ["/mcp-orchestrator","demo-server"]' \
      --change 'USER 65532:65532' \
      --change 'LABEL org.opencontainers.image.title="mcp/example"' \
      --change 'LABEL org.opencontainers.image.description="A small MCP server over stdio, for trying mcp-orchestrator"' \
      --change 'LABEL org.opencontainers.image.licenses="MIT OR Apache-2.0"' \
      --change 'LABEL io.modelcontextprotocol.server.name="io.mcp-orchestrator/example"' \
      --change "LABEL $IMAGE_LABEL=$1" - "$IMAGE" >/dev/null
}

ensure_image() {
  local wanted found
  if [ "$DRY_RUN" = yes ]; then
    doing "make the image $IMAGE from that binary"
    return
  fi
  wanted=$(sum_of "$BINARY")
  if found=$(image_sum); then
    [ -n "$found" ] || die "an image $IMAGE is there that this script did not make" "rename it: docker tag $IMAGE my/example && docker rmi $IMAGE"
    if [ "$found" = "$wanted" ]; then
      have "the image $IMAGE"
      return
    fi
    # A container stays on the image it was started from, so the old ones go first.
    doing "replace the image $IMAGE: the binary changed"
    stop_daemon
    remove_containers
    remove_image
  else
    doing "make the image $IMAGE"
  fi
  make_image "$wanted" || die "cannot make the image $IMAGE" "see Docker's message above; is its disk full?"
}

remove_image() {
  [ -n "$(image_sum)" ] || return 0
  doing "remove the image $IMAGE"
  [ "$DRY_RUN" = yes ] || as_docker docker image rm -f "$IMAGE" >/dev/null
}

# ---- the demo's daemon ------------------------------------------------------------------------------

client() { as_docker timeout "$ANSWER_WAIT_SECS" "$STATE_DIR/mcpo" "$@"; }

quoted() { printf "'%s'" "${1//\'/\'\\\'\'}"; }

# A command of its own, so that users reach this daemon without naming its files each time.
write_client() {
  mkdir -p "$STATE_DIR/state" "$STATE_DIR/run"
  cat >"$STATE_DIR/mcpo.new" <<CLIENT
#!/bin/sh
# mcp-orchestrator with the files of the demo: same state, same socket, same stack.
STATE_DIRECTORY=$(quoted "$STATE_DIR/state") RUNTIME_DIRECTORY=$(quoted "$STATE_DIR/run") \\
MCP_ORCHESTRATOR__SERVICE__STACK=$STACK \\
exec $(quoted "$BINARY") --config $(quoted "$CONFIG") --settings $(quoted "$SETTINGS") "\$@"
CLIENT
  chmod 0755 "$STATE_DIR/mcpo.new"
  mv "$STATE_DIR/mcpo.new" "$STATE_DIR/mcpo"
}

daemon_pid() { remembered_process "$STATE_DIR/daemon.pid"; }

start_daemon() {
  local log=$STATE_DIR/daemon.log pid
  : >"$log"
  # shellcheck disable=SC2016 # the inner shell expands them
  pid=$(as_docker sh -c 'setsid nohup "$1" run >>"$2" 2>&1 </dev/null & echo $!' sh "$STATE_DIR/mcpo" "$log" 9>&-)
  remember_process "$pid" "$STATE_DIR/daemon.pid"
  sum_of "$BINARY" >"$STATE_DIR/daemon.sha256"
}

stop_daemon() {
  local pid
  pid=$(daemon_pid) || return 0
  doing "stop the demo's daemon (pid $pid)"
  [ "$DRY_RUN" = no ] || return 0
  end_process "$pid"
  rm -f "$STATE_DIR/daemon.pid"
}

ensure_daemon() {
  local pid
  if [ "$DRY_RUN" = yes ]; then
    doing "start the daemon: stack $STACK, files in $(tilde "$STATE_DIR")"
    return
  fi
  write_client
  if pid=$(daemon_pid) && [ "$(cat "$STATE_DIR/daemon.sha256")" = "$(sum_of "$BINARY")" ]; then
    have "the daemon (pid $pid)"
    return
  fi
  stop_daemon
  doing "start the daemon: stack $STACK, log in $(tilde "$STATE_DIR/daemon.log")"
  start_daemon
}

# Converged is what `status` says in its sentence: `1 of 1 servers converged`.
wait_converged() {
  local deadline=$((SECONDS + CONVERGE_WAIT_SECS)) status='' count='([0-9]+) of ([0-9]+) servers? converged'
  if [ "$DRY_RUN" = yes ]; then
    doing "wait until all servers are converged"
    return
  fi
  while [ $SECONDS -lt $deadline ]; do
    if ! daemon_pid >/dev/null; then
      log_tail "$STATE_DIR/daemon.log"
      die "the daemon ended" "see its log above; ./setup.sh demo starts it again"
    fi
    status=$(client status 2>&1) || true
    if [[ $status =~ $count && ${BASH_REMATCH[1]} = "${BASH_REMATCH[2]}" && ${BASH_REMATCH[2]} != 0 ]]; then
      have "${BASH_REMATCH[0]}"
      return
    fi
    sleep 0.2
  done
  printf '%s\n' "$status" >&2
  log_tail "$STATE_DIR/daemon.log"
  die "not converged after $CONVERGE_WAIT_SECS s" "see: $(tilde "$STATE_DIR/mcpo") why $SERVER"
}

# show_call TOOL JSON PATTERN: a real call over MCP; its answer is shown and must match.
show_call() {
  local answer
  printf '\n%s$ mcpo call %s %s '\''%s'\''%s\n' "$BOLD" "$SERVER" "$1" "$2" "$RESET"
  answer=$(client call "$SERVER" "$1" "$2") || die "the call failed" "see: $(tilde "$STATE_DIR/mcpo") why $SERVER"
  printf '%s\n' "$answer"
  grep -Eq "$3" <<<"$answer" || die "the answer of $1 is not what was expected ($3)" "see: $(tilde "$STATE_DIR/mcpo") why $SERVER"
}

show_demo() {
  if [ "$DRY_RUN" = yes ]; then
    doing "show list-servers and call the tools echo and lookup of $SERVER"
    return
  fi
  printf '\n%s$ mcpo list-servers%s\n' "$BOLD" "$RESET"
  client list-servers || die "list-servers failed" "see $(tilde "$STATE_DIR/daemon.log")"
  show_call echo '{"text":"hello"}' hello
  # A name look-up is what a static binary most easily gets wrong.
  show_call lookup '{"host":"localhost"}' '127\.0\.0\.1|::1'
}

show_next() {
  local mcpo
  [ "$DRY_RUN" = no ] || return 0
  mcpo=$(tilde "$STATE_DIR/mcpo")
  cat <<NEXT

The demo is up after $SECONDS s, and stays up. mcpo is
  $mcpo
Try next
  mcpo status                     what is so
  mcpo plan                       what the next pass would change
  docker kill mcp-$SERVER  (and see it come back: mcpo status)
  edit etc/mcp-orchestrator/mcp.config.json; the daemon follows
  ./setup.sh demo --down          stop it, leave nothing behind
NEXT
}

# ---- commands -------------------------------------------------------------------------------------

# The lock keeps two runs apart. Whatever is left running must not inherit it (9>&-).
take_lock() {
  [ "$DRY_RUN" = no ] || return 0
  mkdir -p "$STATE_DIR"
  chmod 0700 "$STATE_DIR"
  exec 9>"$STATE_DIR/lock"
  flock -n 9 || die "another ./setup.sh demo is at work" "wait for it to end"
}

demo_up() {
  [ ${#STATE_DIR} -le $STATE_DIR_CHARS_MAX ] || die "the path $STATE_DIR is too long for a socket" "set XDG_STATE_HOME to a shorter one"
  take_lock
  find_missing_build_packages
  find_missing_engine_packages
  ensure_packages
  ensure_rust
  ensure_engine
  ensure_binary
  ensure_image
  ensure_daemon
  wait_converged
  show_demo
  show_next
}

demo_containers() {
  as_docker docker ps -aq --filter label=managed-by=mcp-orchestrator --filter "label=io.mcp-orchestrator.stack=$STACK"
}

remove_containers() {
  local ids
  mapfile -t ids < <(demo_containers)
  [ ${#ids[@]} != 0 ] || return 0
  doing "remove ${#ids[@]} container(s) of the stack $STACK"
  [ "$DRY_RUN" = yes ] || as_docker docker rm -f -v "${ids[@]}" >/dev/null
}

# What the demo installed stays: other things may use it by now.
say_what_stays() {
  local installed=
  [ ! -s "$STATE_DIR/installed" ] || installed=$(sort -u "$STATE_DIR/installed" | paste -sd, | sed 's/,/, /g')
  [ -z "$installed" ] || have "still installed, as others may use it: $installed"
  [ ! -d "$TARGET_DIR" ] || have "still there: the build in $(tilde "$TARGET_DIR") (rm -r removes it)"
}

demo_down() {
  if [ ! -d "$STATE_DIR" ] && ! engine_version >/dev/null; then
    have "nothing of the demo"
    return
  fi
  take_lock
  stop_daemon
  # An engine that was ours and died with the host still holds the containers.
  if [ -e "$STATE_DIR/engine.pid" ] && ! engine_version >/dev/null; then ensure_engine; fi
  if engine_version >/dev/null; then
    remove_containers
    remove_image
  elif has docker; then
    die "no Docker engine answers, so containers and image cannot be removed" "start Docker, then run this again"
  fi
  stop_engine
  say_what_stays
  [ "$DRY_RUN" = no ] || return 0
  "${SUDO[@]}" rm -rf -- "$STATE_DIR"
  # On a bare system the demo was the first to need these.
  [ -n "${XDG_STATE_HOME:-}" ] || rmdir "$HOME/.local/state" "$HOME/.local" 2>/dev/null || true
  have "the demo is gone"
}

demo() {
  local down=no word
  for word in "$@"; do
    case $word in
      --down) down=yes ;;
      --dry-run) DRY_RUN=yes ;;
      *) usage_error "demo does not know '$word'" ;;
    esac
  done
  [ "$(uname -s)" = Linux ] || die "the demo needs Linux" "use a Debian 12 machine"
  cd "$HERE" || die "cannot enter $HERE" ""
  choose_sudo
  if [ $down = yes ]; then demo_down; else demo_up; fi
}
