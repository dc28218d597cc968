//! Every route of the API in one table: what is served, what is documented, and what is not there.
//!
//! The control socket and the main listener both answer from it. Must never hold a route that the
//! document does not describe: [`crate::api::openapi`] is written from the same rows.

use crate::api::actions::{self, section, servers};
use crate::api::balancer::{self, BalancerView};
use crate::api::problem::problem;
use crate::api::view::{Moment, PanelHealth, SectionView, ServerDetail, ServerView};
use crate::api::{Caller, Context, Response, configuration, lists, ok, short, verbosity};
use crate::model::record::{AuditEntry, Task};
use crate::service::Act;
use bytes::Bytes;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use std::future::Future;
use std::pin::Pin;
use warp::Reply;
use warp::http::{Method, StatusCode};

/// A request, as handlers see it.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who asks, and how they came.
    pub caller: Caller,
    /// The body.
    pub body: Bytes,
    /// What stands in the braces of the path, as it came.
    parts: Vec<String>,
    query: String,
}

impl Call {
    /// What stands in the path's braces number `n`.
    #[must_use]
    pub fn part(&self, n: usize) -> String {
        super::decoded(self.raw(n))
    }

    /// The same as it came.
    #[must_use]
    pub fn raw(&self, n: usize) -> &str {
        self.parts.get(n).map_or("", String::as_str)
    }

    /// The query, read.
    ///
    /// # Errors
    /// The answer to one that cannot be read.
    pub(super) fn query<T: DeserializeOwned>(&self) -> Result<T, Box<Response>> {
        serde_urlencoded::from_str(&self.query).map_err(|error| {
            let title = "the query cannot be read";
            Box::new(problem(StatusCode::BAD_REQUEST, "MCPO-H400", title, error.to_string()).into_response())
        })
    }

    /// Another query.
    pub(super) fn set_query(&mut self, query: &str) {
        query.clone_into(&mut self.query);
    }
}

/// A handler's answer to come.
pub(super) type Answer = Pin<Box<dyn Future<Output = Response> + Send>>;
/// The schema of a body.
pub(super) type Shape = fn(&mut SchemaGenerator) -> Schema;

/// A parameter of the query.
#[derive(Clone, Copy, Debug)]
pub struct Param {
    /// Its name.
    pub name: &'static str,
    /// `string`, `integer` or `boolean`.
    pub kind: &'static str,
    /// Meaning.
    pub about: &'static str,
}

/// One route.
#[derive(Clone, Copy)]
pub struct Route {
    /// GET, POST, PUT or DELETE.
    pub method: &'static str,
    /// Its path, with names in braces.
    pub path: &'static str,
    /// Its name in the document.
    pub id: &'static str,
    /// Where it stands in the document.
    pub tag: &'static str,
    /// What it is for, in one sentence.
    pub about: &'static str,
    /// Parameters of the query.
    pub query: &'static [Param],
    /// Its body.
    pub body: Option<Shape>,
    /// Status and body when all is well; `None` is any JSON.
    pub good: (u16, Option<Shape>),
    /// Other statuses, beside those that every route has.
    pub others: &'static [u16],
    /// What answers.
    pub(super) run: fn(Context, Call) -> Answer,
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

impl Route {
    /// It goes with `--no-dashboard`.
    #[must_use]
    pub fn needs_dashboard(&self) -> bool {
        self.path.starts_with("/api/") || self.path == "/health" || self.path.starts_with("/servers")
    }

    /// Nobody needs to say who they are.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.tag == "probes"
    }
}

const fn param(name: &'static str, kind: &'static str, about: &'static str) -> Param {
    Param { name, kind, about }
}

