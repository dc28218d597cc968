//! Takes server-sent events out of a byte stream, however it was cut.
//!
//! Lines end with LF, CR or CRLF; a comment begins with a colon; an unknown field is nothing. An
//! event is handed out when any field of it was set, so that an id without data (which servers send
//! to make a stream resumable from its first moment) is seen.
//!
//! Must never hold more than the limit: a larger event is dropped and counted.

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// `event`; `None` means `message`.
    pub(crate) name: Option<String>,
    /// `id`, to resume after this event.
    pub(crate) id: Option<String>,
    /// `data`, its lines joined by line feeds.
    pub(crate) data: String,
    /// `retry`: how long to wait before resuming, in milliseconds.
    pub(crate) retry: Option<u64>,
}

/// The decoder of one stream.
#[derive(Debug)]
pub(crate) struct Decoder {
    bytes_max: usize,
    line: Vec<u8>,
    event: Event,
    any: bool,
    /// The event under way is over the limit.
    dropping: bool,
    dropped: u64,
    after_return: bool,
    at_start: bool,
}

impl Decoder {
    /// A decoder for events of at most `bytes_max` bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            line: Vec::new(),
            event: Event::default(),
            any: false,
            dropping: false,
            dropped: 0,
            after_return: false,
            at_start: true,
        }
    }

    /// Events dropped because they were too long.
    pub(crate) const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Takes the next chunk and hands out every event that it ends.
    pub(crate) fn push(&mut self, chunk: &[u8], sink: &mut dyn FnMut(Event)) {
        let mut rest = chunk;
        if std::mem::take(&mut self.after_return) && !rest.is_empty() {
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let (piece, ending) = rest.split_at(at);
            self.keep(piece);
            self.end_line(sink);
            rest = match ending {
                [b'\r', b'\n', rest @ ..] | [_, rest @ ..] => rest,
                [] => &[],
            };
            self.after_return = ending == b"\r";
        }
        self.keep(rest);
    }

    fn keep(&mut self, piece: &[u8]) {
        if self.dropping || self.line.len() + self.event.data.len() + piece.len() > self.bytes_max {
            if !piece.is_empty() {
                self.dropping = true;
                // A blank line must still be told from the rest of a dropped one.
                self.line.clear();
                self.line.push(b':');
            }
            return;
        }
        self.line.extend_from_slice(piece);
    }

    fn end_line(&mut self, sink: &mut dyn FnMut(Event)) {
        let line = std::mem::take(&mut self.line);
        let mut text = String::from_utf8_lossy(&line);
        if std::mem::take(&mut self.at_start) && text.starts_with('\u{feff}') {
            text = text.trim_start_matches('\u{feff}').to_owned().into();
        }
        if text.is_empty() {
            self.end_event(sink);
        } else if !self.dropping {
            self.field(&text);
        }
    }

    fn end_event(&mut self, sink: &mut dyn FnMut(Event)) {
        let mut event = std::mem::take(&mut self.event);
        let any = std::mem::take(&mut self.any);
        if std::mem::take(&mut self.dropping) {
            self.dropped += 1;
        } else if any {
            if event.data.ends_with('\n') {
                event.data.pop();
            }
            sink(event);
        }
    }

    fn field(&mut self, line: &str) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "data" => {
                self.event.data.push_str(value);
                self.event.data.push('\n');
            }
            "event" => self.event.name = Some(value.to_owned()).filter(|name| !name.is_empty()),
            "id" if !value.contains('\0') => self.event.id = Some(value.to_owned()),
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.event.retry = value.parse().ok();
            }
            _ => return,
        }
        self.any = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &str, chunk: usize, bytes_max: usize) -> (Vec<Event>, u64) {
        let (mut decoder, mut events) = (Decoder::new(bytes_max), Vec::new());
        for part in text.as_bytes().chunks(chunk) {
            decoder.push(part, &mut |event| events.push(event));
        }
        (events, decoder.dropped())
    }

    #[test]
    fn any_cut_and_any_line_ending_give_the_same_events() {
        let text = "\u{feff}: hello\nid: 1\ndata:\n\nevent: message\ndata: {\"a\":\ndata:  1}\nid: 2\nretry: 20\nfoo: x\n\n:\n\ndata: cut off";
        let expected = [
            Event { id: Some("1".into()), ..Event::default() },
            Event {
                name: Some("message".into()),
                id: Some("2".into()),
                data: "{\"a\":\n 1}".into(),
                retry: Some(20),
            },
        ];
        for text in [text.to_owned(), text.replace('\n', "\r\n"), text.replace('\n', "\r")] {
            for chunk in [1, 2, 3, 7, 1000] {
                assert_eq!(decode(&text, chunk, 1000), (expected.to_vec(), 0), "{text:?} by {chunk}");
            }
        }
    }

    #[test]
    fn an_event_over_the_limit_is_dropped_alone() {
        let text = format!("data: {}\nid: 9\n\ndata: b\n\n", "a".repeat(100));
        for chunk in [1, 5, 1000] {
            let (events, dropped) = decode(&text, chunk, 50);
            assert_eq!((events.len(), events[0].data.as_str(), dropped), (1, "b", 1));
            assert_eq!(events[0].id, None);
        }
    }
}
