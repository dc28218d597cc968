//! Clients of both eras, as thin as can be: they add what the protocol asks for and nothing else.

use crate::gateway::wire::{Ask, Events, Reply};
use crate::support::{Site, docker_run, eventually};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The newest version with sessions.
pub(crate) const LEGACY: &str = "2025-11-25";
/// The version without.
pub(crate) const MODERN: &str = "2026-07-28";

/// The image with the fixture alone; `tests/run.sh` makes it.
pub(crate) fn fixture_image() -> String {
    std::env::var("MCPO_FIXTURE_IMAGE").expect("MCPO_FIXTURE_IMAGE: ./tests/run.sh sets it")
}

/// The fixture's path on this host.
pub(crate) fn fixture_path() -> String {
    std::env::var("MCPO_FIXTURE").expect("MCPO_FIXTURE: ./tests/run.sh sets it")
}

/// The fixture over stdio in a container, with these arguments.
pub(crate) fn fixture(args: &[&str]) -> Value {
    fixture_with(&[], args)
}

/// The same, with flags of `docker run` before the image.
pub(crate) fn fixture_with(flags: &[&str], args: &[&str]) -> Value {
    let image = fixture_image();
    let words: Vec<&str> = ["-i", "--rm"]
        .iter()
        .chain(flags)
        .copied()
        .chain([image.as_str()])
        .chain(args.iter().copied())
        .collect();
    docker_run(&words)
}

/// The port of a server, from the ledger.
pub(crate) fn port_of(site: &Site, server: &str) -> u16 {
    eventually("the server has a port", 40, || {
        let ports = site.run(&["ports", "--json"]);
        let ports: Value = serde_json::from_str(&ports.out).ok()?;
        let port = ports.pointer(&format!("/leases/{server}/port"))?.as_u64()?;
        let port = u16::try_from(port).ok()?;
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok().then_some(port)
    })
}

/// Where a server is.
#[derive(Clone, Debug)]
pub(crate) struct At {
    pub(crate) port: u16,
    pub(crate) path: String,
    /// `Authorization`.
    pub(crate) auth: Option<String>,
}

impl At {
    /// A server of a site, once its port is open.
    pub(crate) fn of(site: &Site, server: &str) -> Self {
        Self { port: port_of(site, server), path: format!("/mcp/{server}"), auth: None }
    }

    /// The same with other credentials.
    pub(crate) fn authorized(&self, auth: &str) -> Self {
        Self { auth: Some(auth.to_owned()), ..self.clone() }
    }

    /// A request with what all requests here carry.
    pub(crate) fn dress(&self, ask: Ask) -> Ask {
        match &self.auth {
            Some(auth) => ask.with("Authorization", auth),
            None => ask,
        }
    }

    /// A POST of this body.
    pub(crate) fn post(&self, body: &str) -> Ask {
        self.dress(Ask::post(&self.path, body))
    }

    /// `initialize`, and its answer as it came.
    pub(crate) fn greet(&self, version: &str, capabilities: &Value) -> Reply {
        let params = json!({"protocolVersion": version, "capabilities": capabilities,
                            "clientInfo": {"name": "live", "version": "1"}});
        let body = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
        self.post(&body.to_string()).send(self.port)
    }

    /// A session of a client that can be asked nothing.
    #[track_caller]
    pub(crate) fn open(&self) -> Client {
        self.open_as(LEGACY, &json!({}))
    }

    /// A session.
    #[track_caller]
    pub(crate) fn open_as(&self, version: &str, capabilities: &Value) -> Client {
        let reply = self.greet(version, capabilities);
        let session = reply.header("mcp-session-id").to_owned();
        let status = reply.status;
        let answer = reply.body();
        assert!(status == 200 && !session.is_empty(), "initialize: {status} {answer}");
        let client = Client { at: self.clone(), session, version: version.to_owned() };
        let accepted = client.post(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
        assert_eq!(
            (accepted.status, accepted.body().as_str()),
            (202, ""),
            "a notification gets 202, no body"
        );
        client
    }

    /// A request of the modern era; `params` is an object as written, `caps` too.
    pub(crate) fn modern(&self, id: &str, method: &str, params: &str, caps: &str) -> Ask {
        let meta = format!(
            r#""_meta":{{"io.modelcontextprotocol/protocolVersion":"{MODERN}","io.modelcontextprotocol/clientCapabilities":{caps},"io.modelcontextprotocol/clientInfo":{{"name":"live","version":"1"}}}}"#
        );
        let inner = params.strip_prefix('{').and_then(|params| params.strip_suffix('}')).expect("an object");
        let comma = if inner.is_empty() { "" } else { "," };
        let body =
            format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{{inner}{comma}{meta}}}}}"#);
        let ask = self.post(&body).with("MCP-Protocol-Version", MODERN).with("Mcp-Method", method);
        let params: Value = serde_json::from_str(params).expect("JSON");
        let name = params.get("name").or_else(|| params.get("uri")).and_then(Value::as_str);
        match name {
            Some(name) => ask.with("Mcp-Name", name),
            None => ask,
        }
    }

    /// A tool call of the modern era: the text of its result.
    #[track_caller]
    pub(crate) fn modern_call(&self, tool: &str, arguments: &Value) -> String {
        let params = json!({"name": tool, "arguments": arguments}).to_string();
        text_of(&self.modern("1", "tools/call", &params, "{}").send(self.port).answer())
    }
}

