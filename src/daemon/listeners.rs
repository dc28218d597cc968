//! The listeners that belong to no single server: the main one, and the one for load balancers whose
//! rules share a target group.
//!
//! A port that somebody else holds is asked for again and again: the servers' own ports do not
//! depend on it. Must never bind the main listener to more than loopback while its password is one
//! that everybody can read in the documentation.

use crate::daemon::Home;
use crate::gateway::front::GatewayFront;
use crate::gateway::guard::sources::Sources;
use crate::gateway::http::{self, Entry, Limits, Service};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Between two tries to get a port.
const AGAIN: Duration = Duration::from_secs(5);

/// Serves both until `end` is true.
pub(super) async fn serve(
    home: Arc<Home>,
    front: Arc<GatewayFront>,
    edge_sources: Arc<Sources>,
    end: watch::Receiver<bool>,
) {
    let settings = &home.settings;
    let main = SocketAddr::new(settings.main_host(), settings.dashboard.port.get());
    let shared = settings.gateway.port.map(|port| {
        let host = settings.gateway_host(settings.balancer_on());
        let address = SocketAddr::new(host, port.get());
        one(address, Entry::Shared, Arc::clone(&front), (edge_sources, end.clone()))
    });
    let main = one(main, Entry::Main, front, (Arc::new(Sources::any()), end));
    match shared {
        Some(shared) => {
            tokio::join!(main, shared);
        }
        None => main.await,
    }
}

async fn one(
    address: SocketAddr,
    entry: Entry,
    front: Arc<GatewayFront>,
    (sources, end): (Arc<Sources>, watch::Receiver<bool>),
) {
    let mut stopping = end.clone();
    let listener = tokio::select! {
        listener = bind(address) => listener,
        _ended = stopping.wait_for(|ended| *ended) => return,
    };
    let service =
        Service { entry: Arc::new(entry), limits: Limits::default(), sources, meter: Arc::default() };
    http::serve(listener, front, service, end).await;
}

async fn bind(address: SocketAddr) -> TcpListener {
    let mut said = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                tracing::info!(MCP_PORT = address.port(), "listening on {address}");
                return listener;
            }
            Err(error) => {
                if !std::mem::replace(&mut said, true) {
                    tracing::warn!(
                        MCP_PORT = address.port(),
                        MCP_ERROR_CODE = "MCPO-G023",
                        "listening on {address}: {error}; trying again every {} s",
                        AGAIN.as_secs()
                    );
                }
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}
