//! Changes of sections, and of the settings of all servers.

use serde_json::{Map, Value as Json};
use std::collections::BTreeSet;

use crate::config::edit::splice::Splice;
use crate::config::edit::tree::{self, Tree};
use crate::config::edit::{
    Change, Document, Layout, Orphans, Refusal, RefusalKind, SECTION_NAMES, named, one, readable,
};
use crate::config::ids::{Named, section_id};

impl<'t> Document<'t> {
    /// The object or list of sections.
    pub(super) fn sections(&self) -> Option<&'t Tree> {
        match self.layout {
            Layout::Panel => self.root.get("sections"),
            Layout::Map => self.root.get("orchestrator")?.get("sections"),
        }
    }

    /// Every section: its name, its place and what stands there.
    pub(super) fn all_sections(&self) -> Vec<(String, usize, &'t Tree)> {
        let Some(home) = self.sections() else { return Vec::new() };
        let in_map = home.entries().iter().map(|entry| (entry.key.clone(), &entry.value));
        let in_list = home.elements().iter().map(|section| {
            let name = named(section, SECTION_NAMES).map(|(_, name)| name.to_owned());
            (name.unwrap_or_default(), section)
        });
        in_map.chain(in_list).enumerate().map(|(index, (name, node))| (name, index, node)).collect()
    }

    fn find_section(&self, section: &str) -> Option<(String, usize, &'t Tree)> {
        let all = self.all_sections();
        let is_id = |name: &str| section_id(name).is_ok_and(|id| id.as_str() == section);
        let by_name = all.iter().find(|(name, ..)| name == section);
        by_name.or_else(|| all.iter().find(|(name, ..)| is_id(name))).cloned()
    }

    /// A section that must be there: what stands there, and its name.
    pub(super) fn section(&self, section: &str) -> Result<(&'t Tree, String), Refusal> {
        let unknown = || {
            Refusal::new(RefusalKind::Unknown, format!("no section is called '{section}'"))
                .hint("make it first: POST /api/v1/sections")
        };
        self.find_section(section).map(|(name, _, node)| (node, name)).ok_or_else(unknown)
    }

    pub(super) fn put_section(&self, section: &str, settings: &Json, new: bool) -> Result<String, Refusal> {
        let Json::Object(members) = settings else {
            return Err(Refusal::new(RefusalKind::Invalid, "the settings of a section are an object"));
        };
        let found = self.find_section(section);
        if new && found.is_some() {
            return Err(Refusal::new(
                RefusalKind::Taken,
                format!("a section called '{section}' is there already"),
            )
            .hint("PUT replaces its settings"));
        }
        let listed = self.layout == Layout::Panel
            || self.sections().is_some_and(|home| matches!(home.kind, tree::Kind::List(_)));
        let mut wanted = Map::new();
        if listed {
            let held = found.as_ref().and_then(|(_, _, node)| named(node, SECTION_NAMES));
            let (key, name) = held.unwrap_or(("id", section));
            wanted.insert(key.to_owned(), name.into());
        }
        wanted.extend(members.clone());
        if self.layout == Layout::Panel {
            let servers = found.as_ref().and_then(|(_, _, node)| node.get("servers"));
            wanted.insert("servers".to_owned(), servers.map_or_else(|| Json::Array(Vec::new()), Tree::json));
        }
        let wanted = Json::Object(wanted);
        let mut splice = self.splice();
        match (found, self.sections()) {
            (Some((_, _, node)), _) => splice.reshape(node, &wanted),
            (None, Some(home)) => {
                splice.items(home, &BTreeSet::new(), &[((!listed).then_some(section), &wanted)]);
            }
            (None, None) if listed => {
                let list = Json::Array(vec![wanted]);
                splice.items(self.root, &BTreeSet::new(), &[(Some("sections"), &list)]);
            }
            (None, None) => {
                let map = Json::Object(Map::from_iter([(section.to_owned(), wanted)]));
                self.below_orchestrator(&mut splice, "sections", &map)?;
            }
        }
        Ok(splice.finish())
    }

    pub(super) fn remove_section(&self, section: &str, servers: &Orphans) -> Result<String, Refusal> {
        let (_, name) = self.section(section)?;
        let members: Vec<String> = self
            .servers()
            .into_iter()
            .filter(|spot| spot.section.as_ref() == Some(&name))
            .map(|spot| if let Named::Id(id) = &spot.named { id.to_string() } else { spot.name })
            .collect();
        let mut text = self.text.to_owned();
        if !members.is_empty() {
            match servers {
                Orphans::Refuse => {
                    let (some, rest) = (members.iter().take(3), members.len().saturating_sub(3));
                    let some: Vec<&str> = some.map(String::as_str).collect();
                    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
                    let message = format!("section '{name}' has servers: {}{more}", some.join(", "));
                    return Err(Refusal::new(RefusalKind::NotEmpty, message).hint(
                        "?servers=move (with &to=SECTION, or out of every section), or ?servers=delete",
                    ));
                }
                Orphans::Move(to) => {
                    for server in members {
                        let (server, patch) = (server, Json::Object(Map::new()));
                        text = one(
                            self.file,
                            &text,
                            &Change::Patch { server, patch, section: Some(to.clone()) },
                        )?;
                    }
                }
                Orphans::Delete if self.layout == Layout::Panel => {}
                Orphans::Delete => {
                    for server in members {
                        text = one(self.file, &text, &Change::Remove { server })?;
                    }
                }
            }
        }
        let root = readable(self.file, &text)?;
        let document = Document { file: self.file, text: &text, layout: self.layout, root: &root };
        let found = document.find_section(&name).zip(document.sections());
        let mut splice = document.splice();
        if let Some(((_, index, _), home)) = found {
            splice.items(home, &BTreeSet::from([index]), &[]);
        }
        Ok(splice.finish())
    }

    pub(super) fn defaults(&self, settings: &Json) -> Result<String, Refusal> {
        if !settings.is_object() {
            return Err(Refusal::new(RefusalKind::Invalid, "the settings of all servers are an object"));
        }
        let mut splice = self.splice();
        let key = "globalDefaults";
        match (self.layout, self.root.get(key)) {
            (Layout::Panel, Some(node)) => splice.reshape(node, settings),
            (Layout::Panel, None) => splice.items(self.root, &BTreeSet::new(), &[(Some(key), settings)]),
            (Layout::Map, _) => self.below_orchestrator(&mut splice, key, settings)?,
        }
        Ok(splice.finish())
    }

    /// `orchestrator.KEY` of a map is this.
    fn below_orchestrator(&self, splice: &mut Splice<'_>, key: &str, value: &Json) -> Result<(), Refusal> {
        let Some(block) = self.root.get("orchestrator") else {
            let block = Json::Object(Map::from_iter([(key.to_owned(), value.clone())]));
            splice.items(self.root, &BTreeSet::new(), &[(Some("orchestrator"), &block)]);
            return Ok(());
        };
        if !block.is_object() {
            return Err(Refusal::new(RefusalKind::Uneditable, "'orchestrator' at the top is not an object"));
        }
        match block.get(key) {
            Some(node) => splice.reshape(node, value),
            None => splice.items(block, &BTreeSet::new(), &[(Some(key), value)]),
        }
        Ok(())
    }
}
