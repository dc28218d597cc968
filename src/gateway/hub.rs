//! One server, or one of its instances, with everybody who has to do with it: whom its news concern.
//!
//! ```text
//! a list changed       every session that listens, also at other instances, once; subscriptions that
//!                      asked for it
//! a resource changed   sessions and subscriptions that named it
//! another connection   lists may have changed; what was subscribed to is subscribed to again
//! ```
//! Must never tell one client what another subscribed to.

use crate::gateway::checkup::{self, Checkup};
use crate::gateway::instances::Group;
use crate::gateway::known::{Memo, Offers};
use crate::gateway::lists::Lists;
use crate::gateway::lock;
use crate::gateway::logs::LogRing;
use crate::gateway::metrics::ServerMetrics;
use crate::gateway::offered::Offered;
use crate::gateway::sessions::Session;
use crate::gateway::slot::{Inlets, Live, Owned, Slot, keep};
use crate::gateway::streams::{Keep, Stream};
use crate::gateway::traffic::Traffic;
use crate::gateway::{Gateway, call, legacy};
use crate::mcp::build;
use crate::mcp::listen::{self, ListenFilter};
use crate::mcp::mirror;
use crate::mcp::wire::{Era, member, text_of};
use crate::model::id::ServerId;
use crate::upstream::leg::{Call, Leg, OnDrop};
use crate::upstream::table::{Diagnostic, FromServer, Notice};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::AbortHandle;

/// Instances of one server that clients have for themselves.
const OWN_MAX: usize = 64;
/// Subscriptions of modern clients at one server.
const LISTENERS_MAX: usize = 4096;
/// Wait for a server's answer that only we want.
const ASK_WITHIN: Duration = Duration::from_secs(30);
/// How long a server may say nothing where no entry says otherwise.
const SILENCE: Duration = Duration::from_secs(300);
/// The same for a list, whatever the entry says: clients of many servers ask all of them before they
/// show anything, and the usual ones give up after 10 s (health) or 30 s (lists).
pub const LIST_SILENCE_MAX: Duration = Duration::from_secs(8);
/// Notifications of one subscription of ours that may wait.
const HEARD_MAX: usize = 256;

/// The schemas of tools whose arguments are repeated in headers, by tool.
pub type Schemas = BTreeMap<String, Box<RawValue>>;

/// One instance of a server and everybody who has to do with it.
pub struct Entry {
    /// The server's instances, and what they share.
    pub group: Arc<Group>,
    /// Which of them this is: 1 is the first.
    pub replica: u32,
    /// Its connection.
    pub slot: Arc<Slot>,
    /// What is counted.
    pub metrics: Arc<ServerMetrics>,
    /// What it printed.
    pub logs: Arc<LogRing>,
    /// How well it is.
    pub checkup: Checkup,
    /// What the server offers.
    pub lists: Arc<Lists>,
    /// The same, as clients of all servers get it.
    pub offered: Arc<Offered>,
    /// What it said of itself, for when it sleeps.
    pub memo: Arc<Memo>,
    pub(crate) offers: Arc<dyn Offers>,
    /// What its requests are held to.
    pub traffic: Traffic,
    /// Connections that carry clients' headers.
    pub carried: crate::gateway::carried::Carried,
    /// When nothing could be sent to it, while there are others.
    pub(crate) shunned: Mutex<Option<tokio::time::Instant>>,
    /// It is no more: whatever it still has goes elsewhere.
    pub(crate) left: std::sync::atomic::AtomicBool,
    own: Arc<Semaphore>,
    schemas: tokio::sync::Mutex<Option<(u64, Arc<Schemas>)>>,
    held: Mutex<Held>,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("slot", &self.slot).finish_non_exhaustive()
    }
}

/// A modern client's subscription that the gateway holds.
#[derive(Debug)]
pub(crate) struct Listener {
    /// The request's.
    pub id: Box<RawValue>,
    /// What the client wants to hear.
    pub filter: ListenFilter,
    /// Where it hears it.
    pub stream: Arc<Stream>,
    /// The connection whose lists the client knows: only a later one is news.
    pub generation: u64,
    /// The instance that it is held for.
    pub replica: u32,
}

