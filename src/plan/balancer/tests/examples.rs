//! Named situations, each one a sentence of the rules.

use super::cloud::{Cloud, HostOf, LISTENER, direct, edge, id, odd_rewrite, our_tags, port, stack};
use crate::model::balancer::{
    BalancerOp, BalancerSeen, EMPTY_SINCE_TAG, RuleAction, Standing, TargetGroupFixed, TargetState,
};
use crate::model::observed::Seen;
use crate::model::time::Span;
use crate::plan::balancer::{self, Outcome, standing};
use std::collections::BTreeMap;

fn names(outcome: &Outcome) -> Vec<&'static str> {
    let name = |op: &BalancerOp| match op {
        BalancerOp::CreateTargetGroup { .. } => "create group",
        BalancerOp::SetHealthCheck { .. } => "check",
        BalancerOp::SetDeregistrationDelay { .. } => "delay",
        BalancerOp::SetTags { .. } => "tags",
        BalancerOp::Register { .. } => "register",
        BalancerOp::Deregister { .. } => "deregister",
        BalancerOp::CreateRule { .. } => "create rule",
        BalancerOp::ModifyRule { .. } => "modify rule",
        BalancerOp::SetPriorities { .. } => "priorities",
        BalancerOp::DeleteRule { .. } => "delete rule",
        BalancerOp::DeleteTargetGroup { .. } => "delete group",
    };
    outcome.steps.iter().map(|step| name(&step.op)).collect()
}

fn codes(outcome: &Outcome, server: &str) -> Vec<&'static str> {
    outcome.notes.get(&id(server)).into_iter().flatten().filter_map(|note| note.code).collect()
}

fn settled(wants: impl IntoIterator<Item = crate::model::balancer::RouteWant>) -> (Cloud, HostOf) {
    let (mut cloud, mut host) = (Cloud::default(), HostOf::new("i-a", wants));
    host.settle(&mut cloud);
    (cloud, host)
}

#[test]
fn a_new_server_gets_group_targets_and_rule_in_this_order() {
    let (mut cloud, mut host) = (Cloud::default(), HostOf::new("i-a", [edge("time", &[8000])]));
    let outcome = host.pass(&mut cloud, None);
    assert_eq!(names(&outcome), ["create group", "delay", "register", "create rule"]);
    assert_eq!(outcome.steps[3].after, [0, 2]);
    assert_eq!(names(&host.pass(&mut cloud, None)), [""; 0]);
    assert_eq!(cloud.rules[0].rule.conditions.paths, ["/mcp/time", "/mcp/time/*"]);
    assert!(cloud.rules[0].rule.rewrites.is_empty());
}

#[test]
fn group_names_are_valid_and_never_collide() {
    let fixed =
        TargetGroupFixed { protocol: "HTTP".into(), port: 80, vpc_id: "v".into(), target_type: "ip".into() };
    let of = |server: &str| balancer::group_name(&stack(), LISTENER, server, &fixed);
    let ids = [
        "a",
        "a_b",
        "a-b",
        "aws-documentation-mcp-server",
        "aws-documentation-mcp-server-2",
        "x_-_-y",
        "shared",
    ];
    let mut all: Vec<String> = ids.map(of).into();
    all.push(balancer::shared_group_name(&stack(), LISTENER, &fixed));
    for name in &all {
        assert!(name.len() <= 32 && !name.contains("--") && !name.ends_with('-'), "{name}");
        assert!(
            name.starts_with("mcp-")
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'),
            "{name}"
        );
    }
    all.sort();
    all.dedup();
    assert_eq!(all.len(), ids.len() + 1);
}

