//! What a server's requests are held to: `rateLimit`, `maxConcurrentRequests`, `circuitBreaker` and
//! their like.
//!
//! Must never take a limit that means nothing: who writes one relies on it.

use crate::config::build::{Builder, Work};
use crate::config::codes;
use crate::config::load::Origin;
use crate::config::merged::Merged;
use crate::config::node::Node;
use crate::config::units;
use crate::model::access::{PATTERN_BYTES_MAX, PATTERNS_MAX};
use crate::model::time::Span;
use crate::model::traffic::{
    AtOnce, BreakerPolicy, CACHE_BYTES_DEFAULT, CachePolicy, FAILURES_DEFAULT, OPEN_FOR_DEFAULT,
    RETRY_DELAY_DEFAULT, Rate, RetryPolicy, TTL_DEFAULT, TrafficPolicy, WAIT_DEFAULT, WAITING_DEFAULT,
    WINDOW_DEFAULT,
};
use std::time::Duration;

/// No request is longer, whatever an entry says (`gateway::http`).
const REQUEST_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// And no answer (`mcp::lines`).
const RESPONSE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Bytes of answers that may be kept of one server.
const CACHE_BYTES_MAX: u64 = 1024 * 1024 * 1024;
const BREAKER: [&str; 3] =
    ["circuitBreaker.failureThreshold", "circuitBreaker.window", "circuitBreaker.openFor"];

/// All of it, merged.
pub(super) fn policy(merged: &Merged) -> TrafficPolicy {
    let timeouts = merged.get("tools.timeouts").map(|value| times(&value.node)).unwrap_or_default();
    TrafficPolicy {
        rate: merged.get("rateLimit").and_then(|value| rate(&value.node)),
        client_rate: merged.get("rateLimitPerClient").and_then(|value| rate(&value.node)),
        at_once: merged.number("maxConcurrentRequests").map(|max| AtOnce {
            max,
            waiting_max: merged.number("queue.length").unwrap_or(WAITING_DEFAULT),
            wait: merged.span("queue.timeout").unwrap_or(WAIT_DEFAULT),
        }),
        request_bytes_max: bytes(merged, "maxRequestBytes"),
        response_bytes_max: bytes(merged, "maxResponseBytes"),
        timeouts,
        breaker: breaks(merged).then(|| BreakerPolicy {
            failures: merged.number("circuitBreaker.failureThreshold").unwrap_or(FAILURES_DEFAULT),
            window: merged.span("circuitBreaker.window").unwrap_or(WINDOW_DEFAULT),
            open_for: merged.span("circuitBreaker.openFor").unwrap_or(OPEN_FOR_DEFAULT),
        }),
        cache: merged.get("cache").and_then(|value| cache(&value.node)),
        retry: merged.number("retry.maxRetries").filter(|retries| *retries > 0).map(|retries| RetryPolicy {
            retries,
            delay: merged.span("retry.delay").unwrap_or(RETRY_DELAY_DEFAULT),
        }),
    }
}

/// The keys that ask for the gateway.
pub(super) fn reasons(merged: &Merged) -> Vec<String> {
    let policy = policy(merged);
    let asked = [
        ("rateLimit", policy.rate.is_some()),
        ("rateLimitPerClient", policy.client_rate.is_some()),
        ("maxConcurrentRequests", policy.at_once.is_some()),
        ("maxRequestBytes", policy.request_bytes_max.is_some()),
        ("maxResponseBytes", policy.response_bytes_max.is_some()),
        ("tools.timeouts", !policy.timeouts.is_empty()),
        ("circuitBreaker", policy.breaker.is_some()),
        ("retry.maxRetries", policy.retry.is_some()),
        ("cache", policy.cache.is_some()),
    ];
    asked.into_iter().filter(|(_, asked)| *asked).map(|(key, _)| key.to_owned()).collect()
}

fn breaks(merged: &Merged) -> bool {
    BREAKER.iter().any(|key| merged.get(key).is_some())
}

