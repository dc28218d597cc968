//! Clients of the legacy era, with a session for all servers.
//!
//! Must never answer a request in another's place: ids are the client's own all the way.

use crate::gateway::body::{self, Refusal as Boxed, Response};
use crate::gateway::combined::route::{self, Routed};
use crate::gateway::combined::{All, CAPABILITIES, below, kept, server_info};
use crate::gateway::flow::{Flow, Out, cancelled, negotiated};
use crate::gateway::legacy::{self, busy, code, empty_object, opened};
use crate::gateway::lens::Lens;
use crate::gateway::sessions::in_flight::InFlight;
use crate::gateway::sessions::{Asker, Backing, NewSession, Session};
use crate::gateway::slot::Unavailable;
use crate::gateway::streams::{Keep, Pushed, Stream};
use crate::gateway::{refused, unavailable};
use crate::mcp::build;
use crate::mcp::combine::Kind;
use crate::mcp::front::Refusal;
use crate::mcp::wire::{
    INVALID_PARAMS, INVALID_REQUEST, LEGACY_LATEST, METHOD_NOT_FOUND, Message, member, text_of,
};
use hyper::StatusCode;
use serde_json::value::RawValue;
use std::sync::Arc;

/// A message of a legacy client.
pub(super) async fn post(all: &All<'_>, message: Message<'_>) -> Response {
    if let Message::Request { id, method, params } = &message
        && method == "initialize"
    {
        return initialize(all, id, *params).await;
    }
    match session(all) {
        Ok(session) => in_session(all, &session, message).await,
        Err(response) => *response,
    }
}

/// A message in its session.
pub(super) async fn in_session(all: &All<'_>, session: &Arc<Session>, message: Message<'_>) -> Response {
    match message {
        Message::Request { id, method, params } => request(all, session, id, (&method, params)).await,
        Message::Notification { method, params } => {
            notified(session, &method, params);
            body::empty(StatusCode::ACCEPTED)
        }
        Message::Response { id, result } => legacy::answered(session, id, Ok(result)),
        Message::Error { id: Some(id), error } => legacy::answered(session, id, Err(error)),
        Message::Error { id: None, .. } => {
            refused(None, &Refusal::new(400, INVALID_REQUEST, "an answer needs the id of its request"))
        }
    }
}

/// The session that a request names, as far as it was kept.
pub(super) fn session(all: &All<'_>) -> Result<Arc<Session>, Boxed> {
    let session = legacy::named(all.gateway, all.head, &all.view.id, all.principal)?;
    kept::resume(all, &session);
    Ok(session)
}

/// GET: the stream outside of requests, or what was missed of any stream.
pub(super) fn get(all: &All<'_>) -> Response {
    match session(all) {
        Ok(session) => legacy::stream_of(&session, all.head),
        Err(response) => *response,
    }
}

/// DELETE: the end of the session.
pub(super) fn delete(all: &All<'_>) -> Response {
    match session(all) {
        Ok(session) => {
            all.gateway.end_session(&session.hash);
            body::empty(StatusCode::OK)
        }
        Err(response) => *response,
    }
}

