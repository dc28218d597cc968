//! Opens connections for the gateway: to containers, to processes, to servers elsewhere.
//!
//! Must never stop or remove a container that the loop looks after.

use crate::config::settings::ProcessRunner;
use crate::daemon::first::FirstWords;
use crate::docker::DockerEngine;
use crate::docker::legs::STOP_GRACE;
use crate::gateway::places::{END_WITHIN, HowEnded, Keeper, Opened, Opener, Place, Source};
use crate::gateway::slot::Handshakes;
use crate::mcp::wire::Era;
use crate::model::id::{ContainerId, ImageId, ServerId};
use crate::model::server::{ProcessDecl, ProcessLimits, ServerKind};
use crate::model::session::{LegEra, LegMemory};
use crate::plan::legs::{self, LegName};
use crate::runner::client::{self, Command, Process, Way};
use crate::runner::wire::Limits;
use crate::runner::{self, THIS_PROGRAM};
use crate::service::{Act, Request, Wish};
use crate::upstream::leg::{Greeting, LegIo};
use crate::upstream::open::Remembered;
use crate::upstream::remote;
use crate::world::{Answer, ErrorKind, LegStore, WorldError};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Before SIGTERM, beyond what the connection's end waited for already.
const TERM_AFTER: Duration = Duration::from_millis(500);
/// Between SIGTERM and SIGKILL.
const KILL_AFTER: Duration = Duration::from_secs(2);
/// The daemon's own end waits this long for them.
const ENDED_WITHIN: Duration = Duration::from_secs(8);
const _: () = assert!(
    TERM_AFTER.as_millis() + KILL_AFTER.as_millis() + 2 * runner::KILL_WAIT.as_millis()
        < END_WITHIN.as_millis(),
    "a process ends in time"
);
const _: () = assert!(
    STOP_GRACE.as_millis() + REMOVED_WITHIN.as_millis() <= END_WITHIN.as_millis(),
    "a container ends in time"
);
/// What an engine that is not overloaded takes to kill and remove a container.
const REMOVED_WITHIN: Duration = Duration::from_secs(4);

/// Everything that opening needs.
pub struct Connections {
    /// The engine.
    pub engine: Arc<DockerEngine>,
    /// Streams of containers that were just started.
    pub first: Arc<FirstWords>,
    /// The files as they are in force.
    pub wishes: watch::Receiver<Arc<Wish>>,
    /// The loop, for starting an instance anew.
    pub requests: OnceLock<mpsc::Sender<Request>>,
    /// What starts local processes.
    pub processes: Processes,
    /// This run of the daemon.
    pub run: String,
    /// Counts instances of clients' own.
    pub legs: AtomicU64,
}

impl Connections {
    async fn process(&self, server: &ServerId, decl: &ProcessDecl) -> Result<Opened, WorldError> {
        let ProcessDecl { command, args, env, cwd, limits, fingerprint: _ } = decl;
        let ProcessLimits { memory_bytes, nano_cpus, pids } = *limits;
        let command = Command {
            server: server.to_string(),
            program: command.clone(),
            args: args.clone(),
            env: env.clone(),
            cwd: cwd.clone(),
            limits: Limits { memory_bytes, nano_cpus, pids },
        };
        let (io, process) = self.processes.start(&command).await?;
        Ok(Opened { io, keeper: Some(Box::new(Running(process))), fresh: true })
    }

    async fn own_container(&self, server: &ServerId, image: &ImageId) -> Result<Opened, WorldError> {
        let wish = Arc::clone(&self.wishes.borrow());
        let doing = || format!("making an instance of {server} for one client");
        // One client's own is of the entry, whichever instance it was sent to.
        let Some(entry) = wish.desired.servers.get(&server.server()) else {
            return Err(WorldError::new(doing(), ErrorKind::NotFound, "the file no longer has it"));
        };
        let ServerKind::Container(decl) = &entry.kind else {
            return Err(WorldError::new(doing(), ErrorKind::Invalid, "it is no container"));
        };
        if let Some(why) = legs::exclusive_reason(decl) {
            return Err(WorldError::new(doing(), ErrorKind::Conflict, why));
        }
        let seed = format!("{}-{}-{server}", self.run, self.legs.fetch_add(1, Relaxed));
        let name = LegName::new(&seed, &self.run);
        let create = legs::create(entry, decl, &wish.policy, &name, image);
        let (container, io) = self.engine.start_leg(&create).await?;
        let keeper = Own { engine: Arc::clone(&self.engine), container };
        Ok(Opened { io, keeper: Some(Box::new(keeper)), fresh: true })
    }