const ACT: &[Param] = &[
    param("for", "integer", "The wish holds this many seconds, then the file decides again."),
    param("wait", "string", "Wait this long for the task's end, for example `30s`."),
];
const SYNC: &[Param] = &[
    param("wait", "string", "Wait this long for the task's end, for example `30s`."),
    param("allow_mass_delete", "boolean", "Allow removing more than half of the servers, or all."),
];
const SERVERS: &[Param] = &[
    param("state", "string", "Only those in this state."),
    param("section", "string", "Only those in this section."),
];
const LOGS: &[Param] = &[
    param("after", "integer", "Lines after this number."),
    param("tail", "integer", "At most the last this many."),
    param("wait", "integer", "Seconds to wait for the first one."),
];
const STATUS: &[Param] = &[
    param("pass", "integer", "Wait for a pass with at least this number."),
    param("settled", "boolean", "And one after which nothing moves."),
    param("wait", "integer", "At most this many seconds."),
];
const PAGE: &[Param] = &[
    param("before", "integer", "Older than this id; the last id of the page before."),
    param("limit", "integer", "At most this many, 100 when nothing is said."),
];
const AUDIT: &[Param] = &[
    param("before", "integer", "Older than this id; the last id of the page before."),
    param("limit", "integer", "At most this many, 100 when nothing is said."),
    param("server", "string", "About this server."),
    param("by", "string", "By them."),
    param("result", "string", "`ok`, `failed` or `refused`."),
];

fn shape<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

const fn get(
    path: &'static str,
    id: &'static str,
    tag: &'static str,
    about: &'static str,
    run: fn(Context, Call) -> Answer,
) -> Route {
    Route { method: "GET", path, id, tag, about, query: &[], body: None, good: (200, None), others: &[], run }
}

const fn post(
    path: &'static str,
    id: &'static str,
    tag: &'static str,
    about: &'static str,
    run: fn(Context, Call) -> Answer,
) -> Route {
    Route { method: "POST", ..get(path, id, tag, about, run) }
}

impl Route {
    const fn query(self, query: &'static [Param]) -> Self {
        Self { query, ..self }
    }

    const fn body(self, body: Shape) -> Self {
        Self { body: Some(body), ..self }
    }

    const fn gives(self, shape: Shape) -> Self {
        Self { good: (200, Some(shape)), ..self }
    }

    const fn others(self, others: &'static [u16]) -> Self {
        Self { others, ..self }
    }

    /// Answers with a task, or with where it is.
    const fn task(self) -> Self {
        Self { good: (202, Some(shape::<Task>)), others: &[200, 404, 409, 429], ..self }
    }
}

