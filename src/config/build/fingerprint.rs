//! The two texts a fingerprint is made of.

use serde_json::Value as Json;

use crate::config::vars::Resolved;
use crate::model::fingerprint::{Fingerprint, HashKey};

/// The fingerprint of a declaration: `whole` as it is; `blanked` is what is left of it when every
/// environment value and header is taken away and every resolved reference is put back.
pub(super) fn fingerprint(
    key: &HashKey,
    whole: &Json,
    mut blanked: Json,
    resolved: &[Resolved],
) -> Fingerprint {
    let secrets: Vec<(&str, &str)> =
        resolved.iter().map(|found| (found.value.as_str(), found.reference.as_str())).collect();
    put_back(&mut blanked, &secrets);
    Fingerprint::new(key, &canonical(&blanked), &canonical(whole))
}

/// Replaces every secret in every string of `json`.
fn put_back(json: &mut Json, secrets: &[(&str, &str)]) {
    match json {
        Json::String(text) => *text = replace_all(text, secrets),
        Json::Array(items) => {
            for item in items {
                put_back(item, secrets);
            }
        }
        Json::Object(members) => {
            let old = std::mem::take(members);
            for (name, mut value) in old {
                put_back(&mut value, secrets);
                members.insert(replace_all(&name, secrets), value);
            }
        }
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}

/// `text` with every value of `pairs` replaced by its reference, the longest value first at each
/// place; what was put in is not looked at again.
pub(crate) fn replace_all(text: &str, pairs: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let longest = pairs
            .iter()
            .filter(|(value, _)| !value.is_empty() && rest.starts_with(value))
            .max_by_key(|(value, _)| value.len());
        let taken = match longest {
            Some((value, reference)) => {
                out.push_str(reference);
                value.len()
            }
            None => {
                out.push(c);
                c.len_utf8()
            }
        };
        rest = rest.get(taken..).unwrap_or_default();
    }
    out
}

/// JSON with sorted keys and no white space.
pub(super) fn canonical(json: &Json) -> String {
    fn sorted(json: &Json) -> Json {
        match json {
            Json::Object(members) => {
                let mut pairs: Vec<(&String, &Json)> = members.iter().collect();
                pairs.sort_by_key(|(name, _)| *name);
                let pairs = pairs.into_iter().map(|(name, value)| (name.clone(), sorted(value)));
                Json::Object(pairs.collect())
            }
            Json::Array(items) => Json::Array(items.iter().map(sorted).collect()),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => json.clone(),
        }
    }
    sorted(json).to_string()
}

#[cfg(test)]
mod tests {
    use super::{canonical, replace_all};

    #[test]
    fn the_longest_secret_goes_first() {
        let pairs = [("ab", "${A}"), ("abc", "${B}"), ("", "${C}")];
        assert_eq!(replace_all("xabcab", &pairs), "x${B}${A}");
        assert_eq!(replace_all("üabü", &pairs), "ü${A}ü");
    }

    #[test]
    fn order_of_keys_does_not_matter() {
        let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let (a, b) = (parse(r#"{"b":1,"a":{"d":[1],"c":2}}"#), parse(r#"{"a":{"c":2,"d":[1]},"b":1}"#));
        assert_eq!(canonical(&a), canonical(&b));
        assert_eq!(canonical(&a), r#"{"a":{"c":2,"d":[1]},"b":1}"#);
    }
}