fn bytes(merged: &Merged, key: &str) -> Option<u64> {
    units::size_bytes(&merged.text(key)?).ok().and_then(|bytes| u64::try_from(bytes).ok())
}

fn times(node: &Node) -> Vec<(String, Span)> {
    let time = |node: &Node| node.scalar().and_then(|text| units::span(&text).ok());
    node.members().iter().filter_map(|member| Some((member.key.clone(), time(&member.value)?))).collect()
}

/// A number a second, or `{requests, per, burst}`.
fn rate(node: &Node) -> Option<Rate> {
    let number = |node: &Node| node.as_number().and_then(|text| text.parse::<f64>().ok());
    let requests = number(node).or_else(|| node.get("requests").and_then(number))?;
    let per = node.get("per").and_then(Node::scalar);
    let per = per.map_or(Some(Span::secs(1)), |text| units::span(&text).ok())?;
    let burst = node.get("burst").and_then(number).unwrap_or(requests);
    let interval = Duration::from_millis(per.0).as_secs_f64() / requests;
    let nanos = Duration::try_from_secs_f64(interval).ok()?.as_nanos();
    let burst = Duration::try_from_secs_f64(burst.ceil()).ok()?.as_secs();
    Some(Rate {
        interval_nanos: u64::try_from(nanos).unwrap_or(u64::MAX).max(1),
        burst: u32::try_from(burst).unwrap_or(u32::MAX).max(1),
    })
}

fn cache(node: &Node) -> Option<CachePolicy> {
    if node.as_bool() == Some(false) {
        return None;
    }
    let text = |key: &str| node.get(key).and_then(Node::scalar);
    let size = text("maxBytes").and_then(|text| units::size_bytes(&text).ok());
    Some(CachePolicy {
        ttl: text("ttl").and_then(|text| units::span(&text).ok()).unwrap_or(TTL_DEFAULT),
        bytes_max: size.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(CACHE_BYTES_DEFAULT),
        tools: node.get("tools").map(|tools| tools.items().iter().filter_map(Node::scalar).collect()),
    })
}

impl Builder<'_, '_> {
    /// Checks what the tables cannot, and notes what nobody said; false after an error.
    pub(super) fn check_traffic(&mut self, work: &mut Work<'_>) -> bool {
        let mark = self.sink.mark();
        for key in ["rateLimit", "rateLimitPerClient"] {
            let per = work.merged.get(key).and_then(|value| value.node.get("per"));
            self.some_time(&format!("{key}.per"), per);
        }
        for key in ["queue.timeout", "circuitBreaker.window", "circuitBreaker.openFor"] {
            self.some_time(key, work.merged.get(key).map(|value| &value.node));
        }
        self.check_sizes(work);
        self.check_timeouts(work);
        self.check_cache(work);
        if work.merged.get("maxConcurrentRequests").is_none() {
            self.no_effect(work, &["queue.length", "queue.timeout"], "calls without 'maxConcurrentRequests'");
        }
        note_defaults(work);
        !self.sink.since(mark).iter().any(|problem| problem.is_error())
    }

    /// A length of time that is one.
    fn some_time(&mut self, key: &str, node: Option<&Node>) {
        let Some(node) = node else { return };
        let span = node.scalar().and_then(|text| units::span(&text).ok());
        if span == Some(Span::ZERO) {
            self.sink.error(codes::INVALID_VALUE, node.at, format!("'{key}' is no time at all"));
        }
    }

    fn check_sizes(&mut self, work: &Work<'_>) {
        for (key, most) in [("maxRequestBytes", REQUEST_BYTES_MAX), ("maxResponseBytes", RESPONSE_BYTES_MAX)]
        {
            let Some(value) = work.merged.get(key) else { continue };
            match bytes(work.merged, key) {
                None | Some(0) => {
                    let message = format!("'{key}' lets nothing through");
                    self.sink.error(codes::INVALID_VALUE, value.node.at, message);
                }
                Some(bytes) if bytes > most => {
                    let message =
                        format!("'{key}' has no effect: more than {most} bytes are never passed on");
                    self.sink.warning(codes::NO_EFFECT, value.node.at, message);
                }
                Some(_) => {}
            }
        }
    }

