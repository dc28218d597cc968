//! What is in flight on a leg, and what each arriving line does to it.
//!
//! ```text
//! line                         does
//! result or error, id known    wakes its caller
//! result or error, id unknown  counted as late, dropped
//! error without id             noise: we send nothing that cannot be read, but an earlier run may have
//! request ping                 answered
//! any other request            shared leg: refused with -32601, we declared no capabilities;
//!                              dedicated leg: to the oldest caller that listens, else to the owner
//! notifications/progress       to the caller whose token it is, token restored
//! tagged with a subscription   to the caller whose subscription it is, tag restored
//! a list or resource changed   to the leg's owner
//! any other notification       shared leg: to the one caller there is, else dropped, because
//!                              nobody could tell whose it is; dedicated leg: like a request
//! over the limit               fails the call whose id is at one of its ends
//! anything else                noise
//! ```
//!
//! Nothing here waits: a full channel loses progress, notices and diagnostics, counted; never an
//! answer, which has a slot of its own.
//!
//! Must never hand one caller's answer or progress to another, and never use an id twice.

use crate::mcp::lines::Line;
use crate::mcp::meta::SUBSCRIPTION_KEY;
use crate::mcp::wire::{self, METHOD_NOT_FOUND, Message, RpcError};
use crate::mcp::{build, meta};
use crate::model::memory::End;
use crate::upstream::error::{CallError, CloseReason};
use crate::upstream::metrics::{Counters, Metrics, add, count};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};

/// Requests in flight on one leg.
pub const IN_FLIGHT_MAX: usize = 4096;
/// Messages waiting to be written.
pub const QUEUE_MESSAGES_MAX: usize = 4096 + QUEUE_RESERVE;
/// Places in the queue that requests leave free for replies and cancellations.
pub const QUEUE_RESERVE: usize = 64;
/// Bytes waiting to be written; one message alone may be larger.
pub const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes shown of a line that was no message.
pub const NOISE_SHOWN_BYTES_MAX: usize = 4096;

/// A notification of the server.
#[derive(Clone, Debug)]
pub struct Notice {
    /// Its method.
    pub method: String,
    /// Its params as written.
    pub params: Option<Box<RawValue>>,
}

/// A request of the server; its answer goes to [`crate::upstream::leg::Leg::reply`].
#[derive(Clone, Debug)]
pub struct ServerRequest {
    /// As the server wrote it.
    pub id: Box<RawValue>,
    /// Its method.
    pub method: String,
    /// Its params as written.
    pub params: Option<Box<RawValue>>,
}

/// What a server says beside its answers.
#[derive(Clone, Debug)]
pub enum FromServer {
    /// Wants no answer; tokens and tags are those of whoever receives it.
    Notice(Notice),
    /// Wants an answer.
    Request(ServerRequest),
    /// Wanted one, by this method, and was refused: there is nobody who could give it.
    Refused(String),
}

/// Who may be behind a leg.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Routing {
    /// Many callers: what belongs to nobody for certain reaches nobody.
    #[default]
    Shared,
    /// One client: everything is for it.
    Dedicated,
}

/// What a server printed that was no message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Diagnostic {
    /// A line on its error stream.
    Stderr(String),
    /// A line among its messages.
    Noise(String),
    /// It ended: nothing that comes behind is from this run of it.
    End(Box<End>),
    /// Its program is run once more for the same start, to be asked in the other era: what comes behind
    /// is from that run, and the run before is no end of its own.
    Again,
}

/// Where a leg's by-products go; a missing outlet drops them.
#[derive(Clone, Debug, Default)]
pub struct Outlets {
    /// For what belongs to no single call.
    pub owner: Option<mpsc::Sender<FromServer>>,
    /// For what is no message.
    pub diagnostics: Option<mpsc::Sender<Diagnostic>>,
}

/// How the answer to a request reaches its caller.
pub(crate) type Answer = Result<Box<RawValue>, CallError>;

