//! A value against a JSON Schema 2020-12, to tell callers what is wrong before a server does.
//!
//! Held: types, values, bounds, patterns, arrays, objects, combinations, conditions, references within the
//! schema. Not held: `format`, `unevaluated…`, patterns with look-around, anchors, other documents; what
//! they say is left to the server, which checks everything anyway. Work is bounded whatever a schema says.
//!
//! Must never put a value into what it says, and never refuse what the schema allows.

use crate::openapi::schema::pointer_of;
use regex_lite::Regex;
use serde_json::{Map, Number, Value};
use std::collections::BTreeMap;

/// Faults that are told.
pub const FAULTS_MAX: usize = 32;
/// Schemas that one check looks at; the rest is left to the server.
const STEPS_MAX: usize = 100_000;
/// Schemas within schemas within references.
const DEPTH_MAX: usize = 256;
/// Items that are compared with each other.
const UNIQUE_MAX: usize = 500;
/// Characters of a pattern that is used.
const PATTERN_CHARS_MAX: usize = 1000;
/// How far a quotient may be from a whole number.
const ROUNDING: f64 = 1e-9;

/// One step into a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A member.
    Key(String),
    /// An item.
    Index(usize),
}

/// What is wrong at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub at: Vec<Step>,
    /// What, as clients of mcpo know it.
    pub kind: &'static str,
    /// In words.
    pub message: String,
    /// Types that are expected there, where another was found.
    pub expected: Vec<String>,
}

/// A schema, ready to check values.
#[derive(Debug)]
pub struct Checker {
    schema: Value,
    patterns: BTreeMap<String, Regex>,
}

impl Checker {
    /// For a schema that stands for itself.
    #[must_use]
    pub fn new(schema: Value) -> Self {
        let mut patterns = BTreeMap::new();
        collect(&schema, &mut patterns);
        Self { schema, patterns }
    }

    /// The schema.
    #[must_use]
    pub const fn schema(&self) -> &Value {
        &self.schema
    }

    /// What is wrong with a value; nothing when it is valid.
    #[must_use]
    pub fn faults(&self, value: &Value) -> Vec<Fault> {
        self.judged(value).unwrap_or_default()
    }

    /// The same; `None` where work ended before its time, as with a schema that asks for itself without
    /// end: then nothing is known.
    pub(crate) fn judged(&self, value: &Value) -> Option<Vec<Fault>> {
        let mut walk = Walk { checker: self, at: Vec::new(), steps: 0, depth: 0, lost: false };
        let mut faults = Vec::new();
        walk.check(&self.schema, value, &mut faults);
        faults.truncate(FAULTS_MAX);
        (!walk.lost).then_some(faults)
    }
}

/// Patterns anywhere in a schema; text that is none does no harm.
fn collect(schema: &Value, patterns: &mut BTreeMap<String, Regex>) {
    let mut keep = |pattern: &str| {
        if pattern.len() <= PATTERN_CHARS_MAX
            && !patterns.contains_key(pattern)
            && let Ok(regex) = Regex::new(pattern)
        {
            patterns.insert(pattern.to_owned(), regex);
        }
    };
    match schema {
        Value::Object(map) => {
            map.get("pattern").and_then(Value::as_str).into_iter().for_each(&mut keep);
            let named = map.get("patternProperties").and_then(Value::as_object);
            named.into_iter().flat_map(Map::keys).for_each(|pattern| keep(pattern));
            map.values().for_each(|below| collect(below, patterns));
        }
        Value::Array(list) => list.iter().for_each(|below| collect(below, patterns)),
        _ => {}
    }
}

struct Walk<'a> {
    checker: &'a Checker,
    at: Vec<Step>,
    steps: usize,
    depth: usize,
    /// Whether work ended before its time.
    lost: bool,
}

type Schema = Map<String, Value>;

impl<'a> Walk<'a> {
    fn check(&mut self, schema: &'a Value, value: &Value, out: &mut Vec<Fault>) {
        self.steps += 1;
        self.lost |= self.steps > STEPS_MAX || self.depth > DEPTH_MAX;
        if self.lost || out.len() > FAULTS_MAX {
            return;
        }
        match schema {
            Value::Bool(false) => self.fault(out, "not_allowed", "nothing is allowed here"),
            Value::Object(schema) => {
                self.depth += 1;
                self.check_all(schema, value, out);
                self.depth -= 1;
            }
            _ => {}
        }
    }

