//! Several messages in one request, which version 2025-03-26 has and no other.
//!
//! All requests of a batch begin before the first is waited for; answers come over one stream. Must
//! never read a batch of another version, nor pass on an `initialize` in one.

use crate::gateway::body::{self, Response};
use crate::gateway::legacy::{answer_to_stream, begin, greeting, in_session, pump_one, session};
use crate::gateway::streams::{Keep, StreamKind};
use crate::gateway::{Ask, refused};
use crate::mcp::build;
use crate::mcp::front::Refusal;
use crate::mcp::wire::{BATCH_VERSION, INVALID_REQUEST, Message, batch, read};
use hyper::StatusCode;
use serde_json::value::RawValue;
use std::sync::Arc;
use tokio::task::JoinSet;

/// An array of messages: only 2025-03-26 has them.
pub(crate) async fn post(ask: &Ask<'_>) -> Response {
    let session = match session(ask) {
        Ok(session) if session.version == BATCH_VERSION => session,
        Ok(_) => return refused(None, &of_another_version()),
        Err(response) => return *response,
    };
    let parts = match batch(ask.body) {
        Ok(parts) => parts,
        Err(error) => return refused(None, &Refusal::new(400, error.code(), error.to_string())),
    };
    let stream = session.streams.open(StreamKind::Post);
    let mut waiting = JoinSet::new();
    for part in parts {
        match read(part.get().as_bytes()) {
            Ok(Message::Request { id, method, .. }) if method == "initialize" => {
                stream.push(&no_initialize(id), Keep::Must);
            }
            Ok(Message::Request { id, method, params }) => {
                match begin(ask, &session, id, &method, params).await {
                    Ok((mut flow, guard)) => {
                        // At once: the next one may wait for the place that this one has.
                        let stream = Arc::clone(&stream);
                        waiting.spawn(async move { pump_one(&mut flow, &guard, &stream).await });
                    }
                    Err(out) => {
                        answer_to_stream(&stream, out);
                    }
                }
            }
            Ok(other) => {
                let _accepted = in_session(ask, &session, other).await;
            }
            Err(error) => {
                stream.push(&build::error(None, error.code(), &error.to_string()), Keep::Must);
            }
        }
    }
    if waiting.is_empty() && !stream.has_waiting() {
        return body::empty(StatusCode::ACCEPTED);
    }
    let body = stream.body(greeting(&session));
    tokio::spawn(async move {
        while waiting.join_next().await.is_some() {}
        stream.finish();
    });
    body::events(body)
}

/// Sessions of other versions have no batches.
pub(crate) fn of_another_version() -> Refusal {
    Refusal::new(400, INVALID_REQUEST, "batches are not part of this version")
}

/// The answer to `initialize` among other messages, which the specification forbids: the session is open.
pub(crate) fn no_initialize(id: &RawValue) -> String {
    build::error(Some(id), INVALID_REQUEST, "initialize cannot be part of a batch")
}
