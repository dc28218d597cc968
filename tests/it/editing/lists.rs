//! Lists over the API: the same bytes while nothing changes, never less than what was done before the
//! question, whoever else asks meanwhile; and what they count.

use super::site::{Reply, Site, eventually};
use serde_json::{Value, json};
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};

const BINARY: &str = env!("CARGO_BIN_EXE_mcp-orchestrator");
/// Who reads while others act.
const READERS: usize = 8;
/// How often it is stopped and started.
const ROUNDS: usize = 6;

/// Two servers that run, and an entry in a section with a mistake.
fn site() -> Site {
    let runs = json!({ "command": BINARY, "args": ["demo-server"] });
    let broken = json!({ "command": "docker", "args": ["run", "--no-such-flag", "x"],
        "orchestrator": { "section": "office" } });
    let whole =
        json!({ "command": BINARY, "args": ["demo-server"], "orchestrator": { "section": "office" } });
    let servers = json!({ "one": runs, "two": whole, "wrong": broken });
    let sections = json!({ "sections": { "office": {} } });
    Site::new(&json!({ "orchestrator": sections, "mcpServers": servers }).to_string())
}

/// Asks without a password.
fn unnamed(site: &Site, path: &str) -> Reply {
    let mut stream = TcpStream::connect(("127.0.0.1", site.main())).expect("a connection");
    let head =
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nIf-None-Match: *\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("written");
    Reply::read(stream)
}

fn state(site: &Site, server: &str) -> Value {
    let all = site.get("/api/v1/servers").json();
    let all = all.as_array().cloned().unwrap_or_default();
    all.into_iter().find(|one| one["id"] == server).map_or(Value::Null, |one| one["state"].clone())
}

