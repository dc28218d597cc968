//! Reads the files again when one may have changed, and puts what is good in force.
//!
//! ```text
//! SIGHUP ──┐                  settings.conf   broken: all settings in force stay
//! change ──┼─> look ─> read <                 else: what can change applies, the rest waits
//! sync ────┤                  mcp.config.json broken: the last good one stays, nothing is removed
//! timer ───┘                                  else: the next pass follows it
//! ```
//! Each accepted content is a generation. SIGHUP is `systemctl reload`: systemd hears `RELOADING=1`,
//! and `READY=1` when a pass has taken the new generation into account, or at once when it was
//! refused.
//!
//! Must never apply half a file, nor say the same refusal twice.

mod generation;
pub(super) mod live;

use crate::api::FilesView;
use crate::api::configuration::{Configuration, File};
use crate::api::discovery::Discovery;
use crate::config::error::Problem;
use crate::config::settings::OnShutdown;
use crate::config::settings::diff::{self, Changes, Main};
use crate::daemon::finder::finder;
use crate::daemon::handover::Handover;
use crate::daemon::observer::status_line;
use crate::daemon::reload::generation::{Content, Generations};
use crate::daemon::reload::live::{Known, Live, Loaded, Unusable};
use crate::daemon::{Home, dashboard, files, message, now};
use crate::host::systemd::Manager;
use crate::model::desired::Desired;
use crate::model::fingerprint::HashKey;
use crate::service::{Snapshot, Wish};
use crate::store::SqliteStore;
use crate::terminal::failure::{Exit, Failure};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc, oneshot, watch};

/// A file that changes is read when it has been quiet this long.
const QUIET: Duration = Duration::from_millis(100);
/// `systemctl reload` waits this long at most for a pass with the new files.
const TAKEN_WITHIN: Duration = Duration::from_secs(5);
/// The code of a pass that goes by an older mcp.config.json.
const STALE: &str = "MCPO-P002";

/// Why a password is refused while the daemon runs; the address follows.
const EXPOSED: &str = "the dashboard's password is now a shipped one, which everybody can read in the \
    documentation, and others reach the main listener on";

/// Reloads that may wait for the one under way.
const HANG_UPS_MAX: usize = 16;

/// Signals about files and log. Unless they are taken, each of them ends the process.
pub(super) struct Signals {
    hangup: Signal,
    louder: Signal,
    reset: Signal,
}

impl Signals {
    /// Takes SIGHUP, SIGUSR1 and SIGUSR2.
    ///
    /// # Errors
    /// When the system does not give them.
    pub(super) fn take() -> Result<Self, Failure> {
        let take = |kind: SignalKind| {
            signal(kind).map_err(|error| {
                Failure::new(Exit::Failed, "taking signals of the system").cause(error.to_string())
            })
        };
        Ok(Self {
            hangup: take(SignalKind::hangup())?,
            louder: take(SignalKind::user_defined1())?,
            reset: take(SignalKind::user_defined2())?,
        })
    }
}

/// What makes the files be read again.
pub(super) struct Triggers {
    /// Reload, and how much is logged.
    pub signals: Signals,
    /// A file may have changed.
    pub changed: Arc<Notify>,
    /// Somebody wants them read now, and to know when they are.
    pub asked: mpsc::Receiver<oneshot::Sender<()>>,
}

/// Why the files are read.
enum Why {
    /// systemd was told that a reload begins.
    HangUp {
        told: bool,
    },
    Changed,
    Asked(oneshot::Sender<()>),
    Timer,
}

/// The files as the start read them.
pub(in crate::daemon) struct Begun {
    /// The loop's wish.
    pub wishes: watch::Sender<Arc<Wish>>,
    /// What surfaces show of the files.
    pub told: watch::Sender<Arc<Configuration>>,
    /// What the file with the servers says of each.
    pub files: watch::Sender<Arc<FilesView>>,
    /// What the end of the daemon does with servers.
    pub on_shutdown: watch::Sender<OnShutdown>,
    /// The search for servers, for the API.
    pub discovery: Discovery,
    /// The settings in force.
    pub homes: watch::Sender<Arc<Home>>,
    /// Fingerprints are made under it.
    pub key: HashKey,
    generations: Generations,
    problems: Vec<Problem>,
}

