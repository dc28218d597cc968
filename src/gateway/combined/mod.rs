//! All servers as one MCP endpoint, or those of a section: the lists of all put together, calls
//! passed on to whose they are, in both eras.
//!
//! ```text
//! legacy   one session with the client; below it one session for each server that it uses, opened
//!          with the first request for it, with the client's own capabilities
//! modern   each request is passed on under the server's own names
//! lists    from what is kept of every server; a server that hangs keeps nobody waiting for long
//! ```
//! Lists come from the connection that clients share. Sessions outlive the process as far as [`kept`] says.
//! Of a client's own notifications only changes of its roots are passed on.
//!
//! Must never hand a session below one client's to another's, nor send a request twice.

mod batch;
pub mod below;
mod kept;
mod legacy;
mod modern;
mod route;

use crate::gateway::body::{self, Response};
use crate::gateway::hub::Entry;
use crate::gateway::offered::LISTED_WITHIN;
use crate::gateway::origin::Origin;
use crate::gateway::streams::{Keep, Stream};
use crate::gateway::{Ask, Gateway, is_known, lock, not_allowed, refused};
use crate::mcp::build;
use crate::mcp::combine::{self, Kind};
use crate::mcp::front::{self, Class, Head, Refusal};
use crate::mcp::listen::{self, ListenFilter};
use crate::mcp::wire::{BadMessage, INVALID_PARAMS, id_of, member, read, text_of};
use crate::model::access::Grant;
use crate::model::id::{SectionId, ServerId};
use futures_util::future::join_all;
use hyper::Method;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::sync::Notify;

/// Changes that come this close together are told together.
const TOGETHER: Duration = Duration::from_millis(100);
/// A server that went away tells nobody: it is looked for this often.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Subscriptions of modern clients.
const LISTENERS_MAX: usize = 4096;
/// Bytes of all servers' instructions together.
const INSTRUCTIONS_BYTES_MAX: usize = 16 * 1024;

/// Which servers are seen together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Those of one section; `None`: all.
    pub section: Option<SectionId>,
    id: ServerId,
}

impl View {
    /// All servers, or those of a section.
    #[must_use]
    pub fn new(section: Option<SectionId>) -> Self {
        Self { id: ServerId::combined(section.as_ref()), section }
    }

    /// Whether a server belongs to it.
    fn holds(&self, entry: &Entry) -> bool {
        let Some(wanted) = &self.section else { return true };
        entry.slot.place().is_some_and(|place| place.offer.section.as_ref() == Some(wanted))
    }

    /// Headers of requests that any of its servers gets.
    #[must_use]
    pub fn forwarded(&self, gateway: &Gateway) -> Vec<String> {
        let mut names = BTreeSet::new();
        for entry in gateway.servers().iter().filter(|entry| self.holds(entry)) {
            let offer = entry.slot.place().map(|place| Arc::clone(&place.offer)).unwrap_or_default();
            // What one server leaves out another may get: each has its own rules asked again.
            names.extend(offer.forward_headers.iter().filter(|rule| !rule.starts_with('!')).cloned());
        }
        names.into_iter().collect()
    }

    /// Whether any server belongs to it.
    #[must_use]
    pub fn exists(&self, gateway: &Gateway) -> bool {
        self.section.is_none() || gateway.servers().iter().any(|entry| self.holds(entry))
    }
}

/// A request to all servers.
#[derive(Clone, Copy)]
pub struct All<'a> {
    /// Where it came to.
    pub gateway: &'a Arc<Gateway>,
    /// Which servers.
    pub view: &'a View,
    /// Its headers.
    pub head: &'a Head<'a>,
    /// What its sessions and connections are bound to.
    pub principal: &'a Arc<str>,
    /// Where it came from.
    pub origin: &'a Origin,
    /// What its sender may use.
    pub grant: &'a Arc<Grant>,
    /// Its body.
    pub body: &'a [u8],
}

impl<'a> All<'a> {
    /// The servers that this client sees, in order of ids.
    fn entries(&self) -> Vec<Arc<Entry>> {
        let all = self.gateway.servers();
        all.into_iter().filter(|entry| self.sees(entry)).collect()
    }

    fn entry(&self, id: &ServerId) -> Option<Arc<Entry>> {
        self.gateway.entry(id).filter(|entry| self.sees(entry))
    }

