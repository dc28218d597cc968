//! The third stage: one entry with what it inherits becomes a server, or its problems.
//!
//! Invariant: whatever an entry asks for that reaches beyond its container must be in its own
//! `allow`; nothing inherited gives consent.

use std::collections::BTreeMap;

use crate::config::codes;
use crate::config::error::Sink;
use crate::config::ids::section_id;
use crate::config::keys;
use crate::config::load::{EffectiveValue, Input, Origin, SecretValue};
use crate::config::merged::Merged;
use crate::config::node::Node;
use crate::config::raw::RawServer;
use crate::config::units;
use crate::config::vars::{self, Lookup, Resolved};
use crate::model::container::Opaque;
use crate::model::id::ServerId;
use crate::model::server::{
    HealthPolicy, OomRaise, PullPolicy, RestartPolicy, RestartWhen, RouteWish, Server, ServerKind, Sharing,
    Transport, TransportWish,
};

mod container;
mod defaults;
mod env;
mod fingerprint;
mod offer;
mod ports;
mod process;
mod remote;
mod replicas;
mod sleep;
mod traffic;

pub(crate) use self::defaults::cpus_text;
pub(crate) use self::env::looks_secret;
pub(crate) use self::fingerprint::replace_all;
pub(crate) use self::ports::FixedPort;

/// Shortest value of an environment variable that is hidden in outputs: `1` or `true` would take
/// too much with it.
const HIDDEN_LEN_MIN: usize = 6;
/// The same for values from a store of secrets: a shorter one is guessed anyway, and hiding it would
/// make every message unreadable.
const HIDDEN_STORED_LEN_MIN: usize = 4;

/// What entries are built from.
pub(crate) struct Builder<'a, 's> {
    /// What was handed in.
    pub(crate) input: &'a Input<'a>,
    /// Where references are looked up.
    pub(crate) lookup: Lookup<'a>,
    /// Where problems go.
    pub(crate) sink: &'s mut Sink<'a>,
}

/// One entry on its way.
pub(crate) struct Work<'w> {
    /// The entry as written.
    pub(crate) entry: &'w Node,
    /// Where its name stands.
    pub(crate) name_at: usize,
    /// Its id, when the name gives one.
    pub(crate) id: Option<&'w ServerId>,
    /// What it inherits, its own block included.
    pub(crate) merged: &'w Merged,
    /// Whether it shall run.
    pub(crate) enabled: bool,
    /// References resolved on the way.
    pub(crate) resolved: Vec<Resolved>,
    /// Secrets written out in the file.
    pub(crate) literals: Vec<SecretValue>,
    /// For `Server::notes`.
    pub(crate) notes: Vec<String>,
    /// Effective values.
    pub(crate) effective: BTreeMap<String, EffectiveValue>,
}

/// A whole server and what belongs to it.
pub(crate) struct Built {
    /// The server.
    pub(crate) server: Server,
    /// Effective values.
    pub(crate) effective: Vec<EffectiveValue>,
    /// Host ports it insists on.
    pub(crate) fixed_ports: Vec<FixedPort>,
}

/// What runs a server, with what only its kind can say.
struct Kind {
    kind: ServerKind,
    restart: Option<RestartPolicy>,
    pull: PullPolicy,
    fixed_ports: Vec<FixedPort>,
}

