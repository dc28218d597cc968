//! What was seen. Not asked, asked without an answer and asked with the answer "nothing" are three
//! different things, and nothing is ever removed on the strength of the first two.

use crate::model::balancer::BalancerSeen;
use crate::model::health::Condition;
use crate::model::id::{ContainerId, ImageId, ServerId};
use crate::model::mark::Mark;
use crate::model::memory::End;
use crate::model::net::HostPort;
use crate::model::time::{Span, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// An answer of the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen<T> {
    /// What it is.
    Known(T),
    /// It could not be found out, and why.
    Unknown(String),
}

impl<T> Seen<T> {
    /// The value, if known.
    #[must_use]
    pub const fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown(_) => None,
        }
    }
}

/// Everything a pass knows about the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// All containers of the engine, ours and others'.
    pub containers: Seen<Vec<Container>>,
    /// Images that were asked for, by reference as written or id.
    pub images: BTreeMap<String, Seen<Option<Image>>>,
    /// Details of containers that were asked for; `None` when it is gone.
    pub details: BTreeMap<ContainerId, Seen<Option<Details>>>,
    /// Whether a new connection to a published port was accepted, where that was asked.
    pub reachable: BTreeMap<HostPort, bool>,
    /// Ports of the range that nothing on this host listens on (bind-tested), where that was asked.
    pub free_ports: Option<Seen<Vec<HostPort>>>,
    /// The load balancer.
    pub balancer: BalancerSeen,
    /// Servers whose last actions are still being carried out: nothing is decided about them.
    pub busy: BTreeSet<ServerId>,
    /// Edge listeners this process serves; `None` in a process that serves none (`--one-shot`, `plan`).
    pub edges: Option<BTreeMap<ServerId, HostPort>>,
    /// How the connections behind edge listeners stand; `None` in a process that keeps none.
    pub contacts: Option<BTreeMap<ServerId, Contact>>,
    /// How well servers are, as far as this process has asked them.
    pub health: BTreeMap<ServerId, Condition>,
    /// Restarts of local processes within the last minute that nobody asked for, made where their pipes
    /// are held.
    pub restarts: Vec<Timestamp>,
    /// How local processes ended last, where their pipes are held.
    pub ends: BTreeMap<ServerId, End>,
    /// The last lines of containers that were asked for.
    pub words: BTreeMap<ContainerId, Seen<Vec<LogLine>>>,
    /// How servers that may sleep are used, as far as this process can tell.
    pub uses: BTreeMap<ServerId, Use>,
    /// The run of this process, which the legs it makes carry as a label; `None` in a process that
    /// serves none. At most one process works on a stack, so legs of any other run serve nobody.
    pub run: Option<String>,
}

/// The connections to a server behind an edge listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// How the one to what the entry declares stands.
    pub state: ContactState,
    /// Containers that requests are under way to, also over connections that were replaced.
    pub uses: BTreeSet<ContainerId>,
    /// Ends and failed starts in a row, and how the last one was.
    pub ends: (u32, String),
}

/// How a server behind an edge listener is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// Requests that wait for it to come up.
    pub waiting: usize,
    /// It runs, and a call, a stream, a subscription or an instance of one client's own is open.
    pub busy: bool,
    /// Beginnings and ends of requests so far, in this run.
    pub count: u64,
    /// How long ago the last one was; without any, how long it could have been told.
    pub idle: Span,
}

/// How a connection stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContactState {
    /// It answers MCP.
    Up,
    /// It is being started, or reached.
    Starting,
    /// It did not answer.
    Failed {
        /// Why, in words.
        why: String,
        /// When it is tried again.
        next_try: Timestamp,
    },
    /// Its process ended, and this host has had as many restarts lately as it bears.
    Held {
        /// What happened, in words.
        why: String,
        /// When it may be started again.
        until: Timestamp,
    },
    /// Its process ended, and its restart policy leaves it so.
    Left(String),
    /// It ended as often in a row as is allowed.
    GaveUp(String),
}

/// A container as the engine lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The engine's id.
    pub id: ContainerId,
    /// The name, without the leading slash.
    pub name: String,
    /// Our mark, whatever the stack; `None` on others' containers.
    pub mark: Option<Mark>,
    /// What it does.
    pub state: ContainerState,
    /// The image it was made from.
    pub image: ImageId,
    /// When it was created.
    pub created: Timestamp,
    /// TCP ports it publishes on the host, as far as the engine lists them (only while running).
    pub host_ports: Vec<HostPort>,
}

/// What a container does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// Made, never started.
    Created,
    /// Running, with what the image's health check says.
    Running(ContainerHealth),
    /// Running, frozen by somebody.
    Paused,
    /// Being started again by the engine.
    Restarting,
    /// Ended with this exit code.
    Exited(i64),
    /// Half removed; the engine cannot start it again.
    Dead,
    /// Being removed.
    Removing,
}

/// What the image's `HEALTHCHECK` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerHealth {
    /// There is no health check.
    None,
    /// Not decided yet.
    Starting,
    /// Passing.
    Healthy,
    /// Failing.
    Unhealthy,
}

/// What only an inspect tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// The kernel killed it for memory.
    pub oom_killed: bool,
    /// When it was last started.
    pub started: Option<Timestamp>,
    /// When it last ended.
    pub finished: Option<Timestamp>,
    /// The engine's own words when a start failed.
    pub error: Option<String>,
    /// Volumes it got without a name: volume name and path inside.
    pub anonymous_volumes: Vec<(String, String)>,
}

/// What is to be read of a container's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogAsk {
    /// Whose.
    pub container: ContainerId,
    /// Lines after the one with this number; 0 for all there are.
    pub after: u64,
    /// At most this many, the last ones.
    pub tail: usize,
    /// How long to wait for the first one; no time at all: only what is there.
    pub wait: Span,
}

/// One line of a container's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Grows from line to line: its time, in nanoseconds of the Unix epoch.
    pub number: u64,
    /// `stdout` or `stderr`.
    pub stream: &'static str,
    /// The text, without the line's end.
    pub text: String,
}

/// An image on the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its id.
    pub id: ImageId,
    /// `repository@sha256:…`, for images that came from or went to a registry.
    pub digest: Option<String>,
    /// TCP ports it exposes, ascending.
    pub exposed: Vec<u16>,
}

/// A fact that a decision lacks. The planner asks, the observer answers, the planner plans again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// Is this image (reference or id) on the engine?
    Image(String),
    /// What does an inspect say of this container?
    Details(ContainerId),
    /// What did this container print last?
    Words(ContainerId),
    /// Is a connection to this port accepted?
    Reachable(HostPort),
    /// Which ports of the range are free?
    FreePorts,
}
