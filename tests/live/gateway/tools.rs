//! Tools over HTTP before real processes: answers, faults, and what a reload changes.

use crate::gateway::client::fixture_path;
use crate::gateway::wire::{Ask, Reply};
use crate::support::{Site, eventually};
use serde_json::{Value, json};
use std::time::Duration;

/// The fixture as a local process.
fn process(args: &[&str], more: &Value) -> Value {
    let mut entry = json!({"command": fixture_path(), "args": args});
    for (key, value) in more.as_object().into_iter().flatten() {
        entry[key] = value.clone();
    }
    entry
}

fn post(port: u16, path: &str, body: &Value) -> Reply {
    Ask::post(path, &body.to_string()).with("Accept", "*/*").send(port)
}

/// Status and answer of a call on the main listener.
fn call(site: &Site, path: &str, body: &Value) -> (u16, Value) {
    let reply = post(site.main_port(), &format!("/openapi/{path}"), body);
    (reply.status, reply.json())
}

fn until_it_answers(site: &Site, path: &str) {
    eventually("the server answers", 40, || {
        let ask = Ask::post(&format!("/openapi/{path}/echo"), r#"{"message":"x"}"#);
        (ask.try_send(site.main_port()).ok()?.status == 200).then_some(())
    });
}

#[test]
fn tools_are_called_on_both_ports_by_id_and_by_name() {
    let mut site = Site::new("gw-tools");
    let own = site.fixed_port();
    site.setting("OPENAPI__PORT", &own.to_string());
    site.write(&json!({
        "Old Clock": process(&["--era", "legacy"], &json!({})),
        "new": process(&["--era", "modern"], &json!({})),
    }));
    let _daemon = site.daemon();
    for server in ["old-clock", "Old%20Clock", "new"] {
        until_it_answers(&site, server);
        assert_eq!(call(&site, &format!("{server}/echo"), &json!({"message": "both"})), (200, json!("both")));
        let reply = post(own, &format!("/{server}/echo"), &json!({"message": "own"}));
        assert_eq!((reply.status, reply.header("x-mcp-spec-hash").len()), (200, 8));
        assert_eq!(reply.json(), json!("own"));
        let (status, body) = call(&site, &format!("{server}/echo"), &json!({"message": 7}));
        assert_eq!((status, &body["detail"][0]["loc"]), (422, &json!(["body", "message"])), "{body}");
        let image = call(&site, &format!("{server}/test_image_content"), &json!({})).1;
        assert!(image.as_str().is_some_and(|url| url.starts_with("data:image/png;base64,")), "{image}");
        let audio = call(&site, &format!("{server}/test_audio_content"), &json!({})).1;
        assert!(audio.as_str().is_some_and(|url| url.starts_with("data:audio/")), "{audio}");
        assert!(call(&site, &format!("{server}/test_multiple_content_types"), &json!({})).1.is_array());
        let (status, body) = call(&site, &format!("{server}/test_error_handling"), &json!({}));
        assert_eq!((status, &body["detail"]["code"]), (500, &json!("MCPO-G060")));
        let document = Ask::new("GET", &format!("/{server}/openapi.json")).send(own).json();
        assert_eq!(document["paths"]["/echo"]["post"]["operationId"], "tool_echo_post");
        let page = Ask::new("GET", &format!("/{server}/docs")).send(own);
        assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
        assert!(page.body().contains("/echo"));
        let ask = Ask::post(&format!("/{server}/test_tool_with_progress"), "{}")
            .with("Accept", "text/event-stream");
        let names: Vec<String> = {
            let events = ask.send(own).stream();
            std::iter::from_fn(|| events.next(Duration::from_secs(5)).ok().map(|event| event.name)).collect()
        };
        assert_eq!(names.last().map(String::as_str), Some("result"), "{names:?}");
        assert!(names.len() > 1 && names.iter().rev().skip(1).all(|name| name == "progress"), "{names:?}");
    }
    let index = Ask::new("GET", "/openapi/openapi.json").send(site.main_port()).json();
    for path in ["/old-clock/echo", "/new/echo"] {
        assert!(index["paths"][path].is_object(), "{path}");
    }
    let far =
        Ask::post("/openapi/new/echo", "{}").with("X-Forwarded-For", "192.0.2.1").send(site.main_port());
    assert_eq!(far.status, 403, "without a key for this host alone");
}

#[test]
fn a_reload_is_proven_over_the_wire_and_what_is_removed_is_gone() {
    let mut site = Site::new("gw-tools-reload");
    site.setting("OPENAPI__API_KEY", "top-secret");
    let entry = |colour: &str| process(&["--era", "legacy"], &json!({"env": {"COLOUR": colour}}));
    site.write(&json!({"clock": entry("red"), "other": process(&[], &json!({}))}));
    let _daemon = site.daemon();
    let ask = |server: &str| {
        let ask = Ask::post(&format!("/openapi/{server}/nasty_env"), r#"{"name": "COLOUR"}"#);
        ask.with("Authorization", "Bearer top-secret").try_send(site.main_port()).ok()
    };
    let answer = |colour: &str| {
        eventually("the process of the file answers", 40, || {
            let reply = ask("clock").filter(|reply| reply.status == 200)?;
            let spec = reply.header("x-mcp-spec-hash").to_owned();
            (reply.json() == json!(colour)).then_some(spec)
        })
    };
    let before = answer("red");
    site.write(&json!({"clock": entry("blue"), "other": process(&[], &json!({}))}));
    let after = answer("blue");
    assert!(before.len() == 8 && after.len() == 8 && before != after, "{before} {after}");
    // Whoever has the new hash has the new process, and the other way round.
    for _again in 0..20 {
        let reply = ask("clock").expect("an answer");
        assert_eq!((reply.header("x-mcp-spec-hash"), reply.status), (after.as_str(), 200));
        assert_eq!(reply.json(), json!("blue"));
    }
    site.write(&json!({"other": process(&[], &json!({}))}));
    eventually("what is removed is gone", 20, || (ask("clock")?.status == 404).then_some(()));
    let refused = Ask::post("/openapi/other/echo", "{}").send(site.main_port());
    assert_eq!((refused.status, refused.header("www-authenticate").is_empty()), (401, false));
}

#[test]
fn every_fault_has_its_documented_answer_and_leaves_nothing() {
    let site = Site::new("gw-tools-faults");
    site.write(&json!({"bad": process(&["--era", "legacy"], &json!({"timeout": 2}))}));
    let _daemon = site.daemon();
    until_it_answers(&site, "bad");
    let fault = |tool: &str, body: Value| {
        let (status, body) = call(&site, &format!("bad/{tool}"), &body);
        (status, body["detail"]["code"].as_str().unwrap_or_default().to_owned())
    };
    let code = |status: u16, code: &str| (status, code.to_owned());
    assert_eq!(fault("nasty_hang", json!({})), code(504, "MCPO-G063"));
    assert_eq!(fault("nasty_big", json!({"bytes": 50 << 20})), code(502, "MCPO-G066"));
    assert_eq!(fault("nasty_crash", json!({})), code(502, "MCPO-G064"));
    until_it_answers(&site, "bad");
    let (status, body) =
        call(&site, "bad/nasty_error", &json!({"code": -32602, "message": "why", "data": 1}));
    assert_eq!((status, body), (422, json!({"detail": {"message": "why", "data": 1}})));
    let (status, _) = call(&site, "bad/nasty_noise", &json!({"lines": 100}));
    assert_eq!(status, 200);
    // A caller that goes away: the server hears of it.
    let cancelled = || {
        let counters = call(&site, "bad/nasty_counters", &json!({})).1;
        let text = counters.to_string();
        let counters: Value =
            counters.as_str().map_or(counters.clone(), |text| serde_json::from_str(text).expect("JSON"));
        counters["cancelled"].as_u64().unwrap_or_else(|| panic!("no count in {text}"))
    };
    let before = cancelled();
    let slow = Ask::post("/openapi/bad/nasty_slow", r#"{"ms": 60000, "obey": true}"#)
        .with("Accept", "text/event-stream");
    drop(slow.send(site.main_port()));
    eventually("the call is cancelled", 10, || (cancelled() > before).then_some(()));
    eventually("nothing is under way", 10, || {
        let status = site.run(&["status", "--detailed", "--json"]).json().to_string();
        (status.contains("\"bad\"") && status.contains("\"inFlight\":0")).then_some(())
    });
}
