//! Start, stop, restart, pause, resume and sync: asked of the loop, followed as tasks.
//!
//! Must never do anything to a server itself, and never answer that something is done before a pass
//! that began later says so.

use crate::api::problem::problem;
use crate::api::table::Call;
use crate::api::{Context, Response, gone, instance_id, now, ok, server_id, unknown};
use crate::model::id::{SectionId, ServerId};
use crate::model::memory::{Pause, Scope};
use crate::model::record::{AuditEntry, Task, TaskState};
use crate::model::time::Span;
use crate::service::{Act, Request};
use serde::Deserialize;
use std::time::Duration;
use tokio::sync::oneshot;
use warp::Reply;
use warp::http::{HeaderValue, StatusCode};

/// Longest a request waits for its task.
const WAIT_MAX: Duration = Duration::from_secs(600);
/// Longest a sync waits for the files to be read.
const REREAD_WITHIN: Duration = Duration::from_secs(10);
/// Longest name of somebody who asks.
const BY_CHARS_MAX: usize = 64;
/// Servers one request may name.
const NAMES_MAX: usize = 256;

/// What actions take.
#[derive(Clone, Debug, Default, Deserialize)]
struct ActQuery {
    /// Who asks, where the way in does not know.
    by: Option<String>,
    /// The wish holds this many seconds.
    #[serde(rename = "for")]
    secs: Option<u64>,
    /// Wait for the end, `30s`.
    wait: Option<String>,
    /// Take a drain back.
    undo: Option<bool>,
    /// Removals that the guard would hold back are allowed.
    allow_mass_delete: Option<bool>,
}

/// `POST /api/v1/servers/{id}/{start,stop,restart}`; several ids are separated by commas, `all` is
/// every server.
pub(super) async fn servers(context: Context, call: Call, act: Act) -> Response {
    let name = call.raw(0);
    let names: Vec<String> =
        if name == "all" { Vec::new() } else { name.split(',').map(crate::api::decoded).collect() };
    if names.len() > NAMES_MAX {
        let detail = format!("{NAMES_MAX} servers may be named at once");
        return problem(StatusCode::BAD_REQUEST, "MCPO-H400", "too many servers", detail).into_response();
    }
    let servers: Result<Vec<ServerId>, String> =
        names.iter().map(|name| instance_id(name, &context)).collect();
    match servers {
        Ok(servers) => act_on(context, call, act, servers).await,
        Err(name) => unknown(&name).into_response(),
    }
}

/// `POST /api/v1/sections/{id}/{start,stop,restart}`.
pub(super) async fn section(context: Context, call: Call, act: Act) -> Response {
    let name = call.part(0);
    let wish = std::sync::Arc::clone(&context.wishes.borrow());
    let within = |server: &&crate::model::server::Server| {
        server.section.as_ref().is_some_and(|section| section.as_str() == name)
    };
    let servers: Vec<ServerId> =
        wish.desired.servers.values().filter(within).map(|server| server.id.clone()).collect();
    if servers.is_empty() {
        let outline = context.files.borrow().outline.clone();
        if outline.sections.iter().any(|section| section.id.as_ref() == Some(&name)) {
            let detail = format!("section {name} has no servers");
            return problem(StatusCode::CONFLICT, "MCPO-H003", "not done", detail).into_response();
        }
        let detail = format!("no server is in a section called {name}");
        return problem(StatusCode::NOT_FOUND, "MCPO-H002", "no such section", detail).into_response();
    }
    act_on(context, call, act, servers).await
}

/// What is paused or resumed, by what the path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// Servers, several with commas between them; `all` is the whole host.
    Servers,
    /// A section.
    Section,
}

/// `POST /api/v1/servers/{id}/{pause,resume}`, `POST /api/v1/sections/{id}/{pause,resume}`.
pub(super) async fn pause(context: Context, call: Call, of: Of, begins: bool) -> Response {
    let query: ActQuery = match call.query() {
        Ok(query) => query,
        Err(refused) => return *refused,
    };
    let scopes = match scopes(&context, &call, of) {
        Ok(scopes) => scopes,
        Err(refused) => return *refused,
    };
    if !context.recorder.has_room() {
        return too_many();
    }
    let by = who(&call, &query);
    let at = now();
    let until = query.secs.map(|secs| at.after(Span::secs(secs)));
    let act = if begins { "pause" } else { "resume" };
    let names = named(&context, &scopes);
    let what = match scopes.as_slice() {
        [scope @ Scope::Section(_)] => format!("{act} {scope}"),
        _ => act.to_owned(),
    };
    let pause = begins.then(|| Pause { by: by.clone(), at, until });
    let (reply, answer) = oneshot::channel();
    if context.handle.requests.send(Request::Pause { scopes, pause, reply }).await.is_err() {
        return gone().into_response();
    }
    match answer.await {
        Ok(Ok(pass)) => {
            let task = Task { servers: names, ..task(&what, by, &call, pass) };
            follow(context, task, &query).await
        }
        Ok(Err(why)) => problem(StatusCode::CONFLICT, "MCPO-H003", "not done", why).into_response(),
        Err(_loop_ended) => gone().into_response(),
    }
}

