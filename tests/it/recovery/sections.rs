//! What a plan does about containers that were killed for memory, about restarts that others made, and
//! about servers whose sections wait for each other.

use crate::recovery::{Bench, IMAGE, NOW, code, id, made, restarts, row};
use mcp_orchestrator::model::id::{ContainerId, ImageId, SectionId, ServerId};
use mcp_orchestrator::model::memory::{Intent, Pause, Scope};
use mcp_orchestrator::model::observed::{ContactState, ContainerHealth, ContainerState, Details, Seen};
use mcp_orchestrator::model::op::{EngineOp, Op};
use mcp_orchestrator::model::policy::Ending;
use mcp_orchestrator::model::server::OomRaise;
use mcp_orchestrator::model::time::{Span, Timestamp};
use mcp_orchestrator::plan::Plan;
use mcp_orchestrator::plan::oom::allowed;
use mcp_orchestrator::plan::report::{Hold, RowState};
use mcp_orchestrator::world::fake::{Entry, EntryKind, server};
use proptest::prelude::*;

const MIB: i64 = 1024 * 1024;

/// A server with a limit of 256 MiB whose container ended with exit code 137.
fn killed(raise: OomRaise, oom: bool) -> Bench {
    let mut bench = Bench::new(EntryKind::Stdio, &["a"]);
    let entry = Entry { memory: 256 * MIB, ..Entry::new("a", EntryKind::Stdio, "r/x:1") };
    let mut server = server(&entry).unwrap();
    server.restart.oom_raise = raise;
    bench.desired.servers.insert(id("a"), server);
    bench.put_container("a", "c1", ContainerState::Exited(137));
    bench.ended_for_memory("a-c1", oom);
    bench
}

impl Bench {
    fn ended_for_memory(&mut self, container: &str, oom: bool) {
        let details = Details { oom_killed: oom, finished: Some(self.now), ..Details::default() };
        self.observed.details.insert(ContainerId(container.to_owned()), Seen::Known(Some(details)));
    }
}

/// What a plan makes: the limit, and what its label says.
fn limit(plan: &Plan) -> Option<(i64, Option<String>)> {
    plan.actions.iter().find_map(|action| match &action.op {
        Op::Engine(EngineOp::Create(create)) => Some((
            create.spec.resources.memory_bytes,
            create.labels.get("io.mcp-orchestrator.memory-raised").cloned(),
        )),
        _ => None,
    })
}

fn starts(plan: &Plan, name: &str) -> bool {
    let is = |op: &Op| matches!(op, Op::Engine(EngineOp::Start(_)));
    plan.actions.iter().any(|action| is(&action.op) && action.server == Some(id(name)))
}

#[test]
fn killed_for_memory_is_told_from_a_plain_kill_and_advised() {
    let plan = killed(OomRaise::No, true).plan();
    let reason = &row(&plan, "a").reasons[0];
    assert_eq!(reason.code, Some("MCPO-P045"));
    assert_eq!(
        reason.text,
        "it was killed for memory (exit code 137); raise its memory limit (limits.memory, or --memory on its line), which is 256 MiB, for example to 384m; restart.oomRaise does so once by itself"
    );
    assert!(starts(&plan, "a") && limit(&plan).is_none(), "the first restart has no delay and no raise");
    let plan = killed(OomRaise::Half, false).plan();
    assert_eq!(
        (row(&plan, "a").reasons[0].text.as_str(), code(&plan, "a")),
        ("it was killed (exit code 137), and not for memory", "MCPO-P042")
    );
    assert!(starts(&plan, "a") && limit(&plan).is_none());
}

