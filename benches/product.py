"""The product under test: its files, its one-shot runs, its daemon."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

from engine import UnixConnection, ask

STARTED = re.compile(r"start container ")
DECIDED = re.compile(r"decided in ([0-9.]+) ?(ms|s)\b")
WITHIN_SECS = 300


class Product:
    """One stack with files and state of its own."""

    def __init__(self, binary, directory, stack, image):
        self.binary, self.dir, self.stack, self.image = binary, Path(directory), stack, image
        self.prefix = f"{stack}-"
        self.config = self.dir / "mcp.config.json"
        self.settings = self.dir / "settings.conf"
        self.settings.write_text(f"[service]\nstack = {stack}\nname_prefix = {self.prefix}\n")

    def servers(self, count):
        """Writes a file with `count` stdio servers."""
        entry = {"command": "docker", "args": ["run", "-i", "--rm", self.image]}
        names = [f"s{number:03}" for number in range(count)]
        self.config.write_text(json.dumps({"mcpServers": dict.fromkeys(names, entry)}))

    def forget(self):
        """Empties the state, as on a new host."""
        for name in ("state", "run"):
            shutil.rmtree(self.dir / name, ignore_errors=True)

    def environment(self, docker_host=None):
        env = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MCPO_", "MCP_"))}
        env.update(XDG_STATE_HOME=str(self.dir / "state"), XDG_RUNTIME_DIR=str(self.dir / "run"), NO_COLOR="1")
        env.pop("NOTIFY_SOCKET", None)
        if docker_host:
            env["DOCKER_HOST"] = docker_host
        return env

    def command(self, *words):
        return [self.binary, "--config", str(self.config), "--settings", str(self.settings), *words]

    def one_shot(self, docker_host=None):
        """Converges; seconds until the last start was answered, and until all was known to be up."""
        begun = time.monotonic()
        run = subprocess.Popen(
            self.command("--one-shot"),
            env=self.environment(docker_host),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        last, lines = begun, []
        for line in run.stderr:
            lines.append(line)
            if STARTED.search(line):
                last = time.monotonic()
        if run.wait() != 0:
            raise RuntimeError("--one-shot failed:\n" + "".join(lines[-20:]))
        return last - begun, time.monotonic() - begun

    def cli(self, *words, docker_host=None):
        """Runs a command; how long it took, in seconds."""
        begun = time.monotonic()
        subprocess.run(
            self.command(*words), env=self.environment(docker_host), check=True, capture_output=True, timeout=WITHIN_SECS
        )
        return time.monotonic() - begun


class Daemon:
    """A running daemon; use with `with`."""

    def __init__(self, product, docker_host=None, level="WARNING"):
        self.product, self.docker_host = product, docker_host
        self.log = []
        self.ready = threading.Event()
        self.ready_secs = None
        notify = product.dir / "notify.sock"
        notify.unlink(missing_ok=True)
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(notify))
        env = product.environment(docker_host)
        env["NOTIFY_SOCKET"] = str(notify)
        self.begun = time.monotonic()
        self.process = subprocess.Popen(
            product.command("--log-level", level, "run"),
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for work in (self._listen, self._read):
            threading.Thread(target=work, daemon=True).start()
        if not self.ready.wait(60):
            self.process.kill()
            raise RuntimeError("the daemon is not ready:\n" + "".join(self.log[-20:]))

    def _listen(self):
        while True:
            try:
                message = self.notify.recv(65536)
            except OSError:
                return
            if b"READY=1" in message:
                self.ready_secs = time.monotonic() - self.begun
                self.ready.set()

    def _read(self):
        for line in self.process.stderr:
            self.log.append(line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        self.notify.close()

    @property
    def socket(self):
        found = list((self.product.dir / "run").rglob("control.sock"))
        return str(found[0])

    def sync(self):
        """A pass and its result over the control socket: seconds, and the number of the pass."""
        connection = UnixConnection(self.socket)
        begun = time.monotonic()
        number = ask(connection, "POST", "/api/v1/sync", "")["pass"]
        answer = ask(connection, "GET", f"/api/v1/status?pass={number}&wait=60")
        took = time.monotonic() - begun
        connection.close()
        if not answer["reached"]:
            raise RuntimeError(f"pass {number} has not come")
        return took, answer["snapshot"]["pass"]

    def settle(self):
        """Waits until nothing moves."""
        connection = UnixConnection(self.socket)
        number = ask(connection, "POST", "/api/v1/sync", "")["pass"]
        deadline = time.monotonic() + WITHIN_SECS
        while time.monotonic() < deadline:
            answer = ask(connection, "GET", f"/api/v1/status?pass={number}&settled=true&wait=10")
            if answer["reached"]:
                connection.close()
                return answer
        raise RuntimeError("the daemon does not settle")

    def decided(self):
        """What the debug log says of passes, in milliseconds."""
        found = (DECIDED.search(line) for line in self.log)
        return [float(match[1]) * (1000 if match[2] == "s" else 1) for match in found if match]

    def memory_mb(self):
        """Resident memory, all of it and what belongs to no file, in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        value = lambda name: int(re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)[1]) / 1024
        return value("VmRSS"), value("RssAnon")

    def cpu_ms(self):
        """CPU time of all threads so far, in milliseconds."""
        total = 0
        for thread in Path(f"/proc/{self.process.pid}/task").iterdir():
            total += int((thread / "schedstat").read_text().split()[0])
        return total / 1e6
