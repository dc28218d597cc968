//! One process, and nothing else to do: `mcp-orchestrator runner --one`, with a connection as its
//! standard input.
//!
//! ```text
//! closed or End    close of input was before   wait   SIGTERM to the group   wait   SIGKILL
//! SIGTERM to us                                        the same from here
//! it ended         SIGKILL to the group, to its control group, to whoever was adopted; then Ended
//! ```
//! Must never hold a copy of the process's input: nobody would ever see its end.

use crate::runner::cgroup::Group;
use crate::runner::channel::Channel;
use crate::runner::wire::{
    ANSWER_BYTES_MAX, Answer, End, REQUEST_BYTES_MAX, Refusal, RefusalKind, Request, encode,
};
use crate::runner::{KILL_WAIT, REQUEST_WAIT, STOP_GRACE, cgroup, oom, tree};
use rustix::process::{DumpableBehavior, Pid, Signal as Sig, WaitStatus, kill_process, kill_process_group};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

/// Of a pipe to or from a process. Its user's pipes share 64 MiB before the kernel makes them small:
/// enough for 128 processes.
const PIPE_BYTES: usize = 256 * 1024;
/// The name of keepers among processes; the kernel takes 15 bytes.
const NAME: &str = "mcp-keeper";

/// Where the kernel tells of this host.
const PROC: &str = "/proc";

/// What a keeper is given by whoever starts it.
#[derive(Clone, Debug)]
pub struct Given {
    /// What every process begins with.
    pub base: BTreeMap<String, String>,
    /// The delegated control group, if there is one.
    pub cgroup: Option<PathBuf>,
}

/// Keeps the one process that is asked for over `stream`; returns when nothing of it is left.
///
/// # Errors
/// When this process cannot be made a keeper. What concerns the one process is told over `stream`.
pub async fn keep(stream: UnixStream, given: &Given) -> io::Result<()> {
    tree::adopt_orphans()?;
    // What `ps` and the kernel's log call it; the link we were started by says nothing.
    let _unchanged = std::fs::write("/proc/self/comm", NAME);
    // A terminal's signals are for the daemon. We may lead a group already, but not a session.
    let _leads = rustix::process::setsid();
    // The request holds secrets, and other servers run as the same user.
    let _old_kernel = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let signals = Signals { child: signal(SignalKind::child())?, term: signal(SignalKind::terminate())? };
    let mut channel = Channel::new(stream);
    match begin(&mut channel, given).await {
        Ok(Some(begun)) => {
            let Begun { server, leader, group, before } = begun;
            let when = When::default();
            let kept = Kept { leader, channel, signals, when, closed: false, killed: false };
            kept.run(&server, group, &before).await;
        }
        Ok(None) => {}
        Err(refusal) => {
            let answer = Answer::Refused(refusal);
            let frame = encode(&answer, ANSWER_BYTES_MAX).map_err(io::Error::other)?;
            let _gone = channel.send(&frame, &[]).await;
        }
    }
    Ok(())
}

struct Begun {
    server: String,
    leader: Pid,
    group: Option<Group>,
    /// What the kernel had killed for memory before.
    before: oom::Before,
}

/// Takes the request and starts what it asks for; `None` when there is nobody to start it for.
async fn begin(channel: &mut Channel, given: &Given) -> Result<Option<Begun>, Refusal> {
    let refuse = |kind, cause: String| Refusal { kind, cause };
    let request = match tokio::time::timeout(REQUEST_WAIT, channel.next(REQUEST_BYTES_MAX)).await {
        Ok(Ok(Some(request))) => request,
        Ok(Ok(None)) => return Ok(None),
        Ok(Err(fault)) => {
            return Err(refuse(RefusalKind::Invalid, format!("the request cannot be read: {fault}")));
        }
        Err(_late) => {
            return Err(refuse(RefusalKind::Failed, "the request did not arrive in time".to_owned()));
        }
    };
    if let Some(refusal) = Request::complaint(&request) {
        return Err(refusal);
    }
    let group = given.cgroup.as_deref().and_then(|root| enter(root, &request));
    let own = group.as_ref().map(Group::dir);
    let shared = cgroup::own().ok();
    let before = oom::Before::read(own, shared.as_deref().filter(|_| own.is_none()), Path::new(PROC));
    let started = start(&request, given);
    if let Some(group) = &group
        && let Err(error) = group.leave()
    {
        tracing::warn!(MCP_SERVER = request.server, "its keeper stays in its control group: {error}");
    }
    let (leader, streams) = started.inspect_err(|refusal| {
        if let Some(group) = &group {
            group.remove();
        }
        tracing::warn!(
            MCP_SERVER = request.server,
            "process {} was not started: {}",
            request.program,
            refusal.cause
        );
    })?;
    let begun = Begun { server: request.server, leader, group, before };
    let answer = Answer::Started { pid: leader.as_raw_nonzero().get().unsigned_abs() };
    let frame =
        encode(&answer, ANSWER_BYTES_MAX).map_err(|fault| refuse(RefusalKind::Failed, fault.to_string()))?;
    let (stdin, stdout, stderr) = &streams;
    // When nobody is there any more, the closed connection says so in a moment.
    let _gone = channel.send(&frame, &[stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]).await;
    tracing::info!(
        MCP_SERVER = begun.server,
        pid = leader.as_raw_nonzero(),
        "process {} started",
        request.program
    );
    Ok(Some(begun))
}

