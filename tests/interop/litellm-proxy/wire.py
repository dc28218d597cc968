#!/usr/bin/env python3
"""Passes requests on and notes each: wire.py PORT TO FILE. A line of FILE is a request's method, path,
headers, JSON-RPC method and the answer's status; credentials are left out."""

import http.client
import http.server
import json
import sys
import threading

PORT, TO, FILE = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
lock = threading.Lock()


class Pass(http.server.BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_args):
        """Nobody reads it."""

    def note(self, body, status):
        try:
            message = json.loads(body) if body else {}
        except ValueError:
            message = {}
        headers = {name.lower(): value for name, value in self.headers.items()}
        if "authorization" in headers:
            headers["authorization"] = headers["authorization"].split(" ")[0]
        row = {"http": self.command, "path": self.path, "headers": headers, "status": status}
        if isinstance(message, dict):
            row |= {key: message[key] for key in ("id", "method", "params") if key in message}
        with lock, open(FILE, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def handle_one(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        connection = http.client.HTTPConnection("127.0.0.1", TO, timeout=300)
        headers = {n: v for n, v in self.headers.items() if n.lower() not in ("connection", "host")}
        connection.request(self.command, self.path, body or None, headers | {"Host": "127.0.0.1"})
        answer = connection.getresponse()
        self.note(body, answer.status)
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "content-length", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        # As it comes: an event stream has no end to wait for.
        while piece := answer.read1(65536):
            self.wfile.write(piece)
            self.wfile.flush()

    do_GET = do_POST = do_DELETE = do_OPTIONS = handle_one


class Server(http.server.ThreadingHTTPServer):
    """Clients that go away are no news."""

    daemon_threads = True

    def handle_error(self, *_args):
        """As above."""


Server(("127.0.0.1", PORT), Pass).serve_forever()
