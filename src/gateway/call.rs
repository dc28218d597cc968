//! Requests of our own people: the command line and the panel.
//!
//! Must never try a call twice of its own accord: it may have effects. What `orchestrator.retry` asks for,
//! where that is safe, a [`crate::gateway::traffic::Pass`] says.

use crate::gateway::Gateway;
use crate::gateway::guard::LOCAL;
use crate::gateway::hub::Entry;
use crate::gateway::instances::{Found, Tried};
use crate::gateway::metrics::Timed;
use crate::gateway::origin::Origin;
use crate::gateway::slot::{self, Live, Unavailable};
use crate::gateway::traffic::denied::Denied;
use crate::gateway::traffic::{Admitted, Pass, Wanted};
use crate::mcp::wire::{Era, MODERN_LATEST};
use crate::mcp::{build, translate};
use crate::model::id::ServerId;
use crate::upstream::error::{CallError, CloseReason};
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
    /// It may not go now.
    Denied(Denied),
    /// The call itself failed.
    Call(CallError),
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown => f.write_str("no server has this id"),
            Self::Unavailable(why) => write!(f, "{why}"),
            Self::Denied(why) => write!(f, "{why}"),
            Self::Call(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for Failed {}

impl Gateway {
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
        let entry = self.entry(id).ok_or(Failed::Unknown)?;
        let entry = entry.least().unwrap_or(entry);
        let mut timed = Timed::start(&entry.metrics, "tools/call", tool);
        let params = build::call_params(tool, Some(arguments));
        let (who, params) = (Arc::from(LOCAL), params.as_deref());
        let wanted = Wanted { method: "tools/call", params, tool, who: &who, shared: true };
        let (result, _) = ask_when_admitted(&entry, None, &wanted).await;
        timed.done(result.is_ok(), result.as_ref().map_or(0, |result| result.get().len()));
        result
    }

    /// What a server or one of its instances says of itself and offers: its greeting, tools, prompts and resources, each as
    /// written.
    ///
    /// # Errors
    /// See [`Failed`]; lists that a server does not have are left out.
    pub async fn capabilities(&self, id: &ServerId) -> Result<Value, Failed> {
        let entry = self.entry(id).ok_or(Failed::Unknown)?;
        if let Some(kept) = self.kept_capabilities(&entry) {
            return Ok(kept);
        }
        // All of them offer the same; who names one wants to know that one.
        let live = match id.replica_number() {
            1 => entry.anywhere(None, 0).await.map(|(_, live)| live),
            _ => entry.slot.ready().await,
        };
        let live = live.map_err(Failed::Unavailable)?;
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
        // Told of last: reading the tools above may be what finds them.
        if let Value::Object(out) = &mut out {
            out.insert("problems".to_owned(), json!(entry.offered.problems()));
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

/// A request of one who only wants its answer: sent when it may go, and again where that is safe. With
/// the connection it went over, if it got so far. `from` is where it came from, when that was outside.
pub(crate) async fn ask_when_admitted(
    entry: &Arc<Entry>,
    from: Option<(&Arc<Gateway>, &Origin)>,
    wanted: &Wanted<'_>,
) -> (Result<Box<RawValue>, Failed>, Option<Arc<Live>>) {
    let mut pass = match entry.admit(wanted).await {
        Ok(Admitted::Go(pass)) => pass,
        Ok(Admitted::Kept(result)) => return (Ok(result), entry.any_live(None)),
        Err(denied) => return (Err(Failed::Denied(denied)), None),
    };
    let of_tool = pass.as_ref().and_then(|pass| pass.timeout);
    let mut tried = 0;
    loop {
        let (found, live) = match reach(entry, from, (&mut pass, tried)).await {
            Ok(found) => found,
            Err(why) => {
                let mut again = |error: &CallError| pass.as_mut().and_then(|pass| pass.again(error));
                let gone = matches!(why, Unavailable::Stopped(_));
                match again(&CallError::Unsent(CloseReason::LetGo)).filter(|_| !gone) {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => return (Err(Failed::Unavailable(why)), None),
                }
                continue;
            }
        };
        let within = of_tool.unwrap_or_else(|| entry.slot.place().map_or(LIST_WITHIN, |place| place.timeout));
        let answer = ask(&live, wanted.method, wanted.params, within).await;
        if let Err(error) = &answer
            && found.as_ref().is_some_and(|at| at.may_go_elsewhere(error, &mut tried))
        {
            continue;
        }
        let again = |error: &CallError| pass.as_mut().and_then(|pass| pass.again(error));
        if let Some(wait) = answer.as_ref().err().and_then(again) {
            tried = 0;
            tokio::time::sleep(wait).await;
            continue;
        }
        let answer = match pass {
            Some(pass) => pass.settle(answer),
            None => answer,
        };
        return (answer.map_err(Failed::Call), Some(live));
    }
}

/// The connection that a call goes over, of the instance whose circuit lets it pass where only that does.
pub(crate) async fn reach(
    entry: &Arc<Entry>,
    from: Option<(&Arc<Gateway>, &Origin)>,
    (pass, tried): (&mut Option<Box<Pass>>, Tried),
) -> Result<Found, Unavailable> {
    let let_in = pass.as_ref().map(|pass| pass.entry()).filter(|let_in| !Arc::ptr_eq(let_in, entry));
    if let Some(let_in) = let_in.filter(|let_in| tried & let_in.bit() == 0)
        && let Some(live) = let_in.slot.live()
    {
        return Ok((Some(Arc::clone(let_in)), live));
    }
    // What waited at the gate goes to whoever has least to do by now.
    let stays = !pass.as_ref().is_some_and(|pass| pass.may_go_elsewhere()) && tried & entry.bit() == 0;
    if stays
        && !entry.is_one()
        && entry.is_serving()
        && from.is_none_or(|(_, origin)| !entry.carries(origin))
        && let Some(live) = entry.slot.live()
    {
        entry.group.touch.used();
        return Ok((Some(Arc::clone(entry)), live));
    }
    let (found, live) = entry.anywhere(from, tried).await?;
    if let (Some(found), Some(pass)) = (&found, pass) {
        pass.goes_to(found, tried != 0);
    }
    Ok((found, live))
}

/// The params of a request of ours for a modern server: who we are, and that we can be asked nothing.
pub(crate) fn in_modern(params: Option<&RawValue>) -> Option<Box<RawValue>> {
    let us = slot::who_we_are();
    let client = RawValue::from_string(json!({"name": us.name, "version": us.version}).to_string()).ok();
    let none = RawValue::from_string("{}".to_owned()).ok()?;
    translate::with_modern_meta(params, MODERN_LATEST, client.as_deref(), &none, None)
}
