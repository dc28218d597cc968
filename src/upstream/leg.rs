//! One stdio MCP server, shared by many callers.
//!
//! Callers never see each other: every request gets an id of the leg's own, never used twice, and
//! a progress token is replaced by that id on the way out and restored on the way back. Params and
//! results pass as raw text.
//!
//! Giving up on a request, by its timeout or by dropping its future, tells the server
//! (`notifications/cancelled`) if it had been sent, and un-queues it if not. Dropping the last
//! handle lets go of the streams.
//!
//! Must never let one slow caller or one slow server hold up another caller's answer.

use crate::mcp::handshake::{Page, ServerInfo, page};
use crate::mcp::{build, meta};
use crate::upstream::error::{CallError, CloseReason, LegError};
use crate::upstream::metrics::{Metrics, count};
use crate::upstream::open::{self, OpenOptions};
use crate::upstream::table::{Progress, Shared};
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// Pages of one list.
pub const LIST_PAGES_MAX: usize = 100;
/// Entries of one list.
pub const LIST_ENTRIES_MAX: usize = 10_000;

/// The streams of a server.
pub struct LegIo {
    /// What it writes: messages, one a line.
    pub stdout: Box<dyn AsyncRead + Send + Unpin>,
    /// What it reads.
    pub stdin: Box<dyn AsyncWrite + Send + Unpin>,
    /// What it tells people, if that comes separately.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
}

impl std::fmt::Debug for LegIo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LegIo").finish_non_exhaustive()
    }
}

/// One request to a server.
#[derive(Debug)]
pub struct Call<'a> {
    /// The method.
    pub method: &'a str,
    /// Its params, passed on as written.
    pub params: Option<&'a RawValue>,
    /// How long to wait for the answer.
    pub timeout: Duration,
    /// Where to put the params of progress notifications; a slow taker loses some.
    pub progress: Option<mpsc::Sender<Box<RawValue>>>,
}

/// A handle on a leg; handles are cheap to clone.
#[derive(Clone, Debug)]
pub struct Leg {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    line: LineHandle,
    server: Option<ServerInfo>,
}

/// The connection before and after the handshake; dropping it lets go of the streams.
#[derive(Debug)]
pub(crate) struct LineHandle {
    pub(crate) shared: Arc<Shared>,
    pub(crate) tasks: Vec<AbortHandle>,
}

