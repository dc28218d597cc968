//! What browsers ask before they let a page of another origin talk to a server here (CORS).
//!
//! A page may if its origin may come in at all: the guard has looked at `Origin` before. To pages of
//! other origins nothing of this is said, so that their browsers keep the answer from them.
//!
//! Must never allow an origin that the guard did not admit, nor every origin at once.

use crate::gateway::body::{Response, empty};
use crate::gateway::http::Request;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderValue, ORIGIN, VARY,
};
use hyper::{HeaderMap, Method, StatusCode};

/// Methods of MCP endpoints.
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, DELETE");
/// Headers that MCP clients send, beside `Mcp-Param-…`.
const HEADERS: &str = "Accept, Authorization, Content-Type, Last-Event-ID, Mcp-Method, Mcp-Name, \
                       Mcp-Protocol-Version, Mcp-Session-Id";
/// How the headers begin that repeat arguments.
const PARAM: &str = "mcp-param-";
/// Headers of answers that clients need.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "Mcp-Session-Id, Mcp-Protocol-Version, Retry-After, WWW-Authenticate, X-MCP-Server, X-MCP-Spec-Hash",
);
/// What the answer to a preflight depends on.
const VARIES: HeaderValue =
    HeaderValue::from_static("Origin, Access-Control-Request-Method, Access-Control-Request-Headers");
/// Seconds for which a browser need not ask again.
const MAX_AGE_SECS: u64 = 600;

/// Whether it is a browser's question before the request itself; it brings no credentials.
#[must_use]
pub fn is_preflight(request: &Request) -> bool {
    let headers = &request.headers;
    request.method == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to it, for a request whose names were checked.
#[must_use]
pub fn preflight(request: &Request) -> Response {
    let mut response = empty(StatusCode::NO_CONTENT);
    let asked = request.headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter();
    let asked = asked.filter_map(|names| names.to_str().ok()).flat_map(|names| names.split(','));
    let params = asked.map(str::trim).filter(|name| {
        let begins = name.get(..PARAM.len()).is_some_and(|head| head.eq_ignore_ascii_case(PARAM));
        begins && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    });
    let allowed = std::iter::once(HEADERS).chain(params).collect::<Vec<_>>().join(", ");
    let headers = response.headers_mut();
    if let Some(origin) = request.headers.get(ORIGIN) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    }
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    if let Ok(allowed) = HeaderValue::try_from(allowed) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    }
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(MAX_AGE_SECS));
    headers.insert(VARY, VARIES);
    response
}

/// Lets the page that a request came from read its answer; `asked` are the request's headers, whose
/// origin was checked.
pub fn let_read(response: &mut Response, asked: &HeaderMap) {
    let Some(origin) = asked.get(ORIGIN) else { return };
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    headers.append(VARY, HeaderValue::from_static("Origin"));
}
