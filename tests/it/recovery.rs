//! What a plan does about servers that do not answer, or end again and again: how often, how strongly,
//! and when it leaves them alone.

use mcp_orchestrator::model::desired::Desired;
use mcp_orchestrator::model::health::{Condition, Event, Health};
use mcp_orchestrator::model::id::{ContainerId, ImageId, ServerId};
use mcp_orchestrator::model::mark::Mark;
use mcp_orchestrator::model::memory::{Attempts, Lease, Memory, Pause, Pin, Scope};
use mcp_orchestrator::model::net::HostPort;
use mcp_orchestrator::model::observed::{
    Contact, ContactState, Container, ContainerHealth, ContainerState, Details, Image, Observed, Seen,
};
use mcp_orchestrator::model::op::{EdgeOp, EngineOp, Op};
use mcp_orchestrator::model::policy::{Ending, Policy};
use mcp_orchestrator::model::server::{RestartWhen, ServerKind};
use mcp_orchestrator::model::time::{Span, Timestamp};
use mcp_orchestrator::plan::check::check;
use mcp_orchestrator::plan::report::{Row, RowState};
use mcp_orchestrator::plan::{Input, Plan, plan};
use mcp_orchestrator::world::fake::{Entry, EntryKind, edge_mark, nothing_seen, policy, server};
use std::collections::{BTreeMap, BTreeSet};

mod ends;
mod sections;

const NOW: Timestamp = Timestamp(1_000_000_000);
const IMAGE: &str = "sha256:x";

fn id(name: &str) -> ServerId {
    ServerId::new(name).unwrap()
}

fn port(number: u16) -> HostPort {
    HostPort::new(number).unwrap()
}

/// A fleet on an edge each; everything in it has been up for an hour.
struct Bench {
    desired: Desired,
    observed: Observed,
    memory: Memory,
    now: Timestamp,
    ending: Ending,
}

impl Bench {
    fn new(kind: EntryKind, names: &[&str]) -> Self {
        let long_ago = Timestamp(NOW.0 - 3_600_000);
        let mut bench = Self {
            desired: Desired::default(),
            observed: Observed {
                edges: Some(BTreeMap::new()),
                contacts: Some(BTreeMap::new()),
                run: Some("now".to_owned()),
                ..nothing_seen()
            },
            memory: Memory::default(),
            now: NOW,
            ending: Ending::None,
        };
        let image = Image { id: ImageId(IMAGE.to_owned()), digest: None, exposed: Vec::new() };
        bench.observed.images.insert(IMAGE.to_owned(), Seen::Known(Some(image)));
        for (n, name) in names.iter().enumerate() {
            let server = server(&Entry::new(name, kind, "r/x:1")).unwrap();
            let port = port(8000 + u16::try_from(n).unwrap());
            let lease = Lease { port, next: None, since: long_ago, fixed: false };
            let attempts = Attempts { started: Some(long_ago), up: true, ..Attempts::default() };
            bench.memory.leases.insert(id(name), lease);
            bench.memory.attempts.insert(id(name), attempts);
            let up = Contact { state: ContactState::Up, uses: BTreeSet::new(), ends: (0, String::new()) };
            bench.observed.contacts.as_mut().unwrap().insert(id(name), up);
            bench.observed.edges.as_mut().unwrap().insert(id(name), port);
            if let ServerKind::Container(_) = &server.kind {
                bench.desired.servers.insert(id(name), server);
                bench.put_container(name, "c1", ContainerState::Running(ContainerHealth::None));
            } else {
                bench.desired.servers.insert(id(name), server);
            }
        }
        bench
    }

    /// The server's container is this one.
    fn put_container(&mut self, name: &str, container: &str, state: ContainerState) {
        let ServerKind::Container(decl) = &self.desired.servers[&id(name)].kind else { panic!("none") };
        let mark = edge_mark(policy(0).unwrap().stack, &id(name), decl);
        let mark = Mark { port: self.memory.leases.get(&id(name)).map(|lease| lease.port), ..mark };
        let one = Container {
            id: ContainerId(format!("{name}-{container}")),
            name: format!("mcp-{name}"),
            mark: Some(mark),
            state,
            image: ImageId(IMAGE.to_owned()),
            created: NOW,
            host_ports: Vec::new(),
        };
        let details = Details { started: Some(Timestamp(self.now.0 - 1_000)), ..Details::default() };
        self.observed.details.insert(one.id.clone(), Seen::Known(Some(details)));
        let Seen::Known(all) = &mut self.observed.containers else { panic!("unknown") };
        all.retain(|other| other.name != one.name);
        all.push(one);
    }