#[test]
fn a_memory_limit_is_raised_once_remembered_and_undone() {
    let mut bench = killed(OomRaise::Half, true);
    let plan = bench.plan();
    assert!(plan.actions.is_empty(), "{:?}", plan.actions);
    assert_eq!((code(&plan, "a"), plan.next_look), ("MCPO-P045", Some(NOW)));
    let plan = bench.plan();
    let made_with = Some((384 * MIB, Some(format!("{} {}", 256 * MIB, 384 * MIB))));
    assert_eq!(limit(&plan), made_with);
    assert_eq!(made(&plan).map(ImageId::as_str), Some(IMAGE), "never another image");
    let why = &row(&plan, "a").reasons[0].text;
    assert!(why.starts_with("limits.memory 256 MiB → 384 MiB because it was killed for memory"), "{why}");
    // It runs with the higher limit, and is as it should be.
    let raised = |bench: &mut Bench, container: &str, state| {
        bench.put_container("a", container, state);
        let Seen::Known(all) = &mut bench.observed.containers else { panic!("unknown") };
        all.last_mut().unwrap().mark.as_mut().unwrap().raised = Some((256 * MIB, 384 * MIB));
    };
    raised(&mut bench, "c2", ContainerState::Running(ContainerHealth::None));
    bench.later(Span::secs(5));
    let plan = bench.plan();
    assert!(plan.actions.is_empty(), "{:?}", plan.actions);
    assert!(
        row(&plan, "a")
            .reasons
            .iter()
            .any(|reason| reason.text.starts_with("limits.memory is 384 MiB instead of 256 MiB"))
    );
    // A lost state file raises nothing twice and lowers nothing.
    bench.memory.raises.clear();
    assert!(bench.plan().actions.is_empty());
    assert_eq!(bench.memory.raises[&id("a")].to, 384 * MIB);
    // Killed again: it is not raised again, however often.
    for round in 0..8 {
        raised(&mut bench, &format!("d{round}"), ContainerState::Exited(137));
        bench.ended_for_memory(&format!("a-d{round}"), true);
        bench.later(Span::secs(400));
        for _ in 0..3 {
            let plan = bench.plan();
            let limit = limit(&plan).map(|(limit, _)| limit);
            assert!(limit.is_none_or(|limit| limit == 384 * MIB), "{limit:?}");
            bench.later(Span::secs(61));
        }
    }
    // It is not allowed any more: the declared limit again.
    raised(&mut bench, "e", ContainerState::Running(ContainerHealth::None));
    bench.memory.recoveries.clear();
    bench.desired.servers.get_mut(&id("a")).unwrap().restart.oom_raise = OomRaise::No;
    bench.memory.pins.clear();
    let image = bench.observed.images[IMAGE].clone();
    bench.observed.images.insert("r/x:1".to_owned(), image);
    let plan = bench.plan();
    assert_eq!(limit(&plan), Some((256 * MIB, None)), "{:?}", row(&plan, "a"));
    assert!(bench.memory.raises.is_empty());
}

#[test]
fn restarts_of_processes_count_for_the_host() {
    let mut bench = Bench::new(EntryKind::Process, &["a", "b"]);
    bench.observed.restarts = (0..9).map(|n| Timestamp(NOW.0 - 1_000 * n)).collect();
    for name in ["a", "b"] {
        bench.hangs(name, Timestamp(NOW.0 - 300_000));
    }
    let plan = bench.plan();
    assert_eq!(restarts(&plan), 1, "nine were made where the pipes are held");
    assert_eq!((code(&plan, "a"), code(&plan, "b")), ("", "MCPO-P044"));
    assert_eq!(row(&plan, "b").next_try, Some(Timestamp(NOW.0 - 8_000).after(Span::secs(60))));
    // What is held back where its pipe is says so.
    let why = "it exited with code 1; restart 2, once this host has had fewer restarts within a minute";
    let held = ContactState::Held { why: why.to_owned(), until: NOW.after(Span::secs(9)) };
    bench.observed.contacts.as_mut().unwrap().get_mut(&id("b")).unwrap().state = held;
    let plan = bench.plan();
    assert_eq!((code(&plan, "b"), row(&plan, "b").state), ("MCPO-P044", RowState::Waiting));
    assert_eq!(row(&plan, "b").next_try, Some(NOW.after(Span::secs(9))));
}

fn section(name: &str) -> SectionId {
    SectionId(name.to_owned())
}

