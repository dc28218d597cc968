//! Finds members of JSON objects whose text is known to be valid, without proving it again.
//!
//! A call's arguments may be megabytes of text, and what decides its way are a few short members
//! beside them. Strings are skipped as fast as memory is read; nothing is copied.
//!
//! Must never be given a text that was not checked: of a broken one it finds anything or nothing,
//! but never panics.

use memchr::memchr2;

/// The text of the value of `key`, the first if there are several; `None` when `object` is none or
/// has no such member.
#[must_use]
pub fn member<'a>(object: &'a str, key: &str) -> Option<&'a str> {
    let bytes = object.as_bytes();
    let mut at = space(bytes, 0);
    if bytes.get(at) != Some(&b'{') {
        return None;
    }
    at = space(bytes, at + 1);
    while bytes.get(at) == Some(&b'"') {
        let name_end = string(bytes, at)?;
        let name = object.get(at..name_end)?;
        let colon = space(bytes, name_end);
        if bytes.get(colon) != Some(&b':') {
            return None;
        }
        let begin = space(bytes, colon + 1);
        let end = value(bytes, begin)?;
        if is(name, key) {
            return object.get(begin..end);
        }
        let comma = space(bytes, end);
        if bytes.get(comma) != Some(&b',') {
            return None;
        }
        at = space(bytes, comma + 1);
    }
    None
}

/// Whether a name, quotes included, is `key`.
fn is(name: &str, key: &str) -> bool {
    let inner = name.get(1..name.len().saturating_sub(1)).unwrap_or_default();
    if inner.contains('\\') {
        return serde_json::from_str::<String>(name).is_ok_and(|name| name == key);
    }
    inner == key
}

/// The first place from `at` on that is no white space.
fn space(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count()
}

/// The place after the string that begins at `at`.
fn string(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        at += memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes.get(at) == Some(&b'"') {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// The place after the value that begins at `at`.
fn value(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'"' => string(bytes, at),
        b'{' | b'[' => nested(bytes, at),
        _ => {
            let rest = bytes.get(at..)?;
            let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
            Some(at + rest.iter().position(ends).unwrap_or(rest.len()))
        }
    }
}

/// The place after the object or array that begins at `at`.
fn nested(bytes: &[u8], at: usize) -> Option<usize> {
    let (mut at, mut depth) = (at, 0_usize);
    loop {
        match bytes.get(at)? {
            b'"' => {
                at = string(bytes, at)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::member;
    use crate::mcp::wire::each_member;
    use proptest::prelude::*;

    /// The same by a parser.
    fn parsed<'a>(object: &'a str, key: &str) -> Option<&'a str> {
        let mut found = None;
        each_member(object, &mut |name, value| {
            if found.is_none() && name == key {
                found = Some(value.get());
            }
        })
        .ok()?;
        found
    }

    #[test]
    fn members_are_found_among_strings_that_look_like_them() {
        let text = r#" { "a" : "x\"}\\" , "b":[{"c":"]"},1] ,"\u0063":-1.5e3, "d" : null }"#;
        for (key, value) in [
            ("a", Some(r#""x\"}\\""#)),
            ("b", Some(r#"[{"c":"]"},1]"#)),
            ("c", Some("-1.5e3")),
            ("d", Some("null")),
            ("e", None),
        ] {
            assert_eq!(member(text, key), value, "{key}");
        }
        for text in ["", "[]", "7", "{", "{\"a\"", "{\"a\":", "{\"a\":\"", "{\"a\":[", "{}", "null"] {
            assert_eq!(member(text, "a"), None, "{text}");
        }
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            ".{0,12}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 24, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                proptest::collection::vec(("[a-c\"\\\\]{0,2}", inner), 0..4)
                    .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_finds_what_a_parser_finds(value in json(), key in "[a-c\"\\\\]{0,2}", pretty in any::<bool>()) {
            let text = if pretty { format!("{value:#}") } else { value.to_string() };
            prop_assert_eq!(member(&text, &key), parsed(&text, &key));
        }

        #[test]
        fn it_never_panics(text in ".{0,64}", key in ".{0,3}") {
            let _ = member(&text, &key);
        }
    }
}
