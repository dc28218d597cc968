//! The fault script: which calls fail, before or after they took effect, when a side is down, when
//! the program under test is killed.
//!
//! Everything here ends at [`FaultPlan::until`]; from then on every call is answered truly.

use crate::model::time::{Span, Timestamp};
use crate::world::ErrorKind;
use crate::world::fake::rng::Rng;

/// The other side of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The container engine.
    Engine,
    /// The load balancer.
    Balancer,
    /// This host: port tests.
    Host,
    /// Edge listeners.
    Edges,
    /// The state store.
    Store,
}

/// A time in which every call to one side fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Who is down.
    pub side: Side,
    /// From when.
    pub from: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// What callers get.
    pub kind: ErrorKind,
}

/// All faults of one run; rates are per mille of calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultPlan {
    /// Calls that fail without effect.
    pub before: u32,
    /// Effects that are applied although the answer is an error.
    pub after: u32,
    /// Effects before or after which the program under test is killed.
    pub crash: u32,
    /// Changes of the balancer that its reads do not show for a while.
    pub lag: u32,
    /// Parts of a balancer read that come back Unknown.
    pub partial: u32,
    /// Calls during which another program takes a port, a leased one if it can.
    pub grab: u32,
    /// Times in which a side is down.
    pub outages: Vec<Outage>,
    /// When all faults end.
    pub until: Timestamp,
}

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// It goes through.
    Go,
    /// It fails without effect.
    Before(ErrorKind),
    /// It takes effect, and fails.
    After(ErrorKind),
    /// The program under test is killed before it.
    CrashBefore,
    /// The program under test is killed after it.
    CrashAfter,
}

/// Answers of a side that refuses.
const REFUSALS: [ErrorKind; 9] = [
    ErrorKind::NotFound,
    ErrorKind::Conflict,
    ErrorKind::Invalid,
    ErrorKind::Denied,
    ErrorKind::Throttled,
    ErrorKind::Quota,
    ErrorKind::Unreachable,
    ErrorKind::TimedOut,
    ErrorKind::Failed,
];
/// Answers after which the effect may have happened. `Conflict` is what a client library's own
/// second try gets when the answer to its first one was lost.
const LOSSES: [ErrorKind; 4] =
    [ErrorKind::Conflict, ErrorKind::Unreachable, ErrorKind::TimedOut, ErrorKind::Failed];
/// What a side that is down answers with.
const OUTAGES: [ErrorKind; 5] =
    [ErrorKind::Unreachable, ErrorKind::TimedOut, ErrorKind::Throttled, ErrorKind::Denied, ErrorKind::Failed];
/// Most outages of one run.
const OUTAGES_MAX: u64 = 3;

impl FaultPlan {
    /// A world in which nothing fails.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            before: 0,
            after: 0,
            crash: 0,
            lag: 0,
            partial: 0,
            grab: 0,
            outages: Vec::new(),
            until: Timestamp(i64::MIN),
        }
    }

    /// A plan for the time from `from` to `until`: calm, light or heavy.
    #[must_use]
    pub fn generate(rng: &mut Rng, from: Timestamp, until: Timestamp) -> Self {
        let heavy = match rng.below(8) {
            0 => return Self { until, ..Self::none() },
            1 | 2 => 3,
            _ => 1,
        };
        let mut rate = |max: u64| u32::try_from(rng.below(max) * heavy).unwrap_or(0);
        let (before, after, crash) = (rate(40), rate(40), rate(20));
        let (lag, partial, grab) = (rate(100), rate(30), rate(4));
        let outages = (0..rng.below(OUTAGES_MAX + 1)).map(|_| outage(rng, from, until)).collect();
        Self { before, after, crash, lag, partial, grab, outages, until }
    }

    /// Whether faults still happen at `now`.
    #[must_use]
    pub fn active(&self, now: Timestamp) -> bool {
        now < self.until
    }

    /// What happens to a call; `effect` is true for calls that change something.
    pub(crate) fn gate(&self, rng: &mut Rng, now: Timestamp, side: Side, effect: bool) -> Gate {
        if !self.active(now) {
            return Gate::Go;
        }
        if let Some(outage) = self.outages.iter().find(|o| o.side == side && o.from <= now && now < o.until) {
            return Gate::Before(outage.kind);
        }
        if rng.chance(self.before) {
            return Gate::Before(kind(rng, &REFUSALS));
        }
        if !effect {
            return Gate::Go;
        }
        if rng.chance(self.after) {
            return Gate::After(kind(rng, &LOSSES));
        }
        if rng.chance(self.crash) {
            return if rng.chance(500) { Gate::CrashBefore } else { Gate::CrashAfter };
        }
        Gate::Go
    }
}

fn kind(rng: &mut Rng, kinds: &[ErrorKind]) -> ErrorKind {
    rng.pick(kinds).copied().unwrap_or(ErrorKind::Failed)
}

fn outage(rng: &mut Rng, from: Timestamp, until: Timestamp) -> Outage {
    let sides = [Side::Engine, Side::Balancer, Side::Balancer, Side::Host, Side::Store];
    let start = from.after(Span::millis(rng.below(until.since(from).0)));
    let side = rng.pick(&sides).copied().unwrap_or(Side::Engine);
    Outage { side, from: start, until: start.after(rng.millis(1_000, 180_000)), kind: kind(rng, &OUTAGES) }
}

#[cfg(test)]
mod tests {
    use super::{FaultPlan, Gate, Outage, Side};
    use crate::model::time::Timestamp;
    use crate::world::ErrorKind;
    use crate::world::fake::rng::Rng;

    #[test]
    fn faults_end_when_they_should() {
        let plan = FaultPlan { before: 1000, until: Timestamp(10), ..FaultPlan::none() };
        let mut rng = Rng::new(1);
        assert!(matches!(plan.gate(&mut rng, Timestamp(9), Side::Engine, false), Gate::Before(_)));
        assert_eq!(plan.gate(&mut rng, Timestamp(10), Side::Engine, true), Gate::Go);
    }

    #[test]
    fn an_outage_hits_its_side_only_and_reads_are_never_lost_or_killed() {
        let (from, until) = (Timestamp(2), Timestamp(5));
        let outages = vec![Outage { side: Side::Balancer, from, until, kind: ErrorKind::Throttled }];
        let plan = FaultPlan { after: 1000, crash: 1000, outages, until: Timestamp(9), ..FaultPlan::none() };
        let mut rng = Rng::new(1);
        let mut gate = |now, side, effect| plan.gate(&mut rng, Timestamp(now), side, effect);
        assert_eq!(gate(3, Side::Balancer, true), Gate::Before(ErrorKind::Throttled));
        assert_eq!(gate(3, Side::Engine, false), Gate::Go);
        assert!(matches!(gate(5, Side::Balancer, true), Gate::After(_)));
    }
}
