//! What the main listener serves beside MCP: the dashboard and the API, seen from here.
//!
//! Must never know what is behind it; listeners, limits and time bounds stay the gateway's.

use crate::gateway::body::{Refusal, Response};
use crate::gateway::http::Request;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// A way of serving paths that are not MCP's.
pub trait Beside: std::fmt::Debug + Send + Sync {
    /// Whether a path is served here and not by the gateway.
    fn serves(&self, path: &str) -> bool;

    /// Whether the listener must stay on loopback: whoever connects could come in.
    fn is_near_only(&self) -> bool;

    /// Whether a path is a probe: asked for under any name, by whoever connects.
    fn is_probe(&self, path: &str) -> bool;

    /// Decides from the head alone, whose name was checked already: who asks.
    ///
    /// # Errors
    /// The answer instead.
    fn admit(&self, request: &mut Request) -> Result<Arc<str>, Refusal>;

    /// Answers.
    fn handle(&self, request: Request, who: Arc<str>) -> Pin<Box<dyn Future<Output = Response> + Send>>;
}
