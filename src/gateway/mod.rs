//! The way in for MCP clients: every server, whatever its transport and era, behind one endpoint
//! that speaks both eras.
//!
//! - [`places`] is what the gateway is told: where each server is.
//! - [`slot`] keeps one server's shared connection open, and lets requests wait for it; [`checkup`] asks
//!   over it how well the server is.
//! - [`instances`] is which of a server's instances a request goes to, and which a session is at.
//! - [`lists`] is what servers offer, kept until it changes; [`known`] what those said that sleep.
//! - [`demand`] is how servers that may sleep are used, and how they are put to sleep.
//! - [`flow`] is one request on its way, in any pair of eras.
//! - [`legacy`], [`modern`] and [`old`] are the three kinds of clients; [`sessions`] and [`parked`]
//!   what they leave waiting.
//! - [`combined`] is all servers as one; [`offered`] what of each is shown there, and [`lens`] what one
//!   client sees of that.
//! - [`hub`] tells everybody whom a server's news concern.
//! - [`body`], [`streams`] are answers; [`front`] puts requests to all of this.
//! - [`origin`] is where a request came from; [`carried`] the connections that carry headers of it.
//! - [`toolproxy`] serves tools to clients that know HTTP and no MCP, [`views`] what each scope sees there.
//! - [`traffic`] is what each server's requests are held to, whatever the door.
//! - [`metrics`], [`logs`], [`overview`] are what people see of it, and [`audit`] who called what.
//!
//! Must never log or count arguments and results, and never start or stop a server by itself.

pub mod audit;
pub mod beside;
pub mod body;
pub mod call;
pub mod carried;
pub mod checkup;
pub mod combined;
pub mod demand;
pub mod edges;
pub mod flow;
pub mod front;
pub mod guard;
pub mod http;
pub mod hub;
pub mod instances;
pub mod known;
pub mod legacy;
pub mod lens;
pub mod lists;
pub mod logs;
#[cfg(test)]
mod machine_tests;
pub mod metrics;
pub mod modern;
pub mod offered;
pub mod old;
pub mod origin;
pub mod overview;
pub mod parked;
pub mod places;
#[cfg(test)]
mod played;
pub mod room;
pub mod sessions;
pub mod slot;
pub mod storm;
pub mod streams;
pub mod toolproxy;
pub mod traffic;
pub mod views;

use crate::gateway::body::Response;
use crate::gateway::hub::Entry;
use crate::gateway::places::{Down, Places, Source};
use crate::gateway::sessions::{Backing, IdHash, Sessions};
use crate::gateway::slot::Unavailable;
use crate::mcp::build;
use crate::mcp::front::{Head, Refusal};
use crate::mcp::wire::{INTERNAL_ERROR, member, text_of};
use crate::model::health::Condition;
use crate::model::id::{ContainerId, ServerId};
use crate::model::memory::End;
use crate::model::observed::Contact;
use crate::model::session::SessionChange;
use crate::world::SessionStore;
use hyper::header::HeaderValue;
use hyper::{Method, StatusCode};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Changes of sessions that may wait to be kept.
const KEEPING_MAX: usize = 4096;
/// Changes that are kept together.
const TOGETHER_MAX: usize = 512;
/// A client is told of its session at the latest after this long, kept or not.
const KEEP_WITHIN: Duration = Duration::from_secs(2);
/// Instances of clients' own have this long to end with the daemon; the next one sweeps the rest. An
/// instance that hears nothing takes [`slot::CLOSE_GRACE`] and then [`places::END_WITHIN`].
const STOP_WITHIN: Duration = Duration::from_secs(15);
const _: () = assert!(
    STOP_WITHIN.as_millis() > slot::CLOSE_GRACE.as_millis() + places::END_WITHIN.as_millis(),
    "whatever ends in its time is waited for"
);
/// Between two looks for what nobody uses any more.
const SWEEP_EVERY: Duration = Duration::from_secs(15);

/// All servers, their clients, and what is between them.
#[derive(Debug)]
pub struct Gateway {
    pub(crate) shared: Arc<slot::Shared>,
    pub(crate) sessions: Sessions,
    pub(crate) pool: Arc<parked::Pool>,
    pub(crate) doors: old::Doors,
    pub(crate) seal_key: [u8; 32],
    pub(crate) combined: combined::Combined,
    pub(crate) room: Arc<room::Room>,
    pub(crate) calls: Arc<audit::CallLog>,
    /// Every instance of every server.
    entries: RwLock<BTreeMap<ServerId, Arc<Entry>>>,
    pub(crate) groups: instances::Groups,
    keeping: mpsc::Sender<Change>,
    /// The version of the files that the places are of; 0: none yet.
    generation: AtomicU64,
    drained: AtomicBool,
}

