//! This host out of the load balancer, with everything in it running on (`drain`): the same that
//! `on_shutdown = drain` does at the end, for as long as somebody wants it.
//!
//! ```text
//! a server's target     its row
//! registered            waiting: it is deregistered
//! draining              waiting, until the deregistration delay is over or the target is gone
//! gone                  as without: what runs goes on running, and is started again where it ends
//! ```
//! Rules and target groups stay, also beyond the grace that they have otherwise. A pause does not hold a
//! target in: who drains a host wants it empty.
//!
//! Must never stop anything that runs, and never register a target while it holds.

use crate::model::balancer::{BalancerPolicy, BalancerSeen, RouteKind, Standing};
use crate::model::id::ServerId;
use crate::model::memory::Pause;
use crate::model::net::HostPort;
use crate::model::policy::Ending;
use crate::plan::containers::{balancer_on, port_drained, standing};
use crate::plan::draft::Draft;
use crate::plan::report::{Drained, Reason, ReasonKind};
use std::collections::BTreeSet;

/// Who wants this host drained. The end of the process has its own way.
pub(crate) fn wanted<'d>(draft: &'d Draft<'_>) -> Option<&'d Pause> {
    draft.memory.drain.as_ref().filter(|_| draft.input.policy.ending == Ending::None)
}

/// Whether it holds.
pub(crate) fn holds(draft: &Draft<'_>) -> bool {
    wanted(draft).is_some()
}

/// Forgets one that is over, and looks again when it will be.
pub(crate) fn settle(draft: &mut Draft<'_>) {
    let now = draft.input.now;
    draft.memory.drain =
        draft.memory.drain.take().filter(|drain| drain.until.is_none_or(|until| until > now));
    if let Some(end) = draft.memory.drain.as_ref().and_then(|drain| drain.until) {
        draft.look_at(end);
    }
}

/// The settings of the load balancer half while it holds.
pub(crate) fn policy(draft: &Draft<'_>) -> BalancerPolicy {
    let policy = draft.input.policy.balancer.clone();
    BalancerPolicy { leaving: policy.leaving || holds(draft), ..policy }
}

/// Says how far it is: in the row of every server that still has a target, and for the host.
pub(crate) fn report(draft: &mut Draft<'_>) {
    let Some(Pause { by, at, until }) = wanted(draft).cloned() else { return };
    let mut waits = 0;
    if balancer_on(draft) {
        let routed: Vec<ServerId> = draft.routes.keys().cloned().collect();
        let mut stays = |id: &&ServerId| {
            let text = format!("no target of this host is to be registered: it is drained by {by}");
            draft.say(id, Reason { until, ..Reason::new(ReasonKind::LeftAlone, text) });
            !is_out(draft, id)
        };
        waits = routed.iter().filter(|id| stays(id)).count();
        // What is being done for a server may be just this: it wants nothing before it is over.
        waits += draft.input.observed.busy.iter().filter(|id| !routed.contains(id)).count();
    }
    let what = match (&draft.input.observed.balancer, waits) {
        (BalancerSeen::Off(_), _) => {
            "no load balancer is configured, so nothing is taken out; /readyz answers 503, for whatever \
             else sends requests here, and clients that know the address come in as before"
        }
        (BalancerSeen::On(_), 0) => "out of the load balancer; containers and processes run on",
        (BalancerSeen::On(_), _) => "leaving the load balancer; containers and processes run on",
    };
    let text = format!("this host is drained by {by}: {what} (`drain --undo` or `start` brings it back)");
    let reason = Reason { until, ..Reason::new(ReasonKind::Note, text) };
    draft.report.general.push(reason);
    draft.report.drained = Some(Drained { by, at, until, waits });
}

/// Whether nobody comes to a server through this host's targets any more; else its row says what it
/// waits for.
fn is_out(draft: &mut Draft<'_>, id: &ServerId) -> bool {
    let mut out = true;
    for port in ports(draft, id) {
        out &= match standing(draft, id, port) {
            // Nothing was read, and nothing has changed since the last reading.
            Standing::Unknown(_) if left(draft, id) => true,
            Standing::Unknown(why) => {
                draft.read_next.insert(id.clone());
                draft.wait(id, format!("the load balancer: {why}"), None);
                false
            }
            _ => port_drained(draft, id, port, false),
        };
    }
    out
}

/// The last reading found no target of a server, and none is on its way out.
fn left(draft: &Draft<'_>, id: &ServerId) -> bool {
    let memory = &draft.memory.balancer;
    let prefix = format!("{id}:");
    memory.registered.get(id).is_some_and(Vec::is_empty)
        && !memory.draining.keys().any(|key| key.starts_with(&prefix))
}

/// Ports of this host that may be registered for a server.
fn ports(draft: &Draft<'_>, id: &ServerId) -> BTreeSet<HostPort> {
    let lease = draft.memory.leases.get(id);
    let leased = lease.into_iter().flat_map(|lease| [Some(lease.port), lease.next]).flatten();
    let edge = draft.routes.get(id).is_some_and(|want| want.kind == RouteKind::Edge);
    let group = draft.fleet.groups.get(id).filter(|_| !edge);
    let made = group.into_iter().flat_map(|group| group.all().filter_map(|one| one.mark.as_ref()?.port));
    leased.chain(made).collect()
}
