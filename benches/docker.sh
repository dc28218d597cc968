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

# It ends at SIGTERM, as a server does that has an init in front of it.
make_image() {
  echo 'int pause(void); int main(void) { for (;;) pause(); }' >"$WORK/wait.c"
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
