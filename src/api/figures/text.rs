//! The page, family by family.

use crate::api::configuration::Configuration;
use crate::api::figures::table::{
    ACTION_TIME, ACTIONS, ALL, AWS, BALANCER, BUILD, CALLS_LOST, CONVERGED, CPU, DRAINED, DRIFT, ENDS,
    ENGINE, FAULTS, GENERATION, HEALTH, HEALTHY, IN_A_ROW, LAST_PASS, LATELY, MEMORY, OOM_KILLS,
    PASS_DURATION, PASSES, PAUSED, PORTS, PORTS_LEASED, REFUSED, RESTARTS, SERVERS, SETTLED, SIGN_INS,
    STARTED, STATE, UP, WAITING,
};
use crate::api::figures::{Figures, PASS_MICROS};
use crate::api::view::STATES;
use crate::gateway::metrics::page::{Family, Page, Several, seconds};
use crate::gateway::metrics::prometheus;
use crate::gateway::overview::{HealthView, ServerView};
use crate::model::balancer::BalancerSeen;
use crate::model::health::State;
use crate::model::id::ServerId;
use crate::model::net::PortRange;
use crate::model::observed::Seen;
use crate::model::time::Timestamp;
use crate::plan::report::{Row, RowState};
use crate::service::Snapshot;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

/// What is shown beside the counts.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// What the last pass found.
    pub snapshot: &'a Snapshot,
    /// Which version of the files is in force.
    pub configuration: &'a Configuration,
    /// Ports that servers are given.
    pub ports: PortRange,
    /// The gateway's servers.
    pub views: &'a [ServerView],
    /// What servers use, as far as it is known.
    pub used: &'a BTreeMap<ServerId, Used>,
    /// Calls of clients that nobody could write down.
    pub calls_lost: u64,
}

/// What a server uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Processor time so far, in microseconds.
    pub cpu_micros: Option<u64>,
    /// Memory held, in bytes.
    pub memory_bytes: Option<u64>,
}

/// Every family that the page may have.
pub fn families() -> impl Iterator<Item = &'static Family> {
    ALL.iter().chain(prometheus::families())
}

/// The whole page.
#[must_use]
pub fn text(figures: &Figures, moment: &Moment<'_>) -> String {
    let mut page = Page::default();
    page.family(&BUILD);
    page.sample(&BUILD, &[env!("CARGO_PKG_VERSION")], 1);
    page.single(&STARTED, since_epoch(figures.started));
    passes(&mut page, figures, moment.snapshot);
    world(&mut page, figures, moment);
    files(&mut page, figures, moment.configuration);
    page.single(&CALLS_LOST, moment.calls_lost);
    servers(&mut page, figures, moment);
    prometheus::write(&mut page, moment.views);
    page.into_text()
}

fn since_epoch(at: Timestamp) -> String {
    seconds(u64::try_from(at.0).unwrap_or(0).saturating_mul(1_000))
}

fn passes(page: &mut Page, figures: &Figures, snapshot: &Snapshot) {
    let counts = figures.counts().clone();
    page.single(&PASSES, counts.passes.iter().sum::<u64>());
    page.family(&PASS_DURATION);
    page.histogram(&PASS_DURATION, &[], &PASS_MICROS, (&counts.passes, counts.micros));
    page.single(&LAST_PASS, since_epoch(snapshot.began));
    page.single(&CONVERGED, u8::from(snapshot.well()));
    page.single(&SETTLED, u8::from(snapshot.settled));
    page.single(&FAULTS, snapshot.faults.len());
    page.single(&LATELY, snapshot.restarts);
    page.single(&DRAINED, u8::from(snapshot.report.drained.is_some()));
    page.family(&ACTIONS);
    for ((action, result), count) in &counts.actions {
        page.sample(&ACTIONS, &[action, result], count);
    }
    page.family(&ACTION_TIME);
    for (action, millis) in &counts.millis {
        page.sample(&ACTION_TIME, &[action], seconds(millis.saturating_mul(1_000)));
    }
    page.family(&DRIFT);
    for part in ["engine", "balancer", "edge"] {
        page.sample(&DRIFT, &[part], counts.drift.get(part).copied().unwrap_or(0));
    }
}

