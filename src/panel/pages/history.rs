//! What was asked for and what was done: tasks and the audit, a page at a time.

use crate::api::parameters;
use crate::api::recorder::{detail, extent, so_far};
use crate::model::record::{AuditEntry, AuditFilter, Task, TaskDetail, TaskResult, TaskState, WithResults};
use crate::panel::pages::{Asked, Page, parts};
use crate::service::Snapshot;
use maud::{Markup, html};

/// Rows of a page.
const ROWS: usize = 50;
/// Servers of a task that are named with what is wrong with each.
const WRONG_MAX: usize = 3;
/// Servers of a task that its row names.
const NAMES_MAX: usize = 8;

pub(super) async fn tasks(asked: &Asked) -> Page {
    let before = asked.query().get("before").and_then(|text| text.parse::<i64>().ok());
    let found = asked.context.recorder.records.tasks(before, ROWS, WithResults::OfFailed).await;
    let now = asked.context.handle.snapshot.borrow().clone();
    let content = html! {
        section.head { div { h1 { "Tasks" } p.soft { "What was asked for. A task ends when a pass that began later has finished with its servers." } } }
        section.card {
            @match &found {
                Err(error) => p.pad.banner.bad { (error) },
                Ok(tasks) if tasks.is_empty() => div.empty { "Nothing was asked for yet." },
                Ok(tasks) => {
                    div.scroll { table.cards {
                        (parts::caption("Tasks"))
                        thead { tr { th { "Task" } th { "What" } th { "Servers" } th { "State" } th { "Who" } th { "When" } th.num { "Took" } } }
                        tbody #tasks data-live="" data-rows="" { @for task in tasks { (task_row(asked, &so_far(task.clone(), &now), &now)) } }
                    } }
                    (older(asked, "/tasks", "", tasks.last().filter(|_| tasks.len() == ROWS).map(|task| task.id)))
                },
            }
        }
    };
    Page::new("Tasks", "tasks", content)
}

fn task_row(asked: &Asked, task: &Task, now: &Snapshot) -> Markup {
    let wrong: Vec<_> = task.results.iter().filter(|result| !result.ok).collect();
    html! {
        tr id={ "t-" (task.id) } {
            td { a href={ (asked.base) "/tasks/" (task.id) } { (task.id) } }
            td { b { (task.act) } }
            td.wide {
                @if task.servers.is_empty() { span.soft { "all" } }
                @for id in task.servers.iter().take(NAMES_MAX) { a.nowrap href={ (asked.base) "/servers/" (id) } { (id) } " " }
                @if task.servers.len() > NAMES_MAX { a.nowrap href={ (asked.base) "/tasks/" (task.id) } { "and " (task.servers.len() - NAMES_MAX) " more" } }
                @for result in wrong.iter().take(WRONG_MAX) {
                    p.why.blocked { (result.server) " " (result.state) @if let Some(why) = &result.why { ": " (why) } }
                }
                @if wrong.len() > WRONG_MAX { p.why { a href={ (asked.base) "/tasks/" (task.id) } { (wrong.len() - WRONG_MAX) " more" } } }
                @if task.state == TaskState::Interrupted { p.why { (INTERRUPTED) } }
            }
            td { (standing(task, now)) }
            td data-l="by" { (task.by) span.faint { " · " (task.via) } }
            td data-l="asked" { (parts::time(task.asked.0)) }
            td.num data-l="took" { @match task.ended { Some(ended) => (parts::millis(ended.since(task.asked).0)), None => "–" } }
        }
    }
}

/// What a task that the daemon did not outlive says.
const INTERRUPTED: &str = "The daemon ended before it did; the wish itself was kept.";

/// How it stands, and how far it is.
fn standing(task: &Task, now: &Snapshot) -> Markup {
    html! {
        (parts::pill(task.state.as_str()))
        @if task.state == TaskState::Running { span.soft.small { " " (task.results.len()) " of " (extent(task, now)) } }
    }
}