async fn initialize(all: &All<'_>, id: &RawValue, params: Option<&RawValue>) -> Response {
    let asked = params.and_then(|params| member(params, "protocolVersion")).and_then(text_of);
    let (Some(params), Some(asked)) = (params, asked) else {
        return refused(Some(id), &Refusal::new(200, INVALID_PARAMS, "params.protocolVersion is missing"));
    };
    let version = negotiated(Some(&asked), LEGACY_LATEST);
    let new = NewSession {
        server: all.view.id.clone(),
        version,
        principal: Arc::clone(all.principal),
        backing: Backing::Shared,
        capabilities: member(params, "capabilities").map_or_else(empty_object, ToOwned::to_owned),
        client: member(params, "clientInfo").map(ToOwned::to_owned),
    };
    let Some((session_id, session)) = all.gateway.sessions.open(new) else {
        return unavailable(Some(id), &Unavailable::Later("too many sessions are open".to_owned()));
    };
    kept::begin(all, &session).await;
    let instructions = all
        .instructions()
        .map_or_else(String::new, |text| format!(r#","instructions":{}"#, serde_json::Value::from(text)));
    let text = format!(
        r#"{{"protocolVersion":"{version}","capabilities":{CAPABILITIES},"serverInfo":{}{instructions}}}"#,
        server_info().get()
    );
    opened(&session_id, id, &RawValue::from_string(text).unwrap_or_default())
}

async fn request(
    all: &All<'_>,
    session: &Arc<Session>,
    id: &RawValue,
    (method, params): (&str, Option<&RawValue>),
) -> Response {
    match begin(all, session, id, (method, params)).await {
        Ok((flow, ways)) => {
            let above = Arc::clone(&ways.above);
            legacy::deliver(flow, above, move |flow, stream, out| show(flow, &ways, stream, out)).await
        }
        Err(Out::Answer(status, text)) => body::json(code(status), text),
        Err(Out::Busy(text, secs)) => busy(text, secs),
        Err(Out::Notice(_) | Out::Request(..) | Out::Wants(_)) => body::empty(StatusCode::ACCEPTED),
    }
}

/// Sends a request on to its server, or answers it here.
pub(super) async fn begin(
    all: &All<'_>,
    session: &Arc<Session>,
    id: &RawValue,
    (method, params): (&str, Option<&RawValue>),
) -> Result<(Flow, Ways), Out> {
    let refusal = |refusal: Refusal| Out::Answer(refusal.status, refusal.body(Some(id)));
    let Some(guard) = session.enter(id) else {
        let why = "a request with this id is under way, or too many are";
        return Err(Out::Answer(400, build::error(Some(id), INVALID_REQUEST, why)));
    };
    if let Some(kind) = Kind::of_method(method) {
        let page = all.page(kind, params).await.map_err(refusal)?;
        return Err(Out::Answer(200, build::result(id, &page)));
    }
    match method {
        "ping" => Err(Out::Answer(200, build::result(id, &empty_object()))),
        "logging/setLevel" => {
            set_level(all, session, params).await.map_err(refusal)?;
            Err(Out::Answer(200, build::result(id, &empty_object())))
        }
        _ if route::is_for_one(method) => {
            let routed = route::route(all, method, params).await.map_err(refusal)?;
            kept::note(all, session, method, params);
            pass_on(all, (session, guard), (id, method), &routed).await
        }
        _ => Err(refusal(Refusal::new(200, METHOD_NOT_FOUND, "method not found"))),
    }
}

/// To one server.
async fn pass_on(
    all: &All<'_>,
    (session, guard): (&Arc<Session>, InFlight),
    (id, method): (&RawValue, &str),
    routed: &Routed,
) -> Result<(Flow, Ways), Out> {
    let below = tokio::select! {
        biased;
        below = below::of(all, session, routed) => below,
        () = guard.taken_back() => return Err(cancelled(id)),
    };
    let below = below.map_err(|why| legacy::not_there(id, &why))?;
    let ask = all.ask(routed);
    let (flow, inner) = legacy::begin(&ask, &below, id, method, Some(&routed.params)).await?;
    if guard.is_taken_back() {
        flow.leg().cancel(flow.upstream_id(), None);
    }
    Ok((flow, Ways { above: Arc::clone(session), below, held: [guard, inner] }))
}

/// The two sessions that a request goes through.
pub(super) struct Ways {
    above: Arc<Session>,
    below: Arc<Session>,
    held: [InFlight; 2],
}

/// Puts one thing on a stream; true when it was the last.
pub(super) fn show(flow: &Flow, ways: &Ways, stream: &Arc<Stream>, out: Out) -> bool {
    match out {
        Out::Notice(text) => {
            if stream.push(&text, Keep::May) == Pushed::Dropped {
                flow.dropped();
            }
            false
        }
        Out::Request(id, text) => {
            let Ways { above, below, .. } = ways;
            // What a call of ours waits for is asked already.
            if below.is_asked(&id) || below.ask(&id, Asker::Server(id.clone())) {
                below::ask_above(above, below, &id, &text, stream);
            } else {
                let error = legacy::error_object(
                    crate::mcp::wire::INTERNAL_ERROR,
                    "too many requests wait for the client",
                );
                flow.leg().reply(&id, Err(&error));
            }
            false
        }
        Out::Wants(_) => false,
        Out::Answer(_, text) | Out::Busy(text, _) => {
            ways.held.iter().for_each(InFlight::answered);
            stream.push(&text, Keep::Must);
            true
        }
    }
}

/// For all servers that the session uses, and those that it will.
async fn set_level(all: &All<'_>, session: &Arc<Session>, params: Option<&RawValue>) -> Result<(), Refusal> {
    let level = params.and_then(|params| member(params, "level")).and_then(text_of);
    let level = level.ok_or_else(|| Refusal::new(200, INVALID_PARAMS, "params.level is missing"))?;
    session.set_log_level(&level);
    all.gateway.keep_session(session);
    for below in session.all_below() {
        if let Some(routed) = of_server(all, &below) {
            below::set_level(&all.ask(&routed), &below, &level).await;
        }
    }
    Ok(())
}

fn of_server(all: &All<'_>, below: &Session) -> Option<Routed> {
    let entry = all.gateway.entry(&below.server)?;
    let lens = Lens::together(&entry, all.grant);
    Some(Routed { entry, params: empty_object(), lens })
}

/// What a client tells without wanting an answer.
fn notified(session: &Arc<Session>, method: &str, params: Option<&RawValue>) {
    let id = params.and_then(|params| member(params, "requestId"));
    let concerned = |below: &Session| match method {
        "notifications/cancelled" => id.is_some_and(|id| below.is_in_flight(id)),
        "notifications/roots/list_changed" => true,
        _ => false,
    };
    for below in session.all_below().iter().filter(|below| concerned(below)) {
        legacy::notified(below, method, params);
    }
    // It may have got no further than this session.
    if method == "notifications/cancelled"
        && let Some(id) = id
    {
        let _none = session.take_back(id);
    }
}
