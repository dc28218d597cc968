//! The page of one server: how it stands and why, what it says, what it offers, its settings.

use crate::api::view::{Moment, ServerDetail, ServerView};
use crate::model::id::ServerId;
use crate::panel::pages::{Asked, Page, parts};
use maud::{Markup, html};

/// Lines of its log that the page has from the start.
const LOG_LINES: usize = 200;

pub(super) fn page(asked: &Asked, id: &str) -> Option<Page> {
    let id = ServerId::new(id).ok()?;
    let moment = Moment::of(&asked.context);
    let detail = moment.detail(&id, &asked.context)?;
    let server = &detail.server;
    let content = html! {
        section #head .head data-live="" {
            div {
                p.crumb { a href=(asked.base) { "Servers" } @if let Some(section) = &server.section { " / " a href={ (asked.base) "?section=" (section) } { (section) } } }
                h1 { (server.name) " " (parts::pill(&server.state)) @if server.busy { " " span.soft.small { "working" } } }
            }
            div.acts { (parts::server_acts(server, true)) }
        }
        section #facts .card data-live="" { (facts(server)) }
        div.cols {
            section #why .card data-live="" {
                header { h2 { "Why" } }
                @if server.reasons.is_empty() { p.pad.soft { "It is as the file wants it." } } @else { (parts::reasons(&server.reasons)) }
            }
            section #did .card data-live="" {
                header { h2 { "Last pass" } span.soft.small { "pass " (moment.snapshot.pass) ", " (parts::time(moment.snapshot.began.0)) } }
                @if detail.actions.is_empty() { p.pad.soft { "Nothing was to be changed." } } @else { (parts::actions(&detail.actions)) }
            }
        }
        section.card {
            header { h2 { "Log" } span.soft.small { "what it prints beside its messages" } }
            (log(asked, &id, server))
        }
        section.card.js-only {
            header { h2 { "Tools" } span.soft.small { "asked from the server now; a call may have effects" } }
            div #tools data-api={ "/api/v1/servers/" (id) } {}
        }
        noscript { p.banner { "Tools and actions need a script; " a href={ "/api/v1/servers/" (id) "/capabilities" } { "what it offers" } " can be read as JSON." } }
        (settings(&detail))
    };
    Some(Page { title: format!("{}: {}", server.name, server.state), tab: "overview", content })
}

fn facts(server: &ServerView) -> Markup {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "–".to_owned());
    let short = |id: &Option<String>| {
        id.as_deref().map_or("–", |id| id.trim_start_matches("sha256:").get(..12).unwrap_or(id)).to_owned()
    };
    let (_, health) = parts::health(server);
    let none = "–".to_owned();
    html! {
        dl.facts {
            (fact("Kind", &html! { (server.kind) @if let Some(transport) = &server.transport { ", " (transport) } }))
            (fact("Route", &html! { (text(&server.route)) @if let Some(port) = server.port { " on port " (port) } }))
            (fact("Endpoint", &html! { code { "/mcp/" (server.id) } }))
            (fact("Image", &html! { span.mono { (text(&server.image)) } }))
            (fact("Image id", &html! { span.mono title=[server.image_id.as_deref()] { (short(&server.image_id)) } }))
            (fact("Container", &html! { span.mono { (text(&server.container)) } }))
            (fact("Container state", &html! { (text(&server.container_state)) @if server.container_id.is_some() { span.mono.soft { " " (short(&server.container_id)) } } }))
            (fact("Restarts in a row", &html! { (server.restarts) @if let Some(next) = server.next_try { ", next try " (parts::until(next)) } }))
            @if let Some(connection) = &server.connection {
                (fact("Connection", &html! { (health) @if let Some(version) = &connection.version { ", MCP " (version) } @if let Some(why) = &connection.why { ": " (why) } }))
                (fact("Sessions", &html! { (connection.sessions) ", " (connection.in_flight) " requests under way" }))
                (fact("Requests", &html! { (connection.requests) ", " (connection.errors) " failed" }))
                (fact("95 of 100 within", &html! { (connection.p95_millis.map_or(none, |p95| format!("{p95} ms"))) }))
            }
            @if let Some(intent) = &server.intent {
                (fact("By hand", &html! {
                    @if intent.run { "started" } @else { "stopped" } " by " (intent.by) ", " (parts::time(intent.at))
                    @if let Some(until) = intent.until { ", holds until " (parts::until(until)) }
                }))
            }
        }
    }
}

fn fact(name: &str, value: &Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

fn log(asked: &Asked, id: &ServerId, server: &ServerView) -> Markup {
    let entry = asked.context.gateway.entry(id);
    let lines = entry.map(|entry| entry.logs.after(0, LOG_LINES)).unwrap_or_default();
    let newest = lines.last().map_or(0, |line| line.number);
    let remote = matches!(server.transport.as_deref(), Some("http" | "sse"));
    let nothing = if remote {
        "Nothing was printed yet, or the engine keeps it: docker logs shows it."
    } else {
        "It has printed nothing yet."
    };
    html! {
        pre.log tabindex="0" aria-label="Log" data-logs={ "/api/v1/servers/" (id) "/logs" } data-after=(newest) data-empty=[lines.is_empty().then_some("")] {
            @if lines.is_empty() { (nothing) }
            @for line in &lines { (line.text) "\n" }
        }
    }
}

fn settings(detail: &ServerDetail) -> Markup {
    html! {
        section #settings .card data-live="" {
            header { h2 { "Settings in force" } span.soft.small { "and where each comes from" } }
            @if detail.settings.is_empty() {
                p.pad.soft { "Its entry cannot be used; what runs stays as it is." }
            } @else {
                div.scroll { table.cards {
                    thead { tr { th { "Setting" } th { "Value" } th { "From" } th { "Written at" } } }
                    tbody { @for setting in &detail.settings { tr {
                        td { code { (setting.key) } }
                        td.wide { code { (setting.value) } }
                        td data-l="from" { @if matches!(setting.origin.as_str(), "built in" | "settings") { span.faint { (setting.origin) } } @else { (setting.origin) } }
                        td.soft.small { (setting.place.as_deref().unwrap_or("")) }
                    } } }
                } }
            }
        }
    }
}
