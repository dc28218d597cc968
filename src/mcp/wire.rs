//! JSON-RPC envelopes over raw text.
//!
//! A message is classified by walking its top-level keys once; `params`, `result` and `error` stay
//! slices of the line they came in. Changing an id is a splice: the bytes before and after it are
//! copied as they are. That is what keeps vendor fields, big integers, `1.0` beside `1`, key order
//! and escapes intact, and what keeps the hot path free of JSON trees.
//!
//! A key that stands twice at the top level is refused: two readers could choose different ones.
//! Nesting is walked without recursion, so depth costs no stack.
//!
//! Must never build a `serde_json::Value` of a message or re-encode a part of one.

use serde::Deserializer as _;
use serde::de::{Deserialize, DeserializeSeed, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Versions with an `initialize` handshake, oldest first.
pub const LEGACY_VERSIONS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
/// The newest version with a handshake: what we ask for.
pub const LEGACY_LATEST: &str = "2025-11-25";
/// The only legacy version whose peers may send arrays of messages.
pub const BATCH_VERSION: &str = "2025-03-26";
/// Versions in which every request carries its own metadata, oldest first.
pub const MODERN_VERSIONS: [&str; 1] = ["2026-07-28"];
/// The newest version without a handshake.
pub const MODERN_LATEST: &str = "2026-07-28";

/// Not JSON.
pub const PARSE_ERROR: i64 = -32700;
/// JSON, but no request.
pub const INVALID_REQUEST: i64 = -32600;
/// No such method.
pub const METHOD_NOT_FOUND: i64 = -32601;
/// Wrong arguments.
pub const INVALID_PARAMS: i64 = -32602;
/// The server failed.
pub const INTERNAL_ERROR: i64 = -32603;
/// Modern era: header and body contradict each other.
pub const HEADER_MISMATCH: i64 = -32020;
/// Modern era: the client lacks a capability that the request needs.
pub const MISSING_CAPABILITY: i64 = -32021;
/// Modern era: the request's protocol version is not spoken here.
pub const UNSUPPORTED_VERSION: i64 = -32022;

/// Messages in one batch we are ready to take apart.
pub const BATCH_MESSAGES_MAX: usize = 256;
/// Bits of an id below the epoch: about a million ids a second before two epochs could touch.
const EPOCH_SHIFT: u32 = 20;
/// Ids must stay exact in a double, as JavaScript keeps them.
pub(crate) const ID_MAX: u64 = (1 << 53) - 1;

/// Which of the two protocol families a peer speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Era {
    /// Handshake first (`initialize`), up to 2025-11-25.
    Legacy,
    /// Metadata in every request, since 2026-07-28.
    Modern,
}

impl Era {
    /// The era of a protocol version; `None` for a version we do not know.
    #[must_use]
    pub fn of(version: &str) -> Option<Self> {
        if LEGACY_VERSIONS.contains(&version) {
            return Some(Self::Legacy);
        }
        MODERN_VERSIONS.contains(&version).then_some(Self::Modern)
    }
}

/// One JSON-RPC message; every part is a slice of the text it was read from.
#[derive(Clone, Debug)]
pub enum Message<'a> {
    /// Wants an answer.
    Request {
        /// As written by its sender.
        id: &'a RawValue,
        /// The method's name, unescaped.
        method: Cow<'a, str>,
        /// As written; absent when the sender wrote none.
        params: Option<&'a RawValue>,
    },
    /// Wants none.
    Notification {
        /// The method's name, unescaped.
        method: Cow<'a, str>,
        /// As written; absent when the sender wrote none.
        params: Option<&'a RawValue>,
    },
    /// The good answer to a request.
    Response {
        /// Of the request.
        id: &'a RawValue,
        /// As written.
        result: &'a RawValue,
    },
    /// The bad answer to a request.
    Error {
        /// Of the request; `None` when the peer could not read it (`null`).
        id: Option<&'a RawValue>,
        /// As written.
        error: &'a RawValue,
    },
}

