//! Where a request came from: whose it is, by which door, what its client calls it, and those of its
//! headers that servers elsewhere may get.
//!
//! ```text
//! who        the name of the principal, for people
//! identity   what sessions and connections are bound to: the same, and where headers are passed on, a
//!            digest of them under a key of this run. Other values are another identity
//! ```
//! Must never show a header's value, and never hand one to a server whose entry does not name it.

use crate::gateway::places::{Place, Source};
use crate::model::access::forwards;
use hyper::HeaderMap;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Bytes of a request's id that are kept.
const REQUEST_BYTES_MAX: usize = 128;
/// Bytes of all headers that are passed on together.
const FORWARDED_BYTES_MAX: usize = 16 * 1024;
/// Headers in which proxies and clients give a request an id, the first that is there counts.
const REQUEST_IDS: [&str; 2] = ["x-request-id", "x-amzn-trace-id"];

/// By which way a request came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Door {
    /// The server's own port.
    Port,
    /// `/mcp/{id}`.
    #[default]
    Mcp,
    /// `/mcp` or `/mcp/~{section}`.
    All,
    /// The tool proxy.
    OpenApi,
}

impl Door {
    /// The word in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Port => "port",
            Self::Mcp => "mcp",
            Self::All => "all",
            Self::OpenApi => "openapi",
        }
    }
}

/// Where a request came from.
#[derive(Clone)]
pub struct Origin {
    /// Whose it is, for people.
    pub who: Arc<str>,
    /// What sessions and connections are bound to.
    pub identity: Arc<str>,
    /// By which way it came.
    pub door: Door,
    /// What its client, or a proxy, calls it.
    pub request: Option<Box<str>>,
    headers: BTreeMap<String, String>,
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.headers.keys().collect();
        f.debug_struct("Origin")
            .field("who", &self.who)
            .field("door", &self.door)
            .field("headers", &names)
            .finish_non_exhaustive()
    }
}

impl Origin {
    /// A request without headers that matter.
    #[must_use]
    pub fn new(who: &Arc<str>, door: Door) -> Self {
        let (who, identity) = (Arc::clone(who), Arc::clone(who));
        Self { who, identity, door, request: None, headers: BTreeMap::new() }
    }

    /// The same with its headers, of which those with these names may be passed on; `key` is this run's
    /// own.
    #[must_use]
    pub fn with_headers(mut self, headers: &HeaderMap, names: &[String], key: &[u8; 32]) -> Self {
        self.request = named(headers);
        let mut bytes = 0;
        let meant = headers.keys().filter(|name| !names.is_empty() && forwards(names, name.as_str()));
        for name in meant {
            let mut values = headers.get_all(name).iter();
            // Two of a name, or bytes that are no text: nobody could say which one is meant.
            let (Some(Ok(value)), None) = (values.next().map(|value| value.to_str()), values.next()) else {
                continue;
            };
            bytes += name.as_str().len() + value.len();
            if bytes <= FORWARDED_BYTES_MAX {
                self.headers.insert(name.as_str().to_owned(), value.to_owned());
            }
        }
        if !self.headers.is_empty() {
            self.identity = Arc::from(format!("{}\n{}", self.who, digest(&self.headers, key)));
        }
        self
    }

    /// Whether any of its headers may be passed on.
    #[must_use]
    pub fn has_headers(&self) -> bool {
        !self.headers.is_empty()
    }

    /// The headers that the server at this place gets of it.
    #[must_use]
    pub fn headers_for(&self, place: &Place) -> BTreeMap<String, String> {
        if self.headers.is_empty() || !matches!(place.source, Source::Remote(_)) {
            return BTreeMap::new();
        }
        self.headers_by(place)
    }

    /// Those that a server at this place gets as part of a call, because it has no headers.
    #[must_use]
    pub fn headers_in_call(&self, place: &Place) -> BTreeMap<String, String> {
        if self.headers.is_empty() || matches!(place.source, Source::Remote(_)) {
            return BTreeMap::new();
        }
        self.headers_by(place)
    }

