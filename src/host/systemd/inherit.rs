//! Sockets that a service manager hands to a new process: from its own socket units, or those that
//! the process before gave into its keeping.
//!
//! Must never be asked after threads have started, as it changes the environment; must never let a
//! child inherit a socket.

use listenfd::ListenFd;
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;

/// What is taken over at most; the rest is left to the end of the process.
const SOCKETS_MAX: usize = 4096;
/// The name of those that come without.
const NAMELESS: &str = "unknown";

/// A socket that listens.
#[derive(Debug)]
pub enum Kept {
    /// On TCP.
    Tcp(TcpListener),
    /// On a path.
    Unix(UnixListener),
}

/// Sockets that nobody has asked for yet, by name. Dropping closes them.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: BTreeMap<String, Vec<Kept>>,
}

impl Inherited {
    /// Takes what `LISTEN_FDS` and `LISTEN_FDNAMES` say, when `LISTEN_PID` is this process, and
    /// unsets `LISTEN_PID` and `LISTEN_FDS`. `names` is the value of `LISTEN_FDNAMES`.
    ///
    /// Must be called at most once, and before there are threads. What does not listen is left alone,
    /// closed on exec.
    #[must_use]
    pub fn take(names: Option<&str>) -> Self {
        // Sets FD_CLOEXEC on all of them, and is empty for the wrong process.
        let Ok(count) = sd_notify::listen_fds().map(|fds| fds.len().min(SOCKETS_MAX)) else {
            return Self::default();
        };
        if count == 0 {
            return Self::default();
        }
        let mut given = ListenFd::from_env();
        let names: Vec<&str> = names.map(|names| names.split(':').collect()).unwrap_or_default();
        let mut taken = Self::default();
        for index in 0..count {
            let socket = match given.take_tcp_listener(index) {
                Ok(socket) => socket.map(Kept::Tcp),
                Err(_other_kind) => given.take_unix_listener(index).ok().flatten().map(Kept::Unix),
            };
            let name = names.get(index).copied().filter(|name| !name.is_empty()).unwrap_or(NAMELESS);
            if let Some(socket) = socket.filter(listens) {
                taken.put(name, socket);
            }
        }
        taken
    }

    /// Adds one.
    pub fn put(&mut self, name: &str, socket: Kept) {
        self.sockets.entry(name.to_owned()).or_default().push(socket);
    }

    /// The names of what is left.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.sockets.keys().cloned().collect()
    }

    /// Whether there is one of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.sockets.contains_key(name)
    }

    /// Takes the socket of this name that listens on `address`. Others of the name stop listening,
    /// whoever has copies: they would be in the way of a new one.
    pub fn tcp(&mut self, name: &str, address: SocketAddr) -> Option<TcpListener> {
        let mut found = None;
        for kept in self.sockets.remove(name)? {
            match kept {
                Kept::Tcp(listener) if listener.local_addr().is_ok_and(|local| local == address) => {
                    found = Some(listener);
                }
                Kept::Tcp(other) => crate::host::systemd::hush(other.into()),
                Kept::Unix(_) => {}
            }
        }
        found
    }

    /// Where TCP sockets of this name listen.
    #[must_use]
    pub fn addresses(&self, name: &str) -> Vec<SocketAddr> {
        let all = self.sockets.get(name).into_iter().flatten();
        all.filter_map(|kept| match kept {
            Kept::Tcp(listener) => listener.local_addr().ok(),
            Kept::Unix(_) => None,
        })
        .collect()
    }

    /// Takes the TCP sockets of this name, wherever they listen. Others of the name are closed.
    pub fn all_tcp(&mut self, name: &str) -> Vec<TcpListener> {
        let all = self.sockets.remove(name).into_iter().flatten();
        all.filter_map(|kept| match kept {
            Kept::Tcp(listener) => Some(listener),
            Kept::Unix(_) => None,
        })
        .collect()
    }

    /// Takes the socket of this name that listens on `path`. Others of the name are closed.
    pub fn unix(&mut self, name: &str, path: &Path) -> Option<UnixListener> {
        let all = self.sockets.remove(name)?.into_iter();
        all.filter_map(|kept| match kept {
            Kept::Unix(listener) => Some(listener),
            Kept::Tcp(_) => None,
        })
        .find(|listener| listener.local_addr().is_ok_and(|local| local.as_pathname() == Some(path)))
    }
}

/// Whether it is a socket on which `listen` was called.
fn listens(kept: &Kept) -> bool {
    let listening = match kept {
        Kept::Tcp(listener) => rustix::net::sockopt::socket_acceptconn(listener),
        Kept::Unix(listener) => rustix::net::sockopt::socket_acceptconn(listener),
    };
    listening.unwrap_or(false)
}
