//! What a pass taught: results of actions turned into memory for the next plan.
//!
//! The next pass is the retry; the wait before it is data, so that people can see it.

use crate::model::balancer::BalancerOp;
use crate::model::desired::Desired;
use crate::model::id::ServerId;
use crate::model::memory::{Attempts, Memory};
use crate::model::op::{EdgeOp, EngineOp, Op};
use crate::model::server::{PullPolicy, ServerKind};
use crate::model::time::{Span, Timestamp};
use crate::plan::action::Action;
use crate::plan::replace::retry_delay;
use crate::world::{ErrorKind, WorldError};

/// A quota of the load balancer is asked for again this much later: somebody must make room.
const QUOTA_AGAIN: Span = Span::secs(900);

/// What became of one action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActionResult {
    /// Done.
    Done,
    /// Failed.
    Failed(WorldError),
    /// Not tried, because an action it needs was not done.
    Skipped,
}

/// The memory after `results` of a plan's `actions`.
#[must_use]
pub fn learn(
    mut memory: Memory,
    desired: &Desired,
    done: &[(Action, ActionResult)],
    now: Timestamp,
) -> Memory {
    let desired = &*desired.instances();
    for (action, result) in done {
        match result {
            ActionResult::Skipped => {}
            ActionResult::Done => learn_success(&mut memory, desired, action, now),
            ActionResult::Failed(error) => learn_failure(&mut memory, desired, action, error, now),
        }
    }
    memory
}

fn learn_success(memory: &mut Memory, desired: &Desired, action: &Action, now: Timestamp) {
    let always =
        |id: &ServerId| desired.servers.get(id).is_some_and(|server| server.pull == PullPolicy::Always);
    match &action.op {
        Op::Engine(EngineOp::Pull { reference, .. }) => {
            for id in waiting_for(desired, reference) {
                if always(&id) {
                    let pin = crate::model::memory::Pin {
                        reference: reference.clone(),
                        image: String::new(),
                        digest: None,
                        pulled: Some(now),
                    };
                    memory.pins.insert(id, pin);
                }
            }
        }
        Op::Engine(EngineOp::Create(_)) => {
            if let Some(id) = action.server.as_ref().filter(|id| always(id))
                && let Some(pin) = memory.pins.get_mut(id)
            {
                pin.pulled = None;
            }
        }
        Op::Engine(EngineOp::Start(_)) => {
            if let Some(attempts) = action.server.as_ref().and_then(|id| memory.attempts.get_mut(id)) {
                attempts.port_taken = None;
                // It counts from when it was done: other steps may have come before it.
                if !attempts.up && attempts.started.is_some() {
                    attempts.started = Some(now);
                }
            }
        }
        Op::Edge(EdgeOp::Open { server, .. }) => {
            if let Some(attempts) =
                memory.attempts.get_mut(server).filter(|attempts| attempts.failed_spec.is_none())
            {
                (attempts.failures, attempts.next_try, attempts.port_taken) = (0, None, None);
            }
        }
        Op::Balancer(BalancerOp::CreateRule { .. }) => {
            if let Some(attempts) = action.server.as_ref().and_then(|id| memory.attempts.get_mut(id)) {
                attempts.quota_until = None;
            }
        }
        // There is room now: whoever was refused for want of it asks again at once.
        Op::Balancer(BalancerOp::DeleteRule { .. } | BalancerOp::DeleteTargetGroup { .. }) => {
            memory.attempts.values_mut().for_each(|attempts| attempts.quota_until = None);
        }
        Op::Engine(_) | Op::Balancer(_) | Op::Edge(_) => {}
    }
}

/// Servers whose entry names `reference`.
fn waiting_for(desired: &Desired, reference: &str) -> Vec<ServerId> {
    let names =
        |kind: &ServerKind| matches!(kind, ServerKind::Container(decl) if decl.spec.image == reference);
    desired.servers.values().filter(|server| names(&server.kind)).map(|server| server.id.clone()).collect()
}

