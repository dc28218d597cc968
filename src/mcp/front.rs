//! What the headers of one HTTP request and the message in its body mean together, and how a
//! request that breaks the protocol's rules is refused.
//!
//! The order of the checks of a modern request is fixed, since a client decides by the code what to
//! do next: the metadata of the body (-32602), then that the version header repeats it (-32020),
//! then whether the version is spoken here (-32022), then the headers that repeat method and name
//! (-32020). Only then is a removed method told apart (404, -32601).
//!
//! A header that came more than once must be handed in as one value joined by `, `: it then matches
//! nothing, instead of meaning one thing here and another elsewhere.
//!
//! Must never let a request through whose headers and body say different things.

use crate::mcp::base64::header_text;
use crate::mcp::meta::{CLIENT_CAPABILITIES_KEY, CLIENT_INFO_KEY, LOG_LEVEL_KEY, VERSION_KEY};
use crate::mcp::mirror;
use crate::mcp::object::{is_object, once, quoted, raw};
use crate::mcp::wire::{
    BATCH_VERSION, HEADER_MISMATCH, INVALID_PARAMS, INVALID_REQUEST, LEGACY_VERSIONS, METHOD_NOT_FOUND,
    MISSING_CAPABILITY, MODERN_LATEST, MODERN_VERSIONS, Message, PARSE_ERROR, UNSUPPORTED_VERSION, member,
    text_of,
};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// What a POST carries, and what its answer may be.
pub const JSON: &str = "application/json";
/// What a stream of events is.
pub const EVENT_STREAM: &str = "text/event-stream";
/// Versions that begin with this date or a later one belong to the modern era, known or not.
const MODERN_SINCE: &str = "2026-07-01";
/// Bytes of a client's text that an error repeats.
const ECHO_MAX: usize = 64;

/// The headers of a request that matter here; names are compared without regard to case by whoever
/// fills this in. Not `Debug`: a session's id is a credential.
#[derive(Clone, Default)]
pub struct Head<'a> {
    /// `Content-Type`.
    pub content_type: Option<&'a str>,
    /// `Accept`, several joined by commas.
    pub accept: Option<&'a str>,
    /// `MCP-Protocol-Version`.
    pub protocol_version: Option<&'a str>,
    /// `Mcp-Session-Id`.
    pub session: Option<&'a str>,
    /// `Mcp-Method`.
    pub mcp_method: Option<&'a str>,
    /// `Mcp-Name`.
    pub mcp_name: Option<&'a str>,
    /// `Last-Event-ID`.
    pub last_event_id: Option<&'a str>,
    /// `Mcp-Param-*`: the name after that prefix, in lower case, and the value.
    pub params: Vec<(&'a str, &'a str)>,
}

/// Why a request is not served: the status of the HTTP answer and the JSON-RPC error in it.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// `error.code`.
    pub code: i64,
    /// `error.message`.
    pub message: String,
    /// `error.data`.
    pub data: Option<Box<RawValue>>,
}

