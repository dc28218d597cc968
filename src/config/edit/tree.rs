//! The text of a JSON file as a tree that knows where everything stands, and what stands between.

use jsonc_parser::ast::{ObjectPropName, Value as Ast};
use jsonc_parser::common::Ranged as _;
use jsonc_parser::{CollectOptions, parse_to_ast};
use serde_json::{Map, Value as Json};
use std::ops::Range;

use crate::config::json::OPTIONS;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tree {
    /// From its first byte to behind its last.
    pub(super) range: Range<usize>,
    /// What it is.
    pub(super) kind: Kind,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// Anything without parts.
    Scalar(Json),
    /// A list.
    List(Vec<Tree>),
    /// An object, in its order.
    Object(Vec<Entry>),
}

/// One member of an object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    /// Its name.
    pub(super) key: String,
    /// Where its name begins, quote included.
    pub(super) start: usize,
    /// Its value.
    pub(super) value: Tree,
}

/// Reads `text`, which has been read without a fault before. No text is an empty object in front of
/// it all.
pub(super) fn read(text: &str) -> Option<Tree> {
    match parse_to_ast(text, &CollectOptions::default(), &OPTIONS) {
        Ok(parsed) => match parsed.value {
            Some(value) => Some(convert(value)),
            None => Some(Tree { range: 0..0, kind: Kind::Object(Vec::new()) }),
        },
        Err(_broken) => None,
    }
}

fn convert(ast: Ast<'_>) -> Tree {
    let range = ast.start()..ast.end();
    let kind = match ast {
        Ast::NullKeyword(_) => Kind::Scalar(Json::Null),
        Ast::BooleanLit(literal) => Kind::Scalar(Json::Bool(literal.value)),
        Ast::NumberLit(literal) => Kind::Scalar(
            serde_json::from_str::<serde_json::Number>(literal.value)
                .map_or_else(|_odd| Json::String(literal.value.to_owned()), Json::Number),
        ),
        Ast::StringLit(literal) => Kind::Scalar(Json::String(literal.value.into_owned())),
        Ast::Array(array) => Kind::List(array.elements.into_iter().map(convert).collect()),
        Ast::Object(object) => Kind::Object(
            object
                .properties
                .into_iter()
                .map(|property| {
                    let start = property.name.start();
                    let key = match property.name {
                        ObjectPropName::String(literal) => literal.value.into_owned(),
                        ObjectPropName::Word(word) => word.value.to_owned(),
                    };
                    Entry { key, start, value: convert(property.value) }
                })
                .collect(),
        ),
    };
    Tree { range, kind }
}

impl Tree {
    /// Members of an object; none of anything else.
    pub(super) fn entries(&self) -> &[Entry] {
        if let Kind::Object(entries) = &self.kind { entries } else { &[] }
    }

    /// Elements of a list; none of anything else.
    pub(super) fn elements(&self) -> &[Self] {
        if let Kind::List(elements) = &self.kind { elements } else { &[] }
    }

    /// The member `key` of an object.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// The string, when it is one.
    pub(super) fn text(&self) -> Option<&str> {
        if let Kind::Scalar(Json::String(text)) = &self.kind { Some(text) } else { None }
    }

    /// Whether it is an object.
    pub(super) const fn is_object(&self) -> bool {
        matches!(self.kind, Kind::Object(_))
    }

    /// Where its parts stand, names of members included.
    pub(super) fn items(&self) -> Vec<Range<usize>> {
        match &self.kind {
            Kind::Scalar(_) => Vec::new(),
            Kind::List(elements) => elements.iter().map(|element| element.range.clone()).collect(),
            Kind::Object(entries) => entries.iter().map(|entry| entry.start..entry.value.range.end).collect(),
        }
    }

    /// The same as plain JSON.
    pub(super) fn json(&self) -> Json {
        match &self.kind {
            Kind::Scalar(value) => value.clone(),
            Kind::List(elements) => Json::Array(elements.iter().map(Self::json).collect()),
            Kind::Object(entries) => {
                let pairs = entries.iter().map(|entry| (entry.key.clone(), entry.value.json()));
                Json::Object(pairs.collect::<Map<String, Json>>())
            }
        }
    }

    /// Whether no name is there twice.
    pub(super) fn is_unique(&self) -> bool {
        let entries = self.entries();
        let names: std::collections::BTreeSet<&str> =
            entries.iter().map(|entry| entry.key.as_str()).collect();
        names.len() == entries.len()
    }
}

/// Where the comma stands that follows `from`, past white space and comments.
pub(super) fn comma_after(text: &str, from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        let rest = text.get(at..)?;
        let bare = rest.trim_start();
        at += rest.len() - bare.len();
        if bare.starts_with("//") {
            at += bare.find('\n')?;
        } else if bare.starts_with("/*") {
            at += bare.find("*/")? + 2;
        } else {
            return bare.starts_with(',').then_some(at);
        }
    }
}

/// Where the line of `at` begins.
pub(super) fn line_start(text: &str, at: usize) -> usize {
    text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1)
}

/// The white space that the line of `at` begins with.
pub(super) fn indent_at(text: &str, at: usize) -> &str {
    let line = text.get(line_start(text, at)..).unwrap_or_default();
    let bare = line.trim_start_matches([' ', '\t']);
    line.get(..line.len() - bare.len()).unwrap_or_default()
}

/// Whether nothing but white space stands before `at` in its line.
pub(super) fn is_first(text: &str, at: usize) -> bool {
    line_start(text, at) + indent_at(text, at).len() == at
}

/// Where the comments of `text` stand, their marks included.
pub(super) fn comments(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..) {
        let Some(next) = rest.find(['"', '/']) else { break };
        let from = at + next;
        let rest = text.get(from..).unwrap_or_default();
        let length = if rest.starts_with('"') {
            string_length(rest)
        } else if rest.starts_with("//") {
            let length = rest.find('\n').unwrap_or(rest.len());
            found.push(from..from + length);
            length
        } else if rest.starts_with("/*") {
            let length = rest.find("*/").map_or(rest.len(), |end| end + 2);
            found.push(from..from + length);
            length
        } else {
            1
        };
        at = from + length.max(1);
    }
    found
}

/// Bytes of the string that `rest` begins with, quotes included.
pub(super) fn string_length(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}
