//! An in-memory world with virtual time and a fault script, behind the same traits as the real one.
//!
//! Why: the promise of the loop ("for any desired state, any reachable world and any fault script,
//! once faults stop, a bounded number of passes reaches an empty plan") can only be tested where a
//! world costs microseconds and a seed repeats it. `simulate --seed N` replays one.
//!
//! ```text
//! let scenario = generate(seed)?;             let world = scenario.world();
//! let mut memory = Memory::default();
//! while world.now() < scenario.until {
//!     pass(&world, &world.desired(), &world.policy(), &mut memory);
//!     if world.crashed() { memory = world.restart(); }
//!     memory.intents.extend(world.take_intents());
//!     world.between_passes();                 // time passes, people and programs act
//! }
//! world.calm();                               // faults and acts end, what they left stays
//! (pass, between_passes) until the plan is empty, at most K times
//! assert world.check(), world.leaks(), world.unmet() are empty
//! ```
//!
//! Futures of this world never wait: [`block_on`] drives them without a runtime.
//! Invariant: everything follows from the seed and the calls; no clock, no environment, no
//! randomness of the machine (test `a_seed_is_a_world`).

mod acts_balancer;
mod acts_engine;
mod balancer;
mod balancer_ops;
mod check;
mod demand;
mod edge;
#[cfg(test)]
mod edge_tests;
mod effect;
mod engine;
mod engine_ops;
mod events;
mod faults;
mod health;
mod host;
mod image;
mod records;
mod rng;
mod scenario;
mod servers;
mod sessions;
mod state;
#[cfg(test)]
mod tests;

pub use self::balancer::{LISTENER_ARN, LOAD_BALANCER_ARN, OTHER_TARGET_ID, TARGET_ID, VPC_ID};
pub use self::effect::{By, Effect, START};
pub use self::events::{ACTS, Act, Event};
pub use self::faults::{FaultPlan, Outage, Side};
pub use self::image::{Behaviour, ImageFacts};
pub use self::records::FakeRecords;
pub use self::rng::Rng;
pub use self::scenario::{Scenario, generate, policy};
pub use self::servers::{Entry, EntryKind, container_spec, edge_mark, key, nothing_seen, server};
pub use self::sessions::FakeSessions;
pub use self::state::CRASHED;

use self::state::{Call, State};
use crate::model::balancer::{BalancerOp, BalancerView};
use crate::model::desired::Desired;
use crate::model::health::Condition;
use crate::model::id::{ContainerId, IdError, ServerId};
use crate::model::memory::{Intent, Memory, Pause, Scope};
use crate::model::net::{HostPort, PortRange};
use crate::model::observed::{Container, Details, Image, LogAsk, LogLine, Use};
use crate::model::op::{EdgeOp, EngineOp};
use crate::model::policy::Policy;
use crate::model::time::{Span, Timestamp};
use crate::world::{Answer, Balancer, Clock, Edges, Engine, Host, Store, TargetsToRead, WorldError};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Most polls [`block_on`] gives a future that says it waits.
const POLLS_MAX: u32 = 1_000_000;

/// The fake world. Shared by everything that asks it; one lock inside.
#[derive(Debug)]
pub struct FakeWorld {
    state: Mutex<State>,
}

/// Ports of the range beside the first, in an empty world.
const ROOM: u16 = 20;

/// Drives a future that never waits for anything outside itself.
///
/// `None` when it still waits after a great many polls, which futures of this world never do.
pub fn block_on<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..POLLS_MAX {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return Some(value);
        }
    }
    None
}

/// A future that has its answer already.
fn ready<'a, T: Send + 'a>(answer: Result<T, WorldError>) -> Answer<'a, T> {
    Box::pin(std::future::ready(answer))
}

impl FakeWorld {
    /// An empty world in which nothing fails and nobody acts.
    ///
    /// # Errors
    /// Never in practice, see [`policy`].
    pub fn new(seed: u64) -> Result<Arc<Self>, IdError> {
        Ok(Self::with_state(State::new(seed, policy(ROOM)?)))
    }

