//! Runs the loop in the fake world: what `simulate --seed N` prints and what the property test
//! repeats ten thousand times.
//!
//! The same reconciler, planner and checks as in production; only the world is another. Must never
//! look at anything but the seed.

use crate::execute::{Limits, Teller};
use crate::model::balancer::{BalancerSeen, TargetState};
use crate::model::desired::Desired;
use crate::model::health::{Condition, State};
use crate::model::id::{ContainerId, IdError, ServerId};
use crate::model::mark::Role;
use crate::model::memory::{Intent, Memory, Pause, Scope};
use crate::model::observed::{Container, ContainerState, Seen};
use crate::model::op::{EdgeOp, EngineOp, Op};
use crate::model::policy::Policy;
use crate::model::time::{Span, Timestamp};
use crate::plan::action::Action;
use crate::plan::recovery::TRIES_MAX;
use crate::plan::report::RowState;
use crate::reconcile::{Pass, Reconciler};
use crate::service::{next_pass, only_failed, settled, wait_after_failures};
use crate::world::fake::{FakeWorld, TARGET_ID, block_on, generate};
use crate::world::{Balancer, Edges, World};
use std::fmt::Write as _;
use std::sync::Arc;

/// Passes after the faults within which the world must be quiet.
pub const PASSES_MAX: usize = 400;
/// Passes after the faults after which a try that fails again counts as what it will always do.
const PATIENCE: usize = 120;
/// Longest wait between two passes, as the timer has it.
const INTERVAL: Span = Span::secs(60);
/// Shortest.
const SOON: Span = Span::millis(100);
/// Quiet passes in a row that count as rest.
const REST: usize = 3;
/// Starts at once.
const PARALLEL: usize = 4;

/// What a run showed.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// What is wrong; empty for a good run.
    pub faults: Vec<String>,
    /// Passes until rest.
    pub passes: usize,
    /// What happened, for people; only made when asked for.
    pub transcript: String,
}

/// Runs one seed.
///
/// # Errors
/// Never in practice: the names that a scenario makes are valid.
pub fn run(seed: u64, with_transcript: bool) -> Result<Run, IdError> {
    let scenario = generate(seed)?;
    let fake = scenario.world();
    let mut run = Run::default();
    let mut driver =
        Driver { fake: Arc::clone(&fake), reconciler: reconciler(&fake, Memory::default()), failing: 0 };
    while crate::world::Clock::now(fake.as_ref()) < scenario.until && run.faults.is_empty() {
        driver.pass(&mut run);
        fake.between_passes();
    }
    fake.calm();
    driver.come_to_rest(&mut run);
    if with_transcript {
        run.transcript = transcript(&scenario.to_string(), &fake, &run);
    }
    Ok(run)
}

fn transcript(head: &str, fake: &FakeWorld, run: &Run) -> String {
    let mut out = head.to_owned();
    for effect in fake.effects() {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{effect}");
    }
    for fault in &run.faults {
        let _ = writeln!(out, "FAULT {fault}");
    }
    let _ = writeln!(out, "{} passes after the faults, {} faults", run.passes, run.faults.len());
    out
}

fn reconciler(fake: &Arc<FakeWorld>, memory: Memory) -> Reconciler {
    let balancer: Result<Arc<dyn Balancer>, String> = if fake.uses_balancer() {
        Ok(Arc::clone(fake) as Arc<dyn Balancer>)
    } else {
        Err("no listener configured".to_owned())
    };
    let world = World {
        engine: Arc::clone(fake) as Arc<dyn crate::world::Engine>,
        balancer,
        host: Arc::clone(fake) as Arc<dyn crate::world::Host>,
        edges: Some(Arc::clone(fake) as Arc<dyn Edges>),
        store: Arc::clone(fake) as Arc<dyn crate::world::Store>,
        clock: Arc::clone(fake) as Arc<dyn crate::world::Clock>,
    };
    let silent: Teller = Arc::new(|_action, _step| {});
    Reconciler::new(world, Limits::new(PARALLEL), silent, memory)
}

