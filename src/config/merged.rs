//! The second stage: what a server inherits, and from where.
//!
//! Rules: global defaults, then the section's settings, then the entry's `orchestrator` block.
//! Blocks are merged key by key, everything else is replaced, `null` takes an inherited value
//! away. The level that decided is kept with every value.

use std::collections::BTreeMap;

use crate::config::keys::{Key, ORCHESTRATOR, Shape};
use crate::config::load::Origin;
use crate::config::node::Node;
use crate::config::units;
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
