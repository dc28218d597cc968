//! The first stage: what a file says, whatever its format, as entries, sections and defaults.
//!
//! JSON maps, the panel document and YAML all become the same [`Raw`]; names of other formats are
//! translated here, places stay those of the file.

use std::collections::BTreeSet;

use crate::config::codes;
use crate::config::error::Sink;
use crate::config::node::{Node, Value};
use crate::config::text::closest;
use crate::config::{json, panel, snake, yaml};

/// Most entries of one file.
pub(crate) const SERVERS_MAX: usize = 20_000;

/// Keys of the map of servers.
const MAPS: &[&str] = &["mcpServers", "servers"];
/// Keys at the top that have a meaning here.
const TOP: &[&str] = &[
    "mcpServers",
    "servers",
    "orchestrator",
    "sections",
    "globalDefaults",
    "configSchemaVersion",
    "panelName",
];

/// One section as written.
#[derive(Clone, Debug)]
pub(crate) struct RawSection {
    /// Its name.
    pub(crate) name: String,
    /// Where the name stands.
    pub(crate) at: usize,
    /// Its settings, in the names of an orchestrator block.
    pub(crate) settings: Node,
}

/// One entry as written.
#[derive(Clone, Debug)]
pub(crate) struct RawServer {
    /// Its name.
    pub(crate) name: String,
    /// Where the name stands.
    pub(crate) name_at: usize,
    /// The section it stands in (panel document).
    pub(crate) section: Option<String>,
    /// The entry, in our names.
    pub(crate) entry: Node,
    /// Problems of its translation: from and to which mark of the sink.
    pub(crate) said: (usize, usize),
}

/// A file as written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Raw {
    /// The block with global defaults and sections has an error: what it meant to say is unknown.
    pub(crate) top_is_bad: bool,
    /// Settings of all servers.
    pub(crate) global: Option<Node>,
    /// Sections in their order.
    pub(crate) sections: Vec<RawSection>,
    /// Entries in their order.
    pub(crate) servers: Vec<RawServer>,
}

/// Reads `text` of `file`; `None` when it cannot be used as a whole, with the reason in `sink`.
pub(crate) fn read(file: &str, text: &str, sink: &mut Sink<'_>) -> Option<Raw> {
    let lower = file.to_ascii_lowercase();
    let is_yaml = lower.ends_with(".yaml") || lower.ends_with(".yml");
    let root = if is_yaml { yaml::read(text, sink)? } else { json::read(text, sink)? };
    let root = if is_yaml && root.is_null() { Node::object(0, Vec::new()) } else { root };
    if !root.is_object() {
        let message = format!("the file is {}, not an object", root.kind());
        sink.error(codes::FILE_SHAPE, root.at, message);
        sink.hint("start from {\"mcpServers\": {}}");
        return None;
    }
    if !keys_are_unique(&root, sink) {
        return None;
    }
    let panel = root.get("configSchemaVersion").is_some()
        || matches!(root.get("sections").map(|node| &node.value), Some(Value::List(_)));
    let raw = if panel {
        panel::read(&root, sink)?
    } else {
        if is_yaml {
            snake::report_blocks(&root, sink);
        }
        read_maps(&root, is_yaml, sink)?
    };
    if raw.servers.len() > SERVERS_MAX {
        let message = format!("the file has {} servers, more than {SERVERS_MAX}", raw.servers.len());
        sink.error(codes::TOO_MANY, root.at, message);
        return None;
    }
    Some(raw)
}

/// Which of two equal keys counts is anybody's guess, and the guess could remove every server.
fn keys_are_unique(root: &Node, sink: &mut Sink<'_>) -> bool {
    let mut unique = true;
    let mut seen = BTreeSet::new();
    for member in root.members() {
        if !seen.insert(member.key.as_str()) {
            let message = format!("key '{}' is there twice", member.key);
            sink.error(codes::DUPLICATE_KEY, member.key_at, message);
            sink.hint("remove one of them; until then the last good configuration stays in force");
            unique = false;
        }
    }
    unique
}

