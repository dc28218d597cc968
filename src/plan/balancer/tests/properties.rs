//! For any listener, any hosts and any single failure: nothing of others is touched, and once
//! failures stop the plans become empty in bounded passes.

use super::cloud::{Cloud, HostOf, direct, edge, id, odd_rewrite, our_tags, port};
use crate::model::balancer::{BalancerOp, Owner, RouteWant, RuleAction, TargetState};
use crate::model::time::Span;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const SERVERS: [&str; 6] = ["a", "b-1", "c_2", "time", "git", "aws-documentation-mcp-server"];

/// What happens between two passes.
#[derive(Clone, Debug)]
enum Event {
    /// Host 0 or 1 runs a pass, perhaps with a failing step: refused or done unheard.
    Pass(usize, Option<(usize, bool)>),
    /// A host's file changes: server, then gone, edge or direct, and its ports.
    Want(usize, usize, u8, u16),
    /// Somebody deletes a rule.
    DeleteRule(usize),
    /// Somebody deletes a group, whoever uses it.
    DeleteGroup(usize),
    /// Somebody edits a rule.
    EditRule(usize),
    /// A second rule of ours appears.
    Duplicate(usize, u32),
    /// Somebody strips the tags of a rule.
    Strip(usize),
    /// Somebody adds a rule of their own.
    Foreign(u32),
    /// Time passes, in seconds.
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let fault = proptest::option::of((0..8_usize, any::<bool>()));
    prop_oneof![
        6 => (0..2_usize, fault).prop_map(|(host, fault)| Event::Pass(host, fault)),
        4 => (0..2_usize, 0..SERVERS.len(), 0..4_u8, 0..3_u16).prop_map(|(h, s, k, p)| Event::Want(h, s, k, p)),
        1 => (0..8_usize).prop_map(Event::DeleteRule),
        1 => (0..8_usize).prop_map(Event::DeleteGroup),
        1 => (0..8_usize).prop_map(Event::EditRule),
        1 => (0..SERVERS.len(), 100..112_u32).prop_map(|(s, p)| Event::Duplicate(s, p)),
        1 => (0..8_usize).prop_map(Event::Strip),
        1 => (100..112_u32).prop_map(Event::Foreign),
        2 => (1..60_u64).prop_map(Event::Wait),
    ]
}

fn want(host: usize, server: usize, kind: u8, ports: u16) -> Option<RouteWant> {
    let base = 8000 + u16::try_from(host * 1000 + server * 10).unwrap();
    let ports: Vec<u16> = (0..ports).map(|n| base + n).collect();
    match kind {
        0 => None,
        1 => Some(direct(SERVERS[server], &ports)),
        _ => Some(edge(SERVERS[server], &ports)),
    }
}

fn happen(cloud: &mut Cloud, hosts: &mut [HostOf; 2], event: &Event) {
    let free = |cloud: &Cloud, priority: u32| cloud.rules.iter().all(|r| r.rule.priority != priority);
    match *event {
        Event::Pass(host, fault) => drop(hosts[host].pass(cloud, fault)),
        Event::Want(host, server, kind, ports) => {
            let of = id(SERVERS[server]);
            match want(host, server, kind, ports) {
                Some(want) => drop(hosts[host].wants.insert(of, want)),
                None => drop(hosts[host].wants.remove(&of)),
            }
        }
        Event::DeleteRule(n) if n < cloud.rules.len() => drop(cloud.rules.remove(n)),
        Event::DeleteGroup(n) if n < cloud.groups.len() => drop(cloud.groups.remove(n)),
        Event::EditRule(n) if n < cloud.rules.len() => cloud.rules[n].rule.rewrites.push(odd_rewrite()),
        Event::Duplicate(server, priority) if free(cloud, priority) => {
            let path = format!("/mcp/{}", SERVERS[server]);
            cloud.add_rule(priority, &[&path], RuleAction::Other("fixed".into()), our_tags(SERVERS[server]));
        }
        Event::Strip(n) if n < cloud.rules.len() => cloud.rules[n].tags.clear(),
        Event::Foreign(priority) if free(cloud, priority) => {
            cloud.add_rule(priority, &["/mcp/*"], RuleAction::Other("fixed".into()), BTreeMap::new());
        }
        Event::Wait(secs) => cloud.now = cloud.now.after(Span::secs(secs)),
        Event::DeleteRule(_)
        | Event::DeleteGroup(_)
        | Event::EditRule(_)
        | Event::Duplicate(..)
        | Event::Strip(_)
        | Event::Foreign(_) => {}
    }
}

