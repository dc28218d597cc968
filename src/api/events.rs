//! Server-sent events: which servers look different since the last one, that tasks moved, that figures
//! were read.
//!
//! An event says what to look at again, not what it looks like now, so that one that is missed costs
//! nothing. Must never send one for a pass that changed nothing that people see.

use crate::api::problem::problem;
use crate::api::view::{Moment, ServerView};
use crate::api::{Context, Response};
use bytes::Bytes;
use futures_util::stream;
use serde_json::json;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use warp::Reply;
use warp::http::{HeaderValue, StatusCode};

/// Streams open at once.
const STREAMS_MAX: usize = 64;
/// A comment when nothing happened this long, so that proxies and dead clients are noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Passes that follow each other closely are one event.
const TOGETHER: Duration = Duration::from_millis(200);

static OPEN: AtomicUsize = AtomicUsize::new(0);

/// Counts an open stream until it is dropped.
struct Open;

impl Drop for Open {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Watcher {
    context: Context,
    tasks: watch::Receiver<u64>,
    readings: watch::Receiver<u64>,
    snapshots: watch::Receiver<Arc<crate::service::Snapshot>>,
    last: Option<Looks>,
    /// Only the first one is sent as it is.
    first: bool,
    _open: Open,
}

/// What people see of the report, by server; figures that always move are not in it.
type Looks = (BTreeMap<String, String>, String);

/// `GET /api/v1/events`.
pub(super) fn events(context: Context) -> Response {
    if OPEN.fetch_add(1, Ordering::Relaxed) >= STREAMS_MAX {
        OPEN.fetch_sub(1, Ordering::Relaxed);
        let detail = format!("{STREAMS_MAX} event streams are open already");
        return problem(StatusCode::SERVICE_UNAVAILABLE, "MCPO-H429", "too many streams", detail)
            .into_response();
    }
    let watcher = Watcher {
        tasks: context.recorder.changes(),
        readings: context.usage.readings(),
        snapshots: context.handle.snapshot.clone(),
        context,
        last: None,
        first: true,
        _open: Open,
    };
    let stream = stream::unfold(watcher, |mut watcher| async {
        let event = watcher.next().await?;
        Some((Ok::<Bytes, Infallible>(Bytes::from(event)), watcher))
    });
    let mut response = warp::reply::stream(stream).into_response();
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("text/event-stream"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

impl Watcher {
    /// The next event, or a comment; `None` when the daemon ends.
    async fn next(&mut self) -> Option<String> {
        let mut ending = self.context.ending.clone();
        let ended = async move {
            let _ended = ending.wait_for(|ended| *ended).await;
        };
        let mut ended = std::pin::pin!(ended);
        loop {
            if std::mem::take(&mut self.first) {
                self.context.usage.look();
                self.readings.borrow_and_update();
                self.snapshots.borrow_and_update();
                return Some(self.report().unwrap_or_default());
            }
            tokio::select! {
                () = ended.as_mut() => return None,
                changed = self.snapshots.changed() => {
                    changed.ok()?;
                    tokio::time::sleep(TOGETHER).await;
                    self.snapshots.borrow_and_update();
                    if let Some(event) = self.report() {
                        return Some(event);
                    }
                }
                changed = self.tasks.changed() => {
                    changed.ok()?;
                    return Some("event: tasks\ndata: {}\n\n".to_owned());
                }
                changed = self.readings.changed() => {
                    changed.ok()?;
                    // Whoever has a page open looks.
                    self.context.usage.look();
                    return Some("event: usage\ndata: {}\n\n".to_owned());
                }
                () = tokio::time::sleep(KEEP_ALIVE) => return Some(": nothing happened\n\n".to_owned()),
            }
        }
    }

    /// The report as an event, when it looks different from the last one sent.
    fn report(&mut self) -> Option<String> {
        let moment = Moment::of(&self.context);
        let (servers, whole) = looks(&moment);
        let (before, whole_before) = self.last.take().unwrap_or_default();
        let differs = |(id, look): &(&String, &String)| before.get(*id) != Some(*look);
        let mut changed: Vec<String> = servers.iter().filter(differs).map(|(id, _)| id.clone()).collect();
        changed.extend(before.keys().filter(|id| !servers.contains_key(*id)).cloned());
        let same = changed.is_empty() && whole == whole_before;
        self.last = Some((servers, whole));
        if same {
            return None;
        }
        let snapshot = &moment.snapshot;
        let data = json!({
            "pass": snapshot.pass,
            "sentence": snapshot.report.sentence(),
            "well": snapshot.well(),
            "settled": snapshot.settled,
            "changed": changed,
        });
        Some(format!("event: report\nid: {}\ndata: {data}\n\n", snapshot.pass))
    }
}

fn looks(moment: &Moment) -> Looks {
    let look = |view: ServerView| {
        let ServerView { id, connection, health, .. } = &view;
        let up = connection.as_ref().map(|connection| (connection.up, connection.why.clone()));
        let health = health.as_ref().map(|health| (health.state.clone(), health.why.clone()));
        let rest = ServerView { connection: None, usage: None, health: None, ..view.clone() };
        (id.clone(), format!("{}{up:?}{health:?}", serde_json::to_string(&rest).unwrap_or_default()))
    };
    let snapshot = &moment.snapshot;
    let whole = format!(
        "{}{}{:?}{:?}",
        snapshot.report.sentence(),
        snapshot.settled,
        snapshot.faults,
        snapshot.report.general
    );
    (moment.servers().into_iter().map(look).collect(), whole)
}
