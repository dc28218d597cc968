//! Tasks, the audit and calls of clients: many small rows for people, none of them worth waiting for the
//! disk. Calls have a table of their own: they would push everything else out.
//!
//! Connections and locks of their own, so that nobody who reads pages ever makes a save of the ledger
//! wait, and one that only reads, so that they do not wait for what is being written.
//! `synchronous = NORMAL`, as for sessions: what was kept survives this process however it ends.
//!
//! Must never keep more than its bounds.

use crate::model::record::{AuditEntry, AuditFilter, CallRecord, Task, TaskState, WithResults};
use crate::model::time::{Span, Timestamp};
use crate::store::{SqliteStore, schema};
use crate::world::{Answer, ErrorKind, Recorded, Records, WorldError};
use rusqlite::{Connection, OptionalExtension as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Tasks that are kept.
pub const TASKS_MAX: i64 = 1_000;
/// Entries one question may get.
const LIMIT_MAX: usize = 500;
/// Entries written between two looks at the bounds.
const TRIM_EVERY: u64 = 64;
/// Calls written between two looks at their bounds.
const TRIM_CALLS_EVERY: u64 = 1024;

/// The tables that this module owns, for [`schema::MIGRATIONS`].
pub(super) const TABLES: &str = "
CREATE TABLE tasks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    state TEXT NOT NULL,
    body TEXT NOT NULL
) STRICT;
CREATE INDEX tasks_by_state ON tasks (state);
CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    server TEXT,
    by_whom TEXT NOT NULL,
    result TEXT NOT NULL,
    body TEXT NOT NULL
) STRICT;
CREATE INDEX audit_by_server ON audit (server, id);
";

/// The table of calls. It has no index beside its key: rows are looked through, newest first.
pub(super) const CALLS: &str = "
CREATE TABLE calls (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    by_whom TEXT NOT NULL,
    via TEXT NOT NULL,
    server TEXT,
    method TEXT NOT NULL,
    tool TEXT NOT NULL,
    result TEXT NOT NULL,
    millis INTEGER NOT NULL,
    request TEXT
) STRICT;
";

/// What became of each server of a task, apart from the rest of it: lists do without.
pub(super) const RESULTS: &str = "
ALTER TABLE tasks ADD COLUMN results TEXT NOT NULL DEFAULT '[]';
UPDATE tasks SET results = json_extract(body, '$.results'), body = json_set(body, '$.results', json('[]'))
    WHERE CASE WHEN json_valid(body) THEN json_type(body, '$.results') = 'array' ELSE 0 END;
";

/// Which instance of a server had a call, where it has several.
pub(super) const REPLICAS: &str = "
ALTER TABLE calls ADD COLUMN replica INTEGER;
";

const PUT_CALL: &str = "INSERT INTO calls \
    (at, by_whom, via, server, method, tool, result, millis, request, replica) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
const CALLED: &str = "FROM calls \
    WHERE id < ?1 AND (?2 IS NULL OR server = ?2) AND (?3 IS NULL OR by_whom = ?3) \
    AND (?4 IS NULL OR result = ?4) AND (?6 IS NULL OR at >= ?6) AND (?7 IS NULL OR method = ?7) \
    ORDER BY id DESC LIMIT ?5";
const AUDIT: &str = "SELECT id, body FROM audit WHERE id < ?1 \
    AND (?2 IS NULL OR server = ?2) AND (?3 IS NULL OR by_whom = ?3) AND (?4 IS NULL OR result = ?4) \
    AND (?6 IS NULL OR at >= ?6) \
    AND (?7 IS NULL OR substr(json_extract(body, '$.what') || ' ', 1, length(?7) + 1) IN (?7 || ' ', ?7 || ':')) \
    AND (?8 IS NULL OR at <= ?8) AND (?9 = '[]' OR EXISTS (SELECT 1 FROM json_each(?9) AS one \
    WHERE audit.server = one.value OR audit.server GLOB one.value || '-R[0-9]*')) \
    ORDER BY id DESC LIMIT ?5";

