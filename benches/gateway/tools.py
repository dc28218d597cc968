"""Measures tools over HTTP beside mcpo and others in one run, and prints the tables of benches/README.md.

Started by tools.sh, which makes the programs. Asserts nothing about time.
"""

import argparse
import http.client
import json
import os
import platform
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import soak
import table
import targets
from product import Daemon, Product
from run import Context, say

CELLS = ((1, 100), (32, 100), (256, 100))
CASES = ("calls", "listing", "sustained", "growth")
MCPO = "mcpo 0.0.20"
# Workers of the sustained load: threads, each with a connection.
WORKERS = 32
VERSION = "2025-11-25"


class Local(targets.Ours):
    """The daemon with local processes alone, spoken to at its main listener."""

    name, path, load = "ours, /openapi", "/openapi/bench/echo", ("--style", "rest")
    count, more = 1, ""

    def entry_names(self):
        return ["bench"] if self.count == 1 else [f"s{number:03}" for number in range(self.count)]

    def start(self):
        self.port = targets.free_port()
        directory = self.context.dir / self.slug()
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        product = Product(self.context.binary, directory, f"tp{os.getpid()}", "none")
        entries = {name: {"command": self.child} for name in self.entry_names()}
        product.config.write_text(json.dumps({"mcpServers": entries}))
        # Ports for the servers' own listeners; nobody asks there.
        first = 21000 + os.getpid() % 40 * 200
        lines = [product.settings.read_text(), f"port_range_start = {first}\nport_range_end = {first + 199}\n"]
        lines += [f"[dashboard]\nport = {self.port}\n", self.more]
        product.settings.write_text("".join(lines))
        self.daemon = Daemon(product, level=self.context.level)
        self.process = self.daemon.process

    def stop(self):
        if self.daemon:
            self.daemon.__exit__()
            (self.context.dir / f"{self.slug()}.log").write_text("".join(self.daemon.log))
            self.daemon = None


class Unnoted(Local):
    """The same without the audit of calls: what that costs."""

    name, more = "ours, /openapi, calls not noted", "[storage]\naudit_calls = false\n"


class OverMcp(Local):
    name, path, load = "ours, /mcp/{id}", "/mcp/bench", ()


class AsOne(Local):
    name, path, load = "ours, /mcp", "/mcp", ("--tool", "bench__echo")


class Fifty(Local):
    name, count, path = "ours, 50 servers", 50, "/openapi/s000/echo"


class Hundred(Local):
    name, count, path = "ours, 100 servers", 100, "/openapi/s000/echo"


