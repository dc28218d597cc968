//! The fake itself, tested: its refusals are the real ones, its script repeats, its checks see what
//! they should.

use crate::model::balancer::{
    BalancerOp, BalancerView, GroupRef, HealthCheck, TargetGroupFixed, TargetState,
};
use crate::model::desired::Desired;
use crate::model::id::{ContainerId, ServerId};
use crate::model::mark::{MANAGED_BY, MANAGER, REMOVE_VOLUMES, ROLE, Role, SERVER, SPEC_HASH, STACK};
use crate::model::memory::{Lease, Memory};
use crate::model::net::HostPort;
use crate::model::observed::{ContainerHealth, ContainerState, Details, Seen};
use crate::model::op::{ContainerRef, Create, EdgeOp, EngineOp, Publish};
use crate::model::server::ServerKind;
use crate::model::time::{Span, Timestamp};
use crate::world::fake::{
    ACTS, Act, Behaviour, Entry, EntryKind, FakeWorld, FaultPlan, ImageFacts, LISTENER_ARN, OTHER_TARGET_ID,
    TARGET_ID, VPC_ID, block_on, container_spec, generate, server,
};
use crate::world::{Balancer, Clock, Edges, Engine, ErrorKind, Host, Store, TargetsToRead, WorldError};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) const IMAGE: &str = "r/x:1";

pub(crate) fn port(number: u16) -> HostPort {
    HostPort::new(number).unwrap()
}

pub(crate) fn id(text: &str) -> ServerId {
    ServerId::new(text).unwrap()
}

pub(crate) fn world(behaviour: Behaviour) -> Arc<FakeWorld> {
    let world = FakeWorld::new(1).unwrap();
    world.add_image(IMAGE, ImageFacts::new(IMAGE, 1, behaviour), true);
    world
}

pub(crate) fn stable() -> Behaviour {
    Behaviour::Stable { serves_after: Span::millis(500) }
}

/// Our labels, as few as make a mark.
fn labels(world: &FakeWorld, entry: &Entry) -> BTreeMap<String, String> {
    let stack = world.policy().stack.to_string();
    let (role, rm) = (Role::Server.as_str().to_owned(), entry.remove_volumes.to_string());
    let all = [
        (MANAGED_BY, MANAGER.to_owned()),
        (STACK, stack),
        (SERVER, entry.name.clone()),
        (ROLE, role),
        (REMOVE_VOLUMES, rm),
    ];
    all.map(|(key, value)| (key.to_owned(), value)).into()
}

/// A create of `entry` as `name`, published on `at`.
pub(crate) fn create(world: &FakeWorld, entry: &Entry, name: &str, at: Option<u16>) -> Create {
    let image = ImageFacts::new(&entry.image, 1, stable()).image.id;
    let publish =
        |at| Publish { host_ip: "0.0.0.0".into(), host_port: HostPort::new(at), container_port: 8080 };
    Create {
        name: name.to_owned(),
        spec: container_spec(entry),
        image,
        publish: at.map(publish),
        labels: labels(world, entry),
        carried_volumes: Vec::new(),
    }
}

pub(crate) fn engine(world: &FakeWorld, op: EngineOp) -> Result<(), WorldError> {
    block_on(Engine::apply(world, &op, &|_| {})).unwrap()
}

pub(crate) fn named(name: &str) -> ContainerRef {
    ContainerRef::Planned(name.to_owned())
}

fn remove(name: &str, volumes: Option<Vec<String>>) -> EngineOp {
    EngineOp::Remove { container: named(name), volumes }
}

pub(crate) fn entry(name: &str) -> Entry {
    Entry::new(name, EntryKind::Http, IMAGE)
}

fn up(world: &FakeWorld, entry: &Entry, name: &str, at: Option<u16>) -> Result<(), WorldError> {
    engine(world, EngineOp::Create(Box::new(create(world, entry, name, at))))?;
    engine(world, EngineOp::Start(named(name)))
}

fn state(world: &FakeWorld, name: &str) -> ContainerState {
    let all = block_on(world.containers()).unwrap().unwrap();
    all.iter().find(|c| c.name == name).unwrap().state
}

