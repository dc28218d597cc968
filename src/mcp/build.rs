//! The messages that are our own, each as one line of text without its ending.
//!
//! Parts that came from elsewhere are passed in as raw text and put in as they are; only line
//! breaks between tokens become spaces.
//!
//! Must never put anything into a message that was not handed in.

use crate::mcp::handshake::ClientInfo;
use crate::mcp::meta::{CLIENT_CAPABILITIES_KEY, CLIENT_INFO_KEY, VERSION_KEY};
use crate::mcp::wire::{INTERNAL_ERROR, RpcError, member, one_line, text_of};
use serde_json::json;
use serde_json::value::RawValue;

/// A request.
#[must_use]
pub fn request(id: u64, method: &str, params: Option<&RawValue>) -> String {
    asking(Some(&id.to_string()), method, params)
}

/// A request under an id of somebody else's.
#[must_use]
pub fn request_as(id: &RawValue, method: &str, params: Option<&RawValue>) -> String {
    asking(Some(id.get()), method, params)
}

/// A notification.
#[must_use]
pub fn notification(method: &str, params: Option<&RawValue>) -> String {
    asking(None, method, params)
}

/// Made in one piece, with room for a line's end: arguments may be large, and growing copies them.
fn asking(id: Option<&str>, method: &str, params: Option<&RawValue>) -> String {
    const FRAME: usize = 64;
    let method = quoted(method);
    let params = params.map(|params| one_line(params.get()));
    let known = id.map_or(0, str::len) + method.len() + params.as_deref().map_or(0, str::len);
    let mut out = String::with_capacity(FRAME + known);
    out.push_str(r#"{"jsonrpc":"2.0","#);
    if let Some(id) = id {
        out.push_str(r#""id":"#);
        out.push_str(id);
        out.push(',');
    }
    out.push_str(r#""method":"#);
    out.push_str(&method);
    if let Some(params) = params {
        out.push_str(r#","params":"#);
        out.push_str(&params);
    }
    out.push('}');
    out
}

/// The good answer to the request `id`.
#[must_use]
pub fn result(id: &RawValue, result: &RawValue) -> String {
    reply(id, "result", result)
}

/// An answer to the request `id` whose `key` (`result` or `error`) is passed on as written.
#[must_use]
pub fn reply(id: &RawValue, key: &str, value: &RawValue) -> String {
    let (id, value) = (id.get(), one_line(value.get()));
    let mut out = String::with_capacity(id.len() + key.len() + value.len() + 28);
    out.push_str(r#"{"jsonrpc":"2.0","id":"#);
    out.push_str(id);
    out.push_str(",\"");
    out.push_str(key);
    out.push_str("\":");
    out.push_str(&value);
    out.push('}');
    out
}

/// The bad answer to the request `id`; `None` when its id could not be read.
#[must_use]
pub fn error(id: Option<&RawValue>, code: i64, message: &str) -> String {
    let id = id.map_or("null", RawValue::get);
    let message = quoted(message);
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":{message}}}}}"#)
}

/// How far a request got on a way that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Nothing of it was sent.
    Unsent,
    /// It may have arrived.
    Lost,
}

/// The answer to a request whose way to the server failed: an error that says how far it got
/// (`data.transport`), so that whoever reads it knows whether to ask again.
#[must_use]
pub fn broken(id: &RawValue, message: &str, way: Way) -> String {
    let (id, message) = (id.get(), quoted(message));
    let way = match way {
        Way::Unsent => UNSENT,
        Way::Lost => LOST,
    };
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{INTERNAL_ERROR},"message":{message},"data":{{"transport":"{way}"}}}}}}"#
    )
}

/// What an error of [`broken`] says; `None` for any other.
#[must_use]
pub fn way_of(error: &RpcError) -> Option<Way> {
    if error.code != INTERNAL_ERROR {
        return None;
    }
    let way = member(member(&error.raw, "data")?, "transport").and_then(text_of)?;
    match way.as_ref() {
        UNSENT => Some(Way::Unsent),
        LOST => Some(Way::Lost),
        _ => None,
    }
}

const UNSENT: &str = "unsent";
const LOST: &str = "lost";

