//! What was asked for and what was done: tasks and the audit, a page at a time.

use crate::model::record::{AuditEntry, AuditFilter, Task, TaskState};
use crate::panel::pages::{Asked, Page, parts};
use maud::{Markup, html};

/// Rows of a page.
const ROWS: usize = 50;

pub(super) async fn tasks(asked: &Asked) -> Page {
    let before = asked.query().get("before").and_then(|text| text.parse::<i64>().ok());
    let found = asked.context.recorder.records.tasks(before, ROWS).await;
    let content = html! {
        section.head { div { h1 { "Tasks" } p.soft { "What was asked for. A task ends when a pass that began later has finished with its servers." } } }
        section.card {
            @match &found {
                Err(error) => p.pad.banner.bad { (error) },
                Ok(tasks) if tasks.is_empty() => div.empty { "Nothing was asked for yet." },
                Ok(tasks) => {
                    div.scroll { table.cards {
                        thead { tr { th { "Task" } th { "What" } th { "Servers" } th { "State" } th { "Who" } th { "When" } th.num { "Took" } } }
                        tbody #tasks data-live="" data-rows="" { @for task in tasks { (task_row(asked, task)) } }
                    } }
                    (older(asked, "/tasks", "", tasks.last().filter(|_| tasks.len() == ROWS).map(|task| task.id)))
                },
            }
        }
    };
    Page::new("Tasks", "tasks", content)
}

fn task_row(asked: &Asked, task: &Task) -> Markup {
    let wrong = task.results.iter().filter(|result| !result.ok);
    html! {
        tr id={ "t-" (task.id) } {
            td.soft { (task.id) }
            td { b { (task.act) } }
            td.wide {
                @if task.servers.is_empty() { span.soft { "all" } }
                @for id in &task.servers { a href={ (asked.base) "/servers/" (id) } { (id) } " " }
                @for result in wrong {
                    p.why.blocked { (result.server) " " (result.state) @if let Some(why) = &result.why { ": " (why) } }
                }
                @if task.state == TaskState::Interrupted { p.why { "The daemon ended before it did; the wish itself was kept." } }
            }
            td { (parts::pill(task.state.as_str())) }
            td data-l="by" { (task.by) span.faint { " · " (task.via) } }
            td data-l="asked" { (parts::time(task.asked.0)) }
            td.num data-l="took" { @match task.ended { Some(ended) => (parts::millis(ended.since(task.asked).0)), None => "–" } }
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
        calls: query.get("calls").is_some_and(|value| value == "true"),
        limit: ROWS,
    };
    let found = asked.context.recorder.records.audit(&filter).await;
    let chosen = filter.result.clone().unwrap_or_default();
    let kept = [("server", &filter.server), ("by", &filter.by), ("result", &filter.result)];
    let yes = filter.calls.then(|| "true".to_owned());
    let kept: Vec<(&str, &String)> = kept
        .into_iter()
        .chain([("calls", &yes)])
        .filter_map(|(key, value)| Some((key, value.as_ref()?)))
        .collect();
    let kept = serde_urlencoded::to_string(&kept).unwrap_or_default();
    let content = html! {
        section.head { div { h1 { "Audit" } p.soft { "Who did what, and what became of it." } } }
        section.card {
            header { form.filter role="search" {
                input name="server" value=[filter.server.as_ref()] placeholder="Server" aria-label="Server";
                input name="by" value=[filter.by.as_ref()] placeholder="Who" aria-label="Who";
                select name="result" aria-label="Result" {
                    option value="" { "Any result" }
                    @for result in ["ok", "failed", "refused", "abandoned"] { option value=(result) selected[chosen == result] { (result) } }
                }
                select name="calls" aria-label="Kind" {
                    option value="" { "What was done" }
                    option value="true" selected[filter.calls] { "Calls of clients" }
                }
                button { "Show" }
            } }
            @match &found {
                Err(error) => p.pad.banner.bad { (error) },
                Ok(entries) if entries.is_empty() => div.empty { "Nothing is there." },
                Ok(entries) => {
                    div.scroll { table.cards {
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

fn audit_row(asked: &Asked, entry: &AuditEntry) -> Markup {
    html! {
        tr id={ "a-" (entry.id) } {
            td.nowrap { (parts::time(entry.at.0)) }
            td.wide {
                (entry.what)
                @if let Some(task) = entry.task { " " a.tag href={ (asked.base) "/tasks#t-" (task) } { "task " (task) } }
                @if let Some(why) = &entry.why { p.why { (why) } }
                @if let Some(detail) = &entry.detail { p.why.blocked { (detail) } }
            }
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
            td.wide {
                (entry.what)
                @if let Some(why) = &entry.why { p.why { (why) } }
                @if let Some(detail) = &entry.detail { p.why.blocked { (detail) } }
            }
            td { (parts::pill(&entry.result)) @if let Some(code) = &entry.code { " " span.tag { (code) } } }
            td.soft.small { (entry.by) @if let Some(millis) = entry.millis { ", " (parts::millis(millis)) } }
        }
    }
}

fn older(asked: &Asked, path: &str, kept: &str, last: Option<i64>) -> Markup {
    html! {
        @if let Some(last) = last {
            div.pad { a.button href={ (asked.base) (path) "?before=" (last) @if !kept.is_empty() { "&" (kept) } } { "Older" } }
        }
    }
}
