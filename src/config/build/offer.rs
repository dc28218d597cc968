//! What of a server is offered: `orchestrator.tools` and `forwardHeaders`.
//!
//! Must never take a pattern that cannot mean anything: a filter with a typing error in it would
//! let through what it was written against.

use crate::config::build::{Builder, Work};
use crate::config::codes;
use crate::config::merged::Merged;
use crate::config::node::Node;
use crate::config::settings::GatewayAuth;
use crate::model::access::{PATTERN_BYTES_MAX, PATTERNS_MAX, ToolPolicy};
use crate::model::server::ServerKind;
use std::collections::{BTreeMap, BTreeSet};

/// Headers that are the gateway's own, or that must not be chosen by clients.
const NEVER_FORWARDED: &[&str] = &[
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
/// Headers that one entry may forward.
const FORWARDED_MAX: usize = 16;

/// `orchestrator.tools`, merged.
pub(super) fn tools(merged: &Merged) -> ToolPolicy {
    let rename = merged.get("tools.rename").map(|value| renames(&value.node)).unwrap_or_default();
    ToolPolicy {
        allow: merged.words("tools.allow"),
        deny: merged.words("tools.deny").unwrap_or_default(),
        rename: rename.into_iter().collect(),
        read_only: merged.flag("tools.readOnly") == Some(true),
    }
}

/// `orchestrator.forwardHeaders`, in lower case.
pub(super) fn forward_headers(merged: &Merged) -> Vec<String> {
    let names = merged.words("forwardHeaders").unwrap_or_default();
    let names: BTreeSet<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
    names.into_iter().collect()
}

fn renames(node: &Node) -> Vec<(String, String)> {
    node.members()
        .iter()
        .filter_map(|member| Some((member.key.clone(), member.value.scalar()?)))
        .filter(|(own, new)| own != new)
        .collect()
}

impl Builder<'_, '_> {
    /// Checks what the tables cannot; false after an error.
    pub(super) fn check_offer(&mut self, work: &Work<'_>, kind: &ServerKind) -> bool {
        let mark = self.sink.mark();
        for key in ["tools.allow", "tools.deny"] {
            if let Some(value) = work.merged.get(key) {
                self.check_patterns(key, &value.node);
            }
        }
        if let Some(value) = work.merged.get("tools.rename") {
            self.check_renames(&value.node);
        }
        self.check_forwarded(work, kind);
        !self.sink.since(mark).iter().any(|problem| problem.is_error())
    }

    pub(super) fn check_patterns(&mut self, key: &str, node: &Node) {
        if node.items().len() > PATTERNS_MAX {
            let message = format!("'{key}' has more than {PATTERNS_MAX} patterns");
            self.sink.error(codes::INVALID_VALUE, node.at, message);
        }
        for item in node.items() {
            let pattern = item.scalar().unwrap_or_default();
            if pattern.is_empty() || pattern.len() > PATTERN_BYTES_MAX {
                let message = format!("a pattern of '{key}' has from 1 to {PATTERN_BYTES_MAX} characters");
                self.sink.error(codes::INVALID_VALUE, item.at, message);
            }
        }
    }

    fn check_renames(&mut self, node: &Node) {
        let mut taken: BTreeMap<String, String> = BTreeMap::new();
        for member in node.members() {
            let Some(new) = member.value.scalar() else { continue };
            let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
            if new.is_empty() || new.len() > 64 || !new.chars().all(good) {
                let message = format!(
                    "the new name of tool '{}' has from 1 to 64 letters, digits, '_', '-' and '.'",
                    member.key
                );
                self.sink.error(codes::INVALID_VALUE, member.value.at, message);
            }
            if let Some(other) = taken.insert(new.clone(), member.key.clone()) {
                let message = format!("tools '{other}' and '{}' are both to be called '{new}'", member.key);
                self.sink.error(codes::INVALID_VALUE, member.value.at, message);
            }
        }
    }

    fn check_forwarded(&mut self, work: &Work<'_>, kind: &ServerKind) {
        let Some(value) = work.merged.get("forwardHeaders") else { return };
        if matches!(kind, ServerKind::Process(_)) {
            let message = "'forwardHeaders' has no effect on a local process, which gets no headers";
            self.sink.warning(codes::NO_EFFECT, value.node.at, message);
        }
        if value.node.items().len() > FORWARDED_MAX {
            let message = format!("'forwardHeaders' names more than {FORWARDED_MAX} headers");
            self.sink.error(codes::INVALID_VALUE, value.node.at, message);
        }
        for item in value.node.items() {
            let name = item.scalar().unwrap_or_default().to_ascii_lowercase();
            let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
            if name.is_empty() || !name.chars().all(token) {
                self.sink.error(codes::INVALID_VALUE, item.at, format!("'{name}' is no name of a header"));
            } else if NEVER_FORWARDED.contains(&name.as_str()) || name.starts_with("mcp-") {
                let message = format!("header '{name}' cannot be forwarded");
                self.sink.error(codes::INVALID_VALUE, item.at, message);
                self.sink.hint("it belongs to the connection, or to the protocol itself");
            } else if name == "authorization" && self.input.settings.gateway.auth != GatewayAuth::None {
                let message = "'authorization' is never forwarded while [gateway] auth asks for it itself";
                self.sink.warning(codes::NO_EFFECT, item.at, message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::load::{self, Contents, Input, Loaded};
    use crate::config::settings;
    use crate::model::fingerprint::HashKey;
    use crate::model::id::ServerId;
    use std::collections::BTreeMap;

    fn load(text: &str) -> Loaded {
        let (nothing, none) = (BTreeMap::new(), Contents::new());
        let given = settings::Input { file: None, env: &nothing, flags: &nothing };
        let settings = settings::load(&given).settings.expect("settings");
        load::load(&Input {
            file: "/etc/x/mcp.config.json",
            bytes: text.as_bytes(),
            env: &nothing,
            files: &none,
            credentials: &none,
            secrets_manager: &none,
            ssm: &none,
            settings: &settings,
            key: &HashKey::new([0; 32]),
        })
    }

    fn of_entry(block: &str) -> Loaded {
        load(&format!(
            r#"{{"orchestrator": {{"globalDefaults": {{"tools": {{"readOnly": true, "deny": ["a"]}}}}}},
                "mcpServers": {{"s": {{"url": "https://example.com/mcp", "orchestrator": {block}}}}}}}"#
        ))
    }

    #[test]
    fn what_is_offered_is_inherited_key_by_key() {
        let loaded = of_entry(
            r#"{"tools": {"deny": ["x*"], "rename": {"get": "read"}}, "forwardHeaders": ["X-User"]}"#,
        );
        assert!(!loaded.problems.iter().any(|problem| problem.is_error()), "{:?}", loaded.problems);
        let server = &loaded.desired.unwrap().servers[&ServerId::new("s").unwrap()];
        assert!(server.tools.read_only && !server.tools.admits("xy", true) && server.tools.admits("a", true));
        assert_eq!(
            (server.tools.shown("get"), server.forward_headers.as_slice()),
            ("read", &["x-user".to_owned()][..])
        );
        assert!(server.gateway_reasons.contains(&"tools".to_owned()));
        let off = of_entry(r#"{"tools": {"readOnly": false, "deny": []}}"#);
        assert!(off.desired.unwrap().servers[&ServerId::new("s").unwrap()].tools.admits("a", false));
    }

    #[test]
    fn a_pattern_or_name_that_cannot_be_meant_is_an_error() {
        for block in [
            r#"{"tools": {"deny": [""]}}"#,
            r#"{"tools": {"rename": {"a": "x", "b": "x"}}}"#,
            r#"{"tools": {"rename": {"a": "not a name"}}}"#,
            r#"{"tools": {"dony": ["a"]}}"#,
            r#"{"forwardHeaders": ["Proxy-Authorization"]}"#,
            r#"{"forwardHeaders": ["Mcp-Session-Id"]}"#,
            r#"{"forwardHeaders": ["not a name"]}"#,
        ] {
            let loaded = of_entry(block);
            assert!(loaded.problems.iter().any(|problem| problem.is_error()), "{block}");
        }
    }
}
