//! Requests at the door: paths, names, headers, sessions, credentials, probes.

use crate::gateway::client::{At, LEGACY, MODERN, fixture};
use crate::gateway::wire::Ask;
use crate::support::{Daemon, Site, eventually};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

/// A daemon with one legacy server, `old`, and one modern server, `new`.
fn two(name: &str) -> (Site, Daemon, At, At) {
    let site = Site::new(name);
    site.write(&json!({ "old": fixture(&["--era", "legacy"]), "new": fixture(&["--era", "modern"]) }));
    let daemon = site.daemon();
    let (old, new) = (At::of(&site, "old"), At::of(&site, "new"));
    (site, daemon, old, new)
}

#[test]
fn r01_three_paths_are_one_endpoint_for_both_eras() {
    let (_site, _daemon, old, new) = two("gw-paths");
    for at in [old, new] {
        let mut clients = Vec::new();
        for end in ["", "/", "/mcp"] {
            let at = At { path: format!("{}{end}", at.path), ..at.clone() };
            clients.push(at.open());
            let found = at.modern("1", "server/discover", "{}", "{}").send(at.port).answer();
            assert!(found.pointer("/result/supportedVersions").is_some(), "{} {found}", at.path);
            assert_eq!(at.modern_call("echo", &json!({"message": end})), end);
        }
        // A session of one path is one of all.
        for client in &clients {
            for end in ["", "/", "/mcp"] {
                let mut other = client.clone();
                other.at.path = format!("{}{end}", at.path);
                assert_eq!(other.call("echo", &json!({"message": "x"})), "x", "{}", other.at.path);
            }
        }
        for path in ["/", "/mcp", "/mcp/", "/mcp/other", &format!("{}/else", at.path)] {
            let at = At { path: path.to_owned(), ..at.clone() };
            assert_eq!(at.greet(LEGACY, &json!({})).status, 404, "{path}");
        }
    }
}

#[test]
fn r05_foreign_host_and_origin_get_403_and_probes_none() {
    let (_site, _daemon, old, _new) = two("gw-names");
    old.open();
    let with = |header: (&str, &str)| old.post("{}").with(header.0, header.1).send(old.port).status;
    for header in [
        ("Host", "evil.example"),
        ("Host", "10.1.2.3:8000"),
        ("Origin", "http://evil.example"),
        ("Origin", "null"),
    ] {
        assert_eq!(with(header), 403, "{header:?}");
        let get = Ask::events(&old.path).with(header.0, header.1).send(old.port);
        assert_eq!(get.status, 403, "{header:?}");
    }
    // Let in, and then refused for what it says.
    for header in [("Host", "localhost"), ("Origin", "http://localhost:3000")] {
        assert_eq!(with(header), 400, "{header:?}");
    }
    let probe = Ask::new("GET", "/healthz").with("Host", "10.1.2.3").send(old.port);
    assert_eq!((probe.status, probe.body().as_str()), (200, "ok\n"));
}

#[test]
fn r06_what_is_no_request_gets_415_406_413_or_400() {
    let (_site, _daemon, old, new) = two("gw-bad");
    let client = old.open();
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let status = |ask: Ask| ask.send(old.port).status;
    assert_eq!(status(client.ask(ping)), 200);
    assert_eq!(status(client.ask(ping).with("Content-Type", "text/plain")), 415);
    assert_eq!(status(client.ask(ping).with("Content-Type", "application/json; charset=utf-8")), 200);
    for accept in ["application/json", "text/event-stream", "text/html"] {
        assert_eq!(status(client.ask(ping).with("Accept", accept)), 406, "{accept}");
    }
    // More than 4 MiB: announced, and only found out while reading.
    let announced = client.ask("").with("Content-Length", "4194305");
    assert_eq!(status(announced), 413);
    let chunked = client.ask(&format!("400001\r\n{}\r\n0\r\n\r\n", "x".repeat(0x40_0001)));
    let chunked = chunked.with("Transfer-Encoding", "chunked");
    assert_eq!(chunked.try_send(old.port).map(|reply| reply.status), Ok(413));
    let refusal = |body: &str| client.ask(body).send(old.port).refusal();
    for body in ["", "{", "{\"jsonrpc\":\"2.0\",}", "nonsense", "\"\u{1}\""] {
        assert_eq!(refusal(body), (400, -32700), "{body:?}");
    }
    for body in [
        "{}",
        "1",
        "null",
        r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":5}"#,
    ] {
        assert_eq!(refusal(body), (400, -32600), "{body}");
        assert_eq!(new.post(body).send(new.port).status, 400, "{body}");
    }
    assert_eq!(client.call("echo", &json!({"message": "still here"})), "still here");
}

