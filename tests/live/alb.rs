//! The balancer half on the wire: adapter and planner against a strict stand-in for `ELBv2`, through
//! a proxy that makes calls fail. Tests bear the numbers of the requirements.

#[path = "alb/aws.rs"]
mod aws;
#[path = "alb/doctor.rs"]
mod doctor;
#[path = "alb/drain.rs"]
mod drain;
#[path = "alb/end.rs"]
mod end;
#[path = "alb/faults.rs"]
mod faults;
#[path = "alb/hung.rs"]
mod hung;
#[path = "alb/killed.rs"]
mod killed;
#[path = "alb/rows.rs"]
mod rows;

use aws::{Aws, direct, edge, id};
use mcp_orchestrator::model::balancer::Standing;
use mcp_orchestrator::model::id::ServerId;
use mcp_orchestrator::plan::balancer;
use mcp_orchestrator::world::{Balancer as _, ErrorKind};
use serde_json::json;

fn codes(outcome: &balancer::Outcome, server: &str) -> Vec<&'static str> {
    outcome.notes.get(&id(server)).into_iter().flatten().filter_map(|note| note.code).collect()
}

#[tokio::test]
async fn r01_foreign_rules_are_untouched_even_on_our_prefix() {
    let world = Aws::shared().world("r01");
    for (priority, path) in [(1, "/mcp/*"), (1500, "/mcp/time"), (50_000, "/*")] {
        world.foreign_rule(priority, path);
    }
    let before = world.rules();
    let mut daemon = world.daemon().await;
    daemon.want(edge("time", &[8000]));
    daemon.settle().await;
    daemon.wants.clear();
    daemon.settle().await;
    assert_eq!(world.rules(), before);
    daemon.assert_only_ours();
}

#[tokio::test]
async fn r02_priorities_are_found_around_foreign_rules() {
    let world = Aws::shared().world("r02");
    for priority in [1000, 1001, 1003, 50_000] {
        world.foreign_rule(priority, "/other/*");
    }
    let mut daemon = world.daemon().await;
    daemon.policy.priority_end = 1004;
    for server in ["a1", "b1", "c1"] {
        daemon.want(edge(server, &[8000]));
    }
    let outcome = daemon.clean_pass().await;
    assert_eq!(world.our_rules().len(), 2);
    let blocked: Vec<&str> = ["a1", "b1", "c1"]
        .into_iter()
        .filter(|s| codes(&outcome, s).contains(&balancer::BAND_FULL))
        .collect();
    assert_eq!(blocked.len(), 1, "one server has no priority and says so: {blocked:?}");
}

#[tokio::test]
async fn r04_two_hosts_make_one_rule_and_one_group() {
    let world = Aws::shared().world("r04");
    let (mut a, mut b) = (world.daemon().await, world.second_daemon().await);
    for server in ["a1", "b1", "c1", "d1", "e1"] {
        a.want(edge(server, &[8000]));
        b.want(edge(server, &[8000]));
    }
    // Both look before either acts.
    let (first, second) = tokio::join!(a.pass(), b.pass());
    drop((first, second));
    a.settle().await;
    b.settle().await;
    a.settle().await;
    assert_eq!((world.our_rules().len(), world.our_groups().len(), world.targets().len()), (5, 5, 2));
    let registered: usize = world.our_groups().iter().map(|g| g["Targets"].as_array().unwrap().len()).sum();
    assert_eq!(registered, 10);
}

#[tokio::test]
async fn r05_duplicates_of_ours_are_removed() {
    let world = Aws::shared().world("r05");
    let mut daemon = world.daemon().await;
    daemon.want(edge("time", &[8000]));
    daemon.settle().await;
    let kept = world.our_rules()[0].clone();
    let tags = json!({ "managed-by": "mcp-orchestrator", "io.mcp-orchestrator.stack": "r05", "io.mcp-orchestrator.server": "time" });
    let asked = json!({ "listener": world.listener, "priority": 1999, "path": "/mcp/time", "tags": tags });
    world.aws.ask("POST", "/_world/foreign_rule", &asked);
    assert_eq!(world.our_rules().len(), 2);
    daemon.settle().await;
    assert_eq!(world.our_rules(), [kept]);
}

