//! Requirements that need a scene of their own: a swap of priorities, a full quota, a target group
//! deleted by hand.

use super::aws::{Aws, edge, id};
use crate::support::{Site, http};
use mcp_orchestrator::model::balancer::BalancerOp;
use mcp_orchestrator::model::id::RuleArn;
use mcp_orchestrator::world::{Balancer as _, ErrorKind};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn by_server(rules: &[Value], field: &str) -> BTreeMap<String, Value> {
    let server = |rule: &Value| rule["Tags"]["io.mcp-orchestrator.server"].as_str().unwrap().to_owned();
    rules.iter().map(|rule| (server(rule), rule[field].clone())).collect()
}

#[tokio::test]
async fn r06_two_rules_swap_their_priorities_in_one_call() {
    let world = Aws::shared().world("r06-swap");
    let mut daemon = world.daemon().await;
    daemon.want(edge("a1", &[8000]));
    daemon.want(edge("b1", &[8001]));
    daemon.settle().await;
    let (arns, before) =
        (by_server(&world.our_rules(), "RuleArn"), by_server(&world.our_rules(), "Priority"));
    let arn = |server: &str| RuleArn(arns[server].as_str().unwrap().to_owned());
    let priority = |server: &str| before[server].as_str().unwrap().parse::<u32>().unwrap();
    let moves = vec![(arn("a1"), priority("b1")), (arn("b1"), priority("a1"))];
    let mark = daemon.mark();
    daemon.alb.apply(&BalancerOp::SetPriorities { moves }).await.unwrap();
    let writes: Vec<Value> = daemon.calls(mark).into_iter().filter(|call| call["mutating"] == true).collect();
    assert_eq!(writes.len(), 1, "{writes:?}");
    assert_eq!(writes[0]["action"], "SetRulePriorities");
    let after = by_server(&world.our_rules(), "Priority");
    assert_eq!((&after["a1"], &after["b1"]), (&before["b1"], &before["a1"]));
    assert_eq!(by_server(&world.our_rules(), "RuleArn"), arns, "the same rules");
    // What was swapped is as good as before: nothing is moved back.
    let mark = daemon.mark();
    daemon.settle().await;
    assert!(daemon.calls(mark).iter().all(|call| call["mutating"] != true));
}

