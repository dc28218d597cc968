#!/usr/bin/env python3
"""Self-test of the strict fake: drives its wire with botocore, one check per promise.

    python tests/aws/check.py [word]     only the checks whose name holds the word

Prints `N passed, N failed` and ends non-zero on a failure. Each check starts from
a reset world. check_api.py holds the checks of ELBv2 itself, check_faults.py those
of faults, log, trip wire, helpers and IMDS.
"""

import sys
import time
import traceback

sys.dont_write_bytecode = True  # a checkout stays clean

import check_api  # noqa: E402, F401  (adds its checks)
import check_faults  # noqa: E402, F401
from bench import CHECKS, Bench  # noqa: E402


def run(wanted: str) -> int:
    bench, failed, begun = Bench(), [], time.monotonic()
    chosen = [(name, function) for name, function in CHECKS if wanted in name]
    for name, function in chosen:
        bench.world, bench.elb = bench.control("POST /_reset", {}), bench.direct
        try:
            function(bench)
        except Exception:
            failed.append(name)
            print(f"FAILED {name}\n{traceback.format_exc()}", file=sys.stderr)
    bench.process.stdin.close()
    bench.process.wait(10)
    print(f"started in {bench.start_s:.2f} s, checked in {time.monotonic() - begun:.1f} s")
    print(f"{len(chosen) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed or not chosen else 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1] if len(sys.argv) > 1 else ""))
