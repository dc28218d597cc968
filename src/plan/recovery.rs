//! Bringing back a server that runs and does not answer, or that ends again and again: ever stronger
//! means, each a bounded number of times, and never more than this host bears.
//!
//! ```text
//! tries so far      a container                          a process, a server elsewhere
//! 0 .. 3            stopped and started                  ended and started; connected anew
//! 3 .. 5            made anew from the same image        the same
//! 5                 given up, until somebody acts        the same
//! ```
//! The first try waits as long again as it took to find out; each later one for the verdict on the one
//! before, and for the pause that crashes have. Whatever answers for the stable time is forgotten.
//!
//! Must never touch a server on an old verdict or none, within the start period of a start, or while
//! requests under way may still be answered; never take another image than the container had.

use crate::model::health::{Condition, State};
use crate::model::id::ServerId;
use crate::model::memory::Recovery;
use crate::model::observed::{Container, Observed};
use crate::model::server::{RestartWhen, Server, ServerKind};
use crate::model::time::{Span, Timestamp};
use crate::plan::depends;
use crate::plan::draft::Draft;
use crate::plan::report::{Reason, ReasonKind};
use crate::plan::steady::restart_delay;

/// Restarts of a server that does not answer, before a container is made anew.
pub const RESTARTS_MAX: u32 = 3;
/// Tries in all.
pub const TRIES_MAX: u32 = RESTARTS_MAX + 2;
/// Restarts in a row after which a container that ends again and again is made anew: twice.
pub(crate) const ANEW_AFTER_CRASHES: [u32; 2] = [RESTARTS_MAX, 2 * RESTARTS_MAX];
/// The time in which restarts of a host are counted.
const WINDOW: Span = Span::secs(60);
/// Of so many servers at least it is told whether most do not answer.
const FLEET_MIN: usize = 4;

/// What is to be done about a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing, or nothing yet: the row says which.
    None,
    /// It is restarted, for this reason.
    Restart(String),
    /// Its container is made anew: [`anew`] says so from now on.
    Anew,
}

/// Forgets what is over: replacements that were made or failed, restarts beyond the window.
pub(crate) fn settle(draft: &mut Draft<'_>) {
    let (now, desired) = (draft.input.now, draft.input.desired);
    draft.memory.unwanted.retain(|at| *at <= now && now.since(*at) < WINDOW);
    // Another declaration begins anew; a broken entry has none.
    draft.memory.recoveries.retain(|id, held| match desired.servers.get(id) {
        Some(server) => spec(server) == held.spec,
        None => desired.stale.is_some() || desired.is_broken(id),
    });
    if draft.input.observed.containers.known().is_none() {
        return;
    }
    for (id, recovery) in &mut draft.memory.recoveries {
        let Some(old) = &recovery.anew else { continue };
        let main = draft.fleet.groups.get(id).and_then(|group| group.main);
        if main.is_none_or(|main| main.id != *old) {
            recovery.anew = None;
            continue;
        }
        // It counts as a try here: it is no failed roll-out of a change, and restarts go on.
        let attempts = draft.memory.attempts.get_mut(id);
        let failed = |attempts: &&mut crate::model::memory::Attempts| {
            attempts.failures > 0 && attempts.failed_spec.as_deref() == Some(recovery.spec.as_str())
        };
        if let Some(attempts) = attempts.filter(failed) {
            recovery.anew = None;
            (attempts.failures, attempts.failed_spec, attempts.next_try) = (0, None, None);
        }
    }
}

/// Why this container is to be made anew, while it is.
pub(crate) fn anew(draft: &Draft<'_>, id: &ServerId, container: &Container) -> Option<String> {
    let recovery = draft.memory.recoveries.get(id)?;
    let why = &recovery.why;
    (recovery.anew.as_ref() == Some(&container.id)).then(|| format!("{why}: made anew from the same image"))
}

/// It cannot be made anew.
pub(crate) fn give_up_anew(draft: &mut Draft<'_>, id: &ServerId) {
    if let Some(recovery) = draft.memory.recoveries.get_mut(id) {
        recovery.anew = None;
    }
}

