//! A server whose container is the one that is wanted, or that has none yet: create, start, wait
//! until it is up, start again after a crash.
//!
//! The first restart after a crash has no delay; from the second on the delay doubles up to a cap,
//! and a stable time forgets it all.

use crate::model::id::ServerId;
use crate::model::mark::{Mark, Role};
use crate::model::memory::Attempts;
use crate::model::net::HostPort;
use crate::model::observed::{Container, ContainerHealth, ContainerState, Details, Question, Seen};
use crate::model::op::{ContainerRef, Create, EngineOp, Publish};
use crate::model::server::{ContainerDecl, RestartPolicy, RestartWhen};
use crate::model::time::{Span, Timestamp};
use crate::plan::containers::Site;
use crate::plan::demand::wake_due;
use crate::plan::draft::{Draft, refer};
use crate::plan::images::{self, Chosen};
use crate::plan::report::{Reason, ReasonKind, RowState};
use crate::plan::runs::restart_due;
use crate::plan::{depends, ends, oom, recovery, replace, replicas};

/// Between two looks at a port that accepts no connection yet.
const REACH_AGAIN: Span = Span::millis(500);

/// The delay before restart number `crashes` (0 is the first).
#[must_use]
pub(crate) fn restart_delay(policy: &RestartPolicy, crashes: u32) -> Span {
    match crashes {
        0 => Span::ZERO,
        n => policy.delay.times_capped(1_u64.checked_shl(n - 1).unwrap_or(u64::MAX), policy.delay_max),
    }
}

/// No container has the server's name: take the replacement that got stuck half way, or make one.
pub(crate) fn without_main(draft: &mut Draft<'_>, site: &Site<'_>) {
    let id = &site.server.id;
    let usable = |next: &&Container| !matches!(next.state, ContainerState::Dead | ContainerState::Removing);
    let good = site
        .group
        .nexts
        .iter()
        .copied()
        .filter(usable)
        .find(|next| replace::change(draft, site, next).is_none());
    // Another one of the server's is its old container, renamed by somebody: it gets its name back
    // and is replaced the gentle way, with what is in its volumes.
    if let Some(next) = good.or_else(|| site.group.nexts.iter().copied().find(usable)) {
        let op = EngineOp::Rename { container: refer(next), to: site.name.clone() };
        draft.engine(id, op, "the replacement takes the server's name", &[]);
        replace::adopt_port(draft, id, next);
        draft.look_at(draft.input.now);
        return;
    }
    if held_back(draft, id, site.decl) || depends::must_wait(draft, site.server) {
        return;
    }
    let Some(image) = site.image.clone().or_else(|| images::choose(draft, site.server, site.decl)) else {
        return;
    };
    draft.say(id, Reason::new(ReasonKind::ChangedBecause, "it has no container"));
    let dead: Vec<&Container> =
        site.group.nexts.iter().copied().filter(|next| next.state == ContainerState::Dead).collect();
    let mut carried = Vec::new();
    for container in &dead {
        let Some(details) = details(draft, container) else {
            return draft.wait(id, "details of its dead container", None);
        };
        carried.extend(details.anonymous_volumes);
    }
    let made = create(draft, site, &image, Made { name: site.name.clone(), port: site.port, carried }, &[]);
    start(draft, id, ContainerRef::Planned(site.name.clone()), "it has no container", &[made]);
    for container in dead {
        draft.stop_and_remove(id, container, None, "the engine cannot start it again", &[made]);
    }
}

/// Whether the last try with this very declaration failed and its time has not come.
pub(crate) fn held_back(draft: &mut Draft<'_>, id: &ServerId, decl: &ContainerDecl) -> bool {
    let Some(attempts) = draft.memory.attempts.get(id) else { return false };
    let same = attempts.failed_spec.as_deref() == Some(decl.fingerprint.short().as_str());
    let (Some(next), true) = (attempts.next_try.filter(|next| *next > draft.input.now), same) else {
        return false;
    };
    let error = draft.memory.attempts.get(id).and_then(|attempts| attempts.last_error.clone());
    let text =
        format!("the next try after a failure: {}", error.unwrap_or_else(|| "it did not come up".to_owned()));
    draft.say(id, Reason::new(ReasonKind::WaitingOn, text).code("MCPO-P040").until(next));
    true
}

/// What differs between the containers one server may get.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) name: String,
    pub(crate) port: Option<HostPort>,
    pub(crate) carried: Vec<(String, String)>,
}

/// The label that says how requests reach the container.
pub(crate) fn route_label(site: &Site<'_>) -> String {
    site.direct.as_ref().map_or_else(|| "edge".to_owned(), |address| format!("direct {address}"))
}