    fn headers_by(&self, place: &Place) -> BTreeMap<String, String> {
        let rules = &place.offer.forward_headers;
        let meant = self.headers.iter().filter(|(name, _)| forwards(rules, name));
        meant.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// The place as its requests reach it: with those headers instead of the entry's of the same name.
    #[must_use]
    pub fn place(&self, place: &Place) -> Option<Place> {
        let own = self.headers_for(place);
        let Source::Remote(decl) = &place.source else { return None };
        if own.is_empty() {
            return None;
        }
        let mut decl = decl.clone();
        decl.headers.retain(|name, _| !own.contains_key(&name.to_ascii_lowercase()));
        decl.headers.extend(own);
        Some(Place { source: Source::Remote(decl), ..place.clone() })
    }

    /// What its client calls it: the id that came with it, else that of its message.
    #[must_use]
    pub fn request_id(&self, id: Option<&RawValue>) -> Option<Box<str>> {
        self.request.clone().or_else(|| id.map(|id| short(id.get())))
    }
}

/// The id that a client or a proxy gave a request.
pub(crate) fn named(headers: &HeaderMap) -> Option<Box<str>> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    REQUEST_IDS.iter().find_map(|name| text(name)).map(short)
}

/// One line of bounded length.
fn short(text: &str) -> Box<str> {
    let text = text.trim_matches('"');
    if text.len() <= REQUEST_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Box::from(text);
    }
    let plain = text.chars().filter(|c| !c.is_control());
    let mut out = String::new();
    for c in plain {
        if out.len() + c.len_utf8() > REQUEST_BYTES_MAX {
            break;
        }
        out.push(c);
    }
    out.into_boxed_str()
}

fn digest(headers: &BTreeMap<String, String>, key: &[u8; 32]) -> String {
    let mut hash = Sha256::new();
    hash.update(key);
    for (name, value) in headers {
        // Neither can have a line's end in it.
        hash.update(format!("{name}\n{value}\n"));
    }
    hash.update(key);
    crate::gateway::sessions::hex(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::{Door, Origin};
    use hyper::HeaderMap;
    use hyper::header::{HeaderName, HeaderValue};
    use std::sync::Arc;

    fn origin(headers: &[(&'static str, &str)]) -> Origin {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        let names = ["x-user".to_owned(), "x-team".to_owned()];
        Origin::new(&Arc::from("ci"), Door::Mcp).with_headers(&map, &names, &[7; 32])
    }

    #[test]
    fn each_set_of_values_is_an_identity_and_shows_none_of_them() {
        let none = origin(&[("accept", "x")]);
        assert_eq!((&*none.identity, &*none.who), ("ci", "ci"));
        let ann = origin(&[("x-user", "ann-secret")]);
        let others = [
            origin(&[("x-user", "bob")]),
            origin(&[("x-team", "ann-secret")]),
            origin(&[("x-user", "ann-secret"), ("x-team", "")]),
            origin(&[]),
        ];
        assert!(others.iter().all(|other| other.identity != ann.identity));
        assert_eq!(origin(&[("accept", "y"), ("x-user", "ann-secret")]).identity, ann.identity);
        assert_eq!(&*ann.who, "ci");
        assert!(!format!("{ann:?} {}", ann.identity).contains("secret"));
        // Said twice, it cannot be told which one is meant.
        assert_eq!(&*origin(&[("x-user", "a"), ("x-user", "b")]).identity, "ci");
    }

    #[test]
    fn a_request_is_called_as_its_proxy_or_client_calls_it() {
        let id = serde_json::value::RawValue::from_string("\"q-7\"".to_owned()).unwrap();
        assert_eq!(origin(&[]).request_id(Some(&id)).as_deref(), Some("q-7"));
        let traced = origin(&[("x-amzn-trace-id", "Root=1-2"), ("x-request-id", "r-1")]);
        assert_eq!(traced.request_id(Some(&id)).as_deref(), Some("r-1"));
        let long = "x".repeat(4096);
        assert_eq!(origin(&[("x-request-id", &long)]).request_id(None).map(|id| id.len()), Some(128));
    }
}
