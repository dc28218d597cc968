//! Calls of modern clients that wait for input, and the instances they run on.
//!
//! A call at a legacy server that may ask its client for something needs an instance that was
//! greeted with that client's capabilities, and has it for itself while it runs. So do lists: what
//! a server offers often depends on what the client can do. Afterwards the instance waits a while
//! for the next call of the same client.
//!
//! Must never lend one instance to two calls at once, nor to two principals one after the other:
//! a server remembers its client's roots.

use crate::gateway::Gateway;
use crate::gateway::flow::Flow;
use crate::gateway::hub::Entry;
use crate::gateway::legacy::error_object;
use crate::gateway::lock;
use crate::gateway::places::Keeper;
use crate::gateway::slot::own::{self, Dedicated};
use crate::gateway::slot::{self, Unavailable};
use crate::mcp::wire::{LEGACY_LATEST, METHOD_NOT_FOUND};
use crate::model::id::{ContainerId, ServerId};
use crate::upstream::leg::Leg;
use crate::upstream::table::{FromServer, ServerRequest};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit};
use tokio::time::Instant;

/// Calls that may wait for input, of all servers.
const PARKED_MAX: usize = 1024;
/// An instance that no call used this long is ended.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// A call that waits for its client.
#[derive(Debug)]
pub struct Parked {
    /// The call.
    pub flow: Flow,
    /// Its instance.
    pub lent: Lent,
    /// What was asked, by the name its client knows.
    pub wants: Vec<(String, ServerRequest)>,
    /// Until when, in milliseconds of the Unix epoch.
    pub expires_ms: i64,
}

/// Requests of one server that wait for a call; it gives up on older ones by itself.
const OWED_MAX: usize = 16;

/// Which calls an instance serves: server, the place it was made for, principal, and what the
/// client said of itself.
type Kind = (ServerId, String, String, String);

/// Whose instance it is.
#[derive(Debug, Clone, Copy)]
pub struct Whose<'a> {
    /// The client's owner.
    pub principal: &'a str,
    /// Where its request came from.
    pub origin: &'a crate::gateway::origin::Origin,
    /// What the client can be asked.
    pub capabilities: &'a RawValue,
    /// `clientInfo`.
    pub client: Option<&'a RawValue>,
    /// Waits for the client's other requests of this kind: lists come all at once, and need no
    /// instance each.
    pub in_turn: bool,
}

/// An instance of its own.
struct Instance {
    leg: Leg,
    keeper: Option<Box<dyn Keeper>>,
    /// What the server asked when nobody could be asked.
    owed: Vec<ServerRequest>,
    _permit: OwnedSemaphorePermit,
}

/// An instance that one call has for itself; goes back when dropped.
pub struct Lent {
    pool: Arc<Pool>,
    kind: Kind,
    leg: Leg,
    instance: Option<Instance>,
    /// Let go after the instance went back.
    _turn: Option<OwnedMutexGuard<()>>,
}

impl std::fmt::Debug for Lent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lent").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Lent {
    /// Its connection.
    #[must_use]
    pub const fn leg(&self) -> &Leg {
        &self.leg
    }

    /// Keeps a server's requests for the next call, which can pass them on.
    pub fn owe(&mut self, requests: Vec<ServerRequest>) {
        if let Some(instance) = &mut self.instance {
            let room = OWED_MAX.saturating_sub(instance.owed.len());
            instance.owed.extend(requests.into_iter().take(room));
        }
    }

    /// What earlier calls could not pass on.
    #[must_use]
    pub fn owed(&mut self) -> Vec<ServerRequest> {
        self.instance.as_mut().map(|instance| std::mem::take(&mut instance.owed)).unwrap_or_default()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(instance) = self.instance.take() {
            self.pool.give_back(self.kind.clone(), instance);
        }
    }
}

