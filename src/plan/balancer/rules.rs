//! Listener rules: one of ours per server, found by its tags, repaired in place.
//!
//! ```text
//! ours seen     like wanted    then
//! none          -              create, at the first free priority from the server's slot on
//! one           yes            nothing
//! one           no             modify (never delete and create: that is an outage)
//! one           no, and a live host wants it so    leave, and say so
//! several       -              the lowest priority number stays, the others go last
//! ```
//! Rules of others are only ever read: to step around their priorities and to say when one of them
//! catches our requests.

use crate::model::balancer::{BalancerOp, GroupRef, Rule, RuleAction};
use crate::model::id::ServerId;
use crate::model::mark;
use crate::plan::balancer::draft::Draft;
use crate::plan::balancer::groups::{self, Group, Home};
use crate::plan::balancer::route::Route;
use crate::plan::balancer::{BAND_FULL, NoteKind, SHADOWED, TAG_STRIPPED, naming};
use std::collections::BTreeMap;

/// What is to be done about a server's rule.
pub(super) enum Verdict<'a> {
    /// There is none.
    Missing,
    /// It is as it should be.
    Good(&'a Rule),
    /// It must be modified.
    Differs(&'a Rule),
    /// It differs, and another live host wants it so (or that could not be found out).
    Held(&'a Rule),
}

/// Compares the rule that was seen with the one that is wanted.
pub(super) fn verdict<'a>(draft: &mut Draft<'a>, route: &Route, home: &Home) -> Verdict<'a> {
    let Some(rule) = draft.rule_of(route.server.as_str()) else { return Verdict::Missing };
    let seen = draft.by_name.get(home.name.as_str()).copied();
    let goes_home = seen.is_some_and(|group| rule.action == RuleAction::Forward(group.arn.clone()));
    if goes_home && rule.rewrites == route.rewrites && same_paths(rule, route) {
        return Verdict::Good(rule);
    }
    let server = route.server.as_str();
    let current = draft
        .groups
        .get(server)
        .into_iter()
        .flatten()
        .copied()
        .find(|group| rule.action == RuleAction::Forward(group.arn.clone()));
    match current {
        Some(group)
            if !route.ports.is_empty()
                && !groups::may_change(draft, &route.server, group, &route.spec_hash) =>
        {
            Verdict::Held(rule)
        }
        Some(_) | None => Verdict::Differs(rule),
    }
}

fn same_paths(rule: &Rule, route: &Route) -> bool {
    rule.conditions.other.is_empty() && has_paths(rule, route)
}

/// Whether the rule's patterns are those that are wanted, in any order.
fn has_paths(rule: &Rule, route: &Route) -> bool {
    let seen = &rule.conditions.paths;
    seen.iter().all(|path| route.paths.contains(path)) && route.paths.iter().all(|path| seen.contains(path))
}

/// Creates or modifies the server's rule, and looks around it.
pub(super) fn ensure(
    draft: &mut Draft<'_>,
    route: &Route,
    group: &Group<'_>,
    verdict: &Verdict<'_>,
    registered: Vec<usize>,
) {
    let server = &route.server;
    let mut after = group.ready.clone();
    after.extend(registered);
    let (rule, changed) = match verdict {
        Verdict::Missing => return create(draft, route, group, after),
        Verdict::Held(rule) | Verdict::Good(rule) => (*rule, None),
        Verdict::Differs(rule) => (*rule, Some(modify(draft, route, group, rule, after))),
    };
    let band = draft.input.policy.priority_start..=draft.input.policy.priority_end;
    if !band.contains(&rule.priority) && !matches!(verdict, Verdict::Held(_)) {
        ask_move(draft, route, group, rule);
    }
    for extra in draft.rules.get(server.as_str()).cloned().unwrap_or_default().into_iter().skip(1) {
        draft.duplicates.push((server.clone(), extra.arn.clone(), changed));
    }
    report_neighbours(draft, route, rule.priority);
}

fn create(draft: &mut Draft<'_>, route: &Route, group: &Group<'_>, after: Vec<usize>) {
    let server = &route.server;
    let Some(priority) = free_priority(draft, server) else {
        let policy = draft.input.policy;
        let text = format!(
            "every priority from {} to {} is taken; widen the band or free one",
            policy.priority_start, policy.priority_end
        );
        return draft.note(server, NoteKind::Blocked, text, Some(BAND_FULL));
    };
    draft.priorities.insert(priority);
    let op = BalancerOp::CreateRule {
        listener_arn: draft.input.view.listener.arn.clone(),
        priority,
        paths: route.paths.clone(),
        group: group.to.clone(),
        rewrites: route.rewrites.clone(),
        tags: naming::owner_tags(draft.input.stack, Some(server), &route.spec_hash),
    };
    draft.step(Some(server), op, format!("rule for /mcp/{server} is missing"), after);
    report_neighbours(draft, route, priority);
}

