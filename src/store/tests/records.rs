//! Tasks and the audit in the state file.

use super::{NOW, opened, place};
use crate::model::record::{AuditEntry, AuditFilter, CallRecord, Task, TaskResult, TaskState, WithResults};
use crate::model::time::{Span, Timestamp};
use crate::store::records::{Keep, RESULTS, SqliteRecords, TASKS_MAX};
use crate::store::schema;
use crate::world::{Recorded, Records as _};
use std::sync::Arc;

fn wait<T>(answer: crate::world::Answer<'_, T>) -> Result<T, crate::world::WorldError> {
    tokio::runtime::Builder::new_current_thread().build().expect("runtime").block_on(answer)
}

const KEEP: Keep = Keep { age: Span::secs(3600), rows: 100, calls_age: Span::secs(3600), calls: 3000 };

fn task(act: &str) -> Task {
    Task {
        id: 0,
        act: act.to_owned(),
        servers: vec!["time".to_owned()],
        by: "admin".to_owned(),
        via: "http".to_owned(),
        asked: NOW,
        ended: None,
        pass: 3,
        state: TaskState::Running,
        results: Vec::new(),
    }
}

fn line(server: &str, at: Timestamp) -> AuditEntry {
    AuditEntry {
        at,
        by: "the loop".to_owned(),
        what: "start container".to_owned(),
        server: Some(server.to_owned()),
        result: "ok".to_owned(),
        ..AuditEntry::default()
    }
}

fn all(records: &SqliteRecords, filter: AuditFilter) -> Vec<AuditEntry> {
    wait(records.audit(&AuditFilter { limit: 500, ..filter })).expect("the audit")
}

#[test]
fn a_task_that_ran_when_the_process_died_is_interrupted_and_others_are_as_they_were() {
    let (_dir, path) = place();
    let store = opened(&path).store;
    let records = store.records(KEEP, NOW).expect("records");
    let first = wait(records.begin_task(&task("stop"))).expect("a task");
    let second = wait(records.begin_task(&task("start"))).expect("a task");
    assert!(second > first);
    let result = TaskResult {
        server: "time".to_owned(),
        ok: true,
        state: "stopped".to_owned(),
        why: None,
        code: None,
    };
    let done =
        Task { id: first, state: TaskState::Done, ended: Some(NOW), results: vec![result], ..task("stop") };
    wait(records.end_task(&done)).expect("an end");
    drop((records, store));
    let store = opened(&path).store;
    let records = store.records(KEEP, NOW).expect("records");
    assert_eq!(wait(records.task(first)).expect("reading"), Some(done));
    let interrupted = wait(records.task(second)).expect("reading").expect("a task");
    assert_eq!(
        (interrupted.id, interrupted.state, interrupted.ended),
        (second, TaskState::Interrupted, None)
    );
    let ids: Vec<i64> =
        wait(records.tasks(None, 10, WithResults::All)).expect("tasks").iter().map(|task| task.id).collect();
    assert_eq!(ids, [second, first], "newest first");
    assert_eq!(wait(records.tasks(Some(second), 10, WithResults::All)).expect("tasks").len(), 1);
    assert_eq!(wait(records.task(999)).expect("reading"), None);
}

