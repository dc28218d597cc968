//! Connections to MCP servers, whatever they speak over.
//!
//! A [`leg::Leg`] is one server behind any reader and writer of lines: a container's attached
//! streams, a child process's pipes, or a connection made to look like them. It gives many callers
//! one connection: ids and progress tokens are made unique on the way out and restored on the way
//! back.
//!
//! - [`leg`] is the handle that callers hold.
//! - [`open`] is the handshake: with a fresh process, or with one that an earlier run of ours left.
//! - [`table`] is what is in flight, and what each line that arrives does to it.
//! - [`pump`] moves the bytes: reader and writer never wait for each other.
//! - [`error`] says what went wrong.
//! - [`chunks`] makes readers out of a stream of tagged chunks, as a container engine sends them.
//! - [`remote`] picks the transport of a server elsewhere: [`http`] (with [`http_sse`] and
//!   [`exchange`], at an [`endpoint`]), [`websocket`] or [`tcp`].
//! - [`document`] asks for a document that is no MCP server's, such as an issuer's keys.
//! - [`page`] asks whether a path of a server answers HTTP.
//!
//! Must never name an engine's crate or log what passes through.

pub mod chunks;
pub mod document;
pub mod endpoint;
pub mod error;
pub mod exchange;
pub mod http;
pub mod http_sse;
pub mod leg;
pub mod metrics;
pub mod open;
mod outgoing;
pub mod page;
mod pipe;
pub mod pump;
pub mod remote;
mod sse;
pub mod table;
pub mod tcp;
mod tool_headers;
pub mod websocket;

#[cfg(test)]
mod http_tests;
#[cfg(test)]
mod leg_tests;
#[cfg(test)]
mod open_tests;
