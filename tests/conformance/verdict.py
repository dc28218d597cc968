#!/usr/bin/env python3
"""Counts the scenarios of one run of the MCP conformance suite, and decides.

A scenario passes when at least one of its checks succeeded and none failed. Checks are not
counted: against a dead address half of them pass, because nothing came that could be wrong. For
the same reason the check of message forms proves nothing alone.

Exit code 0: every scored scenario passes, or stands in the list of those that may fail.
"""

import argparse
import json
import pathlib
import re
import sys
import textwrap

WIDTH = 80
# The check of every message against the schema, which also succeeds when none came.
FORMS = "wire-schema-valid"
# Directories of results: server-SCENARIO-2026-01-31T12-00-00-000Z.
RESULT = re.compile(r"^server-(?P<scenario>.+)-\d{4}-\d\d-\d\dT[\d-]+Z$")


def requirements(path):
    """The scored scenarios, and those that only run: two lists of the suite's own file."""
    scored, others, section, entry = [], [], "", ""
    for line in path.read_text().splitlines():
        if re.match(r"^\w+:", line):
            section = line.split(":")[0]
        elif section == "server" and (found := re.match(r"^  - (\S+)", line)):
            scored.append(found[1])
        elif section == "not_scored" and (found := re.match(r"^  - scenario: (\S+)", line)):
            entry = found[1]
        elif section == "not_scored" and re.match(r"^    leg: server", line):
            others.append(entry)
    return scored, others


def allowed_to_fail(path):
    """Scenarios of the list, one a line, `#` begins a comment; no file, no scenario."""
    if not path.exists():
        return set()
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return {line for line in lines if line}


def results(folder):
    """The checks by scenario."""
    found = {}
    for path in sorted(folder.glob("server-*/checks.json")):
        if name := RESULT.match(path.parent.name):
            found[name["scenario"]] = json.loads(path.read_text())
    return found


def problem(checks):
    """Why a scenario does not pass: the first failing check; nothing when it passes."""
    if checks is None:
        return "it did not run"
    for check in checks:
        if check["status"] == "FAILURE":
            return f"{check['name']}: {check.get('errorMessage') or check['description']}"
    if any(check["status"] == "SUCCESS" and check["id"] != FORMS for check in checks):
        return ""
    for check in checks:
        if check["status"] == "WARNING":
            return f"{check['name']}: {check.get('errorMessage') or check['description']}"
    return "no check of it succeeded"


def row(word, scenario, why=""):
    """One scenario, and under it why it does not pass, in 80 columns and three lines."""
    print(f"  {word:<8}{scenario}")
    for line in textwrap.wrap(why, WIDTH - 12, max_lines=3, placeholder=" ..."):
        print(f"{'':12}{line}")


def main():
    """Reads the command line and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requirements", type=pathlib.Path, required=True)
    parser.add_argument("--expected", type=pathlib.Path, required=True)
    parser.add_argument("--label", required=True)
    parser.add_argument("checks", type=pathlib.Path)
    options = parser.parse_args()

    scored, others = requirements(options.requirements)
    if not scored:
        sys.exit(f"{options.requirements}: no scored scenarios in it")
    found, allowed = results(options.checks), allowed_to_fail(options.expected)
    problems = {name: problem(found.get(name)) for name in scored + others}
    passed = sum(1 for name in scored if not problems[name])
    extra = sum(1 for name in others if not problems[name])

    print(f"{options.label}, {options.requirements.stem}: {passed} of {len(scored)} scored", end="")
    print(f" scenarios pass, {extra} of {len(others)} others")
    broken = False
    for name in scored:
        if problems[name] and name not in allowed:
            broken = True
            row("FAILS", name, problems[name])
        elif problems[name]:
            row("allowed", name, problems[name])
        elif name in allowed:
            row("passes", name, f"take it off {options.expected.name}")
    for name in others:
        # The tasks extension is nobody's duty, and its ten scenarios would hide the rest.
        if problems[name] and not name.startswith("tasks-"):
            row("other", name, problems[name])
    for name in sorted(allowed - set(scored)):
        broken = True
        row("UNKNOWN", name, f"no such scored scenario; see {options.expected.name}")
    sys.exit(1 if broken else 0)


main()
