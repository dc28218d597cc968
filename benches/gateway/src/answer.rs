//! The MCP server behind the gateways: one tool, `echo`, legacy era only.
//!
//! The text and the id are copied as they were written, never decoded. Both `fastmcp` and `floor`
//! answer with this, so that they differ in the transport alone.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// Newest version of the protocol that is spoken.
pub const VERSION: &str = "2025-11-25";
/// All versions that are accepted in `initialize`.
const VERSIONS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", VERSION];

const TOOLS: &str = r#"{"tools":[{"name":"echo","description":"Returns the text.","inputSchema":{"type":"object","properties":{"text":{"type":"string"}},"required":["text"]}}]}"#;

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    params: Option<Params<'a>>,
}

#[derive(Deserialize)]
struct Params<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default, rename = "protocolVersion")]
    version: Cow<'a, str>,
    #[serde(borrow)]
    arguments: Option<Arguments<'a>>,
}

#[derive(Deserialize)]
struct Arguments<'a> {
    #[serde(borrow)]
    text: Option<&'a RawValue>,
}

/// What a message was, for those who must act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `initialize`, which opens a session.
    Initialize,
    /// Another request; it has an answer.
    Request,
    /// A notification or a response; it has none.
    Silent,
}

/// Appends the answer to `message` to `out`, without a newline. What cannot be read as a request
/// is passed over in silence.
pub fn answer(message: &[u8], out: &mut Vec<u8>) -> Kind {
    let Ok(request) = serde_json::from_slice::<Request>(message) else {
        return Kind::Silent;
    };
    let Some(id) = request.id else {
        return Kind::Silent;
    };
    if request.method.is_empty() {
        return Kind::Silent;
    }
    out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    out.extend_from_slice(id.get().as_bytes());
    match (&*request.method, &request.params) {
        ("tools/call", Some(params)) => call(params, out),
        ("initialize", params) => {
            let asked = params.as_ref().map_or(VERSION, |params| &*params.version);
            initialize(asked, out);
        }
        ("tools/list", _) => result(TOOLS, out),
        ("ping", _) => result("{}", out),
        _ => error(-32601, "method not found", out),
    }
    out.push(b'}');
    if request.method == "initialize" { Kind::Initialize } else { Kind::Request }
}

fn call(params: &Params, out: &mut Vec<u8>) {
    let text = params.arguments.as_ref().and_then(|given| given.text);
    let Some(text) = text.filter(|_| params.name == "echo") else {
        return error(-32602, "there is only the tool echo, with a text", out);
    };
    out.extend_from_slice(br#","result":{"content":[{"type":"text","text":"#);
    out.extend_from_slice(text.get().as_bytes());
    out.extend_from_slice(b"}]}");
}

fn initialize(asked: &str, out: &mut Vec<u8>) {
    let version = VERSIONS.into_iter().find(|known| *known == asked);
    out.extend_from_slice(br#","result":{"protocolVersion":""#);
    out.extend_from_slice(version.unwrap_or(VERSION).as_bytes());
    let rest = r#"","capabilities":{"tools":{}},"serverInfo":{"name":"fastmcp","version":"1"}}"#;
    out.extend_from_slice(rest.as_bytes());
}

fn result(value: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(br#","result":"#);
    out.extend_from_slice(value.as_bytes());
}

fn error(code: i32, message: &str, out: &mut Vec<u8>) {
    let text = format!(r#","error":{{"code":{code},"message":"{message}"}}"#);
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(message: &str) -> String {
        let mut out = Vec::new();
        answer(message.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn echo_copies_id_and_text_as_written() {
        let call = r#"{"params":{"arguments":{"text":"a\u0062\"\/"},"name":"echo"},"method":"tools/call","id":1e2,"jsonrpc":"2.0"}"#;
        let reply =
            r#"{"jsonrpc":"2.0","id":1e2,"result":{"content":[{"type":"text","text":"a\u0062\"\/"}]}}"#;
        assert_eq!(said(call), reply);
    }

    #[test]
    fn discover_is_unknown_and_notifications_are_silent() {
        assert!(
            said(r#"{"jsonrpc":"2.0","id":"x","method":"server/discover","params":{}}"#).contains("-32601")
        );
        assert_eq!(said(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#), "");
        assert_eq!(said(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#), "");
        assert_eq!(said("noise"), "");
    }

    #[test]
    fn initialize_agrees_on_a_known_version() {
        let ask = |version| {
            said(&format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{{"protocolVersion":"{version}"}}}}"#
            ))
        };
        assert!(ask("2025-06-18").contains(r#""protocolVersion":"2025-06-18""#));
        assert!(ask("2026-07-28").contains(r#""protocolVersion":"2025-11-25""#));
    }
}
