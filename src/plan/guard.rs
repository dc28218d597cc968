//! The guard against removing much by mistake.
//!
//! Removing more than half of at least four servers, or all of them whatever the number, needs
//! `allow_mass_delete`; nothing that no entry claims is removed while the file in use is an old
//! one or an entry has no usable name.

use crate::model::id::ServerId;
use crate::plan::draft::Draft;
use crate::plan::report::{Reason, ReasonKind};
use std::collections::BTreeSet;

/// From this many servers on, more than half is much.
const HALF_COUNTS_FROM: usize = 4;

/// Decides what may not be removed in this pass.
pub(crate) fn guard_removals(draft: &mut Draft<'_>) {
    let (desired, policy) = (draft.input.desired, draft.input.policy);
    draft.keep.extend(desired.broken.keys().cloned());
    let groups: Vec<ServerId> =
        draft.fleet.groups.keys().filter(|id| desired.is_broken(id)).cloned().collect();
    draft.keep.extend(groups);
    for container in draft.fleet.unreadable.clone() {
        let text = format!("container {} has our mark but no readable server label", container.name);
        draft.report.general.push(Reason::new(ReasonKind::LeftAlone, text).code("MCPO-P001"));
    }
    if let Some(why) = &desired.stale {
        draft.keep_unclaimed = true;
        let text = format!(
            "the configuration cannot be used ({why}); the last good one stays in force and nothing is removed"
        );
        draft.report.general.push(Reason::new(ReasonKind::BlockedBy, text).code("MCPO-P002"));
        return;
    }
    say_nameless(draft);
    let there = draft.fleet.groups.iter().filter(|(_, group)| !group.is_empty()).map(|(id, _)| id);
    // Servers are counted: fewer instances of one are no removal.
    let existing: BTreeSet<ServerId> =
        there.chain(draft.memory.leases.keys()).map(ServerId::server).collect();
    let removed: Vec<&ServerId> = existing.iter().filter(|id| !desired.claims(id)).collect();
    if removed.is_empty() {
        return;
    }
    if !desired.nameless.is_empty() {
        draft.keep_unclaimed = true;
        return;
    }
    let (total, gone) = (existing.len(), removed.len());
    let much = gone == total || (total >= HALF_COUNTS_FROM && gone * 2 > total);
    if much && !policy.allow_mass_delete {
        draft.keep_unclaimed = true;
        let text = format!(
            "the file no longer has {gone} of {total} servers; nothing is removed without --allow-mass-delete"
        );
        draft.report.general.push(Reason::new(ReasonKind::BlockedBy, text).code("MCPO-P004"));
    }
}

/// Entries that no row can be shown for: they are not served, and what they ran before cannot be told
/// from what was removed.
fn say_nameless(draft: &mut Draft<'_>) {
    let nameless = &draft.input.desired.nameless;
    if nameless.is_empty() {
        return;
    }
    let text = match nameless.len() {
        1 => "an entry without a usable name: it is not served, and nothing is removed meanwhile",
        _ => "entries without a usable name: they are not served, and nothing is removed meanwhile",
    };
    let text = format!("{text} ({})", nameless.join(", "));
    draft.report.general.push(Reason::new(ReasonKind::BlockedBy, text).code("MCPO-P003"));
}
