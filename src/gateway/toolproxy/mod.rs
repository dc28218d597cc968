//! Tools for clients that know HTTP and OpenAPI but no MCP, in the layout of mcpo.
//!
//! ```text
//! POST /openapi/{id}/{tool}              a call; {id} is the server's id, or its name in the file
//! GET  /openapi/{id}/openapi.json        the document of a server, as it is now
//!      /openapi/{id}/docs                the same for people
//!      /openapi/{id}/tools               the tools as the server describes them
//!      /openapi/{id}/resources[/read?uri=…]   /openapi/{id}/prompts[/{name}?argument=…]
//!      /openapi/openapi.json  /openapi/docs   all servers
//! ```
//! On `[openapi] port` the same stands at the root, or below [`Mount::prefix`]; a server also at the path that
//! its entry gives it (`orchestrator.openapiPath`). What is not there is told as mcpo's clients know it:
//! `{"detail": …}`.
//!
//! Must never call a tool twice unless `orchestrator.retry` asks for it where that is safe, and never let a server that does not answer hold up the others.

mod call;
mod events;
mod read;
#[cfg(test)]
mod tests;

use crate::gateway::body::{self, Refusal, Response};
use crate::gateway::call::Failed;
use crate::gateway::guard::key::Key;
use crate::gateway::guard::{Guard, Principal};
use crate::gateway::http::{Entry as Way, Request};
use crate::gateway::hub::Entry;
use crate::gateway::lens::Lens;
use crate::gateway::lists::{ListKind, Listed};
use crate::gateway::origin::{Door, Origin};
use crate::gateway::places::Down;
use crate::gateway::slot::{LATE, Live, Unavailable};
use crate::gateway::{Gateway, come_again, legacy};
use crate::model::id::ServerId;
use crate::openapi::answer::{self, Answer, UNUSABLE};
use crate::upstream::error::CallError;
use hyper::header::{HeaderName, HeaderValue, LOCATION};
use hyper::{Method, StatusCode};
use serde_json::json;
use std::fmt;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

/// Where it is on the main listener.
pub const ROOT: &str = "/openapi";
/// Wait for the list of the one server that somebody asks for.
const LIST_WITHIN: Duration = crate::gateway::hub::LIST_SILENCE_MAX;
/// Wait for the lists of all servers, for all of them together.
const INDEX_WITHIN: Duration = Duration::from_millis(1500);
/// Seconds after which a server that has too much to do may be asked again.
const BUSY_SECS: u64 = 1;
/// Which declaration of the server answered.
const SPEC: HeaderName = HeaderName::from_static("x-mcp-spec-hash");
/// Which server answered.
const SERVER: HeaderName = HeaderName::from_static("x-mcp-server");

/// The server cannot be reached now.
const UNAVAILABLE: &str = "MCPO-G062";
/// It did not answer in time.
const TIMED_OUT: &str = "MCPO-G063";
/// It went away before it answered.
const WENT_AWAY: &str = "MCPO-G064";
/// It has too much to do.
const BUSY: &str = "MCPO-G065";

/// Where a request stands below the root of the tool proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Below {
    /// The root, as clients have to write it: [`ROOT`], nothing, or what [`Mount`] says.
    pub base: String,
    /// The decoded path below it, without its first `/`.
    pub path: String,
}

/// Where the tool proxy is on its own port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// Servers are below this path (`[openapi] path_prefix`); empty, or such as `/tools`.
    pub prefix: String,
    /// What a proxy in front cuts off before it (`[openapi] root_path`); empty, or such as `/gateway`.
    pub root: String,
}

impl Mount {
    /// Where a decoded path stands. One that the proxy in front left whole counts like one that it cut;
    /// one beside the prefix begins with a `/`, which nothing there does.
    fn below(&self, path: &str) -> Below {
        let path = within(path, &self.root).unwrap_or(path);
        let of_all = |rest: &&str| matches!(*rest, "" | "docs" | "redoc" | "openapi.json");
        let rest = match (within(path, &self.prefix), path.strip_prefix('/')) {
            (Some(rest), _) => rest.strip_prefix('/').unwrap_or(rest),
            // What is of all servers mcpo leaves at the root.
            (None, rest) => rest.filter(of_all).unwrap_or(path),
        };
        Below { base: format!("{}{}", self.root, self.prefix), path: rest.to_owned() }
    }
}

