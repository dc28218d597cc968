//! Edge listeners: one port per server that goes through the gateway.
//!
//! The plan says which are open. A listener may be taken over already open from the process before
//! (by port), so that no connection is refused while a daemon is replaced; a [`SocketStore`] carries
//! them from one to the other.
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
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::pin::Pin;
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

/// Keeps listening sockets open while one process replaces another.
pub trait SocketStore: Send + Sync {
    /// Keeps a copy of the socket of a port.
    fn keep(&self, port: HostPort, socket: BorrowedFd<'_>);
    /// Ends the listening of a socket that is not wanted any more; nothing listens when it resolves.
    fn let_go(&self, port: HostPort, socket: OwnedFd) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

type Factory<F> = Box<dyn Fn(&ServerId) -> Arc<F> + Send + Sync>;

/// The edge listeners of this process.
pub struct EdgeListeners<F> {
    config: EdgeConfig,
    fronts: Factory<F>,
    store: Option<Arc<dyn SocketStore>>,
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
        Self { config, fronts: Box::new(fronts), store: None, state: Mutex::default() }
    }

    /// With somebody who keeps the sockets for the process after this one.
    #[must_use]
    pub fn kept_in(mut self, store: Arc<dyn SocketStore>) -> Self {
        self.store = Some(store);
        self
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over listeners that are open already. Each is used when its port is opened; clients
    /// that connect before wait in its queue.
    pub fn adopt(&self, listeners: BTreeMap<HostPort, std::net::TcpListener>) {
        self.state().adopted.extend(listeners);
    }

    /// Ports that were taken over and not asked for yet: whoever binds them meets ourselves.
    #[must_use]
    pub fn adopted(&self) -> Vec<HostPort> {
        self.state().adopted.keys().copied().collect()
    }

    /// Closes those that were taken over and never asked for.
    pub async fn forget_adopted(&self) {
        let adopted = std::mem::take(&mut self.state().adopted);
        for (port, listener) in adopted {
            self.let_go(port, listener.into()).await;
        }
    }

    /// Nothing listens on the port when it returns.
    async fn let_go(&self, port: HostPort, socket: OwnedFd) {
        match &self.store {
            Some(store) => store.let_go(port, socket).await,
            None => drop(socket),
        }
    }

    /// Accepts no more and waits until requests have ended, [`Limits::drain`] at most. A socket that a
    /// store keeps goes on listening for the process after this one.
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
        let (listener, socket) =
            self.listen(adopted, address, port).map_err(|error| refusal(&error, server, address))?;
        let service = Service {
            tls: Arc::default(),
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

    /// A listener of the process before, or a new one; and its socket once more.
    fn listen(
        &self,
        adopted: Option<std::net::TcpListener>,
        address: SocketAddr,
        port: HostPort,
    ) -> io::Result<(TcpListener, OwnedFd)> {
        if let Some(listener) = adopted.and_then(|listener| take_over(listener, address)) {
            let socket = listener.as_fd().try_clone_to_owned()?;
            return Ok((listener, socket));
        }
        let listener = bind(address)?;
        let socket = listener.as_fd().try_clone_to_owned()?;
        if let Some(store) = &self.store {
            store.keep(port, socket.as_fd());
        }
        Ok((listener, socket))
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
        end.send_replace(true);
        let _closed = closed.await;
        self.let_go(port, socket).await;
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
    use super::{EdgeConfig, EdgeListeners, SocketStore};
    use crate::gateway::body::{self, Refusal, Response};
    use crate::gateway::guard::sources::{Block, Sources};
    use crate::gateway::http::{Entry, Front, Limits, Meter, Request};
    use crate::model::id::ServerId;
    use crate::model::net::HostPort;
    use crate::world::ErrorKind;
    use hyper::StatusCode;
    use std::collections::BTreeMap;
    use std::net::SocketAddr;
    use std::os::fd::{BorrowedFd, OwnedFd};
    use std::pin::Pin;
    use std::sync::atomic::Ordering;
    use std::sync::{Arc, Mutex};
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

    /// Keeps sockets as a service manager does.
    #[derive(Default)]
    struct Shelf(Mutex<Vec<(HostPort, OwnedFd)>>);

    impl Shelf {
        fn handed(&self) -> BTreeMap<HostPort, std::net::TcpListener> {
            let kept = self.0.lock().unwrap();
            kept.iter().map(|(port, socket)| (*port, socket.try_clone().unwrap().into())).collect()
        }
    }

    impl SocketStore for Shelf {
        fn keep(&self, port: HostPort, socket: BorrowedFd<'_>) {
            self.0.lock().unwrap().push((port, socket.try_clone_to_owned().unwrap()));
        }

        fn let_go(&self, port: HostPort, socket: OwnedFd) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
            drop(socket);
            self.0.lock().unwrap().retain(|(kept, _)| *kept != port);
            Box::pin(std::future::ready(()))
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
        let kept = Arc::new(Shelf::default());
        let before = edges("127.0.0.1").kept_in(Arc::clone(&kept) as Arc<dyn SocketStore>);
        before.open(&id("one"), port).unwrap();
        before.shutdown().await;
        // Nobody accepts now, and still nobody is refused.
        let mut waiting = connect("127.0.0.1", port).await.unwrap();
        let after = edges("127.0.0.1").kept_in(Arc::clone(&kept) as Arc<dyn SocketStore>);
        after.adopt(kept.handed());
        assert!(after.served().is_empty());
        assert_eq!(after.adopted(), [port]);
        after.open(&id("one"), port).unwrap();
        assert!(after.adopted().is_empty());
        assert_eq!(ask(&mut waiting, "/").await, "one");
        assert_eq!(kept.0.lock().unwrap().len(), 1, "what was kept already is not given again");
        // One that is not wanted any more is taken out of the store, too.
        after.close(&id("one"), port).await;
        assert!(connect("127.0.0.1", port).await.is_err() && kept.0.lock().unwrap().is_empty());
        after.open(&id("one"), port).unwrap();
        after.shutdown().await;
        let last = edges("127.0.0.1").kept_in(Arc::clone(&kept) as Arc<dyn SocketStore>);
        last.adopt(kept.handed());
        last.forget_adopted().await;
        assert!(connect("127.0.0.1", port).await.is_err() && kept.0.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_listener_elsewhere_is_not_taken_over() {
        let port = free_port("127.0.0.1");
        let after = edges("127.0.0.1");
        let address: SocketAddr = format!("127.0.0.2:{port}").parse().unwrap();
        after.adopt(BTreeMap::from([(port, std::net::TcpListener::bind(address).unwrap())]));
        after.open(&id("one"), port).unwrap();
        assert_eq!(ask(&mut connect("127.0.0.1", port).await.unwrap(), "/").await, "one");
        assert!(TcpStream::connect(address).await.is_err(), "one that listens elsewhere is closed");
    }
}
