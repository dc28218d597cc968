//! Token buckets, one number each: when the bucket would be full again.
//!
//! A bucket of `burst` tokens that fills by one in every interval says yes while that moment is no
//! further away than the whole bucket takes to fill. Nothing has to run for it to fill.
//!
//! Must never let more through than the rate allows, whatever the clock does, nor refuse one who
//! waited as long as they were told.

use crate::model::traffic::Rate;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Clients that have a bucket of their own; others share one.
pub const CLIENTS_MAX: usize = 4096;

/// One bucket; full when new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    full_at: u64,
}

impl Bucket {
    /// Takes a token at `now`, in nanoseconds.
    ///
    /// # Errors
    /// After how many nanoseconds there is one, if nobody else takes it.
    pub fn take(&mut self, rate: &Rate, now: u64) -> Result<(), u64> {
        let depth = rate.interval_nanos.saturating_mul(u64::from(rate.burst));
        let full_at = self.full_at.max(now).saturating_add(rate.interval_nanos);
        let latest = now.saturating_add(depth);
        if full_at > latest {
            return Err(full_at - latest);
        }
        self.full_at = full_at;
        Ok(())
    }

    /// Whether it is as good as a new one.
    #[must_use]
    pub const fn is_full(&self, now: u64) -> bool {
        self.full_at <= now
    }
}

/// A bucket for each client.
#[derive(Clone, Debug, Default)]
pub struct Buckets {
    of: BTreeMap<Arc<str>, Bucket>,
    others: Bucket,
}

impl Buckets {
    /// Takes a token of a client's.
    ///
    /// # Errors
    /// As [`Bucket::take`].
    pub fn take(&mut self, rate: &Rate, who: &Arc<str>, now: u64) -> Result<(), u64> {
        if let Some(bucket) = self.of.get_mut(who) {
            return bucket.take(rate, now);
        }
        if self.of.len() >= CLIENTS_MAX {
            self.of.retain(|_, bucket| !bucket.is_full(now));
        }
        if self.of.len() >= CLIENTS_MAX {
            return self.others.take(rate, now);
        }
        self.of.entry(Arc::clone(who)).or_default().take(rate, now)
    }

    /// Buckets that are held.
    #[must_use]
    pub fn count(&self) -> usize {
        self.of.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same the slow way: tokens as a fraction, filled as time passes.
    struct Slow {
        /// In units of one token divided by the interval.
        level: u128,
        at: u64,
    }

    impl Slow {
        fn take(&mut self, rate: &Rate, now: u64) -> bool {
            let full = u128::from(rate.burst) * u128::from(rate.interval_nanos);
            self.level = full.min(self.level + u128::from(now - self.at));
            self.at = now;
            let one = u128::from(rate.interval_nanos);
            let yes = self.level >= one;
            if yes {
                self.level -= one;
            }
            yes
        }
    }

    proptest! {
        #[test]
        fn it_is_a_token_bucket(interval in 1_u64..50, burst in 1_u32..8, steps in prop::collection::vec(0_u64..120, 0..200)) {
            let rate = Rate { interval_nanos: interval, burst };
            let mut bucket = Bucket::default();
            let mut slow = Slow { level: u128::from(burst) * u128::from(interval), at: 1_000 };
            let mut now = 1_000;
            for step in steps {
                now += step;
                prop_assert_eq!(bucket.take(&rate, now).is_ok(), slow.take(&rate, now));
            }
        }

        #[test]
        fn no_more_than_the_rate_in_any_time(interval in 1_u64..50, burst in 1_u32..8, steps in prop::collection::vec(0_u64..60, 1..200)) {
            let rate = Rate { interval_nanos: interval, burst };
            let mut bucket = Bucket::default();
            let (mut now, mut let_in) = (0, Vec::new());
            for step in steps {
                now += step;
                if bucket.take(&rate, now).is_ok() {
                    let_in.push(now);
                }
            }
            for (first, from) in let_in.iter().enumerate() {
                for (last, to) in let_in.iter().enumerate().skip(first) {
                    let most = u64::from(burst) + (to - from) / interval;
                    prop_assert!(u64::try_from(last - first + 1).unwrap() <= most);
                }
            }
        }

        #[test]
        fn who_waits_as_told_is_let_in(interval in 1_u64..1 << 40, burst: u32, took in 0_usize..40, now in 0_u64..1 << 50) {
            let rate = Rate { interval_nanos: interval, burst: burst.max(1) };
            let mut bucket = Bucket::default();
            for _ in 0..took {
                let _either = bucket.take(&rate, now);
            }
            if let Err(wait) = bucket.take(&rate, now) {
                prop_assert!(wait > 0);
                let mut early = bucket;
                prop_assert!(early.take(&rate, now + wait - 1).is_err());
                prop_assert!(bucket.take(&rate, now + wait).is_ok());
            }
        }

        #[test]
        fn a_clock_that_goes_back_lets_nobody_in_early(interval in 1_u64..50, burst in 1_u32..4, times in prop::collection::vec(0_u64..2_000, 1..100)) {
            let rate = Rate { interval_nanos: interval, burst };
            let mut bucket = Bucket::default();
            let let_in = times.iter().filter(|now| bucket.take(&rate, **now).is_ok()).count();
            let most = u64::from(burst) + times.iter().max().unwrap() / interval + 1;
            prop_assert!(u64::try_from(let_in).unwrap() <= most);
        }
    }

    #[test]
    fn clients_do_not_take_each_others_and_their_number_is_bounded() {
        let rate = Rate { interval_nanos: 1_000, burst: 1 };
        let mut buckets = Buckets::default();
        let who = |n: usize| -> Arc<str> { format!("client {n}").into() };
        for n in 0..CLIENTS_MAX {
            assert!(buckets.take(&rate, &who(n), 0).is_ok());
            assert!(buckets.take(&rate, &who(n), 0).is_err());
        }
        assert!(buckets.take(&rate, &who(CLIENTS_MAX), 0).is_ok());
        assert!(buckets.take(&rate, &who(CLIENTS_MAX + 1), 0).is_err(), "those without one share one");
        assert!(buckets.take(&rate, &who(CLIENTS_MAX), 1_000).is_ok());
        assert_eq!(buckets.count(), 1, "full ones are forgotten");
    }
}