#[test]
fn the_audit_is_found_by_what_it_is_about_and_bounded_by_number_and_age() {
    let (_dir, path) = place();
    let store = opened(&path).store;
    let records = store.records(KEEP, NOW).expect("records");
    let mut lines: Vec<AuditEntry> = (0..150).map(|_| line("time", NOW)).collect();
    lines.push(AuditEntry { result: "failed".to_owned(), by: "admin".to_owned(), ..line("other", NOW) });
    wait(records.add_audit(&lines)).expect("kept");
    let found = all(&records, AuditFilter::default());
    assert_eq!(found.len(), 100, "the oldest go");
    assert!(found.windows(2).all(|two| two[0].id > two[1].id), "newest first");
    let failed = AuditFilter { result: Some("failed".to_owned()), ..AuditFilter::default() };
    assert_eq!(all(&records, failed).len(), 1);
    let other = AuditFilter {
        server: Some("other".to_owned()),
        by: Some("admin".to_owned()),
        ..AuditFilter::default()
    };
    assert_eq!(all(&records, other).len(), 1);
    let older = AuditFilter { before: Some(found[98].id), ..AuditFilter::default() };
    assert_eq!(all(&records, older).len(), 1);
    let kinds = ["start container mcp-time", "start", "edit: set server time", "sign in", "starting"];
    let second = NOW.after(Span::secs(1));
    let lines: Vec<AuditEntry> =
        kinds.map(|what| AuditEntry { what: what.to_owned(), ..line("kinds", second) }).into();
    wait(records.add_audit(&lines)).expect("kept");
    let of = |kind: &str| {
        let kind = Some(kind.to_owned());
        all(&records, AuditFilter { kind, since: Some(second), ..AuditFilter::default() }).len()
    };
    assert_eq!((of("start"), of("edit"), of("sign in"), of("sign"), of("st"), of("%")), (2, 1, 1, 1, 0, 0));
    let since = |at| all(&records, AuditFilter { since: Some(at), ..AuditFilter::default() }).len();
    assert_eq!((since(second), since(second.after(Span(1)))), (5, 0));
    among(&records, second.after(Span(1)));
    let later = NOW.after(Span::secs(3602));
    let lines: Vec<AuditEntry> = (0..70).map(|_| line("time", later)).collect();
    wait(records.add_audit(&lines)).expect("kept");
    assert!(all(&records, AuditFilter::default()).iter().all(|line| line.at == later), "what is old goes");
}

