//! The daemon's end: asks a keeper for a process, holds its streams and its life line.
//!
//! Launchers such as `npx`, `uvx` or a shell start the real server as a child of theirs; so what is
//! ended is always the whole tree, by the keeper: on [`Process::stop`], when the [`Process`] is
//! dropped, when the process ends by itself, and when this process is no more.
//!
//! A stream may have been handed out of the tree and be held open there for ever. The process's output
//! therefore ends when the process has ended and everything in the pipe was read.
//!
//! Must never put arguments or environment into an error.

use crate::runner::channel::{Channel, STREAMS};
use crate::runner::wire::{
    ANSWER_BYTES_MAX, Answer, End, Limits, REQUEST_BYTES_MAX, Request, VERSION, encode,
};
use crate::runner::{KILL_WAIT, PROGRAM, REQUEST_WAIT};
use crate::upstream::leg::LegIo;
use crate::world::{ErrorKind, WorldError};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::{mpsc, oneshot, watch};

/// Wishes for an end that may wait; the first one counts.
const ENDS_MAX: usize = 2;

/// Who keeps a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// A keeper of the service that listens here.
    Service(PathBuf),
    /// A keeper that we start ourselves: this program, with this environment.
    Own(PathBuf, BTreeMap<String, String>),
}

/// A process to start.
#[derive(Clone, PartialEq, Eq)]
pub struct Command {
    /// The server it is for.
    pub server: String,
    /// The program: a path, or a name looked up on the `PATH` of `env` or else of the keeper.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Added to the keeper's base environment.
    pub env: BTreeMap<String, String>,
    /// Its working directory; the keeper's when `None`.
    pub cwd: Option<String>,
    /// What it may use; kept where control groups are delegated.
    pub limits: Limits,
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server, program, args, env, cwd, limits } = self;
        f.debug_struct("Command")
            .field("server", server)
            .field("program", program)
            .field("args", &args.len())
            .field("env", &env.keys().collect::<Vec<_>>())
            .field("cwd", cwd)
            .field("limits", limits)
            .finish()
    }
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// In words: `exited with code 1`.
    pub how: String,
    /// It exited with code 0.
    pub clean: bool,
    /// Whether the kernel killed it, or a part of it, for memory, where that was asked and can be told.
    pub oom: Option<bool>,
}

impl Outcome {
    fn failed(how: &str) -> Self {
        Self { how: how.to_owned(), clean: false, oom: None }
    }
}

/// A running process; dropping it kills it and all it started.
#[derive(Debug)]
pub struct Process {
    id: u32,
    ends: mpsc::Sender<End>,
    ended: watch::Receiver<Option<Outcome>>,
}

impl Process {
    /// The id of the process, which is also the id of its group.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// Resolves when the process has ended and nothing of it is left.
    pub async fn ended(&mut self) -> Outcome {
        let ended = self.ended.wait_for(Option::is_some).await;
        ended.ok().and_then(|how| how.clone()).unwrap_or_else(|| Outcome::failed("ended with the runtime"))
    }

    /// Resolves as [`Self::ended`] does, also for somebody who does not hold it.
    pub fn over(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut ended = self.ended.clone();
        async move {
            let _how = ended.wait_for(Option::is_some).await;
        }
    }

    /// Ends the process and all it started, and says how it ended. Its input must have been closed
    /// before (by dropping or ending its leg): that is how a stdio server is asked to end.
    ///
    /// The keeper waits `asked` for that, which is what remains when the leg has waited before; then
    /// it sends SIGTERM, waits `terminated`, then sends SIGKILL.
    pub async fn stop(mut self, asked: Duration, terminated: Duration) -> Outcome {
        let _ended = self.ends.send(End::within(asked, terminated)).await;
        let most = asked.saturating_add(terminated).saturating_add(KILL_WAIT.saturating_mul(2));
        let how = tokio::time::timeout(most, self.ended()).await;
        how.unwrap_or_else(|_stuck| Outcome::failed("did not end after SIGKILL"))
    }
}

