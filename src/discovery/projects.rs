//! Projects that are MCP servers: what a manifest says is needed and what can be started, and which
//! source would prove that what is started is a server.
//!
//! A dependency on an MCP library proves nothing: clients have it too. Every find of this module is
//! [`Confidence::Low`] in the end unless [`crate::discovery::proof`] finds the server in the source.

use crate::discovery::clients::{names_a_server, toml};
use crate::discovery::entry::{directory, joined};
use crate::discovery::proof::{Says, says};
use crate::discovery::{Confidence, Find, Source};
use serde_json::{Value, json};

/// Python packages that make servers.
const PYTHON: [&str; 3] = ["mcp", "fastmcp", "fastapi-mcp"];
/// JavaScript packages that make servers.
const NODE: [&str; 4] =
    ["@modelcontextprotocol/sdk", "@modelcontextprotocol/server", "fastmcp", "mcp-framework"];
/// Programs that run a source file.
const RUNNERS: [&str; 5] = ["node", "tsx", "ts-node", "bun", "deno"];
/// Scripts of `package.json` that start something for good.
const SCRIPTS: [&str; 6] = ["start", "serve", "mcp", "start:mcp", "mcp:start", "start:stdio"];
/// Why a find without proof is one at all.
const UNPROVED: &str = "depends on an MCP library";

/// `pyproject.toml`; one that cannot be read is passed over, as a template of a manifest is none.
#[must_use]
pub fn python(path: &str, bytes: &[u8]) -> Vec<Find> {
    if memchr::memmem::find(bytes, b"mcp").is_none() {
        return Vec::new();
    }
    let Ok(root) = toml(path, bytes) else { return Vec::new() };
    if !python_dependencies(&root).iter().any(|name| PYTHON.contains(&name.as_str())) {
        return Vec::new();
    }
    let dir = directory(path);
    let tables = ["/project/scripts", "/tool/poetry/scripts", "/project/entry-points/mcp.servers"];
    let mut finds = Vec::new();
    for (name, target) in tables.iter().filter_map(|at| root.pointer(at)?.as_object()).flatten() {
        let target = target.as_str().or_else(|| target.get("callable")?.as_str());
        let Some(target) = target else { continue };
        let entry = json!({"command": "uv", "args": ["run", "--directory", dir, name]});
        let mut find =
            Find::new(name.as_str(), Source::Pyproject, path, entry).because(Confidence::High, UNPROVED);
        find.proofs = python_sources(dir, target);
        let installed = joined(dir, &format!(".venv/bin/{name}"));
        find.better = Some((installed.clone(), json!({"command": installed, "cwd": dir})));
        finds.push(find);
    }
    finds
}

/// Names of what the project needs, as `PyPI` normalises them.
fn python_dependencies(root: &Value) -> Vec<String> {
    let listed = root.pointer("/project/dependencies").and_then(Value::as_array);
    let listed = listed.into_iter().flatten().filter_map(Value::as_str).map(requirement);
    let poetry = root.pointer("/tool/poetry/dependencies").and_then(Value::as_object);
    listed.chain(poetry.into_iter().flatten().map(|(name, _)| requirement(name))).collect()
}

/// The name of `mcp[cli]>=1.2; python_version > "3.9"`.
fn requirement(text: &str) -> String {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c))).unwrap_or(text.len());
    text.get(..end).unwrap_or_default().to_ascii_lowercase().replace(['_', '.'], "-")
}

/// Where `pkg.module:function` may be.
fn python_sources(dir: &str, target: &str) -> Vec<String> {
    let module = target.split([':', ' ']).next().unwrap_or_default().replace('.', "/");
    if module.is_empty() || module.starts_with('/') {
        return Vec::new();
    }
    let at = |folder: &str, end: &str| joined(dir, &format!("{folder}{module}{end}"));
    vec![at("src/", ".py"), at("", ".py"), at("src/", "/__init__.py"), at("", "/__init__.py")]
}

/// `package.json`; one that cannot be read is passed over.
#[must_use]
pub fn node(path: &str, bytes: &[u8]) -> Vec<Find> {
    if memchr::memmem::find(bytes, b"mcp").is_none()
        && memchr::memmem::find(bytes, b"modelcontextprotocol").is_none()
    {
        return Vec::new();
    }
    let Ok(root) = crate::config::foreign::value(path, bytes) else { return Vec::new() };
    let needs = root.get("dependencies").and_then(Value::as_object);
    if !needs.is_some_and(|needs| needs.keys().any(|name| NODE.contains(&name.as_str()))) {
        return Vec::new();
    }
    let dir = directory(path);
    let package = root.get("name").and_then(Value::as_str).unwrap_or_default();
    let package = package.rsplit('/').next().unwrap_or_default();
    let bins: Vec<(String, String)> = match root.get("bin") {
        Some(Value::String(file)) => vec![(package.to_owned(), file.clone())],
        Some(Value::Object(map)) => {
            let named = map.iter().filter_map(|(name, file)| Some((name.clone(), file.as_str()?.to_owned())));
            named.collect()
        }
        _ => Vec::new(),
    };
    let mut finds: Vec<Find> = bins
        .iter()
        .map(|(name, file)| {
            let program = joined(dir, file);
            let entry = json!({"command": "node", "args": [program], "cwd": dir});
            let mut find = Find::new(name.as_str(), Source::PackageJson, path, entry)
                .because(Confidence::High, UNPROVED);
            find.proofs = node_sources(dir, file);
            find.runs = Some(program);
            find
        })
        .collect();
    if finds.is_empty() {
        finds = node_scripts(&root, (path, dir), package);
    }
    finds
}