/// Decides about a server that runs, as far as anybody knows; `main` is its container, if it is one.
pub(crate) fn decide(draft: &mut Draft<'_>, server: &Server, main: Option<&Container>) -> Step {
    let (id, now) = (&server.id, draft.input.now);
    let Some(seen) = draft.input.observed.health.get(id).cloned() else { return Step::None };
    if let Some(tries) = draft.memory.recoveries.get(id).map(|recovery| recovery.tries) {
        let row = draft.row(id);
        row.restarts = row.restarts.max(tries);
    }
    match seen.health.state {
        // Whoever runs a process tries again by itself; a container that runs and cannot be reached is
        // not started by anybody else.
        State::Critical if main.is_none() => Step::None,
        State::Starting => Step::None,
        // The verdict is on the process before: nobody has heard of this start yet.
        State::Unhealthy | State::Critical if main.is_some() && is_before_start(draft, id, &seen) => {
            Step::None
        }
        State::Healthy | State::Degraded => {
            well(draft, server, &seen);
            Step::None
        }
        State::Unhealthy | State::Critical if seen.health.is_stale(now, &server.health) => {
            draft.note(
                id,
                format!("nobody has asked it for {}: nothing is done", now.since(seen.health.judged)),
            );
            Step::None
        }
        State::Unhealthy | State::Critical => ill(draft, server, main, &seen),
    }
}

/// Whether a verdict is older than the last start of the container it is on.
fn is_before_start(draft: &Draft<'_>, id: &ServerId, seen: &Condition) -> bool {
    let attempts = draft.memory.attempts.get(id);
    attempts.and_then(|attempts| attempts.started).is_some_and(|started| seen.health.judged < started)
}

/// It serves: what was done for it is forgotten in time.
fn well(draft: &mut Draft<'_>, server: &Server, seen: &Condition) {
    let (id, now) = (&server.id, draft.input.now);
    if !seen.why.is_empty() {
        draft.note(id, seen.why.clone());
    }
    let Some(recovery) = draft.memory.recoveries.get_mut(id) else { return };
    // It came back by itself.
    recovery.anew = None;
    let over = seen.health.since.max(recovery.last).after(server.restart.reset_after);
    if now >= over {
        draft.memory.recoveries.remove(id);
        return;
    }
    let text = match recovery.tries {
        0 => format!("it answers again, made anew ({})", recovery.why),
        tries => format!("it answers again after {} ({})", tries_words(tries), recovery.why),
    };
    draft.note(id, text);
    draft.look_at(over);
}

/// It runs and does not answer.
fn ill(draft: &mut Draft<'_>, server: &Server, main: Option<&Container>, seen: &Condition) -> Step {
    let (id, now) = (&server.id, draft.input.now);
    let recovery = draft.memory.recoveries.get(id).cloned();
    if main.is_some_and(|main| anew(draft, id, main).is_some()) {
        return Step::Anew;
    }
    let why = format!("it does not answer: {}", seen.why);
    let tries = recovery.as_ref().map_or(0, |recovery| recovery.tries);
    if server.restart.when == RestartWhen::Never {
        let text = format!("{why}; its restart policy leaves it so (restart-server tries again)");
        draft.block(id, "MCPO-P041", text);
        return Step::None;
    }
    let most = server.restart.attempts_max.map_or(TRIES_MAX, |max| max.min(TRIES_MAX));
    if tries >= most {
        let text = format!("{why}; gave up after {} (restart-server tries again)", tries_words(tries));
        draft.block(id, "MCPO-P041", text);
        return Step::None;
    }
    let anew = main.is_some() && tries >= RESTARTS_MAX;
    let means = if anew { "a new container" } else { "a restart" };
    let next = format!("{means}, try {} of {most}", tries + 1);
    let started = draft.memory.attempts.get(id).and_then(|attempts| attempts.started);
    let due = due(server, seen, recovery.as_ref(), started);
    if now < due {
        return wait(draft, id, (format!("{why}; {next}"), "MCPO-P043"), Some(due));
    }
    if let Some(until) = seen.busy_until.filter(|until| *until > now) {
        let text = format!("{why}; requests under way may still be answered, then {next}");
        return wait(draft, id, (text, "MCPO-P043"), Some(until));
    }
    if depends::must_wait(draft, server) {
        return Step::None;
    }
    if anew && most_are_ill(draft) {
        let text = format!(
            "{why}; most servers do not answer, so that this host or its network is taken to be ill: no new container until half of them are well"
        );
        let again = now.after(server.health.interval);
        return wait(draft, id, (text, "MCPO-P044"), Some(again));
    }
    if let Err(until) = token(draft) {
        let text = format!("{why}; {next}, once this host has had fewer restarts within a minute");
        return wait(draft, id, (text, "MCPO-P044"), Some(until));
    }
    let made_anew = main.filter(|_| anew).map(|main| main.id.clone());
    let recovery =
        Recovery { tries: tries + 1, last: now, why: why.clone(), spec: spec(server), anew: made_anew };
    draft.memory.recoveries.insert(id.clone(), recovery);
    if anew { Step::Anew } else { Step::Restart(format!("{why}; try {} of {most}", tries + 1)) }
}

