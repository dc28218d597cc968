//! Changes of settings.conf: the text in, the changed text out.
//!
//! Why it is so: people write this file, with comments and in their order. A change is a splice: a
//! value is replaced where it stands, a key that goes takes its line along, a new one is put behind
//! the line that has it commented out, else at the end of its section. Everything else stays byte for
//! byte (property test `what_is_not_named_stays`).
//!
//! Must never judge a value: that is [`crate::config::settings::load`]; and never show a secret.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::config::codes;
use crate::config::edit::{Refusal, RefusalKind};
use crate::config::error::{Place, Problem, Sink};
use crate::config::ini::{self, Ini, Item};
use crate::config::settings::layers::{hint_for_key, is_secret};
use crate::config::settings::table::{self, KEYS, SECTIONS};
use crate::config::text::{decode, did_you_mean};
use crate::model::fingerprint::HashKey;

/// Wanted values by `section.key`: a text, or `None` for "nothing is said", so that the default is in
/// force. An empty text is said and empty, which is not the same for `[containers]`.
pub type Changes = BTreeMap<String, Option<String>>;

/// Settings that a change names and that do not exist.
#[must_use]
pub fn unknown(changes: &Changes) -> Vec<Problem> {
    let problem = |name: &String| {
        let place = Place::whole("the change");
        let Some((section, key)) = name.split_once('.') else {
            let message = format!("'{name}' names no setting");
            let hint = "settings are named SECTION.KEY, for example service.port_range_start";
            return Some(Problem::error(codes::UNKNOWN_SETTING, place, message).hint(hint));
        };
        if !SECTIONS.iter().any(|known| known.name == section) {
            let message = format!("unknown section [{section}]");
            let hint = did_you_mean(section, SECTIONS.iter().map(|known| known.name));
            return Some(Problem::error(codes::UNKNOWN_SECTION, place, message).hint(hint));
        }
        if table::find(section, key).is_some() {
            return None;
        }
        let message = format!("unknown key '{key}' in [{section}]");
        Some(Problem::error(codes::UNKNOWN_SETTING, place, message).hint(hint_for_key(section, key)))
    };
    changes.keys().filter_map(problem).collect()
}

/// The text after `changes`; names that do not exist are left out ([`unknown`] names them).
///
/// # Errors
/// When the text cannot be read line by line, or a value cannot be written on one.
pub fn apply(file: &str, bytes: &[u8], changes: &Changes) -> Result<String, Refusal> {
    let text =
        decode(file, bytes).map_err(|problem| Refusal::new(RefusalKind::Uneditable, problem.to_string()))?;
    let mark = if bytes.starts_with("\u{feff}".as_bytes()) { "\u{feff}" } else { "" };
    let mut text = text.to_owned();
    // In the order of the table, so that what is added to a section is too.
    for key in KEYS {
        let name = format!("{}.{}", key.section, key.key);
        if let Some(value) = changes.get(&name) {
            text = change(file, &text, (key.section, key.key), value.as_deref())?;
        }
    }
    Ok(format!("{mark}{text}"))
}

/// The text with one setting changed.
fn change(
    file: &str,
    text: &str,
    (section, key): (&str, &str),
    value: Option<&str>,
) -> Result<String, Refusal> {
    let ini = read(file, text)?;
    let value = value.map(written).transpose().map_err(|why| {
        refusal(RefusalKind::Invalid, format!("[{section}] {key}: the value {why}"), "a setting is one line")
    })?;
    let held = ini.items.iter().find(|item| item.section == section && item.key == key);
    let (from, to, new) = match (held, value) {
        (None, None) => return Ok(text.to_owned()),
        (Some(item), None) => (item.line_at, item.line_end, String::new()),
        (Some(item), Some(value)) => (item.value_at, item.value_end, fitted(text, item, &value)),
        (None, Some(value)) => {
            let (at, line) = addition(text, &ini, (section, key), &value);
            (at, at, line)
        }
    };
    let (before, after) = (text.get(..from).unwrap_or_default(), text.get(to..).unwrap_or_default());
    Ok(format!("{before}{new}{after}"))
}

fn read(file: &str, text: &str) -> Result<Ini, Refusal> {
    let mut sink = Sink::new(file, text);
    let ini = ini::read(text, &mut sink);
    match sink.finish().first() {
        None => Ok(ini),
        // Where a line is no pair, nobody knows what it was meant to be.
        Some(problem) => {
            let hint = "mend that line in the file itself; it is read again at once";
            Err(refusal(RefusalKind::Uneditable, problem.to_string(), hint))
        }
    }
}

