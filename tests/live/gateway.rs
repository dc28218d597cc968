//! The gateway as clients see it: the daemon, real containers with the fixture of
//! `tests/fixture` in them, plain HTTP. Numbers are those of the list of requirements.

pub(crate) mod client;
mod demand;
mod faults;
mod fidelity;
mod front;
mod kinds;
mod life;
mod limits;
mod main_listener;
mod replicas;
mod restart;
mod sessions;
mod tools;
pub(crate) mod wire;
