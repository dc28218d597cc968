//! One request on its way: what its client gets to see, in order, up to the answer.
//!
//! A flow is the same for every way in (JSON answer, event stream, the old SSE pair) and for every
//! pair of eras; what differs is how the server's words are put to this client ([`Tongue`]).
//!
//! Dropping a flow gives the request up, as its [`OnDrop`] says. Must never reorder what a server
//! said, and never show one client another's words.

pub(crate) mod resend;

use crate::gateway::flow::resend::Resend;
use crate::gateway::lens::Lens;
use crate::gateway::metrics::Timed;
use crate::gateway::sessions::{Asker, ClientAnswer, Session};
use crate::gateway::traffic::Pass;
use crate::mcp::wire::{INTERNAL_ERROR, LEGACY_LATEST, MODERN_LATEST};
use crate::mcp::{build, front, input, meta, translate};
use crate::upstream::error::CallError;
use crate::upstream::leg::{Call, Leg, OnDrop, Running};
use crate::upstream::table::{FromServer, Notice, ServerRequest};
use serde_json::value::RawValue;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// What may wait between a server and a flow; more progress than this at once is thinned out.
const EVENTS_MAX: usize = 64;
/// Questions of a server that come this close together are put together.
const TOGETHER: Duration = Duration::from_millis(5);
/// Times a server may ask for input within one call.
const ROUNDS_MAX: u32 = 16;
/// Seconds after which a server that has too much to do may be asked again.
const BUSY_SECS: u64 = 1;
/// The JSON-RPC code of a request that its own client took back.
const CANCELLED: i64 = -32800;

/// What a client gets.
#[derive(Debug)]
pub enum Out {
    /// A notification, as one message.
    Notice(String),
    /// A request of the server: its id, for the answer, and the message.
    Request(Box<RawValue>, String),
    /// The last word: HTTP status where the answer is one, and the message.
    Answer(u16, String),
    /// The server cannot take it now.
    Busy(String, Again),
    /// The server wants input before it goes on, and this client gives it with another request.
    Wants(Vec<ServerRequest>),
}

/// How a client is told to come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Again {
    /// HTTP status: 503, or 429 when the client itself asks too often.
    pub status: u16,
    /// After how many seconds it makes sense.
    pub secs: Option<u64>,
}

impl Again {
    /// The server is what cannot.
    #[must_use]
    pub const fn later(secs: Option<u64>) -> Self {
        Self { status: 503, secs }
    }
}

/// How a server's words are put to a client.
#[derive(Clone, Debug)]
pub enum Tongue {
    /// Both speak the legacy era: as they are.
    Legacy,
    /// Both speak the modern era: as they are.
    Modern,
    /// A modern client before a legacy server.
    Translated {
        /// The request's method: results differ by it.
        method: Arc<str>,
        /// `serverInfo` of the server.
        server_info: Option<Arc<RawValue>>,
        /// The least severe log messages wanted; `None` wants none.
        log_level: Option<Arc<str>>,
    },
}

/// A request under way.
#[derive(Debug)]
pub struct Flow {
    leg: Leg,
    running: Running,
    events: mpsc::Receiver<FromServer>,
    /// Came right behind the server's requests, and is for after them.
    behind: Option<FromServer>,
    /// As its client wrote it.
    id: Box<RawValue>,
    /// Its client asked again: the progress token of that request, if it had one.
    retry: Option<Retry>,
    tongue: Tongue,
    ready: VecDeque<Out>,
    silence: Duration,
    quiet_since: Instant,
    timed: Timed,
    rounds: Option<Rounds>,
    /// What its client sees of the server, and the request's method.
    lens: Option<(Arc<Lens>, String)>,
    /// Held as long as it is under way.
    pass: Option<Box<Pass>>,
    /// How it is sent again.
    resend: Option<Box<Resend>>,
}

/// The request that took a parked one's place.
#[derive(Debug)]
struct Retry {
    token: Option<Box<RawValue>>,
}

