//! One server in the gateway: its shared connection, kept open by a task of its own ([`keep`]).
//!
//! ```text
//! place          connection          requests
//! up, same key   open                go through it
//! up, new key    opening             wait for it, or go through the old one while it lives
//! up             opening             wait up to a limit
//! up             next try later      503 at once, with the time until then
//! up             left, given up      503 with the reason, until somebody restarts it
//! down, coming   -                   wait up to a limit
//! down, failed   -                   503 at once, with the time until the next start
//! down, asleep   -                   wait for its start, which they bring about
//! down, stopped  -                   503 with the reason
//! ```
//! A connection that was replaced is let go when the last request on it has its answer.
//!
//! Must never send a request twice: a call may have effects.

pub mod keep;
pub mod own;
mod park;
mod sleep;

#[cfg(test)]
mod tests;

use crate::gateway::demand::Touch;
use crate::gateway::lock;
use crate::gateway::places::{Down, END_WITHIN, Opener, Place, Source};
use crate::gateway::room::Room;
use crate::gateway::slot::keep::{DRAIN_MAX, RESTART_DRAIN, drain, open};
use crate::gateway::storm::Storm;
use crate::mcp::handshake::ClientInfo;
use crate::mcp::wire::Era;
use crate::model::id::{ContainerId, ServerId};
use crate::model::observed::{Contact, ContactState};
use crate::model::time::{Span, Timestamp};
use crate::upstream::error::LegError;
use crate::upstream::leg::{Greeting, Leg};
use crate::upstream::open::Remembered;
use crate::upstream::table::{Diagnostic, FromServer};
use crate::world::Clock;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

/// A request waits this long for a server that is starting or being replaced.
pub const PARK_MAX: Duration = Duration::from_secs(30);
/// Requests that may wait for one server.
pub const PARKED_MAX: usize = 1024;
/// Seconds after which a client may come again for a server that is on its way.
const LATER_SECS: u64 = 2;
/// A server may finish writing this long after its input was closed.
pub(crate) const CLOSE_GRACE: Duration = Duration::from_secs(5);
/// A restart ends what ran within this time: its requests, its input's end, its keeper.
pub const RESTART_MAX: Duration = Duration::from_secs(40);
const _: () = assert!(
    RESTART_DRAIN.as_millis() + CLOSE_GRACE.as_millis() + 2 * END_WITHIN.as_millis()
        < RESTART_MAX.as_millis(),
    "a restart ends in time"
);
/// Notifications that may wait to be fanned out.
const OWNED_MAX: usize = 1024;
/// Lines of diagnostics that may wait to be kept.
const DIAGNOSTICS_MAX: usize = 1024;

/// Why a request cannot be passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// Not for now; worth waiting for.
    Later(String),
    /// The last try failed, and it is tried again at this time.
    Failing(String, Instant),
    /// It was started for a request and took too long.
    Late(String),
    /// Not before somebody does something.
    Stopped(String),
}

impl Unavailable {
    fn of(down: &Down, now: Timestamp) -> Self {
        match down {
            Down::Coming(why) | Down::Asleep(why) => Self::Later(why.clone()),
            Down::Failed(why, until) => {
                let wait = until.map_or(Span::ZERO, |until| until.since(now));
                Self::Failing(why.clone(), Instant::now() + Duration::from_millis(wait.0))
            }
            Down::Stopped(why) => Self::Stopped(why.clone()),
        }
    }

    /// After how many seconds it is worth another try, if it will be by itself.
    #[must_use]
    pub fn retry_after_secs(&self) -> Option<u64> {
        match self {
            Self::Later(_) | Self::Late(_) => Some(LATER_SECS),
            Self::Failing(_, again) => Some(left(*again).as_secs_ceil().max(1)),
            Self::Stopped(_) => None,
        }
    }
}

/// The documented code of [`Unavailable::Late`].
pub const LATE: &str = "MCPO-G074";

fn left(until: Instant) -> Span {
    let left = until.saturating_duration_since(Instant::now());
    Span(u64::try_from(left.as_millis()).unwrap_or(u64::MAX))
}

