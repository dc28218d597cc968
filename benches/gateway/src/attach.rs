//! The round trip with no HTTP in it: the same calls over a container's attached stream, or over
//! the pipes of a child. What a gateway adds is its own.
//!
//! One thread that blocks, a fixed number of calls in flight: nothing is faster on one stream.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::calls::percentile;
use crate::reply::{check, version};
use crate::target::{Calls, INITIALIZED, Style, initialize};

const READ_BYTES: usize = 64 * 1024;
/// No more is written before an answer is read: a socket or pipe takes this much without a reader.
const IN_FLIGHT_BYTES: usize = 48 * 1024;
/// How long an answer may take.
const WITHIN: Duration = Duration::from_secs(10);

/// What is measured over a stream.
#[derive(Clone, Copy, Debug)]
pub struct Trip {
    /// Calls in flight.
    pub window: usize,
    /// Bytes of each text.
    pub payload: usize,
    /// Length of the measurement, in seconds.
    pub seconds: f64,
}

/// Over a running container's attached stream.
///
/// # Errors
/// The engine refuses, or the server answers wrongly; in words.
pub fn over_attach(socket: &str, container: &str, trip: Trip) -> Result<Value, String> {
    let stream = UnixStream::connect(socket).map_err(|error| format!("connect to {socket}: {error}"))?;
    stream.set_read_timeout(Some(WITHIN)).map_err(|error| error.to_string())?;
    let mut write = stream.try_clone().map_err(|error| error.to_string())?;
    let path = format!("/containers/{container}/attach?stream=1&stdin=1&stdout=1");
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n"
    );
    write.write_all(head.as_bytes()).map_err(|error| format!("attach: {error}"))?;
    let mut lines = Lines::new(stream, true);
    let head = lines.head()?;
    if !head.starts_with("HTTP/1.1 101") {
        return Err(format!("the engine does not attach: {head}"));
    }
    measure(write, lines, trip)
}

/// Over the pipes of a child.
///
/// # Errors
/// It does not start, or answers wrongly; in words.
pub fn over_pipe(command: &[String], trip: Trip) -> Result<Value, String> {
    let (program, args) = command.split_first().ok_or("no command behind --")?;
    let mut child = Command::new(program);
    child.args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = child.spawn().map_err(|error| format!("start {program}: {error}"))?;
    let pipes = child.stdin.take().zip(child.stdout.take());
    let (write, read) = pipes.ok_or("the child has no pipes")?;
    let measured = measure(write, Lines::new(read, false), trip);
    // Its standard input is closed now: it ends.
    child.wait().map_err(|error| error.to_string())?;
    measured
}

