//! Headers of clients on their way to a server elsewhere, over real HTTP to that server.

use crate::gateway::Gateway;
use crate::gateway::front::GatewayFront;
use crate::gateway::guard::key::Key;
use crate::gateway::guard::names::Names;
use crate::gateway::guard::tokens::TokenSet;
use crate::gateway::guard::{Auth, Guard, Policy};
use crate::gateway::http::{Addresses, Entry, Front as _, Request};
use crate::gateway::places::{Offer, Opened, Opener, Place, Source};
use crate::gateway::played::{Act, RETRY, Stage, id, place, shared};
use crate::gateway::slot::Shared;
use crate::gateway::toolproxy::ToolProxy;
use crate::model::fingerprint::{Fingerprint, HashKey};
use crate::model::id::ServerId;
use crate::model::server::{RemoteDecl, RemoteKind};
use crate::upstream::remote::connect_any;
use crate::world::Answer;
use crate::world::fake::FakeSessions;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Opens servers elsewhere as the daemon does.
struct Real;

impl Opener for Real {
    fn shared<'a>(&'a self, _server: &'a ServerId, place: &'a Place) -> Answer<'a, Opened> {
        Box::pin(async move {
            let Source::Remote(decl) = &place.source else { panic!("a server elsewhere") };
            Ok(Opened { io: connect_any(decl)?, keeper: None, fresh: true })
        })
    }

    fn dedicated<'a>(&'a self, server: &'a ServerId, place: &'a Place) -> Answer<'a, Opened> {
        self.shared(server, place)
    }

    fn renew<'a>(&'a self, _server: &'a ServerId, _place: &'a Place) -> Answer<'a, ()> {
        Box::pin(async { Ok(()) })
    }
}

/// A legacy server whose tool `who` tells the headers that its call came with, and how many sessions
/// were begun with it.
async fn upstream() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let sessions = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sessions);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(converse(stream, Arc::clone(&counted)));
        }
    });
    (url, sessions)
}

async fn converse(stream: TcpStream, sessions: Arc<AtomicUsize>) {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut first, mut headers) = (String::new(), BTreeMap::new());
        if reader.read_line(&mut first).await.unwrap_or(0) == 0 {
            return;
        }
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).await.unwrap();
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        reader.read_exact(&mut body).await.unwrap();
        let message: Value = serde_json::from_slice(&body).unwrap_or_default();
        let result = match message["method"].as_str() {
            Some("initialize") => {
                sessions.fetch_add(1, Ordering::Relaxed);
                json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                       "serverInfo": {"name": "who", "version": "1"}})
            }
            Some("tools/list") => json!({"tools": [{"name": "who", "inputSchema": {"type": "object"}}]}),
            Some("tools/call") => {
                headers
                    .retain(|name, _| name.starts_with("x-") || name == "authorization" || name == "cookie");
                json!({"content": [{"type": "text", "text": json!(headers).to_string()}]})
            }
            _ => json!({}),
        };
        let (status, text) = match (first.starts_with("POST"), message.get("id")) {
            (true, Some(id)) if message["method"] == "server/discover" => {
                let error = json!({"code": -32601, "message": "no such method"});
                ("200 OK", json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string())
            }
            (true, Some(id)) => ("200 OK", json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string()),
            (true, None) => ("202 Accepted", String::new()),
            (false, _) => ("405 Method Not Allowed", String::new()),
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nMcp-Session-Id: s\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        );
        if reader.get_mut().write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

struct World {
    front: Arc<GatewayFront>,
    sessions: Arc<AtomicUsize>,
}

/// A request's headers.
type Headers<'a> = &'a [(&'a str, &'a str)];

async fn world(names: &[&str], auth: Auth, key: Option<&str>) -> World {
    let (url, sessions) = upstream().await;
    let (stage, _) = Stage::new(&[], Act::Refuse);
    let shared = Shared { opener: Arc::new(Real), ..shared(&stage) };
    let gateway = Gateway::new(shared, Arc::new(FakeSessions::default()), [7; 32]);
    let decl = RemoteDecl {
        url,
        kind: Some(RemoteKind::Http),
        headers: BTreeMap::from([
            ("X-User".to_owned(), "nobody".to_owned()),
            ("X-Own".to_owned(), "entry".to_owned()),
        ]),
        fingerprint: Fingerprint::new(&HashKey::new([0; 32]), "who", ""),
    };
    let forward_headers = names.iter().map(|name| (*name).to_owned()).collect();
    let offer = Arc::new(Offer { forward_headers, ..Offer::default() });
    let place = Place { source: Source::Remote(Box::new(decl)), offer, ..(*place("a", RETRY)).clone() };
    gateway.set_places(&[(id("who"), Arc::new(place))].into_iter().collect());
    let front = GatewayFront {
        gateway,
        guard: Arc::new(Guard::new(Policy { names: Names::default(), auth })),
        tools: Arc::new(ToolProxy::new(key.and_then(Key::new))),
        beside: OnceLock::new(),
        tls: Arc::default(),
    };
    World { front: Arc::new(front), sessions }
}

