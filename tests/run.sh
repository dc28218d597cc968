#!/usr/bin/env bash
# All tests, by one command, on a bare Debian 12: what they need is installed and started first.
#
# A stage that cannot run has failed: nothing is skipped. Stages run from cheap to dear and each
# is reported, so one run shows everything that is broken. The last line is `N passed, N failed`.
set -Eeuo pipefail

# The demo's installer knows how to get Rust, a compiler and an engine; its functions serve here.
# shellcheck source=setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/../setup.sh"
PROGRAM=./tests/run.sh

# The package's test takes the Debian that the boot test has made.
readonly STAGES=(fmt shellcheck setup aws clippy build test live schemathesis browser release conformance interop boot package)
readonly QUICK_STAGES=(fmt shellcheck setup clippy build test)
# Seconds; a stage that is late has failed. They are for one that hangs: all together take less than 40 minutes.
declare -rA LIMITS=([fmt]=30 [shellcheck]=30 [setup]=90 [aws]=120 [clippy]=600 [build]=900 [test]=360 [live]=900
  [schemathesis]=200 [browser]=330 [release]=900 [conformance]=420 [interop]=420
  [package]=360 [boot]=600)
readonly LOG_LINES_SHOWN=150
readonly READY_WAIT_SECS=60
# Tests of one stage that may need a second try.
readonly UNSTEADY_MAX=3
readonly REQUIREMENTS=$HERE/tests/aws/requirements.txt
readonly API_REQUIREMENTS=$HERE/tests/api/requirements.txt

CHOSEN=() PASSED=0 FAILED=0 STAGE_JOB='' VENV='' API_VENV=''
# Everything that live tests make carries a stack that begins with this; what is left goes at the end.
RUN_ID=t$$
TEST_IMAGE=mcpo-test/example:$RUN_ID
FIXTURE_IMAGE=mcpo-test/fixture:$RUN_ID

test_usage() {
  cat <<USAGE
Usage: ./tests/run.sh [--quick | --only STAGE...]

  --quick        without the stages that need Docker or the AWS stand-in
  --only STAGE   one stage; may be repeated
  -h, --help     this text

Stages: ${STAGES[*]}
Logs:   target/test-logs/STAGE.log

What is missing is installed from Debian and by rustup (root or sudo); without
a running Docker engine one is started and ended again.
The last line is "N passed, N failed"; exit code 0 when nothing failed.
USAGE
}

# ---- what the stages need ------------------------------------------------------------------------

wants() { [[ " ${CHOSEN[*]} " = *" $1 "* ]]; }
wants_python() { wants aws || wants live || wants schemathesis; }
wants_engine() { wants live || wants browser || wants conformance || wants interop || wants package; }

python() { if [ -x /usr/bin/python3 ]; then /usr/bin/python3 "$@"; else python3 "$@"; fi; }

find_missing_test_packages() {
  ! wants shellcheck || has shellcheck || MISSING+=(shellcheck)
  if wants_python; then python -c 'import ensurepip, venv' 2>/dev/null || MISSING+=(python3-venv); fi
  if wants browser; then
    has chromium || MISSING+=(chromium)
    has python3 || MISSING+=(python3)
  fi
  if wants conformance || wants interop; then has npm || MISSING+=(nodejs npm); fi
  if wants interop; then
    has python3 || MISSING+=(python3)
    python3 -c 'import ensurepip, venv' 2>/dev/null || MISSING+=(python3-venv)
  fi
  if wants live; then
    has docker-registry || MISSING+=(docker-registry)
  fi
  if wants package; then find_missing_package_tools; fi
  if wants boot; then find_missing_boot_tools; fi
  if wants_engine; then find_missing_engine_packages; fi
}

find_missing_package_tools() {
  local tool
  for tool in lintian mmdebstrap zstd rpm; do has "$tool" || MISSING+=("$tool"); done
}

# What tests/boot/run.sh asks for; its guest has an engine of its own.
find_missing_boot_tools() {
  local tool
  has systemd-nspawn || MISSING+=(systemd-container)
  for tool in mmdebstrap zstd python3; do has "$tool" || MISSING+=("$tool"); done
}

# Debian starts a registry of its own on port 5000; the tests start theirs where they want it.
quiet_registry() {
  if [[ " ${MISSING[*]} " = *" docker-registry "* ]] && systemd_runs; then
    "${SUDO[@]}" systemctl disable --now docker-registry >/dev/null 2>&1 || true
  fi
}

