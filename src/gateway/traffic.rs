//! What one server's requests are held to, for every door: each asks [`Entry::admit`] before it sends
//! a call, and tells what came of it to the [`Pass`] it got.
//!
//! ```text
//! too long                    413
//! too many of this client     429, and when to come again
//! its answer is kept          the answer
//! circuit open                503, and when it lets one try
//! too many of all             429, and when to come again
//! too many at once            waits in the queue; 503 when that is full or takes too long
//! else                        goes on, tried again where that is safe
//! ```
//! Calls are requests that make a server work for one client: of tools, prompts, resources and
//! completions. Where the entry asks for nothing, this is one look at a flag.
//!
//! What the entry asks for holds for the server as a whole, whichever of its instances answers; a circuit
//! is of one instance, and while another one's lets calls pass they go there.
//!
//! Decisions are made in `crate::traffic`; here are its locks, waits and clock. Must never hold a
//! lock while it waits, and never keep a place at the gate that its request has left.

pub mod denied;
#[cfg(test)]
mod tests;
pub mod view;

use crate::gateway::hub::Entry;
use crate::gateway::lock;
use crate::gateway::offered::LISTED_WITHIN;
use crate::gateway::slot::Unavailable;
use crate::gateway::traffic::denied::Denied;
use crate::gateway::traffic::view::{Counts, Reason};
use crate::mcp::combine::Kind;
use crate::mcp::wire::{member, text_of};
use crate::mcp::{build, combine};
use crate::model::id::ServerId;
use crate::model::traffic::{BreakerPolicy, Hints, TrafficPolicy};
use crate::traffic::breaker::{Admission, Breaker, State, Verdict};
use crate::traffic::cache::Cache;
use crate::traffic::gate::{Gate, Ticket, Way};
use crate::traffic::key::{self, Key};
use crate::traffic::rate::{Bucket, Buckets};
use crate::traffic::{Reached, next_try};
use crate::upstream::error::CallError;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// What the requests of one instance of a server are held to, and how that stands.
#[derive(Debug)]
pub struct Traffic {
    instance: ServerId,
    whole: Arc<Whole>,
    circuit: Mutex<Circuit>,
    counts: Counts,
}

/// What holds for all instances of a server together.
#[derive(Debug)]
pub struct Whole {
    /// Whether the entry asks for anything.
    on: AtomicBool,
    held: Mutex<Held>,
    kept: Mutex<Cache<RawValue>>,
    began: Instant,
}

impl Default for Whole {
    fn default() -> Self {
        let (held, kept) = (Mutex::default(), Mutex::default());
        Self { on: AtomicBool::new(false), held, kept, began: Instant::now() }
    }
}

/// The circuit of one instance, and what it is judged by.
#[derive(Debug, Default)]
struct Circuit {
    policy: Option<BreakerPolicy>,
    breaker: Breaker,
}

#[derive(Debug, Default)]
struct Held {
    policy: Arc<TrafficPolicy>,
    all: Bucket,
    clients: Buckets,
    gate: Gate,
    /// Those who wait at the gate.
    calls: BTreeMap<Ticket, oneshot::Sender<()>>,
}

impl Held {
    /// Wakes those who were let in. One who is gone notices when it drops its place in the queue.
    fn wake(&mut self, let_in: Vec<Ticket>) {
        for ticket in let_in {
            if let Some(waiting) = self.calls.remove(&ticket) {
                let _gone = waiting.send(());
            }
        }
    }
}

/// A call that wants to go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// Its method.
    pub(crate) method: &'a str,
    /// Its params, under the server's own names.
    pub(crate) params: Option<&'a RawValue>,
    /// The tool, where one is called; the server's own name.
    pub(crate) tool: &'a str,
    /// Whose it is.
    pub(crate) who: &'a Arc<str>,
    /// Whether it goes over the connection that clients share: an instance of one client's own may
    /// answer what no other would.
    pub(crate) shared: bool,
}