fn world(page: &mut Page, figures: &Figures, moment: &Moment<'_>) {
    let snapshot = moment.snapshot;
    page.single(&ENGINE, u8::from(snapshot.report.engine_known));
    page.family(&BALANCER);
    match snapshot.seen.as_ref().map(|seen| &seen.balancer) {
        Some(BalancerSeen::On(seen)) => {
            page.sample(&BALANCER, &[], u8::from(matches!(seen, Seen::Known(_))));
        }
        Some(BalancerSeen::Off(_)) | None => {}
    }
    page.family(&AWS);
    for (operation, result, count) in figures.calls.all() {
        page.sample(&AWS, &[&operation, &result], count);
    }
    page.single(&PORTS, moment.ports.len());
    let leased = snapshot.leases.values().filter(|lease| moment.ports.contains(lease.port));
    page.single(&PORTS_LEASED, leased.count());
}

fn files(page: &mut Page, figures: &Figures, configuration: &Configuration) {
    page.single(&GENERATION, configuration.generation);
    page.family(&REFUSED);
    page.sample(&REFUSED, &["config"], u8::from(configuration.config.refused.is_some()));
    page.sample(&REFUSED, &["settings"], u8::from(configuration.settings.refused.is_some()));
    page.single(&WAITING, configuration.needs_restart.len());
    page.single(&SIGN_INS, figures.refused.load(Relaxed));
}

fn servers(page: &mut Page, figures: &Figures, moment: &Moment<'_>) {
    let report = &moment.snapshot.report;
    let answers: BTreeMap<&ServerId, bool> =
        moment.views.iter().map(|view| (&view.server, view.up)).collect();
    let health: BTreeMap<&ServerId, &HealthView> =
        moment.views.iter().filter_map(|view| Some((&view.server, view.health.as_ref()?))).collect();
    let ids = report.each().map(|(id, _)| id).chain(moment.used.keys());
    let several = Several::among(ids);
    page.family(&SERVERS);
    for state in STATES {
        page.sample(&SERVERS, &[state.as_str()], report.count(state));
    }
    let each = |page: &mut Page, family: &Family, number: &dyn Fn(&ServerId, &Row) -> Option<u64>| {
        page.family(family);
        for (id, row) in report.each() {
            if let Some(number) = number(id, row) {
                page.sample(family, &several.labels(id).each_ref().map(String::as_str), number);
            }
        }
    };
    page.family(&STATE);
    for (id, row) in report.each() {
        let [server, replica] = several.labels(id);
        for state in STATES {
            page.sample(&STATE, &[&server, &replica, state.as_str()], u8::from(row.state == state));
        }
    }
    let up = |id: &ServerId, row: &Row| match &row.container_state {
        Some(state) => state.starts_with("running"),
        None => row.kind != "container" && answers.get(id).copied().unwrap_or(false),
    };
    each(page, &UP, &|id, row| Some(up(id, row).into()));
    let health = |id: &ServerId, row: &Row| {
        let wanted = !matches!(row.state, RowState::Stopped | RowState::Asleep);
        health.get(id).filter(|_| wanted).copied()
    };
    each(page, &HEALTHY, &|id, row| health(id, row).map(|health| health.serves().into()));
    page.family(&HEALTH);
    for (id, health) in report.each().filter_map(|(id, row)| Some((id, health(id, row)?))) {
        let [server, replica] = several.labels(id);
        for state in State::ALL {
            let is = health.state == state.as_str();
            page.sample(&HEALTH, &[&server, &replica, state.as_str()], u8::from(is));
        }
    }
    page.family(&CPU);
    for (id, micros) in moment.used.iter().filter_map(|(id, used)| Some((id, used.cpu_micros?))) {
        page.sample(&CPU, &several.labels(id).each_ref().map(String::as_str), seconds(micros));
    }
    page.family(&MEMORY);
    for (id, bytes) in moment.used.iter().filter_map(|(id, used)| Some((id, used.memory_bytes?))) {
        page.sample(&MEMORY, &several.labels(id).each_ref().map(String::as_str), bytes);
    }
    let ends = figures.counts().ends.clone();
    each(page, &ENDS, &|id, _| Some(ends.get(id).map_or(0, |(all, _)| *all)));
    each(page, &OOM_KILLS, &|id, _| Some(ends.get(id).map_or(0, |(_, memory)| *memory)));
    each(page, &PAUSED, &|_, row| Some(row.paused.into()));
    let restarts = figures.counts().restarts.clone();
    each(page, &RESTARTS, &|id, _| Some(restarts.get(id).copied().unwrap_or(0)));
    each(page, &IN_A_ROW, &|_, row| Some(row.restarts.into()));
}
