//! What a server offers (tools, prompts, resources), asked for once and kept until it changes.
//!
//! ```text
//! kept, and still so         at once
//! not kept, or changed       asked for once, however many wait; each waits as long as it wants
//! another connection         what was kept is of an earlier process: asked for again
//! ```
//! A list is asked for when somebody wants it. A server that does not answer holds up whoever waits
//! for it, as long as they want, and nobody else.
//!
//! Must never keep a list that the server said has changed, and never ask a server twice at the same time.

use crate::gateway::call::{self, Failed};
use crate::gateway::hub::Entry;
use crate::gateway::slot::Live;
use crate::gateway::views::Views;
use crate::mcp::handshake::ServerInfo;
use crate::mcp::wire::{METHOD_NOT_FOUND, member, text_of};
use crate::openapi::document::Operations;
use crate::upstream::error::CallError;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Wait for a whole list, all its pages together.
const ASKED_WITHIN: Duration = Duration::from_secs(30);
/// Keys of more than one entry that are remembered of a list.
const TWICE_MAX: usize = 8;
/// A list of a server that tells changes is asked for again after this long all the same.
const KEPT_TOLD: Duration = Duration::from_secs(600);
/// And one of a server that does not.
const KEPT_UNTOLD: Duration = Duration::from_secs(60);

/// Which list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListKind {
    /// `tools/list`.
    Tools,
    /// `prompts/list`.
    Prompts,
    /// `resources/list`.
    Resources,
    /// `resources/templates/list`.
    Templates,
}

impl ListKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Tools, Self::Prompts, Self::Resources, Self::Templates];

    /// The method, and the member of its result.
    #[must_use]
    pub const fn method(self) -> (&'static str, &'static str) {
        match self {
            Self::Tools => ("tools/list", "tools"),
            Self::Prompts => ("prompts/list", "prompts"),
            Self::Resources => ("resources/list", "resources"),
            Self::Templates => ("resources/templates/list", "resourceTemplates"),
        }
    }

    /// The member that an entry is known by.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Tools | Self::Prompts => "name",
            Self::Resources => "uri",
            Self::Templates => "uriTemplate",
        }
    }

    /// The member of a server's capabilities.
    pub(crate) const fn capability(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources | Self::Templates => "resources",
        }
    }

    /// Whether a notification says that it changed.
    fn is_changed_by(self, method: &str) -> bool {
        let kind = method.strip_prefix("notifications/").and_then(|rest| rest.strip_suffix("/list_changed"));
        kind == Some(self.capability())
    }
}

/// One entry.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its name or URI; no other entry of the list has it.
    pub key: String,
    /// As the server wrote it.
    pub raw: Arc<RawValue>,
}

/// Who gave a list.
#[derive(Clone, Debug)]
pub struct Giver {
    /// The connection that it came over; 0: one of an earlier run of ours.
    pub generation: u64,
    /// The declaration of the server, see [`Live::spec`].
    pub spec: String,
    /// What the server said of itself.
    pub server: Option<ServerInfo>,
}

/// A list as a server gave it.
#[derive(Debug)]
pub struct Listed {
    /// The entries in the server's order; of equal keys the first.
    pub items: Vec<Item>,
    /// Who gave it.
    pub giver: Arc<Giver>,
    /// What the tool proxy made of a list of tools.
    pub operations: OnceLock<Operations>,
    /// What of it clients with scopes see.
    pub views: Views,
    /// Keys that more than one entry had.
    pub twice: Vec<String>,
    /// Changes told before it was asked for.
    changes: u64,
    asked: Instant,
    kept_for: Duration,
}

impl Listed {
    /// One that was kept.
    #[must_use]
    pub fn kept(items: Vec<Item>, giver: Giver) -> Self {
        Self {
            items,
            giver: Arc::new(giver),
            operations: OnceLock::new(),
            views: Views::default(),
            twice: Vec::new(),
            changes: 0,
            asked: Instant::now(),
            kept_for: KEPT_UNTOLD,
        }
    }

    /// The entry with this key.
    #[must_use]
    pub fn find(&self, key: &str) -> Option<&Item> {
        self.items.iter().find(|item| item.key == key)
    }

