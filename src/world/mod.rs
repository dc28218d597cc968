//! What we ask of the world: few verbs each, object-safe, so that a fake world with virtual time
//! can stand in for every one of them.
//!
//! Must never decide anything and never name an adapter's crate.

mod calls;
pub mod error;
pub mod fake;

use crate::model::balancer::{BalancerOp, BalancerView};
use crate::model::health::Condition;
use crate::model::id::{ContainerId, ServerId};
use crate::model::memory::{End, Memory};
use crate::model::net::{HostPort, PortRange};
use crate::model::observed::{Contact, Container, Details, Image, LogAsk, LogLine, Use};
use crate::model::op::{EdgeOp, EngineOp};
use crate::model::record::{AuditEntry, AuditFilter, CallRecord, Task, WithResults};
use crate::model::session::{LegMemory, SessionChange, SessionRecord};
use crate::model::time::{Span, Timestamp};
use crate::model::usage::{Counters, HostCounters, KeptPoint};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

pub use calls::Calls;
pub use error::{ErrorKind, WorldError};

/// Variables by which a service manager speaks to one process alone: no child may inherit them.
pub const MANAGER_VARIABLES: [&str; 8] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "FDSTORE",
];

/// A future answer of the world.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, WorldError>> + Send + 'a>>;

/// The container engine.
pub trait Engine: Send + Sync {
    /// Every container, running or not: one call.
    fn containers(&self) -> Answer<'_, Vec<Container>>;
    /// An image by reference or id; `None` when it is not on the engine.
    fn image<'a>(&'a self, reference: &'a str) -> Answer<'a, Option<Image>>;
    /// What only an inspect tells; `None` when the container is gone.
    fn details<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, Option<Details>>;
    /// Lines that the engine keeps of a container's output, oldest first, a bounded number; an error
    /// where its log driver keeps none.
    fn log<'a>(&'a self, ask: &'a LogAsk) -> Answer<'a, Vec<LogLine>>;
    /// Carries out one operation. Removing what is gone, starting what runs and stopping what is
    /// stopped is success. `progress` gets short lines for people (pulls).
    fn apply<'a>(&'a self, op: &'a EngineOp, progress: &'a (dyn Fn(String) + Send + Sync)) -> Answer<'a, ()>;
}

/// The load balancer's listener that was configured.
pub trait Balancer: Send + Sync {
    /// Reads the listener, its rules and our target groups. `read_targets` names the target groups
    /// whose targets must be read in this pass; others may come back Unknown (not asked).
    fn view<'a>(&'a self, read_targets: &'a TargetsToRead) -> Answer<'a, BalancerView>;
    /// Carries out one operation; resolves [`crate::model::balancer::GroupRef::Planned`] by name.
    fn apply<'a>(&'a self, op: &'a BalancerOp) -> Answer<'a, ()>;
}

/// Which target groups' health a pass wants to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetsToRead {
    /// Of these servers, always.
    pub servers: Vec<ServerId>,
    /// And of this many others, in rotation, so that drift of targets is seen in time.
    pub rotating: usize,
}

/// This host.
pub trait Host: Send + Sync {
    /// The ports of `range` on which nothing listens, found by binding `address` and letting go.
    fn free_ports<'a>(&'a self, address: &'a str, range: PortRange) -> Answer<'a, Vec<HostPort>>;
    /// Whether a TCP connection to `port` on this host is accepted.
    fn reachable(&self, port: HostPort) -> Answer<'_, bool>;
}

/// Edge listeners of this process, and the connections behind them.
///
/// A server's requests go to its own container (the one with its name) until [`EdgeOp::HandOver`]
/// says another; when that one ends or goes, they go to its own container again.
pub trait Edges: Send + Sync {
    /// What is served now.
    fn served(&self) -> BTreeMap<ServerId, HostPort>;
    /// The id of this run: what [`crate::model::mark::RUN`] says on the legs it makes. Another one
    /// for every start of the process.
    fn run(&self) -> String;
    /// How the connections behind them stand; `None` when that cannot be told.
    fn contacts(&self) -> Option<BTreeMap<ServerId, Contact>> {
        None
    }
    /// How servers that may sleep are used.
    fn uses(&self) -> BTreeMap<ServerId, Use> {
        BTreeMap::new()
    }
    /// How well servers are; one that was not asked yet, or is not to run, is not in it.
    fn health(&self) -> BTreeMap<ServerId, Condition> {
        BTreeMap::new()
    }
    /// Restarts of local processes within the last minute that nobody asked for, oldest first.
    fn restarts(&self) -> Vec<Timestamp> {
        Vec::new()
    }
    /// How local processes ended last that nobody had asked to end.
    fn ends(&self) -> BTreeMap<ServerId, End> {
        BTreeMap::new()
    }
    /// Opens or closes a listener, moves requests from one container to another, ends legs.
    fn apply<'a>(&'a self, op: &'a EdgeOp) -> Answer<'a, ()>;
}

/// What survives a restart.
pub trait Store: Send + Sync {
    /// Keeps `memory` durably before returning.
    fn save<'a>(&'a self, memory: &'a Memory) -> Answer<'a, ()>;
}

