//! This host: which ports are free, who else runs here, where things are, what time it is.
//!
//! Translates the operating system's answers and nothing else; must never decide which port a
//! server gets, and never make a directory (the store and the listeners do, where they need one).

pub mod clock;
pub mod document;
pub mod lock;
pub mod paths;
pub mod ports;
pub mod systemd;
pub mod usage;
pub mod walk;

use crate::model::net::{HostPort, PortRange};
use crate::world::{Answer, ErrorKind, Host, WorldError};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// Ports that are bound by this process itself and are anybody's to have.
pub type OwnPorts = Arc<dyn Fn() -> Vec<HostPort> + Send + Sync>;

/// The machine this process runs on.
#[derive(Clone, Default)]
pub struct ThisHost {
    own: Option<OwnPorts>,
}

impl ThisHost {
    /// This machine, where these ports count as free although this process holds them.
    #[must_use]
    pub fn holding(own: OwnPorts) -> Self {
        Self { own: Some(own) }
    }
}

impl fmt::Debug for ThisHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThisHost").finish_non_exhaustive()
    }
}

impl Host for ThisHost {
    fn free_ports<'a>(&'a self, address: &'a str, range: PortRange) -> Answer<'a, Vec<HostPort>> {
        let address = address.to_owned();
        let own = self.own.as_ref().map(|own| own()).unwrap_or_default();
        Box::pin(async move {
            // Thousands of system calls: not on a thread that others wait for.
            match tokio::task::spawn_blocking(move || ports::free(&address, range)).await {
                Ok(found) => found.map(|free: Vec<HostPort>| {
                    let own = own.into_iter().filter(|port| range.contains(*port));
                    free.into_iter().chain(own).collect::<BTreeSet<_>>().into_iter().collect()
                }),
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

#[cfg(test)]
mod tests {
    use super::{Host as _, ThisHost};
    use crate::model::net::{HostPort, PortRange};
    use std::sync::Arc;

    #[tokio::test]
    async fn a_port_that_we_hold_for_anybody_is_free() {
        let held = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = HostPort::new(held.local_addr().expect("address").port()).expect("port");
        let range = PortRange { start: port, end: port };
        let free = |host: ThisHost| async move { host.free_ports("127.0.0.1", range).await.expect("ports") };
        assert_eq!(free(ThisHost::default()).await, []);
        assert_eq!(free(ThisHost::holding(Arc::new(move || vec![port]))).await, [port]);
        let outside =
            PortRange { start: HostPort::new(1).expect("port"), end: HostPort::new(1).expect("port") };
        let host = ThisHost::holding(Arc::new(move || vec![port]));
        assert!(!host.free_ports("127.0.0.1", outside).await.unwrap_or_default().contains(&port));
    }
}