/// What of a path follows a beginning of whole steps.
fn within<'p>(path: &'p str, beginning: &str) -> Option<&'p str> {
    path.strip_prefix(beginning).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Pages for people, made elsewhere.
pub trait Pages: fmt::Debug + Send + Sync {
    /// The page of one server, or of all.
    fn page(&self, page: &Page) -> Response;
    /// A file that pages need.
    fn asset(&self, name: &str) -> Option<Response>;
}

/// What a page shows.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Where the tool proxy's root is.
    pub base: String,
    /// One server with its tools, or all with their number.
    pub servers: Vec<ServerPage>,
    /// Whether it is the page of all.
    pub index: bool,
}

/// A server on a page.
#[derive(Clone, Debug, Default)]
pub struct ServerPage {
    /// Its id.
    pub id: String,
    /// Where it is below the root.
    pub path: String,
    /// Its name in the file.
    pub name: String,
    /// What it says it is, with its version.
    pub title: String,
    /// What it says of itself.
    pub about: String,
    /// Why its tools are not known.
    pub why: Option<String>,
    /// The declaration that answers.
    pub spec: String,
    /// Its tools.
    pub tools: Vec<ToolPage>,
}

/// A tool on a page.
#[derive(Clone, Debug, Default)]
pub struct ToolPage {
    /// Where it is called.
    pub path: String,
    /// What it is about.
    pub description: String,
    /// The schema of its arguments.
    pub schema: String,
    /// Arguments to begin with; empty when it takes none.
    pub example: String,
}

/// The tool proxy.
#[derive(Debug, Default)]
pub struct ToolProxy {
    key: RwLock<Option<Key>>,
    mount: RwLock<Mount>,
    pages: OnceLock<Arc<dyn Pages>>,
}

/// A request that was let in.
#[derive(Debug)]
pub struct Asked<'a> {
    /// Where servers are.
    pub gateway: &'a Arc<Gateway>,
    /// What it is for.
    pub below: &'a Below,
    /// Whether clients need a token.
    pub locked: bool,
    /// Whose it is.
    pub who: &'a Principal,
    /// Its headers.
    pub headers: &'a hyper::HeaderMap,
}

impl Asked<'_> {
    /// What its sender sees of a server; `None` when that is all.
    fn lens(&self, entry: &Entry) -> Option<Arc<Lens>> {
        Lens::alone(entry, &self.who.grant)
    }

    /// Where it came from, as far as a server is concerned.
    fn origin(&self, entry: &Entry) -> Origin {
        let offer = entry.slot.place().map(|place| Arc::clone(&place.offer)).unwrap_or_default();
        let origin = Origin::new(&self.who.name, Door::OpenApi);
        origin.with_headers(self.headers, &offer.forward_headers, &self.gateway.seal_key)
    }

    /// Notes a call that its sender may not make.
    fn refused_call(&self, entry: &Entry, tool: &str) {
        entry.metrics.refused_call(&self.origin(entry), ("tools/call", tool), None);
    }

    /// Whether its sender may use a server.
    fn admits(&self, entry: &Entry) -> bool {
        let section = entry.slot.place().and_then(|place| place.offer.section.clone());
        self.who.grant.admits_server(&entry.slot.id, section.as_ref())
    }
}

impl ToolProxy {
    /// With a key that opens it.
    #[must_use]
    pub fn new(key: Option<Key>) -> Self {
        Self { key: RwLock::new(key), ..Self::default() }
    }

    /// Changes the key, for requests from now on.
    pub fn set_key(&self, key: Option<Key>) {
        *self.key.write().unwrap_or_else(PoisonError::into_inner) = key;
    }

    /// Changes where it is, for requests from now on.
    pub fn set_mount(&self, mount: Mount) {
        *self.mount.write().unwrap_or_else(PoisonError::into_inner) = mount;
    }

