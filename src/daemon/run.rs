//! The daemon: lock, state, control socket, loop, and an end that leaves everything running.

use crate::api;
use crate::api::figures::Figures;
use crate::api::recorder::Recorder;
use crate::config::settings::OnShutdown;
use crate::daemon::edges::ServedEdges;
use crate::daemon::editor::FileEditor;
use crate::daemon::first::{Attentive, FirstWords};
use crate::daemon::handover::{CONTROL, Handover};
use crate::daemon::listeners::Begin;
use crate::daemon::logging::Log;
use crate::daemon::observer::Journal;
use crate::daemon::reload::live::{Live, Loaded};
use crate::daemon::reload::{self, Begun, Listening, Signals, Triggers};
use crate::daemon::serving::{self, Serving};
use crate::daemon::settings_editor::ConfEditor;
use crate::daemon::supervision::{self, Start};
use crate::daemon::{Home, dashboard, listeners, message, tls, usage, watch};
use crate::docker::DockerEngine;
use crate::execute::Limits;
use crate::gateway::Gateway;
use crate::host::ThisHost;
use crate::host::clock::SystemClock;
use crate::host::lock::{self, Attempt, Owner};
use crate::host::systemd::Manager;
use crate::model::policy::Ending;
use crate::reconcile::Reconciler;
use crate::service::{Handle, Service};
use crate::store::SqliteStore;
use crate::terminal::failure::{Exit, Failure};
use crate::usage::Usage;
use crate::world::{Clock, Edges, Engine, Store, World};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot, watch as channel};
use tokio::task::JoinHandle;

/// Actions under way at the end are given this long.
const STOP_GRACE: Duration = Duration::from_secs(20);
/// Each part of [`OnShutdown`] beyond `keep` is given this long.
const WIND_DOWN_WITHIN: Duration = Duration::from_secs(240);
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
pub async fn run(home: Home, (handover, log): (Handover, Log)) -> Result<(), Failure> {
    let signals = Signals::take()?;
    let (manager, handover) = (handover.manager().clone(), Arc::new(handover));
    let mut terminated = terminated(manager.clone());
    let going = tokio::spawn(supervision::goes_on(manager.clone()));
    let (clock, socket): (Arc<dyn Clock>, _) = (Arc::new(SystemClock), home.places.socket(&home.stack));
    let owner = Owner { pid: std::process::id(), socket: Some(socket.clone()), since: clock.now() };
    let engine = Arc::new(home.engine());
    let names = home.engine_names(&engine).await;
    let _guard = lock_stack(&home, &names, &owner)?;
    let opened = home.open_store()?;
    let listener = listen(&socket, &handover)?;
    let store = Arc::new(opened.store);
    let (recorder, used) = dashboard::records(&home, &store, &clock).await?;
    let (policy, certificate, known) = Loaded::of(&home)?.parted();
    let begun = reload::begin(&home, &store, opened.key, known.tokens_sha256.as_deref()).await;
    let Serving { gateway, edges, front, sources, opener } =
        serving::start((&home, policy, certificate), &engine, &store, &begun.wishes, &handover).await?;
    serving::open_again(&edges, &opened.memory.leases, &begun.wishes.borrow());
    let world = world(&home, &opener.first, store, &edges).await;
    let figures = Arc::new(Figures::new(owner.since, Arc::clone(&home.calls)));
    let noted = (recorder.clone(), Arc::clone(&figures));
    let tell = dashboard::teller(noted.clone(), Arc::clone(&gateway.shared().memory));
    let limits = Limits::new(home.parallel());
    let reconciler = Reconciler::new(world, limits.clone(), tell, opened.memory);
    let listening = Listening::new(home.settings.dashboard.host, handover.held_at(), known.shipped);
    let ((first, first_pass), (tried, listeners)) = (oneshot::channel(), mpsc::channel(1));
    let journal = Journal::new(manager.clone(), first, begun.told.subscribe(), noted.clone());
    let (service, handle) = Service::new(reconciler, clock, begun.wishes.subscribe(), journal);
    let _first = opener.requests.set(handle.requests.clone());
    log_started(&home, &socket);
    let (home, changed, (reread, asked)) = (Arc::new(home), Arc::default(), mpsc::channel(REREADS_MAX));
    let _watcher = watch_files(&home, &changed);
    let following = serving::follow_places(Arc::clone(&gateway), begun.wishes.subscribe(), handle.clone());
    let (end, ending) = channel::channel(false);
    let told = (noted, used.clone(), ending.clone(), dashboard::about(&home, known.shipped));
    let counting = used.clone().run(usage::sources((&home, &engine), &opener, &gateway, &handle));
    let context = context((&handle, &gateway, &engine), (&begun, &log, reread, listening), told);
    let on_shutdown = begun.on_shutdown.subscribe();
    let panel = dashboard::mount(&home, &front, &context, known.credentials.clone())?;
    let live = Live::new(&home, (&front, panel), &sources, (limits, log.level.clone()), &known);
    let noting = dashboard::note_configurations(begun.told.subscribe(), recorder);
    let reloader = begun.reloader(&home, live, handle.snapshot.clone(), (listening, &handover, known));
    let start = Start { going, listeners, first: first_pass, edges: Arc::clone(&edges) };
    let begin = Begin { handover: Arc::clone(&handover), tried };
    let listeners = tokio::spawn(listeners::serve(Arc::clone(&home), (front, sources), begin, ending));
    let tasks = [
        tokio::spawn(api::serve(listener, context.clone())),
        tokio::spawn(following),
        tokio::spawn(supervision::watchdog(manager.clone(), Arc::clone(&handle.pulse), socket.clone())),
        tokio::spawn(supervision::ready(handover, start)),
        tokio::spawn(serving::forget_others(Arc::clone(&edges), handle.snapshot.clone())),
        tokio::spawn(watch_engine(Arc::clone(&engine), handle)),
        tokio::spawn(noting),
        tokio::spawn(counting),
        tokio::spawn(reloader.run(Triggers { signals, changed, asked })),
        tokio::spawn(log.clone().run()),
    ];
    // What it locks stays locked until the end of this function.
    let mut late = std::pin::pin!(lock_late(&home, engine, &names, &owner));
    let mut refused = None;
    let mut service = service.run(stopped(&mut terminated, &mut late, &mut refused), STOP_GRACE).await;
    let on_shutdown = if refused.is_none() { *on_shutdown.borrow() } else { OnShutdown::Keep };
    let ways_in = WaysIn { edges, listeners, end, gateway, balanced: home.settings.balancer_on() };
    ways_in.close(&mut service, on_shutdown).await;
    opener.processes.all_ended().await;
    used.flush().await;
    ended(tasks, (&socket, &manager), (&log, on_shutdown));
    refused.map_or(Ok(()), |other| Err(held(&home, other.as_ref())))
}

