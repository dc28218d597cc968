//! What somebody asked for by hand that is more than one server's: pauses, and this host out of the load
//! balancer.
//!
//! Must never say that a host is out before the last pass says so.

use crate::api::view::Moment;
use crate::model::balancer::BalancerSeen;
use crate::model::memory::{Pause, Scope};
use crate::plan::report::Drained;
use crate::service::SeenByPass;
use schemars::JsonSchema;
use serde::Serialize;
use std::sync::Arc;

/// Servers that are left alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PauseView {
    /// `host`, `section:ID` or `server:ID`.
    pub scope: String,
    /// Who asked.
    pub by: String,
    /// When, in milliseconds since the epoch.
    pub at: i64,
    /// Until when it holds, in milliseconds since the epoch; `null`: until taken back.
    pub until: Option<i64>,
}

/// This host out of the load balancer, or on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrainView {
    /// Who asked.
    pub by: String,
    /// When, in milliseconds since the epoch.
    pub at: i64,
    /// Until when it holds, in milliseconds since the epoch; `null`: until taken back.
    pub until: Option<i64>,
    /// Servers that are not out yet.
    pub waits: usize,
    /// Servers that have a route there, those among them; 0 without a load balancer.
    pub of: usize,
}

impl PauseView {
    fn of((scope, pause): (&Scope, &Pause)) -> Self {
        let Pause { by, at, until } = pause;
        Self { scope: scope.to_string(), by: by.clone(), at: at.0, until: until.map(|until| until.0) }
    }
}

impl Moment {
    /// All pauses, the host's first.
    pub(crate) fn pauses(&self) -> Vec<PauseView> {
        self.snapshot.pauses.iter().map(PauseView::of).collect()
    }

    /// The pause of a section.
    pub(crate) fn pause_of_section(&self, id: &str) -> Option<PauseView> {
        let is = |scope: &Scope| matches!(scope, Scope::Section(section) if section.as_str() == id);
        self.snapshot.pauses.iter().find(|(scope, _)| is(scope)).map(PauseView::of)
    }

    /// How far this host is out of the load balancer, where somebody wants that.
    pub(crate) fn drained(&self) -> Option<DrainView> {
        let report = &self.snapshot.report;
        let Drained { by, at, until, waits } = report.drained.as_ref()?;
        let off = |seen: &Arc<SeenByPass>| matches!(seen.balancer, BalancerSeen::Off(_));
        let routed = if self.snapshot.seen.as_ref().is_none_or(off) {
            0
        } else {
            report.servers.values().filter(|row| row.route.is_some()).count()
        };
        let until = until.map(|until| until.0);
        Some(DrainView { by: by.clone(), at: at.0, until, waits: *waits, of: routed.max(*waits) })
    }
}
