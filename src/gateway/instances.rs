//! The instances of one server (`orchestrator.replicas`), and which of them a request goes to.
//!
//! ```text
//! the server has one             that one; nothing is looked at
//! a request that stands alone    of those that are well the one with the fewest requests under way, among
//!                                equals in turn
//! none is well                   one with a connection all the same
//! none has a connection          whichever gets one first; all that sleep are woken
//! a request in a session         the session's, see [`home`]
//! one that brings what it was    the instance that gave it, see [`ties`]
//! given with an answer
//! nothing of it could be sent    another one, each once
//! ```
//! Each instance has its own connection, health, circuit and log; what the server offers, its limits and
//! how it is used are of all of them together. Names and routes know the server alone.
//!
//! Must never send a request to a second instance of which the first may have seen a part.

pub(crate) mod home;
#[cfg(test)]
mod tests;
pub(crate) mod ties;

use crate::gateway::demand::Touch;
use crate::gateway::hub::{Entry, Listener};
use crate::gateway::known::Memo;
use crate::gateway::lists::Lists;
use crate::gateway::metrics::Timed;
use crate::gateway::offered::Offered;
use crate::gateway::origin::Origin;
use crate::gateway::places::{Down, END_WITHIN, Place, Source};
use crate::gateway::slot::keep::DRAIN_MAX;
use crate::gateway::slot::{CLOSE_GRACE, Live, Unavailable};
use crate::gateway::{Ask, Gateway, lock, tool_of, traffic};
use crate::model::id::{REPLICAS_MAX, ServerId};
use crate::model::observed::Contact;
use crate::model::time::Timestamp;
use crate::traffic::Reached;
use crate::upstream::error::CallError;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// An instance that could not be sent anything is chosen after all others for this long.
const SHUNNED_FOR: Duration = Duration::from_secs(1);
/// One that leaves has this long for what is under way, and to end.
const LEAVE_MAX: Duration = Duration::from_secs(50);
const _: () = assert!(
    DRAIN_MAX.as_millis() + CLOSE_GRACE.as_millis() + END_WITHIN.as_millis() < LEAVE_MAX.as_millis(),
    "whatever is under way may end"
);
/// Between two looks whether it has ended.
const DRAIN_LOOK: Duration = Duration::from_millis(50);
/// News of several instances that come this close together are told once to those at other instances.
const TOGETHER: Duration = Duration::from_secs(1);
const _: () = assert!(REPLICAS_MAX <= u64::BITS, "a bit for each instance");

/// The instances that a request was tried at, a bit for each.
pub(crate) type Tried = u64;
/// A connection, and whose it is where the server has more than one.
pub(crate) type Found = (Option<Arc<Entry>>, Arc<Live>);

/// The instances of one server, and what they have in common.
#[derive(Debug)]
pub struct Group {
    /// The server's own id.
    pub(crate) server: ServerId,
    pub(crate) gateway: Weak<Gateway>,
    several: Arc<AtomicBool>,
    /// By number.
    members: RwLock<Vec<Weak<Entry>>>,
    /// Where the next search begins.
    turn: AtomicUsize,
    /// When news were told at all instances last, by method.
    told: Mutex<BTreeMap<String, Instant>>,
    pub(crate) touch: Arc<Touch>,
    pub(crate) lists: Arc<Lists>,
    pub(crate) offered: Arc<Offered>,
    pub(crate) memo: Arc<Memo>,
    pub(crate) limits: Arc<traffic::Whole>,
    /// What instances gave clients to come back with.
    ties: Mutex<ties::Ties>,
    /// Subscriptions of modern clients that the gateway holds.
    pub(crate) listeners: Mutex<Vec<Listener>>,
}

/// The instances of all servers, and those that are leaving.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    all: Mutex<BTreeMap<ServerId, Arc<Group>>>,
    leaving: Mutex<Vec<Arc<Entry>>>,
}

