//! The dashboard and the API as this daemon serves them: credentials, tasks, the audit, and what the
//! files say.
//!
//! Must never let anybody in that the settings do not: a password that cannot be read keeps the
//! daemon from starting.

use crate::api::configuration::Configuration;
use crate::api::figures::{Figures, Outcome};
use crate::api::recorder::Recorder;
use crate::api::{About, Context, FilesView};
use crate::daemon::{Home, files, random_bytes};
use crate::execute::learn::ActionResult;
use crate::execute::{Step, Teller};
use crate::gateway::beside::Beside;
use crate::gateway::front::GatewayFront;
use crate::gateway::slot::Handshakes;
use crate::model::op::{ContainerRef, EngineOp, Op};
use crate::model::record::{AuditEntry, THE_LOOP};
use crate::model::time::{Span, Timestamp};
use crate::panel::Panel;
use crate::panel::access::{self, Access, Credentials};
use crate::plan::action::Action;
use crate::store::SqliteStore;
use crate::store::records::Keep;
use crate::terminal::failure::{Exit, Failure};
use crate::usage::Usage;
use crate::world::{Clock, Records, UsageStore};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// Longest file with a password, in bytes.
const PASSWORD_FILE_BYTES_MAX: u64 = 4096;
/// How a file with a hash begins.
const HASH_MARK: &str = "$argon2";
/// One day.
const DAY: Span = Span::secs(86_400);

/// The user and how the password is known: `password_hash`, then `password_file`, then the systemd
/// credential `dashboard-password`, then `password`. A file holds a password or its hash.
pub(super) fn credentials(home: &Home) -> Result<Credentials, Failure> {
    let settings = &home.settings.dashboard;
    let user = &settings.username;
    let unusable = |what: &str, why: &str| {
        Failure::new(Exit::Usage, format!("{what} cannot be used: {why}"))
            .hint("make one with `mcp-orchestrator hash-password`")
    };
    if let Some(hash) = &settings.password_hash {
        let what = "[dashboard] password_hash";
        return Credentials::hash(user, hash.expose()).map_err(|why| unusable(what, why));
    }
    let credential = || {
        let dir = home.env.get("CREDENTIALS_DIRECTORY")?;
        Some(Path::new(dir).join("dashboard-password")).filter(|path| path.exists())
    };
    let Some(path) = settings.password_file.clone().map(PathBuf::from).or_else(credential) else {
        return Ok(Credentials::password(user, settings.password.expose()));
    };
    let what = format!("the password in {}", path.display());
    let text = read(&path)
        .map_err(|error| Failure::new(Exit::Usage, format!("reading {what}")).cause(error.to_string()))?;
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() {
        return Err(unusable(&what, "it is empty"));
    }
    if text.starts_with(HASH_MARK) {
        return Credentials::hash(user, text).map_err(|why| unusable(&what, why));
    }
    Ok(Credentials::password(user, text))
}

