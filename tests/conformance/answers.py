#!/usr/bin/env python3
"""Whether an MCP server answers `initialize` at an address; the session is ended again."""

import json
import sys
import urllib.error
import urllib.request

ANSWER_SECS_MAX = 10
HEADERS = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "conformance-runner", "version": "0"},
    },
}


def ask(url, method, headers, body=None):
    """One request; its answer's session and text."""
    request = urllib.request.Request(url, data=body, headers=headers, method=method)
    with urllib.request.urlopen(request, timeout=ANSWER_SECS_MAX) as answer:
        return answer.headers.get("Mcp-Session-Id"), answer.read().decode()


def main():
    """Exit code 0: there is a result."""
    url = sys.argv[1]
    try:
        session, text = ask(url, "POST", HEADERS, json.dumps(HELLO).encode())
        if session:
            ask(url, "DELETE", {"Mcp-Session-Id": session})
    except (OSError, urllib.error.URLError):
        sys.exit(1)
    sys.exit(0 if '"protocolVersion"' in text else 1)


main()