#[tokio::test]
async fn r06_rules_move_in_one_call() {
    let world = Aws::shared().world("r06");
    let mut daemon = world.daemon().await;
    daemon.want(edge("a1", &[8000]));
    daemon.want(edge("b1", &[8001]));
    daemon.settle().await;
    (daemon.policy.priority_start, daemon.policy.priority_end) = (5000, 5001);
    let mark = daemon.mark();
    daemon.settle().await;
    let calls = daemon.calls(mark);
    assert_eq!(calls.iter().filter(|call| call["action"] == "SetRulePriorities").count(), 1);
    let mut priorities: Vec<String> =
        world.our_rules().iter().map(|r| r["Priority"].as_str().unwrap().to_owned()).collect();
    priorities.sort();
    assert_eq!(priorities, ["5000", "5001"]);
}

#[tokio::test]
async fn r07_r08_updates_are_made_in_place() {
    let world = Aws::shared().world("r07");
    let mut daemon = world.daemon().await;
    daemon.want(edge("time", &[8000]));
    daemon.settle().await;
    let arn = world.our_rules()[0]["RuleArn"].clone();
    let mark = daemon.mark();
    daemon.want(direct("time", &[8001]));
    daemon.settle().await;
    assert_eq!(world.our_rules()[0]["RuleArn"], arn);
    let actions: Vec<String> =
        daemon.calls(mark).iter().map(|c| c["action"].as_str().unwrap().to_owned()).collect();
    assert!(actions.contains(&"ModifyRule".to_owned()));
    assert!(
        !actions.iter().any(|a| a == "DeleteRule" || a == "CreateRule" || a == "DeleteTargetGroup"),
        "{actions:?}"
    );
    let transform = &world.our_rules()[0]["Transforms"][0]["UrlRewriteConfig"]["Rewrites"][0];
    assert_eq!(transform["Regex"], r"^/mcp/time(/mcp)?/?(\?.*)?$");
    // And back: the last transform is taken away.
    daemon.want(edge("time", &[8001]));
    daemon.settle().await;
    assert!(world.our_rules()[0]["Transforms"].as_array().is_none_or(Vec::is_empty));
}

#[tokio::test]
async fn r10_r11_r12_damage_by_hand_is_repaired() {
    let world = Aws::shared().world("r10");
    let mut daemon = world.daemon().await;
    daemon.want(edge("time", &[8000]));
    daemon.want(edge("git", &[8001]));
    daemon.settle().await;
    let rules = world.our_rules();
    let arn = |n: usize| rules[n]["RuleArn"].clone();
    // One rule deleted, the other edited: path, target and all.
    world.aws.call("DeleteRule", json!({ "RuleArn": arn(0) }));
    let edit = json!({
        "RuleArn": arn(1), "Conditions.member.1.Field": "path-pattern", "Conditions.member.1.Values.member.1": "/elsewhere",
        "Actions.member.1.Type": "fixed-response", "Actions.member.1.FixedResponseConfig.StatusCode": "200",
    });
    world.aws.call("ModifyRule", edit);
    drop(daemon.clean_pass().await);
    assert_eq!(world.our_rules().len(), 2);
    assert!(world.our_rules().iter().all(|rule| rule["Actions"][0]["Type"] == "forward"));
    // Both a rule and the group it needs.
    let rule = &world.our_rules()[0];
    world.aws.call("DeleteRule", json!({ "RuleArn": rule["RuleArn"] }));
    world.aws.call("DeleteTargetGroup", json!({ "TargetGroupArn": rule["Actions"][0]["TargetGroupArn"] }));
    assert_eq!(world.our_groups().len(), 1);
    daemon.settle().await;
    assert_eq!((world.our_rules().len(), world.our_groups().len(), world.targets().len()), (2, 2, 2));
    daemon.assert_only_ours();
}

#[tokio::test]
async fn r12_stripped_tags_are_reported_and_not_adopted() {
    let world = Aws::shared().world("r12");
    let mut daemon = world.daemon().await;
    daemon.want(edge("time", &[8000]));
    daemon.settle().await;
    world.strip_tags(&world.our_groups()[0]["TargetGroupArn"]);
    let mark = daemon.mark();
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen = codes(&daemon.clean_pass().await, "time");
    }
    assert_eq!(seen, [balancer::NAME_TAKEN]);
    assert!(daemon.calls(mark).iter().all(|call| call["mutating"] != true));
    // A rule that loses its tags between look and act is not deleted.
    let rule = world.our_rules()[0].clone();
    world.strip_tags(&rule["RuleArn"]);
    let arn = mcp_orchestrator::model::id::RuleArn(rule["RuleArn"].as_str().unwrap().to_owned());
    let error = daemon
        .alb
        .apply(&mcp_orchestrator::model::balancer::BalancerOp::DeleteRule { rule: arn })
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Denied);
    assert_eq!(world.rules().len(), 1);
}

