//! A request's body as the arguments of a tool, or what is wrong with it.
//!
//! What the schema allows passes byte for byte. What it does not is looked at once more as mcpo takes it:
//! numbers and truth values that were written as text, and members that are null where the schema knows
//! no null. Anything else is answered with 422 in the shape of FastAPI.
//!
//! Must never put a value into an error: it may be a secret.

use crate::openapi::answer::Answer;
use crate::openapi::check::{Checker, Fault, Step};
use crate::openapi::schema::Translated;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;

/// Times a body is mended: each may show what the one before hid.
const ROUNDS_MAX: usize = 3;
/// Levels of an example.
const EXAMPLE_DEPTH: usize = 4;

/// Checks a tool's arguments.
#[derive(Debug)]
pub struct Arguments(Checker);

impl Arguments {
    /// By the schema that the document shows.
    #[must_use]
    pub fn new(schema: &Translated) -> Self {
        Self(Checker::new(schema.alone()))
    }

    /// The schema.
    #[must_use]
    pub const fn schema(&self) -> &Value {
        self.0.schema()
    }

    /// The arguments in a body. An empty one says nothing, which is an empty object.
    ///
    /// # Errors
    /// The answer to give instead.
    pub fn check(&self, body: &[u8]) -> Result<Box<RawValue>, Answer> {
        let text = std::str::from_utf8(body).map_err(|error| not_json(error.valid_up_to()))?;
        let text = if text.trim().is_empty() { "{}" } else { text };
        let raw: &RawValue = serde_json::from_str(text).map_err(|error| not_json(place(text, &error)))?;
        let value: Value = serde_json::from_str(raw.get()).map_err(|error| not_json(place(text, &error)))?;
        if !value.is_object() {
            return Err(refusal(&[said(&[], "model_attributes_type", "Input should be a valid object")]));
        }
        let faults = self.0.faults(&value);
        if faults.is_empty() {
            return Ok(raw.to_owned());
        }
        if let Some(mended) = self.mended(value, &faults)
            && let Ok(raw) = RawValue::from_string(mended.to_string())
        {
            return Ok(raw);
        }
        let all: Vec<Value> =
            faults.iter().map(|fault| said(&fault.at, fault.kind, &fault.message)).collect();
        Err(refusal(&all))
    }

    /// What was meant, if that is valid.
    fn mended(&self, mut value: Value, faults: &[Fault]) -> Option<Value> {
        let mut faults = faults.to_vec();
        for _round in 0..ROUNDS_MAX {
            for fault in &faults {
                mend(&mut value, fault)?;
            }
            faults = self.0.faults(&value);
            if faults.is_empty() {
                return Some(value);
            }
        }
        None
    }

    /// Arguments to begin with; `None` when there are none to give.
    #[must_use]
    pub fn example(&self) -> Option<Value> {
        let properties = self.schema().get("properties").and_then(Value::as_object)?;
        (!properties.is_empty()).then(|| self.like(self.schema(), EXAMPLE_DEPTH))
    }

    fn like(&self, schema: &Value, depth: usize) -> Value {
        let given = ["default", "const"].iter().find_map(|key| schema.get(*key));
        let listed = ["examples", "enum"].iter().find_map(|key| schema.get(*key)?.as_array()?.first());
        if let Some(value) = given.or(listed) {
            return value.clone();
        }
        let target = schema.get("$ref").and_then(Value::as_str);
        let target = target.and_then(crate::openapi::schema::pointer_of);
        let target = target.and_then(|pointer| self.schema().pointer(&pointer));
        let first = ["anyOf", "oneOf", "allOf"].iter().find_map(|key| schema.get(*key)?.as_array()?.first());
        if let Some(other) = target.or(first).filter(|_| depth > 0) {
            return self.like(other, depth - 1);
        }
        let kind = match schema.get("type") {
            Some(Value::Array(kinds)) => kinds.first().and_then(Value::as_str),
            Some(kind) => kind.as_str(),
            None => schema.get("properties").map(|_| "object"),
        };
        match kind {
            Some("object") if depth > 0 => self.members(schema, depth),
            Some("object") => json!({}),
            Some("array") => json!([]),
            Some("integer" | "number") => schema.get("minimum").cloned().unwrap_or_else(|| json!(0)),
            Some("boolean") => json!(false),
            Some("null") => Value::Null,
            _ => json!(""),
        }
    }

    /// What is required, and all where nothing is.
    fn members(&self, schema: &Value, depth: usize) -> Value {
        let required = schema.get("required").and_then(Value::as_array);
        let required: Vec<&str> = required.into_iter().flatten().filter_map(Value::as_str).collect();
        let properties = schema.get("properties").and_then(Value::as_object);
        let wanted = properties.into_iter().flatten();
        let wanted = wanted.filter(|(key, _)| required.is_empty() || required.contains(&key.as_str()));
        let members: Map<String, Value> =
            wanted.map(|(key, schema)| (key.clone(), self.like(schema, depth - 1))).collect();
        Value::Object(members)
    }
}

