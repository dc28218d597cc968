//! Adds members to a JSON object and takes members out, in its text.
//!
//! What is kept stays byte for byte as written: white space, number forms, escapes, order and even
//! repeated keys. Only the members named are touched, and the comma beside them.
//!
//! Must never build a tree of the object or write a kept member anew.

use crate::mcp::wire::{BadMessage, each_member};
use serde_json::value::RawValue;

/// A key stands more than once, so that two readers could see different values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Twice;

/// Text that we wrote ourselves as a value; `null` should it be no JSON.
#[must_use]
pub fn raw(text: String) -> Box<RawValue> {
    RawValue::from_string(text).unwrap_or_else(|_not_json| RawValue::NULL.to_owned())
}

/// `text` as a JSON string, quotes included.
#[must_use]
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Whether a value is an object.
#[must_use]
pub fn is_object(value: &RawValue) -> bool {
    value.get().starts_with('{')
}

/// The value of `key`, which must not stand twice.
///
/// # Errors
/// [`Twice`] when it does.
pub fn once<'a>(object: &'a RawValue, key: &str) -> Result<Option<&'a RawValue>, Twice> {
    let (mut found, mut twice) = (None, false);
    let walked = each_member(object.get(), &mut |name, value| {
        if name == key {
            twice |= found.replace(value).is_some();
        }
    });
    match (walked, twice) {
        (Ok(()), true) => Err(Twice),
        (Ok(()), false) => Ok(found),
        (Err(_no_object), _) => Ok(None),
    }
}

/// The object without the members whose key is `unwanted`; `None` when it is no object.
#[must_use]
pub fn without(object: &RawValue, unwanted: &dyn Fn(&str) -> bool) -> Option<Box<RawValue>> {
    edited(object, unwanted, &[])
}

/// The object with these members in front, each a key and a JSON text, instead of those of the same
/// keys there were; `None` when it is no object.
#[must_use]
pub fn with(object: &RawValue, members: &[(&str, &str)]) -> Option<Box<RawValue>> {
    edited(object, &|key| members.iter().any(|(name, _)| *name == key), members)
}

/// The object without the members whose key is `unwanted`, and then with `added` in front.
///
/// One walk and one copy. `None` when it is no object, or a text added is no JSON.
#[must_use]
pub fn edited(
    object: &RawValue,
    unwanted: &dyn Fn(&str) -> bool,
    added: &[(&str, &str)],
) -> Option<Box<RawValue>> {
    let text = object.get();
    let kept = kept(text, unwanted).ok()?;
    let mut out =
        String::with_capacity(text.len() + added.iter().map(|(k, v)| k.len() + v.len() + 4).sum::<usize>());
    out.push('{');
    for (at, (key, value)) in added.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(&quoted(key));
        out.push(':');
        out.push_str(value);
    }
    let mut empty = added.is_empty();
    for part in kept.parts {
        // Every part but the object's first begins with the comma before it.
        let bare = part.trim_ascii_start();
        match (empty, bare.strip_prefix(',')) {
            (true, Some(rest)) => out.push_str(rest),
            (true, None) | (false, Some(_)) => out.push_str(part),
            (false, None) => {
                out.push(',');
                out.push_str(part);
            }
        }
        empty = false;
    }
    out.push_str(kept.end);
    RawValue::from_string(out).ok()
}

struct Kept<'a> {
    /// One for each member kept: from the end of the one before to the end of its value.
    parts: Vec<&'a str>,
    /// From the end of the last member on.
    end: &'a str,
}

fn kept<'a>(text: &'a str, unwanted: &dyn Fn(&str) -> bool) -> Result<Kept<'a>, BadMessage> {
    let base = text.as_ptr() as usize;
    // Behind the brace that opens the object.
    let mut from = text.len() - text.trim_ascii_start().len() + 1;
    let mut parts = Vec::new();
    each_member(text, &mut |key, value| {
        let end = (value.get().as_ptr() as usize).saturating_sub(base) + value.get().len();
        if !unwanted(&key) {
            parts.extend(text.get(from..end));
        }
        from = end;
    })?;
    Ok(Kept { parts, end: text.get(from..).unwrap_or("}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).expect("json")
    }

    #[test]
    fn only_the_members_named_change() {
        let gone = |object: &str, keys: &[&str]| {
            without(&text(object), &|key| keys.contains(&key)).map(|o| o.get().to_owned())
        };
        for (object, keys, after) in [
            (r#"{"a":1.0, "b" : [1 ,2],"c":3 }"#, &["a"][..], r#"{ "b" : [1 ,2],"c":3 }"#),
            (r#"{"a":1.0, "b" : [1 ,2],"c":3 }"#, &["b"], r#"{"a":1.0,"c":3 }"#),
            (r#"{"a":1.0, "b" : [1 ,2],"c":3 }"#, &["c"], r#"{"a":1.0, "b" : [1 ,2] }"#),
            (r#"{"a":1.0, "b" : [1 ,2],"c":3 }"#, &["a", "b", "c"], "{ }"),
            (r#"{"a":1,"b":2,"\u0061":3}"#, &["a"], r#"{"b":2}"#),
            ("{ }", &["a"], "{ }"),
        ] {
            assert_eq!(gone(object, keys).as_deref(), Some(after), "{object} {keys:?}");
        }
        assert_eq!(gone("[1]", &["a"]), None);
        let set =
            |object: &str| with(&text(object), &[("x", "1.0"), ("y\"", "{}")]).map(|o| o.get().to_owned());
        assert_eq!(set("{}").as_deref(), Some(r#"{"x":1.0,"y\"":{}}"#));
        assert_eq!(set(r#"{ "a" : 1,"x":2}"#).as_deref(), Some(r#"{"x":1.0,"y\"":{}, "a" : 1}"#));
        assert_eq!(set(r#"{"x":2,"a":1}"#).as_deref(), Some(r#"{"x":1.0,"y\"":{},"a":1}"#));
        assert_eq!(set("7"), None);
    }

    #[test]
    fn a_repeated_key_is_seen() {
        assert_eq!(once(&text(r#"{"a":1,"b":2,"\u0061":3}"#), "a").map(|_| ()), Err(Twice));
        assert_eq!(once(&text(r#"{"a":1,"b":2}"#), "b").map(|v| v.map(RawValue::get)), Ok(Some("2")));
        assert_eq!(once(&text("[]"), "b").map(|v| v.map(RawValue::get)), Ok(None));
    }

    proptest! {
        #[test]
        fn what_is_added_can_be_taken_out_again(
            members in proptest::collection::vec(("[a-c]{1,2}", "-?[1-9]{1,4}(\\.[0-9]{1,3})?", " {0,2}"), 0..6),
        ) {
            let inner: Vec<String> =
                members.iter().map(|(k, v, space)| format!("{space}\"{k}\"{space}:{space}{v}{space}")).collect();
            let object = text(&format!("{{{}}}", inner.join(",")));
            let more = with(&object, &[("new", "[1]"), ("other", "null")]).expect("object");
            let back = without(&more, &|key| key == "new" || key == "other").expect("object");
            prop_assert_eq!(back.get(), object.get());
            let gone = without(&object, &|key| key == "a").expect("object");
            let left = members.iter().filter(|(k, _, _)| k != "a").count();
            let mut seen = 0;
            each_member(gone.get(), &mut |key, _| { assert_ne!(key, "a"); seen += 1; }).expect("object");
            prop_assert_eq!(seen, left);
        }
    }
}
