#!/usr/bin/env bash
# The demo of setup.sh against stand-ins for apt, curl, rustup, cargo, docker and the binary. Ends with
# `N passed, N failed`.
# shellcheck disable=SC2016 # bodies of stand-ins are expanded where they run

# shellcheck source=tests/setup/harness.sh
source "$(dirname "${BASH_SOURCE[0]}")/harness.sh"

cargo_of_version() {
  stand_in cargo <<CARGO
[ "\$1" = --version ] && { echo "cargo $1"; exit; }
mkdir -p "$CASE/target/x-gnu/release"
[ -e "$CASE/target/x-gnu/release/mcp-orchestrator" ] || cp "$CASE/product" "$CASE/target/x-gnu/release/mcp-orchestrator"
CARGO
  stand_in rustc <<<'[ "$1" = -vV ] && echo "host: x-gnu"; true'
}

# An engine of files: `up`, `image` (its label), `containers`.
docker_stand_in() {
  : >"$CASE/engine/containers"
  stand_in docker <<DOCKER
cd "$CASE/engine"; [ -e up ] || exit 1
case "\$1 \$2" in
  "version "*) echo 20.10.24 ;;
  "image inspect") [ -e image ] && cat image ;;
  "import "*) cat >/dev/null; sed 's/.*binary-sha256=\([^ ]*\).*/\1/' <<<"\$*" >image ;;
  "ps "*) cat containers ;;
  "rm "*) : >containers ;;
  "image rm") rm image ;;
esac
DOCKER
  stand_in dockerd <<<"touch $CASE/engine/up; exec sleep 600"
}

# The binary: a daemon that makes one container, and the commands that setup.sh needs of it.
product_stand_in() {
  cat >"$CASE/product" <<PRODUCT
#!/bin/bash
while [[ \$1 = --* ]]; do shift 2; done
echo "product \$*" >>"$CASE/calls"
case \$1 in
  run) echo one >"$CASE/engine/containers"; echo 'the daemon speaks'; exec sleep 600 ;;
  status) echo "1 of 1 servers converged, ALB off" ;;
  call) echo "\$4 127.0.0.1" ;;
esac
PRODUCT
  chmod +x "$CASE/product"
}

ready_system() {
  bare_system
  cargo_of_version 1.99.0
  docker_stand_in
  product_stand_in
  stand_in cc <<<true
  touch "$CASE/engine/up"
  echo 'ca_certificates_there() { true; }' >>"$CASE/probes"
}

# ---- cases ---------------------------------------------------------------------------------------

case_help_names_every_word() {
  bare_system
  run --help
  exits 0
  for word in demo --down --dry-run RUSTUP_INIT_URL NO_COLOR; do says "$word"; done
  [ "$(wc -L <<<"$OUT")" -le 80 ] || fail 'wider than 80 columns'
}

case_unknown_words_are_usage_errors() {
  bare_system
  run dmeo && exits 2 && says "unknown command 'dmeo'" && says 'hint:'
  run demo --dwon && exits 2 && says "'--dwon'"
  home_is_empty
}

case_dry_run_on_a_bare_system() {
  bare_system
  run demo --dry-run
  exits 0
  same_as dry-run-bare.txt
  home_is_empty
  not_called .
}

case_dry_run_on_a_ready_system() {
  ready_system
  run demo --dry-run
  exits 0
  same_as dry-run-ready.txt
  home_is_empty
  not_called import
}

# fetcher NAME OPTION: a curl or wget whose OPTION names the file to write; it "downloads" an
# installer that brings a new cargo.
fetcher() {
  stand_in "$1" <<FETCH
while [ "\$1" != $2 ]; do shift; done
cat >"\$2" <<'INSTALLER'
echo "installer \$*" >>"$CASE/calls"
mkdir -p ~/.cargo/bin && mv "$CASE/bin/cargo.new" ~/.cargo/bin/cargo
INSTALLER
FETCH
}

rust_is_missing() {
  ready_system
  mv "$CASE/bin/cargo" "$CASE/bin/cargo.new"
}

