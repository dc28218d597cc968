//! The control socket: the same routes the main listener will have, no password; the file's mode
//! is the gate.
//!
//! Handlers parse, ask the loop, and answer; nothing is computed here that a pass computed
//! already. Start, stop and sync are never GET.

mod gateway;

use crate::gateway::Gateway;
use crate::gateway::call::Failed;
use crate::model::id::ServerId;
use crate::model::server::Transport;
use crate::model::time::{Span, Timestamp};
use crate::plan::display;
use crate::service::{Act, Handle, Request, Snapshot, Wish};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot, watch};
use warp::http::StatusCode;
use warp::reply::{Json, WithStatus};
use warp::{Filter, Reply};

/// Longest body of a request, in bytes.
const BODY_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Longest a request may wait for a pass.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// Longest a sync waits for the files to be read.
const REREAD_WITHIN: Duration = Duration::from_secs(10);

/// What the handlers talk to.
#[derive(Clone, Debug)]
pub struct Context {
    /// The loop.
    pub handle: Handle,
    /// The wish in force.
    pub wishes: watch::Receiver<Arc<Wish>>,
    /// Connections to servers.
    pub gateway: Arc<Gateway>,
    /// Asks for the files to be read at once; answered when the wish in force is theirs.
    pub reread: mpsc::Sender<oneshot::Sender<()>>,
}

type Answered = WithStatus<Json>;

/// Serves until the task is dropped.
pub async fn serve(listener: UnixListener, context: Context) {
    warp::serve(routes(context)).incoming(listener).run().await;
}

fn routes(context: Context) -> impl Filter<Extract = (impl Reply,), Error = warp::Rejection> + Clone {
    let with = warp::any().map(move || context.clone());
    let v1 = warp::path!("api" / "v1" / ..);
    let status = warp::path!("status")
        .and(warp::get())
        .and(warp::query::<StatusQuery>())
        .and(with.clone())
        .then(status);
    let plan = warp::path!("plan").and(warp::get()).and(with.clone()).then(plan);
    let sync =
        warp::path!("sync").and(warp::post()).and(warp::query::<SyncQuery>()).and(with.clone()).then(sync);
    let all = warp::path!("servers" / "all" / String)
        .and(warp::post())
        .and(warp::query::<ActQuery>())
        .and(with.clone())
        .then(|act, query, context| act_on(Vec::new(), act, query, context));
    let call = warp::path!("servers" / String / "call")
        .and(warp::post())
        .and(warp::body::content_length_limit(BODY_BYTES_MAX))
        .and(warp::body::bytes())
        .and(with.clone())
        .then(call);
    let capabilities = warp::path!("servers" / String / "capabilities")
        .and(warp::get())
        .and(with.clone())
        .then(capabilities);
    let logs = warp::path!("servers" / String / "logs")
        .and(warp::get())
        .and(warp::query::<LogsQuery>())
        .and(with.clone())
        .then(logs);
    let one = warp::path!("servers" / String / String)
        .and(warp::post())
        .and(warp::query::<ActQuery>())
        .and(with.clone())
        .then(|names: String, act, query, context| {
            let names = names.split(',').map(str::to_owned).collect();
            act_on(names, act, query, context)
        });
    let healthz = warp::path!("healthz").and(warp::get()).map(|| "ok\n");
    let gateway = gateway::routes(with);
    v1.and(status.or(plan).or(sync).or(all).or(call).or(capabilities).or(logs).or(one))
        .or(gateway)
        .or(healthz)
}

/// An error as problem+json has it: title, detail, code.
fn problem(status: StatusCode, code: &str, title: &str, detail: impl Into<String>) -> Answered {
    let detail: String = detail.into();
    let body = json!({ "title": title, "status": status.as_u16(), "detail": detail, "code": code });
    warp::reply::with_status(warp::reply::json(&body), status)
}

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

async fn status(query: StatusQuery, context: Context) -> Answered {
    let mut seen = context.handle.snapshot.clone();
    let pass = query.pass.unwrap_or(1);
    let settled = query.settled.unwrap_or(false);
    let wait = Duration::from_secs(query.wait.unwrap_or(0)).min(WAIT_MAX);
    let reached = |snapshot: &Arc<Snapshot>| snapshot.pass >= pass && (!settled || snapshot.settled);
    let newest = match tokio::time::timeout(wait, seen.wait_for(reached)).await {
        Ok(Ok(snapshot)) => Arc::clone(&snapshot),
        _ => Arc::clone(&context.handle.snapshot.borrow()),
    };
    let body = json!({
        "schemaVersion": 1,
        "version": env!("CARGO_PKG_VERSION"),
        "sentence": newest.report.sentence(),
        "reached": reached(&newest),
        "well": newest.well(),
        "snapshot": *newest,
        "names": names(&context),
    });
    ok(&body)
}