impl Groups {
    /// That of a server, made when there is none.
    pub(crate) fn of(&self, gateway: &Arc<Gateway>, server: ServerId) -> Arc<Group> {
        let new = |server: &ServerId| {
            Arc::new(Group {
                server: server.clone(),
                gateway: Arc::downgrade(gateway),
                several: Arc::default(),
                members: RwLock::default(),
                turn: AtomicUsize::new(0),
                told: Mutex::default(),
                touch: Arc::default(),
                lists: Arc::default(),
                offered: Arc::new(Offered::new(Arc::clone(&gateway.combined.news))),
                memo: Arc::default(),
                limits: Arc::default(),
                ties: Mutex::default(),
                listeners: Mutex::default(),
            })
        };
        let mut all = lock(&self.all);
        if let Some(group) = all.get(&server) {
            return Arc::clone(group);
        }
        let group = new(&server);
        all.insert(server, Arc::clone(&group));
        group
    }

    /// Says which instances there are.
    pub(crate) fn set(&self, entries: &[Arc<Entry>]) {
        let mut members: BTreeMap<&ServerId, Vec<&Arc<Entry>>> = BTreeMap::new();
        for entry in entries {
            members.entry(&entry.group.server).or_default().push(entry);
        }
        lock(&self.all).retain(|server, group| {
            let stays = members.contains_key(server);
            if !stays {
                // Nobody is sent from one of them to another any more.
                group.members.write().unwrap_or_else(PoisonError::into_inner).clear();
            }
            stays
        });
        for mut members in members.into_values() {
            members.sort_by_key(|entry| entry.replica);
            let Some(group) = members.first().map(|entry| Arc::clone(&entry.group)) else { continue };
            let weak = members.iter().map(|entry| Arc::downgrade(entry)).collect();
            *group.members.write().unwrap_or_else(PoisonError::into_inner) = weak;
            group.several.store(members.len() > 1, Relaxed);
        }
    }

    /// An instance goes. One beside others is told of until its last request has ended; `news` hears of that.
    pub(crate) fn leave(&self, entry: Arc<Entry>, news: &Arc<Notify>) {
        if entry.replica == 1 {
            entry.stop();
            return;
        }
        entry.slot.leave();
        lock(&self.leaving).push(Arc::clone(&entry));
        let news = Arc::clone(news);
        tokio::spawn(async move {
            let over = async {
                while entry.slot.is_draining() {
                    tokio::time::sleep(DRAIN_LOOK).await;
                }
            };
            let _too_long = tokio::time::timeout(LEAVE_MAX, over).await;
            entry.stop();
            lock(&entry.slot.draining).clear();
            news.notify_one();
        });
    }

    /// How the connections of those that are leaving stand.
    pub(crate) fn leaving(&self, now: Timestamp) -> Vec<(ServerId, Contact)> {
        let mut leaving = lock(&self.leaving);
        leaving.retain(|entry| entry.slot.is_draining());
        leaving.iter().map(|entry| (entry.slot.id.clone(), entry.slot.contact(now))).collect()
    }
}

impl Group {
    /// The instances, by number.
    pub(crate) fn members(&self) -> Vec<Arc<Entry>> {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        members.iter().filter_map(Weak::upgrade).collect()
    }

    /// The instance with this number.
    pub(crate) fn member(&self, replica: u32) -> Option<Arc<Entry>> {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        members.iter().filter_map(Weak::upgrade).find(|entry| entry.replica == replica)
    }

    /// The flag that says so.
    pub(crate) const fn several(&self) -> &Arc<AtomicBool> {
        &self.several
    }

    /// Whether there are several.
    pub(crate) fn is_several(&self) -> bool {
        self.several.load(Relaxed)
    }

    /// Whether news of one instance are to be told at the others, too.
    pub(crate) fn is_news(&self, method: &str) -> bool {
        if !self.is_several() || !method.ends_with("/list_changed") {
            return false;
        }
        let mut told = lock(&self.told);
        told.retain(|_, at| at.elapsed() < TOGETHER);
        told.insert(method.to_owned(), Instant::now()).is_none()
    }
}

impl Entry {
    /// Whether the server has this instance alone.
    pub(crate) fn is_one(&self) -> bool {
        !self.group.is_several() && !self.left.load(Relaxed)
    }

    pub(crate) fn bit(&self) -> Tried {
        1_u64.checked_shl(self.replica.saturating_sub(1)).unwrap_or(0)
    }

    /// The others, or those of them that were not tried; those first that a request should go to first.
    pub(crate) fn by_load(&self, tried: Tried) -> Vec<Arc<Self>> {
        let mut members = self.group.members();
        let turn = self.group.turn.fetch_add(1, Relaxed);
        let first = turn.checked_rem(members.len()).unwrap_or(0);
        members.rotate_left(first);
        members.retain(|member| member.bit() & tried == 0 && !member.left.load(Relaxed));
        members.sort_by_cached_key(|member| member.cost());
        members
    }

