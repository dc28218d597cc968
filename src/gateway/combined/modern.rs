//! Clients of the modern era: each request stands alone, and goes to one server or to none.
//!
//! Must never answer for a server what only that server can know.

use crate::gateway::body::{self, Body, Response};
use crate::gateway::combined::below::Events;
use crate::gateway::combined::route::{self, Routed};
use crate::gateway::combined::{All, CAPABILITIES, Listener, View, no_such, server_info};
use crate::gateway::lens::Lens;
use crate::gateway::origin::Origin;
use crate::gateway::slot::Unavailable;
use crate::gateway::streams::{Greeting, Keep, Stream, StreamKind};
use crate::gateway::{Ask, Gateway, modern, refused, unavailable};
use crate::mcp::combine::{self, Kind};
use crate::mcp::front::{self, Head, Modern, Refusal};
use crate::mcp::listen::{self, ListenFilter};
use crate::mcp::meta::SERVER_INFO_KEY;
use crate::mcp::wire::{INVALID_PARAMS, MODERN_LATEST, Message, member, read, text_of};
use crate::mcp::{build, object, translate};
use crate::model::access::Grant;
use crate::model::id::ServerId;
use hyper::StatusCode;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long a client may keep what this endpoint says of itself, in milliseconds.
const TTL_MS: u64 = 60_000;
/// A subscription below that ended is opened again after this time.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// A message of a modern client.
pub(super) async fn post(all: &All<'_>, message: Message<'_>) -> Response {
    let (id, facts) = match modern::checked(all.head, &message) {
        Ok(checked) => checked,
        Err(answer) => return *answer,
    };
    let Message::Request { method, params, .. } = &message else {
        return body::empty(StatusCode::ACCEPTED);
    };
    if let Some(kind) = Kind::of_method(method) {
        return match all.page(kind, *params).await {
            Ok(page) => {
                let page = translate::modern_result(method, &page, Some(&server_info())).unwrap_or(page);
                body::json(StatusCode::OK, build::result(id, &page))
            }
            Err(refusal) => no_such(id, &in_this_era(refusal)),
        };
    }
    match method.as_ref() {
        "server/discover" => discover(all, id),
        listen::LISTEN => listen(all, id, *params),
        method if route::is_for_one(method) && front::known_method_modern(method) => {
            match route::route(all, method, *params).await {
                Ok(routed) => {
                    let ask = all.ask(&routed);
                    modern::serve(&ask, id, (method, Some(&routed.params)), &facts).await
                }
                Err(refusal) => no_such(id, &in_this_era(refusal)),
            }
        }
        method => no_such(id, &front::unknown_method(method)),
    }
}

/// The legacy code for what is not found is another one here.
fn in_this_era(refusal: Refusal) -> Refusal {
    let code = if refusal.code == translate::RESOURCE_NOT_FOUND { INVALID_PARAMS } else { refusal.code };
    Refusal { code, ..refusal }
}

