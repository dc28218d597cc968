//! The same with calls that fail: nothing is lost, doubled or deleted because of it.

use super::aws::{Aws, Daemon, edge, id};
use super::codes;
use mcp_orchestrator::plan::balancer;
use mcp_orchestrator::world::{Balancer as _, ErrorKind, TargetsToRead};
use serde_json::json;
use std::time::{Duration, Instant};

#[tokio::test]
async fn r03_a_lost_answer_leaves_one_rule_and_no_error() {
    let world = Aws::shared().world("r03");
    let mut daemon = world.daemon().await;
    for (n, kind) in ["lost_response", "lost_503", "half_body"].into_iter().enumerate() {
        let server = format!("s{n}");
        daemon.want(edge(&server, &[8000]));
        daemon.fault(json!({ "action": "CreateRule", "kind": kind }));
        daemon.fault(json!({ "action": "CreateTargetGroup", "kind": kind }));
        daemon.fault(json!({ "action": "RegisterTargets", "kind": kind }));
        drop(daemon.clean_pass().await);
        assert_eq!((world.our_rules().len(), world.our_groups().len()), (n + 1, n + 1), "{kind}");
    }
    // For ever lost: the last try's answer too.
    daemon.want(edge("last", &[8000]));
    daemon.fault(json!({ "action": "CreateRule", "kind": "lost_response", "times": 3 }));
    drop(daemon.clean_pass().await);
    assert_eq!(world.our_rules().len(), 4);
    daemon.settle().await;
    assert_eq!(world.our_rules().len(), 4);
}

#[tokio::test]
async fn r08_r09_a_quota_blocks_one_server_and_not_the_others() {
    let aws = Aws::start();
    aws.ask("POST", "/_world/settings", &json!({ "max_tgs": 2, "max_rules": 3 }));
    let world = aws.world("r09");
    let mut daemon = world.daemon().await;
    for (n, server) in ["a1", "b1", "c1"].into_iter().enumerate() {
        daemon.want(edge(server, &[8000 + u16::try_from(n).unwrap()]));
    }
    // The API says it.
    let pass = daemon.pass().await.unwrap();
    assert!(pass.errors.iter().any(|error| error.kind == ErrorKind::Quota), "{:?}", pass.errors);
    assert_eq!(world.our_rules().len(), 2);
    // The planner knows it.
    daemon.policy.target_groups_max = 2;
    daemon.wants.remove(&id("c1"));
    daemon.settle().await;
    daemon.want(edge("d1", &[8005]));
    let outcome = daemon.clean_pass().await;
    assert_eq!(codes(&outcome, "d1"), [balancer::GROUP_QUOTA]);
    assert_eq!(world.our_rules().len(), 2);
}

