//! Event streams: what a server says while a request runs, or between requests, on its way to one
//! client.
//!
//! Whoever pushes never waits: a stream holds a bounded queue, and a client that reads too slowly
//! loses progress and log messages of its own and nothing else. A message that must not be lost
//! (an answer, a request of the server) finds room, or the connection is closed and the client
//! fetches the message with the next one.
//!
//! | | stored ([`store::EventStore`], legacy sessions) | unstored (one modern request) |
//! |---|---|---|
//! | event ids | `<stream>-<seq>` | none |
//! | body dropped | waits for the client to resume | [`Stream::abandoned`]: the client has cancelled |
//! | too slow for what must arrive | connection closed, message kept | stream abandoned |
//!
//! Invariant: on one stream every message goes out once, whatever the points where a client comes
//! back (`streams::tests`). A stream has one reader; a later one ends the earlier.

pub mod reader;
pub mod store;
#[cfg(test)]
mod tests;

use crate::gateway::streams::reader::EventBody;
use crate::gateway::streams::store::Dock;
use crate::mcp::sse;
use crate::model::time::Timestamp;
use bytes::Bytes;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::Notify;

/// Messages that wait for a client.
pub const QUEUED_MAX: usize = 1024;
/// Bytes that wait for a client. The message that exceeds it still finds room: one answer may be
/// larger than this.
pub const QUEUED_BYTES_MAX: usize = 1024 * 1024;
/// Bytes that are put into one piece for the socket; larger events go alone, uncopied.
pub const COALESCED_BYTES_MAX: usize = 32 * 1024;
/// Silence after which a comment is sent, well below the 60 s after which load balancers close.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// What clients are told to wait before they come back, in milliseconds.
pub const RETRY_MILLIS: u64 = 3000;
/// Room for the lines around a message.
const FRAMING_BYTES: usize = 64;

/// What a stream answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// A POST: it ends with the answer.
    Post,
    /// A GET, or a subscription: it has no end of its own.
    Get,
}

/// Whether a message may be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// It may, when the client is too slow: progress, logging.
    May,
    /// It may not: answers, requests of the server, changes of lists.
    Must,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It goes out, now or when the client comes back.
    Queued,
    /// The queue was full and the message may be lost.
    Dropped,
    /// It is kept, but the client was too slow: its connection is closed.
    Closed,
    /// The stream is finished or abandoned; nobody will read it.
    Over,
}

/// How a connection begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// With the first message.
    None,
    /// With `retry` and an event that has an id and no data, so that the client can come back
    /// before the first message (from version 2025-11-25 on). Unstored streams have no ids and
    /// send none.
    Priming,
}

/// One stream of messages to one client.
pub struct Stream {
    kind: StreamKind,
    /// The number that its event ids begin with; `None` for an unstored stream.
    number: Option<u64>,
    dock: Weak<Dock>,
    gone: Notify,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What is kept, by ascending number: sent events for replay (stored streams only), then the rest.
    events: VecDeque<Event>,
    /// Number of the newest message; the first is 1.
    newest: u64,
    /// Number of the newest message that any reader took.
    sent: u64,
    /// Messages after `sent`.
    queued: usize,
    /// Their bytes.
    queued_bytes: usize,
    /// Number of the newest message that had to stay and could not.
    lost: u64,
    /// Messages dropped because the client was too slow.
    dropped: u64,
    reader: Option<Reader>,
    readers: u64,
    finished: bool,
    /// When, by the store's clock.
    finished_at: Option<Timestamp>,
    /// Of an unstored stream: the client went away.
    abandoned: bool,
}

struct Event {
    number: u64,
    bytes: Bytes,
    keep: Keep,
}