/// What becomes of a call.
#[derive(Debug)]
pub(crate) enum Admitted {
    /// It goes on; `None` where nobody wants to know what comes of it.
    Go(Option<Box<Pass>>),
    /// This is its answer.
    Kept(Box<RawValue>),
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Traffic {
    /// Of an instance of a server whose entry asks for nothing yet.
    #[must_use]
    pub fn new(instance: &ServerId, whole: &Arc<Whole>) -> Self {
        Self {
            instance: instance.clone(),
            whole: Arc::clone(whole),
            circuit: Mutex::default(),
            counts: Counts::default(),
        }
    }

    /// Says what the entry asks for. What is not another is left as it stands.
    pub fn set(&self, policy: &TrafficPolicy) {
        {
            let mut circuit = lock(&self.circuit);
            if circuit.policy != policy.breaker {
                *circuit = Circuit { policy: policy.breaker, breaker: Breaker::default() };
            }
        }
        let mut held = lock(&self.whole.held);
        if *held.policy == *policy {
            return;
        }
        let old = std::mem::replace(&mut held.policy, Arc::new(policy.clone()));
        if old.rate != policy.rate {
            held.all = Bucket::default();
        }
        if old.client_rate != policy.client_rate {
            held.clients = Buckets::default();
        }
        let let_in = held.gate.let_in(policy.at_once.as_ref());
        held.wake(let_in);
        drop(held);
        if old.cache != policy.cache {
            self.forget();
        }
        self.whole.on.store(!policy.is_open(), Relaxed);
    }

    /// Forgets answers: the server or its tools are other ones.
    pub fn forget(&self) {
        lock(&self.whole.kept).clear();
    }

    /// Another declaration, or somebody had it started anew: what failed before says nothing.
    pub fn anew(&self) {
        lock(&self.circuit).breaker = Breaker::default();
        self.forget();
    }

    fn now_nanos(&self) -> u64 {
        u64::try_from(self.whole.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn now_millis(&self) -> u64 {
        millis(self.whole.began.elapsed())
    }

    fn size(policy: &TrafficPolicy, wanted: &Wanted<'_>) -> Result<(), Denied> {
        let bytes = wanted.params.map_or(0, |params| params.get().len());
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        match policy.request_bytes_max {
            Some(max) if bytes > max => Err(Denied::TooLong(bytes, max)),
            Some(_) | None => Ok(()),
        }
    }

    fn client_rate(&self, policy: &TrafficPolicy, who: &Arc<str>) -> Result<(), Denied> {
        let Some(rate) = &policy.client_rate else { return Ok(()) };
        let taken = lock(&self.whole.held).clients.take(rate, who, self.now_nanos());
        taken.map_err(|nanos| Denied::ClientRate(Duration::from_nanos(nanos)))
    }

    fn rate(&self, policy: &TrafficPolicy) -> Result<(), Denied> {
        let Some(rate) = &policy.rate else { return Ok(()) };
        let taken = lock(&self.whole.held).all.take(rate, self.now_nanos());
        taken.map_err(|nanos| Denied::Rate(Duration::from_nanos(nanos)))
    }

    /// Whether the circuit lets a call pass, and as the one to try.
    fn circuit(&self, policy: &TrafficPolicy) -> Result<bool, Denied> {
        if policy.breaker.is_none() {
            return Ok(false);
        }
        match lock(&self.circuit).breaker.admit(self.now_millis()) {
            Admission::Yes => Ok(false),
            Admission::Try => Ok(true),
            Admission::No(wait) => Err(Denied::Circuit(Duration::from_millis(wait))),
        }
    }

    /// Whether the circuit is open.
    pub(crate) fn is_cut(&self) -> bool {
        let circuit = lock(&self.circuit);
        circuit.policy.is_some() && circuit.breaker.state(self.now_millis()) == State::Open
    }

    /// Waits for a place at the gate; whether one was taken, and whether that took time.
    async fn gate(&self, policy: &TrafficPolicy) -> Result<(bool, bool), Denied> {
        let Some(limit) = &policy.at_once else { return Ok((false, false)) };
        let (mut waiting, called) = {
            let mut held = lock(&self.whole.held);
            match held.gate.enter(limit) {
                Way::In => return Ok((true, false)),
                Way::Full => return Err(Denied::Full),
                Way::Wait(ticket) => {
                    let (call, called) = oneshot::channel();
                    held.calls.insert(ticket, call);
                    (Waiting { traffic: self, ticket: Some(ticket) }, called)
                }
            }
        };
        let wait = Duration::from_millis(limit.wait.0);
        match tokio::time::timeout(wait, called).await {
            Ok(Ok(())) => {
                waiting.ticket = None;
                Ok((true, true))
            }
            Ok(Err(_)) | Err(_) => Err(Denied::Waited(wait)),
        }
    }

    /// Somebody leaves the gate.
    fn leave(&self) {
        let mut held = lock(&self.whole.held);
        let policy = Arc::clone(&held.policy);
        let let_in = held.gate.leave(policy.at_once.as_ref());
        held.wake(let_in);
    }

    /// A call that was let through has ended.
    fn ended(&self, verdict: Verdict, tried: bool) {
        let now = self.now_millis();
        let change = {
            let mut circuit = lock(&self.circuit);
            let policy = circuit.policy;
            policy.and_then(|policy| circuit.breaker.ended(&policy, now, (verdict, tried)))
        };
        let server = &self.instance;
        match change {
            Some(State::Open) => {
                self.counts.opened();
                tracing::warn!(
                    MCP_SERVER = %server.server(), MCP_ERROR_CODE = "MCPO-G072",
                    "{server} does not answer: its calls are refused for a while"
                );
            }
            Some(_) => {
                tracing::info!(MCP_SERVER = %server.server(), "{server} answers again: its calls pass");
            }
            None => {}
        }
    }
}

/// A place in the queue; dropping it gives it up, or the place at the gate it has become.
struct Waiting<'a> {
    traffic: &'a Traffic,
    ticket: Option<Ticket>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let waited = {
            let mut held = lock(&self.traffic.whole.held);
            held.calls.remove(&ticket);
            held.gate.give_up(ticket)
        };
        if !waited {
            self.traffic.leave();
        }
    }
}

/// A call on its way. Dropping it lets the next one in.
pub struct Pass {
    entry: Arc<Entry>,
    policy: Arc<TrafficPolicy>,
    /// It has a place at the gate.
    inside: bool,
    /// It had to wait for that.
    waited: bool,
    /// It is the one by which the circuit is judged.
    tried: bool,
    /// What became of it is told.
    judged: bool,
    /// Where its answer goes.
    keep: Option<(Key, u64)>,
    /// Doing it twice is what doing it once is.
    safe: bool,
    tries: u32,
    /// How long its tool may stay silent, where the entry says.
    pub(crate) timeout: Option<Duration>,
}

impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pass").field("tries", &self.tries).finish_non_exhaustive()
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if !self.judged {
            self.judge(Verdict::Unknown);
        }
        if self.inside {
            self.entry.traffic.leave();
        }
    }
}

