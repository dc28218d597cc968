//! A file's text with placeholders for what is secret in it, and the way back.
//!
//! Why it is so: an editor far away must be able to change a file without seeing its secrets. Each
//! literal that may be one is shown as `[redacted:…]`; the digits are a keyed hash of the value, so
//! that a placeholder means its value wherever it is moved to, and nothing can be tried against it.
//! References (`${credential:…}`) are not secret and stay.
//!
//! Hidden are values of environments and headers, of members, flags and variables whose name says so,
//! and addresses with a password or a token in them; in comments what is written like a member with
//! such a name. Must never hide anything that cannot be brought back.

use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use crate::config::build::looks_secret;
use crate::config::edit::tree::{self, Kind, Tree, string_length};
use crate::config::edit::{Refusal, RefusalKind, slice};
use crate::model::fingerprint::HashKey;

/// What every placeholder begins with.
const MARK: &str = "[redacted:";
/// Members whose values are all hidden.
const ENVIRONMENTS: &[&str] =
    &["env", "environment", "environmentVars", "headers", "static_headers", "extra_headers"];

/// A text with placeholders.
#[derive(Clone, Default)]
pub struct Masked {
    /// The text.
    pub text: String,
    /// What each placeholder stands for.
    hidden: BTreeMap<String, Hidden>,
}

#[derive(Clone)]
struct Hidden {
    /// As it is written in the file.
    source: String,
    /// What it means.
    value: Json,
}

impl fmt::Debug for Masked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Masked").field("hidden", &self.hidden.len()).finish_non_exhaustive()
    }
}

/// A literal to hide: where it stands, without quotes where it has some.
struct Find {
    range: Range<usize>,
    /// It is no string: the placeholder needs quotes of its own.
    bare: bool,
}

/// Hides what is secret in `text`. A text that cannot be read is hidden as a whole.
#[must_use]
pub fn mask(text: &str, key: &HashKey) -> Masked {
    let Some(root) = tree::read(text) else { return Masked::default() };
    let mut finds = Finder { text, finds: Vec::new() };
    finds.value(&root, "");
    finds.comments();
    let mut finds = finds.finds;
    finds.sort_by_key(|find| find.range.start);
    let mut masked = Masked::default();
    let mut at = 0;
    for Find { range, bare } in finds {
        if range.start < at || range.is_empty() {
            continue;
        }
        let source = slice(text, &range);
        let token = format!("{MARK}{}]", key.keyed(&source));
        masked.text.push_str(text.get(at..range.start).unwrap_or_default());
        masked.text.push_str(&if bare { format!("\"{token}\"") } else { token.clone() });
        at = range.end;
        let quoted = if bare { source.clone() } else { format!("\"{source}\"") };
        let value = serde_json::from_str(&quoted).unwrap_or_else(|_odd| Json::String(source.clone()));
        masked.hidden.insert(token, Hidden { source, value });
    }
    masked.text.push_str(text.get(at..).unwrap_or_default());
    masked
}

impl Masked {
    /// `text` with every placeholder replaced by what it stands for.
    ///
    /// # Errors
    /// A placeholder that stands for nothing in this file.
    pub fn reveal_text(&self, text: &str) -> Result<String, Refusal> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find(MARK) {
            let (before, found) = rest.split_at(at);
            let end = found.find(']').map_or(found.len(), |end| end + 1);
            let (token, after) = found.split_at(end);
            let Some(hidden) = self.hidden.get(token) else { return Err(stands_for_nothing(token)) };
            let bare = !hidden.value.is_string() && before.ends_with('"') && after.starts_with('"');
            out.push_str(if bare { before.strip_suffix('"').unwrap_or(before) } else { before });
            out.push_str(&hidden.source);
            rest = if bare { after.strip_prefix('"').unwrap_or(after) } else { after };
        }
        out.push_str(rest);
        Ok(out)
    }

    /// The same for a value.
    ///
    /// # Errors
    /// As [`Self::reveal_text`].
    pub fn reveal(&self, value: &mut Json) -> Result<(), Refusal> {
        match value {
            Json::Object(members) => members.values_mut().try_for_each(|value| self.reveal(value)),
            Json::Array(values) => values.iter_mut().try_for_each(|value| self.reveal(value)),
            Json::String(text) if text.contains(MARK) => {
                if let Some(hidden) = self.hidden.get(text.as_str()) {
                    *value = hidden.value.clone();
                    return Ok(());
                }
                let mut out = String::with_capacity(text.len());
                let mut rest = text.as_str();
                while let Some(at) = rest.find(MARK) {
                    let (before, found) = rest.split_at(at);
                    let end = found.find(']').map_or(found.len(), |end| end + 1);
                    let (token, after) = found.split_at(end);
                    let plain = self.hidden.get(token).and_then(|hidden| hidden.value.as_str());
                    out.push_str(before);
                    out.push_str(plain.ok_or_else(|| stands_for_nothing(token))?);
                    rest = after;
                }
                out.push_str(rest);
                *text = out;
                Ok(())
            }
            Json::String(_) | Json::Null | Json::Bool(_) | Json::Number(_) => Ok(()),
        }
    }
}

/// A refusal of a placeholder, of which as much is repeated as one of ours has.
fn stands_for_nothing(token: &str) -> Refusal {
    let token: String = token.chars().take(MARK.len() + 17).collect();
    let message = format!("'{token}' stands for a hidden value that the file does not have");
    let hint = "write the value itself, or a reference such as ${credential:NAME}";
    Refusal { hint: Some(hint.to_owned()), ..Refusal::new(RefusalKind::Invalid, message) }
}