/// All routes; the first that fits answers.
#[rustfmt::skip] // as in a table
pub const ROUTES: &[Route] = &[
    get("/api/v1/panel/health", "getHealth", "panel", "How the whole stands.",
        |context, _| done(ok(&Moment::of(&context).health(&context)))).gives(shape::<PanelHealth>),
    get("/api/v1/status", "getStatus", "panel", "The last pass's report as the command line shows it.",
        |context, call| Box::pin(lists::status(context, call))).query(STATUS),
    get("/api/v1/gateway", "getGateway", "panel", "Connections, sessions and figures of every server.",
        |context, _| done(ok(&serde_json::json!({ "schemaVersion": 1, "servers": context.gateway.overview() })))),
    get("/api/v1/balancer", "getBalancer", "panel", "The load balancer as the last pass saw it, ours and others'.",
        |context, _| done(ok(&balancer::of(&Moment::of(&context))))).gives(shape::<BalancerView>),
    get("/api/v1/plan", "getPlan", "panel", "What a pass would change now, and why; changes nothing.",
        |context, _| Box::pin(async { crate::api::plan(context).await.into_response() })).others(&[503]),
    post("/api/v1/sync", "sync", "panel", "Reads the files and does a pass now.",
        |context, call| Box::pin(actions::sync(context, call))).query(SYNC).task(),
    get("/api/v1/events", "getEvents", "panel", "Server-sent events: `report` when a server looks different, `tasks` when a task began or ended.",
        |context, _| done_with(super::events::events(context))).others(&[503]),
    get("/api/v1/servers", "getServers", "servers", "All servers in id order.",
        |context, call| Box::pin(lists::servers(context, call))).query(SERVERS).gives(shape::<Vec<ServerView>>),
    get("/api/v1/servers/{id}", "getServer", "servers", "A server with its settings, where each came from, and what the last pass did for it.",
        |context, call| Box::pin(lists::server(context, call))).gives(shape::<ServerDetail>).others(&[404]),
    get("/api/v1/servers/{id}/capabilities", "getCapabilities", "servers", "What a server says of itself and offers, asked now.",
        |context, call| Box::pin(async move { crate::api::capabilities(call.part(0), context).await.into_response() })).others(&[404, 502, 503]),
    get("/api/v1/servers/{id}/logs", "getLogs", "servers", "What a server printed beside its messages.",
        |context, call| Box::pin(async move { match call.query() { Ok(query) => crate::api::logs(call.part(0), query, context).await.into_response(), Err(refused) => *refused } })).query(LOGS).others(&[404]),
    post("/api/v1/servers/{id}/call", "callTool", "servers", "Calls a tool; answers its result as the server wrote it.",
        |context, call| Box::pin(lists::call(context, call))).body(shape::<super::ToolCall>).others(&[404, 502, 503]),
    post("/api/v1/servers/{id}/start", "startServer", "servers", "Starts a server, and keeps it running whatever the file's `disabled` says. Several ids are separated by commas; `all` is every server.",
        |context, call| Box::pin(servers(context, call, Act::Start))).query(ACT).task(),
    post("/api/v1/servers/{id}/stop", "stopServer", "servers", "Stops a server, and keeps it stopped until it is started again. Several ids as above.",
        |context, call| Box::pin(servers(context, call, Act::Stop))).query(ACT).task(),
    post("/api/v1/servers/{id}/restart", "restartServer", "servers", "Stops and starts a server once. Several ids as above.",
        |context, call| Box::pin(servers(context, call, Act::Restart))).query(ACT).task(),
    get("/api/v1/sections", "getSections", "sections", "Sections that have servers.",
        |context, _| done(ok(&Moment::of(&context).sections()))).gives(shape::<Vec<SectionView>>),
    get("/api/v1/sections/{id}", "getSection", "sections", "A section.",
        |context, call| Box::pin(lists::section(context, call))).gives(shape::<SectionView>).others(&[404]),
    post("/api/v1/sections/{id}/start", "startSection", "sections", "Starts all servers of a section.",
        |context, call| Box::pin(section(context, call, Act::Start))).query(ACT).task(),
    post("/api/v1/sections/{id}/stop", "stopSection", "sections", "Stops all servers of a section.",
        |context, call| Box::pin(section(context, call, Act::Stop))).query(ACT).task(),
    post("/api/v1/sections/{id}/restart", "restartSection", "sections", "Restarts all servers of a section.",
        |context, call| Box::pin(section(context, call, Act::Restart))).query(ACT).task(),
    get("/api/v1/tasks", "getTasks", "tasks", "Tasks, newest first.",
        |context, call| Box::pin(lists::tasks(context, call))).query(PAGE).gives(shape::<Vec<Task>>).others(&[503]),
    get("/api/v1/tasks/{id}", "getTask", "tasks", "A task.",
        |context, call| Box::pin(lists::task(context, call))).gives(shape::<Task>).others(&[404, 503]),
    get("/api/v1/audit", "getAudit", "tasks", "Who did what, newest first.",
        |context, call| Box::pin(lists::audit(context, call))).query(AUDIT).gives(shape::<Vec<AuditEntry>>).others(&[503]),
    get("/servers", "shortServers", "short", "All servers in a few words.",
        |context, _| done_with(short::list(&context))).gives(shape::<Vec<short::ShortServer>>),
    post("/servers/{name}/start", "shortStart", "short", "Starts a server and waits up to 30 s.",
        |context, call| Box::pin(short::act(context, call, Act::Start))).gives(shape::<short::ShortServer>).others(&[404, 409, 429]),
    post("/servers/{name}/stop", "shortStop", "short", "Stops a server and waits up to 30 s.",
        |context, call| Box::pin(short::act(context, call, Act::Stop))).gives(shape::<short::ShortServer>).others(&[404, 409, 429]),
    post("/servers/{name}/call", "shortCall", "short", "Calls a tool; answers its result.",
        |context, call| Box::pin(short::call(context, call))).body(shape::<super::ToolCall>).others(&[404, 502, 503]),
    get("/api/v1/log-level", "getLogLevel", "panel", "How much is logged.",
        |context, _| done(verbosity::show(&context))),
    Route { method: "PUT", ..get("/api/v1/log-level", "setLogLevel", "panel", "Logs more or less, for a while or until the next start.",
        |context, call| done(verbosity::set(&call.body, &context))).body(shape::<verbosity::Wanted>) },
    Route { method: "DELETE", ..get("/api/v1/log-level", "resetLogLevel", "panel", "Logs as much as the settings say.",
        |context, _| done(verbosity::reset(&context))) },
    get("/metrics", "getMetrics", "panel", "The gateway's figures for Prometheus.",
        |context, _| done_with(super::gateway::metrics(&context).into_response())),
    get("/health", "shortHealth", "probes", "Whether this API answers.", |_, _| done_with(short::health())),
    get("/healthz", "getHealthz", "probes", "Whether the daemon answers.", 
        |context, call| done_with(if call.caller.via == "socket" { configuration::health(&context).into_response() } else { "ok\n".into_response() })),
    get("/readyz", "getReadyz", "probes", "Whether the daemon has looked at the world and reaches the engine.",
        |context, _| done_with(lists::ready(&context))).others(&[503]),
    get("/openapi.json", "getOpenapi", "probes", "This document.",
        |context, _| done_with(warp::reply::json(&super::openapi::document(context.about.dashboard)).into_response())),
];

