//! A local stdio server: one process and everything it starts.
//!
//! The child leads a process group of its own. Launchers such as `npx`, `uvx` or a shell start the
//! real server as a child of theirs; ending only the launcher would leave that one behind. So the
//! whole group is ended: on [`Process::stop`], when the [`Process`] is dropped, and when the child
//! ends by itself.
//!
//! A grandchild that left the group may hold the child's pipes open for ever. The child's output
//! therefore ends when the child has ended and everything in the pipe was read.
//!
//! Must never put arguments or environment into an error, and never signal a group once it was
//! ended: its number may then be somebody else's.

use crate::upstream::leg::LegIo;
use crate::world::{ErrorKind, WorldError};
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::process::Child;
use tokio::sync::{oneshot, watch};

/// How long a process has to end after its input was closed, and again after SIGTERM.
pub const STOP_GRACE: Duration = Duration::from_secs(5);
/// How long to wait for the end of a process that got SIGKILL; only a process stuck in the kernel
/// takes longer.
pub const KILL_WAIT: Duration = Duration::from_secs(5);

/// A process to start.
#[derive(Clone, PartialEq, Eq)]
pub struct Command {
    /// The program: a path, or a name looked up on the `PATH` of `env`.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its whole environment; nothing of ours is added.
    pub env: BTreeMap<String, String>,
    /// Its working directory; ours when `None`.
    pub cwd: Option<PathBuf>,
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command")
            .field("program", &self.program)
            .field("args", &self.args.len())
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .field("cwd", &self.cwd)
            .finish()
    }
}

/// A running process; dropping it kills its whole group.
#[derive(Debug)]
pub struct Process {
    group: Arc<Group>,
    ended: watch::Receiver<Option<String>>,
}

impl Process {
    /// The id of the process, which is also the id of its group.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.group.leader.as_raw_nonzero().get().unsigned_abs()
    }

    /// Resolves when the process has ended, with how: `exited with code 1`.
    pub async fn ended(&mut self) -> String {
        match self.ended.wait_for(Option::is_some).await {
            Ok(how) => how.clone().unwrap_or_default(),
            Err(_runtime_is_gone) => "ended with the runtime".to_owned(),
        }
    }

    /// Ends the process and its group, and says how it ended. Its input must have been closed
    /// before (by dropping or ending its leg): that is how a stdio server is asked to end.
    ///
    /// Waits `asked` for that, which is what remains when the leg has waited before; then sends
    /// SIGTERM, waits `terminated`, then sends SIGKILL. [`STOP_GRACE`] is the usual grace.
    pub async fn stop(mut self, asked: Duration, terminated: Duration) -> String {
        for (grace, signal) in [(asked, Signal::TERM), (terminated, Signal::KILL)] {
            if let Ok(how) = tokio::time::timeout(grace, self.ended()).await {
                return how;
            }
            self.group.signal(signal);
        }
        let how = tokio::time::timeout(KILL_WAIT, self.ended()).await;
        how.unwrap_or_else(|_stuck| "did not end after SIGKILL".to_owned())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.group.end();
    }
}

/// A process group that is signalled only while it is ours.
#[derive(Debug)]
struct Group {
    leader: Pid,
    /// True once the leader was reaped and, at once after that, the rest was killed.
    over: Mutex<bool>,
}

impl Group {
    fn signal(&self, signal: Signal) {
        let over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        if !*over {
            let _gone = kill_process_group(self.leader, signal);
        }
    }

    /// Kills what is left of it.
    fn end(&self) {
        self.signal(Signal::KILL);
    }

    /// Kills what is left of it for the last time.
    fn close(&self) {
        let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut *over, true) {
            let _gone = kill_process_group(self.leader, Signal::KILL);
        }
    }
}

