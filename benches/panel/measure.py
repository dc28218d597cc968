"""What run.sh starts is measured here: measure.py PORT PID TOOL [--quick] [--only crowd] [--json FILE]

TOOL is benches/gateway's `pages`: it reads over kept connections (names and handshakes are the
network's) and is the floor, a bare hyper handler that answers with as many bytes. Every figure is the
whole answer's, so that the first byte was there before. While readers read, passes run as fast as the
daemon does them, by a request for each; the same passes are timed without readers, and with readers that
read the floor, who take the same processors and nothing else. How long a pass takes is the daemon's own
word (`/metrics`): a client that waits for one measures its own threads, too.
"""

import argparse
import base64
import json
import os
import re
import subprocess
import threading
import urllib.request

READERS = 32
# Between two questions of a reader, in milliseconds.
PAUSE_MS = 20
LISTS = ["/api/v1/servers", "/api/v1/sections", "/api/v1/tasks", "/api/v1/audit", "/servers"]
PAGES = ["/monitor", "/monitor/servers/server-001", "/monitor/audit", "/api/v1/panel/health", "/metrics", *LISTS]
# What issue and contract ask for, in milliseconds and bytes.
PAGE_MS, LIST_P99_MS, WEIGHT_BYTES = 20, 5, 150 * 1000


class Site:
    """The daemon, and the floor beside it."""

    def __init__(self, port, tool, password):
        self.port, self.tool = port, tool
        self.auth = "Authorization: Basic " + base64.b64encode(f"admin:{password}".encode()).decode()
        self.floor = subprocess.Popen([tool, "floor"], stdout=subprocess.PIPE, text=True)
        self.floor_port = int(self.floor.stdout.readline())

    def ask(self, path, method="GET", gzip=False):
        headers = dict([self.auth.split(": ", 1)], **({"Accept-Encoding": "gzip"} if gzip else {}))
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    def read(self, paths, seconds, readers=1, pause_ms=0, floor=False, gzip=False):
        port = self.floor_port if floor else self.port
        command = [self.tool, "read", "--url", f"http://127.0.0.1:{port}/", "--paths", ",".join(paths), "--readers", str(readers),
                   "--pause-ms", str(pause_ms), "--seconds", str(seconds), "--header", self.auth]
        command += ["--header", "Accept-Encoding: gzip"] if gzip else []
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
        if done.returncode:
            raise SystemExit(done.stderr or done.stdout)
        return json.loads(done.stdout)

    def passes(self):
        """How many passes there were, and the seconds they took."""
        text = self.ask("/metrics").decode()
        value = lambda part: float(re.search(rf"^mcp_orchestrator_pass_duration_seconds_{part} (\S+)", text, re.M)[1])
        return value("count"), value("sum")


def weight(site):
    """The page with everything that its head names: what a first visit loads, plain and compressed."""
    page = site.ask("/monitor").decode()
    paths = ["/monitor", *sorted(set(re.findall(r'(?:src|href)="(/assets/[^"]+)"', page)))]
    return {gzip: {path: len(site.ask(path, gzip=gzip)) for path in paths} for gzip in (False, True)}


def while_passing(site, work):
    """What `work` gives, how many passes there were meanwhile, and the mean of each in milliseconds."""
    end = threading.Event()

    def passing():
        while not end.is_set():
            site.ask("/api/v1/sync?wait=10s", "POST")

    one = threading.Thread(target=passing)
    before = site.passes()
    one.start()
    try:
        found = work()
    finally:
        end.set()
        one.join()
    after = site.passes()
    count, took = after[0] - before[0], after[1] - before[1]
    return found, {"passes": count, "mean_ms": took / max(count, 1) * 1e3}


def row(what, found, floor, goal=""):
    print(f"| {what} | {found['bytes']:,} | {found['n']:,} | {found['median_ms']:.2f} | {found['p99_ms']:.2f} | {floor['median_ms']:.2f} | "
          f"{floor['p99_ms']:.2f} | {found['median_ms'] / floor['median_ms']:.1f} | {goal} |", flush=True)


