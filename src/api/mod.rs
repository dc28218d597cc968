//! The API: one table of routes, for the control socket and for the main listener.
//!
//! On the socket there is no password; the file's mode is the gate, and the engine of the socket says
//! which user asks. Handlers parse, ask the loop, and answer; nothing is computed here that a pass
//! computed already. Start, stop and sync are never GET.

pub mod actions;
pub mod balancer;
pub mod configuration;
pub mod discovery;
pub mod edit;
pub mod editing;
pub mod ends;
pub mod events;
pub mod figures;
pub mod health;
pub mod instances;
pub mod kept;
mod lists;
pub mod openapi;
pub(crate) mod parameters;
mod problem;
pub mod recorder;
pub mod sections;
pub mod settings;
pub mod short;
pub mod table;
pub mod usage;
pub mod verbosity;
pub mod view;
pub mod wishes;

use crate::api::configuration::Configuration;
use crate::api::editing::Editor;
use crate::api::figures::Figures;
use crate::api::kept::Kept;
use crate::api::problem::problem;
use crate::api::recorder::Recorder;
use crate::api::settings::SettingsEditor;
use crate::api::verbosity::Verbosity;
use crate::config::edit::outline::Outline;
use crate::config::load::{EffectiveValue, LevelValues};
use crate::gateway::Gateway;
use crate::gateway::call::Failed;
use crate::model::id::{ContainerId, ServerId};
use crate::model::observed::LogAsk;
use crate::model::server::Transport;
use crate::model::time::{Span, Timestamp};
use crate::plan::display;
use crate::service::{Handle, Request, Snapshot, Wish};
use crate::usage::Usage;
use crate::world::Engine;
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tower_service::Service as _;
use warp::http::StatusCode;
use warp::reply::{Json, WithStatus};
use warp::{Filter, Reply};

/// Longest body of a request, in bytes.
const BODY_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Longest a request may wait for a pass.
const WAIT_MAX: Duration = Duration::from_secs(600);
/// Connections to the control socket at once.
const CONNECTIONS_MAX: usize = 256;
/// Wait after the system refused a connection for want of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// What the handlers talk to.
#[derive(Clone)]
pub struct Context {
    /// The loop.
    pub handle: Handle,
    /// The wish in force.
    pub wishes: watch::Receiver<Arc<Wish>>,
    /// Connections to servers.
    pub gateway: Arc<Gateway>,
    /// What keeps the output of containers.
    pub engine: Arc<dyn Engine>,
    /// Asks for the files to be read at once; answered when the wish in force is theirs.
    pub reread: mpsc::Sender<oneshot::Sender<()>>,
    /// Which version of the files is in force.
    pub configuration: watch::Receiver<Arc<Configuration>>,
    /// How much is logged.
    pub level: Arc<dyn Verbosity>,
    /// Changes the file with the servers.
    pub editor: Arc<dyn Editor>,
    /// Changes settings.conf.
    pub settings: Arc<dyn SettingsEditor>,
    /// Settings of servers as the files have them.
    pub files: watch::Receiver<Arc<FilesView>>,
    /// The search for servers in other programs' files.
    pub discovery: discovery::Discovery,
    /// Tasks and the audit.
    pub recorder: Recorder,
    /// What is counted.
    pub figures: Arc<Figures>,
    /// What servers and the host use.
    pub usage: Usage,
    /// True once the daemon ends: what lasts must end too.
    pub ending: watch::Receiver<bool>,
    /// What does not change while the daemon runs.
    pub about: Arc<About>,
    /// Lists as they were written last.
    pub kept: Arc<Kept>,
}

/// What the files say beyond the wish.
#[derive(Clone, Debug, Default)]
pub struct FilesView {
    /// Effective values of every whole server; environment values are never in it.
    pub effective: BTreeMap<ServerId, Vec<EffectiveValue>>,
    /// What servers inherit: the global defaults first, then each section.
    pub levels: Vec<LevelValues>,
    /// What is wrong with the files, a line each.
    pub problems: Vec<String>,
    /// What the file with the servers has, with placeholders for secrets.
    pub outline: Outline,
}

/// What does not change while the daemon runs.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// The owner of everything made here.
    pub stack: String,
    /// The file with the servers.
    pub config: String,
    /// The password is one that everybody can read in the documentation.
    pub default_password: bool,
    /// False with `--no-dashboard`.
    pub dashboard: bool,
}

