//! What of a server is offered: `orchestrator.tools` and `forwardHeaders`, and what other programs call so.
//!
//! Must never take a pattern that cannot mean anything: a filter with a typing error in it would
//! let through what it was written against.

use crate::config::build::{Builder, Work};
use crate::config::codes;
use crate::config::merged::Merged;
use crate::config::node::Node;
use crate::config::settings::GatewayAuth;
use crate::model::access::{PATTERN_BYTES_MAX, PATTERNS_MAX, ToolPolicy, may_be_forwarded};
use std::collections::{BTreeMap, BTreeSet};

/// Headers that one entry may forward.
const FORWARDED_MAX: usize = 16;

/// Bytes of a path in the tool proxy.
const OPENAPI_PATH_BYTES_MAX: usize = 128;
/// mcpo's rules for headers.
const MCPO_HEADERS: &str = "client_header_forwarding";
/// Tools that are not offered, as mcpo, Cline and Windsurf have it.
const DISABLED_TOOLS: &str = "disabledTools";

/// `orchestrator.tools`, merged, and the entry's own `disabledTools`.
pub(super) fn tools(merged: &Merged, entry: &Node) -> ToolPolicy {
    let rename = merged.get("tools.rename").map(|value| renames(&value.node)).unwrap_or_default();
    ToolPolicy {
        allow: merged.words("tools.allow"),
        deny: [merged.words("tools.deny").unwrap_or_default(), words(entry.get(DISABLED_TOOLS))].concat(),
        rename: rename.into_iter().collect(),
        read_only: merged.flag("tools.readOnly") == Some(true),
    }
}

fn words(list: Option<&Node>) -> Vec<String> {
    list.map(|list| list.items().iter().filter_map(Node::scalar).collect()).unwrap_or_default()
}

/// `orchestrator.forwardHeaders` and mcpo's rules, in lower case; what is left out stands behind a `!`.
pub(super) fn forward_headers(merged: &Merged, entry: &Node) -> Vec<String> {
    let mut rules = merged.words("forwardHeaders").unwrap_or_default();
    if let Some(theirs) = entry.get(MCPO_HEADERS).filter(|theirs| is_on(theirs)) {
        rules.extend(words(theirs.get("whitelist")));
        rules.extend(words(theirs.get("blacklist")).into_iter().map(|name| format!("!{name}")));
    }
    let rules: BTreeSet<String> = rules.iter().map(|rule| rule.to_ascii_lowercase()).collect();
    // Everything would be what differs with each request, too.
    rules.into_iter().filter(|rule| rule != "*").collect()
}

/// `orchestrator.openapiPath` without its first `/`.
pub(super) fn openapi_path(merged: &Merged) -> Option<String> {
    merged.text("openapiPath").map(|path| path.trim_matches('/').to_owned())
}

