//! All that the fake world is, behind one lock, and the one door through which the program under
//! test reaches it.
//!
//! Invariant: every call passes [`State::call`], so that none escapes time, faults, the crash of
//! the program and the log.

use crate::model::desired::Desired;
use crate::model::id::ServerId;
use crate::model::memory::{Intent, Memory, Pause, Scope};
use crate::model::policy::Policy;
use crate::model::time::{Span, Timestamp};
use crate::world::fake::balancer::BalancerState;
use crate::world::fake::effect::{By, EFFECTS_MAX, Effect, LOST, START};
use crate::world::fake::engine::EngineState;
use crate::world::fake::events::Event;
use crate::world::fake::faults::{FaultPlan, Gate, Side};
use crate::world::fake::health::HealthState;
use crate::world::fake::host::HostState;
use crate::world::fake::rng::Rng;
use crate::world::{ErrorKind, WorldError};
use std::collections::VecDeque;
use std::sync::Arc;

/// Cause of the error that calls get once the program under test was killed; see
/// [`crate::world::fake::FakeWorld::crashed`].
pub const CRASHED: &str = "the daemon was killed here";
/// How long a call takes that nobody answers.
const TIME_OUT: Span = Span::secs(10);
/// Longest duration of a call that only reads, in milliseconds.
const READ_MILLIS_MAX: u64 = 10;
/// Longest duration of a call that changes something, in milliseconds.
const EFFECT_MILLIS_MAX: u64 = 200;

/// A refusal of the world: kind and own words.
#[derive(Debug)]
pub(crate) struct No(pub(crate) ErrorKind, pub(crate) String);

impl No {
    pub(crate) fn new<T>(kind: ErrorKind, cause: impl Into<String>) -> Result<T, Self> {
        Err(Self(kind, cause.into()))
    }
}

/// What is asked of whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) side: Side,
    /// What is done, for logs and errors.
    pub(crate) kind: &'static str,
    /// To which thing.
    pub(crate) target: &'a str,
    /// It changes something.
    pub(crate) effect: bool,
}

impl<'a> Call<'a> {
    pub(crate) const fn read(side: Side, kind: &'static str, target: &'a str) -> Self {
        Self { side, kind, target, effect: false }
    }

    pub(crate) const fn effect(side: Side, kind: &'static str, target: &'a str) -> Self {
        Self { side, kind, target, effect: true }
    }
}

/// The world.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) now: Timestamp,
    /// Decides on faults and durations.
    pub(crate) rng: Rng,
    /// Makes ids, so that they do not depend on the faults.
    pub(crate) ids: Rng,
    pub(crate) policy: Policy,
    /// What the files say now.
    pub(crate) desired: Arc<Desired>,
    pub(crate) engine: EngineState,
    pub(crate) balancer: BalancerState,
    pub(crate) host: HostState,
    pub(crate) health: HealthState,
    /// What the store keeps.
    pub(crate) saved: Memory,
    pub(crate) crashed: bool,
    /// How often the program has been started.
    pub(crate) runs: u32,
    /// A listener is configured.
    pub(crate) balancer_in_use: bool,
    pub(crate) faults: FaultPlan,
    /// Starts and stops by hand that the program has not been told of.
    pub(crate) intents: Vec<(ServerId, Intent)>,
    /// Pauses that the program has not been told of.
    pub(crate) pauses: Vec<(Scope, Pause)>,
    /// A drain of this host that the program has not been told of yet.
    pub(crate) drain: Option<Pause>,
    /// Things to come, by time.
    pub(crate) events: VecDeque<(Timestamp, Event)>,
    pub(crate) effects: Vec<Effect>,
    /// Lines that found no room in `effects`.
    pub(crate) effects_dropped: u64,
    /// Promises broken so far.
    pub(crate) violations: Vec<String>,
    /// The running call hit a thing that is not ours.
    pub(crate) hit_foreign: bool,
}

impl State {
    pub(crate) fn new(seed: u64, policy: Policy) -> Self {
        let mut rng = Rng::new(seed);
        Self {
            now: START,
            ids: rng.fork(),
            rng,
            policy,
            desired: Arc::default(),
            engine: EngineState::default(),
            balancer: BalancerState::default(),
            host: HostState::default(),
            health: HealthState::default(),
            saved: Memory::default(),
            crashed: false,
            runs: 1,
            balancer_in_use: true,
            faults: FaultPlan::none(),
            intents: Vec::new(),
            pauses: Vec::new(),
            drain: None,
            events: VecDeque::new(),
            effects: Vec::new(),
            effects_dropped: 0,
            violations: Vec::new(),
            hit_foreign: false,
        }
    }

