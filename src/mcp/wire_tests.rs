//! What is a message, what is none, and what a change of ids leaves alone.

use crate::mcp::wire::*;
use proptest::prelude::*;
use serde_json::value::RawValue;

fn read_text(text: &str) -> Result<Message<'_>, BadMessage> {
    read(text.as_bytes())
}

fn refused(text: &str) -> BadMessage {
    match read_text(text) {
        Ok(message) => panic!("accepted {text}: {message:?}"),
        Err(why) => why,
    }
}

#[test]
fn the_four_kinds_are_told_apart() {
    let request = r#" {"params":{"a":1.0},"jsonrpc":"2.0","id":"x-1","method":"tools\/call"} "#;
    assert!(matches!(read_text(request), Ok(Message::Request { id, method, params: Some(p) })
        if id.get() == "\"x-1\"" && method == "tools/call" && p.get() == r#"{"a":1.0}"#));
    assert!(matches!(read_text(r#"{"jsonrpc":"2.0","method":"m"}"#),
        Ok(Message::Notification { method, params: None }) if method == "m"));
    assert!(matches!(read_text(r#"{"jsonrpc":"2.0","id":1.5,"result":null}"#),
        Ok(Message::Response { id, result }) if id.get() == "1.5" && result.get() == "null"));
    assert!(matches!(read_text(r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700}}"#),
        Ok(Message::Error { id: None, error }) if RpcError::read(error).code == -32700));
}

#[test]
fn what_is_no_message_is_refused_with_its_code() {
    for (text, why, code) in [
        ("", BadMessage::NotJson, PARSE_ERROR),
        ("{\"jsonrpc\":\"2.0\"", BadMessage::NotJson, PARSE_ERROR),
        ("{}{}", BadMessage::NotJson, PARSE_ERROR),
        ("7", BadMessage::NotAnObject, INVALID_REQUEST),
        ("[{}]", BadMessage::Batch, INVALID_REQUEST),
        ("[{", BadMessage::NotJson, PARSE_ERROR),
        ("{}", BadMessage::Version, INVALID_REQUEST),
        (r#"{"jsonrpc":2,"method":"m"}"#, BadMessage::Version, INVALID_REQUEST),
        (r#"{"jsonrpc":"2.0"}"#, BadMessage::Shape, INVALID_REQUEST),
        (r#"{"jsonrpc":"2.0","id":1,"method":"m","result":1}"#, BadMessage::Shape, INVALID_REQUEST),
        (r#"{"jsonrpc":"2.0","id":null,"method":"m"}"#, BadMessage::Id, INVALID_REQUEST),
        (r#"{"jsonrpc":"2.0","id":{},"method":"m"}"#, BadMessage::Id, INVALID_REQUEST),
        (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, BadMessage::Method, INVALID_REQUEST),
        (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"m"}"#, BadMessage::TwiceTheKey, INVALID_REQUEST),
        (r#"{"jsonrpc":"2.0","id":1,"\u0069d":2,"method":"m"}"#, BadMessage::TwiceTheKey, INVALID_REQUEST),
    ] {
        assert_eq!(refused(text), why, "{text}");
        assert_eq!(refused(text).code(), code, "{text}");
    }
    assert!(matches!(read(b"{\"a\":\"\xff\"}"), Err(BadMessage::NotUtf8)));
    assert_eq!(id_of(br#"{"id":7,"method":5}"#).map(RawValue::get), Some("7"));
}

#[test]
fn depth_costs_no_stack() {
    let deep =
        format!(r#"{{"jsonrpc":"2.0","id":1,"result":{}{}}}"#, "[".repeat(500_000), "]".repeat(500_000));
    assert!(matches!(read_text(&deep), Ok(Message::Response { .. })));
}

#[test]
fn a_splice_touches_only_its_part() {
    let text = r#"{ "id" : 7 , "jsonrpc":"2.0", "method":"m","x":[1.0,1e2] }"#;
    let Ok(Message::Request { id, .. }) = read_text(text) else { panic!("request") };
    let out = splice(text, id.get(), "\"own\"");
    assert_eq!(out.as_deref(), Some(r#"{ "id" : "own" , "jsonrpc":"2.0", "method":"m","x":[1.0,1e2] }"#));
    assert_eq!(splice(text, "7", "8"), None, "a part of another text");
}

#[test]
fn batches_are_taken_apart_within_bounds() {
    let parts = batch(br#"[{"a":1.0}, {"b":2}]"#).expect("batch");
    assert_eq!(parts.iter().map(|p| p.get()).collect::<Vec<_>>(), [r#"{"a":1.0}"#, r#"{"b":2}"#]);
    assert!(batch(b"[]").is_err());
    assert!(batch(format!("[{}1]", "1,".repeat(BATCH_MESSAGES_MAX)).as_bytes()).is_err());
}

#[test]
fn epochs_never_meet_and_stay_exact() {
    assert_eq!(first_id(0), 1);
    assert!(first_id(1_800_000_001) - first_id(1_800_000_000) > 1_000_000);
    assert!(first_id(4_000_000_000) < ID_MAX / 2);
    assert_eq!(first_id(u64::MAX), 1);
}

#[test]
fn own_ids_come_back_in_other_clothes() {
    let own = |text: &str| own_id(&RawValue::from_string(text.to_owned()).expect("json"));
    assert_eq!(
        (own("7"), own("7.0"), own("\"7\""), own("\"x\""), own("-7")),
        (Some(7), Some(7), Some(7), None, None)
    );
}

#[test]
fn an_id_is_found_at_either_end_of_a_line_too_long() {
    assert_eq!(id_at_the_ends(br#"{"jsonrpc":"2.0","id": 41,"result":{"#, b"xxx"), Some(41));
    assert_eq!(id_at_the_ends(br#"{"result":{"content":[{"#, br#"x"}]},"jsonrpc":"2.0","id":42}"#), Some(42));
    assert_eq!(id_at_the_ends(br#"{"result":{"a":{"id":1,"#, br#""x"}}}"#), None, "an inner id");
    assert_eq!(id_at_the_ends(br#"{"result":"{\"id\":1,"#, br#"\"id\":5}"}"#), None, "an id in a string");
    assert_eq!(id_at_the_ends(br#"{"id":12"#, b""), None, "cut within the number");
}

proptest! {
    /// What re-attaching stands on: no proper tail of a message is itself an object, so what is
    /// left of a half-read line can never be taken for a message.
    #[test]
    fn a_tail_of_an_object_is_no_object(
        keys in proptest::collection::vec("[{}:,\"\\\\a ]{0,6}", 1..5),
        values in proptest::collection::vec("[{}:,\"\\\\\\[\\]1 ]{0,8}", 1..5),
    ) {
        let map: serde_json::Map<String, serde_json::Value> =
            keys.into_iter().zip(values.into_iter().map(serde_json::Value::from)).collect();
        let text = serde_json::json!({"id": 1, "result": [map]}).to_string();
        for start in 1..text.len() {
            if let Some(tail) = text.get(start..) {
                prop_assert!(each_member(tail, &mut |_, _| {}).is_err(), "{tail}");
            }
        }
    }

    #[test]
    fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _any = read(&bytes);
        let _any = id_of(&bytes);
        let _any = batch(&bytes);
        let _any = id_at_the_ends(&bytes, &bytes);
    }
}
