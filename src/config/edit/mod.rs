//! Changes of mcp.config.json: the text in, the changed text out.
//!
//! Why it is so: people write this file, with comments, in their order and with keys of other
//! programs; a program that changes one entry must leave the rest as it found it. So a change is
//! worked out on the tree and carried out on the text ([`splice`]).
//!
//! Understood are the map (`mcpServers`, `servers`, with `orchestrator.sections`) and the panel
//! document (`sections[].servers[]`), both as JSON with comments. YAML is only read.
//!
//! Invariant: what a change does not name is in the result byte for byte (property test
//! `what_is_not_named_stays`). Must never judge what an entry means: that is [`crate::config::load`].

pub mod mask;
pub mod outline;
pub mod rights;
mod sections;
mod splice;
#[cfg(test)]
mod tests;
mod tree;

use serde_json::{Map, Value as Json};
use std::collections::BTreeSet;
use std::ops::Range;

use crate::config::edit::splice::Splice;
use crate::config::edit::tree::Tree;
use crate::config::error::{Sink, render};
use crate::config::ids::{self, Named};
use crate::config::raw;
use crate::config::text::decode;

/// Names under which a panel document has a server's name.
const SERVER_NAMES: &[&str] = &["name", "serverName", "id", "serverId"];
/// Names under which a list of sections has a section's name.
const SECTION_NAMES: &[&str] = &["id", "sectionId", "name"];
/// What an empty file is taken for.
const EMPTY: &str = "{\n  \"mcpServers\": {}\n}\n";

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Another text.
    Text(String),
    /// A server's entry is this from now on; a new one when there is none.
    Put {
        /// Its name in the file, or its id.
        server: String,
        /// The entry, in the file's own form.
        entry: Json,
        /// The section it goes to; `None`: as the entry says, or where it is.
        section: Option<String>,
        /// It must not be there yet.
        new: bool,
    },
    /// A server's entry is changed by an RFC 7396 merge patch: members that are null go.
    Patch {
        /// Its name in the file, or its id.
        server: String,
        /// What changes.
        patch: Json,
        /// The section it goes to; `Some(None)`: out of every section.
        section: Option<Option<String>>,
    },
    /// A server goes.
    Remove {
        /// Its name in the file, or its id.
        server: String,
    },
    /// A section has these settings from now on; a new one when there is none.
    PutSection {
        /// Its name in the file, or its id.
        section: String,
        /// Its settings and what describes it, without its servers.
        settings: Json,
        /// It must not be there yet.
        new: bool,
    },
    /// A section goes.
    RemoveSection {
        /// Its name in the file, or its id.
        section: String,
        /// What becomes of its servers.
        servers: Orphans,
    },
    /// The settings of all servers.
    Defaults(Json),
}

/// What becomes of the servers of a section that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Orphans {
    /// There must be none.
    Refuse,
    /// They move to this section, or out of every one.
    Move(Option<String>),
    /// They go as well.
    Delete,
}

/// Why a change is not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What kind of no it is.
    pub kind: RefusalKind,
    /// What is wrong, lower case, no final stop.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Kinds of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// The file is of a form that is not changed here, or cannot be read.
    Uneditable,
    /// No such server or section.
    Unknown,
    /// The name is taken, or names more than one.
    Taken,
    /// A section still has servers.
    NotEmpty,
    /// The change itself makes no sense.
    Invalid,
}

impl Refusal {
    pub(crate) fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// Where the file keeps its servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    Map,
    Panel,
}

/// A server and where it stands.
struct Spot<'t> {
    name: String,
    named: Named,
    section: Option<String>,
    /// The map or list that it is in, its place there, and its entry.
    home: &'t Tree,
    index: usize,
    entry: &'t Tree,
}

impl Spot<'_> {
    fn has_id(&self, id: &str) -> bool {
        matches!(&self.named, Named::Id(own) if own.as_str() == id)
    }
}

/// The text after `changes`, one after the other.
///
/// # Errors
/// The first change that cannot be made.
pub fn apply(file: &str, bytes: &[u8], changes: &[Change]) -> Result<String, Refusal> {
    let text =
        decode(file, bytes).map_err(|problem| Refusal::new(RefusalKind::Uneditable, problem.to_string()))?;
    let mark = if bytes.starts_with("\u{feff}".as_bytes()) { "\u{feff}" } else { "" };
    let mut text = text.to_owned();
    for change in changes {
        text = one(file, &text, change)?;
    }
    Ok(format!("{mark}{text}"))
}

