"""The fault book, the wire log and the trip wire of the proxy port.

Why: the interesting bugs are in what a client does after a lost response, a
throttle or its own death between two calls. A test writes down which call
should fail how; the log says afterwards what was on the wire, in order.

All three are shared by the server's threads and guard themselves.
"""

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

KINDS = {
    "throttle": "400 Throttling (or `code`), not applied",
    "error": "`status` and `code` (500 InternalFailure), not applied",
    "http503": "503 without an AWS error body, not applied",
    "drop_before": "connection reset, not applied",
    "lost_response": "applied, then connection reset",
    "lost_503": "applied, then 503",
    "half_body": "applied, then half of the answer and a reset",
    "garbage": "200 with a page of HTML, not applied",
    "delay": "applied and answered `seconds` late",
    "hang": "no answer until `seconds` are over or the client leaves, not applied",
}
FAULTS_MAX = 1_000
LOG_ENTRIES_MAX = 100_000
VALUE_CHARS_MAX = 2_048
TIMES_FOREVER = -1
POLL_S = 0.05
DEFAULT_SECONDS = {"delay": 1.0, "hang": 120.0}


class FaultBook:
    """Faults waiting for their call; the first one that matches is used."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.book: list[dict[str, Any]] = []
        self.version = 0

    def add(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Add one fault; ValueError if it makes no sense."""
        unknown = set(asked) - {"action", "kind", "code", "status", "seconds", "times", "skip", "contains", "key"}
        if unknown or asked.get("kind") not in KINDS:
            raise ValueError(f"unknown fields {sorted(unknown)} or kind {asked.get('kind')!r}; kinds: {sorted(KINDS)}")
        fault = {
            "action": asked.get("action", "*"),
            "kind": asked["kind"],
            "code": asked.get("code"),
            "status": asked.get("status"),
            "seconds": float(asked.get("seconds", DEFAULT_SECONDS.get(asked["kind"], 0.0))),
            "times": int(asked.get("times", 1)),
            "skip": int(asked.get("skip", 0)),
            "contains": asked.get("contains"),
            "key": asked.get("key"),
            "hits": 0,
        }
        with self.lock:
            if len(self.book) >= FAULTS_MAX:
                raise ValueError("too many faults")
            self.book.append(fault)
        return fault

    def take(self, entry: dict[str, Any]) -> dict[str, Any] | None:
        """The fault for this call, if any, counted as used."""
        text = " ".join([*entry["params"], *entry["params"].values()])
        with self.lock:
            for fault in self.book:
                if fault["times"] == 0 or fault["action"] not in ("*", entry["action"]):
                    continue
                if fault["contains"] and fault["contains"] not in text:
                    continue
                if fault["key"] and fault["key"] != entry["key"]:
                    continue
                if fault["skip"] > 0:
                    fault["skip"] -= 1
                    continue
                if fault["times"] != TIMES_FOREVER:
                    fault["times"] -= 1
                fault["hits"] += 1
                return dict(fault)
        return None

    def clear(self) -> None:
        """Forget all faults; hanging calls are let go."""
        with self.lock:
            self.book.clear()
            self.version += 1

    def shown(self) -> list[dict[str, Any]]:
        with self.lock:
            return [dict(fault) for fault in self.book]

    def hang(self, seconds: float, gone: Callable[[], bool]) -> None:
        """Wait until the time is over, the client left or the book was cleared."""
        version, end = self.version, time.monotonic() + seconds
        while time.monotonic() < end and version == self.version and not gone():
            time.sleep(POLL_S)