/// Plans to make a container.
pub(crate) fn create(
    draft: &mut Draft<'_>,
    site: &Site<'_>,
    image: &Chosen,
    made: Made,
    after: &[usize],
) -> usize {
    let mark = Mark {
        stack: draft.input.policy.stack.clone(),
        server: Some(site.server.id.clone()),
        role: Some(if site.server.id.replica_number() > 1 { Role::Replica } else { Role::Server }),
        fingerprint: Some(site.decl.fingerprint.clone()),
        port: made.port,
        container_port: site.container_port,
        transport: Some(site.transport),
        route: Some(route_label(site)),
        image_digest: Some(image.digest.clone()),
        volumes: made.carried.iter().map(|(volume, _)| volume.clone()).collect(),
        remove_volumes: site.decl.remove_volumes,
        run: None,
        raised: oom::of(draft, &site.server.id).map(|raise| (raise.from, raise.to)),
    };
    let publish = site.container_port.map(|container_port| match &site.direct {
        Some(address) => Publish { host_ip: address.clone(), host_port: made.port, container_port },
        None => Publish { host_ip: "127.0.0.1".to_owned(), host_port: None, container_port },
    });
    let create = Create {
        name: made.name,
        spec: oom::raised(draft, &site.server.id, site.decl),
        image: image.id.clone(),
        publish,
        labels: mark.labels(),
        carried_volumes: made.carried,
    };
    draft.engine(&site.server.id, EngineOp::Create(Box::new(create)), "it is not there yet", after)
}

/// Plans to start a container, and remembers when.
pub(crate) fn start(
    draft: &mut Draft<'_>,
    id: &ServerId,
    container: ContainerRef,
    why: &str,
    after: &[usize],
) -> usize {
    let (now, settle) = (draft.input.now, draft.input.policy.settle);
    let attempts = draft.attempts(id);
    attempts.started = Some(now);
    attempts.up = false;
    attempts.down_since = None;
    draft.look_at(now.after(settle));
    draft.engine(id, EngineOp::Start(container), why, after)
}

/// The container is the wanted one.
pub(crate) fn keep(draft: &mut Draft<'_>, site: &Site<'_>, main: &Container) {
    let id = &site.server.id;
    for next in &site.group.nexts {
        draft.stop_and_remove(id, next, Some(Vec::new()), "left over from an earlier replacement", &[]);
    }
    // It took over, and that could not be kept.
    let moved = |lease: &crate::model::memory::Lease| {
        lease.next.is_some() && main.mark.as_ref().and_then(|mark| mark.port) == lease.next
    };
    if draft.memory.leases.get(id).is_some_and(moved) {
        replace::adopt_port(draft, id, main);
        draft.look_at(draft.input.now);
    }
    match main.state {
        ContainerState::Running(health) => running(draft, site, main, health),
        ContainerState::Created => {
            if !held_back(draft, id, site.decl) && !depends::must_wait(draft, site.server) {
                draft.say(
                    id,
                    Reason::new(ReasonKind::ChangedBecause, "its container was made but never started"),
                );
                start(draft, id, refer(main), "made but never started", &[]);
            }
        }
        ContainerState::Exited(code) => ended(draft, site, main, code),
        ContainerState::Paused => {
            draft.say(id, Reason::new(ReasonKind::ChangedBecause, "its container was paused by somebody"));
            draft.engine(id, EngineOp::Unpause(refer(main)), "paused by somebody", &[]);
        }
        ContainerState::Restarting | ContainerState::Removing | ContainerState::Dead => {
            draft.wait(
                id,
                "the engine to finish with its container",
                Some(draft.input.now.after(Span::secs(1))),
            );
        }
    }
}

/// Stops it and starts it again.
pub(crate) fn restart(draft: &mut Draft<'_>, site: &Site<'_>, main: &Container, why: &str) {
    let id = &site.server.id;
    for next in &site.group.nexts {
        draft.stop_and_remove(id, next, Some(Vec::new()), "left over from an earlier replacement", &[]);
    }
    draft.say(id, Reason::new(ReasonKind::ChangedBecause, why));
    let stop = draft.engine(id, EngineOp::Stop(refer(main)), why, &[]);
    start(draft, id, refer(main), why, &[stop]);
}

