//! Takes readings: which, how often, and what they say beside the ones before.
//!
//! Must never ask the engine more than [`READS_AT_ONCE`] things at a time, and never go on asking an
//! engine that did not answer.

use crate::gateway::overview::p95_micros;
use crate::model::id::{ContainerId, ServerId};
use crate::model::time::{Span, Timestamp};
use crate::model::usage::{Counters, HostCounters, Point, Step};
use crate::service::Snapshot;
use crate::usage::{Reading, ServerUsage, Sources, Tally, Usage, WATCHED_EVERY, locked};
use crate::world::ErrorKind;
use futures_util::StreamExt as _;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Containers that are read at the same time.
const READS_AT_ONCE: usize = 4;
/// Containers read in a minute while nobody looks; more are read every other minute, and so on.
pub(super) const READS_A_MINUTE: usize = 60;
/// A rate needs two readings: the second one while somebody waits for it.
const SECOND_AFTER: Span = Span::secs(2);
/// Readings come no closer than this, whoever looks.
const GAP: Span = Span::secs(1);
/// The first point comes soon, so that a page has one to show.
const FIRST_POINT: Span = Span::secs(10);
/// Points are written together, so that the disk is left alone in between.
const WRITE_EVERY: Span = Span::secs(300);
/// What the container that runs says of itself.
const RUNNING: &str = "running";

/// What was read of one server at one moment.
#[derive(Clone, Debug)]
struct Seen {
    at: Timestamp,
    /// The container or the processes that the counters are of.
    whose: String,
    counters: Counters,
    tally: Tally,
}

pub(super) struct Sampler {
    usage: Usage,
    sources: Sources,
    /// The reading before, for rates.
    last: BTreeMap<ServerId, Seen>,
    /// The reading at the last point of the history.
    kept: BTreeMap<ServerId, Seen>,
    /// When the next point is due.
    due: Timestamp,
    host: HostCounters,
    written: Timestamp,
}

impl Sampler {
    pub(super) fn new(usage: Usage, sources: Sources) -> Self {
        let now = usage.inner.clock.now();
        Self {
            usage,
            sources,
            last: BTreeMap::new(),
            kept: BTreeMap::new(),
            due: now.after(FIRST_POINT),
            host: HostCounters::default(),
            written: now,
        }
    }

    pub(super) async fn run(mut self) {
        let first = self.sources.snapshots.wait_for(|snapshot| snapshot.pass > 0);
        if first.await.is_err() {
            return;
        }
        loop {
            let new = self.read().await;
            let wait = self.wait(new);
            let clock = Arc::clone(&self.usage.inner.clock);
            tokio::select! {
                () = clock.sleep(wait) => {}
                () = self.usage.inner.wanted.notified() => clock.sleep(GAP).await,
            }
        }
    }

    /// Until the next reading. `new` servers had none before; a point of the history is due at its time.
    fn wait(&self, new: bool) -> Span {
        let now = self.usage.inner.clock.now();
        let due = self.due.since(now).max(GAP);
        match (self.usage.is_watched(), new) {
            (true, true) => SECOND_AFTER.min(due),
            (true, false) => WATCHED_EVERY.min(due),
            (false, _) => due,
        }
    }