fn one(file: &str, text: &str, change: &Change) -> Result<String, Refusal> {
    if let Change::Text(text) = change {
        return Ok(text.clone());
    }
    let text = if text.trim().is_empty() { EMPTY } else { text };
    let root = readable(file, text)?;
    let document = Document { file, text, layout: layout(&root), root: &root };
    match change {
        Change::Text(text) => Ok(text.clone()),
        Change::Put { server, entry, section, new } => document.put(server, entry, section.as_deref(), *new),
        Change::Patch { server, patch, section } => document.patch(server, patch, section.as_ref()),
        Change::Remove { server } => document.remove(server),
        Change::PutSection { section, settings, new } => document.put_section(section, settings, *new),
        Change::RemoveSection { section, servers } => document.remove_section(section, servers),
        Change::Defaults(settings) => document.defaults(settings),
    }
}

/// Whether a file of this name is of a form that is changed here.
#[must_use]
pub fn is_editable(file: &str) -> bool {
    let lower = file.to_ascii_lowercase();
    !lower.ends_with(".yaml") && !lower.ends_with(".yml")
}

/// The tree of a text that can be changed.
fn readable(file: &str, text: &str) -> Result<Tree, Refusal> {
    let refused = |message: String| Refusal::new(RefusalKind::Uneditable, message);
    if !is_editable(file) {
        return Err(refused(format!("{file} is YAML, which is read and not written here"))
            .hint("edit the file itself; it is read again at once"));
    }
    let mut sink = Sink::new(file, text);
    if raw::read(file, text, &mut sink).is_none() {
        let problems = sink.finish();
        let first: Vec<_> = problems.into_iter().filter(|problem| problem.is_error()).take(1).collect();
        let why = render(&first).lines().next().unwrap_or("it cannot be read").to_owned();
        return Err(refused(why).hint("mend the place named, or put a whole text in its place"));
    }
    tree::read(text).ok_or_else(|| refused(format!("{file} cannot be read")))
}

fn layout(root: &Tree) -> Layout {
    let listed = root.get("sections").is_some_and(|node| matches!(node.kind, tree::Kind::List(_)));
    if root.get("configSchemaVersion").is_some() || listed { Layout::Panel } else { Layout::Map }
}

/// The first of these members that is a string.
fn named<'t>(node: &'t Tree, names: &[&'static str]) -> Option<(&'static str, &'t str)> {
    names.iter().find_map(|name| Some((*name, node.get(name)?.text()?)))
}

/// A file that can be changed.
struct Document<'t> {
    file: &'t str,
    text: &'t str,
    layout: Layout,
    root: &'t Tree,
}

