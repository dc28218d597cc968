//! Faults of a local process in the middle of a call, by every door: the documented answer, and nothing left.

use crate::gateway::client::{At, fixture_path};
use crate::gateway::wire::Ask;
use crate::support::{Site, eventually};
use serde_json::{Value, json};
use std::path::Path;

/// Descriptors that may be more after all faults than before.
const FDS_MORE: usize = 8;

fn main_listener(site: &Site, path: &str) -> At {
    At { port: site.main_port(), path: path.to_owned(), auth: None }
}

/// Processes whose environment has this run in it.
fn processes(run: &str) -> usize {
    let mark = format!("FAULTS_RUN={run}");
    let has = |pid: &Path| {
        let environ = std::fs::read(pid.join("environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|one| one == mark.as_bytes())
    };
    let all = std::fs::read_dir("/proc").expect("processes").flatten();
    all.filter(|entry| entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()))
        .filter(|entry| has(&entry.path()))
        .count()
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors").count()
}

#[test]
fn faults_of_a_process_have_their_answers_at_every_door_and_leave_nothing() {
    let site = Site::new("gw-faults");
    let run = format!("{}", std::process::id());
    let restart = json!({"delay": "100ms", "maxDelay": "500ms"});
    let entry = json!({"command": fixture_path(), "args": ["--era", "legacy"], "timeout": 2,
                       "env": {"FAULTS_RUN": run}, "orchestrator": {"restart": restart}});
    site.write(&json!({"s": entry}));
    let daemon = site.daemon();
    let own = At::of(&site, "s");
    let answers = |at: &At, tool: &str| -> bool {
        let params = json!({"name": tool, "arguments": {"message": "m"}}).to_string();
        let reply = at.modern("1", "tools/call", &params, "{}").try_send(at.port);
        reply.is_ok_and(|reply| reply.body().contains("\"m\""))
    };
    eventually("the server answers", 60, || answers(&own, "echo").then_some(()));
    let doors =
        [(own.clone(), ""), (main_listener(&site, "/mcp/s"), ""), (main_listener(&site, "/mcp"), "s__")];
    let (fds, before) = (descriptors(daemon.pid()), processes(&run));
    let faults = [
        ("nasty_crash", json!({"half": true}), (502, "MCPO-G064")),
        ("nasty_hang", json!({}), (504, "MCPO-G063")),
        ("nasty_big", json!({"bytes": 50 << 20}), (502, "MCPO-G066")),
    ];
    for (tool, arguments, (status, code)) in &faults {
        let back = || eventually("it comes back", 60, || answers(&own, "echo").then_some(()));
        for (at, prefix) in &doors {
            let name = format!("{prefix}{tool}");
            let params = json!({"name": name, "arguments": arguments}).to_string();
            let answer = at.modern("1", "tools/call", &params, "{}").send(at.port).answer();
            assert_eq!(answer["error"]["code"], -32603, "{tool} at {}: {answer}", at.path);
            back();
            let said = at.open().try_call(&name, arguments);
            assert!(
                said.as_ref().is_err_and(|said| said.contains("-32603")),
                "{tool} at {}: {said:?}",
                at.path
            );
            back();
        }
        for accept in ["*/*", "text/event-stream"] {
            let path = format!("/openapi/s/{tool}");
            let reply =
                Ask::post(&path, &arguments.to_string()).with("Accept", accept).send(site.main_port());
            let streamed = accept != "*/*";
            assert_eq!(reply.status, if streamed { 200 } else { *status }, "{tool} {accept}");
            let body = reply.body();
            assert!(body.contains(code), "{tool} {accept}: {body}");
            back();
        }
    }
    eventually("nothing is under way", 20, || {
        let status: Value = site.run(&["status", "--detailed", "--json"]).json();
        status.to_string().contains("\"inFlight\":0").then_some(())
    });
    eventually("no process is left of those that failed", 20, || (processes(&run) <= before).then_some(()));
    eventually("no descriptor is left", 20, || (descriptors(daemon.pid()) <= fds + FDS_MORE).then_some(()));
}
