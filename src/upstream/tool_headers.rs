//! Arguments of a tool that its server wants to see in headers (`x-mcp-header`, modern era).
//!
//! The tool's schema says which: so every `tools/list` that passes is read for it, and every
//! `tools/call` that follows carries the headers. A tool with a wrong annotation must not be
//! offered at all; it is taken out of the list, and everything else stays as written.
//!
//! Must never hold more than [`TOOLS_MAX`] tools, and never put an argument anywhere but into the
//! header that the schema names.

use crate::mcp::base64::header_value;
use crate::mcp::wire::{Message, member, read, splice, text_of};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// Tools with such arguments remembered for one server.
pub(crate) const TOOLS_MAX: usize = 10_000;

/// The annotation of a schema's property.
const ANNOTATION: &str = "x-mcp-header";
/// The largest integer that is exact in a double.
const INTEGER_MAX: f64 = 9_007_199_254_740_991.0;
/// Members of a schema whose values are data and no schemas.
const DATA: [&str; 4] = ["const", "default", "enum", "examples"];

/// One argument, and the header that it goes into.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mirrored {
    header: HeaderName,
    path: Vec<String>,
}

/// What the tools of one server want.
#[derive(Debug, Default)]
pub(crate) struct ToolHeaders {
    tools: BTreeMap<String, Vec<Mirrored>>,
}

impl ToolHeaders {
    /// Reads the answer to a `tools/list`; an answer with wrong tools comes back without them.
    pub(crate) fn learn(&mut self, line: &str) -> Option<String> {
        if self.tools.is_empty() && !line.contains(ANNOTATION) {
            return None;
        }
        let Ok(Message::Response { result, .. }) = read(line.as_bytes()) else { return None };
        let list = member(result, "tools")?;
        let tools: Vec<&RawValue> = serde_json::from_str(list.get()).ok()?;
        let mut kept = Vec::with_capacity(tools.len());
        for tool in &tools {
            let Some(name) = member(tool, "name").and_then(text_of) else { continue };
            let wanted = if tool.get().contains(ANNOTATION) { mirrored(tool) } else { Some(Vec::new()) };
            match wanted {
                None => {
                    self.tools.remove(name.as_ref());
                    continue;
                }
                Some(wanted) if wanted.is_empty() => {
                    self.tools.remove(name.as_ref());
                }
                Some(wanted) => {
                    if self.tools.len() < TOOLS_MAX || self.tools.contains_key(name.as_ref()) {
                        self.tools.insert(name.into_owned(), wanted);
                    }
                }
            }
            kept.push(tool.get());
        }
        if kept.len() == tools.len() {
            return None;
        }
        splice(line, list.get(), &format!("[{}]", kept.join(",")))
    }

    /// The headers for the call of a tool.
    pub(crate) fn of_call(&self, body: &[u8]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if self.tools.is_empty() {
            return headers;
        }
        let Ok(Message::Request { params: Some(params), .. }) = read(body) else { return headers };
        let wanted = member(params, "name").and_then(text_of).and_then(|name| self.tools.get(name.as_ref()));
        let (Some(wanted), Some(arguments)) = (wanted, member(params, "arguments")) else { return headers };
        for Mirrored { header, path } in wanted {
            let value = path.iter().try_fold(arguments, |value, key| member(value, key));
            let value = value.and_then(text).map(|text| header_value(&text).into_owned());
            if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
                headers.insert(header.clone(), value);
            }
        }
        headers
    }
}

/// An argument as text; only primitive ones have one.
fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    match value.get() {
        text @ ("true" | "false") => Some(Cow::Borrowed(text)),
        text if text.starts_with('"') => text_of(value),
        text if text.parse::<i64>().is_ok() => Some(Cow::Borrowed(text)),
        // An integer may be written as 42.0 or 4.2e1.
        text => {
            let number: f64 = text.parse().ok()?;
            let exact = number.fract() == 0.0 && number.abs() <= INTEGER_MAX;
            exact.then(|| Cow::Owned(format!("{number:.0}")))
        }
    }
}

/// What a tool wants mirrored; `None` when an annotation of it is wrong.
fn mirrored(tool: &RawValue) -> Option<Vec<Mirrored>> {
    let Some(schema) = member(tool, "inputSchema") else { return Some(Vec::new()) };
    let schema: Value = serde_json::from_str(schema.get()).ok()?;
    let mut found = Vec::new();
    reach(&schema, &mut Vec::new(), &mut found)?;
    let names: BTreeSet<&str> = found.iter().map(|one| one.header.as_str()).collect();
    (names.len() == found.len() && annotations(&schema) == found.len()).then_some(found)
}

