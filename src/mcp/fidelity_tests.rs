//! What passes through must come out as it went in, byte by byte, apart from the ids.

use crate::mcp::build;
use crate::mcp::lines::{Assembler, Line};
use crate::mcp::meta;
use crate::mcp::wire::{Message, read, splice};
use proptest::prelude::*;
use serde_json::value::RawValue;

const ODD: &str = r#"{"z":1,"a":{"x-vendor":[1.0,1,1e400,-0,123456789012345678901234567890,0.10],"annotations":{"foo":null}},"esc":"\u00e9\/\ud83d\ude00\u2028é‍\u200d","dup":1,"dup":2,"deep":[[[[{}]]]]}"#;

fn request_through(params: &str) -> String {
    let params = RawValue::from_string(params.to_owned()).expect("json");
    let line = format!("{}\n", build::request(5, "tools/call", Some(&params)));
    let mut out = String::new();
    let mut lines = Assembler::new(1 << 20);
    for chunk in line.as_bytes().chunks(3) {
        lines.push(chunk, &mut |line| {
            let Line::Object(bytes) = line else { panic!("an object") };
            let Ok(Message::Request { params: Some(params), .. }) = read(bytes) else { panic!("a request") };
            out = params.get().to_owned();
        });
    }
    out
}

#[test]
fn odd_values_pass_unchanged_both_ways() {
    assert_eq!(request_through(ODD), ODD);
    let line = format!(r#"{{"result":{ODD},"x-extra":{ODD},"id":17,"jsonrpc":"2.0"}}"#);
    let Ok(Message::Response { id, result }) = read(line.as_bytes()) else { panic!("a response") };
    assert_eq!(result.get(), ODD);
    let back = splice(&line, id.get(), "\"caller\\u0031\"").expect("spliced");
    assert_eq!(back, line.replacen("\"id\":17", "\"id\":\"caller\\u0031\"", 1));
}

#[test]
fn a_progress_token_is_the_only_thing_that_changes() {
    let with = format!(r#"{{"arguments":{ODD},"_meta":{{"v":{ODD},"progressToken":"tok"}},"name":"t"}}"#);
    let params = RawValue::from_string(with.clone()).expect("json");
    let out = meta::with_progress_token(Some(&params), 99).expect("token");
    assert_eq!(out.get(), with.replacen("\"tok\"", "99", 1));
}

fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?",
        any::<String>().prop_map(|s| serde_json::Value::from(s).to_string()),
        Just(r#""\u0000\/\uD83D\uDE00""#.to_owned()),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        let pair = (any::<String>(), inner.clone())
            .prop_map(|(k, v)| format!("{} : {v}", serde_json::Value::from(k)));
        prop_oneof![
            proptest::collection::vec(inner, 0..5).prop_map(|v| format!("[{}]", v.join(" ,"))),
            proptest::collection::vec(pair, 0..5).prop_map(|v| format!("{{{}}}", v.join(", "))),
        ]
    })
}

proptest! {
    #[test]
    fn any_value_passes_unchanged(value in json()) {
        let params = format!(r#"{{"v":{value}}}"#);
        prop_assert_eq!(request_through(&params), params);
    }
}
