//! What is decided of a server's requests by its entry's limits: whether one may go now, later or not
//! at all, and what is done with its answer.
//!
//! - [`rate`] is a token bucket, for all clients and for each.
//! - [`gate`] lets so many requests through at once, and others wait in their order.
//! - [`breaker`] leaves a server alone that fails.
//! - [`cache`] keeps answers, under keys that [`key`] makes.
//!
//! Time is an argument, in nanoseconds or milliseconds since some fixed moment. Whoever calls this
//! holds the locks and does the waiting. Must never look into a result, and never decide by anything
//! but what it is given.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod breaker;
pub mod cache;
pub mod gate;
pub mod key;
pub mod rate;

use crate::model::time::Span;
use crate::model::traffic::RetryPolicy;

/// The longest wait between two tries.
pub const RETRY_WAIT_MAX: Span = Span::secs(30);
/// Further tries of one request, whatever the entry says.
pub const RETRIES_MAX: u32 = 100;

/// How far a request got that has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// The server never saw any of it.
    Nothing,
    /// The server may have done what it asks for.
    Perhaps,
}

/// The wait before the next try of a request, after `tries` further ones; `None`: it is not tried again.
/// `safe` is whether doing it twice is what doing it once is.
#[must_use]
pub fn next_try(policy: &RetryPolicy, tries: u32, (reached, safe): (Reached, bool)) -> Option<Span> {
    let may = safe || reached == Reached::Nothing;
    if !may || tries >= policy.retries.min(RETRIES_MAX) {
        return None;
    }
    let factor = 1_u64.checked_shl(tries).unwrap_or(u64::MAX);
    Some(policy.delay.times_capped(factor, RETRY_WAIT_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_may_have_been_done_is_done_again_only_where_that_is_safe() {
        let policy = RetryPolicy { retries: 3, delay: Span::millis(100) };
        let wait = |tries, how| next_try(&policy, tries, how).map(|span| span.0);
        assert_eq!(wait(0, (Reached::Perhaps, false)), None);
        assert_eq!(wait(0, (Reached::Perhaps, true)), Some(100));
        assert_eq!(
            [0, 1, 2, 3].map(|tries| wait(tries, (Reached::Nothing, false))),
            [Some(100), Some(200), Some(400), None]
        );
    }

    proptest! {
        #[test]
        fn tries_end_and_waits_are_bounded(retries in 0_u32..2_000_000, delay in 0_u64..1 << 40, safe: bool) {
            let policy = RetryPolicy { retries, delay: Span(delay) };
            let mut tries = 0;
            while let Some(wait) = next_try(&policy, tries, (Reached::Nothing, safe)) {
                prop_assert!(wait <= RETRY_WAIT_MAX);
                tries += 1;
                prop_assert!(tries <= RETRIES_MAX);
            }
            prop_assert_eq!(tries, retries.min(RETRIES_MAX));
        }
    }
}
