//! Entries together: what each inherits, which of them clash, and the `Desired` they make.

use std::collections::BTreeMap;

use crate::config::build::{Builder, Built, FixedPort, looks_secret, replace_all};
use crate::config::codes;
use crate::config::depends::Depends;
use crate::config::error::{Problem, Sink};
use crate::config::ids::{Named, section_id};
use crate::config::keys::{self, Level, ORCHESTRATOR};
use crate::config::load::{EffectiveValue, Loaded, Origin, SecretValue};
use crate::config::merged::Merged;
use crate::config::node::{Node, Value};
use crate::config::raw::{Raw, RawServer};
use crate::config::text::did_you_mean;
use crate::model::desired::Desired;
use crate::model::id::{RESERVED_IDS, SectionId, ServerId};
use crate::model::server::Server;

/// First steps of paths that are the tool proxy's own, beside those that no id may have.
const PAGES: [&str; 3] = ["assets", "openapi.json", "readyz"];

/// One level above the entries.
struct Block {
    settings: Node,
    /// It has an error: nobody below it can be built, because what is missing could be a limit.
    bad: bool,
}

/// The levels above the entries.
pub(crate) struct Levels {
    global: Option<Block>,
    sections: BTreeMap<String, Block>,
    depends: Depends,
}

impl Levels {
    /// Checks global defaults and sections.
    pub(crate) fn check(raw: &Raw, sink: &mut Sink<'_>) -> Self {
        let mut global = raw.global.as_ref().map(|node| block(node, "globalDefaults", sink));
        if raw.top_is_bad {
            let empty = || Block { settings: Node::object(0, Vec::new()), bad: true };
            global.get_or_insert_with(empty).bad = true;
        }
        let mut sections: BTreeMap<String, Block> = BTreeMap::new();
        let mut ids: BTreeMap<SectionId, String> = BTreeMap::new();
        for section in &raw.sections {
            let name = section.name.as_str();
            let mut block = block(&section.settings, &format!("section '{name}'"), sink);
            match section_id(name) {
                Err(why) => {
                    sink.error(codes::SECTION, section.at, format!("section name '{name}' {why}"));
                    sink.hint("give the section another name");
                    block.bad = true;
                }
                Ok(id) => {
                    if let Some(other) = ids.get(&id) {
                        let message = format!("section '{name}' has the id '{id}' of section '{other}'");
                        sink.error(codes::SECTION, section.at, message);
                        sink.hint("rename one of them, or put both into one");
                        block.bad = true;
                        sections.entry(other.clone()).and_modify(|earlier| earlier.bad = true);
                    }
                    ids.insert(id, name.to_owned());
                }
            }
            sections.entry(name.to_owned()).or_insert(block);
        }
        let depends = Depends::read(raw);
        if let Some(global) = &mut global {
            let mark = sink.mark();
            depends.check(&global.settings, None, false, sink);
            global.bad |= sink.since(mark).iter().any(|problem| problem.is_error());
        }
        for (name, block) in &mut sections {
            let mark = sink.mark();
            depends.check(&block.settings, Some(name), false, sink);
            block.bad |= sink.since(mark).iter().any(|problem| problem.is_error());
        }
        Self { global, sections, depends }
    }

    /// What `server` inherits, its own block included; an error when it cannot be told.
    fn merged(&self, server: &RawServer, sink: &mut Sink<'_>) -> Option<Merged> {
        let mut merged = Merged::default();
        let mut good = true;
        if let Some(global) = &self.global {
            good &= usable(global, "the top orchestrator block", server, sink);
            merged.lay(&global.settings, &Origin::Global);
        }
        let own = server.entry.get("orchestrator");
        let named = own.and_then(|block| block.get("section"));
        let name = server.section.clone().or_else(|| named.and_then(Node::scalar));
        if let Some(name) = name.clone() {
            match self.sections.get(&name) {
                Some(section) => {
                    good &= usable(section, &format!("section '{name}'"), server, sink);
                    merged.lay(&section.settings, &Origin::Section(name));
                }
                None => {
                    let at = named.map_or(server.name_at, |node| node.at);
                    let known = self.sections.keys().map(String::as_str);
                    sink.error(codes::SECTION, at, format!("section '{name}' is not declared"));
                    sink.hint(did_you_mean(&name, known));
                    good = false;
                }
            }
        }
        if let Some(own) = own {
            merged.lay(own, &Origin::Server);
            let mark = sink.mark();
            self.depends.check(own, name.as_deref(), true, sink);
            good &= !sink.since(mark).iter().any(|problem| problem.is_error());
        }
        merged.depends = self.depends.meant(&merged, name.as_deref());
        good.then_some(merged)
    }
}

