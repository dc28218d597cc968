//! Every setting of settings.conf: its value, what it means, where it comes from, and a field to change
//! it with.
//!
//! The fields stand in the page, readable without a script; the editor's script lets those be changed
//! that may be, and asks the API what would change before anything is saved. Must never hold a secret.

use crate::api::settings::{SettingRow, SettingsDocument, SettingsSection};
use crate::panel::pages::{Asked, Page, parts};
use maud::{Markup, html};

pub(super) async fn page(asked: &Asked) -> Page {
    let found = asked.context.settings.read().await;
    let document = match found {
        Ok(found) => SettingsDocument::of(&found, true),
        Err(refused) => {
            let content = html! {
                section.head { div { h1 { "Settings" } } }
                p.banner.bad { (parts::icon("alert")) span { (refused.title) ": " (refused.detail) } }
            };
            return Page::new("Settings", "settings", content);
        }
    };
    let content = html! {
        section.head { div {
            h1 { "Settings" }
            p.soft { "Flags win over the environment, that over " code { (document.file) } ", and that over the default." }
        } }
        (notes(&document))
        div.cols {
            form #edit .plain data-kind="settings" data-back={ (asked.base) "/settings" } autocomplete="off" {
                nav.card.pad.jump aria-label="Sections of the file" {
                    @for section in &document.sections { a.tag href={ "#c-" (section.name) } { (section.name) } " " }
                    input.js-only type="search" data-filter="" placeholder="Find a setting" aria-label="Find a setting";
                }
                @for section in &document.sections { (card(section)) }
            }
            section #preview .card.js-only aria-live="polite" aria-label="What would change" {
                header { h2 { "What would change" } }
                p.pad.soft { "Nothing yet." }
            }
        }
        noscript { p.banner { "Writing needs a script. The file can also be edited where it is; it is read again by itself." } }
    };
    Page::editor("Settings", "settings", content)
}

fn notes(document: &SettingsDocument) -> Markup {
    let problems = document.problems.as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |problem: &serde_json::Value, key: &str| {
        problem.get(key).and_then(|value| value.as_str()).unwrap_or_default().to_owned()
    };
    html! {
        @if let Some(why) = &document.read_only {
            p.banner.wait { (parts::icon("alert")) span { "The file cannot be written from here: " (why) } }
        }
        @if !document.needs_restart.is_empty() {
            p.banner.wait { (parts::icon("alert")) span {
                "Waiting for a restart of the daemon, which refuses no connection: "
                @for (n, name) in document.needs_restart.iter().enumerate() { @if n > 0 { ", " } a href={ "#k-" (name) } { (name) } }
            } }
        }
        @if !problems.is_empty() {
            section.card { header { h2 { "Wrong with the file" } span.soft.small { "the settings in force stay" } }
                ul.reasons { @for problem in problems { li {
                    span.kind.blocked-by { (text(problem, "severity")) }
                    span.t { (text(problem, "message")) " " span.soft.small { (text(problem, "hint")) } }
                    span.tag { (text(problem, "code")) }
                } } }
            }
        }
    }
}

fn card(section: &SettingsSection) -> Markup {
    html! {
        section.card id={ "c-" (section.name) } data-section=(section.name) {
            header { h2 { "[" (section.name) "]" } span.soft.small { (section.about) } }
            div.sets { @for row in &section.settings { (setting(row)) } }
        }
    }
}

fn setting(row: &SettingRow) -> Markup {
    let id = format!("k-{}", row.name);
    let about = format!("n-{}", row.name);
    html! {
        div.set data-find={ (row.name) " " (row.about) } {
            label for=(id) { code { (row.key) } }
            div.origin {
                @match row.origin.as_str() {
                    "default" => span.faint.small { "default" },
                    _ => span.tag title=[row.place.as_deref()] { (row.origin) },
                }
                @if row.waiting { span.pill.waiting { "waits for a restart" } }
                @else if row.restart { span.faint.small title="A change is in force after a restart of the daemon" { "↻ restart" } }
            }
            (control(row, &id, &about))
            p.small.soft id=(about) {
                (row.about.replace('`', ""))
                @if row.takes != "text" { " Takes " (row.takes) "." }
                @if let Some(default) = &row.default { " Default: " code { (default) } "." }
                @if let Some(why) = &row.why_not { span.why.wait { " Read-only here: " (why) "." } }
            }
        }
    }
}

/// What the field has from the start; empty is "nothing is said", so that the default is in force.
fn written(row: &SettingRow) -> &str {
    if row.origin == "default" { "" } else { row.value.as_deref().unwrap_or_default() }
}

fn control(row: &SettingRow, id: &str, about: &str) -> Markup {
    let value = written(row);
    // Said, and empty: for containers another thing than not said, where that means something.
    let offers_none = row.empty_is_none && row.default.is_some();
    let none = offers_none && row.origin != "default" && !row.set;
    let default = row.default.as_deref().unwrap_or("none");
    let edit = row.editable.then_some("");
    let placeholder = match (row.kind.as_str(), row.set) {
        ("secret", true) => "set; not shown".to_owned(),
        ("secret", false) => "not set".to_owned(),
        _ => row.default.clone().unwrap_or_default(),
    };
    html! {
        @if row.choices.is_empty() {
            @let kind = match row.kind.as_str() { "integer" => "number", "secret" => "password", _ => "text" };
            input id=(id) type=(kind) data-set=(row.name) data-edit=[edit] value=(value)
                min=[row.min] max=[row.max] placeholder=(placeholder) aria-describedby=(about) autocomplete="off" disabled;
            @if offers_none {
                label.check.small { input type="checkbox" data-none=(row.name) checked[none] disabled; "none: as the engine has it" }
            }
        } @else {
            select id=(id) data-set=(row.name) data-edit=[edit] aria-describedby=(about) disabled {
                option value="" selected[value.is_empty() && !none] { "default (" (default) ")" }
                @for word in &row.choices { option value=(word) selected[word == value] { (word) } }
                @if offers_none { option value=" " selected[none] { "none: as the engine has it" } }
            }
        }
    }
}
