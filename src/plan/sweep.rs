//! Legs: containers that the gateway makes for one client each. They belong to a run of the daemon
//! and end with it, so what another run left behind serves nobody and goes, whatever the file says.
//!
//! ```text
//! leg of             its server                                 step
//! another run        any                                        stop, remove
//! this run           runs what the leg was made from            leave
//! this run           gone, not to run, or runs something newer  end its sessions, stop, remove
//! this run, ended    any, and the gateway left it lying         end its sessions, remove
//! any                its last actions still run                 leave
//! ```
//! A process that serves no edges makes no legs, and it holds the stack's lock when it acts: to it
//! every leg is another run's. `plan` beside a daemon asks the daemon, which knows its own.
//!
//! Must never touch a leg of this run before the gateway has let go of it.

use crate::model::fingerprint::Likeness;
use crate::model::id::ServerId;
use crate::model::mark::Mark;
use crate::model::observed::{Container, ContainerState, Observed, Question, Seen};
use crate::model::op::{EdgeOp, Op};
use crate::model::server::ServerKind;
use crate::plan::draft::{Draft, refer};
use crate::plan::fleet::Group;
use crate::plan::report::{Reason, ReasonKind};
use crate::plan::runs::{Want, want};

/// Whether the run that made a leg is over.
pub(crate) fn is_orphan(observed: &Observed, mark: &Mark) -> bool {
    observed.run.is_none() || mark.run != observed.run
}

/// Decides about the legs of every server.
pub(crate) fn sweep(draft: &mut Draft<'_>) {
    let with_legs = draft.fleet.groups.iter().filter(|(_, group)| !group.legs.is_empty());
    let groups: Vec<(ServerId, Group<'_>)> =
        with_legs.map(|(id, group)| (id.clone(), group.clone())).collect();
    for (id, group) in groups {
        if !draft.input.observed.busy.contains(&id) {
            sweep_server(draft, &id, &group);
        }
    }
}

fn sweep_server(draft: &mut Draft<'_>, id: &ServerId, group: &Group<'_>) {
    let mut ours = Vec::new();
    for leg in group.legs.iter().copied().filter(|leg| leg.state != ContainerState::Removing) {
        let orphan = leg.mark.as_ref().is_none_or(|mark| is_orphan(draft.input.observed, mark));
        if orphan {
            let why = "the run of the daemon that made it is over";
            draft.say(id, Reason::new(ReasonKind::ChangedBecause, "legs of an earlier run are left over"));
            draft.stop_and_remove(id, leg, Some(Vec::new()), why, &[]);
        } else if let Some(why) = needless(draft, id, group, leg) {
            ours.push((leg, why));
        }
    }
    let Some((_, first)) = ours.first() else { return };
    let legs = ours.iter().map(|(leg, _)| refer(leg)).collect();
    draft.say(id, Reason::new(ReasonKind::ChangedBecause, format!("legs end: {first}")));
    let op = Op::Edge(EdgeOp::EndLegs { server: id.clone(), legs });
    let ended = draft.act(Some(id), op, first, &[]);
    for (leg, why) in ours {
        draft.stop_and_remove(id, leg, Some(Vec::new()), why, &[ended]);
    }
}

/// Why a leg of this run has nothing more to do; `None` while it may.
fn needless(
    draft: &mut Draft<'_>,
    id: &ServerId,
    group: &Group<'_>,
    leg: &Container,
) -> Option<&'static str> {
    let desired = draft.input.desired;
    match leg.state {
        ContainerState::Dead => return Some("the engine cannot start it again"),
        ContainerState::Exited(_) if left_lying(draft, leg) => return Some("it has ended"),
        _ => {}
    }
    if desired.is_broken(id) {
        return None;
    }
    let Some(server) = desired.servers.get(id) else {
        return (!draft.keep_unclaimed).then_some("the file no longer has its server");
    };
    if matches!(want(draft.input.policy, &draft.memory, server), Want::Stop { .. }) {
        return Some("its server is not to run");
    }
    let ServerKind::Container(decl) = &server.kind else {
        return Some("its server is no container any more");
    };
    let made_from = leg.mark.as_ref().and_then(|mark| mark.fingerprint.as_ref());
    let same = |made_from| {
        matches!(decl.fingerprint.likeness(made_from), Likeness::Same | Likeness::SameButSecretsUnknown)
    };
    // Until a replacement has taken over, what the server runs is what its legs are made from.
    let serving = group.main.and_then(|main| main.mark.as_ref()?.fingerprint.as_ref());
    let current = made_from.is_some_and(same) || (made_from.is_some() && made_from == serving);
    (!current).then_some("its server runs a newer declaration")
}

/// Whether a leg has ended long enough ago that the gateway will not remove it any more.
fn left_lying(draft: &mut Draft<'_>, leg: &Container) -> bool {
    match draft.input.observed.details.get(&leg.id) {
        None => {
            draft.ask(Question::Details(leg.id.clone()));
            false
        }
        Some(Seen::Known(Some(details))) => {
            let due = details.finished.unwrap_or(leg.created).after(draft.input.policy.settle);
            if due > draft.input.now {
                draft.look_at(due);
            }
            due <= draft.input.now
        }
        Some(Seen::Known(None) | Seen::Unknown(_)) => false,
    }
}
