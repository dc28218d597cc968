//! The listener for figures and probes alone: what monitoring asks for, on an address of its own.
//!
//! No password and no TLS: whoever reaches it may read the figures, which name servers and tools and
//! nothing else. Must never serve anything that changes something, nor any other path.

use crate::gateway::body::{self, Refusal, Response};
use crate::gateway::front::{GatewayFront, Target};
use crate::gateway::guard::is_probe;
use crate::gateway::http::{Front, Request};
use hyper::{Method, StatusCode};
use std::sync::Arc;

/// Where the figures are.
const METRICS: &str = "/metrics";
/// Whoever asks.
const NOBODY: &str = "nobody";

/// The gateway and the panel, seen from monitoring.
#[derive(Debug)]
pub struct FiguresFront {
    front: Arc<GatewayFront>,
}

impl FiguresFront {
    /// Figures and probes of what is served elsewhere.
    #[must_use]
    pub const fn new(front: Arc<GatewayFront>) -> Self {
        Self { front }
    }
}

impl Front for FiguresFront {
    type Pass = Target;

    fn admit(&self, request: &mut Request) -> Result<Target, Refusal> {
        if !matches!(request.method, Method::GET | Method::HEAD) {
            let why = "figures and probes are read with GET";
            return Err(body::problem(
                StatusCode::METHOD_NOT_ALLOWED,
                "MCPO-H405",
                "not with this method",
                why,
            )
            .into());
        }
        if is_probe(request) {
            return self.front.admit(request);
        }
        let beside = self.front.beside.get().filter(|_| request.path() == METRICS);
        let Some(beside) = beside else {
            let why = "this address has /metrics, /healthz, /healthz/{id} and /readyz";
            return Err(body::problem(StatusCode::NOT_FOUND, "MCPO-H404", "nothing is here", why).into());
        };
        // A page that had its name pointed at this host is not monitoring.
        self.front.guard.check_name(request)?;
        Ok(Target::Beside(Arc::clone(beside), Arc::from(NOBODY)))
    }

    async fn handle(self: Arc<Self>, request: Request, target: Target) -> Response {
        Arc::clone(&self.front).handle(request, target).await
    }
}
