//! One message over streamable HTTP, and what comes back for it.
//!
//! ```text
//! answer to the POST                    becomes
//! 202, 204                              nothing
//! application/json                      one line
//! text/event-stream                     a line for each event; when a legacy stream breaks before
//!                                       its answer, it is resumed after its last event
//! 404 to a message within a session     the end of the connection: a new one is needed
//! any other status with a JSON-RPC body that body, under the request's own id
//! anything else                         an error of ours under the request's id
//! ```
//!
//! Must never leave a request without an answer while its task lives, and never put the URL or a
//! header into one.

use crate::mcp::build::{self, Way};
use crate::mcp::sse::Decoder;
use crate::mcp::wire::{self, INTERNAL_ERROR, Message, member, one_line, text_of};
use crate::upstream::endpoint::{Endpoint, Unanswered};
use crate::upstream::outgoing::{LAST_EVENT, Outgoing, SESSION, VERSION};
use crate::upstream::pipe::Output;
use crate::upstream::sse::Event;
use crate::upstream::tool_headers::ToolHeaders;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Response, StatusCode, Uri};
use serde_json::value::RawValue;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Attempts in a row to resume a stream before its request is given up.
pub const RESUMES_MAX: u32 = 5;
/// Wait before a stream is resumed, unless the server says how long.
pub const RETRY: Duration = Duration::from_secs(1);
/// The longest wait before a stream is resumed, whatever the server says.
pub const RETRY_MAX: Duration = Duration::from_secs(30);
/// After the answer, a stream may go on for this long before its connection is given up.
pub const DRAIN: Duration = Duration::from_secs(1);

/// What both sides agreed on in a legacy handshake.
#[derive(Clone, Debug, Default)]
struct Session {
    id: Option<HeaderValue>,
    version: Option<HeaderValue>,
}

/// A connection to a server over HTTP: what its messages have in common.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) endpoint: Endpoint,
    pub(crate) output: Output,
    /// Where messages are posted when the server speaks the older HTTP+SSE.
    pub(crate) post: OnceLock<Uri>,
    session: Mutex<Session>,
    tools: Mutex<ToolHeaders>,
    lost: watch::Sender<bool>,
    /// Whether the server has ever answered as streamable HTTP does.
    spoke: AtomicBool,
}

/// How a message went.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// All that had to be said to the leg was said.
    Done,
    /// The server refused the first message in a way that servers of the older HTTP+SSE do.
    /// Nothing was said to the leg; this would be.
    NotStreamable(String),
}

/// How far a stream of events got.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    /// The last event's id.
    id: Option<String>,
    /// What the server wants us to wait before we resume.
    retry: Option<Duration>,
    /// Whether the answer was in it.
    answered: bool,
    /// Whether any event came since this was last set to false.
    pub(crate) any: bool,
}

impl Tail {
    /// How long to wait before resuming.
    pub(crate) fn wait(&self) -> Duration {
        self.retry.unwrap_or(RETRY).min(RETRY_MAX)
    }

    /// Takes what the stream said so far about being resumed.
    fn learn(&mut self, decoder: &Decoder) {
        if let Some(id) = decoder.last_id() {
            self.id = Some(id.to_owned()).filter(|id| !id.is_empty());
        }
        if let Some(wait) = decoder.wait() {
            self.retry = Some(Duration::from_millis(wait));
        }
    }

    /// The message of an event, if it has one.
    pub(crate) fn take(&mut self, event: Event) -> Option<String> {
        self.any = true;
        let message = event.name.as_deref().is_none_or(|name| name == "message");
        (message && !event.data.trim_ascii().is_empty()).then_some(event.data)
    }
}

impl Link {
    pub(crate) fn new(endpoint: Endpoint, output: Output) -> Self {
        Self {
            endpoint,
            output,
            post: OnceLock::new(),
            session: Mutex::default(),
            tools: Mutex::default(),
            lost: watch::Sender::new(false),
            spoke: AtomicBool::new(false),
        }
    }

