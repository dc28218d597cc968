//! Floor 0 of the product, compiled from its own sources: what the fuzz targets call.
//!
//! Why it is so: floor 0 needs no runtime, engine or AWS crate, so a target builds in seconds and a
//! crash is always in the parsers or what they parse with.
#![forbid(unsafe_code)]
#![allow(dead_code, reason = "only the parsers are called")]

#[path = "../../src/config/mod.rs"]
pub mod config;
#[path = "../../src/mcp/mod.rs"]
pub mod mcp;
#[path = "../../src/model/mod.rs"]
pub mod model;
