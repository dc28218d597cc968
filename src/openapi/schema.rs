//! A tool's JSON Schema as schemas of an OpenAPI 3.1 document, whose dialect is JSON Schema 2020-12.
//!
//! ```text
//! #, #/$defs/X, #/properties/x     every place that is referred to becomes a component
//! keywords of earlier drafts       those of 2020-12 that mean the same
//! a reference within a cycle       wrapped in allOf: the same to a validator, and the end for clients
//!                                  that put what is referred to in the place of references
//! $id, anchors, other documents    the schema stays as it is, as a resource of its own
//! ```
//! What an instance must be to be valid does not change (`schema_tests`).
//!
//! Must never look for a schema outside the one it was given.

use crate::openapi::names;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Where components of a document are.
const COMPONENTS: &str = "#/components/schemas/";
/// Components of one schema; what refers to more places stays as it is.
const COMPONENTS_MAX: usize = 2000;
/// Keywords whose value is a schema.
const ONE: &[&str] = &[
    "additionalItems",
    "additionalProperties",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];
/// Keywords whose value is a list of schemas.
const MANY: &[&str] = &["allOf", "anyOf", "items", "oneOf", "prefixItems"];
/// Keywords whose value is a map of schemas.
const NAMED: &[&str] =
    &["$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties"];
/// Keywords that give a schema, or a part of it, a name of its own.
const OWN_NAME: &[&str] = &["$anchor", "$dynamicAnchor", "$dynamicRef", "$id", "$recursiveRef"];
/// Keywords that say nothing of instances.
const QUIET: &[&str] = &["$comment", "$defs", "$schema", "definitions", "description", "title"];

/// A schema of a document.
#[derive(Clone, Debug, PartialEq)]
pub struct Translated {
    /// To stand where the schema is used.
    pub schema: Value,
    /// What it refers to, by name.
    pub components: Vec<(String, Value)>,
    /// The schema as the server wrote it, where it could not be taken apart.
    pub whole: Option<Value>,
}

impl Translated {
    /// One schema that stands for itself and says the same.
    #[must_use]
    pub fn alone(&self) -> Value {
        if let Some(whole) = &self.whole {
            return whole.clone();
        }
        let mut schema = self.schema.clone();
        if let Some(object) = schema.as_object_mut().filter(|_| !self.components.is_empty()) {
            let components: Map<String, Value> = self.components.iter().cloned().collect();
            object.insert("components".to_owned(), json!({ "schemas": components }));
        }
        schema
    }
}

/// Translates a schema; the names of its components begin with `prefix`.
#[must_use]
pub fn translate(schema: &Value, prefix: &str) -> Translated {
    let Value::Object(_) = schema else {
        // Neither true nor false: then it says nothing.
        let schema = if schema.is_boolean() { schema.clone() } else { json!({}) };
        return Translated { schema, components: Vec::new(), whole: None };
    };
    taken_apart(schema, prefix).unwrap_or_else(|| as_it_is(schema, prefix))
}

/// The schema as a resource of its own.
fn as_it_is(schema: &Value, prefix: &str) -> Translated {
    let mut whole = schema.clone();
    if let Some(object) = whole.as_object_mut()
        && !object.get("$id").is_some_and(Value::is_string)
    {
        object.insert("$id".to_owned(), format!("urn:mcp-orchestrator:{prefix}").into());
    }
    let schema = json!({ "$ref": format!("{COMPONENTS}{prefix}") });
    Translated { schema, components: vec![(prefix.to_owned(), whole.clone())], whole: Some(whole) }
}