    /// It answered, and has not since this time.
    fn hangs(&mut self, name: &str, since: Timestamp) {
        let policy = &self.desired.servers[&id(name)].health;
        let mut health = Health::new(Timestamp(since.0 - 600_000));
        health.take(Event::Answered(Span::millis(5)), Timestamp(since.0 - 90_000), policy);
        for _ in 0..policy.failure_threshold {
            health.take(Event::Failed, since, policy);
        }
        health.judged = self.now;
        let seen = Condition { health, why: "no answer to ping".to_owned(), latency: None, busy_until: None };
        self.observed.health.insert(id(name), seen);
    }

    fn answers(&mut self, name: &str, since: Timestamp) {
        self.hangs(name, since);
        let policy = &self.desired.servers[&id(name)].health;
        let seen = self.observed.health.get_mut(&id(name)).unwrap();
        for _ in 0..policy.recovery_threshold {
            seen.health.take(Event::Answered(Span::millis(5)), since, policy);
        }
        (seen.health.judged, seen.why) = (self.now, String::new());
    }

    fn later(&mut self, span: Span) {
        self.now = self.now.after(span);
        for seen in self.observed.health.values_mut() {
            seen.health.judged = self.now;
        }
    }

    /// A plan, which is sound, and is remembered.
    fn plan(&mut self) -> Plan {
        if let Seen::Known(all) = &self.observed.containers {
            for one in all {
                self.observed.words.entry(one.id.clone()).or_insert(Seen::Known(Vec::new()));
            }
        }
        let policy = Policy { ending: self.ending, ..policy(20).unwrap() };
        let (desired, observed, memory) = (&self.desired, &self.observed, &self.memory);
        let input = Input { desired, observed, memory, policy: &policy, now: self.now };
        let plan = plan(input);
        assert!(plan.questions.is_empty(), "{:?}", plan.questions);
        let broken = check(input, &plan);
        assert!(broken.is_empty(), "{broken:?}");
        self.memory = plan.memory.clone();
        plan
    }
}

fn row<'p>(plan: &'p Plan, name: &str) -> &'p Row {
    &plan.report.servers[&id(name)]
}

fn code(plan: &Plan, name: &str) -> &'static str {
    row(plan, name).reasons.iter().find_map(|reason| reason.code).unwrap_or("")
}

fn restarts(plan: &Plan) -> usize {
    let is = |op: &Op| matches!(op, Op::Edge(EdgeOp::Restart { .. }) | Op::Engine(EngineOp::Stop(_)));
    plan.actions.iter().filter(|action| is(&action.op)).count()
}

fn made(plan: &Plan) -> Option<&ImageId> {
    plan.actions.iter().find_map(|action| match &action.op {
        Op::Engine(EngineOp::Create(create)) => Some(&create.image),
        _ => None,
    })
}

