//! Restarts of local processes that nobody asked for, counted together with those of containers: what a
//! host bears in a minute is one number, whoever restarts.
//!
//! Containers are restarted by the loop, processes where their pipes are held. Each side is told what the
//! other one did, the loop with every pass. Must never count the first restart of a process that was
//! stable, nor one that somebody asked for.

use crate::gateway::lock;
use crate::model::time::{Span, Timestamp};
use std::sync::Mutex;

/// The time in which restarts of a host are counted.
const WINDOW: Span = Span::secs(60);

/// What a host bears, and what it has had.
#[derive(Debug)]
pub struct Storm(Mutex<Counts>);

#[derive(Debug)]
struct Counts {
    most: usize,
    /// Of local processes, oldest first.
    ours: Vec<Timestamp>,
    /// Of everything else, as the last pass left it.
    theirs: Vec<Timestamp>,
}

impl Default for Storm {
    /// Without a bound, until one is told.
    fn default() -> Self {
        Self(Mutex::new(Counts { most: usize::MAX, ours: Vec::new(), theirs: Vec::new() }))
    }
}

fn counts(at: Timestamp, now: Timestamp) -> bool {
    at <= now && now.since(at) < WINDOW
}

impl Storm {
    /// Tells the bound, and what else was restarted.
    pub fn tell(&self, most: usize, theirs: &[Timestamp]) {
        let mut held = lock(&self.0);
        (held.most, held.theirs) = (most, theirs.to_vec());
    }

    /// Takes the right to one more restart.
    ///
    /// # Errors
    /// When there will be one again.
    pub fn take(&self, now: Timestamp) -> Result<(), Timestamp> {
        let mut held = lock(&self.0);
        held.ours.retain(|at| counts(*at, now));
        let mut all: Vec<Timestamp> = held
            .theirs
            .iter()
            .copied()
            .filter(|at| counts(*at, now))
            .chain(held.ours.iter().copied())
            .collect();
        if all.len() >= held.most {
            all.sort_unstable();
            let oldest = all.iter().rev().nth(held.most.saturating_sub(1)).copied().unwrap_or(now);
            return Err(oldest.after(WINDOW));
        }
        held.ours.push(now);
        Ok(())
    }

    /// Restarts of local processes that still count, oldest first.
    #[must_use]
    pub fn recent(&self, now: Timestamp) -> Vec<Timestamp> {
        lock(&self.0).ours.iter().copied().filter(|at| counts(*at, now)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Storm;
    use crate::model::time::Timestamp;

    fn at(secs: i64) -> Timestamp {
        Timestamp(secs * 1000)
    }

    #[test]
    fn both_sides_count_and_the_window_moves_on() {
        let storm = Storm::default();
        assert!((0..100).all(|_| storm.take(at(0)).is_ok()), "no bound was told");
        let storm = Storm::default();
        storm.tell(3, &[at(10), at(20)]);
        assert_eq!(storm.take(at(30)), Ok(()));
        assert_eq!(storm.take(at(31)), Err(at(70)), "the oldest of the three ends then");
        assert_eq!(storm.recent(at(31)), [at(30)]);
        assert_eq!(storm.take(at(70)), Ok(()));
        storm.tell(1, &[at(75)]);
        assert_eq!(storm.take(at(76)), Err(at(135)), "a lower bound holds at once");
        assert_eq!(storm.recent(at(130)), []);
        assert_eq!(storm.take(at(135)), Ok(()));
    }
}
