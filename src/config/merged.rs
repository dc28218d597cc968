//! The second stage: what a server inherits, and from where.
//!
//! Rules: global defaults, then the section's settings, then the entry's `orchestrator` block.
//! Blocks are merged key by key, everything else is replaced, `null` takes an inherited value
//! away. The level that decided is kept with every value.

use std::collections::BTreeMap;

use crate::config::error::Sink;
use crate::config::keys::{Key, ORCHESTRATOR, Shape};
use crate::config::load::{EffectiveValue, Origin};
use crate::config::node::Node;
use crate::config::units;
use crate::model::id::SectionId;
use crate::model::time::Span;

/// One inherited value.
#[derive(Clone, Debug)]
pub(crate) struct Inherited {
    /// The value as written.
    pub(crate) node: Node,
    /// The level that decided.
    pub(crate) origin: Origin,
}

/// All values of a server by dotted key (`health.interval`).
#[derive(Clone, Debug, Default)]
pub(crate) struct Merged {
    /// Values but the environment.
    pub(crate) values: BTreeMap<String, Inherited>,
    /// The environment of the levels above the entry; a null value is kept, it unsets.
    pub(crate) env: BTreeMap<String, Inherited>,
    /// The sections that it waits for; none that waits for it.
    pub(crate) depends: Vec<SectionId>,
}

impl Merged {
    /// Lays `block` of `origin` over what is there.
    pub(crate) fn lay(&mut self, block: &Node, origin: &Origin) {
        for member in block.members() {
            if member.key == "env" {
                for variable in member.value.members() {
                    let value = inherited(&variable.value, origin);
                    self.env.insert(variable.key.clone(), value);
                }
                continue;
            }
            let key = ORCHESTRATOR.iter().find(|key| key.name == member.key);
            match key.map(|key| key.shape) {
                Some(Shape::Block(keys)) => self.lay_block(&member.key, keys, &member.value, origin),
                Some(_) => self.set(&member.key, &member.value, origin),
                None => {}
            }
        }
    }

    fn lay_block(&mut self, name: &str, keys: &[Key], block: &Node, origin: &Origin) {
        if block.is_null() {
            let prefix = format!("{name}.");
            self.values.retain(|key, _| !key.starts_with(&prefix));
        }
        for member in block.members() {
            if keys.iter().any(|key| key.name == member.key) {
                self.set(&format!("{name}.{}", member.key), &member.value, origin);
            }
        }
    }

    fn set(&mut self, key: &str, node: &Node, origin: &Origin) {
        if node.is_null() {
            self.values.remove(key);
        } else {
            self.values.insert(key.to_owned(), inherited(node, origin));
        }
    }

    /// All values, as they are shown; environment values are not.
    pub(crate) fn shown(&self, sink: &Sink<'_>) -> BTreeMap<String, EffectiveValue> {
        let shown = |key: String, text: String, value: &Inherited| {
            let place = Some(sink.place(value.node.at));
            let origin = value.origin.clone();
            (key.clone(), EffectiveValue { key, value: text, origin, place })
        };
        let text = |node: &Node| node.scalar().unwrap_or_else(|| node.to_json().to_string());
        let values = self.values.iter().map(|(key, value)| shown(key.clone(), text(&value.node), value));
        let env = self.env.iter();
        let env = env.map(|(name, value)| shown(format!("env.{name}"), "[redacted]".to_owned(), value));
        values.chain(env).collect()
    }

    /// The value of `key`.
    pub(crate) fn get(&self, key: &str) -> Option<&Inherited> {
        self.values.get(key)
    }

    /// The value of `key` as text.
    pub(crate) fn text(&self, key: &str) -> Option<String> {
        self.get(key)?.node.scalar()
    }

