//! Limits of entries over real HTTP, before real processes, by more than one door.

use crate::gateway::client::{At, fixture_path};
use crate::gateway::wire::{Ask, Reply};
use crate::support::{Site, eventually};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The fixture as a local process, held to this.
fn held_to(limits: &Value) -> Value {
    json!({"command": fixture_path(), "args": ["--era", "legacy"], "timeout": 20, "orchestrator": limits})
}

fn openapi(site: &Site, tool: &str, body: &Value) -> Reply {
    let ask = Ask::post(&format!("/openapi/s/{tool}"), &body.to_string()).with("Accept", "*/*");
    ask.send(site.main_port())
}

/// A site whose server `s` answers under these limits.
fn site(name: &str, limits: &Value) -> (Site, crate::support::Daemon) {
    let mut site = Site::new(name);
    let figures = site.fixed_port();
    site.setting("METRICS__PORT", &figures.to_string());
    site.write(&json!({"s": held_to(limits)}));
    let daemon = site.daemon();
    eventually("the server answers", 60, || {
        let list = Ask::new("GET", "/openapi/s/tools").try_send(site.main_port()).ok()?;
        (list.status == 200).then_some(())
    });
    (site, daemon)
}

fn main_listener(site: &Site, path: &str) -> At {
    At { port: site.main_port(), path: path.to_owned(), auth: None }
}

/// A call as a modern client sends it.
fn modern(at: &At, tool: &str, arguments: &Value) -> Reply {
    let params = json!({"name": tool, "arguments": arguments}).to_string();
    at.modern("1", "tools/call", &params, "{}").send(at.port)
}

fn views(site: &Site) -> Value {
    let status = site.run(&["status", "--detailed", "--json"]).json();
    status["gateway"][0]["traffic"].clone()
}

fn metric(port: u16, name: &str) -> String {
    let page = Ask::new("GET", "/metrics").send(port).body();
    let wanted = format!("mcp_orchestrator_{name} ");
    let found = page.lines().find_map(|line| line.strip_prefix(&wanted));
    found.unwrap_or_else(|| panic!("{name} is not among the figures")).to_owned()
}