fn details(world: &FakeWorld, name: &str) -> Details {
    let all = block_on(world.containers()).unwrap().unwrap();
    let id: ContainerId = all.iter().find(|c| c.name == name).unwrap().id.clone();
    block_on(world.details(&id)).unwrap().unwrap().unwrap()
}

fn refused(answer: Result<(), WorldError>, kind: ErrorKind) {
    assert_eq!(answer.map_err(|error| error.kind), Err(kind));
}

#[test]
fn the_engine_refuses_what_docker_refuses() {
    let world = world(stable());
    world.calm();
    up(&world, &entry("a"), "mcp-a", Some(8000)).unwrap();
    refused(up(&world, &entry("a"), "mcp-a", None), ErrorKind::Conflict);
    refused(engine(&world, remove("mcp-a", None)), ErrorKind::Conflict);
    // A host port is bound by the start, not by the creation.
    let other = create(&world, &entry("b"), "mcp-b", Some(8000));
    engine(&world, EngineOp::Create(Box::new(other))).unwrap();
    refused(engine(&world, EngineOp::Start(named("mcp-b"))), ErrorKind::Conflict);
    assert_eq!(state(&world, "mcp-b"), ContainerState::Created);
    assert!(details(&world, "mcp-b").error.unwrap().contains("port is already allocated"));
    refused(
        engine(&world, EngineOp::Rename { container: named("mcp-b"), to: "mcp-a".into() }),
        ErrorKind::Conflict,
    );
    refused(engine(&world, EngineOp::Unpause(named("mcp-a"))), ErrorKind::Conflict);
    refused(engine(&world, EngineOp::Start(named("mcp-c"))), ErrorKind::NotFound);
    engine(&world, EngineOp::Stop(named("mcp-a"))).unwrap();
    engine(&world, EngineOp::Start(named("mcp-b"))).unwrap();
    engine(&world, EngineOp::Start(named("mcp-b"))).unwrap();
    engine(&world, remove("mcp-a", None)).unwrap();
    engine(&world, remove("mcp-a", None)).unwrap();
    let mut gone = create(&world, &entry("c"), "mcp-c", None);
    gone.image.0 = "sha256:none".into();
    refused(engine(&world, EngineOp::Create(Box::new(gone))), ErrorKind::NotFound);
    assert_eq!(world.check(), Vec::<String>::new());
}

#[test]
fn a_paused_container_can_go_on_or_be_stopped() {
    let world = world(stable());
    up(&world, &entry("a"), "mcp-a", None).unwrap();
    world.act(Act::PauseOurs);
    assert_eq!(state(&world, "mcp-a"), ContainerState::Paused);
    refused(engine(&world, EngineOp::Start(named("mcp-a"))), ErrorKind::Conflict);
    engine(&world, EngineOp::Unpause(named("mcp-a"))).unwrap();
    assert_eq!(state(&world, "mcp-a"), ContainerState::Running(ContainerHealth::None));
}

#[test]
fn programs_end_as_their_image_says() {
    let crash = world(Behaviour::CrashTimes { times: 1, after: Span::secs(3) });
    up(&crash, &entry("a"), "mcp-a", None).unwrap();
    crash.advance(Span::secs(4));
    assert_eq!(state(&crash, "mcp-a"), ContainerState::Exited(1));
    engine(&crash, EngineOp::Start(named("mcp-a"))).unwrap();
    crash.advance(Span::secs(999));
    assert_eq!(state(&crash, "mcp-a"), ContainerState::Running(ContainerHealth::None));

    let oom = world(Behaviour::OutOfMemory { after: Span::secs(1) });
    up(&oom, &entry("a"), "mcp-a", None).unwrap();
    block_on(oom.sleep(Span::secs(2))).unwrap();
    assert!(details(&oom, "mcp-a").oom_killed);

    let sick = world(Behaviour::NeverHealthy);
    let facts = ImageFacts { health_check: true, ..ImageFacts::new(IMAGE, 1, Behaviour::NeverHealthy) };
    sick.add_image(IMAGE, facts, true);
    up(&sick, &entry("a"), "mcp-a", Some(8000)).unwrap();
    assert_eq!(state(&sick, "mcp-a"), ContainerState::Running(ContainerHealth::Starting));
    sick.advance(Span::secs(60));
    assert_eq!(state(&sick, "mcp-a"), ContainerState::Running(ContainerHealth::Unhealthy));
    assert!(!block_on(sick.reachable(port(8000))).unwrap().unwrap());
    sick.calm();
    sick.advance(Span::secs(1));
    assert_eq!(state(&sick, "mcp-a"), ContainerState::Running(ContainerHealth::Healthy));
    assert!(block_on(sick.reachable(port(8000))).unwrap().unwrap());
}

