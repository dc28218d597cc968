//! The first words of a stdio container: attached to before it is started, so that what it says before a
//! look finds it running is not lost, above all why it ended at once. The engine keeps no log of it, since
//! its output is protocol traffic.
//!
//! ```text
//! start of a server's own container   attached, then started; the streams are held
//! a look finds it running             the gateway takes them: nobody ever spoke over them
//! nobody has taken them in time       what was said goes to the server's log, and they are let go
//! ```
//! Must never hold streams for longer than [`HOLD`] and [`READ_WITHIN`]: the engine cannot remove a
//! container whose streams somebody holds and does not read. A container that cannot be attached to is
//! started all the same.

use crate::docker::DockerEngine;
use crate::gateway::Gateway;
use crate::model::id::{ContainerId, ServerId};
use crate::model::observed::{Container, Details, Image, LogAsk, LogLine};
use crate::model::op::{ContainerRef, EngineOp};
use crate::model::server::{Server, Transport};
use crate::plan::fleet::main_name;
use crate::service::Wish;
use crate::upstream::leg::LegIo;
use crate::upstream::table::Diagnostic;
use crate::world::{Answer, Engine, WorldError};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::watch;

/// How long streams are held for the gateway to take.
const HOLD: Duration = Duration::from_secs(2);
/// How long is read of what nobody took.
const READ_WITHIN: Duration = Duration::from_millis(500);
/// Bytes read of each stream of what nobody took.
const READ_MAX: u64 = 64 * 1024;
/// Streams held at once.
const HELD_MAX: usize = 256;

/// Streams of containers that were started and not taken yet, by server.
pub struct FirstWords {
    engine: Arc<DockerEngine>,
    wishes: watch::Receiver<Arc<Wish>>,
    held: Mutex<Held>,
    /// Where the words of those go that nobody takes.
    gateway: OnceLock<Weak<Gateway>>,
}

#[derive(Default)]
struct Held {
    turn: u64,
    streams: BTreeMap<ServerId, Started>,
}

struct Started {
    turn: u64,
    /// `None` for one that was just made and whose id is not known here.
    id: Option<ContainerId>,
    io: LegIo,
}

impl std::fmt::Debug for FirstWords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FirstWords").finish_non_exhaustive()
    }
}

impl FirstWords {
    /// Nothing is held yet.
    pub(super) fn new(engine: Arc<DockerEngine>, wishes: watch::Receiver<Arc<Wish>>) -> Self {
        Self { engine, wishes, held: Mutex::default(), gateway: OnceLock::new() }
    }

    /// The logs of servers are there.
    pub(super) fn tell(&self, gateway: &Arc<Gateway>) {
        let _first = self.gateway.set(Arc::downgrade(gateway));
    }

    /// The streams of a container that was just started, for whoever speaks to it.
    pub(super) fn take(&self, server: &ServerId, container: &ContainerId) -> Option<LegIo> {
        let mut held = self.held();
        let fits = held.streams.get(server)?.id.as_ref().is_none_or(|id| id == container);
        if fits { held.streams.remove(server).map(|started| started.io) } else { None }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server whose own container this is, where it speaks over stdio.
    fn speaks(&self, container: &ContainerRef) -> Option<ServerId> {
        let wish = self.wishes.borrow();
        let own = |server: &&Server| main_name(&wish.policy, &server.id) == container.name();
        let all = wish.desired.instances();
        all.servers
            .values()
            .find(own)
            .filter(|server| server.said_transport() == Some(Transport::Stdio))
            .map(|server| server.id.clone())
    }

    async fn start(
        self: &Arc<Self>,
        op: &EngineOp,
        container: &ContainerRef,
        progress: &(dyn Fn(String) + Send + Sync),
    ) -> Result<(), WorldError> {
        let server = self.speaks(container).filter(|_| self.held().streams.len() < HELD_MAX);
        let Some(server) = server else { return self.engine.apply(op, progress).await };
        let name = ContainerId(container.key().to_owned());
        // Whatever is wrong with it, the start says it better.
        let io = self.engine.attach_streams(&name).await.ok();
        self.engine.apply(op, progress).await?;
        if let Some(io) = io {
            let id = match container {
                ContainerRef::Id { id, .. } => Some(id.clone()),
                ContainerRef::Planned(_) => None,
            };
            self.hold(server, id, io);
        }
        Ok(())
    }

    fn hold(self: &Arc<Self>, server: ServerId, id: Option<ContainerId>, io: LegIo) {
        let (turn, before) = {
            let mut held = self.held();
            held.turn += 1;
            let turn = held.turn;
            (turn, held.streams.insert(server.clone(), Started { turn, id, io }))
        };
        let this = Arc::clone(self);
        tokio::spawn(async move {
            if let Some(before) = before {
                this.log(&server, before.io).await;
            }
            tokio::time::sleep(HOLD).await;
            let late = {
                let mut held = this.held();
                let mine = held.streams.get(&server).is_some_and(|started| started.turn == turn);
                if mine { held.streams.remove(&server) } else { None }
            };
            if let Some(late) = late {
                this.log(&server, late.io).await;
            }
        });
    }

    /// Has what nobody took kept in the server's log.
    async fn log(&self, server: &ServerId, io: LegIo) {
        let LegIo { stdout, stdin, stderr } = io;
        drop(stdin);
        let stderr = async {
            match stderr {
                Some(stderr) => read(stderr).await,
                None => Vec::new(),
            }
        };
        let (noise, said) = tokio::join!(read(stdout), stderr);
        let Some(gateway) = self.gateway.get().and_then(Weak::upgrade) else { return };
        let Some(entry) = gateway.entry(server) else { return };
        let said = lines(&said).map(Diagnostic::Stderr);
        for line in lines(&noise).map(Diagnostic::Noise).chain(said) {
            entry.slot.note(line).await;
        }
    }
}

/// What comes within bounds of size and time.
async fn read(stream: impl AsyncRead + Unpin) -> Vec<u8> {
    let (mut stream, mut bytes) = (stream.take(READ_MAX), Vec::new());
    let _cut = tokio::time::timeout(READ_WITHIN, stream.read_to_end(&mut bytes)).await;
    bytes
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = String> {
    let line = |line: &[u8]| String::from_utf8_lossy(line).trim_end().to_owned();
    bytes.split(|byte| *byte == b'\n').map(line).filter(|line| !line.is_empty())
}

/// The engine, with the first words of what it starts.
#[derive(Debug)]
pub(super) struct Attentive(pub(super) Arc<FirstWords>);

impl Engine for Attentive {
    fn containers(&self) -> Answer<'_, Vec<Container>> {
        self.0.engine.containers()
    }

    fn image<'a>(&'a self, reference: &'a str) -> Answer<'a, Option<Image>> {
        self.0.engine.image(reference)
    }

    fn details<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, Option<Details>> {
        self.0.engine.details(id)
    }

    fn log<'a>(&'a self, ask: &'a LogAsk) -> Answer<'a, Vec<LogLine>> {
        self.0.engine.log(ask)
    }

    fn apply<'a>(&'a self, op: &'a EngineOp, progress: &'a (dyn Fn(String) + Send + Sync)) -> Answer<'a, ()> {
        match op {
            EngineOp::Start(container) => Box::pin(self.0.start(op, container, progress)),
            _ => self.0.engine.apply(op, progress),
        }
    }
}
