//! Pages and assets in fewer bytes, for clients that say that they read gzip.
//!
//! Nothing secret is in a page, so that the length of a compressed one tells nobody anything. Must
//! never compress an answer of the API: some hold what servers say, and all are short.

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::HeaderMap;
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderValue, VARY};
use std::io::Write as _;

use crate::gateway::body::{Body, Response};

/// Shorter answers are not worth it, in bytes.
const WORTH: usize = 1024;

/// Whether whoever sent these reads gzip (RFC 9110, section 12.5.3).
pub(super) fn reads_gzip(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let mut any = None;
    for item in lines.flat_map(|line| line.split(',')) {
        let mut parts = item.split(';').map(str::trim);
        let coding = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parts.find_map(|part| part.strip_prefix("q=")?.trim().parse::<f32>().ok());
        let wanted = weight.is_none_or(|weight| weight > 0.0);
        match coding.as_str() {
            "gzip" | "x-gzip" => return wanted,
            "*" => any = Some(wanted),
            _ => {}
        }
    }
    any.unwrap_or(false)
}

/// Compressed: pages are made anew each time, so quickly; what is kept may take its time.
pub(super) fn gzip(bytes: &[u8], kept: bool) -> Bytes {
    let level = if kept { Compression::best() } else { Compression::new(3) };
    let mut encoder = GzEncoder::new(Vec::new(), level);
    // Writing to memory cannot fail; if it did, an empty body would be told from a page.
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    written.map(Bytes::from).unwrap_or_default()
}

/// The answer in fewer bytes, where its client reads that; `kept` is its compressed form, when there
/// is one already.
pub(super) fn squeezed(mut response: Response, accepted: bool, kept: Option<Bytes>) -> Response {
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept-encoding"));
    let long = match response.body() {
        Body::Full(bytes) => bytes.len() >= WORTH,
        _ => false,
    };
    if !accepted || !long {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Body::Full(bytes) = body else { return Response::from_parts(parts, body) };
    let small = kept.unwrap_or_else(|| gzip(&bytes, false));
    if small.is_empty() {
        return Response::from_parts(parts, Body::Full(bytes));
    }
    parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    Response::from_parts(parts, Body::Full(small))
}

#[cfg(test)]
mod tests {
    use super::{gzip, reads_gzip, squeezed};
    use crate::gateway::body::{self, Body};
    use hyper::StatusCode;
    use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderValue};
    use std::io::Read as _;

    #[test]
    fn only_who_reads_it_gets_it() {
        for (said, wanted) in [
            ("gzip, deflate, br", true),
            ("br;q=1.0, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip; q=0.0, *", false),
            ("*", true),
            ("*;q=0", false),
            ("identity", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(said));
            assert_eq!(reads_gzip(&headers), wanted, "{said}");
        }
        assert!(!reads_gzip(&HeaderMap::new()));
    }

    #[test]
    fn what_comes_out_is_what_went_in() {
        let text = "<tr><td>server</td></tr>".repeat(1000);
        let answer = |accepted| squeezed(body::text(StatusCode::OK, text.clone()), accepted, None);
        let small = answer(true);
        assert_eq!(small.headers().get(CONTENT_ENCODING).unwrap(), "gzip");
        assert_eq!(small.headers().get("vary").unwrap(), "accept-encoding");
        let Body::Full(bytes) = small.into_body() else { panic!("a body") };
        assert!(bytes.len() * 20 < text.len());
        let mut back = String::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut back).unwrap();
        assert_eq!(back, text);
        assert!(answer(false).headers().get(CONTENT_ENCODING).is_none());
        let short = squeezed(body::text(StatusCode::OK, "ok"), true, None);
        assert!(short.headers().get(CONTENT_ENCODING).is_none());
        assert!(!gzip(b"x", true).is_empty());
    }
}
