//! What comes first: sections that others depend on, then higher priorities; at the end the other way
//! round.
//!
//! ```text
//! section it depends on    it does not run              it runs
//! up                       it is started                -
//! down                     waits, for a bounded time    runs on; where it ends it waits
//! down for longer          started all the same         as without
//! ```
//! A section is up when all its servers are that shall run: those that are disabled do not count, those
//! that were stopped by hand are down, those that ended well and are left so are up. Whoever stops a server
//! by hand, or all, or ends the daemon with `on_shutdown = stop`: what depends on others stops before they
//! do, a lower priority before a higher one.
//!
//! Must never make anything wait without end: the wait is bounded by a setting, an order of stops only
//! counts servers that stop whatever the load balancer says.

use crate::model::desired::Desired;
use crate::model::health::State;
use crate::model::id::SectionId;
use crate::model::observed::{ContactState, ContainerState};
use crate::model::policy::Ending;
use crate::model::server::{RestartWhen, Server, ServerKind};
use crate::plan::draft::{Draft, runs};
use crate::plan::replicas;
use crate::plan::report::{Hold, Reason, ReasonKind};
use crate::plan::runs::{Want, paused, want};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// The code of a wait for a section, and of its end.
const WAITS: &str = "MCPO-P046";

/// Where a server stands in the order: lower ones start first and stop last.
pub(crate) type Rank = (usize, Reverse<i32>);

/// What [`prepare`] found out for all servers.
#[derive(Debug, Default)]
pub(crate) struct Order {
    /// How many sections stand below those that are depended on, or depend themselves.
    depths: BTreeMap<SectionId, usize>,
    /// The highest rank of a server that is to be stopped and still runs.
    stops: Option<Rank>,
    /// Why sections are down; `None` for those that are up. Filled in as it is asked for.
    down: BTreeMap<SectionId, Option<String>>,
}

/// Finds the order out, before the first server is decided on.
pub(crate) fn prepare(draft: &mut Draft<'_>) {
    draft.order.depths = depths(draft.input.desired);
    let desired = draft.input.desired;
    draft.memory.waits.retain(|id, _| {
        let depends = |server: &Server| !server.depends_on.is_empty();
        desired.stale.is_some() || desired.servers.get(id).is_some_and(depends)
    });
    let ending = draft.input.policy.ending == Ending::Stop;
    if !ending && draft.memory.intents.values().all(|intent| intent.run) {
        return;
    }
    let (policy, now) = (draft.input.policy, draft.input.now);
    let stops = |server: &&Server| {
        let stop = matches!(want(policy, &draft.memory, server), Want::Stop { by_hand: true, .. });
        stop && paused(policy, &draft.memory, server, now).is_none() && still_runs(draft, server)
    };
    draft.order.stops = desired.servers.values().filter(stops).map(|server| rank(draft, server)).max();
}

/// How deep sections stand; sections that nobody depends on are not in it.
fn depths(desired: &Desired) -> BTreeMap<SectionId, usize> {
    let waiting: Vec<&Server> = desired.servers.values().filter(|one| !one.depends_on.is_empty()).collect();
    let mut depths: BTreeMap<SectionId, usize> =
        waiting.iter().flat_map(|server| &server.depends_on).map(|section| (section.clone(), 0)).collect();
    // One round for each step of the longest way; the configuration lets no circle through.
    for _round in 0..depths.len() {
        let mut deeper = false;
        for server in &waiting {
            let depth = below(&depths, server);
            if let Some(known) = server.section.as_ref().and_then(|section| depths.get_mut(section))
                && *known < depth
            {
                *known = depth;
                deeper = true;
            }
        }
        if !deeper {
            break;
        }
    }
    depths
}

fn below(depths: &BTreeMap<SectionId, usize>, server: &Server) -> usize {
    server
        .depends_on
        .iter()
        .filter_map(|section| depths.get(section))
        .map(|depth| depth + 1)
        .max()
        .unwrap_or(0)
}

/// Where a server stands in the order.
pub(crate) fn rank(draft: &Draft<'_>, server: &Server) -> Rank {
    (below(&draft.order.depths, server), Reverse(server.priority))
}

/// All servers in the order in which they start.
pub(crate) fn in_order<'a>(draft: &Draft<'a>) -> Vec<&'a Server> {
    let servers = draft.input.desired.servers.values();
    let mut order: Vec<(Rank, &Server)> = servers.map(|server| (rank(draft, server), server)).collect();
    // They come in the order of their ids, and keep it.
    order.sort_by_key(|(rank, _)| *rank);
    order.into_iter().map(|(_, server)| server).collect()
}

fn still_runs(draft: &Draft<'_>, server: &Server) -> bool {
    let contained = draft.fleet.groups.get(&server.id).is_some_and(|group| group.all().any(runs));
    let outside = !matches!(server.kind, ServerKind::Container(_));
    let contacts = draft.input.observed.contacts.as_ref().filter(|_| outside);
    let contact = contacts.and_then(|contacts| contacts.get(&server.id));
    contained || contact.is_some_and(|contact| contact.state == ContactState::Up)
}

