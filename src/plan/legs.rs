//! A second instance of a stdio server for one client alone: what container that is, and which
//! declarations cannot have one.
//!
//! It is made from the same declaration and the same image as the server's own container, with the
//! same environment, so that a client sees no other server. What exists once on a host or in a
//! network stays with the server's own container: published ports, fixed addresses, names in a
//! network's DNS (a second holder of an alias would be sent half of the connections).
//!
//! Must never decide that there is to be one: sessions come and go between two passes, so whoever
//! keeps them asks.

use crate::model::fingerprint::sha256_hex;
use crate::model::id::ImageId;
use crate::model::mark::{Mark, Role};
use crate::model::op::Create;
use crate::model::policy::Policy;
use crate::model::server::{ContainerDecl, Server, Transport};
use crate::plan::draft::exclusive;
use crate::plan::fleet::main_name;

/// Hex digits that tell the instances of one server from each other.
const HASH_LEN: usize = 8;

/// Which instance of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegName {
    /// Eight hex digits, the end of the container's name.
    pub hash8: String,
    /// The run of the daemon that it ends with ([`crate::model::mark::RUN`]).
    pub run: String,
}

impl LegName {
    /// The name for whom `seed` tells from all others (a session's id, say); nothing of the seed
    /// can be read off it.
    #[must_use]
    pub fn new(seed: &str, run: &str) -> Self {
        Self { hash8: sha256_hex(seed, HASH_LEN), run: run.to_owned() }
    }
}

/// The container of one client's own instance of `server`, declared by `decl`, made from `image`:
/// the image of the server's own container.
#[must_use]
pub fn create(
    server: &Server,
    decl: &ContainerDecl,
    policy: &Policy,
    leg: &LegName,
    image: &ImageId,
) -> Create {
    let mark = Mark {
        stack: policy.stack.clone(),
        server: Some(server.id.clone()),
        role: Some(Role::Leg),
        fingerprint: Some(decl.fingerprint.clone()),
        port: None,
        container_port: None,
        transport: Some(Transport::Stdio),
        route: Some("edge".to_owned()),
        image_digest: Some(image.0.clone()),
        volumes: Vec::new(),
        // It alone has them, and nobody can come back to them.
        remove_volumes: true,
        run: Some(leg.run.clone()),
        raised: None,
    };
    let mut spec = decl.spec.clone();
    spec.open_stdin = true;
    spec.published.clear();
    spec.publish_all = false;
    for network in &mut spec.networks {
        network.aliases.clear();
        network.link_local_ips.clear();
        (network.ipv4, network.ipv6, network.mac_address) = (None, None, None);
    }
    Create {
        name: format!("{}-L{}", main_name(policy, &server.id), leg.hash8),
        spec,
        image: image.clone(),
        publish: None,
        labels: mark.labels(),
        carried_volumes: Vec::new(),
    }
}

/// Why a declaration cannot have a second instance beside the first: both would write to one place,
/// or what the line asks for exists once. `None` when it can.
///
/// Does not know of `allow: ["sharedWrites"]`, which is the entry's word that several may write to
/// one mount.
#[must_use]
pub fn exclusive_reason(decl: &ContainerDecl) -> Option<String> {
    let why = exclusive(&decl.spec)?;
    Some(why.replacen("old and new", "two instances", 1))
}

#[cfg(test)]
mod tests {
    use super::{LegName, create, exclusive_reason};
    use crate::model::balancer::BalancerPolicy;
    use crate::model::container::{
        Bind, ContainerSpec, EnvVar, HostPorts, NetworkAttachment, PortProtocol, PublishedPort,
    };
    use crate::model::fingerprint::{Fingerprint, HashKey};
    use crate::model::id::{ImageId, ServerId, Stack};
    use crate::model::mark::{Mark, RUN, Role};
    use crate::model::net::{HostPort, PortRange};
    use crate::model::policy::{Ending, Policy};
    use crate::model::server::{
        ContainerDecl, HealthPolicy, PullPolicy, RestartPolicy, RouteWish, Server, ServerKind, TransportWish,
    };
    use crate::model::time::Span;

    fn declared(change: impl FnOnce(&mut ContainerSpec)) -> ContainerDecl {
        let mut spec =
            ContainerSpec { image: "time:1".to_owned(), open_stdin: true, ..ContainerSpec::default() };
        change(&mut spec);
        let fingerprint = Fingerprint::new(&HashKey::new([1; 32]), "a", "b");
        ContainerDecl { spec, interactive: true, mcp_port: None, remove_volumes: false, fingerprint }
    }