/// Puts the files in force.
pub(super) struct Reloader {
    begun: Begun,
    /// The settings in force.
    home: Home,
    live: Live,
    /// What the loop found last.
    snapshot: watch::Receiver<Arc<Snapshot>>,
    /// Hears of a reload's begin and end.
    manager: Manager,
    /// The main listener.
    listening: Listening,
    /// The password that was looked at last.
    known: Known,
    /// What the wish in force was read from.
    seen: Option<files::Source>,
}

/// The main listener, as the start made it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listening {
    /// The address by which it is reached.
    pub at: IpAddr,
    /// The address of systemd's socket unit, where that has it.
    pub held: Option<IpAddr>,
}

impl Listening {
    /// By the settings or the socket unit; with a shipped password on loopback only.
    pub(super) fn new(host: IpAddr, held: Option<IpAddr>, shipped: bool) -> Self {
        let at = held.unwrap_or(host);
        let near = shipped && !at.is_loopback();
        Self { at: if near { IpAddr::from([127, 0, 0, 1]) } else { at }, held }
    }
}

/// What settings.conf says now.
enum Settings {
    /// It can be used: the settings from now on, and what they need.
    Good(Box<(Home, Loaded, Changes)>),
    /// It cannot, and why.
    Refused(String),
}

impl Reloader {
    /// Runs as long as the daemon.
    pub(super) async fn run(mut self, triggers: Triggers) {
        let Triggers { signals: Signals { hangup, mut louder, mut reset }, changed, mut asked } = triggers;
        let (tell, mut hung_up) = mpsc::channel(HANG_UPS_MAX);
        tokio::spawn(hear(hangup, tell, self.manager.clone(), self.snapshot.clone()));
        loop {
            let interval = Duration::from_millis(self.begun.wishes.borrow().interval.0);
            let why = tokio::select! {
                Some(told) = hung_up.recv() => Why::HangUp { told },
                Some(()) = louder.recv() => {
                    self.live.level.louder("SIGUSR1");
                    continue;
                }
                Some(()) = reset.recv() => {
                    self.live.level.reset("SIGUSR2");
                    continue;
                }
                () = changed.notified() => {
                    tokio::time::sleep(QUIET).await;
                    Why::Changed
                }
                Some(reply) = asked.recv() => Why::Asked(reply),
                // Where the kernel gives no watch, the timer notices.
                () = tokio::time::sleep(interval) => Why::Timer,
            };
            match why {
                Why::HangUp { told } => self.reload(told).await,
                Why::Changed | Why::Timer => self.look().await,
                Why::Asked(reply) => {
                    self.look().await;
                    let _gone = reply.send(());
                }
            }
        }
    }

    /// `systemctl reload`, which waits until systemd hears `READY=1`: on every way out.
    async fn reload(&mut self, told: bool) {
        let before = self.begun.told.borrow().generation;
        self.look().await;
        let after = Arc::clone(&self.begun.told.borrow());
        let refused = after.settings.refused.is_some() || after.config.refused.is_some();
        if refused {
            tracing::warn!(
                MCP_GENERATION = before,
                "reload: a file is refused; generation {} is in force",
                after.generation
            );
        } else if before == after.generation {
            tracing::info!(
                MCP_GENERATION = before,
                "reload: nothing changed; generation {before} stays in force"
            );
        }
        let refused =
            |snapshot: &Snapshot| snapshot.report.general.iter().any(|reason| reason.code == Some(STALE));
        let taken = |snapshot: &Arc<Snapshot>| {
            snapshot.generation >= after.generation && refused(snapshot) == after.config.refused.is_some()
        };
        drop(tokio::time::timeout(TAKEN_WITHIN, self.snapshot.wait_for(taken)).await);
        if told {
            let status = status_line(&self.snapshot.borrow(), &after, now());
            self.manager.status(&status);
            self.manager.ready();
        }
    }