    /// The same with other entries, and what the tool proxy makes of those.
    pub(crate) fn with(&self, items: Vec<Item>, operations: Operations) -> Self {
        Self {
            items,
            giver: Arc::clone(&self.giver),
            operations: OnceLock::from(operations),
            views: Views::default(),
            twice: self.twice.clone(),
            changes: self.changes,
            asked: self.asked,
            kept_for: self.kept_for,
        }
    }

    /// How long ago it was asked for.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.asked.elapsed()
    }
}

/// The lists of one server.
#[derive(Debug, Default)]
pub struct Lists {
    kinds: [Kept; ListKind::ALL.len()],
}

/// One list.
#[derive(Debug)]
struct Kept {
    state: watch::Sender<State>,
}

#[derive(Clone, Debug, Default)]
struct State {
    list: Option<Arc<Listed>>,
    /// Changes told so far.
    changes: u64,
    /// Questions begun and ended so far; at most one is under way.
    begun: u64,
    ended: u64,
    /// Why the last question has no answer.
    failed: Option<Failed>,
}

impl Default for Kept {
    fn default() -> Self {
        Self { state: watch::Sender::new(State::default()) }
    }
}

impl Lists {
    fn of(&self, kind: ListKind) -> &Kept {
        let [tools, prompts, resources, templates] = &self.kinds;
        match kind {
            ListKind::Tools => tools,
            ListKind::Prompts => prompts,
            ListKind::Resources => resources,
            ListKind::Templates => templates,
        }
    }

    /// The server told something: what it says has changed is not used any more.
    pub fn told(&self, method: &str) {
        for kind in ListKind::ALL.into_iter().filter(|kind| kind.is_changed_by(method)) {
            self.forget(kind);
        }
    }

    /// The list is asked for again when it is wanted next.
    pub fn forget(&self, kind: ListKind) {
        self.of(kind).state.send_modify(|state| state.changes += 1);
    }

    /// Takes up what an earlier run kept.
    pub(crate) fn put(&self, kind: ListKind, list: Listed) {
        self.of(kind).state.send_modify(|state| state.list = Some(Arc::new(list)));
    }

    /// What was there last, whether or not it still is.
    #[must_use]
    pub fn last(&self, kind: ListKind) -> Option<Arc<Listed>> {
        self.of(kind).state.borrow().list.clone()
    }
}

impl Entry {
    /// A list of the server; waits for it at most `within`.
    ///
    /// # Errors
    /// Why there is none, or that it did not come in time; it is then still waited for on behalf of
    /// the next who asks.
    pub async fn list(self: &Arc<Self>, kind: ListKind, within: Duration) -> Result<Arc<Listed>, Failed> {
        if let Some(kept) = self.resting_list(kind) {
            return Ok(kept);
        }
        let now = self.lists.of(kind).state.borrow().clone();
        if let Some(list) = now.list.as_ref().filter(|list| self.is_current(list, now.changes)) {
            return Ok(Arc::clone(list));
        }
        let asked = async {
            loop {
                let list = self.asked(kind).await?;
                // The question may have been under way when the last change was told.
                if list.changes >= now.changes {
                    return Ok(list);
                }
            }
        };
        let late = |_elapsed| Err(Failed::Call(CallError::TimedOut { after: within }));
        tokio::time::timeout(within, asked).await.unwrap_or_else(late)
    }

    /// The list of now, whatever is kept.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn refreshed(self: &Arc<Self>, kind: ListKind) -> Result<Arc<Listed>, Failed> {
        self.asked(kind).await
    }

    /// The answer to the question under way, or to a new one.
    async fn asked(self: &Arc<Self>, kind: ListKind) -> Result<Arc<Listed>, Failed> {
        let mut state = self.lists.of(kind).state.subscribe();
        let wanted = self.begin(kind);
        let state = state.wait_for(|state| state.ended >= wanted).await.map_err(|_gone| Failed::Unknown)?;
        match (&state.failed, &state.list) {
            (Some(why), _) => Err(why.clone()),
            (None, Some(list)) => Ok(Arc::clone(list)),
            (None, None) => Err(Failed::Unknown),
        }
    }

    fn is_current(&self, list: &Listed, changes: u64) -> bool {
        let giver = list.giver.generation;
        let here = self.any_live(Some(giver)).is_some_and(|live| live.generation == giver);
        here && list.changes == changes && list.age() < list.kept_for
    }

    /// The question to wait for: the one under way, or else a new one.
    fn begin(self: &Arc<Self>, kind: ListKind) -> u64 {
        let mut mine = None;
        self.lists.of(kind).state.send_modify(|state| {
            if state.begun == state.ended {
                state.begun += 1;
                mine = Some(state.changes);
            }
        });
        let wanted = self.lists.of(kind).state.borrow().begun;
        if let Some(changes) = mine {
            let question = Question { entry: Arc::clone(self), kind, wanted, ended: false };
            tokio::spawn(async move {
                let answer = question.ask(changes).await;
                question.end(answer);
            });
        }
        wanted
    }
}

