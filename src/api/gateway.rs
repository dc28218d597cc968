//! The gateway's figures as text for Prometheus.
//!
//! Must never show more than [`crate::gateway::overview`] does.

use crate::api::Context;
use crate::gateway::metrics::prometheus::{CONTENT_TYPE, prometheus};
use warp::Reply;

/// `GET /metrics`.
pub(super) fn metrics(context: &Context) -> impl Reply + use<> {
    warp::reply::with_header(prometheus(&context.gateway.overview()), "content-type", CONTENT_TYPE)
}
