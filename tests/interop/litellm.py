#!/usr/bin/env python3
"""What LiteLLM sends for one operation, as recorded from 1.106.2: `litellm.py everything|time URL`.

A slash ends the URL; every request carries both content types in `Accept` and a content type of its
own, also those without a body; the listening GET and the list are under way at once; each operation
is a session of its own. The proxy itself is too big to install for this.
"""

import asyncio
import http.client
import json
import sys
import threading
import urllib.parse

from checks import check, ensure, same

ANSWER_SECS_MAX = 15
VERSION = "2025-11-25"
CALLS = {
    "everything": ("get-sum", {"a": 20, "b": 22}, " 42"),
    "time": ("get_current_time", {"timezone": "UTC"}, "timezone"),
}
# Operations one after the other, as a proxy does for its users.
OPERATIONS = 10


def events(text):
    """The messages of an event stream."""
    lines = (line[5:].strip() for line in text.splitlines() if line.startswith("data:"))
    return [json.loads(line) for line in lines if line]


class Wire:
    """One operation's requests."""

    def __init__(self, url):
        self.at = urllib.parse.urlsplit(url)
        self.session = self.version = None

    def send(self, method, body=None):
        """A request of its own connection; its answer is not read yet."""
        headers = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
        if self.session:
            headers["Mcp-Session-Id"] = self.session
        if self.version:
            headers["Mcp-Protocol-Version"] = self.version
        connection = http.client.HTTPConnection(self.at.hostname, self.at.port, timeout=ANSWER_SECS_MAX)
        connection.request(method, self.at.path, json.dumps(body) if body else None, headers)
        return connection, connection.getresponse()

    def ask(self, method, body=None):
        """Status, headers and messages of an answer that ends."""
        connection, answer = self.send(method, body)
        text = answer.read().decode()
        connection.close()
        if answer.headers.get("Content-Type", "").startswith("text/event-stream"):
            return answer.status, answer.headers, events(text)
        return answer.status, answer.headers, [json.loads(text)] if text else []

    def initialize(self):
        """No capabilities at all, the newest version of the era with sessions."""
        params = {"protocolVersion": VERSION, "capabilities": {}, "clientInfo": {"name": "mcp", "version": "0.1.0"}}
        status, headers, said = self.ask("POST", {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
        same("status of initialize", status, 200)
        self.session, self.version = headers.get("Mcp-Session-Id"), said[-1]["result"]["protocolVersion"]
        ensure(self.session, "no session id")
        same("version", self.version, VERSION)

    def initialized(self):
        """Answered without a body."""
        status, headers, said = self.ask("POST", {"jsonrpc": "2.0", "method": "notifications/initialized"})
        same("status of initialized", status, 202)
        same("body of initialized", said, [])

    def request(self, ident, method, params=None):
        """The result of a request."""
        message = {"jsonrpc": "2.0", "id": ident, "method": method} | ({"params": params} if params else {})
        status, _headers, said = self.ask("POST", message)
        same(f"status of {method}", status, 200)
        same(f"id of {method}", said[-1].get("id"), ident)
        ensure("result" in said[-1], f"{method}: {said[-1]}")
        return said[-1]["result"]


def operation(url, call):
    """Everything LiteLLM does for a list, or for one call."""
    wire = Wire(url)
    wire.initialize()
    listening = {}

    def listen():
        listening["connection"], listening["answer"] = wire.send("GET")

    get = threading.Thread(target=listen, daemon=True)
    wire.initialized()
    get.start()
    tools = [tool["name"] for tool in wire.request(1, "tools/list")["tools"]]
    get.join(ANSWER_SECS_MAX)
    ensure("answer" in listening, "GET is not answered at once")
    same("status of GET", listening["answer"].status, 200)
    kind = listening["answer"].headers.get("Content-Type", "")
    ensure(kind.startswith("text/event-stream"), f"GET is answered with {kind}")
    result = wire.request(2, "tools/call", {"name": call[0], "arguments": call[1]}) if call else None
    status, _headers, _said = wire.ask("DELETE")
    ensure(status in (200, 202, 204), f"status of DELETE: {status}")
    # The stream of an ended session ends too; the client waits for it.
    listening["answer"].read()
    listening["connection"].close()
    status, _headers, _said = wire.ask("POST", {"jsonrpc": "2.0", "id": 3, "method": "tools/list"})
    same("status after DELETE", status, 404)
    return tools, result


async def main(server, url):
    """The checks; the URL gets its slash here."""
    url = url + "/"
    name, arguments, wanted = CALLS[server]

    async def listed():
        tools, _none = await asyncio.to_thread(operation, url, None)
        ensure(name in tools, f"no {name} among {tools}")

    async def call():
        _tools, result = await asyncio.to_thread(operation, url, (name, arguments))
        ensure(wanted in result["content"][0]["text"], result)

    async def many():
        for _ in range(OPERATIONS):
            await asyncio.to_thread(operation, url, (name, arguments))

    async def together():
        await asyncio.gather(*(asyncio.to_thread(operation, url, (name, arguments)) for _ in range(OPERATIONS)))

    await check("list", listed)
    await check("call", call)
    await check("many", many)
    await check("together", together)


asyncio.run(main(*sys.argv[1:]))
