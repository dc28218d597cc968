//! What servers say about themselves: the result of `initialize` and of `server/discover`.
//!
//! Read leniently, for decisions and for people; what is passed on to others is always `raw`.
//!
//! Must never refuse an answer for a field that we do not need.

use crate::mcp::meta::SERVER_INFO_KEY;
use crate::mcp::wire::{member, text_of};
use serde_json::value::RawValue;

/// Versions of a server's list that are looked at.
const VERSIONS_MAX: usize = 64;

/// Who we say we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientInfo {
    /// The product's name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// What a server says about itself, of either era.
#[derive(Clone, Debug)]
pub struct ServerInfo {
    /// The version that both sides speak from now on.
    pub protocol_version: String,
    /// `serverInfo.name`; empty when not told.
    pub name: String,
    /// `serverInfo.version`; empty when not told.
    pub version: String,
    /// The whole result as written.
    pub raw: Box<RawValue>,
}

impl ServerInfo {
    /// Reads the result of `initialize`; `None` when it names no protocol version.
    #[must_use]
    pub fn of_initialize(result: &RawValue) -> Option<Self> {
        let protocol_version = text_of(member(result, "protocolVersion")?)?.into_owned();
        Some(Self::named(result, protocol_version, member(result, "serverInfo")))
    }

    /// Reads the result of `server/discover`, agreed on `version`.
    #[must_use]
    pub fn of_discover(result: &RawValue, version: &str) -> Self {
        let info = member(result, "_meta").and_then(|meta| member(meta, SERVER_INFO_KEY));
        Self::named(result, version.to_owned(), info.or_else(|| member(result, "serverInfo")))
    }

    /// `capabilities`, as written.
    #[must_use]
    pub fn capabilities(&self) -> Option<&RawValue> {
        member(&self.raw, "capabilities")
    }

    fn named(result: &RawValue, protocol_version: String, info: Option<&RawValue>) -> Self {
        let part =
            |key| info.and_then(|info| member(info, key)).and_then(text_of).unwrap_or_default().into_owned();
        Self { protocol_version, name: part("name"), version: part("version"), raw: result.to_owned() }
    }
}

/// The versions in a list member of `object`, such as `supportedVersions` or `supported`.
#[must_use]
pub fn versions(object: &RawValue, key: &str) -> Option<Vec<String>> {
    let list: Vec<&RawValue> = serde_json::from_str(member(object, key)?.get()).ok()?;
    Some(
        list.into_iter()
            .take(VERSIONS_MAX)
            .filter_map(|v| text_of(v).map(std::borrow::Cow::into_owned))
            .collect(),
    )
}

/// One page of a list: its entries as written, and where the next page begins.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The entries.
    pub entries: Vec<Box<RawValue>>,
    /// The cursor of the next page; `None` at the end.
    pub next: Option<String>,
}

/// Reads a page of `tools/list` and its kin; `None` when `key` is no list.
#[must_use]
pub fn page(result: &RawValue, key: &str) -> Option<Page> {
    let entries: Vec<&RawValue> = serde_json::from_str(member(result, key)?.get()).ok()?;
    let next = member(result, "nextCursor").and_then(text_of).map(std::borrow::Cow::into_owned);
    Some(Page { entries: entries.into_iter().map(ToOwned::to_owned).collect(), next })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).expect("json")
    }

    #[test]
    fn both_eras_are_read() {
        let text = r#"{"serverInfo":{"name":"s","version":"2","x":1},"protocolVersion":"2025-06-18","capabilities":{"tools":{}}}"#;
        let info = ServerInfo::of_initialize(&raw(text)).expect("info");
        assert_eq!(
            (info.protocol_version.as_str(), info.name.as_str(), info.version.as_str()),
            ("2025-06-18", "s", "2")
        );
        assert_eq!(info.capabilities().map(RawValue::get), Some(r#"{"tools":{}}"#));
        assert_eq!(info.raw.get(), text);
        assert!(ServerInfo::of_initialize(&raw("{}")).is_none());
        let text = r#"{"supportedVersions":["2026-07-28",7],"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"n"}}}"#;
        assert_eq!(ServerInfo::of_discover(&raw(text), "2026-07-28").name, "n");
        assert_eq!(versions(&raw(text), "supportedVersions"), Some(vec!["2026-07-28".to_owned()]));
    }

    #[test]
    fn pages_keep_their_entries_as_written() {
        let page =
            page(&raw(r#"{"tools":[{"name":"a","x":1.0}, {"name":"b"}],"nextCursor":"p\n2"}"#), "tools")
                .expect("page");
        assert_eq!(
            page.entries.iter().map(|e| e.get()).collect::<Vec<_>>(),
            [r#"{"name":"a","x":1.0}"#, r#"{"name":"b"}"#]
        );
        assert_eq!(page.next.as_deref(), Some("p\n2"));
        assert!(super::page(&raw(r#"{"tools":{}}"#), "tools").is_none());
    }
}
