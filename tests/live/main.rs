//! Real parts: a Docker engine, strict moto behind a fault proxy, a registry. `tests/run.sh`
//! starts what is needed and says where it is; what is missing fails, nothing is skipped.
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

mod alb;
mod cli;
mod converge;
mod crash;
mod defects;
mod discovery;
mod docker_run;
mod gateway;
mod health;
mod legs;
mod listener;
mod panel;
mod proxy;
mod registry;
mod reload;
mod replicas;
mod runner;
mod secrets;
mod support;
mod trouble;