#[test]
fn a_pull_may_fail_or_move_the_tag() {
    let world = world(stable());
    let pull =
        |reference: &str| engine(&world, EngineOp::Pull { reference: reference.into(), platform: None });
    refused(pull("r/nowhere:1"), ErrorKind::NotFound);
    let image = || block_on(world.image(IMAGE)).unwrap().unwrap().unwrap();
    let old = image();
    world.act(Act::MoveTag);
    assert_eq!(image().id, old.id);
    pull(IMAGE).unwrap();
    assert_ne!(image().id, old.id);
    // The old one is still there by id, and by digest after a prune and a pull.
    assert!(block_on(world.image(old.id.as_str())).unwrap().unwrap().is_some());
    world.act(Act::PruneImages);
    assert!(block_on(world.image(old.id.as_str())).unwrap().unwrap().is_none());
    pull(old.digest.as_deref().unwrap()).unwrap();
    assert!(block_on(world.image(old.digest.as_deref().unwrap())).unwrap().unwrap().is_some());
}

#[test]
fn anonymous_volumes_are_kept_carried_and_counted() {
    let world = world(stable());
    let a = Entry { anonymous_volume: true, ..entry("a") };
    let desired = Desired { servers: BTreeMap::from([(id("a"), server(&a).unwrap())]), ..Desired::default() };
    world.set_desired(desired.clone());
    up(&world, &a, "mcp-a", None).unwrap();
    let volumes = details(&world, "mcp-a").anonymous_volumes;
    assert_eq!(volumes.len(), 1);
    let mut next = create(&world, &a, "mcp-a-N1", None);
    next.carried_volumes.clone_from(&volumes);
    engine(&world, EngineOp::Create(Box::new(next))).unwrap();
    assert_eq!(details(&world, "mcp-a-N1").anonymous_volumes, volumes);
    engine(&world, EngineOp::Stop(named("mcp-a"))).unwrap();
    // The replacement has it: nothing is lost, nothing is left.
    engine(&world, remove("mcp-a", Some(Vec::new()))).unwrap();
    assert_eq!((world.check(), world.leaks(&desired)), (vec![], vec![]));
    // Nobody has it any more although the entry is there: left over.
    engine(&world, remove("mcp-a-N1", None)).unwrap();
    assert_eq!(world.leaks(&desired).len(), 1);
}

#[test]
fn removing_a_volume_with_data_is_a_broken_promise() {
    let world = world(stable());
    let a = Entry { anonymous_volume: true, remove_volumes: true, ..entry("a") };
    let desired = Desired { servers: BTreeMap::from([(id("a"), server(&a).unwrap())]), ..Desired::default() };
    for (files, broken) in [(desired, 1), (Desired::default(), 0)] {
        world.set_desired(files);
        up(&world, &a, "mcp-a", None).unwrap();
        world.act(Act::KillOurs);
        let before = world.check().len();
        engine(&world, remove("mcp-a", Some(Vec::new()))).unwrap();
        assert_eq!(world.check().len() - before, broken, "{:?}", world.check());
    }
}

#[test]
fn ports_of_others_are_not_free() {
    let world = world(stable());
    let range = world.policy().ports;
    world.add_foreign_program(port(8001), "127.0.0.1");
    assert!(world.add_foreign_container("web", &BTreeMap::new(), Some(port(8002))));
    let open = EdgeOp::Open { server: id("e"), port: port(8003) };
    block_on(Edges::apply(&*world, &open)).unwrap().unwrap();
    up(&world, &entry("a"), "mcp-a", Some(8004)).unwrap();
    let free = |address: &str| block_on(world.free_ports(address, range)).unwrap().unwrap();
    assert_eq!(free("0.0.0.0").len(), range.len() - 4);
    assert!(free("10.0.0.1").contains(&port(8001)) && !free("127.0.0.1").contains(&port(8001)));
    for taken in [8001, 8002, 8004] {
        let open = EdgeOp::Open { server: id("f"), port: port(taken) };
        refused(block_on(Edges::apply(&*world, &open)).unwrap(), ErrorKind::Conflict);
    }
    assert_eq!(world.served(), BTreeMap::from([(id("e"), port(8003))]));
}

