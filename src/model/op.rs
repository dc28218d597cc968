//! Effects, fully determined: the words in which a plan speaks to the adapters.
//!
//! Invariant: an operation leaves no choice to who carries it out. Every name, id and port is in it.

use crate::model::balancer::BalancerOp;
use crate::model::container::ContainerSpec;
use crate::model::id::{ContainerId, ImageId, ServerId};
use crate::model::net::HostPort;
use std::collections::BTreeMap;

/// One effect on the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// On the container engine.
    Engine(EngineOp),
    /// On the load balancer.
    Balancer(BalancerOp),
    /// On this process's edge listeners.
    Edge(EdgeOp),
}

/// One effect on the container engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineOp {
    /// Fetch an image: a reference, or `repository@sha256:…`.
    Pull {
        /// What to fetch.
        reference: String,
        /// `--platform`, where the entry says one.
        platform: Option<String>,
    },
    /// Make a container.
    Create(Box<Create>),
    /// Start a container.
    Start(ContainerRef),
    /// Stop a container by its own stop signal and timeout.
    Stop(ContainerRef),
    /// Remove a stopped container.
    Remove {
        /// Which.
        container: ContainerRef,
        /// Anonymous volumes that go with it: those the engine knows as such, and these by name.
        volumes: Option<Vec<String>>,
    },
    /// Give a container another name.
    Rename {
        /// Which.
        container: ContainerRef,
        /// The new name.
        to: String,
    },
    /// Let a frozen container go on.
    Unpause(ContainerRef),
}

/// A container to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Create {
    /// Its name.
    pub name: String,
    /// What it is.
    pub spec: ContainerSpec,
    /// The image's id: pinned, so that a tag that moved meanwhile changes nothing.
    pub image: ImageId,
    /// The MCP port to publish on the host.
    pub publish: Option<Publish>,
    /// Our labels.
    pub labels: BTreeMap<String, String>,
    /// Volumes without a name taken over from the predecessor: volume and path inside.
    pub carried_volumes: Vec<(String, String)>,
}

/// A port published on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Host address; empty for all.
    pub host_ip: String,
    /// Host port; the engine chooses one when `None` (only loopback, for the gateway).
    pub host_port: Option<HostPort>,
    /// Port inside.
    pub container_port: u16,
}

/// Which container an operation means.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ContainerRef {
    /// One that was seen: by id, so that a name that moved cannot hit another one.
    Id {
        /// The engine's id.
        id: ContainerId,
        /// Its name, for people.
        name: String,
    },
    /// One that an earlier action of the same plan makes.
    Planned(String),
}

impl ContainerRef {
    /// What the engine is told.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Id { id, .. } => id.as_str(),
            Self::Planned(name) => name,
        }
    }

    /// The name, for people.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Id { name, .. } | Self::Planned(name) => name,
        }
    }
}

impl Op {
    /// A short sentence for people: `create container mcp-time`.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Engine(op) => op.describe(),
            Self::Balancer(op) => describe_balancer(op),
            Self::Edge(op) => op.describe(),
        }
    }

    /// Its kind in one word, for counting: `create_container`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Engine(op) => match op {
                EngineOp::Pull { .. } => "pull_image",
                EngineOp::Create(_) => "create_container",
                EngineOp::Start(_) => "start_container",
                EngineOp::Stop(_) => "stop_container",
                EngineOp::Remove { .. } => "remove_container",
                EngineOp::Rename { .. } => "rename_container",
                EngineOp::Unpause(_) => "unpause_container",
            },
            Self::Balancer(op) => match op {
                BalancerOp::CreateTargetGroup { .. } => "create_target_group",
                BalancerOp::SetHealthCheck { .. } => "set_health_check",
                BalancerOp::SetDeregistrationDelay { .. } => "set_deregistration_delay",
                BalancerOp::SetTags { .. } => "set_tags",
                BalancerOp::Register { .. } => "register_targets",
                BalancerOp::Deregister { .. } => "deregister_targets",
                BalancerOp::CreateRule { .. } => "create_rule",
                BalancerOp::ModifyRule { .. } => "modify_rule",
                BalancerOp::SetPriorities { .. } => "set_priorities",
                BalancerOp::DeleteRule { .. } => "delete_rule",
                BalancerOp::DeleteTargetGroup { .. } => "delete_target_group",
            },
            Self::Edge(op) => match op {
                EdgeOp::Open { .. } => "open_port",
                EdgeOp::Close { .. } => "close_port",
                EdgeOp::HandOver { .. } => "hand_over",
                EdgeOp::EndLegs { .. } => "end_legs",
                EdgeOp::Sleep { .. } => "sleep",
                EdgeOp::Restart { .. } => "restart",
            },
        }
    }

    /// The part of the world it changes: `engine`, `balancer` or `edge`.
    #[must_use]
    pub const fn part(&self) -> &'static str {
        match self {
            Self::Engine(_) => "engine",
            Self::Balancer(_) => "balancer",
            Self::Edge(_) => "edge",
        }
    }

    /// The container it is for, once that has an id.
    #[must_use]
    pub const fn container(&self) -> Option<&ContainerId> {
        let Self::Engine(op) = self else { return None };
        match op {
            EngineOp::Start(container)
            | EngineOp::Stop(container)
            | EngineOp::Unpause(container)
            | EngineOp::Remove { container, volumes: _ }
            | EngineOp::Rename { container, to: _ } => match container {
                ContainerRef::Id { id, name: _ } => Some(id),
                ContainerRef::Planned(_) => None,
            },
            EngineOp::Pull { .. } | EngineOp::Create(_) => None,
        }
    }

    /// What kind of effect it is: the sign in front of a line of `plan`.
    #[must_use]
    pub const fn sign(&self) -> char {
        match self {
            Self::Engine(EngineOp::Create(_) | EngineOp::Pull { .. })
            | Self::Balancer(
                BalancerOp::CreateTargetGroup { .. }
                | BalancerOp::CreateRule { .. }
                | BalancerOp::Register { .. },
            )
            | Self::Edge(EdgeOp::Open { .. }) => '+',
            Self::Engine(EngineOp::Remove { .. })
            | Self::Balancer(
                BalancerOp::Deregister { .. }
                | BalancerOp::DeleteRule { .. }
                | BalancerOp::DeleteTargetGroup { .. },
            )
            | Self::Edge(EdgeOp::Close { .. }) => '-',
            Self::Engine(_) | Self::Balancer(_) | Self::Edge(_) => '~',
        }
    }
}

