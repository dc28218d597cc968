"""What is measured: the floor, the product, its peers, each with the same stdio server behind it.

A target is started anew for each cell, so that none carries what the one before has left in it.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import engine  # noqa: E402
from product import Daemon, Product  # noqa: E402

STOP_SECS = 10
TOKEN = "bench-0123456789abcdef0123456789abcdef"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run(*words, **more):
    """Runs an installer; its output is shown only when it fails."""
    done = subprocess.run(words, capture_output=True, text=True, **more)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, words))} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


class Target:
    """Something that answers calls over HTTP; use with `with`."""

    name = ""
    # ours, floor, script (Node or Python) or rust: what goals are set against.
    kind = "script"
    path = "/mcp"
    load = ()

    def __init__(self, context):
        self.context = context
        self.process = None

    @classmethod
    def slug(cls):
        """Its name on command lines and of files."""
        return cls.__name__.lower()

    def install(self):
        """Makes sure that the program is there."""

    def command(self):
        """The command line, for `self.port`."""
        raise NotImplementedError

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}{self.path}"

    @property
    def pid(self):
        return self.process.pid

    @property
    def child(self):
        return str(self.context.tools / "fastmcp")

    def start(self):
        self.port = free_port()
        with open(self.context.dir / f"{self.slug()}.log", "wb") as log:
            # A session of its own: its whole group is ended with it.
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def stop(self):
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
                self.process.wait(STOP_SECS)
            except subprocess.TimeoutExpired:
                continue
            except ProcessLookupError:
                return

    def __enter__(self):
        try:
            self.start()
            self.await_answer()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def await_answer(self):
        deadline = time.monotonic() + self.context.ready_secs
        while True:
            probe = self.context.call("calls", "--url", self.url, "--seconds", "0.1", "--warm-up", "0", *self.load)
            if "failed" not in probe and probe["calls"]:
                return
            if time.monotonic() > deadline or (self.process and self.process.poll() is not None):
                raise RuntimeError(f"{self.name} does not answer: {probe.get('failed') or probe.get('first_error')}")
            time.sleep(0.2)


class Floor(Target):
    name, kind = "floor", "floor"

    def command(self):
        return [self.context.tools / "floor", str(self.port)]


class Ours(Target):
    """The daemon with the stdio server as a process of its own."""

    name, kind, path = "ours", "ours", "/mcp/bench"
    daemon = prefix = None

    def entry(self):
        return {"command": self.child}

    def start(self):
        self.port = free_port()
        directory = self.context.dir / self.slug()
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        product = Product(self.context.binary, directory, f"gw{os.getpid()}", self.context.image)
        self.prefix = product.prefix
        product.config.write_text(json.dumps({"mcpServers": {"bench": self.entry()}}))
        settings = [product.settings.read_text()]
        # A range of one port: it is the server's.
        settings += [f"port_range_start = {self.port}\nport_range_end = {self.port}\n"]
        settings += [f"[dashboard]\nport = {free_port()}\n"]
        if self.context.auth == "bearer":
            tokens = directory / "tokens"
            tokens.write_text(f"bench:{TOKEN}\n")
            tokens.chmod(0o600)
            settings += [f"[gateway]\nauth = bearer\ntokens_file = {tokens}\n"]
            self.load = ("--header", f"Authorization: Bearer {TOKEN}")
        product.settings.write_text("".join(settings))
        self.daemon = Daemon(product, level=self.context.level)
        self.process = self.daemon.process

    def stop(self):
        if self.daemon:
            try:
                self.daemon.__exit__()
            except subprocess.TimeoutExpired:
                self.context.say(f"  {self.name} has not ended at SIGTERM within a minute")
                self.process.kill()
                self.process.wait()
            (self.context.dir / f"{self.slug()}.log").write_text("".join(self.daemon.log))
            self.daemon = None
        # Never without a prefix: that would be everything on the engine.
        if self.prefix:
            engine.remove_all(self.prefix)


class OursContainer(Ours):
    """The daemon with the stdio server in a container."""

    name = "ours, container"

    def entry(self):
        return {"command": "docker", "args": ["run", "-i", "--rm", self.context.image]}


class Npm(Target):
    packages = ("supergateway@4.0.0", "mcp-proxy@6.7.19")

    def install(self):
        place = self.context.peers / "npm"
        stamp = place / "installed"
        if stamp.exists() and stamp.read_text() == repr(self.packages):
            return
        place.mkdir(parents=True, exist_ok=True)
        (place / "package.json").write_text('{"private": true}')
        run("npm", "install", "--no-audit", "--no-fund", *self.packages, cwd=place)
        stamp.write_text(repr(self.packages))

    def program(self, name):
        return str(self.context.peers / "npm/node_modules/.bin" / name)


class Supergateway(Npm):
    # Without --stateful it starts a process for each request.
    name = "supergateway 4.0.0"

    def command(self):
        return [
            *(self.program("supergateway"), "--stdio", self.child, "--outputTransport", "streamableHttp"),
            *("--stateful", "--port", str(self.port), "--logLevel", "none"),
        ]


class McpProxyNpm(Npm):
    name = "mcp-proxy 6.7.19 (npm)"

    def command(self):
        words = ("--host", "127.0.0.1", "--port", str(self.port), "--server", "stream")
        return [self.program("mcp-proxy"), *words, "--", self.child]


class PyPi(Target):
    place, packages = "", ()

    def install(self):
        place = self.context.peers / self.place
        stamp = place / "installed"
        if stamp.exists() and stamp.read_text() == repr(self.packages):
            return
        run(sys.executable, "-m", "venv", "--clear", place)
        run(place / "bin/pip", "install", "--quiet", "--disable-pip-version-check", *self.packages)
        stamp.write_text(repr(self.packages))


class McpProxyPyPi(PyPi):
    name, place = "mcp-proxy 0.13.0 (PyPI)", "mcp-proxy"
    packages = ("mcp-proxy==0.13.0", "mcp==1.30.0")

    def command(self):
        program = self.context.peers / self.place / "bin/mcp-proxy"
        return [program, "--host", "127.0.0.1", "--port", str(self.port), "--log-level", "ERROR", "--", self.child]


class Mcpo(PyPi):
    """Another protocol: each tool is a POST of its arguments, there are no sessions."""

    name, place, path, load = "mcpo 0.0.20", "mcpo", "/echo", ("--style", "rest")
    # It does not start with newer ones.
    packages = ("mcpo==0.0.20", "mcp==1.30.0", "fastapi==0.115.12", "starlette<0.47")

    def command(self):
        program = self.context.peers / self.place / "bin/mcpo"
        return [program, "--host", "127.0.0.1", "--port", str(self.port), "--", self.child]


class Crate(Target):
    """A program of crates.io, compiled here."""

    kind, program, version = "rust", "", ""

    def install(self):
        place = self.context.peers / "rust"
        if (place / "bin" / self.program).exists():
            return
        self.context.say(f"  building {self.program} of crates.io; this takes a while")
        build = {**os.environ, "CARGO_TARGET_DIR": str(place / "build")}
        words = ("cargo", "install", "--locked", "-j1", "--version", self.version, "--root", place, self.program)
        run("nice", *words, env=build)
        shutil.rmtree(place / "build", ignore_errors=True)


class Stdio2Http(Crate):
    name, program, version = "stdio2http 0.3.0 (crates.io)", "stdio2http", "0.3.0"

    def command(self):
        program = self.context.peers / "rust/bin" / self.program
        return [program, "--port", str(self.port), "--log-level", "error", "--command", self.child]


class McpProxyRust(Crate):
    name, path, program, version = "mcp-proxy 0.6.0 (crates.io)", "/", "mcp-proxy", "0.6.0"
    load = ("--tool", "f/echo")

    def command(self):
        config = self.context.dir / "mcp-proxy.toml"
        config.write_text(
            f'[proxy]\nname = "bench"\nseparator = "/"\n[proxy.listen]\nhost = "127.0.0.1"\nport = {self.port}\n'
            f'[[backends]]\nname = "f"\ntransport = "stdio"\ncommand = "{self.child}"\n'
            '[observability]\nlog_level = "error"\n'
        )
        return [self.context.peers / "rust/bin" / self.program, "--config", config]


ALL = (Floor, Ours, OursContainer, Supergateway, McpProxyNpm, McpProxyPyPi, Mcpo, McpProxyRust, Stdio2Http)