/// D2: whether a server is up that is not used, and falls asleep in its time.
fn is_to_sleep(pass: &Pass, desired: &Desired) -> bool {
    let desired = desired.instances();
    desired.servers.values().filter(|server| server.idle_timeout.is_some()).any(|server| {
        let used = pass.observed.uses.get(&server.id).is_none_or(|used| used.busy);
        let row = pass.plan.report.instance(&server.id).filter(|row| !row.paused).map(|row| row.state);
        let up = match row {
            Some(RowState::Converged) => true,
            Some(RowState::Blocked) => runs(pass, &server.id),
            _ => false,
        };
        up && !used
    })
}

/// Its own container runs.
fn runs(pass: &Pass, id: &ServerId) -> bool {
    let own = |one: &&Container| {
        one.mark.as_ref().is_some_and(|mark| {
            mark.server.as_ref() == Some(id) && matches!(mark.role, Some(Role::Server | Role::Replica))
        })
    };
    let mut containers = pass.observed.containers.known().into_iter().flatten().filter(own);
    containers.any(|one| matches!(one.state, ContainerState::Running(_)))
}

/// Whether a target of ours still drains.
fn drains(seen: &BalancerSeen) -> bool {
    let BalancerSeen::On(Seen::Known(view)) = seen else { return false };
    let targets = view.target_groups.iter().filter_map(|group| group.targets.known()).flatten();
    targets.into_iter().any(|target| target.id == TARGET_ID && target.state == TargetState::Draining)
}

/// What must hold of everything that is done for the sake of health:
///
/// - H1: nothing is restarted whose last verdict is that it serves, or is old
/// - H2: in no minute are there more restarts than allowed
/// - H3: no server is tried more often than allowed
/// - H4: a new container has the image of the old one
/// - H5: nothing of a paused server is touched, but its targets go while the host is drained
/// - H7: nothing is started, or again, while a section it depends on is down and it has not waited enough
///
/// That everything is well in bounded time once faults stop (H6) is part of coming to rest.
fn recovery(pass: &Pass, desired: &Desired, policy: &Policy, memory: &Memory) -> Vec<String> {
    let desired = desired.instances();
    let mut out = Vec::new();
    if memory.unwanted.len() > policy.restarts_per_minute_max {
        out.push(format!("H2: {} restarts within a minute", memory.unwanted.len()));
    }
    for (id, recovery) in memory.recoveries.iter().filter(|(_, recovery)| recovery.tries > TRIES_MAX) {
        out.push(format!("H3: {id} was tried {} times", recovery.tries));
    }
    for action in &pass.plan.actions {
        let Some(server) = action.server.as_ref().and_then(|id| desired.servers.get(id)) else { continue };
        let did = || format!("{} because {}", action.op.describe(), action.why);
        let stops = matches!(action.op, Op::Engine(EngineOp::Stop(_)) | Op::Edge(EdgeOp::Restart { .. }));
        if stops && action.why.starts_with("it does not answer") {
            let seen = pass.observed.health.get(&server.id);
            let ill = |seen: &Condition| {
                !seen.health.state.serves() && !seen.health.is_stale(pass.began, &server.health)
            };
            if !seen.is_some_and(ill) {
                out.push(format!("H1: {} {seen:?}", did()));
            }
        }
        let anew = memory.recoveries.get(&server.id).and_then(|recovery| recovery.anew.as_ref());
        if let (Op::Engine(EngineOp::Create(create)), Some(old)) = (&action.op, anew) {
            let containers = pass.observed.containers.known().into_iter().flatten();
            let same = containers.filter(|one| one.id == *old).all(|one| one.image == create.image);
            if !same {
                out.push(format!("H4: {} from {}", did(), create.image));
            }
        }
        if starts_early(pass, action, policy, memory.waits.get(&server.id).copied()) {
            out.push(format!("H7: {}", did()));
        }
        let host = memory.pauses.contains_key(&Scope::Host);
        let paused = host || memory.pauses.contains_key(&Scope::Server(server.id.server()));
        let leg = action.op.container().is_some_and(|id| is_leg(pass, id));
        let leaves = pass.plan.report.drained.is_some() && matches!(action.op, Op::Balancer(_));
        if paused && !leg && !leaves && !matches!(action.op, Op::Edge(_)) {
            out.push(format!("H5: {}", did()));
        }
    }
    out
}

