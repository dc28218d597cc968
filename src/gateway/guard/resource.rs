//! What clients need to know to get a token: the metadata of a protected resource (RFC 9728), and the
//! challenge that leads to it, as the MCP authorization specification asks.
//!
//! ```text
//! asked for        resource               metadata named in the challenge
//! /mcp/{id}…       {base}/mcp/{id}…       {base}/mcp/{id}/.well-known/oauth-protected-resource
//! /mcp, /mcp/~s    {base}/mcp…            {base}/.well-known/oauth-protected-resource/mcp…
//! anything else    {base}                 {base}/.well-known/oauth-protected-resource
//! ```
//! The metadata of a server stands below its own path too, because that is what rules of load balancers
//! lead here. `{base}` is `[gateway] public_url`, else what the request says of itself.
//!
//! Must never say which servers there are.

use crate::gateway::body::{Response, json, problem};
use crate::gateway::guard::jwt::issuer::UNREACHABLE;
use crate::gateway::guard::jwt::{Jwt, Rules, Wrong};
use crate::gateway::http::Request;
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, HOST, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde_json::json as value;

/// Where metadata is.
const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";
/// What says by which scheme a client came to a proxy.
const FORWARDED_PROTO: &str = "x-forwarded-proto";
/// Bytes of a resource's path.
const PATH_BYTES_MAX: usize = 256;
/// Seconds after which a request may come again that no keys were there for.
const AGAIN_SECS: u64 = 5;

/// Scheme, host and port that the client of a request knows this host by.
fn base(request: &Request, rules: &Rules) -> String {
    if let Some(url) = &rules.public_url {
        return url.clone();
    }
    let header = |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok());
    let said = header(FORWARDED_PROTO).map(|said| said.split(',').next().unwrap_or_default().trim());
    let scheme = match said {
        Some("https") => "https",
        Some("http") => "http",
        _ if request.encrypted => "https",
        _ => "http",
    };
    let host =
        request.uri.authority().map(hyper::http::uri::Authority::as_str).or_else(|| header(HOST.as_str()));
    let clean =
        |host: &&str| host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte));
    format!("{scheme}://{}", host.filter(clean).unwrap_or("localhost"))
}

/// The path of the resource that a path belongs to.
fn path_of(path: &str) -> &str {
    let plain = path.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\".contains(&byte));
    let Some(rest) = path.strip_prefix("/mcp").filter(|_| plain && path.len() <= PATH_BYTES_MAX) else {
        return "";
    };
    let end = match rest.strip_prefix('/') {
        Some(below) => 1 + below.find('/').unwrap_or(below.len()),
        None if rest.is_empty() => 0,
        None => return "",
    };
    path.get(..4 + end).unwrap_or_default().trim_end_matches('/')
}

/// The URL of what a request is for, where it is configured under which name clients reach it.
pub(super) fn url(request: &Request, rules: &Rules) -> Option<String> {
    rules.public_url.as_ref().map(|base| format!("{base}{}", path_of(request.path())))
}

/// Where the metadata of a path's resource is.
fn metadata_url(request: &Request, rules: &Rules) -> String {
    let (base, path) = (base(request, rules), path_of(request.path()));
    match path.strip_prefix("/mcp/") {
        Some(id) if !id.starts_with('~') => format!("{base}{path}{WELL_KNOWN}"),
        _ => format!("{base}{WELL_KNOWN}{path}"),
    }
}

/// The metadata, for a request whose names were checked; `None` when it is for something else.
pub(super) fn metadata(request: &Request, rules: &Rules) -> Option<Response> {
    let (before, after) = request.path().split_once(WELL_KNOWN)?;
    let resource = match (before, after.trim_end_matches('/')) {
        ("", path) | (path, "") => path,
        _ => return None,
    };
    if path_of(resource) != resource {
        return None;
    }
    let mut document = value!({
        "resource": format!("{}{resource}", base(request, rules)),
        "authorization_servers": [rules.issuer],
        "bearer_methods_supported": ["header"],
        "resource_name": "mcp-orchestrator",
    });
    if let Some(members) = document.as_object_mut().filter(|_| !rules.required_scopes.is_empty()) {
        members.insert("scopes_supported".to_owned(), value!(rules.required_scopes));
    }
    let mut response = json(StatusCode::OK, document.to_string());
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Some(response)
}

/// The answer to a client whose token does not open the door.
pub(super) fn refusal(request: &Request, jwt: &Jwt, wrong: &Wrong) -> Response {
    let scope = jwt.rules.required_scopes.join(" ");
    let (status, code, title, detail, error) = match wrong {
        Wrong::Missing => {
            let detail =
                "a request has the header 'Authorization: Bearer <token>', with a token of the issuer";
            (StatusCode::UNAUTHORIZED, "MCPO-G004", "a token is needed", detail.to_owned(), None)
        }
        Wrong::Invalid(why) => {
            let detail = format!("the token does not count: {why}");
            (StatusCode::UNAUTHORIZED, "MCPO-G004", "a token is needed", detail, Some("invalid_token"))
        }
        Wrong::Scope => {
            let detail = format!("the token lacks a scope of: {scope}");
            (StatusCode::FORBIDDEN, "MCPO-G005", "not granted", detail, Some("insufficient_scope"))
        }
        Wrong::NoKeys(why) => {
            let detail = format!("tokens cannot be checked without the issuer's keys: {why}");
            let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, UNREACHABLE, "no keys", detail);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(AGAIN_SECS));
            return response;
        }
    };
    let mut response = problem(status, code, title, detail.clone());
    let about = error.map(|error| (error, detail.as_str()));
    if let Some(value) = challenge(request, jwt, about, &scope) {
        response.headers_mut().insert(WWW_AUTHENTICATE, value);
    }
    response
}

/// What a client is told whose token is good and does not reach a server.
pub(super) fn insufficient(request: &Request, jwt: &Jwt, server: &str) -> Option<HeaderValue> {
    let own = format!("{}server:{server}", jwt.rules.scope_prefix);
    let scope = [jwt.rules.required_scopes.as_slice(), &[own]].concat().join(" ");
    challenge(request, jwt, Some(("insufficient_scope", "the token does not cover this server")), &scope)
}

fn challenge(request: &Request, jwt: &Jwt, error: Option<(&str, &str)>, scope: &str) -> Option<HeaderValue> {
    let mut text = format!(
        r#"Bearer realm="mcp-orchestrator", resource_metadata="{}""#,
        metadata_url(request, &jwt.rules)
    );
    if let Some((error, detail)) = error {
        text.push_str(&format!(r#", error="{error}", error_description="{detail}""#));
    }
    if !scope.is_empty() {
        text.push_str(&format!(r#", scope="{scope}""#));
    }
    HeaderValue::try_from(text).ok()
}

#[cfg(test)]
mod tests {
    use super::path_of;

    #[test]
    fn a_resource_is_an_endpoint_and_not_what_stands_behind_it() {
        for (path, resource) in [
            ("/mcp", "/mcp"),
            ("/mcp/", "/mcp"),
            ("/mcp/~ops", "/mcp/~ops"),
            ("/mcp/time", "/mcp/time"),
            ("/mcp/time/", "/mcp/time"),
            ("/mcp/time/mcp", "/mcp/time"),
            ("/mcp/time/sse", "/mcp/time"),
            ("", ""),
            ("/", ""),
            ("/mcpx", ""),
            ("/openapi/time/now", ""),
            ("/mcp/a\"b", ""),
            ("/mcp/ä", ""),
        ] {
            assert_eq!(path_of(path), resource, "{path}");
        }
    }
}
