//! The tool proxy's pages: every tool with its schema and a form to call it.

use crate::gateway::toolproxy::{Page, ServerPage, ToolPage};
use crate::panel::pages::{Frame, framed};
use maud::{Markup, html};

/// Characters of a description that the list of tools shows.
const SHORT_CHARS: usize = 100;

/// The page of one server, or of all.
pub(in crate::panel) fn page(page: &Page) -> String {
    let title =
        if page.index { "Tools" } else { page.servers.first().map_or("Tools", |server| server.id.as_str()) };
    let content = match page.servers.as_slice() {
        [server] if !page.index => one(&page.base, server),
        servers => all(&page.base, servers),
    };
    let frame = Frame { base: "/docs", tab: "docs", title, stack: "", edits: false };
    let end = html! { button #theme .icon.js-only type="button" aria-label="Light or dark" { (super::parts::icon("moon")) } };
    framed(&frame, &end, &content)
}

fn all(base: &str, servers: &[ServerPage]) -> Markup {
    html! {
        section.head { div {
            h1 { "Tools" }
            p.soft { "Every tool of every MCP server as " code { "POST " (base) "/{id}/{tool}" } ", with its arguments as a JSON object." }
            p { a href={ (base) "/openapi.json" } { "OpenAPI 3.1 document of all servers" } }
        } }
        section.card {
            header { h2 { "Servers" } }
            @if servers.is_empty() { div.empty { p { "No server is configured." } } }
            @for server in servers {
                div.in {
                    p {
                        a href={ (base) "/" (server.path) "/docs" } { (server.id) }
                        @if server.name != server.id && !server.name.is_empty() { span.soft { " " (server.name) } }
                        span.small.soft {
                            @match &server.why {
                                Some(why) => { " · " (why) },
                                None => { " · " (count(server.tools.len())) },
                            }
                        }
                    }
                }
            }
        }
    }
}

fn count(tools: usize) -> String {
    if tools == 1 { "1 tool".to_owned() } else { format!("{tools} tools") }
}

fn one(base: &str, server: &ServerPage) -> Markup {
    html! {
        section.head { div {
            h1 { (server.id) }
            @if !server.title.is_empty() { p.soft { (server.title) @if !server.spec.is_empty() { ", declaration " code { (server.spec) } } } }
            @if !server.about.is_empty() { p { (server.about) } }
            p {
                a href={ (base) "/" (server.path) "/openapi.json" } { "OpenAPI 3.1 document" }
                " · " a href={ (base) "/" (server.path) "/resources" } { "resources" }
                " · " a href={ (base) "/" (server.path) "/prompts" } { "prompts" }
                " · " a href={ (base) "/docs" } { "all servers" }
            }
        } }
        @if let Some(why) = &server.why { p.banner.bad { (super::parts::icon("alert")) span { (why) } } }
        @else {
            section.card {
                header { h2 { (count(server.tools.len())) } }
                @for (n, tool) in server.tools.iter().enumerate() { (operation(n, tool)) }
            }
        }
    }
}

fn operation(n: usize, tool: &ToolPage) -> Markup {
    let short: String =
        tool.description.lines().next().unwrap_or_default().chars().take(SHORT_CHARS).collect();
    html! {
        details #{ "tool-" (n) } {
            summary { span.verb.post { "POST" } code { (tool.path) } span.t.small { (short) } }
            form.in data-try=(tool.path) data-method="POST" {
                @if !tool.description.is_empty() { p { (tool.description) } }
                @if !tool.example.is_empty() {
                    div.field { label for={ "body-" (n) } { "arguments" } textarea #{ "body-" (n) } name="body" rows="6" { (tool.example) } }
                }
                div.acts.js-only { button.danger { "Call, for real" } }
                pre hidden aria-live="polite" {}
                details { summary { span.small { "Schema of its arguments" } } pre { (tool.schema) } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::page;
    use crate::gateway::toolproxy::{Page, ServerPage, ToolPage};

    #[test]
    fn what_servers_say_is_text_and_never_markup() {
        let bad = "<script>alert(1)</script>";
        let tool = ToolPage {
            path: "/openapi/time/x".to_owned(),
            description: bad.to_owned(),
            schema: bad.to_owned(),
            example: format!("</textarea>{bad}"),
        };
        let server = ServerPage {
            id: "time".to_owned(),
            path: "time".to_owned(),
            name: bad.to_owned(),
            title: bad.to_owned(),
            about: bad.to_owned(),
            tools: vec![tool],
            ..ServerPage::default()
        };
        for index in [false, true] {
            let text = page(&Page { base: "/openapi".to_owned(), servers: vec![server.clone()], index });
            assert!(!text.contains(bad) && text.contains("/openapi/time/"), "{text}");
            assert!(!text.contains(" style=") && !text.contains(" onclick="), "the policy forbids them");
        }
    }
}