fn read(path: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(PASSWORD_FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// The Argon2id hash of a password.
///
/// # Errors
/// When the system has no randomness to give.
pub fn hash_password(password: &str) -> Result<String, Failure> {
    access::hash_password(password)
        .map_err(|why| Failure::new(Exit::Failed, "hashing the password").cause(why))
}

/// Tasks and the audit, over the state store, and the history of figures.
pub(super) async fn records(
    home: &Home,
    store: &SqliteStore,
    clock: &Arc<dyn Clock>,
) -> Result<(Recorder, Usage), Failure> {
    let storage = &home.settings.storage;
    let age = DAY.times_capped(u64::from(storage.audit_days), Span(u64::MAX));
    let calls_age = DAY.times_capped(u64::from(storage.audit_calls_days), Span(u64::MAX));
    let (rows, calls) = (storage.audit_rows_max, storage.audit_calls_rows_max);
    let keep = Keep { age, rows, calls_age, calls };
    let records = store.records(keep, clock.now()).map_err(|error| Failure::world(error, Exit::Failed))?;
    let kept: Arc<dyn UsageStore> = Arc::new(records.clone());
    let usage = Usage::load(Arc::clone(clock), kept).await;
    Ok((Recorder::new(Arc::new(records) as Arc<dyn Records>, Arc::clone(clock)), usage))
}

/// What does not change while the daemon runs; `shipped`: the password is one of the documentation's.
pub(super) fn about(home: &Home, shipped: bool) -> Arc<About> {
    Arc::new(About {
        stack: home.stack.to_string(),
        config: home.places.config.display().to_string(),
        default_password: shipped,
        dashboard: !home.options.no_dashboard,
    })
}

/// What the files say beyond the wish.
pub(super) fn files_view(read: &files::Read, before: &FilesView) -> Arc<FilesView> {
    Arc::new(FilesView {
        effective: read.loaded.effective.clone(),
        levels: read.loaded.levels.clone(),
        problems: read.loaded.problems.iter().map(ToString::to_string).collect(),
        // A file that cannot be used has none; what is in force is the one before it.
        outline: read.outline.clone().unwrap_or_else(|| before.outline.clone()),
    })
}

/// Puts the panel on the main listener.
pub(super) fn mount(
    home: &Home,
    front: &GatewayFront,
    context: &Context,
    credentials: Credentials,
) -> Result<Arc<Panel>, Failure> {
    let random = random_bytes()?;
    let run = random.first_chunk::<4>().copied().map_or(0, u32::from_be_bytes);
    let access = Access::new(credentials, random_bytes()?);
    if context.about.default_password {
        tracing::warn!(
            "the dashboard's password is the shipped one: the main listener is on loopback only; \
             `mcp-orchestrator hash-password` makes another"
        );
    }
    context.figures.enable(home.settings.metrics.enabled);
    let calls = context.gateway.calls();
    calls.enable(home.settings.storage.audit_calls);
    calls.begin(Arc::clone(&context.recorder.records));
    let panel = Arc::new(Panel::new(context.clone(), access, &home.settings.dashboard.path, run));
    let _first = front.beside.set(Arc::clone(&panel) as Arc<dyn Beside>);
    Ok(panel)
}

/// Notes in the audit whenever other files are in force.
pub(super) async fn note_configurations(mut told: watch::Receiver<Arc<Configuration>>, recorder: Recorder) {
    let mut last = told.borrow_and_update().generation;
    while told.changed().await.is_ok() {
        let now = told.borrow_and_update().generation;
        if now != last {
            recorder.note(AuditEntry {
                what: format!("configuration generation {now} in force"),
                by: "the files".to_owned(),
                via: "daemon".to_owned(),
                result: "ok".to_owned(),
                ..AuditEntry::default()
            });
        }
        last = now;
    }
}

/// Tells the journal and the audit what is done. And a container that is started again is a process
/// that nobody has greeted yet: its end may have been missed, as in a power cut.
pub(super) fn teller(
    (recorder, figures): (Recorder, Arc<Figures>),
    handshakes: Arc<dyn Handshakes>,
) -> Teller {
    let begun: Mutex<BTreeMap<String, Timestamp>> = Mutex::default();
    Arc::new(move |action, step| {
        let key = format!("{:?} {}", action.server, action.op.describe());
        let mut begun = begun.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = match &step {
            Step::Begins => {
                if let Op::Engine(EngineOp::Start(ContainerRef::Id { id, .. })) = &action.op {
                    handshakes.forget(id);
                }
                begun.insert(key, recorder.now());
                None
            }
            Step::Ended(result) => {
                let took = begun.remove(&key).map(|since| recorder.now().since(since));
                figures.acted(action, outcome(result), took);
                done(action, result, took)
            }
            Step::Progress(_) => None,
        };
        drop(begun);
        entry.into_iter().for_each(|entry| recorder.note(entry));
        crate::daemon::observer::log_step(action, &step);
    })
}

const fn outcome(result: &ActionResult) -> Outcome {
    match result {
        ActionResult::Done => Outcome::Done,
        ActionResult::Failed(_) => Outcome::Failed,
        ActionResult::Skipped => Outcome::Skipped,
    }
}

/// An action that ended, as a line of the audit; one that was not tried is none.
fn done(action: &Action, result: &ActionResult, took: Option<Span>) -> Option<AuditEntry> {
    let error = match result {
        ActionResult::Done => None,
        ActionResult::Failed(error) => Some(error),
        ActionResult::Skipped => return None,
    };
    Some(AuditEntry {
        by: THE_LOOP.to_owned(),
        via: "daemon".to_owned(),
        what: action.op.describe(),
        server: action.server.as_ref().map(ToString::to_string),
        why: Some(action.why.clone()).filter(|why| !why.is_empty()),
        result: if error.is_some() { "failed" } else { "ok" }.to_owned(),
        detail: error.map(ToString::to_string),
        code: error.map(|error| error.kind.code().to_owned()),
        millis: took.map(|took| took.0),
        ..AuditEntry::default()
    })
}
