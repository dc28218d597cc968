//! The container engine's state: what it lists, and what happens in it as time passes.
//!
//! Names are unique, a host port is bound by a start and freed by an end, programs end by
//! themselves. The operations that callers may ask for are in [`crate::world::fake::engine_ops`].

use crate::model::container::{ContainerSpec, HostPorts, Protocol};
use crate::model::id::{ContainerId, ImageId, ServerId};
use crate::model::net::HostPort;
use crate::model::observed::{Container, ContainerHealth, ContainerState, Details, Image};
use crate::model::time::{Span, Timestamp};
use crate::world::fake::health::Mood;
use crate::world::fake::host::overlaps;
use crate::world::fake::image::{Behaviour, End, ImageFacts};
use crate::world::fake::rng::Rng;
use std::collections::BTreeMap;

/// From start to the verdict of a health check that never passes.
const HEALTH_GIVES_UP_AFTER: Span = Span::secs(30);
/// Where the engine's own choices of host ports begin.
const EPHEMERAL_START: u64 = 32_768;
/// Where they end.
const EPHEMERAL_END: u64 = 60_999;

/// The engine.
#[derive(Debug, Default)]
pub(crate) struct EngineState {
    /// In order of creation.
    pub(crate) containers: Vec<Unit>,
    /// Images that exist anywhere.
    pub(crate) catalog: BTreeMap<ImageId, ImageFacts>,
    /// Images on the engine.
    pub(crate) local: Vec<ImageId>,
    /// References on the engine.
    pub(crate) tags: BTreeMap<String, ImageId>,
    /// References in the registry.
    pub(crate) registry: BTreeMap<String, ImageId>,
    /// Volumes, by name.
    pub(crate) volumes: BTreeMap<String, Volume>,
}

/// A container with what the list does not show.
#[derive(Clone, Debug)]
pub(crate) struct Unit {
    pub(crate) seen: Container,
    /// It carries the mark of the stack under test.
    pub(crate) ours: bool,
    pub(crate) details: Details,
    pub(crate) publishes: Vec<Published>,
    /// Volumes it got without a name or took over: name and path inside.
    pub(crate) volumes: Vec<(String, String)>,
    /// Those of them that the engine made for it.
    pub(crate) own_volumes: Vec<String>,
    pub(crate) end: Option<End>,
    pub(crate) serves_from: Option<Timestamp>,
    pub(crate) ran: bool,
    /// Its memory limit, in bytes; 0: none.
    pub(crate) memory: i64,
    /// How its program answers.
    pub(crate) mood: Mood,
}

/// A published TCP port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) ip: String,
    pub(crate) port: HostPort,
}

/// A volume without a name given by anybody.
#[derive(Clone, Debug)]
pub(crate) struct Volume {
    pub(crate) server: Option<ServerId>,
    pub(crate) ours: bool,
    /// A server of ours has run on it under its own name: it holds data.
    pub(crate) holds_data: bool,
    /// No container has it, and that is how it should be.
    pub(crate) left_on_purpose: bool,
}

impl Unit {
    /// A container that was made and never started.
    pub(crate) fn new(id: String, name: &str, image: &ImageId, created: Timestamp) -> Self {
        let seen = Container {
            id: ContainerId(id),
            name: name.to_owned(),
            mark: None,
            state: ContainerState::Created,
            image: image.clone(),
            created,
            host_ports: Vec::new(),
        };
        Self {
            seen,
            ours: false,
            details: Details::default(),
            publishes: Vec::new(),
            volumes: Vec::new(),
            own_volumes: Vec::new(),
            end: None,
            serves_from: None,
            ran: false,
            memory: 0,
            mood: Mood::Well,
        }
    }

    /// Whether it has a process and holds its ports.
    pub(crate) fn is_up(&self) -> bool {
        matches!(
            self.seen.state,
            ContainerState::Running(_) | ContainerState::Paused | ContainerState::Restarting
        )
    }