/// What a flow begins with.
#[derive(Debug)]
pub struct Begin<'a> {
    /// The connection.
    pub leg: &'a Leg,
    /// As its client wrote it.
    pub id: &'a RawValue,
    /// The method.
    pub method: &'a str,
    /// The params, ready for this server.
    pub params: Option<&'a RawValue>,
    /// How answers are put.
    pub tongue: Tongue,
    /// What becomes of the request when the client goes away.
    pub on_drop: OnDrop,
    /// How long the server may say nothing.
    pub silence: Duration,
    /// Measures it.
    pub timed: Timed,
}

impl Flow {
    /// Sends the request.
    ///
    /// # Errors
    /// What the client is told instead.
    pub fn begin(begin: Begin<'_>) -> Result<Self, Out> {
        let Begin { leg, id, method, params, tongue, on_drop, silence, mut timed } = begin;
        let (sink, events) = mpsc::channel(EVENTS_MAX);
        let started = match leg.start(Call { method, params, own_id: None, events: Some(sink), on_drop }) {
            // It may be sent over another connection.
            Err(CallError::Unsent(why)) => Ok(leg.never_sent(why)),
            started => started,
        };
        match started {
            Ok(running) => Ok(Self {
                leg: leg.clone(),
                running,
                events,
                behind: None,
                id: id.to_owned(),
                retry: None,
                tongue,
                ready: VecDeque::new(),
                silence,
                quiet_since: Instant::now(),
                timed,
                rounds: None,
                lens: None,
                pass: None,
                resend: None,
            }),
            Err(error) => Err(failed(id, &tongue, &error, &mut timed)),
        }
    }

    /// The same, as its client sees the server.
    #[must_use]
    pub fn through(mut self, lens: Option<&Arc<Lens>>, method: &str) -> Self {
        self.lens = lens.map(|lens| (Arc::clone(lens), method.to_owned()));
        self
    }

    /// Notes that its client read too slowly for one of its messages.
    pub fn dropped(&self) {
        self.timed.dropped();
    }

    /// The connection's own id of the request.
    #[must_use]
    pub const fn upstream_id(&self) -> u64 {
        self.running.id()
    }

    /// The connection.
    #[must_use]
    pub const fn leg(&self) -> &Leg {
        &self.leg
    }

    /// The id its client knows it by.
    #[must_use]
    pub const fn id(&self) -> &RawValue {
        &self.id
    }

    /// Goes on under another id and progress token: its client asked again.
    pub fn rename(&mut self, id: &RawValue, params: Option<&RawValue>) {
        self.id = id.to_owned();
        let token = params.and_then(meta::progress_token).map(ToOwned::to_owned);
        self.retry = Some(Retry { token });
        self.quiet_since = Instant::now();
    }

    /// The next thing for the client; after [`Out::Answer`] there is nothing more. Cancel-safe.
    pub async fn next(&mut self) -> Out {
        loop {
            if let Some(out) = self.ready.pop_front() {
                return out;
            }
            if let Some(said) = self.behind.take() {
                self.hear(said);
                continue;
            }
            if self.rounds.as_ref().is_some_and(|rounds| rounds.asking.is_some()) {
                if let Some(out) = self.next_round().await {
                    return out;
                }
                continue;
            }
            if self.is_to_be_sent() {
                if let Some(out) = self.send_again().await {
                    return out;
                }
                continue;
            }
            let deadline = self.quiet_since + self.silence;
            tokio::select! {
                biased;
                Some(said) = self.events.recv() => {
                    self.quiet_since = Instant::now();
                    match (said, &self.tongue) {
                        (FromServer::Request(request), Tongue::Translated { .. }) => {
                            return self.wants(request).await;
                        }
                        (said, _) => self.hear(said),
                    }
                }
                answer = self.running.answered() => {
                    // What came before the answer is all here by now.
                    while let Some(said) = self.behind.take().or_else(|| self.events.try_recv().ok()) {
                        self.hear(said);
                    }
                    let goes_on = match &answer {
                        Ok(result) => self.ask_for_input(result),
                        Err(error) => self.sends_again(error),
                    };
                    if !goes_on {
                        let out = self.answer(answer);
                        self.ready.push_back(out);
                    }
                }
                () = tokio::time::sleep_until(deadline) => {
                    let error = CallError::TimedOut { after: self.silence };
                    self.leg.cancel(self.running.id(), None);
                    return self.answer(Err(error));
                }
            }
        }
    }

