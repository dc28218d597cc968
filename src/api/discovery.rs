//! What the last search for servers found, and searching again.
//!
//! Finds are told without secrets. Must never write or enable one: that is the command line's, with
//! somebody's consent.

use crate::api::problem::problem;
use crate::api::{Context, Response, ok};
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use warp::Reply;
use warp::http::StatusCode;

/// Longest wait for a search that was asked for.
const SEARCH_WITHIN: Duration = Duration::from_secs(60);

/// The last search.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DiscoveryView {
    /// Whether directories are searched at intervals (`[discovery] enabled`).
    pub enabled: bool,
    /// The directories.
    pub paths: Vec<String>,
    /// When the last search ended, in milliseconds since the epoch; `None` before the first.
    pub at: Option<i64>,
    /// How many were found with high and medium confidence.
    pub count: usize,
    /// What `discover --json` prints.
    pub found: Value,
}

/// The search that goes on.
#[derive(Clone, Debug)]
pub struct Discovery {
    /// What it found last.
    pub view: watch::Receiver<Arc<DiscoveryView>>,
    /// Asks for another search; answered when it has ended.
    pub ask: mpsc::Sender<oneshot::Sender<()>>,
}

/// `GET /api/v1/discovery`.
pub(super) fn show(context: &Context) -> Response {
    ok(&**context.discovery.view.borrow()).into_response()
}

/// `POST /api/v1/discovery`.
pub(super) async fn again(context: Context) -> Response {
    let (reply, done) = oneshot::channel();
    let asked = tokio::time::timeout(SEARCH_WITHIN, async {
        context.discovery.ask.send(reply).await.is_ok() && done.await.is_ok()
    });
    match asked.await {
        Ok(true) => show(&context),
        Ok(false) => crate::api::gone().into_response(),
        Err(_late) => {
            let detail = "the search goes on; ask for its result later".to_owned();
            problem(StatusCode::SERVICE_UNAVAILABLE, "MCPO-H050", "the search takes long", detail)
                .into_response()
        }
    }
}
