//! The dashboard's pages: HTML from the API's own views, readable without a script.
//!
//! What may change by itself stands in elements with `data-live` and an id; the script fetches the
//! page again when something looks different, and puts the new ones in their place.
//!
//! Must never show what the API does not, and never put text into a page unescaped.

mod balancer;
mod chart;
pub(super) mod docs;
mod edit;
mod history;
mod overview;
mod parts;
mod plan;
mod sections;
mod server;
mod settings;
pub(super) mod tools;

use crate::api::Context;
use hyper::StatusCode;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use std::collections::BTreeMap;

use crate::panel::assets::{EDITOR, ICON, SCRIPT, STYLE};

/// What somebody asked for.
pub(super) struct Asked {
    pub(super) context: Context,
    /// Where the dashboard is.
    pub(super) base: String,
    /// The path below it.
    pub(super) rest: String,
    /// The query as it came.
    pub(super) query: String,
    /// Who asks.
    pub(super) who: String,
}

impl Asked {
    fn query(&self) -> BTreeMap<String, String> {
        serde_urlencoded::from_str(&self.query).unwrap_or_default()
    }
}

/// A page.
struct Page {
    title: String,
    /// Which tab it belongs to.
    tab: &'static str,
    content: Markup,
    /// Whether something is written on it: it has the editor's script.
    edits: bool,
}

impl Page {
    fn new(title: impl Into<String>, tab: &'static str, content: Markup) -> Self {
        Self { title: title.into(), tab, content, edits: false }
    }

    fn editor(title: impl Into<String>, tab: &'static str, content: Markup) -> Self {
        Self { edits: true, ..Self::new(title, tab, content) }
    }
}

/// Answers with a page.
pub(super) async fn answer(asked: Asked) -> (StatusCode, String) {
    let parts: Vec<&str> = asked.rest.trim_matches('/').split('/').collect();
    let found = match parts.as_slice() {
        [""] => Some(overview::page(&asked)),
        ["servers", id] => server::page(&asked, id).await,
        ["servers", id, "edit"] => edit::server(&asked, id),
        ["add", "server"] => Some(edit::new_server(&asked)),
        ["add", "section"] => Some(edit::new_section(&asked)),
        ["sections"] => Some(sections::page(&asked)),
        ["sections", id] => sections::one(&asked, id),
        ["sections", id, "edit"] => edit::section(&asked, id),
        ["defaults"] => Some(edit::defaults(&asked)),
        ["file"] => Some(edit::file(&asked)),
        ["settings"] => Some(settings::page(&asked).await),
        ["balancer"] => Some(balancer::page(&asked)),
        ["plan"] => Some(plan::page(&asked).await),
        ["tasks"] => Some(history::tasks(&asked).await),
        ["tasks", id] => history::task(&asked, id).await,
        ["audit"] => Some(history::audit(&asked).await),
        _ => None,
    };
    match found {
        Some(page) => (StatusCode::OK, whole(&asked, page)),
        None => {
            let content = html! {
                div.card { div.empty {
                    h1 { "Nothing is here" }
                    p { a href=(asked.base) { "Back to the overview" } }
                } }
            };
            let page = Page::new("Not found", "", content);
            (StatusCode::NOT_FOUND, whole(&asked, page))
        }
    }
}

fn whole(asked: &Asked, page: Page) -> String {
    let health = asked.context.kept.shown(&asked.context).moment.health(&asked.context);
    let end = html! {
        span #live .live.js-only title="Changes show by themselves" { "connecting" }
        button #theme .icon.js-only type="button" aria-label="Light or dark" { (parts::icon("moon")) }
        span.who.small { (asked.who) }
    };
    let notes = html! {
        @if health.default_password {
            p.banner.wait { (parts::icon("alert")) span {
                "The password is the shipped one, so that this page is served on loopback only. Make one with "
                code { "mcp-orchestrator hash-password" } " and set " code { "[dashboard] password_hash" } "."
            } }
        }
        @if let Some(stale) = &health.stale {
            p.banner.bad { (parts::icon("alert")) span { "The configuration cannot be used, the last good one is in force: " (stale) } }
        }
        @for fault in &health.faults {
            p.banner.bad { (parts::icon("alert")) span { (fault) } }
        }
    };
    let content = html! {
        div #notes data-live="" hidden[notes.0.is_empty()] { (notes) }
        (page.content)
    };
    let frame = Frame {
        base: &asked.base,
        tab: page.tab,
        title: &page.title,
        stack: &health.stack,
        edits: page.edits,
    };
    framed(&frame, &end, &content)
}

/// What stands around every page.
struct Frame<'a> {
    base: &'a str,
    tab: &'static str,
    title: &'a str,
    stack: &'a str,
    /// Whether something is written on it.
    edits: bool,
}

/// Tabs: their name, their path below the dashboard's, their word.
const TABS: &[(&str, &str, &str)] = &[
    ("overview", "", "Overview"),
    ("sections", "/sections", "Sections"),
    ("balancer", "/balancer", "Load balancer"),
    ("plan", "/plan", "Plan"),
    ("tasks", "/tasks", "Tasks"),
    ("audit", "/audit", "Audit"),
    ("file", "/file", "Configuration"),
    ("settings", "/settings", "Settings"),
];

fn framed(frame: &Frame<'_>, end: &Markup, content: &Markup) -> String {
    let now = crate::api::now().0;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (frame.title) " · MCP Orchestrator" }
                link rel="icon" href={ "/assets/" (ICON.name) };
                link rel="stylesheet" href={ "/assets/" (STYLE.name) } integrity=(STYLE.integrity);
                script src={ "/assets/" (SCRIPT.name) } integrity=(SCRIPT.integrity) {}
                @if frame.edits { script src={ "/assets/" (EDITOR.name) } integrity=(EDITOR.integrity) defer {} }
            }
            body data-now=(now) data-base=(frame.base) {
                (PreEscaped(parts::ICONS))
                a.skip href="#main" { "Skip to the content" }
                header.top { div {
                    a.brand href=(frame.base) {
                        (PreEscaped(LOGO))
                        "MCP Orchestrator"
                        @if !frame.stack.is_empty() { span.tag title="Stack" { (frame.stack) } }
                    }
                    nav aria-label="Main" {
                        @for (tab, path, word) in TABS.iter().filter(|_| frame.base != "/docs") {
                            a href={ (frame.base) (path) } aria-current=[(frame.tab == *tab).then_some("page")] { (word) }
                        }
                        a href="/docs" aria-current=[(frame.tab == "docs").then_some("page")] { "API" }
                    }
                    div.end { (end) }
                } }
                main id="main" { (content) }
                footer {
                    span { "MCP Orchestrator " (env!("CARGO_PKG_VERSION")) }
                    a href="/openapi.json" { "OpenAPI" }
                }
                div #news .vh role="status" aria-live="polite" {}
                div #toasts role="status" aria-live="polite" {}
            }
        }
    };
    page.into_string()
}

const LOGO: &str = r#"<svg viewBox="0 0 24 24" aria-hidden="true"><path class="b" d="M12 12 6.2 6.8M12 12l5.8-5.2M12 12v6.5"/><circle class="a" cx="12" cy="12" r="3.4"/><circle class="a" cx="5.6" cy="6.2" r="2.2"/><circle class="a" cx="18.4" cy="6.2" r="2.2"/><circle class="a" cx="12" cy="19.6" r="2.2"/></svg>"#;
