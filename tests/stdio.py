"""The smallest loop of a server over stdio: a line in, a line out."""

import json
import sys

KNOWN = ("initialize", "tools/list", "tools/call")


def serve(name, tools, call):
    """Answers until its input ends; `call` makes the result of a tool from the params of a call."""

    def result(message):
        params = message.get("params") or {}
        if message["method"] == "initialize":
            info = {"name": name, "version": "1"}
            return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": info}
        return {"tools": tools} if message["method"] == "tools/list" else call(params)

    for line in sys.stdin:
        asked = json.loads(line)
        if "id" in asked and "method" in asked:
            known = asked["method"] in KNOWN
            answer = {"result": result(asked)} if known else {"error": {"code": -32601, "message": "unknown"}}
            print(json.dumps({"jsonrpc": "2.0", "id": asked["id"]} | answer), flush=True)