impl Refusal {
    /// Without data.
    #[must_use]
    pub fn new(status: u16, code: i64, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), data: None }
    }

    /// The JSON-RPC error; without an `id` when the request's could not be read or it had none.
    #[must_use]
    pub fn body(&self, id: Option<&RawValue>) -> String {
        let id = id.map(|id| format!(r#""id":{},"#, id.get())).unwrap_or_default();
        let data = self.data.as_ref().map(|data| format!(r#","data":{}"#, data.get())).unwrap_or_default();
        let message = quoted(&self.message);
        format!(r#"{{"jsonrpc":"2.0",{id}"error":{{"code":{},"message":{message}{data}}}}}"#, self.code)
    }

    fn mismatch(message: impl Into<String>) -> Self {
        Self::new(400, HEADER_MISMATCH, message)
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, INVALID_PARAMS, message)
    }
}

/// A body that must be JSON.
///
/// # Errors
/// 415 for anything but `application/json`, whose parameters do not matter.
pub fn check_content_type(head: &Head<'_>) -> Result<(), Refusal> {
    let kind = head.content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case(JSON) {
        return Ok(());
    }
    Err(Refusal::new(415, INVALID_REQUEST, "content type must be application/json"))
}

/// The sender of a POST must take both kinds of answer, in either era; who says nothing takes all.
///
/// # Errors
/// 406.
pub fn check_accept_post(head: &Head<'_>) -> Result<(), Refusal> {
    if admits(head.accept, JSON) && admits(head.accept, EVENT_STREAM) {
        return Ok(());
    }
    Err(Refusal::new(406, INVALID_REQUEST, "client must accept both application/json and text/event-stream"))
}

/// The sender of a GET must take a stream; who says nothing takes all.
///
/// # Errors
/// 406.
pub fn check_accept_get(head: &Head<'_>) -> Result<(), Refusal> {
    if admits(head.accept, EVENT_STREAM) {
        return Ok(());
    }
    Err(Refusal::new(406, INVALID_REQUEST, "client must accept text/event-stream"))
}

/// Whether an `Accept` header admits a media type: its most exact range decides, `q=0` forbids.
fn admits(accept: Option<&str>, kind: &str) -> bool {
    let Some(accept) = accept.filter(|accept| !accept.trim().is_empty()) else { return true };
    let (family, _) = kind.split_once('/').unwrap_or((kind, ""));
    let mut best = (0, false);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let rank = if name.eq_ignore_ascii_case(kind) {
            3
        } else if name.strip_suffix("/*").is_some_and(|name| name.eq_ignore_ascii_case(family)) {
            2
        } else if name == "*/*" {
            1
        } else {
            continue;
        };
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let wanted = weight.is_none_or(|q| q.trim().parse::<f32>().is_ok_and(|q| q > 0.0));
        if rank > best.0 {
            best = (rank, wanted);
        } else if rank == best.0 {
            best.1 |= wanted;
        }
    }
    best.1
}

/// Which rules a request is served by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Metadata in the request, no session.
    Modern,
    /// `initialize` and a session.
    Legacy,
}

/// Decides by the request alone.
///
/// Metadata of the modern era in the body decides for it, whatever the method: an `initialize` that
/// carries it is a modern request for a method that is gone. A plain `initialize` opens a legacy
/// session. For the rest the version header speaks.
#[must_use]
pub fn classify(head: &Head<'_>, message: &Message<'_>) -> Class {
    let (method, params) = parts(message);
    let marked = params.and_then(|params| member(params, "_meta")).and_then(|meta| member(meta, VERSION_KEY));
    match method {
        _ if marked.is_some() => Class::Modern,
        Some("initialize") => Class::Legacy,
        Some("server/discover") => Class::Modern,
        _ if head.protocol_version.is_some_and(is_modern_version) => Class::Modern,
        _ => Class::Legacy,
    }
}

/// Whether a version belongs to the modern era, spoken here or not.
#[must_use]
pub fn is_modern_version(version: &str) -> bool {
    let version = version.trim_matches([' ', '\t']);
    let is_date = version.len() == MODERN_SINCE.len()
        && version
            .bytes()
            .enumerate()
            .all(|(at, b)| if matches!(at, 4 | 7) { b == b'-' } else { b.is_ascii_digit() });
    MODERN_VERSIONS.contains(&version)
        || (is_date && version >= MODERN_SINCE && !LEGACY_VERSIONS.contains(&version))
}

fn parts<'m>(message: &'m Message<'_>) -> (Option<&'m str>, Option<&'m RawValue>) {
    match message {
        Message::Request { method, params, .. } | Message::Notification { method, params } => {
            (Some(method.as_ref()), *params)
        }
        Message::Response { .. } | Message::Error { .. } => (None, None),
    }
}

/// What a modern request says about its sender.
#[derive(Clone, Debug)]
pub struct Modern<'a> {
    /// One of [`MODERN_VERSIONS`].
    pub version: &'static str,
    /// An object, as written; `{}` for a notification, which need not say.
    pub client_capabilities: &'a RawValue,
    /// An object, as written.
    pub client_info: Option<&'a RawValue>,
    /// The least severe log message that is wanted with this request; none when absent.
    pub log_level: Option<Cow<'a, str>>,
}