    /// Where a decoded path stands; `None` when it is not the tool proxy's.
    #[must_use]
    pub fn below(&self, way: &Way, path: &str) -> Option<Below> {
        match way {
            Way::Main => {
                let rest = within(path, ROOT)?;
                let path = rest.strip_prefix('/').unwrap_or(rest).to_owned();
                Some(Below { base: ROOT.to_owned(), path })
            }
            Way::Tools => Some(self.mount.read().unwrap_or_else(PoisonError::into_inner).below(path)),
            Way::Edge(_) | Way::Shared => None,
        }
    }

    /// Says who makes pages; the first time counts.
    pub fn set_pages(&self, pages: Arc<dyn Pages>) {
        let _first = self.pages.set(pages);
    }

    fn has_key(&self) -> bool {
        self.key.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Whose request it is.
    ///
    /// # Errors
    /// The answer instead.
    pub fn admit(&self, guard: &Guard, request: &mut Request) -> Result<Principal, Refusal> {
        let key = self.key.read().unwrap_or_else(PoisonError::into_inner).clone();
        guard.admit_to_tools(request, key.as_ref())
    }

    /// Answers.
    pub async fn answer(&self, asked: &Asked<'_>, request: &Request) -> Response {
        let (base, path) = (asked.below.base.as_str(), asked.below.path.as_str());
        let reads = matches!(request.method, Method::GET | Method::HEAD);
        let (first, rest) = path.split_once('/').unwrap_or((path, ""));
        match (first, rest) {
            ("" | "docs" | "redoc" | "openapi.json", "") if !reads => not_allowed("GET, HEAD"),
            ("", "") => lead(&format!("{base}/docs")),
            ("docs" | "redoc", "") => self.index_page(asked).await,
            ("openapi.json", "") => self.index(asked).await,
            ("assets", name) if reads && self.asset(name).is_some() => {
                self.asset(name).unwrap_or_else(not_found)
            }
            _ => match find(asked.gateway, path) {
                Some((entry, rest)) if asked.admits(&entry) => {
                    self.of_server(asked, &entry, (rest, request)).await
                }
                Some((entry, rest)) => {
                    if request.method == Method::POST {
                        asked.refused_call(&entry, rest);
                    }
                    not_found()
                }
                None => not_found(),
            },
        }
    }

    fn asset(&self, name: &str) -> Option<Response> {
        self.pages.get()?.asset(name)
    }

    async fn of_server(
        &self,
        asked: &Asked<'_>,
        entry: &Arc<Entry>,
        (rest, request): (&str, &Request),
    ) -> Response {
        let mut answer = match request.method {
            Method::POST => call::call(entry, asked, (rest, request)).await,
            Method::GET | Method::HEAD => self.read(asked, entry, (rest, request)).await,
            _ if read::is_read(rest) => not_allowed("GET, HEAD"),
            _ => not_allowed("POST"),
        };
        if answer.status().is_client_error() || answer.status().is_server_error() {
            entry.metrics.refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        if let Ok(id) = HeaderValue::from_str(entry.slot.id.as_str()) {
            answer.headers_mut().insert(SERVER, id);
        }
        answer
    }
}

/// A server by its id, by its name in the file or by the path that its entry gives it; and what is below.
fn find<'p>(gateway: &Gateway, path: &'p str) -> Option<(Arc<Entry>, &'p str)> {
    let (name, rest) = path.split_once('/').unwrap_or((path, ""));
    if let Some(entry) = ServerId::new(name).ok().and_then(|id| gateway.entry(&id)) {
        return Some((entry, rest));
    }
    let entries = gateway.servers();
    let is = |entry: &&Arc<Entry>| entry.slot.place().is_some_and(|place| place.name == name);
    if let Some(entry) = entries.iter().find(is) {
        return Some((Arc::clone(entry), rest));
    }
    entries.into_iter().find_map(|entry| {
        let place = entry.slot.place()?;
        let rest = within(path, place.offer.openapi_path.as_deref()?)?;
        Some((entry, rest.strip_prefix('/').unwrap_or(rest)))
    })
}

/// Where documents and pages say that a server is, below the root.
fn path_of(entry: &Entry) -> String {
    let own = entry.slot.place().and_then(|place| place.offer.openapi_path.clone());
    own.unwrap_or_else(|| entry.slot.id.to_string())
}

/// The tools of a server. While it is not to be reached for a moment, those it had.
async fn tools(entry: &Arc<Entry>, lens: Option<&Lens>, within: Duration) -> Result<Arc<Listed>, Failed> {
    let list = all_tools(entry, within).await?;
    Ok(lens.map_or_else(|| Arc::clone(&list), |lens| list.through(lens)))
}

async fn all_tools(entry: &Arc<Entry>, within: Duration) -> Result<Arc<Listed>, Failed> {
    let within = if within == LIST_WITHIN { entry.patience(within) } else { within };
    match entry.list(ListKind::Tools, within).await {
        Ok(list) => Ok(list),
        Err(why) => {
            let place = entry.any_place();
            let stopped = place.is_none_or(|place| matches!(place.down, Some(Down::Stopped(_))));
            entry.lists.last(ListKind::Tools).filter(|_| !stopped).ok_or(why)
        }
    }
}

fn answered(answer: Answer) -> Response {
    body::json(legacy::code(answer.status), answer.body)
}

/// The declaration that a connection leads to.
fn spec_of(live: Option<&Live>) -> Option<&str> {
    live.map(|live| live.spec.as_str())
}

/// Says over which declaration of the server an answer came.
fn marked(mut response: Response, spec: Option<&str>) -> Response {
    if let Some(spec) = spec.filter(|spec| !spec.is_empty())
        && let Ok(spec) = HeaderValue::from_str(spec)
    {
        response.headers_mut().insert(SPEC, spec);
    }
    response
}

fn not_found() -> Response {
    answered(Answer::error(404, &json!("Not Found")))
}

/// A method that a path does not have.
fn not_allowed(allowed: &'static str) -> Response {
    let mut response = answered(Answer::error(405, &json!("Method Not Allowed")));
    response.headers_mut().insert(hyper::header::ALLOW, HeaderValue::from_static(allowed));
    response
}

fn lead(to: &str) -> Response {
    let mut response = body::empty(StatusCode::SEE_OTHER);
    if let Ok(to) = HeaderValue::from_str(to) {
        response.headers_mut().insert(LOCATION, to);
    }
    response
}

/// What a caller is told of a request that failed.
fn failure(why: &Failed) -> Answer {
    let said = |status, what: String, code| Answer::failed(status, &what, code);
    match why {
        Failed::Unknown => Answer::error(404, &json!("Not Found")),
        Failed::Unavailable(why) => {
            let code = if matches!(why, Unavailable::Late(_)) { LATE } else { UNAVAILABLE };
            said(503, format!("the server is not available: {why}"), code)
        }
        Failed::Denied(why) => said(why.status(), why.to_string(), why.code()),
        Failed::Call(CallError::Rpc(error)) => answer::of_rpc_error(error),
        Failed::Call(error @ CallError::TimedOut { .. }) => said(504, error.to_string(), TIMED_OUT),
        Failed::Call(error @ (CallError::Closed(_) | CallError::Unsent(_))) => {
            said(502, error.to_string(), WENT_AWAY)
        }
        Failed::Call(CallError::Busy) => said(503, CallError::Busy.to_string(), BUSY),
        Failed::Call(
            error @ (CallError::TooLong { .. }
            | CallError::List(_)
            | CallError::Params
            | CallError::Cancelled),
        ) => said(502, error.to_string(), UNUSABLE),
    }
}

fn failed(why: &Failed) -> Response {
    let mut response = answered(failure(why));
    match why {
        Failed::Unavailable(why) => come_again(&mut response, why.retry_after_secs()),
        Failed::Denied(why) => come_again(&mut response, why.retry_after_secs()),
        Failed::Call(CallError::Busy) => come_again(&mut response, Some(BUSY_SECS)),
        Failed::Unknown | Failed::Call(_) => {}
    }
    response
}
