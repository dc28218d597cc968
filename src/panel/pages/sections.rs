//! Sections: which servers are in each, how they stand, what they inherit and from where.

use crate::api::view::{Moment, SectionView, ServerView};
use crate::panel::pages::{Asked, Page, parts};
use maud::{Markup, html};

pub(super) fn page(asked: &Asked) -> Page {
    let moment = Moment::of(&asked.context);
    let sections = moment.sections(&asked.context);
    let servers = moment.servers();
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
            td { (states(section)) }
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
    html! {
        @if stopped > 0 { (parts::section_act("start", &section.id, "")) }
        @if section.servers.len() > stopped { (parts::section_act("restart", &section.id, "")) (parts::section_act("stop", &section.id, "danger")) }
    }
}

/// One section; `None` when there is none of this name.
pub(super) fn one(asked: &Asked, id: &str) -> Option<Page> {
    let moment = Moment::of(&asked.context);
    let section = moment.sections(&asked.context).into_iter().find(|section| section.id == id)?;
    let servers: Vec<ServerView> = moment.servers();
    let within: Vec<&ServerView> =
        servers.iter().filter(|server| server.section.as_deref() == Some(id)).collect();
    let content = html! {
        section #head .head data-live="" {
            div { p.crumb { a href={ (asked.base) "/sections" } { "Sections" } } h1 { (section.id) } p { (states(&section)) } }
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
                            td.first { a.name href={ (asked.base) "/servers/" (server.id) } { (server.name) } }
                            td { (parts::pill(&server.state)) }
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