case_rust_comes_by_rustup() {
  rust_is_missing
  fetcher curl -o
  run demo
  exits 0
  called 'curl .*https://sh.rustup.rs'
  called 'installer -y --quiet --profile minimal'
  called 'cargo build .*--release --locked'
  run demo
  exits 0
  called_times 1 '^installer'
  run demo --down
  says 'rustup self uninstall'
}

case_rust_comes_by_wget_from_a_mirror() {
  rust_is_missing
  fetcher wget -O
  ENVIRONMENT=RUSTUP_INIT_URL=https://mirror.test/init
  run demo
  exits 0
  called 'wget .*https://mirror.test/init'
  run demo --down
}

case_old_cargo_is_not_enough() {
  rust_is_missing
  cargo_of_version 1.63.0
  fetcher curl -o
  run demo --dry-run
  says 'install Rust into'
  run demo
  exits 0
  called '^installer'
  run demo --down
}

case_failed_download_runs_nothing() {
  rust_is_missing
  stand_in curl <<<'exit 22'
  run demo
  exits 1
  says 'cannot fetch the Rust installer from https://sh.rustup.rs'
  says 'hint:'
  not_called '^installer'
  not_called '^docker import'
}

case_packages_come_from_apt() {
  ready_system
  rm "$CASE/bin/cc"
  run demo
  exits 0
  called 'apt-get update'
  called 'apt-get install .*--no-install-recommends gcc libc6-dev$'
  run demo --down
  says 'gcc, libc6-dev'
}

case_failing_apt_shows_its_words() {
  ready_system
  rm "$CASE/bin/cc"
  stand_in apt-get <<<'echo "E: no such mirror"; exit 100'
  run demo
  exits 1
  says 'E: no such mirror'
  says 'hint:'
}

case_without_root_and_sudo_it_says_so() {
  ready_system
  rm "$CASE/bin/cc"
  echo 'is_root() { false; }' >>"$CASE/probes"
  run demo
  exits 1
  says 'root is needed to install gcc libc6-dev'
}

case_engine_is_started_and_stopped() {
  ready_system
  rm "$CASE/engine/up"
  run demo
  exits 0
  called '^dockerd'
  local engine
  read -r engine _ <"$CASE/home/.local/state/mcp-orchestrator-demo/engine.pid"
  runs "$engine" || fail 'the engine does not run'
  run demo --down
  exits 0
  ! runs "$engine" || fail 'the engine still runs'
}

case_engine_that_dies_shows_its_log() {
  ready_system
  rm "$CASE/engine/up"
  stand_in dockerd <<<'echo "no iptables here"; exit 1'
  run demo
  exits 1
  says 'no iptables here'
}

case_systemd_starts_the_engine_and_keeps_it() {
  ready_system
  rm "$CASE/engine/up"
  echo 'systemd_runs() { true; }' >>"$CASE/probes"
  stand_in systemctl <<<"touch $CASE/engine/up"
  run demo
  exits 0
  called '^systemctl start docker'
  not_called '^dockerd'
  run demo --down
  exits 0
  not_called 'systemctl stop'
}

case_user_outside_the_docker_group_borrows_it() {
  ready_system
  printf '%s() { %s; }\n' is_root false socket_there true socket_open false >>"$CASE/probes"
  stand_in sudo <<<'[ "$1" = -n ] && shift; while [[ $1 = -? ]]; do shift 2; done; exec "$@"'
  run demo
  exits 0
  called "^sudo -n -u $(id -un) -g docker env .* docker import"
  called "^sudo -n -u $(id -un) -g docker env .*mcpo .*daemon.log"
  not_called usermod
  run demo --down
  exits 0
  home_is_empty
}

case_musl_is_taken_where_it_is_installed() {
  ready_system
  mkdir -p "$CASE/sysroot/lib/rustlib/x-linux-musl"
  stand_in rustc <<<'if [ "$1" = -vV ]; then echo "host: x-linux-gnu"; else echo '"$CASE"'/sysroot; fi'
  sed -i 's/x-gnu/x-linux-musl/g' "$CASE/bin/cargo"
  stand_in musl-gcc <<<true
  run demo
  exits 0
  called 'cargo build .*--target x-linux-musl'
  run demo --down
}

