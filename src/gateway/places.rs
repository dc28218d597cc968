//! Where each server is, as the gateway is told: one value per server, replaced as a whole.
//!
//! The loop decides what runs; the gateway only follows. Must never decide that a server should
//! run, and never hold a container's environment.

use crate::model::access::ToolPolicy;
use crate::model::id::{ContainerId, ImageId, SectionId, ServerId};
use crate::model::server::{HealthPolicy, ProcessDecl, RemoteDecl, RestartWhen, Sharing};
use crate::model::time::Timestamp;
use crate::model::traffic::TrafficPolicy;
use crate::upstream::leg::LegIo;
use crate::world::Answer;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// One server's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Changes whenever requests must go somewhere else: a container's id, a declaration's hash.
    pub key: String,
    /// The server's name as the file has it.
    pub name: String,
    /// Tells the declaration that the container or process was made from from others of the server, in
    /// eight hexadecimal digits; empty when nobody knows.
    pub spec: String,
    /// What runs there, as far as its protocol is concerned: image and arguments. Servers with
    /// equal values speak the same era.
    pub program: String,
    /// How to reach it.
    pub source: Source,
    /// The container that this is, however it is reached.
    pub container: Option<ContainerId>,
    /// Who may share a connection.
    pub sharing: Sharing,
    /// What of it is offered, and to whom it belongs.
    pub offer: Arc<Offer>,
    /// How long a call may stay silent.
    pub timeout: Duration,
    /// Start order: higher first.
    pub priority: i32,
    /// How it is tried again.
    pub retry: Retry,
    /// How it is asked after its health, and judged.
    pub health: HealthPolicy,
    /// The image's own health check fails.
    pub check_fails: bool,
    /// It may sleep: the declaration it is to be started from, told from others as in [`Self::spec`].
    pub on_demand: Option<String>,
    /// Why it cannot be reached now; `None` when it can.
    pub down: Option<Down>,
}

/// What of a server is offered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// The section it is in.
    pub section: Option<SectionId>,
    /// Which of its tools, and under which names.
    pub tools: ToolPolicy,
    /// Headers of clients that it gets, in lower case.
    pub forward_headers: Vec<String>,
    /// Where the tool proxy has it beside its id, without a `/` in front.
    pub openapi_path: Option<String>,
    /// What its requests are held to.
    pub traffic: TrafficPolicy,
}

/// How a server that does not answer is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Wait after the first failure; doubles from there.
    pub delay: Duration,
    /// The longest wait.
    pub delay_max: Duration,
    /// A connection that was open this long makes failures count anew. One that closes is opened
    /// again at once the first time, later ones count as failures.
    pub stable: Duration,
    /// Somebody else starts the server: failures within this time are part of that.
    pub grace: Duration,
    /// Which ends of a process are answered with a restart.
    pub when: RestartWhen,
    /// Restarts in a row before it is given up; `None` is no limit.
    pub restarts_max: Option<u32>,
}

/// What becomes of a server that ended or did not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It is tried again.
    Again,
    /// Its restart policy leaves it so.
    Left,
    /// It ended as often in a row as is allowed.
    GaveUp,
}

impl Retry {
    /// The wait after `failures` in a row.
    #[must_use]
    pub fn wait(&self, failures: u32) -> Duration {
        let Some(doublings) = failures.checked_sub(1) else { return Duration::ZERO };
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        self.delay.saturating_mul(factor).min(self.delay_max)
    }

    /// What follows on failure number `failures` in a row (1 is the first); `ended` is how its process
    /// did, if one ran.
    #[must_use]
    pub fn next(&self, failures: u32, ended: Option<&HowEnded>) -> Next {
        let left = ended.is_some_and(|ended| match self.when {
            RestartWhen::Always => false,
            RestartWhen::OnFailure => ended.clean,
            RestartWhen::Never => true,
        });
        if left {
            return Next::Left;
        }
        // Each failure but the first was preceded by a restart.
        if self.restarts_max.is_some_and(|max| failures > max) { Next::GaveUp } else { Next::Again }
    }
}

/// How to reach a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Over the streams of a container that somebody else starts and stops.
    Container(ContainerId, ImageId),
    /// Over the pipes of a process of our own.
    Process(Box<ProcessDecl>),
    /// Over the network.
    Remote(Box<RemoteDecl>),
    /// Nothing is there yet.
    Nowhere,
}

/// Why a server cannot be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Down {
    /// It will come by itself: worth waiting for.
    Coming(String),
    /// It did not start; the next try is at this time.
    Failed(String, Option<Timestamp>),
    /// It is started when a request needs it.
    Asleep(String),
    /// It is not to run, or somebody must do something.
    Stopped(String),
}

/// A [`Keeper`] ends what it keeps within this time, unless the kernel or the engine hangs.
pub const END_WITHIN: Duration = Duration::from_secs(9);

/// Ends what a connection stands on: a process, a session's container.
pub trait Keeper: Send + Sync {
    /// The container that it ends, if it ends one.
    fn container(&self) -> Option<ContainerId> {
        None
    }

    /// Ends it, politely first and within [`END_WITHIN`]; returns when it is gone, with how it ended where that is known.
    fn end(self: Box<Self>) -> Pin<Box<dyn Future<Output = Option<HowEnded>> + Send>>;
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HowEnded {
    /// In words: `exited with code 1`.
    pub how: String,
    /// It exited with code 0.
    pub clean: bool,
    /// Whether the kernel killed it for memory, where that was asked and can be told.
    pub oom: Option<bool>,
}

/// Streams that were opened, and what must be ended with them.
pub struct Opened {
    /// The streams.
    pub io: LegIo,
    /// What to end after the streams are closed.
    pub keeper: Option<Box<dyn Keeper>>,
    /// Whether nobody ever spoke over them.
    pub fresh: bool,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("fresh", &self.fresh).finish_non_exhaustive()
    }
}

/// Opens streams to servers.
pub trait Opener: Send + Sync {
    /// The connection that clients share.
    fn shared<'a>(&'a self, server: &'a ServerId, place: &'a Place) -> Answer<'a, Opened>;
    /// A connection for one client alone, on an instance of its own.
    fn dedicated<'a>(&'a self, server: &'a ServerId, place: &'a Place) -> Answer<'a, Opened>;
    /// The shared instance must be started anew before it can be used.
    fn renew<'a>(&'a self, server: &'a ServerId, place: &'a Place) -> Answer<'a, ()>;
}

/// What the gateway was told of all servers.
pub type Places = std::collections::BTreeMap<ServerId, Arc<Place>>;
