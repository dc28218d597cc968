//! Every route of the API in one table: what is served, what is documented, and what is not there.
//!
//! The control socket and the main listener both answer from it. Must never hold a route that the
//! document does not describe: [`crate::api::openapi`] is written from the same rows.

use crate::api::actions::{self, Of, section, servers};
use crate::api::balancer::{self, BalancerView};
use crate::api::edit::{
    self, EditAnswer, Members, NewSection, NewServer, NewText, PanelDocument, ServerEntry,
};
use crate::api::health::HealthPage;
use crate::api::problem::problem;
use crate::api::sections::SectionView;
use crate::api::settings::{self, SettingsDocument, SettingsPatch};
use crate::api::view::{Moment, PanelHealth, ServerDetail, ServerView};
use crate::api::{
    Caller, Context, Response, configuration, discovery, lists, ok, parameters, short, usage, verbosity,
};
use crate::config::schema::schema;
use crate::model::record::{AuditEntry, Task, TaskDetail};
use crate::model::time::Timestamp;
use crate::service::Act;
use bytes::Bytes;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use warp::Reply;
use warp::http::{Method, StatusCode};

/// A request, as handlers see it.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who asks, and how they came.
    pub caller: Caller,
    /// When it came.
    pub came: Timestamp,
    /// The body.
    pub body: Bytes,
    /// The version that a change is made for.
    pub if_match: Option<String>,
    /// The version of a list that whoever asks has already.
    pub if_none_match: Option<String>,
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

    /// The query as it came.
    pub(super) fn raw_query(&self) -> &str {
        &self.query
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
    /// GET, POST, PUT, PATCH or DELETE.
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
    /// It needs no body.
    pub may_be_bare: bool,
    /// Status and body when all is well; `None` is any JSON.
    pub good: (u16, Option<Shape>),
    /// Other statuses, beside those that every route has.
    pub others: &'static [u16],
    /// It takes `If-Match` and answers with an `ETag`.
    pub versions: bool,
    /// A list: its answer has an `ETag`, and 304 is one for whoever has it.
    pub kept: bool,
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

const WAIT: Param = param("wait", "string", "Wait this long for the task's end, for example `30s`.");
const ALLOW_MASS_DELETE: Param =
    param("allow_mass_delete", "boolean", "Allow removing more than half of the servers, or all.");
const DRY_RUN: Param = param(
    "dry_run",
    "boolean",
    "Write nothing; the answer is 200 with the difference, what is wrong with it, and the plan.",
);
const ACT: &[Param] =
    &[param("for", "integer", "The wish holds this many seconds, then the file decides again."), WAIT];
const DRAIN: &[Param] = &[
    param("undo", "boolean", "Bring this host back."),
    param("by", "string", "Who asks, on the control socket."),
    param("for", "integer", "It ends by itself after this many seconds."),
    WAIT,
];
const SYNC: &[Param] = &[WAIT, ALLOW_MASS_DELETE];
const EDIT: &[Param] = &[DRY_RUN, WAIT, ALLOW_MASS_DELETE];
const EDIT_SETTINGS: &[Param] = &[DRY_RUN, WAIT];
const EDIT_SERVER: &[Param] = &[
    param("section", "string", "The section it goes to; with PATCH empty for none."),
    DRY_RUN,
    WAIT,
    ALLOW_MASS_DELETE,
];
const DELETE_SECTION: &[Param] = &[
    param(
        "servers",
        "move|delete",
        "What becomes of its servers: `move` or `delete`; without it there must be none.",
    ),
    param("to", "string", "The section they move to; out of every section when nothing is said."),
    DRY_RUN,
    WAIT,
    ALLOW_MASS_DELETE,
];
const SERVERS: &[Param] = &[
    param("state", "string", "Only those in this state."),
    param("section", "string", "Only those in this section."),
    param("after", "string", "Ids after this one; the last id of the page before."),
    param("limit", "integer", "At most this many; all when nothing is said."),
];
const HEALTH: &[Param] =
    &[param("server", "string", "Only this server, or this instance of one (`time-R2`).")];
const LOGS: &[Param] = &[
    param("after", "cursor", "Lines after this number."),
    param("tail", "integer", "At most the last this many."),
    param("wait", "integer", "Seconds to wait for the first one."),
];
const HISTORY: &[Param] =
    &[param("hours", "hours", "The last this many hours, 3 when nothing is said, 24 at most.")];
const STATUS: &[Param] = &[
    param("pass", "integer", "Wait for a pass with at least this number."),
    param("settled", "boolean", "And one after which nothing moves."),
    param("wait", "integer", "At most this many seconds."),
];
const PAGE: &[Param] = &[
    param("before", "cursor", "Older than this id; the last id of the page before."),
    param("limit", "integer", "At most this many, 100 when nothing is said."),
];
const AUDIT: &[Param] = &[
    param("before", "cursor", "Older than this id; the last id of the page before."),
    param("limit", "integer", "At most this many, 100 when nothing is said."),
    param("server", "string", "About this server."),
    param("by", "string", "By them."),
    param("result", "string", "`ok`, `failed` or `refused`; `abandoned` for a call whose client went away."),
    param(
        "kind",
        "string",
        "What was done begins with these words: `start`, `edit`, `sign in`; of calls `call`, `get`, `read` or the method.",
    ),
    param(
        "since",
        "since",
        "Not older: `90s`, `30m`, `2h`, `7d` back from now, or milliseconds since the epoch.",
    ),
    param("calls", "boolean", "Calls of clients instead of what was done here."),
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
    Route {
        method: "GET",
        path,
        id,
        tag,
        about,
        query: &[],
        body: None,
        may_be_bare: false,
        good: (200, None),
        others: &[],
        versions: false,
        kept: false,
        run,
    }
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

    const fn optional_body(self, body: Shape) -> Self {
        Self { body: Some(body), may_be_bare: true, ..self }
    }

    const fn others(self, others: &'static [u16]) -> Self {
        Self { others, ..self }
    }

    /// Answers with a task, or with where it is.
    const fn task(self) -> Self {
        Self { good: (202, Some(shape::<Task>)), others: &[200, 404, 409, 429], ..self }
    }

    /// Answers with a list that is kept.
    const fn kept(self) -> Self {
        Self { kept: true, ..self }
    }

    /// Answers with the file's version.
    const fn versioned(self) -> Self {
        Self { versions: true, ..self }
    }

    /// Changes the file with the servers by this method.
    const fn edits(self, method: &'static str) -> Self {
        let good = (202, Some(shape::<EditAnswer> as Shape));
        let others = &[200, 403, 404, 409, 412, 422, 428, 429, 503];
        let query = if self.query.is_empty() { EDIT } else { self.query };
        Self { method, good, others, query, versions: true, ..self }
    }

    /// Changes settings.conf.
    const fn sets(self) -> Self {
        self.edits("PATCH")
    }
}

/// All routes; the first that fits answers.
#[rustfmt::skip] // as in a table
pub const ROUTES: &[Route] = &[
    get("/api/v1/panel", "getPanel", "panel", "mcp.config.json as it is. Over the network secrets are placeholders, which stand for their values when they come back.",
        |context, call| Box::pin(edit::panel(context, call))).gives(shape::<PanelDocument>).others(&[409, 503]).versioned(),
    get("/api/v1/panel", "putPanel", "panel", "Replaces the whole text of mcp.config.json; needs If-Match.",
        |context, call| Box::pin(edit::put_panel(context, call))).body(shape::<NewText>).edits("PUT"),
    get("/api/v1/panel/schema", "getSchema", "panel", "The JSON Schema of mcp.config.json.",
        |_, _| done(ok(&schema()))),
    get("/api/v1/panel/defaults", "getDefaults", "panel", "Settings of all servers, as written.",
        |context, call| Box::pin(edit::defaults(context, call))).gives(shape::<Members>).others(&[409, 503]).versioned(),
    get("/api/v1/panel/defaults", "putDefaults", "panel", "Replaces the settings of all servers.",
        |context, call| Box::pin(edit::put_defaults(context, call))).body(shape::<Members>).edits("PUT"),
    get("/api/v1/settings", "getSettings", "panel", "Every setting with its meaning, its value and where that comes from; secrets are said to be set or not.",
        |context, call| Box::pin(settings::show(context, call))).gives(shape::<SettingsDocument>).others(&[409, 503]).versioned(),
    get("/api/v1/settings", "patchSettings", "panel", "Changes settings.conf: values by `section.key`, where null takes a setting out of the file. What reaches the host is refused over the network.",
        |context, call| Box::pin(settings::patch(context, call))).body(shape::<SettingsPatch>).query(EDIT_SETTINGS).sets(),
    get("/api/v1/panel/health", "getHealth", "panel", "How the whole stands.",
        |context, _| done(ok(&Moment::of(&context).health(&context)))).gives(shape::<PanelHealth>),
    get("/api/v1/health", "getServersHealth", "panel", "How well servers are, asked over MCP at intervals.",
        |context, call| done_with(lists::health(&context, &call))).query(HEALTH).gives(shape::<HealthPage>).others(&[404]).kept(),
    get("/api/v1/status", "getStatus", "panel", "The last pass's report as the command line shows it.",
        |context, call| Box::pin(lists::status(context, call))).query(STATUS),
    get("/api/v1/gateway", "getGateway", "panel", "Connections, sessions and figures of every server.",
        |context, _| done(ok(&serde_json::json!({ "schemaVersion": 1, "servers": context.gateway.overview() })))),
    get("/api/v1/host", "getHost", "panel", "This host: its processors, memory and disk.",
        |context, _| done_with(usage::host(&context))).gives(shape::<usage::HostView>),
    get("/api/v1/balancer", "getBalancer", "panel", "The load balancer as the last pass saw it, ours and others'.",
        |context, _| done(ok(&balancer::of(&Moment::of(&context))))).gives(shape::<BalancerView>),
    get("/api/v1/discovery", "getDiscovery", "panel", "Servers that the last search of `[discovery]` found, without secrets; none of them is run.",
        |context, _| done_with(discovery::show(&context))),
    post("/api/v1/discovery", "discover", "panel", "Searches now, and shows what is found; changes nothing.",
        |context, _| Box::pin(discovery::again(context))).others(&[503]),
    get("/api/v1/plan", "getPlan", "panel", "What a pass would change now, and why; changes nothing.",
        |context, _| Box::pin(async { crate::api::plan(context).await.into_response() })).others(&[503]),
    post("/api/v1/drain", "drain", "panel", "Takes this host out of the load balancer: its targets are deregistered, requests under way end, everything runs on. It holds until it is taken back, or all servers are started.",
        |context, call| Box::pin(actions::drain(context, call))).query(DRAIN).task(),
    post("/api/v1/sync", "sync", "panel", "Reads the files and does a pass now.",
        |context, call| Box::pin(actions::sync(context, call))).query(SYNC).task(),
    get("/api/v1/events", "getEvents", "panel", "Server-sent events: `report` when a server looks different, `tasks` when a task began or ended, `usage` when figures were read.",
        |context, _| done_with(super::events::events(context))).others(&[503]),
    get("/api/v1/servers", "getServers", "servers", "All servers in id order.",
        |context, call| done_with(lists::servers(&context, &call))).query(SERVERS).gives(shape::<Vec<ServerView>>).kept(),
    get("/api/v1/servers", "addServer", "servers", "Adds a server to mcp.config.json.",
        |context, call| Box::pin(edit::post_server(context, call))).body(shape::<NewServer>).edits("POST"),
    get("/api/v1/servers/{id}", "putServer", "servers", "Replaces a server's entry, or adds it; the body is the entry.",
        |context, call| Box::pin(edit::put_server(context, call))).body(shape::<Members>).query(EDIT_SERVER).edits("PUT"),
    get("/api/v1/servers/{id}", "patchServer", "servers", "Changes a server's entry: a merge patch (RFC 7396), where null takes a member away.",
        |context, call| Box::pin(edit::patch_server(context, call))).body(shape::<Members>).query(EDIT_SERVER).edits("PATCH"),
    get("/api/v1/servers/{id}", "deleteServer", "servers", "Takes a server out of mcp.config.json.",
        |context, call| Box::pin(edit::delete_server(context, call))).edits("DELETE"),
    get("/api/v1/servers/{id}/entry", "getEntry", "servers", "A server as it is written, with placeholders for secrets.",
        |context, call| Box::pin(edit::entry(context, call))).gives(shape::<ServerEntry>).others(&[404, 409, 503]).versioned(),
    get("/api/v1/servers/{id}", "getServer", "servers", "A server with its settings, where each came from, and what the last pass did for it.",
        |context, call| Box::pin(lists::server(context, call))).gives(shape::<ServerDetail>).others(&[404]),
    get("/api/v1/servers/{id}/capabilities", "getCapabilities", "servers", "What a server says of itself and offers, asked now.",
        |context, call| Box::pin(async move { crate::api::capabilities(call.part(0), context).await.into_response() })).others(&[404, 502, 503]),
    get("/api/v1/servers/{id}/logs", "getLogs", "servers", "What a server printed beside its messages.",
        |context, call| Box::pin(async move { match call.query() { Ok(query) => crate::api::logs(call.part(0), query, context).await.into_response(), Err(refused) => *refused } })).query(LOGS).others(&[404]),
    get("/api/v1/servers/{id}/history", "getHistory", "servers", "What a server used over the last hours: processors, memory, requests, errors, latency.",
        |context, call| Box::pin(usage::server(context, call))).query(HISTORY).gives(shape::<usage::HistoryView>).others(&[404]),
    post("/api/v1/servers/{id}/call", "callTool", "servers", "Calls a tool; answers its result as the server wrote it.",
        |context, call| Box::pin(lists::call(context, call))).body(shape::<super::ToolCall>).others(&[404, 502, 503]),
    post("/api/v1/servers/{id}/start", "startServer", "servers", "Starts a server, and keeps it running whatever the file's `disabled` says. Several ids are separated by commas; `all` is every server.",
        |context, call| Box::pin(servers(context, call, Act::Start))).query(ACT).task(),
    post("/api/v1/servers/{id}/stop", "stopServer", "servers", "Stops a server, and keeps it stopped until it is started again. Several ids as above.",
        |context, call| Box::pin(servers(context, call, Act::Stop))).query(ACT).task(),
    post("/api/v1/servers/{id}/restart", "restartServer", "servers", "Stops and starts a server once. Several ids as above.",
        |context, call| Box::pin(servers(context, call, Act::Restart))).query(ACT).task(),
    post("/api/v1/servers/{id}/pause", "pauseServer", "servers", "Leaves a server alone: no restart, no replacement, nothing of the load balancer, until it is resumed. Several ids as above; `all` is this host.",
        |context, call| Box::pin(actions::pause(context, call, Of::Servers, true))).query(ACT).task(),
    post("/api/v1/servers/{id}/resume", "resumeServer", "servers", "Looks after a server again. Several ids as above; `all` is this host.",
        |context, call| Box::pin(actions::pause(context, call, Of::Servers, false))).query(ACT).task(),
    get("/api/v1/sections", "getSections", "sections", "Sections that are declared or have servers, with what servers in them inherit.",
        |context, call| done_with(lists::sections(&context, &call))).gives(shape::<Vec<SectionView>>).kept(),
    get("/api/v1/sections", "addSection", "sections", "Adds a section to mcp.config.json.",
        |context, call| Box::pin(edit::post_section(context, call))).body(shape::<NewSection>).edits("POST"),
    get("/api/v1/sections/{id}", "putSection", "sections", "Replaces a section's settings, or adds it; its servers stay.",
        |context, call| Box::pin(edit::put_section(context, call))).body(shape::<Members>).edits("PUT"),
    get("/api/v1/sections/{id}", "deleteSection", "sections", "Takes a section out of mcp.config.json.",
        |context, call| Box::pin(edit::delete_section(context, call))).query(DELETE_SECTION).edits("DELETE"),
    get("/api/v1/sections/{id}", "getSection", "sections", "A section.",
        |context, call| Box::pin(lists::section(context, call))).gives(shape::<SectionView>).others(&[404]),
    post("/api/v1/sections/{id}/start", "startSection", "sections", "Starts all servers of a section.",
        |context, call| Box::pin(section(context, call, Act::Start))).query(ACT).task(),
    post("/api/v1/sections/{id}/stop", "stopSection", "sections", "Stops all servers of a section.",
        |context, call| Box::pin(section(context, call, Act::Stop))).query(ACT).task(),
    post("/api/v1/sections/{id}/restart", "restartSection", "sections", "Restarts all servers of a section.",
        |context, call| Box::pin(section(context, call, Act::Restart))).query(ACT).task(),
    post("/api/v1/sections/{id}/pause", "pauseSection", "sections", "Leaves the servers of a section alone, until it is resumed.",
        |context, call| Box::pin(actions::pause(context, call, Of::Section, true))).query(ACT).task(),
    post("/api/v1/sections/{id}/resume", "resumeSection", "sections", "Looks after the servers of a section again.",
        |context, call| Box::pin(actions::pause(context, call, Of::Section, false))).query(ACT).task(),
    get("/api/v1/tasks", "getTasks", "tasks", "Tasks, newest first, without the results of each server.",
        |context, call| Box::pin(lists::tasks(context, call))).query(PAGE).gives(shape::<Vec<Task>>).others(&[503]).kept(),
    get("/api/v1/tasks/{id}", "getTask", "tasks", "A task with what became of each server, and what was done for it.",
        |context, call| Box::pin(lists::task(context, call))).gives(shape::<TaskDetail>).others(&[404, 503]),
    get("/api/v1/audit", "getAudit", "tasks", "Who did what, newest first.",
        |context, call| Box::pin(lists::audit(context, call))).query(AUDIT).gives(shape::<Vec<AuditEntry>>).others(&[503]).kept(),
    get("/servers", "shortServers", "short", "All servers in a few words.",
        |context, call| done_with(short::list(&context, &call))).kept().gives(shape::<Vec<short::ShortServer>>),
    post("/servers/{name}/start", "shortStart", "short", "Starts a server and waits up to 30 s; one that the file does not have by its image.",
        |context, call| Box::pin(short::act(context, call, Act::Start))).optional_body(shape::<short::StartImage>).gives(shape::<short::ShortServer>).others(&[404, 409, 422, 428, 429, 503]),
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
    get("/metrics", "getMetrics", "panel", "All figures for Prometheus; docs/reference/metrics.md has their meaning.",
        |context, _| done_with(super::figures::metrics(&context))).others(&[404]),
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

/// The answer to a query that the route does not take as it is described.
fn wrong_parameter(route: &Route, query: &str) -> Option<Box<Response>> {
    let given: Vec<(String, String)> = serde_urlencoded::from_str(query).ok()?;
    given.iter().find_map(|(name, text)| {
        let param = route.query.iter().find(|param| param.name == name)?;
        let takes = parameters::refused(param.kind, text)?;
        let (title, detail) = ("the query cannot be read", format!("'{name}' takes {takes}"));
        Some(Box::new(problem(StatusCode::BAD_REQUEST, "MCPO-H400", title, detail).into_response()))
    })
}

/// Answers a request.
pub(super) async fn dispatch(
    context: Context,
    method: Method,
    (path, query, (if_match, if_none_match)): (String, String, (Option<String>, Option<String>)),
    caller: Caller,
    body: Bytes,
) -> Response {
    match find(&method, &path) {
        Ok((route, parts)) => match wrong_parameter(route, &query) {
            Some(refused) => *refused,
            None => {
                let kept = Arc::clone(&context.kept);
                let came = context.recorder.now();
                let call = Call { caller, came, body, if_match, if_none_match, parts, query };
                let answer = (route.run)(context, call).await;
                // Whoever did something sees it in the next list.
                if route.method != "GET" {
                    kept.moved();
                }
                answer
            }
        },
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
        let acts = ["start", "stop", "restart", "pause", "resume", "call", "drain", "sync"];
        let searches = |route: &super::Route| route.path == "/api/v1/discovery" && route.method == "POST";
        for route in ROUTES {
            let last = route.path.rsplit('/').next().unwrap();
            let adds =
                route.method == "POST" && route.body.is_some() && ["servers", "sections"].contains(&last);
            assert_eq!(acts.contains(&last) || searches(route), route.method == "POST" && !adds, "{route:?}");
        }
    }
}
