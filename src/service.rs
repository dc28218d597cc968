//! The loop: what wakes a pass, and who is told what it found.
//!
//! Timer, engine events, file changes and requests only wake it; none of them carries data into a
//! decision. Wake-ups are merged: the first one runs at once, later ones wait until a gap has
//! passed since the last pass began, and never longer than that.
//!
//! Must never name an adapter; must never hold a request's answer back because something else
//! failed.

mod pulse;
mod seen;
mod times;
mod wishes;

pub use pulse::Pulse;
pub use seen::{SeenByPass, TargetsRead};
pub use times::{look_again, next_pass, wait_after_failures};

use crate::execute::learn::ActionResult;
use crate::model::desired::Desired;
use crate::model::id::ServerId;
use crate::model::memory::{Intent, Lease, Memory, Pause, Scope};
use crate::model::observed::Seen;
use crate::model::policy::{Ending, Policy};
use crate::model::time::{Span, Timestamp};
use crate::plan::Plan;
use crate::plan::report::{ReasonKind, Report, Row, RowState};
use crate::reconcile::{Ended, Event, Pass, Reconciler};
use crate::world::{Clock, WorldError};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use wishes::{Asked, intend, is_over, set_pause, unkept};

/// Between the beginnings of two passes that events ask for.
const GAP: Span = Span::millis(100);
/// While other lanes run, the pass after the end of one waits for so many times what the last pass
/// took to look and decide: a hundred servers that end one by one are not looked at a hundred times.
const LOOKS_APART: u64 = 10;
/// Between two of the last passes that got nothing done.
const LAST_LOOK: Span = Span::millis(250);
/// Requests that may wait for the loop.
const REQUESTS_MAX: usize = 256;
/// Codes of waits that only end with another try after a failure.
pub const FAILURE_CODES: [&str; 8] =
    ["MCPO-P012", "MCPO-P040", "MCPO-P042", "MCPO-P043", "MCPO-P044", "MCPO-P045", "MCPO-P050", "MCPO-P051"];

/// What the files and settings want, in one value that changes as a whole.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The servers.
    pub desired: Arc<Desired>,
    /// The settings.
    pub policy: Policy,
    /// Counts accepted versions of the files.
    pub generation: u64,
    /// Between passes when nothing else happens.
    pub interval: Span,
}

/// What the last pass found, for everybody who looks.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Number of the pass, from 1; 0 before the first.
    pub pass: u64,
    /// When it began.
    pub began: Timestamp,
    /// When the next one is due without any event.
    pub next_pass: Timestamp,
    /// Version of the files it used.
    pub generation: u64,
    /// Why, for every server.
    pub report: Report,
    /// Effects it decided on.
    pub actions: usize,
    /// Servers whose actions still run.
    pub busy: BTreeSet<ServerId>,
    /// Nothing moves, and nothing will by itself but tries after failures.
    pub settled: bool,
    /// Broken invariants, and what could not be kept: faults of this program or its disk.
    pub faults: Vec<String>,
    /// The port ledger.
    pub leases: BTreeMap<ServerId, Lease>,
    /// What people asked for by hand.
    pub intents: BTreeMap<ServerId, Intent>,
    /// What people want left alone.
    pub pauses: BTreeMap<Scope, Pause>,
    /// Restarts of containers within the minute before, that nobody asked for.
    #[serde(skip)]
    pub unwanted: Vec<Timestamp>,
    /// The same of containers and local processes together.
    #[serde(skip)]
    pub restarts: usize,
    /// What the pass decided on, and the load balancer it saw; `None` before the first.
    #[serde(skip)]
    pub seen: Option<Arc<SeenByPass>>,
}

impl Snapshot {
    /// Whether this pass has finished with a server: nothing of it runs, and nothing more happens
    /// by itself but tries after failures.
    #[must_use]
    pub fn finished_with(&self, server: &ServerId) -> bool {
        let of = |id: &ServerId| id == server || id.server() == *server;
        let rest = match self.report.servers.get(server) {
            Some(row) => row.each(server).all(|(_, row)| at_rest(row)),
            None => self.report.instance(server).is_none_or(at_rest),
        };
        rest && !self.busy.iter().any(of)
    }

