//! What is shown of servers, sections and the whole: one shape for REST, the dashboard and whoever
//! asks over the control socket.
//!
//! Every field is taken from the last pass's report, the wish in force or the gateway's figures.
//! Must never compute what a pass has computed, and never hold a value of the environment.

use crate::api::Context;
use crate::api::usage::{HostView, UsageView};
use crate::config::load::{EffectiveValue, Origin};
use crate::gateway::metrics::BUCKETS_MICROS;
use crate::gateway::overview::{HealthView, ServerView as Figures, p95_micros};
use crate::gateway::traffic::view::TrafficView;
use crate::model::id::ServerId;
use crate::model::memory::Intent;
use crate::model::server::Server;
use crate::plan::report::{Reason, Row, RowState};
use crate::service::{Snapshot, Wish};
use crate::usage::Reading;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;

/// One server.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerView {
    /// Its id.
    pub id: String,
    /// Its name in the file.
    pub name: String,
    /// The section it is in.
    pub section: Option<String>,
    /// `container`, `process` or `remote`; `none` for what the file no longer has.
    pub kind: String,
    /// `converged`, `changing`, `waiting`, `blocked` or `stopped`.
    pub state: String,
    /// Whether actions of it are being carried out.
    pub busy: bool,
    /// Whether the file has a usable entry of it; only such can be started and stopped.
    pub declared: bool,
    /// False with `disabled` in the file.
    pub enabled: bool,
    /// Why, most important first.
    pub reasons: Vec<ReasonView>,
    /// `stdio`, `http` or `sse`, once known.
    pub transport: Option<String>,
    /// `edge` or `direct`.
    pub route: Option<String>,
    /// Its host port.
    pub port: Option<u16>,
    /// Its container's name.
    pub container: Option<String>,
    /// Its container's id.
    pub container_id: Option<String>,
    /// What its container does: `running`, `exited (1)`.
    pub container_state: Option<String>,
    /// Its image as the entry has it.
    pub image: Option<String>,
    /// The image its container was made from, by the engine's id.
    pub image_id: Option<String>,
    /// Somebody wants it left alone.
    pub paused: bool,
    /// Restarts in a row.
    pub restarts: u32,
    /// When the next try is due, in milliseconds since the epoch.
    pub next_try: Option<i64>,
    /// A start or stop by hand that holds.
    pub intent: Option<IntentView>,
    /// How well it is; `null` while it is not to run, or was not looked at yet.
    pub health: Option<HealthView>,
    /// Its connection and what was counted on it.
    pub connection: Option<ConnectionView>,
    /// What it uses now; `null` while it does not run.
    pub usage: Option<UsageView>,
}

/// One sentence of why.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReasonView {
    /// `blocked-by`, `waiting-on`, `changed-because`, `left-alone` or `note`.
    pub kind: String,
    /// In words.
    pub text: String,
    /// A documented code, where something is wrong.
    pub code: Option<String>,
    /// When it ends by itself, in milliseconds since the epoch.
    pub until: Option<i64>,
}

/// A start or stop by hand.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IntentView {
    /// False: kept stopped.
    pub run: bool,
    /// Who asked.
    pub by: String,
    /// When, in milliseconds since the epoch.
    pub at: i64,
    /// Until when it holds, in milliseconds since the epoch.
    pub until: Option<i64>,
}

/// A server's connection.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionView {
    /// Whether it is open: the server has answered MCP on it.
    pub up: bool,
    /// Why not.
    pub why: Option<String>,
    /// Version of the protocol, while it is open.
    pub version: Option<String>,
    /// Sessions of clients.
    pub sessions: usize,
    /// Requests without an answer so far.
    pub in_flight: u64,
    /// Requests that ended, since the daemon started.
    pub requests: u64,
    /// Those that failed.
    pub errors: u64,
    /// 95 of 100 requests took at most about this long, in milliseconds.
    pub p95_millis: Option<f64>,
    /// How the limits of its entry stand; `null` where it has none.
    pub limits: Option<LimitsView>,
}

