//! Streamable HTTP and HTTP+SSE against scripted servers on the loopback.

use crate::model::server::RemoteKind;
use crate::upstream::endpoint::Remote;
use crate::upstream::exchange::RESUMES_MAX;
use crate::upstream::http::{IN_FLIGHT_MAX, connect};
use crate::upstream::leg::LegIo;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

/// Far beyond what anything here takes, so that what never comes fails instead of hanging.
const LONG: Duration = Duration::from_secs(30);

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A request at the server, waiting for the test's answer; without one its connection is cut.
struct Asked {
    method: String,
    path: String,
    headers: HeaderMap,
    body: Bytes,
    reply: oneshot::Sender<Response<Body>>,
}

/// The server's side of one stream of events.
struct Feed(mpsc::Sender<String>);

impl Feed {
    async fn say(&self, event: &str) {
        self.0.send(format!("{event}\n\n")).await.expect("somebody listens");
    }

    async fn data(&self, message: &Value) {
        self.say(&format!("data: {message}")).await;
    }
}

impl Asked {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("ascii"))
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("json")
    }

    fn with(self, status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let body = Full::new(body.into()).boxed_unsync();
        let _gone = self.reply.send(response.body(body).expect("a response"));
    }

    fn result(self, result: Value) {
        let answer = json!({"jsonrpc": "2.0", "id": self.json()["id"], "result": result});
        self.with(200, &[("content-type", "application/json; charset=utf-8")], answer.to_string());
    }

    fn events(self) -> Feed {
        let (feed, events) = mpsc::channel::<String>(4);
        let frames = stream::unfold(events, |mut events| async move {
            let text = events.recv().await?;
            Some((Ok::<_, Infallible>(Frame::data(Bytes::from(text))), events))
        });
        let response = Response::builder().header("content-type", "text/event-stream");
        let body = StreamBody::new(frames).boxed_unsync();
        let _gone = self.reply.send(response.body(body).expect("a response"));
        Feed(feed)
    }
}

/// A server whose every answer the test gives.
struct Server {
    address: String,
    asked: mpsc::Receiver<Asked>,
}

impl Server {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let (tell, asked) = mpsc::channel(IN_FLIGHT_MAX * 2);
        tokio::spawn(async move {
            while let Ok((stream, _peer)) = listener.accept().await {
                let tell = tell.clone();
                let service = service_fn(move |request| serve(request, tell.clone()));
                let served = hyper::server::conn::http1::Builder::new();
                tokio::spawn(served.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, asked }
    }

    fn remote(&self, kind: Option<RemoteKind>) -> Remote {
        Remote {
            url: format!("http://us:SECRET@{}/mcp?key=SECRET", self.address),
            headers: BTreeMap::from([("X-Key".to_owned(), "SECRET".to_owned())]),
            kind,
            connect_timeout: LONG,
            message_bytes_max: 1024 * 1024,
        }
    }

    async fn next(&mut self) -> Asked {
        let asked = tokio::time::timeout(LONG, self.asked.recv()).await.expect("asked in time");
        asked.expect("a server")
    }

    /// The next request, which must be of `method` and, if a POST, of the JSON-RPC method `what`.
    async fn expect(&mut self, method: &str, what: &str) -> Asked {
        let asked = self.next().await;
        assert_eq!(asked.method, method, "{:?}", asked.body);
        if method == "POST" {
            assert_eq!(asked.json()["method"], what);
        }
        assert_eq!(asked.header("x-key"), Some("SECRET"));
        assert_eq!(asked.header("authorization"), Some("Basic dXM6U0VDUkVU"));
        asked
    }
}

async fn serve(request: Request<Incoming>, tell: mpsc::Sender<Asked>) -> io::Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let (reply, answer) = oneshot::channel();
    let (method, path) = (parts.method.to_string(), parts.uri.to_string());
    let asked = Asked { method, path, headers: parts.headers, body, reply };
    tell.send(asked).await.map_err(|_test_is_over| io::Error::other("over"))?;
    answer.await.map_err(io::Error::other)
}

/// The leg's side.
struct Client {
    said: Lines<BufReader<Box<dyn AsyncRead + Send + Unpin>>>,
    stdin: Box<dyn AsyncWrite + Send + Unpin>,
}

impl Client {
    fn new(io: LegIo) -> Self {
        Self { said: BufReader::new(io.stdout).lines(), stdin: io.stdin }
    }

