//! Keeps a slot's connection open: opens it, and opens it again when it closed or did not open.
//!
//! Tries in a row wait ever longer, as the place says. A server that somebody else starts may fail
//! for a while as a part of its start; one of our own that failed has failed, and who asks for it is
//! told so at once. A process that ended is gone before the next one starts; its restart policy may
//! leave it so, until somebody wants it started anew.
//!
//! Must never go on opening a connection to a place that is no longer the server's.

use crate::gateway::lock;
use crate::gateway::places::{HowEnded, Keeper, Next, Opened, Place, Retry, Source};
use crate::gateway::slot::{
    CLOSE_GRACE, Live, OWNED_MAX, Owned, Shared, Slot, Spot, Trouble, Unavailable, who_we_are,
};
use crate::mcp::era::EraError;
use crate::model::memory::End;
use crate::upstream::error::{CloseReason, LegError};
use crate::upstream::leg::Leg;
use crate::upstream::open::{Mode, OpenOptions};
use crate::upstream::table::{Diagnostic, Outlets};
use crate::world::ErrorKind;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Failures in a row of which the operator is told, once.
const FAILURES_TOLD: u32 = 3;
/// A replaced connection may finish its requests for this long.
pub const DRAIN_MAX: Duration = Duration::from_secs(30);
/// One that is restarted by hand may finish them for this long: as long as Docker waits for a container.
pub const RESTART_DRAIN: Duration = Duration::from_secs(10);
/// A process has this long to itself for its start; one that takes longer does not hold up the next.
const START_HOLD: Duration = Duration::from_secs(5);
/// A process that is held back is not looked at more often than this.
const HELD_MIN: Duration = Duration::from_millis(100);
/// Between two looks at whether a replaced connection is idle.
pub(super) const DRAIN_LOOK: Duration = Duration::from_millis(50);