#[test]
fn lists_are_sent_once_and_never_say_less_than_what_was_done_before() {
    let site = site();
    let _daemon = site.start(&[("MCP_ORCHESTRATOR__SERVICE__SETTLE_SECONDS", "1")]);
    eventually("they are up", || ["one", "two"].iter().all(|id| state(&site, id) == "converged"));
    for path in ["/api/v1/servers", "/api/v1/sections", "/api/v1/tasks", "/api/v1/audit", "/servers"] {
        // Something of the start may still be written while this looks.
        eventually(path, || {
            let first = site.get(path);
            let (etag, body) = (first.header("etag").to_owned(), first.text().to_owned());
            assert!(etag.starts_with('"') && !body.is_empty(), "{path}: {etag} {body}");
            assert_eq!(first.header("cache-control"), "private, no-cache", "{path}");
            let again = site.send("GET", path, "", &[("If-None-Match", etag.as_str())]);
            again.status == 304 && again.text().is_empty() && again.header("etag") == etag
        });
        // A version that nobody gave; and nobody gets anything, not even that it is the same, without a
        // password.
        assert_eq!(site.send("GET", path, "", &[("If-None-Match", "\"0\"")]).status, 200, "{path}");
        let stranger = unnamed(&site, path);
        assert_eq!(stranger.status, 401, "{path}: {}", stranger.text());
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for n in 0..READERS {
            let (site, over) = (&site, &over);
            let path = ["/api/v1/servers", "/api/v1/tasks", "/api/v1/audit", "/api/v1/sections"][n % 4];
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    assert_eq!(site.get(path).status, 200, "{path}");
                }
            });
        }
        for _ in 0..ROUNDS {
            for (act, wanted) in [("stop", "stopped"), ("start", "converged")] {
                let task = site.post(&format!("/api/v1/servers/one/{act}?wait=30s"), &json!({})).json();
                assert_eq!(task["state"], "done", "{task}");
                assert_eq!(state(&site, "one"), wanted, "what is done is in the list");
                let tasks = site.get("/api/v1/tasks").json();
                assert_eq!((&tasks[0]["id"], &tasks[0]["state"]), (&task["id"], &json!("done")), "{tasks}");
                assert_eq!(tasks[0]["results"], json!([]), "lists do without");
                let short = site.get("/servers").json();
                assert_eq!(short[0]["name"], "one", "{short}");
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    done_for_a_task(&site);
    let pages = site.get("/api/v1/tasks?limit=2");
    assert_eq!(pages.json().as_array().map(Vec::len), Some(2));
    assert!(pages.header("link").contains("rel=\"next\""), "{}", pages.header("link"));
    assert_eq!(site.get("/api/v1/tasks?limit=2").header("link"), pages.header("link"), "kept with it");
}

/// A task says what was done for it: for its servers alone, from when it was asked for.
fn done_for_a_task(site: &Site) {
    let task = site.post("/api/v1/servers/two/stop?wait=30s", &json!({})).json();
    site.post("/api/v1/servers/one/stop?wait=30s", &json!({}));
    let path = format!("/api/v1/tasks/{}", task["id"]);
    let actions = || site.get(&path).json()["actions"].as_array().cloned().unwrap_or_default();
    // The audit is written behind the back of who adds to it.
    eventually("what was done is there", || !actions().is_empty());
    for action in actions() {
        let of = (&action["by"], &action["server"], &action["result"]);
        assert_eq!(of, (&json!("the loop"), &json!("two"), &json!("ok")), "{action}");
        let when = (action["at"].as_i64(), task["asked"].as_i64(), task["ended"].as_i64());
        assert!(when.1 <= when.0 && when.0 <= when.2, "{action} of {task}");
    }
    let page = site.get(&format!("/monitor/tasks/{}", task["id"]));
    let done = actions()[0]["what"].as_str().unwrap_or_default().to_owned();
    assert!(
        page.status == 200 && page.text().contains(&done) && page.text().contains(">two<"),
        "{}",
        page.text()
    );
    assert_eq!(site.get("/monitor/tasks/999999").status, 404);
    assert_eq!(site.get("/monitor/tasks/x").status, 404);
}

#[test]
fn an_entry_with_a_mistake_counts_as_broken_in_its_section() {
    let site = site();
    let _daemon = site.start(&[("MCP_ORCHESTRATOR__SERVICE__SETTLE_SECONDS", "1")]);
    eventually("the others are up", || ["one", "two"].iter().all(|id| state(&site, id) == "converged"));
    let section = site.get("/api/v1/sections/office").json();
    assert_eq!(section["servers"], json!(["two", "wrong"]), "{section}");
    assert_eq!(section["states"], json!({ "broken": 1, "converged": 1 }), "{section}");
    let within = site.get("/api/v1/servers?section=office").json();
    assert_eq!(within.as_array().map(Vec::len), Some(2), "{within}");
    let page = site.get("/monitor/sections/office");
    assert!(page.text().contains("1 broken") && page.text().contains("--no-such-flag"), "{}", page.text());
    // What the list has can be asked for by itself, and breaks no other's settings.
    let wrong = site.get("/api/v1/servers/wrong");
    assert_eq!(wrong.status, 200, "{}", wrong.text());
    let wrong = wrong.json();
    assert_eq!((&wrong["kind"], &wrong["settings"]), (&json!("container"), &json!([])), "{wrong}");
    assert_eq!(site.get("/api/v1/health?server=wrong").json()["servers"][0]["server"], "wrong");
    assert_eq!(site.get("/api/v1/servers/nobody").status, 404);
    let printed = site.command(&["list-servers", "--config"]).output().expect("the program");
    let text = String::from_utf8_lossy(&printed.stdout).into_owned();
    assert!(printed.status.success() && text.contains("restart.policy"), "{printed:?}");
    assert!(text.contains("wrong\n  its entry cannot be used"), "{text}");
    // Left alone as a whole, and said so.
    let paused = site.post("/api/v1/sections/office/pause?wait=30s", &json!({}));
    assert_eq!(paused.status, 200, "{}", paused.text());
    let section = site.get("/api/v1/sections/office").json();
    assert_eq!(section["paused"]["by"], "admin", "{section}");
    let drained = site.post("/api/v1/drain?wait=30s", &json!({}));
    assert!([200, 202].contains(&drained.status), "{}", drained.text());
    eventually("it is drained", || site.get("/api/v1/panel/health").json()["drained"]["by"] == "admin");
    let health = site.get("/api/v1/panel/health").json();
    assert_eq!(health["drained"]["waits"], 0, "{health}");
    assert_eq!(health["pauses"][0]["scope"], "section:office", "{health}");
    assert!(site.get("/monitor").text().contains("id=\"drained\""));
}
