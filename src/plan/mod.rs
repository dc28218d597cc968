//! Decides. `plan(input)` is a pure function: what is wanted, what was seen, what is remembered,
//! the settings and the time go in; actions without any choice left, a report that says why for
//! every server, and the memory to keep come out.
//!
//! The steps are named in [`plan`] in their order and nothing else happens there. What a decision
//! lacks comes out as a [`Question`]; the observer answers and the planner runs again, so that
//! nothing is asked that no decision needs (a pass without changes asks one list).
//!
//! Must never touch the world, read a clock, or log. Invariants are numbered in [`check`].
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod action;
pub mod balancer;
pub mod check;
pub mod containers;
mod demand;
mod depends;
pub mod display;
mod draft;
mod drain;
mod ends;
pub(crate) mod fleet;
mod guard;
mod images;
pub mod legs;
pub mod oom;
mod outside;
mod pause;
mod ports;
pub mod recovery;
pub mod replace;
mod replicas;
pub mod report;
mod routes;
mod runs;
mod steady;
mod sweep;

pub use demand::WOKEN;

use crate::model::desired::Desired;
use crate::model::id::ServerId;
use crate::model::memory::Memory;
use crate::model::observed::{Observed, Question};
use crate::model::policy::Policy;
use crate::model::time::Timestamp;
use action::Action;
use draft::Draft;
use report::Report;
use std::collections::BTreeSet;

/// What a decision is made from.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The files' wish.
    pub desired: &'a Desired,
    /// The world.
    pub observed: &'a Observed,
    /// The past.
    pub memory: &'a Memory,
    /// The settings.
    pub policy: &'a Policy,
    /// The present.
    pub now: Timestamp,
}

/// What to do, why, and what to remember.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Plan {
    /// Effects; one may need others (by index) to have succeeded first.
    pub actions: Vec<Action>,
    /// Why, for every server.
    pub report: Report,
    /// To be kept before the first action runs.
    pub memory: Memory,
    /// Facts that are missing; the plan is not final while there are any that can be answered.
    pub questions: Vec<Question>,
    /// When time alone changes the decision (a back-off, a drain, a new container settling).
    pub next_look: Option<Timestamp>,
    /// Servers whose targets the next pass must read.
    pub read_next: BTreeSet<ServerId>,
}

impl Plan {
    /// Nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }
}

/// Makes the plan.
///
/// Every instance of a server is planned for as a server of its own; the report has a row a server.
pub fn plan(input: Input<'_>) -> Plan {
    let desired = input.desired.instances();
    let mut draft = Draft::new(Input { desired: &desired, ..input });
    runs::settle_intents(&mut draft);
    drain::settle(&mut draft);
    oom::settle(&mut draft);
    ends::settle(&mut draft);
    demand::settle(&mut draft);
    recovery::settle(&mut draft);
    guard::guard_removals(&mut draft);
    ports::lease(&mut draft);
    containers::decide(&mut draft);
    drain::report(&mut draft);
    routes::decide(&mut draft);
    sweep::sweep(&mut draft);
    draft.finish()
}
