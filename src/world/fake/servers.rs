//! Entries of the files, made without the parser: a small description of each, turned into what the
//! configuration would mean by it.
//!
//! Must stay the only place here that builds a declaration, so that a change of
//! [`crate::model::container`] meets one function.

use crate::model::balancer::BalancerSeen;
use crate::model::container::{
    Bind, ContainerSpec, EnvVar, HostPorts, PortProtocol, PublishedPort, Resources,
};
use crate::model::fingerprint::{Fingerprint, HashKey};
use crate::model::id::{SectionId, ServerId, Stack};
use crate::model::mark::{Mark, Role};
use crate::model::net::HostPort;
use crate::model::observed::{Observed, Seen};
use crate::model::server::{
    ContainerDecl, HealthPolicy, McpPort, ProcessDecl, ProcessLimits, PullPolicy, RemoteDecl, RestartPolicy,
    RouteWish, Server, ServerKind, Transport, TransportWish,
};
use crate::model::time::Span;
use std::collections::{BTreeMap, BTreeSet};

/// Where HTTP images listen.
pub(crate) const HTTP_PORT: u16 = 8080;

/// What kind of server an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// `docker run -i …`.
    Stdio,
    /// `docker run -p 8080 …`.
    Http,
    /// `docker run …` of an image that exposes a port.
    HttpByImage,
    /// `docker run -p PORT:8080 …`.
    HttpFixed(u16),
    /// `npx …`.
    Process,
    /// `url`.
    Remote,
}

/// An entry of the files, described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name, which is its id.
    pub name: String,
    /// Its kind.
    pub kind: EntryKind,
    /// Image reference, for containers.
    pub image: String,
    /// Value of an environment variable, which counts as secret.
    pub env: u32,
    /// `-v /data`: a volume without a name.
    pub anonymous_volume: bool,
    /// `-v /srv/NAME:/srv`, writable.
    pub bind: bool,
    /// `-p PORT:9000`: a plain port.
    pub plain_port: Option<u16>,
    /// `--rm`.
    pub remove_volumes: bool,
    /// Not `disabled`.
    pub enabled: bool,
    /// `orchestrator.restart`.
    pub restart: RestartPolicy,
    /// `--pull`.
    pub pull: PullPolicy,
    /// `orchestrator.route`.
    pub route: RouteWish,
    /// `orchestrator.startOnDemand`.
    pub on_demand: bool,
    /// `orchestrator.idleTimeout`.
    pub idle_timeout: Option<Span>,
    /// The entry has a problem.
    pub broken: bool,
    /// The section it is in.
    pub section: Option<SectionId>,
    /// Sections it waits for.
    pub depends_on: Vec<SectionId>,
    /// `--memory`, in bytes; 0: none.
    pub memory: i64,
    /// `orchestrator.replicas`.
    pub replicas: u32,
}

impl Entry {
    /// A sound entry with nothing special about it.
    #[must_use]
    pub fn new(name: &str, kind: EntryKind, image: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            image: image.to_owned(),
            env: 0,
            anonymous_volume: false,
            bind: false,
            plain_port: None,
            remove_volumes: false,
            enabled: true,
            restart: RestartPolicy::default(),
            pull: PullPolicy::Missing,
            route: RouteWish::Auto,
            on_demand: false,
            idle_timeout: None,
            broken: false,
            section: None,
            depends_on: Vec::new(),
            memory: 0,
            replicas: 1,
        }
    }
}

/// The key under which all fingerprints of the fake world are made.
#[must_use]
pub fn key() -> HashKey {
    HashKey::new([42; 32])
}

/// The declaration of a container entry.
#[must_use]
pub fn container_spec(entry: &Entry) -> ContainerSpec {
    let published = |port| PublishedPort {
        container: PortProtocol { port: 9000, ..PortProtocol::default() },
        host_ip: None,
        host: HostPorts::One(port),
    };
    let bind = || Bind { source: format!("/srv/{}", entry.name), target: "/srv".to_owned(), options: None };
    ContainerSpec {
        image: entry.image.clone(),
        env: vec![EnvVar::new("TOKEN", entry.env.to_string())],
        open_stdin: entry.kind == EntryKind::Stdio,
        anonymous_volumes: entry.anonymous_volume.then(|| "/data".to_owned()).into_iter().collect(),
        binds: entry.bind.then(bind).into_iter().collect(),
        published: entry.plain_port.map(published).into_iter().collect(),
        resources: Resources { memory_bytes: entry.memory, ..Resources::default() },
        ..ContainerSpec::default()
    }
}