    /// What a server wants at once, asked in several messages.
    async fn wants(&mut self, first: ServerRequest) -> Out {
        let mut wants = vec![first];
        while let Ok(Some(said)) = tokio::time::timeout(TOGETHER, self.events.recv()).await {
            match said {
                FromServer::Request(more) => wants.push(more),
                other => {
                    self.behind = Some(other);
                    break;
                }
            }
        }
        Out::Wants(wants)
    }

    /// The server asked this before the request, and it was not passed on then.
    pub fn asked_before(&mut self, wants: Vec<ServerRequest>) {
        if !wants.is_empty() {
            self.ready.push_back(Out::Wants(wants));
        }
    }

    /// Progress, under the token that its client listens to now.
    fn told_anew(&self, mut notice: Notice) -> Option<Notice> {
        if let Some(retry) = &self.retry
            && notice.method == "notifications/progress"
        {
            notice.params =
                Some(meta::with_notified_token(notice.params.as_deref()?, retry.token.as_deref()?)?);
        }
        Some(notice)
    }

    fn hear(&mut self, said: FromServer) {
        match (said, &self.tongue) {
            (FromServer::Notice(notice), tongue) => {
                if let Some(text) = self.told_anew(notice).and_then(|notice| notice_text(&notice, tongue)) {
                    self.ready.push_back(Out::Notice(text));
                }
            }
            (FromServer::Refused(method), Tongue::Translated { .. }) => {
                if let Some(capability) = input::capability_of(&method) {
                    let refusal = front::missing_capability(capability);
                    self.ready.push_back(Out::Answer(refusal.status, refusal.body(Some(&self.id))));
                }
            }
            (FromServer::Refused(_), _) => {}
            (FromServer::Request(request), _) => {
                let text = request_text(&request);
                self.ready.push_back(Out::Request(request.id, text));
            }
        }
    }

    fn answer(&mut self, answer: Result<Box<RawValue>, CallError>) -> Out {
        let answer = match self.pass.take() {
            Some(pass) => pass.settle(answer),
            None => answer,
        };
        let result = match answer {
            Ok(result) => result,
            Err(error) => return failed(&self.id, &self.tongue, &error, &mut self.timed),
        };
        self.timed.done(true, result.get().len());
        if let (Tongue::Modern, Some(resend)) = (&self.tongue, &self.resend) {
            resend.entry().tie(&result);
        }
        let lens = self.lens.as_ref().map(|(lens, method)| (&**lens, method.as_str()));
        answered(&self.id, result, (&self.tongue, self.rounds.is_some()), lens)
    }
}

/// A result as its client gets it. `modern` is whether it is one of a modern server for a legacy client;
/// the lens goes with the request's method.
pub(crate) fn answered(
    id: &RawValue,
    result: Box<RawValue>,
    (tongue, modern): (&Tongue, bool),
    lens: Option<(&Lens, &str)>,
) -> Out {
    let translated = match tongue {
        Tongue::Legacy if modern => translate::legacy_result(&result),
        Tongue::Translated { method, server_info, .. } => {
            translate::modern_result(method, &result, server_info.as_deref())
        }
        Tongue::Legacy | Tongue::Modern => None,
    };
    let result = translated.unwrap_or(result);
    let seen = lens.and_then(|(lens, method)| lens.outward(method, &result));
    Out::Answer(200, build::reply(id, "result", seen.as_deref().unwrap_or(&result)))
}

