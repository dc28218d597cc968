//! The ways in over real HTTP, with a daemon, local processes and a server elsewhere: all servers as one,
//! tokens of an issuer, the tool proxy's own port encrypted, and what is noted of calls.

use crate::editing::site::{Reply, Site, eventually};
use mcp_orchestrator::mcp::base64;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const BINARY: &str = env!("CARGO_BIN_EXE_mcp-orchestrator");
/// Far beyond what any answer takes.
const LONG: Duration = Duration::from_secs(60);
/// Tools of the large server: more than one page.
const MANY: usize = 1500;

pub(crate) fn demo(more: &Value) -> Value {
    let mut entry = json!({"command": BINARY, "args": ["demo-server"]});
    for (key, value) in more.as_object().into_iter().flatten() {
        entry[key] = value.clone();
    }
    entry
}

/// Answers every request on a port of its own with what `answer` makes of its first line and body; the
/// address.
pub(crate) fn served(answer: impl Fn(&str, &Value) -> (u16, String) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream);
                loop {
                    let (mut first, mut length) = (String::new(), 0);
                    if reader.read_line(&mut first).unwrap_or(0) == 0 {
                        return;
                    }
                    loop {
                        let mut line = String::new();
                        reader.read_line(&mut line).expect("a header");
                        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
                        if name.eq_ignore_ascii_case("content-length") {
                            length = value.parse().expect("a length");
                        }
                    }
                    let mut body = vec![0; length];
                    reader.read_exact(&mut body).expect("a body");
                    let (status, text) = answer(&first, &serde_json::from_slice(&body).unwrap_or_default());
                    let head = format!(
                        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                        text.len()
                    );
                    if reader.get_mut().write_all((head + &text).as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// A legacy server with [`MANY`] tools; every other one says that it only reads.
fn large(first: &str, message: &Value) -> (u16, String) {
    if !first.starts_with("POST") {
        return (405, String::new());
    }
    let Some(id) = message.get("id") else { return (202, String::new()) };
    let result = match message["method"].as_str() {
        Some("initialize") => json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                                     "serverInfo": {"name": "large", "version": "1"}}),
        Some("tools/list") => {
            let tool = |n| {
                json!({"name": format!("t{n}"), "inputSchema": {"type": "object"},
                                  "annotations": {"readOnlyHint": n % 2 == 0}})
            };
            json!({"tools": (0..MANY).map(tool).collect::<Vec<_>>()})
        }
        Some("tools/call") => json!({"content": [{"type": "text", "text": message["params"]["name"]}]}),
        Some("ping") => json!({}),
        _ => {
            let error = json!({"code": -32601, "message": "no"});
            return (200, json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string());
        }
    };
    (200, json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string())
}

/// A client of one endpoint.
pub(crate) struct Client {
    pub(crate) port: u16,
    pub(crate) path: &'static str,
    pub(crate) auth: String,
    pub(crate) session: String,
}

fn connected(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    stream.set_read_timeout(Some(LONG)).expect("a timeout");
    stream
}

impl Client {
    pub(crate) fn open(port: u16, path: &'static str, auth: &str) -> Self {
        Self::open_as("2025-11-25", port, path, auth)
    }