#[test]
fn r06_batches_only_for_sessions_of_2025_03_26() {
    let (_site, _daemon, old, _new) = two("gw-batch");
    let batch = r#"[{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"nasty_slow","arguments":{"ms":200,"message":"A"}}},
        {"jsonrpc":"2.0","method":"notifications/roots/list_changed"},
        {"jsonrpc":"2.0","id":"b","method":"tools/call","params":{"name":"echo","arguments":{"message":"B"}}}]"#;
    let other = old.open_as(LEGACY, &json!({}));
    assert_eq!(other.ask(batch).send(old.port).refusal(), (400, -32600));
    let client = old.open_as("2025-03-26", &json!({}));
    let mut texts: Vec<(String, String)> = client
        .post(batch)
        .messages()
        .iter()
        .map(|message| serde_json::from_str::<Value>(message).expect("JSON"))
        .map(|answer| (answer["id"].to_string(), answer["result"]["content"][0]["text"].to_string()))
        .collect();
    texts.sort();
    let wanted = [("\"a\"", "\"A\""), ("\"b\"", "\"B\"")].map(|(id, text)| (id.to_owned(), text.to_owned()));
    assert_eq!(texts, wanted);
    assert_eq!(client.ask("[]").send(old.port).refusal(), (400, -32600));
}

#[test]
fn r07_sessions_are_required_known_and_of_one_server() {
    let (site, _daemon, old, new) = two("gw-sess");
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let client = old.open();
    let ask = |name: &str, value: &str| client.ask(ping).with(name, value).send(old.port).status;
    assert_eq!(old.post(ping).send(old.port).status, 400, "no session");
    assert_eq!(ask("Mcp-Session-Id", "0123456789abcdef0123456789abcdef"), 404);
    assert_eq!(ask("MCP-Protocol-Version", "1999-01-01"), 400);
    let mut bare = client.ask(ping);
    bare.headers.retain(|(name, _)| name != "MCP-Protocol-Version");
    assert_eq!(bare.send(old.port).status, 200, "no version header means 2025-03-26");
    let mut stray = client.clone();
    stray.at = new.clone();
    assert_eq!(stray.post(ping).status, 404, "a session of another server");
    assert_eq!(stray.delete(), 404);
    let second = old.open();
    assert_ne!(second.session, client.session);
    assert!(client.session.len() >= 32 && client.session.bytes().all(|byte| (0x21..=0x7e).contains(&byte)));
    assert!((200..300).contains(&client.delete()));
    assert_eq!((client.post(ping).status, client.delete()), (404, 404), "after its end");
    assert_eq!(second.post(ping).status, 200, "another's end");
    // What the state holds is no session's id.
    for (path, content) in crate::support::files_below(&site.state_dir()) {
        let found = content.windows(second.session.len()).any(|part| part == second.session.as_bytes());
        assert!(!found, "{} has the id", path.display());
    }
}