/// Whether a server that is to be stopped by hand may stop, or others stop first: then its row says so.
pub(crate) fn may_stop(draft: &mut Draft<'_>, server: &Server) -> bool {
    let first = draft.order.stops.is_none_or(|first| rank(draft, server) >= first);
    if first || !still_runs(draft, server) {
        return true;
    }
    draft.wait(&server.id, "servers of a lower priority, and those that depend on it, to stop first", None);
    draft.keep.insert(server.id.clone());
    false
}

/// Forgets the wait of a server whose sections are up.
pub(crate) fn refresh(draft: &mut Draft<'_>, server: &Server) {
    if draft.memory.waits.contains_key(&server.id) && down(draft, server).is_none() {
        draft.memory.waits.remove(&server.id);
    }
}

/// Whether a server that is to be started must wait for a section; its row says for which, and when it
/// does not any more although that is down.
pub(crate) fn must_wait(draft: &mut Draft<'_>, server: &Server) -> bool {
    let (id, now, wait) = (&server.id, draft.input.now, draft.input.policy.dependency_wait);
    let Some((section, why)) = down(draft, server) else {
        draft.memory.waits.remove(id);
        return false;
    };
    let since = *draft.memory.waits.entry(id.clone()).or_insert(now);
    let until = since.after(wait);
    if now < until {
        let text = format!("section {section}, which it depends on, to be up: {why}");
        draft.say(id, Reason::new(ReasonKind::WaitingOn, text).code(WAITS).until(until));
        return true;
    }
    let text = format!("it goes on without section {section}, which is not up after {wait}: {why}");
    draft.say(id, Reason::new(ReasonKind::Note, text).code(WAITS));
    false
}

/// What whoever runs a process must know: whether it may be started, and whether it is started again
/// where it ends.
pub(crate) fn hold(draft: &mut Draft<'_>, server: &Server, up: bool) -> Hold {
    if server.depends_on.is_empty() {
        return Hold::No;
    }
    if !up {
        return if must_wait(draft, server) { Hold::Start } else { Hold::No };
    }
    let (now, wait) = (draft.input.now, draft.input.policy.dependency_wait);
    let waited = draft.memory.waits.get(&server.id).is_some_and(|since| now >= since.after(wait));
    if !waited && down(draft, server).is_some() { Hold::Ends } else { Hold::No }
}

/// The first section that a server depends on and that is down, and why. To be asked of a server once
/// those of lower ranks are decided on.
fn down(draft: &mut Draft<'_>, server: &Server) -> Option<(SectionId, String)> {
    server.depends_on.iter().find_map(|section| {
        if !draft.order.down.contains_key(section) {
            let why = why_down(draft, section);
            draft.order.down.insert(section.clone(), why);
        }
        let why = draft.order.down.get(section).cloned().flatten()?;
        Some((section.clone(), why))
    })
}

fn why_down(draft: &Draft<'_>, section: &SectionId) -> Option<String> {
    let servers = draft.input.desired.servers.values();
    let mut within = servers.filter(|server| server.section.as_ref() == Some(section));
    within.find_map(|server| match want(draft.input.policy, &draft.memory, server) {
        // One that sleeps starts as soon as it is asked for something.
        Want::Stop { by_hand: false, .. } | Want::Sleep => None,
        Want::Stop { why, by_hand: true } => Some(format!("{} is {why}", server.id)),
        // One instance that is up is enough.
        Want::Run if replicas::siblings(draft, server).any(|one| not_up(draft, one).is_none()) => None,
        Want::Run => not_up(draft, server).map(|why| format!("{} {why}", server.id)),
    })
}

/// Why a server that shall run is not up; `None` also where that cannot be told.
fn not_up(draft: &Draft<'_>, server: &Server) -> Option<&'static str> {
    let id = &server.id;
    let why = match &server.kind {
        ServerKind::Container(_) => container_not_up(draft, server),
        ServerKind::Process(_) | ServerKind::Remote(_) => {
            // Nobody here starts it.
            let contacts = draft.input.observed.contacts.as_ref()?;
            match contacts.get(id).map(|contact| &contact.state) {
                // Left so on purpose: there is nothing to wait for.
                Some(ContactState::Up | ContactState::Left(_)) => None,
                _ => Some("does not answer yet"),
            }
        }
    };
    let attempts = draft.memory.attempts.get(id);
    let ill = |seen: &&crate::model::health::Condition| {
        let before = attempts.and_then(|attempts| attempts.started).is_some_and(|at| seen.health.judged < at);
        let bad = matches!(seen.health.state, State::Unhealthy | State::Critical);
        bad && !before && !seen.health.is_stale(draft.input.now, &server.health)
    };
    why.or_else(|| draft.input.observed.health.get(id).filter(ill).map(|_| "does not answer"))
}

fn container_not_up(draft: &Draft<'_>, server: &Server) -> Option<&'static str> {
    draft.input.observed.containers.known()?;
    let main = draft.fleet.groups.get(&server.id).and_then(|group| group.main);
    let Some(main) = main else { return Some("has no container yet") };
    match main.state {
        ContainerState::Running(_) => {
            let attempts = draft.memory.attempts.get(&server.id);
            let starting = attempts.is_some_and(|attempts| attempts.started.is_some() && !attempts.up);
            starting.then_some("is starting")
        }
        // It has done what it was for.
        ContainerState::Exited(0) if server.restart.when != RestartWhen::Always => None,
        _ => Some("does not run"),
    }
}