impl Pass {
    fn judge(&mut self, verdict: Verdict) {
        self.judged = true;
        if self.policy.breaker.is_some() {
            self.entry.traffic.ended(verdict, std::mem::take(&mut self.tried));
        }
    }

    /// The server's answer as its client may have it.
    ///
    /// # Errors
    /// What was handed in, or that the answer is too long.
    pub(crate) fn settle(
        mut self,
        answer: Result<Box<RawValue>, CallError>,
    ) -> Result<Box<RawValue>, CallError> {
        if !self.judged {
            self.judge(verdict(&answer));
        }
        let result = answer?;
        let traffic = &self.entry.traffic;
        let bytes = u64::try_from(result.get().len()).unwrap_or(u64::MAX);
        if self.policy.response_bytes_max.is_some_and(|max| bytes > max) {
            traffic.counts.denied(Reason::ResponseSize);
            return Err(CallError::TooLong { bytes });
        }
        if let (Some(keep), Some(policy)) = (self.keep, &self.policy.cache)
            && may_be_kept(&result)
        {
            let answer: Arc<RawValue> = Arc::from(result.clone());
            lock(&traffic.whole.kept).put(policy, keep, (answer, bytes), traffic.now_millis());
        }
        Ok(result)
    }

    /// The wait before a call that failed so is sent again; `None` when it is not.
    pub(crate) fn again(&mut self, error: &CallError) -> Option<Duration> {
        let retry = self.policy.retry?;
        let wait = next_try(&retry, self.tries, (reached(error)?, self.safe))?;
        let tried = self.tried;
        self.judge(Verdict::Failed);
        let traffic = &self.entry.traffic;
        if tried || (self.entry.is_one() && traffic.is_cut()) {
            return None;
        }
        self.judged = false;
        self.tries += 1;
        traffic.counts.retried();
        Some(Duration::from_millis(wait.0))
    }

