//! Requests that a page of another site made its visitor's browser send.
//!
//! A browser adds credentials by itself, so that they prove nothing of who wrote the request. It
//! also says where a request comes from, in headers that pages cannot set:
//!
//! | request | must have |
//! |---|---|
//! | a write with `Origin`, `Sec-Fetch-Site` or `Referer` | our own origin in each of them, and the header `X-MCP-Orchestrator`, which other origins may not send |
//! | any write with a body | `application/json`, which no form can send |
//! | a read by a script, image or frame of another site | is refused |
//! | a write by a program | nothing more |
//!
//! Must never let a write through because a header is missing that browsers send.

use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, ORIGIN, REFERER, TRANSFER_ENCODING};
use hyper::{Method, Uri};

/// The header that our own page sends with every write.
pub const OWN_HEADER: &str = "x-mcp-orchestrator";

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Another site's page sent it.
    Foreign,
    /// Our own page would have sent its header.
    NoOwnHeader,
    /// Its body is of a kind that forms send.
    NotJson,
}

/// Looks at where a request comes from.
///
/// # Errors
/// See [`Refused`].
pub fn check(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Refused> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let site = text("sec-fetch-site");
    let own_site = site.is_none_or(|site| matches!(site, "same-origin" | "none"));
    if matches!(*method, Method::GET | Method::HEAD) {
        // A link from elsewhere may be followed; what it shows is not told to who has it.
        let navigates =
            text("sec-fetch-mode") == Some("navigate") && text("sec-fetch-dest") == Some("document");
        return if own_site || navigates { Ok(()) } else { Err(Refused::Foreign) };
    }
    let host = uri.authority().map(|host| host.as_str()).or_else(|| headers.get(HOST)?.to_str().ok());
    let ours = |value: &str| host.is_some_and(|host| is_of(value, host));
    let mut origins = headers.get_all(ORIGIN).iter().chain(headers.get_all(REFERER));
    if !own_site || origins.any(|value| !value.to_str().is_ok_and(ours)) {
        return Err(Refused::Foreign);
    }
    let browser = site.is_some() || headers.contains_key(ORIGIN) || headers.contains_key(REFERER);
    if browser && !headers.contains_key(OWN_HEADER) {
        return Err(Refused::NoOwnHeader);
    }
    let bodiless = headers.get(CONTENT_LENGTH).is_none_or(|length| length == "0")
        && !headers.contains_key(TRANSFER_ENCODING);
    let json = |value: &str| {
        let kind = value.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("application/json")
    };
    let kind = headers.get(CONTENT_TYPE).map(|value| value.to_str().is_ok_and(json));
    if kind.unwrap_or(bodiless) || bodiless { Ok(()) } else { Err(Refused::NotJson) }
}

/// Whether an origin or an address is of this host and port.
fn is_of(value: &str, host: &str) -> bool {
    let rest = value.strip_prefix("http://").or_else(|| value.strip_prefix("https://"));
    let authority = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::{Refused, check};
    use hyper::header::{HeaderMap, HeaderName, HeaderValue};
    use hyper::{Method, Uri};

    fn ask(method: &Method, headers: &[(&'static str, &'static str)]) -> Result<(), Refused> {
        let mut all = HeaderMap::new();
        all.insert("host", HeaderValue::from_static("mcp.example:5000"));
        for (name, value) in headers {
            all.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        check(method, &Uri::from_static("/api/v1/sync"), &all)
    }

    const OWN: (&str, &str) = ("x-mcp-orchestrator", "1");
    const ORIGIN: (&str, &str) = ("origin", "http://mcp.example:5000");
    const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");
    const BODY: (&str, &str) = ("content-length", "2");

    #[test]
    fn programs_and_our_own_page_may_write() {
        let post = |headers: &[(&'static str, &'static str)]| ask(&Method::POST, headers);
        assert_eq!(post(&[]), Ok(()));
        assert_eq!(post(&[BODY, JSON]), Ok(()));
        assert_eq!(post(&[ORIGIN, OWN, ("sec-fetch-site", "same-origin")]), Ok(()));
        assert_eq!(post(&[ORIGIN, OWN, BODY, JSON, ("referer", "http://MCP.example:5000/monitor")]), Ok(()));
        assert_eq!(post(&[OWN, ("content-type", "text/plain"), ("content-length", "0")]), Ok(()));
    }

    #[test]
    fn pages_of_others_may_not_write() {
        let post = |headers: &[(&'static str, &'static str)]| ask(&Method::POST, headers);
        for origin in [
            "http://evil.example",
            "null",
            "http://mcp.example:5001",
            "http://mcp.example",
            "http://mcp.example:5000.evil.example",
            "http://mcp.example:5000@evil.example",
            "chrome-extension://mcp.example:5000",
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("host", HeaderValue::from_static("mcp.example:5000"));
            headers.insert("origin", HeaderValue::from_static(origin));
            headers.insert("x-mcp-orchestrator", HeaderValue::from_static("1"));
            let verdict = check(&Method::POST, &Uri::from_static("/"), &headers);
            assert_eq!(verdict, Err(Refused::Foreign), "{origin}");
        }
        assert_eq!(post(&[("sec-fetch-site", "cross-site"), OWN]), Err(Refused::Foreign));
        assert_eq!(post(&[("sec-fetch-site", "same-site"), OWN]), Err(Refused::Foreign));
        assert_eq!(post(&[("referer", "http://evil.example/x"), OWN]), Err(Refused::Foreign));
        assert_eq!(post(&[ORIGIN, ("origin", "http://evil.example"), OWN]), Err(Refused::Foreign));
        assert_eq!(post(&[ORIGIN]), Err(Refused::NoOwnHeader));
        assert_eq!(post(&[("sec-fetch-site", "none")]), Err(Refused::NoOwnHeader));
        for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
            assert_eq!(post(&[BODY, ("content-type", kind)]), Err(Refused::NotJson), "{kind}");
        }
        assert_eq!(post(&[("transfer-encoding", "chunked")]), Err(Refused::NotJson));
        assert_eq!(ask(&Method::DELETE, &[ORIGIN]), Err(Refused::NoOwnHeader));
    }

    #[test]
    fn pages_of_others_may_link_here_and_not_read() {
        let get = |headers: &[(&'static str, &'static str)]| ask(&Method::GET, headers);
        let cross = ("sec-fetch-site", "cross-site");
        assert_eq!(get(&[]), Ok(()));
        assert_eq!(get(&[cross, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")]), Ok(()));
        assert_eq!(
            get(&[cross, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")]),
            Err(Refused::Foreign)
        );
        for mode in ["no-cors", "cors", "websocket"] {
            let mut headers = HeaderMap::new();
            headers.insert("sec-fetch-site", HeaderValue::from_static("cross-site"));
            headers.insert("sec-fetch-mode", HeaderValue::from_static(mode));
            assert_eq!(
                check(&Method::GET, &Uri::from_static("/"), &headers),
                Err(Refused::Foreign),
                "{mode}"
            );
        }
    }
}
