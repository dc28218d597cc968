//! Requests of our own people: the command line and the panel.
//!
//! Must never try a call twice: it may have effects.

use crate::gateway::Gateway;
use crate::gateway::hub::Entry;
use crate::gateway::metrics::Timed;
use crate::gateway::slot::{self, Live, Unavailable};
use crate::mcp::wire::{Era, MODERN_LATEST};
use crate::mcp::{build, translate};
use crate::model::id::ServerId;
use crate::upstream::error::CallError;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Wait for one page of a list.
const LIST_WITHIN: Duration = Duration::from_secs(30);

/// Why a call gave no result.
#[derive(Clone, Debug)]
pub enum Failed {
    /// No server has this id.
    Unknown,
    /// It cannot be reached now.
    Unavailable(Unavailable),
    /// The call itself failed.
    Call(CallError),
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown => f.write_str("no server has this id"),
            Self::Unavailable(why) => write!(f, "{why}"),
            Self::Call(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for Failed {}

impl Gateway {
    pub(crate) async fn reach(&self, id: &ServerId) -> Result<(Arc<Entry>, Arc<Live>), Failed> {
        let entry = self.entry(id).ok_or(Failed::Unknown)?;
        let live = entry.slot.ready().await.map_err(Failed::Unavailable)?;
        Ok((entry, live))
    }

    /// Calls a tool over the shared connection; `arguments` go out as written.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn call_tool(
        &self,
        id: &ServerId,
        tool: &str,
        arguments: &RawValue,
    ) -> Result<Box<RawValue>, Failed> {
        let (entry, live) = self.reach(id).await?;
        let timeout = entry.slot.place().map_or(LIST_WITHIN, |place| place.timeout);
        let mut timed = Timed::start(&entry.metrics, "tools/call", tool);
        let params = build::call_params(tool, Some(arguments));
        let result = ask(&live, "tools/call", params.as_deref(), timeout).await;
        timed.done(result.is_ok(), result.as_ref().map_or(0, |result| result.get().len()));
        result.map_err(Failed::Call)
    }

    /// What a server says of itself and offers: its greeting, tools, prompts and resources, each as
    /// written.
    ///
    /// # Errors
    /// See [`Failed`]; lists that a server does not have are left out.
    pub async fn capabilities(&self, id: &ServerId) -> Result<Value, Failed> {
        let (_, live) = self.reach(id).await?;
        let greeting = live.leg.greeting();
        let info = greeting.server.as_ref().map(|server| server.raw.clone());
        let mut out = json!({
            "server": id,
            "era": match greeting.era { Era::Legacy => "legacy", Era::Modern => "modern" },
            "protocolVersion": greeting.version,
            "info": info,
        });
        for (method, key) in [
            ("tools/list", "tools"),
            ("prompts/list", "prompts"),
            ("resources/list", "resources"),
            ("resources/templates/list", "resourceTemplates"),
        ] {
            match list(&live, method, key).await {
                Ok(entries) => {
                    if let Value::Object(out) = &mut out {
                        out.insert(key.to_owned(), json!(entries));
                    }
                }
                Err(CallError::Rpc(_) | CallError::List(_)) => {}
                Err(error) => return Err(Failed::Call(error)),
            }
        }
        Ok(out)
    }
}

/// Every entry of a list of a server, in its own era.
pub(crate) async fn list(live: &Live, method: &str, key: &str) -> Result<Vec<Box<RawValue>>, CallError> {
    let modern = live.leg.greeting().era == Era::Modern;
    let dress = |params: Option<Box<RawValue>>| if modern { in_modern(params.as_deref()) } else { params };
    live.leg.list((method, key), dress, LIST_WITHIN).await
}

/// A request of ours in the server's own era.
pub(crate) async fn ask(
    live: &Live,
    method: &str,
    params: Option<&RawValue>,
    timeout: Duration,
) -> Result<Box<RawValue>, CallError> {
    if live.leg.greeting().era == Era::Legacy {
        return live.leg.request(method, params, timeout).await;
    }
    live.leg.request(method, in_modern(params).as_deref(), timeout).await
}

/// The params of a request of ours for a modern server: who we are, and that we can be asked nothing.
pub(crate) fn in_modern(params: Option<&RawValue>) -> Option<Box<RawValue>> {
    let us = slot::who_we_are();
    let client = RawValue::from_string(json!({"name": us.name, "version": us.version}).to_string()).ok();
    let none = RawValue::from_string("{}".to_owned()).ok()?;
    translate::with_modern_meta(params, MODERN_LATEST, client.as_deref(), &none, None)
}
