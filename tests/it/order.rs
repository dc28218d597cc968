//! A host that is drained, servers that wait for their sections, wishes that outlive the state file and a
//! host that restarts enough: with a daemon and real processes.

use crate::editing::site::{Site, eventually};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Output;

const BINARY: &str = env!("CARGO_BIN_EXE_mcp-orchestrator");

/// A server that answers, and can be told from others.
fn good(site: &Site, name: &str, own: &Value) -> Value {
    let env = json!({ "WHO": format!("{name} of {}", site.config().display()) });
    json!({ "command": BINARY, "args": ["demo-server"], "env": env, "orchestrator": own })
}

fn run(site: &Site, args: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = site.command(args).output().expect("the program");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (status.code(), text(stdout), text(stderr))
}

fn server(site: &Site, name: &str) -> Value {
    site.get(&format!("/api/v1/servers/{name}")).json()
}

fn is_up(site: &Site, name: &str) -> bool {
    server(site, name)["connection"]["up"] == true
}

/// Whether a reason of a server has this code, and these words.
fn says(site: &Site, name: &str, code: &str, words: &str) -> bool {
    let view = server(site, name);
    let reasons = view["reasons"].as_array().cloned().unwrap_or_default();
    let fits =
        |one: &Value| one["code"] == code && one["text"].as_str().is_some_and(|text| text.contains(words));
    reasons.iter().any(fits)
}

/// What a server's own port answers at /readyz.
fn ready(site: &Site, name: &str) -> u16 {
    let port = server(site, name)["port"].as_u64().expect("a port");
    let mut stream = TcpStream::connect(("127.0.0.1", port as u16)).expect("a connection");
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status")
}

/// The state file, wherever it lies below here.
fn state_file(dir: &Path) -> Option<PathBuf> {
    std::fs::read_dir(dir).ok()?.flatten().find_map(|entry| {
        let path = entry.path();
        if path.is_dir() { state_file(&path) } else { (entry.file_name() == "state.db").then_some(path) }
    })
}

#[test]
fn a_host_is_drained_and_brought_back_and_that_outlives_the_state_file() {
    let site = Site::new("{}");
    site.write(&json!({ "mcpServers": { "a": good(&site, "a", &json!({})) } }).to_string());
    let (code, _, said) = run(&site, &["drain"]);
    assert_eq!(code, Some(4), "no daemon runs: {said}");
    for wrong in [&["drain", "--undo", "--for", "1h"][..], &["drain", "--for", "soon"], &["drain", "a"]] {
        assert_eq!(run(&site, wrong).0, Some(2), "{wrong:?}");
    }
    let daemon = site.start(&[]);
    eventually("it answers", || is_up(&site, "a"));
    assert_eq!(ready(&site, "a"), 200);
    // Nothing is well as a whole here, without an engine; this host is drained all the same.
    let (code, said, _) = run(&site, &["drain"]);
    assert_eq!(code, Some(0), "{said}");
    let plain = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(plain.contains("this host is drained by "), "{said}");
    assert!(plain.contains("no load balancer is configured, so nothing is taken out"), "{said}");
    assert!(said.ends_with("no call is under way\n"), "{said}");
    // The first line is the sentence of `systemctl status`.
    assert!(said.lines().skip(1).all(|line| line.chars().count() <= 80), "{said}");
    assert_eq!(ready(&site, "a"), 503);
    assert!(is_up(&site, "a"), "everything runs on");
    assert_eq!(site.status()["snapshot"]["report"]["drained"]["waits"], 0);
    assert!(site.get("/metrics").body.lines().any(|line| line == "mcp_orchestrator_drained 1"));
    assert!(site.get("/monitor").body.contains("this host is drained"));
    run(&site, &["pause", "a", "--for", "2h"]);
    drop(daemon);
    std::fs::write(state_file(&site.path("state")).expect("a state file"), b"garbage").expect("written");
    let _daemon = site.start(&[]);
    let status = site.status();
    assert_eq!(status["snapshot"]["report"]["drained"]["waits"], 0, "{status}");
    assert!(status["snapshot"]["pauses"]["server:a"]["until"].is_i64(), "{status}");
    assert_eq!(server(&site, "a")["paused"], true);
    run(&site, &["resume", "a"]);
    let (code, said, _) = run(&site, &["drain", "--undo"]);
    assert!(code == Some(0) && !said.contains("drained"), "{said}");
    eventually("it is ready again", || ready(&site, "a") == 200);
    // Over the network, and a start of everything ends it.
    assert_eq!(site.post("/api/v1/drain?for=3600", &json!({})).status, 202);
    eventually("it is drained", || ready(&site, "a") == 503);
    assert_eq!(site.post("/api/v1/drain?undo=maybe", &json!({})).status, 400);
    assert_eq!(site.get("/api/v1/drain").status, 405);
    run(&site, &["start"]);
    eventually("it is ready again", || ready(&site, "a") == 200);
    let audit = site.get("/api/v1/audit").json();
    let has = |what: &str| audit.as_array().is_some_and(|all| all.iter().any(|line| line["what"] == what));
    assert!(has("drain") && has("undrain"), "{audit}");
}