    fn check_timeouts(&mut self, work: &Work<'_>) {
        let Some(value) = work.merged.get("tools.timeouts") else { return };
        let members = value.node.members();
        if members.len() > PATTERNS_MAX {
            let message = format!("'tools.timeouts' has more than {PATTERNS_MAX} patterns");
            self.sink.error(codes::INVALID_VALUE, value.node.at, message);
        }
        for member in members {
            if member.key.is_empty() || member.key.len() > PATTERN_BYTES_MAX {
                let message =
                    format!("a pattern of 'tools.timeouts' has from 1 to {PATTERN_BYTES_MAX} characters");
                self.sink.error(codes::INVALID_VALUE, member.key_at, message);
            }
            self.some_time(&format!("tools.timeouts.{}", member.key), Some(&member.value));
        }
    }

    fn check_cache(&mut self, work: &Work<'_>) {
        let Some(value) = work.merged.get("cache") else { return };
        self.some_time("cache.ttl", value.node.get("ttl"));
        if let Some(size) = value.node.get("maxBytes") {
            let bytes = size.scalar().and_then(|text| units::size_bytes(&text).ok());
            let bytes = bytes.and_then(|bytes| u64::try_from(bytes).ok());
            if !bytes.is_some_and(|bytes| (1..=CACHE_BYTES_MAX).contains(&bytes)) {
                let message = format!("'cache.maxBytes' is from 1 to {CACHE_BYTES_MAX} bytes");
                self.sink.error(codes::INVALID_VALUE, size.at, message);
            }
        }
        if let Some(tools) = value.node.get("tools") {
            self.check_patterns("cache.tools", tools);
        }
        let forwards = work.merged.get("forwardHeaders").is_some_and(|names| !names.node.items().is_empty());
        if forwards && value.node.as_bool() != Some(false) {
            let message = "'cache' has no effect beside 'forwardHeaders': answers may differ by client";
            self.sink.warning(codes::NO_EFFECT, value.node.at, message);
        }
    }
}

/// Adds what is built in to what was said in part.
fn note_defaults(work: &mut Work<'_>) {
    let TrafficPolicy { at_once, breaker, retry, .. } = policy(work.merged);
    let mut unsaid: Vec<(&str, String)> = Vec::new();
    if let Some(AtOnce { max: _, waiting_max, wait }) = at_once {
        unsaid.extend([("queue.length", waiting_max.to_string()), ("queue.timeout", wait.to_string())]);
    }
    if let Some(BreakerPolicy { failures, window, open_for }) = breaker {
        let [threshold, within, long] = BREAKER;
        unsaid.extend([
            (threshold, failures.to_string()),
            (within, window.to_string()),
            (long, open_for.to_string()),
        ]);
    }
    if let Some(RetryPolicy { retries: _, delay }) = retry {
        unsaid.push(("retry.delay", delay.to_string()));
    }
    for (key, value) in unsaid {
        if !work.effective.contains_key(key) {
            work.effect(key, value, Origin::Default);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::build::traffic::rate;
    use crate::config::error::Sink;
    use crate::config::json;
    use crate::model::traffic::Rate;

    #[test]
    fn rates_read_as_people_write_them() {
        let of = |text: &str| {
            let mut sink = Sink::new("t", text);
            rate(&json::read(text, &mut sink).expect("JSON"))
                .map(|Rate { interval_nanos, burst }| (interval_nanos, burst))
        };
        assert_eq!(of("20"), Some((50_000_000, 20)));
        assert_eq!(of("0.5"), Some((2_000_000_000, 1)));
        assert_eq!(of(r#"{"requests": 100, "per": "1m"}"#), Some((600_000_000, 100)));
        assert_eq!(of(r#"{"requests": 10, "per": 1, "burst": 2}"#), Some((100_000_000, 2)));
        assert_eq!(of("1000000").map(|rate| rate.0), Some(1_000));
        assert_eq!(of(r#"{"per": 1}"#), None);
    }
}