    pub(crate) fn open_as(version: &str, port: u16, path: &'static str, auth: &str) -> Self {
        let mut client = Self { port, path, auth: auth.to_owned(), session: String::new() };
        let params = json!({"protocolVersion": version, "capabilities": {},
                            "clientInfo": {"name": "doors", "version": "1"}});
        let reply =
            client.post(&json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}));
        assert_eq!(reply.status, 200, "{}", reply.body);
        client.session = reply.header("mcp-session-id").to_owned();
        client.post(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        client
    }

    fn head(&self, method: &str) -> String {
        let mut head = format!("{method} {} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n", self.path);
        head += "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n";
        for (name, value) in [("Authorization", &self.auth), ("Mcp-Session-Id", &self.session)] {
            if !value.is_empty() {
                head += &format!("{name}: {value}\r\n");
            }
        }
        head
    }

    pub(crate) fn post(&self, message: &Value) -> Reply {
        let (mut stream, body) = (connected(self.port), message.to_string());
        let head = format!("{}Content-Length: {}\r\n\r\n{body}", self.head("POST"), body.len());
        stream.write_all(head.as_bytes()).expect("written");
        Reply::read(stream)
    }

    fn request(&self, id: u64, method: &str, params: &Value) -> Value {
        let reply = self.post(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        let data =
            reply.body.lines().rev().find_map(|line| line.strip_prefix("data: ").filter(|d| !d.is_empty()));
        let text = data.unwrap_or(&reply.body);
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {} {text}", reply.status))
    }

    /// The text of a tool's answer, or its error.
    pub(crate) fn call(&self, tool: &str, arguments: &Value) -> Result<String, String> {
        let answer = self.request(7, "tools/call", &json!({"name": tool, "arguments": arguments}));
        let text = answer.pointer("/result/content/0/text").and_then(Value::as_str);
        text.map(str::to_owned).ok_or_else(|| answer["error"]["message"].to_string())
    }

    /// The names of all tools, and over how many pages they came.
    pub(crate) fn tools(&self) -> (BTreeSet<String>, usize) {
        let (mut names, mut pages, mut cursor) = (BTreeSet::new(), 0, Value::Null);
        loop {
            let params = if cursor.is_null() { json!({}) } else { json!({"cursor": cursor}) };
            let page = self.request(3, "tools/list", &params);
            let tools = page["result"]["tools"].as_array().unwrap_or_else(|| panic!("no page: {page}"));
            for tool in tools {
                let name = tool["name"].as_str().expect("a name").to_owned();
                assert!(names.insert(name.clone()), "{name} twice");
            }
            pages += 1;
            cursor = page["result"]["nextCursor"].clone();
            if cursor.is_null() {
                return (names, pages);
            }
        }
    }
}

fn of<'a>(names: &'a BTreeSet<String>, server: &str) -> BTreeSet<&'a str> {
    names.iter().filter_map(|name| name.strip_prefix(server)?.strip_prefix("__")).collect()
}

/// A server that says nothing for as long as its entry allows, and a call that its client takes back.
fn late_and_taken_back(all: &Client) {
    // Nothing from the server within its timeout.
    let late = all.call("c__slow", &json!({"seconds": 60, "steps": 1})).expect_err("a timeout");
    assert!(late.contains("2000 ms"), "{late}");
    // Taken back by its client.
    let cancelled = std::thread::scope(|scope| {
        let slow = || {
            all.request(
                99,
                "tools/call",
                &json!({"name": "a__slow", "arguments": {"seconds": 250, "steps": 1}}),
            )
        };
        let slow = scope.spawn(slow);
        eventually("the call is taken back", || {
            all.post(
                &json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 99}}),
            );
            slow.is_finished()
        });
        slow.join().expect("an answer")
    });
    assert!(cancelled.get("error").is_some(), "{cancelled}");
}

#[test]
fn all_servers_are_one_over_the_wire_and_one_that_goes_takes_only_its_own_tools() {
    let remote = format!("http://{}/mcp", served(large));
    let tools = json!({"rename": {"echo": "say"}, "deny": ["fail", "look*"]});
    let servers = json!({"orchestrator": {"sections": {"ops": {}}}, "mcpServers": {
        "a": demo(&json!({})),
        "b": demo(&json!({"orchestrator": {"section": "ops", "tools": tools}})),
        "c": demo(&json!({"timeout": 2, "orchestrator": {"section": "ops"}})),
        "big": {"type": "http", "url": remote, "orchestrator": {"tools": {"readOnly": true}}},
    }});
    let site = Site::new(&servers.to_string());
    let _daemon = site.start(&[]);
    let all = Client::open(site.main(), "/mcp", "");
    eventually("all servers are listed", || {
        let names = all.tools().0;
        ["a", "b", "c", "big"].iter().all(|server| !of(&names, server).is_empty())
    });
    let (names, pages) = all.tools();
    assert_eq!(of(&names, "a"), BTreeSet::from(["time", "echo", "add", "slow", "lookup", "fail"]));
    assert_eq!(of(&names, "b"), BTreeSet::from(["time", "say", "add", "slow"]), "renamed and left out");
    assert_eq!((of(&names, "big").len(), pages), (MANY / 2, 1), "those that only read");
    assert!(of(&names, "big").contains("t0") && !of(&names, "big").contains("t1"));
    let ops = Client::open(site.main(), "/mcp/~ops", "");
    let in_section: BTreeSet<String> = ops.tools().0;
    assert!(in_section.iter().all(|name| name.starts_with("b__") || name.starts_with("c__")));
    assert!(ops.call("a__echo", &json!({"text": "x"})).is_err(), "of another section");
    for (tool, arguments, text) in [
        ("a__echo", json!({"text": "one"}), "one"),
        ("b__say", json!({"text": "two"}), "two"),
        ("big__t8", json!({}), "t8"),
    ] {
        assert_eq!(all.call(tool, &arguments).as_deref(), Ok(text));
    }
    for tool in ["b__echo", "b__fail", "big__t1", "nobody__x", "echo"] {
        assert!(all.call(tool, &json!({"text": "x"})).is_err(), "{tool}");
    }
    late_and_taken_back(&all);
    // One goes: who listens is told, and the others stay.
    let mut stream = connected(site.main());
    stream.write_all((all.head("GET") + "\r\n").as_bytes()).expect("written");
    let mut events = BufReader::new(stream).lines();
    assert!(site.command(&["stop-server", "a"]).status().expect("the program").success());
    let told = events.find_map(|line| {
        let line = line.expect("an event");
        line.strip_prefix("data: ").filter(|data| data.contains("tools/list_changed")).map(str::to_owned)
    });
    assert!(told.is_some(), "the stream ended");
    eventually("its tools are gone", || of(&all.tools().0, "a").is_empty());
    let after = all.tools().0;
    assert_eq!((of(&after, "b"), of(&after, "big")), (of(&names, "b"), of(&names, "big")));
    assert!(all.call("a__echo", &json!({"text": "x"})).is_err());
    assert_eq!(all.call("b__say", &json!({"text": "still"})).as_deref(), Ok("still"));
}