ensure_rust_component() {
  "$CARGO" "$1" --version >/dev/null 2>&1 && return
  doing "add the Rust component $2"
  rustup component add "$2" || die "there is no cargo $1" "run: rustup component add $2"
}

# venv_of REQUIREMENTS: where its packages are. Kept outside the checkout, named by its content: a fresh
# clone uses it too.
venv_of() {
  local key
  key=$({ python -V && cat "$1"; } | sha256sum | cut -c1-12)
  echo "${XDG_CACHE_HOME:-$HOME/.cache}/mcp-orchestrator/test-venv-$key"
}

# ensure_venv REQUIREMENTS VENV
ensure_venv() {
  local what="the Python packages of ${1#"$HERE/"}" venv=$2
  if [ -e "$venv/complete" ]; then
    have "$what"
    return
  fi
  doing "install $what into $(tilde "$venv")"
  rm -rf -- "$venv"
  mkdir -p "$(dirname "$venv")"
  {
    python -m venv "$venv" && "$venv/bin/pip" install --no-input --quiet --retries 5 -r "$1"
  } >"$STATE_DIR/pip.log" 2>&1 || {
    log_tail "$STATE_DIR/pip.log"
    die "cannot install $what" "is the Python package index reachable?"
  }
  touch "$venv/complete"
}

prepare() {
  find_missing_build_packages
  find_missing_test_packages
  ensure_packages
  quiet_registry
  ensure_rust
  ! wants fmt || ensure_rust_component fmt rustfmt
  ! wants clippy || ensure_rust_component clippy clippy
  if wants aws || wants live; then VENV=$(venv_of "$REQUIREMENTS") && ensure_venv "$REQUIREMENTS" "$VENV"; fi
  if wants schemathesis; then API_VENV=$(venv_of "$API_REQUIREMENTS") && ensure_venv "$API_REQUIREMENTS" "$API_VENV"; fi
  if wants_engine; then ensure_engine; fi
}

# ---- stages: each runs in a process group of its own, its output goes to its log --------------------

stage_fmt() { "$CARGO" fmt --check && echo '1 passed, 0 failed'; }

stage_shellcheck() {
  local -a files
  mapfile -t files < <(find setup.sh .ci tests packaging benches -type f 2>/dev/null | sort | while read -r file; do
    [[ $file = *.sh ]] || head -c 40 "$file" | grep -aqE '^#!.*\<(ba)?sh\>' && printf '%s\n' "$file"
  done)
  shellcheck -x -P "$HERE" "${files[@]}" && echo "${#files[@]} passed, 0 failed"
}

# Scripts end with the line that is counted.
stage_setup() {
  local script rc=0
  for script in tests/setup/*_test.sh; do
    echo "$script"
    "$script" || rc=1
  done
  return $rc
}

stage_aws() { "$VENV/bin/python" -B tests/aws/check.py; }

stage_clippy() { "$CARGO" clippy --all-targets --locked -- -D warnings && echo '1 passed, 0 failed'; }

# steadily TEST-THREADS CARGO-TEST...: runs tests, and once more, alone and one by one, those that failed
# if they are few. What passes only then is no failure and no success either: it is named on the stage's
# line as unsteady, to be looked into. What is broken fails twice.
steadily() {
  local threads=$1 out=$LOGS/first-try.txt rc=0 again=()
  shift
  "$@" --no-fail-fast -- --test-threads="$threads" >"$out" 2>&1 || rc=$?
  mapfile -t again < <(sed -n '/^failures:$/,$ s/^    \([A-Za-z0-9_:]*\)$/\1/p' "$out" | sort -u)
  if [ $rc = 0 ] || [ ${#again[@]} = 0 ] || [ ${#again[@]} -gt $UNSTEADY_MAX ]; then
    cat "$out"
    return $rc
  fi
  sed -E 's/^test result: FAILED\. ([0-9]+) passed; .*/\1 passed, 0 failed/' "$out"
  "$@" --no-fail-fast -- --test-threads=1 --exact "${again[@]}" || return
  printf 'unsteady: %s\n' "${again[@]}"
}