fn wait(
    draft: &mut Draft<'_>,
    id: &ServerId,
    (text, code): (String, &'static str),
    until: Option<Timestamp>,
) -> Step {
    let mut reason = Reason::new(ReasonKind::WaitingOn, text).code(code);
    reason.until = until;
    draft.row(id).next_try = until;
    draft.say(id, reason);
    Step::None
}

/// When the next try is due.
fn due(
    server: &Server,
    seen: &Condition,
    recovery: Option<&Recovery>,
    started: Option<Timestamp>,
) -> Timestamp {
    let policy = &server.health;
    let patience = Span(policy.interval.0.saturating_mul(policy.failure_threshold.into()));
    let since = seen.health.since;
    let due = match recovery {
        None => since.after(patience),
        Some(last) if since > last.last => {
            since.max(last.last.after(restart_delay(&server.restart, last.tries)))
        }
        // The last try did not show in its health at all.
        Some(last) => last.last.after(policy.start_period).after(patience),
    };
    started.map_or(due, |started| due.max(started.after(policy.start_period)))
}

/// A container ended again: whether it is made anew instead of started. Counts as a restart.
pub(crate) fn ends_again(draft: &mut Draft<'_>, server: &Server, main: &Container, why: &str) -> bool {
    let (id, now) = (&server.id, draft.input.now);
    let crashes = draft.memory.attempts.get(id).map_or(0, |attempts| attempts.crashes);
    if !ANEW_AFTER_CRASHES.contains(&crashes) || most_are_ill(draft) {
        return false;
    }
    let tries = draft.memory.recoveries.get(id).map_or(0, |recovery| recovery.tries);
    let recovery = Recovery {
        tries,
        last: now,
        why: format!("{why}, after {crashes} restarts in a row"),
        spec: spec(server),
        anew: Some(main.id.clone()),
    };
    draft.memory.recoveries.insert(id.clone(), recovery);
    draft.attempts(id).crashes = crashes + 1;
    true
}

/// Takes the right to one more restart that nobody asked for.
///
/// # Errors
/// When there will be one again.
pub(crate) fn token(draft: &mut Draft<'_>) -> Result<(), Timestamp> {
    let (now, most) = (draft.input.now, draft.input.policy.restarts_per_minute_max);
    let mut all = draft.memory.unwanted.clone();
    all.extend(recent(draft.input.observed, now));
    if all.len() >= most {
        all.sort_unstable();
        let oldest = all.iter().rev().nth(most.saturating_sub(1)).copied().unwrap_or(now);
        return Err(oldest.after(WINDOW));
    }
    draft.memory.unwanted.push(now);
    Ok(())
}

/// Restarts of local processes that still count.
pub(crate) fn recent(observed: &Observed, now: Timestamp) -> impl Iterator<Item = Timestamp> {
    observed.restarts.iter().copied().filter(move |at| *at <= now && now.since(*at) < WINDOW)
}

/// Whether more than half of the servers do not answer: then it is not for each of them.
fn most_are_ill(draft: &Draft<'_>) -> bool {
    let known = || draft.input.observed.health.values().filter(|seen| seen.health.state != State::Starting);
    let ill = known().filter(|seen| !seen.health.state.serves()).count();
    let all = known().count();
    all >= FLEET_MIN && ill * 2 > all
}

/// Tells a server's declaration from others of it.
fn spec(server: &Server) -> String {
    match &server.kind {
        ServerKind::Container(decl) => decl.fingerprint.short(),
        ServerKind::Process(decl) => decl.fingerprint.short(),
        ServerKind::Remote(decl) => decl.fingerprint.short(),
    }
}

fn tries_words(tries: u32) -> String {
    if tries == 1 { "1 try".to_owned() } else { format!("{tries} tries") }
}