    /// The instance that it was let in for.
    pub(crate) const fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    /// It goes to another instance, which has its own circuit; what became of it at the one before is told.
    pub(crate) fn goes_to(&mut self, entry: &Arc<Entry>, failed: bool) {
        if !Arc::ptr_eq(&self.entry, entry) {
            if !self.judged {
                self.judge(if failed { Verdict::Failed } else { Verdict::Unknown });
            }
            self.entry = Arc::clone(entry);
            self.judged = false;
        }
    }

    /// Whether it waited at the gate, and any instance may have it as far as the circuits go.
    pub(crate) const fn may_go_elsewhere(&self) -> bool {
        self.waited && !self.tried
    }

    /// Whether it may ever be sent again.
    pub(crate) fn has_tries(&self) -> bool {
        self.policy.retry.is_some()
    }

    /// Waits for a connection as often as the entry says: nothing was sent yet.
    async fn reach(&mut self) {
        let Some(retry) = self.policy.retry else { return };
        loop {
            match self.entry.anywhere(None, 0).await {
                Ok(_) | Err(Unavailable::Stopped(_)) => return,
                Err(Unavailable::Later(_) | Unavailable::Late(_) | Unavailable::Failing(..)) => {}
            }
            let Some(wait) = next_try(&retry, self.tries, (Reached::Nothing, self.safe)) else { return };
            self.tries += 1;
            self.entry.traffic.counts.retried();
            tokio::time::sleep(Duration::from_millis(wait.0)).await;
        }
    }
}

/// What an answer says of the server's health: errors of tools and of clients say that it lives.
fn verdict(answer: &Result<Box<RawValue>, CallError>) -> Verdict {
    match answer {
        Err(CallError::TimedOut { .. } | CallError::Closed(_) | CallError::Unsent(_)) => Verdict::Failed,
        Err(CallError::Rpc(error)) if build::way_of(error).is_some() => Verdict::Failed,
        Err(CallError::Cancelled | CallError::Busy | CallError::Params) => Verdict::Unknown,
        Ok(_) | Err(CallError::Rpc(_) | CallError::TooLong { .. } | CallError::List(_)) => Verdict::Answered,
    }
}

/// How far a call got that failed on the way; `None` when it did not, or when enough time was spent.
pub(crate) fn reached(error: &CallError) -> Option<Reached> {
    match error {
        CallError::Unsent(_) => Some(Reached::Nothing),
        CallError::Closed(_) => Some(Reached::Perhaps),
        CallError::Rpc(error) => build::way_of(error).map(|way| match way {
            build::Way::Unsent => Reached::Nothing,
            build::Way::Lost => Reached::Perhaps,
        }),
        CallError::TimedOut { .. }
        | CallError::Cancelled
        | CallError::Busy
        | CallError::TooLong { .. }
        | CallError::Params
        | CallError::List(_) => None,
    }
}

/// Whether a result is the answer, whole and good: neither a failure nor a question nor a promise.
fn may_be_kept(result: &RawValue) -> bool {
    let fails = member(result, "isError").is_some_and(|flag| flag.get() != "false");
    let kind = member(result, "resultType").and_then(text_of);
    !fails && kind.is_none_or(|kind| kind == "complete") && member(result, "task").is_none()
}

/// Whether a request is a call.
fn is_call(method: &str) -> bool {
    matches!(method, "tools/call" | "prompts/get" | "resources/read" | "completion/complete")
}

impl Entry {
    /// Whether a call may go, when it may.
    ///
    /// # Errors
    /// Why it may not.
    pub(crate) async fn admit(self: &Arc<Self>, wanted: &Wanted<'_>) -> Result<Admitted, Denied> {
        if !self.traffic.whole.on.load(Relaxed) || !is_call(wanted.method) {
            return Ok(Admitted::Go(None));
        }
        // Large, and rare: no other request carries it along.
        let admitted = Box::pin(self.looked_at(wanted)).await;
        admitted.inspect_err(|denied| self.traffic.counts.denied(denied.reason()))
    }

