//! The two files people write, from bytes to meaning: `settings.conf` and `mcp.config.json`.
//!
//! Why it is so: three stages (written, merged, meant), each a plain value, so that every problem
//! of both files is found at once and named with its place, and so that the origin of every
//! effective value is known. See [`settings::load`] and [`load::load`].
//!
//! Floor 0: no clock, no environment, no files, no network; contents are handed in as maps.
//! Invariant: reading never panics, whatever the bytes (property test `arbitrary_bytes`).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod assembly;
mod build;
pub mod codes;
mod depends;
pub mod docker_run;
pub mod edit;
pub mod error;
pub mod foreign;
mod ids;
mod ini;
mod json;
mod keys;
mod levels;
pub mod load;
mod merged;
mod node;
mod panel;
mod raw;
pub mod redact;
pub mod schema;
pub mod settings;
mod snake;
pub mod text;
mod units;
mod vars;
mod yaml;
