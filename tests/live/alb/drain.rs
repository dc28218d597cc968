//! `drain` before a strict stand-in for AWS: targets go, what is under way ends, everything runs on, and
//! the host comes back; also when AWS's answers are lost or it has had enough of us.

use super::aws::{Aws, World};
use super::rows::world_of;
use crate::gateway::client::{At, fixture};
use crate::support::{Daemon, Site, eventually, http, runs, text};
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub(super) const SERVERS: [&str; 2] = ["time", "web"];

/// A daemon with two servers behind a listener.
pub(super) fn scene<'a>(aws: &'a Aws, name: &str) -> (Site, World<'a>, Daemon) {
    let mut site = Site::new(name);
    let world = world_of(aws, &mut site);
    site.setting("GATEWAY__HOST", "127.0.0.1");
    site.write(&json!({ "time": fixture(&[]), "web": http(&["-p", "8000"]) }));
    let daemon = site.daemon();
    eventually("both are registered", 60, || {
        let there = SERVERS.iter().all(|server| site.container(server).is_some_and(|it| runs(&it)));
        // The rules come after the targets.
        (there && registered(&site, &world) && world.our_rules().len() == 2).then_some(())
    });
    (site, world, daemon)
}

fn registered(site: &Site, world: &World<'_>) -> bool {
    let all = SERVERS.map(|server| format!("{}:{}", world.instance, site.port(server)));
    world.targets() == BTreeSet::from(all)
}

fn rules(world: &World<'_>) -> BTreeSet<String> {
    world.our_rules().iter().map(|rule| text(rule, "/RuleArn")).collect()
}

pub(super) fn fault(site: &Site, world: &World<'_>, fault: &Value) {
    let mut fault = fault.clone();
    fault["key"] = json!(site.stack);
    world.aws.ask("POST", "/_fault", &fault);
}

#[test]
fn a_drained_host_leaves_and_comes_back_while_calls_end_and_servers_run_on() {
    let aws = Aws::start();
    let (site, world, _daemon) = scene(&aws, "drain-aws");
    let (made, ids) = (rules(&world), SERVERS.map(|server| site.id(server)));
    let client = At::of(&site, "time").open();
    std::thread::scope(|scope| {
        let call = scope.spawn(|| client.try_call("nasty_slow", &json!({ "ms": 6000, "message": "whole" })));
        eventually("the call is under way", 20, || {
            site.run(&["status", "--detailed", "--json"]).all().contains("\"inFlight\":1").then_some(())
        });
        site.run(&["drain"]).exits(0).says("no call is under way");
        assert_eq!(world.targets(), BTreeSet::new());
        eventually("the call ended", 5, || call.is_finished().then_some(()));
        assert_eq!(call.join().expect("a call").as_deref(), Ok("whole"));
    });
    // Who comes all the same is served, and nothing else went.
    assert_eq!(client.call("nasty_slow", &json!({ "ms": 1, "message": "still" })), "still");
    assert_eq!((rules(&world), world.our_groups().len()), (made.clone(), 2));
    assert_eq!(SERVERS.map(|server| site.id(server)), ids);
    site.run(&["status"]).says("this host is drained");
    // It holds: a pass registers nothing.
    site.run(&["sync"]);
    assert_eq!(world.targets(), BTreeSet::new());
    site.run(&["drain", "--undo"]).exits(0);
    assert!(registered(&site, &world), "{:?}", world.targets());
    assert_eq!((rules(&world), SERVERS.map(|server| site.id(server))), (made, ids));
}

#[test]
fn a_drain_gets_there_though_answers_are_lost_and_aws_has_had_enough() {
    let aws = Aws::start();
    let (site, world, daemon) = scene(&aws, "drain-faults");
    let (made, ids) = (rules(&world), SERVERS.map(|server| site.id(server)));
    // Done, and nobody hears of it; then neither looks nor changes for a while.
    fault(&site, &world, &json!({ "action": "DeregisterTargets", "kind": "lost_response", "times": 2 }));
    fault(&site, &world, &json!({ "action": "DescribeTargetHealth", "kind": "throttle", "times": 8 }));
    site.run(&["drain"]).exits(0);
    assert_eq!(world.targets(), BTreeSet::new());
    assert_eq!((rules(&world), SERVERS.map(|server| site.id(server))), (made.clone(), ids.clone()));
    // The next process goes on with it.
    assert_eq!(daemon.stop(), 0);
    let _daemon = site.daemon();
    site.run(&["sync"]);
    assert_eq!(world.targets(), BTreeSet::new());
    fault(&site, &world, &json!({ "action": "RegisterTargets", "kind": "lost_503", "times": 2 }));
    fault(&site, &world, &json!({ "action": "*", "kind": "throttle", "times": 8 }));
    site.run(&["drain", "--undo", "--no-wait"]).exits(0);
    eventually("both are registered again", 90, || registered(&site, &world).then_some(()));
    assert_eq!((rules(&world), SERVERS.map(|server| site.id(server))), (made, ids));
}

#[test]
fn a_drain_that_aws_refuses_says_so_and_ends_once_it_does_not() {
    let aws = Aws::start();
    let (site, world, daemon) = scene(&aws, "drain-refused");
    let refused = json!({ "action": "DeregisterTargets", "kind": "error", "status": 403, "code": "AccessDenied", "times": -1 });
    fault(&site, &world, &refused);
    site.run(&["drain", "--no-wait"]).exits(0);
    eventually("it says that it is not out", 60, || {
        site.run(&["status"]).all().contains("this host is draining (").then_some(())
    });
    eventually("it says why", 60, || daemon.log().contains("AccessDenied").then_some(()));
    assert!(registered(&site, &world), "nothing was taken out: {:?}", world.targets());
    aws.ask("DELETE", "/_fault", &Value::Null);
    eventually("it is out", 90, || {
        site.run(&["sync", "--no-wait"]);
        (world.targets().is_empty()).then_some(())
    });
    site.run(&["drain", "--undo"]).exits(0);
    assert!(registered(&site, &world), "{:?}", world.targets());
}
