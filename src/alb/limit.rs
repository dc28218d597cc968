//! A token bucket in front of the API: hosts share the account's rate, so each keeps below it by
//! itself instead of learning the limit from refusals.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How often the API may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Calls that may be made at once after a quiet time, at least 1.
    pub burst: u32,
    /// Calls a second in the long run, at least 1.
    pub per_second: u32,
}

impl Default for Rate {
    /// What the API's documentation gives as an example for reads: 40 at once, 10 a second.
    fn default() -> Self {
        Self { burst: 40, per_second: 10 }
    }
}

/// See the module.
pub(super) struct Bucket {
    /// Between two calls in the long run.
    gap: Duration,
    /// How far ahead of the long run calls may be.
    credit: Duration,
    /// When the next call would be due in the long run.
    due: Mutex<Option<Instant>>,
}

impl Bucket {
    pub(super) fn new(rate: Rate) -> Self {
        let gap = Duration::from_secs(1) / rate.per_second.max(1);
        Self { gap, credit: gap * rate.burst.max(1).saturating_sub(1), due: Mutex::new(None) }
    }

    /// Waits for the right to make one call.
    pub(super) async fn take(&self) {
        let at = {
            let now = Instant::now();
            let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            let mine = due.map_or(now, |due| due.max(now));
            *due = Some(mine + self.gap);
            mine.checked_sub(self.credit).filter(|at| *at > now)
        };
        if let Some(at) = at {
            tokio::time::sleep_until(at).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Bucket, Rate};
    use std::time::Duration;

    #[tokio::test]
    async fn a_burst_is_free_and_the_rest_waits() {
        let bucket = Bucket::new(Rate { burst: 5, per_second: 50 });
        let start = tokio::time::Instant::now();
        for _ in 0..5 {
            bucket.take().await;
        }
        assert!(start.elapsed() < Duration::from_millis(20), "{:?}", start.elapsed());
        for _ in 0..5 {
            bucket.take().await;
        }
        assert!(start.elapsed() >= Duration::from_millis(80), "{:?}", start.elapsed());
    }
}
