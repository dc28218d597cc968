//! A circuit breaker: a server that does not answer is left alone for a while.
//!
//! ```text
//! closed      so many failures within the window    -> open
//! open        its time is over                      -> half open
//! half open   one request tries; others are refused
//!             it fails                              -> open
//!             it is answered                        -> closed
//! ```
//! What counts as a failure is the caller's to say. Answers to requests that were sent before the
//! circuit opened change nothing any more. Must never let a second request try while one does.

use crate::model::traffic::BreakerPolicy;
use serde::Serialize;
use std::collections::VecDeque;

/// Failures that are remembered, whatever the policy says.
pub const FAILURES_MAX: u32 = 10_000;
/// Milliseconds after which one may come again who came while another was trying.
const TRYING_MILLIS: u64 = 1_000;

/// How a circuit stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Requests pass.
    #[default]
    Closed,
    /// One may try.
    HalfOpen,
    /// None passes.
    Open,
}

impl State {
    /// The word used in answers and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
}

/// Whether a request may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may.
    Yes,
    /// It may, and what becomes of it decides.
    Try,
    /// Not before so many milliseconds.
    No(u64),
}

/// How a request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The server answered, whatever it said.
    Answered,
    /// It did not.
    Failed,
    /// Nobody can tell.
    Unknown,
}

/// The breaker of one server.
#[derive(Clone, Debug, Default)]
pub struct Breaker {
    inner: Inner,
    /// When requests failed, oldest first, in milliseconds.
    failures: VecDeque<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Inner {
    #[default]
    Closed,
    Open {
        until: u64,
    },
    HalfOpen {
        trying: bool,
    },
}

impl Breaker {
    /// A request wants to go at `now`, in milliseconds.
    pub fn admit(&mut self, now: u64) -> Admission {
        if let Inner::Open { until } = self.inner {
            if now < until {
                return Admission::No(until - now);
            }
            self.inner = Inner::HalfOpen { trying: false };
        }
        match &mut self.inner {
            Inner::HalfOpen { trying: true } => Admission::No(TRYING_MILLIS),
            Inner::HalfOpen { trying } => {
                *trying = true;
                Admission::Try
            }
            Inner::Closed | Inner::Open { .. } => Admission::Yes,
        }
    }

    /// A request that was admitted has ended; `tried` when it was the one to try. Says how the circuit
    /// stands from now on, if that is new.
    pub fn ended(
        &mut self,
        policy: &BreakerPolicy,
        now: u64,
        (verdict, tried): (Verdict, bool),
    ) -> Option<State> {
        match (self.inner, verdict) {
            (Inner::HalfOpen { trying: true }, _) if tried => self.decided(policy, now, verdict),
            (Inner::Closed, Verdict::Failed) => {
                let from = now.saturating_sub(policy.window.0);
                while self.failures.front().is_some_and(|at| *at < from) {
                    self.failures.pop_front();
                }
                self.failures.push_back(now);
                let most = policy.failures.clamp(1, FAILURES_MAX);
                if self.failures.len() < usize::try_from(most).unwrap_or(usize::MAX) {
                    return None;
                }
                Some(self.open(policy, now))
            }
            _ => None,
        }
    }

    fn decided(&mut self, policy: &BreakerPolicy, now: u64, verdict: Verdict) -> Option<State> {
        match verdict {
            Verdict::Answered => {
                self.inner = Inner::Closed;
                Some(State::Closed)
            }
            Verdict::Failed => Some(self.open(policy, now)),
            Verdict::Unknown => {
                self.inner = Inner::HalfOpen { trying: false };
                None
            }
        }
    }

    fn open(&mut self, policy: &BreakerPolicy, now: u64) -> State {
        self.failures.clear();
        self.inner = Inner::Open { until: now.saturating_add(policy.open_for.0) };
        State::Open
    }