/// Parked calls and idle instances.
#[derive(Default)]
pub struct Pool {
    parked: Mutex<BTreeMap<String, Parked>>,
    idle: Mutex<BTreeMap<Kind, Vec<(Instant, Instance)>>>,
    turns: Mutex<BTreeMap<Kind, Arc<tokio::sync::Mutex<()>>>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl Pool {
    fn give_back(&self, kind: Kind, instance: Instance) {
        if instance.leg.is_closed() {
            end(instance);
        } else {
            lock(&self.idle).entry(kind).or_default().push((Instant::now(), instance));
        }
    }

    fn take(&self, kind: &Kind) -> Option<Instance> {
        let mut idle = lock(&self.idle);
        let instances = idle.get_mut(kind)?;
        while let Some((_, instance)) = instances.pop() {
            if !instance.leg.is_closed() {
                return Some(instance);
            }
            end(instance);
        }
        None
    }

    async fn turn(&self, kind: &Kind) -> OwnedMutexGuard<()> {
        let turn = Arc::clone(lock(&self.turns).entry(kind.clone()).or_default());
        turn.lock_owned().await
    }

    /// Keeps a call under a name nobody can guess.
    pub fn park(&self, name: String, parked: Parked) {
        let mut table = lock(&self.parked);
        if !name.is_empty() && table.len() < PARKED_MAX {
            table.insert(name, parked);
        }
    }

    /// Takes a call back, once.
    #[must_use]
    pub fn unpark(&self, name: &str) -> Option<Parked> {
        lock(&self.parked).remove(name)
    }

    /// Ends what waited too long; `keep` says whether a server and its place still exist.
    pub fn sweep(&self, now_ms: i64, keep: &dyn Fn(&ServerId, &str) -> bool) {
        let late: Vec<Parked> = {
            let mut table = lock(&self.parked);
            let names: Vec<String> = table
                .iter()
                .filter(|(_, call)| call.expires_ms <= now_ms)
                .map(|(name, _)| name.clone())
                .collect();
            names.iter().filter_map(|name| table.remove(name)).collect()
        };
        drop(late);
        lock(&self.turns).retain(|_, turn| Arc::strong_count(turn) > 1);
        let mut gone = Vec::new();
        lock(&self.idle).retain(|(server, place, ..), instances| {
            let wanted = keep(server, place);
            let (stay, go): (Vec<_>, Vec<_>) =
                std::mem::take(instances).into_iter().partition(|(since, instance)| {
                    wanted && since.elapsed() < IDLE_MAX && !instance.leg.is_closed()
                });
            gone.extend(go);
            *instances = stay;
            !instances.is_empty()
        });
        for (_, instance) in gone {
            end(instance);
        }
    }

    /// Ends idle instances and parked calls that stand on these containers.
    pub async fn end(&self, containers: &[ContainerId]) {
        let on = |instance: &Instance| {
            instance
                .keeper
                .as_ref()
                .and_then(|keeper| keeper.container())
                .is_some_and(|container| containers.contains(&container))
        };
        let mut gone = Vec::new();
        for instances in lock(&self.idle).values_mut() {
            let (go, stay): (Vec<_>, Vec<_>) =
                std::mem::take(instances).into_iter().partition(|(_, instance)| on(instance));
            *instances = stay;
            gone.extend(go);
        }
        let calls: Vec<Parked> = {
            let mut table = lock(&self.parked);
            let names: Vec<String> = table
                .iter()
                .filter(|(_, call)| call.lent.instance.as_ref().is_some_and(on))
                .map(|(name, _)| name.clone())
                .collect();
            names.iter().filter_map(|name| table.remove(name)).collect()
        };
        for mut call in calls {
            gone.extend(call.lent.instance.take().map(|instance| (Instant::now(), instance)));
        }
        for (_, Instance { leg, keeper, _permit, .. }) in gone {
            own::end(leg, keeper).await;
        }
    }

    /// Ends everything.
    pub fn clear(&self) {
        lock(&self.parked).clear();
        for (_, instance) in std::mem::take(&mut *lock(&self.idle)).into_values().flatten() {
            end(instance);
        }
    }
}

fn end(instance: Instance) {
    let Instance { leg, keeper, _permit, .. } = instance;
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(async move {
            own::end(leg, keeper).await;
            drop(_permit);
        });
    }
}