    /// Whether its program answers what it is asked.
    pub(crate) fn answers(&self, now: Timestamp) -> bool {
        self.accepts(now) && self.mood != Mood::Hung
    }

    /// Whether connections to it are accepted, by its program or by the system for it.
    pub(crate) fn accepts(&self, now: Timestamp) -> bool {
        matches!(self.seen.state, ContainerState::Running(_)) && self.serves_from.is_some_and(|at| at <= now)
    }

    pub(crate) fn server(&self) -> Option<&ServerId> {
        self.seen.mark.as_ref().and_then(|mark| mark.server.as_ref())
    }

    /// Its process is gone.
    pub(crate) fn ended(&mut self, now: Timestamp, exit: i64) {
        self.seen.state = ContainerState::Exited(exit);
        self.seen.host_ports.clear();
        self.details.finished = Some(now);
        self.end = None;
        self.serves_from = None;
    }

    /// What the list shows at `now`.
    fn judge_health(&mut self, now: Timestamp) {
        if self.seen.state != ContainerState::Running(ContainerHealth::Starting) {
            return;
        }
        let up_for = self.details.started.map_or(Span::ZERO, |started| now.since(started));
        if self.serves_from.is_some_and(|at| at <= now) {
            self.seen.state = ContainerState::Running(ContainerHealth::Healthy);
        } else if self.serves_from.is_none() && up_for >= HEALTH_GIVES_UP_AFTER {
            self.seen.state = ContainerState::Running(ContainerHealth::Unhealthy);
        }
    }
}

impl EngineState {
    /// Lets programs end whose time has come; returns name and manner of each end.
    pub(crate) fn settle(&mut self, now: Timestamp) -> Vec<(String, String)> {
        let mut ends = Vec::new();
        for unit in &mut self.containers {
            unit.judge_health(now);
            let Some(end) = unit.end.filter(|end| end.at <= now) else { continue };
            if unit.seen.state == ContainerState::Paused {
                continue;
            }
            unit.ended(end.at, end.exit);
            unit.details.oom_killed = end.oom;
            ends.push((
                unit.seen.name.clone(),
                format!("exit {}{}", end.exit, if end.oom { ", out of memory" } else { "" }),
            ));
        }
        ends
    }

    pub(crate) fn list(&self) -> Vec<Container> {
        self.containers.iter().map(|unit| unit.seen.clone()).collect()
    }

    /// By id or name, as the engine resolves what it is told.
    pub(crate) fn find(&self, key: &str) -> Option<usize> {
        self.containers
            .iter()
            .position(|unit| unit.seen.id.as_str() == key)
            .or_else(|| self.containers.iter().position(|unit| unit.seen.name == key))
    }

    pub(crate) fn details(&self, id: &ContainerId) -> Option<Details> {
        let unit = self.containers.iter().find(|unit| unit.seen.id == *id)?;
        Some(Details { anonymous_volumes: unit.volumes.clone(), ..unit.details.clone() })
    }

    /// An image on the engine by reference, id or digest.
    pub(crate) fn image(&self, reference: &str) -> Option<Image> {
        let by_tag = self.tags.get(reference);
        let id = by_tag.or_else(|| self.local.iter().find(|id| self.is_named(id, reference)))?;
        self.catalog.get(id).map(|facts| facts.image.clone())
    }

    fn is_named(&self, id: &ImageId, reference: &str) -> bool {
        let digest = || self.catalog.get(id).and_then(|facts| facts.image.digest.as_deref());
        id.as_str() == reference || digest() == Some(reference)
    }

    /// An image anywhere by a registry's reference or digest.
    pub(crate) fn in_registry(&self, reference: &str) -> Option<ImageId> {
        let by_digest =
            || self.catalog.keys().find(|id| reference.contains('@') && self.is_named(id, reference));
        self.registry.get(reference).or_else(by_digest).cloned()
    }

