#!/usr/bin/env python3
"""Clients of mcpo: examples.py BASE SINGLE ours|mcpo. SINGLE is the base URL of mcpo with one server.

What is asked is what mcpo's README and Open WebUI ask; nothing of it knows who answers. mcpo itself is
excused from what it is known to do otherwise (EXCUSED).
"""

import base64
import json
import pathlib
import sys
import time
import urllib.error
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from checks import ensure, reason, same, say  # noqa: E402

BASE, SINGLE, WHO = sys.argv[1:4]
KEY = {"Authorization": "Bearer top-secret"}
READY_SECS = 60
# Its pages are open, and Basic is not taken, unless it is started with --strict-auth; what it works out of
# `client_header_forwarding` is never sent.
EXCUSED = {"docs-locked", "key-basic", "headers"}
NAMES = ("memory", "time", "mcp_sse", "mcp_streamable_http", "headers")


def ask(method, url, body=None, headers=KEY):
    """Status, headers and JSON or text of an answer."""
    data = None if body is None else json.dumps(body).encode()
    sent = {"Content-Type": "application/json", **headers}
    request = urllib.request.Request(url, data, sent, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            status, said, text = answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        status, said, text = error.code, error.headers, error.read().decode()
    try:
        return status, said, json.loads(text)
    except ValueError:
        return status, said, text


def called(url, body, headers=KEY):
    """The answer of a tool."""
    status, _headers, said = ask("POST", url, body, headers)
    same(f"status of {url} ({said})", status, 200)
    return said


def config_file():
    """A path for each server of the file, with a document and docs of its own."""
    for name in NAMES:
        status, _headers, document = ask("GET", f"{BASE}/{name}/openapi.json")
        same(f"status of {name}'s document", status, 200)
        ensure(document["openapi"].startswith("3.1"), document["openapi"])
        ensure(document["paths"], f"{name} has no tools")
        for path, item in document["paths"].items():
            same(f"methods of {path}", list(item), ["post"])
            same(f"operation id of {path}", item["post"]["operationId"], f"tool_{path[1:].replace('-', '_')}_post".replace("__", "_"))
        same(f"docs of {name}", ask("GET", f"{BASE}/{name}/docs")[0], 200)


def index():
    """The document of all, whose description leads to each."""
    status, _headers, document = ask("GET", f"{BASE}/openapi.json")
    same("status", status, 200)
    for name in NAMES:
        ensure(f"/{name}/docs" in document["info"]["description"], document["info"]["description"])
    same("docs", ask("GET", f"{BASE}/docs")[0], 200)


def stdio():
    """`uvx mcp-server-time`, with an argument and without."""
    said = called(f"{BASE}/time/get_current_time", {"timezone": "America/New_York"})
    same("timezone", said["timezone"], "America/New_York")
    same("422 without it", ask("POST", f"{BASE}/time/get_current_time", {})[0], 422)


def disabled_tools():
    """`disabledTools` of the file."""
    paths = ask("GET", f"{BASE}/time/openapi.json")[2]["paths"]
    same("paths", list(paths), ["/get_current_time"])
    body = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Europe/Berlin"}
    same("status", ask("POST", f"{BASE}/time/convert_time", body)[0], 404)


def memory():
    """`npx -y @modelcontextprotocol/server-memory`: nested arguments and answers."""
    name = f"drop-in-{time.time_ns()}"
    entity = {"name": name, "entityType": "test", "observations": ["one", "two"]}
    called(f"{BASE}/memory/create_entities", {"entities": [entity]})
    said = called(f"{BASE}/memory/search_nodes", {"query": name})
    ensure(name in json.dumps(said) and "two" in json.dumps(said), said)


def sse():
    """A server of `type: sse` with headers."""
    ensure("by SSE" in json.dumps(called(f"{BASE}/mcp_sse/echo", {"message": "by SSE"})), "no echo")


def streamable():
    """A server of `type: streamable-http`."""
    ensure("by HTTP" in json.dumps(called(f"{BASE}/mcp_streamable_http/echo", {"message": "by HTTP"})), "no echo")


def single():
    """mcpo with one server and no name: the tools are at the base URL itself."""
    said = called(f"{SINGLE}/get_current_time", {"timezone": "UTC"})
    same("timezone", said["timezone"], "UTC")
    same("document", ask("GET", f"{SINGLE}/openapi.json")[0], 200)
    same("docs", ask("GET", f"{SINGLE}/docs")[0], 200)


def api_key():
    """`--api-key "top-secret"`: Bearer, none and a wrong one."""
    url, body = f"{BASE}/time/get_current_time", {"timezone": "UTC"}
    ensure(ask("POST", url, body, {})[0] in (401, 403), "called without a key")
    same("a wrong one", ask("POST", url, body, {"Authorization": "Bearer wrong"})[0], 403)


def key_basic():
    """The key as the password of any user."""
    basic = {"Authorization": "Basic " + base64.b64encode(b"anybody:top-secret").decode()}
    same("status", ask("POST", f"{BASE}/time/get_current_time", {"timezone": "UTC"}, basic)[0], 200)


def docs_locked():
    """`--strict-auth`: documents and pages need the key too."""
    for path in ("/openapi.json", "/docs", "/time/openapi.json", "/time/docs"):
        same(path, ask("GET", BASE + path, None, {})[0], 401)


def header_rules():
    """`client_header_forwarding`: what the whitelist names and the blacklist does not reaches the server."""
    mine = {"x-user-name": "ann", "x-user-secret": "s", "x-team": "red", "x-else": "no"}
    said = called(f"{BASE}/headers/who", {}, KEY | mine)
    same("headers", said, {"x-team": "red", "x-user-name": "ann"})
    same("of another", called(f"{BASE}/headers/who", {}, KEY | {"x-team": "blue"}), {"x-team": "blue"})


def webui_specs(url):
    """Open WebUI's tool list of a document: what it makes of operations, with references put in place."""
    status, _headers, document = ask("GET", f"{url}/openapi.json", None, KEY | {"Accept": "application/json"})
    same("status", status, 200)
    known = document.get("components", {})

    # It follows references without looking for cycles: a document that has one ends it.
    def resolve(schema):
        if not schema:
            return {}
        if "$ref" in schema:
            return resolve(known[schema["$ref"].split("/")[-2]][schema["$ref"].split("/")[-1]])
        out = dict(schema)
        if "properties" in out:
            out["properties"] = {key: resolve(value) for key, value in out["properties"].items()}
        if "items" in out:
            out["items"] = resolve(out["items"])
        return out

    specs = {}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            ensure(operation["operationId"] not in specs, f"two operations are {operation['operationId']}")
            about = operation.get("description") or operation.get("summary")
            ensure(about is not None, f"{path} is described by nothing")
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            schema = resolve(content["schema"]) if "schema" in content else {"type": "object", "properties": {}}
            specs[operation["operationId"]] = (method, path, schema)
    return specs


def webui_list():
    """Every operation of every server has a name, a description and parameters with properties."""
    for name in NAMES:
        for ident, (_method, _path, schema) in webui_specs(f"{BASE}/{name}").items():
            ensure(schema.get("type") == "object" and "properties" in schema, f"{ident}: {schema}")
            for key, value in schema["properties"].items():
                ensure({"type", "anyOf", "allOf", "oneOf", "enum", "$ref"} & set(value) or value == {}, f"{ident}.{key}: {value}")


def webui_call():
    """A call as its server sends it: by operation id, body as JSON, with who its user is."""
    method, path, _schema = webui_specs(f"{BASE}/time")["tool_get_current_time_post"]
    user = {"X-OpenWebUI-User-Name": "Ann", "X-OpenWebUI-User-Id": "1", "X-OpenWebUI-User-Role": "user"}
    status, headers, said = ask(method.upper(), f"{BASE}/time{path}", {"timezone": "UTC"}, KEY | user)
    same("status", status, 200)
    ensure(headers["Content-Type"].startswith("application/json"), headers["Content-Type"])
    same("timezone", said["timezone"], "UTC")
    status, _headers, said = ask("POST", f"{BASE}/time{path}", {"timezone": "Nowhere/At-All"}, KEY | user)
    ensure(status >= 400 and "detail" in said, f"{status} {said}")


def webui_browser():
    """Its page in a browser: the question before the request, then the request with its origin."""
    origin = {"Origin": "http://openwebui.example"}
    wants = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    for path in ("/openapi.json", "/time/openapi.json", "/time/get_current_time"):
        status, headers, _said = ask("OPTIONS", BASE + path, None, origin | wants)
        ensure(status in (200, 204), f"{path}: {status}")
        ensure(headers["Access-Control-Allow-Origin"] in ("*", origin["Origin"]), f"{path}: {headers.items()}")
        allowed = (headers["Access-Control-Allow-Headers"] or "").lower()
        ensure(allowed == "*" or all(name in allowed for name in ("authorization", "content-type")), allowed)
    status, headers, _said = ask("POST", f"{BASE}/time/get_current_time", {"timezone": "UTC"}, KEY | origin)
    same("status", status, 200)
    ensure(headers["Access-Control-Allow-Origin"] in ("*", origin["Origin"]), headers.items())


CHECKS = {
    "single": single,
    "config": config_file,
    "index": index,
    "stdio": stdio,
    "disabled": disabled_tools,
    "memory": memory,
    "sse": sse,
    "streamable": streamable,
    "key": api_key,
    "key-basic": key_basic,
    "docs-locked": docs_locked,
    "headers": header_rules,
    "webui-list": webui_list,
    "webui-call": webui_call,
    "webui-browser": webui_browser,
}


def main():
    """All of them, once the servers are up."""
    end = time.monotonic() + READY_SECS
    for name in NAMES:
        while time.monotonic() < end and not (ask("GET", f"{BASE}/{name}/openapi.json")[2] or {}).get("paths"):
            time.sleep(0.2)
    for name, run in CHECKS.items():
        try:
            run()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this check that failed
            if WHO == "mcpo" and name in EXCUSED:
                print(f"mcpo does otherwise: {name}", file=sys.stderr)
            else:
                say("FAIL", name, f"{WHO}: {reason(error)}")
        else:
            if WHO == "ours":
                say("PASS", name)
            else:
                print(f"mcpo passes {name}", file=sys.stderr)


main()
