//! What a server printed beside its messages: the last lines, for `logs NAME`.
//!
//! Outlives the server, not the daemon; the journal has it all. Must never hold more than its
//! bounds, and never a line of protocol traffic.

use crate::upstream::table::Diagnostic;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use tokio::sync::watch;

/// Lines kept per server.
pub const LINES_MAX: usize = 1000;
/// Bytes kept per server.
pub const BYTES_MAX: usize = 256 * 1024;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Counts the server's lines from 1.
    pub number: u64,
    /// `stderr`, or `stdout` for what was no message there.
    pub stream: &'static str,
    /// The text.
    pub text: String,
}

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<LogLine>,
    bytes: usize,
    newest: u64,
}

/// The last lines of one server.
#[derive(Debug)]
pub struct LogRing {
    ring: Mutex<Ring>,
    newest: watch::Sender<u64>,
}

impl Default for LogRing {
    fn default() -> Self {
        Self { ring: Mutex::default(), newest: watch::Sender::new(0) }
    }
}

impl LogRing {
    /// Adds a line.
    pub fn push(&self, said: Diagnostic) {
        let (stream, text) = match said {
            Diagnostic::Stderr(text) => ("stderr", text),
            Diagnostic::Noise(text) => ("stdout", text),
        };
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.newest += 1;
        ring.bytes += text.len();
        let number = ring.newest;
        ring.lines.push_back(LogLine { number, stream, text });
        while ring.lines.len() > LINES_MAX || ring.bytes > BYTES_MAX {
            let Some(old) = ring.lines.pop_front() else { break };
            ring.bytes -= old.text.len();
        }
        drop(ring);
        self.newest.send_replace(number);
    }

    /// Lines after `number`, at most the last `tail`.
    #[must_use]
    pub fn after(&self, number: u64, tail: usize) -> Vec<LogLine> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let new = ring.lines.iter().filter(|line| line.number > number);
        let skip = new.clone().count().saturating_sub(tail);
        new.skip(skip).cloned().collect()
    }

    /// Waits until there is a line after `number`.
    pub async fn wait(&self, number: u64) {
        let mut newest = self.newest.subscribe();
        let _dropped = newest.wait_for(|newest| *newest > number).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_stay_within_bounds() {
        let ring = LogRing::default();
        for n in 0..2 * LINES_MAX {
            ring.push(Diagnostic::Stderr(format!("line {n}")));
        }
        let all = ring.after(0, usize::MAX);
        assert_eq!((all.len(), all.last().map(|l| l.number)), (LINES_MAX, Some(2000)));
        assert_eq!(ring.after(1990, 3).iter().map(|l| l.number).collect::<Vec<_>>(), [1998, 1999, 2000]);
        ring.push(Diagnostic::Noise("x".repeat(BYTES_MAX)));
        let all = ring.after(0, usize::MAX);
        assert_eq!((all.len(), all.first().map(|l| l.stream)), (1, Some("stdout")));
    }
}