#[tokio::test]
async fn r13_tags_come_with_the_creation_and_half_made_groups_are_finished() {
    let world = Aws::shared().world("r13");
    let mut daemon = world.daemon().await;
    daemon.want(edge("time", &[8000]));
    daemon.fault(json!({ "action": "ModifyTargetGroupAttributes", "kind": "error", "times": 3 }));
    let pass = daemon.pass().await.unwrap();
    assert_eq!(pass.errors.len(), 1);
    let created: Vec<serde_json::Value> = daemon
        .calls(0)
        .into_iter()
        .filter(|c| c["action"] == "CreateTargetGroup" || c["action"] == "CreateRule")
        .collect();
    assert_eq!(created.len(), 2);
    assert!(created.iter().all(|call| call["params"].to_string().contains("io.mcp-orchestrator.server")));
    daemon.settle().await;
    assert_eq!(world.our_groups()[0]["Attributes"]["deregistration_delay.timeout_seconds"], "1");
}

#[tokio::test]
async fn r14_only_own_targets_are_deregistered() {
    let world = Aws::shared().world("r14");
    let (mut a, mut b) = (world.daemon().await, world.second_daemon().await);
    a.want(edge("time", &[8000]));
    b.want(edge("time", &[8000]));
    a.settle().await;
    b.settle().await;
    a.want(edge("time", &[8005]));
    a.settle().await;
    a.wants.clear();
    a.settle().await;
    let other = b.memory.target_id.clone().unwrap();
    assert_eq!(world.targets().into_iter().collect::<Vec<_>>(), [format!("{other}:8000")]);
    assert_eq!(world.our_rules().len(), 1);
}

#[tokio::test]
async fn r15_r16_r17_ports_change_without_a_gap_and_drain_before_they_go() {
    let world = Aws::shared().world("r16");
    let mut daemon = world.daemon().await;
    daemon.want(direct("time", &[8000]));
    daemon.settle().await;
    assert_eq!(daemon.standing("time", 8000), Standing::Healthy);
    assert_eq!(daemon.standing("time", 8001), Standing::Absent);
    daemon.policy.deregistration_delay = mcp_orchestrator::model::time::Span::secs(100);
    daemon.want(direct("time", &[8000, 8001]));
    daemon.settle().await;
    assert_eq!(world.targets().len(), 2);
    daemon.want(direct("time", &[8001]));
    drop(daemon.clean_pass().await);
    drop(daemon.clean_pass().await);
    assert!(
        matches!(daemon.standing("time", 8000), Standing::Draining(_)),
        "{:?}",
        daemon.standing("time", 8000)
    );
    // Wanted again while it drains.
    daemon.want(direct("time", &[8000, 8001]));
    drop(daemon.clean_pass().await);
    daemon.settle().await;
    assert_eq!(world.targets().len(), 2);
    daemon.want(direct("time", &[8001]));
    daemon.settle().await;
    assert_eq!(daemon.standing("time", 8000), Standing::Absent);
    assert_eq!(daemon.standing("time", 8001), Standing::Healthy);
}

#[tokio::test]
async fn r26_the_last_host_out_cleans_up_and_a_joining_host_wins() {
    let world = Aws::shared().world("r26");
    let (mut a, mut b) = (world.daemon().await, world.second_daemon().await);
    a.want(edge("time", &[8000]));
    a.settle().await;
    a.wants.clear();
    drop(a.clean_pass().await);
    a.later(31);
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    // Empty and marked; then another host joins.
    drop(a.clean_pass().await);
    assert!(world.our_groups()[0]["Tags"]["io.mcp-orchestrator.empty-since"].is_string());
    b.want(edge("time", &[9000]));
    b.settle().await;
    assert!(world.our_groups()[0]["Tags"]["io.mcp-orchestrator.empty-since"].is_null());
    a.settle().await;
    assert_eq!((world.our_rules().len(), world.our_groups().len()), (1, 1));
    b.wants.clear();
    b.settle().await;
    a.settle().await;
    assert_eq!((world.our_rules().len(), world.our_groups().len()), (0, 0));
}

