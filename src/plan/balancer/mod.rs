//! What the load balancer must be told so that every wanted server is reachable under `/mcp/{id}`.
//!
//! Order of effects, and why it is so: target group, attributes, health check and tags first (a rule
//! needs its group), then this host's targets, then the rule, because a rule in front of an empty
//! group answers 503; deletions come last, because whatever is deleted before its successor stands
//! is an outage. A group is told apart by its deterministic name, which makes creating it safe to
//! repeat; a rule is not, so duplicates are looked for in every pass.
//!
//! Several hosts with one stack share rules and groups without a leader: each registers only its own
//! targets, says in a tag what it wants, and changes what is shared only when no live host wants
//! something else.
//!
//! Invariant: no step names an object that is not ours, and nothing is deleted on the strength of
//! something that was not read (held by the property tests of this module).

mod draft;
mod gc;
mod groups;
mod naming;
mod route;
mod rules;
mod standing;
mod targets;

#[cfg(test)]
mod tests;

use crate::model::balancer::{BalancerMemory, BalancerOp, BalancerPolicy, BalancerView, RouteWant};
use crate::model::id::{ServerId, Stack};
use crate::model::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

pub use naming::{group_name, owner_tags, rule_paths, shared_group_name};
pub use standing::standing;

/// Note code: this host's target id is not known.
pub const NO_TARGET_ID: &str = "MCPO-A001";
/// Note code: a target group that is not ours has the name we need.
pub const NAME_TAKEN: &str = "MCPO-A002";
/// Note code: no priority is free in our band.
pub const BAND_FULL: &str = "MCPO-A003";
/// Note code: the load balancer has as many target groups as it may have.
pub const GROUP_QUOTA: &str = "MCPO-A004";
/// Note code: live hosts of this stack want different things of a shared object.
pub const HOSTS_DIFFER: &str = "MCPO-A005";
/// Note code: a rule of others stands before ours and catches its requests.
pub const SHADOWED: &str = "MCPO-A006";
/// Note code: an object looks like ours but lacks our tags; it is not adopted.
pub const TAG_STRIPPED: &str = "MCPO-A007";
/// Note code: the health check of a direct server can hardly fail.
pub const WEAK_CHECK: &str = "MCPO-A008";
/// Note code: every target of a server is unhealthy; the load balancer forwards to all of them.
pub const OUTAGE: &str = "MCPO-A009";
/// Note code: an object of this stack that cannot be placed is left alone.
pub const LEFT_ALONE: &str = "MCPO-A010";

/// Everything the balancer half decides from.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// What each server wants; a server that is neither here nor in `keep` is to go.
    pub wants: &'a BTreeMap<ServerId, RouteWant>,
    /// Servers whose objects must not be touched (broken entry, mass-delete guard, unknown). Wins
    /// over `wants`.
    pub keep: &'a BTreeSet<ServerId>,
    /// Nothing that no want claims may be removed (stale or nameless configuration).
    pub keep_unclaimed: bool,
    /// The owner of everything made here.
    pub stack: &'a Stack,
    /// What was seen.
    pub view: &'a BalancerView,
    /// What was kept from the last pass.
    pub memory: &'a BalancerMemory,
    /// Settings.
    pub policy: &'a BalancerPolicy,
    /// The time.
    pub now: Timestamp,
}

/// What to do, what to remember and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Outcome {
    /// Effects in order.
    pub steps: Vec<Step>,
    /// To be kept before the steps run.
    pub memory: BalancerMemory,
    /// What to tell about each server.
    pub notes: BTreeMap<ServerId, Vec<Note>>,
    /// What to tell about no server in particular.
    pub general: Vec<Note>,
    /// When a wait ends (drain, grace); `None` when only an event or the timer matters.
    pub next_look: Option<Timestamp>,
    /// Servers whose targets the next pass must read, because this one could not decide without.
    pub read_next: BTreeSet<ServerId>,
}

/// One effect with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// For which server; `None` for shared objects.
    pub server: Option<ServerId>,
    /// The effect.
    pub op: BalancerOp,
    /// Why, in words.
    pub why: String,
    /// Indices of earlier steps that must have succeeded.
    pub after: Vec<usize>,
}

/// Something the report says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// What sort.
    pub kind: NoteKind,
    /// In words.
    pub text: String,
    /// A documented code, where an operator may want to look it up.
    pub code: Option<&'static str>,
}

/// Sorts of notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoteKind {
    /// Cannot go on until something outside changes.
    Blocked,
    /// Goes on by itself later.
    Waiting,
    /// Could be changed, and is not, on purpose.
    LeftAlone,
    /// Is changed by this plan.
    Changed,
    /// Nothing to do, but worth knowing.
    Advice,
}

/// Decides what the load balancer must be told.
pub fn plan(input: &Input<'_>) -> Outcome {
    let mut draft = draft::Draft::new(input);
    for want in input.wants.values().filter(|want| !input.keep.contains(&want.server)) {
        serve(&mut draft, want);
    }
    rules::move_into_band(&mut draft);
    rules::remove_duplicates(&mut draft);
    gc::collect(&mut draft);
    targets::tidy_memory(&mut draft);
    draft.finish()
}

/// Everything for one wanted server but deletions.
fn serve(draft: &mut draft::Draft<'_>, want: &RouteWant) {
    let route = route::Route::of(draft.input, want);
    let server = &want.server;
    for (text, code) in &route.advice {
        draft.note(server, NoteKind::Advice, text.clone(), Some(code));
    }
    let Some(target_id) = draft.target_id.clone() else {
        return draft.note(
            server,
            NoteKind::Waiting,
            "this host's target id is not known yet, so nothing is registered".to_owned(),
            Some(NO_TARGET_ID),
        );
    };
    let Some(home) = groups::choose(draft, &route) else { return };
    draft.homes.insert(server.clone(), home.name.clone());
    let verdict = rules::verdict(draft, &route, &home);
    let Some(group) = groups::ensure(draft, &route, &home, &target_id) else { return };
    if home.shared {
        let wanted = !route.ports.is_empty();
        let registered = if wanted || draft.input.policy.leaving {
            targets::register_shared(draft, &group, &target_id)
        } else {
            Vec::new()
        };
        if wanted {
            rules::ensure(draft, &route, &group, &verdict, registered);
        }
        return;
    }
    let held = matches!(verdict, rules::Verdict::Held(..));
    let registered = targets::register(draft, &route, &group, &target_id, held);
    if !route.ports.is_empty() {
        rules::ensure(draft, &route, &group, &verdict, registered.clone());
    }
    targets::deregister(draft, &route, &group, &target_id, registered);
}
