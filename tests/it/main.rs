//! Everything that needs no engine, no AWS and no network: one binary, a module per surface.
//!
//! A file of this folder that is not named here fails `tidy`'s test of forgotten files.

mod config;
mod docker_run;
mod simulation;
