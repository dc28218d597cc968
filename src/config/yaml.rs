//! YAML into the tree.
//!
//! Why the depth is looked at before reading: nested blocks are built recursively, and a file must
//! not be able to exhaust the stack.

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};

use crate::config::codes;
use crate::config::error::Sink;
use crate::config::node::{Member, Node, Value};

/// Deepest nesting read, in brackets and in columns of indentation.
const DEPTH_MAX: usize = 200;

/// The tree of `text`; `None` after a syntax error, which goes to `sink`. An empty text is an
/// empty object.
pub(crate) fn read(text: &str, sink: &mut Sink<'_>) -> Option<Node> {
    if let Some(at) = too_deep(text) {
        sink.error(codes::YAML_SYNTAX, at, "the text is nested too deeply");
        return None;
    }
    let offsets = Offsets::new(text);
    match MarkedYaml::load_from_str(text) {
        Ok(documents) => {
            if documents.len() > 1 {
                sink.error(codes::YAML_SYNTAX, 0, "the file has more than one YAML document");
                return None;
            }
            let Some(document) = documents.first() else {
                return Some(Node::object(0, Vec::new()));
            };
            convert(document, &offsets, sink)
        }
        Err(error) => {
            let at = offsets.byte(error.marker().index());
            let duplicate = error.info().contains("duplicate");
            let message = if duplicate {
                "a key is there twice in one map".to_owned()
            } else {
                error.info().to_owned()
            };
            sink.error(codes::YAML_SYNTAX, at, message);
            sink.hint("the last good configuration stays in force until this is mended");
            None
        }
    }
}

/// Where `text` is nested deeper than [`DEPTH_MAX`], counted generously.
fn too_deep(text: &str) -> Option<usize> {
    let mut start = 0;
    let mut brackets = 0_usize;
    for line in text.split_inclusive('\n') {
        let indicators = line.find(|c: char| !" -?:".contains(c)).unwrap_or(line.len());
        for c in line.chars() {
            match c {
                '[' | '{' => brackets += 1,
                ']' | '}' => brackets = brackets.saturating_sub(1),
                _ => {}
            }
            if brackets > DEPTH_MAX {
                return Some(start);
            }
        }
        if indicators > DEPTH_MAX {
            return Some(start);
        }
        start += line.len();
    }
    None
}

/// Byte offsets of characters.
struct Offsets {
    /// `None` for ASCII, where both are the same.
    bytes: Option<Vec<usize>>,
    len: usize,
}

impl Offsets {
    fn new(text: &str) -> Self {
        let bytes = (!text.is_ascii()).then(|| text.char_indices().map(|(at, _)| at).collect());
        Self { bytes, len: text.len() }
    }

    fn byte(&self, index: usize) -> usize {
        match &self.bytes {
            None => index.min(self.len),
            Some(bytes) => bytes.get(index).copied().unwrap_or(self.len),
        }
    }
}

fn convert(yaml: &MarkedYaml<'_>, offsets: &Offsets, sink: &mut Sink<'_>) -> Option<Node> {
    let at = offsets.byte(yaml.span.start.index());
    let value = match &yaml.data {
        YamlData::Value(scalar) => convert_scalar(scalar),
        YamlData::Representation(text, _, _) => Value::Text(text.clone().into_owned()),
        YamlData::Sequence(items) => {
            let items: Option<Vec<Node>> = items.iter().map(|item| convert(item, offsets, sink)).collect();
            Value::List(items?)
        }
        YamlData::Mapping(map) => {
            let mut members = Vec::new();
            for (key, value) in map {
                let name = convert(key, offsets, sink)?;
                let Some(text) = name.scalar() else {
                    sink.error(codes::YAML_SYNTAX, name.at, "a key is no plain text");
                    return None;
                };
                members.push(Member::new(text, name.at, convert(value, offsets, sink)?));
            }
            Value::Object(members)
        }
        YamlData::Tagged(_, inner) => return convert(inner, offsets, sink),
        YamlData::Alias(_) | YamlData::BadValue => {
            sink.error(codes::YAML_SYNTAX, at, "this value cannot be read");
            return None;
        }
    };
    Some(Node { at, value })
}

fn convert_scalar(scalar: &Scalar<'_>) -> Value {
    match scalar {
        Scalar::Null => Value::Null,
        Scalar::Boolean(value) => Value::Bool(*value),
        Scalar::Integer(number) => Value::Number(number.to_string()),
        Scalar::FloatingPoint(number) => Value::Number(number.to_string()),
        Scalar::String(text) => Value::Text(text.clone().into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::read;
    use crate::config::error::Sink;

    #[test]
    fn places_are_bytes() {
        let text = "é: x\nb:\n  - 1\n  - {c: null}\n";
        let mut sink = Sink::new("t", text);
        let node = read(text, &mut sink).unwrap();
        assert_eq!(node.to_json().to_string(), r#"{"é":"x","b":[1,{"c":null}]}"#);
        assert_eq!(node.member("b").map(|b| b.key_at), text.find("b:"));
        assert_eq!(node.get("b").map(|b| b.items()[0].at), text.find('1'));
    }

    #[test]
    fn deep_and_double_files_are_refused() {
        let deep = "- ".repeat(100_000);
        let brackets = "[".repeat(100_000);
        let hidden = "[\"]\",".repeat(100_000);
        let keys = (0..3_000).map(|n| " ".repeat(n) + "a:\n").collect::<String>();
        for text in [
            deep.as_str(),
            &brackets,
            &hidden,
            &keys,
            "a: &x [*x]\n",
            "a: 1\na: 2\n",
            "a: [1\n",
            "--- a\n--- b\n",
        ] {
            let mut sink = Sink::new("t", text);
            assert!(read(text, &mut sink).is_none(), "{text:.20}");
            assert_eq!(sink.finish().len(), 1);
        }
    }
}
