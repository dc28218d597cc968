//! HTTP as it stands on the wire: one connection for each request, answers read piece by piece.
//!
//! Nothing is decoded but the framing, so that tests see the very bytes.

use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Longest silence within an answer: above the time that requests wait for a starting server.
const SILENCE: Duration = Duration::from_secs(45);

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    /// `Host` too: a test may want another.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Ask {
    /// A request without body.
    pub(crate) fn new(method: &'static str, path: &str) -> Self {
        Self { method, path: path.to_owned(), headers: Vec::new(), body: String::new() }
    }

    /// A POST as MCP clients send it.
    pub(crate) fn post(path: &str, body: &str) -> Self {
        let ask = Self { body: body.to_owned(), ..Self::new("POST", path) };
        ask.with("Content-Type", "application/json").with("Accept", "application/json, text/event-stream")
    }

    /// A GET for an event stream.
    pub(crate) fn events(path: &str) -> Self {
        Self::new("GET", path).with("Accept", "text/event-stream")
    }

    /// With this header, instead of one of the same name.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(held, _)| !held.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sends it; the answer's head is read.
    ///
    /// # Errors
    /// The connection was refused or ended before an answer.
    pub(crate) fn try_send(&self, port: u16) -> Result<Reply, String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(SILENCE)).expect("a socket");
        let mut head = format!("{} {} HTTP/1.1\r\nConnection: close\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        let has = |wanted: &str| self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted));
        if !has("host") {
            head += &format!("Host: 127.0.0.1:{port}\r\n");
        }
        if self.method == "POST" && !has("content-length") && !has("transfer-encoding") {
            head += &format!("Content-Length: {}\r\n", self.body.len());
        }
        // A server that refuses by the head alone may close before the body went out.
        let sent = stream
            .write_all((head + "\r\n").as_bytes())
            .and_then(|()| stream.write_all(self.body.as_bytes()));
        Reply::read(stream).map_err(|error| format!("{error}; sent: {sent:?}"))
    }

    /// Sends it.
    #[track_caller]
    pub(crate) fn send(&self, port: u16) -> Reply {
        self.try_send(port).unwrap_or_else(|error| panic!("{} {}: {error}", self.method, self.path))
    }
}

#[derive(Clone, Copy, Debug)]
enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

/// An answer; what is not read yet goes with it when it is dropped.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    reader: BufReader<TcpStream>,
    framing: Framing,
}

