//! Why: the one source for `plan`, `why`, `status`, the dashboard, REST and `STATUS=`.
//!
//! Must never hold a secret: it shows names, never values of environment or arguments.

use crate::model::id::ServerId;
use crate::model::memory::End;
use crate::model::net::HostPort;
use crate::model::server::Transport;
use crate::model::time::Timestamp;
use crate::plan::ends::ENDS_MAX;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What a pass found and decided, for every server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// A row per server that the file names or that still has something of ours.
    pub servers: BTreeMap<ServerId, Row>,
    /// What concerns no single server.
    pub general: Vec<Reason>,
    /// The load balancer in a few words.
    pub balancer: String,
    /// Replacements under way.
    pub in_flight: usize,
    /// False when the engine could not be asked.
    pub engine_known: bool,
    /// This host is out of the load balancer, or on its way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drained: Option<Drained>,
}

/// Somebody wants this host out of the load balancer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Drained {
    /// Who.
    pub by: String,
    /// Since when.
    pub at: Timestamp,
    /// Until when; `None`: until taken back.
    pub until: Option<Timestamp>,
    /// Servers that are not out yet.
    pub waits: usize,
}

/// One server's row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// How it stands.
    pub state: RowState,
    /// `container`, `process` or `remote`; `none` for what the file no longer has.
    pub kind: &'static str,
    /// Why, most important first.
    pub reasons: Vec<Reason>,
    /// Its transport, once known.
    pub transport: Option<Transport>,
    /// Its host port.
    pub port: Option<HostPort>,
    /// `edge` or `direct`.
    pub route: Option<&'static str>,
    /// Its container's name.
    pub container: Option<String>,
    /// Its container's id.
    pub container_id: Option<String>,
    /// The image its container was made from, by the engine's id.
    pub image_id: Option<String>,
    /// The declaration that its container was made from, in short; not shown, but told to callers of its
    /// tools.
    #[serde(skip)]
    pub spec: Option<String>,
    /// The host port on which its container is published, where the engine chose it.
    pub published: Option<HostPort>,
    /// What its container does: `running`, `exited (1)`, …
    pub container_state: Option<String>,
    /// Its image as the entry has it.
    pub image: Option<String>,
    /// Restarts in a row.
    pub restarts: u32,
    /// When the next try is due.
    pub next_try: Option<Timestamp>,
    /// It is no container, ended by itself, and its restart policy leaves it so.
    #[serde(skip)]
    pub ended: bool,
    /// How it ended lately, newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ends: Vec<End>,
    /// Somebody wants it left alone.
    pub paused: bool,
    /// Requests start it: it is not to run until one comes.
    #[serde(skip)]
    pub asleep: bool,
    /// What a section that it depends on and that is down means to whoever runs its process.
    #[serde(skip)]
    pub hold: Hold,
    /// Its instances, where it has several or had: each as a row of its own, the first one included.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub instances: BTreeMap<ServerId, Self>,
    /// How many of these run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<usize>,
}

/// What whoever runs a process is told of sections that it depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hold {
    /// Nothing.
    #[default]
    No,
    /// One is down: where it ends it is not started again by itself.
    Ends,
    /// One is down: it is not started.
    Start,
}

/// How a server stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RowState {
    /// As the file wants it.
    Converged,
    /// This plan changes something.
    Changing,
    /// Time or somebody else must act first; it will go on by itself.
    Waiting,
    /// It will not go on by itself.
    Blocked,
    /// Not to run, and does not.
    Stopped,
    /// Not running, as it should be: the next request starts it.
    Asleep,
}

impl RowState {
    /// The word used in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Converged => "converged",
            Self::Changing => "changing",
            Self::Waiting => "waiting",
            Self::Blocked => "blocked",
            Self::Stopped => "stopped",
            Self::Asleep => "asleep",
        }
    }
}

/// One sentence of why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// What sort of why.
    pub kind: ReasonKind,
    /// In words; no final stop.
    pub text: String,
    /// A documented error code, where something is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// When it ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// Sorts of why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReasonKind {
    /// It will not go on by itself until somebody does something.
    BlockedBy,
    /// It goes on by itself later.
    WaitingOn,
    /// This is why the plan changes something.
    ChangedBecause,
    /// This is why the plan leaves something as it is.
    LeftAlone,
    /// Good to know.
    Note,
}

impl ReasonKind {
    /// The words in front of the text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BlockedBy => "blocked by",
            Self::WaitingOn => "waiting on",
            Self::ChangedBecause => "changed because",
            Self::LeftAlone => "left alone because",
            Self::Note => "note",
        }
    }
}

impl Reason {
    /// A reason without code and end.
    #[must_use]
    pub fn new(kind: ReasonKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), code: None, until: None }
    }

    /// With a documented code.
    #[must_use]
    pub const fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    /// With the time it ends by itself.
    #[must_use]
    pub const fn until(mut self, until: Timestamp) -> Self {
        self.until = Some(until);
        self
    }
}

impl Row {
    /// An empty row of a kind.
    #[must_use]
    pub const fn new(kind: &'static str) -> Self {
        Self {
            state: RowState::Converged,
            kind,
            reasons: Vec::new(),
            transport: None,
            port: None,
            route: None,
            container: None,
            container_id: None,
            image_id: None,
            spec: None,
            published: None,
            container_state: None,
            image: None,
            restarts: 0,
            next_try: None,
            ended: false,
            ends: Vec::new(),
            paused: false,
            hold: Hold::No,
            asleep: false,
            instances: BTreeMap::new(),
            running: None,
        }
    }
}

