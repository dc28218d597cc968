//! What is shown of servers, sections and the whole: one shape for REST, the dashboard and whoever
//! asks over the control socket.
//!
//! Every field is taken from the last pass's report, the wish in force or the gateway's figures.
//! Must never compute what a pass has computed, and never hold a value of the environment.

use crate::api::ends::EndView;
use crate::api::instances::{self, InstanceView};
use crate::api::usage::{HostView, UsageView};
use crate::api::wishes::{DrainView, PauseView};
use crate::api::{Context, FilesView};
use crate::config::edit::outline::WrittenServer;
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
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
    /// What it uses now, all its instances together; `null` while it does not run.
    pub usage: Option<UsageView>,
    /// How many instances of it there are to be (`orchestrator.replicas`).
    pub replicas: u32,
    /// How many of its instances run; `null` where there is one.
    pub running: Option<usize>,
    /// Its instances, the first one included; empty where there is one.
    pub instances: Vec<InstanceView>,
}

/// One sentence of why.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
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
    /// How it ended lately without anybody's wish, newest first; the last few are kept.
    pub ends: Vec<EndView>,
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
    /// What is left alone, and who wants that.
    pub pauses: Vec<PauseView>,
    /// This host out of the load balancer, or on its way; `null` otherwise.
    pub drained: Option<DrainView>,
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
#[derive(Clone)]
pub(crate) struct Moment {
    pub(crate) snapshot: std::sync::Arc<Snapshot>,
    pub(crate) wish: std::sync::Arc<Wish>,
    pub(crate) reading: std::sync::Arc<Reading>,
    pub(crate) files: std::sync::Arc<FilesView>,
    pub(super) figures: std::sync::Arc<BTreeMap<ServerId, Figures>>,
}

impl Moment {
    /// Now.
    pub(crate) fn of(context: &Context) -> Self {
        let figures = context.gateway.overview();
        Self {
            snapshot: std::sync::Arc::clone(&context.handle.snapshot.borrow()),
            wish: std::sync::Arc::clone(&context.wishes.borrow()),
            reading: context.usage.now(),
            files: std::sync::Arc::clone(&context.files.borrow()),
            figures: std::sync::Arc::new(
                figures.into_iter().map(|view| (view.server.clone(), view)).collect(),
            ),
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
        let written = if server.is_none() { self.written(id) } else { None };
        let name = server.map(|server| &server.name).or(written.map(|written| &written.name));
        let instances = self.instances(row);
        let own = || self.figures.get(id).filter(|_| instances.is_empty());
        ServerView {
            id: id.to_string(),
            name: name.map_or_else(|| id.to_string(), Clone::clone),
            section: match server {
                Some(server) => server.section.as_ref().map(ToString::to_string),
                None => written.and_then(WrittenServer::section_id),
            },
            // Of an entry that cannot be used the loop does not know.
            kind: written.map_or(row.kind, WrittenServer::kind).to_owned(),
            state: row.state.as_str().to_owned(),
            busy: row.each(id).any(|(id, _)| self.snapshot.busy.contains(id)),
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
            health: own().and_then(|view| view.health.clone()).or_else(|| instances::health(&instances)),
            connection: own().map(ConnectionView::of).or_else(|| instances::connection(&instances)),
            usage: self.used(id, row),
            replicas: server.map_or(1, |server| server.replicas),
            running: row.running,
            instances,
        }
    }

    /// An entry with a problem, as the file has it.
    fn written(&self, id: &ServerId) -> Option<&WrittenServer> {
        let entries = &self.files.outline.servers;
        let named = |entry: &&WrittenServer| entry.id.as_deref() == Some(id.as_str());
        entries.iter().find(named).filter(|_| self.wish.desired.broken.contains_key(id))
    }

    /// One server with all that is known of it.
    pub(crate) fn detail(&self, id: &ServerId) -> Option<ServerDetail> {
        let server = self.server(id)?;
        let settings = self.files.effective.get(id).cloned().unwrap_or_default();
        let settings = settings.iter().map(SettingView::of).collect();
        let actions = self.snapshot.seen.iter().flat_map(|seen| &seen.actions);
        let own = actions.filter(|action| action.is_of(id));
        let actions = own.map(ActionView::of).collect();
        let ends = self.snapshot.report.servers.get(id)?.ends.iter().map(EndView::of).collect();
        Some(ServerDetail { server, settings, actions, ends })
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
            pauses: self.pauses(),
            drained: self.drained(),
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
        health_word(self.health.as_ref(), &self.state)
    }
}

/// The same of a server or one instance of one that is in this state.
pub(super) fn health_word<'a>(health: Option<&'a HealthView>, state: &str) -> &'a str {
    match (health, state) {
        (_, "stopped") => "stopped",
        (_, "asleep") => "asleep",
        (Some(health), _) => &health.state,
        (None, "blocked") => "critical",
        (None, _) => "starting",
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
    pub(super) fn of(view: &Figures) -> Self {
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
