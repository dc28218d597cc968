//! Hand-over of a server behind the gateway, and its legs.

use mcp_orchestrator::execute::learn::{ActionResult, learn};
use mcp_orchestrator::model::desired::Desired;
use mcp_orchestrator::model::id::{ContainerId, ImageId, ServerId};
use mcp_orchestrator::model::mark::{Mark, Role};
use mcp_orchestrator::model::memory::{Attempts, Lease, Memory};
use mcp_orchestrator::model::net::HostPort;
use mcp_orchestrator::model::observed::{
    Container, ContainerHealth, ContainerState, Details, Observed, Seen,
};
use mcp_orchestrator::model::op::Op;
use mcp_orchestrator::model::policy::{Ending, Policy};
use mcp_orchestrator::model::server::ServerKind;
use mcp_orchestrator::model::time::{Span, Timestamp};
use mcp_orchestrator::plan::check::check;
use mcp_orchestrator::plan::{Input, Plan, plan};
use mcp_orchestrator::world::fake::{Entry, EntryKind, edge_mark, nothing_seen, policy, server};
use mcp_orchestrator::world::{ErrorKind, WorldError};
use std::collections::BTreeMap;

const NOW: Timestamp = Timestamp(1_000_000_000);
const RUN: &str = "now";

/// A fleet of one server, `a`, whose declaration has `env` 2.
struct Bench {
    desired: Desired,
    observed: Observed,
    memory: Memory,
    policy: Policy,
}

fn id() -> ServerId {
    ServerId::new("a").unwrap()
}

fn entry(env: u32) -> Entry {
    Entry { env, ..Entry::new("a", EntryKind::Stdio, "r/x:1") }
}

fn container(name: &str, role: Role, env: u32, run: Option<&str>) -> Container {
    let Some(ServerKind::Container(decl)) = server(&entry(env)).map(|server| server.kind) else {
        panic!("no container")
    };
    Container {
        id: ContainerId(format!("id-{name}")),
        name: name.to_owned(),
        mark: Some(Mark {
            role: Some(role),
            port: HostPort::new(8000),
            run: run.map(str::to_owned),
            ..edge_mark(policy(0).unwrap().stack, &id(), &decl)
        }),
        state: ContainerState::Running(ContainerHealth::None),
        image: ImageId("sha256:x".to_owned()),
        created: NOW,
        host_ports: Vec::new(),
    }
}

impl Bench {
    /// The daemon runs, serves the server, and these are there, long since up.
    fn new(containers: Vec<Container>) -> Self {
        let port = HostPort::new(8000).unwrap();
        let attempts = Attempts { started: Some(Timestamp(NOW.0 - 10_000)), ..Attempts::default() };
        let started = Details { started: Some(Timestamp(NOW.0 - 10_000)), ..Details::default() };
        let details = containers.iter().map(|c| (c.id.clone(), Seen::Known(Some(started.clone())))).collect();
        Self {
            desired: Desired {
                servers: BTreeMap::from([(id(), server(&entry(2)).unwrap())]),
                ..Desired::default()
            },
            observed: Observed {
                containers: Seen::Known(containers),
                details,
                edges: Some(BTreeMap::from([(id(), port)])),
                run: Some(RUN.to_owned()),
                ..nothing_seen()
            },
            memory: Memory {
                leases: BTreeMap::from([(id(), Lease { port, next: None, since: NOW, fixed: false })]),
                attempts: BTreeMap::from([(id(), attempts)]),
                ..Memory::default()
            },
            policy: policy(9).unwrap(),
        }
    }

    fn input(&self) -> Input<'_> {
        let Self { desired, observed, memory, policy } = self;
        Input { desired, observed, memory, policy, now: NOW }
    }

    /// The plan, which must hold every invariant, and its actions in words.
    fn plan(&self) -> (Plan, Vec<String>) {
        let plan = plan(self.input());
        assert_eq!(check(self.input(), &plan), Vec::new());
        assert_eq!(plan.questions, Vec::new());
        let words = plan.actions.iter().map(|action| action.op.describe()).collect();
        (plan, words)
    }

    fn words(&self) -> Vec<String> {
        self.plan().1
    }
}

fn replacing() -> Bench {
    Bench::new(vec![container("mcp-a", Role::Server, 1, None), container("mcp-a-N1", Role::Server, 2, None)])
}

const TAKE_OVER: [&str; 4] = [
    "send requests to container mcp-a-N1",
    "stop container mcp-a",
    "remove container mcp-a",
    "rename container mcp-a-N1 to mcp-a",
];

