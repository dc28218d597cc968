//! Which sections wait for which (`dependsOn`): names that nobody has, and circles.
//!
//! Sections are the points, "some server in it waits for all servers of that one" is the arrow. A circle
//! of sections is an error of each of them; one that an entry closes is that entry's. What the global
//! defaults ask for holds for every section that is not waited for itself.
//!
//! Must never let a circle through: who waits for it would wait in vain.

use crate::config::codes;
use crate::config::error::Sink;
use crate::config::ids::section_id;
use crate::config::load::Origin;
use crate::config::merged::Merged;
use crate::config::node::Node;
use crate::config::raw::{Raw, RawServer};
use crate::config::text::did_you_mean;
use crate::model::id::SectionId;
use std::collections::{BTreeMap, BTreeSet};

/// The key.
pub(crate) const KEY: &str = "dependsOn";

/// Who waits for whom.
#[derive(Debug, Default)]
pub(crate) struct Depends {
    /// Declared sections by id, with their names.
    known: BTreeMap<SectionId, String>,
    /// Arrows of sections.
    sections: BTreeMap<SectionId, BTreeSet<SectionId>>,
    /// Arrows of single entries.
    entries: BTreeMap<SectionId, BTreeSet<SectionId>>,
}

/// Sections that a block asks for, with their places.
fn asked(block: Option<&Node>) -> impl Iterator<Item = (&Node, String)> {
    let items = block.and_then(|block| block.get(KEY)).map(Node::items).unwrap_or_default();
    items.iter().filter_map(|item| Some((item, item.scalar()?)))
}

/// The section that an entry is in.
fn section_of(server: &RawServer) -> Option<SectionId> {
    let named = || server.entry.get("orchestrator")?.get("section")?.scalar();
    section_id(&server.section.clone().or_else(named)?).ok()
}

impl Depends {
    /// Reads who waits for whom.
    pub(crate) fn read(raw: &Raw) -> Self {
        let mut all = Self::default();
        for section in &raw.sections {
            let Ok(id) = section_id(&section.name) else { continue };
            let to = asked(Some(&section.settings)).filter_map(|(_, name)| section_id(&name).ok());
            all.sections.entry(id.clone()).or_default().extend(to);
            all.known.insert(id, section.name.clone());
        }
        for server in &raw.servers {
            let Some(from) = section_of(server) else { continue };
            let to = asked(server.entry.get("orchestrator")).filter_map(|(_, name)| section_id(&name).ok());
            all.entries.entry(from).or_default().extend(to);
        }
        all
    }

    /// Reports what is wrong with a block's list; `from` is the section that it is of.
    pub(crate) fn check(&self, block: &Node, from: Option<&str>, of_entry: bool, sink: &mut Sink<'_>) {
        let from = from.and_then(|name| section_id(name).ok());
        for (item, name) in asked(Some(block)) {
            let known = section_id(&name).ok().filter(|id| self.known.contains_key(id));
            let Some(to) = known else {
                sink.error(
                    codes::SECTION,
                    item.at,
                    format!("'{KEY}' names section '{name}', which is not declared"),
                );
                sink.hint(did_you_mean(&name, self.known.values().map(String::as_str)));
                continue;
            };
            let Some(from) = &from else { continue };
            if to == *from {
                sink.error(codes::SECTION, item.at, format!("'{KEY}' names '{name}', the section itself"));
                sink.hint("a section cannot wait for its own servers; use priority for their order");
            } else if let Some(way) = self.way(&to, from, of_entry) {
                let words: Vec<&str> = way.iter().map(SectionId::as_str).collect();
                let circle = format!("{from} -> {}", words.join(" -> "));
                sink.error(
                    codes::SECTION,
                    item.at,
                    format!("sections wait for each other in a circle: {circle}"),
                );
                sink.hint("take one of them out of its dependsOn");
            }
        }
    }

    /// The way from `start` to `goal`, both included; with arrows of entries, too, where these count.
    fn way(&self, start: &SectionId, goal: &SectionId, entries: bool) -> Option<Vec<SectionId>> {
        let mut came_from: BTreeMap<SectionId, SectionId> = BTreeMap::new();
        let mut open = vec![start.clone()];
        let mut seen: BTreeSet<SectionId> = [start.clone()].into();
        while let Some(at) = open.pop() {
            if at == *goal {
                let mut way = vec![at];
                while let Some(before) = way.last().and_then(|last| came_from.get(last)) {
                    way.push(before.clone());
                }
                way.reverse();
                return Some(way);
            }
            let of_sections = self.sections.get(&at).into_iter().flatten();
            let of_entries = self.entries.get(&at).filter(|_| entries).into_iter().flatten();
            for next in of_sections.chain(of_entries) {
                if seen.insert(next.clone()) {
                    came_from.insert(next.clone(), at.clone());
                    open.push(next.clone());
                }
            }
        }
        None
    }

    /// The sections that a server in section `own` waits for.
    pub(crate) fn meant(&self, merged: &Merged, own: Option<&str>) -> Vec<SectionId> {
        let Some(value) = merged.get(KEY) else { return Vec::new() };
        let own = own.and_then(|name| section_id(name).ok());
        let named = value.node.items().iter().filter_map(|item| section_id(&item.scalar()?).ok());
        let waits_for_us =
            |id: &SectionId| own.as_ref().is_some_and(|own| id == own || self.way(id, own, true).is_some());
        let all: BTreeSet<SectionId> =
            named.filter(|id| value.origin != Origin::Global || !waits_for_us(id)).collect();
        all.into_iter().collect()
    }
}
