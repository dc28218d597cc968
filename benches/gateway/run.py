"""Measures the gateway beside its peers in one run, and prints the tables of benches/README.md.

Started by run.sh, which makes the programs and the image. Asserts nothing about time.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import soak
import table
import targets

CELLS = ((1, 100), (32, 100), (256, 100), (1, 100_000), (32, 100_000))
# The soak takes an hour: only when it is asked for.
CASES = ("calls", "churn", "soak")
# Beyond what is measured: opening sessions, calls that hang, the start of the program.
MORE_SECS = 90


def say(text):
    print(text, file=sys.stderr, flush=True)


class Context:
    """What all targets need."""

    def __init__(self, options, directory):
        self.binary, self.image = options.binary, options.image
        self.auth, self.level = options.auth, options.log_level
        self.tools, self.peers = Path(options.tools), Path(options.peers).resolve()
        self.dir = Path(directory)
        # How long a target may take until it answers.
        self.ready_secs = 15 if options.quick else 60
        self.say = say

    def call(self, *words, within=MORE_SECS):
        """Runs `load`; its figures, or {"failed": why}."""
        line = [self.tools / "load", *map(str, words)]
        try:
            done = subprocess.run(line, capture_output=True, text=True, timeout=within)
        except subprocess.TimeoutExpired:
            return {"failed": f"load has not ended within {within} s"}
        return json.loads(done.stdout) if done.returncode == 0 else {"failed": done.stderr.strip()}


class Bench:
    def __init__(self, options, context):
        self.options, self.context = options, context
        chosen = [one for one in targets.ALL if not options.targets or one.slug() in options.targets]
        self.floor = targets.Floor(context)
        self.others = [one(context) for one in chosen if one is not targets.Floor]
        # (cell, name): one figure for each round.
        self.figures = {}
        self.churned = {}

    def install(self):
        for target in list(self.others):
            try:
                target.install()
            except (RuntimeError, OSError) as error:
                say(f"{target.name} is left out: {error}")
                self.others.remove(target)

    def note(self, cell, name, figure):
        self.figures.setdefault((cell, name), []).append(figure)
        say(f"    {name}: {table.line(figure)}")

    def calls(self):
        for turn in range(self.options.rounds):
            for sessions, payload in self.cells():
                say(f"round {turn + 1}: {sessions} sessions, {payload} B")
                cell = (sessions, payload)
                # Each is first, second and last in turn; the floor is both first and last.
                at = turn % max(1, len(self.others))
                order = [self.floor, *self.others[at:], *self.others[:at], self.floor]
                for target in order:
                    self.note(cell, target.name, self.one(target, sessions, payload))
                if sessions <= 32 and any(isinstance(one, targets.OursContainer) for one in order):
                    self.note(cell, "raw attach", self.attach(sessions, payload))
                    self.note(cell, "raw pipe", self.raw(sessions, payload, "pipe", "--", self.floor.child))

    def cells(self):
        return [cell for cell in CELLS if not self.options.cell or f"{cell[0]}x{cell[1]}" in self.options.cell]

    def one(self, target, sessions, payload):
        words = ("--sessions", sessions, "--payload", payload, "--seconds", self.options.seconds)
        try:
            with target:
                where = ("--url", target.url, "--pid", target.pid, *target.load)
                return self.context.call("calls", *words, *where, within=MORE_SECS + self.options.seconds)
        except (RuntimeError, OSError) as error:
            return {"failed": str(error)}

    def raw(self, sessions, payload, kind, *where):
        words = ("--window", sessions, "--payload", payload, "--seconds", self.options.seconds)
        return self.context.call(kind, *words, *where)

    def attach(self, sessions, payload):
        """The stdio server in a container as the daemon makes them, spoken to with nothing between."""
        name = f"peer{os.getpid()}-attach"
        words = ("docker", "run", "-d", "-i", "--rm", "--init", "--log-driver", "none", "--name", name)
        subprocess.run([*words, self.context.image], check=True, stdout=subprocess.DEVNULL)
        try:
            return self.raw(sessions, payload, "attach", "--container", name)
        finally:
            subprocess.run(["docker", "rm", "-f", name], check=True, stdout=subprocess.DEVNULL)

    def churn(self):
        count = self.options.churn
        for target in (self.floor, *(one for one in self.others if one.kind == "ours")):
            say(f"{count} sessions opened and closed: {target.name}")
            try:
                with target:
                    where = ("--url", target.url, "--pid", target.pid, *target.load)
                    words = ("--count", count, "--hold", min(1000, count))
                    figure = self.context.call("churn", *words, *where, within=MORE_SECS + count / 20)
            except (RuntimeError, OSError) as error:
                figure = {"failed": str(error)}
            self.churned[target.name] = figure
            say(f"    {json.dumps(figure)[:600]}")

    def soak(self):
        for target in (one for one in self.others if one.kind == "ours"):
            say(f"{self.options.minutes:g} minutes of {self.options.rate:g} calls a second: {target.name}")
            with target:
                rows = soak.Soak(target, self.options.minutes, self.options.rate, say).run()
            soak.show(target.name, rows)

    def names(self):
        return [self.floor.name, *(one.name for one in self.others)]

    def kinds(self):
        return {one.name: one.kind for one in (self.floor, *self.others)}


def read_options():
    parser = argparse.ArgumentParser(prog="benches/gateway/run.sh", description=__doc__.splitlines()[0])
    for name in ("binary", "image", "tools"):
        parser.add_argument(f"--{name}", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--peers", required=True, help="where peers are installed (target/bench-peers)")
    names = [one.slug() for one in targets.ALL]
    parser.add_argument("--only", choices=CASES, action="append", help="one case; may be given more than once")
    parser.add_argument("--targets", type=lambda text: text.lower().split(","), help=", ".join(names))
    cells = ", ".join(f"{sessions}x{payload}" for sessions, payload in CELLS)
    parser.add_argument("--cell", type=lambda text: text.split(","), help=f"sessions x bytes: {cells}")
    parser.add_argument("--seconds", type=float, help="length of each cell (5)")
    parser.add_argument("--rounds", type=int, help="how often all is repeated (3)")
    parser.add_argument("--churn", type=int, help="sessions opened and closed (10000)")
    parser.add_argument("--minutes", type=float, default=60, help="length of the soak (60)")
    parser.add_argument("--rate", type=float, default=200, help="calls a second of the soak (200)")
    parser.add_argument("--auth", choices=("bearer", "none"), default="bearer", help="of the product (bearer)")
    parser.add_argument("--log-level", default="WARNING", help="of the product (WARNING)")
    parser.add_argument("--logs", help="directory for the programs' logs")
    parser.add_argument("--json", help="file for all figures")
    parser.add_argument("--quick", action="store_true", help="short cells, one round: only shows that it works")
    options = parser.parse_args()
    usual = (1.0, 1, 1000) if options.quick else (5.0, 3, 10_000)
    for name, value in zip(("seconds", "rounds", "churn"), usual):
        if getattr(options, name) is None:
            setattr(options, name, value)
    for name in options.targets or ():
        if name not in names:
            parser.error(f"--targets: there is no {name}")
    return options


def main():
    options = read_options()
    # What is running is put away on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="mcpo-bench.") as temporary:
        if options.logs:
            Path(options.logs).mkdir(parents=True, exist_ok=True)
        bench = Bench(options, Context(options, Path(options.logs or temporary).resolve()))
        bench.install()
        before = os.getloadavg()[0]
        for case in CASES:
            if case in (options.only or CASES[:2]):
                getattr(bench, case)()
        version = subprocess.run(["docker", "version", "-f", "{{.Server.Version}}"], capture_output=True, text=True)
        print(
            f"{os.cpu_count()} cores, Linux {platform.release()}, engine {version.stdout.strip()}, load average "
            f"{before:.1f} before and {os.getloadavg()[0]:.1f} after; {options.rounds} rounds of {options.seconds:g} s"
        )
        if options.json:
            rows = [{"cell": cell, "target": name, "rounds": rounds} for (cell, name), rounds in bench.figures.items()]
            Path(options.json).write_text(json.dumps({"calls": rows, "churn": bench.churned}, indent=1))
        print(table.whole(bench.figures, bench.churned, bench.kinds()))


if __name__ == "__main__":
    main()
