//! Tasks and the audit for tests that look at what is handed over: only calls are held.

use crate::model::record::{AuditEntry, AuditFilter, CallRecord, Task};
use crate::world::fake::ready;
use crate::world::{Answer, Recorded, Records};
use std::future::pending;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Remembers no task and no audit.
#[derive(Debug, Default)]
pub struct FakeRecords {
    /// Calls, as they were handed over together.
    pub batches: Mutex<Vec<Vec<CallRecord>>>,
    /// It never answers when calls are handed over.
    pub stuck: bool,
    /// How often it is to have been written to.
    pub written: AtomicU64,
}

impl Records for FakeRecords {
    fn written(&self, _list: Recorded) -> Option<u64> {
        Some(self.written.load(SeqCst))
    }

    fn begin_task<'a>(&'a self, _task: &'a Task) -> Answer<'a, i64> {
        ready(Ok(1))
    }

    fn end_task<'a>(&'a self, _task: &'a Task) -> Answer<'a, ()> {
        ready(Ok(()))
    }

    fn task(&self, _id: i64) -> Answer<'_, Option<Task>> {
        ready(Ok(None))
    }

    fn tasks(&self, _before: Option<i64>, _limit: usize) -> Answer<'_, Vec<Task>> {
        ready(Ok(Vec::new()))
    }

    fn add_audit<'a>(&'a self, _entries: &'a [AuditEntry]) -> Answer<'a, ()> {
        ready(Ok(()))
    }

    fn add_calls(&self, calls: Vec<CallRecord>) -> Answer<'_, ()> {
        if self.stuck {
            return Box::pin(pending());
        }
        self.batches.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(calls);
        ready(Ok(()))
    }

    fn audit<'a>(&'a self, _filter: &'a AuditFilter) -> Answer<'a, Vec<AuditEntry>> {
        ready(Ok(Vec::new()))
    }
}
