//! The HTTP side of a server elsewhere: where it is, what is sent with every request, and how what
//! went wrong is told.
//!
//! - The entry's own headers go out with every request; those that belong to the protocol or to
//!   the connection are ours alone.
//! - Name and password in the URL become an `Authorization` header, unless the entry has one.
//! - A redirect is followed only within the same origin, and only when it keeps method and body.
//!   Headers that hold secrets therefore never reach another host.
//!
//! Must never show more of the URL than scheme, host and port: the rest may be a secret.

use crate::mcp::lines::LINE_BYTES_MAX;
use crate::model::server::{RemoteDecl, RemoteKind};
use crate::world::{ErrorKind, WorldError};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How long a connection may take to be made, unless said otherwise.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Redirects followed for one request.
pub const REDIRECTS_MAX: usize = 3;
/// Idle connections kept to one server.
pub const IDLE_CONNECTIONS_MAX: usize = 32;
/// How long an idle connection is kept: less than the 5 s after which common servers close theirs,
/// so that no request meets a connection just being closed.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// Headers that an entry cannot set: they belong to the protocol or to the connection.
const OURS: [&str; 17] = [
    "accept",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "keep-alive",
    "last-event-id",
    "mcp-method",
    "mcp-name",
    "mcp-protocol-version",
    "mcp-session-id",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A server to reach over HTTP.
#[derive(Clone, PartialEq, Eq)]
pub struct Remote {
    /// `http` or `https` URL of its MCP endpoint.
    pub url: String,
    /// Headers sent with every request; nothing else of ours or of a caller is.
    pub headers: BTreeMap<String, String>,
    /// How it speaks; found out when `None`.
    pub kind: Option<RemoteKind>,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// The longest message in either direction, in bytes.
    pub message_bytes_max: usize,
}

impl Remote {
    /// The server of an entry, with the usual limits.
    #[must_use]
    pub fn of(decl: &RemoteDecl) -> Self {
        Self {
            url: decl.url.clone(),
            headers: decl.headers.clone(),
            kind: decl.kind,
            connect_timeout: CONNECT_TIMEOUT,
            message_bytes_max: LINE_BYTES_MAX,
        }
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote")
            .field("kind", &self.kind)
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// The client of one server.
#[derive(Clone)]
pub(crate) struct Endpoint {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// Where messages go, without name and password.
    pub(crate) uri: Uri,
    headers: HeaderMap,
    /// Scheme, host and port, for people.
    pub(crate) name: String,
    /// The longest message.
    pub(crate) bytes_max: usize,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why a request has no response.
#[derive(Clone, Debug)]
pub(crate) struct Unanswered {
    /// In one line.
    pub(crate) why: String,
    /// There was no connection to send it over.
    pub(crate) unsent: bool,
}

impl Endpoint {
    /// The client for a server; connects to nothing yet.
    pub(crate) fn new(remote: &Remote) -> Result<Self, WorldError> {
        let Target { uri, name, basic } = target(&remote.url)?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(invalid(&name, "its scheme is not one of http and https")),
        };
        let headers = headers(&remote.headers, basic).map_err(|why| invalid(&name, &why))?;
        let connector = connector(remote.connect_timeout, secure)
            .map_err(|why| WorldError::new(format!("preparing TLS to {name}"), ErrorKind::Failed, why))?;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .build(connector);
        Ok(Self { client, uri, headers, name, bytes_max: remote.message_bytes_max })
    }

    /// Sends one request to `uri`, which must be of the same origin, with `protocol` headers beside
    /// the entry's.
    pub(crate) async fn send(
        &self,
        uri: &Uri,
        method: Method,
        protocol: &HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>, Unanswered> {
        let mut uri = uri.clone();
        for _hop in 0..=REDIRECTS_MAX {
            let mut request = Request::new(Full::new(body.clone()));
            *request.method_mut() = method.clone();
            *request.uri_mut() = uri.clone();
            request.headers_mut().clone_from(&self.headers);
            request.headers_mut().extend(protocol.clone());
            let response = self
                .client
                .request(request)
                .await
                .map_err(|error| Unanswered { why: self.told(&error), unsent: error.is_connect() })?;
            let answered = |why| Unanswered { why, unsent: false };
            match self.redirected(&uri, &response).map_err(answered)? {
                None => return Ok(response),
                Some(next) => uri = next,
            }
        }
        Err(Unanswered { why: format!("{} redirects without end", self.name), unsent: false })
    }

    fn redirected(&self, from: &Uri, response: &Response<Incoming>) -> Result<Option<Uri>, String> {
        let status = response.status();
        if !status.is_redirection() || status == StatusCode::NOT_MODIFIED {
            return Ok(None);
        }
        let keeps = matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
        let to = response.headers().get(header::LOCATION).and_then(|to| to.to_str().ok());
        match to.and_then(|to| resolve(from, to)) {
            Some(to) if keeps && same_origin(&to, from) => Ok(Some(to)),
            Some(to) if !same_origin(&to, from) => Err(format!(
                "{} redirects to {}, which is not followed; write the final URL into the entry",
                self.name,
                shown(&to)
            )),
            _ => Err(format!("{} redirects with HTTP status {}", self.name, status.as_u16())),
        }
    }

    /// The status of a GET of a path of the same origin; redirects are not followed.
    pub(crate) async fn status(&self, path: &str) -> Result<StatusCode, String> {
        let uri = resolve(&self.uri, path).filter(|uri| same_origin(uri, &self.uri));
        let uri = uri.ok_or_else(|| format!("{path:?} is no path at {}", self.name))?;
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.uri_mut() = uri;
        request.headers_mut().clone_from(&self.headers);
        let response = self.client.request(request).await.map_err(|error| self.told(&error))?;
        Ok(response.status())
    }

    /// What went wrong with a request, in one line.
    fn told(&self, error: &hyper_util::client::legacy::Error) -> String {
        let doing = if error.is_connect() { "connecting to" } else { "sending a request to" };
        format!("{doing} {} failed: {}", self.name, deepest(error))
    }

    /// The whole body of a response; an error says why there is none.
    pub(crate) async fn whole(&self, body: Incoming) -> Result<Bytes, String> {
        let limited = Limited::new(body, self.bytes_max);
        match limited.collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => {
                Err(format!("answer of {} is over the limit of {} bytes", self.name, self.bytes_max))
            }
            Err(error) => {
                Err(format!("reading the answer of {} failed: {}", self.name, deepest(error.as_ref())))
            }
        }
    }
}

/// The innermost cause: the outer ones only say that there was an error.
pub(crate) fn deepest(error: &(dyn Error + 'static)) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

/// Makes connections, with TLS if `secure`.
pub(crate) fn connector(timeout: Duration, secure: bool) -> Result<HttpsConnector<HttpConnector>, String> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(timeout));
    let provider = rustls::crypto::ring::default_provider();
    let builder = HttpsConnectorBuilder::new();
    let builder = if secure {
        builder.with_provider_and_native_roots(provider).map_err(|error| error.to_string())?
    } else {
        // Trusts nobody, and is asked for nothing.
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        builder.with_tls_config(config)
    };
    Ok(builder.https_or_http().enable_http1().wrap_connector(http))
}

/// A URL taken apart.
#[derive(Debug)]
pub(crate) struct Target {
    /// Without name and password.
    pub(crate) uri: Uri,
    /// Scheme, host and port, for people.
    pub(crate) name: String,
    /// Name and password, as the value of an `Authorization` header.
    pub(crate) basic: Option<HeaderValue>,
}

/// Takes a URL apart.
pub(crate) fn target(url: &str) -> Result<Target, WorldError> {
    let whole: Uri = url.parse().map_err(|_syntax| invalid("server", "its URL is not one"))?;
    let (Some(scheme), Some(authority)) = (whole.scheme_str(), whole.authority()) else {
        return Err(invalid("server", "its URL has no scheme or no host"));
    };
    let (user, host) = match authority.as_str().rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority.as_str()),
    };
    let path = whole.path_and_query().map_or("/", hyper::http::uri::PathAndQuery::as_str);
    let uri: Uri = format!("{scheme}://{host}{path}")
        .parse()
        .map_err(|_syntax| invalid("server", "the host in its URL is not one"))?;
    let basic = user.map(|user| {
        let user = if user.contains(':') { user.to_owned() } else { format!("{user}:") };
        HeaderValue::try_from(format!("Basic {}", crate::mcp::base64::encode(&unescaped(&user))))
    });
    let name = shown(&uri);
    let basic = basic.transpose().map_err(|_never| invalid(&name, "its user name is not one"))?;
    Ok(Target { uri, name, basic: basic.map(secret) })
}

fn secret(mut value: HeaderValue) -> HeaderValue {
    value.set_sensitive(true);
    value
}

/// Undoes percent escapes; a percent sign that begins none stays.
fn unescaped(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = (*first == b'%').then(|| tail.get(..2)).flatten();
        let code = code.and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

/// Scheme, host and port.
pub(crate) fn shown(uri: &Uri) -> String {
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let host = host.rsplit_once('@').map_or(host, |(_user, host)| host);
    format!("{}://{host}", uri.scheme_str().unwrap_or_default())
}

/// An entry's headers as they are sent.
pub(crate) fn headers(
    entry: &BTreeMap<String, String>,
    basic: Option<HeaderValue>,
) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    if let Some(basic) = basic {
        headers.insert(header::AUTHORIZATION, basic);
    }
    for (name, value) in entry {
        let name = HeaderName::try_from(name.as_str())
            .map_err(|_syntax| format!("header name {name:?} is not one"))?;
        if OURS.contains(&name.as_str()) || name.as_str().starts_with("mcp-param-") {
            continue;
        }
        let value = HeaderValue::try_from(value.as_str())
            .map_err(|_syntax| format!("value of header {name} holds characters that no header can"))?;
        headers.insert(name, secret(value));
    }
    Ok(headers)
}

pub(crate) fn invalid(name: &str, why: &str) -> WorldError {
    WorldError::new(format!("preparing the connection to {name}"), ErrorKind::Invalid, why)
}

/// The URL that `reference` means when it stands in a document at `base`.
pub(crate) fn resolve(base: &Uri, reference: &str) -> Option<Uri> {
    let (scheme, host) = (base.scheme_str()?, base.authority()?.as_str());
    let reference = reference.trim();
    let absolute =
        |scheme: &str| reference.get(..scheme.len()).is_some_and(|s| s.eq_ignore_ascii_case(scheme));
    let url = if absolute("http://") || absolute("https://") {
        reference.to_owned()
    } else if reference.starts_with("//") {
        format!("{scheme}:{reference}")
    } else if reference.starts_with('/') {
        format!("{scheme}://{host}{reference}")
    } else if reference.starts_with('?') {
        format!("{scheme}://{host}{}{reference}", base.path())
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _file)| folder);
        format!("{scheme}://{host}{folder}/{reference}")
    };
    url.parse().ok()
}