impl<'t> Document<'t> {
    fn splice(&self) -> Splice<'t> {
        Splice::new(self.text, self.root)
    }

    /// Every server, in the order in which the loader has them.
    fn servers(&self) -> Vec<Spot<'t>> {
        let mut sink = Sink::new(self.file, self.text);
        let Some(raw) = raw::read(self.file, self.text, &mut sink) else { return Vec::new() };
        let names = ids::assign(&raw.servers, &mut sink);
        let mut spots = self.places();
        for ((spot, server), named) in spots.iter_mut().zip(&raw.servers).zip(names) {
            spot.name.clone_from(&server.name);
            spot.named = named;
        }
        spots
    }

    /// The same without names and ids.
    fn places(&self) -> Vec<Spot<'t>> {
        let spot = |home, index, entry: &'t Tree, section: Option<String>| Spot {
            name: String::new(),
            named: Named::None,
            section,
            home,
            index,
            entry,
        };
        let mut spots = Vec::new();
        if self.layout == Layout::Panel {
            for section in self.root.get("sections").map(Tree::elements).unwrap_or_default() {
                let name = named(section, SECTION_NAMES).map(|(_, name)| name.to_owned());
                let Some(home) = section.get("servers") else { continue };
                for (index, entry) in home.elements().iter().enumerate() {
                    spots.push(spot(home, index, entry, name.clone()));
                }
            }
            return spots;
        }
        let maps =
            self.root.entries().iter().filter(|entry| matches!(entry.key.as_str(), "mcpServers" | "servers"));
        for map in maps {
            for (index, entry) in map.value.entries().iter().enumerate() {
                let own = entry.value.get("orchestrator").and_then(|block| block.get("section"));
                let section = own.and_then(Tree::text).map(str::to_owned);
                spots.push(spot(&map.value, index, &entry.value, section));
            }
        }
        spots
    }

    /// A server by id, else by name.
    fn find(&self, server: &str) -> Result<Option<Spot<'t>>, Refusal> {
        let mut spots = self.servers();
        let by_id: Vec<usize> =
            (0..spots.len()).filter(|n| spots.get(*n).is_some_and(|s| s.has_id(server))).collect();
        let by_name =
            || (0..spots.len()).filter(|n| spots.get(*n).is_some_and(|s| s.name == server)).collect();
        let found: Vec<usize> = if by_id.is_empty() { by_name() } else { by_id };
        match found.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(spots.swap_remove(*one))),
            _ => Err(Refusal::new(RefusalKind::Taken, format!("more than one server is called '{server}'"))
                .hint("use the id, or edit the whole text")),
        }
    }

    fn known(&self, server: &str) -> Result<Spot<'t>, Refusal> {
        let unknown = || Refusal::new(RefusalKind::Unknown, format!("no server is called '{server}'"));
        self.find(server)?.ok_or_else(unknown)
    }

    fn patch(&self, server: &str, patch: &Json, section: Option<&Option<String>>) -> Result<String, Refusal> {
        if !patch.is_object() {
            return Err(Refusal::new(RefusalKind::Invalid, "a patch is an object"));
        }
        let spot = self.known(server)?;
        let mut entry = spot.entry.json();
        merge(&mut entry, patch);
        // Of two words for one thing the one that was said last holds.
        for (word, other) in [("disabled", "enabled"), ("enabled", "disabled")] {
            let said = patch.get(word).is_some_and(Json::is_boolean) && patch.get(other).is_none();
            if let Some(entry) = entry.as_object_mut().filter(|_| said) {
                entry.shift_remove(other);
            }
        }
        match section {
            Some(None) if self.layout == Layout::Panel => {
                Err(Refusal::new(RefusalKind::Invalid, "every server of a panel document is in a section"))
            }
            Some(None) => {
                leave_section(&mut entry);
                self.put(server, &entry, None, false)
            }
            Some(Some(section)) => self.put(server, &entry, Some(section), false),
            None => self.put(server, &entry, None, false),
        }
    }

    fn put(&self, server: &str, entry: &Json, section: Option<&str>, new: bool) -> Result<String, Refusal> {
        if !entry.is_object() {
            return Err(Refusal::new(RefusalKind::Invalid, "an entry is an object"));
        }
        let spot = self.find(server)?;
        if new && spot.is_some() {
            return Err(Refusal::new(
                RefusalKind::Taken,
                format!("a server called '{server}' is there already"),
            )
            .hint("PUT replaces it, PATCH changes it"));
        }
        let section = section.map(|section| self.section(section)).transpose()?;
        match self.layout {
            Layout::Map => Ok(self.put_in_map(server, entry.clone(), section.map(|(_, name)| name), spot)),
            Layout::Panel => self.put_in_panel(server, entry.clone(), section, spot),
        }
    }

    fn put_in_map(
        &self,
        server: &str,
        mut entry: Json,
        section: Option<String>,
        spot: Option<Spot<'_>>,
    ) -> String {
        if let Some(section) = section {
            enter_section(&mut entry, section);
        }
        let mut splice = self.splice();
        match spot {
            Some(spot) => splice.reshape(spot.entry, &entry),
            None => {
                let home = ["mcpServers", "servers"].iter().find_map(|key| self.root.get(key));
                match home {
                    Some(home) => splice.items(home, &BTreeSet::new(), &[(Some(server), &entry)]),
                    None => {
                        let map = Json::Object(Map::from_iter([(server.to_owned(), entry)]));
                        splice.items(self.root, &BTreeSet::new(), &[(Some("mcpServers"), &map)]);
                    }
                }
            }
        }
        splice.finish()
    }

    fn put_in_panel(
        &self,
        server: &str,
        entry: Json,
        section: Option<(&Tree, String)>,
        spot: Option<Spot<'_>>,
    ) -> Result<String, Refusal> {
        let mut wanted = Map::new();
        let says_name = SERVER_NAMES.iter().any(|name| entry.get(name).is_some_and(Json::is_string));
        if !says_name {
            let held = spot.as_ref().and_then(|spot| named(spot.entry, SERVER_NAMES));
            let (key, name) = held.unwrap_or(("name", server));
            wanted.insert(key.to_owned(), name.into());
        }
        if let Json::Object(members) = entry {
            wanted.extend(members);
        }
        let wanted = Json::Object(wanted);
        let mut splice = self.splice();
        let Some(spot) = spot else {
            let target = match section {
                Some((target, _)) => target,
                None => match self.root.get("sections").map(Tree::elements).unwrap_or_default() {
                    [only] => only,
                    _ => {
                        return Err(Refusal::new(
                            RefusalKind::Invalid,
                            "the section of the new server is not named",
                        )
                        .hint("say which with ?section="));
                    }
                },
            };
            add_server(&mut splice, target, &wanted);
            return Ok(splice.finish());
        };
        let moves = section.filter(|(_, name)| spot.section.as_ref() != Some(name));
        splice.reshape(spot.entry, &wanted);
        let text = splice.finish();
        match moves {
            None => Ok(text),
            Some((_, to)) => self.moved(&text, &spot.name, (spot.section.as_deref(), &to)),
        }
    }

    /// A server of a panel document that has been changed in `text` goes to another section, as it is
    /// written.
    fn moved(&self, text: &str, server: &str, (from, to): (Option<&str>, &str)) -> Result<String, Refusal> {
        let root = readable(self.file, text)?;
        let document = Document { file: self.file, text, layout: Layout::Panel, root: &root };
        let spot = document
            .servers()
            .into_iter()
            .find(|spot| spot.name == server && spot.section.as_deref() == from);
        let spot = spot
            .ok_or_else(|| Refusal::new(RefusalKind::Unknown, format!("no server is called '{server}'")))?;
        let (target, _) = document.section(to)?;
        let source = text.get(spot.entry.range.clone()).unwrap_or_default();
        let mut splice = document.splice();
        splice.items(spot.home, &BTreeSet::from([spot.index]), &[]);
        match target.get("servers") {
            Some(home) => splice.written_items(home, &BTreeSet::new(), &[source.to_owned()]),
            None => add_server(&mut splice, target, &spot.entry.json()),
        }
        Ok(splice.finish())
    }

    fn remove(&self, server: &str) -> Result<String, Refusal> {
        let spot = self.known(server)?;
        let mut splice = self.splice();
        splice.items(spot.home, &BTreeSet::from([spot.index]), &[]);
        Ok(splice.finish())
    }
}

