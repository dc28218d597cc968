//! What passes through must not change, and what belongs to one must not reach another.

use crate::gateway::client::{At, Client, LEGACY, QUIET, fixture};
use crate::support::Site;
use serde_json::{Value, json};
use std::sync::Barrier;

/// What typed models and JSON trees lose: exact and big numbers, `1.0`, order, escapes, members
/// nobody knows, a repeated key. One line: new lines between tokens cannot pass over stdio.
const ARGUMENTS: &str = concat!(
    r#"{"zz":1.0,"a":18446744073709551616,"exp":1E+2,"small":1e-400,"neg":-0,"negf":-0.0,"exact":9007199254740993,"#,
    r#""long":0.10000000000000000555,"text":"a\/b \u0041 \u2028 \ud83d\ude00 "#,
    "\u{200d}\u{2028}\u{fffd}\u{ad}\u{1f600}",
    r#"","dup":1,"dup":2,"":null,"deep":[[[{}]]],"b":{"y":1,"x":2}}"#
);
/// The same list as the fixture's `nasty_values`.
const VALUES: &str = concat!(
    r#""zz-first":1,"content":[{"type":"text","text":"a\/b \u0041 \u2028 \ud83d\ude00 "#,
    "\u{200d}\u{2029}\u{fffd}\u{ad}",
    r#"","x-vendor":{"b":1,"a":2}}],"x-big":18446744073709551616,"x-exact":9007199254740993,"#,
    r#""x-float":1.0,"x-exp":1E+2,"x-small":1e-400,"x-neg":-0,"x-negf":-0.0,"x-long":0.10000000000000000555,"#,
    r#""x-null":null,"x-empty":{},"x-dup":1,"x-dup":2,"structuredContent":{"n":1.50,"deep":[[[[]]]]}"#
);
/// Sessions at once.
const SESSIONS: usize = 32;

fn call_body(id: &str, tool: &str, arguments: &str, more: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments}{more}}}}}"#
    )
}

fn one(client: &Client, body: &str) -> String {
    client.post(body).messages().pop().expect("an answer")
}

