//! What is shown again and again in one place, and a line that says what goes on.
//!
//! On a terminal the same rows are written over; anywhere else each new state is printed once, so
//! that a pipe and a file read well. Must never leave a terminal in another state than it was in.

use crate::terminal::output;
use std::future::Future;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

/// What takes longer than this says so.
const SOON: Duration = Duration::from_secs(1);
/// Between two pictures of the line.
const TICK: Duration = Duration::from_millis(200);
/// One after the other.
const PICTURES: [char; 8] = ['⣾', '⣽', '⣻', '⢿', '⡿', '⣟', '⣯', '⣷'];
/// Rows that are assumed where nobody says.
const ROWS: usize = 24;

/// A place whose content is replaced.
#[derive(Debug)]
pub struct Screen {
    live: bool,
    last: Option<String>,
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}

impl Screen {
    /// Standard output, which is written over when it is a terminal that can do that.
    #[must_use]
    pub fn new() -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { live: std::io::stdout().is_terminal() && !dumb, last: None }
    }

    /// Shows `text` unless it is there already; false when nobody reads any more.
    pub fn show(&mut self, text: &str) -> bool {
        if self.last.as_deref() == Some(text) {
            return true;
        }
        let first = self.last.replace(text.to_owned()).is_none();
        if !self.live {
            return output::try_data(text);
        }
        output::try_data(&frame(text, first, (output::width(), rows())))
    }
}

/// Rows of the terminal.
fn rows() -> usize {
    let seen = rustix::termios::tcgetwinsize(std::io::stdout()).ok().map(|size| usize::from(size.ws_row));
    seen.filter(|rows| *rows > 1).unwrap_or(ROWS)
}

/// Writes over what stands there, without a moment in which nothing does.
fn frame(text: &str, first: bool, (width, rows): (usize, usize)) -> String {
    let mut out = String::from(if first { "\x1b[2J\x1b[H" } else { "\x1b[H" });
    let lines: Vec<&str> = text.lines().collect();
    // One row is the cursor's.
    let room = rows.saturating_sub(1).max(1);
    let shown = if lines.len() > room { room.saturating_sub(1) } else { lines.len() };
    for line in lines.iter().take(shown) {
        out.push_str(&cut(line, width));
        out.push_str("\x1b[K\n");
    }
    if shown < lines.len() {
        out.push_str(&format!("… {} more lines\x1b[K\n", lines.len() - shown));
    }
    out.push_str("\x1b[J");
    out
}

/// The beginning of a line that takes `width` columns; colours take none.
fn cut(line: &str, width: usize) -> String {
    let (mut out, mut column, mut escape, mut painted) = (String::new(), 0, false, false);
    for c in line.chars() {
        if c == '\x1b' {
            (escape, painted) = (true, true);
        } else if escape {
            escape = !c.is_ascii_alphabetic();
        } else {
            column += 1;
            if column > width {
                break;
            }
        }
        out.push(c);
    }
    if painted && column > width {
        out.push_str("\x1b[0m");
    }
    out
}

/// A line on standard error about what goes on; it is gone at the end.
#[derive(Debug, Default)]
pub struct Progress {
    last: String,
    shown: bool,
}

impl Progress {
    /// Says something else. Where nobody sees lines change, each is a line of its own.
    pub fn say(&mut self, text: &str) {
        if self.last == text {
            return;
        }
        text.clone_into(&mut self.last);
        if is_seen() {
            self.paint(text);
        } else {
            output::tell(text);
        }
    }

    fn paint(&mut self, text: &str) {
        self.shown = true;
        let mut err = std::io::stderr().lock();
        let _closed = write!(err, "\r{}\x1b[K", cut(text, output::width().saturating_sub(1)))
            .and_then(|()| err.flush());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let mut err = std::io::stderr().lock();
            let _closed = write!(err, "\r\x1b[K").and_then(|()| err.flush());
        }
    }
}

fn is_seen() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Does `work`, and says on a terminal what it is when it takes long.
pub async fn waiting<T>(what: &str, work: impl Future<Output = T>) -> T {
    if !is_seen() {
        return work.await;
    }
    let begun = tokio::time::Instant::now();
    let mut progress = Progress::default();
    let mut work = std::pin::pin!(work);
    for picture in PICTURES.into_iter().cycle() {
        let wait = if progress.shown { TICK } else { SOON };
        match tokio::time::timeout(wait, work.as_mut()).await {
            Ok(done) => return done,
            Err(_elapsed) => progress.paint(&format!("{picture} {what} ({} s)", begun.elapsed().as_secs())),
        }
    }
    work.await
}

#[cfg(test)]
mod tests {
    use super::{cut, frame};

    #[test]
    fn a_frame_fits_and_covers_what_was_there() {
        let text = "one\ntwo\nthree\nfour\n";
        assert_eq!(
            frame(text, true, (80, 24)),
            "\x1b[2J\x1b[Hone\x1b[K\ntwo\x1b[K\nthree\x1b[K\nfour\x1b[K\n\x1b[J"
        );
        assert_eq!(frame(text, false, (3, 4)), "\x1b[Hone\x1b[K\ntwo\x1b[K\n… 2 more lines\x1b[K\n\x1b[J");
    }

    #[test]
    fn colours_take_no_columns() {
        assert_eq!(cut("\x1b[32mgreen\x1b[0m", 5), "\x1b[32mgreen\x1b[0m");
        assert_eq!(cut("\x1b[32mgreen\x1b[0m", 3), "\x1b[32mgre\x1b[0m");
        assert_eq!(cut("plain", 3), "pla");
    }
}
