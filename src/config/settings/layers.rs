//! Where settings come from: flag over environment over file over default.
//!
//! The `config` crate merges the layers; every value carries the index of its place through it, so
//! that a bad value is named where it was written and `why` can tell where a value came from.
//!
//! Invariant: the highest layer that mentions a setting decides, and nothing else does (property
//! test `the_highest_layer_decides` in `tests/it/config.rs`).

use std::collections::{BTreeMap, BTreeSet};

use ::config::{Config, ConfigError, Map, Source, Value, ValueKind};
use serde::{Deserialize, Serialize};

use crate::config::codes;
use crate::config::error::{Place, Problem, Sink};
use crate::config::ini::{self, Ini};
use crate::config::settings::Input;
use crate::config::settings::table::{self, KEYS, Kind, SECTIONS};
use crate::config::text::{closest, decode, did_you_mean};

/// Beginning of the environment variables that are settings.
pub const ENVIRONMENT_PREFIX: &str = "MCP_ORCHESTRATOR__";

/// What decided a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// The table's default.
    Default,
    /// settings.conf.
    File,
    /// `MCP_ORCHESTRATOR__SECTION__KEY`.
    Environment,
    /// A flag of the command line.
    Flag,
}

/// A setting as written, and where.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Written {
    /// The text; empty for unset.
    pub(crate) text: String,
    /// Which layer.
    pub(crate) layer: Layer,
    /// Where.
    pub(crate) place: Place,
}

impl std::fmt::Debug for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Written")
            .field("layer", &self.layer)
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

/// `section.key` as the layers name it.
pub(crate) fn dotted(section: &str, key: &str) -> String {
    format!("{section}.{key}")
}

/// The values of one layer, as a source of the `config` crate.
#[derive(Clone, Debug)]
struct LayerSource(BTreeMap<String, (usize, String)>);

impl Source for LayerSource {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self
            .0
            .iter()
            .map(|(name, (index, text))| {
                let origin = index.to_string();
                let value = Value::new(Some(&origin), ValueKind::String(text.clone()));
                (name.clone(), value)
            })
            .collect())
    }
}

/// Merges all layers of `input`: every setting of the table, as the highest layer has it.
pub(crate) fn merge(input: &Input<'_>, problems: &mut Vec<Problem>) -> BTreeMap<String, Written> {
    let layers = [
        defaults(),
        from_file(input, problems),
        from_environment(input.env, problems),
        from_flags(input.flags, problems),
    ];
    let mut all: Vec<Written> = Vec::new();
    let mut builder = Config::builder();
    for layer in layers {
        let mut source = BTreeMap::new();
        for (name, written) in layer {
            source.insert(name, (all.len(), written.text.clone()));
            all.push(written);
        }
        builder = builder.add_source(LayerSource(source));
    }
    // Names are those of the table, plain words; building cannot fail on them.
    let merged = builder.build().and_then(|config| config.collect()).unwrap_or_default();
    let mut winners = BTreeMap::new();
    for (section, value) in merged {
        let Ok(keys) = value.into_table() else {
            continue;
        };
        for (key, value) in keys {
            let index = value.origin().and_then(|origin| origin.parse::<usize>().ok());
            if let Some(written) = index.and_then(|index| all.get(index)) {
                winners.insert(dotted(&section, &key), written.clone());
            }
        }
    }
    winners
}

fn defaults() -> BTreeMap<String, Written> {
    KEYS.iter()
        .map(|key| {
            let written = Written {
                text: key.default.to_owned(),
                layer: Layer::Default,
                place: Place::whole("default"),
            };
            (dotted(key.section, key.key), written)
        })
        .collect()
}

