//! The real clock.
//!
//! The only place besides the daemon's start that may ask what time it is.

use crate::model::time::{Span, Timestamp};
use crate::world::Clock;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The system's wall clock, and tokio's timer.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let millis = |length: Duration| i64::try_from(length.as_millis()).unwrap_or(i64::MAX);
        Timestamp(match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => millis(since),
            // A board without a battery may start before 1970.
            Err(before) => -millis(before.duration()),
        })
    }

    fn sleep(&self, span: Span) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(tokio::time::sleep(Duration::from_millis(span.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::SystemClock;
    use crate::model::time::{Span, Timestamp};
    use crate::world::Clock as _;

    #[tokio::test]
    async fn time_goes_on() {
        let start = SystemClock.now();
        assert!(start > Timestamp(1_700_000_000_000));
        SystemClock.sleep(Span::millis(30)).await;
        assert!(SystemClock.now().since(start) >= Span::millis(29));
    }
}
