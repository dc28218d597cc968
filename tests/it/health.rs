//! Health of real processes: one that hangs with its pipe open is told from the others within its
//! thresholds, is taken out of the balancer alone, and comes back, by itself or by a restart.

use crate::editing::site::{Daemon, Site, eventually};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

const BINARY: &str = env!("CARGO_BIN_EXE_mcp-orchestrator");

/// A site with these servers, each with its own health and restart keys; ports are few.
fn started(servers: &[(&str, Value)]) -> (Site, Daemon) {
    let site = Site::new("{}");
    let mark = site.config().display().to_string();
    let entry = |(name, own): &(&str, Value)| {
        let env = json!({ "WHO": format!("{name} of {mark}") });
        let entry = json!({ "command": BINARY, "args": ["demo-server"], "env": env, "orchestrator": own });
        ((*name).to_owned(), entry)
    };
    let servers: serde_json::Map<String, Value> = servers.iter().map(entry).collect();
    site.write(&json!({ "mcpServers": servers }).to_string());
    let daemon = site.start(&[]);
    (site, daemon)
}

fn row(site: &Site, server: &str) -> Value {
    site.get(&format!("/api/v1/health?server={server}")).json()["servers"][0].clone()
}

fn is(site: &Site, server: &str, health: &str) -> bool {
    row(site, server)["health"] == health
}

/// What the path that the balancer asks answers on a server's own port.
fn probe(site: &Site, server: &str) -> u16 {
    let port = site.get(&format!("/api/v1/servers/{server}")).json()["port"].as_u64().expect("a port");
    let mut stream = TcpStream::connect(("127.0.0.1", port as u16)).expect("a connection");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status")
}

#[test]
fn one_that_hangs_is_taken_out_alone_and_comes_back() {
    let health = json!({ "health": { "interval": "1s", "timeout": "1s" } });
    let (site, _daemon) = started(&[("a", health.clone()), ("b", health.clone()), ("c", health)]);
    for server in ["a", "b", "c"] {
        eventually("all are healthy", || is(&site, server, "healthy"));
        assert_eq!(probe(&site, server), 200);
    }
    let hung = site.process("b").expect("a process");
    kill_process(hung, Signal::STOP).expect("a signal");
    eventually("it is unhealthy", || is(&site, "b", "unhealthy"));
    let told = row(&site, "b");
    assert_eq!(told["failures"], 3, "{told}");
    assert!(told["why"].as_str().is_some_and(|why| why.contains("no answer to")), "{told}");
    assert_eq!([probe(&site, "a"), probe(&site, "b"), probe(&site, "c")], [200, 503, 200]);
    eventually("the row says what comes next", || {
        let view = site.get("/api/v1/servers/b").json();
        let reason = &view["reasons"][0];
        view["state"] == "waiting"
            && reason["code"] == "MCPO-P043"
            && reason["text"].as_str().is_some_and(|text| text.contains("a restart, try 1 of 5"))
    });
    let shown = site.command(&["health"]).output().expect("the program");
    assert_eq!(shown.status.code(), Some(1));
    let shown = String::from_utf8(shown.stdout).expect("text");
    assert!(shown.lines().any(|line| line.starts_with("b ") && line.contains("unhealthy")), "{shown}");
    assert!(shown.starts_with("3 servers: 1 unhealthy, 2 healthy\n"), "{shown}");
    let figures = site.get("/metrics");
    assert_eq!(figures.status, 200);
    kill_process(hung, Signal::CONT).expect("a signal");
    eventually("it is healthy again", || is(&site, "b", "healthy"));
    assert_eq!(probe(&site, "b"), 200);
    assert_eq!(site.process("b"), Some(hung), "nobody restarted it");
    assert_eq!(site.command(&["health", "--json"]).output().expect("the program").status.code(), Some(0));
}

#[test]
fn one_that_goes_on_hanging_is_restarted_and_the_others_are_not() {
    let quick = json!({ "health": { "interval": "1s", "timeout": "1s", "startPeriod": "1s" } });
    let (site, _daemon) = started(&[("a", quick.clone()), ("b", quick)]);
    for server in ["a", "b"] {
        eventually("both are healthy", || is(&site, server, "healthy"));
    }
    let (other, hung) = (site.process("a"), site.process("b").expect("a process"));
    kill_process(hung, Signal::STOP).expect("a signal");
    eventually("another process serves", || site.process("b").is_some_and(|new| new != hung));
    eventually("it is healthy again", || is(&site, "b", "healthy"));
    assert_eq!(site.process("a"), other);
    let restart = |line: &Value| {
        line["what"] == "restart b" && line["why"].as_str().is_some_and(|why| why.contains("try 1 of 5"))
    };
    eventually("the audit has it", || {
        site.get("/api/v1/audit?server=b").json().as_array().is_some_and(|lines| lines.iter().any(restart))
    });
    // The pass that finds it well again comes a moment later.
    eventually("the command line says so", || {
        let why = site.command(&["why", "b"]).output().expect("the program");
        String::from_utf8_lossy(&why.stdout).contains("it answers again after 1 try")
    });
}