fn is_on(theirs: &Node) -> bool {
    theirs.get("enabled").and_then(Node::as_bool) == Some(true)
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
    pub(super) fn check_offer(&mut self, work: &Work<'_>) -> bool {
        let mark = self.sink.mark();
        for key in ["tools.allow", "tools.deny"] {
            if let Some(value) = work.merged.get(key) {
                self.check_patterns(key, &value.node);
            }
        }
        if let Some(value) = work.merged.get("tools.rename") {
            self.check_renames(&value.node);
        }
        self.check_forwarded(work);
        self.check_openapi_path(work);
        if let Some(value) = work.entry.get("oauth") {
            let message = "'oauth' has no effect: this program does not log in at a server";
            self.sink.warning(codes::NO_EFFECT, value.at, message);
            self.sink.hint("give it a token: \"headers\": {\"Authorization\": \"Bearer ${…}\"}");
        }
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

    fn check_openapi_path(&mut self, work: &Work<'_>) {
        let (Some(value), Some(path)) = (work.merged.get("openapiPath"), openapi_path(work.merged)) else {
            return;
        };
        let letter = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
        let good = |step: &str| !matches!(step, "" | "." | "..") && step.chars().all(letter);
        if path.len() > OPENAPI_PATH_BYTES_MAX || !path.split('/').all(good) {
            let message = format!(
                "'openapiPath' takes a path such as /team/git: letters, digits, '-', '.', '_' and '~' between \
                 slashes, at most {OPENAPI_PATH_BYTES_MAX}"
            );
            self.sink.error(codes::INVALID_VALUE, value.node.at, message);
        }
    }

    fn check_forwarded(&mut self, work: &Work<'_>) {
        if let Some(theirs) = work.entry.get(MCPO_HEADERS) {
            self.check_mcpo_headers(theirs);
        }
        let Some(value) = work.merged.get("forwardHeaders") else { return };
        self.check_header_rules("forwardHeaders", &value.node);
    }

    /// mcpo's rules, of which one without names forwards everything there.
    fn check_mcpo_headers(&mut self, theirs: &Node) {
        let names = theirs.get("whitelist").map(Node::items).unwrap_or_default();
        let all = names.is_empty() || names.iter().any(|name| name.scalar().as_deref() == Some("*"));
        if is_on(theirs) && all {
            let message = format!("'{MCPO_HEADERS}' forwards only headers that its whitelist names");
            self.sink.warning(codes::NO_EFFECT, theirs.at, message);
            self.sink.hint("name them, or how they begin: [\"X-User-*\", \"X-Tenant\"]");
        }
        if let Some(names) = theirs.get("whitelist") {
            self.check_header_rules(MCPO_HEADERS, names);
        }
    }

    fn check_header_rules(&mut self, key: &str, list: &Node) {
        if list.items().len() > FORWARDED_MAX {
            let message = format!("'{key}' names more than {FORWARDED_MAX} headers");
            self.sink.error(codes::INVALID_VALUE, list.at, message);
        }
        for item in list.items() {
            let name = item.scalar().unwrap_or_default().to_ascii_lowercase();
            let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'+-.^_`|~".contains(c);
            let meant = name.strip_prefix('!').unwrap_or(&name);
            let begins = meant.strip_suffix('*').unwrap_or(meant);
            if key == MCPO_HEADERS && name == "*" {
                continue;
            }
            if begins.is_empty() || !begins.chars().all(token) {
                let message =
                    format!("'{name}' is no name of a header, nor the beginning of one before a '*'");
                self.sink.error(codes::INVALID_VALUE, item.at, message);
            } else if !may_be_forwarded(meant) {
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
    fn what_mcpo_calls_so_means_the_same() {
        let entry = |more: &str| {
            load(&format!(
                r#"{{"mcpServers": {{"s": {{"command": "uvx", "args": ["mcp-server-time"], {more}}}}}}}"#
            ))
        };
        let rules =
            r#"{"enabled": true, "whitelist": ["X-User-*", "X-Team"], "blacklist": ["X-User-Secret"]}"#;
        let loaded =
            entry(&format!(r#""disabledTools": ["convert_time"], "client_header_forwarding": {rules}"#));
        assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
        let server = &loaded.desired.unwrap().servers[&ServerId::new("s").unwrap()];
        assert!(!server.tools.admits("convert_time", true) && server.tools.admits("get_current_time", true));
        assert_eq!(server.forward_headers, ["!x-user-secret", "x-team", "x-user-*"]);
        assert!(server.gateway_reasons.contains(&"tools".to_owned()));
        for (rules, warned) in [
            (r#"{"enabled": false, "whitelist": ["X-A"]}"#, false),
            (r#"{"enabled": true}"#, true),
            (r#"{"enabled": true, "whitelist": ["*"]}"#, true),
        ] {
            let loaded = entry(&format!(r#""client_header_forwarding": {rules}"#));
            assert_eq!(loaded.problems.len(), usize::from(warned), "{rules}: {:?}", loaded.problems);
            let desired = loaded.desired.unwrap();
            assert_eq!(desired.servers[&ServerId::new("s").unwrap()].forward_headers, [""; 0], "{rules}");
        }
        let bad = entry(r#""client_header_forwarding": {"enabled": true, "whitelist": ["Mcp-Session-Id"]}"#);
        assert!(bad.problems.iter().any(|problem| problem.is_error()));
    }

    #[test]
    fn a_log_in_that_is_not_done_is_said() {
        let loaded = load(
            r#"{"mcpServers": {"s": {"type": "streamable-http", "url": "http://localhost:8000/mcp",
                "oauth": {"server_url": "http://localhost:8000"}}}}"#,
        );
        assert_eq!(loaded.desired.unwrap().servers.len(), 1, "it is served all the same");
        let said: Vec<String> = loaded.problems.iter().map(|problem| format!("{problem:?}")).collect();
        assert!(said.len() == 1 && said[0].contains("'oauth' has no effect"), "{said:?}");
    }

    #[test]
    fn a_path_in_the_tool_proxy_leads_to_one_server_alone() {
        let load = |paths: &[(&str, &str)]| {
            let entry = |(name, path): &(&str, &str)| {
                let block = format!(r#"{{"openapiPath": "{path}"}}"#);
                format!(r#""{name}": {{"url": "https://example.com/mcp", "orchestrator": {block}}}"#)
            };
            let entries: Vec<String> = paths.iter().map(entry).collect();
            load(&format!(r#"{{"mcpServers": {{{}}}}}"#, entries.join(", ")))
        };
        let good = load(&[("a", "/team/a/"), ("b", "/team/ab"), ("c", "/teams")]);
        assert!(good.problems.is_empty(), "{:?}", good.problems);
        let servers = good.desired.unwrap().servers;
        assert_eq!(servers[&ServerId::new("a").unwrap()].openapi_path.as_deref(), Some("team/a"));
        for (paths, broken) in [
            (&[("a", "/x/y"), ("b", "/x/y")][..], 2),
            (&[("a", "/x"), ("b", "/x/y")], 2),
            (&[("a", "/b/x"), ("b", "/y")], 1),
            (&[("a", "/a")], 1),
            (&[("My Server", "/My")], 0),
            (&[("My.Server", "/My.Server")], 1),
            (&[("a", "/docs")], 1),
            (&[("a", "/assets/x")], 1),
        ] {
            let loaded = load(paths);
            let codes: Vec<&str> = loaded.problems.iter().map(|problem| problem.code).collect();
            assert_eq!(codes, vec!["MCPO-C052"; broken], "{paths:?}");
            assert_eq!(loaded.desired.unwrap().broken.len(), broken, "{paths:?}");
        }
    }

    #[test]
    fn a_pattern_or_name_that_cannot_be_meant_is_an_error() {
        for block in [
            r#"{"tools": {"deny": [""]}}"#,
            r#"{"tools": {"rename": {"a": "x", "b": "x"}}}"#,
            r#"{"tools": {"rename": {"a": "not a name"}}}"#,
            r#"{"tools": {"dony": ["a"]}}"#,
            r#"{"openapiPath": "/"}"#,
            r#"{"openapiPath": "team"}"#,
            r#"{"openapiPath": "/a//b"}"#,
            r#"{"openapiPath": "/a/../b"}"#,
            r#"{"openapiPath": "/a%2Fb"}"#,
            r#"{"openapiPath": "/ä"}"#,
            r#"{"openapiPath": "/docs/x"}"#,
            r#"{"openapiPath": "/s/x"}"#,
            r#"{"forwardHeaders": ["Proxy-Authorization"]}"#,
            r#"{"forwardHeaders": ["Mcp-Session-Id"]}"#,
            r#"{"forwardHeaders": ["not a name"]}"#,
            r#"{"forwardHeaders": ["*"]}"#,
            r#"{"forwardHeaders": ["X-*-Name"]}"#,
            r#"{"forwardHeaders": ["!"]}"#,
        ] {
            let loaded = of_entry(block);
            assert!(loaded.problems.iter().any(|problem| problem.is_error()), "{block}");
        }
    }
}
