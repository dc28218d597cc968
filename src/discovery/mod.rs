//! Finding MCP servers in what others wrote: a file's name and bytes, or what an engine lists, become
//! finds, each with where it is, how sure we are, and the entry it would be in mcp.config.json.
//!
//! Why it is so: a name proves nothing. A file of a known client says in so many words what a server
//! is, so that is believed; a project is a server only when its own source makes one. So looking has
//! two steps, and both are pure: [`look`] reads a file and says which other files would prove it
//! ([`Find::proofs`]), whoever walks the disk reads those, and [`prove`] judges.
//!
//! ```text
//! path ──candidate──> Source ──look(bytes)──> finds ──prove(other files)──> finds with confidence
//! images, containers ──engine──> finds, strays                │
//! mcp.config.json, finds ──merge──> what would be written <───┘
//! ```
//!
//! Invariant: what is no MCP server is never found with more than [`Confidence::Low`]
//! (`tests/it/discovery.rs::projects_that_are_no_servers_are_never_more_than_low`).
//! Must never run anything, nor write an entry that would run without being asked to.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod clients;
pub mod diff;
pub mod engine;
pub mod entry;
pub mod merge;
pub mod places;
pub mod projects;
pub mod proof;

use serde::Serialize;
use serde_json::Value;
use std::fmt;

/// Finds in one file; a file with more is one of somebody's jokes.
pub const FINDS_PER_FILE_MAX: usize = 500;

/// How sure we are that a find is an MCP server that would run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// Something about it reminds of a server.
    Low,
    /// It is a server, but perhaps cannot be started like this.
    Medium,
    /// It says itself what it is and how it is started.
    High,
}