/// Where a caller wants to hear what comes before its answer, and the names it knows things by.
#[derive(Debug)]
pub(crate) struct Listening {
    /// The progress token it asked under.
    pub(crate) token: Option<Box<RawValue>>,
    /// The id of its own request: the tag of its subscription.
    pub(crate) own_id: Option<Box<RawValue>>,
    pub(crate) sink: mpsc::Sender<FromServer>,
}

#[derive(Debug)]
struct Pending {
    answer: oneshot::Sender<Answer>,
    listening: Option<Listening>,
    /// Whether the server may say something on its account without naming it.
    talks: bool,
    /// Whether it is under way for as long as its client likes.
    lasts: bool,
    /// Whether nothing is lost when it is never answered.
    repeatable: bool,
    /// Whether the writer has taken it up: only then is there anything to cancel.
    sent: bool,
}

#[derive(Debug)]
struct Table {
    next_id: u64,
    pending: BTreeMap<u64, Pending>,
    closed: Option<CloseReason>,
}

/// Probes and subscriptions make a server say nothing of its own accord.
fn talks(method: &str) -> bool {
    !matches!(method, "ping" | "server/discover" | "logging/setLevel" | "subscriptions/listen")
}

/// Subscriptions end when somebody ends them.
fn lasts(method: &str) -> bool {
    method == "subscriptions/listen"
}

/// Whoever asked can ask again, and nothing was done for it: lists, and whether a server answers.
fn is_repeatable(method: &str) -> bool {
    method.ends_with("/list") || matches!(method, "ping" | "server/discover")
}

/// What the writer is given.
#[derive(Debug)]
pub(crate) enum Outbound {
    /// A line with its ending; `id` when it is a request.
    Line { id: Option<u64>, line: String },
    /// Close the server's input.
    End,
}

/// The state that reader, writer and callers share.
#[derive(Debug)]
pub(crate) struct Shared {
    table: Mutex<Table>,
    queue: mpsc::Sender<Outbound>,
    queued_bytes: AtomicUsize,
    closed: watch::Sender<Option<CloseReason>>,
    pub(crate) counters: Counters,
    outlets: Outlets,
    routing: Routing,
}