    /// How it stands at `now`.
    #[must_use]
    pub const fn state(&self, now: u64) -> State {
        match self.inner {
            Inner::Closed => State::Closed,
            Inner::Open { until } if now < until => State::Open,
            Inner::Open { .. } | Inner::HalfOpen { .. } => State::HalfOpen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::Span;
    use proptest::prelude::*;

    const POLICY: BreakerPolicy =
        BreakerPolicy { failures: 3, window: Span::millis(100), open_for: Span::millis(50) };

    fn ended(breaker: &mut Breaker, now: u64, verdict: Verdict, tried: bool) -> Option<State> {
        breaker.ended(&POLICY, now, (verdict, tried))
    }

    #[test]
    fn it_opens_tries_and_closes() {
        let mut breaker = Breaker::default();
        assert_eq!(ended(&mut breaker, 0, Verdict::Failed, false), None);
        assert_eq!(ended(&mut breaker, 10, Verdict::Failed, false), None);
        assert_eq!(ended(&mut breaker, 101, Verdict::Failed, false), None, "the first is too old");
        assert_eq!(breaker.admit(105), Admission::Yes);
        assert_eq!(ended(&mut breaker, 105, Verdict::Failed, false), Some(State::Open));
        assert_eq!((breaker.admit(106), breaker.state(106)), (Admission::No(49), State::Open));
        assert_eq!(ended(&mut breaker, 107, Verdict::Answered, false), None, "it was sent before");
        assert_eq!((breaker.state(155), breaker.admit(155)), (State::HalfOpen, Admission::Try));
        assert_eq!(breaker.admit(156), Admission::No(TRYING_MILLIS));
        assert_eq!(ended(&mut breaker, 157, Verdict::Unknown, true), None);
        assert_eq!(breaker.admit(158), Admission::Try, "nobody knows how the first went");
        assert_eq!(ended(&mut breaker, 159, Verdict::Failed, true), Some(State::Open));
        assert_eq!(breaker.admit(209), Admission::Try);
        assert_eq!(ended(&mut breaker, 210, Verdict::Answered, true), Some(State::Closed));
        assert_eq!(ended(&mut breaker, 211, Verdict::Failed, false), None, "it counts anew");
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Ask,
        End(usize, Verdict),
    }

    fn step() -> impl Strategy<Value = (u64, Step)> {
        let verdict = prop_oneof![3 => Just(Verdict::Failed), 2 => Just(Verdict::Answered), 1 => Just(Verdict::Unknown)];
        (0_u64..40, prop_oneof![Just(Step::Ask), (0_usize..6, verdict).prop_map(|(at, v)| Step::End(at, v))])
    }

    proptest! {
        #[test]
        fn one_tries_at_a_time_and_it_never_stays_shut(steps in prop::collection::vec(step(), 0..300)) {
            let mut breaker = Breaker::default();
            let (mut now, mut under_way) = (0, Vec::new());
            let mut failed: Vec<u64> = Vec::new();
            for (pause, step) in steps {
                now += pause;
                match step {
                    Step::Ask => match breaker.admit(now) {
                        Admission::Yes => under_way.push(false),
                        Admission::Try => {
                            prop_assert!(!under_way.contains(&true), "two try at once");
                            under_way.push(true);
                        }
                        Admission::No(wait) => {
                            prop_assert!(wait > 0 && wait <= TRYING_MILLIS.max(POLICY.open_for.0));
                            prop_assert!(breaker.state(now) != State::Closed);
                        }
                    },
                    Step::End(at, verdict) if at < under_way.len() => {
                        let tried = under_way.remove(at);
                        let closed = breaker.state(now) == State::Closed;
                        let change = ended(&mut breaker, now, verdict, tried);
                        if closed && verdict == Verdict::Failed {
                            failed.push(now);
                            failed.retain(|at| now - at <= POLICY.window.0);
                        }
                        if closed {
                            prop_assert_eq!(change.is_some(), failed.len() >= 3, "opens at the third");
                        }
                        if change.is_some() {
                            failed.clear();
                        }
                    }
                    Step::End(..) => {}
                }
            }
            // Whatever happened: once nothing is under way, a server that answers is let at again.
            while let Some(tried) = under_way.pop() {
                ended(&mut breaker, now, Verdict::Unknown, tried);
            }
            now += POLICY.open_for.0;
            let admission = breaker.admit(now);
            prop_assert!(admission == Admission::Yes || admission == Admission::Try);
            ended(&mut breaker, now, Verdict::Answered, admission == Admission::Try);
            prop_assert_eq!(breaker.state(now), State::Closed);
        }
    }
}
