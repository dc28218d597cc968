//! Clients of servers that may sleep: calls that wait, are under way, or are over.
//!
//! Must never start or stop a server: only the program under test does.

use crate::model::id::ServerId;
use crate::model::mark::Role;
use crate::model::observed::Use;
use crate::model::server::{Server, ServerKind};
use crate::model::time::{Span, Timestamp};
use crate::world::ErrorKind;
use crate::world::fake::state::{No, State};
use std::collections::BTreeMap;

/// A call waits this long for its server.
const PATIENCE: Span = Span::secs(60);
/// Longest call, in milliseconds.
const CALL_MILLIS_MAX: u64 = 20_000;

/// What is known of a server's clients.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Used {
    waiting: usize,
    count: u64,
    last: Timestamp,
    /// Who waits has given up then.
    patient: Timestamp,
    /// A call is under way until then.
    until: Timestamp,
    /// Requests are held.
    held: bool,
}

impl State {
    fn used(&mut self, id: &ServerId) -> &mut Used {
        let now = self.now;
        let new = Used { waiting: 0, count: 0, last: now, patient: now, until: Timestamp(0), held: false };
        self.host.used.entry(id.clone()).or_insert(new)
    }

    /// Whether a call gets through now.
    fn answers_calls(&self, server: &Server) -> bool {
        let held = self.host.used.get(&server.id).is_some_and(|used| used.held);
        if !matches!(server.kind, ServerKind::Container(_)) {
            return !held && !server.on_demand;
        }
        let name = format!("{}{}", self.policy.name_prefix, server.id);
        self.engine
            .containers
            .iter()
            .any(|unit| unit.ours && unit.seen.name == name && unit.answers(self.now))
    }

    fn has_leg(&self, id: &ServerId) -> bool {
        self.engine.containers.iter().any(|unit| {
            let role = unit.seen.mark.as_ref().and_then(|mark| mark.role);
            unit.ours && unit.is_up() && unit.server() == Some(id) && role == Some(Role::Leg)
        })
    }

    /// What the gateway tells.
    pub(crate) fn uses(&mut self) -> BTreeMap<ServerId, Use> {
        let desired = std::sync::Arc::clone(&self.desired);
        self.host.used.retain(|id, _| desired.servers.get(id).is_some_and(Server::may_sleep));
        let mut out = BTreeMap::new();
        for server in desired.servers.values().filter(|server| server.may_sleep()) {
            let (now, through) = (self.now, self.answers_calls(server));
            let leg = self.has_leg(&server.id);
            let used = self.used(&server.id);
            if through && used.waiting > 0 {
                // They get their answers at once.
                (used.waiting, used.last, used.held) = (0, now, false);
            }
            if used.waiting > 0 && used.patient < now {
                (used.waiting, used.last) = (0, now);
            }
            let busy = used.until > now || leg;
            if busy {
                used.last = now;
            }
            let (waiting, count, idle) = (used.waiting, used.count, now.since(used.last));
            out.insert(server.id.clone(), Use { waiting, busy, count, idle });
        }
        out
    }

    /// Somebody calls a server that may sleep.
    pub(crate) fn call_a_sleeper(&mut self) -> Option<String> {
        if self.crashed {
            return None;
        }
        let desired = std::sync::Arc::clone(&self.desired);
        let all: Vec<&Server> = desired.servers.values().filter(|server| server.may_sleep()).collect();
        let server = *self.rng.pick(&all)?;
        let takes = Span(self.rng.below(CALL_MILLIS_MAX));
        let (now, through) = (self.now, self.answers_calls(server));
        let container = matches!(server.kind, ServerKind::Container(_));
        let used = self.used(&server.id);
        (used.count, used.last) = (used.count + 1, now);
        if through {
            used.until = now.after(takes);
        } else if container {
            (used.waiting, used.patient) = (used.waiting + 1, now.after(PATIENCE));
        } else {
            // Nobody plays processes: it is there once it is wanted.
            used.held = false;
        }
        Some(server.id.to_string())
    }

    /// Holds requests, unless somebody came.
    pub(crate) fn put_to_sleep(&mut self, id: &ServerId, uses: u64) -> Result<(), No> {
        let (now, leg) = (self.now, self.has_leg(id));
        if self.desired.servers.get(id).is_some_and(|server| server.idle_timeout.is_none()) {
            self.violation(format!("{id} was put to sleep and has no idle timeout"));
        }
        let used = self.used(id);
        if used.count != uses || used.until > now || used.waiting > 0 || leg {
            return No::new(ErrorKind::Conflict, "it is used");
        }
        used.held = true;
        Ok(())
    }

    /// Whether a call waits for a server.
    pub(crate) fn is_waited_for(&self, id: &ServerId) -> bool {
        self.host.used.get(id).is_some_and(|used| used.waiting > 0)
    }

    /// Whether somebody uses it now.
    pub(crate) fn is_used(&self, id: &ServerId) -> bool {
        self.is_waited_for(id)
            || self.host.used.get(id).is_some_and(|used| used.until > self.now)
            || self.has_leg(id)
    }
}
