//! Contents of `--env-file`, `--label-file` and seccomp profiles, handed in as text.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;

/// Longest line of a variable or label file, as the client has it.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Largest seccomp profile; the engine's own default has 14 KB.
const PROFILE_BYTES_MAX: usize = 1024 * 1024;

/// One line of a file of names and values.
pub(super) struct Pair {
    /// Before the first `=`.
    pub(super) name: String,
    /// Behind it.
    pub(super) value: String,
}

/// Reads a file of `NAME=VALUE` lines. A bare name takes its value from `lookup`, and is left out
/// where that has none.
pub(super) fn pairs(content: &str, lookup: Option<&BTreeMap<String, String>>) -> Result<Vec<Pair>, String> {
    let content = content.strip_prefix('\u{feff}').unwrap_or(content);
    let mut pairs = Vec::new();
    for (index, line) in content.split('\n').enumerate() {
        let number = index + 1;
        if line.len() >= LINE_BYTES_MAX {
            return Err(format!("line {number} is longer than {LINE_BYTES_MAX} bytes"));
        }
        let line = line.strip_suffix('\r').unwrap_or(line).trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (line, None),
        };
        if name.is_empty() {
            return Err(format!("line {number} has no name before the ="));
        }
        if name.contains([' ', '\t']) {
            return Err(format!("the name in line {number} has white space"));
        }
        let value = value.or_else(|| lookup.and_then(|values| values.get(name)).cloned());
        if let Some(value) = value {
            pairs.push(Pair { name: name.to_owned(), value });
        }
    }
    Ok(pairs)
}

/// Takes the white space between the tokens of a JSON document away.
pub(super) fn compact_json(content: &str) -> Result<String, String> {
    if content.len() > PROFILE_BYTES_MAX {
        return Err(format!("it is larger than {PROFILE_BYTES_MAX} bytes"));
    }
    serde_json::from_str::<IgnoredAny>(content)
        .map_err(|error| format!("it is not JSON (line {})", error.line()))?;
    let mut compact = String::with_capacity(content.len());
    let (mut quoted, mut escaped) = (false, false);
    for c in content.chars() {
        if !quoted && c.is_ascii_whitespace() {
            continue;
        }
        if c == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = quoted && c == '\\' && !escaped;
        compact.push(c);
    }
    Ok(compact)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_follow_the_rules_of_the_client() {
        let env = BTreeMap::from([("B".to_owned(), "b".to_owned())]);
        let text = "\u{feff}A=1 \r\n  # no\n\n\tB\nC\nD=\nE=x=y # z\n";
        let read = pairs(text, Some(&env)).unwrap_or_default();
        let read: Vec<String> = read.iter().map(|p| format!("{}={}", p.name, p.value)).collect();
        assert_eq!(read, ["A=1 ", "B=b", "D=", "E=x=y # z"]);
        assert!(pairs("=x", None).is_err());
        assert!(pairs("export A=1", None).is_err());
        assert_eq!(pairs("A", None).unwrap_or_default().len(), 0);
    }

    #[test]
    fn json_is_compacted_outside_of_strings() {
        let text = "{ \"a \\\" b\" : [ 1.50 , true ] }";
        assert_eq!(compact_json(text).unwrap(), "{\"a \\\" b\":[1.50,true]}");
        assert!(compact_json("{").is_err());
        assert!(compact_json("{} {}").is_err());
    }
}
