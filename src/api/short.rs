//! The short manager API: `/health`, `/servers`, start, stop and call by name, with bare answers and
//! errors of one word `error`.
//!
//! Must never do what the long API does not.

use crate::api::table::Call;
use crate::api::view::{Moment, ServerView};
use crate::api::{Context, Response, SHORT, actions};
use crate::service::Act;
use http_body_util::BodyExt as _;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
use warp::Reply;
use warp::http::StatusCode;

/// Bytes of an answer that is told again in this API's shape.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// A server as this API has it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShortServer {
    /// Its id.
    pub name: String,
    /// Its image, where it is a container.
    pub image: Option<String>,
    /// What its container does, or its state where it has none.
    pub status: String,
    /// Its container.
    pub container_id: Option<String>,
}

impl ShortServer {
    fn of(view: ServerView) -> Self {
        let status = view.container_state.unwrap_or(view.state);
        Self { name: view.id, image: view.image, status, container_id: view.container_id }
    }
}

/// `GET /health`.
pub(super) fn health() -> Response {
    warp::reply::json(&json!({ "status": "ok" })).into_response()
}

/// `GET /servers`.
pub(super) fn list(context: &Context) -> Response {
    let servers: Vec<ShortServer> = Moment::of(context).servers().into_iter().map(ShortServer::of).collect();
    warp::reply::json(&servers).into_response()
}

/// `POST /servers/{name}/{start,stop}`.
pub(super) async fn act(context: Context, call: Call, act: Act) -> Response {
    let name = call.part(0);
    let Ok(id) = crate::api::server_id(&name, &context) else {
        let image = serde_json::from_slice::<Value>(&call.body).ok();
        let image = image.as_ref().and_then(|body| body.get("image")).is_some();
        let why = if image {
            format!(
                "no server is called {name}; add it to mcp.config.json, this version does not start images by name"
            )
        } else {
            format!("no server is called {name}")
        };
        return error(StatusCode::NOT_FOUND, &why);
    };
    let mut call = call;
    call.set_query("wait=30s");
    let answer = actions::servers(context.clone(), call, act).await;
    if answer.status().is_client_error() || answer.status().is_server_error() {
        return retold(answer).await;
    }
    match Moment::of(&context).server(&id).map(ShortServer::of) {
        Some(server) => warp::reply::json(&server).into_response(),
        None => error(StatusCode::NOT_FOUND, &format!("no server is called {name}")),
    }
}

/// `POST /servers/{name}/call`.
pub(super) async fn call(context: Context, call: Call) -> Response {
    let answer = crate::api::lists::call(context, call).await;
    if answer.status().is_success() { answer } else { retold(answer).await }
}

fn error(status: StatusCode, why: &str) -> Response {
    let body = warp::reply::json(&json!({ "error": why }));
    let mut response = warp::reply::with_status(body, status).into_response();
    response.headers_mut().insert(SHORT, warp::http::HeaderValue::from_static("1"));
    response
}

/// A problem in this API's shape.
async fn retold(answer: Response) -> Response {
    let status = answer.status();
    let body = http_body_util::Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = |key: &str| problem.get(key).and_then(Value::as_str);
    error(status, text("detail").or_else(|| text("title")).unwrap_or("it failed"))
}
