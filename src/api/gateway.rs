//! The gateway's figures: as JSON for the command line, as text for Prometheus.
//!
//! Must never show more than [`crate::gateway::overview`] does.

use crate::api::{Answered, Context, ok};
use crate::gateway::metrics::prometheus::{CONTENT_TYPE, prometheus};
use serde_json::json;
use std::convert::Infallible;
use warp::{Filter, Rejection, Reply};

/// `GET /api/v1/gateway` and `GET /metrics`.
pub(super) fn routes(
    with: impl Filter<Extract = (Context,), Error = Infallible> + Clone + Send + Sync + 'static,
) -> impl Filter<Extract = (impl Reply,), Error = Rejection> + Clone {
    let view = warp::path!("api" / "v1" / "gateway").and(warp::get()).and(with.clone()).then(view);
    let metrics = warp::path!("metrics").and(warp::get()).and(with).map(|context: Context| metrics(&context));
    view.or(metrics)
}

async fn view(context: Context) -> Answered {
    ok(&json!({ "schemaVersion": 1, "servers": context.gateway.overview() }))
}

fn metrics(context: &Context) -> impl Reply + use<> {
    warp::reply::with_header(prometheus(&context.gateway.overview()), "content-type", CONTENT_TYPE)
}