/// Who asks, and how they came.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The user who signed in, or the user of the socket's other end.
    pub who: String,
    /// `http`, `dashboard` or `socket`.
    pub via: &'static str,
    /// Whether they may say who they are: on the socket, where the file's mode is the gate.
    pub may_say_who: bool,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

type Answered = WithStatus<Json>;
/// An answer.
pub type Response = warp::reply::Response;

/// Serves the control socket until the task is dropped.
pub async fn serve(listener: UnixListener, context: Context) {
    let routes = warp::service(routes(context));
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_AGAIN).await;
            continue;
        };
        let uid = stream.peer_cred().ok().map(|peer| peer.uid());
        let who = uid.map_or_else(|| "the control socket".to_owned(), |uid| format!("uid {uid}"));
        let caller = Caller { who, via: "socket", may_say_who: true };
        let routes = routes.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |mut request: hyper::Request<_>| {
                request.extensions_mut().insert(caller.clone());
                routes.clone().call(request)
            });
            // An error is the client's going away, or its not speaking HTTP.
            let _closed = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
            drop(permit);
        });
    }
}

/// Everything the API serves, for whoever has put a [`Caller`] into the request.
pub fn routes(
    context: Context,
) -> impl Filter<Extract = (Response,), Error = warp::Rejection> + Clone + Send + Sync + 'static {
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    let caller = warp::ext::optional::<Caller>();
    warp::method()
        .and(warp::path::full())
        .and(query)
        .and(caller)
        .and(warp::header::optional::<String>("if-match"))
        .and(warp::header::optional::<String>("if-none-match"))
        .and(warp::body::bytes())
        .and(warp::any().map(move || context.clone()))
        .then(
            |method,
             path: warp::path::FullPath,
             query,
             caller: Option<Caller>,
             if_match,
             if_none_match,
             body: Bytes,
             context| async move {
                // What nobody let in gets nothing.
                let Some(caller) = caller else { return StatusCode::UNAUTHORIZED.into_response() };
                if u64::try_from(body.len()).unwrap_or(u64::MAX) > BODY_BYTES_MAX {
                    return StatusCode::PAYLOAD_TOO_LARGE.into_response();
                }
                let path = path.as_str().to_owned();
                let asked = (path, query, (if_match, if_none_match));
                let mut response = table::dispatch(context, method, asked, caller, body).await;
                let failed = response.status().is_client_error() || response.status().is_server_error();
                let json =
                    response.headers().get("content-type").is_some_and(|kind| kind == "application/json");
                if failed && json && response.headers().get(SHORT).is_none() {
                    response.headers_mut().insert(
                        "content-type",
                        warp::http::HeaderValue::from_static("application/problem+json"),
                    );
                }
                response.headers_mut().remove(SHORT);
                response
            },
        )
}

/// Marks answers of the short API on their way out: their errors are plain JSON.
pub(crate) const SHORT: &str = "x-mcp-orchestrator-short";

fn ok(body: &impl serde::Serialize) -> Answered {
    warp::reply::with_status(warp::reply::json(body), StatusCode::OK)
}

fn unknown(name: &str) -> Answered {
    problem(StatusCode::NOT_FOUND, "MCPO-H002", "no such server", format!("no server is called {name}"))
}

fn gone() -> Answered {
    problem(StatusCode::SERVICE_UNAVAILABLE, "MCPO-H001", "the daemon is stopping", "the loop has ended")
}

/// What `status` waits for.
#[derive(Clone, Debug, Default, Deserialize)]
struct StatusQuery {
    /// A pass with at least this number.
    pass: Option<u64>,
    /// And one after which nothing moves.
    settled: Option<bool>,
    /// At most this many seconds; the newest state is the answer either way.
    wait: Option<u64>,
}

