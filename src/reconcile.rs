//! The loop's body: observe, plan, check, carry out, remember.
//!
//! Lanes of actions outlive the pass that began them, so that a slow pull or stop of one server
//! never delays the restart of another; a server whose lane still runs is left alone by the next
//! plan. No retries inside a pass: the next pass is the retry and its wait is data in the memory.
//!
//! Must never name an adapter, and never act on a plan that breaks an invariant.

mod reading;

use crate::execute::learn::{ActionResult, learn};
use crate::execute::{Limits, Teller, lanes, run};
use crate::model::desired::Desired;
use crate::model::id::ServerId;
use crate::model::memory::{Intent, Memory};
use crate::model::observed::Observed;
use crate::model::op::Op;
use crate::model::policy::{Ending, Policy};
use crate::model::time::{Span, Timestamp};
use crate::observe;
use crate::plan::action::Action;
use crate::plan::check::{Broken, check};
use crate::plan::{Input, Plan, plan};
use crate::reconcile::reading::Reading;
use crate::world::{TargetsToRead, World};
use futures_util::future::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Rounds of questions in one pass; more would mean the planner asks in circles.
const ROUNDS_MAX: usize = 6;
/// Target groups whose health is read in rotation, beside those in transition.
const ROTATING_READS: usize = 3;

/// After a stop by hand for so long: what it asks of the load balancer was done or refused by then.
const STOPPED_LATELY: Span = Span::secs(60);

/// The servers of a lane and what became of its actions.
pub type LaneEnd = (BTreeSet<ServerId>, Vec<(Action, ActionResult)>);
type LaneRun = Pin<Box<dyn Future<Output = LaneEnd> + Send>>;

/// What the loop goes on with.
#[derive(Debug)]
pub enum Event {
    /// A lane ended; to be handed to [`Reconciler::learn_from`].
    LaneEnd(LaneEnd),
    /// The load balancer has answered after all: the next pass decides with it.
    BalancerAnswered,
}

/// Brings the world to what is desired, pass by pass.
pub struct Reconciler {
    world: World,
    limits: Limits,
    tell: Teller,
    memory: Memory,
    desired: Arc<Desired>,
    lanes: FuturesUnordered<LaneRun>,
    /// Lanes that ended while a pass looked, and of which nothing was learned yet.
    over: VecDeque<LaneEnd>,
    busy: BTreeSet<ServerId>,
    read_next: BTreeSet<ServerId>,
    reading: Reading,
    /// The last save failed: the store is behind.
    behind: bool,
    /// Counts what a pass got done.
    steps: Arc<AtomicU64>,
}

impl std::fmt::Debug for Reconciler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reconciler").field("busy", &self.busy).finish_non_exhaustive()
    }
}

/// What one pass did.
#[derive(Clone, Debug)]
#[must_use]
pub struct Pass {
    /// When it began.
    pub began: Timestamp,
    /// When its decision was there.
    pub decided: Timestamp,
    /// The plan, whose actions are running or refused.
    pub plan: Plan,
    /// What the plan was made from.
    pub observed: Observed,
    /// Invariants the plan breaks; it was refused when there are any.
    pub broken: Vec<Broken>,
    /// Why the memory could not be kept, when it could not.
    pub unsaved: Option<String>,
}

/// What became of a lane.
#[derive(Clone, Debug)]
pub struct Ended {
    /// What became of each action.
    pub results: Vec<(Action, ActionResult)>,
    /// Why the memory could not be kept, when it could not.
    pub unsaved: Option<String>,
}

/// Does `work` while lanes run on: a look may have to wait for the load balancer, and whoever asks for
/// one pass after the other must not keep actions from ending.
async fn beside<T>(
    lanes: &mut FuturesUnordered<LaneRun>,
    over: &mut VecDeque<LaneEnd>,
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            Some(end) = lanes.next() => over.push_back(end),
        }
    }
}

impl Reconciler {
    /// A reconciler over `world` that remembers `memory`.
    #[must_use]
    pub fn new(world: World, limits: Limits, tell: Teller, memory: Memory) -> Self {
        Self {
            world,
            limits,
            tell,
            memory,
            desired: Arc::new(Desired::default()),
            lanes: FuturesUnordered::new(),
            over: VecDeque::new(),
            busy: BTreeSet::new(),
            read_next: BTreeSet::new(),
            reading: Reading::default(),
            behind: false,
            steps: Arc::default(),
        }
    }