/// Starts a process.
///
/// # Errors
/// Which program could not be started, and why.
pub async fn start(way: &Way, command: &Command) -> Result<(LegIo, Process), WorldError> {
    let doing = || format!("starting process {}", command.program);
    let request = Request {
        version: VERSION,
        server: command.server.clone(),
        program: command.program.clone(),
        args: command.args.clone(),
        env: command.env.clone(),
        cwd: command.cwd.clone(),
        limits: command.limits,
    };
    // The keeper looks at it again; here it costs nothing yet.
    if let Some(refusal) = request.complaint() {
        return Err(WorldError::new(doing(), refusal.kind.into(), refusal.cause));
    }
    let frame = encode(&request, REQUEST_BYTES_MAX).map_err(|_too_large| {
        let cause = format!("its arguments and environment are longer than {REQUEST_BYTES_MAX} bytes");
        WorldError::new(doing(), ErrorKind::Invalid, cause)
    })?;
    let stream = match way {
        Way::Service(path) => reach(path).await,
        Way::Own(program, env) => own_keeper(program, env),
    };
    let stream = stream.map_err(|(kind, cause)| WorldError::new(doing(), kind, cause))?;
    let mut channel = Channel::new(stream);
    let asked = tokio::time::timeout(REQUEST_WAIT, ask(&mut channel, &frame)).await;
    let (id, streams) = asked
        .unwrap_or_else(|_late| Err((ErrorKind::TimedOut, "the runner does not answer".to_owned())))
        .map_err(|(kind, cause)| WorldError::new(doing(), kind, cause))?;
    let opened = connect(id, streams, channel);
    opened.map_err(|error| WorldError::new(doing(), ErrorKind::Failed, error.to_string()))
}

type Refused = (ErrorKind, String);

async fn reach(path: &Path) -> Result<UnixStream, Refused> {
    let connected = tokio::time::timeout(REQUEST_WAIT, UnixStream::connect(path)).await;
    connected.unwrap_or_else(|_late| Err(io::ErrorKind::TimedOut.into())).map_err(|error| {
        let path = path.display();
        match error.kind() {
            io::ErrorKind::PermissionDenied => (
                ErrorKind::Denied,
                format!("the runner at {path} is not for this user; set [service] process_runner = none for a daemon of your own"),
            ),
            _ => (
                ErrorKind::Unreachable,
                format!("the runner at {path} does not answer ({error}); `systemctl status mcp-orchestrator-runner.socket mcp-orchestrator-runner` says why"),
            ),
        }
    })
}

/// Starts a keeper that ends with our end of its standard input.
fn own_keeper(program: &Path, env: &BTreeMap<String, String>) -> Result<UnixStream, Refused> {
    let failed = |error: io::Error| (ErrorKind::Failed, format!("its keeper does not start: {error}"));
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
    ours.set_nonblocking(true).map_err(failed)?;
    let mut command = tokio::process::Command::new(program);
    command.arg0(PROGRAM).args(["runner", "--one"]).env_clear().envs(env);
    command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::null());
    let mut keeper = command.spawn().map_err(failed)?;
    tokio::spawn(async move {
        let _reaped = keeper.wait().await;
    });
    UnixStream::from_std(ours).map_err(failed)
}

async fn ask(channel: &mut Channel, frame: &[u8]) -> Result<(u32, [OwnedFd; STREAMS]), Refused> {
    // Who refuses may close before all was sent; what it says comes all the same.
    let sent = channel.send(frame, &[]).await;
    let answer = channel.next(ANSWER_BYTES_MAX).await;
    match (answer, sent) {
        (Ok(Some(Answer::Started { pid })), _) => {
            let streams = channel.take_streams();
            let streams = <[OwnedFd; STREAMS]>::try_from(streams).map_err(|few: Vec<OwnedFd>| {
                (ErrorKind::Failed, format!("{} of its {STREAMS} streams came with it", few.len()))
            })?;
            Ok((pid, streams))
        }
        (Ok(Some(Answer::Refused(refusal))), _) => Err((refusal.kind.into(), refusal.cause)),
        (Ok(Some(Answer::Ended { how, .. })), _) => Err((ErrorKind::Failed, format!("it {how}"))),
        (Ok(None), Ok(())) => {
            Err((ErrorKind::Unreachable, "its keeper closed the connection without an answer".to_owned()))
        }
        (Ok(None), Err(error)) => {
            Err((ErrorKind::Unreachable, format!("its keeper closed the connection: {error}")))
        }
        (Err(fault), _) => {
            Err((ErrorKind::Failed, format!("the answer of its keeper cannot be read: {fault}")))
        }
    }
}

