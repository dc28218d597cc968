//! What a server that may sleep said of itself and offered when it ran last: kept over its sleep and over
//! restarts, so that looking does not start it.
//!
//! ```text
//! initialize, server/discover   its greeting, to clients that share an instance
//! lists, whole                  as it gave them last
//! logging/setLevel              noted for the session
//! everything else               starts it
//! ```
//! It is good for the declaration that it came from alone.
//!
//! Must never hold an argument or a result of a call, nor be served while the server runs.

use crate::gateway::body::{self, Response};
use crate::gateway::demand::wait_for;
use crate::gateway::flow::{Out, Tongue, answered};
use crate::gateway::hub::Entry;
use crate::gateway::legacy::empty_object;
use crate::gateway::lists::{Giver, Item, ListKind, Listed};
use crate::gateway::metrics::Timed;
use crate::gateway::places::Down;
use crate::gateway::sessions::Session;
use crate::gateway::slot::Live;
use crate::gateway::{Ask, Gateway, lock};
use crate::mcp::build;
use crate::mcp::handshake::ServerInfo;
use crate::mcp::translate;
use crate::mcp::wire::{Era, member, text_of};
use crate::model::id::ServerId;
use crate::upstream::leg::Greeting;
use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Longest text that is kept of one server, in bytes.
pub const OFFER_BYTES_MAX: usize = 1024 * 1024;
/// How long a client may keep what discovery says of a server that sleeps, in milliseconds.
const TTL_MS: u64 = 60_000;

/// Where offers are kept; what cannot be kept is lost with this process.
pub trait Offers: Send + Sync {
    /// What an earlier run kept of a server; given once.
    fn recall(&self, server: &ServerId) -> Option<String>;
    /// Keeps this in place of what was kept.
    fn keep(&self, server: &ServerId, text: String);
}

/// What a server said of itself.
#[derive(Debug)]
pub struct Known {
    /// The declaration that it was started from.
    pub spec: String,
    /// Its words.
    pub greeting: Greeting,
}

/// What is known of one server, and what of that is kept.
#[derive(Debug, Default)]
pub struct Memo {
    known: Mutex<Option<Arc<Known>>>,
    kept: Mutex<String>,
}

/// The text that is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Text {
    spec: String,
    modern: bool,
    version: String,
    server: Option<Box<RawValue>>,
    lists: Vec<Option<Vec<Box<RawValue>>>>,
}

impl Known {
    fn of(live: &Live) -> Self {
        Self { spec: live.spec.clone(), greeting: live.leg.greeting().clone() }
    }

    fn capabilities(&self) -> Option<&RawValue> {
        self.greeting.server.as_ref().and_then(ServerInfo::capabilities)
    }

    /// Whether it has lists of a kind, as far as it said.
    fn has(&self, kind: ListKind) -> bool {
        self.capabilities().is_none_or(|all| member(all, kind.capability()).is_some())
    }

    fn server_info(&self) -> Option<Arc<RawValue>> {
        let server = self.greeting.server.as_ref().filter(|_| self.greeting.era == Era::Legacy)?;
        member(&server.raw, "serverInfo").map(|info| Arc::from(info.to_owned()))
    }

    /// The answer to `server/discover`.
    fn discovered(&self) -> Option<Box<RawValue>> {
        let server = self.greeting.server.as_ref()?;
        match self.greeting.era {
            Era::Modern => Some(server.raw.clone()),
            Era::Legacy => translate::discover_result(&server.raw, TTL_MS),
        }
    }
}

impl Entry {
    /// What is known of a server that may sleep and has no connection now, unless it is not to run.
    pub(crate) fn resting(&self) -> Option<Arc<Known>> {
        let place = self.any_place()?;
        let declared = place.on_demand.as_ref()?;
        if self.any_live(None).is_some() || matches!(place.down, Some(Down::Stopped(_))) {
            return None;
        }
        lock(&self.memo.known).clone().filter(|known| known.spec == *declared)
    }

    /// A list of it; an empty one where it said that it has none.
    pub(crate) fn resting_list(&self, kind: ListKind) -> Option<Arc<Listed>> {
        let known = self.resting()?;
        let last = self.lists.last(kind).filter(|list| list.giver.spec == known.spec);
        last.or_else(|| (!known.has(kind)).then(|| Arc::new(Listed::kept(Vec::new(), giver(&known)))))
    }

    /// How long whoever wants a list waits, where nothing is kept and it has to be started.
    pub(crate) fn patience(&self, within: Duration) -> Duration {
        let place = self.any_place().filter(|place| place.on_demand.is_some());
        place.map_or(within, |place| within.max(wait_for(Some(&place))))
    }

    /// Takes up what an earlier run kept.
    pub(crate) fn recall(&self) {
        let Some(text) = self.offers.recall(&self.slot.id) else { return };
        let Ok(Text { spec, modern, version, server, lists }) = serde_json::from_str(&text) else { return };
        let server = server.and_then(|raw| {
            if modern {
                Some(ServerInfo::of_discover(&raw, &version))
            } else {
                ServerInfo::of_initialize(&raw)
            }
        });
        let era = if modern { Era::Modern } else { Era::Legacy };
        let known = Arc::new(Known { spec, greeting: Greeting { era, version, server } });
        for (kind, entries) in ListKind::ALL.into_iter().zip(lists) {
            if let Some(entries) = entries {
                self.lists
                    .put(kind, Listed::kept(crate::gateway::lists::items(entries, kind), giver(&known)));
            }
        }
        *lock(&self.memo.known) = Some(known);
        *lock(&self.memo.kept) = text;
    }