/// How much of the audit is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Entries younger than this.
    pub age: Span,
    /// At most this many.
    pub rows: u64,
    /// Calls younger than this.
    pub calls_age: Span,
    /// At most this many calls.
    pub calls: u64,
}

/// Tasks and audit of one daemon. Cloning shares the connections.
#[derive(Clone)]
pub struct SqliteRecords {
    inner: Arc<Mutex<Inner>>,
    /// For lists: beside a writer it sees the last commit, and waits for none.
    reader: Arc<Mutex<Inner>>,
    /// Counts what was written of each list, when it is there to be read.
    count: Arc<Counts>,
}

/// What was written of tasks, of the audit, of calls.
#[derive(Debug, Default)]
struct Counts([AtomicU64; 3]);

impl Counts {
    const fn of(&self, list: Recorded) -> &AtomicU64 {
        let Self([tasks, audit, calls]) = self;
        match list {
            Recorded::Tasks => tasks,
            Recorded::Audit => audit,
            Recorded::Calls => calls,
        }
    }
}

pub(super) struct Inner {
    pub(super) connection: Connection,
    keep: Keep,
    written: u64,
    calls_written: u64,
    /// Results of tasks have their column: not in a file that an earlier version wrote and nobody has
    /// opened for writing since.
    apart: bool,
    /// Calls have a column for the instance, as above.
    numbered: bool,
}

impl std::fmt::Debug for SqliteRecords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteRecords").finish_non_exhaustive()
    }
}

/// Tasks and audit of the store at `path`, for commands that only look; `None` when there is none.
/// What a dead process left running still says so.
///
/// # Errors
/// When the file cannot be read.
pub fn peek(path: &Path) -> Result<Option<SqliteRecords>, WorldError> {
    if !path.exists() {
        return Ok(None);
    }
    let connection =
        schema::looking(path).map_err(|error| schema::sql_error("opening tasks and audit", &error))?;
    let has = |table: &str, column: &str| {
        let count = "SELECT count(*) FROM pragma_table_info(?1) WHERE name = ?2";
        let found: rusqlite::Result<i64> = connection.query_row(count, [table, column], |row| row.get(0));
        found.map(|count| count > 0).map_err(|error| schema::sql_error("opening tasks and audit", &error))
    };
    let (apart, numbered) = (has("tasks", "results")?, has("calls", "replica")?);
    let inner = Arc::new(Mutex::new(Inner { apart, numbered, ..Inner::reading(connection) }));
    Ok(Some(SqliteRecords { reader: Arc::clone(&inner), inner, count: Arc::default() }))
}

impl SqliteStore {
    /// Tasks and audit in the same file. Tasks that a dead process left running are marked as
    /// interrupted. Blocks on the disk for a moment.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn records(&self, keep: Keep, now: Timestamp) -> Result<SqliteRecords, WorldError> {
        let failed = |error: rusqlite::Error| schema::sql_error("opening tasks and audit", &error);
        let connection = schema::beside(self.path()).map_err(failed)?;
        connection.pragma_update(None, "synchronous", "NORMAL").map_err(failed)?;
        let mut inner = Inner { connection, keep, written: 0, calls_written: 0, apart: true, numbered: true };
        let tidied = inner.interrupt().and_then(|()| inner.trim(now)).and_then(|()| inner.trim_calls(now));
        tidied.map_err(failed)?;
        let reader = Inner::reading(schema::looking(self.path()).map_err(failed)?);
        let (inner, reader) = (Arc::new(Mutex::new(inner)), Arc::new(Mutex::new(reader)));
        Ok(SqliteRecords { inner, reader, count: Arc::default() })
    }
}

impl Inner {
    /// One that nothing is written with.
    const fn reading(connection: Connection) -> Self {
        let keep = Keep { age: Span::ZERO, rows: 0, calls_age: Span::ZERO, calls: 0 };
        Self { connection, keep, written: 0, calls_written: 0, apart: true, numbered: true }
    }

    /// What a dead process left running.
    fn interrupt(&mut self) -> rusqlite::Result<()> {
        let running = self.tasks_where("state = 'running'", WithResults::All, (0, TASKS_MAX))?;
        for task in running {
            self.end(&Task { state: TaskState::Interrupted, ..task })?;
        }
        Ok(())
    }

