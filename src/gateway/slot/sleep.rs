//! How a slot comes to sleep: requests are held from then on, and whoever looks after servers hears that
//! one waits.
//!
//! Must never believe that a server sleeps whose connection is open: it may just have been used.

use crate::gateway::demand::{SLEEP_MAX, is_asleep};
use crate::gateway::places::{Down, Place};
use crate::gateway::slot::keep::DRAIN_LOOK;
use crate::gateway::slot::{Slot, State, put};
use std::sync::Arc;

impl Slot {
    /// What is told of a place: one that shall sleep is put to sleep by [`Self::sleep`].
    pub(super) fn not_yet_asleep(&self, place: Arc<Place>) -> Arc<Place> {
        self.touch.watch(place.on_demand.is_some());
        let sleeps = self.place().is_some_and(|held| is_asleep(&held));
        if is_asleep(&place) && !sleeps && self.live().is_some() {
            return Arc::new(Place { down: None, ..(*place).clone() });
        }
        place
    }

    /// Holds requests from now on and closes the connection, unless it was used since `uses`.
    pub(crate) async fn sleep(&self, uses: u64) -> Result<(), String> {
        let mut used = false;
        self.place.send_if_modified(|held| {
            let Some(place) = held.as_ref().map(|spot| Arc::clone(&spot.place)) else { return false };
            if is_asleep(&place) {
                return false;
            }
            used = self.touch.count() != uses;
            if !used {
                let down = Some(Down::Asleep("nobody uses it; the next request starts it".to_owned()));
                put(held, Arc::new(Place { down, ..(*place).clone() }));
            }
            !used
        });
        if used {
            return Err("it is used again".to_owned());
        }
        let mut state = self.state.subscribe();
        let gone = async {
            drop(state.wait_for(|state| matches!(state, State::Down(_))).await);
            // Whoever retires the connection has begun to by then.
            tokio::time::sleep(DRAIN_LOOK).await;
            while self.is_draining() {
                tokio::time::sleep(DRAIN_LOOK).await;
            }
        };
        let over = tokio::time::timeout(SLEEP_MAX, gone).await;
        over.map_err(|_late| format!("its last requests have not ended in {} s", SLEEP_MAX.as_secs()))
    }

    /// Has whoever looks after servers hear that a request waits.
    pub(super) fn ask_for_it(&self) {
        if self.place().is_some_and(|place| is_asleep(&place)) {
            self.news.notify_one();
        }
    }
}