#[test]
fn a_process_is_started_once_its_section_is_up_and_waits_where_it_ends() {
    let site = Site::new("{}");
    let write = |db: Value| {
        let api = good(&site, "api", &json!({ "section": "app" }));
        let text = json!({
            "orchestrator": { "sections": { "base": {}, "app": { "dependsOn": ["base"] } } },
            "mcpServers": { "db": db, "api": api },
        });
        site.write(&text.to_string());
    };
    write(json!({ "command": "/nowhere/db", "orchestrator": { "section": "base" } }));
    let _daemon = site.start(&[]);
    eventually("it waits", || {
        says(&site, "api", "MCPO-P046", "section base, which it depends on, to be up: db")
    });
    eventually("its row says so", || server(&site, "api")["state"] == "waiting");
    assert_eq!(site.process("api"), None);
    write(good(&site, "db", &json!({ "section": "base" })));
    eventually("both answer", || is_up(&site, "db") && is_up(&site, "api"));
    let first = site.process("api").expect("a process");
    // It runs on while its section is down, and waits where it ends.
    run(&site, &["stop-server", "db"]);
    eventually("it is stopped", || site.process("db").is_none());
    eventually("a pass has seen it", || server(&site, "db")["state"] == "stopped");
    assert_eq!(site.process("api"), Some(first));
    kill_process(first, Signal::KILL).expect("a signal");
    eventually("it waits", || says(&site, "api", "MCPO-P046", "db is stopped by "));
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(site.process("api"), None, "it is not started meanwhile");
    run(&site, &["start-server", "db"]);
    eventually("both answer", || is_up(&site, "db") && is_up(&site, "api"));
}

#[test]
fn processes_that_end_again_and_again_are_held_back_together() {
    let site = Site::new("{}");
    std::fs::write(site.settings(), "[recovery]\nrestarts_per_minute_max = 2\n").expect("written");
    let restart = json!({ "restart": { "delay": "100ms", "maxDelay": "100ms" } });
    let ends = json!({ "command": "sh", "args": ["-c", "exit 3"], "orchestrator": restart });
    site.write(&json!({ "mcpServers": { "a": ends, "b": ends } }).to_string());
    let _daemon = site.start(&[]);
    for name in ["a", "b"] {
        let words = "once this host has had fewer restarts within a minute";
        eventually("it is held back", || says(&site, name, "MCPO-P044", words));
    }
    let (_, why, _) = run(&site, &["why", "a"]);
    assert!(why.contains("[MCPO-P044]"), "{why}");
    assert!(site.get("/metrics").body.lines().any(|line| line == "mcp_orchestrator_restarts_last_minute 2"));
}