impl Gateway {
    /// An instance for one call of a client; `None` when the server can have only one, which is
    /// shared then.
    ///
    /// # Errors
    /// Why there is none now.
    pub(crate) async fn lend(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        whose: Whose<'_>,
    ) -> Result<Option<Lent>, Unavailable> {
        let Some(place) = entry.slot.place() else {
            return Err(Unavailable::Later("it is starting".to_owned()));
        };
        let initialize = initialize_params(whose.capabilities, whose.client);
        let kind = (
            entry.slot.id.clone(),
            place.key.clone(),
            whose.principal.to_owned(),
            initialize.get().to_owned(),
        );
        let turn = if whose.in_turn { Some(self.pool.turn(&kind).await) } else { None };
        let instance = match self.pool.take(&kind) {
            Some(instance) => instance,
            None => {
                let permit = entry.own_connections().ok_or_else(|| {
                    Unavailable::Later("too many clients have an instance of their own".to_owned())
                })?;
                let carrying = whose.origin.place(&place);
                let at = carrying.as_ref().unwrap_or(&place);
                match Dedicated::open(&entry.slot, &self.shared, at, initialize).await {
                    Ok(mut dedicated) => {
                        let keeper = dedicated.take_keeper();
                        let leg = dedicated.leg.clone();
                        tokio::spawn(overhear(Arc::downgrade(entry), dedicated));
                        Instance { leg, keeper, owed: Vec::new(), _permit: permit }
                    }
                    Err(why) if own::only_one(&why) => return Ok(None),
                    Err(why) => return Err(Unavailable::Later(why.to_string())),
                }
            }
        };
        let leg = instance.leg.clone();
        Ok(Some(Lent { pool: Arc::clone(&self.pool), kind, leg, instance: Some(instance), _turn: turn }))
    }

    /// Parks a call.
    pub(crate) fn park(&self, name: String, parked: Parked) {
        self.pool.park(name, parked);
    }

    /// Takes a parked call back.
    pub(crate) fn unpark(&self, name: &str) -> Option<Parked> {
        self.pool.unpark(name)
    }
}

/// Hands what an instance says outside of calls to those who listen; between calls there is nobody
/// to be asked.
async fn overhear(entry: Weak<Entry>, mut dedicated: Dedicated) {
    loop {
        let said = tokio::select! {
            _ = dedicated.leg.closed() => return,
            said = dedicated.said.recv() => said,
        };
        match (said, entry.upgrade()) {
            (Some(FromServer::Notice(notice)), Some(entry)) => entry.tell_listeners(&notice),
            (Some(FromServer::Request(request)), _) => {
                let error = error_object(METHOD_NOT_FOUND, "no call is under way that could ask the client");
                dedicated.leg.reply(&request.id, Err(&error));
            }
            (Some(FromServer::Refused(_)), _) => {}
            (None, _) | (_, None) => return,
        }
    }
}

/// A modern client's words about itself as the params of `initialize`. `roots` says nothing of
/// changes, which such a client cannot tell.
fn initialize_params(capabilities: &RawValue, client: Option<&RawValue>) -> Box<RawValue> {
    let us = slot::who_we_are();
    let client = client.map_or_else(
        || serde_json::json!({"name": us.name, "version": us.version}).to_string(),
        |client| client.get().to_owned(),
    );
    let text = format!(
        r#"{{"protocolVersion":"{LEGACY_LATEST}","capabilities":{},"clientInfo":{client}}}"#,
        capabilities.get()
    );
    RawValue::from_string(text).unwrap_or_default()
}
