#!/usr/bin/env python3
"""A server over stdio with one tool, which says what headers came with its call (`_meta.headers`)."""

import json
import sys

TOOL = {"name": "who", "description": "Says who calls", "inputSchema": {"type": "object", "properties": {}}}


def result(message):
    """What is answered to a request."""
    params = message.get("params") or {}
    if message["method"] == "initialize":
        info = {"name": "headers", "version": "1"}
        return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": info}
    if message["method"] == "tools/list":
        return {"tools": [TOOL]}
    headers = (params.get("_meta") or {}).get("headers") or {}
    return {"content": [{"type": "text", "text": json.dumps(headers, sort_keys=True)}]}


for line in sys.stdin:
    asked = json.loads(line)
    if "id" in asked and "method" in asked:
        known = asked["method"] in ("initialize", "tools/list", "tools/call")
        answer = {"result": result(asked)} if known else {"error": {"code": -32601, "message": "unknown"}}
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"]} | answer), flush=True)