/// Resolves when the daemon must end; `refused` says why when it is not wanted.
async fn stopped(
    terminated: &mut oneshot::Receiver<()>,
    late: impl Future<Output = Option<Owner>>,
    refused: &mut Option<Option<Owner>>,
) {
    tokio::select! {
        _asked = terminated => {}
        other = late => *refused = Some(other),
    }
}

/// The last words.
fn ended<const N: usize>(
    tasks: [JoinHandle<()>; N],
    (socket, manager): (&Path, &Manager),
    (log, on_shutdown): (&Log, OnShutdown),
) {
    for task in tasks {
        task.abort();
    }
    leave(socket, manager);
    log.repeats.tell(true);
    let containers = if on_shutdown == OnShutdown::Stop { "were stopped" } else { "go on running" };
    tracing::info!(MESSAGE_ID = message::STOPPED.id, "stopped; containers {containers}");
}

/// What is kept of what happens: tasks and audit, and counts.
type Noted = (Recorder, Arc<Figures>);

/// What the API answers from.
fn context(
    (handle, gateway, engine): (&Handle, &Arc<Gateway>, &Arc<DockerEngine>),
    (begun, log, reread, listening): (&Begun, &Log, mpsc::Sender<oneshot::Sender<()>>, Listening),
    ((recorder, figures), usage, ending, about): (Noted, Usage, channel::Receiver<bool>, Arc<api::About>),
) -> api::Context {
    api::Context {
        handle: handle.clone(),
        wishes: begun.wishes.subscribe(),
        gateway: Arc::clone(gateway),
        engine: Arc::clone(engine) as Arc<dyn Engine>,
        reread,
        configuration: begun.told.subscribe(),
        level: Arc::new(log.level.clone()),
        editor: Arc::new(FileEditor::new(
            begun.homes.subscribe(),
            begun.key.clone(),
            begun.told.subscribe(),
            handle.requests.clone(),
        )),
        settings: Arc::new(ConfEditor::new(
            begun.homes.subscribe(),
            begun.key.clone(),
            begun.told.subscribe(),
            handle.requests.clone(),
            listening,
        )),
        files: begun.files.subscribe(),
        discovery: begun.discovery.clone(),
        recorder,
        figures,
        usage,
        ending,
        about,
        kept: Arc::default(),
    }
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

fn lock_stack(home: &Home, names: &[String], owner: &Owner) -> Result<lock::Guard, Failure> {
    match lock::try_lock(&home.stack, names, owner) {
        Ok(Attempt::Locked(guard)) => Ok(guard),
        Ok(Attempt::Held(other)) => Err(held(home, other.as_ref())),
        Err(error) => Err(Failure::world(error, Exit::Failed)),
    }
}

/// An engine that did not answer at the start is locked by its own id once it does. Resolves when
/// another process has it by that name: then this one must not go on.
async fn lock_late(home: &Home, engine: Arc<DockerEngine>, known: &[String], owner: &Owner) -> Option<Owner> {
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

/// The whole world; ports that were taken over and not asked for yet are there to be given away.
async fn world(
    home: &Home,
    first: &Arc<FirstWords>,
    store: Arc<SqliteStore>,
    edges: &Arc<ServedEdges>,
) -> World {
    let served = Some(Arc::clone(edges) as Arc<dyn Edges>);
    let edges = Arc::clone(edges);
    let host = Arc::new(ThisHost::holding(Arc::new(move || edges.listeners.adopted())));
    World {
        host,
        ..home.world(Arc::new(Attentive(Arc::clone(first))), store as Arc<dyn Store>, served).await
    }
}

/// Takes the control socket over, or makes it; what a dead daemon left behind goes (the lock says it
/// is dead).
fn listen(path: &Path, handover: &Handover) -> Result<tokio::net::UnixListener, Failure> {
    let failure = |what: &str, error: &std::io::Error| {
        Failure::new(Exit::Failed, format!("{what} {}", path.display())).cause(error.to_string())
    };
    if let Some(before) = handover.control(path) {
        return tokio::net::UnixListener::from_std(before)
            .map_err(|error| failure("going on listening on", &error));
    }
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(|error| failure("making the directory of", &error))?;
    }
    let _absent = std::fs::remove_file(path);
    let listener = tokio::net::UnixListener::bind(path).map_err(|error| failure("listening on", &error))?;
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))
        .map_err(|error| failure("setting the mode of", &error))?;
    handover.keep(CONTROL, &listener);
    Ok(listener)
}

