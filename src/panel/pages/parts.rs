//! What several pages have: icons, times, states, reasons, buttons.

use crate::api::view::{ActionView, ReasonView, ServerView, SettingView};
use crate::panel::pages::chart;
use maud::{Markup, html};

/// An icon; decoration only, a word stands beside it or in the label around it.
pub(super) fn icon(name: &str) -> Markup {
    html! { svg.i aria-hidden="true" { use href={ "#i-" (name) } {} } }
}

/// The shapes of all icons, once for every page.
pub(super) const ICONS: &str = r##"<svg hidden><symbol id="i-play" viewBox="0 0 24 24"><path d="M7 5v14l11-7z"/></symbol><symbol id="i-stop" viewBox="0 0 24 24"><rect x="6" y="6" width="12" height="12" rx="1.5"/></symbol><symbol id="i-pause" viewBox="0 0 24 24"><path d="M8.5 5v14M15.5 5v14"/></symbol><symbol id="i-drain" viewBox="0 0 24 24"><path d="M10 4H4v16h6M9 12h11M16 8l4 4-4 4"/></symbol><symbol id="i-restart" viewBox="0 0 24 24"><path d="M20 11a8 8 0 1 0-2.3 6.3M20 5v6h-6"/></symbol><symbol id="i-moon" viewBox="0 0 24 24"><path d="M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5z"/></symbol><symbol id="i-sync" viewBox="0 0 24 24"><path d="M4 12a8 8 0 0 1 13.7-5.7L20 8.6M20 4v4.6h-4.6M20 12a8 8 0 0 1-13.7 5.7L4 15.4M4 20v-4.6h4.6"/></symbol><symbol id="i-plus" viewBox="0 0 24 24"><path d="M12 5v14M5 12h14"/></symbol><symbol id="i-edit" viewBox="0 0 24 24"><path d="M4 20h4L19 9l-4-4L4 16zM13 7l4 4"/></symbol><symbol id="i-bin" viewBox="0 0 24 24"><path d="M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13"/></symbol><symbol id="i-alert" viewBox="0 0 24 24"><path d="M12 4 2.5 20h19zM12 10v4.5M12 17.2v.1"/></symbol></svg>"##;

/// What a table is called by who does not see it.
pub(super) fn caption(text: &str) -> Markup {
    html! { caption.vh { (text) } }
}

/// A state or a result, as a pill.
pub(super) fn pill(word: &str) -> Markup {
    html! { span class={ "pill " (word) } { (word) } }
}

/// The same with another word on it.
pub(super) fn pill_as(tone: &str, word: &str) -> Markup {
    html! { span class={ "pill " (tone) } { (word) } }
}

/// A point in time: the script shows how far it is, the text is the clock's.
pub(super) fn time(millis: i64) -> Markup {
    time_as(millis, "at")
}

/// The same for an end that is waited for.
pub(super) fn until(millis: i64) -> Markup {
    time_as(millis, "until")
}

fn time_as(millis: i64, kind: &str) -> Markup {
    let clock = clock(millis);
    html! { time.nowrap data-at=(millis) data-kind=(kind) { (clock) } }
}

fn clock(millis: i64) -> String {
    jiff::Timestamp::from_millisecond(millis).map_or_else(
        |_out_of_range| "?".to_owned(),
        |at| at.round(jiff::Unit::Second).unwrap_or(at).to_string(),
    )
}

/// A length of time in milliseconds.
pub(super) fn millis(millis: u64) -> String {
    crate::model::time::Span(millis).to_string()
}

/// A size.
#[expect(clippy::cast_precision_loss, reason = "for people")]
pub(super) fn bytes(bytes: u64) -> String {
    chart::bytes(bytes as f64)
}

/// The beginning of an engine's id, as the engine itself shows it.
pub(super) fn short_id(id: &str) -> &str {
    let bare = id.trim_start_matches("sha256:");
    bare.get(..12).unwrap_or(bare)
}

/// An image without the host of its registry: what tells it from others comes first.
pub(super) fn short_image(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => rest,
        _ => image,
    }
}

