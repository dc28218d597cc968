//! Target groups: which one a server lives in, and that it is as it should be.
//!
//! One group per server, because health is judged per group. A load balancer takes 100 of them and
//! not one more, so near that limit new edge servers share one group on the gateway's port, which
//! serves every `/mcp/{id}`. A server never moves between the two by itself.

use crate::model::balancer::{
    BalancerOp, EMPTY_SINCE_TAG, GroupRef, HOST_TAG_PREFIX, Owner, RuleAction, TargetGroup, TargetState,
};
use crate::model::id::ServerId;
use crate::model::observed::Seen;
use crate::plan::balancer::draft::Draft;
use crate::plan::balancer::route::{self, Route};
use crate::plan::balancer::{GROUP_QUOTA, HOSTS_DIFFER, NAME_TAKEN, NoteKind, naming};
use std::collections::BTreeMap;

/// New edge servers share one group when fewer than one in this many groups is left.
const HEADROOM_PART: usize = 10;
/// Default port of our groups; every target names its own.
const GROUP_PORT: u16 = 80;
/// With more host tags than this on a group (AWS takes 50 tags), those of gone hosts are removed.
const HOST_TAGS_MAX: usize = 30;

/// Where a server lives.
#[derive(Clone, Debug)]
pub(super) struct Home {
    pub(super) name: String,
    pub(super) shared: bool,
}

/// A group that is there or will be.
#[derive(Clone)]
pub(super) struct Group<'a> {
    pub(super) home: Home,
    pub(super) to: GroupRef,
    pub(super) seen: Option<&'a TargetGroup>,
    /// Steps that must succeed before it can be used.
    pub(super) ready: Vec<usize>,
}

/// Decides where a server lives; `None`, with a note, when there is no place for it.
pub(super) fn choose(draft: &mut Draft<'_>, route: &Route) -> Option<Home> {
    let input = draft.input;
    let (stack, listener) = (input.stack, input.view.listener.arn.as_str());
    let fixed = draft.fixed(GROUP_PORT);
    let own =
        Home { name: naming::group_name(stack, listener, route.server.as_str(), &fixed), shared: false };
    let shared = || Home { name: naming::shared_group_name(stack, listener, &fixed), shared: true };
    let home = match draft.by_name.get(own.name.as_str()) {
        Some(_) => own,
        None if route.edge && forwards_to_shared(draft, &route.server) => shared(),
        None => place_new(draft, route, own, shared())?,
    };
    match draft.by_name.get(home.name.as_str()).map(|group| &group.owner) {
        Some(Owner::Foreign) => {
            let text = format!(
                "target group {} exists without our tags, so it is not touched; tag it again or delete it",
                home.name
            );
            draft.note(&route.server, NoteKind::Blocked, text, Some(NAME_TAKEN));
            None
        }
        Some(Owner::Ours { .. }) | None => Some(home),
    }
}

fn forwards_to_shared(draft: &Draft<'_>, server: &ServerId) -> bool {
    draft.rule_of(server.as_str()).is_some_and(|rule| {
        draft.shared_groups.iter().any(|group| rule.action == RuleAction::Forward(group.arn.clone()))
    })
}

/// A server without a group: its own as long as there is room, then the shared one.
fn place_new(draft: &mut Draft<'_>, route: &Route, own: Home, shared: Home) -> Option<Home> {
    let max = draft.input.policy.target_groups_max;
    let used = draft.groups_used;
    let near = used >= max.saturating_sub((max / HEADROOM_PART).max(1));
    let shared_port = draft.input.policy.shared_port.is_some();
    let shared_fits =
        used < max || draft.by_name.contains_key(shared.name.as_str()) || draft.shared.is_some();
    // A server that has a rule lost its group to somebody's hand: it gets it back, it does not move.
    let is_new = draft.rule_of(route.server.as_str()).is_none();
    if is_new && near && route.edge && shared_port && shared_fits {
        return Some(shared);
    }
    if used < max {
        return Some(own);
    }
    if !route.ports.is_empty() {
        let remedy = match (route.edge, shared_port) {
            (true, false) => "set [gateway] port, so that new edge servers share one target group",
            (false, _) => {
                "set orchestrator.route to edge for some servers and set [gateway] port, or use a second load balancer"
            }
            (true, true) => "remove a target group from the load balancer",
        };
        let text = format!("the load balancer has {used} of {max} target groups; {remedy}");
        draft.note(&route.server, NoteKind::Blocked, text, Some(GROUP_QUOTA));
    }
    None
}

/// Creates the group or brings it up to date. `None` when there is none and none is needed yet.
pub(super) fn ensure<'a>(
    draft: &mut Draft<'a>,
    route: &Route,
    home: &Home,
    target_id: &str,
) -> Option<Group<'a>> {
    if let (true, Some((group, _))) = (home.shared, &draft.shared) {
        return Some(group.clone());
    }
    let seen = draft.by_name.get(home.name.as_str()).copied();
    if let Some(seen) = seen {
        let group = Group {
            home: home.clone(),
            to: GroupRef::Arn(seen.arn.clone()),
            seen: Some(seen),
            ready: Vec::new(),
        };
        if !route.ports.is_empty() {
            repair(draft, route, &group, seen, target_id);
        }
        return Some(group);
    }
    if route.ports.is_empty() {
        return None;
    }
    Some(create(draft, route, home, target_id))
}