/// Checks everything about a modern request that can be told without the server.
///
/// # Errors
/// 400 with the code that the protocol has for the first thing that is wrong. Answers are no
/// messages that a client sends in this era.
pub fn check_modern<'a>(head: &Head<'_>, message: &'a Message<'a>) -> Result<Modern<'a>, Refusal> {
    let (method, params, is_request) = match message {
        Message::Request { method, params, .. } => (method, *params, true),
        Message::Notification { method, params } => (method, *params, false),
        Message::Response { .. } | Message::Error { .. } => {
            return Err(Refusal::new(400, INVALID_REQUEST, "answers of clients stand in inputResponses"));
        }
    };
    let fields = Fields::read(params)?;
    let stated = if is_request {
        let stated = fields.version.ok_or_else(|| lacks(VERSION_KEY))?;
        if fields.capabilities.is_none() {
            return Err(lacks(CLIENT_CAPABILITIES_KEY));
        }
        stated
    } else {
        fields.version.unwrap_or(Cow::Borrowed(head.protocol_version.unwrap_or(MODERN_LATEST)))
    };
    check_version_header(head, &stated, is_request)?;
    let version = MODERN_VERSIONS.into_iter().find(|ours| *ours == stated.trim_matches([' ', '\t']));
    let Some(version) = version else { return Err(unsupported(&stated)) };
    check_method_header(head, method, is_request)?;
    if is_request {
        check_name_header(head, method, params)?;
    }
    let none = serde_json::from_str::<&'static RawValue>("{}").unwrap_or(RawValue::NULL);
    Ok(Modern {
        version,
        client_capabilities: fields.capabilities.unwrap_or(none),
        client_info: fields.info,
        log_level: fields.log_level,
    })
}

struct Fields<'a> {
    version: Option<Cow<'a, str>>,
    capabilities: Option<&'a RawValue>,
    info: Option<&'a RawValue>,
    log_level: Option<Cow<'a, str>>,
}

impl<'a> Fields<'a> {
    fn read(params: Option<&'a RawValue>) -> Result<Self, Refusal> {
        let single = |object: Option<&'a RawValue>, key: &str| match object {
            Some(object) => {
                once(object, key).map_err(|_twice| Refusal::invalid(format!("{key} stands twice")))
            }
            None => Ok(None),
        };
        let meta = single(params, "_meta")?;
        Ok(Self {
            version: single(meta, VERSION_KEY)?.and_then(text_of),
            capabilities: single(meta, CLIENT_CAPABILITIES_KEY)?.filter(|value| is_object(value)),
            info: single(meta, CLIENT_INFO_KEY)?.filter(|value| is_object(value)),
            log_level: single(meta, LOG_LEVEL_KEY)?.and_then(text_of),
        })
    }
}

fn lacks(key: &str) -> Refusal {
    Refusal::invalid(format!("_meta lacks {key}"))
}

fn unsupported(requested: &str) -> Refusal {
    let supported: Vec<String> = MODERN_VERSIONS.iter().map(|version| quoted(version)).collect();
    let data = format!(r#"{{"supported":[{}],"requested":{}}}"#, supported.join(","), quoted(requested));
    Refusal {
        data: Some(raw(data)),
        ..Refusal::new(400, UNSUPPORTED_VERSION, "unsupported protocol version")
    }
}

/// A header's value without the white space around it; refused when it has characters that none
/// must have.
fn plain<'h>(name: &str, value: &'h str) -> Result<&'h str, Refusal> {
    let value = value.trim_matches([' ', '\t']);
    if value.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) {
        return Ok(value);
    }
    Err(Refusal::mismatch(format!("{name} header has invalid characters")))
}

fn check_version_header(head: &Head<'_>, stated: &str, required: bool) -> Result<(), Refusal> {
    const NAME: &str = "MCP-Protocol-Version";
    match head.protocol_version {
        Some(sent) => agree(NAME, plain(NAME, sent)?, stated.trim_matches([' ', '\t'])),
        None if required => Err(missing(NAME)),
        None => Ok(()),
    }
}

fn check_method_header(head: &Head<'_>, method: &str, required: bool) -> Result<(), Refusal> {
    const NAME: &str = "Mcp-Method";
    match head.mcp_method {
        Some(sent) => agree(NAME, plain(NAME, sent)?, method),
        None if required => Err(missing(NAME)),
        None => Ok(()),
    }
}

