#!/usr/bin/env python3
"""The AWS of the tests: strict moto on one port, the same behind faults on another.

    python3 tests/aws/server.py --port 0 --proxy-port 0 [--imds-port 0]

Prints one JSON line with the ports and the default world when ready, then serves
until it is killed or its standard input, if `--until-stdin-closes`, ends. Binds
to 127.0.0.1 only. README.md lists the control requests under /_.
"""

import argparse
import json
import os
import select
import socket
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
# Nothing may find its way to real AWS from here, whatever the caller's environment holds.
os.environ.update(AWS_ACCESS_KEY_ID="fake", AWS_SECRET_ACCESS_KEY="fake", AWS_CONFIG_FILE="/dev/null")

sys.dont_write_bytecode = True  # a checkout stays clean
try:
    import strict_moto  # noqa: E402
except ModuleNotFoundError as missing:
    sys.exit(f"{missing}; install tests/aws/requirements.txt into a venv and use its python")
from faults import POLL_S, FaultBook, Trip, WireLog  # noqa: E402
from imds import Imds  # noqa: E402
from settings import SETTINGS  # noqa: E402
from strict_moto import Answer, error_answer  # noqa: E402
from world import World  # noqa: E402

HOST = "127.0.0.1"
BODY_BYTES_MAX = 4 << 20
WAIT_S_MAX = 600.0
IDLE_S = 600.0
RESET_LINGER = struct.pack("ii", 1, 0)
GARBAGE = b"<!DOCTYPE html><meta charset=utf-8><title>Welcome</title><p>Please log in to the hotel network<br>"
SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=control/20260101/{region}/elasticloadbalancing/aws4_request"}


class Dropped(Exception):
    """The connection is to be reset without (the rest of) an answer."""


class Stage:
    """All state shared by the ports."""

    def __init__(self, region: str) -> None:
        self.region = region
        self.world = World(region)
        self.faults = FaultBook()
        self.log = WireLog()
        self.trip = Trip()
        self.imds = Imds()

    def reset(self) -> dict[str, Any]:
        self.faults.clear()
        self.trip.settle("drop")
        SETTINGS.reset()
        self.imds.reset()
        world = self.world.reset()
        self.log.clear()
        return world