#[test]
fn touching_others_is_seen() {
    let world = world(stable());
    let half = BTreeMap::from([("managed-by".to_owned(), "mcp-orchestrator".to_owned())]);
    assert!(world.add_foreign_container("mcp-a", &half, None));
    assert_eq!(world.check(), Vec::<String>::new());
    engine(&world, EngineOp::Stop(named("mcp-a"))).unwrap();
    assert_eq!(world.check().len(), 1);
    assert!(world.effects().last().unwrap().to_string().contains("NOT OURS"));
}

#[test]
fn a_broken_or_unread_entry_keeps_its_container() {
    let world = world(stable());
    let broken = Desired { broken: BTreeMap::from([(id("a"), "typo".to_owned())]), ..Desired::default() };
    let stale = Desired { stale: Some("typo".to_owned()), ..Desired::default() };
    for (nth, desired) in [broken, stale, Desired::default()].into_iter().enumerate() {
        world.set_desired(desired);
        up(&world, &entry("a"), "mcp-a", None).unwrap();
        engine(&world, EngineOp::Stop(named("mcp-a"))).unwrap();
        engine(&world, remove("mcp-a", None)).unwrap();
        assert_eq!(world.check().len(), nth + 1, "{:?}", world.check());
    }
    world.calm();
    up(&world, &entry("a"), "mcp-a", None).unwrap();
    engine(&world, EngineOp::Stop(named("mcp-a"))).unwrap();
    assert_eq!(world.check().len(), 3, "removing all is allowed in the calm");
}

#[test]
fn a_port_leased_twice_is_seen() {
    let world = world(stable());
    let lease = || Lease { port: port(8000), next: None, since: Timestamp(0), fixed: false };
    let memory = Memory { leases: [(id("a"), lease()), (id("b"), lease())].into(), ..Memory::default() };
    block_on(world.save(&memory)).unwrap().unwrap();
    assert_eq!(world.check(), ["port 8000 is leased to a and b"]);
}

#[test]
fn faults_come_before_or_after_the_effect_and_kill() {
    let until = Timestamp(i64::MAX);
    let world = world(stable());
    world.set_faults(FaultPlan { after: 1000, until, ..FaultPlan::none() });
    assert!(up(&world, &entry("a"), "mcp-a", None).is_err());
    assert_eq!(state(&world, "mcp-a"), ContainerState::Created);
    world.set_faults(FaultPlan { before: 1000, until, ..FaultPlan::none() });
    assert!(up(&world, &entry("b"), "mcp-b", None).is_err());
    world.set_faults(FaultPlan { crash: 1000, until, ..FaultPlan::none() });
    block_on(Edges::apply(&*world, &EdgeOp::Open { server: id("e"), port: port(8003) }))
        .unwrap()
        .unwrap_err();
    assert!(world.crashed() && world.served().is_empty());
    world.set_faults(FaultPlan::none());
    assert_eq!(block_on(world.containers()).unwrap().unwrap_err().cause, crate::world::fake::CRASHED);
    assert_eq!(world.restart(), Memory::default());
    let names: Vec<String> =
        block_on(world.containers()).unwrap().unwrap().into_iter().map(|c| c.name).collect();
    assert_eq!(names, ["mcp-a"]);
}

