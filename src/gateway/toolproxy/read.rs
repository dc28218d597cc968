//! What can be read of servers by HTTP: documents, lists, resources and prompts.
//!
//! Must never wait for a server longer than for the others.

use crate::gateway::body::{self, Response};
use crate::gateway::call::{Failed, ask_when_admitted};
use crate::gateway::http::Request;
use crate::gateway::hub::Entry;
use crate::gateway::lens::Lens;
use crate::gateway::lists::{ListKind, Listed};
use crate::gateway::metrics::Timed;
use crate::gateway::toolproxy::call::ended;
use crate::gateway::toolproxy::{
    Asked, INDEX_WITHIN, LIST_WITHIN, Page, ServerPage, ToolPage, ToolProxy, answered, failed, lead, marked,
    not_allowed, not_found, path_of, spec_of, tools,
};
use crate::gateway::traffic::Wanted;
use crate::mcp::wire::{member, text_of};
use crate::openapi::answer::Answer;
use crate::openapi::document::{self, About};
use crate::openapi::names;
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, HeaderValue};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// A document is made from what is there now.
const FRESH: HeaderValue = HeaderValue::from_static("no-cache");

/// Whether a path below a server's is one to read.
pub(super) fn is_read(path: &str) -> bool {
    matches!(
        path,
        "" | "openapi.json" | "docs" | "redoc" | "tools" | "resources" | "resources/read" | "prompts"
    ) || path.starts_with("prompts/")
}

impl ToolProxy {
    /// Answers a GET below a server's path.
    pub(super) async fn read(
        &self,
        asked: &Asked<'_>,
        entry: &Arc<Entry>,
        (path, request): (&str, &Request),
    ) -> Response {
        let lens = asked.lens(entry);
        let others = path.starts_with("resources") || path.starts_with("prompts");
        if others && lens.as_ref().is_some_and(|lens| !lens.admits_others()) {
            return not_found();
        }
        match path {
            "" => lead(&format!("{}/{}/docs", asked.below.base, path_of(entry))),
            "openapi.json" => self.document(asked, entry).await,
            "docs" | "redoc" => self.page(asked, entry).await,
            "tools" => match tools(entry, lens.as_deref(), LIST_WITHIN).await {
                Ok(list) => of_lists(&[(ListKind::Tools, list)]),
                Err(why) => failed(&why),
            },
            "resources" => listed(entry, &[ListKind::Resources, ListKind::Templates]).await,
            "prompts" => listed(entry, &[ListKind::Prompts]).await,
            "resources/read" => resource(asked, entry, request).await,
            _ => match path.strip_prefix("prompts/") {
                Some(name) => prompt(asked, entry, (name, request)).await,
                None => no_read(entry, lens.as_deref(), path).await,
            },
        }
    }

    async fn document(&self, asked: &Asked<'_>, entry: &Arc<Entry>) -> Response {
        let list = match tools(entry, asked.lens(entry).as_deref(), LIST_WITHIN).await {
            Ok(list) => list,
            Err(why) => return failed(&why),
        };
        let said = Said::of(entry, &list);
        let about = About {
            title: said.title,
            description: said.about,
            version: said.version,
            url: format!("{}/{}", asked.below.base, path_of(entry)),
            locked: asked.locked || self.has_key(),
            more: vec![
                ("x-mcp-server", entry.slot.id.as_str().into()),
                ("x-mcp-spec-hash", list.giver.spec.as_str().into()),
            ],
        };
        marked(fresh(document::of_server(&about, list.operations(&entry.slot.id))), Some(&list.giver.spec))
    }

    /// The document of all servers.
    pub(super) async fn index(&self, asked: &Asked<'_>) -> Response {
        let all = all(asked).await;
        let base = asked.below.base.as_str();
        let mut description = "Tools of MCP servers over HTTP\n\n- **available tools**:".to_owned();
        let mut unavailable = Map::new();
        for (entry, list) in &all {
            let id = entry.slot.id.as_str();
            match list {
                Ok(_) => description.push_str(&format!("\n    - [{id}]({base}/{}/docs)", path_of(entry))),
                Err(why) => {
                    unavailable.insert(id.to_owned(), why.to_string().into());
                }
            }
        }
        let about = About {
            title: "MCP Orchestrator tools".to_owned(),
            description,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            url: base.to_owned(),
            locked: asked.locked || self.has_key(),
            more: if unavailable.is_empty() {
                Vec::new()
            } else {
                vec![("x-mcp-unavailable", Value::Object(unavailable))]
            },
        };
        let servers = all.iter().filter_map(|(entry, list)| {
            Some((path_of(entry), list.as_ref().ok()?.operations(&entry.slot.id)))
        });
        fresh(document::of_all(&about, &servers.collect::<Vec<_>>()))
    }

    async fn page(&self, asked: &Asked<'_>, entry: &Arc<Entry>) -> Response {
        let list = tools(entry, asked.lens(entry).as_deref(), LIST_WITHIN).await;
        let servers = vec![server_page(asked, entry, &list)];
        self.shown(Page { base: asked.below.base.clone(), servers, index: false })
    }

    /// The page of all servers.
    pub(super) async fn index_page(&self, asked: &Asked<'_>) -> Response {
        let all = all(asked).await;
        let servers = all.iter().map(|(entry, list)| server_page(asked, entry, list)).collect();
        self.shown(Page { base: asked.below.base.clone(), servers, index: true })
    }

    fn shown(&self, page: Page) -> Response {
        self.pages.get().map_or_else(not_found, |pages| pages.page(&page))
    }
}

fn fresh(text: String) -> Response {
    let mut response = body::json(StatusCode::OK, text);
    response.headers_mut().insert(CACHE_CONTROL, FRESH);
    response
}

