//! Requests under way in a session, by the ids that its client gave them.
//!
//! ```text
//! entered   it waits for its turn, its server or another try: taken back, it waits no longer
//! sent      a connection has it: taken back, the server is told
//! left      it has its answer, before its client has that: the id may be used again at once; or nobody
//!           wants one
//! ```
//! Must never forget that a request was taken back, whichever comes first: that, or its sending.

use crate::gateway::sessions::Session;
use crate::upstream::leg::Leg;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tokio::sync::oneshot;

/// Requests under way in one session.
const IN_FLIGHT_MAX: usize = 1024;

/// A request under way, as far as its client may want to take it back.
#[derive(Debug, Default)]
pub(super) struct Noted {
    /// The connection that has it, and its own id of it.
    upstream: Option<(Leg, u64)>,
    /// Its client took it back before a connection had it.
    taken_back: bool,
    /// Who wants to hear of that.
    waits: Option<oneshot::Sender<()>>,
}

/// A request under way; leaves the session's table when it is answered, or dropped.
#[derive(Debug)]
pub struct InFlight {
    session: Arc<Session>,
    id: String,
    left: AtomicBool,
}

impl InFlight {
    /// The session.
    #[must_use]
    pub const fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// The connection's own id of it, for cancelling. True when its client took it back meanwhile.
    #[must_use]
    pub fn sent_as(&self, leg: &Leg, upstream: u64) -> bool {
        self.session.sent_as(&self.id, (leg, upstream))
    }

    /// The place where it is noted.
    #[must_use]
    pub fn marker(&self) -> Marker {
        Marker { session: Arc::clone(&self.session), id: self.id.clone() }
    }

    /// Its client is about to get the answer.
    pub fn answered(&self) {
        if !self.left.swap(true, Relaxed) {
            self.session.inner().in_flight.remove(&self.id);
        }
    }

    /// Whether its client took it back before a connection had it.
    #[must_use]
    pub fn is_taken_back(&self) -> bool {
        self.session.inner().in_flight.get(&self.id).is_some_and(|noted| noted.taken_back)
    }

    /// Resolves when its client takes it back before a connection has it, or its session ends.
    pub async fn taken_back(&self) {
        self.session.taken_back(&self.id).await;
    }
}

impl Session {
    /// Enters a request by the id its client gave it; `None` when that id is under way already or
    /// too many are.
    #[must_use]
    pub fn enter(self: &Arc<Self>, id: &RawValue) -> Option<InFlight> {
        let mut inner = self.inner();
        if inner.in_flight.len() >= IN_FLIGHT_MAX || inner.in_flight.contains_key(id.get()) {
            return None;
        }
        inner.in_flight.insert(id.get().to_owned(), Noted::default());
        Some(InFlight { session: Arc::clone(self), id: id.get().to_owned(), left: AtomicBool::new(false) })
    }

    /// Whether a request is under way.
    #[must_use]
    pub fn is_in_flight(&self, id: &RawValue) -> bool {
        self.inner().in_flight.contains_key(id.get())
    }

    /// Its client wants to take a request back. The connection that has it and its id there, where one has
    /// it; a request that still waits waits no longer.
    #[must_use]
    pub fn take_back(&self, id: &RawValue) -> Option<(Leg, u64)> {
        let mut inner = self.inner();
        let noted = inner.in_flight.get_mut(id.get())?;
        if noted.upstream.is_none() {
            noted.taken_back = true;
            if let Some(waits) = noted.waits.take() {
                let _gone = waits.send(());
            }
        }
        noted.upstream.clone()
    }

    fn sent_as(&self, id: &str, (leg, upstream): (&Leg, u64)) -> bool {
        self.inner().in_flight.get_mut(id).is_some_and(|noted| {
            noted.upstream = Some((leg.clone(), upstream));
            noted.taken_back
        })
    }

    async fn taken_back(&self, id: &str) {
        let (told, waits) = oneshot::channel();
        match self.inner().in_flight.get_mut(id) {
            Some(noted) if noted.taken_back => return,
            Some(noted) => noted.waits = Some(told),
            None => return,
        }
        tokio::select! {
            told = waits => if told.is_err() {
                // Another one waits for it now.
                std::future::pending::<()>().await;
            },
            () = self.over() => {}
        }
    }
}

/// Where a request under way is noted, for whoever sends it again.
#[derive(Debug)]
pub struct Marker {
    session: Arc<Session>,
    id: String,
}

impl Marker {
    /// The connection's own id of it, for cancelling. True when its client took it back meanwhile.
    #[must_use]
    pub fn sent_as(&self, leg: &Leg, upstream: u64) -> bool {
        self.session.sent_as(&self.id, (leg, upstream))
    }

    /// The session.
    pub(crate) const fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// No connection has it.
    pub fn unsent(&self) {
        if let Some(noted) = self.session.inner().in_flight.get_mut(&self.id) {
            noted.upstream = None;
        }
    }

    /// As of a request under way.
    pub async fn taken_back(&self) {
        self.session.taken_back(&self.id).await;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.answered();
    }
}

#[cfg(test)]
mod tests {
    use crate::gateway::legacy::empty_object;
    use crate::gateway::played::{RuntimeClock, id};
    use crate::gateway::sessions::{Backing, NewSession, Sessions};
    use crate::mcp::wire::LEGACY_LATEST;
    use serde_json::value::RawValue;
    use std::sync::Arc;

    #[tokio::test]
    async fn an_id_is_free_with_its_answer_and_nobody_leaves_in_anothers_place() {
        let new = NewSession {
            server: id("time"),
            version: LEGACY_LATEST,
            principal: Arc::from("local"),
            backing: Backing::Shared,
            capabilities: empty_object(),
            client: None,
        };
        let (_, session) = Sessions::new(Arc::new(RuntimeClock::default())).open(new).expect("a session");
        let one = RawValue::from_string("1".to_owned()).expect("an id");
        let first = session.enter(&one).expect("a first request");
        assert!(session.enter(&one).is_none(), "it is under way");
        first.answered();
        let second = session.enter(&one).expect("the id again");
        drop(first);
        assert!(session.is_in_flight(&one), "the second is under way");
        drop(second);
        assert!(!session.is_in_flight(&one));
    }
}
