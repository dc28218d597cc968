//! Legacy sessions: who opened them, what they stand on, what is under way in them.
//!
//! A session on the shared connection holds nothing that a restart would lose for good: it is kept
//! in the state store before its client hears of it. One with a connection of its own ends with it.
//!
//! The id is a secret: it is given to the client once and only its SHA-256 is kept. Must never
//! answer whether a session of another principal exists.

pub mod in_flight;

use crate::gateway::combined::below::Below;
use crate::gateway::sessions::in_flight::Noted;
use crate::gateway::streams::store::EventStore;
use crate::gateway::streams::{Stream, StreamKind};
use crate::mcp::wire::LEGACY_VERSIONS;
use crate::model::fingerprint;
use crate::model::id::{ContainerId, ServerId};
use crate::model::session::{SessionChange, SessionRecord};
use crate::model::time::{Span, Timestamp};
use crate::upstream::leg::Leg;
use crate::world::Clock;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::{oneshot, watch};

/// Sessions of all servers together.
pub const SESSIONS_MAX: usize = 20_000;
/// A session that nobody used this long is ended.
pub const IDLE_MAX: Span = Span::secs(30 * 60);
/// Requests of a server that one client may have to answer.
const ASKED_MAX: usize = 64;
/// Resources one session may subscribe to.
pub const SUBSCRIPTIONS_MAX: usize = 1024;
/// The record of a session that is in use is renewed this often.
const TOUCH_EVERY: Span = Span::secs(60);

/// SHA-256 of a session's id.
pub type IdHash = [u8; 32];

/// What a session stands on.
#[derive(Debug)]
pub enum Backing {
    /// The connection that clients share.
    Shared,
    /// A connection of its own, and the container it leads to.
    Dedicated(Leg, Option<ContainerId>),
}

/// A client's answer to a request: its result, or its error.
pub type ClientAnswer = Result<Box<RawValue>, Box<RawValue>>;

/// Who waits for a client's answer to a request of the server.
#[derive(Debug)]
pub enum Asker {
    /// The server, under this id.
    Server(Box<RawValue>),
    /// We do, on behalf of a call.
    Call(oneshot::Sender<ClientAnswer>),
    /// A session below this one, under its own id.
    Below(Arc<Session>, Box<RawValue>),
}

impl Asker {
    /// Whether nobody waits any more.
    fn is_gone(&self) -> bool {
        match self {
            Self::Below(session, id) => !session.is_asked(id),
            Self::Call(waiting) => waiting.is_closed(),
            Self::Server(_) => false,
        }
    }
}