/// Adds a server to a section of a panel document.
fn add_server(splice: &mut Splice<'_>, section: &Tree, entry: &Json) {
    match section.get("servers") {
        Some(home) => splice.items(home, &BTreeSet::new(), &[(None, entry)]),
        None => {
            let list = Json::Array(vec![entry.clone()]);
            splice.items(section, &BTreeSet::new(), &[(Some("servers"), &list)]);
        }
    }
}

fn enter_section(entry: &mut Json, section: String) {
    let Some(entry) = entry.as_object_mut() else { return };
    let block = entry.entry("orchestrator").or_insert_with(|| Json::Object(Map::new()));
    if let Some(block) = block.as_object_mut() {
        block.insert("section".to_owned(), section.into());
    }
}

fn leave_section(entry: &mut Json) {
    let Some(entry) = entry.as_object_mut() else { return };
    let block = entry.get_mut("orchestrator").and_then(Json::as_object_mut);
    let empty = block.is_some_and(|block| block.shift_remove("section").is_some() && block.is_empty());
    if empty {
        entry.shift_remove("orchestrator");
    }
}

/// RFC 7396.
fn merge(into: &mut Json, patch: &Json) {
    let Json::Object(changes) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = Json::Object(Map::new());
    }
    let Some(members) = into.as_object_mut() else { return };
    for (key, change) in changes {
        if change.is_null() {
            members.shift_remove(key);
        } else {
            merge(members.entry(key.clone()).or_insert(Json::Null), change);
        }
    }
}

/// The bytes of `range`.
fn slice(text: &str, range: &Range<usize>) -> String {
    text.get(range.clone()).unwrap_or_default().to_owned()
}
