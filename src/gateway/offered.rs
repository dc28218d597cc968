//! What a server offers, as clients of all servers get it: under names among all, from what is kept of
//! its lists, so that nobody waits for a server that hangs.
//!
//! | the server | its list |
//! |---|---|
//! | answers | as it said last; one that may be old is shown while it is asked for again |
//! | is being replaced, or starts again | as it was, for [`GONE_AFTER`] |
//! | hangs | as it was; one that never answered has none, after [`LISTED_WITHIN`] once |
//! | sleeps | as it said last; one that never ran is started for it |
//! | is stopped, or away for longer | none |
//!
//! Must never hold up one server's list for another's.

use crate::gateway::hub::Entry;
use crate::gateway::lists::{ListKind, Listed};
use crate::gateway::lock;
use crate::gateway::places::{Down, Offer};
use crate::gateway::slot::Live;
use crate::mcp::budget;
use crate::mcp::combine::{self, Kind};
use crate::mcp::wire::member;
use serde_json::value::RawValue;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Whoever wants a list waits this long for a server that was never heard of.
pub const LISTED_WITHIN: Duration = Duration::from_secs(3);
/// A list that is older is asked for again while it is shown.
const FRESH_FOR: Duration = Duration::from_secs(60);
/// A server that is away for longer takes its lists with it.
pub const GONE_AFTER: Duration = Duration::from_secs(60);
/// After a list that did not come in time, the next try is not before this.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// And takes at most this long.
const AGAIN_WITHIN: Duration = Duration::from_secs(30);
/// Problems with names that are told of one server.
const PROBLEMS_MAX: usize = 8;

/// An entry as clients of all servers get it.
#[derive(Debug)]
pub struct Shown {
    /// The server's own name or URI.
    pub own: String,
    /// Its name or URI among those of all servers.
    pub name: String,
    /// Of a tool: whether it says that it only reads.
    pub reads: bool,
    /// The whole entry.
    pub text: Box<RawValue>,
}

/// What is known of one server's lists beside themselves.
#[derive(Debug, Default)]
pub struct Offered {
    cells: [Mutex<State>; 4],
    away: Mutex<Option<Instant>>,
    problems: Mutex<Vec<String>>,
    /// The connection whose tools were looked at without anybody asking.
    looked: Mutex<Option<u64>>,
    news: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    /// The list that was looked at last.
    seen: Option<Arc<Listed>>,
    /// Changes with the list.
    version: u64,
    /// The server said that the list is another one.
    told: bool,
    /// It did not come in time, then.
    slow: Option<Instant>,
    shown: Option<Rendered>,
}

/// What was made of a list under an offer.
type Rendered = (Arc<Listed>, Arc<Offer>, Arc<Vec<Shown>>);

fn list_kind(kind: Kind) -> ListKind {
    match kind {
        Kind::Tools => ListKind::Tools,
        Kind::Prompts => ListKind::Prompts,
        Kind::Resources => ListKind::Resources,
        Kind::Templates => ListKind::Templates,
    }
}

impl Offered {
    /// Nothing yet; `news` is told of changes.
    #[must_use]
    pub fn new(news: Arc<Notify>) -> Self {
        Self { news, ..Self::default() }
    }

    fn cell(&self, kind: Kind) -> &Mutex<State> {
        let [tools, prompts, resources, templates] = &self.cells;
        match kind {
            Kind::Tools => tools,
            Kind::Prompts => prompts,
            Kind::Resources => resources,
            Kind::Templates => templates,
        }
    }

    /// The server said something, perhaps that a list changed.
    pub fn said(&self, method: &str) {
        let changed = |kind: &Kind| method == format!("notifications/{}/list_changed", kind.capability());
        self.outdated(Kind::ALL.into_iter().filter(changed));
    }

    /// Another connection serves.
    pub fn renewed(&self) {
        self.outdated(Kind::ALL.into_iter());
    }

    fn outdated(&self, kinds: impl Iterator<Item = Kind>) {
        let mut any = false;
        for kind in kinds {
            let mut state = lock(self.cell(kind));
            state.version = state.version.wrapping_add(1);
            (state.slow, state.told, any) = (None, true, true);
        }
        if any {
            self.news.notify_one();
        }
    }

