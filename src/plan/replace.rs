//! A changed declaration: the gentlest way from the old container to the new one that is safe.
//!
//! ```text
//! start-first  edge servers           new starts beside old, takes over when ready       no gap
//! port-move    direct behind the ALB  new on a second lease, registered, healthy,
//!                                     old drained; the new port stays                    no gap
//! stop-first   everything else        new made first, old stopped, new started           seconds
//! ```
//! Every step is read off the engine (which of the two exists and runs), so a crash of this
//! process at any point goes on where it was. A new container that does not come up goes, the old
//! one stays or comes back, and the next try waits.
//! Must never remove the old container before the new one was seen to be ready.

use crate::model::balancer::{BalancerSeen, Owner, Standing};
use crate::model::fingerprint::Likeness;
use crate::model::id::ServerId;
use crate::model::memory::Lease;
use crate::model::net::HostPort;
use crate::model::observed::{Container, ContainerState, Seen};
use crate::model::op::{ContainerRef, EdgeOp, EngineOp, Op};
use crate::model::server::{PullPolicy, ServerKind};
use crate::model::time::Span;
use crate::plan::containers::{Site, balancer_on, port_drained, standing, want_route};
use crate::plan::draft::{Draft, exclusive, refer, runs};
use crate::plan::ports::Free;
use crate::plan::report::{Reason, ReasonKind};
use crate::plan::steady::{self, Made, Ready};
use crate::plan::{depends, drain, images, oom, ports, recovery, replicas};
use std::collections::BTreeSet;

/// First wait after a replacement that failed; doubles.
const RETRY_DELAY: Span = Span::secs(15);
/// Longest wait after a replacement that failed.
const RETRY_DELAY_MAX: Span = Span::secs(900);
/// How long the load balancer may take to find a new target healthy, beyond the start period.
const HEALTHY_WITHIN: Span = Span::secs(180);

/// The wait before the next try after `failures` failures in a row.
#[must_use]
pub fn retry_delay(failures: u32) -> Span {
    let doublings = failures.saturating_sub(1);
    RETRY_DELAY.times_capped(1_u64.checked_shl(doublings).unwrap_or(u64::MAX), RETRY_DELAY_MAX)
}

/// The host port that a container itself publishes: one behind the gateway has none.
fn old_port(main: &Container) -> Option<HostPort> {
    let mark = main.mark.as_ref()?;
    let direct = mark.route.as_deref().is_some_and(|route| route != "edge");
    mark.port.filter(|_| direct)
}

/// Whether requests come through the load balancer to `port`: a rule of ours leads to the server
/// and the port is in a group of ours, or it is not known.
fn routed(draft: &Draft<'_>, id: &ServerId, port: HostPort) -> bool {
    if standing(draft, id, port) == Standing::Absent {
        return false;
    }
    match &draft.input.observed.balancer {
        BalancerSeen::Off(_) => false,
        BalancerSeen::On(Seen::Unknown(_)) => true,
        BalancerSeen::On(Seen::Known(view)) => view.rules.iter().any(
            |rule| matches!(&rule.owner, Owner::Ours { server: Some(server), .. } if server == id.as_str()),
        ),
    }
}

/// Which way a replacement goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    StartFirst,
    StopFirst,
    PortMove,
}

/// Counts replacements in flight and replacements that failed, before any new one begins.
pub(crate) fn count(draft: &mut Draft<'_>) {
    for (id, server) in &draft.input.desired.servers {
        let ServerKind::Container(decl) = &server.kind else { continue };
        let Some(group) = draft.fleet.groups.get(id).filter(|group| group.main.is_some()) else { continue };
        if !group.nexts.is_empty() {
            draft.in_flight.insert(id.clone());
        }
        let attempts = draft.memory.attempts.get(id);
        if attempts.is_some_and(|a| {
            a.failures > 0 && a.failed_spec.as_deref() == Some(decl.fingerprint.short().as_str())
        }) {
            draft.failed.insert(id.clone());
        }
    }
}

