//! Requests from the network, put to the kinds of clients.
//!
//! ```text
//! /healthz  /healthz/{id}          200 while the server is well enough for requests, as its checkup has it;
//!                                  on its own port without id
//! /readyz                          200 and the generation of the files once servers are served; 503 while
//!                                  this host is drained
//! /mcp/{id}  /mcp/{id}/  …/mcp     POST, GET, DELETE: streamable HTTP of both eras
//! /mcp  /mcp/~{section}            the same for all servers as one; also /mcp?section=…
//! /mcp/{id}/sse  …/messages        the pair of 2024-11-05
//! /openapi …                      tools over HTTP, see [`toolproxy`]; on a port of its own at the root
//! ```
//! On a server's own port other servers do not exist. Must never look at a request before the
//! guard admitted it, probes excepted.

use crate::gateway::beside::Beside;
use crate::gateway::body::Refusal as Boxed;
use crate::gateway::body::{self, Response};
use crate::gateway::combined::{self, All, View};
use crate::gateway::guard::{Guard, Known, Principal, cors, is_probe};
use crate::gateway::http::tls::Tls;
use crate::gateway::http::{Entry as Way, Front, Request};
use crate::gateway::hub::Entry;
use crate::gateway::lens::Lens;
use crate::gateway::origin::{self, Door, Origin};
use crate::gateway::toolproxy::{self, Below, ToolProxy};
use crate::gateway::{Ask, Gateway, is_known, legacy, modern, not_allowed, old, refused};
use crate::mcp::front::{self, Class, Head, Refusal};
use crate::mcp::wire::{BadMessage, id_of, read};
use crate::model::id::ServerId;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, StatusCode};
use std::sync::Arc;

/// The gateway behind a guard.
#[derive(Debug)]
pub struct GatewayFront {
    /// What answers.
    pub gateway: Arc<Gateway>,
    /// Who is let in.
    pub guard: Arc<Guard>,
    /// Tools for clients that know no MCP.
    pub tools: Arc<ToolProxy>,
    /// What the main listener serves beside MCP.
    pub beside: std::sync::OnceLock<Arc<dyn Beside>>,
    /// How the main listener is encrypted.
    pub tls: Arc<Tls>,
}

/// Where an admitted request goes.
#[derive(Clone, Debug)]
pub enum Target {
    /// A probe.
    Health(Arc<Entry>),
    /// A server's endpoint, of its parts, for this principal.
    Server(Arc<Entry>, Part, Principal),
    /// The endpoint of all servers or those of a section, for this principal.
    Combined(View, Principal),
    /// The tool proxy, below its root, for this principal.
    Tools(Below, Principal),
    /// What is served beside MCP, for this user.
    Beside(Arc<dyn Beside>, Arc<str>),
}

/// The parts of a server's endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Streamable HTTP.
    Mcp,
    /// The event stream of 2024-11-05.
    Sse,
    /// What is posted beside it.
    Messages,
}

