//! Edge listeners: one port per server that goes through the gateway.
//!
//! The plan says which are open. A listener may be taken over already open from the process before
//! (by port), so that no connection is refused while a daemon is replaced.
//!
//! Must never decide who is served where.

use crate::gateway::guard::sources::Sources;
use crate::gateway::http::{Entry, Front, Limits, Meter, Service, accept};
use crate::model::id::ServerId;
use crate::model::net::HostPort;
use crate::world::{ErrorKind, WorldError};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// Connections that wait to be accepted, per listener; the system's own bound may be lower.
const BACKLOG: u32 = 1024;

/// What all edge listeners have in common.
#[derive(Clone, Debug)]
pub struct EdgeConfig {
    /// The address they listen on (`[gateway] host`, resolved).
    pub host: IpAddr,
    /// What their connections may use.
    pub limits: Limits,
    /// Who may connect.
    pub sources: Arc<Sources>,
    /// Where they are counted.
    pub meter: Arc<Meter>,
}

type Factory<F> = Box<dyn Fn(&ServerId) -> Arc<F> + Send + Sync>;

/// The edge listeners of this process.
pub struct EdgeListeners<F> {
    config: EdgeConfig,
    fronts: Factory<F>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Oldest first.
    open: Vec<Open>,
    /// Taken over, not asked for yet.
    adopted: BTreeMap<HostPort, std::net::TcpListener>,
    /// Closed, with requests that still run.
    draining: Vec<JoinHandle<()>>,
}

/// One that listens.
struct Open {
    server: ServerId,
    port: HostPort,
    /// The socket once more, for handing it out.
    socket: OwnedFd,
    end: watch::Sender<bool>,
    closed: oneshot::Receiver<()>,
    task: JoinHandle<()>,
}

impl<F> fmt::Debug for EdgeListeners<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EdgeListeners").field("config", &self.config).finish_non_exhaustive()
    }
}