/// The last rule the quota allows belongs to a server that goes when another comes: the creation is
/// refused, the deletion makes room, the creation is tried again. Others are served all the time.
#[tokio::test]
async fn r08_at_a_full_quota_of_rules_the_deletion_makes_room_for_the_creation() {
    let aws = Aws::start();
    aws.ask("POST", "/_world/settings", &json!({ "max_rules": 2 }));
    let world = aws.world("r08-quota");
    let mut daemon = world.daemon().await;
    daemon.want(edge("stays", &[8000]));
    daemon.want(edge("goes", &[8001]));
    daemon.settle().await;
    let stays = by_server(&world.our_rules(), "RuleArn")["stays"].clone();
    daemon.wants.remove(&id("goes"));
    daemon.want(edge("comes", &[8002]));
    let (mut refused, mut actions) = (0, Vec::new());
    let mark = daemon.mark();
    for _ in 0..12 {
        let pass = daemon.pass().await.unwrap();
        refused += pass.errors.iter().filter(|error| error.kind == ErrorKind::Quota).count();
        assert!(pass.errors.iter().all(|error| error.kind == ErrorKind::Quota), "{:?}", pass.errors);
        assert_eq!(by_server(&world.our_rules(), "RuleArn")["stays"], stays);
        actions.extend(daemon.calls(mark).iter().map(|call| call["action"].as_str().unwrap().to_owned()));
        daemon.later(40);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(refused > 0, "the quota was not met");
    assert!(actions.iter().any(|action| action == "DeleteRule"));
    let rules = by_server(&world.our_rules(), "RuleArn");
    assert_eq!(rules.keys().collect::<Vec<_>>(), ["comes", "stays"]);
    assert_eq!((world.our_groups().len(), world.targets().len()), (2, 2));
    daemon.settle().await;
    daemon.assert_only_ours();
}

/// The same with the program: it does not wait out the time that follows a refused creation once it
/// has made room itself.
#[test]
fn r08_a_one_shot_run_at_a_full_quota_comes_to_rest() {
    let aws = Aws::start();
    aws.ask("POST", "/_world/settings", &json!({ "max_rules": 2 }));
    let mut site = Site::new("full-quota");
    let world = world_of(&aws, &mut site);
    // Long enough for the creation to be tried before the deletion.
    site.setting("AWS__GC_GRACE_SECONDS", "3");
    let web = || http(&["-p", "8000"]);
    site.write(&json!({ "stays": web(), "goes": web() }));
    site.one_shot().exits(0);
    site.write(&json!({ "stays": web(), "comes": web() }));
    let (mut said, mut refused) = (String::new(), false);
    for _ in 0..8 {
        let done = site.one_shot();
        said = done.all();
        refused |= said.contains("MCPO-P061") || said.contains("TooManyRules");
        if done.code == 0 && site.run(&["plan", "--exit-code"]).code == 0 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
    assert!(refused, "the quota was not met");
    let rules = by_server(&world.our_rules(), "RuleArn");
    assert_eq!(rules.keys().collect::<Vec<_>>(), ["comes", "stays"], "{said}");
    site.nothing_to_do();
}

/// A target group cannot be deleted while a rule forwards to it, so by hand both are damaged: the
/// rule answers by itself, the group is gone. The rule is repaired in place.
#[tokio::test]
async fn r10_a_target_group_deleted_by_hand_is_made_again_and_its_rule_repaired() {
    let world = Aws::shared().world("r10-group");
    let mut daemon = world.daemon().await;
    daemon.want(edge("time", &[8000]));
    daemon.want(edge("git", &[8001]));
    daemon.settle().await;
    let rules = by_server(&world.our_rules(), "RuleArn");
    let actions = by_server(&world.our_rules(), "Actions");
    let group = actions["time"][0]["TargetGroupArn"].clone();
    let edit = json!({
        "RuleArn": rules["time"], "Actions.member.1.Type": "fixed-response",
        "Actions.member.1.FixedResponseConfig.StatusCode": "503",
    });
    world.aws.call("ModifyRule", edit);
    world.aws.call("DeleteTargetGroup", json!({ "TargetGroupArn": group }));
    assert_eq!(world.our_groups().len(), 1);
    let mark = daemon.mark();
    daemon.settle().await;
    assert_eq!(by_server(&world.our_rules(), "RuleArn"), rules, "repaired in place");
    let repaired = by_server(&world.our_rules(), "Actions")["time"][0].clone();
    assert_eq!(repaired["Type"], "forward");
    assert_ne!(repaired["TargetGroupArn"], group, "a new group");
    assert_eq!((world.our_groups().len(), world.targets().len()), (2, 2));
    let git = rules["git"].as_str().unwrap();
    let touched =
        daemon.calls(mark).iter().any(|call| call["mutating"] == true && call.to_string().contains(git));
    assert!(!touched, "the other server's rule is left alone");
    // And with the rule gone as well.
    let group = repaired["TargetGroupArn"].clone();
    world.aws.call("DeleteRule", json!({ "RuleArn": rules["time"] }));
    world.aws.call("DeleteTargetGroup", json!({ "TargetGroupArn": group }));
    daemon.settle().await;
    assert_eq!((world.our_rules().len(), world.our_groups().len(), world.targets().len()), (2, 2, 2));
    daemon.assert_only_ours();
}

/// A world for a program on this machine; `site` gets the settings that lead to it.
pub(super) fn world_of<'a>(aws: &'a Aws, site: &mut Site) -> super::aws::World<'a> {
    let world = aws.world(&site.stack);
    for (key, value) in [
        ("AWS__ALB_ARN", world.balancer.clone()),
        ("AWS__TARGET_ID", world.instance.clone()),
        ("AWS__ENDPOINT_URL", aws.proxy_url()),
        ("AWS__DEREGISTRATION_DELAY_SECONDS", "1".to_owned()),
        ("AWS__GC_GRACE_SECONDS", "0".to_owned()),
    ] {
        site.setting(key, &value);
    }
    let key = site.stack.clone();
    for (name, value) in [
        ("AWS_ACCESS_KEY_ID", key.as_str()),
        ("AWS_SECRET_ACCESS_KEY", "fake"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_CONFIG_FILE", "/dev/null"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
    ] {
        site.variable(name, value);
    }
    world
}
