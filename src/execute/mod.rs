//! Carries a plan out. Actions that need each other form a lane; lanes run side by side and a
//! failure in one stops only what needs it.
//!
//! Must never decide *what* to do: if it needs an `if` about that, the planner lacks a case.

pub mod learn;

use crate::execute::learn::ActionResult;
use crate::model::id::ServerId;
use crate::model::op::{EdgeOp, EngineOp, Op};
use crate::plan::action::Action;
use crate::world::{ErrorKind, World, WorldError};
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// What is told while actions run: for logs, tasks and people waiting.
pub type Teller = Arc<dyn Fn(&Action, Step) + Send + Sync>;

/// A moment in the life of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It begins.
    Begins,
    /// Something to show while it runs.
    Progress(String),
    /// It is over.
    Ended(ActionResult),
}

/// Limits on what runs at the same time, shared by all lanes of a process.
#[derive(Clone, Debug)]
pub struct Limits {
    starts: Arc<Mutex<Starts>>,
    pulls: Arc<Semaphore>,
    stops: Arc<Semaphore>,
    balancer: Arc<Semaphore>,
    listeners: Arc<Semaphore>,
}

/// What starts and creations wait for.
#[derive(Clone, Debug)]
struct Starts {
    all: Arc<Semaphore>,
    /// Creations wait here first, so that few of them stand before a start: the first server is up long
    /// before the last one is made, and what waits for the disk runs beside what does not.
    creations: Arc<Semaphore>,
}

impl Starts {
    fn new(starts: usize) -> Self {
        let permits = || Arc::new(Semaphore::new(starts.max(1)));
        Self { all: permits(), creations: permits() }
    }
}

/// Images fetched at once: the network is shared.
const PULLS_MAX: usize = 3;
/// Stops at once: they mostly wait for the container's own timeout.
const STOPS_MAX: usize = 128;
/// Calls to the load balancer's API at once; its buckets are small and shared by all hosts.
const BALANCER_MAX: usize = 4;
/// Listeners opened or closed at once: quick, and none of them waits for AWS.
const LISTENERS_MAX: usize = 16;

impl Limits {
    /// `starts` container starts and creations at once (`max_parallel_operations`).
    #[must_use]
    pub fn new(starts: usize) -> Self {
        let permits = |n: usize| Arc::new(Semaphore::new(n.max(1)));
        Self {
            starts: Arc::new(Mutex::new(Starts::new(starts))),
            pulls: permits(PULLS_MAX),
            stops: permits(STOPS_MAX),
            balancer: permits(BALANCER_MAX),
            listeners: permits(LISTENERS_MAX),
        }
    }

    /// From now on as many starts at once; those under way are not counted.
    pub fn set_starts(&self, starts: usize) {
        *self.starts.lock().unwrap_or_else(PoisonError::into_inner) = Starts::new(starts);
    }

    fn starts(&self) -> Starts {
        self.starts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where an operation waits before it waits for its limit.
    fn before(&self, op: &Op) -> Option<Arc<Semaphore>> {
        matches!(op, Op::Engine(EngineOp::Create(_))).then(|| self.starts().creations)
    }

    fn of(&self, op: &Op) -> Arc<Semaphore> {
        Arc::clone(match op {
            Op::Engine(EngineOp::Pull { .. }) => &self.pulls,
            Op::Engine(EngineOp::Create(_) | EngineOp::Start(_) | EngineOp::Unpause(_)) => {
                return self.starts().all;
            }
            Op::Engine(EngineOp::Stop(_) | EngineOp::Remove { .. } | EngineOp::Rename { .. }) => &self.stops,
            // Like stops, these mostly wait: for requests under way to end.
            Op::Edge(
                EdgeOp::HandOver { .. }
                | EdgeOp::EndLegs { .. }
                | EdgeOp::Sleep { .. }
                | EdgeOp::Restart { .. },
            ) => &self.stops,
            Op::Edge(EdgeOp::Open { .. } | EdgeOp::Close { .. }) => &self.listeners,
            Op::Balancer(_) => &self.balancer,
        })
    }
}

/// Actions of a plan that need each other, in order, with their `after` as indices into the lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// The actions.
    pub actions: Vec<Action>,
    /// Servers they are for.
    pub servers: BTreeSet<ServerId>,
}

/// Cuts a plan's actions into lanes: one server's actions stay together, and so do actions of
/// several servers that need each other.
#[must_use]
pub fn lanes(actions: &[Action]) -> Vec<Lane> {
    // A lane is named by the lowest index in it.
    let mut parents: Vec<usize> = (0..actions.len()).collect();
    let mut last_of: BTreeMap<&ServerId, usize> = BTreeMap::new();
    for (index, action) in actions.iter().enumerate() {
        for after in &action.after {
            join(&mut parents, index, *after);
        }
        if let Some(earlier) = action.server.as_ref().and_then(|server| last_of.insert(server, index)) {
            join(&mut parents, index, earlier);
        }
    }
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for index in 0..actions.len() {
        members.entry(root(&mut parents, index)).or_default().push(index);
    }
    members.into_values().map(|members| lane(actions, &members)).collect()
}

