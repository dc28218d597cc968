//! What of a server may be used: what its entry offers, and what a client was granted.
//!
//! ```text
//! *            any run of characters, none included
//! ?            one character
//! git/log_*    tools of servers: a pattern for each, with a slash between
//! ```
//! Patterns name tools as their server does, before any renaming. Must never let through what it
//! cannot decide: a tool that does not say that it only reads is one that writes.

use crate::model::id::{SectionId, ServerId};
use std::collections::BTreeMap;

/// Patterns of one list.
pub const PATTERNS_MAX: usize = 256;
/// Bytes of one pattern.
pub const PATTERN_BYTES_MAX: usize = 256;

/// Headers that are the gateway's own, or that must not be chosen by clients.
pub const NEVER_FORWARDED: &[&str] = &[
    "accept",
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "last-event-id",
    "origin",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Headers that a pattern never means: what proves who a client is, and what differs with each request.
const BY_NAME_ONLY: &[&str] =
    &["authorization", "cookie", "traceparent", "tracestate", "x-amzn-trace-id", "x-api-key", "x-request-id"];

/// Whether a header can be forwarded at all; `name` is in lower case.
#[must_use]
pub fn may_be_forwarded(name: &str) -> bool {
    !NEVER_FORWARDED.contains(&name) && !name.starts_with("mcp-")
}

/// Whether rules forward a header: names, beginnings before a `*`, and behind a `!` what is left out of
/// those. All in lower case.
#[must_use]
pub fn forwards(rules: &[String], name: &str) -> bool {
    let by_pattern = may_be_forwarded(name) && !BY_NAME_ONLY.contains(&name);
    let means = |rule: &String| rule == name || (by_pattern && rule.ends_with('*') && matches(rule, name));
    let leaves_out = |rule: &String| rule.strip_prefix('!').is_some_and(|rule| matches(rule, name));
    rules.iter().any(means) && !rules.iter().any(leaves_out)
}

/// Whether `pattern` describes all of `text`.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    // Where the last star was, and how much of the text it took: one step back is enough.
    let mut star: Option<(&str, &str)> = None;
    loop {
        let mut rest = text.chars();
        match (pattern.chars().next(), rest.next()) {
            (Some('*'), _) => {
                pattern = pattern.get(1..).unwrap_or_default();
                star = Some((pattern, text));
                continue;
            }
            (Some(want), Some(is)) if want == '?' || want == is => {
                pattern = pattern.get(want.len_utf8()..).unwrap_or_default();
                text = rest.as_str();
                continue;
            }
            (None, None) => return true,
            _ => {}
        }
        let Some((after, taken)) = star else { return false };
        let mut more = taken.chars();
        if more.next().is_none() {
            return false;
        }
        star = Some((after, more.as_str()));
        (pattern, text) = (after, more.as_str());
    }
}

/// What an entry offers of its tools (`orchestrator.tools`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolPolicy {
    /// Patterns of tools that are offered; `None` offers all.
    pub allow: Option<Vec<String>>,
    /// Patterns of tools that are not, whatever `allow` says.
    pub deny: Vec<String>,
    /// Names that clients see, by the server's own.
    pub rename: BTreeMap<String, String>,
    /// Only tools that say that they only read.
    pub read_only: bool,
}

impl ToolPolicy {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_open(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a tool is offered; `reads` is what it says of itself.
    #[must_use]
    pub fn admits(&self, own: &str, reads: bool) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, own));
        self.allow.as_deref().is_none_or(any) && !any(&self.deny) && (reads || !self.read_only)
    }

    /// The name that clients see.
    #[must_use]
    pub fn shown<'a>(&'a self, own: &'a str) -> &'a str {
        self.rename.get(own).map_or(own, String::as_str)
    }

    /// The server's name for what clients see as `shown`; `None` when nothing is seen under it.
    #[must_use]
    pub fn own<'a>(&'a self, shown: &'a str) -> Option<&'a str> {
        let renamed = self.rename.iter().find(|(_, new)| *new == shown);
        match renamed {
            Some((own, _)) => Some(own),
            None => (!self.rename.contains_key(shown)).then_some(shown),
        }
    }
}

/// What a client may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Patterns of servers; together with [`Grant::sections`] empty: all of them.
    pub servers: Vec<String>,
    /// Sections whose servers it may use.
    pub sections: Vec<String>,
    /// Patterns of tools, or of servers and tools with a slash between. When there are any, the
    /// client may call those tools and use nothing else: no prompts and no resources.
    pub tools: Vec<String>,
    /// Only tools that say that they only read.
    pub read_only: bool,
}

impl Grant {
    /// Whether it leaves nothing out.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a server may be used at all.
    #[must_use]
    pub fn admits_server(&self, id: &ServerId, section: Option<&SectionId>) -> bool {
        let open = self.servers.is_empty() && self.sections.is_empty();
        let named = || self.servers.iter().any(|pattern| matches(pattern, id.as_str()));
        let within = || section.is_some_and(|own| self.sections.iter().any(|name| name == own.as_str()));
        let has_tools = || {
            let server = |pattern: &String| {
                pattern.split_once('/').is_none_or(|(server, _)| matches(server, id.as_str()))
            };
            self.tools.is_empty() || self.tools.iter().any(server)
        };
        (open || named() || within()) && has_tools()
    }