/// Our own subscription at a modern server, on behalf of legacy sessions.
#[derive(Debug, Default)]
struct Held {
    generation: u64,
    uris: BTreeSet<String>,
    task: Option<AbortHandle>,
}

impl Entry {
    /// Begins to look after an instance of a server.
    pub(crate) fn start(gateway: &Arc<Gateway>, id: &ServerId) -> Arc<Self> {
        let group = gateway.groups.of(gateway, id.server());
        let (slot, inlets) = Slot::touching(id.clone(), Arc::clone(&gateway.shared.news), &group.touch);
        let entry = Arc::new(Self {
            slot: Arc::clone(&slot),
            metrics: ServerMetrics::noting(id, &gateway.calls, (&slot.touch, group.several())),
            logs: Arc::default(),
            checkup: Checkup::default(),
            lists: Arc::clone(&group.lists),
            offered: Arc::clone(&group.offered),
            memo: Arc::clone(&group.memo),
            offers: Arc::clone(&gateway.shared.offers),
            traffic: Traffic::new(id, &group.limits),
            carried: crate::gateway::carried::Carried::default(),
            shunned: Mutex::default(),
            left: std::sync::atomic::AtomicBool::new(false),
            own: Arc::new(Semaphore::new(OWN_MAX)),
            schemas: tokio::sync::Mutex::new(None),
            held: Mutex::default(),
            tasks: Mutex::default(),
            replica: id.replica_number(),
            group,
        });
        let Inlets { owned, diagnostics } = inlets;
        let tasks = [
            tokio::spawn(keep::keep(slot, Arc::clone(&gateway.shared))).abort_handle(),
            tokio::spawn(hear(Arc::downgrade(gateway), Arc::downgrade(&entry), owned)).abort_handle(),
            tokio::spawn(keep_logs(Arc::downgrade(&entry), diagnostics)).abort_handle(),
            tokio::spawn(checkup::watch(
                Arc::downgrade(&entry),
                Arc::clone(&gateway.shared),
                Arc::clone(&gateway.room),
            ))
            .abort_handle(),
        ];
        lock(&entry.tasks).extend(tasks);
        if entry.replica == 1 {
            entry.recall();
        }
        entry
    }

    /// Stops looking after it.
    pub(crate) fn stop(&self) {
        for task in lock(&self.tasks).drain(..) {
            task.abort();
        }
        if let Some(task) = lock(&self.held).task.take() {
            task.abort();
        }
        lock(&self.group.listeners).retain(|listener| {
            let stays = listener.replica != self.replica;
            if !stays {
                listener.end();
            }
            stays
        });
        self.carried.clear();
        self.slot.close();
    }

    /// Whether the server answers MCP.
    ///
    /// # Errors
    /// Why not.
    pub(crate) async fn health(&self, gateway: &Gateway) -> Result<(), String> {
        self.checkup.serves(&self.slot, &gateway.shared, &gateway.room).await
    }

    /// How long the server may say nothing to a request.
    pub(crate) fn silence(&self, method: &str) -> Duration {
        let own = self.slot.place().map_or(SILENCE, |place| place.timeout);
        if method.ends_with("/list") { own.min(LIST_SILENCE_MAX) } else { own }
    }

