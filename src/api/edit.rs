//! Routes that change mcp.config.json: the whole text, servers, sections, the settings of all.
//!
//! Each is a change for the [`Editor`](crate::api::editing::Editor), then a task that ends when the
//! loop has finished with the servers it touched. With `dry_run` nothing is written: the answer is the
//! difference, what is wrong with it, and the plan.
//!
//! Must never answer that something is written before it is on disk.

use crate::api::actions;
use crate::api::editing::{Content, Edit, Edited, Refused};
use crate::api::problem::{hint_of, problem_with};
use crate::api::table::Call;
use crate::api::{Context, Response, ok};
use crate::config::edit::outline::WrittenServer;
use crate::config::edit::{Change, Orphans};
use crate::config::error::Problem;
use crate::model::record::{AuditEntry, Task};
use crate::model::time::Timestamp;
use crate::plan::{Plan, display};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use warp::Reply;
use warp::http::{HeaderValue, StatusCode};

/// Columns of a plan's text.
const PLAN_COLUMNS: usize = 80;
/// Longest word for what a task does, in characters.
const ACT_CHARS_MAX: usize = 100;

/// What edits take.
#[derive(Clone, Debug, Default, Deserialize)]
struct EditQuery {
    /// Show what would be, and write nothing.
    dry_run: Option<bool>,
    /// Removals that the guard would hold back are allowed.
    allow_mass_delete: Option<bool>,
    /// The section of a server.
    section: Option<String>,
    /// What becomes of the servers of a section that goes.
    servers: Option<String>,
    /// Where they go to.
    to: Option<String>,
}

/// The file as it is.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PanelDocument {
    /// Where it is.
    pub file: String,
    /// Its text. Over the network secrets are `[redacted:…]`, which stand for their values when they
    /// come back.
    pub content: String,
    /// The version: send it as `If-Match`.
    pub etag: String,
    /// `map` for `mcpServers`, `panel` for a panel document, `other` for what is not changed here.
    pub form: String,
    /// Whether it can be written.
    pub writable: bool,
    /// Why not.
    pub read_only: Option<String>,
    /// Whether `allow`, process commands, host paths and `${file:}` may be set over the network.
    pub full_control: bool,
    /// What is wrong with the file in force, a line each.
    pub problems: Vec<String>,
}

/// A whole text.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewText {
    /// The text.
    pub content: String,
}

/// A new server.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewServer {
    /// Its name.
    pub name: String,
    /// The section it goes to.
    pub section: Option<String>,
    /// Its entry, as in the file.
    pub entry: Map<String, Value>,
}

/// A new section.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSection {
    /// Its name.
    pub name: String,
    /// Its settings, as in the file.
    #[serde(default)]
    pub settings: Map<String, Value>,
}

/// A server as it is written, and the version of the file.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ServerEntry {
    /// The server.
    #[serde(flatten)]
    pub server: WrittenServer,
    /// The version: send it as `If-Match`.
    pub etag: String,
}

/// Members by name.
pub type Members = Map<String, Value>;

/// What an edit answers: the task, or with `dry_run` what would be.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum EditAnswer {
    /// It is written, and being carried out.
    Task(Task),
    /// Nothing was written.
    Preview(Preview),
}

/// What an edit would do.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Preview {
    /// Always true.
    pub dry_run: bool,
    /// Whether the text would be another.
    pub changed: bool,
    /// Whether it would be written.
    pub accepted: bool,
    /// Why not.
    pub refused: Option<Value>,
    /// What changes in the text, as a unified diff.
    pub diff: String,
    /// What is wrong with the text, warnings included: severity, code, file, line, column, message, hint.
    pub problems: Value,
    /// Servers whose entry would be other than before.
    pub servers: Vec<String>,
    /// Settings that would be in force at once, as `section.key`.
    pub applied: Vec<String>,
    /// Settings that would be in force after a restart.
    pub needs_restart: Vec<String>,
    /// What a pass would do: `text` for people, `changes`, and the actions.
    pub plan: Value,
}

// ---- reading -------------------------------------------------------------------------------------

async fn content(context: &Context, call: &Call) -> Result<Content, Box<Response>> {
    let far = call.caller.via != "socket";
    context.editor.read(far).await.map_err(|refused| Box::new(answer_of(refused)))
}

/// `GET /api/v1/panel`.
pub(super) async fn panel(context: Context, call: Call) -> Response {
    let Content { file, text, etag, outline, read_only, full_control } = match content(&context, &call).await
    {
        Ok(content) => content,
        Err(refused) => return *refused,
    };
    let document = PanelDocument {
        file,
        content: text,
        form: outline.map_or_else(|| "other".to_owned(), |outline| outline.form),
        writable: read_only.is_none(),
        read_only,
        full_control,
        problems: context.files.borrow().problems.clone(),
        etag: etag.clone(),
    };
    tagged(ok(&document).into_response(), &etag)
}

