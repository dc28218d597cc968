//! `--one-shot`: converge once, wait until everything is really up, say what became of it.

use crate::config::error::Problem;
use crate::daemon::{Home, files, random_bytes};
use crate::execute::{Limits, Teller};
use crate::host::clock::SystemClock;
use crate::host::lock::{self, Attempt, Owner};
use crate::model::fingerprint::HashKey;
use crate::model::memory::Memory;
use crate::model::observed::{Observed, Seen};
use crate::model::time::{Span, Timestamp};
use crate::plan::Plan;
use crate::reconcile::Reconciler;
use crate::service::{only_failed, settled, wait_after_failures};
use crate::store;
use crate::terminal::failure::{Exit, Failure};
use crate::world::{Answer, Clock, Store};
use std::path::PathBuf;
use std::sync::Arc;

/// Longest a one-shot run waits for servers to come up.
const SETTLE_WITHIN: Span = Span::secs(900);
/// Longest sleep between two looks.
const LOOK_AGAIN: Span = Span::secs(2);
/// Shortest.
const LOOK_AGAIN_MIN: Span = Span::millis(50);

/// What a one-shot run ended with.
#[derive(Debug)]
pub enum Outcome {
    /// It converged, or not: the last plan and what it was made from.
    Ran(Box<(Plan, Observed)>),
    /// Another process of the stack is at work; its control socket, where it has one.
    Daemon(Option<PathBuf>),
}

/// Converges once.
///
/// # Errors
/// Invalid files, a state store or lock that cannot be had.
pub async fn run(home: &Home, tell: Teller) -> Result<Outcome, Failure> {
    let clock = SystemClock;
    let owner = Owner { pid: std::process::id(), socket: None, since: clock.now() };
    let engine = Arc::new(home.engine());
    let _guard = match lock::try_lock(&home.stack, &home.engine_names(&engine).await, &owner) {
        Ok(Attempt::Locked(guard)) => guard,
        Ok(Attempt::Held(Some(other))) => return Ok(Outcome::Daemon(home.socket_of(&other)?)),
        Ok(Attempt::Held(None)) => return Ok(Outcome::Daemon(None)),
        Err(error) => return Err(Failure::world(error, Exit::Failed)),
    };
    let opened = home.open_store()?;
    let read = files::read(home, &opened.key).await;
    usable(&read)?;
    for problem in home.warnings.iter().chain(&read.loaded.problems) {
        crate::terminal::output::tell(&problem.to_string());
    }
    let desired = files::follow(&read, None);
    let world = home.world(engine, Arc::new(opened.store), None).await;
    let policy = home.policy();
    let mut reconciler = Reconciler::new(world, Limits::new(home.parallel()), tell, opened.memory);
    let deadline = clock.now().after(SETTLE_WITHIN);
    let mut failing: u32 = 0;
    loop {
        let pass = reconciler.pass(&desired, &policy).await;
        while let Some(ended) = reconciler.ended().await {
            failing = if only_failed(&ended) { failing.saturating_add(1) } else { 0 };
        }
        let now = clock.now();
        let unreachable =
            matches!(pass.observed.containers, Seen::Unknown(_)) || pass.observed.balancer.is_unknown();
        if unreachable || !pass.broken.is_empty() || settled(&pass.plan, true) || now >= deadline {
            return Ok(Outcome::Ran(Box::new((pass.plan, pass.observed))));
        }
        if failing > 0 {
            clock.sleep(wait_after_failures(failing)).await;
        } else if pass.plan.is_empty() {
            clock.sleep(again(pass.plan.next_look, now)).await;
        }
    }
}

/// What a look found.
#[derive(Debug)]
pub struct Preview {
    /// What a pass would do.
    pub plan: Plan,
    /// What that was made from.
    pub observed: Observed,
    /// What is wrong in the files, whose good entries the plan is for.
    pub problems: Vec<Problem>,
}

/// Looks and decides, and changes nothing: not even the state store, which may not be there.
///
/// # Errors
/// Invalid files, or a state store that cannot be read.
pub async fn preview(home: &Home) -> Result<Preview, Failure> {
    let peeked =
        store::peek(&home.places.state(&home.stack)).map_err(|error| Failure::world(error, Exit::Failed))?;
    let (memory, key) = match peeked {
        Some(peeked) => (peeked.memory, peeked.key),
        None => (Memory::default(), HashKey::new(random_bytes()?)),
    };
    let read = files::read(home, &key).await;
    usable(&read)?;
    let desired = files::follow(&read, None);
    let world = home.world(Arc::new(home.engine()), Arc::new(Forgetful), None).await;
    let silent: Teller = Arc::new(|_action, _step| {});
    let mut reconciler = Reconciler::new(world, Limits::new(1), silent, memory);
    let (plan, observed, _) = reconciler.preview(&desired, &home.policy()).await;
    let problems = home.warnings.iter().cloned().chain(read.loaded.problems).collect();
    Ok(Preview { plan, observed, problems })
}

/// A command, unlike the daemon, does not go on with an older file.
fn usable(read: &files::Read) -> Result<(), Failure> {
    if read.loaded.desired.is_some() {
        return Ok(());
    }
    let text = crate::config::error::render(&read.loaded.problems);
    Err(Failure::new(Exit::Usage, format!("the configuration cannot be used\n{}", text.trim_end())))
}

/// Keeps nothing: for looking only.
#[derive(Debug)]
struct Forgetful;

impl Store for Forgetful {
    fn save<'a>(&'a self, _memory: &'a Memory) -> Answer<'a, ()> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// How long to sleep before the next look.
fn again(next_look: Option<Timestamp>, now: Timestamp) -> Span {
    next_look.map_or(LOOK_AGAIN, |at| at.since(now)).clamp(LOOK_AGAIN_MIN, LOOK_AGAIN)
}
