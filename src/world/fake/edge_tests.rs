//! The fake behind its edge listeners, tested: it moves requests as the gateway does, and sees a
//! loop that stops what still has them.

use crate::model::desired::Desired;
use crate::model::mark::Mark;
use crate::model::op::{EdgeOp, EngineOp};
use crate::model::server::ServerKind;
use crate::model::time::Span;
use crate::world::fake::tests::{IMAGE, create, engine, id, named, port, stable, world};
use crate::world::fake::{Act, Behaviour, Entry, EntryKind, FakeWorld, block_on, edge_mark, server};
use crate::world::{Edges, Engine, ErrorKind};
use std::collections::BTreeMap;
use std::sync::Arc;

fn entry(env: u32) -> Entry {
    Entry { env, ..Entry::new("a", EntryKind::Stdio, IMAGE) }
}

fn edge(world: &FakeWorld, op: &EdgeOp) -> Result<(), ErrorKind> {
    block_on(Edges::apply(world, op)).unwrap().map_err(|error| error.kind)
}

fn hand_over(to: &str) -> EdgeOp {
    EdgeOp::HandOver { server: id("a"), container: named(to) }
}

/// A running container of `entry` behind the edge.
fn up(world: &FakeWorld, entry: &Entry, name: &str) {
    let Some(ServerKind::Container(decl)) = server(entry).map(|server| server.kind) else {
        panic!("no container")
    };
    let mark = Mark { transport: None, ..edge_mark(world.policy().stack, &id("a"), &decl) };
    let mut made = create(world, entry, name, None);
    made.labels = mark.labels();
    engine(world, EngineOp::Create(Box::new(made))).unwrap();
    engine(world, EngineOp::Start(named(name))).unwrap();
}

/// The file declares another environment than the running container has; the new one is ready.
fn replacing() -> Arc<FakeWorld> {
    let world = world(stable());
    let wanted = server(&entry(2)).unwrap();
    let servers = BTreeMap::from([(id("a"), wanted)]);
    world.set_desired(Desired { servers, ..Desired::default() });
    up(&world, &entry(1), "mcp-a");
    up(&world, &entry(2), "mcp-a-Nnew");
    edge(&world, &EdgeOp::Open { server: id("a"), port: port(8003) }).unwrap();
    world.advance(Span::secs(5));
    world
}

fn names(world: &FakeWorld) -> Vec<String> {
    block_on(world.containers()).unwrap().unwrap().into_iter().map(|container| container.name).collect()
}

#[test]
fn stopping_what_has_the_requests_is_seen() {
    let world = replacing();
    engine(&world, EngineOp::Stop(named("mcp-a"))).unwrap();
    assert!(world.check()[0].contains("stopped while it had the requests"), "{:?}", world.check());
    let world = replacing();
    edge(&world, &hand_over("mcp-a-Nnew")).unwrap();
    engine(&world, EngineOp::Stop(named("mcp-a"))).unwrap();
    assert_eq!(world.check(), Vec::<String>::new());
}

#[test]
fn requests_go_back_when_the_new_one_ends() {
    let world = replacing();
    edge(&world, &hand_over("mcp-a-Nnew")).unwrap();
    engine(&world, EngineOp::Stop(named("mcp-a-Nnew"))).unwrap();
    engine(&world, EngineOp::Start(named("mcp-a-Nnew"))).unwrap();
    world.advance(Span::secs(5));
    assert_eq!(world.check(), Vec::<String>::new());
    // Killed and started again: nothing of a hand-over is left.
    let world = replacing();
    edge(&world, &hand_over("mcp-a-Nnew")).unwrap();
    world.act(Act::RestartDaemon);
    world.restart();
    edge(&world, &EdgeOp::Open { server: id("a"), port: port(8003) }).unwrap();
    engine(&world, EngineOp::Stop(named("mcp-a"))).unwrap();
    assert_eq!(world.check().len(), 1);
}

#[test]
fn a_container_that_does_not_answer_gets_no_requests() {
    let mute = world(Behaviour::NeverHealthy);
    up(&mute, &entry(1), "mcp-a");
    assert_eq!(edge(&mute, &hand_over("mcp-a")), Err(ErrorKind::TimedOut));
    assert_eq!(edge(&mute, &hand_over("mcp-b")), Err(ErrorKind::NotFound));
    let slow = world(Behaviour::Stable { serves_after: Span::secs(9) });
    up(&slow, &entry(1), "mcp-a");
    assert_eq!(edge(&slow, &hand_over("mcp-a")), Ok(()));
}

#[test]
fn legs_belong_to_a_run() {
    let world = replacing();
    world.act(Act::OpenLeg);
    let leg = names(&world).into_iter().find(|name| name.starts_with("mcp-a-L")).unwrap();
    let desired = world.desired();
    // It is what its server still runs.
    assert_eq!(world.leaks(&desired), ["server a has 2 containers: mcp-a, mcp-a-Nnew"]);
    world.act(Act::RestartDaemon);
    world.restart();
    assert!(world.leaks(&desired)[0].contains("of an earlier run"), "{:?}", world.leaks(&desired));
    engine(&world, EngineOp::Stop(named(&leg))).unwrap();
    assert_eq!(world.check(), Vec::<String>::new());
}

#[test]
fn ending_a_leg_with_a_session_is_seen() {
    let world = replacing();
    world.act(Act::OpenLeg);
    let leg = names(&world).into_iter().find(|name| name.starts_with("mcp-a-L")).unwrap();
    engine(&world, EngineOp::Stop(named(&leg))).unwrap();
    assert!(world.check()[0].contains("while it had a session"), "{:?}", world.check());
    let world = replacing();
    world.act(Act::OpenLeg);
    let leg = names(&world).into_iter().find(|name| name.starts_with("mcp-a-L")).unwrap();
    edge(&world, &EdgeOp::EndLegs { server: id("a"), legs: vec![named(&leg)] }).unwrap();
    engine(&world, EngineOp::Stop(named(&leg))).unwrap();
    assert_eq!(world.check(), Vec::<String>::new());
}