    /// The right to one more instance of a client's own.
    pub(crate) fn own_connections(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.own).try_acquire_owned().ok()
    }

    /// Whether a modern client's subscription is held here.
    pub(crate) fn is_listened_to(&self) -> bool {
        lock(&self.group.listeners).iter().any(|listener| listener.replica == self.replica)
    }

    /// Instances that clients and calls have for themselves.
    pub(crate) fn own_count(&self) -> usize {
        OWN_MAX.saturating_sub(self.own.available_permits())
    }

    /// Waits until no client has an instance of its own.
    pub(crate) async fn all_own_ended(&self) {
        let all = u32::try_from(OWN_MAX).unwrap_or(u32::MAX);
        let _permits = self.own.acquire_many(all).await;
    }

    /// Holds a subscription until its client goes away.
    pub(crate) fn listen(self: &Arc<Self>, gateway: &Arc<Gateway>, leg: &Leg, listener: Listener) {
        let (uris, stream) = (listener.filter.uris.clone(), Arc::clone(&listener.stream));
        let mut listeners = lock(&self.group.listeners);
        if listeners.len() >= LISTENERS_MAX {
            stream.finish();
            return;
        }
        listeners.push(listener);
        drop(listeners);
        for uri in &uris {
            self.tell_server(leg, "resources/subscribe", uri);
        }
        let (entry, gateway) = (Arc::clone(self), Arc::downgrade(gateway));
        tokio::spawn(async move {
            stream.abandoned().await;
            // It may have moved to another instance.
            let mut at = entry.replica;
            lock(&entry.group.listeners).retain(|listener| {
                let stays = !Arc::ptr_eq(&listener.stream, &stream);
                at = if stays { at } else { listener.replica };
                stays
            });
            if let Some(gateway) = gateway.upgrade() {
                let at = entry.group.member(at).unwrap_or(entry);
                at.unsubscribe(&gateway, &uris);
            }
        });
    }

    /// What a session's request means for the shared connection. False when the server need not
    /// hear of it: the gateway answers.
    pub(crate) fn on_shared(
        self: &Arc<Self>,
        gateway: &Arc<Gateway>,
        session: &Arc<Session>,
        (method, params): (&str, Option<&RawValue>),
        modern: bool,
    ) -> bool {
        let uri = || params.and_then(|params| member(params, "uri")).and_then(text_of);
        match method {
            "logging/setLevel" => {
                let level = params.and_then(|params| member(params, "level")).and_then(text_of);
                let Some(level) = level else { return !modern };
                session.set_log_level(&level);
                gateway.keep_session(session);
                // The server hears of the least severe level that anybody wants.
                let wanted = crate::gateway::flow::severity(&level);
                let least = gateway.sessions.of(&self.slot.id).iter().all(|other| {
                    other.log_level().is_none_or(|other| crate::gateway::flow::severity(&other) >= wanted)
                });
                least && !modern
            }
            "resources/subscribe" => {
                let Some(uri) = uri() else { return !modern };
                if session.subscribe(&uri) {
                    gateway.keep_session(session);
                }
                if modern {
                    self.hold(gateway);
                }
                !modern
            }
            "resources/unsubscribe" => {
                let Some(uri) = uri() else { return !modern };
                session.unsubscribe(&uri);
                gateway.keep_session(session);
                if modern {
                    self.hold(gateway);
                }
                !modern && !self.is_wanted(gateway, &uri)
            }
            _ => true,
        }
    }

    fn is_wanted(&self, gateway: &Gateway, uri: &str) -> bool {
        gateway.sessions.of(&self.slot.id).iter().any(|session| session.is_subscribed(uri))
            || lock(&self.group.listeners).iter().any(|listener| {
                listener.replica == self.replica && listener.filter.uris.iter().any(|held| held == uri)
            })
    }

    /// A session ended: what only it wanted is not subscribed to any more.
    pub(crate) fn unsubscribe_all(self: &Arc<Self>, gateway: &Gateway, session: &Session) {
        let uris: Vec<String> = session.subscriptions().into_iter().collect();
        self.unsubscribe(gateway, &uris);
    }

    /// What is subscribed to for clients that came from another instance.
    pub(crate) fn subscribe(self: &Arc<Self>, gateway: &Arc<Gateway>, live: &Live, uris: &[String]) {
        if live.leg.greeting().era == Era::Modern {
            self.hold(gateway);
            return;
        }
        for uri in uris {
            self.tell_server(&live.leg, "resources/subscribe", uri);
        }
    }

    pub(crate) fn unsubscribe(&self, gateway: &Gateway, uris: &[String]) {
        let Some(live) = self.slot.live() else { return };
        if live.leg.greeting().era == Era::Modern {
            return;
        }
        for uri in uris.iter().filter(|uri| !self.is_wanted(gateway, uri)) {
            self.tell_server(&live.leg, "resources/unsubscribe", uri);
        }
    }

    /// A request whose answer nobody waits for.
    fn tell_server(&self, leg: &Leg, method: &str, uri: &str) {
        let params = format!(r#"{{"uri":{}}}"#, serde_json::Value::from(uri));
        let Ok(params) = RawValue::from_string(params) else { return };
        let call = Call { on_drop: OnDrop::Leave, ..Call::new(method, Some(&params)) };
        if let Ok(mut running) = leg.start(call) {
            tokio::spawn(async move { running.answer(ASK_WITHIN).await.map(drop) });
        }
    }

    /// The schemas of a modern server's tools, asked for once per connection and list.
    pub(crate) async fn schemas(&self, live: &Live) -> Arc<Schemas> {
        let mut held = self.schemas.lock().await;
        if let Some((generation, schemas)) = held.as_ref()
            && *generation == live.generation
        {
            return Arc::clone(schemas);
        }
        let schemas = Arc::new(read_schemas(live).await);
        *held = Some((live.generation, Arc::clone(&schemas)));
        schemas
    }

    fn tell(self: &Arc<Self>, gateway: &Arc<Gateway>, notice: &Notice) {
        let Notice { method, params } = notice;
        self.lists.told(method);
        self.offered.said(method);
        if method == "notifications/tools/list_changed" {
            self.traffic.forget();
        }
        let wide = self.group.is_news(method);
        legacy::tell(self, gateway, method, params.as_deref());
        self.tell_if(notice, |listener| wide || listener.replica == self.replica);
        if wide {
            let others = self.group.members().into_iter().filter(|other| other.replica != self.replica);
            for other in others {
                legacy::tell(&other, gateway, method, params.as_deref());
            }
        }
    }

    /// Tells modern clients only.
    pub(crate) fn tell_listeners(&self, notice: &Notice) {
        self.tell_if(notice, |listener| listener.replica == self.replica);
    }

    fn tell_if(&self, Notice { method, params }: &Notice, whom: impl Fn(&Listener) -> bool) {
        for listener in lock(&self.group.listeners).iter().filter(|listener| whom(listener)) {
            if listener.filter.admits(method, params.as_deref()) {
                let text = listen::tagged(method, params.as_deref(), &listener.id);
                listener.stream.push(&text, Keep::Must);
            }
        }
    }

    /// Another connection serves.
    fn renewed(self: &Arc<Self>, gateway: &Arc<Gateway>) {
        self.offered.renewed();
        self.traffic.forget();
        let Some(live) = self.slot.live() else { return };
        self.learn(&live);
        let modern = live.leg.greeting().era == Era::Modern;
        if modern {
            self.hold(gateway);
        } else {
            let mut uris: BTreeSet<String> = BTreeSet::new();
            for session in gateway.sessions.of(&self.slot.id) {
                uris.extend(session.subscriptions());
            }
            let listeners = lock(&self.group.listeners);
            let here = listeners.iter().filter(|listener| listener.replica == self.replica);
            uris.extend(here.flat_map(|listener| listener.filter.uris.clone()));
            drop(listeners);
            for uri in &uris {
                self.tell_server(&live.leg, "resources/subscribe", uri);
            }
        }
        for method in Self::what_may_have_changed(&live) {
            legacy::tell(self, gateway, &method, None);
            self.tell_if(&Notice { method, params: None }, |listener| {
                listener.replica == self.replica && listener.generation < live.generation
            });
        }
    }

    /// The news of a connection that is another one, as far as its server tells changes at all.
    pub(crate) fn what_may_have_changed(live: &Live) -> Vec<String> {
        let capabilities = live.leg.server_info().and_then(|server| server.capabilities());
        let tells = |kind: &&str| {
            let kind = capabilities.and_then(|all| member(all, kind));
            kind.and_then(|kind| member(kind, "listChanged")).is_some_and(|flag| flag.get() == "true")
        };
        let kinds = ["tools", "prompts", "resources"].into_iter().filter(tells);
        kinds.map(|kind| format!("notifications/{kind}/list_changed")).collect()
    }

    /// Holds one subscription at a modern server for all legacy sessions.
    fn hold(self: &Arc<Self>, gateway: &Arc<Gateway>) {
        let Some(live) = self.slot.live() else { return };
        let mut uris = BTreeSet::new();
        for session in gateway.sessions.of(&self.slot.id) {
            uris.extend(session.subscriptions());
        }
        let mut held = lock(&self.held);
        if held.generation == live.generation && held.uris == uris && held.task.is_some() {
            return;
        }
        let filter = ListenFilter {
            tools: true,
            prompts: true,
            resources: true,
            uris: uris.iter().cloned().collect(),
        };
        let filter = filter.supported(live.leg.server_info().and_then(|server| server.capabilities()));
        let task =
            tokio::spawn(hear_held(Arc::downgrade(gateway), Arc::downgrade(self), live.leg.clone(), filter));
        if let Some(old) = held.task.replace(task.abort_handle()) {
            old.abort();
        }
        (held.generation, held.uris) = (live.generation, uris);
    }
}

