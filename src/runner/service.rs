//! The service: takes connections, looks who asks, and gives each a keeper of its own.
//!
//! It never reads a request: a fault in one can end that one keeper only. Keepers inherit their
//! connection, so that this process may die without a server noticing (systemd then ends them all, and
//! starts us again).
//!
//! Must never give a keeper anything of its own environment but the base.

use crate::runner::channel::Channel;
use crate::runner::peers::Allowed;
use crate::runner::wire::{ANSWER_BYTES_MAX, Answer, Refusal, RefusalKind, encode};
use crate::runner::{KILL_WAIT, PROGRAM, STOP_GRACE, cgroup, tree};
use rustix::process::{DumpableBehavior, Pid, Signal, kill_process};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};

/// Keepers are given this long for their ends.
const STOP_WAIT: Duration = STOP_GRACE.saturating_add(KILL_WAIT).saturating_add(Duration::from_secs(2));
/// After a connection could not be taken, for want of descriptors mostly.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);
/// Who is refused is told within this time, or not at all.
const REFUSE_WAIT: Duration = Duration::from_secs(1);

/// How the service runs.
#[derive(Clone, Debug)]
pub struct Service {
    /// Who may ask.
    pub allowed: Allowed,
    /// The program that keeps, and its arguments.
    pub keeper: (PathBuf, Vec<String>),
    /// The whole environment of keepers.
    pub env: BTreeMap<String, String>,
    /// The control group that was delegated.
    pub cgroup: Option<PathBuf>,
    /// Processes at once.
    pub processes_max: usize,
}

impl Service {
    /// Serves until SIGTERM or SIGINT, then ends every process. `ready` is called once, before the
    /// first connection is taken.
    ///
    /// # Errors
    /// When this process cannot watch over others.
    pub async fn run(self, listener: UnixListener, ready: impl FnOnce()) -> io::Result<()> {
        tree::adopt_orphans()?;
        let _old_kernel = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
        let mut child = signal(SignalKind::child())?;
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let mut keepers = Keepers { service: self, running: BTreeSet::new(), strays: false };
        ready();
        loop {
            tokio::select! {
                taken = listener.accept() => match taken {
                    Ok((stream, _)) => keepers.take(stream),
                    Err(error) => {
                        tracing::warn!("taking a connection: {error}");
                        tokio::time::sleep(ACCEPT_AGAIN).await;
                    }
                },
                _ = child.recv() => keepers.reap(),
                _ = term.recv() => break,
                _ = int.recv() => break,
            }
        }
        drop(listener);
        keepers.stop(&mut child).await;
        Ok(())
    }
}

struct Keepers {
    service: Service,
    running: BTreeSet<i32>,
    /// A keeper was killed; what it kept is ours now.
    strays: bool,
}

impl Keepers {
    fn take(&mut self, stream: UnixStream) {
        let refusal = match stream.peer_cred() {
            Ok(peer) if !self.service.allowed.has(peer.uid()) => {
                tracing::warn!("user {} asked for a process and may not", peer.uid());
                Refusal {
                    kind: RefusalKind::Denied,
                    cause: format!("user {} may not ask the runner", peer.uid()),
                }
            }
            Ok(_) if self.running.len() >= self.service.processes_max => {
                let cause = format!("{} processes run already, no more are allowed", self.running.len());
                tracing::warn!("{cause}");
                Refusal { kind: RefusalKind::Quota, cause }
            }
            Ok(_) => match self.keeper(stream) {
                Ok(keeper) => {
                    self.running.insert(keeper);
                    return;
                }
                Err(error) => {
                    // The connection went with the attempt; its end is the answer.
                    tracing::error!("starting a keeper: {error}");
                    return;
                }
            },
            Err(error) => {
                tracing::warn!("asking the kernel who connected: {error}");
                return;
            }
        };
        tokio::spawn(refuse(stream, refusal));
    }

    fn keeper(&self, stream: UnixStream) -> io::Result<i32> {
        let (program, args) = &self.service.keeper;
        let mut command = Command::new(program);
        command.arg0(PROGRAM).args(args).env_clear().envs(&self.service.env);
        command.stdin(Stdio::from(OwnedFd::from(stream.into_std()?))).stdout(Stdio::null());
        // Reaped with all other children, by id.
        let child = command.spawn()?;
        i32::try_from(child.id()).map_err(io::Error::other)
    }

    fn reap(&mut self) {
        let (running, service, strays) = (&mut self.running, &self.service, &mut self.strays);
        tree::reap(|child, status| {
            let id = child.as_raw_nonzero().get();
            if !running.remove(&id) || status.exit_status() == Some(0) {
                return;
            }
            tracing::warn!("a keeper {}; what it kept is killed", tree::how(status));
            *strays = true;
            if let Some(root) = &service.cgroup {
                cgroup::clear(root, id.unsigned_abs());
            }
        });
        if self.strays {
            // Each end is told by a signal, and brings up who was below.
            self.strays = self.kill_strays() > 0;
        }
    }

    fn kill_strays(&self) -> usize {
        let mut strays = tree::children();
        strays.retain(|child| !self.keeps(*child));
        for stray in &strays {
            let _gone = kill_process(*stray, Signal::KILL);
        }
        strays.len()
    }

    fn keeps(&self, child: Pid) -> bool {
        self.running.contains(&child.as_raw_nonzero().get())
    }

    async fn stop(mut self, child: &mut tokio::signal::unix::Signal) {
        for keeper in self.running.iter().filter_map(|id| Pid::from_raw(*id)) {
            let _gone = kill_process(keeper, Signal::TERM);
        }
        let all = async {
            self.reap();
            while !self.running.is_empty() {
                child.recv().await;
                self.reap();
            }
        };
        if tokio::time::timeout(STOP_WAIT, all).await.is_err() {
            tracing::warn!("{} processes did not end in time", self.running.len());
        }
        tree::sweep(KILL_WAIT).await;
    }
}

async fn refuse(stream: UnixStream, refusal: Refusal) {
    let Ok(frame) = encode(&Answer::Refused(refusal), ANSWER_BYTES_MAX) else { return };
    let channel = Channel::new(stream);
    let _gone = tokio::time::timeout(REFUSE_WAIT, channel.send(&frame, &[])).await;
}
