#!/usr/bin/env python3
"""What befalls a real server, as a process or in a container, and whether it is seen and mended.

`faults.py BINARY FOLDER PORT npm|pypi [--image IMAGE] -- COMMAND...`: a daemon of its own in FOLDER, on
ten ports from PORT, with one server to torment, one beside it that must not notice, and one whose
command line is wrong. A line a check, as checks.py has it.
"""

import contextlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

from checks import ensure, reason, same, say

HERE = pathlib.Path(__file__).resolve().parent
# Longest wait for anything; seconds.
WITHIN = 90
# Between two looks.
LOOK = 0.1
# A tool of each kind's server and what its answer holds.
TOOLS = {
    "npm": ("echo", {"message": "here"}, "here"),
    "pypi": ("get_current_time", {"timezone": "UTC"}, "UTC"),
}
# Words that the server ends at.
WRONG = {"npm": ["no-such-transport"], "pypi": ["--local-timezone", "No/Where"]}
# What it says before that.
LAST_WORDS = {"npm": "Unknown transport: no-such-transport", "pypi": "not a known IANA timezone"}
# Quick enough for a test, and slow enough for a loaded machine.
HEALTH = {"interval": "1s", "timeout": "2s", "failureThreshold": 2, "recoveryThreshold": 2, "startPeriod": "3s"}
# The one beside it is given more time: a busy machine is no fault of its server.
PATIENT = {**HEALTH, "failureThreshold": 5}
RESTART = {"delay": "500ms", "resetAfter": "3s"}
TRIES = 3


def eventually(what, look, secs=WITHIN):
    """What `look` finds, once it does."""
    deadline = time.monotonic() + secs
    last = None
    while True:
        try:
            last = look()
            if last:
                return last
        except (OSError, ValueError, KeyError, IndexError, http.client.HTTPException) as error:
            last = reason(error)
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {secs} s: {what}; last: {last}")
        time.sleep(LOOK)