    fn trim(&mut self, now: Timestamp) -> rusqlite::Result<()> {
        let rows = i64::try_from(self.keep.rows).unwrap_or(i64::MAX);
        let age = i64::try_from(self.keep.age.0).unwrap_or(i64::MAX);
        let transaction = schema::begin(&mut self.connection)?;
        transaction.execute("DELETE FROM tasks WHERE id <= (SELECT max(id) FROM tasks) - ?1", [TASKS_MAX])?;
        transaction.execute("DELETE FROM audit WHERE id <= (SELECT max(id) FROM audit) - ?1", [rows])?;
        transaction.execute("DELETE FROM audit WHERE at < ?1", [now.0.saturating_sub(age)])?;
        transaction.commit()
    }

    fn trim_calls(&mut self, now: Timestamp) -> rusqlite::Result<()> {
        let rows = i64::try_from(self.keep.calls).unwrap_or(i64::MAX);
        let age = i64::try_from(self.keep.calls_age.0).unwrap_or(i64::MAX);
        let transaction = schema::begin(&mut self.connection)?;
        transaction.execute("DELETE FROM calls WHERE id <= (SELECT max(id) FROM calls) - ?1", [rows])?;
        // They are nearly in order of time: the oldest are the first.
        let young = "SELECT min(id) FROM calls WHERE at >= ?1";
        let oldest = now.0.saturating_sub(age);
        let first: Option<i64> = transaction.query_row(young, [oldest], |row| row.get(0))?;
        transaction.execute("DELETE FROM calls WHERE id < ?1", [first.unwrap_or(i64::MAX)])?;
        transaction.commit()
    }

    fn add_calls(&mut self, calls: &[CallRecord]) -> rusqlite::Result<()> {
        let transaction = schema::begin(&mut self.connection)?;
        let mut newest = Timestamp::default();
        {
            let mut put = transaction.prepare_cached(PUT_CALL)?;
            for call in calls {
                let CallRecord { at, by, via, server, replica, method, tool, result, millis, request } = call;
                let millis = i64::try_from(*millis).unwrap_or(i64::MAX);
                let (by, method, tool) = (&**by, &**method, &**tool);
                let (server, request) = (server.as_deref(), request.as_deref());
                put.execute((at.0, by, via, server, method, tool, result, millis, request, replica))?;
                newest = newest.max(*at);
            }
        }
        transaction.commit()?;
        let before = self.calls_written / TRIM_CALLS_EVERY;
        self.calls_written += u64::try_from(calls.len()).unwrap_or(0);
        if self.calls_written / TRIM_CALLS_EVERY > before { self.trim_calls(newest) } else { Ok(()) }
    }

    fn calls(&self, filter: &AuditFilter) -> rusqlite::Result<Vec<AuditEntry>> {
        let AuditFilter { before, server, by, result, kind, since, limit, .. } = filter;
        let limit = i64::try_from((*limit).min(LIMIT_MAX)).unwrap_or(0);
        let replica = if self.numbered { "replica" } else { "NULL" };
        let columns = "id, at, by_whom, via, server, method, tool, result, millis, request";
        let mut statement =
            self.connection.prepare_cached(&format!("SELECT {columns}, {replica} {CALLED}"))?;
        let (since, method) = (since.map(|at| at.0), kind.as_deref().map(CallRecord::method));
        let asked = (before.unwrap_or(i64::MAX), server, by, result, limit, since, method);
        let rows = statement.query_map(asked, |row| {
            let (method, tool): (String, String) = (row.get(5)?, row.get(6)?);
            Ok(AuditEntry {
                id: row.get(0)?,
                at: Timestamp(row.get(1)?),
                by: row.get(2)?,
                via: row.get(3)?,
                what: CallRecord::what(&method, &tool),
                server: row.get(4)?,
                result: row.get(7)?,
                millis: u64::try_from(row.get::<_, i64>(8)?).ok(),
                request: row.get(9)?,
                replica: row.get(10)?,
                ..AuditEntry::default()
            })
        })?;
        rows.collect()
    }