impl std::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Later(why) | Self::Late(why) | Self::Stopped(why) => f.write_str(why),
            Self::Failing(why, again) => write!(f, "{why}; the next try is in {}", left(*again)),
        }
    }
}

/// A connection in use.
pub struct Live {
    /// The connection.
    pub leg: Leg,
    /// The place it leads to.
    pub key: String,
    /// Counts connections of this server: sessions learn from it that the server is another one.
    pub generation: u64,
    /// When it was opened.
    pub since: Instant,
    /// The container it leads to.
    pub container: Option<ContainerId>,
    /// The declaration that what answers was made from, see [`Place::spec`].
    pub spec: String,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("key", &self.key).field("generation", &self.generation).finish()
    }
}

#[derive(Clone, Debug)]
enum State {
    Down(Unavailable),
    Up(Arc<Live>),
}

/// Where the server is, and how often somebody wanted it started anew.
#[derive(Clone, Debug)]
struct Spot {
    place: Arc<Place>,
    turn: u64,
}

/// What all slots need.
pub struct Shared {
    /// Opens streams.
    pub opener: Arc<dyn Opener>,
    /// Keeps handshakes over restarts.
    pub memory: Arc<dyn Handshakes>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Eras found, by program.
    pub eras: Mutex<BTreeMap<String, Era>>,
    /// Processes that are started at once.
    pub starts: Room,
    /// How many restarts of processes this host bears.
    pub storm: Storm,
    /// What servers that may sleep offer, over restarts.
    pub offers: Arc<dyn crate::gateway::known::Offers>,
    /// Told whenever [`Slot::contact`] of any server changes, or a request waits for one that sleeps.
    pub news: Arc<Notify>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// Handshakes with containers that outlive this process.
pub trait Handshakes: Send + Sync {
    /// What an earlier run agreed with this container.
    fn recall(&self, container: &ContainerId) -> Option<Remembered>;
    /// Keeps what was agreed.
    fn keep(&self, container: &ContainerId, greeting: &Greeting);
    /// The container ended: what was agreed is void.
    fn forget(&self, container: &ContainerId);
}

/// What a slot's by-products go to.
#[derive(Debug)]
pub struct Inlets {
    /// Notifications of the shared connection, and what became of it.
    pub owned: mpsc::Receiver<Owned>,
    /// What the server printed.
    pub diagnostics: mpsc::Receiver<Diagnostic>,
}

/// What concerns every session of a server.
#[derive(Debug)]
pub enum Owned {
    /// The server said so.
    FromServer(FromServer),
    /// Another connection serves from now on.
    Renewed,
}

/// One server.
#[derive(Debug)]
pub struct Slot {
    /// Its id.
    pub id: ServerId,
    place: watch::Sender<Option<Spot>>,
    state: watch::Sender<State>,
    /// The last turn that was begun: nothing of those before is left.
    turned: watch::Sender<u64>,
    handed: Mutex<Option<Handed>>,
    /// The last try failed; kept while the next one is under way.
    trouble: Mutex<Option<Trouble>>,
    /// Ends and failed starts in a row, and how the last one was.
    ends: Mutex<(u32, String)>,
    /// What was told of the connection last.
    told: Mutex<(Standing, Option<Trouble>)>,
    news: Arc<Notify>,
    /// When it was used.
    pub(crate) touch: Arc<Touch>,
    /// There was a connection since we started.
    was_up: std::sync::atomic::AtomicBool,
    /// Whoever looks after its health hears that something is new.
    stirred: Notify,
    removed: std::sync::atomic::AtomicBool,
    /// Connections that were replaced and have requests under way, by generation.
    pub(crate) draining: Mutex<BTreeMap<u64, Option<ContainerId>>>,
    parked: std::sync::atomic::AtomicUsize,
    owned: mpsc::Sender<Owned>,
    diagnostics: mpsc::Sender<Diagnostic>,
}

/// Requests were handed from one place to another ahead of what the loop reports.
#[derive(Clone, Debug)]
struct Handed {
    from: String,
    to: String,
}

/// What is the matter with the place of now.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Trouble {
    /// Why the last try failed, and when the next one is due.
    Failing(String, Instant),
    /// It ended, and this host has had as many restarts lately as it bears; until then.
    Held(String, Instant),
    /// It ended, and its restart policy leaves it so.
    Left(String),
    /// It ended as often in a row as is allowed.
    GaveUp(String),
}