/// Why a text is not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadMessage {
    /// Not UTF-8.
    NotUtf8,
    /// Not JSON.
    NotJson,
    /// JSON, but neither an object nor an array of objects.
    NotAnObject,
    /// An array of messages where one message was asked for.
    Batch,
    /// A key stands twice at the top level.
    TwiceTheKey,
    /// `jsonrpc` is not `"2.0"`.
    Version,
    /// The id is neither a string nor a number.
    Id,
    /// The method is not a string.
    Method,
    /// No method, result or error, or more than one of them.
    Shape,
}

impl BadMessage {
    /// The JSON-RPC error code to answer with.
    #[must_use]
    pub const fn code(self) -> i64 {
        match self {
            Self::NotUtf8 | Self::NotJson => PARSE_ERROR,
            Self::NotAnObject
            | Self::Batch
            | Self::TwiceTheKey
            | Self::Version
            | Self::Id
            | Self::Method
            | Self::Shape => INVALID_REQUEST,
        }
    }
}

impl fmt::Display for BadMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotUtf8 => "message is not UTF-8",
            Self::NotJson => "message is not JSON",
            Self::NotAnObject => "message is not a JSON object",
            Self::Batch => "batches of messages are not supported",
            Self::TwiceTheKey => "message has the same key twice",
            Self::Version => "message does not say jsonrpc 2.0",
            Self::Id => "message id is neither a string nor a number",
            Self::Method => "message method is not a string",
            Self::Shape => "message is neither a request nor a notification nor an answer",
        })
    }
}

impl std::error::Error for BadMessage {}

#[derive(Default)]
struct Top<'a> {
    jsonrpc: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
    method: Option<&'a RawValue>,
    params: Option<&'a RawValue>,
    result: Option<&'a RawValue>,
    error: Option<&'a RawValue>,
    twice: bool,
}

impl<'a> Top<'a> {
    fn take(&mut self, key: &str, value: &'a RawValue) {
        let slot = match key {
            "jsonrpc" => &mut self.jsonrpc,
            "id" => &mut self.id,
            "method" => &mut self.method,
            "params" => &mut self.params,
            "result" => &mut self.result,
            "error" => &mut self.error,
            _ => return,
        };
        self.twice |= slot.replace(value).is_some();
    }
}

/// Reads one message.
///
/// # Errors
/// What is wrong with it; [`BadMessage::code`] is the answer's error code and [`id_of`] may still
/// find the id to answer to.
pub fn read(bytes: &[u8]) -> Result<Message<'_>, BadMessage> {
    let text = std::str::from_utf8(bytes).map_err(|_not_utf8| BadMessage::NotUtf8)?;
    let mut top = Top::default();
    match text.trim_ascii_start().as_bytes().first() {
        Some(b'{') => {}
        Some(b'[') if is_json(text) => return Err(BadMessage::Batch),
        _ if is_json(text) => return Err(BadMessage::NotAnObject),
        _ => return Err(BadMessage::NotJson),
    }
    each_member(text, &mut |key, value| top.take(&key, value))?;
    if top.twice {
        return Err(BadMessage::TwiceTheKey);
    }
    if top.jsonrpc.and_then(text_of).as_deref() != Some("2.0") {
        return Err(BadMessage::Version);
    }
    classify(&top)
}

