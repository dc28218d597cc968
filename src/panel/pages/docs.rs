//! The API's document for people: every route of the table, with a form to try it.

use crate::api::table::{ROUTES, Route};
use crate::panel::pages::{Frame, framed};
use maud::{Markup, html};

/// Parts of the document in order.
const TAGS: &[(&str, &str)] = &[
    ("servers", "Servers"),
    ("panel", "The whole"),
    ("sections", "Sections"),
    ("tasks", "Tasks and audit"),
    ("short", "The short manager API"),
    ("probes", "Probes"),
];

/// The page; without the dashboard only what is still served.
pub(in crate::panel) fn page(base: &str, dashboard: bool) -> String {
    let served = |route: &&Route| dashboard || !route.needs_dashboard();
    let content = html! {
        section.head { div {
            h1 { "API" }
            p.soft { "Basic authentication with the dashboard's user, or its password as a Bearer token. What takes a while answers 202 with a task, or waits with " code { "?wait=30s" } ". Errors are " code { "application/problem+json" } " with a code and a hint. Times are milliseconds since the epoch." }
            p { a href="/openapi.json" { "OpenAPI 3.1 document" } }
        } }
        @for (tag, word) in TAGS {
            @let routes: Vec<&Route> = ROUTES.iter().filter(|route| route.tag == *tag).filter(served).collect();
            @if !routes.is_empty() {
                section.card { header { h2 { (word) } } @for route in routes { (operation(route)) } }
            }
        }
    };
    let frame = Frame {
        base: if dashboard { base } else { "/docs" },
        tab: "docs",
        title: "API",
        stack: "",
        edits: false,
    };
    framed(
        &frame,
        &html! { button #theme .icon.js-only type="button" aria-label="Light or dark" { (super::parts::icon("moon")) } },
        &content,
    )
}

fn operation(route: &Route) -> Markup {
    let real = route.method != "GET";
    let parts = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    html! {
        details #(route.id) {
            summary {
                span class={ "verb " (route.method.to_lowercase()) } { (route.method) }
                code { (route.path) }
                span.t.small { (words(route.about)) }
            }
            form.in data-try=(route.path) data-method=(route.method) {
                @for part in parts { (field(&format!("path:{part}"), part, "in the path", true)) }
                @for param in route.query { (field(&format!("query:{}", param.name), param.name, param.about, false)) }
                @if route.versions && route.method != "GET" { (field("header:If-Match", "If-Match", "the version that the change is made for, as an `ETag`", false)) }
                @if route.body.is_some() {
                    div.field { label for={ (route.id) "-body" } { "body" } textarea #{ (route.id) "-body" } name="body" rows="4" { (example(route.id)) } }
                }
                p.small.soft { "Answers " (route.good.0) @for other in route.others { ", " (other) } "." }
                @if !route.path.ends_with("/events") { div.acts.js-only { button class=[real.then_some("danger")] { @if real { "Send, for real" } @else { "Send" } } } }
                pre hidden aria-live="polite" {}
            }
        }
    }
}

/// A body that the route takes, to begin with.
fn example(route: &str) -> &'static str {
    match route {
        "callTool" | "shortCall" => "{\n  \"tool\": \"\",\n  \"arguments\": {}\n}",
        "addServer" => {
            "{\n  \"name\": \"\",\n  \"entry\": { \"command\": \"docker\", \"args\": [\"run\", \"-i\", \"mcp/time\"] }\n}"
        }
        "putServer" => "{ \"command\": \"docker\", \"args\": [\"run\", \"-i\", \"mcp/time\"] }",
        "patchServer" => "{ \"disabled\": true }",
        "addSection" => "{\n  \"name\": \"\",\n  \"settings\": {}\n}",
        "putPanel" => "{ \"content\": \"\" }",
        "patchSettings" => "{ \"service.interval_seconds\": 30 }",
        "setLogLevel" => "{ \"level\": \"DEBUG\", \"forSeconds\": 600 }",
        "shortStart" => "{ \"image\": \"mcp/time\" }",
        _ => "{}",
    }
}

/// A text in which what stands between backquotes is code.
fn words(text: &str) -> Markup {
    html! {
        @for (n, part) in text.split('`').enumerate() {
            @if n % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

fn field(name: &str, word: &str, about: &str, required: bool) -> Markup {
    html! {
        div.field { label { (word) " " input name=(name) required[required] aria-description=(about); } span.small.soft { (words(about)) } }
    }
}