    fn begin(&mut self, task: &Task) -> rusqlite::Result<i64> {
        let (body, results) = apart(task)?;
        let put = "INSERT INTO tasks (state, body, results) VALUES (?1, ?2, ?3)";
        self.connection.execute(put, (task.state.as_str(), body, results))?;
        Ok(self.connection.last_insert_rowid())
    }

    fn end(&mut self, task: &Task) -> rusqlite::Result<()> {
        let (body, results) = apart(task)?;
        let put = "UPDATE tasks SET state = ?2, body = ?3, results = ?4 WHERE id = ?1";
        self.connection.execute(put, (task.id, task.state.as_str(), body, results))?;
        Ok(())
    }

    fn task(&self, id: i64) -> rusqlite::Result<Option<Task>> {
        let read = format!("SELECT id, body, {} FROM tasks WHERE id = ?1", self.results(WithResults::All));
        let found = self.connection.prepare_cached(&read)?.query_row([id], row_of).optional()?;
        Ok(found.and_then(|row| whole(row, true)))
    }

    /// The column with what became of each server, or what stands for it.
    const fn results(&self, with: WithResults) -> &'static str {
        match with {
            WithResults::All if self.apart => "results",
            WithResults::OfFailed if self.apart => "iif(state = 'failed', results, NULL)",
            _ => "NULL",
        }
    }

    /// Newest first, with what became of each server where that is wanted. `condition` is of this file.
    fn tasks_where(
        &self,
        condition: &str,
        with: WithResults,
        (before, limit): (i64, i64),
    ) -> rusqlite::Result<Vec<Task>> {
        let before = if before > 0 { before } else { i64::MAX };
        let column = self.results(with);
        let mut statement = self.connection.prepare_cached(&format!(
            "SELECT id, body, {column} FROM tasks WHERE id < ?1 AND {condition} ORDER BY id DESC LIMIT ?2"
        ))?;
        let rows = statement.query_map((before, limit), row_of)?;
        let mut tasks = Vec::new();
        for row in rows {
            tasks.extend(whole(row?, with != WithResults::None));
        }
        Ok(tasks)
    }

    fn add(&mut self, entries: &[AuditEntry]) -> rusqlite::Result<()> {
        let transaction = schema::begin(&mut self.connection)?;
        let mut newest = Timestamp::default();
        for entry in entries {
            let put = "INSERT INTO audit (at, server, by_whom, result, body) VALUES (?1, ?2, ?3, ?4, ?5)";
            let row = (entry.at.0, &entry.server, &entry.by, &entry.result, json(entry)?);
            transaction.prepare_cached(put)?.execute(row)?;
            newest = newest.max(entry.at);
        }
        transaction.commit()?;
        let before = self.written / TRIM_EVERY;
        self.written += u64::try_from(entries.len()).unwrap_or(0);
        if self.written / TRIM_EVERY > before { self.trim(newest) } else { Ok(()) }
    }

    fn audit(&self, filter: &AuditFilter) -> rusqlite::Result<Vec<AuditEntry>> {
        if filter.calls {
            return self.calls(filter);
        }
        let AuditFilter { before, server, by, result, kind, since, until, among, calls: _, limit } = filter;
        let limit = i64::try_from((*limit).min(LIMIT_MAX)).unwrap_or(0);
        let mut statement = self.connection.prepare_cached(AUDIT)?;
        let (since, until, among) = (since.map(|at| at.0), until.map(|at| at.0), json(among)?);
        let asked = (before.unwrap_or(i64::MAX), server, by, result, limit, since, kind, until, among);
        let rows = statement.query_map(asked, |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))?;
        let mut entries = Vec::new();
        for row in rows {
            let (id, body) = row?;
            if let Ok(entry) = serde_json::from_str::<AuditEntry>(&body) {
                entries.push(AuditEntry { id, ..entry });
            }
        }
        Ok(entries)
    }
}

/// A row of the tasks: its id, its body, what became of each server.
type Row = (i64, String, Option<String>);