#[tokio::test]
async fn r18_a_group_still_in_use_is_deleted_later() {
    let aws = Aws::start();
    let world = aws.world("r18");
    let mut daemon = world.daemon().await;
    daemon.want(edge("time", &[8000]));
    daemon.want(edge("git", &[8001]));
    daemon.settle().await;
    aws.ask("POST", "/_world/settings", &json!({ "linger_s": 0.5 }));
    daemon.wants.remove(&id("time"));
    let mut refused = 0;
    for _ in 0..12 {
        let pass = daemon.pass().await.unwrap();
        refused += pass.errors.iter().filter(|error| error.kind == ErrorKind::Conflict).count();
        daemon.later(40);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(refused > 0, "the linger was not met");
    assert_eq!((world.our_rules().len(), world.our_groups().len()), (1, 1));
}

#[tokio::test]
async fn r19_deleting_what_is_gone_is_done() {
    let world = Aws::shared().world("r19");
    let mut daemon = world.daemon().await;
    daemon.want(edge("time", &[8000]));
    daemon.settle().await;
    let (rule, group) = (world.our_rules()[0].clone(), world.our_groups()[0].clone());
    world.aws.call("DeleteRule", json!({ "RuleArn": rule["RuleArn"] }));
    world.aws.call("DeleteTargetGroup", json!({ "TargetGroupArn": group["TargetGroupArn"] }));
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    use mcp_orchestrator::model::balancer::BalancerOp;
    use mcp_orchestrator::model::id::{RuleArn, TargetGroupArn};
    daemon.alb.apply(&BalancerOp::DeleteRule { rule: RuleArn(text(&rule["RuleArn"])) }).await.unwrap();
    let group = TargetGroupArn(text(&group["TargetGroupArn"]));
    daemon.alb.apply(&BalancerOp::DeleteTargetGroup { group, name: "x".to_owned() }).await.unwrap();
}

#[tokio::test]
async fn r20_throttling_is_waited_out_or_told() {
    let world = Aws::shared().world("r20");
    let mut daemon = world.daemon().await;
    daemon.want(edge("time", &[8000]));
    daemon.fault(json!({ "action": "*", "kind": "throttle", "times": 2 }));
    daemon.settle().await;
    assert_eq!(world.our_rules().len(), 1);
    daemon.fault(json!({ "action": "*", "kind": "throttle", "times": -1, "code": "ThrottlingException" }));
    let mark = daemon.mark();
    let error = daemon.pass().await.err().expect("an error");
    assert_eq!(error.kind, ErrorKind::Throttled);
    assert!(daemon.calls(mark).len() <= 6, "no hot loop: {}", daemon.calls(mark).len());
}

#[tokio::test]
async fn r21_refused_credentials_are_not_tried_again_and_delete_nothing() {
    let world = Aws::shared().world("r21");
    for (n, code) in ["AccessDenied", "ExpiredToken"].into_iter().enumerate() {
        let mut daemon = Daemon::new(&world, world.config(), &format!("r21-{n}")).await;
        daemon.want(edge("time", &[8000]));
        daemon.settle().await;
        daemon.wants.clear();
        daemon.fault(json!({ "action": "*", "kind": "error", "status": 403, "code": code, "times": -1 }));
        let mark = daemon.mark();
        let error = daemon.pass().await.err().expect("an error");
        assert_eq!(error.kind, ErrorKind::Denied, "{error}");
        assert!(!error.to_string().contains("fake"), "a secret in {error}");
        assert!(daemon.calls(mark).len() <= 2, "no second try");
        assert_eq!(world.our_rules().len(), 1);
    }
}

#[tokio::test]
async fn r22_a_listing_that_is_not_whole_is_an_error() {
    let aws = Aws::start();
    aws.ask("POST", "/_world/settings", &json!({ "page_cap": 2 }));
    let world = aws.world("r22");
    let mut daemon = world.daemon().await;
    for (n, server) in ["a1", "b1", "c1", "d1", "e1"].into_iter().enumerate() {
        daemon.want(edge(server, &[8000 + u16::try_from(n).unwrap()]));
    }
    daemon.settle().await;
    for action in ["DescribeRules", "DescribeTargetGroups"] {
        for kind in ["error", "garbage", "half_body"] {
            // The second page fails, in all its tries.
            daemon.fault(json!({ "action": action, "kind": kind, "skip": 1, "times": 3 }));
            let mark = daemon.mark();
            let pass = daemon.pass().await;
            aws.ask("DELETE", "/_fault", &serde_json::Value::Null);
            assert!(pass.is_err(), "{action} {kind}");
            assert!(daemon.calls(mark).iter().all(|call| call["mutating"] != true));
        }
    }
    // Targets that cannot be read are not read as none.
    daemon.fault(json!({ "action": "DescribeTargetHealth", "kind": "error", "times": -1 }));
    let mark = daemon.mark();
    daemon.wants.clear();
    drop(daemon.clean_pass().await);
    assert!(daemon.calls(mark).iter().all(|call| call["mutating"] != true));
    assert_eq!(world.our_rules().len(), 5);
}

#[tokio::test]
async fn r23_an_old_answer_makes_no_second_rule_and_deletes_nothing() {
    let aws = Aws::start();
    let world = aws.world("r23");
    let mut daemon = world.daemon().await;
    aws.ask("POST", "/_world/settings", &json!({ "lag_s": 1 }));
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for server in ["a1", "b1", "c1"] {
        daemon.want(edge(server, &[8000]));
    }
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2500) {
        // Refusals are fine here; doubles are not.
        drop(daemon.pass().await);
        assert!(world.our_rules().len() <= 3, "{:#?}", world.our_rules());
        daemon.later(5);
    }
    daemon.settle().await;
    assert_eq!((world.our_rules().len(), world.our_groups().len(), world.targets().len()), (3, 3, 1));
}