fn create<'a>(draft: &mut Draft<'a>, route: &Route, home: &Home, target_id: &str) -> Group<'a> {
    let fixed = draft.fixed(GROUP_PORT);
    let server = (!home.shared).then_some(&route.server);
    // What cannot change needs no newer hash later.
    let fixed_hash = crate::model::fingerprint::sha256_hex(&format!("{fixed:?}"), 16);
    let mut tags = naming::owner_tags(draft.input.stack, server, &fixed_hash);
    tags.insert(naming::host_tag(target_id), published(route, home));
    let check = check_for(route, home);
    let to = GroupRef::Planned(home.name.clone());
    let op = BalancerOp::CreateTargetGroup { name: home.name.clone(), fixed, check, tags };
    draft.groups_used += 1;
    let made = draft.step(server, op, format!("target group {} is missing", home.name), Vec::new());
    let delay = delay_secs(draft);
    let op = BalancerOp::SetDeregistrationDelay { group: to.clone(), seconds: delay };
    draft.step(server, op, format!("connections to a target that leaves may last {delay} s"), vec![made]);
    Group { home: home.clone(), to, seen: None, ready: vec![made] }
}

/// What a host says it wants; of the shared group it wants what everybody wants.
fn published(route: &Route, home: &Home) -> String {
    if home.shared { "shared".to_owned() } else { route.spec_hash.clone() }
}

fn check_for(route: &Route, home: &Home) -> crate::model::balancer::HealthCheck {
    if home.shared { route::edge_check() } else { route.check.clone() }
}

fn delay_secs(draft: &Draft<'_>) -> u32 {
    u32::try_from(draft.input.policy.deregistration_delay.as_secs_ceil()).unwrap_or(u32::MAX)
}

/// Tags, attributes and health check of a group that is there.
fn repair(draft: &mut Draft<'_>, route: &Route, group: &Group<'_>, seen: &TargetGroup, target_id: &str) {
    let server = (!group.home.shared).then_some(&route.server);
    if let Some(op) = tag_op(route, group, seen, target_id) {
        draft.step(
            server,
            op,
            format!("target group {} tells other hosts what this one wants", seen.name),
            Vec::new(),
        );
    }
    let (check, delay) = (check_for(route, &group.home), delay_secs(draft));
    let check_differs = seen.check != check;
    let delay_differs = seen.deregistration_delay.known().is_some_and(|seconds| *seconds != delay);
    if !(check_differs || delay_differs)
        || !may_change(draft, &route.server, seen, &published(route, &group.home))
    {
        return;
    }
    if delay_differs {
        let op = BalancerOp::SetDeregistrationDelay { group: group.to.clone(), seconds: delay };
        draft.step(
            server,
            op,
            format!("deregistration delay of {} should be {delay} s", seen.name),
            Vec::new(),
        );
    }
    if check_differs {
        let why =
            format!("health check of {} should be GET {} with {}", seen.name, check.path, check.matcher);
        let op = BalancerOp::SetHealthCheck { group: group.to.clone(), check };
        draft.step(server, op, why, Vec::new());
    }
}

/// This host's own tag set, the mark of emptiness and the tags of long gone hosts taken away.
fn tag_op(route: &Route, group: &Group<'_>, seen: &TargetGroup, target_id: &str) -> Option<BalancerOp> {
    let (key, value) = (naming::host_tag(target_id), published(route, &group.home));
    let set = match seen.tags.get(&key) {
        Some(said) if *said == value => BTreeMap::new(),
        Some(_) | None => BTreeMap::from([(key.clone(), value)]),
    };
    let mut remove: Vec<String> = seen.tags.keys().filter(|key| *key == EMPTY_SINCE_TAG).cloned().collect();
    let hosts: Vec<&String> = seen.tags.keys().filter(|key| key.starts_with(HOST_TAG_PREFIX)).collect();
    if let (true, Seen::Known(targets)) = (hosts.len() > HOST_TAGS_MAX, &seen.targets) {
        let gone =
            |tag: &str| *tag != key && !targets.iter().any(|target| naming::host_tag(&target.id) == *tag);
        remove.extend(hosts.into_iter().filter(|tag| gone(tag)).cloned());
    }
    (!set.is_empty() || !remove.is_empty()).then(|| BalancerOp::SetTags {
        group: group.to.clone(),
        set,
        remove,
    })
}

/// Whether something that hosts share may be changed: not while a live host wants it otherwise, and
/// not without knowing. Says so in a note.
pub(super) fn may_change(draft: &mut Draft<'_>, server: &ServerId, group: &TargetGroup, hash: &str) -> bool {
    match dissenters(draft, group, hash) {
        None => {
            draft.must_read(server);
            let text = format!("the targets of {} were not read in this pass", group.name);
            draft.note(server, NoteKind::Waiting, text, None);
            false
        }
        Some(hosts) if hosts.is_empty() => true,
        Some(hosts) => {
            let text = format!(
                "{} is shared with {}, whose configuration of this server differs; it changes once all agree",
                group.name,
                hosts.join(", ")
            );
            draft.note(server, NoteKind::Blocked, text, Some(HOSTS_DIFFER));
            false
        }
    }
}

/// Live hosts that say they want something else of `group`; `None` when its targets are not known.
pub(super) fn dissenters(draft: &Draft<'_>, group: &TargetGroup, hash: &str) -> Option<Vec<String>> {
    let targets = group.targets.known()?;
    let ours = draft.target_id.as_deref();
    let mut hosts: Vec<String> = targets
        .iter()
        .filter(|target| Some(target.id.as_str()) != ours && is_live(target.state))
        .filter(|target| group.tags.get(&naming::host_tag(&target.id)).is_some_and(|said| said != hash))
        .map(|target| target.id.clone())
        .collect();
    hosts.sort();
    hosts.dedup();
    Some(hosts)
}

/// Whether a target in this state shows that its host is alive.
const fn is_live(state: TargetState) -> bool {
    match state {
        TargetState::Initial | TargetState::Healthy | TargetState::Unused | TargetState::Unavailable => true,
        TargetState::Unhealthy | TargetState::Draining => false,
    }
}