fn block(node: &Node, path: &str, sink: &mut Sink<'_>) -> Block {
    let mark = sink.mark();
    if matches!(node.value, Value::Object(_) | Value::Null) {
        node.report_duplicates(sink);
        keys::check_block(node, ORCHESTRATOR, Level::Inherited, path, sink);
    } else {
        let message = format!("{path} is {}, not an object", node.kind());
        sink.error(codes::INVALID_VALUE, node.at, message);
    }
    Block { settings: node.clone(), bad: sink.since(mark).iter().any(|problem| problem.is_error()) }
}

fn usable(block: &Block, path: &str, server: &RawServer, sink: &mut Sink<'_>) -> bool {
    if block.bad {
        let message = format!("{path}, which it inherits from, has an error");
        sink.error(codes::SECTION, server.name_at, message);
    }
    !block.bad
}

/// One whole server before it is known to clash with none.
struct Whole {
    server: Server,
    name_at: usize,
    fixed_ports: Vec<FixedPort>,
    effective: Vec<EffectiveValue>,
    kept: serde_json::Value,
}

/// Everything built so far.
#[derive(Default)]
pub(crate) struct Assembly {
    whole: BTreeMap<ServerId, Whole>,
    broken: BTreeMap<ServerId, String>,
    nameless: Vec<String>,
    secrets: Vec<SecretValue>,
}

impl Assembly {
    /// Builds one entry and puts it where it belongs.
    pub(crate) fn add(
        &mut self,
        raw: &RawServer,
        named: &Named,
        levels: &Levels,
        builder: &mut Builder<'_, '_>,
    ) {
        let id = match named {
            Named::Id(id) => Some(id),
            Named::Collides(_) | Named::None => None,
        };
        let mut trouble = Vec::new();
        for problem in builder.sink.between(raw.said) {
            problem.server = Some(raw.name.clone());
            trouble.extend(problem.is_error().then(|| problem.message.clone()));
        }
        let mark = builder.sink.mark();
        let merged = levels.merged(raw, builder.sink);
        let built = match &merged {
            Some(merged) => builder.build(raw, id, merged, &mut self.secrets),
            None => None,
        };
        for problem in builder.sink.since(mark) {
            problem.server = Some(raw.name.clone());
            trouble.extend(problem.is_error().then(|| problem.message.clone()));
        }
        match (named, built) {
            (Named::Id(id), Some(built)) if trouble.is_empty() => {
                let whole = Whole::new(raw, built);
                self.whole.insert(id.clone(), whole);
            }
            (Named::Id(id), _) => {
                self.broken.insert(id.clone(), one_line(&trouble));
            }
            (Named::Collides(id), _) => {
                let why = "more than one entry has this id".to_owned();
                self.broken.insert(id.clone(), why);
            }
            (Named::None, _) => {
                self.nameless.push(format!("'{}' gives no server id", raw.name));
            }
        }
    }

    /// Two servers on one fixed host port are an error of both.
    pub(crate) fn report_port_conflicts(&mut self, sink: &mut Sink<'_>) {
        let mut by_port: BTreeMap<u16, Vec<(&ServerId, &Whole, &FixedPort)>> = BTreeMap::new();
        for (id, whole) in self.whole.iter().filter(|(_, whole)| whole.server.enabled) {
            for fixed in &whole.fixed_ports {
                by_port.entry(fixed.port).or_default().push((id, whole, fixed));
            }
        }
        let mut clashing: BTreeMap<ServerId, String> = BTreeMap::new();
        for (port, claims) in &by_port {
            for (id, whole, fixed) in claims {
                let other = claims.iter().find(|(other, _, claim)| other != id && claim.clashes(fixed));
                let Some((_, other, _)) = other else {
                    continue;
                };
                let message = format!("host port {port} is also wanted by server '{}'", other.server.name);
                let place = sink.place(whole.name_at);
                let problem = Problem {
                    server: Some(whole.server.name.clone()),
                    ..Problem::error(codes::PORT_CONFLICT, place, message.clone())
                };
                sink.push(problem.hint("change one, or leave the host port out of -p"));
                clashing.entry((*id).clone()).or_insert(message);
            }
        }
        for (id, why) in clashing {
            self.whole.remove(&id);
            self.broken.insert(id, why);
        }
    }

