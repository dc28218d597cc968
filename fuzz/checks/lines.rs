//! The assembler of lines: any chunking gives the same lines, and no more than the limit is held.

use mcp_orchestrator::mcp::lines::{Assembler, END_BYTES, Line};

/// Limits tried: none at all, small ones, one around what is kept of the ends, a large one.
const LIMITS: [usize; 6] = [0, 1, 16, 2 * END_BYTES - 1, 2 * END_BYTES + 7, 1 << 20];
/// A limit's room for one carriage return and a byte order mark.
const SLACK: usize = 4;

/// First byte: the limit; second: the seed of the chunks; the rest is the stream.
pub(crate) fn check(bytes: &[u8]) {
    let [limit, seed, stream @ ..] = bytes else { return };
    let limit = LIMITS[usize::from(*limit) % LIMITS.len()];
    let whole = cut(limit, std::iter::once(stream));
    assert_eq!(whole, cut(limit, stream.chunks(1)), "byte by byte, limit {limit}");
    let mut chunks = Vec::new();
    let mut rest = stream;
    let mut state = u32::from(*seed);
    while !rest.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (chunk, next) = rest.split_at(rest.len().min((state >> 24) as usize % 40));
        chunks.push(chunk);
        rest = next;
    }
    assert_eq!(whole, cut(limit, chunks.into_iter()), "seed {seed}, limit {limit}");
}

fn cut<'a>(limit: usize, chunks: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    let mut out = Vec::new();
    let mut lines = Assembler::new(limit);
    for chunk in chunks {
        lines.push(chunk, &mut |line| out.push(shown(line, limit)));
        assert!(lines.held_bytes() <= limit + SLACK, "{} held, limit {limit}", lines.held_bytes());
    }
    lines.finish(&mut |line| out.push(shown(line, limit)));
    out
}

fn shown(line: Line<'_>, limit: usize) -> String {
    match line {
        Line::Object(bytes) | Line::Batch(bytes) | Line::Noise(bytes) => {
            assert!(bytes.len() <= limit && !bytes.contains(&b'\n'));
        }
        Line::TooLong { bytes, head, tail } => {
            assert!(bytes > limit as u64 && head.len() <= END_BYTES && tail.len() <= END_BYTES);
        }
    }
    format!("{line:?}")
}