#[test]
fn r04_bytes_pass_both_ways_as_they_are() {
    let site = Site::new("gw-bytes");
    site.write(&json!({ "old": fixture(&["--era", "legacy"]), "new": fixture(&["--era", "modern"]) }));
    let _daemon = site.daemon();
    let more = r#","x-vendor":{"b":1.0,"a":[1e0]},"_meta":{"zz/own":1.0,"aa/own":"\u0041"}"#;
    let old = At::of(&site, "old");
    for capabilities in [json!({}), json!({"sampling": {}})] {
        let client = old.open_as(LEGACY, &capabilities);
        let shown = one(&client, &call_body("1", "nasty_echo_params", ARGUMENTS, more));
        let params = format!(r#""x-params":{{"name":"nasty_echo_params","arguments":{ARGUMENTS}{more}}}"#);
        assert!(shown.contains(&params), "wanted {params}\nin {shown}");
        let shown = one(&client, &call_body("\"v\"", "nasty_values", "{}", ""));
        assert_eq!(shown, format!(r#"{{"jsonrpc":"2.0","id":"v","result":{{{VALUES}}}}}"#));
        assert_eq!(client.call("nasty_odd_ids", &json!({})), "every id came back as it was sent");
        client.delete();
    }
    // To a modern client the era adds members; those of the server stay as they are.
    for server in ["old", "new"] {
        let at = At::of(&site, server);
        let params =
            format!(r#"{{"name":"nasty_echo_params","arguments":{ARGUMENTS},"x-vendor":{{"b":1.0}}}}"#);
        let shown =
            at.modern("1", "tools/call", &params, "{}").send(at.port).messages().pop().expect("an answer");
        let inner = params.trim_start_matches('{').strip_suffix('}').expect("an object");
        assert!(shown.contains(inner), "{server}: wanted {inner}\nin {shown}");
        let shown = at.modern("1", "tools/call", r#"{"name":"nasty_values"}"#, "{}").send(at.port);
        let shown = shown.messages().pop().expect("an answer");
        assert!(shown.contains(VALUES), "{server}: {shown}");
    }
}

#[test]
fn r04_ids_and_tokens_come_back_as_they_were_sent() {
    let site = Site::new("gw-ids");
    site.write(&json!({ "old": fixture(&["--era", "legacy"]), "new": fixture(&["--era", "modern"]) }));
    let _daemon = site.daemon();
    for server in ["old", "new"] {
        let client = At::of(&site, server).open();
        for id in [
            r#""plain""#,
            r#""""#,
            r#""quote\"and\\slash""#,
            r#""\u00e9\u2028\ud83d\ude00\/""#,
            "0",
            "-7",
            "9007199254740993",
            "18446744073709551615",
        ] {
            let shown = one(&client, &call_body(id, "echo", r#"{"message":"x"}"#, ""));
            assert!(shown.contains(&format!(r#""id":{id},"#)), "{server}: {id} in {shown}");
            let meta = format!(r#","_meta":{{"progressToken":{id}}}"#);
            let messages = client.post(&call_body("1", "nasty_progress", r#"{"times":2}"#, &meta)).messages();
            let mine = format!(r#""progressToken":{id},"#);
            let (answer, reports) = messages.split_last().expect("an answer");
            assert_eq!(reports.len(), 2, "{server}: no token of anybody else: {messages:?}");
            assert!(reports.iter().all(|report| report.contains(&mine)), "{server}: {id} in {messages:?}");
            assert!(answer.contains("reported"));
        }
    }
}

/// What one session sees of its own calls, all of which carry the same id and the same token.
fn busy(client: &Client, n: usize) {
    let times = n + 3;
    let meta = r#","_meta":{"progressToken":"same"}"#;
    let body = call_body("1", "nasty_progress", &format!(r#"{{"times":{times}}}"#), meta);
    let messages = client.post(&body).messages();
    let (answer, reports) = messages.split_last().expect("an answer");
    assert!(answer.contains(r#""id":1,"#) && answer.contains("reported"), "{answer}");
    let reports: Vec<Value> = reports.iter().map(|text| serde_json::from_str(text).expect("JSON")).collect();
    let seen: Vec<u64> =
        reports.iter().map(|report| report["params"]["progress"].as_u64().unwrap_or(0)).collect();
    assert_eq!(seen, (1..=times as u64).collect::<Vec<_>>(), "every report of this call once, in order");
    for report in &reports {
        assert_eq!(report["params"]["progressToken"], "same");
        assert_eq!(report["params"]["total"], times, "a report of another session: {report}");
    }
    for turn in 0..10 {
        let text = format!("session {n}, call {turn}");
        let ms = (n * 7 + turn * 13) % 40;
        let slow = json!({"ms": ms, "message": text}).to_string();
        let shown = one(client, &call_body("1", "nasty_slow", &slow, ""));
        let wanted = format!(
            r#"{{"jsonrpc":"2.0","id":1,"result":{{"content":[{{"type":"text","text":"{text}"}}]}}}}"#
        );
        let same = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
        let (mut got, wanted) = (same(&shown), same(&wanted));
        // What the modern era adds.
        if let Some(result) = got["result"].as_object_mut() {
            result.retain(|key, _| key == "content");
        }
        assert_eq!(got, wanted);
    }
}

#[test]
fn r12_identical_ids_and_tokens_of_32_sessions_never_mix() {
    let site = Site::new("gw-mix");
    site.write(&json!({ "old": fixture(&["--era", "legacy"]), "new": fixture(&["--era", "modern"]) }));
    let _daemon = site.daemon();
    for server in ["old", "new"] {
        let at = At::of(&site, server);
        let clients: Vec<Client> = (0..SESSIONS).map(|_| at.open()).collect();
        let start = Barrier::new(SESSIONS);
        std::thread::scope(|scope| {
            for (n, client) in clients.iter().enumerate() {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    busy(client, n);
                });
            }
        });
    }
    let id = site.id("old");
    let client = At::of(&site, "old").open();
    assert_eq!(client.counters()["initializes"], 1, "one connection for all sessions");
    assert_eq!(id, site.id("old"));
}

#[test]
fn r12_one_id_twice_at_once_in_one_session_is_refused() {
    let site = Site::new("gw-twice");
    site.write(&json!({ "old": fixture(&["--era", "legacy"]) }));
    let _daemon = site.daemon();
    let client = At::of(&site, "old").open();
    let slow = call_body("1", "nasty_slow", r#"{"ms":1500,"message":"first"}"#, "");
    std::thread::scope(|scope| {
        let first = scope.spawn(|| one(&client, &slow));
        std::thread::sleep(QUIET);
        let second = client.post(&call_body("1", "echo", r#"{"message":"second"}"#, "")).refusal();
        assert_eq!(second, (400, -32600));
        let other = client.at.open();
        assert!(one(&other, &call_body("1", "echo", r#"{"message":"third"}"#, "")).contains("third"));
        assert!(first.join().expect("the first call").contains("first"));
    });
    assert!(one(&client, &call_body("1", "echo", r#"{"message":"again"}"#, "")).contains("again"));
}
