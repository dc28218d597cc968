//! Translated schemas mean what they meant, and documents hold together.

use crate::openapi::check::Checker;
use crate::openapi::document::{About, Operations, of_all, of_server};
use crate::openapi::schema::translate;
use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Value, json};

fn body(document: &Value, path: &str) -> Value {
    document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"].clone()
}

/// A tool as its server wrote it.
fn tool(schema: &Value) -> Box<RawValue> {
    RawValue::from_string(json!({"name": "t", "inputSchema": schema}).to_string()).expect("JSON")
}

/// The document of one tool with this schema.
fn document(schema: &Value) -> Value {
    let tool = tool(schema);
    let operations = Operations::new("s", [("t", &*tool)]);
    serde_json::from_str(&of_server(&About::default(), &operations)).expect("JSON")
}

#[test]
fn every_keyword_of_2020_12_stays() {
    let schema = json!({
        "type": "object", "title": "T", "description": "D", "additionalProperties": false, "minProperties": 1,
        "properties": {
            "$ref": {"type": "string", "format": "date-time", "default": "x", "pattern": "^a", "examples": ["$ref"]},
            "n": {"type": ["integer", "null"], "minimum": 1, "exclusiveMaximum": 10, "multipleOf": 2},
            "one": {"oneOf": [{"const": {"$ref": "#/data"}}, {"enum": [1, null, {"$ref": "x"}]}], "deprecated": true},
            "all": {"allOf": [{"not": {"type": "null"}}], "if": {}, "then": {}, "else": false},
            "list": {"type": "array", "prefixItems": [{}], "items": {"type": "object", "x-vendor": [1.0]},
                     "contains": {}, "uniqueItems": true},
            "map": {"patternProperties": {"^x": {}}, "propertyNames": {"maxLength": 3}, "unevaluatedProperties": false},
        },
        "required": ["n"], "dependentRequired": {"n": ["one"]},
    });
    assert_eq!(body(&document(&schema), "/t"), schema);
}

#[test]
fn earlier_drafts_become_what_they_mean_now() {
    let schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#", "type": "object",
        "properties": {
            "a": {"items": [{"type": "string"}], "additionalItems": false},
            "b": {"minimum": 1, "exclusiveMinimum": true, "maximum": 3, "exclusiveMaximum": false},
            "c": {"type": "string", "nullable": true},
            "d": {"$ref": "#/definitions/D"},
        },
        "dependencies": {"a": ["b"], "b": {"required": ["c"]}},
        "definitions": {"D": {"type": "number"}},
    });
    let document = document(&schema);
    let body = body(&document, "/t");
    assert_eq!(
        body["properties"],
        json!({
            "a": {"prefixItems": [{"type": "string"}], "items": false},
            "b": {"exclusiveMinimum": 1, "maximum": 3},
            "c": {"type": ["string", "null"]},
            "d": {"$ref": "#/components/schemas/s.t.input.D"},
        })
    );
    assert_eq!(body["dependentRequired"], json!({"a": ["b"]}));
    assert_eq!(body["dependentSchemas"], json!({"b": {"required": ["c"]}}));
    assert!(body.get("definitions").is_none() && body.get("$schema").is_none());
    assert_eq!(document["components"]["schemas"]["s.t.input.D"], json!({"type": "number"}));
}

#[test]
fn references_lead_to_components_and_cycles_end_for_those_that_follow_them() {
    let schema = json!({
        "$ref": "#/$defs/Node", "$defs": {
            "Node": {"type": "object", "properties": {
                "self": {"$ref": "#/$defs/Node", "description": "again"},
                "list": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
                "leaf": {"$ref": "#/$defs/Leaf%20%7E%31x"}, "same": {"$ref": "#/$defs/Node/properties/leaf"}}},
            "Leaf ~1x": {"type": "string"}, "unused": {"type": "null"}}});
    // A step of a pointer has its own escapes.
    let schema: Value =
        serde_json::from_str(&schema.to_string().replace("Leaf%20%7E%31x", "Leaf%20~01x")).expect("JSON");
    let document = document(&schema);
    let body = body(&document, "/t");
    assert_eq!(body["type"], "object", "properties are at hand");
    let node = &document["components"]["schemas"]["s.t.input.Node"];
    let closed = json!([{"$ref": "#/components/schemas/s.t.input.Node"}]);
    assert_eq!(node["properties"]["self"], json!({"description": "again", "allOf": closed}));
    assert_eq!(node["properties"]["list"]["items"], json!({ "allOf": closed }));
    assert_eq!(body["properties"]["self"]["$ref"], "#/components/schemas/s.t.input.Node");
    for property in ["leaf", "same"] {
        let target = node["properties"][property]["$ref"].as_str().expect("a reference");
        assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target}");
    }
}

#[test]
fn what_has_names_of_its_own_stays_as_it_is() {
    for schema in [
        json!({"type": "object", "properties": {"a": {"$ref": "#b"}, "b": {"$anchor": "b"}}}),
        json!({"$id": "https://example.com/s", "properties": {"a": {"$ref": "s#/$defs/x"}}, "$defs": {"x": {}}}),
        json!({"properties": {"a": {"$ref": "https://example.com/other"}}}),
        json!({"properties": {"a": {"$ref": "#/nowhere"}}}),
        json!({"properties": {"a": {"$ref": 7}}}),
    ] {
        let document = document(&schema);
        assert_eq!(body(&document, "/t"), json!({"$ref": "#/components/schemas/s.t.input"}));
        let mut kept = document["components"]["schemas"]["s.t.input"].clone();
        assert!(kept["$id"].is_string());
        if schema.get("$id").is_none() {
            kept.as_object_mut().expect("an object").shift_remove("$id");
        }
        assert_eq!(kept, schema);
    }
}

