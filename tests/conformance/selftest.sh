#!/usr/bin/env bash
# That the fixture is a server the suite has no complaint about, and that the runner can fail.
set -Eeuo pipefail

# shellcheck source=tests/conformance/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
trap end_started EXIT

code=0
install_suite
build_fixture

start_fixture own-legacy --era legacy
run_suite "$URL" own-legacy 2025-11-25 || code=1
start_fixture own-modern --era modern
run_suite "$URL" own-modern 2026-07-28 || code=1
start_fixture own-dual --era dual
run_suite "$URL" own-dual 2025-11-25 || code=1
run_suite "$URL" own-dual 2026-07-28 || code=1
dead=$URL
end_started

# Nobody is there any more: every scenario must fail.
for revision in "${REVISIONS[@]}"; do
  if said=$(run_suite "$dead" nobody "$revision"); then
    echo "FAILED: a dead address passes for $revision"
    code=1
  elif ! grep -q ': 0 of ' <<<"$said"; then
    echo "FAILED: scenarios pass against a dead address"
    grep ' of ' <<<"$said"
    code=1
  else
    head -n 1 <<<"$said"
  fi
done
exit $code
