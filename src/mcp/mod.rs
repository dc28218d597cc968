//! The Model Context Protocol without any input or output: bytes in, decisions and bytes out.
//!
//! - [`lines`] cuts a byte stream into lines, whatever the chunks were.
//! - [`wire`] tells what one line is and changes ids in it without touching another byte.
//! - [`meta`] edits `params._meta` in place (progress tokens, per-request metadata).
//! - [`build`] writes the few messages that are our own.
//! - [`handshake`] reads what servers say about themselves.
//! - [`era`] decides which of the two protocol eras a server speaks.
//! - [`front`] decides what an HTTP request means, and refuses those that break the rules;
//!   [`mirror`] compares headers with the body, [`base64`] is the form some of them take.
//! - [`translate`], [`input`] and [`listen`] put one era's messages into the other's words;
//!   [`object`] is how they edit a text.
//! - [`seal`] protects what a client keeps for us.
//! - [`sse`] writes and reads event streams.
//!
//! Values pass as raw text (`RawValue`): no field, number form, key order or escape changes on the
//! way, and no tree of a call's arguments or result is ever built here.
//!
//! Must never read a clock, do input or output, or know who is on the other end.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod base64;
pub mod budget;
pub mod build;
pub mod combine;
pub mod era;
pub mod front;
pub mod handshake;
pub mod input;
pub mod lines;
pub mod listen;
pub mod meta;
pub mod mirror;
pub mod object;
pub mod scan;
pub mod seal;
pub mod sse;
pub mod translate;
pub mod wire;

#[cfg(test)]
mod fidelity_tests;
#[cfg(test)]
mod front_tests;
#[cfg(test)]
mod spec_tests;
#[cfg(test)]
mod sse_tests;
#[cfg(test)]
mod translate_tests;
#[cfg(test)]
mod wire_tests;