fn foreign(cloud: &Cloud) -> Vec<String> {
    let is_foreign = |tags: &BTreeMap<String, String>| !tags.contains_key(crate::model::mark::STACK);
    let rules = cloud.rules.iter().filter(|r| is_foreign(&r.tags)).map(|r| format!("{:?}", r.rule));
    let groups = cloud.groups.iter().filter(|g| is_foreign(&g.tags)).map(|g| format!("{g:?}"));
    rules.chain(groups).collect()
}

/// Every wanted server of every host is routed as that host wants it, or its notes say why not.
fn check_end(cloud: &mut Cloud, hosts: &mut [HostOf; 2]) {
    let mut priorities = BTreeSet::new();
    assert!(cloud.rules.iter().all(|r| priorities.insert(r.rule.priority)), "two rules on one priority");
    for host in hosts.iter_mut() {
        let outcome = host.plan(cloud);
        let view = cloud.view(&host.target, None);
        for (server, want) in &host.wants {
            let blocked = outcome
                .notes
                .get(server)
                .into_iter()
                .flatten()
                .any(|note| note.kind == crate::plan::balancer::NoteKind::Blocked);
            if want.ports.is_empty() || blocked {
                continue;
            }
            let ours =
                |owner: &Owner| matches!(owner, Owner::Ours { server: Some(s), .. } if s == server.as_str());
            let rules: Vec<_> = view.rules.iter().filter(|rule| ours(&rule.owner)).collect();
            assert_eq!(rules.len(), 1, "rules of {server}");
            let group =
                view.target_groups.iter().find(|g| rules[0].action == RuleAction::Forward(g.arn.clone()));
            let group = group.unwrap_or_else(|| panic!("rule of {server} goes nowhere"));
            // A port that drains is not in use any more, however long it is listed.
            let own =
                |t: &&crate::model::balancer::Target| t.id == host.target && t.state != TargetState::Draining;
            let ports: BTreeSet<u16> =
                group.targets.known().unwrap().iter().filter(own).map(|t| t.port).collect();
            let shared = !ours(&group.owner);
            if !shared {
                assert_eq!(ports, want.ports.iter().map(|p| p.get()).collect(), "targets of {server}");
            }
        }
    }
    let wanted: BTreeSet<&str> = hosts.iter().flat_map(|h| h.wants.keys().map(|s| s.as_str())).collect();
    let view = cloud.view("i-0", None);
    // A rule to the shared group stays while other hosts are in it, which may want its server; so do
    // other rules of that server.
    let of = |rule: &crate::model::balancer::Rule| match &rule.owner {
        Owner::Ours { server: Some(server), .. } => Some(server.clone()),
        Owner::Ours { server: None, .. } | Owner::Foreign => None,
    };
    let shared = |rule: &&crate::model::balancer::Rule| matches!(&rule.action, RuleAction::Forward(arn) if arn.as_str().contains("mcp-shared"));
    let stay: BTreeSet<String> = view.rules.iter().filter(shared).filter_map(of).collect();
    for server in view.rules.iter().filter_map(of) {
        assert!(wanted.contains(server.as_str()) || stay.contains(&server), "an orphan rule of {server}");
    }
}