impl Reply {
    fn read(stream: TcpStream) -> std::io::Result<Self> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        let bad = |what: &str| std::io::Error::other(format!("no HTTP answer: {what:?}"));
        reader.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| bad(&line))?;
        let mut headers = BTreeMap::new();
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let length = headers.get("content-length").and_then(|length| length.parse().ok());
        let framing = match length {
            Some(length) => Framing::Length(length),
            None if headers.get("transfer-encoding").is_some_and(|how| how == "chunked") => Framing::Chunked,
            None => Framing::UntilClose,
        };
        Ok(Self { status, headers, reader, framing })
    }

    /// A header, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Whether it is an event stream.
    pub(crate) fn is_events(&self) -> bool {
        self.header("content-type").starts_with("text/event-stream")
    }

    /// The next piece of the body; `None` at its end.
    fn piece(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let wanted = match self.framing {
            Framing::Length(0) => return Ok(None),
            Framing::Length(left) => left,
            Framing::UntilClose => 1 << 16,
            Framing::Chunked => {
                let mut line = String::new();
                self.reader.read_line(&mut line)?;
                let size = usize::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
                let mut chunk = vec![0; size + 2];
                self.reader.read_exact(&mut chunk)?;
                chunk.truncate(size);
                return Ok((size != 0).then_some(chunk));
            }
        };
        let mut piece = vec![0; wanted.min(1 << 16)];
        let got = self.reader.read(&mut piece)?;
        piece.truncate(got);
        if let Framing::Length(left) = &mut self.framing {
            *left -= got;
            if got == 0 {
                return Err(std::io::Error::other("the body ended too soon"));
            }
        }
        Ok((got != 0).then_some(piece))
    }

    /// The whole body; what was read when the connection broke.
    pub(crate) fn try_body(mut self) -> Result<String, String> {
        let mut all = Vec::new();
        loop {
            match self.piece() {
                Ok(Some(piece)) => all.extend(piece),
                Ok(None) => return String::from_utf8(all).map_err(|error| error.to_string()),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// The whole body.
    #[track_caller]
    pub(crate) fn body(self) -> String {
        self.try_body().unwrap_or_else(|error| panic!("reading an answer: {error}"))
    }

    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(self) -> Value {
        let text = self.body();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Status and JSON-RPC error code of a refusal; 0 when the body is no JSON-RPC error.
    pub(crate) fn refusal(self) -> (u16, i64) {
        let status = self.status;
        let text = self.try_body().unwrap_or_default();
        let body: Value = serde_json::from_str(&text).unwrap_or_default();
        (status, body.pointer("/error/code").and_then(Value::as_i64).unwrap_or(0))
    }

    /// Reads on in a thread of its own.
    pub(crate) fn stream(mut self) -> Events {
        assert!(self.is_events(), "no event stream: {} {:?}", self.status, self.headers);
        let stream = self.reader.get_ref().try_clone().expect("a socket");
        stream.set_read_timeout(None).expect("a socket");
        let (sink, events) = channel();
        std::thread::spawn(move || {
            let mut held = Vec::new();
            while let Ok(Some(piece)) = self.piece() {
                held.extend(piece);
                while let Some(end) = held.windows(2).position(|two| two == b"\n\n") {
                    let rest = held.split_off(end + 2);
                    let event = Event::parse(&String::from_utf8_lossy(&held));
                    held = rest;
                    // A comment, or `retry` alone.
                    if event.id.is_empty() && event.data.is_empty() {
                        continue;
                    }
                    if sink.send(event).is_err() {
                        return;
                    }
                }
            }
        });
        Events { events, stream }
    }

    /// All JSON-RPC messages of an answer that ends, as they stand there, the answer itself last.
    #[track_caller]
    pub(crate) fn messages(self) -> Vec<String> {
        let status = self.status;
        if status != 200 {
            panic!("{status}: {:?}", self.try_body());
        }
        if !self.is_events() {
            return vec![self.body()];
        }
        let body = self.body();
        let events = body.split("\n\n").map(Event::parse);
        events.map(|event| event.data).filter(|data| !data.is_empty()).collect()
    }

    /// The answer itself.
    #[track_caller]
    pub(crate) fn answer(self) -> Value {
        let messages = self.messages();
        let last = messages.last().expect("an answer");
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {last}"))
    }
}

/// One event.
#[derive(Clone, Debug, Default)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) data: String,
}

impl Event {
    fn parse(text: &str) -> Self {
        let mut event = Self::default();
        for line in text.lines() {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "id" => value.clone_into(&mut event.id),
                "event" => value.clone_into(&mut event.name),
                "data" => event.data += value,
                _ => {}
            }
        }
        event
    }
}

/// An event stream being read; closed when dropped.
#[derive(Debug)]
pub(crate) struct Events {
    events: Receiver<Event>,
    stream: TcpStream,
}

impl Events {
    /// The next event within this time; an error says whether the stream ended.
    pub(crate) fn next(&self, within: Duration) -> Result<Event, RecvTimeoutError> {
        self.events.recv_timeout(within)
    }

    /// The next message; priming events and comments are passed over.
    #[track_caller]
    pub(crate) fn message(&self) -> Value {
        self.try_message(SILENCE).unwrap_or_else(|error| panic!("no message on the stream: {error}"))
    }

    /// The next message that is no notification: a server may tell of a change at any time.
    #[track_caller]
    pub(crate) fn reply(&self) -> Value {
        let until = Instant::now() + SILENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let message =
                self.try_message(left).unwrap_or_else(|error| panic!("no reply on the stream: {error}"));
            if message.get("id").is_some() {
                return message;
            }
        }
    }

    /// The next message within this time.
    pub(crate) fn try_message(&self, within: Duration) -> Result<Value, RecvTimeoutError> {
        let until = Instant::now() + within;
        loop {
            let event = self.next(until.saturating_duration_since(Instant::now()))?;
            if !event.data.is_empty() {
                return Ok(serde_json::from_str(&event.data).expect("JSON"));
            }
        }
    }

    /// All messages until none came for `quiet`.
    pub(crate) fn rest(&self, quiet: Duration) -> Vec<Value> {
        std::iter::from_fn(|| self.try_message(quiet).ok()).collect()
    }

    /// Whether the other side ended it, within this time.
    pub(crate) fn ends(&self, within: Duration) -> bool {
        let until = Instant::now() + within;
        loop {
            match self.next(until.saturating_duration_since(Instant::now())) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return true,
                Err(RecvTimeoutError::Timeout) => return false,
            }
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _gone = self.stream.shutdown(Shutdown::Both);
    }
}