impl GatewayFront {
    fn target(&self, request: &mut Request) -> Result<Target, Boxed> {
        let path = request.path().to_owned();
        let own = match &*request.entry {
            Way::Edge(id) => Some(id.clone()),
            Way::Main | Way::Shared | Way::Tools => None,
        };
        if *request.entry == Way::Main
            && let Some(beside) = self.beside.get().filter(|beside| beside.serves(&path))
        {
            if !beside.is_probe(&path) {
                self.guard.check_name(request)?;
            }
            let who = beside.admit(request)?;
            return Ok(Target::Beside(Arc::clone(beside), who));
        }
        if is_probe(request) && !matches!(request.method, Method::GET | Method::HEAD) {
            return Err(Box::new(not_allowed("GET, HEAD")));
        }
        if path == "/readyz" {
            return Err(Box::new(ready(self.gateway.generation(), self.gateway.drained())));
        }
        if let Some(rest) = path.strip_prefix("/healthz") {
            let id = match (rest, own) {
                ("", Some(id)) => Some(id),
                ("", None) => return Err(Box::new(body::text(StatusCode::OK, "ok\n"))),
                (rest, _) => rest.strip_prefix('/').and_then(|id| ServerId::new(id).ok()),
            };
            return id.and_then(|id| self.gateway.entry(&id)).map(Target::Health).ok_or_else(nothing_here);
        }
        if let Some(below) = self.tools.below(&request.entry, &path) {
            let admitted = self.tools.admit(&self.guard, request);
            let principal = admitted.inspect_err(|answer| self.note_refused(request, answer))?;
            return Ok(Target::Tools(below, principal));
        }
        let admitted = self.guard.admit(request);
        let principal = admitted.inspect_err(|answer| self.note_refused(request, answer))?;
        if own.is_none()
            && let Some(view) = self.view(request, &path)?
        {
            return Ok(Target::Combined(view, principal));
        }
        let rest = path.strip_prefix("/mcp/").ok_or_else(nothing_here)?;
        let (id, part) = match rest.split_once('/') {
            None | Some((_, "" | "mcp" | "mcp/")) => (rest.split('/').next().unwrap_or_default(), Part::Mcp),
            Some((id, "sse" | "sse/")) => (id, Part::Sse),
            Some((id, "messages" | "messages/")) => (id, Part::Messages),
            Some(_) => return Err(nothing_here()),
        };
        let id = ServerId::new(id).ok().filter(|id| own.is_none_or(|own| own == *id));
        let entry = id.and_then(|id| self.gateway.entry(&id)).ok_or_else(no_such_server)?;
        let section = entry.slot.place().and_then(|place| place.offer.section.clone());
        if !principal.grant.admits_server(&entry.slot.id, section.as_ref()) {
            let door = door_of(request);
            let about = (Some(entry.slot.id.clone()), named(request));
            self.gateway.calls.refused(&principal.name, door, about);
            return Err(not_granted(self.guard.insufficient(request, entry.slot.id.as_str())));
        }
        Ok(Target::Server(entry, part, principal))
    }

    /// Somebody known may not come in: that is part of who called what.
    fn note_refused(&self, request: &Request, answer: &Response) {
        if let Some(Known(who)) = answer.extensions().get::<Known>() {
            let path = request.path();
            let below = path.strip_prefix("/mcp/").or_else(|| path.strip_prefix("/openapi/"));
            let id = below.and_then(|rest| ServerId::new(rest.split('/').next()?).ok());
            let server = id.and_then(|id| self.gateway.entry(&id)).map(|entry| entry.slot.id.clone());
            self.gateway.calls.refused(who, door_of(request), (server, named(request)));
        }
    }

    /// The servers that a path and query name together; `None` when they name one, or none.
    fn view(&self, request: &Request, path: &str) -> Result<Option<View>, Boxed> {
        let rest = path.strip_prefix("/mcp").unwrap_or("no");
        let named = match rest.strip_prefix("/~") {
            Some(section) => Some(section.strip_suffix('/').unwrap_or(section).to_owned()),
            None if rest.is_empty() || rest == "/" => {
                let query = request.query().unwrap_or_default();
                query.split('&').find_map(|pair| pair.strip_prefix("section=")).map(str::to_owned)
            }
            None => return Ok(None),
        };
        let view = match named {
            None => View::new(None),
            Some(name) => View::new(Some(combined::section(&name).ok_or_else(no_such_section)?)),
        };
        if view.exists(&self.gateway) { Ok(Some(view)) } else { Err(no_such_section()) }
    }
}

