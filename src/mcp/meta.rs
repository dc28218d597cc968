//! Edits of `params._meta` in place.
//!
//! A progress token belongs to whoever chose it; on a connection shared by many callers it must be
//! replaced on the way out and restored, value and type, on the way back. Everything around it
//! stays as written.
//!
//! Must never touch any member but the one it names.

use crate::mcp::wire::{member, splice};
use serde_json::value::RawValue;

/// Metadata of a modern request: the version it speaks.
pub const VERSION_KEY: &str = "io.modelcontextprotocol/protocolVersion";
/// Metadata of a modern request: who asks.
pub const CLIENT_INFO_KEY: &str = "io.modelcontextprotocol/clientInfo";
/// Metadata of a modern request: what the asker can do.
pub const CLIENT_CAPABILITIES_KEY: &str = "io.modelcontextprotocol/clientCapabilities";
/// Metadata of a modern request: the least severe log message that it wants.
pub const LOG_LEVEL_KEY: &str = "io.modelcontextprotocol/logLevel";
/// Metadata of a modern notification: which subscription it belongs to.
pub const SUBSCRIPTION_KEY: &str = "io.modelcontextprotocol/subscriptionId";
/// Metadata of a modern result: who answered.
pub const SERVER_INFO_KEY: &str = "io.modelcontextprotocol/serverInfo";

const PROGRESS: &str = "progressToken";

/// The `_meta` of some params.
#[must_use]
pub fn meta(params: &RawValue) -> Option<&RawValue> {
    member(params, "_meta").filter(|meta| meta.get().starts_with('{'))
}

/// The token under which the sender of a request wants to hear of its progress.
#[must_use]
pub fn progress_token(params: &RawValue) -> Option<&RawValue> {
    member(meta(params)?, PROGRESS).filter(|token| token.get() != "null")
}

/// The params with `token` as progress token, replacing the one there or added.
#[must_use]
pub fn with_progress_token(params: Option<&RawValue>, token: u64) -> Option<Box<RawValue>> {
    with_meta(params, PROGRESS, &token.to_string())
}

/// The params with `_meta.<key>` set to the JSON text `value`; `None` when the params are no object
/// or hold a `_meta` that is none.
#[must_use]
pub fn with_meta(params: Option<&RawValue>, key: &str, value: &str) -> Option<Box<RawValue>> {
    let name = serde_json::to_string(key).ok()?;
    let Some(params) = params.filter(|params| params.get() != "null") else {
        return RawValue::from_string(format!(r#"{{"_meta":{{{name}:{value}}}}}"#)).ok();
    };
    let edited = match member(params, "_meta") {
        None => with_first(params.get(), r#""_meta""#, &format!("{{{name}:{value}}}"))?,
        Some(meta) => match member(meta, key) {
            Some(old) => splice(params.get(), old.get(), value)?,
            None => splice(params.get(), meta.get(), &with_first(meta.get(), &name, value)?)?,
        },
    };
    RawValue::from_string(edited).ok()
}

/// The token of a `notifications/progress`.
#[must_use]
pub fn notified_token(params: &RawValue) -> Option<&RawValue> {
    member(params, PROGRESS)
}

/// The params of a `notifications/progress` with its token replaced by `token`.
#[must_use]
pub fn with_notified_token(params: &RawValue, token: &RawValue) -> Option<Box<RawValue>> {
    let old = notified_token(params)?;
    RawValue::from_string(splice(params.get(), old.get(), token.get())?).ok()
}

/// An object's text with one more member in front.
fn with_first(object: &str, name: &str, value: &str) -> Option<String> {
    let rest = object.strip_prefix('{')?;
    let comma = if rest.trim_ascii_start().starts_with('}') { "" } else { "," };
    Some(format!("{{{name}:{value}{comma}{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).expect("json")
    }

    fn tokened(text: &str) -> Option<String> {
        with_progress_token(Some(&raw(text)), 9).map(|p| p.get().to_owned())
    }

    #[test]
    fn a_token_is_replaced_or_added_and_nothing_else() {
        for (before, after) in [
            ("{}", r#"{"_meta":{"progressToken":9}}"#),
            ("{ }", r#"{"_meta":{"progressToken":9} }"#),
            (r#"{"a":1.0}"#, r#"{"_meta":{"progressToken":9},"a":1.0}"#),
            (r#"{"a":1,"_meta":{}}"#, r#"{"a":1,"_meta":{"progressToken":9}}"#),
            (r#"{"_meta":{"x":1e2}, "a":2}"#, r#"{"_meta":{"progressToken":9,"x":1e2}, "a":2}"#),
            (
                r#"{"_meta":{"x":1, "progressToken" : "t\u00e9"}}"#,
                r#"{"_meta":{"x":1, "progressToken" : 9}}"#,
            ),
        ] {
            assert_eq!(tokened(before).as_deref(), Some(after), "{before}");
        }
        assert_eq!(tokened("[1]"), None);
        assert_eq!(tokened(r#"{"_meta":7}"#), None);
        assert_eq!(with_progress_token(None, 9).expect("made").get(), r#"{"_meta":{"progressToken":9}}"#);
    }

    #[test]
    fn a_token_keeps_its_type_on_the_way_back() {
        let params = raw(r#"{"progress":0.5,"progressToken":9,"total":1.0}"#);
        for (token, back) in
            [("\"9\"", "\"9\""), ("9.0", "9.0"), ("18446744073709551616", "18446744073709551616")]
        {
            let out = with_notified_token(&params, &raw(token)).expect("token");
            assert_eq!(out.get(), format!(r#"{{"progress":0.5,"progressToken":{back},"total":1.0}}"#));
        }
        assert_eq!(
            progress_token(&raw(r#"{"_meta":{"progressToken":"x"}}"#)).map(RawValue::get),
            Some("\"x\"")
        );
        assert!(
            progress_token(&raw(r#"{"progressToken":1,"arguments":{"_meta":{"progressToken":1}}}"#))
                .is_none()
        );
    }
}