/// Why a container is not what is wanted; `None` when it is.
pub(crate) fn change(draft: &mut Draft<'_>, site: &Site<'_>, container: &Container) -> Option<String> {
    let id = &site.server.id;
    if container.state == ContainerState::Dead {
        return Some("the engine cannot start its container again".to_owned());
    }
    if let Some(why) = recovery::anew(draft, id, container) {
        return Some(why);
    }
    let mark = container.mark.as_ref()?;
    let Some(made_from) = &mark.fingerprint else {
        return Some("the spec hash on its label cannot be read".to_owned());
    };
    match site.decl.fingerprint.likeness(made_from) {
        Likeness::Changed => return Some("its declaration changed".to_owned()),
        Likeness::SecretsChanged => return Some("an environment value or a secret changed".to_owned()),
        Likeness::SameButSecretsUnknown => {
            draft.note(id, "made with another key: whether its environment changed cannot be told; restart-server makes it anew");
        }
        Likeness::Same => {}
    }
    if let Some(why) = oom::change(draft, id, mark) {
        return Some(why);
    }
    let (was, is) = (mark.route.clone().unwrap_or_default(), steady::route_label(site));
    if was != is {
        return Some(format!("its route was '{was}' and is '{is}'"));
    }
    let next = draft.memory.leases.get(id).and_then(|lease| lease.next);
    if site.direct.is_some() && mark.port != site.port && (mark.port.is_none() || mark.port != next) {
        let was = mark.port.map_or_else(|| "unknown".to_owned(), |port| port.to_string());
        let is = site.port.map_or_else(String::new, |port| port.to_string());
        return Some(format!("its host port was {was} and is {is}"));
    }
    newer_image(draft, site, container)
}

/// With `pull = always`, a restart by hand fetches, and a newer image replaces the container.
fn newer_image(draft: &mut Draft<'_>, site: &Site<'_>, container: &Container) -> Option<String> {
    if site.server.pull != PullPolicy::Always {
        return None;
    }
    let id = &site.server.id;
    let fetched = draft.memory.pins.get(id).is_some_and(|pin| pin.pulled.is_some());
    if !fetched && crate::plan::runs::restart_due(&draft.memory, id).is_none() {
        return None;
    }
    let image = images::choose(draft, site.server, site.decl)?;
    (image.id != container.image).then(|| format!("a newer image of {} was fetched", site.decl.spec.image))
}

/// Takes the next step from `main` to the wanted declaration.
pub(crate) fn replace(draft: &mut Draft<'_>, site: &Site<'_>, main: &Container, why: &str) {
    let id = &site.server.id;
    draft.say(id, Reason::new(ReasonKind::ChangedBecause, why.to_owned()));
    if main.state == ContainerState::Paused {
        // It serves until the new one is there, which may take long.
        draft.engine(id, EngineOp::Unpause(refer(main)), "paused by somebody", &[]);
        return;
    }
    if steady::held_back(draft, id, site.decl) {
        return bring_back(draft, site, main);
    }
    let next = site.group.nexts.iter().copied().find(|next| change(draft, site, next).is_none());
    for other in site.group.nexts.iter().filter(|other| next.is_none_or(|next| next.id != other.id)) {
        draft.stop_and_remove(id, other, Some(Vec::new()), "a replacement that is no longer wanted", &[]);
    }
    match next {
        None => begin(draft, site, main),
        Some(next) => go_on(draft, site, main, next),
    }
}

/// The last try failed: the old container serves until the next try.
fn bring_back(draft: &mut Draft<'_>, site: &Site<'_>, main: &Container) {
    let id = &site.server.id;
    drop_second_lease(draft, id);
    for next in &site.group.nexts {
        draft.stop_and_remove(id, next, Some(Vec::new()), "the replacement did not come up", &[]);
    }
    if is_down(main) {
        let attempts = draft.memory.attempts.get(id).cloned().unwrap_or_default();
        let due = attempts
            .started
            .map(|at| at.after(steady::restart_delay(&site.server.restart, attempts.crashes)));
        if let Some(due) = due.filter(|due| *due > draft.input.now) {
            return draft.wait(id, "the next start of the old container", Some(due));
        }
        start_old(draft, id, main, &[]);
        draft.attempts(id).crashes = attempts.crashes.saturating_add(1);
    } else {
        draft.say(id, Reason::new(ReasonKind::LeftAlone, "the old container serves until the next try"));
    }
}

/// Whether the old container was stopped for the new one, or ended meanwhile.
const fn is_down(main: &Container) -> bool {
    matches!(main.state, ContainerState::Exited(_) | ContainerState::Created)
}

fn start_old(draft: &mut Draft<'_>, id: &ServerId, main: &Container, after: &[usize]) {
    let why = "the replacement did not come up: the old container comes back";
    steady::start(draft, id, refer(main), why, after);
}

fn drop_second_lease(draft: &mut Draft<'_>, id: &ServerId) {
    if let Some(lease) = draft.memory.leases.get_mut(id) {
        lease.next = None;
    }
}

