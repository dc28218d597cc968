//! Streamable HTTP, of both eras, as the streams of a leg.
//!
//! Every line of the leg becomes a POST in a task of its own; what comes back becomes lines (see
//! [`crate::upstream::exchange`]). One task here hands the lines out and knows what is in flight:
//!
//! - A legacy handshake is kept in order: nothing overtakes `notifications/initialized`, and
//!   nothing overtakes the very first message of a server that we know nothing of yet.
//! - `notifications/cancelled` for a modern request drops its response instead: that is how that
//!   era cancels. For a legacy request it is sent, and the response is dropped a little later.
//! - More than [`IN_FLIGHT_MAX`] requests wait their turn here; what needs no answer does not.
//! - A server that refuses the first message as servers of the older HTTP+SSE do is tried as one.
//!
//! Must never wait for a response before it takes the next line, and never send anything of a
//! caller but its message.

use crate::mcp::build;
use crate::mcp::wire::INTERNAL_ERROR;
use crate::model::server::RemoteKind;
use crate::upstream::endpoint::{Endpoint, Remote};
use crate::upstream::exchange::{Link, Outcome};
use crate::upstream::http_sse;
use crate::upstream::leg::LegIo;
use crate::upstream::outgoing::Outgoing;
use crate::upstream::pipe::{Input, Output, Written, pipe};
use crate::world::WorldError;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{AbortHandle, JoinSet};

/// Requests in flight to one server.
pub const IN_FLIGHT_MAX: usize = 256;
/// Notifications and answers that may be in flight beside them.
pub const RESERVE: usize = 64;
/// Messages waiting for their turn.
pub const WAITING_MESSAGES_MAX: usize = 4096;
/// Bytes of messages waiting for their turn.
pub const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long the response to a cancelled legacy request may still come.
pub const CANCELLED_GRACE: Duration = Duration::from_secs(5);
/// How long requests in flight may take when the leg has closed its input.
pub const END_GRACE: Duration = Duration::from_secs(5);
/// How long the end of a session may take to be told.
pub const DELETE_TIMEOUT: Duration = Duration::from_secs(3);

/// The streams of a server reached over HTTP: streamable HTTP, or HTTP+SSE if `kind` says so or
/// the server turns out to speak that. Nothing is connected before the first message; what goes
/// wrong then is an answer to that message.
///
/// Must be called within a tokio runtime.
///
/// # Errors
/// When the URL or a header cannot be used, or no TLS roots are found.
pub fn connect(remote: &Remote) -> Result<LegIo, WorldError> {
    let endpoint = Endpoint::new(remote)?;
    let (io, input, output) = pipe(remote.message_bytes_max);
    let driver = Driver::new(Link::new(endpoint, output), remote.kind);
    tokio::spawn(driver.run(input, remote.kind == Some(RemoteKind::Sse)));
    Ok(io)
}

/// A request under way.
struct InFlight {
    task: AbortHandle,
    modern: bool,
    /// Whether others wait for it.
    alone: bool,
}

/// What a task leaves behind.
struct Finished {
    message: Outgoing,
    outcome: Outcome,
    alone: bool,
}

/// Why the work is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The leg reads no more.
    LetGo,
    /// The leg has closed its input, and all was answered.
    InputEnded,
    /// The server does not know our session any more, or its stream is gone.
    Lost,
}

struct Driver {
    link: Arc<Link>,
    tasks: JoinSet<Finished>,
    background: JoinSet<()>,
    in_flight: BTreeMap<String, InFlight>,
    waiting: VecDeque<Outgoing>,
    waiting_bytes: usize,
    /// A message is under way that no other may overtake.
    alone: bool,
    /// Nothing is known yet of how the server speaks.
    undecided: bool,
}

impl Driver {
    fn new(link: Link, kind: Option<RemoteKind>) -> Self {
        Self {
            link: Arc::new(link),
            tasks: JoinSet::new(),
            background: JoinSet::new(),
            in_flight: BTreeMap::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            alone: false,
            undecided: kind.is_none(),
        }
    }

    async fn run(mut self, input: Input, sse: bool) {
        let output: Output = self.link.output.clone();
        if sse {
            let opened = tokio::select! {
                opened = http_sse::open(&self.link) => opened,
                () = output.closed() => return,
            };
            match opened {
                Ok(stream) => self.listen_to(stream),
                Err(why) => return output.fail(io::Error::other(why)).await,
            }
        }
        let end = self.work(input).await;
        self.tasks.shutdown().await;
        self.background.shutdown().await;
        if end != End::Lost {
            let _best_effort = tokio::time::timeout(DELETE_TIMEOUT, self.link.end_session()).await;
        }
    }

    async fn work(&mut self, mut input: Input) -> End {
        let link = Arc::clone(&self.link);
        let mut reading = true;
        let last_call = tokio::time::sleep(END_GRACE);
        tokio::pin!(last_call);
        loop {
            if !reading && self.tasks.is_empty() && self.waiting.is_empty() {
                return End::InputEnded;
            }
            tokio::select! {
                written = input.next(), if reading => match written {
                    Some(written) => self.take(written).await,
                    None => {
                        reading = false;
                        last_call.as_mut().reset(tokio::time::Instant::now() + END_GRACE);
                    }
                },
                Some(finished) = self.tasks.join_next() => {
                    if let Ok(finished) = finished {
                        self.finish(finished).await;
                    }
                }
                () = link.output.closed() => return End::LetGo,
                () = link.lost() => return End::Lost,
                () = &mut last_call, if !reading => return End::InputEnded,
            }
            self.start_waiting();
            // Their ends mean nothing here, but they must not pile up.
            while self.background.try_join_next().is_some() {}
        }
    }

