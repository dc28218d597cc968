//! What people ask for by hand, written into the memory: starts, stops, restarts, pauses.
//!
//! Must never do anything about a server: the planner reads it like everything else it remembers.

use crate::model::desired::Desired;
use crate::model::id::ServerId;
use crate::model::memory::{Intent, Memory, Pause, Scope};
use crate::model::time::Timestamp;
use crate::plan::report::{Row, RowState};
use crate::service::Act;
use crate::world::WorldError;

/// What to say of a wish that could not be kept.
pub(super) fn unkept(error: &WorldError) -> String {
    format!("the wish holds until this process ends, but could not be kept: {error}")
}

/// Writes a pause down, or takes it back. What is resumed has its tries counted anew.
pub(super) fn set_pause(memory: &mut Memory, scopes: Vec<Scope>, pause: Option<Pause>) {
    for scope in scopes {
        match &pause {
            Some(pause) => {
                memory.pauses.insert(scope, pause.clone());
            }
            None => {
                memory.pauses.remove(&scope);
                if let Scope::Server(id) = &scope {
                    memory.recoveries.retain(|one, _| one.server() != *id);
                }
            }
        }
    }
}

/// Who asked, when, until when.
pub(super) struct Asked<'a, F> {
    pub(super) by: &'a str,
    pub(super) now: Timestamp,
    pub(super) until: Option<Timestamp>,
    /// Whether a server is not started again by itself.
    pub(super) over: F,
}

/// It ended, and is not started again by itself.
pub(super) fn is_over(row: &Row) -> bool {
    row.state == RowState::Stopped || row.reasons.iter().any(|reason| reason.code == Some("MCPO-P041"))
}

/// What a word about `id` is about: the instances of a server, or the one that is named.
fn instances(desired: &Desired, id: &ServerId) -> Vec<ServerId> {
    let many = desired.servers.get(id).map_or(1, |server| server.replicas);
    std::iter::once(id.clone()).chain((2..=many).map(|number| id.replica(number))).collect()
}

/// Writes down what was asked for by hand.
pub(super) fn intend(
    memory: &mut Memory,
    desired: &Desired,
    servers: &[ServerId],
    act: Act,
    asked: &Asked<'_, impl Fn(&ServerId) -> bool>,
) {
    for id in servers {
        let instances = instances(desired, id);
        let asleep = |one: &ServerId| memory.naps.get(one).is_some_and(|nap| !nap.awake);
        // Who starts it wakes it, and it counts as used then. One that sleeps is started, not more.
        let sleeps = act != Act::Stop && instances.iter().all(asleep);
        for nap in instances.iter().filter(|_| act != Act::Stop) {
            if let Some(nap) = memory.naps.get_mut(nap) {
                (nap.awake, nap.idle, nap.since) = (true, false, asked.now);
            }
        }
        let act = if sleeps { Act::Start } else { act };
        let file_enabled = desired.servers.get(&id.server()).is_some_and(|server| server.enabled);
        // Nothing keeps it stopped but its own end: only another start helps.
        let stopped = memory.intents.get(id).is_some_and(|intent| !intent.run);
        let over = instances.iter().any(|one| (asked.over)(one));
        let ended = act == Act::Start && file_enabled && !stopped && over;
        let act = if ended { Act::Restart } else { act };
        for one in instances.iter().filter(|_| act != Act::Stop) {
            if let Some(attempts) = memory.attempts.get_mut(one) {
                // Somebody looked at it: crashes and failures count anew, as do tries below.
                attempts.crashes = 0;
                attempts.next_try = None;
                attempts.failed_spec = None;
                attempts.failures = 0;
            }
            memory.recoveries.remove(one);
        }
        if id.replica_number() == 1 {
            // What was asked of one instance is over with a word about all.
            memory.intents.retain(|one, _| one.server() != *id || one == id);
        }
        if act == Act::Start && file_enabled {
            memory.intents.remove(id);
            continue;
        }
        let intent = Intent {
            run: act != Act::Stop,
            by: asked.by.to_owned(),
            at: asked.now,
            until: asked.until,
            file_enabled,
            restart: (act == Act::Restart).then_some(asked.now),
        };
        memory.intents.insert(id.clone(), intent);
    }
}
