//! The JSON Schema of mcp.config.json, for editors; from the same tables the reader checks with.

use serde_json::{Map, Value as Json, json};

use crate::config::keys::{ENTRY, Key, Level, ORCHESTRATOR, Shape};

/// The schema document (draft 2020-12). Keys of other clients are accepted in entries, unknown
/// ones in our own blocks are not.
#[must_use]
pub fn schema() -> Json {
    let inherited = block(ORCHESTRATOR, Level::Inherited);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "mcp.config.json",
        "description": "MCP servers of mcp-orchestrator.",
        "type": "object",
        "properties": {
            "mcpServers": {"$ref": "#/$defs/servers"},
            "servers": {"$ref": "#/$defs/servers"},
            "orchestrator": {
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "globalDefaults": {"$ref": "#/$defs/inherited"},
                    "sections": {
                        "type": "object",
                        "additionalProperties": {"$ref": "#/$defs/section"},
                    },
                },
            },
        },
        "$defs": {
            "servers": {"type": "object", "additionalProperties": {"$ref": "#/$defs/entry"}},
            "entry": entry(),
            "inherited": inherited,
            "section": section(inherited.clone()),
        },
    })
}

fn entry() -> Json {
    let mut schema = block(ENTRY, Level::Entry);
    if let Some(object) = schema.as_object_mut() {
        object.insert("additionalProperties".to_owned(), Json::Bool(true));
        object.insert(
            "anyOf".to_owned(),
            json!([
                {"required": ["command"]},
                {"required": ["url"]},
                {"required": ["serverUrl"]},
                {"required": ["httpUrl"]},
                {"required": ["host", "port"]},
            ]),
        );
    }
    schema
}

/// A section: what is inherited, and words about it.
fn section(mut inherited: Json) -> Json {
    if let Some(properties) = inherited.get_mut("properties").and_then(Json::as_object_mut) {
        for name in ["title", "description"] {
            properties.insert(name.to_owned(), json!({"type": "string"}));
        }
    }
    inherited
}

fn block(keys: &[Key], level: Level) -> Json {
    let properties: Map<String, Json> = keys
        .iter()
        .filter(|key| key.level == Level::Every || key.level == level)
        .map(|key| (key.name.to_owned(), property(key)))
        .collect();
    json!({"type": "object", "additionalProperties": false, "properties": properties})
}

fn property(key: &Key) -> Json {
    let mut schema = match key.shape {
        Shape::Text => json!({"type": "string"}),
        Shape::UrlPath => json!({"type": "string", "pattern": "^/"}),
        Shape::Bool => json!({"type": "boolean"}),
        Shape::Int { min, max } => json!({"type": "integer", "minimum": min, "maximum": max}),
        Shape::Time => json!({
            "oneOf": [{"type": "number", "minimum": 0}, {"type": "string"}],
            "examples": [30, "30s", "500ms", "5m"],
        }),
        Shape::Size => json!({"type": ["integer", "string"], "examples": ["512m", "1g"]}),
        Shape::Cpus => json!({"type": ["number", "string"], "examples": [0.5, "2"]}),
        Shape::Choice(words) => json!({"enum": words}),
        Shape::Texts => json!({
            "type": "array",
            "items": {"type": ["string", "number", "boolean"]},
        }),
        Shape::Words(words) => json!({
            "type": "array",
            "items": {"enum": words},
            "uniqueItems": true,
        }),
        Shape::TextMap => json!({
            "type": "object",
            "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
        }),
        Shape::Rate => json!({
            "oneOf": [
                {"type": "number", "exclusiveMinimum": 0},
                {
                    "type": "object",
                    "required": ["requests"],
                    "additionalProperties": false,
                    "properties": {
                        "requests": {"type": "number", "exclusiveMinimum": 0},
                        "per": {"type": ["number", "string"]},
                        "burst": {"type": "number", "exclusiveMinimum": 0},
                    },
                },
            ],
        }),
        Shape::Cache => json!({
            "oneOf": [
                {"type": "boolean"},
                {
                    "type": "object",
                    "additionalProperties": false,
                    "properties": {
                        "ttl": {"type": ["number", "string"]},
                        "maxBytes": {"type": ["integer", "string"]},
                        "tools": {"type": "array", "items": {"type": "string"}},
                    },
                },
            ],
        }),
        Shape::Raise => json!({"type": ["boolean", "integer", "string"]}),
        Shape::Times => json!({
            "type": "object",
            "additionalProperties": {"type": ["number", "string"]},
            "examples": [{"search": "2m", "get_*": 10}],
        }),
        Shape::Block(keys) => block(keys, Level::Entry),
        Shape::Any => json!({}),
    };
    if let Some(object) = schema.as_object_mut() {
        object.insert("description".to_owned(), key.meaning.into());
    }
    schema
}

