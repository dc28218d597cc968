//! Keeps a slot's connection open: opens it, and opens it again when it closed or did not open.
//!
//! Tries in a row wait ever longer, as the place says. A server that somebody else starts may fail
//! for a while as a part of its start; one of our own that failed has failed, and who asks for it is
//! told so at once.
//!
//! Must never go on opening a connection to a place that is no longer the server's.

use crate::gateway::lock;
use crate::gateway::places::{Keeper, Opened, Place, Source};
use crate::gateway::slot::{CLOSE_GRACE, Live, OWNED_MAX, Owned, Shared, Slot, Unavailable, who_we_are};
use crate::mcp::era::EraError;
use crate::upstream::error::{CloseReason, LegError};
use crate::upstream::leg::Leg;
use crate::upstream::open::{Mode, OpenOptions};
use crate::upstream::table::Outlets;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Failures in a row of which the operator is told, once.
const FAILURES_TOLD: u32 = 3;
/// A replaced connection may finish its requests for this long.
pub const DRAIN_MAX: Duration = Duration::from_secs(30);
/// Between two looks at whether a replaced connection is idle.
const DRAIN_LOOK: Duration = Duration::from_millis(50);

/// Keeps a slot's connection open until the slot has no place any more.
pub async fn keep(slot: Arc<Slot>, shared: Arc<Shared>) {
    let mut places = slot.place.subscribe();
    let mut keeping =
        Keeping { slot: Arc::clone(&slot), shared, keepers: Keepers::default(), tries: Tries::new("") };
    loop {
        let place = places.borrow_and_update().clone();
        let wait = match place {
            Some(place) => keeping.turn(&place, &mut places).await,
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
}

impl Tries {
    fn new(key: &str) -> Self {
        Self { key: key.to_owned(), failures: 0, since: Instant::now() }
    }
}

struct Keeping {
    slot: Arc<Slot>,
    shared: Arc<Shared>,
    keepers: Keepers,
    tries: Tries,
}

impl Keeping {
    /// Does what is to be done now; how long to wait before the next look, `None` until something
    /// changes.
    async fn turn(
        &mut self,
        place: &Place,
        places: &mut watch::Receiver<Option<Arc<Place>>>,
    ) -> Option<Duration> {
        if let Some(down) = &place.down {
            let down = Unavailable::of(down, self.shared.clock.now());
            if let Some(old) = self.slot.publish_down(down) {
                self.keepers.retire(&self.slot, &old);
            }
            self.tries = Tries::new("");
            return None;
        }
        if self.tries.key != place.key {
            self.tries = Tries::new(&place.key);
            // What went wrong elsewhere says nothing of this place.
            if self.slot.live().is_none() {
                self.slot.publish_down(Unavailable::Later("it is starting".to_owned()));
            }
        }
        if let Some(live) = self.slot.live().filter(|live| live.key == place.key) {
            return tokio::select! {
                why = live.leg.closed() => Some(self.lost(&live, place, &why)),
                // Whoever gave it holds the slot, as this task does.
                _ = places.changed() => Some(Duration::ZERO),
            };
        }
        self.slot.begins();
        let opened = tokio::select! {
            biased;
            opened = open_kept(&self.slot, &self.shared, place, &mut self.keepers) => opened,
            () = moved(place, places) => return Some(Duration::ZERO),
        };
        match opened {
            Ok(()) => Some(Duration::ZERO),
            Err(why) => Some(self.failed(place, &why)),
        }
    }

    /// The connection closed by itself.
    fn lost(&mut self, live: &Arc<Live>, place: &Place, why: &CloseReason) -> Duration {
        tracing::info!(MCP_SERVER = %self.slot.id, "connection to the server closed: {why}");
        forget(&self.shared, place);
        let tries = &mut self.tries;
        if live.since.elapsed() >= place.retry.stable {
            tries.failures = 0;
        }
        let wait = place.retry.wait(tries.failures);
        tries.failures = tries.failures.saturating_add(1);
        tries.since = Instant::now();
        self.slot.publish_down(if wait.is_zero() {
            Unavailable::Later(format!("it ended and is coming back ({why})"))
        } else {
            Unavailable::Failing(format!("it ended again ({why})"), Instant::now() + wait)
        });
        self.keepers.end(live);
        wait
    }

    /// The connection did not open; an older one stays in use.
    fn failed(&mut self, place: &Place, why: &Failed) -> Duration {
        let (slot, tries) = (&self.slot, &mut self.tries);
        tries.failures = tries.failures.saturating_add(1);
        let wait = place.retry.wait(tries.failures);
        if tries.failures == FAILURES_TOLD {
            tracing::warn!(MCP_SERVER = %slot.id, MCP_ERROR_CODE = "MCPO-G020", "no MCP connection: {why}");
        }
        if tries.since.elapsed() >= place.retry.grace {
            slot.publish_failing(why.to_string(), Instant::now() + wait);
        } else if slot.live().is_none() {
            slot.publish_down(Unavailable::Later(format!("it does not answer yet: {why}")));
        }
        wait
    }
}

/// Resolves when the server is no longer at `place`.
async fn moved(place: &Place, places: &mut watch::Receiver<Option<Arc<Place>>>) {
    loop {
        if places.changed().await.is_err() {
            return std::future::pending().await;
        }
        let new = places.borrow_and_update().clone();
        if !new.is_some_and(|new| new.down.is_none() && new.key == place.key && new.source == place.source) {
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
        let (slot, old) = (Arc::clone(slot), Arc::clone(old));
        tokio::spawn(async move {
            drain(&slot, &old).await;
            if let Some(keeper) = keeper {
                let _how = keeper.end().await;
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
pub(super) async fn drain(slot: &Slot, old: &Live) {
    lock(&slot.draining).insert(old.generation, old.container.clone());
    let idle = async {
        // A request that was given this connection just now has not begun yet.
        tokio::time::sleep(DRAIN_LOOK).await;
        while old.leg.working() > 0 {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    };
    let _too_long = tokio::time::timeout(DRAIN_MAX, idle).await;
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
    /// How its process ended, where it did so by itself.
    how: Option<String>,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.why)?;
        self.how.as_ref().map_or(Ok(()), |how| write!(f, " ({how})"))
    }
}

impl From<LegError> for Failed {
    fn from(why: LegError) -> Self {
        Self { why, how: None }
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
                let live = Live { leg, key, generation, since: Instant::now(), container };
                return Ok((Arc::new(live), keeper));
            }
            Err(why) => {
                let how = match keeper {
                    Some(keeper) => keeper.end().await,
                    None => None,
                };
                let by_itself = matches!(
                    why,
                    LegError::Ended(_) | LegError::Era(EraError::Ended) | LegError::Closed(CloseReason::Eof)
                );
                let failed = Failed { how: how.filter(|_| by_itself), why };
                let ended = matches!(failed.why, LegError::Ended(_));
                let (LegError::Again(era) | LegError::Ended(era)) = failed.why else { return Err(failed) };
                if second {
                    return Err(failed);
                }
                forget(shared, place);
                if ended && matches!(place.source, Source::Container(..)) {
                    // Whoever looks after the container starts it again, in its own time.
                    lock(&shared.eras).insert(place.program.clone(), era);
                    return Err(failed);
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