/// Keeps a slot's connection open until the slot has no place any more.
pub async fn keep(slot: Arc<Slot>, shared: Arc<Shared>) {
    let mut places = slot.place.subscribe();
    let (keepers, tries) = (Keepers::default(), Tries::new(""));
    let mut keeping = Keeping { slot: Arc::clone(&slot), shared, keepers, tries, turn: 0 };
    loop {
        let spot = places.borrow_and_update().clone();
        let wait = match spot {
            Some(spot) => keeping.turn(&spot, &mut places).await,
            None => None,
        };
        let changed = match wait {
            Some(Duration::ZERO) => Ok(()),
            Some(wait) => tokio::time::timeout(wait, places.changed()).await.unwrap_or(Ok(())),
            None => places.changed().await,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Tries in a row at one place.
struct Tries {
    key: String,
    failures: u32,
    /// Since when there is no connection.
    since: Instant,
    /// There are no more tries, as long as this is how they are to be.
    over: Option<Retry>,
}

impl Tries {
    fn new(key: &str) -> Self {
        Self { key: key.to_owned(), failures: 0, since: Instant::now(), over: None }
    }
}

struct Keeping {
    slot: Arc<Slot>,
    shared: Arc<Shared>,
    keepers: Keepers,
    tries: Tries,
    /// The last turn that was begun.
    turn: u64,
}

impl Keeping {
    /// Does what is to be done now; how long to wait before the next look, `None` until something
    /// changes.
    async fn turn(&mut self, spot: &Spot, places: &mut watch::Receiver<Option<Spot>>) -> Option<Duration> {
        let place: &Place = &spot.place;
        if spot.turn != self.turn {
            self.begin_turn(spot).await;
        }
        if let Some(down) = &place.down {
            let down = Unavailable::of(down, self.shared.clock.now());
            if let Some(old) = self.slot.publish_down(down) {
                self.keepers.retire(&self.slot, &old);
            }
            self.anew("");
            return None;
        }
        if self.tries.key != place.key || self.tries.over.is_some_and(|over| over != place.retry) {
            self.anew(&place.key);
            // What went wrong elsewhere says nothing of this place.
            if self.slot.live().is_none() {
                self.slot.publish_down(Unavailable::Later("it is starting".to_owned()));
            }
        }
        if let Some(live) = self.slot.live().filter(|live| live.key == place.key) {
            let why = tokio::select! {
                why = live.leg.closed() => why,
                // Whoever gave it holds the slot, as this task does.
                _ = places.changed() => return Some(Duration::ZERO),
            };
            return self.lost(&live, place, &why).await;
        }
        if self.tries.over.is_some() {
            return None;
        }
        if let Some(wait) = self.held_back(place) {
            return Some(wait);
        }
        self.slot.begins();
        let opened = tokio::select! {
            biased;
            opened = open_kept(&self.slot, &self.shared, place, &mut self.keepers) => opened,
            () = moved(spot, places) => return Some(Duration::ZERO),
        };
        match opened {
            Ok(()) => Some(Duration::ZERO),
            Err(why) => self.failed(place, &why),
        }
    }

    /// How long a process that ended again must wait because this host has had enough restarts lately.
    fn held_back(&self, place: &Place) -> Option<Duration> {
        // The first restart of one that was stable is free, and so is every first start.
        if self.tries.failures < 2 || !matches!(place.source, Source::Process(_)) {
            return None;
        }
        let now = self.shared.clock.now();
        let until = self.shared.storm.take(now).err()?;
        let wait = Duration::from_millis(until.since(now).0);
        let how = lock(&self.slot.ends).1.clone();
        let restart = self.tries.failures;
        let why = format!("{how}; restart {restart}, once this host has had fewer restarts within a minute");
        self.slot.publish_trouble(Trouble::Held(why, Instant::now() + wait));
        Some(wait.max(HELD_MIN))
    }

    /// Tries at this place are counted from none.
    fn anew(&mut self, key: &str) {
        self.tries = Tries::new(key);
        *lock(&self.slot.ends) = (0, String::new());
    }

    /// Somebody wants the server started anew: what serves ends first.
    async fn begin_turn(&mut self, spot: &Spot) {
        if spot.place.down.is_none() {
            let old = self.slot.publish_down(Unavailable::Later("it is being restarted".to_owned()));
            if let Some(old) = old {
                drain(&self.slot, &old, RESTART_DRAIN).await;
                let _how = self.keepers.end(&old).await;
            }
        }
        self.anew("");
        self.turn = spot.turn;
        self.slot.turned.send_if_modified(|turned| {
            let new = *turned < spot.turn;
            *turned = spot.turn.max(*turned);
            new
        });
    }

    /// The connection closed by itself.
    async fn lost(&mut self, live: &Arc<Live>, place: &Place, why: &CloseReason) -> Option<Duration> {
        tracing::info!(MCP_SERVER = %self.slot.id.server(), "connection to the server closed: {why}");
        forget(&self.shared, place);
        let stable = live.since.elapsed() >= place.retry.stable;
        // Whoever is told next that there is no connection asks why.
        let before = if stable { 0 } else { self.tries.failures };
        *lock(&self.slot.ends) = (before.saturating_add(1), format!("it ended ({why})"));
        self.slot.publish_down(Unavailable::Later(format!("it ended and is coming back ({why})")));
        let ended = self.keepers.end(live).await;
        let (slot, tries) = (&self.slot, &mut self.tries);
        if stable {
            tries.failures = 0;
        }
        let wait = place.retry.wait(tries.failures);
        tries.failures = tries.failures.saturating_add(1);
        tries.since = Instant::now();
        if matches!(place.source, Source::Process(_)) {
            live.leg.hear_out().await;
        }
        tell_end(&self.shared, slot, place, ended.as_ref());
        let how = ended.as_ref().map_or_else(|| format!("ended ({why})"), |ended| ended.how.clone());
        *lock(&slot.ends) = (tries.failures, format!("it {how}"));
        // Whoever looks after its health knows only so far that there is no connection.
        slot.stirred.notify_one();
        match place.retry.next(tries.failures, ended.as_ref()) {
            Next::Again if wait.is_zero() => {}
            Next::Again => {
                let again = Instant::now() + wait;
                slot.publish_trouble(Trouble::Failing(format!("it ended again ({how})"), again));
            }
            next => return self.over(next, place, &format!("it {how}")),
        }
        Some(wait)
    }

    /// The connection did not open; an older one stays in use.
    fn failed(&mut self, place: &Place, why: &Failed) -> Option<Duration> {
        let (slot, tries) = (&self.slot, &mut self.tries);
        tries.failures = tries.failures.saturating_add(1);
        let wait = place.retry.wait(tries.failures);
        *lock(&slot.ends) = (tries.failures, why.to_string());
        tell_end(&self.shared, slot, place, why.ended.as_ref().filter(|_| why.by_itself));
        if tries.failures == FAILURES_TOLD {
            tracing::warn!(MCP_SERVER = %slot.id.server(), MCP_ERROR_CODE = "MCPO-G020", "no MCP connection: {why}");
        }
        // Who starts processes is away: nothing is wrong with this one.
        let away = matches!(&why.why, LegError::World(error) if error.kind == ErrorKind::Unreachable);
        match place.retry.next(tries.failures, why.ended.as_ref()) {
            next @ (Next::Left | Next::GaveUp) if !away => return self.over(next, place, &why.to_string()),
            _ => {}
        }
        if tries.since.elapsed() >= place.retry.grace {
            slot.publish_trouble(Trouble::Failing(why.to_string(), Instant::now() + wait));
        } else if slot.live().is_none() {
            slot.publish_down(Unavailable::Later(format!("it does not answer yet: {why}")));
        }
        Some(wait)
    }

    /// There are no more tries by themselves.
    fn over(&mut self, next: Next, place: &Place, what: &str) -> Option<Duration> {
        self.tries.over = Some(place.retry);
        let restarts = self.tries.failures.saturating_sub(1);
        self.slot.publish_trouble(match next {
            Next::GaveUp => Trouble::GaveUp(format!(
                "{what}; gave up after {restarts} restarts in a row (restart-server tries again)"
            )),
            Next::Left | Next::Again => Trouble::Left(format!("{what} and its restart policy leaves it so")),
        });
        None
    }
}

/// Has the end of a process kept, behind what it said.
fn tell_end(shared: &Shared, slot: &Slot, place: &Place, ended: Option<&HowEnded>) {
    let Some(HowEnded { how, clean: _, oom }) = ended else { return };
    if matches!(place.source, Source::Process(_)) {
        let end = End { at: shared.clock.now(), how: format!("it {how}"), oom: *oom, words: None };
        // Where so much is said that there is no room, this end is not kept.
        let _full = slot.diagnostics.try_send(Diagnostic::End(Box::new(end)));
    }
}

/// Resolves when the server is no longer at this place, or is to be started anew.
async fn moved(spot: &Spot, places: &mut watch::Receiver<Option<Spot>>) {
    let same = |new: &Spot| {
        let (new, place, turn) = (&new.place, &spot.place, new.turn);
        turn == spot.turn && new.down.is_none() && new.key == place.key && new.source == place.source
    };
    loop {
        if places.changed().await.is_err() {
            return std::future::pending().await;
        }
        if !places.borrow_and_update().as_ref().is_some_and(same) {
            return;
        }
    }
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
    fn retire(&mut self, slot: &Arc<Slot>, old: &Arc<Live>) {
        let keeper = self.0.remove(&old.generation);
        lock(&slot.draining).insert(old.generation, old.container.clone());
        let (slot, old) = (Arc::clone(slot), Arc::clone(old));
        tokio::spawn(async move {
            drain(&slot, &old, DRAIN_MAX).await;
            if let Some(keeper) = keeper {
                let _how = keeper.end().await;
            }
        });
    }

    /// Ends it; how it did, where it was a process. Goes on when nobody waits for it any more.
    async fn end(&mut self, old: &Live) -> Option<HowEnded> {
        let keeper = self.0.remove(&old.generation)?;
        tokio::spawn(keeper.end()).await.ok().flatten()
    }
}

/// Waits until nothing but subscriptions is under way on a replaced connection, at most `within`, then
/// lets go of it.
pub(super) async fn drain(slot: &Slot, old: &Live, within: Duration) {
    lock(&slot.draining).insert(old.generation, old.container.clone());
    let idle = async {
        // A request that was given this connection just now has not begun yet.
        tokio::time::sleep(DRAIN_LOOK).await;
        while old.leg.working() > 0 {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    };
    let _too_long = tokio::time::timeout(within, idle).await;
    old.leg.close(CLOSE_GRACE).await;
    lock(&slot.draining).remove(&old.generation);
    slot.tell();
}

/// Opens the connection and sends new requests over it.
async fn open_kept(
    slot: &Arc<Slot>,
    shared: &Shared,
    place: &Place,
    keepers: &mut Keepers,
) -> Result<(), Failed> {
    let (live, keeper) = open_once(slot, shared, place).await?;
    if let Some(keeper) = keeper {
        keepers.0.insert(live.generation, keeper);
    }
    if let Some(old) = slot.publish_up(live) {
        keepers.retire(slot, &old);
    }
    let _full = slot.owned.try_send(Owned::Renewed);
    Ok(())
}

/// Opens a connection whose streams somebody else ends.
pub(super) async fn open(slot: &Arc<Slot>, shared: &Shared, place: &Place) -> Result<Arc<Live>, LegError> {
    open_once(slot, shared, place).await.map(|(live, _keeper)| live).map_err(|failed| failed.why)
}

/// Why a connection did not open.
struct Failed {
    why: LegError,
    /// How its process ended, where one ran.
    ended: Option<HowEnded>,
    /// It did so by itself.
    by_itself: bool,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.why)?;
        let told = self.ended.as_ref().filter(|_| self.by_itself);
        told.map_or(Ok(()), |ended| write!(f, " ({})", ended.how))
    }
}

impl From<LegError> for Failed {
    fn from(why: LegError) -> Self {
        Self { why, ended: None, by_itself: false }
    }
}

/// Opens a connection apart from the shared one, to a server elsewhere; what it says outside of calls goes
/// to `tell` alone.
pub(crate) async fn open_apart(
    slot: &Arc<Slot>,
    shared: &Shared,
    place: &Place,
    tell: mpsc::Sender<crate::upstream::table::FromServer>,
) -> Result<Arc<Live>, LegError> {
    let mut known = lock(&shared.eras).get(&place.program).copied();
    let mut second = false;
    loop {
        let opened = shared.opener.dedicated(&slot.id, place).await.map_err(LegError::World)?;
        let outlets = Outlets { owner: Some(tell.clone()), diagnostics: Some(slot.diagnostics.clone()) };
        let options = OpenOptions { known, second, outlets, ..OpenOptions::new(Mode::Fresh, who_we_are()) };
        match Leg::open(opened.io, options).await {
            Ok(leg) => {
                let generation = GENERATION.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let (key, container) = (place.key.clone(), place.container.clone());
                let spec = place.spec.clone();
                return Ok(Arc::new(Live { leg, key, generation, since: Instant::now(), container, spec }));
            }
            Err(LegError::Again(era) | LegError::Ended(era)) if !second => {
                (known, second) = (Some(era), true);
            }
            Err(why) => return Err(why),
        }
    }
}

static GENERATION: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);

async fn open_once(
    slot: &Arc<Slot>,
    shared: &Shared,
    place: &Place,
) -> Result<(Arc<Live>, Option<Box<dyn Keeper>>), Failed> {
    let mut known = lock(&shared.eras).get(&place.program).copied();
    let mut second = false;
    loop {
        let _turn = start_turn(shared, place).await;
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
                let (key, container) = (place.key.clone(), place.container.clone());
                let spec = place.spec.clone();
                let live = Live { leg, key, generation, since: Instant::now(), container, spec };
                return Ok((Arc::new(live), keeper));
            }
            Err(why) => {
                let ended = match keeper {
                    Some(keeper) => keeper.end().await,
                    None => None,
                };
                let by_itself = matches!(
                    why,
                    LegError::Ended(_) | LegError::Era(EraError::Ended) | LegError::Closed(CloseReason::Eof)
                );
                let died = matches!(why, LegError::Ended(_));
                // One that we ended because it said nothing sensible did not end well.
                let ended = ended.map(|ended| HowEnded { clean: ended.clean && by_itself, ..ended });
                let failed = Failed { why, ended, by_itself };
                let (LegError::Again(era) | LegError::Ended(era)) = failed.why else { return Err(failed) };
                if second {
                    return Err(failed);
                }
                forget(shared, place);
                if died && matches!(place.source, Source::Container(..)) {
                    // Whoever looks after the container starts it again, in its own time.
                    lock(&shared.eras).insert(place.program.clone(), era);
                    return Err(failed);
                }
                (known, second) = (Some(era), true);
                let _full = slot.diagnostics.try_send(Diagnostic::Again);
                shared.opener.renew(&slot.id, place).await.map_err(LegError::World)?;
            }
        }
    }
}

/// The right to start a process, for as long as it is held and not longer than [`START_HOLD`].
struct Turn(tokio::task::JoinHandle<()>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Waits for the right to start a process; `None` for what is no process.
async fn start_turn(shared: &Shared, place: &Place) -> Option<Turn> {
    if !matches!(place.source, Source::Process(_)) {
        return None;
    }
    let permit = shared.starts.enter().await;
    Some(Turn(tokio::spawn(async move {
        let _held = permit;
        tokio::time::sleep(START_HOLD).await;
    })))
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