    /// Whether everything is as the file wants it.
    #[must_use]
    pub fn well(&self) -> bool {
        let fine =
            |state: RowState| matches!(state, RowState::Converged | RowState::Stopped | RowState::Asleep);
        self.settled
            && self.faults.is_empty()
            && self.report.engine_known
            && !self.report.general.iter().any(|reason| reason.kind == ReasonKind::BlockedBy)
            && self.report.servers.values().all(|row| fine(row.state))
    }
}

/// What to do with servers by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Run, whatever the file's `disabled` says.
    Start,
    /// Stop and keep stopped.
    Stop,
    /// Stop and start once.
    Restart,
}

/// Asked of the loop; answered with the number of the first pass that takes it into account.
#[derive(Debug)]
pub enum Request {
    /// A pass, soon.
    Sync {
        /// Removals that the guard would hold back are allowed until all is settled.
        allow_mass_delete: bool,
        /// The pass to wait for.
        reply: oneshot::Sender<u64>,
    },
    /// An intent.
    Act {
        /// For these; empty: all.
        servers: Vec<ServerId>,
        /// What.
        act: Act,
        /// Who asks.
        by: String,
        /// Until when it holds.
        until: Option<Timestamp>,
        /// The pass to wait for, or why not.
        reply: oneshot::Sender<Result<u64, String>>,
    },
    /// Servers are to be left alone, or not any more.
    Pause {
        /// What for.
        scopes: Vec<Scope>,
        /// The pause; `None` takes it back.
        pause: Option<Pause>,
        /// The pass to wait for, or why not.
        reply: oneshot::Sender<Result<u64, String>>,
    },
    /// This host is to be taken out of the load balancer, or brought back.
    Drain {
        /// Who wants that, and until when; `None` brings it back.
        drain: Option<Pause>,
        /// The pass to wait for, or why not.
        reply: oneshot::Sender<Result<u64, String>>,
    },
    /// A plan for looking at.
    Plan {
        /// For these servers instead of those in force.
        desired: Option<Arc<Desired>>,
        /// Under this policy instead of the one in force.
        policy: Option<Box<Policy>>,
        /// With removals that the guard would hold back.
        allow_mass_delete: bool,
        /// The plan and its time.
        reply: oneshot::Sender<Box<(Plan, Timestamp)>>,
    },
}

/// How the rest of the process talks to the loop.
#[derive(Clone, Debug)]
pub struct Handle {
    /// What the last pass found.
    pub snapshot: watch::Receiver<Arc<Snapshot>>,
    /// Requests.
    pub requests: mpsc::Sender<Request>,
    /// Whether the loop moves.
    pub pulse: Arc<Pulse>,
    wake: Arc<Notify>,
}

impl Handle {
    /// Wakes the loop; carries nothing.
    pub fn wake(&self) {
        self.wake.notify_one();
    }
}

/// Called after every pass and every lane: logs, watchdog, status line.
pub trait Observer: Send {
    /// A pass was decided.
    fn passed(&mut self, pass: &Pass, snapshot: &Snapshot);
    /// A lane of actions ended.
    fn ended(&mut self, ended: &Ended);
}

/// The loop.
pub struct Service<O> {
    reconciler: Reconciler,
    clock: Arc<dyn Clock>,
    wishes: watch::Receiver<Arc<Wish>>,
    requests: mpsc::Receiver<Request>,
    wake: Arc<Notify>,
    publish: watch::Sender<Arc<Snapshot>>,
    observer: O,
    pulse: Arc<Pulse>,
    passes: u64,
    allow_mass_delete: bool,
    /// Lanes in a row in which something failed and nothing was done.
    failing: u32,
    /// Since when the engine or the load balancer cannot be read.
    away_since: Option<Timestamp>,
    /// What the last pass took to look and decide.
    looked: Span,
}

/// Whether a lane did nothing but fail.
#[must_use]
pub fn only_failed(ended: &Ended) -> bool {
    ended.results.iter().all(|(_, result)| *result != ActionResult::Done)
}

impl<O> std::fmt::Debug for Service<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("passes", &self.passes).finish_non_exhaustive()
    }
}

