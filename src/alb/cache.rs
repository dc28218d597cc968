//! What need not be read in every pass, and what is to be read next.
//!
//! Invariant: nothing here stands in for a listing; listings are read whole in every pass.

use crate::model::balancer::{Listener, Target, TargetState};
use crate::model::id::TargetGroupArn;
use std::collections::{BTreeMap, BTreeSet};

/// See the module.
#[derive(Default)]
pub(super) struct Cache {
    /// The listener; forgotten when the API no longer knows it.
    pub(super) listener: Option<Listener>,
    /// Tags by ARN.
    pub(super) tags: BTreeMap<String, BTreeMap<String, String>>,
    /// Deregistration delays by target group ARN.
    pub(super) delays: BTreeMap<String, u32>,
    /// Target groups whose last reading showed nothing but healthy targets, and which we have not
    /// touched since; the others are read again.
    pub(super) calm: BTreeSet<String>,
    /// ARNs of target groups made by this process, by name.
    pub(super) made: BTreeMap<String, TargetGroupArn>,
    /// Where the rotations stand: the ARN that was read last.
    pub(super) last_health: String,
    pub(super) last_tags: String,
    pub(super) last_delay: String,
}

impl Cache {
    /// Forgets objects that are gone.
    pub(super) fn retain(&mut self, arns: &BTreeSet<String>) {
        self.tags.retain(|arn, _| arns.contains(arn));
        self.delays.retain(|arn, _| arns.contains(arn));
        self.calm.retain(|arn| arns.contains(arn));
        self.made.retain(|_, arn| arns.contains(arn.as_str()));
    }

    /// Keeps in mind whether `arn` must be read again soon.
    pub(super) fn judge(&mut self, arn: &str, targets: &[Target]) {
        let calm = !targets.is_empty() && targets.iter().all(|target| target.state == TargetState::Healthy);
        if calm {
            self.calm.insert(arn.to_owned());
        } else {
            self.calm.remove(arn);
        }
    }
}

/// The next `count` of `all` after `last`, around once.
pub(super) fn turn<'a>(all: &[&'a str], last: &str, count: usize) -> Vec<&'a str> {
    let mut sorted = all.to_vec();
    sorted.sort_unstable();
    let from = sorted.partition_point(|arn| *arn <= last);
    let (before, after) = sorted.split_at_checked(from).unwrap_or((&[], &[]));
    after.iter().chain(before).take(count).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::turn;

    #[test]
    fn a_rotation_comes_around() {
        let all = ["c", "a", "b"];
        assert_eq!(turn(&all, "", 2), ["a", "b"]);
        assert_eq!(turn(&all, "b", 2), ["c", "a"]);
        assert_eq!(turn(&all, "z", 9), ["a", "b", "c"]);
        assert!(turn(&[], "a", 1).is_empty());
    }
}