/// The tools of every server; of one that does not answer in time those it had, or why not.
async fn all(asked: &Asked<'_>) -> Vec<(Arc<Entry>, Result<Arc<Listed>, Failed>)> {
    let entries: Vec<_> = asked.gateway.servers().into_iter().filter(|entry| asked.admits(entry)).collect();
    let lists = entries.iter().map(|entry| async {
        let lens = asked.lens(entry);
        tools(entry, lens.as_deref(), INDEX_WITHIN).await
    });
    let lists = futures_util::future::join_all(lists).await;
    entries.into_iter().zip(lists).collect()
}

/// What a server says of itself.
struct Said {
    title: String,
    version: String,
    about: String,
}

impl Said {
    fn of(entry: &Entry, list: &Listed) -> Self {
        let info = list.giver.server.as_ref();
        let text =
            |given: Option<&str>, or: &str| given.filter(|text| !text.is_empty()).unwrap_or(or).to_owned();
        let title = text(info.map(|info| info.name.as_str()), entry.slot.id.as_str());
        let instructions = info.and_then(|info| member(&info.raw, "instructions")).and_then(text_of);
        let about = text(instructions.as_deref(), &format!("{title} MCP Server"));
        Self { version: text(info.map(|info| info.version.as_str()), "1.0"), title, about }
    }
}

fn server_page(asked: &Asked<'_>, entry: &Arc<Entry>, list: &Result<Arc<Listed>, Failed>) -> ServerPage {
    let (id, path) = (entry.slot.id.to_string(), path_of(entry));
    let name = entry.slot.place().map(|place| place.name.clone()).unwrap_or_default();
    let list = match list {
        Ok(list) => list,
        Err(why) => {
            return ServerPage { id, path, name, why: Some(why.to_string()), ..ServerPage::default() };
        }
    };
    let said = Said::of(entry, list);
    let tools = list.operations(&entry.slot.id).all().iter().map(|operation| ToolPage {
        path: format!("{}/{path}/{}", asked.below.base, names::encoded(&operation.path)),
        description: operation.description.clone(),
        schema: format!("{:#}", operation.schema()),
        example: operation.arguments.example().map(|example| format!("{example:#}")).unwrap_or_default(),
    });
    let tools = tools.collect();
    let title = format!("{} {}", said.title, said.version);
    ServerPage { id, path, name, title, about: said.about, why: None, spec: list.giver.spec.clone(), tools }
}

/// Lists as the server wrote their entries.
async fn listed(entry: &Arc<Entry>, kinds: &[ListKind]) -> Response {
    let mut lists = Vec::new();
    for kind in kinds {
        match entry.list(*kind, entry.patience(LIST_WITHIN)).await {
            Ok(list) => lists.push((*kind, list)),
            Err(why) => return failed(&why),
        }
    }
    of_lists(&lists)
}

fn of_lists(lists: &[(ListKind, Arc<Listed>)]) -> Response {
    let members: Vec<String> = lists
        .iter()
        .map(|(kind, list)| {
            let items: Vec<&str> = list.items.iter().map(|item| item.raw.get()).collect();
            format!(r#""{}":[{}]"#, kind.method().1, items.join(","))
        })
        .collect();
    let response = fresh(format!("{{{}}}", members.join(",")));
    match lists.last() {
        Some((_, list)) => marked(response, Some(&list.giver.spec)),
        None => response,
    }
}

/// The members of a query.
fn query(request: &Request) -> Vec<(String, String)> {
    serde_urlencoded::from_str(request.query().unwrap_or_default()).unwrap_or_default()
}

/// One parameter of the query is missing.
fn missing(name: &str) -> Response {
    let detail = json!([{ "type": "missing", "loc": ["query", name], "msg": "Field required" }]);
    answered(Answer::error(422, &detail))
}

async fn resource(asked: &Asked<'_>, entry: &Arc<Entry>, request: &Request) -> Response {
    let uri = query(request).into_iter().find_map(|(key, value)| (key == "uri").then_some(value));
    let Some(uri) = uri else { return missing("uri") };
    passed(asked, entry, ("resources/read", &json!({ "uri": uri }))).await
}

async fn prompt(asked: &Asked<'_>, entry: &Arc<Entry>, (name, request): (&str, &Request)) -> Response {
    let arguments: Map<String, Value> =
        query(request).into_iter().map(|(key, value)| (key, value.into())).collect();
    passed(asked, entry, ("prompts/get", &json!({ "name": name, "arguments": arguments }))).await
}

/// The server's own answer, as it is.
async fn passed(asked: &Asked<'_>, entry: &Arc<Entry>, (method, params): (&str, &Value)) -> Response {
    let origin = asked.origin(entry);
    let params = RawValue::from_string(params.to_string()).ok();
    let least = entry.least();
    let entry = least.as_ref().unwrap_or(entry);
    let mut timed = Timed::start(&entry.metrics, method, "").by(&origin, (method, ""), None);
    let wanted = Wanted {
        method,
        params: params.as_deref(),
        tool: "",
        who: &origin.who,
        shared: !entry.carries(&origin),
    };
    let (result, live) = ask_when_admitted(entry, Some((asked.gateway, &origin)), &wanted).await;
    ended(&mut timed, &result);
    let response = match result {
        Ok(result) => body::json(StatusCode::OK, result.get().to_owned()),
        Err(why) => failed(&why),
    };
    marked(response, spec_of(live.as_deref()))
}

/// Tools are called with POST.
async fn no_read(entry: &Arc<Entry>, lens: Option<&Lens>, path: &str) -> Response {
    match tools(entry, lens, LIST_WITHIN).await {
        Ok(list) if list.operations(&entry.slot.id).at(path).is_some() => not_allowed("POST"),
        Ok(_) => not_found(),
        Err(why) => failed(&why),
    }
}