/// A start by itself of a server that waits for a section since this time.
fn starts_early(pass: &Pass, action: &Action, policy: &Policy, waits: Option<Timestamp>) -> bool {
    let by_itself = ["it has no container", "it ended", "it was killed", "made but never started"];
    let starts = matches!(action.op, Op::Engine(EngineOp::Start(_)));
    let own = by_itself.iter().any(|why| action.why.starts_with(why));
    starts && own && waits.is_some_and(|since| pass.decided < since.after(policy.dependency_wait))
}

/// What must hold of servers that sleep:
///
/// - D1: nothing is stopped for want of use that has no time for that, or is used
///
/// That they sleep in the end when nobody uses them (D2), and that no call waits for ever (D3), is part
/// of coming to rest.
fn demand(pass: &Pass, desired: &Desired) -> Vec<String> {
    let desired = desired.instances();
    let mut out = Vec::new();
    for action in pass.plan.actions.iter().filter(|action| action.why.starts_with("stopped: idle")) {
        let server = action.server.as_ref().and_then(|id| desired.servers.get(id));
        let used = server.and_then(|server| pass.observed.uses.get(&server.id));
        let may = server.is_some_and(|server| server.idle_timeout.is_some());
        if !may || used.is_none_or(|used| used.busy || used.waiting > 0) {
            out.push(format!("D1: {} because {}", action.op.describe(), action.why));
        }
    }
    out
}

fn is_leg(pass: &Pass, id: &ContainerId) -> bool {
    let mut all = pass.observed.containers.known().into_iter().flatten();
    let found = all.find(|one| one.id == *id);
    found.and_then(|one| one.mark.as_ref()).is_some_and(|mark| mark.role == Some(Role::Leg))
}

struct Driver {
    fake: Arc<FakeWorld>,
    reconciler: Reconciler,
    failing: u32,
}

/// What a pass looked like from outside.
struct Look {
    rest: bool,
    wait: Span,
    still: Vec<String>,
}

