//! Several messages in one request to all servers, which version 2025-03-26 has and no other.
//!
//! All begin at once, in their order: one whose server has to be waited for holds up none behind it.
//! Answers come over one stream, whichever is first. Must never read a batch of another version, nor
//! let one message that fails take another with it.

use crate::gateway::body::{self, Response};
use crate::gateway::combined::All;
use crate::gateway::combined::legacy::{begin, in_session, session, show};
use crate::gateway::flow::Out;
use crate::gateway::legacy::{batch as of_one, greeting};
use crate::gateway::refused;
use crate::gateway::sessions::Session;
use crate::gateway::streams::{Keep, Stream, StreamKind};
use crate::mcp::build;
use crate::mcp::front::Refusal;
use crate::mcp::wire::{BATCH_VERSION, BadMessage, Message, batch, read};
use futures_util::future::join_all;
use hyper::StatusCode;
use std::sync::Arc;

/// The stream of a batch's answers; ends with whoever holds it last.
struct Answers(Arc<Stream>);

impl Drop for Answers {
    fn drop(&mut self) {
        self.0.finish();
    }
}

/// An array of messages.
pub(super) async fn post(all: &All<'_>) -> Response {
    let session = match session(all) {
        Ok(session) if session.version == BATCH_VERSION => session,
        Ok(_) => return refused(None, &of_one::of_another_version()),
        Err(response) => return *response,
    };
    let parts = match batch(all.body) {
        Ok(parts) => parts,
        Err(error) => return refused(None, &Refusal::new(400, error.code(), error.to_string())),
    };
    let messages: Vec<_> = parts.into_iter().map(|part| read(part.get().as_bytes())).collect();
    let is_answered = |message: &Result<_, _>| matches!(message, Ok(Message::Request { .. }) | Err(_));
    if !messages.iter().any(is_answered) {
        for message in messages.into_iter().flatten() {
            let _accepted = in_session(all, &session, message).await;
        }
        return body::empty(StatusCode::ACCEPTED);
    }
    let answers = Arc::new(Answers(session.streams.open(StreamKind::Post)));
    join_all(messages.into_iter().map(|message| one(all, &session, &answers, message))).await;
    body::events(answers.0.body(greeting(&session)))
}

/// One of the messages, as far as its beginning.
async fn one(
    all: &All<'_>,
    session: &Arc<Session>,
    answers: &Arc<Answers>,
    message: Result<Message<'_>, BadMessage>,
) {
    let said = match message {
        Ok(Message::Request { id, method, .. }) if method == "initialize" => of_one::no_initialize(id),
        Ok(Message::Request { id, method, params }) => {
            match begin(all, session, id, (&method, params)).await {
                Ok((mut flow, ways)) => {
                    // At once: the next one may wait for the place that this one has.
                    let (session, answers) = (Arc::clone(session), Arc::clone(answers));
                    tokio::spawn(async move {
                        let mut over = false;
                        while !over {
                            tokio::select! {
                                () = session.over() => over = true,
                                out = flow.next() => over = show(&flow, &ways, &answers.0, out),
                            }
                        }
                    });
                    return;
                }
                Err(Out::Answer(_, text) | Out::Busy(text, _)) => text,
                Err(Out::Notice(_) | Out::Request(..) | Out::Wants(_)) => return,
            }
        }
        Ok(other) => {
            let _accepted = in_session(all, session, other).await;
            return;
        }
        Err(error) => build::error(None, error.code(), &error.to_string()),
    };
    answers.0.push(&said, Keep::Must);
}
