//! Moves a leg's bytes: three tasks that never wait for each other.
//!
//! A server with blocking writes stops reading while its output is full. If our reader ever waited
//! for our writer, both sides would stand still with full pipes; so the reader waits for nothing
//! but bytes, and the writer for nothing but room.
//!
//! Must never await anything but its own stream (and the end of the leg).

use crate::mcp::lines::{Assembler, Line};
use crate::upstream::error::CloseReason;
use crate::upstream::table::{Diagnostic, Outbound, Shared};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

/// Read at once from a server that has much to say.
const CHUNK_BYTES: usize = 64 * 1024;
/// Read at once from one that has not shown that yet.
const FIRST_CHUNK_BYTES: usize = 2 * 1024;
/// By how much more is read at once after a read that filled the room.
const CHUNK_GROWTH: usize = 4;
/// Read at once from an error stream, at first and at most.
const STDERR_CHUNK_BYTES: (usize, usize) = (1024, 4 * 1024);
/// Short messages are written together up to this many bytes.
const TOGETHER_BYTES: usize = 64 * 1024;
/// The longest line of an error stream; of a longer one only the beginning is shown.
pub const STDERR_LINE_BYTES_MAX: usize = 8 * 1024;
/// After our write failed, the server's last words may still come for this long.
pub const LAST_WORDS: Duration = Duration::from_secs(1);

/// Reads messages until the stream ends, then closes the leg. With `mid_line`, the stream may
/// begin within a line: what is left of it belongs to somebody else and is not shown.
pub(crate) async fn read_messages(
    mut stdout: Box<dyn AsyncRead + Send + Unpin>,
    shared: Arc<Shared>,
    line_bytes_max: usize,
    mid_line: bool,
) {
    let mut lines = Assembler::new(line_bytes_max);
    // Most servers say little: only one that fills the room gets more of it.
    let mut buffer = vec![0; FIRST_CHUNK_BYTES];
    let mut first = mid_line;
    let mut on_line = |line: Line<'_>| {
        let fragment = std::mem::take(&mut first);
        if !shared.on_line(line) && !fragment {
            shared.noise(line);
        }
    };
    let why = loop {
        match stdout.read(&mut buffer).await {
            Ok(0) => break CloseReason::Eof,
            Ok(n) => {
                shared.read_bytes(n);
                lines.push(buffer.get(..n).unwrap_or_default(), &mut on_line);
                make_room(&mut buffer, n, CHUNK_BYTES);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => break CloseReason::ReadFailed(error.to_string()),
        }
    };
    lines.finish(&mut on_line);
    shared.close(&why);
}

/// Makes more room after a read that filled it, up to `at_most` bytes.
fn make_room(buffer: &mut Vec<u8>, filled: usize, at_most: usize) {
    if filled == buffer.len() && filled < at_most {
        *buffer = vec![0; filled.saturating_mul(CHUNK_GROWTH).min(at_most)];
    }
}

/// Writes what is queued until the leg closes or its input is to be closed.
pub(crate) async fn write_messages(
    mut stdin: Box<dyn AsyncWrite + Send + Unpin>,
    shared: Arc<Shared>,
    mut outbound: mpsc::Receiver<Outbound>,
) {
    let written = tokio::select! {
        written = write_all_queued(&mut stdin, &shared, &mut outbound) => written,
        _ = shared.closed() => return,
    };
    // From here on nobody can queue anything.
    outbound.close();
    let failed = match written {
        Ok(()) => stdin.shutdown().await.err(),
        Err(error) => Some(error),
    };
    if let Some(error) = failed {
        let why = CloseReason::WriteFailed(error.to_string());
        let _eof_came_first = tokio::time::timeout(LAST_WORDS, shared.closed()).await;
        shared.close(&why);
    }
}

async fn write_all_queued(
    stdin: &mut (dyn AsyncWrite + Send + Unpin),
    shared: &Shared,
    outbound: &mut mpsc::Receiver<Outbound>,
) -> std::io::Result<()> {
    let mut together = Vec::new();
    let mut ended = false;
    while !ended {
        let Some(first) = outbound.recv().await else { break };
        let mut next = Some(first);
        while let Some(message) = next.take() {
            match message {
                Outbound::Line { id, line } => {
                    if shared.take_up(id, line.len()) {
                        if together.is_empty() {
                            together = line.into_bytes();
                        } else {
                            together.extend_from_slice(line.as_bytes());
                        }
                    }
                }
                Outbound::End => ended = true,
            }
            if !ended && together.len() < TOGETHER_BYTES {
                next = outbound.try_recv().ok();
            }
        }
        stdin.write_all(&together).await?;
        stdin.flush().await?;
        shared.wrote_bytes(together.len());
        together.clear();
        together.shrink_to(TOGETHER_BYTES);
    }
    Ok(())
}

/// Hands on what the server writes to its error stream, line by line. Its end means nothing.
pub(crate) async fn read_stderr(mut stderr: Box<dyn AsyncRead + Send + Unpin>, shared: Arc<Shared>) {
    let mut lines = Assembler::new(STDERR_LINE_BYTES_MAX);
    let (at_first, at_most) = STDERR_CHUNK_BYTES;
    let mut buffer = vec![0; at_first];
    let mut on_line = |line: Line<'_>| {
        let text = match line {
            Line::Object(bytes) | Line::Batch(bytes) | Line::Noise(bytes) => {
                String::from_utf8_lossy(bytes).into_owned()
            }
            Line::TooLong { bytes, head, .. } => {
                format!("{} ... ({bytes} bytes)", String::from_utf8_lossy(head))
            }
        };
        shared.diagnostic(Diagnostic::Stderr(text));
    };
    loop {
        match stderr.read(&mut buffer).await {
            Ok(0) => break,
            Ok(n) => {
                lines.push(buffer.get(..n).unwrap_or_default(), &mut on_line);
                make_room(&mut buffer, n, at_most);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_gone) => break,
        }
    }
    lines.finish(&mut on_line);
}
