//! A connection of one client alone: to an instance of the server that nobody else uses, because
//! the server asks its clients back or the entry says so.
//!
//! Must never outlive its session, nor be handed to another client.

use crate::gateway::places::{Keeper, Opened, Place};
use crate::gateway::slot::{CLOSE_GRACE, OWNED_MAX, Shared, Slot, who_we_are};
use crate::upstream::error::LegError;
use crate::upstream::leg::Leg;
use crate::upstream::open::{Mode, OpenOptions};
use crate::upstream::table::{FromServer, Outlets, Routing};
use serde_json::value::RawValue;
use std::sync::Arc;
use tokio::sync::mpsc;

/// A connection of one client alone, and what to end with it.
pub struct Dedicated {
    /// The connection.
    pub leg: Leg,
    /// What the server says outside of calls.
    pub said: mpsc::Receiver<FromServer>,
    keeper: Option<Box<dyn Keeper>>,
}

impl std::fmt::Debug for Dedicated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dedicated").field("leg", &self.leg).finish_non_exhaustive()
    }
}

impl Dedicated {
    /// Opens one with the client's own `initialize` params.
    ///
    /// # Errors
    /// Why its instance cannot be had or does not answer.
    pub async fn open(
        slot: &Arc<Slot>,
        shared: &Shared,
        place: &Place,
        initialize: Box<RawValue>,
    ) -> Result<Self, LegError> {
        let Opened { io, keeper, .. } =
            shared.opener.dedicated(&slot.id, place).await.map_err(LegError::World)?;
        let (owner, said) = mpsc::channel(OWNED_MAX);
        let options = OpenOptions {
            second: true,
            routing: Routing::Dedicated,
            initialize: Some(initialize),
            outlets: Outlets { owner: Some(owner), diagnostics: Some(slot.diagnostics.clone()) },
            ..OpenOptions::new(Mode::Fresh, who_we_are())
        };
        match Leg::open(io, options).await {
            Ok(leg) => Ok(Self { leg, said, keeper }),
            Err(why) => {
                if let Some(keeper) = keeper {
                    keeper.end().await;
                }
                Err(why)
            }
        }
    }

    /// What must be ended after the connection; taken once.
    pub fn take_keeper(&mut self) -> Option<Box<dyn Keeper>> {
        self.keeper.take()
    }
}

/// Whether the server can have no second instance.
#[must_use]
pub fn only_one(error: &LegError) -> bool {
    matches!(error, LegError::World(error) if error.kind == crate::world::ErrorKind::Conflict)
}

/// Closes a connection and ends what it stood on.
pub async fn end(leg: Leg, keeper: Option<Box<dyn Keeper>>) {
    leg.close(CLOSE_GRACE).await;
    drop(leg);
    if let Some(keeper) = keeper {
        keeper.end().await;
    }
}
