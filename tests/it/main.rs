//! Everything that needs no engine, no AWS and no network: one binary, a module per surface.
//!
//! A file of this folder that is not named here fails `tidy`'s test of forgotten files.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::map_err_ignore,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::too_many_lines,
    let_underscore_drop,
    reason = "tests may take the short way: a panic there is the report"
)]

mod cli;
mod complete;
mod config;
mod demand;
mod dependencies;
mod depends;
mod discovery;
mod docker_run;
mod doctor;
mod doors;
mod drain;
mod edges;
mod editing;
mod faults;
mod fuzz;
mod health;
mod inside;
mod levels;
mod order;
mod outside;
mod packages;
mod processes;
mod readme;
mod recovery;
mod reference;
mod reload;
mod replicas;
mod simulation;
mod systemd;
mod tidy;
mod together;
mod tool_paths;
