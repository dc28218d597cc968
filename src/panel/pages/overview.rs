//! The first page: how the whole stands, and a row for every server.

use crate::api::view::{Moment, PanelHealth, ReasonView, STATES, ServerView};
use crate::panel::pages::{Asked, Page, parts};
use maud::{Markup, html};

/// Characters of a row's tooltip: the server's page has the rest.
const WHY_CHARS_MAX: usize = 120;
/// Characters of an image that fit into its column.
const IMAGE_CHARS: usize = 22;

pub(super) fn page(asked: &Asked) -> Page {
    let moment = Moment::of(&asked.context);
    let health = moment.health(&asked.context);
    let servers = moment.servers();
    let query = asked.query();
    let text = |key: &str| query.get(key).map(|value| value.trim().to_lowercase()).unwrap_or_default();
    let (state, section, word) = (text("state"), text("section"), text("q"));
    let fits = |server: &&ServerView| {
        let named = |text: &str| text.to_lowercase().contains(&word);
        let section_fits = server.section.as_ref().is_some_and(|own| own.to_lowercase() == section);
        (state.is_empty() || server.state == state)
            && (section.is_empty() || section_fits)
            && (named(&server.id) || named(&server.name) || server.image.as_deref().is_some_and(named))
    };
    let shown: Vec<&ServerView> = servers.iter().filter(fits).collect();
    let sections: Vec<String> = moment.sections().into_iter().map(|section| section.id).collect();
    let content = html! {
        section #summary .card aria-label="Summary" data-live="" { (summary(asked, &health, &servers, &state)) }
        @if !health.general.is_empty() {
            section #general .card data-live="" { header { h2 { "Concerns everything" } } (parts::reasons(&health.general)) }
        }
        section.card {
            header {
                h2 { "Servers" }
                form.filter role="search" {
                    @if !sections.is_empty() {
                        select name="section" aria-label="Section" {
                            option value="" { "All sections" }
                            @for id in &sections { option value=(id) selected[*id == section] { (id) } }
                        }
                    }
                    @if !state.is_empty() { input type="hidden" name="state" value=(state); }
                    input type="search" name="q" value=(word) placeholder="Find by name or image" aria-label="Find by name or image";
                    button { "Find" }
                }
                div.acts { (all_acts(&servers)) }
            }
            (table(asked, &shown, servers.is_empty()))
        }
    };
    Page { title: health.sentence, tab: "overview", content }
}

fn summary(asked: &Asked, health: &PanelHealth, servers: &[ServerView], chosen: &str) -> Markup {
    let requests: u64 = servers.iter().filter_map(|s| s.connection.as_ref()).map(|c| c.requests).sum();
    let well = health.states.get("converged").copied().unwrap_or(0);
    html! {
        div.pad {
            div.head {
                div {
                    h1 { (headline(health)) }
                    p.soft {
                        "pass " (health.pass) ", next "
                        (parts::until(health.next_pass))
                        @if !health.settled { " · working" }
                        @if well == health.servers && health.servers > 0 { " · nothing to do" }
                    }
                }
            }
        }
        (bar(health))
        div.tiles {
            @for state in STATES {
                @let word = state.as_str();
                @let current = chosen == word;
                a.tile href={ (asked.base) @if !current { "?state=" (word) } } aria-current=[current.then_some("true")] {
                    span { i class={ "dot " (word) } {} (word) }
                    b { (health.states.get(word).copied().unwrap_or(0)) }
                }
            }
            div.tile { span { "requests" } b { (requests) } }
            div.tile.big { span { "engine" } b.words { @if health.engine { "Docker answers" } @else { "Docker does not answer" } } }
            a.tile.big href={ (asked.base) "/balancer" } { span { "load balancer" } b.words { (health.balancer) } }
        }
    }
}

fn headline(health: &PanelHealth) -> String {
    let count = |state: &str| health.states.get(state).copied().unwrap_or(0);
    let (blocked, waiting) = (count("blocked"), count("waiting"));
    let verb = |n: usize, one: &'static str, many: &'static str| if n == 1 { one } else { many };
    match (health.pass, health.servers) {
        (0, _) => "Looking at the world for the first time".to_owned(),
        (_, 0) => "No servers yet".to_owned(),
        (_, 1) if count("converged") == 1 => "The server is as it should be".to_owned(),
        (_, all) if count("converged") + count("stopped") == all => {
            format!("All {all} servers are as they should be")
        }
        (_, all) if blocked > 0 => {
            format!("{blocked} of {all} servers {} a hand", verb(blocked, "needs", "need"))
        }
        (_, all) if waiting > 0 => {
            format!("{waiting} of {all} servers {} for something", verb(waiting, "waits", "wait"))
        }
        (_, all) => {
            let changing = count("changing");
            format!("{changing} of {all} servers {} changing", verb(changing, "is", "are"))
        }
    }
}

