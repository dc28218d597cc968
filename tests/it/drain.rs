//! This host out of the load balancer and back, in the fake world.

use mcp_orchestrator::execute::{Limits, Teller};
use mcp_orchestrator::model::balancer::{BalancerOp, TargetState};
use mcp_orchestrator::model::desired::Desired;
use mcp_orchestrator::model::id::ServerId;
use mcp_orchestrator::model::memory::{Memory, Pause, Scope};
use mcp_orchestrator::model::op::{EngineOp, Op};
use mcp_orchestrator::model::time::Span;
use mcp_orchestrator::plan::report::RowState;
use mcp_orchestrator::reconcile::{Pass, Reconciler};
use mcp_orchestrator::world::fake::{
    Act, Behaviour, Entry, EntryKind, FakeWorld, ImageFacts, TARGET_ID, block_on, server,
};
use mcp_orchestrator::world::{Balancer, Clock, TargetsToRead, World};
use std::sync::Arc;

const IMAGE: &str = "r/x:1";

/// The daemon in a world with a load balancer, or without.
struct Site {
    fake: Arc<FakeWorld>,
    reconciler: Reconciler,
}

fn id(name: &str) -> ServerId {
    ServerId::new(name).unwrap()
}

impl Site {
    fn new(balanced: bool) -> Self {
        let fake = FakeWorld::new(1).unwrap();
        fake.set_uses_balancer(balanced);
        let behaviour = Behaviour::Stable { serves_after: Span::millis(500) };
        fake.add_image(IMAGE, ImageFacts::new(IMAGE, 1, behaviour), true);
        let entries = [Entry::new("a", EntryKind::Http, IMAGE), Entry::new("b", EntryKind::Stdio, IMAGE)];
        let servers = entries.iter().map(|entry| (id(&entry.name), server(entry).unwrap())).collect();
        fake.set_desired(Desired { servers, ..Desired::default() });
        let balancer: Result<Arc<dyn Balancer>, String> =
            if balanced { Ok(Arc::clone(&fake) as _) } else { Err("no listener configured".to_owned()) };
        let world = World {
            engine: Arc::clone(&fake) as _,
            balancer,
            host: Arc::clone(&fake) as _,
            edges: Some(Arc::clone(&fake) as _),
            store: Arc::clone(&fake) as _,
            clock: Arc::clone(&fake) as _,
        };
        let silent: Teller = Arc::new(|_action, _step| {});
        let reconciler = Reconciler::new(world, Limits::new(4), silent, Memory::default());
        Self { fake, reconciler }
    }

    fn pass(&mut self) -> Pass {
        let (desired, policy) = (self.fake.desired(), self.fake.policy());
        block_on(async {
            let pass = self.reconciler.pass(&desired, &policy).await;
            assert!(pass.broken.is_empty(), "{:?}", pass.broken);
            while self.reconciler.ended().await.is_some() {}
            pass
        })
        .expect("nothing waits")
    }

    /// Passes until all is at rest; the last one, and whether anything was registered on the way.
    fn rest(&mut self) -> (Pass, bool) {
        let mut registered = false;
        for _ in 0..200 {
            let pass = self.pass();
            let registers = |op: &Op| matches!(op, Op::Balancer(BalancerOp::Register { .. }));
            registered |= pass.plan.actions.iter().any(|action| registers(&action.op));
            if mcp_orchestrator::service::settled(&pass.plan, true) {
                return (pass, registered);
            }
            self.fake.advance(Span::secs(1));
        }
        panic!("no rest");
    }

    fn drain(&mut self, drain: Option<Pause>) {
        block_on(self.reconciler.remember(|memory| memory.drain = drain)).unwrap().unwrap();
    }

    fn asked(&self, secs: Option<u64>) -> Pause {
        let at = self.fake.now();
        Pause { by: "anna".to_owned(), at, until: secs.map(|secs| at.after(Span::secs(secs))) }
    }

