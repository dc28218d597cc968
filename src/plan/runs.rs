//! Shall it run? The file's `disabled` and what people asked for by hand, made one answer.
//!
//! An intent holds over passes, restarts and reboots until its time is over, `start` takes it
//! back, or the file's `disabled` changes.

use crate::model::desired::Desired;
use crate::model::id::ServerId;
use crate::model::memory::{Memory, Pause, Scope};
use crate::model::policy::{Ending, Policy};
use crate::model::server::Server;
use crate::model::time::Timestamp;
use crate::plan::demand::is_asleep;
use crate::plan::draft::Draft;

/// Whether a server shall run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// It shall.
    Run,
    /// It shall when somebody asks for it, see [`crate::plan::demand`].
    Sleep,
    /// It shall not, and why; by hand goes on even when the load balancer does not answer.
    Stop { why: String, by_hand: bool },
}

/// Forgets intents and pauses that are over.
pub(crate) fn settle_intents(draft: &mut Draft<'_>) {
    let (desired, now) = (draft.input.desired, draft.input.now);
    draft.memory.pauses.retain(|_, pause| pause.until.is_none_or(|until| until > now));
    let pauses: Vec<Timestamp> = draft.memory.pauses.values().filter_map(|pause| pause.until).collect();
    for end in pauses {
        draft.look_at(end);
    }
    if desired.stale.is_some() {
        return;
    }
    draft.memory.intents.retain(|id, intent| {
        let current = desired.servers.get(id).map(|server| server.enabled);
        let unchanged = match current {
            Some(enabled) => enabled == intent.file_enabled,
            None => desired.is_broken(id),
        };
        unchanged && intent.until.is_none_or(|until| until > now)
    });
    // A restart that has happened says no more than the file does.
    let done: Vec<ServerId> = draft
        .memory
        .intents
        .iter()
        .filter(|(id, intent)| intent.run && intent.file_enabled && !restarts(desired, &draft.memory, id))
        .map(|(id, _)| id.clone())
        .collect();
    for id in done {
        draft.memory.intents.remove(&id);
    }
    let ends: Vec<Timestamp> = draft.memory.intents.values().filter_map(|intent| intent.until).collect();
    for end in ends {
        draft.look_at(end);
    }
}

/// The pause that holds for a server, the narrowest first. The end of this process overrides it.
pub(crate) fn paused<'m>(
    policy: &Policy,
    memory: &'m Memory,
    server: &Server,
    now: Timestamp,
) -> Option<(Scope, &'m Pause)> {
    if policy.ending != Ending::None {
        return None;
    }
    let section = server.section.clone().map(Scope::Section);
    let scopes = [Some(Scope::Server(server.id.server())), section, Some(Scope::Host)];
    scopes.into_iter().flatten().find_map(|scope| {
        let pause = memory.pauses.get(&scope)?;
        pause.until.is_none_or(|until| until > now).then_some((scope, pause))
    })
}

/// The answer for one server.
pub(crate) fn want(policy: &Policy, memory: &Memory, server: &Server) -> Want {
    if policy.ending == Ending::Stop {
        return Want::Stop { why: "the daemon ends, and on_shutdown is stop".to_owned(), by_hand: true };
    }
    let run = || if is_asleep(memory, server) { Want::Sleep } else { Want::Run };
    match memory.intent(&server.id) {
        Some(intent) if intent.run => run(),
        Some(intent) => Want::Stop { why: format!("stopped by {}", intent.by), by_hand: true },
        None if server.enabled => run(),
        None => Want::Stop { why: "disabled in the file".to_owned(), by_hand: false },
    }
}

/// When a restart by hand was asked for that has not happened yet.
pub(crate) fn restart_due(memory: &Memory, id: &ServerId) -> Option<String> {
    let started = memory.attempts.get(id).and_then(|attempts| attempts.started);
    let due = |id: &ServerId| {
        let intent = memory.intents.get(id)?;
        let asked = intent.restart?;
        started.is_none_or(|started| started < asked).then(|| format!("restart asked for by {}", intent.by))
    };
    let server = id.server();
    due(&server).or_else(|| due(id).filter(|_| server != *id))
}

/// Whether a restart by hand of `id` is still due for one of its instances.
fn restarts(desired: &Desired, memory: &Memory, id: &ServerId) -> bool {
    let of = |one: &&ServerId| *one == id || one.server() == *id;
    desired.servers.keys().filter(of).any(|one| restart_due(memory, one).is_some())
}