/// `db` in section base, `api` in section app, which depends on base.
fn two_sections(kind: EntryKind) -> Bench {
    let mut bench = Bench::new(kind, &["api", "db"]);
    bench.desired.servers.get_mut(&id("db")).unwrap().section = Some(section("base"));
    let api = bench.desired.servers.get_mut(&id("api")).unwrap();
    (api.section, api.depends_on) = (Some(section("app")), vec![section("base")]);
    bench
}

#[test]
fn a_server_waits_for_its_section_and_goes_on_when_that_is_up_or_after_a_while() {
    let mut bench = two_sections(EntryKind::Stdio);
    assert!(bench.plan().actions.is_empty(), "both run");
    bench.put_container("db", "c1", ContainerState::Exited(1));
    bench.put_container("api", "c1", ContainerState::Exited(1));
    bench.memory.attempts.get_mut(&id("db")).unwrap().crashes = 3;
    bench.memory.attempts.get_mut(&id("db")).unwrap().down_since = Some(NOW);
    let plan = bench.plan();
    assert!(!starts(&plan, "api"), "{:?}", plan.actions);
    let reason = &row(&plan, "api").reasons[0];
    assert_eq!((reason.code, row(&plan, "api").state), (Some("MCPO-P046"), RowState::Waiting));
    assert_eq!(reason.text, "section base, which it depends on, to be up: db does not run");
    let until = NOW.after(Span::secs(30));
    assert_eq!(reason.until, Some(until));
    // The wait survives a restart, and does not begin anew.
    bench.later(Span::secs(20));
    assert_eq!(row(&bench.plan(), "api").reasons[0].until, Some(until));
    // It is up: the wait is over, and forgotten.
    let mut well = two_sections(EntryKind::Stdio);
    well.put_container("api", "c1", ContainerState::Exited(1));
    well.memory.waits.insert(id("api"), NOW);
    assert!(starts(&well.plan(), "api") && well.memory.waits.is_empty());
    // It never comes up: it is started all the same, with a word about it.
    bench.memory.attempts.get_mut(&id("db")).unwrap().crashes = 8;
    bench.later(Span::secs(10));
    let plan = bench.plan();
    assert!(starts(&plan, "api"), "{:?}", row(&plan, "api"));
    let said = |plan: &Plan| {
        row(plan, "api").reasons.iter().any(|one| one.text.starts_with("it goes on without section base"))
    };
    assert!(said(&plan));
    // One that is stopped by hand is down, one that is disabled is not waited for.
    let mut stopped = two_sections(EntryKind::Stdio);
    for name in ["api", "db"] {
        stopped.put_container(name, "c1", ContainerState::Exited(0));
    }
    let intent =
        Intent { run: false, by: "anna".to_owned(), at: NOW, until: None, file_enabled: true, restart: None };
    stopped.memory.intents.insert(id("db"), intent);
    let plan = stopped.plan();
    assert_eq!(
        row(&plan, "api").reasons[0].text,
        "section base, which it depends on, to be up: db is stopped by anna"
    );
    stopped.memory.intents.clear();
    stopped.desired.servers.get_mut(&id("db")).unwrap().enabled = false;
    assert!(starts(&stopped.plan(), "api"));
}

#[test]
fn a_server_that_does_not_answer_is_not_restarted_while_its_section_is_down() {
    let mut bench = two_sections(EntryKind::Process);
    for name in ["api", "db"] {
        bench.hangs(name, Timestamp(NOW.0 - 300_000));
    }
    let plan = bench.plan();
    assert_eq!(restarts(&plan), 1, "the one it waits for");
    assert_eq!((code(&plan, "api"), code(&plan, "db")), ("MCPO-P046", ""));
    assert!(!bench.memory.recoveries.contains_key(&id("api")), "no try is counted");
    assert_eq!(row(&plan, "api").hold, Hold::Ends, "where it ends it waits");
    bench.answers("db", NOW);
    bench.later(Span::secs(1));
    let plan = bench.plan();
    assert_eq!((restarts(&plan), row(&plan, "api").hold), (1, Hold::No));
    // A process that does not run is not started meanwhile.
    let mut bench = two_sections(EntryKind::Process);
    for name in ["api", "db"] {
        bench.observed.contacts.as_mut().unwrap().get_mut(&id(name)).unwrap().state = ContactState::Starting;
    }
    let plan = bench.plan();
    assert_eq!((row(&plan, "api").hold, row(&plan, "db").hold), (Hold::Start, Hold::No));
    bench.later(Span::secs(30));
    assert_eq!(row(&bench.plan(), "api").hold, Hold::No, "not for ever");
}

