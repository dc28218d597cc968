//! The demo server over HTTP: one endpoint, one JSON answer for each request, no sessions.
//!
//! ```text
//! POST /mcp     a request: 200 with its answer; a notification or an answer: 202
//! GET  /mcp     405: there is no stream to listen to
//! GET  /health  200
//! ```
//!
//! Legacy clients need no handshake to be remembered, since nothing depends on it. For modern
//! requests the headers that repeat the body must be there and agree with it.
//!
//! Must never run a tool on the threads that serve connections.

use crate::cli::demo_server::protocol::{self, Begun, Job};
use crate::cli::demo_server::{Clock, Stop};
use crate::mcp::build;
use crate::mcp::wire::{self, HEADER_MISMATCH, INTERNAL_ERROR, Message, RpcError, member, text_of};
use serde_json::value::RawValue;
use std::net::SocketAddr;
use warp::Filter;
use warp::http::{HeaderMap, Response, StatusCode};
use warp::hyper::body::Bytes;

/// The largest request body.
pub const BODY_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Serves until the process ends.
pub async fn serve(address: SocketAddr, clock: Clock) {
    warp::serve(routes(clock)).run(address).await;
}

/// The routes, for whoever wants to serve them otherwise.
pub fn routes(clock: Clock) -> impl Filter<Extract = (Response<String>,), Error = warp::Rejection> + Clone {
    let post = warp::path!("mcp")
        .and(warp::post())
        .and(warp::body::content_length_limit(BODY_BYTES_MAX))
        .and(warp::header::headers_cloned())
        .and(warp::body::bytes())
        .then(move |headers: HeaderMap, body: Bytes| async move { answer(&headers, &body, clock).await });
    let other = warp::path!("mcp").map(|| respond(StatusCode::METHOD_NOT_ALLOWED, String::new()));
    let health = warp::path!("health").and(warp::get()).map(|| respond(StatusCode::OK, "ok\n".to_owned()));
    post.or(other).unify().or(health).unify()
}

async fn answer(headers: &HeaderMap, body: &[u8], clock: Clock) -> Response<String> {
    let (id, method, params) = match wire::read(body) {
        Ok(Message::Request { id, method, params }) => (id, method, params),
        Ok(Message::Notification { .. } | Message::Response { .. } | Message::Error { .. }) => {
            return respond(StatusCode::ACCEPTED, String::new());
        }
        Err(why) => {
            let error = build::error(wire::id_of(body), why.code(), &why.to_string());
            return respond(StatusCode::BAD_REQUEST, error);
        }
    };
    let modern = protocol::is_modern(params);
    if modern && let Some(header) = wrong_header(headers, &method, params) {
        let error =
            build::error(Some(id), HEADER_MISMATCH, &format!("header {header} does not agree with the body"));
        return respond(StatusCode::BAD_REQUEST, error);
    }
    let answer = match protocol::begin(id, &method, params, true) {
        Begun::Answered(answer) | Begun::Initialized(answer) => answer,
        Begun::Call(job) => run(id, job, clock).await,
    };
    respond(if modern { status_of(&answer) } else { StatusCode::OK }, answer)
}

async fn run(id: &RawValue, job: Job, clock: Clock) -> String {
    // Nobody can cancel a call here, so it is never told to stop.
    let run = tokio::task::spawn_blocking(move || job.run(clock(), &Stop::default(), &|_progress| {}));
    match run.await {
        Ok(Some(answer)) => answer,
        Ok(None) | Err(_) => build::error(Some(id), INTERNAL_ERROR, "the call did not end"),
    }
}

/// The first header of a modern request that is missing or says something else than the body.
fn wrong_header(headers: &HeaderMap, method: &str, params: Option<&RawValue>) -> Option<&'static str> {
    let says = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let params = params?;
    let version = crate::mcp::meta::meta(params).and_then(|meta| member(meta, crate::mcp::meta::VERSION_KEY));
    if says("mcp-protocol-version") != version.and_then(text_of).as_deref() {
        return Some("MCP-Protocol-Version");
    }
    if says("mcp-method") != Some(method) {
        return Some("Mcp-Method");
    }
    let name = member(params, "name").and_then(text_of);
    (method == "tools/call" && says("mcp-name") != name.as_deref()).then_some("Mcp-Name")
}

/// The status of a modern answer.
fn status_of(answer: &str) -> StatusCode {
    let Ok(Message::Error { error, .. }) = wire::read(answer.as_bytes()) else { return StatusCode::OK };
    match RpcError::read(error).code {
        wire::METHOD_NOT_FOUND => StatusCode::NOT_FOUND,
        wire::UNSUPPORTED_VERSION | wire::INVALID_PARAMS | wire::MISSING_CAPABILITY => {
            StatusCode::BAD_REQUEST
        }
        _ => StatusCode::OK,
    }
}

fn respond(status: StatusCode, body: String) -> Response<String> {
    let json = body.starts_with('{');
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let kind = if json { "application/json" } else { "text/plain; charset=utf-8" };
    response.headers_mut().insert("content-type", warp::http::HeaderValue::from_static(kind));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert("allow", warp::http::HeaderValue::from_static("POST"));
    }
    response
}
