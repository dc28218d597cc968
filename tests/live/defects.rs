//! The defects of the one earlier attempt at this product (numbers as in its review) and of a
//! popular proxy's reload, each as the promise that they do not happen here. Those of the load
//! balancer are in `alb`.

use crate::proxy::{Death, Proxy};
use crate::support::{Site, docker_run, engine, eventually, get, http, image, inspect, runs, stdio, text};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;

fn environment(container: &Value) -> Vec<String> {
    let env = container.pointer("/Config/Env").and_then(Value::as_array).cloned().unwrap_or_default();
    env.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[test]
fn defect_01_flags_with_values_are_not_taken_for_the_image() {
    let site = Site::new("d01");
    let image = image();
    let fixed = format!("{}:8080", site.fixed_port());
    site.write(&json!({
        "sample": docker_run(&["--rm", "--interactive", "--env", "FASTMCP_LOG_LEVEL=ERROR", "--env", "PARTITION=aws", &image]),
        "web": docker_run(&["--rm", "-p", &fixed, &image, "--http", "8080"]),
        "named": docker_run(&["-i", "--rm", "--name", "x", &image]),
    }));
    // A name that is not ours is refused by name, and its value is not the image.
    site.one_shot().exits(1).says("2 of 3 servers converged").says("--name: refused");
    let sample = site.running("sample");
    assert_eq!(text(&sample, "/Config/Image"), image);
    let env = environment(&sample);
    for wanted in ["FASTMCP_LOG_LEVEL=ERROR", "PARTITION=aws"] {
        assert!(env.iter().any(|have| have == wanted), "{env:?}");
    }
    let web = site.running("web");
    assert_eq!(text(&web, "/Config/Image"), image);
    assert_eq!(web.pointer("/Config/Cmd"), Some(&json!(["--http", "8080"])));
    assert_eq!(get(site.fixed_port(), "/health").as_deref(), Some("ok\n"));
}

/// Whether the engine has the kernel's memory and CPU controllers.
fn limits_enforced() -> bool {
    let format = "{{.MemoryLimit}} {{.CPUCfsQuota}}";
    let done = std::process::Command::new("docker").args(["info", "--format", format]).output();
    let done = done.expect("a docker client");
    assert!(done.status.success(), "docker info: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).trim() == "true true"
}

#[test]
fn defect_02_every_flag_of_the_line_is_applied() {
    let site = Site::new("d02");
    let image = image();
    let volume = format!("{}-data:/data", site.stack);
    // An engine without the controllers refuses or drops limits, whoever asks for them.
    let limits = limits_enforced();
    println!("the engine enforces limits: {limits}");
    let limit_words: &[&str] = if limits { &["--memory=96m", "--cpus", "0.5"] } else { &[] };
    let mut words = vec![
        "-i",
        "-v",
        &volume,
        "-e",
        "FROM_LINE=1",
        "-e",
        "BOTH=line",
        "--network",
        "none",
        "-u",
        "65534:65534",
        "--cap-drop",
        "ALL",
        "--label",
        "team=blue",
        "--workdir",
        "/data",
        "--hostname",
        "h1",
    ];
    words.extend(limit_words);
    words.push(&image);
    let mut entry = docker_run(&words);
    entry["env"] = json!({ "FROM_MAP": "2", "BOTH": "map" });
    site.write(&json!({ "flags": entry, "port": docker_run(&["-p", "8123", &image, "--http", "8123"]) }));
    site.one_shot().exits(0);
    let made = site.running("flags");
    let env = environment(&made);
    for wanted in ["FROM_LINE=1", "FROM_MAP=2", "BOTH=map"] {
        assert!(env.iter().any(|have| have == wanted), "{env:?}");
    }
    let (memory, cpus) = if limits { (96 * 1024 * 1024, 500_000_000) } else { (0, 0) };
    for (pointer, wanted) in [
        ("/HostConfig/NetworkMode", json!("none")),
        ("/HostConfig/Memory", json!(memory)),
        ("/HostConfig/NanoCpus", json!(cpus)),
        ("/HostConfig/CapDrop", json!(["ALL"])),
        ("/Config/User", json!("65534:65534")),
        ("/Config/WorkingDir", json!("/data")),
        ("/Config/Hostname", json!("h1")),
        ("/Config/Labels/team", json!("blue")),
        ("/Mounts/0/Name", json!(format!("{}-data", site.stack))),
    ] {
        assert_eq!(made.pointer(pointer), Some(&wanted), "{pointer}");
    }
    // The port inside is the line's, not a fixed one.
    assert_eq!(get(site.port("port"), "/health").as_deref(), Some("ok\n"));
}

#[test]
fn defect_03_a_stdio_server_has_its_input_open_and_answers() {
    let site = Site::new("d03");
    site.write(&json!({ "time": stdio(&["--rm"]) }));
    let daemon = site.daemon();
    site.run(&["sync"]).exits(0);
    let begun = text(&site.running("time"), "/State/StartedAt");
    site.run(&["call", "time", "add", r#"{"a": 20, "b": 22}"#]).exits(0).says("42");
    site.run(&["call", "time", "echo", r#"{"text": "still there"}"#]).exits(0).says("still there");
    let made = site.running("time");
    assert_eq!(text(&made, "/State/StartedAt"), begun, "it was not restarted");
    assert_eq!(site.row("time")["restarts"], 0);
    assert_eq!(text(&made, "/Config/OpenStdin"), "true");
    assert_eq!(text(&made, "/HostConfig/AutoRemove"), "false");
    drop(daemon);
}

#[test]
fn defect_04_a_change_of_the_file_reaches_a_container_that_exists() {
    let site = Site::new("d04");
    site.write(&json!({ "time": stdio(&["-e", "A=1"]), "web": http(&["-p", "8000", "-e", "A=1"]) }));
    let daemon = site.daemon();
    site.run(&["sync"]).exits(0);
    // Nobody asks for it: the file is watched.
    site.write(&json!({ "time": stdio(&["-e", "A=2"]), "web": http(&["-p", "8000", "-e", "A=2"]) }));
    for server in ["time", "web"] {
        eventually("the change is there", 30, || {
            let now = site.container(server).filter(runs)?;
            environment(&now).contains(&"A=2".to_owned()).then_some(())
        });
    }
    // The same when the file is written in place.
    let new =
        json!({ "mcpServers": { "time": stdio(&["-e", "A=3"]), "web": http(&["-p", "8000", "-e", "A=2"]) } });
    std::fs::write(site.config(), new.to_string()).expect("a file");
    eventually("the change is there", 30, || {
        let now = site.container("time").filter(runs)?;
        environment(&now).contains(&"A=3".to_owned()).then_some(())
    });
    site.run(&["sync"]).exits(0);
    drop(daemon);
}

#[test]
fn defect_05_ports_outlive_a_crash_and_are_never_given_twice() {
    let site = Site::new("d05");
    let servers = |names: &[&str]| -> Value {
        names
            .iter()
            .map(|name| ((*name).to_owned(), http(&["-p", "8000"])))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    site.write(&servers(&["b", "c"]));
    let daemon = site.daemon();
    site.run(&["sync"]).exits(0);
    let ports = ["b", "c"].map(|server| site.port(server));
    daemon.kill();
    // Containers that do not run hold their ports all the same.
    let id = site.id("b");
    engine("POST", &format!("/containers/{id}/kill"), &Value::Null);
    site.write(&servers(&["a", "b", "c"]));
    let daemon = site.daemon();
    site.run(&["sync"]).exits(0);
    assert_eq!(["b", "c"].map(|server| site.port(server)), ports);
    let all: BTreeSet<u16> = ["a", "b", "c"].map(|server| site.port(server)).into();
    assert_eq!(all.len(), 3);
    drop(daemon);
}

#[test]
fn defect_14_a_failure_is_tried_again_until_it_works() {
    let mut site = Site::new("d14");
    let socket = site.path("engine.sock");
    site.setting("SERVICE__DOCKER_HOST", &format!("unix://{}", socket.display()));
    site.write(&json!({ "time": stdio(&[]) }));
    let mut daemon = site.daemon();
    site.run(&["status"]).exits(1).says("Docker not reachable");
    assert!(daemon.alive());
    let proxy = Proxy::start(&socket, Death::Never);
    eventually("the engine is back and so is the server", 15, || site.container("time").filter(runs));
    site.run(&["sync"]).exits(0);
    drop((daemon, proxy));
}

#[test]
fn defect_15_systemd_hears_of_readiness_and_state() {
    let mut site = Site::new("d15");
    let socket = site.path("notify.sock");
    let heard = UnixDatagram::bind(&socket).expect("a socket");
    heard.set_read_timeout(Some(std::time::Duration::from_secs(20))).expect("a timeout");
    site.variable("NOTIFY_SOCKET", &socket.display().to_string());
    site.variable("WATCHDOG_USEC", "4000000");
    site.write(&json!({ "time": stdio(&[]) }));
    let daemon = site.daemon();
    let mut all = String::new();
    let mut hear_until = |word: &str| {
        while !all.contains(word) {
            let mut bytes = [0; 4096];
            let count =
                heard.recv(&mut bytes).unwrap_or_else(|error| panic!("{word}: {error}; heard: {all}"));
            all.push_str(&String::from_utf8_lossy(&bytes[..count]));
            all.push('\n');
        }
    };
    hear_until("READY=1");
    hear_until("STATUS=1 of 1 server converged");
    hear_until("WATCHDOG=1");
    assert_eq!(daemon.stop(), 0);
    hear_until("STOPPING=1");
    assert!(runs(&site.running("time")), "it goes on running");
}

#[test]
fn defect_16_what_the_help_names_works() {
    let site = Site::new("d16");
    site.write(&json!({ "time": stdio(&[]), "echo": stdio(&[]) }));
    let daemon = site.daemon();
    site.run(&["sync"]).exits(0);
    let begun = || text(&site.running("time"), "/State/StartedAt");
    let (id, first) = (site.id("time"), begun());
    site.run(&["restart-server", "time"]).exits(0);
    assert_eq!(id, site.id("time"));
    assert_ne!(first, begun(), "restarted");
    site.run(&["stop"]).exits(0);
    let stopped = |server: &str| site.container(server).is_some_and(|container| !runs(&container));
    assert!(stopped("time") && stopped("echo"));
    site.run(&["start"]).exits(0);
    assert_eq!(id, site.id("time"));
    site.run(&["restart"]).exits(0);
    for command in [
        &["status"][..],
        &["status", "--detailed"],
        &["list-servers"],
        &["list-servers", "--status", "converged"],
        &["ports"],
        &["why", "echo"],
        &["plan"],
        &["validate"],
        &["list-servers", "--json"],
    ] {
        site.run(command).exits(0);
    }
    site.run(&["why", "tiem"]).exits(1).says("did you mean time");
    drop(daemon);
    site.run(&["status"]).exits(4);
}

#[test]
fn one_bad_entry_leaves_its_container_alone_and_the_others_change() {
    let site = Site::new("bad");
    site.write(&json!({ "a": stdio(&["-e", "A=1"]), "b": stdio(&["-e", "A=1"]), "gone": stdio(&[]) }));
    site.one_shot().exits(0);
    let (a, b) = (site.id("a"), site.id("b"));
    for (bad, word) in [
        (stdio(&["-e", "A=${NOT_SET_ANYWHERE}"]), "NOT_SET_ANYWHERE"),
        (stdio(&["--no-such-flag"]), "no-such-flag"),
        (json!({ "command": 7 }), "command"),
    ] {
        site.write(&json!({ "a": bad, "b": stdio(&["-e", "A=2"]) }));
        let done = site.one_shot().exits(1);
        assert!(done.all().contains(word), "{}", done.all());
        assert_eq!(a, site.id("a"), "its container stays as it is");
        assert_ne!(b, site.id("b"), "the other one changes");
        let names: BTreeSet<String> = ["a", "b"].map(str::to_owned).into();
        assert_eq!(site.names(), names);
        let named = site.run(&["validate"]).exits(2);
        assert!(named.all().contains("mcp.config.json:1:") && named.all().contains(word), "{}", named.all());
    }
    site.write(&json!({ "a": stdio(&["-e", "A=1"]), "b": stdio(&["-e", "A=2"]) }));
    site.one_shot().exits(0);
    assert_eq!(a, site.id("a"));
}

#[test]
fn a_file_that_cannot_be_read_changes_nothing_and_heals_by_itself() {
    let site = Site::new("unread");
    site.write(&json!({ "a": stdio(&[]), "b": stdio(&[]) }));
    let mut daemon = site.daemon();
    site.run(&["sync"]).exits(0);
    let (a, b) = (site.id("a"), site.id("b"));
    for text in ["{\n  \"mcpServers\": {\n    \"a\": [\n", "\u{0}\u{1}", "[]"] {
        site.write_text(text);
        let status = eventually("the status says so", 10, || {
            let status = site.run(&["status"]);
            status.all().contains("mcp.config.json:").then_some(status)
        });
        assert_eq!(status.code, 1, "{}", status.all());
        site.run(&["sync"]);
        assert_eq!((&a, &b), (&site.id("a"), &site.id("b")), "after {text:?}");
        // Better again, by itself.
        site.write(&json!({ "a": stdio(&[]), "b": stdio(&[]) }));
        eventually("all is well again", 10, || (site.run(&["status"]).code == 0).then_some(()));
    }
    site.write_text("{\n  \"mcpServers\": {\n    \"a\": [\n");
    eventually("the line is named", 10, || {
        site.run(&["status"]).all().contains("mcp.config.json:3").then_some(())
    });
    // A container that dies meanwhile is started again all the same.
    engine("POST", &format!("/containers/{a}/kill"), &Value::Null);
    eventually("it runs again", 10, || site.container("a").filter(runs));
    // Nor does an empty one, or none, remove anything.
    site.write_text("");
    assert_eq!(site.run(&["sync"]).code, 1);
    assert_eq!((&a, &b), (&site.id("a"), &site.id("b")));
    std::fs::remove_file(site.config()).expect("a file");
    site.run(&["sync"]);
    assert!(daemon.alive());
    assert_eq!((&a, &b), (&site.id("a"), &site.id("b")));
    site.write(&json!({ "a": stdio(&[]), "b": stdio(&["-e", "A=2"]) }));
    eventually("it goes on by itself", 20, || {
        site.container("b").filter(|now| runs(now) && text(now, "/Id") != b)
    });
    // A daemon that starts with such a file waits for a better one.
    assert_eq!(daemon.stop(), 0);
    let b = site.id("b");
    site.write_text("{");
    let daemon = site.daemon();
    site.run(&["sync"]).exits(1);
    assert_eq!((&a, &b), (&site.id("a"), &site.id("b")));
    assert_eq!(site.names().len(), 2);
    drop(daemon);
}

#[test]
fn an_empty_file_is_no_order_to_remove_everything() {
    let site = Site::new("empty");
    let all = json!({ "a": stdio(&[]), "b": stdio(&[]), "c": stdio(&[]), "d": http(&["-p", "8000"]), "e": stdio(&[]) });
    site.write(&all);
    site.one_shot().exits(0);
    let names = site.names();
    assert_eq!(names.len(), 5);
    site.write_text("");
    assert_ne!(site.one_shot().code, 0);
    assert_eq!(names, site.names());
    site.write(&json!({}));
    site.one_shot().exits(1).says("--allow-mass-delete");
    assert_eq!(names, site.names());
    // More than half is much too; half is not.
    site.write(&json!({ "a": stdio(&[]), "b": stdio(&[]) }));
    site.one_shot().exits(1);
    assert_eq!(names, site.names());
    site.write(&json!({ "a": stdio(&[]), "b": stdio(&[]), "c": stdio(&[]) }));
    site.one_shot().exits(0);
    assert_eq!(site.names().len(), 3);
    // And by a daemon: asked once, for this once.
    site.write(&json!({}));
    let daemon = site.daemon();
    site.run(&["sync"]).exits(1);
    assert_eq!(site.names().len(), 3);
    site.run(&["--allow-mass-delete", "sync"]).exits(0);
    assert_eq!(site.names().len(), 0);
    site.write(&json!({ "a": stdio(&[]) }));
    eventually("it is made", 20, || site.container("a").filter(runs));
    site.run(&["sync"]).exits(0);
    site.write(&json!({}));
    site.run(&["sync"]).exits(1);
    assert_eq!(site.names().len(), 1, "the permission held for one time");
    drop(daemon);
    site.run(&["--allow-mass-delete", "--one-shot"]).exits(0);
    assert_eq!(site.names().len(), 0);
}

#[test]
fn a_reload_ends_in_the_new_server_not_in_the_old_one() {
    let site = Site::new("reload");
    site.write(&json!({ "time": stdio(&["-e", "A=1"]) }));
    let daemon = site.daemon();
    site.run(&["sync"]).exits(0);
    site.run(&["call", "time", "echo", r#"{"text": "old"}"#]).exits(0).says("old");
    let old = site.id("time");
    site.write(&json!({ "time": stdio(&["-e", "A=2"]) }));
    site.run(&["sync"]).exits(0);
    let new = site.id("time");
    assert_ne!(old, new, "what is asked for after a change is done with the change");
    site.run(&["call", "time", "echo", r#"{"text": "new"}"#]).exits(0).says("new");
    assert!(inspect(&old).is_none(), "nobody can speak to the old one any more");
    drop(daemon);
}