#[test]
fn tries_grow_stronger_and_end() {
    let mut bench = Bench::new(EntryKind::Stdio, &["a"]);
    // The tag means something else by now.
    let pin =
        Pin { reference: "r/x:1".to_owned(), image: "sha256:newer".to_owned(), digest: None, pulled: None };
    bench.memory.pins.insert(id("a"), pin);
    bench.hangs("a", NOW);
    let first = bench.plan();
    assert_eq!(
        (restarts(&first), code(&first, "a"), row(&first, "a").state),
        (0, "MCPO-P043", RowState::Waiting)
    );
    // As long again as it took to find out: three intervals.
    assert_eq!(row(&first, "a").reasons[0].until, Some(NOW.after(Span::secs(90))));
    bench.later(Span::secs(89));
    assert_eq!(restarts(&bench.plan()), 0);
    bench.later(Span::secs(1));
    let mut done = Vec::new();
    for round in 0..2_000_u32 {
        let plan = bench.plan();
        if let Some(image) = made(&plan) {
            assert_eq!(image.as_str(), IMAGE, "never another one");
            done.push("anew");
            bench.put_container("a", &format!("n{round}"), ContainerState::Running(ContainerHealth::None));
            bench.hangs("a", bench.now.after(Span::secs(1)));
        } else if restarts(&plan) > 0 {
            done.push("restart");
            bench.hangs("a", bench.now.after(Span::secs(1)));
        }
        if row(&plan, "a").state == RowState::Blocked {
            assert_eq!(code(&plan, "a"), "MCPO-P041");
            let text = &row(&plan, "a").reasons[0].text;
            assert_eq!(
                text,
                "it does not answer: no answer to ping; gave up after 5 tries (restart-server tries again)"
            );
            break;
        }
        bench.later(Span::secs(5));
    }
    assert_eq!(done, ["restart", "restart", "restart", "anew", "anew"]);
    // It answers by itself: what was done is forgotten after the stable time.
    bench.answers("a", bench.now);
    let well = bench.plan();
    assert_eq!(row(&well, "a").state, RowState::Converged, "{:?}", row(&well, "a"));
    assert!(row(&well, "a").reasons[0].text.starts_with("it answers again after 5 tries"));
    bench.later(Span::secs(600));
    let _forgets = bench.plan();
    assert!(bench.memory.recoveries.is_empty());
}

#[test]
fn nothing_is_done_on_old_verdicts_while_requests_are_under_way_or_in_the_start_period() {
    let fresh = || {
        let mut bench = Bench::new(EntryKind::Process, &["a"]);
        bench.hangs("a", Timestamp(NOW.0 - 300_000));
        bench
    };
    assert_eq!(restarts(&fresh().plan()), 1);
    let mut old = fresh();
    old.observed.health.get_mut(&id("a")).unwrap().health.judged = Timestamp(NOW.0 - 90_001);
    assert_eq!(restarts(&old.plan()), 0);
    let mut unknown = fresh();
    unknown.observed.health.clear();
    assert_eq!(restarts(&unknown.plan()), 0);
    let mut busy = fresh();
    busy.observed.health.get_mut(&id("a")).unwrap().busy_until = Some(NOW.after(Span::secs(40)));
    let plan = busy.plan();
    assert_eq!((restarts(&plan), row(&plan, "a").next_try), (0, Some(NOW.after(Span::secs(40)))));
    busy.later(Span::secs(40));
    assert_eq!(restarts(&busy.plan()), 1);
    let mut young = fresh();
    young.memory.attempts.get_mut(&id("a")).unwrap().started = Some(Timestamp(NOW.0 - 59_000));
    assert_eq!(restarts(&young.plan()), 0);
    young.later(Span::secs(1));
    assert_eq!(restarts(&young.plan()), 1);
    let mut left = fresh();
    left.desired.servers.get_mut(&id("a")).unwrap().restart.when = RestartWhen::Never;
    let plan = left.plan();
    assert_eq!((restarts(&plan), code(&plan, "a")), (0, "MCPO-P041"));
}

