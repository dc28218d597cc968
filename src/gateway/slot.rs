//! One server in the gateway: its shared connection, kept open by a task of its own.
//!
//! ```text
//! place          connection        requests
//! up, same key   open              go through it
//! up, new key    opening           wait for it, or go through the old one while it lives
//! up             closed            wait while it is opened again: at once, then 100 ms doubling to 5 s
//! down, coming   -                 wait up to a limit
//! down, stopped  -                 503 with the reason
//! ```
//! A connection that was replaced is let go when the last request on it has its answer.
//!
//! Must never send a request twice: a call may have effects.

pub mod own;

use crate::gateway::lock;
use crate::gateway::places::{Down, Keeper, Opened, Opener, Place, Source};
use crate::mcp::handshake::ClientInfo;
use crate::mcp::wire::Era;
use crate::model::id::{ContainerId, ServerId};
use crate::upstream::error::LegError;
use crate::upstream::leg::{Greeting, Leg};
use crate::upstream::open::{Mode, OpenOptions, Remembered};
use crate::upstream::table::{Diagnostic, FromServer, Outlets};
use crate::world::Clock;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// A request waits this long for a server that is starting or being replaced.
pub const PARK_MAX: Duration = Duration::from_secs(30);
/// Requests that may wait for one server.
pub const PARKED_MAX: usize = 1024;
/// First wait before a closed connection is opened again after a failure; doubles.
const AGAIN_MIN: Duration = Duration::from_millis(100);
/// Longest such wait.
const AGAIN_MAX: Duration = Duration::from_secs(5);
/// Failures in a row of which the operator is told, once.
const FAILURES_TOLD: u32 = 3;
/// A replaced connection may finish its requests for this long.
pub const DRAIN_MAX: Duration = Duration::from_secs(30);
/// Between two looks at whether a replaced connection is idle.
const DRAIN_LOOK: Duration = Duration::from_millis(50);
/// A server may finish writing this long after its input was closed.
const CLOSE_GRACE: Duration = Duration::from_secs(5);
/// Notifications that may wait to be fanned out.
const OWNED_MAX: usize = 1024;
/// Lines of diagnostics that may wait to be kept.
const DIAGNOSTICS_MAX: usize = 1024;

/// Why a request cannot be passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// Not for now; worth another try.
    Later(String),
    /// Not before somebody does something.
    Stopped(String),
}

impl From<&Down> for Unavailable {
    fn from(down: &Down) -> Self {
        match down {
            Down::Coming(why) => Self::Later(why.clone()),
            Down::Stopped(why) => Self::Stopped(why.clone()),
        }
    }
}

impl std::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Later(why) | Self::Stopped(why) => f.write_str(why),
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
    place: watch::Sender<Option<Arc<Place>>>,
    state: watch::Sender<State>,
    handed: Mutex<Option<Handed>>,
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

impl Slot {
    /// A server nobody has told the place of.
    #[must_use]
    pub fn new(id: ServerId) -> (Arc<Self>, Inlets) {
        let (owned, owned_inlet) = mpsc::channel(OWNED_MAX);
        let (diagnostics, diagnostics_inlet) = mpsc::channel(DIAGNOSTICS_MAX);
        let slot = Self {
            id,
            place: watch::Sender::new(None),
            state: watch::Sender::new(State::Down(Unavailable::Later("it is starting".to_owned()))),
            handed: Mutex::new(None),
            parked: std::sync::atomic::AtomicUsize::new(0),
            owned,
            diagnostics,
        };
        (Arc::new(slot), Inlets { owned: owned_inlet, diagnostics: diagnostics_inlet })
    }

    /// Says where the server is.
    pub fn set_place(&self, place: Arc<Place>) {
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
        self.place.send_if_modified(|held| {
            let new = held.as_ref().is_none_or(|held| **held != *place);
            if new {
                *held = Some(Arc::clone(&place));
            }
            new
        });
    }

    /// The place now.
    #[must_use]
    pub fn place(&self) -> Option<Arc<Place>> {
        self.place.borrow().clone()
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
        match &self.place.borrow().as_ref()?.source {
            Source::Container(container, _) => Some(container.0.clone()),
            Source::Process(_) | Source::Remote(_) | Source::Nowhere => None,
        }
    }