/// `GET /api/v1/panel/defaults`.
pub(super) async fn defaults(context: Context, call: Call) -> Response {
    match content(&context, &call).await {
        Ok(content) => {
            let outline = content.outline.unwrap_or_default();
            tagged(ok(&outline.defaults).into_response(), &content.etag)
        }
        Err(refused) => *refused,
    }
}

/// `GET /api/v1/servers/{id}/entry`.
pub(super) async fn entry(context: Context, call: Call) -> Response {
    let content = match content(&context, &call).await {
        Ok(content) => content,
        Err(refused) => return *refused,
    };
    let (name, etag) = (call.part(0), content.etag);
    let mut servers = content.outline.unwrap_or_default().servers;
    let by_id = servers.iter().position(|server| server.id.as_deref() == Some(name.as_str()));
    let at = by_id.or_else(|| servers.iter().position(|server| server.name == name));
    match at.map(|at| servers.swap_remove(at)) {
        Some(server) => {
            let answer = ok(&ServerEntry { server, etag: etag.clone() }).into_response();
            tagged(answer, &etag)
        }
        None => crate::api::unknown(&name).into_response(),
    }
}

// ---- writing -------------------------------------------------------------------------------------

/// What a route makes of a request: the change, and the words for it.
type Made = Result<(Change, String), Box<Response>>;

/// `PUT /api/v1/panel`.
pub(super) async fn put_panel(context: Context, call: Call) -> Response {
    let made =
        body::<NewText>(&call).map(|new| (Change::Text(new.content), "edit: the whole file".to_owned()));
    perform(context, call, made, true).await
}

/// `PUT /api/v1/panel/defaults`.
pub(super) async fn put_defaults(context: Context, call: Call) -> Response {
    let made = body::<Members>(&call).map(|settings| {
        (Change::Defaults(Value::Object(settings)), "edit: put the settings of all".to_owned())
    });
    perform(context, call, made, false).await
}

/// `POST /api/v1/servers`.
pub(super) async fn post_server(context: Context, call: Call) -> Response {
    let made = body::<NewServer>(&call).map(|NewServer { name: server, section, entry }| {
        let words = format!("edit: add server '{server}'");
        (Change::Put { server, entry: Value::Object(entry), section, new: true }, words)
    });
    perform(context, call, made, false).await
}

/// `PUT /api/v1/servers/{id}`.
pub(super) async fn put_server(context: Context, call: Call) -> Response {
    let made = entry_and_section(&call).map(|(entry, section)| {
        let server = call.part(0);
        let words = format!("edit: put server '{server}'");
        (Change::Put { server, entry, section, new: false }, words)
    });
    perform(context, call, made, false).await
}

/// `PATCH /api/v1/servers/{id}`.
pub(super) async fn patch_server(context: Context, call: Call) -> Response {
    let made = entry_and_section(&call).map(|(patch, section)| {
        let server = call.part(0);
        let words = format!("edit: patch server '{server}'");
        let section = section.map(|section| Some(section).filter(|section| !section.is_empty()));
        (Change::Patch { server, patch, section }, words)
    });
    perform(context, call, made, false).await
}

/// `DELETE /api/v1/servers/{id}`.
pub(super) async fn delete_server(context: Context, call: Call) -> Response {
    let server = call.part(0);
    let words = format!("edit: remove server '{server}'");
    perform(context, call, Ok((Change::Remove { server }, words)), false).await
}

/// `POST /api/v1/sections`.
pub(super) async fn post_section(context: Context, call: Call) -> Response {
    let made = body::<NewSection>(&call).map(|NewSection { name: section, settings }| {
        let words = format!("edit: add section '{section}'");
        (Change::PutSection { section, settings: Value::Object(settings), new: true }, words)
    });
    perform(context, call, made, false).await
}

/// `PUT /api/v1/sections/{id}`.
pub(super) async fn put_section(context: Context, call: Call) -> Response {
    let made = body::<Members>(&call).map(|settings| {
        let section = call.part(0);
        let words = format!("edit: put section '{section}'");
        (Change::PutSection { section, settings: Value::Object(settings), new: false }, words)
    });
    perform(context, call, made, false).await
}

/// `DELETE /api/v1/sections/{id}`.
pub(super) async fn delete_section(context: Context, call: Call) -> Response {
    let made = call.query::<EditQuery>().and_then(|query| {
        let servers = match query.servers.as_deref() {
            None => Orphans::Refuse,
            Some("move") => Orphans::Move(query.to.filter(|to| !to.is_empty())),
            Some("delete") => Orphans::Delete,
            Some(other) => return Err(unreadable(&format!("'servers' takes move or delete, not '{other}'"))),
        };
        let section = call.part(0);
        let words = format!("edit: remove section '{section}'");
        Ok((Change::RemoveSection { section, servers }, words))
    });
    perform(context, call, made, false).await
}

