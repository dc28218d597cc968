//! Sessions and handshakes in memory, by the same rules as the store on disk.

use crate::model::id::ContainerId;
use crate::model::session::{LEG_MEMORIES_MAX, LegMemory, SESSIONS_MAX, SessionChange, SessionRecord};
use crate::world::fake::ready;
use crate::world::{Answer, ErrorKind, LegStore, SessionStore, WorldError};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A store of sessions that lasts as long as it is held.
#[derive(Debug, Default)]
pub struct FakeSessions {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    sessions: BTreeMap<String, SessionRecord>,
    legs: Vec<LegMemory>,
    fails: bool,
}

impl FakeSessions {
    /// From now on everything fails, or works again.
    pub fn set_failing(&self, fails: bool) {
        self.lock().fails = fails;
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T: Send + 'static>(&self, work: impl FnOnce(&mut Kept) -> T) -> Answer<'_, T> {
        let mut kept = self.lock();
        ready(if kept.fails {
            Err(WorldError::new("using the session store", ErrorKind::Failed, "it fails"))
        } else {
            Ok(work(&mut kept))
        })
    }
}

impl Kept {
    fn apply(&mut self, change: &SessionChange) {
        match change {
            SessionChange::Put(record) if record.fits() => {
                self.sessions.insert(record.id_hash.clone(), record.clone());
            }
            SessionChange::Put(SessionRecord { id_hash, .. }) | SessionChange::Remove(id_hash) => {
                self.sessions.remove(id_hash);
            }
            SessionChange::Touch { id_hash, last_used } => {
                if let Some(record) = self.sessions.get_mut(id_hash) {
                    record.last_used = *last_used;
                }
            }
        }
    }

    /// Most recently used first.
    fn sessions(&self) -> Vec<SessionRecord> {
        let mut all: Vec<SessionRecord> = self.sessions.values().cloned().collect();
        all.sort_by(|a, b| b.last_used.cmp(&a.last_used).then_with(|| a.id_hash.cmp(&b.id_hash)));
        all
    }
}

impl SessionStore for FakeSessions {
    fn load(&self) -> Answer<'_, Vec<SessionRecord>> {
        self.with(|kept| kept.sessions())
    }

    fn apply<'a>(&'a self, changes: &'a [SessionChange]) -> Answer<'a, ()> {
        self.with(|kept| {
            for change in changes {
                kept.apply(change);
            }
            if kept.sessions.len() > SESSIONS_MAX {
                let stay = kept.sessions().into_iter().take(SESSIONS_MAX);
                kept.sessions = stay.map(|record| (record.id_hash.clone(), record)).collect();
            }
        })
    }
}

impl LegStore for FakeSessions {
    fn load_legs(&self) -> Answer<'_, Vec<LegMemory>> {
        self.with(|kept| kept.legs.clone())
    }

    fn put_leg<'a>(&'a self, leg: &'a LegMemory) -> Answer<'a, ()> {
        self.with(|kept| {
            kept.legs.retain(|other| other.container != leg.container);
            kept.legs.push(leg.clone());
            let surplus = kept.legs.len().saturating_sub(LEG_MEMORIES_MAX);
            kept.legs.drain(..surplus);
        })
    }

    fn remove_leg<'a>(&'a self, container: &'a ContainerId) -> Answer<'a, ()> {
        self.with(|kept| kept.legs.retain(|leg| leg.container != *container))
    }
}