/// One question after a list; whatever becomes of it, it ends.
struct Question {
    entry: Arc<Entry>,
    kind: ListKind,
    wanted: u64,
    ended: bool,
}

impl Question {
    async fn ask(&self, changes: u64) -> Result<Listed, Failed> {
        let live = self.entry.any_reached().await.map_err(Failed::Unavailable)?;
        let (method, key) = self.kind.method();
        let asked = Instant::now();
        let list = tokio::time::timeout(ASKED_WITHIN, call::list(&live, method, key)).await;
        let entries = match list.unwrap_or(Err(CallError::TimedOut { after: ASKED_WITHIN })) {
            Ok(entries) => entries,
            // It offers none.
            Err(CallError::Rpc(error)) if error.code == METHOD_NOT_FOUND => Vec::new(),
            Err(why) => return Err(Failed::Call(why)),
        };
        let kept_for = if tells(&live, self.kind) { KEPT_TOLD } else { KEPT_UNTOLD };
        let twice = twice(&entries, self.kind);
        let items = items(entries, self.kind);
        let server = live.leg.server_info().cloned();
        let giver = Arc::new(Giver { generation: live.generation, spec: live.spec.clone(), server });
        let (operations, views) = (OnceLock::new(), Views::default());
        Ok(Listed { items, giver, operations, views, twice, changes, asked, kept_for })
    }

    fn end(mut self, answer: Result<Listed, Failed>) {
        self.ended = true;
        let wanted = self.wanted;
        self.entry.lists.of(self.kind).state.send_modify(|state| {
            state.ended = wanted;
            match answer {
                Ok(list) => (state.list, state.failed) = (Some(Arc::new(list)), None),
                Err(why) => state.failed = Some(why),
            }
        });
        self.entry.keep();
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        if !self.ended {
            let wanted = self.wanted;
            self.entry.lists.of(self.kind).state.send_modify(|state| {
                state.ended = wanted;
                state.failed = Some(Failed::Unknown);
            });
        }
    }
}

/// Whether the server says when the list changes.
fn tells(live: &Live, kind: ListKind) -> bool {
    let capabilities = live.leg.server_info().and_then(|server| server.capabilities());
    let capability = capabilities.and_then(|all| member(all, kind.capability()));
    capability.and_then(|kind| member(kind, "listChanged")).is_some_and(|flag| flag.get() == "true")
}

/// Keys that more than one entry has, the first few.
fn twice(entries: &[Box<RawValue>], kind: ListKind) -> Vec<String> {
    let mut known = std::collections::BTreeSet::new();
    let keys = entries.iter().filter_map(|raw| member(raw, kind.key()).and_then(text_of));
    keys.filter(|key| !known.insert(key.clone())).take(TWICE_MAX).map(Cow::into_owned).collect()
}

pub(crate) fn items(entries: Vec<Box<RawValue>>, kind: ListKind) -> Vec<Item> {
    let mut known = std::collections::BTreeSet::new();
    let item = |raw: Box<RawValue>| {
        let key = member(&raw, kind.key()).and_then(text_of)?.into_owned();
        known.insert(key.clone()).then_some(Item { key, raw: Arc::from(raw) })
    };
    entries.into_iter().filter_map(item).collect()
}

#[cfg(test)]
mod tests {
    use super::ListKind;
    use crate::gateway::Gateway;
    use crate::gateway::call::Failed;
    use crate::gateway::hub::Entry;
    use crate::gateway::places::Places;
    use crate::gateway::played::{Act, EXIT, Played, RETRY, Stage, id, place, shared};
    use crate::mcp::wire::Era;
    use crate::upstream::error::CallError;
    use crate::world::fake::FakeSessions;
    use serde_json::{Value, json};
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::sync::mpsc::UnboundedReceiver;