fn check_name_header(head: &Head<'_>, method: &str, params: Option<&RawValue>) -> Result<(), Refusal> {
    const NAME: &str = "Mcp-Name";
    let Some(key) = mirror::name_key(method) else { return Ok(()) };
    let value = match params {
        Some(params) => {
            once(params, key).map_err(|_twice| Refusal::invalid(format!("params.{key} stands twice")))?
        }
        None => None,
    };
    match (head.mcp_name, value.and_then(text_of)) {
        (Some(sent), Some(body)) => {
            let sent = header_text(sent)
                .ok_or_else(|| Refusal::mismatch(format!("{NAME} header has invalid characters")))?;
            agree(NAME, &sent, &body)
        }
        (Some(_), None) => Err(Refusal::mismatch(format!("{NAME} header has no value in the body"))),
        (None, Some(_)) => Err(missing(NAME)),
        (None, None) => Err(Refusal::invalid(format!("params.{key} is missing"))),
    }
}

fn missing(name: &str) -> Refusal {
    Refusal::mismatch(format!("{name} header is missing"))
}

fn agree(name: &str, header: &str, body: &str) -> Result<(), Refusal> {
    if header == body {
        return Ok(());
    }
    let (header, body) = (short(header), short(body));
    Err(Refusal::mismatch(format!("{name} header says '{header}' where the body says '{body}'")))
}

/// Enough of a client's text to recognise it.
fn short(text: &str) -> &str {
    let end = (0..=ECHO_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

/// Checks `Mcp-Param-*` of a `tools/call` against the tool's schema and the arguments.
///
/// # Errors
/// 400, -32020.
pub fn check_params(
    head: &Head<'_>,
    input_schema: &RawValue,
    arguments: Option<&RawValue>,
) -> Result<(), Refusal> {
    mirror::compare(&head.params, input_schema, arguments).map_err(Refusal::mismatch)
}

/// Whether a method may exist in the modern era; one that we do not know may exist at the server.
#[must_use]
pub fn known_method_modern(method: &str) -> bool {
    !matches!(
        method,
        "initialize"
            | "ping"
            | "logging/setLevel"
            | "resources/subscribe"
            | "resources/unsubscribe"
            | "tasks/list"
            | "tasks/result"
    )
}

/// The answer to a method that nobody serves.
#[must_use]
pub fn unknown_method(method: &str) -> Refusal {
    Refusal::new(404, METHOD_NOT_FOUND, format!("method not found: {}", short(method)))
}

/// The answer to a modern request that needs a capability which its client did not declare.
#[must_use]
pub fn missing_capability(name: &str) -> Refusal {
    let data = format!(r#"{{"requiredCapabilities":{{{}:{{}}}}}}"#, quoted(name));
    let message = format!("server requires the {name} capability for this request");
    Refusal { data: Some(raw(data)), ..Refusal::new(400, MISSING_CAPABILITY, message) }
}

/// The HTTP status for a JSON-RPC error of a server in the modern era.
#[must_use]
pub const fn modern_status(code: i64) -> u16 {
    match code {
        METHOD_NOT_FOUND => 404,
        HEADER_MISMATCH | MISSING_CAPABILITY | UNSUPPORTED_VERSION | PARSE_ERROR | INVALID_REQUEST => 400,
        _ => 200,
    }
}

/// The version that a legacy request behind the handshake speaks; absent, it is the first one of
/// this transport. Not for `initialize`, which negotiates it in its body.
///
/// # Errors
/// 400 for a version that is not spoken here.
pub fn check_legacy_version(head: &Head<'_>) -> Result<&'static str, Refusal> {
    let Some(sent) = head.protocol_version else { return Ok(BATCH_VERSION) };
    let sent = sent.trim_matches([' ', '\t']);
    LEGACY_VERSIONS.into_iter().find(|ours| *ours == sent).ok_or_else(|| {
        let ours = LEGACY_VERSIONS.join(", ");
        let message = format!("unsupported protocol version: {} (supported versions: {ours})", short(sent));
        Refusal::new(400, INVALID_REQUEST, message)
    })
}
