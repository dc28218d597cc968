//! Results that ask for input: how a modern server puts a request to its client.
//!
//! The server answers a call with a map of requests and an opaque state; the client sends the call
//! again with a map of answers and the same state. Between eras, such a map and a legacy server's
//! own requests are turned into each other; the requests' params and the answers pass as written.
//!
//! Must never read a state, nor show a client a request that it did not declare it can serve.

use crate::mcp::object::{edited, is_object, quoted, raw};
use crate::mcp::wire::{RpcError, each_member, member, text_of};
use serde_json::value::RawValue;

/// Requests or answers of one round that are looked at.
pub const ROUND_MAX: usize = 64;
/// Legacy only: the user must visit addresses first, then the call is to be sent again.
pub const URL_ELICITATION_REQUIRED: i64 = -32042;

const INPUT_REQUIRED: &str = r#""input_required""#;
const RESPONSES: &str = "inputResponses";
const STATE: &str = "requestState";

/// Answers of a client: the server's key and the result, as written.
pub type Answers = Vec<(String, Box<RawValue>)>;

/// One request of a server to its client.
#[derive(Clone, Debug)]
pub struct InputRequest {
    /// The server's name for it.
    pub key: String,
    /// Such as `elicitation/create`.
    pub method: String,
    /// As written.
    pub params: Option<Box<RawValue>>,
}

/// What a server asks for before it goes on.
#[derive(Clone, Debug, Default)]
pub struct InputRequired {
    /// In the server's order; entries that name no method are left out.
    pub requests: Vec<InputRequest>,
    /// To be sent back as written.
    pub state: Option<Box<RawValue>>,
}

/// Whether a server may answer this method with a result that asks for input.
#[must_use]
pub fn may_require_input(method: &str) -> bool {
    matches!(method, "tools/call" | "prompts/get" | "resources/read")
}

/// Whether a result asks for input.
#[must_use]
pub fn is_input_required(result: &RawValue) -> bool {
    member(result, "resultType").is_some_and(|kind| kind.get() == INPUT_REQUIRED)
}

/// Reads a result that asks for input; `None` for any other result.
#[must_use]
pub fn input_required(result: &RawValue) -> Option<InputRequired> {
    if !is_input_required(result) {
        return None;
    }
    let mut requests = Vec::new();
    if let Some(map) = member(result, "inputRequests") {
        // What is no object asks for nothing.
        let _no_object = each_member(map.get(), &mut |key, request| {
            let method = member(request, "method").and_then(text_of);
            if let Some(method) = method.filter(|_| requests.len() < ROUND_MAX) {
                let params = member(request, "params").map(ToOwned::to_owned);
                requests.push(InputRequest { key: key.into_owned(), method: method.into_owned(), params });
            }
        });
    }
    Some(InputRequired { requests, state: member(result, STATE).map(ToOwned::to_owned) })
}

/// A result that asks for input: requests as key, method and params, and the state to come back.
#[must_use]
pub fn input_required_result(
    requests: &[(String, &str, Option<&RawValue>)],
    state: Option<&str>,
    server_info: Option<&RawValue>,
) -> Box<RawValue> {
    let mut text = format!(r#"{{"resultType":{INPUT_REQUIRED}"#);
    if !requests.is_empty() {
        let map: Vec<String> =
            requests.iter().map(|(key, method, params)| entry(key, method, *params)).collect();
        text.push_str(&format!(r#","inputRequests":{{{}}}"#, map.join(",")));
    }
    if let Some(state) = state {
        text.push_str(&format!(r#","{STATE}":{}"#, quoted(state)));
    }
    if let Some(info) = server_info {
        let key = quoted(crate::mcp::meta::SERVER_INFO_KEY);
        text.push_str(&format!(r#","_meta":{{{key}:{}}}"#, info.get()));
    }
    text.push('}');
    raw(text)
}

fn entry(key: &str, method: &str, params: Option<&RawValue>) -> String {
    let (key, method) = (quoted(key), quoted(method));
    match params {
        Some(params) => format!(r#"{key}:{{"method":{method},"params":{}}}"#, params.get()),
        None => format!(r#"{key}:{{"method":{method}}}"#),
    }
}

/// What the params of a retry bring: answers by key, and the state. `None` when they bring neither.
#[must_use]
pub fn input_responses(params: Option<&RawValue>) -> Option<(Answers, Option<String>)> {
    let params = params?;
    let (map, state) = (member(params, RESPONSES), member(params, STATE));
    if map.is_none() && state.is_none() {
        return None;
    }
    let mut responses = Vec::new();
    if let Some(map) = map {
        // What is no object answers nothing; the call is then asked again.
        let _no_object = each_member(map.get(), &mut |key, response| {
            if responses.len() < ROUND_MAX {
                responses.push((key.into_owned(), response.to_owned()));
            }
        });
    }
    Some((responses, state.and_then(text_of).map(std::borrow::Cow::into_owned)))
}

/// The params of a retry: those of the call before, with these answers and this state. `None` when
/// the params are no object.
#[must_use]
pub fn with_input_responses(
    params: Option<&RawValue>,
    responses: &[(String, Box<RawValue>)],
    state: Option<&RawValue>,
) -> Option<Box<RawValue>> {
    let nothing = raw("{}".to_owned());
    let params = params.filter(|params| params.get() != "null").unwrap_or(&nothing);
    let map: Vec<String> =
        responses.iter().map(|(key, value)| format!("{}:{}", quoted(key), value.get())).collect();
    let map = format!("{{{}}}", map.join(","));
    let mut added = Vec::new();
    if !responses.is_empty() {
        added.push((RESPONSES, map.as_str()));
    }
    added.extend(state.map(|state| (STATE, state.get())));
    edited(params, &|key| matches!(key, RESPONSES | STATE), &added)
}

/// The capability that a client must have declared before a server may ask this of it.
#[must_use]
pub fn capability_of(method: &str) -> Option<&'static str> {
    match method {
        "sampling/createMessage" => Some("sampling"),
        "elicitation/create" => Some("elicitation"),
        "roots/list" => Some("roots"),
        _ => None,
    }
}

/// Whether a client with these capabilities can be asked this. Elicitation by address must be
/// declared as such; one by form is what a bare declaration means.
#[must_use]
pub fn can_be_asked(client_capabilities: &RawValue, method: &str, params: Option<&RawValue>) -> bool {
    let declared = capability_of(method).and_then(|name| member(client_capabilities, name));
    let Some(declared) = declared.filter(|declared| is_object(declared)) else { return false };
    if method != "elicitation/create" {
        return true;
    }
    let (form, url) = (member(declared, "form"), member(declared, "url"));
    let mode = params.and_then(|params| member(params, "mode")).and_then(text_of);
    match mode.as_deref() {
        Some("url") => url.is_some(),
        _ => form.is_some() || url.is_none(),
    }
}

/// The elicitations in a legacy server's error that wants addresses visited first, each the params
/// of an `elicitation/create`. `None` for any other error.
#[must_use]
pub fn url_elicitations(error: &RawValue) -> Option<Vec<Box<RawValue>>> {
    if RpcError::read(error).code != URL_ELICITATION_REQUIRED {
        return None;
    }
    let list = member(member(error, "data")?, "elicitations")?;
    let list: Vec<&RawValue> = serde_json::from_str(list.get()).ok()?;
    Some(list.into_iter().filter(|one| is_object(one)).take(ROUND_MAX).map(ToOwned::to_owned).collect())
}
