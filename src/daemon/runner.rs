//! The two other modes of this program: the service that runs local processes for a daemon, and the
//! keeper of one process.
//!
//! Must never read the daemon's files: the service has its user, its sandbox and no settings.

use crate::config::settings::LogFormat;
use crate::daemon::{Options, environment, logging};
use crate::runner::keeper::{self, Given};
use crate::runner::peers::Allowed;
use crate::runner::service::Service;
use crate::runner::{THIS_PROGRAM, base_environment, cgroup, tree};
use crate::terminal::failure::{Exit, Failure};
use rustix::net::sockopt;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net as std_unix;
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixStream};

/// Where users and their ids are.
const PASSWD: &str = "/etc/passwd";
/// Tells keepers, whose error output is ours, that it is the journal's.
const JOURNAL_STREAM: &str = "JOURNAL_STREAM";
/// The socket that we make ourselves is for its owner and group; who asks is looked at, too.
const SOCKET_MODE: u32 = 0o660;
/// What the level of the log is when nobody says.
const LEVEL: &str = "INFO";

/// What the command line says of the service.
#[derive(Clone, Debug, Default)]
pub struct Serve {
    /// `--socket`; standard input is the listening socket when `None`.
    pub socket: Option<PathBuf>,
    /// `--allow-user`.
    pub allow: Vec<String>,
    /// `--delegated`.
    pub delegated: bool,
    /// `--processes-max`.
    pub processes_max: usize,
}

/// Runs the service until SIGTERM or SIGINT.
///
/// # Errors
/// What keeps it from starting.
pub fn serve(options: &Options, serve: &Serve) -> Result<(), Failure> {
    let level = options.log_level.clone().unwrap_or_else(|| LEVEL.to_owned());
    let _level = logging::start(&level, LogFormat::Auto);
    let passwd = std::fs::read_to_string(PASSWD).unwrap_or_default();
    let own = rustix::process::geteuid().as_raw();
    let allowed = Allowed::new(&serve.allow, &passwd, own)
        .map_err(|why| Failure::new(Exit::Usage, "reading --allow-user").cause(why))?;
    if !tree::children_are_known() {
        tracing::warn!("the kernel tells no children (CONFIG_PROC_CHILDREN): who leaves its group may stay");
    }
    let mut args = vec!["--log-level".to_owned(), level, "runner".to_owned(), "--one".to_owned()];
    let cgroup = if serve.delegated { delegated() } else { None };
    if let Some(root) = &cgroup {
        args.extend(["--cgroup".to_owned(), root.display().to_string()]);
    }
    let whole = environment();
    let mut env = base_environment(&whole);
    env.extend(whole.get_key_value(JOURNAL_STREAM).map(|(name, value)| (name.clone(), value.clone())));
    let keeper = (PathBuf::from(THIS_PROGRAM), args);
    let service = Service { allowed, keeper, env, cgroup, processes_max: serve.processes_max };
    block_on(async {
        let listener = match &serve.socket {
            Some(path) => listen(path)?,
            None => inherited()?,
        };
        let ready = || {
            let _nobody = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
            tracing::info!("mcp-orchestrator runner {} takes requests", env!("CARGO_PKG_VERSION"));
        };
        let served = service.run(listener, ready).await;
        served.map_err(|error| Failure::new(Exit::Failed, "running processes").cause(error.to_string()))
    })
}

/// Keeps one process for whoever is at the other end of standard input.
///
/// # Errors
/// When standard input is no connection.
pub fn keep(options: &Options, cgroup: Option<PathBuf>) -> Result<(), Failure> {
    let failure = |error: io::Error| {
        Failure::new(Exit::Usage, "keeping a process for standard input")
            .cause(error.to_string())
            .hint("`runner --one` is started by the daemon and by the runner, with a connection as its input")
    };
    let _level = logging::start(options.log_level.as_deref().unwrap_or(LEVEL), LogFormat::Auto);
    let mut base = environment();
    base = base_environment(&base);
    let given = Given { base, cgroup };
    block_on(async {
        let stream = std_unix::UnixStream::from(standard_input().map_err(failure)?);
        stream.peer_addr().and_then(|_connected| stream.set_nonblocking(true)).map_err(failure)?;
        let stream = UnixStream::from_std(stream).map_err(failure)?;
        keeper::keep(stream, &given).await.map_err(failure)
    })
}

fn delegated() -> Option<PathBuf> {
    let taken = cgroup::own().and_then(|root| cgroup::take_over(&root).map(|()| root));
    taken.inspect_err(|error| tracing::warn!("processes get no control groups of their own: {error}")).ok()
}

/// A copy that is not passed on to what we start.
fn standard_input() -> io::Result<OwnedFd> {
    io::stdin().as_fd().try_clone_to_owned()
}

/// The listening socket that systemd opened for us (`StandardInput=socket`).
fn inherited() -> Result<UnixListener, Failure> {
    let failure = |error: io::Error| {
        Failure::new(Exit::Usage, "taking the listening socket from standard input")
            .cause(error.to_string())
            .hint("mcp-orchestrator-runner.socket gives it; by hand: `mcp-orchestrator runner --socket PATH`")
    };
    let socket = standard_input().map_err(failure)?;
    if !sockopt::socket_acceptconn(&socket).map_err(|error| failure(error.into()))? {
        return Err(failure(io::Error::other("standard input is no listening socket")));
    }
    let listener = std_unix::UnixListener::from(socket);
    listener.set_nonblocking(true).map_err(failure)?;
    UnixListener::from_std(listener).map_err(failure)
}

fn listen(path: &Path) -> Result<UnixListener, Failure> {
    use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
    let failure = |what: &str, error: &io::Error| {
        Failure::new(Exit::Failed, format!("{what} {}", path.display())).cause(error.to_string())
    };
    if std_unix::UnixStream::connect(path).is_ok() {
        let error = io::Error::other("another process listens there");
        return Err(failure("listening on", &error));
    }
    // What a dead runner left; never a file of another kind.
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        let _absent = std::fs::remove_file(path);
    }
    let listener = UnixListener::bind(path).map_err(|error| failure("listening on", &error))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))
        .map_err(|error| failure("setting the mode of", &error))?;
    Ok(listener)
}

/// One thread is enough for either, and a keeper must be small.
fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failed, "starting the runtime").cause(error.to_string()))?;
    runtime.block_on(work)
}
