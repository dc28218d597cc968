//! One server's health: asked again and again over the shared connection, and the verdict.
//!
//! ```text
//! seen                                        event
//! not to run, or asleep                       no verdict
//! no connection, and it did not end           started
//! no connection after an end, or a failed try ended
//! a connection after there was none           started, and asked at once
//! an answer, an error that says "not that"    answered
//! no answer in time, but others were given    answered, slowly
//! the last question is not come to yet        failed, and nothing more is asked for a while
//! no answer in time, its page or the image's
//! own check fails, an internal error          failed
//! ```
//! The question is `ping`, in the modern era `server/discover`: among the requests of clients, under an
//! id of ours, so that it costs a server one line and no session. What many servers are asked at once
//! is bounded by a [`Room`]. One that works line by line and slowly is not given more lines than it
//! works off: a question that took too long is not taken back, and the next one waits for its answer.
//!
//! Must never open a connection or start a server to ask it, and never take the bytes that clients
//! send for a sign of life: only what the server says counts.

use crate::gateway::hub::Entry;
use crate::gateway::lock;
use crate::gateway::places::{Down, Place, Source};
use crate::gateway::room::Room;
use crate::gateway::slot::{self, Live, Shared, Slot};
use crate::mcp::build;
use crate::mcp::wire::{Era, INTERNAL_ERROR, MODERN_LATEST};
use crate::model::health::{Condition, Event, Health, State};
use crate::model::observed::{Contact, ContactState};
use crate::model::server::{HealthPolicy, RemoteDecl, RemoteKind};
use crate::model::time::{Span, Timestamp};
use crate::upstream::error::CallError;
use crate::upstream::leg::{Call, OnDrop};
use crate::upstream::page::HealthPage;
use serde_json::value::RawValue;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// Servers asked at once, unless `[health] max_parallel_probes` says otherwise.
pub const PROBES_MAX: usize = 8;
/// A server that has not answered since its start is asked again after this long, or sooner where its
/// interval is shorter.
const STARTING_AGAIN: Duration = Duration::from_secs(2);
/// A question without an answer is given up after so many times its limit, and another one is put.
const OWED_TIMES: u32 = 3;
/// Between two looks at whether it was come to.
const OWED_LOOK: Duration = Duration::from_millis(50);
/// Parts of an interval over which the first questions to many servers are spread.
const SPREAD: u32 = 1009;

/// One server's health.
#[derive(Debug, Default)]
pub struct Checkup {
    kept: Mutex<Kept>,
    /// One question at a time.
    asking: tokio::sync::Mutex<()>,
    /// Questions that were answered, and those that were not.
    pub(crate) answered: AtomicU64,
    pub(crate) failed: AtomicU64,
}

#[derive(Debug, Default)]
struct Kept {
    /// `None` while it is not to run, or nobody looked yet.
    condition: Option<Condition>,
    /// The connection that was asked last.
    generation: Option<u64>,
    /// When it was asked last.
    asked: Option<Instant>,
    /// Answers over this connection, and when the last one of them was first seen.
    heard: (u64, Timestamp),
    /// The question that it has not come to yet.
    owed: Option<Owed>,
    /// Its questions have their own place in the interval.
    spread: bool,
    /// The page of an HTTP server, with the URL and path it is of.
    page: Option<(String, Arc<HealthPage>)>,
}

/// A question that took too long, and may still be answered.
#[derive(Clone, Copy, Debug)]
struct Owed {
    /// The connection that it was put over.
    generation: u64,
    /// When.
    since: Instant,
    /// Answers of any kind at the end of its time, also to what nobody waited for any more.
    said: u64,
}

impl Owed {
    /// Whether the server has not come to it yet: what is asked now would only wait behind it.
    fn holds(&self, live: &Live, within: Duration) -> bool {
        self.generation == live.generation
            && self.said == said(live)
            && self.since.elapsed() < within.saturating_mul(OWED_TIMES)
    }
}

/// What became of a question.
#[derive(Debug)]
enum Outcome {
    Answered(Span),
    Failed(String),
    /// It could not be put.
    NotAsked,
}

impl Kept {
    fn state(&self) -> Option<State> {
        self.condition.as_ref().map(|condition| condition.health.state)
    }

    /// Gives a server's questions their own place in the interval, from its first answer on: servers
    /// that began together are not asked together.
    fn spread_out(&mut self, name: &str, outcome: &Outcome, policy: &HealthPolicy) {
        if self.spread || !matches!(outcome, Outcome::Answered(_)) {
            return;
        }
        self.spread = true;
        let interval = Duration::from_millis(policy.interval.0);
        let until_next = interval.saturating_mul(part_of(name)) / SPREAD;
        let earlier = Instant::now().checked_sub(interval.saturating_sub(until_next));
        self.asked = earlier.or(self.asked);
    }

