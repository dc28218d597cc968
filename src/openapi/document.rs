//! The OpenAPI 3.1 documents: of one server, and of all.
//!
//! What is made of a tool does not depend on the document that it stands in, and is made once for a
//! list of tools; a document is then put together from text.
//!
//! Must never leave out a tool, whatever its schema says.

use crate::mcp::wire::{member, text_of};
use crate::openapi::arguments::Arguments;
use crate::openapi::names::{self, OperationIds};
use crate::openapi::schema::{Translated, translate};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The content type of answers that come with progress.
pub const EVENTS: &str = "text/event-stream";
const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";

/// What the tool proxy makes of a server's tools.
#[derive(Debug, Default)]
pub struct Operations {
    all: Vec<Arc<Operation>>,
}

/// One tool.
#[derive(Debug)]
pub struct Operation {
    /// Its name.
    pub tool: String,
    /// Its path below the server's, decoded.
    pub path: String,
    /// What it says of itself.
    pub description: String,
    /// Checks calls of it.
    pub arguments: Arguments,
    /// Whether it declared what its answers look like.
    pub has_output: bool,
    /// The operation as a JSON object, without its id.
    text: String,
    /// Components: name and JSON text.
    components: Vec<(String, String)>,
}

impl Operations {
    /// Of the tools of a server, as it wrote them.
    #[must_use]
    pub fn new<'a>(server: &str, tools: impl IntoIterator<Item = (&'a str, &'a RawValue)>) -> Self {
        let make = |(name, tool)| Arc::new(Operation::new(server, name, tool));
        Self { all: tools.into_iter().map(make).collect() }
    }

    /// Of what was made before.
    #[must_use]
    pub const fn of(all: Vec<Arc<Operation>>) -> Self {
        Self { all }
    }

    /// All of them in the server's order.
    #[must_use]
    pub fn all(&self) -> &[Arc<Operation>] {
        &self.all
    }

    /// The tool at a decoded path below the server's.
    #[must_use]
    pub fn at(&self, path: &str) -> Option<&Operation> {
        self.all.iter().find(|operation| operation.path == path).map(|operation| &**operation)
    }
}

impl Operation {
    /// Of a tool of a server, under this name.
    #[must_use]
    pub fn new(server: &str, name: &str, tool: &RawValue) -> Self {
        let schema = |key: &str| {
            let schema =
                member(tool, key).and_then(|schema| serde_json::from_str::<Value>(schema.get()).ok());
            schema.filter(|schema| schema.is_object())
        };
        let input = translate(
            &schema("inputSchema").unwrap_or_else(|| json!({ "type": "object" })),
            &names::component(server, name, "input"),
        );
        let output = schema("outputSchema")
            .map(|schema| translate(&schema, &names::component(server, name, "output")));
        let description = member(tool, "description").and_then(text_of).unwrap_or_default().into_owned();
        let annotations = schema("annotations");
        let text = operation(name, &description, (&input, output.as_ref()), annotations).to_string();
        let components = input.components.iter().chain(output.iter().flat_map(|output| &output.components));
        Self {
            tool: name.to_owned(),
            path: names::path(name).into_owned(),
            description,
            has_output: output.is_some(),
            text,
            components: components.map(|(name, schema)| (name.clone(), schema.to_string())).collect(),
            arguments: Arguments::new(&input),
        }
    }

    /// Its schema of arguments, for people.
    #[must_use]
    pub fn schema(&self) -> &Value {
        self.arguments.schema()
    }

    fn put(&self, at: &str, ids: &mut OperationIds, into: &mut Parts) {
        let path = format!("{at}/{}", self.path);
        let id = ids.of(&path);
        let comma = if into.paths.is_empty() { "" } else { "," };
        let rest = self.text.strip_prefix('{').unwrap_or_default();
        into.paths.push_str(&format!(
            "{comma}{}:{{\"post\":{{\"operationId\":{},{rest}}}",
            quoted(&names::encoded(&path)),
            quoted(&id)
        ));
        for (name, schema) in &self.components {
            into.schemas.push_str(&format!(",{}:{schema}", quoted(name)));
        }
    }
}