#[test]
fn requests_are_handed_over_before_the_old_container_is_stopped() {
    let bench = replacing();
    let (mut plan, words) = bench.plan();
    assert_eq!(words, TAKE_OVER);
    let after: Vec<&[usize]> = plan.actions.iter().map(|action| action.after.as_slice()).collect();
    assert_eq!(after, [&[][..], &[0], &[0, 1], &[2]]);
    for action in &mut plan.actions {
        action.after.retain(|after| *after != 0);
    }
    let broken: Vec<u8> = check(bench.input(), &plan).iter().map(|broken| broken.number).collect();
    assert_eq!(broken, [10]);
}

#[test]
fn at_the_end_nothing_new_begins_and_no_listener_is_closed() {
    let mut bench = replacing();
    bench.policy.ending = Ending::Leave;
    assert_eq!(bench.words(), Vec::<String>::new());
    bench.policy.ending = Ending::Stop;
    assert_eq!(
        bench.words(),
        ["stop container mcp-a-N1", "remove container mcp-a-N1", "stop container mcp-a"]
    );
    // Whatever was asked for by hand holds over it.
    let mut bench = settled(Vec::new());
    bench.policy.ending = Ending::Stop;
    let (plan, words) = bench.plan();
    assert_eq!(
        (words.as_slice(), &plan.memory.intents),
        (&["stop container mcp-a".to_owned()][..], &BTreeMap::new())
    );
    // What a broken entry runs stays as it is.
    bench.desired.broken.insert(id(), "unknown flag".to_owned());
    bench.desired.servers.clear();
    assert_eq!(bench.words(), Vec::<String>::new());
}

#[test]
fn a_process_without_edges_hands_nothing_over() {
    let mut bench = replacing();
    (bench.observed.edges, bench.observed.run) = (None, None);
    assert_eq!(bench.words(), TAKE_OVER[1..]);
}

#[test]
fn a_closed_listener_is_opened_first_unless_its_port_is_taken() {
    let mut bench = replacing();
    bench.observed.edges = Some(BTreeMap::new());
    assert_eq!(bench.words(), ["listen on port 8000"]);
    bench.memory.attempts.get_mut(&id()).unwrap().port_taken = Some(NOW);
    assert_eq!(bench.words(), TAKE_OVER[1..]);
}

#[test]
fn a_lease_outside_a_full_range_is_tried_again() {
    let old = container("mcp-a", Role::Server, 2, None);
    let mut bench = Bench::new(vec![old]);
    let port = HostPort::new(60_000).unwrap();
    assert!(!bench.policy.ports.contains(port));
    bench.memory.leases.insert(id(), Lease { port, next: None, since: NOW, fixed: false });
    bench.observed.edges = Some(BTreeMap::new());
    let taken = |ago| Some(Timestamp(NOW.0 - ago));
    bench.memory.attempts.get_mut(&id()).unwrap().port_taken = taken(1_000);
    assert_eq!(bench.words(), Vec::<String>::new(), "it waits a little");
    bench.memory.attempts.get_mut(&id()).unwrap().port_taken = taken(60_000);
    let (plan, _) = bench.plan();
    assert_eq!(plan.memory.attempts[&id()].port_taken, None, "no port of the range is free");
    assert_eq!(plan.memory.leases[&id()].port, port);
    bench.memory = plan.memory;
    assert_eq!(bench.words(), ["listen on port 60000"]);
}

#[test]
fn a_new_container_that_does_not_answer_is_given_up() {
    let mut bench = replacing();
    let (plan, _) = bench.plan();
    let after = |kind| {
        let error = WorldError::new("handing over", kind, "no answer");
        let done: Vec<_> = plan
            .actions
            .iter()
            .map(|action| match action.op {
                Op::Edge(_) => (action.clone(), ActionResult::Failed(error.clone())),
                _ => (action.clone(), ActionResult::Skipped),
            })
            .collect();
        learn(plan.memory.clone(), &bench.desired, &done, NOW)
    };
    // The engine was away: nothing is wrong with the container.
    let unreachable = after(ErrorKind::Unreachable);
    assert_eq!(unreachable.attempts[&id()].next_try, None);
    let memory = after(ErrorKind::TimedOut);
    let attempts = &memory.attempts[&id()];
    assert_eq!(attempts.last_error.as_deref(), Some("handing over: no answer"));
    assert_eq!(attempts.next_try, Some(NOW.after(Span::secs(15))));
    bench.memory = memory;
    assert_eq!(bench.words(), ["stop container mcp-a-N1", "remove container mcp-a-N1"]);
}

fn leg(name: &str, env: u32, run: Option<&str>) -> Container {
    container(name, Role::Leg, env, run)
}

