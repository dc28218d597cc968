//! The parts of a modern message that must stand in HTTP headers as well, so that what sits in
//! front of a server can route without reading bodies: which they are, and whether both agree.
//!
//! A tool names arguments of its own with `x-mcp-header` in its input schema, on properties that
//! are reached through `properties` alone. An annotation that the protocol does not allow (an empty
//! or repeated name, one that is no header name, or one on a `number`, an object or a list) makes
//! the tool invalid for clients; nobody can follow it, so it is passed over here.
//!
//! Must never accept a request in which header and body could be read as two different things.

use crate::mcp::base64::{header_text, header_value};
use crate::mcp::object::once;
use crate::mcp::wire::{each_member, is_json, member, text_of};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Marks a property of a tool's input schema.
pub const ANNOTATION: &str = "x-mcp-header";
/// What the name of such a property's header begins with, in lower case.
pub const PARAM_PREFIX: &str = "mcp-param-";
/// Levels of nested properties that are searched.
pub const DEPTH_MAX: usize = 16;
/// Annotated properties of one tool.
pub const ANNOTATIONS_MAX: usize = 64;
/// Members of a schema whose values are data and no schemas.
const DATA: [&str; 4] = ["const", "default", "enum", "examples"];
/// Integers are exact up to here in every implementation.
const EXACT_MAX: f64 = 9_007_199_254_740_991.0;

/// The param that `Mcp-Name` repeats for a method; `None` when the method has none.
#[must_use]
pub fn name_key(method: &str) -> Option<&'static str> {
    match method {
        "tools/call" | "prompts/get" => Some("name"),
        "resources/read" => Some("uri"),
        "tasks/get" | "tasks/update" | "tasks/cancel" => Some("taskId"),
        _ => None,
    }
}

/// One annotated property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotated {
    /// The header's name after [`PARAM_PREFIX`], as the tool writes it.
    pub header: String,
    /// The keys that lead to the value, from the arguments down.
    pub path: Vec<String>,
}

/// The usable annotations of a tool's input schema.
#[must_use]
pub fn annotated(input_schema: &RawValue) -> Vec<Annotated> {
    let mut found = Vec::new();
    let mut open = vec![(Vec::new(), input_schema)];
    while let Some((path, schema)) = open.pop() {
        let Some(properties) = member(schema, "properties").filter(|_| path.len() < DEPTH_MAX) else {
            continue;
        };
        let walked = each_member(properties.get(), &mut |key, property| {
            let path: Vec<String> = path.iter().cloned().chain([key.into_owned()]).collect();
            if let Some(header) = annotation(property)
                && found.len() < ANNOTATIONS_MAX
            {
                found.push(Annotated { header, path: path.clone() });
            }
            if property.get().contains(ANNOTATION) {
                open.push((path, property));
            }
        });
        if walked.is_err() {
            return Vec::new();
        }
    }
    let names: Vec<String> = found.iter().map(|a| a.header.to_ascii_lowercase()).collect();
    found.retain(|a| names.iter().filter(|name| a.header.eq_ignore_ascii_case(name)).count() == 1);
    found
}

fn annotation(property: &RawValue) -> Option<String> {
    let header = text_of(member(property, ANNOTATION)?)?;
    let kind = member(property, "type").and_then(text_of);
    let fits = !matches!(kind.as_deref(), Some("number" | "object" | "array" | "null"));
    (fits && is_token(&header)).then(|| header.into_owned())
}

/// Whether a text can be the name of a header: RFC 9110, `token`.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// The value at a path of the arguments; `Err` when a key on the way stands twice.
fn at<'a>(arguments: Option<&'a RawValue>, path: &[String]) -> Result<Option<&'a RawValue>, String> {
    let mut value = arguments;
    for key in path {
        let Some(object) = value else { return Ok(None) };
        value = once(object, key).map_err(|_twice| format!("argument {key} stands twice"))?;
    }
    Ok(value.filter(|value| value.get() != "null"))
}

/// `Mcp-Name` for a request of ours, encoded; `None` when its method or its params have no name.
#[must_use]
pub fn name_header(method: &str, params: Option<&RawValue>) -> Option<String> {
    let name = text_of(member(params?, name_key(method)?)?)?;
    Some(header_value(&name).into_owned())
}