    fn with_state(state: State) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the files say now.
    #[must_use]
    pub fn desired(&self) -> Arc<Desired> {
        Arc::new(self.lock().desired.as_ref().clone().entries())
    }

    /// Lets the files say something else, as an edit by hand.
    pub fn set_desired(&self, desired: Desired) {
        self.lock().happen(Event::Files(Arc::new(desired)));
    }

    /// The settings.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.lock().policy.clone()
    }

    /// Changes the settings.
    pub fn set_policy(&self, policy: Policy) {
        self.lock().policy = policy;
    }

    /// Whether a listener is configured; without one the program must not ask the balancer.
    #[must_use]
    pub fn uses_balancer(&self) -> bool {
        self.lock().balancer_in_use
    }

    /// Configures a listener, or none.
    pub fn set_uses_balancer(&self, uses: bool) {
        self.lock().balancer_in_use = uses;
    }

    /// Replaces the fault script.
    pub fn set_faults(&self, faults: FaultPlan) {
        self.lock().faults = faults;
    }

    /// Ends faults and acts at `time`, which leaves the files and what was done as they are.
    pub fn faults_stop_at(&self, time: Timestamp) {
        self.lock().faults.until = time;
    }

    /// Adds a thing to come. It happens in [`FakeWorld::advance`].
    pub fn schedule(&self, at: Timestamp, event: Event) {
        let mut state = self.lock();
        let behind = state.events.partition_point(|(time, _)| *time <= at);
        state.events.insert(behind, (at, event));
    }

    /// Somebody does something now, whether faults have ended or not.
    pub fn act(&self, act: Act) {
        let mut state = self.lock();
        let until = std::mem::replace(&mut state.faults.until, Timestamp(i64::MAX));
        state.happen(Event::Act(act));
        state.faults.until = until;
    }

    /// Puts an image into the registry, and on the engine when `local`.
    pub fn add_image(&self, reference: &str, facts: ImageFacts, local: bool) {
        let mut state = self.lock();
        state.engine.publish_image(reference, facts);
        if local {
            state.engine.pull(reference);
        }
    }

    /// Another's program listens on `port` of `address`.
    pub fn add_foreign_program(&self, port: HostPort, address: &str) {
        self.lock().host.foreign.insert(port, address.to_owned());
    }

    /// Another's container runs; false when its name or port is taken.
    pub fn add_foreign_container(
        &self,
        name: &str,
        labels: &BTreeMap<String, String>,
        port: Option<HostPort>,
    ) -> bool {
        self.lock().add_foreign(name, labels, port)
    }

    /// Another's rule on our listener; false when its priority is taken.
    pub fn add_foreign_rule(&self, priority: u32, path: &str) -> bool {
        self.lock().add_foreign_rule(priority, path)
    }

    /// Sets the balancer's quotas: rules and target groups.
    pub fn set_quotas(&self, rules: usize, groups: usize) {
        let mut state = self.lock();
        (state.balancer.rules_max, state.balancer.groups_max) = (rules, groups);
    }

    /// Lets `span` pass: programs end, others act, files change.
    pub fn advance(&self, span: Span) {
        let mut state = self.lock();
        let end = state.now.after(span);
        while let Some((at, event)) = state.events.pop_front_if(|(at, _)| *at <= end) {
            let wait = at.since(state.now);
            state.pass_time(wait);
            state.happen(event);
        }
        let wait = end.since(state.now);
        state.pass_time(wait);
    }

    /// Lets the time between two passes go by: seconds mostly, minutes at times.
    pub fn between_passes(&self) -> Span {
        let span = {
            let mut state = self.lock();
            if state.rng.chance(100) {
                state.rng.millis(60_000, 400_000)
            } else {
                state.rng.millis(100, 60_000)
            }
        };
        self.advance(span);
        span
    }

    /// Starts and stops by hand since the last call, for the program to put into its memory.
    pub fn take_intents(&self) -> Vec<(ServerId, Intent)> {
        std::mem::take(&mut self.lock().intents)
    }

    /// Pauses that somebody asked for since the last call, for the program to put into its memory.
    pub fn take_pauses(&self) -> Vec<(Scope, Pause)> {
        std::mem::take(&mut self.lock().pauses)
    }

    /// The drain of this host that somebody asked for since the last call.
    pub fn take_drain(&self) -> Option<Pause> {
        self.lock().drain.take()
    }

    /// Whether the program under test was killed. Until [`FakeWorld::restart`] every call fails.
    #[must_use]
    pub fn crashed(&self) -> bool {
        self.lock().crashed
    }

    /// Starts the program again; the answer is all it knows.
    pub fn restart(&self) -> Memory {
        let mut state = self.lock();
        if state.crashed {
            state.crashed = false;
            state.runs = state.runs.saturating_add(1);
            state.hit_foreign = false;
            state.note(By::World, "start of the daemon", "", String::new());
        }
        state.saved.clone()
    }

    /// What the store keeps.
    #[must_use]
    pub fn saved(&self) -> Memory {
        self.lock().saved.clone()
    }

    /// Ends faults and acts, makes every program well behaved from its next start on (those that
    /// run: from now on), lets the files say what they say in the end, and allows removal of all.
    /// Foreign things stay.
    pub fn calm(&self) {
        let mut state = self.lock();
        let now = state.now;
        state.faults.until = state.faults.until.min(now);
        state.policy.allow_mass_delete = true;
        state.balancer.stale = None;
        state.balancer.nameless = false;
        state.engine.heal(now);
        for (_, event) in std::mem::take(&mut state.events) {
            if matches!(event, Event::Files(_)) {
                state.happen(event);
            }
        }
        state.hit_foreign = false;
        state.note(By::World, "calm", "", String::new());
    }

    /// Everything that happened, oldest first.
    #[must_use]
    pub fn effects(&self) -> Vec<Effect> {
        self.lock().effects.clone()
    }

    /// How many changes the program under test has made so far; equal before and after a pass
    /// that changed nothing.
    #[must_use]
    pub fn changes(&self) -> usize {
        self.lock().effects.iter().filter(|effect| effect.is_change() && effect.kind != "save").count()
    }

    /// Broken promises of the kind that must hold at every moment; empty is good.
    #[must_use]
    pub fn check(&self) -> Vec<String> {
        self.lock().check()
    }

    /// What is left over once the world is at rest; empty is good.
    #[must_use]
    pub fn leaks(&self, desired: &Desired) -> Vec<String> {
        self.lock().leaks(desired)
    }

    /// Entries that could be served and are not, once the world is at rest; empty is good.
    #[must_use]
    pub fn unmet(&self, desired: &Desired) -> Vec<String> {
        let mut state = self.lock();
        let mut unmet = state.unmet(desired);
        unmet.extend(state.ill());
        unmet
    }
}

