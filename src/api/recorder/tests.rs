//! When tasks end.

use super::{Recorder, extent, finished, results, so_far};
use crate::model::id::ServerId;
use crate::model::record::{Task, TaskState};
use crate::model::time::Timestamp;
use crate::plan::report::{Reason, ReasonKind, Row, RowState};
use crate::service::Snapshot;
use crate::world::Records;
use crate::world::fake::{FakeRecords, StoppedClock};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Noon, always.
const NOON: Timestamp = Timestamp(43_200_000);

fn id(name: &str) -> ServerId {
    ServerId::new(name).unwrap()
}

fn snapshot(pass: u64, rows: &[(&str, RowState)], busy: &[&str]) -> Snapshot {
    let mut snapshot = Snapshot { pass, ..Snapshot::default() };
    for (name, state) in rows {
        let mut row = Row::new("container");
        row.state = *state;
        if *state == RowState::Blocked {
            row.reasons.push(Reason::new(ReasonKind::BlockedBy, "a name that is taken").code("MCPO-P012"));
        }
        snapshot.report.servers.insert(id(name), row);
    }
    snapshot.busy = busy.iter().map(|name| id(name)).collect();
    snapshot
}

fn task(act: &str, servers: &[&str], pass: u64) -> Task {
    Task {
        id: 0,
        act: act.to_owned(),
        servers: servers.iter().map(|name| (*name).to_owned()).collect(),
        by: "admin".to_owned(),
        via: "http".to_owned(),
        asked: Timestamp::default(),
        ended: None,
        pass,
        state: TaskState::Running,
        results: Vec::new(),
    }
}

#[test]
fn a_task_ends_with_a_pass_that_began_later_and_has_finished_with_its_servers() {
    use RowState::{Blocked, Changing, Converged, Stopped, Waiting};
    let one = task("restart", &["a"], 5);
    let rows = |a, b| [("a", a), ("b", b)];
    assert!(!finished(&one, &snapshot(4, &rows(Converged, Converged), &[])), "that pass began before");
    assert!(!finished(&one, &snapshot(5, &rows(Changing, Converged), &[])));
    assert!(!finished(&one, &snapshot(5, &rows(Converged, Converged), &["a"])));
    assert!(!finished(&one, &snapshot(5, &rows(Waiting, Converged), &[])));
    assert!(finished(&one, &snapshot(5, &rows(Converged, Changing), &["b"])), "others do not count");
    assert!(finished(&one, &snapshot(6, &rows(Blocked, Changing), &[])));
    assert!(finished(&one, &snapshot(6, &[("b", Converged)], &[])), "it is gone from the file");
    let all = task("sync", &[], 5);
    let mut still = snapshot(5, &rows(Converged, Stopped), &[]);
    assert!(!finished(&all, &still));
    still.settled = true;
    assert!(finished(&all, &still));
}

#[test]
fn results_say_what_is_not_as_it_was_asked_for() {
    let seen = snapshot(5, &[("a", RowState::Converged), ("b", RowState::Blocked)], &[]);
    let of =
        |task: &Task| results(task, &seen).into_iter().map(|r| (r.server, r.ok, r.code)).collect::<Vec<_>>();
    assert_eq!(of(&task("start", &["a"], 5)), [("a".to_owned(), true, None)]);
    assert_eq!(of(&task("stop", &["a"], 5)), [("a".to_owned(), false, None)], "it still runs");
    let blocked = ("b".to_owned(), false, Some("MCPO-P012".to_owned()));
    assert_eq!(of(&task("sync", &[], 5)), [("a".to_owned(), true, None), blocked]);
}

#[test]
fn while_a_task_runs_it_shows_what_is_finished_with() {
    let seen = snapshot(
        5,
        &[("a", RowState::Converged), ("b", RowState::Changing), ("c", RowState::Blocked)],
        &["a"],
    );
    let of = |task| so_far(task, &seen).results.into_iter().map(|r| (r.server, r.ok)).collect::<Vec<_>>();
    assert_eq!(of(task("restart", &["a", "b", "c"], 5)), [("c".to_owned(), false)], "a is being worked on");
    assert_eq!(of(task("restart", &["a", "b", "c"], 6)), [], "that pass began before");
    let ended = Task { state: TaskState::Failed, ..task("restart", &["c"], 5) };
    assert_eq!(so_far(ended.clone(), &seen), ended);
    assert_eq!((extent(&task("sync", &[], 5), &seen), extent(&task("stop", &["a"], 5), &seen)), (3, 1));
}

#[tokio::test]
async fn a_task_is_followed_to_its_end_and_becomes_a_line_of_the_audit() {
    let kept = Arc::new(FakeRecords::default());
    let recorder = Recorder::new(Arc::clone(&kept) as Arc<dyn Records>, Arc::new(StoppedClock(NOON)));
    let (sender, snapshots) = watch::channel(Arc::new(snapshot(4, &[("a", RowState::Converged)], &[])));
    let begun = recorder.begin(task("stop", &["a"], 5), snapshots.clone()).await.unwrap();
    assert_eq!((begun.id, begun.asked, begun.state), (1, NOON, TaskState::Running));
    let early = recorder.ended(begun.clone(), Duration::from_millis(20)).await;
    assert_eq!(early.state, TaskState::Running);
    sender.send_replace(Arc::new(snapshot(5, &[("a", RowState::Stopped)], &[])));
    let ended = recorder.ended(begun, Duration::from_secs(20)).await;
    assert_eq!((ended.state, ended.results.len()), (TaskState::Done, 1));
    let begun = recorder.begin(task("stop", &["a"], 7), snapshots).await.unwrap();
    drop(sender);
    let left = recorder.ended(begun, Duration::from_millis(50)).await;
    assert_eq!(left.state, TaskState::Running, "the loop ended: the next start says so");
    let line = |kept: &FakeRecords| kept.audit.lock().unwrap().first().cloned();
    let line = loop {
        if let Some(line) = line(&kept) {
            break line;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(
        (line.what.as_str(), line.server.as_deref(), line.result.as_str(), line.task),
        ("stop", Some("a"), "ok", Some(1))
    );
}