impl Driver {
    fn pass(&mut self, run: &mut Run) -> Look {
        let (desired, policy) = (self.fake.desired(), self.fake.policy());
        let began = crate::world::Clock::now(self.fake.as_ref());
        let (intents, pauses) = (self.fake.take_intents(), self.fake.take_pauses());
        let drain = self.fake.take_drain();
        let look = block_on(async {
            self.intend(intents, pauses, drain).await;
            let pass = self.reconciler.pass(&desired, &policy).await;
            let mut ends = Vec::new();
            while let Some(ended) = self.reconciler.ended().await {
                ends.push(only_failed(&ended));
            }
            (pass, ends)
        });
        let Some((pass, ends)) = look else {
            run.faults.push("a future of the fake world waits".to_owned());
            return Look { rest: true, wait: SOON, still: Vec::new() };
        };
        if !self.fake.crashed() {
            run.faults.extend(pass.broken.iter().map(ToString::to_string));
            run.faults.extend(demand(&pass, &desired));
            run.faults.extend(recovery(&pass, &desired, &policy, self.reconciler.memory()));
        }
        run.faults.extend(self.fake.check());
        if !pass.plan.questions.is_empty() && !self.fake.crashed() && pass.plan.report.engine_known {
            run.faults.push(format!("questions stay open: {:?}", pass.plan.questions));
        }
        if self.fake.crashed() {
            self.reconciler = reconciler(&self.fake, self.fake.restart());
            return Look { rest: false, wait: SOON, still: Vec::new() };
        }
        // What a fault made fail is tried again: that is still to come.
        let tried_again =
            ["MCPO-P061", "MCPO-P040", "MCPO-P042", "MCPO-P044", "MCPO-P045", "MCPO-P051", "MCPO-P012"];
        let again = |code: Option<&str>| {
            code.is_some_and(|code| tried_again.contains(&code)) && run.passes < PATIENCE
        };
        let pending =
            pass.plan.report.each().any(|(_, row)| row.reasons.iter().any(|reason| again(reason.code)));
        // H6: the verdict on every server that can answer is on its way.
        let ill = pass.observed.health.values().any(|seen| seen.health.state == State::Unhealthy);
        let rest = settled(&pass.plan, true)
            && !pending
            && !ill
            && !is_to_sleep(&pass, &desired)
            && !drains(&pass.observed.balancer);
        self.failing =
            if ends.contains(&true) && !ends.contains(&false) { self.failing.saturating_add(1) } else { 0 };
        let wait = if pass.plan.is_empty() {
            next_pass(&pass.plan, began, INTERVAL).since(began)
        } else {
            SOON.max(wait_after_failures(self.failing))
        };
        let rows = pass.plan.report.each().filter(|(_, row)| {
            !matches!(row.state, RowState::Converged | RowState::Stopped | RowState::Asleep)
        });
        let mut still: Vec<String> =
            rows.map(|(id, row)| format!("{id} {} {:?}", row.state.as_str(), row.reasons.first())).collect();
        still.extend(
            pass.plan.actions.iter().map(|action| format!("{} because {}", action.op.describe(), action.why)),
        );
        still.extend(pass.plan.read_next.iter().map(|id| format!("targets of {id} are to be read")));
        if pass.plan.report.in_flight > 0 {
            let who: Vec<&str> = pass.observed.busy.iter().map(ServerId::as_str).collect();
            still.push(format!("{} in flight ({})", pass.plan.report.in_flight, who.join(" ")));
        }
        Look { rest, wait, still }
    }

    async fn intend(
        &mut self,
        intents: Vec<(ServerId, Intent)>,
        pauses: Vec<(Scope, Pause)>,
        drain: Option<Pause>,
    ) {
        if intents.is_empty() && pauses.is_empty() && drain.is_none() {
            return;
        }
        let wished = |memory: &mut Memory| {
            memory.intents.extend(intents);
            memory.pauses.extend(pauses);
            memory.drain = drain.or(memory.drain.take());
        };
        // A store that fails is part of the script; the wish holds in memory.
        let _unsaved = self.reconciler.remember(wished).await;
    }

    /// Faults are over: a bounded number of passes leads to rest, and rest is what was wanted.
    fn come_to_rest(&mut self, run: &mut Run) {
        // What waits for its time to be removed is quiet, and no server's row speaks of it.
        let grace = self.fake.policy().balancer.gc_grace;
        let (mut quiet, mut quiet_since, mut quiet_for) =
            (0, crate::world::Clock::now(self.fake.as_ref()), Span::ZERO);
        let mut last = Vec::new();
        while (quiet < REST || quiet_for < grace) && run.faults.is_empty() {
            if run.passes == PASSES_MAX {
                run.faults.push(format!("no rest after {PASSES_MAX} passes: {}", last.join("; ")));
                return;
            }
            run.passes += 1;
            let before = self.fake.changes();
            let look = self.pass(run);
            let still = self.fake.changes() == before;
            let at = crate::world::Clock::now(self.fake.as_ref());
            if look.rest && still {
                quiet += 1;
                quiet_for = at.since(quiet_since);
            } else {
                (quiet, quiet_since, quiet_for) = (0, at, Span::ZERO);
            }
            last = look.still;
            self.fake.advance(look.wait);
        }
        let desired = self.fake.desired();
        run.faults.extend(self.fake.leaks(&desired));
        run.faults.extend(self.fake.unmet(&desired));
        if !run.faults.is_empty() {
            run.faults.extend(last);
        }
    }
}