class Bench:
    """All cases."""

    def __init__(self, options, context):
        self.options, self.context = options, context
        peers = [one for one in targets.ALL if issubclass(one, (targets.PyPi, targets.Npm, targets.Crate))]
        wanted = lambda one: not options.targets or one.slug() in options.targets
        self.floor = targets.Floor(context)
        self.others = [one(context) for one in (Local, Unnoted, OverMcp, AsOne) if wanted(one)]
        # Only calls are measured beside peers.
        calls = not options.only or "calls" in options.only
        for one in (peer(context) for peer in peers if calls and wanted(peer)):
            try:
                if options.installed_only and not self.is_installed(one):
                    raise RuntimeError("not installed")
                one.install()
                self.others.append(one)
            except (RuntimeError, OSError) as error:
                say(f"{one.name} is left out: {error}")
        self.cells = [cell for cell in CELLS if not options.clients or cell[0] in options.clients]
        self.figures, self.parts = {}, []

    def is_installed(self, peer):
        if isinstance(peer, targets.Crate):
            return (self.context.peers / "rust/bin" / peer.program).exists()
        return (self.context.peers / ("npm" if isinstance(peer, targets.Npm) else peer.place) / "installed").exists()

    def calls(self):
        for turn in range(self.options.rounds):
            for cell in self.cells:
                say(f"round {turn + 1}: {cell[0]} clients")
                at = turn % len(self.others)
                for target in (self.floor, *self.others[at:], *self.others[:at], self.floor):
                    figure = self.one(target, cell)
                    self.figures.setdefault((cell, target.name), []).append(figure)
                    say(f"    {target.name}: {table.line(figure)}")
        self.parts += [table.calls_table(self.figures, 100), self.ratios()]

    def one(self, target, cell):
        words = ("--sessions", cell[0], "--payload", cell[1], "--seconds", self.options.seconds)
        try:
            with target:
                where = ("--url", target.url, "--pid", target.pid, *target.load)
                return self.context.call("calls", *words, *where, within=90 + self.options.seconds)
        except (RuntimeError, OSError) as error:
            return {"failed": str(error)}

    def ratios(self):
        """Beside mcpo at each number of clients, and what noting calls costs."""
        rows = [["What", "Measured", "Beside it, in the same run", "Ratio", "Goal"]]
        per_second, us = "{:,.0f}/s".format, "{:.1f} us".format

        def row(cell, name, other, path, form, what, goal):
            ours, theirs = (table.rounds(self.figures, cell, one, path) for one in (name, other))
            if table.median(ours) is None or table.median(theirs) is None:
                why = ", ".join(filter(None, (table.failures(self.figures, cell, one) for one in (name, other))))
                rows.append([what, why or "-", other, "", goal])
                return
            text = f"{other}: {form(table.median(theirs))}"
            rows.append([what, form(table.median(ours)), text, f"{table.ratio(ours, theirs):.2f}", goal])

        for cell in self.cells:
            clients = f"{cell[0]} client{'s' if cell[0] > 1 else ''}"
            row(cell, Local.name, MCPO, "rps", per_second, f"tool calls, {clients}", ">= 5")
            row(cell, Local.name, MCPO, "p99_us", table.time, f"p99, {clients}", "< 1")
            row(cell, Local.name, "floor", "rps", per_second, f"tool calls, {clients}", "")
        for cell in self.cells:
            clients = f"{cell[0]} client{'s' if cell[0] > 1 else ''}, calls noted"
            row(cell, Local.name, Unnoted.name, "cpu_us", us, f"CPU for a call, {clients}", "")
            row(cell, Local.name, Unnoted.name, "rps", per_second, f"tool calls, {clients}", "")
        return table.grid(rows)

    def listing(self):
        """All tools of 100 servers, warm: the document, and the list at /mcp."""
        with Hundred(self.context) as target:
            deadline = time.monotonic() + 120
            while (known := self.document(target)[0]) < target.count and time.monotonic() < deadline:
                time.sleep(0.5)
            session = open_session(target.port)
            ways = {
                "document of all tools (/openapi/openapi.json)": lambda: self.document(target),
                "tools/list at /mcp, all pages": lambda: listed(target.port, session),
            }
            rows = [[f"listing, {target.count} servers, warm", "tools", "bytes", "p50", "p99", "goal"]]
            for what, ask in ways.items():
                times = []
                for turn in range(self.options.lists + 5):
                    begun = time.perf_counter()
                    tools, size = ask()
                    if turn >= 5:
                        times.append((time.perf_counter() - begun) * 1e6)
                times.sort()
                at = lambda part: table.time(times[min(len(times) - 1, int(len(times) * part))])
                rows.append([what, str(tools), f"{size:,}", at(0.5), at(0.99), "< 50 ms"])
            say(f"    {known} servers known; {rows[1:]}")
        self.parts.append(table.grid(rows))

    @staticmethod
    def document(target):
        connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=60)
        connection.request("GET", "/openapi/openapi.json")
        text = connection.getresponse().read()
        connection.close()
        return text.count(b'"operationId"'), len(text)

    def sustained(self):
        """A thousand calls a second over fifty servers."""
        with Fifty(self.context) as target:
            rows = Paced(target, self.options.rate, self.options.sustained_secs).run()
        self.parts.append(f"{self.options.rate:g} calls a second over {target.count} servers:\n\n" + table.grid(rows))

    def growth(self):
        """Calls over sessions that come and go: what does not stay flat is leaked."""
        with OverMcp(self.context) as target:
            rows = soak.Soak(target, self.options.minutes, 200, say).run()
        columns = ("calls", "sessions", "errors", "rss_mb", "anon_mb", "fds", "threads", "processes")
        lines = [["minutes", *columns]]
        lines += [[f"{row['minutes']:.1f}", *(f"{row[one]:,}" for one in columns)] for row in rows]
        later = rows[len(rows) // 3 :]
        more = later[-1]["sessions"] - later[0]["sessions"]
        budget = (
            f"after the first third, for each of {more:,} sessions opened and closed: "
            f"{slope(later, 'anon_mb') * 1024:+.3f} KB, {slope(later, 'fds'):+.5f} descriptors, "
            f"{slope(later, 'processes'):+.5f} processes, {rows[-1]['errors']:,} errors in all"
        )
        if rows[-1].get("first_error"):
            budget += f"; the first: {rows[-1]['first_error']}"
        self.parts.append(f"Growth over {self.options.minutes:g} minutes:\n\n{table.grid(lines)}\n\n{budget}")


def slope(rows, what):
    """By how much something grows with each session, as the line through all rows has it."""
    sessions = [row["sessions"] for row in rows]
    if len(set(sessions)) < 2:
        return 0.0
    return statistics.linear_regression(sessions, [row[what] for row in rows]).slope


class Paced:
    """So many calls a second, whatever the answers take, over all servers of a target in turn."""

    def __init__(self, target, rate, seconds):
        self.target, self.rate, self.seconds = target, rate, seconds
        self.lock, self.times, self.errors, self.late = threading.Lock(), [], [], 0

    def run(self):
        workers = [threading.Thread(target=self.work, args=(number,), daemon=True) for number in range(WORKERS)]
        before, begun = soak.usage(self.target.pid), time.monotonic()
        self.begun = begun
        for worker in workers:
            worker.start()
        rows = [["seconds", "calls", "a second", "errors", "p50", "p99", "RSS MB", "descriptors", "processes below"]]
        for part in range(1, 5):
            time.sleep(max(0.0, begun + self.seconds * part / 4 - time.monotonic()))
            with self.lock:
                times, errors, self.times = sorted(self.times), len(self.errors), []
            now = soak.usage(self.target.pid)
            at = lambda share: table.time(times[min(len(times) - 1, int(len(times) * share))] * 1e6 if times else None)
            rows.append([
                f"{self.seconds * part / 4:.0f}", f"{len(times):,}", f"{len(times) * 4 / self.seconds:,.0f}", str(errors),
                at(0.5), at(0.99), f"{now['rss_mb']}", f"{before['fds']} -> {now['fds']}", str(now["processes"]),
            ])
            say(f"    {rows[-1]}")
        for worker in workers:
            worker.join(30)
        if self.errors:
            say(f"    first error: {self.errors[0]}")
        return rows

    def work(self, number):
        pause = WORKERS / self.rate
        due, end = self.begun + pause * number / WORKERS, self.begun + self.seconds
        connection, calls = None, 0
        names = self.target.entry_names()
        while due < end:
            time.sleep(max(0.0, due - time.monotonic()))
            due += pause
            calls += 1
            text = f"{number} {calls}"
            begun = time.perf_counter()
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", self.target.port, timeout=30)
                path = f"/openapi/{names[(number + calls * WORKERS) % len(names)]}/echo"
                connection.request("POST", path, json.dumps({"text": text}), {"Content-Type": "application/json"})
                answer = connection.getresponse()
                body = answer.read()
                if answer.status != 200 or json.loads(body) != text:
                    raise ValueError(f"{answer.status} {body[:200]!r}")
                with self.lock:
                    self.times.append(time.perf_counter() - begun)
            except (OSError, http.client.HTTPException, ValueError) as error:
                connection = None
                with self.lock:
                    self.errors.append(repr(error))


def rpc(port, session, message):
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    if session:
        headers |= {"Mcp-Session-Id": session, "MCP-Protocol-Version": VERSION}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/mcp", json.dumps(message), headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    if answer.headers.get("Content-Type", "").startswith("text/event-stream"):
        text = next(line[5:] for line in text.splitlines() if line.startswith(b"data:") and len(line) > 6)
    return answer, text


def open_session(port):
    about = {"protocolVersion": VERSION, "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
    answer, _ = rpc(port, None, {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": about})
    return answer.headers["Mcp-Session-Id"]


def listed(port, session):
    """Number of tools and bytes over all pages."""
    tools = size = 0
    cursor = None
    while True:
        params = {"cursor": cursor} if cursor else {}
        _, text = rpc(port, session, {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": params})
        result = json.loads(text)["result"]
        tools, size, cursor = tools + len(result["tools"]), size + len(text), result.get("nextCursor")
        if not cursor:
            return tools, size


def read_options():
    parser = argparse.ArgumentParser(prog="benches/gateway/tools.sh", description=__doc__.splitlines()[0])
    for name in ("binary", "tools", "peers"):
        parser.add_argument(f"--{name}", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--image", help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=CASES, action="append", help="one case; may be given more than once")
    numbers = lambda text: [int(number) for number in text.split(",")]
    parser.add_argument("--clients", type=numbers, help="numbers of clients, as 1,32,256 (all)")
    parser.add_argument("--targets", type=lambda text: text.split(","), help="as local,unnoted,overmcp,asone,mcpo (all)")
    parser.add_argument("--seconds", type=float, default=2, help="length of each cell (2)")
    parser.add_argument("--rounds", type=int, default=1, help="how often the calls are repeated (1)")
    parser.add_argument("--lists", type=int, default=100, help="lists asked for (100)")
    parser.add_argument("--rate", type=float, default=1000, help="calls a second over fifty servers (1000)")
    parser.add_argument("--sustained-secs", type=float, default=60, help="for so long (60)")
    parser.add_argument("--minutes", type=float, default=2, help="length of the growth case (2); 60 for an hour")
    parser.add_argument("--installed-only", action="store_true", help="leave out peers that are not there")
    parser.add_argument("--log-level", default="INFO", help="of the product (INFO)")
    parser.add_argument("--logs", help="directory for the programs' logs")
    options = parser.parse_args()
    # What Context wants beside.
    options.image, options.auth, options.quick = "none", "none", False
    return options


def main():
    options = read_options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mcpo-tools.") as temporary:
        if options.logs:
            Path(options.logs).mkdir(parents=True, exist_ok=True)
        bench = Bench(options, Context(options, Path(options.logs or temporary).resolve()))
        before = os.getloadavg()[0]
        for case in CASES:
            if case in (options.only or CASES):
                say(case)
                getattr(bench, case)()
        print(
            f"{os.cpu_count()} cores, Linux {platform.release()}, load average {before:.1f} before and "
            f"{os.getloadavg()[0]:.1f} after; {options.rounds} rounds of {options.seconds:g} s, "
            f"{(time.monotonic() - begun) / 60:.1f} minutes in all\n"
        )
        print("\n\n".join(bench.parts))


if __name__ == "__main__":
    main()
