//! Sections: which servers are in each, how they stand, what they inherit and from where.

use crate::api::sections::SectionView;
use crate::api::view::{Moment, ServerView};
use crate::panel::pages::{Asked, Page, parts};
use maud::{Markup, html};

pub(super) fn page(asked: &Asked) -> Page {
    let shown = asked.context.kept.shown(&asked.context);
    let (sections, servers) = (shown.moment.sections(&shown.servers), &shown.servers);
    let alone = servers.iter().filter(|server| server.section.is_none()).count();
    let defaults = Moment::defaults(&asked.context);
    let content = html! {
        section.head {
            div { h1 { "Sections" } p.soft { "What a section says holds for its servers, what the global defaults say for all; the nearest level decides." } }
            div.acts { a.button.js-only href={ (asked.base) "/add/section" } { (parts::icon("plus")) "Add section" } }
        }
        section #sections .card data-live="" {
            @if sections.is_empty() { div.empty { "No section is declared. Servers inherit the global defaults only." } } @else {
                div.scroll { table.cards {
                    (parts::caption("Sections"))
                    thead { tr { th { "Section" } th.num { "Servers" } th { "States" } th { "Says itself" } th { span.vh { "Actions" } } } }
                    tbody { @for section in &sections { (row(asked, section)) } }
                } }
            }
            @if alone > 0 { div.pad.small.soft { (alone) @if alone == 1 { " server is" } @else { " servers are" } " in no section." } }
        }
        section #defaults .card data-live="" {
            header { h2 { "Global defaults" } span.soft.small { "what every server inherits" } a.button.js-only href={ (asked.base) "/defaults" } { (parts::icon("edit")) "Edit" } }
            (parts::settings("Global defaults", &defaults))
        }
    };
    Page::new("Sections", "sections", content)
}

/// How many values a section says itself.
fn own(section: &SectionView) -> usize {
    section.inherits.iter().filter(|setting| setting.origin.starts_with("section ")).count()
}

fn row(asked: &Asked, section: &SectionView) -> Markup {
    let count = own(section);
    html! {
        tr {
            td.first { a.name href={ (asked.base) "/sections/" (section.id) } { (section.id) } }
            td.num data-l="servers" { (section.servers.len()) }
            td { (states(section)) @if section.paused.is_some() { (parts::pill_as("held", "paused")) } }
            td data-l="says" { @if count == 0 { span.faint { "nothing" } } @else { (count) @if count == 1 { " value" } @else { " values" } } }
            td.wide { div.rowacts.words { (acts(section)) } }
        }
    }
}

fn states(section: &SectionView) -> Markup {
    html! {
        @for (state, count) in &section.states { span.nowrap { (parts::pill_as(state, &format!("{count} {state}"))) " " } }
        @if section.states.is_empty() { span.faint { "no servers" } }
    }
}

fn acts(section: &SectionView) -> Markup {
    let stopped = section.states.get("stopped").copied().unwrap_or(0);
    let words = if section.servers.is_empty() {
        None
    } else {
        Some(if section.paused.is_some() { "resume" } else { "pause" })
    };
    html! {
        @if let Some(word) = words { (parts::section_act(word, &section.id, "")) }
        @if stopped > 0 { (parts::section_act("start", &section.id, "")) }
        @if section.servers.len() > stopped { (parts::section_act("restart", &section.id, "")) (parts::section_act("stop", &section.id, "danger")) }
    }
}

/// One section; `None` when there is none of this name.
pub(super) fn one(asked: &Asked, id: &str) -> Option<Page> {
    let shown = asked.context.kept.shown(&asked.context);
    let sections = shown.moment.sections(&shown.servers);
    let section = sections.into_iter().find(|section| section.id == id)?;
    let within: Vec<&ServerView> =
        shown.servers.iter().filter(|server| server.section.as_deref() == Some(id)).collect();
    let content = html! {
        section #head .head data-live="" {
            div { p.crumb { a href={ (asked.base) "/sections" } { "Sections" } } h1 { (section.id) } p { (states(&section)) }
                @if let Some(pause) = &section.paused { p.soft { "Paused by " (pause.by) " " (parts::time(pause.at)) @if let Some(until) = pause.until { ", ends " (parts::until(until)) } "." } }
            }
            div.acts { (acts(&section)) a.button.js-only href={ (asked.base) "/sections/" (section.id) "/edit" } { (parts::icon("edit")) "Edit" } }
        }
        section #within .card data-live="" {
            header { h2 { "Servers" } a.button.js-only href={ (asked.base) "/add/server?section=" (section.id) } { (parts::icon("plus")) "Add" } }
            @if within.is_empty() { div.empty { "No server is in it." } } @else {
                div.scroll { table.cards {
                    (parts::caption("Servers"))
                    thead { tr { th { "Server" } th { "State" } th { "Health" } th { span.vh { "Actions" } } } }
                    tbody { @for server in &within {
                        @let (tone, health) = parts::health(server);
                        tr id={ "s-" (server.id) } {
                            td.first {
                                a.name href={ (asked.base) "/servers/" (server.id) } { (server.name) }
                                @if server.paused { " " span.tag.held { "paused" } }
                                @for reason in server.reasons.iter().filter(|reason| reason.kind == "blocked-by").take(1) { p.why.blocked { (reason.text) } }
                            }
                            // One of a section that no entry declares is of a broken one.
                            td { @if server.declared { (parts::pill(&server.state)) } @else { (parts::pill("broken")) } }
                            td { @if tone.is_empty() { span.soft { (health) } } @else { (parts::pill_as(tone, health)) } }
                            td.wide { div.rowacts data-acts=(parts::acts_of(server)) {} }
                        }
                    } }
                } }
            }
        }
        section #settings .card data-live="" {
            header { h2 { "What its servers inherit" } span.soft.small { "a server's own entry wins over it" } }
            (parts::settings("What its servers inherit", &section.inherits))
        }
    };
    Some(Page::new(format!("Section {}", section.id), "sections", content))
}