#[test]
fn a_list_that_is_longer_than_a_page_comes_whole() {
    let remote = format!("http://{}/mcp", served(large));
    let servers = json!({"mcpServers": {"big": {"type": "http", "url": remote}, "a": demo(&json!({}))}});
    let site = Site::new(&servers.to_string());
    let _daemon = site.start(&[]);
    let all = Client::open(site.main(), "/mcp", "");
    eventually("all is listed, in pages", || all.tools().0.len() == MANY + 6);
    assert_eq!(all.tools().1, 2);
}

fn url_safe(bytes: &[u8]) -> String {
    base64::encode(bytes).replace('+', "-").replace('/', "_").trim_end_matches('=').to_owned()
}

fn token(key: &Ed25519KeyPair, claims: &Value) -> String {
    let header = json!({"alg": "EdDSA", "kid": "k"}).to_string();
    let message = format!("{}.{}", url_safe(header.as_bytes()), url_safe(claims.to_string().as_bytes()));
    format!("{message}.{}", url_safe(key.sign(message.as_bytes()).as_ref()))
}

#[test]
fn tokens_of_an_issuer_open_the_door_of_a_daemon_that_began_without_it_and_calls_are_noted() {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
    let key = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("a key");
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": url_safe(key.public_key().as_ref())});
    let up = Arc::new(AtomicBool::new(false));
    let is_up = Arc::clone(&up);
    let address = served(move |_, _| match is_up.load(Ordering::Relaxed) {
        true => (200, json!({"keys": [jwk]}).to_string()),
        false => (503, String::new()),
    });
    let issuer = format!("http://{address}");
    let site = Site::new(&json!({"mcpServers": {"a": demo(&json!({})), "b": demo(&json!({}))}}).to_string());
    let _daemon = site.start(&[
        ("MCP_ORCHESTRATOR__GATEWAY__AUTH", "jwt"),
        ("MCP_ORCHESTRATOR__JWT__ISSUER", &issuer),
        ("MCP_ORCHESTRATOR__JWT__JWKS_URL", &format!("{issuer}/keys")),
        ("MCP_ORCHESTRATOR__JWT__AUDIENCE", "mcp"),
    ]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    let claims = |scope: &str| json!({"iss": issuer, "aud": "mcp", "sub": "alice", "azp": "cli", "exp": now + 600, "scope": scope});
    let auth = format!("Bearer {}", token(&key, &claims("mcp:server:a")));
    let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize",
                       "params": {"protocolVersion": "2025-11-25", "capabilities": {}}});
    let ask = |path: &'static str, auth: &str| {
        Client { port: site.main(), path, auth: auth.to_owned(), session: String::new() }.post(&hello)
    };
    let without = ask("/mcp/a", &auth);
    let code = without.json()["code"].clone();
    assert_eq!((without.status, code.as_str()), (503, Some("MCPO-G080")), "{}", without.body);
    assert_eq!(ask("/mcp/a", "").status, 401);
    up.store(true, Ordering::Relaxed);
    eventually("the keys are there", || ask("/mcp/a", &auth).status == 200);
    assert_eq!(ask("/mcp/b", &auth).status, 403);
    assert!(ask("/mcp/a", "").header("www-authenticate").contains("resource_metadata="));
    let client = Client::open(site.main(), "/mcp/a", &auth);
    let secret = "arguments are not for the audit";
    assert_eq!(client.call("echo", &json!({"text": secret})).as_deref(), Ok(secret));
    let _failed = client.call("fail", &json!({}));
    let lines = || {
        let output = site
            .command(&["audit", "--calls", "--json", "--by", "alice (cli)"])
            .output()
            .expect("the program");
        let text = String::from_utf8(output.stdout).expect("text");
        assert!(!text.contains(secret), "{text}");
        serde_json::from_str::<Value>(&text).expect("JSON")["audit"].as_array().cloned().unwrap_or_default()
    };
    // Whose token it is can be told also when it is over, and nothing of it where nobody signed it.
    let mut over = claims("mcp:server:a");
    over["exp"] = json!(now - 7200);
    assert_eq!(ask("/mcp/a", &format!("Bearer {}", token(&key, &over))).status, 401);
    let signed = auth.rsplit_once('.').expect("parts").0;
    assert_eq!(ask("/mcp/a", &format!("{signed}.AAAA")).status, 401);
    eventually("both calls are noted, and who was refused", || lines().len() == 4);
    let noted = lines();
    assert_eq!(refusals(&noted), [("request", "a", "mcp"), ("request", "b", "mcp")], "newest first");
    let echo = noted.iter().find(|line| line["what"] == "call echo").expect("a call");
    assert_eq!(
        (&echo["server"], &echo["via"], &echo["result"], &echo["request"]),
        (&json!("a"), &json!("mcp"), &json!("ok"), &json!("7"))
    );
    lists_are_apart(&site);
    // Nothing of the token is left anywhere.
    let signature = auth.rsplit('.').next().expect("a signature").to_owned();
    for file in ["log", "state"] {
        assert!(!holds(&site.path(file), signature.as_bytes()), "{file} has the token");
    }
}