    /// Takes an event in, with what is the matter.
    fn take(&mut self, event: Event, why: String, (now, policy): (Timestamp, &HealthPolicy)) {
        let fresh =
            || Condition { health: Health::new(now), why: String::new(), latency: None, busy_until: None };
        let condition = self.condition.get_or_insert_with(fresh);
        condition.health.take(event, now, policy);
        condition.why = why;
        condition.busy_until = None;
    }
}

impl Checkup {
    /// The verdict; `None` while the server is not to run.
    #[must_use]
    pub fn condition(&self) -> Option<Condition> {
        lock(&self.kept).condition.clone()
    }

    /// Whether requests should go elsewhere if they can.
    pub(crate) fn is_ill(&self) -> bool {
        matches!(lock(&self.kept).state(), Some(State::Unhealthy | State::Critical))
    }

    /// Looks at the connection, and asks over it when that is due; how long to wait before the next
    /// look, if nothing stirs.
    pub(crate) async fn look(&self, slot: &Slot, shared: &Shared, room: &Room) -> Duration {
        let Some(place) = slot.place() else {
            return Duration::from_millis(HealthPolicy::default().interval.0);
        };
        let interval = Duration::from_millis(place.health.interval.0);
        let Some(live) = self.stand(slot, &place, shared) else { return interval };
        let wait = self.wait(&place.health);
        if !wait.is_zero() {
            return wait;
        }
        let _one = self.asking.lock().await;
        self.ask(slot, (&place, &live), shared, room).await;
        // A connection that is none any more is looked at again once the slot says so.
        self.wait(&place.health).max(Duration::from_millis(1))
    }

    /// Whether requests should be sent there; one that was just started is asked first.
    ///
    /// # Errors
    /// Why not.
    pub(crate) async fn serves(&self, slot: &Slot, shared: &Shared, room: &Room) -> Result<(), String> {
        let down = || slot.why_down().unwrap_or_else(|| "it is starting".to_owned());
        let place = slot.place().ok_or_else(down)?;
        if let Some(Down::Stopped(why)) = &place.down {
            return Err(why.clone());
        }
        let Some(live) = self.stand(slot, &place, shared) else {
            return if self.rests(&place) { Ok(()) } else { Err(down()) };
        };
        if lock(&self.kept).state() == Some(State::Starting) {
            let _one = self.asking.lock().await;
            // Whoever asked meanwhile asked for all who wait.
            if lock(&self.kept).state() == Some(State::Starting) && self.wait(&place.health).is_zero() {
                self.ask(slot, (&place, &live), shared, room).await;
            }
        }
        match self.condition() {
            Some(Condition { health, .. }) if health.state.serves() => Ok(()),
            Some(_) if self.rests(&place) => Ok(()),
            Some(Condition { why, .. }) if !why.is_empty() => Err(why),
            Some(_) => Err("it has not answered yet".to_owned()),
            None => Err(down()),
        }
    }

    /// Whether it sleeps, or is being started for a request: whoever asks is to be sent here.
    fn rests(&self, place: &Place) -> bool {
        let down = matches!(place.down, None | Some(Down::Asleep(_) | Down::Coming(_)));
        let well = matches!(lock(&self.kept).state(), None | Some(State::Starting));
        place.on_demand.is_some() && down && well
    }

    /// Takes in how the connection stands; gives it when it can be asked over.
    fn stand(&self, slot: &Slot, place: &Place, shared: &Shared) -> Option<Arc<Live>> {
        let (now, live) = (shared.clock.now(), slot.live());
        let (before, after) = {
            let mut kept = lock(&self.kept);
            let before = kept.state();
            match (&place.down, &live) {
                (Some(Down::Stopped(_) | Down::Asleep(_)), _) => {
                    *kept = Kept { page: kept.page.take(), ..Kept::default() };
                }
                (_, Some(live)) if kept.generation != Some(live.generation) => {
                    // Requests that moved from one connection to the next met no gap.
                    if !kept.state().is_some_and(State::serves) {
                        kept.take(Event::Started, String::new(), (now, &place.health));
                    }
                    kept.generation = Some(live.generation);
                    (kept.asked, kept.heard) = (None, (0, now));
                }
                (_, Some(_)) => {}
                (_, None) => {
                    let (event, why) = without_connection(slot.contact(now));
                    let there = if event == Event::Ended { State::Critical } else { State::Starting };
                    if kept.state() != Some(there) {
                        kept.take(event, why, (now, &place.health));
                    } else if let Some(condition) = &mut kept.condition {
                        condition.why = why;
                        condition.health.judged = now;
                    }
                }
            }
            (before, kept.state())
        };
        if before != after {
            self.changed(slot, before, shared);
        }
        live.filter(|_| after.is_some())
    }

