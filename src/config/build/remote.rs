//! A server elsewhere, from an entry with a `url` (or `host` and `port`).

use std::collections::BTreeMap;

use serde_json::json;

use crate::config::build::fingerprint::fingerprint;
use crate::config::build::{Builder, Kind, Work};
use crate::config::codes;
use crate::config::load::Origin;
use crate::config::node::Node;
use crate::model::server::{PullPolicy, RemoteDecl, RemoteKind, ServerKind};

/// Schemes of URLs, and how such a server speaks when that alone says it.
const SCHEMES: &[(&str, Option<RemoteKind>)] = &[
    ("http", None),
    ("https", None),
    ("ws", Some(RemoteKind::WebSocket)),
    ("wss", Some(RemoteKind::WebSocket)),
    ("tcp", Some(RemoteKind::Tcp)),
];
/// Keys that a server elsewhere does not have.
const LOCAL_ONLY: &[&str] = &[
    "containerPort",
    "pull",
    "init",
    "noNewPrivileges",
    "readOnly",
    "capAdd",
    "capDrop",
    "user",
    "network",
    "logMaxSize",
    "stdioLogs",
    "limits.memory",
    "limits.cpus",
    "limits.pids",
    "replicas",
    "sharing",
    "startOnDemand",
    "idleTimeout",
    "allow",
    "restart.oomRaise",
];

impl Builder<'_, '_> {
    /// The server at `node`.
    pub(super) fn remote(&mut self, work: &mut Work<'_>, node: &Node) -> Option<Kind> {
        let url = self.expand(work, node)?;
        self.remote_url(work, url, node.at)
    }

    /// The server at `host` and `port`.
    pub(super) fn remote_host(&mut self, work: &mut Work<'_>) -> Option<Kind> {
        let node = work.entry.get("host")?;
        let host = self.expand(work, node)?;
        let port = work.entry.get("port").and_then(Node::scalar)?;
        let scheme = match work.entry.get("type").and_then(Node::as_text) {
            Some("websocket" | "ws") => "ws",
            Some("tcp") | None => "tcp",
            Some(_) => "http",
        };
        let at = node.at;
        self.remote_url(work, format!("{scheme}://{host}:{port}"), at)
    }

    fn remote_url(&mut self, work: &mut Work<'_>, url: String, at: usize) -> Option<Kind> {
        self.no_effect(work, LOCAL_ONLY, "a server reached by url");
        if work.merged.text("route").as_deref() == Some("direct") {
            self.no_effect(work, &["route"], "a server reached by url");
        }
        let by_scheme = self.scheme(&url, at)?;
        let kind = self.remote_kind(work)?.or(by_scheme);
        let headers = self.headers(work)?;
        let names: Vec<&String> = headers.keys().collect();
        let whole = json!({"url": url, "kind": kind, "headers": headers});
        let blanked = json!({"url": url, "kind": kind, "headers": names});
        let fingerprint = fingerprint(self.input.key, &whole, blanked, &work.resolved);
        Some(Kind {
            kind: ServerKind::Remote(RemoteDecl { url, kind, headers, fingerprint }),
            restart: None,
            pull: PullPolicy::default(),
            fixed_ports: Vec::new(),
        })
    }

