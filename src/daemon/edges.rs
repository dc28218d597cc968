//! The edge listeners as the loop sees them: ports from the plan, requests from the network, the
//! gateway between.
//!
//! Must never decide which container serves: [`EdgeOp::HandOver`] says it.

use crate::docker::DockerEngine;
use crate::gateway::Gateway;
use crate::gateway::edges::EdgeListeners;
use crate::gateway::front::GatewayFront;
use crate::gateway::places::{Place, Source};
use crate::model::health::Condition;
use crate::model::id::{ContainerId, ServerId};
use crate::model::memory::End;
use crate::model::net::HostPort;
use crate::model::observed::{Contact, Use};
use crate::model::op::{ContainerRef, EdgeOp};
use crate::model::time::Timestamp;
use crate::world::{Answer, Edges, Engine, ErrorKind, WorldError};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A new container must answer MCP within this time to get the requests.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// Edge listeners with the gateway behind them.
pub struct ServedEdges {
    /// The ports.
    pub listeners: EdgeListeners<GatewayFront>,
    /// What answers.
    pub gateway: Arc<Gateway>,
    /// Where containers are looked up.
    pub engine: Arc<DockerEngine>,
    /// This run of the daemon.
    pub run: String,
}

impl ServedEdges {
    async fn hand_over(&self, server: &ServerId, container: &ContainerRef) -> Result<(), WorldError> {
        let doing = || format!("handing requests of {server} to {}", container.name());
        let entry = self.gateway.entry(server).ok_or_else(|| {
            WorldError::new(doing(), ErrorKind::NotFound, "the gateway does not know it yet")
        })?;
        let Some(old) = entry.slot.place() else {
            return Err(WorldError::new(doing(), ErrorKind::NotFound, "the gateway has no place for it yet"));
        };
        let new =
            self.place(&old, container).await.map_err(|error| WorldError { doing: doing(), ..error })?;
        if old.key == new.key && entry.slot.live().is_some_and(|live| live.key == new.key) {
            return Ok(());
        }
        let handed = entry.slot.hand_over(&self.gateway.shared(), Arc::new(new), ANSWER_WITHIN).await;
        handed.map_err(|why| WorldError::new(doing(), ErrorKind::Failed, why.to_string()))
    }

    /// The same place, in another container.
    async fn place(&self, old: &Place, container: &ContainerRef) -> Result<Place, WorldError> {
        let seen = self.engine.containers().await?;
        let found = seen.into_iter().find(|seen| match container {
            ContainerRef::Id { id, .. } => seen.id == *id,
            ContainerRef::Planned(name) => seen.name == *name,
        });
        let found = found.ok_or_else(|| {
            WorldError::new("finding the container", ErrorKind::NotFound, "it is not there")
        })?;
        let (source, key) = match &old.source {
            Source::Remote(decl) => {
                let port = found.host_ports.first().copied().ok_or_else(|| {
                    WorldError::new("finding its port", ErrorKind::NotFound, "it publishes none")
                })?;
                let path = decl.url.splitn(4, '/').nth(3).unwrap_or_default();
                let url = format!("http://127.0.0.1:{port}/{path}");
                let remote = crate::model::server::RemoteDecl { url, ..(**decl).clone() };
                (Source::Remote(Box::new(remote)), format!("{}:{port}", found.id))
            }
            _ => (Source::Container(found.id.clone(), found.image.clone()), found.id.0.clone()),
        };
        let spec = found.mark.as_ref().and_then(|mark| Some(mark.fingerprint.as_ref()?.short()));
        let spec = spec.unwrap_or_default();
        Ok(Place { source, key, spec, container: Some(found.id), down: None, ..old.clone() })
    }
}

impl Edges for ServedEdges {
    fn served(&self) -> BTreeMap<ServerId, HostPort> {
        self.listeners.served()
    }

    fn run(&self) -> String {
        self.run.clone()
    }

    fn contacts(&self) -> Option<BTreeMap<ServerId, Contact>> {
        Some(self.gateway.contacts())
    }

    fn uses(&self) -> BTreeMap<ServerId, Use> {
        self.gateway.uses()
    }

    fn health(&self) -> BTreeMap<ServerId, Condition> {
        self.gateway.conditions()
    }

    fn restarts(&self) -> Vec<Timestamp> {
        let shared = self.gateway.shared();
        shared.storm.recent(shared.clock.now())
    }

    fn ends(&self) -> BTreeMap<ServerId, End> {
        self.gateway.ends()
    }

    fn apply<'a>(&'a self, op: &'a EdgeOp) -> Answer<'a, ()> {
        Box::pin(async move {
            match op {
                EdgeOp::Open { server, port } => self.listeners.open(server, *port),
                EdgeOp::Close { server, port } => {
                    self.listeners.close(server, *port).await;
                    Ok(())
                }
                EdgeOp::HandOver { server, container } => self.hand_over(server, container).await,
                EdgeOp::EndLegs { server, legs } => {
                    let ids: Vec<ContainerId> = legs
                        .iter()
                        .filter_map(|leg| match leg {
                            ContainerRef::Id { id, .. } => Some(id.clone()),
                            ContainerRef::Planned(_) => None,
                        })
                        .collect();
                    self.gateway.end_instances(server, &ids).await;
                    Ok(())
                }
                EdgeOp::Sleep { server, uses } => {
                    self.gateway.put_to_sleep(server, *uses).await.map_err(|why| {
                        WorldError::new(format!("putting {server} to sleep"), ErrorKind::Conflict, why)
                    })
                }
                EdgeOp::Restart { server } => {
                    self.gateway.restart(server).await.map_err(|why| {
                        WorldError::new(format!("restarting {server}"), ErrorKind::TimedOut, why)
                    })
                }
            }
        })
    }
}