    /// Lets go of the connection.
    pub fn close(&self) {
        if let Some(old) = self.publish_down(Unavailable::Stopped("it was removed".to_owned())) {
            tokio::spawn(async move { drain(&old).await });
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

    /// The connection; waits for one that is coming.
    ///
    /// # Errors
    /// Why there is none, after at most [`PARK_MAX`].
    pub async fn ready(&self) -> Result<Arc<Live>, Unavailable> {
        match self.live() {
            Some(live) => Ok(live),
            None => self.park().await,
        }
    }

    async fn park(&self) -> Result<Arc<Live>, Unavailable> {
        let _place = Parked::enter(&self.parked)
            .ok_or_else(|| Unavailable::Later("too many requests wait for it to start".to_owned()))?;
        let mut state = self.state.subscribe();
        let usable = |state: &State| match state {
            State::Up(live) => !live.leg.is_closed(),
            State::Down(why) => matches!(why, Unavailable::Stopped(_)),
        };
        let waited = tokio::time::timeout(PARK_MAX, state.wait_for(usable)).await;
        match waited {
            Ok(Ok(state)) => match &*state {
                State::Up(live) => Ok(Arc::clone(live)),
                State::Down(why) => Err(why.clone()),
            },
            Ok(Err(_gone)) => Err(Unavailable::Stopped("the server was removed".to_owned())),
            Err(_elapsed) => {
                Err(Unavailable::Later(self.why_down().unwrap_or_else(|| "it is starting".to_owned())))
            }
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
        self.place.send_replace(Some(place));
        let _full = self.owned.try_send(Owned::Renewed);
        if let Some(old) = old {
            drain(&old).await;
        }
        Ok(())
    }

    fn publish_up(&self, live: Arc<Live>) -> Option<Arc<Live>> {
        match self.state.send_replace(State::Up(live)) {
            State::Up(old) => Some(old),
            State::Down(_) => None,
        }
    }

    /// An older connection stays in use while the new one does not open.
    fn did_not_open(&self, why: &LegError, failures: u32) {
        if self.live().is_none() {
            self.publish_down(Unavailable::Later(format!("it does not answer yet: {why}")));
        }
        if failures == FAILURES_TOLD {
            tracing::warn!(MCP_SERVER = %self.id, MCP_ERROR_CODE = "MCPO-G020", "no MCP connection: {why}");
        }
    }

    fn publish_down(&self, why: Unavailable) -> Option<Arc<Live>> {
        match self.state.send_replace(State::Down(why)) {
            State::Up(old) => Some(old),
            State::Down(_) => None,
        }
    }
}

/// Counts a waiting request while it waits.
struct Parked<'a>(&'a std::sync::atomic::AtomicUsize);

impl<'a> Parked<'a> {
    fn enter(counter: &'a std::sync::atomic::AtomicUsize) -> Option<Self> {
        let before = counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let parked = Self(counter);
        (before < PARKED_MAX).then_some(parked)
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }
}

/// Keeps a slot's connection open until the slot has no place any more.
pub async fn keep(slot: Arc<Slot>, shared: Arc<Shared>) {
    let mut places = slot.place.subscribe();
    let mut failures: u32 = 0;
    let mut keepers = Keepers::default();
    loop {
        let place = places.borrow_and_update().clone();
        let Some(place) = place else {
            if places.changed().await.is_err() {
                return;
            }
            continue;
        };
        let current = slot.live().filter(|live| live.key == place.key);
        let wait = match (&place.down, current) {
            (Some(down), _) => {
                if let Some(old) = slot.publish_down(Unavailable::from(down)) {
                    keepers.retire(&old);
                }
                failures = 0;
                None
            }
            (None, Some(live)) => {
                tokio::select! {
                    why = live.leg.closed() => {
                        tracing::info!(MCP_SERVER = %slot.id, "connection to the server closed: {why}");
                        forget(&shared, &place);
                        slot.publish_down(Unavailable::Later(format!("it ended and is coming back ({why})")));
                        keepers.end(&live);
                        // The first try is at once.
                        continue;
                    }
                    changed = places.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        continue;
                    }
                }
            }
            (None, None) => match open_kept(&slot, &shared, &place, &mut keepers).await {
                Ok(()) => {
                    failures = 0;
                    continue;
                }
                Err(why) => {
                    failures = failures.saturating_add(1);
                    slot.did_not_open(&why, failures);
                    Some(again_in(failures))
                }
            },
        };
        let changed = match wait {
            Some(wait) => tokio::time::timeout(wait, places.changed()).await.unwrap_or(Ok(())),
            None => places.changed().await,
        };
        if changed.is_err() {
            return;
        }
    }
}

fn again_in(failures: u32) -> Duration {
    AGAIN_MIN.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX)).min(AGAIN_MAX)
}

fn forget(shared: &Shared, place: &Place) {
    if let Source::Container(container, _) = &place.source {
        shared.memory.forget(container);
    }
}