/// Collects the annotations that a chain of `properties` leads to.
fn reach(schema: &Value, path: &mut Vec<String>, found: &mut Vec<Mirrored>) -> Option<()> {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return Some(()) };
    for (name, property) in properties {
        path.push(name.clone());
        if let Some(annotation) = property.get(ANNOTATION) {
            let primitive = matches!(
                property.get("type").and_then(Value::as_str),
                Some("string" | "integer" | "boolean")
            );
            let name = annotation.as_str().filter(|name| primitive && !name.is_empty())?;
            let header = HeaderName::try_from(format!("mcp-param-{name}")).ok()?;
            found.push(Mirrored { header, path: path.clone() });
        }
        reach(property, path, found)?;
        path.pop();
    }
    Some(())
}

/// Counts the annotations anywhere in a schema.
fn annotations(schema: &Value) -> usize {
    match schema {
        Value::Array(parts) => parts.iter().map(annotations).sum(),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| match (name.as_str(), value) {
                (ANNOTATION, _) => 1,
                ("properties", Value::Object(properties)) => properties.values().map(annotations).sum(),
                (name, _) if DATA.contains(&name) => 0,
                _ => annotations(value),
            })
            .sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn list(tools: &[Value]) -> String {
        json!({"jsonrpc": "2.0", "id": 1, "result": {"tools": tools, "x": 1.0}}).to_string()
    }

    fn tool(name: &str, properties: &Value) -> Value {
        json!({"name": name, "inputSchema": {"type": "object", "properties": properties}})
    }

    fn call(name: &str, arguments: &str) -> String {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{name}","arguments":{arguments}}}}}"#
        )
    }

    #[test]
    fn annotated_arguments_go_into_headers() {
        let properties = json!({
            "region": {"type": "string", "x-mcp-header": "Region"},
            "in": {"type": "object", "properties": {"n": {"type": "integer", "x-mcp-header": "N"}}},
            "flag": {"type": "boolean", "x-mcp-header": "flag"},
            "x-mcp-header": {"type": "string", "default": {"x-mcp-header": "data"}},
        });
        let mut tools = ToolHeaders::default();
        assert_eq!(tools.learn(&list(&[tool("sql", &properties), tool("plain", &json!({}))])), None);
        let headers = tools.of_call(
            call("sql", r#"{"region":"Hello, 世界","in":{"n":42.0},"flag":true,"x-mcp-header":"a"}"#)
                .as_bytes(),
        );
        assert_eq!(headers.len(), 3);
        assert_eq!(headers["mcp-param-region"], "=?base64?SGVsbG8sIOS4lueVjA==?=");
        assert_eq!(
            (&headers["mcp-param-n"], &headers["mcp-param-flag"]),
            (&HeaderValue::from(42), &HeaderValue::from_static("true"))
        );
        for (name, arguments) in
            [("sql", r#"{"region":null,"in":7,"flag":{}}"#), ("plain", r#"{"region":"a"}"#)]
        {
            assert!(tools.of_call(call(name, arguments).as_bytes()).is_empty(), "{name}");
        }
        // A list without the annotation takes it back.
        assert_eq!(tools.learn(&list(&[tool("sql", &json!({}))])), None);
        assert!(tools.of_call(call("sql", r#"{"region":"a"}"#).as_bytes()).is_empty());
    }

    #[test]
    fn a_wrong_annotation_takes_its_tool_out_and_nothing_else() {
        let wrong = [
            json!({"a": {"type": "number", "x-mcp-header": "A"}}),
            json!({"a": {"type": "string", "x-mcp-header": ""}}),
            json!({"a": {"type": "string", "x-mcp-header": "b c"}}),
            json!({"a": {"type": "string", "x-mcp-header": "a\r\nb"}}),
            json!({"a": {"type": "string", "x-mcp-header": 7}}),
            json!({"a": {"type": "string", "x-mcp-header": "A"}, "b": {"type": "string", "x-mcp-header": "a"}}),
            json!({"a": {"type": "array", "items": {"type": "string", "x-mcp-header": "A"}}}),
            json!({"a": {"anyOf": [{"properties": {"b": {"type": "string", "x-mcp-header": "A"}}}]}}),
        ];
        for properties in wrong {
            let mut tools = ToolHeaders::default();
            let line = list(&[tool("good", &json!({})), tool("wrong", &properties)]);
            assert_eq!(tools.learn(&line), Some(list(&[tool("good", &json!({}))])), "{properties}");
            assert!(tools.of_call(call("wrong", r#"{"a":"v","b":"v"}"#).as_bytes()).is_empty());
        }
    }
}