class Server(ThreadingHTTPServer):
    """One listening port; `role` is direct, proxy or imds."""

    daemon_threads = True
    request_queue_size = 256
    block_on_close = False

    def __init__(self, port: int, role: str, stage: Stage) -> None:
        super().__init__((HOST, port), Handler)
        self.role, self.stage = role, stage
        self.reset_sockets: set[int] = set()

    def shutdown_request(self, request: Any) -> None:
        if id(request) in self.reset_sockets:
            self.reset_sockets.discard(id(request))
            request.close()  # with zero linger: a reset, not an orderly end
        else:
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are everyday business here."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = IDLE_S
    wbufsize = 1 << 16
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def handle_one(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        if size > BODY_BYTES_MAX:
            self.close_connection = True
            return self.send(413, {}, b"")
        self.body = self.rfile.read(size)
        parts = urlsplit(self.path)
        try:
            if parts.path.startswith("/_"):
                return self.control(parts.path, dict(parse_qsl(parts.query)))
            if self.server.role == "imds":
                return self.metadata(parts.path)
            if parts.path != "/":
                return self.send(404, {}, b"")
            self.aws()
        except Dropped:
            self.reset_connection()

    do_GET = do_POST = do_PUT = do_DELETE = handle_one

    # ---- answering ---------------------------------------------------------

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The `Date` of an answer, by a clock that may be off."""
        return super().date_time_string((time.time() if timestamp is None else timestamp) + SETTINGS.date_shift_s)

    def send(self, status: int, headers: dict[str, str], body: bytes, cut: int | None = None) -> None:
        """Send an answer; with `cut`, only that many bytes of its body and a reset."""
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "date", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if cut is None else body[:cut])
        self.wfile.flush()
        if cut is not None:
            time.sleep(POLL_S)  # let the bytes arrive before the reset
            raise Dropped

    def reset_connection(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_LINGER)
        self.server.reset_sockets.add(id(self.connection))

    def gone(self) -> bool:
        """Has the client closed its end?"""
        try:
            readable, _, _ = select.select([self.connection], [], [], 0)
            return bool(readable) and self.connection.recv(1, socket.MSG_PEEK) == b""
        except OSError:
            return True

    # ---- AWS ---------------------------------------------------------------

    def aws(self) -> None:
        form = {name: values[0] for name, values in parse_qs(self.body.decode("utf-8", "replace"), True).items()}
        action = form.pop("Action", "")
        form.pop("Version", None)
        if self.server.role == "direct":
            return self.send(*self.apply(action))
        self.faulty(action, form)

    def apply(self, action: str) -> Answer:
        return strict_moto.call(self.command, f"http://{HOST}{self.path}", dict(self.headers), self.body, action)

    def faulty(self, action: str, form: dict[str, str]) -> None:
        """One call through the log, the trip wire and the fault book."""
        stage, begun = self.server.stage, time.monotonic()
        credential = self.headers.get("Authorization", "").partition("Credential=")[2]
        entry = stage.log.begin(action, form, credential.partition("/")[0])
        if entry["mutating"]:
            entry["tags"] = tags_of(stage, entry["arns"])
        try:
            verdict, armed = stage.trip.arrive(entry, self.gone)
            if verdict == "drop":
                raise Dropped
            fault = stage.faults.take(entry) or {"kind": ""}
            entry["fault"] = fault["kind"] or entry["fault"]
            answer = self.before(fault)
            if answer is None:
                answer = self.apply(action)
                entry["applied"] = answer[0] < 400
                note(entry, answer)
                if armed is not None and stage.trip.applied(armed, self.gone) == "drop":
                    raise Dropped
                self.after(fault, entry, answer)
            else:
                note(entry, answer)
                self.send(*answer)
        finally:
            entry["ms"] = round((time.monotonic() - begun) * 1000, 1)

    def before(self, fault: dict[str, Any]) -> Answer | None:
        """Faults that answer in place of AWS; None = go on and apply."""
        match fault["kind"]:
            case "throttle":
                return error_answer(fault["status"] or 400, fault["code"] or "Throttling", "Rate exceeded")
            case "error":
                code = fault["code"] or "InternalFailure"
                return error_answer(fault["status"] or 500, code, "An injected error")
            case "http503":
                return 503, {"Content-Type": "text/plain"}, b"Service Unavailable"
            case "garbage":
                return 200, {"Content-Type": "text/html"}, GARBAGE
            case "drop_before":
                raise Dropped
            case "hang":
                self.server.stage.faults.hang(fault["seconds"], self.gone)
                raise Dropped
            case "delay":
                time.sleep(fault["seconds"])
        return None

    def after(self, fault: dict[str, Any], entry: dict[str, Any], answer: Answer) -> None:
        """Faults on the way back."""
        match fault["kind"]:
            case "lost_response":
                raise Dropped
            case "lost_503":
                entry["status"] = 503
                return self.send(503, {"Content-Type": "text/plain"}, b"Service Unavailable")
            case "half_body":
                return self.send(*answer, cut=len(answer[2]) // 2)
        self.send(*answer)

    # ---- instance metadata -------------------------------------------------

    def metadata(self, path: str) -> None:
        stage = self.server.stage
        if stage.imds.mode == "hang":
            while stage.imds.mode == "hang" and not self.gone():
                time.sleep(POLL_S)
        if stage.imds.mode == "down":
            raise Dropped
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.send(*stage.imds.answer(self.command, path, headers, stage.world.default()))

    # ---- control -----------------------------------------------------------

    def control(self, path: str, query: dict[str, str]) -> None:
        try:
            asked = json.loads(self.body or b"{}")
            result = self.verb(f"{self.command} {path}", asked, query)
            status = 404 if result is None else 200
        except (ValueError, KeyError, TypeError) as error:
            status, result = 400, {"error": f"{type(error).__name__}: {error}"}
        except Exception as error:  # an AWS error out of a world verb
            status, result = 400, {"error": str(error), "code": getattr(error, "code", None)}
        content = json.dumps(result if result is not None else {"error": f"no {self.command} {path}"}).encode()
        self.send(status, {"Content-Type": "application/json"}, content)

    def verb(self, request: str, asked: dict[str, Any], query: dict[str, str]) -> Any:
        stage = self.server.stage
        seconds = min(float(query.get("timeout", 30)), WAIT_S_MAX)
        plain = {
            "GET /_ready": lambda: {"ready": True},
            "POST /_reset": stage.reset,
            "POST /_fault": lambda: stage.faults.add(asked),
            "GET /_fault": stage.faults.shown,
            "DELETE /_fault": lambda: stage.faults.clear() or {},
            "GET /_log": lambda: stage.log.shown(int(query.get("after", 0))),
            "DELETE /_log": lambda: stage.log.clear() or {},
            "POST /_trip": lambda: stage.trip.arm(asked) or {},
            "GET /_trip/wait": lambda: stage.trip.wait(seconds),
            "POST /_trip/release": lambda: {"held": stage.trip.settle("release")},
            "POST /_trip/drop": lambda: {"held": stage.trip.settle("drop")},
            "DELETE /_trip": lambda: {"held": stage.trip.settle("drop")},
            "GET /_world/settings": SETTINGS.as_dict,
            "POST /_world/settings": lambda: SETTINGS.update(asked) or SETTINGS.as_dict(),
            "POST /_world/imds": lambda: stage.imds.configure(asked),
            "POST /_call": lambda: self.call_behind(asked),
        }
        if request in plain:
            return plain[request]()
        world = stage.world
        locked = {
            "GET /_world": world.default,
            "POST /_world": lambda: world.make(asked),
            "GET /_world/state": world.state,
            "POST /_world/foreign_rule": lambda: world.foreign_rule(asked),
            "POST /_world/health": lambda: world.health(asked),
            "POST /_world/strip_tags": lambda: world.strip_tags(asked),
            "POST /_world/instance": lambda: world.instance(asked),
        }
        if request not in locked:
            return None
        with strict_moto.LOCK:
            return locked[request]()

    def call_behind(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Any ELBv2 call without a client: `action`, `params` as flat query parameters."""
        form = {"Action": asked["action"], "Version": "2015-12-01", **asked.get("params", {})}
        headers = {name: value.format(region=self.server.stage.region) for name, value in SIGNED.items()}
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        answer = strict_moto.call("POST", f"http://{HOST}/", headers, urlencode(form).encode(), asked["action"])
        return {"status": answer[0], "body": answer[2].decode()}


def note(entry: dict[str, Any], answer: Answer) -> None:
    """Write an answer's status and error code into the log."""
    entry["status"] = answer[0]
    if answer[0] >= 400:
        entry["code"] = answer[2].decode("utf-8", "replace").partition("<Code>")[2].partition("</Code>")[0] or None


def tags_of(stage: Stage, arns: list[str]) -> dict[str, dict[str, str]]:
    """The tags of the resources a call is about, as they were before it."""
    with strict_moto.LOCK:
        service = stage.world.elb.tagging_service
        return {arn: service.get_tag_dict_for_resource(arn) for arn in arns}


def main() -> None:
    parser = argparse.ArgumentParser(description="strict fake of ELBv2 and IMDS, with a fault proxy")
    parser.add_argument("--port", type=int, default=0, help="strict moto without faults; 0 = pick a free one")
    parser.add_argument("--proxy-port", type=int, default=0, help="the same behind the fault proxy")
    parser.add_argument("--imds-port", type=int, help="instance metadata; absent = none")
    parser.add_argument("--region", default=os.environ.get("AWS_REGION") or "us-east-1")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end when standard input ends")
    args = parser.parse_args()
    strict_moto.install()
    stage = Stage(args.region)
    world = stage.world.default()
    roles = {"port": (args.port, "direct"), "proxy_port": (args.proxy_port, "proxy")}
    if args.imds_port is not None:
        roles["imds_port"] = (args.imds_port, "imds")
    ready: dict[str, Any] = {}
    for name, (port, role) in roles.items():
        server = Server(port, role, stage)
        ready[name] = server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    print(json.dumps({**ready, "pid": os.getpid(), "world": world}), flush=True)
    if args.until_stdin_closes:
        sys.stdin.buffer.read()
        os._exit(0)
    threading.Event().wait()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