/// The connection that reads.
struct Reader {
    number: u64,
    /// Number of the next message for it.
    next: u64,
    greeting: Option<Bytes>,
    waker: Option<Waker>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("kind", &self.kind)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl Stream {
    /// A stream without ids and replay, for one modern request.
    #[must_use]
    pub fn unstored(kind: StreamKind) -> Arc<Self> {
        Self::new(kind, None, Weak::new())
    }

    fn new(kind: StreamKind, number: Option<u64>, dock: Weak<Dock>) -> Arc<Self> {
        Arc::new(Self { kind, number, dock, gone: Notify::new(), state: Mutex::default() })
    }

    /// What it answers.
    #[must_use]
    pub fn kind(&self) -> StreamKind {
        self.kind
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether events outlive their sending.
    fn replays(&self) -> bool {
        self.number.is_some()
    }

    /// Sends one JSON-RPC message, without waiting.
    pub fn push(&self, message: &str, keep: Keep) -> Pushed {
        self.push_named("message", message, keep)
    }

    /// Sends an event of another kind, without waiting.
    pub fn push_named(&self, name: &str, data: &str, keep: Keep) -> Pushed {
        let (pushed, waker) = self.put(&mut self.state(), (name, data), keep);
        self.after(waker);
        pushed
    }

    /// Whether anything waits for a reader.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        self.state().queued > 0
    }

    /// Sends a last message, which must not be lost, and ends the stream: one piece on the wire.
    pub fn finish_with(&self, message: &str) -> Pushed {
        let mut state = self.state();
        let (pushed, waker) = self.put(&mut state, ("message", message), Keep::Must);
        let other = self.close(&mut state);
        drop(state);
        self.after(waker.or(other));
        pushed
    }

    /// Ends the stream once everything is out.
    pub fn finish(&self) {
        let waker = self.close(&mut self.state());
        self.after(waker);
    }

    /// Ends the connection that reads now, if any. A stored stream goes on without one, an unstored
    /// one is abandoned.
    pub fn disconnect(&self) {
        let mut state = self.state();
        let waker = self.cut(&mut state);
        drop(state);
        self.after(waker);
    }

    fn cut(&self, state: &mut State) -> Option<Waker> {
        let reader = state.reader.take()?;
        if !self.replays() {
            self.give_up(state);
        }
        reader.waker
    }

    /// Whether a connection reads now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.state().reader.is_some()
    }

