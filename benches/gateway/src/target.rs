//! Where requests go and what they look like.

use std::fmt::Write as _;

use crate::answer::VERSION;

/// How a gateway is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Streamable HTTP with sessions.
    Mcp,
    /// mcpo: the arguments are POSTed to the tool's own path; there are no sessions.
    Rest,
}

/// One gateway, as its clients see it.
#[derive(Clone, Debug)]
pub struct Target {
    /// Host and port.
    pub authority: String,
    /// Path of the endpoint.
    pub path: String,
    /// Further header lines, each with its line end.
    pub headers: String,
    /// Name of the tool that echoes.
    pub tool: String,
    /// How it is spoken to.
    pub style: Style,
}

impl Target {
    /// Takes `http://HOST:PORT/PATH` apart.
    ///
    /// # Errors
    /// Anything else, in words.
    pub fn new(url: &str) -> Result<Self, String> {
        let rest = url.strip_prefix("http://").ok_or_else(|| format!("{url} does not begin with http://"))?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        Ok(Self {
            authority: authority.to_owned(),
            path: format!("/{path}"),
            headers: String::new(),
            tool: "echo".to_owned(),
            style: Style::Mcp,
        })
    }

    /// All of a request's head but the length of its body, for one session.
    #[must_use]
    pub fn head(&self, method: &str, session: Option<&Session>) -> Vec<u8> {
        let Self { authority, path, headers, .. } = self;
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {authority}\r\nAccept: application/json, text/event-stream\r\n{headers}"
        );
        if let Some(session) = session {
            if let Some(id) = &session.id {
                let _ = write!(head, "Mcp-Session-Id: {id}\r\n");
            }
            let _ = write!(head, "MCP-Protocol-Version: {}\r\n", session.version);
        }
        head.push_str("Content-Type: application/json\r\nContent-Length: ");
        head.into_bytes()
    }
}

/// What `initialize` agreed on.
#[derive(Clone, Debug)]
pub struct Session {
    /// The gateway's id, where it gives one.
    pub id: Option<String>,
    /// The version agreed on.
    pub version: String,
}

impl Default for Session {
    fn default() -> Self {
        Self { id: None, version: VERSION.to_owned() }
    }
}

/// The request that opens a session.
#[must_use]
pub fn initialize() -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":"{VERSION}","capabilities":{{}},"clientInfo":{{"name":"load","version":"1"}}}}}}"#
    )
}

/// The notification that follows.
pub const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// Writes calls of the echo tool, each with a text of its own.
#[derive(Clone, Debug)]
pub struct Calls {
    before_id: String,
    before_text: String,
    after_text: String,
    filler: Vec<u8>,
    session: usize,
    /// The text of the call written last.
    pub text: Vec<u8>,
}

impl Calls {
    /// For one session, with texts of `bytes` bytes.
    #[must_use]
    pub fn new(style: Style, tool: &str, session: usize, bytes: usize) -> Self {
        let (before_id, before_text, after_text) = match style {
            Style::Mcp => (
                r#"{"jsonrpc":"2.0","id":"#.to_owned(),
                format!(r#","method":"tools/call","params":{{"name":"{tool}","arguments":{{"text":""#),
                r#""}}}"#.to_owned(),
            ),
            Style::Rest => (String::new(), r#"{"text":""#.to_owned(), r#""}"#.to_owned()),
        };
        let filler = b"the quick brown fox ".iter().copied().cycle().take(bytes).collect();
        Self { before_id, before_text, after_text, filler, session, text: Vec::with_capacity(bytes) }
    }

    /// Appends the call with this id to `out`.
    pub fn write(&mut self, id: u64, out: &mut Vec<u8>) {
        use std::io::Write as _;
        self.text.clear();
        let _ = write!(self.text, "s{}-{id}-", self.session);
        let rest = self.filler.get(self.text.len()..).unwrap_or_default();
        self.text.extend_from_slice(rest);
        out.extend_from_slice(self.before_id.as_bytes());
        if !self.before_id.is_empty() {
            let _ = write!(out, "{id}");
        }
        out.extend_from_slice(self.before_text.as_bytes());
        out.extend_from_slice(&self.text);
        out.extend_from_slice(self.after_text.as_bytes());
    }
}
