//! The gateway as this daemon serves it: made from the settings, and told where the servers are.
//!
//! Must never take a client in that the settings do not: tokens that cannot be read keep the
//! daemon from starting.

use crate::config::settings::{GatewayAuth, Unscoped};
use crate::daemon::edges::ServedEdges;
use crate::daemon::first::FirstWords;
use crate::daemon::handover::Handover;
use crate::daemon::offers::KeptOffers;
use crate::daemon::opener::{Connections, KeptHandshakes, Processes};
use crate::daemon::{Home, places, random_bytes, tls};
use crate::docker::DockerEngine;
use crate::gateway::edges::{EdgeConfig, EdgeListeners, SocketStore};
use crate::gateway::front::GatewayFront;
use crate::gateway::guard::jwt::issuer::{Issuer, Source};
use crate::gateway::guard::jwt::keys::Algorithm;
use crate::gateway::guard::jwt::{Jwt, Rules};
use crate::gateway::guard::key::Key;
use crate::gateway::guard::names::Names;
use crate::gateway::guard::sources::{Block, Sources};
use crate::gateway::guard::tokens::TokenSet;
use crate::gateway::guard::{Auth, Guard, Policy};
use crate::gateway::http::Limits;
use crate::gateway::http::tls::Tls;
use crate::gateway::places::{Opener, Places};
use crate::gateway::room::Room;
use crate::gateway::storm::Storm;
use crate::gateway::toolproxy::{Mount, ToolProxy};
use crate::gateway::{Gateway, sessions, slot};
use crate::host::clock::SystemClock;
use crate::model::id::ServerId;
use crate::model::memory::Lease;
use crate::model::net::HostPort;
use crate::plan::report::Report;
use crate::service::{Handle, Snapshot, Wish};
use crate::store::SqliteStore;
use crate::terminal::failure::{Exit, Failure};
use crate::world::{LegStore, OfferStore, SessionStore};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, atomic::AtomicU64};
use std::time::Duration;
use tokio::sync::watch as channel;

/// Ports of the process before that nobody took by then are closed.
const FORGET_AFTER: Duration = Duration::from_secs(60);

/// What the daemon keeps in its hands of the gateway.
pub(super) struct Serving {
    /// The gateway.
    pub gateway: Arc<Gateway>,
    /// The ports of the servers.
    pub edges: Arc<ServedEdges>,
    /// What answers requests, whatever listener they come by.
    pub front: Arc<GatewayFront>,
    /// Who may connect to the ports of the servers.
    pub sources: Arc<Sources>,
    /// What opens connections; it is told later whom to ask for a new container.
    pub opener: Arc<Connections>,
}

/// The way in for MCP clients, and the ports it is served on; the main listener's certificate comes with
/// the settings.
pub(super) async fn start(
    (home, policy, certificate): (&Home, Policy, Option<Arc<rustls::ServerConfig>>),
    engine: &Arc<DockerEngine>,
    store: &Arc<SqliteStore>,
    wishes: &channel::Sender<Arc<Wish>>,
    handover: &Arc<Handover>,
) -> Result<Serving, Failure> {
    let run = sessions::hex(random_bytes()?.get(..8).unwrap_or_default());
    let opener = Arc::new(Connections {
        engine: Arc::clone(engine),
        first: Arc::new(FirstWords::new(Arc::clone(engine), wishes.subscribe())),
        wishes: wishes.subscribe(),
        requests: OnceLock::new(),
        processes: Processes::new(
            home.settings.service.process_runner.clone(),
            &home.env,
            home.places.installed || home.env.contains_key("STATE_DIRECTORY"),
        ),
        run: run.clone(),
        legs: AtomicU64::new(0),
    });
    let memory = KeptHandshakes::load(Arc::clone(store) as Arc<dyn LegStore>).await;
    let shared = slot::Shared {
        opener: Arc::clone(&opener) as Arc<dyn Opener>,
        memory: Arc::new(memory),
        offers: Arc::new(KeptOffers::load(Arc::clone(store) as Arc<dyn OfferStore>).await),
        clock: Arc::new(SystemClock),
        eras: Mutex::default(),
        news: Arc::default(),
        starts: Room::new(home.parallel()),
        storm: Storm::default(),
    };
    let kept = store.load().await;
    let gateway = Gateway::new(shared, Arc::clone(store) as Arc<dyn SessionStore>, random_bytes()?);
    opener.first.tell(&gateway);
    gateway.set_probes_max(home.settings.health.max_parallel_probes);
    match kept {
        Ok(sessions) => gateway.sessions().restore(sessions),
        Err(error) => {
            tracing::warn!(MCP_ERROR_CODE = error.kind.code(), "clients must begin new sessions: {error}");
        }
    }
    let guard = Arc::new(Guard::new(policy).with_clock(Arc::new(SystemClock)));
    let tls = Arc::new(Tls::default());
    tls.set(certificate);
    if let Some(warning) = tls::warning(home) {
        tracing::warn!(MCP_ERROR_CODE = warning.code, "{warning}");
    }
    let tools = Arc::new(ToolProxy::new(tool_key(home)));
    tools.set_mount(tool_mount(home));
    tools.set_pages(Arc::new(crate::panel::tools::ToolPages));
    let (gateway_of, beside) = (Arc::clone(&gateway), OnceLock::new());
    let front = Arc::new(GatewayFront { gateway: gateway_of, guard, tools, beside, tls });
    let sources = Arc::new(Sources::of(&allowed_sources(home)));
    let config = EdgeConfig {
        host: home.settings.gateway_host(home.settings.balancer_on()),
        limits: Limits::default(),
        sources: Arc::clone(&sources),
        meter: Arc::default(),
    };
    let answers = Arc::clone(&front);
    let before = handover.edges(config.host).await;
    let kept = Arc::clone(handover) as Arc<dyn SocketStore>;
    let listeners = EdgeListeners::new(config, move |_server| Arc::clone(&answers)).kept_in(kept);
    listeners.adopt(before);
    let edges = ServedEdges { listeners, gateway: Arc::clone(&gateway), engine: Arc::clone(engine), run };
    Ok(Serving { gateway, edges: Arc::new(edges), front, sources, opener })
}

