//! Several instances of one server on a real engine.

use crate::support::{SERVER, Site, engine, eventually, get, http, label, runs, stdio, text};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const ROLE: &str = "io.mcp-orchestrator.role";
const REPLICA: &str = "io.mcp-orchestrator.replica";

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn several(mut entry: Value, replicas: u32) -> Value {
    entry["orchestrator"] = json!({ "replicas": replicas });
    entry
}

/// Ids and starts of all containers of the site, by name.
fn all(site: &Site) -> BTreeMap<String, (String, String)> {
    let of = |name: String| {
        let one = site.container(&name)?;
        Some((name, (text(&one, "/Id"), text(&one, "/State/StartedAt"))))
    };
    site.names().into_iter().filter_map(of).collect()
}

#[test]
fn three_run_one_that_is_killed_comes_back_a_restart_adopts_them_and_fewer_remove_the_last() {
    let site = Site::new("replicas");
    site.write(&json!({ "time": several(stdio(&[]), 3), "web": several(http(&["-p", "8000"]), 2) }));
    let daemon = site.daemon();
    site.run(&["sync"]).exits(0);
    let three = ["time", "time-R2", "time-R3", "web", "web-R2"];
    assert_eq!(site.names(), set(&three));
    for (name, number) in [("time", ""), ("time-R2", "2"), ("time-R3", "3"), ("web-R2", "2")] {
        let one = site.running(name);
        let server = name.split("-R").next().unwrap();
        let role = if number.is_empty() { "server" } else { "replica" };
        assert_eq!((label(&one, SERVER), label(&one, REPLICA)), (server.to_owned(), number.to_owned()));
        assert_eq!(label(&one, ROLE), role);
    }
    let row = site.row("time");
    assert_eq!((&row["running"], row["instances"].as_object().unwrap().len()), (&json!(3), 3), "{row}");
    assert_eq!(site.row("web")["route"], "edge");
    assert!(get(site.port("time"), "/healthz").is_some(), "one door");
    site.run(&["status"]).exits(0).says("3 of 3 run").says("time-R3").says("2 of 2 servers converged");

    let before = all(&site);
    let id = &before["time-R2"].0;
    assert_eq!(engine("POST", &format!("/containers/{id}/kill"), &Value::Null).0, 204);
    eventually("it runs again", 20, || {
        site.container("time-R2")
            .filter(runs)
            .filter(|one| text(one, "/State/StartedAt") != before["time-R2"].1)
    });
    site.run(&["sync"]).exits(0);
    let after = all(&site);
    assert_eq!(after["time-R2"].0, *id, "the same container");
    assert_eq!((&after["time"], &after["time-R3"]), (&before["time"], &before["time-R3"]));
    site.run(&["why", "time-R2"]).exits(0).says("time-R2: converged");

    daemon.kill();
    let daemon = site.daemon();
    site.run(&["sync"]).exits(0);
    assert_eq!(all(&site), after, "all are adopted");

    site.run(&["restart-server", "time-R3"]).exits(0);
    let one = all(&site);
    assert_eq!((&one["time"], &one["time-R2"]), (&after["time"], &after["time-R2"]));
    assert_ne!(one["time-R3"].1, after["time-R3"].1);
    site.run(&["stop-server", "time-R3"]).exits(1).says("restarted");
    site.run(&["restart-server", "time"]).exits(0);
    let again = all(&site);
    assert!(["time", "time-R2", "time-R3"].iter().all(|name| again[*name].1 != one[*name].1), "{again:?}");
    assert!(again["time"].1 < again["time-R2"].1 && again["time-R2"].1 < again["time-R3"].1, "{again:?}");

    site.run(&["stop-server", "time"]).exits(0);
    assert!(["time", "time-R2", "time-R3"].iter().all(|name| !runs(&site.container(name).unwrap())));
    site.run(&["start-server", "time"]).exits(0);

    site.write(&json!({ "time": several(stdio(&[]), 1), "web": several(http(&["-p", "8000"]), 2) }));
    site.run(&["sync"]).exits(0);
    eventually("the last two are gone", 60, || {
        (site.names() == set(&["time", "web", "web-R2"])).then_some(())
    });
    assert_eq!(site.running("time")["Id"], json!(again["time"].0));
    assert!(site.row("time").get("instances").is_none());
    drop(daemon);
    site.nothing_to_do();
}

#[test]
fn a_changed_declaration_reaches_one_instance_after_another() {
    let site = Site::new("replicas-roll");
    site.write(&json!({ "time": several(stdio(&["-e", "A=1"]), 3) }));
    let daemon = site.daemon();
    site.run(&["sync"]).exits(0);
    let before = all(&site);
    site.write(&json!({ "time": several(stdio(&["-e", "A=2"]), 3) }));
    site.run(&["sync"]).exits(0);
    let after = all(&site);
    assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    assert!(before.iter().all(|(name, (id, _))| after[name].0 != *id), "{after:?}");
    let starts = ["time", "time-R2", "time-R3"].map(|name| after[name].1.clone());
    assert!(starts.is_sorted(), "{starts:?}");
    drop(daemon);
}
