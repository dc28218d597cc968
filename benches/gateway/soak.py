"""Calls for an hour, at a rate the machine does not feel: what does not stay flat is leaked."""

import http.client
import json
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

WORKERS = 16
# Calls of a session that is opened and closed again and again; the others stay open all the time.
CALLS_A_SESSION = 20
LARGE_EACH, LARGE_BYTES = 200, 100_000
SAMPLES = 12
VERSION = "2025-11-25"


class Client(threading.Thread):
    """One connection that calls; every second one changes its session."""

    def __init__(self, soak, number):
        super().__init__(daemon=True)
        self.soak, self.number = soak, number
        self.calls, self.sessions, self.errors, self.first_error = 0, 0, 0, None

    def run(self):
        pause = WORKERS / self.soak.rate
        due = time.monotonic() + pause * self.number / WORKERS
        session = connection = None
        while not self.soak.over.wait(max(0.0, due - time.monotonic())):
            due += pause
            try:
                if connection is None:
                    connection = http.client.HTTPConnection(self.soak.host, timeout=30)
                if session is None:
                    session = self.open(connection)
                self.call(connection, session)
                if self.number % 2 and self.calls % CALLS_A_SESSION == 0:
                    self.ask(connection, "DELETE", session, None)
                    session = None
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.errors += 1
                self.first_error = self.first_error or repr(error)
                session = connection = None

    def ask(self, connection, method, session, message):
        headers = dict(self.soak.headers)
        if session:
            headers |= {"Mcp-Session-Id": session, "MCP-Protocol-Version": VERSION}
        connection.request(method, self.soak.path, json.dumps(message) if message else None, headers)
        response = connection.getresponse()
        body = response.read()
        if response.status >= 300:
            raise ValueError(f"{method}: {response.status} {body[:200]!r}")
        return response, body

    def open(self, connection):
        about = {"protocolVersion": VERSION, "capabilities": {}, "clientInfo": {"name": "soak", "version": "1"}}
        message = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": about}
        session = self.ask(connection, "POST", None, message)[0].headers["Mcp-Session-Id"]
        self.ask(connection, "POST", session, {"jsonrpc": "2.0", "method": "notifications/initialized"})
        self.sessions += 1
        return session

    def call(self, connection, session):
        self.calls += 1
        text = f"{self.number} {self.calls}"
        if self.calls % LARGE_EACH == 0:
            text += "x" * LARGE_BYTES
        params = {"name": "echo", "arguments": {"text": text}}
        message = {"jsonrpc": "2.0", "id": self.calls, "method": "tools/call", "params": params}
        response, body = self.ask(connection, "POST", session, message)
        if response.headers["Content-Type"].startswith("text/event-stream"):
            body = next(line[5:] for line in body.splitlines() if line.startswith(b"data:") and len(line) > 6)
        answer = json.loads(body)
        if answer["id"] != self.calls or text not in json.dumps(answer["result"]):
            raise ValueError(f"not what was asked for: {body[:200]!r}")


class Soak:
    def __init__(self, target, minutes, rate, say):
        at = urlsplit(target.url)
        self.target, self.seconds, self.rate, self.say = target, minutes * 60, rate, say
        self.host, self.path, self.over = at.netloc, at.path, threading.Event()
        self.headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        words = iter(getattr(target, "load", ()))
        for word in words:
            if word == "--header":
                name, value = next(words).split(": ", 1)
                self.headers[name] = value

    def run(self):
        """Rows of the table: one for each sample."""
        clients = [Client(self, number) for number in range(WORKERS)]
        for client in clients:
            client.start()
        rows, begun = [], time.monotonic()
        for number in range(SAMPLES + 1):
            # The first is taken when all sessions have been open for a while.
            time.sleep(max(0.0, begun + max(5.0, self.seconds * number / SAMPLES) - time.monotonic()))
            rows.append({"minutes": (time.monotonic() - begun) / 60, **self.totals(clients), **usage(self.target.pid)})
            self.say(f"    {json.dumps(rows[-1])}")
        self.over.set()
        for client in clients:
            client.join(30)
        rows[-1]["first_error"] = next((client.first_error for client in clients if client.first_error), None)
        return rows

    def totals(self, clients):
        return {name: sum(getattr(client, name) for client in clients) for name in ("calls", "sessions", "errors")}


def usage(pid):
    """Of the daemon: memory, descriptors, threads, CPU; the processes below it, and their memory."""
    below = descendants(pid)
    return {
        **memory(pid),
        "fds": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "threads": len(list(Path(f"/proc/{pid}/task").iterdir())),
        "cpu_s": round(sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13])) / 100, 1),
        "processes": len(below),
        "below_mb": round(sum(memory(one)["rss_mb"] for one in below), 1),
    }


def memory(pid):
    try:
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    except OSError:
        lines = {}
    value = lambda name: round(int(lines.get(name, "0 kB").split()[0]) / 1024, 1)
    return {"rss_mb": value("VmRSS"), "anon_mb": value("RssAnon")}


def descendants(pid):
    parents = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents.setdefault(int(place.read_text().rpartition(")")[2].split()[1]), []).append(int(place.parent.name))
        except OSError:
            continue
    found, open_ = [], [pid]
    while open_:
        found += (below := parents.get(open_.pop(), []))
        open_ += below
    return found


def show(name, rows):
    """The table of one target."""
    columns = ("calls", "sessions", "errors", "rss_mb", "anon_mb", "fds", "threads", "processes", "cpu_s")
    print(f"\n| {name}: minutes | " + " | ".join(columns) + " |")
    print("| --- " * (len(columns) + 1) + "|")
    for row in rows:
        print(f"| {row['minutes']:.0f} | " + " | ".join(f"{row[column]:,}" for column in columns) + " |")
    if rows[-1].get("first_error"):
        print(f"first error: {rows[-1]['first_error']}")