#[test]
fn what_depends_on_others_stops_before_they_do_also_by_hand() {
    let mut bench = two_sections(EntryKind::Stdio);
    // Its priority alone would let it start first, and stop last.
    bench.desired.servers.get_mut(&id("api")).unwrap().priority = 10;
    let stop =
        Intent { run: false, by: "anna".to_owned(), at: NOW, until: None, file_enabled: true, restart: None };
    for name in ["api", "db"] {
        bench.memory.intents.insert(id(name), stop.clone());
    }
    for name in ["api", "db"] {
        let plan = bench.plan();
        let stopped: Vec<&ServerId> =
            plan.actions.iter().filter_map(|action| action.server.as_ref()).collect();
        assert!(
            stopped.iter().all(|one| **one == id(name)) && !stopped.is_empty(),
            "{name}: {:?}",
            plan.actions
        );
        bench.put_container(name, "c1", ContainerState::Exited(0));
        bench.observed.edges.as_mut().unwrap().remove(&id(name));
    }
    assert!(bench.plan().report.servers.values().all(|row| row.state == RowState::Stopped));
    // One that is paused is not waited for.
    let mut bench = two_sections(EntryKind::Stdio);
    bench
        .memory
        .pauses
        .insert(Scope::Server(id("api")), Pause { by: "anna".to_owned(), at: NOW, until: None });
    for name in ["api", "db"] {
        bench.memory.intents.insert(id(name), stop.clone());
    }
    assert_eq!(restarts(&bench.plan()), 1);
}

#[test]
fn the_order_follows_the_longest_way() {
    let names = ["a", "b", "c", "d", "x"];
    let mut bench = Bench::new(EntryKind::Stdio, &names);
    let arrows: [(&str, &[&str]); 5] =
        [("a", &["b", "d"]), ("b", &["c"]), ("c", &["d"]), ("d", &[]), ("x", &["a"])];
    for (name, to) in arrows {
        let one = bench.desired.servers.get_mut(&id(name)).unwrap();
        one.section = Some(section(name));
        one.depends_on = to.iter().map(|name| section(name)).collect();
    }
    bench.ending = Ending::Stop;
    for name in ["x", "a", "b", "c", "d"] {
        let plan = bench.plan();
        let stopped: Vec<&ServerId> =
            plan.actions.iter().filter_map(|action| action.server.as_ref()).collect();
        assert_eq!(stopped, [&id(name)]);
        bench.put_container(name, "c1", ContainerState::Exited(0));
    }
    // A circle cannot be written down; it would not hold a plan up.
    bench.desired.servers.get_mut(&id("d")).unwrap().depends_on = vec![section("a")];
    assert!(bench.plan().actions.is_empty());
}

proptest! {
    #[test]
    fn a_raise_is_one_step_of_the_declared_limit(memory in 0_i64..1 << 50, ceiling in 0_i64..1 << 50) {
        let of = |raise| {
            let entry = Entry { memory, ..Entry::new("a", EntryKind::Stdio, "r/x:1") };
            let mut one = server(&entry).expect("a server");
            one.restart.oom_raise = raise;
            allowed(&one)
        };
        prop_assert_eq!(of(OomRaise::No), None);
        match of(OomRaise::Half) {
            Some((from, to)) => {
                prop_assert!(from == memory && to > from && to <= memory / 2 * 3 + MIB && to % MIB == 0);
            }
            None => prop_assert_eq!(memory, 0),
        }
        prop_assert_eq!(of(OomRaise::To(ceiling)), (memory > 0 && ceiling > memory).then_some((memory, ceiling)));
    }
}