#[test]
fn direct_servers_are_rewritten_with_their_query_and_called_weak() {
    let (cloud, mut host) = settled([direct("a-b", &[8000])]);
    let rewrite = &cloud.rules[0].rule.rewrites[0];
    assert_eq!((rewrite.regex.as_str(), rewrite.replace.as_str()), (r"^/mcp/a-b(/mcp)?/?(\?.*)?$", "/mcp$2"));
    assert_eq!(cloud.groups[0].check.matcher, "200-499");
    assert_eq!(codes(&host.plan(&mut cloud.clone()), "a-b"), [balancer::WEAK_CHECK]);
    host.wants.get_mut(&id("a-b")).unwrap().health_path = Some("/ok".to_owned());
    let outcome = host.plan(&mut cloud.clone());
    assert_eq!(names(&outcome), ["tags", "check"]);
    assert!(codes(&outcome, "a-b").is_empty());
}

#[test]
fn foreign_rules_are_stepped_around_and_a_full_band_blocks_one_server_only() {
    let mut cloud = Cloud::default();
    cloud.add_rule(50_000, &["/*"], RuleAction::Other("fixed".into()), BTreeMap::new());
    cloud.add_rule(100, &["/mcp/time/*"], RuleAction::Other("fixed".into()), BTreeMap::new());
    let mut host = HostOf::new("i-a", [edge("git", &[8001]), edge("time", &[8000])]);
    host.policy.priority_end = 101;
    let outcome = host.pass(&mut cloud, None);
    assert_eq!(cloud.rules.len(), 3);
    assert_eq!(codes(&outcome, "time"), [balancer::BAND_FULL]);
    assert!(codes(&outcome, "git").is_empty());
}

#[test]
fn a_rule_behind_a_foreign_one_is_reported() {
    let mut cloud = Cloud::default();
    cloud.add_rule(5, &["/mcp/*"], RuleAction::Other("fixed".into()), BTreeMap::new());
    let mut host = HostOf::new("i-a", [edge("time", &[8000])]);
    host.settle(&mut cloud);
    assert_eq!(codes(&host.plan(&mut cloud), "time"), [balancer::SHADOWED]);
}

#[test]
fn stripped_tags_are_reported_and_nothing_is_adopted() {
    let (mut cloud, mut host) = settled([edge("time", &[8000])]);
    cloud.rules[0].tags.clear();
    let outcome = host.pass(&mut cloud, None);
    assert_eq!(names(&outcome), ["create rule"]);
    assert!(codes(&outcome, "time").contains(&balancer::TAG_STRIPPED));
    cloud.groups[0].tags.clear();
    let outcome = host.pass(&mut cloud, None);
    assert_eq!(names(&outcome), [""; 0]);
    assert_eq!(codes(&outcome, "time"), [balancer::NAME_TAKEN]);
}

#[test]
fn hand_edits_are_reverted_and_duplicates_removed_last() {
    let (mut cloud, mut host) = settled([edge("time", &[8000])]);
    let to = cloud.rules[0].rule.action.clone();
    cloud.rules[0].rule.rewrites.push(odd_rewrite());
    cloud.add_rule(199, &["/mcp/time"], to, our_tags("time"));
    let outcome = host.pass(&mut cloud, None);
    assert_eq!(names(&outcome), ["modify rule", "delete rule"]);
    assert_eq!(outcome.steps[1].after, [0]);
    assert_eq!(cloud.rules.len(), 1);
    assert!(host.plan(&mut cloud).steps.is_empty());
}

#[test]
fn a_deleted_group_is_made_again_and_the_rule_repaired() {
    let (mut cloud, mut host) = settled([edge("time", &[8000])]);
    cloud.groups.clear();
    assert_eq!(names(&host.pass(&mut cloud, None)), ["create group", "delay", "register", "modify rule"]);
    assert!(host.plan(&mut cloud).steps.is_empty());
}

