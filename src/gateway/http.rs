//! HTTP/1.1 for MCP: connections, limits, bodies; what a request means is its front's business.
//!
//! One task per connection and none per request. A request whose client went away is dropped with
//! its future: what must go on without the client must not live in it.
//!
//! Must never read a body before the front admitted the request, nor more of it than the limit.

use crate::gateway::body::{Body, Refusal, Response, empty, problem};
use crate::gateway::guard::sources::Sources;
use crate::gateway::streams::StreamKind;
use crate::gateway::streams::reader::Ender;
use crate::model::id::ServerId;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::{HeaderMap, Method, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

mod io;
mod path;
#[cfg(test)]
mod tests;
pub mod tls;
mod turns;

/// Headers a request may have.
pub const HEADERS_MAX: usize = 64;
/// Bytes that request line and headers may have together.
pub const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Room made for a body before its first byte, whatever its announced length.
const BODY_BYTES_AT_FIRST: usize = 256 * 1024;
/// Wait after the system refused a connection for want of descriptors or memory.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// At the end, a connection that was accepted has this long for its first request: its client was
/// not refused, so it must not be left without an answer either.
const LAST_REQUEST_WITHIN: Duration = Duration::from_millis(500);
/// Between two looks whether that request has come.
const LAST_REQUEST_LOOK: Duration = Duration::from_millis(5);
/// What a connection beyond the limit gets.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// What one listener and its connections may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of all listeners that share a [`Meter`].
    pub connections_max: usize,
    /// Bytes of a request's body.
    pub body_bytes_max: usize,
    /// How long a body may take to arrive.
    pub body_within: Duration,
    /// How long a new connection may take for its first request.
    pub first_within: Duration,
    /// How long a connection may be without request and without a byte that the client took;
    /// above the 60 s that load balancers keep idle connections.
    pub idle: Duration,
    /// How long requests may go on after the end was announced.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            body_bytes_max: 4 * 1024 * 1024,
            body_within: Duration::from_secs(30),
            first_within: Duration::from_secs(30),
            idle: Duration::from_secs(75),
            drain: Duration::from_secs(20),
        }
    }
}

/// Counts of all listeners that share it.
#[derive(Debug, Default)]
pub struct Meter {
    /// Open connections.
    pub open: AtomicUsize,
    /// Connections accepted so far.
    pub accepted: AtomicU64,
    /// Connections closed because their source is not allowed.
    pub refused_source: AtomicU64,
    /// Connections refused because there were too many.
    pub refused_full: AtomicU64,
}

/// Which way a request came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The port of one server.
    Edge(ServerId),
    /// The main listener.
    Main,
    /// The listener for load balancers whose rules share a target group.
    Shared,
    /// The port of the tool proxy alone.
    Tools,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// GET, POST …
    pub method: Method,
    /// As it came.
    pub uri: Uri,
    /// As they came; [`crate::gateway::guard::Guard::admit`] takes the credentials out.
    pub headers: HeaderMap,
    /// All of it; empty until the request is admitted.
    pub body: Bytes,
    /// Who connected: a load balancer, or the client itself.
    pub peer: SocketAddr,
    /// The address the connection came in on.
    pub local: SocketAddr,
    /// The listener.
    pub entry: Arc<Entry>,
    /// Whether it came encrypted.
    pub encrypted: bool,
    decoded: Option<Box<str>>,
}

impl Request {
    /// A request without body.
    ///
    /// # Errors
    /// What its path is refused with: escapes that are broken, not UTF-8, or that hide a
    /// separator, a control character or a step up.
    pub fn new(head: hyper::Request<()>, entry: Arc<Entry>, addresses: Addresses) -> Result<Self, Refusal> {
        let (parts, ()) = head.into_parts();
        let decoded = path::decoded(parts.uri.path())
            .map_err(|why| problem(StatusCode::BAD_REQUEST, "MCPO-G010", "the path is not usable", why))?;
        let Addresses { peer, local } = addresses;
        let body = Bytes::new();
        Ok(Self {
            method: parts.method,
            uri: parts.uri,
            headers: parts.headers,
            body,
            peer,
            local,
            entry,
            encrypted: false,
            decoded,
        })
    }

    /// The path, decoded.
    #[must_use]
    pub fn path(&self) -> &str {
        self.decoded.as_deref().unwrap_or_else(|| self.uri.path())
    }