/// A change to be kept, and who wants to know when it is.
type Change = (SessionChange, Option<oneshot::Sender<()>>);

/// One request, as the kinds of clients see it.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// Where it came to.
    pub gateway: &'a Arc<Gateway>,
    /// Whom it is for.
    pub entry: &'a Arc<Entry>,
    /// Its headers.
    pub head: &'a Head<'a>,
    /// What its sessions and connections are bound to.
    pub principal: &'a Arc<str>,
    /// Where it came from.
    pub origin: &'a origin::Origin,
    /// Its body.
    pub body: &'a [u8],
    /// What its sender sees of the server, where that is not all.
    pub lens: Option<&'a Arc<lens::Lens>>,
}

impl Ask<'_> {
    /// Notes a call that its client may not make.
    pub(crate) fn refused_call(&self, id: &RawValue, (method, params): (&str, Option<&RawValue>)) {
        let tool = tool_of(method, params);
        self.entry.metrics.refused_call(self.origin, (method, &tool), Some(id));
    }
}

impl Gateway {
    /// A gateway without servers. Sessions that an earlier run kept go on.
    ///
    /// Must be called within a tokio runtime. `seal_key` must be one that nobody can guess.
    #[must_use]
    pub fn new(shared: slot::Shared, store: Arc<dyn SessionStore>, seal_key: [u8; 32]) -> Arc<Self> {
        let (keeping, changes) = mpsc::channel(KEEPING_MAX);
        let gateway = Arc::new(Self {
            sessions: Sessions::new(Arc::clone(&shared.clock)),
            calls: audit::CallLog::new(Arc::clone(&shared.clock)),
            shared: Arc::new(shared),
            pool: Arc::default(),
            doors: old::Doors::default(),
            seal_key,
            combined: combined::Combined::default(),
            room: Arc::new(room::Room::new(checkup::PROBES_MAX)),
            entries: RwLock::default(),
            groups: instances::Groups::default(),
            keeping,
            generation: AtomicU64::new(0),
            drained: AtomicBool::new(false),
        });
        tokio::spawn(keep_changes(store, changes));
        tokio::spawn(sweep(Arc::downgrade(&gateway)));
        tokio::spawn(combined::watch(Arc::downgrade(&gateway), Arc::clone(&gateway.combined.news)));
        gateway
    }

    /// Says where the servers are; those that are not named any more go.
    pub fn set_places(self: &Arc<Self>, places: &Places) {
        // Who comes first is started first, see [`slot::Shared::starts`].
        let mut order: Vec<(&ServerId, &Arc<places::Place>)> = places.iter().collect();
        order.sort_by_key(|(_, place)| std::cmp::Reverse(place.priority));
        let (gone, stay): (Vec<Arc<Entry>>, Vec<Arc<Entry>>) = {
            let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
            for (id, _) in order.iter().copied() {
                if !entries.contains_key(id) {
                    entries.insert(id.clone(), Entry::start(self, id));
                }
            }
            let gone: Vec<ServerId> =
                entries.keys().filter(|id| !places.contains_key(*id)).cloned().collect();
            let gone = gone.iter().filter_map(|id| entries.remove(id)).collect();
            (gone, entries.values().cloned().collect())
        };
        self.groups.set(&stay);
        for entry in gone {
            instances::home::leave(self, &entry);
            self.groups.leave(entry, &self.shared.news);
        }
        for (id, place) in order {
            if let Some(entry) = self.entry(id) {
                let moved = |held: &Arc<places::Place>| !held.key.is_empty() && held.key != place.key;
                let process = matches!(place.source, Source::Process(_));
                let stopped = process && matches!(place.down, Some(Down::Stopped(_)));
                if stopped || (place.down.is_none() && entry.slot.place().as_ref().is_some_and(moved)) {
                    self.end_dedicated(id);
                }
                if entry.slot.place().is_some_and(|held| held.spec != place.spec) {
                    entry.traffic.anew();
                }
                entry.traffic.set(&place.offer.traffic);
                entry.slot.set_place(Arc::clone(place));
            }
        }
    }

    /// Says which version of the files is served; 0 while nothing is.
    pub fn set_generation(&self, generation: u64) {
        self.generation.store(generation, Ordering::Relaxed);
    }

    /// Says whether this host is drained: /readyz tells whoever sends requests here.
    pub fn set_drained(&self, drained: bool) {
        self.drained.store(drained, Ordering::Relaxed);
    }