    /// How long until the next question.
    fn wait(&self, policy: &HealthPolicy) -> Duration {
        let kept = lock(&self.kept);
        let Some(asked) = kept.asked else { return Duration::ZERO };
        let interval = Duration::from_millis(policy.interval.0);
        let starting = kept.state() == Some(State::Starting);
        let wait = if starting { interval.min(STARTING_AGAIN) } else { interval };
        wait.saturating_sub(asked.elapsed())
    }

    /// Puts the question and judges the answer.
    async fn ask(&self, slot: &Slot, (place, live): (&Place, &Live), shared: &Shared, room: &Room) {
        let _room = room.enter().await;
        lock(&self.kept).asked = Some(Instant::now());
        let within = Duration::from_millis(place.health.timeout.0);
        let owed = lock(&self.kept).owed.take().filter(|owed| owed.holds(live, within));
        let (mut outcome, owed) = match owed {
            Some(owed) if is_owed(live, owed, within).await => {
                (unanswered(live, owed.since.elapsed()), Some(owed))
            }
            _ => ping(live, within).await,
        };
        lock(&self.kept).owed = owed;
        if matches!(outcome, Outcome::Answered(_)) {
            if let Some(Err(why)) = self.ask_page(place, within).await {
                outcome = Outcome::Failed(why);
            } else if place.check_fails {
                outcome = Outcome::Failed("the image's own health check fails".to_owned());
            }
        }
        // What was asked of a connection says nothing of the next one.
        if slot.live().is_none_or(|now| now.generation != live.generation) {
            outcome = Outcome::NotAsked;
        }
        self.judge(slot, (place, live), outcome, shared);
    }

    /// What the page says, where there is one.
    async fn ask_page(&self, place: &Place, within: Duration) -> Option<Result<(), String>> {
        let (path, decl) = (place.health.path.as_ref()?, over_http(&place.source)?);
        let of = format!("{} {path}", decl.url);
        let held = lock(&self.kept).page.clone().filter(|(held, _)| *held == of);
        let page = match held {
            Some((_, page)) => page,
            None => match HealthPage::new(decl, path) {
                Ok(page) => {
                    let page = Arc::new(page);
                    lock(&self.kept).page = Some((of, Arc::clone(&page)));
                    page
                }
                Err(error) => return Some(Err(error.to_string())),
            },
        };
        Some(page.answers(within).await)
    }

    fn judge(&self, slot: &Slot, (place, live): (&Place, &Live), outcome: Outcome, shared: &Shared) {
        let (now, policy) = (shared.clock.now(), &place.health);
        let metrics = live.leg.metrics();
        let heard = metrics.results.saturating_add(metrics.errors);
        let (before, after) = {
            let mut kept = lock(&self.kept);
            let before = kept.state();
            kept.spread_out(slot.id.as_str(), &outcome, policy);
            if heard > kept.heard.0 {
                kept.heard = (heard, now);
            }
            match outcome {
                Outcome::NotAsked => {}
                Outcome::Answered(span) => {
                    self.answered.fetch_add(1, Relaxed);
                    kept.take(Event::Answered(span), String::new(), (now, policy));
                    let Some(condition) = &mut kept.condition else { return };
                    condition.latency = Some(span);
                    condition.why = slowness(&condition.health, span);
                }
                Outcome::Failed(why) => {
                    self.failed.fetch_add(1, Relaxed);
                    let until = kept.heard.1.after(span_of(place.timeout));
                    // Our own look at its tools may be among them.
                    let busy = live.leg.at_stake() > 0 && until > now;
                    kept.take(Event::Failed, why, (now, policy));
                    let Some(condition) = &mut kept.condition else { return };
                    condition.busy_until = busy.then_some(until);
                }
            }
            (before, kept.state())
        };
        if before != after {
            self.changed(slot, before, shared);
        }
    }

    /// Tells the loop, and whoever reads the log.
    fn changed(&self, slot: &Slot, before: Option<State>, shared: &Shared) {
        shared.news.notify_one();
        let Some(Condition { health, why, .. }) = self.condition() else { return };
        let was = before.map_or("not looked at", State::as_str);
        let colon = if why.is_empty() { "" } else { ": " };
        tracing::info!(MCP_SERVER = %slot.id.server(), "{} is {}, was {was}{colon}{why}", slot.id, health.state.as_str());
    }
}