fn done(answer: super::Answered) -> Answer {
    done_with(answer.into_response())
}

fn done_with(response: Response) -> Answer {
    Box::pin(std::future::ready(response))
}

/// The route of a request, and what stands in its braces; else the answer to it.
pub(super) fn find(method: &Method, path: &str) -> Result<(&'static Route, Vec<String>), Box<Response>> {
    let wanted = if method == Method::HEAD { "GET" } else { method.as_str() };
    let mut allowed = Vec::new();
    for route in ROUTES {
        let Some(parts) = fits(route.path, path) else { continue };
        if route.method == wanted {
            return Ok((route, parts));
        }
        allowed.push(route.method);
    }
    if allowed.is_empty() {
        let detail = format!("no route has the path {path}");
        return Err(Box::new(
            problem(StatusCode::NOT_FOUND, "MCPO-H404", "nothing is here", detail).into_response(),
        ));
    }
    let detail = format!("this path has {}", allowed.join(", "));
    let title = "not with this method";
    let mut refused = problem(StatusCode::METHOD_NOT_ALLOWED, "MCPO-H405", title, detail).into_response();
    if let Ok(allowed) = warp::http::HeaderValue::from_str(&allowed.join(", ")) {
        refused.headers_mut().insert("allow", allowed);
    }
    Err(Box::new(refused))
}

fn fits(pattern: &str, path: &str) -> Option<Vec<String>> {
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    let mut parts = Vec::new();
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(parts),
            (Some(name), Some(part)) if name.starts_with('{') && !part.is_empty() => {
                parts.push(part.to_owned());
            }
            (Some(name), Some(part)) if name == part => {}
            _ => return None,
        }
    }
}

/// Answers a request.
pub(super) async fn dispatch(
    context: Context,
    method: Method,
    (path, query): (String, String),
    caller: Caller,
    body: Bytes,
) -> Response {
    match find(&method, &path) {
        Ok((route, parts)) => (route.run)(context, Call { caller, body, parts, query }).await,
        Err(refused) => *refused,
    }
}

#[cfg(test)]
mod tests {
    use super::{Method, ROUTES, find, fits};
    use std::collections::BTreeSet;

    #[test]
    fn paths_are_found() {
        let (route, parts) = find(&Method::POST, "/api/v1/servers/my%20time/stop").unwrap();
        assert_eq!((route.id, parts), ("stopServer", vec!["my%20time".to_owned()]));
        assert_eq!(find(&Method::HEAD, "/health").unwrap().0.id, "shortHealth");
        let status = |method, path| find(&method, path).unwrap_err().status().as_u16();
        assert_eq!(status(Method::GET, "/api/v1/servers/time/stop"), 405);
        assert_eq!(status(Method::DELETE, "/api/v1/servers"), 405);
        assert_eq!(status(Method::GET, "/api/v1/servers/"), 404);
        assert_eq!(status(Method::GET, "/api/v2/servers"), 404);
        assert_eq!(fits("/a/{b}", "/a//"), None);
    }

    #[test]
    fn names_of_routes_are_unique_and_nothing_is_done_by_get() {
        let ids: BTreeSet<&str> = ROUTES.iter().map(|route| route.id).collect();
        assert_eq!(ids.len(), ROUTES.len());
        let acts = ["start", "stop", "restart", "call", "sync"];
        for route in ROUTES {
            let last = route.path.rsplit('/').next().unwrap();
            assert_eq!(acts.contains(&last), route.method == "POST", "{route:?}");
        }
    }
}