impl Builder<'_, '_> {
    /// Builds one entry; `None` after an error, which is in the sink. Secrets met on the way go to
    /// `secrets` in either case.
    pub(crate) fn build(
        &mut self,
        raw: &RawServer,
        id: Option<&ServerId>,
        merged: &Merged,
        secrets: &mut Vec<SecretValue>,
    ) -> Option<Built> {
        let mark = self.sink.mark();
        let entry = &raw.entry;
        if !entry.is_object() {
            let message = format!("the entry is {}, not an object", entry.kind());
            self.sink.error(codes::INVALID_VALUE, entry.at, message);
            return None;
        }
        entry.report_duplicates(self.sink);
        keys::check_entry(entry, self.sink);
        let mut work = Work {
            entry,
            name_at: raw.name_at,
            id,
            merged,
            enabled: is_enabled(entry),
            resolved: Vec::new(),
            literals: Vec::new(),
            notes: Vec::new(),
            effective: merged.shown(self.sink),
        };
        let kind =
            if self.sink.since(mark).iter().any(|p| p.is_error()) { None } else { self.kind(&mut work) };
        secrets.append(&mut work.literals);
        secrets.extend(work.resolved.iter().filter_map(hidden));
        if self.sink.since(mark).iter().any(|p| p.is_error()) {
            return None;
        }
        let kind = kind?;
        let sleep = self.check_sleep(&work, &kind.kind);
        let several = self.check_replicas(&work, &kind);
        if !self.check_offer(&work) || !self.check_traffic(&mut work) || !sleep || !several {
            return None;
        }
        if self.shows_secret(&work, &kind.kind) {
            return None;
        }
        let server = self.server(raw, id?.clone(), &mut work, &kind);
        Some(Built {
            server,
            effective: work.effective.into_values().collect(),
            fixed_ports: kind.fixed_ports,
        })
    }

    fn kind(&mut self, work: &mut Work<'_>) -> Option<Kind> {
        let given = |name: &str| work.entry.get(name).filter(|node| !node.is_null());
        let command = given("command");
        let url = ["url", "serverUrl", "httpUrl"].into_iter().find_map(given);
        let at_host = given("host").zip(given("port"));
        match (command, url) {
            (Some(_), Some(url)) => {
                self.sink.error(codes::TWO_KINDS, url.at, "the entry has both 'command' and 'url'");
                self.sink.hint("a server is started here or reached elsewhere; remove one");
                None
            }
            (Some(command), None) => {
                let program = self.expand(work, command)?;
                if program == "docker" || program.ends_with("/docker") {
                    self.container(work)
                } else {
                    self.process(work, &program, command.at)
                }
            }
            (None, Some(url)) => self.remote(work, url),
            (None, None) if at_host.is_some() => self.remote_host(work),
            (None, None) => {
                self.sink.error(codes::NO_KIND, work.name_at, "the entry has neither 'command' nor 'url'");
                self.sink.hint("a container: \"command\": \"docker\", \"args\": [\"run\", …]");
                None
            }
        }
    }

    fn server(&mut self, raw: &RawServer, id: ServerId, work: &mut Work<'_>, kind: &Kind) -> Server {
        let merged = work.merged;
        let settings = self.input.settings;
        let restart = match &kind.restart {
            Some(line) => line.clone(),
            None => restart_policy(merged, &settings.recovery.policy),
        };
        let health = health_policy(merged, &settings.health.policy);
        work.note_policies(&restart, &health);
        let section = raw.section.clone().or_else(|| merged.text("section"));
        let sleeps = !matches!(kind.kind, ServerKind::Remote(_));
        let replicas = replicas::of(merged, &kind.kind);
        Server {
            id,
            name: raw.name.clone(),
            section: section.and_then(|name| section_id(&name).ok()),
            enabled: work.enabled,
            kind: kind.kind.clone(),
            transport: match &kind.kind {
                ServerKind::Container(_) => transport_wish(work),
                // A process speaks stdio, a server elsewhere what its own kind says.
                ServerKind::Process(_) | ServerKind::Remote(_) => TransportWish::Auto,
            },
            route: match merged.text("route").as_deref() {
                Some("edge") => RouteWish::Edge,
                Some("direct") => RouteWish::Direct,
                _ => RouteWish::Auto,
            },
            gateway_reasons: gateway_reasons(merged, work.entry, replicas),
            replicas,
            sharing: match merged.text("sharing").as_deref() {
                Some("shared") => Sharing::Shared,
                Some("isolated") => Sharing::Isolated,
                _ => Sharing::Auto,
            },
            request_timeout: work
                .entry
                .get("timeout")
                .and_then(Node::scalar)
                .and_then(|text| units::span(&text).ok()),
            tools: offer::tools(merged, work.entry),
            forward_headers: offer::forward_headers(merged, work.entry),
            openapi_path: offer::openapi_path(merged),
            traffic: traffic::policy(merged),
            http_path: merged.text("httpPath"),
            restart,
            health,
            pull: kind.pull,
            on_demand: sleeps && merged.flag("startOnDemand") == Some(true),
            idle_timeout: merged.span("idleTimeout").filter(|_| sleeps),
            priority: merged.number("priority").unwrap_or(0),
            depends_on: merged.depends.clone(),
            notes: std::mem::take(&mut work.notes),
        }
    }

