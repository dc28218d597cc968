//! The plan for people and as JSON, from the same value the executor runs.
//!
//! ```text
//! time: changed because its declaration changed
//!   + create container mcp-time-N1a2b3c4d (port 8001 -> 8000)
//! ```
//! Must never show a value of the environment or an argument: operations describe themselves by
//! name.

use crate::model::id::ServerId;
use crate::model::time::Timestamp;
use crate::plan::Plan;
use crate::plan::action::Action;
use crate::plan::report::{Reason, ReasonKind, Report, Row};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// The plan as text, at most `width` columns where words allow; no colour needed to read it.
#[must_use]
pub fn text(plan: &Plan, now: Timestamp, width: usize) -> String {
    let mut out = String::new();
    for (id, row) in &plan.report.servers {
        let actions: Vec<&Action> = plan.actions.iter().filter(|action| action.is_of(id)).collect();
        server(&mut out, id, row, &actions, now, width);
    }
    let shared: Vec<&Action> = plan.actions.iter().filter(|action| action.server.is_none()).collect();
    for action in shared {
        let _ = writeln!(out, "{} {}  ({})", action.op.sign(), action.op.describe(), action.why);
    }
    for reason in &plan.report.general {
        wrapped(&mut out, "", &sentence(reason, now), width);
    }
    let count = |sign: char| plan.actions.iter().filter(|action| action.op.sign() == sign).count();
    let (add, change, remove) = (count('+'), count('~'), count('-'));
    if plan.actions.is_empty() {
        wrapped(&mut out, "", &format!("No changes: {}.", plan.report.sentence()), width);
    } else {
        let _ = writeln!(out, "Plan: {add} to add, {change} to change, {remove} to remove.");
    }
    out
}

/// Every server's row without actions, for a result.
#[must_use]
pub fn rows(report: &Report, now: Timestamp, width: usize) -> String {
    let mut out = String::new();
    for (id, row) in &report.servers {
        server(&mut out, id, row, &[], now, width);
    }
    for reason in &report.general {
        wrapped(&mut out, "", &sentence(reason, now), width);
    }
    out
}

#[expect(clippy::too_many_arguments, reason = "all of them are the sentence: what, of whom, why, after what")]
fn server(out: &mut String, id: &ServerId, row: &Row, actions: &[&Action], now: Timestamp, width: usize) {
    let mut facts: Vec<String> = vec![row.state.as_str().to_owned()];
    facts.extend(row.transport.map(|transport| transport.as_str().to_owned()));
    facts.extend(row.route.map(|route| match row.port {
        Some(port) => format!("{route} on port {port}"),
        None => route.to_owned(),
    }));
    facts.extend(row.running.map(|running| format!("{running} of {} run", row.instances.len())));
    let _ = writeln!(out, "{id}: {}", facts.join(", "));
    for reason in &row.reasons {
        wrapped(out, "    ", &sentence(reason, now), width);
    }
    for action in actions {
        wrapped(out, "  ", &format!("{} {}", action.op.sign(), action.op.describe()), width);
    }
}

/// `waiting on …, until 18 s from now [MCPO-P040]`.
#[must_use]
pub fn sentence(reason: &Reason, now: Timestamp) -> String {
    let mut out = match reason.kind {
        ReasonKind::Note => reason.text.clone(),
        kind => format!("{} {}", kind.as_str(), reason.text),
    };
    if let Some(until) = reason.until.filter(|until| *until > now) {
        let _ = write!(out, " (in {})", until.since(now));
    }
    if let Some(code) = reason.code {
        let _ = write!(out, " [{code}]");
    }
    out
}

/// Breaks at blanks so that no line is wider than `width`; later lines are indented two more.
pub fn wrapped(out: &mut String, indent: &str, text: &str, width: usize) {
    let mut line = indent.to_owned();
    let mut fresh = true;
    for word in text.split(' ') {
        if !fresh && line.chars().count() + 1 + word.chars().count() > width {
            let _ = writeln!(out, "{line}");
            line = format!("{indent}  ");
            fresh = true;
        }
        if !fresh {
            line.push(' ');
        }
        line.push_str(word);
        fresh = false;
    }
    let _ = writeln!(out, "{line}");
}

/// The plan as JSON: a documented, stable schema.
#[must_use]
pub fn json(plan: &Plan) -> Value {
    let actions: Vec<Value> = plan
        .actions
        .iter()
        .enumerate()
        .map(|(index, action)| {
            json!({
                "index": index,
                "server": action.server.as_ref().map(ServerId::as_str),
                "action": action.op.describe(),
                "sign": action.op.sign().to_string(),
                "why": action.why,
                "after": action.after,
            })
        })
        .collect();
    json!({
        "schemaVersion": 1,
        "changes": !plan.actions.is_empty(),
        "actions": actions,
        "report": plan.report,
        "nextLookMillis": plan.next_look,
    })
}
