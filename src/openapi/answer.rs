//! What a tool answered, as an HTTP answer.
//!
//! | content | in the answer |
//! |---|---|
//! | structured, of a tool that declares it | as it is, in the place of all others |
//! | text | the JSON that it is, else a string |
//! | image, audio, a resource's bytes | a `data:` URL |
//! | a resource's text | as text |
//! | a link, and what is not known here | the object as it is |
//!
//! One piece is the answer itself, several are a list. Errors are `{"detail": …}`.
//!
//! Must never change a number, a key or the order of keys of what passes.

use crate::mcp::input;
use crate::mcp::translate::RESOURCE_NOT_FOUND;
use crate::mcp::wire::{
    INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR, RpcError, is_json, member, text_of,
};
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// A tool said that it failed.
pub const TOOL_FAILED: &str = "MCPO-G060";
/// The server's answer is none, or too long.
pub const UNUSABLE: &str = "MCPO-G066";
/// A tool asks its caller for input, which no HTTP caller can give.
pub const WANTS_INPUT: &str = "MCPO-G061";

/// An HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// JSON text.
    pub body: String,
}

impl Answer {
    /// An error: what is said under `detail`.
    #[must_use]
    pub fn error(status: u16, detail: &Value) -> Self {
        Self { status, body: json!({ "detail": detail }).to_string() }
    }

    /// An error with a message and a documented code.
    #[must_use]
    pub fn failed(status: u16, message: &str, code: &str) -> Self {
        Self::error(status, &json!({ "message": message, "code": code }))
    }
}

/// The answer to a call; `structured` when the tool declared what its answers look like.
#[must_use]
pub fn of_result(result: &RawValue, structured: bool) -> Answer {
    if input::is_input_required(result) {
        let message = "the tool asks its caller for input, which cannot be given over HTTP";
        return Answer::failed(501, message, WANTS_INPUT);
    }
    if !result.get().starts_with('{') {
        return Answer::failed(502, "the server's answer is no result of a tool", UNUSABLE);
    }
    let content = content(result);
    if member(result, "isError").is_some_and(|flag| flag.get() == "true") {
        return failed(result, &content);
    }
    let declared = member(result, "structuredContent").filter(|value| structured && value.get() != "null");
    if let Some(value) = declared {
        return Answer { status: 200, body: value.get().to_owned() };
    }
    let mut pieces: Vec<String> = content.iter().map(|piece| shown(piece)).collect();
    let body = match pieces.len() {
        1 => pieces.pop().unwrap_or_default(),
        _ => format!("[{}]", pieces.join(",")),
    };
    Answer { status: 200, body }
}

fn content(result: &RawValue) -> Vec<&RawValue> {
    member(result, "content").and_then(|list| serde_json::from_str(list.get()).ok()).unwrap_or_default()
}

fn kind(piece: &RawValue) -> String {
    member(piece, "type").and_then(text_of).unwrap_or_default().into_owned()
}

