//! Our mark: the labels on containers and, with the same names, the tags on AWS objects.
//!
//! Invariant: an object without [`MANAGED_BY`] and our [`STACK`] is never changed.

use crate::model::fingerprint::Fingerprint;
use crate::model::id::{ServerId, Stack};
use crate::model::net::HostPort;
use crate::model::server::Transport;
use std::collections::BTreeMap;

/// Label that says who made an object; its value is [`MANAGER`].
pub const MANAGED_BY: &str = "managed-by";
/// Value of [`MANAGED_BY`].
pub const MANAGER: &str = "mcp-orchestrator";
/// Label with the owning stack.
pub const STACK: &str = "io.mcp-orchestrator.stack";
/// Label with the server id.
pub const SERVER: &str = "io.mcp-orchestrator.server";
/// Label of a further instance with its number; the server's label has the id of the entry.
pub const REPLICA: &str = "io.mcp-orchestrator.replica";
/// Label with the part an object plays, see [`Role`].
pub const ROLE: &str = "io.mcp-orchestrator.role";
/// Label with the [`Fingerprint`].
pub const SPEC_HASH: &str = "io.mcp-orchestrator.spec-hash";
/// Label with the leased host port.
pub const PORT: &str = "io.mcp-orchestrator.port";
/// Label with the port inside the container that speaks MCP.
pub const CONTAINER_PORT: &str = "io.mcp-orchestrator.container-port";
/// Label with the transport that was found at creation.
pub const TRANSPORT: &str = "io.mcp-orchestrator.transport";
/// Label with the way requests take: `edge`, or `direct` and the host address published on.
pub const ROUTE: &str = "io.mcp-orchestrator.route";
/// Label with the image digest (or image id) pinned at creation.
pub const IMAGE_DIGEST: &str = "io.mcp-orchestrator.image-digest";
/// Label with the names of the anonymous volumes carried over from predecessors, comma separated.
pub const VOLUMES: &str = "io.mcp-orchestrator.volumes";
/// Label that says the entry had `--rm`: anonymous volumes go with the server.
pub const REMOVE_VOLUMES: &str = "io.mcp-orchestrator.remove-volumes";
/// Label with a memory limit that was raised: the declared one and the one instead, in bytes.
pub const MEMORY_RAISED: &str = "io.mcp-orchestrator.memory-raised";
/// Label of a leg with the run of the daemon it belongs to: it ends with that process.
pub const RUN: &str = "io.mcp-orchestrator.run";

/// The part a container plays for its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The server itself, or the one that is about to take its place.
    Server,
    /// A further instance of a server with `replicas`.
    Replica,
    /// One client's own instance of a stdio server.
    Leg,
}

impl Role {
    /// The label's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Replica => "replica",
            Self::Leg => "leg",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Server, Self::Replica, Self::Leg].into_iter().find(|role| role.as_str() == text)
    }
}

/// What our labels on a container say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The owner.
    pub stack: Stack,
    /// The server it is for, as the id of the instance; `None` when a label of these is missing or no id.
    pub server: Option<ServerId>,
    /// Its part; `None` when unreadable.
    pub role: Option<Role>,
    /// What it was made from; `None` when unreadable, which counts as changed.
    pub fingerprint: Option<Fingerprint>,
    /// Its leased host port.
    pub port: Option<HostPort>,
    /// Its MCP port inside.
    pub container_port: Option<u16>,
    /// Its transport.
    pub transport: Option<Transport>,
    /// The way requests take: `edge`, or `direct ADDRESS`.
    pub route: Option<String>,
    /// The pinned digest or image id.
    pub image_digest: Option<String>,
    /// Anonymous volumes carried over.
    pub volumes: Vec<String>,
    /// `--rm` was on the line.
    pub remove_volumes: bool,
    /// The run of the daemon it ends with; only legs have one.
    pub run: Option<String>,
    /// Its memory limit is higher than declared: the declared one and its own, in bytes.
    pub raised: Option<(i64, i64)>,
}

impl Mark {
    /// Reads our mark; `None` without the two labels that make an object ours (any stack).
    #[must_use]
    pub fn parse(labels: &BTreeMap<String, String>) -> Option<Self> {
        let get = |key: &str| labels.get(key).map(String::as_str);
        if get(MANAGED_BY) != Some(MANAGER) {
            return None;
        }
        let role = get(ROLE).and_then(Role::parse);
        let transport = |t: &str| {
            [Transport::Stdio, Transport::Http, Transport::Sse].into_iter().find(|x| x.as_str() == t)
        };
        Some(Self {
            stack: Stack::new(get(STACK)?).ok()?,
            server: instance(get(SERVER), get(REPLICA), role),
            role,
            fingerprint: get(SPEC_HASH).and_then(Fingerprint::parse),
            port: get(PORT).and_then(|p| p.parse().ok()).and_then(HostPort::new),
            container_port: get(CONTAINER_PORT).and_then(|p| p.parse().ok()),
            transport: get(TRANSPORT).and_then(transport),
            route: get(ROUTE).map(str::to_owned),
            image_digest: get(IMAGE_DIGEST).map(str::to_owned),
            volumes: get(VOLUMES)
                .map(|v| v.split(',').filter(|s| !s.is_empty()).map(str::to_owned).collect())
                .unwrap_or_default(),
            remove_volumes: get(REMOVE_VOLUMES) == Some("true"),
            run: get(RUN).map(str::to_owned),
            raised: get(MEMORY_RAISED).and_then(|text| {
                let (from, to) = text.split_once(' ')?;
                Some((from.parse().ok()?, to.parse().ok()?))
            }),
        })
    }