impl<O: Observer> Service<O> {
    /// A loop over `reconciler`, and the handle to talk to it.
    pub fn new(
        mut reconciler: Reconciler,
        clock: Arc<dyn Clock>,
        wishes: watch::Receiver<Arc<Wish>>,
        observer: O,
    ) -> (Self, Handle) {
        reconciler.be_brief();
        let (publish, snapshot) = watch::channel(Arc::new(Snapshot::default()));
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        let wake = Arc::new(Notify::new());
        let pulse = Arc::new(Pulse::new(reconciler.steps()));
        let handle =
            Handle { snapshot, requests: sender, pulse: Arc::clone(&pulse), wake: Arc::clone(&wake) };
        let service = Self {
            reconciler,
            clock,
            wishes,
            requests,
            wake,
            publish,
            observer,
            pulse,
            passes: 0,
            allow_mass_delete: false,
            failing: 0,
            away_since: None,
            looked: Span::ZERO,
        };
        (service, handle)
    }

    /// Runs until `stop` resolves; actions under way are finished within `grace`. What it gives back
    /// can still [`Self::wind_down`].
    pub async fn run(mut self, stop: impl Future<Output = ()> + Send, grace: Duration) -> Self {
        let mut stop = std::pin::pin!(stop);
        let mut due = true;
        // Asked for, but not before a gap has passed; lanes go on meanwhile.
        let mut soon: Option<Timestamp> = None;
        loop {
            if due {
                soon = None;
                tokio::select! {
                    biased;
                    // Until its actions begin, a pass can be given up: it has only looked.
                    () = &mut stop => break,
                    () = self.pass() => {}
                }
            }
            let wait = soon.map_or_else(|| self.wait(), |at| at.since(self.clock.now()).min(self.wait()));
            let busy = self.reconciler.is_busy() || self.reconciler.awaits_balancer();
            self.pulse.turn(true);
            due = tokio::select! {
                biased;
                () = &mut stop => break,
                // Before requests, of which more may be waiting each time. Saving what was learned must not be
                // given up because one comes in.
                Some(event) = self.reconciler.event(), if busy => {
                    self.pulse.turn(false);
                    let next = self.go_on(event).await;
                    // A wake-up that came before may be for a death: it keeps its time.
                    soon = soon.into_iter().chain(next).min();
                    false
                }
                Some(request) = self.requests.recv() => {
                    self.pulse.turn(false);
                    self.take(request).await
                }
                // A sender that is gone switches this off instead of spinning.
                Ok(()) = self.wishes.changed() => true,
                () = self.wake.notified() => {
                    soon = Some(self.gap());
                    false
                }
                () = self.pulse.asked() => false,
                () = self.clock.sleep(wait) => true,
            };
        }
        self.pulse.turn(false);
        let finish = async {
            while let Some(ended) = self.reconciler.ended().await {
                self.observer.ended(&ended);
            }
        };
        // What does not end in time is found and finished by the next start.
        let _late = tokio::time::timeout(grace, finish).await;
        self
    }

    /// The last passes, within `within`: leaves the load balancer or stops what runs. Whether that is
    /// done; it is not when the world does not answer.
    pub async fn wind_down(&mut self, ending: Ending, within: Duration) -> bool {
        let work = async {
            loop {
                let Some(pass) = self.decide(ending).await else { return false };
                let mut did = false;
                while let Some(ended) = self.reconciler.ended().await {
                    did |= !only_failed(&ended);
                    self.observer.ended(&ended);
                }
                if over(&pass, ending, self.clock.now()) {
                    return true;
                }
                if !did {
                    self.clock.sleep(LAST_LOOK).await;
                }
            }
        };
        tokio::time::timeout(within, work).await.unwrap_or(false)
    }

    /// Takes what the loop goes on with; when to look because of it.
    async fn go_on(&mut self, event: Event) -> Option<Timestamp> {
        let Event::LaneEnd(end) = event else { return Some(self.gap()) };
        let ended = self.reconciler.learn_from(end).await;
        self.observer.ended(&ended);
        self.failing = if only_failed(&ended) { self.failing.saturating_add(1) } else { 0 };
        (self.failing == 0).then(|| self.gap_after_lane())
    }

