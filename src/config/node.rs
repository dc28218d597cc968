//! One tree for JSON and YAML in which every value and key keeps its place.
//!
//! Numbers stay text, so that nothing is lost on the way to a meaning.

use std::collections::BTreeSet;

use crate::config::codes;
use crate::config::error::Sink;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    /// Byte offset of its first character.
    pub(crate) at: usize,
    /// What it is.
    pub(crate) value: Value,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// `null`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// A number as written.
    Number(String),
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// An object, in its order.
    Object(Vec<Member>),
}

/// One member of an object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Member {
    /// Its name.
    pub(crate) key: String,
    /// Byte offset of the name.
    pub(crate) key_at: usize,
    /// Its value.
    pub(crate) value: Node,
}

impl Member {
    /// A member.
    pub(crate) fn new(key: impl Into<String>, key_at: usize, value: Node) -> Self {
        Self { key: key.into(), key_at, value }
    }
}

impl Node {
    /// An object at `at`.
    pub(crate) fn object(at: usize, members: Vec<Member>) -> Self {
        Self { at, value: Value::Object(members) }
    }

    /// A string at `at`.
    pub(crate) fn text_at(at: usize, text: impl Into<String>) -> Self {
        Self { at, value: Value::Text(text.into()) }
    }

    /// Members of an object; none of anything else.
    pub(crate) fn members(&self) -> &[Member] {
        match &self.value {
            Value::Object(members) => members,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::List(_) => &[],
        }
    }

    /// The member `key` of an object.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.member(key).map(|member| &member.value)
    }

    /// The member `key` of an object, with its place.
    pub(crate) fn member(&self, key: &str) -> Option<&Member> {
        self.members().iter().find(|member| member.key == key)
    }

    /// Whether it is an object.
    pub(crate) fn is_object(&self) -> bool {
        matches!(self.value, Value::Object(_))
    }

    /// Whether it is `null`.
    pub(crate) fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// The string, when it is one.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::List(_) | Value::Object(_) => None,
        }
    }

    /// The number as written, when it is one.
    pub(crate) fn as_number(&self) -> Option<&str> {
        if let Value::Number(text) = &self.value { Some(text) } else { None }
    }

    /// The elements, when it is a list.
    pub(crate) fn as_list(&self) -> Option<&[Self]> {
        if let Value::List(items) = &self.value { Some(items) } else { None }
    }

    /// The boolean, when it is one.
    pub(crate) fn as_bool(&self) -> Option<bool> {
        match self.value {
            Value::Bool(value) => Some(value),
            Value::Null | Value::Number(_) | Value::Text(_) | Value::List(_) | Value::Object(_) => None,
        }
    }

    /// The elements of a list; none of anything else.
    pub(crate) fn items(&self) -> &[Self] {
        match &self.value {
            Value::List(items) => items,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::Object(_) => &[],
        }
    }

    /// A string, number or boolean as text.
    pub(crate) fn scalar(&self) -> Option<String> {
        match &self.value {
            Value::Text(text) => Some(text.clone()),
            Value::Number(number) => Some(number.clone()),
            Value::Bool(value) => Some(value.to_string()),
            Value::Null | Value::List(_) | Value::Object(_) => None,
        }
    }

    /// `a string`, `an object` …, for messages.
    pub(crate) const fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::Text(_) => "a string",
            Value::List(_) => "a list",
            Value::Object(_) => "an object",
        }
    }

    /// The same as plain JSON.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Number(number) => serde_json::from_str::<serde_json::Number>(number)
                .map_or_else(|_| Json::String(number.clone()), Json::Number),
            Value::Text(text) => Json::String(text.clone()),
            Value::List(items) => Json::Array(items.iter().map(Self::to_json).collect()),
            Value::Object(members) => Json::Object(
                members.iter().map(|member| (member.key.clone(), member.value.to_json())).collect(),
            ),
        }
    }

    /// Says every key that is there twice in this object or below.
    pub(crate) fn report_duplicates(&self, sink: &mut Sink<'_>) {
        let mut seen = BTreeSet::new();
        for member in self.members() {
            if !seen.insert(member.key.as_str()) {
                sink.error(
                    codes::DUPLICATE_KEY,
                    member.key_at,
                    format!("key '{}' is there twice", member.key),
                );
                sink.hint("remove one of them");
            }
            member.value.report_duplicates(sink);
        }
        for item in self.items() {
            item.report_duplicates(sink);
        }
    }
}
