//! What the loop counts, and the page of all figures for Prometheus.
//!
//! Counts are kept here and handed in by whoever sees a pass or an action end; everything else on the
//! page is read from the last pass's snapshot and from the gateway when somebody asks. Must never
//! keep a pass waiting, and never have a label that a client or a server's answer chose.

mod table;
mod text;

pub use text::{Moment, Used, families, text};

use crate::api::problem::problem;
use crate::api::{Context, Response};
use crate::gateway::metrics::page::CONTENT_TYPE;
use crate::model::id::ServerId;
use crate::model::memory::{End, Intent};
use crate::model::op::{ContainerRef, EdgeOp, EngineOp, Op};
use crate::model::time::{Span, Timestamp};
use crate::plan::WOKEN;
use crate::plan::action::Action;
use crate::plan::report::{Report, RowState};
use crate::service::Snapshot;
use crate::usage::ServerUsage;
use crate::world::Calls;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use warp::Reply;
use warp::http::StatusCode;

/// Upper ends of the classes of passes, in microseconds; one more class has no end.
pub const PASS_MICROS: [u64; 12] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    1_000_000,
    5_000_000,
    30_000_000,
    300_000_000,
];

/// Counts since the start of the daemon.
#[derive(Debug)]
pub struct Figures {
    started: Timestamp,
    calls: Arc<Calls>,
    /// `[metrics] enabled`.
    enabled: AtomicBool,
    /// Passwords that were wrong.
    refused: AtomicU64,
    counts: Mutex<Counts>,
}

/// What passes and actions add to.
#[derive(Clone, Debug, Default)]
struct Counts {
    /// Passes by duration.
    passes: [u64; PASS_MICROS.len() + 1],
    /// Their durations together, in microseconds.
    micros: u64,
    /// Actions by kind and result, and how long each kind took, in milliseconds.
    actions: BTreeMap<(&'static str, &'static str), u64>,
    millis: BTreeMap<&'static str, u64>,
    /// Servers found changed, by the part of the world that was not as it should be.
    drift: BTreeMap<&'static str, u64>,
    restarts: BTreeMap<ServerId, u64>,
    /// Ends that nobody asked for: of all, and of those for memory.
    ends: BTreeMap<ServerId, (u64, u64)>,
    last: Last,
}

/// What the pass before left: what differs without anybody's having asked for it is drift.
#[derive(Clone, Debug, Default)]
struct Last {
    generation: u64,
    converged: BTreeSet<ServerId>,
    intents: BTreeMap<ServerId, Intent>,
    /// The newest end of each server, and the restarts in a row of each local process.
    ends: BTreeMap<ServerId, Timestamp>,
    in_a_row: BTreeMap<ServerId, u32>,
}

/// How an action ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Done,
    /// Failed.
    Failed,
    /// Not tried, because one it needs was not done.
    Skipped,
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

impl Figures {
    /// Nothing counted yet, but for `calls`, which others count.
    #[must_use]
    pub fn new(started: Timestamp, calls: Arc<Calls>) -> Self {
        Self {
            started,
            calls,
            enabled: AtomicBool::new(true),
            refused: AtomicU64::new(0),
            counts: Mutex::default(),
        }
    }

    /// `[metrics] enabled`.
    pub fn enable(&self, enabled: bool) {
        self.enabled.store(enabled, Relaxed);
    }

