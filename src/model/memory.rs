//! What must survive a restart. A plan returns the memory it wants kept; it is written before the
//! plan's actions run, so that a crash in between cannot lose a lease or an attempt.
//!
//! Invariant: nothing secret is ever in it (held by the planted-secrets test).

use crate::model::id::{ContainerId, SectionId, ServerId};
use crate::model::net::HostPort;
use crate::model::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Everything kept between passes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// The port ledger.
    pub leases: BTreeMap<ServerId, Lease>,
    /// Crashes and failed replacements.
    pub attempts: BTreeMap<ServerId, Attempts>,
    /// Images pinned at first start.
    pub pins: BTreeMap<ServerId, Pin>,
    /// What people asked for by hand.
    pub intents: BTreeMap<ServerId, Intent>,
    /// What is done about servers that do not answer.
    pub recoveries: BTreeMap<ServerId, Recovery>,
    /// Since when servers that are to be started wait for a section they depend on.
    pub waits: BTreeMap<ServerId, Timestamp>,
    /// Memory limits that were raised because servers were killed for memory.
    pub raises: BTreeMap<ServerId, Raise>,
    /// Restarts within the last minute that nobody asked for, oldest first; the first one of a server
    /// that was stable is not among them.
    pub unwanted: Vec<Timestamp>,
    /// What people want left alone.
    pub pauses: BTreeMap<Scope, Pause>,
    /// Somebody wants this host out of the load balancer, with everything running on.
    pub drain: Option<Pause>,
    /// How servers ended lately that nobody had asked to end.
    pub ends: BTreeMap<ServerId, Ends>,
    /// Servers that start on demand or stop when idle, and whether they are to run now.
    pub naps: BTreeMap<ServerId, Nap>,
    /// What the load balancer half remembers.
    pub balancer: crate::model::balancer::BalancerMemory,
}

impl Memory {
    /// What people asked for of a server, or of an instance: the wish about its server counts first.
    #[must_use]
    pub fn intent(&self, id: &ServerId) -> Option<&Intent> {
        self.intents.get(&id.server()).or_else(|| self.intents.get(id))
    }
}

/// A host port held for a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The port clients and the balancer use.
    pub port: HostPort,
    /// The port the replacement will use, while a direct server moves.
    pub next: Option<HostPort>,
    /// Since when.
    pub since: Timestamp,
    /// True for `-p H:C`: the file chose the port.
    pub fixed: bool,
}

/// What went wrong lately with one server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempts {
    /// Restarts in a row without a stable time in between.
    pub crashes: u32,
    /// When the last start of ours was planned.
    pub started: Option<Timestamp>,
    /// When the end that is waited on was first seen.
    pub down_since: Option<Timestamp>,
    /// Failed tries to change to `failed_spec` in a row.
    pub failures: u32,
    /// Short hash of the declaration whose container did not come up.
    pub failed_spec: Option<String>,
    /// No new try before this time.
    pub next_try: Option<Timestamp>,
    /// True once the present start was seen to be ready.
    pub up: bool,
    /// Since when the leased port is known to be taken by something else.
    pub port_taken: Option<Timestamp>,
    /// The load balancer refused something for want of quota: no new try before this time.
    pub quota_until: Option<Timestamp>,
    /// The last error in words.
    pub last_error: Option<String>,
}

/// What was done about a server that does not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// Tries so far.
    pub tries: u32,
    /// When the last one was decided on.
    pub last: Timestamp,
    /// What was the matter, in words.
    pub why: String,
    /// Short hash of the declaration that it is about: another one begins anew.
    pub spec: String,
    /// The container that is to be replaced by one from the same image.
    pub anew: Option<ContainerId>,
}

/// A memory limit that was raised, by one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Raise {
    /// The declared limit, in bytes: another one ends the raise.
    pub from: i64,
    /// The limit instead, in bytes.
    pub to: i64,
    /// When it was decided on.
    pub at: Timestamp,
}

/// How one server ended lately.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ends {
    /// The ends, oldest first.
    pub list: Vec<End>,
    /// The run that ended last: a container and when it was started; empty for a process.
    pub run: String,
    /// The container whose last words are still to be read.
    pub words_of: Option<ContainerId>,
}

/// One end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct End {
    /// When, as well as it is known.
    pub at: Timestamp,
    /// How, in words: `it ended with exit code 1`.
    pub how: String,
    /// The kernel killed it, or a part of it, for memory; `None`: nobody can tell.
    pub oom: Option<bool>,
    /// The last lines that it printed beside its messages, without values of its environment; `None`:
    /// they are not known.
    pub words: Option<Vec<String>>,
}

/// Whether a server that starts on demand, or stops when idle, is to run now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nap {
    /// It is to run.
    pub awake: bool,
    /// Since when that is so.
    pub since: Timestamp,
    /// It sleeps because nobody used it.
    pub idle: bool,
    /// Uses that were counted when it was put to sleep: one more wakes it.
    pub used: u64,
    /// The run of the daemon that this was decided in: uses are counted in each anew.
    pub run: String,
}

/// What a pause is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Scope {
    /// Every server of this host.
    Host,
    /// The servers of a section.
    Section(SectionId),
    /// One server.
    Server(ServerId),
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Section(id) => write!(f, "section:{id}"),
            Self::Server(id) => write!(f, "server:{id}"),
        }
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        scope.to_string()
    }
}

impl TryFrom<String> for Scope {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("'{text}' names nothing that can be paused");
        match text.split_once(':') {
            None if text == "host" => Ok(Self::Host),
            Some(("section", id)) => Ok(Self::Section(SectionId(id.to_owned()))),
            Some(("server", id)) => ServerId::new(id).map(Self::Server).map_err(|_no_id| wrong()),
            _ => Err(wrong()),
        }
    }
}

/// Somebody wants servers left alone, or this host drained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Who asked.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// Until when it holds; `None`: until taken back.
    pub until: Option<Timestamp>,
}

/// An image pinned for a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// The reference as the entry has it; another reference ends the pin.
    pub reference: String,
    /// The image id.
    pub image: String,
    /// `repository@sha256:…`, to fetch the same bytes again.
    pub digest: Option<String>,
    /// When `pull = always` last fetched it for a container that is still to be made.
    pub pulled: Option<Timestamp>,
}

/// A start or stop by hand: holds over passes, restarts and reboots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// False: keep it stopped.
    pub run: bool,
    /// Who asked.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// Until when it holds; `None`: until taken back.
    pub until: Option<Timestamp>,
    /// The file's `disabled` when it was asked; a change of it ends the intent.
    pub file_enabled: bool,
    /// Counts up with every restart by hand, so that the planner can tell one from another.
    pub restart: Option<Timestamp>,
}
