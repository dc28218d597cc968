//! What the engine keeps of a container's output, line by line.
//!
//! The engine tells the two streams apart and stamps what it gives with its time; a long line comes
//! in pieces. Must never hold more than [`LINES_MAX`] lines and [`BYTES_MAX`] bytes of one answer.

use crate::docker::DockerEngine;
use crate::docker::errors::world_error;
use crate::model::observed::{LogAsk, LogLine};
use crate::world::WorldError;
use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::StreamExt as _;
use std::time::Duration;
use tokio::time::Instant;

/// Lines of one answer.
const LINES_MAX: usize = 1000;
/// Bytes of one answer; a line that alone is longer is cut.
const BYTES_MAX: usize = 256 * 1024;
/// What comes this close behind a line belongs to the same answer.
const TOGETHER: Duration = Duration::from_millis(50);
/// Longest wait for the engine's next piece of what it has.
const READ_WITHIN: Duration = Duration::from_secs(15);
/// The log of a container that has ended ends at once: who waits for more is not answered faster.
const ENDED_AGAIN: Duration = Duration::from_secs(1);
const NANOS_PER_SEC: u64 = 1_000_000_000;

impl DockerEngine {
    /// Lines of a container's log, oldest first; see [`crate::world::Engine::log`].
    pub(super) async fn read_log(&self, ask: &LogAsk) -> Result<Vec<LogLine>, WorldError> {
        let doing = format!("reading the log of {}", ask.container);
        let client = self.client()?;
        let tail = ask.tail.min(LINES_MAX);
        let follow = ask.wait.0 > 0;
        let options = LogsOptionsBuilder::new()
            .stdout(true)
            .stderr(true)
            .timestamps(true)
            .follow(follow)
            .since(i32::try_from(ask.after / NANOS_PER_SEC).unwrap_or(i32::MAX))
            // Whoever has seen a line wants what came next, not the last of it.
            .tail(&if ask.after == 0 { tail.to_string() } else { "all".to_owned() })
            .build();
        let mut pieces = Box::pin(client.logs(ask.container.as_str(), Some(options)));
        let mut lines = Lines::new(ask.after);
        let end = Instant::now() + Duration::from_millis(ask.wait.0);
        while !lines.is_full() {
            let left = end.saturating_duration_since(Instant::now());
            let wait = match (follow, lines.done.is_empty()) {
                (false, _) => READ_WITHIN,
                (true, true) => left,
                (true, false) => TOGETHER,
            };
            match tokio::time::timeout(wait, pieces.next()).await {
                Ok(Some(Ok(piece))) => lines.take(&piece),
                Ok(Some(Err(error))) => return Err(world_error(&doing, error)),
                Ok(None) => {
                    if follow && lines.done.is_empty() {
                        tokio::time::sleep(ENDED_AGAIN.min(left)).await;
                    }
                    break;
                }
                Err(_nothing_new) => break,
            }
        }
        Ok(lines.last(tail))
    }
}

/// Pieces on their way to lines.
struct Lines {
    after: u64,
    done: Vec<LogLine>,
    bytes: usize,
    /// What came of the line that is not whole yet, of both streams.
    open: [Option<LogLine>; 2],
}

impl Lines {
    const fn new(after: u64) -> Self {
        Self { after, done: Vec::new(), bytes: 0, open: [None, None] }
    }

    const fn is_full(&self) -> bool {
        self.done.len() >= LINES_MAX || self.bytes >= BYTES_MAX
    }

    fn take(&mut self, piece: &LogOutput) {
        let (which, stream, bytes) = match piece {
            LogOutput::StdErr { message } => (1, "stderr", message),
            LogOutput::StdOut { message } | LogOutput::StdIn { message } | LogOutput::Console { message } => {
                (0, "stdout", message)
            }
        };
        let text = String::from_utf8_lossy(bytes);
        for part in text.split_inclusive('\n') {
            let stamped = part.split_once(' ').and_then(|(stamp, rest)| Some((nanos(stamp)?, rest)));
            let (at, rest) = stamped.map_or((None, part), |(at, rest)| (Some(at), rest));
            let Some(open) = self.open.get_mut(which) else { return };
            let line = open.get_or_insert_with(|| LogLine {
                number: at.unwrap_or(self.after),
                stream,
                text: String::new(),
            });
            let room = BYTES_MAX.saturating_sub(line.text.len());
            let whole = rest.trim_end_matches(['\n', '\r']);
            let cut = (0..=room.min(whole.len())).rev().find(|at| whole.is_char_boundary(*at)).unwrap_or(0);
            line.text.push_str(whole.get(..cut).unwrap_or_default());
            if rest.ends_with('\n')
                && let Some(line) = open.take().filter(|line| line.number > self.after)
            {
                self.bytes = self.bytes.saturating_add(line.text.len());
                self.done.push(line);
            }
        }
    }

