//! What HTTP alone costs: a hyper server that answers the MCP requests itself, with no server
//! behind it, no session kept, nothing checked.
//!
//! Usage: `floor PORT [THREADS]`. It listens on loopback; any path will do.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use gateway_bench::answer::{Kind, answer};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

static SESSIONS: AtomicU64 = AtomicU64::new(1);

async fn serve(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::default());
    if request.method() != Method::POST {
        let ends = request.method() == Method::DELETE;
        *response.status_mut() = if ends { StatusCode::OK } else { StatusCode::METHOD_NOT_ALLOWED };
        return Ok(response);
    }
    let Ok(body) = request.into_body().collect().await.map(|body| body.to_bytes()) else {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(response);
    };
    let mut out = Vec::with_capacity(body.len() + 64);
    let kind = answer(&body, &mut out);
    if kind == Kind::Silent {
        *response.status_mut() = StatusCode::ACCEPTED;
        return Ok(response);
    }
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if kind == Kind::Initialize {
        let number = SESSIONS.fetch_add(1, Ordering::Relaxed);
        response.headers_mut().insert("mcp-session-id", HeaderValue::from(number));
    }
    *response.body_mut() = Full::new(Bytes::from(out));
    Ok(response)
}

async fn listen(port: u16) -> std::io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let service = hyper::service::service_fn(serve);
            // A client that goes away is no error here.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn main() -> std::io::Result<()> {
    let given: Vec<usize> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let port = given.first().and_then(|port| u16::try_from(*port).ok()).unwrap_or(0);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = given.get(1) {
        builder.worker_threads(*threads);
    }
    builder.enable_all().build()?.block_on(listen(port))
}
