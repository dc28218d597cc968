//! What the demo server answers, whatever the transport.
//!
//! ```text
//! request                          answered
//! initialize                       always: legacy, the asked version if known, else the latest
//! ping                             always, unless it carries modern metadata
//! with modern metadata             on its own; -32602 without capabilities, -32022 with a version
//!                                  that is not ours
//! server/discover without it       -32602
//! anything else                    after initialize; before it, -32600
//! unknown method                   -32601
//! ```
//!
//! Must never depend on anything but the request and whether a handshake was made.

use crate::cli::demo_server::Stop;
use crate::cli::demo_server::tools::{self, Outcome, Tool};
use crate::mcp::build;
use crate::mcp::meta::{self, CLIENT_CAPABILITIES_KEY, SERVER_INFO_KEY, VERSION_KEY};
use crate::mcp::wire::{
    Era, INVALID_PARAMS, INVALID_REQUEST, LEGACY_LATEST, LEGACY_VERSIONS, METHOD_NOT_FOUND, MODERN_VERSIONS,
    UNSUPPORTED_VERSION, member, text_of,
};
use crate::model::time::Timestamp;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// What our lists and our description of ourselves are good for.
const TTL_MS: u64 = 3_600_000;
const NAME: &str = "mcp-orchestrator-demo";
const INSTRUCTIONS: &str = "A server to try things with: time, echo, add, slow, lookup, fail.";

/// What becomes of a request.
#[derive(Debug)]
pub enum Begun {
    /// Answered already.
    Answered(String),
    /// Answered, and a legacy handshake is made.
    Initialized(String),
    /// A call to run.
    Call(Job),
}

/// A tool call that was accepted.
#[derive(Debug)]
pub struct Job {
    id: Box<RawValue>,
    era: Era,
    tool: Tool,
    arguments: Value,
    token: Option<Box<RawValue>>,
}

/// A refusal: code, message, data.
type Refusal = (i64, String, Option<Value>);

/// Begins a request. `initialized`: a legacy handshake was made, or the transport needs none.
#[must_use]
pub fn begin(id: &RawValue, method: &str, params: Option<&RawValue>, initialized: bool) -> Begun {
    let begun = era_of(method, params, initialized).and_then(|era| match (method, era) {
        ("initialize", Era::Legacy) => Ok(Begun::Initialized(result(id, &initialize(params)))),
        ("ping", Era::Legacy) => Ok(Begun::Answered(result(id, &json!({})))),
        ("server/discover", Era::Modern) => Ok(Begun::Answered(result(id, &discover()))),
        ("tools/list", era) => Ok(Begun::Answered(result(id, &list(era)))),
        ("tools/call", era) => call(id, params, era).map(Begun::Call),
        _ => Err((METHOD_NOT_FOUND, format!("no such method: {method}"), None)),
    });
    begun.unwrap_or_else(|refusal| Begun::Answered(refused(id, refusal)))
}

/// Whether a request speaks the modern era.
#[must_use]
pub fn is_modern(params: Option<&RawValue>) -> bool {
    params.and_then(meta::meta).is_some_and(|meta| member(meta, VERSION_KEY).is_some())
}

fn era_of(method: &str, params: Option<&RawValue>, initialized: bool) -> Result<Era, Refusal> {
    let meta = params.and_then(meta::meta);
    if let Some(meta) = meta
        && let Some(version) = member(meta, VERSION_KEY)
    {
        let asked = text_of(version).unwrap_or_default();
        if !MODERN_VERSIONS.contains(&&*asked) {
            let data = json!({"supported": supported(), "requested": asked});
            return Err((UNSUPPORTED_VERSION, "unsupported protocol version".to_owned(), Some(data)));
        }
        if member(meta, CLIENT_CAPABILITIES_KEY)
            .is_none_or(|capabilities| !capabilities.get().starts_with('{'))
        {
            let message = format!("params._meta lacks {CLIENT_CAPABILITIES_KEY}");
            return Err((INVALID_PARAMS, message, None));
        }
        return Ok(Era::Modern);
    }
    match method {
        "server/discover" => Err((INVALID_PARAMS, format!("params._meta lacks {VERSION_KEY}"), None)),
        "initialize" | "ping" => Ok(Era::Legacy),
        _ if initialized => Ok(Era::Legacy),
        _ => Err((INVALID_REQUEST, "connection is not initialized".to_owned(), None)),
    }
}

