//! Pages that write: a server, a section, the global defaults, the file as it is.
//!
//! Each is a frame that the editor's script fills from the API: the fields come from the file's own
//! schema, and what would change is asked of the API before anything is saved. Must never decide what
//! is valid, and never hold a value of the file.

use crate::api::view::Moment;
use crate::panel::pages::{Asked, Page, parts};
use maud::{Markup, html};

/// What is edited.
struct Edited<'a> {
    /// `server`, `section`, `defaults` or `file`.
    kind: &'a str,
    /// Its id; empty for a new one.
    id: &'a str,
    title: String,
    about: &'a str,
    /// Where one goes back to, and its word.
    back: (String, &'a str),
}

pub(super) fn new_server(asked: &Asked) -> Page {
    let edited = Edited {
        kind: "server",
        id: "",
        title: "Add a server".to_owned(),
        about: "It is written into the configuration file and started with the next pass.",
        back: (asked.base.clone(), "Servers"),
    };
    page(asked, "overview", &edited)
}

pub(super) fn server(asked: &Asked, id: &str) -> Option<Page> {
    // An entry with an error has no row, and is what needs an editor most.
    let moment = Moment::of(&asked.context);
    let desired = &moment.wish.desired;
    let known = desired.servers.keys().chain(desired.broken.keys()).any(|known| known.as_str() == id);
    known.then(|| {
        let edited = Edited {
            kind: "server",
            id,
            title: format!("Edit {id}"),
            about: "What you do not change stays as it is written, comments and other programs' keys too.",
            back: (format!("{}/servers/{id}", asked.base), id),
        };
        page(asked, "overview", &edited)
    })
}

pub(super) fn new_section(asked: &Asked) -> Page {
    let edited = Edited {
        kind: "section",
        id: "",
        title: "Add a section".to_owned(),
        about: "Its settings hold for every server that is put into it.",
        back: (format!("{}/sections", asked.base), "Sections"),
    };
    page(asked, "sections", &edited)
}

pub(super) fn section(asked: &Asked, id: &str) -> Option<Page> {
    let shown = asked.context.kept.shown(&asked.context);
    let sections = shown.moment.sections(&shown.servers);
    sections.iter().any(|section| section.id == id).then(|| {
        let edited = Edited {
            kind: "section",
            id,
            title: format!("Edit section {id}"),
            about: "Its settings hold for every server in it that does not say otherwise.",
            back: (format!("{}/sections/{id}", asked.base), id),
        };
        page(asked, "sections", &edited)
    })
}

pub(super) fn defaults(asked: &Asked) -> Page {
    let edited = Edited {
        kind: "defaults",
        id: "",
        title: "Global defaults".to_owned(),
        about: "They hold for every server whose section or own entry does not say otherwise.",
        back: (format!("{}/sections", asked.base), "Sections"),
    };
    page(asked, "sections", &edited)
}

pub(super) fn file(asked: &Asked) -> Page {
    let edited = Edited {
        kind: "file",
        id: "",
        title: "Configuration".to_owned(),
        about: "The whole file as it is written. Secrets are shown as placeholders; a placeholder that stays keeps its secret.",
        back: (asked.base.clone(), "Servers"),
    };
    page(asked, "file", &edited)
}

fn page(asked: &Asked, tab: &'static str, edited: &Edited<'_>) -> Page {
    let section = asked.query().get("section").cloned().unwrap_or_default();
    let content = html! {
        section.head {
            div { p.crumb { a href=(edited.back.0) { (edited.back.1) } } h1 { (edited.title) } p.soft { (edited.about) } }
        }
        (problems(asked))
        noscript { p.banner { "Writing needs a script. The file can also be edited where it is: " code { (asked.context.about.config) } "; it is read again by itself." } }
        div.cols.js-only {
            section.card aria-label=(edited.title) {
                form #edit data-kind=(edited.kind) data-id=(edited.id) data-section=(section) data-back=(edited.back.0) autocomplete="off" {
                    p.pad.soft { "Reading the file…" }
                }
            }
            section #preview .card aria-live="polite" aria-label="What would change" {
                header { h2 { "What would change" } }
                p.pad.soft { "Nothing yet." }
            }
        }
    };
    Page::editor(edited.title.clone(), tab, content)
}

/// What is wrong with the files as they are.
fn problems(asked: &Asked) -> Markup {
    let files = asked.context.files.borrow();
    html! {
        @if !files.problems.is_empty() {
            details #problems .card {
                summary { (parts::icon("alert")) (files.problems.len()) @if files.problems.len() == 1 { " remark" } @else { " remarks" } " on the file as it is" }
                ul.reasons { @for problem in &files.problems { li { span.t.mono { (problem) } } } }
            }
        }
    }
}
