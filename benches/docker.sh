#!/usr/bin/env bash
# Measures the product on this host's Docker engine; see benches/README.md.
#
# Makes what is measured (release build, or $MCPO_BIN) and what it runs (an image of one small
# static program that waits), then hands over to docker.py.
set -Eeuo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly HERE
WORK=$(mktemp -d "${TMPDIR:-/tmp}/mcpo-bench.XXXXXX")
readonly IMAGE=mcpo-bench/wait:$$

clean_up() {
  docker image rm -f "$IMAGE" >/dev/null 2>&1 || true
  rm -rf -- "$WORK"
}

# A server that answers its handshake and then waits: the daemon knocks at one that does not again
# and again, which is not what is measured. It ends at SIGTERM, as a server does that has an init
# in front of it.
make_image() {
  cat >"$WORK/wait.c" <<'PROGRAM'
#include <stdio.h>
#include <string.h>
static char line[65536];
int main(void) {
  while (fgets(line, sizeof line, stdin)) {
    char *id = strstr(line, "\"id\":");
    if (!id) continue;
    id += 5;
    int length = (int)strcspn(id, ",}");
    if (strstr(line, "\"method\":\"initialize\""))
      printf("{\"jsonrpc\":\"2.0\",\"id\":%.*s,\"result\":{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{},"
             "\"serverInfo\":{\"name\":\"wait\",\"version\":\"1\"}}}\n", length, id);
    else if (strstr(line, "\"method\":\"ping\""))
      printf("{\"jsonrpc\":\"2.0\",\"id\":%.*s,\"result\":{}}\n", length, id);
    else
      printf("{\"jsonrpc\":\"2.0\",\"id\":%.*s,\"error\":{\"code\":-32601,\"message\":\"no such method\"}}\n", length, id);
    fflush(stdout);
  }
  return 0;
}
PROGRAM
  cc -static -Os -o "$WORK/wait" "$WORK/wait.c"
  rm "$WORK/wait.c"
  tar -C "$WORK" -cf - --owner=0 --group=0 wait |
    docker import --change 'ENTRYPOINT ["/wait"]' - "$IMAGE" >/dev/null
}

case " $* " in
  *' -h '* | *' --help '*) exec python3 -B "$HERE/benches/docker.py" --binary - --image - --help ;;
esac
for program in cc docker python3 tar; do
  command -v "$program" >/dev/null || { echo "benches/docker.sh: there is no $program" >&2 && exit 1; }
done
if [ -z "${MCPO_BIN:-}" ]; then
  cargo build --release --locked --manifest-path "$HERE/Cargo.toml"
  MCPO_BIN=${CARGO_TARGET_DIR:-$HERE/target}/release/mcp-orchestrator
fi
trap clean_up EXIT
make_image
python3 -B "$HERE/benches/docker.py" --binary "$MCPO_BIN" --image "$IMAGE" "$@"
