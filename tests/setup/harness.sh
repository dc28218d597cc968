# shellcheck shell=bash disable=SC2016,SC2034 # sourced; bodies of stand-ins are expanded where they run
# setup.sh against stand-ins for everything outside it. Each case has an own HOME and a PATH that holds
# nothing but the stand-ins and the plain tools, so a case that reaches for more fails.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
SETUP=$HERE/../../setup.sh
TOOLS=(bash sh awk cat chmod cp cut date dirname env flock getent grep head id ls mkdir mktemp mv nohup paste
  realpath rm rmdir sed setsid sha256sum sleep sort tail tar timeout touch tr uname wc)
BOX=$(mktemp -d)
PASSED=0 FAILED=0
trap 'end_leftovers; rm -rf "$BOX"' EXIT

# The daemons a broken case may have left, found by the box they were given.
end_leftovers() {
  local file
  for file in "$BOX"/*/home/.local/state/*/*.pid; do
    [ ! -s "$file" ] || kill "$(cut -d' ' -f1 "$file")" 2>/dev/null || true
  done
}

# stand_in NAME: a command for the case at hand, its body on standard input.
stand_in() {
  { printf '#!/bin/bash\necho "%s $*" >>"%s/calls"\n' "$1" "$CASE"; cat; } >"$CASE/bin/$1"
  chmod +x "$CASE/bin/$1"
}

# Every case starts as a bare system: no compiler, no Rust, no Docker, no systemd.
bare_system() {
  local tool
  mkdir -p "$CASE/bin" "$CASE/home" "$CASE/engine"
  : >"$CASE/calls"
  printf 'ID=debian\nPRETTY_NAME="Debian GNU/Linux"\n' >"$CASE/os-release"
  for tool in "${TOOLS[@]}"; do ln -s "$(type -P "$tool")" "$CASE/bin/$tool"; done
  stand_in apt-get <<<'[[ " $* " = *" gcc "* ]] && ln -s '"$(type -P true)"' '"$CASE"'/bin/cc; true'
  cat >"$CASE/probes" <<PROBES
systemd_runs() { false; }
is_root() { true; }
OS_RELEASE=$CASE/os-release
socket_there() { false; }
ca_certificates_there() { false; }
static_libc_there() { true; }
PROBES
}

# run WORD...: setup.sh in the case's world; leaves OUT (both streams) and RC.
run() {
  RC=0
  OUT=$(env -i "PATH=$CASE/bin" "HOME=$CASE/home" "CARGO_TARGET_DIR=$CASE/target" ${ENVIRONMENT:+"$ENVIRONMENT"} \
    bash -c 'source "$1"; source "$2"; shift 2; main "$@"' setup "$SETUP" "$CASE/probes" "$@" 2>&1 </dev/null) || RC=$?
}

# ---- what is expected; a failing one ends its case ----------------------------------------------

fail() {
  printf '    %s\n    exit code %s, output:\n%s\n' "$1" "$RC" "      ${OUT//$'\n'/$'\n      '}" >&2
  exit 1
}
exits() { [ "$RC" = "$1" ] || fail "expected exit code $1"; }
says() { grep -qF -- "$1" <<<"$OUT" || fail "expected in the output: $1"; }
says_not() { ! grep -qF -- "$1" <<<"$OUT" || fail "not expected in the output: $1"; }
called() { grep -q -- "$1" "$CASE/calls" || fail "expected call: $1; got: $(cat "$CASE/calls")"; }
not_called() { ! grep -q -- "$1" "$CASE/calls" || fail "call not expected: $1"; }
called_times() { [ "$(grep -c -- "$2" "$CASE/calls")" = "$1" ] || fail "expected $1 calls of $2, got: $(cat "$CASE/calls")"; }
runs() { grep -qs '^State:[[:space:]]*[A-Y]' "/proc/$1/status"; }
home_is_empty() { [ -z "$(ls -A "$CASE/home")" ] || fail "left in HOME: $(ls -AR "$CASE/home")"; }
same_as() { diff -u "$HERE/$1" <(printf '%s\n' "$OUT") >&2 || fail "differs from $1"; }

# ---- all of them: called at the end of each script ----------------------------------------------

run_cases() {
  local name
  for name in $(declare -F | sed -n 's/^declare -f \(case_\)/\1/p'); do
    CASE=$BOX/$((PASSED + FAILED)) ENVIRONMENT='' OUT='' RC=0
    mkdir "$CASE"
    if (set -e; "$name"); then
      PASSED=$((PASSED + 1))
    else
      FAILED=$((FAILED + 1))
      echo "FAILED ${name#case_}"
    fi
  done
  echo "$PASSED passed, $FAILED failed"
  [ $FAILED = 0 ]
}
