//! Says what the loop does: log events with the contract's fields, the `systemctl status`
//! sentence, the watchdog.
//!
//! Must never repeat itself: a row is logged when it changes, not at every pass.

use crate::execute::Step;
use crate::execute::learn::ActionResult;
use crate::model::id::ServerId;
use crate::model::time::Timestamp;
use crate::plan::action::Action;
use crate::plan::report::{Report, Row, RowState};
use crate::reconcile::{Ended, Pass};
use crate::service::{Observer, Snapshot};
use std::collections::BTreeMap;

/// Logs and tells systemd.
#[derive(Debug, Default)]
pub struct Journal {
    last: BTreeMap<ServerId, (RowState, Option<String>)>,
    ready: bool,
}

impl Journal {
    fn rows(&mut self, pass: u64, report: &Report) {
        for (id, row) in &report.servers {
            let now = (row.state, row.reasons.first().map(|reason| reason.text.clone()));
            if self.last.get(id) != Some(&now) {
                log_row(pass, id, row);
                self.last.insert(id.clone(), now);
            }
        }
        self.last.retain(|id, _| report.servers.contains_key(id));
    }
}

fn log_row(pass: u64, id: &ServerId, row: &Row) {
    let reason = row.reasons.first().map_or("", |reason| reason.text.as_str());
    let code = row.reasons.iter().find_map(|reason| reason.code).unwrap_or("");
    let port = row.port.map(|port| port.to_string()).unwrap_or_default();
    let state = row.state.as_str();
    if row.state == RowState::Blocked {
        tracing::warn!(MCP_SERVER = %id, MCP_PASS = pass, MCP_PORT = port, MCP_REASON = reason, MCP_ERROR_CODE = code, "{id} is {state}: {reason}");
    } else {
        tracing::info!(MCP_SERVER = %id, MCP_PASS = pass, MCP_PORT = port, MCP_REASON = reason, MCP_ERROR_CODE = code, "{id} is {state}");
    }
}

/// Logs one moment of an action.
pub fn log_step(action: &Action, step: &Step) {
    let server = action.server.as_ref().map(ToString::to_string).unwrap_or_default();
    let what = action.op.describe();
    match step {
        Step::Begins => {
            tracing::debug!(MCP_SERVER = server, MCP_ACTION = what, MCP_REASON = action.why, "begin: {what}");
        }
        Step::Progress(line) => tracing::debug!(MCP_SERVER = server, MCP_ACTION = what, "{line}"),
        Step::Ended(ActionResult::Done) => {
            tracing::info!(MCP_SERVER = server, MCP_ACTION = what, MCP_REASON = action.why, "done: {what}");
        }
        Step::Ended(ActionResult::Failed(error)) => {
            tracing::error!(
                MCP_SERVER = server,
                MCP_ACTION = what,
                MCP_ERROR_CODE = error.kind.code(),
                "failed: {error}"
            );
        }
        Step::Ended(ActionResult::Skipped) => {
            tracing::debug!(MCP_SERVER = server, MCP_ACTION = what, "skipped: {what}");
        }
    }
}

/// The sentence of `systemctl status`, one line.
#[must_use]
pub fn status_line(snapshot: &Snapshot, now: Timestamp) -> String {
    let next = snapshot.next_pass.since(now);
    format!("{}, next pass in {next}", snapshot.report.sentence()).replace(['\n', '\r'], " ")
}

impl Observer for Journal {
    fn passed(&mut self, pass: &Pass, snapshot: &Snapshot) {
        self.rows(snapshot.pass, &snapshot.report);
        for fault in &snapshot.faults {
            tracing::error!(MCP_PASS = snapshot.pass, MCP_ERROR_CODE = "MCPO-P070", "{fault}");
        }
        let took = pass.decided.since(pass.began);
        tracing::debug!(
            MCP_PASS = snapshot.pass,
            actions = snapshot.actions,
            "pass {} decided in {took}",
            snapshot.pass
        );
        let status = status_line(snapshot, pass.decided);
        let mut states = vec![sd_notify::NotifyState::Status(&status), sd_notify::NotifyState::Watchdog];
        if !self.ready {
            self.ready = true;
            states.push(sd_notify::NotifyState::Ready);
        }
        // Without systemd there is nobody to tell.
        let _nobody = sd_notify::notify(&states);
    }

    fn ended(&mut self, ended: &Ended) {
        if let Some(why) = &ended.unsaved {
            tracing::error!(
                MCP_ERROR_CODE = "MCPO-P070",
                "what must survive a restart could not be kept: {why}"
            );
        }
    }
}