    /// The text of `node` with its references resolved; `None` after an error. In a disabled entry
    /// what cannot be resolved stays as written and is a warning: it is not to run yet.
    fn expand(&mut self, work: &mut Work<'_>, node: &Node) -> Option<String> {
        let text = node.scalar()?;
        match vars::expand(&text, &self.lookup, &mut work.resolved) {
            Ok(value) => Some(value),
            Err(faults) => {
                for fault in faults {
                    if work.enabled {
                        self.sink.error(fault.code, node.at, fault.message);
                    } else {
                        self.sink.warning(fault.code, node.at, fault.message);
                    }
                    if let Some(hint) = fault.hint {
                        self.sink.hint(hint);
                    }
                }
                (!work.enabled).then_some(text)
            }
        }
    }

    /// Whether a value that must be hidden stands in what is shown of the server: all that its
    /// `Debug` has is in plans, labels or logs somewhere. A plain value from a file is only warned of.
    fn shows_secret(&mut self, work: &Work<'_>, kind: &ServerKind) -> bool {
        let shown = format!("{kind:?}");
        let mut refused = false;
        for resolved in work.resolved.iter().filter(|resolved| !resolved.from_env) {
            let Some(secret) = hidden(resolved) else { continue };
            let value = secret.value.expose();
            if !shown.contains(value) && !shown.contains(&value.escape_debug().to_string()) {
                continue;
            }
            let reference = &resolved.reference;
            let message = format!("the value of {reference} stands where it is shown");
            if reference.starts_with("${credential:") || reference.starts_with("${secretsmanager:") {
                self.sink.error(codes::SECRET_SHOWN, work.name_at, message);
                refused = true;
            } else {
                self.sink.warning(codes::SECRET_SHOWN, work.name_at, message);
            }
            self.sink.hint("secrets belong into env, a header or an argument of the program itself");
        }
        refused
    }

    /// Warns of keys of the entry's own block that do nothing for its kind.
    fn no_effect(&mut self, work: &Work<'_>, names: &[&str], what: &str) {
        for name in names {
            if let Some(value) = work.merged.get(name)
                && value.origin == Origin::Server
            {
                let message = format!("'{name}' has no effect on {what}");
                self.sink.warning(codes::NO_EFFECT, value.node.at, message);
            }
        }
    }
}

impl Work<'_> {
    /// Notes a value that was decided elsewhere than in an orchestrator block.
    fn effect(&mut self, key: &str, value: impl Into<String>, origin: Origin) {
        let value = EffectiveValue { key: key.to_owned(), value: value.into(), origin, place: None };
        self.effective.insert(key.to_owned(), value);
    }

    /// Adds the health and restart values that nobody said.
    fn note_policies(&mut self, restart: &RestartPolicy, health: &HealthPolicy) {
        for (key, value) in policies(restart, health) {
            if !self.effective.contains_key(key) {
                self.effect(key, value, Origin::Settings);
            }
        }
    }
}

