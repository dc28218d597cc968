//! A call of a tool by HTTP whose caller hears of progress.
//!
//! ```text
//! event: progress   data: {"progress":3,"total":10,"message":"…"}
//! event: log        data: {"level":"info","data":"…"}
//! event: result     data: what would have been the answer      | one of
//! event: error      data: {"status":500,"detail":{…}}          | these, once
//! ```
//! A caller that goes away has cancelled its call. One whose connection broke is sent again only as
//! `orchestrator.retry` says and where that is safe, as every other call.
//!
//! Must never show one caller another's progress.

use crate::gateway::Gateway;
use crate::gateway::body::{self, Response};
use crate::gateway::call::{in_modern, reach};
use crate::gateway::hub::Entry;
use crate::gateway::instances::Tried;
use crate::gateway::metrics::Timed;
use crate::gateway::origin::Origin;
use crate::gateway::slot::{Live, Unavailable};
use crate::gateway::streams::{Greeting, Keep, Pushed, Stream, StreamKind};
use crate::gateway::toolproxy::{Failed, failed, failure, marked, spec_of};
use crate::gateway::traffic::{Admitted, Pass, Wanted};
use crate::mcp::wire::Era;
use crate::mcp::{meta, object};
use crate::openapi::answer::{self, Answer};
use crate::upstream::error::{CallError, CloseReason};
use crate::upstream::leg::{Call, OnDrop, Running};
use crate::upstream::table::{FromServer, Notice};
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// What may wait between a server and a caller; more progress at once is thinned out.
const EVENTS_MAX: usize = 64;
/// A token of ours for progress; the connection puts its own in its place.
const TOKEN: u64 = 1;

/// Calls a tool for a caller who wants to hear of progress.
pub(super) async fn streamed(
    (entry, (gateway, origin)): (&Arc<Entry>, (&Arc<Gateway>, &Origin)),
    wanted: &Wanted<'_>,
    structured: bool,
    mut timed: Timed,
) -> Response {
    let stream = Stream::unstored(StreamKind::Post);
    let silence = entry.silence(wanted.method);
    let pass = match entry.admit(wanted).await {
        Ok(Admitted::Go(pass)) => pass,
        Ok(Admitted::Kept(result)) => {
            let body = stream.body(Greeting::None);
            Told { stream, timed, silence, structured }.end(Ok(result));
            return marked(body::events(body), spec_of(entry.slot.live().as_deref()));
        }
        Err(denied) => {
            timed.refused();
            return failed(&Failed::Denied(denied));
        }
    };
    let silence = pass.as_ref().and_then(|pass| pass.timeout).unwrap_or(silence);
    let mut sending = Sending {
        entry: Arc::clone(entry),
        gateway: Arc::clone(gateway),
        origin: origin.clone(),
        params: wanted.params.map(ToOwned::to_owned),
        pass,
        at: None,
        tried: 0,
    };
    match sending.start().await {
        Ok((live, under_way)) => {
            let body = stream.body(Greeting::None);
            tokio::spawn(Told { stream, timed, silence, structured }.follow(sending, under_way));
            marked(body::events(body), spec_of(Some(&live)))
        }
        Err(why) => {
            timed.done(false, 0);
            failed(&why)
        }
    }
}

/// A call that may have to be sent more than once.
struct Sending {
    entry: Arc<Entry>,
    gateway: Arc<Gateway>,
    origin: Origin,
    params: Option<Box<RawValue>>,
    /// Held as long as it runs.
    pass: Option<Box<Pass>>,
    /// The instance it went to, where there are several, and those that could not be sent any of it.
    at: Option<Arc<Entry>>,
    tried: Tried,
}

/// A call that a connection has, and what its server says meanwhile.
struct UnderWay {
    running: Running,
    events: mpsc::Receiver<FromServer>,
}