/// Starts a process with piped streams, as the leader of a new process group.
///
/// Must be called within a tokio runtime.
///
/// # Errors
/// Which program could not be started, and why.
pub fn spawn(command: &Command) -> Result<(LegIo, Process), WorldError> {
    let mut child = prepared(command)?.spawn().map_err(|error| not_started(command, &error))?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let (Some(leader), (Some(stdin), Some(stdout), Some(stderr))) = (leader, pipes) else {
        return Err(not_started(command, &io::Error::other("its streams are missing")));
    };
    let group = Arc::new(Group { leader, over: Mutex::new(false) });
    let (tell, ended) = watch::channel(None);
    let (last_out, out_may_end) = oneshot::channel();
    let (last_err, err_may_end) = oneshot::channel();
    let guard = Guard(Arc::clone(&group));
    tokio::spawn(async move {
        let how = wait(child).await;
        drop(guard);
        tell.send_replace(Some(how));
        drop((last_out, last_err));
    });
    let io = LegIo {
        stdout: Box::new(UntilEnd { stream: stdout, ended: out_may_end }),
        stdin: Box::new(stdin),
        stderr: Some(Box::new(UntilEnd { stream: stderr, ended: err_may_end })),
    };
    Ok((io, Process { group, ended }))
}

fn prepared(command: &Command) -> Result<tokio::process::Command, WorldError> {
    let mut prepared = tokio::process::Command::new(&command.program);
    prepared.args(&command.args).env_clear().envs(&command.env);
    prepared.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    prepared.process_group(0).kill_on_drop(true);
    if let Some(cwd) = &command.cwd {
        if !cwd.is_dir() {
            let cause = format!("its working directory {} is not there", cwd.display());
            return Err(WorldError::new(doing(command), ErrorKind::NotFound, cause));
        }
        prepared.current_dir(cwd);
    }
    Ok(prepared)
}

fn doing(command: &Command) -> String {
    format!("starting process {}", command.program)
}

fn not_started(command: &Command, error: &io::Error) -> WorldError {
    let (kind, cause) = match error.kind() {
        io::ErrorKind::NotFound if command.program.contains('/') => {
            (ErrorKind::NotFound, "there is no such file; check the path in the entry's command".to_owned())
        }
        io::ErrorKind::NotFound => (
            ErrorKind::NotFound,
            "no such program on the PATH; install it or write its full path as the entry's command"
                .to_owned(),
        ),
        io::ErrorKind::PermissionDenied => {
            (ErrorKind::Denied, "it may not be executed; check the file's mode and owner".to_owned())
        }
        io::ErrorKind::InvalidInput => {
            (ErrorKind::Invalid, "its command, arguments or environment hold a NUL character".to_owned())
        }
        io::ErrorKind::ArgumentListTooLong => {
            (ErrorKind::Invalid, "its arguments and environment are too long".to_owned())
        }
        _ => (ErrorKind::Failed, error.to_string()),
    };
    WorldError::new(doing(command), kind, cause)
}

/// Ends the group even when the task that waits for its leader is dropped with the runtime.
struct Guard(Arc<Group>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.close();
    }
}

