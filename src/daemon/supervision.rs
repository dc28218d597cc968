//! What the service manager hears of this process: when it is ready, that start and stop go on, and
//! that it lives.
//!
//! Must never feed the watchdog from a timer alone: the loop and the way in must both have moved.

use crate::daemon::edges::ServedEdges;
use crate::daemon::handover::Handover;
use crate::host::systemd::Manager;
use crate::model::id::ServerId;
use crate::model::net::HostPort;
use crate::service::Pulse;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Between two words that start or stop goes on.
const EXTEND_EVERY: Duration = Duration::from_secs(2);
/// What each of them asks for.
const EXTEND_BY: Duration = Duration::from_secs(10);
/// After this long, start or stop is left to the manager's own patience.
const EXTEND_FOR: Duration = Duration::from_secs(600);
/// Longest wait for the listeners that the first pass opens.
const OPEN_WITHIN: Duration = Duration::from_secs(1);
/// Between two looks at them.
const OPEN_LOOK: Duration = Duration::from_millis(2);
/// Longest step of the loop: reading a whole load balancer, whose single calls may take 30 s each.
const STEP_WITHIN: Duration = Duration::from_secs(300);
/// The watchdog's time holds this many looks.
const LOOKS: u32 = 4;
/// Shortest time between two looks.
const LOOK_MIN: Duration = Duration::from_millis(50);

/// Edge listeners that the first pass wants open.
pub(super) type FirstEdges = BTreeMap<ServerId, HostPort>;

/// Tells the manager again and again that what it waits for goes on. Ends by being dropped.
pub(super) async fn goes_on(manager: Manager) {
    if !manager.is_there() {
        return;
    }
    let begin = Instant::now();
    while begin.elapsed() < EXTEND_FOR {
        manager.extend(EXTEND_BY);
        tokio::time::sleep(EXTEND_EVERY).await;
    }
}

/// What must have happened before this daemon is ready.
pub(super) struct Start {
    /// Says that the start goes on.
    pub going: JoinHandle<()>,
    /// Closes when the main listeners were bound, or tried to.
    pub listeners: mpsc::Receiver<Infallible>,
    /// The first pass.
    pub first: oneshot::Receiver<FirstEdges>,
    /// The edge listeners.
    pub edges: Arc<ServedEdges>,
}

/// Says `READY=1` once everybody can connect: the listeners listen, the world was looked at (whether
/// it answered or not), and the ports of the first pass are open as far as they can be.
pub(super) async fn ready(handover: Arc<Handover>, mut start: Start) {
    let _tried = start.listeners.recv().await;
    // Every listener has looked for its own.
    handover.forget_rest();
    // Its sender is gone only when the daemon ends before its first pass.
    let wanted = start.first.await.unwrap_or_default();
    let opened = async {
        let open = |served: &FirstEdges| wanted.iter().all(|(id, port)| served.get(id) == Some(port));
        while !open(&start.edges.listeners.served()) {
            tokio::time::sleep(OPEN_LOOK).await;
        }
    };
    let _not_all = tokio::time::timeout(OPEN_WITHIN, opened).await;
    start.going.abort();
    handover.manager().ready();
}

/// Feeds the watchdog, if there is one, as long as the loop moves and the control socket answers.
pub(super) async fn watchdog(manager: Manager, pulse: Arc<Pulse>, socket: PathBuf) {
    let Some(within) = manager.watchdog() else { return };
    let every = (within / LOOKS).max(LOOK_MIN);
    let mut moved = Moved { count: pulse.count(), at: Instant::now() };
    let mut complained = false;
    loop {
        pulse.ask();
        let look = Instant::now();
        let answers = answers(&socket, every).await;
        tokio::time::sleep_until(look + every).await;
        let moves = moved.lately(&pulse, every);
        if answers && moves {
            manager.feed();
            complained = false;
        } else if !std::mem::replace(&mut complained, true) {
            tracing::error!(
                "the watchdog is not fed: loop moves: {moves}, control socket answers: {answers}"
            );
        }
    }
}

/// When the loop moved last.
struct Moved {
    count: u64,
    at: Instant,
}

impl Moved {
    /// Whether it moved lately: a loop that waits within two looks, one at work within its longest
    /// step.
    fn lately(&mut self, pulse: &Pulse, every: Duration) -> bool {
        let count = pulse.count();
        if count != self.count {
            (self.count, self.at) = (count, Instant::now());
        }
        let within = if pulse.waits() { every * 2 } else { STEP_WITHIN };
        self.at.elapsed() <= within
    }
}

/// Whether somebody answers on the control socket. One that has lost its file says nothing about us.
async fn answers(socket: &Path, within: Duration) -> bool {
    match tokio::time::timeout(within, ask(socket)).await {
        Ok(Ok(read)) => read > 0,
        Ok(Err(error)) => error.kind() == io::ErrorKind::NotFound,
        Err(_elapsed) => false,
    }
}

async fn ask(socket: &Path) -> io::Result<usize> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    stream.read(&mut [0_u8; 64]).await
}

#[cfg(test)]
mod tests;