case_second_run_does_nothing_twice() {
  ready_system
  run demo
  exits 0
  says 'do  make the image'
  says '{"text":"hello"} 127.0.0.1'
  says_not $'\e'
  run demo
  exits 0
  says 'have  the image mcp/example:latest'
  says 'have  the daemon'
  called_times 1 '^docker import'
  called_times 1 '^product run'
  run demo --down
  exits 0
}

case_changed_binary_replaces_image_and_daemon() {
  ready_system
  run demo
  echo '# newer' >>"$CASE/target/x-gnu/release/mcp-orchestrator"
  run demo
  exits 0
  called_times 2 '^docker import'
  called_times 2 '^product run'
  called_times 1 '^docker image rm'
  run demo --down
}

case_down_leaves_nothing() {
  ready_system
  run demo
  local pid
  read -r pid _ <"$CASE/home/.local/state/mcp-orchestrator-demo/daemon.pid"
  runs "$pid" || fail 'the daemon does not run'
  run demo --down --dry-run
  exits 0
  says 'would  stop the demo'
  runs "$pid" || fail 'a dry run stopped the daemon'
  run demo --down
  exits 0
  ! runs "$pid" || fail 'the daemon still runs'
  [ ! -s "$CASE/engine/containers" ] || fail 'a container is left'
  [ ! -e "$CASE/engine/image" ] || fail 'the image is left'
  home_is_empty
  run demo --down
  exits 0
}

case_foreign_image_is_left_alone() {
  ready_system
  echo >"$CASE/engine/image"
  run demo
  exits 1
  says 'that this script did not make'
  run demo --down
  exits 0
  [ -e "$CASE/engine/image" ] || fail 'a foreign image was removed'
}

case_daemon_that_ends_shows_its_log() {
  ready_system
  sed -i 's/exec sleep 600/exit 1/; s/1 of 1/0 of 1/' "$CASE/product"
  run demo
  exits 1
  says 'the daemon ended'
  says 'the daemon speaks'
}

case_never_converging_is_an_error() {
  ready_system
  sed -i 's/1 of 1/3 of 4/' "$CASE/product"
  echo 'CONVERGE_WAIT_SECS=1' >>"$CASE/probes"
  run demo
  exits 1
  says 'not converged after 1 s'
  says '3 of 4 servers converged'
  run demo --down
}

case_wrong_answer_fails() {
  ready_system
  sed -i 's/ 127.0.0.1/ nothing/' "$CASE/product"
  run demo
  exits 1
  says 'the answer of lookup is not what was expected'
  run demo --down
}

case_daemon_that_will_not_end_is_killed() {
  ready_system
  sed -i "s/exec sleep 600/trap '' TERM; while :; do sleep 1; done/" "$CASE/product"
  echo 'STOP_WAIT_SECS=1' >>"$CASE/probes"
  run demo
  local pid
  read -r pid _ <"$CASE/home/.local/state/mcp-orchestrator-demo/daemon.pid"
  run demo --down
  exits 0
  ! runs "$pid" || fail 'the daemon still runs'
}

# After a restart of the host the file names a stranger.
case_stranger_with_our_pid_is_left_alone() {
  ready_system
  run demo
  local file=$CASE/home/.local/state/mcp-orchestrator-demo/daemon.pid pid
  read -r pid _ <"$file"
  kill "$pid"
  sleep 600 &
  echo "$! 12345" >"$file"
  run demo --down
  exits 0
  runs $! || fail 'a stranger was stopped'
  kill $!
}

case_two_at_once_are_kept_apart() {
  ready_system
  mkdir -p "$CASE/home/.local/state/mcp-orchestrator-demo"
  exec 8>"$CASE/home/.local/state/mcp-orchestrator-demo/lock"
  flock 8
  run demo
  exits 1
  says 'another ./setup.sh demo is at work'
}

run_cases