    /// One reading of everything; whether a server had none before.
    async fn read(&mut self) -> bool {
        let snapshot = Arc::clone(&self.sources.snapshots.borrow());
        let containers = running(&snapshot);
        let count = containers.len();
        let (counted, host) = self.counted(containers).await;
        let tallies = (self.sources.tallies)();
        let now = self.usage.inner.clock.now();
        let mut seen: BTreeMap<ServerId, Seen> = BTreeMap::new();
        for (server, (whose, at, counters)) in counted {
            seen.insert(server, Seen { at, whose, counters, tally: Tally::default() });
        }
        for (server, tally) in tallies {
            // A server elsewhere has requests only.
            let busy = tally.requests > 0 || self.last.contains_key(&server);
            if let Some(seen) = seen.get_mut(&server) {
                seen.tally = tally;
            } else if busy && snapshot.report.instance(&server).is_some() {
                let counters = Counters::default();
                seen.insert(server, Seen { at: now, whose: String::new(), counters, tally });
            }
        }
        let servers = seen.iter().map(|(server, seen)| (server.clone(), seen.now(self.last.get(server))));
        let reading = Reading {
            at: now,
            servers: servers.collect(),
            host_cpu_thousandths: busy(self.host.cpu_ticks, host.cpu_ticks),
            host: host.clone(),
        };
        let new = seen.keys().any(|server| !self.last.contains_key(server));
        *locked(&self.usage.inner.reading) = Arc::new(reading);
        self.host = host;
        self.keep(&seen, now, count);
        self.last = seen;
        self.usage.inner.read.send_modify(|count| *count = count.wrapping_add(1));
        if now.since(self.written) >= WRITE_EVERY {
            self.written = now;
            self.usage.flush().await;
        }
        new
    }

    /// Points of the history, when they are due.
    fn keep(&mut self, seen: &BTreeMap<ServerId, Seen>, now: Timestamp, containers: usize) {
        if now < self.due {
            // Who is new is measured from its first reading.
            for (server, seen) in seen {
                self.kept.entry(server.clone()).or_insert_with(|| seen.clone());
            }
            return;
        }
        let mut history = locked(&self.usage.inner.history);
        let mut unsaved = locked(&self.usage.inner.unsaved);
        for (server, seen) in seen {
            if let Some(point) = seen.point(self.kept.get(server), now) {
                unsaved.extend(history.add(server, point));
            }
        }
        history.forget(now);
        self.kept = seen.clone();
        self.due = now.after(period(containers));
    }

    /// What everything that runs has used by now.
    async fn counted(
        &self,
        containers: Vec<(ServerId, ContainerId)>,
    ) -> (BTreeMap<ServerId, (String, Timestamp, Counters)>, HostCounters) {
        let (meter, clock) = (&self.sources.meter, &self.usage.inner.clock);
        let away = AtomicBool::new(false);
        let one = |(server, container): (ServerId, ContainerId)| {
            let away = &away;
            async move {
                if away.load(Ordering::Relaxed) {
                    return None;
                }
                match meter.container(&container).await {
                    Ok(counters) => Some((server, (container.0, clock.now(), counters))),
                    Err(error) => {
                        let silent = matches!(error.kind, ErrorKind::TimedOut | ErrorKind::Unreachable);
                        away.fetch_or(silent, Ordering::Relaxed);
                        tracing::debug!(MCP_ERROR_CODE = error.kind.code(), "{error}");
                        None
                    }
                }
            }
        };
        let found: Vec<_> = futures_util::stream::iter(containers.into_iter().map(one))
            .buffer_unordered(READS_AT_ONCE)
            .collect()
            .await;
        let mut all: BTreeMap<_, _> = found.into_iter().flatten().collect();
        let now = clock.now();
        for (server, (whose, counters)) in meter.processes().await.unwrap_or_default() {
            all.insert(server, (whose, now, counters));
        }
        (all, meter.host().await.unwrap_or_default())
    }
}

/// Time between two points of the history with this many containers.
fn period(containers: usize) -> Span {
    let minutes = u64::try_from(containers.div_ceil(READS_A_MINUTE)).unwrap_or(1).max(1);
    // Ten minutes are made of minutes: there must be one in each.
    Step::Minute.span().times_capped(minutes, Step::TenMinutes.span())
}

fn running(snapshot: &Snapshot) -> Vec<(ServerId, ContainerId)> {
    let rows = snapshot.report.each();
    rows.filter(|(_, row)| row.container_state.as_deref().is_some_and(|state| state.starts_with(RUNNING)))
        .filter_map(|(id, row)| Some((id.clone(), ContainerId(row.container_id.clone()?))))
        .collect()
}