fn learn_failure(
    memory: &mut Memory,
    desired: &Desired,
    action: &Action,
    error: &WorldError,
    now: Timestamp,
) {
    match &action.op {
        Op::Engine(EngineOp::Pull { reference, .. }) => {
            let mut ids = waiting_for(desired, reference);
            ids.extend(action.server.clone());
            ids.sort();
            ids.dedup();
            for id in ids {
                fail(memory, desired, &id, error, now);
            }
        }
        Op::Engine(EngineOp::Create(_) | EngineOp::Start(_)) => {
            let Some(id) = &action.server else { return };
            // The engine was not there: nothing is wrong with this server.
            if matches!(error.kind, ErrorKind::Unreachable | ErrorKind::TimedOut) {
                return;
            }
            // The name is taken: by a container the engine has not listed yet (a create whose
            // answer was lost), or by somebody else's. The next pass sees which. Twice the same:
            // nothing comes to light, and it is a failure like any other.
            if error.kind == ErrorKind::Conflict && matches!(action.op, Op::Engine(EngineOp::Create(_))) {
                let text = Some(error.to_string());
                let known = std::mem::replace(&mut attempts(memory, id).last_error, text.clone());
                if known != text {
                    return;
                }
            }
            fail(memory, desired, id, error, now);
            if error.kind == ErrorKind::Conflict && matches!(action.op, Op::Engine(EngineOp::Start(_))) {
                attempts(memory, id).port_taken.get_or_insert(now);
            }
        }
        // The new container does not answer: the old one stays, and the next try waits. Where the
        // engine was not there, nothing is wrong with the new one.
        Op::Edge(EdgeOp::HandOver { server, .. }) if error.kind != ErrorKind::Unreachable => {
            fail(memory, desired, server, error, now);
        }
        Op::Edge(EdgeOp::Open { server, .. }) if error.kind == ErrorKind::Conflict => {
            let attempts = attempts(memory, server);
            attempts.port_taken.get_or_insert(now);
            attempts.failures = attempts.failures.saturating_add(1);
            attempts.next_try = Some(now.after(retry_delay(attempts.failures)));
            attempts.last_error = Some(error.to_string());
        }
        // Somebody came: it stays awake.
        Op::Edge(EdgeOp::Sleep { .. }) => {}
        Op::Engine(_) | Op::Balancer(_) | Op::Edge(_) => {
            let creates = matches!(
                action.op,
                Op::Balancer(BalancerOp::CreateRule { .. } | BalancerOp::CreateTargetGroup { .. })
            );
            if let Some(id) = action.server.as_ref().filter(|_| creates && error.kind == ErrorKind::Quota) {
                attempts(memory, id).quota_until = Some(now.after(QUOTA_AGAIN));
            }
            if let Some(id) = &action.server {
                attempts(memory, id).last_error = Some(error.to_string());
            }
        }
    }
}

fn attempts<'a>(memory: &'a mut Memory, id: &ServerId) -> &'a mut Attempts {
    memory.attempts.entry(id.clone()).or_default()
}

/// Counts a failure of this very declaration and sets the time of the next try.
fn fail(memory: &mut Memory, desired: &Desired, id: &ServerId, error: &WorldError, now: Timestamp) {
    let short = match desired.servers.get(id).map(|server| &server.kind) {
        Some(ServerKind::Container(decl)) => decl.fingerprint.short(),
        _ => return,
    };
    let attempts = attempts(memory, id);
    attempts.last_error = Some(error.to_string());
    attempts.up = false;
    let pending =
        attempts.failed_spec.as_deref() == Some(&short) && attempts.next_try.is_some_and(|next| next > now);
    if pending {
        // The old container did not come back either: the wait for the new one stands.
        return;
    }
    attempts.failures =
        if attempts.failed_spec.as_deref() == Some(&short) { attempts.failures.saturating_add(1) } else { 1 };
    attempts.failed_spec = Some(short);
    attempts.next_try = Some(now.after(retry_delay(attempts.failures)));
}

#[cfg(test)]
mod tests {
    use super::{ActionResult, learn};
    use crate::model::balancer::BalancerOp;
    use crate::model::desired::Desired;
    use crate::model::id::{RuleArn, ServerId};
    use crate::model::memory::{Attempts, Memory};
    use crate::model::op::Op;
    use crate::model::time::Timestamp;
    use crate::plan::action::Action;
    use crate::world::{ErrorKind, WorldError};

    #[test]
    fn a_deletion_makes_room_for_who_was_refused() {
        let refused = Attempts { quota_until: Some(Timestamp(900_000)), ..Attempts::default() };
        let id = ServerId::new("comes").expect("an id");
        let memory = Memory { attempts: [(id.clone(), refused)].into(), ..Memory::default() };
        let deletion = Action {
            op: Op::Balancer(BalancerOp::DeleteRule { rule: RuleArn("arn:x".to_owned()) }),
            server: Some(ServerId::new("goes").expect("an id")),
            why: String::new(),
            after: Vec::new(),
        };
        let after = |result| {
            let done = [(deletion.clone(), result)];
            learn(memory.clone(), &Desired::default(), &done, Timestamp(1)).attempts[&id].quota_until
        };
        assert_eq!(after(ActionResult::Done), None);
        let failed = WorldError::new("deleting", ErrorKind::Throttled, "later");
        assert_eq!(after(ActionResult::Failed(failed)), Some(Timestamp(900_000)));
    }
}