    async fn looked_at(self: &Arc<Self>, wanted: &Wanted<'_>) -> Result<Admitted, Denied> {
        let traffic = &self.traffic;
        let policy = Arc::clone(&lock(&traffic.whole.held).policy);
        Traffic::size(&policy, wanted)?;
        traffic.client_rate(&policy, wanted.who)?;
        let hints = self.hints(&policy, wanted).await;
        let keep = self.key(&policy, wanted, hints.as_ref());
        if let Some((key, _)) = &keep {
            let kept = lock(&traffic.whole.kept).get(key, traffic.now_millis());
            traffic.counts.looked_up(kept.is_some());
            if let Some(kept) = kept {
                return Ok(Admitted::Kept((*kept).to_owned()));
            }
        }
        let safe = hints.is_some_and(|(hints, _)| hints.reads || hints.repeats);
        let timeout = policy.timeout_of(wanted.tool).filter(|_| wanted.method == "tools/call");
        let (entry, tried) = self.circuit(&policy, wanted.shared)?;
        let mut pass = Box::new(Pass {
            entry,
            inside: false,
            waited: false,
            tried,
            judged: false,
            keep,
            safe: safe && wanted.shared,
            tries: 0,
            timeout: timeout.map(|span| Duration::from_millis(span.0)),
            policy,
        });
        traffic.rate(&pass.policy)?;
        (pass.inside, pass.waited) = traffic.gate(&pass.policy).await?;
        if wanted.shared {
            pass.reach().await;
        }
        Ok(Admitted::Go(Some(pass)))
    }

    /// The instance whose circuit lets a call pass, and whether as the one to try: this one, or else another.
    fn circuit(self: &Arc<Self>, policy: &TrafficPolicy, shared: bool) -> Result<(Arc<Self>, bool), Denied> {
        let denied = match self.traffic.circuit(policy) {
            Ok(tried) => return Ok((Arc::clone(self), tried)),
            Err(denied) => denied,
        };
        let mut others = if shared { self.by_load(self.bit()) } else { Vec::new() }.into_iter();
        let open = others.find_map(|other| other.traffic.circuit(policy).ok().map(|tried| (other, tried)));
        open.ok_or(denied)
    }

    /// What a tool says of itself, and all of it; looked up only where something follows from it.
    async fn hints(
        self: &Arc<Self>,
        policy: &TrafficPolicy,
        wanted: &Wanted<'_>,
    ) -> Option<(Hints, Arc<RawValue>)> {
        let matters = policy.cache.is_some() || policy.retry.is_some();
        if !matters || !wanted.shared || wanted.method != "tools/call" {
            return None;
        }
        let known = self.listed(Kind::Tools, LISTED_WITHIN).await?;
        let tool = &known.find(wanted.tool)?.raw;
        Some((combine::hints(tool), Arc::clone(tool)))
    }

    /// What the answer is kept under; `None` when it is not.
    fn key(
        &self,
        policy: &TrafficPolicy,
        wanted: &Wanted<'_>,
        hints: Option<&(Hints, Arc<RawValue>)>,
    ) -> Option<(Key, u64)> {
        let (hints, tool) = hints?;
        if !policy.cache.as_ref()?.admits(wanted.tool, *hints) {
            return None;
        }
        let live = self.slot.live()?;
        // What a client's own headers change, no key could say.
        if !self.slot.place()?.offer.forward_headers.is_empty() {
            return None;
        }
        let params = wanted.params?;
        if combine::has_more_than_a_call(params) {
            return None;
        }
        let arguments = match member(params, "arguments") {
            Some(arguments) => key::canonical(arguments)?,
            None => "{}".to_owned(),
        };
        // One instance's answer serves for all that were made from the same declaration.
        let (of, at) = if self.is_one() || live.spec.is_empty() {
            (live.generation.to_string(), live.key.as_str())
        } else {
            (String::new(), live.spec.as_str())
        };
        let parts = [&of, at, tool.get(), &arguments];
        Some((key::key(&parts), lock(&self.traffic.whole.kept).age()))
    }
}