impl World {
    async fn ask(&self, path: &str, headers: Headers<'_>, body: &Value) -> (u16, String, Value) {
        let mut head = hyper::Request::post(path).header("host", "localhost");
        head = head.header("content-type", "application/json");
        if !headers.iter().any(|(name, _)| *name == "accept") {
            head = head.header("accept", "application/json, text/event-stream");
        }
        for (name, value) in headers {
            head = head.header(*name, *value);
        }
        let addresses =
            Addresses { peer: "127.0.0.1:4000".parse().unwrap(), local: "127.0.0.1:5000".parse().unwrap() };
        let mut request = Request::new(head.body(()).unwrap(), Arc::new(Entry::Main), addresses).unwrap();
        let answer = match self.front.admit(&mut request) {
            Ok(pass) => {
                request.body = body.to_string().into();
                Arc::clone(&self.front).handle(request, pass).await
            }
            Err(refused) => *refused,
        };
        let session = answer.headers().get("mcp-session-id").map(|id| id.to_str().unwrap().to_owned());
        let status = answer.status().as_u16();
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        (status, session.unwrap_or_default(), serde_json::from_slice(&text).unwrap_or_default())
    }

    async fn open(&self, path: &str, headers: Headers<'_>) -> String {
        let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}});
        let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params});
        let (status, session, body) = self.ask(path, headers, &hello).await;
        assert_eq!(status, 200, "{body}");
        session
    }

    /// What the server got with a call in a session.
    async fn call(&self, path: &str, session: &str, headers: Headers<'_>) -> Result<Value, u16> {
        let name = if path == "/mcp" { "who__who" } else { "who" };
        let call = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": name}});
        let all = [headers, &[("mcp-session-id", session)]].concat();
        let (status, _, body) = self.ask(path, &all, &call).await;
        if status == 200 { Ok(told(&body["result"])) } else { Err(status) }
    }
}

fn told(result: &Value) -> Value {
    let text = result["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{result}"));
    serde_json::from_str(text).unwrap()
}

const ANN: Headers<'static> = &[("x-user", "ann"), ("x-other", "1"), ("cookie", "c=1")];
const BOB: Headers<'static> = &[("X-User", "bob")];

#[tokio::test]
async fn each_set_of_values_has_sessions_and_connections_of_its_own() {
    let world = world(&["x-user"], Auth::None, None).await;
    for path in ["/mcp/who", "/mcp"] {
        let (ann, bob, none) =
            (world.open(path, ANN).await, world.open(path, BOB).await, world.open(path, &[]).await);
        for _ in 0..2 {
            let got = world.call(path, &ann, ANN).await.unwrap();
            assert_eq!(got, json!({"x-user": "ann", "x-own": "entry"}), "what is named, and no more");
            assert_eq!(world.call(path, &bob, BOB).await.unwrap()["x-user"], "bob");
            assert_eq!(world.call(path, &none, &[]).await.unwrap()["x-user"], "nobody", "the entry's own");
        }
        for (session, headers) in [(&ann, BOB), (&ann, &[][..]), (&none, ANN), (&bob, ANN)] {
            assert_eq!(world.call(path, session, headers).await, Err(404), "{path} {headers:?}");
        }
    }
    assert_eq!(world.sessions.load(Ordering::Relaxed), 3, "as many connections as sets of values");
}

#[tokio::test]
async fn requests_without_a_session_and_tools_over_http_carry_them_too() {
    let world = Arc::new(world(&["x-user"], Auth::None, None).await);
    let modern = |user: &'static str| {
        let world = Arc::clone(&world);
        async move {
            let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
                              "io.modelcontextprotocol/clientCapabilities": {}});
            let call = json!({"jsonrpc": "2.0", "id": 5, "method": "tools/call",
                              "params": {"name": "who", "arguments": {}, "_meta": meta}});
            let headers = [
                ("x-user", user),
                ("mcp-protocol-version", "2026-07-28"),
                ("mcp-method", "tools/call"),
                ("mcp-name", "who"),
            ];
            let (status, _, body) = world.ask("/mcp/who", &headers, &call).await;
            assert_eq!(status, 200, "{body}");
            assert_eq!(told(&body["result"])["x-user"], user);
            let headers = [("x-user", user), ("accept", "application/json")];
            let (status, _, body) = world.ask("/openapi/who/who", &headers, &json!({})).await;
            assert_eq!((status, &body["x-user"]), (200, &json!(user)));
        }
    };
    let users: Vec<&'static str> = vec!["ann", "bob", "cid", "dan"];
    let all = users.iter().cycle().take(40).map(|user| modern(user));
    futures_util::future::join_all(all).await;
    assert_eq!(world.sessions.load(Ordering::Relaxed), 5, "four users and the shared one");
}

#[tokio::test]
async fn credentials_are_forwarded_only_where_named_and_never_when_they_are_ours() {
    let auth: Headers<'_> = &[("authorization", "Bearer theirs")];
    let got = |world: World, headers: Headers<'static>| async move {
        let session = world.open("/mcp/who", headers).await;
        world.call("/mcp/who", &session, headers).await.unwrap()
    };
    let named = got(world(&["authorization"], Auth::None, None).await, auth).await;
    assert_eq!(named["authorization"], "Bearer theirs");
    let unnamed = got(world(&["x-user"], Auth::None, None).await, auth).await;
    assert!(unnamed.get("authorization").is_none(), "{unnamed}");
    let tokens = Auth::Tokens(TokenSet::parse("ci:ours").unwrap());
    let ours: Headers<'_> = &[("authorization", "Bearer ours")];
    let admitted = got(world(&["authorization"], tokens, None).await, ours).await;
    assert!(admitted.get("authorization").is_none(), "{admitted}");
    let keyed = world(&["authorization"], Auth::None, Some("key")).await;
    let headers: Headers<'_> = &[("authorization", "Bearer key"), ("accept", "application/json")];
    let (status, _, body) = keyed.ask("/openapi/who/who", headers, &json!({})).await;
    assert_eq!(status, 200);
    assert!(body.get("authorization").is_none(), "{body}");
}