/// The gentlest safe way, and what gap to expect.
fn way(draft: &Draft<'_>, site: &Site<'_>, main: &Container, carried: bool) -> (Way, String) {
    if let Some(why) = exclusive(&site.decl.spec) {
        return (Way::StopFirst, format!("stop-first: {why}; a gap of seconds"));
    }
    if carried {
        return (
            Way::StopFirst,
            "stop-first: its anonymous volumes move to the new container; a gap of seconds".to_owned(),
        );
    }
    if site.direct.is_none() {
        return (
            Way::StartFirst,
            "start-first: the new container takes over when it is up; no gap".to_owned(),
        );
    }
    let Some(own) = site.port else {
        return (Way::StopFirst, "stop-first: it has no host port; a gap of seconds".to_owned());
    };
    let fixed = draft.memory.leases.get(&site.server.id).is_some_and(|lease| lease.fixed);
    if fixed {
        return (Way::StopFirst, "stop-first: the file fixes its host port; a gap of seconds".to_owned());
    }
    let port = old_port(main);
    let moving =
        site.group.nexts.iter().any(|next| next.mark.as_ref().and_then(|mark| mark.port) != Some(own));
    let routed = routed(draft, &site.server.id, own);
    let balanced = balancer_on(draft) && !drain::holds(draft);
    if balanced && port == Some(own) && ((runs(main) && routed) || moving) {
        return (
            Way::PortMove,
            "port-move: the new container is registered and healthy before the old one is drained; no gap"
                .to_owned(),
        );
    }
    (Way::StopFirst, "stop-first: clients use its host port; a gap of seconds".to_owned())
}

/// Whether another replacement may begin. Where nothing runs, nothing is at risk: a roll-out that
/// has stopped does not keep such a server down.
fn may_begin(draft: &mut Draft<'_>, site: &Site<'_>, main: &Container) -> bool {
    let id = &site.server.id;
    if runs(main) && replicas::waits_for_others(draft, site.server, &site.decl.fingerprint.short()) {
        return false;
    }
    let policy = draft.input.policy;
    // A declaration that fails does so once, however many instances are made from it.
    let others: BTreeSet<ServerId> = draft.failed.iter().map(ServerId::server).collect();
    let failed: Vec<String> =
        others.iter().filter(|other| **other != id.server()).map(ToString::to_string).collect();
    if failed.len() >= policy.rollout_failures_max && runs(main) {
        let text = format!(
            "the roll-out, stopped after {} failed replacements ({})",
            failed.len(),
            failed.join(", ")
        );
        draft.say(id, Reason::new(ReasonKind::WaitingOn, text).code("MCPO-P050"));
        return false;
    }
    if !draft.in_flight.contains(id) && draft.in_flight.len() >= policy.replacements_max {
        draft.wait(id, format!("its turn: {} replacements are in flight", draft.in_flight.len()), None);
        return false;
    }
    true
}

/// Makes the new container.
fn begin(draft: &mut Draft<'_>, site: &Site<'_>, main: &Container) {
    let (id, now) = (&site.server.id, draft.input.now);
    if !may_begin(draft, site, main) || (!runs(main) && depends::must_wait(draft, site.server)) {
        return;
    }
    let Some(image) = site.image.clone().or_else(|| images::choose(draft, site.server, site.decl)) else {
        return;
    };
    let Some(details) = steady::details(draft, main) else {
        draft.wait(id, "details of the old container", None);
        return;
    };
    let carried = details.anonymous_volumes;
    let (mut way, mut gap) = way(draft, site, main, !carried.is_empty());
    let name = format!("{}-N{}", site.name, site.decl.fingerprint.short());
    if draft.fleet.names.contains_key(name.as_str()) {
        if site.group.nexts.iter().any(|next| next.name == name) {
            draft.wait(id, format!("{name} to be removed"), None);
        } else {
            draft.block(id, "MCPO-P030", format!("a container that is not ours has the name {name}"));
        }
        return;
    }
    if way == Way::StopFirst && runs(main) && replicas::is_last(draft, site.server) {
        return;
    }
    let mut port = site.port;
    if way == Way::PortMove {
        match ports::free_port(draft) {
            Free::Unknown(why) => return draft.wait(id, why, None),
            Free::Port(second) => {
                if let Some(lease) = draft.memory.leases.get_mut(id) {
                    lease.next = Some(second);
                }
                port = Some(second);
            }
            Free::None => {
                (way, gap) =
                    (Way::StopFirst, "stop-first: no second port is free; a gap of seconds".to_owned());
            }
        }
    }
    draft.note(id, gap);
    let made = steady::create(draft, site, &image, Made { name: name.clone(), port, carried }, &[]);
    draft.in_flight.insert(id.clone());
    let new = ContainerRef::Planned(name);
    match way {
        Way::StartFirst | Way::PortMove => {
            steady::start(draft, id, new, "its declaration changed", &[made]);
        }
        Way::StopFirst if runs(main) => {
            if may_stop_old(draft, site, main) {
                let stop = draft.engine(
                    id,
                    EngineOp::Stop(refer(main)),
                    "the new container takes its place",
                    &[made],
                );
                steady::start(draft, id, new, "its declaration changed", &[stop]);
            } else {
                draft.look_at(now.after(Span::secs(1)));
            }
        }
        Way::StopFirst => {
            steady::start(draft, id, new, "its declaration changed", &[made]);
        }
    }
}