/// What must be ended after a connection, by generation.
#[derive(Default)]
struct Keepers(BTreeMap<u64, Box<dyn Keeper>>);

impl Keepers {
    /// Lets the requests on it finish, then ends it.
    fn retire(&mut self, old: &Arc<Live>) {
        let keeper = self.0.remove(&old.generation);
        let old = Arc::clone(old);
        tokio::spawn(async move {
            drain(&old).await;
            if let Some(keeper) = keeper {
                keeper.end().await;
            }
        });
    }

    /// It closed by itself.
    fn end(&mut self, old: &Live) {
        if let Some(keeper) = self.0.remove(&old.generation) {
            tokio::spawn(keeper.end());
        }
    }
}

/// Waits until nothing but subscriptions is under way on a replaced connection, then lets go of it.
async fn drain(old: &Live) {
    let idle = async {
        // A request that was given this connection just now has not begun yet.
        tokio::time::sleep(DRAIN_LOOK).await;
        while old.leg.working() > 0 {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    };
    let _too_long = tokio::time::timeout(DRAIN_MAX, idle).await;
    old.leg.close(CLOSE_GRACE).await;
}

/// Opens the connection and sends new requests over it.
async fn open_kept(
    slot: &Arc<Slot>,
    shared: &Shared,
    place: &Place,
    keepers: &mut Keepers,
) -> Result<(), LegError> {
    let (live, keeper) = open_once(slot, shared, place).await?;
    if let Some(keeper) = keeper {
        keepers.0.insert(live.generation, keeper);
    }
    if let Some(old) = slot.publish_up(live) {
        keepers.retire(&old);
    }
    let _full = slot.owned.try_send(Owned::Renewed);
    Ok(())
}

/// Opens a connection whose streams somebody else ends.
async fn open(slot: &Arc<Slot>, shared: &Shared, place: &Place) -> Result<Arc<Live>, LegError> {
    open_once(slot, shared, place).await.map(|(live, _keeper)| live)
}

static GENERATION: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);

async fn open_once(
    slot: &Arc<Slot>,
    shared: &Shared,
    place: &Place,
) -> Result<(Arc<Live>, Option<Box<dyn Keeper>>), LegError> {
    let mut known = lock(&shared.eras).get(&place.program).copied();
    let mut second = false;
    loop {
        let Opened { io, keeper, fresh } =
            shared.opener.shared(&slot.id, place).await.map_err(LegError::World)?;
        let mode = mode(shared, place, fresh);
        let options =
            OpenOptions { known, second, outlets: outlets(slot), ..OpenOptions::new(mode, who_we_are()) };
        match Leg::open(io, options).await {
            Ok(leg) => {
                let greeting = leg.greeting();
                lock(&shared.eras).insert(place.program.clone(), greeting.era);
                if let Source::Container(container, _) = &place.source {
                    shared.memory.keep(container, greeting);
                }
                let generation = GENERATION.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                return Ok((Arc::new(Live { leg, key: place.key.clone(), generation }), keeper));
            }
            Err(why) => {
                if let Some(keeper) = keeper {
                    keeper.end().await;
                }
                let ended = matches!(why, LegError::Ended(_));
                let (LegError::Again(era) | LegError::Ended(era)) = why else { return Err(why) };
                if second {
                    return Err(why);
                }
                forget(shared, place);
                if ended && matches!(place.source, Source::Container(..)) {
                    // Whoever looks after the container starts it again, in its own time.
                    lock(&shared.eras).insert(place.program.clone(), era);
                    return Err(why);
                }
                (known, second) = (Some(era), true);
                shared.opener.renew(&slot.id, place).await.map_err(LegError::World)?;
            }
        }
    }
}

fn mode(shared: &Shared, place: &Place, fresh: bool) -> Mode {
    match &place.source {
        Source::Container(container, _) if !fresh => Mode::Reattach {
            unix_secs: u64::try_from(shared.clock.now().0 / 1000).unwrap_or(0),
            remembered: shared.memory.recall(container),
        },
        _ => Mode::Fresh,
    }
}

fn outlets(slot: &Arc<Slot>) -> Outlets {
    let (owner, mut said) = mpsc::channel(OWNED_MAX);
    let owned = slot.owned.clone();
    tokio::spawn(async move {
        while let Some(what) = said.recv().await {
            if owned.send(Owned::FromServer(what)).await.is_err() {
                return;
            }
        }
    });
    Outlets { owner: Some(owner), diagnostics: Some(slot.diagnostics.clone()) }
}

/// Who we say we are to servers.
#[must_use]
pub fn who_we_are() -> ClientInfo {
    ClientInfo { name: "mcp-orchestrator".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }
}