HEAD = """| {} | bytes | n | median ms | p99 ms | floor median | floor p99 | x floor | goal |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


def alone(site, seconds):
    print(HEAD.format("one reader, nothing else"))
    rows = {}
    for path, gzip in [(path, False) for path in PAGES] + [("/monitor", True)]:
        found = site.read([path], seconds, gzip=gzip)[path]
        floor = next(iter(site.read([f"/{found['bytes']}"], seconds / 2, floor=True).values()))
        name = f"`{path}`{', gzip' if gzip else ''}"
        goal = f"first byte < {PAGE_MS} ms" if path == "/monitor" else ""
        row(name, found, floor, goal)
        rows[name] = {"found": found, "floor": floor}
    print()
    return rows


def crowd(site, seconds):
    """The lists under so many readers while passes run, and what passes take beside them."""
    _, none = while_passing(site, lambda: threading.Event().wait(seconds))
    # Tasks and the audit grow with the passes: the floor's are of the length that they have then.
    bare = [f"/{len(site.ask(path))}" for path in LISTS]
    floors, floor = while_passing(site, lambda: site.read(bare, seconds, READERS, PAUSE_MS, floor=True))
    found, ours = while_passing(site, lambda: site.read(LISTS, seconds, READERS, PAUSE_MS))
    print(HEAD.format(f"{READERS} readers every {PAUSE_MS} ms, passes without a pause"))
    for path, size in zip(LISTS, bare):
        row(f"`{path}`", found[path], floors[size], f"p99 < {LIST_P99_MS} ms")
    print("\n| passes beside | passes | a second | mean ms |\n| --- | --- | --- | --- |")
    for name, one in (("nobody", none), (f"{READERS} readers of the floor", floor), (f"{READERS} readers of the lists", ours)):
        print(f"| {name} | {one['passes']:.0f} | {one['passes'] / seconds:.0f} | {one['mean_ms']:.2f} |")
    print()
    return {"lists": found, "floor": floors, "passes": {"nobody": none, "floor": floor, "lists": ours}}


def resident(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("pid", type=int)
    parser.add_argument("tool")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=["crowd"])
    parser.add_argument("--json")
    asked = parser.parse_args()
    site = Site(asked.port, asked.tool, os.environ["SITE_PASSWORD"])
    try:
        each, seconds = (0.5, 2) if asked.quick else (4, 25)
        rows = {} if asked.only else alone(site, each)
        crowded = crowd(site, seconds)
        parts = weight(site)
        views = json.loads(site.ask("/api/v1/servers"))
    finally:
        site.floor.kill()
        site.floor.wait()
    servers, failing = len(views), sum(view["state"] in ("waiting", "blocked") for view in views)
    plain, small = (sum(parts[gzip].values()) for gzip in (False, True))
    print("| of the servers | page alone | first look, plain | page alone, gzip | first look, gzip | goal |\n| --- | --- | --- | --- | --- | --- |")
    print(f"| {failing} of {servers} fail | {parts[False]['/monitor']:,} | {plain:,} | {parts[True]['/monitor']:,} | {small:,} | < {WEIGHT_BYTES:,} plain |\n")
    load = os.getloadavg()[0]
    print(f"{servers} servers, {failing} of them failing, {resident(asked.pid)} KiB resident, {os.cpu_count()} cores, load {load:.1f}")
    page = rows.get("`/monitor`")
    missed = [what for what, holds in {
        "the page's first byte": page is None or page["found"]["p99_ms"] < PAGE_MS,
        "the first look's weight": plain < WEIGHT_BYTES,
        **{f"{path} under readers": one["p99_ms"] < LIST_P99_MS for path, one in crowded["lists"].items()},
    }.items() if not holds]
    print("every goal is met" if not missed else f"missed: {', '.join(missed)}")
    if asked.json:
        with open(asked.json, "w", encoding="utf-8") as out:
            json.dump({"rows": rows, "crowd": crowded, "weight": {"plain": parts[False], "gzip": parts[True]}, "servers": servers, "failing": failing, "load": load, "missed": missed}, out, indent=1)


main()
