//! Containers that were killed for memory: the one step by which a limit may be raised
//! (`restart.oomRaise`).
//!
//! ```text
//! declared 256 MiB, killed for memory  ->  made anew from the same image with 384 MiB, remembered
//! killed again                         ->  restarts as without; nothing is raised twice
//! the declared limit changes, or no raise is allowed any more  ->  the declared limit again
//! ```
//! How far a limit may go depends on the declaration alone, so that no sequence of ends makes it more. A
//! label on the container says it as well: a lost state file raises nothing twice and lowers nothing.
//!
//! Must never raise a limit that nobody set, nor one twice.

use crate::model::container::ContainerSpec;
use crate::model::id::ServerId;
use crate::model::mark::Mark;
use crate::model::memory::{Raise, Recovery};
use crate::model::observed::Container;
use crate::model::server::{ContainerDecl, OomRaise, Server, ServerKind};
use crate::plan::containers::Site;
use crate::plan::draft::Draft;
use crate::plan::report::{Reason, ReasonKind};

const MIB: i64 = 1024 * 1024;
/// Exit code of what was killed by SIGKILL, by the kernel for memory or by anybody.
pub(crate) const KILLED: i64 = 137;

/// The declared limit and the one that it may be raised to.
#[must_use]
pub fn allowed(server: &Server) -> Option<(i64, i64)> {
    let ServerKind::Container(decl) = &server.kind else { return None };
    let from = decl.spec.resources.memory_bytes;
    let to = match server.restart.oom_raise {
        OomRaise::No => return None,
        OomRaise::Half => half_more(from),
        OomRaise::To(bytes) => bytes,
    };
    (from > 0 && to > from).then_some((from, to))
}

/// Half as much again, in whole MiB.
fn half_more(bytes: i64) -> i64 {
    let more = (bytes / 2).saturating_mul(3);
    more.saturating_add(MIB - 1) / MIB * MIB
}

/// In words: `256 MiB`, and bytes where it is no number of MiB.
fn words(bytes: i64) -> String {
    if bytes % MIB == 0 { format!("{} MiB", bytes / MIB) } else { format!("{bytes} bytes") }
}

/// Forgets raises that are over, and takes over what containers say of theirs.
pub(crate) fn settle(draft: &mut Draft<'_>) {
    let (desired, now) = (draft.input.desired, draft.input.now);
    draft.memory.raises.retain(|id, raise| match desired.servers.get(id) {
        Some(server) => allowed(server) == Some((raise.from, raise.to)),
        None => desired.stale.is_some() || desired.is_broken(id),
    });
    for (id, group) in &draft.fleet.groups {
        let made = group.main.and_then(|main| main.mark.as_ref()).and_then(|mark| mark.raised);
        let Some((from, to)) = made.filter(|_| !draft.memory.raises.contains_key(id)) else { continue };
        if desired.servers.get(id).and_then(allowed) == Some((from, to)) {
            draft.memory.raises.insert(id.clone(), Raise { from, to, at: now });
        }
    }
}

/// The raise that holds for a server.
pub(crate) fn of(draft: &Draft<'_>, id: &ServerId) -> Option<Raise> {
    draft.memory.raises.get(id).copied()
}

/// The declaration with the raise that holds.
pub(crate) fn raised(draft: &Draft<'_>, id: &ServerId, decl: &ContainerDecl) -> ContainerSpec {
    let mut spec = decl.spec.clone();
    if let Some(raise) = of(draft, id) {
        let resources = &mut spec.resources;
        resources.memory_bytes = raise.to;
        // A limit on memory and swap together is never below that on memory.
        if resources.memory_swap_bytes > 0 {
            let more = raise.to.saturating_sub(raise.from);
            resources.memory_swap_bytes = resources.memory_swap_bytes.saturating_add(more);
        }
    }
    spec
}

/// Why a container of the declared kind has another limit than it shall have.
pub(crate) fn change(draft: &Draft<'_>, id: &ServerId, mark: &Mark) -> Option<String> {
    let wanted = of(draft, id).map(|raise| (raise.from, raise.to));
    match (mark.raised, wanted) {
        (made, wanted) if made == wanted => None,
        (_, Some((from, to))) => Some(because(from, to)),
        (Some((from, to)), None) => Some(format!(
            "limits.memory {} → {} because restart.oomRaise does not allow it any more",
            words(to),
            words(from)
        )),
        (None, None) => None,
    }
}

fn because(from: i64, to: i64) -> String {
    format!("limits.memory {} → {} because it was killed for memory", words(from), words(to))
}

/// What is said of a container with a raised limit.
pub(crate) fn note(draft: &mut Draft<'_>, id: &ServerId) {
    if let Some(Raise { from, to, .. }) = of(draft, id) {
        let text = format!(
            "limits.memory is {} instead of {}: it was killed for memory; raise the declared limit to keep it",
            words(to),
            words(from)
        );
        draft.say(id, Reason::new(ReasonKind::Note, text).code("MCPO-P045"));
    }
}

/// It was killed for memory: begins the one raise that is allowed. False when there is none, or none any
/// more.
pub(crate) fn begin(draft: &mut Draft<'_>, site: &Site<'_>, main: &Container) -> bool {
    let (id, now) = (&site.server.id, draft.input.now);
    let Some((from, to)) = allowed(site.server).filter(|_| of(draft, id).is_none()) else { return false };
    draft.memory.raises.insert(id.clone(), Raise { from, to, at: now });
    let why = because(from, to);
    let tries = draft.memory.recoveries.get(id).map_or(0, |recovery| recovery.tries);
    let recovery = Recovery {
        tries,
        last: now,
        why: why.clone(),
        spec: site.decl.fingerprint.short(),
        anew: Some(main.id.clone()),
    };
    draft.memory.recoveries.insert(id.clone(), recovery);
    // The next look begins it.
    draft.say(
        id,
        Reason::new(ReasonKind::WaitingOn, format!("a new container: {why}")).code("MCPO-P045").until(now),
    );
    true
}

/// What to do about a container that was killed for memory.
pub(crate) fn advice(draft: &Draft<'_>, site: &Site<'_>) -> String {
    let limit = site.decl.spec.resources.memory_bytes;
    if let Some(raise) = of(draft, &site.server.id) {
        return format!(
            "its limit was raised to {} already and is not raised again: raise limits.memory, or --memory on its line",
            words(raise.to)
        );
    }
    if limit <= 0 {
        return "it has no limit of its own: this host ran out of memory; give it and the others limits (limits.memory)".to_owned();
    }
    let allow = if site.server.restart.oom_raise == OomRaise::No {
        "; restart.oomRaise does so once by itself"
    } else {
        ""
    };
    format!(
        "raise its memory limit (limits.memory, or --memory on its line), which is {}, for example to {}m{allow}",
        words(limit),
        half_more(limit) / MIB
    )
}
