//! The Model Context Protocol without any input or output: bytes in, decisions and bytes out.
//!
//! - [`lines`] cuts a byte stream into lines, whatever the chunks were.
//! - [`wire`] tells what one line is and changes ids in it without touching another byte.
//! - [`meta`] edits `params._meta` in place (progress tokens, per-request metadata).
//! - [`build`] writes the few messages that are our own.
//! - [`handshake`] reads what servers say about themselves.
//! - [`era`] decides which of the two protocol eras a server speaks.
//!
//! Values pass as raw text (`RawValue`): no field, number form, key order or escape changes on the
//! way, and no tree of a call's arguments or result is ever built here.
//!
//! Must never read a clock, do input or output, or know who is on the other end.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod build;
pub mod era;
pub mod handshake;
pub mod lines;
pub mod meta;
pub mod wire;

#[cfg(test)]
mod fidelity_tests;
#[cfg(test)]
mod wire_tests;