fn from_file(input: &Input<'_>, problems: &mut Vec<Problem>) -> BTreeMap<String, Written> {
    let Some((file, bytes)) = input.file else {
        return BTreeMap::new();
    };
    let text = match decode(file, bytes) {
        Ok(text) => text,
        Err(problem) => {
            problems.push(*problem);
            return BTreeMap::new();
        }
    };
    let mut sink = Sink::new(file, text);
    let ini = ini::read(text, &mut sink);
    check_headings(&ini, &mut sink);
    let mut found: BTreeMap<String, Written> = BTreeMap::new();
    for item in ini.items {
        if !SECTIONS.iter().any(|known| known.name == item.section) {
            continue;
        }
        if table::find(&item.section, &item.key).is_none() {
            sink.error(
                codes::UNKNOWN_SETTING,
                item.key_at,
                format!("unknown key '{}' in [{}]", item.key, item.section),
            );
            sink.hint(hint_for_key(&item.section, &item.key));
            continue;
        }
        let place = sink.place(item.value_at);
        let name = dotted(&item.section, &item.key);
        if let Some(first) = found.get(&name) {
            let message = format!(
                "key '{}' of [{}] is there twice, first in line {}",
                item.key, item.section, first.place.line
            );
            sink.error(codes::DUPLICATE_SETTING, item.key_at, message);
            continue;
        }
        let written = Written { text: item.value, layer: Layer::File, place };
        found.insert(name, written);
    }
    problems.extend(sink.finish());
    found
}

fn check_headings(ini: &Ini, sink: &mut Sink<'_>) {
    let mut seen = BTreeSet::new();
    for heading in &ini.headings {
        if !SECTIONS.iter().any(|known| known.name == heading.name) {
            sink.error(codes::UNKNOWN_SECTION, heading.at, format!("unknown section [{}]", heading.name));
            sink.hint(did_you_mean(&heading.name, SECTIONS.iter().map(|known| known.name)));
        } else if !seen.insert(heading.name.as_str()) {
            sink.error(
                codes::DUPLICATE_SETTING,
                heading.at,
                format!("section [{}] is there twice", heading.name),
            );
            sink.hint("put its keys under the first one");
        }
    }
}

/// What to try instead of an unknown `key` of `section`, in this section or another.
pub(super) fn hint_for_key(section: &str, key: &str) -> String {
    let here = table::keys_of(section).map(|known| known.key);
    if closest(key, here.clone()).is_none()
        && let Some(known) = KEYS.iter().find(|known| known.key == key)
    {
        return format!("'{key}' belongs to [{}]", known.section);
    }
    did_you_mean(key, here)
}

fn from_environment(
    env: &BTreeMap<String, String>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, Written> {
    let mut found = BTreeMap::new();
    for (variable, text) in env {
        let Some(rest) = variable.strip_prefix(ENVIRONMENT_PREFIX) else {
            continue;
        };
        let place = Place::whole(format!("environment variable {variable}"));
        let lower = rest.to_ascii_lowercase();
        let (section, key) = lower.split_once("__").unwrap_or((lower.as_str(), ""));
        if table::find(section, key).is_none() {
            let message = "it has our prefix and names no setting";
            let names: Vec<String> =
                KEYS.iter().map(|known| variable_name(known.section, known.key)).collect();
            let hint = match closest(variable, names.iter().map(String::as_str)) {
                Some(name) => format!("did you mean {name}?"),
                None => format!("the form is {ENVIRONMENT_PREFIX}SECTION__KEY"),
            };
            problems.push(Problem::error(codes::UNKNOWN_ENVIRONMENT, place, message).hint(hint));
            continue;
        }
        let written = Written { text: text.trim().to_owned(), layer: Layer::Environment, place };
        found.insert(dotted(section, key), written);
    }
    found
}

/// The environment variable of a setting.
#[must_use]
pub fn variable_name(section: &str, key: &str) -> String {
    format!("{ENVIRONMENT_PREFIX}{}__{}", section.to_ascii_uppercase(), key.to_ascii_uppercase())
}

fn from_flags(flags: &BTreeMap<String, String>, problems: &mut Vec<Problem>) -> BTreeMap<String, Written> {
    let mut found = BTreeMap::new();
    for (name, text) in flags {
        let place = Place::whole(format!("flag for {name}"));
        let (section, key) = name.split_once('.').unwrap_or((name.as_str(), ""));
        if table::find(section, key).is_none() {
            let message = format!("no setting is named {name}");
            problems.push(Problem::error(codes::UNKNOWN_SETTING, place, message));
            continue;
        }
        let written = Written { text: text.clone(), layer: Layer::Flag, place };
        found.insert(name.clone(), written);
    }
    found
}

/// Whether a setting's value must not be shown.
pub(crate) fn is_secret(section: &str, key: &str) -> bool {
    table::find(section, key).is_some_and(|known| known.kind == Kind::Secret)
}