    /// Reads both files and puts what is good in force.
    async fn look(&mut self) {
        let mut told = Configuration::clone(&self.begun.told.borrow());
        let mut applied = Vec::new();
        match self.settings() {
            Settings::Refused(why) => told.settings.refused = Some(why),
            Settings::Good(good) => {
                let (home, loaded, changes) = *good;
                told.settings = File {
                    sha256: home.settings_sha256.clone(),
                    refused: None,
                    path: std::mem::take(&mut told.settings.path),
                };
                told.needs_restart = changes.needs_restart;
                self.live.apply(&home, loaded, &changes.applied);
                applied = changes.applied;
                self.begun.on_shutdown.send_replace(home.settings.service.on_shutdown);
                if home.settings_sha256 != self.home.settings_sha256 {
                    self.begun.homes.send_replace(Arc::new(home.clone()));
                }
                self.home = home;
            }
        }
        let read = files::read_changed(&self.home, &self.begun.key, &mut self.seen).await;
        let last = Arc::clone(&self.begun.wishes.borrow());
        // Where nothing changed, everything that was made of it stays what it is.
        let desired = match read {
            Some(read) => self.follow(read, &mut told, &last),
            None => Arc::clone(&last.desired),
        };
        if told.config.sha256.is_some() {
            let content = Content::new(&told, &desired, self.live.tokens());
            told.generation = self.begun.generations.of(&content).await;
        }
        self.publish(told, desired, &applied);
    }

    /// What is to be followed from now on, by a new reading.
    fn follow(&mut self, read: files::Read, told: &mut Configuration, last: &Wish) -> Arc<Desired> {
        let view = dashboard::files_view(&read, &self.begun.files.borrow());
        self.begun.files.send_replace(view);
        let desired = files::follow(&read, Some(&last.desired));
        told.config.refused = read.refused();
        if told.config.refused.is_none() {
            told.config.sha256.clone_from(&read.sha256);
        }
        if self.begun.problems != read.loaded.problems {
            log_problems(&read.loaded.problems);
            self.begun.problems = read.loaded.problems;
        }
        desired
    }

    /// settings.conf, and what it names.
    fn settings(&mut self) -> Settings {
        let read = self.home.read_again().and_then(|new| {
            let shipped = self.known.is_shipped(live::credentials(&new).map_err(Unusable::said)?);
            let Listening { at: listening, held } = self.listening;
            let main = Main { listening, held, shipped };
            let changes = diff::diff(&self.home.settings, &new.settings, main);
            let settings = diff::in_force(&self.home.settings, &new.settings, main);
            let home = Home { settings, ..new };
            let loaded = Loaded::of(&home).map_err(Unusable::said)?;
            // The file with the password may hold another one under the same name.
            if self.known.is_shipped(loaded.credentials.clone()) && !listening.is_loopback() {
                return Err(format!("{EXPOSED} {listening}"));
            }
            Ok((home, loaded, changes))
        });
        read.map_or_else(Settings::Refused, |good| Settings::Good(Box::new(good)))
    }

