//! Readers out of a stream of tagged chunks, as a container engine's attach gives them.
//!
//! An engine sends output and error stream interleaved over one connection, cut anywhere: a chunk
//! of one may arrive in the middle of a line of the other. Each side becomes a reader of its own.
//!
//! Both readers must be drained by tasks that never wait (as a leg's do): they share a connection,
//! so an unread one holds up the other once its few chunks of room are used.
//!
//! Must never mix the two streams or hold more than [`CHUNKS_MAX`] chunks of each.

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;

/// Chunks held for each reader.
pub const CHUNKS_MAX: usize = 16;

/// Which stream a chunk belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Messages.
    Stdout,
    /// Words for people.
    Stderr,
}

/// The reader of one side.
#[derive(Debug)]
pub struct ChunkReader {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    rest: Bytes,
}

impl ChunkReader {
    /// The reader of what is sent into a channel; an error sent ends it.
    pub(crate) const fn of(chunks: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self { chunks, rest: Bytes::new() }
    }
}

impl AsyncRead for ChunkReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.chunks.poll_recv(cx)) {
                Some(Ok(chunk)) => self.rest = chunk,
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => return Poll::Ready(Ok(())),
            }
        }
        let n = self.rest.len().min(buffer.remaining());
        buffer.put_slice(self.rest.get(..n).unwrap_or_default());
        self.rest.advance(n);
        Poll::Ready(Ok(()))
    }
}

/// Splits a stream of chunks into the readers of its two sides. The task that feeds them ends with
/// the stream, or when the messages' reader is dropped.
///
/// Must be called within a tokio runtime.
#[must_use]
pub fn split(
    chunks: impl Stream<Item = io::Result<(Side, Bytes)>> + Send + 'static,
) -> (ChunkReader, ChunkReader) {
    let (out, stdout) = mpsc::channel(CHUNKS_MAX);
    let (err, stderr) = mpsc::channel(CHUNKS_MAX);
    tokio::spawn(async move {
        let mut chunks = std::pin::pin!(chunks);
        loop {
            let next = tokio::select! {
                next = chunks.next() => next,
                () = out.closed() => break,
            };
            let taken = match next {
                None => break,
                Some(Ok((Side::Stdout, chunk))) => out.send(Ok(chunk)).await.is_ok(),
                Some(Ok((Side::Stderr, chunk))) => {
                    let _nobody_reads = err.send(Ok(chunk)).await;
                    true
                }
                Some(Err(error)) => {
                    let _gone = out.send(Err(error)).await;
                    false
                }
            };
            if !taken {
                break;
            }
        }
    });
    let reader = |chunks| ChunkReader { chunks, rest: Bytes::new() };
    (reader(stdout), reader(stderr))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn sides_are_kept_apart_and_whole() {
        let chunk = |side, text: &'static str| Ok((side, Bytes::from_static(text.as_bytes())));
        let chunks = futures_util::stream::iter(vec![
            chunk(Side::Stdout, "{\"a\":"),
            chunk(Side::Stderr, "warn"),
            chunk(Side::Stdout, ""),
            chunk(Side::Stdout, "1}\n"),
            chunk(Side::Stderr, "ing\n"),
        ]);
        let (mut stdout, mut stderr) = split(chunks);
        let (mut out, mut err) = (String::new(), String::new());
        stdout.read_to_string(&mut out).await.expect("stdout");
        stderr.read_to_string(&mut err).await.expect("stderr");
        assert_eq!((out.as_str(), err.as_str()), ("{\"a\":1}\n", "warning\n"));
    }

    #[tokio::test]
    async fn an_error_is_an_error_of_the_messages() {
        let chunks = futures_util::stream::iter(vec![Err(io::Error::other("gone"))]);
        let (mut stdout, _stderr) = split(chunks);
        assert!(stdout.read_u8().await.is_err_and(|e| e.to_string() == "gone"));
    }

    #[tokio::test]
    async fn a_dropped_reader_ends_the_feed() {
        let (alive, gone) = tokio::sync::oneshot::channel::<()>();
        let chunks = futures_util::stream::unfold(alive, |alive| async move {
            std::future::pending::<()>().await;
            Some((Ok((Side::Stdout, Bytes::new())), alive))
        });
        drop(split(chunks));
        assert!(gone.await.is_err());
    }
}
