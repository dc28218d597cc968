//! The dashboard, and the API over the network: who may ask, under what headers, and which of the
//! two answers.
//!
//! ```text
//! /healthz /readyz /health /docs /openapi.json, assets   everybody
//! {path} …                                               pages, after the password
//! /api /servers /metrics                                 the API's table, after the password
//! /  /ui                                                 lead to the dashboard
//! ```
//! With `--no-dashboard` only probes, figures and the documents about them are left.
//!
//! Must never let a request through to what answers before [`access`] and [`guard`] admitted it, and
//! never answer without the headers of [`secure`].

pub mod access;
pub mod assets;
pub mod figures;
pub mod guard;
mod pages;
mod squeeze;
pub mod tools;

use crate::api::figures::Figures;
use crate::api::{self, Caller, Context};
use crate::gateway::beside::Beside;
use crate::gateway::body::{self, Body, Refusal, Response};
use crate::gateway::http::Request;
use crate::model::record::AuditEntry;
use access::{Access, Refused};
use http_body_util::{BodyExt as _, Full};
use hyper::header::{
    AUTHORIZATION, CACHE_CONTROL, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::{Method, StatusCode};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Whoever needs no password.
const NOBODY: &str = "nobody";
/// What a browser asks for a password with.
const CHALLENGE: HeaderValue = HeaderValue::from_static(r#"Basic realm="mcp-orchestrator", charset="UTF-8""#);
/// Pages may load what this binary has, and talk to this host; nothing inline, nothing framed.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// Headers of every answer, whatever it says.
const SECURE: &[(&str, &str)] = &[
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
];
/// Longest path and query that a log line repeats.
const PATH_CHARS_MAX: usize = 200;

type Routes = Arc<dyn Fn(hyper::Request<Full<bytes::Bytes>>) -> Answer + Send + Sync>;
type Answer = Pin<Box<dyn Future<Output = api::Response> + Send>>;

/// What the main listener serves beside MCP.
pub struct Panel {
    access: Access,
    context: Context,
    /// `[dashboard] path`.
    path: String,
    /// False with `--no-dashboard`.
    dashboard: bool,
    routes: Routes,
    /// Tells requests of this process from those of others, and from each other.
    run: u32,
    requests: AtomicU64,
}

impl std::fmt::Debug for Panel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Panel")
            .field("path", &self.path)
            .field("dashboard", &self.dashboard)
            .finish_non_exhaustive()
    }
}

/// Where a path leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The dashboard's own pages.
    Page,
    /// A file of ours.
    Asset,
    /// The API's document for people.
    Docs,
    /// The API's table.
    Api,
    /// Whatever needs no password in the API's table.
    Open,
    /// To the dashboard.
    Lead,
}

impl Panel {
    /// A panel. `run` is random.
    #[must_use]
    pub fn new(context: Context, access: Access, path: &str, run: u32) -> Self {
        let service = warp::service(api::routes(context.clone()));
        let routes: Routes = Arc::new(move |request| {
            let answer = tower_service::Service::call(&mut service.clone(), request);
            Box::pin(async move { answer.await.unwrap_or_else(|never| match never {}) })
        });
        let dashboard = context.about.dashboard;
        Self { access, context, path: path.to_owned(), dashboard, routes, run, requests: AtomicU64::new(0) }
    }

    /// Who may come in.
    #[must_use]
    pub const fn access(&self) -> &Access {
        &self.access
    }

    /// What is counted.
    #[must_use]
    pub fn figures(&self) -> &Figures {
        &self.context.figures
    }

    fn place(&self, path: &str) -> Option<Place> {
        let below =
            |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        match path {
            "/readyz" => return Some(Place::Open),
            "/openapi.json" => return Some(Place::Open),
            "/docs" => return Some(Place::Docs),
            "/metrics" => return Some(Place::Api),
            _ if path.starts_with("/assets/") => return Some(Place::Asset),
            _ if !self.dashboard => return None,
            "/health" => return Some(Place::Open),
            "/" | "/ui" | "/ui/" => return Some(Place::Lead),
            _ => {}
        }
        if below("/api") || below("/servers") {
            Some(Place::Api)
        } else {
            below(&self.path).then_some(Place::Page)
        }
    }

    fn number(&self) -> String {
        format!("{:08x}-{:x}", self.run, self.requests.fetch_add(1, Ordering::Relaxed))
    }

