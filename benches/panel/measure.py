"""What run.sh starts is measured here: measure.py PORT PID [--quick] [--json FILE]

First bytes and list APIs are timed from the moment the request is written until the first byte of the
answer, over connections that are kept: names and handshakes are the network's. While readers read,
passes run as fast as the daemon does them, by a request for each.
"""

import argparse
import base64
import json
import os
import re
import socket
import statistics
import threading
import time

READERS = 32
LISTS = ["/api/v1/servers", "/api/v1/sections", "/api/v1/tasks", "/servers"]
PAGES = ["/monitor", "/monitor/servers/server-001", "/api/v1/panel/health", "/metrics", *LISTS]


class Connection:
    """A kept connection; answers are read whole."""

    def __init__(self, port, password):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.auth = base64.b64encode(f"admin:{password}".encode()).decode()
        self.port = port

    def ask(self, method, path):
        """Seconds to the first byte, seconds to the last one, the answer's body."""
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nAuthorization: Basic {self.auth}\r\nContent-Length: 0\r\n\r\n"
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


def alone(port, password, path, count):
    connection = Connection(port, password)
    connection.ask("GET", path)
    found = [connection.ask("GET", path) for _ in range(count)]
    return row(path, [first for first, _, _ in found], len(found[-1][2]))


def weight(port, password):
    """The page with everything that its head names: what a first visit loads."""
    connection = Connection(port, password)
    _, _, page = connection.ask("GET", "/monitor")
    parts = {"/monitor": len(page)}
    for path in sorted(set(re.findall(r'(?:src|href)="(/assets/[^"]+)"', page.decode()))):
        parts[path] = len(connection.ask("GET", path)[2])
    return parts


def crowd(port, password, seconds):
    """The lists under all readers while passes run; passes in that time."""
    samples = {path: [] for path in LISTS}
    lock, end = threading.Lock(), threading.Event()

    def reader(number):
        connection, mine = Connection(port, password), {path: [] for path in LISTS}
        turn = number
        while not end.is_set():
            path = LISTS[turn % len(LISTS)]
            mine[path].append(connection.ask("GET", path)[1])
            turn += 1
            # A reader that asks without a pause measures how fast Python is.
            time.sleep(0.02)
        with lock:
            for path, found in mine.items():
                samples[path].extend(found)

    def passes():
        connection = Connection(port, password)
        while not end.is_set():
            connection.ask("POST", "/api/v1/sync?wait=10s")

    control = Connection(port, password)
    before = json.loads(control.ask("GET", "/api/v1/panel/health")[2])["pass"]
    threads = [threading.Thread(target=reader, args=(n,), daemon=True) for n in range(READERS)]
    threads.append(threading.Thread(target=passes, daemon=True))
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    end.set()
    for thread in threads:
        thread.join(30)
    after = json.loads(control.ask("GET", "/api/v1/panel/health")[2])["pass"]
    return samples, after - before


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
    parts = weight(asked.port, password)
    samples, passes = crowd(asked.port, password, seconds)
    rows += [row(f"{path}, {READERS} readers, passes", found) for path, found in samples.items()]
    table(rows)
    servers = len(json.loads(Connection(asked.port, password).ask("GET", "/servers")[2]))
    load = os.getloadavg()[0]
    print(f"first look: {sum(parts.values())} bytes in {len(parts)} files; {passes} passes in {seconds} s beside the readers")
    print(f"{servers} servers, {resident(asked.pid)} KiB resident, {os.cpu_count()} cores, load {load:.1f}")
    if asked.json:
        with open(asked.json, "w", encoding="utf-8") as out:
            json.dump({"rows": rows, "weight": parts, "passes": passes, "seconds": seconds, "servers": servers, "load": load}, out, indent=1)


main()