    fn server(id: &ServerId, decl: &ContainerDecl) -> Server {
        Server {
            id: id.clone(),
            name: id.to_string(),
            section: None,
            enabled: true,
            kind: ServerKind::Container(Box::new(decl.clone())),
            transport: TransportWish::Auto,
            route: RouteWish::Auto,
            gateway_reasons: Vec::new(),
            sharing: crate::model::server::Sharing::Auto,
            request_timeout: None,
            tools: crate::model::access::ToolPolicy::default(),
            forward_headers: Vec::new(),
            openapi_path: None,
            replicas: 1,
            depends_on: Vec::new(),
            traffic: crate::model::traffic::TrafficPolicy::default(),
            http_path: None,
            restart: RestartPolicy::default(),
            health: HealthPolicy::default(),
            pull: PullPolicy::Missing,
            on_demand: false,
            idle_timeout: None,
            priority: 0,
            notes: Vec::new(),
        }
    }

    fn policy() -> Policy {
        let port = |number| HostPort::new(number).expect("a port");
        Policy {
            stack: Stack::new("default").expect("a stack"),
            name_prefix: "mcp-".to_owned(),
            ports: PortRange { start: port(8000), end: port(8100) },
            host: "0.0.0.0".to_owned(),
            allow_mass_delete: false,
            replacements_max: 2,
            rollout_failures_max: 3,
            restarts_per_minute_max: 10,
            dependency_wait: Span::secs(30),
            settle: Span::secs(2),
            ending: Ending::None,
            balancer: BalancerPolicy {
                target_type: "instance".to_owned(),
                deregistration_delay: Span::secs(30),
                gc_grace: Span::secs(30),
                priority_start: 100,
                priority_end: 400,
                target_groups_max: 100,
                shared_port: None,
                leaving: false,
            },
        }
    }

    #[test]
    fn a_leg_is_the_server_without_what_exists_once() {
        let id = ServerId::new("time").expect("an id");
        let port = PublishedPort {
            container: PortProtocol { port: 80, ..PortProtocol::default() },
            host_ip: None,
            host: HostPorts::One(8080),
        };
        let decl = declared(|spec| {
            spec.env = vec![EnvVar::new("TOKEN", "secret")];
            spec.hostname = Some("h1".to_owned());
            spec.labels.insert("team".to_owned(), "blue".to_owned());
            spec.log_driver = Some("none".to_owned());
            spec.open_stdin = false;
            spec.published = vec![port];
            spec.publish_all = true;
            spec.networks = vec![NetworkAttachment {
                aliases: vec!["db".to_owned()],
                ipv4: Some("10.0.0.9".to_owned()),
                ipv6: Some("fd00::9".to_owned()),
                link_local_ips: vec!["169.254.1.1".to_owned()],
                mac_address: Some("02:42:0a:00:00:09".to_owned()),
                gateway_priority: 3,
                ..NetworkAttachment::named("tools")
            }];
        });
        let (server, policy) = (server(&id, &decl), policy());
        let leg = LegName::new("a session", "run7");
        let image = ImageId("sha256:ab".to_owned());
        let made = create(&server, &decl, &policy, &leg, &image);
        assert_eq!(made.name, format!("{}time-L{}", policy.name_prefix, leg.hash8));
        let mut same = decl.spec.clone();
        same.open_stdin = true;
        same.published.clear();
        same.publish_all = false;
        same.networks = vec![NetworkAttachment { gateway_priority: 3, ..NetworkAttachment::named("tools") }];
        assert_eq!(made.spec, same, "nothing else differs");
        assert_eq!((made.publish, made.carried_volumes, made.image), (None, Vec::new(), image));
        let mark = Mark::parse(&made.labels).expect("a mark");
        assert_eq!((mark.role, mark.server), (Some(Role::Leg), Some(id)));
        assert_eq!((mark.port, mark.stack), (None, policy.stack));
        assert_eq!(mark.fingerprint, Some(decl.fingerprint));
        assert_eq!(made.labels.get(RUN).map(String::as_str), Some("run7"));
    }

    #[test]
    fn names_tell_seeds_apart_and_show_nothing_of_them() {
        let name = |seed| LegName::new(seed, "r").hash8;
        assert_eq!(name("a"), name("a"));
        assert_ne!(name("a"), name("b"));
        let hash = name("0123456789abcdef");
        assert!(hash.len() == 8 && hash.bytes().all(|b| b.is_ascii_hexdigit()));
        assert!(!"0123456789abcdef".contains(&hash));
    }

    #[test]
    fn what_can_be_written_by_two_has_one_instance() {
        assert_eq!(exclusive_reason(&declared(|_| ())), None);
        let bind = |options: Option<&str>| Bind {
            source: "data".to_owned(),
            target: "/data".to_owned(),
            options: options.map(str::to_owned),
        };
        let of = |bind| exclusive_reason(&declared(|spec| spec.binds = vec![bind]));
        assert_eq!(of(bind(Some("ro"))), None);
        assert_eq!(of(bind(None)).as_deref(), Some("two instances would share a writable mount"));
        let fixed = |spec: &mut ContainerSpec| {
            let host = HostPorts::One(9000);
            spec.published = vec![PublishedPort { host, ..PublishedPort::default() }];
        };
        let why = exclusive_reason(&declared(fixed));
        assert_eq!(why.as_deref(), Some("two instances would publish the same host port"));
    }
}
