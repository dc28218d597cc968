//! A text of mcp.config.json without its secrets, for showing: lines and columns before each secret
//! stay, so that a diff of two such texts reads like one of the files.
//!
//! What counts as a secret: every value of an environment or of headers, values given by `-e NAME=…`
//! and `--env`, arguments and parts of URLs that are named like one. References (`${…}`) are names,
//! not values, and stay. Must never let a value of an environment through, whatever its name.

use jsonc_parser::ast::{ObjectPropName, Value as Ast};
use jsonc_parser::common::Ranged as _;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};
use serde_json::Value;

/// What is shown instead.
pub const SHOWN: &str = "[redacted]";
/// Objects whose values are secret.
const MAPS: [&str; 6] =
    ["env", "environment", "environmentVars", "headers", "static_headers", "http_headers"];
/// Words in a name that make its value secret.
const WORDS: [&str; 10] =
    ["key", "token", "secret", "password", "passwd", "pwd", "auth", "credential", "apikey", "bearer"];

/// `text` with its secrets replaced. A text that cannot be read is shown as one word: what is in it
/// is not known.
#[must_use]
pub fn text(text: &str) -> String {
    let Ok(parsed) = parse_to_ast(text, &CollectOptions::default(), &ParseOptions::default()) else {
        return format!("{SHOWN}\n");
    };
    let mut found = Vec::new();
    if let Some(value) = &parsed.value {
        walk(value, Inside::Plain, &mut found);
    }
    found.sort_by_key(|(start, _, _)| *start);
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for (start, end, shown) in found {
        out.push_str(text.get(at..start).unwrap_or_default());
        out.push_str(&Value::String(shown).to_string());
        at = end;
    }
    out.push_str(text.get(at..).unwrap_or_default());
    out
}

/// `entry` (a server, or anything that holds some) with its secrets replaced.
#[must_use]
pub fn value(entry: &Value) -> Value {
    let plain: Value = serde_json::from_str(&text(&entry.to_string())).unwrap_or(Value::Null);
    plain
}

/// Where a value stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    /// Nowhere special.
    Plain,
    /// Below an environment or headers.
    Secret,
    /// An argument that follows one that takes `NAME=value`.
    Pair,
    /// An argument that follows one that is named like a secret.
    Named,
}

fn walk(value: &Ast<'_>, inside: Inside, found: &mut Vec<(usize, usize, String)>) {
    match value {
        Ast::StringLit(literal) => {
            if let Some(shown) = shown(&literal.value, inside) {
                found.push((literal.start(), literal.end(), shown));
            }
        }
        Ast::NumberLit(literal) if matches!(inside, Inside::Secret | Inside::Named) => {
            found.push((literal.start(), literal.end(), SHOWN.to_owned()));
        }
        Ast::NumberLit(_) | Ast::BooleanLit(_) | Ast::NullKeyword(_) => {}
        Ast::Array(array) => {
            let mut next = inside;
            for element in &array.elements {
                walk(element, next, found);
                let after = element.as_string_lit().map(|literal| follows(&literal.value));
                next = if inside == Inside::Secret { inside } else { after.unwrap_or(Inside::Plain) };
            }
        }
        Ast::Object(object) => {
            for property in &object.properties {
                let key = match &property.name {
                    ObjectPropName::String(literal) => literal.value.as_ref(),
                    ObjectPropName::Word(word) => word.value,
                };
                let secret = inside == Inside::Secret || MAPS.contains(&key);
                let named = property.value.as_string_lit().is_some() && is_secret_name(key);
                let next = match (secret, named) {
                    (true, _) => Inside::Secret,
                    (false, true) => Inside::Named,
                    (false, false) => Inside::Plain,
                };
                walk(&property.value, next, found);
            }
        }
    }
}

/// What the argument `text` makes of the one behind it.
fn follows(text: &str) -> Inside {
    if matches!(text, "-e" | "--env" | "-H" | "--header") {
        return Inside::Pair;
    }
    let name = text.strip_prefix('-').filter(|_| !text.contains('='));
    if name.is_some_and(is_secret_name) { Inside::Named } else { Inside::Plain }
}

/// What is shown of `text`; `None` when all of it may be.
fn shown(text: &str, inside: Inside) -> Option<String> {
    match inside {
        Inside::Secret | Inside::Named => (!is_reference(text)).then(|| SHOWN.to_owned()),
        Inside::Pair => pair(text, true),
        Inside::Plain => url(text).or_else(|| pair(text, false)),
    }
}

