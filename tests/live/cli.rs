//! The commands that look: what they print for people and for programs, with a daemon and without.

use crate::support::{Site, eventually, stdio};
use mcp_orchestrator::cli::json::{DOCS, Doc};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Keys that are there only at times; the reference says when.
const AT_TIMES: &[&str] = &["gateway", "usage", "prompts", "resources", "resourceTemplates", "until", "text"];

fn site(name: &str) -> Site {
    let mut site = Site::new(name);
    site.variable("COLUMNS", "80");
    let mut time = stdio(&[]);
    time["orchestrator"] = json!({ "priority": 5 });
    site.write(&json!({ "time": time, "a-server-with-quite-a-long-name": stdio(&[]) }));
    site
}

/// Words of a documented command.
fn words(command: &str) -> Vec<&str> {
    let word = |word| match word {
        "NAME" => "time",
        "TOOL" => "echo",
        "ID" => "1",
        other => other,
    };
    command.split(' ').map(word).collect()
}

fn top(doc: &Doc) -> BTreeSet<&str> {
    doc.keys.iter().filter_map(|key| key.path.split(['.', '[']).next()).collect()
}

#[test]
fn json_has_the_keys_of_the_reference() {
    let site = site("cli-json");
    let _daemon = site.daemon();
    site.run(&["sync"]).exits(0);
    site.run(&["restart-server", "time"]).exits(0);
    for doc in DOCS.iter().filter(|doc| !doc.command.starts_with("call ")) {
        let done = site.run(&words(doc.command));
        assert!(matches!(done.code, 0 | 1), "{}: {}\n{}", doc.command, done.code, done.err);
        for line in done.out.lines() {
            let printed: Value =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{}: {error}", doc.command));
            let printed: BTreeSet<&str> =
                printed.as_object().expect("an object").keys().map(String::as_str).collect();
            let known = top(doc);
            let unknown: Vec<_> = printed.difference(&known).collect();
            assert!(unknown.is_empty(), "{}: {unknown:?} are not in the reference", doc.command);
            let missing: Vec<_> = known.difference(&printed).filter(|key| !AT_TIMES.contains(key)).collect();
            assert!(missing.is_empty(), "{}: {missing:?} are not printed", doc.command);
        }
    }
    let task = site.run(&["tasks", "1", "--json"]).exits(0).json();
    assert_eq!(task["task"]["id"], 1);
    site.run(&["call", "time", "echo", r#"{"text":"hello"}"#]).exits(0).says("hello");
}

#[track_caller]
fn fits(out: &str) {
    let long: Vec<&str> = out.lines().filter(|line| line.chars().count() > 80).collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn what_can_be_told_without_a_daemon_is_told() {
    let site = site("cli-alone");
    let daemon = site.daemon();
    site.run(&["sync"]).exits(0);
    site.run(&["stop-server", "time"]).exits(0);
    let commands: &[&[&str]] = &[
        &["list-servers"],
        &["ports"],
        &["tasks"],
        &["tasks", "1"],
        &["audit"],
        &["audit", "--server", "time"],
    ];
    for words in commands {
        let done = site.run(words).exits(0);
        assert_eq!(done.err, "", "{words:?}");
        fits(&done.out);
    }
    let health = site.run(&["health"]).exits(0);
    fits(&health.out);
    assert!(health.out.contains("healthy") && health.out.contains("stopped"), "{}", health.out);
    let why = site.run(&["why", "time"]).exits(0);
    assert!(why.out.contains("FROM") && why.out.contains("server, mcp.config.json:"), "{}", why.out);
    site.run(&["list-servers", "--config"]).exits(0).says("noNewPrivileges");
    site.run(&["list-servers", "--status", "stopped"]).exits(0).says("time");
    site.run(&["list-servers", "--status", "nonsense"]).exits(2);
    site.run(&["tasks", "999"]).exits(1).says("MCPO-H007");
    site.run(&["tasks", "--limit", "0"]).exits(2);
    site.run(&["audit", "--result", "nonsense"]).exits(2);
    site.run(&["health", "--server", "nobody"]).exits(1).says("MCPO-H002");
    let before = site.run(&["tasks", "--json"]).exits(0).json();
    assert_eq!(daemon.stop(), 0);
    for words in commands {
        let done = site.run(words).exits(0);
        assert!(done.err.contains("no daemon answers"), "{words:?}: {}", done.err);
        fits(&done.out);
        assert!(!done.out.trim().is_empty(), "{words:?}");
    }
    let alone = site.run(&["tasks", "--json"]).exits(0).json();
    assert_eq!((&alone["tasks"], &alone["daemon"]), (&before["tasks"], &json!(false)));
    let status = site.run(&["status"]).exits(4);
    assert!(status.out.contains("time") && status.err.contains("no daemon answers"), "{status:?}");
    site.run(&["why", "time"]).exits(0).says("stopped");
    site.run(&["health"]).exits(4);
    site.run(&["tasks", "999"]).exits(1);
    site.run(&["why", "tme"]).exits(1).says("did you mean time?");
}

#[test]
fn watching_shows_each_state_once() {
    let site = site("cli-watch");
    let _daemon = site.daemon();
    site.run(&["sync"]).exits(0);
    let out = site.path("watched");
    let file = std::fs::File::create(&out).expect("a file");
    let mut watching = site.program(&["list-servers", "--watch"]).stdout(file).spawn().expect("the program");
    let seen = || std::fs::read_to_string(&out).unwrap_or_default();
    let tables = || seen().matches("SERVER").count();
    eventually("the first look", 20, || (tables() == 1).then_some(()));
    std::thread::sleep(std::time::Duration::from_millis(2500));
    assert_eq!(tables(), 1, "what is the same is not shown again");
    site.run(&["stop-server", "time"]).exits(0);
    eventually("the change", 20, || seen().contains("stopped").then_some(()));
    assert!(!seen().contains('\u{1b}'), "no sequences where nobody sees them");
    watching.kill().expect("a signal");
    watching.wait().expect("an end");
}