/// The reference page of the keys of mcp.config.json, in Markdown.
#[must_use]
pub fn reference() -> String {
    let mut out = String::from("# mcp.config.json\n\n## Keys of an entry\n\n");
    table(&mut out, ENTRY, "");
    out.push_str("\n## Keys of an `orchestrator` block\n\n");
    out.push_str("Keys marked *inherited* also stand in `globalDefaults` and sections.\n\n");
    table(&mut out, ORCHESTRATOR, "");
    out.push_str(INHERITANCE);
    out
}

/// The rules of [`crate::config::merged`], and the panel document, for people.
const INHERITANCE: &str = "
## Inheritance

What a server has not said itself comes from its section, then from `globalDefaults`, then from settings.conf,
then it is built in. The last level that says something decides:

1. `globalDefaults` (`orchestrator.globalDefaults`, or at the top of a panel document)
2. the section's settings
3. the entry's `orchestrator` block
4. flags of its docker line

- Blocks (`health`, `restart`, `retry`, `limits`, `queue`, `circuitBreaker`, `tools`) and `env` are merged member by member.
- Everything else, lists included, is replaced as a whole.
- `null` takes an inherited value away; a `null` block takes all of its members away; a variable that is `null`
  is not set, also where the image sets it.
- Consent (`allow`), `containerPort` and `section` are not inherited.

`why NAME`, `list-servers --config` and `GET /api/v1/servers/{id}` show each effective value and where it came
from.

## The panel document

A file with `configSchemaVersion`, or whose `sections` is a list, is read as a panel document:

| there | means here |
|---|---|
| `globalDefaults`, `sections[]`, `sections[].servers[]` | the levels above |
| `environmentVars`, an object or a list of `{name, value}` | `env` |
| `resourceLimits` `memory`, `cpu`, `pids` | `limits` |
| `runtimeOptions` `restartPolicy`, `healthCheck`, `pullPolicy`, `network`, `init`, `priority`, `transport` | `restart`, `health`, `pull`, … |
| `securityContext` `runAsUser`, `capabilities`, `readOnlyRootFilesystem`, `noNewPrivileges`, `allowPrivilegeEscalation` | `user`, `capAdd`, `capDrop`, `readOnly`, `noNewPrivileges` |
| `ports` | `-p`; the first is `containerPort`, and without any the server speaks over stdio |
| `volumes` | `-v` |
| `runtimeDefinition` of type `docker_image`: `image`, `command`, `args` | a container |
| `runtimeDefinition` of type `npx_command`: `package` or `command`, `args` | a container of `nodeImage` (`node:22-alpine`) that runs npx |

Keys of an ordinary entry may stand in a server as well. A server name in two sections gives both the id
`section-name`.
";

fn table(out: &mut String, keys: &[Key], prefix: &str) {
    if prefix.is_empty() {
        out.push_str("| key | takes | where | meaning |\n|---|---|---|---|\n");
    }
    for key in keys {
        let name = format!("{prefix}{}", key.name);
        if let Shape::Block(inner) = key.shape
            && key.name != "orchestrator"
        {
            table(out, inner, &format!("{name}."));
            continue;
        }
        let place = match key.level {
            Level::Every => "inherited",
            Level::Entry => "entry",
            Level::Inherited => "sections and global defaults",
        };
        let (words, meaning) = (shape_words(key.shape), key.meaning);
        out.push_str(&format!("| `{name}` | {words} | {place} | {meaning} |\n"));
    }
}

fn shape_words(shape: Shape) -> String {
    match shape {
        Shape::Text => "string".to_owned(),
        Shape::UrlPath => "path of a URL".to_owned(),
        Shape::Bool => "true or false".to_owned(),
        Shape::Int { min, max } => format!("{min} to {max}"),
        Shape::Time => "seconds, or `30s`, `500ms`, `5m`".to_owned(),
        Shape::Size => "bytes, or `512m`".to_owned(),
        Shape::Cpus => "number of CPUs".to_owned(),
        Shape::Choice(words) => words.join(", "),
        Shape::Texts => "list of strings".to_owned(),
        Shape::Words(words) => format!("list of {}", words.join(", ")),
        Shape::TextMap => "object of strings".to_owned(),
        Shape::Rate => "requests a second, or {requests, per, burst}".to_owned(),
        Shape::Cache => "true, false, or {ttl, maxBytes, tools}".to_owned(),
        Shape::Raise => "true, false, or bytes such as `512m`".to_owned(),
        Shape::Times => "object of times by tool".to_owned(),
        Shape::Block(_) => "object".to_owned(),
        Shape::Any => "anything".to_owned(),
    }
}