async fn wait(mut child: Child) -> String {
    match child.wait().await {
        Ok(status) => how(status),
        Err(error) => format!("could not be waited for: {error}"),
    }
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// A pipe that also ends when its process has ended and nothing is left in it.
struct UntilEnd<S> {
    stream: S,
    ended: oneshot::Receiver<()>,
}

impl<S: AsyncRead + Unpin> AsyncRead for UntilEnd<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, buffer) {
            return Poll::Ready(read);
        }
        if self.ended.is_terminated() {
            return Poll::Ready(Ok(()));
        }
        if Pin::new(&mut self.ended).poll(cx).is_pending() {
            return Poll::Pending;
        }
        // What it wrote last may have come in between the two looks.
        match Pin::new(&mut self.stream).poll_read(cx, buffer) {
            Poll::Ready(read) => Poll::Ready(read),
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

    /// Far beyond what anything here takes, so that what never comes fails instead of hanging.
    const LONG: Duration = Duration::from_secs(60);

    fn shell(script: &str) -> Command {
        Command {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into()), ("ONLY".into(), "this".into())]),
            cwd: Some("/".into()),
        }
    }

    async fn all(stream: impl AsyncRead + Unpin) -> String {
        let (mut stream, mut text) = (stream, String::new());
        tokio::time::timeout(LONG, stream.read_to_string(&mut text)).await.expect("in time").expect("text");
        text
    }

    /// Resolves when the process is no more.
    async fn gone(id: i32) {
        let pid = Pid::from_raw(id).expect("id");
        let dead = async {
            while rustix::process::test_kill_process(pid).is_ok() && !zombie(id) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LONG, dead).await.expect("it is gone");
    }

    /// Nobody reaps orphans in some containers.
    fn zombie(id: i32) -> bool {
        std::fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| stat.contains(") Z "))
    }

    /// The shell's grandchild reports its id.
    async fn with_grandchild(script: &str) -> (LegIo, Process, i32) {
        let (mut io, process) = spawn(&shell(script)).expect("started");
        let mut lines = BufReader::new(io.stdout).lines();
        let line = tokio::time::timeout(LONG, lines.next_line()).await.expect("in time");
        let id = line.expect("text").expect("a line").parse().expect("an id");
        io.stdout = Box::new(lines.into_inner());
        (io, process, id)
    }

    #[tokio::test]
    async fn streams_are_apart_and_the_environment_is_ours() {
        let script = "read line; echo \"out $line\"; echo \"err $HOME$ONLY\" >&2; pwd; exit 3";
        let (io, mut process) = spawn(&shell(script)).expect("started");
        let LegIo { stdout, mut stdin, stderr } = io;
        stdin.write_all(b"hello\n").await.expect("written");
        let (out, err) = tokio::join!(all(stdout), all(stderr.expect("stderr")));
        assert_eq!((out.as_str(), err.as_str()), ("out hello\n/\n", "err this\n"));
        assert_eq!(process.ended().await, "exited with code 3");
        assert_eq!(process.stop(STOP_GRACE, STOP_GRACE).await, "exited with code 3");
    }

    #[tokio::test]
    async fn a_dropped_process_takes_its_whole_group_along() {
        let (_io, process, grandchild) =
            with_grandchild("sleep 1000 & echo $!; trap '' TERM; sleep 1000").await;
        let leader = i32::try_from(process.id()).expect("id");
        drop(process);
        gone(grandchild).await;
        gone(leader).await;
    }

    #[tokio::test]
    async fn what_a_child_leaves_behind_ends_with_it() {
        let (io, mut process, grandchild) = with_grandchild("sleep 1000 & echo $!; exit 0").await;
        assert_eq!(process.ended().await, "exited with code 0");
        gone(grandchild).await;
        assert_eq!(all(io.stdout).await, "");
    }

    #[tokio::test]
    async fn a_pipe_held_outside_the_group_hangs_nobody() {
        let script = "setsid sleep 1000 & echo $!; printf last; exit 0";
        let (io, _process, outsider) = with_grandchild(script).await;
        assert_eq!(all(io.stdout).await, "last");
        let _gone = rustix::process::kill_process(Pid::from_raw(outsider).expect("id"), Signal::KILL);
    }

    #[tokio::test]
    async fn stopping_asks_thrice() {
        let grace = Duration::from_millis(50);
        let (io, process) = spawn(&shell("cat >/dev/null; exit 7")).expect("started");
        drop(io.stdin);
        assert_eq!(process.stop(LONG, LONG).await, "exited with code 7");
        let (_io, process) = spawn(&shell("exec sleep 1000")).expect("started");
        assert_eq!(process.stop(grace, grace).await, "was ended by signal 15");
        let (_io, process, grandchild) =
            with_grandchild("trap '' TERM; sleep 1000 & echo $!; while true; do sleep 1; done").await;
        assert_eq!(process.stop(grace, grace).await, "was ended by signal 9");
        gone(grandchild).await;
    }

    #[tokio::test]
    async fn what_cannot_be_started_is_named_without_its_arguments() {
        let mut command = shell("SECRET");
        command.env.insert("TOKEN".into(), "SECRET".into());
        for (program, cwd, kind, words) in [
            ("no-such-program-here", "/", ErrorKind::NotFound, "on the PATH"),
            ("/no/such/file", "/", ErrorKind::NotFound, "no such file"),
            ("/etc/passwd", "/", ErrorKind::Denied, "executed"),
            ("/bin/sh", "/no/such/folder", ErrorKind::NotFound, "working directory /no/such/folder"),
        ] {
            command.program = program.into();
            command.cwd = Some(cwd.into());
            let error = spawn(&command).expect_err(program);
            let text = error.to_string();
            assert_eq!(error.kind, kind, "{text}");
            assert!(text.contains(words) && text.contains(program) && !text.contains("SECRET"), "{text}");
        }
        let shown = format!("{command:?}");
        assert!(shown.contains("TOKEN") && !shown.contains("SECRET"), "{shown}");
    }
}