/// It runs: is it up, is it stable, does somebody want it restarted?
fn running(draft: &mut Draft<'_>, site: &Site<'_>, main: &Container, health: ContainerHealth) {
    let (id, now) = (&site.server.id, draft.input.now);
    if let Some(why) = restart_due(&draft.memory, id) {
        if replicas::waits_for_restart(draft, site.server) {
            return;
        }
        restart(draft, site, main, &why);
        draft.attempts(id).crashes = 0;
        return;
    }
    let Some(started) = draft.memory.attempts.get(id).and_then(|attempts| attempts.started) else {
        // Nothing is remembered of its start: it runs, and is taken as it is.
        return;
    };
    if !draft.memory.attempts.get(id).is_some_and(|attempts| attempts.up) {
        match ready(draft, site, main, site.port) {
            Ready::Yes => {
                let attempts = draft.attempts(id);
                attempts.up = true;
                attempts.failures = 0;
                attempts.failed_spec = None;
                attempts.next_try = None;
                attempts.last_error = None;
                if site.direct.is_some() {
                    crate::plan::containers::want_route(draft, site, site.port.into_iter().collect());
                }
            }
            Ready::NotYet(what, again) => draft.wait(id, what, Some(again)),
            Ready::Asked => draft.wait(id, "a first connection", None),
        }
    }
    let stable_at = started.after(site.server.restart.reset_after);
    if draft.memory.attempts.get(id).is_some_and(|attempts| attempts.crashes > 0) {
        if now >= stable_at {
            draft.attempts(id).crashes = 0;
            draft.row(id).restarts = 0;
        } else {
            draft.look_at(stable_at);
        }
    }
    oom::note(draft, id);
    ends::advise(draft, site.server, &|draft| oom::advice(draft, site));
    if health == ContainerHealth::Unhealthy {
        draft.note(id, "the image's own health check fails");
    }
}

/// Whether a container that runs can do its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ready {
    /// It can.
    Yes,
    /// Not yet; what is missing and when to look again.
    NotYet(String, Timestamp),
    /// A fact is being asked for.
    Asked,
}

/// Settled, its health check passed where there is one, its port accepting where there is one.
pub(crate) fn ready(
    draft: &mut Draft<'_>,
    site: &Site<'_>,
    container: &Container,
    port: Option<HostPort>,
) -> Ready {
    let (now, settle) = (draft.input.now, draft.input.policy.settle);
    let started = draft.memory.attempts.get(&site.server.id).and_then(|attempts| attempts.started);
    let settled = started.map_or(now, |started| started.after(settle));
    if now < settled {
        return Ready::NotYet("the new container to stay up".to_owned(), settled);
    }
    match container.state {
        ContainerState::Running(ContainerHealth::Starting) => {
            return Ready::NotYet("the image's own health check".to_owned(), now.after(Span::secs(1)));
        }
        ContainerState::Running(ContainerHealth::Unhealthy) => {
            return Ready::NotYet(
                "the image's own health check, which fails".to_owned(),
                now.after(Span::secs(1)),
            );
        }
        _ => {}
    }
    // The engine's list may still say that it runs when it has ended, and a port may still be held
    // for it; what follows cannot be undone, so it is looked at closely, once.
    match draft.input.observed.details.get(&container.id) {
        None => {
            draft.ask(Question::Details(container.id.clone()));
            return Ready::Asked;
        }
        Some(Seen::Known(Some(details)))
            if details.finished.is_none_or(|end| Some(end) < details.started) => {}
        Some(_) => {
            return Ready::NotYet(
                "the engine's details of the new container".to_owned(),
                now.after(REACH_AGAIN),
            );
        }
    }
    let Some(port) = port.filter(|_| site.direct.is_some()) else { return Ready::Yes };
    match draft.input.observed.reachable.get(&port) {
        None => {
            draft.ask(Question::Reachable(port));
            Ready::Asked
        }
        Some(true) => Ready::Yes,
        Some(false) => Ready::NotYet(format!("port {port} to accept connections"), now.after(REACH_AGAIN)),
    }
}

/// What an inspect says; asks when it was not asked yet.
pub(crate) fn details(draft: &mut Draft<'_>, container: &Container) -> Option<Details> {
    match draft.input.observed.details.get(&container.id) {
        None => {
            draft.ask(Question::Details(container.id.clone()));
            None
        }
        Some(Seen::Known(details)) => Some(details.clone().unwrap_or_default()),
        Some(Seen::Unknown(_)) => None,
    }
}

