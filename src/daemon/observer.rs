//! Says what the loop does: log events with the contract's fields, the `systemctl status`
//! sentence.
//!
//! Must never repeat itself: a row is logged when it changes, not at every pass.

use crate::api::configuration::Configuration;
use crate::api::figures::Figures;
use crate::api::recorder::Recorder;
use crate::daemon::message::{self, Event};
use crate::daemon::supervision::FirstEdges;
use crate::execute::Step;
use crate::execute::learn::ActionResult;
use crate::host::systemd::Manager;
use crate::model::id::{ContainerId, ServerId};
use crate::model::memory::End;
use crate::model::op::{EdgeOp, Op};
use crate::model::record::AuditEntry;
use crate::model::time::Timestamp;
use crate::plan::action::Action;
use crate::plan::report::{Reason, ReasonKind, Report, Row, RowState};
use crate::reconcile::{Ended, Pass};
use crate::service::{Observer, Snapshot};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{oneshot, watch};

/// The code of a load balancer that cannot be read.
const BALANCER_UNKNOWN: &str = "MCPO-P060";

/// The code of a server that was killed for memory.
const KILLED_FOR_MEMORY: &str = "MCPO-P045";

/// Logs, tells systemd, and notes in the audit what servers did by themselves.
#[derive(Debug)]
pub struct Journal {
    configuration: watch::Receiver<Arc<Configuration>>,
    recorder: Recorder,
    figures: Arc<Figures>,
    last: BTreeMap<ServerId, Told>,
    general: Vec<Reason>,
    broken: Vec<String>,
    unsaved: bool,
    engine_away: bool,
    manager: Manager,
    first: Option<oneshot::Sender<FirstEdges>>,
}

/// What was said of a server last.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    state: RowState,
    reason: Option<String>,
    event: Option<Event>,
}

impl Journal {
    /// One that tells `manager` as well, and `first` which listeners the first pass opens;
    /// `configuration` is what the files' trouble is read from, `figures` counts, `recorder` has the audit.
    pub(super) fn new(
        manager: Manager,
        first: oneshot::Sender<FirstEdges>,
        configuration: watch::Receiver<Arc<Configuration>>,
        (recorder, figures): (Recorder, Arc<Figures>),
    ) -> Self {
        Self {
            manager,
            first: Some(first),
            configuration,
            recorder,
            figures,
            last: BTreeMap::new(),
            general: Vec::new(),
            broken: Vec::new(),
            unsaved: false,
            engine_away: false,
        }
    }

    /// Whether the state could be saved: once when it cannot, and once when it can again.
    fn saved(&mut self, unsaved: Option<&String>) {
        match (unsaved, self.unsaved) {
            (Some(why), false) => tracing::error!(
                MESSAGE_ID = message::STATE_UNSAVED.id,
                MCP_ERROR_CODE = "MCPO-S002",
                MCP_REASON = why,
                "state cannot be saved: {why}; servers go on, and every pass tries again"
            ),
            (None, true) => {
                tracing::info!(MESSAGE_ID = message::STATE_SAVED.id, "state is saved again");
            }
            _ => {}
        }
        self.unsaved = unsaved.is_some();
    }

    /// Invariants that a plan broke: once for as long as it goes on.
    fn broken(&mut self, pass: u64, broken: Vec<String>) {
        for fault in broken.iter().filter(|fault| !self.broken.contains(fault)) {
            tracing::error!(
                MESSAGE_ID = message::FAULT.id,
                MCP_PASS = pass,
                MCP_ERROR_CODE = "MCPO-P070",
                "{fault}"
            );
        }
        self.broken = broken;
    }

    fn rows(&mut self, pass: u64, report: &Report) {
        for (id, row) in report.each() {
            let reason = row.reasons.first().map(|reason| reason.text.clone());
            let now = Told { state: row.state, reason, event: message::of_row(row) };
            let last = self.last.get(id);
            if last != Some(&now) {
                let alerted = last.is_some_and(|last| last.event.is_some());
                let well = matches!(row.state, RowState::Converged | RowState::Stopped | RowState::Asleep);
                let back = (alerted && well).then_some(message::SERVER_RECOVERED);
                // What an operator was told stays told while the server is on its way back.
                let kept = last.and_then(|last| last.event).filter(|_| !well);
                log_row(pass, id, row, now.event.or(back));
                self.last.insert(id.clone(), Told { event: now.event.or(kept), ..now });
            }
        }
        self.last.retain(|id, _| report.instance(id).is_some());
    }

    /// What concerns no single server, once when it comes up.
    fn general(&mut self, pass: u64, report: &Report) {
        if report.engine_known == self.engine_away {
            self.engine_away = !report.engine_known;
            if self.engine_away {
                tracing::warn!(
                    MESSAGE_ID = message::ENGINE_AWAY.id,
                    MCP_PASS = pass,
                    "the engine does not answer"
                );
            } else {
                tracing::info!(
                    MESSAGE_ID = message::ENGINE_BACK.id,
                    MCP_PASS = pass,
                    "the engine answers again"
                );
            }
        }
        let unknown = |general: &[Reason]| general.iter().any(|reason| reason.code == Some(BALANCER_UNKNOWN));
        if unknown(&self.general) && !unknown(&report.general) {
            let id = message::BALANCER_BACK.id;
            tracing::info!(MESSAGE_ID = id, MCP_PASS = pass, "the load balancer can be read again");
        }
        for reason in report.general.iter().filter(|reason| !self.general.contains(reason)) {
            let event = reason.code.and_then(message::of_code).map(|event| event.id);
            let text = &reason.text;
            if matches!(reason.kind, ReasonKind::BlockedBy | ReasonKind::WaitingOn) {
                tracing::warn!(
                    MESSAGE_ID = event,
                    MCP_PASS = pass,
                    MCP_REASON = text,
                    MCP_ERROR_CODE = reason.code,
                    "{text}"
                );
            } else {
                tracing::info!(
                    MESSAGE_ID = event,
                    MCP_PASS = pass,
                    MCP_REASON = text,
                    MCP_ERROR_CODE = reason.code,
                    "{text}"
                );
            }
        }
        self.general.clone_from(&report.general);
    }
}