/// What a look finds on a host with nothing on it, where nothing is served and no load balancer is configured.
#[must_use]
pub fn nothing_seen() -> Observed {
    Observed {
        containers: Seen::Known(Vec::new()),
        images: BTreeMap::new(),
        details: BTreeMap::new(),
        reachable: BTreeMap::new(),
        free_ports: Some(Seen::Known(Vec::new())),
        balancer: BalancerSeen::Off("no listener configured".to_owned()),
        busy: BTreeSet::new(),
        edges: None,
        contacts: None,
        health: BTreeMap::new(),
        restarts: Vec::new(),
        ends: BTreeMap::new(),
        words: BTreeMap::new(),
        uses: BTreeMap::new(),
        run: None,
    }
}

/// What the labels of a server's own container behind its edge listener say, made from this declaration.
#[must_use]
pub fn edge_mark(stack: Stack, id: &ServerId, decl: &ContainerDecl) -> Mark {
    Mark {
        stack,
        server: Some(id.clone()),
        role: Some(Role::Server),
        fingerprint: Some(decl.fingerprint.clone()),
        port: None,
        container_port: None,
        transport: Some(Transport::Stdio),
        route: Some("edge".to_owned()),
        image_digest: None,
        volumes: Vec::new(),
        remove_volumes: false,
        run: None,
        raised: None,
    }
}

/// What the entry means; `None` when its name is no id.
#[must_use]
pub fn server(entry: &Entry) -> Option<Server> {
    let local = entry.kind != EntryKind::Remote;
    let sleeps = local && (entry.on_demand || entry.idle_timeout.is_some());
    Some(Server {
        id: ServerId::new(&entry.name).ok()?,
        name: entry.name.clone(),
        section: entry.section.clone(),
        enabled: entry.enabled,
        kind: kind(entry),
        transport: TransportWish::Auto,
        route: entry.route,
        gateway_reasons: gateway_reasons(entry, sleeps),
        replicas: replicas(entry),
        sharing: crate::model::server::Sharing::Auto,
        request_timeout: None,
        tools: crate::model::access::ToolPolicy::default(),
        forward_headers: Vec::new(),
        openapi_path: None,
        traffic: crate::model::traffic::TrafficPolicy::default(),
        http_path: None,
        restart: entry.restart.clone(),
        health: HealthPolicy::default(),
        pull: entry.pull,
        on_demand: local && entry.on_demand,
        idle_timeout: entry.idle_timeout.filter(|_| local),
        priority: 0,
        depends_on: entry.depends_on.clone(),
        notes: Vec::new(),
    })
}

/// A second one beside a fixed port or a server elsewhere is refused before.
fn replicas(entry: &Entry) -> u32 {
    let once =
        matches!(entry.kind, EntryKind::Remote | EntryKind::HttpFixed(_)) || entry.plain_port.is_some();
    if once { 1 } else { entry.replicas }
}

fn gateway_reasons(entry: &Entry, sleeps: bool) -> Vec<String> {
    let several = (replicas(entry) > 1).then(|| format!("replicas = {}", entry.replicas));
    sleeps.then(|| "startOnDemand".to_owned()).into_iter().chain(several).collect()
}

fn kind(entry: &Entry) -> ServerKind {
    let fingerprint = |text: &str| {
        let secret = format!("{text} TOKEN={}", entry.env);
        Fingerprint::new(&key(), text, &secret)
    };
    let port = |host_port| Some(McpPort { container_port: HTTP_PORT, host_port, host_ip: None });
    let mcp_port = match entry.kind {
        EntryKind::Http => port(None),
        EntryKind::HttpFixed(fixed) => port(HostPort::new(fixed)),
        EntryKind::Process => {
            return ServerKind::Process(ProcessDecl {
                command: "npx".to_owned(),
                args: vec![entry.image.clone()],
                env: BTreeMap::from([("TOKEN".to_owned(), entry.env.to_string())]),
                cwd: None,
                limits: ProcessLimits::default(),
                fingerprint: fingerprint(&entry.image),
            });
        }
        EntryKind::Remote => {
            let url = format!("https://{}.example/mcp", entry.image.replace([':', '/'], "-"));
            let fingerprint = fingerprint(&url);
            return ServerKind::Remote(RemoteDecl { url, kind: None, headers: BTreeMap::new(), fingerprint });
        }
        EntryKind::Stdio | EntryKind::HttpByImage => None,
    };
    let spec = container_spec(entry);
    let text = format!(
        "{} {:?} {} {} {:?} {}",
        entry.image, entry.kind, entry.anonymous_volume, entry.bind, entry.plain_port, entry.memory
    );
    ServerKind::Container(Box::new(ContainerDecl {
        spec,
        interactive: entry.kind == EntryKind::Stdio,
        mcp_port,
        remove_volumes: entry.remove_volumes,
        fingerprint: fingerprint(&text),
    }))
}
