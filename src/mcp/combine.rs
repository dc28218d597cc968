//! Many servers behind one endpoint: names that tell whose a tool, prompt or resource is, lists put
//! together, and the way back.
//!
//! ```text
//! tools, prompts      time__get_current_time      id, two underscores, the name
//! over 64 characters  time__get_curr…_1b2c3d4e    cut, and a hash of both
//! resources           mcp://time/file:///etc/hosts   the server's URI unchanged behind its id
//! templates           mcp://time/file:///{path}      the same; what is expanded leads back as well
//! ```
//! An id has no `__` and ends with a letter or digit, so a name leads back to its id; one that was
//! cut does not, and is looked up. A list is in the order of ids and names, and a cursor names the
//! last entry that was shown, so that pages neither repeat nor miss what stays in the list.
//!
//! Must never change more of an entry or a result than the names in it.

use crate::mcp::base64;
use crate::mcp::object::quoted;
use crate::mcp::wire::{each_member, member, text_of};
use crate::model::id::ServerId;
use crate::model::traffic::Hints;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

/// Characters that a name may have: what clients and models take, also when more is allowed.
pub const NAME_MAX: usize = 64;
/// Between the id and the name.
pub const SEPARATOR: &str = "__";
/// Hexadecimal digits of the hash in a name that was cut.
const HASH_DIGITS: usize = 8;
/// Before the id and the server's own URI.
const SCHEME: &str = "mcp://";
/// Entries of one page.
pub const PAGE_ENTRIES_MAX: usize = 1000;
/// Bytes of one page, but for an entry that alone is larger.
pub const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of a cursor that is looked at.
const CURSOR_BYTES_MAX: usize = 8 * 1024;

/// Kinds of lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `tools/list`.
    Tools,
    /// `prompts/list`.
    Prompts,
    /// `resources/list`.
    Resources,
    /// `resources/templates/list`.
    Templates,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Tools, Self::Prompts, Self::Resources, Self::Templates];

    /// The kind that a method lists.
    #[must_use]
    pub fn of_method(method: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.method() == method)
    }

    /// The method that lists it.
    #[must_use]
    pub const fn method(self) -> &'static str {
        match self {
            Self::Tools => "tools/list",
            Self::Prompts => "prompts/list",
            Self::Resources => "resources/list",
            Self::Templates => "resources/templates/list",
        }
    }

    /// The member of a result that holds the entries.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources => "resources",
            Self::Templates => "resourceTemplates",
        }
    }

    /// The capability of servers that have it, and what its change notification is called by.
    #[must_use]
    pub const fn capability(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources | Self::Templates => "resources",
        }
    }

    /// The member of an entry that names it.
    #[must_use]
    pub const fn name_key(self) -> &'static str {
        match self {
            Self::Tools | Self::Prompts => "name",
            Self::Resources => "uri",
            Self::Templates => "uriTemplate",
        }
    }
}

/// The name of a server's tool or prompt among those of all servers: at most [`NAME_MAX`]
/// characters, of letters, digits, `_`, `-` and `.`.
#[must_use]
pub fn name(id: &ServerId, own: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let whole = format!("{id}{SEPARATOR}{own}");
    if whole.len() <= NAME_MAX && whole.chars().all(plain) && !own.is_empty() {
        return whole;
    }
    let digest = Sha256::digest(format!("{id}\0{own}"));
    let hash: String = digest.iter().take(HASH_DIGITS / 2).map(|byte| format!("{byte:02x}")).collect();
    let head = whole.chars().map(|c| if plain(c) { c } else { '_' }).take(NAME_MAX - 1 - HASH_DIGITS);
    let mut out: String = head.collect();
    out.push('_');
    out.push_str(&hash);
    out
}

