//! One file, the program, a real engine: what it makes, keeps, replaces, leaves alone, removes.

use crate::support::{
    OTHERS, PORT, SERVER, STACK, Site, broken, docker_run, engine, eventually, get, http, image, inspect,
    label, runs, stdio, text, unix_now, volume_exists, volumes,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_file_becomes_a_container_and_a_second_run_changes_nothing() {
    let site = Site::new("quick");
    site.write(&json!({ "time": stdio(&[]) }));
    site.one_shot().exits(0).says("1 of 1 server converged");
    let made = site.running("time");
    assert_eq!(label(&made, "managed-by"), "mcp-orchestrator");
    assert_eq!(label(&made, STACK), site.stack);
    assert_eq!(label(&made, SERVER), "time");
    assert_eq!(label(&made, "io.mcp-orchestrator.role"), "server");
    assert!(!label(&made, "io.mcp-orchestrator.spec-hash").is_empty());
    assert!(site.ports.contains(&site.port("time")));
    let policy = text(&made, "/HostConfig/RestartPolicy/Name");
    assert!(["", "no"].contains(&policy.as_str()), "Docker's restart policy is '{policy}'");
    assert_eq!(text(&made, "/Config/OpenStdin"), "true");
    assert_eq!(text(&made, "/Config/StdinOnce"), "false");

    let before = unix_now();
    site.nothing_to_do();
    let second = site.one_shot().exits(0);
    site.nothing_to_do();
    let same = site.running("time");
    assert_eq!(
        (text(&made, "/Id"), text(&made, "/State/StartedAt")),
        (text(&same, "/Id"), text(&same, "/State/StartedAt"))
    );
    assert!(!second.err.contains("container"), "{}", second.err);
    let events: Vec<_> = site.events(before + 1).into_iter().filter(|event| event.0 != "exec").collect();
    assert!(events.is_empty(), "{events:?}");
}

#[test]
fn a_plan_tells_before_what_a_pass_would_do_and_does_none_of_it() {
    let site = Site::new("plan");
    site.write(&json!({ "time": stdio(&[]), "web": http(&["-p", "8000"]) }));
    let plan = site.run(&["plan", "--exit-code"]).exits(3);
    assert!(plan.out.contains(&site.name("time")), "{}", plan.out);
    site.run(&["plan"]).exits(0);
    let json = site.run(&["plan", "--json"]).exits(0).json();
    assert_eq!(json["changes"], true);
    assert!(json["actions"].as_array().is_some_and(|actions| actions.len() >= 4), "{json}");
    assert_eq!(site.names(), set(&[]));
    assert!(!site.state_dir().exists(), "a plan keeps nothing");
    site.one_shot().exits(0);
    site.nothing_to_do();
    assert_eq!(site.run(&["plan", "--json"]).exits(0).json()["changes"], false);
}

#[test]
fn a_changed_environment_replaces_start_first() {
    let site = Site::new("env");
    site.write(&json!({ "time": stdio(&["-e", "A=1"]), "still": stdio(&[]) }));
    site.one_shot().exits(0);
    let (old, still) = (site.id("time"), site.id("still"));
    site.write(&json!({ "time": stdio(&["-e", "A=2"]), "still": stdio(&[]) }));
    site.run(&["plan", "--exit-code"]).exits(3).says("start-first");
    let before = unix_now();
    site.one_shot().exits(0);
    let new = site.id("time");
    assert_ne!(old, new);
    assert_eq!(still, site.id("still"));
    assert_eq!(site.names(), set(&["time", "still"]));
    let events = site.events(before);
    let at = |action: &str, id: &str| events.iter().position(|event| event.0 == action && event.1 == id);
    assert!(at("start", &new).expect("started") < at("die", &old).expect("died"), "{events:?}");
    site.nothing_to_do();
}

#[test]
fn a_changed_secret_replaces_and_an_unchanged_one_does_not() {
    let mut site = Site::new("secret");
    let mut entry = stdio(&[]);
    entry["env"] = json!({ "TOKEN": "${TOKEN}" });
    site.write(&json!({ "time": entry }));
    site.variable("TOKEN", "one");
    site.one_shot().exits(0);
    let first = site.id("time");
    site.one_shot().exits(0);
    assert_eq!(first, site.id("time"));
    site.variable("TOKEN", "two");
    site.one_shot().exits(0);
    assert_ne!(first, site.id("time"));
    let env = site.running("time").pointer("/Config/Env").cloned().unwrap_or_default();
    assert!(env.as_array().is_some_and(|env| env.contains(&json!("TOKEN=two"))), "{env}");
}

#[test]
fn the_order_of_flags_is_no_change() {
    let site = Site::new("order");
    let image = image();
    site.write(&json!({ "time": docker_run(&["-i", "-e", "A=1", "-e", "B=2", "--memory", "64m", "--label", "x=y", &image]) }));
    site.one_shot().exits(0);
    let id = site.id("time");
    site.write(&json!({ "time": docker_run(&["--label=x=y", "--memory=65536k", "-e", "B=2", "-e", "A=1", "--interactive", &image]) }));
    site.nothing_to_do();
    site.one_shot().exits(0);
    assert_eq!(id, site.id("time"));
}

#[test]
fn a_direct_server_is_replaced_stop_first_and_keeps_its_port() {
    let site = Site::new("direct");
    let fixed = format!("{}:8000", site.fixed_port());
    let entries = |value: &str| json!({ "web": http(&["-p", "8000", "-e", value]), "own": http(&["-p", &fixed, "-e", value]) });
    site.write(&entries("A=1"));
    site.one_shot().exits(0);
    let (web, own, port) = (site.id("web"), site.id("own"), site.port("web"));
    assert!(site.ports.contains(&port) && port != site.fixed_port());
    assert_eq!(site.port("own"), site.fixed_port());
    for port in [port, site.fixed_port()] {
        assert_eq!(get(port, "/health").as_deref(), Some("ok\n"), "port {port}");
    }
    site.write(&entries("A=2"));
    site.run(&["plan", "--exit-code"]).exits(3).says("stop-first");
    let before = unix_now();
    site.one_shot().exits(0);
    let new = site.id("web");
    assert!(new != web && site.id("own") != own);
    assert_eq!((site.port("web"), site.port("own")), (port, site.fixed_port()));
    for port in [port, site.fixed_port()] {
        assert_eq!(get(port, "/health").as_deref(), Some("ok\n"), "port {port}");
    }
    let events = site.events(before);
    let at = |action: &str, id: &str| events.iter().position(|event| event.0 == action && event.1 == id);
    let (made, died, began) = (at("create", &new), at("die", &web), at("start", &new));
    assert!(
        made < died && died < began && made.is_some(),
        "made first, old stopped, new started: {events:?}"
    );
    assert_eq!(site.names(), set(&["web", "own"]));
}

#[test]
fn a_replacement_that_fails_leaves_the_old_one_and_why_names_the_next_try() {
    let site = Site::new("fail");
    site.write(&json!({ "time": stdio(&[]), "web": http(&["-p", "8000"]) }));
    site.one_shot().exits(0);
    let (time, web, port) = (site.id("time"), site.id("web"), site.port("web"));
    site.write(&json!({ "time": broken(&["-i"]), "web": broken(&["-p", "8000"]) }));
    site.one_shot().exits(1);
    assert_eq!((time.clone(), web.clone()), (site.id("time"), site.id("web")), "the old containers serve");
    eventually("the old one answers again", 20, || {
        (get(port, "/health").as_deref() == Some("ok\n")).then_some(())
    });
    assert_eq!(site.names(), set(&["time", "web"]), "what failed is gone");
    let daemon = site.daemon();
    for server in ["time", "web"] {
        let why = site.run(&["why", server]).exits(0);
        assert!(why.all().contains("next try") && why.all().contains("(in "), "{}", why.out);
    }
    assert_eq!(site.run(&["status"]).code, 1);
    assert_eq!(
        (time.clone(), web.clone()),
        (site.id("time"), site.id("web")),
        "a restart does not try at once"
    );
    // A good declaration does not wait for the next try of the bad one.
    site.write(&json!({ "time": stdio(&["-e", "A=2"]), "web": http(&["-p", "8000", "-e", "A=2"]) }));
    site.run(&["sync"]);
    eventually("the good declaration runs", 20, || {
        let new = |server: &str, old: &str| {
            site.container(server).is_some_and(|now| runs(&now) && text(&now, "/Id") != old)
        };
        (new("time", &time) && new("web", &web)).then_some(())
    });
    site.run(&["sync"]).exits(0);
    drop(daemon);
}

#[test]
fn a_foreign_container_with_our_name_is_a_conflict_of_that_server_only() {
    let site = Site::new("foreign");
    let theirs = site.somebody_elses(&site.name("time"), &[]);
    let stolen = site.somebody_elses(
        &site.name("late"),
        &[("managed-by", "mcp-orchestrator"), (STACK, "somebody-else"), (SERVER, "late")],
    );
    site.write(&json!({ "time": stdio(&[]), "echo": stdio(&[]), "late": stdio(&[]) }));
    site.one_shot().exits(1).says("MCPO-P030").says(&site.name("time"));
    assert!(runs(&site.running("echo")));
    for (server, id) in [("time", &theirs), ("late", &stolen)] {
        assert_eq!(&site.id(server), id, "untouched, and still with its name");
        assert_eq!(label(&site.running(server), OTHERS), site.stack);
    }
    // Nor is it touched when the entry goes.
    site.write(&json!({ "echo": stdio(&[]) }));
    site.one_shot().exits(0);
    assert_eq!((site.id("time"), site.id("late")), (theirs, stolen));
}

#[test]
fn a_port_that_something_else_holds_is_skipped_and_a_lease_is_kept() {
    let site = Site::new("skip");
    let held = std::net::TcpListener::bind(("127.0.0.1", site.ports.start)).expect("a free port");
    site.write(&json!({ "web": http(&["-p", "8000"]) }));
    site.one_shot().exits(0);
    let port = site.port("web");
    assert!(site.ports.contains(&port) && port != site.ports.start, "port {port}");
    drop(held);
    site.one_shot().exits(0);
    assert_eq!(port, site.port("web"), "a free lower port is no reason to move");
}

#[test]
fn a_lease_outlives_restarts_other_servers_and_the_state_file() {
    let site = Site::new("lease");
    site.write(&json!({ "a": http(&["-p", "8000"]), "b": http(&["-p", "8000"]), "c": stdio(&[]) }));
    site.one_shot().exits(0);
    let (b, port, c) = (site.id("b"), site.port("b"), site.port("c"));
    site.write(&json!({ "b": http(&["-p", "8000"]), "c": stdio(&[]) }));
    site.one_shot().exits(0);
    assert_eq!(
        (b.clone(), port, c),
        (site.id("b"), site.port("b"), site.port("c")),
        "after the removal of another server"
    );
    std::fs::remove_dir_all(site.state_dir()).expect("the state");
    site.one_shot().exits(0);
    assert_eq!((b, port, c), (site.id("b"), site.port("b"), site.port("c")), "after the loss of the state");
    site.write(&json!({ "b": http(&["-p", "8000", "-e", "A=2"]), "c": stdio(&["-e", "A=2"]), "d": http(&["-p", "8000"]) }));
    site.one_shot().exits(0);
    assert_eq!((port, c), (site.port("b"), site.port("c")), "after a change");
    assert!(![port, c].contains(&site.port("d")));
    std::fs::remove_file(site.state_dir().join("state.db")).expect("the state");
    let daemon = site.daemon();
    site.run(&["sync"]).exits(0);
    let ports = site.run(&["ports", "--json"]).exits(0).json();
    assert_eq!(ports.pointer("/leases/b/port"), Some(&json!(port)), "{ports}");
    assert_eq!(ports.pointer("/leases/c/port"), Some(&json!(c)), "{ports}");
    drop(daemon);
}

#[test]
fn disabled_stops_and_enabled_starts() {
    let site = Site::new("disabled");
    let entry = |disabled: bool| {
        let mut entry = stdio(&[]);
        entry["disabled"] = json!(disabled);
        json!({ "time": entry })
    };
    site.write(&entry(false));
    site.one_shot().exits(0);
    let id = site.id("time");
    site.write(&entry(true));
    site.one_shot().exits(0);
    assert!(!site.container("time").is_some_and(|container| runs(&container)), "disabled: it does not run");
    site.nothing_to_do();
    site.write(&entry(false));
    site.one_shot().exits(0);
    assert_eq!(id, site.id("time"), "the same container starts again");
}

#[test]
fn a_stop_by_hand_holds_over_a_restart_and_a_lost_state() {
    let site = Site::new("intent");
    site.write(&json!({ "time": stdio(&[]), "echo": stdio(&[]) }));
    let daemon = site.daemon();
    site.run(&["sync"]).exits(0);
    let (time, echo) = (site.id("time"), site.id("echo"));
    site.run(&["stop-server", "time"]).exits(0);
    let stopped = || site.container("time").is_some_and(|container| !runs(&container));
    assert!(stopped());
    assert_eq!(daemon.stop(), 0);
    std::fs::remove_file(site.state_dir().join("state.db")).expect("the state");
    let daemon = site.daemon();
    site.run(&["sync"]).exits(0);
    assert!(stopped(), "after a restart and the loss of the database");
    site.run(&["why", "time"]).exits(0).says("stopped by");
    daemon.kill();
    site.one_shot().exits(0);
    assert!(stopped(), "one-shot runs know it too");
    let daemon = site.daemon();
    site.run(&["start-server", "time"]).exits(0);
    assert_eq!((time, echo), (site.id("time"), site.id("echo")));
    drop(daemon);
}

#[test]
fn a_stop_for_a_time_ends_by_itself() {
    let site = Site::new("for");
    site.write(&json!({ "time": stdio(&[]) }));
    let daemon = site.daemon();
    site.run(&["sync"]).exits(0);
    let id = site.id("time");
    site.run(&["stop-server", "time", "--for", "2s"]).exits(0);
    eventually("it runs again", 10, || site.container("time").filter(runs));
    assert_eq!(id, site.id("time"));
    drop(daemon);
}

#[test]
fn a_start_by_hand_wins_over_disabled() {
    let site = Site::new("start");
    let mut entry = stdio(&[]);
    entry["disabled"] = json!(true);
    site.write(&json!({ "time": entry }));
    let daemon = site.daemon();
    site.run(&["sync"]).exits(0);
    assert!(site.container("time").is_none());
    site.run(&["start-server", "time"]).exits(0);
    let id = site.id("time");
    assert_eq!(daemon.stop(), 0);
    let daemon = site.daemon();
    site.run(&["sync"]).exits(0);
    assert_eq!(id, site.id("time"), "it still runs after a restart");
    drop(daemon);
}

#[test]
fn what_the_file_no_longer_has_goes_and_what_is_not_ours_stays() {
    let site = Site::new("orphan");
    let all = json!({ "a": stdio(&[]), "b": stdio(&[]), "c": stdio(&[]), "d": http(&["-p", "8000"]), "e": http(&["-p", "8000"]) });
    site.write(&all);
    site.one_shot().exits(0);
    let kept: Vec<String> = ["a", "c", "d"].iter().map(|server| site.id(server)).collect();
    let other = format!("{}-other", site.stack);
    let ours_elsewhere = site.somebody_elses(
        &format!("{other}-b"),
        &[("managed-by", "mcp-orchestrator"), (STACK, &other), (SERVER, "b")],
    );
    let unmarked = site.somebody_elses(&site.name("x"), &[(STACK, &site.stack), (SERVER, "x")]);
    site.write(&json!({ "a": stdio(&[]), "c": stdio(&[]), "d": http(&["-p", "8000"]) }));
    site.one_shot().exits(0);
    assert_eq!(site.names(), set(&["a", "c", "d", "x"]));
    assert_eq!(kept, ["a", "c", "d"].iter().map(|server| site.id(server)).collect::<Vec<_>>());
    for id in [&ours_elsewhere, &unmarked] {
        assert!(inspect(id).is_some_and(|container| runs(&container)), "not ours, and untouched");
    }
}

#[test]
fn anonymous_volumes_move_to_the_replacement_and_go_with_rm_only() {
    let site = Site::new("volume");
    let named = format!("{}-named:/named", site.stack);
    let entries = |value: &str| {
        json!({
            "gone": stdio(&["--rm", "-v", "/data", "-v", &named, "-e", value]),
            "kept": stdio(&["-v", "/data", "-e", value]),
            "last": stdio(&[]),
        })
    };
    site.write(&entries("A=1"));
    site.one_shot().exits(0);
    let of = |server: &str| volumes(&site.running(server)).get("/data").cloned().unwrap_or_default();
    let (gone, kept, id) = (of("gone"), of("kept"), site.id("gone"));
    assert!(volume_exists(&gone) && volume_exists(&kept));
    for value in ["A=2", "A=3"] {
        site.write(&entries(value));
        site.one_shot().exits(0);
        assert_eq!((&of("gone"), &of("kept")), (&gone, &kept), "after {value}");
    }
    assert_ne!(id, site.id("gone"));
    let named = format!("{}-named", site.stack);
    assert_eq!(volumes(&site.running("gone")).get("/named"), Some(&named));
    site.write(&json!({ "last": stdio(&[]) }));
    site.one_shot().exits(0);
    let left = (volume_exists(&gone), volume_exists(&kept), volume_exists(&named));
    engine("DELETE", &format!("/volumes/{kept}"), &Value::Null);
    assert_eq!(left, (false, true, true), "with --rm, without, named");
}

#[test]
fn without_an_engine_commands_say_so_and_the_daemon_waits_for_it() {
    let mut site = Site::new("away");
    site.setting("SERVICE__DOCKER_HOST", &format!("unix://{}", site.path("nothing.sock").display()));
    site.write(&json!({ "time": stdio(&[]) }));
    site.one_shot().exits(5);
    site.run(&["plan", "--exit-code"]).exits(5);
    let mut daemon = site.daemon();
    site.run(&["status"]).exits(1).says("Docker not reachable");
    assert!(daemon.alive());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_lease_lost_to_another_process_is_reported_and_moved_in_two_phases() {
    let site = Site::new("moved");
    site.write(&json!({ "web": http(&["-p", "8000"]) }));
    site.one_shot().exits(0);
    let (id, port) = (site.id("web"), site.port("web"));
    engine("POST", &format!("/containers/{id}/stop?t=1"), &Value::Null);
    let taken = eventually("the port is free", 5, || std::net::TcpListener::bind(("127.0.0.1", port)).ok());
    let daemon = site.daemon();
    eventually("the loss is reported", 10, || {
        let why = site.run(&["why", "web"]);
        why.all().contains("MCPO-P012").then_some(())
    });
    eventually("it has another port", 30, || {
        site.container("web").filter(|web| runs(web) && label(web, PORT) != port.to_string())
    });
    site.run(&["sync"]).exits(0);
    let new = site.port("web");
    assert!(site.ports.contains(&new) && new != port);
    assert_eq!(get(new, "/health").as_deref(), Some("ok\n"));
    drop((taken, daemon));
}
