//! The decoder of event streams: any chunking gives the same events.

use mcp_orchestrator::mcp::sse::Decoder;

/// Limits tried.
const LIMITS: [usize; 4] = [0, 16, 512, 1 << 20];

/// First byte: the limit; second: the seed of the chunks; the rest is the stream.
pub(crate) fn check(bytes: &[u8]) {
    let [limit, seed, stream @ ..] = bytes else { return };
    let limit = LIMITS[usize::from(*limit) % LIMITS.len()];
    let whole = decode(limit, std::iter::once(stream));
    assert_eq!(whole, decode(limit, stream.chunks(1)), "byte by byte, limit {limit}");
    let size = usize::from(*seed) % 40 + 1;
    assert_eq!(whole, decode(limit, stream.chunks(size)), "chunks of {size}, limit {limit}");
}

fn decode<'a>(limit: usize, chunks: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    let mut out = Vec::new();
    let mut decoder = Decoder::new(limit);
    for chunk in chunks {
        decoder.push(chunk, &mut |event| out.push(format!("{event:?}")));
    }
    out
}
