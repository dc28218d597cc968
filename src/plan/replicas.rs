//! Several instances of one server: each is planned for as a server of its own (`time`, `time-R2`, …), and
//! here stands what they have to do with each other.
//!
//! ```text
//! another instance                               this one, which runs
//! is being replaced                              is not replaced yet
//! failed to come up as declared now, lower one   stays as it is until that one came up
//! comes up, and no other runs                    is not stopped for its replacement yet
//! is restarted by hand, lower one                is restarted after it
//! ```
//! Must never keep anything waiting for an instance that is not on its way.

use crate::model::id::ServerId;
use crate::model::observed::{ContactState, Container, ContainerState};
use crate::model::server::{RestartWhen, Server, ServerKind};
use crate::model::time::{Span, Timestamp};
use crate::plan::draft::{Draft, runs};
use crate::plan::fleet::Group;
use crate::plan::report::{Reason, ReasonKind};
use crate::plan::runs::{Want, paused, restart_due, want};

/// Between two looks at whether requests of an instance that goes have ended.
const ENDED_AGAIN: Span = Span::secs(1);

/// The other instances of a server.
pub(crate) fn siblings<'a>(draft: &Draft<'a>, server: &Server) -> impl Iterator<Item = &'a Server> + use<'a> {
    let (own, id) = (server.id.server(), server.id.clone());
    let numbers = 1..=if server.replicas > 1 { server.replicas } else { 0 };
    let desired = draft.input.desired;
    numbers
        .filter_map(move |number| desired.servers.get(&own.replica(number)))
        .filter(move |one| one.id != id)
}

fn shall_run(draft: &Draft<'_>, server: &Server) -> bool {
    let (policy, memory) = (draft.input.policy, &draft.memory);
    want(policy, memory, server) == Want::Run && paused(policy, memory, server, draft.input.now).is_none()
}

/// Whether an instance without a port of its own cannot be reached by that of its server either; its row says
/// so.
pub(crate) fn lacks_door(draft: &mut Draft<'_>, id: &ServerId) -> bool {
    if id.replica_number() > 1 {
        if draft.port(&id.server()).is_some() {
            return false;
        }
        draft.block(id, "MCPO-P011", "its server has no host port");
    }
    true
}

/// Whether a running instance is not replaced yet for the sake of the others: one of them is being replaced,
/// or one before it failed to come up as it is declared now.
pub(crate) fn waits_for_others(draft: &mut Draft<'_>, server: &Server, spec: &str) -> bool {
    let id = &server.id;
    let mut others: Vec<&Server> = siblings(draft, server).collect();
    others.retain(|one| shall_run(draft, one));
    if draft.in_flight.contains(id) {
        return false;
    }
    // What its last actions make may not be seen yet.
    let moves =
        |one: &&&Server| draft.in_flight.contains(&one.id) || draft.input.observed.busy.contains(&one.id);
    if let Some(other) = others.iter().find(moves) {
        draft.wait(id, format!("its turn: instance {} is being replaced", other.id), None);
        return true;
    }
    let failed = |one: &&&Server| {
        let attempts = draft.memory.attempts.get(&one.id);
        let same = attempts.is_some_and(|one| one.failures > 0 && one.failed_spec.as_deref() == Some(spec));
        same && one.id.replica_number() < id.replica_number()
    };
    let Some(other) = others.iter().find(failed) else { return false };
    let text = format!("the roll-out: instance {} did not come up as it is declared now", other.id);
    draft.say(id, Reason::new(ReasonKind::WaitingOn, text).code("MCPO-P050"));
    true
}

/// Whether no other instance runs, and one is on its way: this one is not stopped before that is up.
pub(crate) fn is_last(draft: &mut Draft<'_>, server: &Server) -> bool {
    let others: Vec<&Server> = siblings(draft, server).collect();
    let main = |one: &Server| draft.fleet.groups.get(&one.id).and_then(|group| group.main);
    if others.is_empty() || others.iter().any(|one| main(one).is_some_and(runs)) {
        return false;
    }
    let comes = |one: &&&Server| {
        let attempts = draft.memory.attempts.get(&one.id);
        let failed = attempts.is_some_and(|attempts| attempts.failed_spec.is_some());
        let gives_up = one.restart.when != RestartWhen::Always || one.restart.attempts_max.is_some();
        let starts = main(one)
            .is_some_and(|main| matches!(main.state, ContainerState::Exited(_) | ContainerState::Created));
        starts && !failed && !gives_up && shall_run(draft, one)
    };
    let Some(other) = others.iter().find(comes).map(|one| one.id.clone()) else { return false };
    let text = format!("the roll-out: no other instance runs, {other} first");
    draft.say(&server.id, Reason::new(ReasonKind::WaitingOn, text).code("MCPO-P050"));
    true
}

/// Whether a restart by hand comes later: instances are restarted one after another. The wait for those
/// before it is bounded by their times to come up.
pub(crate) fn waits_for_restart(draft: &mut Draft<'_>, server: &Server) -> bool {
    let id = &server.id;
    // A restart of this instance alone waits for nobody.
    let Some(asked) = draft.memory.intents.get(&id.server()).and_then(|intent| intent.restart) else {
        return false;
    };
    let number = id.replica_number();
    let patience = Span(server.health.start_period.0.saturating_mul(u64::from(number.saturating_sub(1))));
    let until = asked.after(patience);
    if draft.input.now >= until {
        return false;
    }
    let before = siblings(draft, server).filter(|one| one.id.replica_number() < number);
    let first: Option<ServerId> = before
        .filter(|one| shall_run(draft, one))
        .find(|one| restart_due(&draft.memory, &one.id).is_some() || is_starting(draft, one, asked))
        .map(|one| one.id.clone());
    let Some(first) = first else { return false };
    draft.wait(id, format!("its turn: instance {first} is restarted first"), Some(until));
    draft.look_at(draft.input.now.after(draft.input.policy.settle));
    true
}

/// Whether an instance was restarted since `asked` and is not up yet.
fn is_starting(draft: &Draft<'_>, server: &Server, asked: Timestamp) -> bool {
    let attempts = draft.memory.attempts.get(&server.id);
    let since = attempts.filter(|attempts| attempts.started.is_some_and(|started| started >= asked));
    let Some(attempts) = since else { return false };
    if matches!(server.kind, ServerKind::Container(_)) {
        return !attempts.up;
    }
    let contacts = draft.input.observed.contacts.as_ref();
    let state = contacts.and_then(|contacts| contacts.get(&server.id)).map(|contact| &contact.state);
    matches!(state, None | Some(ContactState::Starting))
}

/// Whether requests are still under way to an instance that is to go. No new ones are sent there; those that
/// take longer than targets of the load balancer are given are not waited for.
pub(crate) fn still_serves(draft: &mut Draft<'_>, id: &ServerId, group: &Group<'_>) -> bool {
    let contact = draft.input.observed.contacts.as_ref().and_then(|contacts| contacts.get(id));
    let used = |one: &Container| runs(one) && contact.is_some_and(|contact| contact.uses.contains(&one.id));
    if !group.all().any(used) {
        return false;
    }
    let (now, patience) = (draft.input.now, draft.input.policy.balancer.deregistration_delay);
    let until = draft.attempts(id).down_since.get_or_insert(now).after(patience);
    if now >= until {
        return false;
    }
    draft.wait(id, "its last requests to end", Some(until));
    draft.look_at(now.after(ENDED_AGAIN));
    true
}
