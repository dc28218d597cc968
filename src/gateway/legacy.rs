//! Clients of the legacy era: `initialize`, then messages in a session.
//!
//! ```text
//! POST initialize     shared connection: the server's own greeting, shown again;
//!                     own connection: the client's words go to an instance of its own
//! POST request        its answer as JSON, or as an event stream once the server says something first
//! POST notification   202; what concerns the shared connection as a whole is not passed on
//! POST answer         to whoever asked, once
//! GET                 the stream of what belongs to no request; `Last-Event-ID` resumes any stream
//! DELETE              ends the session
//! ```
//! A client that goes away has not cancelled anything.
//!
//! Must never send a second `initialize` over a connection, and never pass one session's
//! cancellation or answer to another's request.

pub(crate) mod batch;
pub(crate) mod own;

use crate::gateway::body::{self, Refusal as Refused, Response};
use crate::gateway::flow::resend::Sent;
use crate::gateway::flow::{
    Again, Begin, Flow, Out, Rounds, Tongue, answered as shown_answer, cancelled, negotiated,
};
use crate::gateway::instances::home;
use crate::gateway::metrics::Timed;
use crate::gateway::sessions::in_flight::InFlight;
use crate::gateway::sessions::{Asker, Backing, NewSession, Session};
use crate::gateway::slot::Unavailable;
use crate::gateway::streams::{Greeting, Keep, Pushed, Stream, StreamKind};
use crate::gateway::traffic::{Admitted, Pass, Wanted};
use crate::gateway::{Ask, Entry, Gateway, come_again, known, not_available, refused, unavailable};
use crate::mcp::front::{self, Head, Refusal};
use crate::mcp::wire::{Era, INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, Message, member, text_of};
use crate::mcp::{build, translate};
use crate::model::id::ServerId;
use crate::model::session::SessionChange;
use crate::upstream::leg::{Greeting as Hello, Leg, OnDrop};
use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue};
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::Duration;

/// An answer that takes longer is announced by an event stream, which can be kept alive.
pub(crate) const JSON_WITHIN: Duration = Duration::from_secs(10);
/// A client that asks for no stream may answer a server's request this late.
pub(crate) const ASKED_WITHIN: Duration = Duration::from_secs(60);
/// The first version whose clients expect a stream to begin with an event without data.
const PRIMING_SINCE: &str = "2025-11-25";
/// The header with a session's id.
pub(crate) const SESSION_HEADER: HeaderName = HeaderName::from_static("mcp-session-id");

/// A message of a legacy client.
pub(crate) async fn post(ask: &Ask<'_>, message: Message<'_>) -> Response {
    if let Message::Request { id, method, params } = &message
        && method == "initialize"
    {
        return initialize(ask, id, *params).await;
    }
    match session(ask) {
        Ok(session) => in_session(ask, &session, message).await,
        Err(response) => *response,
    }
}

fn answer_to_stream(stream: &Stream, out: Out) {
    if let Out::Answer(_, text) | Out::Busy(text, _) = out {
        stream.push(&text, Keep::Must);
    }
}

/// The session that a request names.
fn session(ask: &Ask<'_>) -> Result<Arc<Session>, Refused> {
    named(ask.gateway, ask.head, &ask.entry.slot.id, ask.principal)
}

/// The session of a server, or of all, that a request names.
pub(crate) fn named(
    gateway: &Gateway,
    head: &Head<'_>,
    server: &ServerId,
    principal: &str,
) -> Result<Arc<Session>, Refused> {
    let Some(id) = head.session else {
        let refusal = Refusal::new(
            400,
            INVALID_REQUEST,
            "Bad Request: Mcp-Session-Id header is missing; send initialize first",
        );
        return Err(refused(None, &refusal).into());
    };
    let found = gateway.sessions.find(id, server, principal);
    let Some((session, touch)) = found else {
        let refusal = Refusal::new(404, INVALID_REQUEST, "Session not found; send initialize again");
        return Err(refused(None, &refusal).into());
    };
    if let Err(refusal) = front::check_legacy_version(head) {
        return Err(refused(None, &refusal).into());
    }
    if let Some(touch) = touch {
        gateway.keep_later(touch);
    }
    if let Backing::Dedicated(leg, _) = &session.backing
        && leg.is_closed()
    {
        gateway.end_session(&session.hash);
        let refusal =
            Refusal::new(404, INVALID_REQUEST, "Session ended with its server; send initialize again");
        return Err(refused(None, &refusal).into());
    }
    Ok(session)
}