/// Says how the `Mcp-Param-*` headers (name after the prefix, value) and the arguments of a tool
/// disagree.
///
/// # Errors
/// The first disagreement, for the caller to read.
pub fn compare(
    headers: &[(&str, &str)],
    input_schema: &RawValue,
    arguments: Option<&RawValue>,
) -> Result<(), String> {
    for Annotated { header, path } in annotated(input_schema) {
        let mut sent = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(&header));
        let (first, second) = (sent.next(), sent.next());
        if second.is_some() {
            return Err(format!("Mcp-Param-{header} header stands twice"));
        }
        match (first, at(arguments, &path)?) {
            (None, None) => {}
            (Some(_), None) => {
                return Err(format!("Mcp-Param-{header} header has no value in the body"));
            }
            // A list or an object has no form as a header; the tool itself will refuse it.
            (None, Some(value)) if value.get().starts_with(['{', '[']) => {}
            (None, Some(_)) => return Err(format!("Mcp-Param-{header} header is missing")),
            (Some((_, text)), Some(value)) => {
                let text = header_text(text)
                    .ok_or_else(|| format!("Mcp-Param-{header} header has invalid characters"))?;
                if !same(&text, value) {
                    return Err(format!("Mcp-Param-{header} header does not match the body"));
                }
            }
        }
    }
    Ok(())
}

/// The `Mcp-Param-*` headers for a call of ours: full name and encoded value.
#[must_use]
pub fn param_headers(annotated: &[Annotated], arguments: &RawValue) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for Annotated { header, path } in annotated {
        let Ok(Some(value)) = at(Some(arguments), path) else { continue };
        if let Some(text) = text(value) {
            out.push((format!("Mcp-Param-{header}"), header_value(&text).into_owned()));
        }
    }
    out
}

/// An argument as text; only primitive ones have one.
fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    match value.get() {
        text @ ("true" | "false") => Some(Cow::Borrowed(text)),
        text if text.starts_with('"') => text_of(value),
        text if text.parse::<i128>().is_ok() => Some(Cow::Borrowed(text)),
        // An integer may be written as 42.0 or 4.2e1.
        text => {
            let number: f64 = text.parse().ok()?;
            let exact = number.fract() == 0.0 && number.abs() <= EXACT_MAX;
            exact.then(|| Cow::Owned(format!("{number:.0}")))
        }
    }
}

/// The annotations of a tool that we offer to clients; `None` when one of them is wrong, and the tool
/// must not be offered.
#[must_use]
pub fn checked(input_schema: &RawValue) -> Option<Vec<Annotated>> {
    let found = annotated(input_schema);
    let fits = |annotated: &Annotated| {
        let mut schema = Some(input_schema);
        for key in &annotated.path {
            schema = schema.and_then(|schema| member(member(schema, "properties")?, key));
        }
        let kind = schema.and_then(|schema| member(schema, "type")).and_then(text_of);
        matches!(kind.as_deref(), Some("string" | "integer" | "boolean"))
    };
    let schema: serde_json::Value = serde_json::from_str(input_schema.get()).ok()?;
    (found.iter().all(fits) && count(&schema) == found.len()).then_some(found)
}

/// Counts the annotations anywhere in a schema.
fn count(schema: &serde_json::Value) -> usize {
    use serde_json::Value;
    match schema {
        Value::Array(parts) => parts.iter().map(count).sum(),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| match (name.as_str(), value) {
                (ANNOTATION, _) => 1,
                ("properties", Value::Object(properties)) => properties.values().map(count).sum(),
                (name, _) if DATA.contains(&name) => 0,
                _ => count(value),
            })
            .sum(),
        _ => 0,
    }
}

/// Whether a header's text says the same as a value of the body.
fn same(text: &str, value: &RawValue) -> bool {
    match value.get().as_bytes().first() {
        Some(b'"') => text_of(value).is_some_and(|body| body == text),
        Some(b't' | b'f') => value.get() == text,
        Some(b'-' | b'0'..=b'9') => same_number(text, value.get()),
        _ => false,
    }
}

/// `42.0` and `42` are equal; two integers that only look equal as doubles are not.
fn same_number(text: &str, body: &str) -> bool {
    if text == body || !is_json(text) {
        return text == body;
    }
    if let (Ok(text), Ok(body)) = (text.parse::<i128>(), body.parse::<i128>()) {
        return text == body;
    }
    matches!((text.parse::<f64>(), body.parse::<f64>()), (Ok(a), Ok(b)) if a == b && a.abs() <= EXACT_MAX)
}
