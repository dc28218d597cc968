//! This host: which ports are free, who else runs here, where things are, what time it is.
//!
//! Translates the operating system's answers and nothing else; must never decide which port a
//! server gets, and never make a directory (the store and the listeners do, where they need one).

pub mod clock;
pub mod lock;
pub mod paths;
pub mod ports;

use crate::model::net::{HostPort, PortRange};
use crate::world::{Answer, ErrorKind, Host, WorldError};

/// The machine this process runs on.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThisHost;

impl Host for ThisHost {
    fn free_ports<'a>(&'a self, address: &'a str, range: PortRange) -> Answer<'a, Vec<HostPort>> {
        let address = address.to_owned();
        Box::pin(async move {
            // Thousands of system calls: not on a thread that others wait for.
            match tokio::task::spawn_blocking(move || ports::free(&address, range)).await {
                Ok(found) => found,
                Err(error) => {
                    let doing = format!("looking for free ports in {range}");
                    Err(WorldError::new(doing, ErrorKind::Failed, error.to_string()))
                }
            }
        })
    }

    fn reachable(&self, port: HostPort) -> Answer<'_, bool> {
        Box::pin(async move { Ok(ports::reachable(port).await) })
    }
}