fn discover(all: &All<'_>, id: &RawValue) -> Response {
    let instructions = all
        .instructions()
        .map_or_else(String::new, |text| format!(r#","instructions":{}"#, serde_json::Value::from(text)));
    let text = format!(
        r#"{{"resultType":"complete","supportedVersions":["{MODERN_LATEST}"],"capabilities":{CAPABILITIES},"ttlMs":{TTL_MS},"cacheScope":"private"{instructions},"_meta":{{"{SERVER_INFO_KEY}":{}}}}}"#,
        server_info().get()
    );
    body::json(StatusCode::OK, build::result(id, &RawValue::from_string(text).unwrap_or_default()))
}

/// A subscription to the lists of all servers, and below it one at each server whose resources it
/// names.
fn listen(all: &All<'_>, id: &RawValue, params: Option<&RawValue>) -> Response {
    let Some(mut filter) = listen::listen_filter(params) else {
        return refused(Some(id), &Refusal::new(400, INVALID_PARAMS, "params.notifications is missing"));
    };
    let may = all.grant.admits_others();
    let mut below: BTreeMap<ServerId, Vec<String>> = BTreeMap::new();
    filter.uris.retain(|uri| {
        let Some((server, own)) = combine::uri_parts(uri).filter(|_| may) else { return false };
        let known = all.entry(&server).is_some();
        if known {
            below.entry(server).or_default().push(own.to_owned());
        }
        known
    });
    let stream = Stream::unstored(StreamKind::Get);
    let answer = stream.body(Greeting::None);
    stream.push(&listen::acknowledged(id, &filter), Keep::Must);
    let listener =
        Listener { id: id.to_owned(), filter, view: View::clone(all.view), stream: Arc::clone(&stream) };
    if !all.gateway.combined.listen(all.gateway, listener) {
        return unavailable(Some(id), &Unavailable::Later("too many subscriptions are open".to_owned()));
    }
    for (server, uris) in below {
        let relay = Relay {
            gateway: Arc::clone(all.gateway),
            server,
            id: id.to_owned(),
            params: params.and_then(|params| for_one(params, uris)),
            origin: all.origin.clone(),
            grant: Arc::clone(all.grant),
            stream: Arc::clone(&stream),
        };
        tokio::spawn(relay.run());
    }
    body::events(answer)
}

/// The params of a subscription to these resources alone.
fn for_one(params: &RawValue, uris: Vec<String>) -> Option<Box<RawValue>> {
    let only = listen::listen_params(&ListenFilter { uris, ..ListenFilter::default() });
    object::with(params, &[("notifications", member(&only, "notifications")?.get())])
}

/// A subscription at one server, on behalf of one at all of them.
struct Relay {
    gateway: Arc<Gateway>,
    server: ServerId,
    id: Box<RawValue>,
    params: Option<Box<RawValue>>,
    origin: Origin,
    grant: Arc<Grant>,
    stream: Arc<Stream>,
}

impl Relay {
    /// Passes on what it brings, opening it again where it ends, until the client goes away.
    async fn run(self) {
        let stream = Arc::clone(&self.stream);
        tokio::select! {
            () = stream.abandoned() => {}
            () = self.again_and_again() => {}
        }
    }

    async fn again_and_again(&self) {
        while !self.stream.is_finished() {
            if let Body::Events(events) = self.open().await.into_body() {
                let mut events = Events::new(events);
                while let Some(text) = events.next().await {
                    self.pass_on(&text);
                }
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    async fn open(&self) -> Response {
        let Some(entry) = self.gateway.entry(&self.server) else {
            return body::empty(StatusCode::NOT_FOUND);
        };
        let routed = Routed {
            lens: Lens::together(&entry, &self.grant),
            entry,
            params: self.params.clone().unwrap_or_default(),
        };
        let head = Head::default();
        let ask = Ask {
            gateway: &self.gateway,
            entry: &routed.entry,
            head: &head,
            principal: &self.origin.identity,
            origin: &self.origin,
            body: &[],
            lens: Some(&routed.lens),
        };
        let none = crate::gateway::legacy::empty_object();
        let facts =
            Modern { version: MODERN_LATEST, client_capabilities: &none, client_info: None, log_level: None };
        modern::serve(&ask, &self.id, (listen::LISTEN, Some(&routed.params)), &facts).await
    }

    fn pass_on(&self, text: &str) {
        let Ok(Message::Notification { method, params: Some(params) }) = read(text.as_bytes()) else {
            return;
        };
        let uri = member(params, "uri").and_then(text_of);
        let (true, Some(own)) = (method == "notifications/resources/updated", uri) else { return };
        if let Some(params) = combine::renamed(params, "uri", &combine::uri(&self.server, &own)) {
            self.stream.push(&build::notification(&method, Some(&params)), Keep::Must);
        }
    }
}
