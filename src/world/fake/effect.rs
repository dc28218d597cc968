//! What happened, in order: one line each, readable by people (`simulate --seed N` prints them).
//!
//! Must never be written from more than one place: [`crate::world::fake::state::State::call`] for the
//! program under test, the events for everybody else.

use crate::model::time::Timestamp;
use std::fmt;

/// When every fake world begins: a round number, so that times in logs are easy to subtract.
pub const START: Timestamp = Timestamp(1_700_000_000_000);
/// Most lines that are kept; a run that makes more is not converging anyway.
pub(crate) const EFFECTS_MAX: usize = 50_000;

/// Who did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The program under test.
    Daemon,
    /// Somebody with a shell.
    Person,
    /// The world by itself: a program that ends, a fault.
    World,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// When.
    pub time: Timestamp,
    /// Who did it.
    pub by: By,
    /// What was done: `create container`, `delete rule`, …
    pub kind: &'static str,
    /// To which thing, by name.
    pub target: String,
    /// The thing was not ours.
    pub foreign: bool,
    /// How it ended, where that is not plain success: `refused: …`, `done, answer lost: …`.
    pub note: String,
}

impl Effect {
    /// Whether the program under test changed the world by it.
    #[must_use]
    pub fn is_change(&self) -> bool {
        self.by == By::Daemon && (self.note.is_empty() || self.note.starts_with(LOST))
    }
}

/// Beginning of the note of an effect that was applied although its answer was an error.
pub(crate) const LOST: &str = "done, but ";

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { time, by, kind, target, foreign, note } = self;
        let millis = time.since(START).0;
        let who = match by {
            By::Daemon => "daemon",
            By::Person => "person",
            By::World => "world",
        };
        write!(f, "{:>6}.{:03} s  {who:<6}  {kind} {target}", millis / 1000, millis % 1000)?;
        if *foreign && *by == By::Daemon {
            f.write_str(" (NOT OURS)")?;
        }
        if note.is_empty() { Ok(()) } else { write!(f, " -- {note}") }
    }
}

#[cfg(test)]
mod tests {
    use super::{By, Effect, START};
    use crate::model::time::Span;

    #[test]
    fn a_line_reads_like_a_sentence() {
        let effect = Effect {
            time: START.after(Span::millis(1_205)),
            by: By::Daemon,
            kind: "create container",
            target: "mcp-a".into(),
            foreign: true,
            note: "refused: name taken".into(),
        };
        assert_eq!(
            effect.to_string(),
            "     1.205 s  daemon  create container mcp-a (NOT OURS) -- refused: name taken"
        );
        assert!(!effect.is_change());
    }
}