    /// Somebody gave a wrong password.
    pub fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A pass took `took` until it had decided on `actions`; the ends of servers that it is the first to
    /// tell of.
    pub fn passed(&self, took: Span, actions: &[Action], snapshot: &Snapshot) -> Vec<(ServerId, End)> {
        let mut counts = self.counts();
        let micros = took.0.saturating_mul(1_000);
        let class = PASS_MICROS.iter().position(|end| micros <= *end).unwrap_or(PASS_MICROS.len());
        if let Some(count) = counts.passes.get_mut(class) {
            *count = count.saturating_add(1);
        }
        counts.micros = counts.micros.saturating_add(micros);
        let drifted: BTreeSet<(&ServerId, &'static str)> = actions
            .iter()
            .filter_map(|action| Some((action.server.as_ref()?, action.op.part())))
            .filter(|(server, _)| counts.last.had(server, snapshot))
            .collect();
        for (_, part) in drifted {
            *counts.drift.entry(part).or_default() += 1;
        }
        let report = &snapshot.report;
        counts.restarts.retain(|server, _| report.instance(server).is_some());
        let news = counts.ended(report, self.started);
        let converged = report.each().filter(|(_, row)| row.state == RowState::Converged);
        counts.last = Last {
            generation: snapshot.generation,
            converged: converged.map(|(id, _)| id.clone()).collect(),
            intents: snapshot.intents.clone(),
            ..std::mem::take(&mut counts.last)
        };
        news
    }

    /// An action ended; `took` is `None` for one that was not tried.
    pub fn acted(&self, action: &Action, outcome: Outcome, took: Option<Span>) {
        let (kind, mut counts) = (action.op.kind(), self.counts());
        *counts.actions.entry((kind, outcome.as_str())).or_default() += 1;
        if let Some(took) = took {
            let millis = counts.millis.entry(kind).or_default();
            *millis = millis.saturating_add(took.0);
        }
        // One that the same plan makes starts for the first time, and one that slept is not restarted.
        let there = matches!(action.op, Op::Engine(EngineOp::Start(ContainerRef::Id { .. })));
        let anew = matches!(action.op, Op::Edge(EdgeOp::Restart { .. }));
        let again = (there || anew) && action.why != WOKEN;
        if let Some(server) = action.server.as_ref().filter(|_| again && outcome == Outcome::Done) {
            *counts.restarts.entry(server.clone()).or_default() += 1;
        }
    }
}

impl Counts {
    /// Counts what ended since the pass before, after `started`.
    fn ended(&mut self, report: &Report, started: Timestamp) -> Vec<(ServerId, End)> {
        let there = |server: &ServerId| report.instance(server).is_some();
        self.ends.retain(|server, _| there(server));
        self.last.ends.retain(|server, _| there(server));
        self.last.in_a_row.retain(|server, _| there(server));
        let mut news = Vec::new();
        for (id, row) in report.each() {
            let known = self.last.ends.get(id).copied().unwrap_or(started);
            for end in row.ends.iter().rev().filter(|end| end.at > known) {
                let (all, memory) = self.ends.entry(id.clone()).or_default();
                *all = all.saturating_add(1);
                *memory = memory.saturating_add(u64::from(end.oom == Some(true)));
                news.push((id.clone(), end.clone()));
            }
            if let Some(newest) = row.ends.iter().map(|end| end.at).max() {
                self.last.ends.insert(id.clone(), newest.max(known));
            }
            // Nobody but their keeper starts processes again: a pass sees how often it did.
            if row.kind == "process" {
                let before = self.last.in_a_row.insert(id.clone(), row.restarts).unwrap_or(0);
                let more = if row.restarts >= before { row.restarts - before } else { row.restarts };
                if more > 0 {
                    *self.restarts.entry(id.clone()).or_default() += u64::from(more);
                }
            }
        }
        news
    }
}

impl Last {
    /// Whether a server was as it should be, and nobody has asked for anything else since.
    fn had(&self, server: &ServerId, snapshot: &Snapshot) -> bool {
        self.generation == snapshot.generation
            && self.converged.contains(server)
            && self.intents.get(&server.server()) == snapshot.intents.get(&server.server())
            && self.intents.get(server) == snapshot.intents.get(server)
            // It was meant to.
            && !snapshot.report.instance(server).is_some_and(|row| row.asleep)
    }
}

/// `GET /metrics`.
pub(super) fn metrics(context: &Context) -> Response {
    if !context.figures.enabled.load(Relaxed) {
        let why = "[metrics] enabled is false";
        return problem(StatusCode::NOT_FOUND, "MCPO-H404", "nothing is here", why).into_response();
    }
    warp::reply::with_header(page(context), "content-type", CONTENT_TYPE).into_response()
}

/// What servers use, as it was read last.
fn used(context: &Context) -> BTreeMap<ServerId, Used> {
    let now = context.usage.now();
    let of = |usage: &ServerUsage| Used {
        cpu_micros: usage.cpu_nanos.map(|nanos| nanos / 1000),
        memory_bytes: usage.memory_bytes,
    };
    now.servers.iter().map(|(id, usage)| (id.clone(), of(usage))).collect()
}

/// The page as it is now.
fn page(context: &Context) -> String {
    let snapshot = Arc::clone(&context.handle.snapshot.borrow());
    let ports = context.wishes.borrow().policy.ports;
    let configuration = Arc::clone(&context.configuration.borrow());
    let views = context.gateway.overview();
    let used = used(context);
    let (snapshot, configuration) = (snapshot.as_ref(), configuration.as_ref());
    let (views, used, calls_lost) = (views.as_slice(), &used, context.gateway.calls().lost());
    text(&context.figures, &Moment { snapshot, configuration, ports, views, used, calls_lost })
}

#[cfg(test)]
mod tests;
