//! What is read: servers, sections, tasks, the audit.

use crate::api::health::HealthPage;
use crate::api::kept::Page;
use crate::api::problem::problem;
use crate::api::recorder::{detail, so_far};
use crate::api::table::Call;
use crate::api::view::{Moment, ServerView};
use crate::api::{Context, Response, instance_id, ok, parameters, shown_id, unknown};
use crate::model::record::{AuditEntry, AuditFilter, WithResults};
use crate::world::{Recorded, WorldError};
use serde::Deserialize;
use warp::Reply;
use warp::http::{HeaderValue, StatusCode};

/// Entries of a page when nothing is said.
const LIMIT: usize = 100;

#[derive(Clone, Debug, Default, Deserialize)]
struct ServersQuery {
    state: Option<String>,
    section: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

/// `GET /api/v1/servers`.
pub(super) fn servers(context: &Context, call: &Call) -> Response {
    let query: ServersQuery = match call.query() {
        Ok(query) => query,
        Err(refused) => return *refused,
    };
    let shown = context.kept.shown(context);
    let made = || {
        let fits = |server: &&ServerView| {
            query.state.as_ref().is_none_or(|state| server.state == *state)
                && query.section.as_ref().is_none_or(|section| server.section.as_ref() == Some(section))
                && query.after.as_ref().is_none_or(|after| server.id > *after)
        };
        let mut servers: Vec<&ServerView> = shown.servers.iter().filter(fits).collect();
        // All of them unless somebody wants pages: they are bounded by the file.
        let limit = query.limit.unwrap_or(usize::MAX);
        let more = servers.len() > limit;
        servers.truncate(limit);
        let last = servers.last().map(|server| server.id.clone());
        Page::of(&servers).followed(next(call, ("after", last), more))
    };
    let key = ("servers", call.raw_query().to_owned());
    context.kept.of_servers(shown.number, key, made).answer(call.if_none_match.as_deref())
}

/// `GET /api/v1/sections`.
pub(super) fn sections(context: &Context, call: &Call) -> Response {
    let shown = context.kept.shown(context);
    let made = || Page::of(&shown.moment.sections(&shown.servers));
    let key = ("sections", String::new());
    context.kept.of_servers(shown.number, key, made).answer(call.if_none_match.as_deref())
}

#[derive(Clone, Debug, Default, Deserialize)]
struct HealthQuery {
    server: Option<String>,
}

/// `GET /api/v1/health`.
pub(super) fn health(context: &Context, call: &Call) -> Response {
    let query: HealthQuery = match call.query() {
        Ok(query) => query,
        Err(refused) => return *refused,
    };
    let Some(name) = query.server else {
        let shown = context.kept.shown(context);
        let made = || Page::of(&HealthPage::of(&shown.servers));
        let page = context.kept.of_servers(shown.number, ("health", String::new()), made);
        return page.answer(call.if_none_match.as_deref());
    };
    let found = instance_id(&name, context).or_else(|name| shown_id(&name, context));
    let page = found.ok().and_then(|id| {
        let view = Moment::of(context).server(&id.server())?;
        if id.replica_number() > 1 {
            let one = view.instances.iter().find(|one| one.number == id.replica_number())?;
            return Some(HealthPage::of_instance(one));
        }
        Some(HealthPage::of(&[view]))
    });
    page.map_or_else(|| unknown(&name).into_response(), |page| ok(&page).into_response())
}

/// `GET /api/v1/servers/{id}`.
pub(super) async fn server(context: Context, call: Call) -> Response {
    let name = call.part(0);
    let detail = shown_id(&name, &context).ok().and_then(|id| Moment::of(&context).detail(&id));
    detail.map_or_else(|| unknown(&name).into_response(), |detail| ok(&detail).into_response())
}

/// `GET /api/v1/sections/{id}`.
pub(super) async fn section(context: Context, call: Call) -> Response {
    let name = call.part(0);
    let shown = context.kept.shown(&context);
    let sections = shown.moment.sections(&shown.servers);
    match sections.into_iter().find(|section| section.id == name) {
        Some(section) => ok(&section).into_response(),
        None => {
            let detail = format!("no server is in a section called {name}");
            problem(StatusCode::NOT_FOUND, "MCPO-H002", "no such section", detail).into_response()
        }
    }
}

/// `GET /api/v1/status`.
pub(super) async fn status(context: Context, call: Call) -> Response {
    match call.query() {
        Ok(query) => crate::api::status(query, context, &call.caller).await.into_response(),
        Err(refused) => *refused,
    }
}

/// `POST /api/v1/servers/{id}/call`: also a line of the audit, without the arguments.
pub(super) async fn call(context: Context, call: Call) -> Response {
    #[derive(Deserialize)]
    struct Tool {
        tool: String,
    }
    let tool = serde_json::from_slice::<Tool>(&call.body).map(|body| body.tool).unwrap_or_default();
    let (recorder, begun) = (context.recorder.clone(), context.recorder.now());
    let answer = crate::api::call(call.part(0), call.body.clone(), context).await.into_response();
    let tool: String = tool.chars().filter(|c| !c.is_control()).take(128).collect();
    recorder.note(AuditEntry {
        by: call.caller.who.clone(),
        via: call.caller.via.to_owned(),
        what: format!("call {tool}"),
        server: Some(call.part(0)),
        result: if answer.status().is_success() { "ok" } else { "failed" }.to_owned(),
        millis: Some(recorder.now().since(begun).0),
        ..AuditEntry::default()
    });
    answer
}

#[derive(Clone, Debug, Default, Deserialize)]
struct PageQuery {
    before: Option<i64>,
    limit: Option<usize>,
    server: Option<String>,
    by: Option<String>,
    result: Option<String>,
    kind: Option<String>,
    since: Option<String>,
    calls: Option<bool>,
}

/// `GET /api/v1/tasks`.
pub(super) async fn tasks(context: Context, call: Call) -> Response {
    let query: PageQuery = match call.query() {
        Ok(query) => query,
        Err(refused) => return *refused,
    };
    let limit = query.limit.unwrap_or(LIMIT);
    let records = &context.recorder.records;
    let made = async {
        let tasks = records.tasks(query.before, limit, WithResults::None).await?;
        let last = tasks.last().map(|task| task.id.to_string());
        Ok(Page::of(&tasks).followed(next(&call, ("before", last), tasks.len() >= limit)))
    };
    let key = ("tasks", call.raw_query().to_owned());
    match context.kept.of_records((records.as_ref(), Recorded::Tasks), key, made).await {
        Ok(page) => page.answer(call.if_none_match.as_deref()),
        Err(error) => unreadable(&error),
    }
}

/// `GET /api/v1/tasks/{id}`.
pub(super) async fn task(context: Context, call: Call) -> Response {
    let name = call.part(0);
    let Ok(id) = name.parse::<i64>() else { return no_task(&name) };
    match context.recorder.records.task(id).await {
        Ok(Some(task)) => {
            let now = context.handle.snapshot.borrow().clone();
            match detail(context.recorder.records.as_ref(), so_far(task, &now)).await {
                Ok(detail) => ok(&detail).into_response(),
                Err(error) => unreadable(&error),
            }
        }
        Ok(None) => no_task(&name),
        Err(error) => unreadable(&error),
    }
}

fn no_task(name: &str) -> Response {
    let detail = format!("no task has the id {name}; old ones are forgotten");
    problem(StatusCode::NOT_FOUND, "MCPO-H007", "no such task", detail).into_response()
}

/// `GET /api/v1/audit`.
pub(super) async fn audit(context: Context, call: Call) -> Response {
    let query: PageQuery = match call.query() {
        Ok(query) => query,
        Err(refused) => return *refused,
    };
    let PageQuery { before, limit, server, by, result, kind, since, calls } = query;
    let (calls, limit) = (calls.unwrap_or(false), limit.unwrap_or(LIMIT));
    let since = since.and_then(|text| parameters::since(&text, context.recorder.now()));
    let filter =
        AuditFilter { before, server, by, result, kind, since, calls, limit, ..AuditFilter::default() };
    let records = &context.recorder.records;
    let made = async {
        let entries = records.audit(&filter).await?;
        let last = entries.last().map(|entry| entry.id.to_string());
        Ok(Page::of(&entries).followed(next(&call, ("before", last), entries.len() >= limit)))
    };
    // How far back from now is something else each time.
    let page = if filter.since.is_some() {
        made.await
    } else {
        let key = ("audit", call.raw_query().to_owned());
        let list = if calls { Recorded::Calls } else { Recorded::Audit };
        context.kept.of_records((records.as_ref(), list), key, made).await
    };
    match page {
        Ok(page) => page.answer(call.if_none_match.as_deref()),
        Err(error) => unreadable(&error),
    }
}

/// Where the next page is, when there may be one: `Link` with `rel="next"`, and the same query but for
/// `cursor`.
fn next(call: &Call, (cursor, last): (&str, Option<String>), full: bool) -> Option<HeaderValue> {
    let last = last.filter(|_| full)?;
    let given: Vec<(String, String)> = call.query().unwrap_or_default();
    let kept = given.into_iter().filter(|(name, _)| name != cursor);
    let query: Vec<(String, String)> = kept.chain([(cursor.to_owned(), last)]).collect();
    let next = serde_urlencoded::to_string(&query).map(|query| format!("<?{query}>; rel=\"next\""));
    next.ok().and_then(|next| HeaderValue::from_str(&next).ok())
}

fn unreadable(error: &WorldError) -> Response {
    problem(StatusCode::SERVICE_UNAVAILABLE, error.kind.code(), "not readable now", error.to_string())
        .into_response()
}

/// `GET /readyz`.
pub(super) fn ready(context: &Context) -> Response {
    let snapshot = context.handle.snapshot.borrow();
    let generation = context.gateway.generation();
    let drained = snapshot.report.drained.is_some();
    if snapshot.pass > 0 && snapshot.report.engine_known && generation > 0 && !drained {
        return ok(&serde_json::json!({ "status": "ready", "generation": generation })).into_response();
    }
    let why = match (snapshot.pass, generation) {
        (0, _) => "no pass has ended yet",
        (_, 0) => "no configuration could be used yet",
        _ if drained => "this host is drained",
        _ => "the engine does not answer",
    };
    problem(StatusCode::SERVICE_UNAVAILABLE, "MCPO-G024", "not ready yet", why.to_owned()).into_response()
}