fn log_row(pass: u64, id: &ServerId, row: &Row, event: Option<Event>) {
    let reason = row.reasons.first().map(|reason| reason.text.as_str());
    let code = row.reasons.iter().find_map(|reason| reason.code);
    let port = row.port.map(|port| port.to_string());
    let (port, container) = (port.as_deref(), row.container_id.as_deref());
    let (event, state) = (event.map(|event| event.id), row.state.as_str());
    // All instances of a server are found by its id.
    let server = id.server();
    if row.state == RowState::Blocked {
        let why = reason.unwrap_or_default();
        tracing::warn!(MESSAGE_ID = event, MCP_SERVER = %server, CONTAINER_ID = container, MCP_PASS = pass, MCP_PORT = port, MCP_REASON = reason, MCP_ERROR_CODE = code, "{id} is {state}: {why}");
    } else {
        tracing::info!(MESSAGE_ID = event, MCP_SERVER = %server, CONTAINER_ID = container, MCP_PASS = pass, MCP_PORT = port, MCP_REASON = reason, MCP_ERROR_CODE = code, "{id} is {state}");
    }
}

/// Logs one moment of an action.
pub fn log_step(action: &Action, step: &Step) {
    let server = action.server.as_ref().map(ServerId::server);
    let server = server.as_ref().map(ServerId::as_str);
    let container = action.op.container().map(ContainerId::as_str);
    let what = action.op.describe();
    match step {
        Step::Begins => {
            tracing::debug!(
                MCP_SERVER = server,
                CONTAINER_ID = container,
                MCP_ACTION = what,
                MCP_REASON = action.why,
                "begin: {what}"
            );
        }
        Step::Progress(line) => tracing::debug!(MCP_SERVER = server, MCP_ACTION = what, "{line}"),
        Step::Ended(ActionResult::Done) => {
            tracing::info!(
                MCP_SERVER = server,
                CONTAINER_ID = container,
                MCP_ACTION = what,
                MCP_REASON = action.why,
                "done: {what}"
            );
        }
        Step::Ended(ActionResult::Failed(error)) => {
            tracing::error!(
                MESSAGE_ID = message::ACTION_FAILED.id,
                MCP_SERVER = server,
                CONTAINER_ID = container,
                MCP_ACTION = what,
                MCP_ERROR_CODE = error.kind.code(),
                "failed: {error}"
            );
        }
        Step::Ended(ActionResult::Skipped) => {
            tracing::debug!(
                MCP_SERVER = server,
                CONTAINER_ID = container,
                MCP_ACTION = what,
                "skipped: {what}"
            );
        }
    }
}

/// The sentence of `systemctl status`, one line: `12 of 12 servers converged, ALB in sync, next pass
/// in 18 s`, and what is wrong with the files.
#[must_use]
pub fn status_line(snapshot: &Snapshot, configuration: &Configuration, now: Timestamp) -> String {
    let next = snapshot.next_pass.since(now);
    let trouble: String = configuration.trouble().iter().map(|words| format!("; {words}")).collect();
    format!("{}, next pass in {next}{trouble}", snapshot.report.sentence()).replace(['\n', '\r'], " ")
}

/// An end that nobody asked for, as a line of the audit.
fn ended_by_itself(server: &ServerId, end: &End) -> AuditEntry {
    AuditEntry {
        at: end.at,
        by: "the server".to_owned(),
        via: "daemon".to_owned(),
        what: "end".to_owned(),
        server: Some(server.to_string()),
        result: "failed".to_owned(),
        detail: Some(end.how.clone()),
        code: (end.oom == Some(true)).then(|| KILLED_FOR_MEMORY.to_owned()),
        ..AuditEntry::default()
    }
}

impl Observer for Journal {
    fn passed(&mut self, pass: &Pass, snapshot: &Snapshot) {
        self.general(snapshot.pass, &snapshot.report);
        self.rows(snapshot.pass, &snapshot.report);
        self.broken(snapshot.pass, pass.broken.iter().map(ToString::to_string).collect());
        if pass.broken.is_empty() {
            self.saved(pass.unsaved.as_ref());
        }
        let took = pass.decided.since(pass.began);
        // What breaks an invariant is not carried out: nothing of it was found changed.
        let actions = if pass.broken.is_empty() { pass.plan.actions.as_slice() } else { &[] };
        for (server, end) in self.figures.passed(took, actions, snapshot) {
            self.recorder.note(ended_by_itself(&server, &end));
        }
        tracing::debug!(
            MCP_PASS = snapshot.pass,
            actions = snapshot.actions,
            "pass {} decided in {took}",
            snapshot.pass
        );
        self.manager.status(&status_line(snapshot, &self.configuration.borrow(), pass.decided));
        if let Some(first) = self.first.take() {
            let opened = pass.plan.actions.iter().filter_map(|action| match &action.op {
                Op::Edge(EdgeOp::Open { server, port }) => Some((server.clone(), *port)),
                _ => None,
            });
            // Nobody waits for it any more when the daemon ends at once.
            let _ending = first.send(opened.collect());
        }
    }

    fn ended(&mut self, ended: &Ended) {
        self.saved(ended.unsaved.as_ref());
    }
}