    /// The query as it came, without `?`.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.uri.query()
    }
}

/// Both ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Theirs.
    pub peer: SocketAddr,
    /// Ours.
    pub local: SocketAddr,
}

/// What answers requests.
pub trait Front: Send + Sync + 'static {
    /// What admission learnt: whose request it is.
    type Pass: Send + 'static;

    /// Waits for what admission needs, a moment at most.
    fn prepare(&self, _request: &Request) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Decides from the head alone whether the body is read; takes credentials out of the headers.
    ///
    /// # Errors
    /// The answer instead.
    fn admit(&self, request: &mut Request) -> Result<Self::Pass, Refusal>;

    /// Answers. Dropped when the client goes away first.
    fn handle(self: Arc<Self>, request: Request, pass: Self::Pass) -> impl Future<Output = Response> + Send;
}

/// How a listener is served.
#[derive(Clone, Debug)]
pub struct Service {
    /// Which one it is.
    pub entry: Arc<Entry>,
    /// What its connections may use.
    pub limits: Limits,
    /// Who may connect.
    pub sources: Arc<Sources>,
    /// Where it is counted.
    pub meter: Arc<Meter>,
    /// How it is encrypted.
    pub tls: Arc<tls::Tls>,
}

/// Serves `listener` until `shutdown` is true or its sender is gone, then finishes what runs:
/// idle connections and lasting event streams end at once, requests may take [`Limits::drain`].
pub async fn serve<F: Front>(
    listener: TcpListener,
    front: Arc<F>,
    service: Service,
    shutdown: watch::Receiver<bool>,
) {
    accept(listener, front, service, shutdown).await.finished().await;
}

/// Connections of a listener that is closed.
#[derive(Debug)]
pub struct Draining(mpsc::Receiver<Infallible>);

impl Draining {
    /// Waits until all have ended.
    pub async fn finished(mut self) {
        let _all_gone = self.0.recv().await;
    }
}

/// Serves as [`serve`] does, and returns once the listener is closed, with what still runs.
pub async fn accept<F: Front>(
    listener: TcpListener,
    front: Arc<F>,
    service: Service,
    shutdown: watch::Receiver<bool>,
) -> Draining {
    // Every connection holds a sender: the channel closes with the last of them.
    let (alive, all_gone) = mpsc::channel::<Infallible>(1);
    let mut end = shutdown.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ended = end.wait_for(|ended| *ended) => return Draining(all_gone),
        };
        let Ok((stream, peer)) = accepted else {
            // Of a single connection, or of a system without descriptors: never in a tight loop.
            tokio::time::sleep(ACCEPT_AGAIN).await;
            continue;
        };
        let Some((stream, open)) = let_in(stream, peer, &service) else { continue };
        let local = stream.local_addr().unwrap_or(peer);
        let tls = service.tls.current();
        let connection = Connection {
            front: Arc::clone(&front),
            entry: Arc::clone(&service.entry),
            addresses: Addresses { peer, local },
            encrypted: tls.is_some(),
            limits: service.limits,
            busy: AtomicUsize::new(0),
            begun: AtomicBool::new(false),
            moved: AtomicBool::new(false),
            linger: AtomicBool::new(false),
            events: Mutex::new(None),
        };
        let (alive, shutdown) = (alive.clone(), shutdown.clone());
        tokio::spawn(async move {
            match tls {
                None => drive(stream, Arc::new(connection), shutdown).await,
                Some(config) => encrypted((stream, config), Arc::new(connection), shutdown).await,
            }
            drop((open, alive));
        });
    }
}

