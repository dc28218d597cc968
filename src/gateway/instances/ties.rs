//! What instances of a modern server gave their clients to come back with: the state of a call that waits
//! for input, the id of a task. Whoever brings it is sent to the instance that knows it.
//!
//! It is remembered by a hash, of the newest [`TIES_MAX`], and not over a restart: whose instance is not known
//! any more goes to any. Must never hold what was given itself.

use crate::gateway::hub::Entry;
use crate::gateway::instances::Found;
use crate::gateway::lock;
use crate::mcp::wire::{member, text_of};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

/// Remembered for one server.
const TIES_MAX: usize = 4096;

/// By hash the number of the instance, and the hashes in their order.
#[derive(Debug, Default)]
pub(crate) struct Ties {
    of: BTreeMap<u64, u32>,
    order: VecDeque<u64>,
}

impl Ties {
    fn put(&mut self, hash: u64, replica: u32) {
        if self.of.insert(hash, replica).is_none() {
            self.order.push_back(hash);
        }
        if self.order.len() > TIES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.of.remove(&oldest);
        }
    }
}

fn hash(what: &str, text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (what, text).hash(&mut hasher);
    hasher.finish()
}

/// The hash of one of the members that lead back.
fn led_by(value: &RawValue, name: &'static str) -> Option<u64> {
    member(value, name).and_then(text_of).map(|text| hash(name, &text))
}

const STATE: &str = "requestState";
const TASK: &str = "taskId";

impl Entry {
    /// Remembers what this instance gave with an answer.
    pub(crate) fn tie(&self, result: &RawValue) {
        if self.is_one() {
            return;
        }
        let of_task = || {
            let task = member(result, "task");
            led_by(result, TASK).or_else(|| led_by(task?, TASK))
        };
        if let Some(hash) = led_by(result, STATE).or_else(of_task) {
            lock(&self.group.ties).put(hash, self.replica);
        }
    }

    /// The instance that gave what a request brings, with its connection, if that is open.
    pub(crate) fn tied(&self, params: Option<&RawValue>) -> Option<Found> {
        if self.is_one() {
            return None;
        }
        let params = params?;
        let hash = led_by(params, STATE).or_else(|| led_by(params, TASK))?;
        let replica = lock(&self.group.ties).of.get(&hash).copied()?;
        let member = self.group.member(replica)?;
        let live = member.slot.live()?;
        self.group.touch.used();
        Some((Some(Arc::clone(&member)), live))
    }
}

#[cfg(test)]
mod tests {
    use super::{TIES_MAX, Ties};

    #[test]
    fn the_newest_are_remembered() {
        let mut ties = Ties::default();
        for n in 0..10_000 {
            ties.put(n, 2);
            ties.put(n, 3);
        }
        assert_eq!((ties.of.len(), ties.order.len()), (TIES_MAX, TIES_MAX));
        assert_eq!((ties.of.get(&9_999), ties.of.get(&1)), (Some(&3), None));
    }
}