/// Share of the processors' time that was work, in thousandths.
fn busy(before: Option<(u64, u64)>, now: Option<(u64, u64)>) -> Option<u32> {
    let ((work_before, all_before), (work, all)) = (before?, now?);
    let (work, all) = (work.checked_sub(work_before)?, all.checked_sub(all_before)?);
    u32::try_from((work * 1000).checked_div(all)?).ok()
}

impl Seen {
    /// What happened since `before`, and in which time; `None` for the first reading.
    fn since<'a>(&'a self, before: Option<&'a Self>) -> Option<(&'a Self, Span)> {
        let before = before?;
        let span = self.at.since(before.at);
        (span > Span::ZERO).then_some((before, span))
    }

    fn cpu_millis(&self, before: Option<&Self>) -> Option<u32> {
        let (before, span) = self.since(before)?;
        if before.whose != self.whose {
            return None;
        }
        // A counter that went back is another one.
        let nanos = self.counters.cpu_nanos?.checked_sub(before.counters.cpu_nanos?)?;
        u32::try_from(nanos / 1000 / span.0.max(1)).ok()
    }

    fn tally(&self, before: Option<&Self>) -> Option<(Tally, Span)> {
        let (before, span) = self.since(before)?;
        let (new, old) = (&self.tally, &before.tally);
        if new.requests < old.requests {
            return Some((*new, span));
        }
        let mut classes = new.classes;
        for (class, before) in classes.iter_mut().zip(old.classes) {
            *class = class.saturating_sub(before);
        }
        let tally = Tally {
            requests: new.requests - old.requests,
            errors: new.errors.saturating_sub(old.errors),
            classes,
        };
        Some((tally, span))
    }

    fn per_sec(&self, before: Option<&Self>, counter: fn(&Counters) -> Option<u64>) -> Option<f64> {
        let (before, span) = self.since(before)?;
        let count = counter(&self.counters)?.checked_sub(counter(&before.counters)?)?;
        (before.whose == self.whose).then(|| rate(count, span))
    }

    fn now(&self, before: Option<&Self>) -> ServerUsage {
        let tally = self.tally(before);
        ServerUsage {
            cpu_millis: self.cpu_millis(before),
            cpu_nanos: self.counters.cpu_nanos,
            memory_bytes: self.counters.memory_bytes,
            memory_limit_bytes: self.counters.memory_limit_bytes,
            network_in_per_sec: self.per_sec(before, |counters| counters.network_in_bytes),
            network_out_per_sec: self.per_sec(before, |counters| counters.network_out_bytes),
            pids: self.counters.pids,
            requests_per_sec: tally.map(|(tally, span)| rate(tally.requests, span)),
            errors_per_sec: tally.map(|(tally, span)| rate(tally.errors, span)),
            p95_micros: tally.and_then(|(tally, _)| latency(&tally)),
        }
    }

    /// A point; `None` for the first reading.
    fn point(&self, before: Option<&Self>, at: Timestamp) -> Option<Point> {
        let (tally, _) = self.tally(before)?;
        let kib = self.counters.memory_bytes.map(|bytes| u32::try_from(bytes / 1024).unwrap_or(u32::MAX));
        let count = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        Some(Point {
            at,
            cpu_millis: self.cpu_millis(before),
            memory_kib: kib,
            requests: count(tally.requests),
            errors: count(tally.errors),
            p95_micros: latency(&tally),
        })
    }
}

fn latency(tally: &Tally) -> Option<u32> {
    p95_micros(&tally.classes).and_then(|micros| u32::try_from(micros).ok())
}

#[expect(clippy::cast_precision_loss, reason = "rates are for people")]
fn rate(count: u64, span: Span) -> f64 {
    count as f64 * 1000.0 / span.0.max(1) as f64
}