    /// The instance for a request that any may answer; `None` where there is this one alone.
    pub(crate) fn least(&self) -> Option<Arc<Self>> {
        if self.is_one() { None } else { self.by_load(0).into_iter().next() }
    }

    /// What speaks against sending a request here, and how many are under way.
    fn cost(&self) -> (u8, usize) {
        match self.slot.live() {
            Some(live) => (u8::from(!self.is_well()), live.leg.working()),
            None if self.slot.is_awaited() => (2, 0),
            None => (3, 0),
        }
    }

    fn is_well(&self) -> bool {
        !self.checkup.is_ill() && !self.traffic.is_cut() && !self.is_shunned()
    }

    /// Whether requests are answered here, as far as is known.
    pub(crate) fn is_serving(&self) -> bool {
        self.slot.live().is_some() && self.is_well()
    }

    fn is_shunned(&self) -> bool {
        lock(&self.shunned).is_some_and(|since| since.elapsed() < SHUNNED_FOR)
    }

    /// Whether a request that failed so may go to another instance; what was `tried` is noted.
    pub(crate) fn may_go_elsewhere(&self, error: &CallError, tried: &mut Tried) -> bool {
        if self.is_one() || traffic::reached(error) != Some(Reached::Nothing) {
            return false;
        }
        *lock(&self.shunned) = Some(Instant::now());
        *tried |= self.bit();
        let tried = *tried;
        self.group.members().iter().any(|member| member.bit() & tried == 0 && member.slot.live().is_some())
    }

    /// The connection for a request that any instance may answer; waits for one that is coming.
    ///
    /// # Errors
    /// Why there is none at any of them.
    pub(crate) async fn anywhere(
        self: &Arc<Self>,
        from: Option<(&Arc<Gateway>, &Origin)>,
        tried: Tried,
    ) -> Result<Found, Unavailable> {
        if self.is_one() {
            let live = match from {
                Some((gateway, origin)) => self.reach(gateway, origin).await,
                None => self.slot.ready().await,
            };
            return Ok((None, live?));
        }
        // Rare and large: a server with one instance does not carry it along.
        Box::pin(self.anywhere_of_several(from, tried)).await
    }

    async fn anywhere_of_several(
        self: &Arc<Self>,
        from: Option<(&Arc<Gateway>, &Origin)>,
        tried: Tried,
    ) -> Result<Found, Unavailable> {
        let members = self.by_load(tried);
        if let Some((gateway, origin)) = from
            && let Some(first) = members.first()
            && first.carries(origin)
        {
            let live = first.reach(gateway, origin).await?;
            return Ok((Some(Arc::clone(first)), live));
        }
        for member in &members {
            if let Some(live) = member.slot.live() {
                self.group.touch.used();
                return Ok((Some(Arc::clone(member)), live));
            }
        }
        self.first_up(members).await
    }

    /// Waits for all of them at once.
    async fn first_up(&self, members: Vec<Arc<Self>>) -> Result<Found, Unavailable> {
        let mut parked: FuturesUnordered<_> =
            members.iter().map(|member| async { (Arc::clone(member), member.slot.ready().await) }).collect();
        // One that was given up for now may come while another is waited for.
        let mut coming: FuturesUnordered<_> = members
            .iter()
            .map(|member| async { Some((Arc::clone(member), member.slot.other_than(0).await?)) })
            .collect();
        let mut why: Option<Unavailable> = None;
        loop {
            let (member, ready) = tokio::select! {
                biased;
                Some(come) = coming.next() => match come {
                    Some((member, live)) => (member, Ok(live)),
                    None => continue,
                },
                next = parked.next() => match next {
                    Some(ready) => ready,
                    None => break,
                },
            };
            match ready {
                Ok(live) => return Ok((Some(member), live)),
                Err(other) => why = Some(why.map_or_else(|| other.clone(), |why| why.or_sooner(&other))),
            }
        }
        Err(why.unwrap_or_else(|| Unavailable::Stopped("the server was removed".to_owned())))
    }