    /// What is wrong with the names of its tools.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        lock(&self.problems).clone()
    }

    /// How long there has been no connection; also notes whether there is one.
    fn away_for(&self, live: bool) -> Duration {
        let mut away = lock(&self.away);
        if live {
            *away = None;
            return Duration::ZERO;
        }
        away.get_or_insert_with(Instant::now).elapsed()
    }
}

/// Whether a server has lists of this kind, as far as it said.
fn has(live: &Live, kind: Kind) -> bool {
    let capabilities = live.leg.server_info().and_then(|server| server.capabilities());
    capabilities.is_none_or(|all| member(all, kind.capability()).is_some())
}

impl Entry {
    /// Whether its lists are shown: it runs, or comes back.
    pub(crate) fn is_offered(&self) -> bool {
        let stopped = |down: &Option<Down>| matches!(down, Some(Down::Stopped(_)));
        let away = self.offered.away_for(self.any_live(None).is_some());
        let Some(place) = self.any_place() else { return false };
        !stopped(&place.down) && (away < GONE_AFTER || place.on_demand.is_some())
    }

    /// A list, if it can be had within this time.
    pub(crate) async fn listed(self: &Arc<Self>, kind: Kind, within: Duration) -> Option<Arc<Listed>> {
        if !self.is_offered() {
            return None;
        }
        if let Some(kept) = self.resting_list(list_kind(kind)) {
            return Some(kept);
        }
        let last = self.lists.last(list_kind(kind));
        let giver = last.as_ref().map(|last| last.giver.generation);
        let Some(live) = self.any_live(giver) else {
            let failed = self.any_place().is_some_and(|place| matches!(place.down, Some(Down::Failed(..))));
            return if last.is_some() || failed { last } else { self.asked_anew(kind, within).await };
        };
        if !has(&live, kind) {
            return None;
        }
        let (told, slow) = {
            let state = lock(self.offered.cell(kind));
            (state.told, state.slow)
        };
        let here = last.as_ref().filter(|last| last.giver.generation == live.generation && !told);
        if here.is_some_and(|last| last.age() < FRESH_FOR) {
            return last;
        }
        if here.is_none() && slow.is_none() {
            return self.asked_anew(kind, within).await.or(last);
        }
        // It is shown as it was, and asked for in the meantime.
        if slow.is_none_or(|at| at.elapsed() >= AGAIN_AFTER) {
            lock(self.offered.cell(kind)).slow = slow.map(|_| Instant::now());
            let entry = Arc::clone(self);
            tokio::spawn(async move { entry.asked_anew(kind, AGAIN_WITHIN).await });
        }
        last
    }

    /// The server's answer, at most this late.
    async fn asked_anew(self: &Arc<Self>, kind: Kind, within: Duration) -> Option<Arc<Listed>> {
        let answer = self.list(list_kind(kind), within).await;
        let mut state = lock(self.offered.cell(kind));
        match &answer {
            Ok(_) => (state.told, state.slow) = (false, None),
            Err(_) => state.slow = Some(Instant::now()),
        }
        drop(state);
        self.offered.news.notify_one();
        answer.ok()
    }