/// Paths and components as text, in a document that is being put together.
#[derive(Default)]
struct Parts {
    paths: String,
    schemas: String,
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn operation(
    name: &str,
    description: &str,
    (input, output): (&Translated, Option<&Translated>),
    annotations: Option<Value>,
) -> Value {
    let mut operation = Map::new();
    operation.insert("summary".to_owned(), names::summary(name).into());
    if !description.is_empty() {
        operation.insert("description".to_owned(), description.into());
    }
    if takes_arguments(&input.schema) {
        let required =
            input.schema.get("required").and_then(Value::as_array).is_some_and(|all| !all.is_empty());
        let content = json!({ JSON: { "schema": input.schema } });
        operation.insert("requestBody".to_owned(), json!({ "content": content, "required": required }));
    }
    let good = output.map_or_else(|| json!({}), |output| output.schema.clone());
    let error =
        |reference: &str| json!({ "schema": { "$ref": format!("#/components/schemas/{reference}") } });
    operation.insert(
        "responses".to_owned(),
        json!({
            "200": {
                "description": "Successful Response",
                "content": { JSON: { "schema": good }, EVENTS: { "schema": { "type": "string" } } },
            },
            "422": { "description": "Validation Error", "content": { JSON: error("HTTPValidationError") } },
            "default": {
                "description": "Error",
                "content": { JSON: error("ToolError"), PROBLEM: error("ToolError") },
            },
        }),
    );
    operation.insert("x-mcp-tool".to_owned(), name.into());
    operation.extend(annotations.map(|annotations| ("x-mcp-annotations".to_owned(), annotations)));
    Value::Object(operation)
}

/// Whether a call can have arguments. Clients that see a body insist on one.
fn takes_arguments(schema: &Value) -> bool {
    let Some(object) = schema.as_object() else { return false };
    object.iter().any(|(keyword, value)| match keyword.as_str() {
        "properties" | "patternProperties" => value.as_object().is_some_and(|map| !map.is_empty()),
        "additionalProperties" => value.is_object() || *value == Value::Bool(true),
        "$ref" | "allOf" | "anyOf" | "oneOf" | "if" => true,
        "required" => value.as_array().is_some_and(|all| !all.is_empty()),
        _ => false,
    })
}

/// What a document says of itself.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Its title.
    pub title: String,
    /// What it is about, in Markdown.
    pub description: String,
    /// The version of what it describes.
    pub version: String,
    /// The path that its paths begin at; empty for the root.
    pub url: String,
    /// Whether callers need a key.
    pub locked: bool,
    /// Further members, by name; names begin with `x-`.
    pub more: Vec<(&'static str, Value)>,
}

/// The document of one server.
#[must_use]
pub fn of_server(about: &About, operations: &Operations) -> String {
    let (mut ids, mut parts) = (OperationIds::default(), Parts::default());
    for operation in operations.all() {
        operation.put("", &mut ids, &mut parts);
    }
    whole(about, &parts)
}

/// The document of all servers, each with the path it has below the root.
#[must_use]
pub fn of_all<S: AsRef<str>>(about: &About, servers: &[(S, &Operations)]) -> String {
    let (mut ids, mut parts) = (OperationIds::default(), Parts::default());
    for (path, operations) in servers {
        let at = format!("/{}", path.as_ref());
        for operation in operations.all() {
            operation.put(&at, &mut ids, &mut parts);
        }
    }
    whole(about, &parts)
}

fn whole(about: &About, parts: &Parts) -> String {
    let info = json!({ "title": about.title, "description": about.description, "version": about.version });
    let url = if about.url.is_empty() { "/" } else { &about.url };
    let more: String = about.more.iter().map(|(name, value)| format!(",{}:{value}", quoted(name))).collect();
    let security = if about.locked { json!([{ "HTTPBearer": [] }, { "HTTPBasic": [] }]) } else { json!([]) };
    let schemes = json!({
        "HTTPBearer": { "type": "http", "scheme": "bearer" },
        "HTTPBasic": { "type": "http", "scheme": "basic" },
    });
    let errors = errors().to_string();
    let errors = errors.strip_suffix('}').unwrap_or_default();
    let mut out = String::with_capacity(parts.paths.len() + parts.schemas.len() + errors.len() + 1024);
    out.push_str(&format!(
        r#"{{"openapi":"3.1.0","info":{info},"servers":[{{"url":{}}}],"security":{security},"paths":{{"#,
        quoted(url)
    ));
    out.push_str(&parts.paths);
    out.push_str(r#"},"components":{"schemas":"#);
    out.push_str(errors);
    out.push_str(&parts.schemas);
    out.push_str(&format!(r#"}},"securitySchemes":{schemes}}}{more}}}"#));
    out
}

/// The shapes of errors.
fn errors() -> Value {
    json!({
        "HTTPValidationError": {
            "type": "object",
            "title": "HTTPValidationError",
            "properties": {
                "detail": { "type": "array", "items": { "$ref": "#/components/schemas/ValidationError" } },
            },
        },
        "ValidationError": {
            "type": "object",
            "title": "ValidationError",
            "required": ["loc", "msg", "type"],
            "properties": {
                "loc": {
                    "type": "array",
                    "title": "Location",
                    "items": { "anyOf": [{ "type": "string" }, { "type": "integer" }] },
                },
                "msg": { "type": "string", "title": "Message" },
                "type": { "type": "string", "title": "Error Type" },
            },
        },
        "ToolError": {
            "type": "object",
            "title": "ToolError",
            "required": ["detail"],
            "properties": {
                "detail": {
                    "anyOf": [
                        { "type": "string" },
                        {
                            "type": "object",
                            "required": ["message"],
                            "properties": { "message": { "type": "string" }, "code": { "type": "string" } },
                        },
                        { "type": "array" },
                    ],
                },
            },
        },
    })
}