class Unix(http.client.HTTPConnection):
    """HTTP over the control socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=20)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Site:
    """One daemon and its servers."""

    def __init__(self, binary, folder, port, kind, image, command):
        self.binary, self.folder, self.port = binary, pathlib.Path(folder).resolve(), port
        self.kind, self.image, self.command = kind, image, command
        self.stack = f"interop-faults-{kind}-{os.getpid()}"
        self.daemon = None

    # ---- files ------------------------------------------------------------------------------------

    def entry(self, name, words=(), **own):
        """An entry of mcp.config.json; the server's name is in its environment, so that it can be found."""
        faults = self.folder / "faults" / name
        mark = f"{self.stack}/{name}"
        env = {"INTEROP_FAULTS": mark, "PYTHONPATH": str(faults), "NODE_OPTIONS": f"--require={faults}/preload.cjs"}
        own = {"health": HEALTH, "restart": RESTART, **own}
        if not self.image:
            return {"command": self.command[0], "args": [*self.command[1:], *words], "env": env, "orchestrator": own}
        flags = [word for item in env.items() for word in ("-e", "=".join(item))]
        line = ["run", "-i", "--rm", "--network", "none", "-v", f"{faults}:{faults}:ro", *flags]
        line += ["--entrypoint", self.command[0], self.image, *self.command[1:], *words]
        return {"command": "docker", "args": line, "orchestrator": own}

    def write(self):
        """The files."""
        for name in ("subject", "beside", "wrong"):
            place = self.folder / "faults" / name
            place.mkdir(parents=True)
            for file in ("preload.cjs", "sitecustomize.py"):
                shutil.copy(HERE / "faults" / file, place)
        words = self.command
        wrong = self.entry("wrong", restart={**RESTART, "maxAttempts": TRIES})
        tail = [WRONG[self.kind][0]] if self.kind == "npm" else WRONG[self.kind]
        self.command = words[:-1] if self.kind == "npm" else words
        wrong["args"] = self.entry("wrong", tail)["args"]
        self.command = words
        servers = {"subject": self.entry("subject"), "beside": self.entry("beside", health=PATIENT), "wrong": wrong}
        (self.folder / "mcp.config.json").write_text(json.dumps({"mcpServers": servers}))
        settings = f"""[service]
stack = {self.stack}
name_prefix = {self.stack}-
port_range_start = {self.port}
port_range_end = {self.port + 8}
settle_seconds = 1
[dashboard]
host = 127.0.0.1
port = {self.port + 9}
[gateway]
host = 127.0.0.1
auth = none
"""
        (self.folder / "settings.conf").write_text(settings)

    def fault(self, name, on):
        """Turns a fault of the tormented server's output on or off."""
        file = self.folder / "faults" / "subject" / name
        if on:
            file.touch()
        else:
            file.unlink()

    # ---- the daemon ---------------------------------------------------------------------------------

    def start(self):
        """Starts it."""
        env = dict(os.environ)
        for name, variable in (("state", "STATE_DIRECTORY"), ("run", "RUNTIME_DIRECTORY")):
            (self.folder / name).mkdir()
            env[variable] = str(self.folder / name)
        line = [self.binary, "--config", str(self.folder / "mcp.config.json")]
        line += ["--settings", str(self.folder / "settings.conf"), "run"]
        with open(self.folder / "daemon.log", "wb") as log:
            self.daemon = subprocess.Popen(line, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def stop(self):
        """Ends it as systemd does."""
        self.daemon.terminate()
        return self.daemon.wait(20)

    def ask(self, path, body=None):
        """The API's answer over the control socket."""
        connection = Unix(self.folder / "run" / "control.sock")
        try:
            text = None if body is None else json.dumps(body)
            connection.request("GET" if body is None else "POST", path, text, {"Content-Type": "application/json"})
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def log(self):
        """What the daemon wrote, with what servers say beside their messages."""
        return (self.folder / "daemon.log").read_text(errors="replace")

    def health(self, name="subject"):
        """A server's row."""
        return self.ask(f"/api/v1/health?server={name}")["servers"][0]

    def view(self, name="subject"):
        """All that is told of a server."""
        return self.ask(f"/api/v1/servers/{name}")

    def is_well(self, name="subject"):
        """Its row once it is healthy."""
        row = self.health(name)
        return row["health"] == "healthy" and row

    def probe(self, name="subject"):
        """What a balancer gets from the server's own port."""
        port = self.view(name)["port"]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=20) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def call(self, name="subject"):
        """Calls a tool of the server."""
        tool, arguments, wanted = TOOLS[self.kind]
        answer = self.ask(f"/api/v1/servers/{name}/call", {"tool": tool, "arguments": arguments})
        ensure(wanted in json.dumps(answer), f"the answer to {tool}: {answer}")
        return True

    # ---- processes ------------------------------------------------------------------------------------

    def processes(self, name):
        """Ids of a server's processes, those of containers too, without what only waits for them."""
        mark = f"INTEROP_FAULTS={self.stack}/{name}\0".encode()
        found = []
        for place in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark not in (place / "environ").read_bytes():
                    continue
                exe = os.path.basename(os.readlink(place / "exe"))
                if not exe.startswith(("docker-init", "tini", "mcp-orchestrator")):
                    found.append(int(place.name))
        return found

    def process(self, name="subject"):
        """The server's process."""
        found = self.processes(name)
        ensure(len(found) == 1, f"processes of {name}: {found}")
        return found[0]

    def another(self, old, name="subject"):
        """Another process of the server."""
        found = self.processes(name)
        return len(found) == 1 and found != [old] and found[0]


class Watch(threading.Thread):
    """Asks for the other server's health as a balancer does, all the time."""

    def __init__(self, site):
        super().__init__(daemon=True)
        self.site, self.process = site, site.process("beside")
        self.asked, self.bad, self.over = 0, [], threading.Event()

    def run(self):
        while not self.over.wait(0.2):
            try:
                status = self.site.probe("beside")
            except (OSError, ValueError, http.client.HTTPException) as error:
                status = reason(error)
            self.asked += 1
            if status != 200:
                self.bad.append(status)


# ---- checks ---------------------------------------------------------------------------------------------


def up(site):
    """Both real servers answer."""
    for name in ("subject", "beside"):
        eventually(f"{name} is healthy", lambda name=name: site.is_well(name))
        site.call(name)


def mended(site, old):
    """Another process answers, and calls reach it."""
    new = eventually("another process", lambda: site.another(old))
    eventually("it is healthy again", site.is_well)
    eventually("a call is answered", site.call)
    same("the process", site.process(), new)


def kill(site):
    """SIGKILL: seen at once, started again."""
    old = site.process()
    os.kill(old, signal.SIGKILL)
    mended(site, old)