/// What `npm run` starts, where there is no program to install.
fn node_scripts(root: &Value, (path, dir): (&str, &str), package: &str) -> Vec<Find> {
    let mut finds = Vec::new();
    for (script, line) in root.get("scripts").and_then(Value::as_object).into_iter().flatten() {
        let file = line.as_str().filter(|_| SCRIPTS.contains(&script.as_str())).and_then(run_file);
        let Some(file) = file else { continue };
        let name = if package.is_empty() { script } else { package };
        let entry =
            json!({"command": "npm", "args": ["--prefix", dir, "run", "--silent", script], "cwd": dir});
        let mut find =
            Find::new(name, Source::PackageJson, path, entry).because(Confidence::Medium, UNPROVED);
        find.proofs = node_sources(dir, file);
        finds.push(find);
        // One way to start it is enough.
        break;
    }
    finds
}

/// The file that a script's line runs: `node dist/index.js`, `npx tsx src/index.ts`.
fn run_file(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace().skip_while(|word| *word == "npx" || word.contains('='));
    let program = words.next()?;
    if !RUNNERS.contains(&program) {
        return None;
    }
    words.find(|word| !word.starts_with('-') && *word != "run")
}

/// Where the source of `dist/x.js` may be.
fn node_sources(dir: &str, file: &str) -> Vec<String> {
    let built = joined(dir, file);
    let name = built.rsplit('/').next().unwrap_or_default();
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem).to_owned();
    let mut found = vec![built];
    for folder in ["src", ".", "lib"] {
        found.extend(["ts", "js", "mjs"].iter().map(|end| joined(dir, &format!("{folder}/{stem}.{end}"))));
    }
    found
}

/// An executable in `scripts/mcp/`: its own text is all there is to go by.
#[must_use]
pub fn script(path: &str, bytes: &[u8], executable: bool) -> Option<Find> {
    if !executable {
        return None;
    }
    let name = path.rsplit('/').next()?;
    let name = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    // scripts/mcp/x: the project is three steps up.
    let project = directory(directory(directory(path)));
    let entry = json!({"command": path, "cwd": project});
    let find = Find::new(name, Source::Script, path, entry);
    let text = String::from_utf8_lossy(bytes);
    let words: Vec<Value> =
        text.split_whitespace().map(|word| json!(word.trim_matches(['"', '\'']))).collect();
    let starts = words.iter().any(|word| names_a_server(&json!({ "command": word })));
    Some(match says(&text) {
        Says::Server => find.because(Confidence::High, "makes a server"),
        Says::Client => find.because(Confidence::Low, "is a client of MCP servers"),
        Says::Nothing if starts => find.because(Confidence::Medium, "starts a published MCP server"),
        Says::Nothing => find.because(Confidence::Low, "is executable and lies in scripts/mcp"),
    })
}

#[cfg(test)]
mod tests {
    use super::{node_sources, python_sources, requirement, run_file, script};
    use crate::discovery::Confidence;

    #[test]
    fn names_are_read_out_of_requirements() {
        assert_eq!(requirement("mcp[cli]>=1.2; python_version > '3.9'"), "mcp");
        assert_eq!(requirement("FastMCP ~= 2.0"), "fastmcp");
        assert_eq!(requirement("adafruit_circuitpython.mcp230xx"), "adafruit-circuitpython-mcp230xx");
    }

    #[test]
    fn sources_are_looked_for_where_they_lie() {
        assert_eq!(python_sources("/p", "a.b:main")[..2], ["/p/src/a/b.py", "/p/a/b.py"]);
        assert!(node_sources("/p", "dist/index.js").contains(&"/p/src/index.ts".to_owned()));
        assert_eq!(run_file("NODE_ENV=x npx tsx --watch src/a.ts"), Some("src/a.ts"));
        assert_eq!(run_file("vite build"), None);
    }

    #[test]
    fn a_script_must_say_it_itself() {
        let sure =
            |text: &str| script("/p/scripts/mcp/x.sh", text.as_bytes(), true).map(|find| find.confidence);
        assert_eq!(sure("#!/bin/sh\nexec uvx \"mcp-server-time\" --utc\n"), Some(Confidence::Medium));
        assert_eq!(
            sure("#!/usr/bin/env python3\nfrom mcp.server.fastmcp import FastMCP\n"),
            Some(Confidence::High)
        );
        assert_eq!(sure("#!/bin/sh\navrdude -p mcp23017\n"), Some(Confidence::Low));
        assert_eq!(script("/p/scripts/mcp/README.md", b"FastMCP(", false), None);
    }
}