    /// Targets of this host in use and rules of ours.
    fn routes(&self) -> (usize, usize) {
        let all = TargetsToRead { servers: vec![id("a"), id("b")], rotating: 0 };
        let view = block_on(self.fake.view(&all)).unwrap().unwrap();
        let targets = view.target_groups.iter().flat_map(|group| group.targets.known().unwrap().iter());
        let used = targets.filter(|t| t.id == TARGET_ID && t.state != TargetState::Draining).count();
        (used, view.rules.len())
    }
}

#[test]
fn its_targets_go_and_come_back_while_everything_runs_on() {
    let mut site = Site::new(true);
    let _quiet = site.rest();
    assert_eq!(site.routes(), (2, 2));
    let began = site.fake.now();
    site.drain(Some(site.asked(None)));
    let first = site.pass();
    assert_eq!(first.plan.report.drained.as_ref().map(|drained| drained.waits), Some(2));
    assert!(first.plan.report.sentence().ends_with(", this host is draining (2 to go)"));
    assert_eq!(first.plan.report.servers[&id("a")].state, RowState::Changing);
    let (last, registered) = site.rest();
    // It waited for the connections, and no longer than they may last.
    let took = site.fake.now().since(began);
    assert!(took >= Span::secs(30) && took < Span::secs(60), "{took}");
    assert_eq!((site.routes(), registered), ((0, 2), false), "the rules stay");
    assert!(
        last.plan.report.sentence().ends_with(", this host is drained"),
        "{}",
        last.plan.report.sentence()
    );
    let converged =
        |pass: &Pass| pass.plan.report.servers.values().all(|row| row.state == RowState::Converged);
    assert!(converged(&last));
    assert!(last.plan.report.general[0].text.starts_with("this host is drained by anna: out of the load"));
    // A long time: nothing goes, nothing is asked again and again.
    site.fake.advance(Span::secs(600));
    let (last, _) = site.rest();
    assert!(last.plan.is_empty() && last.plan.read_next.is_empty());
    assert_eq!(site.routes(), (0, 2));
    // What ends is started again, and not registered.
    site.fake.act(Act::KillOurs);
    let pass = site.pass();
    let starts = |op: &Op| matches!(op, Op::Engine(EngineOp::Start(_)));
    assert!(pass.plan.actions.iter().any(|action| starts(&action.op)), "{:?}", pass.plan.actions);
    let (last, registered) = site.rest();
    assert!(converged(&last) && !registered);
    site.drain(None);
    let (last, _) = site.rest();
    assert!(last.plan.report.drained.is_none() && converged(&last));
    assert_eq!(site.routes(), (2, 2));
    assert!(site.fake.check().is_empty(), "{:?}", site.fake.check());
}

#[test]
fn it_ends_by_itself_and_goes_before_a_pause() {
    let mut site = Site::new(true);
    let _quiet = site.rest();
    let pause = site.asked(None);
    let paused = |memory: &mut Memory| {
        memory.pauses.insert(Scope::Host, pause);
    };
    block_on(site.reconciler.remember(paused)).unwrap().unwrap();
    site.drain(Some(site.asked(Some(120))));
    let (last, _) = site.rest();
    assert_eq!(site.routes(), (0, 2), "who drains a host wants it empty: {:?}", last.plan.report.servers);
    assert!(last.plan.report.servers.values().all(|row| row.paused));
    let end = last.plan.next_look.expect("it looks again when the drain ends");
    site.fake.advance(end.since(site.fake.now()));
    // Nothing is done for what is paused.
    assert!(site.rest().0.plan.report.drained.is_none());
    assert_eq!(site.routes(), (0, 2));
    block_on(site.reconciler.remember(|memory| memory.pauses.clear())).unwrap().unwrap();
    let _quiet = site.rest();
    assert_eq!(site.routes(), (2, 2));
}

#[test]
fn without_a_load_balancer_it_says_what_it_does() {
    let mut site = Site::new(false);
    let _quiet = site.rest();
    site.drain(Some(site.asked(None)));
    let (last, _) = site.rest();
    assert!(last.plan.is_empty());
    let said = &last.plan.report.general[0].text;
    assert!(
        said.contains("no load balancer is configured, so nothing is taken out; /readyz answers 503"),
        "{said}"
    );
}