/// With `allowed_sources = auto` behind a load balancer: the blocks of this very network, once the
/// instance's metadata names them.
pub(super) async fn learn_sources(home: Home, sources: Arc<Sources>) {
    let settings = &home.settings.gateway.allowed_sources;
    if !settings.auto || !home.settings.balancer_on() {
        return;
    }
    match home.vpc_blocks().await {
        Ok(found) => {
            let named = settings.blocks.iter().map(ToString::to_string).chain(found);
            let blocks: Vec<Block> =
                Block::loopback().into_iter().chain(named.filter_map(|block| Block::parse(&block))).collect();
            sources.set(&blocks);
        }
        Err(error) => tracing::info!(
            MCP_ERROR_CODE = error.kind.code(),
            "edge ports are open to private networks, because this one's blocks are not known: {error}"
        ),
    }
}

/// `[openapi] api_key`.
pub(super) fn tool_key(home: &Home) -> Option<Key> {
    home.settings.openapi.api_key.as_ref().and_then(|key| Key::new(key.expose()))
}

/// `[openapi] path_prefix` and `root_path`.
pub(super) fn tool_mount(home: &Home) -> Mount {
    let settings = &home.settings.openapi;
    let path = |path: &Option<String>| path.clone().unwrap_or_default();
    Mount { prefix: path(&settings.path_prefix), root: path(&settings.root_path) }
}

/// `[gateway] auth`, `tokens_file` and `allowed_origins`, and the SHA-256 of the tokens.
pub(super) fn guard_policy(home: &Home) -> Result<(Policy, Option<String>), Failure> {
    let settings = &home.settings.gateway;
    // Where names are told at all, the one that clients come by is one of them.
    let public = settings.public_url.iter().filter(|_| !settings.allowed_origins.is_empty());
    let names = Names::new(settings.allowed_origins.iter().chain(public).map(String::as_str));
    let (auth, hash) = match settings.auth {
        GatewayAuth::None => (Auth::None, None),
        GatewayAuth::Bearer => {
            let (tokens, hash) = tokens(home)?;
            (Auth::Tokens(tokens), Some(hash))
        }
        GatewayAuth::Jwt => (Auth::Jwt(Arc::new(signed(home))), None),
    };
    Ok((Policy { names, auth }, hash))
}

/// What tokens of an issuer must be like; nobody is asked for its keys yet.
fn signed(home: &Home) -> Jwt {
    let (settings, public_url) = (&home.settings.jwt, home.settings.gateway.public_url.clone());
    let rules = Rules {
        issuer: settings.issuer.clone().unwrap_or_default(),
        audiences: settings.audience.clone(),
        algorithms: settings.algorithms.iter().filter_map(|name| Algorithm::named(name)).collect(),
        leeway: settings.leeway,
        required_scopes: settings.required_scopes.clone(),
        scope_claims: settings.scope_claims.clone(),
        scope_prefix: settings.scope_prefix.clone(),
        unscoped: settings.unscoped == Unscoped::All,
        public_url,
    };
    let source = Source {
        issuer: rules.issuer.clone(),
        jwks_url: settings.jwks_url.clone(),
        keep: Duration::from_millis(settings.jwks_cache.0),
    };
    Jwt::new(rules, Issuer::new(source))
}

