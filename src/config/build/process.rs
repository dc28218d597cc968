//! A local process from an entry with a `command` other than docker.

use serde_json::json;

use crate::config::build::fingerprint::fingerprint;
use crate::config::build::{Builder, Kind, Work, transport_wish};
use crate::config::codes;
use crate::config::load::Origin;
use crate::config::node::Node;
use crate::config::units;
use crate::config::vars::absolute;
use crate::model::server::{ProcessDecl, ProcessLimits, PullPolicy, ServerKind, Transport, TransportWish};

/// Keys that only containers have.
const CONTAINER_ONLY: &[&str] = &[
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
    "httpPath",
    "restart.oomRaise",
];

impl Builder<'_, '_> {
    /// The process `program`.
    pub(super) fn process(&mut self, work: &mut Work<'_>, program: &str, at: usize) -> Option<Kind> {
        if program.trim().is_empty() {
            self.sink.error(codes::INVALID_VALUE, at, "'command' is empty");
            return None;
        }
        self.warn_of_a_line(work, program, at);
        let inherited = work.merged.get("transport").is_some_and(|value| value.origin != Origin::Server);
        let wish = transport_wish(work);
        if !inherited && matches!(wish, TransportWish::Is(Transport::Http | Transport::Sse)) {
            let message = "a local process speaks stdio; http and sse are for containers and urls";
            self.sink.error(codes::INVALID_VALUE, at, message);
            self.sink.hint("run it in a container, or start it yourself and give its 'url'");
        }
        self.no_effect(work, CONTAINER_ONLY, "a local process");
        let args = self.args(work)?;
        let (mut env, own) = self.env(work);
        env.extend(own);
        let cwd = match work.entry.get("cwd").filter(|node| !node.is_null()) {
            Some(node) => Some(absolute(&self.expand(work, node)?, self.lookup.base_dir)),
            None => None,
        };
        // A path is relative to the file; a bare word is looked up in PATH.
        let command =
            if program.contains('/') { absolute(program, self.lookup.base_dir) } else { program.to_owned() };
        let env: std::collections::BTreeMap<String, String> =
            env.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let names: Vec<&String> = env.keys().collect();
        let limits = limits(work);
        let mut whole = json!({"command": command, "args": args, "cwd": cwd, "env": env});
        let mut blanked = json!({"command": command, "args": args, "cwd": cwd, "env": names});
        if limits != ProcessLimits::default() {
            let ProcessLimits { memory_bytes, nano_cpus, pids } = limits;
            for text in [&mut whole, &mut blanked] {
                text["limits"] = json!([memory_bytes, nano_cpus, pids]);
            }
        }
        let fingerprint = fingerprint(self.input.key, &whole, blanked, &work.resolved);
        Some(Kind {
            kind: ServerKind::Process(ProcessDecl { command, args, env, cwd, limits, fingerprint }),
            restart: None,
            pull: PullPolicy::default(),
            fixed_ports: Vec::new(),
        })
    }

    /// A whole command line where the name of a program belongs: no shell takes it apart.
    fn warn_of_a_line(&mut self, work: &Work<'_>, program: &str, at: usize) {
        let mut words = program.split_whitespace();
        let (Some(first), Some(second)) = (words.next(), words.next()) else { return };
        // A path may have blanks in it.
        if first.contains('/') && !second.starts_with('-') {
            return;
        }
        let message = "'command' has white space in it and is taken for the name of one program";
        self.sink.warning(codes::LINE_AS_COMMAND, at, message);
        // Arguments and values of variables may be secrets, so that they are not repeated.
        let plain = first.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
        let written =
            work.entry.get("command").and_then(Node::as_text).is_some_and(|text| text.starts_with(first));
        let first = if plain && written { format!("\"{first}\"") } else { "its first word".to_owned() };
        self.sink.hint(format!("\"command\" takes {first} alone, the other words belong into \"args\""));
    }

    /// The entry's arguments with references resolved; `None` after an error.
    pub(super) fn args(&mut self, work: &mut Work<'_>) -> Option<Vec<String>> {
        let items = work.entry.get("args").map(Node::items).unwrap_or_default();
        let expanded: Vec<Option<String>> = items.iter().map(|item| self.expand(work, item)).collect();
        expanded.into_iter().collect()
    }
}

/// `limits`; what is not positive is no limit.
fn limits(work: &Work<'_>) -> ProcessLimits {
    let text = |key: &str| work.merged.text(key);
    let positive = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0);
    let pids: Option<i64> = work.merged.number("limits.pids");
    ProcessLimits {
        memory_bytes: text("limits.memory").and_then(|text| units::size_bytes(&text).ok()).and_then(positive),
        nano_cpus: text("limits.cpus").and_then(|text| units::nano_cpus(&text).ok()).and_then(positive),
        pids: pids.and_then(positive),
    }
}
