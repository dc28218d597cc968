//! What a source file proves: that it makes an MCP server, that it is only a client of one, or
//! nothing.
//!
//! The words looked for are those by which the official and the popular libraries make a server; they
//! stand in code, and a mention in a comment or a string counts too, because a source that speaks of
//! them at all is about MCP. Must never be asked about files that are not source.

use crate::discovery::entry::{directory, joined};
use crate::discovery::{Confidence, Find};
use std::collections::BTreeMap;

/// Bytes of a source that are looked at.
pub const SOURCE_BYTES_MAX: usize = 256 * 1024;
/// Files that one find may ask for, at each of the two steps.
pub const PROOFS_MAX: usize = 16;

/// Words that make a server, in Python and in JavaScript.
const SERVER: [&str; 11] = [
    "FastMCP(",
    "from mcp.server",
    "import mcp.server",
    "from fastmcp import FastMCP",
    "FastApiMCP(",
    "@modelcontextprotocol/sdk/server",
    "@modelcontextprotocol/server",
    "new FastMCP",
    "new McpServer(",
    "new MCPServer(",
    "StdioServerTransport",
];
/// Words of a client.
const CLIENT: [&str; 7] = [
    "mcp.client",
    "ClientSession",
    "from fastmcp import Client",
    "fastmcp.Client",
    "@modelcontextprotocol/sdk/client",
    "@modelcontextprotocol/client",
    "StdioClientTransport",
];

/// What a source says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// It makes a server.
    Server,
    /// It talks to one.
    Client,
    /// Neither.
    Nothing,
}

/// What `source` says.
#[must_use]
pub fn says(source: &str) -> Says {
    let has = |words: &[&str]| words.iter().any(|word| source.contains(word));
    if has(&SERVER) {
        Says::Server
    } else if has(&CLIENT) {
        Says::Client
    } else {
        Says::Nothing
    }
}

/// Files that `source` at `path` takes in from its own project, one step away.
#[must_use]
pub fn neighbours(path: &str, source: &str) -> Vec<String> {
    let dir = directory(path);
    let mut found = Vec::new();
    for line in source.lines() {
        let line = line.trim();
        if path.ends_with(".py") {
            found.extend(python_import(line).into_iter().map(|module| joined(dir, &format!("{module}.py"))));
        } else if let Some(module) = quoted_relative(line) {
            let module = module.trim_end_matches(".js").trim_end_matches(".mjs").trim_end_matches(".ts");
            found.extend(["ts", "js", "mjs"].iter().map(|end| joined(dir, &format!("{module}.{end}"))));
        }
        if found.len() >= PROOFS_MAX {
            break;
        }
    }
    found.truncate(PROOFS_MAX);
    found
}

/// `from .server import x`, `from . import server`, `from pkg.server import x`, as a path.
fn python_import(line: &str) -> Option<String> {
    let rest = line.strip_prefix("from ")?;
    let (module, names) = rest.split_once(" import ")?;
    if module == "." {
        let name = names.split([',', ' ']).next()?;
        return Some(name.to_owned());
    }
    let module = match module.strip_prefix('.') {
        Some(relative) => relative,
        // The package's own name is its directory.
        None => module.split_once('.')?.1,
    };
    (!module.starts_with('.')).then(|| module.replace('.', "/"))
}

/// The `./x` of `import … from "./x"` and `require("./x")`.
fn quoted_relative(line: &str) -> Option<&str> {
    if !(line.contains("import") || line.contains("require") || line.contains("from")) {
        return None;
    }
    let at = line.find("\"./").or_else(|| line.find("'./"))?;
    let rest = line.get(at + 1..)?;
    rest.split(['"', '\'']).next()
}

/// Judges `find` by the files it asked for; `read` gives a file's text, or nothing where there is
/// none. A find without proofs stays as it is.
pub fn prove(find: &mut Find, read: &mut dyn FnMut(&str) -> Option<String>) {
    if find.proofs.is_empty() {
        return;
    }
    let mut seen = BTreeMap::new();
    let mut client = false;
    for path in std::mem::take(&mut find.proofs).into_iter().take(PROOFS_MAX) {
        if let Some(source) = read(&path) {
            match says(&source) {
                Says::Server => return certain(find, &path, Confidence::High),
                Says::Client => client = true,
                Says::Nothing => {}
            }
            seen.insert(path, source);
        }
    }
    let next: Vec<String> = seen.iter().flat_map(|(path, source)| neighbours(path, source)).collect();
    for path in next.into_iter().take(PROOFS_MAX).filter(|path| !seen.contains_key(path)) {
        if read(&path).is_some_and(|source| says(&source) == Says::Server) {
            // What a client starts beside itself is not what its own program is.
            let confidence = if client { Confidence::Low } else { Confidence::High };
            return certain(find, &path, confidence);
        }
    }
    find.confidence = Confidence::Low;
    find.why = match (client, seen.is_empty()) {
        (true, _) => "its program is a client of MCP servers".to_owned(),
        (_, true) => "depends on an MCP library; its source was not found".to_owned(),
        (false, false) => "depends on an MCP library; its program makes no server".to_owned(),
    };
}

fn certain(find: &mut Find, path: &str, confidence: Confidence) {
    find.confidence = confidence.min(find.confidence);
    find.why = format!("makes a server in {path}");
}

#[cfg(test)]
mod tests {
    use super::{Says, neighbours, says};

    #[test]
    fn imports_lead_to_files() {
        let python = "import os\nfrom .server import serve\nfrom . import tools\nfrom pkg.a.b import c\nfrom os import path\n";
        assert_eq!(
            neighbours("/p/pkg/__init__.py", python),
            ["/p/pkg/server.py", "/p/pkg/tools.py", "/p/pkg/a/b.py"]
        );
        let script =
            "import { x } from './server.js';\nconst y = require(\"./lib/y\");\nimport z from 'z';\n";
        let found = neighbours("/p/src/index.ts", script);
        assert!(
            found.contains(&"/p/src/server.ts".to_owned()) && found.contains(&"/p/src/lib/y.js".to_owned())
        );
        assert_eq!(found.len(), 6);
    }

    #[test]
    fn servers_and_clients_are_told_apart() {
        assert_eq!(
            says("from mcp.server.fastmcp import FastMCP\nfrom mcp import ClientSession"),
            Says::Server
        );
        assert_eq!(says("from mcp.client.stdio import stdio_client"), Says::Client);
        assert_eq!(says("print('mcp')"), Says::Nothing);
    }
}
