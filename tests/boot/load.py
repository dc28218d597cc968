#!/usr/bin/env python3
"""Clients that call through the gateway every few milliseconds and count what went wrong.

Each worker has one MCP session for good and opens a new connection for every call: what is
promised is that no connection is refused and that sessions go on, whatever happens to the daemon.

It runs in the network of the guest with the interpreter of the host, so that the guest needs none.
Orders come by lines on standard input, answers go by lines of JSON to standard output:

  open NAME URL TOOL JSON   another worker; URL is http://... or unix:PATH (GET /healthz there)
  mark                      what was counted since the last mark, by worker
  progress N                answers once every worker has done N more calls, well or not
  end                       ends
"""

import http.client
import json
import re
import socket
import sys
import threading
import time
import urllib.parse

# Between two calls of one worker, in seconds.
PAUSE = 0.003
# A call that takes longer has failed.
LATE = 60
# Examples of failures that are kept, by worker and mark.
EXAMPLES = 3
# Kinds of failures that are told apart.
KINDS = 20
# A worker with slow calls has made progress after so many.
SLOW_CALLS = 2
# Tries to begin the session, and the pause between two: the server may just be starting.
OPENINGS = 300
OPENING_PAUSE = 0.1
VERSION = "2025-11-25"


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=LATE)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Figures:
    """What became of calls."""

    def __init__(self):
        self.calls = self.refused = self.cut = self.failed = 0
        self.slowest = 0.0
        self.examples = []
        self.kinds = {}

    def add(self, kind, seconds, why):
        """Counts one call; `kind` is the name of the counter of its end."""
        self.calls += 1
        self.slowest = max(self.slowest, seconds)
        if kind != "ok":
            setattr(self, kind, getattr(self, kind) + 1)
            told = told_as(why) if kind == "failed" else kind
            if told in self.kinds or len(self.kinds) < KINDS:
                self.kinds[told] = self.kinds.get(told, 0) + 1
            if len(self.examples) < EXAMPLES:
                self.examples.append(f"{kind}: {why}"[:300])

    def said(self):
        """The figures as JSON has them."""
        return {**vars(self), "slowest": round(self.slowest * 1000)}


def told_as(why):
    """What a client is told: `200 -32603`, the status and the code of the error, as far as there is one."""
    status, _, text = why.partition(" ")
    if not status.isdigit():
        status, text = "-", why
    code = re.search(r'"code": ?(-?\d+)', text)
    return f"{status} {code[1] if code else text[:60]}"


class Worker(threading.Thread):
    """One client."""

    def __init__(self, name, url, tool, arguments):
        super().__init__(daemon=True)
        self.name, self.url, self.tool, self.arguments = name, url, tool, arguments
        self.lock = threading.Lock()
        self.figures = Figures()
        self.done = 0
        self.session = None
        self.opened = threading.Event()
        self.trouble = None
        self.slow = tool == "nasty_slow"

    def connection(self):
        """A new connection, not open yet."""
        if self.url.startswith("unix:"):
            return UnixConnection(self.url.removeprefix("unix:"))
        parts = urllib.parse.urlsplit(self.url)
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=LATE)

    def exchange(self, body):
        """One request on a connection of its own: status, headers, text."""
        connection = self.connection()
        try:
            if self.url.startswith("unix:"):
                connection.request("GET", "/healthz", headers={"Connection": "close"})
            else:
                headers = {
                    "Content-Type": "application/json",
                    "Accept": "application/json, text/event-stream",
                    "Connection": "close",
                }
                if self.session:
                    headers |= {"Mcp-Session-Id": self.session, "MCP-Protocol-Version": VERSION}
                connection.request("POST", urllib.parse.urlsplit(self.url).path, json.dumps(body), headers)
            reply = connection.getresponse()
            text = reply.read().decode("utf-8", "replace")
            return reply.status, reply.headers, text
        finally:
            connection.close()

    def begin(self):
        """Begins the session."""
        hello = {
            "protocolVersion": VERSION,
            "capabilities": {},
            "clientInfo": {"name": "boot-test", "version": "1"},
        }
        status, headers, text = self.exchange({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello})
        session = headers.get("Mcp-Session-Id")
        if status != 200 or not session:
            raise RuntimeError(f"initialize: {status} {text[:200]}")
        self.session = session
        self.exchange({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def call(self, number):
        """One call: how it ended, and why."""
        params = {"name": self.tool, "arguments": self.arguments}
        body = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
        try:
            status, _headers, text = self.exchange(body)
        except (ConnectionRefusedError, FileNotFoundError) as error:
            return "refused", repr(error)
        except (ConnectionError, http.client.HTTPException) as error:
            return "cut", repr(error)
        except OSError as error:
            return "failed", repr(error)
        if status != 200:
            return "failed", f"{status} {text}"
        if self.url.startswith("unix:"):
            return "ok", ""
        data = [line[5:].strip() for line in text.splitlines() if line.startswith("data:")]
        try:
            answer = json.loads(data[-1] if data else text)
        except ValueError:
            # A stream that ended before the answer, or half a body.
            return "cut", f"no answer in {text[:200]!r}"
        if answer.get("id") != number or "result" not in answer or answer["result"].get("isError"):
            return "failed", f"{status} {json.dumps(answer)}"
        return "ok", ""

    def run(self):
        for attempt in range(OPENINGS):
            try:
                if not self.url.startswith("unix:"):
                    self.begin()
                break
            except (OSError, RuntimeError, http.client.HTTPException) as error:
                self.trouble = repr(error)
                time.sleep(OPENING_PAUSE)
        else:
            self.opened.set()
            return
        self.trouble = None
        self.opened.set()
        number = 0
        while True:
            number += 1
            began = time.monotonic()
            kind, why = self.call(number)
            with self.lock:
                self.figures.add(kind, time.monotonic() - began, why)
                self.done += 1
            time.sleep(PAUSE)

    def mark(self):
        """The figures since the last mark."""
        with self.lock:
            figures, self.figures = self.figures, Figures()
            return figures.said()


def say(value):
    """One answer."""
    print(json.dumps(value), flush=True)


def progress(workers, more):
    """Waits until every worker has done `more` calls from now on."""
    goals = {worker: worker.done + (min(more, SLOW_CALLS) if worker.slow else more) for worker in workers}
    while any(worker.done < goal for worker, goal in goals.items()):
        time.sleep(0.01)


def main():
    workers = []
    say({"ready": True})
    for line in sys.stdin:
        order, _, rest = line.strip().partition(" ")
        if order == "open":
            name, url, tool, arguments = rest.split(" ", 3)
            worker = Worker(name, url, tool, json.loads(arguments))
            worker.start()
            worker.opened.wait()
            if worker.trouble is None:
                workers.append(worker)
            say({"opened": name, "trouble": worker.trouble})
        elif order == "mark":
            say({worker.name: worker.mark() for worker in workers})
        elif order == "progress":
            progress(workers, int(rest))
            say({"progress": int(rest)})
        elif order == "end":
            return


if __name__ == "__main__":
    main()
