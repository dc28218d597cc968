//! Limits before a played server, by several doors, on a clock that stands still.

use crate::gateway::Gateway;
use crate::gateway::body::Response;
use crate::gateway::call::{Failed, ask_when_admitted};
use crate::gateway::front::GatewayFront;
use crate::gateway::guard::{Guard, Policy};
use crate::gateway::http::{Addresses, Entry as Way, Front as _, Request};
use crate::gateway::hub::Entry;
use crate::gateway::places::{Offer, Place, Places};
use crate::gateway::played::{Act, EXIT, Played, RETRY, Stage, id, place, shared};
use crate::gateway::toolproxy::ToolProxy;
use crate::gateway::traffic::denied::Denied;
use crate::gateway::traffic::{Admitted, Wanted};
use crate::mcp::wire::Era;
use crate::model::time::Span;
use crate::model::traffic::{AtOnce, BreakerPolicy, CachePolicy, Rate, RetryPolicy, TrafficPolicy};
use crate::traffic::breaker::State;
use crate::upstream::error::CallError;
use crate::world::fake::FakeSessions;
use http_body_util::BodyExt as _;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::sync::mpsc;

type Heard = Arc<Mutex<Vec<String>>>;

struct World {
    gateway: Arc<Gateway>,
    entry: Arc<Entry>,
    front: Arc<GatewayFront>,
    /// Tools that were called, as the server heard it.
    heard: Heard,
    /// Lines for the server of now to say.
    say: Arc<Mutex<Option<mpsc::UnboundedSender<String>>>>,
}

