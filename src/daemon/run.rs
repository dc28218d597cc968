//! The daemon: lock, state, control socket, loop, and an end that leaves everything running.

use crate::api;
use crate::daemon::observer::{Journal, log_step};
use crate::daemon::serving::{self, Serving};
use crate::daemon::{Home, files, listeners, message, watch};
use crate::execute::{Limits, Teller};
use crate::host::clock::SystemClock;
use crate::host::lock::{self, Attempt, Owner};
use crate::model::desired::Desired;
use crate::reconcile::Reconciler;
use crate::service::{Handle, Service, Wish};
use crate::terminal::failure::{Exit, Failure};
use crate::world::{Clock, Edges, Store};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot, watch as channel};

/// Actions under way at the end are given this long.
const STOP_GRACE: Duration = Duration::from_secs(20);
/// A file that changes is read when it has been quiet this long.
const QUIET: Duration = Duration::from_millis(100);
/// Requests to read the files at once that may wait.
const REREADS_MAX: usize = 16;
/// Names of an engine that locks are taken for: its address and its id.
const ENGINE_NAMES: usize = 2;
/// Between two tries to learn the id of an engine that did not answer at the start.
const LATE_LOCK_AGAIN: Duration = Duration::from_secs(2);
/// The control socket is for its owner and group.
const SOCKET_MODE: u32 = 0o660;

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// What keeps the daemon from starting.
pub async fn run(home: Home) -> Result<(), Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let socket = home.places.socket(&home.stack);
    let owner = Owner { pid: std::process::id(), socket: Some(socket.clone()), since: clock.now() };
    let engine = Arc::new(home.engine());
    let names = home.engine_names(&engine).await;
    let _guard = match lock::try_lock(&home.stack, &names, &owner) {
        Ok(Attempt::Locked(guard)) => guard,
        Ok(Attempt::Held(other)) => return Err(held(&home, other.as_ref())),
        Err(error) => return Err(Failure::world(error, Exit::Failed)),
    };
    let opened = home.open_store()?;
    let listener = listen(&socket)?;
    let key = opened.key.clone();
    let read = files::read(&home, &key).await;
    log_problems(&read);
    let desired = files::follow(&read, None);
    let (wishes, wish) = channel::channel(Arc::new(first_wish(&home, desired)));
    let store = Arc::new(opened.store);
    let Serving { gateway, edges, front, sources, opener } =
        serving::start(&home, &engine, &store, wishes.subscribe()).await?;
    let served = Some(Arc::clone(&edges) as Arc<dyn Edges>);
    let world = home.world(Arc::clone(&engine), Arc::clone(&store) as Arc<dyn Store>, served).await;
    let tell: Teller = Arc::new(|action, step| log_step(action, &step));
    let reconciler = Reconciler::new(world, Limits::new(home.parallel()), tell, opened.memory);
    let (service, handle) = Service::new(reconciler, clock, wish, Journal::default());
    let _first = opener.requests.set(handle.requests.clone());
    log_started(&home, &socket);
    let home = Arc::new(home);
    let reload = Arc::new(Notify::new());
    let (reread, asked) = mpsc::channel(REREADS_MAX);
    let _watcher = watch_files(&home, &reload);
    let following = serving::follow_places(Arc::clone(&gateway), wishes.subscribe(), handle.snapshot.clone());
    let context = api::Context {
        handle: handle.clone(),
        wishes: wishes.subscribe(),
        gateway: Arc::clone(&gateway),
        reread,
    };
    let (end, ending) = channel::channel(false);
    let listeners = tokio::spawn(listeners::serve(Arc::clone(&home), front, sources, ending));
    let tasks = [
        tokio::spawn(api::serve(listener, context)),
        tokio::spawn(following),
        tokio::spawn(watch_engine(Arc::clone(&engine), handle)),
        tokio::spawn(reload_files(Arc::clone(&home), key, wishes, (Arc::clone(&reload), asked))),
        tokio::spawn(hang_up(reload)),
    ];
    // What it locks stays locked until the end of this function.
    let mut late = std::pin::pin!(lock_late(&home, engine, &names, &owner));
    let mut refused = None;
    let stop = async {
        tokio::select! {
            () = terminated() => {}
            other = &mut late => refused = Some(other),
        }
    };
    service.run(stop, STOP_GRACE).await;
    end.send_replace(true);
    let _ended = tokio::join!(edges.listeners.shutdown(), listeners);
    gateway.stop().await;
    for task in tasks {
        task.abort();
    }
    // A socket that is left behind is harmless, but nobody should talk to it.
    let _gone = std::fs::remove_file(&socket);
    tracing::info!(MESSAGE_ID = message::STOPPED.id, "stopped; containers go on running");
    refused.map_or(Ok(()), |other| Err(held(&home, other.as_ref())))
}

fn first_wish(home: &Home, desired: Arc<Desired>) -> Wish {
    let interval = home.settings.service.reconciliation_interval;
    Wish { desired, policy: home.policy(), generation: 1, interval }
}

fn log_started(home: &Home, socket: &Path) {
    tracing::info!(
        MESSAGE_ID = message::STARTED.id,
        stack = %home.stack,
        config = %home.places.config.display(),
        socket = %socket.display(),
        "mcp-orchestrator {} started",
        env!("CARGO_PKG_VERSION")
    );
}

