//! What a message from the leg means for its way over HTTP.
//!
//! A modern request says its version in its metadata, and parts of it must stand in headers too, so
//! that what lies between can route it unread. A legacy message stands for itself.
//!
//! Must never change a message.

use crate::mcp::base64::header_value;
use crate::mcp::meta::{VERSION_KEY, meta};
use crate::mcp::wire::{self, Message, member, text_of};
use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::value::RawValue;

/// The version that a message is written in.
pub(crate) const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// The session that a message belongs to.
pub(crate) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
/// Where to resume a stream of events.
pub(crate) const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");

/// A message on its way.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    /// As the leg wrote it.
    pub(crate) body: Bytes,
    /// The id of a request, as written; nothing else has an answer.
    pub(crate) id: Option<Box<RawValue>>,
    /// The method; empty for an answer to the server.
    pub(crate) method: String,
    /// The request that this one cancels.
    pub(crate) cancels: Option<String>,
    /// For a modern request, what must stand in its headers.
    pub(crate) modern: Option<HeaderMap>,
}

impl Outgoing {
    /// Reads a message; `None` when it is none, and nobody could answer to it.
    pub(crate) fn read(body: Bytes) -> Option<Self> {
        let message = wire::read(&body).ok()?;
        let (id, method, params) = match &message {
            Message::Request { id, method, params } => (Some((*id).to_owned()), method.as_ref(), *params),
            Message::Notification { method, params } => (None, method.as_ref(), *params),
            Message::Response { .. } | Message::Error { .. } => (None, "", None),
        };
        let cancels = params
            .filter(|_| id.is_none() && method == "notifications/cancelled")
            .and_then(|params| member(params, "requestId"))
            .map(|id| id.get().to_owned());
        let modern = params.and_then(|params| modern_headers(method, params, id.is_some()));
        let method = method.to_owned();
        Some(Self { id, method, cancels, modern, body })
    }

    /// Whether it settles the era of a connection.
    pub(crate) fn is_initialize(&self) -> bool {
        self.id.is_some() && self.method == "initialize"
    }

    /// Whether it ends a legacy handshake.
    pub(crate) fn is_initialized(&self) -> bool {
        self.id.is_none() && self.method == "notifications/initialized"
    }

    /// Whether `id` is that of this request, as servers may write it.
    pub(crate) fn is_answered_by(&self, id: &RawValue) -> bool {
        let Some(own) = &self.id else { return false };
        own.get() == id.get() || wire::own_id(own).is_some_and(|own| wire::own_id(id) == Some(own))
    }
}

fn modern_headers(method: &str, params: &RawValue, request: bool) -> Option<HeaderMap> {
    let version = text_of(member(meta(params)?, VERSION_KEY)?)?;
    let mut headers = HeaderMap::new();
    headers.insert(VERSION, HeaderValue::from_str(&version).ok()?);
    headers.insert(METHOD, HeaderValue::from_str(&header_value(method)).ok()?);
    let named = match method {
        "tools/call" | "prompts/get" => "name",
        "resources/read" => "uri",
        _ => return Some(headers),
    };
    if let Some(name) = member(params, named).and_then(text_of).filter(|_| request) {
        headers.insert(NAME, HeaderValue::from_str(&header_value(&name)).ok()?);
    }
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Outgoing {
        Outgoing::read(Bytes::from(text.to_owned())).expect("a message")
    }

    #[test]
    fn values_take_the_form_that_a_header_can_hold() {
        for (text, value) in [
            ("us-west1", "us-west1"),
            ("a b\tc", "a b\tc"),
            ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
            (" padded ", "=?base64?IHBhZGRlZCA=?="),
            ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
            ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
            ("", ""),
        ] {
            assert_eq!(header_value(text), value, "{text}");
        }
    }

    #[test]
    fn a_modern_request_is_known_by_its_metadata() {
        let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;
        for (method, member, name) in [
            ("tools/call", r#""name":"wetter für","#, Some("=?base64?d2V0dGVyIGbDvHI=?=")),
            ("prompts/get", r#""name":"p","#, Some("p")),
            ("resources/read", r#""uri":"test://a","#, Some("test://a")),
            ("tools/list", r#""name":"not told","#, None),
        ] {
            let line =
                format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{member}{meta}}}}}"#);
            let headers = read(&line).modern.expect("modern");
            assert_eq!(headers["mcp-protocol-version"], "2026-07-28");
            assert_eq!(headers["mcp-method"], method);
            assert_eq!(headers.get("mcp-name").map(|n| n.to_str().expect("ascii")), name, "{method}");
        }
        assert!(
            read(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","_meta":{}}}"#)
                .modern
                .is_none()
        );
    }

    #[test]
    fn every_kind_of_message_is_told_apart() {
        assert!(read(r#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#).is_initialize());
        assert!(read(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).is_initialized());
        let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}"#;
        assert_eq!(read(cancel).cancels.as_deref(), Some("7"));
        let reply = read(r#"{"jsonrpc":"2.0","id":"s","result":{}}"#);
        assert!(reply.id.is_none() && reply.method.is_empty());
        assert!(Outgoing::read(Bytes::from_static(b"{}")).is_none());
        let request = read(r#"{"jsonrpc":"2.0","id":7,"method":"m"}"#);
        for (id, same) in [("7", true), ("7.0", true), ("\"7\"", true), ("8", false), ("\"a\"", false)] {
            let id = RawValue::from_string(id.into()).expect("json");
            assert_eq!(request.is_answered_by(&id), same, "{id}");
        }
    }
}