    /// Time until the next pass is due by itself.
    fn wait(&self) -> Span {
        let now = self.clock.now();
        let snapshot = self.publish.borrow();
        let again = snapshot.began.after(wait_after_failures(self.failing));
        let next = if self.failing > 0 { again.min(snapshot.next_pass) } else { snapshot.next_pass };
        next.since(now)
    }

    /// When the minimum gap is over.
    fn gap(&self) -> Timestamp {
        self.publish.borrow().began.after(GAP)
    }

    /// When to look after the end of a lane.
    fn gap_after_lane(&self) -> Timestamp {
        if !self.reconciler.is_busy() {
            return self.gap();
        }
        let most = Span::secs(1);
        self.publish.borrow().began.after(self.looked.times_capped(LOOKS_APART, most).max(GAP))
    }

    async fn pass(&mut self) {
        let _pass = self.decide(Ending::None).await;
    }

    /// One pass; `None` when the engine, or the load balancer to be left, could not be read.
    async fn decide(&mut self, ending: Ending) -> Option<Pass> {
        self.pulse.turn(false);
        let wish = Arc::clone(&self.wishes.borrow_and_update());
        let mut policy = wish.policy.clone();
        policy.allow_mass_delete |= self.allow_mass_delete;
        policy.ending = ending;
        policy.balancer.leaving = ending == Ending::Leave;
        self.passes += 1;
        let pass = self.reconciler.pass(&wish.desired, &policy).await;
        self.looked = pass.decided.since(pass.began);
        let away =
            matches!(pass.observed.containers, Seen::Unknown(_)) || pass.observed.balancer.is_unknown();
        self.away_since = away.then(|| self.away_since.unwrap_or(pass.began));
        let snapshot = self.snapshot(&pass, &wish);
        if snapshot.settled {
            self.allow_mass_delete = false;
        }
        self.observer.passed(&pass, &snapshot);
        self.publish.send_replace(Arc::new(snapshot));
        let blind = away && !(ending == Ending::Stop && pass.observed.containers.known().is_some());
        (!blind && pass.broken.is_empty()).then_some(pass)
    }

    fn snapshot(&mut self, pass: &Pass, wish: &Wish) -> Snapshot {
        let Memory { leases, intents, pauses, unwanted, .. } = self.reconciler.memory().clone();
        let restarts = unwanted.len() + pass.observed.restarts.len();
        let timer = next_pass(&pass.plan, pass.began, wish.interval);
        let next_pass = timer.min(look_again(self.away_since, pass.began, wish.interval));
        let mut faults: Vec<String> = pass.broken.iter().map(ToString::to_string).collect();
        let unsaved = |why: &String| format!("state cannot be saved: {why} [MCPO-S002]");
        faults.extend(pass.unsaved.iter().map(unsaved));
        Snapshot {
            pass: self.passes,
            began: pass.began,
            next_pass,
            generation: wish.generation,
            report: pass.plan.report.clone(),
            actions: pass.plan.actions.len(),
            busy: pass.observed.busy.clone(),
            settled: settled(&pass.plan, pass.observed.busy.is_empty()) && !self.reconciler.awaits_balancer(),
            faults,
            leases,
            intents,
            pauses,
            unwanted,
            restarts,
            seen: Some(Arc::new(SeenByPass::of(pass, self.publish.borrow().seen.as_deref()))),
        }
    }

    /// Takes a request; true when a pass is due because of it.
    async fn take(&mut self, request: Request) -> bool {
        match request {
            Request::Sync { allow_mass_delete, reply } => {
                self.allow_mass_delete |= allow_mass_delete;
                let _gone = reply.send(self.passes + 1);
                true
            }
            Request::Act { servers, act, by, until, reply } => {
                let kept = self.act(&servers, act, &by, until).await;
                let answer = kept.map(|()| self.passes + 1);
                let due = answer.is_ok();
                let _gone = reply.send(answer);
                due
            }
            Request::Pause { scopes, pause, reply } => {
                let kept = self.reconciler.remember(|memory| set_pause(memory, scopes, pause)).await;
                let answer = kept.map(|()| self.passes + 1).map_err(|error| unkept(&error));
                let due = answer.is_ok();
                let _gone = reply.send(answer);
                due
            }
            Request::Drain { drain, reply } => {
                let kept = self.reconciler.remember(|memory| memory.drain = drain).await;
                let answer = kept.map(|()| self.passes + 1).map_err(|error| unkept(&error));
                let due = answer.is_ok();
                let _gone = reply.send(answer);
                due
            }
            Request::Plan { desired, policy, allow_mass_delete, reply } => {
                let wish = Arc::clone(&self.wishes.borrow());
                let desired = desired.as_ref().unwrap_or(&wish.desired);
                let mut policy = policy.map_or_else(|| wish.policy.clone(), |policy| *policy);
                policy.allow_mass_delete |= allow_mass_delete;
                let (plan, _, _) = self.reconciler.preview(desired, &policy).await;
                let _gone = reply.send(Box::new((plan, self.clock.now())));
                false
            }
        }
    }