/// How the limits of an entry stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LimitsView {
    /// Calls under way of those that `maxConcurrentRequests` counts.
    pub running: u32,
    /// Calls that wait for one of them.
    pub waiting: u32,
    /// Calls that were not let through, since the daemon started.
    pub denied: u64,
    /// `closed`, `half-open` or `open`.
    pub circuit: String,
    /// Calls answered from what is kept.
    pub cache_hits: u64,
    /// Calls sent because no answer was kept.
    pub cache_misses: u64,
    /// Calls sent again.
    pub retries: u64,
}

/// A server with its settings and what the last pass did for it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerDetail {
    /// The server.
    #[serde(flatten)]
    pub server: ServerView,
    /// Its settings and where each came from; environment values are never in it.
    pub settings: Vec<SettingView>,
    /// What the last pass set going for it.
    pub actions: Vec<ActionView>,
}

/// An effective setting.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SettingView {
    /// Dotted key.
    pub key: String,
    /// Its value as text; `[redacted]` for environment values.
    pub value: String,
    /// `built in`, `settings`, `global defaults`, `section NAME`, `server` or `docker run`.
    pub origin: String,
    /// `file:line:column` where it is written.
    pub place: Option<String>,
}

/// One change.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActionView {
    /// The server it is for.
    pub server: Option<String>,
    /// `+`, `~` or `-`.
    pub sign: String,
    /// What.
    pub action: String,
    /// Why.
    pub why: String,
}

/// A section.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SectionView {
    /// Its id.
    pub id: String,
    /// Its name in the file.
    pub name: String,
    /// Whether the file declares it.
    pub declared: bool,
    /// Its settings and what describes it, as written, with placeholders for secrets.
    pub settings: serde_json::Map<String, serde_json::Value>,
    /// Servers in it.
    pub servers: Vec<String>,
    /// How many of them are in which state.
    pub states: BTreeMap<String, usize>,
    /// What servers in it inherit, and where that comes from; environment values are never in it.
    pub inherits: Vec<SettingView>,
}

/// The whole.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PanelHealth {
    /// `ok` when everything is as the file wants it, else `degraded`.
    pub status: String,
    /// This program's version.
    pub version: String,
    /// The owner of everything made here.
    pub stack: String,
    /// The state in a sentence.
    pub sentence: String,
    /// Whether nothing moves.
    pub settled: bool,
    /// Number of the last pass; 0 before the first.
    pub pass: u64,
    /// When it began, in milliseconds since the epoch.
    pub began: i64,
    /// When the next is due without any event, in milliseconds since the epoch.
    pub next_pass: i64,
    /// Servers by state.
    pub states: BTreeMap<String, usize>,
    /// Servers.
    pub servers: usize,
    /// Whether the container engine answers.
    pub engine: bool,
    /// The load balancer in a few words.
    pub balancer: String,
    /// What concerns no single server.
    pub general: Vec<ReasonView>,
    /// Faults of this program or its disk.
    pub faults: Vec<String>,
    /// Why the newest file could not be used, when an older one is in force.
    pub stale: Option<String>,
    /// Entries with a problem, by id.
    pub broken: BTreeMap<String, String>,
    /// The password is one that everybody can read in the documentation.
    pub default_password: bool,
    /// This host; `null` before the first reading.
    pub host: Option<HostView>,
}

/// States in the order in which they are shown.
pub const STATES: [RowState; 6] = {
    use RowState::{Asleep, Blocked, Changing, Converged, Stopped, Waiting};
    [Blocked, Waiting, Changing, Converged, Asleep, Stopped]
};

/// Everything that a view is made from, at one moment.
pub(crate) struct Moment {
    pub(crate) snapshot: std::sync::Arc<Snapshot>,
    pub(crate) wish: std::sync::Arc<Wish>,
    pub(crate) reading: std::sync::Arc<Reading>,
    figures: BTreeMap<ServerId, Figures>,
}

impl Moment {
    /// Now.
    pub(crate) fn of(context: &Context) -> Self {
        let figures = context.gateway.overview();
        Self {
            snapshot: std::sync::Arc::clone(&context.handle.snapshot.borrow()),
            wish: std::sync::Arc::clone(&context.wishes.borrow()),
            reading: context.usage.now(),
            figures: figures.into_iter().map(|view| (view.server.clone(), view)).collect(),
        }
    }

