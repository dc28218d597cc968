//! What else is on the engine: images and containers, as far as they may be MCP servers of others.
//!
//! Must never become something an action names: these are looked at and told of, nothing else.

use crate::model::time::Timestamp;
use std::collections::BTreeMap;

/// An image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForeignImage {
    /// `repository:tag`, or the id where it has no name.
    pub reference: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// TCP ports it exposes; `None` when that was not asked.
    pub exposed: Option<Vec<u16>>,
}

/// A container that runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForeignContainer {
    /// The engine's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The image as it was named at creation.
    pub image: String,
    /// Its labels, those of its image among them.
    pub labels: BTreeMap<String, String>,
    /// When it was created.
    pub created: Timestamp,
    /// Host ports it publishes.
    pub host_ports: Vec<u16>,
    /// Whether its standard input is kept open (`-i`); `None` when that was not asked.
    pub interactive: Option<bool>,
}

/// What an engine lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Foreign {
    /// Images.
    pub images: Vec<ForeignImage>,
    /// Containers that run and that are not ours, of any stack.
    pub containers: Vec<ForeignContainer>,
}