fn measure(mut write: impl Write, mut lines: Lines<impl Read>, trip: Trip) -> Result<Value, String> {
    let window = trip.window.clamp(1, (IN_FLIGHT_BYTES / (trip.payload + 128)).max(1));
    let mut send = |bytes: &[u8]| write.write_all(bytes).map_err(|error| format!("write: {error}"));
    send(format!("{}\n{INITIALIZED}\n", initialize()).as_bytes())?;
    version(lines.next()?)?;
    let mut calls = Calls::new(Style::Mcp, "echo", 0, trip.payload);
    let (mut flying, mut ns, mut id) = (VecDeque::new(), Vec::new(), 0);
    let mut message = Vec::with_capacity(trip.payload + 256);
    let begun = Instant::now();
    let length = Duration::from_secs_f64(trip.seconds);
    loop {
        while flying.len() < window && begun.elapsed() < length {
            id += 1;
            message.clear();
            calls.write(id, &mut message);
            message.push(b'\n');
            flying.push_back((id, calls.text.clone(), Instant::now()));
            send(&message)?;
        }
        let Some((id, text, sent)) = flying.pop_front() else { break };
        check(Style::Mcp, lines.next()?, id, &text)?;
        ns.push(u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    let seconds = begun.elapsed().as_secs_f64();
    ns.sort_unstable();
    let us = |part| percentile(&ns, part).map(|ns| ns / 1e3);
    #[expect(clippy::cast_precision_loss, reason = "calls of one run are a small number")]
    let rps = ns.len() as f64 / seconds;
    Ok(json!({
        "window": window, "payload": trip.payload, "calls": ns.len(), "rps": rps,
        "p50_us": us(0.50), "p99_us": us(0.99),
    }))
}

/// Lines of a stream; of an attached one, what its frames hold.
struct Lines<R> {
    read: R,
    framed: bool,
    chunk: Vec<u8>,
    raw: Vec<u8>,
    /// Bytes of the current frame that are still to come, and whether they are standard output.
    left: usize,
    wanted: bool,
    text: Vec<u8>,
    /// Bytes at the beginning of `text` that were given out.
    given: usize,
}

impl<R: Read> Lines<R> {
    fn new(read: R, framed: bool) -> Self {
        let (chunk, raw, text) = (vec![0; READ_BYTES], Vec::new(), Vec::new());
        Self { read, framed, chunk, raw, left: 0, wanted: false, text, given: 0 }
    }

    /// The answer's head in front of the frames.
    fn head(&mut self) -> Result<String, String> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.raw, b"\r\n\r\n") {
                let head: Vec<u8> = self.raw.drain(..at + 4).collect();
                return Ok(String::from_utf8_lossy(&head).into_owned());
            }
            self.more()?;
        }
    }

    fn next(&mut self) -> Result<&[u8], String> {
        self.text.drain(..self.given);
        self.given = 0;
        let mut searched = 0;
        loop {
            self.unframe();
            if let Some(at) = memchr::memchr(b'\n', &self.text[searched..]) {
                self.given = searched + at + 1;
                return Ok(&self.text[..searched + at]);
            }
            searched = self.text.len();
            self.more()?;
        }
    }

    fn more(&mut self) -> Result<(), String> {
        let read = loop {
            match self.read.read(&mut self.chunk) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other.map_err(|error| format!("read: {error}"))?,
            }
        };
        self.raw.extend_from_slice(&self.chunk[..read]);
        if read == 0 { Err("the stream has ended".to_owned()) } else { Ok(()) }
    }

    /// Moves what has come into `text`: stream type, three zeros, length, then as many bytes.
    fn unframe(&mut self) {
        if !self.framed {
            return self.text.append(&mut self.raw);
        }
        let mut at = 0;
        loop {
            if self.left == 0 {
                let Some(header) = self.raw.get(at..at + 8) else { break };
                self.wanted = header[0] == 1;
                self.left = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
                at += 8;
            }
            let part = &self.raw[at..(at + self.left).min(self.raw.len())];
            if part.is_empty() {
                break;
            }
            if self.wanted {
                self.text.extend_from_slice(part);
            }
            at += part.len();
            self.left -= part.len();
        }
        self.raw.drain(..at);
    }
}

#[cfg(test)]
mod tests {
    use super::Lines;

    /// Gives one byte at a time.
    struct Slow<'a>(&'a [u8]);

    impl std::io::Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let one = self.0.get(..1).unwrap_or_default();
            buffer[..one.len()].copy_from_slice(one);
            self.0 = &self.0[one.len()..];
            Ok(one.len())
        }
    }

    #[test]
    fn lines_are_put_together_from_frames() {
        let stream =
            b"HTTP/1.1 101 X\r\n\r\n\x01\0\0\0\0\0\0\x02ab\x02\0\0\0\0\0\0\x02e\n\x01\0\0\0\0\0\0\x04c\nd\n";
        let mut whole = Lines::new(&stream[..], true);
        let mut slow = Lines::new(Slow(stream), true);
        assert!(whole.head().unwrap().starts_with("HTTP/1.1 101"));
        assert!(slow.head().unwrap().starts_with("HTTP/1.1 101"));
        for line in [&b"abc"[..], b"d"] {
            assert_eq!(whole.next().unwrap(), line);
            assert_eq!(slow.next().unwrap(), line);
        }
        assert!(whole.next().is_err());
    }
}