#[tokio::test]
async fn r24_dying_after_any_call_leaves_nothing_behind() {
    let aws = Aws::start();
    let calls = {
        let world = aws.world("r24");
        let mut daemon = world.daemon().await;
        daemon.want(edge("time", &[8000]));
        daemon.settle().await;
        daemon.wants.clear();
        daemon.settle().await;
        daemon.calls(0).iter().filter(|call| call["mutating"] == true).count()
    };
    assert!(calls >= 6, "{calls}");
    for n in 1..=calls {
        for mode in ["hold", "apply_then_hold"] {
            let world = aws.world(&format!("r24-{n}-{}", mode.len()));
            let mut daemon = world.daemon().await;
            aws.ask(
                "POST",
                "/_trip",
                &json!({ "after": n, "mode": mode, "mutating": true, "key": daemon.key }),
            );
            daemon.want(edge("time", &[8000]));
            // Dropped in the middle of the call that is held, as by a kill.
            let life = async {
                daemon.settle().await;
                daemon.wants.clear();
                daemon.settle().await;
            };
            drop(tokio::time::timeout(Duration::from_millis(600), life).await);
            aws.ask("POST", "/_trip/drop", &json!({}));
            let mut next = daemon.restarted().await;
            next.want(edge("time", &[8000]));
            next.settle().await;
            assert_eq!((world.our_rules().len(), world.our_groups().len()), (1, 1), "{n} {mode}");
            next.wants.clear();
            next.settle().await;
            assert_eq!((world.our_rules().len(), world.our_groups().len()), (0, 0), "{n} {mode}");
        }
    }
}

#[tokio::test]
async fn r30_a_call_that_hangs_is_given_up() {
    let aws = Aws::start();
    let world = aws.world("r30");
    let mut daemon = world.daemon().await;
    daemon.want(edge("time", &[8000]));
    daemon.settle().await;
    daemon.fault(json!({ "action": "DescribeRules", "kind": "hang", "seconds": 60, "times": -1 }));
    let start = Instant::now();
    let error = daemon.alb.view(&TargetsToRead::default()).await.expect_err("an error");
    assert_eq!(error.kind, ErrorKind::TimedOut);
    assert!(start.elapsed() < Duration::from_secs(32), "{:?}", start.elapsed());
    aws.ask("DELETE", "/_fault", &serde_json::Value::Null);
    daemon.settle().await;
}

#[tokio::test]
async fn r31_without_metadata_the_last_known_id_serves() {
    let aws = Aws::start();
    let world = aws.world("app");
    let mut config = world.config();
    config.target_id = None;
    let mut daemon = Daemon::new(&world, config.clone(), "r31").await;
    daemon.want(edge("time", &[8000]));
    daemon.settle().await;
    assert_eq!(daemon.memory.target_id.as_deref(), Some(world.instance.as_str()));
    assert_eq!(daemon.alb.vpc_cidrs().await.unwrap(), ["10.0.0.0/16"]);
    for mode in ["down", "hang"] {
        aws.ask("POST", "/_world/imds", &json!({ "mode": mode }));
        let mut next = Daemon::new(&world, config.clone(), "r31").await;
        next.want(edge("time", &[8000, 8001]));
        let outcome = next.clean_pass().await;
        assert_eq!(codes(&outcome, "time"), [balancer::NO_TARGET_ID]);
        assert!(outcome.steps.is_empty());
        next.memory = daemon.memory.clone();
        next.settle().await;
        assert_eq!(world.targets().len(), 2);
        daemon.want(edge("time", &[8000]));
        daemon.settle().await;
    }
}