/// Whether two URLs have the same scheme, host and port.
pub(crate) fn same_origin(a: &Uri, b: &Uri) -> bool {
    let port =
        |uri: &Uri| uri.port_u16().or(if uri.scheme_str() == Some("https") { Some(443) } else { Some(80) });
    let host = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
    a.scheme() == b.scheme() && host(a) == host(b) && port(a) == port(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_and_hides_its_secrets() {
        let Target { uri, name, basic } =
            target("https://us%40er:p%3aw@Host.example:8443/a/TOKEN?k=SECRET#x").expect("a target");
        assert_eq!(uri.to_string(), "https://Host.example:8443/a/TOKEN?k=SECRET");
        assert_eq!(name, "https://Host.example:8443");
        assert_eq!(basic.expect("basic"), "Basic dXNAZXI6cDp3");
        for wrong in ["", "/path", "host:80", "http://", "http://a b/SECRET"] {
            let error = target(wrong).expect_err(wrong).to_string();
            assert!(!error.contains("SECRET"), "{error}");
        }
    }

    #[test]
    fn an_entry_cannot_set_what_is_ours() {
        let entry = BTreeMap::from([
            ("Mcp-Session-Id".to_owned(), "1".to_owned()),
            ("Transfer-Encoding".to_owned(), "chunked".to_owned()),
            ("X-Key".to_owned(), "k".to_owned()),
            ("authorization".to_owned(), "Bearer t".to_owned()),
        ]);
        let headers = headers(&entry, Some(HeaderValue::from_static("Basic eA=="))).expect("headers");
        assert_eq!(headers.len(), 2);
        assert_eq!(headers["authorization"], "Bearer t");
        assert!(!format!("{headers:?}").contains("Bearer"));
        let wrong = BTreeMap::from([("X-Key".to_owned(), "SEC\nRET".to_owned())]);
        assert!(super::headers(&wrong, None).is_err_and(|why| !why.contains("RET")));
    }

    #[test]
    fn references_are_resolved_and_origins_compared() {
        let base: Uri = "http://h.example:80/a/sse?x=1".parse().expect("uri");
        for (reference, expected) in [
            ("/messages?s=1", "http://h.example:80/messages?s=1"),
            ("messages", "http://h.example:80/a/messages"),
            ("?s=1", "http://h.example:80/a/sse?s=1"),
            ("//h.example/m", "http://h.example/m"),
            ("HTTP://H.EXAMPLE/m", "http://H.EXAMPLE/m"),
        ] {
            let uri = resolve(&base, reference).expect("resolved");
            assert_eq!(uri.to_string().to_lowercase(), expected.to_lowercase());
            assert!(same_origin(&uri, &base), "{reference}");
        }
        for other in
            ["https://h.example:80/", "//evil.example/", "http://h.example:81/m", "http://h.example.evil/"]
        {
            assert!(!same_origin(&resolve(&base, other).expect("resolved"), &base), "{other}");
        }
    }
}