    /// Lets one call of the program under test through, or not.
    pub(crate) fn call<T>(
        &mut self,
        call: Call<'_>,
        act: impl FnOnce(&mut Self) -> Result<T, No>,
    ) -> Result<T, WorldError> {
        if self.crashed {
            return Err(error(call, ErrorKind::Failed, CRASHED));
        }
        let most = if call.effect { EFFECT_MILLIS_MAX } else { READ_MILLIS_MAX };
        let took = self.rng.millis(1, most);
        self.pass_time(took);
        self.hit_foreign = false;
        if self.faults.active(self.now)
            && self.rng.chance(self.faults.grab)
            && let Some(port) = self.foreign_program_takes_port()
        {
            self.note(By::World, "another program takes port", &port, String::new());
        }
        match self.faults.gate(&mut self.rng, self.now, call.side, call.effect) {
            Gate::Go => self.answer(call, act),
            Gate::Before(kind) => {
                self.wait_if_silent(kind);
                self.note(By::Daemon, call.kind, call.target, format!("fault: {kind:?}"));
                Err(error(call, kind, "injected before the effect"))
            }
            Gate::After(kind) => {
                self.answer(call, act)?;
                self.wait_if_silent(kind);
                self.amend(format!("{LOST}answered {kind:?}"));
                Err(error(call, kind, "injected after the effect"))
            }
            Gate::CrashBefore => {
                self.note(By::Daemon, call.kind, call.target, "killed before it".to_owned());
                self.crash();
                Err(error(call, ErrorKind::Failed, CRASHED))
            }
            Gate::CrashAfter => {
                let answer = self.answer(call, act);
                if answer.is_ok() {
                    self.amend(format!("{LOST}killed right after it"));
                }
                self.crash();
                answer.and_then(|_| Err(error(call, ErrorKind::Failed, CRASHED)))
            }
        }
    }

    fn answer<T>(
        &mut self,
        call: Call<'_>,
        act: impl FnOnce(&mut Self) -> Result<T, No>,
    ) -> Result<T, WorldError> {
        let answer = act(self);
        if self.hit_foreign && answer.is_ok() {
            self.violations.push(format!("changed a thing that is not ours: {} {}", call.kind, call.target));
        }
        match answer {
            Ok(value) => {
                if call.effect {
                    self.note(By::Daemon, call.kind, call.target, String::new());
                }
                Ok(value)
            }
            Err(No(kind, cause)) => {
                if call.effect {
                    self.note(By::Daemon, call.kind, call.target, format!("refused: {cause}"));
                }
                Err(error(call, kind, &cause))
            }
        }
    }

    fn wait_if_silent(&mut self, kind: ErrorKind) {
        if kind == ErrorKind::TimedOut {
            self.pass_time(TIME_OUT);
        }
    }

    /// The program under test is gone, and with it what lived in it.
    pub(crate) fn crash(&mut self) {
        self.crashed = true;
        self.host.edges.clear();
        self.host.handed_over.clear();
        self.host.used.clear();
        self.health.forget();
    }

    /// Lets time pass; programs that end in it end.
    pub(crate) fn pass_time(&mut self, span: Span) {
        self.now = self.now.after(span);
        for (target, note) in self.engine.settle(self.now) {
            self.note(By::World, "end of container", &target, note);
        }
    }

    pub(crate) fn note(&mut self, by: By, kind: &'static str, target: &str, note: String) {
        if self.effects.len() >= EFFECTS_MAX {
            self.effects_dropped += 1;
            return;
        }
        let (time, target, foreign) = (self.now, target.to_owned(), self.hit_foreign);
        self.effects.push(Effect { time, by, kind, target, foreign, note });
    }

    fn amend(&mut self, note: String) {
        if let Some(last) = self.effects.last_mut() {
            last.note = note;
        }
    }

    /// A promise was broken.
    pub(crate) fn violation(&mut self, text: String) {
        self.violations.push(text);
    }
}

fn error(call: Call<'_>, kind: ErrorKind, cause: &str) -> WorldError {
    WorldError::new(format!("{}: {}", call.kind, call.target), kind, cause)
}
