#!/usr/bin/env python3
"""A server over stdio with one tool, which says what headers came with its call (`_meta.headers`)."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from stdio import serve

TOOL = {"name": "who", "description": "Says who calls", "inputSchema": {"type": "object", "properties": {}}}


def call(params):
    """What the tool says to a call."""
    headers = (params.get("_meta") or {}).get("headers") or {}
    return {"content": [{"type": "text", "text": json.dumps(headers, sort_keys=True)}]}


serve("headers", [TOOL], call)