fn row_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

/// A task from its row; `None` for one that cannot be read.
fn whole((id, body, results): Row, wanted: bool) -> Option<Task> {
    let mut task: Task = serde_json::from_str(&body).ok()?;
    match results {
        Some(results) => task.results = serde_json::from_str(&results).ok()?,
        // In an older file they are in the body.
        None if !wanted => task.results.clear(),
        None => {}
    }
    Some(Task { id, ..task })
}

/// A task's body, and what became of each server.
fn apart(task: &Task) -> rusqlite::Result<(String, String)> {
    let results = json(&task.results)?;
    Ok((json(&Task { results: Vec::new(), ..task.clone() })?, results))
}

fn json(value: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

impl SqliteRecords {
    pub(super) fn with<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&mut Inner) -> rusqlite::Result<T> + Send + 'static,
    ) -> Answer<'_, T> {
        on(&self.inner, doing, work)
    }

    /// The same for what is written of a list.
    fn write<T: Send + 'static>(
        &self,
        list: Recorded,
        doing: &'static str,
        work: impl FnOnce(&mut Inner) -> rusqlite::Result<T> + Send + 'static,
    ) -> Answer<'_, T> {
        let count = Arc::clone(&self.count);
        self.with(doing, move |inner| {
            let done = work(inner);
            count.of(list).fetch_add(1, Ordering::Release);
            done
        })
    }

    fn look<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&mut Inner) -> rusqlite::Result<T> + Send + 'static,
    ) -> Answer<'_, T> {
        on(&self.reader, doing, work)
    }
}

fn on<T: Send + 'static>(
    inner: &Arc<Mutex<Inner>>,
    doing: &'static str,
    work: impl FnOnce(&mut Inner) -> rusqlite::Result<T> + Send + 'static,
) -> Answer<'static, T> {
    let inner = Arc::clone(inner);
    Box::pin(async move {
        let done = tokio::task::spawn_blocking(move || {
            work(&mut inner.lock().unwrap_or_else(PoisonError::into_inner))
        });
        match done.await {
            Ok(answer) => answer.map_err(|error| schema::sql_error(doing, &error)),
            Err(error) => Err(WorldError::new(doing, ErrorKind::Failed, error.to_string())),
        }
    })
}

impl Records for SqliteRecords {
    fn written(&self, list: Recorded) -> Option<u64> {
        Some(self.count.of(list).load(Ordering::Acquire))
    }

    fn begin_task<'a>(&'a self, task: &'a Task) -> Answer<'a, i64> {
        let task = task.clone();
        self.write(Recorded::Tasks, "keeping a task", move |inner| inner.begin(&task))
    }

    fn end_task<'a>(&'a self, task: &'a Task) -> Answer<'a, ()> {
        let task = task.clone();
        self.write(Recorded::Tasks, "keeping a task", move |inner| inner.end(&task))
    }

    fn task(&self, id: i64) -> Answer<'_, Option<Task>> {
        self.look("reading a task", move |inner| inner.task(id))
    }

    fn tasks(&self, before: Option<i64>, limit: usize, with: WithResults) -> Answer<'_, Vec<Task>> {
        let limit = i64::try_from(limit.min(LIMIT_MAX)).unwrap_or(0);
        self.look("reading tasks", move |inner| inner.tasks_where("1", with, (before.unwrap_or(0), limit)))
    }

    fn add_audit<'a>(&'a self, entries: &'a [AuditEntry]) -> Answer<'a, ()> {
        let entries = entries.to_vec();
        self.write(Recorded::Audit, "keeping the audit", move |inner| inner.add(&entries))
    }

    fn add_calls(&self, calls: Vec<CallRecord>) -> Answer<'_, ()> {
        self.write(Recorded::Calls, "keeping calls", move |inner| inner.add_calls(&calls))
    }

    fn audit<'a>(&'a self, filter: &'a AuditFilter) -> Answer<'a, Vec<AuditEntry>> {
        let filter = filter.clone();
        self.look("reading the audit", move |inner| inner.audit(&filter))
    }
}
