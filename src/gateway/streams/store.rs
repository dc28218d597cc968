//! The event streams of one legacy session, kept for a client that comes back.
//!
//! A session without streams holds nothing here: the first one makes the store. Ids begin with the
//! time of that moment, so that an id of an earlier session or process never fits.
//!
//! Must never keep more than [`KEPT_BYTES_MAX`] beside what a connected client is about to take,
//! and one message.

use crate::gateway::streams::reader::EventBody;
use crate::gateway::streams::{Greeting, Shed, Stream, StreamKind};
use crate::model::time::{Span, Timestamp};
use crate::world::Clock;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Bytes a session keeps for replay.
pub const KEPT_BYTES_MAX: usize = 1024 * 1024;
/// How long after its end a stream can be resumed.
pub const KEPT_SPAN: Span = Span::secs(300);
/// Ended streams a session keeps.
pub const ENDED_MAX: usize = 32;
/// Streams a session has; the oldest is cut off beyond.
pub const STREAMS_MAX: usize = 1024;

/// All streams of one session. Dropping it ends them.
pub struct EventStore {
    clock: Arc<dyn Clock>,
    dock: OnceLock<Arc<Dock>>,
}

impl fmt::Debug for EventStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStore").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

/// What the streams of a session share.
pub(super) struct Dock {
    clock: Arc<dyn Clock>,
    bytes: AtomicUsize,
    streams: Mutex<Streams>,
}

struct Streams {
    /// Oldest first.
    all: VecDeque<Arc<Stream>>,
    next: u64,
}

impl EventStore {
    /// An empty store; nothing is allocated.
    #[must_use]
    pub const fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, dock: OnceLock::new() }
    }

    /// A stream for a POST; for a GET the one of the session, made when there is none. It has no
    /// reader until [`Stream::body`].
    pub fn open(&self, kind: StreamKind) -> Arc<Stream> {
        let dock = self.dock.get_or_init(|| Arc::new(Dock::new(Arc::clone(&self.clock))));
        let now = self.clock.now();
        let mut streams = dock.streams();
        streams.tidy(dock, now);
        if kind == StreamKind::Get
            && let Some(stream) = streams.all.iter().find(|s| s.kind() == kind && !s.is_finished())
        {
            return Arc::clone(stream);
        }
        let stream = Stream::new(kind, Some(streams.next), Arc::downgrade(dock));
        streams.next = streams.next.saturating_add(1);
        streams.all.push_back(Arc::clone(&stream));
        stream
    }

    /// Reads on after an event: what came later on that stream, then what comes. `None` when
    /// there is no such stream any more, or not all of it.
    pub fn resume(&self, last_event_id: &str, greeting: Greeting) -> Option<EventBody> {
        let (number, event) = last_event_id.trim().split_once('-')?;
        let (number, event): (u64, u64) = (number.parse().ok()?, event.parse().ok()?);
        let dock = self.dock.get()?;
        let mut streams = dock.streams();
        streams.tidy(dock, self.clock.now());
        let stream = streams.all.iter().find(|stream| stream.number == Some(number)).cloned()?;
        drop(streams);
        if !stream.resumes_after(event) {
            return None;
        }
        Some(stream.attach(event.saturating_add(1), greeting))
    }

    /// Lets go of what was kept long enough; to be called now and then.
    pub fn sweep(&self) {
        if let Some(dock) = self.dock.get() {
            dock.streams().tidy(dock, self.clock.now());
            dock.shrink();
        }
    }

    /// Ends every stream; the session is over.
    pub fn close(&self) {
        if let Some(dock) = self.dock.get() {
            let all = std::mem::take(&mut dock.streams().all);
            for stream in all {
                dock.account(0, stream.abolish());
            }
        }
    }

    /// Bytes kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.dock.get().map_or(0, |dock| dock.bytes.load(Ordering::Relaxed))
    }
}

impl Drop for EventStore {
    fn drop(&mut self) {
        self.close();
    }
}

impl Dock {
    fn new(clock: Arc<dyn Clock>) -> Self {
        let next = u64::try_from(clock.now().0).unwrap_or_default().max(1);
        Self {
            clock,
            bytes: AtomicUsize::new(0),
            streams: Mutex::new(Streams { all: VecDeque::new(), next }),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts bytes kept and let go.
    pub(super) fn account(&self, more: usize, less: usize) {
        self.bytes.fetch_add(more, Ordering::Relaxed);
        self.bytes.fetch_sub(less, Ordering::Relaxed);
    }

    /// Bytes beyond what may be kept.
    fn over(&self) -> usize {
        self.bytes.load(Ordering::Relaxed).saturating_sub(KEPT_BYTES_MAX)
    }

    /// Keeps the bound: first what was sent goes, then what waits for clients that are away,
    /// oldest stream first. The last message of all stays, so that an answer larger than the bound
    /// can be fetched.
    pub(super) fn shrink(&self) {
        if self.over() == 0 {
            return;
        }
        let streams = self.streams();
        let newest = streams.all.len().saturating_sub(1);
        for phase in [Shed::Sent, Shed::Waiting] {
            for (index, stream) in streams.all.iter().enumerate() {
                let what = match phase {
                    Shed::Waiting if index == newest => Shed::WaitingButNewest,
                    phase => phase,
                };
                match self.over() {
                    0 => return,
                    over => self.account(0, stream.shed(what, over)),
                }
            }
        }
    }
}

impl Streams {
    /// Keeps time and number.
    fn tidy(&mut self, dock: &Dock, now: Timestamp) {
        let taken = |stream: &Arc<Stream>| stream.ended().is_some_and(|(_, taken)| taken);
        let mut spare = self.all.iter().filter(|stream| taken(stream)).count().saturating_sub(ENDED_MAX);
        let mut more = (self.all.len() + 1).saturating_sub(STREAMS_MAX);
        self.all.retain(|stream| {
            let (late, taken) = match stream.ended() {
                Some((at, taken)) => (now.since(at) >= KEPT_SPAN, taken),
                None => (false, false),
            };
            let goes = late || more > 0 || (taken && spare > 0);
            if goes {
                spare = spare.saturating_sub(usize::from(taken));
                more = more.saturating_sub(1);
                dock.account(0, stream.abolish());
            }
            !goes
        });
    }
}
