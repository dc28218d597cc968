//! Connections over real sockets.

use super::{Entry, Front, HEAD_BYTES_MAX, Limits, Meter, Request, Service, serve};
use crate::gateway::body::{self, Refusal, Response};
use crate::gateway::guard::sources::Sources;
use crate::gateway::streams::{Greeting, Keep, Stream, StreamKind};
use hyper::StatusCode;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Answers by path.
#[derive(Default)]
struct Echo {
    admitted: AtomicUsize,
    dropped: Arc<AtomicUsize>,
    stream: Mutex<Option<Arc<Stream>>>,
}

struct OnDrop(Arc<AtomicUsize>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Front for Echo {
    type Pass = usize;

    fn admit(&self, request: &mut Request) -> Result<usize, Refusal> {
        if request.path() == "/refused" {
            return Err(body::empty(StatusCode::UNAUTHORIZED).into());
        }
        Ok(self.admitted.fetch_add(1, Ordering::SeqCst))
    }

    async fn handle(self: Arc<Self>, request: Request, _pass: usize) -> Response {
        match request.path() {
            "/slow" => {
                let _guard = OnDrop(Arc::clone(&self.dropped));
                tokio::time::sleep(Duration::from_millis(300)).await;
                body::text(StatusCode::OK, "slow")
            }
            "/get" | "/post" => {
                let kind = if request.path() == "/get" { StreamKind::Get } else { StreamKind::Post };
                let stream = Stream::unstored(kind);
                stream.push("first", Keep::Must);
                *self.stream.lock().unwrap() = Some(Arc::clone(&stream));
                body::events(stream.body(Greeting::None))
            }
            "/length" => body::text(StatusCode::OK, request.body.len().to_string()),
            _ => body::json(StatusCode::OK, request.body),
        }
    }
}

struct Running {
    address: SocketAddr,
    front: Arc<Echo>,
    meter: Arc<Meter>,
    end: watch::Sender<bool>,
    task: JoinHandle<()>,
}

fn quick() -> Limits {
    Limits {
        connections_max: 8,
        body_bytes_max: 1_000_000,
        body_within: Duration::from_millis(200),
        first_within: Duration::from_millis(200),
        idle: Duration::from_millis(400),
        drain: Duration::from_millis(800),
    }
}

async fn start(limits: Limits) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (end, shutdown) = watch::channel(false);
    let (front, meter) = (Arc::new(Echo::default()), Arc::new(Meter::default()));
    let sources = Arc::new(Sources::any());
    let service = Service {
        entry: Arc::new(Entry::Main),
        limits,
        sources,
        meter: Arc::clone(&meter),
        tls: Arc::default(),
    };
    let task = tokio::spawn(serve(listener, Arc::clone(&front), service, shutdown));
    Running { address, front, meter, end, task }
}

async fn connect(running: &Running) -> TcpStream {
    TcpStream::connect(running.address).await.unwrap()
}

/// Reads until `end` stands at the end, or the connection is closed.
async fn until(stream: &mut TcpStream, end: &str) -> String {
    let mut out = Vec::new();
    let mut buf = [0; 4096];
    while !out.ends_with(end.as_bytes()) || end.is_empty() {
        let read = stream.read(&mut buf);
        match tokio::time::timeout(Duration::from_secs(5), read).await.expect("an answer in time") {
            Ok(0) | Err(_) => break,
            Ok(count) => out.extend_from_slice(&buf[..count]),
        }
    }
    String::from_utf8(out).unwrap()
}