fn connect(
    id: u32,
    [stdin, stdout, stderr]: [OwnedFd; STREAMS],
    channel: Channel,
) -> io::Result<(LegIo, Process)> {
    let stdin = Sender::from_owned_fd(stdin)?;
    let stdout = Receiver::from_owned_fd(stdout)?;
    let stderr = Receiver::from_owned_fd(stderr)?;
    let (tell, ended) = watch::channel(None);
    let (ends, asked) = mpsc::channel(ENDS_MAX);
    let (last_out, out_may_end) = oneshot::channel();
    let (last_err, err_may_end) = oneshot::channel();
    tokio::spawn(async move {
        let how = hold(channel, asked).await;
        tell.send_replace(Some(how));
        drop((last_out, last_err));
    });
    let io = LegIo {
        stdout: Box::new(UntilEnd { stream: stdout, ended: out_may_end }),
        stdin: Box::new(stdin),
        stderr: Some(Box::new(UntilEnd { stream: stderr, ended: err_may_end })),
    };
    Ok((io, Process { id, ends, ended }))
}

/// Holds the life line until the keeper says how the process ended.
async fn hold(mut channel: Channel, mut asked: mpsc::Receiver<End>) -> Outcome {
    let mut told = false;
    loop {
        tokio::select! {
            end = asked.recv(), if !told => {
                // Nobody can ask any more: then at once.
                told = end.is_none();
                let end = end.unwrap_or_else(|| End::within(Duration::ZERO, Duration::ZERO));
                if let Ok(frame) = encode(&end, ANSWER_BYTES_MAX) {
                    let _ended = channel.send(&frame, &[]).await;
                }
            }
            answer = channel.next(ANSWER_BYTES_MAX) => return match answer {
                Ok(Some(Answer::Ended { how, clean, oom })) => Outcome { how, clean, oom },
                Ok(Some(Answer::Started { .. } | Answer::Refused(_)) | None) | Err(_) => {
                    Outcome::failed("ended with its keeper")
                }
            },
        }
    }
}

/// A pipe that also ends when its process has ended and nothing is left in it.
struct UntilEnd {
    stream: Receiver,
    ended: oneshot::Receiver<()>,
}

impl AsyncRead for UntilEnd {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, buffer) {
            return Poll::Ready(read);
        }
        if !self.ended.is_terminated() && Pin::new(&mut self.ended).poll(cx).is_pending() {
            return Poll::Pending;
        }
        // What it wrote last may be there before the runtime has heard of it: the kernel knows.
        loop {
            match rustix::io::read(&self.stream, buffer.initialize_unfilled()) {
                Ok(count) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Poll::Ready(Ok(())),
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::UntilEnd;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::unix::pipe::pipe;
    use tokio::sync::oneshot;

    /// Somebody else, a child of it, may hold the other end open.
    #[tokio::test]
    async fn what_a_process_wrote_last_is_read_though_nobody_has_told_of_it() {
        let (held_open, stream) = pipe().expect("a pipe");
        let (end, ended) = oneshot::channel();
        let words = "x".repeat(10_000);
        rustix::io::write(&held_open, words.as_bytes()).expect("room");
        drop::<oneshot::Sender<()>>(end);
        // Nothing was awaited: the runtime has not looked at the pipe yet.
        let mut read = String::new();
        UntilEnd { stream, ended }.read_to_string(&mut read).await.expect("text");
        assert_eq!(read, words);
    }
}