/// By which way a request came, before anybody looked into it.
fn door_of(request: &Request) -> Door {
    let path = request.path();
    match &*request.entry {
        Way::Edge(_) => Door::Port,
        Way::Tools => Door::OpenApi,
        Way::Main | Way::Shared if path.starts_with("/openapi") => Door::OpenApi,
        Way::Main | Way::Shared => {
            let of_one =
                path.strip_prefix("/mcp/").is_some_and(|rest| !rest.starts_with('~') && !rest.is_empty());
            if of_one { Door::Mcp } else { Door::All }
        }
    }
}

/// What its client, or a proxy, calls a request.
fn named(request: &Request) -> Option<Box<str>> {
    origin::named(&request.headers)
}

fn ready(generation: u64, drained: bool) -> Response {
    if drained {
        let detail = "this host is drained: send requests elsewhere";
        return body::problem(StatusCode::SERVICE_UNAVAILABLE, "MCPO-G024", "not ready", detail);
    }
    if generation == 0 {
        let detail = "the first pass has not ended, or no configuration could be used yet";
        return body::problem(StatusCode::SERVICE_UNAVAILABLE, "MCPO-G024", "not ready yet", detail);
    }
    body::json(StatusCode::OK, format!(r#"{{"status":"ready","generation":{generation}}}"#))
}

fn nothing_here() -> Boxed {
    let detail = "MCP servers are at /mcp/{id}";
    Box::new(body::problem(StatusCode::NOT_FOUND, "MCPO-G022", "nothing is here", detail))
}

fn no_such_section() -> Boxed {
    let detail = "no server is in a section of this name";
    Box::new(body::problem(StatusCode::NOT_FOUND, "MCPO-H002", "no such section", detail))
}

fn not_granted(challenge: HeaderValue) -> Boxed {
    let detail = "the token does not cover this server";
    let mut response = body::problem(StatusCode::FORBIDDEN, "MCPO-G005", "not granted", detail);
    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    Box::new(response)
}

fn no_such_server() -> Boxed {
    let detail = "no server with this id is configured";
    Box::new(body::problem(StatusCode::NOT_FOUND, "MCPO-H002", "no such server", detail))
}

impl Front for GatewayFront {
    type Pass = Target;

    async fn prepare(&self, request: &Request) {
        self.guard.prepare(request).await;
    }

    fn admit(&self, request: &mut Request) -> Result<Target, Boxed> {
        self.target(request)
    }

    async fn handle(self: Arc<Self>, request: Request, target: Target) -> Response {
        match target {
            Target::Health(entry) => health(&self.gateway, &entry).await,
            Target::Beside(beside, who) => beside.handle(request, who).await,
            Target::Combined(view, Principal { name, grant }) => {
                let names = view.forwarded(&self.gateway);
                let origin = Origin::new(&name, Door::All);
                let origin = origin.with_headers(&request.headers, &names, &self.gateway.seal_key);
                let all = All {
                    gateway: &self.gateway,
                    view: &view,
                    head: &head(&request.headers),
                    principal: &origin.identity,
                    origin: &origin,
                    grant: &grant,
                    body: &request.body,
                };
                let mut answer = combined::endpoint(&all, &request.method).await;
                cors::let_read(&mut answer, &request.headers);
                answer
            }
            Target::Tools(below, who) => {
                let locked = self.guard.wants_tokens();
                let (gateway, headers) = (&self.gateway, &request.headers);
                let asked = toolproxy::Asked { gateway, below: &below, locked, who: &who, headers };
                let mut answer = self.tools.answer(&asked, &request).await;
                cors::let_read(&mut answer, &request.headers);
                answer
            }
            Target::Server(entry, part, principal) => {
                let head = head(&request.headers);
                let lens = Lens::alone(&entry, &principal.grant);
                let offer = entry.slot.place().map(|place| Arc::clone(&place.offer)).unwrap_or_default();
                let door = if matches!(*request.entry, Way::Edge(_)) { Door::Port } else { Door::Mcp };
                let origin = Origin::new(&principal.name, door);
                let names = &offer.forward_headers;
                let origin = origin.with_headers(&request.headers, names, &self.gateway.seal_key);
                let ask = Ask {
                    gateway: &self.gateway,
                    entry: &entry,
                    head: &head,
                    principal: &origin.identity,
                    origin: &origin,
                    body: &request.body,
                    lens: lens.as_ref(),
                };
                let mut answer = match part {
                    Part::Mcp => endpoint(&ask, &request.method).await,
                    Part::Sse if request.method == Method::GET => old::open(&ask),
                    // Some clients try the newer transport at the address of the older one first.
                    Part::Sse => not_allowed("GET"),
                    Part::Messages => messages(&ask, &request).await,
                };
                if answer.status().is_client_error() || answer.status().is_server_error() {
                    entry.metrics.refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
                cors::let_read(&mut answer, &request.headers);
                answer
            }
        }
    }
}

async fn health(gateway: &Gateway, entry: &Entry) -> Response {
    match entry.any_health(gateway).await {
        Ok(()) => body::text(StatusCode::OK, "ok\n"),
        Err(why) => {
            body::problem(StatusCode::SERVICE_UNAVAILABLE, "MCPO-G021", "the server does not answer", why)
        }
    }
}

/// The headers that matter.
fn head(headers: &HeaderMap) -> Head<'_> {
    let get = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let params = headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().strip_prefix("mcp-param-")?, value.to_str().ok()?)))
        .collect();
    Head {
        content_type: headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()),
        accept: headers.get(ACCEPT).and_then(|value| value.to_str().ok()),
        protocol_version: get("mcp-protocol-version"),
        session: get("mcp-session-id"),
        mcp_method: get("mcp-method"),
        mcp_name: get("mcp-name"),
        last_event_id: get("last-event-id"),
        params,
    }
}

