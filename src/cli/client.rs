//! Talks to the daemon over its control socket, with the routes of the HTTP API.
//!
//! Must never start a daemon behind somebody's back.

use crate::terminal::failure::{Exit, Failure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::path::{Path, PathBuf};
use tokio::net::UnixStream;

/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The daemon behind a socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A daemon that listens on `socket`; nothing is contacted yet.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// GET.
    ///
    /// # Errors
    /// No daemon, or what it answered that is not a success.
    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.send("GET", path, String::new()).await
    }

    /// POST.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn post(&self, path: &str, body: String) -> Result<Value, Failure> {
        self.send("POST", path, body).await
    }

    /// PUT.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn put(&self, path: &str, body: String) -> Result<Value, Failure> {
        self.send("PUT", path, body).await
    }

    /// PATCH.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn patch(&self, path: &str, body: String) -> Result<Value, Failure> {
        self.send("PATCH", path, body).await
    }

    /// DELETE.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn delete(&self, path: &str) -> Result<Value, Failure> {
        self.send("DELETE", path, String::new()).await
    }

    async fn send(&self, method: &str, path: &str, body: String) -> Result<Value, Failure> {
        let stream =
            UnixStream::connect(&self.socket).await.map_err(|error| self.unreachable(&error.to_string()))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| self.unreachable(&error.to_string()))?;
        let task = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| {
                Failure::new(Exit::Failed, format!("asking for {path}")).cause(error.to_string())
            })?;
        let answer =
            sender.send_request(request).await.map_err(|error| self.unreachable(&error.to_string()))?;
        let status = answer.status();
        let limited = http_body_util::Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
        let bytes = limited.collect().await.map_err(|error| self.unreachable(&error.to_string()))?.to_bytes();
        task.abort();
        let value: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if status.is_success() { Ok(value) } else { Err(refused(&value, status.as_u16())) }
    }

    fn unreachable(&self, cause: &str) -> Failure {
        Failure::new(Exit::NoDaemon, format!("reaching the daemon at {}", self.socket.display()))
            .cause(cause)
            .hint("start it with `systemctl start mcp-orchestrator`, or `mcp-orchestrator run` in another terminal")
    }
}

fn refused(value: &Value, status: u16) -> Failure {
    let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let code = text("code").map(|code| format!(" [{code}]")).unwrap_or_default();
    let title = text("title").unwrap_or_else(|| format!("the daemon answered with status {status}"));
    let failure = Failure::new(Exit::Failed, format!("{title}{code}"));
    let failure = match text("detail") {
        Some(detail) => failure.cause(detail),
        None => failure,
    };
    match text("hint") {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