    async fn open(&self, server: &ServerId, place: &Place, own: bool) -> Result<Opened, WorldError> {
        match &place.source {
            Source::Process(decl) => self.process(server, decl).await,
            Source::Remote(decl) => Ok(Opened { io: remote::connect_any(decl)?, keeper: None, fresh: true }),
            Source::Container(_, image) if own => self.own_container(server, image).await,
            Source::Container(container, _) => {
                let first = self.first.take(server, container);
                let fresh = first.is_some();
                let io = match first {
                    Some(io) => io,
                    None => self.engine.attach_streams(container).await?,
                };
                Ok(Opened { io, keeper: None, fresh })
            }
            Source::Nowhere => Err(WorldError::new(
                format!("reaching {server}"),
                ErrorKind::NotFound,
                "it has no running container",
            )),
        }
    }
}

impl Opener for Connections {
    fn shared<'a>(&'a self, server: &'a ServerId, place: &'a Place) -> Answer<'a, Opened> {
        Box::pin(self.open(server, place, false))
    }

    fn dedicated<'a>(&'a self, server: &'a ServerId, place: &'a Place) -> Answer<'a, Opened> {
        Box::pin(self.open(server, place, true))
    }

    fn renew<'a>(&'a self, server: &'a ServerId, place: &'a Place) -> Answer<'a, ()> {
        Box::pin(async move {
            if !matches!(place.source, Source::Container(..)) {
                return Ok(());
            }
            let (reply, done) = oneshot::channel();
            let request = Request::Act {
                servers: vec![server.clone()],
                act: Act::Restart,
                by: "the gateway: its process is settled on a protocol version nobody here speaks".to_owned(),
                until: None,
                reply,
            };
            let gone =
                || WorldError::new(format!("restarting {server}"), ErrorKind::Failed, "the loop has ended");
            let Some(requests) = self.requests.get() else { return Err(gone()) };
            requests.send(request).await.map_err(|_ended| gone())?;
            match done.await {
                Ok(Ok(_pass)) => Ok(()),
                Ok(Err(why)) => {
                    Err(WorldError::new(format!("restarting {server}"), ErrorKind::Conflict, why))
                }
                Err(_ended) => Err(gone()),
            }
        })
    }
}

/// What starts local processes.
#[derive(Debug)]
pub struct Processes {
    /// `[service] process_runner`.
    setting: ProcessRunner,
    /// What processes begin with when we start them ourselves.
    base: BTreeMap<String, String>,
    /// We are the installed service: its docker group and credentials are not for processes.
    installed: bool,
    told: AtomicBool,
    running: watch::Sender<usize>,
    /// The processes of each server, by id.
    ids: Arc<Mutex<BTreeMap<String, BTreeSet<u32>>>>,
}

impl Processes {
    /// By the setting, for a daemon with this environment.
    #[must_use]
    pub fn new(setting: ProcessRunner, env: &BTreeMap<String, String>, installed: bool) -> Self {
        let base = runner::base_environment(env);
        Self {
            setting,
            base,
            installed,
            told: AtomicBool::new(false),
            running: watch::Sender::new(0),
            ids: Arc::default(),
        }
    }

    async fn start(&self, command: &Command) -> Result<(LegIo, Process), WorldError> {
        let way = match &self.setting {
            ProcessRunner::At(path) => Way::Service(PathBuf::from(path)),
            // The runner of an installed service is not for a file of somebody's own.
            ProcessRunner::Auto if self.installed && Path::new(runner::SOCKET).exists() => {
                Way::Service(PathBuf::from(runner::SOCKET))
            }
            ProcessRunner::Auto | ProcessRunner::None => self.ourselves(&command.server),
        };
        let (io, process) = client::start(&way, command).await?;
        self.running.send_modify(|running| *running += 1);
        let (over, running) = (process.over(), self.running.clone());
        let (ids, server, id) = (Arc::clone(&self.ids), command.server.clone(), process.id());
        let held = || self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        held().entry(server.clone()).or_default().insert(id);
        tokio::spawn(async move {
            over.await;
            running.send_modify(|running| *running -= 1);
            let mut ids = ids.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(own) = ids.get_mut(&server) {
                own.remove(&id);
            }
            ids.retain(|_, own| !own.is_empty());
        });
        Ok((io, process))
    }