    /// How a server of the URL's scheme speaks. The URL itself may hold a secret and is not shown.
    fn scheme(&mut self, url: &str, at: usize) -> Option<Option<RemoteKind>> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let known = SCHEMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(scheme));
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = host.rsplit('@').next().unwrap_or_default();
        let odd = url.chars().any(|c| c.is_whitespace() || c.is_control());
        match known {
            Some((_, kind)) if !host.is_empty() && !host.starts_with(':') && !odd => Some(*kind),
            _ => {
                let message = if known.is_none() {
                    "'url' has no scheme known here"
                } else if odd {
                    "'url' has white space in it"
                } else {
                    "'url' names no host"
                };
                self.sink.error(codes::INVALID_URL, at, message);
                self.sink.hint("write for example https://host/mcp; known: http, https, ws, wss, tcp");
                None
            }
        }
    }

    /// What `type` says; the outer `None` after an error.
    fn remote_kind(&mut self, work: &Work<'_>) -> Option<Option<RemoteKind>> {
        let given = |name: &str| work.entry.get(name).filter(|node| !node.is_null());
        let node = given("type").or_else(|| given("transport"));
        let of_block = work.merged.get("transport").filter(|value| value.origin == Origin::Server);
        let of_block = of_block.map(|value| &value.node);
        let implied = given("httpUrl").map(|_| RemoteKind::Http);
        let Some(node) = node.or(of_block) else {
            return Some(implied);
        };
        match node.as_text() {
            Some("sse") => Some(Some(RemoteKind::Sse)),
            Some("websocket" | "ws") => Some(Some(RemoteKind::WebSocket)),
            Some("tcp") => Some(Some(RemoteKind::Tcp)),
            Some("stdio") => {
                let message = "a server reached by url does not speak stdio";
                self.sink.error(codes::INVALID_VALUE, node.at, message);
                self.sink.hint("take http, sse, websocket or tcp, or leave it out to have it probed");
                None
            }
            Some("auto") => Some(implied),
            _ => Some(Some(RemoteKind::Http)),
        }
    }

    fn headers(&mut self, work: &mut Work<'_>) -> Option<BTreeMap<String, String>> {
        let mut headers = BTreeMap::new();
        let entry = work.entry;
        let of = |key: &str| entry.get(key).map(Node::members).unwrap_or_default();
        for member in of("static_headers").iter().chain(of("headers")) {
            if !member.value.is_null() {
                self.header(work, &mut headers, (&member.key, member.key_at), &member.value)?;
            }
        }
        if let Some((name, prefix, node)) = self.auth_header(entry) {
            self.header(work, &mut headers, (name, node.at), node)?;
            if let Some(value) = headers.get_mut(name) {
                value.insert_str(0, prefix);
            }
        }
        Some(headers)
    }

    /// Adds one header; `None` when its references cannot be resolved.
    fn header(
        &mut self,
        work: &mut Work<'_>,
        headers: &mut BTreeMap<String, String>,
        (name, name_at): (&str, usize),
        node: &Node,
    ) -> Option<()> {
        let value = self.expand(work, node)?;
        let value = value.trim();
        let name_is_token = !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
        let value_is_text = value.bytes().all(|b| b == b'\t' || (b >= 0x20 && b != 0x7f));
        if name_is_token && value_is_text {
            work.keep_literal(&format!("header {name}"), name, value);
            headers.insert(name.to_owned(), value.to_owned());
        } else {
            let what = if name_is_token { "value" } else { "name" };
            let message = format!("the {what} of header '{name}' cannot be sent");
            self.sink.error(codes::INVALID_HEADER, name_at, message);
        }
        Some(())
    }

    /// `auth_type` and `auth_value` as the header they stand for: name, what goes before the value,
    /// the value.
    fn auth_header<'n>(&mut self, entry: &'n Node) -> Option<(&'static str, &'static str, &'n Node)> {
        let kind = entry.get("auth_type").filter(|node| !node.is_null())?;
        let value = entry.get("auth_value").filter(|node| node.as_text().is_some());
        match (kind.as_text(), value) {
            (Some("none"), _) => None,
            (Some("bearer_token"), Some(value)) => Some(("Authorization", "Bearer ", value)),
            (Some("authorization"), Some(value)) => Some(("Authorization", "", value)),
            (Some("api_key"), Some(value)) => Some(("X-API-Key", "", value)),
            _ => {
                let message = "this 'auth_type' is not supported, or its 'auth_value' is missing";
                self.sink.error(codes::INVALID_HEADER, kind.at, message);
                self.sink.hint("known: none, bearer_token, api_key, authorization; or write 'headers'");
                None
            }
        }
    }
}
