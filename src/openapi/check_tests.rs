//! Every keyword with values that it allows and forbids, and what is said of those it forbids.

use crate::openapi::check::{Checker, FAULTS_MAX, Step};
use serde_json::{Value, json};

fn kinds(schema: &Value, value: &Value) -> Vec<&'static str> {
    Checker::new(schema.clone()).faults(value).into_iter().map(|fault| fault.kind).collect()
}

/// Schemas, values that they allow, and values that they forbid.
fn hold(cases: &[(Value, Value, Value)]) {
    for (schema, good, bad) in cases {
        for value in good.as_array().expect("a list") {
            assert!(kinds(schema, value).is_empty(), "{schema} allows {value}");
        }
        for value in bad.as_array().expect("a list") {
            assert!(!kinds(schema, value).is_empty(), "{schema} forbids {value}");
        }
    }
}

#[test]
fn every_keyword_of_values_holds() {
    hold(&[
        (json!({"type": "integer"}), json!([1, -1, 1.0, 1e3]), json!([1.5, "1", null, true])),
        (json!({"type": ["string", "null"]}), json!(["", null]), json!([1])),
        (
            json!({"type": "number", "minimum": 1, "exclusiveMaximum": 2.5}),
            json!([1, 2.4]),
            json!([0.9, 2.5]),
        ),
        (
            json!({"maximum": 2, "exclusiveMinimum": 0, "multipleOf": 0.1}),
            json!([0.3, 2, "x"]),
            json!([0, 2.05, 3]),
        ),
        (
            json!({"enum": [1, "a", null, {"b": [1]}]}),
            json!([1.0, "a", null, {"b": [1.0]}]),
            json!([2, {"b": []}]),
        ),
        (json!({"const": 0}), json!([0, 0.0]), json!([false, null, ""])),
        (json!({"minLength": 2, "maxLength": 3}), json!(["äöü", "ab"]), json!(["a", "abcd"])),
        (json!({"pattern": "^[a-z]+$"}), json!(["a", 7]), json!(["A", ""])),
        (json!({"pattern": "^(?!x)"}), json!(["x"]), json!([])),
    ]);
}

#[test]
fn every_keyword_of_lists_and_objects_holds() {
    hold(&[
        (
            json!({"minItems": 1, "maxItems": 2, "uniqueItems": true}),
            json!([[1], [1, 2]]),
            json!([[], [1, 1.0], [1, 2, 3]]),
        ),
        (
            json!({"prefixItems": [{"type": "string"}], "items": {"type": "number"}}),
            json!([[], ["a", 1]]),
            json!([[1], ["a", "b"]]),
        ),
        (json!({"items": false}), json!([[]]), json!([[1]])),
        (json!({"contains": {"const": 1}, "maxContains": 1}), json!([[1, 2]]), json!([[], [2], [1, 1]])),
        (
            json!({"required": ["a"], "properties": {"a": {"type": "string"}}}),
            json!([{"a": ""}, {"a": "", "b": 1}]),
            json!([{}, {"a": 1}]),
        ),
        (
            json!({"patternProperties": {"^x": {"type": "string"}}, "additionalProperties": false}),
            json!([{"x1": ""}]),
            json!([{"x1": 1}, {"y": ""}]),
        ),
        (
            json!({"additionalProperties": {"type": "number"}, "minProperties": 1, "maxProperties": 1}),
            json!([{"a": 1}]),
            json!([{}, {"a": ""}, {"a": 1, "b": 1}]),
        ),
        (json!({"propertyNames": {"maxLength": 1}}), json!([{"a": 1}]), json!([{"ab": 1}])),
        (json!({"dependentRequired": {"a": ["b"]}}), json!([{"b": 1}, {"a": 1, "b": 1}]), json!([{"a": 1}])),
        (
            json!({"dependentSchemas": {"a": {"required": ["c"]}}}),
            json!([{"b": 1}, {"a": 1, "c": 1}]),
            json!([{"a": 1}]),
        ),
    ]);
}

#[test]
fn every_keyword_of_combinations_holds() {
    hold(&[
        (json!({"allOf": [{"minimum": 1}, {"maximum": 2}]}), json!([1, 2]), json!([0, 3])),
        (json!({"anyOf": [{"type": "string"}, {"minimum": 2}]}), json!(["", 2]), json!([1])),
        (json!({"oneOf": [{"multipleOf": 2}, {"multipleOf": 3}]}), json!([2, 3]), json!([6, 7])),
        (json!({"not": {"type": "string"}}), json!([1]), json!([""])),
        (
            json!({"if": {"type": "string"}, "then": {"minLength": 1}, "else": {"minimum": 1}}),
            json!(["a", 1]),
            json!(["", 0]),
        ),
        (
            json!({"$ref": "#/$defs/A", "minimum": 2, "$defs": {"A": {"type": "integer"}}}),
            json!([2]),
            json!([1, "a"]),
        ),
        (
            json!({"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["v"]}),
            json!([{"v": 1, "next": {"v": 2}}]),
            json!([{"v": 1, "next": {}}]),
        ),
        (json!(true), json!([1]), json!([])),
        (json!(false), json!([]), json!([1])),
        (
            json!({"type": "str", "format": "date", "minimum": "x", "items": 7}),
            json!([1, "x", []]),
            json!([]),
        ),
    ]);
}

#[test]
fn faults_say_where_and_what_but_no_value() {
    let schema = json!({"properties": {"list": {"items": {"anyOf": [
        {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}, {"type": "null"}]}}}});
    let faults = Checker::new(schema).faults(&json!({"list": [null, {"n": "s3cret"}, "s3cret"]}));
    let at = |n| vec![Step::Key("list".to_owned()), Step::Index(n)];
    assert_eq!((faults[0].kind, faults[0].at.len()), ("int_type", 3));
    assert_eq!(
        (faults[1].kind, &faults[1].at, &faults[1].expected),
        ("type_error", &at(2), &vec!["object".to_owned(), "null".to_owned()])
    );
    assert!(faults.iter().all(|fault| !fault.message.contains("s3cret")));
}

#[test]
fn no_schema_and_no_value_makes_endless_work() {
    let mut defs = serde_json::Map::new();
    for n in 0..60 {
        let next = json!({"$ref": format!("#/$defs/d{}", n + 1)});
        defs.insert(format!("d{n}"), json!({"allOf": [next.clone(), next]}));
    }
    defs.insert("d60".to_owned(), json!({"type": "string"}));
    let _faults = kinds(&json!({"$ref": "#/$defs/d0", "$defs": defs}), &json!(1));
    assert!(kinds(&json!({"$ref": "#"}), &json!(1)).is_empty());
    let many = json!({"items": {"type": "string"}});
    let faults = kinds(&many, &Value::Array(vec![json!(1); 10_000]));
    assert_eq!(faults.len(), FAULTS_MAX);
    let mut deep = json!({});
    for _n in 0..100 {
        deep = json!({ "n": deep });
    }
    assert!(kinds(&json!({"additionalProperties": {"$ref": "#"}}), &deep).is_empty());
}