/// Whether the connection leads to the place of now, whether there is one, and the containers in use.
type Standing = (bool, bool, BTreeSet<ContainerId>);

impl Slot {
    /// A server nobody has told the place of; `news` is told when [`Slot::contact`] changes, `touch` of each
    /// use.
    #[must_use]
    pub fn touching(id: ServerId, news: Arc<Notify>, touch: &Arc<Touch>) -> (Arc<Self>, Inlets) {
        let (owned, owned_inlet) = mpsc::channel(OWNED_MAX);
        let (diagnostics, diagnostics_inlet) = mpsc::channel(DIAGNOSTICS_MAX);
        let slot = Self {
            id,
            place: watch::Sender::new(None),
            state: watch::Sender::new(State::Down(Unavailable::Later("it is starting".to_owned()))),
            turned: watch::Sender::new(0),
            handed: Mutex::new(None),
            trouble: Mutex::default(),
            ends: Mutex::default(),
            told: Mutex::default(),
            news,
            touch: Arc::clone(touch),
            was_up: std::sync::atomic::AtomicBool::new(false),
            stirred: Notify::new(),
            removed: std::sync::atomic::AtomicBool::new(false),
            draining: Mutex::default(),
            parked: std::sync::atomic::AtomicUsize::new(0),
            owned,
            diagnostics,
        };
        (Arc::new(slot), Inlets { owned: owned_inlet, diagnostics: diagnostics_inlet })
    }

    /// Says where the server is.
    pub fn set_place(&self, place: Arc<Place>) {
        let place = self.not_yet_asleep(place);
        {
            let mut handed = lock(&self.handed);
            if let Some(hand) = handed.as_ref() {
                let serves = self.live().is_some_and(|live| live.key == hand.to);
                if hand.from == place.key && serves {
                    // The loop has not seen yet what it had done.
                    return;
                }
                if hand.to == place.key || hand.from == place.key || place.down.is_some() {
                    *handed = None;
                }
            }
        }
        let new = self.place.send_if_modified(|held| {
            let new = held.as_ref().is_none_or(|held| *held.place != *place);
            if new {
                put(held, Arc::clone(&place));
            }
            new
        });
        if new {
            self.stirred.notify_one();
        }
    }

    /// Resolves when the place or the connection is another, or was since this was asked last. There is
    /// one who asks.
    pub(crate) async fn stirred(&self) {
        self.stirred.notified().await;
    }

    /// The place now.
    #[must_use]
    pub fn place(&self) -> Option<Arc<Place>> {
        self.place.borrow().as_ref().map(|spot| Arc::clone(&spot.place))
    }

    /// Ends what serves now, all of it, and has it started anew; returns when nothing of it is left.
    ///
    /// # Errors
    /// When that takes longer than [`RESTART_MAX`].
    pub async fn restart(&self) -> Result<(), String> {
        let mut wanted = None;
        self.place.send_if_modified(|held| {
            wanted = held.as_mut().map(|spot| {
                spot.turn += 1;
                spot.turn
            });
            wanted.is_some()
        });
        // Nobody said yet where it is: nothing of it runs.
        let Some(wanted) = wanted else { return Ok(()) };
        let mut turned = self.turned.subscribe();
        let over = tokio::time::timeout(RESTART_MAX, turned.wait_for(|turned| *turned >= wanted)).await;
        over.map(drop).map_err(|_late| format!("what ran has not ended in {} s", RESTART_MAX.as_secs()))
    }

    /// The connection, if it is open.
    #[must_use]
    pub fn live(&self) -> Option<Arc<Live>> {
        match &*self.state.borrow() {
            State::Up(live) if !live.leg.is_closed() => Some(Arc::clone(live)),
            State::Up(_) | State::Down(_) => None,
        }
    }

    /// The container it is in, if it is in one.
    #[must_use]
    pub fn container(&self) -> Option<String> {
        match &self.place.borrow().as_ref()?.place.source {
            Source::Container(container, _) => Some(container.0.clone()),
            Source::Process(_) | Source::Remote(_) | Source::Nowhere => None,
        }
    }