fn entry_and_section(call: &Call) -> Result<(Value, Option<String>), Box<Response>> {
    let entry = body::<Members>(call)?;
    Ok((Value::Object(entry), call.query::<EditQuery>()?.section))
}

pub(super) fn body<T: DeserializeOwned>(call: &Call) -> Result<T, Box<Response>> {
    serde_json::from_slice(&call.body).map_err(|error| unreadable(&error.to_string()))
}

pub(super) fn unreadable(why: &str) -> Box<Response> {
    let refused = Refused {
        status: 400,
        code: "MCPO-H400",
        title: "the request cannot be read",
        detail: why.to_owned(),
        ..Refused::default()
    };
    Box::new(answer_of(refused))
}

/// Makes the change, and follows what comes of it.
async fn perform(context: Context, call: Call, made: Made, needs_match: bool) -> Response {
    let made = made.and_then(|made| Ok((made, call.query::<EditQuery>()?)));
    let ((change, words), query) = match made {
        Ok(made) => made,
        Err(refused) => return *refused,
    };
    if !context.recorder.has_room() {
        return actions::too_many();
    }
    let edit = Edit {
        changes: vec![change],
        if_match: call.if_match.clone(),
        needs_match,
        far: call.caller.via != "socket",
        dry_run: query.dry_run.unwrap_or(false),
        allow_mass_delete: query.allow_mass_delete.unwrap_or(false),
    };
    let dry_run = edit.dry_run;
    match carry_out(&context, &call, edit, &words).await {
        Err(refused) => answer_of(refused),
        Ok(edited) if dry_run => previewed(edited),
        Ok(edited) => {
            let words: String = words.chars().filter(|c| !c.is_control()).take(ACT_CHARS_MAX).collect();
            let servers = edited.servers.iter().map(ToString::to_string).collect();
            let answer = actions::after_edit(context, call, words, servers).await;
            tagged(answer, &edited.etag)
        }
    }
}

/// Has the editor make the change; a refusal is a line of the audit.
pub(super) async fn carry_out(
    context: &Context,
    call: &Call,
    edit: Edit,
    words: &str,
) -> Result<Edited, Refused> {
    let dry_run = edit.dry_run;
    let made = context.editor.edit(edit).await;
    if let Err(refused) = made.as_ref()
        && !dry_run
    {
        note_refusal(context, call, words, refused);
    }
    made
}

/// A line of the audit about what was not done.
pub(super) fn note_refusal(context: &Context, call: &Call, words: &str, refused: &Refused) {
    context.recorder.note(AuditEntry {
        by: call.caller.who.clone(),
        via: call.caller.via.to_owned(),
        what: words.chars().filter(|c| !c.is_control()).take(ACT_CHARS_MAX).collect(),
        result: "refused".to_owned(),
        detail: Some(refused.detail.clone()),
        code: Some(refused.code.to_owned()),
        ..AuditEntry::default()
    });
}

/// A plan as answers have it.
fn plan_of(planned: Option<Box<(Plan, Timestamp)>>) -> Value {
    planned.map_or(Value::Null, |planned| {
        let (plan, now) = *planned;
        let mut body = display::json(&plan);
        if let Value::Object(body) = &mut body {
            body.insert("text".to_owned(), display::text(&plan, now, PLAN_COLUMNS).into());
        }
        body
    })
}

/// The answer to an edit that was only to be shown.
pub(super) fn previewed(edited: Edited) -> Response {
    let etag = edited.etag.clone();
    tagged(ok(&EditAnswer::Preview(preview(edited))).into_response(), &etag)
}

fn preview(edited: Edited) -> Preview {
    let owned = |names: &[&'static str]| names.iter().map(|name| (*name).to_owned()).collect();
    Preview {
        dry_run: true,
        changed: edited.changed,
        accepted: edited.refused.is_none(),
        refused: edited.refused.map(|refused| body_of(&refused)),
        diff: edited.diff,
        problems: places(&edited.problems),
        servers: edited.servers.iter().map(ToString::to_string).collect(),
        applied: owned(&edited.applied),
        needs_restart: owned(&edited.needs_restart),
        plan: plan_of(edited.plan),
    }
}

pub(super) fn places(problems: &[Problem]) -> Value {
    crate::config::error::to_json(problems)
}

fn body_of(refused: &Refused) -> Value {
    let Refused { status, code, title, detail, hint, problems } = refused;
    let hint = hint.clone().or_else(|| hint_of(code).map(str::to_owned));
    problem_with(*status, code, title, (detail, hint), places(problems))
}

/// A refusal as an answer.
pub(super) fn answer_of(refused: Refused) -> Response {
    let status = StatusCode::from_u16(refused.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    warp::reply::with_status(warp::reply::json(&body_of(&refused)), status).into_response()
}

pub(super) fn tagged(mut response: Response, etag: &str) -> Response {
    if let Ok(etag) = HeaderValue::from_str(etag) {
        response.headers_mut().insert("etag", etag);
    }
    response
}
