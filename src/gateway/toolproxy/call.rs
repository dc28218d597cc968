//! A call of a tool by HTTP. A caller that goes away has cancelled its call.
//!
//! Must never show arguments or answers to anybody but their caller.

use crate::gateway::body::Response;
use crate::gateway::call::ask_when_admitted;
use crate::gateway::http::Request;
use crate::gateway::hub::Entry;
use crate::gateway::lens::Lens;
use crate::gateway::lists::{ListKind, Listed};
use crate::gateway::metrics::Timed;
use crate::gateway::origin::Origin;
use crate::gateway::toolproxy::{
    Asked, Failed, LIST_WITHIN, answered, events, failed, marked, not_allowed, not_found, spec_of, tools,
};
use crate::gateway::traffic::Wanted;
use crate::mcp::build;
use crate::openapi::answer;
use crate::openapi::document::EVENTS;
use hyper::header::{ACCEPT, HeaderMap};
use serde_json::json;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A list that is older than this is looked through again before a tool is said not to be there: its
/// server may tell nobody of changes.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Calls the tool at `path` below the server's.
pub(super) async fn call(
    entry: &Arc<Entry>,
    asked: &Asked<'_>,
    (path, request): (&str, &Request),
) -> Response {
    let lens = asked.lens(entry);
    let bytes = u64::try_from(request.body.len()).unwrap_or(u64::MAX);
    entry.metrics.bytes_in.fetch_add(bytes, Ordering::Relaxed);
    let list = match list_with(entry, lens.as_deref(), path).await {
        Ok(list) => list,
        Err(why) => return failed(&why),
    };
    let Some(operation) = list.operations(&entry.slot.id).at(path) else {
        let hidden = lens.as_ref().and_then(|_| entry.lists.last(ListKind::Tools));
        if let Some(tool) = hidden.as_ref().and_then(|list| list.operations(&entry.slot.id).at(path)) {
            asked.refused_call(entry, &tool.tool);
        }
        let reads = super::read::is_read(path);
        return if reads { not_allowed("GET, HEAD") } else { not_found() };
    };
    let arguments = match operation.arguments.check(&request.body) {
        Ok(arguments) => arguments,
        Err(wrong) => return answered(wrong),
    };
    let origin = asked.origin(entry);
    let own = lens.as_ref().and_then(|lens| lens.own_tool(&operation.tool)).unwrap_or(&operation.tool);
    let least = entry.least();
    let entry = least.as_ref().unwrap_or(entry);
    let mut timed = Timed::start(&entry.metrics, "tools/call", own).by(&origin, ("tools/call", own), None);
    let params = with_headers(build::call_params(own, Some(&arguments)), entry, &origin);
    let (who, params, shared) = (&origin.who, params.as_deref(), !entry.carries(&origin));
    let wanted = Wanted { method: "tools/call", params, tool: own, who, shared };
    let from = (asked.gateway, &origin);
    if wants_events(&request.headers) {
        return events::streamed((entry, from), &wanted, operation.has_output, timed).await;
    }
    let (result, live) = ask_when_admitted(entry, Some(from), &wanted).await;
    ended(&mut timed, &result);
    let response = match result {
        Ok(result) => answered(answer::of_result(&result, operation.has_output)),
        Err(why) => failed(&why),
    };
    marked(response, spec_of(live.as_deref()))
}

/// The params with those headers of the caller that a server without headers is to get.
fn with_headers(params: Option<Box<RawValue>>, entry: &Entry, origin: &Origin) -> Option<Box<RawValue>> {
    if !origin.has_headers() {
        return params;
    }
    let headers = origin.headers_in_call(&*entry.slot.place()?);
    if headers.is_empty() {
        return params;
    }
    let meta = json!({ "headers": headers }).to_string();
    let params = params?;
    let text = format!(r#"{},"_meta":{meta}}}"#, params.get().strip_suffix('}')?);
    RawValue::from_string(text).ok()
}

/// Notes how a call ended.
pub(super) fn ended(timed: &mut Timed, result: &Result<Box<RawValue>, Failed>) {
    match result {
        Ok(result) => timed.done(true, result.get().len()),
        Err(Failed::Denied(_)) => timed.refused(),
        Err(_) => timed.done(false, 0),
    }
}

/// The server's tools, asked for again when the one that is wanted is not among those known.
async fn list_with(entry: &Arc<Entry>, lens: Option<&Lens>, path: &str) -> Result<Arc<Listed>, Failed> {
    let list = tools(entry, lens, LIST_WITHIN).await?;
    if list.operations(&entry.slot.id).at(path).is_some() || list.age() < LOOK_AGAIN {
        return Ok(list);
    }
    entry.lists.forget(ListKind::Tools);
    tools(entry, lens, LIST_WITHIN).await
}

/// Whether a caller wants to hear of progress.
fn wants_events(headers: &HeaderMap) -> bool {
    let accepts = |wanted: &str| {
        let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        values
            .flat_map(|value| value.split(','))
            .any(|kind| kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(wanted)))
    };
    accepts(EVENTS) && !accepts("application/json")
}