/// Calls stand in a list of their own, which fits a terminal.
fn lists_are_apart(site: &Site) {
    let table = site.command(&["audit", "--calls"]).output().expect("the program").stdout;
    let table = String::from_utf8(table).expect("text");
    assert!(table.contains("call echo") && table.lines().all(|line| line.chars().count() <= 80), "{table}");
    let done = site.command(&["audit", "--json"]).output().expect("the program").stdout;
    assert!(!String::from_utf8(done).expect("text").contains("call echo"), "a list of its own");
}

/// What was refused of these lines, where, by which door.
fn refusals(lines: &[Value]) -> Vec<(&str, &str, &str)> {
    let refused = lines.iter().filter(|line| line["result"] == "refused");
    refused.map(|line| (word(&line["what"]), word(&line["server"]), word(&line["via"]))).collect()
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

#[test]
fn who_is_known_and_refused_is_noted() {
    let limited = demo(&json!({"orchestrator": {"rateLimit": {"requests": 2, "per": "1h"}}}));
    let site = Site::new(&json!({"mcpServers": {"a": limited, "b": demo(&json!({}))}}).to_string());
    let tokens = "ci:alpha servers=a tools=a/echo\nlate:beta expires=2001-01-01\n";
    std::fs::write(site.path("tokens"), tokens).expect("a file");
    let file = site.path("tokens").display().to_string();
    let _daemon = site.start(&[
        ("MCP_ORCHESTRATOR__GATEWAY__AUTH", "bearer"),
        ("MCP_ORCHESTRATOR__GATEWAY__TOKENS_FILE", &file),
    ]);
    let (ci, main) = ("Bearer alpha", site.main());
    let openapi = |path: &'static str| {
        let client = Client { port: main, path, auth: ci.to_owned(), session: String::new() };
        client.post(&json!({"text": "x"})).status
    };
    eventually("the server answers", || openapi("/openapi/a/nothing") == 404);
    let own = Client::open(main, "/mcp/a", ci);
    assert_eq!(own.call("echo", &json!({"text": "one"})).as_deref(), Ok("one"));
    assert_eq!(openapi("/openapi/a/echo"), 200);
    // Too often, by two doors; not granted, by each; not good any more; unknown.
    assert!(own.call("echo", &json!({"text": "three"})).is_err());
    assert_eq!(openapi("/openapi/a/echo"), 429);
    assert!(own.call("fail", &json!({})).is_err());
    assert!(Client::open(main, "/mcp", ci).call("b__echo", &json!({"text": "x"})).is_err());
    assert_eq!((openapi("/openapi/a/fail"), openapi("/openapi/b/echo")), (404, 404));
    let ask = |path: &'static str, auth: &str| {
        let client = Client { port: main, path, auth: auth.to_owned(), session: String::new() };
        client.post(&json!({"jsonrpc": "2.0", "id": 1, "method": "ping"})).status
    };
    assert_eq!(
        (ask("/mcp/b", ci), ask("/mcp/a", "Bearer beta"), ask("/mcp/a", "Bearer gamma")),
        (403, 401, 401)
    );
    let lines = || {
        let output = site.command(&["audit", "--calls", "--json"]).output().expect("the program");
        let all = serde_json::from_slice::<Value>(&output.stdout).expect("JSON")["audit"].clone();
        let all = all.as_array().cloned().unwrap_or_default();
        let row = |line: &Value| {
            ["by", "via", "server", "what", "result"].map(|key| line[key].as_str().unwrap_or("-").to_owned())
        };
        let mut rows: Vec<_> = all.iter().map(row).collect();
        rows.sort();
        rows
    };
    let mut want = [
        ["ci", "mcp", "a", "call echo", "ok"],
        ["ci", "openapi", "a", "call echo", "ok"],
        ["ci", "mcp", "a", "call echo", "refused"],
        ["ci", "openapi", "a", "call echo", "refused"],
        ["ci", "mcp", "a", "call fail", "refused"],
        ["ci", "all", "b", "call echo", "refused"],
        ["ci", "openapi", "a", "call fail", "refused"],
        ["ci", "openapi", "b", "call echo", "refused"],
        ["ci", "mcp", "b", "request", "refused"],
        ["late", "mcp", "a", "request", "refused"],
    ]
    .map(|row| row.map(str::to_owned));
    want.sort();
    eventually("all are noted", || lines().len() >= want.len());
    assert_eq!(lines(), want);
}

