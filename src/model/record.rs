//! What was asked for and what was done, kept for people: tasks, the audit, and calls of clients.
//!
//! Invariant: nothing secret is ever in it: names and words, never arguments or values.

use crate::model::time::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

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
    /// What became of each server, while it runs of those that are finished with; empty in lists.
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

/// A task with what was done for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskDetail {
    /// The task.
    #[serde(flatten)]
    pub task: Task,
    /// What the loop did for its servers from when it was asked for until it ended, oldest first: lines of
    /// the audit, at most 200.
    pub actions: Vec<AuditEntry>,
}

/// Who the audit says it was, for what nobody asked for: the loop.
pub const THE_LOOP: &str = "the loop";

/// Which tasks of a list come with what became of each server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithResults {
    /// All.
    All,
    /// Those that failed.
    OfFailed,
    /// None.
    None,
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
    /// Who: a user, `uid 1000`, `the loop`, `the file`, `the server`.
    pub by: String,
    /// How they came: `http`, `socket`, `dashboard`, `daemon`; for calls of clients `port`, `mcp`,
    /// `all`, `openapi`.
    pub via: String,
    /// What, in words.
    pub what: String,
    /// The server it is about.
    pub server: Option<String>,
    /// Why, in words.
    pub why: Option<String>,
    /// `ok`, `failed` or `refused`; `abandoned` for a call whose client went away.
    pub result: String,
    /// What went wrong, in words.
    pub detail: Option<String>,
    /// The documented code of the problem.
    pub code: Option<String>,
    /// How long it took, in milliseconds.
    pub millis: Option<u64>,
    /// The task it belongs to.
    pub task: Option<i64>,
    /// What the client, or a proxy before it, calls the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// The number of the instance that had a call, of a server with several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<u32>,
}

/// A call of a client that ended. Its names are shared: there are many calls and few names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallRecord {
    /// When it ended.
    pub at: Timestamp,
    /// Whose it was.
    pub by: Arc<str>,
    /// By which door it came: `port`, `mcp`, `all` or `openapi`.
    pub via: &'static str,
    /// The server's id.
    pub server: Option<Arc<str>>,
    /// The number of its instance, where it has several.
    pub replica: Option<u32>,
    /// `tools/call`, `prompts/get` or `resources/read`.
    pub method: Arc<str>,
    /// The tool, by the server's own name; empty for what is none.
    pub tool: Arc<str>,
    /// `ok`, `failed` or `abandoned`.
    pub result: &'static str,
    /// How long it took, in milliseconds.
    pub millis: u64,
    /// What the client, or a proxy before it, calls the request.
    pub request: Option<Box<str>>,
}

impl CallRecord {
    /// What was called, in words.
    #[must_use]
    pub fn what(method: &str, tool: &str) -> String {
        match method {
            "tools/call" => format!("call {tool}"),
            "prompts/get" => "get a prompt".to_owned(),
            "resources/read" => "read a resource".to_owned(),
            other => other.to_owned(),
        }
    }

    /// The method that a kind of call means: its own name, or the first word of [`Self::what`].
    #[must_use]
    pub fn method(kind: &str) -> &str {
        match kind {
            "call" => "tools/call",
            "get" => "prompts/get",
            "read" => "resources/read",
            other => other,
        }
    }
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
    /// Of this kind: what was done begins with these words; of calls the method.
    pub kind: Option<String>,
    /// Not before this.
    pub since: Option<Timestamp>,
    /// Not after this; of calls not looked at.
    pub until: Option<Timestamp>,
    /// About any of these servers or their instances; empty: all. Of calls not looked at.
    pub among: Vec<String>,
    /// Calls of clients instead of what was done here.
    pub calls: bool,
    /// At most this many.
    pub limit: usize,
}