async fn say(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

/// All that a fresh connection answers to `text`.
async fn ask(running: &Running, text: &str) -> String {
    let mut stream = connect(running).await;
    say(&mut stream, text).await;
    until(&mut stream, "").await
}

const GET_SLOW: &str = "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n";

fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn a_connection_serves_many_requests_also_pipelined() {
    let running = start(quick()).await;
    let mut stream = connect(&running).await;
    for number in 0..3 {
        say(&mut stream, &post("/", &format!("[{number}]"))).await;
        let answer = until(&mut stream, "]").await;
        assert!(
            answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with(&format!("[{number}]")),
            "{answer}"
        );
    }
    say(&mut stream, &format!("{}{}", post("/", "[1]"), post("/", "[22]"))).await;
    assert_eq!(until(&mut stream, "[22]").await.matches("200 OK").count(), 2);
    assert_eq!(running.meter.open.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn bodies_come_whole_in_pieces_and_in_chunks() {
    let running = start(quick()).await;
    let mut stream = connect(&running).await;
    let (head, tail) = ("x".repeat(30_000), "y".repeat(70_000));
    say(&mut stream, &format!("POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{head}"))
        .await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    say(&mut stream, &tail).await;
    assert!(until(&mut stream, "100000").await.ends_with("\r\n\r\n100000"));
    say(&mut stream, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[1\r\n").await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    say(&mut stream, "2\r\n2]\r\n0\r\n\r\n").await;
    assert!(until(&mut stream, "]").await.ends_with("[12]"));
}

#[tokio::test]
async fn too_large_is_said_before_and_while_reading() {
    let running = start(quick()).await;
    let announced = ask(&running, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000001\r\n\r\n").await;
    assert!(announced.starts_with("HTTP/1.1 413 "), "{announced}");
    assert!(announced.to_ascii_lowercase().contains("connection: close"), "{announced}");
    let mut chunks = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
    chunks.push_str(&format!("7a120\r\n{}\r\n", "x".repeat(500_000)).repeat(2));
    chunks.push_str("1\r\nx\r\n0\r\n\r\n");
    assert!(ask(&running, &chunks).await.starts_with("HTTP/1.1 413 "));
    let sent = ask(&running, &post("/", &"x".repeat(4_000_000))).await;
    assert!(sent.starts_with("HTTP/1.1 413 "), "also to a client that sends all before it reads: {sent}");
    let just = post("/length", &"x".repeat(1_000_000));
    let mut stream = connect(&running).await;
    say(&mut stream, &just).await;
    assert!(until(&mut stream, "1000000").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_refused_request_is_refused_before_its_body() {
    let running = start(quick()).await;
    let answer = ask(&running, "POST /refused HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert_eq!(running.front.admitted.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn bodies_and_heads_that_do_not_come_are_not_waited_for() {
    let running = start(quick()).await;
    let slow = ask(&running, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345").await;
    assert!(slow.starts_with("HTTP/1.1 408 "), "{slow}");
    for head in ["", "POST / HTTP/1.1\r\nHost: "] {
        let mut stream = connect(&running).await;
        say(&mut stream, head).await;
        assert_eq!(until(&mut stream, "").await, "");
    }
    let mut idle = connect(&running).await;
    say(&mut idle, &post("/", "[1]")).await;
    until(&mut idle, "]").await;
    assert_eq!(until(&mut idle, "").await, "", "an idle connection ends");
}

#[tokio::test]
async fn large_heads_are_refused() {
    let running = start(quick()).await;
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(HEAD_BYTES_MAX));
    let answer = ask(&running, &long).await;
    // A reset may overtake the answer: the rest of the head is never read.
    assert!(answer.starts_with("HTTP/1.1 431 ") || answer.is_empty(), "{answer}");
    assert_eq!(running.front.admitted.load(Ordering::SeqCst), 0);
    let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(64));
    assert!(ask(&running, &many).await.starts_with("HTTP/1.1 431 "));
    let fine = format!("GET /refused HTTP/1.1\r\nConnection: close\r\n{}\r\n", "X: y\r\n".repeat(63));
    assert!(ask(&running, &fine).await.starts_with("HTTP/1.1 401 "));
}

#[tokio::test]
async fn connections_beyond_the_limit_are_told_so() {
    let running = start(Limits { connections_max: 1, first_within: Duration::from_secs(9), ..quick() }).await;
    let mut first = connect(&running).await;
    say(&mut first, &post("/", "[1]")).await;
    until(&mut first, "]").await;
    assert!(until(&mut connect(&running).await, "").await.starts_with("HTTP/1.1 503 "));
    assert_eq!(running.meter.refused_full.load(Ordering::SeqCst), 1);
    drop(first);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut third = connect(&running).await;
    say(&mut third, &post("/", "[1]")).await;
    assert!(until(&mut third, "]").await.contains("200"));
}

#[tokio::test]
async fn a_client_that_goes_away_drops_its_request() {
    let running = start(quick()).await;
    let mut stream = connect(&running).await;
    say(&mut stream, GET_SLOW).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(running.front.dropped.load(Ordering::SeqCst), 0);
    drop(stream);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(running.front.dropped.load(Ordering::SeqCst), 1, "before it would have been answered");
    assert_eq!(running.meter.open.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_client_that_leaves_an_event_stream_is_seen() {
    let running = start(quick()).await;
    let mut stream = connect(&running).await;
    say(&mut stream, "POST /post HTTP/1.1\r\nHost: x\r\n\r\n").await;
    until(&mut stream, "first\n\n\r\n").await;
    let events = running.front.stream.lock().unwrap().take().unwrap();
    drop(stream);
    tokio::time::timeout(Duration::from_secs(5), events.abandoned()).await.unwrap();
}

#[tokio::test]
async fn the_end_lets_requests_finish_and_ends_what_lasts() {
    let running = start(quick()).await;
    let mut idle = connect(&running).await;
    say(&mut idle, &post("/", "[1]")).await;
    until(&mut idle, "]").await;
    let mut slow = connect(&running).await;
    say(&mut slow, GET_SLOW).await;
    let mut lasting = connect(&running).await;
    say(&mut lasting, "GET /get HTTP/1.1\r\nHost: x\r\n\r\n").await;
    until(&mut lasting, "first\n\n\r\n").await;
    let mut pending = connect(&running).await;
    say(&mut pending, "POST /post HTTP/1.1\r\nHost: x\r\n\r\n").await;
    until(&mut pending, "first\n\n\r\n").await;
    running.end.send(true).unwrap();
    assert_eq!(until(&mut idle, "").await, "");
    assert_eq!(until(&mut lasting, "").await, "0\r\n\r\n", "well ended, and at once");
    assert!(TcpStream::connect(running.address).await.is_err(), "nobody listens");
    assert!(!running.task.is_finished());
    assert!(until(&mut slow, "").await.ends_with("slow"));
    assert_eq!(until(&mut pending, "").await, "0\r\n\r\n", "well ended, after the time for it");
    tokio::time::timeout(Duration::from_secs(5), running.task).await.unwrap().unwrap();
    assert_eq!(running.meter.open.load(Ordering::SeqCst), 0);
}