/// One session.
#[derive(Debug)]
pub struct Session {
    /// What it is found by.
    pub hash: IdHash,
    /// The server, whichever of its instances it is at.
    pub server: ServerId,
    /// The version agreed on.
    pub version: &'static str,
    /// Who opened it.
    pub principal: Arc<str>,
    /// What it stands on.
    pub backing: Backing,
    /// `capabilities` of the client, as written.
    pub capabilities: Box<RawValue>,
    /// `clientInfo`, as written.
    pub client: Option<Box<RawValue>>,
    /// Its event streams.
    pub streams: EventStore,
    replica: AtomicU32,
    created: Timestamp,
    last_used: AtomicI64,
    last_kept: AtomicI64,
    outside: OnceLock<Arc<Stream>>,
    inner: Mutex<Inner>,
    below: Mutex<BTreeMap<ServerId, Arc<Below>>>,
    forgotten: AtomicBool,
    ended: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Inner {
    in_flight: HashMap<String, Noted>,
    asked: BTreeMap<String, Asker>,
    subscriptions: BTreeSet<String>,
    /// Subscriptions at all servers, of an earlier process, that nobody has taken up.
    lost: BTreeSet<String>,
    log_level: Option<String>,
    next_asked: u64,
}

/// What a new session begins with.
#[derive(Debug)]
pub struct NewSession {
    /// The server, or the instance of it that the session is at.
    pub server: ServerId,
    /// The version agreed on.
    pub version: &'static str,
    /// Who opens it.
    pub principal: Arc<str>,
    /// What it stands on.
    pub backing: Backing,
    /// `capabilities` of the client.
    pub capabilities: Box<RawValue>,
    /// `clientInfo`.
    pub client: Option<Box<RawValue>>,
}

impl Session {
    fn new(hash: IdHash, new: NewSession, clock: &Arc<dyn Clock>) -> Self {
        let now = clock.now();
        let NewSession { server, version, principal, backing, capabilities, client } = new;
        Self {
            hash,
            replica: AtomicU32::new(server.replica_number()),
            server: server.server(),
            version,
            principal,
            backing,
            capabilities,
            client,
            streams: EventStore::new(Arc::clone(clock)),
            created: now,
            last_used: AtomicI64::new(now.0),
            last_kept: AtomicI64::new(now.0),
            outside: OnceLock::new(),
            inner: Mutex::default(),
            below: Mutex::default(),
            forgotten: AtomicBool::new(false),
            ended: watch::Sender::new(false),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the instance that it is at.
    #[must_use]
    pub fn replica(&self) -> u32 {
        self.replica.load(Relaxed)
    }

    /// It is at another instance from now on; the number of the one before.
    pub(crate) fn move_to(&self, replica: u32) -> u32 {
        self.replica.swap(replica, Relaxed)
    }

    /// Notes that the client was asked; false when it has too much to answer already.
    #[must_use]
    pub fn ask(&self, id: &RawValue, asker: Asker) -> bool {
        let mut inner = self.inner();
        inner.asked.retain(|_, asker| !asker.is_gone());
        if inner.asked.len() >= ASKED_MAX {
            return false;
        }
        inner.asked.insert(id.get().to_owned(), asker);
        true
    }

    /// An id for a request of ours to the client, not used before in this session.
    #[must_use]
    pub fn ask_id(&self) -> Box<RawValue> {
        let mut inner = self.inner();
        inner.next_asked += 1;
        let text = format!("\"mcpo-{}\"", inner.next_asked);
        drop(inner);
        RawValue::from_string(text).unwrap_or_default()
    }

    /// Who waits for the answer under this id, once.
    #[must_use]
    pub fn answered(&self, id: &RawValue) -> Option<Asker> {
        self.inner().asked.remove(id.get())
    }

    /// Requests under way in it, and requests of the server that its client has not answered.
    #[must_use]
    pub fn under_way(&self) -> (usize, usize) {
        let inner = self.inner();
        (inner.in_flight.len(), inner.asked.len())
    }

    /// Whether this request still waits for its answer.
    #[must_use]
    pub fn is_asked(&self, id: &RawValue) -> bool {
        self.inner().asked.contains_key(id.get())
    }

    /// The stream for what belongs to no request.
    #[must_use]
    pub fn outside(&self) -> &Arc<Stream> {
        self.outside.get_or_init(|| self.streams.open(StreamKind::Get))
    }

    /// Makes a stream the one outside of requests.
    pub fn listen_on(&self, stream: &Arc<Stream>) {
        let _first = self.outside.set(Arc::clone(stream));
    }

    /// That stream, if its client ever asked for it.
    #[must_use]
    pub fn listening(&self) -> Option<&Arc<Stream>> {
        self.outside.get()
    }

    /// Remembers a subscription; false when there are too many.
    #[must_use]
    pub fn subscribe(&self, uri: &str) -> bool {
        let mut inner = self.inner();
        inner.subscriptions.len() < SUBSCRIPTIONS_MAX && {
            inner.subscriptions.insert(uri.to_owned());
            true
        }
    }

    /// Forgets one.
    pub fn unsubscribe(&self, uri: &str) {
        self.inner().subscriptions.remove(uri);
    }

    /// Its subscriptions.
    #[must_use]
    pub fn subscriptions(&self) -> BTreeSet<String> {
        self.inner().subscriptions.clone()
    }

    /// What an earlier process had subscribed to for it, once.
    #[must_use]
    pub fn take_lost(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.inner().lost)
    }

    /// Whether it subscribed to `uri`.
    #[must_use]
    pub fn is_subscribed(&self, uri: &str) -> bool {
        self.inner().subscriptions.contains(uri)
    }

    /// The least severe log messages it wants.
    #[must_use]
    pub fn log_level(&self) -> Option<String> {
        self.inner().log_level.clone()
    }

    /// Sets that.
    pub fn set_log_level(&self, level: &str) {
        self.inner().log_level = Some(level.to_owned());
    }

    /// The place of a server's session below this one.
    #[must_use]
    pub fn below(&self, server: &ServerId) -> Arc<Below> {
        let mut below = self.below.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(below.entry(server.clone()).or_default())
    }

    /// The sessions below this one.
    #[must_use]
    pub fn all_below(&self) -> Vec<Arc<Self>> {
        let below = self.below.lock().unwrap_or_else(PoisonError::into_inner);
        below.values().filter_map(|below| below.session()).collect()
    }

    /// It ends with this process: nothing of it is kept.
    pub fn forget_at_the_end(&self) {
        self.forgotten.store(true, Ordering::Relaxed);
    }

    /// Whether it outlives this process.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        !self.forgotten.load(Ordering::Relaxed)
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        *self.ended.borrow()
    }

