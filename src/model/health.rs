//! How well a server is, from probes and what became of its container: a pure machine, one value per
//! server.
//!
//! ```text
//!             answers                    slow, too often
//! Starting ───────────> Healthy <──────────────────────────> Degraded
//!    │                     │ fails, too often                   │
//!    │ start period over   v                                    │
//!    └────────────────> Unhealthy <─────────────────────────────┘
//!         it ended: Critical ──answers──> Unhealthy ──answers, often enough──> Healthy
//! ```
//! Degraded is a word for people: such a server stays behind the balancer and is never restarted.
//! What was not asked, or could not be, changes nothing: unknown is no verdict.
//!
//! Must never read a clock, and never decide what is done about it.

use crate::model::server::HealthPolicy;
use crate::model::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};

/// A probe is slow at this many times the usual, and never below [`SLOW_MIN`].
const SLOW_TIMES: u64 = 4;
/// What is quicker than this is not slow, whatever the usual.
const SLOW_MIN: Span = Span::millis(250);
/// The usual follows a new value by one part in this many.
const BASELINE_PARTS: u64 = 8;
/// Intervals without a verdict after which the last one is old.
const STALE_INTERVALS: u64 = 3;

/// How well a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It was started and has not answered yet.
    Starting,
    /// It answers.
    Healthy,
    /// It answers slowly.
    Degraded,
    /// It runs and does not answer.
    Unhealthy,
    /// It ended, or cannot be reached at all.
    Critical,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Starting, Self::Healthy, Self::Degraded, Self::Unhealthy, Self::Critical];

    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
            Self::Critical => "critical",
        }
    }

    /// Whether requests should be sent there.
    #[must_use]
    pub const fn serves(self) -> bool {
        matches!(self, Self::Healthy | Self::Degraded)
    }
}

/// What happened to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It was started, or started again.
    Started,
    /// It answered after this time.
    Answered(Span),
    /// It did not answer, or not as it should.
    Failed,
    /// It ended, or nobody is there.
    Ended,
    /// It was not asked, or the question could not be put.
    NotAsked,
}

/// A server's health with what was seen last, for whoever decides or looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The verdict.
    pub health: Health,
    /// What is the matter; empty while nothing is.
    pub why: String,
    /// What the last answer took.
    pub latency: Option<Span>,
    /// Requests are under way that may still be answered, until then; told only when it did not
    /// answer.
    pub busy_until: Option<Timestamp>,
}

/// What is known of one server's health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// How well it is.
    pub state: State,
    /// Since when.
    pub since: Timestamp,
    /// When it was started, as far as that was told.
    pub started: Timestamp,
    /// The last verdict.
    pub judged: Timestamp,
    /// Failures in a row.
    pub failures: u32,
    /// Answers in a row.
    pub answers: u32,
    /// Slow answers in a row, and others in a row.
    pub slow: u32,
    /// Answers in a row that were not slow.
    pub quick: u32,
    /// The usual time of an answer; `None` before the first.
    pub usual: Option<Span>,
}

impl Health {
    /// A server that was just started, or seen for the first time.
    #[must_use]
    pub const fn new(now: Timestamp) -> Self {
        Self {
            state: State::Starting,
            since: now,
            started: now,
            judged: now,
            failures: 0,
            answers: 0,
            slow: 0,
            quick: 0,
            usual: None,
        }
    }

    /// Takes an event in.
    pub fn take(&mut self, event: Event, now: Timestamp, policy: &HealthPolicy) {
        match event {
            Event::NotAsked => return,
            Event::Started => {
                // What is usual stays: it is the same program.
                *self = Self { usual: self.usual, ..Self::new(now) };
                return;
            }
            Event::Answered(span) => self.answered(span, now, policy),
            Event::Failed => self.failed(now, policy),
            Event::Ended => {
                (self.answers, self.slow, self.quick) = (0, 0, 0);
                self.failures = self.failures.saturating_add(1);
                self.turn(State::Critical, now);
            }
        }
        self.judged = now;
    }

    fn answered(&mut self, span: Span, now: Timestamp, policy: &HealthPolicy) {
        let slow = self.is_slow(span, policy);
        self.failures = 0;
        self.answers = self.answers.saturating_add(1);
        (self.slow, self.quick) = match slow {
            true => (self.slow.saturating_add(1), 0),
            false => (0, self.quick.saturating_add(1)),
        };
        if !slow || self.usual.is_none() {
            self.learn(span);
        }
        let next = match self.state {
            // One answer is enough at the start.
            State::Starting => State::Healthy,
            State::Healthy if self.slow >= policy.failure_threshold => State::Degraded,
            State::Degraded if self.quick >= policy.recovery_threshold => State::Healthy,
            State::Unhealthy if self.answers >= policy.recovery_threshold => State::Healthy,
            State::Critical if self.answers >= policy.recovery_threshold => State::Healthy,
            State::Critical => State::Unhealthy,
            same => same,
        };
        self.turn(next, now);
    }

    fn failed(&mut self, now: Timestamp, policy: &HealthPolicy) {
        (self.answers, self.slow, self.quick) = (0, 0, 0);
        self.failures = self.failures.saturating_add(1);
        let next = match self.state {
            State::Starting if now.since(self.started) < policy.start_period => State::Starting,
            State::Starting => State::Unhealthy,
            State::Healthy | State::Degraded if self.failures >= policy.failure_threshold => State::Unhealthy,
            same => same,
        };
        self.turn(next, now);
    }