fn classify<'a>(top: &Top<'a>) -> Result<Message<'a>, BadMessage> {
    let id_kind = top.id.map(id_is);
    if id_kind == Some(IdIs::Wrong) {
        return Err(BadMessage::Id);
    }
    match (top.method, top.result, top.error) {
        (Some(method), None, None) => {
            let method = text_of(method).ok_or(BadMessage::Method)?;
            match (top.id, id_kind) {
                (Some(id), Some(IdIs::Usable)) => Ok(Message::Request { id, method, params: top.params }),
                (Some(_), _) => Err(BadMessage::Id),
                (None, _) => Ok(Message::Notification { method, params: top.params }),
            }
        }
        (None, Some(result), None) => match (top.id, id_kind) {
            (Some(id), Some(IdIs::Usable)) => Ok(Message::Response { id, result }),
            _ => Err(BadMessage::Id),
        },
        (None, None, Some(error)) => {
            Ok(Message::Error { id: top.id.filter(|_| id_kind == Some(IdIs::Usable)), error })
        }
        _ => Err(BadMessage::Shape),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum IdIs {
    Usable,
    Null,
    Wrong,
}

fn id_is(id: &RawValue) -> IdIs {
    match id.get().as_bytes().first() {
        Some(b'"' | b'-' | b'0'..=b'9') => IdIs::Usable,
        Some(b'n') => IdIs::Null,
        _ => IdIs::Wrong,
    }
}

/// The id of a text that may otherwise be wrong, for the error answer to it.
#[must_use]
pub fn id_of(bytes: &[u8]) -> Option<&RawValue> {
    let mut top = Top::default();
    each_member(std::str::from_utf8(bytes).ok()?, &mut |key, value| top.take(&key, value)).ok()?;
    top.id.filter(|id| id_is(id) == IdIs::Usable)
}

/// The messages of a batch, each to be read on its own.
///
/// # Errors
/// When the text is no array, or holds none or more than [`BATCH_MESSAGES_MAX`] members.
pub fn batch(bytes: &[u8]) -> Result<Vec<&RawValue>, BadMessage> {
    let text = std::str::from_utf8(bytes).map_err(|_not_utf8| BadMessage::NotUtf8)?;
    let parts: Vec<&RawValue> = serde_json::from_str(text).map_err(|_no_array| BadMessage::NotAnObject)?;
    if parts.is_empty() || parts.len() > BATCH_MESSAGES_MAX {
        return Err(BadMessage::Shape);
    }
    Ok(parts)
}

/// Whether a text is one JSON value.
#[must_use]
pub fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// Walks the members of a JSON object in order; keys come unescaped, values as written.
///
/// # Errors
/// [`BadMessage::NotJson`] when `object` is not exactly one JSON object.
pub fn each_member<'a>(
    object: &'a str,
    visit: &mut dyn FnMut(Cow<'a, str>, &'a RawValue),
) -> Result<(), BadMessage> {
    let mut reader = serde_json::Deserializer::from_str(object);
    reader.deserialize_map(Members(visit)).map_err(|_syntax| BadMessage::NotJson)?;
    reader.end().map_err(|_trailing| BadMessage::NotJson)
}

/// The value of `key` in a JSON object, the first if there are several.
#[must_use]
pub fn member<'a>(object: &'a RawValue, key: &str) -> Option<&'a RawValue> {
    // A raw value is valid already: finding a member need not prove it once more.
    serde_json::from_str(crate::mcp::scan::member(object.get(), key)?).ok()
}

struct Members<'v, 'a>(&'v mut dyn FnMut(Cow<'a, str>, &'a RawValue));

impl<'a> Visitor<'a> for Members<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(Key)? {
            (self.0)(key, map.next_value::<&'a RawValue>()?);
        }
        Ok(())
    }
}

/// Reads a key without copying it where it has no escapes.
struct Key;

impl<'a> DeserializeSeed<'a> for Key {
    type Value = Cow<'a, str>;

    fn deserialize<D: serde::Deserializer<'a>>(self, reader: D) -> Result<Cow<'a, str>, D::Error> {
        reader.deserialize_str(self)
    }
}

impl<'a> Visitor<'a> for Key {
    type Value = Cow<'a, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, key: &'a str) -> Result<Cow<'a, str>, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_str<E>(self, key: &str) -> Result<Cow<'a, str>, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}

/// The text of a JSON string, unescaped; `None` for any other value.
#[must_use]
pub fn text_of(value: &RawValue) -> Option<Cow<'_, str>> {
    let inner = value.get().strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return String::deserialize(value).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