/// Whether a name may be one that was cut: it is looked up before it is taken apart.
#[must_use]
pub fn may_be_cut(name: &str) -> bool {
    let tail = name.len().checked_sub(HASH_DIGITS + 1).and_then(|at| name.split_at_checked(at));
    tail.and_then(|(_, tail)| tail.strip_prefix('_'))
        .is_some_and(|hash| hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}

/// The id and the server's own name in a name that was not cut.
#[must_use]
pub fn parts(name: &str) -> Option<(ServerId, &str)> {
    let (id, own) = name.split_once(SEPARATOR)?;
    Some((ServerId::new(id).ok()?, own)).filter(|(_, own)| !own.is_empty())
}

/// The URI of a server's resource, or template of some, among those of all servers.
#[must_use]
pub fn uri(id: &ServerId, own: &str) -> String {
    format!("{SCHEME}{id}/{own}")
}

/// The id and the server's own URI.
#[must_use]
pub fn uri_parts(uri: &str) -> Option<(ServerId, &str)> {
    let (id, own) = uri.strip_prefix(SCHEME)?.split_once('/')?;
    Some((ServerId::new(id).ok()?, own)).filter(|(_, own)| !own.is_empty())
}

/// An object with the text of `key` replaced, in its place; `None` when it has none.
#[must_use]
pub fn renamed(object: &RawValue, key: &str, with: &str) -> Option<Box<RawValue>> {
    let old = member(object, key)?;
    let text = crate::mcp::wire::splice(object.get(), old.get(), &quoted(with))?;
    RawValue::from_string(text).ok()
}

/// What the name of `key` in an object says.
#[must_use]
pub fn named(object: &RawValue, key: &str) -> Option<String> {
    member(object, key).and_then(text_of).map(std::borrow::Cow::into_owned)
}

/// Whether a tool says of itself that it only reads.
#[must_use]
pub fn only_reads(tool: &RawValue) -> bool {
    member(tool, "annotations")
        .and_then(|annotations| member(annotations, "readOnlyHint"))
        .is_some_and(|hint| hint.get() == "true")
}

/// What a tool says of its own calls.
#[must_use]
pub fn hints(tool: &RawValue) -> Hints {
    let annotations = member(tool, "annotations");
    let says = |hint| annotations.and_then(|all| member(all, hint)).is_some_and(|hint| hint.get() == "true");
    Hints { reads: says("readOnlyHint"), repeats: says("idempotentHint") }
}

/// Whether params say more than which tool is called with what: a task, for example.
#[must_use]
pub fn has_more_than_a_call(params: &RawValue) -> bool {
    let mut more = false;
    let read = each_member(params.get(), &mut |name, _| {
        more |= !matches!(name.as_ref(), "name" | "arguments" | "_meta");
    });
    more || read.is_err()
}

/// A result with the URIs in it as clients of all servers know them: of resources that were read,
/// and of those that a tool or prompt points to. `None` when there is none to change.
#[must_use]
pub fn outward(id: &ServerId, method: &str, result: &RawValue) -> Option<Box<RawValue>> {
    memchr::memmem::find(result.get().as_bytes(), b"uri")?;
    let mut edits = Vec::new();
    match method {
        "resources/read" => {
            for content in list(member(result, "contents")?) {
                edits.extend(uri_of(content));
            }
        }
        "tools/call" => blocks(member(result, "content")?, &mut edits),
        "prompts/get" => {
            for message in list(member(result, "messages")?) {
                if let Some(content) = member(message, "content") {
                    blocks(content, &mut edits);
                }
            }
        }
        _ => return None,
    }
    let mut out = String::with_capacity(result.get().len() + edits.len() * 80);
    let (text, base) = (result.get(), result.get().as_ptr() as usize);
    let mut from = 0;
    for old in edits {
        let at = (old.get().as_ptr() as usize).checked_sub(base)?;
        let own = text_of(old)?;
        out.push_str(text.get(from..at)?);
        out.push_str(&quoted(&uri(id, &own)));
        from = at + old.get().len();
    }
    if from == 0 {
        return None;
    }
    out.push_str(text.get(from..)?);
    RawValue::from_string(out).ok()
}

fn list(value: &RawValue) -> Vec<&RawValue> {
    serde_json::from_str(value.get()).unwrap_or_default()
}

fn uri_of(object: &RawValue) -> Option<&RawValue> {
    member(object, "uri").filter(|uri| text_of(uri).is_some())
}

/// The URIs of one content block, or of a list of them.
fn blocks<'a>(content: &'a RawValue, edits: &mut Vec<&'a RawValue>) {
    let all = if content.get().starts_with('[') { list(content) } else { vec![content] };
    for block in all {
        match member(block, "type").and_then(text_of).as_deref() {
            Some("resource_link") => edits.extend(uri_of(block)),
            Some("resource") => edits.extend(member(block, "resource").and_then(uri_of)),
            _ => {}
        }
    }
}

/// One entry of a list of all servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Whose.
    pub id: &'a str,
    /// Its name among all.
    pub name: &'a str,
    /// As clients get it.
    pub text: &'a str,
}