    /// The labels that [`Mark::parse`] reads back.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<String, String> {
        let Self {
            stack,
            server,
            role,
            fingerprint,
            port,
            container_port,
            transport,
            route,
            image_digest,
            volumes,
            remove_volumes,
            run,
            raised,
        } = self;
        let mut labels = BTreeMap::from([
            (MANAGED_BY.to_owned(), MANAGER.to_owned()),
            (STACK.to_owned(), stack.to_string()),
        ]);
        let mut put = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                labels.insert(key.to_owned(), value);
            }
        };
        put(SERVER, server.as_ref().map(|id| id.server().to_string()));
        let number = server.as_ref().map(ServerId::replica_number);
        put(REPLICA, number.filter(|number| *number > 1).map(|number| number.to_string()));
        put(ROLE, role.map(|r| r.as_str().to_owned()));
        put(SPEC_HASH, fingerprint.as_ref().map(ToString::to_string));
        put(PORT, port.map(|p| p.to_string()));
        put(CONTAINER_PORT, container_port.map(|p| p.to_string()));
        put(TRANSPORT, transport.map(|t| t.as_str().to_owned()));
        put(ROUTE, route.clone());
        put(IMAGE_DIGEST, image_digest.clone());
        put(VOLUMES, (!volumes.is_empty()).then(|| volumes.join(",")));
        put(REMOVE_VOLUMES, remove_volumes.then(|| "true".to_owned()));
        put(RUN, run.clone());
        put(MEMORY_RAISED, raised.map(|(from, to)| format!("{from} {to}")));
        labels
    }
}

/// The instance that labels name. A further one without its number is nobody's: taken for the first it would
/// be removed beside that.
fn instance(server: Option<&str>, number: Option<&str>, role: Option<Role>) -> Option<ServerId> {
    let server = ServerId::new(server?).ok()?;
    match number {
        None => (role != Some(Role::Replica)).then_some(server),
        Some(number) => {
            ServerId::instance(server.replica(number.parse().ok()?).as_str()).ok().filter(|id| *id != server)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Mark, Role};
    use crate::model::fingerprint::{Fingerprint, HashKey};
    use crate::model::id::{ServerId, Stack};
    use crate::model::net::HostPort;
    use crate::model::server::Transport;
    use std::collections::BTreeMap;

    #[test]
    fn a_mark_is_what_its_labels_say() {
        let mark = Mark {
            stack: Stack::new("default").unwrap(),
            server: ServerId::new("time").ok(),
            role: Some(Role::Server),
            fingerprint: Some(Fingerprint::new(&HashKey::new([0; 32]), "a", "b")),
            port: HostPort::new(8000),
            container_port: Some(80),
            transport: Some(Transport::Http),
            route: Some("direct 0.0.0.0".into()),
            image_digest: Some("sha256:ab".into()),
            volumes: vec!["a".into(), "b".into()],
            remove_volumes: true,
            run: Some("4f".into()),
            raised: Some((1, 2)),
        };
        assert_eq!(Mark::parse(&mark.labels()), Some(mark));
    }

    #[test]
    fn a_further_instance_is_known_by_its_number_and_by_no_name() {
        let of = |pairs: &[(&str, &str)]| {
            let ours = [("managed-by", "mcp-orchestrator"), ("io.mcp-orchestrator.stack", "default")];
            let all = ours.iter().chain(pairs).map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            Mark::parse(&all.collect()).expect("ours").server.map(String::from)
        };
        let (server, role) =
            (("io.mcp-orchestrator.server", "time"), ("io.mcp-orchestrator.role", "replica"));
        let number = |text| ("io.mcp-orchestrator.replica", text);
        assert_eq!(of(&[server, role, number("3")]).as_deref(), Some("time-R3"));
        for bad in ["1", "0", "65", "x", "-2", ""] {
            assert_eq!(of(&[server, role, number(bad)]), None, "{bad}");
        }
        assert_eq!(of(&[server, role]), None);
        assert_eq!(of(&[("io.mcp-orchestrator.server", "time-R3"), role]), None);
        let third = ServerId::instance("time-R3").ok();
        let stack = Stack::new("default").unwrap();
        let mark = Mark { server: third, role: Some(Role::Replica), ..empty(stack) };
        let labels = mark.labels();
        assert_eq!(labels.get("io.mcp-orchestrator.server").map(String::as_str), Some("time"));
        assert_eq!(Mark::parse(&labels), Some(mark));
    }

    fn empty(stack: Stack) -> Mark {
        Mark {
            stack,
            server: None,
            role: None,
            fingerprint: None,
            port: None,
            container_port: None,
            transport: None,
            route: None,
            image_digest: None,
            volumes: Vec::new(),
            remove_volumes: false,
            run: None,
            raised: None,
        }
    }

    #[test]
    fn a_name_alone_is_no_mark() {
        assert_eq!(Mark::parse(&BTreeMap::new()), None);
        let half = BTreeMap::from([("managed-by".to_owned(), "mcp-orchestrator".to_owned())]);
        assert_eq!(Mark::parse(&half), None);
    }
}