async fn plan(context: Context) -> Answered {
    let (reply, answer) = oneshot::channel();
    if context.handle.requests.send(Request::Plan { reply }).await.is_err() {
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

#[derive(Clone, Debug, Default, Deserialize)]
struct SyncQuery {
    allow_mass_delete: Option<bool>,
}

async fn sync(query: SyncQuery, context: Context) -> Answered {
    // Who saved the file and asks for a sync means the file as it is now.
    let (reply, read) = oneshot::channel();
    if context.reread.send(reply).await.is_ok() {
        let _late = tokio::time::timeout(REREAD_WITHIN, read).await;
    }
    let (reply, answer) = oneshot::channel();
    let request = Request::Sync { allow_mass_delete: query.allow_mass_delete.unwrap_or(false), reply };
    if context.handle.requests.send(request).await.is_err() {
        return gone();
    }
    match answer.await {
        Ok(pass) => accepted(pass),
        Err(_loop_ended) => gone(),
    }
}

fn accepted(pass: u64) -> Answered {
    warp::reply::with_status(warp::reply::json(&json!({ "pass": pass })), StatusCode::ACCEPTED)
}

#[derive(Clone, Debug, Default, Deserialize)]
struct ActQuery {
    /// Who asks, for the audit.
    by: Option<String>,
    /// The wish holds this many seconds.
    #[serde(rename = "for")]
    secs: Option<u64>,
}

async fn act_on(names: Vec<String>, act: String, query: ActQuery, context: Context) -> Answered {
    let act = match act.as_str() {
        "start" => Act::Start,
        "stop" => Act::Stop,
        "restart" => Act::Restart,
        other => {
            return problem(
                StatusCode::NOT_FOUND,
                "MCPO-H404",
                "no such action",
                format!("'{other}' is not start, stop, restart or call"),
            );
        }
    };
    let servers: Result<Vec<ServerId>, String> = names.iter().map(|name| server_id(name, &context)).collect();
    let servers = match servers {
        Ok(servers) => servers,
        Err(name) => return unknown(&name),
    };
    let by = query.by.unwrap_or_else(|| "the control socket".to_owned());
    let until = query.secs.map(|secs| now().after(Span::secs(secs)));
    let (reply, answer) = oneshot::channel();
    if context.handle.requests.send(Request::Act { servers, act, by, until, reply }).await.is_err() {
        return gone();
    }
    match answer.await {
        Ok(Ok(pass)) => accepted(pass),
        Ok(Err(why)) => problem(StatusCode::CONFLICT, "MCPO-H003", "not done", why),
        Err(_loop_ended) => gone(),
    }
}

fn now() -> Timestamp {
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
    let name = &*decoded(name);
    let wish = context.wishes.borrow();
    let by_name =
        || wish.desired.servers.values().find(|server| server.name == name).map(|server| server.id.clone());
    let id = ServerId::new(name).ok().filter(|id| wish.desired.servers.contains_key(id));
    id.or_else(by_name).ok_or_else(|| name.to_owned())
}

/// What `call` takes.
#[derive(Deserialize)]
struct CallBody {
    tool: String,
    #[serde(default)]
    arguments: Option<Box<RawValue>>,
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
        Err(name) => return unknown(&name),
    };
    let none = RawValue::from_string("{}".to_owned()).unwrap_or_default();
    let arguments = body.arguments.unwrap_or(none);
    match context.gateway.call_tool(&id, &body.tool, &arguments).await {
        Ok(result) => ok(&result),
        Err(error) => failed(&error),
    }
}

fn failed(error: &Failed) -> Answered {
    let (status, code, title) = match error {
        Failed::Unknown => (StatusCode::NOT_FOUND, "MCPO-H002", "no such server"),
        Failed::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "MCPO-H004", "the server does not run"),
        Failed::Call(_) => (StatusCode::BAD_GATEWAY, "MCPO-H006", "the call failed"),
    };
    problem(status, code, title, error.to_string())
}

async fn capabilities(name: String, context: Context) -> Answered {
    match server_id(&name, &context) {
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
    let id = match server_id(&name, &context) {
        Ok(id) => id,
        Err(name) => return unknown(&name),
    };
    let Some(entry) = context.gateway.entry(&id) else { return failed(&Failed::Unknown) };
    let after = query.after.unwrap_or(0);
    if let Some(wait) = query.wait {
        let wait = Duration::from_secs(wait).min(WAIT_MAX);
        let _none = tokio::time::timeout(wait, entry.logs.wait(after)).await;
    }
    let lines: Vec<Value> = entry
        .logs
        .after(after, query.tail.unwrap_or(usize::MAX))
        .into_iter()
        .map(|line| json!({"number": line.number, "stream": line.stream, "text": line.text}))
        .collect();
    ok(&json!({ "server": id, "lines": lines, "engineLog": engine_log(&id, &context) }))
}

/// The container whose output the engine keeps and not the gateway: it does not speak over stdio.
fn engine_log(id: &ServerId, context: &Context) -> Option<String> {
    let snapshot = context.handle.snapshot.borrow();
    let row = snapshot.report.servers.get(id)?;
    let remote = matches!(row.transport, Some(Transport::Http | Transport::Sse));
    row.container.clone().filter(|_name| remote)
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