async fn in_session(ask: &Ask<'_>, session: &Arc<Session>, message: Message<'_>) -> Response {
    match message {
        Message::Request { id, method, params } => match begin(ask, session, id, &method, params).await {
            Ok((flow, guard)) => {
                let session = Arc::clone(guard.session());
                deliver(flow, session, move |flow, stream, out| show(flow, &guard, stream, out)).await
            }
            Err(Out::Busy(text, secs)) => busy(text, secs),
            Err(Out::Answer(status, text)) => body::json(code(status), text),
            Err(Out::Notice(_) | Out::Request(..) | Out::Wants(_)) => body::empty(StatusCode::ACCEPTED),
        },
        Message::Notification { method, params } => {
            notified(session, &method, params);
            body::empty(StatusCode::ACCEPTED)
        }
        Message::Response { id, result } => answered(session, id, Ok(result)),
        Message::Error { id: Some(id), error } => answered(session, id, Err(error)),
        Message::Error { id: None, .. } => {
            refused(None, &Refusal::new(400, INVALID_REQUEST, "an answer needs the id of its request"))
        }
    }
}

/// Opens a session.
async fn initialize(ask: &Ask<'_>, id: &RawValue, params: Option<&RawValue>) -> Response {
    let Some(params) = params else {
        return refused(Some(id), &Refusal::new(200, INVALID_PARAMS, "initialize needs params"));
    };
    let asked = member(params, "protocolVersion").and_then(text_of);
    if asked.is_none() {
        return refused(Some(id), &Refusal::new(200, INVALID_PARAMS, "params.protocolVersion is missing"));
    }
    let (at, greeting) = match own::greeted(ask, params).await {
        Ok(greeted) => greeted,
        Err(why) => return unavailable(Some(id), &why),
    };
    let ask = &Ask { entry: at.as_ref().unwrap_or(ask.entry), ..*ask };
    if own::wants_its_own(ask, &greeting, params) {
        match own::own_connection(ask, params).await {
            Ok(Some(own)) => return opened(&own.id, id, &own.result),
            Ok(None) => {}
            Err(why) => return unavailable(Some(id), &why),
        }
    }
    let version = negotiated(asked.as_deref(), legacy_version(&greeting));
    let result = greeting_of(&greeting, version);
    let new = NewSession {
        server: ask.entry.slot.id.clone(),
        version,
        principal: Arc::clone(ask.principal),
        backing: Backing::Shared,
        capabilities: member(params, "capabilities").map_or_else(empty_object, ToOwned::to_owned),
        client: member(params, "clientInfo").map(ToOwned::to_owned),
    };
    let Some((session_id, session)) = ask.gateway.sessions.open(new) else {
        return unavailable(Some(id), &Unavailable::Later("too many sessions are open".to_owned()));
    };
    ask.entry.metrics.sessions_opened.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    ask.gateway.keep_now(SessionChange::Put(session.record())).await;
    opened(&session_id, id, &result)
}

pub(crate) fn opened(session_id: &str, id: &RawValue, result: &RawValue) -> Response {
    let mut response = body::json(StatusCode::OK, build::result(id, result));
    if let Ok(value) = HeaderValue::from_str(session_id) {
        response.headers_mut().insert(SESSION_HEADER, value);
    }
    response
}

pub(crate) fn empty_object() -> Box<RawValue> {
    RawValue::from_string("{}".to_owned()).unwrap_or_default()
}

fn legacy_version(greeting: &Hello) -> &str {
    if greeting.era == Era::Modern { crate::mcp::wire::LEGACY_LATEST } else { &greeting.version }
}

/// What the shared server says of itself, in the version of this client.
fn greeting_of(greeting: &Hello, version: &str) -> Box<RawValue> {
    let known = greeting.server.as_ref().and_then(|server| match greeting.era {
        Era::Modern => translate::initialize_result(&server.raw, version),
        Era::Legacy => with_version(&server.raw, version),
    });
    known.unwrap_or_else(|| {
        let version = serde_json::Value::from(version).to_string();
        let text = format!(
            r#"{{"protocolVersion":{version},"capabilities":{{"tools":{{}}}},"serverInfo":{{"name":"unknown","version":"0"}}}}"#
        );
        RawValue::from_string(text).unwrap_or_default()
    })
}

fn with_version(result: &RawValue, version: &str) -> Option<Box<RawValue>> {
    let old = member(result, "protocolVersion")?;
    let version = serde_json::Value::from(version).to_string();
    RawValue::from_string(crate::mcp::wire::splice(result.get(), old.get(), &version)?).ok()
}