    /// The headers of every answer; `kept` for what never changes under its name.
    fn secure(&self, response: Response, kept: bool) -> Response {
        secured(response, kept, Some(&self.number()))
    }

    fn refuse(&self, request: &Request, why: Refused) -> Refusal {
        let (status, title, detail, code) = match why {
            Refused::Missing => (
                StatusCode::UNAUTHORIZED,
                "a password is needed",
                "sign in with Basic, or send the password as a Bearer token".to_owned(),
                "MCPO-H010",
            ),
            Refused::Wrong => (
                StatusCode::UNAUTHORIZED,
                "a password is needed",
                "user name or password is wrong".to_owned(),
                "MCPO-H010",
            ),
            Refused::Wait(left) => {
                let secs = left.as_secs() + u64::from(left.subsec_nanos() > 0);
                (
                    StatusCode::TOO_MANY_REQUESTS,
                    "too many wrong passwords",
                    format!("no more are looked at for {secs} s"),
                    "MCPO-H011",
                )
            }
        };
        if why == Refused::Wrong {
            tracing::warn!(MCP_ERROR_CODE = code, "somebody at {} gave a wrong password", request.peer.ip());
            self.context.figures.refused();
            self.context.recorder.note(AuditEntry {
                by: request.peer.ip().to_string(),
                via: "http".to_owned(),
                what: "sign in".to_owned(),
                result: "refused".to_owned(),
                code: Some(code.to_owned()),
                ..AuditEntry::default()
            });
        }
        let mut response = self.secure(body::problem(status, code, title, detail), false);
        match why {
            Refused::Wait(left) => {
                if let Ok(secs) = HeaderValue::from_str(&(left.as_secs() + 1).to_string()) {
                    response.headers_mut().insert(RETRY_AFTER, secs);
                }
            }
            Refused::Missing | Refused::Wrong => {
                response.headers_mut().insert(WWW_AUTHENTICATE, CHALLENGE);
            }
        }
        Box::new(response)
    }

    fn foreign(&self, why: guard::Refused) -> Refusal {
        let (status, code, detail) = match why {
            guard::Refused::Foreign => {
                (StatusCode::FORBIDDEN, "MCPO-H012", "a page of another site sent this request")
            }
            guard::Refused::NoOwnHeader => {
                (StatusCode::FORBIDDEN, "MCPO-H012", "a browser's writes have the header X-MCP-Orchestrator")
            }
            guard::Refused::NotJson => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "MCPO-H013", "a body is application/json")
            }
        };
        Box::new(self.secure(body::problem(status, code, "not like this", detail), false))
    }
}

impl Beside for Panel {
    fn serves(&self, path: &str) -> bool {
        self.place(path).is_some()
    }

    fn is_near_only(&self) -> bool {
        self.context.about.default_password
    }

    fn is_probe(&self, path: &str) -> bool {
        matches!(path, "/readyz" | "/health")
    }

    fn admit(&self, request: &mut Request) -> Result<Arc<str>, Refusal> {
        let credentials = request.headers.remove(AUTHORIZATION);
        guard::check(&request.method, &request.uri, &request.headers).map_err(|why| self.foreign(why))?;
        match self.place(request.path()) {
            Some(Place::Page | Place::Api) => {
                let header = credentials.as_ref().map(|value| value.to_str().unwrap_or_default());
                self.access.check(header, request.peer.ip()).map_err(|why| self.refuse(request, why))
            }
            _ => Ok(Arc::from(NOBODY)),
        }
    }