#[test]
fn limits_hold_at_every_door() {
    let limits = json!({"rateLimit": {"requests": 3, "per": "1h"}, "maxRequestBytes": 2000});
    let (site, _daemon) = site("gw-limits", &limits);
    let own = At::of(&site, "s");
    let echo = json!({"message": "m"});
    // Too long a call costs nothing of the rate.
    let long = json!({"message": "m".repeat(3000)});
    assert_eq!(openapi(&site, "echo", &long).status, 413);
    let (status, code) = modern(&own, "echo", &long).refusal();
    assert_eq!((status, code), (413, -32600));
    assert_eq!(openapi(&site, "echo", &echo).status, 200);
    assert_eq!(own.modern_call("echo", &echo), "m");
    assert_eq!(main_listener(&site, "/mcp").modern_call("s__echo", &echo), "m");
    // All three are spent, by whatever door.
    let all = main_listener(&site, "/mcp");
    for (door, at, tool) in [
        ("own port", &own, "echo"),
        ("main listener", &main_listener(&site, "/mcp/s"), "echo"),
        ("all servers", &all, "s__echo"),
    ] {
        let reply = modern(at, tool, &echo);
        let after: u64 = reply.header("retry-after").parse().expect("Retry-After");
        assert!(reply.status == 429 && (1..=3600).contains(&after), "{door}: {} {after}", reply.status);
        let body = reply.json();
        assert_eq!(body["error"]["data"]["code"], "MCPO-G070", "{door}: {body}");
    }
    let session = own.open();
    let (status, code) = session
        .post(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{}}}"#)
        .refusal();
    assert_eq!((status, code), (429, -32603), "in a session");
    assert_eq!(
        session.post(r#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#).status,
        200,
        "lists are free"
    );
    let reply = openapi(&site, "echo", &echo);
    assert!(reply.status == 429 && !reply.header("retry-after").is_empty());
    assert_eq!(reply.json()["detail"]["code"], "MCPO-G070");
    let called = site.run(&["call", "s", "echo", r#"{"message":"m"}"#]);
    assert!(called.code != 0 && called.all().contains("MCPO-G070"), "{}", called.all());
    // What there is to see of it.
    let view = views(&site);
    assert_eq!((&view["denied"]["rate"], &view["denied"]["request-size"]), (&json!(6), &json!(2)), "{view}");
    let shown = site.run(&["status", "--detailed"]).all();
    assert!(shown.contains("turned away: rate 6, request-size 2"), "{shown}");
    let why = site.run(&["why", "s"]).all();
    assert!(why.contains("rateLimit"), "{why}");
    let name = r#"gateway_denied_calls_total{server="s",reason="rate"}"#;
    assert_eq!(metric(site.fixed_port(), name), "6");
}

#[test]
fn limits_change_without_a_restart() {
    let (site, _daemon) = site("gw-limits-change", &json!({"rateLimit": {"requests": 1, "per": "1h"}}));
    let who = || openapi(&site, "nasty_who", &json!({}));
    let before = who().json();
    assert_eq!(who().status, 429);
    site.write(&json!({"s": held_to(&json!({"rateLimit": 1000}))}));
    let after =
        eventually("the new rate is in force", 30, || Some(who()).filter(|reply| reply.status == 200));
    assert_eq!(before["pid"], after.json()["pid"], "the process is the same");
    // What cannot be meant is refused with its place, and what was in force stays.
    site.write(&json!({"s": held_to(&json!({"rateLimit": -1, "circuitBreaker": {"window": 0}}))}));
    let said = site.run(&["validate"]).all();
    for part in ["rateLimit", "mcp.config.json:", "MCPO-C027"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert_eq!(who().status, 200);
}

#[test]
fn calls_at_once_wait_in_their_queue_and_tools_have_times_of_their_own() {
    let limits = |wait: &str| {
        json!({
            "maxConcurrentRequests": 1, "queue": {"length": 1, "timeout": wait},
            "tools": {"timeouts": {"nasty_hang": "1s"}}, "maxResponseBytes": "64k",
        })
    };
    let (site, _daemon) = site("gw-limits-once", &limits("50s"));
    let at = main_listener(&site, "/mcp/s");
    let port = site.main_port();
    let busy = |running: u64, waiting: u64| {
        eventually("so many run and wait", 20, || {
            let is = |name: &str, count: u64| {
                metric(site.fixed_port(), &format!("gateway_{name}_calls{{server=\"s\"}}"))
                    == count.to_string()
            };
            (is("admitted", running) && is("queued", waiting)).then_some(())
        });
    };
    // A client that goes away leaves its place.
    let hold = || {
        let slow = json!({"ms": 60_000, "obey": true}).to_string();
        Ask::post("/openapi/s/nasty_slow", &slow).with("Accept", "text/event-stream").send(port)
    };
    let echo = json!({"message": "m"});
    let first = hold();
    busy(1, 0);
    let second = {
        let at = at.clone();
        let echo = echo.clone();
        std::thread::spawn(move || modern(&at, "echo", &echo).status)
    };
    busy(1, 1);
    let full = modern(&at, "echo", &echo);
    assert_eq!((full.status, full.header("retry-after")), (503, "1"));
    assert_eq!(full.json()["error"]["data"]["code"], "MCPO-G071");
    assert_eq!(openapi(&site, "echo", &echo).json()["detail"]["code"], "MCPO-G071");
    drop(first);
    assert_eq!(second.join().expect("the second"), 200, "it comes when its turn does");
    busy(0, 0);
    site.write(&json!({"s": held_to(&limits("1s"))}));
    eventually("the new limits are in force", 30, || {
        let ready = Ask::new("GET", "/readyz").send(port).json();
        (ready["generation"] == 2).then_some(())
    });
    let first = hold();
    busy(1, 0);
    let began = Instant::now();
    let late = openapi(&site, "echo", &echo);
    assert_eq!((late.status, late.json()["detail"]["code"].clone()), (503, json!("MCPO-G071")));
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    drop(first);
    busy(0, 0);
    let began = Instant::now();
    let hung = openapi(&site, "nasty_hang", &json!({}));
    assert_eq!((hung.status, hung.json()["detail"]["code"].clone()), (504, json!("MCPO-G063")));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(openapi(&site, "nasty_big", &json!({"bytes": 1000})).status, 200);
    let big = openapi(&site, "nasty_big", &json!({"bytes": 100_000}));
    assert_eq!((big.status, big.json()["detail"]["code"].clone()), (502, json!("MCPO-G066")));
    let answer = modern(&at, "nasty_big", &json!({"bytes": 100_000})).json();
    assert_eq!(answer["error"]["code"], -32603, "{answer}");
}

#[test]
fn a_server_that_hangs_is_left_alone_and_comes_back() {
    let limits = json!({
        "circuitBreaker": {"failureThreshold": 2, "window": "1m", "openFor": "10s"},
        "tools": {"timeouts": {"nasty_hang": "500ms"}},
    });
    let (site, _daemon) = site("gw-limits-circuit", &limits);
    let at = main_listener(&site, "/mcp/s");
    for _ in 0..4 {
        assert_eq!(openapi(&site, "test_error_handling", &json!({})).status, 500, "a tool's own error");
    }
    assert_eq!(at.modern_call("echo", &json!({"message": "m"})), "m");
    for _ in 0..2 {
        assert_eq!(openapi(&site, "nasty_hang", &json!({})).status, 504);
    }
    let refused = modern(&at, "echo", &json!({"message": "m"}));
    let after: u64 = refused.header("retry-after").parse().expect("Retry-After");
    assert!(refused.status == 503 && after <= 10, "{after}");
    assert_eq!(refused.json()["error"]["data"]["code"], "MCPO-G072");
    assert_eq!(openapi(&site, "echo", &json!({"message": "m"})).status, 503);
    assert_eq!(views(&site)["circuitOpened"], 1);
    eventually("it is tried again", 40, || {
        (openapi(&site, "echo", &json!({"message": "m"})).status == 200).then_some(())
    });
    assert_eq!(views(&site)["circuit"], "closed");
}

#[test]
fn answers_are_kept_at_every_door_until_the_server_is_another() {
    let (site, daemon) = site("gw-limits-cache", &json!({"cache": {"ttl": "10m"}}));
    let at = main_listener(&site, "/mcp/s");
    let first = at.modern_call("nasty_counters", &json!({}));
    assert_eq!(at.modern_call("echo", &json!({"message": "m"})), "m");
    assert_eq!(at.modern_call("nasty_counters", &json!({})), first, "kept");
    let session = At::of(&site, "s").open();
    assert_eq!(session.call("nasty_counters", &json!({})), first, "in a session on its own port");
    let body = openapi(&site, "nasty_counters", &json!({})).json();
    let same: Value = serde_json::from_str(&first).expect("JSON");
    assert!(body == same || body == json!(first), "by HTTP: {body} {first}");
    let hits = views(&site)["cacheHits"].clone();
    assert_eq!(hits, 3);
    assert_eq!(at.modern_call("test_trigger_tool_change", &json!({})), "tools changed");
    eventually("another list, another answer", 20, || {
        (at.modern_call("nasty_counters", &json!({})) != first).then_some(())
    });
    let before = at.modern_call("nasty_counters", &json!({}));
    assert_eq!(site.run(&["restart-server", "s"]).code, 0);
    eventually("another process, another answer", 30, || {
        let reply = openapi(&site, "nasty_counters", &json!({}));
        (reply.status == 200 && views(&site)["cached"] == 1).then_some(())
    });
    assert_ne!(at.modern_call("nasty_counters", &json!({})), before);
    drop(daemon);
}

#[test]
fn a_call_that_may_be_repeated_outlives_its_server() {
    let (site, _daemon) = site("gw-limits-retry", &json!({"retry": {"maxRetries": 5, "delay": "200ms"}}));
    let at = main_listener(&site, "/mcp/s");
    let pid = || {
        let who = at.modern_call("nasty_who", &json!({}));
        serde_json::from_str::<Value>(&who).expect("JSON")["pid"].as_u64().expect("a pid")
    };
    for door in ["mcp", "openapi"] {
        let before = pid();
        let (at, port) = (at.clone(), site.main_port());
        let call = std::thread::spawn(move || {
            let slow = json!({"ms": 4000});
            if door == "mcp" {
                return modern(&at, "nasty_slow", &slow).status;
            }
            Ask::post("/openapi/s/nasty_slow", &slow.to_string()).with("Accept", "*/*").send(port).status
        });
        eventually("the call is under way", 10, || {
            let count = metric(site.fixed_port(), "gateway_in_flight_requests{server=\"s\"}");
            (count != "0").then_some(())
        });
        let killed =
            std::process::Command::new("kill").args(["-9", &before.to_string()]).status().expect("kill");
        assert!(killed.success());
        assert_eq!(call.join().expect("an answer"), 200, "{door}");
        assert_ne!(pid(), before);
    }
    assert!(views(&site)["retries"].as_u64().expect("a number") >= 2);
}
