"""What run.sh starts is measured here: measure.py PORT PID [--quick] [--json FILE]

First bytes and list APIs are timed from the moment the request is written until the first byte of the
answer, over connections that are kept: names and handshakes are the network's. While readers read,
passes run as fast as the daemon does them, by a request for each; the same passes are timed before
without readers. How long a pass takes is the daemon's own word (`/metrics`): a client that waits for one
measures its own threads, too.
"""

import argparse
import base64
import json
import multiprocessing
import os
import re
import socket
import statistics
import threading
import time

READERS = 32
# Between two questions of a reader, in seconds.
PAUSE = 0.02
LISTS = ["/api/v1/servers", "/api/v1/sections", "/api/v1/tasks", "/servers"]
PAGES = ["/monitor", "/monitor/servers/server-001", "/api/v1/panel/health", "/metrics", *LISTS]


class Connection:
    """A kept connection; answers are read whole."""

    def __init__(self, port, password):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.auth = base64.b64encode(f"admin:{password}".encode()).decode()
        self.port = port

    def ask(self, method, path, gzip=False):
        """Seconds to the first byte, seconds to the last one, the answer's body as it came."""
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nAuthorization: Basic {self.auth}\r\nContent-Length: 0\r\n"
        head += "Accept-Encoding: gzip\r\n\r\n" if gzip else "\r\n"
        begun = time.perf_counter()
        self.socket.sendall(head.encode())
        data = self.socket.recv(65536)
        first = time.perf_counter() - begun
        while b"\r\n\r\n" not in data:
            data += self.more()
        head, _, body = data.partition(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        if status >= 400:
            raise SystemExit(f"{method} {path}: {status} {body[:200]!r}")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        while length and len(body) < int(length[1]):
            body += self.more()
        return first, time.perf_counter() - begun, body

    def more(self):
        data = self.socket.recv(65536)
        if not data:
            raise SystemExit("the daemon closed the connection")
        return data


def share(samples, part):
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def row(what, samples, size=None):
    return {
        "what": what, "n": len(samples), "median_ms": statistics.median(samples) * 1e3, "p99_ms": share(samples, 0.99) * 1e3,
        "max_ms": max(samples) * 1e3, "bytes": size,
    }


def alone(port, password, path, count, gzip=False):
    connection = Connection(port, password)
    connection.ask("GET", path, gzip)
    found = [connection.ask("GET", path, gzip) for _ in range(count)]
    return row(f"{path}, gzip" if gzip else path, [first for first, _, _ in found], len(found[-1][2]))


def weight(port, password):
    """The page with everything that its head names: what a first visit loads, plain and compressed."""
    connection = Connection(port, password)
    _, _, page = connection.ask("GET", "/monitor")
    paths = ["/monitor", *sorted(set(re.findall(r'(?:src|href)="(/assets/[^"]+)"', page.decode())))]
    return {gzip: {path: len(connection.ask("GET", path, gzip)[2]) for path in paths} for gzip in (False, True)}


def passes_so_far(connection):
    """How many passes there were, and the seconds they took."""
    text = connection.ask("GET", "/metrics")[2].decode()
    value = lambda part: float(re.search(rf"^mcp_orchestrator_pass_duration_seconds_{part} (\S+)", text, re.M)[1])
    return value("count"), value("sum")


def reader(port, password, number, end, out):
    """One of the readers, a process of its own: threads of one Python would wait for each other."""
    connection, mine, turn = Connection(port, password), [], number
    while not end.is_set():
        path = LISTS[turn % len(LISTS)]
        mine.append((path, connection.ask("GET", path)[1]))
        turn += 1
        time.sleep(PAUSE)
    out.put(mine)


def passing(port, password, end):
    connection = Connection(port, password)
    while not end.is_set():
        connection.ask("POST", "/api/v1/sync?wait=10s")


def crowd(port, password, seconds, readers):
    """The lists under so many readers while passes run; passes in that time, and their mean in ms."""
    samples = {path: [] for path in LISTS}
    fork = multiprocessing.get_context("fork")
    end, out = fork.Event(), fork.Queue()
    control = Connection(port, password)
    before = passes_so_far(control)
    crew = [fork.Process(target=reader, args=(port, password, n, end, out)) for n in range(readers)]
    crew.append(fork.Process(target=passing, args=(port, password, end)))
    for one in crew:
        one.start()
    time.sleep(seconds)
    end.set()
    for _ in range(readers):
        for path, took in out.get(timeout=60):
            samples[path].append(took)
    for one in crew:
        one.join(30)
    after = passes_so_far(control)
    count, took = after[0] - before[0], after[1] - before[1]
    return samples, {"readers": readers, "passes": count, "seconds": seconds, "mean_ms": took / max(count, 1) * 1e3}


def floor(count):
    """The same kept connection to something that answers at once: what Python and the loopback take."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        stream, _ = listener.accept()
        with stream:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while stream.recv(65536):
                stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    threading.Thread(target=serve, daemon=True).start()
    return alone(listener.getsockname()[1], "x", "/", count)


def resident(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1])


def table(rows):
    head = f"{'what':<44} {'n':>6} {'median':>9} {'p99':>9} {'max':>9} {'bytes':>9}"
    print(head)
    for one in rows:
        size = "" if one["bytes"] is None else one["bytes"]
        print(f"{one['what']:<44} {one['n']:>6} {one['median_ms']:>6.2f} ms {one['p99_ms']:>6.2f} ms {one['max_ms']:>6.2f} ms {size:>9}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("pid", type=int)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json")
    asked = parser.parse_args()
    password = os.environ["SITE_PASSWORD"]
    count, seconds = (20, 2) if asked.quick else (300, 20)
    rows = [dict(floor(count), what="floor: a server that answers at once")]
    rows += [alone(asked.port, password, path, count) for path in PAGES]
    rows.append(alone(asked.port, password, "/monitor", count, gzip=True))
    parts = weight(asked.port, password)
    _, quiet = crowd(asked.port, password, seconds, 0)
    samples, beside = crowd(asked.port, password, seconds, READERS)
    rows += [row(f"{path}, {READERS} readers, passes", found) for path, found in samples.items()]
    table(rows)
    views = json.loads(Connection(asked.port, password).ask("GET", "/api/v1/servers")[2])
    servers, failing = len(views), sum(view["state"] in ("waiting", "blocked") for view in views)
    load = os.getloadavg()[0]
    plain, small = (sum(parts[gzip].values()) for gzip in (False, True))
    print(f"first look: {plain} bytes in {len(parts[False])} files, {small} bytes to a client that reads gzip")
    for one in (quiet, beside):
        print(f"{one['readers']:>2} readers: {one['passes']:.0f} passes in {one['seconds']} s, {one['mean_ms']:.2f} ms each")
    print(f"{servers} servers, {failing} of them failing, {resident(asked.pid)} KiB resident, {os.cpu_count()} cores, load {load:.1f}")
    if asked.json:
        with open(asked.json, "w", encoding="utf-8") as out:
            json.dump({"rows": rows, "weight": {"plain": parts[False], "gzip": parts[True]}, "passes": [quiet, beside], "servers": servers, "failing": failing, "load": load}, out, indent=1)


main()
