//! Servers that are no containers: local processes and servers elsewhere. They live behind an edge
//! listener of the daemon, which opens their connections by itself.
//!
//! ```text
//! there                                              step
//! nothing                                            its listener, its route
//! a container of an older entry, behind the gateway  it serves until the new connection is open and
//!                                                    nothing is under way to it, then it goes
//! a container of an older entry, on its own port     it is drained and goes, then the listener opens
//! a process that was to be restarted by hand         it ends, and the gateway starts it anew
//! one that sleeps                                    requests are held, the process ends, see demand
//! a process that ended                               the gateway starts it again, or leaves it so
//! a process or server elsewhere that does not answer it is restarted or reached anew, see recovery
//! ```
//! Must never remove a container before the file says that the server is no container any more.

use crate::model::balancer::{RouteKind, RouteWant};
use crate::model::id::ServerId;
use crate::model::observed::{Contact, ContactState, Container, ContainerState};
use crate::model::op::{EdgeOp, Op};
use crate::model::policy::Ending;
use crate::model::server::{Server, ServerKind};
use crate::model::time::Span;
use crate::plan::containers::{drained, show};
use crate::plan::demand;
use crate::plan::draft::{Draft, runs};
use crate::plan::recovery::{self, Step};
use crate::plan::report::{Hold, Reason, ReasonKind, RowState};
use crate::plan::runs::{Want, restart_due, want};
use crate::plan::{depends, drain, ends, replicas};

/// A try that is due is under way: its news come by themselves; this is between two looks all the same.
const UNDER_WAY_AGAIN: Span = Span::secs(1);

/// Decides for one server; `what` names its kind.
pub(crate) fn decide(draft: &mut Draft<'_>, server: &Server, what: &str) {
    let id = &server.id;
    draft.row(id).route = Some("edge");
    let (stop, asleep) = match want(draft.input.policy, &draft.memory, server) {
        Want::Stop { why, .. } => (Some(why), false),
        Want::Sleep => (None, true),
        Want::Run => (None, false),
    };
    if stop.is_some() && !depends::may_stop(draft, server) {
        return;
    }
    let left = remove_containers(draft, id, stop.is_some() || asleep);
    if let Some(why) = stop {
        draft.memory.recoveries.remove(id);
        if left == Left::Nothing {
            draft.row(id).state = RowState::Stopped;
        }
        draft.say(id, Reason::new(ReasonKind::LeftAlone, why));
        return;
    }
    if draft.port(id).is_none() && replicas::lacks_door(draft, id) {
        return;
    }
    if left == Left::OnItsPort {
        // The listener opens once the port is free.
        draft.row(id).route = Some("direct");
        let want =
            RouteWant { server: id.clone(), kind: RouteKind::Edge, ports: Vec::new(), health_path: None };
        draft.offer(want);
        return;
    }
    if asleep {
        return demand::process(draft, server);
    }
    let served = draft.input.observed.edges.as_ref().and_then(|edges| edges.get(id)).copied();
    if draft.input.observed.edges.is_none() {
        draft.note(id, format!("{what}: served while the daemon runs"));
    }
    let leaves = draft.input.policy.ending == Ending::Leave || drain::holds(draft);
    let served = served.filter(|_| !leaves);
    let ports = served.filter(|port| Some(*port) == draft.port(id)).into_iter().collect();
    let want = RouteWant { server: id.clone(), kind: RouteKind::Edge, ports, health_path: None };
    draft.offer(want);
    // Nobody here keeps connections.
    let Some(contacts) = &draft.input.observed.contacts else { return };
    let contact = contacts.get(id);
    if let Some(why) = restart_due(&draft.memory, id) {
        if replicas::waits_for_restart(draft, server) {
            return;
        }
        return restart(draft, id, &why);
    }
    say_ends(draft, server, contact);
    ends::process(draft, server);
    let up = contact.is_some_and(|contact| contact.state == ContactState::Up);
    let hold = depends::hold(draft, server, up);
    draft.row(id).hold = hold;
    if hold == Hold::Start {
        return;
    }
    stands(draft, server, what, contact);
}

