"""A server over stdio whose one tool takes everything that a form must be able to say, and says it back."""

import json
import sys

SCHEMA = {
    "type": "object",
    "required": ["name", "address", "items"],
    "$defs": {"address": {
        "type": "object", "required": ["city"],
        "properties": {"city": {"type": "string"}, "zip": {"type": "string", "pattern": "^[0-9]{5}$"}},
    }},
    "properties": {
        "name": {"type": "string", "description": "Who orders"},
        "size": {"type": "string", "enum": ["small", "large"], "default": "large"},
        "gift": {"type": "boolean"},
        "address": {"$ref": "#/$defs/address"},
        "items": {"type": "array", "minItems": 1, "items": {
            "type": "object", "required": ["article", "count"],
            "properties": {
                "article": {"type": "string"},
                "count": {"type": "integer", "minimum": 1},
                "options": {"type": "array", "items": {"type": "string", "enum": ["red", "blue"]}},
            },
        }},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "extra": {},
    },
}


def answer(request):
    method, params = request["method"], request.get("params", {})
    if method == "initialize":
        return {"protocolVersion": params.get("protocolVersion", "2025-06-18"), "capabilities": {"tools": {}},
                "serverInfo": {"name": "forms", "version": "1"}}
    if method == "tools/list":
        return {"tools": [{"name": "order", "description": "Takes an order", "inputSchema": SCHEMA}]}
    if method == "tools/call":
        return {"content": [{"type": "text", "text": json.dumps(params["arguments"], sort_keys=True)}]}
    return {} if method == "ping" else None


for line in sys.stdin:
    request = json.loads(line)
    if "id" not in request:
        continue
    found = answer(request)
    reply = {"result": found} if found is not None else {"error": {"code": -32601, "message": "no such method"}}
    print(json.dumps({"jsonrpc": "2.0", "id": request["id"], **reply}), flush=True)