#[test]
fn a_port_change_registers_before_it_deregisters_and_waits_for_the_drain() {
    let (mut cloud, mut host) = settled([direct("time", &[8000])]);
    host.wants.insert(id("time"), direct("time", &[8000, 8001]));
    assert_eq!(names(&host.pass(&mut cloud, None)), ["register"]);
    host.wants.insert(id("time"), direct("time", &[8001]));
    let outcome = host.pass(&mut cloud, None);
    assert_eq!(names(&outcome), ["deregister"]);
    let until = cloud.now.after(Span::secs(30));
    assert_eq!(outcome.next_look, Some(until));
    let ask = |cloud: &mut Cloud, host: &HostOf, p| {
        let seen = BalancerSeen::On(Seen::Known(Box::new(cloud.view("i-a", None))));
        standing(&seen, &host.memory, &stack(), &id("time"), port(p), cloud.now)
    };
    assert_eq!(ask(&mut cloud, &host, 8000), Standing::Draining(until));
    assert_eq!(ask(&mut cloud, &host, 8001), Standing::Healthy);
    cloud.now = cloud.now.after(Span::secs(10));
    assert!(host.pass(&mut cloud, None).steps.is_empty());
    assert_eq!(ask(&mut cloud, &host, 8000), Standing::Draining(until), "the wait does not begin anew");
    // Wanted again while it drains: registered again.
    let mut again = (cloud.clone(), host.clone());
    again.1.wants.insert(id("time"), direct("time", &[8000, 8001]));
    assert_eq!(names(&again.1.pass(&mut again.0, None)), ["register"]);
    assert!(again.1.memory.draining.is_empty());
    cloud.now = until;
    assert_eq!(ask(&mut cloud, &host, 8000), Standing::Absent);
    assert!(host.pass(&mut cloud, None).memory.draining.is_empty());
}

#[test]
fn a_removed_server_leaves_in_two_phases() {
    let (mut cloud, mut host) = settled([edge("time", &[8000]), edge("git", &[8001])]);
    host.wants.remove(&id("time"));
    assert_eq!(names(&host.pass(&mut cloud, None)), ["deregister"]);
    cloud.now = cloud.now.after(Span::secs(31));
    assert_eq!(names(&host.pass(&mut cloud, None)), ["tags"]);
    cloud.now = cloud.now.after(Span::secs(10));
    assert_eq!(names(&host.pass(&mut cloud, None)), [""; 0]);
    cloud.now = cloud.now.after(Span::secs(21));
    let outcome = host.pass(&mut cloud, None);
    assert_eq!(names(&outcome), ["delete rule", "delete group"]);
    assert_eq!(outcome.steps[1].after, [0]);
    host.settle(&mut cloud);
    assert_eq!((cloud.rules.len(), cloud.groups.len()), (1, 1));
}

#[test]
fn kept_and_unclaimed_objects_stay() {
    let (mut cloud, mut host) = settled([edge("time", &[8000])]);
    let want = host.wants.remove(&id("time")).unwrap();
    host.keep_unclaimed = true;
    assert!(host.pass(&mut cloud, None).steps.is_empty());
    host.keep_unclaimed = false;
    host.keep.insert(id("time"));
    assert!(host.pass(&mut cloud, None).steps.is_empty());
    host.wants.insert(id("time"), want);
    cloud.rules[0].rule.rewrites.push(odd_rewrite());
    assert!(host.pass(&mut cloud, None).steps.is_empty());
}

#[test]
fn a_joining_host_wins_over_removal() {
    let (mut cloud, mut a) = settled([edge("time", &[8000])]);
    let mut b = HostOf::new("i-b", [edge("time", &[9000])]);
    a.wants.clear();
    assert_eq!(names(&a.pass(&mut cloud, None)), ["deregister"]);
    cloud.now = cloud.now.after(Span::secs(31));
    assert_eq!(names(&a.pass(&mut cloud, None)), ["tags"]);
    assert_eq!(names(&b.pass(&mut cloud, None)), ["tags", "register"]);
    assert!(!cloud.groups[0].tags.contains_key(EMPTY_SINCE_TAG));
    cloud.now = cloud.now.after(Span::secs(60));
    assert!(a.pass(&mut cloud, None).steps.is_empty());
    assert!(a.memory.empty_since.is_empty());
    assert_eq!((cloud.rules.len(), cloud.groups.len()), (1, 1));
}

