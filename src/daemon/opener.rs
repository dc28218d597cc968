//! Opens connections for the gateway: to containers, to processes, to servers elsewhere.
//!
//! Must never stop or remove a container that the loop looks after.

use crate::docker::DockerEngine;
use crate::gateway::places::{Keeper, Opened, Opener, Place, Source};
use crate::gateway::slot::Handshakes;
use crate::mcp::wire::Era;
use crate::model::id::{ContainerId, ImageId, ServerId};
use crate::model::server::{ProcessDecl, ServerKind};
use crate::model::session::{LegEra, LegMemory};
use crate::plan::legs::{self, LegName};
use crate::service::{Act, Request, Wish};
use crate::upstream::leg::Greeting;
use crate::upstream::open::Remembered;
use crate::upstream::process::{self, Command, Process};
use crate::upstream::remote;
use crate::world::{Answer, ErrorKind, LegStore, WorldError};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Before SIGTERM, beyond what the connection's end waited for already. With that and
/// [`KILL_AFTER`] it stays within what the daemon has for its own end.
const TERM_AFTER: Duration = Duration::from_millis(500);
/// Between SIGTERM and SIGKILL.
const KILL_AFTER: Duration = Duration::from_secs(2);

/// Everything that opening needs.
pub struct Connections {
    /// The engine.
    pub engine: Arc<DockerEngine>,
    /// The files as they are in force.
    pub wishes: watch::Receiver<Arc<Wish>>,
    /// The loop, for starting an instance anew.
    pub requests: OnceLock<mpsc::Sender<Request>>,
    /// The environment that processes begin with.
    pub env: BTreeMap<String, String>,
    /// This run of the daemon.
    pub run: String,
    /// Counts instances of clients' own.
    pub legs: AtomicU64,
}

impl Connections {
    fn process(&self, decl: &ProcessDecl) -> Result<Opened, WorldError> {
        let mut env = self.env.clone();
        env.extend(decl.env.clone());
        let command = Command {
            program: decl.command.clone(),
            args: decl.args.clone(),
            env,
            cwd: decl.cwd.as_ref().map(PathBuf::from),
        };
        let (io, process) = process::spawn(&command)?;
        Ok(Opened { io, keeper: Some(Box::new(Running(process))), fresh: true })
    }

    async fn own_container(&self, server: &ServerId, image: &ImageId) -> Result<Opened, WorldError> {
        let wish = Arc::clone(&self.wishes.borrow());
        let doing = || format!("making an instance of {server} for one client");
        let Some(entry) = wish.desired.servers.get(server) else {
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
            Source::Process(decl) => self.process(decl),
            Source::Remote(decl) => Ok(Opened { io: remote::connect_any(decl)?, keeper: None, fresh: true }),
            Source::Container(_, image) if own => self.own_container(server, image).await,
            Source::Container(container, _) => {
                Ok(Opened { io: self.engine.attach_streams(container).await?, keeper: None, fresh: false })
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

/// A process of ours.
struct Running(Process);

impl Keeper for Running {
    fn end(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let _how = self.0.stop(TERM_AFTER, KILL_AFTER).await;
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

    fn end(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            if let Err(error) = self.engine.end_leg(&self.container).await {
                tracing::warn!(MCP_ERROR_CODE = error.kind.code(), CONTAINER_ID = %self.container, "the next pass removes it: {error}");
            }
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
