//! Files of other programs as plain values, for whoever looks for servers in them.
//!
//! Reads with the same parsers as our own files, so that comments, trailing commas, depth limits and
//! places in messages are the same. Must never decide whether a value is a server.

use serde_json::Value;

use crate::config::error::{Problem, Sink};
use crate::config::text::decode;
use crate::config::{json, raw, yaml};

/// The whole of a JSON or YAML file; the file's name says which.
///
/// # Errors
/// The first problem that makes it unreadable; it names no text of the file.
pub fn value(file: &str, bytes: &[u8]) -> Result<Value, Box<Problem>> {
    let text = decode(file, bytes)?;
    let mut sink = Sink::new(file, text);
    let node = if is_yaml(file) { yaml::read(text, &mut sink) } else { json::read(text, &mut sink) };
    node.map(|node| node.to_json()).ok_or_else(|| first(sink, file))
}

/// The entries of a file in one of our own forms (map of servers, panel document, YAML), in their
/// order, in our names.
///
/// # Errors
/// The first problem that makes the file as a whole unreadable.
pub fn entries(file: &str, bytes: &[u8]) -> Result<Vec<(String, Value)>, Box<Problem>> {
    let text = decode(file, bytes)?;
    let mut sink = Sink::new(file, text);
    match raw::read(file, text, &mut sink) {
        Some(raw) => {
            Ok(raw.servers.into_iter().map(|server| (server.name, server.entry.to_json())).collect())
        }
        None => Err(first(sink, file)),
    }
}

/// Whether the name is a YAML file's.
#[must_use]
pub fn is_yaml(file: &str) -> bool {
    let lower = file.to_ascii_lowercase();
    lower.ends_with(".yaml") || lower.ends_with(".yml")
}

fn first(sink: Sink<'_>, file: &str) -> Box<Problem> {
    let problems = sink.finish();
    let found = problems.into_iter().find(Problem::is_error);
    Box::new(found.unwrap_or_else(|| {
        let place = crate::config::error::Place::whole(file);
        Problem::error(crate::config::codes::UNREADABLE, place, "the file cannot be read")
    }))
}

#[cfg(test)]
mod tests {
    use super::{entries, value};

    #[test]
    fn both_formats_are_read_and_broken_ones_say_where() {
        assert_eq!(value("a.json", b"// x\n{\"a\": 1,}").unwrap()["a"], 1);
        assert_eq!(value("a.yaml", b"a: [1]\n").unwrap()["a"][0], 1);
        let problem = value("a.json", b"{\n \"a\" 1}").unwrap_err();
        assert_eq!(problem.place.line, 2, "{problem}");
    }

    #[test]
    fn entries_come_in_our_names() {
        let yaml = b"servers:\n  - name: t\n    command: uvx\n    args: [mcp-server-time]\n    working_directory: /x\n";
        let found = entries("mcp-config.yaml", yaml).unwrap();
        assert_eq!((found[0].0.as_str(), &found[0].1["cwd"]), ("t", &serde_json::json!("/x")));
        assert!(entries("x.json", b"{\"a\": 1}").is_err());
    }
}