struct Finder<'t> {
    text: &'t str,
    finds: Vec<Find>,
}

impl Finder<'_> {
    /// The value of the member `key`.
    fn value(&mut self, tree: &Tree, key: &str) {
        if ENVIRONMENTS.contains(&key) {
            return self.environment(tree);
        }
        match &tree.kind {
            Kind::Scalar(Json::String(text)) => {
                let named = looks_secret(key) && key != "auth_type";
                if named || shows_password(text) {
                    self.hide(tree);
                }
            }
            Kind::Scalar(_) => {}
            Kind::List(elements) if key == "args" => self.arguments(elements),
            Kind::List(elements) => elements.iter().for_each(|element| self.value(element, "")),
            Kind::Object(entries) => entries.iter().for_each(|entry| self.value(&entry.value, &entry.key)),
        }
    }

    fn environment(&mut self, tree: &Tree) {
        for entry in tree.entries() {
            self.hide(&entry.value);
        }
        // A list of names and values.
        for element in tree.elements() {
            match element.get("value") {
                Some(value) => self.hide(value),
                None => self.hide_behind(element, '='),
            }
        }
    }

    /// A command line.
    fn arguments(&mut self, args: &[Tree]) {
        let mut before = String::new();
        for arg in args {
            let text = arg.text().unwrap_or_default().to_owned();
            let (flag, value) =
                text.split_once('=').map_or((text.as_str(), None), |(flag, value)| (flag, Some(value)));
            let is_flag = flag.starts_with('-');
            match before.as_str() {
                "-e" | "--env" => self.hide_behind(arg, '='),
                "-H" | "--header" => self.hide(arg),
                flag if flag.starts_with('-') && looks_secret(flag) && !is_flag => self.hide(arg),
                _ if flag == "--header" && value.is_some() => self.hide_behind(arg, '='),
                _ if flag == "--env" && value.is_some() => self.hide_second(arg),
                _ if text.starts_with("-e") && text.len() > 2 && value.is_some() => {
                    self.hide_behind(arg, '=');
                }
                _ if value.is_some() && looks_secret(flag) => self.hide_behind(arg, '='),
                _ if shows_password(&text) => self.hide(arg),
                _ => {}
            }
            before = if value.is_none() { text } else { String::new() };
        }
    }

    /// A whole value.
    fn hide(&mut self, tree: &Tree) {
        match &tree.kind {
            Kind::Scalar(Json::String(text)) => {
                if !text.is_empty() && !is_reference(text) {
                    self.finds.push(Find { range: tree.range.start + 1..tree.range.end - 1, bare: false });
                }
            }
            Kind::Scalar(Json::Null) => {}
            Kind::Scalar(_) => self.finds.push(Find { range: tree.range.clone(), bare: true }),
            Kind::List(_) | Kind::Object(_) => self.value(tree, ""),
        }
    }

    /// What stands behind the first `mark` of a string.
    fn hide_behind(&mut self, tree: &Tree, mark: char) {
        self.hide_after(tree, |source| source.find(mark));
    }

    /// What stands behind the second `=`: `--env=NAME=VALUE`.
    fn hide_second(&mut self, tree: &Tree) {
        self.hide_after(tree, |source| {
            let first = source.find('=')? + 1;
            source.get(first..)?.find('=').map(|at| first + at)
        });
    }

    fn hide_after(&mut self, tree: &Tree, find: impl Fn(&str) -> Option<usize>) {
        if tree.text().is_none() {
            return;
        }
        let inner = tree.range.start + 1..tree.range.end - 1;
        let source = self.text.get(inner.clone()).unwrap_or_default();
        let Some(at) = find(source) else { return };
        let value = source.get(at + 1..).unwrap_or_default();
        if !value.is_empty() && !is_reference(value) {
            self.finds.push(Find { range: inner.start + at + 1..inner.end, bare: false });
        }
    }

    /// `"NAME": "value"` in comments.
    fn comments(&mut self) {
        for comment in tree::comments(self.text) {
            let text = self.text.get(comment.clone()).unwrap_or_default();
            let mut at = 0;
            while let Some(next) = text.get(at..).and_then(|rest| rest.find('"')) {
                let from = at + next;
                let name_length = string_length(text.get(from..).unwrap_or_default());
                let name = text.get(from..from + name_length).unwrap_or_default();
                let rest = text.get(from + name_length..).unwrap_or_default();
                at = from + name_length.max(1);
                let Some(value) = rest.trim_start().strip_prefix(':').map(str::trim_start) else { continue };
                let start = text.len() - value.len();
                let length = if value.starts_with('"') { string_length(value) } else { 0 };
                if length > 2 && (looks_secret(name) || shows_password(value)) {
                    let range = comment.start + start + 1..comment.start + start + length - 1;
                    self.finds.push(Find { range, bare: false });
                }
            }
        }
    }
}

/// Whether a text is nothing but one reference without a default.
fn is_reference(text: &str) -> bool {
    let inner = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    inner.is_some_and(|inner| !inner.contains(['{', '}']) && !inner.contains(":-"))
}

/// Whether an address in the text has a password, or a parameter whose name says that it is one.
fn shows_password(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let password = authority.rsplit_once('@').and_then(|(user, _)| user.split_once(':'));
    let query = rest.split_once('?').map(|(_, query)| query).unwrap_or_default();
    let mut parameters = query.split('&').filter_map(|pair| pair.split_once('='));
    password.is_some_and(|(_, password)| !is_reference(password) && !password.is_empty())
        || parameters.any(|(name, value)| looks_secret(name) && !value.is_empty() && !is_reference(value))
}
