//! Batches of messages to all servers.

use super::{BOTH, Client, Does, World, head, next, stream, whole};
use crate::mcp::wire::{BATCH_MESSAGES_MAX, BATCH_VERSION, Era};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

fn call(id: u64, tool: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool}})
}

fn request(id: u64, method: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": {"protocolVersion": BATCH_VERSION}})
}

fn notice(method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "method": method, "params": params})
}

impl Client<'_> {
    /// Status and answers by id.
    async fn batch(&self, messages: &[Value]) -> (StatusCode, BTreeMap<String, Value>) {
        let answer = self.post(&json!(messages)).await;
        let status = answer.status();
        if status == StatusCode::ACCEPTED {
            return (status, BTreeMap::new());
        }
        let (mut stream, mut answers) = (stream(answer), BTreeMap::new());
        while let Some(answer) = stream.recv().await {
            if answer.get("method").is_none() {
                assert!(answers.insert(answer["id"].to_string(), answer).is_none(), "answered twice");
            }
        }
        (status, answers)
    }
}

#[tokio::test(start_paused = true)]
async fn each_message_of_a_batch_is_answered_whatever_becomes_of_the_others() {
    let world = World::new(&BOTH);
    let client = world.open_as(BATCH_VERSION, &json!({})).await;
    let messages = [
        call(1, "a__write"),
        notice("notifications/roots/list_changed", json!({})),
        call(2, "b__write"),
        request(3, "tools/list"),
        request(4, "ping"),
        call(5, "nobody__write"),
        request(6, "tasks/list"),
        json!(7),
        request(8, "initialize"),
        json!({"jsonrpc": "2.0", "id": 99, "result": {}}),
    ];
    let (status, answers) = client.batch(&messages).await;
    assert_eq!(status, StatusCode::OK);
    let text = |id: &str| answers[id]["result"]["content"][0]["text"].clone();
    assert_eq!((text("1"), text("2")), (json!("a write"), json!("b write")));
    assert_eq!(answers["3"]["result"]["tools"].as_array().map(Vec::len), Some(4));
    assert_eq!(answers["4"]["result"], json!({}));
    let errors = ["5", "6", "null", "8"].map(|id| answers[id]["error"]["code"].clone());
    assert_eq!(errors, [-32602, -32601, -32600, -32600].map(Value::from));
    assert_eq!(answers.len(), 8, "{answers:?}");
    let heard = world.heard.lock().unwrap();
    let shakes = heard.iter().filter(|(_, message)| message["method"] == "initialize").count();
    assert!(shakes <= 1, "none in another's session: {shakes}");
}

#[tokio::test(start_paused = true)]
async fn what_wants_no_answer_gets_none_and_what_is_no_batch_is_refused() {
    let world = World::new(&BOTH);
    let client = world.open_as(BATCH_VERSION, &json!({})).await;
    let quiet = [
        notice("notifications/initialized", json!({})),
        notice("notifications/cancelled", json!({"requestId": 3})),
        json!({"jsonrpc": "2.0", "id": 99, "error": {"code": 1, "message": "no"}}),
    ];
    assert_eq!(client.batch(&quiet).await, (StatusCode::ACCEPTED, BTreeMap::new()));
    let many = |count: usize| (0..count).map(|id| request(id as u64, "ping")).collect::<Vec<_>>();
    let (status, answers) = client.batch(&many(BATCH_MESSAGES_MAX)).await;
    assert_eq!((status, answers.len()), (StatusCode::OK, BATCH_MESSAGES_MAX));
    let newer = world.open(&json!({})).await;
    let refused = [
        (&client, json!([])),
        (&client, json!(many(BATCH_MESSAGES_MAX + 1))),
        (&newer, json!([request(1, "ping")])),
    ];
    for (client, body) in refused {
        let answer = client.post(&body).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
        let answer = whole(answer).await;
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&Value::Null, &json!(-32600)), "{answer}");
    }
    let bare = head(None);
    let without = world.send(Method::POST, &bare, r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#).await;
    assert_eq!(without.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test(start_paused = true)]
async fn one_that_hangs_holds_up_none_of_its_batch_and_can_be_taken_back() {
    let world = World::new(&[("a", Era::Legacy, Does::Answer), ("b", Era::Legacy, Does::Hang)]);
    let client = world.open_as(BATCH_VERSION, &json!({})).await;
    let mut answers = stream(client.post(&json!([call(1, "b__write"), call(2, "a__write")])).await);
    assert_eq!(next(&mut answers).await["id"], 2);
    assert!(tokio::time::timeout(Duration::from_secs(5), answers.recv()).await.is_err(), "the other hangs");
    client.post(&notice("notifications/cancelled", json!({"requestId": 1}))).await;
    let cancelled = next(&mut answers).await;
    assert_eq!(cancelled["id"], 1);
    assert!(cancelled["error"].is_object(), "{cancelled}");
    assert_eq!(answers.recv().await, None, "and the stream is over");
    // Also from within: a batch is in order.
    let back = notice("notifications/cancelled", json!({"requestId": 3}));
    let (_, answers) = client.batch(&[call(3, "b__write"), back, call(4, "a__write")]).await;
    assert!(answers["3"]["error"].is_object() && answers["4"]["result"].is_object(), "{answers:?}");
    // The end of the session ends what is under way.
    let mut answers = stream(client.post(&json!([call(5, "b__write")])).await);
    world.send(Method::DELETE, &head(Some(&client.session)), "").await;
    assert_eq!(answers.recv().await, None);
}
