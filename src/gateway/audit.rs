//! Who called what: clients' calls of tools, prompts and resources, noted when they end or are refused.
//!
//! ```text
//! one record --+--> the log, at once, of clients that proved who they are
//!              +--queue, bounded--> writer, many at once --> the state file, bounded by age and number
//! ```
//! Nobody waits for the disk: what does not fit into the queue is counted and lost. Must never hold
//! arguments, results or the name of a resource.

use crate::gateway::guard::LOCAL;
use crate::gateway::metrics::{REFUSED, shown};
use crate::gateway::origin::Door;
use crate::model::id::ServerId;
use crate::model::record::CallRecord;
use crate::world::{Clock, Records};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// Target of the events that say who called what, at level INFO. Names only.
pub const AUDIT: &str = "audit";
/// The method of a request that was refused before anybody looked into it.
const UNREAD: &str = "request";
/// Calls that may wait for the disk.
const WAITING_MAX: usize = 16 * 1024;
/// Calls written together: as many as are soon written, so that calls beside hardly wait for a processor.
const TOGETHER_MAX: usize = 1024;
/// Between two writes while fewer are waiting, so that each has many calls.
const BETWEEN: Duration = Duration::from_millis(250);
/// The daemon's end waits this long for what is not written.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);
/// Between two looks whether all is written.
const FLUSH_LOOK: Duration = Duration::from_millis(5);

/// The calls of all servers.
pub struct CallLog {
    clock: Arc<dyn Clock>,
    enabled: AtomicBool,
    waiting: OnceLock<mpsc::Sender<CallRecord>>,
    hurry: Arc<Notify>,
    noted: AtomicU64,
    written: Arc<AtomicU64>,
    lost: AtomicU64,
}

impl fmt::Debug for CallLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallLog")
            .field("enabled", &self.enabled)
            .field("lost", &self.lost)
            .finish_non_exhaustive()
    }
}

impl CallLog {
    /// A log that notes nothing before [`Self::begin`].
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            clock,
            enabled: AtomicBool::new(true),
            waiting: OnceLock::new(),
            hurry: Arc::default(),
            noted: AtomicU64::new(0),
            written: Arc::default(),
            lost: AtomicU64::new(0),
        })
    }

    /// Begins to write into `records`, the first time; must be called within a tokio runtime.
    pub fn begin(&self, records: Arc<dyn Records>) {
        let (waiting, incoming) = mpsc::channel(WAITING_MAX);
        if self.waiting.set(waiting).is_ok() {
            let (hurry, written) = (Arc::clone(&self.hurry), Arc::clone(&self.written));
            tokio::spawn(write(records, incoming, (hurry, written)));
        }
    }

    /// Whether calls are noted from now on.
    pub fn enable(&self, enabled: bool) {
        self.enabled.store(enabled, Relaxed);
    }

    /// Whether a call that ends now would be noted.
    #[must_use]
    pub fn wants(&self) -> bool {
        self.enabled.load(Relaxed) && self.waiting.get().is_some()
    }

    /// Whether anybody wants to know of a call of theirs that ends now.
    #[must_use]
    pub fn is_heard(&self, who: &str) -> bool {
        self.wants() || is_told(who)
    }

    /// Notes a request that somebody known was refused at the door.
    pub fn refused(&self, who: &str, door: Door, (server, request): (Option<ServerId>, Option<Box<str>>)) {
        if self.is_heard(who) {
            self.note(CallRecord {
                by: Arc::from(shown(who)),
                via: door.as_str(),
                server: server.map(|id| Arc::from(id.as_str())),
                method: Arc::from(UNREAD),
                result: REFUSED,
                request,
                ..CallRecord::default()
            });
        }
    }

    /// Notes a call; its time is now.
    pub fn note(&self, mut call: CallRecord) {
        if is_told(&call.by) {
            tell(&call);
        }
        let Some(waiting) = self.waiting.get().filter(|_| self.enabled.load(Relaxed)) else { return };
        call.at = self.clock.now();
        if waiting.try_send(call).is_ok() {
            self.noted.fetch_add(1, Relaxed);
            if waiting.max_capacity() - waiting.capacity() == TOGETHER_MAX {
                self.hurry.notify_one();
            }
        } else if self.lost.fetch_add(1, Relaxed) == 0 {
            tracing::warn!("calls are not written as fast as they come: some are missing in the audit");
        }
    }

    /// Calls that were lost.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// Waits until what was noted is written, a moment at most.
    pub async fn flush(&self) {
        self.hurry.notify_one();
        let all = async {
            while self.written.load(Relaxed) < self.noted.load(Relaxed) {
                tokio::time::sleep(FLUSH_LOOK).await;
            }
        };
        let _late = tokio::time::timeout(FLUSH_WITHIN, all).await;
    }
}

