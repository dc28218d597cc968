//! What was asked for and what was done, kept for people: tasks and the audit.
//!
//! Invariant: nothing secret is ever in it: names and words, never arguments or values.

use crate::model::time::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Something that somebody asked for and that takes a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    /// Counts up; never given twice.
    pub id: i64,
    /// `start`, `stop`, `restart`, `sync`, or `edit: …` for a change of the file.
    pub act: String,
    /// The servers it is for; empty: all.
    pub servers: Vec<String>,
    /// Who asked.
    pub by: String,
    /// How they came: `http`, `socket`, `dashboard`.
    pub via: String,
    /// When they asked, in milliseconds since the epoch.
    #[schemars(with = "i64")]
    pub asked: Timestamp,
    /// When it ended, in milliseconds since the epoch.
    #[schemars(with = "Option<i64>")]
    pub ended: Option<Timestamp>,
    /// The first pass that takes it into account.
    pub pass: u64,
    /// How it stands.
    pub state: TaskState,
    /// What became of each server.
    pub results: Vec<TaskResult>,
}

/// How a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// Not ended.
    Running,
    /// Everything is as it was asked for.
    Done,
    /// Something is not; the results say what.
    Failed,
    /// The daemon ended before the task did. The wish itself was kept.
    Interrupted,
}

impl TaskState {
    /// The word used in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }
}

/// What became of one server of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskResult {
    /// The server.
    pub server: String,
    /// Whether it is as it was asked for.
    pub ok: bool,
    /// Its state at the end.
    pub state: String,
    /// Why, where it is not.
    pub why: Option<String>,
    /// The documented code of the problem.
    pub code: Option<String>,
}

/// One line of the audit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// Counts up.
    pub id: i64,
    /// When, in milliseconds since the epoch.
    #[schemars(with = "i64")]
    pub at: Timestamp,
    /// Who: a user, `uid 1000`, `the loop`, `the file`.
    pub by: String,
    /// How they came: `http`, `socket`, `dashboard`, `daemon`.
    pub via: String,
    /// What, in words.
    pub what: String,
    /// The server it is about.
    pub server: Option<String>,
    /// Why, in words.
    pub why: Option<String>,
    /// `ok`, `failed` or `refused`.
    pub result: String,
    /// What went wrong, in words.
    pub detail: Option<String>,
    /// The documented code of the problem.
    pub code: Option<String>,
    /// How long it took, in milliseconds.
    pub millis: Option<u64>,
    /// The task it belongs to.
    pub task: Option<i64>,
}

/// Which lines of the audit somebody wants; newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Older than this one.
    pub before: Option<i64>,
    /// About this server.
    pub server: Option<String>,
    /// By them.
    pub by: Option<String>,
    /// With this result.
    pub result: Option<String>,
    /// At most this many.
    pub limit: usize,
}