# Apart from the tests' own stages, so that their seconds are theirs.
stage_build() { "$CARGO" test --locked --no-run --lib --bins --test it --test live && echo '1 passed, 0 failed'; }

stage_test() { steadily "$(nproc)" "$CARGO" test --locked --lib --bins --test it; }

# The AWS stand-in on free loopback ports; it ends when its standard input does.
start_aws() {
  local ready=$STATE_DIR/aws.json deadline=$((SECONDS + READY_WAIT_SECS))
  # shellcheck disable=SC2094 # the pipe is only held open
  sleep infinity | "$VENV/bin/python" -B tests/aws/server.py --port 0 --proxy-port 0 --imds-port 0 --until-stdin-closes >"$ready" &
  until [ -s "$ready" ]; do
    [ $SECONDS -lt $deadline ] || { echo "the AWS stand-in did not start in $READY_WAIT_SECS s" && return 1; }
    sleep 0.1
  done
  # shellcheck disable=SC2016 # Python's own
  python -c 'import json, sys
ports = json.load(open(sys.argv[1]))
for name, port in (("AWS_ENDPOINT", "port"), ("AWS_PROXY", "proxy_port"), ("IMDS", "imds_port")):
    print(f"MCPO_{name}=http://127.0.0.1:{ports[port]}")' "$ready"
}

# An image without a registry: the binary under test and the libraries it is linked to.
make_test_image() {
  local binary=$1 root=$STATE_DIR/image library
  mkdir -p "$root"
  cp "$binary" "$root/mcp-orchestrator"
  for library in $(ldd "$binary" | grep -oE '/[^ ]+'); do
    install -D -m 0755 "$library" "$root$library"
  done
  tar -C "$root" -cf - --owner=0 --group=0 . |
    as_docker docker import --change 'ENTRYPOINT ["/mcp-orchestrator","demo-server"]' - "$TEST_IMAGE"
}

# The server behind the gateway's tests, static, so that an image needs nothing but it. FIXTURE is set.
build_fixture() {
  local host target=$TARGET_DIR/fixture
  host=$("$CARGO" -vV | sed -n 's/^host: //p')
  RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static" "$CARGO" build --release --locked \
    --manifest-path tests/fixture/Cargo.toml --target "$host" --target-dir "$target" || return 1
  FIXTURE=$target/$host/release/mcp-fixture
}

make_fixture_image() {
  build_fixture || return 1
  tar -C "$(dirname "$FIXTURE")" -cf - --owner=0 --group=0 --mode=0755 mcp-fixture |
    as_docker docker import --change 'ENTRYPOINT ["/mcp-fixture"]' --change 'USER 65532:65532' - "$FIXTURE_IMAGE"
}

# Fake credentials: nothing here may reach a real account, whatever the caller's environment holds.
stage_live() {
  local ports
  mkdir -p "$STATE_DIR"
  make_test_image "$TARGET_DIR/debug/mcp-orchestrator"
  make_fixture_image || return 1
  ports=$(start_aws) || return 1
  # These tests mostly wait: the release build has what is left of the processors meanwhile. It ends with this
  # stage; its own stage does the rest.
  ! wants release || nice -n 19 "$CARGO" build --release --locked --bins >"$LOGS/release-ahead.log" 2>&1 &
  # shellcheck disable=SC2086 # one word for each variable
  steadily "$(nproc)" as_docker env $ports "MCPO_BIN=$TARGET_DIR/debug/mcp-orchestrator" "MCPO_TEST_IMAGE=$TEST_IMAGE" "MCPO_TEST_STACK=$RUN_ID" \
    "MCPO_FIXTURE=$FIXTURE" "MCPO_FIXTURE_IMAGE=$FIXTURE_IMAGE" "MCPO_TEST_PYTHON=$VENV/bin/python" \
    AWS_ACCESS_KEY_ID=fake AWS_SECRET_ACCESS_KEY=fake AWS_REGION=us-east-1 \
    AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null \
    "$CARGO" test --locked --test live
}

# Every route against /openapi.json, with good and with bad input.
stage_schemathesis() { tests/api/run.sh "$TARGET_DIR/debug/mcp-orchestrator" "$API_VENV/bin/schemathesis" "$LOGS/api"; }

