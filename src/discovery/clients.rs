//! Settings of MCP clients: each has a map of servers somewhere, in words that differ a little.
//!
//! | client | where the map is |
//! |---|---|
//! | Claude, Cursor, Windsurf, Gemini, Cline | `mcpServers`; Claude Code also below `projects`, where servers may be switched off |
//! | Copilot | `mcpServers` of `mcp-config.json`; `local` is stdio |
//! | VS Code | `servers` of `mcp.json`, `mcp.servers` of `settings.json` |
//! | Zed | `context_servers`; `command` may be an object |
//! | Codex | `mcp_servers` of `config.toml`, with times in seconds and headers from variables |
//!
//! What these files say is meant for MCP, so that it is believed. `servers` of any other file is a
//! word of half the world's programs: there an entry must show it itself ([`evidence`]).

use crate::config::error::Problem;
use crate::config::foreign;
use crate::discovery::entry::{self, Base, LAUNCHERS, directory};
use crate::discovery::{Confidence, Find, Source};
use serde_json::{Map, Value, json};

/// Timeouts below are ignored by Claude Code, in milliseconds.
const CLAUDE_TIMEOUT_MIN_MILLIS: u64 = 1000;

/// Words for how a server is spoken to that only MCP has.
const SPEAKS: [&str; 5] = ["stdio", "sse", "streamable-http", "streamable_http", "streamablehttp"];

/// The finds of a client's file.
///
/// # Errors
/// Why the file cannot be read, where it speaks of servers at all.
pub fn look(path: &str, bytes: &[u8], source: Source) -> Result<Vec<Find>, String> {
    if source == Source::Yaml {
        return yaml(path, bytes);
    }
    let root = if source == Source::Codex { toml(path, bytes) } else { value(path, bytes) };
    let root = match root {
        Ok(root) => root,
        // A broken file that has nothing to do with this is nobody's business here.
        Err(_) if memchr::memmem::find(bytes, b"mcp").is_none() => return Ok(Vec::new()),
        Err(problem) => return Err(problem),
    };
    let base = base(path, source);
    let mut finds = Vec::new();
    for (map, certain) in maps(&root) {
        take(map, (source, path), (base, certain), &mut finds);
    }
    let projects = root.get("projects").and_then(Value::as_object);
    for (dir, project) in projects.into_iter().flatten() {
        if let Some(map) = project.get("mcpServers") {
            let from = finds.len();
            take(map, (source, path), (Base::Project(dir), true), &mut finds);
            switch_off(project, finds.get_mut(from..).unwrap_or_default());
        }
    }
    Ok(finds)
}

/// What Claude Code keeps switched off in a project it names there.
fn switch_off(project: &Value, finds: &mut [Find]) {
    let off = project.get("disabledMcpServers").and_then(Value::as_array);
    for find in finds {
        let named = off.into_iter().flatten().any(|name| name.as_str() == Some(find.name.as_str()));
        if let (true, Value::Object(entry)) = (named, &mut find.entry) {
            entry.insert("disabled".to_owned(), json!(true));
        }
    }
}

fn value(path: &str, bytes: &[u8]) -> Result<Value, String> {
    foreign::value(path, bytes).map_err(|problem| said(*problem))
}

/// A problem without what helps in a file of our own.
fn said(problem: Problem) -> String {
    Problem { hint: None, ..problem }.to_string()
}

/// A TOML file as the same tree.
///
/// # Errors
/// That it is none, without a word of its text.
pub(crate) fn toml(path: &str, bytes: &[u8]) -> Result<Value, String> {
    let text =
        std::str::from_utf8(bytes).map_err(|_not_text| format!("{path}: the file is not UTF-8 text"))?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        format!("{path}:{}: error: {}", before.matches('\n').count() + 1, error.message())
    })?;
    serde_json::to_value(table).map_err(|error| format!("{path}: {error}"))
}

