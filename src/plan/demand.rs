//! Servers that start with the first request, and stop when nobody uses them: which of them are to run,
//! and how they come to sleep.
//!
//! ```text
//! asleep   a request waits, or came     awake
//! asleep   it runs, and not for us      awake: somebody started it
//! asleep   another run of the daemon    asleep
//! awake    nobody used it for its time  asleep
//! awake    another run of the daemon    awake; one that starts on demand only if it still runs
//! ```
//! Who stops or starts it by hand is obeyed: `start` wakes it, `stop` holds whoever asks for it.
//!
//! Must never put a server to sleep that is used, paused or under way to another declaration, nor on
//! facts that nobody told.

use crate::model::balancer::{RouteKind, RouteWant};
use crate::model::id::ServerId;
use crate::model::memory::{Memory, Nap};
use crate::model::observed::{ContactState, Container, ContainerState};
use crate::model::op::{EdgeOp, EngineOp, Op};
use crate::model::policy::Ending;
use crate::model::server::{Server, ServerKind};
use crate::model::time::Span;
use crate::plan::containers::forget_start;
use crate::plan::draft::{Draft, refer, runs};
use crate::plan::drain;
use crate::plan::fleet::Group;
use crate::plan::report::{Reason, ReasonKind, RowState};
use crate::plan::runs::{Want, paused, want};

/// Why a server that slept is started.
pub const WOKEN: &str = "somebody asks for it";

/// Whether a server that is to run is asleep.
pub(crate) fn is_asleep(memory: &Memory, server: &Server) -> bool {
    server.may_sleep() && memory.naps.get(&server.id).map_or(server.on_demand, |nap| !nap.awake)
}

/// Why its container is to be started now, when it was woken and has not been since.
pub(crate) fn wake_due(memory: &Memory, id: &ServerId) -> Option<String> {
    let nap = memory.naps.get(id).filter(|nap| nap.awake)?;
    let started = memory.attempts.get(id).and_then(|attempts| attempts.started);
    started.is_none_or(|started| started < nap.since).then(|| WOKEN.to_owned())
}

/// Decides who is awake.
pub(crate) fn settle(draft: &mut Draft<'_>) {
    let (desired, observed, policy) = (draft.input.desired, draft.input.observed, draft.input.policy);
    if policy.ending != Ending::None {
        return;
    }
    draft.memory.naps.retain(|id, _| match desired.servers.get(id) {
        Some(server) => server.may_sleep(),
        None => desired.stale.is_some() || desired.is_broken(id),
    });
    for server in desired.servers.values().filter(|server| server.may_sleep()) {
        let id = &server.id;
        let left = paused(policy, &draft.memory, server, draft.input.now).is_some();
        if left || observed.busy.contains(id) {
            continue;
        }
        let Some(nap) = held(draft, server) else { continue };
        let nap = if matches!(want(policy, &draft.memory, server), Want::Stop { .. }) {
            // As it will be when it may run again.
            Nap { awake: !server.on_demand, idle: false, ..nap }
        } else if nap.awake {
            still_awake(draft, server, nap)
        } else {
            still_asleep(draft, server, nap)
        };
        draft.memory.naps.insert(id.clone(), nap);
    }
}

/// What is remembered, as far as it holds in this run; `None` when what runs is not known.
fn held(draft: &Draft<'_>, server: &Server) -> Option<Nap> {
    let (observed, now) = (draft.input.observed, draft.input.now);
    let old = draft.memory.naps.get(&server.id);
    if let Some(nap) = old
        && observed.run.as_ref().is_none_or(|run| *run == nap.run)
    {
        return Some(nap.clone());
    }
    let runs = runs_now(draft, server)?;
    let awake = old.map_or(!server.on_demand || runs, |nap| nap.awake && (runs || !server.on_demand));
    let started = draft.memory.attempts.get(&server.id).and_then(|attempts| attempts.started);
    let since = match old.filter(|nap| nap.awake == awake) {
        Some(nap) => nap.since,
        None if awake => started.unwrap_or(now),
        None => now,
    };
    let idle = !awake && old.is_some_and(|nap| nap.idle);
    Some(Nap { awake, since, idle, used: 0, run: observed.run.clone().unwrap_or_default() })
}

/// Whether its container runs; `None` when the engine could not be asked.
fn runs_now(draft: &Draft<'_>, server: &Server) -> Option<bool> {
    if !matches!(server.kind, ServerKind::Container(_)) {
        return Some(false);
    }
    draft.input.observed.containers.known()?;
    Some(draft.fleet.groups.get(&server.id).is_some_and(|group| group.all().any(runs)))
}

fn still_asleep(draft: &mut Draft<'_>, server: &Server, nap: Nap) -> Nap {
    let used = draft.input.observed.uses.get(&server.id);
    let wanted = used.is_some_and(|used| used.waiting > 0 || used.busy || used.count > nap.used);
    let started = !nap.idle && runs_now(draft, server) == Some(true);
    if !wanted && !started {
        return nap;
    }
    if wanted {
        draft.say(&server.id, Reason::new(ReasonKind::ChangedBecause, WOKEN));
    }
    Nap { awake: true, since: draft.input.now, idle: false, ..nap }
}

