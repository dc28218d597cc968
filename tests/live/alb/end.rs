//! What `[service] on_shutdown` leaves behind when the daemon ends, and that the next start goes on.

use super::aws::Aws;
use super::rows::world_of;
use crate::support::{Site, eventually, http, runs, stdio, text};
use serde_json::json;
use std::collections::BTreeSet;

#[test]
fn on_shutdown_stop_stops_containers_and_the_next_start_runs_them_again() {
    let mut site = Site::new("end-stop");
    site.setting("SERVICE__ON_SHUTDOWN", "stop");
    site.write(&json!({ "time": stdio(&[]), "web": http(&["-p", "8000"]) }));
    let daemon = site.daemon();
    site.run(&["sync"]).exits(0);
    let ids = ["time", "web"].map(|server| site.id(server));
    let ports = ["time", "web"].map(|server| site.port(server));
    assert_eq!(daemon.stop(), 0);
    for server in ["time", "web"] {
        let container = site.container(server).expect("it stays");
        assert!(!runs(&container), "{server}: {}", container["State"]);
    }
    // It is no wish by hand: the next start wants what the file wants, at once.
    let daemon = site.daemon();
    eventually("both run again", 30, || {
        ["time", "web"].iter().all(|server| site.container(server).is_some_and(|it| runs(&it))).then_some(())
    });
    assert_eq!(["time", "web"].map(|server| site.id(server)), ids);
    assert_eq!(["time", "web"].map(|server| site.port(server)), ports);
    site.run(&["sync"]).exits(0);
    site.setting("SERVICE__ON_SHUTDOWN", "keep");
    drop(daemon);
    let daemon = site.daemon();
    assert_eq!(daemon.stop(), 0);
    for server in ["time", "web"] {
        site.running(server);
    }
}

#[test]
fn on_shutdown_drain_leaves_the_load_balancer_and_nothing_else() {
    let aws = Aws::start();
    let mut site = Site::new("end-drain");
    let world = world_of(&aws, &mut site);
    site.setting("SERVICE__ON_SHUTDOWN", "drain");
    site.setting("GATEWAY__HOST", "127.0.0.1");
    site.write(&json!({ "time": stdio(&[]), "web": http(&["-p", "8000"]) }));
    let daemon = site.daemon();
    let targets = |site: &Site| -> BTreeSet<String> {
        ["time", "web"].map(|server| format!("{}:{}", world.instance, site.port(server))).into()
    };
    eventually("both are registered", 60, || {
        let there = ["time", "web"].iter().all(|server| site.container(server).is_some());
        // The rules come after the targets.
        (there && world.targets() == targets(&site) && world.our_rules().len() == 2).then_some(())
    });
    let rules: BTreeSet<String> = world.our_rules().iter().map(|rule| text(rule, "/RuleArn")).collect();
    let ids = ["time", "web"].map(|server| site.id(server));
    assert_eq!(daemon.stop(), 0);
    assert_eq!(world.targets(), BTreeSet::new());
    let left: BTreeSet<String> = world.our_rules().iter().map(|rule| text(rule, "/RuleArn")).collect();
    assert_eq!((left, world.our_groups().len()), (rules, 2));
    assert_eq!(["time", "web"].map(|server| site.id(server)), ids);
    let _daemon = site.daemon();
    eventually("both are registered again", 60, || (world.targets() == targets(&site)).then_some(()));
    assert_eq!(["time", "web"].map(|server| site.id(server)), ids);
}