    /// The last `tail` of them; a line without an end is one when nothing follows.
    fn last(mut self, tail: usize) -> Vec<LogLine> {
        let rest = self.open.into_iter().flatten().filter(|line| line.number > self.after);
        self.done.extend(rest);
        let skip = self.done.len().saturating_sub(tail);
        self.done.split_off(skip)
    }
}

/// The engine's time of a line, in nanoseconds of the Unix epoch.
fn nanos(stamp: &str) -> Option<u64> {
    let time: jiff::Timestamp = stamp.parse().ok()?;
    u64::try_from(time.as_nanosecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::{BYTES_MAX, LINES_MAX, Lines, nanos};
    use bollard::container::LogOutput;

    fn out(text: &str) -> LogOutput {
        LogOutput::StdOut { message: text.to_owned().into() }
    }

    fn err(text: &str) -> LogOutput {
        LogOutput::StdErr { message: text.to_owned().into() }
    }

    fn read(after: u64, pieces: &[LogOutput]) -> Vec<(u64, &'static str, String)> {
        let mut lines = Lines::new(after);
        pieces.iter().for_each(|piece| lines.take(piece));
        lines.last(LINES_MAX).into_iter().map(|line| (line.number, line.stream, line.text)).collect()
    }

    const FIRST: u64 = 1_795_284_000_000_000_001;

    #[test]
    fn streams_are_told_apart_and_pieces_put_together() {
        let pieces = [
            out("2026-11-21T18:00:00.000000001Z a long "),
            err("2026-11-21T18:00:00.000000002Z a warning\r\n"),
            out("2026-11-21T18:00:00.000000003Z line\n"),
            out("2026-11-21T18:00:00.000000004Z \n"),
            out("no stamp\n"),
            err("2026-11-21T18:00:00.000000005Z half"),
        ];
        let all = [
            (FIRST + 1, "stderr", "a warning"),
            (FIRST, "stdout", "a long line"),
            (FIRST + 3, "stdout", ""),
            (FIRST + 4, "stderr", "half"),
        ];
        let all: Vec<_> = all.map(|(at, stream, text)| (at, stream, text.to_owned())).into();
        assert_eq!(read(0, &pieces), all);
        assert_eq!(read(FIRST + 1, &pieces), all[2..]);
        // A terminal's output is one stream without frames.
        let console = LogOutput::Console {
            message: "2026-11-21T18:00:00.000000001Z a\r\n2026-11-21T18:00:00.000000002Z b\r\n".into(),
        };
        assert_eq!(
            read(0, &[console]),
            [(FIRST, "stdout", "a".to_owned()), (FIRST + 1, "stdout", "b".to_owned())]
        );
    }

    #[test]
    fn an_answer_stays_within_bounds() {
        let mut lines = Lines::new(0);
        while !lines.is_full() {
            lines.take(&out("2026-11-21T18:00:00Z x\n"));
        }
        assert_eq!(lines.done.len(), LINES_MAX);
        assert_eq!(lines.last(3).len(), 3);
        let mut lines = Lines::new(0);
        lines.take(&out("2026-11-21T18:00:00Z x"));
        for _ in 0..4 {
            lines.take(&out(&"ä".repeat(BYTES_MAX / 2)));
        }
        lines.take(&out("\n"));
        let cut = lines.last(1).pop().unwrap();
        assert!((BYTES_MAX - 1..=BYTES_MAX).contains(&cut.text.len()), "{}", cut.text.len());
    }

    #[test]
    fn stamps_are_times() {
        assert_eq!(nanos("2026-11-21T18:00:00.000000001Z"), Some(FIRST));
        assert_eq!(nanos("GET"), None);
    }
}