# The dashboard in Chromium; pictures of every page are among the logs.
stage_browser() {
  mkdir -p "$STATE_DIR"
  as_docker docker image inspect "$TEST_IMAGE" >/dev/null 2>&1 || make_test_image "$TARGET_DIR/debug/mcp-orchestrator"
  as_docker tests/browser/run.sh "$TARGET_DIR/debug/mcp-orchestrator" "$TEST_IMAGE" "$RUN_ID-browser" "$LOGS/browser"
}

stage_release() { "$CARGO" build --release --locked --bins && echo '1 passed, 0 failed'; }

# The official suite through the gateway, against the build that users get. Scenarios are counted:
# a dead server passes half of the checks.
stage_conformance() {
  local out=$LOGS/conformance.out rc=0
  "$CARGO" test --locked --manifest-path tests/fixture/Cargo.toml --target-dir "$TARGET_DIR/fixture" || return 1
  as_docker env "CARGO_TARGET_DIR=$TARGET_DIR/fixture" tests/conformance/gateway.sh "$TARGET_DIR/release/mcp-orchestrator" >"$out" || rc=$?
  cat "$out"
  awk '/scored scenarios pass/ { passed += $3; failed += $5 - $3 } END { printf "%d passed, %d failed\n", passed, failed }' "$out"
  return $rc
}

# Official clients and real servers, each at the version that is pinned.
stage_interop() {
  local out=$LOGS/interop.out rc=0
  as_docker tests/interop/run.sh "$TARGET_DIR/release/mcp-orchestrator" >"$out" || rc=$?
  cat "$out"
  # The column `passed` is `PASSED/ALL`; a row that says nothing has failed.
  awk 'match($0, / [0-9]+\/[0-9]+ /) { split(substr($0, RSTART + 1, RLENGTH - 2), n, "/"); passed += n[1]; failed += n[2] - n[1] }
    / rows, [0-9]+ failed/ { if ($3 > 0 && failed == 0) failed = $3 }
    END { printf "%d passed, %d failed\n", passed, failed }' "$out"
  return $rc
}

# The .deb of the release build in a Debian of its own, and the image; the boot test installs the same .deb.
stage_package() {
  local rc=0
  "${SUDO[@]}" tests/package/package_test.sh "$TARGET_DIR/release/mcp-orchestrator" "$LOGS/package" || rc=$?
  mkdir -p "$STATE_DIR"
  as_docker docker image inspect "$TEST_IMAGE" >/dev/null 2>&1 || make_test_image "$TARGET_DIR/release/mcp-orchestrator" || rc=$?
  as_docker tests/package/image_test.sh "$TARGET_DIR/release/mcp-orchestrator" "$TEST_IMAGE" "$RUN_ID-image" "mcpo-test/daemon:$RUN_ID" || rc=$?
  return $rc
}