    async fn write(&mut self, message: &Value) {
        self.stdin.write_all(format!("{message}\n").as_bytes()).await.expect("written");
    }

    async fn request(&mut self, id: u64, method: &str) {
        self.write(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": {}})).await;
    }

    async fn modern(&mut self, id: u64, method: &str, name: &str) {
        let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
        let params = json!({"name": name, "_meta": meta});
        self.write(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).await;
    }

    async fn notify(&mut self, method: &str, params: Value) {
        self.write(&json!({"jsonrpc": "2.0", "method": method, "params": params})).await;
    }

    /// The next line; `None` at the end of the stream.
    async fn line(&mut self) -> Option<Value> {
        let line = tokio::time::timeout(LONG, self.said.next_line()).await.expect("said in time");
        line.expect("readable").map(|line| serde_json::from_str(&line).expect("json"))
    }

    async fn hear(&mut self) -> Value {
        self.line().await.expect("a line")
    }

    /// The text of an error answer to request `id`.
    async fn error(&mut self, id: u64) -> String {
        let line = self.hear().await;
        assert_eq!((&line["id"], &line["error"]["code"]), (&json!(id), &json!(-32603)), "{line}");
        let text = line["error"]["message"].as_str().expect("words").to_owned();
        assert!(!text.contains("SECRET"), "{text}");
        text
    }
}

async fn pair(kind: Option<RemoteKind>) -> (Client, Server) {
    let server = Server::new().await;
    let io = connect(&server.remote(kind)).expect("streams");
    (Client::new(io), server)
}

/// A pair after a legacy handshake with session `s1`; the GET stream is the test's to answer.
async fn in_session() -> (Client, Server, Asked) {
    let (mut client, mut server) = pair(None).await;
    client.request(1, "initialize").await;
    let asked = server.expect("POST", "initialize").await;
    assert_eq!(asked.path, "/mcp?key=SECRET");
    assert_eq!(asked.header("accept"), Some("application/json, text/event-stream"));
    assert_eq!(asked.header("content-type"), Some("application/json"));
    assert_eq!((asked.header("mcp-session-id"), asked.header("mcp-protocol-version")), (None, None));
    let result = json!({"jsonrpc": "2.0", "id": 1, "result": {"protocolVersion": "2025-11-25"}});
    let headers = [("content-type", "application/json"), ("Mcp-Session-Id", "s1")];
    asked.with(200, &headers, format!("{result:#}"));
    assert_eq!(client.hear().await["result"]["protocolVersion"], "2025-11-25");
    client.notify("notifications/initialized", json!({})).await;
    // Nothing may overtake the end of the handshake.
    client.request(2, "tools/list").await;
    let asked = server.expect("POST", "notifications/initialized").await;
    tokio::task::yield_now().await;
    assert!(server.asked.try_recv().is_err());
    asked.with(202, &[], "");
    let (mut listen, mut list) = (server.next().await, server.next().await);
    if listen.method == "POST" {
        std::mem::swap(&mut listen, &mut list);
    }
    for asked in [&listen, &list] {
        assert_eq!(asked.header("mcp-session-id"), Some("s1"));
        assert_eq!(asked.header("mcp-protocol-version"), Some("2025-11-25"));
    }
    assert_eq!((listen.method.as_str(), listen.header("accept")), ("GET", Some("text/event-stream")));
    list.result(json!({"tools": []}));
    assert_eq!(client.hear().await["result"]["tools"], json!([]));
    (client, server, listen)
}

#[tokio::test]
async fn a_session_is_kept_and_ended() {
    let (mut client, mut server, listen) = in_session().await;
    listen.with(405, &[], "");
    // Answers come in any order, as JSON and as events.
    client.request(3, "slow").await;
    let slow = server.expect("POST", "slow").await.events();
    client.request(4, "quick").await;
    slow.data(&json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"n": 1}})).await;
    server.expect("POST", "quick").await.result(json!(4));
    let (one, other) = (client.hear().await, client.hear().await);
    assert!([&one, &other].iter().any(|line| line["result"] == 4), "{one} {other}");
    assert!([&one, &other].iter().any(|line| line["params"]["n"] == 1), "{one} {other}");
    // A request of the server is answered with a POST of its own.
    slow.data(&json!({"jsonrpc": "2.0", "id": "q", "method": "ping"})).await;
    assert_eq!(client.hear().await["id"], "q");
    client.write(&json!({"jsonrpc": "2.0", "id": "q", "result": {}})).await;
    let reply = server.next().await;
    assert_eq!((reply.json()["id"].as_str(), reply.header("mcp-session-id")), (Some("q"), Some("s1")));
    reply.with(202, &[], "");
    slow.say("event: message\ndata: {\"jsonrpc\":\"2.0\",\ndata: \"id\":3,\"result\":{\"big\":1.0}}").await;
    assert_eq!(client.hear().await, json!({"jsonrpc": "2.0", "id": 3, "result": {"big": 1.0}}));
    drop(slow);
    client.stdin.shutdown().await.expect("closed");
    server.expect("DELETE", "").await.with(204, &[], "");
    assert_eq!(client.line().await, None);
}