impl Engine for FakeWorld {
    fn containers(&self) -> Answer<'_, Vec<Container>> {
        let call = Call::read(Side::Engine, "list containers", "");
        ready(self.lock().call(call, |state| Ok(state.engine.list())))
    }

    fn image<'a>(&'a self, reference: &'a str) -> Answer<'a, Option<Image>> {
        let call = Call::read(Side::Engine, "inspect image", reference);
        ready(self.lock().call(call, |state| Ok(state.engine.image(reference))))
    }

    fn details<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, Option<Details>> {
        let call = Call::read(Side::Engine, "inspect container", id.as_str());
        ready(self.lock().call(call, |state| Ok(state.engine.details(id))))
    }

    fn log<'a>(&'a self, ask: &'a LogAsk) -> Answer<'a, Vec<LogLine>> {
        let call = Call::read(Side::Engine, "read log", ask.container.as_str());
        ready(self.lock().call(call, |_state| Ok(Vec::new())))
    }

    fn apply<'a>(&'a self, op: &'a EngineOp, progress: &'a (dyn Fn(String) + Send + Sync)) -> Answer<'a, ()> {
        let (kind, target) = engine_ops::words(op);
        if let EngineOp::Pull { reference, .. } = op {
            progress(format!("pulling {reference}"));
        }
        ready(self.lock().call(Call::effect(Side::Engine, kind, target), |state| state.engine_op(op)))
    }
}

