#!/usr/bin/env bash
# Measures the gateway beside its peers, the bare HTTP floor and the raw attached stream; see
# benches/README.md.
#
# Makes an image of the stdio server that is behind every gateway, then hands over to run.py.
set -Eeuo pipefail

# shellcheck source=benches/gateway/programs.sh
. "$(dirname "${BASH_SOURCE[0]}")/programs.sh"
readonly IMAGE=mcpo-bench/fastmcp:$$
perhaps_help run.py "$@"
for program in cargo docker python3 tar; do
  command -v "$program" >/dev/null || { echo "benches/gateway/run.sh: there is no $program" >&2 && exit 1; }
done
programs
trap 'docker image rm -f "$IMAGE" >/dev/null 2>&1 || true' EXIT
tar -C "$TOOLS" -cf - --owner=0 --group=0 fastmcp |
  docker import --change 'ENTRYPOINT ["/fastmcp"]' - "$IMAGE" >/dev/null
python3 -B "$HERE/run.py" --binary "$BINARY" --image "$IMAGE" --tools "$TOOLS" --peers "$PEERS" "$@"
