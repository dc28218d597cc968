#!/usr/bin/env python3
"""One row of the table: `report.py CLIENT SERVER SECONDS CODE "CHECKS" OUTPUT ERRORS`.

Exit code 0 only if the script ended well and said PASS, and nothing else, to each check that had to
come, and to no other.
"""

import sys

WIDTH = 80


def read(path):
    """What was said to each check: a verdict and a reason."""
    said = {}
    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            verdict, name, why = [*line.rstrip("\n").split("\t"), "", ""][:3]
            if verdict in ("PASS", "FAIL") and said.get(name, ("PASS",))[0] == "PASS":
                said[name] = (verdict, why)
    return said


def problems(said, wanted, code):
    """What is not as it should be, a line each."""
    found = [f"{name}: {said[name][1]}" for name in wanted if said.get(name, ("",))[0] == "FAIL"]
    missing = [name for name in wanted if name not in said]
    if missing:
        found.append(f"not run: {' '.join(missing)}")
    unknown = [name for name in said if name not in wanted]
    if unknown:
        found.append(f"not in the list of checks: {' '.join(unknown)}")
    if code != "0":
        found.append(f"the client ended with exit code {code}")
    return found


def main():
    """Prints the row and what is wrong with it."""
    client, server, seconds, code, wanted, output, errors = sys.argv[1:]
    said, wanted = read(output), wanted.split()
    passed = sum(said.get(name, ("",))[0] == "PASS" for name in wanted)
    found = problems(said, wanted, code)
    print(f"{client:<40} {server:<16} {passed:>3}/{len(wanted):<3} {seconds:>5} {'' if not found else 'FAIL':>6}".rstrip())
    for line in found:
        print(f"  {line}"[:WIDTH])
    if code != "0":
        with open(errors, encoding="utf-8", errors="replace") as lines:
            for line in [line.strip() for line in lines if line.strip()][-1:]:
                print(f"    {line}"[:WIDTH])
    sys.exit(1 if found else 0)


main()