    /// Puts an image into the registry under `reference`.
    pub(crate) fn publish_image(&mut self, reference: &str, facts: ImageFacts) {
        self.registry.insert(reference.to_owned(), facts.image.id.clone());
        self.catalog.insert(facts.image.id.clone(), facts);
    }

    /// Puts the registry's image of `reference` on the engine.
    pub(crate) fn pull(&mut self, reference: &str) -> bool {
        let Some(id) = self.in_registry(reference) else { return false };
        if !reference.contains('@') {
            self.tags.insert(reference.to_owned(), id.clone());
        }
        if !self.local.contains(&id) {
            self.local.push(id);
        }
        true
    }

    /// Addresses and ports that running containers hold.
    pub(crate) fn published(&self) -> Vec<(&str, HostPort)> {
        let up = self.containers.iter().filter(|unit| unit.is_up());
        up.flat_map(|unit| unit.publishes.iter().map(|p| (p.ip.as_str(), p.port))).collect()
    }

    /// The running container that holds `port` at `address`.
    pub(crate) fn publisher(&self, address: &str, port: HostPort) -> Option<&str> {
        let holds = |unit: &&Unit| unit.publishes.iter().any(|p| p.port == port && overlaps(address, &p.ip));
        self.containers.iter().filter(|unit| unit.is_up()).find(holds).map(|unit| unit.seen.name.as_str())
    }

    /// Whether a running container answers on `port`.
    pub(crate) fn serves(&self, port: HostPort, now: Timestamp) -> bool {
        let answers = |unit: &Unit| unit.accepts(now) && unit.publishes.iter().any(|p| p.port == port);
        self.containers.iter().any(answers)
    }

    /// Whether a container other than the one at `except` has the volume.
    pub(crate) fn in_use(&self, volume: &str, except: Option<&ContainerId>) -> bool {
        let has = |unit: &Unit| unit.volumes.iter().any(|(name, _)| name == volume);
        self.containers.iter().any(|unit| Some(&unit.seen.id) != except && has(unit))
    }
}

/// A port that the engine chooses.
pub(crate) fn ephemeral(ids: &mut Rng) -> Option<HostPort> {
    u16::try_from(ids.between(EPHEMERAL_START, EPHEMERAL_END)).ok().and_then(HostPort::new)
}

/// The plain TCP ports of a declaration that the engine binds at a start.
pub(crate) fn plain_ports(spec: &ContainerSpec, ids: &mut Rng) -> Vec<Published> {
    let mut out = Vec::new();
    for published in spec.published.iter().filter(|p| p.container.protocol == Protocol::Tcp) {
        let port = match published.host {
            HostPorts::One(port) | HostPorts::FirstFreeOf(port, _) if port != 0 => HostPort::new(port),
            HostPorts::Unspecified | HostPorts::One(_) | HostPorts::FirstFreeOf(..) => ephemeral(ids),
        };
        let ip = published.host_ip.clone().unwrap_or_default();
        out.extend(port.map(|port| Published { ip, port }));
    }
    out
}

impl EngineState {
    /// Every program is well behaved: those that run from now on, the others from their next start.
    pub(crate) fn heal(&mut self, now: Timestamp) {
        for facts in self.catalog.values_mut() {
            if !matches!(facts.behaviour, Behaviour::Stable { .. }) {
                facts.behaviour = Behaviour::Stable { serves_after: Span::secs(1) };
            }
        }
        for unit in &mut self.containers {
            unit.mood = Mood::Well;
        }
        for unit in self.containers.iter_mut().filter(|unit| unit.is_up()) {
            unit.end = None;
            unit.serves_from = unit.serves_from.or(Some(now));
            if unit.seen.state == ContainerState::Running(ContainerHealth::Unhealthy) {
                unit.seen.state = ContainerState::Running(ContainerHealth::Starting);
            }
        }
    }
}
