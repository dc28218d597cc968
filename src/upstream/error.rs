//! What can go wrong between us and a stdio server.
//!
//! Must never contain arguments or results: only method names, sizes, codes and the server's own
//! error message.

use crate::mcp::era::EraError;
use crate::mcp::wire::{Era, RpcError};
use crate::world::WorldError;
use std::fmt;
use std::time::Duration;

/// Why a leg is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The server closed its output: it ended, or is about to.
    Eof,
    /// Reading its output failed.
    ReadFailed(String),
    /// Writing to its input failed.
    WriteFailed(String),
    /// We let go of it.
    LetGo,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Eof => f.write_str("server closed its output"),
            Self::ReadFailed(why) => write!(f, "reading the server's output failed: {why}"),
            Self::WriteFailed(why) => write!(f, "writing to the server's input failed: {why}"),
            Self::LetGo => f.write_str("connection to the server was let go"),
        }
    }
}

/// Why a request has no result.
#[derive(Clone, Debug)]
pub enum CallError {
    /// The server answered with an error; `raw` of it is what a caller should get.
    Rpc(RpcError),
    /// No answer in time; the server was told to stop.
    TimedOut {
        /// How long we waited.
        after: Duration,
    },
    /// Its caller took it back.
    Cancelled,
    /// The leg closed before an answer came.
    Closed(CloseReason),
    /// The leg closed before any of the request was written, or was closed already.
    Unsent(CloseReason),
    /// Too much is in flight or queued; try again later.
    Busy,
    /// The answer was longer than a line may be.
    TooLong {
        /// Its length.
        bytes: u64,
    },
    /// Params that are no object cannot carry a progress token.
    Params,
    /// A list that never ends, or an answer that is no list.
    List(&'static str),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rpc(error) => write!(f, "server answered with an error: {error}"),
            Self::TimedOut { after } => write!(f, "server did not answer within {} ms", after.as_millis()),
            Self::Cancelled => f.write_str("request was cancelled"),
            Self::Closed(why) | Self::Unsent(why) => write!(f, "{why}"),
            Self::Busy => f.write_str("server has too many requests waiting"),
            Self::TooLong { bytes } => {
                write!(f, "server's answer of {bytes} bytes is over the limit")
            }
            Self::Params => f.write_str("request params are not an object"),
            Self::List(why) => write!(f, "server's list is unusable: {why}"),
        }
    }
}

impl std::error::Error for CallError {}

/// Why a leg could not be opened.
#[derive(Clone, Debug)]
pub enum LegError {
    /// Nothing came back in time.
    Silent {
        /// What we had sent.
        method: &'static str,
        /// How long we waited.
        after: Duration,
    },
    /// The server refused the handshake.
    Refused(RpcError),
    /// This process is spoilt for us; a fresh one, opened with this era, may serve.
    Again(Era),
    /// This process ended before it answered; the next one is to be opened with this era.
    Ended(Era),
    /// It speaks nothing that we do.
    Era(EraError),
    /// Its streams cannot be had.
    World(WorldError),
    /// It went away meanwhile.
    Closed(CloseReason),
    /// The call itself failed.
    Call(CallError),
}

impl fmt::Display for LegError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent { method, after } => {
                write!(f, "server did not answer {method} within {} ms", after.as_millis())
            }
            Self::Refused(error) => write!(f, "server refused the handshake: {error}"),
            Self::Ended(_) => f.write_str("server ended before it answered the first message"),
            Self::Again(era) => {
                let first = if *era == Era::Legacy { "initialize" } else { "server/discover" };
                write!(f, "server needs a fresh process whose first message is {first}")
            }
            Self::Era(why) => write!(f, "{why}"),
            Self::World(why) => write!(f, "{why}"),
            Self::Closed(why) => write!(f, "{why}"),
            Self::Call(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for LegError {}