/// The text of a tool's result.
#[track_caller]
pub(crate) fn text_of(answer: &Value) -> String {
    let text = answer.pointer("/result/content/0/text").and_then(Value::as_str);
    text.unwrap_or_else(|| panic!("no text in {answer}")).to_owned()
}

/// A session.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) at: At,
    pub(crate) session: String,
    pub(crate) version: String,
}

impl Client {
    /// A request with what requests of a session carry.
    pub(crate) fn dress(&self, ask: Ask) -> Ask {
        self.at.dress(ask).with("Mcp-Session-Id", &self.session).with("MCP-Protocol-Version", &self.version)
    }

    /// A POST of this body, not sent yet.
    pub(crate) fn ask(&self, body: &str) -> Ask {
        self.dress(Ask::post(&self.at.path, body))
    }

    /// A POST of this body.
    #[track_caller]
    pub(crate) fn post(&self, body: &str) -> Reply {
        self.ask(body).send(self.at.port)
    }

    /// A request.
    #[track_caller]
    pub(crate) fn request(&self, method: &str, params: &Value) -> Value {
        let body = json!({"jsonrpc": "2.0", "id": next_id(), "method": method, "params": params});
        self.post(&body.to_string()).answer()
    }

    /// A tool call, not sent yet.
    pub(crate) fn call_ask(&self, tool: &str, arguments: &Value) -> Ask {
        let params = json!({"name": tool, "arguments": arguments});
        let body = json!({"jsonrpc": "2.0", "id": next_id(), "method": "tools/call", "params": params});
        self.ask(&body.to_string())
    }

    /// A tool call: the text of its result.
    #[track_caller]
    pub(crate) fn call(&self, tool: &str, arguments: &Value) -> String {
        text_of(&self.call_ask(tool, arguments).send(self.at.port).answer())
    }

    /// A tool call: the text of its result, or what went wrong.
    pub(crate) fn try_call(&self, tool: &str, arguments: &Value) -> Result<String, String> {
        let reply = self.call_ask(tool, arguments).try_send(self.at.port)?;
        let status = reply.status;
        let body = reply.try_body()?;
        let data =
            body.lines().rev().find_map(|line| line.strip_prefix("data: ").filter(|data| !data.is_empty()));
        let answer: Value = serde_json::from_str(data.unwrap_or(&body))
            .map_err(|error| format!("{status} {error}: {body}"))?;
        let text = answer.pointer("/result/content/0/text").and_then(Value::as_str);
        text.map(str::to_owned).ok_or_else(|| format!("{status} {answer}"))
    }

    /// The stream of what belongs to no request.
    #[track_caller]
    pub(crate) fn listen(&self) -> Events {
        let reply = self.dress(Ask::events(&self.at.path)).send(self.at.port);
        assert_eq!(reply.status, 200);
        reply.stream()
    }

    /// DELETE: its status.
    #[track_caller]
    pub(crate) fn delete(&self) -> u16 {
        self.dress(Ask::new("DELETE", &self.at.path)).send(self.at.port).status
    }

    /// A tool call during which the server asks: every question is answered by `answers`. The text
    /// of the result, and what was asked.
    #[track_caller]
    pub(crate) fn converse(&self, tool: &str, answers: impl Fn(&Value) -> Value) -> (String, Vec<String>) {
        self.converse_with(tool, &json!({}), answers)
    }

    /// The same with arguments.
    #[track_caller]
    pub(crate) fn converse_with(
        &self,
        tool: &str,
        arguments: &Value,
        answers: impl Fn(&Value) -> Value,
    ) -> (String, Vec<String>) {
        let reply = self.call_ask(tool, arguments).send(self.at.port);
        assert_eq!(reply.status, 200);
        if !reply.is_events() {
            return (text_of(&reply.json()), Vec::new());
        }
        let (stream, mut asked) = (reply.stream(), Vec::new());
        loop {
            let message = stream.message();
            match message.get("method").and_then(Value::as_str) {
                None => return (text_of(&message), asked),
                Some(method) if message.get("id").is_some() => {
                    asked.push(method.to_owned());
                    let body = json!({"jsonrpc": "2.0", "id": message["id"], "result": answers(&message)});
                    assert_eq!(self.post(&body.to_string()).status, 202);
                }
                Some(_) => {}
            }
        }
    }

    /// What the fixture counted on this session's connection.
    #[track_caller]
    pub(crate) fn counters(&self) -> Value {
        serde_json::from_str(&self.call("nasty_counters", &json!({}))).expect("JSON")
    }
}

/// Another id each time.
fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Time for something that must not happen.
pub(crate) const QUIET: Duration = Duration::from_millis(700);