/// It ended by itself, or somebody stopped it behind our back.
fn ended(draft: &mut Draft<'_>, site: &Site<'_>, main: &Container, code: i64) {
    let (id, now, policy) = (&site.server.id, draft.input.now, &site.server.restart);
    // The first restart has no delay, and details take the engine longer than the restart itself.
    let first = draft.memory.attempts.get(id).is_none_or(|attempts| attempts.crashes == 0);
    // Only they tell memory from a plain kill; where there is a limit, that is worth the time.
    let limited = code == oom::KILLED && site.decl.spec.resources.memory_bytes > 0;
    let known = if first && !limited { Some(Details::default()) } else { details(draft, main) };
    let Some(details) = known else {
        draft.wait(id, format!("details of the end (exit code {code})"), None);
        return;
    };
    let what = if details.oom_killed {
        format!("it was killed for memory (exit code {code}); {}", oom::advice(draft, site))
    } else if code == oom::KILLED && (!first || limited) {
        format!("it was killed (exit code {code}), and not for memory")
    } else {
        format!("it ended with exit code {code}")
    };
    ends::container(draft, site, main, &(code, (!first || limited).then_some(&details)));
    if let Some(why) = restart_due(&draft.memory, id).or_else(|| wake_due(&draft.memory, id)) {
        draft.attempts(id).crashes = 0;
        start(draft, id, refer(main), &why, &[]);
        return;
    }
    let stays = match policy.when {
        RestartWhen::Always => false,
        RestartWhen::OnFailure => code == 0,
        RestartWhen::Never => true,
    };
    if stays {
        draft.row(id).state = RowState::Stopped;
        draft.say(
            id,
            Reason::new(ReasonKind::LeftAlone, format!("{what} and its restart policy leaves it so")),
        );
        return;
    }
    if held_back(draft, id, site.decl) {
        return;
    }
    let attempts = note_end(draft.attempts(id), &details, policy, now);
    if policy.attempts_max.is_some_and(|max| attempts.crashes >= max) {
        let text = format!(
            "{what}; gave up after {} restarts in a row (restart-server tries again)",
            attempts.crashes
        );
        draft.block(id, "MCPO-P041", text);
        return;
    }
    if depends::must_wait(draft, site.server) {
        return;
    }
    let due = attempts.down_since.unwrap_or(now).after(restart_delay(policy, attempts.crashes));
    if now < due {
        let text = format!("restart {} ({what})", attempts.crashes + 1);
        let code = if details.oom_killed { "MCPO-P045" } else { "MCPO-P042" };
        draft.row(id).next_try = Some(due);
        draft.say(id, Reason::new(ReasonKind::WaitingOn, text).code(code).until(due));
        return;
    }
    let why = Why { what: &what, oom: details.oom_killed };
    again(draft, site, main, (why, attempts.crashes));
}

/// How a container ended.
struct Why<'w> {
    what: &'w str,
    /// The kernel killed it for memory.
    oom: bool,
}

/// Its next start is due: as far as this host bears it, and from the image once more where starting it
/// has not helped.
fn again(draft: &mut Draft<'_>, site: &Site<'_>, main: &Container, (why, crashes): (Why<'_>, u32)) {
    let (id, now, what) = (&site.server.id, draft.input.now, why.what);
    let code = if why.oom { "MCPO-P045" } else { "MCPO-P042" };
    if crashes > 0
        && let Err(until) = recovery::token(draft)
    {
        let text =
            format!("{what}; restart {}, once this host has had fewer restarts within a minute", crashes + 1);
        draft.row(id).next_try = Some(until);
        draft.say(id, Reason::new(ReasonKind::WaitingOn, text).code("MCPO-P044").until(until));
        return;
    }
    if why.oom && oom::begin(draft, site, main) {
        draft.attempts(id).crashes = crashes + 1;
        return;
    }
    if recovery::ends_again(draft, site.server, main, what) {
        // The next look begins it.
        let reason = Reason::new(ReasonKind::WaitingOn, format!("a new container ({what})"));
        draft.say(id, reason.code("MCPO-P042").until(now));
        return;
    }
    draft.say(id, Reason::new(ReasonKind::ChangedBecause, what).code(code));
    start(draft, id, refer(main), what, &[]);
    draft.attempts(id).crashes = crashes + 1;
}

/// Remembers an end once, and forgets earlier crashes when it had been stable.
fn note_end(attempts: &mut Attempts, details: &Details, policy: &RestartPolicy, now: Timestamp) -> Attempts {
    if attempts.down_since.is_none() {
        let ended = details.finished.filter(|finished| *finished <= now).unwrap_or(now);
        let stable = attempts.started.is_some_and(|started| ended.since(started) >= policy.reset_after);
        if stable {
            attempts.crashes = 0;
        }
        attempts.down_since = Some(ended);
        attempts.up = false;
    }
    attempts.clone()
}