/// Health and restart values in the names of an orchestrator block.
pub(crate) fn policies(restart: &RestartPolicy, health: &HealthPolicy) -> [(&'static str, String); 9] {
    let when = match restart.when {
        RestartWhen::Always => "always",
        RestartWhen::OnFailure => "on-failure",
        RestartWhen::Never => "never",
    };
    [
        ("restart.policy", when.to_owned()),
        ("restart.delay", restart.delay.to_string()),
        ("restart.maxDelay", restart.delay_max.to_string()),
        ("restart.resetAfter", restart.reset_after.to_string()),
        ("health.interval", health.interval.to_string()),
        ("health.timeout", health.timeout.to_string()),
        ("health.failureThreshold", health.failure_threshold.to_string()),
        ("health.recoveryThreshold", health.recovery_threshold.to_string()),
        ("health.startPeriod", health.start_period.to_string()),
    ]
}

/// `disabled: true` or `enabled: false`.
pub(crate) fn is_enabled(entry: &Node) -> bool {
    let flag = |name: &str| entry.get(name).and_then(Node::as_bool);
    flag("disabled") != Some(true) && flag("enabled") != Some(false)
}

/// The secret behind a resolved reference, when it must be hidden.
fn hidden(resolved: &Resolved) -> Option<SecretValue> {
    let min = if resolved.from_env { HIDDEN_LEN_MIN } else { HIDDEN_STORED_LEN_MIN };
    (resolved.value.len() >= min).then(|| SecretValue {
        reference: resolved.reference.clone(),
        value: Opaque::new(resolved.value.clone()),
    })
}

/// `orchestrator.transport`, else what the entry's `type` says of a command.
fn transport_wish(work: &Work<'_>) -> TransportWish {
    let word = work.merged.text("transport");
    let of_entry = ["type", "transport"].iter().find_map(|name| work.entry.get(name)?.as_text());
    let has_command = work.entry.get("command").is_some();
    match word.as_deref().or(of_entry.filter(|_| has_command)) {
        Some("stdio") => TransportWish::Is(Transport::Stdio),
        Some("sse") => TransportWish::Is(Transport::Sse),
        Some(word) if word == "http" || word.starts_with("streamable") => TransportWish::Is(Transport::Http),
        _ => TransportWish::Auto,
    }
}

pub(crate) fn restart_policy(merged: &Merged, base: &RestartPolicy) -> RestartPolicy {
    let attempts: Option<u32> = merged.number("restart.maxAttempts");
    RestartPolicy {
        when: match merged.text("restart.policy").as_deref() {
            Some("always" | "unless-stopped") => RestartWhen::Always,
            Some("on-failure") => RestartWhen::OnFailure,
            Some("never" | "no") => RestartWhen::Never,
            _ => base.when,
        },
        delay: merged.span("restart.delay").unwrap_or(base.delay),
        delay_max: merged.span("restart.maxDelay").unwrap_or(base.delay_max),
        attempts_max: match attempts {
            Some(0) => None,
            Some(attempts) => Some(attempts),
            None => base.attempts_max,
        },
        reset_after: merged.span("restart.resetAfter").unwrap_or(base.reset_after),
        oom_raise: match merged.text("restart.oomRaise").as_deref() {
            Some("true") => OomRaise::Half,
            Some("false") => OomRaise::No,
            Some(size) => units::size_bytes(size).map_or(base.oom_raise, OomRaise::To),
            None => base.oom_raise,
        },
    }
}

pub(crate) fn health_policy(merged: &Merged, base: &HealthPolicy) -> HealthPolicy {
    let count = |key: &str, base: u32| merged.number(key).unwrap_or(base);
    HealthPolicy {
        path: merged.text("health.path").or_else(|| base.path.clone()),
        interval: merged.span("health.interval").unwrap_or(base.interval),
        timeout: merged.span("health.timeout").unwrap_or(base.timeout),
        failure_threshold: count("health.failureThreshold", base.failure_threshold),
        recovery_threshold: count("health.recoveryThreshold", base.recovery_threshold),
        start_period: merged.span("health.startPeriod").unwrap_or(base.start_period),
    }
}

/// Why the gateway must stand in front of this server.
fn gateway_reasons(merged: &Merged, entry: &Node, replicas: u32) -> Vec<String> {
    let mut reasons = Vec::new();
    if replicas > 1 {
        reasons.push(format!("replicas = {replicas}"));
    }
    if merged.text("sharing").as_deref() == Some("isolated") {
        reasons.push("sharing = isolated".to_owned());
    }
    reasons.extend(traffic::reasons(merged));
    if merged.get("idleTimeout").is_some() {
        reasons.push("idleTimeout".to_owned());
    }
    if !offer::tools(merged, entry).is_open() {
        reasons.push("tools".to_owned());
    }
    if merged.flag("startOnDemand") == Some(true) {
        reasons.push("startOnDemand".to_owned());
    }
    reasons
}

/// An environment: `None` takes a variable away.
type Env = BTreeMap<String, Option<String>>;