    /// Whether a tool of an admitted server may be called; `reads` is what it says of itself.
    #[must_use]
    pub fn admits_tool(&self, id: &ServerId, own: &str, reads: bool) -> bool {
        let is = |pattern: &String| match pattern.split_once('/') {
            Some((server, tool)) => matches(server, id.as_str()) && matches(tool, own),
            None => matches(pattern, own),
        };
        (self.tools.is_empty() || self.tools.iter().any(is)) && (reads || !self.read_only)
    }

    /// Whether prompts and resources may be used.
    #[must_use]
    pub fn admits_others(&self) -> bool {
        self.tools.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_forwarded_by_name_and_by_beginning_and_secrets_by_name_alone() {
        let rules = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let some = rules(&["x-user-*", "!x-user-secret*", "authorization", "x-team"]);
        let given =
            ["x-user-id", "x-user-", "x-user-secret", "x-user-secrets", "authorization", "x-team", "x-teams"];
        let forwarded: Vec<&str> = given.into_iter().filter(|name| forwards(&some, name)).collect();
        assert_eq!(forwarded, ["x-user-id", "x-user-", "authorization", "x-team"]);
        let wide = rules(&["x*", "co*", "a*", "mcp*", "h*"]);
        for never in
            ["x-request-id", "x-api-key", "cookie", "authorization", "accept", "mcp-session-id", "host"]
        {
            assert!(!forwards(&wide, never), "{never}");
        }
        assert!(!forwards(&rules(&["!x-a"]), "x-b") && !forwards(&[], "x-a"));
    }
    use proptest::prelude::*;

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn patterns() {
        for (pattern, text) in [
            ("", ""),
            ("*", ""),
            ("*", "anything"),
            ("get_*", "get_time"),
            ("*_time", "get_time"),
            ("*a*b", "xaxbxab"),
            ("g?t", "get"),
            ("?", "ä"),
            ("a**b", "ab"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in
            [("", "a"), ("get_*", "xget_"), ("?", ""), ("*a", "ab"), ("a*b*c", "acb"), ("Get", "get")]
        {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn a_policy_filters_by_the_servers_names_and_shows_others() {
        let policy = ToolPolicy {
            allow: Some(words(&["get_*", "set_x"])),
            deny: words(&["get_secret*"]),
            rename: BTreeMap::from([("get_a".to_owned(), "read".to_owned())]),
            read_only: false,
        };
        assert!(policy.admits("get_a", false) && policy.admits("set_x", false));
        assert!(!policy.admits("get_secrets", true) && !policy.admits("drop", true));
        assert_eq!((policy.shown("get_a"), policy.shown("get_b")), ("read", "get_b"));
        assert_eq!(policy.own("read"), Some("get_a"));
        assert_eq!(policy.own("get_a"), None, "the old name is gone");
        let reads = ToolPolicy { read_only: true, ..policy };
        assert!(reads.admits("get_a", true) && !reads.admits("get_a", false));
    }

    #[test]
    fn a_grant_names_servers_sections_and_tools() {
        let id = |text: &str| ServerId::new(text).unwrap();
        let ops = SectionId("ops".to_owned());
        let grant = Grant { servers: words(&["git*"]), sections: words(&["ops"]), ..Grant::default() };
        assert!(grant.admits_server(&id("github"), None) && grant.admits_server(&id("x"), Some(&ops)));
        assert!(!grant.admits_server(&id("x"), None));
        let tools = Grant { tools: words(&["git/log*", "*/echo"]), ..Grant::default() };
        assert!(tools.admits_server(&id("git"), None) && !tools.admits_others());
        assert!(
            tools.admits_tool(&id("git"), "log_all", false) && tools.admits_tool(&id("x"), "echo", false)
        );
        assert!(!tools.admits_tool(&id("x"), "log_all", false));
        let one = Grant { tools: words(&["git/log"]), ..Grant::default() };
        assert!(!one.admits_server(&id("x"), None), "no tool of it could be called");
        assert!(Grant::default().is_all() && Grant::default().admits_server(&id("x"), None));
        let reads = Grant { read_only: true, ..Grant::default() };
        assert!(reads.admits_tool(&id("x"), "t", true) && !reads.admits_tool(&id("x"), "t", false));
    }

    proptest! {
        #[test]
        fn a_pattern_is_what_a_slow_reader_takes_it_for(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
            fn slow(pattern: &[u8], text: &[u8]) -> bool {
                match (pattern.split_first(), text.split_first()) {
                    (None, None) => true,
                    (Some((b'*', rest)), _) => (0..=text.len()).any(|at| slow(rest, &text[at..])),
                    (Some((p, rest)), Some((t, more))) if *p == b'?' || p == t => slow(rest, more),
                    _ => false,
                }
            }
            prop_assert_eq!(matches(&pattern, &text), slow(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn what_is_shown_leads_back(own in "[a-c]{1,2}", names in proptest::collection::btree_map("[a-c]{1,2}", "[d-f]{1,2}", 0..4)) {
            let targets: std::collections::BTreeSet<&String> = names.values().collect();
            prop_assume!(targets.len() == names.len());
            let policy = ToolPolicy { rename: names.clone(), ..ToolPolicy::default() };
            prop_assert_eq!(policy.own(policy.shown(&own)), Some(own.as_str()));
        }
    }
}
