//! Between the eras: what one server says, in the words of the other era's clients.
//!
//! Results and params are edited in their text. A member that both eras know passes as written; so
//! does every member that neither knows. What only one era has is added with the value that
//! promises least (nothing may be kept, nothing is shared between callers) or taken out.
//!
//! Server requests that a modern client answers with a retry are in [`crate::mcp::input`], change
//! notifications in [`crate::mcp::listen`].
//!
//! Must never change what a tool, a prompt or a resource returned.

use crate::mcp::front::known_method_modern;
use crate::mcp::input::is_input_required;
use crate::mcp::meta::{
    CLIENT_CAPABILITIES_KEY, CLIENT_INFO_KEY, LOG_LEVEL_KEY, SERVER_INFO_KEY, VERSION_KEY,
};
use crate::mcp::object::{edited, is_object, quoted, raw, with, without};
use crate::mcp::wire::{INVALID_PARAMS, MODERN_VERSIONS, RpcError, each_member, member};
use serde_json::value::RawValue;

/// What begins every metadata key of the protocol itself.
pub const PROTOCOL_PREFIX: &str = "io.modelcontextprotocol/";
/// Legacy only: no such resource.
pub const RESOURCE_NOT_FOUND: i64 = -32002;
/// Only who asked may keep an answer: what a server tells may depend on the caller.
const CACHE_SCOPE: &str = r#""private""#;
const COMPLETE: &str = r#""complete""#;
/// A legacy client insists on a name and a version.
const NAMELESS: &str = r#"{"name":"unknown","version":"unknown"}"#;

/// Whether results of this method say how long they may be kept.
#[must_use]
pub fn is_cacheable(method: &str) -> bool {
    matches!(
        method,
        "server/discover"
            | "tools/list"
            | "prompts/list"
            | "resources/list"
            | "resources/templates/list"
            | "resources/read"
    )
}

/// The result of `server/discover` for a legacy server, from its result of `initialize`.
///
/// Capabilities stay as written, without `tasks`, which the modern era has as an extension of
/// another shape. `None` when the result is no object.
#[must_use]
pub fn discover_result(initialize_result: &RawValue, ttl_ms: u64) -> Option<Box<RawValue>> {
    let given = Given::read(initialize_result)?;
    let capabilities = match given.capabilities {
        Some(capabilities) => without(capabilities, &|key| key == "tasks")?,
        None => raw("{}".to_owned()),
    };
    let versions: Vec<String> = MODERN_VERSIONS.iter().map(|version| quoted(version)).collect();
    let versions = format!("[{}]", versions.join(","));
    let meta = match (given.meta, given.server_info) {
        (Some(meta), Some(info)) => Some(with(meta, &[(SERVER_INFO_KEY, info.get())])?),
        (Some(meta), None) => Some(meta.to_owned()),
        (None, Some(info)) => Some(with(&raw("{}".to_owned()), &[(SERVER_INFO_KEY, info.get())])?),
        (None, None) => None,
    };
    let ttl = ttl_ms.to_string();
    let mut added = vec![
        ("resultType", COMPLETE),
        ("supportedVersions", versions.as_str()),
        ("capabilities", capabilities.get()),
        ("ttlMs", ttl.as_str()),
        ("cacheScope", CACHE_SCOPE),
    ];
    added.extend(meta.as_ref().map(|meta| ("_meta", meta.get())));
    let ours = |key: &str| {
        matches!(key, "protocolVersion" | "serverInfo" | "_meta")
            || added.iter().any(|(name, _)| *name == key)
    };
    edited(initialize_result, &ours, &added)
}

/// The result of `initialize` for a legacy client, from a modern server's result of
/// `server/discover`. `None` when that is no object.
#[must_use]
pub fn initialize_result(discover_result: &RawValue, version: &str) -> Option<Box<RawValue>> {
    let given = Given::read(discover_result)?;
    let told = given.meta.and_then(|meta| member(meta, SERVER_INFO_KEY)).or(given.server_info);
    let info = told.filter(|info| is_object(info)).map_or(NAMELESS, RawValue::get);
    let meta = match given.meta {
        Some(meta) => Some(without(meta, &|key| key.starts_with(PROTOCOL_PREFIX))?),
        None => None,
    };
    let version = quoted(version);
    let mut added = vec![
        ("protocolVersion", version.as_str()),
        ("capabilities", given.capabilities.map_or("{}", RawValue::get)),
        ("serverInfo", info),
    ];
    added.extend(meta.as_ref().filter(|meta| !is_empty(meta)).map(|meta| ("_meta", meta.get())));
    let modern = ["resultType", "supportedVersions", "ttlMs", "cacheScope", "_meta"];
    let gone = |key: &str| modern.contains(&key) || added.iter().any(|(name, _)| *name == key);
    edited(discover_result, &gone, &added)
}

#[derive(Default)]
struct Given<'a> {
    capabilities: Option<&'a RawValue>,
    server_info: Option<&'a RawValue>,
    meta: Option<&'a RawValue>,
}

impl<'a> Given<'a> {
    fn read(result: &'a RawValue) -> Option<Self> {
        let mut given = Self::default();
        each_member(result.get(), &mut |key, value| {
            let slot = match key.as_ref() {
                "capabilities" => &mut given.capabilities,
                "serverInfo" => &mut given.server_info,
                "_meta" => &mut given.meta,
                _ => return,
            };
            *slot = Some(value).filter(|value| is_object(value));
        })
        .ok()?;
        Some(given)
    }
}