/// The bad answer to the request `id`, with the documented code and, if it is worth coming again, the
/// seconds until then as `data`.
#[must_use]
pub fn denied(id: Option<&RawValue>, code: i64, (why, doc): (&str, &str), secs: Option<u64>) -> String {
    let id = id.map_or("null", RawValue::get);
    let (message, doc) = (quoted(why), quoted(doc));
    let again = secs.map_or_else(String::new, |secs| format!(r#","retryAfterSeconds":{secs}"#));
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":{message},"data":{{"code":{doc}{again}}}}}}}"#
    )
}

/// Opens a legacy connection.
#[must_use]
pub fn initialize(id: u64, version: &str, client: &ClientInfo) -> String {
    request(id, "initialize", initialize_params(version, client).as_deref())
}

/// The params of `initialize`. We declare no capabilities: a connection that serves many callers
/// can put a server's own requests to none of them.
#[must_use]
pub fn initialize_params(version: &str, client: &ClientInfo) -> Option<Box<RawValue>> {
    let params = json!({
        "protocolVersion": version,
        "capabilities": {},
        "clientInfo": {"name": client.name, "version": client.version},
    });
    RawValue::from_string(params.to_string()).ok()
}

/// Ends a legacy handshake.
#[must_use]
pub fn initialized() -> String {
    notification("notifications/initialized", None)
}

/// Asks a server of the modern era what it is.
#[must_use]
pub fn discover(id: u64, version: &str, client: &ClientInfo) -> String {
    request(id, "server/discover", discover_params(version, client).as_deref())
}

/// The params of `server/discover`, or of any request of ours that needs no others.
#[must_use]
pub fn discover_params(version: &str, client: &ClientInfo) -> Option<Box<RawValue>> {
    let params = json!({"_meta": {
        VERSION_KEY: version,
        CLIENT_INFO_KEY: {"name": client.name, "version": client.version},
        CLIENT_CAPABILITIES_KEY: {},
    }});
    RawValue::from_string(params.to_string()).ok()
}

/// Asks whether anybody is there; allowed before a legacy handshake too.
#[must_use]
pub fn ping(id: u64) -> String {
    request(id, "ping", None)
}

/// The params of `tools/list`, from `cursor` on.
#[must_use]
pub fn list_params(cursor: Option<&str>) -> Option<Box<RawValue>> {
    RawValue::from_string(json!({"cursor": cursor?}).to_string()).ok()
}

/// The params of `tools/call`; `arguments` go in as written.
#[must_use]
pub fn call_params(name: &str, arguments: Option<&RawValue>) -> Option<Box<RawValue>> {
    let name = quoted(name);
    let text = match arguments {
        Some(arguments) => format!(r#"{{"name":{name},"arguments":{}}}"#, arguments.get()),
        None => format!(r#"{{"name":{name}}}"#),
    };
    RawValue::from_string(text).ok()
}

/// Tells the server that nobody waits for the request `id` any more.
#[must_use]
pub fn cancelled(id: u64, reason: &str) -> String {
    let reason = quoted(reason);
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id},"reason":{reason}}}}}"#
    )
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::wire::{Message, read};

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).expect("json")
    }

    #[test]
    fn what_we_write_is_one_line_and_reads_back() {
        let client = ClientInfo { name: "us".into(), version: "1".into() };
        let params = raw("{\n\"a\" :\r\n 1.0}");
        let lines = [
            request(7, "m\"x", Some(&params)),
            notification("n", Some(&params)),
            result(&raw("\"id\""), &params),
            error(None, -32700, "no\njson"),
            initialize(1, "2025-11-25", &client),
            initialized(),
            discover(1, "2026-07-28", &client),
            ping(2),
            cancelled(3, "took \"too\" long"),
            request(4, "tools/call", call_params("t", Some(&params)).as_deref()),
            request(5, "tools/list", list_params(Some("c\n")).as_deref()),
        ];
        for line in lines {
            assert!(!line.contains(['\n', '\r']), "{line}");
            assert!(read(line.as_bytes()).is_ok(), "{line}");
        }
        let line = request(7, "m", Some(&params));
        let Ok(Message::Request { params: Some(back), .. }) = read(line.as_bytes()) else {
            panic!("request")
        };
        assert_eq!(back.get(), "{ \"a\" :   1.0}");
    }

    #[test]
    fn how_far_a_request_got_is_told_and_read_back() {
        let of = |line: &str| match read(line.as_bytes()) {
            Ok(Message::Error { error, .. }) => way_of(&RpcError::read(error)),
            _ => panic!("{line}"),
        };
        let id = raw("1");
        assert_eq!(of(&broken(&id, "no \"way\"", Way::Unsent)), Some(Way::Unsent));
        assert_eq!(of(&broken(&id, "cut", Way::Lost)), Some(Way::Lost));
        for other in [
            error(Some(&id), INTERNAL_ERROR, "lost"),
            denied(Some(&id), INTERNAL_ERROR, ("later", "MCPO-G070"), Some(3)),
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"","data":{"transport":"lost"}}}"#
                .to_owned(),
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"","data":{"transport":7}}}"#
                .to_owned(),
        ] {
            assert_eq!(of(&other), None, "{other}");
        }
    }
}
