"""Measures the product on a real engine, each figure beside its floor or peer in the same run.

Started by docker.sh, which makes the binary and the image. Prints a table; asserts nothing about
time. Everything made here carries the run's own stack and name, and is removed at the end.
"""

import argparse
import os
import platform
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import engine
from product import Daemon, Product

WORKERS = 2 * (os.cpu_count() or 1)
# Kills are this far apart, in seconds: past the two seconds after which a new start is looked at.
KILL_GAP = (2.6, 3.4)


def say(text):
    print(text, file=sys.stderr, flush=True)


def ms(seconds):
    return f"{seconds * 1000:.1f} ms"


def secs(seconds):
    return f"{seconds:.2f} s"


def percentile(values, part):
    """The value below which `part` of all lie, by nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, round(part * len(ordered) + 0.5) - 1))]


class Bench:
    def __init__(self, options, directory):
        self.options = options
        self.stack = f"bench{os.getpid()}"
        self.product = Product(options.binary, directory, self.stack, options.image)
        self.peer = f"peer{os.getpid()}-"
        self.proxy = engine.Proxy(str(Path(directory) / "proxy.sock"))
        self.rows = []

    def row(self, what, measured, beside="", ratio="", goal=""):
        self.rows.append((what, measured, beside, ratio, goal))
        say("  " + " | ".join(part for part in self.rows[-1] if part))

    def clean(self):
        engine.remove_all(self.product.prefix)
        engine.remove_all(self.peer)
        self.product.forget()

    # ---- converging from nothing ------------------------------------------------------------------

    def recorded_bodies(self, count):
        """What the product asks the engine to create, under the peer's names."""
        self.product.servers(count)
        mark = len(self.proxy.calls)
        self.product.one_shot(self.proxy.host)
        calls = [call for call in self.proxy.since(mark) if "/containers/create?" in call.path]
        bodies = {f"{self.peer}{number:03}": call.body for number, call in enumerate(calls)}
        if len(bodies) != count or not all(bodies.values()):
            raise RuntimeError(f"{len(bodies)} of {count} creations were seen")
        others = {}
        for call in self.proxy.since(mark):
            kind = f"{call.method} {'/'.join(call.path.split('?')[0].split('/')[:2])}"
            others[kind] = others.get(kind, 0) + 1
        say(f"  calls of one run from nothing: {others}")
        return bodies

    def run_product(self, _):
        return self.product.one_shot()

    def run_engine(self, bodies):
        begun = time.monotonic()
        engine.create_and_start(bodies, WORKERS)
        return (time.monotonic() - begun,) * 2

    def run_cli(self, bodies):
        begun = time.monotonic()
        for name in bodies:
            line = ["docker", "run", "-d", "-i", "--init", "--name", name, self.options.image]
            subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
        return (time.monotonic() - begun,) * 2

    def converge(self):
        count = self.options.servers
        say(f"converging {count} servers from nothing, {self.options.rounds} rounds")
        bodies = self.recorded_bodies(count)
        runs = {"product": self.run_product, "engine": self.run_engine, "cli": self.run_cli}
        times = {name: [] for name in runs}
        for turn in range(self.options.rounds):
            # Each is first, second and last in turn: what is left of the one before falls on all.
            names = list(runs)[turn % 3 :] + list(runs)[: turn % 3]
            for name in names:
                self.clean()
                time.sleep(1)
                times[name].append(runs[name](bodies))
                say(f"  {name}: {times[name][-1][0]:.2f} s, {times[name][-1][1]:.2f} s")
        self.clean()
        started = {name: statistics.median(pair[0] for pair in pairs) for name, pairs in times.items()}
        whole = statistics.median(pair[1] for pair in times["product"])
        over_engine = statistics.median(a[0] / b[0] for a, b in zip(times["product"], times["engine"]))
        over_cli = statistics.median(a[0] / b[0] for a, b in zip(times["product"], times["cli"]))
        what, took = f"{count} servers from nothing, all started", secs(started["product"])
        raw = f"same bodies, raw, {WORKERS} at once: {secs(started['engine'])}"
        one_by_one = f"`docker run -d`, one by one: {secs(started['cli'])}"
        self.row(what, took, raw, f"{over_engine:.2f}", "<= 1.15")
        self.row(what, took, one_by_one, f"{over_cli:.2f}", "<= 0.65")
        until = "the same, until `--one-shot` has seen all up and ends"
        self.row(until, secs(whole), raw, f"{whole / started['engine']:.2f}")

    # ---- a daemon at rest -------------------------------------------------------------------------

    def cold_start(self):
        count = self.options.servers
        say(f"cold start over {count} running servers")
        self.product.servers(count)
        self.product.one_shot()
        walls, engines = [], []
        for _ in range(self.options.starts):
            with Daemon(self.product) as daemon:
                walls.append(daemon.ready_secs)
            mark = len(self.proxy.calls)
            with Daemon(self.product, self.proxy.host) as daemon:
                ready = daemon.begun + daemon.ready_secs
                calls = [call for call in self.proxy.since(mark) if call.at < ready and "/events" not in call.path]
                engines.append(sum(call.answered - call.at for call in calls))
        wall, answers = statistics.median(walls), statistics.median(engines)
        beside = f"of it the engine's answers: {ms(answers)}"
        besides = f"besides: {ms(max(0.0, wall - answers))}"
        self.row(f"cold start to READY, {count} servers", ms(wall), beside, besides, "< 200 ms besides")
        size = os.path.getsize(self.options.binary) / 2**20
        self.row("size of the binary", f"{size:.1f} MB")

    def idle(self):
        count, span = self.options.servers, self.options.idle
        say(f"idle daemon with {count} servers, {span} s")
        self.product.servers(count)
        self.product.one_shot()
        with Daemon(self.product) as daemon:
            daemon.settle()
            time.sleep(3)
            cpu, begun = daemon.cpu_ms(), time.monotonic()
            quiet = span / 2
            time.sleep(quiet)
            between = daemon.cpu_ms() - cpu
            time.sleep(span - quiet)
            used, span = daemon.cpu_ms() - cpu, time.monotonic() - begun
            resident, anonymous = daemon.memory_mb()
        memory = f"{resident:.1f} MB resident, {anonymous:.1f} MB of it no file's"
        self.row(f"idle daemon, {count} servers: memory", memory, "", "", "< 30 MB")
        cpu = f"{used:.1f} ms in {span:.0f} s ({used / span / 10:.3f} % of a core)"
        self.row("the same: CPU", cpu, f"first half of it: {between:.1f} ms", "", "none between passes")

    def no_op(self):
        count = self.options.fleet
        say(f"passes without changes, {count} servers")
        self.product.servers(count)
        self.product.one_shot()
        connection = engine.UnixConnection(engine.ENGINE)
        syncs, lists = [], []
        with Daemon(self.product, level="mcp_orchestrator=debug") as daemon:
            daemon.settle()
            time.sleep(3)
            seen = len(daemon.decided())
            for _ in range(self.options.passes):
                syncs.append(daemon.sync()[0])
                begun = time.monotonic()
                engine.ask(connection, "GET", "/containers/json?all=true")
                lists.append(time.monotonic() - begun)
                time.sleep(0.15)
            decided = daemon.decided()[seen:]
        with Daemon(self.product, self.proxy.host) as daemon:
            daemon.settle()
            time.sleep(3)
            first, mark = daemon.sync()[1], len(self.proxy.calls)
            for _ in range(self.options.passes):
                last = daemon.sync()[1]
                time.sleep(0.15)
            calls = self.proxy.since(mark)
        # Others' containers on this engine wake passes too: what counts is calls for each pass.
        passes = last - first
        writes = [call for call in calls if call.method != "GET"]
        kinds = sorted({call.path.split("?")[0] for call in calls})
        sync, floor = statistics.median(syncs), statistics.median(lists)
        inside = statistics.median(decided) / 1000 if decided else 0.0
        what, beside = f"pass without changes, {count} servers", f"the engine's list alone: {ms(floor)}"
        self.row(f"{what}, inside the daemon", ms(inside), beside, f"{inside / floor:.2f}", "<= 20 ms")
        self.row("the same, asked for over the control socket", ms(sync), beside, f"{sync / floor:.2f}")
        seen = f"{len(calls)} ({', '.join(kinds)})"
        each = f"{len(calls) / passes:.2f} a pass"
        self.row(f"engine calls of {passes} such passes", seen, f"writes: {len(writes)}", each, "1 a pass, no write")

    # ---- death, stop ------------------------------------------------------------------------------

    def deaths(self):
        count, kills = self.options.fleet, self.options.kills
        say(f"{kills} deaths among {count} servers")
        self.product.servers(count)
        self.product.one_shot()
        victims = [row["Id"] for row in engine.ours(self.product.prefix)][:kills]
        told, answered, after = [], [], []
        with Daemon(self.product, self.proxy.host) as daemon:
            daemon.settle()
            time.sleep(3)
            for victim in victims:
                pid = engine.once("GET", f"/containers/{victim}/json")["State"]["Pid"]
                mark = len(self.proxy.calls)
                killed = time.monotonic()
                os.kill(pid, signal.SIGKILL)
                start = self.proxy.await_call(lambda call: call.path.endswith(f"/{victim}/start"), mark, 30)
                if start is None or victim not in self.proxy.deaths:
                    raise RuntimeError(f"container {victim[:12]} was not started again within 30 s")
                died = self.proxy.deaths[victim]
                told.append(died - killed)
                answered.append(start.at - killed)
                after.append(start.at - died)
                time.sleep(random.uniform(*KILL_GAP))
        # With no daemon there: what somebody learns who asks the engine the moment its event comes.
        floors = [engine.death(victim)[1] for victim in victims]
        for part, name, goal in ((0.5, "p50", ""), (0.9, "p90", ""), (0.99, "p99", "<= 50 ms")):
            event = percentile(told, part)
            call = percentile(answered, part)
            own = percentile(after, part)
            what, ratio = f"death to start call, {name} of {len(told)}", f"{call / event:.2f}"
            beside = f"the engine's own event: {ms(event)}; until it admits the end: {ms(percentile(floors, part))}"
            self.row(what, ms(call), beside, f"{ratio} (event to call {ms(own)})", goal)

    def stop(self):
        count = self.options.fleet
        say(f"stopping {count} servers")
        self.product.servers(count)
        self.product.one_shot()
        with Daemon(self.product) as daemon:
            daemon.settle()
            took = self.product.cli("stop")
            running = [row for row in engine.ours(self.product.prefix) if row["State"] == "running"]
            if running:
                raise RuntimeError(f"{len(running)} still run")
            again = self.product.cli("start")
            daemon.settle()
        ids = [row["Id"] for row in engine.ours(self.product.prefix)]
        time.sleep(2)
        begun = time.monotonic()
        engine.stop_all(ids)
        stopped = time.monotonic()
        engine.start_all(ids, WORKERS)
        floors = stopped - begun, time.monotonic() - stopped
        what, beside = f"`stop` of {count} servers, until all have ended", f"raw stop, all at once: {secs(floors[0])}"
        self.row(what, secs(took), beside, f"{took / floors[0]:.2f}", "<= 8 s")
        what, beside = f"`start` of the same {count}, until all are up", f"raw, {WORKERS} at once: {secs(floors[1])}"
        self.row(what, secs(again), beside, f"{again / floors[1]:.2f}")

    # ---- report -----------------------------------------------------------------------------------

    def report(self):
        info = engine.once("GET", "/info")
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        print(f"\n{os.cpu_count()} cores, {memory:.0f} GB, Linux {platform.release()}, engine {info['ServerVersion']}", end="")
        print(f" ({info['Driver']}, cgroup v{info.get('CgroupVersion', '1')}), load {os.getloadavg()[0]:.1f}\n")
        heads = ("What", "Measured", "Beside it, in the same run", "Ratio", "Goal")
        print("| " + " | ".join(heads) + " |")
        print("|" + " --- |" * len(heads))
        for row in self.rows:
            print("| " + " | ".join(row) + " |")