    const SOON: Duration = Duration::from_secs(5);

    fn gateway() -> (Arc<Gateway>, Arc<Entry>, UnboundedReceiver<Played>) {
        let (stage, on_stage) = Stage::new(&[], Act::Serve(Era::Legacy));
        let gateway = Gateway::new(shared(&stage), Arc::new(FakeSessions::default()), [7; 32]);
        let places: Places = [(id("time"), place("a", RETRY))].into_iter().collect();
        gateway.set_places(&places);
        let entry = gateway.entry(&id("time")).expect("the server");
        (gateway, entry, on_stage)
    }

    fn tools(names: &[&str]) -> Value {
        json!({"tools": names.iter().map(|name| json!({"name": name, "inputSchema": {}})).collect::<Vec<_>>()})
    }

    async fn names(entry: &Arc<Entry>) -> Vec<String> {
        let list = entry.list(ListKind::Tools, SOON).await.expect("a list");
        list.items.iter().map(|item| item.key.clone()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_is_asked_for_once_and_again_after_a_change() {
        let (_gateway, entry, mut on_stage) = gateway();
        let mut server = on_stage.recv().await.expect("a server");
        let all = async {
            let asking = (names(&entry), names(&entry), names(&entry));
            tokio::join!(asking.0, asking.1, asking.2)
        };
        let answering = async {
            let asked = server.hear("tools/list").await;
            server.answer(&asked, &tools(&["a", "b", "a"]));
        };
        let (lists, ()) = tokio::join!(all, answering);
        assert_eq!(
            (&lists.0, &lists.1, &lists.2),
            (&lists.1, &lists.2, &vec!["a".to_owned(), "b".to_owned()])
        );
        assert_eq!(names(&entry).await, ["a", "b"]);
        let heard = server.heard.try_recv();
        assert!(!heard.is_ok_and(|heard| heard["method"] == "tools/list"), "what is kept is not asked for");

        server.tell(&json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}));
        tokio::time::sleep(Duration::from_millis(1)).await;
        let answering = async {
            let asked = server.hear("tools/list").await;
            server.answer(&asked, &tools(&["c"]));
        };
        let (list, ()) = tokio::join!(names(&entry), answering);
        assert_eq!(list, ["c"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_hangs_holds_up_each_only_as_long_as_they_want() {
        let (_gateway, entry, mut on_stage) = gateway();
        let mut server = on_stage.recv().await.expect("a server");
        let before = tokio::time::Instant::now();
        let late = entry.list(ListKind::Tools, Duration::from_millis(200)).await;
        assert!(matches!(late, Err(Failed::Call(CallError::TimedOut { .. }))), "{late:?}");
        assert_eq!(before.elapsed().as_millis(), 200);
        // The next one waits for the same question.
        let asked = server.hear("tools/list").await;
        let answering = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            server.answer(&asked, &tools(&["late"]));
        };
        let (list, ()) = tokio::join!(names(&entry), answering);
        assert_eq!(list, ["late"]);
    }

    #[tokio::test(start_paused = true)]
    async fn another_process_is_asked_again() {
        let (_gateway, entry, mut on_stage) = gateway();
        for name in ["old", "new"] {
            let mut server = on_stage.recv().await.expect("a server");
            let answering = async {
                let asked = server.hear("tools/list").await;
                server.answer(&asked, &tools(&[name]));
            };
            let (list, ()) = tokio::join!(names(&entry), answering);
            assert_eq!(list, [name]);
            server.say.send(EXIT.to_owned()).expect("a server");
            let live = entry.slot.live();
            if let Some(live) = live {
                live.leg.closed().await;
            }
        }
        assert_eq!(entry.lists.last(ListKind::Tools).expect("the last list").items.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_without_such_a_list_offers_nothing() {
        let (_gateway, entry, mut on_stage) = gateway();
        let mut server = on_stage.recv().await.expect("a server");
        let answering = async {
            let asked = server.hear("prompts/list").await;
            let error = json!({"code": -32601, "message": "no such method"});
            server.tell(&json!({"jsonrpc": "2.0", "id": asked["id"], "error": error}));
        };
        let (list, ()) = tokio::join!(entry.list(ListKind::Prompts, SOON), answering);
        assert!(list.expect("a list").items.is_empty());
    }
}
