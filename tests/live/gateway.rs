//! The gateway as clients see it: the daemon, real containers with the fixture of
//! `tests/fixture` in them, plain HTTP. Numbers are those of the list of requirements.

mod client;
mod fidelity;
mod front;
mod kinds;
mod life;
mod restart;
mod sessions;
mod wire;
