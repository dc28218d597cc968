//! Sessions below one client's session with all servers: one for each server it uses.
//!
//! A session below is one like any other of that server; its client is the session above. What the
//! server says outside of calls is passed up, its questions under ids of the session above, since
//! two servers may choose the same. Lists are not: they are told of for all servers at once.
//!
//! Must never outlive the session above.

use crate::gateway::combined::route::Routed;
use crate::gateway::combined::{All, kept};
use crate::gateway::flow::Out;
use crate::gateway::legacy::{self, ASKED_WITHIN, error_object};
use crate::gateway::sessions::{Asker, Session};
use crate::gateway::slot::Unavailable;
use crate::gateway::streams::reader::EventBody;
use crate::gateway::streams::{Greeting, Keep, Stream};
use crate::gateway::{Ask, Gateway, lock};
use crate::mcp::sse::Decoder;
use crate::mcp::wire::{INTERNAL_ERROR, Message, member, read, text_of};
use crate::mcp::{build, combine};
use crate::model::id::ServerId;
use serde_json::value::RawValue;
use std::collections::VecDeque;
use std::sync::Arc;

/// Longest message of a server outside of calls, in bytes.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The place of one server's session below another.
#[derive(Debug, Default)]
pub struct Below {
    /// Held while it is opened.
    opening: tokio::sync::Mutex<()>,
    session: std::sync::Mutex<Option<Arc<Session>>>,
}

impl Below {
    /// The session, while there is one.
    #[must_use]
    pub fn session(&self) -> Option<Arc<Session>> {
        lock(&self.session).clone().filter(|session| !session.is_over())
    }
}

/// The session of this server below a client's; opened when there is none.
pub(super) async fn of(
    all: &All<'_>,
    above: &Arc<Session>,
    routed: &Routed,
) -> Result<Arc<Session>, Unavailable> {
    let place = above.below(&routed.entry.slot.id);
    if let Some(session) = place.session() {
        return Ok(session);
    }
    let _turn = place.opening.lock().await;
    if let Some(session) = place.session() {
        return Ok(session);
    }
    let ask = all.ask(routed);
    let session = legacy::own::open_below(&ask, above).await?;
    kept::opened_below(all, above, &session).await;
    *lock(&place.session) = Some(Arc::clone(&session));
    let events = Events::new(session.outside().body(Greeting::None));
    tokio::spawn(pass_up(Arc::clone(all.gateway), Arc::clone(above), Arc::clone(&session), events));
    if let Some(level) = above.log_level() {
        set_level(&ask, &session, &level).await;
    }
    Ok(session)
}

/// Has a server log from this level on.
pub(super) async fn set_level(ask: &Ask<'_>, session: &Arc<Session>, level: &str) {
    let params = format!(r#"{{"level":{}}}"#, serde_json::Value::from(level));
    let Ok(params) = RawValue::from_string(params) else { return };
    let id = session.ask_id();
    if let Ok((mut flow, guard)) = legacy::begin(ask, session, &id, "logging/setLevel", Some(&params)).await {
        tokio::spawn(async move {
            while !matches!(flow.next().await, Out::Answer(..) | Out::Busy(..)) {}
            drop(guard);
        });
    }
}

/// Passes up what a server says outside of calls, until either session is over.
async fn pass_up(gateway: Arc<Gateway>, above: Arc<Session>, below: Arc<Session>, mut events: Events) {
    loop {
        let text = tokio::select! {
            () = above.over() => break,
            () = below.over() => return,
            text = events.next() => text,
        };
        let Some(text) = text else { break };
        match read(text.as_bytes()) {
            Ok(Message::Notification { method, params }) => {
                if let Some((text, keep)) = told(&below.server, &method, params) {
                    above.outside().push(&text, keep);
                }
            }
            Ok(Message::Request { id, .. }) => ask_above(&above, &below, id, &text, above.outside()),
            _ => {}
        }
    }
    gateway.end_session(&below.hash);
}

/// A notification as the client of all servers gets it.
fn told(server: &ServerId, method: &str, params: Option<&RawValue>) -> Option<(String, Keep)> {
    if method.ends_with("/list_changed") {
        return None;
    }
    if method == "notifications/resources/updated" {
        let own = params.and_then(|params| member(params, "uri")).and_then(text_of)?;
        let params = combine::renamed(params?, "uri", &combine::uri(server, &own))?;
        return Some((build::notification(method, Some(&params)), Keep::Must));
    }
    let keep = if method == "notifications/message" { Keep::May } else { Keep::Must };
    Some((build::notification(method, params), keep))
}

/// Puts a question of a server to the client of the session above, on one stream.
pub(super) fn ask_above(
    above: &Arc<Session>,
    below: &Arc<Session>,
    id: &RawValue,
    text: &str,
    stream: &Arc<Stream>,
) {
    let own = above.ask_id();
    let question = match read(text.as_bytes()) {
        Ok(Message::Request { method, params, .. }) => build::request_as(&own, &method, params),
        _ => return,
    };
    if !above.ask(&own, Asker::Below(Arc::clone(below), id.to_owned())) {
        return refuse(below, id, "too many requests wait for the client");
    }
    stream.push(&question, Keep::Must);
    if stream.is_connected() {
        return;
    }
    let (above, stream) = (Arc::clone(above), Arc::clone(stream));
    tokio::spawn(async move {
        tokio::select! {
            () = above.over() => {}
            () = tokio::time::sleep(ASKED_WITHIN) => {
                if !stream.is_connected() && let Some(Asker::Below(below, id)) = above.answered(&own) {
                    refuse(&below, &id, "the client does not listen");
                }
            }
        }
    });
}

fn refuse(below: &Arc<Session>, id: &RawValue, why: &str) {
    let error = error_object(INTERNAL_ERROR, why);
    let _accepted = legacy::answered(below, id, Err(&error));
}

/// The messages of an event stream.
pub(super) struct Events {
    body: EventBody,
    decoder: Decoder,
    ready: VecDeque<String>,
}

impl Events {
    pub(super) fn new(body: EventBody) -> Self {
        Self { body, decoder: Decoder::new(MESSAGE_BYTES_MAX), ready: VecDeque::new() }
    }

    /// The next one; `None` at the end. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(text) = self.ready.pop_front() {
                return Some(text);
            }
            let body = &mut self.body;
            let bytes = std::future::poll_fn(|cx| body.poll_events(cx)).await?;
            let ready = &mut self.ready;
            self.decoder.push(&bytes, &mut |event| {
                if !event.data.is_empty() {
                    ready.push_back(event.data.to_owned());
                }
            });
        }
    }
}