#[tokio::test]
async fn r27_all_targets_unhealthy_is_an_outage() {
    let world = Aws::shared().world("r27");
    let mut daemon = world.daemon().await;
    daemon.want(edge("time", &[8000]));
    daemon.settle().await;
    let group = world.our_groups()[0]["TargetGroupArn"].clone();
    let sick = json!({ "tg": group, "state": "unhealthy", "reason": "Target.Timeout" });
    world.aws.ask("POST", "/_world/health", &sick);
    // Seen at its turn in the rotation, and then in every pass until it is well again.
    for _ in 0..2 {
        let outcome = daemon.clean_pass().await;
        assert_eq!(codes(&outcome, "time"), [balancer::OUTAGE]);
        assert!(
            matches!(daemon.standing("time", 8000), Standing::Unhealthy(why) if why.contains("Target.Timeout"))
        );
        daemon.read.rotating = 0;
    }
    world.aws.ask("POST", "/_world/health", &json!({ "tg": group, "state": "auto" }));
    assert!(codes(&daemon.clean_pass().await, "time").is_empty());
}

#[tokio::test]
async fn r09_near_the_quota_new_edge_servers_share_a_group() {
    let world = Aws::shared().world("r09-shared");
    let mut daemon = world.daemon().await;
    daemon.policy.target_groups_max = 3;
    daemon.policy.shared_port = mcp_orchestrator::model::net::HostPort::new(7000);
    for (server, port) in [("a1", 8000), ("b1", 8001), ("c1", 8002), ("d1", 8003)] {
        daemon.want(edge(server, &[port]));
    }
    daemon.settle().await;
    assert_eq!((world.our_rules().len(), world.our_groups().len(), world.targets().len()), (4, 3, 3));
    assert_eq!(daemon.standing("d1", 8003), Standing::Healthy);
    for server in ["c1", "d1"] {
        daemon.wants.remove(&id(server));
    }
    daemon.settle().await;
    assert_eq!((world.our_rules().len(), world.our_groups().len(), world.targets().len()), (2, 2, 2));
}

#[tokio::test]
async fn r28_patterns_are_the_bare_path_and_everything_below() {
    let world = Aws::shared().world("r28");
    let mut daemon = world.daemon().await;
    let long = "x".repeat(63);
    daemon.want(edge("a", &[8000]));
    daemon.want(edge(&long, &[8001]));
    daemon.settle().await;
    let values: Vec<String> = world
        .our_rules()
        .iter()
        .map(|r| r["Conditions"][0]["PathPatternConfig"]["Values"].to_string())
        .collect();
    assert!(values.contains(&r#"["/mcp/a","/mcp/a/*"]"#.to_owned()), "{values:?}");
    for bad in ["a*", "a?", "A", &"x".repeat(129)] {
        assert!(ServerId::new(bad).is_err(), "{bad}");
    }
}

#[tokio::test]
async fn r29_more_than_one_page_of_everything() {
    let aws = Aws::start();
    aws.ask("POST", "/_world/settings", &json!({ "page_cap": 20 }));
    let world = aws.world("r29");
    for n in 1..=45 {
        world.foreign_rule(n, "/other/*");
    }
    let mut daemon = world.daemon().await;
    for n in 0..45_u16 {
        daemon.want(edge(&format!("s{n}"), &[8000 + n]));
    }
    daemon.settle().await;
    let view = daemon.view.clone().unwrap();
    assert_eq!((view.rules.len(), view.target_groups.len(), view.target_groups_in_use), (90, 45, 45));
    assert_eq!((world.our_rules().len(), world.targets().len()), (45, 45));
    let mut again = daemon.restarted().await;
    let mark = again.mark();
    again.settle().await;
    assert!(again.calls(mark).iter().all(|call| call["mutating"] != true), "a restart changes nothing");
}

#[tokio::test]
async fn r32_a_quiet_pass_over_fifty_servers_reads_little_and_writes_nothing() {
    let world = Aws::shared().world("r32");
    let mut daemon = world.daemon().await;
    for n in 0..50_u16 {
        daemon.want(edge(&format!("s{n}"), &[8000 + n]));
    }
    daemon.settle().await;
    for _ in 0..3 {
        let mark = daemon.mark();
        let outcome = daemon.clean_pass().await;
        assert!(outcome.steps.is_empty());
        let calls = daemon.calls(mark);
        assert!(calls.iter().all(|call| call["mutating"] != true));
        let actions: Vec<&str> = calls.iter().filter_map(|call| call["action"].as_str()).collect();
        println!("{} reads: {actions:?}", calls.len());
        assert!(calls.len() <= 10, "{actions:?}");
    }
}
