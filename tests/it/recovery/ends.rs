//! How servers ended is kept, bounded, and told with advice while that helps.

use crate::recovery::{Bench, NOW, id, row};
use mcp_orchestrator::model::id::ContainerId;
use mcp_orchestrator::model::memory::End;
use mcp_orchestrator::model::observed::{ContainerHealth, ContainerState, Details, LogLine, Seen};
use mcp_orchestrator::model::time::{Span, Timestamp};
use mcp_orchestrator::plan::Plan;
use mcp_orchestrator::world::fake::{Entry, EntryKind, server};

const RUNNING: ContainerState = ContainerState::Running(ContainerHealth::None);
const HOUR: Span = Span::secs(3600);

fn bench() -> Bench {
    let mut bench = Bench::new(EntryKind::Stdio, &["a"]);
    let entry = Entry { memory: 256 << 20, ..Entry::new("a", EntryKind::Stdio, "r/x:1") };
    bench.desired.servers.insert(id("a"), server(&entry).unwrap());
    bench.put_container("a", "c1", RUNNING);
    bench
}

/// It ends with this code and is started again; the plan of a minute later.
fn ends(bench: &mut Bench, code: i64, oom: bool) -> Plan {
    bench.put_container("a", "c1", ContainerState::Exited(code));
    let details = Details { oom_killed: oom, finished: Some(bench.now), ..Details::default() };
    bench.observed.details.insert(ContainerId("a-c1".to_owned()), Seen::Known(Some(details)));
    let plan = bench.plan();
    assert_eq!(plan.actions.len(), 1, "it is started again: {:?}", plan.actions);
    bench.later(Span::secs(60));
    bench.put_container("a", "c1", RUNNING);
    bench.plan()
}

fn kept(plan: &Plan) -> &[End] {
    &row(plan, "a").ends
}

fn advice(plan: &Plan) -> Option<&str> {
    let all = row(plan, "a").reasons.iter();
    all.filter(|reason| reason.code == Some("MCPO-P045")).map(|reason| reason.text.as_str()).next()
}

#[test]
fn an_end_for_memory_is_told_after_the_restart_until_a_day_is_over_or_it_ends_otherwise() {
    let mut bench = bench();
    let plan = ends(&mut bench, 137, true);
    let [End { at, how, oom, .. }] = kept(&plan) else { panic!("{:?}", kept(&plan)) };
    assert_eq!((*at, *oom), (NOW, Some(true)));
    assert_eq!(how, "it was killed for memory (exit code 137)");
    let text = advice(&plan).expect("advice");
    assert!(text.starts_with("it was killed for memory lately, once; raise its memory limit"), "{text}");
    bench.later(HOUR);
    let plan = ends(&mut bench, 137, true);
    let text = advice(&plan).expect("advice").to_owned();
    assert!(text.starts_with("it was killed for memory lately, 2 times in a row; "), "{text}");
    bench.later(Span::secs(23 * 3600));
    assert!(advice(&bench.plan()).is_some());
    bench.later(HOUR);
    let plan = bench.plan();
    assert_eq!((advice(&plan), kept(&plan).len()), (None, 2), "the ends are kept");
    // Another end says that memory is not what is the matter now.
    assert!(advice(&ends(&mut bench, 137, true)).is_some());
    bench.later(HOUR);
    let plan = ends(&mut bench, 1, false);
    assert_eq!((advice(&plan), kept(&plan)[0].how.as_str()), (None, "it ended with exit code 1"));
}

#[test]
fn ends_are_few_and_newest_first_and_one_end_is_one_however_often_it_is_seen() {
    let mut bench = bench();
    for code in 1..=9 {
        bench.later(HOUR);
        let _plan = ends(&mut bench, code, false);
    }
    let plan = bench.plan();
    let codes: Vec<&str> = kept(&plan).iter().map(|end| end.how.rsplit(' ').next().unwrap()).collect();
    assert_eq!(codes, ["9", "8", "7", "6", "5"]);
    // It waits for its next try: looks do not add up.
    for _ in 0..3 {
        bench.put_container("a", "c1", ContainerState::Exited(10));
        let details = Details { finished: Some(bench.now), ..Details::default() };
        bench.observed.details.insert(ContainerId("a-c1".to_owned()), Seen::Known(Some(details)));
        bench.memory.attempts.get_mut(&id("a")).unwrap().crashes = 8;
        let plan = bench.plan();
        let tens = kept(&plan).iter().filter(|end| end.how.ends_with(" 10")).count();
        assert_eq!((tens, kept(&plan).len()), (1, 5));
    }
}

#[test]
fn a_kill_that_was_not_looked_at_closely_is_not_said_to_be_anything() {
    let mut bench = Bench::new(EntryKind::Stdio, &["a"]);
    let plan = ends(&mut bench, 137, true);
    assert_eq!(kept(&plan)[0].oom, None, "without a limit the first restart waits for no details");
    assert_eq!(kept(&plan)[0].how, "it was killed (exit code 137): perhaps out of memory");
    assert_eq!(advice(&plan), None);
}

#[test]
fn what_we_stop_has_not_ended() {
    let mut bench = bench();
    bench.memory.attempts.get_mut(&id("a")).unwrap().started = None;
    bench.put_container("a", "c1", ContainerState::Exited(143));
    assert!(kept(&bench.plan()).is_empty());
}

#[test]
fn last_words_come_with_the_next_look_and_hold_up_no_restart() {
    let mut bench = bench();
    let line = |at: Timestamp, text: &str| LogLine {
        number: u64::try_from(at.0).unwrap() * 1_000_000,
        stream: "stderr",
        text: text.to_owned(),
    };
    let later = NOW.after(Span::secs(30));
    let said = [line(NOW, "no more"), line(NOW, "memory"), line(later, "hello again")];
    bench.observed.words.insert(ContainerId("a-c1".to_owned()), Seen::Known(said.to_vec()));
    bench.put_container("a", "c1", ContainerState::Exited(137));
    let details = Details { oom_killed: true, finished: Some(NOW), ..Details::default() };
    bench.observed.details.insert(ContainerId("a-c1".to_owned()), Seen::Known(Some(details)));
    let plan = bench.plan();
    assert_eq!(kept(&plan)[0].words, None);
    assert_eq!(plan.actions.len(), 1);
    bench.put_container("a", "c1", RUNNING);
    bench.later(Span::secs(60));
    let plan = bench.plan();
    assert_eq!(kept(&plan)[0].words, Some(vec!["no more".to_owned(), "memory".to_owned()]));
    // They are not asked for again.
    bench.observed.words.clear();
    assert!(bench.memory.ends[&id("a")].words_of.is_none());
}