#[test]
fn one_that_is_slow_for_every_line_is_healthy_and_then_degraded() {
    // Two lines take longer than an answer may, one does not.
    let slowly =
        "while IFS= read -r line; do sleep 1.3; printf '%s\\n' \"$line\"; done | exec \"$0\" demo-server";
    let health = json!({ "interval": "2s", "timeout": "2s" });
    let entry =
        json!({ "command": "sh", "args": ["-c", slowly, BINARY], "orchestrator": { "health": health } });
    let site = Site::new(&json!({ "mcpServers": { "slow": entry } }).to_string());
    let _daemon = site.start(&[]);
    eventually("it is degraded", || is(&site, "slow", "degraded"));
    let seen = row(&site, "slow");
    assert!(seen["latencyMillis"].as_u64().is_some_and(|took| took >= 1300), "{seen}");
    assert!(seen["why"].as_str().is_some_and(|why| why.starts_with("it answers after ")), "{seen}");
    assert_eq!(probe(&site, "slow"), 200, "it serves");
}

#[test]
fn how_it_ended_is_told_later_on_and_by_the_next_daemon() {
    let site = Site::new("{}");
    let script = format!("echo 'my token is a-long-secret' >&2; exec {BINARY} demo-server");
    let env = json!({ "WHO": format!("b of {}", site.config().display()), "TOKEN": "a-long-secret" });
    let entry = json!({ "command": "/bin/sh", "args": ["-c", script], "env": env });
    site.write(&json!({ "mcpServers": { "b": entry } }).to_string());
    let daemon = site.start(&[]);
    eventually("it is healthy", || is(&site, "b", "healthy"));
    let told = || site.get("/api/v1/servers/b").json()["ends"].clone();
    assert_eq!(told(), json!([]));
    kill_process(site.process("b").expect("a process"), Signal::KILL).expect("a signal");
    eventually("the end is told", || told()[0].is_object());
    let check = || {
        let all = told();
        assert_eq!(all.as_array().map(Vec::len), Some(1), "{all}");
        let how = all[0]["how"].as_str().expect("words");
        assert!(how.starts_with("it was killed (SIGKILL)"), "{all}");
        assert_eq!(all[0]["lastWords"], json!(["my token is [redacted]"]), "{all}");
        let why = site.command(&["why", "b"]).output().expect("the program");
        let why = String::from_utf8(why.stdout).expect("text");
        assert!(why.contains("  ended lately:\n    "), "{why}");
        assert!(why.contains(" ago: it was killed (SIGKILL)"), "{why}");
        assert!(why.contains("\n      | my token is [redacted]\n"), "{why}");
    };
    eventually("another process serves", || is(&site, "b", "healthy"));
    check();
    eventually("the audit has it", || {
        let lines = site.get("/api/v1/audit?server=b&kind=end").json();
        let line = lines[0].clone();
        assert!(lines.as_array().is_some_and(|lines| lines.len() <= 1), "once: {lines}");
        line["by"] == "the server"
            && line["detail"].as_str().is_some_and(|how| how.starts_with("it was killed (SIGKILL)"))
    });
    drop(daemon);
    let _daemon = site.start(&[]);
    eventually("it is healthy", || is(&site, "b", "healthy"));
    check();
}

/// A program is asked in one era and, when it ends at that, run once more and asked in the other: for
/// whoever looks, that is one start.
#[test]
fn one_that_ends_at_once_has_one_end_with_its_words_said_once() {
    let script = "echo 'no such option: --frobnicate' >&2; exit 3";
    let restart = json!({ "delay": "300ms", "maxDelay": "300ms" });
    let entry =
        json!({ "command": "/bin/sh", "args": ["-c", script], "orchestrator": { "restart": restart } });
    let site = Site::new(&json!({ "mcpServers": { "once": entry } }).to_string());
    let _daemon = site.start(&[]);
    let told = || site.get("/api/v1/servers/once").json()["ends"].clone();
    eventually("it ended thrice", || told().as_array().is_some_and(|ends| ends.len() >= 3));
    for end in told().as_array().expect("ends") {
        assert_eq!(end["how"], "it exited with code 3");
        assert_eq!(end["lastWords"], json!(["no such option: --frobnicate"]), "{end}");
    }
    let lines = site.get("/api/v1/servers/once/logs").json();
    assert!(
        lines["lines"].as_array().is_some_and(|lines| lines.len() >= 3),
        "what ran is in the log: {lines}"
    );
}

