//! What a file has, as it is written: for whoever wants to change it.
//!
//! Made from a text in which secrets are hidden already ([`crate::config::edit::mask`]), so that
//! nothing of it can show one.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value as Json};

use crate::config::edit::{Document, Layout, SECTION_NAMES, layout, named, readable};
use crate::config::ids::{Named, section_id};

/// What a file has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Outline {
    /// `map` for `mcpServers`, `panel` for a panel document.
    pub form: String,
    /// Settings of all servers.
    pub defaults: Map<String, Json>,
    /// Declared sections, in the file's order.
    pub sections: Vec<DeclaredSection>,
    /// Entries, in the file's order.
    pub servers: Vec<WrittenServer>,
}

/// A section as it is declared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeclaredSection {
    /// Its id; none when its name gives none.
    pub id: Option<String>,
    /// Its name in the file.
    pub name: String,
    /// Its settings and what describes it, as written, without its servers.
    pub settings: Map<String, Json>,
}

/// A server as it is written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WrittenServer {
    /// Its id; none when its name gives none, or that of another.
    pub id: Option<String>,
    /// Its name in the file.
    pub name: String,
    /// The name of its section.
    pub section: Option<String>,
    /// The entry.
    pub entry: Json,
}

impl WrittenServer {
    /// What it is meant to be, also where the entry cannot be used: `container`, `process` or `remote`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        let program = self.entry.get("command").and_then(Json::as_str);
        let docker = |program: &str| program == "docker" || program.ends_with("/docker");
        match program {
            Some(program) if !docker(program) => "process",
            None if ["url", "serverUrl", "httpUrl"].iter().any(|key| self.entry.get(*key).is_some()) => {
                "remote"
            }
            Some(_) | None => "container",
        }
    }

    /// The id of its section; none when it is in none, or its name gives no id.
    #[must_use]
    pub fn section_id(&self) -> Option<String> {
        section_id(self.section.as_deref()?).ok().map(|id| id.to_string())
    }
}

/// What `text` of `file` has; `None` when it is of a form that is not changed here.
#[must_use]
pub fn outline(file: &str, text: &str) -> Option<Outline> {
    let text = text.trim_start_matches('\u{feff}');
    let root = readable(file, text).ok()?;
    let document = Document { file, text, layout: layout(&root), root: &root };
    let panel = document.layout == Layout::Panel;
    let listed = document.sections().is_some_and(|home| !home.is_object());
    let global = if panel {
        root.get("globalDefaults")
    } else {
        root.get("orchestrator").and_then(|b| b.get("globalDefaults"))
    };
    let members = |json: Json| if let Json::Object(members) = json { members } else { Map::new() };
    let sections = document.all_sections().into_iter().map(|(name, _, node)| {
        let mut settings = members(node.json());
        settings.shift_remove("servers");
        if let Some((key, _)) = named(node, SECTION_NAMES).filter(|_| listed) {
            settings.shift_remove(key);
        }
        DeclaredSection { id: section_id(&name).ok().map(|id| id.to_string()), name, settings }
    });
    let servers = document.servers().into_iter().map(|spot| WrittenServer {
        id: if let Named::Id(id) = &spot.named { Some(id.to_string()) } else { None },
        name: spot.name,
        section: spot.section,
        entry: spot.entry.json(),
    });
    Some(Outline {
        form: if panel { "panel" } else { "map" }.to_owned(),
        defaults: global.map(|node| members(node.json())).unwrap_or_default(),
        sections: sections.collect(),
        servers: servers.collect(),
    })
}
