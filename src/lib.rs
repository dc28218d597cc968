//! `mcp-orchestrator` makes MCP servers, host ports and load balancer rules match one file, and
//! keeps them so.
//!
//! Five floors; a module may import from its own floor only what ARCHITECTURE.md's table allows
//! and otherwise only from floors below it (held by `tests/it/tidy.rs`):
//!
//! | floor | modules | business |
//! |---|---|---|
//! | 0 | `model` `config` `plan` `mcp` `openapi` `traffic` `discovery` `doctor` | facts and decisions: no clock, files, network, logging |
//! | 1 | `world` | what we ask of the world, and a fake one |
//! | 2 | `docker` `alb` `store` `upstream` `runner` `host` | one foreign API each, translated |
//! | 3 | `observe` `execute` `reconcile` … | the moving parts |
//! | 4 | `cli` `daemon` … | what people and programs see |
#![forbid(unsafe_code)]

pub mod alb;
pub mod api;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod discovery;
pub mod docker;
pub mod doctor;
pub mod execute;
pub mod gateway;
pub mod host;
pub mod mcp;
pub mod model;
pub mod observe;
pub mod openapi;
pub mod panel;
pub mod plan;
pub mod reconcile;
pub mod runner;
pub mod service;
pub mod simulate;
pub mod store;
pub mod terminal;
pub mod traffic;
pub mod upstream;
pub mod usage;
pub mod world;
