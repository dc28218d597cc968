//! A call of a tool by HTTP, with its answer at once or with progress before it.
//!
//! ```text
//! event: progress   data: {"progress":3,"total":10,"message":"…"}
//! event: log        data: {"level":"info","data":"…"}
//! event: result     data: what would have been the answer      | one of
//! event: error      data: {"status":500,"detail":{…}}          | these, once
//! ```
//! A caller that goes away has cancelled its call.
//!
//! Must never show arguments or answers to anybody but their caller.

use crate::gateway::Gateway;
use crate::gateway::body::{self, Response};
use crate::gateway::call::{ask_when_admitted, in_modern};
use crate::gateway::http::Request;
use crate::gateway::hub::Entry;
use crate::gateway::lens::Lens;
use crate::gateway::lists::{ListKind, Listed};
use crate::gateway::metrics::Timed;
use crate::gateway::not_allowed;
use crate::gateway::origin::Origin;
use crate::gateway::slot::Live;
use crate::gateway::streams::{Greeting, Keep, Pushed, Stream, StreamKind};
use crate::gateway::toolproxy::{
    Asked, Failed, LIST_WITHIN, answered, failed, failure, marked, not_found, operations, tools,
};
use crate::gateway::traffic::{Admitted, Pass, Wanted};
use crate::mcp::wire::Era;
use crate::mcp::{build, meta, object};
use crate::openapi::answer::{self, Answer};
use crate::openapi::document::EVENTS;
use crate::upstream::error::CallError;
use crate::upstream::leg::{Call, OnDrop, Running};
use crate::upstream::table::{FromServer, Notice};
use hyper::header::{ACCEPT, HeaderMap};
use serde_json::value::RawValue;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// A list that is older than this is looked through again before a tool is said not to be there: its
/// server may tell nobody of changes.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// What may wait between a server and a caller; more progress at once is thinned out.
const EVENTS_MAX: usize = 64;
/// How long a server may say nothing where nobody says otherwise.
const SILENCE: Duration = Duration::from_secs(300);
/// A token of ours for progress; the connection puts its own in its place.
const TOKEN: u64 = 1;

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
    let Some(operation) = operations(entry, &list).at(path) else {
        let reads = super::read::is_read(path);
        return if reads { not_allowed("GET, HEAD") } else { not_found() };
    };
    let arguments = match operation.arguments.check(&request.body) {
        Ok(arguments) => arguments,
        Err(wrong) => return answered(wrong),
    };
    let origin = asked.origin(entry);
    let own = lens.as_ref().and_then(|lens| lens.own_tool(&operation.tool)).unwrap_or(&operation.tool);
    let mut timed = Timed::start(&entry.metrics, "tools/call", own).by(&origin, ("tools/call", own), None);
    let params = build::call_params(own, Some(&arguments));
    let (who, params, shared) = (&origin.who, params.as_deref(), !entry.carries(&origin));
    let wanted = Wanted { method: "tools/call", params, tool: own, who, shared };
    let from = (asked.gateway, &origin);
    if wants_events(&request.headers) {
        return streamed((entry, from), &wanted, operation.has_output, timed).await;
    }
    let (result, live) = ask_when_admitted(entry, Some(from), &wanted).await;
    timed.done(result.is_ok(), result.as_ref().map_or(0, |result| result.get().len()));
    let response = match result {
        Ok(result) => answered(answer::of_result(&result, operation.has_output)),
        Err(why) => failed(&why),
    };
    marked(response, live.as_deref())
}

/// The same for a caller who wants to hear of progress.
async fn streamed(
    (entry, (gateway, origin)): (&Arc<Entry>, (&Arc<Gateway>, &Origin)),
    wanted: &Wanted<'_>,
    structured: bool,
    mut timed: Timed,
) -> Response {
    let pass = match entry.admit(wanted).await {
        Ok(Admitted::Go(pass)) => pass,
        Ok(Admitted::Kept(result)) => {
            let stream = Stream::unstored(StreamKind::Post);
            let body = stream.body(Greeting::None);
            Told { stream, timed, silence: SILENCE, structured, pass: None }.end(Ok(result));
            return marked(body::events(body), entry.slot.live().as_deref());
        }
        Err(denied) => {
            timed.done(false, 0);
            return failed(&Failed::Denied(denied));
        }
    };
    let live = match entry.reach(gateway, origin).await {
        Ok(live) => live,
        Err(why) => {
            timed.done(false, 0);
            return failed(&Failed::Unavailable(why));
        }
    };
    let of_tool = pass.as_ref().and_then(|pass| pass.timeout);
    let silence = of_tool.unwrap_or_else(|| entry.slot.place().map_or(SILENCE, |place| place.timeout));
    let called = Called { live: &live, silence, structured };
    marked(called.streamed(wanted.params, pass, timed), Some(&live))
}