/// What clients come in by, for the end.
struct WaysIn {
    edges: Arc<ServedEdges>,
    listeners: tokio::task::JoinHandle<()>,
    end: channel::Sender<bool>,
    gateway: Arc<Gateway>,
    /// Whether there is a load balancer to leave.
    balanced: bool,
}

impl WaysIn {
    /// No client is sent here any more, requests under way end, and then what they need.
    async fn close(self, service: &mut Service<Journal>, on_shutdown: OnShutdown) {
        if on_shutdown != OnShutdown::Keep && self.balanced {
            wind_down(service, Ending::Leave).await;
        }
        self.end.send_replace(true);
        let _ended = tokio::join!(self.edges.listeners.shutdown(), self.listeners);
        self.gateway.stop().await;
        if on_shutdown == OnShutdown::Stop {
            wind_down(service, Ending::Stop).await;
        }
    }
}

async fn wind_down(service: &mut Service<Journal>, ending: Ending) {
    if !service.wind_down(ending, WIND_DOWN_WITHIN).await {
        let what = if ending == Ending::Leave { "leaving the load balancer" } else { "stopping containers" };
        tracing::warn!("{what} is not finished; the next start goes on from what it finds");
    }
}

/// A socket that is left behind is harmless, but nobody should talk to it. What a manager keeps the
/// process after this one takes over.
fn leave(socket: &Path, manager: &Manager) {
    if !manager.is_there() {
        let _gone = std::fs::remove_file(socket);
    }
}

fn watch_files(home: &Home, reload: &Arc<Notify>) -> Option<notify::RecommendedWatcher> {
    let tokens = home.settings.gateway.tokens_file.clone().map(PathBuf::from);
    let pair = tls::named(home).map(|(certificate, key)| [certificate, key]);
    let files: Vec<PathBuf> = [home.places.config.clone(), home.places.settings.clone()]
        .into_iter()
        .chain(tokens)
        .chain(pair.into_iter().flatten())
        .collect();
    let reload = Arc::clone(reload);
    match watch::files(&files, move || reload.notify_one()) {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!("file changes are noticed by SIGHUP only: {error}");
            None
        }
    }
}

async fn watch_engine(engine: Arc<DockerEngine>, handle: Handle) {
    watch::engine(engine, move || handle.wake()).await;
}

/// Hears SIGTERM and SIGINT from now on and resolves at the first of them. The manager hears of it at
/// once, and then that the end takes its time.
fn terminated(manager: Manager) -> oneshot::Receiver<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (tell, told) = oneshot::channel();
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    tokio::spawn(async move {
        let (Ok(mut term), Ok(mut int)) = signals else { return std::future::pending().await };
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        manager.stopping();
        manager.status("stopping: requests and actions under way are finished");
        let _ended_already = tell.send(());
        supervision::goes_on(manager).await;
    });
    told
}