    /// All servers in id order.
    pub(crate) fn servers(&self) -> Vec<ServerView> {
        self.snapshot.report.servers.iter().map(|(id, row)| self.one(id, row)).collect()
    }

    /// One server; one that no pass has seen yet has no view.
    pub(crate) fn server(&self, id: &ServerId) -> Option<ServerView> {
        self.snapshot.report.servers.get(id).map(|row| self.one(id, row))
    }

    fn one(&self, id: &ServerId, row: &Row) -> ServerView {
        let server: Option<&Server> = self.wish.desired.servers.get(id);
        ServerView {
            id: id.to_string(),
            name: server.map_or_else(|| id.to_string(), |server| server.name.clone()),
            section: server.and_then(|server| server.section.as_ref().map(ToString::to_string)),
            kind: row.kind.to_owned(),
            state: row.state.as_str().to_owned(),
            busy: self.snapshot.busy.contains(id),
            declared: server.is_some(),
            enabled: server.is_none_or(|server| server.enabled),
            reasons: row.reasons.iter().map(ReasonView::of).collect(),
            transport: row.transport.map(|transport| transport.as_str().to_owned()),
            route: row.route.map(str::to_owned),
            port: row.port.map(crate::model::net::HostPort::get),
            container: row.container.clone(),
            container_id: row.container_id.clone(),
            container_state: row.container_state.clone(),
            image: row.image.clone(),
            image_id: row.image_id.clone(),
            paused: row.paused,
            restarts: row.restarts,
            next_try: row.next_try.map(|at| at.0),
            intent: self.snapshot.intents.get(id).map(IntentView::of),
            health: self.figures.get(id).and_then(|view| view.health.clone()),
            connection: self.figures.get(id).map(ConnectionView::of),
            usage: self.reading.servers.get(id).map(|usage| UsageView::of(usage, &self.reading)),
        }
    }

    /// One server with all that is known of it.
    pub(crate) fn detail(&self, id: &ServerId, context: &Context) -> Option<ServerDetail> {
        let server = self.server(id)?;
        let settings = context.files.borrow().effective.get(id).cloned().unwrap_or_default();
        let seen = self.snapshot.seen.as_ref();
        let actions = seen.map(|seen| {
            let own = seen.actions.iter().filter(|action| action.server.as_ref() == Some(id));
            own.map(ActionView::of).collect()
        });
        Some(ServerDetail {
            server,
            settings: settings.iter().map(SettingView::of).collect(),
            actions: actions.unwrap_or_default(),
        })
    }

    /// Sections that are declared or have servers, in id order.
    pub(crate) fn sections(&self, context: &Context) -> Vec<SectionView> {
        let files = context.files.borrow();
        let inherits = |id: &str| {
            let level = files.levels.iter().find(|level| level.section.as_deref() == Some(id));
            level.map(|level| level.values.iter().map(SettingView::of).collect()).unwrap_or_default()
        };
        let section = |id: String, name: String, declared: bool| SectionView {
            name,
            declared,
            settings: serde_json::Map::new(),
            inherits: inherits(&id),
            id,
            servers: Vec::new(),
            states: BTreeMap::new(),
        };
        let mut sections: BTreeMap<String, SectionView> = BTreeMap::new();
        for written in files.outline.sections.clone() {
            let Some(id) = written.id else { continue };
            let view = SectionView { settings: written.settings, ..section(id.clone(), written.name, true) };
            sections.entry(id).or_insert(view);
        }
        // Of a file that is only read there is no outline.
        for id in files.levels.iter().filter_map(|level| level.section.clone()) {
            sections.entry(id.clone()).or_insert_with(|| section(id.clone(), id, true));
        }
        for server in self.servers() {
            let Some(id) = server.section else { continue };
            let section = sections.entry(id.clone()).or_insert_with(|| section(id.clone(), id, false));
            section.servers.push(server.id);
            *section.states.entry(server.state).or_default() += 1;
        }
        sections.into_values().collect()
    }