/// A tool's own error: its words, and what else it gave.
fn failed(result: &RawValue, content: &[&RawValue]) -> Answer {
    let texts: Vec<String> = content
        .iter()
        .filter(|piece| kind(piece) == "text")
        .filter_map(|piece| member(piece, "text").and_then(text_of).map(std::borrow::Cow::into_owned))
        .collect();
    let message =
        if texts.is_empty() { "the tool failed without a word".to_owned() } else { texts.join("\n") };
    let data = member(result, "structuredContent").filter(|value| value.get() != "null");
    let data = data.map_or_else(String::new, |data| format!(r#","data":{}"#, data.get()));
    let body = format!(r#"{{"detail":{{"message":{},"code":"{TOOL_FAILED}"{data}}}}}"#, Value::from(message));
    Answer { status: 500, body }
}

/// One piece of content as JSON text.
fn shown(piece: &RawValue) -> String {
    fn text<'a>(value: &'a RawValue, key: &str) -> Option<std::borrow::Cow<'a, str>> {
        member(value, key).and_then(text_of)
    }
    let data = |value: &RawValue, key: &str| {
        let media = text(value, "mimeType");
        let media = media.as_deref().unwrap_or("application/octet-stream");
        text(value, key).map(|data| quoted(&format!("data:{media};base64,{data}")))
    };
    let made = match kind(piece).as_str() {
        "text" => text(piece, "text").map(|text| said(&text)),
        "image" | "audio" => data(piece, "data"),
        "resource" => member(piece, "resource").and_then(|resource| match text(resource, "text") {
            Some(text) => Some(said(&text)),
            None => data(resource, "blob"),
        }),
        _ => None,
    };
    made.unwrap_or_else(|| piece.get().to_owned())
}

/// A text that is JSON stands for what it says.
fn said(text: &str) -> String {
    if is_json(text) { text.trim().to_owned() } else { quoted(text) }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// An error of the protocol.
#[must_use]
pub fn of_rpc_error(error: &RpcError) -> Answer {
    let status = match error.code {
        PARSE_ERROR | INVALID_REQUEST => 400,
        METHOD_NOT_FOUND | RESOURCE_NOT_FOUND => 404,
        INVALID_PARAMS => 422,
        _ => 500,
    };
    let data = member(&error.raw, "data").filter(|data| data.get() != "null");
    let data = data.map_or_else(String::new, |data| format!(r#","data":{}"#, data.get()));
    let body = format!(r#"{{"detail":{{"message":{}{data}}}}}"#, quoted(&error.message));
    Answer { status, body }
}

#[cfg(test)]
mod tests {
    use super::{Answer, of_result, of_rpc_error};
    use crate::mcp::wire::RpcError;
    use serde_json::value::RawValue;
    use serde_json::{Value, json};

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).expect("json")
    }

    fn answer(result: &Value) -> (u16, String) {
        let Answer { status, body } = of_result(&raw(&result.to_string()), false);
        serde_json::from_str::<Value>(&body).expect("JSON");
        (status, body)
    }

    fn text(text: &str) -> Value {
        json!({"type": "text", "text": text})
    }

    #[test]
    fn one_piece_is_the_answer_and_several_are_a_list() {
        for (content, body) in [
            (json!([text("hello")]), r#""hello""#),
            (
                json!([text(r#" {"b": 1.0, "a": 18446744073709551617}"#)]),
                r#"{"b": 1.0, "a": 18446744073709551617}"#,
            ),
            (json!([text("42")]), "42"),
            (json!([text("")]), r#""""#),
            (json!([text("a"), text("[1]")]), r#"["a",[1]]"#),
            (json!([]), "[]"),
            (
                json!([{"type": "image", "data": "aGk=", "mimeType": "image/png"}]),
                r#""data:image/png;base64,aGk=""#,
            ),
            (
                json!([{"type": "audio", "data": "aGk=", "mimeType": "audio/wav"}]),
                r#""data:audio/wav;base64,aGk=""#,
            ),
            (json!([{"type": "resource", "resource": {"uri": "a:b", "text": "{}"}}]), "{}"),
            (
                json!([{"type": "resource", "resource": {"uri": "a:b", "blob": "aGk="}}]),
                r#""data:application/octet-stream;base64,aGk=""#,
            ),
            (
                json!([{"type": "resource_link", "uri": "a:b", "name": "b"}]),
                r#"{"type":"resource_link","uri":"a:b","name":"b"}"#,
            ),
            (json!([{"type": "new", "x": 1}]), r#"{"type":"new","x":1}"#),
            (json!([{"type": "image"}]), r#"{"type":"image"}"#),
        ] {
            assert_eq!(answer(&json!({ "content": content })), (200, body.to_owned()), "{content}");
        }
        assert_eq!(answer(&json!({})), (200, "[]".to_owned()));
        assert_eq!(answer(&json!({"content": 7})), (200, "[]".to_owned()));
    }

    #[test]
    fn structured_content_is_the_answer_where_it_is_declared() {
        let result = raw(r#"{"content":[{"type":"text","text":"x"}],"structuredContent":{"b":1.0,"a":2}}"#);
        assert_eq!(of_result(&result, true).body, r#"{"b":1.0,"a":2}"#);
        assert_eq!(of_result(&result, false).body, r#""x""#);
        assert_eq!(of_result(&raw(r#"{"content":[],"structuredContent":null}"#), true).body, "[]");
    }

    #[test]
    fn errors_have_a_detail_with_the_tools_own_words() {
        let result = json!({"isError": true, "content": [text("no such \"zone\""), text("try UTC")]});
        let (status, body) = answer(&result);
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(status, 500);
        assert_eq!(body, json!({"detail": {"message": "no such \"zone\"\ntry UTC", "code": "MCPO-G060"}}));
        let (status, body) = answer(&json!({"isError": true, "structuredContent": {"why": 1.0}}));
        assert_eq!(status, 500);
        assert!(body.ends_with(r#""data":{"why":1.0}}}"#), "{body}");
        assert_eq!(answer(&json!({"resultType": "input_required", "inputRequests": {}})).0, 501);
    }

    #[test]
    fn errors_of_the_protocol_have_the_statuses_that_clients_know() {
        for (code, status) in [
            (-32700, 400),
            (-32600, 400),
            (-32601, 404),
            (-32002, 404),
            (-32602, 422),
            (-32603, 500),
            (-32042, 500),
            (7, 500),
        ] {
            let error = json!({"code": code, "message": "why", "data": [1.0]});
            let answer = of_rpc_error(&RpcError::read(&raw(&error.to_string())));
            assert_eq!(
                (answer.status, answer.body.as_str()),
                (status, r#"{"detail":{"message":"why","data":[1.0]}}"#)
            );
        }
    }
}