fn tools() -> Value {
    json!([
        {"name": "read", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": true}},
        {"name": "put", "inputSchema": {"type": "object"}, "annotations": {"idempotentHint": true}},
        {"name": "write", "inputSchema": {"type": "object"}},
        {"name": "fail", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": true}},
    ])
}

/// Answers with a number that grows; `{"hold": true}` never, `{"die": true}` by ending, once.
async fn play(mut server: Played, heard: Heard) {
    while let Some(message) = server.heard.recv().await {
        match message["method"].as_str() {
            Some("tools/list") => server.answer(&message, &json!({"tools": tools()})),
            Some("tools/call") => {
                let params = &message["params"];
                let name = params["name"].as_str().unwrap_or_default().to_owned();
                let calls = {
                    let mut heard = heard.lock().unwrap();
                    heard.push(name.clone());
                    heard.len()
                };
                let first = heard.lock().unwrap().iter().filter(|one| **one == name).count() == 1;
                if params["arguments"]["hold"] == true {
                    continue;
                }
                if params["arguments"]["die"] == true && first {
                    let _gone = server.say.send(EXIT.to_owned());
                    return;
                }
                let text = json!([{"type": "text", "text": calls.to_string()}]);
                server.answer(&message, &json!({"content": text, "isError": name == "fail"}));
            }
            _ => {}
        }
    }
}

fn held_to(policy: TrafficPolicy) -> Places {
    let offer = Arc::new(Offer { traffic: policy, ..Offer::default() });
    let place = Place { offer, timeout: Duration::from_secs(5), ..(*place("a", RETRY)).clone() };
    [(id("time"), Arc::new(place))].into_iter().collect()
}

async fn world(policy: TrafficPolicy) -> World {
    let (stage, mut on_stage) = Stage::new(&[], Act::Serve(Era::Legacy));
    let gateway = Gateway::new(shared(&stage), Arc::new(FakeSessions::default()), [7; 32]);
    gateway.set_places(&held_to(policy));
    let (heard, say) = (Heard::default(), Arc::new(Mutex::new(None)));
    let (told, lines) = (Arc::clone(&heard), Arc::clone(&say));
    tokio::spawn(async move {
        while let Some(server) = on_stage.recv().await {
            *lines.lock().unwrap() = Some(server.say.clone());
            tokio::spawn(play(server, Arc::clone(&told)));
        }
    });
    let front = GatewayFront {
        gateway: Arc::clone(&gateway),
        guard: Arc::new(Guard::new(Policy::default())),
        tools: Arc::new(ToolProxy::new(None)),
        beside: OnceLock::new(),
        tls: Arc::default(),
    };
    let entry = gateway.entry(&id("time")).expect("the server");
    entry.slot.ready().await.expect("a connection");
    World { gateway, entry, front: Arc::new(front), heard, say }
}

impl World {
    fn set(&self, policy: TrafficPolicy) {
        self.gateway.set_places(&held_to(policy));
    }

    async fn call(&self, tool: &str, arguments: &Value) -> Result<Value, Failed> {
        let arguments = RawValue::from_string(arguments.to_string()).expect("JSON");
        let result = self.gateway.call_tool(&id("time"), tool, &arguments).await?;
        Ok(serde_json::from_str(result.get()).expect("JSON"))
    }

    /// The number that a tool answers with.
    async fn number(&self, tool: &str, arguments: &Value) -> u64 {
        let result = self.call(tool, arguments).await.expect("an answer");
        result["content"][0]["text"].as_str().expect("a text").parse().expect("a number")
    }

    async fn denied(&self, tool: &str) -> Denied {
        match self.call(tool, &json!({})).await {
            Err(Failed::Denied(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Response {
        let mut head = hyper::Request::builder().method("POST").uri(path).header("host", "localhost");
        head = head.header("content-type", "application/json");
        head = head.header("accept", "application/json, text/event-stream");
        for (name, value) in headers {
            head = head.header(*name, *value);
        }
        let addresses =
            Addresses { peer: "127.0.0.1:4000".parse().unwrap(), local: "127.0.0.1:5000".parse().unwrap() };
        let mut request =
            Request::new(head.body(()).unwrap(), Arc::new(Way::Main), addresses).expect("a request");
        let pass = self.front.admit(&mut request).expect("let in");
        request.body = bytes::Bytes::from(body.to_string());
        Arc::clone(&self.front).handle(request, pass).await
    }

    /// The session of a legacy client at this path.
    async fn session(&self, path: &str) -> String {
        let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}});
        let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
        let answer = self.post(path, &[], &hello).await;
        answer.headers()["mcp-session-id"].to_str().unwrap().to_owned()
    }

    /// A call by each door: in a session at the server and at all of them, without, and by HTTP.
    async fn by_door(&self, door: usize, tool: &str, arguments: &Value) -> (u16, Option<u64>, Value) {
        let call = |name: String, meta: bool| {
            let mut params = json!({"name": name, "arguments": arguments});
            if meta {
                params["_meta"] = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
                    "io.modelcontextprotocol/clientCapabilities": {}});
            }
            json!({"jsonrpc": "2.0", "id": "x", "method": "tools/call", "params": params})
        };
        let modern =
            |name| [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", name)];
        let among_all = format!("time__{tool}");
        let answer = match door {
            0 => {
                let session = self.session("/mcp/time").await;
                self.post("/mcp/time", &[("mcp-session-id", &session)], &call(tool.to_owned(), false)).await
            }
            1 => self.post("/mcp/time", &modern(tool), &call(tool.to_owned(), true)).await,
            2 => {
                let session = self.session("/mcp").await;
                self.post("/mcp", &[("mcp-session-id", &session)], &call(among_all, false)).await
            }
            3 => self.post("/mcp", &modern(&among_all), &call(among_all.clone(), true)).await,
            4 => self.post(&format!("/openapi/time/{tool}"), &[("accept", "*/*")], arguments).await,
            _ => {
                let accept = [("accept", "text/event-stream")];
                let mut head = hyper::Request::builder().method("POST").uri(format!("/openapi/time/{tool}"));
                head = head.header("host", "localhost").header(accept[0].0, accept[0].1);
                let addresses = Addresses {
                    peer: "127.0.0.1:4000".parse().unwrap(),
                    local: "127.0.0.1:5000".parse().unwrap(),
                };
                let mut request =
                    Request::new(head.body(()).unwrap(), Arc::new(Way::Main), addresses).expect("a request");
                let pass = self.front.admit(&mut request).expect("let in");
                request.body = bytes::Bytes::from(arguments.to_string());
                Arc::clone(&self.front).handle(request, pass).await
            }
        };
        let status = answer.status().as_u16();
        let after = answer.headers().get("retry-after").map(|after| after.to_str().unwrap().parse().unwrap());
        let text = answer.into_body().collect().await.expect("a body").to_bytes();
        let text = String::from_utf8(text.to_vec()).expect("text");
        (status, after, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    fn heard(&self) -> usize {
        self.heard.lock().unwrap().len()
    }
}

const DOORS: usize = 6;

fn rate(interval: Duration, burst: u32) -> Option<Rate> {
    Some(Rate { interval_nanos: u64::try_from(interval.as_nanos()).unwrap(), burst })
}

fn at_once(max: u32, waiting_max: u32) -> Option<AtOnce> {
    Some(AtOnce { max, waiting_max, wait: Span::secs(10) })
}

#[tokio::test(start_paused = true)]
async fn a_rate_holds_at_every_door_and_says_when_to_come_again() {
    let world = world(TrafficPolicy::default()).await;
    for door in 0..DOORS {
        world.set(TrafficPolicy::default());
        assert_eq!(world.by_door(door, "write", &json!({})).await.0, 200, "door {door}");
        world.set(TrafficPolicy { rate: rate(Duration::from_millis(2_500), 1), ..TrafficPolicy::default() });
        let (status, _, body) = world.by_door(door, "write", &json!({})).await;
        assert_eq!(status, 200, "door {door}: {body}");
        let heard = world.heard();
        let (status, after, body) = world.by_door(door, "write", &json!({})).await;
        assert_eq!((status, after), (429, Some(3)), "door {door}: {body}");
        if door < 4 {
            assert_eq!((&body["id"], &body["error"]["code"]), (&json!("x"), &json!(-32603)), "{body}");
            assert_eq!(body["error"]["data"], json!({"code": "MCPO-G070", "retryAfterSeconds": 3}));
        } else {
            assert_eq!(body["detail"]["code"], "MCPO-G070", "{body}");
        }
        assert_eq!(world.heard(), heard, "the server hears nothing of it");
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        assert_eq!(world.by_door(door, "write", &json!({})).await.0, 200, "door {door}, later");
    }
    assert_eq!(world.entry.traffic.view().denied["rate"], DOORS as u64);
    // Lists are free, also while no call may go.
    let session = world.session("/mcp/time").await;
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    for _ in 0..5 {
        let answer = world.post("/mcp/time", &[("mcp-session-id", &session)], &list).await;
        assert_eq!(answer.status(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn clients_have_rates_of_their_own() {
    let policy = TrafficPolicy { client_rate: rate(Duration::from_secs(60), 2), ..TrafficPolicy::default() };
    let world = world(policy).await;
    let call = async |who: &str| {
        let who: Arc<str> = who.into();
        let wanted = Wanted { method: "tools/call", params: None, tool: "write", who: &who, shared: true };
        world.entry.admit(&wanted).await.map(drop)
    };
    for who in ["ci", "agent"] {
        assert!(call(who).await.is_ok() && call(who).await.is_ok());
        assert_eq!(call(who).await, Err(Denied::ClientRate(Duration::from_secs(60))), "{who}");
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(call("ci").await.is_ok() && call("ci").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn whoever_goes_away_leaves_no_place_taken() {
    let world = Arc::new(world(TrafficPolicy { at_once: at_once(1, 2), ..TrafficPolicy::default() }).await);
    let call = |arguments: Value| {
        let world = Arc::clone(&world);
        tokio::spawn(async move { world.call("write", &arguments).await.map(|_| ()) })
    };
    let settle = || tokio::time::sleep(Duration::from_millis(1));
    let first = call(json!({"hold": true}));
    settle().await;
    let second = call(json!({}));
    settle().await;
    let third = call(json!({}));
    settle().await;
    let view = world.entry.traffic.view();
    assert_eq!((view.running, view.waiting, world.heard()), (1, 2, 1));
    assert_eq!(world.denied("write").await, Denied::Full);
    second.abort();
    settle().await;
    assert_eq!(world.entry.traffic.view().waiting, 1, "who does not wait any longer has no place");
    first.abort();
    third.await.expect("no panic").expect("the third gets in");
    let view = world.entry.traffic.view();
    assert_eq!((view.running, view.waiting, world.heard()), (0, 0, 2));

    // One that waits too long, and one that waits while the limit goes.
    let first = call(json!({"hold": true}));
    settle().await;
    let late = call(json!({}));
    settle().await;
    let began = tokio::time::Instant::now();
    world.set(TrafficPolicy {
        at_once: at_once(1, 2),
        timeouts: vec![("x".into(), Span::secs(1))],
        ..TrafficPolicy::default()
    });
    assert!(!late.is_finished(), "another policy lets nobody in who may not");
    world.set(TrafficPolicy::default());
    late.await.expect("no panic").expect("without a limit it goes at once");
    assert!(began.elapsed() < Duration::from_secs(1));
    let held = first.await.expect("no panic");
    assert!(matches!(held, Err(Failed::Call(CallError::TimedOut { .. }))), "{held:?}");
    world.set(TrafficPolicy {
        at_once: Some(AtOnce { max: 1, waiting_max: 1, wait: Span::secs(2) }),
        ..TrafficPolicy::default()
    });
    let _first = call(json!({"hold": true}));
    settle().await;
    assert_eq!(world.denied("write").await, Denied::Waited(Duration::from_secs(2)));
    assert_eq!(world.entry.traffic.view().running, 1);
}

/// A call in a session that a client may take back, with its answer when there is one.
fn queued(world: &Arc<World>, path: &'static str, session: &str, id: u64) -> tokio::task::JoinHandle<Value> {
    let (world, session) = (Arc::clone(world), session.to_owned());
    let name = if path == "/mcp" { "time__write" } else { "write" };
    let call = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": name, "arguments": {}}});
    tokio::spawn(async move {
        let answer = world.post(path, &[("mcp-session-id", &session)], &call).await;
        let text = answer.into_body().collect().await.expect("a body").to_bytes();
        serde_json::from_slice(&text).expect("JSON")
    })
}

#[tokio::test(start_paused = true)]
async fn what_waits_in_the_queue_is_taken_back_at_once_and_the_server_hears_nothing() {
    let world = Arc::new(world(TrafficPolicy { at_once: at_once(1, 4), ..TrafficPolicy::default() }).await);
    let settle = || tokio::time::sleep(Duration::from_millis(1));
    let holder = {
        let world = Arc::clone(&world);
        tokio::spawn(async move { world.call("write", &json!({"hold": true})).await.map(|_| ()) })
    };
    settle().await;
    let waiting = || world.entry.traffic.view().waiting;
    for path in ["/mcp/time", "/mcp"] {
        let session = world.session(path).await;
        let taken = queued(&world, path, &session, 7);
        let stays = queued(&world, path, &session, 8);
        settle().await;
        assert_eq!((waiting(), world.heard()), (2, 1), "{path}");
        let params = json!({"requestId": 7, "reason": "no longer"});
        let back = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params});
        let accepted = world.post(path, &[("mcp-session-id", &session)], &back).await;
        assert_eq!(accepted.status(), 202, "{path}");
        settle().await;
        assert_eq!(waiting(), 1, "{path}: its place is free at once");
        let answer = taken.await.expect("no panic");
        assert_eq!(
            (&answer["id"], &answer["error"]["code"]),
            (&json!(7), &json!(-32800)),
            "{path}: {answer}"
        );
        // The end of its session, and a connection that closes, do the same.
        stays.abort();
        settle().await;
        assert_eq!(waiting(), 0, "{path}: nobody reads its answer");
        let left = queued(&world, path, &session, 9);
        settle().await;
        assert_eq!(waiting(), 1, "{path}");
        for session in world.gateway.sessions.of(&id("time")) {
            world.gateway.end_session(&session.hash);
        }
        settle().await;
        assert_eq!((waiting(), world.heard()), (0, 1), "{path}: the session is over");
        assert_eq!(left.await.expect("no panic")["error"]["code"], -32800, "{path}");
    }
    holder.abort();
    settle().await;
    assert_eq!(world.entry.traffic.view().running, 0);
}

#[tokio::test(start_paused = true)]
async fn answers_are_kept_of_tools_that_only_read_until_something_changes() {
    let cache = CachePolicy { ttl: Span::secs(60), bytes_max: 1 << 20, tools: None };
    let policy = TrafficPolicy { cache: Some(cache.clone()), ..TrafficPolicy::default() };
    let world = world(policy).await;
    assert_eq!(world.number("read", &json!({"b": 1, "a": 2})).await, 1);
    assert_eq!(world.number("read", &json!({"a": 2, "b": 1})).await, 1, "the same call");
    assert_eq!(world.number("read", &json!({"a": 2, "b": 1.0})).await, 2, "another one");
    assert_eq!((world.number("write", &json!({})).await, world.number("write", &json!({})).await), (3, 4));
    assert_eq!((world.number("put", &json!({})).await, world.number("put", &json!({})).await), (5, 6));
    for _ in 0..2 {
        assert_eq!(world.call("fail", &json!({})).await.expect("a result")["isError"], true);
    }
    assert_eq!(world.heard(), 8, "failures are not kept");
    // Every door gives what any door got.
    for door in 0..DOORS {
        let (status, _, body) = world.by_door(door, "read", &json!({"a": 2, "b": 1})).await;
        assert_eq!((status, world.heard()), (200, 8), "door {door}: {body}");
        assert!(body.to_string().contains('1'), "door {door}: {body}");
        if (0..4).contains(&door) {
            assert_eq!(
                (&body["id"], &body["result"]["content"][0]["text"]),
                (&json!("x"), &json!("1")),
                "{body}"
            );
        }
    }
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(world.number("read", &json!({"a": 2, "b": 1})).await, 9, "its time is over");
    let changed = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
    world.say.lock().unwrap().as_ref().unwrap().send(changed.to_string()).unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(world.number("read", &json!({"a": 2, "b": 1})).await, 10, "the tools are other ones");
    world.say.lock().unwrap().as_ref().unwrap().send(EXIT.to_owned()).unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.number("read", &json!({"a": 2, "b": 1})).await, 11, "another process");
    // What only may be repeated is kept by name.
    let named = CachePolicy { tools: Some(vec!["p*".to_owned(), "write".to_owned()]), ..cache };
    world.set(TrafficPolicy { cache: Some(named), ..TrafficPolicy::default() });
    assert_eq!((world.number("put", &json!({})).await, world.number("put", &json!({})).await), (12, 12));
    assert_eq!((world.number("write", &json!({})).await, world.number("write", &json!({})).await), (13, 14));
    let view = world.entry.traffic.view();
    assert!(view.cache_hits > 0 && view.cache_misses > 0 && view.cached == 1, "{view:?}");
    world.set(TrafficPolicy { rate: rate(Duration::from_millis(1), 9), ..TrafficPolicy::default() });
    assert_eq!(world.entry.traffic.view().cached, 0, "switched off, nothing stays");
}

#[tokio::test(start_paused = true)]
async fn a_lost_call_is_sent_again_only_where_that_is_safe() {
    let retry = RetryPolicy { retries: 2, delay: Span::millis(100) };
    let policy = TrafficPolicy { retry: Some(retry), ..TrafficPolicy::default() };
    let world = world(policy.clone()).await;
    assert_eq!(world.number("put", &json!({"die": true})).await, 2, "sent again");
    let lost = world.call("write", &json!({"die": true})).await;
    assert!(matches!(lost, Err(Failed::Call(CallError::Closed(_)))), "{lost:?}");
    assert_eq!(world.heard(), 3, "and not again");
    // The doors of MCP, each time before a server that has run for a while.
    let calm = || tokio::time::sleep(Duration::from_secs(60));
    for door in 0..4 {
        calm().await;
        world.heard.lock().unwrap().clear();
        let (status, _, body) = world.by_door(door, "read", &json!({"die": true})).await;
        assert_eq!(
            (status, &body["result"]["content"][0]["text"]),
            (200, &json!("2")),
            "door {door}: {body}"
        );
        calm().await;
        world.heard.lock().unwrap().clear();
        let (_, _, body) = world.by_door(door, "write", &json!({"die": true})).await;
        assert_eq!(body["error"]["code"], -32603, "door {door}: {body}");
        assert_eq!(world.heard(), 1, "door {door}");
    }
    // Those who hear of progress, and those who do not.
    for door in 4..DOORS {
        calm().await;
        world.heard.lock().unwrap().clear();
        let (status, _, body) = world.by_door(door, "read", &json!({"die": true})).await;
        assert!(status == 200 && body.to_string().contains('2'), "door {door}: {status} {body}");
        assert_eq!(world.heard(), 2, "door {door}");
        calm().await;
        world.heard.lock().unwrap().clear();
        let (_, _, body) = world.by_door(door, "write", &json!({"die": true})).await;
        assert!(body.to_string().contains("MCPO-G064"), "door {door}: {body}");
        assert_eq!(world.heard(), 1, "door {door}");
    }
    // A call that takes too long has been waited for long enough.
    calm().await;
    world.heard.lock().unwrap().clear();
    let late = world.call("read", &json!({"hold": true})).await;
    assert!(matches!(late, Err(Failed::Call(CallError::TimedOut { .. }))), "{late:?}");
    assert_eq!(world.heard(), 1);
    assert!(world.entry.traffic.view().retries >= 5);
    // Without the key nothing is ever sent again.
    world.set(TrafficPolicy { rate: rate(Duration::from_nanos(1), 9), ..TrafficPolicy::default() });
    calm().await;
    world.heard.lock().unwrap().clear();
    let lost = world.call("put", &json!({"die": true})).await;
    assert!(matches!(lost, Err(Failed::Call(CallError::Closed(_)))), "{lost:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_left_alone_and_tried_again() {
    let breaker = BreakerPolicy { failures: 2, window: Span::secs(60), open_for: Span::secs(30) };
    let timeouts = vec![("write".to_owned(), Span::secs(1))];
    let policy = TrafficPolicy { breaker: Some(breaker), timeouts, ..TrafficPolicy::default() };
    let world = world(policy).await;
    let circuit = || world.entry.traffic.view().circuit;
    for _ in 0..5 {
        assert_eq!(world.call("fail", &json!({})).await.expect("a result")["isError"], true);
    }
    assert_eq!(circuit(), State::Closed, "errors of tools do not count");
    let began = tokio::time::Instant::now();
    for _ in 0..2 {
        let late = world.call("write", &json!({"hold": true})).await;
        assert!(matches!(late, Err(Failed::Call(CallError::TimedOut { .. }))), "{late:?}");
    }
    assert_eq!(began.elapsed().as_secs(), 2, "the tool has a time of its own");
    assert_eq!(circuit(), State::Open);
    let heard = world.heard();
    for door in 0..DOORS {
        let (status, after, body) = world.by_door(door, "read", &json!({})).await;
        assert_eq!((status, after), (503, Some(30)), "door {door}: {body}");
        assert!(body.to_string().contains("MCPO-G072"), "door {door}: {body}");
    }
    assert_eq!(world.heard(), heard);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(circuit(), State::HalfOpen);
    let late = world.call("write", &json!({"hold": true})).await;
    assert!(matches!(late, Err(Failed::Call(CallError::TimedOut { .. }))), "one tries: {late:?}");
    assert_eq!(circuit(), State::Open);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(world.call("read", &json!({})).await.is_ok());
    assert_eq!(circuit(), State::Closed);
    assert_eq!(world.entry.traffic.view().circuit_opened, 2);
}

#[tokio::test(start_paused = true)]
async fn sizes_hold_and_nothing_is_looked_at_where_nothing_is_asked_for() {
    let policy = TrafficPolicy {
        request_bytes_max: Some(100),
        response_bytes_max: Some(60),
        ..TrafficPolicy::default()
    };
    let world = world(policy).await;
    let heard = world.heard();
    for door in 0..DOORS {
        let (status, after, body) = world.by_door(door, "write", &json!({"x": "y".repeat(200)})).await;
        assert_eq!((status, after), (413, None), "door {door}: {body}");
        assert!(body.to_string().contains("MCPO-G073"), "door {door}: {body}");
    }
    assert_eq!(world.heard(), heard);
    world.set(TrafficPolicy { response_bytes_max: Some(20), ..TrafficPolicy::default() });
    for door in 0..DOORS {
        let (status, _, body) = world.by_door(door, "write", &json!({})).await;
        let want = [200, 200, 200, 200, 502, 200][door];
        assert_eq!(status, want, "door {door}: {body}");
        assert!(body.to_string().contains("over the limit"), "door {door}: {body}");
    }
    let who: Arc<str> = "x".into();
    let wanted = Wanted { method: "tools/call", params: None, tool: "write", who: &who, shared: true };
    world.set(TrafficPolicy::default());
    assert!(matches!(world.entry.admit(&wanted).await, Ok(Admitted::Go(None))));
    world.set(TrafficPolicy { at_once: at_once(1, 0), ..TrafficPolicy::default() });
    let list = Wanted { method: "tools/list", ..wanted };
    assert!(matches!(world.entry.admit(&list).await, Ok(Admitted::Go(None))), "lists are free");
    let (result, live) = ask_when_admitted(&world.entry, None, &wanted).await;
    assert!(live.is_some() && result.is_ok(), "{result:?}");
}