    /// Lets go of a process, which ends with us: politely, by the task that keeps the connection.
    pub fn end_process(&self) {
        let held = self.place();
        let Some(place) = held.filter(|place| matches!(place.source, Source::Process(_))) else { return };
        let down = Some(Down::Stopped("the daemon is ending".to_owned()));
        self.put_place(Arc::new(Place { down, ..(*place).clone() }));
    }

    fn put_place(&self, place: Arc<Place>) {
        self.place.send_modify(|held| put(held, place));
    }

    /// It is no more: no request comes any more, and those under way may end.
    pub(crate) fn leave(&self) {
        if let (Some(live), Some(place)) = (self.live(), self.place()) {
            // At once: nobody may believe meanwhile that nothing is in use.
            lock(&self.draining).insert(live.generation, live.container.clone());
            let down = Some(Down::Stopped("it was removed".to_owned()));
            self.put_place(Arc::new(Place { down, ..(*place).clone() }));
        }
    }

    /// Lets go of the connection.
    pub fn close(self: &Arc<Self>) {
        self.removed.store(true, std::sync::atomic::Ordering::Relaxed);
        self.turned.send_replace(u64::MAX);
        if let Some(old) = self.publish_down(Unavailable::Stopped("it was removed".to_owned())) {
            let slot = Arc::clone(self);
            tokio::spawn(async move { drain(&slot, &old, DRAIN_MAX).await });
        }
    }

