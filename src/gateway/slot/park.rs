//! How requests wait for a server that is not there yet.
//!
//! Must never make one wait for a server that nobody starts.

use crate::gateway::demand;
use crate::gateway::slot::{Live, PARKED_MAX, Slot, State, Unavailable};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

impl Unavailable {
    /// Of two reasons the one that ends sooner, as far as is known.
    #[must_use]
    pub(crate) fn or_sooner(self, other: &Self) -> Self {
        let rank = |why: &Self| match why {
            Self::Late(_) => (0, None),
            Self::Later(_) => (1, None),
            Self::Failing(_, again) => (2, Some(*again)),
            Self::Stopped(_) => (3, None),
        };
        if rank(other) < rank(&self) { other.clone() } else { self }
    }
}

impl Slot {
    /// Whether it comes up for the first time since we started, as far as is known.
    pub(crate) fn is_awaited(&self) -> bool {
        let was_up = self.was_up.load(Ordering::Relaxed);
        !was_up && matches!(&*self.state.borrow(), State::Down(Unavailable::Later(_)))
    }

    pub(super) async fn park(&self) -> Result<Arc<Live>, Unavailable> {
        let _place = Parked::enter(&self.parked)
            .ok_or_else(|| Unavailable::Later("too many requests wait for it to start".to_owned()))?;
        self.ask_for_it();
        let place = self.place();
        let within = demand::wait_for(place.as_deref());
        let mut state = self.state.subscribe();
        let usable = |state: &State| match state {
            State::Up(live) => !live.leg.is_closed(),
            State::Down(why) => !matches!(why, Unavailable::Later(_) | Unavailable::Late(_)),
        };
        let waited = tokio::time::timeout(within, state.wait_for(usable)).await;
        match waited {
            Ok(Ok(state)) => match &*state {
                State::Up(live) => Ok(Arc::clone(live)),
                State::Down(why) => Err(why.clone()),
            },
            Ok(Err(_gone)) => Err(Unavailable::Stopped("the server was removed".to_owned())),
            Err(_elapsed) if place.is_some_and(|place| place.on_demand.is_some()) => {
                Err(Unavailable::Late(demand::late(within, self.why_down())))
            }
            Err(_elapsed) => {
                Err(Unavailable::Later(self.why_down().unwrap_or_else(|| "it is starting".to_owned())))
            }
        }
    }
}

/// Counts a waiting request while it waits.
struct Parked<'a>(&'a AtomicUsize);

impl<'a> Parked<'a> {
    fn enter(counter: &'a AtomicUsize) -> Option<Self> {
        let before = counter.fetch_add(1, Ordering::Relaxed);
        let parked = Self(counter);
        (before < PARKED_MAX).then_some(parked)
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
