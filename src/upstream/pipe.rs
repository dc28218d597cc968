//! The streams of a server that is no process: lines in, lines out, made of messages.
//!
//! What the leg writes comes out of [`Input`] line by line; what is put into [`Output`] is what the
//! leg reads. Both are bounded, and neither waits for the other.
//!
//! Must never cut or join messages, and never hold more than one chunk of lines that nobody took.

use crate::mcp::lines::{Assembler, Line};
use crate::mcp::wire::id_at_the_ends;
use crate::upstream::chunks::ChunkReader;
use crate::upstream::leg::LegIo;
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use tokio::io::{AsyncReadExt, DuplexStream};
use tokio::sync::mpsc;

/// Bytes that the leg can write before it has to wait for us.
pub(crate) const INPUT_BYTES_MAX: usize = 64 * 1024;
/// Messages waiting for the leg to read them.
pub(crate) const OUTPUT_MESSAGES_MAX: usize = 64;

/// A message that the leg wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// As written, without its ending.
    Message(Bytes),
    /// Over the limit, and dropped.
    TooLong {
        /// Its id, if it stands at one of its ends.
        id: Option<u64>,
        /// Its length.
        bytes: u64,
    },
}

/// What the leg writes.
#[derive(Debug)]
pub(crate) struct Input {
    stream: DuplexStream,
    lines: Assembler,
    ready: VecDeque<Written>,
    buffer: Vec<u8>,
    ended: bool,
}

impl Input {
    /// The next message; `None` when the leg has closed its end. Nothing is lost when the future
    /// is dropped.
    pub(crate) async fn next(&mut self) -> Option<Written> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Some(message);
            }
            if self.ended {
                return None;
            }
            let n = self.stream.read(&mut self.buffer).await.unwrap_or(0);
            let Self { lines, ready, buffer, .. } = self;
            let mut sink = |line: Line<'_>| ready.extend(written(line));
            if n == 0 {
                self.ended = true;
                lines.finish(&mut sink);
            } else {
                lines.push(buffer.get(..n).unwrap_or_default(), &mut sink);
            }
        }
    }
}

fn written(line: Line<'_>) -> Option<Written> {
    match line {
        Line::Object(bytes) | Line::Batch(bytes) => Some(Written::Message(Bytes::copy_from_slice(bytes))),
        Line::Noise(_) => None,
        Line::TooLong { bytes, head, tail } => {
            Some(Written::TooLong { id: id_at_the_ends(head, tail), bytes })
        }
    }
}

/// What the leg reads. When the last handle is dropped, the leg reads the end of the stream.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    chunks: mpsc::Sender<io::Result<Bytes>>,
}

impl Output {
    /// Puts in a message, which must be one line without its ending; false when nobody reads.
    pub(crate) async fn line(&self, line: impl Into<String>) -> bool {
        let mut line = line.into();
        line.push('\n');
        self.chunks.send(Ok(Bytes::from(line))).await.is_ok()
    }

    /// Puts in bytes as they are; false when nobody reads.
    pub(crate) async fn chunk(&self, chunk: Bytes) -> bool {
        self.chunks.send(Ok(chunk)).await.is_ok()
    }

    /// Ends the stream with an error.
    pub(crate) async fn fail(&self, error: io::Error) {
        let _nobody_reads = self.chunks.send(Err(error)).await;
    }

    /// Resolves when nobody reads any more.
    pub(crate) async fn closed(&self) {
        self.chunks.closed().await;
    }
}

/// A leg's streams and our ends of them; `bytes_max` is the longest message taken from the leg.
pub(crate) fn pipe(bytes_max: usize) -> (LegIo, Input, Output) {
    let (io, stream, output) = raw_pipe();
    let (lines, buffer) = (Assembler::new(bytes_max), vec![0; INPUT_BYTES_MAX]);
    let input = Input { stream, lines, ready: VecDeque::new(), buffer, ended: false };
    (io, input, output)
}

/// A leg's streams, and our ends of them for bytes that pass as they are.
pub(crate) fn raw_pipe() -> (LegIo, DuplexStream, Output) {
    let (stdin, stream) = tokio::io::duplex(INPUT_BYTES_MAX);
    let (chunks, receiver) = mpsc::channel(OUTPUT_MESSAGES_MAX);
    let io = LegIo { stdout: Box::new(ChunkReader::of(receiver)), stdin: Box::new(stdin), stderr: None };
    (io, stream, Output { chunks })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn lines_pass_both_ways_and_ends_are_seen() {
        let (LegIo { mut stdout, mut stdin, .. }, mut input, output) = pipe(8);
        stdin.write_all(b"{\"a\":1}\n\nnoise\n{}").await.expect("room");
        stdin.write_all(b"\n{\"id\":7,\"x\":\"long\"}\n").await.expect("room");
        assert_eq!(input.next().await, Some(Written::Message(Bytes::from_static(b"{\"a\":1}"))));
        assert_eq!(input.next().await, Some(Written::Message(Bytes::from_static(b"{}"))));
        assert_eq!(input.next().await, Some(Written::TooLong { id: Some(7), bytes: 19 }));
        drop(stdin);
        assert_eq!(input.next().await, None);

        assert!(output.line("{}").await);
        output.fail(io::Error::other("gone")).await;
        let mut text = String::new();
        assert!(stdout.read_to_string(&mut text).await.is_err_and(|error| error.to_string() == "gone"));
        drop(stdout);
        output.closed().await;
        assert!(!output.line("{}").await);
    }
}
