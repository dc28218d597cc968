//! Many servers at once, over the API and by the command line; lists in pages; a daemon that is killed
//! while it writes.

use super::site::{BASIC, Site, eventually};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_mcp-orchestrator");
/// How long each of the servers takes to end, whatever it is told.
const ENDS_SECS: u64 = 6;
/// One after another they would take longer than this, together not by far.
const TOGETHER_SECS: u64 = 3 * ENDS_SECS - 4;

/// Three servers that take their time to end, and one that never comes up, all in one section.
fn office() -> Site {
    let slow = format!("trap '' TERM; '{BINARY}' demo-server; sleep {ENDS_SECS}");
    let entry = |script: &str| json!({ "command": "sh", "args": ["-c", script], "orchestrator": { "section": "office" } });
    let servers =
        json!({ "a": entry(&slow), "b": entry(&slow), "c": entry(&slow), "broken": entry("exit 3") });
    let sections = json!({ "sections": { "office": {}, "empty": {} } });
    Site::new(&json!({ "orchestrator": sections, "mcpServers": servers }).to_string())
}

fn state(site: &Site, server: &str) -> String {
    site.get(&format!("/api/v1/servers/{server}")).json()["state"].as_str().unwrap_or_default().to_owned()
}

/// The exit code and what was printed.
fn run(site: &Site, words: &[&str]) -> (i32, String) {
    let done = site.command(words).env("COLUMNS", "80").output().expect("the program");
    let said = [done.stdout, done.stderr].concat();
    (done.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn a_section_is_acted_on_at_once_with_a_report_for_each_server() {
    let site = office();
    let _daemon = site.start(&[("MCP_ORCHESTRATOR__SERVICE__SETTLE_SECONDS", "1")]);
    eventually("they are up", || ["a", "b", "c"].iter().all(|id| state(&site, id) == "converged"));
    let begun = Instant::now();
    let task = site.post("/api/v1/sections/office/restart?wait=80s", &json!({}));
    let took = begun.elapsed();
    assert_eq!(task.status, 200, "{}", task.json());
    let task = task.json();
    let results = task["results"].as_array().expect("results").clone();
    let fine: Vec<&str> =
        results.iter().filter(|one| one["ok"] == true).filter_map(|one| one["server"].as_str()).collect();
    assert_eq!((results.len(), fine), (4, vec!["a", "b", "c"]), "{task}");
    let wrong = results.iter().find(|one| one["ok"] == false).expect("one that failed");
    assert!(wrong["server"] == "broken" && wrong["why"].is_string() && wrong["code"].is_string(), "{wrong}");
    assert_eq!(task["state"], "failed", "one of them is");
    assert!(took < Duration::from_secs(TOGETHER_SECS), "one after another: {took:?}");
    // The same by the command line, with a line for each.
    let (code, said) = run(&site, &["stop-server", "--section", "office"]);
    assert_eq!(code, 0, "{said}");
    for id in ["a", "b", "broken", "c"] {
        assert!(
            said.lines().any(|line| line.starts_with(&format!("{id} ")) && line.contains("stopped")),
            "{said}"
        );
        assert_eq!(state(&site, id), "stopped");
    }
    assert!(said.lines().all(|line| line.chars().count() <= 80), "{said}");
    let (code, said) = run(&site, &["start-server", "--section", "office"]);
    assert_eq!(code, 1, "one of them does not come up: {said}");
    assert!(said.contains("broken") && said.contains("exited"), "{said}");
    // All of them; without an engine the whole is not well, whatever becomes of these.
    let (code, said) = run(&site, &["stop"]);
    assert!(code == 1 && said.contains("Docker not reachable"), "{code} {said}");
    for id in ["a", "b", "broken", "c"] {
        assert_eq!(state(&site, id), "stopped", "{said}");
    }
    for (words, code, why) in [
        (vec!["start-server", "--section", "nowhere"], 1, "MCPO-H002"),
        (vec!["start-server", "--section", "empty"], 1, "MCPO-H003"),
        (vec!["start-server"], 2, "required"),
        (vec!["start-server", "a", "--section", "office"], 2, "cannot be used with"),
        (vec!["audit", "--since", "soon"], 2, "is not a time"),
    ] {
        let (found, said) = run(&site, &words);
        assert!(found == code && said.contains(why), "{words:?}: {found} {said}");
    }
    lists(&site);
    found_by_kind_and_time(&site);
}

/// Ids of a list that is asked for in pages, as the `Link` of each leads on.
fn walked(site: &Site, path: &str, query: &str) -> Vec<Value> {
    let (mut found, mut next) = (Vec::new(), format!("?{query}"));
    for _page in 0..50 {
        let page = site.get(&format!("{path}{next}"));
        assert_eq!(page.status, 200, "{}", page.text());
        found.extend(page.json().as_array().expect("a list").iter().map(|one| one["id"].clone()));
        let link = page.header("link");
        let Some((to, _)) = link.strip_prefix('<').and_then(|rest| rest.split_once(">; rel=\"next\"")) else {
            return found;
        };
        next = to.to_owned();
    }
    panic!("pages without end: {found:?}");
}

/// Every list has the same entries in pages as at once, in the same order, none twice.
fn lists(site: &Site) {
    for (path, query) in [
        ("/api/v1/servers", "limit=2"),
        ("/api/v1/servers", "section=office&limit=3"),
        ("/api/v1/tasks", "limit=1"),
        ("/api/v1/audit", "limit=3"),
    ] {
        let whole = query.replace("limit=1", "").replace("limit=2", "").replace("limit=3", "limit=500");
        // Lines of the audit are written a little later.
        eventually(path, || walked(site, path, query) == walked(site, path, &whole));
        let paged = walked(site, path, query);
        assert!(paged.len() >= 4, "{path}?{query}: {paged:?}");
        let once: BTreeSet<String> = paged.iter().map(ToString::to_string).collect();
        assert_eq!(once.len(), paged.len(), "none twice: {path}?{query}");
    }
}

fn found_by_kind_and_time(site: &Site) {
    let whats = |query: &str| -> Vec<String> {
        let found = site.get(&format!("/api/v1/audit?limit=500&{query}"));
        assert_eq!(found.status, 200, "{}", found.text());
        found
            .json()
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| one["what"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    let stops = whats("kind=stop&by=admin");
    assert!(stops.is_empty(), "the command line did it: {stops:?}");
    let stops = whats("kind=stop&since=1h");
    assert!(stops.len() >= 2 && stops.iter().all(|what| what.split(' ').next() == Some("stop")), "{stops:?}");
    let restarts = whats("kind=restart&since=1h");
    assert!(
        restarts.contains(&"restart".to_owned()) && restarts.iter().all(|what| what.starts_with("restart"))
    );
    assert!(whats("since=99999999999999").is_empty(), "nothing of the future");
    assert_eq!(site.get("/api/v1/audit?since=soon").status, 400);
    let (code, said) = run(site, &["audit", "--kind", "restart", "--since", "1h"]);
    assert!(code == 0 && said.contains("restart") && !said.contains("stop"), "{said}");
    let page = site.get("/monitor/audit?kind=restart&since=1h");
    let page = page.text();
    assert!(page.contains("value=\"restart\"") && page.contains("<option value=\"1h\" selected>"), "{page}");
    assert!(page.contains("task ") && !page.contains(">stop<"), "{page}");
    assert!(site.get("/monitor/audit?kind=nothing").text().contains("Nothing fits."));
}

/// Whether an edit was acknowledged; false also when the daemon went away.
fn acknowledged(site: &Site, name: &str) -> bool {
    let body = json!({ "url": format!("https://{name}.example/mcp"), "disabled": true }).to_string();
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", site.main())) else { return false };
    let head = format!(
        "PUT /api/v1/servers/{name} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: {BASIC}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut answer = String::new();
    stream.write_all(head.as_bytes()).is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.starts_with("HTTP/1.1 202 ")
}

#[test]
fn a_daemon_killed_while_it_writes_leaves_the_old_or_the_new_file() {
    const LINES: usize = 5_000;
    let padding = "  // a line that makes writing the file take longer\n".repeat(LINES);
    let site = Site::new(&format!("{{\n{padding}  \"mcpServers\": {{}}\n}}\n"));
    let mut all = BTreeSet::new();
    for round in 0..6_u64 {
        let daemon = site.start(&[]);
        let done = AtomicUsize::new(0);
        let written = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let names = (0..).map(|n| format!("r{round}n{n}"));
                let counted = |_name: &String| {
                    done.fetch_add(1, Ordering::Relaxed);
                };
                names.take_while(|name| acknowledged(&site, name)).inspect(counted).collect::<Vec<_>>()
            });
            // However slow the machine is, and at another moment of an edit each time.
            eventually("edits are made", || done.load(Ordering::Relaxed) >= 2);
            std::thread::sleep(Duration::from_millis(round * 37));
            drop(daemon);
            writer.join().expect("a writer")
        });
        let text = site.text();
        let (comments, rest): (Vec<&str>, Vec<&str>) =
            text.lines().partition(|line| line.starts_with("  //"));
        assert_eq!(comments.len(), LINES, "round {round}");
        let whole: Value = serde_json::from_str(&rest.join("\n")).expect("the file is whole");
        all.extend(written);
        let held = whole["mcpServers"].as_object().expect("servers");
        let lost: Vec<&String> = all.iter().filter(|name| !held.contains_key(*name)).collect();
        assert!(lost.is_empty(), "acknowledged and lost in round {round}: {lost:?}");
        // What was being written may have come through; nothing else.
        assert!(held.len() <= all.len() + 1 + usize::try_from(round).expect("small"), "round {round}");
    }
    assert!(all.len() > 6, "edits were made: {all:?}");
    let _daemon = site.start(&[]);
    assert_eq!(site.get("/api/v1/panel").json()["problems"].as_array().map_or(0, Vec::len), 0);
}
