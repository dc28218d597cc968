//! Several instances of one server, in the fake world: how many there are, who has the port, and that they
//! are changed one after another.

use mcp_orchestrator::execute::{Limits, Teller};
use mcp_orchestrator::model::desired::Desired;
use mcp_orchestrator::model::id::ServerId;
use mcp_orchestrator::model::mark::Role;
use mcp_orchestrator::model::memory::{Intent, Memory, Pause, Scope};
use mcp_orchestrator::model::net::HostPort;
use mcp_orchestrator::model::observed::{Container, ContainerState, Seen};
use mcp_orchestrator::model::op::{EdgeOp, EngineOp, Op};
use mcp_orchestrator::model::time::Span;
use mcp_orchestrator::plan::check::check;
use mcp_orchestrator::plan::report::RowState;
use mcp_orchestrator::plan::{Input, Plan, plan};
use mcp_orchestrator::reconcile::{Pass, Reconciler};
use mcp_orchestrator::world::fake::{
    Act, Behaviour, Entry, EntryKind, FakeWorld, ImageFacts, block_on, nothing_seen, policy, server,
};
use mcp_orchestrator::world::{Balancer, Clock, Edges, Engine, World};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const IMAGE: &str = "r/x:1";

struct Site {
    fake: Arc<FakeWorld>,
    reconciler: Reconciler,
}

fn id(name: &str) -> ServerId {
    ServerId::instance(name).unwrap()
}

fn entry(kind: EntryKind, replicas: u32) -> Entry {
    Entry { replicas, ..Entry::new("time", kind, IMAGE) }
}

fn desired(entries: &[Entry]) -> Desired {
    let servers = entries.iter().map(|entry| (id(&entry.name), server(entry).unwrap())).collect();
    Desired { servers, ..Desired::default() }
}

fn reconciler(fake: &Arc<FakeWorld>, memory: Memory) -> Reconciler {
    let balancer: Arc<dyn Balancer> = Arc::clone(fake) as _;
    let world = World {
        engine: Arc::clone(fake) as _,
        balancer: Ok(balancer),
        host: Arc::clone(fake) as _,
        edges: Some(Arc::clone(fake) as _),
        store: Arc::clone(fake) as _,
        clock: Arc::clone(fake) as _,
    };
    let silent: Teller = Arc::new(|_action, _step| {});
    Reconciler::new(world, Limits::new(4), silent, memory)
}

impl Site {
    fn new(entries: &[Entry]) -> Self {
        let fake = FakeWorld::new(1).unwrap();
        fake.set_uses_balancer(true);
        let behaviour = Behaviour::Stable { serves_after: Span::millis(500) };
        fake.add_image(IMAGE, ImageFacts::new(IMAGE, 1, behaviour), true);
        let mut settings = fake.policy();
        settings.replacements_max = 4;
        fake.set_policy(settings);
        fake.set_desired(desired(entries));
        Self { reconciler: reconciler(&fake, Memory::default()), fake }
    }

    fn pass(&mut self) -> Pass {
        let (desired, policy) = (self.fake.desired(), self.fake.policy());
        let pass = block_on(async {
            let pass = self.reconciler.pass(&desired, &policy).await;
            assert!(pass.broken.is_empty(), "{:?}", pass.broken);
            while self.reconciler.ended().await.is_some() {}
            pass
        })
        .expect("nothing waits");
        assert_eq!(self.fake.check(), [""; 0]);
        pass
    }

    /// Passes until all is at rest; `each` looks after every one.
    fn rest_with(&mut self, mut each: impl FnMut(&Self, &Pass)) -> Pass {
        for _ in 0..300 {
            let pass = self.pass();
            each(self, &pass);
            if mcp_orchestrator::service::settled(&pass.plan, true) {
                return pass;
            }
            self.fake.advance(Span::secs(1));
        }
        panic!("no rest");
    }

    fn rest(&mut self) -> Pass {
        self.rest_with(|_, _| ())
    }