/// Every map of servers, and whether its name alone says that they are MCP's.
fn maps(root: &Value) -> Vec<(&Value, bool)> {
    let paths: [(&str, bool); 6] = [
        ("/mcpServers", true),
        ("/mcp_servers", true),
        ("/mcp/servers", true),
        ("/mcp.servers", true),
        ("/context_servers", true),
        ("/servers", false),
    ];
    let found = paths.into_iter().filter_map(|(path, certain)| Some((root.pointer(path)?, certain)));
    found.filter(|(map, _)| map.is_object()).collect()
}

/// Where paths of this file's entries start.
fn base(path: &str, source: Source) -> Base<'_> {
    let dir = directory(path);
    match source {
        Source::ClaudeCode if path.ends_with("/.mcp.json") => Base::Project(dir),
        Source::VsCode if dir.ends_with("/.vscode") => Base::Project(directory(dir)),
        Source::Cursor | Source::Zed | Source::Gemini | Source::Codex => {
            let hidden = dir.rsplit('/').next().is_some_and(|name| name.starts_with('.'));
            if hidden && !is_home(directory(dir)) { Base::Project(directory(dir)) } else { Base::None }
        }
        Source::Servers => Base::File(dir),
        _ => Base::None,
    }
}

/// Settings below a home are the user's, not a project's.
fn is_home(dir: &str) -> bool {
    let parts: Vec<&str> = dir.split('/').filter(|part| !part.is_empty()).collect();
    matches!(parts.as_slice(), ["root"] | ["home" | "Users", _] | [])
}