impl Balancer for FakeWorld {
    fn view<'a>(&'a self, read_targets: &'a TargetsToRead) -> Answer<'a, BalancerView> {
        let call = Call::read(Side::Balancer, "read listener", "");
        ready(self.lock().call(call, |state| Ok(state.balancer_view(read_targets))))
    }

    fn apply<'a>(&'a self, op: &'a BalancerOp) -> Answer<'a, ()> {
        let (kind, target) = balancer_ops::words(op);
        ready(self.lock().call(Call::effect(Side::Balancer, kind, &target), |state| state.balancer_op(op)))
    }
}

impl Host for FakeWorld {
    fn free_ports<'a>(&'a self, address: &'a str, range: PortRange) -> Answer<'a, Vec<HostPort>> {
        let call = Call::read(Side::Host, "test ports", address);
        ready(self.lock().call(call, |state| Ok(state.free_ports(address, range))))
    }

    fn reachable(&self, port: HostPort) -> Answer<'_, bool> {
        let text = port.to_string();
        let call = Call::read(Side::Host, "connect to", &text);
        ready(self.lock().call(call, |state| Ok(state.accepts(port))))
    }
}

impl Edges for FakeWorld {
    fn served(&self) -> BTreeMap<ServerId, HostPort> {
        self.lock().host.edges.iter().cloned().collect()
    }

    fn run(&self) -> String {
        self.lock().run()
    }

    fn uses(&self) -> BTreeMap<ServerId, Use> {
        self.lock().uses()
    }

    fn health(&self) -> BTreeMap<ServerId, Condition> {
        self.lock().health()
    }

    fn apply<'a>(&'a self, op: &'a EdgeOp) -> Answer<'a, ()> {
        let (kind, target) = match op {
            EdgeOp::Open { server, port } => ("open edge", format!("{server} port {port}")),
            EdgeOp::Close { server, port } => ("close edge", format!("{server} port {port}")),
            EdgeOp::HandOver { server, container } => {
                ("hand over", format!("{server} to {}", container.name()))
            }
            EdgeOp::EndLegs { server, legs } => {
                let names: Vec<&str> = legs.iter().map(crate::model::op::ContainerRef::name).collect();
                ("end legs", format!("{server}: {}", names.join(" ")))
            }
            EdgeOp::Sleep { server, .. } => ("put to sleep", server.to_string()),
            EdgeOp::Restart { server } => ("restart", server.to_string()),
        };
        ready(self.lock().call(Call::effect(Side::Edges, kind, &target), |state| state.edge_op(op)))
    }
}

/// A clock that stands still; whoever waits for it waits for ever.
#[derive(Clone, Copy, Debug, Default)]
pub struct StoppedClock(pub Timestamp);

impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        self.0
    }

    fn sleep(&self, _span: Span) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::pending())
    }
}

impl Store for FakeWorld {
    fn save<'a>(&'a self, memory: &'a Memory) -> Answer<'a, ()> {
        let call = Call::effect(Side::Store, "save", "memory");
        ready(self.lock().call(call, |state| {
            state.saved = memory.clone();
            Ok(())
        }))
    }
}

impl Clock for FakeWorld {
    fn now(&self) -> Timestamp {
        self.lock().now
    }

    fn sleep(&self, span: Span) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        // Time passes when the future is awaited, not when it is made.
        Box::pin(async move {
            self.lock().pass_time(span);
        })
    }
}