/// `POST /api/v1/drain`: this host out of the load balancer, or back.
pub(super) async fn drain(context: Context, call: Call) -> Response {
    let query: ActQuery = match call.query() {
        Ok(query) => query,
        Err(refused) => return *refused,
    };
    if !context.recorder.has_room() {
        return too_many();
    }
    let (by, at) = (who(&call, &query), now());
    let begins = !query.undo.unwrap_or(false);
    // One that is taken back has no end.
    let until = query.secs.filter(|_| begins).map(|secs| at.after(Span::secs(secs)));
    let drain = begins.then(|| Pause { by: by.clone(), at, until });
    let (reply, answer) = oneshot::channel();
    if context.handle.requests.send(Request::Drain { drain, reply }).await.is_err() {
        return gone().into_response();
    }
    match answer.await {
        Ok(Ok(pass)) => {
            let act = if begins { "drain" } else { "undrain" };
            follow(context, task(act, by, &call, pass), &query).await
        }
        Ok(Err(why)) => problem(StatusCode::CONFLICT, "MCPO-H003", "not done", why).into_response(),
        Err(_loop_ended) => gone().into_response(),
    }
}

/// The servers that scopes are about; none for the whole host.
fn named(context: &Context, scopes: &[Scope]) -> Vec<String> {
    let wish = context.wishes.borrow();
    let within = |id: &SectionId| {
        let servers = wish.desired.servers.values().filter(|server| server.section.as_ref() == Some(id));
        servers.map(|server| server.id.to_string()).collect()
    };
    let of = |scope: &Scope| match scope {
        Scope::Server(id) => vec![id.to_string()],
        Scope::Section(id) => within(id),
        Scope::Host => Vec::new(),
    };
    scopes.iter().flat_map(of).collect()
}

fn scopes(context: &Context, call: &Call, of: Of) -> Result<Vec<Scope>, Box<Response>> {
    let name = call.raw(0);
    if of == Of::Section {
        let name = call.part(0);
        let wish = context.wishes.borrow();
        let known =
            wish.desired.servers.values().find_map(|server| {
                server.section.as_ref().filter(|section| section.as_str() == name).cloned()
            });
        return known.map(|section| vec![Scope::Section(section)]).ok_or_else(|| {
            let detail = format!("no server is in a section called {name}");
            Box::new(problem(StatusCode::NOT_FOUND, "MCPO-H002", "no such section", detail).into_response())
        });
    }
    if name == "all" {
        return Ok(vec![Scope::Host]);
    }
    let names: Vec<String> = name.split(',').map(crate::api::decoded).collect();
    if names.len() > NAMES_MAX {
        let detail = format!("{NAMES_MAX} servers may be named at once");
        let title = "too many servers";
        return Err(Box::new(problem(StatusCode::BAD_REQUEST, "MCPO-H400", title, detail).into_response()));
    }
    let further =
        names.iter().find(|name| instance_id(name, context).is_ok_and(|id| id.replica_number() > 1));
    if let Some(name) = further {
        let detail =
            format!("{name} is one instance of a server: it is paused with the others, by the server's id");
        return Err(Box::new(problem(StatusCode::CONFLICT, "MCPO-H003", "not done", detail).into_response()));
    }
    let found = names.iter().map(|name| server_id(name, context).map(Scope::Server));
    found.collect::<Result<_, _>>().map_err(|name| Box::new(unknown(&name).into_response()))
}

/// The word for an act.
pub(super) const fn word(act: Act) -> &'static str {
    match act {
        Act::Start => "start",
        Act::Stop => "stop",
        Act::Restart => "restart",
    }
}

async fn act_on(context: Context, call: Call, act: Act, servers: Vec<ServerId>) -> Response {
    let query: ActQuery = match call.query() {
        Ok(query) => query,
        Err(refused) => return *refused,
    };
    if !context.recorder.has_room() {
        return too_many();
    }
    let by = who(&call, &query);
    let until = query.secs.map(|secs| now().after(Span::secs(secs)));
    let names: Vec<String> = servers.iter().map(ToString::to_string).collect();
    let (reply, answer) = oneshot::channel();
    let request = Request::Act { servers, act, by: by.clone(), until, reply };
    if context.handle.requests.send(request).await.is_err() {
        return gone().into_response();
    }
    match answer.await {
        Ok(Ok(pass)) => {
            let task = Task { servers: names, ..task(word(act), by, &call, pass) };
            follow(context, task, &query).await
        }
        Ok(Err(why)) => {
            context.recorder.note(AuditEntry {
                what: word(act).to_owned(),
                by,
                via: call.caller.via.to_owned(),
                result: "refused".to_owned(),
                detail: Some(why.clone()),
                code: Some("MCPO-H003".to_owned()),
                ..AuditEntry::default()
            });
            problem(StatusCode::CONFLICT, "MCPO-H003", "not done", why).into_response()
        }
        Err(_loop_ended) => gone().into_response(),
    }
}