class WireLog:
    """Every AWS call that reached the proxy port, in order of arrival."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.sequence = itertools.count(1)
        self.entries: deque[dict[str, Any]] = deque(maxlen=LOG_ENTRIES_MAX)

    def begin(self, action: str, params: dict[str, str], key: str) -> dict[str, Any]:
        params = {name: value[:VALUE_CHARS_MAX] for name, value in params.items()}
        entry = {
            "time": time.time(),
            "action": action,
            "params": params,
            "arns": sorted({value for value in params.values() if value.startswith("arn:")}),
            "tags": {},
            "mutating": not action.startswith(("Describe", "Get")),
            "key": key,
            "status": None,
            "code": None,
            "fault": None,
            "applied": False,
            "ms": None,
        }
        with self.lock:
            entry["seq"] = next(self.sequence)
            self.entries.append(entry)
        return entry

    def shown(self, after: int = 0) -> list[dict[str, Any]]:
        with self.lock:
            return [dict(entry) for entry in self.entries if entry["seq"] > after]

    def clear(self) -> None:
        with self.lock:
            self.entries.clear()


class Armed:
    """One trip wire, from armed over tripped to its verdict."""

    def __init__(self, asked: dict[str, Any]) -> None:
        unknown = set(asked) - {"after", "mode", "action", "mutating", "freeze", "key"}
        self.mode = asked.get("mode", "hold")
        if unknown or self.mode not in ("hold", "apply_then_hold"):
            raise ValueError(f"unknown fields {sorted(unknown)} or mode {self.mode!r}")
        self.after = int(asked.get("after", 1))
        self.action = asked.get("action", "*")
        self.mutating = asked.get("mutating")
        self.freeze = bool(asked.get("freeze", True))
        self.key = asked.get("key")
        self.seen = 0
        self.entry: dict[str, Any] | None = None
        self.tripped = False
        self.verdict: str | None = None

    def matches(self, entry: dict[str, Any]) -> bool:
        if self.mutating is not None and bool(self.mutating) != entry["mutating"]:
            return False
        return self.action in ("*", entry["action"]) and self.key in (None, entry["key"])


class Trip:
    """Holds the n-th call (and by default all later ones) until told otherwise."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.armed: Armed | None = None

    def arm(self, asked: dict[str, Any]) -> None:
        armed = Armed(asked)
        self.settle("drop")
        with self.changed:
            self.armed = armed

    def settle(self, verdict: str) -> bool:
        """Release or drop what is held, and disarm; says whether a call was held."""
        with self.changed:
            armed, self.armed = self.armed, None
            if armed is None:
                return False
            armed.verdict = verdict
            self.changed.notify_all()
            return armed.entry is not None

    def wait(self, seconds: float) -> dict[str, Any]:
        """Block until the call is held; `tripped` is false when time ran out."""
        with self.changed:
            armed = self.armed
            if armed is not None:
                self.changed.wait_for(lambda: armed.tripped or armed.verdict is not None, timeout=seconds)
            held = armed is not None and armed.tripped
            return {"tripped": held, "seen": armed.seen if armed else 0, "entry": armed.entry if held else None}

    def arrive(self, entry: dict[str, Any], gone: Callable[[], bool]) -> tuple[str, Armed | None]:
        """Before a call is applied: ('go' | 'drop', the wire to hold at afterwards)."""
        with self.changed:
            armed = self.armed
            if armed is None:
                return "go", None
            if armed.entry is not None:
                return (self.hold(armed, gone), None) if armed.freeze else ("go", None)
            if not armed.matches(entry):
                return "go", None
            armed.seen += 1
            if armed.seen < armed.after:
                return "go", None
            armed.entry = entry
            entry["fault"] = f"trip_{armed.mode}"
            if armed.mode == "apply_then_hold":
                return "go", armed
            return self.trip_and_hold(armed, gone), None

    def applied(self, armed: Armed, gone: Callable[[], bool]) -> str:
        """After the tripping call was applied, its answer not yet sent."""
        with self.changed:
            return self.trip_and_hold(armed, gone)

    def trip_and_hold(self, armed: Armed, gone: Callable[[], bool]) -> str:
        armed.tripped = True
        self.changed.notify_all()
        return self.hold(armed, gone)

    def hold(self, armed: Armed, gone: Callable[[], bool]) -> str:
        while armed.verdict is None:
            self.changed.wait(POLL_S)
            if gone():
                return "drop"
        return "go" if armed.verdict == "release" else "drop"
