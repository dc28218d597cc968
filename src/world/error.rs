//! What the world said no with, decided once, at the edge: what we were doing, whose fault it is,
//! whether another try can help.
//!
//! Must never hold a secret: adapters put in what they asked for by name, never request bodies.

use std::fmt;

/// A failed question or effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorldError {
    /// What we were doing to which thing: `creating container mcp-time`.
    pub doing: String,
    /// What kind of no it was.
    pub kind: ErrorKind,
    /// The other side's own words.
    pub cause: String,
}

/// Kinds of failure that callers treat differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorKind {
    /// The thing is not there.
    NotFound,
    /// Its name, port or priority is taken, or its state does not allow it.
    Conflict,
    /// The request itself was refused as wrong.
    Invalid,
    /// Credentials are missing, wrong or not enough.
    Denied,
    /// Too many requests.
    Throttled,
    /// A quota of the other side is used up.
    Quota,
    /// Nobody answers.
    Unreachable,
    /// No answer within the time allowed.
    TimedOut,
    /// The other side failed.
    Failed,
}

impl ErrorKind {
    /// The documented error code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::NotFound => "MCPO-W001",
            Self::Conflict => "MCPO-W002",
            Self::Invalid => "MCPO-W003",
            Self::Denied => "MCPO-W004",
            Self::Throttled => "MCPO-W005",
            Self::Quota => "MCPO-W006",
            Self::Unreachable => "MCPO-W007",
            Self::TimedOut => "MCPO-W008",
            Self::Failed => "MCPO-W009",
        }
    }
}

impl WorldError {
    /// An error with its three parts.
    #[must_use]
    pub fn new(doing: impl Into<String>, kind: ErrorKind, cause: impl Into<String>) -> Self {
        Self { doing: doing.into(), kind, cause: cause.into() }
    }
}

impl fmt::Display for WorldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.doing, self.cause)
    }
}

impl std::error::Error for WorldError {}