async fn status(query: StatusQuery, context: Context, caller: &Caller) -> Answered {
    let mut seen = context.handle.snapshot.clone();
    let pass = query.pass.unwrap_or(1);
    let settled = query.settled.unwrap_or(false);
    let wait = Duration::from_secs(query.wait.unwrap_or(0)).min(WAIT_MAX);
    let reached = |snapshot: &Arc<Snapshot>| snapshot.pass >= pass && (!settled || snapshot.settled);
    let newest = match tokio::time::timeout(wait, seen.wait_for(reached)).await {
        Ok(Ok(snapshot)) => Arc::clone(&snapshot),
        _ => Arc::clone(&context.handle.snapshot.borrow()),
    };
    let mut configuration = Configuration::clone(&context.configuration.borrow());
    if caller.via != "socket" {
        // A file may hold a password, and a hash lets others try them.
        (configuration.config.sha256, configuration.settings.sha256) = (None, None);
    }
    let body = json!({
        "schemaVersion": 1,
        "version": env!("CARGO_PKG_VERSION"),
        "sentence": newest.report.sentence(),
        "reached": reached(&newest),
        "well": newest.well() && configuration.is_newest(),
        "configuration": configuration,
        "snapshot": *newest,
        "names": names(&context),
    });
    ok(&body)
}

async fn plan(context: Context) -> Answered {
    let (reply, answer) = oneshot::channel();
    if context
        .handle
        .requests
        .send(Request::Plan { desired: None, policy: None, allow_mass_delete: false, reply })
        .await
        .is_err()
    {
        return gone();
    }
    match answer.await {
        Ok(answer) => {
            let (plan, now) = *answer;
            let mut body = display::json(&plan);
            if let Value::Object(map) = &mut body {
                map.insert("text".to_owned(), Value::String(display::text(&plan, now, 80)));
            }
            ok(&body)
        }
        Err(_loop_ended) => gone(),
    }
}

/// Now.
pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Names that the file has and that are not ids, by id.
fn names(context: &Context) -> Value {
    let wish = context.wishes.borrow();
    let other = wish.desired.servers.values().filter(|server| server.name != server.id.as_str());
    other.map(|server| (server.id.to_string(), Value::from(server.name.clone()))).collect()
}