/// One line for people about an effect on the load balancer.
fn describe_balancer(op: &BalancerOp) -> String {
    let list = |ports: &[HostPort]| ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match op {
        BalancerOp::CreateTargetGroup { name, .. } => format!("create target group {name}"),
        BalancerOp::SetHealthCheck { group, check } => {
            format!("set health check of {} to {} ({})", group.name(), check.path, check.matcher)
        }
        BalancerOp::SetDeregistrationDelay { group, seconds } => {
            format!("set deregistration delay of {} to {seconds} s", group.name())
        }
        BalancerOp::SetTags { group, .. } => format!("set tags of {}", group.name()),
        BalancerOp::Register { group, target_id, ports } => {
            format!("register {target_id}:{} in {}", list(ports), group.name())
        }
        BalancerOp::Deregister { group, target_id, ports } => {
            format!("deregister {target_id}:{} from {}", list(ports), group.name())
        }
        BalancerOp::CreateRule { priority, paths, group, .. } => {
            format!("create rule {priority} ({}) to {}", paths.join(", "), group.name())
        }
        BalancerOp::ModifyRule { rule, group, .. } => {
            format!("modify rule {} to {}", rule.tail(), group.name())
        }
        BalancerOp::SetPriorities { moves } => format!("set the priority of {} rules", moves.len()),
        BalancerOp::DeleteRule { rule } => format!("delete rule {}", rule.tail()),
        BalancerOp::DeleteTargetGroup { name, .. } => format!("delete target group {name}"),
    }
}

impl EngineOp {
    /// A short sentence for people.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Pull { reference, .. } => format!("pull image {reference}"),
            Self::Create(create) => match &create.publish {
                Some(Publish { host_port: Some(port), container_port, .. }) => {
                    format!("create container {} (port {port} -> {container_port})", create.name)
                }
                _ => format!("create container {}", create.name),
            },
            Self::Start(container) => format!("start container {}", container.name()),
            Self::Stop(container) => format!("stop container {}", container.name()),
            Self::Remove { container, .. } => format!("remove container {}", container.name()),
            Self::Rename { container, to } => format!("rename container {} to {to}", container.name()),
            Self::Unpause(container) => format!("unpause container {}", container.name()),
        }
    }
}

/// One effect on the edge listeners of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EdgeOp {
    /// Listen for a server on its leased port.
    Open {
        /// For whom.
        server: ServerId,
        /// Where.
        port: HostPort,
    },
    /// Stop listening.
    Close {
        /// For whom.
        server: ServerId,
        /// Where.
        port: HostPort,
    },
    /// Send new requests to this container once it answers MCP, let requests under way on the old
    /// one end, then return. Fails when the new one does not answer within its time, and then
    /// nothing has changed. Done again for the container that has the requests it does nothing.
    ///
    /// It holds until the container ends or goes; then the server's own container (the one with
    /// its name) gets the requests again.
    HandOver {
        /// Whose requests.
        server: ServerId,
        /// Who gets them.
        container: ContainerRef,
    },
    /// Take no more requests for these legs, let those under way end, then end the legs and return.
    /// Legs that are not known are success: what is left of them is stopped and removed next.
    EndLegs {
        /// Whose legs.
        server: ServerId,
        /// Their containers.
        legs: Vec<ContainerRef>,
    },
    /// Send no more requests to a server that nobody has used since `uses` were counted, let those end
    /// that came meanwhile, close the connection, end its process if it is one, then return. Fails when
    /// it is used again, and then nothing has changed. Whoever asks from now on waits for it to be
    /// started. Done again it does nothing.
    Sleep {
        /// Which.
        server: ServerId,
        /// What [`crate::model::observed::Use::count`] was when this was decided.
        uses: u64,
    },
    /// End a server's process, with what clients have of their own of it, or let go of the connection to
    /// one elsewhere; then return. It is started, or reached, anew by itself.
    Restart {
        /// Which.
        server: ServerId,
    },
}

impl EdgeOp {
    /// A short sentence for people.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Open { port, .. } => format!("listen on port {port}"),
            Self::Close { port, .. } => format!("stop listening on port {port}"),
            Self::HandOver { container, .. } => format!("send requests to container {}", container.name()),
            Self::EndLegs { legs, .. } => {
                let names: Vec<&str> = legs.iter().map(ContainerRef::name).collect();
                format!("end the sessions of {}", names.join(", "))
            }
            Self::Sleep { server, .. } => format!("let go of {server}, which nobody uses"),
            Self::Restart { server } => format!("restart {server}"),
        }
    }
}