/// One page of `entries`, which are in order of ids and names, behind `cursor`: the text of the
/// result. `None` when the cursor is none of ours.
#[must_use]
pub fn page(kind: Kind, entries: &[Entry<'_>], cursor: Option<&str>) -> Option<Box<RawValue>> {
    let after = match cursor {
        Some(cursor) => Some(read_cursor(kind, cursor)?),
        None => None,
    };
    let behind = |entry: &&Entry<'_>| {
        after.as_ref().is_none_or(|(id, name)| (entry.id, entry.name) > (id.as_str(), name.as_str()))
    };
    let (mut out, mut last, mut next) = (format!("{{{}:[", quoted(kind.key())), None, None);
    for (count, entry) in entries.iter().filter(behind).enumerate() {
        let full = count >= PAGE_ENTRIES_MAX || out.len() + entry.text.len() > PAGE_BYTES_MAX;
        if let Some(last) = last.filter(|_| full) {
            next = Some(cursor_of(kind, last));
            break;
        }
        if last.is_some() {
            out.push(',');
        }
        out.push_str(entry.text);
        last = Some(entry);
    }
    out.push(']');
    if let Some(next) = next {
        out.push_str(&format!(r#","nextCursor":{}"#, quoted(&next)));
    }
    out.push('}');
    RawValue::from_string(out).ok()
}

fn cursor_of(kind: Kind, last: &Entry<'_>) -> String {
    base64::encode(format!("{}\n{}\n{}", kind.key(), last.id, last.name).as_bytes())
}

fn read_cursor(kind: Kind, cursor: &str) -> Option<(String, String)> {
    let text = Some(cursor).filter(|cursor| cursor.len() <= CURSOR_BYTES_MAX).and_then(base64::decode)?;
    let text = String::from_utf8(text).ok()?;
    let (own, rest) = text.split_once('\n')?;
    let (id, name) = rest.split_once('\n')?;
    (own == kind.key()).then(|| (id.to_owned(), name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn id(text: &str) -> ServerId {
        ServerId::new(text).unwrap()
    }

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn names_are_short_and_lead_back() {
        assert_eq!(name(&id("time"), "get_now"), "time__get_now");
        assert_eq!(parts("time___x"), Some((id("time"), "_x")));
        assert_eq!(parts("a__b__c"), Some((id("a"), "b__c")));
        for none in ["time", "time__", "__x", "Time__x", "mcp__x"] {
            assert_eq!(parts(none), None, "{none}");
        }
        let long = name(&id("time"), &"x".repeat(80));
        assert_eq!(long.len(), NAME_MAX);
        assert!(long.starts_with("time__xxx") && may_be_cut(&long));
        assert_ne!(long, name(&id("time"), &"x".repeat(81)));
        let odd = name(&id("time"), "größe in m");
        assert!(odd.starts_with("time__gr__e_in_m_") && may_be_cut(&odd), "{odd}");
        assert!(!may_be_cut("time__get_now") && !may_be_cut(""));
    }

    #[test]
    fn names_that_cannot_stay_are_told_apart_and_the_same_every_time() {
        // Ids that are one after they are cut; names that are, by their length or by what is not taken.
        let ids = ["weird".to_owned(), "a".repeat(62) + "b", "a".repeat(62) + "c"];
        let own = [
            "x".repeat(200),
            "x".repeat(199) + "y",
            "x".repeat(10_000),
            "größe in m".to_owned(),
            "grösse in m".to_owned(),
            "名前".to_owned(),
            "👍👍".to_owned(),
            "a/b".to_owned(),
            "a b".to_owned(),
            "a\u{0}b".to_owned(),
            "a\"b".to_owned(),
            "..".to_owned(),
            String::new(),
        ];
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let mut seen = BTreeSet::new();
        for (server, own) in ids.iter().flat_map(|server| own.iter().map(move |own| (server, own))) {
            let merged = name(&id(server), own);
            assert!(merged.len() <= NAME_MAX && merged.chars().all(plain), "{merged}");
            assert!(may_be_cut(&merged) || parts(&merged).is_some_and(|(_, back)| back == own), "{merged}");
            assert!(seen.insert(merged.clone()), "{merged} is another's too");
        }
        // Clients keep names in their settings: no other version may make others of them.
        let kept = format!("weird__{}_dce137b3", "x".repeat(48));
        assert!([name(&id("weird"), &own[0]), name(&id("weird"), &own[1])].contains(&kept));
        assert_eq!(name(&id("weird"), "größe in m"), "weird__gr__e_in_m_f97bc9f4");
        assert_eq!(name(&id("weird"), ""), "weird___a0dfdf18");
    }

    #[test]
    fn uris_lead_back_as_templates_do() {
        let whole = uri(&id("fs"), "file:///a b?x#y");
        assert_eq!(whole, "mcp://fs/file:///a b?x#y");
        assert_eq!(uri_parts(&whole), Some((id("fs"), "file:///a b?x#y")));
        assert_eq!(uri_parts("mcp://fs/mcp://fs/x"), Some((id("fs"), "mcp://fs/x")));
        for none in ["file:///x", "mcp://fs", "mcp://fs/", "mcp:///x", "mcp://F/x"] {
            assert_eq!(uri_parts(none), None, "{none}");
        }
    }

    #[test]
    fn only_names_change() {
        let tool = raw(r#"{"x":1.0, "name" : "a","annotations":{"readOnlyHint":true}}"#);
        let changed = renamed(&tool, "name", "b\"").unwrap();
        assert_eq!(changed.get(), r#"{"x":1.0, "name" : "b\"","annotations":{"readOnlyHint":true}}"#);
        assert!(only_reads(&tool) && !only_reads(&raw(r#"{"annotations":{}}"#)));
        let read = raw(r#"{"contents":[ {"uri":"a:\u0031","text":"uri"},{"n":1.0}]}"#);
        let out = outward(&id("s"), "resources/read", &read).unwrap();
        assert_eq!(out.get(), r#"{"contents":[ {"uri":"mcp://s/a:1","text":"uri"},{"n":1.0}]}"#);
        let call = raw(
            r#"{"content":[{"type":"resource_link","uri":"a:1"},{"type":"text","uri":"no"},{"type":"resource","resource":{"uri":"b:2"}}]}"#,
        );
        let out = outward(&id("s"), "tools/call", &call).unwrap();
        assert!(out.get().contains("mcp://s/a:1") && out.get().contains("mcp://s/b:2"));
        assert!(out.get().contains(r#""uri":"no""#));
        let prompt = raw(r#"{"messages":[{"content":{"type":"resource","resource":{"uri":"b:2"}}}]}"#);
        assert!(outward(&id("s"), "prompts/get", &prompt).unwrap().get().contains("mcp://s/b:2"));
        for plain in [r#"{"content":[{"type":"text","text":"a uri"}]}"#, "{}"] {
            assert!(outward(&id("s"), "tools/call", &raw(plain)).is_none());
        }
    }

    #[test]
    fn a_cursor_of_another_list_is_none() {
        let entries = [Entry { id: "a", name: "a__x", text: "{}" }];
        let cursor = cursor_of(Kind::Tools, &entries[0]);
        assert!(page(Kind::Tools, &entries, Some(&cursor)).is_some());
        for bad in ["", "x", "AAAA", &"A".repeat(CURSOR_BYTES_MAX + 4)] {
            assert!(page(Kind::Tools, &entries, Some(bad)).is_none(), "{bad}");
        }
        assert!(page(Kind::Prompts, &entries, Some(&cursor)).is_none());
    }

    proptest! {
        #[test]
        fn a_name_leads_back_or_is_looked_up(server in "[a-z0-9]([a-z0-9-]{0,60}[a-z0-9])?", own in "[a-zA-Z_. -]{1,70}") {
            prop_assume!(ServerId::new(&server).is_ok());
            let id = id(&server);
            let merged = name(&id, &own);
            prop_assert!(merged.len() <= NAME_MAX && !merged.contains(' '));
            prop_assert_eq!(&merged, &name(&id, &own), "the same every time");
            if !may_be_cut(&merged) {
                prop_assert_eq!(parts(&merged), Some((id.clone(), own.as_str())));
            }
            let whole = uri(&id, &own);
            prop_assert_eq!(uri_parts(&whole), Some((id, own.as_str())));
        }

        #[test]
        fn pages_show_every_entry_that_stays_exactly_once(
            first in proptest::collection::btree_set((0..4_u8, 0..900_u16), 0..1500),
            gone in proptest::collection::btree_set((0..4_u8, 0..900_u16), 0..40),
            new in proptest::collection::btree_set((0..4_u8, 0..900_u16), 0..40),
        ) {
            let all = |set: &BTreeSet<(u8, u16)>| -> Vec<(String, String)> {
                set.iter().map(|(id, n)| (format!("s{id}"), format!("s{id}__t{n:04}"))).collect()
            };
            let show = |list: &[(String, String)], cursor: Option<&str>| {
                let entries: Vec<Entry<'_>> =
                    list.iter().map(|(id, name)| Entry { id, name, text: "7" }).collect();
                let page = page(Kind::Tools, &entries, cursor).unwrap();
                let count = serde_json::from_str::<serde_json::Value>(page.get()).unwrap();
                let next = count["nextCursor"].as_str().map(str::to_owned);
                (count["tools"].as_array().unwrap().len(), next)
            };
            let before = all(&first);
            let (shown, next) = show(&before, None);
            prop_assert_eq!(shown, before.len().min(PAGE_ENTRIES_MAX));
            prop_assert_eq!(next.is_some(), before.len() > PAGE_ENTRIES_MAX);
            if let Some(next) = next {
                let last = &before[shown - 1];
                let changed: BTreeSet<_> = first.difference(&gone).chain(&new).copied().collect();
                let after = all(&changed);
                let want = after.iter().filter(|entry| *entry > last).count();
                prop_assert_eq!(show(&after, Some(&next)), (want, None));
            }
        }
    }
}
