//! What is left of servers that no want claims: rules and target groups, in two phases.
//!
//! A host takes its own targets out at once. What is then without targets is marked with the time,
//! and goes only after the grace, if still nobody has registered: whoever joins wins. The last host
//! out does this without knowing that it is the last.

use crate::model::balancer::{
    BalancerOp, EMPTY_SINCE_TAG, GroupRef, Owner, Rule, RuleAction, TargetGroup, TargetState,
};
use crate::model::id::ServerId;
use crate::model::time::Timestamp;
use crate::plan::balancer::draft::Draft;
use crate::plan::balancer::groups::{Group, Home};
use crate::plan::balancer::{LEFT_ALONE, NoteKind, naming, targets};
use std::collections::{BTreeMap, BTreeSet};

/// How far a target group is on its way out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Somebody uses it, or that is not known.
    Stays,
    /// Nobody uses it; its rule may go, the group waits for its last connections.
    Drains,
    /// Nothing is left in it.
    Ready,
}

/// Plans the removal of everything unclaimed.
pub(super) fn collect(draft: &mut Draft<'_>) {
    report_strangers(draft);
    let claimed = |draft: &Draft<'_>, text: &str| {
        ServerId::new(text)
            .ok()
            .filter(|id| draft.input.wants.contains_key(id) || draft.input.keep.contains(id))
    };
    let servers: BTreeSet<&str> = draft.rules.keys().chain(draft.groups.keys()).copied().collect();
    for text in servers {
        match claimed(draft, text) {
            Some(id) => outgrown(draft, &id),
            None if draft.input.keep_unclaimed => {
                say(
                    draft,
                    text,
                    NoteKind::LeftAlone,
                    format!("objects of '{text}' stay: no removal while the configuration is not whole"),
                );
            }
            None => unclaimed(draft, text),
        }
    }
    shared(draft);
}

/// Rule and groups of a server that is to go.
fn unclaimed(draft: &mut Draft<'_>, text: &str) {
    let rules: Vec<&Rule> = draft.rules.get(text).cloned().unwrap_or_default();
    let groups: Vec<&TargetGroup> = draft.groups.get(text).cloned().unwrap_or_default();
    let stages: Vec<(&TargetGroup, Stage)> =
        groups.iter().map(|group| (*group, stage(draft, Some(text), group))).collect();
    if stages.iter().any(|(_, stage)| *stage == Stage::Stays) {
        return;
    }
    if groups.is_empty() && !(may_go_without_group(draft, text, &rules)) {
        return;
    }
    let id = ServerId::new(text).ok();
    let deleted: Vec<usize> = rules
        .iter()
        .map(|rule| {
            let op = BalancerOp::DeleteRule { rule: rule.arn.clone() };
            draft.step(id.as_ref(), op, format!("no host serves '{text}'"), Vec::new())
        })
        .collect();
    for (group, stage) in stages {
        if stage == Stage::Ready {
            delete_group(draft, Some(text), group, deleted.clone());
        }
    }
}

/// A rule that forwards to no group of its own: to a shared one, or to one that is gone.
fn may_go_without_group(draft: &mut Draft<'_>, text: &str, rules: &[&Rule]) -> bool {
    let shared: Option<&TargetGroup> = draft
        .shared_groups
        .iter()
        .copied()
        .find(|group| rules.iter().any(|rule| rule.action == RuleAction::Forward(group.arn.clone())));
    if let Some(group) = shared {
        let others = group.targets.known().map(|targets| {
            let used = |state| state != TargetState::Draining;
            targets.iter().any(|target| used(target.state) && Some(&target.id) != draft.target_id.as_ref())
        });
        if others != Some(false) {
            let why =
                "other hosts share its target group and may want it; delete its rule by hand if none does";
            say(draft, text, NoteKind::LeftAlone, format!("rule of '{text}' stays: {why}"));
            return false;
        }
    }
    waited(draft, &format!("rule:{text}"))
}

/// Whether `key` has been without use for the grace; starts to count if it is new.
fn waited(draft: &mut Draft<'_>, key: &str) -> bool {
    let (now, grace) = (draft.input.now, draft.input.policy.gc_grace);
    let since = *draft.memory.empty_since.entry(key.to_owned()).or_insert(now);
    if now.since(since) >= grace && draft.input.memory.empty_since.contains_key(key) {
        return true;
    }
    draft.look_at(since.after(grace));
    false
}

/// Groups of a wanted server that it does not live in any more (another VPC, another target type).
fn outgrown(draft: &mut Draft<'_>, id: &ServerId) {
    let Some(home) = draft.homes.get(id).cloned() else { return };
    if draft.input.keep_unclaimed || draft.input.keep.contains(id) {
        return;
    }
    for group in draft.groups.get(id.as_str()).cloned().unwrap_or_default() {
        let old = group.name != home && !draft.is_forwarded_to(group, None);
        if old && stage(draft, Some(id.as_str()), group) == Stage::Ready {
            delete_group(draft, Some(id.as_str()), group, Vec::new());
        }
    }
}

/// Shared groups that no wanted server lives in and no rule forwards to.
fn shared(draft: &mut Draft<'_>) {
    if draft.input.keep_unclaimed || draft.shared.is_some() || !draft.input.keep.is_empty() {
        return;
    }
    for group in draft.shared_groups.clone() {
        let in_use =
            draft.is_forwarded_to(group, None) || draft.homes.values().any(|home| *home == group.name);
        if !in_use && stage(draft, None, group) == Stage::Ready {
            delete_group(draft, None, group, Vec::new());
        }
    }
}