    /// Whether this host is drained.
    #[must_use]
    pub fn drained(&self) -> bool {
        self.drained.load(Ordering::Relaxed)
    }

    /// The version of the files that is served; 0 while nothing is.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// A server's first instance, or the instance with this id.
    #[must_use]
    pub fn entry(&self, id: &ServerId) -> Option<Arc<Entry>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// All servers, each by its first instance.
    #[must_use]
    pub fn servers(&self) -> Vec<Arc<Entry>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.values().filter(|entry| entry.replica == 1).cloned().collect()
    }

    /// All instances of all servers.
    #[must_use]
    pub fn entries(&self) -> Vec<Arc<Entry>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// How the connection to every instance of every server stands, those included that are leaving.
    #[must_use]
    pub fn contacts(&self) -> BTreeMap<ServerId, Contact> {
        let now = self.shared.clock.now();
        let leaving = self.groups.leaving(now).into_iter();
        let entries = self.entries();
        let here = entries.iter().map(|entry| (entry.slot.id.clone(), entry.slot.contact(now)));
        leaving.chain(here).collect()
    }

    /// How processes ended last that nobody had asked to end, with their last words.
    #[must_use]
    pub fn ends(&self) -> BTreeMap<ServerId, End> {
        let of = |entry: &Arc<Entry>| Some((entry.slot.id.clone(), entry.logs.end()?));
        self.entries().iter().filter_map(of).collect()
    }

    /// How well the servers are that are to run and were looked at.
    #[must_use]
    pub fn conditions(&self) -> BTreeMap<ServerId, Condition> {
        let of = |entry: &Arc<Entry>| Some((entry.slot.id.clone(), entry.checkup.condition()?));
        self.entries().iter().filter_map(of).collect()
    }

    /// How many servers are asked at once (`[health] max_parallel_probes`).
    pub fn set_probes_max(&self, most: usize) {
        self.room.set(most);
    }

    /// How many processes are started at once (`[service] max_parallel_operations`).
    pub fn set_starts_max(&self, most: usize) {
        self.shared.starts.set(most);
    }

    /// Who called what.
    #[must_use]
    pub const fn calls(&self) -> &Arc<audit::CallLog> {
        &self.calls
    }

    /// Sessions that are open.
    #[must_use]
    pub const fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Sessions whose own instance was made from an older declaration: their clients start anew.
    fn end_dedicated(&self, id: &ServerId) {
        for session in self.sessions.of(id) {
            if matches!(session.backing, Backing::Dedicated(..)) {
                self.end_session(&session.hash);
            }
        }
    }

    /// Ends a session and what it stands on.
    pub(crate) fn end_session(&self, hash: &IdHash) {
        let Some(session) = self.sessions.end(hash) else { return };
        if let Some(stream) = session.listening() {
            stream.finish();
        }
        if matches!(session.backing, Backing::Shared) {
            if session.is_kept() {
                self.keep_later(SessionChange::Remove(sessions::hex(hash)));
            }
            let first = self.entry(&session.server);
            if let Some(entry) = first.and_then(|entry| entry.group.member(session.replica())) {
                entry.unsubscribe_all(self, &session);
            }
        }
    }

    /// Keeps a change some time soon.
    pub(crate) fn keep_later(&self, change: SessionChange) {
        // A lost touch costs a session at worst half an hour of its idle time.
        let _full = self.keeping.try_send((change, None));
    }

    /// Keeps what changed of a session some time soon.
    pub(crate) fn keep_session(&self, session: &sessions::Session) {
        if session.is_kept() {
            self.keep_later(SessionChange::Put(session.record()));
        }
    }

    /// Keeps a change and returns when it is kept.
    pub(crate) async fn keep_now(&self, change: SessionChange) {
        let (done, kept) = oneshot::channel();
        if self.keeping.send((change, Some(done))).await.is_ok() {
            let _late = tokio::time::timeout(KEEP_WITHIN, kept).await;
        }
    }

    /// What every slot needs.
    #[must_use]
    pub fn shared(&self) -> Arc<slot::Shared> {
        Arc::clone(&self.shared)
    }

    /// Has a process, with what clients have of their own of it, or the connection to a server elsewhere
    /// started anew; returns when nothing of what served is left.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn restart(&self, server: &ServerId) -> Result<(), String> {
        let Some(entry) = self.entry(server) else { return Ok(()) };
        self.end_dedicated(server);
        entry.traffic.anew();
        entry.slot.restart().await
    }

    /// Ends the sessions and waiting calls that stand on these instances of a server.
    pub async fn end_instances(&self, server: &ServerId, containers: &[ContainerId]) {
        for session in self.sessions.of(server) {
            if let Backing::Dedicated(_, Some(container)) = &session.backing
                && containers.contains(container)
            {
                self.end_session(&session.hash);
            }
        }
        self.pool.end(containers).await;
    }

    /// Ends what clients have of their own, and begins to end processes; shared containers go on
    /// running.
    pub async fn stop(&self) {
        self.pool.clear();
        self.combined.stop();
        for entry in self.entries() {
            self.end_dedicated(&entry.slot.id);
            entry.carried.clear();
            entry.slot.end_process();
        }
        let entries = self.entries();
        let ended = async {
            for entry in &entries {
                entry.all_own_ended().await;
            }
        };
        if tokio::time::timeout(STOP_WITHIN, ended).await.is_err() {
            let left: usize = entries.iter().map(|entry| entry.own_count()).sum();
            tracing::warn!(
                "{left} instances of clients' own have not ended in {} s; the next start removes what is left",
                STOP_WITHIN.as_secs()
            );
        }
        self.calls.flush().await;
    }
}