fn modify(draft: &mut Draft<'_>, route: &Route, group: &Group<'_>, rule: &Rule, after: Vec<usize>) -> usize {
    let mut differs = Vec::new();
    if !same_paths(rule, route) {
        differs.push("conditions");
    }
    if !matches!((&rule.action, &group.to), (RuleAction::Forward(to), GroupRef::Arn(arn)) if to == arn) {
        differs.push("target group");
    }
    if rule.rewrites != route.rewrites {
        differs.push("rewrite");
    }
    let tags = BTreeMap::from([(mark::SPEC_HASH.to_owned(), route.spec_hash.clone())]);
    let op = BalancerOp::ModifyRule {
        rule: rule.arn.clone(),
        paths: route.paths.clone(),
        group: group.to.clone(),
        rewrites: route.rewrites.clone(),
        tags,
    };
    draft.step(
        Some(&route.server),
        op,
        format!("rule {} has another {}", rule.priority, differs.join(", ")),
        after,
    )
}

/// The first free priority from the server's own slot on, around the band once.
fn free_priority(draft: &Draft<'_>, server: &ServerId) -> Option<u32> {
    let (start, end) = (draft.input.policy.priority_start, draft.input.policy.priority_end);
    let width = end.checked_sub(start)?.checked_add(1)?;
    let slot = naming::fnv1a(server.as_str()).checked_rem(width)?;
    (slot..width)
        .chain(0..slot)
        .map(|offset| start + offset)
        .find(|priority| !draft.priorities.contains(priority))
}

/// A rule outside the band moves to where a new one would be, if the hosts agree.
fn ask_move(draft: &mut Draft<'_>, route: &Route, group: &Group<'_>, rule: &Rule) {
    if let Some(seen) = group.seen
        && !group.home.shared
        && !groups::may_change(draft, &route.server, seen, &route.spec_hash)
    {
        return;
    }
    match free_priority(draft, &route.server) {
        Some(priority) => {
            draft.priorities.insert(priority);
            draft.moves.push((rule.arn.clone(), priority));
            let text =
                format!("rule {} lies outside the priority band and moves to {priority}", rule.priority);
            draft.note(&route.server, NoteKind::Changed, text, None);
        }
        None => {
            let text = format!("rule {} lies outside the priority band, which is full", rule.priority);
            draft.note(&route.server, NoteKind::LeftAlone, text, Some(BAND_FULL));
        }
    }
}

/// All moves in one call: either all happen or none.
pub(super) fn move_into_band(draft: &mut Draft<'_>) {
    if !draft.moves.is_empty() {
        let moves = std::mem::take(&mut draft.moves);
        draft.step(
            None,
            BalancerOp::SetPriorities { moves },
            "rules of ours lie outside the priority band",
            Vec::new(),
        );
    }
}

/// Deletes the rules that say the same as another one of ours.
pub(super) fn remove_duplicates(draft: &mut Draft<'_>) {
    for (server, rule, after) in std::mem::take(&mut draft.duplicates) {
        let why = format!("there is another rule of ours for /mcp/{server}");
        draft.step(Some(&server), BalancerOp::DeleteRule { rule }, why, after.into_iter().collect());
    }
}

/// Says when rules of others catch our requests or look like ours.
fn report_neighbours(draft: &mut Draft<'_>, route: &Route, priority: u32) {
    let ours = [format!("/mcp/{}", route.server), format!("/mcp/{}/x", route.server)];
    // Most rules of others have nothing to do with us, and there may be many.
    let catches = |rule: &&Rule| rule.conditions.paths.iter().any(|p| ours.iter().any(|path| glob(p, path)));
    let near: Vec<&Rule> = draft.foreign.iter().copied().filter(catches).collect();
    for rule in near {
        if rule.conditions.other.is_empty() && has_paths(rule, route) {
            let text = format!(
                "rule {} has the same paths without our tags; it is not adopted: tag it again, or delete it",
                rule.priority
            );
            draft.note(&route.server, NoteKind::LeftAlone, text, Some(TAG_STRIPPED));
        }
        if rule.priority < priority {
            let only = if rule.conditions.other.is_empty() {
                String::new()
            } else {
                format!(" (where also {})", rule.conditions.other.join(" and "))
            };
            let text = format!(
                "rule {} of others stands before rule {priority} and catches {}{only}",
                rule.priority,
                rule.conditions.paths.join(", ")
            );
            draft.note(&route.server, NoteKind::Advice, text, Some(SHADOWED));
        }
    }
}

/// Whether an `ELBv2` path pattern matches `path`: `*` any run of characters, `?` any one. Paths are
/// ASCII.
pub(super) fn glob(pattern: &str, path: &str) -> bool {
    let (pattern, path) = (pattern.as_bytes(), path.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < path.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(c) if *c == b'?' || Some(c) == path.get(t) => {
                p += 1;
                t += 1;
            }
            Some(_) | None => match retry {
                Some((after_star, from)) => {
                    retry = Some((after_star, from + 1));
                    p = after_star;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|c| *c == b'*')
}
