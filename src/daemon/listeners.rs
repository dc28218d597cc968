//! The listeners that belong to no single server: the main one, the one for load balancers whose
//! rules share a target group, the tool proxy's own port, and the one for figures and probes alone.
//!
//! A port that somebody else holds is asked for again and again: the servers' own ports do not
//! depend on it. Must never serve the main listener to more than loopback while its password is one
//! that everybody can read in the documentation.

use crate::config::settings::GatewayAuth;
use crate::daemon::Home;
use crate::daemon::handover::{GATEWAY, HELD, Handover, MAIN, METRICS, TOOLS};
use crate::gateway::front::GatewayFront;
use crate::gateway::guard::sources::{Block, Sources};
use crate::gateway::http::tls::Tls;
use crate::gateway::http::{self, Entry, Front, Limits, Service};
use crate::panel::figures::FiguresFront;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Between two tries to get a port.
const AGAIN: Duration = Duration::from_secs(5);

/// From where sockets come, and who wants to know that they listen.
#[derive(Clone)]
pub(super) struct Begin {
    /// The process before.
    pub handover: Arc<Handover>,
    /// Dropped when the first try was made.
    pub tried: mpsc::Sender<Infallible>,
}

/// Serves all until `end` is true.
pub(super) async fn serve(
    home: Arc<Home>,
    (front, edge_sources): (Arc<GatewayFront>, Arc<Sources>),
    begin: Begin,
    end: watch::Receiver<bool>,
) {
    let settings = &home.settings;
    let near = front.beside.get().is_none_or(|beside| beside.is_near_only());
    let host = if near { IpAddr::from([127, 0, 0, 1]) } else { settings.dashboard.host };
    let main = SocketAddr::new(host, settings.dashboard.port.get());
    let shared = settings.gateway.port.map(|port| {
        let host = settings.gateway_host(settings.balancer_on());
        let socket = (GATEWAY, SocketAddr::new(host, port.get()), begin.clone());
        one(socket, (Entry::Shared, Arc::default()), Arc::clone(&front), (edge_sources, end.clone()))
    });
    let any = Arc::new(Sources::any());
    let figures = settings.metrics.port.map(|port| {
        let address = SocketAddr::new(settings.metrics.host.unwrap_or(host), port.get());
        let socket = (METRICS, address, begin.clone());
        let front = Arc::new(FiguresFront::new(Arc::clone(&front)));
        one(socket, (Entry::Shared, Arc::default()), front, (Arc::clone(&any), end.clone()))
    });
    let tools = settings.openapi.port.map(|port| {
        // Whoever connects needs a key or a token, or must be on this host.
        let locked =
            settings.openapi.api_key.is_some() || !matches!(settings.gateway.auth, GatewayAuth::None);
        let host = if locked { settings.dashboard.host } else { IpAddr::from([127, 0, 0, 1]) };
        let socket = (TOOLS, SocketAddr::new(host, port.get()), begin.clone());
        one(
            socket,
            (Entry::Tools, Arc::clone(&front.tls)),
            Arc::clone(&front),
            (Arc::clone(&any), end.clone()),
        )
    });
    let main = async {
        let held = begin.handover.held();
        if held.is_empty() {
            let encrypted = (Entry::Main, Arc::clone(&front.tls));
            one((MAIN, main, begin), encrypted, front, (any, end)).await;
        } else {
            drop(begin);
            all_held(held, front, near, end).await;
        }
    };
    tokio::join!(main, perhaps(shared), perhaps(figures), perhaps(tools));
}

/// Serves the main listener on the addresses of systemd's socket unit.
async fn all_held(
    held: Vec<std::net::TcpListener>,
    front: Arc<GatewayFront>,
    near: bool,
    end: watch::Receiver<bool>,
) {
    let mut all = JoinSet::new();
    for listener in held {
        let bound = listener.local_addr().and_then(|address| Ok((address, TcpListener::from_std(listener)?)));
        let (address, listener) = match bound {
            Ok(bound) => bound,
            Err(error) => {
                tracing::warn!(MCP_ERROR_CODE = "MCPO-G023", "a socket of {HELD} cannot be served: {error}");
                continue;
            }
        };
        tracing::info!(MCP_PORT = address.port(), "listening on {address}, which {HELD} holds");
        let sources = Arc::new(held_sources(address, near));
        let (entry, meter, tls) = (Arc::new(Entry::Main), Arc::default(), Arc::clone(&front.tls));
        let service = Service { entry, limits: Limits::default(), sources, meter, tls };
        all.spawn(http::serve(listener, Arc::clone(&front), service, end.clone()));
    }
    while all.join_next().await.is_some() {}
}

/// Who may connect to an address of the socket unit; `near`: only from this host.
fn held_sources(address: SocketAddr, near: bool) -> Sources {
    if !near || address.ip().is_loopback() {
        return Sources::any();
    }
    tracing::warn!("{address} is served to this host only, as the dashboard's password is the shipped one");
    Sources::of(&Block::loopback())
}

/// Serves what is to be served.
async fn perhaps(listener: Option<impl Future<Output = ()>>) {
    if let Some(listener) = listener {
        listener.await;
    }
}

async fn one<F: Front>(
    socket: (&'static str, SocketAddr, Begin),
    (entry, tls): (Entry, Arc<Tls>),
    front: Arc<F>,
    (sources, end): (Arc<Sources>, watch::Receiver<bool>),
) {
    let mut stopping = end.clone();
    let listener = tokio::select! {
        listener = bind(socket) => listener,
        _ended = stopping.wait_for(|ended| *ended) => return,
    };
    let (entry, meter) = (Arc::new(entry), Arc::default());
    let service = Service { entry, limits: Limits::default(), sources, meter, tls };
    http::serve(listener, front, service, end).await;
}

async fn bind((name, address, begin): (&'static str, SocketAddr, Begin)) -> TcpListener {
    let Begin { handover, tried } = begin;
    let before = handover.tcp(name, address).await.map(TcpListener::from_std);
    if let Some(Ok(listener)) = before {
        tracing::info!(MCP_PORT = address.port(), "listening on {address} without a break");
        return listener;
    }
    let (mut said, mut tried) = (false, Some(tried));
    loop {
        let bound = TcpListener::bind(address).await;
        drop(tried.take());
        match bound {
            Ok(listener) => {
                handover.keep(name, &listener);
                tracing::info!(MCP_PORT = address.port(), "listening on {address}");
                return listener;
            }
            Err(error) => {
                if !std::mem::replace(&mut said, true) {
                    tracing::warn!(
                        MESSAGE_ID = crate::daemon::message::LISTENER_BLOCKED.id,
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

#[cfg(test)]
mod tests {
    use super::held_sources;

    #[test]
    fn a_shipped_password_is_not_served_to_others_whatever_the_socket_unit_says() {
        let check = |bound: &str, near: bool, peer: &str, allowed: bool| {
            let sources = held_sources(bound.parse().unwrap(), near);
            assert_eq!(sources.allow(peer.parse().unwrap()), allowed, "{bound} {near} {peer}");
        };
        for bound in ["0.0.0.0:5000", "[::]:5000", "192.0.2.1:5000"] {
            check(bound, true, "192.0.2.9", false);
            check(bound, true, "::ffff:192.0.2.9", false);
            check(bound, true, "127.0.0.1", true);
            check(bound, false, "192.0.2.9", true);
        }
        check("127.0.0.1:5000", true, "127.0.0.1", true);
        check("[::1]:5000", true, "::1", true);
    }
}
