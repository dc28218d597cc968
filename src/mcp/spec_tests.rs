//! Golden messages: the shapes of revision 2026-07-28 and of 2025-11-25, member by member, as
//! written on the wire.

use crate::mcp::front::{Head, Refusal, check_modern};
use crate::mcp::input::{input_required, input_required_result, input_responses, with_input_responses};
use crate::mcp::listen::{acknowledged, closed, listen_filter, listen_params, tagged};
use crate::mcp::translate::{
    discover_result, modern_error, modern_result, with_modern_meta, without_modern_meta,
};
use crate::mcp::wire::{Message, read};
use serde_json::Value;
use serde_json::value::RawValue;

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).expect("json")
}

fn same(made: &str, golden: &str) {
    let read = |text: &str| serde_json::from_str::<Value>(text).expect("json");
    assert_eq!(read(made), read(golden));
}

/// A modern call as a client sends it.
const CALL: &str = r#"{
  "jsonrpc": "2.0",
  "id": "call-7",
  "method": "tools/call",
  "params": {
    "_meta": {
      "io.modelcontextprotocol/protocolVersion": "2026-07-28",
      "io.modelcontextprotocol/clientInfo": { "name": "client", "version": "3.1" },
      "io.modelcontextprotocol/clientCapabilities": { "elicitation": {} },
      "io.modelcontextprotocol/logLevel": "warning",
      "progressToken": "token-1"
    },
    "name": "book_room",
    "arguments": { "floor": 3 }
  }
}"#;

