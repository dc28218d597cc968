//! What is shown of the instances of one server, and of all of them together as that server.
//!
//! Must never ask anybody: it joins what the views of single instances are made from.

use crate::api::usage::UsageView;
use crate::api::view::{ConnectionView, Moment, ReasonView};
use crate::gateway::overview::HealthView;
use crate::model::id::ServerId;
use crate::plan::report::Row;
use schemars::JsonSchema;
use serde::Serialize;

/// One instance of a server with several.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstanceView {
    /// Its id: the server's own, or with `-R2`, `-R3`, …
    pub id: String,
    /// Its number; 1 is the first.
    pub number: u32,
    /// Its state, in the words of a server's.
    pub state: String,
    /// Whether actions of it are being carried out.
    pub busy: bool,
    /// Whether it runs.
    pub runs: bool,
    /// Why, most important first.
    pub reasons: Vec<ReasonView>,
    /// Its container's name.
    pub container: Option<String>,
    /// Its container's id.
    pub container_id: Option<String>,
    /// What its container does: `running`, `exited (1)`.
    pub container_state: Option<String>,
    /// Restarts in a row.
    pub restarts: u32,
    /// When the next try is due, in milliseconds since the epoch.
    pub next_try: Option<i64>,
    /// How well it is; `null` while it is not to run, or was not looked at yet.
    pub health: Option<HealthView>,
    /// Its connection and what was counted on it.
    pub connection: Option<ConnectionView>,
    /// What it uses now; `null` while it does not run.
    pub usage: Option<UsageView>,
}

impl InstanceView {
    /// What its row says; the rest is its reader's to fill in.
    pub(super) fn of(id: &ServerId, row: &Row) -> Self {
        Self {
            id: id.to_string(),
            number: id.replica_number(),
            state: row.state.as_str().to_owned(),
            runs: row.runs(),
            reasons: row.reasons.iter().map(ReasonView::of).collect(),
            container: row.container.clone(),
            container_id: row.container_id.clone(),
            container_state: row.container_state.clone(),
            restarts: row.restarts,
            next_try: row.next_try.map(|at| at.0),
            ..Self::default()
        }
    }
}

impl Moment {
    /// The instances of a server in the order of their numbers; none where it is one.
    pub(super) fn instances(&self, row: &Row) -> Vec<InstanceView> {
        let one = |(id, row): (&ServerId, &Row)| {
            let figures = self.figures.get(id);
            InstanceView {
                busy: self.snapshot.busy.contains(id),
                health: figures.and_then(|view| view.health.clone()),
                connection: figures.map(ConnectionView::of),
                usage: self.reading.servers.get(id).map(|usage| UsageView::of(usage, &self.reading)),
                ..InstanceView::of(id, row)
            }
        };
        let mut all: Vec<InstanceView> = row.instances.iter().map(one).collect();
        all.sort_by_key(|one| one.number);
        all
    }

    /// What a server uses, all its instances together.
    pub(super) fn used(&self, id: &ServerId, row: &Row) -> Option<UsageView> {
        let all = row.each(id).filter_map(|(id, _)| self.reading.servers.get(id));
        let sum = all.cloned().reduce(|one, other| one.and(&other))?;
        Some(UsageView::of(&sum, &self.reading))
    }
}

/// How well a server is whose instances are so: as the worst of those that serve, and no better than degraded
/// while one does not.
pub(super) fn health(all: &[InstanceView]) -> Option<HealthView> {
    let known = || all.iter().filter_map(|one| Some((one, one.health.as_ref()?)));
    let severity = |view: &HealthView| {
        let words = ["healthy", "degraded", "starting", "unhealthy", "critical"];
        words.into_iter().position(|word| word == view.state).unwrap_or(words.len())
    };
    let (worst, view) = known().max_by_key(|(_, view)| severity(view))?;
    let serves = known().filter(|(_, view)| view.serves()).count();
    let mut together = view.clone();
    if serves > 0 && serves < all.len() {
        let why = view.why.clone().unwrap_or_else(|| format!("it is {}", view.state));
        together.why = Some(format!("{serves} of {} instances serve; {}: {why}", all.len(), worst.id));
        "degraded".clone_into(&mut together.state);
    }
    Some(together)
}

/// The connections of all instances as one.
pub(super) fn connection(all: &[InstanceView]) -> Option<ConnectionView> {
    let mut each = all.iter().filter_map(|one| one.connection.as_ref());
    let mut sum = each.next()?.clone();
    for one in each {
        let ConnectionView { up, why, version, sessions, in_flight, requests, errors, p95_millis, limits } =
            one;
        sum.up |= up;
        sum.why = if sum.up { None } else { sum.why.or_else(|| why.clone()) };
        sum.version = sum.version.or_else(|| version.clone());
        sum.sessions += sessions;
        sum.in_flight = sum.in_flight.saturating_add(*in_flight);
        sum.requests = sum.requests.saturating_add(*requests);
        sum.errors = sum.errors.saturating_add(*errors);
        sum.p95_millis = sum.p95_millis.into_iter().chain(*p95_millis).reduce(f64::max);
        // Limits are those of the server, whichever instance a call goes to.
        sum.limits = sum.limits.or_else(|| limits.clone());
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::{InstanceView, health};
    use crate::gateway::overview::HealthView;

    fn one(id: &str, state: &str) -> InstanceView {
        let view = HealthView {
            state: state.to_owned(),
            since: 0,
            why: (state != "healthy").then(|| "no answer to ping".to_owned()),
            failures: 0,
            latency_millis: None,
            usual_millis: None,
            judged: 0,
            answered: 0,
            unanswered: 0,
        };
        InstanceView { id: id.to_owned(), health: Some(view), ..InstanceView::default() }
    }

    #[test]
    fn a_server_serves_while_one_of_its_instances_does_and_says_which_does_not() {
        let of = |states: &[&str]| {
            let all: Vec<InstanceView> =
                states.iter().enumerate().map(|(n, state)| one(&format!("time-R{n}"), state)).collect();
            health(&all).map(|view| (view.state, view.why.unwrap_or_default()))
        };
        assert_eq!(of(&["healthy", "healthy"]), Some(("healthy".to_owned(), String::new())));
        let (state, why) = of(&["healthy", "unhealthy", "healthy"]).expect("a view");
        assert_eq!(
            (state.as_str(), why.as_str()),
            ("degraded", "2 of 3 instances serve; time-R1: no answer to ping")
        );
        assert_eq!(of(&["unhealthy", "critical"]).expect("a view").0, "critical");
        assert_eq!(of(&["healthy", "degraded"]).expect("a view").0, "degraded");
        assert_eq!(of(&[]), None);
    }
}
