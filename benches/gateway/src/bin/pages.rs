//! Reads pages and lists over kept connections, and is the floor under them.
//!
//! ```text
//! pages floor
//! pages read --url URL --paths A,B [--readers N] [--pause-ms MS] [--seconds S] [--header 'Name: value']
//! ```
//!
//! `floor` is a bare hyper handler on a port of its own, which it prints: `/N` is answered with N bytes.
//! `read` asks for the paths in turn on N connections and prints one line of JSON: for each path how
//! many answers there were, and in how many milliseconds they were there whole. One thread, so that
//! what is measured has the other cores to itself.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gateway_bench::client::Connection;
use gateway_bench::options::Options;
use gateway_bench::target::Target;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Most bytes that the floor answers with.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// Milliseconds by path, and the size of the last answer.
type Samples = BTreeMap<String, (Vec<f64>, usize)>;

struct Reading {
    target: Target,
    paths: Vec<String>,
    pause: Duration,
    end: Instant,
}

async fn serve(request: Request<Incoming>, body: Bytes) -> Result<Response<Full<Bytes>>, Infallible> {
    let wanted = request.uri().path().trim_start_matches('/').parse().unwrap_or(2).min(BYTES_MAX);
    Ok(Response::new(Full::new(body.slice(..wanted))))
}

async fn floor() -> Result<Value, String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| error.to_string())?;
    let port = listener.local_addr().map_err(|error| error.to_string())?.port();
    println!("{port}");
    std::io::stdout().flush().map_err(|error| error.to_string())?;
    let body = Bytes::from(vec![b'x'; BYTES_MAX]);
    loop {
        let (stream, _) = listener.accept().await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let body = body.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| serve(request, body.clone()));
            // A client that goes away is no error here.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn read(reading: Arc<Reading>, number: usize) -> Result<Samples, String> {
    let mut connection = Connection::open(&reading.target).await?;
    let mut samples = Samples::new();
    let Target { authority, headers, .. } = &reading.target;
    for path in reading.paths.iter().cycle().skip(number % reading.paths.len()) {
        if Instant::now() >= reading.end {
            break;
        }
        let head = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\n{headers}Content-Length: ");
        let begun = Instant::now();
        let (head, body) = connection.exchange(head.as_bytes(), b"").await?;
        let took = begun.elapsed().as_secs_f64() * 1e3;
        if head.status != 200 {
            return Err(format!("{path}: status {}", head.status));
        }
        let sample = samples.entry(path.clone()).or_default();
        sample.0.push(took);
        sample.1 = body.len();
        if !reading.pause.is_zero() {
            tokio::time::sleep(reading.pause).await;
        }
    }
    Ok(samples)
}

async fn all(options: &Options) -> Result<Value, String> {
    let paths: String = options.get("paths", "/".to_owned())?;
    let readers = options.get("readers", 1_usize)?;
    let seconds: f64 = options.get("seconds", 5.0)?;
    let reading = Arc::new(Reading {
        target: options.target()?,
        paths: paths.split(',').map(str::to_owned).collect(),
        pause: Duration::from_millis(options.get("pause-ms", 0)?),
        end: Instant::now() + Duration::from_secs_f64(seconds),
    });
    let crew: Vec<_> = (0..readers).map(|number| tokio::spawn(read(Arc::clone(&reading), number))).collect();
    let mut together = Samples::new();
    for one in crew {
        for (path, (took, bytes)) in one.await.map_err(|error| error.to_string())?? {
            let sample = together.entry(path).or_default();
            sample.0.extend(took);
            sample.1 = bytes;
        }
    }
    let rows = together.into_iter().map(|(path, (mut took, bytes))| {
        took.sort_by(f64::total_cmp);
        let share = |part: f64| took.get(((took.len() as f64 * part) as usize).min(took.len() - 1)).copied();
        let row = json!({ "n": took.len(), "median_ms": share(0.5), "p99_ms": share(0.99), "max_ms": took.last(), "bytes": bytes });
        (path, row)
    });
    Ok(Value::Object(rows.collect()))
}

fn run() -> Result<Value, String> {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    let options = Options::read(words)?;
    let builder = match command.as_str() {
        "floor" => tokio::runtime::Builder::new_multi_thread().enable_all().build(),
        "read" => tokio::runtime::Builder::new_current_thread().enable_all().build(),
        _ => return Err("commands: floor, read; see benches/README.md".to_owned()),
    };
    let runtime = builder.map_err(|error| error.to_string())?;
    if command == "floor" { runtime.block_on(floor()) } else { runtime.block_on(all(&options)) }
}

fn main() -> ExitCode {
    match run() {
        Ok(found) => {
            println!("{found}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("pages: {error}");
            ExitCode::FAILURE
        }
    }
}