fn is_empty(object: &RawValue) -> bool {
    object.get().strip_prefix('{').is_some_and(|rest| rest.trim_ascii_start() == "}")
}

/// A result as a modern client expects it: its type, how long it may be kept where results of
/// `method` say so, and who answered. What is there already stays. `None` when it is no object.
#[must_use]
pub fn modern_result(
    method: &str,
    result: &RawValue,
    server_info: Option<&RawValue>,
) -> Option<Box<RawValue>> {
    let (mut typed, mut aged, mut scoped, mut meta) = (None, false, false, None);
    each_member(result.get(), &mut |key, value| match key.as_ref() {
        "resultType" => typed = Some(value),
        "ttlMs" => aged = true,
        "cacheScope" => scoped = true,
        "_meta" => meta = Some(value),
        _ => {}
    })
    .ok()?;
    let complete = typed.is_none_or(|kind| kind.get() == COMPLETE);
    let hints = complete && is_cacheable(method);
    let identified = match (meta, server_info) {
        (_, None) => None,
        (None, Some(info)) => Some(format!("{{{}:{}}}", quoted(SERVER_INFO_KEY), info.get())),
        (Some(meta), Some(info)) if is_object(meta) && member(meta, SERVER_INFO_KEY).is_none() => {
            with(meta, &[(SERVER_INFO_KEY, info.get())]).map(|meta| meta.get().to_owned())
        }
        (Some(_), Some(_)) => None,
    };
    let mut added = Vec::new();
    if typed.is_none() {
        added.push(("resultType", COMPLETE));
    }
    if hints && !aged {
        added.push(("ttlMs", "0"));
    }
    if hints && !scoped {
        added.push(("cacheScope", CACHE_SCOPE));
    }
    added.extend(identified.as_deref().map(|meta| ("_meta", meta)));
    if added.is_empty() {
        return Some(result.to_owned());
    }
    let replaced = identified.is_some();
    edited(result, &|key| replaced && key == "_meta", &added)
}

/// A modern server's result for a legacy client: without its type, which legacy readers that know
/// every member of an empty result would refuse. `None` when it is no object, or asks for input.
#[must_use]
pub fn legacy_result(result: &RawValue) -> Option<Box<RawValue>> {
    if is_input_required(result) {
        return None;
    }
    without(result, &|key| key == "resultType")
}

/// A legacy server's error with the code that the modern era has for it; all else as written.
#[must_use]
pub fn modern_error(method: &str, error: &RawValue) -> Box<RawValue> {
    if method != "resources/read" || RpcError::read(error).code != RESOURCE_NOT_FOUND {
        return error.to_owned();
    }
    let code = INVALID_PARAMS.to_string();
    with(error, &[("code", &code)]).unwrap_or_else(|| error.to_owned())
}

/// The params of a modern request for a legacy server: without the protocol's own metadata and
/// without what belongs to a retry. Progress token, trace context and vendors' keys stay.
#[must_use]
pub fn without_modern_meta(params: Option<&RawValue>) -> Option<Box<RawValue>> {
    let params = params?;
    let meta = member(params, "_meta").filter(|meta| is_object(meta));
    let kept = meta.and_then(|meta| without(meta, &|key| key.starts_with(PROTOCOL_PREFIX)));
    let kept = kept.filter(|meta| !is_empty(meta));
    let added: Vec<(&str, &str)> = kept.iter().map(|meta| ("_meta", meta.get())).collect();
    let gone =
        |key: &str| matches!(key, "inputResponses" | "requestState") || (key == "_meta" && meta.is_some());
    edited(params, &gone, &added).or_else(|| Some(params.to_owned()))
}

/// The params of a request for a modern server, saying who asks, as what and in which version.
/// `None` when the params are no object or hold a `_meta` that is none.
#[must_use]
pub fn with_modern_meta(
    params: Option<&RawValue>,
    version: &str,
    client_info: Option<&RawValue>,
    client_capabilities: &RawValue,
    log_level: Option<&str>,
) -> Option<Box<RawValue>> {
    let (version, level) = (quoted(version), log_level.map(quoted));
    let mut fields = vec![(VERSION_KEY, version.as_str())];
    fields.extend(client_info.map(|info| (CLIENT_INFO_KEY, info.get())));
    fields.push((CLIENT_CAPABILITIES_KEY, client_capabilities.get()));
    fields.extend(level.as_deref().map(|level| (LOG_LEVEL_KEY, level)));
    let nothing = raw("{}".to_owned());
    let params = params.filter(|params| params.get() != "null").unwrap_or(&nothing);
    let meta = member(params, "_meta").unwrap_or(&nothing);
    let ours = [VERSION_KEY, CLIENT_INFO_KEY, CLIENT_CAPABILITIES_KEY, LOG_LEVEL_KEY];
    let meta = edited(meta, &|key| ours.contains(&key), &fields)?;
    with(params, &[("_meta", meta.get())])
}

/// Whether a notification of a legacy server has a meaning for modern clients.
#[must_use]
pub fn known_notification_modern(method: &str) -> bool {
    !matches!(
        method,
        "notifications/initialized"
            | "notifications/roots/list_changed"
            | "notifications/elicitation/complete"
            | "notifications/tasks/status"
    ) && known_method_modern(method)
}