/// A part of a path without its percent signs; what is no escape stays as it is.
fn decoded(part: &str) -> String {
    let mut out = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((byte, more)) = rest.split_first() {
        let hex = |digits: &&[u8; 2]| digits.iter().all(u8::is_ascii_hexdigit);
        let digits = more.first_chunk::<2>().filter(hex).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.filter(|_| *byte == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(escaped.unwrap_or(*byte));
        rest = if escaped.is_some() { more.get(2..).unwrap_or_default() } else { more };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A server by id, or by the name the file has.
fn server_id(name: &str, context: &Context) -> Result<ServerId, String> {
    let wish = context.wishes.borrow();
    let by_name =
        || wish.desired.servers.values().find(|server| server.name == name).map(|server| server.id.clone());
    let id = ServerId::new(name).ok().filter(|id| wish.desired.servers.contains_key(id));
    id.or_else(by_name).ok_or_else(|| name.to_owned())
}

/// The same for whoever only looks: every server of the list, also one whose entry cannot be used.
fn shown_id(name: &str, context: &Context) -> Result<ServerId, String> {
    let listed = |id: &ServerId| context.handle.snapshot.borrow().report.servers.contains_key(id);
    server_id(name, context).or_else(|name| ServerId::new(&name).ok().filter(listed).ok_or(name))
}

/// The same, or one instance of a server by its id (`time-R2`).
fn instance_id(name: &str, context: &Context) -> Result<ServerId, String> {
    let further = ServerId::instance(name).ok().filter(|id| id.replica_number() > 1);
    let wish = context.wishes.borrow();
    let asked_for = |id: &ServerId| {
        let server = wish.desired.servers.get(&id.server());
        server.is_some_and(|server| id.replica_number() <= server.replicas)
    };
    match further.filter(asked_for) {
        Some(id) => Ok(id),
        None => server_id(name, context),
    }
}

/// What `call` takes.
#[derive(Deserialize)]
struct CallBody {
    tool: String,
    #[serde(default)]
    arguments: Option<Box<RawValue>>,
}

/// The same, as the document has it.
#[derive(JsonSchema, serde::Serialize)]
pub struct ToolCall {
    /// The tool.
    pub tool: String,
    /// Its arguments; they go out as they are written.
    pub arguments: Option<BTreeMap<String, Value>>,
}

async fn call(name: String, body: bytes::Bytes, context: Context) -> Answered {
    let body: CallBody = match serde_json::from_slice(&body) {
        Ok(body) => body,
        Err(error) => {
            return problem(
                StatusCode::BAD_REQUEST,
                "MCPO-H400",
                "the body is not a call",
                error.to_string(),
            );
        }
    };
    let id = match server_id(&name, &context) {
        Ok(id) => id,
        Err(name) => return not_to_be_called(&name, &context),
    };
    let none = RawValue::from_string("{}".to_owned()).unwrap_or_default();
    let arguments = body.arguments.unwrap_or(none);
    match context.gateway.call_tool(&id, &body.tool, &arguments).await {
        Ok(result) => ok(&result),
        Err(error) => failed(&error),
    }
}

/// No server has this name; an instance of one is not chosen by who calls.
fn not_to_be_called(name: &str, context: &Context) -> Answered {
    let Ok(id) = instance_id(name, context) else { return unknown(name) };
    let detail = format!(
        "{id} is one instance of {0}: a call goes to whichever instance has least to do, so call {0}",
        id.server()
    );
    problem(StatusCode::NOT_FOUND, "MCPO-H002", "no such server", detail)
}

fn failed(error: &Failed) -> Answered {
    let (status, code, title) = match error {
        Failed::Unknown => (StatusCode::NOT_FOUND, "MCPO-H002", "no such server"),
        Failed::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "MCPO-H004", "the server does not run"),
        Failed::Denied(why) => {
            let status = StatusCode::from_u16(why.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
            (status, why.code(), "the call may not go now")
        }
        Failed::Call(_) => (StatusCode::BAD_GATEWAY, "MCPO-H006", "the call failed"),
    };
    problem(status, code, title, error.to_string())
}

async fn capabilities(name: String, context: Context) -> Answered {
    match instance_id(&name, &context) {
        Err(name) => unknown(&name),
        Ok(id) => match context.gateway.capabilities(&id).await {
            Ok(found) => ok(&found),
            Err(error) => failed(&error),
        },
    }
}

/// What `logs` takes.
#[derive(Clone, Debug, Default, Deserialize)]
struct LogsQuery {
    /// Lines after this number.
    after: Option<u64>,
    /// At most this many.
    tail: Option<usize>,
    /// Seconds to wait for the first one.
    wait: Option<u64>,
}

async fn logs(name: String, query: LogsQuery, context: Context) -> Answered {
    let id = match instance_id(&name, &context) {
        Ok(id) => id,
        Err(name) => return unknown(&name),
    };
    let Some(entry) = context.gateway.entry(&id) else { return failed(&Failed::Unknown) };
    let after = query.after.unwrap_or(0);
    let tail = query.tail.unwrap_or(usize::MAX);
    let wait = query.wait.map(|secs| Duration::from_secs(secs).min(WAIT_MAX));
    if let Some(container) = engine_log(&id, &context) {
        let wait = Span(wait.map_or(0, |wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)));
        return match context.engine.log(&LogAsk { container, after, tail, wait }).await {
            Ok(lines) => logged(&id, lines.iter().map(|line| (line.number, line.stream, line.text.as_str()))),
            Err(error) => {
                problem(StatusCode::BAD_GATEWAY, "MCPO-H014", "the log cannot be read", error.to_string())
            }
        };
    }
    if let Some(wait) = wait {
        let _none = tokio::time::timeout(wait, entry.logs.wait(after)).await;
    }
    let lines = entry.logs.after(after, tail);
    logged(&id, lines.iter().map(|line| (line.number, line.stream, line.text.as_str())))
}

fn logged<'a>(id: &ServerId, lines: impl Iterator<Item = (u64, &'static str, &'a str)>) -> Answered {
    let lines: Vec<Value> = lines
        .map(|(number, stream, text)| json!({"number": number, "stream": stream, "text": text}))
        .collect();
    ok(&json!({ "server": id, "lines": lines }))
}

/// The container whose output the engine keeps and not the gateway: it does not speak over stdio.
pub(crate) fn engine_log(id: &ServerId, context: &Context) -> Option<ContainerId> {
    let snapshot = context.handle.snapshot.borrow();
    let row = snapshot.report.instance(id)?;
    let remote = matches!(row.transport, Some(Transport::Http | Transport::Sse));
    row.container_id.clone().filter(|_id| remote).map(ContainerId)
}

#[cfg(test)]
mod tests {
    use super::decoded;

    #[test]
    fn names_come_through_paths() {
        assert_eq!(decoded("My%20Time%2c%C3%BC"), "My Time,ü");
        assert_eq!(decoded("100%"), "100%");
        assert_eq!(decoded("%zz%+1%2"), "%zz%+1%2");
    }
}
