//! Names and values that every floor shares: what a server is, what was seen, what is remembered.
//!
//! Floor 0: no clock, no environment, no files, no network, no logging. Collections are ordered
//! (`BTreeMap`, `Vec`), so that equal inputs give equal bytes.
//! Invariant: nothing here decides; deciding is the business of [`crate::plan`]
//! (held by `tests/it/tidy.rs`).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod access;
pub mod balancer;
pub mod container;
pub mod desired;
pub mod fingerprint;
pub mod foreign;
pub mod health;
pub mod id;
pub mod mark;
pub mod memory;
pub mod net;
pub mod observed;
pub mod op;
pub mod policy;
pub mod record;
pub mod server;
pub mod session;
pub mod time;
pub mod traffic;
pub mod usage;
