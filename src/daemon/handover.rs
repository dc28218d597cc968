//! From one process of the daemon to the next without a refused connection: sockets that listen are
//! given into the service manager's keeping, and taken over by name.
//!
//! | name | socket |
//! |---|---|
//! | `main` | the main listener |
//! | `gateway` | the listener for rules that share a target group |
//! | `metrics` | the listener for figures and probes alone |
//! | `openapi` | the tool proxy's own port |
//! | `control` | the control socket |
//! | `edge-8000` | the edge listener on port 8000 |
//! | `mcp-orchestrator.socket` | the main listener, held by the optional socket unit |
//!
//! The last one is the administrator's: its address counts and not that of the settings, and it has a
//! name that none of ours has, as the two must be told apart.
//!
//! Must never serve a socket of the others that listens elsewhere than the settings say; what nobody
//! wants is taken out of the keeping, or clients would wait in its queue for ever. Must never end the
//! listening of a socket that the unit holds: systemd would take the unit for broken.

use crate::gateway::edges::SocketStore;
use crate::host::systemd::{self, Inherited, Manager};
use crate::model::net::HostPort;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Name of the main listener's socket.
pub const MAIN: &str = "main";
/// Name of the shared listener's socket.
pub const GATEWAY: &str = "gateway";
/// Name of the socket for figures and probes alone.
pub const METRICS: &str = "metrics";
/// Name of the socket of the tool proxy's own port.
pub const TOOLS: &str = "openapi";
/// Name of the sockets of the optional socket unit, as systemd has it where `FileDescriptorName=` says
/// no other.
pub const HELD: &str = "mcp-orchestrator.socket";
/// Name of the control socket.
pub const CONTROL: &str = "control";
/// Beginning of the names of edge listeners' sockets; the port follows.
const EDGE: &str = "edge-";

/// The service manager, and what it handed to this process.
pub struct Handover {
    manager: Manager,
    inherited: Mutex<Inherited>,
}

impl fmt::Debug for Handover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handover").field("manager", &self.manager).finish_non_exhaustive()
    }
}

impl Handover {
    /// Takes over what the service manager handed to this process.
    ///
    /// Must be called at most once, before there are threads: it changes the environment.
    #[must_use]
    pub fn begin() -> Self {
        let env = crate::daemon::whole_environment();
        let inherited = Inherited::take(env.get("LISTEN_FDNAMES").map(String::as_str));
        Self::new(Manager::find(&env, std::process::id()), inherited)
    }

    fn new(manager: Manager, inherited: Inherited) -> Self {
        Self { manager, inherited: Mutex::new(inherited) }
    }

    /// Whom to tell.
    #[must_use]
    pub const fn manager(&self) -> &Manager {
        &self.manager
    }

    fn inherited(&self) -> MutexGuard<'_, Inherited> {
        self.inherited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The control socket of the process before, if clients still find it at `path`.
    #[must_use]
    pub fn control(&self, path: &Path) -> Option<UnixListener> {
        let known = self.inherited().has(CONTROL);
        let found = self.inherited().unix(CONTROL, path);
        // The file may have gone with its directory: then nobody can reach the socket any more.
        let there = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
        let found = found.filter(|_| there);
        let usable = found.and_then(|found| found.set_nonblocking(true).is_ok().then_some(found));
        if known && usable.is_none() {
            self.manager.let_go(CONTROL);
        }
        usable
    }

    /// The listener of this name of the process before, if it listens on `address`. When it returns
    /// `None`, nothing of ours does.
    pub async fn tcp(&self, name: &str, address: SocketAddr) -> Option<TcpListener> {
        let known = self.inherited().has(name);
        let found = self.inherited().tcp(name, address);
        let usable = found.and_then(|found| found.set_nonblocking(true).is_ok().then_some(found));
        if known && usable.is_none() {
            tracing::warn!(
                "the inherited socket '{name}' does not listen on {address}, as the settings say: closed"
            );
            self.manager.let_go(name);
            self.manager.has_read().await;
        }
        usable
    }

    /// The main listener as the socket unit holds it, on each of the unit's addresses; empty without
    /// the unit.
    #[must_use]
    pub fn held(&self) -> Vec<TcpListener> {
        let known = self.inherited().has(HELD);
        let mut found = self.inherited().all_tcp(HELD);
        found.retain(|listener| listener.set_nonblocking(true).is_ok());
        if known && found.is_empty() {
            tracing::warn!("{HELD} holds no TCP socket: the main listener is bound as the settings say");
        }
        found
    }

    /// Where the socket unit's listeners are reached: the first address that others reach, else the
    /// first; `None` without the unit. To be asked before [`Self::held`].
    #[must_use]
    pub fn held_at(&self) -> Option<IpAddr> {
        let all = self.inherited().addresses(HELD);
        let open = all.iter().find(|address| !address.ip().is_loopback());
        open.or_else(|| all.first()).map(SocketAddr::ip)
    }

    /// Gives a copy of a socket into the manager's keeping.
    pub fn keep(&self, name: &str, socket: &impl AsFd) {
        self.manager.keep(name, socket.as_fd());
    }

    /// The edge listeners of the process before that listen on `host`.
    pub async fn edges(&self, host: IpAddr) -> BTreeMap<HostPort, TcpListener> {
        let names = self.inherited().names();
        let mut found = BTreeMap::new();
        for (name, port) in names.iter().filter_map(|name| Some((name, edge_port(name)?))) {
            let listener = self.tcp(name, SocketAddr::new(host, port.get())).await;
            found.extend(listener.map(|listener| (port, listener)));
        }
        found
    }

    /// Closes what nobody asked for: listeners that the settings no longer have, and what is not ours.
    pub fn forget_rest(&self) {
        let rest = std::mem::take(&mut *self.inherited());
        for name in rest.names() {
            tracing::info!("nothing uses the inherited socket '{name}': closed");
            self.manager.let_go(&name);
        }
    }
}

/// The port in the name of an edge listener's socket.
fn edge_port(name: &str) -> Option<HostPort> {
    let digits = name.strip_prefix(EDGE)?;
    HostPort::new(digits.parse().ok()?).filter(|port| port.to_string() == digits)
}

fn edge_name(port: HostPort) -> String {
    format!("{EDGE}{port}")
}

impl SocketStore for Handover {
    fn keep(&self, port: HostPort, socket: BorrowedFd<'_>) {
        self.manager.keep(&edge_name(port), socket);
    }

    fn let_go(&self, port: HostPort, socket: OwnedFd) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            if self.manager.is_there() {
                // The manager closes its copy when it comes to it. Until then nobody must be left
                // waiting in the queue, and the port must be free for the engine's proxy.
                systemd::hush(socket);
                self.manager.let_go(&edge_name(port));
                self.manager.has_read().await;
            }
        })
    }
}

#[cfg(test)]
mod tests;