    async fn act(
        &mut self,
        servers: &[ServerId],
        act: Act,
        by: &str,
        until: Option<Timestamp>,
    ) -> Result<(), String> {
        let wish = Arc::clone(&self.wishes.borrow());
        let all: Vec<ServerId> = wish.desired.servers.keys().cloned().collect();
        let all_instances = wish.desired.instances();
        let unknown: Vec<String> = servers
            .iter()
            .filter(|id| !all_instances.servers.contains_key(id))
            .map(ToString::to_string)
            .collect();
        if !unknown.is_empty() {
            return Err(format!("no server is called {}", unknown.join(", ")));
        }
        let further = servers.iter().find(|id| id.replica_number() > 1);
        if let Some(id) = further.filter(|_| act != Act::Restart) {
            let all = id.server();
            return Err(format!(
                "{id} is one instance of {all}: {all} is started and stopped as a whole, an instance can only be restarted"
            ));
        }
        if let Some(id) = further
            .filter(|id| self.reconciler.memory().intents.get(&id.server()).is_some_and(|intent| !intent.run))
        {
            return Err(format!("{id} is stopped with {}: start that first", id.server()));
        }
        let chosen = if servers.is_empty() { all } else { servers.to_vec() };
        let now = self.clock.now();
        let desired = Arc::clone(&wish.desired);
        let rows = Arc::clone(&self.publish.borrow());
        let over = |id: &ServerId| rows.report.instance(id).is_some_and(is_over);
        // A start of everything is one of the whole host.
        let undrains = act == Act::Start && servers.is_empty();
        let wished = |memory: &mut Memory| {
            memory.drain = memory.drain.take().filter(|_| !undrains);
            intend(memory, &desired, &chosen, act, &Asked { by, now, until, over });
        };
        let kept: Result<(), WorldError> = self.reconciler.remember(wished).await;
        kept.map_err(|error| unkept(&error))
    }
}

/// Whether a pass found nothing left to do before the end.
fn over(pass: &Pass, ending: Ending, now: Timestamp) -> bool {
    let balancer = &pass.plan.memory.balancer;
    pass.plan.is_empty()
        && pass.observed.busy.is_empty()
        && match ending {
            Ending::None => true,
            Ending::Leave => {
                pass.plan.read_next.is_empty()
                    && balancer.registered.values().all(Vec::is_empty)
                    && balancer.draining.values().all(|until| *until <= now)
            }
            Ending::Stop => pass.plan.report.in_flight == 0,
        }
}

/// Nothing to do, nothing running, nothing waiting that ends by itself but tries after failures.
#[must_use]
pub fn settled(plan: &Plan, idle: bool) -> bool {
    let still = plan.report.each().all(|(_, row)| at_rest(row));
    idle && plan.actions.is_empty() && plan.read_next.is_empty() && plan.report.in_flight == 0 && still
}

/// Whether nothing more happens to a server by itself but tries after failures.
fn at_rest(row: &Row) -> bool {
    let failed = |code: Option<&'static str>| code.is_some_and(|code| FAILURE_CODES.contains(&code));
    match row.state {
        RowState::Converged | RowState::Stopped | RowState::Asleep | RowState::Blocked => true,
        RowState::Changing => false,
        RowState::Waiting => {
            row.reasons.iter().any(|reason| reason.kind != ReasonKind::Note && failed(reason.code))
        }
    }
}

#[cfg(test)]
mod tests;