    /// Requests waiting for the server.
    #[must_use]
    pub fn parked(&self) -> usize {
        self.parked.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Why it is not open, in words; `None` when it is.
    #[must_use]
    pub fn why_down(&self) -> Option<String> {
        if self.live().is_some() {
            return None;
        }
        match &*self.state.borrow() {
            State::Down(why) => Some(why.to_string()),
            State::Up(_) => Some("the server ended".to_owned()),
        }
    }

    /// How the connections stand.
    #[must_use]
    pub fn contact(&self, now: Timestamp) -> Contact {
        let (current, live, uses) = self.standing();
        let state = match &*lock(&self.trouble) {
            _ if live && current => ContactState::Up,
            Some(Trouble::Failing(why, again)) => {
                ContactState::Failed { why: why.clone(), next_try: now.after(left(*again)) }
            }
            Some(Trouble::Held(why, until)) => {
                ContactState::Held { why: why.clone(), until: now.after(left(*until)) }
            }
            Some(Trouble::Left(why)) => ContactState::Left(why.clone()),
            Some(Trouble::GaveUp(why)) => ContactState::GaveUp(why.clone()),
            None => ContactState::Starting,
        };
        Contact { state, uses, ends: self.ends() }
    }

    /// Keeps what a server said that no connection heard.
    pub(crate) async fn note(&self, said: Diagnostic) {
        // Nobody keeps the words of a server that is gone.
        let _gone = self.diagnostics.send(said).await;
    }

    /// A server that has run long enough has its ends counted anew.
    fn ends(&self) -> (u32, String) {
        let stable = self.place().map(|place| place.retry.stable);
        match (self.live(), stable) {
            (Some(live), Some(stable)) if live.since.elapsed() >= stable => (0, String::new()),
            _ => lock(&self.ends).clone(),
        }
    }

    fn standing(&self) -> Standing {
        let live = self.live();
        let place = self.place();
        let current = live.as_ref().is_some_and(|live| place.is_none_or(|place| place.key == live.key));
        let old = lock(&self.draining).values().flatten().cloned().collect::<Vec<_>>();
        let now = live.as_ref().and_then(|live| live.container.clone());
        (current, live.is_some(), old.into_iter().chain(now).collect())
    }

    /// Tells who wants to know, if there is something new.
    fn tell(&self) {
        let now = (self.standing(), lock(&self.trouble).clone());
        let mut told = lock(&self.told);
        if *told != now {
            *told = now;
            self.news.notify_one();
            self.stirred.notify_one();
        }
    }

    /// The connection, for a request; waits for one that is coming, and has a server that sleeps started.
    ///
    /// # Errors
    /// Why there is none, after at most [`PARK_MAX`], or the start period of a server that may sleep; at
    /// once when nothing is on its way.
    pub async fn ready(&self) -> Result<Arc<Live>, Unavailable> {
        self.touch.used();
        self.reached().await
    }

    /// The same, without being a use.
    pub(crate) async fn reached(&self) -> Result<Arc<Live>, Unavailable> {
        match self.live() {
            Some(live) => Ok(live),
            None => self.park().await,
        }
    }

    /// Another connection than the one with this generation, once there is one; `None` when the
    /// server was removed.
    pub async fn other_than(&self, generation: u64) -> Option<Arc<Live>> {
        let mut state = self.state.subscribe();
        let other = |state: &State| match state {
            State::Up(live) => live.generation != generation && !live.leg.is_closed(),
            State::Down(_) => self.removed.load(std::sync::atomic::Ordering::Relaxed),
        };
        match &*state.wait_for(other).await.ok()? {
            State::Up(live) => Some(Arc::clone(live)),
            State::Down(_) => None,
        }
    }

    /// Sends new requests to `place` once it answers MCP, and lets those under way end.
    ///
    /// # Errors
    /// Why the new place does not answer; the old one stays in use.
    pub async fn hand_over(
        self: &Arc<Self>,
        shared: &Shared,
        place: Arc<Place>,
        within: Duration,
    ) -> Result<(), LegError> {
        let new = tokio::time::timeout(within, open(self, shared, &place))
            .await
            .unwrap_or(Err(LegError::Silent { method: "the first message", after: within }))?;
        let from = self.place().map(|place| place.key.clone()).unwrap_or_default();
        *lock(&self.handed) = Some(Handed { from, to: place.key.clone() });
        let old = self.publish_up(new);
        self.put_place(place);
        self.tell();
        let _full = self.owned.try_send(Owned::Renewed);
        if let Some(old) = old {
            drain(self, &old, DRAIN_MAX).await;
        }
        Ok(())
    }

    fn publish_up(&self, live: Arc<Live>) -> Option<Arc<Live>> {
        self.was_up.store(true, std::sync::atomic::Ordering::Relaxed);
        *lock(&self.trouble) = None;
        let old = self.state.send_replace(State::Up(live));
        self.tell();
        match old {
            State::Up(old) => Some(old),
            State::Down(_) => None,
        }
    }

    fn publish_down(&self, why: Unavailable) -> Option<Arc<Live>> {
        *lock(&self.trouble) = match &why {
            Unavailable::Failing(why, again) => Some(Trouble::Failing(why.clone(), *again)),
            Unavailable::Later(_) | Unavailable::Late(_) | Unavailable::Stopped(_) => None,
        };
        let old = self.state.send_replace(State::Down(why));
        self.tell();
        match old {
            State::Up(old) => Some(old),
            State::Down(_) => None,
        }
    }

    /// The place of now cannot be reached; an older connection stays in use.
    fn publish_trouble(&self, trouble: Trouble) {
        *lock(&self.trouble) = Some(trouble.clone());
        if self.live().is_none() {
            self.state.send_replace(State::Down(match trouble {
                Trouble::Failing(why, again) | Trouble::Held(why, again) => Unavailable::Failing(why, again),
                Trouble::Left(why) | Trouble::GaveUp(why) => Unavailable::Stopped(why),
            }));
        }
        self.tell();
    }

    /// Another try begins: who comes now may wait for it.
    fn begins(&self) {
        let trouble = lock(&self.trouble).clone();
        let Some(Trouble::Failing(why, _) | Trouble::Held(why, _)) = trouble else { return };
        let why = Unavailable::Later(format!("it is being tried again, after this: {why}"));
        self.state.send_if_modified(|state| {
            let down = matches!(state, State::Down(_));
            if down {
                *state = State::Down(why);
            }
            down
        });
    }
}

fn put(held: &mut Option<Spot>, place: Arc<Place>) {
    let turn = held.as_ref().map_or(0, |spot| spot.turn);
    *held = Some(Spot { place, turn });
}

/// Who we say we are to servers.
#[must_use]
pub fn who_we_are() -> ClientInfo {
    ClientInfo { name: "mcp-orchestrator".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }
}