    /// The value of `key` as a boolean.
    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        self.get(key)?.node.as_bool()
    }

    /// The value of `key` as a number.
    pub(crate) fn number<T: std::str::FromStr>(&self, key: &str) -> Option<T> {
        self.text(key)?.parse().ok()
    }

    /// The value of `key` as a length of time.
    pub(crate) fn span(&self, key: &str) -> Option<Span> {
        units::span(&self.text(key)?).ok()
    }

    /// The value of `key` as words.
    pub(crate) fn words(&self, key: &str) -> Option<Vec<String>> {
        let node = &self.get(key)?.node;
        Some(node.items().iter().filter_map(Node::scalar).collect())
    }
}

fn inherited(node: &Node, origin: &Origin) -> Inherited {
    Inherited { node: node.clone(), origin: origin.clone() }
}

#[cfg(test)]
mod tests {
    use super::Merged;
    use crate::config::error::Sink;
    use crate::config::json;
    use crate::config::load::Origin;
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};

    const BLOCKS: [(&str, [&str; 2]); 2] =
        [("health", ["interval", "timeout"]), ("limits", ["memory", "cpus"])];

    fn level() -> impl Strategy<Value = Json> {
        let leaf = || prop_oneof![2 => Just(None), 1 => Just(Some(Json::Null)), 3 => (1..9).prop_map(|n| Some(json!(n)))];
        let pair = |names: [&'static str; 2]| {
            (leaf(), leaf()).prop_map(move |(a, b)| {
                let said =
                    names.into_iter().zip([a, b]).filter_map(|(name, value)| Some((name.to_owned(), value?)));
                Json::Object(said.collect())
            })
        };
        let block = move |names| prop_oneof![2 => Just(None), 1 => Just(Some(Json::Null)), 4 => pair(names).prop_map(Some)];
        let list = prop_oneof![2 => Just(None), 1 => Just(Some(Json::Null)), 2 => prop::collection::vec("[a-c]", 0..3).prop_map(|words| Some(json!(words)))];
        (leaf(), block(BLOCKS[0].1), block(BLOCKS[1].1), list, pair(["A", "B"])).prop_map(
            |(priority, health, limits, cap_add, env)| {
                let said = [
                    ("priority", priority),
                    ("health", health),
                    ("limits", limits),
                    ("capAdd", cap_add),
                    ("env", Some(env)),
                ];
                Json::Object(
                    said.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect(),
                )
            },
        )
    }

    /// What the last level that says something of a key says; null takes away.
    fn decided(levels: &[Json], path: &[&str]) -> Option<(Json, usize)> {
        for (index, level) in levels.iter().enumerate().rev() {
            let mut node = Some(level);
            for part in path {
                node = match node {
                    Some(Json::Null) => Some(&Json::Null),
                    Some(node) => node.get(part),
                    None => None,
                };
            }
            if let Some(said) = node {
                return (!said.is_null()).then(|| (said.clone(), index));
            }
        }
        None
    }

    proptest! {
        #[test]
        fn the_last_level_that_says_something_decides(levels in prop::collection::vec(level(), 3)) {
            let origins = [Origin::Global, Origin::Section("s".into()), Origin::Server];
            let mut merged = Merged::default();
            for (level, origin) in levels.iter().zip(&origins) {
                let text = level.to_string();
                let mut sink = Sink::new("t", &text);
                let node = json::read(&text, &mut sink).expect("JSON");
                merged.lay(&node, origin);
            }
            let found = |key: &str| merged.get(key).map(|value| (value.node.to_json(), value.origin.clone()));
            let wanted = |path: &[&str]| decided(&levels, path).map(|(value, n)| (value, origins[n].clone()));
            for key in ["priority", "capAdd"] {
                prop_assert_eq!(found(key), wanted(&[key]), "{}", key);
            }
            for (block, members) in BLOCKS {
                for member in members {
                    prop_assert_eq!(found(&format!("{block}.{member}")), wanted(&[block, member]), "{}.{}", block, member);
                }
            }
            for name in ["A", "B"] {
                let said = levels.iter().rposition(|level| level["env"].get(name).is_some());
                let held = merged.env.get(name).map(|value| (value.node.to_json(), value.origin.clone()));
                prop_assert_eq!(held, said.map(|n| (levels[n]["env"][name].clone(), origins[n].clone())), "null is kept");
            }
        }
    }
}
