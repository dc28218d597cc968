//! The listeners that belong to no single server: the main one, and the one for load balancers whose
//! rules share a target group.
//!
//! A port that somebody else holds is asked for again and again: the servers' own ports do not
//! depend on it. Must never bind the main listener to more than loopback while its password is one
//! that everybody can read in the documentation.

use crate::daemon::Home;
use crate::daemon::handover::{GATEWAY, Handover, MAIN};
use crate::gateway::front::GatewayFront;
use crate::gateway::guard::sources::Sources;
use crate::gateway::http::{self, Entry, Limits, Service};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

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

/// Serves both until `end` is true.
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
        one(socket, Entry::Shared, Arc::clone(&front), (edge_sources, end.clone()))
    });
    let main = one((MAIN, main, begin), Entry::Main, front, (Arc::new(Sources::any()), end));
    match shared {
        Some(shared) => {
            tokio::join!(main, shared);
        }
        None => main.await,
    }
}

async fn one(
    socket: (&'static str, SocketAddr, Begin),
    entry: Entry,
    front: Arc<GatewayFront>,
    (sources, end): (Arc<Sources>, watch::Receiver<bool>),
) {
    let mut stopping = end.clone();
    let listener = tokio::select! {
        listener = bind(socket) => listener,
        _ended = stopping.wait_for(|ended| *ended) => return,
    };
    let service =
        Service { entry: Arc::new(entry), limits: Limits::default(), sources, meter: Arc::default() };
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
