"""What fleet.sh measures: fleet.py BINARY [--only health|discovery] [--quick] [--json FILE]

Health: a daemon with fifty local servers, each the demo server. A round is begun by a change of the file
that makes all of them due at once; how long it took is the time between the first and the last verdict,
as the daemon's own clock has them. CPU is what the kernel says that the daemon used, once with
questions every 30 s and once with none, and the servers' share beside it. The floor is a Python loop
that asks the same servers over bare pipes, one after another.

Discovery: a home is made on a disk in memory where there is one, then the whole program and `find` with
the same names take turns.
"""

import argparse
import contextlib
import http.client
import json
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import tempfile
import time

SERVERS = 50
PORT_FIRST = 21_000
WITHIN_SECS = 120
# Longer than any measurement here.
NEVER = "10h"
# Names that make `find` look as hard as the program does at every entry.
NAMES = [".mcp.json", "mcp.json", "package.json", "pyproject.toml", "settings.json", "claude_desktop_config.json"]


class Unix(http.client.HTTPConnection):
    """HTTP over the control socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=30)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def tree(pid):
    """A process and all below it, with their command lines."""
    found, line = [], b""
    with contextlib.suppress(OSError):
        line = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
        found = [(pid, line)]
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in pathlib.Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                found += tree(int(child))
    return found


def cpu(pids):
    """Milliseconds that these processes have run, all their threads, those that ended too."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            # The kernel's CPU clock of another process: clock_getcpuclockid(3).
            total += time.clock_gettime_ns((~pid << 3) | 2)
    return total / 1e6


def resident(pid):
    """Resident memory in MB."""
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