#[test]
fn shared_rules_change_only_when_live_hosts_agree() {
    let (mut cloud, mut a) = settled([edge("time", &[8000])]);
    let mut b = HostOf::new("i-b", [edge("time", &[9000])]);
    b.settle(&mut cloud);
    a.wants.insert(id("time"), direct("time", &[8000, 8001]));
    let outcome = a.pass(&mut cloud, None);
    assert_eq!(names(&outcome), ["tags"]);
    assert!(codes(&outcome, "time").contains(&balancer::HOSTS_DIFFER));
    b.wants.insert(id("time"), direct("time", &[9000]));
    b.settle(&mut cloud);
    assert_eq!(cloud.rules[0].rule.rewrites.len(), 1);
    a.settle(&mut cloud);
    assert_eq!(cloud.groups[0].targets.len(), 3);
}

#[test]
fn near_the_quota_new_edge_servers_share_a_group_and_old_ones_stay() {
    let (mut cloud, mut host) = settled([edge("a1", &[8000])]);
    cloud.used_elsewhere = 89;
    host.wants.insert(id("b1"), edge("b1", &[8001]));
    host.wants.insert(id("c1"), edge("c1", &[8002]));
    host.wants.insert(id("d1"), direct("d1", &[8003]));
    host.policy.shared_port = Some(port(7000));
    host.settle(&mut cloud);
    let ports: Vec<Vec<u16>> =
        cloud.groups.iter().map(|g| g.targets.keys().map(|(_, p)| *p).collect()).collect();
    assert_eq!(ports, [vec![8000], vec![7000], vec![8003]]);
    assert_eq!(cloud.rules.len(), 4);
    let seen = BalancerSeen::On(Seen::Known(Box::new(cloud.view("i-a", None))));
    assert_eq!(standing(&seen, &host.memory, &stack(), &id("b1"), port(8001), cloud.now), Standing::Healthy);
    // An old one that loses its group gets its own back.
    cloud.groups.remove(0);
    host.settle(&mut cloud);
    assert_eq!(cloud.groups[2].targets.keys().map(|(_, p)| *p).collect::<Vec<_>>(), [8000]);
    cloud.used_elsewhere = 0;
    assert!(host.plan(&mut cloud).steps.is_empty());
    host.wants.remove(&id("b1"));
    host.wants.remove(&id("c1"));
    host.settle(&mut cloud);
    assert_eq!((cloud.rules.len(), cloud.groups.len()), (2, 2));
}

#[test]
fn a_host_that_leaves_is_in_no_group_and_comes_back_to_its_rules() {
    let (mut cloud, mut host) = settled([edge("a1", &[8000]), direct("b1", &[8001])]);
    cloud.used_elsewhere = 89;
    host.policy.shared_port = Some(port(7000));
    host.wants.insert(id("c1"), edge("c1", &[8002]));
    host.settle(&mut cloud);
    let targets = |cloud: &Cloud| -> Vec<u16> {
        cloud.groups.iter().flat_map(|group| group.targets.keys().map(|(_, port)| *port)).collect()
    };
    assert_eq!(targets(&cloud), [8000, 8001, 7000]);
    let (rules, wants) = (cloud.rules.len(), host.wants.clone());
    host.wants.values_mut().for_each(|want| want.ports.clear());
    host.policy.leaving = true;
    host.settle(&mut cloud);
    assert_eq!((targets(&cloud), cloud.rules.len()), (Vec::new(), rules));
    assert!(host.memory.registered.values().all(Vec::is_empty), "{:?}", host.memory.registered);
    (host.wants, host.policy.leaving) = (wants, false);
    host.settle(&mut cloud);
    assert_eq!((targets(&cloud), cloud.rules.len()), (vec![8000, 8001, 7000], rules));
}