fn task(act: &str, by: String, call: &Call, pass: u64) -> Task {
    Task {
        id: 0,
        act: act.to_owned(),
        servers: Vec::new(),
        by,
        via: call.caller.via.to_owned(),
        asked: call.came,
        ended: None,
        pass,
        state: TaskState::Running,
        results: Vec::new(),
    }
}

pub(super) fn too_many() -> Response {
    let detail = format!("{} tasks are running already", crate::api::recorder::RUNNING_MAX);
    problem(StatusCode::TOO_MANY_REQUESTS, "MCPO-H429", "too many tasks", detail).into_response()
}

/// Who asks: over the network the user who signed in, on the socket who they say they are, and the
/// user whom the system knows.
fn who(call: &Call, query: &ActQuery) -> String {
    let said = query.by.as_deref().filter(|_| call.caller.may_say_who);
    let clean = said.map(|said| said.chars().filter(|c| !c.is_control()).take(BY_CHARS_MAX).collect());
    clean.map_or_else(|| call.caller.who.clone(), |said: String| format!("{said}, {}", call.caller.who))
}

/// The task of an edit that is written: the files are read, and a pass follows.
pub(super) async fn after_edit(context: Context, call: Call, act: String, servers: Vec<String>) -> Response {
    let query: ActQuery = match call.query() {
        Ok(query) => query,
        Err(refused) => return *refused,
    };
    let allow_mass_delete = query.allow_mass_delete.unwrap_or(false);
    match read_and_pass(&context, allow_mass_delete).await {
        Some(pass) => {
            let by = who(&call, &query);
            follow(context, Task { servers, ..task(&act, by, &call, pass) }, &query).await
        }
        None => gone().into_response(),
    }
}

/// Has the files read as they are now, then a pass done: its number.
pub(super) async fn read_and_pass(context: &Context, allow_mass_delete: bool) -> Option<u64> {
    let (reply, read) = oneshot::channel();
    if context.reread.send(reply).await.is_ok() {
        let _late = tokio::time::timeout(REREAD_WITHIN, read).await;
    }
    let (reply, answer) = oneshot::channel();
    context.handle.requests.send(Request::Sync { allow_mass_delete, reply }).await.ok()?;
    answer.await.ok()
}

/// `POST /api/v1/sync`.
pub(super) async fn sync(context: Context, call: Call) -> Response {
    let query: ActQuery = match call.query() {
        Ok(query) => query,
        Err(refused) => return *refused,
    };
    if !context.recorder.has_room() {
        return too_many();
    }
    // Who saved the file and asks for a sync means the file as it is now.
    match read_and_pass(&context, query.allow_mass_delete.unwrap_or(false)).await {
        Some(pass) => {
            let by = who(&call, &query);
            follow(context, task("sync", by, &call, pass), &query).await
        }
        None => gone().into_response(),
    }
}

/// 202 and where the task is; 200 with its end when the caller waits and it ends in time.
async fn follow(context: Context, task: Task, query: &ActQuery) -> Response {
    let pass = task.pass;
    let recorder = &context.recorder;
    let task = match recorder.begin(task.clone(), context.handle.snapshot.clone()).await {
        Ok(task) => task,
        Err(error) => {
            // The loop has the wish; only nobody will follow it.
            tracing::warn!(MCP_ERROR_CODE = error.kind.code(), "{error}");
            return accepted(&Task { pass, ..task });
        }
    };
    let Some(wait) = query.wait.as_deref().and_then(seconds) else { return accepted(&task) };
    let task = recorder.ended(task, wait.min(WAIT_MAX)).await;
    if task.state == TaskState::Running { accepted(&task) } else { ok(&task).into_response() }
}

fn accepted(task: &Task) -> Response {
    let body = warp::reply::json(task);
    let mut response = warp::reply::with_status(body, StatusCode::ACCEPTED).into_response();
    if let Ok(place) = HeaderValue::from_str(&format!("/api/v1/tasks/{}", task.id)) {
        response.headers_mut().insert("location", place);
    }
    response
}

/// `30s`, `30`, `2m`.
fn seconds(text: &str) -> Option<Duration> {
    let (number, factor) = match text.strip_suffix('m') {
        Some(minutes) => (minutes, 60),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    number.parse::<u64>().ok()?.checked_mul(factor).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::seconds;
    use std::time::Duration;

    #[test]
    fn waits_are_read() {
        let secs = |n| Some(Duration::from_secs(n));
        assert_eq!((seconds("30s"), seconds("5"), seconds("2m")), (secs(30), secs(5), secs(120)));
        assert_eq!((seconds(""), seconds("soon"), seconds("-1s")), (None, None, None));
    }
}