/// Sessions that survive the end of this process, at most
/// [`SESSIONS_MAX`](crate::model::session::SESSIONS_MAX) of them: the longest unused go first. Unlike
/// [`Store`], what was kept last may be lost with the power.
pub trait SessionStore: Send + Sync {
    /// All sessions, most recently used first.
    fn load(&self) -> Answer<'_, Vec<SessionRecord>>;
    /// Keeps all changes, in their order, or none of them.
    fn apply<'a>(&'a self, changes: &'a [SessionChange]) -> Answer<'a, ()>;
}

/// Handshakes with containers that outlive this process, as lasting as [`SessionStore`]; at most
/// [`LEG_MEMORIES_MAX`](crate::model::session::LEG_MEMORIES_MAX) of them.
pub trait LegStore: Send + Sync {
    /// All handshakes, oldest first.
    fn load_legs(&self) -> Answer<'_, Vec<LegMemory>>;
    /// Keeps a handshake in place of an earlier one with that container. `Invalid` when it is longer
    /// than [`LEG_INFO_BYTES_MAX`](crate::model::session::LEG_INFO_BYTES_MAX).
    fn put_leg<'a>(&'a self, leg: &'a LegMemory) -> Answer<'a, ()>;
    /// Forgets a handshake; nothing when there is none.
    fn remove_leg<'a>(&'a self, container: &'a ContainerId) -> Answer<'a, ()>;
}

/// Offers kept; beyond that the oldest are forgotten.
pub const OFFERS_MAX: usize = 1_000;

/// What servers that may sleep said of themselves and offered, as lasting as [`SessionStore`]; at most
/// [`OFFERS_MAX`] of them.
pub trait OfferStore: Send + Sync {
    /// All that are kept, oldest first.
    fn load_offers(&self) -> Answer<'_, Vec<(ServerId, String)>>;
    /// Keeps this in place of what was kept of the server.
    fn put_offer<'a>(&'a self, server: &'a ServerId, text: String) -> Answer<'a, ()>;
}

/// What [`Records`] has lists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// What was asked for.
    Tasks,
    /// What was done.
    Audit,
    /// Calls of clients.
    Calls,
}

/// Tasks and the audit, as lasting as [`SessionStore`]; bounded by whoever keeps them.
pub trait Records: Send + Sync {
    /// Counts what was written to `list`, after each time: while it is the same, lists are, too. `None`
    /// where nobody counts.
    fn written(&self, _list: Recorded) -> Option<u64> {
        None
    }
    /// Keeps a new task, and says its id.
    fn begin_task<'a>(&'a self, task: &'a Task) -> Answer<'a, i64>;
    /// Keeps what a task has become.
    fn end_task<'a>(&'a self, task: &'a Task) -> Answer<'a, ()>;
    /// A task; `None` when it is not known (any more).
    fn task(&self, id: i64) -> Answer<'_, Option<Task>>;
    /// Tasks older than `before`, newest first; what became of each server is read where `with` says.
    fn tasks(&self, before: Option<i64>, limit: usize, with: WithResults) -> Answer<'_, Vec<Task>>;
    /// Adds lines to the audit, all or none.
    fn add_audit<'a>(&'a self, entries: &'a [AuditEntry]) -> Answer<'a, ()>;
    /// Adds calls of clients, all or none.
    fn add_calls(&self, calls: Vec<CallRecord>) -> Answer<'_, ()>;
    /// Lines of the audit, or calls of clients as such lines; newest first.
    fn audit<'a>(&'a self, filter: &'a AuditFilter) -> Answer<'a, Vec<AuditEntry>>;
}

/// What servers and this host use, counted by those who run them. Reading is not free: whoever asks
/// says how often.
pub trait Meter: Send + Sync {
    /// What a container has used by now.
    fn container<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, Counters>;
    /// What local processes have used by now, and which processes that is said of.
    fn processes(&self) -> Answer<'_, BTreeMap<ServerId, (String, Counters)>>;
    /// What this host says of itself.
    fn host(&self) -> Answer<'_, HostCounters>;
}

/// The history of what servers use, as lasting as [`SessionStore`]; bounded by age and number.
pub trait UsageStore: Send + Sync {
    /// All points that are not too old at `now`, oldest first.
    fn load_usage(&self, now: Timestamp) -> Answer<'_, Vec<KeptPoint>>;
    /// Adds points, all or none, and forgets what is too old at `now`.
    fn keep_usage<'a>(&'a self, points: &'a [KeptPoint], now: Timestamp) -> Answer<'a, ()>;
}

/// The world of one process: everything a pass may ask or change.
#[derive(Clone)]
pub struct World {
    /// The container engine.
    pub engine: Arc<dyn Engine>,
    /// The load balancer, or why there is none.
    pub balancer: Result<Arc<dyn Balancer>, String>,
    /// This host.
    pub host: Arc<dyn Host>,
    /// Edge listeners; `None` in a process that serves none.
    pub edges: Option<Arc<dyn Edges>>,
    /// What survives.
    pub store: Arc<dyn Store>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").finish_non_exhaustive()
    }
}

/// Time, so that tests own it.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;
    /// Waits.
    fn sleep(&self, span: Span) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}