/// Whether the log wants to know of a client's calls: of one that proved who it is.
fn is_told(who: &str) -> bool {
    who != LOCAL && tracing::enabled!(target: AUDIT, tracing::Level::INFO)
}

fn tell(call: &CallRecord) {
    let CallRecord { by, server, replica, method, tool, result, .. } = call;
    tracing::info!(
        target: AUDIT,
        MCP_SERVER = server.as_ref().map(tracing::field::display),
        MCP_REPLICA = *replica,
        MCP_PRINCIPAL = &**by,
        MCP_METHOD = &**method,
        MCP_TOOL = (!tool.is_empty()).then_some(&**tool),
        MCP_STATUS = *result,
        "{by}: {method}{}{tool} of {} {result}",
        if tool.is_empty() { "" } else { " " },
        server.as_deref().unwrap_or("?"),
    );
}

async fn write(
    records: Arc<dyn Records>,
    mut incoming: mpsc::Receiver<CallRecord>,
    (hurry, written): (Arc<Notify>, Arc<AtomicU64>),
) {
    let mut together = Vec::new();
    while incoming.recv_many(&mut together, TOGETHER_MAX).await > 0 {
        let count = u64::try_from(together.len()).unwrap_or(0);
        if let Err(error) = records.add_calls(std::mem::take(&mut together)).await {
            tracing::warn!(MCP_ERROR_CODE = error.kind.code(), "{error}");
        }
        written.fetch_add(count, Relaxed);
        if incoming.len() < TOGETHER_MAX {
            let _hurried = tokio::time::timeout(BETWEEN, hurry.notified()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BETWEEN, CallLog, TOGETHER_MAX, WAITING_MAX};
    use crate::model::record::CallRecord;
    use crate::model::time::{Span, Timestamp};
    use crate::world::fake::FakeRecords;
    use crate::world::{Clock, Records};
    use std::future::{Future, pending};
    use std::pin::Pin;
    use std::sync::Arc;

    struct Noon;

    impl Clock for Noon {
        fn now(&self) -> Timestamp {
            Timestamp(43_200_000)
        }
        fn sleep(&self, _span: Span) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
            Box::pin(pending())
        }
    }

    fn call(n: usize) -> CallRecord {
        CallRecord { tool: Arc::from(format!("t{n}")), ..CallRecord::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_are_written_many_at_once_with_their_time_and_none_is_left() {
        let log = CallLog::new(Arc::new(Noon));
        log.note(call(0));
        let kept = Arc::new(FakeRecords::default());
        log.begin(Arc::clone(&kept) as Arc<dyn Records>);
        assert!(log.wants());
        log.note(call(1));
        tokio::time::sleep(BETWEEN / 2).await;
        (2..1000).for_each(|n| log.note(call(n)));
        log.flush().await;
        let batches = std::mem::take(&mut *kept.batches.lock().unwrap());
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [1, 998], "two writes for a thousand");
        assert!(batches.iter().flatten().all(|call| call.at == Timestamp(43_200_000)));
        log.enable(false);
        log.note(call(1));
        assert!(!log.wants());
        log.flush().await;
        assert_eq!(kept.batches.lock().unwrap().len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn many_calls_are_written_before_their_time_in_pieces_that_are_soon_written() {
        let log = CallLog::new(Arc::new(Noon));
        let kept = Arc::new(FakeRecords::default());
        log.begin(Arc::clone(&kept) as Arc<dyn Records>);
        log.note(call(0));
        tokio::time::sleep(BETWEEN / 4).await;
        (0..TOGETHER_MAX * 3).for_each(|n| log.note(call(n)));
        tokio::time::sleep(BETWEEN / 4).await;
        let sizes: Vec<usize> = kept.batches.lock().unwrap().iter().map(Vec::len).collect();
        assert_eq!(sizes, [1, TOGETHER_MAX, TOGETHER_MAX, TOGETHER_MAX]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_hangs_holds_up_nobody_and_what_is_lost_is_counted() {
        let log = CallLog::new(Arc::new(Noon));
        log.begin(Arc::new(FakeRecords { stuck: true, ..FakeRecords::default() }));
        for n in 0..WAITING_MAX + 10 {
            log.note(call(n));
        }
        assert_eq!(log.lost(), 10);
        log.flush().await;
    }
}