fn run(events: &[Event], lazy: bool, shared: bool) {
    let mut cloud = Cloud::default();
    let mut hosts = [HostOf::new("i-0", []), HostOf::new("i-1", [])];
    for host in &mut hosts {
        (host.policy.priority_end, host.lazy) = (115, lazy);
        if shared {
            (host.policy.target_groups_max, host.policy.shared_port) = (4, Some(port(7000)));
        }
    }
    for event in events {
        let before = foreign(&cloud);
        let is_pass = matches!(event, Event::Pass(..));
        happen(&mut cloud, &mut hosts, event);
        assert!(!is_pass || before == foreign(&cloud), "a pass changed what is not ours");
    }
    // A group that somebody deleted by hand may leave the hosts waiting for each other's tags; they
    // read everything now and then, as the rotation makes them do.
    let before = foreign(&cloud);
    let mut quiet = 0;
    for pass in 0..60 {
        let host = &mut hosts[pass % 2];
        host.lazy = lazy && pass % 4 < 2;
        let outcome = host.pass(&mut cloud, None);
        quiet = if outcome.steps.is_empty() { quiet + 1 } else { 0 };
        if quiet >= 8 {
            break;
        }
        cloud.now = cloud.now.after(Span::secs(20));
    }
    assert!(
        quiet >= 8,
        "does not come to rest: {:#?} {:#?}",
        hosts[0].plan(&mut cloud).steps,
        hosts[1].plan(&mut cloud).steps
    );
    assert_eq!(before, foreign(&cloud));
    hosts.iter_mut().for_each(|host| host.lazy = false);
    check_end(&mut cloud, &mut hosts);
}

/// The delay could not be set in time, so that a port drains for as long as AWS has it by itself.
#[test]
fn a_drain_is_waited_for_as_long_as_the_load_balancer_lets_it_last() {
    let first = Event::Pass(0, Some((1, false)));
    let again = Event::Pass(0, Some((0, false)));
    run(&[Event::Want(0, 1, 2, 2), first, Event::Pass(0, None), Event::Want(0, 1, 2, 1), again], true, false);

    let mut cloud = Cloud::default();
    let mut host = HostOf::new("i-0", [edge("time", &[8001, 8002])]);
    let delay = |host: &mut HostOf, cloud: &mut Cloud| {
        let steps = host.plan(cloud).steps;
        steps.iter().position(|step| matches!(step.op, BalancerOp::SetDeregistrationDelay { .. }))
    };
    let fault = delay(&mut host, &mut cloud).map(|at| (at, false));
    drop(host.pass(&mut cloud, fault));
    host.wants.insert(id("time"), edge("time", &[8001]));
    let fault = delay(&mut host, &mut cloud).map(|at| (at, false));
    assert!(fault.is_some(), "it is tried again");
    drop(host.pass(&mut cloud, fault));
    let until: Vec<_> = host.memory.draining.values().copied().collect();
    assert_eq!(until, [cloud.now.after(Span::secs(300))]);
}

/// The rule to the shared group stays for the other host's sake, and with it what a hand made of it.
#[test]
fn rules_of_a_server_that_another_host_may_want_stay_together() {
    let events = [
        Event::Want(0, 1, 1, 1),
        Event::Strip(0),
        Event::Want(0, 3, 1, 1),
        Event::Pass(0, None),
        Event::Pass(0, None),
        Event::Want(0, 4, 2, 1),
        Event::Want(1, 0, 1, 1),
        Event::Want(1, 2, 2, 1),
        Event::Pass(1, None),
        Event::Duplicate(2, 105),
        Event::Want(1, 2, 0, 0),
    ];
    run(&events, false, true);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn hosts_come_to_rest(events in proptest::collection::vec(event(), 0..40)) {
        run(&events, false, false);
    }

    #[test]
    fn hosts_come_to_rest_reading_only_what_they_asked_for(events in proptest::collection::vec(event(), 0..40)) {
        run(&events, true, false);
    }

    #[test]
    fn hosts_come_to_rest_near_the_quota(events in proptest::collection::vec(event(), 0..40)) {
        run(&events, false, true);
    }
}