    fn handle(&self, request: Request, who: Arc<str>) -> Pin<Box<dyn Future<Output = Response> + Send>> {
        let place = self.place(request.path());
        let kept = place == Some(Place::Asset);
        let number = self.number();
        let secure = |response| secured(response, kept, Some(&number));
        let reads = matches!(request.method, Method::GET | Method::HEAD);
        let small = squeeze::reads_gzip(&request.headers);
        let ready = |response| -> Pin<Box<dyn Future<Output = Response> + Send>> {
            Box::pin(std::future::ready(response))
        };
        tracing::debug!(
            user = %who,
            request = number,
            "{} {}",
            request.method,
            request.path().chars().take(PATH_CHARS_MAX).collect::<String>()
        );
        match place {
            Some(Place::Api | Place::Open) => {
                let via = if request.headers.contains_key(guard::OWN_HEADER) { "dashboard" } else { "http" };
                let answer = (self.routes)(over(request, &who, via));
                let headers = secure(body::empty(StatusCode::OK)).into_parts().0.headers;
                Box::pin(async move { dressed(answer.await, headers).await })
            }
            _ if !reads => {
                let mut response = body::empty(StatusCode::METHOD_NOT_ALLOWED);
                response.headers_mut().insert(hyper::header::ALLOW, HeaderValue::from_static("GET, HEAD"));
                ready(secure(response))
            }
            Some(Place::Asset) => {
                let name = request.path().trim_start_matches("/assets/");
                ready(secure(assets::find(name).map_or_else(nothing, |asset| file(asset, small))))
            }
            Some(Place::Lead) => ready(secure(lead(&self.path))),
            Some(Place::Docs) => {
                let text = pages::docs::page(&self.path, self.dashboard);
                ready(secure(squeeze::squeezed(page(StatusCode::OK, text), small, None)))
            }
            Some(Place::Page) => {
                let asked = pages::Asked {
                    context: self.context.clone(),
                    base: self.path.clone(),
                    rest: request.path().strip_prefix(self.path.as_str()).unwrap_or_default().to_owned(),
                    query: request.query().unwrap_or_default().to_owned(),
                    who: who.to_string(),
                };
                let headers = secure(body::empty(StatusCode::OK)).into_parts().0.headers;
                Box::pin(async move {
                    let (status, text) = pages::answer(asked).await;
                    let mut response = squeeze::squeezed(page(status, text), small, None);
                    response.headers_mut().extend(headers);
                    response
                })
            }
            None => ready(secure(nothing())),
        }
    }
}

/// The headers of every answer; `kept` for what never changes under its name.
fn secured(mut response: Response, kept: bool, number: Option<&str>) -> Response {
    let headers = response.headers_mut();
    for (name, value) in SECURE {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let keep = if kept { "public, max-age=31536000, immutable" } else { "no-store" };
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(keep));
    if let Some(Ok(number)) = number.map(HeaderValue::from_str) {
        headers.insert(HeaderName::from_static("x-request-id"), number);
    }
    response
}

/// A request as the API's routes take it.
fn over(request: Request, who: &str, via: &'static str) -> hyper::Request<Full<bytes::Bytes>> {
    let mut over = hyper::Request::new(Full::new(request.body));
    *over.method_mut() = request.method;
    *over.uri_mut() = request.uri;
    *over.headers_mut() = request.headers;
    over.extensions_mut().insert(Caller { who: who.to_owned(), via, may_say_who: false });
    over
}

/// The API's answer under our headers.
async fn dressed(answer: api::Response, headers: hyper::HeaderMap) -> Response {
    let (mut parts, content) = answer.into_parts();
    // A list may be kept by whoever asks each time whether it is still the same.
    let kept = parts.headers.remove(CACHE_CONTROL);
    parts.headers.extend(headers);
    kept.map(|kept| parts.headers.insert(CACHE_CONTROL, kept));
    if hyper::body::Body::size_hint(&content).exact().is_some() {
        // It is all there: sent with its length.
        let all = content.collect().await.map(|all| all.to_bytes()).unwrap_or_default();
        return Response::from_parts(parts, Body::Full(all));
    }
    // A stream that breaks off ends: its client asks again.
    let content = futures_util::StreamExt::filter_map(content.into_data_stream(), |data| {
        std::future::ready(data.ok().map(|data| Ok(hyper::body::Frame::data(data))))
    });
    Response::from_parts(parts, Body::Other(http_body_util::StreamBody::new(content).boxed_unsync()))
}

fn page(status: StatusCode, text: String) -> Response {
    let mut response = body::text(status, text);
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, html);
    response
}

fn file(asset: &'static assets::Asset, small: bool) -> Response {
    let mut response = body::text(StatusCode::OK, asset.text.as_str());
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, HeaderValue::from_static(asset.kind));
    squeeze::squeezed(response, small, Some(asset.small.clone()))
}

fn lead(to: &str) -> Response {
    let mut response = body::empty(StatusCode::SEE_OTHER);
    if let Ok(to) = HeaderValue::from_str(to) {
        response.headers_mut().insert(LOCATION, to);
    }
    response
}

fn nothing() -> Response {
    body::problem(StatusCode::NOT_FOUND, "MCPO-H404", "nothing is here", "/docs describes every route")
}
