#!/usr/bin/env python3
"""A server over stdio whose tools have schemas of every kind, and say what they were given.

What comes is looked at again here: a call that the schema forbids has to be refused before.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from stdio import serve

NODE = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]}},
    "required": ["name"],
    "additionalProperties": False,
}
TREE = {
    "type": "object",
    "properties": {
        "value": {"type": "integer", "minimum": -5, "maximum": 5},
        "children": {"type": "array", "items": {"$ref": "#/$defs/Tree"}, "maxItems": 2},
    },
    "required": ["value"],
    "additionalProperties": False,
}
ADDRESS = {
    "type": "object",
    "properties": {
        "street": {"type": "string", "minLength": 1, "maxLength": 20},
        "zip": {"type": "string", "pattern": "^[0-9]{5}$"},
        "tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": True, "maxItems": 3},
    },
    "required": ["street", "zip"],
    "additionalProperties": False,
}


def closed(properties, required=(), **more):
    """An object that allows nothing else."""
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return schema | {"additionalProperties": False} | more


TOOLS = {
    "nested": closed({"home": ADDRESS, "work": ADDRESS, "n": {"type": "integer"}}, ["home"]),
    "list": closed({"node": {"$ref": "#/$defs/Node"}}, ["node"], **{"$defs": {"Node": NODE}}),
    "tree": closed({"root": {"$ref": "#/$defs/Tree"}}, ["root"], **{"$defs": {"Tree": TREE}}),
    "either": closed(
        {
            "one": {"anyOf": [{"type": "string", "maxLength": 5}, {"type": "integer"}]},
            "two": {"oneOf": [closed({"kind": {"const": "a"}, "a": {"type": "boolean"}}, ["kind", "a"]), closed({"kind": {"const": "b"}, "b": {"type": "number"}}, ["kind", "b"])]},
            "all": {"allOf": [{"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}, {"type": "object", "properties": {"y": {"type": "string"}}}]},
        },
        ["one"],
    ),
    "choice": closed({"color": {"type": "string", "enum": ["red", "green", "blue"]}, "level": {"enum": [1, 2, None, "max"]}, "fixed": {"const": 7}}, ["color"]),
    "nullable": closed({"old": {"type": ["string", "null"]}, "number": {"type": ["integer", "null"], "minimum": 0}, "flag": {"type": "boolean", "default": True}}, ["old"]),
    "labels": closed({"labels": {"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 4}, "free": {"type": "object", "additionalProperties": True}}, ["labels"]),
    "numbers": closed({"ratio": {"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "even": {"type": "integer", "multipleOf": 2, "minimum": -100, "maximum": 100}}, ["ratio"]),
    "pairs": closed({"pair": {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False, "minItems": 2, "maxItems": 2}}, ["pair"]),
    "anything": {"type": "object", "properties": {"extra": {}}},
    "nothing": {"type": "object", "properties": {}, "additionalProperties": False},
}
OUTPUT = closed({"tool": {"type": "string"}, "given": {"type": "object"}}, ["tool", "given"])


def call(params):
    """What a tool says to a call."""
    given = {"tool": params["name"], "given": params.get("arguments") or {}}
    wrong = lacks(TOOLS[params["name"]], given["given"])
    text = f"the call should have been refused: {wrong}" if wrong else json.dumps(given)
    return {"content": [{"type": "text", "text": text}], "structuredContent": given, "isError": bool(wrong)}


def lacks(schema, given):
    """What of the plain rules does not hold: enough to see that nothing slips through."""
    missing = [name for name in schema.get("required", ()) if name not in given]
    more = [name for name in given if name not in schema["properties"]] if schema.get("additionalProperties") is False else []
    return missing + more


serve("shapes", [
    {"name": name, "description": f"Takes {name}", "inputSchema": schema, "outputSchema": OUTPUT}
    for name, schema in TOOLS.items()
], call)
