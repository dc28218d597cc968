//! Requests under way in a session, by the ids that its client gave them.
//!
//! ```text
//! entered   it waits for its turn, its server or another try: taken back, it waits no longer
//! sent      a connection has it: taken back, the server is told
//! left      it has its answer, or nobody wants one
//! ```
//! Must never forget that a request was taken back, whichever comes first: that, or its sending.

use crate::gateway::sessions::Session;
use serde_json::value::RawValue;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Requests under way in one session.
const IN_FLIGHT_MAX: usize = 1024;

/// A request under way, as far as its client may want to take it back.
#[derive(Debug, Default)]
pub(super) struct Noted {
    /// The connection's own id of it, while a connection has it.
    upstream: Option<u64>,
    /// Its client took it back before a connection had it.
    taken_back: bool,
    /// Who wants to hear of that.
    waits: Option<oneshot::Sender<()>>,
}

/// A request under way; leaves the session's table when dropped.
#[derive(Debug)]
pub struct InFlight {
    session: Arc<Session>,
    id: String,
}

impl InFlight {
    /// The session.
    #[must_use]
    pub const fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// The connection's own id of it, for cancelling. True when its client took it back meanwhile.
    #[must_use]
    pub fn sent_as(&self, upstream: u64) -> bool {
        self.session.sent_as(&self.id, upstream)
    }

    /// The place where it is noted.
    #[must_use]
    pub fn marker(&self) -> Marker {
        Marker { session: Arc::clone(&self.session), id: self.id.clone() }
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
        Some(InFlight { session: Arc::clone(self), id: id.get().to_owned() })
    }

    /// Whether a request is under way.
    #[must_use]
    pub fn is_in_flight(&self, id: &RawValue) -> bool {
        self.inner().in_flight.contains_key(id.get())
    }

    /// Its client wants to take a request back. The connection's id of it, where one has it; a request that
    /// still waits waits no longer.
    #[must_use]
    pub fn take_back(&self, id: &RawValue) -> Option<u64> {
        let mut inner = self.inner();
        let noted = inner.in_flight.get_mut(id.get())?;
        if noted.upstream.is_none() {
            noted.taken_back = true;
            if let Some(waits) = noted.waits.take() {
                let _gone = waits.send(());
            }
        }
        noted.upstream
    }

    fn sent_as(&self, id: &str, upstream: u64) -> bool {
        self.inner().in_flight.get_mut(id).is_some_and(|noted| {
            noted.upstream = Some(upstream);
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
    pub fn sent_as(&self, upstream: u64) -> bool {
        self.session.sent_as(&self.id, upstream)
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
        self.session.inner().in_flight.remove(&self.id);
    }
}
