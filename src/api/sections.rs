//! Sections as they are shown: which servers are in each, how they stand, what they inherit.
//!
//! A server whose entry has a problem is in the section that the file puts it in, and counted there as
//! broken. Must never leave out a section because nothing in it is whole.

use crate::api::view::{Moment, ServerView, SettingView};
use crate::api::wishes::PauseView;
use crate::model::id::ServerId;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;

/// What a server whose entry has a problem is counted as.
const BROKEN: &str = "broken";

/// A section.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SectionView {
    /// Its id.
    pub id: String,
    /// Its name in the file.
    pub name: String,
    /// Whether the file declares it.
    pub declared: bool,
    /// Its settings and what describes it, as written, with placeholders for secrets.
    pub settings: serde_json::Map<String, serde_json::Value>,
    /// Servers in it, those with a problem in their entry among them.
    pub servers: Vec<String>,
    /// How many of them are in which state; `broken` are those whose entry has a problem.
    pub states: BTreeMap<String, usize>,
    /// Its servers are left alone: who wants that; `null` otherwise.
    pub paused: Option<PauseView>,
    /// What servers in it inherit, and where that comes from; environment values are never in it.
    pub inherits: Vec<SettingView>,
}

impl Moment {
    fn is_broken(&self, server: &ServerView) -> bool {
        ServerId::new(&server.id).is_ok_and(|id| self.wish.desired.broken.contains_key(&id))
    }

    /// Sections that are declared or have servers, in id order.
    pub(crate) fn sections(&self, servers: &[ServerView]) -> Vec<SectionView> {
        let files = &self.files;
        let inherits = |id: &str| {
            let level = files.levels.iter().find(|level| level.section.as_deref() == Some(id));
            level.map(|level| level.values.iter().map(SettingView::of).collect()).unwrap_or_default()
        };
        let section = |id: String, name: String, declared: bool| SectionView {
            name,
            declared,
            settings: serde_json::Map::new(),
            paused: self.pause_of_section(&id),
            inherits: inherits(&id),
            id,
            servers: Vec::new(),
            states: BTreeMap::new(),
        };
        let mut sections: BTreeMap<String, SectionView> = BTreeMap::new();
        for written in files.outline.sections.clone() {
            let Some(id) = written.id else { continue };
            let view = SectionView { settings: written.settings, ..section(id.clone(), written.name, true) };
            sections.entry(id).or_insert(view);
        }
        // Of a file that is only read there is no outline.
        for id in files.levels.iter().filter_map(|level| level.section.clone()) {
            sections.entry(id.clone()).or_insert_with(|| section(id.clone(), id, true));
        }
        for server in servers {
            let Some(id) = server.section.clone() else { continue };
            let section = sections.entry(id.clone()).or_insert_with(|| section(id.clone(), id, false));
            section.servers.push(server.id.clone());
            let state = if self.is_broken(server) { BROKEN } else { &server.state };
            *section.states.entry(state.to_owned()).or_default() += 1;
        }
        sections.into_values().collect()
    }
}