/// A server's own request as its client gets it.
#[must_use]
pub fn request_text(request: &ServerRequest) -> String {
    build::request_as(&request.id, &request.method, request.params.as_deref())
}

/// A notification as its client gets it; `None` when this client does not want it.
fn notice_text(notice: &Notice, tongue: &Tongue) -> Option<String> {
    if let Tongue::Translated { log_level, .. } = tongue {
        match notice.method.as_str() {
            "notifications/message" => {
                let wanted = log_level.as_deref()?;
                let level = notice.params.as_deref().and_then(|params| {
                    crate::mcp::wire::member(params, "level").and_then(crate::mcp::wire::text_of)
                });
                if severity(level.as_deref().unwrap_or("info")) < severity(wanted) {
                    return None;
                }
            }
            // Of a request that this client never saw under that id.
            "notifications/cancelled" => return None,
            _ => {}
        }
    }
    Some(build::notification(&notice.method, notice.params.as_deref()))
}

/// Where a log level stands among the eight of RFC 5424; unknown ones are taken for `info`.
#[must_use]
pub fn severity(level: &str) -> u8 {
    const LEVELS: [&str; 8] =
        ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];
    LEVELS.iter().position(|known| *known == level).and_then(|at| u8::try_from(at).ok()).unwrap_or(1)
}

/// What a client is told about a request that failed.
pub(crate) fn failed(id: &RawValue, tongue: &Tongue, error: &CallError, timed: &mut Timed) -> Out {
    timed.done(false, 0);
    match error {
        CallError::Rpc(rpc) => {
            let raw = match tongue {
                Tongue::Translated { method, .. } => Some(translate::modern_error(method, &rpc.raw)),
                Tongue::Legacy | Tongue::Modern => None,
            };
            let text = build::reply(id, "error", raw.as_deref().unwrap_or(&rpc.raw));
            let status = match tongue {
                Tongue::Legacy => 200,
                Tongue::Modern | Tongue::Translated { .. } => front::modern_status(rpc.code),
            };
            Out::Answer(status, text)
        }
        CallError::Busy => {
            let text = build::error(Some(id), INTERNAL_ERROR, &error.to_string());
            Out::Busy(text, Again::later(Some(BUSY_SECS)))
        }
        CallError::Cancelled => cancelled(id),
        CallError::TimedOut { .. }
        | CallError::Closed(_)
        | CallError::Unsent(_)
        | CallError::TooLong { .. }
        | CallError::Params
        | CallError::List(_) => Out::Answer(200, build::error(Some(id), INTERNAL_ERROR, &error.to_string())),
    }
}

/// What the client of a request is told that it took back itself.
pub(crate) fn cancelled(id: &RawValue) -> Out {
    Out::Answer(200, build::error(Some(id), CANCELLED, "request was cancelled"))
}

/// The version that a client which asks for `asked` gets from a server that speaks `served`: the
/// older of the two, because neither knows what the newer has.
#[must_use]
pub fn negotiated(asked: Option<&str>, served: &str) -> &'static str {
    let known = |version: &str| crate::mcp::wire::LEGACY_VERSIONS.into_iter().find(|ours| *ours == version);
    let served = known(served).unwrap_or(LEGACY_LATEST);
    asked.and_then(known).map_or(served, |asked| if asked < served { asked } else { served })
}

/// A call of a legacy client at a modern server, which may ask for input several times: each time
/// its client is asked in its session, and the call is sent again with the answers.
#[derive(Debug)]
pub struct Rounds {
    session: Arc<Session>,
    method: String,
    params: Option<Box<RawValue>>,
    left: u32,
    asking: Option<Asking>,
}

/// Answers of a round by the server's names for its questions, and the state to come back with.
pub type RoundAnswers<'a> = (&'a [(String, Box<RawValue>)], Option<&'a RawValue>);

/// What was asked in this round.
#[derive(Debug)]
struct Asking {
    state: Option<Box<RawValue>>,
    waiting: VecDeque<(String, oneshot::Receiver<ClientAnswer>)>,
    answers: Vec<(String, Box<RawValue>)>,
}

