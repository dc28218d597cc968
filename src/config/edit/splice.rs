//! Changes of single values in a text: what is not named stays as it is, byte for byte.
//!
//! A change is a list of places and what stands there from now on, so that nothing else can move.
//! Comments are never taken away but with the value that they stand inside of.

use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::ops::Range;

use crate::config::edit::tree::{Kind, Tree, comma_after, indent_at, is_first, line_start};

/// Longest list of plain values that is written in one line, in bytes.
const LINE_BYTES: usize = 100;

/// Changes of one text.
pub(super) struct Splice<'t> {
    text: &'t str,
    /// What ends a line.
    newline: &'static str,
    /// What a level is indented by; `None` for a text of one line.
    unit: Option<String>,
    edits: Vec<(Range<usize>, String)>,
}

impl<'t> Splice<'t> {
    /// No change yet of `text`, whose tree is `root`.
    pub(super) fn new(text: &'t str, root: &Tree) -> Self {
        let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
        let first = root.items().first().map(|item| item.start);
        let own = first.filter(|at| is_first(text, *at)).map(|at| indent_at(text, at).to_owned());
        let one_line = !text.trim().is_empty() && !text.trim_end().contains('\n') && text.trim() != "{}";
        let unit = match own.filter(|indent| !indent.is_empty()) {
            Some(indent) => Some(indent),
            None if one_line => None,
            None => Some("  ".to_owned()),
        };
        Self { text, newline, unit, edits: Vec::new() }
    }

    /// The text with all changes.
    pub(super) fn finish(mut self) -> String {
        self.edits.sort_by_key(|(range, _)| (range.start, range.end));
        let mut out = String::with_capacity(self.text.len());
        let mut at = 0;
        for (range, new) in &self.edits {
            out.push_str(self.text.get(at..range.start).unwrap_or_default());
            out.push_str(new);
            at = at.max(range.end);
        }
        out.push_str(self.text.get(at..).unwrap_or_default());
        out
    }

    fn put(&mut self, range: Range<usize>, new: impl Into<String>) {
        self.edits.push((range, new.into()));
    }

    /// Makes `tree` mean `wanted`: only what differs is written anew.
    pub(super) fn reshape(&mut self, tree: &Tree, wanted: &Json) {
        if tree.json() == *wanted && (!tree.is_object() || tree.is_unique()) {
            return;
        }
        match (&tree.kind, wanted) {
            (Kind::Object(entries), Json::Object(members)) if tree.is_unique() => {
                let mut removed = BTreeSet::new();
                for (index, entry) in entries.iter().enumerate() {
                    match members.get(&entry.key) {
                        Some(value) => self.reshape(&entry.value, value),
                        None => {
                            removed.insert(index);
                        }
                    }
                }
                let new = members.iter().filter(|(key, _)| tree.get(key).is_none());
                let added: Vec<(Option<&str>, &Json)> =
                    new.map(|(key, value)| (Some(key.as_str()), value)).collect();
                self.items(tree, &removed, &added);
            }
            (Kind::List(elements), Json::Array(values)) if elements.len() == values.len() => {
                for (element, value) in elements.iter().zip(values) {
                    self.reshape(element, value);
                }
            }
            _ => {
                let indent = indent_at(self.text, tree.range.start).to_owned();
                let new = self.render(wanted, &indent, self.unit.is_none());
                self.put(tree.range.clone(), new);
            }
        }
    }

    /// Takes parts of an object or list away by their index, and adds others at its end: members
    /// with a name, elements without.
    pub(super) fn items(&mut self, tree: &Tree, removed: &BTreeSet<usize>, added: &[(Option<&str>, &Json)]) {
        let (own_lines, indent) = self.layout(tree);
        let added = added.iter().map(|(key, value)| {
            let name = key.map(|key| format!("{}: ", quoted(key))).unwrap_or_default();
            format!("{name}{}", self.render(value, &indent, !own_lines))
        });
        let added: Vec<String> = added.collect();
        self.written_items(tree, removed, &added);
    }

    /// The same with parts as they are to be written.
    pub(super) fn written_items(&mut self, tree: &Tree, removed: &BTreeSet<usize>, added: &[String]) {
        if removed.is_empty() && added.is_empty() {
            return;
        }
        let items = tree.items();
        let inner = tree.range.start + 1..tree.range.end.saturating_sub(1);
        let last = (0..items.len()).rev().find(|index| !removed.contains(index));
        let (own_lines, indent) = self.layout(tree);
        let Some(last) = last.and_then(|index| items.get(index)) else {
            return self.refill(tree, &items, (own_lines, &indent), added);
        };
        let ends_with_comma = items.last().is_some_and(|item| self.comma(item, &inner).is_some());
        for index in removed {
            if let Some(item) = items.get(*index) {
                self.remove(item, &inner);
            }
        }
        let comma = self.comma(last, &inner);
        let wants_comma = !added.is_empty() || ends_with_comma;
        match comma {
            Some(at) if !wants_comma => self.put(at..at + 1, ""),
            None if wants_comma => self.put(last.end..last.end, ","),
            _ => {}
        }
        let behind = comma.map_or(last.end, |at| at + 1);
        let behind = if own_lines { self.line_end_comment(behind, inner.end) } else { behind };
        for (index, new) in added.iter().enumerate() {
            let comma = if index + 1 < added.len() || ends_with_comma { "," } else { "" };
            let before = if own_lines { format!("{}{indent}", self.newline) } else { " ".to_owned() };
            self.put(behind..behind, format!("{before}{new}{comma}"));
        }
    }