    fn sees(&self, entry: &Entry) -> bool {
        let offer = entry.slot.place().map(|place| Arc::clone(&place.offer));
        let section = offer.as_ref().and_then(|offer| offer.section.as_ref());
        self.view.holds(entry) && self.grant.admits_server(&entry.slot.id, section)
    }

    /// The same request, for one of them.
    fn ask<'b>(&'b self, routed: &'b route::Routed) -> Ask<'b>
    where
        'a: 'b,
    {
        Ask {
            gateway: self.gateway,
            entry: &routed.entry,
            head: self.head,
            principal: self.principal,
            origin: self.origin,
            body: &[],
            lens: Some(&routed.lens),
        }
    }

    /// A page of a list of all of them.
    async fn page(&self, kind: Kind, params: Option<&RawValue>) -> Result<Box<RawValue>, Refusal> {
        let cursor = params.and_then(|params| member(params, "cursor")).and_then(text_of);
        let entries = self.entries();
        let lists = join_all(entries.iter().map(|entry| entry.listed(kind, LISTED_WITHIN))).await;
        let mut shown = Vec::new();
        for (entry, known) in entries.iter().zip(lists) {
            if let Some(known) = known
                && (kind == Kind::Tools || self.grant.admits_others())
            {
                shown.push((entry, entry.shown(kind, &known)));
            }
        }
        let mut all = Vec::new();
        for (entry, list) in &shown {
            let id = &entry.slot.id;
            let granted = |own: &str, reads| kind != Kind::Tools || self.grant.admits_tool(id, own, reads);
            all.extend(list.iter().filter(|one| granted(&one.own, one.reads)).map(|one| combine::Entry {
                id: id.as_str(),
                name: &one.name,
                text: one.text.get(),
            }));
        }
        combine::page(kind, &all, cursor.as_deref())
            .ok_or_else(|| Refusal::new(200, INVALID_PARAMS, "the cursor is none of this list"))
    }

    /// What the endpoint says of itself, beside version and name.
    fn instructions(&self) -> Option<String> {
        let mut text = String::new();
        for entry in self.entries() {
            let live = entry.any_live(None);
            let own = live.as_ref().and_then(|live| live.leg.server_info());
            let own = own.and_then(|server| combine::named(&server.raw, "instructions"));
            if let Some(own) = own.filter(|own| text.len() + own.len() < INSTRUCTIONS_BYTES_MAX) {
                text.push_str(&format!("Tools that begin with {}__: {}\n\n", entry.slot.id, own.trim()));
            }
        }
        (!text.is_empty()).then(|| text.trim_end().to_owned())
    }
}

/// What the endpoint can do.
const CAPABILITIES: &str = r#"{"tools":{"listChanged":true},"prompts":{"listChanged":true},"resources":{"subscribe":true,"listChanged":true},"completions":{},"logging":{}}"#;

/// `serverInfo`.
fn server_info() -> Box<RawValue> {
    let us = crate::gateway::slot::who_we_are();
    let info = serde_json::json!({"name": us.name, "title": "All servers", "version": us.version});
    RawValue::from_string(info.to_string()).unwrap_or_default()
}

/// Answers a request.
pub(crate) async fn endpoint(all: &All<'_>, method: &Method) -> Response {
    if !is_known(method) {
        return not_allowed("POST, GET, DELETE");
    }
    if *method == Method::POST {
        return post(all).await;
    }
    let modern = all.head.protocol_version.is_some_and(front::is_modern_version);
    if modern || (all.head.session.is_none() && *method == Method::DELETE) {
        return not_allowed("POST");
    }
    if *method == Method::GET { legacy::get(all) } else { legacy::delete(all) }
}

async fn post(all: &All<'_>) -> Response {
    if let Err(refusal) =
        front::check_content_type(all.head).and_then(|()| front::check_accept_post(all.head))
    {
        return refused(None, &refusal);
    }
    match read(all.body) {
        Ok(message) => match front::classify(all.head, &message) {
            Class::Modern => modern::post(all, message).await,
            Class::Legacy => legacy::post(all, message).await,
        },
        Err(BadMessage::Batch) => batch::post(all).await,
        Err(error) => refused(id_of(all.body), &Refusal::new(400, error.code(), error.to_string())),
    }
}

/// Who is to be told of changes.
#[derive(Debug, Default)]
pub struct Combined {
    /// Told whenever a list of any server changes.
    pub(crate) news: Arc<Notify>,
    listeners: Mutex<Vec<Listener>>,
}

/// A modern client's subscription.
#[derive(Debug)]
struct Listener {
    id: Box<RawValue>,
    filter: ListenFilter,
    view: View,
    stream: Arc<Stream>,
}

