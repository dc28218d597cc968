//! Subscriptions whose connection is replaced, against played servers.

use crate::gateway::Gateway;
use crate::gateway::metrics::{ServerMetrics, Timed};
use crate::gateway::modern::relay::Relay;
use crate::gateway::places::{Down, Place};
use crate::gateway::played::{Act, Played, RETRY, Stage, events, id, place, shared};
use crate::gateway::slot::{Live, Slot};
use crate::gateway::streams::{Greeting, Stream, StreamKind};
use crate::mcp::wire::Era;
use crate::world::fake::FakeSessions;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

const SUBSCRIPTION: &str = "/params/_meta/io.modelcontextprotocol~1subscriptionId";

struct Bench {
    _gateway: Arc<Gateway>,
    slot: Arc<Slot>,
    on_stage: mpsc::UnboundedReceiver<Played>,
    heard: mpsc::UnboundedReceiver<Value>,
    stream: Arc<Stream>,
}

impl Bench {
    /// A client that listens at a server, and the server.
    async fn new(rest: Act) -> (Self, Played, Value) {
        let (stage, mut on_stage) = Stage::new(&[Act::Serve(Era::Modern)], rest);
        let gateway = Gateway::new(shared(&stage), Arc::new(FakeSessions::default()), [7; 32]);
        gateway.set_places(&[(id("a"), place("one", RETRY))].into());
        let entry = gateway.entry(&id("a")).expect("a server");
        let slot = Arc::clone(&entry.slot);
        let live: Arc<Live> = slot.ready().await.expect("up");
        let mut played = on_stage.recv().await.expect("a server");
        let stream = Stream::unstored(StreamKind::Get);
        let heard = events(stream.body(Greeting::None));
        let params = r#"{"notifications":{"toolsListChanged":true,"promptsListChanged":true}}"#;
        let relay = Relay {
            entry,
            id: RawValue::from_string(r#""mine""#.to_owned()).expect("JSON"),
            params: RawValue::from_string(params.to_owned()).ok(),
            stream: Arc::clone(&stream),
            timed: Timed::start(&ServerMetrics::of(&id("a")), "subscriptions/listen", ""),
        };
        tokio::spawn(relay.run(live));
        let asked = subscription(&mut played).await;
        (Self { _gateway: gateway, slot, on_stage, heard, stream }, played, asked)
    }

    async fn hears(&mut self) -> Value {
        self.heard.recv().await.expect("an event")
    }

    /// The next server that comes on stage, and the subscription it is asked for.
    async fn next(&mut self) -> (Played, Value) {
        let mut played = self.on_stage.recv().await.expect("a server");
        let asked = subscription(&mut played).await;
        (played, asked)
    }
}

/// The client's subscription; the gateway has its own there.
async fn subscription(played: &mut Played) -> Value {
    loop {
        let asked = played.hear("subscriptions/listen").await;
        if asked.pointer("/params/notifications/promptsListChanged").is_some() {
            return asked;
        }
    }
}

/// A server's words on a subscription that was asked for with `asked`.
fn notice(asked: &Value, method: &str, params: &Value) -> Value {
    let mut params = params.clone();
    params["_meta"] = json!({"io.modelcontextprotocol/subscriptionId": asked["id"]});
    json!({"jsonrpc": "2.0", "method": method, "params": params})
}

fn acknowledge(played: &Played, asked: &Value) {
    let granted = json!({"notifications": {"toolsListChanged": true}});
    played.tell(&notice(asked, "notifications/subscriptions/acknowledged", &granted));
}

#[tokio::test(start_paused = true)]
async fn it_goes_on_over_another_connection_and_says_that_lists_may_have_changed() {
    let (mut bench, first, asked) = Bench::new(Act::Serve(Era::Modern)).await;
    acknowledge(&first, &asked);
    let told = bench.hears().await;
    assert_eq!(told["method"], "notifications/subscriptions/acknowledged");
    assert_eq!(told.pointer(SUBSCRIPTION), Some(&json!("mine")));
    first.tell(&notice(&asked, "notifications/tools/list_changed", &json!({"n": 1})));
    assert_eq!(bench.hears().await.pointer("/params/n"), Some(&json!(1)));
    // It dies; its successor is subscribed to, which its client need not know.
    drop(first);
    let (mut second, asked) = bench.next().await;
    assert_eq!(asked.pointer("/params/notifications/promptsListChanged"), Some(&json!(true)));
    acknowledge(&second, &asked);
    let told = bench.hears().await;
    assert_eq!(told["method"], "notifications/tools/list_changed", "what was granted, once");
    assert_eq!(told.pointer(SUBSCRIPTION), Some(&json!("mine")));
    second.tell(&notice(&asked, "notifications/tools/list_changed", &json!({"n": 2})));
    assert_eq!(bench.hears().await.pointer("/params/n"), Some(&json!(2)));
    // The server is replaced: the new one is listened to before the old one ends.
    bench.slot.set_place(place("two", RETRY));
    let before = asked;
    let (third, asked) = bench.next().await;
    while second.hear("notifications/cancelled").await["params"]["requestId"] != before["id"] {}
    acknowledge(&third, &asked);
    assert_eq!(bench.hears().await["method"], "notifications/tools/list_changed");
    // And its own end is the end.
    third.answer(&asked, &json!({"resultType": "complete", "x": 1}));
    assert_eq!(
        bench.hears().await,
        json!({"jsonrpc": "2.0", "id": "mine", "result": {"resultType": "complete", "x": 1}})
    );
    assert!(bench.heard.recv().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn where_no_connection_is_to_come_it_ends_in_good_order() {
    for legacy in [false, true] {
        let (mut bench, first, asked) = Bench::new(Act::Serve(Era::Legacy)).await;
        acknowledge(&first, &asked);
        bench.hears().await;
        if legacy {
            bench.slot.set_place(place("two", RETRY));
        } else {
            let stopped = Down::Stopped("stopped by hand".to_owned());
            let down = Place { down: Some(stopped), ..(*place("one", RETRY)).clone() };
            bench.slot.set_place(Arc::new(down));
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert!(bench.heard.try_recv().is_err(), "one that was stopped may be started again");
            bench.slot.close();
        }
        let last = bench.hears().await;
        assert_eq!(
            (&last["id"], &last["result"]["resultType"]),
            (&json!("mine"), &json!("complete")),
            "{last}"
        );
        assert!(bench.heard.recv().await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_passed_on_and_a_client_that_goes_away_has_cancelled() {
    let (mut bench, first, asked) = Bench::new(Act::Serve(Era::Modern)).await;
    let error = json!({"code": -32602, "message": "no such notification", "data": {"x": 1}});
    first.tell(&json!({"jsonrpc": "2.0", "id": asked["id"], "error": error}));
    assert_eq!(bench.hears().await, json!({"jsonrpc": "2.0", "id": "mine", "error": error}));
    assert!(bench.heard.recv().await.is_none());

    let (mut bench, mut first, asked) = Bench::new(Act::Serve(Era::Modern)).await;
    acknowledge(&first, &asked);
    bench.hears().await;
    bench.stream.disconnect();
    let cancelled = first.hear("notifications/cancelled").await;
    assert_eq!(cancelled["params"]["requestId"], asked["id"]);
}