/// `None` for what cannot be taken apart.
fn taken_apart(schema: &Value, prefix: &str) -> Option<Translated> {
    let mut places: BTreeMap<String, (String, Value)> = BTreeMap::new();
    let mut open: Vec<String> = Vec::new();
    refer(schema, &mut open)?;
    for keyword in ["$defs", "definitions"] {
        let defs = schema.get(keyword).and_then(Value::as_object);
        open.extend(defs.into_iter().flat_map(Map::keys).map(|name| format!("/{keyword}/{}", escaped(name))));
    }
    while let Some(pointer) = open.pop() {
        if places.contains_key(&pointer) {
            continue;
        }
        let place = schema.pointer(&pointer).filter(|place| place.is_object() || place.is_boolean())?;
        refer(place, &mut open)?;
        let name = component_name(prefix, &pointer);
        if places.len() >= COMPONENTS_MAX || places.values().any(|(known, _)| *known == name) {
            return None;
        }
        places.insert(pointer, (name, place.clone()));
    }
    let cycles = cycles(&places);
    let names: BTreeMap<&str, &str> =
        places.iter().map(|(pointer, (name, _))| (pointer.as_str(), name.as_str())).collect();
    let render = |place: &Value, from: Option<&str>| {
        let to = |reference: &str| {
            let pointer = pointer_of(reference)?;
            let closes = from.is_some_and(|from| cycles.contains(&(from.to_owned(), pointer.clone())));
            Some((format!("{COMPONENTS}{}", names.get(pointer.as_str())?), closes))
        };
        translated(place, &to, true)
    };
    let components =
        places.iter().map(|(pointer, (name, place))| (name.clone(), render(place, Some(pointer)))).collect();
    // What clients look at first must have its properties at hand.
    let top = follow(schema, &places);
    Some(Translated { schema: render(top, None), components, whole: None })
}

/// The place that a schema which only refers to it means.
fn follow<'a>(schema: &'a Value, places: &'a BTreeMap<String, (String, Value)>) -> &'a Value {
    let mut at = schema;
    for _step in 0..places.len() {
        let Some(object) = at.as_object() else { break };
        let only = object.keys().all(|key| key == "$ref" || QUIET.contains(&key.as_str()));
        let target = object.get("$ref").and_then(Value::as_str).and_then(pointer_of);
        match target.and_then(|pointer| places.get(&pointer)) {
            Some((_, place)) if only => at = place,
            _ => break,
        }
    }
    at
}

/// The pointers that a schema refers to; `None` when a part of it has a name of its own or refers
/// elsewhere.
fn refer(schema: &Value, into: &mut Vec<String>) -> Option<()> {
    let Some(object) = schema.as_object() else { return Some(()) };
    if OWN_NAME.iter().any(|keyword| object.contains_key(*keyword)) {
        return None;
    }
    if let Some(reference) = object.get("$ref") {
        into.push(pointer_of(reference.as_str()?)?);
    }
    let mut whole = Some(());
    each_below(object, &mut |below| whole = whole.and_then(|()| refer(below, into)));
    whole
}

/// Visits the schemas directly below one.
fn each_below(object: &Map<String, Value>, visit: &mut dyn FnMut(&Value)) {
    for (keyword, value) in object {
        let keyword = keyword.as_str();
        match value {
            Value::Array(list) if MANY.contains(&keyword) => list.iter().for_each(&mut *visit),
            Value::Object(map) if NAMED.contains(&keyword) => map.values().for_each(&mut *visit),
            Value::Object(_) if ONE.contains(&keyword) => visit(value),
            _ => {}
        }
    }
}

/// `#…` as a JSON pointer; `None` for anchors and other documents.
pub(crate) fn pointer_of(reference: &str) -> Option<String> {
    let fragment = reference.strip_prefix('#')?;
    let pointer = unescaped(fragment)?;
    (pointer.is_empty() || pointer.starts_with('/')).then_some(pointer)
}

fn unescaped(fragment: &str) -> Option<String> {
    if !fragment.contains('%') {
        return Some(fragment.to_owned());
    }
    let mut out = Vec::with_capacity(fragment.len());
    let mut bytes = fragment.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|digit| char::from(digit).to_digit(16));
        let (high, low) = (digit()?, digit()?);
        out.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(out).ok()
}

/// A name as a step of a JSON pointer.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn component_name(prefix: &str, pointer: &str) -> String {
    let defined = ["/$defs/", "/definitions/"].iter().find_map(|root| pointer.strip_prefix(root));
    match defined {
        Some(name) if !name.contains('/') => format!("{prefix}.{}", names::word(name)),
        _ if pointer.is_empty() => prefix.to_owned(),
        _ => format!("{prefix}.{}", names::word(pointer)),
    }
}

