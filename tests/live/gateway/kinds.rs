//! Servers that are no stdio containers, clients of the first transport, and clients of one era at
//! servers of the other.

use crate::gateway::client::{At, LEGACY, fixture, fixture_path, fixture_with, text_of};
use crate::gateway::wire::{Ask, Reply};
use crate::support::{Site, eventually};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The fixture over HTTP on this host; ended when dropped.
struct Served {
    child: Child,
    address: String,
}

impl Served {
    fn start(args: &[&str]) -> Self {
        let mut command = Command::new(fixture_path());
        command
            .args(["--http", "0"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the fixture");
        let mut lines = BufReader::new(child.stderr.take().expect("its standard error")).lines();
        let address = lines
            .find_map(|line| line.ok()?.strip_prefix("listening on ").map(str::to_owned))
            .expect("the fixture says where it listens");
        // Whatever else it says must not stop it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

#[test]
fn r17_a_process_is_served_comes_back_and_is_killed_with_all_its_children() {
    let site = Site::new("gw-process");
    let path = fixture_path();
    site.write(&json!({
        "local": {"command": path, "args": ["--era", "legacy"], "env": {"COLOUR": "red"}},
        "deaf": {"command": path, "args": ["--era", "legacy", "--ignore-eof"]},
    }));
    let daemon = site.daemon();
    let client = At::of(&site, "local").open();
    assert_eq!(client.call("nasty_env", &json!({"name": "COLOUR"})), "red");
    let who = |client: &crate::gateway::client::Client| -> Value {
        serde_json::from_str(&client.call("nasty_who", &json!({}))).expect("JSON")
    };
    let first = who(&client)["pid"].to_string();
    let child = client.call("nasty_child", &json!({}));
    assert!(is_alive(&first) && is_alive(&child));
    let _crashed = client.try_call("nasty_crash", &json!({}));
    assert_eq!(client.call("echo", &json!({"message": "back"})), "back", "the session goes on");
    eventually("the child of the dead is gone too", 10, || {
        (!is_alive(&first) && !is_alive(&child)).then_some(())
    });
    let own = client.at.open_as(LEGACY, &json!({"sampling": {}}));
    let (said, asked) = own.converse(
        "test_sampling",
        |_| json!({"role": "assistant", "content": {"type": "text", "text": "yes"}, "model": "m"}),
    );
    assert_eq!((said.as_str(), asked.len()), ("LLM response: yes", 1));
    let owned = who(&own)["pid"].to_string();
    assert_ne!(owned, who(&client)["pid"].to_string());
    assert!((200..300).contains(&own.delete()));
    eventually("its own process ends with the session", 15, || (!is_alive(&owned)).then_some(()));
    let deaf = At::of(&site, "deaf").open();
    let pids = [
        who(&client)["pid"].to_string(),
        client.call("nasty_child", &json!({})),
        who(&deaf)["pid"].to_string(),
        deaf.call("nasty_child", &json!({})),
    ];
    assert!(pids.iter().all(|pid| is_alive(pid)), "{pids:?}");
    assert_eq!(daemon.stop(), 0);
    let left: Vec<&String> = pids.iter().filter(|pid| is_alive(pid)).collect();
    assert!(left.is_empty(), "processes outlive the daemon: {left:?}");
}

#[test]
fn r25_servers_elsewhere_over_http_and_sse_in_both_eras() {
    let site = Site::new("gw-remote");
    let (old, new) = (Served::start(&["--era", "legacy"]), Served::start(&["--era", "modern"]));
    let url = |served: &Served, path: &str| format!("http://{}{path}", served.address);
    site.write(&json!({
        "http": {"type": "http", "url": url(&old, "/mcp")},
        "modern": {"type": "http", "url": url(&new, "/mcp")},
        "old-sse": {"type": "sse", "url": url(&old, "/sse")},
        "guess": {"url": url(&old, "/mcp")},
    }));
    let _daemon = site.daemon();
    for server in ["http", "modern", "old-sse", "guess"] {
        let at = At::of(&site, server);
        let client = at.open();
        assert_eq!(Ask::new("GET", "/healthz").send(at.port).status, 200, "{server}");
        assert_eq!(client.call("echo", &json!({"message": server})), server);
        assert_eq!(at.modern_call("echo", &json!({"message": server})), server);
        let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"test_tool_with_progress","arguments":{},"_meta":{"progressToken":"t"}}}"#;
        assert_eq!(client.post(body).messages().len(), 4, "{server}: three reports and the answer");
        if server != "modern" {
            let own = at.open_as(LEGACY, &json!({"elicitation": {}}));
            let (said, asked) = own.converse(
                "test_elicitation",
                |_| json!({"action": "accept", "content": {"username": "u", "email": "e"}}),
            );
            assert!(said.contains("accept") && asked == ["elicitation/create"], "{server}: {said} {asked:?}");
        }
    }
}

/// What a client fills in, for each question of the fixture.
fn person(question: &Value) -> Value {
    match question["method"].as_str() {
        Some("elicitation/create") => {
            let asked = question.pointer("/params/requestedSchema/properties").and_then(Value::as_object);
            let content: serde_json::Map<String, Value> = asked
                .into_iter()
                .flatten()
                .map(|(name, schema)| match (name.as_str(), schema["type"].as_str()) {
                    (_, Some("boolean")) => (name.clone(), json!(true)),
                    ("color", _) => (name.clone(), json!("green")),
                    _ => (name.clone(), json!("Ada")),
                })
                .collect();
            json!({"action": "accept", "content": content})
        }
        Some("sampling/createMessage") => {
            json!({"role": "assistant", "content": {"type": "text", "text": "Paris"}, "model": "m"})
        }
        Some("roots/list") => json!({"roots": [{"uri": "file:///home", "name": "home"}]}),
        other => panic!("no answer to {other:?}"),
    }
}

#[test]
fn legacy_clients_of_a_modern_server_are_asked_within_their_session() {
    let site = Site::new("gw-input");
    site.write(&json!({ "new": fixture(&["--era", "modern"]) }));
    let _daemon = site.daemon();
    let at = At::of(&site, "new");
    let client = at.open_as(LEGACY, &json!({"elicitation": {}, "sampling": {}, "roots": {}}));
    let other = at.open_as(LEGACY, &json!({"elicitation": {}, "sampling": {}, "roots": {}}));
    let quiet = other.listen();
    for (tool, said, asked) in [
        ("elicitation", "Hello, Ada!", vec!["elicitation/create"]),
        ("sampling", "Paris", vec!["sampling/createMessage"]),
        ("list_roots", r#"Roots: [{"uri":"file:///home","name":"home"}]"#, vec!["roots/list"]),
        ("request_state", "state-ok: the state came back as it was given", vec!["elicitation/create"]),
        ("multiple_inputs", "Paris Ada", vec!["elicitation/create", "roots/list", "sampling/createMessage"]),
        ("multi_round", "Ada likes green", vec!["elicitation/create", "elicitation/create"]),
    ] {
        let (text, mut questions) = client.converse(&format!("test_input_required_result_{tool}"), person);
        questions.sort();
        assert_eq!(
            (text.as_str(), questions),
            (said, asked.into_iter().map(str::to_owned).collect()),
            "{tool}"
        );
    }
    // A client that can do nothing is not asked anything.
    let (text, asked) = at.open().converse("test_input_required_result_capabilities", person);
    assert_eq!((text.as_str(), asked.len()), ("the client can answer nothing", 0));
    assert!(quiet.rest(Duration::from_millis(300)).is_empty(), "nobody else was asked");
}

#[test]
fn r15_modern_clients_of_a_legacy_server_are_asked_by_input_required() {
    let site = Site::new("gw-mrtr");
    site.write(&json!({ "old": fixture(&["--era", "legacy"]) }));
    let daemon = site.daemon();
    let at = At::of(&site, "old");
    let caps = r#"{"elicitation":{},"sampling":{},"roots":{}}"#;
    let send = |id: &str, params: &Value| -> Value {
        let reply: Reply = at.modern(id, "tools/call", &params.to_string(), caps).send(at.port);
        assert!(matches!(reply.status, 200 | 400), "{}", reply.status);
        if reply.status == 200 { reply.answer() } else { reply.json() }
    };
    let call = json!({"name": "test_input_required_result_multi_round", "arguments": {}});
    let mut answer = send("1", &call);
    let mut states = Vec::new();
    for turn in 2..=3 {
        assert_eq!(answer["result"]["resultType"], "input_required", "{answer}");
        let asked = answer["result"]["inputRequests"].as_object().cloned().expect("requests");
        let responses: serde_json::Map<String, Value> =
            asked.iter().map(|(name, question)| (name.clone(), person(question))).collect();
        let state = answer["result"]["requestState"].clone();
        let mut retry = call.clone();
        retry["inputResponses"] = responses.into();
        retry["requestState"] = state.clone();
        // Another call, and a changed state, are refused and do no harm.
        let mut wrong = retry.clone();
        wrong["arguments"] = json!({"x": 1});
        assert_eq!(send("9", &wrong)["error"]["code"], -32602);
        let mut wrong = retry.clone();
        wrong["requestState"] = json!(format!("{}x", state.as_str().expect("text")));
        assert_eq!(send("9", &wrong)["error"]["code"], -32602);
        states.push(retry.clone());
        answer = send(&turn.to_string(), &retry);
        assert_eq!(answer["id"], turn);
    }
    assert_eq!(text_of(&answer), "Ada likes green");
    for used in &states {
        assert_eq!(send("9", used)["error"]["code"], -32602, "a state is good once");
    }
    // One more that nobody comes back for.
    assert_eq!(send("10", &call)["result"]["resultType"], "input_required");
    assert!(site.names().len() > 1, "calls that may ask run in containers of their own");
    assert_eq!(daemon.stop(), 0);
    assert_eq!(site.names(), BTreeSet::from(["old".to_owned()]), "nothing is left after the daemon's end");
}

#[test]
fn r01_clients_of_2024_11_05_have_their_pair_of_stream_and_post() {
    let site = Site::new("gw-pair");
    site.write(&json!({ "old": fixture(&["--era", "legacy"]), "new": fixture(&["--era", "modern"]) }));
    let _daemon = site.daemon();
    for server in ["old", "new"] {
        let at = At::of(&site, server);
        let open = || {
            let stream = Ask::events(&format!("{}/sse", at.path)).send(at.port).stream();
            let first = stream.next(Duration::from_secs(5)).expect("an event");
            assert_eq!(first.name, "endpoint");
            assert!(first.data.starts_with(&format!("{}/messages?", at.path)), "{first:?}");
            (stream, first.data)
        };
        let (stream, endpoint) = open();
        let (other, elsewhere) = open();
        assert_ne!(endpoint, elsewhere);
        let post = |endpoint: &str, body: &Value| {
            let ask = Ask { body: body.to_string(), ..Ask::new("POST", endpoint) };
            ask.with("Content-Type", "application/json").send(at.port).status
        };
        let call = |id: u64, text: &str| {
            json!({"jsonrpc": "2.0", "id": id, "method": "tools/call",
                   "params": {"name": "echo", "arguments": {"message": text}}})
        };
        assert_eq!(post(&endpoint, &call(1, "too soon")), 400);
        let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "live", "version": "1"}}});
        for (stream, endpoint) in [(&stream, &endpoint), (&other, &elsewhere)] {
            assert_eq!(post(endpoint, &hello), 202);
            assert_eq!(stream.reply()["result"]["protocolVersion"], "2024-11-05");
            assert_eq!(
                post(endpoint, &json!({"jsonrpc": "2.0", "method": "notifications/initialized"})),
                202
            );
        }
        assert_eq!((post(&endpoint, &call(1, "mine")), post(&elsewhere, &call(1, "theirs"))), (202, 202));
        assert_eq!(text_of(&stream.reply()), "mine");
        assert_eq!(text_of(&other.reply()), "theirs");
        assert_eq!(post(&endpoint.replace("session_id=", "session_id=0"), &call(2, "x")), 404);
        drop(stream);
        eventually("the pair ends with its stream", 20, || {
            (post(&endpoint, &call(3, "x")) == 404).then_some(())
        });
        assert_eq!(post(&elsewhere, &call(4, "on")), 202);
        assert_eq!(text_of(&other.reply()), "on");
    }
}