impl Combined {
    /// Holds a subscription until its client goes away; false when there are too many.
    fn listen(&self, gateway: &Arc<Gateway>, listener: Listener) -> bool {
        let stream = Arc::clone(&listener.stream);
        {
            let mut listeners = lock(&self.listeners);
            if listeners.len() >= LISTENERS_MAX {
                return false;
            }
            listeners.push(listener);
        }
        let gateway = Arc::downgrade(gateway);
        tokio::spawn(async move {
            stream.abandoned().await;
            if let Some(gateway) = gateway.upgrade() {
                let mut listeners = lock(&gateway.combined.listeners);
                listeners.retain(|listener| !Arc::ptr_eq(&listener.stream, &stream));
            }
        });
        true
    }

    /// Ends all subscriptions in good order.
    pub(crate) fn stop(&self) {
        for Listener { id, stream, .. } in lock(&self.listeners).drain(..) {
            stream.finish_with(&build::result(&id, &listen::closed(&id)));
        }
    }
}

/// What of the lists clients were told: the versions of every server that is offered.
type Told = BTreeMap<ServerId, (Option<SectionId>, [u64; 4])>;

/// Tells clients of all servers when any of the lists changed, or a server came or went.
pub(crate) async fn watch(gateway: Weak<Gateway>, news: Arc<Notify>) {
    let mut told = Told::new();
    loop {
        let _late = tokio::time::timeout(LOOK_EVERY, news.notified()).await;
        tokio::time::sleep(TOGETHER).await;
        let Some(gateway) = gateway.upgrade() else { return };
        gateway.servers().iter().for_each(|entry| entry.look_at_names());
        let now = offered(&gateway);
        let changes = changes(&told, &now);
        told = now;
        for (section, kinds) in changes {
            tell(&gateway, section.as_ref(), &kinds);
        }
    }
}

fn offered(gateway: &Gateway) -> Told {
    let mut told = Told::new();
    for entry in gateway.servers().iter().filter(|entry| entry.is_offered()) {
        let section = entry.slot.place().and_then(|place| place.offer.section.clone());
        told.insert(entry.slot.id.clone(), (section, entry.versions()));
    }
    told
}

/// By view, whose lists changed; `None` is the view of all servers.
fn changes(before: &Told, now: &Told) -> BTreeMap<Option<SectionId>, BTreeSet<&'static str>> {
    let mut changes: BTreeMap<Option<SectionId>, BTreeSet<&'static str>> = BTreeMap::new();
    let ids: BTreeSet<&ServerId> = before.keys().chain(now.keys()).collect();
    for id in ids {
        let (old, new) = (before.get(id), now.get(id));
        for (at, kind) in Kind::ALL.into_iter().enumerate() {
            let version = |told: Option<&(Option<SectionId>, [u64; 4])>| {
                told.and_then(|(section, versions)| Some((section.clone(), *versions.get(at)?)))
            };
            if version(old) == version(new) {
                continue;
            }
            let sections = [old, new].into_iter().flatten().map(|(section, _)| section.clone());
            for view in sections.chain([None]) {
                changes.entry(view).or_default().insert(kind.capability());
            }
        }
    }
    changes
}

fn tell(gateway: &Gateway, section: Option<&SectionId>, kinds: &BTreeSet<&'static str>) {
    let sessions = gateway.sessions.of(&ServerId::combined(section));
    for kind in kinds {
        let method = format!("notifications/{kind}/list_changed");
        let text = build::notification(&method, None);
        for session in &sessions {
            if let Some(stream) = session.listening() {
                stream.push(&text, Keep::Must);
            }
        }
        let listeners = lock(&gateway.combined.listeners);
        for listener in listeners.iter().filter(|listener| listener.view.section.as_ref() == section) {
            if listener.filter.admits(&method, None) {
                listener.stream.push(&listen::tagged(&method, None, &listener.id), Keep::Must);
            }
        }
    }
}

/// A section that a path or query names; `None` when it is none.
#[must_use]
pub fn section(text: &str) -> Option<SectionId> {
    ServerId::new(text).ok().map(|id| SectionId(id.to_string()))
}

/// Nothing of the kind is here.
fn no_such(id: &RawValue, refusal: &Refusal) -> Response {
    body::json(crate::gateway::legacy::code(refusal.status), refusal.body(Some(id)))
}

#[cfg(test)]
mod tests;
