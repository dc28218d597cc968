//! Tasks and the audit in memory, for tests that look at what is handed over.

use crate::model::record::{AuditEntry, AuditFilter, CallRecord, Task, WithResults};
use crate::world::fake::ready;
use crate::world::{Answer, Recorded, Records};
use std::future::pending;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Keeps everything, without bounds, and gives all of it back whatever is asked for.
#[derive(Debug, Default)]
pub struct FakeRecords {
    /// Tasks in the order of their ids, which count from 1.
    pub tasks: Mutex<Vec<Task>>,
    /// Lines of the audit in the order in which they came.
    pub audit: Mutex<Vec<AuditEntry>>,
    /// Calls, as they were handed over together.
    pub batches: Mutex<Vec<Vec<CallRecord>>>,
    /// It never answers when calls are handed over.
    pub stuck: bool,
    /// How often it is to have been written to.
    pub written: AtomicU64,
}

fn held<T>(kept: &Mutex<T>) -> MutexGuard<'_, T> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Records for FakeRecords {
    fn written(&self, _list: Recorded) -> Option<u64> {
        Some(self.written.load(SeqCst))
    }

    fn begin_task<'a>(&'a self, task: &'a Task) -> Answer<'a, i64> {
        let mut tasks = held(&self.tasks);
        let id = i64::try_from(tasks.len()).unwrap_or(i64::MAX).saturating_add(1);
        tasks.push(Task { id, ..task.clone() });
        ready(Ok(id))
    }

    fn end_task<'a>(&'a self, task: &'a Task) -> Answer<'a, ()> {
        held(&self.tasks).iter_mut().filter(|kept| kept.id == task.id).for_each(|kept| kept.clone_from(task));
        ready(Ok(()))
    }

    fn task(&self, id: i64) -> Answer<'_, Option<Task>> {
        ready(Ok(held(&self.tasks).iter().find(|task| task.id == id).cloned()))
    }

    fn tasks(&self, _before: Option<i64>, _limit: usize, _with: WithResults) -> Answer<'_, Vec<Task>> {
        ready(Ok(held(&self.tasks).clone()))
    }

    fn add_audit<'a>(&'a self, entries: &'a [AuditEntry]) -> Answer<'a, ()> {
        held(&self.audit).extend(entries.iter().cloned());
        ready(Ok(()))
    }

    fn add_calls(&self, calls: Vec<CallRecord>) -> Answer<'_, ()> {
        if self.stuck {
            return Box::pin(pending());
        }
        held(&self.batches).push(calls);
        ready(Ok(()))
    }

    fn audit<'a>(&'a self, _filter: &'a AuditFilter) -> Answer<'a, Vec<AuditEntry>> {
        ready(Ok(held(&self.audit).clone()))
    }
}