fn settled(legs: Vec<Container>) -> Bench {
    let mut containers = vec![container("mcp-a", Role::Server, 2, None)];
    containers.extend(legs);
    let mut bench = Bench::new(containers);
    bench.memory.attempts.clear();
    bench
}

const SWEPT: [&str; 2] = ["stop container mcp-a-L1", "remove container mcp-a-L1"];
const ENDED: [&str; 3] =
    ["end the sessions of mcp-a-L1", "stop container mcp-a-L1", "remove container mcp-a-L1"];

#[test]
fn legs_of_another_run_go_and_those_of_this_one_stay() {
    assert_eq!(
        settled(vec![leg("mcp-a-L1", 2, Some("before")), leg("mcp-a-L2", 2, Some(RUN))]).words(),
        SWEPT
    );
    assert_eq!(settled(vec![leg("mcp-a-L1", 2, None)]).words(), SWEPT);
    // A process that serves none has none.
    let mut bench = settled(vec![leg("mcp-a-L1", 2, Some(RUN))]);
    (bench.observed.edges, bench.observed.run) = (None, None);
    assert_eq!(bench.words(), SWEPT);
    // Its actions still run.
    bench.observed.busy.insert(id());
    assert_eq!(bench.words(), Vec::<String>::new());
}

#[test]
fn legs_of_a_dead_run_go_whatever_the_file_says() {
    let stale = || settled(vec![leg("mcp-a-L1", 2, Some("before"))]);
    let mut bench = stale();
    bench.desired.broken.insert(id(), "unknown flag".to_owned());
    bench.desired.servers.clear();
    assert_eq!(bench.words(), SWEPT);
    let mut bench = stale();
    bench.desired = Desired { stale: Some("line 1".to_owned()), ..Desired::default() };
    assert_eq!(bench.words(), SWEPT);
    // Legs are no servers: the last one's leg is not held back, nor does it count as one.
    let mut bench = Bench::new(vec![leg("mcp-a-L1", 2, Some("before"))]);
    (bench.desired, bench.memory) = (Desired::default(), Memory::default());
    bench.observed.edges = Some(BTreeMap::new());
    let (plan, words) = bench.plan();
    assert_eq!((words.as_slice(), plan.report.general.len()), (&SWEPT.map(str::to_owned)[..], 0));
}

#[test]
fn sessions_end_before_their_legs() {
    // A newer declaration has taken over.
    let bench = settled(vec![leg("mcp-a-L1", 1, Some(RUN))]);
    let (mut plan, words) = bench.plan();
    assert_eq!(words, ENDED);
    plan.actions[1].after.clear();
    plan.actions[2].after.clear();
    let broken: Vec<u8> = check(bench.input(), &plan).iter().map(|broken| broken.number).collect();
    assert_eq!(broken, [11, 11]);
    // It has not taken over yet.
    let mut bench = replacing();
    let Seen::Known(containers) = &mut bench.observed.containers else { panic!("unknown") };
    containers.push(leg("mcp-a-L1", 1, Some(RUN)));
    assert_eq!(bench.words(), TAKE_OVER);
    // Not to run; gone from the file, when removals are allowed.
    let mut bench = settled(vec![leg("mcp-a-L1", 2, Some(RUN))]);
    bench.desired.servers.get_mut(&id()).unwrap().enabled = false;
    assert!(ENDED.iter().all(|words| bench.words().iter().any(|w| w == words)), "{:?}", bench.words());
    bench.desired.servers.clear();
    assert_eq!(bench.words(), Vec::<String>::new());
    bench.policy.allow_mass_delete = true;
    assert!(ENDED.iter().all(|words| bench.words().iter().any(|w| w == words)), "{:?}", bench.words());
}

#[test]
fn a_leg_that_ended_is_removed_when_the_gateway_left_it() {
    let mut bench = settled(vec![leg("mcp-a-L1", 2, Some(RUN))]);
    let Seen::Known(containers) = &mut bench.observed.containers else { panic!("unknown") };
    containers[1].state = ContainerState::Exited(0);
    let finished = |ago: i64| {
        let end = Some(Timestamp(NOW.0 - ago));
        Seen::Known(Some(Details { finished: end, ..Details::default() }))
    };
    let leg = ContainerId("id-mcp-a-L1".to_owned());
    bench.observed.details.insert(leg.clone(), finished(500));
    let (plan, words) = bench.plan();
    assert_eq!((words.len(), plan.next_look), (0, Some(NOW.after(Span::millis(1500)))));
    bench.observed.details.insert(leg.clone(), finished(2000));
    assert_eq!(bench.words(), ["end the sessions of mcp-a-L1", "remove container mcp-a-L1"]);
    bench.observed.details.insert(leg, Seen::Known(None));
    assert_eq!(bench.words(), Vec::<String>::new());
}