    async fn take(&mut self, written: Written) {
        let message = match written {
            Written::Message(line) => Outgoing::read(line),
            Written::TooLong { id, bytes } => {
                let max = self.link.endpoint.bytes_max;
                let why = format!("message of {bytes} bytes is over the limit of {max} bytes");
                return self.refuse(id, &why).await;
            }
        };
        let Some(message) = message else { return };
        if let Some(id) = &message.cancels
            && self.cancel(id)
        {
            return;
        }
        if !self.alone && message.id.is_none() && self.tasks.len() < IN_FLIGHT_MAX + RESERVE {
            return self.start(message);
        }
        let bytes = self.waiting_bytes.saturating_add(message.body.len());
        if self.waiting.len() >= WAITING_MESSAGES_MAX || (self.waiting_bytes > 0 && bytes > WAITING_BYTES_MAX)
        {
            self.link.refuse(&message, "too many requests to the server are waiting").await;
            return;
        }
        self.waiting_bytes = bytes;
        self.waiting.push_back(message);
    }

    async fn refuse(&self, id: Option<u64>, why: &str) {
        let id = id.and_then(|id| RawValue::from_string(id.to_string()).ok());
        if let Some(id) = id {
            self.link.output.line(build::error(Some(&id), INTERNAL_ERROR, why)).await;
        }
    }

    /// Cancels a request here; false when the server must be told.
    fn cancel(&mut self, id: &str) -> bool {
        let is_it = |message: &Outgoing| message.id.as_ref().is_some_and(|own| own.get() == id);
        if let Some(at) = self.waiting.iter().position(is_it) {
            if let Some(message) = self.waiting.remove(at) {
                self.waiting_bytes = self.waiting_bytes.saturating_sub(message.body.len());
            }
            return true;
        }
        match self.in_flight.get(id) {
            Some(request) if request.modern => {
                request.task.abort();
                self.alone &= !request.alone;
                self.in_flight.remove(id);
                true
            }
            Some(request) => {
                let task = request.task.clone();
                self.background.spawn(async move {
                    tokio::time::sleep(CANCELLED_GRACE).await;
                    task.abort();
                });
                false
            }
            // Answered meanwhile, or answered elsewhere as the older HTTP+SSE does.
            None => !self.link.is_legacy(),
        }
    }

    fn start_waiting(&mut self) {
        while let Some(message) = self.waiting.front() {
            let room = if message.id.is_some() { IN_FLIGHT_MAX } else { IN_FLIGHT_MAX + RESERVE };
            if self.alone || self.tasks.len() >= room {
                return;
            }
            if let Some(message) = self.waiting.pop_front() {
                self.waiting_bytes = self.waiting_bytes.saturating_sub(message.body.len());
                self.start(message);
            }
        }
    }

    fn start(&mut self, message: Outgoing) {
        let undecided = self.undecided && message.id.is_some();
        let alone = undecided || message.is_initialized();
        self.alone |= alone;
        let key = message.id.as_ref().map(|id| id.get().to_owned());
        let modern = message.modern.is_some();
        let link = Arc::clone(&self.link);
        let task = self.tasks.spawn(async move {
            let outcome = link.exchange(&message, undecided).await;
            Finished { message, outcome, alone }
        });
        if let Some(key) = key {
            self.in_flight.insert(key, InFlight { task, modern, alone });
        }
    }

    async fn finish(&mut self, finished: Finished) {
        let Finished { message, outcome, alone } = finished;
        if let Some(id) = &message.id {
            self.in_flight.remove(id.get());
        }
        self.alone &= !alone;
        self.undecided &= !self.link.has_spoken();
        match outcome {
            Outcome::Done => {
                if message.is_initialized() && self.link.is_legacy() && self.link.post.get().is_none() {
                    let link = Arc::clone(&self.link);
                    self.background.spawn(async move { link.listen().await });
                }
            }
            Outcome::NotStreamable(why) => self.try_older(message, &why).await,
        }
    }

    /// The server may be one of HTTP+SSE; if not, what it said first is the answer.
    async fn try_older(&mut self, message: Outgoing, why: &str) {
        let link = Arc::clone(&self.link);
        let opened = tokio::select! {
            opened = http_sse::open(&link) => opened,
            () = link.output.closed() => return,
        };
        match opened {
            Ok(stream) => {
                self.undecided = false;
                self.listen_to(stream);
                self.start(message);
            }
            Err(_neither) => {
                self.link.refuse(&message, why).await;
            }
        }
    }

    fn listen_to(&mut self, stream: http_sse::Events) {
        let link = Arc::clone(&self.link);
        self.background.spawn(async move { stream.hand_on(&link).await });
    }
}