fn read_maps(root: &Node, is_yaml: bool, sink: &mut Sink<'_>) -> Option<Raw> {
    let mut raw = Raw::default();
    let mut found = root.members().is_empty() || root.get("orchestrator").is_some();
    for member in root.members() {
        if MAPS.contains(&member.key.as_str()) {
            found = true;
            read_servers(&member.value, &member.key, is_yaml, &mut raw, sink)?;
        } else if member.key == "orchestrator" {
            read_top_block(&member.value, &mut raw, sink)?;
        } else if let Some(meant) = closest(&member.key, TOP.iter().copied())
            && !TOP.contains(&member.key.as_str())
        {
            let message = format!("unknown key '{}' at the top has no effect", member.key);
            sink.warning(codes::PERHAPS_TYPO, member.key_at, message);
            sink.hint(format!("did you mean '{meant}'?"));
        }
    }
    if !found {
        let at = root.at;
        sink.error(codes::NO_SERVERS, at, "there is neither 'mcpServers' nor 'servers'");
        let other = ["mcp", "context_servers", "mcp_servers"];
        sink.hint(match other.iter().find(|key| root.get(key).is_some()) {
            Some(key) => format!("'{key}' is another program's form; try: mcp-orchestrator import FILE"),
            None => "an empty configuration is {\"mcpServers\": {}}".to_owned(),
        });
        return None;
    }
    Some(raw)
}

fn read_servers(node: &Node, key: &str, is_yaml: bool, raw: &mut Raw, sink: &mut Sink<'_>) -> Option<()> {
    let mut push = |name: &str, name_at: usize, entry: &Node, sink: &mut Sink<'_>| {
        let mark = sink.mark();
        let entry = if is_yaml { snake::translate(entry, sink) } else { entry.clone() };
        raw.servers.push(RawServer {
            name: name.to_owned(),
            name_at,
            section: None,
            entry,
            said: (mark, sink.mark()),
        });
    };
    for member in node.members() {
        push(&member.key, member.key_at, &member.value, sink);
    }
    let items = node.as_list().filter(|_| is_yaml);
    for item in items.unwrap_or_default() {
        let name = item.get("name");
        let text = name.and_then(Node::as_text).unwrap_or_default();
        push(text, name.map_or(item.at, |name| name.at), item, sink);
    }
    if node.is_object() || items.is_some() || (is_yaml && node.is_null()) {
        return Some(());
    }
    let message = format!("'{key}' is {}, not an object of servers", node.kind());
    sink.error(codes::FILE_SHAPE, node.at, message);
    None
}

/// The `orchestrator` key at the top: `{globalDefaults, sections}`.
fn read_top_block(node: &Node, raw: &mut Raw, sink: &mut Sink<'_>) -> Option<()> {
    if !node.is_object() {
        let message = format!("'orchestrator' is {}, not an object", node.kind());
        sink.error(codes::FILE_SHAPE, node.at, message);
        return None;
    }
    if !keys_are_unique(node, sink) {
        return None;
    }
    for member in node.members() {
        match (member.key.as_str(), &member.value.value) {
            ("globalDefaults", _) => raw.global = Some(member.value.clone()),
            ("sections", Value::Object(sections)) => {
                for section in sections {
                    raw.sections.push(RawSection {
                        name: section.key.clone(),
                        at: section.key_at,
                        settings: without(&section.value, &["description", "title"]),
                    });
                }
            }
            ("sections", Value::List(sections)) => {
                for section in sections {
                    let name = section.get("id").or_else(|| section.get("name"));
                    raw.sections.push(RawSection {
                        name: name.and_then(Node::as_text).unwrap_or_default().to_owned(),
                        at: name.map_or(section.at, |name| name.at),
                        settings: without(section, &["id", "name", "description", "title"]),
                    });
                }
            }
            ("sections", _) => {
                let message = format!("'sections' is {}, not an object", member.value.kind());
                sink.error(codes::FILE_SHAPE, member.value.at, message);
                return None;
            }
            (other, _) => {
                let message = format!("unknown key '{other}' in the top orchestrator block");
                sink.error(codes::UNKNOWN_KEY, member.key_at, message);
                sink.hint("known: globalDefaults, sections");
                raw.top_is_bad = true;
            }
        }
    }
    Some(())
}

/// `node` without members that only describe.
fn without(node: &Node, names: &[&str]) -> Node {
    if !node.is_object() {
        return node.clone();
    }
    let kept = node.members().iter().filter(|member| !names.contains(&member.key.as_str()));
    Node::object(node.at, kept.cloned().collect())
}