    /// Counts the steps of passes; each waits for the world within bounds.
    #[must_use]
    pub fn steps(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.steps)
    }

    /// What is remembered.
    #[must_use]
    pub const fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Changes what is remembered (an intent by hand) and keeps it.
    ///
    /// # Errors
    /// When it could not be kept; it holds in this process all the same.
    pub async fn remember(
        &mut self,
        change: impl FnOnce(&mut Memory) + Send,
    ) -> Result<(), crate::world::WorldError> {
        change(&mut self.memory);
        let saved = self.world.store.save(&self.memory).await;
        self.step();
        self.behind = saved.is_err();
        saved
    }

    fn step(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// From now on a load balancer that does not answer soon holds up no pass: it decides without, and
    /// [`Reconciler::event`] tells when the answer is there.
    pub const fn be_brief(&mut self) {
        self.reading.be_brief();
    }

    /// Whether the load balancer was asked and has not answered yet.
    #[must_use]
    pub const fn awaits_balancer(&self) -> bool {
        self.reading.is_awaited()
    }

    /// Looks and decides, and changes nothing.
    pub async fn preview(&mut self, desired: &Desired, policy: &Policy) -> (Plan, Observed, Vec<Broken>) {
        let targets =
            TargetsToRead { servers: self.read_next.iter().cloned().collect(), rotating: ROTATING_READS };
        let whole = self.waits_for_balancer(policy.ending);
        let balancer = self.reading.seen(&self.world, &targets, whole);
        let look = observe::look(&self.world, balancer, self.busy.clone());
        let mut observed = beside(&mut self.lanes, &mut self.over, look).await;
        self.step();
        let now = self.world.clock.now();
        let memory = &self.memory;
        let mut decided = plan(Input { desired, observed: &observed, memory, policy, now });
        for _ in 0..ROUNDS_MAX {
            if decided.questions.is_empty() {
                break;
            }
            observe::answer(&self.world, policy, &mut observed, &decided.questions).await;
            self.step();
            decided = plan(Input { desired, observed: &observed, memory, policy, now });
        }
        let broken = check(Input { desired, observed: &observed, memory, policy, now }, &decided);
        (decided, observed, broken)
    }

    /// Whether what comes next is done without the load balancer where that cannot be asked, so that its
    /// answer is waited for: the end of this process, and a stop by hand.
    fn waits_for_balancer(&self, ending: Ending) -> bool {
        let now = self.world.clock.now();
        let lately = |intent: &Intent| !intent.run && now.since(intent.at) < STOPPED_LATELY;
        ending != Ending::None || self.memory.intents.values().any(lately)
    }

    /// One pass: looks, decides, checks, remembers, and sets the actions going. They run while
    /// [`Reconciler::ended`] is awaited.
    pub async fn pass(&mut self, desired: &Arc<Desired>, policy: &Policy) -> Pass {
        let began = self.world.clock.now();
        self.desired = Arc::clone(desired);
        let (plan, observed, broken) = self.preview(desired, policy).await;
        let decided = self.world.clock.now();
        if !broken.is_empty() {
            return Pass { began, decided, plan, observed, broken, unsaved: None };
        }
        let unsaved = self.keep(plan.memory.clone()).await;
        self.read_next.clone_from(&plan.read_next);
        for lane in lanes(&plan.actions) {
            self.busy.extend(lane.servers.iter().cloned());
            let (world, limits, tell) = (self.world.clone(), self.limits.clone(), Arc::clone(&self.tell));
            self.lanes.push(Box::pin(async move {
                let servers = lane.servers.clone();
                (servers, run(world, lane, limits, tell).await)
            }));
        }
        Pass { began, decided, plan, observed, broken, unsaved }
    }

    async fn keep(&mut self, memory: Memory) -> Option<String> {
        if memory == self.memory && !self.behind {
            return None;
        }
        self.remember(|kept| *kept = memory).await.err().map(|error| error.to_string())
    }

    /// Whether actions are still running, or nothing was learned yet of some that have ended.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.lanes.is_empty() || !self.over.is_empty()
    }

    /// Waits for the next lane to end and learns from it; `None` when none runs.
    pub async fn ended(&mut self) -> Option<Ended> {
        let end = self.lane_end().await?;
        Some(self.learn_from(end).await)
    }

    /// Waits for the next lane to end. Unlike [`Self::ended`] it may be dropped while it waits;
    /// what it gives must be handed to [`Self::learn_from`].
    pub async fn lane_end(&mut self) -> Option<LaneEnd> {
        match self.over.pop_front() {
            Some(end) => Some(end),
            None => self.lanes.next().await,
        }
    }

    /// Waits for what the loop goes on with: the end of a lane, or a late answer of the load balancer;
    /// `None` when neither is to come. It may be dropped while it waits.
    pub async fn event(&mut self) -> Option<Event> {
        let Self { lanes, over, reading, .. } = self;
        if let Some(end) = over.pop_front() {
            return Some(Event::LaneEnd(end));
        }
        if lanes.is_empty() && !reading.is_awaited() {
            return None;
        }
        tokio::select! {
            biased;
            Some(end) = lanes.next() => Some(Event::LaneEnd(end)),
            () = reading.answer() => Some(Event::BalancerAnswered),
        }
    }

    /// Learns from a lane that ended, and from all that have ended with it: what a hundred lanes
    /// taught is saved at once. Not to be dropped half way.
    pub async fn learn_from(&mut self, (mut servers, mut results): LaneEnd) -> Ended {
        while let Some(Some((more, ended))) = self.lane_end().now_or_never() {
            servers.extend(more);
            results.extend(ended);
        }
        self.busy.retain(|id| !servers.contains(id));
        if results.iter().any(|(action, _)| matches!(action.op, Op::Balancer(_))) {
            self.reading.forget();
        }
        let memory = learn(self.memory.clone(), &self.desired, &results, self.world.clock.now());
        let unsaved = self.keep(memory).await;
        Ended { results, unsaved }
    }
}

#[cfg(test)]
mod tests {
    use super::{LaneEnd, LaneRun, beside};
    use futures_util::stream::FuturesUnordered;
    use std::collections::{BTreeSet, VecDeque};
    use std::time::Duration;
    use tokio::time::sleep;

    #[tokio::test(start_paused = true)]
    async fn actions_go_on_while_a_pass_looks() {
        let lane = |secs| -> LaneRun {
            Box::pin(async move {
                // As a call that has to be sent, waited for and read.
                for _ in 0..10 {
                    sleep(Duration::from_secs(secs) / 10).await;
                }
                let end: LaneEnd = (BTreeSet::new(), Vec::new());
                end
            })
        };
        let lanes = &mut FuturesUnordered::new();
        lanes.extend([lane(1), lane(30)]);
        let over = &mut VecDeque::new();
        beside(lanes, over, sleep(Duration::from_secs(3))).await;
        assert_eq!((over.len(), lanes.len()), (1, 1), "one has ended");
        beside(&mut FuturesUnordered::new(), over, sleep(Duration::from_secs(3))).await;
        assert_eq!(over.len(), 1, "without any it only looks");
    }
}