impl Confidence {
    /// All of them, and their words.
    pub const ALL: [(Self, &'static str); 3] =
        [(Self::High, "high"), (Self::Medium, "medium"), (Self::Low, "low")];

    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

impl fmt::Display for Confidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where a find comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// `claude_desktop_config.json`.
    ClaudeDesktop,
    /// `.mcp.json`, `~/.claude.json`.
    ClaudeCode,
    /// `.vscode/mcp.json`, `User/mcp.json`, `settings.json` with `mcp.servers`.
    VsCode,
    /// `.cursor/mcp.json`.
    Cursor,
    /// `mcp_config.json` of Windsurf.
    Windsurf,
    /// `context_servers` in Zed's `settings.json`.
    Zed,
    /// `[mcp_servers.*]` in `config.toml`.
    Codex,
    /// `.gemini/settings.json`.
    Gemini,
    /// `cline_mcp_settings.json`.
    Cline,
    /// `mcp-config.json` of Copilot's command line.
    Copilot,
    /// Another file with a map of servers.
    Servers,
    /// `mcp-config.yaml`.
    Yaml,
    /// `pyproject.toml`.
    Pyproject,
    /// `package.json`.
    PackageJson,
    /// An executable in `scripts/mcp/`.
    Script,
    /// An image on the engine.
    Image,
    /// A container that runs on the engine.
    Container,
}

impl Source {
    /// Its word, as in JSON and in names that would collide.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClaudeDesktop => "claude-desktop",
            Self::ClaudeCode => "claude-code",
            Self::VsCode => "vs-code",
            Self::Cursor => "cursor",
            Self::Windsurf => "windsurf",
            Self::Zed => "zed",
            Self::Codex => "codex",
            Self::Gemini => "gemini",
            Self::Cline => "cline",
            Self::Copilot => "copilot",
            Self::Servers => "servers",
            Self::Yaml => "yaml",
            Self::Pyproject => "pyproject",
            Self::PackageJson => "package-json",
            Self::Script => "script",
            Self::Image => "image",
            Self::Container => "container",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One find.
#[derive(Clone, Debug, PartialEq)]
pub struct Find {
    /// What it is called there.
    pub name: String,
    /// Where it comes from.
    pub source: Source,
    /// The file, image or container.
    pub place: String,
    /// How sure we are.
    pub confidence: Confidence,
    /// Why, in a few words.
    pub why: String,
    /// What it would be in mcp.config.json, as found: it may hold secrets.
    pub entry: Value,
    /// What its reader should know.
    pub notes: Vec<String>,
    /// Files of which one would prove that it is a server; none are left once it is judged.
    pub proofs: Vec<String>,
    /// A file that must be there for the entry to work.
    pub runs: Option<String>,
    /// A better entry, where this file is there.
    pub better: Option<(String, Value)>,
}

impl Find {
    /// A find that needs no proof.
    #[must_use]
    pub fn new(name: impl Into<String>, source: Source, place: &str, entry: Value) -> Self {
        Self {
            name: name.into(),
            source,
            place: place.to_owned(),
            confidence: Confidence::High,
            why: String::new(),
            entry,
            notes: Vec::new(),
            proofs: Vec::new(),
            runs: None,
            better: None,
        }
    }

    /// The same, so sure and for this reason.
    #[must_use]
    pub fn because(mut self, confidence: Confidence, why: impl Into<String>) -> Self {
        self.confidence = confidence;
        self.why = why.into();
        self
    }

    /// For programs and pages: without secrets.
    #[must_use]
    pub fn shown(&self) -> Value {
        let Self { name, source, place, confidence, why, entry, notes, proofs: _, runs: _, better: _ } = self;
        serde_json::json!({
            "name": name, "source": source, "place": place, "confidence": confidence, "why": why,
            "entry": crate::config::redact::value(entry), "notes": notes,
        })
    }
}

/// What came of a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Looked {
    /// What it holds.
    pub finds: Vec<Find>,
    /// Why it cannot be read, in one line; it names no text of the file.
    pub problem: Option<String>,
}

/// What a file may hold, by its path alone; `None` for nearly every file there is.
#[must_use]
pub fn candidate(path: &str) -> Option<Source> {
    let mut parts = path.rsplit('/');
    let name = parts.next()?;
    let source = match name {
        ".mcp.json" | ".claude.json" => Source::ClaudeCode,
        "claude_desktop_config.json" => Source::ClaudeDesktop,
        "cline_mcp_settings.json" => Source::Cline,
        "mcp_config.json" => Source::Windsurf,
        "mcp-config.json" => Source::Copilot,
        "mcp-config.yaml" | "mcp-config.yml" => Source::Yaml,
        "pyproject.toml" => Source::Pyproject,
        "package.json" => Source::PackageJson,
        "mcp.json" => match parts.next()? {
            ".vscode" | "User" => Source::VsCode,
            ".cursor" => Source::Cursor,
            _ => Source::Servers,
        },
        "settings.json" => match parts.next()? {
            ".vscode" | "User" | "Machine" => Source::VsCode,
            ".zed" | "zed" => Source::Zed,
            ".gemini" => Source::Gemini,
            _ => return None,
        },
        "config.toml" if parts.next()? == ".codex" => Source::Codex,
        _ => {
            let in_scripts = parts.next()? == "mcp" && parts.next()? == "scripts";
            return in_scripts.then_some(Source::Script);
        }
    };
    Some(source)
}

/// What is in the file at `path`, absolute. `executable` is its mode.
#[must_use]
pub fn look(path: &str, bytes: &[u8], executable: bool) -> Looked {
    let Some(source) = candidate(path) else { return Looked::default() };
    let result = match source {
        Source::Pyproject => Ok(projects::python(path, bytes)),
        Source::PackageJson => Ok(projects::node(path, bytes)),
        Source::Script => Ok(projects::script(path, bytes, executable).into_iter().collect()),
        _ => clients::look(path, bytes, source),
    };
    looked(result)
}

/// What is in a file that somebody named, whatever it is called: the form is found from its content.
#[must_use]
pub fn look_any(path: &str, bytes: &[u8]) -> Looked {
    if let Some(source) = candidate(path)
        && !matches!(source, Source::Pyproject | Source::PackageJson | Source::Script)
    {
        return looked(clients::look(path, bytes, source));
    }
    let source = match path {
        _ if path.to_ascii_lowercase().ends_with(".toml") => Source::Codex,
        _ if crate::config::foreign::is_yaml(path) => Source::Yaml,
        _ => Source::Servers,
    };
    looked(clients::look(path, bytes, source))
}

fn looked(result: Result<Vec<Find>, String>) -> Looked {
    match result {
        Ok(mut finds) => {
            let many = finds.len() > FINDS_PER_FILE_MAX;
            finds.truncate(FINDS_PER_FILE_MAX);
            Looked { finds, problem: many.then(|| format!("only the first {FINDS_PER_FILE_MAX} are taken")) }
        }
        Err(problem) => Looked { finds: Vec::new(), problem: Some(problem) },
    }
}

/// Puts finds in the order they are shown in, each once.
pub fn arrange(finds: &mut Vec<Find>) {
    finds.sort_by(|a, b| {
        (b.confidence, &a.name, a.source, &a.place).cmp(&(a.confidence, &b.name, b.source, &b.place))
    });
    finds.dedup_by(|a, b| (&a.name, a.source, &a.place) == (&b.name, b.source, &b.place));
}