/// Goes into a new control group; without one the limits are not kept.
fn enter(root: &Path, request: &Request) -> Option<Group> {
    match Group::enter(root, &request.server, std::process::id()) {
        Ok(group) => {
            for file in group.limit(request.limits) {
                tracing::warn!(
                    MCP_SERVER = request.server,
                    "its limit in {file} is not kept: no such controller"
                );
            }
            Some(group)
        }
        Err(error) => {
            tracing::warn!(MCP_SERVER = request.server, "it has no control group of its own: {error}");
            None
        }
    }
}

type Streams = (ChildStdin, ChildStdout, ChildStderr);

fn start(request: &Request, given: &Given) -> Result<(Pid, Streams), Refusal> {
    let mut command = Command::new(&request.program);
    command.args(&request.args).env_clear().envs(&given.base).envs(&request.env);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    if let Some(cwd) = &request.cwd {
        if !Path::new(cwd).is_dir() {
            let cause = format!("its working directory {cwd} is not there");
            return Err(Refusal { kind: RefusalKind::NotFound, cause });
        }
        command.current_dir(cwd);
    }
    let mut child = command.spawn().map_err(|error| not_started(&request.program, &error))?;
    let streams = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let leader = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    match (leader, streams) {
        (Some(leader), (Some(stdin), Some(stdout), Some(stderr))) => {
            widen(&stdin);
            widen(&stdout);
            Ok((leader, (stdin, stdout, stderr)))
        }
        _ => Err(not_started(&request.program, &io::Error::other("its streams are missing"))),
    }
}

/// Makes room for a large message in one piece: each time a pipe is full, both sides are woken.
fn widen(pipe: &impl AsFd) {
    // Where the system grants no more, messages pass in more pieces.
    let _granted = rustix::pipe::fcntl_setpipe_size(pipe, PIPE_BYTES);
}

fn not_started(program: &str, error: &io::Error) -> Refusal {
    let (kind, cause) = match error.kind() {
        io::ErrorKind::NotFound if program.contains('/') => {
            (RefusalKind::NotFound, "there is no such file; check the path in the entry's command")
        }
        io::ErrorKind::NotFound => (
            RefusalKind::NotFound,
            "no such program on the PATH; install it or write its full path as the entry's command",
        ),
        io::ErrorKind::PermissionDenied => {
            (RefusalKind::Denied, "it may not be executed; check the file's mode and owner")
        }
        io::ErrorKind::InvalidInput => {
            (RefusalKind::Invalid, "its command, arguments or environment hold a NUL character")
        }
        io::ErrorKind::ArgumentListTooLong => {
            (RefusalKind::Invalid, "its arguments and environment are too long")
        }
        _ => return Refusal { kind: RefusalKind::Failed, cause: error.to_string() },
    };
    Refusal { kind, cause: cause.to_owned() }
}

struct Signals {
    child: Signal,
    term: Signal,
}

/// When which signal is due. A later wish never makes an end later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct When {
    term: Option<Instant>,
    kill: Option<Instant>,
    termed: bool,
}