#[tokio::test]
async fn a_session_that_the_server_forgot_ends_the_connection() {
    for (status, body) in [
        (404, "not here"),
        (
            400,
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"Bad Request: No valid session ID provided"}}"#,
        ),
    ] {
        let (mut client, mut server, _listen) = in_session().await;
        client.request(3, "tools/list").await;
        server.expect("POST", "tools/list").await.with(status, &[], body);
        assert_eq!(client.line().await, None, "{status}");
        assert!(server.asked.try_recv().is_err(), "a forgotten session is not ended");
    }
}

#[tokio::test]
async fn the_servers_own_stream_is_listened_to_and_resumed() {
    let (mut client, mut server, listen) = in_session().await;
    let feed = listen.events();
    feed.say("id: e1\ndata:").await;
    feed.say("id: e2\nretry: 1\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"a\"}").await;
    assert_eq!(client.hear().await["method"], "a");
    drop(feed);
    let again = server.expect("GET", "").await;
    assert_eq!(again.header("last-event-id"), Some("e2"));
    let feed = again.events();
    feed.data(&json!({"jsonrpc": "2.0", "method": "b"})).await;
    assert_eq!(client.hear().await["method"], "b");
    drop(feed);
    // A stream that was there and is not found any more was that of a lost session.
    server.expect("GET", "").await.with(404, &[], "");
    assert_eq!(client.line().await, None);
}

#[tokio::test]
async fn a_broken_legacy_stream_is_resumed_up_to_its_answer() {
    let (mut client, mut server, _listen) = in_session().await;
    client.request(3, "slow").await;
    let feed = server.expect("POST", "slow").await.events();
    feed.say("id: a1\nretry: 1\ndata:").await;
    drop(feed);
    let again = server.expect("GET", "").await;
    assert_eq!((again.header("last-event-id"), again.header("mcp-session-id")), (Some("a1"), Some("s1")));
    let feed = again.events();
    feed.say("id: a2\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"n\"}").await;
    drop(feed);
    let again = server.expect("GET", "").await;
    assert_eq!(again.header("last-event-id"), Some("a2"));
    again.events().say("data: {\"jsonrpc\":\"2.0\",\"id\":3,\"result\":7}").await;
    assert_eq!(client.hear().await["method"], "n");
    assert_eq!(client.hear().await["result"], 7);
    // Without an id there is nothing to resume after; and not for ever.
    client.request(4, "slow").await;
    drop(server.expect("POST", "slow").await.events());
    assert!(client.error(4).await.contains("ended before its answer"));
    client.request(5, "slow").await;
    let feed = server.expect("POST", "slow").await.events();
    feed.say("id: a1\nretry: 1\ndata:").await;
    drop(feed);
    for _attempt in 0..RESUMES_MAX {
        drop(server.expect("GET", "").await.events());
    }
    assert!(client.error(5).await.contains("ended before its answer"));
}

