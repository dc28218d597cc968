//! One document from somewhere else, by GET: whole, bounded, in time.
//!
//! Must never be asked for in the clear from another host, and never follow a redirect to another
//! origin.

use crate::mcp::lines::LINE_BYTES_MAX;
use crate::upstream::endpoint::{CONNECT_TIMEOUT, Endpoint, Remote, target};
use bytes::Bytes;
use hyper::header::{ACCEPT, CACHE_CONTROL, HeaderMap, HeaderValue};
use hyper::{Method, StatusCode};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// A document.
#[derive(Clone, Debug)]
pub struct Document {
    /// All of it.
    pub body: Bytes,
    /// How long its server lets it be kept, where it says so (`Cache-Control: max-age`).
    pub max_age: Option<Duration>,
}

/// Whether a URL may be asked: https, or http on this host.
#[must_use]
pub fn is_trustworthy(url: &str) -> bool {
    let Ok(target) = target(url) else { return false };
    let host = target.uri.host().unwrap_or_default();
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let here = bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
    match target.uri.scheme_str() {
        Some("https") => true,
        Some("http") => here,
        _ => false,
    }
}

/// Asks for a document of at most `bytes_max`.
///
/// # Errors
/// Why there is none, in words; no more of the URL than scheme, host and port.
pub async fn fetch(url: &str, bytes_max: usize, within: Duration) -> Result<Document, String> {
    if !is_trustworthy(url) {
        return Err("its URL is neither https nor http on this host".to_owned());
    }
    let asked = async {
        let endpoint = Endpoint::new(&Remote {
            url: url.to_owned(),
            headers: BTreeMap::new(),
            kind: None,
            connect_timeout: CONNECT_TIMEOUT.min(within),
            message_bytes_max: bytes_max.min(LINE_BYTES_MAX),
        })
        .map_err(|error| error.to_string())?;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let response = endpoint.send(&endpoint.uri, Method::GET, &headers, Bytes::new()).await;
        let response = response.map_err(|none| none.why)?;
        if response.status() != StatusCode::OK {
            return Err(format!(
                "{} answered with HTTP status {}",
                endpoint.name,
                response.status().as_u16()
            ));
        }
        let max_age = max_age(response.headers());
        Ok(Document { body: endpoint.whole(response.into_body()).await?, max_age })
    };
    let late = |_elapsed| Err(format!("it did not come within {} s", within.as_secs()));
    tokio::time::timeout(within, asked).await.unwrap_or_else(late)
}

fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let said = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut parts = said.flat_map(|value| value.split(','));
    let seconds = parts.find_map(|part| {
        let (name, value) = part.trim().split_once('=')?;
        name.eq_ignore_ascii_case("max-age").then(|| value.trim_matches('"').parse().ok())?
    });
    seconds.map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::{HeaderMap, HeaderValue, is_trustworthy, max_age};
    use std::time::Duration;

    #[test]
    fn only_what_nobody_between_can_change_is_asked_for() {
        for url in [
            "https://issuer.example/jwks",
            "http://localhost:1/x",
            "http://127.0.0.1:80/",
            "http://[::1]:3/x",
            "http://127.9.9.9/x",
        ] {
            assert!(is_trustworthy(url), "{url}");
        }
        for url in [
            "http://issuer.example/jwks",
            "http://10.0.0.1/",
            "http://localhost.evil.example/",
            "http://127.0.0.1@evil.example/",
            "ftp://localhost/",
            "file:///etc/passwd",
            "localhost",
            "",
        ] {
            assert!(!is_trustworthy(url), "{url}");
        }
    }

    #[test]
    fn how_long_it_may_be_kept() {
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("cache-control", HeaderValue::from_static(text));
            max_age(&headers)
        };
        assert_eq!(of("public, max-age=300, must-revalidate"), Some(Duration::from_secs(300)));
        assert_eq!(of("Max-Age=\"5\""), Some(Duration::from_secs(5)));
        assert_eq!((of("no-store"), of("max-age=x"), max_age(&HeaderMap::new())), (None, None, None));
    }
}