impl Rounds {
    /// Before the first one.
    #[must_use]
    pub fn new(session: &Arc<Session>, method: &str, params: Option<&RawValue>) -> Self {
        Self {
            session: Arc::clone(session),
            method: method.to_owned(),
            params: params.map(ToOwned::to_owned),
            left: ROUNDS_MAX,
            asking: None,
        }
    }

    /// The params of the next round; `None` when the client's cannot carry what is needed.
    #[must_use]
    pub fn params(&self, answers: Option<RoundAnswers<'_>>) -> Option<Box<RawValue>> {
        // A legacy server logs before anybody asks it to.
        let level = self.session.log_level().unwrap_or_else(|| "info".to_owned());
        let with_answers = match answers {
            Some((answers, state)) => input::with_input_responses(self.params.as_deref(), answers, state),
            None => None,
        };
        translate::with_modern_meta(
            with_answers.as_deref().or(self.params.as_deref()),
            MODERN_LATEST,
            self.session.client.as_deref(),
            &self.session.capabilities,
            Some(&level),
        )
    }
}

impl Flow {
    /// The same, with the rounds of a modern server.
    #[must_use]
    pub fn in_rounds(mut self, rounds: Rounds) -> Self {
        self.rounds = Some(rounds);
        self
    }

    /// Puts the requests of an `input_required` result to the client; false when it is none.
    fn ask_for_input(&mut self, result: &RawValue) -> bool {
        let Some(rounds) = &mut self.rounds else { return false };
        let Some(required) = input::input_required(result) else { return false };
        let mut asking = Asking { state: required.state, waiting: VecDeque::new(), answers: Vec::new() };
        for request in required.requests {
            let id = rounds.session.ask_id();
            let (answer, waiting) = oneshot::channel();
            if !rounds.session.ask(&id, Asker::Call(answer)) {
                continue;
            }
            let text = build::request_as(&id, &request.method, request.params.as_deref());
            asking.waiting.push_back((request.key, waiting));
            self.ready.push_back(Out::Request(id, text));
        }
        rounds.asking = Some(asking);
        true
    }

    /// Waits for the client's answers and begins the next round; an error of the client, or of
    /// sending, is the answer.
    async fn next_round(&mut self) -> Option<Out> {
        let rounds = self.rounds.as_mut()?;
        let asking = rounds.asking.as_mut()?;
        while let Some((key, waiting)) = asking.waiting.front_mut() {
            let key = key.clone();
            let answer = tokio::time::timeout(self.silence, waiting).await;
            asking.waiting.pop_front();
            match answer {
                Ok(Ok(Ok(answer))) => asking.answers.push((key, answer)),
                Ok(Ok(Err(error))) => return Some(Out::Answer(200, build::reply(&self.id, "error", &error))),
                Ok(Err(_)) | Err(_) => {
                    let text = build::error(
                        Some(&self.id),
                        INTERNAL_ERROR,
                        "the client did not answer the server's request",
                    );
                    return Some(Out::Answer(200, text));
                }
            }
        }
        let asking = rounds.asking.take()?;
        if rounds.left == 0 {
            let text =
                build::error(Some(&self.id), INTERNAL_ERROR, "the server asked for input too many times");
            return Some(Out::Answer(200, text));
        }
        rounds.left -= 1;
        let params = rounds.params(Some((&asking.answers, asking.state.as_deref())));
        let (sink, events) = mpsc::channel(EVENTS_MAX);
        let call = Call {
            method: &rounds.method,
            params: params.as_deref(),
            own_id: None,
            events: Some(sink),
            on_drop: OnDrop::Leave,
        };
        match self.leg.start(call) {
            Ok(running) => {
                (self.running, self.events, self.quiet_since) = (running, events, Instant::now());
                None
            }
            Err(error) => Some(failed(&self.id, &self.tongue, &error, &mut self.timed)),
        }
    }
}
