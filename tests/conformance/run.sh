#!/usr/bin/env bash
# The official MCP conformance suite against one address.
#
# Scenarios are counted, not checks. Those that may fail are named in expected-LABEL-REVISION.txt,
# one a line; without such a file none may. What the suite said stays in
# target/conformance/LABEL/REVISION.
set -Eeuo pipefail

# shellcheck source=tests/conformance/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

if [ $# -lt 2 ] || [[ $1 = -* ]]; then
  echo "Usage: $0 URL LABEL [REVISION...]        revisions: ${REVISIONS[*]}" >&2
  exit 2
fi
url=$1 label=$2 code=0
shift 2
[ $# != 0 ] || set -- "${REVISIONS[@]}"
install_suite
for revision in "$@"; do
  run_suite "$url" "$label" "$revision" || code=1
done
exit $code
