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
use crate::mcp::wire::{Era, member, text_of};
use crate::mcp::{build, meta};
use crate::upstream::error::{CallError, CloseReason, LegError};
use crate::upstream::metrics::{Metrics, count};
use crate::upstream::open::{self, OpenOptions};
use crate::upstream::table::{Answer, FromServer, Listening, Shared};
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

/// How long the last words of a server that ended are waited for, and how often is looked.
const LAST_WORDS_WITHIN: Duration = Duration::from_millis(500);
const LAST_WORDS_LOOK: Duration = Duration::from_millis(2);

/// Pages of one list.
const LIST_PAGES_MAX: usize = 100;
/// Entries of one list.
const LIST_ENTRIES_MAX: usize = 10_000;
/// The id of what was never sent; no request comes to have it.
const NEVER_SENT: u64 = u64::MAX;

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
    /// The id its caller gave it, where subscriptions are tagged with it.
    pub own_id: Option<&'a RawValue>,
    /// Where to put what the server says before its answer; a slow taker loses some.
    pub events: Option<mpsc::Sender<FromServer>>,
    /// What becomes of it when nobody waits any more.
    pub on_drop: OnDrop,
}

impl<'a> Call<'a> {
    /// A request whose caller only wants the answer.
    #[must_use]
    pub const fn new(method: &'a str, params: Option<&'a RawValue>) -> Self {
        Self { method, params, own_id: None, events: None, on_drop: OnDrop::Cancel }
    }
}

/// What becomes of a request whose caller stops waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDrop {
    /// The server is told to stop.
    Cancel,
    /// The server goes on; its answer is dropped.
    Leave,
}

/// A handle on a leg; handles are cheap to clone.
#[derive(Clone, Debug)]
pub struct Leg {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    line: LineHandle,
    greeting: Greeting,
}

/// What the handshake found out.
#[derive(Clone, Debug)]
pub struct Greeting {
    /// The era this process is used in.
    pub era: Era,
    /// The version both sides speak.
    pub version: String,
    /// What the server said about itself; `None` when it was adopted and nobody remembered, or
    /// when it only complained.
    pub server: Option<ServerInfo>,
}

/// The connection before and after the handshake; dropping it lets go of the streams.
#[derive(Debug)]
pub(crate) struct LineHandle {
    pub(crate) shared: Arc<Shared>,
    pub(crate) tasks: Vec<AbortHandle>,
    /// The one of them that reads the error stream, where there is one.
    pub(crate) words: Option<AbortHandle>,
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
        let (line, greeting) = open::open(io, options).await?;
        Ok(Self { inner: Arc::new(Inner { line, greeting }) })
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
        self.start(Call::new(method, params))?.answer(timeout).await
    }

    /// Sends a request; its answer comes from what is returned.
    ///
    /// # Errors
    /// See [`CallError`]: the leg is closed, too much is waiting, or the params cannot carry a
    /// progress token.
    pub fn start(&self, call: Call<'_>) -> Result<Running, CallError> {
        self.inner.line.start(call)
    }

    /// What stands for a request that this leg could not take any more: nothing of it is sent.
    #[must_use]
    pub(crate) fn never_sent(&self, why: CloseReason) -> Running {
        let (tell, answer) = oneshot::channel();
        let _waits = tell.send(Err(CallError::Unsent(why)));
        let shared = Arc::clone(&self.inner.line.shared);
        Running { shared, id: NEVER_SENT, answer, on_drop: OnDrop::Leave, timed_out: false }
    }

    /// Takes back the request that [`Running::id`] names, as its client asked with `params` of a
    /// `notifications/cancelled`.
    pub fn cancel(&self, id: u64, params: Option<&RawValue>) {
        let shared = &self.inner.line.shared;
        if shared.cancel(id) {
            let reason = params.and_then(|params| member(params, "reason"));
            shared.queue_own(match reason.and_then(text_of) {
                Some(reason) => build::cancelled(id, &reason),
                None => build::cancelled(id, "the client cancelled it"),
            });
        }
    }

    /// Sends a notification; false when the queue is full and it is lost.
    pub fn notify(&self, method: &str, params: Option<&RawValue>) -> bool {
        self.inner.line.shared.queue_own(build::notification(method, params))
    }

    /// Answers a request of the server with a result, or with an error; false when it is lost.
    pub fn reply(&self, id: &RawValue, answer: Result<&RawValue, &RawValue>) -> bool {
        let (key, value) = match answer {
            Ok(result) => ("result", result),
            Err(error) => ("error", error),
        };
        self.inner.line.shared.queue_own(build::reply(id, key, value))
    }

    /// Every entry of a list, each as written; ends early where pages repeat or there are too many.
    /// `dress` adds to the params of each request what the server's era asks for.
    ///
    /// # Errors
    /// See [`CallError`]; [`CallError::List`] when a page is none.
    pub async fn list(
        &self,
        (method, key): (&str, &str),
        dress: impl Fn(Option<Box<RawValue>>) -> Option<Box<RawValue>> + Send,
        timeout: Duration,
    ) -> Result<Vec<Box<RawValue>>, CallError> {
        let mut all = Vec::new();
        let mut cursor: Option<String> = None;
        for _page in 0..LIST_PAGES_MAX {
            let params = dress(build::list_params(cursor.as_deref()));
            let result = self.request(method, params.as_deref(), timeout).await?;
            let Page { entries, next } = page(&result, key).ok_or(CallError::List("it is no list"))?;
            all.extend(entries);
            match next {
                Some(next) if cursor.as_ref() != Some(&next) && all.len() < LIST_ENTRIES_MAX => {
                    cursor = Some(next);
                }
                _ => break,
            }
        }
        Ok(all)
    }

    /// What the server said about itself; `None` when it was adopted and nobody remembered.
    #[must_use]
    pub fn server_info(&self) -> Option<&ServerInfo> {
        self.inner.greeting.server.as_ref()
    }

    /// What the handshake found out.
    #[must_use]
    pub fn greeting(&self) -> &Greeting {
        &self.inner.greeting
    }

    /// Whether the leg is closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.inner.line.shared.is_closed()
    }

    /// Resolves when the leg is closed, with the reason.
    pub async fn closed(&self) -> CloseReason {
        self.inner.line.shared.closed().await
    }

    /// Waits until what a server that ended said on its error stream was read.
    pub(crate) async fn hear_out(&self) {
        self.inner.line.hear_out().await;
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

    /// Requests without an answer so far, subscriptions not counted.
    #[must_use]
    pub fn working(&self) -> usize {
        self.inner.line.shared.working()
    }

    /// Those of them that would be lost with the server; what can be asked again at no loss is none.
    #[must_use]
    pub fn at_stake(&self) -> usize {
        self.inner.line.shared.at_stake()
    }

    /// The counters now.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.inner.line.shared.metrics()
    }
}

