//! The OpenAPI 3.1 document, written from the table of routes and the types they answer with.

use crate::api::parameters;
use crate::api::table::{ROUTES, Route};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;

/// An error.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
struct ProblemBody {
    /// The same for every error of this code.
    title: String,
    /// The status of the answer.
    status: u16,
    /// What was wrong this time.
    detail: String,
    /// A documented code.
    code: String,
    /// What helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    /// Where in the file, with line and column.
    #[serde(skip_serializing_if = "Option::is_none")]
    problems: Option<Vec<Value>>,
}

/// The document; without the dashboard only of what is still served.
#[must_use]
pub fn document(dashboard: bool) -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    settings.meta_schema = None;
    let mut schemas = settings.for_serialize().into_generator();
    let problem = schemas.subschema_for::<ProblemBody>();
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES.iter().filter(|route| dashboard || !route.needs_dashboard()) {
        let operation = operation(route, &mut schemas, &json!(problem));
        let path = paths.entry(route.path.to_owned()).or_insert_with(|| json!({}));
        if let Some(path) = path.as_object_mut() {
            path.insert(route.method.to_ascii_lowercase(), operation);
        }
    }
    let schemas = schemas.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "MCP Orchestrator",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Reads and steers the daemon. Times are milliseconds since the epoch. What takes a while answers 202 with a task.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "basic": [] }, { "bearer": [] }],
        "tags": tags(),
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "basic": { "type": "http", "scheme": "basic" },
                "bearer": { "type": "http", "scheme": "bearer", "description": "The password as a bearer token." },
            },
        },
    })
}

fn tags() -> Value {
    json!([
        { "name": "panel", "description": "The whole." },
        { "name": "servers", "description": "Servers, one by one or several." },
        { "name": "sections", "description": "Servers by section." },
        { "name": "tasks", "description": "What was asked for, and who did what." },
        { "name": "short", "description": "The short manager API; its errors are `{\"error\": …}`." },
        { "name": "probes", "description": "Without a password." },
    ])
}

fn operation(route: &Route, schemas: &mut SchemaGenerator, problem: &Value) -> Value {
    let mut parameters = Vec::new();
    for part in route.path.split('/').filter_map(|part| part.strip_prefix('{')) {
        let name = part.trim_end_matches('}');
        parameters
            .push(json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }));
    }
    for param in route.query {
        parameters.push(json!({
            "name": param.name, "in": "query", "description": param.about, "schema": parameters::schema(param.kind),
        }));
    }
    parameters.extend(versions(route));
    let (status, shape) = route.good;
    let good = match shape {
        Some(shape) => json!({ "application/json": { "schema": shape(schemas) } }),
        None => bare(route.path),
    };
    let mut responses = Map::new();
    responses.insert(status.to_string(), json!({ "description": "All is well.", "content": good.clone() }));
    let mut others: Vec<u16> = route.others.to_vec();
    if !route.is_open() {
        others.extend([400, 401, 403, 429]);
    }
    others.sort_unstable();
    others.dedup();
    let error = if route.tag == "short" {
        // The second is of the door before the route.
        json!({ "application/json": { "schema": {} }, "application/problem+json": { "schema": problem } })
    } else {
        json!({ "application/problem+json": { "schema": problem } })
    };
    if route.kept {
        responses.insert("304".to_owned(), json!({ "description": "The list is the one of If-None-Match." }));
    }
    for other in others {
        let content = if other < 300 { &good } else { &error };
        responses.insert(other.to_string(), json!({ "description": words(other), "content": content }));
    }
    let mut operation = json!({
        "operationId": route.id,
        "tags": [route.tag],
        "summary": route.about,
        "parameters": parameters,
        "responses": responses,
    });
    if let Some(object) = operation.as_object_mut() {
        if let Some(body) = route.body {
            let schema = body(schemas);
            object.insert(
                "requestBody".to_owned(),
                json!({ "required": !route.may_be_bare, "content": { "application/json": { "schema": schema } } }),
            );
        }
        if route.is_open() {
            object.insert("security".to_owned(), json!([]));
        }
    }
    operation
}

/// The header that names a version, where a route takes one.
fn versions(route: &Route) -> Option<Value> {
    if route.kept {
        return Some(json!({
            "name": "If-None-Match", "in": "header", "schema": { "type": "string" },
            "description": "The ETag of the list that is there already: 304 when it is still the same.",
        }));
    }
    (route.versions && route.method != "GET").then(|| json!({
        "name": "If-Match", "in": "header", "schema": { "type": "string", "minLength": 1 },
        "description": "The ETag of the version that the change is made for, or `*`. Needed when the file was changed by others since it was read.",
    }))
}

/// Answers that have no schema of their own.
fn bare(path: &str) -> Value {
    match path {
        "/healthz" | "/metrics" => json!({ "text/plain": { "schema": { "type": "string" } } }),
        "/api/v1/events" => json!({ "text/event-stream": { "schema": { "type": "string" } } }),
        _ => json!({ "application/json": { "schema": {} } }),
    }
}