    fn check_all(&mut self, schema: &'a Schema, value: &Value, out: &mut Vec<Fault>) {
        if let Some(target) = schema.get("$ref").and_then(Value::as_str).and_then(|to| self.target(to)) {
            self.check(target, value, out);
        }
        let before = out.len();
        self.kind(schema, value, out);
        // What is of another type breaks no bounds.
        if out.len() == before {
            self.constant(schema, value, out);
            match value {
                Value::Number(number) => self.number(schema, number, out),
                Value::String(text) => self.text(schema, text, out),
                Value::Array(items) => self.items(schema, items, out),
                Value::Object(members) => self.members(schema, members, out),
                Value::Null | Value::Bool(_) => {}
            }
        }
        self.combined(schema, value, out);
    }

    /// What a reference within the schema leads to.
    fn target(&self, reference: &str) -> Option<&'a Value> {
        self.checker.schema.pointer(&pointer_of(reference)?)
    }

    fn fault(&self, out: &mut Vec<Fault>, kind: &'static str, message: impl Into<String>) {
        out.push(Fault { at: self.at.clone(), kind, message: message.into(), expected: Vec::new() });
    }

    fn below(&mut self, step: Step, schema: &'a Value, value: &Value, out: &mut Vec<Fault>) {
        self.at.push(step);
        self.check(schema, value, out);
        self.at.pop();
    }

    /// Whether a value is valid; what is wrong with it does not matter.
    fn is_valid(&mut self, schema: &'a Value, value: &Value) -> bool {
        let mut faults = Vec::new();
        self.check(schema, value, &mut faults);
        faults.is_empty()
    }

    fn kind(&self, schema: &Schema, value: &Value, out: &mut Vec<Fault>) {
        let expected: Vec<String> = match schema.get("type") {
            Some(Value::String(kind)) => vec![kind.clone()],
            Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => return,
        };
        // A type that nobody knows is the server's business.
        let known = |kind: &String| !KINDS.iter().any(|(name, _)| name == kind);
        if expected.is_empty() || expected.iter().any(known) || expected.iter().any(|kind| is_a(value, kind))
        {
            return;
        }
        let kind = match expected.as_slice() {
            [one] => KINDS.iter().find(|(name, _)| name == one).map_or("type_error", |(_, kind)| kind),
            _ => "type_error",
        };
        let message = format!("Input should be of type {}", expected.join(" or "));
        out.push(Fault { at: self.at.clone(), kind, message, expected });
    }

    fn constant(&self, schema: &Schema, value: &Value, out: &mut Vec<Fault>) {
        if let Some(all) = schema.get("enum").and_then(Value::as_array)
            && !all.iter().any(|one| same(one, value))
        {
            let shown: Vec<String> = all.iter().map(ToString::to_string).collect();
            self.fault(out, "literal_error", format!("Input should be one of {}", shown.join(", ")));
        }
        if let Some(one) = schema.get("const")
            && !same(one, value)
        {
            self.fault(out, "literal_error", format!("Input should be {one}"));
        }
    }

    fn number(&self, schema: &Schema, number: &Number, out: &mut Vec<Fault>) {
        let bound = |keyword: &str| schema.get(keyword).and_then(Value::as_number);
        let cases: [(&str, &'static str, &str, Breaks); 4] = [
            ("minimum", "greater_than_equal", "at least", |order| order.is_lt()),
            ("maximum", "less_than_equal", "at most", |order| order.is_gt()),
            ("exclusiveMinimum", "greater_than", "greater than", |order| order.is_le()),
            ("exclusiveMaximum", "less_than", "less than", |order| order.is_ge()),
        ];
        for (keyword, kind, words, breaks) in cases {
            if let Some(limit) = bound(keyword)
                && compared(number, limit).is_some_and(breaks)
            {
                self.fault(out, kind, format!("Input should be {words} {limit}"));
            }
        }
        let parts = bound("multipleOf").and_then(Number::as_f64).zip(number.as_f64());
        if let Some((part, number)) = parts.filter(|(part, _)| *part > 0.0) {
            let times = number / part;
            if times.is_finite() && (times - times.round()).abs() > ROUNDING * times.abs().max(1.0) {
                self.fault(out, "multiple_of", format!("Input should be a multiple of {part}"));
            }
        }
    }

    fn text(&self, schema: &Schema, text: &str, out: &mut Vec<Fault>) {
        let chars = text.chars().count();
        if let Some(least) = size(schema, "minLength").filter(|least| chars < *least) {
            self.fault(out, "string_too_short", format!("String should have at least {least} characters"));
        }
        if let Some(most) = size(schema, "maxLength").filter(|most| chars > *most) {
            self.fault(out, "string_too_long", format!("String should have at most {most} characters"));
        }
        let pattern = schema.get("pattern").and_then(Value::as_str);
        let regex = pattern.and_then(|pattern| self.checker.patterns.get(pattern));
        if let Some(regex) = regex.filter(|regex| !regex.is_match(text)) {
            self.fault(out, "string_pattern_mismatch", format!("String should match pattern '{regex}'"));
        }
    }

    fn items(&mut self, schema: &'a Schema, items: &[Value], out: &mut Vec<Fault>) {
        if let Some(least) = size(schema, "minItems").filter(|least| items.len() < *least) {
            self.fault(out, "too_short", format!("List should have at least {least} items"));
        }
        if let Some(most) = size(schema, "maxItems").filter(|most| items.len() > *most) {
            self.fault(out, "too_long", format!("List should have at most {most} items"));
        }
        let unique = schema.get("uniqueItems") == Some(&Value::Bool(true)) && items.len() <= UNIQUE_MAX;
        let twice = |(n, one): (usize, &Value)| items.iter().take(n).any(|other| same(one, other));
        if unique && items.iter().enumerate().any(twice) {
            self.fault(out, "not_unique", "List should have no item twice");
        }
        let first = schema.get("prefixItems").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let rest = schema.get("items").filter(|rest| rest.is_object() || rest.is_boolean());
        for (n, item) in items.iter().enumerate() {
            if let Some(schema) = first.get(n).or(rest) {
                self.below(Step::Index(n), schema, item, out);
            }
        }
        if let Some(wanted) = schema.get("contains") {
            let found = items.iter().filter(|item| self.is_valid(wanted, item)).count();
            let (least, most) = (size(schema, "minContains").unwrap_or(1), size(schema, "maxContains"));
            if found < least || most.is_some_and(|most| found > most) {
                self.fault(out, "contains", "List should have another number of matching items");
            }
        }
    }

    fn members(&mut self, schema: &'a Schema, members: &Map<String, Value>, out: &mut Vec<Fault>) {
        self.counted(schema, members, out);
        let map = |keyword: &str| schema.get(keyword).and_then(Value::as_object);
        let (properties, patterned) = (map("properties"), map("patternProperties"));
        let rest = schema.get("additionalProperties");
        for (key, member) in members {
            let named = properties.and_then(|properties| properties.get(key));
            let mut known = named.is_some();
            if let Some(schema) = named {
                self.below(Step::Key(key.clone()), schema, member, out);
            }
            for (pattern, schema) in patterned.into_iter().flatten() {
                // What cannot be told is taken for known.
                let regex = self.checker.patterns.get(pattern);
                known |= regex.is_none_or(|regex| regex.is_match(key));
                if regex.is_some_and(|regex| regex.is_match(key)) {
                    self.below(Step::Key(key.clone()), schema, member, out);
                }
            }
            match rest {
                Some(Value::Bool(false)) if !known => {
                    self.at.push(Step::Key(key.clone()));
                    self.fault(out, "extra_forbidden", "Extra inputs are not permitted");
                    self.at.pop();
                }
                Some(rest) if !known => self.below(Step::Key(key.clone()), rest, member, out),
                _ => {}
            }
            if let Some(names) = schema.get("propertyNames")
                && !self.is_valid(names, &Value::String(key.clone()))
            {
                self.fault(out, "invalid_key", "Keys should be as the schema has them");
            }
        }
        for (key, schema) in map("dependentSchemas").into_iter().flatten() {
            if members.contains_key(key) {
                self.check(schema, &Value::Object(members.clone()), out);
            }
        }
    }

    fn counted(&mut self, schema: &'a Schema, members: &Map<String, Value>, out: &mut Vec<Fault>) {
        if let Some(least) = size(schema, "minProperties").filter(|least| members.len() < *least) {
            self.fault(out, "too_short", format!("Object should have at least {least} members"));
        }
        if let Some(most) = size(schema, "maxProperties").filter(|most| members.len() > *most) {
            self.fault(out, "too_long", format!("Object should have at most {most} members"));
        }
        let list = |value: Option<&'a Value>| value.and_then(Value::as_array).into_iter().flatten();
        let dependent = schema.get("dependentRequired").and_then(Value::as_object).into_iter().flatten();
        let dependent = dependent.filter(|(key, _)| members.contains_key(*key));
        let wanted = list(schema.get("required")).chain(dependent.flat_map(|(_, keys)| list(Some(keys))));
        for key in wanted.filter_map(Value::as_str).filter(|key| !members.contains_key(*key)) {
            self.at.push(Step::Key(key.to_owned()));
            self.fault(out, "missing", "Field required");
            self.at.pop();
        }
    }

    fn combined(&mut self, schema: &'a Schema, value: &Value, out: &mut Vec<Fault>) {
        let list = |keyword: &str| schema.get(keyword).and_then(Value::as_array);
        for one in list("allOf").into_iter().flatten() {
            self.check(one, value, out);
        }
        if let Some(all) = list("anyOf") {
            self.one_of(all, value, (out, false));
        }
        if let Some(all) = list("oneOf") {
            self.one_of(all, value, (out, true));
        }
        if schema.get("not").is_some_and(|not| self.is_valid(not, value)) {
            self.fault(out, "not_allowed", "Input should not be as it is");
        }
        if let Some(condition) = schema.get("if") {
            let then = if self.is_valid(condition, value) { "then" } else { "else" };
            if let Some(then) = schema.get(then) {
                self.check(then, value, out);
            }
        }
    }

    /// Some alternative, or exactly one, must fit. Told is what is wrong with the one that fits best.
    fn one_of(&mut self, all: &'a [Value], value: &Value, (out, exactly): (&mut Vec<Fault>, bool)) {
        let mut fits = 0;
        let mut best: Option<Vec<Fault>> = None;
        let mut expected: Vec<String> = Vec::new();
        for one in all {
            let mut faults = Vec::new();
            self.check(one, value, &mut faults);
            if faults.is_empty() {
                fits += 1;
                continue;
            }
            let other_kind = faults.iter().any(|fault| fault.at == self.at && !fault.expected.is_empty());
            if other_kind {
                expected
                    .extend(faults.into_iter().filter(|fault| fault.at == self.at).flat_map(|f| f.expected));
            } else if best.as_ref().is_none_or(|best| faults.len() < best.len()) {
                best = Some(faults);
            }
        }
        if fits > 0 && !(exactly && fits > 1) {
            return;
        }
        match best {
            _ if fits > 1 => self.fault(out, "union_error", "Input should fit one alternative alone"),
            Some(faults) => out.extend(faults),
            None if expected.is_empty() => self.fault(out, "union_error", "Input should fit an alternative"),
            None => {
                expected.dedup();
                let message = format!("Input should be of type {}", expected.join(" or "));
                out.push(Fault { at: self.at.clone(), kind: "type_error", message, expected });
            }
        }
    }
}