/// `NAME=value` or `Name: value`: the name may be shown.
fn pair(text: &str, always: bool) -> Option<String> {
    let at = text.find(['=', ':'])?;
    let (name, rest) = text.split_at_checked(at)?;
    let value = rest.get(1..)?;
    let short = name.trim_start_matches('-').trim_start_matches("env=");
    let secret = always || (rest.starts_with('=') && (is_secret_name(short) || is_environment(name, value)));
    if !secret || value.is_empty() || is_reference(value) {
        return None;
    }
    // `--env=NAME=value` has two names.
    let inner = value.split_once('=').filter(|_| name == "--env").map(|(inner, _)| format!("={inner}"));
    Some(format!("{name}{}{}{SHOWN}", inner.unwrap_or_default(), rest.get(..1).unwrap_or_default()))
}

/// `--env=NAME=value`, and `-eNAME=value`.
fn is_environment(name: &str, value: &str) -> bool {
    (name == "--env" && value.contains('=')) || (name.starts_with("-e") && !name.starts_with("--"))
}

/// A URL with a password, or a query with something named like a secret.
fn url(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let (authority, path) = rest.split_at_checked(rest.find(['/', '?', '#']).unwrap_or(rest.len()))?;
    let host = authority.rsplit_once('@').map(|(_, host)| format!("{SHOWN}@{host}"));
    let (before, query) = path.split_once('?').unwrap_or((path, ""));
    let mut hidden = host.is_some();
    let parts: Vec<String> = query
        .split('&')
        .map(|part| match part.split_once('=') {
            Some((name, value)) if is_secret_name(name) && !is_reference(value) && !value.is_empty() => {
                hidden = true;
                format!("{name}={SHOWN}")
            }
            _ => part.to_owned(),
        })
        .collect();
    if !hidden {
        return None;
    }
    let query = if query.is_empty() { String::new() } else { format!("?{}", parts.join("&")) };
    Some(format!("{scheme}://{}{before}{query}", host.unwrap_or_else(|| authority.to_owned())))
}

fn is_secret_name(name: &str) -> bool {
    let mut lower = String::with_capacity(name.len());
    let mut small = false;
    for c in name.chars() {
        // `apiKey` has two words.
        if small && c.is_ascii_uppercase() {
            lower.push('-');
        }
        small = c.is_ascii_lowercase();
        lower.push(if c == '_' { '-' } else { c.to_ascii_lowercase() });
    }
    lower.split(['-', '.']).any(|part| WORDS.contains(&part)) || lower.ends_with("connection-string")
}

/// A value that is nothing but a reference, or a scheme and a reference (`Bearer ${TOKEN}`).
fn is_reference(text: &str) -> bool {
    let bare = text.rsplit_once(' ').map_or(text, |(_, last)| last);
    bare.starts_with("${") && bare.ends_with('}') && !bare.contains(":-")
}

#[cfg(test)]
mod tests {
    use super::{text, value};
    use serde_json::json;

    #[test]
    fn no_planted_secret_is_left() {
        let entry = json!({
            "command": "docker",
            "args": ["run", "-e", "A=planted", "--env", "B=planted", "--env=C=planted", "-eD=planted",
                     "--api-key", "planted", "--token=planted", "-e", "NAME", "x:1", "--port=80",
                     "postgres://u:planted@db:5432/x"],
            "env": {"HOME": "planted", "N": 12345, "T": "${TOKEN}", "L": ["planted"]},
            "headers": {"Authorization": "Bearer planted", "X": "Bearer ${TOKEN}", "D": "${X:-planted}"},
            "url": "https://h/mcp?api_key=planted&x=1",
            "auth_value": "planted", "accessToken": "planted",
        });
        let shown = value(&entry).to_string();
        assert!(!shown.contains("planted") && !shown.contains("12345"), "{shown}");
        for stays in [
            "A=[redacted]",
            "--env=C=[redacted]",
            "Bearer ${TOKEN}",
            "--port=80",
            "\"NAME\"",
            "x=1",
            "@db:5432/x",
        ] {
            assert!(shown.contains(stays), "{stays}: {shown}");
        }
    }

    #[test]
    fn lines_and_comments_stay() {
        let before = "{\n  // mine\n  \"mcpServers\": {\"a\": {\"command\": \"x\",\n    \"env\": {\"K\": \"s\"},},}\n}\n";
        let after = text(before);
        assert_eq!(after, before.replace("\"s\"", "\"[redacted]\""));
        assert_eq!(text("{ broken \"s3cret"), "[redacted]\n");
    }
}
