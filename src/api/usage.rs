//! What servers and the host use, as it is shown: rates of now, and the history.
//!
//! Must never show 0 for what is not known.

use crate::api::table::Call;
use crate::api::{Context, Response, ok, shown_id, unknown};
use crate::model::time::{Span, Timestamp};
use crate::model::usage::{Point, Step};
use crate::usage::{Reading, ServerUsage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use warp::Reply;

/// Hours of a history when nothing is said.
const HOURS: f64 = 3.0;
/// Most hours of a history.
pub(super) const HOURS_MAX: f64 = 24.0;

/// What a server uses now. Rates are over the time since the reading before: ten seconds while
/// somebody looks, else a minute or more.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageView {
    /// When it was read, in milliseconds since the epoch.
    pub at: i64,
    /// Processors in percent of one: 200 is two of them at work.
    pub cpu_percent: Option<f64>,
    /// Memory, in bytes, without file caches.
    pub memory_bytes: Option<u64>,
    /// Most memory it may hold, in bytes, where that is less than the host has.
    pub memory_limit_bytes: Option<u64>,
    /// Bytes received in a second; of containers with a network of their own.
    pub network_in_bytes_per_second: Option<f64>,
    /// Bytes sent in a second.
    pub network_out_bytes_per_second: Option<f64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Requests through the gateway that ended in a second.
    pub requests_per_second: Option<f64>,
    /// Those that failed.
    pub errors_per_second: Option<f64>,
    /// 95 of 100 of them took at most about this long, in milliseconds; `null` without requests.
    pub p95_millis: Option<f64>,
}

/// This host.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostView {
    /// Its name.
    pub name: Option<String>,
    /// Processors.
    pub cores: Option<u32>,
    /// Share of all processors that was at work since the reading before, in percent.
    pub cpu_percent: Option<f64>,
    /// Runnable and waiting tasks over the last minute.
    pub load: Option<f64>,
    /// Memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// What of it programs can have, in bytes.
    pub memory_available_bytes: Option<u64>,
    /// Size of the disk that the state is on, in bytes.
    pub disk_bytes: Option<u64>,
    /// What of it is free, in bytes.
    pub disk_free_bytes: Option<u64>,
    /// Time since it started, in seconds.
    pub uptime_seconds: Option<u64>,
}

/// The history of a server.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HistoryView {
    /// The server.
    pub server: String,
    /// Points are about this far apart, in seconds: 60 up to three hours, else 600.
    pub step_seconds: u64,
    /// Where it begins, in milliseconds since the epoch; points may begin later.
    pub from: i64,
    /// Where it ends.
    pub to: i64,
    /// Points, oldest first; none while the server did not run.
    pub points: Vec<PointView>,
}

/// One point: what happened since the point before.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PointView {
    /// The end of its time, in milliseconds since the epoch.
    pub at: i64,
    /// Processors in percent of one.
    pub cpu_percent: Option<f64>,
    /// Memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// Requests that ended.
    pub requests: u32,
    /// Those that failed.
    pub errors: u32,
    /// 95 of 100 of them took at most about this long, in milliseconds; of ten minutes the worst.
    pub p95_millis: Option<f64>,
}

impl UsageView {
    pub(crate) fn of(usage: &ServerUsage, reading: &Reading) -> Self {
        let host = reading.host.memory_bytes.unwrap_or(u64::MAX);
        Self {
            at: reading.at.0,
            cpu_percent: usage.cpu_millis.map(percent),
            memory_bytes: usage.memory_bytes,
            memory_limit_bytes: usage.memory_limit_bytes.filter(|limit| *limit < host),
            network_in_bytes_per_second: usage.network_in_per_sec.map(rounded),
            network_out_bytes_per_second: usage.network_out_per_sec.map(rounded),
            pids: usage.pids,
            requests_per_second: usage.requests_per_sec.map(rounded),
            errors_per_second: usage.errors_per_sec.map(rounded),
            p95_millis: usage.p95_micros.map(millis),
        }
    }
}

impl HostView {
    /// `None` before the first reading.
    pub(crate) fn of(reading: &Reading) -> Option<Self> {
        let host = (reading.at > Timestamp::default()).then_some(&reading.host)?;
        Some(Self {
            name: host.name.clone(),
            cores: host.cores,
            cpu_percent: reading.host_cpu_thousandths.map(percent),
            load: host.load_hundredths.map(|load| f64::from(load) / 100.0),
            memory_bytes: host.memory_bytes,
            memory_available_bytes: host.memory_available_bytes,
            disk_bytes: host.disk_bytes,
            disk_free_bytes: host.disk_free_bytes,
            uptime_seconds: host.uptime.map(|uptime| uptime.0 / 1000),
        })
    }
}

impl PointView {
    pub(crate) fn of(point: &Point) -> Self {
        Self {
            at: point.at.0,
            cpu_percent: point.cpu_millis.map(percent),
            memory_bytes: point.memory_kib.map(|kib| u64::from(kib) * 1024),
            requests: point.requests,
            errors: point.errors,
            p95_millis: point.p95_micros.map(millis),
        }
    }
}

fn percent(thousandths: u32) -> f64 {
    f64::from(thousandths) / 10.0
}

fn millis(micros: u32) -> f64 {
    f64::from(micros) / 1e3
}

/// Three digits behind the point.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// The history of a server over the last hours.
pub(crate) fn history(context: &Context, id: &crate::model::id::ServerId, hours: f64) -> HistoryView {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it lies between the bounds")]
    let span = Span::secs((hours.clamp(0.1, HOURS_MAX) * 3600.0) as u64);
    let (step, points) = context.usage.history(id, span);
    let to = crate::api::now();
    HistoryView {
        server: id.to_string(),
        step_seconds: step.span().0 / 1000,
        from: to.0.saturating_sub(i64::try_from(span.0).unwrap_or(i64::MAX)),
        to: to.0,
        points: points.iter().map(PointView::of).collect(),
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
struct HistoryQuery {
    hours: Option<f64>,
}

/// `GET /api/v1/servers/{id}/history`.
pub(super) async fn server(context: Context, call: Call) -> Response {
    let query: HistoryQuery = match call.query() {
        Ok(query) => query,
        Err(refused) => return *refused,
    };
    let hours = query.hours.unwrap_or(HOURS);
    let name = call.part(0);
    match shown_id(&name, &context) {
        Ok(id) => ok(&history(&context, &id, hours)).into_response(),
        Err(name) => unknown(&name).into_response(),
    }
}

/// `GET /api/v1/host`; what was not read yet is `null`.
pub(super) fn host(context: &Context) -> Response {
    let reading = context.usage.now();
    let nothing = Reading { at: Timestamp(1), ..Reading::default() };
    let host = HostView::of(&reading).or_else(|| HostView::of(&nothing));
    ok(&host).into_response()
}

/// Points that lie this much further apart than their step have a gap between them, in milliseconds.
#[must_use]
pub fn gap_millis(step_seconds: u64) -> i64 {
    let wide = Step::ALL.into_iter().find(|step| step.span() == Span::secs(step_seconds));
    i64::try_from(wide.map_or(Span::secs(step_seconds), Step::span).0.saturating_mul(5) / 2)
        .unwrap_or(i64::MAX)
}
