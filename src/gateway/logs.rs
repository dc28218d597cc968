//! What a server printed beside its messages: the last lines, for `logs NAME`; and how it ended last, with
//! its last words.
//!
//! Outlives the server, not the daemon; the journal has it all. Must never hold more than its
//! bounds, and never a line of protocol traffic.

use crate::model::memory::End;
use crate::upstream::table::Diagnostic;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use tokio::sync::watch;

/// Lines kept per server.
pub const LINES_MAX: usize = 1000;
/// Bytes kept per server.
pub const BYTES_MAX: usize = 256 * 1024;

/// Last lines that are kept of an end.
const WORDS_LINES: usize = 3;

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
    /// The newest line before the run of now.
    run_after: u64,
    end: Option<End>,
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
            Diagnostic::End(end) => return self.ended(*end),
            Diagnostic::Again => return self.again(),
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

    fn ended(&self, end: End) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let of_it = ring.lines.iter().filter(|line| line.number > ring.run_after);
        let words = of_it.map(|line| line.text.clone()).filter(|text| !text.trim().is_empty());
        let words: Vec<String> = words.collect();
        let words = words.get(words.len().saturating_sub(WORDS_LINES)..).unwrap_or_default().to_vec();
        ring.run_after = ring.newest;
        ring.end = Some(End { words: Some(words), ..end });
    }

    fn again(&self) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.run_after = ring.newest;
    }

    /// How it ended last, if it did.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).end.clone()
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
    use crate::model::time::Timestamp;

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

    #[test]
    fn last_words_are_of_the_run_that_ended() {
        let ring = LogRing::default();
        assert_eq!(ring.end(), None);
        let say = |text: &str| ring.push(Diagnostic::Stderr(text.to_owned()));
        let end = |at: i64| {
            let how = format!("it exited with code {at}");
            let end = End { at: Timestamp(at), how, oom: None, words: None };
            ring.push(Diagnostic::End(Box::new(end)));
            ring.end().expect("an end")
        };
        for text in ["a", "b", " ", "c", "d", ""] {
            say(text);
        }
        let first = end(1);
        assert_eq!((first.at, first.how.as_str()), (Timestamp(1), "it exited with code 1"));
        assert_eq!(first.words, Some(["b", "c", "d"].map(str::to_owned).to_vec()));
        assert_eq!(end(2).words, Some(Vec::new()), "it said nothing");
        say("e");
        assert_eq!(ring.end().map(|end| end.at), Some(Timestamp(2)), "what runs has not ended");
        assert_eq!(end(3).words, Some(vec!["e".to_owned()]));
        // One start that took two runs of its program is one end, with the words of the second.
        say("no such option");
        ring.push(Diagnostic::Again);
        assert_eq!(ring.end().map(|end| end.at), Some(Timestamp(3)));
        say("no such option");
        assert_eq!(end(4).words, Some(vec!["no such option".to_owned()]));
    }
}
