//! Time as a value: the only way in which time enters the pure core.
//!
//! Must never read a clock; callers hand `now` in.

use serde::{Deserialize, Serialize};

/// A point in time: milliseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

/// A length of time in milliseconds, never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Span(pub u64);

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// A span of whole seconds.
    #[must_use]
    pub const fn secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// A span of milliseconds.
    #[must_use]
    pub const fn millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Whole seconds, rounded up, so that a wait shown as `0 s` is over.
    #[must_use]
    pub const fn as_secs_ceil(self) -> u64 {
        self.0.div_ceil(1000)
    }

    /// This span times `factor`, at most `cap`.
    #[must_use]
    pub fn times_capped(self, factor: u64, cap: Self) -> Self {
        Self(self.0.saturating_mul(factor)).min(cap)
    }
}

impl Timestamp {
    /// The point `span` after this one.
    #[must_use]
    pub fn after(self, span: Span) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.0).unwrap_or(i64::MAX)))
    }

    /// Time since `earlier`; zero when `earlier` lies in the future (a clock that went back).
    #[must_use]
    pub fn since(self, earlier: Self) -> Span {
        Span(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl std::fmt::Display for Span {
    /// `950 ms`, `18 s`, `2 min 5 s`, `3 h 10 min`, `4 d 2 h`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 60 * MINUTE;
        const DAY: u64 = 24 * HOUR;
        if self.0 < 1000 {
            return write!(f, "{} ms", self.0);
        }
        let secs = self.as_secs_ceil();
        let (big, unit, rest, small) = match secs {
            s if s < MINUTE => return write!(f, "{s} s"),
            s if s < HOUR => (s / MINUTE, "min", s % MINUTE, "s"),
            s if s < DAY => (s / HOUR, "h", s % HOUR / MINUTE, "min"),
            s => (s / DAY, "d", s % DAY / HOUR, "h"),
        };
        if rest == 0 { write!(f, "{big} {unit}") } else { write!(f, "{big} {unit} {rest} {small}") }
    }
}

#[cfg(test)]
mod tests {
    use super::{Span, Timestamp};

    #[test]
    fn spans_read_like_speech() {
        let shown: Vec<String> = [0, 999, 1000, 59_001, 60_000, 125_000, 3_600_000, 90_000_000]
            .map(|ms| Span(ms).to_string())
            .into();
        assert_eq!(shown, ["0 ms", "999 ms", "1 s", "1 min", "1 min", "2 min 5 s", "1 h", "1 d 1 h"]);
    }

    #[test]
    fn a_clock_that_goes_back_gives_zero() {
        assert_eq!(Timestamp(5).since(Timestamp(9)), Span::ZERO);
        assert_eq!(Timestamp(i64::MAX).after(Span::secs(9)), Timestamp(i64::MAX));
    }
}