/// Settings and where each comes from.
pub(super) fn settings(caption: &str, settings: &[SettingView]) -> Markup {
    let plain = |origin: &str| matches!(origin, "built in" | "settings");
    html! {
        div.scroll { table.cards.settings {
            (self::caption(caption))
            thead { tr { th { "Setting" } th { "Value" } th { "From" } th { "Written at" } } }
            tbody { @for setting in settings { tr {
                td { code { (setting.key) } }
                td.wide { code { (setting.value) } }
                td data-l="from" { @if plain(&setting.origin) { span.faint { (setting.origin) } } @else { (setting.origin) } }
                td.soft.small { (setting.place.as_deref().unwrap_or("")) }
            } } }
        } }
    }
}

/// Sentences of why.
pub(super) fn reasons(reasons: &[ReasonView]) -> Markup {
    html! {
        ul.reasons {
            @for reason in reasons {
                li { (self::reason(reason)) }
            }
        }
    }
}

/// One sentence of why: its kind, the words, until when, its code.
pub(super) fn reason(reason: &ReasonView) -> Markup {
    html! {
        span class={ "kind " (reason.kind) } { (reason.kind.replace('-', " ")) }
        span.t { (reason.text) }
        @if let Some(at) = reason.until { span.soft.small { (until(at)) } }
        @if let Some(code) = &reason.code { span.tag { (code) } }
    }
}

/// Changes, as a diff.
pub(super) fn actions(actions: &[ActionView]) -> Markup {
    let class = |sign: &str| match sign {
        "+" => "add",
        "-" => "del",
        _ => "mod",
    };
    html! {
        ul.diff {
            @for action in actions {
                li class=(class(&action.sign)) {
                    span.s { (action.sign) } span { (action.action) }
                    @if !action.why.is_empty() { small { (action.why) } }
                }
            }
        }
    }
}

/// A button that acts on all servers of a section.
pub(super) fn section_act(act: &str, section: &str, class: &str) -> Markup {
    let (word, shape) = word_of(act);
    html! {
        button class={ "js-only " (class) } data-act=(act) data-id=(section) data-of="sections" aria-label={ (word) " section " (section) } {
            (icon(shape)) (word)
        }
    }
}

fn word_of(act: &str) -> (&'static str, &'static str) {
    match act {
        "start" => ("Start", "play"),
        "stop" => ("Stop", "stop"),
        "restart" => ("Restart", "restart"),
        "pause" => ("Pause", "pause"),
        "resume" => ("Resume", "play"),
        "drain" => ("Drain host", "drain"),
        "undrain" => ("Bring host back", "play"),
        _ => ("Sync now", "sync"),
    }
}

/// A button that acts on `whom`: a server's id, `all`, or nothing for the whole. The script knows
/// where it posts to and what it asks before.
pub(super) fn act(act: &str, whom: &str, class: &str) -> Markup {
    let (word, shape) = word_of(act);
    html! {
        button class={ "js-only " (class) } data-act=(act) data-id=(whom) {
            (icon(shape)) (word) @if whom == "all" { " all" }
        }
    }
}

/// What can be done with a server in its state: the script makes buttons of it in rows, of which there
/// may be very many.
pub(super) fn acts_of(server: &ServerView) -> &'static str {
    match (server.declared, server.state.as_str()) {
        (true, _) if server.paused => "resume",
        (true, "stopped") => "start",
        (true, "asleep") => "start stop",
        (true, _) => "restart stop",
        (false, _) => "",
    }
}

/// The same as buttons with words.
pub(super) fn server_acts(server: &ServerView) -> Markup {
    let class = |word: &str| if word == "stop" { "danger" } else { "" };
    html! {
        @for word in acts_of(server).split_ascii_whitespace() { (act(word, &server.id, class(word))) }
        @if server.declared && !server.paused { (act("pause", &server.id, "")) }
    }
}

/// How well a server is: the tone, empty for none, and the word.
pub(super) fn health(server: &ServerView) -> (&str, &str) {
    match server.health_word() {
        "stopped" => ("", "–"),
        "asleep" => ("", "asleep"),
        word => (word, word),
    }
}

#[cfg(test)]
mod tests {
    use super::short_image;

    #[test]
    fn images_are_told_apart_by_what_is_not_the_registry() {
        for (image, short) in [
            ("mcp/time", "mcp/time"),
            ("time:1.2", "time:1.2"),
            ("ghcr.io/acme/mcp-time:1.2", "acme/mcp-time:1.2"),
            ("localhost:5000/time@sha256:ab", "time@sha256:ab"),
            ("localhost/time", "time"),
            ("–", "–"),
        ] {
            assert_eq!(short_image(image), short, "{image}");
        }
    }
}
