//! Containers that start with the first request and stop when nobody uses them.

use crate::gateway::client::{At, MODERN, fixture, fixture_image};
use crate::gateway::wire::Ask;
use crate::support::{Site, docker_run, eventually, runs, text};
use serde_json::{Value, json};
use std::time::Duration;

/// Starts with the first request, and stops after this.
const OWN: &str = r#"{"startOnDemand": true, "idleTimeout": "2s"}"#;

fn lazily(mut entry: Value, more: &Value) -> Value {
    let mut own: Value = serde_json::from_str(OWN).expect("JSON");
    for (key, value) in more.as_object().into_iter().flatten() {
        own[key] = value.clone();
    }
    entry["orchestrator"] = own;
    entry
}

/// The three kinds of containers.
fn entries() -> Value {
    let image = fixture_image();
    let args = ["--era", "legacy", "--http", "8000", "--host", "0.0.0.0", "--any-host"];
    let words: Vec<&str> = [image.as_str()].into_iter().chain(args).collect();
    let none = json!({});
    json!({
        "old": lazily(fixture(&["--era", "legacy"]), &none),
        "new": lazily(fixture(&["--era", "modern"]), &none),
        "web": lazily(docker_run(&words), &json!({"transport": "http", "containerPort": 8000})),
    })
}

fn is_up(site: &Site, server: &str) -> bool {
    site.container(server).is_some_and(|container| runs(&container))
}

fn asleep(site: &Site, server: &str) {
    eventually(&format!("{server} is asleep"), 40, || {
        (site.row(server)["state"] == "asleep" && !is_up(site, server)).then_some(())
    });
}

/// What a client sees of a server without calling it.
fn look(at: &At) -> usize {
    let client = at.open();
    let tools = client.request("tools/list", &json!({}))["result"]["tools"].as_array().expect("tools").len();
    let modern = at.modern("1", "tools/list", "{}", "{}").send(at.port).answer();
    assert_eq!(modern["result"]["tools"].as_array().expect("tools").len(), tools, "{modern}");
    assert_eq!(modern["result"]["resultType"], "complete");
    let found = at.modern("2", "server/discover", "{}", "{}").send(at.port).answer();
    let versions = found["result"]["supportedVersions"].as_array().expect("versions");
    assert!(versions.contains(&json!(MODERN)), "{found}");
    assert_eq!(Ask::new("GET", "/healthz").send(at.port).status, 200, "whoever asks is sent here");
    tools
}

#[test]
fn containers_start_with_the_first_call_and_stop_when_nobody_uses_them() {
    let site = Site::new("gw-lazy");
    site.write(&entries());
    let daemon = site.daemon();
    for server in ["old", "new", "web"] {
        let at = At::of(&site, server);
        assert!(!is_up(&site, server), "nobody asked for {server}");
        assert_eq!(Ask::new("GET", "/healthz").send(at.port).status, 200);
        // Nothing is kept yet.
        assert!(look(&at) > 0);
        let id = site.id(server);
        asleep(&site, server);
        let ended = text(&site.container(server).expect("it stays"), "/State/FinishedAt");
        assert!(look(&at) > 0);
        std::thread::sleep(Duration::from_millis(500));
        assert!(!is_up(&site, server), "looking starts nothing");
        let client = at.open();
        assert_eq!(client.call("echo", &json!({"message": "up"})), "up", "{server}");
        assert_eq!(site.id(server), id, "the same container");
        // A call that takes longer than the idle time is not cut off.
        let slow = client.try_call("nasty_slow", &json!({"ms": 4000}));
        assert!(slow.is_ok(), "{slow:?}");
        asleep(&site, server);
        assert_ne!(text(&site.container(server).expect("it stays"), "/State/FinishedAt"), ended);
        let why = site.run(&["why", server]).all();
        assert!(why.contains("stopped: idle for 2 s"), "{why}");
        assert_eq!(at.modern_call("echo", &json!({"message": "again"})), "again", "{server}");
    }
    // All of them at the other doors, and after another start of the daemon.
    for server in ["old", "new", "web"] {
        asleep(&site, server);
    }
    daemon.kill();
    let _daemon = site.daemon();
    for server in ["old", "new", "web"] {
        assert!(look(&At::of(&site, server)) > 0);
        let document = Ask::new("GET", &format!("/openapi/{server}/openapi.json")).send(site.main_port());
        assert!(document.body().contains("/echo"));
    }
    let all = At { port: site.main_port(), path: "/mcp".to_owned(), auth: None };
    let tools = all.open().request("tools/list", &json!({}))["result"]["tools"].clone();
    let listed = |server: &str| {
        let prefix = format!("{server}__");
        let mut names = tools.as_array().into_iter().flatten().filter_map(|tool| tool["name"].as_str());
        names.any(|name| name.starts_with(&prefix))
    };
    for server in ["old", "new", "web"] {
        assert!(listed(server) && !is_up(&site, server), "{server}: {tools}");
    }
    assert_eq!(all.open().call("old__echo", &json!({"message": "one"})), "one");
    let body = json!({"message": "two"}).to_string();
    let called = Ask::post("/openapi/web/echo", &body).with("Accept", "*/*").send(site.main_port());
    let status = called.status;
    assert_eq!(status, 200, "{}", called.body());
    assert!(!is_up(&site, "new"), "nobody called it");
}

#[test]
fn sessions_of_their_own_and_streams_keep_a_server_awake_and_one_shot_starts_nothing() {
    let site = Site::new("gw-lazy-own");
    site.write(&json!({ "old": lazily(fixture(&["--era", "legacy"]), &json!({})) }));
    site.one_shot().exits(0);
    assert!(!is_up(&site, "old"), "it starts on demand");
    let _daemon = site.daemon();
    let at = At::of(&site, "old");
    // It could be asked something: it has an instance of its own.
    let own = at.open_as("2025-11-25", &json!({"roots": {}}));
    std::thread::sleep(Duration::from_secs(5));
    assert!(is_up(&site, "old") && site.row("old")["state"] == "converged");
    assert_eq!(own.delete(), 200);
    asleep(&site, "old");
    let client = at.open();
    let stream = client.listen();
    assert_eq!(client.call("echo", &json!({"message": "up"})), "up");
    std::thread::sleep(Duration::from_secs(5));
    assert!(is_up(&site, "old"), "somebody listens");
    drop(stream);
    asleep(&site, "old");
    // Stops and starts by hand hold.
    site.run(&["stop-server", "old"]).exits(0);
    assert_eq!(Ask::new("GET", "/healthz/old").send(site.main_port()).status, 503);
    site.run(&["start-server", "old"]).exits(0);
    assert!(is_up(&site, "old"));
    asleep(&site, "old");
}