def hang(site):
    """SIGSTOP: found by the probe, taken out alone, restarted."""
    old = site.process()
    os.kill(old, signal.SIGSTOP)
    row = eventually("it is unhealthy", lambda: (lambda row: row["health"] == "unhealthy" and row)(site.health()))
    ensure("no answer to" in row["why"], row)
    same("the balancer is told", site.probe(), 503)
    mended(site, old)
    audit = site.ask("/api/v1/audit?server=subject")
    ensure(any("does not answer" in (line.get("why") or "") for line in audit), f"the audit: {audit}")


def noise(site):
    """Lines that are no messages, between those that are, do no harm."""
    old = site.process()
    site.fault("noise", True)
    for _ in range(5):
        site.call()
    time.sleep(3)
    row = site.health()
    site.fault("noise", False)
    same("its health", (row["health"], row["failures"]), ("healthy", 0))
    ensure("this is no message" in site.log(), "the lines are not in the log: none came")
    same("the process", site.process(), old)


def garbage(site):
    """Nothing but garbage: unhealthy, restarted, well once it is over."""
    old = site.process()
    site.fault("garbage", True)
    eventually("it does not serve", lambda: site.health()["health"] in ("unhealthy", "critical"))
    same("the balancer is told", site.probe(), 503)
    eventually("another process", lambda: site.another(old))
    site.fault("garbage", False)
    eventually("it is healthy again", site.is_well)
    eventually("a call is answered", site.call)


def slow(site):
    """Slow against what it usually takes: degraded, still served, left alone."""
    old = site.process()
    site.fault("slow", True)
    row = eventually("it is degraded", lambda: (lambda row: row["health"] == "degraded" and row)(site.health()))
    same("the balancer goes on", site.probe(), 200)
    site.call()
    site.fault("slow", False)
    eventually("it is healthy again", site.is_well)
    same("the process", site.process(), old)
    ensure(row["latencyMillis"] >= 1000, row)


def exits(site):
    """A command line that is wrong: given up after its tries, with its own words."""
    view = eventually(
        "it is given up",
        lambda: (lambda view: view["state"] == "blocked" and view["reasons"] and view)(site.view("wrong")),
    )
    text = json.dumps(view["reasons"])
    ensure("MCPO-P041" in text, f"the reason: {text}")
    ensure("gave up" in text and "code 1" in text, f"the reason: {text}")
    ensure(LAST_WORDS[site.kind] in site.log(), "what it said itself is not in the log")
    same("its health", site.health("wrong")["health"], "critical")
    same("its processes", site.processes("wrong"), [])


def alone(watch):
    """The server beside it noticed nothing."""
    same("the process beside", watch.site.process("beside"), watch.process)
    same("its restarts", watch.site.health("beside")["restarts"], 0)
    ensure(watch.asked > 50, f"asked {watch.asked} times only")
    same("answers beside", watch.bad, [])


def clean(site):
    """No process outlives the daemon; containers do, and are removed here."""
    if site.image:
        mine = f"label=io.mcp-orchestrator.stack={site.stack}"
        listed = subprocess.run(["docker", "ps", "-aq", "--filter", mine], check=True, capture_output=True, text=True)
        subprocess.run(["docker", "rm", "-f", "-v", *listed.stdout.split()], check=True, capture_output=True)
    left = lambda: [pid for name in ("subject", "beside", "wrong") for pid in site.processes(name)]
    eventually("no server lives on", lambda: not left())


def run(name, check, *given):
    """One check."""
    began = time.monotonic()
    try:
        check(*given)
    except Exception as error:  # whatever it is, it is this check that failed
        say("FAIL", name, reason(error))
    else:
        say("PASS", name)
    print(f"{name}: {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)


def main():
    """All checks, one after another."""
    binary, folder, port, kind, *rest = sys.argv[1:]
    cut = rest.index("--")
    image = rest[1] if rest[0] == "--image" else None
    site = Site(binary, folder, int(port), kind, image, rest[cut + 1 :])
    site.write()
    site.start()
    try:
        run("up", up, site)
        watch = Watch(site)
        watch.start()
        for check in (kill, hang, noise, garbage, slow, exits):
            run(check.__name__, check, site)
        watch.over.set()
        watch.join()
        run("alone", alone, watch)
    finally:
        run("ends", lambda: same("its exit code", site.stop(), 0))
        run("clean", clean, site)


main()