/// Puts right what a fault is about; `None` when that cannot be.
fn mend(value: &mut Value, fault: &Fault) -> Option<()> {
    if fault.expected.is_empty() {
        return None;
    }
    let wrong = value.pointer_mut(&pointer(&fault.at))?;
    if wrong.is_null() {
        let (last, above) = fault.at.split_last()?;
        let Step::Key(key) = last else { return None };
        value.pointer_mut(&pointer(above))?.as_object_mut()?.shift_remove(key);
        return Some(());
    }
    let text = wrong.as_str()?.trim();
    let is = |kind: &str| fault.expected.iter().any(|expected| expected == kind);
    let meant: Value = serde_json::from_str(&text.to_ascii_lowercase()).ok()?;
    let fits =
        (meant.is_number() && (is("number") || is("integer"))) || (meant.is_boolean() && is("boolean"));
    fits.then(|| *wrong = meant)
}

fn pointer(at: &[Step]) -> String {
    let mut out = String::new();
    for step in at {
        // Writing to a text does not fail.
        let _written = match step {
            Step::Key(key) => write!(out, "/{}", key.replace('~', "~0").replace('/', "~1")),
            Step::Index(n) => write!(out, "/{n}"),
        };
    }
    out
}

/// Where a text ceases to be JSON, in bytes.
fn place(text: &str, error: &serde_json::Error) -> usize {
    let before: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    (before + error.column()).min(text.len())
}

fn not_json(at: usize) -> Answer {
    refusal(&[json!({ "type": "json_invalid", "loc": ["body", at], "msg": "JSON decode error" })])
}

fn said(at: &[Step], kind: &str, message: &str) -> Value {
    let steps = at.iter().map(|step| match step {
        Step::Key(key) => Value::from(key.as_str()),
        Step::Index(n) => Value::from(*n),
    });
    let loc: Vec<Value> = std::iter::once(Value::from("body")).chain(steps).collect();
    json!({ "type": kind, "loc": loc, "msg": message })
}

fn refusal(all: &[Value]) -> Answer {
    Answer::error(422, &json!(all))
}

#[cfg(test)]
mod tests {
    use super::Arguments;
    use crate::openapi::schema::translate;
    use serde_json::{Value, json};

    fn arguments(schema: &Value) -> Arguments {
        Arguments::new(&translate(schema, "t"))
    }

    #[test]
    fn what_is_allowed_passes_as_it_is() {
        let any = arguments(&json!({"type": "object"}));
        for body in [r#"{"a":1.0, "b" : 18446744073709551617}"#, "{}"] {
            assert_eq!(any.check(body.as_bytes()).expect("good").get(), body);
        }
        assert_eq!(any.check(b" \n").expect("good").get(), "{}");
    }

    #[test]
    fn what_is_no_object_is_told_with_its_place() {
        let any = arguments(&json!({"type": "object"}));
        for (body, loc) in [
            (&b"{\"a\": "[..], json!(["body", 6])),
            (b"{\n\"a\": x}", json!(["body", 8])),
            (b"\xff", json!(["body", 0])),
            (b"{} {}", json!(["body", 4])),
            (b"[]", json!(["body"])),
            (b"null", json!(["body"])),
        ] {
            let refused = any.check(body).expect_err("bad");
            let answer: Value = serde_json::from_str(&refused.body).expect("JSON");
            assert_eq!((refused.status, &answer["detail"][0]["loc"]), (422, &loc), "{body:?}");
        }
    }

    #[test]
    fn only_what_was_meant_is_mended() {
        let schema = json!({"type": "object", "additionalProperties": false, "required": ["n"], "properties": {
            "n": {"type": "integer"}, "on": {"type": "boolean"}, "text": {"type": "string"},
            "list": {"type": "array", "items": {"type": "number"}}, "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}]}}});
        let arguments = arguments(&schema);
        let check = |body: Value| arguments.check(body.to_string().as_bytes()).ok();
        for (body, meant) in [
            (json!({"n": "7"}), json!({"n": 7})),
            (
                json!({"n": 1, "on": "True", "list": ["1.5", 2]}),
                json!({"n": 1, "on": true, "list": [1.5, 2]}),
            ),
            (json!({"n": 1, "text": null, "maybe": null}), json!({"n": 1, "maybe": null})),
            (json!({"n": 1, "maybe": "3"}), json!({"n": 1, "maybe": 3})),
        ] {
            let mended: Value = serde_json::from_str(check(body).expect("mended").get()).expect("JSON");
            assert_eq!(mended, meant);
        }
        for body in [
            json!({"n": "x"}),
            json!({"n": "1.5"}),
            json!({"n": null}),
            json!({"n": "[1]"}),
            json!({"n": 1, "text": 7}),
            json!({"n": 1, "list": [null]}),
            json!({"n": 1, "more": "1"}),
        ] {
            assert!(check(body.clone()).is_none(), "{body}");
        }
    }

    #[test]
    fn examples_are_valid() {
        let schema = json!({"type": "object", "required": ["zone", "n", "node"], "properties": {
            "zone": {"type": "string", "default": "UTC"}, "n": {"type": "integer", "minimum": 3}, "other": {},
            "node": {"$ref": "#/$defs/Node"}}, "$defs": {"Node": {"type": "object", "properties": {
            "kind": {"enum": ["a"]}, "next": {"$ref": "#/$defs/Node"}}, "required": ["kind"]}}});
        let arguments = arguments(&schema);
        let example = arguments.example().expect("an example");
        assert_eq!(example, json!({"zone": "UTC", "n": 3, "node": {"kind": "a"}}));
        assert!(arguments.check(example.to_string().as_bytes()).is_ok());
    }
}