/// What was done for some servers and their instances in a time.
fn among(records: &SqliteRecords, at: Timestamp) {
    let lines = ["a", "a-R2", "a-r", "ab", "b", "c"].map(|server| line(server, at));
    wait(records.add_audit(&lines)).expect("kept");
    let of = |servers: &[&str], since, until| {
        let among = servers.iter().map(|server| (*server).to_owned()).collect();
        let filter = AuditFilter { among, since: Some(since), until: Some(until), ..AuditFilter::default() };
        let servers = all(records, filter).into_iter().filter_map(|line| line.server);
        servers.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(of(&["a", "b"], at, at), "b a-R2 a");
    assert_eq!(of(&["a-R2"], at, at), "a-R2");
    assert_eq!(of(&[], at, at), "c b ab a-r a-R2 a");
    assert_eq!(of(&["a"], at.after(Span(1)), at.after(Span(9))), "");
    assert_eq!(of(&["a"], NOW, Timestamp(at.0 - 1)), "");
}

#[test]
fn calls_have_bounds_of_their_own_and_are_found_like_the_rest() {
    let (_dir, path) = place();
    let store = opened(&path).store;
    let records = store.records(KEEP, NOW).expect("records");
    wait(records.add_audit(&[line("time", NOW)])).expect("kept");
    let call = |tool: &str, at| CallRecord {
        replica: None,
        at,
        by: Arc::from("ci"),
        via: "mcp",
        server: Some(Arc::from("time")),
        method: Arc::from("tools/call"),
        tool: Arc::from(tool),
        result: "ok",
        millis: 7,
        request: Some(Box::from("r-1")),
    };
    let mut calls: Vec<CallRecord> = (0..5000).map(|n| call(&format!("t{n}"), NOW)).collect();
    calls.push(CallRecord {
        result: "failed",
        by: Arc::from("other"),
        replica: Some(3),
        ..call("last", NOW)
    });
    wait(records.add_calls(calls)).expect("kept");
    let asked = AuditFilter { calls: true, ..AuditFilter::default() };
    let found = all(&records, asked.clone());
    assert_eq!((found.len(), found[0].what.as_str(), found[0].via.as_str()), (500, "call last", "mcp"));
    assert_eq!((found[0].millis, found[0].request.as_deref()), (Some(7), Some("r-1")));
    assert_eq!(
        (found[0].replica, found[1].replica),
        (Some(3), None),
        "which instance, where there are several"
    );
    assert_eq!(all(&records, AuditFilter { by: Some("other".to_owned()), ..asked.clone() }).len(), 1);
    assert_eq!(all(&records, AuditFilter { result: Some("failed".to_owned()), ..asked.clone() }).len(), 1);
    assert_eq!(all(&records, AuditFilter { server: Some("x".to_owned()), ..asked.clone() }).len(), 0);
    for (kind, count) in [("call", 500), ("tools/call", 500), ("prompts/get", 0), ("read", 0)] {
        let kind = Some(kind.to_owned());
        assert_eq!(all(&records, AuditFilter { kind, ..asked.clone() }).len(), count);
    }
    let since = Some(NOW.after(Span(1)));
    assert_eq!(all(&records, AuditFilter { since, ..asked.clone() }).len(), 0);
    let oldest = found[0].id - 2999;
    assert_eq!(all(&records, AuditFilter { before: Some(oldest), ..asked.clone() }).len(), 0, "a bound");
    assert_eq!(all(&records, AuditFilter { before: Some(oldest + 1), ..asked.clone() }).len(), 1);
    assert_eq!(all(&records, AuditFilter::default()).len(), 1, "the rest is left alone");
    let later = NOW.after(Span::secs(3601));
    let calls: Vec<CallRecord> = (0..1024).map(|_| call("new", later)).collect();
    wait(records.add_calls(calls)).expect("kept");
    let found = all(&records, AuditFilter { before: Some(found[0].id + 2), ..asked });
    assert_eq!((found.len(), found[0].at), (1, later), "what is old goes");
}

#[test]
fn in_brief_a_task_is_itself_without_what_became_of_its_servers() {
    let (_dir, path) = place();
    let store = opened(&path).store;
    let records = store.records(KEEP, NOW).expect("records");
    let result = |why: &str| TaskResult {
        server: "time".to_owned(),
        ok: false,
        state: "waiting".to_owned(),
        why: Some(why.to_owned()),
        code: Some("MCPO-P043".to_owned()),
    };
    // Words that look like the place where results begin.
    let odd = r#"é ,"results":[ \ }]"#;
    let task = Task { by: odd.to_owned(), act: format!("edit: {odd}"), ..task("") };
    let id = wait(records.begin_task(&task)).expect("a task");
    let whole = Task {
        id,
        state: TaskState::Failed,
        ended: Some(NOW),
        results: vec![result(odd), result("x")],
        ..task
    };
    wait(records.end_task(&whole)).expect("an end");
    assert_eq!(wait(records.tasks(None, 9, WithResults::All)).expect("reading"), vec![whole.clone()]);
    let brief = Task { results: Vec::new(), ..whole.clone() };
    assert_eq!(wait(records.tasks(None, 9, WithResults::None)).expect("reading"), [brief]);
    assert_eq!(wait(records.tasks(Some(id), 9, WithResults::None)).expect("reading"), []);
    // A page that shows what went wrong does not read what went well.
    let well = Task { act: "start".to_owned(), state: TaskState::Done, ..whole.clone() };
    let second = wait(records.begin_task(&well)).expect("a task");
    let found = wait(records.tasks(None, 9, WithResults::OfFailed)).expect("reading");
    assert_eq!(found, [Task { id: second, results: Vec::new(), ..well }, whole]);
}

/// A state file as it was before results had their column, with a task that ended, one that ran and a row
/// that nobody can read.
fn old_state(path: &std::path::Path, ended: &Task, running: &Task) {
    let before = schema::MIGRATIONS.iter().position(|step| step.sql == RESULTS).expect("the step");
    std::fs::create_dir(path.parent().expect("parent")).expect("mkdir");
    let mut connection = rusqlite::Connection::open(path).expect("open");
    connection.pragma_update(None, "journal_mode", "wal").expect("log");
    schema::migrate(&mut connection, 0, &schema::MIGRATIONS[..before], NOW).expect("the old form");
    connection.execute("INSERT INTO meta (key, value) VALUES ('hash_key', ?1)", [super::KEY]).expect("key");
    let put = "INSERT INTO tasks (state, body) VALUES (?1, ?2)";
    for task in [ended, running] {
        let body = serde_json::to_string(task).expect("a body");
        connection.execute(put, (task.state.as_str(), body)).expect("a row");
    }
    connection.execute(put, ("done", "{ torn")).expect("a row");
    let put = "INSERT INTO calls (at, by_whom, via, method, tool, result, millis) \
        VALUES (?1, 'ci', 'mcp', 'tools/call', 'now', 'ok', 3)";
    connection.execute(put, [NOW.0]).expect("a row");
}

#[test]
fn an_older_state_file_keeps_what_became_of_each_server_of_its_tasks() {
    let (_dir, path) = place();
    let result = TaskResult {
        server: "time".to_owned(),
        ok: false,
        state: "waiting".to_owned(),
        why: Some(r#"é ,"results":[ \ }]"#.to_owned()),
        code: None,
    };
    let ended = Task {
        id: 1,
        state: TaskState::Failed,
        ended: Some(NOW),
        results: vec![result.clone(), result],
        ..task("stop")
    };
    let running = Task { id: 2, ..task("start") };
    old_state(&path, &ended, &running);
    let brief = Task { results: Vec::new(), ..ended.clone() };
    let looked = crate::store::records::peek(&path).expect("looking").expect("a state");
    assert_eq!(
        wait(looked.tasks(None, 9, WithResults::All)).expect("reading"),
        [running.clone(), ended.clone()],
        "as it is"
    );
    assert_eq!(
        wait(looked.tasks(None, 9, WithResults::None)).expect("reading"),
        [running.clone(), brief.clone()]
    );
    assert_eq!(wait(looked.task(1)).expect("reading"), Some(ended.clone()));
    let calls = |records: &SqliteRecords| {
        let found = all(records, AuditFilter { calls: true, ..AuditFilter::default() });
        found.into_iter().map(|call| (call.what, call.replica)).collect::<Vec<_>>()
    };
    let before = [("call now".to_owned(), None)];
    assert_eq!(calls(&looked), before, "of the time before instances were kept");
    drop(looked);
    let store = opened(&path).store;
    let records = store.records(KEEP, NOW).expect("records");
    assert_eq!(calls(&records), before);
    let running = Task { state: TaskState::Interrupted, ..running };
    assert_eq!(
        wait(records.tasks(None, 9, WithResults::All)).expect("reading"),
        [running.clone(), ended.clone()]
    );
    assert_eq!(wait(records.tasks(None, 9, WithResults::None)).expect("reading"), [running, brief]);
    assert_eq!(wait(records.task(1)).expect("reading"), Some(ended));
    assert_eq!(wait(records.begin_task(&task("sync"))).expect("a task"), 4);
}

#[test]
fn what_is_written_is_counted_when_it_can_be_read() {
    let (_dir, path) = place();
    let store = opened(&path).store;
    let records = store.records(KEEP, NOW).expect("records");
    let counts = || {
        [Recorded::Tasks, Recorded::Audit, Recorded::Calls]
            .map(|list| records.written(list).expect("counted"))
    };
    let id = wait(records.begin_task(&task("stop"))).expect("a task");
    assert_eq!(counts(), [1, 0, 0]);
    wait(records.end_task(&Task { id, state: TaskState::Done, ..task("stop") })).expect("an end");
    assert_eq!(counts(), [2, 0, 0]);
    wait(records.add_audit(&[line("time", NOW)])).expect("kept");
    assert_eq!(counts(), [2, 1, 0]);
    wait(records.add_calls(vec![CallRecord { at: NOW, ..CallRecord::default() }])).expect("kept");
    assert_eq!(counts(), [2, 1, 1]);
    wait(records.tasks(None, 9, WithResults::All)).expect("reading");
    wait(records.audit(&AuditFilter { limit: 9, ..AuditFilter::default() })).expect("reading");
    assert_eq!(counts(), [2, 1, 1], "who reads writes nothing");
}

#[test]
fn tasks_are_bounded() {
    let (_dir, path) = place();
    let store = opened(&path).store;
    let records = store.records(KEEP, NOW).expect("records");
    for _ in 0..TASKS_MAX + 10 {
        let id = wait(records.begin_task(&task("sync"))).expect("a task");
        wait(records.end_task(&Task { id, state: TaskState::Done, ..task("sync") })).expect("an end");
    }
    drop(records);
    let records = store.records(KEEP, NOW).expect("records");
    assert_eq!(wait(records.task(1)).expect("reading"), None);
    assert!(wait(records.task(TASKS_MAX + 10)).expect("reading").is_some());
}