impl Shared {
    /// The state of a new leg whose ids begin at `first_id`, and the writer's end of the queue.
    pub(crate) fn new(first_id: u64, outlets: Outlets, routing: Routing) -> (Self, mpsc::Receiver<Outbound>) {
        let (queue, outbound) = mpsc::channel(QUEUE_MESSAGES_MAX);
        let table = Table { next_id: first_id, pending: BTreeMap::new(), closed: None };
        let shared = Self {
            table: Mutex::new(table),
            queue,
            queued_bytes: AtomicUsize::new(0),
            closed: watch::Sender::new(None),
            counters: Counters::default(),
            outlets,
            routing,
        };
        (shared, outbound)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while holding it; a poisoned table is still whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a request; its answer comes out of the receiver.
    pub(crate) fn enter(
        &self,
        method: &str,
        listening: Option<Listening>,
    ) -> Result<(u64, oneshot::Receiver<Answer>), CallError> {
        let mut table = self.table();
        if let Some(why) = &table.closed {
            return Err(CallError::Unsent(why.clone()));
        }
        if table.pending.len() >= IN_FLIGHT_MAX {
            count(&self.counters.busy);
            return Err(CallError::Busy);
        }
        let id = table.next_id;
        table.next_id = id.wrapping_add(1);
        let (answer, receiver) = oneshot::channel();
        let (talks, lasts, repeatable) = (talks(method), lasts(method), is_repeatable(method));
        table.pending.insert(id, Pending { answer, listening, talks, lasts, repeatable, sent: false });
        Ok((id, receiver))
    }

    /// Takes a request out; true when the server had been told of it and has not answered.
    pub(crate) fn forget(&self, id: u64) -> bool {
        self.table().pending.remove(&id).is_some_and(|pending| pending.sent)
    }

    /// Queues a request's line.
    pub(crate) fn queue_request(&self, id: u64, line: String) -> Result<(), CallError> {
        let waiting = self.queued_bytes.load(Relaxed);
        let full = waiting > 0 && waiting.saturating_add(line.len()) > QUEUE_BYTES_MAX;
        if full || self.queue.capacity() <= QUEUE_RESERVE {
            count(&self.counters.busy);
            return Err(CallError::Busy);
        }
        match self.queue_line(Some(id), line) {
            Ok(()) => {
                count(&self.counters.requests);
                Ok(())
            }
            Err(TrySendError::Full(_)) => Err(CallError::Busy),
            Err(TrySendError::Closed(_)) => Err(CallError::Unsent(self.close_reason())),
        }
    }

    /// Takes a request out and fails its caller; true when the server had been told of it.
    pub(crate) fn cancel(&self, id: u64) -> bool {
        let Some(pending) = self.table().pending.remove(&id) else { return false };
        let _gone = pending.answer.send(Err(CallError::Cancelled));
        pending.sent
    }

    /// Queues a reply or notification of our own; false, and counted, when there is no room at all.
    pub(crate) fn queue_own(&self, line: String) -> bool {
        let queued = self.queue_line(None, line).is_ok();
        if !queued {
            count(&self.counters.dropped);
        }
        queued
    }

    fn queue_line(&self, id: Option<u64>, mut line: String) -> Result<(), TrySendError<Outbound>> {
        line.push('\n');
        let bytes = line.len();
        self.queued_bytes.fetch_add(bytes, Relaxed);
        self.queue.try_send(Outbound::Line { id, line }).inspect_err(|_lost| {
            self.queued_bytes.fetch_sub(bytes, Relaxed);
        })
    }

    /// Asks the writer to close the server's input after what is queued.
    pub(crate) fn queue_end(&self) -> bool {
        self.queue.try_send(Outbound::End).is_ok()
    }

    /// The writer takes up a line: false when its caller is gone and it need not be written.
    pub(crate) fn take_up(&self, id: Option<u64>, bytes: usize) -> bool {
        self.queued_bytes.fetch_sub(bytes, Relaxed);
        let Some(id) = id else { return true };
        self.table().pending.get_mut(&id).map(|pending| pending.sent = true).is_some()
    }

    /// Closes the leg: everybody in flight fails at once. Only the first reason counts.
    pub(crate) fn close(&self, why: &CloseReason) {
        let pending = {
            let mut table = self.table();
            if table.closed.is_some() {
                return;
            }
            table.closed = Some(why.clone());
            std::mem::take(&mut table.pending)
        };
        self.closed.send_replace(Some(why.clone()));
        for pending in pending.into_values() {
            let how = if pending.sent { CallError::Closed } else { CallError::Unsent };
            let _gone = pending.answer.send(Err(how(why.clone())));
        }
    }

    fn close_reason(&self) -> CloseReason {
        self.table().closed.clone().unwrap_or(CloseReason::LetGo)
    }

    /// Whether the leg is closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.table().closed.is_some()
    }

    /// Resolves when the leg is closed.
    pub(crate) async fn closed(&self) -> CloseReason {
        let mut closed = self.closed.subscribe();
        let why = closed.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        why.unwrap_or(CloseReason::LetGo)
    }

    /// Requests that the server is at work on; subscriptions are none.
    pub(crate) fn working(&self) -> usize {
        self.table().pending.values().filter(|pending| !pending.lasts).count()
    }

    /// Those of them that would be lost with the server: lists can be asked for again.
    pub(crate) fn at_stake(&self) -> usize {
        self.table().pending.values().filter(|pending| !pending.lasts && !pending.repeatable).count()
    }