    fn containers(&self) -> Vec<Container> {
        let mut all = block_on(self.fake.containers()).unwrap().unwrap();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    fn names(&self) -> Vec<String> {
        self.containers().into_iter().map(|one| one.name).collect()
    }

    fn running(&self) -> usize {
        self.containers().iter().filter(|one| matches!(one.state, ContainerState::Running(_))).count()
    }

    fn wish(&mut self, change: impl FnOnce(&mut Memory) + Send) {
        block_on(self.reconciler.remember(change)).unwrap().unwrap();
    }

    fn intent(&self, run: bool, restarts: bool) -> Intent {
        let at = self.fake.now();
        let restart = restarts.then_some(at);
        Intent { run, by: "anna".to_owned(), at, until: None, file_enabled: true, restart }
    }
}

#[test]
fn as_many_run_as_asked_for_and_the_first_alone_has_the_port() {
    for kind in [EntryKind::Stdio, EntryKind::Http] {
        let mut site = Site::new(&[entry(kind, 3)]);
        let last = site.rest();
        assert_eq!(site.names(), ["mcp-time", "mcp-time-R2", "mcp-time-R3"]);
        for (one, number) in site.containers().iter().zip([1, 2, 3]) {
            let mark = one.mark.as_ref().unwrap();
            let server = mark.server.as_ref().unwrap();
            assert_eq!((server.replica_number(), server.server()), (number, id("time")));
            let role = if number == 1 { Role::Server } else { Role::Replica };
            assert_eq!((mark.role, mark.port.is_some()), (Some(role), number == 1), "{}", one.name);
            assert_eq!(mark.route.as_deref(), Some("edge"));
        }
        let memory = site.reconciler.memory();
        assert_eq!(memory.leases.keys().collect::<Vec<_>>(), [&id("time")]);
        assert_eq!(site.fake.served().keys().collect::<Vec<_>>(), [&id("time")]);
        let row = &last.plan.report.servers[&id("time")];
        assert_eq!(last.plan.report.servers.len(), 1, "one row a server");
        assert_eq!((row.state, row.running, row.instances.len()), (RowState::Converged, Some(3), 3));
        assert!(last.plan.report.sentence().starts_with("1 of 1 server converged"));
        assert_eq!(site.fake.leaks(&site.fake.desired()), [""; 0]);
        assert_eq!(site.fake.unmet(&site.fake.desired()), [""; 0]);
    }
}

#[test]
fn labels_are_enough_to_know_them_again() {
    let mut site = Site::new(&[entry(EntryKind::Stdio, 3)]);
    let _quiet = site.rest();
    let before = site.containers();
    site.reconciler = reconciler(&site.fake, Memory::default());
    let adopted = site.rest();
    assert_eq!(site.containers(), before, "{:?}", adopted.plan.actions);
    assert_eq!(site.reconciler.memory().leases.len(), 1);
}

#[test]
fn fewer_instances_remove_the_last_ones_and_that_is_no_removal_of_servers() {
    let mut site = Site::new(&[entry(EntryKind::Stdio, 8)]);
    let _quiet = site.rest();
    let first = site.containers().into_iter().find(|one| one.name == "mcp-time").unwrap();
    site.fake.set_desired(desired(&[entry(EntryKind::Stdio, 1)]));
    let last = site.rest();
    assert_eq!(site.names(), ["mcp-time"], "{:?}", last.plan.report.general);
    assert_eq!(site.containers()[0].id, first.id, "the one that stays is left alone");
    // And without the entry all of them go, as one server.
    site.fake
        .set_desired(desired(&[entry(EntryKind::Stdio, 4), Entry::new("other", EntryKind::Stdio, IMAGE)]));
    let _quiet = site.rest();
    site.fake.set_desired(desired(&[Entry::new("other", EntryKind::Stdio, IMAGE)]));
    let _quiet = site.rest();
    assert_eq!(site.names(), ["mcp-other"]);
}

#[test]
fn one_that_dies_comes_back_and_the_others_do_not_notice() {
    let mut site = Site::new(&[entry(EntryKind::Stdio, 3)]);
    let _quiet = site.rest();
    let ids = |site: &Site| site.containers().into_iter().map(|one| (one.id, one.name)).collect::<Vec<_>>();
    let before = ids(&site);
    site.fake.act(Act::KillOurs);
    assert_eq!(site.running(), 2);
    let row = site.pass().plan.report.servers[&id("time")].clone();
    assert_eq!(row.running, Some(2));
    let of_one = row.reasons.iter().filter(|reason| reason.text.starts_with("time")).count();
    assert!(of_one > 0, "which one is said: {:?}", row.reasons);
    let last = site.rest();
    assert_eq!((site.running(), ids(&site)), (3, before));
    assert_eq!(last.plan.report.servers[&id("time")].running, Some(3));
}

#[test]
fn a_changed_declaration_reaches_one_after_another() {
    for bind in [false, true] {
        let changed = |env| Entry { bind, env, ..entry(EntryKind::Stdio, 3) };
        let mut site = Site::new(&[changed(0)]);
        let _quiet = site.rest();
        site.fake.set_desired(desired(&[changed(1)]));
        let wanted = site.fake.desired().servers[&id("time")].clone();
        let mut least = usize::MAX;
        let last = site.rest_with(|site, pass| {
            let moving = |one: &&Container| one.name.contains("-N");
            assert!(site.containers().iter().filter(moving).count() <= 1, "{:?}", site.names());
            let stops =
                pass.plan.actions.iter().filter(|one| matches!(one.op, Op::Engine(EngineOp::Stop(_))));
            assert!(stops.count() <= 1);
            least = least.min(site.running());
        });
        assert_eq!(site.names(), ["mcp-time", "mcp-time-R2", "mcp-time-R3"]);
        assert!(least >= 2, "{least} ran, bind {bind}: {:?}", last.plan.report);
        let mcp_orchestrator::model::server::ServerKind::Container(decl) = &wanted.kind else { panic!() };
        for one in site.containers() {
            assert_eq!(one.mark.unwrap().fingerprint.as_ref(), Some(&decl.fingerprint));
        }
    }
}

#[test]
fn a_declaration_that_does_not_come_up_stops_at_the_first() {
    let mut site = Site::new(&[entry(EntryKind::Stdio, 3)]);
    let _quiet = site.rest();
    let before: Vec<_> = site.containers().into_iter().map(|one| one.id).collect();
    let bad = "r/bad:1";
    site.fake.add_image(bad, ImageFacts::new(bad, 2, Behaviour::CrashAtOnce { exit: 3 }), true);
    site.fake.set_desired(desired(&[Entry { image: bad.to_owned(), ..entry(EntryKind::Stdio, 3) }]));
    for _ in 0..120 {
        let pass = site.pass();
        let others = pass.plan.actions.iter().filter(|one| one.server != Some(id("time")));
        assert_eq!(others.count(), 0, "{:?}", pass.plan.actions);
        site.fake.advance(Span::secs(1));
    }
    let now: Vec<_> =
        site.containers().into_iter().filter(|one| !one.name.contains("-N")).map(|one| one.id).collect();
    assert_eq!((now, site.running() >= 3), (before, true));
}

#[test]
fn a_restart_by_hand_is_done_one_after_another_and_that_of_one_is_of_one() {
    let mut site = Site::new(&[entry(EntryKind::Stdio, 3)]);
    let _quiet = site.rest();
    site.fake.advance(Span::secs(60));
    let asked = site.intent(true, true);
    site.wish(|memory| _ = memory.intents.insert(id("time"), asked));
    let mut restarted = Vec::new();
    let _quiet = site.rest_with(|site, pass| {
        let stops = pass.plan.actions.iter().filter(|one| matches!(one.op, Op::Engine(EngineOp::Stop(_))));
        let stopped: Vec<ServerId> = stops.filter_map(|one| one.server.clone()).collect();
        assert!(stopped.len() <= 1 && site.running() >= 2, "{stopped:?}");
        restarted.extend(stopped);
    });
    assert_eq!(restarted, [id("time"), id("time-R2"), id("time-R3")]);
    assert!(site.reconciler.memory().intents.is_empty(), "it is done");
    site.fake.advance(Span::secs(60));
    let asked = site.intent(true, true);
    site.wish(|memory| _ = memory.intents.insert(id("time-R2"), asked));
    let mut restarted = Vec::new();
    let _quiet = site.rest_with(|_, pass| {
        let stops = pass.plan.actions.iter().filter(|one| matches!(one.op, Op::Engine(EngineOp::Stop(_))));
        restarted.extend(stops.filter_map(|one| one.server.clone()));
    });
    assert_eq!(restarted, [id("time-R2")]);
    assert!(site.reconciler.memory().intents.is_empty());
}

#[test]
fn a_stop_and_a_pause_are_of_all_also_of_those_that_come_later() {
    let mut site = Site::new(&[entry(EntryKind::Stdio, 2)]);
    let _quiet = site.rest();
    let asked = site.intent(false, false);
    site.wish(|memory| _ = memory.intents.insert(id("time"), asked));
    let last = site.rest();
    assert_eq!((site.running(), last.plan.report.servers[&id("time")].state), (0, RowState::Stopped));
    site.fake.set_desired(desired(&[entry(EntryKind::Stdio, 3)]));
    let _quiet = site.rest();
    assert_eq!((site.running(), site.names().len()), (0, 2));
    site.wish(|memory| memory.intents.clear());
    let _quiet = site.rest();
    assert_eq!(site.running(), 3);
    let pause = Pause { by: "anna".to_owned(), at: site.fake.now(), until: None };
    site.wish(|memory| _ = memory.pauses.insert(Scope::Server(id("time")), pause));
    site.fake.act(Act::KillOurs);
    let last = site.rest();
    assert!(last.plan.report.servers[&id("time")].paused);
    assert_eq!(site.running(), 2, "what is paused is left alone");
}

#[test]
fn how_any_of_them_ended_is_told_of_the_server() {
    let mut site = Site::new(&[entry(EntryKind::Stdio, 3)]);
    let quiet = site.rest();
    let ends = |plan: &Plan| plan.report.servers[&id("time")].ends.clone();
    assert!(ends(&quiet.plan).is_empty());
    site.fake.act(Act::KillOurs);
    let last = site.rest();
    let told = ends(&last.plan);
    let whose: BTreeSet<&str> = told.iter().filter_map(|end| Some(end.how.split_once(": ")?.0)).collect();
    assert_eq!(whose.len(), told.len(), "{told:?}");
    for (one, row) in &last.plan.report.servers[&id("time")].instances {
        assert_eq!(row.ends.len(), usize::from(whose.contains(one.as_str())), "{one}: {:?}", row.ends);
        assert!(row.ends.iter().all(|end| end.how.starts_with("it ")), "{:?}", row.ends);
    }
    assert!(!told.is_empty(), "somebody was killed");
}

#[test]
fn a_broken_entry_keeps_all_of_them() {
    let mut site = Site::new(&[entry(EntryKind::Stdio, 3)]);
    let _quiet = site.rest();
    let broken = BTreeMap::from([(id("time"), "unknown flag".to_owned())]);
    site.fake.set_desired(Desired { broken, ..Desired::default() });
    let last = site.rest();
    assert_eq!(site.running(), 3);
    assert_eq!(last.plan.report.servers[&id("time")].state, RowState::Blocked);
}

#[test]
fn processes_have_instances_too_and_only_the_first_has_a_listener() {
    let mut site = Site::new(&[entry(EntryKind::Process, 3)]);
    let last = site.rest();
    assert_eq!(site.fake.served().keys().collect::<Vec<_>>(), [&id("time")]);
    let row = &last.plan.report.servers[&id("time")];
    assert_eq!((row.instances.len(), row.running), (3, Some(3)));
}

/// A container that is being made is in no list yet: another instance does not begin beside it.
#[test]
fn no_instance_begins_while_the_actions_of_another_run() {
    let mut site = Site::new(&[entry(EntryKind::Stdio, 3)]);
    let _quiet = site.rest();
    let quiet = site.pass();
    let changed = desired(&[Entry { env: 1, ..entry(EntryKind::Stdio, 3) }]);
    let mut observed = quiet.observed.clone();
    for one in site.containers() {
        let details = mcp_orchestrator::model::observed::Details::default();
        observed.details.insert(one.id, Seen::Known(Some(details)));
        let image = mcp_orchestrator::model::observed::Image {
            id: one.image.clone(),
            digest: None,
            exposed: Vec::new(),
        };
        observed.images.insert(one.image.0, Seen::Known(Some(image)));
    }
    let (memory, settings, now) = (site.reconciler.memory(), site.fake.policy(), site.fake.now());
    let begins = |busy: &[&str]| {
        let mut observed = observed.clone();
        observed.busy = busy.iter().map(|name| id(name)).collect();
        let made = plan(Input { desired: &changed, observed: &observed, memory, policy: &settings, now });
        let creates = made.actions.iter().filter(|one| matches!(one.op, Op::Engine(EngineOp::Create(_))));
        creates.filter_map(|one| one.server.as_ref().map(ToString::to_string)).collect::<Vec<_>>()
    };
    assert_eq!(begins(&[]), ["time"]);
    assert_eq!(begins(&["time"]), [""; 0]);
    assert_eq!(begins(&["time-R3"]), [""; 0]);
}

/// I16: what no plan does, and what is refused if one did.
#[test]
fn a_plan_with_an_instance_too_many_or_with_its_own_door_is_refused() {
    let wanted = desired(&[entry(EntryKind::Stdio, 2)]);
    let (settings, memory) = (policy(10).unwrap(), Memory::default());
    let image = mcp_orchestrator::model::observed::Image {
        id: mcp_orchestrator::model::id::ImageId("sha256:x".to_owned()),
        digest: None,
        exposed: Vec::new(),
    };
    let mut observed = nothing_seen();
    observed.free_ports = Some(Seen::Known((8000..8010).filter_map(HostPort::new).collect()));
    observed.images.insert(IMAGE.to_owned(), Seen::Known(Some(image.clone())));
    observed.images.insert("sha256:x".to_owned(), Seen::Known(Some(image)));
    let now = mcp_orchestrator::model::time::Timestamp(1_000_000);
    let input = Input { desired: &wanted, observed: &observed, memory: &memory, policy: &settings, now };
    let good = plan(input);
    assert_eq!((good.actions.len(), check(input, &good)), (4, Vec::new()), "{:?}", good.report);
    let fewer = desired(&[entry(EntryKind::Stdio, 1)]);
    let numbers = |broken: Vec<mcp_orchestrator::plan::check::Broken>| {
        broken.iter().map(|one| one.number).collect::<Vec<_>>()
    };
    assert_eq!(numbers(check(Input { desired: &fewer, ..input }, &good)), [16]);
    let mut door = good.clone();
    let lease = door.memory.leases[&id("time")].clone();
    let port = HostPort::new(8005).unwrap();
    let lease = mcp_orchestrator::model::memory::Lease { port, ..lease };
    door.memory.leases.insert(id("time-R2"), lease);
    let open = EdgeOp::Open { server: id("time-R2"), port };
    door.actions.push(mcp_orchestrator::plan::action::Action {
        server: Some(id("time-R2")),
        op: Op::Edge(open),
        why: String::new(),
        after: Vec::new(),
    });
    assert_eq!(numbers(check(input, &door)), [16, 16]);
}
