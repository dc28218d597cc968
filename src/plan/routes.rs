//! The outer half: edge listeners of this process, then the load balancer.
//!
//! Must never open a port for a server that is blocked or not to run.

use crate::model::balancer::{BalancerOp, BalancerSeen};
use crate::model::id::ServerId;
use crate::model::net::HostPort;
use crate::model::observed::Seen;
use crate::model::op::{EdgeOp, Op};
use crate::model::policy::Ending;
use crate::model::time::Timestamp;
use crate::plan::draft::Draft;
use crate::plan::report::{Reason, ReasonKind, RowState};
use crate::plan::{balancer, drain};
use std::collections::{BTreeMap, BTreeSet};

/// Decides about listeners and the balancer.
pub(crate) fn decide(draft: &mut Draft<'_>) {
    let ending = draft.input.policy.ending;
    // The process after this one takes the listeners over.
    if ending == Ending::None {
        edges(draft);
    }
    if ending == Ending::Stop {
        draft.report.balancer = "left as it is".to_owned();
        return;
    }
    match &draft.input.observed.balancer {
        BalancerSeen::Off(why) => draft.report.balancer = format!("off ({why})"),
        BalancerSeen::On(Seen::Unknown(why)) => {
            draft.report.balancer = "not reachable".to_owned();
            let text = format!("the load balancer could not be read, so nothing of it is changed: {why}");
            draft.report.general.push(Reason::new(ReasonKind::WaitingOn, text).code("MCPO-P060"));
        }
        BalancerSeen::On(Seen::Known(view)) => on(draft, view),
    }
}

/// Listeners that should be open: every running server that goes through the gateway.
fn edges(draft: &mut Draft<'_>) {
    let Some(served) = &draft.input.observed.edges else {
        return;
    };
    let mut wanted: BTreeMap<ServerId, HostPort> = BTreeMap::new();
    // Servers of which an instance is not left alone: the first may be blocked while others serve.
    let mut served_by: BTreeSet<ServerId> = BTreeSet::new();
    for (id, row) in &draft.report.servers {
        let runs = row.route == Some("edge") && row.state != RowState::Stopped;
        if runs && !draft.keep.contains(id) {
            served_by.insert(id.server());
        }
        // One instance that runs is reason enough.
        let id = id.server();
        if let Some(port) = draft.port(&id).filter(|_| runs || draft.input.desired.is_broken(&id)) {
            wanted.insert(id, port);
        }
    }
    // A broken entry keeps the listener it had, and gets no new one.
    wanted.retain(|id, _| !draft.input.desired.broken.contains_key(id) || served.contains_key(id));
    for (id, port) in served {
        let keep = wanted.get(id) == Some(port) || draft.keep.contains(id);
        if !keep {
            let op = Op::Edge(EdgeOp::Close { server: id.clone(), port: *port });
            draft.act(Some(id), op, "no server needs it", &[]);
        }
    }
    for (id, port) in &wanted {
        // What is paused is served as before, also by the process that came after.
        let paused = draft.report.servers.get(id).is_some_and(|row| row.paused);
        let left_alone = draft.keep.contains(id) && !served_by.contains(id);
        if served.get(id) != Some(port) && (paused || !left_alone) {
            if draft.memory.attempts.get(id).is_some_and(|attempts| attempts.port_taken.is_some()) {
                continue;
            }
            let op = Op::Edge(EdgeOp::Open { server: id.clone(), port: *port });
            // A container that goes may have had the port.
            let gone = draft.removals(id);
            draft.act(Some(id), op, "its listener is not open", &gone);
        }
    }
}

fn on(draft: &mut Draft<'_>, view: &crate::model::balancer::BalancerView) {
    // What is left alone is taken out of the balancer all the same where the whole host goes.
    let leaves = |id: &&ServerId| !draft.leaving.contains(*id);
    let keep: BTreeSet<ServerId> = draft.keep.iter().filter(leaves).cloned().collect();
    let policy = drain::policy(draft);
    let outcome = balancer::plan(&balancer::Input {
        wants: &draft.routes,
        keep: &keep,
        keep_unclaimed: draft.keep_unclaimed || !draft.report.engine_known,
        stack: &draft.input.policy.stack,
        view,
        memory: &draft.memory.balancer,
        policy: &policy,
        now: draft.input.now,
    });
    let balancer::Outcome { steps, memory, notes, general, next_look, read_next } = outcome;
    draft.read_next.extend(read_next);
    draft.memory.balancer = memory;
    if let Some(at) = next_look {
        draft.look_at(at);
    }
    draft.report.balancer = if steps.is_empty() { "in sync".to_owned() } else { "changing".to_owned() };
    // A step that is left out takes those that need it along.
    let mut indices: Vec<Option<usize>> = Vec::with_capacity(steps.len());
    for step in steps {
        let after: Option<Vec<usize>> =
            step.after.iter().map(|index| indices.get(*index).copied().flatten()).collect();
        let refused = step.server.as_ref().and_then(|id| out_of_quota(draft, id, &step.op));
        indices.push(match (after, refused) {
            (Some(after), None) => {
                Some(draft.act(step.server.as_ref(), Op::Balancer(step.op), &step.why, &after))
            }
            _ => None,
        });
    }
    for (id, notes) in notes {
        for note in notes {
            draft.say(&id, reason(note));
        }
    }
    draft.report.general.extend(general.into_iter().map(reason));
    if draft.input.observed.edges.is_none() {
        let waiting: Vec<ServerId> =
            draft.routes.iter().filter(|(_, want)| want.ports.is_empty()).map(|(id, _)| id.clone()).collect();
        for id in waiting {
            if draft.row(&id).route == Some("edge") {
                draft.note(&id, "container up, route waits for the daemon");
            }
        }
    }
}

/// Until when a creation that AWS refused for want of quota is not tried again; the row says so.
fn out_of_quota(draft: &mut Draft<'_>, id: &ServerId, op: &BalancerOp) -> Option<Timestamp> {
    if !matches!(op, BalancerOp::CreateRule { .. } | BalancerOp::CreateTargetGroup { .. }) {
        return None;
    }
    let attempts = draft.memory.attempts.get(id)?;
    let until = attempts.quota_until.filter(|until| *until > draft.input.now)?;
    let error = attempts.last_error.clone().unwrap_or_default();
    let text = format!("a quota of the load balancer: {error}; raise it or remove rules");
    draft.say(id, Reason::new(ReasonKind::BlockedBy, text).code("MCPO-P061").until(until));
    Some(until)
}

fn reason(note: balancer::Note) -> Reason {
    let kind = match note.kind {
        balancer::NoteKind::Waiting => ReasonKind::WaitingOn,
        balancer::NoteKind::Blocked => ReasonKind::BlockedBy,
        balancer::NoteKind::LeftAlone => ReasonKind::LeftAlone,
        balancer::NoteKind::Changed => ReasonKind::ChangedBecause,
        balancer::NoteKind::Advice => ReasonKind::Note,
    };
    Reason { kind, text: note.text, code: note.code, until: None }
}