fn take(
    map: &Value,
    (source, path): (Source, &str),
    (base, certain): (Base<'_>, bool),
    finds: &mut Vec<Find>,
) {
    // `servers` in a file that is VS Code's own is as good as `mcpServers` elsewhere.
    let certain = certain || source == Source::VsCode;
    for (name, written) in map.as_object().into_iter().flatten() {
        let written = match source {
            Source::Zed => zed(written),
            Source::Codex => codex(written),
            Source::Gemini => in_millis(written, 0),
            Source::ClaudeCode => in_millis(written, CLAUDE_TIMEOUT_MIN_MILLIS),
            Source::Copilot => copilot(&in_millis(written, 0)),
            _ => written.clone(),
        };
        let Some((entry, notes)) = entry::read(&written, base) else { continue };
        let (confidence, why) =
            if certain { (Confidence::High, "an entry of this client's settings") } else { evidence(&entry) };
        let mut find = Find::new(name.as_str(), source, path, entry).because(confidence, why);
        find.notes = notes;
        finds.push(find);
    }
}

/// What an entry shows by itself, where the file does not say that it is about MCP.
fn evidence(entry: &Value) -> (Confidence, &'static str) {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
    let kind = if text("type").is_empty() { text("transport") } else { text("type") };
    let speaks = SPEAKS.contains(&kind.to_ascii_lowercase().as_str());
    let address = [text("url"), text("serverUrl"), text("httpUrl")].concat();
    let endpoint = ["/mcp", "/sse"].iter().any(|end| address.trim_end_matches('/').ends_with(end));
    let launched = LAUNCHERS.contains(&text("command").rsplit('/').next().unwrap_or_default());
    match (speaks, launched && names_a_server(entry), endpoint) {
        (true, true, _) | (true, _, true) => (Confidence::High, "says how MCP is spoken, and with what"),
        (true, ..) => (Confidence::Medium, "says how MCP is spoken"),
        (_, true, _) => (Confidence::Medium, "starts a published MCP server"),
        _ => (Confidence::Low, "an entry of a map that may be anything's"),
    }
}

/// Whether a program or argument is a package or image by which MCP servers are published.
#[must_use]
pub fn names_a_server(entry: &Value) -> bool {
    let args = entry.get("args").and_then(Value::as_array);
    let texts = args.into_iter().flatten().chain(entry.get("command")).filter_map(Value::as_str);
    texts.into_iter().any(|text| {
        let name = text.rsplit('/').next().unwrap_or(text);
        let name = name.split(['@', ':', '=']).next().unwrap_or(name);
        text.starts_with("@modelcontextprotocol/server")
            || name.starts_with("mcp-server-")
            || name.starts_with("mcp_server_")
            || name.ends_with("-mcp-server")
    })
}

/// `command` was an object once: `{path, args, env}`.
fn zed(written: &Value) -> Value {
    let mut entry = written.as_object().cloned().unwrap_or_default();
    entry.shift_remove("settings");
    // Who wrote it: the user, or an extension.
    entry.shift_remove("source");
    let Some(command) = written.get("command").and_then(Value::as_object) else {
        return Value::Object(entry);
    };
    for (key, value) in command {
        let key = if key == "path" { "command" } else { key };
        entry.insert(key.to_owned(), value.clone());
    }
    Value::Object(entry)
}

/// Times in milliseconds, of which the client ignores those below `least`; a bare number is seconds here.
fn in_millis(written: &Value, least: u64) -> Value {
    let mut entry = written.clone();
    match (&mut entry, written.get("timeout").and_then(Value::as_u64)) {
        (Value::Object(map), Some(millis)) if millis < least => drop(map.shift_remove("timeout")),
        (Value::Object(map), Some(millis)) => {
            map.insert("timeout".to_owned(), json!(format!("{millis}ms")));
        }
        _ => {}
    }
    entry
}

/// `local` is its word for a program.
fn copilot(written: &Value) -> Value {
    let mut entry = written.clone();
    if let Value::Object(map) = &mut entry
        && map.get("type") == Some(&json!("local"))
    {
        map.insert("type".to_owned(), json!("stdio"));
    }
    entry
}

/// Codex has times in seconds, secrets by the names of variables, and `enabled`.
fn codex(written: &Value) -> Value {
    let mut entry = Map::new();
    let mut headers = Map::new();
    let mut health = Map::new();
    let mut env = written.get("env").and_then(Value::as_object).cloned().unwrap_or_default();
    for (key, value) in written.as_object().into_iter().flatten() {
        match key.as_str() {
            "bearer_token_env_var" => {
                let name = value.as_str().unwrap_or_default();
                headers.insert("Authorization".to_owned(), json!(format!("Bearer ${{{name}}}")));
            }
            "http_headers" => headers.extend(value.as_object().cloned().unwrap_or_default()),
            "env_http_headers" => {
                for (header, name) in value.as_object().into_iter().flatten() {
                    headers.insert(header.clone(), reference(name));
                }
            }
            "env_vars" => {
                for item in value.as_array().into_iter().flatten() {
                    // `"NAME"`, or `{ name = "NAME", source = "local" }`.
                    let name = item.get("name").unwrap_or(item);
                    if let Some(text) = name.as_str() {
                        env.insert(text.to_owned(), reference(name));
                    }
                }
            }
            "tool_timeout_sec" => drop(entry.insert("timeout".to_owned(), seconds(value))),
            "startup_timeout_sec" => drop(health.insert("startPeriod".to_owned(), seconds(value))),
            "startup_timeout_ms" | "env" => {}
            "enabled" if value == &json!(false) => drop(entry.insert("disabled".to_owned(), json!(true))),
            "enabled" => {}
            _ => drop(entry.insert(key.clone(), value.clone())),
        }
    }
    for (key, map) in [("env", env), ("headers", headers)] {
        if !map.is_empty() {
            entry.insert(key.to_owned(), Value::Object(map));
        }
    }
    if !health.is_empty() {
        entry.insert("orchestrator".to_owned(), json!({ "health": health }));
    }
    Value::Object(entry)
}

fn reference(name: &Value) -> Value {
    json!(format!("${{{}}}", name.as_str().unwrap_or_default()))
}

fn seconds(value: &Value) -> Value {
    value.as_f64().map_or_else(|| value.clone(), |secs| json!(format!("{}ms", (secs * 1000.0).round())))
}

/// `mcp-config.yaml`: a map or list of servers in our own YAML form.
fn yaml(path: &str, bytes: &[u8]) -> Result<Vec<Find>, String> {
    let root = match value(path, bytes) {
        Ok(root) => root,
        Err(_) if memchr::memmem::find(bytes, b"mcp").is_none() => return Ok(Vec::new()),
        Err(problem) => return Err(problem),
    };
    let certain = root.get("mcpServers").is_some();
    if !certain && root.get("servers").is_none() {
        return Ok(Vec::new());
    }
    let entries = foreign::entries(path, bytes).map_err(|problem| said(*problem))?;
    let mut finds = Vec::new();
    for (name, written) in entries.iter().filter(|(name, _)| !name.is_empty()) {
        let Some((mut entry, notes)) = entry::read(written, Base::File(directory(path))) else { continue };
        // The name of a list's item stands before the entry in a map.
        if let Value::Object(map) = &mut entry {
            map.shift_remove("name");
        }
        let (confidence, why) =
            if certain { (Confidence::High, "an entry of mcpServers") } else { evidence(&entry) };
        let mut find = Find::new(name.as_str(), Source::Yaml, path, entry).because(confidence, why);
        find.notes = notes;
        finds.push(find);
    }
    Ok(finds)
}

#[cfg(test)]
mod tests {
    use super::{codex, copilot, in_millis, look, zed};
    use crate::discovery::{Confidence, Source};
    use serde_json::json;

    #[test]
    fn other_peoples_words_become_ours() {
        let written = json!({"command": {"path": "npx", "args": ["a"], "env": {"K": "v"}}, "settings": {}});
        assert_eq!(zed(&written), json!({"command": "npx", "args": ["a"], "env": {"K": "v"}}));
        let written = json!({"url": "https://h/mcp", "bearer_token_env_var": "T", "tool_timeout_sec": 1.5,
            "env_http_headers": {"X": "Y"}, "startup_timeout_sec": 20, "enabled": false});
        let expected = json!({"url": "https://h/mcp", "timeout": "1500ms", "disabled": true,
            "headers": {"Authorization": "Bearer ${T}", "X": "${Y}"},
            "orchestrator": {"health": {"startPeriod": "20000ms"}}});
        assert_eq!(codex(&written), expected);
        let millis = |timeout: u64, least| in_millis(&json!({"command": "x", "timeout": timeout}), least);
        assert_eq!(millis(5000, 0), json!({"command": "x", "timeout": "5000ms"}));
        assert_eq!(millis(500, 1000), json!({"command": "x"}), "Claude Code ignores it");
        assert_eq!(
            copilot(&json!({"type": "local", "command": "x"})),
            json!({"type": "stdio", "command": "x"})
        );
        let written = json!({"command": "x", "env_vars": ["A", {"name": "B", "source": "remote"}, 7]});
        assert_eq!(codex(&written)["env"], json!({"A": "${A}", "B": "${B}"}));
    }

    #[test]
    fn a_map_of_servers_elsewhere_is_not_believed() {
        let look = |text: &str| look("/p/mcp.json", text.as_bytes(), Source::Servers).unwrap();
        let found = look(
            r#"{"servers": {"a": {"command": "nginx"}, "b": {"command": "npx", "args": ["@modelcontextprotocol/server-memory"]}, "c": {"type": "sse", "url": "http://h/sse"}, "d": {"host": "h"}}}"#,
        );
        let sure: Vec<Confidence> = found.iter().map(|find| find.confidence).collect();
        assert_eq!(sure, [Confidence::Low, Confidence::Medium, Confidence::High]);
        assert!(look(r#"{"mcpServers": [1], "servers": "x"}"#).is_empty());
        assert!(look("{ \"a\"").is_empty(), "a broken file about something else is passed over");
    }
}