/// One task: what became of each server, and what was done for it; `None` when it is not known.
pub(super) async fn task(asked: &Asked, id: &str) -> Option<Page> {
    let id: i64 = id.parse().ok()?;
    let records = asked.context.recorder.records.as_ref();
    let now = asked.context.handle.snapshot.borrow().clone();
    let task = so_far(records.task(id).await.ok()??, &now);
    let TaskDetail { task, actions } = detail(records, task).await.ok()?;
    let took = task.ended.map(|ended| ended.since(task.asked).0);
    let content = html! {
        section #head .head data-live="" {
            div {
                p.crumb { a href={ (asked.base) "/tasks" } { "Tasks" } }
                h1 { "Task " (task.id) ": " (task.act) " " (standing(&task, &now)) }
                p.soft {
                    "Asked for by " (task.by) " (" (task.via) ") " (parts::time(task.asked.0))
                    @if let Some(took) = took { ", took " (parts::millis(took)) }
                }
                @if task.state == TaskState::Interrupted { p.soft { (INTERRUPTED) } }
            }
        }
        section #became .card data-live="" {
            header { h2 { "Servers" } span.soft.small { "what became of each" } }
            (became(asked, &task))
        }
        section #done .card data-live="" {
            header { h2 { "What was done" } span.soft.small { "for these servers, from when it was asked for until it ended" } }
            @if actions.is_empty() { p.pad.soft { "Nothing had to be changed in containers, ports or the load balancer." } }
            @else { div.scroll { table.cards {
                (parts::caption("What was done"))
                thead { tr { th { "When" } th { "What" } th { "Server" } th { "Result" } th.num { "Took" } } }
                tbody { @for action in &actions { tr {
                    td.nowrap.soft { (parts::time(action.at.0)) }
                    (doing(action, &html! {}))
                    td { @if let Some(server) = &action.server { a href={ (asked.base) "/servers/" (server) } { (server) } } }
                    (ending(action))
                } } }
            } } }
        }
    };
    Some(Page::new(format!("Task {}: {}, {}", task.id, task.act, task.state.as_str()), "tasks", content))
}

fn became(asked: &Asked, task: &Task) -> Markup {
    let told = |id: &String| !task.results.iter().any(|result| result.server == *id);
    let left: Vec<&String> = task.servers.iter().filter(|id| told(id)).collect();
    let link = |id: &str| html! { a.name href={ (asked.base) "/servers/" (id) } { (id) } };
    let row = |result: &TaskResult| {
        html! {
            tr {
                td.first { (link(&result.server)) }
                td { (parts::pill(if result.ok { "ok" } else { "failed" })) }
                td { (parts::pill(&result.state)) }
                td.wide { (result.why.as_deref().unwrap_or("")) @if let Some(code) = &result.code { " " span.tag { (code) } } }
            }
        }
    };
    html! {
        @if task.results.is_empty() && left.is_empty() {
            p.pad.soft { @if task.state == TaskState::Running { "None is finished with yet." } @else { "It was about no server." } }
        } @else {
            div.scroll { table.cards {
                (parts::caption("What became of each server"))
                thead { tr { th { "Server" } th { "Result" } th { "State" } th { "Why" } } }
                tbody {
                    // What went wrong first.
                    @for result in task.results.iter().filter(|result| !result.ok) { (row(result)) }
                    @for id in left { tr { td.first { (link(id)) } td { span.soft { "–" } } td {} td.wide.soft { @if task.state == TaskState::Running { "under way" } } } }
                    @for result in task.results.iter().filter(|result| result.ok) { (row(result)) }
                }
            } }
        }
    }
}

pub(super) async fn audit(asked: &Asked) -> Page {
    let query = asked.query();
    let text =
        |key: &str| query.get(key).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
    let filter = AuditFilter {
        before: text("before").and_then(|text| text.parse().ok()),
        server: text("server"),
        by: text("by"),
        result: text("result"),
        kind: text("kind"),
        since: text("since").and_then(|text| parameters::since(&text, asked.context.recorder.now())),
        calls: query.get("calls").is_some_and(|value| value == "true"),
        limit: ROWS,
        ..AuditFilter::default()
    };
    let found = asked.context.recorder.records.audit(&filter).await;
    let kept = ["server", "by", "kind", "result", "since", "calls"];
    let kept: Vec<(&str, String)> = kept.into_iter().filter_map(|key| Some((key, text(key)?))).collect();
    let bare = kept.is_empty() && filter.before.is_none();
    let kept = serde_urlencoded::to_string(&kept).unwrap_or_default();
    let content = html! {
        section.head { div { h1 { "Audit" } p.soft { "Who did what, and what became of it." } } }
        section.card {
            header { (audit_filter(asked, &filter, &text("since").unwrap_or_default())) }
            @match &found {
                Err(error) => p.pad.banner.bad { (error) },
                Ok(entries) if entries.is_empty() => div.empty {
                    @if bare { "Nothing was done yet." } @else { "Nothing fits. " a href={ (asked.base) "/audit" } { "Show all" } }
                },
                Ok(entries) => {
                    div.scroll { table.cards {
                        (parts::caption("Audit"))
                        thead { tr { th { "When" } th { "What" } th { "Server" } th { "Result" } th { "Who" } th.num { "Took" } } }
                        tbody #audit data-live="" data-rows="" { @for entry in entries { (audit_row(asked, entry)) } }
                    } }
                    (older(asked, "/audit", &kept, entries.last().filter(|_| entries.len() == ROWS).map(|entry| entry.id)))
                },
            }
        }
    };
    Page::new("Audit", "audit", content)
}