const fn words(status: u16) -> &'static str {
    match status {
        200 => "The task has ended, or nothing was to be written.",
        400 => "The request cannot be read.",
        401 => "Credentials are missing or wrong.",
        403 => "Not from there: a foreign name, page or method of sending.",
        404 => "It is not there.",
        409 => "It cannot be done.",
        412 => "The file is not the version of If-Match any more.",
        422 => "The file would have an error.",
        428 => "If-Match is missing.",
        429 => "Too much at once.",
        502 => "The server failed.",
        503 => "Not now.",
        _ => "Something else.",
    }
}

/// The routes for readers, in Markdown: `docs/reference/api.md`.
#[must_use]
pub fn reference() -> String {
    let mut out = String::from(
        "# REST API\n\n\
         The main listener and the control socket answer the same routes; `/docs` tries them and\n\
         `/openapi.json` is the OpenAPI 3.1 document. Over the network every route but the probes needs the\n\
         user and password of `[dashboard]` (Basic, or the password as a Bearer token); what a browser sends\n\
         to change something needs the header `X-MCP-Orchestrator`. Errors are `application/problem+json`\n\
         with a `code` ([error-codes.md](error-codes.md)) and a `hint`; those of the short API are\n\
         `{\"error\": …}`. Every route may answer 400, 401, 403 and 429.\n",
    );
    let all = tags();
    for tag in all.as_array().into_iter().flatten() {
        let text = |key: &str| tag.get(key).and_then(Value::as_str).unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = write!(out, "\n## {}\n\n{}\n\n", text("name"), text("description"));
        out.push_str("| route | does | answers | takes |\n|---|---|---|---|\n");
        for route in ROUTES.iter().filter(|route| route.tag == text("name")) {
            let _ = writeln!(out, "{}", row(route));
        }
    }
    out
}

fn row(route: &Route) -> String {
    let mut schemas = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let mut name = |shape: Option<fn(&mut SchemaGenerator) -> schemars::Schema>| {
        let schema = json!(shape?(&mut schemas));
        let name = |schema: &Value| {
            schema
                .get("$ref")
                .and_then(Value::as_str)
                .and_then(|path| path.rsplit('/').next().map(str::to_owned))
        };
        let items = schema.get("items").and_then(name).map(|one| format!("[{one}]"));
        name(&schema).or(items)
    };
    let (status, good) = (route.good.0, name(route.good.1));
    let body = route.body.map(|body| match name(Some(body)) {
        Some(body) => format!("body `{body}`"),
        None => "body: an object".to_owned(),
    });
    let others: Vec<String> = route.others.iter().map(u16::to_string).collect();
    let good = good.map(|good| format!(" `{good}`")).unwrap_or_default();
    let others = if others.is_empty() { String::new() } else { format!("; {}", others.join(" ")) };
    let query = route.query.iter().map(|param| format!("`{}`", param.name));
    let match_ = (route.versions && route.method != "GET").then(|| "`If-Match`".to_owned());
    let known = route.kept.then(|| "`If-None-Match`".to_owned());
    let takes: Vec<String> = body.into_iter().chain(query).chain(match_).chain(known).collect();
    let about = route.about.replace('|', "\\|");
    format!("| `{} {}` | {about} | {status}{good}{others} | {} |", route.method, route.path, takes.join(", "))
}

#[cfg(test)]
mod tests {
    use super::document;
    use crate::api::table::ROUTES;
    use serde_json::Value;

    /// Every `$ref` of a document.
    fn refs<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(object) => {
                for (key, value) in object {
                    if let ("$ref", Value::String(target)) = (key.as_str(), value) {
                        found.push(target);
                    }
                    refs(value, found);
                }
            }
            Value::Array(values) => values.iter().for_each(|value| refs(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_route_is_described_and_every_reference_leads_somewhere() {
        let short = document(false);
        assert!(short["paths"].get("/healthz").is_some() && short["paths"].get("/servers").is_none());
        let document = document(true);
        assert_eq!(document["openapi"], "3.1.0");
        for route in ROUTES {
            let operation = &document["paths"][route.path][route.method.to_ascii_lowercase()];
            assert_eq!(operation["operationId"], route.id, "{route:?}");
            assert!(operation["responses"].as_object().is_some_and(|all| !all.is_empty()), "{route:?}");
            let open = operation.get("security").is_some();
            assert_eq!(open, route.is_open(), "{route:?}");
        }
        let mut found = Vec::new();
        refs(&document, &mut found);
        assert!(found.len() > 20, "{found:?}");
        for target in found {
            let pointer = target.trim_start_matches('#');
            assert!(document.pointer(pointer).is_some(), "{target}");
        }
    }
}