    /// An object or list of which nothing is left gets new parts.
    fn refill(
        &mut self,
        tree: &Tree,
        items: &[Range<usize>],
        (own_lines, indent): (bool, &str),
        added: &[String],
    ) {
        let inner = tree.range.start + 1..tree.range.end.saturating_sub(1);
        let new = if own_lines {
            let line = format!(",{}{indent}", self.newline);
            let body = added.join(&line);
            if body.is_empty() { body } else { format!("{}{indent}{body}", self.newline) }
        } else {
            added.join(", ")
        };
        let mut outside = String::new();
        let mut at = inner.start;
        for item in items {
            outside.push_str(self.text.get(at..item.start).unwrap_or_default());
            at = item.end;
        }
        outside.push_str(self.text.get(at..inner.end).unwrap_or_default());
        if outside.contains('/') {
            // Comments stay where they are.
            for item in items {
                self.remove(item, &inner);
            }
            self.put(inner.start..inner.start, new);
            return;
        }
        let base = indent_at(self.text, tree.range.start);
        let end =
            if own_lines && !added.is_empty() { format!("{}{base}", self.newline) } else { String::new() };
        self.put(inner, format!("{new}{end}"));
    }

    /// Whether parts of `tree` have lines of their own, and what those begin with.
    fn layout(&self, tree: &Tree) -> (bool, String) {
        let Some(unit) = &self.unit else { return (false, String::new()) };
        let items = tree.items();
        let below = || format!("{}{unit}", indent_at(self.text, tree.range.start));
        match items.last() {
            Some(last) if is_first(self.text, last.start) => {
                (true, indent_at(self.text, last.start).to_owned())
            }
            Some(_) => (false, below()),
            None => (true, below()),
        }
    }

    /// Where the comma behind an item stands.
    fn comma(&self, item: &Range<usize>, inner: &Range<usize>) -> Option<usize> {
        comma_after(self.text, item.end).filter(|at| *at < inner.end)
    }

    /// Takes an item and its comma away, and its lines when nothing else stands on them.
    fn remove(&mut self, item: &Range<usize>, inner: &Range<usize>) {
        let comma = self.comma(item, inner);
        let between = self.text.get(item.end..comma.unwrap_or(item.end)).unwrap_or_default();
        if let Some(at) = comma.filter(|_| !between.trim().is_empty()) {
            self.put(item.clone(), "");
            self.put(at..at + 1, "");
            return;
        }
        let end = comma.map_or(item.end, |at| at + 1);
        let rest = self.text.get(end..inner.end).unwrap_or_default();
        let newline = rest.find('\n').filter(|at| rest.get(..*at).is_some_and(|rest| rest.trim().is_empty()));
        if let Some(newline) = newline.filter(|_| is_first(self.text, item.start)) {
            self.put(line_start(self.text, item.start)..end + newline + 1, "");
        } else if comma.is_some() {
            let bare = rest.trim_start_matches([' ', '\t']);
            self.put(item.start..end + (rest.len() - bare.len()), "");
        } else {
            let before = self.text.get(inner.start..item.start).unwrap_or_default();
            let bare = before.trim_end();
            // A comment to the end of its line must not swallow what comes next.
            let line = bare.rsplit('\n').next().unwrap_or_default();
            let start = if line.contains("//") { item.start } else { inner.start + bare.len() };
            self.put(start..item.end, "");
        }
    }

    /// Behind the comments that follow `at` in its line, if the line ends with them.
    fn line_end_comment(&self, at: usize, end: usize) -> usize {
        let rest = self.text.get(at..end).unwrap_or_default();
        let Some(length) = rest.find('\n') else { return at };
        let line = rest.get(..length).unwrap_or_default().trim_end();
        let bare = line.trim_start();
        let one =
            bare.starts_with("//") || (bare.starts_with("/*") && bare.find("*/") == Some(bare.len() - 2));
        if one { at + line.len() } else { at }
    }

    /// A value as it is written: below `indent`, or in one line.
    fn render(&self, value: &Json, indent: &str, one_line: bool) -> String {
        let unit = self.unit.as_deref().unwrap_or("  ");
        let deeper = format!("{indent}{unit}");
        let newline = self.newline;
        match value {
            Json::Object(members) if !members.is_empty() => {
                let member = |(key, value): (&String, &Json)| {
                    format!("{}: {}", quoted(key), self.render(value, &deeper, one_line))
                };
                let parts: Vec<String> = members.iter().map(member).collect();
                if one_line {
                    return format!("{{{}}}", parts.join(", "));
                }
                let parts = parts.join(&format!(",{newline}{deeper}"));
                format!("{{{newline}{deeper}{parts}{newline}{indent}}}")
            }
            Json::Array(values) if !values.is_empty() => {
                let plain = values.iter().all(|value| !value.is_object() && !value.is_array());
                let parts: Vec<String> =
                    values.iter().map(|value| self.render(value, &deeper, one_line)).collect();
                let line = format!("[{}]", parts.join(", "));
                if one_line || (plain && line.len() <= LINE_BYTES) {
                    return line;
                }
                let parts = parts.join(&format!(",{newline}{deeper}"));
                format!("[{newline}{deeper}{parts}{newline}{indent}]")
            }
            _ => value.to_string(),
        }
    }
}

fn quoted(key: &str) -> String {
    Json::String(key.to_owned()).to_string()
}
