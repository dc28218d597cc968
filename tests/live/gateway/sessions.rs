//! Streams, cancellation, questions of servers, subscriptions: who hears what.

use crate::gateway::client::{At, Client, LEGACY, QUIET, fixture, fixture_with};
use crate::gateway::wire::{Ask, Events};
use crate::support::{Site, eventually, text};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

fn methods(messages: &[Value]) -> Vec<String> {
    messages.iter().filter_map(|message| message["method"].as_str()).map(str::to_owned).collect()
}

#[test]
fn r11_a_second_get_takes_over_and_no_message_comes_twice() {
    let site = Site::new("gw-get");
    site.write(&json!({ "old": fixture(&["--era", "legacy"]) }));
    let _daemon = site.daemon();
    let at = At::of(&site, "old");
    let (client, other) = (at.open(), at.open());
    let elsewhere = other.listen();
    let first = client.listen();
    client.call("test_trigger_tool_change", &json!({}));
    assert_eq!(first.message()["method"], "notifications/tools/list_changed");
    let second = client.listen();
    assert!(first.ends(Duration::from_secs(5)), "the first stream is superseded");
    for _ in 0..5 {
        client.call("test_trigger_prompt_change", &json!({}));
    }
    assert_eq!(methods(&second.rest(QUIET)), vec!["notifications/prompts/list_changed"; 5]);
    // Each session has its own copy of everything, once.
    let mut wanted = vec!["notifications/tools/list_changed"];
    wanted.extend(["notifications/prompts/list_changed"; 5]);
    assert_eq!(methods(&elsewhere.rest(QUIET)), wanted);
    drop(second);
    assert_eq!(client.counters()["initializes"], 1, "the connection to the server is the same");
}

#[test]
fn r10_a_stream_is_resumed_where_it_broke() {
    let site = Site::new("gw-resume");
    site.write(&json!({ "old": fixture(&["--era", "legacy"]) }));
    let _daemon = site.daemon();
    let client = At::of(&site, "old").open();
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"test_tool_with_progress","arguments":{},"_meta":{"progressToken":1}}}"#;
    let reply = client.post(body);
    assert_eq!(reply.header("cache-control"), "no-cache");
    assert_eq!(reply.header("x-accel-buffering"), "no");
    let stream = reply.stream();
    let priming = stream.next(Duration::from_secs(5)).expect("a priming event");
    assert!(!priming.id.is_empty() && priming.data.is_empty(), "{priming:?}");
    let report = stream.next(Duration::from_secs(5)).expect("a report");
    assert!(report.data.contains("notifications/progress"), "{report:?}");
    drop(stream);
    std::thread::sleep(QUIET);
    let resume = |id: &str| {
        let ask = client.dress(Ask::events(&client.at.path)).with("Last-Event-ID", id);
        let reply = ask.send(client.at.port);
        assert_eq!(reply.status, 200);
        reply.stream().rest(QUIET)
    };
    let rest = resume(&report.id);
    assert_eq!(rest.last().map(|answer| answer["id"].clone()), Some(json!(1)), "the answer waited: {rest:?}");
    let seen: Vec<u64> = rest.iter().filter_map(|message| message["params"]["progress"].as_u64()).collect();
    assert_eq!(seen, [50, 100], "what was seen does not come again, and nothing is missing");
}

/// Sends a call and goes away while it runs.
fn leave(ask: &Ask, port: u16, at: &At) {
    let body = ask.clone();
    let head = format!(
        "{} {} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {}\r\n",
        body.method,
        at.path,
        body.body.len()
    );
    let headers: String = body.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("a port");
    std::io::Write::write_all(&mut stream, format!("{head}{headers}\r\n{}", body.body).as_bytes())
        .expect("a request");
    std::thread::sleep(Duration::from_millis(300));
    drop(stream);
}

const OBEY: &str = r#"{"name":"nasty_slow","arguments":{"ms":3000,"obey":true}}"#;