/// An engine that did not answer at the start is locked by its own id once it does. Resolves when
/// another process has it by that name: then this one must not go on.
async fn lock_late(
    home: &Home,
    engine: Arc<crate::docker::DockerEngine>,
    known: &[String],
    owner: &Owner,
) -> Option<Owner> {
    let mut guards = Vec::new();
    while known.len() + guards.len() < ENGINE_NAMES {
        tokio::time::sleep(LATE_LOCK_AGAIN).await;
        let Ok(id) = engine.id().await else { continue };
        // An engine without an id has its address only.
        let Some(id) = id else { break };
        match lock::try_lock(&home.stack, &[crate::daemon::id_name(&id)], owner) {
            Ok(Attempt::Locked(guard)) => guards.push(guard),
            Ok(Attempt::Held(other)) => return other,
            Err(error) => tracing::warn!(MCP_ERROR_CODE = error.kind.code(), "{error}"),
        }
    }
    // Held as long as the loop runs.
    std::future::pending().await
}

fn held(home: &Home, other: Option<&Owner>) -> Failure {
    let who = other.map_or_else(|| "another process".to_owned(), |owner| format!("process {}", owner.pid));
    Failure::new(
        Exit::Failed,
        format!("{who} already works on stack '{}' of engine {}", home.stack, home.docker_host),
    )
    .hint("one daemon or one-shot run per engine and stack: use `sync`, or set [service] stack")
}

/// Makes the control socket; what a dead daemon left behind goes (the lock says it is dead).
fn listen(path: &Path) -> Result<tokio::net::UnixListener, Failure> {
    let failure = |what: &str, error: &std::io::Error| {
        Failure::new(Exit::Failed, format!("{what} {}", path.display())).cause(error.to_string())
    };
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(|error| failure("making the directory of", &error))?;
    }
    let _absent = std::fs::remove_file(path);
    let listener = tokio::net::UnixListener::bind(path).map_err(|error| failure("listening on", &error))?;
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))
        .map_err(|error| failure("setting the mode of", &error))?;
    Ok(listener)
}

fn log_problems(read: &files::Read) {
    for problem in &read.loaded.problems {
        let server = problem.server.clone().unwrap_or_default();
        tracing::warn!(MCP_SERVER = server, MCP_ERROR_CODE = problem.code, "{problem}");
    }
}

fn watch_files(home: &Home, reload: &Arc<Notify>) -> Option<notify::RecommendedWatcher> {
    let files: Vec<PathBuf> = vec![home.places.config.clone(), home.places.settings.clone()];
    let reload = Arc::clone(reload);
    match watch::files(&files, move || reload.notify_one()) {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!("file changes are noticed by SIGHUP only: {error}");
            None
        }
    }
}

async fn watch_engine(engine: Arc<crate::docker::DockerEngine>, handle: Handle) {
    watch::engine(engine, move || handle.wake()).await;
}

/// Reads the files again when one may have changed, or at once when somebody asks, and publishes
/// the wish when it did.
async fn reload_files(
    home: Arc<Home>,
    key: crate::model::fingerprint::HashKey,
    wishes: channel::Sender<Arc<Wish>>,
    (reload, mut asked): (Arc<Notify>, mpsc::Receiver<oneshot::Sender<()>>),
) {
    let mut home = home;
    loop {
        let reply = tokio::select! {
            () = reload.notified() => {
                tokio::time::sleep(QUIET).await;
                None
            }
            Some(reply) = asked.recv() => Some(reply),
            // Where the kernel gives no watch, the timer notices.
            () = tokio::time::sleep(Duration::from_millis(wishes.borrow().interval.0)) => None,
        };
        home = Arc::new(again(&home));
        read_again(&home, &key, &wishes).await;
        if let Some(reply) = reply {
            let _gone = reply.send(());
        }
    }
}

async fn read_again(
    home: &Home,
    key: &crate::model::fingerprint::HashKey,
    wishes: &channel::Sender<Arc<Wish>>,
) {
    let read = files::read(home, key).await;
    let last = Arc::clone(&wishes.borrow());
    let good: Option<&Arc<Desired>> = Some(&last.desired);
    let desired = files::follow(&read, good);
    let policy = home.policy();
    if *desired == *last.desired && policy == last.policy {
        return;
    }
    log_problems(&read);
    let generation = last.generation + u64::from(desired.stale.is_none());
    let interval = home.settings.service.reconciliation_interval;
    tracing::info!(MESSAGE_ID = message::CONFIGURATION_READ.id, generation, "configuration read again");
    wishes.send_replace(Arc::new(Wish { desired, policy, generation, interval }));
}

/// The settings as they are now; the old ones when the new ones cannot be used.
fn again(home: &Home) -> Home {
    match Home::find(home.options.clone()) {
        Ok(new) if new.stack == home.stack && new.docker_host == home.docker_host => new,
        Ok(_moved) => {
            tracing::warn!("stack and docker_host only change with a restart; the settings in force stay");
            home.clone()
        }
        Err(failure) => {
            tracing::warn!("the settings in force stay: {failure}");
            home.clone()
        }
    }
}

/// SIGHUP asks for a reload.
async fn hang_up(reload: Arc<Notify>) {
    let Ok(mut signal) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()) else {
        return;
    };
    while signal.recv().await.is_some() {
        reload.notify_one();
    }
}

/// Resolves at SIGTERM or SIGINT.
async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    let _nobody = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
}
