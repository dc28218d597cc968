#!/usr/bin/env python3
"""MCP Inspector's command line: `inspector.py everything|time URL NODE LAUNCHER`."""

import asyncio
import json
import sys

from checks import check, ensure, same

CALLS = {
    "everything": ("get-sum", ["a=20", "b=22"], " 42"),
    "time": ("convert_time", ["source_timezone=UTC", "time=12:00", "target_timezone=Asia/Tokyo"], "T21:00:00+09:00"),
}


async def inspect(program, url, transport, *arguments):
    """What it prints for one method."""
    process = await asyncio.create_subprocess_exec(
        *program, "--cli", url, "--transport", transport, *arguments,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    same(f"exit code ({err.decode()[-200:]})", process.returncode, 0)
    return json.loads(out)


async def main(server, url, *program):
    """A list and a call, over both transports."""
    name, arguments, wanted = CALLS[server]

    async def listed():
        names = [tool["name"] for tool in (await inspect(program, url, "http", "--method", "tools/list"))["tools"]]
        ensure(name in names, f"no {name} among {names}")

    async def call(transport="http", at=url):
        options = ["--method", "tools/call", "--tool-name", name]
        options += [word for pair in arguments for word in ("--tool-arg", pair)]
        result = await inspect(program, at, transport, *options)
        ensure(wanted in result["content"][0]["text"], result)

    await check("list", listed)
    await check("call", call)
    await check("sse", lambda: call("sse", url + "/sse"))


asyncio.run(main(*sys.argv[1:]))
