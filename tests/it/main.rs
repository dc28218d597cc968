//! Everything that needs no engine, no AWS and no network: one binary, a module per surface.
//!
//! A file of this folder that is not named here fails `tidy`'s test of forgotten files.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test reports; clippy.toml lets them only inside #[test] functions"
)]

mod cli;
mod config;
mod docker_run;
mod readme;
mod reference;
mod simulation;
mod tidy;