    /// Another connection serves: what it says is asked for and kept, if the server may sleep.
    pub(crate) fn learn(self: &Arc<Self>, live: &Arc<Live>) {
        if self.slot.place().is_none_or(|place| place.on_demand.is_none()) {
            return;
        }
        let known = Arc::new(Known::of(live));
        *lock(&self.memo.known) = Some(Arc::clone(&known));
        let entry = Arc::clone(self);
        tokio::spawn(async move {
            for kind in ListKind::ALL.into_iter().filter(|kind| known.has(*kind)) {
                // What it does not give is not kept.
                let _given = entry.refreshed(kind).await;
            }
            entry.keep();
        });
    }

    /// Keeps what is known now, where that is new.
    pub(crate) fn keep(&self) {
        let Some(known) = lock(&self.memo.known).clone() else { return };
        if self.slot.place().is_none_or(|place| place.on_demand.is_none()) {
            return;
        }
        let list = |kind| {
            let last = self.lists.last(kind).filter(|list| list.giver.spec == known.spec)?;
            Some(last.items.iter().map(|item: &Item| (*item.raw).to_owned()).collect())
        };
        let text = Text {
            spec: known.spec.clone(),
            modern: known.greeting.era == Era::Modern,
            version: known.greeting.version.clone(),
            server: known.greeting.server.as_ref().map(|server| server.raw.clone()),
            lists: ListKind::ALL.into_iter().map(list).collect(),
        };
        let Ok(text) = serde_json::to_string(&text) else { return };
        let mut kept = lock(&self.memo.kept);
        if text.len() > OFFER_BYTES_MAX || *kept == text {
            return;
        }
        kept.clone_from(&text);
        drop(kept);
        self.offers.keep(&self.group.server, text);
    }

    /// The result of a request that a server which rests need not be started for.
    fn rested(&self, method: &str, params: Option<&RawValue>) -> Option<(Box<RawValue>, Arc<Known>)> {
        let known = self.resting()?;
        let kind = ListKind::ALL.into_iter().find(|kind| kind.method().0 == method)?;
        // A page of a list that the server itself began.
        if params.is_some_and(|params| member(params, "cursor").is_some()) {
            return None;
        }
        let list = self.resting_list(kind)?;
        let entries: Vec<&str> = list.items.iter().map(|item| item.raw.get()).collect();
        let text = format!(r#"{{"{}":[{}]}}"#, kind.method().1, entries.join(","));
        Some((RawValue::from_string(text).ok()?, known))
    }
}

fn giver(known: &Known) -> Giver {
    Giver { generation: 0, spec: known.spec.clone(), server: known.greeting.server.clone() }
}

/// The answer to a legacy client's request that starts nothing.
pub(crate) fn legacy_answer(
    ask: &Ask<'_>,
    session: &Arc<Session>,
    id: &RawValue,
    (method, params): (&str, Option<&RawValue>),
) -> Option<Out> {
    if method == "logging/setLevel" && ask.entry.resting().is_some() {
        let level = params.and_then(|params| member(params, "level")).and_then(text_of)?;
        session.set_log_level(&level);
        ask.gateway.keep_session(session);
        return Some(Out::Answer(200, build::result(id, &empty_object())));
    }
    let (result, _) = ask.entry.rested(method, params)?;
    let timed = Timed::start(&ask.entry.metrics, method, "").in_session(&session.hash);
    timed.by(ask.origin, (method, ""), Some(id)).done(true, result.get().len());
    Some(answered(id, result, (&Tongue::Legacy, false), ask.lens.map(|lens| (&**lens, method))))
}

/// The answer to a modern client's request that starts nothing.
pub(crate) fn modern_answer(
    ask: &Ask<'_>,
    id: &RawValue,
    (method, params): (&str, Option<&RawValue>),
) -> Option<Response> {
    let timed = || Timed::start(&ask.entry.metrics, method, "");
    if method == "server/discover" {
        let result = ask.entry.resting()?.discovered()?;
        timed().done(true, result.get().len());
        return Some(body::json(StatusCode::OK, build::result(id, &result)));
    }
    let (result, known) = ask.entry.rested(method, params)?;
    let tongue =
        Tongue::Translated { method: Arc::from(method), server_info: known.server_info(), log_level: None };
    timed().by(ask.origin, (method, ""), Some(id)).done(true, result.get().len());
    match answered(id, result, (&tongue, false), ask.lens.map(|lens| (&**lens, method))) {
        Out::Answer(_, text) => Some(body::json(StatusCode::OK, text)),
        _ => None,
    }
}

impl Gateway {
    /// What is kept of a server that rests, as [`Gateway::capabilities`] gives it.
    pub(crate) fn kept_capabilities(&self, entry: &Entry) -> Option<serde_json::Value> {
        let known = entry.resting()?;
        let greeting = &known.greeting;
        let mut out = serde_json::json!({
            "server": entry.group.server,
            "era": match greeting.era { Era::Legacy => "legacy", Era::Modern => "modern" },
            "protocolVersion": greeting.version,
            "info": greeting.server.as_ref().map(|server| server.raw.clone()),
            "problems": entry.offered.problems(),
        });
        for kind in ListKind::ALL.into_iter().filter(|kind| known.has(*kind)) {
            let list = entry.resting_list(kind)?;
            let entries: Vec<_> = list.items.iter().map(|item| (*item.raw).to_owned()).collect();
            if let serde_json::Value::Object(out) = &mut out {
                out.insert(kind.method().1.to_owned(), serde_json::json!(entries));
            }
        }
        Some(out)
    }
}