    /// The counters now.
    pub(crate) fn metrics(&self) -> Metrics {
        let mut metrics = self.counters.read();
        metrics.in_flight = u64::try_from(self.table().pending.len()).unwrap_or(u64::MAX);
        metrics.queued_bytes = u64::try_from(self.queued_bytes.load(Relaxed)).unwrap_or(u64::MAX);
        metrics
    }

    /// Takes a line of the server's output; true when it was a message.
    pub(crate) fn on_line(&self, line: Line<'_>) -> bool {
        match line {
            Line::Object(bytes) => self.on_message(bytes),
            Line::Batch(bytes) => match wire::batch(bytes) {
                Ok(parts) => {
                    let mut all = true;
                    for part in parts {
                        all &= self.on_message(part.get().as_bytes());
                    }
                    all
                }
                Err(_no_batch) => false,
            },
            Line::Noise(_) => false,
            Line::TooLong { bytes, head, tail } => {
                count(&self.counters.too_long);
                if let Some(id) = wire::id_at_the_ends(head, tail) {
                    self.answer(id, Err(CallError::TooLong { bytes }));
                }
                true
            }
        }
    }

    fn on_message(&self, bytes: &[u8]) -> bool {
        match wire::read(bytes) {
            Ok(Message::Response { id, result }) => match wire::own_id(id) {
                Some(id) => self.answer(id, Ok(result.to_owned())),
                None => count(&self.counters.late),
            },
            Ok(Message::Error { id: Some(id), error }) => match wire::own_id(id) {
                Some(id) => self.answer(id, Err(CallError::Rpc(RpcError::read(error)))),
                None => count(&self.counters.late),
            },
            Ok(Message::Error { id: None, .. }) => return false,
            Ok(Message::Request { id, method, params }) => self.on_request(id, &method, params),
            Ok(Message::Notification { method, params }) => self.on_notification(&method, params),
            Err(_no_message) => return false,
        }
        true
    }

    fn answer(&self, id: u64, answer: Answer) {
        let Some(pending) = self.table().pending.remove(&id) else {
            count(&self.counters.late);
            return;
        };
        count(if answer.is_ok() { &self.counters.results } else { &self.counters.errors });
        let _gone = pending.answer.send(answer);
    }