#[test]
fn what_could_run_and_does_not_is_named() {
    let world = world(stable());
    world.set_uses_balancer(false);
    let fits = |entry: &Entry| Desired {
        servers: [(id(&entry.name), server(entry).unwrap())].into(),
        ..Desired::default()
    };
    let (a, desired) = (entry("a"), fits(&entry("a")));
    world.set_desired(desired.clone());
    assert_eq!(world.unmet(&desired), ["server a has 0 running containers"]);
    let ServerKind::Container(decl) = server(&a).unwrap().kind else { panic!() };
    let mut made = create(&world, &a, "mcp-a", Some(8000));
    made.labels.insert(SPEC_HASH.into(), decl.fingerprint.to_string());
    engine(&world, EngineOp::Create(Box::new(made))).unwrap();
    engine(&world, EngineOp::Start(named("mcp-a"))).unwrap();
    let lease = Lease { port: port(8000), next: None, since: Timestamp(0), fixed: false };
    block_on(world.save(&Memory { leases: [(id("a"), lease)].into(), ..Memory::default() }))
        .unwrap()
        .unwrap();
    assert_eq!((world.unmet(&desired), world.leaks(&desired)), (vec![], vec![]));
    // Another declaration, a disabled entry, a listener, no entry.
    assert_eq!(
        world.unmet(&fits(&Entry { env: 1, ..a.clone() })),
        ["container mcp-a is not what the entry declares"]
    );
    let off = fits(&Entry { enabled: false, ..a });
    assert_eq!(world.unmet(&off), ["mcp-a runs although its entry is disabled"]);
    world.set_uses_balancer(true);
    assert_eq!(world.unmet(&desired), ["server a has no rule"]);
    assert_eq!(world.leaks(&Desired::default()), ["container mcp-a has no entry"]);
    // What others stand in the way of is not ours to mend.
    world.act(Act::RemoveOurs);
    assert!(world.add_foreign_container("mcp-a", &BTreeMap::new(), None));
    assert_eq!((world.unmet(&desired), world.leaks(&desired)), (vec![], vec![]));
}

#[test]
fn a_port_may_be_lost_within_a_pass() {
    let world = world(stable());
    let lease = Lease { port: port(8007), next: None, since: Timestamp(0), fixed: false };
    block_on(world.save(&Memory { leases: [(id("a"), lease)].into(), ..Memory::default() }))
        .unwrap()
        .unwrap();
    world.set_faults(FaultPlan { grab: 1000, until: Timestamp(i64::MAX), ..FaultPlan::none() });
    refused(up(&world, &entry("a"), "mcp-a", Some(8007)), ErrorKind::Conflict);
}

// The balancer.

fn balancer(world: &FakeWorld, op: BalancerOp) -> Result<(), WorldError> {
    block_on(Balancer::apply(world, &op)).unwrap()
}

fn view(world: &FakeWorld) -> BalancerView {
    let read = TargetsToRead { servers: Vec::new(), rotating: 100 };
    block_on(world.view(&read)).unwrap().unwrap()
}

fn check() -> HealthCheck {
    let (path, matcher) = ("/healthz".to_owned(), "200".to_owned());
    HealthCheck { path, matcher, interval: 15, timeout: 5, healthy_threshold: 2, unhealthy_threshold: 2 }
}

fn group(world: &FakeWorld, name: &str) -> BalancerOp {
    let (protocol, vpc_id, target_type) = ("HTTP".to_owned(), VPC_ID.to_owned(), "instance".to_owned());
    let fixed = TargetGroupFixed { protocol, port: 80, vpc_id, target_type };
    let tags = labels(world, &entry("a"));
    BalancerOp::CreateTargetGroup { name: name.into(), fixed, check: check(), tags }
}

fn rule(world: &FakeWorld, priority: u32, to: &str) -> BalancerOp {
    BalancerOp::CreateRule {
        listener_arn: LISTENER_ARN.into(),
        priority,
        paths: vec!["/mcp/a".into(), "/mcp/a/*".into()],
        group: GroupRef::Planned(to.into()),
        rewrites: Vec::new(),
        tags: labels(world, &entry("a")),
    }
}

fn ports(group: &str, target_id: &str, register: bool) -> BalancerOp {
    let (group, target_id, ports) = (GroupRef::Planned(group.into()), target_id.to_owned(), vec![port(8000)]);
    if register {
        BalancerOp::Register { group, target_id, ports }
    } else {
        BalancerOp::Deregister { group, target_id, ports }
    }
}

fn target(world: &FakeWorld) -> Option<TargetState> {
    match &view(world).target_groups[0].targets {
        Seen::Known(targets) => targets.iter().find(|t| t.id == TARGET_ID).map(|t| t.state),
        Seen::Unknown(why) => panic!("{why}"),
    }
}

