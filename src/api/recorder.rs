//! Who asked for what, and what became of it: tasks that end when the loop has finished with their
//! servers, and the audit.
//!
//! The audit is written behind the back of whoever adds to it, so that nobody waits for the disk.
//! Must never end a task on the strength of a pass that began before it was asked for.

use crate::model::id::ServerId;
use crate::model::record::{AuditEntry, AuditFilter, THE_LOOP, Task, TaskDetail, TaskResult, TaskState};
use crate::model::time::{Span, Timestamp};
use crate::plan::report::{ReasonKind, Row, RowState};
use crate::service::Snapshot;
use crate::world::{Clock, Records, WorldError};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Lines of the audit that may wait for the disk.
const WAITING_MAX: usize = 1024;
/// Lines written together.
const TOGETHER_MAX: usize = 64;
/// Tasks that may run at once.
pub const RUNNING_MAX: usize = 256;
/// Lines about what was done for a task that are shown.
const ACTIONS_MAX: usize = 200;
/// Longest a task runs: then it has failed, whatever becomes of the servers.
const TASK_SECS: u64 = 900;

/// Tasks and audit, for whoever asks for something.
#[derive(Clone)]
pub struct Recorder {
    /// What is kept.
    pub records: Arc<dyn Records>,
    clock: Arc<dyn Clock>,
    waiting: mpsc::Sender<AuditEntry>,
    running: Arc<AtomicUsize>,
    lost: Arc<AtomicU64>,
    changes: watch::Sender<u64>,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").field("running", &self.running).finish_non_exhaustive()
    }
}

