//! Server-sent events of an upstream, kept for later: [`crate::mcp::sse`] reads them off the stream.

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// `event`; `None` means `message`.
    pub(crate) name: Option<String>,
    /// `data`, its lines joined by line feeds.
    pub(crate) data: String,
}

impl From<crate::mcp::sse::Event<'_>> for Event {
    fn from(event: crate::mcp::sse::Event<'_>) -> Self {
        Self { name: event.name.map(str::to_owned), data: event.data.to_owned() }
    }
}
