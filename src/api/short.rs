//! The short manager API: `/health`, `/servers`, start, stop and call by name, with bare answers and
//! errors of one word `error`.
//!
//! Must never do what the long API does not.

use crate::api::editing::Edit;
use crate::api::kept::Page;
use crate::api::table::Call;
use crate::api::view::{Moment, ServerView};
use crate::api::{Context, Response, SHORT, actions};
use crate::config::edit::Change;
use crate::service::Act;
use http_body_util::BodyExt as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use warp::Reply;
use warp::http::StatusCode;

/// Bytes of an answer that is told again in this API's shape.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// The section of servers that are started by their image.
const AD_HOC: &str = "adhoc";

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
pub(super) fn list(context: &Context, call: &Call) -> Response {
    let shown = context.kept.shown(context);
    let key = ("short", String::new());
    let made = || Page::of(&shown.servers.iter().cloned().map(ShortServer::of).collect::<Vec<_>>());
    context.kept.of_servers(shown.number, key, made).answer(call.if_none_match.as_deref())
}

/// `POST /servers/{name}/{start,stop}`.
pub(super) async fn act(context: Context, call: Call, act: Act) -> Response {
    let name = call.part(0);
    if act == Act::Start
        && let Some(refused) = ad_hoc(&context, &call, &name).await
    {
        return refused;
    }
    let Ok(id) = crate::api::server_id(&name, &context) else {
        return error(StatusCode::NOT_FOUND, &format!("no server is called {name}"));
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

/// `{"image": …}` beside a start.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StartImage {
    /// The image of a server that the file does not have: it is kept there, in the section `adhoc`.
    #[serde(default)]
    pub image: Option<String>,
    /// The port inside the container that speaks MCP; without it the server speaks over stdio.
    #[serde(default)]
    pub container_port: Option<u16>,
}

/// Puts a server that is started by its image into the file; the answer when that does not work.
async fn ad_hoc(context: &Context, call: &Call, name: &str) -> Option<Response> {
    if call.body.trim_ascii().is_empty() {
        return None;
    }
    let asked: StartImage = match serde_json::from_slice(&call.body) {
        Ok(asked) => asked,
        Err(why) => return Some(error(StatusCode::BAD_REQUEST, &format!("the body cannot be read: {why}"))),
    };
    let image = asked.image?;
    let known = context.files.borrow().outline.servers.clone();
    let known = known.into_iter().find(|server| server.id.as_deref() == Some(name) || server.name == name);
    let mut args = vec!["run".to_owned(), "--rm".to_owned()];
    match asked.container_port {
        Some(port) => args.extend(["-p".to_owned(), port.to_string()]),
        None => args.push("-i".to_owned()),
    }
    args.push(image.clone());
    if let Some(known) = known {
        let same = known
            .entry
            .get("args")
            .and_then(Value::as_array)
            .is_some_and(|own| own.iter().any(|arg| *arg == image));
        if same {
            return None;
        }
        if known.section.as_deref() != Some(AD_HOC) {
            let why = format!("{name} is in mcp.config.json with another image; edit it there");
            return Some(error(StatusCode::CONFLICT, &why));
        }
    }
    if image.starts_with('-') || image.trim() != image || image.is_empty() {
        return Some(error(StatusCode::BAD_REQUEST, &format!("'{image}' is not an image")));
    }
    let server = Change::Put {
        server: name.to_owned(),
        entry: json!({ "command": "docker", "args": args }),
        section: Some(AD_HOC.to_owned()),
        new: false,
    };
    let declared = context.files.borrow().outline.sections.iter().any(|section| section.name == AD_HOC);
    let section = Change::PutSection { section: AD_HOC.to_owned(), settings: json!({}), new: true };
    let changes = if declared { vec![server] } else { vec![section, server] };
    let far = call.caller.via != "socket";
    let edit = Edit { changes, far, ..Edit::default() };
    let words = format!("edit: start '{name}' by its image");
    match crate::api::edit::carry_out(context, call, edit, &words).await {
        Ok(_edited) => {
            // The entry must be known before it can be started.
            let _pass = actions::read_and_pass(context, false).await;
            None
        }
        Err(refused) => Some(retold(crate::api::edit::answer_of(refused)).await),
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