    /// Whether it was finished.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.state().finished
    }

    /// Messages dropped so far because the client was too slow.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.state().dropped
    }

    /// Waits until the client of an unstored stream has gone before the end: it has cancelled.
    /// Never ends for a stored stream, nor for one that was read to its end.
    pub async fn abandoned(&self) {
        loop {
            let gone = self.gone.notified();
            if self.state().abandoned {
                return;
            }
            gone.await;
        }
    }

    /// A new connection, from the first message that none had yet. It ends an earlier one.
    #[must_use]
    pub fn body(self: &Arc<Self>, greeting: Greeting) -> EventBody {
        let next = self.state().sent.saturating_add(1);
        self.attach(next, greeting)
    }

    fn attach(self: &Arc<Self>, next: u64, greeting: Greeting) -> EventBody {
        let mut state = self.state();
        state.readers = state.readers.saturating_add(1);
        let number = state.readers;
        let greeting = match (greeting, self.number) {
            (Greeting::Priming, Some(stream)) => {
                let mut out = Vec::with_capacity(FRAMING_BYTES);
                sse::retry(&mut out, RETRY_MILLIS);
                sse::event(&mut out, None, Some(&event_id(stream, next.saturating_sub(1))), "");
                Some(Bytes::from(out))
            }
            _ => None,
        };
        let earlier = state.reader.replace(Reader { number, next, greeting, waker: None });
        drop(state);
        self.after(earlier.and_then(|reader| reader.waker));
        EventBody::new(Arc::clone(self), number)
    }

    fn put(&self, state: &mut State, event: (&str, &str), keep: Keep) -> (Pushed, Option<Waker>) {
        if state.finished || state.abandoned {
            return (Pushed::Over, None);
        }
        let mut pushed = Pushed::Queued;
        let mut waker = None;
        if state.is_full() && keep == Keep::May {
            state.dropped = state.dropped.saturating_add(1);
            return (Pushed::Dropped, None);
        }
        if state.is_full() {
            let freed = state.drop_what_may();
            self.settle(0, freed);
        }
        if state.is_full() {
            // Who reads that slowly comes back for the rest, or never.
            waker = self.cut(state);
            if !self.replays() {
                self.give_up(state);
                return (Pushed::Over, waker);
            }
            pushed = Pushed::Closed;
        }
        state.newest = state.newest.saturating_add(1);
        let bytes = self.encode(state.newest, event);
        state.queued = state.queued.saturating_add(1);
        state.queued_bytes = state.queued_bytes.saturating_add(bytes.len());
        self.settle(bytes.len(), 0);
        state.events.push_back(Event { number: state.newest, bytes, keep });
        (pushed, waker.or_else(|| state.reader.as_mut().and_then(|reader| reader.waker.take())))
    }

    fn encode(&self, number: u64, (name, data): (&str, &str)) -> Bytes {
        let mut out = Vec::with_capacity(data.len().saturating_add(FRAMING_BYTES));
        let id = self.number.map(|stream| event_id(stream, number));
        sse::event(&mut out, Some(name), id.as_deref(), data);
        Bytes::from(out)
    }

    fn close(&self, state: &mut State) -> Option<Waker> {
        if !state.finished {
            state.finished = true;
            state.finished_at = self.dock.upgrade().map(|dock| dock.now());
        }
        state.reader.as_mut().and_then(|reader| reader.waker.take())
    }

    /// An unstored stream whose client is gone.
    fn give_up(&self, state: &mut State) {
        state.abandoned = true;
        state.events.clear();
        self.gone.notify_waiters();
    }

    /// Accounts for bytes kept and let go with the session's bound.
    fn settle(&self, more: usize, less: usize) {
        if (more, less) != (0, 0)
            && self.number.is_some()
            && let Some(dock) = self.dock.upgrade()
        {
            dock.account(more, less);
        }
    }

    /// With the lock let go: wakes, and keeps the session's bound.
    fn after(&self, waker: Option<Waker>) {
        if let Some(waker) = waker {
            waker.wake();
        }
        if self.number.is_some()
            && let Some(dock) = self.dock.upgrade()
        {
            dock.shrink();
        }
    }

    /// The next bytes for a reader; `None` when its connection is to end.
    fn take(&self, reader_number: u64, cx: &Context<'_>) -> Poll<Option<Bytes>> {
        let mut state = self.state();
        let State { events, reader, sent, queued, queued_bytes, finished, .. } = &mut *state;
        let Some(reader) = reader.as_mut().filter(|reader| reader.number == reader_number) else {
            return Poll::Ready(None);
        };
        let from = events.partition_point(|event| event.number < reader.next);
        let mut batch = Batch::new(reader.greeting.take());
        let mut taken = 0;
        for event in events.range(from..) {
            if !batch.add(&event.bytes) {
                break;
            }
            taken += 1;
            reader.next = event.number.saturating_add(1);
            if event.number > *sent {
                *sent = event.number;
                *queued = queued.saturating_sub(1);
                *queued_bytes = queued_bytes.saturating_sub(event.bytes.len());
            }
        }
        if let Some(bytes) = batch.finish() {
            if !self.replays() {
                // Nothing is kept that was sent: what was taken stands in front.
                events.drain(..from.saturating_add(taken));
            }
            return Poll::Ready(Some(bytes));
        }
        if *finished {
            state.reader = None;
            return Poll::Ready(None);
        }
        match &mut reader.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// A reader is gone, or to go.
    fn leave(&self, reader_number: u64) {
        let mut state = self.state();
        if state.reader.as_ref().is_some_and(|reader| reader.number == reader_number) {
            let waker = self.cut(&mut state);
            drop(state);
            self.after(waker);
        }
    }

    /// Lets go of kept events to free some bytes; what was freed.
    fn shed(&self, what: Shed, bytes_over: usize) -> usize {
        let mut state = self.state();
        let State { events, reader, sent, newest, lost, queued, queued_bytes, .. } = &mut *state;
        let offline = reader.is_none();
        // What a reader has yet to take stays for it.
        let taken = reader.as_ref().map_or(*sent, |reader| reader.next.saturating_sub(1).min(*sent));
        let mut freed = 0;
        events.retain(|event| {
            let goes = freed < bytes_over
                && match what {
                    Shed::Sent => event.number <= taken,
                    Shed::Waiting => offline && event.number > *sent,
                    Shed::WaitingButNewest => offline && event.number > *sent && event.number < *newest,
                };
            if goes {
                freed += event.bytes.len();
                if event.number > *sent {
                    *queued = queued.saturating_sub(1);
                    *queued_bytes = queued_bytes.saturating_sub(event.bytes.len());
                }
                if event.keep == Keep::Must {
                    *lost = event.number;
                }
            }
            !goes
        });
        freed
    }

    /// Whether the events after `number` are all here, and `number` was ever sent.
    fn resumes_after(&self, number: u64) -> bool {
        let state = self.state();
        state.lost <= number && number <= state.sent
    }

    /// Since when it is finished, and whether all of it was taken.
    fn ended(&self) -> Option<(Timestamp, bool)> {
        let state = self.state();
        state.finished_at.map(|at| (at, state.reader.is_none() && state.queued == 0))
    }

    /// Ends it for good, whatever is left; the bytes it held.
    fn abolish(&self) -> usize {
        let mut state = self.state();
        let bytes = state.events.drain(..).map(|event| event.bytes.len()).sum();
        (state.queued, state.queued_bytes, state.finished) = (0, 0, true);
        let waker = self.cut(&mut state);
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        bytes
    }
}