/// Takes this host out of `group`, marks it when empty, and says how far it is.
fn stage(draft: &mut Draft<'_>, text: Option<&str>, group: &TargetGroup) -> Stage {
    let id = text.and_then(|text| ServerId::new(text).ok());
    let Some(listed) = group.targets.known() else {
        // Once it was seen that none of the targets is ours, the rotation is soon enough, unless
        // its time to go has come.
        let over = |since: &Timestamp| draft.input.now.since(*since) >= draft.input.policy.gc_grace;
        let since = draft.input.memory.empty_since.get(&group.name);
        let unused = !draft.is_forwarded_to(group, None);
        let due = since.is_some_and(|since| unused || over(since)) && !draft.is_forwarded_to(group, text);
        let ours = |id: &ServerId| draft.memory.registered.get(id).is_none_or(|own| !own.is_empty());
        if let Some(id) = id.as_ref().filter(|id| due || ours(id)) {
            draft.must_read(id);
        }
        return Stage::Stays;
    };
    let target_id = draft.target_id.clone();
    let own = target_id.as_deref().map(|own| targets::own_ports(listed, own).0).unwrap_or_default();
    if !own.is_empty() {
        let home = Home { name: group.name.clone(), shared: text.is_none() };
        let to = Group { home, to: GroupRef::Arn(group.arn.clone()), seen: Some(group), ready: Vec::new() };
        targets::leave(draft, id.as_ref(), &to, own, Vec::new());
        draft.memory.empty_since.remove(&group.name);
        return Stage::Stays;
    }
    if let Some(id) = &id {
        draft.memory.registered.insert(id.clone(), Vec::new());
    }
    if listed.iter().any(|target| target.state != TargetState::Draining) {
        draft.memory.empty_since.remove(&group.name);
        let name = text.unwrap_or("the shared group");
        say(
            draft,
            name,
            NoteKind::LeftAlone,
            format!("target group {} stays: other hosts are registered in it", group.name),
        );
        return Stage::Stays;
    }
    if !waited_in_public(draft, id.as_ref(), group) {
        return Stage::Stays;
    }
    if listed.is_empty() { Stage::Ready } else { Stage::Drains }
}

/// Like [`waited`], and by the tag that other hosts see and take away when they join.
fn waited_in_public(draft: &mut Draft<'_>, id: Option<&ServerId>, group: &TargetGroup) -> bool {
    let now = draft.input.now;
    let grace = draft.input.policy.gc_grace;
    let waited = waited(draft, &group.name);
    let tag = group.tags.get(EMPTY_SINCE_TAG).and_then(|ms| ms.parse().ok()).map(Timestamp);
    let own_tag = draft.target_id.as_deref().map(naming::host_tag).filter(|key| group.tags.contains_key(key));
    let Some(since) = tag else {
        let set = BTreeMap::from([(EMPTY_SINCE_TAG.to_owned(), now.0.to_string())]);
        let op = BalancerOp::SetTags {
            group: GroupRef::Arn(group.arn.clone()),
            set,
            remove: own_tag.into_iter().collect(),
        };
        draft.step(id, op, format!("target group {} has no targets", group.name), Vec::new());
        return false;
    };
    waited || now.since(since) >= grace
}

fn delete_group(draft: &mut Draft<'_>, text: Option<&str>, group: &TargetGroup, after: Vec<usize>) {
    let id = text.and_then(|text| ServerId::new(text).ok());
    if draft.is_forwarded_to(group, text) {
        let why = format!("target group {} stays: a rule that is not ours forwards to it", group.name);
        return say(draft, text.unwrap_or("the shared group"), NoteKind::LeftAlone, why);
    }
    let op = BalancerOp::DeleteTargetGroup { group: group.arn.clone(), name: group.name.clone() };
    draft.step(id.as_ref(), op, format!("nothing uses target group {}", group.name), after);
}

/// Objects with our stack's tags that no server or listener of ours can be found for.
fn report_strangers(draft: &mut Draft<'_>) {
    let view = draft.input.view;
    for rule in &view.rules {
        if matches!(&rule.owner, Owner::Ours { server: None, .. }) {
            let text = format!("rule {} has the tags of this stack but names no server", rule.priority);
            draft.say(NoteKind::LeftAlone, text, Some(LEFT_ALONE));
        }
    }
    let (stack, listener) = (draft.input.stack, view.listener.arn.as_str());
    for group in &view.target_groups {
        let Owner::Ours { server, .. } = &group.owner else { continue };
        let idle = group.load_balancers.is_empty();
        if idle && !naming::made_for(group, stack, listener, server.as_deref()) {
            let text = format!(
                "target group {} is of this stack, but not of this listener, and nothing uses it",
                group.name
            );
            draft.say(NoteKind::LeftAlone, text, Some(LEFT_ALONE));
        }
    }
}

fn say(draft: &mut Draft<'_>, server: &str, kind: NoteKind, text: String) {
    match ServerId::new(server) {
        Ok(id) => draft.note(&id, kind, text, None),
        Err(_) => draft.say(kind, text, None),
    }
}
