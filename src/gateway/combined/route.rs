//! Whose a request to all servers is, and what that server gets.
//!
//! Must never ask a server for what its client may not use.

use crate::gateway::combined::All;
use crate::gateway::hub::Entry;
use crate::gateway::lens::{Lens, unknown};
use crate::gateway::offered::LISTED_WITHIN;
use crate::mcp::combine::{self, Kind};
use crate::mcp::front::Refusal;
use crate::mcp::wire::{INVALID_PARAMS, member, splice, text_of};
use futures_util::future::join_all;
use serde_json::value::RawValue;
use std::sync::Arc;

/// A request on its way to one server.
#[derive(Debug)]
pub(super) struct Routed {
    /// The server.
    pub(super) entry: Arc<Entry>,
    /// The params under its own names.
    pub(super) params: Box<RawValue>,
    /// What the client sees of it.
    pub(super) lens: Arc<Lens>,
}

/// Whether requests of this method are for one server.
pub(super) fn is_for_one(method: &str) -> bool {
    matches!(
        method,
        "tools/call"
            | "prompts/get"
            | "resources/read"
            | "resources/subscribe"
            | "resources/unsubscribe"
            | "completion/complete"
    )
}

/// Finds the server.
pub(super) async fn route(all: &All<'_>, method: &str, params: Option<&RawValue>) -> Result<Routed, Refusal> {
    let lacks = |what: &str| Refusal::new(200, INVALID_PARAMS, format!("params.{what} is missing"));
    let given = |what: &str| params.and_then(|params| Some((params, member(params, what)?)));
    match method {
        "completion/complete" => {
            let (params, reference) = given("ref").ok_or_else(|| lacks("ref"))?;
            let (key, by_name) = match combine::named(reference, "type").as_deref() {
                Some("ref/prompt") => ("name", true),
                Some("ref/resource") => ("uri", false),
                _ => return Err(Refusal::new(200, INVALID_PARAMS, "params.ref.type is none that is known")),
            };
            let name = combine::named(reference, key).ok_or_else(|| lacks(&format!("ref.{key}")))?;
            let (entry, own) =
                if by_name { by_names(all, Kind::Prompts, &name).await? } else { by_uri(all, &name)? };
            let changed = combine::renamed(reference, key, &own);
            let text = changed.and_then(|new| splice(params.get(), reference.get(), new.get()));
            done(all, entry, text.and_then(|text| RawValue::from_string(text).ok()))
        }
        "tools/call" | "prompts/get" => {
            let (params, name) = given("name").ok_or_else(|| lacks("name"))?;
            let name = text_of(name).ok_or_else(|| lacks("name"))?;
            let kind = if method == "tools/call" { Kind::Tools } else { Kind::Prompts };
            let (entry, own) = by_names(all, kind, &name).await?;
            done(all, entry, combine::renamed(params, "name", &own))
        }
        _ => {
            let (params, uri) = given("uri").ok_or_else(|| lacks("uri"))?;
            let uri = text_of(uri).ok_or_else(|| lacks("uri"))?;
            let (entry, own) = by_uri(all, &uri)?;
            done(all, entry, combine::renamed(params, "uri", &own))
        }
    }
}

fn done(all: &All<'_>, entry: Arc<Entry>, params: Option<Box<RawValue>>) -> Result<Routed, Refusal> {
    let params = params.ok_or_else(|| Refusal::new(200, INVALID_PARAMS, "params are not usable"))?;
    let lens = Lens::together(&entry, all.grant);
    Ok(Routed { entry, params, lens })
}

/// The server of a tool or prompt, and its own name there.
async fn by_names(all: &All<'_>, kind: Kind, name: &str) -> Result<(Arc<Entry>, String), Refusal> {
    let what = if kind == Kind::Tools { "tool" } else { "prompt" };
    if kind != Kind::Tools && !all.grant.admits_others() {
        return Err(unknown(what, name));
    }
    let looked_up = if combine::may_be_cut(name) { look_up(all, kind, name).await } else { None };
    let (entry, own) = match looked_up {
        Some(found) => found,
        None => {
            let (id, shown) = combine::parts(name).ok_or_else(|| unknown(what, name))?;
            let entry = all.entry(&id).ok_or_else(|| {
                refused(all, kind, all.gateway.entry(&id).as_ref().map(|entry| (entry, shown)));
                unknown(what, name)
            })?;
            let lens = Lens::together(&entry, all.grant);
            let own = if kind == Kind::Tools {
                lens.own_tool(shown).map(str::to_owned)
            } else {
                Some(shown.to_owned())
            };
            (entry, own.ok_or_else(|| unknown(what, name))?)
        }
    };
    if kind == Kind::Tools {
        let checked = Lens::together(&entry, all.grant).check_tool(&entry, &own, name).await;
        checked.inspect_err(|_| refused(all, kind, Some((&entry, &own))))?;
    }
    Ok((entry, own))
}

/// Notes a call that its client may not make, of a server that is there.
fn refused(all: &All<'_>, kind: Kind, called: Option<(&Arc<Entry>, &str)>) {
    if let (Kind::Tools, Some((entry, tool))) = (kind, called) {
        entry.metrics.refused_call(all.origin, ("tools/call", tool), None);
    }
}

/// A name that was cut, among what servers list.
async fn look_up(all: &All<'_>, kind: Kind, name: &str) -> Option<(Arc<Entry>, String)> {
    let entries = all.entries();
    let in_list = |entry: &Arc<Entry>| {
        let shown = entry.shown_now(kind)?;
        let found = shown.iter().find(|one| one.name == name)?;
        Some((Arc::clone(entry), found.own.clone()))
    };
    if let Some(found) = entries.iter().find_map(in_list) {
        return Some(found);
    }
    let _lists = join_all(entries.iter().map(|entry| entry.listed(kind, LISTED_WITHIN))).await;
    entries.iter().find_map(in_list)
}

/// The server of a resource, and its own URI there. A URI as a server wrote it, in a tool's own
/// words, is found if one server alone lists it.
fn by_uri(all: &All<'_>, uri: &str) -> Result<(Arc<Entry>, String), Refusal> {
    let none = || Refusal::new(200, crate::mcp::translate::RESOURCE_NOT_FOUND, "unknown resource");
    if !all.grant.admits_others() {
        return Err(none());
    }
    if let Some((id, own)) = combine::uri_parts(uri) {
        let own = own.to_owned();
        return all.entry(&id).map(|entry| (entry, own)).ok_or_else(none);
    }
    let mut with = all.entries().into_iter().filter(|entry| {
        entry.shown_now(Kind::Resources).is_some_and(|list| list.iter().any(|one| one.own == uri))
    });
    match (with.next(), with.next()) {
        (Some(entry), None) => Ok((entry, uri.to_owned())),
        _ => Err(none()),
    }
}