    /// The processes that run now, by the server they are of.
    #[must_use]
    pub fn running(&self) -> BTreeMap<String, BTreeSet<u32>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until those that are being ended are no more. Their keepers see to the rest.
    pub async fn all_ended(&self) {
        let mut running = self.running.subscribe();
        let none = running.wait_for(|running| *running == 0);
        if tokio::time::timeout(ENDED_WITHIN, none).await.is_err() {
            tracing::info!("processes are left to their keepers: {}", *self.running.borrow());
        }
    }

    fn ourselves(&self, server: &str) -> Way {
        if self.installed && !self.told.swap(true, Relaxed) {
            tracing::warn!(
                MCP_SERVER = server,
                "local processes run with the rights of this service, and programs that make code at run time (node) end at once: start mcp-orchestrator-runner.socket"
            );
        }
        Way::Own(PathBuf::from(THIS_PROGRAM), self.base.clone())
    }
}

/// A process of ours.
struct Running(Process);

impl Keeper for Running {
    fn end(self: Box<Self>) -> Pin<Box<dyn Future<Output = Option<HowEnded>> + Send>> {
        Box::pin(async move {
            let client::Outcome { how, clean, oom } = self.0.stop(TERM_AFTER, KILL_AFTER).await;
            Some(HowEnded { how, clean, oom })
        })
    }
}

/// One client's own container.
struct Own {
    engine: Arc<DockerEngine>,
    container: ContainerId,
}

impl Keeper for Own {
    fn container(&self) -> Option<ContainerId> {
        Some(self.container.clone())
    }

    fn end(self: Box<Self>) -> Pin<Box<dyn Future<Output = Option<HowEnded>> + Send>> {
        Box::pin(async move {
            if let Err(error) = self.engine.end_leg(&self.container).await {
                tracing::warn!(MCP_ERROR_CODE = error.kind.code(), CONTAINER_ID = %self.container, "the next pass removes it: {error}");
            }
            None
        })
    }
}

/// Handshakes, in memory and in the state store.
pub struct KeptHandshakes {
    store: Arc<dyn LegStore>,
    held: Mutex<BTreeMap<ContainerId, LegMemory>>,
}

impl KeptHandshakes {
    /// Those of the last run.
    pub async fn load(store: Arc<dyn LegStore>) -> Self {
        let held = match store.load_legs().await {
            Ok(legs) => legs.into_iter().map(|leg| (leg.container.clone(), leg)).collect(),
            Err(error) => {
                tracing::warn!(MCP_ERROR_CODE = error.kind.code(), "servers are greeted anew: {error}");
                BTreeMap::new()
            }
        };
        Self { store, held: Mutex::new(held) }
    }

    fn held(&self) -> std::sync::MutexGuard<'_, BTreeMap<ContainerId, LegMemory>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handshakes for KeptHandshakes {
    fn recall(&self, container: &ContainerId) -> Option<Remembered> {
        let held = self.held();
        let memory = held.get(container)?;
        let era = match memory.era {
            LegEra::Legacy => Era::Legacy,
            LegEra::Modern => Era::Modern,
        };
        Some(Remembered { era, info: RawValue::from_string(memory.info.clone()).ok()? })
    }

    fn keep(&self, container: &ContainerId, greeting: &Greeting) {
        let Some(server) = &greeting.server else { return };
        let memory = LegMemory {
            container: container.clone(),
            era: match greeting.era {
                Era::Legacy => LegEra::Legacy,
                Era::Modern => LegEra::Modern,
            },
            version: greeting.version.clone(),
            info: server.raw.get().to_owned(),
        };
        if self.held().insert(container.clone(), memory.clone()).as_ref() == Some(&memory) {
            return;
        }
        let store = Arc::clone(&self.store);
        tokio::spawn(async move { store.put_leg(&memory).await });
    }

    fn forget(&self, container: &ContainerId) {
        if self.held().remove(container).is_none() {
            return;
        }
        let (store, container) = (Arc::clone(&self.store), container.clone());
        tokio::spawn(async move { store.remove_leg(&container).await });
    }
}