#[test]
fn at_the_quota_without_a_shared_port_one_server_is_blocked_with_a_remedy() {
    let mut cloud = Cloud { used_elsewhere: 99, ..Cloud::default() };
    let mut host = HostOf::new("i-a", [edge("a1", &[8000]), edge("b1", &[8001])]);
    host.settle(&mut cloud);
    let outcome = host.plan(&mut cloud);
    assert_eq!(codes(&outcome, "b1"), [balancer::GROUP_QUOTA]);
    assert!(outcome.notes[&id("b1")][0].text.contains("[gateway] port"));
    assert_eq!(cloud.groups.len(), 1);
}

#[test]
fn another_target_type_moves_the_rule_before_the_old_group_goes() {
    let (mut cloud, mut host) = settled([edge("time", &[8000])]);
    host.policy.target_type = "ip".to_owned();
    host.target = "10.0.0.1".to_owned();
    assert_eq!(names(&host.pass(&mut cloud, None)), ["create group", "delay", "register", "modify rule"]);
    assert_eq!(cloud.groups.len(), 2);
    cloud.groups[0].targets.clear();
    host.settle(&mut cloud);
    assert_eq!(cloud.groups.len(), 1);
}

#[test]
fn rules_outside_the_band_move_in_one_call() {
    let (mut cloud, mut host) = settled([edge("time", &[8000]), edge("git", &[8001])]);
    (host.policy.priority_start, host.policy.priority_end) = (1000, 1001);
    let outcome = host.pass(&mut cloud, None);
    assert_eq!(names(&outcome), ["tags", "tags", "priorities"]);
    assert!(cloud.rules.iter().all(|r| (1000..=1001).contains(&r.rule.priority)));
    assert!(host.plan(&mut cloud).steps.is_empty());
}

#[test]
fn without_a_target_id_nothing_is_done_and_the_last_known_one_serves() {
    let (mut cloud, mut host) = (Cloud::default(), HostOf::new("i-a", [edge("time", &[8000])]));
    let mut view = cloud.view("i-a", None);
    view.target_id = Seen::Unknown("no IMDS".to_owned());
    let stack = stack();
    let input = |memory| balancer::Input {
        wants: &host.wants,
        keep: &host.keep,
        keep_unclaimed: false,
        stack: &stack,
        view: &view,
        memory,
        policy: &host.policy,
        now: cloud.now,
    };
    let outcome = balancer::plan(&input(&host.memory));
    assert!(outcome.steps.is_empty());
    assert_eq!(codes(&outcome, "time"), [balancer::NO_TARGET_ID]);
    let known =
        crate::model::balancer::BalancerMemory { target_id: Some("i-a".into()), ..Default::default() };
    assert_eq!(names(&balancer::plan(&input(&known))).len(), 4);
    host.settle(&mut cloud);
}

#[test]
fn a_group_of_the_stack_on_another_listener_is_left_alone() {
    let (mut cloud, mut host) = settled([edge("time", &[8000])]);
    cloud.groups[0].name = "mcp-time-00000000".to_owned();
    cloud.rules.clear();
    host.wants.clear();
    let outcome = host.pass(&mut cloud, None);
    assert!(outcome.steps.is_empty());
    assert_eq!(outcome.general[0].code, Some(balancer::LEFT_ALONE));
}

#[test]
fn patterns_match_as_the_load_balancer_does() {
    use crate::plan::balancer::rules::glob;
    assert!(
        glob("/mcp/a", "/mcp/a")
            && glob("/mcp/a/*", "/mcp/a/")
            && glob("/*", "/mcp/a")
            && glob("/mc?/a*", "/mcp/a/x")
    );
    assert!(!glob("/mcp/a", "/mcp/ab") && !glob("/mcp/a/*", "/mcp/a") && !glob("/mcp/A", "/mcp/a"));
}