/// The tokens that clients come with.
fn tokens(home: &Home) -> Result<(TokenSet, String), Failure> {
    let named = home.settings.gateway.tokens_file.clone().map(PathBuf::from);
    let credential =
        || home.env.get("CREDENTIALS_DIRECTORY").map(|dir| Path::new(dir).join("gateway-tokens"));
    let Some(path) = named.or_else(credential) else {
        return Err(Failure::new(Exit::Usage, "[gateway] auth = bearer has no tokens")
            .hint("set [gateway] tokens_file, or give the systemd credential gateway-tokens"));
    };
    let text = std::fs::read_to_string(&path).map_err(|error| {
        Failure::new(Exit::Usage, format!("reading tokens from {}", path.display())).cause(error.to_string())
    })?;
    let tokens = TokenSet::parse(&text).map_err(|problems| {
        let lines: Vec<String> =
            problems.iter().map(|problem| format!("{}:{problem}", path.display())).collect();
        Failure::new(Exit::Usage, format!("the tokens cannot be used\n{}", lines.join("\n")))
    })?;
    Ok((tokens, super::sha256(text.as_bytes())))
}

/// Who may connect to edge ports.
pub(super) fn allowed_sources(home: &Home) -> Vec<Block> {
    let settings = &home.settings.gateway.allowed_sources;
    let mut blocks: Vec<Block> =
        settings.blocks.iter().filter_map(|cidr| Block::parse(&cidr.to_string())).collect();
    if settings.auto {
        blocks.extend(Block::loopback());
        if home.settings.balancer_on() {
            // Until the instance's own network is known: what a VPC may be made of.
            let private = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"];
            blocks.extend(private.iter().filter_map(|block| Block::parse(block)));
        }
    }
    blocks
}

/// Serves the ports of the process before again, for the servers that the ledger says, before the
/// world was looked at: their clients wait in the gateway instead of the sockets' queues. What the
/// first pass does not want it closes.
pub(super) fn open_again(edges: &ServedEdges, leases: &BTreeMap<ServerId, Lease>, wish: &Wish) {
    let before: BTreeSet<HostPort> = edges.listeners.adopted().into_iter().collect();
    if before.is_empty() {
        return;
    }
    edges.gateway.set_places(&places::all(&wish.desired, &Report::default(), &Places::new()));
    for (id, lease) in leases.iter().filter(|(_, lease)| before.contains(&lease.port)) {
        if let Err(error) = edges.listeners.open(id, lease.port) {
            tracing::warn!(MCP_SERVER = %id, MCP_PORT = %lease.port, MCP_ERROR_CODE = error.kind.code(), "{error}");
        }
    }
}

/// Closes ports of the process before that no server was given: once all is settled, or when that
/// takes long.
pub(super) async fn forget_others(edges: Arc<ServedEdges>, mut snapshots: channel::Receiver<Arc<Snapshot>>) {
    let settled = snapshots.wait_for(|snapshot| snapshot.settled);
    // What it gives must not be held on to: it locks the snapshot.
    let _in_time = tokio::time::timeout(FORGET_AFTER, settled).await.is_ok();
    edges.listeners.forget_adopted().await;
}

/// Tells the gateway where the servers are, whenever the file or the last pass says something new;
/// and wakes the loop whenever a connection to a server begins or ceases to answer.
pub(super) async fn follow_places(
    gateway: Arc<Gateway>,
    mut wishes: channel::Receiver<Arc<Wish>>,
    handle: Handle,
) {
    let mut before = Places::new();
    let mut snapshots = handle.snapshot.clone();
    let news = Arc::clone(&gateway.shared().news);
    loop {
        let wish = Arc::clone(&wishes.borrow_and_update());
        let snapshot = Arc::clone(&snapshots.borrow_and_update());
        before = places::all(&wish.desired, &snapshot.report, &before);
        gateway.set_places(&before);
        // The generation that the last pass used: its containers are the ones behind the places.
        gateway.set_generation(snapshot.generation);
        gateway.shared().storm.tell(wish.policy.restarts_per_minute_max, &snapshot.unwanted);
        gateway.set_drained(snapshot.report.drained.is_some());
        let changed = loop {
            tokio::select! {
                changed = wishes.changed() => break changed,
                changed = snapshots.changed() => break changed,
                () = news.notified() => handle.wake(),
            }
        };
        if changed.is_err() {
            return;
        }
    }
}