#[test]
fn an_instance_is_asked_for_by_its_own_id() {
    let (site, _daemon) = started(&[("time", json!({ "replicas": 2 })), ("one", json!({}))]);
    for server in ["time", "time-R2", "one"] {
        eventually("all are healthy", || is(&site, server, "healthy"));
    }
    let said = |words: &[&str]| {
        let done = site.command(words).output().expect("the program");
        let text = [done.stdout, done.stderr].map(|bytes| String::from_utf8(bytes).expect("text")).concat();
        (text, done.status.code())
    };
    let (text, code) = said(&["health", "--server", "time-R2"]);
    assert!(code == Some(0) && text.contains("\ntime-R2  healthy "), "{text}");
    assert_eq!(text.lines().count(), 2, "{text}");
    let (text, _) = said(&["health", "--server", "time"]);
    assert!(text.contains("\ntime       healthy ") && text.contains("\n  time-R2  healthy "), "{text}");
    let all = site.get("/api/v1/health").json();
    let ids = |row: &Value| {
        let rows = row["instances"].as_array().expect("a list").iter();
        rows.map(|row| row["server"].as_str().expect("an id").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&all["servers"][0]), Vec::<String>::new());
    assert_eq!(ids(&all["servers"][1]), ["time", "time-R2"]);
    for nobody in ["time-R3", "one-R2", "time-R1"] {
        assert_eq!(said(&["health", "--server", nobody]).1, Some(1), "{nobody}");
    }
    // The same with the other commands about a server.
    for words in [&["why", "time-R2"][..], &["logs", "time-R2"], &["capabilities", "--server", "time-R2"]] {
        let (text, code) = said(words);
        assert_eq!(code, Some(0), "{words:?}: {text}");
    }
    let (text, _) = said(&["capabilities", "time-R2", "--json"]);
    let offered: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(offered["server"], "time-R2");
    assert!(offered["tools"].as_array().is_some_and(|tools| !tools.is_empty()), "{offered}");
    let (text, _) = said(&["capabilities"]);
    assert!(!text.contains("time-R2") && !text.contains("MCPO-H002"), "{text}");
    eventually("what they use is told", || {
        let (text, _) = said(&["status", "--detailed"]);
        let uses = |server: &str| text.lines().any(|line| line.starts_with(server) && line.contains(" MiB "));
        text.contains("\nSERVER  CPU ") && uses("one ") && uses("time ")
    });
    let (text, _) = said(&["restart-server", "time-R2"]);
    assert!(text.contains("\ntime-R2  converged "), "{text}");
    let (text, code) = said(&["call", "time-R2", "echo", "{\"text\":\"x\"}"]);
    assert!(code == Some(1) && text.contains("so call time"), "{text}");
}

#[test]
fn one_that_is_to_be_left_is_left() {
    let left = json!({
        "health": { "interval": "1s", "timeout": "1s", "startPeriod": "1s" },
        "restart": { "policy": "never" },
    });
    let (site, _daemon) = started(&[("b", left)]);
    eventually("it is healthy", || is(&site, "b", "healthy"));
    let hung = site.process("b").expect("a process");
    kill_process(hung, Signal::STOP).expect("a signal");
    eventually("it is given up", || {
        let view = site.get("/api/v1/servers/b").json();
        view["state"] == "blocked" && view["reasons"][0]["code"] == "MCPO-P041"
    });
    assert_eq!(site.process("b"), Some(hung));
    let done = site.command(&["restart-server", "b"]).output().expect("the program");
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stdout));
    eventually("it is healthy again", || is(&site, "b", "healthy"));
    assert_ne!(site.process("b"), Some(hung));
}

#[test]
fn what_is_paused_is_left_as_it_is_until_it_is_resumed() {
    let quick = json!({ "health": { "interval": "1s", "timeout": "1s", "startPeriod": "1s" } });
    let (site, _daemon) = started(&[("a", quick.clone()), ("b", quick)]);
    eventually("it is healthy", || is(&site, "b", "healthy"));
    let done = site.command(&["pause", "b", "--for", "1h"]).output().expect("the program");
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let hung = site.process("b").expect("a process");
    kill_process(hung, Signal::STOP).expect("a signal");
    eventually("it is unhealthy", || is(&site, "b", "unhealthy"));
    let why = site.command(&["why", "b"]).output().expect("the program");
    let why = String::from_utf8(why.stdout).expect("text");
    assert!(why.contains("left alone because paused by"), "{why}");
    let view = site.get("/api/v1/servers/b").json();
    assert_eq!((&view["paused"], &view["state"]), (&json!(true), &json!("converged")), "{view}");
    // Long after it would have been restarted.
    std::thread::sleep(std::time::Duration::from_secs(6));
    assert_eq!(site.process("b"), Some(hung));
    assert_eq!(probe(&site, "b"), 503, "the balancer is told all the same");
    let done = site.command(&["resume", "b"]).output().expect("the program");
    assert!(matches!(done.status.code(), Some(0 | 1)), "{done:?}");
    eventually("another process serves", || site.process("b").is_some_and(|new| new != hung));
    eventually("it is healthy again", || is(&site, "b", "healthy"));
    // Nothing is well as a whole here: there is no engine.
    let whole = site.command(&["pause"]).output().expect("the program");
    assert_eq!(whole.status.code(), Some(1), "{whole:?}");
    assert_eq!(site.get("/api/v1/servers/a").json()["paused"], true);
    site.command(&["resume"]).output().expect("the program");
    eventually("nothing is paused", || site.get("/api/v1/servers/a").json()["paused"] == false);
    let none = site.command(&["pause", "nobody"]).output().expect("the program");
    assert_eq!(none.status.code(), Some(1), "{none:?}");
}