fn params(text: &str) -> Box<RawValue> {
    match read(text.as_bytes()) {
        Ok(Message::Request { params: Some(params), .. }) => params.to_owned(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_modern_call_becomes_a_legacy_one_and_back() {
    let call = params(CALL);
    let legacy = without_modern_meta(Some(&call)).expect("params");
    same(legacy.get(), r#"{"_meta":{"progressToken":"token-1"},"name":"book_room","arguments":{"floor":3}}"#);
    let (info, capabilities) = (raw(r#"{"name":"client","version":"3.1"}"#), raw(r#"{"elicitation":{}}"#));
    let back = with_modern_meta(Some(&legacy), "2026-07-28", Some(&info), &capabilities, Some("warning"));
    same(back.expect("params").get(), call.get());
}

#[test]
fn its_headers_are_checked() {
    let message = read(CALL.as_bytes()).expect("message");
    let head = Head {
        protocol_version: Some("2026-07-28"),
        mcp_method: Some("tools/call"),
        mcp_name: Some("book_room"),
        ..Head::default()
    };
    assert_eq!(check_modern(&head, &message).expect("let in").log_level.as_deref(), Some("warning"));
    let no = check_modern(&Head { mcp_name: Some("book_seat"), ..head }, &message).expect_err("refused");
    assert_eq!(no.status, 400);
    same(
        &no.body(Some(&raw(r#""call-7""#))),
        r#"{"jsonrpc":"2.0","id":"call-7","error":{"code":-32020,"message":"Mcp-Name header says 'book_seat' where the body says 'book_room'"}}"#,
    );
    // Where there is no id to answer to, there is no member for it either.
    same(
        &Refusal::new(403, -32600, "origin is not allowed").body(None),
        r#"{"jsonrpc":"2.0","error":{"code":-32600,"message":"origin is not allowed"}}"#,
    );
}

#[test]
fn a_legacy_handshake_becomes_a_discovery() {
    let initialized = r#"{
      "protocolVersion": "2025-11-25",
      "capabilities": {
        "logging": {}, "completions": {}, "prompts": { "listChanged": true },
        "resources": { "subscribe": true, "listChanged": true }, "tools": { "listChanged": true },
        "tasks": { "list": {}, "cancel": {}, "requests": { "tools": { "call": {} } } }
      },
      "serverInfo": { "name": "rooms", "title": "Rooms", "version": "9", "icons": [{ "src": "https://rooms.test/i.png" }] },
      "instructions": "Ask for a floor first."
    }"#;
    same(
        discover_result(&raw(initialized), 60_000).expect("object").get(),
        r#"{
          "resultType": "complete",
          "supportedVersions": ["2026-07-28"],
          "capabilities": {
            "logging": {}, "completions": {}, "prompts": { "listChanged": true },
            "resources": { "subscribe": true, "listChanged": true }, "tools": { "listChanged": true }
          },
          "_meta": {
            "io.modelcontextprotocol/serverInfo":
              { "name": "rooms", "title": "Rooms", "version": "9", "icons": [{ "src": "https://rooms.test/i.png" }] }
          },
          "instructions": "Ask for a floor first.",
          "ttlMs": 60000,
          "cacheScope": "private"
        }"#,
    );
}

#[test]
fn lists_and_errors_of_a_legacy_server() {
    let info = raw(r#"{"name":"rooms","version":"9"}"#);
    let list = raw(r#"{"tools":[{"name":"book_room","inputSchema":{"type":"object"}}],"nextCursor":"2"}"#);
    same(
        modern_result("tools/list", &list, Some(&info)).expect("object").get(),
        r#"{
          "resultType": "complete",
          "tools": [{ "name": "book_room", "inputSchema": { "type": "object" } }],
          "nextCursor": "2",
          "ttlMs": 0,
          "cacheScope": "private",
          "_meta": { "io.modelcontextprotocol/serverInfo": { "name": "rooms", "version": "9" } }
        }"#,
    );
    same(
        modern_error(
            "resources/read",
            &raw(r#"{"code":-32002,"message":"no such room","data":{"uri":"room:///9"}}"#),
        )
        .get(),
        r#"{"code":-32602,"message":"no such room","data":{"uri":"room:///9"}}"#,
    );
}

const ASKS: &str = r#"{
  "resultType": "input_required",
  "inputRequests": {
    "who": {
      "method": "elicitation/create",
      "params": {
        "mode": "form",
        "message": "Who comes?",
        "requestedSchema": { "type": "object", "properties": { "who": { "type": "string" } }, "required": ["who"] }
      }
    },
    "text": {
      "method": "sampling/createMessage",
      "params": {
        "messages": [{ "role": "user", "content": { "type": "text", "text": "Write an invitation." } }],
        "maxTokens": 50
      }
    },
    "dirs": { "method": "roots/list" }
  },
  "requestState": "opaque"
}"#;

#[test]
fn a_round_of_input() {
    let asked = input_required(&raw(ASKS)).expect("asks");
    let requests: Vec<(String, &str, Option<&RawValue>)> =
        asked.requests.iter().map(|r| (r.key.clone(), r.method.as_str(), r.params.as_deref())).collect();
    assert_eq!(requests.iter().map(|r| r.0.as_str()).collect::<Vec<_>>(), ["who", "text", "dirs"]);
    same(input_required_result(&requests, Some("opaque"), None).get(), ASKS);

    let answers = [
        ("who".to_owned(), raw(r#"{"action":"accept","content":{"who":"all"}}"#)),
        (
            "text".to_owned(),
            raw(
                r#"{"role":"assistant","content":{"type":"text","text":"Come!"},"model":"m","stopReason":"endTurn"}"#,
            ),
        ),
        ("dirs".to_owned(), raw(r#"{"roots":[{"uri":"file:///home"}]}"#)),
    ];
    let retry = with_input_responses(Some(&params(CALL)), &answers, asked.state.as_deref()).expect("params");
    let mut golden: Value = serde_json::from_str(params(CALL).get()).expect("json");
    golden["inputResponses"] = serde_json::json!({
        "who": {"action": "accept", "content": {"who": "all"}},
        "text": {"role": "assistant", "content": {"type": "text", "text": "Come!"}, "model": "m", "stopReason": "endTurn"},
        "dirs": {"roots": [{"uri": "file:///home"}]},
    });
    golden["requestState"] = "opaque".into();
    same(retry.get(), &golden.to_string());
    let (given, state) = input_responses(Some(&retry)).expect("retry");
    assert_eq!(given.len(), 3);
    assert_eq!(state.as_deref(), Some("opaque"));
}

#[test]
fn a_subscription_from_its_first_message_to_its_last() {
    let asked = r#"{"notifications":{"toolsListChanged":true,"resourceSubscriptions":["room:///3"]}}"#;
    let filter = listen_filter(Some(&raw(asked))).expect("filter");
    same(listen_params(&filter).get(), asked);
    let id = raw(r#""sub-1""#);
    same(
        &acknowledged(&id, &filter),
        r#"{
          "jsonrpc": "2.0",
          "method": "notifications/subscriptions/acknowledged",
          "params": {
            "_meta": { "io.modelcontextprotocol/subscriptionId": "sub-1" },
            "notifications": { "toolsListChanged": true, "resourceSubscriptions": ["room:///3"] }
          }
        }"#,
    );
    same(
        &tagged("notifications/resources/updated", Some(&raw(r#"{"uri":"room:///3"}"#)), &id),
        r#"{
          "jsonrpc": "2.0",
          "method": "notifications/resources/updated",
          "params": { "_meta": { "io.modelcontextprotocol/subscriptionId": "sub-1" }, "uri": "room:///3" }
        }"#,
    );
    same(
        &tagged("notifications/tools/list_changed", None, &raw("4")),
        r#"{
          "jsonrpc": "2.0",
          "method": "notifications/tools/list_changed",
          "params": { "_meta": { "io.modelcontextprotocol/subscriptionId": 4 } }
        }"#,
    );
    same(
        closed(&id).get(),
        r#"{"resultType":"complete","_meta":{"io.modelcontextprotocol/subscriptionId":"sub-1"}}"#,
    );
}