#[test]
fn the_shipped_policy_allows_what_plans_ask_for() {
    use crate::model::balancer::HOST_TAG_PREFIX;
    let policy = include_str!("../../../../packaging/iam-policy.json");
    for tag in [crate::model::mark::MANAGED_BY, crate::model::mark::STACK] {
        for kind in ["RequestTag", "ResourceTag"] {
            assert!(policy.contains(&format!("\"aws:{kind}/{tag}\"")), "{kind} {tag}");
        }
    }
    for key in [crate::model::mark::SPEC_HASH, EMPTY_SINCE_TAG, &format!("{HOST_TAG_PREFIX}*")] {
        assert!(policy.contains(&format!("\"{key}\"")), "{key}");
    }
    let (cloud, mut host) = settled([edge("time", &[8000])]);
    host.wants.insert(id("time"), direct("time", &[8000]));
    for step in host.plan(&mut cloud.clone()).steps {
        if let BalancerOp::ModifyRule { tags, .. } = step.op {
            assert_eq!(tags.keys().collect::<Vec<_>>(), [crate::model::mark::SPEC_HASH]);
        }
    }
}

#[test]
fn every_target_state_has_its_standing() {
    let (mut cloud, host) = settled([edge("time", &[8000])]);
    let mut view = cloud.view("i-a", None);
    let mut ask = |state, reason: Option<&str>| {
        if let Seen::Known(targets) = &mut view.target_groups[0].targets {
            (targets[0].state, targets[0].reason) = (state, reason.map(str::to_owned));
        }
        let seen = BalancerSeen::On(Seen::Known(Box::new(view.clone())));
        standing(&seen, &host.memory, &stack(), &id("time"), port(8000), cloud.now)
    };
    assert_eq!(ask(TargetState::Healthy, None), Standing::Healthy);
    assert!(matches!(ask(TargetState::Initial, None), Standing::Pending(_)));
    assert!(matches!(ask(TargetState::Unused, Some("Target.NotInUse")), Standing::Pending(_)));
    assert!(matches!(ask(TargetState::Unused, Some("Target.InvalidState")), Standing::Unhealthy(_)));
    assert_eq!(ask(TargetState::Unused, Some("Target.NotRegistered")), Standing::Absent);
    assert_eq!(
        ask(TargetState::Unhealthy, Some("Target.Timeout")),
        Standing::Unhealthy("Target.Timeout".to_owned())
    );
    let until = cloud.now.after(Span::secs(30));
    assert_eq!(ask(TargetState::Draining, None), Standing::Draining(until));
    let off = BalancerSeen::Off("not configured".to_owned());
    assert_eq!(standing(&off, &host.memory, &stack(), &id("time"), port(8000), cloud.now), Standing::Absent);
    let unknown = BalancerSeen::On(Seen::Unknown("throttled".to_owned()));
    let standing = standing(&unknown, &host.memory, &stack(), &id("time"), port(8000), cloud.now);
    assert_eq!(standing, Standing::Unknown("throttled".to_owned()));
}

#[test]
fn an_outage_of_all_targets_is_told() {
    let (mut cloud, host) = settled([edge("time", &[8000])]);
    let mut view = cloud.view("i-a", None);
    if let Seen::Known(targets) = &mut view.target_groups[0].targets {
        targets[0].state = TargetState::Unhealthy;
    }
    let stack = stack();
    let outcome = balancer::plan(&balancer::Input {
        wants: &host.wants,
        keep: &host.keep,
        keep_unclaimed: false,
        stack: &stack,
        view: &view,
        memory: &host.memory,
        policy: &host.policy,
        now: cloud.now,
    });
    assert_eq!(codes(&outcome, "time"), [balancer::OUTAGE]);
    assert!(outcome.steps.is_empty());
}