/// Whether a file, or one below a folder, has these bytes in it.
fn holds(path: &std::path::Path, bytes: &[u8]) -> bool {
    if path.is_dir() {
        let entries = std::fs::read_dir(path).expect("a folder");
        return entries.flatten().any(|entry| holds(&entry.path(), bytes));
    }
    std::fs::read(path).unwrap_or_default().windows(bytes.len()).any(|part| part == bytes)
}

#[test]
fn the_tool_proxys_own_port_is_encrypted_as_the_main_one_is() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let site = Site::new(&json!({"mcpServers": {"a": demo(&json!({}))}}).to_string());
    std::fs::write(site.path("cert.pem"), made.cert.pem()).expect("a file");
    std::fs::write(site.path("key.pem"), made.signing_key.serialize_pem()).expect("a file");
    let path = |name: &str| site.path(name).display().to_string();
    let mut command = site.command(&["run"]);
    command.envs([
        ("MCP_ORCHESTRATOR__OPENAPI__PORT", site.spare().to_string()),
        ("MCP_ORCHESTRATOR__OPENAPI__API_KEY", "k".to_owned()),
        ("MCP_ORCHESTRATOR__TLS__CERT_FILE", path("cert.pem")),
        ("MCP_ORCHESTRATOR__TLS__KEY_FILE", path("key.pem")),
    ]);
    let log = std::fs::File::create(site.path("log")).expect("a log");
    command.stdout(log.try_clone().expect("a log")).stderr(log);
    let mut daemon = command.spawn().expect("the program");
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions");
    let config = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
    let ask = |port: u16| -> Option<String> {
        let name = ServerName::try_from("localhost").expect("a name");
        let session = ClientConnection::new(Arc::clone(&config), name).expect("a session");
        let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(LONG)).expect("a timeout");
        let mut stream = StreamOwned::new(session, stream);
        let path = if port == site.spare() { "/a/echo" } else { "/openapi/a/echo" };
        let body = r#"{"text":"over TLS"}"#;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer k\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).ok()?;
        let mut text = String::new();
        // A close without a last word of TLS is an end all the same.
        let _end = stream.read_to_string(&mut text);
        text.contains("over TLS").then_some(text)
    };
    eventually("both ports answer over TLS", || ask(site.spare()).is_some() && ask(site.main()).is_some());
    let mut plain = connected(site.spare());
    plain.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("written");
    assert_eq!(Reply::read(plain).status, 400, "plain HTTP is told what is spoken here");
    let _gone = daemon.kill();
    let _gone = daemon.wait();
}