/// The server's tools, asked for again when the one that is wanted is not among those known.
async fn list_with(entry: &Arc<Entry>, lens: Option<&Lens>, path: &str) -> Result<Arc<Listed>, Failed> {
    let list = tools(entry, lens, LIST_WITHIN).await?;
    if operations(entry, &list).at(path).is_some() || list.age() < LOOK_AGAIN {
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

/// A call whose caller hears of progress.
struct Called<'a> {
    live: &'a Arc<Live>,
    silence: Duration,
    structured: bool,
}

impl Called<'_> {
    fn streamed(self, params: Option<&RawValue>, pass: Option<Box<Pass>>, mut timed: Timed) -> Response {
        let dressed = if self.live.leg.greeting().era == Era::Modern { in_modern(params) } else { None };
        let params = meta::with_progress_token(dressed.as_deref().or(params), TOKEN);
        let (sink, events) = mpsc::channel(EVENTS_MAX);
        let call = Call {
            method: "tools/call",
            params: params.as_deref(),
            own_id: None,
            events: Some(sink),
            on_drop: OnDrop::Cancel,
        };
        let running = match self.live.leg.start(call) {
            Ok(running) => running,
            Err(why) => {
                timed.done(false, 0);
                return failed(&Failed::Call(why));
            }
        };
        let stream = Stream::unstored(StreamKind::Post);
        let body = stream.body(Greeting::None);
        let told = Told { stream, timed, silence: self.silence, structured: self.structured, pass };
        tokio::spawn(told.follow(running, events));
        body::events(body)
    }
}

/// What a caller is told while its call runs.
struct Told {
    stream: Arc<Stream>,
    timed: Timed,
    silence: Duration,
    structured: bool,
    /// Held as long as it runs.
    pass: Option<Box<Pass>>,
}

impl Told {
    async fn follow(self, mut running: Running, mut events: mpsc::Receiver<FromServer>) {
        let mut quiet_since = Instant::now();
        loop {
            let deadline = quiet_since + self.silence;
            tokio::select! {
                biased;
                // Dropping the call tells the server.
                () = self.stream.abandoned() => return,
                Some(said) = events.recv() => {
                    quiet_since = Instant::now();
                    self.say(said);
                }
                answer = running.answered() => {
                    // What came before the answer is all here by now.
                    while let Ok(said) = events.try_recv() {
                        self.say(said);
                    }
                    return self.end(answer);
                }
                () = tokio::time::sleep_until(deadline) => {
                    running.time_out();
                    let after = self.silence;
                    return self.end(Err(CallError::TimedOut { after }));
                }
            }
        }
    }

    fn say(&self, said: FromServer) {
        let FromServer::Notice(Notice { method, params: Some(params) }) = said else { return };
        let name = match method.as_str() {
            "notifications/progress" => "progress",
            "notifications/message" => "log",
            _ => return,
        };
        // The token is ours, not the caller's.
        let Some(data) = object::without(&params, &|key| matches!(key, "progressToken" | "_meta")) else {
            return;
        };
        if self.stream.push_named(name, data.get(), Keep::May) == Pushed::Dropped {
            self.timed.dropped();
        }
    }

    fn end(mut self, answer: Result<Box<RawValue>, CallError>) {
        let answer = match self.pass.take() {
            Some(pass) => pass.settle(answer),
            None => answer,
        };
        self.timed.done(answer.is_ok(), answer.as_ref().map_or(0, |result| result.get().len()));
        let Answer { status, body } = match answer {
            Ok(result) => answer::of_result(&result, self.structured),
            Err(why) => failure(&Failed::Call(why)),
        };
        if status == 200 {
            self.stream.push_named("result", &body, Keep::Must);
        } else {
            let rest = body.strip_prefix('{').unwrap_or("}");
            self.stream.push_named("error", &format!(r#"{{"status":{status},{rest}"#), Keep::Must);
        }
        self.stream.finish();
    }
}