#[test]
fn any_tool_has_an_operation_whatever_its_schema() {
    for schema in [json!(null), json!(7), json!(true), json!({}), json!({"type": "object", "properties": {}})]
    {
        let document = document(&schema);
        let operation = &document["paths"]["/t"]["post"];
        assert_eq!(operation["operationId"], "tool_t_post", "{schema}");
        assert!(
            operation.get("requestBody").is_none(),
            "clients insist on a body that is declared: {schema}"
        );
    }
}

#[test]
fn operation_ids_and_components_of_all_servers_differ() {
    let schema = json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {}}});
    let tool = tool(&schema);
    let names = ["b_c", "b-c", "c"];
    let make = |server| Operations::new(server, names.iter().map(|name| (*name, &*tool)));
    let servers = [("a", make("a")), ("a_b", make("a_b"))];
    let about = About { url: "/openapi".to_owned(), locked: true, ..About::default() };
    let text = of_all(&about, &servers.iter().map(|(id, operations)| (*id, operations)).collect::<Vec<_>>());
    let document: Value = serde_json::from_str(&text).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    let ids: std::collections::BTreeSet<&str> =
        paths.values().map(|path| path["post"]["operationId"].as_str().expect("an id")).collect();
    assert_eq!((paths.len(), ids.len()), (6, 6));
    // Three of the documents' own, and one of each tool: no key stands twice.
    assert_eq!(document["components"]["schemas"].as_object().expect("schemas").len(), 9);
    assert_eq!(text.matches(r#".input.A":"#).count(), 6);
}

/// Schemas whose references, if any, lead to one of three definitions.
fn schema() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({"type": "string"})),
        Just(json!({"type": ["integer", "null"], "minimum": 1})),
        Just(json!({"enum": [1, "a", null]})),
        Just(json!({"const": 1})),
        Just(json!(true)),
        Just(json!({"type": "string", "nullable": true})),
        (0..3_usize).prop_map(|n| json!({"$ref": format!("#/$defs/d{n}")})),
        Just(json!({"$ref": "#"})),
        Just(json!({"$ref": "#/properties/a"})),
        (0..3_usize).prop_map(|n| json!({"$ref": format!("#/$defs/d{n}"), "maxLength": 1})),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let list = proptest::collection::vec(inner.clone(), 1..3);
        prop_oneof![
            inner.clone().prop_map(|items| json!({"type": "array", "items": items})),
            list.clone().prop_map(|all| json!({ "anyOf": all })),
            list.clone().prop_map(|all| json!({ "allOf": all })),
            list.prop_map(|all| json!({ "oneOf": all })),
            inner.clone().prop_map(|not| json!({ "not": not })),
            (inner.clone(), inner.clone(), any::<bool>()).prop_map(|(a, rest, closed)| {
                let rest = if closed { json!(false) } else { rest };
                json!({"type": "object", "properties": {"a": a}, "additionalProperties": rest})
            }),
            (inner.clone(), inner)
                .prop_map(|(a, b)| json!({"properties": {"a": a, "b": b}, "required": ["a"]})),
        ]
    })
}

fn value() -> impl Strategy<Value = Value> {
    let leaf =
        prop_oneof![Just(json!(null)), Just(json!(1)), Just(json!(0)), Just(json!("a")), Just(json!("ab"))];
    leaf.prop_recursive(3, 10, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| json!({"a": a, "b": b})),
            inner.prop_map(|a| json!({ "a": a })),
        ]
    })
}

proptest! {
    #[test]
    fn a_translated_schema_allows_what_the_original_does(
        (top, defs) in (schema(), [schema(), schema(), schema()]),
        values in proptest::collection::vec(value(), 8),
    ) {
        let [d0, d1, d2] = defs;
        let original = json!({
            "type": "object", "properties": {"a": top}, "$defs": {"d0": d0, "d1": d1, "d2": d2},
        });
        let new = translate(&original, "p");
        prop_assert!(new.whole.is_none());
        let (before, after) = (Checker::new(nullable(&original)), Checker::new(new.alone()));
        for value in values.into_iter().map(|value| json!({ "a": value })) {
            // A schema may ask for itself without end: nobody can say what that allows.
            if let (Some(before), Some(after)) = (before.judged(&value), after.judged(&value)) {
                prop_assert_eq!(before.is_empty(), after.is_empty(), "{} of {}", value, original);
            }
        }
        // Whoever follows references of properties and items comes to an end.
        let document = new.alone();
        follow(&document, &document, 0);
        // And what was translated stays.
        let again = translate(&new.schema, "p");
        if new.components.is_empty() {
            prop_assert_eq!(again.schema, new.schema);
        }
    }
}

/// What OpenAPI 3.0 says of null, in words of JSON Schema.
fn nullable(schema: &Value) -> Value {
    let text =
        schema.to_string().replace(r#""type":"string","nullable":true"#, r#""type":["string","null"]"#);
    serde_json::from_str(&text).expect("JSON")
}

/// Follows references as Open WebUI does.
fn follow(schema: &Value, document: &Value, depth: usize) {
    assert!(depth < 60, "endless");
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let target = document.pointer(reference.trim_start_matches('#')).expect("a target");
        return follow(target, document, depth + 1);
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    for below in properties.into_iter().flat_map(|map| map.values()).chain(schema.get("items")) {
        follow(below, document, depth + 1);
    }
}