class Daemon:
    """A daemon with fifty local servers."""

    def __init__(self, binary, folder):
        self.binary, self.folder = binary, pathlib.Path(folder)
        self.process = None

    def configure(self, interval):
        """All servers are asked this often."""
        entry = {"command": self.binary, "args": ["demo-server"]}
        entry["orchestrator"] = {"health": {"interval": interval, "timeout": "5s"}}
        config = self.folder / "mcp.config.json"
        new = config.with_suffix(".new")
        new.write_text(json.dumps({"mcpServers": {f"s{number:02}": entry for number in range(SERVERS)}}))
        new.rename(config)

    def start(self):
        """Starts it; all servers are healthy then."""
        settings = self.folder / "settings.conf"
        last = PORT_FIRST + SERVERS + 2
        settings.write_text(
            f"[service]\nstack = benchfleet{os.getpid()}\nport_range_start = {PORT_FIRST}\nport_range_end = {last}\n"
            f"docker_host = unix:///nowhere/docker.sock\n[dashboard]\nport = {last + 1}\nhost = 127.0.0.1\n"
        )
        env = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MCP"))}
        for name, variable in (("state", "STATE_DIRECTORY"), ("run", "RUNTIME_DIRECTORY")):
            (self.folder / name).mkdir()
            env[variable] = str(self.folder / name)
        line = [self.binary, "--config", str(self.folder / "mcp.config.json"), "--settings", str(settings), "run"]
        with open(self.folder / "log", "wb") as log:
            self.process = subprocess.Popen(line, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.await_all("healthy", lambda row: row["state"] == "healthy")

    def rows(self):
        """The health of each server."""
        connection = Unix(self.folder / "run" / "control.sock")
        try:
            connection.request("GET", "/api/v1/gateway")
            servers = json.loads(connection.getresponse().read())["servers"]
        finally:
            connection.close()
        return [server["health"] for server in servers if server["health"]]

    def await_all(self, what, so):
        """Waits until something is so for all; their rows."""
        deadline = time.monotonic() + WITHIN_SECS
        while True:
            with contextlib.suppress(OSError, ValueError, KeyError, http.client.HTTPException):
                rows = self.rows()
                if len(rows) == SERVERS and all(map(so, rows)):
                    return rows
            if time.monotonic() > deadline:
                raise SystemExit(f"not within {WITHIN_SECS} s: all are {what}; {self.words()}")
            time.sleep(0.02)

    def words(self):
        """The end of what the daemon wrote."""
        return (self.folder / "log").read_text(errors="replace")[-600:]

    def shares(self):
        """Ids of the daemon with what it keeps for itself, and of the servers."""
        all_of_it = tree(self.process.pid)
        servers = [pid for pid, line in all_of_it if line.endswith(b"demo-server\0") and b"keep" not in line.split(b"\0")[1]]
        return [pid for pid, _ in all_of_it if pid not in servers], servers

    def stop(self):
        """Ends it."""
        if self.process:
            self.process.terminate()
            self.process.wait(60)


def a_round(daemon):
    """A round of questions to all: ms between the first and the last verdict, and from the file's change."""
    daemon.configure(NEVER)
    time.sleep(7)
    begun = time.time() * 1000
    daemon.configure("6s")
    rows = daemon.await_all("asked", lambda row: row["judged"] > begun)
    judged = [row["judged"] for row in rows]
    return max(judged) - min(judged), max(judged) - begun, max(row["latencyMillis"] for row in rows)


def window(daemon, secs):
    """What the daemon and the servers used of one core in a while, in per cent, and questions answered."""
    mine, servers = daemon.shares()
    answered = sum(row["answered"] for row in daemon.rows())
    before, beside, began = cpu(mine), cpu(servers), time.monotonic()
    time.sleep(secs)
    took = (time.monotonic() - began) * 10
    used = (cpu(mine) - before) / took, (cpu(servers) - beside) / took
    return used, sum(row["answered"] for row in daemon.rows()) - answered


def bare(binary, rounds):
    """A loop over pipes to as many servers: ms of each round."""
    asked = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode() + b"\n"
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "floor", "version": "1"}}
    begin = json.dumps({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello}).encode() + b"\n"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    all_of_them = [subprocess.Popen([binary, "demo-server"], bufsize=0, **pipes) for _ in range(SERVERS)]
    try:
        for one in all_of_them:
            one.stdin.write(begin)
            one.stdout.readline()
            one.stdin.write(b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')
        samples = []
        for _ in range(rounds):
            began = time.perf_counter()
            for one in all_of_them:
                one.stdin.write(asked)
                if b'"result"' not in one.stdout.readline():
                    raise SystemExit("the demo server does not answer ping")
            samples.append((time.perf_counter() - began) * 1000)
        return samples
    finally:
        for one in all_of_them:
            one.kill()
            one.wait()


def health(binary, folder, quick):
    """The rows about health."""
    rounds, secs = (2, 8) if quick else (7, 120)
    daemon = Daemon(binary, folder)
    daemon.configure(NEVER)
    try:
        daemon.start()
        samples = [a_round(daemon) for _ in range(rounds)]
        daemon.configure(NEVER)
        time.sleep(8)
        (quiet, _), none = window(daemon, secs)
        daemon.configure("30s")
        # The first questions come at once, the next are spread.
        time.sleep(1 if quick else 35)
        (used, servers), answered = window(daemon, secs)
        memory = resident(daemon.process.pid)
    finally:
        daemon.stop()
    floor = bare(binary, rounds)
    span, whole, slowest = (statistics.median(column) for column in zip(*samples))
    return {
        "servers": SERVERS, "rounds": rounds, "round_ms": span, "round_worst_ms": max(sample[0] for sample in samples),
        "from_file_ms": whole, "slowest_answer_ms": slowest, "floor_ms": statistics.median(floor),
        "window_s": secs, "questions": answered, "questions_when_quiet": none,
        "cpu_percent": used, "cpu_percent_quiet": quiet, "cpu_percent_servers": servers, "resident_mb": memory,
    }


# ---- discovery ------------------------------------------------------------------------------------------


def make_home(home, files):
    """A home of so many files: most of no concern, some folders deep, a few servers among them."""
    made = 0
    for project in range(files // 500):
        folder = home / f"work{project % 7}" / f"area{project % 20}" / f"project{project}"
        for part in ("src", "docs/pages", "tests/data", "assets/a/b/c", "."):
            place = folder / part
            place.mkdir(parents=True, exist_ok=True)
            for number in range(100):
                (place / f"file{number}.{('py', 'md', 'json', 'txt')[number % 4]}").touch()
                made += 1
        (folder / "package.json").write_text('{"name": "p", "dependencies": {"express": "5"}}')
        if project % 20 == 0:
            entry = {"mcpServers": {f"found{project}": {"command": "npx", "args": ["-y", "a-server"]}}}
            (folder / ".mcp.json").write_text(json.dumps(entry))
    return made


def peak(pid, program):
    """The most resident memory so far in MB, once the process is that program."""
    with contextlib.suppress(OSError, StopIteration):
        if pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().startswith(program.encode() + b"\0"):
            lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    return 0


def timed(line, env):
    """Seconds, CPU seconds, MB at most, and what was printed."""
    with tempfile.TemporaryFile() as out:
        began = time.perf_counter()
        process = subprocess.Popen(line, stdout=out, stderr=subprocess.DEVNULL, env=env)
        # Looked at all the time: what the kernel says at the end counts this program's memory before exec, too.
        most, gone = 0, 0
        while not gone:
            most = peak(process.pid, line[0]) or most
            time.sleep(0.002)
            gone, status, usage = os.wait4(process.pid, os.WNOHANG)
        took = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read()
    if process.returncode != 0:
        raise SystemExit(f"{line[0]} ended with {process.returncode}")
    return took, usage.ru_utime + usage.ru_stime, most, text


def discovery(binary, folder, quick):
    """The rows about discovery."""
    files, turns = (5_000, 2) if quick else (100_000, 7)
    home = pathlib.Path(folder) / "home"
    made = make_home(home, files)
    env = {"PATH": "/usr/bin:/bin", "HOME": str(home), "DOCKER_HOST": "unix:///nowhere/docker.sock"}
    env |= {"XDG_STATE_HOME": str(folder), "XDG_RUNTIME_DIR": str(folder)}
    names = [word for name in NAMES for word in ("-o", "-name", name)][1:]
    look, floor = [binary, "discover", "--json", str(home)], ["find", str(home), "-type", "f", "(", *names, ")"]
    small = [binary, "discover", "--json", str(home / "work0" / "area0" / "project0" / "docs")]
    small[-1] = small[-1] if (home / "work0" / "area0" / "project0" / "docs").is_dir() else str(home / "work0")
    ours, finds, idle = [], [], []
    for _ in range(turns):
        ours.append(timed(look, env))
        finds.append(timed(floor, env))
        idle.append(timed(small, env))
    found = json.loads(ours[-1][3])
    median = lambda samples, column: statistics.median(sample[column] for sample in samples)
    return {
        "files": made, "entries": found["searched"]["entries"], "finds": len(found["finds"]), "turns": turns,
        "seconds": median(ours, 0), "worst_seconds": max(sample[0] for sample in ours), "cpu_seconds": median(ours, 1),
        "mb": median(ours, 2), "mb_of_a_small_one": median(idle, 2), "seconds_of_a_small_one": median(idle, 0),
        "find_seconds": median(finds, 0), "find_mb": median(finds, 2), "candidates": len(finds[-1][3].splitlines()),
    }


def tell(name, figures):
    """The figures as rows of the table."""
    if name == "health":
        ratio = figures["round_ms"] / figures["floor_ms"]
        print(f"| a round of questions to {figures['servers']} servers | {figures['round_ms']:.0f} ms (worst of {figures['rounds']}: "
              f"{figures['round_worst_ms']:.0f}) | a bare loop over pipes: {figures['floor_ms']:.1f} ms | {ratio:.1f} | < 1 s |")
        print(f"| the same, from the change of the file | {figures['from_file_ms']:.0f} ms | slowest answer: {figures['slowest_answer_ms']:.0f} ms | | |")
        print(f"| CPU with questions every 30 s, {figures['window_s']} s | {figures['cpu_percent']:.2f} % of a core ({figures['questions']} questions) | "
              f"without questions: {figures['cpu_percent_quiet']:.2f} % | the servers themselves: {figures['cpu_percent_servers']:.2f} % | < 2 % |")
    else:
        print(f"| `discover` over {figures['entries']:,} entries | {figures['seconds']:.2f} s (worst of {figures['turns']}: {figures['worst_seconds']:.2f}), "
              f"CPU {figures['cpu_seconds']:.2f} s | `find` with as many names: {figures['find_seconds']:.2f} s | {figures['seconds'] / figures['find_seconds']:.1f} | < 2 s |")
        print(f"| the same: memory at most | {figures['mb']:.0f} MB, {figures['finds']} finds | over one folder: {figures['mb_of_a_small_one']:.0f} MB, "
              f"{figures['seconds_of_a_small_one']:.2f} s | | bounded |")


def main():
    """Measures and tells."""
    parser = argparse.ArgumentParser(description="see fleet.sh --help")
    parser.add_argument("binary")
    parser.add_argument("--only", choices=("health", "discovery"))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json")
    given = parser.parse_args()
    figures = {}
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    for name, measure in (("health", health), ("discovery", discovery)):
        if given.only in (None, name):
            folder = tempfile.mkdtemp(prefix="mcpo-bench.", dir=memory if name == "discovery" else None)
            try:
                figures[name] = measure(given.binary, folder, given.quick)
                print(f"load {os.getloadavg()[0]:.1f}")
                tell(name, figures[name])
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    if given.json:
        pathlib.Path(given.json).write_text(json.dumps(figures, indent=2) + "\n")


main()