/// Looks after a server's health until it is gone.
pub(crate) async fn watch(entry: Weak<Entry>, shared: Arc<Shared>, room: Arc<Room>) {
    let Some(slot) = entry.upgrade().map(|entry| Arc::clone(&entry.slot)) else { return };
    loop {
        let Some(looked) = entry.upgrade() else { return };
        let wait = looked.checkup.look(&slot, &shared, &room).await;
        drop(looked);
        let _stirred = tokio::time::timeout(wait, slot.stirred()).await;
    }
}

/// What a server without a connection went through.
fn without_connection(Contact { state, ends: (times, last), uses: _ }: Contact) -> (Event, String) {
    match state {
        ContactState::Failed { why, .. }
        | ContactState::Held { why, .. }
        | ContactState::Left(why)
        | ContactState::GaveUp(why) => (Event::Ended, why),
        ContactState::Up | ContactState::Starting if times > 0 => (Event::Ended, last),
        ContactState::Up | ContactState::Starting => (Event::Started, String::new()),
    }
}

/// Answers that a server gave over a connection, also to what nobody waited for any more.
fn said(live: &Live) -> u64 {
    let metrics = live.leg.metrics();
    metrics.results.saturating_add(metrics.errors).saturating_add(metrics.late)
}

/// The question, by the server's era.
fn question(live: &Live) -> (&'static str, Option<Box<RawValue>>) {
    if live.leg.greeting().era == Era::Modern {
        ("server/discover", build::discover_params(MODERN_LATEST, &slot::who_we_are()))
    } else {
        ("ping", None)
    }
}

fn unanswered(live: &Live, after: Duration) -> Outcome {
    Outcome::Failed(format!("no answer to {} within {}", question(live).0, span_of(after)))
}

/// Waits for a server to come to its last question as long as for another one: whether it has not.
async fn is_owed(live: &Live, owed: Owed, within: Duration) -> bool {
    let until = Instant::now() + within;
    while owed.holds(live, within) && !live.leg.is_closed() {
        if Instant::now() >= until {
            return true;
        }
        tokio::time::sleep(OWED_LOOK).await;
    }
    false
}

/// One question, at most for `within`; and what is still to be answered of it.
async fn ping(live: &Live, within: Duration) -> (Outcome, Option<Owed>) {
    let (method, params) = question(live);
    let (began, before) = (Instant::now(), said(live));
    // Taking it back would be one more line for a server that is behind.
    let call = Call { on_drop: OnDrop::Leave, ..Call::new(method, params.as_deref()) };
    let answer = match live.leg.start(call) {
        Ok(mut running) => running.answer(within).await,
        Err(error) => Err(error),
    };
    let took = span_of(began.elapsed());
    let outcome = match answer {
        Ok(_) => Outcome::Answered(took),
        Err(CallError::Rpc(error)) if error.code == INTERNAL_ERROR => {
            Outcome::Failed(format!("{method} failed: {}", error.message))
        }
        // It answers, if only that it does not know the question.
        Err(CallError::Rpc(_)) => Outcome::Answered(took),
        Err(CallError::TimedOut { .. }) => {
            let said = said(live);
            let owed = Owed { generation: live.generation, since: began, said };
            // One that works through the requests before ours is slow, not away.
            let outcome = if said > before { Outcome::Answered(took) } else { unanswered(live, within) };
            return (outcome, Some(owed));
        }
        Err(error @ (CallError::TooLong { .. } | CallError::List(_))) => Outcome::Failed(error.to_string()),
        Err(
            CallError::Cancelled
            | CallError::Closed(_)
            | CallError::Unsent(_)
            | CallError::Busy
            | CallError::Params,
        ) => Outcome::NotAsked,
    };
    (outcome, None)
}

/// The server's declaration, where it speaks over HTTP.
fn over_http(source: &Source) -> Option<&RemoteDecl> {
    let Source::Remote(decl) = source else { return None };
    let http = matches!(decl.kind, None | Some(RemoteKind::Http | RemoteKind::Sse));
    (http && decl.url.starts_with("http")).then_some(decl)
}

/// What to say of a server that answers slowly; nothing of one that does not.
fn slowness(health: &Health, span: Span) -> String {
    if health.state != State::Degraded {
        return String::new();
    }
    let usual = health.usual.map(|usual| format!(", usually {usual}")).unwrap_or_default();
    format!("it answers after {span}{usual}")
}

fn span_of(duration: Duration) -> Span {
    Span(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// A part of [`SPREAD`] that is always the same for a name.
fn part_of(name: &str) -> u32 {
    name.bytes().fold(7_u32, |sum, byte| (sum * 31 + u32::from(byte)) % SPREAD)
}

#[cfg(test)]
mod tests;