#[test]
fn r08_the_modern_era_has_no_get_no_sessions_and_exact_refusals() {
    let (_site, _daemon, old, new) = two("gw-modern");
    let session = old.open().session;
    for at in [&old, &new] {
        for method in ["GET", "DELETE", "PUT"] {
            let ask = Ask::events(&at.path).with("MCP-Protocol-Version", MODERN);
            let reply = Ask { method, ..ask }.send(at.port);
            assert_eq!((reply.status, reply.header("allow").contains("POST")), (405, true), "{method}");
        }
        let list = at.modern("7", "tools/list", "{}", "{}");
        let listed = list.clone().with("Mcp-Session-Id", &session).send(at.port);
        assert_eq!(
            (listed.status, listed.header("mcp-session-id")),
            (200, ""),
            "session headers are ignored"
        );
        let refusal = |ask: Ask| ask.send(at.port).refusal();
        assert_eq!(refusal(list.clone().with("Mcp-Method", "tools/call")), (400, -32020));
        assert_eq!(refusal(list.clone().with("MCP-Protocol-Version", LEGACY)), (400, -32020));
        let call = at.modern("7", "tools/call", r#"{"name":"echo"}"#, "{}");
        assert_eq!(refusal(call.clone().with("Mcp-Name", "other")), (400, -32020));
        let encoded = call.clone().with("Mcp-Name", "=?base64?ZWNobw==?=").send(at.port);
        assert_eq!(encoded.status, 200, "an encoded name is decoded before it is compared");
        let later = Ask { body: list.body.replace(MODERN, "2999-01-01"), ..list.clone() };
        let later = later.with("MCP-Protocol-Version", "2999-01-01");
        assert_eq!(refusal(later), (400, -32022));
        assert_eq!(refusal(at.modern("7", "no/such", "{}", "{}")), (404, -32601));
        assert_eq!(refusal(at.modern("7", "initialize", "{}", "{}")), (404, -32601));
        let bare =
            Ask { body: r#"{"jsonrpc":"2.0","id":7,"method":"tools/list","params":{}}"#.to_owned(), ..list };
        assert_eq!(refusal(bare), (400, -32602));
        let answer = at.post(r#"{"jsonrpc":"2.0","id":7,"result":{}}"#).with("MCP-Protocol-Version", MODERN);
        assert_eq!(answer.send(at.port).status, 400, "answers of clients are no messages of this era");
    }
    let needs = new.modern("7", "tools/call", r#"{"name":"test_missing_capability"}"#, "{}");
    assert_eq!(needs.send(new.port).refusal(), (400, -32021));
}

#[test]
fn health_is_200_only_while_the_server_answers() {
    let site = Site::new("gw-health");
    let quick = |era: &str| {
        let mut entry = fixture(&["--era", era]);
        entry["orchestrator"] = json!({ "health": { "interval": "1s", "timeout": "1s" } });
        entry
    };
    site.write(&json!({ "old": quick("legacy"), "new": quick("modern") }));
    let _daemon = site.daemon();
    let (old, new) = (At::of(&site, "old"), At::of(&site, "new"));
    let health = |at: &At, path: &str| Ask::new("GET", path).send(at.port).status;
    for (at, other) in [(&old, &new), (&new, &old)] {
        let client = at.open();
        other.open();
        assert_eq!((health(at, "/healthz"), health(other, "/healthz")), (200, 200));
        // It has its container, and its port is open, but nobody answers.
        client.call("nasty_stop_reading", &json!({"ms": 18_000}));
        eventually("the probe fails", 17, || (health(at, "/healthz") == 503).then_some(()));
        assert_eq!(health(other, "/healthz"), 200, "another server");
        eventually("the probe succeeds", 40, || (health(at, "/healthz") == 200).then_some(()));
        assert_eq!(client.call("echo", &json!({"message": "on"})), "on");
    }
    site.run(&["stop-server", "new"]).exits(0);
    eventually("the probe of a stopped server fails", 5, || {
        let probe = Ask::new("GET", "/healthz").try_send(new.port).map(|reply| reply.status);
        (probe != Ok(200)).then_some(())
    });
    assert_eq!(health(&old, "/healthz"), 200);
}

/// A legacy server that answers everything, and all that it was sent, heads and bodies.
fn recorder() -> (u16, Arc<Mutex<String>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let seen = Arc::new(Mutex::new(String::new()));
    let record = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let record = Arc::clone(&record);
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream);
                loop {
                    let (mut head, mut length) = (String::new(), 0);
                    while reader.read_line(&mut head).is_ok_and(|read| read > 2) {}
                    if head.is_empty() {
                        return;
                    }
                    for line in head.to_ascii_lowercase().lines() {
                        if let Some(value) = line.strip_prefix("content-length:") {
                            length = value.trim().parse().unwrap_or(0);
                        }
                    }
                    let mut body = vec![0; length];
                    if reader.read_exact(&mut body).is_err() {
                        return;
                    }
                    let body = String::from_utf8_lossy(&body).into_owned();
                    *record.lock().expect("a lock") += &format!("{head}{body}\n");
                    let (status, answer) = recorded_answer(&head, &body);
                    let answer = format!(
                        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nMcp-Session-Id: s1\r\nContent-Length: {}\r\n\r\n{answer}",
                        answer.len()
                    );
                    if reader.get_mut().write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (port, seen)
}

fn recorded_answer(head: &str, body: &str) -> (&'static str, String) {
    let message: Value = serde_json::from_str(body).unwrap_or_default();
    let id = &message["id"];
    if !head.starts_with("POST") {
        return ("405 Method Not Allowed", String::new());
    }
    if id.is_null() {
        return ("202 Accepted", String::new());
    }
    let result = match message["method"].as_str() {
        Some("initialize") => json!({"protocolVersion": LEGACY, "capabilities": {"tools": {}},
                                     "serverInfo": {"name": "recorder", "version": "1"}}),
        Some("tools/call") => json!({"content": [{"type": "text", "text": "recorded"}]}),
        Some("ping") => json!({}),
        _ => {
            let error = json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "no"}});
            return ("200 OK", error.to_string());
        }
    };
    ("200 OK", json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string())
}

#[test]
fn r22_tokens_open_the_door_and_never_reach_a_server() {
    let mut site = Site::new("gw-auth");
    let (recorder, seen) = recorder();
    std::fs::write(site.path("tokens"), "ci:s3cret-ci\nlaptop:s3cret-laptop\n").expect("a file");
    site.setting("GATEWAY__AUTH", "bearer");
    site.setting("GATEWAY__TOKENS_FILE", &site.path("tokens").display().to_string());
    site.write(&json!({
        "old": fixture(&["--era", "legacy"]),
        "away": {"type": "http", "url": format!("http://127.0.0.1:{recorder}/mcp"), "headers": {"X-Upstream-Key": "k-7"}},
    }));
    let _daemon = site.daemon();
    for server in ["old", "away"] {
        let at = At::of(&site, server);
        for auth in [
            None,
            Some("Bearer wrong"),
            Some("Bearer"),
            Some("Basic Y2k6d3Jvbmc="),
            Some("Basic bGFwdG9wOnMzY3JldC1jaQ=="),
            Some("s3cret-ci"),
        ] {
            let at = At { auth: auth.map(str::to_owned), ..at.clone() };
            let asks = [
                at.post("{}"),
                at.dress(Ask::events(&at.path)),
                at.dress(Ask::new("DELETE", &at.path)),
                at.dress(Ask::events(&format!("{}/sse", at.path))),
                at.modern("1", "server/discover", "{}", "{}"),
            ];
            for ask in asks {
                let reply = ask.send(at.port);
                let challenge = reply.header("www-authenticate").to_owned();
                assert_eq!(reply.status, 401, "{auth:?} {ask:?}");
                assert!(challenge.contains("Bearer") && challenge.contains("Basic"), "{challenge}");
            }
        }
        let known = Ask::new("GET", "/.well-known/oauth-protected-resource").send(at.port);
        assert_eq!(known.status, 404);
        known.json();
        let bearer = at.authorized("Bearer s3cret-ci").open();
        let basic = at.authorized("Basic Y2k6czNjcmV0LWNp").open();
        for client in [&bearer, &basic] {
            let text = client.call("echo", &json!({"message": "recorded"}));
            assert_eq!(text, "recorded");
        }
        assert_eq!(Ask::new("GET", "/healthz").send(at.port).status, 200, "probes bring no token");
        let mut thief = bearer.clone();
        thief.at = at.authorized("Bearer s3cret-laptop");
        assert_eq!(
            thief.post(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).status,
            404,
            "another's session"
        );
        assert_eq!(thief.delete(), 404);
        assert_eq!(bearer.call("echo", &json!({"message": "recorded"})), "recorded");
    }
    let seen = seen.lock().expect("a lock").clone();
    assert!(
        seen.contains("tools/call") && seen.to_ascii_lowercase().contains("x-upstream-key: k-7"),
        "{seen}"
    );
    for secret in ["s3cret", "Y2k6czNjcmV0LWNp", "uthorization"] {
        assert!(!seen.contains(secret), "{secret} reached the server:\n{seen}");
    }
}
