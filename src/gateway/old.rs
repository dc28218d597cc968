//! Clients of 2024-11-05: one event stream (`GET …/sse`) and a place to post to (`…/messages`).
//!
//! The stream's first event names that place, with the prefix the client came by. From there on
//! everything is a legacy session whose answers go to the stream.
//!
//! Must never let a post in without the id that the stream's first event gave away.

use crate::gateway::body::{self, Response};
use crate::gateway::legacy::{self, SESSION_HEADER};
use crate::gateway::sessions::{IdHash, Session, hash, secret};
use crate::gateway::streams::{Greeting, Keep, Stream, StreamKind};
use crate::gateway::{Ask, Gateway, refused};
use crate::mcp::front::Refusal;
use crate::mcp::wire::{INVALID_REQUEST, Message};
use hyper::StatusCode;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Streams of this kind at once.
const DOORS_MAX: usize = 4096;

/// One client's stream and, once it has shaken hands, its session.
#[derive(Debug)]
pub struct Door {
    principal: Arc<str>,
    server: crate::model::id::ServerId,
    stream: Arc<Stream>,
    session: OnceLock<String>,
}

/// All of them, by the hash of the id that was given away.
#[derive(Debug, Default)]
pub struct Doors(Mutex<HashMap<IdHash, Arc<Door>>>);

impl Doors {
    fn table(&self) -> MutexGuard<'_, HashMap<IdHash, Arc<Door>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `GET …/sse`.
pub(crate) fn open(ask: &Ask<'_>) -> Response {
    if let Err(refusal) = crate::mcp::front::check_accept_get(ask.head) {
        return refused(None, &refusal);
    }
    let Some(id) = secret() else { return body::empty(StatusCode::SERVICE_UNAVAILABLE) };
    let key = hash(&id);
    let stream = Stream::unstored(StreamKind::Get);
    let door = Arc::new(Door {
        principal: Arc::clone(ask.principal),
        server: ask.entry.slot.id.clone(),
        stream: Arc::clone(&stream),
        session: OnceLock::new(),
    });
    {
        let mut doors = ask.gateway.doors.table();
        if doors.len() >= DOORS_MAX {
            return body::empty(StatusCode::SERVICE_UNAVAILABLE);
        }
        doors.insert(key, Arc::clone(&door));
    }
    let endpoint = format!("/mcp/{}/messages?session_id={id}", ask.entry.slot.id);
    let body = stream.body(Greeting::None);
    stream.push_named("endpoint", &endpoint, Keep::Must);
    let gateway = Arc::clone(ask.gateway);
    tokio::spawn(async move {
        stream.abandoned().await;
        gateway.doors.table().remove(&key);
        if let Some(id) = door.session.get() {
            gateway.end_session(&hash(id));
        }
    });
    body::events(body)
}

/// `POST …/messages?session_id=…`.
pub(crate) async fn post(ask: &Ask<'_>, id: &str, message: Message<'_>) -> Response {
    let door = ask.gateway.doors.table().get(&hash(id)).cloned();
    let door = door.filter(|door| door.server == ask.entry.slot.id && *door.principal == **ask.principal);
    let Some(door) = door else {
        return refused(
            None,
            &Refusal::new(404, INVALID_REQUEST, "no event stream with this session_id is open"),
        );
    };
    if let Message::Request { method, .. } = &message
        && method == "initialize"
    {
        if door.session.get().is_some() {
            return refused(None, &Refusal::new(400, INVALID_REQUEST, "initialize was sent already"));
        }
        let response = legacy::post(ask, message).await;
        return shake(ask, &door, response);
    }
    let Some(session) = session_of(ask.gateway, &door) else {
        return refused(None, &Refusal::new(400, INVALID_REQUEST, "send initialize first"));
    };
    legacy::post_old(ask, &session, message).await
}

/// Moves the answer to `initialize` to the stream.
fn shake(ask: &Ask<'_>, door: &Door, response: Response) -> Response {
    let id = response.headers().get(SESSION_HEADER).and_then(|id| id.to_str().ok()).map(str::to_owned);
    let Some(id) = id else { return response };
    let _first = door.session.set(id);
    if let Some(session) = session_of(ask.gateway, door) {
        session.listen_on(&door.stream);
    }
    if let body::Body::Full(bytes) = response.into_body()
        && let Ok(text) = std::str::from_utf8(&bytes)
    {
        door.stream.push(text, Keep::Must);
    }
    body::empty(StatusCode::ACCEPTED)
}

fn session_of(gateway: &Gateway, door: &Door) -> Option<Arc<Session>> {
    let (session, _touch) = gateway.sessions.find(door.session.get()?, &door.server, &door.principal)?;
    Some(session)
}
