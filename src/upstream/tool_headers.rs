//! Arguments of a tool that its server wants to see in headers (`x-mcp-header`, modern era).
//!
//! The tool's schema says which: so every `tools/list` that passes is read for it, and every
//! `tools/call` that follows carries the headers. A tool with a wrong annotation must not be
//! offered at all; it is taken out of the list, and everything else stays as written.
//!
//! Must never hold more than [`TOOLS_MAX`] tools, and never put an argument anywhere but into the
//! header that the schema names.

use crate::mcp::mirror::{self, ANNOTATION, Annotated};
use crate::mcp::wire::{Message, member, read, splice, text_of};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// Tools with such arguments remembered for one server.
pub(crate) const TOOLS_MAX: usize = 10_000;

/// What the tools of one server want.
#[derive(Debug, Default)]
pub(crate) struct ToolHeaders {
    tools: BTreeMap<String, Vec<Annotated>>,
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
            let schema = member(tool, "inputSchema").filter(|schema| schema.get().contains(ANNOTATION));
            let wanted = schema.map_or_else(|| Some(Vec::new()), mirror::checked);
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
        for (name, value) in mirror::param_headers(wanted, arguments) {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                headers.insert(name, value);
            }
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

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