#[test]
fn logs_of_http_containers_come_from_the_engine_both_streams_and_followed() {
    let site = Site::new("gw-logs");
    let image = crate::gateway::client::fixture_image();
    let served = ["--era", "legacy", "--http", "8000", "--host", "0.0.0.0", "--any-host"];
    let words: Vec<&str> = ["--rm", image.as_str()].into_iter().chain(served).collect();
    let mut entry = crate::support::docker_run(&words);
    entry["orchestrator"] = json!({"transport": "http", "containerPort": 8000, "route": "edge"});
    let mut mute = entry.clone();
    mute["args"].as_array_mut().expect("words").insert(1, json!("--log-driver=none"));
    site.write(&json!({ "web": entry, "mute": mute }));
    let _daemon = site.daemon();
    let client = At::of(&site, "web").open();
    // It says where it listens, to people.
    eventually("its first words", 20, || {
        let told = site.run(&["logs", "web"]).exits(0);
        told.out.contains("listening on").then_some(())
    });
    let mut follower = site.program(&["logs", "web", "-f", "--tail", "1", "--json"]);
    let mut follower = follower.stdout(Stdio::piped()).spawn().expect("the program");
    let (tell, told) = std::sync::mpsc::channel();
    let out = follower.stdout.take().expect("a pipe");
    std::thread::spawn(move || {
        BufReader::new(out).lines().map_while(Result::ok).try_for_each(|line| tell.send(line))
    });
    let next = || -> Value {
        let line = told.recv_timeout(Duration::from_secs(20)).expect("a line");
        serde_json::from_str(&line).expect("JSON")
    };
    assert!(next()["text"].as_str().is_some_and(|text| text.contains("listening on")));
    client.call("nasty_stderr", &json!({"bytes": 3000}));
    let mut numbers: Vec<u64> = Vec::new();
    while numbers.len() < 3 {
        let line = next();
        assert!(
            line["stream"] == "stderr" && line["text"].as_str().is_some_and(|text| text.starts_with("eee")),
            "{line}"
        );
        numbers.push(line["number"].as_u64().expect("a number"));
    }
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "in order, each once: {numbers:?}");
    let _gone = follower.kill();
    let _gone = follower.wait();
    let tail = site.run(&["logs", "web", "--tail", "2"]).exits(0);
    assert_eq!(tail.out.lines().count(), 2, "{}", tail.out);
    // A driver that keeps nothing is said to.
    let none = site.run(&["logs", "mute"]).exits(1);
    assert!(none.all().contains("MCPO-H014"), "{}", none.all());
}

/// It has ended before any look could find it running; what it said is all there is to know why.
#[test]
fn the_words_of_a_container_that_ends_at_once_are_kept() {
    let site = Site::new("gw-first-words");
    site.write(&json!({ "brief": fixture_with(&["--init=false"], &["--no-such-option"]) }));
    let _daemon = site.daemon();
    let told = eventually("its words are kept", 60, || {
        let told = site.run(&["logs", "brief"]).out;
        told.contains("unknown option --no-such-option").then_some(told)
    });
    assert!(told.contains("Usage: mcp-fixture"), "{told}");
}