/// The name of the lane that `index` is in so far.
fn root(parents: &mut [usize], mut index: usize) -> usize {
    while let Some(parent) = parents.get(index).copied().filter(|parent| *parent != index) {
        let above = parents.get(parent).copied().unwrap_or(parent);
        if let Some(slot) = parents.get_mut(index) {
            *slot = above;
        }
        index = above;
    }
    index
}

/// Makes one lane of two.
fn join(parents: &mut [usize], one: usize, other: usize) {
    let (one, other) = (root(parents, one), root(parents, other));
    if let Some(slot) = parents.get_mut(one.max(other)) {
        *slot = one.min(other);
    }
}

fn lane(actions: &[Action], members: &[usize]) -> Lane {
    // Members are in the plan's order.
    let place = |index: &usize| members.binary_search(index).ok();
    let actions: Vec<Action> = members
        .iter()
        .filter_map(|index| actions.get(*index))
        .map(|action| Action { after: action.after.iter().filter_map(place).collect(), ..action.clone() })
        .collect();
    let servers = actions.iter().filter_map(|action| action.server.clone()).collect();
    Lane { actions, servers }
}

/// Runs a lane to its end: what became of every action, in the lane's order.
pub async fn run(world: World, lane: Lane, limits: Limits, tell: Teller) -> Vec<(Action, ActionResult)> {
    let mut results: Vec<Option<ActionResult>> = vec![None; lane.actions.len()];
    let mut started: BTreeSet<usize> = BTreeSet::new();
    let mut running = FuturesUnordered::new();
    loop {
        for (index, action) in lane.actions.iter().enumerate() {
            if started.contains(&index) {
                continue;
            }
            let needs: Vec<Option<&ActionResult>> =
                action.after.iter().map(|after| results.get(*after).and_then(Option::as_ref)).collect();
            if needs.iter().any(|need| matches!(need, Some(ActionResult::Failed(_) | ActionResult::Skipped)))
            {
                started.insert(index);
                if let Some(slot) = results.get_mut(index) {
                    *slot = Some(ActionResult::Skipped);
                }
                tell(action, Step::Ended(ActionResult::Skipped));
            } else if needs.iter().all(|need| matches!(need, Some(ActionResult::Done))) {
                started.insert(index);
                running.push(one(&world, action, index, &limits, &tell));
            }
        }
        let Some((index, result)) = running.next().await else { break };
        if let Some(slot) = results.get_mut(index) {
            *slot = Some(result);
        }
    }
    drop(running);
    let results = results.into_iter().map(|result| result.unwrap_or(ActionResult::Skipped));
    lane.actions.into_iter().zip(results).collect()
}

async fn one(
    world: &World,
    action: &Action,
    index: usize,
    limits: &Limits,
    tell: &Teller,
) -> (usize, ActionResult) {
    // The semaphores are never closed.
    let (before, limit) = (limits.before(&action.op), limits.of(&action.op));
    let _turn = match &before {
        Some(before) => before.acquire().await.ok(),
        None => None,
    };
    let _permit = limit.acquire().await;
    tell(action, Step::Begins);
    let progress = |line: String| tell(action, Step::Progress(line));
    let result = match &action.op {
        Op::Engine(op) => world.engine.apply(op, &progress).await,
        Op::Balancer(op) => match &world.balancer {
            Ok(balancer) => balancer.apply(op).await,
            Err(why) => Err(WorldError::new(action.op.describe(), ErrorKind::Unreachable, why.clone())),
        },
        Op::Edge(op) => match &world.edges {
            Some(edges) => edges.apply(op).await,
            None => {
                Err(WorldError::new(action.op.describe(), ErrorKind::Failed, "this process serves no ports"))
            }
        },
    };
    let result = result.map_or_else(ActionResult::Failed, |()| ActionResult::Done);
    tell(action, Step::Ended(result.clone()));
    (index, result)
}

#[cfg(test)]
mod tests {
    use super::{BALANCER_MAX, Limits, Teller, lanes, run};
    use crate::model::balancer::BalancerOp;
    use crate::model::container::ContainerSpec;
    use crate::model::id::{ContainerId, ImageId, RuleArn, ServerId};
    use crate::model::net::HostPort;
    use crate::model::observed::{Container, Details, Image, LogAsk, LogLine};
    use crate::model::op::{ContainerRef, Create, EdgeOp, EngineOp, Op};
    use crate::plan::action::Action;
    use crate::world::fake::FakeWorld;
    use crate::world::{Answer, Engine, World};
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    fn action(server: &str, after: &[usize]) -> Action {
        let container = ContainerRef::Id { id: ContainerId(server.to_owned()), name: server.to_owned() };
        Action {
            server: ServerId::new(server).ok(),
            op: Op::Engine(EngineOp::Start(container)),
            why: String::new(),
            after: after.to_vec(),
        }
    }