/// Counts an open connection until it is dropped.
struct Open(Arc<Meter>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

fn let_in(stream: TcpStream, peer: SocketAddr, service: &Service) -> Option<(TcpStream, Open)> {
    let meter = &service.meter;
    meter.accepted.fetch_add(1, Ordering::Relaxed);
    if !service.sources.allow(peer.ip()) {
        meter.refused_source.fetch_add(1, Ordering::Relaxed);
        return None;
    }
    let before = meter.open.fetch_add(1, Ordering::Relaxed);
    let open = Open(Arc::clone(meter));
    if before >= service.limits.connections_max {
        meter.refused_full.fetch_add(1, Ordering::Relaxed);
        // A fresh connection has room for this; if not, closing says as much.
        let _sent = stream.try_write(FULL);
        return None;
    }
    // Small answers must not wait for an acknowledgement. A failure means the client is gone.
    stream.set_nodelay(true).ok()?;
    Some((stream, open))
}

/// What the requests of one connection share.
struct Connection<F> {
    front: Arc<F>,
    entry: Arc<Entry>,
    addresses: Addresses,
    encrypted: bool,
    limits: Limits,
    /// Requests being answered.
    busy: AtomicUsize,
    /// Whether a request came at all.
    begun: AtomicBool,
    /// Whether a request began or the client took bytes since the last look.
    moved: AtomicBool,
    /// Whether the client is still sending what nobody reads.
    linger: AtomicBool,
    /// The event stream being read.
    events: Mutex<Option<Ender>>,
}

impl<F> Connection<F> {
    /// Ends the event stream that is read, if it is one of `kinds`.
    fn end_events(&self, kinds: &[StreamKind]) {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ender) = events.as_ref().filter(|ender| kinds.contains(&ender.kind())) {
            ender.end();
        }
    }

    /// An answer after which the connection must not be used: what comes next on it may be the
    /// rest of a body nobody read.
    fn closing(&self, mut response: Response) -> Response {
        self.linger.store(true, Ordering::Relaxed);
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }
}

/// Counts a request until it is answered or dropped.
struct Busy<'a>(&'a AtomicUsize);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that begins with a handshake. One that the end finds in it has as long as others have
/// for their first request.
async fn encrypted<F: Front>(
    (stream, config): (TcpStream, Arc<rustls::ServerConfig>),
    shared: Arc<Connection<F>>,
    shutdown: watch::Receiver<bool>,
) {
    let mut end = shutdown.clone();
    let late = async {
        let _ended = end.wait_for(|ended| *ended).await.is_ok();
        tokio::time::sleep(LAST_REQUEST_WITHIN).await;
    };
    let stream = tokio::select! {
        stream = tls::accept(stream, config, shared.limits.first_within) => stream,
        () = late => None,
    };
    if let Some(stream) = stream {
        drive(stream, shared, shutdown).await;
    }
}

/// One connection from its first byte to its last.
async fn drive<F: Front, S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    shared: Arc<Connection<F>>,
    mut shutdown: watch::Receiver<bool>,
) {
    let limits = shared.limits;
    let for_requests = Arc::clone(&shared);
    let service = hyper::service::service_fn(move |request| {
        let shared = Arc::clone(&for_requests);
        async move { Ok::<_, Infallible>(answer(&shared, request).await) }
    });
    let mut http = http1::Builder::new();
    // Bounds of time are kept below, with one timer per connection instead of one per request.
    http.pipeline_flush(true).max_header_size(HEAD_BYTES_MAX).header_read_timeout(None);
    let io = io::Watched::new(TokioIo::new(stream), Arc::clone(&shared));
    let connection = pin!(http.serve_connection(io, service));
    let mut connection = turns::Turns::of(connection);
    let mut ending = false;
    let mut look = pin!(tokio::time::sleep(limits.first_within));
    let mut end = pin!(async {
        // What it gives must not be held on to: it locks the channel.
        let _ended = shutdown.wait_for(|ended| *ended).await.is_ok();
        first_request(&shared).await;
    });
    loop {
        tokio::select! {
            biased;
            // An error here is the client's going away, or its not speaking HTTP.
            _closed = &mut connection => return,
            () = end.as_mut(), if !ending => {
                ending = true;
                connection.inner.as_mut().graceful_shutdown();
                shared.end_events(&[StreamKind::Get]);
                look.as_mut().set(tokio::time::sleep(limits.drain));
            }
            () = look.as_mut() => {
                if ending {
                    shared.end_events(&[StreamKind::Get, StreamKind::Post]);
                    // The last bytes of what was ended.
                    let _late = tokio::time::timeout(ACCEPT_AGAIN, &mut connection).await;
                    return;
                }
                if !shared.moved.swap(false, Ordering::Relaxed) && shared.busy.load(Ordering::Relaxed) == 0 {
                    return;
                }
                look.as_mut().set(tokio::time::sleep(limits.idle));
            }
        }
    }
}