impl State {
    fn is_full(&self) -> bool {
        self.queued >= QUEUED_MAX || self.queued_bytes >= QUEUED_BYTES_MAX
    }

    /// Makes room at the cost of what may be lost; the bytes that were freed.
    fn drop_what_may(&mut self) -> usize {
        let Self { events, sent, queued, queued_bytes, dropped, .. } = self;
        let mut freed = 0;
        events.retain(|event| {
            let goes = event.number > *sent && event.keep == Keep::May;
            if goes {
                freed += event.bytes.len();
                *queued = queued.saturating_sub(1);
                *queued_bytes = queued_bytes.saturating_sub(event.bytes.len());
                *dropped = dropped.saturating_add(1);
            }
            !goes
        });
        freed
    }
}

/// What is let go when a session keeps too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shed {
    /// What was sent, and is kept for a client that comes back.
    Sent,
    /// What waits for a client that is away.
    Waiting,
    /// The same without the newest message.
    WaitingButNewest,
}

/// The id of a message, for `Last-Event-ID`.
fn event_id(stream: u64, number: u64) -> String {
    format!("{stream}-{number}")
}

/// Events put together for the socket.
struct Batch {
    first: Option<Bytes>,
    joined: Vec<u8>,
}

impl Batch {
    fn new(first: Option<Bytes>) -> Self {
        Self { first, joined: Vec::new() }
    }

    /// Takes an event, unless what is there makes a piece of its own.
    fn add(&mut self, bytes: &Bytes) -> bool {
        let Some(first) = &self.first else {
            self.first = Some(bytes.clone());
            return true;
        };
        let held = if self.joined.is_empty() { first.len() } else { self.joined.len() };
        if held.saturating_add(bytes.len()) > COALESCED_BYTES_MAX {
            return false;
        }
        if self.joined.is_empty() {
            self.joined.reserve(first.len().saturating_add(bytes.len()));
            self.joined.extend_from_slice(first);
        }
        self.joined.extend_from_slice(bytes);
        true
    }

    fn finish(self) -> Option<Bytes> {
        if self.joined.is_empty() { self.first } else { Some(Bytes::from(self.joined)) }
    }
}