    /// An engine that takes its time and says what it did.
    #[derive(Default)]
    struct Slow {
        done: Mutex<Vec<String>>,
        /// Under way now, and at most so far.
        busy: Mutex<(usize, usize)>,
    }

    impl Engine for Slow {
        fn containers(&self) -> Answer<'_, Vec<Container>> {
            Box::pin(async { Ok(Vec::new()) })
        }

        fn image<'a>(&'a self, _reference: &'a str) -> Answer<'a, Option<Image>> {
            Box::pin(async { Ok(None) })
        }

        fn details<'a>(&'a self, _id: &'a ContainerId) -> Answer<'a, Option<Details>> {
            Box::pin(async { Ok(None) })
        }

        fn log<'a>(&'a self, _ask: &'a LogAsk) -> Answer<'a, Vec<LogLine>> {
            Box::pin(async { Ok(Vec::new()) })
        }

        fn apply<'a>(
            &'a self,
            op: &'a EngineOp,
            _tell: &'a (dyn Fn(String) + Send + Sync),
        ) -> Answer<'a, ()> {
            Box::pin(async move {
                {
                    let mut busy = self.busy.lock().unwrap();
                    *busy = (busy.0 + 1, busy.1.max(busy.0 + 1));
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
                self.busy.lock().unwrap().0 -= 1;
                let word = if matches!(op, EngineOp::Create(_)) { "create" } else { "start" };
                let name = match op {
                    EngineOp::Create(create) => create.name.clone(),
                    EngineOp::Start(container) => container.name().to_owned(),
                    _ => String::new(),
                };
                self.done.lock().unwrap().push(format!("{word} {name}"));
                Ok(())
            })
        }
    }

    fn made(server: &str) -> [Action; 2] {
        let create = Create {
            name: server.to_owned(),
            spec: ContainerSpec::default(),
            image: ImageId("i".to_owned()),
            publish: None,
            labels: BTreeMap::new(),
            carried_volumes: Vec::new(),
        };
        let made = Action { op: Op::Engine(EngineOp::Create(Box::new(create))), ..action(server, &[]) };
        let start = Op::Engine(EngineOp::Start(ContainerRef::Planned(server.to_owned())));
        [made, Action { op: start, ..action(server, &[0]) }]
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_is_started_long_before_the_last_is_made() {
        let (engine, fake) = (Arc::new(Slow::default()), FakeWorld::new(1).unwrap());
        let world = World {
            engine: Arc::clone(&engine) as _,
            balancer: Err("off".to_owned()),
            host: Arc::clone(&fake) as _,
            edges: None,
            store: Arc::clone(&fake) as _,
            clock: fake as _,
        };
        let (limits, tell): (_, Teller) = (Limits::new(2), Arc::new(|_action, _step| {}));
        let names: Vec<String> = (0..12).map(|n| format!("s{n}")).collect();
        let runs = names.iter().map(|name| {
            let lane = lanes(&made(name)).remove(0);
            run(world.clone(), lane, limits.clone(), Arc::clone(&tell))
        });
        futures_util::future::join_all(runs).await;
        let done = engine.done.lock().unwrap().clone();
        let place = |what: &str| done.iter().position(|word| word == what).unwrap();
        assert_eq!((done.len(), engine.busy.lock().unwrap().1), (24, 2), "never more at once than allowed");
        for (n, name) in names.iter().enumerate() {
            // Those before it, and a few that are made meanwhile.
            assert!(place(&format!("start {name}")) <= 2 * n + 6, "{done:?}");
        }
    }

    #[test]
    fn listeners_do_not_wait_for_the_load_balancer() {
        let limits = Limits::new(1);
        let slow = Op::Balancer(BalancerOp::DeleteRule { rule: RuleArn("arn:x".to_owned()) });
        let held: Vec<_> = (0..BALANCER_MAX).map(|_| limits.of(&slow).try_acquire_owned().unwrap()).collect();
        assert!(limits.of(&slow).try_acquire_owned().is_err(), "all its calls are under way");
        let (server, port) = (ServerId::new("time").unwrap(), HostPort::new(8000).unwrap());
        for op in [EdgeOp::Open { server: server.clone(), port }, EdgeOp::Close { server, port }] {
            assert!(limits.of(&Op::Edge(op.clone())).try_acquire_owned().is_ok(), "{op:?}");
        }
        drop(held);
    }

    #[test]
    fn lanes_keep_together_what_needs_each_other() {
        let actions =
            [action("a", &[]), action("b", &[]), action("a", &[0]), action("c", &[]), action("c", &[1, 3])];
        let lanes = lanes(&actions);
        let shape: Vec<(usize, Vec<String>)> = lanes
            .iter()
            .map(|lane| (lane.actions.len(), lane.servers.iter().map(ToString::to_string).collect()))
            .collect();
        assert_eq!(shape, [(2, vec!["a".to_owned()]), (3, vec!["b".to_owned(), "c".to_owned()])]);
        let after: Vec<Vec<usize>> = lanes[1].actions.iter().map(|action| action.after.clone()).collect();
        assert_eq!(after, [vec![], vec![], vec![0, 1]]);
    }
}