/// `text` with the slice `part` of it replaced.
///
/// `part` must be a slice of `text` itself, as the parts of a [`Message`] are; otherwise `None`.
#[must_use]
pub fn splice(text: &str, part: &str, with: &str) -> Option<String> {
    let start = (part.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
    let end = start.checked_add(part.len())?;
    if text.get(start..end)? != part {
        return None;
    }
    let (head, tail) = (text.get(..start)?, text.get(end..)?);
    let mut out = String::with_capacity(head.len() + with.len() + tail.len());
    out.push_str(head);
    out.push_str(with);
    out.push_str(tail);
    Some(out)
}

/// The message on one line. In JSON a raw line break can only stand between tokens, so making it a
/// space changes no value.
#[must_use]
pub fn one_line(text: &str) -> Cow<'_, str> {
    if memchr::memchr2(b'\n', b'\r', text.as_bytes()).is_some() {
        Cow::Owned(text.replace(['\n', '\r'], " "))
    } else {
        Cow::Borrowed(text)
    }
}

/// The first id of a run that began at `unix_secs`: above every id of every earlier run, exact in
/// a double, and never zero. An answer meant for an earlier run can therefore be told apart.
#[must_use]
pub fn first_id(unix_secs: u64) -> u64 {
    unix_secs.checked_mul(1 << EPOCH_SHIFT).filter(|id| *id <= ID_MAX / 2 && *id > 0).unwrap_or(1)
}

/// One of our own ids as it came back. Servers that keep numbers as doubles or ids as text
/// (`7.0`, `"7"`) are understood.
#[must_use]
pub fn own_id(id: &RawValue) -> Option<u64> {
    let text = id.get();
    let text = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text);
    let digits = text.strip_suffix(".0").unwrap_or(text);
    digits.parse().ok()
}

/// The id of an answer of which only the ends were kept (a line over the limit): in front of
/// everything large or behind it.
///
/// Sound for JSON text: inside a string a quote is always escaped, so `,"id":7}` at the very end
/// can only be the outermost object's last member.
#[must_use]
pub fn id_at_the_ends(head: &[u8], tail: &[u8]) -> Option<u64> {
    let head = String::from_utf8_lossy(head);
    let from_head = head.split_once(r#""id":"#).and_then(|(before, rest)| {
        let plain = before.bytes().filter(|b| *b == b'{').count() == 1 && !before.contains("\\\"");
        let digits: String = rest.trim_ascii_start().chars().take_while(char::is_ascii_digit).collect();
        let ended = rest.trim_ascii_start().get(digits.len()..)?.starts_with([',', ' ']);
        (plain && ended).then(|| digits.parse().ok())?
    });
    let tail = String::from_utf8_lossy(tail);
    let from_tail = tail.trim_ascii_end().strip_suffix('}').and_then(|rest| {
        let digits = rest.rsplit(|c: char| !c.is_ascii_digit()).next()?;
        let before = rest.strip_suffix(digits)?.trim_ascii_end();
        before.ends_with(r#","id":"#).then(|| digits.parse().ok())?
    });
    from_head.or(from_tail)
}

/// A JSON-RPC error object, read for people and for decisions; `raw` is what is passed on.
#[derive(Clone, Debug)]
pub struct RpcError {
    /// `error.code`; 0 when it is not an integer.
    pub code: i64,
    /// `error.message`.
    pub message: String,
    /// The whole object as written.
    pub raw: Box<RawValue>,
}

impl RpcError {
    /// Reads an error object; never fails, since there is nobody to complain to.
    #[must_use]
    pub fn read(raw: &RawValue) -> Self {
        let code = member(raw, "code").and_then(|code| code.get().parse().ok()).unwrap_or(0);
        let message = member(raw, "message").and_then(text_of).unwrap_or_default().into_owned();
        Self { code, message, raw: raw.to_owned() }
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {})", self.message, self.code)
    }
}