/// Puts a request of the server to its client on one stream; nobody answering in time is an error
/// for the server.
fn ask_client(session: &Arc<Session>, leg: &Leg, id: &RawValue, text: &str, stream: &Arc<Stream>) {
    if !session.ask(id, Asker::Server(id.to_owned())) {
        leg.reply(id, Err(&error_object(INTERNAL_ERROR, "too many requests wait for the client")));
        return;
    }
    stream.push(text, Keep::Must);
    if stream.is_connected() {
        return;
    }
    let (session, leg, id, stream) = (Arc::clone(session), leg.clone(), id.to_owned(), Arc::clone(stream));
    tokio::spawn(async move {
        tokio::select! {
            () = session.over() => {}
            () = tokio::time::sleep(ASKED_WITHIN) => {
                if !stream.is_connected() && session.answered(&id).is_some() {
                    leg.reply(&id, Err(&error_object(INTERNAL_ERROR, "the client does not listen")));
                }
            }
        }
    });
}

pub(crate) fn error_object(code: i64, message: &str) -> Box<RawValue> {
    let message = serde_json::Value::from(message).to_string();
    RawValue::from_string(format!(r#"{{"code":{code},"message":{message}}}"#)).unwrap_or_default()
}

/// Sends a request on, or answers it where the gateway must.
pub(crate) async fn begin(
    ask: &Ask<'_>,
    session: &Arc<Session>,
    id: &RawValue,
    method: &str,
    params: Option<&RawValue>,
) -> Result<(Flow, InFlight), Out> {
    let home = home::home(ask, session);
    let ask = &Ask { entry: home.as_ref().unwrap_or(ask.entry), ..*ask };
    let Some(guard) = session.enter(id) else {
        let text =
            build::error(Some(id), INVALID_REQUEST, "a request with this id is under way, or too many are");
        return Err(Out::Answer(400, text));
    };
    if method == "ping" {
        return Err(Out::Answer(200, build::result(id, &empty_object())));
    }
    // What waits for its turn, or for its server, can be taken back; what is answered at once asks nobody.
    let flow = tokio::select! {
        biased;
        flow = sent(ask, (session, &guard), id, (method, params)) => flow?,
        () = guard.taken_back() => return Err(cancelled(id)),
    };
    if guard.sent_as(flow.leg(), flow.upstream_id()) {
        flow.leg().cancel(flow.upstream_id(), None);
    }
    Ok((flow, guard))
}

/// Sends a request on when it may go and its server can be reached.
async fn sent(
    ask: &Ask<'_>,
    (session, guard): (&Arc<Session>, &InFlight),
    id: &RawValue,
    (method, params): (&str, Option<&RawValue>),
) -> Result<Flow, Out> {
    let nothing = || Out::Answer(200, build::result(id, &empty_object()));
    let changed = match ask.lens {
        Some(lens) => lens.inward(ask.entry, method, params).await.map_err(|refusal| {
            ask.refused_call(id, (method, params));
            Out::Answer(refusal.status, refusal.body(Some(id)))
        })?,
        None => None,
    };
    let params = changed.as_deref().or(params);
    let shared = matches!(session.backing, Backing::Shared) && !ask.entry.carries(ask.origin);
    let kept = shared.then(|| known::legacy_answer(ask, session, id, (method, params))).flatten();
    if let Some(kept) = kept {
        return Err(kept);
    }
    let (mut pass, mut timed) = admitted(ask, (session, shared), id, (method, params)).await?;
    let of_tool = pass.as_ref().and_then(|pass| pass.timeout);
    let silence = of_tool.unwrap_or_else(|| ask.entry.silence(method));
    let on_drop = OnDrop::Leave;
    let reached = match &session.backing {
        Backing::Dedicated(..) => None,
        Backing::Shared => {
            let reached = home::reach(ask, session, pass.as_mut()).await;
            Some(reached.map_err(|why| not_there(id, &why))?)
        }
    };
    let at = reached.as_ref().and_then(|(at, _)| at.as_ref());
    if let Some(at) = at {
        timed.moves_to(&at.metrics, (method, &crate::gateway::tool_of(method, params)));
    }
    let entry = at.unwrap_or(ask.entry);
    let begun = |leg: &Leg, params: Option<&RawValue>| {
        let begin = Begin { leg, id, method, params, tongue: Tongue::Legacy, on_drop, silence, timed };
        let sent = || Sent { entry, method, params, on_drop, marker: Some(guard.marker()) };
        let sent = (shared && (pass.is_some() || !entry.is_one())).then(sent);
        Flow::begin(begin).map(|flow| flow.through(ask.lens, method).with_pass(pass, sent))
    };
    match (&session.backing, &reached) {
        (Backing::Dedicated(leg, _), _) => begun(leg, params),
        (Backing::Shared, None) => Err(nothing()),
        (Backing::Shared, Some((_, live))) => {
            let modern = live.leg.greeting().era == Era::Modern;
            if !entry.on_shared(ask.gateway, session, (method, params), modern) {
                return Err(nothing());
            }
            if modern {
                let rounds = Rounds::new(session, method, params);
                let asked = rounds.params(None);
                begun(&live.leg, asked.as_deref().or(params)).map(|flow| flow.in_rounds(rounds))
            } else {
                begun(&live.leg, params)
            }
        }
    }
}

/// Whether a request may go, and its measure; the answer if it need not or may not. `shared` is whether it
/// goes over the connection that clients share.
async fn admitted(
    ask: &Ask<'_>,
    (session, shared): (&Arc<Session>, bool),
    id: &RawValue,
    (method, params): (&str, Option<&RawValue>),
) -> Result<(Option<Box<Pass>>, Timed), Out> {
    let tool = crate::gateway::tool_of(method, params);
    let mut timed = Timed::start(&ask.entry.metrics, method, &tool).in_session(&session.hash).by(
        ask.origin,
        (method, &tool),
        Some(id),
    );
    let wanted = Wanted { method, params, tool: &tool, who: &ask.origin.who, shared };
    match ask.entry.admit(&wanted).await {
        Ok(Admitted::Go(pass)) => Ok((pass, timed)),
        Ok(Admitted::Kept(result)) => {
            timed.done(true, result.get().len());
            let live = ask.entry.slot.live();
            let modern = live.is_some_and(|live| live.leg.greeting().era == Era::Modern);
            let lens = ask.lens.map(|lens| (&**lens, method));
            Err(shown_answer(id, result, (&Tongue::Legacy, modern), lens))
        }
        Err(denied) => {
            timed.refused();
            Err(denied.out(id))
        }
    }
}

pub(crate) fn not_there(id: &RawValue, why: &Unavailable) -> Out {
    Out::Busy(not_available(Some(id), why), Again::later(why.retry_after_secs()))
}

/// What a client tells without wanting an answer.
pub(crate) fn notified(session: &Arc<Session>, method: &str, params: Option<&RawValue>) {
    let leg = match &session.backing {
        Backing::Dedicated(leg, _) => Some(leg.clone()),
        Backing::Shared => None,
    };
    match (method, leg) {
        // The gateway has shaken hands already.
        ("notifications/initialized", _) => {}
        ("notifications/cancelled", _) => {
            let id = params.and_then(|params| member(params, "requestId"));
            // The connection that it began on, whichever serves the session by now.
            if let Some((leg, upstream)) = id.and_then(|id| session.take_back(id)) {
                leg.cancel(upstream, params);
            }
        }
        (method, Some(leg)) => {
            leg.notify(method, params);
        }
        // One client's news about itself mean nothing to a connection that others share.
        (_, None) => {}
    }
}

/// A client's answer to a request of the server.
pub(crate) fn answered(
    session: &Arc<Session>,
    id: &RawValue,
    answer: Result<&RawValue, &RawValue>,
) -> Response {
    match session.answered(id) {
        None => {
            refused(None, &Refusal::new(400, INVALID_REQUEST, "no request with this id waits for an answer"))
        }
        Some(Asker::Server(asked)) => {
            if let Backing::Dedicated(leg, _) = &session.backing {
                leg.reply(&asked, answer);
            }
            body::empty(StatusCode::ACCEPTED)
        }
        Some(Asker::Below(below, asked)) => answered(&below, &asked, answer),
        Some(Asker::Call(waiting)) => {
            let _given_up = waiting.send(answer.map(ToOwned::to_owned).map_err(ToOwned::to_owned));
            body::empty(StatusCode::ACCEPTED)
        }
    }
}

/// The answer as JSON when nothing comes before it, else as an event stream of `session`. `show` puts one
/// thing on that; true when it was the last. What it holds is held until then.
pub(super) async fn deliver(
    mut flow: Flow,
    session: Arc<Session>,
    mut show: impl FnMut(&Flow, &Arc<Stream>, Out) -> bool + Send + 'static,
) -> Response {
    let first = tokio::select! {
        biased;
        out = flow.next() => Some(out),
        () = tokio::time::sleep(JSON_WITHIN) => None,
    };
    match first {
        Some(Out::Answer(status, text)) => body::json(code(status), text),
        Some(Out::Busy(text, secs)) => busy(text, secs),
        first => {
            let stream = session.streams.open(StreamKind::Post);
            let body = stream.body(greeting(&session));
            tokio::spawn(async move {
                let mut over = first.is_some_and(|out| show(&flow, &stream, out));
                while !over {
                    tokio::select! {
                        () = session.over() => over = true,
                        out = flow.next() => over = show(&flow, &stream, out),
                    }
                }
                stream.finish();
                drop(show);
            });
            body::events(body)
        }
    }
}

/// Moves everything up to the answer.
async fn pump_one(flow: &mut Flow, guard: &InFlight, stream: &Arc<Stream>) {
    loop {
        let out = flow.next().await;
        if show(flow, guard, stream, out) {
            return;
        }
    }
}

/// Puts one thing on a stream; true when it was the last.
fn show(flow: &Flow, guard: &InFlight, stream: &Arc<Stream>, out: Out) -> bool {
    let session = guard.session();
    match out {
        Out::Notice(text) => {
            if stream.push(&text, Keep::May) == Pushed::Dropped {
                flow.dropped();
            }
            false
        }
        Out::Request(id, text) => {
            if session.is_asked(&id) {
                stream.push(&text, Keep::Must);
            } else {
                ask_client(session, flow.leg(), &id, &text, stream);
            }
            false
        }
        Out::Wants(_) => false,
        Out::Answer(_, text) | Out::Busy(text, _) => {
            guard.answered();
            stream.push(&text, Keep::Must);
            true
        }
    }
}

pub(crate) fn code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

pub(crate) fn busy(text: String, again: Again) -> Response {
    let mut response = body::json(code(again.status), text);
    come_again(&mut response, again.secs);
    response
}

pub(crate) fn greeting(session: &Session) -> Greeting {
    if session.version >= PRIMING_SINCE { Greeting::Priming } else { Greeting::None }
}

/// GET: the stream outside of requests, or what was missed of any stream.
pub(crate) fn get(ask: &Ask<'_>) -> Response {
    let session = match session(ask) {
        Ok(session) => session,
        Err(response) => return *response,
    };
    stream_of(&session, ask.head)
}

/// The stream that a GET in a session gets.
pub(crate) fn stream_of(session: &Session, head: &Head<'_>) -> Response {
    if let Err(refusal) = front::check_accept_get(head) {
        return refused(None, &refusal);
    }
    let greeting = greeting(session);
    if let Some(last) = head.last_event_id
        && let Some(resumed) = session.streams.resume(last, greeting)
    {
        return body::events(resumed);
    }
    body::events(session.outside().body(greeting))
}

/// DELETE: the end of the session.
pub(crate) fn delete(ask: &Ask<'_>) -> Response {
    match session(ask) {
        Ok(session) => {
            ask.gateway.end_session(&session.hash);
            body::empty(StatusCode::OK)
        }
        Err(response) => *response,
    }
}

/// A message that came by the old pair of SSE and POST: everything goes to its one stream.
pub(crate) async fn post_old(ask: &Ask<'_>, session: &Arc<Session>, message: Message<'_>) -> Response {
    let stream = Arc::clone(session.outside());
    match message {
        Message::Request { id, method, params } => {
            match begin(ask, session, id, &method, params).await {
                Err(out) => answer_to_stream(&stream, out),
                Ok((mut flow, guard)) => {
                    tokio::spawn(async move {
                        let session = Arc::clone(guard.session());
                        tokio::select! {
                            () = session.over() => {}
                            () = pump_one(&mut flow, &guard, &stream) => {}
                        }
                    });
                }
            }
            body::empty(StatusCode::ACCEPTED)
        }
        other => in_session(ask, session, other).await,
    }
}

/// Something that every session of a server must hear.
pub(crate) fn tell(entry: &Entry, gateway: &Gateway, method: &str, params: Option<&RawValue>) {
    let uri = (method == "notifications/resources/updated")
        .then(|| params.and_then(|params| member(params, "uri")).and_then(text_of))
        .flatten();
    let text = build::notification(method, params);
    for session in gateway.sessions.of(&entry.slot.id) {
        if !matches!(session.backing, Backing::Shared) {
            continue;
        }
        let wanted = uri.as_ref().is_none_or(|uri| session.is_subscribed(uri));
        if let Some(stream) = session.listening().filter(|_| wanted) {
            stream.push(&text, Keep::Must);
        }
    }
}
