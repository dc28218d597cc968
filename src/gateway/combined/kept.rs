//! Sessions with all servers over a restart of this process: what is kept of them, and what is taken up again.
//!
//! What stands below a session is opened anew with the first request for each server, so it is enough to
//! keep the session itself. One with an instance of the client's own below it ends with this process: that
//! instance does, and what its server knew of the client with it. What was subscribed to is subscribed to
//! again when the client first comes back, whether it asks for something or only listens.
//!
//! Must never let a client hear of a session that is not kept yet.

use crate::gateway::combined::{All, below, route};
use crate::gateway::flow::Out;
use crate::gateway::legacy;
use crate::gateway::sessions::{Backing, Session, hex};
use crate::mcp::front::Head;
use crate::mcp::wire::{member, text_of};
use crate::model::session::SessionChange;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::Duration;

const SUBSCRIBE: &str = "resources/subscribe";
/// What cannot be subscribed to again now is tried again after this time.
const AGAIN_EVERY: Duration = Duration::from_secs(5);
/// And so many times: after that its server is not expected back.
const AGAIN_MAX: usize = 60;

/// Keeps a new session; returns when it is kept.
pub(super) async fn begin(all: &All<'_>, session: &Session) {
    all.gateway.keep_now(SessionChange::Put(session.record())).await;
}

/// A session was opened below: one that stands on an instance of the client's own cannot be opened anew.
pub(super) async fn opened_below(all: &All<'_>, above: &Session, below: &Session) {
    if matches!(below.backing, Backing::Dedicated(..)) && above.is_kept() {
        above.forget_at_the_end();
        all.gateway.keep_now(SessionChange::Remove(hex(&above.hash))).await;
    }
}

/// Notes what a client subscribes to, under its name among all.
pub(super) fn note(all: &All<'_>, session: &Session, method: &str, params: Option<&RawValue>) {
    let subscribes = match method {
        SUBSCRIBE => true,
        "resources/unsubscribe" => false,
        _ => return,
    };
    let Some(uri) = params.and_then(|params| member(params, "uri")).and_then(text_of) else { return };
    let changed = if subscribes {
        session.subscribe(&uri)
    } else {
        session.unsubscribe(&uri);
        true
    };
    if changed {
        all.gateway.keep_session(session);
    }
}

/// Takes up what a restart took from a session, once; nobody waits for it.
pub(super) fn resume(all: &All<'_>, session: &Arc<Session>) {
    let lost = session.take_lost();
    if lost.is_empty() {
        return;
    }
    let (gateway, view, session) = (Arc::clone(all.gateway), all.view.clone(), Arc::clone(session));
    let (principal, origin, grant) = (Arc::clone(all.principal), all.origin.clone(), Arc::clone(all.grant));
    tokio::spawn(async move {
        let head = Head::default();
        let all = All {
            gateway: &gateway,
            view: &view,
            head: &head,
            principal: &principal,
            origin: &origin,
            grant: &grant,
            body: &[],
        };
        tokio::select! {
            () = session.over() => {}
            () = subscribe_all(&all, &session, lost) => {}
        }
    });
}

async fn subscribe_all(all: &All<'_>, session: &Arc<Session>, lost: impl IntoIterator<Item = String>) {
    let mut left: Vec<String> = lost.into_iter().collect();
    for _ in 0..AGAIN_MAX {
        let mut failed = Vec::new();
        for uri in left {
            if session.is_subscribed(&uri) && !subscribed(all, session, &uri).await {
                failed.push(uri);
            }
        }
        if failed.is_empty() {
            return;
        }
        left = failed;
        tokio::time::sleep(AGAIN_EVERY).await;
    }
}

/// Subscribes to one resource; false when its server cannot be asked now.
async fn subscribed(all: &All<'_>, session: &Arc<Session>, uri: &str) -> bool {
    let text = format!(r#"{{"uri":{}}}"#, serde_json::Value::from(uri));
    let Ok(params) = RawValue::from_string(text) else { return true };
    let Ok(routed) = route::route(all, SUBSCRIBE, Some(&params)).await else { return false };
    let Ok(below) = below::of(all, session, &routed).await else { return false };
    let id = below.ask_id();
    match legacy::begin(&all.ask(&routed), &below, &id, SUBSCRIBE, Some(&routed.params)).await {
        Ok((mut flow, guard)) => {
            while !matches!(flow.next().await, Out::Answer(..) | Out::Busy(..)) {}
            drop(guard);
            true
        }
        // Answered here: the server knows already.
        Err(Out::Answer(200, _)) => true,
        Err(_) => false,
    }
}