    /// A number for each kind of list that changes with it.
    pub(crate) fn versions(&self) -> [u64; 4] {
        Kind::ALL.map(|kind| {
            let last = self.lists.last(list_kind(kind));
            let mut state = lock(self.offered.cell(kind));
            let ours = match (&last, &state.seen) {
                (Some(new), Some(old)) => Arc::ptr_eq(new, old) || same(new, old),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            if !ours {
                state.version = state.version.wrapping_add(1);
            }
            state.seen = last;
            state.version
        })
    }

    /// A list as clients of all servers get it, in order of names.
    pub(crate) fn shown(&self, kind: Kind, known: &Arc<Listed>) -> Arc<Vec<Shown>> {
        let offer = self.slot.place().map(|place| Arc::clone(&place.offer)).unwrap_or_default();
        let cell = self.offered.cell(kind);
        if let Some((of, under, shown)) = &lock(cell).shown
            && Arc::ptr_eq(of, known)
            && *under == offer
        {
            return Arc::clone(shown);
        }
        let (shown, problems) = rendered(self, (kind, known), &offer);
        if kind == Kind::Tools {
            let mut before = lock(&self.offered.problems);
            for problem in problems.iter().filter(|problem| !before.contains(problem)) {
                tracing::warn!(MCP_SERVER = %self.slot.id, MCP_ERROR_CODE = "MCPO-G085", "{problem}");
            }
            *before = problems;
        }
        let shown = Arc::new(shown);
        lock(cell).shown = Some((Arc::clone(known), offer, Arc::clone(&shown)));
        shown
    }

    /// What is known of a list now, as clients of all servers get it.
    pub(crate) fn shown_now(&self, kind: Kind) -> Option<Arc<Vec<Shown>>> {
        let known = self.lists.last(list_kind(kind));
        known.filter(|_| self.is_offered()).map(|known| self.shown(kind, &known))
    }

    /// Looks at the tools of a server that came up, once: what is wrong with their names is told before the
    /// first client comes. Nothing is started for it.
    pub(crate) fn look_at_names(self: &Arc<Self>) {
        let before = *lock(&self.offered.looked);
        let Some(live) = self.any_live(before).filter(|live| Some(live.generation) != before) else { return };
        *lock(&self.offered.looked) = Some(live.generation);
        let entry = Arc::clone(self);
        tokio::spawn(async move {
            if let Some(known) = entry.listed(Kind::Tools, LISTED_WITHIN).await {
                let _kept = entry.shown(Kind::Tools, &known);
            }
        });
    }

    /// Whether a tool says that it only reads; `None` when the server's tools are not known.
    pub(crate) async fn tool_only_reads(self: &Arc<Self>, own: &str) -> Option<bool> {
        let known = self.listed(Kind::Tools, LISTED_WITHIN).await?;
        Some(known.find(own).is_some_and(|tool| combine::only_reads(&tool.raw)))
    }
}

fn same(a: &Listed, b: &Listed) -> bool {
    a.items.len() == b.items.len() && a.items.iter().zip(&b.items).all(|(a, b)| a.raw.get() == b.raw.get())
}

/// A list under its names among all servers, and what is wrong with those.
fn rendered(entry: &Entry, (kind, known): (Kind, &Listed), offer: &Offer) -> (Vec<Shown>, Vec<String>) {
    let id = &entry.slot.id;
    let key = kind.name_key();
    let mut shown = Vec::with_capacity(known.items.len());
    let (mut twice, mut budget) = (BTreeSet::new(), Vec::new());
    let mut seen = BTreeSet::new();
    if kind == Kind::Tools {
        // One that is hidden is nobody's trouble.
        let offered = known.twice.iter().filter(|own| {
            known.find(own).is_some_and(|tool| offer.tools.admits(own, combine::only_reads(&tool.raw)))
        });
        twice.extend(offered.map(|own| offer.tools.shown(own).to_owned()));
    }
    for item in &known.items {
        let (own, text) = (item.key.clone(), &item.raw);
        let reads = kind == Kind::Tools && combine::only_reads(text);
        if kind == Kind::Tools && !offer.tools.admits(&own, reads) {
            continue;
        }
        let visible = if kind == Kind::Tools { offer.tools.shown(&own) } else { &own };
        let name = match kind {
            Kind::Tools | Kind::Prompts => combine::name(id, visible),
            Kind::Resources | Kind::Templates => combine::uri(id, visible),
        };
        let hidden = kind == Kind::Tools && offer.tools.own(visible) != Some(&own);
        if hidden || !seen.insert(name.clone()) {
            twice.insert(visible.to_owned());
            continue;
        }
        if kind == Kind::Tools {
            budget.extend(budget::problems(id, visible));
        }
        if let Some(text) = combine::renamed(text, key, &name) {
            shown.push(Shown { own, name, reads, text });
        }
    }
    shown.sort_by(|a, b| a.name.cmp(&b.name));
    let mut problems: Vec<String> = twice
        .iter()
        .map(|name| format!("{id} has more than one tool '{name}': only the first is offered"))
        .collect();
    if let Some(first) = budget.first() {
        let more = budget.len().saturating_sub(1);
        let more = if more == 0 { String::new() } else { format!(", and {more} more like it") };
        problems.push(format!("a tool of {id} has a name that is not taken everywhere: {first}{more}"));
    }
    problems.truncate(PROBLEMS_MAX);
    (shown, problems)
}
