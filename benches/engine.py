"""The engine without the product: its API spoken raw, and a proxy that counts who asks it what.

Only Python's own library: whatever is compared with must not be slow for want of a package.
"""

import http.client
import json
import os
import re
import signal
import socket
import threading
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

ENGINE = "/var/run/docker.sock"
DIED = re.compile(rb'"status":"die","id":"([0-9a-f]{64})"')
READ_BYTES = 65536


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path, timeout=600):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def ask(connection, method, path, body=None, fine=(200, 201, 202, 204, 304)):
    """One request on a connection that stays open; the answer as JSON, where it is that."""
    headers = {"Content-Type": "application/json"} if body is not None else {}
    connection.request(method, path, body=body, headers=headers)
    answer = connection.getresponse()
    data = answer.read()
    if answer.status not in fine:
        raise RuntimeError(f"{method} {path}: {answer.status} {data[:300]!r}")
    return json.loads(data) if data[:1] in (b"{", b"[") else data


def once(method, path, body=None, at=ENGINE):
    """One request on a connection of its own."""
    connection = UnixConnection(at)
    try:
        return ask(connection, method, path, body)
    finally:
        connection.close()


def each(items, workers, work):
    """Runs `work(connection, item)` for all items, one open connection for each of the workers."""
    own = threading.local()

    def run(item):
        if not hasattr(own, "connection"):
            own.connection = UnixConnection(ENGINE)
        return work(own.connection, item)

    with ThreadPoolExecutor(max_workers=workers) as pool:
        return list(pool.map(run, items))


def create_and_start(bodies, workers):
    """The least that makes containers: create and start, with the bodies given as {name: body}."""

    def make(connection, item):
        name, body = item
        made = ask(connection, "POST", f"/containers/create?name={name}", body)
        ask(connection, "POST", f"/containers/{made['Id']}/start")

    each(bodies.items(), workers, make)


def stop_all(ids):
    """Stops them all at once, each within the time its own container asks for."""
    each(ids, max(1, len(ids)), lambda connection, one: ask(connection, "POST", f"/containers/{one}/stop"))


def start_all(ids, workers):
    """Starts them, so many at once."""
    each(ids, workers, lambda connection, one: ask(connection, "POST", f"/containers/{one}/start"))


def ours(prefix):
    """All containers whose name begins with `prefix`."""
    rows = once("GET", "/containers/json?all=true")
    return [row for row in rows if any(name.lstrip("/").startswith(prefix) for name in row["Names"])]


def remove_all(prefix):
    """Removes what a run has made."""

    def remove(connection, one):
        ask(connection, "DELETE", f"/containers/{one}?force=true&v=true", fine=(204, 404, 409))

    each([row["Id"] for row in ours(prefix)], 4, remove)


def death(container):
    """Kills a container's first process; seconds until the engine's event, and until an inspect
    sent at that moment answers that it has ended (the list says "running" even longer)."""
    events, asking = UnixConnection(ENGINE), UnixConnection(ENGINE)
    pid = ask(asking, "GET", f"/containers/{container}/json")["State"]["Pid"]
    filters = urllib.parse.quote(json.dumps({"container": [container], "event": ["die"]}))
    events.request("GET", f"/events?filters={filters}")
    stream = events.getresponse()
    killed = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    stream.readline()
    told = time.monotonic()
    while ask(asking, "GET", f"/containers/{container}/json")["State"]["Running"]:
        pass
    admitted = time.monotonic()
    events.close()
    asking.close()
    return told - killed, admitted - killed


class Call:
    """A request that passed the proxy."""

    def __init__(self, method, path, at):
        self.method, self.path, self.at = method, path, at
        self.body = b""
        self.answered = at

    def __repr__(self):
        return f"{self.method} {self.path}"


class Proxy:
    """A Unix socket in front of the engine that notes each request, and each death it is told of.

    Times are those of `time.monotonic`, taken here: a request's before it is passed on, a death's
    before the one who listens hears of it.
    """

    def __init__(self, path):
        self.path = path
        self.calls = []
        self.deaths = {}
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(path)
        self.listener.listen(256)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def host(self):
        return f"unix://{self.path}"

    def since(self, mark):
        """Calls from index `mark` on."""
        return self.calls[mark:]

    def await_call(self, wanted, mark, within):
        """Waits for the first call from index `mark` on that `wanted` is true of."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            for call in self.since(mark):
                if wanted(call):
                    return call
            time.sleep(0.005)
        return None

    def close(self):
        self.listener.close()
        os.unlink(self.path)

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            engine = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            engine.connect(ENGINE)
            calls = []
            threading.Thread(target=self._forth, args=(client, engine, calls), daemon=True).start()
            threading.Thread(target=self._back, args=(client, engine, calls), daemon=True).start()

    def _forth(self, client, engine, calls):
        reader = RequestReader()
        try:
            while data := client.recv(READ_BYTES):
                for call in reader.push(data, time.monotonic()):
                    calls.append(call)
                    self.calls.append(call)
                engine.sendall(data)
            engine.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def _back(self, client, engine, calls):
        try:
            while data := engine.recv(READ_BYTES):
                now = time.monotonic()
                if calls:
                    calls[-1].answered = now
                for death in DIED.finditer(data):
                    self.deaths.setdefault(death.group(1).decode(), now)
                client.sendall(data)
        except OSError:
            pass
        # Who reads on the client's side must learn of it at once.
        for end in (client, engine):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class RequestReader:
    """Finds the requests in what a client sends, one after another."""

    def __init__(self):
        self.buffer = b""
        self.call = None
        self.left = 0
        self.raw = False

    def push(self, data, now):
        """The requests whose head is complete now; their bodies grow with later data."""
        if self.raw:
            return
        self.buffer += data
        while True:
            if self.left:
                taken, self.buffer = self.buffer[: self.left], self.buffer[self.left :]
                self.call.body += taken
                self.left -= len(taken)
                if self.left:
                    return
            head, end, rest = self.buffer.partition(b"\r\n\r\n")
            if not end:
                return
            self.buffer = rest
            lines = head.decode("latin-1").split("\r\n")
            method, path, _ = lines[0].split(" ", 2)
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
            self.call = Call(method, path, now)
            self.left = int(headers.get("content-length", 0))
            # An attached stream, or a length that only the end tells: nothing after it is a request.
            self.raw = "upgrade" in headers or "transfer-encoding" in headers
            if self.raw:
                self.call.body, self.buffer = self.buffer, b""
            yield self.call
            if self.raw:
                return