    /// Resolves when the session has ended.
    pub async fn over(&self) {
        let mut ended = self.ended.subscribe();
        let _dropped = ended.wait_for(|ended| *ended).await;
    }

    /// What is kept of it.
    #[must_use]
    pub fn record(&self) -> SessionRecord {
        let inner = self.inner();
        SessionRecord {
            id_hash: hex(&self.hash),
            server: self.server.replica(self.replica()),
            version: self.version.to_owned(),
            capabilities: self.capabilities.get().to_owned(),
            client: self.client.as_ref().map_or_else(|| "{}".to_owned(), |client| client.get().to_owned()),
            principal: self.principal.to_string(),
            log_level: inner.log_level.clone(),
            subscriptions: inner.subscriptions.iter().cloned().collect(),
            created: self.created,
            last_used: Timestamp(self.last_used.load(Relaxed)),
        }
    }
}

/// All sessions.
pub struct Sessions {
    clock: Arc<dyn Clock>,
    table: Mutex<Table>,
}

/// Sessions by what they are found by, and whose they are.
#[derive(Default)]
struct Table {
    all: HashMap<IdHash, Arc<Session>>,
    of: BTreeMap<ServerId, HashMap<IdHash, Arc<Session>>>,
}

impl Table {
    fn insert(&mut self, session: Arc<Session>) {
        let of = self.of.entry(session.server.clone()).or_default();
        of.insert(session.hash, Arc::clone(&session));
        self.all.insert(session.hash, session);
    }

    fn remove(&mut self, hash: &IdHash) -> Option<Arc<Session>> {
        let session = self.all.remove(hash)?;
        if let Some(of) = self.of.get_mut(&session.server) {
            of.remove(hash);
            if of.is_empty() {
                self.of.remove(&session.server);
            }
        }
        Some(session)
    }
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions").field("count", &self.count()).finish_non_exhaustive()
    }
}

impl Sessions {
    /// None yet.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, table: Mutex::default() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that an earlier run kept.
    pub fn restore(&self, records: Vec<SessionRecord>) {
        for record in records {
            let Some(session) = restored(&record, &self.clock) else { continue };
            self.table().insert(Arc::new(session));
        }
    }

    /// A new session and the id its client gets; `None` when there are too many, or no randomness.
    #[must_use]
    pub fn open(&self, new: NewSession) -> Option<(String, Arc<Session>)> {
        let id = secret()?;
        let session = Arc::new(Session::new(hash(&id), new, &self.clock));
        let mut table = self.table();
        if table.all.len() >= SESSIONS_MAX {
            return None;
        }
        table.insert(Arc::clone(&session));
        Some((id, session))
    }

