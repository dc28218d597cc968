//! What a pass had before it, beside its report.
//!
//! Targets are read a few in each pass, those in transition first; what was read earlier is kept here
//! with its time, so that whoever looks sees every target and how old the news of it is. Must never be
//! decided upon: to the planner what a pass did not read is Unknown.

use crate::model::balancer::{BalancerSeen, Target};
use crate::model::id::TargetGroupArn;
use crate::model::observed::Seen;
use crate::model::time::Timestamp;
use crate::plan::action::Action;
use crate::reconcile::Pass;
use std::collections::BTreeMap;

/// What a pass had before it.
#[derive(Clone, Debug)]
pub struct SeenByPass {
    /// What it set going.
    pub actions: Vec<Action>,
    /// The load balancer.
    pub balancer: BalancerSeen,
    /// Targets as they were read last, whichever pass did.
    pub targets: BTreeMap<TargetGroupArn, TargetsRead>,
}

/// Targets of a group, and when they were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetsRead {
    /// When.
    pub at: Timestamp,
    /// The targets.
    pub targets: Vec<Target>,
}

impl SeenByPass {
    /// What `pass` had before it, and what `before` knows of targets that it did not read.
    pub(super) fn of(pass: &Pass, before: Option<&Self>) -> Self {
        let known = before.map(|before| before.targets.clone()).unwrap_or_default();
        Self {
            actions: pass.plan.actions.clone(),
            balancer: pass.observed.balancer.clone(),
            targets: newest(&pass.observed.balancer, pass.began, known),
        }
    }
}

/// The newest word on each group that is there.
fn newest(
    seen: &BalancerSeen,
    now: Timestamp,
    mut known: BTreeMap<TargetGroupArn, TargetsRead>,
) -> BTreeMap<TargetGroupArn, TargetsRead> {
    let view = match seen {
        BalancerSeen::Off(_) => return BTreeMap::new(),
        BalancerSeen::On(Seen::Unknown(_)) => return known,
        BalancerSeen::On(Seen::Known(view)) => view,
    };
    let groups = view.target_groups.iter().filter_map(|group| {
        let read = match &group.targets {
            Seen::Known(targets) => Some(TargetsRead { at: now, targets: targets.clone() }),
            Seen::Unknown(_) => known.remove(&group.arn),
        };
        Some((group.arn.clone(), read?))
    });
    groups.collect()
}
