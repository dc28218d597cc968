//! How servers that may sleep are used, and how they are put to sleep.
//!
//! A use is a request that needs the server: when it begins, and when it ends. Lists that are answered
//! from what is kept, and questions after its health, are none. Servers that may not sleep are not
//! watched.
//!
//! Must never cut a request off: who is put to sleep has nothing under way.

use crate::gateway::hub::Entry;
use crate::gateway::places::{Down, END_WITHIN, Place};
use crate::gateway::slot::keep::DRAIN_MAX;
use crate::gateway::slot::{CLOSE_GRACE, PARK_MAX};
use crate::gateway::{Gateway, lock};
use crate::model::id::ServerId;
use crate::model::observed::Use;
use crate::model::time::Span;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::Instant;

/// A request waits at most this long for the start of a server, whatever its `startPeriod`.
pub const WAKE_MAX: Duration = Duration::from_secs(300);
/// Putting a server to sleep takes at most this long: requests that just came, the end of its input.
pub const SLEEP_MAX: Duration = Duration::from_secs(60);
const _: () = assert!(
    DRAIN_MAX.as_millis() + CLOSE_GRACE.as_millis() + END_WITHIN.as_millis() < SLEEP_MAX.as_millis(),
    "what just came may end"
);

/// When a server was used last, and how often.
#[derive(Debug)]
pub struct Touch {
    /// It may sleep; nothing is noted of others.
    on: AtomicBool,
    since: Instant,
    /// Milliseconds from `since` to the last use.
    last: AtomicU64,
    count: AtomicU64,
    /// What is open without being a request.
    open: AtomicUsize,
}

impl Default for Touch {
    fn default() -> Self {
        let nothing = AtomicU64::default;
        let (on, open) = (AtomicBool::new(false), AtomicUsize::new(0));
        Self { on, since: Instant::now(), last: nothing(), count: nothing(), open }
    }
}

impl Touch {
    /// Whether it may sleep; time is counted from when it may.
    pub(crate) fn watch(&self, on: bool) {
        if on != self.on.swap(on, Relaxed) {
            self.last.store(millis(self.since.elapsed()), Relaxed);
        }
    }

    /// A request needs the server.
    pub(crate) fn used(&self) {
        if self.on.load(Relaxed) {
            self.count.fetch_add(1, Relaxed);
            self.last.store(millis(self.since.elapsed()), Relaxed);
        }
    }

    /// It is used still.
    pub(crate) fn still(&self) {
        if self.on.load(Relaxed) {
            self.last.store(millis(self.since.elapsed()), Relaxed);
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    fn idle(&self) -> Span {
        Span(millis(self.since.elapsed()).saturating_sub(self.last.load(Relaxed)))
    }

    /// Something is open until what this gives is dropped.
    pub(crate) fn hold(self: &Arc<Self>) -> Held {
        self.open.fetch_add(1, Relaxed);
        Held(Arc::clone(self))
    }
}

/// Something that keeps a server awake.
#[derive(Debug)]
pub(crate) struct Held(Arc<Touch>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
        self.0.still();
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// How long a request waits for a server to come up.
pub(crate) fn wait_for(place: Option<&Place>) -> Duration {
    let sleeps = place.filter(|place| place.on_demand.is_some());
    let period = sleeps.map(|place| Duration::from_millis(place.health.start_period.0));
    period.map_or(PARK_MAX, |period| period.min(WAKE_MAX).max(PARK_MAX))
}

/// Whether somebody must ask for it to be started.
pub(crate) const fn is_asleep(place: &Place) -> bool {
    matches!(place.down, Some(Down::Asleep(_)))
}

impl Entry {
    /// Whether something of a client's is open at any of the server's instances: they sleep together.
    fn is_used(&self, gateway: &Gateway) -> bool {
        if self.is_one() {
            return self.is_busy(gateway);
        }
        self.group.members().iter().any(|member| member.is_busy(gateway))
    }

    /// Whether something of a client's is open here, as far as it runs.
    fn is_busy(&self, gateway: &Gateway) -> bool {
        let own = self.own_count() > 0;
        let Some(live) = self.slot.live() else { return own };
        let open = |session: &Arc<crate::gateway::sessions::Session>| {
            let stream = session.listening().is_some_and(|stream| stream.is_connected());
            // One below a session with all servers has a stream of ours.
            (stream && session.is_kept()) || !session.subscriptions().is_empty()
        };
        own || live.leg.working() > 0
            || self.slot.parked() > 0
            || self.slot.is_draining()
            || self.slot.touch.open.load(Relaxed) > 0
            || self.is_listened_to()
            || gateway.sessions.of(&self.slot.id).iter().any(open)
    }
}

impl Gateway {
    /// How servers that may sleep are used.
    #[must_use]
    pub fn uses(&self) -> BTreeMap<ServerId, Use> {
        let watched = |entry: &Arc<Entry>| {
            let slot = &entry.slot;
            slot.place().filter(|place| place.on_demand.is_some())?;
            let (waiting, busy) = (slot.parked(), entry.is_used(self));
            if busy {
                slot.touch.still();
            }
            let (count, idle) = (slot.touch.count(), slot.touch.idle());
            Some((slot.id.clone(), Use { waiting, busy, count, idle }))
        };
        self.entries().iter().filter_map(watched).collect()
    }

    /// Notes which servers are used without a request.
    pub(crate) fn note_uses(&self) {
        let _noted = self.uses();
    }

    /// Lets go of a server that nobody has used since `uses` were counted.
    ///
    /// # Errors
    /// When it is used after all, or what just came does not end in time.
    pub async fn put_to_sleep(&self, server: &ServerId, uses: u64) -> Result<(), String> {
        let Some(entry) = self.entry(server) else { return Ok(()) };
        if entry.is_used(self) {
            return Err("it is used".to_owned());
        }
        entry.slot.sleep(uses).await
    }
}

/// What is said of a server that did not come up in time.
pub(crate) fn late(within: Duration, why: Option<String>) -> String {
    let why = why.unwrap_or_else(|| "it is starting".to_owned());
    format!("it was started for a request and does not answer after {} s: {why}", within.as_secs())
}

impl crate::gateway::slot::Slot {
    /// Whether requests that were under way when their connection was replaced still are.
    pub(crate) fn is_draining(&self) -> bool {
        !lock(&self.draining).is_empty()
    }
}

#[cfg(test)]
mod tests;
