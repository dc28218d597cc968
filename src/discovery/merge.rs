//! Which finds become entries of mcp.config.json, and under which name.
//!
//! What is there already is recognised by what it starts, not by its name; a name that is taken by
//! another server gets the source behind it, then a number, so that the same finds always get the same
//! names. New entries are disabled unless somebody asked otherwise: finding is no consent to run.

use crate::discovery::entry::signature;
use crate::discovery::{Confidence, Find, Source};
use crate::model::id::ServerId;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Numbers tried behind a name.
const NUMBERS_MAX: usize = 1000;

/// What somebody wants written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Entries run at once.
    pub enable: bool,
    /// Finds of which we are less sure are left.
    pub least: Confidence,
    /// Only these names, where any are named.
    pub only: BTreeSet<String>,
}

/// What becomes of a find.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// A new entry.
    Add {
        /// Its name in mcp.config.json.
        name: String,
        /// The entry.
        entry: Value,
    },
    /// This entry is the same server.
    Same(String),
    /// It is left, and why.
    Left(String),
}

/// What becomes of each find, in their order. `existing` are the entries of the file.
#[must_use]
pub fn plan(existing: &[(String, Value)], finds: &[Find], wish: &Wish) -> Vec<Outcome> {
    let mut servers: BTreeMap<String, String> =
        existing.iter().map(|(name, entry)| (signature(entry), name.clone())).collect();
    let mut taken: BTreeSet<String> = existing.iter().map(|(name, _)| id(name)).collect();
    finds
        .iter()
        .map(|find| {
            if !wish.only.is_empty() && !wish.only.contains(&find.name) {
                return Outcome::Left("not named".to_owned());
            }
            if find.confidence < wish.least && wish.only.is_empty() {
                return Outcome::Left(format!("confidence {}: name it to take it", find.confidence));
            }
            let what = signature(&find.entry);
            if let Some(same) = servers.get(&what) {
                return Outcome::Same(same.clone());
            }
            let Some(name) = free(&find.name, find.source, &taken) else {
                return Outcome::Left("no name is free".to_owned());
            };
            taken.insert(id(&name));
            servers.insert(what, name.clone());
            Outcome::Add { name, entry: written(find, wish.enable) }
        })
        .collect()
}

/// What a name is in addresses; a name that gives none stands for itself.
fn id(name: &str) -> String {
    ServerId::slug(name).map_or_else(|_none| name.to_owned(), |id| id.as_str().to_owned())
}

/// `name`, or the first of its neighbours that nobody has and that can be an id.
fn free(name: &str, source: Source, taken: &BTreeSet<String>) -> Option<String> {
    let usable = |name: &str| ServerId::slug(name).is_ok_and(|id| !taken.contains(id.as_str()));
    let with_source = format!("{name}-{source}");
    let names = [name.to_owned(), with_source.clone()].into_iter();
    let numbered = (2..NUMBERS_MAX).map(|number| format!("{with_source}-{number}"));
    names.chain(numbered).find(|name| usable(name))
}

/// The entry with where it came from said, and not running unless wanted.
fn written(find: &Find, enable: bool) -> Value {
    let mut map = find.entry.as_object().cloned().unwrap_or_else(Map::new);
    let off =
        map.get("disabled") == Some(&Value::Bool(true)) || map.get("enabled") == Some(&Value::Bool(false));
    map.shift_remove("enabled");
    map.shift_remove("disabled");
    if off || !enable {
        map.insert("disabled".to_owned(), Value::Bool(true));
    }
    Value::Object(map)
}

#[cfg(test)]
mod tests {
    use super::{Outcome, Wish, plan};
    use crate::discovery::{Confidence, Find, Source};
    use serde_json::{Value, json};
    use std::collections::BTreeSet;

    fn wish() -> Wish {
        Wish { enable: false, least: Confidence::Medium, only: BTreeSet::new() }
    }

    fn find(name: &str, source: Source, entry: Value) -> Find {
        Find::new(name, source, "/x", entry)
    }

    #[test]
    fn duplicates_are_recognised_and_names_never_collide() {
        let existing = vec![
            ("time".to_owned(), json!({"command": "npx", "args": ["a"]})),
            ("fetch".to_owned(), json!({"command": "uvx", "args": ["f"]})),
        ];
        let finds = [
            find("other", Source::Cursor, json!({"command": "npx", "args": ["-y", "a"]})),
            find("Time", Source::Cursor, json!({"command": "b"})),
            find("time", Source::Cursor, json!({"command": "c"})),
            find("again", Source::Zed, json!({"command": "c"})),
            find("mcp", Source::Codex, json!({"command": "d"})),
            find("x", Source::Codex, json!({"command": "e"})).because(Confidence::Low, ""),
        ];
        let outcomes = plan(&existing, &finds, &wish());
        let shown: Vec<String> = outcomes
            .iter()
            .map(|outcome| match outcome {
                Outcome::Add { name, entry } => format!("+{name} {}", entry["disabled"]),
                Outcome::Same(name) => format!("={name}"),
                Outcome::Left(why) => why.clone(),
            })
            .collect();
        let expected = [
            "=time",
            "+Time-cursor true",
            "+time-cursor-2 true",
            "=time-cursor-2",
            "+mcp-codex true",
            "confidence low: name it to take it",
        ];
        assert_eq!(shown, expected);
        assert_eq!(plan(&existing, &finds, &wish()), outcomes, "the same finds get the same names");
    }

    #[test]
    fn nothing_is_enabled_without_being_asked_and_off_stays_off() {
        let finds = [
            find("a", Source::Codex, json!({"command": "a", "disabled": false})),
            find("b", Source::Codex, json!({"command": "b", "enabled": false})),
        ];
        let entries = |enable| -> Vec<Value> {
            let outcomes = plan(&[], &finds, &Wish { enable, ..wish() });
            outcomes
                .into_iter()
                .map(|outcome| if let Outcome::Add { entry, .. } = outcome { entry } else { Value::Null })
                .collect()
        };
        assert_eq!(
            entries(false),
            [json!({"command": "a", "disabled": true}), json!({"command": "b", "disabled": true})]
        );
        assert_eq!(entries(true), [json!({"command": "a"}), json!({"command": "b", "disabled": true})]);
    }

    #[test]
    fn a_named_find_is_taken_however_unsure_we_are() {
        let finds = [find("a", Source::Codex, json!({"command": "a"})).because(Confidence::Low, "")];
        let wish = Wish { only: BTreeSet::from(["a".to_owned()]), ..wish() };
        assert!(matches!(plan(&[], &finds, &wish)[..], [Outcome::Add { .. }]));
    }
}