CASES = ("converge", "cold_start", "idle", "no_op", "deaths", "stop")


def options():
    parser = argparse.ArgumentParser(prog="benches/docker.sh", description="Measures on this host's engine.")
    parser.add_argument("--binary", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--image", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--only", action="append", choices=CASES, help="one case; may be repeated")
    parser.add_argument("--quick", action="store_true", help="few servers and samples: only shows that it works")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of converging (default 3)")
    chosen = parser.parse_args()
    full = {"servers": 50, "fleet": 100, "kills": 60, "passes": 40, "starts": 5, "idle": 60}
    quick = {"servers": 4, "fleet": 6, "kills": 3, "passes": 5, "starts": 2, "idle": 6}
    for name, value in (quick if chosen.quick else full).items():
        setattr(chosen, name, value)
    if chosen.quick:
        chosen.rounds = 1
    return chosen


def main():
    chosen = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    directory = tempfile.mkdtemp(prefix="mcpo-bench.")
    bench, failed = Bench(chosen, directory), []
    try:
        for case in CASES:
            if chosen.only is None or case in chosen.only:
                try:
                    getattr(bench, case)()
                except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                    # The other figures are still worth having.
                    failed.append(case)
                    bench.row(case, f"failed: {str(error).splitlines()[0]}")
                    say(str(error))
    finally:
        bench.clean()
        bench.proxy.close()
        shutil.rmtree(directory, ignore_errors=True)
    bench.report()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