    /// Tells the loop, the surfaces and the log what is new.
    fn publish(&self, mut told: Configuration, desired: Arc<Desired>, applied: &[&'static str]) {
        let (before, last) = (Arc::clone(&self.begun.told.borrow()), Arc::clone(&self.begun.wishes.borrow()));
        let (policy, generation) = (self.home.policy(), told.generation);
        let interval = self.home.settings.service.reconciliation_interval;
        log_settings(&before, &told);
        if generation != before.generation {
            told.since = now();
            log_accepted(&before, &told, applied);
        }
        let differs = !Arc::ptr_eq(&desired, &last.desired) && *desired != *last.desired
            || policy != last.policy
            || generation != last.generation
            || interval != last.interval;
        // Surfaces first: a status line that comes of the new wish tells of the files as they are.
        if told != *before {
            self.begun.told.send_replace(Arc::new(told));
        }
        if differs {
            self.begun.wishes.send_replace(Arc::new(Wish { desired, policy, generation, interval }));
        }
    }
}

/// Tells systemd of a reload the moment it is asked for, whatever is being read: once `ExecReload=`
/// has ended, systemd takes a reload that it has not heard of for done.
async fn hear(
    mut hangup: Signal,
    tell: mpsc::Sender<bool>,
    manager: Manager,
    snapshot: watch::Receiver<Arc<Snapshot>>,
) {
    while hangup.recv().await.is_some() {
        // Before the first READY=1 that of the reload would be taken for it.
        let started = snapshot.borrow().pass > 0;
        if started {
            manager.reloading();
        }
        if tell.send(started).await.is_err() {
            return;
        }
    }
}

/// Reads mcp.config.json for the first time; fingerprints are made under `key`, `tokens` is the digest
/// of the gateway's tokens.
pub(super) async fn begin(
    home: &Home,
    store: &Arc<SqliteStore>,
    key: HashKey,
    tokens: Option<&str>,
) -> Begun {
    let mut generations = Generations::load(Arc::clone(store)).await;
    let read = files::read(home, &key).await;
    log_problems(&read.loaded.problems);
    let desired = files::follow(&read, None);
    let files = watch::Sender::new(dashboard::files_view(&read, &FilesView::default()));
    let refused = read.refused();
    let config = File {
        path: home.places.config.display().to_string(),
        sha256: read.sha256.filter(|_| refused.is_none()),
        refused,
    };
    let path = home.places.settings.display().to_string();
    let settings = File { path, sha256: home.settings_sha256.clone(), refused: None };
    let mut told = Configuration { generation: 0, since: now(), config, settings, needs_restart: Vec::new() };
    if told.config.sha256.is_some() {
        told.generation = generations.of(&Content::new(&told, &desired, tokens)).await;
    }
    let interval = home.settings.service.reconciliation_interval;
    let wish = Wish { desired, policy: home.policy(), generation: told.generation, interval };
    let homes = watch::Sender::new(Arc::new(home.clone()));
    let (finder, discovery) = finder(homes.subscribe());
    tokio::spawn(finder.run());
    Begun {
        wishes: watch::Sender::new(Arc::new(wish)),
        told: watch::Sender::new(Arc::new(told)),
        files,
        on_shutdown: watch::Sender::new(home.settings.service.on_shutdown),
        discovery,
        homes,
        key,
        generations,
        problems: read.loaded.problems,
    }
}

impl Begun {
    /// Goes on from here, with the parts of the daemon that follow the settings.
    pub(super) fn reloader(
        self,
        home: &Home,
        live: Live,
        snapshot: watch::Receiver<Arc<Snapshot>>,
        (listening, handover, known): (Listening, &Handover, Known),
    ) -> Reloader {
        let manager = handover.manager().clone();
        Reloader { begun: self, home: home.clone(), live, snapshot, manager, listening, known, seen: None }
    }
}

fn log_problems(problems: &[Problem]) {
    for problem in problems {
        let server = problem.server.clone().unwrap_or_default();
        tracing::warn!(MCP_SERVER = server, MCP_ERROR_CODE = problem.code, "{problem}");
    }
}

/// Says once what became of settings.conf.
fn log_settings(before: &Configuration, now: &Configuration) {
    match (&before.settings.refused, &now.settings.refused) {
        (was, Some(why)) if was.as_ref() != Some(why) => tracing::warn!(
            MESSAGE_ID = message::CONFIGURATION_UNUSABLE.id,
            MCP_ERROR_CODE = "MCPO-R002",
            MCP_REASON = why,
            "settings are refused, and those in force stay: {why}"
        ),
        (Some(_), None) => tracing::info!("{} can be used again", now.settings.path),
        _ => {}
    }
    if now.needs_restart != before.needs_restart && !now.needs_restart.is_empty() {
        let why = waiting(&now.needs_restart);
        tracing::warn!(
            MESSAGE_ID = message::RESTART_NEEDED.id,
            MCP_ERROR_CODE = "MCPO-R001",
            MCP_REASON = why,
            "{why}"
        );
    }
}

/// `[service] stack and [gateway] port change with a restart`, in words.
fn waiting(names: &[&str]) -> String {
    let verb = if names.len() == 1 { "changes" } else { "change" };
    format!("{} {verb} only with a restart", names.join(", "))
}

fn log_accepted(before: &Configuration, now: &Configuration, applied: &[&str]) {
    let mut why = Vec::new();
    if before.config.sha256 != now.config.sha256 {
        why.push("mcp.config.json changed".to_owned());
    }
    if before.settings.sha256 != now.settings.sha256 {
        let names =
            if applied.is_empty() { "nothing that applies now".to_owned() } else { applied.join(", ") };
        why.push(format!("settings.conf changed: {names}"));
    }
    if why.is_empty() {
        why.push("a secret or a token that a file refers to changed".to_owned());
    }
    let (why, generation) = (why.join("; "), now.generation);
    tracing::info!(
        MESSAGE_ID = message::CONFIGURATION_READ.id,
        MCP_GENERATION = generation,
        MCP_REASON = why,
        "configuration generation {generation} is in force: {why}"
    );
}
