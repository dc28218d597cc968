//! The demo server driven in-process, both eras.

use crate::cli::demo_server::serve;
use crate::model::time::Timestamp;
use serde_json::{Value, json};
use std::io::{self, BufReader, Read, Write};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

fn clock() -> Timestamp {
    Timestamp(0)
}

/// A client that can wait between its lines.
struct Client {
    to: Option<mpsc::Sender<Vec<u8>>>,
    from: mpsc::Receiver<Vec<u8>>,
    pending: Vec<u8>,
    server: JoinHandle<io::Result<()>>,
}

struct Input(mpsc::Receiver<Vec<u8>>, Vec<u8>);

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.1.is_empty() {
            match self.0.recv() {
                Ok(bytes) => self.1 = bytes,
                Err(_) => return Ok(0),
            }
        }
        let n = self.1.len().min(buffer.len());
        buffer[..n].copy_from_slice(&self.1[..n]);
        self.1.drain(..n);
        Ok(n)
    }
}

struct Output(mpsc::Sender<Vec<u8>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes.to_vec()).map_err(|_closed| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Client {
    fn new() -> Self {
        let (to, input) = mpsc::channel();
        let (output, from) = mpsc::channel();
        let server = std::thread::spawn(move || {
            serve(BufReader::new(Input(input, Vec::new())), Output(output), clock)
        });
        Self { to: Some(to), from, pending: Vec::new(), server }
    }

    fn initialized() -> Self {
        let mut client = Self::new();
        let hello = client.ask(&json!({"method": "initialize", "params": {"protocolVersion": "2025-06-18"}}));
        assert_eq!(hello["result"]["protocolVersion"], "2025-06-18");
        client.say(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
        client
    }

    fn say(&mut self, line: &str) {
        self.to.as_ref().expect("open").send(format!("{line}\n").into_bytes()).expect("listening");
    }

    fn hear(&mut self) -> Value {
        while !self.pending.contains(&b'\n') {
            let more = self.from.recv_timeout(Duration::from_secs(10)).expect("an answer");
            self.pending.extend(more);
        }
        let end = self.pending.iter().position(|b| *b == b'\n').expect("a line");
        let line: Vec<u8> = self.pending.drain(..=end).collect();
        serde_json::from_slice(&line).expect("json")
    }

    fn ask(&mut self, request: &Value) -> Value {
        let mut request = request.clone();
        request["jsonrpc"] = json!("2.0");
        request["id"] = json!("q");
        self.say(&request.to_string());
        let answer = self.hear();
        assert_eq!(answer["id"], "q");
        answer
    }

    fn call(&mut self, name: &str, arguments: &Value) -> Value {
        self.ask(&json!({"method": "tools/call", "params": {"name": name, "arguments": arguments}}))["result"]
            .clone()
    }

    fn end(mut self) {
        self.to.take();
        self.server.join().expect("no panic").expect("ends well");
    }
}

fn meta() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    })
}

#[test]
fn a_legacy_client_is_served() {
    let mut client = Client::initialized();
    let tools = client.ask(&json!({"method": "tools/list"}))["result"]["tools"].clone();
    let names: Vec<&str> =
        tools.as_array().expect("list").iter().filter_map(|t| t["name"].as_str()).collect();
    assert_eq!(names, ["time", "echo", "add", "slow", "lookup", "fail"]);
    assert_eq!(client.call("time", &json!({}))["content"][0]["text"], "1970-01-01T00:00:00Z");
    assert_eq!(client.call("echo", &json!({"text": "é\u{200d}\n"}))["content"][0]["text"], "é\u{200d}\n");
    assert_eq!(client.call("add", &json!({"a": 1, "b": 2}))["structuredContent"], json!({"sum": 3}));
    assert_eq!(client.call("fail", &json!({}))["isError"], true);
    assert_eq!(client.call("echo", &json!({}))["isError"], true);
    assert!(client.call("lookup", &json!({"host": "localhost"}))["content"][0]["text"].is_string());
    assert_eq!(client.ask(&json!({"method": "ping"}))["result"], json!({}));
    client.end();
}

