//! What an entry asks for of its requests: rates, how many at once, sizes, times, a circuit breaker,
//! kept answers, further tries.
//!
//! Values only; what is decided by them stands in `crate::traffic`. A policy that says nothing costs
//! nothing. Must never hold what a server or a client said.

use crate::model::access::matches;
use crate::model::time::Span;

/// Requests at once that may wait for a server where the entry does not say.
pub const WAITING_DEFAULT: u32 = 100;
/// How long they wait where the entry does not say.
pub const WAIT_DEFAULT: Span = Span::secs(10);
/// Failures that open a circuit where the entry does not say.
pub const FAILURES_DEFAULT: u32 = 5;
/// The time within which they count.
pub const WINDOW_DEFAULT: Span = Span::secs(30);
/// How long a circuit stays open.
pub const OPEN_FOR_DEFAULT: Span = Span::secs(30);
/// How long an answer is kept.
pub const TTL_DEFAULT: Span = Span::secs(60);
/// Bytes of answers that are kept of one server.
pub const CACHE_BYTES_DEFAULT: u64 = 16 * 1024 * 1024;
/// Wait before the first further try; doubles from there.
pub const RETRY_DELAY_DEFAULT: Span = Span::millis(200);

/// All of it, of one server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrafficPolicy {
    /// Most requests of all clients together (`rateLimit`).
    pub rate: Option<Rate>,
    /// Most requests of one client (`rateLimitPerClient`).
    pub client_rate: Option<Rate>,
    /// Most requests at once (`maxConcurrentRequests`, `queue`).
    pub at_once: Option<AtOnce>,
    /// Longest request, in bytes of its params (`maxRequestBytes`).
    pub request_bytes_max: Option<u64>,
    /// Longest answer, in bytes of its result (`maxResponseBytes`).
    pub response_bytes_max: Option<u64>,
    /// How long tools may stay silent, by name or pattern (`tools.timeouts`).
    pub timeouts: Vec<(String, Span)>,
    /// When a server that fails is left alone (`circuitBreaker`).
    pub breaker: Option<BreakerPolicy>,
    /// Which answers are kept (`cache`).
    pub cache: Option<CachePolicy>,
    /// Further tries (`retry`).
    pub retry: Option<RetryPolicy>,
}

impl TrafficPolicy {
    /// Whether it asks for nothing.
    #[must_use]
    pub fn is_open(&self) -> bool {
        *self == Self::default()
    }

    /// How long this tool may stay silent: its own name counts before patterns, and of those the first.
    #[must_use]
    pub fn timeout_of(&self, tool: &str) -> Option<Span> {
        let exact = self.timeouts.iter().find(|(name, _)| name == tool);
        let found = exact.or_else(|| self.timeouts.iter().find(|(pattern, _)| matches(pattern, tool)));
        found.map(|(_, span)| *span)
    }
}

/// A rate, as a bucket that fills by one token in every interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds in which one more request becomes possible; at least 1.
    pub interval_nanos: u64,
    /// Requests that are possible at once after a pause; at least 1.
    pub burst: u32,
}

/// Requests at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtOnce {
    /// At the server; at least 1.
    pub max: u32,
    /// In the queue before it.
    pub waiting_max: u32,
    /// Longest wait there.
    pub wait: Span,
}

/// When a circuit opens and closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// Failures within `window` that open it; at least 1.
    pub failures: u32,
    /// How long a failure counts.
    pub window: Span,
    /// How long it stays open before one request may try.
    pub open_for: Span,
}

/// Which answers are kept, and how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachePolicy {
    /// How long.
    pub ttl: Span,
    /// Bytes of all together.
    pub bytes_max: u64,
    /// Patterns of the tools concerned; `None`: those that say that they only read.
    pub tools: Option<Vec<String>>,
}

impl CachePolicy {
    /// Whether answers of a tool are kept. One that says that it only reads is enough where no tools are
    /// named; that a call may be repeated is not: between two of them somebody may have undone the first.
    #[must_use]
    pub fn admits(&self, tool: &str, hints: Hints) -> bool {
        match &self.tools {
            None => hints.reads,
            Some(patterns) => {
                (hints.reads || hints.repeats) && patterns.iter().any(|pattern| matches(pattern, tool))
            }
        }
    }
}

/// What a tool says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// `annotations.readOnlyHint`.
    pub reads: bool,
    /// `annotations.idempotentHint`.
    pub repeats: bool,
}

/// Further tries of a request that failed on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How many; at least 1.
    pub retries: u32,
    /// Wait before the first; doubles from there.
    pub delay: Span,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tools_own_name_counts_before_patterns() {
        let timeouts = [("get_*", 1), ("*", 2), ("get_all", 3)];
        let timeouts = timeouts.map(|(name, secs)| (name.to_owned(), Span::secs(secs))).to_vec();
        let policy = TrafficPolicy { timeouts, ..TrafficPolicy::default() };
        let of = |tool| policy.timeout_of(tool).unwrap().0 / 1000;
        assert_eq!((of("get_all"), of("get_one"), of("x")), (3, 1, 2));
        assert_eq!(TrafficPolicy::default().timeout_of("x"), None);
        assert!(TrafficPolicy::default().is_open() && !policy.is_open());
    }

    #[test]
    fn what_may_be_repeated_is_kept_only_by_name() {
        let kept = |tools: Option<&[&str]>, reads, repeats| {
            let tools = tools.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
            let policy = CachePolicy { ttl: TTL_DEFAULT, bytes_max: CACHE_BYTES_DEFAULT, tools };
            policy.admits("get_a", Hints { reads, repeats })
        };
        assert!(kept(None, true, false) && !kept(None, false, true) && !kept(None, false, false));
        assert!(kept(Some(&["get_*"]), false, true) && kept(Some(&["get_*"]), true, false));
        assert!(!kept(Some(&["get_*"]), false, false) && !kept(Some(&["x"]), true, true));
    }
}