impl RowState {
    /// The one of two that a row of both shows: what needs somebody first.
    fn worse(self, other: Self) -> Self {
        const ORDER: [RowState; 6] = {
            use RowState::{Asleep, Blocked, Changing, Converged, Stopped, Waiting};
            [Blocked, Waiting, Changing, Converged, Asleep, Stopped]
        };
        ORDER.into_iter().find(|state| *state == self || *state == other).unwrap_or(self)
    }
}

impl Row {
    /// Whether it runs: its container does, or nobody says of its process that it does not.
    #[must_use]
    pub fn runs(&self) -> bool {
        match &self.container_state {
            Some(state) => state.starts_with("running"),
            None => self.kind != "container" && self.state == RowState::Converged && !self.ended,
        }
    }

    /// Its instances where it has several, else itself, by id.
    pub fn each<'r>(&'r self, id: &'r ServerId) -> impl Iterator<Item = (&'r ServerId, &'r Self)> {
        let own = std::iter::once((id, self)).filter(|_| self.instances.is_empty());
        own.chain(&self.instances)
    }

    /// Makes the row of a server of the rows of its instances: the first one's, with the state and the
    /// reasons of all.
    fn of_instances(instances: BTreeMap<ServerId, Self>) -> Option<Self> {
        let first = instances.iter().find(|(id, _)| id.replica_number() == 1);
        let mut row = first.or_else(|| instances.iter().next())?.1.clone();
        let shared = |reason: &Reason| instances.values().all(|one| one.reasons.contains(reason));
        let own = instances.iter().flat_map(|(id, one)| {
            one.reasons
                .iter()
                .filter(|reason| !shared(reason))
                .map(move |reason| Reason { text: format!("{id}: {}", reason.text), ..reason.clone() })
        });
        let mut reasons: Vec<Reason> = row.reasons.iter().filter(|reason| shared(reason)).cloned().collect();
        reasons.extend(own);
        reasons.sort_by_key(|reason| reason.kind);
        row.reasons = reasons;
        let ends = instances.iter().flat_map(|(id, one)| {
            one.ends.iter().map(move |end| End { how: format!("{id}: {}", end.how), ..end.clone() })
        });
        let mut ends: Vec<End> = ends.collect();
        ends.sort_by_key(|end| std::cmp::Reverse(end.at));
        ends.truncate(ENDS_MAX);
        row.ends = ends;
        for one in instances.values() {
            row.state = row.state.worse(one.state);
            row.restarts = row.restarts.max(one.restarts);
            row.paused |= one.paused;
            row.next_try = row.next_try.into_iter().chain(one.next_try).min();
        }
        row.ended = instances.values().all(|one| one.ended);
        row.asleep = instances.values().all(|one| one.asleep);
        row.running = Some(instances.values().filter(|one| one.runs()).count());
        row.instances = instances;
        Some(row)
    }
}

impl Report {
    /// Puts the rows of the instances of a server together into one, which has them.
    pub(crate) fn put_together(&mut self) {
        let further = self.servers.keys().filter(|id| id.replica_number() > 1);
        let several: BTreeSet<ServerId> = further.map(ServerId::server).collect();
        for server in several {
            let of = |id: &ServerId| id.server() == server;
            let ids: Vec<ServerId> = self.servers.keys().filter(|id| of(id)).cloned().collect();
            let rows = ids.into_iter().filter_map(|id| self.servers.remove_entry(&id)).collect();
            if let Some(row) = Row::of_instances(rows) {
                self.servers.insert(server, row);
            }
        }
    }

    /// The row of one instance of a server, or of a server that is one.
    #[must_use]
    pub fn instance(&self, id: &ServerId) -> Option<&Row> {
        let row = self.servers.get(&id.server())?;
        if row.instances.is_empty() {
            return (id.replica_number() == 1).then_some(row);
        }
        row.instances.get(id)
    }

    /// The rows of all instances, by id.
    pub fn each(&self) -> impl Iterator<Item = (&ServerId, &Row)> {
        self.servers.iter().flat_map(|(id, row)| row.each(id))
    }

    /// Rows in a state.
    #[must_use]
    pub fn count(&self, state: RowState) -> usize {
        self.servers.values().filter(|row| row.state == state).count()
    }

    /// The `systemctl status` sentence without the time of the next pass:
    /// `12 of 12 servers converged, ALB in sync`.
    #[must_use]
    pub fn sentence(&self) -> String {
        let total = self.servers.len();
        let well = [RowState::Converged, RowState::Stopped, RowState::Asleep];
        let well: usize = well.into_iter().map(|state| self.count(state)).sum();
        let mut out = format!("{well} of {total} server{} converged", if total == 1 { "" } else { "s" });
        for state in [RowState::Asleep, RowState::Changing, RowState::Waiting, RowState::Blocked] {
            let word = state.as_str();
            let n = self.count(state);
            if n > 0 {
                out.push_str(&format!(", {n} {word}"));
            }
        }
        if !self.engine_known {
            out.push_str(", Docker not reachable");
        }
        out.push_str(", ALB ");
        out.push_str(&self.balancer);
        match &self.drained {
            Some(drained) if drained.waits > 0 => {
                out.push_str(&format!(", this host is draining ({} to go)", drained.waits));
            }
            Some(_) => out.push_str(", this host is drained"),
            None => {}
        }
        out
    }
}