    fn on_request(&self, id: &RawValue, method: &str, params: Option<&RawValue>) {
        if method == "ping" {
            count(&self.counters.pings);
            self.queue_own(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#));
            return;
        }
        let request = ServerRequest {
            id: id.to_owned(),
            method: method.to_owned(),
            params: params.map(ToOwned::to_owned),
        };
        let handed = self.routing == Routing::Dedicated && self.carry(FromServer::Request(request));
        if handed {
            count(&self.counters.asked);
        } else {
            count(&self.counters.refused);
            self.to_the_only_one(FromServer::Refused(method.to_owned()));
            let message = "this client offers no requests to the server";
            self.queue_own(build::error(Some(id), METHOD_NOT_FOUND, message));
        }
    }

    fn on_notification(&self, method: &str, params: Option<&RawValue>) {
        if let (Some(params), "notifications/progress") = (params, method) {
            return self.on_progress(params);
        }
        if let Some(params) = params
            && let Some(tag) = meta::meta(params).and_then(|meta| wire::member(meta, SUBSCRIPTION_KEY))
            && let Some(id) = wire::own_id(tag)
        {
            return self.on_tagged(id, method, params);
        }
        let notice = Notice { method: method.to_owned(), params: params.map(ToOwned::to_owned) };
        if matches!(method, "notifications/resources/updated") || method.ends_with("/list_changed") {
            self.own(FromServer::Notice(notice));
        } else if self.routing == Routing::Dedicated {
            if !self.carry(FromServer::Notice(notice)) {
                count(&self.counters.dropped);
            }
        } else if method != "notifications/cancelled" {
            self.to_the_only_one(FromServer::Notice(notice));
        }
    }

    /// On a dedicated leg: to the oldest call that listens, else to the owner.
    fn carry(&self, what: FromServer) -> bool {
        let table = self.table();
        let mut what = what;
        for listening in table.pending.values().filter_map(|pending| pending.listening.as_ref()) {
            match listening.sink.try_send(what) {
                Ok(()) => {
                    count(&self.counters.notices);
                    return true;
                }
                Err(TrySendError::Full(back) | TrySendError::Closed(back)) => what = back,
            }
        }
        drop(table);
        let Some(owner) = &self.outlets.owner else { return false };
        owner.try_send(what).inspect(|()| count(&self.counters.notices)).is_ok()
    }

    /// On a shared leg what names nobody can only be told apart when one call is under way.
    fn to_the_only_one(&self, what: FromServer) {
        let table = self.table();
        let mut talking = table.pending.values().filter(|pending| pending.talks);
        let only = talking.next().filter(|_| talking.next().is_none());
        match only.and_then(|pending| pending.listening.as_ref()) {
            Some(listening) => self.hand(&listening.sink, what, &self.counters.notices),
            None => count(&self.counters.dropped),
        }
    }

    fn own(&self, what: FromServer) {
        if let Some(owner) = &self.outlets.owner {
            self.hand(owner, what, &self.counters.notices);
        }
    }

    fn on_progress(&self, params: &RawValue) {
        let Some(id) = meta::notified_token(params).and_then(wire::own_id) else { return };
        let table = self.table();
        let Some(listening) = table.pending.get(&id).and_then(|pending| pending.listening.as_ref()) else {
            return;
        };
        let restored = match &listening.token {
            Some(token) => meta::with_notified_token(params, token),
            None => Some(params.to_owned()),
        };
        if restored.is_some() {
            let notice = Notice { method: "notifications/progress".to_owned(), params: restored };
            self.hand(&listening.sink, FromServer::Notice(notice), &self.counters.progress);
        }
    }

    /// A notification of the subscription that request `id` opened.
    fn on_tagged(&self, id: u64, method: &str, params: &RawValue) {
        let table = self.table();
        let Some(listening) = table.pending.get(&id).and_then(|pending| pending.listening.as_ref()) else {
            return;
        };
        let restored = match &listening.own_id {
            Some(tag) => meta::with_meta(Some(params), SUBSCRIPTION_KEY, tag.get()),
            None => Some(params.to_owned()),
        };
        let notice = Notice { method: method.to_owned(), params: restored };
        self.hand(&listening.sink, FromServer::Notice(notice), &self.counters.notices);
    }

    fn hand<T>(&self, outlet: &mpsc::Sender<T>, what: T, counter: &std::sync::atomic::AtomicU64) {
        count(if outlet.try_send(what).is_ok() { counter } else { &self.counters.dropped });
    }

    /// A line that was no message.
    pub(crate) fn noise(&self, line: Line<'_>) {
        count(&self.counters.noise);
        let (Line::Object(bytes)
        | Line::Batch(bytes)
        | Line::Noise(bytes)
        | Line::TooLong { head: bytes, .. }) = line;
        let shown = bytes.get(..bytes.len().min(NOISE_SHOWN_BYTES_MAX)).unwrap_or_default();
        self.diagnostic(Diagnostic::Noise(String::from_utf8_lossy(shown).into_owned()));
    }

    /// Something for `logs`.
    pub(crate) fn diagnostic(&self, what: Diagnostic) {
        if let Some(diagnostics) = &self.outlets.diagnostics
            && diagnostics.try_send(what).is_err()
        {
            count(&self.counters.dropped);
        }
    }

    /// Bytes came in.
    pub(crate) fn read_bytes(&self, n: usize) {
        add(&self.counters.bytes_in, n);
    }

    /// Bytes went out.
    pub(crate) fn wrote_bytes(&self, n: usize) {
        add(&self.counters.bytes_out, n);
    }
}