/// Counts a running task until it is dropped.
struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Recorder {
    /// A recorder over `records`, whose writer lives as long as the recorder.
    pub fn new(records: Arc<dyn Records>, clock: Arc<dyn Clock>) -> Self {
        let (waiting, incoming) = mpsc::channel(WAITING_MAX);
        tokio::spawn(write(Arc::clone(&records), incoming));
        Self {
            records,
            clock,
            waiting,
            running: Arc::default(),
            lost: Arc::default(),
            changes: watch::Sender::new(0),
        }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Told whenever a task begins or ends.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Adds a line to the audit; its time is now unless it has one.
    pub fn note(&self, mut entry: AuditEntry) {
        if entry.at == Timestamp::default() {
            entry.at = self.now();
        }
        if self.waiting.try_send(entry).is_err() && self.lost.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!("the audit is not written as fast as it grows: lines of it are lost");
        }
    }

    /// Whether one more task may run.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.running.load(Ordering::Relaxed) < RUNNING_MAX
    }

    /// Keeps a task and follows it to its end in the background.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub async fn begin(
        &self,
        mut task: Task,
        snapshots: watch::Receiver<Arc<Snapshot>>,
    ) -> Result<Task, WorldError> {
        // What was done for it began when it came, which was before it is kept.
        if task.asked == Timestamp::default() {
            task.asked = self.now();
        }
        task.id = self.records.begin_task(&task).await?;
        self.running.fetch_add(1, Ordering::Relaxed);
        let running = Running(Arc::clone(&self.running));
        let (recorder, begun) = (self.clone(), task.clone());
        self.changes.send_modify(|count| *count += 1);
        tokio::spawn(async move {
            recorder.follow(begun, snapshots).await;
            drop(running);
        });
        Ok(task)
    }

    async fn follow(&self, mut task: Task, mut snapshots: watch::Receiver<Arc<Snapshot>>) {
        let reached = |snapshot: &Arc<Snapshot>| finished(&task, snapshot);
        let wait = async { snapshots.wait_for(reached).await.is_ok() };
        let in_time = match tokio::time::timeout(Duration::from_secs(TASK_SECS), wait).await {
            Ok(true) => true,
            // The loop has ended: the next start says that this was interrupted.
            Ok(false) => return,
            Err(_elapsed) => false,
        };
        let newest = Arc::clone(&snapshots.borrow());
        task.results = results(&task, &newest);
        let fine = in_time && task.results.iter().all(|result| result.ok);
        task.state = if fine { TaskState::Done } else { TaskState::Failed };
        task.ended = Some(self.now());
        if let Err(error) = self.records.end_task(&task).await {
            tracing::warn!(MCP_ERROR_CODE = error.kind.code(), "{error}");
        }
        self.note(entry_of(&task));
        self.changes.send_modify(|count| *count += 1);
    }

    /// Waits at most `within` until a task has ended, and says how it stands.
    pub async fn ended(&self, task: Task, within: Duration) -> Task {
        let mut changes = self.changes();
        let id = task.id;
        let wait = async {
            loop {
                changes.borrow_and_update();
                if let Ok(Some(task)) = self.records.task(id).await
                    && task.state != TaskState::Running
                {
                    return task;
                }
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(within, wait).await.unwrap_or(task)
    }
}

async fn write(records: Arc<dyn Records>, mut incoming: mpsc::Receiver<AuditEntry>) {
    let mut together = Vec::new();
    while incoming.recv_many(&mut together, TOGETHER_MAX).await > 0 {
        if let Err(error) = records.add_audit(&together).await {
            tracing::warn!(MCP_ERROR_CODE = error.kind.code(), "{error}");
        }
        together.clear();
    }
}

/// A pass that began after the request has finished with the task's servers.
fn finished(task: &Task, snapshot: &Snapshot) -> bool {
    let done = |name: &String| ServerId::instance(name).is_ok_and(|id| snapshot.finished_with(&id));
    let for_all = task.servers.is_empty() && !touches_nothing(task);
    snapshot.pass >= task.pass && if for_all { snapshot.settled } else { task.servers.iter().all(done) }
}

/// A task as it stands now: while it runs, with the results of the servers that are finished with.
#[must_use]
pub fn so_far(task: Task, snapshot: &Snapshot) -> Task {
    if task.state != TaskState::Running || snapshot.pass < task.pass {
        return task;
    }
    let done =
        |result: &TaskResult| ServerId::instance(&result.server).is_ok_and(|id| snapshot.finished_with(&id));
    let results = results(&task, snapshot).into_iter().filter(done).collect();
    Task { results, ..task }
}

/// A task with what was done for it.
///
/// What the loop did for its servers meanwhile is that: a change that somebody else asked for at the same time
/// for the same server is in it as well.
///
/// # Errors
/// When it cannot be read.
pub async fn detail(records: &dyn Records, task: Task) -> Result<TaskDetail, WorldError> {
    if touches_nothing(&task) {
        return Ok(TaskDetail { task, actions: Vec::new() });
    }
    // When one was interrupted nobody knows: what it asked for was done after the next start.
    let latest = (task.state == TaskState::Interrupted).then(|| task.asked.after(Span::secs(TASK_SECS)));
    let filter = AuditFilter {
        by: Some(THE_LOOP.to_owned()),
        since: Some(task.asked),
        until: task.ended.or(latest),
        among: task.servers.clone(),
        limit: ACTIONS_MAX,
        ..AuditFilter::default()
    };
    let mut actions = records.audit(&filter).await?;
    actions.reverse();
    Ok(TaskDetail { task, actions })
}

/// Of how many servers a task is.
#[must_use]
pub fn extent(task: &Task, snapshot: &Snapshot) -> usize {
    if task.servers.is_empty() { snapshot.report.servers.len() } else { task.servers.len() }
}

/// An edit that leaves every server as it is.
fn touches_nothing(task: &Task) -> bool {
    task.servers.is_empty() && task.act.starts_with("edit:")
}

fn results(task: &Task, snapshot: &Snapshot) -> Vec<TaskResult> {
    if touches_nothing(task) {
        return Vec::new();
    }
    let named = |(id, _): &(&ServerId, &Row)| {
        task.servers.is_empty() || task.servers.iter().any(|name| name == id.as_str())
    };
    // An instance may be asked for by its own name.
    let further = |(id, _): &(&ServerId, &Row)| {
        id.replica_number() > 1 && task.servers.iter().any(|name| name == id.as_str())
    };
    let rows = snapshot.report.servers.iter().filter(named);
    rows.chain(snapshot.report.each().filter(further))
        .map(|(id, row)| {
            let ok = match task.act.as_str() {
                "stop" => row.state == RowState::Stopped,
                _ => matches!(row.state, RowState::Converged | RowState::Stopped | RowState::Asleep),
            };
            let wrong = |kind| matches!(kind, ReasonKind::BlockedBy | ReasonKind::WaitingOn);
            let reason = row.reasons.iter().find(|reason| !ok && wrong(reason.kind));
            TaskResult {
                server: id.to_string(),
                ok,
                state: row.state.as_str().to_owned(),
                why: reason.map(|reason| reason.text.clone()),
                code: reason.and_then(|reason| reason.code).map(str::to_owned),
            }
        })
        .collect()
}

/// A task that ended, as a line of the audit.
fn entry_of(task: &Task) -> AuditEntry {
    let failed: Vec<&TaskResult> = task.results.iter().filter(|result| !result.ok).collect();
    let detail = failed.iter().map(|result| match &result.why {
        Some(why) => format!("{}: {why}", result.server),
        None => format!("{} is {}", result.server, result.state),
    });
    let detail: Vec<String> = detail.take(8).collect();
    AuditEntry {
        by: task.by.clone(),
        via: task.via.clone(),
        what: task.act.clone(),
        server: match task.servers.as_slice() {
            [one] => Some(one.clone()),
            _ => None,
        },
        result: if task.state == TaskState::Done { "ok" } else { "failed" }.to_owned(),
        detail: (!detail.is_empty()).then(|| detail.join("; ")),
        code: failed.iter().find_map(|result| result.code.clone()),
        millis: task.ended.map(|ended| ended.since(task.asked).0),
        task: Some(task.id),
        ..AuditEntry::default()
    }
}

#[cfg(test)]
mod tests;