async fn answer<F: Front>(shared: &Connection<F>, request: hyper::Request<Incoming>) -> Response {
    let mut response = found(shared, request).await;
    if *shared.entry == Entry::Main {
        // Browsers come here: what is sent is what its type says, and nothing else.
        response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
    response
}

async fn found<F: Front>(shared: &Connection<F>, request: hyper::Request<Incoming>) -> Response {
    shared.moved.store(true, Ordering::Relaxed);
    shared.begun.store(true, Ordering::Relaxed);
    shared.busy.fetch_add(1, Ordering::Relaxed);
    let _busy = Busy(&shared.busy);
    let (parts, incoming) = request.into_parts();
    if parts.headers.len() > HEADERS_MAX || head_bytes(&parts.uri, &parts.headers) > HEAD_BYTES_MAX {
        return shared.closing(empty(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
    }
    let head = hyper::Request::from_parts(parts, ());
    let mut request = match Request::new(head, Arc::clone(&shared.entry), shared.addresses) {
        Ok(request) => request,
        Err(refused) => return *refused,
    };
    request.encrypted = shared.encrypted;
    shared.front.prepare(&request).await;
    let pass = match shared.front.admit(&mut request) {
        Ok(pass) => pass,
        Err(refused) => return *refused,
    };
    request.body = match body(incoming, &request.headers, shared.limits).await {
        Ok(body) => body,
        Err(refused) => return shared.closing(*refused),
    };
    let response = Arc::clone(&shared.front).handle(request, pass).await;
    if let Body::Events(events) = response.body() {
        *shared.events.lock().unwrap_or_else(PoisonError::into_inner) = Some(events.ender());
    }
    response
}

/// Waits for the first request of a connection, [`LAST_REQUEST_WITHIN`] at most.
async fn first_request<F>(shared: &Connection<F>) {
    let come = async {
        while !shared.begun.load(Ordering::Relaxed) {
            tokio::time::sleep(LAST_REQUEST_LOOK).await;
        }
    };
    let _late = tokio::time::timeout(LAST_REQUEST_WITHIN, come).await;
}

/// Bytes of a head, nearly: the parser bounds only heads that come in pieces.
fn head_bytes(uri: &Uri, headers: &HeaderMap) -> usize {
    let lines = headers.iter().map(|(name, value)| name.as_str().len().saturating_add(value.len()));
    lines.fold(uri.path().len(), usize::saturating_add)
}

/// The whole body, in one piece and uncopied when it came in one.
async fn body(mut incoming: Incoming, headers: &HeaderMap, limits: Limits) -> Result<Bytes, Refusal> {
    if incoming.is_end_stream() {
        return Ok(Bytes::new());
    }
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: usize| length > limits.body_bytes_max) {
        return Err(too_large(limits).into());
    }
    let read = async {
        let mut first = Bytes::new();
        let mut all = BytesMut::new();
        while let Some(frame) = incoming.frame().await {
            let Ok(frame) = frame else { return Err(incomplete().into()) };
            let Ok(data) = frame.into_data() else { continue };
            let held = if all.is_empty() { first.len() } else { all.len() };
            if held.saturating_add(data.len()) > limits.body_bytes_max {
                return Err(too_large(limits).into());
            }
            if held == 0 {
                first = data;
                if incoming.is_end_stream() {
                    break;
                }
                continue;
            }
            if all.is_empty() {
                all.reserve(announced.unwrap_or_default().clamp(held, BODY_BYTES_AT_FIRST.max(held)));
                all.extend_from_slice(&first);
            }
            all.extend_from_slice(&data);
        }
        Ok(if all.is_empty() { first } else { all.freeze() })
    };
    tokio::time::timeout(limits.body_within, read).await.unwrap_or_else(|_elapsed| {
        let secs = limits.body_within.as_secs();
        let why = format!("it did not arrive within {secs} s");
        Err(problem(StatusCode::REQUEST_TIMEOUT, "MCPO-G011", "the body is not complete", why).into())
    })
}

fn incomplete() -> Response {
    problem(
        StatusCode::BAD_REQUEST,
        "MCPO-G011",
        "the body is not complete",
        "the connection or a chunk broke off",
    )
}

fn too_large(limits: Limits) -> Response {
    let why = format!("{} bytes are allowed", limits.body_bytes_max);
    problem(StatusCode::PAYLOAD_TOO_LARGE, "MCPO-G012", "the body is too large", why)
}