/// Stop-first behind a load balancer: no request may still be on its way.
fn may_stop_old(draft: &mut Draft<'_>, site: &Site<'_>, main: &Container) -> bool {
    if site.direct.is_none() || !balancer_on(draft) {
        return true;
    }
    let Some(port) = main.mark.as_ref().and_then(|mark| mark.port) else { return true };
    want_route(draft, site, Vec::new());
    port_drained(draft, &site.server.id, port, false)
}

/// The new container exists: start it, wait for it, let it take over, or give it up.
fn go_on(draft: &mut Draft<'_>, site: &Site<'_>, main: &Container, next: &Container) {
    let id = &site.server.id;
    let carried = next.mark.as_ref().is_some_and(|mark| !mark.volumes.is_empty());
    let (way, gap) = way(draft, site, main, carried);
    draft.note(id, gap);
    match next.state {
        ContainerState::Created => {
            if way == Way::StopFirst && runs(main) {
                if may_stop_old(draft, site, main) {
                    let stop = draft.engine(
                        id,
                        EngineOp::Stop(refer(main)),
                        "the new container takes its place",
                        &[],
                    );
                    steady::start(draft, id, refer(next), "its declaration changed", &[stop]);
                }
            } else {
                steady::start(draft, id, refer(next), "its declaration changed", &[]);
            }
        }
        ContainerState::Running(_) => wait_until_ready(draft, site, main, next, way),
        ContainerState::Paused => {
            draft.engine(id, EngineOp::Unpause(refer(next)), "paused by somebody", &[]);
        }
        ContainerState::Exited(code) => {
            give_up(draft, site, main, next, &format!("the new container ended with exit code {code}"));
        }
        ContainerState::Dead => give_up(draft, site, main, next, "the new container is dead"),
        ContainerState::Restarting | ContainerState::Removing => {
            draft.wait(
                id,
                "the engine to finish with the new container",
                Some(draft.input.now.after(Span::secs(1))),
            );
        }
    }
}

fn wait_until_ready(draft: &mut Draft<'_>, site: &Site<'_>, main: &Container, next: &Container, way: Way) {
    let (id, now) = (&site.server.id, draft.input.now);
    let port = next.mark.as_ref().and_then(|mark| mark.port).or(site.port);
    let started = draft.memory.attempts.get(id).and_then(|attempts| attempts.started);
    if started.is_none() {
        // The memory of its start is lost: its time begins now.
        draft.attempts(id).started = Some(now);
    }
    let deadline = started.unwrap_or(now).after(site.server.health.start_period);
    match steady::ready(draft, site, next, port) {
        Ready::Asked => draft.wait(id, "a first connection to the new container", None),
        Ready::NotYet(what, _) if now >= deadline => {
            give_up(
                draft,
                site,
                main,
                next,
                &format!("not ready within {}: {what}", site.server.health.start_period),
            );
        }
        Ready::NotYet(what, again) => draft.wait(id, what, Some(again.min(deadline))),
        Ready::Yes if way == Way::PortMove && old_port(main) != port => {
            // Only what has a port moves from one to another.
            if let Some(port) = port {
                move_port(draft, site, main, next, port);
            }
        }
        // It moved from port to port when this host began to be drained.
        Ready::Yes if drain::holds(draft) && !may_stop_old(draft, site, main) => {}
        Ready::Yes => take_over(draft, site, main, next),
    }
}