    /// Whether the server is known to speak streamable HTTP.
    pub(crate) fn has_spoken(&self) -> bool {
        self.spoke.load(Relaxed)
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tools(&self) -> MutexGuard<'_, ToolHeaders> {
        self.tools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a legacy handshake was made.
    pub(crate) fn is_legacy(&self) -> bool {
        self.session().version.is_some() || self.post.get().is_some()
    }

    fn in_session(&self) -> bool {
        self.session().id.is_some()
    }

    /// The connection is of no use any more.
    pub(crate) fn lose(&self) {
        self.lost.send_replace(true);
    }

    /// Resolves when the connection is of no use any more.
    pub(crate) async fn lost(&self) {
        let mut lost = self.lost.subscribe();
        let _never_dropped = lost.wait_for(|lost| *lost).await;
    }

    /// The headers of a message, or of a GET.
    fn headers(&self, message: Option<&Outgoing>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if message.is_some() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        } else {
            headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        }
        if let Some(modern) = message.and_then(|message| message.modern.as_ref()) {
            headers.extend(modern.clone());
            if let Some(call) = message.filter(|message| message.method == "tools/call") {
                headers.extend(self.tools().of_call(&call.body));
            }
            return headers;
        }
        let session = self.session();
        if let Some(id) = &session.id {
            headers.insert(SESSION, id.clone());
        }
        if let Some(version) = &session.version {
            headers.insert(VERSION, version.clone());
        }
        headers
    }

    /// Sends a message and hands on all that comes back. With `undecided`, nothing is known yet of
    /// how the server speaks.
    pub(crate) async fn exchange(&self, message: &Outgoing, undecided: bool) -> Outcome {
        let headers = self.headers(Some(message));
        let in_session = headers.contains_key(SESSION);
        let endpoint = &self.endpoint;
        let uri = self.post.get().unwrap_or(&endpoint.uri);
        let response = match endpoint.send(uri, Method::POST, &headers, message.body.clone()).await {
            Ok(response) => response,
            Err(none) => {
                let way = if none.unsent { Way::Unsent } else { Way::Lost };
                return self.broken(message, &none.why, way).await;
            }
        };
        let status = response.status();
        if self.post.get().is_some() {
            return self.posted(message, response).await;
        }
        if !status.is_success() {
            return self.unsuccessful(message, response, in_session, undecided).await;
        }
        self.spoke.store(true, Relaxed);
        if message.is_initialize()
            && let Some(id) = response.headers().get(SESSION)
        {
            let mut id = id.clone();
            id.set_sensitive(true);
            self.session().id = Some(id);
        }
        match content_type(&response).as_str() {
            "text/event-stream" => self.stream(message, response.into_body()).await,
            _ if message.id.is_none() => Outcome::Done,
            // Some servers forget to say that it is JSON.
            _ => match endpoint.whole(response.into_body()).await {
                Ok(body) if body.is_empty() => {
                    self.refuse(message, &self.status_text(status, "and nothing else")).await
                }
                Ok(body) => self.json(message, &body).await,
                Err(why) => self.refuse(message, &why).await,
            },
        }
    }

    /// A message posted to a server of the older HTTP+SSE: its answer comes elsewhere.
    async fn posted(&self, message: &Outgoing, response: Response<Incoming>) -> Outcome {
        let status = response.status();
        if status.is_success() {
            // Read to its end, the connection can be used again.
            let _nothing_of_interest = self.endpoint.whole(response.into_body()).await;
            return Outcome::Done;
        }
        self.refuse(message, &self.status_text(status, "")).await
    }

    async fn unsuccessful(
        &self,
        message: &Outgoing,
        response: Response<Incoming>,
        in_session: bool,
        undecided: bool,
    ) -> Outcome {
        let status = response.status();
        if status == StatusCode::NOT_FOUND && in_session {
            self.lose();
            return Outcome::Done;
        }
        let body = self.endpoint.whole(response.into_body()).await.unwrap_or_default();
        let spoken = wire::read(&body).ok();
        if in_session && status == StatusCode::BAD_REQUEST && is_session_gone(spoken.as_ref()) {
            self.lose();
            return Outcome::Done;
        }
        match spoken {
            Some(Message::Response { .. } | Message::Error { .. }) => {
                self.spoke.store(true, Relaxed);
                self.json(message, &body).await
            }
            Some(Message::Request { .. } | Message::Notification { .. }) | None => {
                let why = self.status_text(status, "");
                let older = matches!(
                    status,
                    StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED
                );
                if undecided && older {
                    return Outcome::NotStreamable(why);
                }
                if status.is_server_error() {
                    return self.broken(message, &why, Way::Lost).await;
                }
                self.refuse(message, &why).await
            }
        }
    }