#[test]
fn what_is_wrong_gets_its_code() {
    let mut client = Client::new();
    let code = |answer: Value| answer["error"]["code"].as_i64();
    assert_eq!(code(client.ask(&json!({"method": "tools/list"}))), Some(-32600), "before the handshake");
    assert_eq!(code(client.ask(&json!({"method": "server/discover"}))), Some(-32602));
    let mut client = Client::initialized();
    assert_eq!(code(client.ask(&json!({"method": "resources/list"}))), Some(-32601));
    assert_eq!(code(client.ask(&json!({"method": "tools/call", "params": {"name": "none"}}))), Some(-32602));
    for (line, id, expected) in [
        ("{nonsense", json!(null), -32700),
        ("hello", json!(null), -32700),
        ("[]", json!(null), -32600),
        (r#"{"jsonrpc":"2.0","id":7,"method":5}"#, json!(7), -32600),
    ] {
        client.say(line);
        let answer = client.hear();
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&id, &json!(expected)), "{line}");
    }
    client.say("");
    client.say(r#"{"jsonrpc":"2.0","method":"notifications/unknown"}"#);
    assert_eq!(client.ask(&json!({"method": "ping"}))["result"], json!({}), "nothing before it");
    client.end();
}

#[test]
fn a_modern_client_is_served_request_by_request() {
    let mut client = Client::new();
    let discover =
        client.ask(&json!({"method": "server/discover", "params": {"_meta": meta()}}))["result"].clone();
    assert_eq!(discover["supportedVersions"][0], "2026-07-28");
    assert_eq!((&discover["resultType"], &discover["cacheScope"]), (&json!("complete"), &json!("public")));
    assert!(discover["ttlMs"].is_u64());
    assert!(discover["_meta"]["io.modelcontextprotocol/serverInfo"]["name"].is_string());
    let list = client.ask(&json!({"method": "tools/list", "params": {"_meta": meta()}}))["result"].clone();
    assert!(list["ttlMs"].is_u64() && list["resultType"] == "complete");
    let params = json!({"name": "add", "arguments": {"a": 1, "b": 1}, "_meta": meta()});
    let sum = client.ask(&json!({"method": "tools/call", "params": params}))["result"].clone();
    assert_eq!((&sum["structuredContent"]["sum"], &sum["resultType"]), (&json!(2), &json!("complete")));
    assert!(sum.get("ttlMs").is_none());
    let mut old = meta();
    old["io.modelcontextprotocol/protocolVersion"] = json!("1900-01-01");
    let error = client.ask(&json!({"method": "tools/list", "params": {"_meta": old}}))["error"].clone();
    assert_eq!((&error["code"], &error["data"]["requested"]), (&json!(-32022), &json!("1900-01-01")));
    assert_eq!(error["data"]["supported"][0], "2026-07-28");
    let mut bare = meta();
    bare.as_object_mut().expect("object").remove("io.modelcontextprotocol/clientCapabilities");
    let error = client.ask(&json!({"method": "tools/list", "params": {"_meta": bare}}))["error"].clone();
    assert_eq!(error["code"], -32602);
    let gone = client.ask(&json!({"method": "ping", "params": {"_meta": meta()}}));
    assert_eq!(gone["error"]["code"], -32601, "the modern era has no ping");
    client.end();
}

#[test]
fn a_slow_call_reports_answers_others_meanwhile_and_can_be_cancelled() {
    let mut client = Client::initialized();
    client.say(
        r#"{"jsonrpc":"2.0","id":1.0,"method":"tools/call","params":{"name":"slow","arguments":{"seconds":0.02,"steps":2},"_meta":{"progressToken":"t"}}}"#,
    );
    for n in 1..=2 {
        let progress = client.hear();
        assert_eq!(progress["params"], json!({"progressToken": "t", "progress": n, "total": 2}));
    }
    assert_eq!(client.hear()["result"]["content"][0]["text"], "took 0.02 s in 2 steps");
    client.say(
        r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"slow","arguments":{"seconds":100}}}"#,
    );
    client.say(r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"slow"}}"#);
    assert_eq!(client.hear()["error"]["code"], -32600, "the same id twice");
    assert_eq!(client.ask(&json!({"method": "ping"}))["result"], json!({}));
    client.say(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}}"#);
    assert_eq!(client.ask(&json!({"method": "ping"}))["result"], json!({}), "no answer to a cancelled call");
    // Its id is free again as soon as it has stopped.
    let tries = (0..500).find(|_| {
        std::thread::sleep(Duration::from_millis(5));
        client.say(
            r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"slow","arguments":{"seconds":0}}}"#,
        );
        client.hear().get("result").is_some()
    });
    assert!(tries.is_some(), "the cancelled call never stopped");
    let begun = Instant::now();
    client.say(r#"{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"slow","arguments":{"seconds":100}}}"#);
    client.end();
    assert!(begun.elapsed() < Duration::from_secs(3), "the end of input is the end");
}

#[test]
fn a_client_that_stops_reading_ends_the_server() {
    let client = Client::new();
    let Client { to, from, server, .. } = client;
    drop(from);
    let to = to.expect("open");
    to.send(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n".to_vec()).expect("listening");
    server.join().expect("no panic").expect("ends well");
}