/// References, as from and to, that can be followed back to where they stand.
fn cycles(places: &BTreeMap<String, (String, Value)>) -> BTreeSet<(String, String)> {
    let mut edges: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (pointer, (_, place)) in places {
        let mut to = Vec::new();
        // All of them could be read before.
        let _whole = refer(place, &mut to);
        edges.insert(pointer, to.into_iter().collect());
    }
    let reaches = |from: &str, to: &str| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(at) = open.pop() {
            if at == to {
                return true;
            }
            if seen.insert(at) {
                open.extend(edges.get(at).into_iter().flatten().map(String::as_str));
            }
        }
        false
    };
    let all = edges.iter().flat_map(|(from, to)| to.iter().map(|to| ((*from).to_owned(), to.clone())));
    all.filter(|(from, to)| reaches(to, from)).collect()
}

/// Where a reference leads now, and whether it closes a cycle.
type To<'a> = dyn Fn(&str) -> Option<(String, bool)> + 'a;

fn translated(schema: &Value, to: &To<'_>, top: bool) -> Value {
    let Some(object) = schema.as_object() else { return schema.clone() };
    let mut out = Map::new();
    for (keyword, value) in object {
        let name = keyword.as_str();
        // Components have their own; what is said of the dialect holds for the whole document.
        if name == "$schema" || (top && matches!(name, "$defs" | "definitions")) {
            continue;
        }
        let value = match value {
            Value::Array(list) if MANY.contains(&name) => {
                list.iter().map(|below| translated(below, to, false)).collect()
            }
            Value::Object(map) if NAMED.contains(&name) => {
                let below = map.iter().map(|(key, below)| (key.clone(), translated(below, to, false)));
                Value::Object(below.collect())
            }
            Value::Object(_) if ONE.contains(&name) => translated(value, to, false),
            _ => value.clone(),
        };
        out.insert(keyword.clone(), value);
    }
    refer_anew(&mut out, to);
    renew(&mut out);
    Value::Object(out)
}

fn refer_anew(schema: &mut Map<String, Value>, to: &To<'_>) {
    let Some((target, closes)) = schema.get("$ref").and_then(Value::as_str).and_then(to) else { return };
    if !closes {
        schema.insert("$ref".to_owned(), target.into());
        return;
    }
    schema.shift_remove("$ref");
    let reference = json!({ "$ref": target });
    match schema.get_mut("allOf").and_then(Value::as_array_mut) {
        Some(all) => all.push(reference),
        None => {
            schema.insert("allOf".to_owned(), json!([reference]));
        }
    }
}

/// Keywords of earlier drafts, and of OpenAPI 3.0, in those of 2020-12.
fn renew(schema: &mut Map<String, Value>) {
    if schema.get("items").is_some_and(Value::is_array) {
        let rest = schema.shift_remove("additionalItems");
        if let Some(items) = schema.shift_remove("items") {
            schema.insert("prefixItems".to_owned(), items);
        }
        schema.extend(rest.map(|rest| ("items".to_owned(), rest)));
    } else {
        schema.shift_remove("additionalItems");
    }
    if let Some(Value::Object(all)) = schema.shift_remove("dependencies") {
        for (key, value) in all {
            let keyword = if value.is_array() { "dependentRequired" } else { "dependentSchemas" };
            let map = schema.entry(keyword).or_insert_with(|| json!({}));
            if let Some(map) = map.as_object_mut() {
                map.insert(key, value);
            }
        }
    }
    for (exclusive, bound) in [("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")] {
        match schema.get(exclusive) {
            Some(Value::Bool(true)) => {
                schema.shift_remove(exclusive);
                if let Some(limit) = schema.shift_remove(bound) {
                    schema.insert(exclusive.to_owned(), limit);
                }
            }
            Some(Value::Bool(false)) => {
                schema.shift_remove(exclusive);
            }
            _ => {}
        }
    }
    if schema.get("nullable") == Some(&Value::Bool(true))
        && let Some(Value::String(kind)) = schema.get("type").cloned()
    {
        schema.shift_remove("nullable");
        schema.insert("type".to_owned(), json!([kind, "null"]));
    }
}