/// What the audit can be narrowed to by its kind; others may be written.
const KINDS: &[&str] =
    &["start", "stop", "restart", "pause", "resume", "sync", "edit", "call", "sign in", "configuration"];
/// Times back from now.
const SPANS: &[(&str, &str)] = &[("1h", "Last hour"), ("1d", "Last day"), ("7d", "Last week")];

fn audit_filter(asked: &Asked, filter: &AuditFilter, since: &str) -> Markup {
    let chosen = filter.result.as_deref().unwrap_or_default();
    let other = !since.is_empty() && SPANS.iter().all(|(span, _)| *span != since);
    html! {
        form.filter role="search" aria-label="Audit" {
            input name="server" value=[filter.server.as_ref()] placeholder="Server" aria-label="Server";
            input name="by" value=[filter.by.as_ref()] placeholder="Who" aria-label="Who";
            input name="kind" value=[filter.kind.as_ref()] placeholder="What" aria-label="What, the first words" list="kinds";
            datalist #kinds { @for kind in KINDS { option value=(kind) {} } }
            select name="result" aria-label="Result" {
                option value="" { "Any result" }
                @for result in ["ok", "failed", "refused", "abandoned"] { option value=(result) selected[chosen == result] { (result) } }
            }
            select name="since" aria-label="Time" {
                option value="" { "Any time" }
                @for (span, word) in SPANS { option value=(span) selected[*span == since] { (word) } }
                @if other { option value=(since) selected { "Since " (since) } }
            }
            select name="calls" aria-label="Kind" {
                option value="" { "What was done" }
                option value="true" selected[filter.calls] { "Calls of clients" }
            }
            button { "Show" }
            @if !asked.query.is_empty() { a.button href={ (asked.base) "/audit" } { "Reset" } }
        }
    }
}

fn audit_row(asked: &Asked, entry: &AuditEntry) -> Markup {
    html! {
        tr id={ "a-" (entry.id) } {
            td.nowrap { (parts::time(entry.at.0)) }
            (doing(entry, &html! { @if let Some(task) = entry.task { " " a.tag href={ (asked.base) "/tasks/" (task) } { "task " (task) } } }))
            td { @if let Some(server) = &entry.server { a href={ (asked.base) "/servers/" (server) } { (server) } } }
            td { (parts::pill(&entry.result)) @if let Some(code) = &entry.code { " " span.tag { (code) } } }
            td data-l="by" { (entry.by) span.faint { " · " (entry.via) } }
            td.num data-l="took" { @match entry.millis { Some(millis) => (parts::millis(millis)), None => "–" } }
        }
    }
}

/// The same on the page of its server.
pub(super) fn event_row(entry: &AuditEntry) -> Markup {
    html! {
        tr {
            td.nowrap.soft { (parts::time(entry.at.0)) }
            (doing(entry, &html! {}))
            td { (parts::pill(&entry.result)) @if let Some(code) = &entry.code { " " span.tag { (code) } } }
            td.soft.small { (entry.by) @if let Some(millis) = entry.millis { ", " (parts::millis(millis)) } }
        }
    }
}

/// What was done, why, and what went wrong.
fn doing(entry: &AuditEntry, beside: &Markup) -> Markup {
    html! {
        td.wide {
            (entry.what) (beside)
            @if let Some(why) = &entry.why { p.why { (why) } }
            @if let Some(detail) = &entry.detail { p.why.blocked { (detail) } }
        }
    }
}

/// How it ended, and how long it took.
fn ending(entry: &AuditEntry) -> Markup {
    html! {
        td { (parts::pill(&entry.result)) @if let Some(code) = &entry.code { " " span.tag { (code) } } }
        td.num data-l="took" { @match entry.millis { Some(millis) => (parts::millis(millis)), None => "–" } }
    }
}

fn older(asked: &Asked, path: &str, kept: &str, last: Option<i64>) -> Markup {
    let paged = asked.query().contains_key("before");
    html! {
        @if paged || last.is_some() {
            nav.pad.acts aria-label="Pages" {
                @if paged { a.button href={ (asked.base) (path) @if !kept.is_empty() { "?" (kept) } } { "Newest" } }
                @if let Some(last) = last { a.button rel="next" href={ (asked.base) (path) "?before=" (last) @if !kept.is_empty() { "&" (kept) } } { "Older" } }
            }
        }
    }
}