#[test]
fn a_target_goes_through_its_states() {
    let world = world(stable());
    balancer(&world, group(&world, "mcp-a-1")).unwrap();
    balancer(&world, ports("mcp-a-1", TARGET_ID, true)).unwrap();
    assert_eq!(target(&world), Some(TargetState::Unused));
    balancer(&world, rule(&world, 100, "mcp-a-1")).unwrap();
    assert_eq!(target(&world), Some(TargetState::Initial));
    world.advance(Span::secs(20));
    assert_eq!(target(&world), Some(TargetState::Unhealthy));
    up(&world, &entry("a"), "mcp-a", Some(8000)).unwrap();
    world.advance(Span::secs(2));
    assert_eq!(target(&world), Some(TargetState::Healthy));
    balancer(&world, ports("mcp-a-1", TARGET_ID, false)).unwrap();
    balancer(&world, ports("mcp-a-1", TARGET_ID, false)).unwrap();
    assert_eq!(target(&world), Some(TargetState::Draining));
    balancer(&world, ports("mcp-a-1", TARGET_ID, true)).unwrap();
    assert_eq!(target(&world), Some(TargetState::Initial));
    balancer(&world, ports("mcp-a-1", TARGET_ID, false)).unwrap();
    world.advance(Span::secs(301));
    assert_eq!(target(&world), None);
    assert_eq!(world.check(), Vec::<String>::new());
}

#[test]
fn the_balancer_refuses_what_aws_refuses() {
    let world = world(stable());
    balancer(&world, group(&world, "mcp-a-1")).unwrap();
    balancer(&world, group(&world, "mcp-a-1")).unwrap();
    let BalancerOp::CreateTargetGroup { name, fixed, tags, .. } = group(&world, "mcp-a-1") else { panic!() };
    let differs = HealthCheck { path: "/".into(), ..check() };
    refused(
        balancer(&world, BalancerOp::CreateTargetGroup { name, fixed, check: differs, tags }),
        ErrorKind::Conflict,
    );
    for bad in ["-a", "a--b", "a_b", &"x".repeat(33)] {
        refused(balancer(&world, group(&world, bad)), ErrorKind::Invalid);
    }
    refused(balancer(&world, rule(&world, 100, "none")), ErrorKind::NotFound);
    refused(balancer(&world, rule(&world, 50_001, "mcp-a-1")), ErrorKind::Invalid);
    balancer(&world, rule(&world, 100, "mcp-a-1")).unwrap();
    refused(balancer(&world, rule(&world, 100, "mcp-a-1")), ErrorKind::Conflict);
    // Two rules with equal conditions are fine for AWS, and seen as one too many at rest.
    balancer(&world, rule(&world, 101, "mcp-a-1")).unwrap();
    let desired = Desired { servers: [(id("a"), server(&entry("a")).unwrap())].into(), ..Desired::default() };
    assert_eq!(world.leaks(&desired), ["server a has 2 rules"]);
    let arns: Vec<_> = view(&world).rules.into_iter().map(|rule| rule.arn).collect();
    let moves = vec![(arns[0].clone(), 101), (arns[1].clone(), 100)];
    balancer(&world, BalancerOp::SetPriorities { moves }).unwrap();
    assert_eq!(view(&world).rules[0].arn, arns[1]);
    let moves = vec![(arns[0].clone(), 100)];
    refused(balancer(&world, BalancerOp::SetPriorities { moves }), ErrorKind::Conflict);
    let group_arn = view(&world).target_groups[0].arn.clone();
    let delete = || BalancerOp::DeleteTargetGroup { group: group_arn.clone(), name: "mcp-a-1".into() };
    refused(balancer(&world, delete()), ErrorKind::Conflict);
    world.set_quotas(2, 1);
    refused(balancer(&world, rule(&world, 102, "mcp-a-1")), ErrorKind::Quota);
    refused(balancer(&world, group(&world, "mcp-b-1")), ErrorKind::Quota);
    for rule in arns {
        balancer(&world, BalancerOp::DeleteRule { rule: rule.clone() }).unwrap();
        balancer(&world, BalancerOp::DeleteRule { rule }).unwrap();
    }
    balancer(&world, delete()).unwrap();
    balancer(&world, delete()).unwrap();
    assert_eq!(world.check(), Vec::<String>::new());
}