impl Drop for LineHandle {
    fn drop(&mut self) {
        self.shared.close(&CloseReason::LetGo);
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Leg {
    /// Opens a leg over the streams of a server, handshake included.
    ///
    /// Must be called within a tokio runtime; the streams are dropped on failure.
    ///
    /// # Errors
    /// Why the server cannot be used over these streams.
    pub async fn open(io: LegIo, options: OpenOptions) -> Result<Self, LegError> {
        let (line, server) = open::open(io, options).await?;
        Ok(Self { inner: Arc::new(Inner { line, server }) })
    }

    /// Sends a request and waits for its result.
    ///
    /// # Errors
    /// See [`CallError`]; an error of the server comes as it was written.
    pub async fn request(
        &self,
        method: &str,
        params: Option<&RawValue>,
        timeout: Duration,
    ) -> Result<Box<RawValue>, CallError> {
        self.send(Call { method, params, timeout, progress: None }).await
    }

    /// Sends a request, with progress if wanted.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn send(&self, call: Call<'_>) -> Result<Box<RawValue>, CallError> {
        self.inner.line.send(call).await
    }

    /// Sends a notification; lost when the queue is full.
    pub fn notify(&self, method: &str, params: Option<&RawValue>) {
        self.inner.line.shared.queue_own(build::notification(method, params));
    }

    /// Every tool of the server, each as written.
    ///
    /// # Errors
    /// See [`CallError`]; [`CallError::List`] when the list does not end within bounds.
    pub async fn list_tools(&self, timeout: Duration) -> Result<Vec<Box<RawValue>>, CallError> {
        let whole = self.list_pages("tools/list", "tools", timeout);
        tokio::time::timeout(timeout, whole).await.unwrap_or(Err(CallError::TimedOut { after: timeout }))
    }

    async fn list_pages(
        &self,
        method: &str,
        key: &str,
        timeout: Duration,
    ) -> Result<Vec<Box<RawValue>>, CallError> {
        let mut all = Vec::new();
        let mut cursor: Option<String> = None;
        for _page in 0..LIST_PAGES_MAX {
            let params = build::list_params(cursor.as_deref());
            let result = self.request(method, params.as_deref(), timeout).await?;
            let Page { entries, next } = page(&result, key).ok_or(CallError::List("it is no list"))?;
            all.extend(entries);
            if all.len() > LIST_ENTRIES_MAX {
                return Err(CallError::List("it has too many entries"));
            }
            match next {
                None => return Ok(all),
                Some(next) if cursor.as_ref() == Some(&next) => {
                    return Err(CallError::List("its pages repeat"));
                }
                Some(next) => cursor = Some(next),
            }
        }
        Err(CallError::List("it has too many pages"))
    }

    /// Calls a tool; `arguments` go out as written. A tool's own failure is a result (`isError`).
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call_tool(
        &self,
        name: &str,
        arguments: Option<&RawValue>,
        timeout: Duration,
    ) -> Result<Box<RawValue>, CallError> {
        let params = build::call_params(name, arguments);
        self.request("tools/call", params.as_deref(), timeout).await
    }

    /// What the server said about itself; `None` when it was adopted and nobody remembered.
    #[must_use]
    pub fn server_info(&self) -> Option<&ServerInfo> {
        self.inner.server.as_ref()
    }

    /// Resolves when the leg is closed, with the reason.
    pub async fn closed(&self) -> CloseReason {
        self.inner.line.shared.closed().await
    }

    /// Closes the server's input after what is queued, waits up to `grace` for its output to end,
    /// and closes the leg either way.
    pub async fn close(&self, grace: Duration) {
        let shared = &self.inner.line.shared;
        if shared.queue_end() {
            let _ended = tokio::time::timeout(grace, shared.closed()).await;
        }
        shared.close(&CloseReason::LetGo);
    }

    /// The counters now.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.inner.line.shared.metrics()
    }
}

impl LineHandle {
    pub(crate) async fn send(&self, call: Call<'_>) -> Result<Box<RawValue>, CallError> {
        let Call { method, params, timeout, progress } = call;
        let theirs = params.and_then(meta::progress_token).map(ToOwned::to_owned);
        let tracked = theirs.is_some() || progress.is_some();
        let progress = progress.map(|sink| Progress { token: theirs, sink });
        let (id, answer) = self.shared.enter(progress)?;
        let mut entry = Entry { shared: &self.shared, id, timed_out: false, cancel: method != "initialize" };
        let replaced = if tracked {
            Some(meta::with_progress_token(params, id).ok_or(CallError::Params)?)
        } else {
            None
        };
        let params = replaced.as_deref().or(params);
        self.shared.queue_request(id, build::request(id, method, params))?;
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(answer)) => answer,
            // Only a closed leg drops the sender, and it answers first.
            Ok(Err(_dropped)) => Err(CallError::Closed(CloseReason::LetGo)),
            Err(_elapsed) => {
                entry.timed_out = true;
                Err(CallError::TimedOut { after: timeout })
            }
        }
    }
}

/// Takes a request out of the table, however its caller stops waiting.
struct Entry<'a> {
    shared: &'a Shared,
    id: u64,
    timed_out: bool,
    /// A handshake must not be cancelled.
    cancel: bool,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let counters = &self.shared.counters;
        // An answered request is out of the table already.
        let sent = self.shared.forget(self.id);
        if self.timed_out {
            count(&counters.timeouts);
        } else if sent {
            count(&counters.abandoned);
        }
        if sent && self.cancel {
            let why = if self.timed_out { "the request timed out" } else { "the caller went away" };
            self.shared.queue_own(build::cancelled(self.id, why));
        }
    }
}
