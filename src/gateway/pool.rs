//! Legs by container: attached when first needed, kept while the container lives.
//!
//! A container has exactly one owner of its streams. Must never start or stop a container.

use crate::mcp::handshake::ClientInfo;
use crate::model::id::ContainerId;
use crate::upstream::error::{CallError, LegError};
use crate::upstream::leg::{Leg, LegIo};
use crate::upstream::open::{Mode, OpenOptions};
use crate::world::{Answer, Clock};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// Longest wait for a tool's answer.
const CALL_WITHIN: Duration = Duration::from_secs(300);
/// Connections that are kept; older ones of containers that are gone make room.
const LEGS_MAX: usize = 1024;

/// Gives the streams of a running container.
pub trait Attach: Send + Sync {
    /// Attaches to stdin, stdout and stderr.
    fn attach<'a>(&'a self, container: &'a ContainerId) -> Answer<'a, LegIo>;
}

/// Why a call gave no result.
#[derive(Debug)]
pub enum PoolError {
    /// The streams cannot be had.
    Attach(crate::world::WorldError),
    /// The server does not speak MCP over them.
    Open(LegError),
    /// The call itself failed.
    Call(CallError),
}

impl std::fmt::Display for PoolError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Attach(error) => error.fmt(f),
            Self::Open(error) => error.fmt(f),
            Self::Call(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for PoolError {}

type Slot = Arc<Mutex<Option<Leg>>>;

/// Connections to stdio containers.
pub struct LegPool {
    attach: Arc<dyn Attach>,
    clock: Arc<dyn Clock>,
    legs: Mutex<BTreeMap<ContainerId, Slot>>,
}

impl std::fmt::Debug for LegPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LegPool").finish_non_exhaustive()
    }
}

impl LegPool {
    /// A pool over an engine.
    #[must_use]
    pub fn new(attach: Arc<dyn Attach>, clock: Arc<dyn Clock>) -> Self {
        Self { attach, clock, legs: Mutex::new(BTreeMap::new()) }
    }

    /// Calls a tool of the server in `container`; one try, because a call may have effects.
    ///
    /// # Errors
    /// See [`PoolError`].
    pub async fn call(
        &self,
        container: &ContainerId,
        tool: &str,
        arguments: &RawValue,
    ) -> Result<Box<RawValue>, PoolError> {
        let leg = self.leg(container).await?;
        leg.call_tool(tool, Some(arguments), CALL_WITHIN).await.map_err(PoolError::Call)
    }

    /// The connection to a container, opened when there is none that works.
    async fn leg(&self, container: &ContainerId) -> Result<Leg, PoolError> {
        let slot = {
            let mut legs = self.legs.lock().await;
            if legs.len() >= LEGS_MAX {
                // Idle slots are cheap to open again.
                legs.retain(|_, slot| Arc::strong_count(slot) > 1);
            }
            Arc::clone(legs.entry(container.clone()).or_default())
        };
        let mut held = slot.lock().await;
        if let Some(leg) = held.as_ref() {
            let closed = tokio::time::timeout(Duration::ZERO, leg.closed()).await.is_ok();
            if !closed {
                return Ok(leg.clone());
            }
        }
        let io = self.attach.attach(container).await.map_err(PoolError::Attach)?;
        let unix_secs = u64::try_from(self.clock.now().0 / 1000).unwrap_or(0);
        let mode = Mode::Reattach { unix_secs, remembered: None };
        let client =
            ClientInfo { name: "mcp-orchestrator".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
        let leg = Leg::open(io, OpenOptions::new(mode, client)).await.map_err(PoolError::Open)?;
        *held = Some(leg.clone());
        Ok(leg)
    }
}