/// How it stands, and what is done about that.
fn stands(draft: &mut Draft<'_>, server: &Server, what: &str, contact: Option<&Contact>) {
    let id = &server.id;
    match contact.map(|contact| &contact.state) {
        Some(ContactState::Up) => {
            if let Step::Restart(why) = recovery::decide(draft, server, None) {
                restart(draft, id, &why);
            }
        }
        Some(ContactState::Failed { .. }) => say_silent(draft, id),
        Some(ContactState::Held { why, until }) => {
            draft.row(id).next_try = Some(*until);
            let reason = Reason::new(ReasonKind::WaitingOn, why.clone()).code("MCPO-P044");
            draft.say(id, reason.until(*until));
        }
        None | Some(ContactState::Starting) => draft.wait(id, format!("{what} to answer"), None),
        Some(ContactState::Left(why)) => {
            draft.row(id).state = RowState::Stopped;
            draft.row(id).ended = true;
            draft.say(id, Reason::new(ReasonKind::LeftAlone, why.clone()));
        }
        Some(ContactState::GaveUp(why)) => draft.block(id, "MCPO-P041", why.clone()),
    }
}

/// Ends what serves, and has it started anew.
fn restart(draft: &mut Draft<'_>, id: &ServerId, why: &str) {
    draft.say(id, Reason::new(ReasonKind::ChangedBecause, why));
    draft.attempts(id).started = Some(draft.input.now);
    draft.act(Some(id), Op::Edge(EdgeOp::Restart { server: id.clone() }), why, &[]);
}

/// How often a process ended lately, and how: it is told also when it is up again before anybody looked.
fn say_ends(draft: &mut Draft<'_>, server: &Server, contact: Option<&Contact>) {
    let Some(Contact { state, ends: (times, last), uses: _ }) = contact else { return };
    if *times == 0 || !matches!(server.kind, ServerKind::Process(_)) {
        return;
    }
    let again = matches!(state, ContactState::Up | ContactState::Starting);
    // Where it is not started again yet, its last end had no restart.
    draft.row(&server.id).restarts = if again { *times } else { times.saturating_sub(1) };
    if again {
        let text = format!("restart {times} in a row: {last}");
        draft.say(&server.id, Reason::new(ReasonKind::Note, text).code("MCPO-P042"));
    }
}

/// A server that runs but does not answer is not as it should be.
pub(crate) fn say_silent(draft: &mut Draft<'_>, id: &ServerId) {
    let contact = draft.input.observed.contacts.as_ref().and_then(|contacts| contacts.get(id));
    let Some(ContactState::Failed { why, next_try }) = contact.map(|contact| &contact.state) else { return };
    let text = format!("the server to answer MCP: {why}");
    let mut reason = Reason::new(ReasonKind::WaitingOn, text).code("MCPO-P043");
    reason.until = Some(*next_try).filter(|due| *due > draft.input.now);
    if reason.until.is_none() {
        draft.look_at(draft.input.now.after(UNDER_WAY_AGAIN));
    }
    draft.row(id).next_try = reason.until;
    draft.say(id, reason);
}

/// What an older entry left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Nothing,
    /// Containers that serve for the time being, or go now.
    Behind,
    /// A container that still has the server's port.
    OnItsPort,
}

/// The containers of an entry that was one.
fn remove_containers(draft: &mut Draft<'_>, id: &ServerId, stopped: bool) -> Left {
    const WHY: &str = "its entry is no container any more";
    let group = draft.fleet.groups.get(id).cloned().unwrap_or_default();
    let Some(main) = group.main.or_else(|| group.all().next()) else { return Left::Nothing };
    show(draft, id, main);
    draft.say(id, Reason::new(ReasonKind::ChangedBecause, WHY));
    let on_its_port = |container: &Container| {
        let route = container.mark.as_ref().and_then(|mark| mark.route.as_deref());
        runs(container) && route.is_some_and(|route| route != "edge")
    };
    let published = group.all().any(on_its_port);
    if published && !drained(draft, id, &group, stopped) {
        return Left::OnItsPort;
    }
    for container in group.all().filter(|container| container.state != ContainerState::Removing) {
        if !stopped && !on_its_port(container) && serves(draft, id, container) {
            draft.wait(id, "the new connection before its old container goes", None);
            continue;
        }
        let volumes =
            container.mark.as_ref().filter(|mark| mark.remove_volumes).map(|mark| mark.volumes.clone());
        draft.stop_and_remove(id, container, volumes, WHY, &[]);
    }
    Left::Behind
}

/// Whether requests go to a container, or would if it were not for its end.
fn serves(draft: &Draft<'_>, id: &ServerId, container: &Container) -> bool {
    let Some(contacts) = &draft.input.observed.contacts else { return false };
    // The gateway does not know the server yet: it will in a moment.
    let Some(contact) = contacts.get(id) else { return runs(container) };
    contact.uses.contains(&container.id)
}