    fn turn(&mut self, state: State, now: Timestamp) {
        if self.state != state {
            (self.state, self.since) = (state, now);
        }
    }

    /// Slow against its own usual, or nearly too late.
    fn is_slow(&self, span: Span, policy: &HealthPolicy) -> bool {
        let nearly = span.0.saturating_mul(2) > policy.timeout.0;
        let unusual = self.usual.is_some_and(|usual| span.0 > usual.0.saturating_mul(SLOW_TIMES));
        nearly || (unusual && span > SLOW_MIN)
    }

    fn learn(&mut self, span: Span) {
        self.usual = Some(match self.usual {
            None => span,
            Some(usual) => {
                let sum = usual.0.saturating_mul(BASELINE_PARTS - 1).saturating_add(span.0);
                Span(sum / BASELINE_PARTS)
            }
        });
    }

    /// Whether the last verdict is too old to act on.
    #[must_use]
    pub fn is_stale(&self, now: Timestamp, policy: &HealthPolicy) -> bool {
        now.since(self.judged).0 > policy.interval.0.saturating_mul(STALE_INTERVALS)
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, Health, State};
    use crate::model::server::HealthPolicy;
    use crate::model::time::{Span, Timestamp};
    use proptest::prelude::*;

    const QUICK: Event = Event::Answered(Span::millis(5));

    fn after(events: &[Event]) -> Health {
        let policy = HealthPolicy::default();
        let mut health = Health::new(Timestamp(0));
        for (number, event) in events.iter().enumerate() {
            let now = Timestamp(i64::try_from(number + 1).expect("few") * 30_000);
            health.take(*event, now, &policy);
        }
        health
    }

    #[test]
    fn thresholds_hold() {
        use Event::{Ended, Failed, NotAsked, Started};
        let slow = Event::Answered(Span::millis(900));
        let rows: &[(&[Event], State)] = &[
            (&[QUICK], State::Healthy),
            (&[Failed], State::Starting),
            (&[Failed, Failed], State::Unhealthy),
            (&[QUICK, Failed, Failed], State::Healthy),
            (&[QUICK, Failed, Failed, Failed], State::Unhealthy),
            (&[QUICK, Failed, Failed, QUICK, Failed, Failed], State::Healthy),
            (&[QUICK, Failed, Failed, Failed, QUICK], State::Unhealthy),
            (&[QUICK, Failed, Failed, Failed, QUICK, QUICK], State::Healthy),
            (&[QUICK, slow, slow], State::Healthy),
            (&[QUICK, slow, slow, slow], State::Degraded),
            (&[QUICK, slow, slow, slow, QUICK, QUICK], State::Healthy),
            (&[QUICK, Ended], State::Critical),
            (&[QUICK, Ended, QUICK], State::Unhealthy),
            (&[QUICK, Ended, QUICK, QUICK], State::Healthy),
            (&[QUICK, Ended, Started], State::Starting),
            (&[QUICK, NotAsked, NotAsked, NotAsked, NotAsked], State::Healthy),
        ];
        for (events, state) in rows {
            assert_eq!(after(events).state, *state, "{events:?}");
        }
    }

    #[test]
    fn old_verdicts_are_stale_and_the_usual_outlives_a_restart() {
        let health = after(&[QUICK, Event::Started]);
        assert_eq!(health.usual, Some(Span::millis(5)));
        let policy = HealthPolicy::default();
        assert!(!health.is_stale(Timestamp(60_000 + 90_000), &policy));
        assert!(health.is_stale(Timestamp(60_000 + 90_001), &policy));
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let one = prop_oneof![
            4 => (0_u64..6_000).prop_map(|millis| Event::Answered(Span::millis(millis))),
            3 => Just(Event::Failed),
            1 => Just(Event::Ended),
            1 => Just(Event::Started),
            1 => Just(Event::NotAsked),
        ];
        prop::collection::vec(one, 0..200)
    }

    proptest! {
        #[test]
        fn it_is_well_again_once_it_answers(before in events()) {
            let policy = HealthPolicy::default();
            let mut health = after(&before);
            let start = Timestamp(1_000_000_000);
            // At most: two answers to be healthy, two quick ones not to be degraded.
            for round in 0..4 {
                health.take(QUICK, start.after(Span::secs(30 * round)), &policy);
            }
            prop_assert_eq!(health.state, State::Healthy);
        }

        #[test]
        fn few_failures_change_nothing(before in events(), few in 1_u32..3) {
            let policy = HealthPolicy::default();
            let mut health = after(&before);
            let start = Timestamp(1_000_000_000);
            for round in 0..4 {
                health.take(QUICK, start.after(Span::secs(30 * round)), &policy);
            }
            for round in 0..few {
                health.take(Event::Failed, start.after(Span::secs(300 + 30 * u64::from(round))), &policy);
                prop_assert!(health.state.serves());
            }
        }

        #[test]
        fn what_was_not_asked_changes_nothing(before in events()) {
            let mut health = after(&before);
            let same = health.clone();
            health.take(Event::NotAsked, Timestamp(2_000_000_000), &HealthPolicy::default());
            prop_assert_eq!(health, same);
        }

        #[test]
        fn who_never_answers_never_serves(bad in prop::collection::vec(prop_oneof![Just(Event::Failed), Just(Event::Ended), Just(Event::Started)], 0..50)) {
            prop_assert!(!after(&bad).state.serves());
        }
    }
}