impl<F: Front> EdgeListeners<F> {
    /// None open yet; `fronts` gives what answers for a server.
    #[must_use]
    pub fn new(config: EdgeConfig, fronts: impl Fn(&ServerId) -> Arc<F> + Send + Sync + 'static) -> Self {
        Self { config, fronts: Box::new(fronts), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over listeners that are open already. Each is used when its port is opened; clients
    /// that connect before wait in its queue.
    pub fn adopt(&self, listeners: BTreeMap<HostPort, std::net::TcpListener>) {
        self.state().adopted.extend(listeners);
    }

    /// Closes those that were taken over and never asked for.
    pub fn forget_adopted(&self) {
        self.state().adopted.clear();
    }

    /// The sockets that listen, for the process after this one. A port stays bound until these are
    /// closed, too.
    ///
    /// # Errors
    /// When the system has no descriptors left.
    pub fn listeners(&self) -> io::Result<BTreeMap<HostPort, OwnedFd>> {
        self.state().open.iter().map(|open| Ok((open.port, open.socket.try_clone()?))).collect()
    }

    /// Closes every listener and waits until requests have ended, [`Limits::drain`] at most.
    pub async fn shutdown(&self) {
        let (open, draining) = {
            let mut state = self.state();
            state.adopted.clear();
            (std::mem::take(&mut state.open), std::mem::take(&mut state.draining))
        };
        for edge in &open {
            edge.end.send_replace(true);
        }
        for task in open.into_iter().map(|edge| edge.task).chain(draining) {
            // A task that panicked has nothing left to end.
            let _ended = task.await;
        }
    }

    /// What is served now.
    #[must_use]
    pub fn served(&self) -> BTreeMap<ServerId, HostPort> {
        self.state().open.iter().map(|open| (open.server.clone(), open.port)).collect()
    }

    /// Listens for a server. Must run inside the runtime.
    ///
    /// # Errors
    /// `Conflict` when the port is taken.
    pub fn open(&self, server: &ServerId, port: HostPort) -> Result<(), WorldError> {
        let mut state = self.state();
        if state.open.iter().any(|open| open.server == *server && open.port == port) {
            return Ok(());
        }
        let address = SocketAddr::new(self.config.host, port.get());
        let adopted = state.adopted.remove(&port);
        let listener =
            adopted.and_then(|listener| take_over(listener, address)).map_or_else(|| bind(address), Ok);
        let opened = listener.and_then(|listener| {
            let socket = listener.as_fd().try_clone_to_owned()?;
            Ok((listener, socket))
        });
        let (listener, socket) = opened.map_err(|error| refusal(&error, server, address))?;
        let service = Service {
            entry: Arc::new(Entry::Edge(server.clone())),
            limits: self.config.limits,
            sources: Arc::clone(&self.config.sources),
            meter: Arc::clone(&self.config.meter),
        };
        let (end, shutdown) = watch::channel(false);
        let (now_closed, closed) = oneshot::channel();
        let front = (self.fronts)(server);
        let task = tokio::spawn(async move {
            let draining = accept(listener, front, service, shutdown).await;
            // Nobody may wait for it.
            let _waiting = now_closed.send(());
            draining.finished().await;
        });
        state.open.push(Open { server: server.clone(), port, socket, end, closed, task });
        Ok(())
    }

    /// The port is free when it returns; requests that run go on for a while.
    pub async fn close(&self, server: &ServerId, port: HostPort) {
        let found = {
            let mut state = self.state();
            state.draining.retain(|task| !task.is_finished());
            let at = state.open.iter().position(|open| open.server == *server && open.port == port);
            at.map(|at| state.open.remove(at))
        };
        let Some(Open { socket, end, closed, task, .. }) = found else { return };
        drop(socket);
        end.send_replace(true);
        let _closed = closed.await;
        self.state().draining.push(task);
    }
}

/// A listener of the process before; `None` (and closed) when it listens elsewhere.
fn take_over(listener: std::net::TcpListener, address: SocketAddr) -> Option<TcpListener> {
    if listener.local_addr().ok()? != address {
        return None;
    }
    listener.set_nonblocking(true).ok()?;
    TcpListener::from_std(listener).ok()
}

/// Listens. Connections of an earlier process that are closing are not in the way.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn refusal(error: &io::Error, server: &ServerId, address: SocketAddr) -> WorldError {
    let kind = match error.kind() {
        io::ErrorKind::AddrInUse => ErrorKind::Conflict,
        io::ErrorKind::AddrNotAvailable => ErrorKind::Invalid,
        io::ErrorKind::PermissionDenied => ErrorKind::Denied,
        _ => ErrorKind::Failed,
    };
    WorldError::new(format!("listening on {address} for {server}"), kind, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::{EdgeConfig, EdgeListeners};
    use crate::gateway::body::{self, Refusal, Response};
    use crate::gateway::guard::sources::{Block, Sources};
    use crate::gateway::http::{Entry, Front, Limits, Meter, Request};
    use crate::model::id::ServerId;
    use crate::model::net::HostPort;
    use crate::world::ErrorKind;
    use hyper::StatusCode;
    use std::collections::BTreeMap;
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    /// Says which server's port was asked.
    struct Names;

    impl Front for Names {
        type Pass = ();

        fn admit(&self, _request: &mut Request) -> Result<(), Refusal> {
            Ok(())
        }

        async fn handle(self: Arc<Self>, request: Request, (): ()) -> Response {
            if request.path() == "/slow" {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            match &*request.entry {
                Entry::Edge(id) => body::text(StatusCode::OK, id.to_string()),
                other => body::text(StatusCode::OK, format!("{other:?}")),
            }
        }
    }

    fn edges(host: &str) -> EdgeListeners<Names> {
        let config = EdgeConfig {
            host: host.parse().unwrap(),
            limits: Limits { drain: Duration::from_secs(1), ..Limits::default() },
            sources: Arc::new(Sources::any()),
            meter: Arc::new(Meter::default()),
        };
        EdgeListeners::new(config, |_| Arc::new(Names))
    }

    fn id(text: &str) -> ServerId {
        ServerId::new(text).unwrap()
    }

    fn free_port(host: &str) -> HostPort {
        let listener = std::net::TcpListener::bind((host, 0)).unwrap();
        HostPort::new(listener.local_addr().unwrap().port()).unwrap()
    }

    async fn connect(host: &str, port: HostPort) -> std::io::Result<TcpStream> {
        TcpStream::connect((host, port.get())).await
    }

    async fn ask(stream: &mut TcpStream, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        rest(stream).await
    }

    async fn rest(stream: &mut TcpStream) -> String {
        let mut out = String::new();
        let _reset_counts_as_end = stream.read_to_string(&mut out).await;
        out.rsplit("\r\n").next().unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn a_port_opens_answers_for_its_server_and_closes() {
        for host in ["127.0.0.1", "::1"] {
            let edges = edges(host);
            let (one, two) = (free_port(host), free_port(host));
            for _ in 0..2 {
                edges.open(&id("one"), one).unwrap();
            }
            edges.open(&id("two"), two).unwrap();
            assert_eq!(edges.served(), BTreeMap::from([(id("one"), one), (id("two"), two)]));
            assert_eq!(ask(&mut connect(host, one).await.unwrap(), "/").await, "one");
            assert_eq!(ask(&mut connect(host, two).await.unwrap(), "/").await, "two");
            for _ in 0..2 {
                edges.close(&id("one"), one).await;
            }
            assert!(connect(host, one).await.is_err(), "at once");
            assert_eq!(edges.served(), BTreeMap::from([(id("two"), two)]));
            edges.open(&id("three"), one).unwrap();
            assert_eq!(ask(&mut connect(host, one).await.unwrap(), "/").await, "three");
        }
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_a_conflict() {
        let edges = edges("127.0.0.1");
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = HostPort::new(other.local_addr().unwrap().port()).unwrap();
        let error = edges.open(&id("one"), port).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Conflict);
        assert!(
            error.to_string().starts_with(&format!("listening on 127.0.0.1:{port} for one: ")),
            "{error}"
        );
        assert!(edges.served().is_empty());
        let elsewhere = super::tests::edges("192.0.2.1");
        assert_eq!(elsewhere.open(&id("one"), port).unwrap_err().kind, ErrorKind::Invalid);
    }

    #[tokio::test]
    async fn closing_lets_a_request_finish() {
        let edges = edges("127.0.0.1");
        let port = free_port("127.0.0.1");
        edges.open(&id("one"), port).unwrap();
        let mut client = connect("127.0.0.1", port).await.unwrap();
        client.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        edges.close(&id("one"), port).await;
        edges.open(&id("two"), port).unwrap();
        assert_eq!(rest(&mut client).await, "one");
        assert_eq!(ask(&mut connect("127.0.0.1", port).await.unwrap(), "/").await, "two");
        let mut client = connect("127.0.0.1", port).await.unwrap();
        client.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        edges.shutdown().await;
        assert_eq!(rest(&mut client).await, "two", "answered before the end");
        assert!(edges.served().is_empty());
    }

    #[tokio::test]
    async fn sources_that_are_not_allowed_are_closed_and_counted() {
        let edges = edges("127.0.0.1");
        let port = free_port("127.0.0.1");
        edges.open(&id("one"), port).unwrap();
        edges.config.sources.set(&[Block::parse("10.0.0.0/8").unwrap()]);
        assert_eq!(ask(&mut connect("127.0.0.1", port).await.unwrap(), "/").await, "");
        assert_eq!(edges.config.meter.refused_source.load(Ordering::Relaxed), 1);
        edges.config.sources.set(&Block::loopback());
        assert_eq!(ask(&mut connect("127.0.0.1", port).await.unwrap(), "/").await, "one");
    }

    #[tokio::test]
    async fn listeners_are_handed_from_process_to_process() {
        let port = free_port("127.0.0.1");
        let before = edges("127.0.0.1");
        before.open(&id("one"), port).unwrap();
        let handed: BTreeMap<HostPort, std::net::TcpListener> =
            before.listeners().unwrap().into_iter().map(|(port, socket)| (port, socket.into())).collect();
        before.close(&id("one"), port).await;
        // Nobody accepts now, and still nobody is refused.
        let mut waiting = connect("127.0.0.1", port).await.unwrap();
        let after = edges("127.0.0.1");
        after.adopt(handed);
        assert!(after.served().is_empty());
        after.open(&id("one"), port).unwrap();
        assert_eq!(ask(&mut waiting, "/").await, "one");
        let address: SocketAddr = format!("127.0.0.2:{port}").parse().unwrap();
        after.adopt(BTreeMap::from([(port, std::net::TcpListener::bind(address).unwrap())]));
        after.close(&id("one"), port).await;
        after.open(&id("one"), port).unwrap();
        assert_eq!(ask(&mut connect("127.0.0.1", port).await.unwrap(), "/").await, "one");
        assert!(TcpStream::connect(address).await.is_err(), "one that listens elsewhere is closed");
    }
}