#[test]
fn restarts_of_a_host_in_a_minute_are_bounded_and_go_on_later() {
    let names: Vec<String> = (0..15).map(|n| format!("s{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut bench = Bench::new(EntryKind::Process, &names);
    for name in &names {
        bench.hangs(name, Timestamp(NOW.0 - 300_000));
    }
    let first = bench.plan();
    assert_eq!(restarts(&first), 10);
    let held: Vec<&str> = names.iter().copied().filter(|name| code(&first, name) == "MCPO-P044").collect();
    assert_eq!(held.len(), 5);
    assert_eq!(row(&first, held[0]).next_try, Some(NOW.after(Span::secs(60))));
    let tried: Vec<&str> = names.iter().copied().filter(|name| !held.contains(name)).collect();
    for name in tried {
        bench.answers(name, NOW);
    }
    bench.later(Span::secs(59));
    assert_eq!(restarts(&bench.plan()), 0);
    bench.later(Span::secs(1));
    assert_eq!(restarts(&bench.plan()), 5);
}

#[test]
fn while_most_do_not_answer_no_container_is_made_anew() {
    let names = ["a", "b", "c", "d"];
    let mut bench = Bench::new(EntryKind::Stdio, &names);
    for name in names {
        bench.hangs(name, Timestamp(NOW.0 - 300_000));
        let recovery = mcp_orchestrator::model::memory::Recovery {
            tries: 3,
            last: Timestamp(NOW.0 - 400_000),
            why: "it does not answer".to_owned(),
            spec: match &bench.desired.servers[&id(name)].kind {
                ServerKind::Container(decl) => decl.fingerprint.short(),
                _ => panic!("no container"),
            },
            anew: None,
        };
        bench.memory.recoveries.insert(id(name), recovery);
    }
    let plan = bench.plan();
    assert!(plan.actions.is_empty() && names.iter().all(|name| code(&plan, name) == "MCPO-P044"));
    bench.answers("a", NOW);
    bench.answers("b", NOW);
    assert!(made(&bench.plan()).is_some());
}

#[test]
fn what_is_paused_is_left_alone_until_then() {
    for scope in [Scope::Server(id("a")), Scope::Host] {
        for kind in [EntryKind::Stdio, EntryKind::Process] {
            let mut bench = Bench::new(kind, &["a"]);
            bench.hangs("a", Timestamp(NOW.0 - 300_000));
            let until = NOW.after(Span::secs(30));
            let pause = Pause { by: "anna".to_owned(), at: NOW, until: Some(until) };
            bench.memory.pauses.insert(scope.clone(), pause);
            let plan = bench.plan();
            assert!(plan.actions.is_empty(), "{:?}", plan.actions);
            let reason = &row(&plan, "a").reasons[0];
            assert!(reason.text.ends_with("paused by anna") && reason.until == Some(until), "{reason:?}");
            assert_eq!((row(&plan, "a").state, row(&plan, "a").paused), (RowState::Converged, true));
            assert_eq!(plan.next_look, Some(until));
            bench.later(Span::secs(30));
            assert_eq!(restarts(&bench.plan()), 1, "{scope:?}");
            assert!(bench.memory.pauses.is_empty());
        }
    }
    let mut bench = Bench::new(EntryKind::Stdio, &["a"]);
    bench.put_container("a", "c1", ContainerState::Exited(1));
    let pause = Pause { by: "anna".to_owned(), at: NOW, until: None };
    bench.memory.pauses.insert(Scope::Server(id("a")), pause);
    let plan = bench.plan();
    assert!(plan.actions.is_empty() && row(&plan, "a").state == RowState::Stopped);
}

#[test]
fn a_container_that_ends_again_and_again_is_made_anew() {
    let mut bench = Bench::new(EntryKind::Stdio, &["a"]);
    bench.put_container("a", "c1", ContainerState::Exited(1));
    let attempts = bench.memory.attempts.get_mut(&id("a")).unwrap();
    (attempts.crashes, attempts.started) = (3, Some(Timestamp(NOW.0 - 60_000)));
    attempts.down_since = Some(Timestamp(NOW.0 - 50_000));
    let plan = bench.plan();
    assert!(plan.actions.is_empty(), "{:?}", plan.actions);
    let plan = bench.plan();
    assert_eq!(made(&plan).map(ImageId::as_str), Some(IMAGE), "{:?}", row(&plan, "a"));
    assert_eq!(bench.memory.attempts[&id("a")].crashes, 4);
}

#[test]
fn at_the_end_what_was_started_first_stops_last() {
    let mut bench = Bench::new(EntryKind::Stdio, &["base", "mid", "top"]);
    for (name, priority) in [("base", 10), ("top", -3)] {
        bench.desired.servers.get_mut(&id(name)).unwrap().priority = priority;
    }
    bench.ending = Ending::Stop;
    for name in ["top", "mid", "base"] {
        let plan = bench.plan();
        let stopped: Vec<&ServerId> =
            plan.actions.iter().filter_map(|action| action.server.as_ref()).collect();
        assert_eq!(stopped, [&id(name)]);
        bench.put_container(name, "c1", ContainerState::Exited(0));
    }
    assert!(bench.plan().actions.is_empty());
}
