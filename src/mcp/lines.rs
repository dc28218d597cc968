//! Cuts a byte stream into lines, whatever the chunks were.
//!
//! Stdio servers speak one JSON object a line, and print other things between: banners, debug
//! output, blank lines. A line is told apart by its first character alone; whether it is valid is
//! for [`crate::mcp::wire`] to find out. A line that lies whole within one chunk is never copied.
//!
//! - `\n` ends a line; one `\r` before it belongs to the ending.
//! - A UTF-8 byte order mark is dropped at the start of the stream.
//! - A line over the limit is dropped while it streams in: only its two ends are kept, so that the
//!   request it answers can still be named.
//!
//! Must never hold more than the limit, and never fail. Held by
//! `tests::any_chunking_gives_the_same_lines`.

use std::io::BufRead as _;

/// The longest line accepted unless the configuration says otherwise.
pub const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How much of each end of an over-long line is kept.
pub const END_BYTES: usize = 256;
/// Room kept between lines; more is given back, so that one large answer is not paid for ever.
const KEPT_BYTES: usize = 64 * 1024;

const MARK: &[u8] = b"\xef\xbb\xbf";

/// One line without its ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// Begins like a JSON object.
    Object(&'a [u8]),
    /// Begins like a JSON array.
    Batch(&'a [u8]),
    /// Anything else that is not blank.
    Noise(&'a [u8]),
    /// Longer than the limit, and dropped.
    TooLong {
        /// Its length.
        bytes: u64,
        /// Its first bytes, at most [`END_BYTES`].
        head: &'a [u8],
        /// Its last bytes, at most [`END_BYTES`].
        tail: &'a [u8],
    },
}

/// What receives the lines.
pub type Sink<'s> = dyn FnMut(Line<'_>) + 's;

/// The assembler of one stream.
#[derive(Debug)]
pub struct Assembler {
    bytes_max: usize,
    held: Vec<u8>,
    /// The over-long line under way.
    dropping: Option<Dropped>,
    at_start: bool,
}

#[derive(Debug)]
struct Dropped {
    bytes: u64,
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Dropped {
    fn grow(&mut self, piece: &[u8]) {
        self.bytes = self.bytes.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        let room = END_BYTES.saturating_sub(self.head.len());
        self.head.extend_from_slice(piece.get(..room.min(piece.len())).unwrap_or_default());
        // One byte more than is shown, for a carriage return that turns out to be an ending.
        let keep = END_BYTES + 1;
        self.tail.extend_from_slice(piece.get(piece.len().saturating_sub(keep)..).unwrap_or_default());
        let surplus = self.tail.len().saturating_sub(keep);
        self.tail.drain(..surplus);
    }
}

impl Assembler {
    /// An assembler for lines of at most `bytes_max` bytes, endings not counted.
    #[must_use]
    pub const fn new(bytes_max: usize) -> Self {
        Self { bytes_max, held: Vec::new(), dropping: None, at_start: true }
    }

    /// Takes the next chunk and hands out every line that it ends.
    pub fn push(&mut self, chunk: &[u8], sink: &mut Sink<'_>) {
        let mut rest = chunk;
        while !rest.is_empty() {
            let (piece, ended) = split_off_line(&mut rest);
            if !ended {
                self.keep(piece);
            } else if self.held.is_empty() && self.dropping.is_none() {
                self.emit_whole(piece, sink);
            } else {
                self.keep(piece);
                self.emit_held(sink);
            }
        }
    }

    /// The stream has ended: hands out a last line that has no ending.
    pub fn finish(&mut self, sink: &mut Sink<'_>) {
        if !self.held.is_empty() || self.dropping.is_some() {
            self.emit_held(sink);
        }
    }

    /// Bytes held for a line that has not ended.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held.len()
    }

    /// The room a line may take with its ending and mark still on it.
    fn room(&self) -> usize {
        self.bytes_max.saturating_add(1 + if self.at_start { MARK.len() } else { 0 })
    }

    fn keep(&mut self, piece: &[u8]) {
        if self.dropping.is_none() && self.held.len() + piece.len() <= self.room() {
            self.held.extend_from_slice(piece);
            return;
        }
        let mut piece = piece;
        let dropped = self.dropping.get_or_insert_with(|| {
            // A mark may lie across the seam; the room is larger than it, so this much is there.
            let (seam, rest) = piece.split_at(piece.len().min(MARK.len()));
            piece = rest;
            let mut held = std::mem::take(&mut self.held);
            held.extend_from_slice(seam);
            if self.at_start && held.starts_with(MARK) {
                held.drain(..MARK.len());
            }
            let mut dropped = Dropped { bytes: 0, head: Vec::new(), tail: Vec::new() };
            dropped.grow(&held);
            dropped
        });
        dropped.grow(piece);
    }

    fn emit_held(&mut self, sink: &mut Sink<'_>) {
        if let Some(dropped) = self.dropping.take() {
            let Dropped { mut bytes, mut head, tail } = dropped;
            let mut end = tail.as_slice();
            if let Some(shorter) = end.strip_suffix(b"\r") {
                end = shorter;
                bytes = bytes.saturating_sub(1);
            }
            head.truncate(usize::try_from(bytes).unwrap_or(usize::MAX));
            let end = end.get(end.len().saturating_sub(END_BYTES)..).unwrap_or_default();
            self.at_start = false;
            sink(Line::TooLong { bytes, head: &head, tail: end });
            return;
        }
        let mut held = std::mem::take(&mut self.held);
        self.emit_whole(&held, sink);
        held.clear();
        held.shrink_to(KEPT_BYTES);
        self.held = held;
    }

    fn emit_whole(&mut self, line: &[u8], sink: &mut Sink<'_>) {
        let mut line = line.strip_suffix(b"\r").unwrap_or(line);
        if std::mem::take(&mut self.at_start) {
            line = line.strip_prefix(MARK).unwrap_or(line);
        }
        if line.len() > self.bytes_max {
            let head = line.get(..END_BYTES.min(line.len())).unwrap_or_default();
            let tail = line.get(line.len().saturating_sub(END_BYTES)..).unwrap_or_default();
            let bytes = u64::try_from(line.len()).unwrap_or(u64::MAX);
            sink(Line::TooLong { bytes, head, tail });
            return;
        }
        match line.trim_ascii_start().first() {
            None => {}
            Some(b'{') => sink(Line::Object(line)),
            Some(b'[') => sink(Line::Batch(line)),
            Some(_) => sink(Line::Noise(line)),
        }
    }
}

/// Takes the next line, or what there is of it, off the front of `rest`.
fn split_off_line<'a>(rest: &mut &'a [u8]) -> (&'a [u8], bool) {
    let whole = *rest;
    // Reading from a slice cannot fail, and the standard library searches word by word.
    let taken = rest.skip_until(b'\n').unwrap_or(whole.len());
    let piece = whole.get(..taken).unwrap_or(whole);
    match piece.strip_suffix(b"\n") {
        Some(line) => (line, true),
        None => (piece, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Owned {
        Object(Vec<u8>),
        Batch(Vec<u8>),
        Noise(Vec<u8>),
        TooLong(u64, Vec<u8>, Vec<u8>),
    }

    fn own(line: Line<'_>) -> Owned {
        match line {
            Line::Object(l) => Owned::Object(l.to_vec()),
            Line::Batch(l) => Owned::Batch(l.to_vec()),
            Line::Noise(l) => Owned::Noise(l.to_vec()),
            Line::TooLong { bytes, head, tail } => Owned::TooLong(bytes, head.to_vec(), tail.to_vec()),
        }
    }

    fn cut(max: usize, chunks: &[&[u8]]) -> Vec<Owned> {
        let mut out = Vec::new();
        let mut lines = Assembler::new(max);
        for chunk in chunks {
            lines.push(chunk, &mut |line| out.push(own(line)));
            assert!(lines.held_bytes() <= max + 1 + MARK.len());
        }
        lines.finish(&mut |line| out.push(own(line)));
        out
    }

    /// The same, written as plainly as can be.
    fn model(max: usize, bytes: &[u8]) -> Vec<Owned> {
        let mut parts: Vec<&[u8]> = bytes.split(|b| *b == b'\n').collect();
        if parts.last() == Some(&&b""[..]) {
            parts.pop();
        }
        let mut out = Vec::new();
        for (n, part) in parts.into_iter().enumerate() {
            let mut line = part.strip_suffix(b"\r").unwrap_or(part);
            if n == 0 {
                line = line.strip_prefix(MARK).unwrap_or(line);
            }
            out.push(match line.trim_ascii_start().first() {
                _ if line.len() > max => Owned::TooLong(
                    line.len() as u64,
                    line[..line.len().min(END_BYTES)].to_vec(),
                    line[line.len().saturating_sub(END_BYTES)..].to_vec(),
                ),
                None => continue,
                Some(b'{') => Owned::Object(line.to_vec()),
                Some(b'[') => Owned::Batch(line.to_vec()),
                Some(_) => Owned::Noise(line.to_vec()),
            });
        }
        out
    }

    #[test]
    fn endings_marks_blanks_and_noise() {
        let stream = b"\xef\xbb\xbf{\"a\":1}\r\n\r\n   \nstarting up\n [1]\n{\"last\":1}";
        assert_eq!(
            cut(100, &[stream]),
            [
                Owned::Object(b"{\"a\":1}".to_vec()),
                Owned::Noise(b"starting up".to_vec()),
                Owned::Batch(b" [1]".to_vec()),
                Owned::Object(b"{\"last\":1}".to_vec()),
            ]
        );
    }

    #[test]
    fn a_line_too_long_keeps_its_ends_and_spoils_no_other() {
        let long = [b"{\"id\":7,".as_slice(), &[b'x'; 1000], b"tail}"].concat();
        let stream = [long.as_slice(), b"\r\n{\"b\":2}\n"].concat();
        for size in [1, 3, 64, 5000] {
            let out = cut(20, &stream.chunks(size).collect::<Vec<_>>());
            let [Owned::TooLong(1013, head, tail), Owned::Object(next)] = out.as_slice() else {
                panic!("{out:?}")
            };
            assert!(head.starts_with(b"{\"id\":7,") && head.len() == END_BYTES);
            assert!(tail.ends_with(b"tail}") && tail.len() == END_BYTES);
            assert_eq!(next, b"{\"b\":2}");
        }
    }

    #[test]
    fn a_line_of_exactly_the_limit_passes_with_any_ending() {
        for (stream, passes) in [
            (&b"{2345\n"[..], true),
            (b"{2345\r\n", true),
            (b"\xef\xbb\xbf{2345\r\n", true),
            (b"{23456\n", false),
            (b"\xef\xbb\xbf{23456\r\n", false),
        ] {
            for size in [1, 2, 100] {
                let out = cut(5, &stream.chunks(size).collect::<Vec<_>>());
                assert_eq!(
                    matches!(out.as_slice(), [Owned::Object(_)]),
                    passes,
                    "{stream:?} by {size}: {out:?}"
                );
            }
        }
    }

    #[test]
    fn room_for_a_large_line_is_given_back() {
        let mut lines = Assembler::new(LINE_BYTES_MAX);
        lines.push(&vec![b'{'; 4 * 1024 * 1024], &mut |_| {});
        lines.push(b"\n", &mut |_| {});
        assert!(lines.held.capacity() <= KEPT_BYTES);
    }

    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => Just(b"\n".to_vec()),
            2 => Just(b"\r\n".to_vec()),
            1 => Just(MARK.to_vec()),
            1 => Just(b"\r".to_vec()),
            3 => Just("{\"é\":\"\u{200d}\u{1f600}\"}".as_bytes().to_vec()),
            2 => proptest::collection::vec(any::<u8>(), 0..12),
            1 => proptest::collection::vec(b'a'..=b'z', 0..700),
        ];
        proptest::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_lines(
            bytes in stream(),
            cuts in proptest::collection::vec(1_usize..40, 1..50),
            max in prop_oneof![Just(0_usize), 1_usize..30, 200_usize..400, Just(LINE_BYTES_MAX)],
        ) {
            let mut chunks = Vec::new();
            let mut rest = bytes.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (chunk, next) = rest.split_at(rest.len().min(*cut));
                chunks.push(chunk);
                rest = next;
            }
            let whole = model(max, &bytes);
            prop_assert_eq!(&cut(max, &[&bytes]), &whole);
            prop_assert_eq!(&cut(max, &chunks), &whole);
        }
    }
}