#[test]
fn others_on_the_listener_are_guarded() {
    let world = world(stable());
    assert!(world.add_foreign_rule(7, "/mcp/a"));
    balancer(&world, BalancerOp::DeleteRule { rule: view(&world).rules[0].arn.clone() }).unwrap();
    assert_eq!(world.check().len(), 1);
    // Another host is behind ours.
    balancer(&world, group(&world, "mcp-a-1")).unwrap();
    balancer(&world, rule(&world, 100, "mcp-a-1")).unwrap();
    world.act(Act::OtherHostJoins);
    balancer(&world, BalancerOp::DeleteRule { rule: view(&world).rules[0].arn.clone() }).unwrap();
    assert_eq!(world.check().len(), 2);
    balancer(&world, ports("mcp-a-1", OTHER_TARGET_ID, false)).unwrap();
    assert_eq!(world.check().len(), 3);
    // Tags stripped after the last read: refused; seen without them and changed all the same: broken.
    world.act(Act::StripGroupTags);
    refused(balancer(&world, ports("mcp-a-1", TARGET_ID, true)), ErrorKind::Denied);
    view(&world);
    balancer(&world, ports("mcp-a-1", TARGET_ID, true)).unwrap();
    assert_eq!(world.check().len(), 4);
}

#[test]
fn reads_may_lag_behind_and_catch_up() {
    let world = world(stable());
    world.set_faults(FaultPlan { lag: 1000, until: Timestamp(i64::MAX), ..FaultPlan::none() });
    balancer(&world, group(&world, "mcp-a-1")).unwrap();
    assert!(view(&world).target_groups.is_empty());
    world.advance(Span::secs(21));
    assert_eq!(view(&world).target_groups.len(), 1);
}

// Whole runs.

#[test]
fn a_seed_is_a_world() {
    let run = |seed| {
        let scenario = generate(seed).unwrap();
        let world = scenario.world();
        while world.now() < scenario.until {
            let _answer = block_on(world.containers());
            let _answer = block_on(world.view(&TargetsToRead::default()));
            let _answer = up(&world, &Entry::new("s0", EntryKind::Http, "r/http-1:1"), "mcp-s0", None);
            if world.crashed() {
                world.restart();
            }
            world.between_passes();
        }
        world.calm();
        let lines: Vec<String> = world.effects().iter().map(ToString::to_string).collect();
        (lines, world.now(), world.desired())
    };
    assert!((0..50).all(|seed| run(seed) == run(seed)));
    assert_ne!(run(1).0, run(2).0);
    assert!(generate(1).unwrap().to_string().starts_with("seed 1: "));
}

#[test]
fn seeds_cover_the_ground() {
    let scenarios: Vec<_> = (0..500).map(|seed| generate(seed).unwrap()).collect();
    let share = |wanted: &dyn Fn(&crate::world::fake::Scenario) -> bool| {
        scenarios.iter().filter(|s| wanted(s)).count()
    };
    let files = |wanted: fn(&Desired) -> bool| {
        share(&|s| {
            s.events.iter().any(|(_, e)| matches!(e, crate::world::fake::Event::Files(d) if wanted(d)))
        })
    };
    assert!(files(|d| d.stale.is_some()) > 10 && files(|d| d.servers.is_empty() && d.broken.is_empty()) > 10);
    assert!(files(|d| !d.broken.is_empty()) > 50 && files(|d| !d.nameless.is_empty()) > 10);
    assert!(share(&|s| s.faults == FaultPlan { until: s.until, ..FaultPlan::none() }) > 20);
    assert!(share(&|s| !s.balancer) > 50 && share(&|s| s.quotas.0 < 100) > 10);
    for act in ACTS {
        let acts =
            |e: &crate::world::fake::Event| matches!(e, crate::world::fake::Event::Act(a) if *a == act);
        assert!(share(&|s| s.events.iter().any(|(_, e)| acts(e))) > 5, "{act:?}");
    }
    // The end is readable: what remains must be reachable.
    for scenario in scenarios {
        let world = scenario.world();
        world.calm();
        assert!(world.desired().stale.is_none() && world.desired().nameless.is_empty());
    }
}
