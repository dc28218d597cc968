//! How a server ended lately, as it is shown.
//!
//! Must never hold a value of the environment: the words were cleared of them when they were kept.

use crate::model::memory::End;
use schemars::JsonSchema;
use serde::Serialize;

/// One end of a server that nobody had asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndView {
    /// When, in milliseconds since the epoch.
    pub at: i64,
    /// How, in words.
    pub how: String,
    /// The kernel killed it, or a part of it, for memory; `null`: nobody can tell.
    pub out_of_memory: Option<bool>,
    /// The last lines that it printed beside its messages; `null`: they are not known.
    pub last_words: Option<Vec<String>>,
}

impl EndView {
    /// Shown.
    #[must_use]
    pub fn of(end: &End) -> Self {
        let End { at, how, oom, words } = end;
        Self { at: at.0, how: how.clone(), out_of_memory: *oom, last_words: words.clone() }
    }
}
