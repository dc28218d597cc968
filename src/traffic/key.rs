//! What an answer is kept under: everything that may make another answer of it, as one hash.
//!
//! Arguments count by what they mean: order of members, white space and escapes make no difference,
//! the form of a number does. Must never give two different calls one key; two keys for one call cost
//! a call.

use crate::mcp::wire::{each_member, text_of};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// Bytes of arguments up to which answers are kept.
pub const ARGUMENTS_BYTES_MAX: usize = 64 * 1024;
/// Values within values.
const DEPTH_MAX: u32 = 32;

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key([u8; 32]);

/// The key of these parts in this order.
#[must_use]
pub fn key(parts: &[&str]) -> Key {
    let mut hash = Sha256::new();
    for part in parts {
        // With its length before it no part can be taken for two.
        hash.update(part.len().to_le_bytes());
        hash.update(part.as_bytes());
    }
    Key(hash.finalize().into())
}

/// Arguments in one form; `None` when they are too large, too deep, or say something twice.
#[must_use]
pub fn canonical(arguments: &RawValue) -> Option<String> {
    if arguments.get().len() > ARGUMENTS_BYTES_MAX {
        return None;
    }
    let mut out = String::with_capacity(arguments.get().len());
    write(arguments, 0, &mut out)?;
    Some(out)
}

fn write(value: &RawValue, depth: u32, out: &mut String) -> Option<()> {
    if depth > DEPTH_MAX {
        return None;
    }
    let text = value.get();
    match text.as_bytes().first()? {
        b'{' => {
            let mut members: BTreeMap<String, &RawValue> = BTreeMap::new();
            let mut twice = false;
            each_member(text, &mut |name, value| {
                twice |= members.insert(name.into_owned(), value).is_some();
            })
            .ok()?;
            if twice {
                return None;
            }
            out.push('{');
            for (name, value) in members {
                out.push_str(&serde_json::Value::from(name).to_string());
                out.push(':');
                write(value, depth + 1, out)?;
                out.push(',');
            }
            out.push('}');
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            out.push('[');
            for item in items {
                write(item, depth + 1, out)?;
                out.push(',');
            }
            out.push(']');
        }
        b'"' => out.push_str(&serde_json::Value::from(text_of(value)?.as_ref()).to_string()),
        _ => out.push_str(text),
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn of(text: &str) -> Option<String> {
        canonical(&RawValue::from_string(text.to_owned()).unwrap())
    }

    #[test]
    fn what_means_the_same_is_the_same_and_what_does_not_is_not() {
        let one = of(r#"{"b": [1, {"y":null,"x":"\u0041"}], "a":1.0}"#).unwrap();
        assert_eq!(Some(one), of("{\"a\":1.0,\n\"b\":[1,{\"x\":\"A\",\"y\":null}]}"));
        for (a, b) in [
            ("1", "1.0"),
            ("18446744073709551617", "18446744073709551618"),
            ("1", "\"1\""),
            ("[1,2]", "[2,1]"),
            ("[[1],2]", "[[1,2]]"),
            (r#"{"a":{"b":1}}"#, r#"{"a":{},"b":1}"#),
            (r#"{"a":null}"#, "{}"),
            (r#""a\"b""#, r#""a\\\"b""#),
        ] {
            assert_ne!(of(a), of(b), "{a} {b}");
        }
        assert_eq!(of(r#"{"a":1,"\u0061":2}"#), None, "which of them counts is the server's to say");
        assert_eq!(of(&format!("{}{}", "[".repeat(40), "]".repeat(40))), None);
        assert_eq!(of(&format!("\"{}\"", "x".repeat(ARGUMENTS_BYTES_MAX))), None);
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_ne!(key(&["a"]), key(&["a", ""]));
        assert_eq!(key(&["a", "b"]), key(&["a", "b"]));
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-c\"\\\\é]{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-c\"]{0,2}", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// The same with members the other way round and more white space.
    fn turned(value: &Value) -> String {
        match value {
            Value::Object(members) => {
                let parts = members.iter().rev();
                let parts: Vec<String> = parts
                    .map(|(name, value)| format!(" {} : {}", Value::from(name.as_str()), turned(value)))
                    .collect();
                format!("{{{} }}", parts.join(" ,"))
            }
            Value::Array(items) => {
                format!("[\n{}]", items.iter().map(turned).collect::<Vec<_>>().join("\t,"))
            }
            other => other.to_string(),
        }
    }

    proptest! {
        #[test]
        fn one_form_for_one_meaning(a in json(), b in json()) {
            let (one, other) = (of(&a.to_string()), of(&b.to_string()));
            prop_assert!(one.is_some());
            prop_assert_eq!(&one, &of(&turned(&a)));
            prop_assert_eq!(one == other, a == b);
        }
    }
}