#[test]
fn r13_a_legacy_client_that_goes_away_cancels_nothing() {
    let site = Site::new("gw-leave");
    site.write(&json!({ "old": fixture(&["--era", "legacy"]), "new": fixture(&["--era", "modern"]) }));
    let _daemon = site.daemon();
    for server in ["old", "new"] {
        let at = At::of(&site, server);
        let (client, other) = (at.open(), at.open());
        let call = format!(r#"{{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{OBEY}}}"#);
        leave(&client.ask(&call), at.port, &at);
        std::thread::sleep(QUIET);
        assert_eq!(client.counters()["cancelled"], 0, "{server}");
        // Another session's cancellation of the same id is nobody's.
        let cancel =
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":5,"reason":"x"}}"#;
        std::thread::scope(|scope| {
            let begin = Instant::now();
            let call = call.replace("\"id\":5", "\"id\":6");
            let client = &client;
            let running = scope.spawn(move || client.post(&call).try_body());
            std::thread::sleep(Duration::from_millis(300));
            assert_eq!(other.post(&cancel.replace(":5", ":6")).status, 202);
            std::thread::sleep(QUIET);
            let counted = other.counters();
            assert_eq!(
                (&counted["cancelled"], &counted["cancelledUnknown"]),
                (&json!(0), &json!(0)),
                "{server}"
            );
            // Its own is.
            assert_eq!(client.post(&cancel.replace(":5", ":6")).status, 202);
            eventually("the server was told", 5, || (other.counters()["cancelled"] == 1).then_some(()));
            running.join().expect("a call").ok();
            assert!(
                begin.elapsed() < Duration::from_secs(3),
                "{server}: the call ended with its cancellation"
            );
        });
    }
}

#[test]
fn r13_a_modern_client_that_goes_away_has_cancelled() {
    let site = Site::new("gw-cancel");
    site.write(&json!({ "old": fixture(&["--era", "legacy"]), "new": fixture(&["--era", "modern"]) }));
    let _daemon = site.daemon();
    for server in ["old", "new"] {
        let at = At::of(&site, server);
        let counted = || -> Value {
            serde_json::from_str(&at.modern_call("nasty_counters", &json!({}))).expect("JSON")
        };
        assert_eq!(counted()["cancelled"], 0);
        leave(&at.modern("5", "tools/call", OBEY, "{}"), at.port, &at);
        eventually("the server was told", 2, || (counted()["cancelled"] == 1).then_some(()));
        assert_eq!(counted()["cancelledUnknown"], 0);
    }
}

/// Answers a model gives, for one client.
fn model(name: &str) -> Value {
    json!({"role": "assistant", "content": {"type": "text", "text": format!("model of {name}")}, "model": "m"})
}

#[test]
fn r14_questions_of_a_server_reach_their_own_session_alone() {
    let site = Site::new("gw-ask");
    site.write(&json!({ "old": fixture(&["--era", "legacy"]) }));
    let _daemon = site.daemon();
    let at = At::of(&site, "old");
    let names = ["alice", "bob"];
    let clients = names.map(|_| at.open_as(LEGACY, &json!({"sampling": {}})));
    let watching: Vec<Events> = clients.iter().map(Client::listen).collect();
    let shared = at.open();
    let legs = site.names().iter().filter(|name| name.starts_with("old-L")).count();
    assert_eq!(legs, 2, "{:?}", site.names());
    std::thread::scope(|scope| {
        for (client, name) in clients.iter().zip(names) {
            scope.spawn(move || {
                for turn in 0..5 {
                    let prompt = format!("prompt of {name}, {turn}");
                    let (said, asked) =
                        client.converse_with("test_sampling", &json!({"prompt": prompt}), |message| {
                            let shown = message.to_string();
                            assert!(shown.contains(&prompt), "another's question: {shown}");
                            model(name)
                        });
                    assert_eq!(said, format!("LLM response: model of {name}"));
                    assert_eq!(asked, ["sampling/createMessage"]);
                }
            });
        }
    });
    for stream in &watching {
        assert!(stream.rest(QUIET).is_empty(), "a question is on one stream only");
    }
    // An answer that nobody waits for, and another's.
    let stray = r#"{"jsonrpc":"2.0","id":"sampling","result":{}}"#;
    assert_eq!(clients[0].post(stray).status, 400);
    let reply = clients[0].call_ask("test_sampling", &json!({"prompt": "mine"})).send(at.port);
    let stream = reply.stream();
    let question = stream.message();
    let answer = json!({"jsonrpc": "2.0", "id": question["id"], "result": model("alice")}).to_string();
    assert_eq!(clients[1].post(&answer).status, 400, "another session's answer");
    assert_eq!(clients[0].post(&answer).status, 202);
    assert_eq!(stream.message()["result"]["content"][0]["text"], "LLM response: model of alice");
    assert_eq!(clients[0].post(&answer).status, 400, "a second answer");
    // Whoever shares cannot be asked, and hears so at once.
    let begin = Instant::now();
    let refused = shared.call("nasty_ask", &json!({"method": "sampling/createMessage", "params": {}}));
    assert!(refused.contains("-32601"), "{refused}");
    assert!(begin.elapsed() < Duration::from_secs(1));
}

#[test]
fn r16_a_changed_resource_is_told_to_subscribers_alone() {
    let site = Site::new("gw-subs");
    site.write(&json!({ "old": fixture(&["--era", "legacy"]), "new": fixture(&["--era", "modern"]) }));
    let _daemon = site.daemon();
    for server in ["old", "new"] {
        let at = At::of(&site, server);
        let (a, b, c) = (at.open(), at.open(), at.open());
        let streams = [a.listen(), b.listen(), c.listen()];
        let watched = json!({"uri": "test://watched-resource"});
        for client in [&a, &b] {
            assert!(client.request("resources/subscribe", &watched).get("result").is_some());
        }
        // A subscription at a modern server takes a moment of its own.
        std::thread::sleep(QUIET);
        let touched = |wanted: [usize; 3]| {
            c.call("test_touch_resource", &watched);
            c.call("test_touch_resource", &json!({"uri": "test://another"}));
            for (stream, wanted) in streams.iter().zip(wanted) {
                let heard = stream.rest(QUIET);
                let updates =
                    methods(&heard).iter().filter(|name| *name == "notifications/resources/updated").count();
                assert_eq!(updates, wanted, "{server}: {heard:?}");
                assert!(heard.iter().all(|update| update["params"]["uri"] == watched["uri"]), "{heard:?}");
            }
        };
        touched([1, 1, 0]);
        assert!(b.request("resources/unsubscribe", &watched).get("result").is_some());
        touched([1, 0, 0]);
        if server == "old" {
            assert_eq!(c.counters()["subscriptions"], json!(["test://watched-resource"]));
            a.delete();
            eventually("the last subscriber's end ends the subscription", 5, || {
                (c.counters()["subscriptions"] == json!([])).then_some(())
            });
        }
    }
}

#[test]
fn r16_subscription_streams_of_modern_clients_hear_what_they_asked_for() {
    let site = Site::new("gw-listen");
    site.write(&json!({ "old": fixture(&["--era", "legacy"]), "new": fixture(&["--era", "modern"]) }));
    let _daemon = site.daemon();
    for server in ["old", "new"] {
        let at = At::of(&site, server);
        let listen = |id: &str, wants: &str| {
            let params = format!(r#"{{"notifications":{wants}}}"#);
            let stream = at.modern(id, "subscriptions/listen", &params, "{}").send(at.port).stream();
            assert_eq!(stream.message()["method"], "notifications/subscriptions/acknowledged", "{server}");
            stream
        };
        let tools = listen("1", r#"{"toolsListChanged":true}"#);
        let both = listen(
            "\"1\"",
            r#"{"toolsListChanged":true,"resourceSubscriptions":["test://watched-resource"]}"#,
        );
        std::thread::sleep(QUIET);
        at.modern_call("test_trigger_tool_change", &json!({}));
        at.modern_call("test_trigger_prompt_change", &json!({}));
        at.modern_call("test_touch_resource", &json!({"uri": "test://watched-resource"}));
        let heard = |stream: &Events, id: Value| -> BTreeSet<String> {
            let messages = stream.rest(QUIET);
            for message in &messages {
                let tag = message.pointer("/params/_meta/io.modelcontextprotocol~1subscriptionId");
                assert_eq!(tag, Some(&id), "{server}: {message}");
            }
            let all = methods(&messages);
            let once: BTreeSet<String> = all.iter().cloned().collect();
            assert_eq!(once.len(), all.len(), "{server}: once each: {all:?}");
            once
        };
        let set = |names: &[&str]| {
            names.iter().map(|name| format!("notifications/{name}")).collect::<BTreeSet<_>>()
        };
        assert_eq!(heard(&tools, json!(1)), set(&["tools/list_changed"]), "{server}");
        assert_eq!(heard(&both, json!("1")), set(&["tools/list_changed", "resources/updated"]), "{server}");
    }
}

#[test]
fn r16_a_subscription_outlives_the_connection_it_began_on() {
    let site = Site::new("gw-relisten");
    let servers = |colour: &str| {
        let flag = format!("COLOUR={colour}");
        json!({
            "old": fixture_with(&["-e", &flag], &["--era", "legacy"]),
            "new": fixture_with(&["-e", &flag], &["--era", "modern"]),
        })
    };
    site.write(&servers("red"));
    let _daemon = site.daemon();
    for (round, server) in ["old", "new"].into_iter().enumerate() {
        let at = At { port: site.main_port(), ..At::of(&site, server) };
        let wants = r#"{"notifications":{"toolsListChanged":true}}"#;
        let stream = at.modern("7", "subscriptions/listen", wants, "{}").send(at.port).stream();
        assert_eq!(stream.message()["method"], "notifications/subscriptions/acknowledged", "{server}");
        // Whatever becomes of the server, the client hears of a change and of no end.
        let goes_on = |what: &str| {
            eventually(&format!("{server} after {what}"), 60, || {
                let call = at.modern("1", "tools/call", r#"{"name":"test_trigger_tool_change"}"#, "{}");
                let called = call.try_send(at.port).ok()?;
                if called.status != 200 || called.try_body().is_err() {
                    return None;
                }
                let heard = stream.try_message(Duration::from_secs(2)).ok()?;
                let (method, tag) = (
                    &heard["method"],
                    heard.pointer("/params/_meta/io.modelcontextprotocol~1subscriptionId"),
                );
                assert_eq!(
                    (method, tag),
                    (&json!("notifications/tools/list_changed"), Some(&json!(7))),
                    "{what}: {heard}"
                );
                Some(())
            });
        };
        goes_on("nothing");
        let _crashed = at.modern("1", "tools/call", r#"{"name":"nasty_crash"}"#, "{}").try_send(at.port);
        goes_on("a crash");
        let before = site.id(server);
        site.write(&servers(["green", "blue"][round]));
        eventually("it was replaced", 60, || {
            (site.container(server).filter(crate::support::runs).map(|new| text(&new, "/Id"))? != before)
                .then_some(())
        });
        goes_on("a replacement");
        site.run(&["stop-server", server]).exits(0);
        site.run(&["start-server", server]).exits(0);
        goes_on("a stop and a start");
        let mut rest = servers("green");
        rest.as_object_mut().expect("servers").remove(server);
        site.write(&rest);
        let last = eventually("the end", 30, || {
            stream.try_message(Duration::from_secs(1)).ok().filter(|last| last["id"] == 7)
        });
        assert_eq!(last["result"]["resultType"], "complete", "{last}");
        site.write(&servers("green"));
    }
}
