#!/usr/bin/env python3
"""Clients of LiteLLM's proxy: client.py URL KEY WIRE CONFIG.

What they get is compared with what the daemon offers, how long it takes with LiteLLM's own limits, and what
LiteLLM sent for it (WIRE) with what tests/interop/litellm.py replays.
"""

import asyncio
import json
import sys
import time
import urllib.request

import mcp
from mcp.client.streamable_http import streamable_http_client

URL, KEY, WIRE, CONFIG = sys.argv[1:5]
# It asks a server twice, with 30 s each, and its clients wait 60 s.
LIST_SECS_MAX = 20
DEMO = {"time", "echo", "add", "lookup"}
passed = failed = 0


def say(text):
    """A line of the transcript."""
    print(text, flush=True)


def check(what, good, seen=""):
    """One line of the result."""
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    say(f"{'PASS' if good else 'FAIL'}  {what}" + ("" if good else f": {seen}"))


def rest(path, body=None):
    """A request to LiteLLM's REST interface."""
    data = json.dumps(body).encode() if body is not None else None
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(URL + path, data, headers), timeout=120) as answer:
        return json.load(answer)


def text_of(result):
    """The text of a tool's result."""
    return " ".join(part.text for part in result.content if hasattr(part, "text"))


async def over_mcp(path, calls):
    """The tools at a path of LiteLLM, how long the list took, and what calls gave."""
    headers = {"x-litellm-api-key": f"Bearer {KEY}"}
    import httpx2 as httpx

    async with httpx.AsyncClient(headers=headers, timeout=120) as client:
        async with streamable_http_client(URL + path, http_client=client) as streams:
            async with mcp.ClientSession(streams[0], streams[1]) as session:
                await session.initialize()
                began = time.monotonic()
                tools = [tool.name for tool in (await session.list_tools()).tools]
                took = time.monotonic() - began
                said = [text_of(await session.call_tool(name, arguments)) for name, arguments in calls]
    return tools, took, said


def listed_and_called():
    """Over streamable HTTP, and by the document."""
    began = time.monotonic()
    tools, took, said = asyncio.run(
        over_mcp(
            "/mcp/",
            [
                ("time-echo", {"text": "through LiteLLM"}),
                ("far_away-say", {"text": "renamed"}),
                ("time_document-tool_echo_post", {"body": {"text": "by the document"}}),
            ],
        )
    )
    say(f"\n/mcp/ lists, in {took:.2f} s while one server hangs:\n  " + "\n  ".join(sorted(tools)))
    say("calls:\n  " + "\n  ".join(said) + "\n")
    check("the list comes well within LiteLLM's limits", took < LIST_SECS_MAX, f"{took:.1f} s")
    for name in DEMO:
        check(f"time-{name} is listed", f"time-{name}" in tools, tools)
        check(f"{name} is listed by the document", f"time_document-tool_{name}_post" in tools, tools)
    check("far_away has its two tools, one renamed", {t for t in tools if t.startswith("far_away-")} == {"far_away-say", "far_away-time"}, tools)
    check("the server that hangs has none", not [t for t in tools if t.startswith("hangs-")], tools)
    for want, got in zip(["through LiteLLM", "renamed", "by the document"], said):
        check(f"a call says '{want}'", want in got, got)
    say(f"\nall of it took {time.monotonic() - began:.2f} s")


def by_rest():
    """LiteLLM's own page and REST clients."""
    began = time.monotonic()
    names = {tool["name"] for tool in rest("/mcp-rest/tools/list")["tools"]}
    took = time.monotonic() - began
    say(f"\n/mcp-rest/tools/list: {len(names)} tools in {took:.2f} s")
    check("its REST list comes well within its limits", took < LIST_SECS_MAX, f"{took:.1f} s")
    check("its REST list has the demo server's tools", DEMO <= {n.split("-")[-1] for n in names}, names)


def same_wire():
    """What CI replays is what this version sends."""
    rows = [json.loads(line) for line in open(WIRE, encoding="utf-8")]
    rows = [row for row in rows if row["path"].startswith("/mcp/time")]
    say("\nwhat LiteLLM sent to /mcp/time for one operation:")
    first = next(i for i, row in enumerate(rows) if row.get("method") == "initialize")
    hello = rows[first]
    one = []
    for row in rows[first : first + 8]:
        if row.get("method") == "initialize" and one:
            break
        one.append((row["http"], row.get("method", ""), row["status"]))
    for row in one:
        say("  " + " ".join(str(part) for part in row))
    headers = hello["headers"]
    check("a slash ends the URL" , hello["path"] == "/mcp/time" or hello["path"] == "/mcp/time/", hello["path"])
    say(f"  path {hello['path']}, accept {headers.get('accept')}, version {hello['params']['protocolVersion']}, client {json.dumps(hello['params']['clientInfo'])}, capabilities {json.dumps(hello['params']['capabilities'])}")
    check("both content types are accepted", headers.get("accept") == "application/json, text/event-stream", headers)
    check("the version is the replayed one", hello["params"]["protocolVersion"] == "2025-11-25", hello)
    check("it declares nothing", hello["params"]["capabilities"] == {}, hello)
    check("the token is sent as Bearer", headers.get("authorization") == "Bearer", headers)
    kinds = {(row["http"], row.get("method", "")) for row in rows}
    want = {("POST", "initialize"), ("POST", "notifications/initialized"), ("POST", "tools/list"), ("POST", "tools/call")}
    check("the operations are the replayed ones", want <= kinds, sorted(kinds))
    more = kinds - want - {("GET", ""), ("DELETE", "")}
    check("and no others", not more, sorted(more))


def main():
    """All of it."""
    say("LiteLLM " + __import__("importlib.metadata", fromlist=["version"]).version("litellm") + " with\n")
    say(open(CONFIG, encoding="utf-8").read())
    for part in (listed_and_called, by_rest, same_wire):
        try:
            part()
        except Exception as error:  # noqa: BLE001 - whatever it is, it has failed
            check(part.__name__, False, repr(error))
    say(f"\n{passed} passed, {failed} failed")
    sys.exit(failed != 0)


main()
