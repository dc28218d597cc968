//! JSON with comments and trailing commas into the tree.

use jsonc_parser::ast::{ObjectPropName, Value as Ast};
use jsonc_parser::common::Ranged;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};

use crate::config::codes;
use crate::config::error::Sink;
use crate::config::node::{Member, Node, Value};

/// What is taken besides JSON itself: comments and trailing commas, as editors do.
pub(crate) const OPTIONS: ParseOptions = ParseOptions {
    allow_comments: true,
    allow_loose_object_property_names: false,
    allow_trailing_commas: true,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

/// The tree of `text`; `None` after a syntax error, which goes to `sink`. An empty text is an
/// empty object.
pub(crate) fn read(text: &str, sink: &mut Sink<'_>) -> Option<Node> {
    match parse_to_ast(text, &CollectOptions::default(), &OPTIONS) {
        Ok(parsed) => Some(match parsed.value {
            Some(value) => convert(value),
            None => Node::object(0, Vec::new()),
        }),
        Err(error) => {
            // The kind alone names no text of the file, which may be a secret.
            let mut message = error.kind().to_string();
            if let Some(first) = message.get_mut(..1) {
                first.make_ascii_lowercase();
            }
            sink.error(codes::JSON_SYNTAX, error.range().start, message);
            sink.hint("the last good configuration stays in force until this is mended");
            None
        }
    }
}

fn convert(ast: Ast<'_>) -> Node {
    let at = ast.start();
    let value = match ast {
        Ast::NullKeyword(_) => Value::Null,
        Ast::BooleanLit(literal) => Value::Bool(literal.value),
        Ast::NumberLit(literal) => Value::Number(literal.value.to_owned()),
        Ast::StringLit(literal) => Value::Text(literal.value.into_owned()),
        Ast::Array(array) => Value::List(array.elements.into_iter().map(convert).collect()),
        Ast::Object(object) => Value::Object(
            object
                .properties
                .into_iter()
                .map(|property| {
                    let key_at = property.name.start();
                    let key = match property.name {
                        ObjectPropName::String(literal) => literal.value.into_owned(),
                        ObjectPropName::Word(word) => word.value.to_owned(),
                    };
                    Member::new(key, key_at, convert(property.value))
                })
                .collect(),
        ),
    };
    Node { at, value }
}

#[cfg(test)]
mod tests {
    use super::read;
    use crate::config::error::Sink;

    #[test]
    fn comments_and_trailing_commas_are_fine() {
        let text = "// c\n{\"a\": [1, 2,], /* d */ \"b\": {\"c\": null,},}";
        let mut sink = Sink::new("t", text);
        let node = read(text, &mut sink).unwrap();
        assert_eq!(node.to_json().to_string(), r#"{"a":[1,2],"b":{"c":null}}"#);
        assert_eq!(node.get("b").map(|b| b.at), text.find("{\"c\""));
    }

    #[test]
    fn other_liberties_are_not() {
        for text in ["{a: 1}", "{'a': 1}", "{\"a\": 0x1}", "{\"a\": 1 \"b\": 2}", "{", "[1", "nul"] {
            let mut sink = Sink::new("t", text);
            assert!(read(text, &mut sink).is_none(), "{text}");
            assert_eq!(sink.finish().len(), 1, "{text}");
        }
    }

    #[test]
    fn nesting_has_an_end() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        for (depth, fits) in [(400, true), (100_000, false)] {
            let text = nested(depth);
            let mut sink = Sink::new("t", &text);
            let node = read(&text, &mut sink);
            assert_eq!(node.is_some(), fits, "{depth}");
            node.iter().for_each(|node| node.report_duplicates(&mut sink));
        }
    }
}
