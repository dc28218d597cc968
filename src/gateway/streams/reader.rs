//! One connection's reading of a stream, as the body of an answer.
//!
//! Must never hold a message: what it has not passed on is the stream's.

use crate::gateway::streams::{KEEP_ALIVE, Stream, StreamKind, sse};
use bytes::Bytes;
use std::fmt;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::time::Sleep;

/// One connection's reading of a stream. Dropping it is the client's going away.
pub struct EventBody {
    stream: Arc<Stream>,
    reader: u64,
    silence: Option<Pin<Box<Sleep>>>,
}

impl fmt::Debug for EventBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventBody").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl EventBody {
    pub(super) fn new(stream: Arc<Stream>, reader: u64) -> Self {
        Self { stream, reader, silence: None }
    }

    /// The next bytes of `text/event-stream`: all events that are there, or after a time of
    /// silence a comment. `None` at the end.
    pub fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Poll::Ready(bytes) = self.stream.take(self.reader, cx) {
            if let Some(silence) = &mut self.silence {
                silence.as_mut().reset(tokio::time::sleep(KEEP_ALIVE).deadline());
            }
            self.stream.after(None);
            return Poll::Ready(bytes);
        }
        let silence = self.silence.get_or_insert_with(|| Box::pin(tokio::time::sleep(KEEP_ALIVE)));
        if silence.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        silence.as_mut().reset(tokio::time::sleep(KEEP_ALIVE).deadline());
        let mut out = Vec::new();
        sse::comment(&mut out, "keep-alive");
        Poll::Ready(Some(Bytes::from(out)))
    }

    /// The next bytes of events, without comments in between. `None` at the end.
    pub fn poll_events(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let polled = self.stream.take(self.reader, cx);
        if polled.is_ready() {
            self.stream.after(None);
        }
        polled
    }

    /// What ends this connection from outside.
    #[must_use]
    pub fn ender(&self) -> Ender {
        Ender { stream: Arc::clone(&self.stream), reader: self.reader }
    }
}

impl Drop for EventBody {
    fn drop(&mut self) {
        self.stream.leave(self.reader);
    }
}

/// Ends one connection's reading; the stream stays.
#[derive(Debug)]
pub struct Ender {
    stream: Arc<Stream>,
    reader: u64,
}

impl Ender {
    /// What the connection reads.
    #[must_use]
    pub fn kind(&self) -> StreamKind {
        self.stream.kind()
    }

    /// Ends it, unless it ended.
    pub fn end(&self) {
        self.stream.leave(self.reader);
    }
}
