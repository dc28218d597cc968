//! Why a call does not go, and what its client is told.
//!
//! Must never say who else calls.

use crate::gateway::flow::{Again, Out};
use crate::gateway::traffic::millis;
use crate::gateway::traffic::view::Reason;
use crate::mcp::build;
use crate::mcp::wire::{INTERNAL_ERROR, INVALID_REQUEST};
use crate::model::time::Span;
use serde_json::value::RawValue;
use std::fmt;
use std::time::Duration;

/// Seconds after which one may come again who found the queue full.
const FULL_SECS: u64 = 1;

/// Why a call does not go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Too many of all clients; one more goes after this time.
    Rate(Duration),
    /// Too many of this client.
    ClientRate(Duration),
    /// As many wait as may.
    Full,
    /// It has waited this long.
    Waited(Duration),
    /// The server does not answer; it is tried again after this time.
    Circuit(Duration),
    /// It has so many bytes, of so many.
    TooLong(u64, u64),
}

impl Denied {
    /// The status of its answer.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::Rate(_) | Self::ClientRate(_) => 429,
            Self::Full | Self::Waited(_) | Self::Circuit(_) => 503,
            Self::TooLong(..) => 413,
        }
    }

    /// The documented code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Rate(_) | Self::ClientRate(_) => "MCPO-G070",
            Self::Full | Self::Waited(_) => "MCPO-G071",
            Self::Circuit(_) => "MCPO-G072",
            Self::TooLong(..) => "MCPO-G073",
        }
    }

    /// After how many seconds it is worth another try, if it is.
    #[must_use]
    pub fn retry_after_secs(&self) -> Option<u64> {
        match self {
            Self::Rate(wait) | Self::ClientRate(wait) | Self::Circuit(wait) => Some(secs(*wait)),
            Self::Full | Self::Waited(_) => Some(FULL_SECS),
            Self::TooLong(..) => None,
        }
    }

    pub(super) const fn reason(&self) -> Reason {
        match self {
            Self::Rate(_) => Reason::Rate,
            Self::ClientRate(_) => Reason::ClientRate,
            Self::Full => Reason::QueueFull,
            Self::Waited(_) => Reason::QueueTimeout,
            Self::Circuit(_) => Reason::Circuit,
            Self::TooLong(..) => Reason::RequestSize,
        }
    }

    /// What a client that speaks MCP is told.
    #[must_use]
    pub fn out(&self, id: &RawValue) -> Out {
        let (why, secs) = (self.to_string(), self.retry_after_secs());
        let code = if matches!(self, Self::TooLong(..)) { INVALID_REQUEST } else { INTERNAL_ERROR };
        let text = build::denied(Some(id), code, (&why, self.code()), secs);
        match self {
            Self::TooLong(..) => Out::Answer(self.status(), text),
            _ => Out::Busy(text, Again { status: self.status(), secs }),
        }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate(wait) => {
                write!(f, "too many calls of this server; the next may come in {} s", secs(*wait))
            }
            Self::ClientRate(wait) => {
                write!(f, "too many calls of this client; its next may come in {} s", secs(*wait))
            }
            Self::Full => f.write_str("the server has as many calls under way and waiting as it may have"),
            Self::Waited(wait) => write!(f, "the call waited {} s for its turn", secs(*wait)),
            Self::Circuit(wait) => {
                write!(
                    f,
                    "the server did not answer and is left alone; it is tried again in {} s",
                    secs(*wait)
                )
            }
            Self::TooLong(bytes, max) => write!(f, "the call has {bytes} bytes of {max} that it may have"),
        }
    }
}

/// Whole seconds, at least one.
fn secs(wait: Duration) -> u64 {
    Span(millis(wait)).as_secs_ceil().max(1)
}
