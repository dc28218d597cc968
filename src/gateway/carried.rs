//! Connections to servers elsewhere that carry headers of a client's request: one for each server and
//! set of values, apart from the one that clients without them share.
//!
//! ```text
//! no header of the request is for the server    the shared connection
//! some are                                      the connection of these values, opened when it is needed
//! other values in the same session              another identity: its session is not found
//! ```
//! What a server says outside of calls on such a connection is for the sessions of these values alone.
//! Lists for all servers together, and subscriptions of modern clients, are those of the shared
//! connection.
//!
//! Must never send one client's headers for another, nor show what they are.

use crate::gateway::Gateway;
use crate::gateway::hub::Entry;
use crate::gateway::lock;
use crate::gateway::origin::Origin;
use crate::gateway::places::Place;
use crate::gateway::slot::{CLOSE_GRACE, Live, Unavailable, keep};
use crate::gateway::streams::Keep;
use crate::mcp::build;
use crate::mcp::wire::{member, text_of};
use crate::upstream::table::{FromServer, Notice};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Sets of values at one server.
pub const CARRIED_MAX: usize = 512;
/// A connection that nobody used this long is closed: as long as a session may lie idle.
const IDLE_MAX: Duration = Duration::from_secs(30 * 60);
/// A connection opens within this time.
const OPEN_WITHIN: Duration = Duration::from_secs(30);
/// Notifications of one connection that may wait.
const SAID_MAX: usize = 256;

/// The connections of one server, by identity.
#[derive(Debug, Default)]
pub struct Carried(Mutex<BTreeMap<Arc<str>, Arc<Carrier>>>);

/// One of them, or the place for it.
#[derive(Debug)]
struct Carrier {
    /// Held while it is opened.
    opening: tokio::sync::Mutex<()>,
    live: Mutex<Option<Arc<Live>>>,
    used: Mutex<Instant>,
}

impl Carrier {
    fn new() -> Arc<Self> {
        let used = Mutex::new(Instant::now());
        Arc::new(Self { opening: tokio::sync::Mutex::default(), live: Mutex::default(), used })
    }

    /// The connection, if it is open and leads to where the server is now.
    fn live(&self, place: &Place) -> Option<Arc<Live>> {
        *lock(&self.used) = Instant::now();
        lock(&self.live).clone().filter(|live| live.key == place.key && !live.leg.is_closed())
    }

    fn is_idle(&self) -> bool {
        let works = lock(&self.live).as_ref().is_some_and(|live| live.leg.working() > 0);
        !works && self.opening.try_lock().is_ok()
    }
}

impl Carried {
    /// The place of a connection; `None` when there are too many, and all of them work.
    fn carrier(&self, identity: &Arc<str>) -> Option<Arc<Carrier>> {
        let mut all = lock(&self.0);
        if let Some(carrier) = all.get(identity) {
            return Some(Arc::clone(carrier));
        }
        if all.len() >= CARRIED_MAX {
            let idle = all.iter().filter(|(_, carrier)| carrier.is_idle());
            let oldest =
                idle.min_by_key(|(_, carrier)| *lock(&carrier.used)).map(|(name, _)| Arc::clone(name));
            all.remove(&oldest?).into_iter().for_each(|carrier| end(&carrier));
        }
        let carrier = Carrier::new();
        all.insert(Arc::clone(identity), Arc::clone(&carrier));
        Some(carrier)
    }

    /// Closes what nobody used for long.
    pub fn sweep(&self) {
        let mut all = lock(&self.0);
        all.retain(|_, carrier| {
            let stays = lock(&carrier.used).elapsed() < IDLE_MAX || !carrier.is_idle();
            if !stays {
                end(carrier);
            }
            stays
        });
    }

    /// Closes all.
    pub fn clear(&self) {
        std::mem::take(&mut *lock(&self.0)).values().for_each(|carrier| end(carrier));
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.0).len()
    }
}

/// Lets go of a connection politely.
fn end(carrier: &Carrier) {
    let live = lock(&carrier.live).take();
    if let (Some(live), Ok(runtime)) = (live, tokio::runtime::Handle::try_current()) {
        runtime.spawn(async move { live.leg.close(CLOSE_GRACE).await });
    }
}

impl Entry {
    /// The connection for requests from there; waits for one that is coming.
    ///
    /// # Errors
    /// Why there is none now.
    pub(crate) async fn reach(
        self: &Arc<Self>,
        gateway: &Arc<Gateway>,
        origin: &Origin,
    ) -> Result<Arc<Live>, Unavailable> {
        let place = self.slot.place().filter(|place| place.down.is_none());
        let Some(own) = place.as_deref().and_then(|place| origin.place(place)) else {
            return self.slot.ready().await;
        };
        let full = || Unavailable::Later("too many clients with headers of their own use it".to_owned());
        let carrier = self.carried.carrier(&origin.identity).ok_or_else(full)?;
        if let Some(live) = carrier.live(&own) {
            return Ok(live);
        }
        let _turn = carrier.opening.lock().await;
        if let Some(live) = carrier.live(&own) {
            return Ok(live);
        }
        let (tell, said) = mpsc::channel(SAID_MAX);
        let opening = keep::open_apart(&self.slot, &gateway.shared, &own, tell);
        let opened = tokio::time::timeout(OPEN_WITHIN, opening).await;
        let live = match opened {
            Ok(Ok(live)) => live,
            Ok(Err(why)) => return Err(Unavailable::Later(why.to_string())),
            Err(_elapsed) => {
                let why = format!("it did not answer within {} s", OPEN_WITHIN.as_secs());
                return Err(Unavailable::Later(why));
            }
        };
        let old = lock(&carrier.live).replace(Arc::clone(&live));
        if let Some(old) = old {
            tokio::spawn(async move { old.leg.close(CLOSE_GRACE).await });
        }
        let (gateway, entry) = (Arc::downgrade(gateway), Arc::downgrade(self));
        tokio::spawn(pass_on((gateway, entry), Arc::clone(&origin.identity), said));
        Ok(live)
    }

    /// Whether requests from there go over a connection of their own.
    pub(crate) fn carries(&self, origin: &Origin) -> bool {
        origin.has_headers() && self.slot.place().is_some_and(|place| !origin.headers_for(&place).is_empty())
    }
}

/// Tells the sessions of one identity what their server says outside of calls.
async fn pass_on(
    (gateway, entry): (Weak<Gateway>, Weak<Entry>),
    identity: Arc<str>,
    mut said: mpsc::Receiver<FromServer>,
) {
    while let Some(what) = said.recv().await {
        let (Some(gateway), Some(entry)) = (gateway.upgrade(), entry.upgrade()) else { return };
        // Connections that several requests share refuse questions before they come here.
        let FromServer::Notice(Notice { method, params }) = what else { continue };
        let uri = params.as_deref().and_then(|params| member(params, "uri")).and_then(text_of);
        let text = build::notification(&method, params.as_deref());
        for session in gateway.sessions.of(&entry.slot.id) {
            let concerned = match method.as_str() {
                "notifications/resources/updated" => {
                    uri.as_deref().is_some_and(|uri| session.is_subscribed(uri))
                }
                method => method.ends_with("/list_changed"),
            };
            if *session.principal == *identity
                && concerned
                && let Some(stream) = session.listening()
            {
                stream.push(&text, Keep::Must);
            }
        }
    }
}

#[cfg(test)]
mod tests;