impl Listener {
    fn end(&self) {
        let text = build::result(&self.id, &listen::closed(&self.id));
        self.stream.finish_with(&text);
    }
}

async fn hear(gateway: Weak<Gateway>, entry: Weak<Entry>, mut owned: mpsc::Receiver<Owned>) {
    while let Some(what) = owned.recv().await {
        let (Some(gateway), Some(entry)) = (gateway.upgrade(), entry.upgrade()) else { return };
        match what {
            Owned::Renewed => entry.renewed(&gateway),
            Owned::FromServer(FromServer::Notice(notice)) => {
                if notice.method == "notifications/tools/list_changed" {
                    *entry.schemas.lock().await = None;
                }
                entry.tell(&gateway, &notice);
            }
            // Shared connections refuse them before they come here.
            Owned::FromServer(FromServer::Request(_) | FromServer::Refused(_)) => {}
        }
    }
}

/// Keeps our own subscription at a modern server and spreads what it brings.
async fn hear_held(gateway: Weak<Gateway>, entry: Weak<Entry>, leg: Leg, filter: ListenFilter) {
    if filter.is_empty() {
        return;
    }
    let params = call::in_modern(Some(&listen::listen_params(&filter)));
    let (sink, mut heard) = mpsc::channel(HEARD_MAX);
    let listening = Call { events: Some(sink), ..Call::new(listen::LISTEN, params.as_deref()) };
    let Ok(mut running) = leg.start(listening) else { return };
    loop {
        tokio::select! {
            _ = running.answered() => return,
            said = heard.recv() => {
                let (Some(said), Some(gateway), Some(entry)) = (said, gateway.upgrade(), entry.upgrade()) else {
                    return;
                };
                if let FromServer::Notice(notice) = said
                    && notice.method != listen::ACKNOWLEDGED
                {
                    if notice.method == "notifications/tools/list_changed" {
                        *entry.schemas.lock().await = None;
                    }
                    entry.tell(&gateway, &notice);
                }
            }
        }
    }
}

/// Tools whose schema repeats arguments in headers.
async fn read_schemas(live: &Live) -> Schemas {
    let mut schemas = Schemas::new();
    let Ok(tools) = call::list(live, "tools/list", "tools").await else { return schemas };
    for tool in tools {
        let (Some(name), Some(schema)) =
            (member(&tool, "name").and_then(text_of), member(&tool, "inputSchema"))
        else {
            continue;
        };
        if !mirror::annotated(schema).is_empty() {
            schemas.insert(name.into_owned(), schema.to_owned());
        }
    }
    schemas
}

async fn keep_logs(entry: Weak<Entry>, mut diagnostics: mpsc::Receiver<Diagnostic>) {
    while let Some(said) = diagnostics.recv().await {
        let Some(entry) = entry.upgrade() else { return };
        if let Diagnostic::Stderr(text) | Diagnostic::Noise(text) = &said {
            let id = &entry.slot.id;
            let container = entry.slot.container().unwrap_or_default();
            tracing::info!(target: "server", MCP_SERVER = %entry.group.server, CONTAINER_ID = container, "{id}: {text}");
        }
        entry.logs.push(said);
    }
}