fn still_awake(draft: &mut Draft<'_>, server: &Server, nap: Nap) -> Nap {
    let now = draft.input.now;
    let used = draft.input.observed.uses.get(&server.id).copied();
    let (Some(after), Some(used)) = (server.idle_timeout, used) else { return nap };
    let idle = Span(used.idle.0.min(now.since(nap.since).0));
    let moves = draft.fleet.groups.get(&server.id).is_some_and(|group| {
        // Requests may reach it past the gateway, which then knows nothing of them.
        let route = |main: &Container| main.mark.as_ref().and_then(|mark| mark.route.clone());
        !group.nexts.is_empty() || group.main.and_then(route).is_some_and(|route| route != "edge")
    });
    if used.waiting > 0 || used.busy || moves {
        draft.look_at(now.after(after));
        return nap;
    }
    if idle < after {
        draft.look_at(now.after(Span(after.0.saturating_sub(idle.0))));
        return nap;
    }
    Nap { awake: false, since: now, idle: true, used: used.count, ..nap }
}

/// Its row and its route: it is served, by nobody but the listener that waits for a request.
fn rest(draft: &mut Draft<'_>, server: &Server) -> String {
    let id = &server.id;
    let idle = draft.memory.naps.get(id).is_some_and(|nap| nap.idle);
    let why = match server.idle_timeout.filter(|_| idle) {
        Some(after) => format!("stopped: idle for {after}; the next request starts it"),
        None => "asleep: starts with the first request".to_owned(),
    };
    let row = draft.row(id);
    if row.state != RowState::Blocked {
        row.state = RowState::Asleep;
    }
    (row.asleep, row.route) = (true, Some("edge"));
    draft.say(id, Reason::new(ReasonKind::LeftAlone, why.clone()));
    if draft.input.observed.edges.is_none() {
        draft.note(id, "only the daemon starts it");
    }
    let leaves = draft.input.policy.ending == Ending::Leave || drain::holds(draft);
    let served = draft.input.observed.edges.as_ref().and_then(|edges| edges.get(id)).copied();
    let port = served.filter(|port| !leaves && Some(*port) == draft.port(id));
    let container = matches!(server.kind, ServerKind::Container(_));
    let want = RouteWant {
        server: id.clone(),
        kind: RouteKind::Edge,
        ports: port.into_iter().collect(),
        health_path: server.health.path.clone().filter(|_| container),
    };
    draft.offer(want);
    why
}

/// A container that sleeps, or is to: requests are held first, then it is stopped. It stays behind
/// the load balancer, since the next request starts it.
pub(crate) fn container(draft: &mut Draft<'_>, server: &Server, group: &Group<'_>) {
    let id = &server.id;
    let why = rest(draft, server);
    let made = group.main.and_then(|main| main.mark.as_ref()).and_then(|mark| mark.transport);
    draft.row(id).transport = made;
    let running: Vec<&Container> = group.all().filter(|container| runs(container)).collect();
    let ending = draft.input.policy.ending != Ending::None;
    let main = group.main.or_else(|| group.nexts.first().copied());
    let others = group.nexts.iter().filter(|next| main.is_some_and(|main| main.id != next.id));
    let unwanted = "a replacement that is no longer wanted";
    if running.is_empty() {
        for next in others.filter(|_| !ending) {
            draft.stop_and_remove(id, next, Some(Vec::new()), unwanted, &[]);
        }
        forget_start(draft, id);
        return;
    }
    if draft.input.observed.edges.is_none() || ending {
        return;
    }
    let Some(let_go) = let_go(draft, id, &why) else { return };
    for next in others {
        draft.stop_and_remove(id, next, Some(Vec::new()), unwanted, &[let_go]);
    }
    let kept = |one: &&Container| main.is_none_or(|main| main.id == one.id);
    for container in running.into_iter().filter(kept) {
        if container.state != ContainerState::Restarting {
            draft.engine(id, EngineOp::Stop(refer(container)), &why, &[let_go]);
        }
    }
    forget_start(draft, id);
}

/// A process that sleeps, or is to.
pub(crate) fn process(draft: &mut Draft<'_>, server: &Server) {
    let why = rest(draft, server);
    draft.memory.recoveries.remove(&server.id);
    let contact = draft.input.observed.contacts.as_ref().and_then(|contacts| contacts.get(&server.id));
    let up = contact.is_some_and(|contact| contact.state == ContactState::Up);
    if up && draft.input.policy.ending == Ending::None {
        let _last = let_go(draft, &server.id, &why);
    }
}

/// Has the gateway hold requests from now on.
fn let_go(draft: &mut Draft<'_>, id: &ServerId, why: &str) -> Option<usize> {
    let uses = draft.memory.naps.get(id)?.used;
    Some(draft.act(Some(id), Op::Edge(EdgeOp::Sleep { server: id.clone(), uses }), why, &[]))
}