# The same package in a machine of its own: tests/boot/README.md.
stage_boot() {
  local packages=$LOGS/boot-package
  build_fixture || return 1
  rm -rf -- "$packages"
  packaging/build.sh deb --binary "$TARGET_DIR/release/mcp-orchestrator" --out "$packages" || return 1
  boot_test() { "${SUDO[@]}" tests/boot/run.sh --deb "$packages"/*.deb --fixture "$FIXTURE" --logs "$LOGS/boot"; }
  boot_test >"$LOGS/first-boot.txt" 2>&1 && cat "$LOGS/first-boot.txt" && return
  sed 's/^/first try: /' "$LOGS/first-boot.txt"
  boot_test || return
  sed -n 's/^failed: /unsteady: boot: /p' "$LOGS/first-boot.txt"
}

# ---- running and counting ---------------------------------------------------------------------------

# count_of WORD LOG: the sum over all result lines, cargo's and the scripts'.
count_of() {
  awk -v word="$1" '/^test result: |^[0-9]+ passed, [0-9]+ failed$/ {
    for (i = 2; i <= NF; i++) if ($i ~ "^" word "[;,]?$") sum += $(i - 1)
  } END { print sum + 0 }' "$2"
}

# Ends the stage and whatever it started.
end_stage() {
  [ -n "$STAGE_JOB" ] || return 0
  kill -- "-$STAGE_JOB" 2>/dev/null || true
  wait "$STAGE_JOB" 2>/dev/null || true
  STAGE_JOB=
}

# Waits for the stage, in short steps: its limit and signals to this script must be seen.
await_stage() {
  local deadline=$((SECONDS + $1))
  while kill -0 "$STAGE_JOB" 2>/dev/null; do
    if [ $SECONDS -ge $deadline ]; then return 124; fi
    sleep 0.1
  done
  wait "$STAGE_JOB"
}

run_stage() {
  local name=$1 log=$LOGS/$1.log begun=$SECONDS rc=0 passed failed why=''
  set -m # a process group for the stage
  { trap - ERR && "stage_$name"; } >"$log" 2>&1 </dev/null &
  STAGE_JOB=$!
  set +m
  await_stage "${LIMITS[$name]}" || rc=$?
  end_stage
  passed=$(count_of passed "$log") failed=$(count_of failed "$log")
  if [ $rc = 124 ]; then
    why=" (not done after ${LIMITS[$name]} s)"
  elif [ $rc != 0 ]; then
    why=" (exit code $rc)"
  elif [ "$passed" = 0 ]; then
    why=' (no test ran)'
  fi
  if [ -n "$why" ] && [ "$failed" = 0 ]; then failed=1; fi
  [ "$failed" = 0 ] || tail -n $LOG_LINES_SHOWN "$log" | grep -avE '^[0-9]+ passed, [0-9]+ failed$' || true
  PASSED=$((PASSED + passed)) FAILED=$((FAILED + failed))
  printf '%-10s %4d s  %5d passed %3d failed%s\n' "$name" $((SECONDS - begun)) "$passed" "$failed" "$why"
  grep -a '^unsteady: ' "$log" || true
}

# Containers, networks and images of this run; named volumes are never the product's to remove.
remove_leftovers() {
  local ids stack id
  while read -r id stack; do
    [[ $stack = "$RUN_ID"* ]] || continue
    echo "left by a test, removed: container $id (stack $stack)"
    as_docker docker rm -f -v "$id" >/dev/null || true
  done < <(as_docker docker ps -a --filter label=managed-by=mcp-orchestrator \
    --format '{{.ID}} {{.Label "io.mcp-orchestrator.stack"}}')
  mapfile -t ids < <(as_docker docker images -q --filter "reference=mcpo-test/*:$RUN_ID*" | sort -u)
  [ ${#ids[@]} = 0 ] || as_docker docker image rm -f "${ids[@]}" >/dev/null || true
}

clean_up() {
  trap - EXIT ERR
  end_stage
  if wants_engine && engine_version >/dev/null; then remove_leftovers || true; fi
  stop_engine || true
  "${SUDO[@]}" rm -rf -- "$STATE_DIR"
}

choose_stages() {
  local stage wanted=''
  while [ $# != 0 ]; do
    case $1 in
      --quick) wanted+=" ${QUICK_STAGES[*]} " ;;
      --only)
        shift
        [[ " ${STAGES[*]} " = *" ${1:-} "* ]] || usage_error "--only needs one of: ${STAGES[*]}"
        wanted+=" $1 "
        ;;
      *) usage_error "unknown word '$1'" ;;
    esac
    shift
  done
  # The live tests drive a binary that must be of this checkout.
  [[ $wanted != *' live '* && $wanted != *' schemathesis '* && $wanted != *' browser '* ]] || wanted+=' build '
  [[ $wanted != *' conformance '* && $wanted != *' interop '* && $wanted != *' package '* && $wanted != *' boot '* ]] || wanted+=' release '
  CHOSEN=()
  for stage in "${STAGES[@]}"; do
    if [ -z "$wanted" ] || [[ $wanted = *" $stage "* ]]; then CHOSEN+=("$stage"); fi
  done
}

run_tests() {
  local word stage
  for word in "$@"; do
    case $word in -h | --help) test_usage && return ;; esac
  done
  choose_stages "$@"
  cd "$HERE"
  choose_sudo
  STATE_DIR=$(mktemp -d /tmp/mcpo-test.XXXXXX)
  LOGS=$TARGET_DIR/test-logs
  mkdir -p "$LOGS"
  trap 'die "line $LINENO failed: $BASH_COMMAND" "run it again; if that does not help: bash -x ./tests/run.sh"' ERR
  trap clean_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  prepare
  for stage in "${CHOSEN[@]}"; do run_stage "$stage"; done
  clean_up
  printf '%d passed, %d failed\n' "$PASSED" "$FAILED"
  [ "$FAILED" = 0 ]
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then run_tests "$@"; fi
