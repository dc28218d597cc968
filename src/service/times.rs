//! When the loop looks again by itself.
//!
//! Must never read a clock: times come in as values.

use crate::model::time::{Span, Timestamp};
use crate::plan::Plan;
use crate::service::GAP;

/// Between the beginnings of two passes that only read the load balancer once more.
const READ_AGAIN: Span = Span::secs(1);
/// The first look after one that found the engine or the load balancer away; later ones come after
/// as long as it has been away already, so that neither a short nor a long absence costs much.
const AWAY_AGAIN: Span = Span::secs(5);

/// The wait before the next pass after `failing` lanes in a row that did nothing but fail: most
/// failures have a wait of their own in the memory, this one keeps the rest from spinning.
#[must_use]
pub fn wait_after_failures(failing: u32) -> Span {
    const FIRST: Span = Span::millis(500);
    const MOST: Span = Span::secs(30);
    match failing {
        0 => Span::ZERO,
        n => FIRST.times_capped(1_u64.checked_shl(n - 1).unwrap_or(u64::MAX), MOST),
    }
}

/// When the next pass is due by itself: what the plan waits for, at the latest after `interval`,
/// and not at once again only to read the load balancer.
#[must_use]
pub fn next_pass(plan: &Plan, began: Timestamp, interval: Span) -> Timestamp {
    // What is to be read has no time of its own, and does not wait for something else's.
    let read = (!plan.read_next.is_empty()).then(|| began.after(READ_AGAIN));
    let look = plan.next_look.map(|at| at.max(began.after(if read.is_some() { READ_AGAIN } else { GAP })));
    let latest = began.after(interval);
    read.into_iter().chain(look).min().map_or(latest, |at| at.min(latest))
}

/// When to look again for what has been away since `since`: there is no cheap sign that a network is
/// back, so it is asked soon, then ever less often, at the latest after `interval`.
#[must_use]
pub fn look_again(since: Option<Timestamp>, began: Timestamp, interval: Span) -> Timestamp {
    let wait = since.map_or(interval, |since| began.since(since).max(AWAY_AGAIN).min(interval));
    began.after(wait)
}
