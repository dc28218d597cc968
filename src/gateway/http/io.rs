//! A connection's bytes, with a note whenever the client took some: without it, a client that
//! reads nothing could not be told from one that has nothing to read.
//!
//! And with a short wait at the end for a client that still sends what was refused: closing at once
//! would reset the connection before it read the answer.

use crate::gateway::http::Connection;
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use std::future::Future as _;
use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Sleep;

/// How long a client may go on sending after it was refused.
const LINGER: Duration = Duration::from_secs(1);
/// And how many bytes.
const LINGER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A socket that notes progress.
pub(super) struct Watched<F, S> {
    stream: TokioIo<S>,
    shared: Arc<Connection<F>>,
    /// At the end: until when, and bytes thrown away.
    end: Option<(Pin<Box<Sleep>>, usize)>,
}

impl<F, S: AsyncRead + AsyncWrite + Unpin> Watched<F, S> {
    pub(super) fn new(stream: TokioIo<S>, shared: Arc<Connection<F>>) -> Self {
        Self { stream, shared, end: None }
    }

    fn note(&self, written: Poll<Result<usize>>) -> Poll<Result<usize>> {
        if let Poll::Ready(Ok(1..)) = written {
            self.shared.moved.store(true, Ordering::Relaxed);
        }
        written
    }

    /// Throws away what still comes.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (until, thrown) = self.end.get_or_insert_with(|| (Box::pin(tokio::time::sleep(LINGER)), 0));
        let mut room = [0; 8192];
        while *thrown < LINGER_BYTES_MAX {
            let mut buf = ReadBuf::new(&mut room);
            match Pin::new(&mut self.stream).poll_read(cx, buf.unfilled()) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => *thrown += buf.filled().len(),
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return until.as_mut().poll(cx),
            }
        }
        Poll::Ready(())
    }
}

impl<F, S: AsyncRead + AsyncWrite + Unpin> Read for Watched<F, S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl<F, S: AsyncRead + AsyncWrite + Unpin> Write for Watched<F, S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.note(written)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        if this.end.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        if this.shared.linger.load(Ordering::Relaxed) {
            ready!(this.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.note(written)
    }
}