async fn endpoint(ask: &Ask<'_>, method: &Method) -> Response {
    if !is_known(method) {
        return not_allowed("POST, GET, DELETE");
    }
    if *method == Method::POST {
        return post(ask).await;
    }
    // The modern era has neither; without a session there is nothing to listen to or to end.
    let modern = ask.head.protocol_version.is_some_and(front::is_modern_version);
    if modern || (ask.head.session.is_none() && *method == Method::DELETE) {
        return not_allowed("POST");
    }
    if *method == Method::GET { legacy::get(ask) } else { legacy::delete(ask) }
}

async fn post(ask: &Ask<'_>) -> Response {
    ask.entry
        .metrics
        .bytes_in
        .fetch_add(u64::try_from(ask.body.len()).unwrap_or(u64::MAX), std::sync::atomic::Ordering::Relaxed);
    if let Err(refusal) =
        front::check_content_type(ask.head).and_then(|()| front::check_accept_post(ask.head))
    {
        return refused(None, &refusal);
    }
    match read(ask.body) {
        Ok(message) => match front::classify(ask.head, &message) {
            Class::Modern => modern::post(ask, message).await,
            Class::Legacy => legacy::post(ask, message).await,
        },
        Err(BadMessage::Batch) => legacy::batch::post(ask).await,
        Err(error) => refused(id_of(ask.body), &Refusal::new(400, error.code(), error.to_string())),
    }
}

async fn messages(ask: &Ask<'_>, request: &Request) -> Response {
    if request.method != Method::POST {
        return not_allowed("POST");
    }
    if let Err(refusal) = front::check_content_type(ask.head) {
        return refused(None, &refusal);
    }
    let query = request.query().unwrap_or_default();
    let id = query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        matches!(key, "session_id" | "sessionId").then_some(value)
    });
    match (id, read(ask.body)) {
        (None, _) => {
            refused(None, &Refusal::new(400, crate::mcp::wire::INVALID_REQUEST, "session_id is missing"))
        }
        (Some(_), Err(error)) => {
            refused(id_of(ask.body), &Refusal::new(400, error.code(), error.to_string()))
        }
        (Some(id), Ok(message)) => old::post(ask, id, message).await,
    }
}
