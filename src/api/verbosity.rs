//! How much is logged, as surfaces show and change it: `GET`, `PUT` and `DELETE /api/v1/log-level`.
//!
//! Must never know where log lines go.

use crate::api::problem::problem;
use crate::api::{Answered, Context, now, ok};
use crate::model::time::{Span, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use warp::http::StatusCode;

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// The level in force: a word or an expression.
    pub level: String,
    /// The level of the settings.
    pub configured: String,
    /// When the level in force ends and the settings' one holds again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// A level that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub why: String,
    /// What could be.
    pub hint: Option<String>,
}

/// Whoever decides how much is logged.
pub trait Verbosity: std::fmt::Debug + Send + Sync {
    /// What is said now.
    fn show(&self) -> View;
    /// Says this much, until `until` where it is given.
    ///
    /// # Errors
    /// When it is no level; nothing changes then.
    fn set(&self, level: &str, until: Option<Timestamp>, now: Timestamp) -> Result<View, Refused>;
    /// Says as much as the settings want.
    fn reset(&self) -> View;
}

/// What `PUT` takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Wanted {
    /// A word or a filter expression.
    level: String,
    /// It holds this many seconds.
    for_seconds: Option<u64>,
}

/// `GET`.
pub(super) fn show(context: &Context) -> Answered {
    view(&context.level.show())
}

/// `DELETE`.
pub(super) fn reset(context: &Context) -> Answered {
    view(&context.level.reset())
}

fn view(view: &View) -> Answered {
    let mut body = json!({ "schemaVersion": 1 });
    if let (serde_json::Value::Object(body), Ok(serde_json::Value::Object(view))) =
        (&mut body, serde_json::to_value(view))
    {
        body.extend(view);
    }
    ok(&body)
}

/// `PUT`.
pub(super) fn set(body: &[u8], context: &Context) -> Answered {
    let wanted: Wanted = match serde_json::from_slice(body) {
        Ok(wanted) => wanted,
        Err(error) => {
            let why = error.to_string();
            return problem(StatusCode::BAD_REQUEST, "MCPO-H400", "the body is not a log level", why);
        }
    };
    let until = wanted.for_seconds.map(|secs| now().after(Span::secs(secs)));
    match context.level.set(&wanted.level, until, now()) {
        Ok(now) => view(&now),
        Err(Refused { why, hint }) => {
            let detail = hint.map_or_else(|| why.clone(), |hint| format!("{why}; it takes {hint}"));
            problem(StatusCode::BAD_REQUEST, "MCPO-H005", "not a log level", detail)
        }
    }
}
