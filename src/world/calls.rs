//! Counts of calls to a foreign API, by operation and how they ended.
//!
//! Must never hold more than names: no argument, no answer.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Operations and results that are told apart; others share one line.
const KINDS_MAX: usize = 512;
/// What the others are called.
const OTHER: &str = "other";

/// Counts since the start of the process.
#[derive(Debug, Default)]
pub struct Calls(Mutex<BTreeMap<(String, String), u64>>);

impl Calls {
    /// A call ended: `ok`, or the code of its error.
    pub fn count(&self, operation: &str, result: &str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (operation.to_owned(), result.to_owned());
        let known = counts.len() < KINDS_MAX || counts.contains_key(&key);
        let key = if known { key } else { (OTHER.to_owned(), OTHER.to_owned()) };
        let count = counts.entry(key).or_default();
        *count = count.saturating_add(1);
    }

    /// Operation, result and how many, in order.
    #[must_use]
    pub fn all(&self) -> Vec<(String, String, u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts
            .iter()
            .map(|((operation, result), count)| (operation.clone(), result.clone(), *count))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Calls, KINDS_MAX};

    #[test]
    fn calls_are_counted_up_to_a_bound() {
        let calls = Calls::default();
        for n in 0..KINDS_MAX + 10 {
            calls.count("DescribeRules", &format!("Error{n}"));
        }
        calls.count("DescribeRules", "Error0");
        let all = calls.all();
        assert!(all.len() <= KINDS_MAX + 1, "{}", all.len());
        assert!(all.contains(&("DescribeRules".to_owned(), "Error0".to_owned(), 2)));
        assert!(all.contains(&("other".to_owned(), "other".to_owned(), 10)));
    }
}