/// Whether an order breaks a bound.
type Breaks = fn(std::cmp::Ordering) -> bool;

/// Types, and what clients of mcpo call a value of another one.
const KINDS: &[(&str, &str)] = &[
    ("array", "list_type"),
    ("boolean", "bool_type"),
    ("integer", "int_type"),
    ("null", "none_required"),
    ("number", "float_type"),
    ("object", "dict_type"),
    ("string", "string_type"),
];

fn is_a(value: &Value, kind: &str) -> bool {
    match kind {
        "array" => value.is_array(),
        "boolean" => value.is_boolean(),
        "integer" => {
            let whole = |number: f64| number.fract() == 0.0;
            value.is_i64() || value.is_u64() || value.as_f64().is_some_and(whole)
        }
        "null" => value.is_null(),
        "number" => value.is_number(),
        "object" => value.is_object(),
        "string" => value.is_string(),
        _ => true,
    }
}

fn size(schema: &Schema, keyword: &str) -> Option<usize> {
    let number = schema.get(keyword)?.as_number()?;
    let whole =
        number.as_u64().or_else(|| number.as_f64().filter(|n| n.fract() == 0.0)?.to_string().parse().ok());
    whole.and_then(|whole| usize::try_from(whole).ok())
}

fn compared(a: &Number, b: &Number) -> Option<std::cmp::Ordering> {
    match (a.as_i128(), b.as_i128()) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}

/// Whether values are equal, numbers by what they say.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compared(a, b).is_some_and(std::cmp::Ordering::is_eq),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}