    fn status_text(&self, status: StatusCode, more: &str) -> String {
        let reason = status.canonical_reason().unwrap_or_default();
        let hint = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "; check the entry's headers",
            _ => "",
        };
        let text =
            format!("{} answered with HTTP status {} {reason} {more}", self.endpoint.name, status.as_u16());
        format!("{}{hint}", text.trim_end())
    }

    /// Answers a request in the server's place.
    pub(crate) async fn refuse(&self, message: &Outgoing, why: &str) -> Outcome {
        if let Some(id) = &message.id {
            self.output.line(build::error(Some(id), INTERNAL_ERROR, why)).await;
        }
        Outcome::Done
    }

    /// The same where the way to the server is what failed.
    async fn broken(&self, message: &Outgoing, why: &str, way: Way) -> Outcome {
        if let Some(id) = &message.id {
            self.output.line(build::broken(id, why, way)).await;
        }
        Outcome::Done
    }

    /// Hands on a body that should be the answer.
    async fn json(&self, message: &Outgoing, body: &[u8]) -> Outcome {
        let Some(id) = &message.id else { return Outcome::Done };
        let Ok(text) = std::str::from_utf8(body) else {
            return self.refuse(message, "the server's answer is not UTF-8").await;
        };
        let line = match wire::read(body) {
            Ok(Message::Error { id: None, error }) => error_line(id, error),
            Ok(Message::Response { id, .. } | Message::Error { id: Some(id), .. })
                if message.is_answered_by(id) =>
            {
                one_line(text).into_owned()
            }
            Err(wire::BadMessage::Batch) => one_line(text).into_owned(),
            Ok(_) | Err(_) => return self.refuse(message, "the server answered with something else").await,
        };
        let line = self.learned(message, line);
        self.output.line(line).await;
        Outcome::Done
    }

    /// Remembers what later messages need: the version that a legacy handshake agreed on, and the
    /// headers that tools want. The answer comes back as it is to be handed on.
    fn learned(&self, message: &Outgoing, answer: String) -> String {
        if message.is_initialize()
            && let Ok(Message::Response { result, .. }) = wire::read(answer.as_bytes())
        {
            let version = member(result, "protocolVersion").and_then(text_of);
            let version = version.and_then(|version| HeaderValue::from_str(&version).ok());
            self.session().version = version;
        }
        let is_list = message.modern.is_some() && message.method == "tools/list";
        let without_wrong = if is_list { self.tools().learn(&answer) } else { None };
        without_wrong.unwrap_or(answer)
    }

    /// Hands on a stream of events up to the answer in it.
    async fn stream(&self, message: &Outgoing, body: Incoming) -> Outcome {
        let mut tail = Tail::default();
        let mut broken = self.follow(Some(message), body, &mut tail).await;
        let mut attempts = 0;
        while message.id.is_some() && !tail.answered {
            if let Some(why) = broken {
                return self.refuse(message, &why).await;
            }
            attempts = if std::mem::take(&mut tail.any) { 0 } else { attempts + 1 };
            let resumable = message.modern.is_none() && tail.id.is_some() && attempts < RESUMES_MAX;
            if !resumable {
                return self.broken(message, "the server's stream ended before its answer", Way::Lost).await;
            }
            tokio::time::sleep(tail.wait()).await;
            broken = match self.reopen(&tail).await {
                Ok(response) if is_stream(&response) => {
                    self.follow(Some(message), response.into_body(), &mut tail).await
                }
                Ok(response) if response.status() == StatusCode::NOT_FOUND && self.in_session() => {
                    self.lose();
                    return Outcome::Done;
                }
                Ok(response) => Some(self.status_text(response.status(), "when its stream was resumed")),
                Err(_unreachable) => None,
            };
        }
        Outcome::Done
    }

    /// Opens a stream with GET, after the last event if there was one.
    async fn reopen(&self, tail: &Tail) -> Result<Response<Incoming>, Unanswered> {
        let mut headers = self.headers(None);
        if let Some(id) = tail.id.as_ref().and_then(|id| HeaderValue::from_str(id).ok()) {
            headers.insert(LAST_EVENT, id);
        }
        self.endpoint.send(&self.endpoint.uri, Method::GET, &headers, Bytes::new()).await
    }

    /// Hands on the events of one response until it ends, or, some time after the answer to
    /// `message`, lets go of it. An error is one that resuming cannot mend.
    async fn follow(
        &self,
        message: Option<&Outgoing>,
        mut body: Incoming,
        tail: &mut Tail,
    ) -> Option<String> {
        let mut decoder = Decoder::new(self.endpoint.bytes_max);
        let mut events = Vec::new();
        loop {
            let next = if tail.answered {
                tokio::time::timeout(DRAIN, body.frame()).await.ok().flatten()
            } else {
                body.frame().await
            };
            let Some(Ok(frame)) = next else { return None };
            let Ok(data) = frame.into_data() else { continue };
            decoder.push(&data, &mut |event| events.push(Event::from(event)));
            tail.learn(&decoder);
            for event in events.drain(..) {
                if let Some(text) = tail.take(event) {
                    self.event(message, &text, tail).await;
                }
            }
            if decoder.dropped() > 0 && message.is_some() && !tail.answered {
                let (name, max) = (&self.endpoint.name, self.endpoint.bytes_max);
                return Some(format!("answer of {name} is over the limit of {max} bytes"));
            }
        }
    }

    async fn event(&self, message: Option<&Outgoing>, text: &str, tail: &mut Tail) {
        let mut line = None;
        if let Some((message, own)) = message.and_then(|message| Some((message, message.id.as_ref()?))) {
            match wire::read(text.as_bytes()) {
                Ok(Message::Error { id: None, error }) => {
                    tail.answered = true;
                    line = Some(error_line(own, error));
                }
                Ok(Message::Response { id, .. } | Message::Error { id: Some(id), .. }) => {
                    if message.is_answered_by(id) {
                        tail.answered = true;
                        line = Some(self.learned(message, one_line(text).into_owned()));
                    }
                }
                Ok(Message::Request { .. } | Message::Notification { .. }) | Err(_) => {}
            }
        }
        self.output.line(line.unwrap_or_else(|| one_line(text).into_owned())).await;
    }

    /// Hands on what the server says of its own accord, as long as the session lives and the
    /// server offers such a stream.
    pub(crate) async fn listen(&self) {
        let mut tail = Tail::default();
        let (mut pause, mut offered) = (RETRY, false);
        loop {
            match self.reopen(&tail).await {
                Ok(response) if is_stream(&response) => {
                    offered = true;
                    self.follow(None, response.into_body(), &mut tail).await;
                }
                Ok(response) if response.status().is_server_error() => {}
                Ok(response) => {
                    if offered && response.status() == StatusCode::NOT_FOUND && self.in_session() {
                        self.lose();
                    }
                    return;
                }
                Err(_unreachable) => {}
            }
            pause = if std::mem::take(&mut tail.any) { tail.wait() } else { (pause * 2).min(RETRY_MAX) };
            tokio::time::sleep(pause).await;
        }
    }

    /// Tells the server that its session is over, if it has one.
    pub(crate) async fn end_session(&self) {
        if *self.lost.borrow() || !self.in_session() {
            return;
        }
        let headers = self.headers(None);
        let _best_effort =
            self.endpoint.send(&self.endpoint.uri, Method::DELETE, &headers, Bytes::new()).await;
    }
}

fn error_line(id: &RawValue, error: &RawValue) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{}}}"#, one_line(error.get()))
}

/// Servers that keep no record of ended sessions answer so instead of with 404.
fn is_session_gone(spoken: Option<&Message<'_>>) -> bool {
    let Some(Message::Error { id: None, error }) = spoken else { return false };
    let words = wire::RpcError::read(error).message.to_ascii_lowercase();
    words.contains("session") || words.contains("not initialized")
}

/// The media type of a response, in small letters, without parameters.
pub(crate) fn content_type(response: &Response<Incoming>) -> String {
    let value = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = value.and_then(|value| value.split(';').next()).unwrap_or_default();
    kind.trim().to_ascii_lowercase()
}

pub(crate) fn is_stream(response: &Response<Incoming>) -> bool {
    response.status() == StatusCode::OK && content_type(response) == "text/event-stream"
}