fn supported() -> Vec<&'static str> {
    MODERN_VERSIONS.iter().rev().chain(LEGACY_VERSIONS.iter().rev()).copied().collect()
}

fn server_info() -> Value {
    json!({"name": NAME, "title": "Demo server", "version": env!("CARGO_PKG_VERSION")})
}

fn initialize(params: Option<&RawValue>) -> Value {
    let asked =
        params.and_then(|params| member(params, "protocolVersion")).and_then(text_of).unwrap_or_default();
    let version = LEGACY_VERSIONS.into_iter().find(|known| *known == asked).unwrap_or(LEGACY_LATEST);
    json!({
        "protocolVersion": version,
        "capabilities": {"tools": {"listChanged": false}},
        "serverInfo": server_info(),
        "instructions": INSTRUCTIONS,
    })
}

fn discover() -> Value {
    cacheable(json!({
        "supportedVersions": supported(),
        "capabilities": {"tools": {"listChanged": false}},
        "instructions": INSTRUCTIONS,
    }))
}

fn list(era: Era) -> Value {
    let result = json!({"tools": tools::described()});
    match era {
        Era::Legacy => result,
        Era::Modern => cacheable(result),
    }
}

/// A modern result that may be kept for a while, by anybody.
fn cacheable(mut result: Value) -> Value {
    set(&mut result, "ttlMs", json!(TTL_MS));
    set(&mut result, "cacheScope", json!("public"));
    modern(result)
}

fn modern(mut result: Value) -> Value {
    set(&mut result, "resultType", json!("complete"));
    let info: Map<String, Value> = [(SERVER_INFO_KEY.to_owned(), server_info())].into_iter().collect();
    set(&mut result, "_meta", Value::Object(info));
    result
}

fn set(object: &mut Value, key: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(key.to_owned(), value);
    }
}

fn call(id: &RawValue, params: Option<&RawValue>, era: Era) -> Result<Job, Refusal> {
    let invalid = |message: String| (INVALID_PARAMS, message, None);
    let name = params.and_then(|params| member(params, "name")).and_then(text_of);
    let name = name.ok_or_else(|| invalid("params.name is missing".to_owned()))?;
    let tool = Tool::named(&name).ok_or_else(|| invalid(format!("no such tool: {name}")))?;
    let arguments = params.and_then(|params| member(params, "arguments"));
    let arguments = match arguments {
        Some(arguments) => serde_json::from_str(arguments.get())
            .map_err(|_too_deep| invalid("params.arguments is unreadable".to_owned()))?,
        None => json!({}),
    };
    let token = params.and_then(meta::progress_token).map(ToOwned::to_owned);
    Ok(Job { id: id.to_owned(), era, tool, arguments, token })
}

impl Job {
    /// Whether it is done at once.
    #[must_use]
    pub const fn is_quick(&self) -> bool {
        self.tool.is_quick()
    }

    /// Runs it; `None` when it was told to stop: nobody waits for its answer.
    #[must_use]
    pub fn run(&self, now: Timestamp, stop: &Stop, say: &dyn Fn(String)) -> Option<String> {
        let progress = |done: u64, total: u64| {
            if let Some(token) = &self.token {
                let line = format!(
                    r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":{done},"total":{total}}}}}"#
                );
                say(line);
            }
        };
        let outcome = match self.tool.run(&self.arguments, now, stop, &progress) {
            Outcome::Stopped => return None,
            Outcome::Done { text, structured: None } => json!({"content": [{"type": "text", "text": text}]}),
            Outcome::Done { text, structured: Some(structured) } => {
                json!({"content": [{"type": "text", "text": text}], "structuredContent": structured})
            }
            Outcome::Failed(text) => json!({"content": [{"type": "text", "text": text}], "isError": true}),
        };
        let outcome = match self.era {
            Era::Legacy => outcome,
            Era::Modern => modern(outcome),
        };
        Some(result(&self.id, &outcome))
    }
}

fn result(id: &RawValue, result: &Value) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

fn refused(id: &RawValue, (code, message, data): Refusal) -> String {
    match data {
        None => build::error(Some(id), code, &message),
        Some(data) => {
            let error = json!({"code": code, "message": message, "data": data});
            format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)
        }
    }
}
