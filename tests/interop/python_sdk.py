#!/usr/bin/env python3
"""The official Python SDK's client, 1.x or 2.x, against server-everything or mcp-server-time.

`python_sdk.py legacy|modern|sse everything|time URL`; modern needs 2.x.
"""

import asyncio
import os
import sys
import time
import warnings
from contextlib import AsyncExitStack

from checks import check, ensure, same
from mcp import types

try:
    from mcp import Client
except ImportError:  # 1.x
    Client = None
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client
from mcp.client.sse import sse_client

VERSIONS = {"legacy": "2025-11-25", "sse": "2025-11-25", "modern": "2026-07-28"}
LONG = ("trigger-long-running-operation", {"duration": 1, "steps": 4})
CHANGE_SECS_MAX = 10


async def sampled(_context, params):
    """Answers a request for sampling."""
    ensure(params.messages, "a request for sampling without messages")
    content = types.TextContent(type="text", text="sampled")
    return types.CreateMessageResult(role="assistant", model="interop-model", content=content)


async def elicited(_context, _params):
    """Answers a question to the user."""
    return types.ElicitResult(action="accept", content={"name": "Ada", "check": True})


async def rooted(_context):
    """Answers a request for roots."""
    return types.ListRootsResult(roots=[types.Root(uri="file:///interop", name="interop root")])


def name_of(result):
    """The server's name in an answer to `initialize`, whatever the SDK's spelling."""
    info = getattr(result, "server_info", None) or getattr(result, "serverInfo", None)
    return info.name if info else None


class Peer:
    """One connection with whatever SDK there is."""

    def __init__(self, mode, url):
        self.mode, self.url = mode, url
        self.stack = AsyncExitStack()
        self.inner = self.server = self.version = None
        self.notices = []

    async def notice(self, message):
        """Keeps what the server says outside of calls."""
        self.notices.append(str(getattr(getattr(message, "root", message), "method", message)))

    async def open(self, askable=True):
        """Connects and shakes hands."""
        options = {"message_handler": self.notice}
        if askable:
            options |= {"sampling_callback": sampled, "elicitation_callback": elicited, "list_roots_callback": rooted}
        if Client:
            await self._open_2(options)
        else:
            await self._open_1(options)
        return self

    async def _open_2(self, options):
        if self.mode == "sse":
            client = Client(sse_client(self.url + "/sse"), mode="legacy", **options)
        else:
            # `auto` finds the version out by itself: what it found is checked.
            client = Client(self.url, mode="auto" if self.mode == "modern" else "legacy", **options)
        self.inner = await self.stack.enter_async_context(client)
        self.version, self.server = client.protocol_version, client.server_info and client.server_info.name

    async def _open_1(self, options):
        if self.mode == "sse":
            streams = await self.stack.enter_async_context(sse_client(self.url + "/sse"))
        else:
            streams = await self.stack.enter_async_context(streamablehttp_client(self.url))
        self.inner = await self.stack.enter_async_context(ClientSession(*streams[:2], **options))
        hello = await self.inner.initialize()
        self.version, self.server = hello.protocolVersion, hello.serverInfo.name

    async def names(self):
        """The names of the tools."""
        return [tool.name for tool in (await self.inner.list_tools()).tools]

    async def call(self, name, arguments, **options):
        """The text of a tool's answer."""
        result = await self.inner.call_tool(name, arguments, **options)
        text = "\n".join(getattr(block, "text", "") for block in result.content)
        ensure(not getattr(result, "is_error", getattr(result, "isError", False)), f"the tool failed: {text}")
        return text


async def progress(peer):
    """Every step is told, in order."""
    seen = []

    async def told(at, _total, _message):
        seen.append(at)

    await peer.call(*LONG, progress_callback=told)
    same("progress", seen, [1, 2, 3, 4])


async def changes(peer):
    """What a call changes is told to who listens."""
    made = f"{peer.mode}-{os.getpid()}-{time.time_ns()}.gz"
    tool = ("gzip-file-as-resource", {"name": made, "data": "data:text/plain,interop", "outputType": "resource"})
    if peer.mode == "modern":
        async with asyncio.timeout(CHANGE_SECS_MAX), peer.inner.listen(resources_list_changed=True) as news:
            await peer.call(*tool)
            event = await anext(aiter(news))
        same("event", type(event).__name__, "ResourcesListChanged")
        return
    await peer.call(*tool)
    async with asyncio.timeout(CHANGE_SECS_MAX):
        while not any("ResourceListChanged" in seen or "resources/list_changed" in seen for seen in peer.notices):
            await asyncio.sleep(0.05)


async def plain(mode, url):
    """A client that can be asked nothing shares the server's connection; many calls at once."""
    peer = Peer(mode, url)
    async with peer.stack:
        await peer.open(askable=False)
        ensure("trigger-sampling-request" not in await peer.names(), "tools of clients that can be asked")
        sums = await asyncio.gather(*(peer.call("get-sum", {"a": n, "b": n}) for n in range(1, 9)))
    for n, text in enumerate(sums, start=1):
        ensure(f" {n * 2}." in text, f"sums: {sums}")


async def everything(mode, url):
    """The checks with server-everything."""
    peer = Peer(mode, url)

    async def initialize():
        await peer.open()
        same("version", peer.version, VERSIONS[mode])
        ensure("everything" in (peer.server or ""), f"server {peer.server}")

    async def listed():
        names = await peer.names()
        for name in ("echo", "trigger-sampling-request", "trigger-elicitation-request", "get-roots-list"):
            ensure(name in names, f"no {name} among {names}")

    async def call():
        message = 'a \u200d b \u2028 "c" \\ \U0001f9ea'
        same("echo", await peer.call("echo", {"message": message}), f"Echo: {message}")

    async def resources():
        first = (await peer.inner.list_resources()).resources[0]
        same("uri", (await peer.inner.read_resource(first.uri)).contents[0].uri, first.uri)

    async def prompts():
        first = (await peer.inner.list_prompts()).prompts[0]
        ensure((await peer.inner.get_prompt(first.name)).messages, "an empty prompt")

    async def sampling():
        text = await peer.call("trigger-sampling-request", {"prompt": "p", "maxTokens": 5})
        ensure("interop-model" in text, text)

    async def elicitation():
        ensure("Ada" in (text := await peer.call("trigger-elicitation-request", {})), text)

    async def roots():
        ensure("interop root" in (text := await peer.call("get-roots-list", {})), text)

    async with peer.stack:
        await check("initialize", initialize)
        await check("list", listed)
        await check("call", call)
        await check("resources", resources)
        await check("prompts", prompts)
        await check("progress", lambda: progress(peer))
        await check("sampling", sampling)
        await check("elicitation", elicitation)
        await check("roots", roots)
        await check("changes", lambda: changes(peer))
    await check("plain", lambda: plain(mode, url))


async def clock(mode, url):
    """The checks with mcp-server-time."""
    peer = Peer(mode, url)

    async def initialize():
        await peer.open(askable=False)
        same("version", peer.version, VERSIONS[mode])
        same("server", peer.server, "mcp-time")

    async def listed():
        same("tools", sorted(await peer.names()), ["convert_time", "get_current_time"])

    async def call():
        arguments = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}
        text = await peer.call("convert_time", arguments)
        ensure("T21:00:00+09:00" in text, text)

    async with peer.stack:
        await check("initialize", initialize)
        await check("list", listed)
        await check("call", call)


warnings.simplefilter("ignore")
asyncio.run({"everything": everything, "time": clock}[sys.argv[2]](sys.argv[1], sys.argv[3]))