    /// A path in the tool proxy that leads elsewhere already is an error of the entry that asks for it; of
    /// two that ask for one, or for one within the other, of both.
    pub(crate) fn report_path_conflicts(&mut self, sink: &mut Sink<'_>) {
        let mut clashing: BTreeMap<ServerId, String> = BTreeMap::new();
        let on = || self.whole.iter().filter(|(_, whole)| whole.server.enabled);
        for (id, whole) in on() {
            let Some(path) = whole.server.openapi_path.as_deref() else { continue };
            let first = path.split('/').next().unwrap_or_default();
            let is_named = |whole: &Whole| whole.server.name == first;
            let of_broken = || self.broken.keys().any(|id| id.as_str() == first);
            let owner = self.whole.iter().find(|(id, whole)| id.as_str() == first || is_named(whole));
            let other = on().find(|(other, whole)| {
                *other != id && whole.server.openapi_path.as_deref().is_some_and(|own| overlap(own, path))
            });
            let whose = match (owner, other) {
                (Some((_, owner)), _) => {
                    format!("begins with the id or name of server '{}'", owner.server.name)
                }
                (None, Some((_, other))) => format!("overlaps that of server '{}'", other.server.name),
                (None, None) if of_broken() => format!("begins with the id of server '{first}'"),
                (None, None) if RESERVED_IDS.contains(&first) || PAGES.contains(&first) => {
                    format!("begins with /{first}, which is no server's")
                }
                (None, None) => continue,
            };
            let message = format!("'openapiPath' /{path} {whose}");
            let problem = Problem {
                server: Some(whole.server.name.clone()),
                ..Problem::error(codes::PATH_CONFLICT, sink.place(whole.name_at), message.clone())
            };
            sink.push(problem.hint("choose another path"));
            clashing.insert(id.clone(), message);
        }
        for (id, why) in clashing {
            self.whole.remove(&id);
            self.broken.insert(id, why);
        }
    }

    /// What came of the file, with every secret taken out of every message.
    pub(crate) fn finish(mut self, sink: Sink<'_>) -> Loaded {
        self.secrets.sort();
        self.secrets.dedup();
        let pairs: Vec<(&str, &str)> =
            self.secrets.iter().map(|secret| (secret.value.expose(), secret.reference.as_str())).collect();
        let clean = |text: &mut String| {
            if pairs.iter().any(|(value, _)| text.contains(value)) {
                *text = replace_all(text, &pairs);
            }
        };
        let mut problems = sink.finish();
        for problem in &mut problems {
            clean(&mut problem.message);
            problem.hint.iter_mut().for_each(clean);
        }
        let mut desired = Desired::default();
        let mut effective = BTreeMap::new();
        let mut kept = BTreeMap::new();
        for (id, mut whole) in self.whole {
            whole.server.notes.iter_mut().for_each(clean);
            effective.insert(id.clone(), whole.effective);
            kept.insert(id.clone(), whole.kept);
            desired.servers.insert(id, whole.server);
        }
        self.broken.values_mut().for_each(clean);
        desired.broken = self.broken;
        desired.nameless = self.nameless;
        let levels = Vec::new();
        Loaded { desired: Some(desired), problems, secrets: self.secrets, effective, levels, kept }
    }
}

impl Whole {
    fn new(raw: &RawServer, built: Built) -> Self {
        Self {
            server: built.server,
            name_at: raw.name_at,
            fixed_ports: built.fixed_ports,
            effective: built.effective,
            kept: kept(&raw.entry),
        }
    }
}

/// Members of an entry that others understand, and our own block. What may hold secrets is either
/// left out or hidden by its name.
fn kept(entry: &Node) -> serde_json::Value {
    const NOT_KEPT: &[&str] = &[
        "command",
        "args",
        "env",
        "envFile",
        "cwd",
        "url",
        "serverUrl",
        "httpUrl",
        "headers",
        "auth_value",
        "static_headers",
        "extra_headers",
    ];
    let members = entry.members().iter();
    let members = members.filter(|member| !NOT_KEPT.contains(&member.key.as_str()));
    let mut json = Node::object(entry.at, members.cloned().collect()).to_json();
    hide_by_name(&mut json);
    json
}

fn hide_by_name(json: &mut serde_json::Value) {
    match json {
        serde_json::Value::Object(members) => {
            for (name, value) in members.iter_mut() {
                if value.is_string() && looks_secret(name) && name != "auth_type" {
                    *value = "[redacted]".into();
                }
                hide_by_name(value);
            }
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(hide_by_name),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => {}
    }
}

/// Whether one of two paths is the other, or begins with it.
fn overlap(a: &str, b: &str) -> bool {
    let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
    long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The first message and how many follow.
fn one_line(messages: &[String]) -> String {
    match messages {
        [] => "has an error".to_owned(),
        [only] => only.clone(),
        [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
    }
}