fn refusal(kind: RefusalKind, message: String, hint: &str) -> Refusal {
    Refusal { kind, message, hint: Some(hint.to_owned()) }
}

/// A value as it is written where one stands already, or none does: apart from what is around it.
fn fitted(text: &str, item: &Item, value: &str) -> String {
    if item.value_at < item.value_end || value.is_empty() {
        return value.to_owned();
    }
    let spaced = text.get(..item.value_at).is_some_and(|before| before.ends_with(" ="));
    let comment = text.get(item.value_at..).is_some_and(|after| after.starts_with(['#', ';']));
    let (before, after) = (if spaced { " " } else { "" }, if comment { " " } else { "" });
    format!("{before}{value}{after}")
}

/// Where a line for a new setting goes, and the line.
fn addition(text: &str, ini: &Ini, (section, key): (&str, &str), value: &str) -> (usize, String) {
    let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let line = format!("{key} = {value}");
    let line = line.trim_end();
    let Some(index) = ini.headings.iter().position(|heading| heading.name == section) else {
        let gap = if text.is_empty() { "" } else { end };
        let close = if text.is_empty() || text.ends_with('\n') { "" } else { end };
        return (text.len(), format!("{close}{gap}[{section}]{end}{line}{end}"));
    };
    let begins = ini.headings.get(index).map_or(0, |heading| heading.line_end);
    let ends = ini.headings.get(index + 1).map_or(text.len(), |next| {
        text.get(..next.at).and_then(|before| before.rfind('\n')).map_or(0, |feed| feed + 1)
    });
    let last =
        ini.items.iter().filter(|item| (begins..ends).contains(&item.line_at)).map(|item| item.line_end);
    let at = commented(text, (begins, ends), key).or(last.max()).unwrap_or(begins);
    let open = text.get(..at).is_some_and(|before| !before.is_empty() && !before.ends_with('\n'));
    (at, format!("{}{line}{end}", if open { end } else { "" }))
}

/// The end of the line between two places that has `key` commented out: `#key = …`.
fn commented(text: &str, (from, to): (usize, usize), key: &str) -> Option<usize> {
    let mut at = from;
    for line in text.get(from..to)?.split_inclusive('\n') {
        at += line.len();
        let bare = line.trim_start();
        let named = bare.strip_prefix(['#', ';']).and_then(|rest| rest.split_once('='));
        if named.is_some_and(|(name, _)| name.trim().eq_ignore_ascii_case(key)) {
            return Some(at);
        }
    }
    None
}

/// A value as the reader takes it for what it is; else why it cannot be written.
fn written(value: &str) -> Result<String, &'static str> {
    if value.chars().any(char::is_control) {
        return Err("has a line break or another control character");
    }
    let mut spaced = true;
    let cut = value.chars().any(|c| {
        let comment = spaced && matches!(c, '#' | ';');
        spaced = c.is_whitespace();
        comment
    });
    if value.trim() == value && !value.starts_with(['"', '\'']) && !cut {
        return Ok(value.to_owned());
    }
    Ok(format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")))
}

/// The text for showing: values of secrets are placeholders, in comments too. A placeholder is a keyed
/// hash, so that a change of the value shows as one.
#[must_use]
pub fn shown(text: &str, key: &HashKey) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        match secret_of(line) {
            Some((head, value)) => {
                let end = if line.ends_with('\n') { "\n" } else { "" };
                // Writing to a String cannot fail.
                let _ = write!(out, "{head} [redacted:{}]{end}", key.keyed(value));
            }
            None => out.push_str(line),
        }
    }
    out
}

/// A line with a secret: all up to its `=`, and the rest.
fn secret_of(line: &str) -> Option<(&str, &str)> {
    let at = line.find('=')?;
    let (head, value) = (line.get(..=at)?, line.get(at + 1..)?.trim());
    let name = head.trim_end_matches('=').trim().trim_start_matches(['#', ';', ' ', '\t']);
    let name = name.rsplit(char::is_whitespace).next().unwrap_or_default().to_ascii_lowercase();
    let known = SECTIONS.iter().any(|section| is_secret(section.name, &name)) || has_login(value);
    (known && !value.is_empty()).then_some((head, value))
}

/// Whether an address has a user's name or password in it.
#[must_use]
pub fn has_login(value: &str) -> bool {
    let host = value.split_once("://").map(|(_, rest)| rest.split('/').next().unwrap_or_default());
    host.is_some_and(|host| host.contains('@'))
}

#[cfg(test)]
mod tests;