    /// Another connection than the one with this generation: of this instance at once, else of whichever has
    /// one first; `None` when the server was removed.
    pub(crate) async fn other_than(self: &Arc<Self>, generation: u64) -> Option<(Arc<Self>, Arc<Live>)> {
        if let Some(live) = self.slot.live().filter(|live| live.generation != generation) {
            return Some((Arc::clone(self), live));
        }
        let members = self.by_load(0);
        let mut coming: FuturesUnordered<_> = members
            .iter()
            .map(|member| async move { (member, member.slot.other_than(generation).await) })
            .collect();
        while let Some((member, come)) = coming.next().await {
            if let Some(live) = come {
                return Some((Arc::clone(member), live));
            }
        }
        None
    }

    /// The same without being a use, for what the server says of itself.
    pub(crate) async fn any_reached(&self) -> Result<Arc<Live>, Unavailable> {
        if self.is_one() {
            return self.slot.reached().await;
        }
        let members = self.by_load(0);
        if let Some(live) = members.iter().find_map(|member| member.slot.live()) {
            return Ok(live);
        }
        Box::pin(self.first_up(members)).await.map(|(_, live)| live)
    }

    /// The connection with this generation, if an instance has it, or else any that is open.
    pub(crate) fn any_live(&self, generation: Option<u64>) -> Option<Arc<Live>> {
        if self.is_one() {
            return self.slot.live();
        }
        let mut lives: Vec<_> = self.group.members().iter().filter_map(|member| member.slot.live()).collect();
        let at = lives.iter().position(|live| Some(live.generation) == generation).unwrap_or(0);
        (!lives.is_empty()).then(|| lives.swap_remove(at))
    }

    /// Where the server is, as long as any instance is to run.
    pub(crate) fn any_place(&self) -> Option<Arc<Place>> {
        let own = self.slot.place();
        let stopped = |place: &Arc<Place>| matches!(place.down, Some(Down::Stopped(_)));
        if self.is_one() || own.as_ref().is_some_and(|place| !stopped(place)) {
            return own;
        }
        let mut places = self.group.members().into_iter().filter_map(|member| member.slot.place());
        places.find(|place| !stopped(place)).or(own)
    }

    /// The instance for a connection of one client's own: local instances are made from the server's first
    /// place as long as that stands, so that they outlive any number of others.
    pub(crate) fn for_own(self: &Arc<Self>) -> Arc<Self> {
        let local = |entry: &Arc<Self>| {
            let place = entry.slot.place();
            place.is_some_and(|place| place.down.is_none() && !matches!(place.source, Source::Remote(_)))
        };
        let first = || self.group.members().into_iter().find(local);
        if self.is_one() { None } else { first().or_else(|| self.least()) }
            .unwrap_or_else(|| Arc::clone(self))
    }

    /// Whether any instance is well enough for requests.
    ///
    /// # Errors
    /// Why not.
    pub(crate) async fn any_health(&self, gateway: &Gateway) -> Result<(), String> {
        if self.is_one() {
            return self.health(gateway).await;
        }
        let mut why = None;
        for member in self.by_load(0) {
            match member.health(gateway).await {
                Ok(()) => return Ok(()),
                Err(other) => why = why.or(Some(other)),
            }
        }
        Err(why.unwrap_or_else(|| "it was removed".to_owned()))
    }
}

/// After a wait at the gate: the instance that has least to do now, and its connection, where that is
/// another one.
pub(crate) fn after_waiting(
    ask: &Ask<'_>,
    live: &Arc<Live>,
    (method, params): (&str, Option<&RawValue>),
    (pass, timed): &mut (Option<Box<traffic::Pass>>, Timed),
) -> Option<(Arc<Entry>, Arc<Live>)> {
    let pass = pass.as_mut().filter(|_| !ask.entry.is_one() && !ask.entry.carries(ask.origin))?;
    let let_in = pass.entry();
    let wanted = if Arc::ptr_eq(let_in, ask.entry) {
        if !pass.may_go_elsewhere() {
            return None;
        }
        ask.entry.least()?
    } else {
        // Only that one's circuit lets it pass.
        Arc::clone(let_in)
    };
    let other = wanted.slot.live().filter(|other| other.leg.greeting().era == live.leg.greeting().era)?;
    pass.goes_to(&wanted, false);
    timed.moves_to(&wanted.metrics, (method, &tool_of(method, params)));
    Some((wanted, other))
}
