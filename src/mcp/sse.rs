//! Server-sent events, written and read.
//!
//! Reading follows the event stream format of the HTML standard: lines end with CR, LF or both, a
//! byte order mark at the start is skipped, comments and unknown fields are ignored, and an event
//! exists only where there is a `data` line. An empty one counts: servers send an id with empty
//! data first, so that a client can resume before the first message.
//!
//! Memory is bounded by what one event may hold; a longer one is dropped as a whole and counted,
//! and the stream goes on with the next.
//!
//! Must never let text of one event become a field of another.

use std::fmt::Write as _;

/// Writes one event. Every line of `data` becomes a line of its own, however it ended; a reader
/// gets them joined by line feeds. Line ends and zero bytes in a name or an id are left out.
pub fn event(out: &mut Vec<u8>, name: Option<&str>, id: Option<&str>, data: &str) {
    for (field, value) in [("event", name), ("id", id)] {
        if let Some(value) = value {
            out.extend_from_slice(field.as_bytes());
            out.extend_from_slice(b": ");
            out.extend(value.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n' | 0)));
            out.push(b'\n');
        }
    }
    each_line(data, &mut |line| {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
    });
    out.push(b'\n');
}

/// Tells the reader how long to wait before it connects again.
pub fn retry(out: &mut Vec<u8>, millis: u64) {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _infallible = write!(text, "retry: {millis}\n\n");
    out.extend_from_slice(text.as_bytes());
}

/// A line that readers ignore: it keeps a silent connection open.
pub fn comment(out: &mut Vec<u8>, text: &str) {
    each_line(text, &mut |line| {
        out.push(b':');
        if !line.is_empty() {
            out.push(b' ');
        }
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
    });
    out.push(b'\n');
}

fn each_line(text: &str, visit: &mut dyn FnMut(&str)) {
    let mut rest = text;
    while let Some(end) = rest.find(['\r', '\n']) {
        let (line, tail) = rest.split_at_checked(end).unwrap_or((rest, ""));
        visit(line);
        rest = tail.strip_prefix("\r\n").or_else(|| tail.get(1..)).unwrap_or_default();
    }
    visit(rest);
}

/// One event as read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// Its `event` field; `None` means `message`.
    pub name: Option<&'a str>,
    /// Its own `id` field; see [`Decoder::last_id`] for what a resumption needs.
    pub id: Option<&'a str>,
    /// Its data, lines joined by line feeds.
    pub data: &'a str,
    /// Its `retry` field, in milliseconds.
    pub retry: Option<u64>,
}

/// Reads events from chunks, whatever their borders.
#[derive(Debug)]
pub struct Decoder {
    bytes_max: usize,
    line: Vec<u8>,
    /// The line is longer than an event may be; its end is still to come.
    line_over: bool,
    after_cr: bool,
    first_line: bool,
    name: String,
    id: Option<String>,
    data: String,
    has_data: bool,
    retry: Option<u64>,
    /// The event is too long; its end is still to come.
    event_over: bool,
    last_id: Option<String>,
    wait: Option<u64>,
    dropped: u64,
}

impl Decoder {
    /// A reader of events that hold at most `bytes_max` bytes of data, and lines as long.
    #[must_use]
    pub const fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            line: Vec::new(),
            line_over: false,
            after_cr: false,
            first_line: true,
            name: String::new(),
            id: None,
            data: String::new(),
            has_data: false,
            retry: None,
            event_over: false,
            last_id: None,
            wait: None,
            dropped: 0,
        }
    }

    /// The id to resume after: the last one of an event that ended, empty when it was taken back.
    #[must_use]
    pub fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// How long the writer wants a reader to wait before it connects again, in milliseconds.
    #[must_use]
    pub const fn wait(&self) -> Option<u64> {
        self.wait
    }

    /// Events dropped because they were too long.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Takes the next bytes and hands out the events that end in them.
    pub fn push(&mut self, chunk: &[u8], sink: &mut dyn FnMut(Event<'_>)) {
        let mut rest = chunk;
        if self.after_cr && !rest.is_empty() {
            self.after_cr = false;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
            let (line, tail) = rest.split_at_checked(end).unwrap_or((rest, &[]));
            self.extend(line);
            self.end_line(sink);
            let crlf = tail.strip_prefix(b"\r\n");
            self.after_cr = tail == b"\r";
            rest = crlf.or_else(|| tail.get(1..)).unwrap_or_default();
        }
        self.extend(rest);
    }

    fn extend(&mut self, bytes: &[u8]) {
        // The field's name and its separator are no part of what is limited.
        const FIELD: usize = 16;
        if self.line_over {
            return;
        }
        if self.line.len() + bytes.len() <= self.bytes_max.saturating_add(FIELD) {
            self.line.extend_from_slice(bytes);
            return;
        }
        let is_comment = self.line.first().or_else(|| bytes.first()) == Some(&b':');
        self.line_over = true;
        self.event_over |= !is_comment;
    }

    fn end_line(&mut self, sink: &mut dyn FnMut(Event<'_>)) {
        let mut line = std::mem::take(&mut self.line);
        let over = std::mem::take(&mut self.line_over);
        let first = std::mem::take(&mut self.first_line);
        let text: &[u8] = if first { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line) } else { &line };
        if over {
            // Its event is lost already, or it was a comment.
        } else if text.is_empty() {
            self.end_event(sink);
        } else {
            self.field(&String::from_utf8_lossy(text));
        }
        line.clear();
        self.line = line;
    }

    fn field(&mut self, line: &str) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => value.clone_into(&mut self.name),
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.retry = value.parse().ok();
            }
            "data" => {
                if self.data.len() + value.len() + 1 > self.bytes_max.saturating_add(1) {
                    self.event_over = true;
                    self.data = String::new();
                }
                if !self.event_over {
                    if self.has_data {
                        self.data.push('\n');
                    }
                    self.data.push_str(value);
                }
                self.has_data = true;
            }
            _ => {}
        }
    }

    fn end_event(&mut self, sink: &mut dyn FnMut(Event<'_>)) {
        if let Some(id) = &self.id {
            self.last_id = Some(id.clone());
        }
        self.wait = self.retry.or(self.wait);
        if self.event_over {
            self.dropped += 1;
        } else if self.has_data {
            let name = Some(self.name.as_str()).filter(|name| !name.is_empty());
            sink(Event { name, id: self.id.as_deref(), data: &self.data, retry: self.retry });
        }
        self.name.clear();
        self.id = None;
        self.data.clear();
        self.has_data = false;
        self.retry = None;
        self.event_over = false;
    }
}
