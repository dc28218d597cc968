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
//! On `[openapi] port` the same stands at the root. What is not there is told as mcpo's clients know it:
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
use crate::gateway::lists::{Item, ListKind, Listed};
use crate::gateway::origin::{Door, Origin};
use crate::gateway::places::Down;
use crate::gateway::slot::{LATE, Live, Unavailable};
use crate::gateway::{Gateway, come_again, legacy, not_allowed};
use crate::mcp::combine;
use crate::model::id::ServerId;
use crate::openapi::answer::{self, Answer, UNUSABLE};
use crate::openapi::document::Operations;
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
    /// The root: [`ROOT`], or nothing.
    pub base: &'static str,
    /// The decoded path below it, without its first `/`.
    pub path: String,
}

/// Where a decoded path stands; `None` when it is not the tool proxy's.
#[must_use]
pub fn below(way: &Way, path: &str) -> Option<Below> {
    let (base, rest) = match way {
        Way::Main => (ROOT, path.strip_prefix(ROOT).filter(|rest| rest.is_empty() || rest.starts_with('/'))?),
        Way::Tools => ("", path),
        Way::Edge(_) | Way::Shared => return None,
    };
    Some(Below { base, path: rest.strip_prefix('/').unwrap_or(rest).to_owned() })
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
    pub base: &'static str,
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
        Self { key: RwLock::new(key), pages: OnceLock::new() }
    }

    /// Changes the key, for requests from now on.
    pub fn set_key(&self, key: Option<Key>) {
        *self.key.write().unwrap_or_else(PoisonError::into_inner) = key;
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
        let (base, path) = (asked.below.base, asked.below.path.as_str());
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
            (id, rest) => match find(asked.gateway, id) {
                Some(entry) if asked.admits(&entry) => self.of_server(asked, &entry, (rest, request)).await,
                Some(entry) => {
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

/// A server by its id, or by its name in the file.
fn find(gateway: &Gateway, name: &str) -> Option<Arc<Entry>> {
    let by_id = ServerId::new(name).ok().and_then(|id| gateway.entry(&id));
    let is = |entry: &Arc<Entry>| entry.slot.place().is_some_and(|place| place.name == name);
    by_id.or_else(|| gateway.entries().into_iter().find(is))
}

/// The tools of a server. While it is not to be reached for a moment, those it had.
async fn tools(entry: &Arc<Entry>, lens: Option<&Lens>, within: Duration) -> Result<Arc<Listed>, Failed> {
    let list = all_tools(entry, within).await?;
    Ok(match lens {
        None => list,
        Some(lens) => Arc::new(list.seen(|item| {
            let raw = lens.tool(&item.raw)?;
            Some(Item { key: combine::named(&raw, "name")?, raw })
        })),
    })
}

async fn all_tools(entry: &Arc<Entry>, within: Duration) -> Result<Arc<Listed>, Failed> {
    let within = if within == LIST_WITHIN { entry.patience(within) } else { within };
    match entry.list(ListKind::Tools, within).await {
        Ok(list) => Ok(list),
        Err(why) => {
            let place = entry.slot.place();
            let stopped = place.is_none_or(|place| matches!(place.down, Some(Down::Stopped(_))));
            entry.lists.last(ListKind::Tools).filter(|_| !stopped).ok_or(why)
        }
    }
}

/// What is made of them.
fn operations<'a>(entry: &Entry, list: &'a Listed) -> &'a Operations {
    list.operations.get_or_init(|| {
        let tools = list.items.iter().map(|item| (item.key.as_str(), &*item.raw));
        Operations::new(entry.slot.id.as_str(), tools)
    })
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