impl LineHandle {
    /// One that ended says on its error stream why, and that is read beside its messages; children of
    /// it may keep the stream open, so that this takes no longer than [`LAST_WORDS_WITHIN`].
    pub(crate) async fn hear_out(&self) {
        let Some(words) = &self.words else { return };
        let over = async {
            while !words.is_finished() {
                tokio::time::sleep(LAST_WORDS_LOOK).await;
            }
        };
        let _still_open = tokio::time::timeout(LAST_WORDS_WITHIN, over).await;
    }

    pub(crate) fn start(&self, call: Call<'_>) -> Result<Running, CallError> {
        let Call { method, params, own_id, events, on_drop } = call;
        let theirs = params.and_then(meta::progress_token).map(ToOwned::to_owned);
        let tracked = theirs.is_some();
        let own_id = own_id.map(ToOwned::to_owned);
        let listening = events.map(|sink| Listening { token: theirs, own_id, sink });
        let (id, answer) = self.shared.enter(method, listening)?;
        // From here on the table is cleared by dropping this, whatever goes wrong.
        let running = Running { shared: Arc::clone(&self.shared), id, answer, on_drop, timed_out: false };
        let replaced = if tracked {
            Some(meta::with_progress_token(params, id).ok_or(CallError::Params)?)
        } else {
            None
        };
        let params = replaced.as_deref().or(params);
        self.shared.queue_request(id, build::request(id, method, params))?;
        Ok(running)
    }
}

/// A request under way. Dropping it gives it up.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    id: u64,
    answer: oneshot::Receiver<Answer>,
    on_drop: OnDrop,
    timed_out: bool,
}

impl Running {
    /// The leg's own id of it.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Waits for the answer, at most `timeout`; may be asked again after it has run out.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn answer(&mut self, timeout: Duration) -> Result<Box<RawValue>, CallError> {
        match tokio::time::timeout(timeout, &mut self.answer).await {
            Ok(answer) => settled(answer),
            Err(_elapsed) => {
                self.timed_out = true;
                Err(CallError::TimedOut { after: timeout })
            }
        }
    }

    /// Waits for the answer as long as it takes.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn answered(&mut self) -> Result<Box<RawValue>, CallError> {
        settled((&mut self.answer).await)
    }

    /// Gives up: the server is told that it took too long.
    pub fn time_out(mut self) {
        self.timed_out = true;
        self.on_drop = OnDrop::Cancel;
    }
}

fn settled(answer: Result<Answer, oneshot::error::RecvError>) -> Answer {
    // Only a closed leg drops the sender, and it answers first.
    answer.unwrap_or(Err(CallError::Closed(CloseReason::LetGo)))
}

/// Takes a request out of the table, however its caller stops waiting.
impl Drop for Running {
    fn drop(&mut self) {
        let counters = &self.shared.counters;
        // An answered request is out of the table already.
        let sent = self.shared.forget(self.id);
        if self.timed_out && sent {
            count(&counters.timeouts);
        } else if sent {
            count(&counters.abandoned);
        }
        if sent && self.on_drop == OnDrop::Cancel {
            let why = if self.timed_out { "the request timed out" } else { "the caller went away" };
            self.shared.queue_own(build::cancelled(self.id, why));
        }
    }
}