async fn keep_changes(store: Arc<dyn SessionStore>, mut changes: mpsc::Receiver<Change>) {
    let mut together = Vec::new();
    while changes.recv_many(&mut together, TOGETHER_MAX).await > 0 {
        let (batch, waiting): (Vec<SessionChange>, Vec<_>) = together.drain(..).unzip();
        if let Err(error) = store.apply(&batch).await {
            tracing::warn!(
                MCP_ERROR_CODE = error.kind.code(),
                "sessions do not outlive this process: {error}"
            );
        }
        for done in waiting.into_iter().flatten() {
            let _gone = done.send(());
        }
    }
}

async fn sweep(gateway: std::sync::Weak<Gateway>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let Some(gateway) = gateway.upgrade() else { return };
        for hash in gateway.sessions.idle() {
            gateway.end_session(&hash);
        }
        let now = gateway.shared.clock.now().0;
        let keep = |server: &ServerId, key: &str| {
            gateway.entry(server).and_then(|entry| entry.slot.place()).is_some_and(|place| place.key == key)
        };
        gateway.pool.sweep(now, &keep);
        gateway.entries().iter().for_each(|entry| entry.carried.sweep());
        gateway.note_uses();
    }
}

/// What a mutex holds. Nothing here panics while holding one; a poisoned value is still whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request that is refused: its status and a JSON-RPC error.
pub(crate) fn refused(id: Option<&RawValue>, refusal: &Refusal) -> Response {
    body::json(legacy::code(refusal.status), refusal.body(id))
}

/// A server that cannot be reached now.
pub(crate) fn unavailable(id: Option<&RawValue>, why: &Unavailable) -> Response {
    let text = not_available(id, why);
    let mut response = body::json(StatusCode::SERVICE_UNAVAILABLE, text);
    come_again(&mut response, why.retry_after_secs());
    response
}

/// The words for that.
pub(crate) fn not_available(id: Option<&RawValue>, why: &Unavailable) -> String {
    let text = format!("the server is not available: {why}");
    match why {
        Unavailable::Late(_) => {
            build::denied(id, INTERNAL_ERROR, (&text, slot::LATE), why.retry_after_secs())
        }
        _ => build::error(id, INTERNAL_ERROR, &text),
    }
}

/// Says after how many seconds another try makes sense.
pub(crate) fn come_again(response: &mut Response, secs: Option<u64>) {
    if let Some(secs) = secs {
        response.headers_mut().insert(hyper::header::RETRY_AFTER, HeaderValue::from(secs));
    }
}

/// A method that a path does not have.
pub(crate) fn not_allowed(allowed: &'static str) -> Response {
    let mut response = body::empty(StatusCode::METHOD_NOT_ALLOWED);
    response.headers_mut().insert(hyper::header::ALLOW, HeaderValue::from_static(allowed));
    response
}

/// The name of the tool, prompt or resource template a request is about, for counting: tools only.
pub(crate) fn tool_of(method: &str, params: Option<&RawValue>) -> String {
    if method != "tools/call" {
        return String::new();
    }
    let name = params.and_then(|params| member(params, "name")).and_then(text_of);
    name.map(std::borrow::Cow::into_owned).unwrap_or_default()
}

/// Whether a method is one that MCP endpoints know.
pub(crate) fn is_known(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::POST | Method::DELETE)
}
