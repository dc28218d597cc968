//! Connections to MCP servers that speak over a pipe.
//!
//! A [`leg::Leg`] is one stdio server behind any reader and writer: a container's attached streams
//! or a child process's pipes. It gives many callers one connection: ids and progress tokens are
//! made unique on the way out and restored on the way back.
//!
//! - [`leg`] is the handle that callers hold.
//! - [`open`] is the handshake: with a fresh process, or with one that an earlier run of ours left.
//! - [`table`] is what is in flight, and what each line that arrives does to it.
//! - [`pump`] moves the bytes: reader and writer never wait for each other.
//! - [`error`] says what went wrong.
//! - [`chunks`] makes readers out of a stream of tagged chunks, as a container engine sends them.
//!
//! Must never name an engine's crate, start a process, or log what passes through.

pub mod chunks;
pub mod error;
pub mod leg;
pub mod metrics;
pub mod open;
pub mod pump;
pub mod table;

#[cfg(test)]
mod leg_tests;
#[cfg(test)]
mod open_tests;