    /// What all servers inherit.
    pub(crate) fn defaults(context: &Context) -> Vec<SettingView> {
        let files = context.files.borrow();
        let level = files.levels.iter().find(|level| level.section.is_none());
        level.map(|level| level.values.iter().map(SettingView::of).collect()).unwrap_or_default()
    }

    /// The whole.
    pub(crate) fn health(&self, context: &Context) -> PanelHealth {
        let (snapshot, desired) = (&self.snapshot, &self.wish.desired);
        let count = |state: RowState| (state.as_str().to_owned(), snapshot.report.count(state));
        PanelHealth {
            status: if snapshot.well() { "ok" } else { "degraded" }.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            stack: context.about.stack.clone(),
            sentence: snapshot.report.sentence(),
            settled: snapshot.settled,
            pass: snapshot.pass,
            began: snapshot.began.0,
            next_pass: snapshot.next_pass.0,
            states: STATES.into_iter().map(count).collect(),
            servers: snapshot.report.servers.len(),
            engine: snapshot.report.engine_known,
            balancer: snapshot.report.balancer.clone(),
            general: snapshot.report.general.iter().map(ReasonView::of).collect(),
            faults: snapshot.faults.clone(),
            stale: desired.stale.clone(),
            broken: desired.broken.iter().map(|(id, why)| (id.to_string(), why.clone())).collect(),
            default_password: context.about.default_password,
            host: HostView::of(&self.reading),
        }
    }
}

impl ServerView {
    /// Its health in a word: `stopped` for one that is not to run, `asleep` for one that the next request
    /// starts, `starting` for one that nobody has
    /// looked at yet.
    #[must_use]
    pub fn health_word(&self) -> &str {
        match (&self.health, self.state.as_str()) {
            (_, "stopped") => "stopped",
            (_, "asleep") => "asleep",
            (Some(health), _) => &health.state,
            (None, "blocked") => "critical",
            (None, _) => "starting",
        }
    }
}

/// A server's health, as `health` shows it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthRow {
    /// The server's id.
    pub server: String,
    /// `starting`, `healthy`, `degraded`, `unhealthy`, `critical`, `stopped` or `asleep`.
    pub health: String,
    /// Its state, as everywhere.
    pub state: String,
    /// Since when its health is so, in milliseconds since the epoch.
    pub since: Option<i64>,
    /// What is the matter.
    pub why: Option<String>,
    /// Questions in a row that it did not answer.
    pub failures: Option<u32>,
    /// What the last answer took, in milliseconds.
    pub latency_millis: Option<u64>,
    /// What an answer usually takes, in milliseconds.
    pub usual_millis: Option<u64>,
    /// Restarts in a row.
    pub restarts: u32,
    /// When the next try is due, in milliseconds since the epoch.
    pub next_try: Option<i64>,
    /// Sessions of clients.
    pub sessions: Option<usize>,
    /// Requests that ended, since the daemon started.
    pub requests: Option<u64>,
    /// Those that failed.
    pub errors: Option<u64>,
    /// 95 of 100 requests took at most about this long, in milliseconds.
    pub p95_millis: Option<f64>,
}

/// The health of servers.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthPage {
    /// The form of this answer.
    pub schema_version: u32,
    /// Whether all that are to run serve.
    pub healthy: bool,
    /// A server each.
    pub servers: Vec<HealthRow>,
}

impl HealthRow {
    fn of(view: &ServerView) -> Self {
        let word = view.health_word().to_owned();
        let health = view.health.as_ref().filter(|_| !matches!(word.as_str(), "stopped" | "asleep"));
        let connection = view.connection.as_ref();
        let reason = || view.reasons.first().map(|reason| reason.text.clone());
        let well = matches!(word.as_str(), "healthy" | "stopped" | "asleep");
        let why = health.and_then(|health| health.why.clone());
        Self {
            server: view.id.clone(),
            why: why.or_else(reason).filter(|_| !well),
            health: word,
            state: view.state.clone(),
            since: health.map(|health| health.since),
            failures: health.map(|health| health.failures),
            latency_millis: health.and_then(|health| health.latency_millis),
            usual_millis: health.and_then(|health| health.usual_millis),
            restarts: view.restarts,
            next_try: view.next_try,
            sessions: connection.map(|connection| connection.sessions),
            requests: connection.map(|connection| connection.requests),
            errors: connection.map(|connection| connection.errors),
            p95_millis: connection.and_then(|connection| connection.p95_millis),
        }
    }
}