    /// The session with this id, if it is this server's and this principal's; and what to keep of
    /// its use.
    #[must_use]
    pub fn find(
        &self,
        id: &str,
        server: &ServerId,
        principal: &str,
    ) -> Option<(Arc<Session>, Option<SessionChange>)> {
        let session = self.table().all.get(&hash(id)).cloned()?;
        if session.server != *server || *session.principal != *principal {
            return None;
        }
        let now = self.clock.now();
        session.last_used.store(now.0, Relaxed);
        let kept = Timestamp(session.last_kept.load(Relaxed));
        let due =
            now >= kept.after(TOUCH_EVERY) && matches!(session.backing, Backing::Shared) && session.is_kept();
        let touch = due.then(|| {
            session.last_kept.store(now.0, Relaxed);
            SessionChange::Touch { id_hash: hex(&session.hash), last_used: now }
        });
        Some((session, touch))
    }

    /// Takes a session out; whoever works for it is told.
    pub fn end(&self, hash: &IdHash) -> Option<Arc<Session>> {
        let session = self.table().remove(hash)?;
        session.ended.send_replace(true);
        session.streams.close();
        session.inner().asked.clear();
        Some(session)
    }

    /// Sessions at one instance of a server; at the first one under the server's own id.
    #[must_use]
    pub fn of(&self, instance: &ServerId) -> Vec<Arc<Session>> {
        let number = instance.replica_number();
        let own = (number != 1).then(|| instance.server());
        let table = self.table();
        let Some(of) = table.of.get(own.as_ref().unwrap_or(instance)) else { return Vec::new() };
        of.values().filter(|session| session.replica() == number).cloned().collect()
    }

    /// Sessions of a server, whichever of its instances they are at.
    #[must_use]
    pub fn of_server(&self, server: &ServerId) -> Vec<Arc<Session>> {
        self.table().of.get(server).map(|of| of.values().cloned().collect()).unwrap_or_default()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.table().all.len()
    }

    /// Sessions that nobody used for long.
    #[must_use]
    pub fn idle(&self) -> Vec<IdHash> {
        let now = self.clock.now();
        let idle = |session: &Session| {
            now > Timestamp(session.last_used.load(Relaxed)).after(IDLE_MAX)
                && session.inner().in_flight.is_empty()
                && !session.listening().is_some_and(|stream| stream.is_connected())
        };
        self.table().all.iter().filter(|(_, session)| idle(session)).map(|(hash, _)| *hash).collect()
    }
}

fn restored(record: &SessionRecord, clock: &Arc<dyn Clock>) -> Option<Session> {
    let version = LEGACY_VERSIONS.into_iter().find(|version| *version == record.version)?;
    let new = NewSession {
        server: record.server.clone(),
        version,
        principal: Arc::from(record.principal.as_str()),
        backing: Backing::Shared,
        capabilities: RawValue::from_string(record.capabilities.clone()).ok()?,
        client: RawValue::from_string(record.client.clone()).ok(),
    };
    let mut session = Session::new(unhex(&record.id_hash)?, new, clock);
    session.created = record.created;
    session.last_used = AtomicI64::new(record.last_used.0);
    {
        let mut inner = session.inner();
        inner.subscriptions = record.subscriptions.iter().cloned().collect();
        if record.server.is_combined() {
            inner.lost = inner.subscriptions.clone();
        }
        inner.log_level.clone_from(&record.log_level);
    }
    Some(session)
}

/// What a session is found by.
#[must_use]
pub fn hash(id: &str) -> IdHash {
    Sha256::digest(id.as_bytes()).into()
}

/// 128 bits that nobody can guess, in hexadecimal; `None` when the system has no randomness.
#[must_use]
pub fn secret() -> Option<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).ok()?;
    Some(hex(&random))
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    fingerprint::hex(bytes, bytes.len().saturating_mul(2))
}

fn unhex(text: &str) -> Option<IdHash> {
    let mut out = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (at, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    Some(out)
}
