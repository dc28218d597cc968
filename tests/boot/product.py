"""What every scenario shares: the report, the product in the guest, and the load on it."""

import contextlib
import json
import pathlib
import selectors
import subprocess
import time

from guest import UNIT, Broken, Late, eventually

HERE = pathlib.Path(__file__).resolve().parent
CONFIG = "/etc/mcp-orchestrator/mcp.config.json"
SETTINGS = "/etc/mcp-orchestrator/settings.conf"
FIXTURE_IMAGE = "boot-test/fixture:1"
EXAMPLE_IMAGE = "mcp/example:latest"
# Longest until a change is carried out: two slow cores, containers to start.
SETTLE_SECS = 60
# Longest an order to the load may take.
LOAD_SECS = 90
# Calls that each worker must have done after a disturbance before it counts as over.
AFTER = 15
# The main listener's port.
MAIN_PORT = 5000


class Report:
    """Prints one line for each check, counts them, remembers what failed."""

    def __init__(self):
        self.passed, self.failures = 0, []
        self.began = time.monotonic()

    def check(self, title, fine, seen=""):
        """One check; `seen` is what was there, good or bad."""
        seen = " ".join(str(seen).split())[:400]
        mark = "ok  " if fine else "FAIL"
        print(f"{time.monotonic() - self.began:6.1f} {mark} {title}{': ' if seen else ''}{seen}", flush=True)
        if fine:
            self.passed += 1
        else:
            self.failures.append(title)
        return fine

    def note(self, text):
        """A line that is no check."""
        print(f"{time.monotonic() - self.began:6.1f}      {text}", flush=True)

    @contextlib.contextmanager
    def scenario(self, title):
        """What breaks off inside is one failed check, and the next scenario goes on."""
        print(f"-- {title}", flush=True)
        try:
            yield
        except (Late, Broken, OSError, KeyError, ValueError, IndexError, subprocess.SubprocessError) as error:
            self.check(f"{title}, to its end", False, f"{type(error).__name__}: {error}")


