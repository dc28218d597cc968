//! The reading of the load balancer, which may take longer than a pass waits for it: an API that hangs
//! must not keep a container that died from being started again.
//!
//! ```text
//! begun by a pass ──> answered in time ──> that pass decides with it
//!        └──────────> not yet: that pass decides without (Unknown), the answer wakes another one
//! ```
//! Must never hand out what was read before something of the load balancer was changed.

use crate::model::balancer::BalancerSeen;
use crate::model::observed::Seen;
use crate::model::time::{Span, Timestamp};
use crate::observe;
use crate::world::{TargetsToRead, World};
use futures_util::future::{Either, FutureExt, select};
use std::future::{Future, pending};
use std::pin::Pin;

/// Longest a pass of the loop waits for an answer, from when it was asked for.
const PATIENCE: Span = Span::secs(2);

type Run = Pin<Box<dyn Future<Output = BalancerSeen> + Send>>;

/// See the module.
#[derive(Default)]
pub(super) struct Reading {
    /// Passes wait no longer than [`PATIENCE`]; else as long as it takes.
    brief: bool,
    /// Since when it runs.
    under_way: Option<(Timestamp, Run)>,
    /// Answered after the pass that began it was over.
    late: Option<BalancerSeen>,
    /// Why the last one failed: who was away may be so still, and is not waited for.
    failed: Option<String>,
}

impl Reading {
    /// From now on passes are held up for a moment only.
    pub(super) const fn be_brief(&mut self) {
        self.brief = true;
    }

    /// What is seen of the load balancer; with `whole`, however long that takes.
    pub(super) async fn seen(&mut self, world: &World, targets: &TargetsToRead, whole: bool) -> BalancerSeen {
        if let Some(late) = self.late.take() {
            return late;
        }
        let now = world.clock.now();
        let (began, run) =
            self.under_way.get_or_insert_with(|| (now, Box::pin(observe::balancer(world, targets))));
        let left = if self.failed.is_some() { Span::ZERO } else { began.after(PATIENCE).since(now) };
        let seen = match left {
            _ if whole || !self.brief => Some(run.await),
            Span::ZERO => run.now_or_never(),
            left => match select(run, world.clock.sleep(left)).await {
                Either::Left((seen, _)) => Some(seen),
                Either::Right(_) => None,
            },
        };
        let Some(seen) = seen else {
            let why = self.failed.clone().unwrap_or_else(|| {
                format!("it has not answered within {PATIENCE}, and its answer is awaited")
            });
            return BalancerSeen::On(Seen::Unknown(why));
        };
        self.ended(&seen);
        seen
    }

    /// Waits for the answer that no pass waits for; for ever where there is none. It may be dropped
    /// while it waits.
    pub(super) async fn answer(&mut self) {
        let Some((_, run)) = &mut self.under_way else { return pending().await };
        let seen = run.await;
        self.ended(&seen);
        self.late = Some(seen);
    }

    /// Whether an answer is still to come.
    pub(super) const fn is_awaited(&self) -> bool {
        self.under_way.is_some()
    }

    /// Something of the load balancer was changed: what was asked before may not know of it.
    pub(super) fn forget(&mut self) {
        (self.under_way, self.late) = (None, None);
    }

    fn ended(&mut self, seen: &BalancerSeen) {
        self.under_way = None;
        self.failed = match seen {
            BalancerSeen::On(Seen::Unknown(why)) => Some(why.clone()),
            BalancerSeen::On(Seen::Known(_)) | BalancerSeen::Off(_) => None,
        };
    }
}