/// Shares of the states; a picture of the figures under it.
fn bar(health: &PanelHealth) -> Markup {
    let all = health.servers.max(1);
    let mut from = 0;
    let mut pieces = Vec::new();
    for state in STATES.into_iter().rev() {
        let count = health.states.get(state.as_str()).copied().unwrap_or(0);
        if count > 0 {
            pieces.push((from, count, state.as_str()));
            from += count;
        }
    }
    html! {
        div.pad.bar-pad aria-hidden="true" {
            svg.bar viewBox={ "0 0 " (all) " 1" } preserveAspectRatio="none" {
                @for (from, count, state) in pieces {
                    rect class={ "f-" (state) } x=(from) y="0" width=(count) height="1" {}
                }
            }
        }
    }
}

fn all_acts(servers: &[ServerView]) -> Markup {
    let stopped = servers.iter().filter(|server| server.state == "stopped").count();
    html! {
        @if stopped > 0 { (parts::act("start", "all", "")) }
        @if stopped < servers.len() { (parts::act("restart", "all", "")) (parts::act("stop", "all", "danger")) }
    }
}

fn table(asked: &Asked, servers: &[&ServerView], none: bool) -> Markup {
    html! {
        div.scroll {
            table.cards {
                thead { tr {
                    th { "Server" } th { "State" } th { "Transport" } th.opt { "Image" } th { "Container" } th { "Health" }
                    th.num { "Port" } th.num { "Restarts" } th.num { "Requests" } th { span.vh { "Actions" } }
                } }
                tbody #servers data-live="" data-rows="" {
                    @for server in servers { (row(asked, server)) }
                }
            }
        }
        @if servers.is_empty() {
            div.empty {
                @if none { "No server is configured. Add one to " code { (asked.context.about.config) } "." }
                @else { "No server fits. " a href=(asked.base) { "Show all" } }
            }
        }
    }
}

fn row(asked: &Asked, server: &ServerView) -> Markup {
    let worst =
        server.reasons.iter().find(|reason| matches!(reason.kind.as_str(), "blocked-by" | "waiting-on"));
    let (tone, health) = parts::health(server);
    let why = server.connection.as_ref().and_then(|connection| connection.why.as_deref());
    // What a reason says already is not said again.
    let why = why.filter(|_| worst.is_none()).map(|why| why.chars().take(WHY_CHARS_MAX).collect::<String>());
    let none = |nothing: bool| nothing.then_some("none");
    let idle = server.connection.as_ref().is_none_or(|connection| connection.requests == 0);
    html! {
        tr id={ "s-" (server.id) } {
            td.first {
                a.name href={ (asked.base) "/servers/" (server.id) } { (server.name) }
                @if let Some(section) = &server.section { " " a.tag href={ (asked.base) "?section=" (section) } { (section) } }
                @if let Some(reason) = worst { (reason_line(server, reason)) }
                @if let Some(intent) = &server.intent { p.why { @if intent.run { "started" } @else { "stopped" } " by " (intent.by) } }
            }
            td { (parts::pill(&server.state)) }
            td.nowrap { (server.transport.as_deref().unwrap_or(&server.kind)) @if let Some(route) = &server.route { span.faint { " · " (route) } } }
            td class={ "opt wide " (none(server.image.is_none()).unwrap_or_default()) } { span.mono.clip.img title=[server.image.as_deref().filter(|image| image.len() > IMAGE_CHARS)] { (server.image.as_deref().unwrap_or("–")) } }
            td class={ "nowrap " (none(server.container_state.is_none()).unwrap_or_default()) } data-l="container" { (server.container_state.as_deref().unwrap_or("–")) }
            td.nowrap title=[&why] { @if tone.is_empty() { span.soft { (health) } } @else { (parts::pill_as(tone, health)) } }
            td class={ "num " (none(server.port.is_none()).unwrap_or_default()) } data-l="port" { @match server.port { Some(port) => (port), None => "–" } }
            td class={ "num " (none(server.restarts == 0).unwrap_or_default()) } data-l="restarts" { (server.restarts) }
            td class={ "num " (none(idle).unwrap_or_default()) } data-l="requests" { (requests(server)) }
            td.wide { div.rowacts { (parts::server_acts(server, false)) } }
        }
    }
}

fn reason_line(server: &ServerView, reason: &ReasonView) -> Markup {
    html! {
        p class={ "why " (server.state) } {
            (reason.text)
            @if let Some(at) = reason.until { " · " (parts::until(at)) }
        }
    }
}

fn requests(server: &ServerView) -> Markup {
    let Some(connection) = &server.connection else { return html! { "–" } };
    html! {
        (connection.requests)
        @if connection.errors > 0 { span.soft { " (" (connection.errors) " failed)" } }
        @if let Some(p95) = connection.p95_millis { div.small.soft { "p95 ≤ " (format!("{p95} ms")) } }
    }
}
