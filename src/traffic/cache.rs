//! Answers of one server that are kept for a while.
//!
//! Bounded by bytes, what it costs to keep an answer counted in; of those kept, the one that was not
//! asked for longest goes first. Must never give an answer after its time, nor one from before
//! [`Cache::clear`].

use crate::model::traffic::CachePolicy;
use crate::traffic::key::Key;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What an answer takes beside its text: keys, times, places in two trees.
pub const ENTRY_BYTES: u64 = 256;

/// The cache of one server. `T` is an answer.
#[derive(Debug)]
pub struct Cache<T: ?Sized> {
    kept: BTreeMap<Key, Kept<T>>,
    /// By when they were asked for last.
    order: BTreeMap<u64, Key>,
    bytes: u64,
    uses: u64,
    /// Counts how often it was cleared: an answer that was asked for before is not taken.
    age: u64,
}

#[derive(Debug)]
struct Kept<T: ?Sized> {
    answer: Arc<T>,
    bytes: u64,
    until: u64,
    used: u64,
}

impl<T: ?Sized> Default for Cache<T> {
    fn default() -> Self {
        Self { kept: BTreeMap::new(), order: BTreeMap::new(), bytes: 0, uses: 0, age: 0 }
    }
}

impl<T: ?Sized> Cache<T> {
    /// The answer under this key at `now`, in milliseconds.
    pub fn get(&mut self, key: &Key, now: u64) -> Option<Arc<T>> {
        let kept = self.kept.get_mut(key)?;
        if now >= kept.until {
            self.forget(key);
            return None;
        }
        self.order.remove(&kept.used);
        self.uses = self.uses.wrapping_add(1);
        kept.used = self.uses;
        self.order.insert(kept.used, *key);
        Some(Arc::clone(&kept.answer))
    }

    /// Keeps an answer of this many bytes, which was asked for at `age`.
    pub fn put(
        &mut self,
        policy: &CachePolicy,
        (key, age): (Key, u64),
        (answer, bytes): (Arc<T>, u64),
        now: u64,
    ) {
        let bytes = bytes.saturating_add(ENTRY_BYTES);
        if age != self.age || bytes > policy.bytes_max {
            return;
        }
        self.forget(&key);
        while self.bytes.saturating_add(bytes) > policy.bytes_max {
            let Some((_, oldest)) = self.order.first_key_value() else { break };
            let oldest = *oldest;
            self.forget(&oldest);
        }
        self.uses = self.uses.wrapping_add(1);
        let until = now.saturating_add(policy.ttl.0);
        self.order.insert(self.uses, key);
        self.bytes = self.bytes.saturating_add(bytes);
        self.kept.insert(key, Kept { answer, bytes, until, used: self.uses });
    }

    fn forget(&mut self, key: &Key) {
        if let Some(kept) = self.kept.remove(key) {
            self.order.remove(&kept.used);
            self.bytes = self.bytes.saturating_sub(kept.bytes);
        }
    }

    /// Forgets everything, also what is under way.
    pub fn clear(&mut self) {
        let age = self.age.wrapping_add(1);
        *self = Self { age, uses: self.uses, ..Self::default() };
    }

    /// To be handed to [`Cache::put`] with the answer to what is asked now.
    #[must_use]
    pub const fn age(&self) -> u64 {
        self.age
    }

    /// Bytes and answers that are kept.
    #[must_use]
    pub fn size(&self) -> (u64, usize) {
        (self.bytes, self.kept.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::Span;
    use crate::traffic::key::key;
    use proptest::prelude::*;

    fn of(n: u8) -> Key {
        key(&["test", &n.to_string()])
    }

    #[derive(Clone, Debug)]
    enum Step {
        Get(u8),
        Put(u8, u64),
        Late(u8),
        Clear,
    }

    fn step() -> impl Strategy<Value = (u64, Step)> {
        let step = prop_oneof![
            4 => (0_u8..12).prop_map(Step::Get),
            4 => (0_u8..12, 0_u64..600).prop_map(|(n, bytes)| Step::Put(n, bytes)),
            1 => (0_u8..12).prop_map(Step::Late),
            1 => Just(Step::Clear),
        ];
        (0_u64..20, step)
    }

    proptest! {
        #[test]
        fn what_is_given_was_put_lately_and_all_of_it_is_bounded(steps in prop::collection::vec(step(), 0..300)) {
            let policy = CachePolicy { ttl: Span::millis(60), bytes_max: 2_000, tools: None };
            let mut cache: Cache<u64> = Cache::default();
            let mut model: BTreeMap<u8, (u64, u64)> = BTreeMap::new();
            let (mut now, mut serial, mut old) = (0, 0_u64, cache.age());
            for (pause, step) in steps {
                now += pause;
                match step {
                    Step::Get(n) => {
                        let known = model.get(&n).filter(|(_, at)| now - at < 60).map(|(value, _)| *value);
                        if let Some(found) = cache.get(&of(n), now) {
                            prop_assert_eq!(Some(*found), known);
                        }
                    }
                    Step::Put(n, bytes) => {
                        serial += 1;
                        let age = cache.age();
                        cache.put(&policy, (of(n), age), (Arc::new(serial), bytes), now);
                        model.insert(n, (serial, now));
                        let found = cache.get(&of(n), now).map(|found| *found);
                        prop_assert_eq!(found, Some(serial), "the newest is there");
                    }
                    Step::Late(n) if old != cache.age() => {
                        let before = cache.size();
                        cache.put(&policy, (of(n), old), (Arc::new(0), 0), now);
                        prop_assert_eq!(cache.size(), before, "what was asked for before is not kept");
                    }
                    Step::Late(_) => {}
                    Step::Clear => {
                        old = cache.age();
                        cache.clear();
                        model.clear();
                        prop_assert_eq!(cache.size(), (0, 0));
                    }
                }
                prop_assert!(cache.size().0 <= policy.bytes_max);
                prop_assert_eq!(cache.order.len(), cache.kept.len());
            }
        }
    }

    #[test]
    fn the_one_not_asked_for_longest_goes_and_one_too_large_is_not_kept() {
        let policy = CachePolicy { ttl: Span::secs(1), bytes_max: 3 * (ENTRY_BYTES + 10), tools: None };
        let mut cache: Cache<u8> = Cache::default();
        for n in 0..3 {
            cache.put(&policy, (of(n), 0), (Arc::new(n), 10), 0);
        }
        assert!(cache.get(&of(0), 0).is_some());
        cache.put(&policy, (of(3), 0), (Arc::new(3), 10), 0);
        let there = [0, 1, 2, 3].map(|n| cache.get(&of(n), 0).is_some());
        assert_eq!(there, [true, false, true, true]);
        cache.put(&policy, (of(4), 0), (Arc::new(4), policy.bytes_max), 0);
        assert!(cache.get(&of(4), 0).is_none() && cache.size().1 == 3);
        assert!(cache.get(&of(3), 1_000).is_none(), "its time is over");
    }
}