/// Registered beside the old one, healthy, then the old one drained.
fn move_port(draft: &mut Draft<'_>, site: &Site<'_>, main: &Container, next: &Container, new: HostPort) {
    let (id, now) = (&site.server.id, draft.input.now);
    let old = main.mark.as_ref().and_then(|mark| mark.port).or(site.port).unwrap_or(new);
    let started = draft.memory.attempts.get(id).and_then(|attempts| attempts.started).unwrap_or(now);
    let deadline = started.after(Span(site.server.health.start_period.0.saturating_add(HEALTHY_WITHIN.0)));
    match standing(draft, id, new) {
        // Nothing comes through the load balancer: there is nobody to lose.
        _ if !routed(draft, id, old) => take_over(draft, site, main, next),
        Standing::Healthy => {
            want_route(draft, site, vec![new]);
            if port_drained(draft, id, old, false) {
                take_over(draft, site, main, next);
            }
        }
        Standing::Unknown(why) => {
            draft.read_next.insert(id.clone());
            want_route(draft, site, vec![old, new]);
            draft.wait(id, format!("the load balancer: {why}"), None);
        }
        _ if now >= deadline => {
            want_route(draft, site, vec![old]);
            give_up(draft, site, main, next, "the load balancer did not find the new container healthy");
        }
        standing => {
            want_route(draft, site, vec![old, new]);
            let why = match standing {
                Standing::Unhealthy(why) | Standing::Pending(why) => {
                    format!("the load balancer to find port {new} healthy: {why}")
                }
                _ => format!("the load balancer to find port {new} healthy"),
            };
            draft.wait(id, why, Some(deadline.min(now.after(Span::secs(2)))));
        }
    }
}

/// The new one is ready: it gets the requests, the old one goes, the new one gets the name.
fn take_over(draft: &mut Draft<'_>, site: &Site<'_>, main: &Container, next: &Container) {
    let id = &site.server.id;
    let Ok(handed_over) = hand_over(draft, site, main, next) else { return };
    let after: Vec<usize> = handed_over.into_iter().collect();
    let gone = draft.stop_and_remove(id, main, None, "the new container is ready", &after);
    let rename = EngineOp::Rename { container: refer(next), to: site.name.clone() };
    draft.engine(id, rename, "the new container takes the server's name", &[gone]);
    adopt_port(draft, id, next);
    draft.look_at(draft.input.now);
}

/// What the row waits for before a container may take over.
struct Wait;

/// Behind the gateway requests move to the new container while both run; the index of that effect,
/// or none where nobody's requests come through this process.
fn hand_over(
    draft: &mut Draft<'_>,
    site: &Site<'_>,
    main: &Container,
    next: &Container,
) -> Result<Option<usize>, Wait> {
    let id = &site.server.id;
    let Some(served) = draft.input.observed.edges.as_ref().filter(|_| site.direct.is_none()) else {
        return Ok(None);
    };
    if served.contains_key(&id.server()) {
        let op = EdgeOp::HandOver { server: id.clone(), container: refer(next) };
        return Ok(Some(draft.act(Some(id), Op::Edge(op), "the new container is ready", &[])));
    }
    // A process that has just begun opens the listener first, so that the requests that come then
    // are handed over as well. One whose port is taken would wait for ever.
    let taken = draft.memory.attempts.get(&id.server()).is_some_and(|attempts| attempts.port_taken.is_some());
    if taken || old_port(main).is_some() || !runs(main) {
        return Ok(None);
    }
    draft.wait(id, "its listener, to hand requests over to the new container", None);
    Err(Wait)
}

/// The ledger follows the container that took over.
pub(crate) fn adopt_port(draft: &mut Draft<'_>, id: &ServerId, container: &Container) {
    let port = container.mark.as_ref().and_then(|mark| mark.port);
    let since = draft.input.now;
    if let Some(lease) = draft.memory.leases.get_mut(id)
        && let Some(port) = port.filter(|port| lease.next == Some(*port))
    {
        *lease = Lease { port, next: None, since, fixed: false };
    }
}

/// The new container does not come up: it goes, the old one comes back, the next try waits.
fn give_up(draft: &mut Draft<'_>, site: &Site<'_>, main: &Container, next: &Container, error: &str) {
    let (id, now) = (&site.server.id, draft.input.now);
    if let Some(port) = next.mark.as_ref().and_then(|mark| mark.port).filter(|port| Some(*port) != site.port)
        && balancer_on(draft)
        && !port_drained(draft, id, port, true)
    {
        return;
    }
    let short = site.decl.fingerprint.short();
    let attempts = draft.attempts(id);
    attempts.failures =
        if attempts.failed_spec.as_deref() == Some(&short) { attempts.failures + 1 } else { 1 };
    let again = now.after(retry_delay(attempts.failures));
    attempts.failed_spec = Some(short);
    attempts.next_try = Some(again);
    attempts.last_error = Some(error.to_owned());
    drop_second_lease(draft, id);
    draft.failed.insert(id.clone());
    let text = format!("{error}; the old container stays, next try in {}", again.since(now));
    draft.say(id, Reason::new(ReasonKind::WaitingOn, text).code("MCPO-P051").until(again));
    let removed = draft.stop_and_remove(id, next, Some(Vec::new()), error, &[]);
    if is_down(main) {
        start_old(draft, id, main, &[removed]);
    }
}