impl Sending {
    /// Sends it, as often as that is safe.
    async fn start(&mut self) -> Result<(Arc<Live>, UnderWay), Failed> {
        loop {
            let from = Some((&self.gateway, &self.origin));
            let live = match reach(&self.entry, from, (&mut self.pass, self.tried)).await {
                Ok((at, live)) => {
                    self.at = at;
                    live
                }
                Err(why) => {
                    let gone = matches!(why, Unavailable::Stopped(_));
                    match self.again(&CallError::Unsent(CloseReason::LetGo)).filter(|_| !gone) {
                        Some(wait) => tokio::time::sleep(wait).await,
                        None => return Err(Failed::Unavailable(why)),
                    }
                    continue;
                }
            };
            match self.send(&live) {
                Ok(under_way) => return Ok((live, under_way)),
                Err(why) => match self.again(&why) {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => return Err(Failed::Call(why)),
                },
            }
        }
    }

    /// The wait before it is sent again after that; `None` when it is not.
    fn again(&mut self, why: &CallError) -> Option<Duration> {
        if self.at.as_ref().is_some_and(|at| at.may_go_elsewhere(why, &mut self.tried)) {
            return Some(Duration::ZERO);
        }
        self.tried = 0;
        self.pass.as_mut()?.again(why)
    }

    fn send(&self, live: &Live) -> Result<UnderWay, CallError> {
        let params = self.params.as_deref();
        let dressed = if live.leg.greeting().era == Era::Modern { in_modern(params) } else { None };
        let params = meta::with_progress_token(dressed.as_deref().or(params), TOKEN);
        let (sink, events) = mpsc::channel(EVENTS_MAX);
        let running = live.leg.start(Call {
            method: "tools/call",
            params: params.as_deref(),
            own_id: None,
            events: Some(sink),
            on_drop: OnDrop::Cancel,
        })?;
        Ok(UnderWay { running, events })
    }

    /// The answer as its caller may have it.
    fn settle(&mut self, answer: Result<Box<RawValue>, CallError>) -> Result<Box<RawValue>, CallError> {
        match self.pass.take() {
            Some(pass) => pass.settle(answer),
            None => answer,
        }
    }
}

/// What a caller is told while its call runs.
struct Told {
    stream: Arc<Stream>,
    timed: Timed,
    silence: Duration,
    structured: bool,
}

impl Told {
    async fn follow(self, mut sending: Sending, under_way: UnderWay) {
        let stream = Arc::clone(&self.stream);
        tokio::select! {
            biased;
            // Dropping the call tells the server.
            () = stream.abandoned() => {}
            () = self.follow_all(&mut sending, under_way) => {}
        }
    }

    async fn follow_all(self, sending: &mut Sending, mut under_way: UnderWay) {
        loop {
            let answer = self.follow_one(under_way).await;
            let Some(wait) = answer.as_ref().err().and_then(|why| sending.again(why)) else {
                let answer = sending.settle(answer);
                return self.end(answer.map_err(Failed::Call));
            };
            tokio::time::sleep(wait).await;
            match sending.start().await {
                Ok((_, next)) => under_way = next,
                Err(why) => return self.end(Err(why)),
            }
        }
    }

    /// Passes on what the server says up to its answer.
    async fn follow_one(&self, under_way: UnderWay) -> Result<Box<RawValue>, CallError> {
        let UnderWay { mut running, mut events } = under_way;
        let mut quiet_since = Instant::now();
        loop {
            tokio::select! {
                biased;
                Some(said) = events.recv() => {
                    quiet_since = Instant::now();
                    self.say(said);
                }
                answer = running.answered() => {
                    // What came before the answer is all here by now.
                    while let Ok(said) = events.try_recv() {
                        self.say(said);
                    }
                    return answer;
                }
                () = tokio::time::sleep_until(quiet_since + self.silence) => {
                    running.time_out();
                    return Err(CallError::TimedOut { after: self.silence });
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

    fn end(mut self, answer: Result<Box<RawValue>, Failed>) {
        self.timed.done(answer.is_ok(), answer.as_ref().map_or(0, |result| result.get().len()));
        let Answer { status, body } = match answer {
            Ok(result) => answer::of_result(&result, self.structured),
            Err(why) => failure(&why),
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