impl HealthPage {
    /// Of these servers.
    #[must_use]
    pub fn of(views: &[ServerView]) -> Self {
        let servers: Vec<HealthRow> = views.iter().map(HealthRow::of).collect();
        let serves =
            |row: &HealthRow| matches!(row.health.as_str(), "healthy" | "degraded" | "stopped" | "asleep");
        Self { schema_version: 1, healthy: servers.iter().all(serves), servers }
    }
}

impl ReasonView {
    pub(crate) fn of(reason: &Reason) -> Self {
        let kind = match reason.kind {
            crate::plan::report::ReasonKind::BlockedBy => "blocked-by",
            crate::plan::report::ReasonKind::WaitingOn => "waiting-on",
            crate::plan::report::ReasonKind::ChangedBecause => "changed-because",
            crate::plan::report::ReasonKind::LeftAlone => "left-alone",
            crate::plan::report::ReasonKind::Note => "note",
        };
        Self {
            kind: kind.to_owned(),
            text: reason.text.clone(),
            code: reason.code.map(str::to_owned),
            until: reason.until.map(|until| until.0),
        }
    }
}

impl IntentView {
    fn of(intent: &Intent) -> Self {
        Self {
            run: intent.run,
            by: intent.by.clone(),
            at: intent.at.0,
            until: intent.until.map(|until| until.0),
        }
    }
}

impl ConnectionView {
    fn of(view: &Figures) -> Self {
        let mut classes = [0; BUCKETS_MICROS.len() + 1];
        for kind in &view.calls {
            for (sum, count) in classes.iter_mut().zip(kind.classes) {
                *sum += count;
            }
        }
        Self {
            up: view.up,
            why: view.why.clone(),
            version: view.version.clone(),
            sessions: view.shared_sessions + view.own_sessions,
            in_flight: view.in_flight,
            requests: view.calls.iter().map(|kind| kind.calls).sum(),
            errors: view.calls.iter().map(|kind| kind.errors).sum(),
            p95_millis: p95_micros(&classes).map(millis),
            limits: view.traffic.limited.then(|| LimitsView::of(&view.traffic)),
        }
    }
}

impl LimitsView {
    fn of(view: &TrafficView) -> Self {
        Self {
            running: view.running,
            waiting: view.waiting,
            denied: view.denied_in_all(),
            circuit: view.circuit.as_str().to_owned(),
            cache_hits: view.cache_hits,
            cache_misses: view.cache_misses,
            retries: view.retries,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "it is an estimate")]
fn millis(micros: u64) -> f64 {
    micros as f64 / 1e3
}

impl SettingView {
    pub(crate) fn of(value: &EffectiveValue) -> Self {
        let origin = match &value.origin {
            Origin::Default => "built in".to_owned(),
            Origin::Settings => "settings".to_owned(),
            Origin::Global => "global defaults".to_owned(),
            Origin::Section(name) => format!("section {name}"),
            Origin::Server => "server".to_owned(),
            Origin::RunLine => "docker run".to_owned(),
        };
        let place = value.place.as_ref().map(|place| {
            let file = place.file.rsplit('/').next().unwrap_or_default();
            format!("{file}:{}:{}", place.line, place.column)
        });
        Self { key: value.key.clone(), value: value.value.clone(), origin, place }
    }
}

impl ActionView {
    pub(crate) fn of(action: &crate::plan::action::Action) -> Self {
        Self {
            server: action.server.as_ref().map(ToString::to_string),
            sign: action.op.sign().to_string(),
            action: action.op.describe(),
            why: action.why.clone(),
        }
    }
}