impl When {
    fn end(&mut self, now: Instant, (asked, terminated): (Duration, Duration)) {
        let sooner = |old: Option<Instant>, new: Instant| Some(old.map_or(new, |old| old.min(new)));
        self.term = sooner(self.term, now + asked);
        self.kill = sooner(self.kill, now + asked + terminated);
    }

    fn next(&self) -> Option<(Instant, Sig)> {
        if self.termed { self.kill.map(|at| (at, Sig::KILL)) } else { self.term.map(|at| (at, Sig::TERM)) }
    }

    /// The signal was sent.
    fn sent(&mut self, signal: Sig) {
        match signal {
            Sig::TERM => self.termed = true,
            _ => self.kill = None,
        }
    }
}

struct Kept {
    leader: Pid,
    channel: Channel,
    signals: Signals,
    when: When,
    closed: bool,
    /// We sent SIGKILL.
    killed: bool,
}

impl Kept {
    async fn run(mut self, server: &str, group: Option<Group>, before: &oom::Before) {
        let (how, status) = self.ended().await;
        let clean = status.exit_status() == Some(0);
        let by_others = status.terminating_signal() == Some(Sig::KILL.as_raw()) && !self.killed;
        // Before anything else of it is killed, and before its group goes.
        let oom = before.killed().filter(|_| !self.killed);
        let mut how = oom::words(&how, by_others, oom);
        let oom = oom.filter(|killed| by_others || *killed);
        let _gone = kill_process_group(self.leader, Sig::KILL);
        if let Some(group) = &group {
            group.kill();
        }
        if !tree::sweep(KILL_WAIT).await {
            how.push_str(", and something that it started cannot be killed");
        }
        if let Some(group) = &group {
            group.remove();
        }
        tracing::info!(MCP_SERVER = server, pid = self.leader.as_raw_nonzero(), "process {how}");
        if let Ok(frame) = encode(&Answer::Ended { how, clean, oom }, ANSWER_BYTES_MAX) {
            let _gone = self.channel.send(&frame, &[]).await;
        }
    }

    /// Resolves when the process has ended, by itself or by our doing.
    async fn ended(&mut self) -> (String, WaitStatus) {
        loop {
            let due = self.when.next();
            let wait = async {
                match due {
                    Some((at, _)) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = self.signals.child.recv() => {
                    if let Some(how) = self.reap() {
                        return how;
                    }
                }
                _ = self.signals.term.recv() => self.when.end(Instant::now(), (Duration::ZERO, STOP_GRACE)),
                order = self.channel.next::<End>(ANSWER_BYTES_MAX), if !self.closed => match order {
                    Ok(Some(end)) => self.when.end(Instant::now(), end.graces()),
                    Ok(None) | Err(_) => {
                        self.closed = true;
                        self.when.end(Instant::now(), (STOP_GRACE, STOP_GRACE));
                    }
                },
                () = wait => if let Some((_, signal)) = due {
                    self.send(signal);
                    self.when.sent(signal);
                    self.killed |= signal == Sig::KILL;
                },
            }
        }
    }

    fn send(&self, signal: Sig) {
        let _gone = kill_process_group(self.leader, signal);
        if signal == Sig::KILL {
            // It may have gone into another group.
            let _gone = kill_process(self.leader, signal);
        }
    }

    /// Reaps what ended; how the process did, if it is among them.
    fn reap(&self) -> Option<(String, WaitStatus)> {
        let mut ended = None;
        tree::reap(|child, status| {
            if child == self.leader {
                ended = Some((tree::how(status), status));
            }
        });
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::{Sig, When};
    use std::time::Duration;
    use tokio::time::Instant;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_later_wish_never_makes_an_end_later() {
        let now = Instant::now();
        let mut when = When::default();
        assert_eq!(when.next(), None);
        when.end(now, (SECOND, 2 * SECOND));
        assert_eq!(when.next(), Some((now + SECOND, Sig::TERM)));
        // The connection closes after that, with longer graces.
        when.end(now, (5 * SECOND, 5 * SECOND));
        assert_eq!(when.next(), Some((now + SECOND, Sig::TERM)));
        when.sent(Sig::TERM);
        assert_eq!(when.next(), Some((now + 3 * SECOND, Sig::KILL)));
        when.end(now, (Duration::ZERO, Duration::ZERO));
        assert_eq!(when.next(), Some((now, Sig::KILL)));
        when.sent(Sig::KILL);
        assert_eq!(when.next(), None);
    }
}