class Load:
    """Clients at work in the guest's network; see load.py."""

    def __init__(self, guest, workers):
        self.guest, self.workers = guest, workers
        self.process = None
        self.lines = None

    def __enter__(self):
        # The interpreter and its library are the host's; only the network is the guest's.
        command = self.guest.enter("/usr/bin/python3", "-B", str(HERE / "load.py"), net_only=True)
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lines = selectors.DefaultSelector()
        self.lines.register(self.process.stdout, selectors.EVENT_READ)
        try:
            self.answer()
            for name, (url, tool, arguments) in self.workers.items():
                opened = self.order(f"open {name} {url} {tool} {json.dumps(arguments)}")
                if opened["trouble"]:
                    raise Late(f"client {name} cannot begin its session: {opened['trouble']}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error):
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.process.kill()
        self.process.wait()
        self.lines.close()

    def answer(self):
        """The next line."""
        if not self.lines.select(LOAD_SECS):
            raise Late(f"the clients did not answer within {LOAD_SECS} s: calls hang")
        line = self.process.stdout.readline()
        if not line:
            raise Late(f"the clients ended with code {self.process.wait()}")
        return json.loads(line)

    def order(self, line):
        """One order and its answer."""
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.answer()

    def progress(self, calls=AFTER):
        """Waits until every client has done so many more calls."""
        self.order(f"progress {calls}")

    def mark(self):
        """The figures since the last mark, by worker."""
        return self.order("mark")

    def disturbed_by(self, act):
        """Does it under load; the figures from before it until all is over, by worker."""
        self.progress(3)
        self.mark()
        act()
        self.progress()
        return self.mark()


def total(figures, kind, *names):
    """The sum of one figure over workers, all unless some are named."""
    return sum(figure[kind] for name, figure in figures.items() if not names or name in names)


def told(figures):
    """The figures in a line, with the first examples of failures."""
    slowest = max(figure["slowest"] for figure in figures.values())
    sums = ", ".join(f"{total(figures, kind)} {kind}" for kind in ("calls", "refused", "cut", "failed"))
    examples = [f"{name} {example}" for name, figure in figures.items() for example in figure["examples"]][:3]
    return f"{sums}, slowest {slowest} ms{'; ' if examples else ''}{'; '.join(examples)}"


class Site:
    """The product in the guest."""

    def __init__(self, guest, report):
        self.guest, self.report = guest, report
        self.servers = {}

    def status(self):
        """What the daemon says of itself."""
        return json.loads(self.guest.run("mcp-orchestrator status --json", check=False).out)

    def is_well(self):
        """Whether the daemon has converged on exactly the servers that are wanted."""
        status = self.status()
        rows = status["snapshot"]["report"]["servers"]
        converged = {name for name, row in rows.items() if row["state"] == "converged"}
        return status["well"] and set(self.servers) == converged == set(rows) and status

    def await_well(self, secs=SETTLE_SECS):
        """Waits for that."""
        try:
            return eventually(f"{len(self.servers)} servers converged", secs, self.is_well)
        except Late as late:
            shown = self.guest.run("mcp-orchestrator status", check=False).all
            raise Late(f"{late}; status: {shown[:300]}") from late

    def configure(self, servers, wait=True):
        """Writes the servers as the whole configuration."""
        self.servers = servers
        text = json.dumps({"mcpServers": servers}, indent=2) + "\n"
        self.guest.write(CONFIG, text, "0660", "root:mcp-orchestrator")
        if wait:
            self.await_well()

    def http(self, path, headers=(), body=None, port=MAIN_PORT):
        """A request from within the guest: status and text of the answer."""
        lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.0", f"Host: 127.0.0.1:{port}", *headers]
        if body is not None:
            accepted = "Accept: application/json, text/event-stream"
            lines += ["Content-Type: application/json", accepted, f"Content-Length: {len(body)}"]
        # HTTP/1.0: the answer ends where the connection does.
        script = f"exec 3<>/dev/tcp/127.0.0.1/{port}; cat >&3; cat <&3"
        answer = self.guest.run(script, stdin="\r\n".join([*lines, "", body or ""]).encode()).out
        head, _, text = answer.partition("\r\n\r\n")
        return int(head.split(" ", 2)[1]), text

    def call(self, server, tool, arguments=None):
        """A tool's text, by the command line."""
        words = f"mcp-orchestrator call {server} {tool} '{json.dumps(arguments or {})}' --json"
        return self.guest.json(words)["content"][0]["text"]

    def await_pid(self, other_than, secs=SETTLE_SECS):
        """The main process once it is another one and the unit is active."""

        def look():
            seen = self.guest.show("MainPID", "ActiveState")
            fine = seen["ActiveState"] == "active" and int(seen["MainPID"]) not in (0, other_than)
            return fine and int(seen["MainPID"])

        return eventually("the unit is active with another process", secs, look)

    def workers(self):
        """A client for each way in."""
        ports = self.guest.ports()
        edge = f"http://127.0.0.1:{ports['old']}/mcp/old"
        return {
            "edge": (edge, "echo", {"message": "edge"}),
            # A request is always under way, whatever happens when.
            "long": (edge, "nasty_slow", {"ms": 700}),
            "new": (f"http://127.0.0.1:{ports['new']}/mcp/new", "echo", {"message": "new"}),
            "main": (f"http://127.0.0.1:{MAIN_PORT}/mcp/old", "echo", {"message": "main"}),
            "direct": (f"http://127.0.0.1:{ports['web']}/mcp/web", "echo", {"message": "direct"}),
            "control": (f"unix:{self.guest.live_path('/run/mcp-orchestrator/control.sock')}", "-", {}),
        }

    def repair(self):
        """Back to a state from which the next scenario can begin, whatever the last one left."""
        if not self.guest.alive():
            self.guest.start()
        script = f"""
          systemctl start docker.service
          systemctl is-active --quiet {UNIT} || {{ systemctl reset-failed {UNIT}; systemctl start {UNIT}; }}
        """
        self.guest.run(script, check=False)
        if self.servers != usual_servers():
            self.configure(usual_servers(), wait=False)
        self.await_well()


def fixture(*arguments):
    """The fixture over stdio in a container."""
    return {"command": "docker", "args": ["run", "-i", "--rm", FIXTURE_IMAGE, *arguments]}


def usual_servers():
    """The servers that most scenarios run with: both eras over stdio, one over HTTP."""
    web = ["run", "-p", "8000", FIXTURE_IMAGE, "--http", "8000", "--host", "0.0.0.0", "--any-host"]
    return {
        "old": fixture("--era", "legacy"),
        "new": fixture("--era", "modern"),
        "web": {"command": "docker", "args": web},
    }