#[tokio::test]
async fn a_modern_message_says_in_headers_what_it_is() {
    let (mut client, mut server) = pair(None).await;
    client.modern(1, "server/discover", "").await;
    let asked = server.expect("POST", "server/discover").await;
    assert_eq!(asked.header("mcp-protocol-version"), Some("2026-07-28"));
    assert_eq!((asked.header("mcp-method"), asked.header("mcp-name")), (Some("server/discover"), None));
    asked.result(json!({"supportedVersions": ["2026-07-28"]}));
    client.hear().await;
    client.modern(2, "tools/call", "grüße").await;
    let asked = server.expect("POST", "tools/call").await;
    assert_eq!(asked.header("mcp-name"), Some("=?base64?Z3LDvMOfZQ==?="));
    assert_eq!(asked.header("mcp-session-id"), None);
    // A status beside an answer changes nothing; a missing id is the request's.
    asked.with(400, &[], r#"{"jsonrpc":"2.0","error":{"code":-32020,"message":"m"},"id":null}"#);
    let line = client.hear().await;
    assert_eq!((&line["id"], &line["error"]["code"]), (&json!(2), &json!(-32020)));
    client.modern(3, "no/such", "").await;
    let body = r#"{"jsonrpc":"2.0","id":3,"error":{"code":-32601,"message":"m"}}"#;
    server.expect("POST", "no/such").await.with(404, &[], body);
    assert_eq!(client.hear().await["error"]["code"], -32601);
    // What a tool's schema asks for goes along.
    client.modern(5, "tools/list", "").await;
    let annotated = json!({"type": "string", "x-mcp-header": "Region"});
    let wrong = json!({"type": "number", "x-mcp-header": "N"});
    let tools = json!([
        {"name": "a", "inputSchema": {"properties": {"region": annotated}}},
        {"name": "b", "inputSchema": {"properties": {"n": wrong}}},
    ]);
    server.expect("POST", "tools/list").await.result(json!({"tools": tools}));
    assert_eq!(client.hear().await["result"]["tools"], json!([tools[0]]));
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
    let params = json!({"name": "a", "arguments": {"region": "west"}, "_meta": meta});
    client.write(&json!({"jsonrpc": "2.0", "id": 6, "method": "tools/call", "params": params})).await;
    let asked = server.expect("POST", "tools/call").await;
    assert_eq!(asked.header("mcp-param-region"), Some("west"));
    asked.result(json!({}));
    client.hear().await;
    // A broken stream is not resumed.
    client.modern(4, "tools/call", "a").await;
    let feed = server.expect("POST", "tools/call").await.events();
    feed.say("id: 1\ndata:").await;
    drop(feed);
    assert!(client.error(4).await.contains("ended before its answer"));
}

#[tokio::test]
async fn cancelling_a_modern_request_drops_its_response() {
    let (mut client, mut server) = pair(Some(RemoteKind::Http)).await;
    client.modern(1, "tools/call", "a").await;
    let feed = server.expect("POST", "tools/call").await.events();
    feed.data(&json!({"jsonrpc": "2.0", "method": "n"})).await;
    client.hear().await;
    client.notify("notifications/cancelled", json!({"requestId": 1})).await;
    tokio::time::timeout(LONG, feed.0.closed()).await.expect("the server sees it");
    client.modern(2, "tools/list", "").await;
    server.expect("POST", "tools/list").await.result(json!({}));
    assert_eq!(client.hear().await["id"], 2);
}

#[tokio::test]
async fn cancelling_a_legacy_request_is_told() {
    let (mut client, mut server, _listen) = in_session().await;
    client.request(3, "slow").await;
    let slow = server.expect("POST", "slow").await;
    client.notify("notifications/cancelled", json!({"requestId": 3})).await;
    server.expect("POST", "notifications/cancelled").await.with(202, &[], "");
    // It may be answered nevertheless.
    slow.result(json!(1));
    assert_eq!(client.hear().await["id"], 3);
}

#[tokio::test]
async fn what_goes_wrong_is_an_answer_without_secrets() {
    let (mut client, mut server) = pair(Some(RemoteKind::Http)).await;
    for (status, headers, body, words) in [
        (503, vec![], "<html>", "HTTP status 503 Service Unavailable"),
        (401, vec![], "", "check the entry's headers"),
        (200, vec![("content-type", "application/json")], "{", "something else"),
        (
            200,
            vec![("content-type", "application/json")],
            r#"{"jsonrpc":"2.0","id":77,"result":1}"#,
            "something else",
        ),
        (202, vec![], "", "HTTP status 202"),
        (302, vec![("location", "/other")], "", "redirects with HTTP status 302"),
        (
            307,
            vec![("location", "http://evil.example/x?SECRET")],
            "",
            "http://evil.example, which is not followed",
        ),
        (404, vec![], "gone", "HTTP status 404 Not Found"),
    ] {
        client.request(1, "m").await;
        server.expect("POST", "m").await.with(status, &headers, body);
        let text = client.error(1).await;
        assert!(text.contains(words), "{text}");
    }
    client.request(1, "m").await;
    drop(server.expect("POST", "m").await);
    assert!(client.error(1).await.contains("sending a request to http://127.0.0.1"));
    let mut nobody = server.remote(None);
    nobody.url = "http://us:SECRET@127.0.0.1:1/SECRET".into();
    let mut client = Client::new(connect(&nobody).expect("streams"));
    client.request(1, "initialize").await;
    assert!(client.error(1).await.starts_with("connecting to http://127.0.0.1:1 failed"));
    nobody.url = "ftp://h/SECRET".into();
    assert!(connect(&nobody).is_err_and(|error| !error.to_string().contains("SECRET")));
}

#[tokio::test]
async fn a_redirect_within_the_origin_keeps_method_and_body() {
    let (mut client, mut server) = pair(None).await;
    client.request(1, "initialize").await;
    server.expect("POST", "initialize").await.with(307, &[("location", "/mcp/")], "");
    let asked = server.expect("POST", "initialize").await;
    assert_eq!(asked.path, "/mcp/");
    asked.result(json!({"protocolVersion": "2025-03-26"}));
    assert_eq!(client.hear().await["id"], 1);
}

#[tokio::test]
async fn messages_over_the_limit_are_refused_both_ways() {
    let (mut client, mut server) = pair(Some(RemoteKind::Http)).await;
    let long = "x".repeat(1024 * 1024);
    client.write(&json!({"jsonrpc": "2.0", "id": 1, "method": "m", "params": {"long": long}})).await;
    assert!(client.error(1).await.contains("over the limit of 1048576 bytes"));
    client.request(2, "m").await;
    server.expect("POST", "m").await.result(json!(long));
    assert!(client.error(2).await.contains("over the limit of 1048576 bytes"));
    client.request(3, "m").await;
    let feed = server.expect("POST", "m").await.events();
    feed.data(&json!({"jsonrpc": "2.0", "id": 3, "result": long})).await;
    assert!(client.error(3).await.contains("over the limit of 1048576 bytes"));
}

#[tokio::test]
async fn many_large_messages_pass_at_once() {
    const COUNT: u64 = 32;
    let (client, mut server) = pair(Some(RemoteKind::Http)).await;
    let Client { mut said, mut stdin } = client;
    let large = "y".repeat(100 * 1024);
    let sent = large.clone();
    // All is written before anything is read: no side may wait for the other.
    let mut waiting = Vec::new();
    for id in 0..COUNT {
        let message = json!({"jsonrpc": "2.0", "id": id, "method": "echo", "params": {"x": sent}});
        let line = format!("{message}\n");
        tokio::time::timeout(LONG, stdin.write_all(line.as_bytes())).await.expect("no jam").expect("written");
        waiting.push(server.next().await);
    }
    for (n, asked) in waiting.into_iter().enumerate() {
        let echo = asked.json()["params"]["x"].clone();
        if n % 2 == 0 {
            asked.result(echo);
        } else {
            let id = asked.json()["id"].clone();
            asked.events().data(&json!({"jsonrpc": "2.0", "id": id, "result": echo})).await;
        }
    }
    let mut ids = std::collections::BTreeSet::new();
    for _answer in 0..COUNT {
        let line = tokio::time::timeout(LONG, said.next_line()).await.expect("no jam").expect("text");
        let line: Value = serde_json::from_str(&line.expect("a line")).expect("json");
        assert_eq!(line["result"], large.as_str());
        ids.insert(line["id"].as_u64());
    }
    assert_eq!(ids.len(), usize::try_from(COUNT).expect("small"));
}

#[tokio::test]
async fn requests_beyond_the_limit_wait_and_their_cancelling_is_silent() {
    let (mut client, mut server) = pair(Some(RemoteKind::Http)).await;
    let count = u64::try_from(IN_FLIGHT_MAX).expect("small");
    for id in 0..count + 2 {
        client.request(id, "m").await;
    }
    let mut asked = Vec::new();
    for _request in 0..count {
        asked.push(server.expect("POST", "m").await);
    }
    client.notify("notifications/cancelled", json!({"requestId": count})).await;
    // What needs no answer does not wait.
    client.notify("n", json!({})).await;
    server.expect("POST", "n").await.with(202, &[], "");
    asked.pop().expect("one").result(json!(0));
    client.hear().await;
    assert_eq!(server.expect("POST", "m").await.json()["id"], count + 1);
}

#[tokio::test]
async fn the_older_transport_is_found_out_and_spoken() {
    for kind in [None, Some(RemoteKind::Sse)] {
        let (mut client, mut server) = pair(kind).await;
        client.request(1, "initialize").await;
        if kind.is_none() {
            server.expect("POST", "initialize").await.with(405, &[], "Method Not Allowed");
        }
        let asked = server.expect("GET", "").await;
        assert_eq!(asked.path, "/mcp?key=SECRET");
        let feed = asked.events();
        feed.say("event: endpoint\ndata: /messages/?session_id=1").await;
        let asked = server.expect("POST", "initialize").await;
        assert_eq!(asked.path, "/messages/?session_id=1");
        asked.with(202, &[], "Accepted");
        feed.data(&json!({"jsonrpc": "2.0", "id": 1, "result": {"protocolVersion": "2024-11-05"}})).await;
        assert_eq!(client.hear().await["id"], 1);
        client.notify("notifications/initialized", json!({})).await;
        server.expect("POST", "notifications/initialized").await.with(202, &[], "");
        client.request(2, "m").await;
        server.expect("POST", "m").await.with(500, &[], "");
        assert!(client.error(2).await.contains("HTTP status 500"));
        client.notify("notifications/cancelled", json!({"requestId": 1})).await;
        server.expect("POST", "notifications/cancelled").await.with(202, &[], "");
        drop(feed);
        assert_eq!(client.line().await, None);
    }
}

#[tokio::test]
async fn a_server_of_neither_kind_is_said_to_be_so() {
    let (mut client, mut server) = pair(None).await;
    client.modern(1, "server/discover", "").await;
    server.expect("POST", "server/discover").await.with(400, &[], "what?");
    server.expect("GET", "").await.with(405, &[], "");
    assert!(client.error(1).await.contains("HTTP status 400"));
    // It may still take a handshake.
    client.request(2, "initialize").await;
    server.expect("POST", "initialize").await.result(json!({"protocolVersion": "2025-06-18"}));
    assert_eq!(client.hear().await["id"], 2);
    // One of the older kind that wants messages elsewhere gets none.
    let (mut client, mut server) = pair(Some(RemoteKind::Sse)).await;
    client.request(1, "initialize").await;
    let feed = server.expect("GET", "").await.events();
    feed.say("event: endpoint\ndata: http://evil.example/").await;
    let error = tokio::time::timeout(LONG, client.said.next_line()).await.expect("in time");
    assert!(error.is_err_and(|error| error.to_string().contains("another origin")));
}

#[tokio::test]
async fn a_dropped_leg_lets_go_of_everything() {
    let (client, mut server, listen) = in_session().await;
    let feed = listen.events();
    drop(client);
    server.expect("DELETE", "").await.with(405, &[], "");
    tokio::time::timeout(LONG, feed.0.closed()).await.expect("the server sees it");
}
