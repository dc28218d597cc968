//! Clients of the modern era: every request stands alone.
//!
//! ```text
//! server        request
//! modern        passed on as it is, headers checked against the body and the tool's schema
//! legacy        translated: discovery from the greeting, subscriptions held here, results given
//!               the members that this era asks for
//! legacy, and   the call runs on an instance with the client's own capabilities. When the server
//! the client    asks for something, the call is parked and the client gets `input_required` with a
//! can be asked  sealed state; its retry wakes the call
//! ```
//! A client that goes away has cancelled its request.
//!
//! Must never resume a parked call for another principal or another request, and never twice.

mod relay;

use crate::gateway::body::{self, Response};
use crate::gateway::flow::resend::Sent;
use crate::gateway::flow::{Begin, Flow, Out, Tongue, answered};
use crate::gateway::hub::{Entry, Listener};
use crate::gateway::instances;
use crate::gateway::legacy::{JSON_WITHIN, busy, code};
use crate::gateway::metrics::Timed;
use crate::gateway::modern::relay::Relay;
use crate::gateway::parked::{Lent, Parked, Whose};
use crate::gateway::sessions::secret;
use crate::gateway::slot::{Live, Unavailable};
use crate::gateway::streams::{Greeting, Keep, Pushed, Stream, StreamKind};
use crate::gateway::traffic::{Admitted, Pass, Wanted};
use crate::gateway::{Ask, known, refused, tool_of, unavailable};
use crate::mcp::front::{self, Modern, Refusal};
use crate::mcp::wire::{Era, INVALID_PARAMS, Message, member, text_of};
use crate::mcp::{build, input, listen, seal, translate};
use crate::model::server::Sharing;
use crate::upstream::leg::{Greeting as Hello, Leg, OnDrop};
use crate::upstream::table::ServerRequest;
use hyper::StatusCode;
use serde_json::value::RawValue;
use std::sync::Arc;

/// How long a client may keep what discovery and lists say, in milliseconds; lists have their own
/// notifications.
const TTL_MS: u64 = 60_000;
/// A parked call waits this long for its client.
pub(crate) const PARKED_MS: i64 = 5 * 60 * 1000;

/// The id and the facts of a request that is in order; else the answer. Whatever a notification says here,
/// there is no session for it to change.
pub(super) fn checked<'m>(
    head: &front::Head<'_>,
    message: &'m Message<'m>,
) -> Result<(&'m RawValue, front::Modern<'m>), Box<Response>> {
    let answer = match (message, front::check_modern(head, message)) {
        (Message::Request { id, .. }, Ok(facts)) => return Ok((*id, facts)),
        (Message::Request { id, .. }, Err(refusal)) => refused(Some(id), &refusal),
        (_, Err(refusal)) => refused(None, &refusal),
        (_, Ok(_)) => body::empty(StatusCode::ACCEPTED),
    };
    Err(Box::new(answer))
}

/// A message of a modern client.
pub(crate) async fn post(ask: &Ask<'_>, message: Message<'_>) -> Response {
    let (id, facts) = match checked(ask.head, &message) {
        Ok(checked) => checked,
        Err(answer) => return *answer,
    };
    let Message::Request { method, params, .. } = &message else {
        return body::empty(StatusCode::ACCEPTED);
    };
    if !front::known_method_modern(method) {
        return refused(Some(id), &front::unknown_method(method));
    }
    let inward = match ask.lens {
        Some(lens) => lens.inward(ask.entry, method, *params).await,
        None => Ok(None),
    };
    match inward {
        Ok(changed) => serve(ask, id, (method, changed.as_deref().or(*params)), &facts).await,
        Err(refusal) => {
            ask.refused_call(id, (method, *params));
            body::json(code(refusal.status), refusal.body(Some(id)))
        }
    }
}

/// A request that was checked, under the server's own names.
pub(crate) async fn serve(
    ask: &Ask<'_>,
    id: &RawValue,
    (method, params): (&str, Option<&RawValue>),
    facts: &Modern<'_>,
) -> Response {
    if !ask.entry.carries(ask.origin)
        && let Some(kept) = known::modern_answer(ask, id, (method, params))
    {
        return kept;
    }
    // Subscriptions are those of the connection that outlives them.
    let from = (method != listen::LISTEN).then_some((ask.gateway, ask.origin));
    let tied = if ask.entry.carries(ask.origin) { None } else { ask.entry.tied(params) };
    let is_tied = tied.is_some();
    let found = match tied {
        Some(found) => Ok(found),
        None => ask.entry.anywhere(from, 0).await,
    };
    let (at, live) = match found {
        Ok(found) => found,
        Err(why) => return unavailable(Some(id), &why),
    };
    let ask = &Ask { entry: at.as_ref().unwrap_or(ask.entry), ..*ask };
    let call = Asked { ask, id, method, params, facts, is_tied };
    match live.leg.greeting().era {
        Era::Modern => call.passed_on(&live).await,
        Era::Legacy => call.translated(&live).await,
    }
}

/// One request, checked.
struct Asked<'a> {
    ask: &'a Ask<'a>,
    id: &'a RawValue,
    method: &'a str,
    params: Option<&'a RawValue>,
    facts: &'a Modern<'a>,
    /// Only this instance knows what it is about.
    is_tied: bool,
}

impl Asked<'_> {
    fn timed(&self, tool: &str) -> Timed {
        let what = (self.method, tool);
        Timed::start(&self.ask.entry.metrics, what.0, what.1).by(self.ask.origin, what, Some(self.id))
    }

    /// Whether it may go, and its measure; the answer if it need not or may not.
    async fn admitted(&self, shared: bool, tongue: &Tongue) -> Result<(Option<Box<Pass>>, Timed), Out> {
        let tool = tool_of(self.method, self.params);
        let mut timed = self.timed(&tool);
        let (method, params, who) = (self.method, self.params, &self.ask.origin.who);
        match self.ask.entry.admit(&Wanted { method, params, tool: &tool, who, shared }).await {
            Ok(Admitted::Go(pass)) => Ok((pass, timed)),
            Ok(Admitted::Kept(result)) => {
                timed.done(true, result.get().len());
                let lens = self.ask.lens.map(|lens| (&**lens, method));
                Err(answered(self.id, result, (tongue, false), lens))
            }
            Err(denied) => {
                timed.refused();
                Err(denied.out(self.id))
            }
        }
    }

    /// Sends it over `leg`, which is of `entry` where it is shared; what was let through for it, and its
    /// measure, go along.
    fn flow(
        &self,
        (leg, shared): (&Leg, Option<&Arc<Entry>>),
        params: Option<&RawValue>,
        tongue: Tongue,
        (pass, timed): (Option<Box<Pass>>, Timed),
    ) -> Result<Flow, Out> {
        let on_drop = OnDrop::Cancel;
        let silence = pass
            .as_ref()
            .and_then(|pass| pass.timeout)
            .unwrap_or_else(|| self.ask.entry.silence(self.method));
        let (id, method) = (self.id, self.method);
        let sent = shared.map(|entry| Sent { entry, method, params, on_drop, marker: None });
        Flow::begin(Begin { leg, id, method, params, tongue, on_drop, silence, timed })
            .map(|flow| flow.through(self.ask.lens, method).with_pass(pass, sent))
    }

    /// Where it goes after a wait for its turn, if it is `free` to go to another instance.
    fn elsewhere(
        &self,
        live: &Arc<Live>,
        free: bool,
        admitted: &mut (Option<Box<Pass>>, Timed),
    ) -> Option<(Arc<Entry>, Arc<Live>)> {
        let what = (self.method, self.params);
        if free { instances::after_waiting(self.ask, live, what, admitted) } else { None }
    }

    /// To a modern server.
    async fn passed_on(&self, live: &Arc<Live>) -> Response {
        if let Some(refused) = self.headers_differ(live).await {
            return refused;
        }
        if self.method == listen::LISTEN {
            return self.relayed(live);
        }
        let shared = !self.ask.entry.carries(self.ask.origin);
        let flow = match self.admitted(shared, &Tongue::Modern).await {
            Ok(mut admitted) => {
                let other = self.elsewhere(live, !self.is_tied, &mut admitted);
                let (entry, live) = other.as_ref().map_or((self.ask.entry, live), |(at, live)| (at, live));
                self.flow((&live.leg, shared.then_some(entry)), self.params, Tongue::Modern, admitted)
            }
            Err(out) => Err(out),
        };
        match flow {
            Ok(flow) => deliver(flow, None).await,
            Err(out) => at_once(out),
        }
    }

    /// A subscription that the server holds.
    fn relayed(&self, live: &Arc<Live>) -> Response {
        let stream = Stream::unstored(StreamKind::Get);
        let body = stream.body(Greeting::None);
        let relay = Relay {
            entry: Arc::clone(self.ask.entry),
            id: self.id.to_owned(),
            params: self.params.map(ToOwned::to_owned),
            stream,
            timed: self.timed(""),
        };
        tokio::spawn(relay.run(Arc::clone(live)));
        body::events(body)
    }

    /// The refusal of a call whose headers say something else than its arguments, where the tool's
    /// schema wants arguments in headers.
    async fn headers_differ(&self, live: &Arc<Live>) -> Option<Response> {
        if self.method != "tools/call" {
            return None;
        }
        let name = self.params.and_then(|params| member(params, "name")).and_then(text_of)?;
        let shared = self.ask.entry.slot.live();
        let schemas = self.ask.entry.schemas(shared.as_ref().unwrap_or(live)).await;
        let schema = schemas.get(name.as_ref())?;
        let arguments = self.params.and_then(|params| member(params, "arguments"));
        let refusal = front::check_params(self.ask.head, schema, arguments).err()?;
        Some(refused(Some(self.id), &refusal))
    }

    /// To a legacy server.
    async fn translated(&self, live: &Arc<Live>) -> Response {
        let greeting = live.leg.greeting();
        match self.method {
            "server/discover" => return self.discovered(greeting),
            listen::LISTEN => return self.listen(live),
            _ => {}
        }
        let mut given = Vec::new();
        if let Some((responses, state)) = input::input_responses(self.params) {
            if let Some(state) = state {
                return self.resumed(responses, &state).await;
            }
            // Answers without a state belong to a call that nothing is known of: they are kept for
            // what this one will ask.
            given = responses;
        }
        if let Some(refused) = self.headers_differ(live).await {
            return refused;
        }
        let params = translate::without_modern_meta(self.params);
        let server_info: Option<Arc<RawValue>> = greeting
            .server
            .as_ref()
            .and_then(|server| member(&server.raw, "serverInfo"))
            .map(|info| Arc::from(info.to_owned()));
        let tongue = Tongue::Translated {
            method: Arc::from(self.method),
            server_info,
            log_level: self.facts.log_level.as_deref().map(Arc::from),
        };
        let alone = self.can_be_asked() && input::may_require_input(self.method);
        let carried = self.ask.entry.carries(self.ask.origin);
        let mut admitted = match self.admitted(!alone && !carried, &tongue).await {
            Ok(admitted) => admitted,
            Err(out) => return at_once(out),
        };
        let mut lent = match self.lent().await {
            Ok(lent) => lent,
            Err(why) => return unavailable(Some(self.id), &why),
        };
        let other = self.elsewhere(live, lent.is_none(), &mut admitted);
        let (entry, live) = other.as_ref().map_or((self.ask.entry, live), |(at, live)| (at, live));
        let leg = lent.as_ref().map_or(&live.leg, |lent| lent.leg());
        if let Some(level) = &self.facts.log_level {
            set_level(leg, level);
        }
        let shared = (lent.is_none() && !carried).then_some(entry);
        match self.flow((leg, shared), params.as_deref(), tongue, admitted) {
            Ok(mut flow) => {
                if input::may_require_input(self.method)
                    && let Some(lent) = &mut lent
                {
                    flow.asked_before(lent.owed());
                }
                deliver(flow, lent.map(|lent| Waits::of(self, lent, given))).await
            }
            Err(out) => at_once(out),
        }
    }

    /// What a legacy server says of itself, in the modern form.
    fn discovered(&self, greeting: &Hello) -> Response {
        let server = greeting.server.as_ref();
        match server.and_then(|server| translate::discover_result(&server.raw, TTL_MS)) {
            Some(result) => body::json(StatusCode::OK, build::result(self.id, &result)),
            None => {
                let why = Unavailable::Later("the server said nothing of itself".to_owned());
                unavailable(Some(self.id), &why)
            }
        }
    }

    /// An instance that knows what this client can do, where that matters.
    async fn lent(&self) -> Result<Option<Lent>, Unavailable> {
        let asks = input::may_require_input(self.method);
        if !self.can_be_asked() || !(asks || self.method.ends_with("/list")) {
            return Ok(None);
        }
        let whose = Whose {
            principal: self.ask.principal,
            origin: self.ask.origin,
            capabilities: self.facts.client_capabilities,
            client: self.facts.client_info,
            in_turn: !asks,
        };
        match self.ask.gateway.lend(&self.ask.entry.for_own(), whose).await {
            // What every client may use is better than nothing.
            Err(_) if !asks => Ok(None),
            lent => lent,
        }
    }

    /// Whether the server could ask this client for something.
    fn can_be_asked(&self) -> bool {
        let shared = self.ask.entry.slot.place().is_some_and(|place| place.sharing == Sharing::Shared);
        let declared = |name: &str| member(self.facts.client_capabilities, name).is_some();
        !shared && ["sampling", "elicitation", "roots"].iter().any(|name| declared(name))
    }

    /// A subscription that the gateway holds on behalf of a client.
    fn listen(&self, live: &Live) -> Response {
        let Some(filter) = listen::listen_filter(self.params) else {
            let refusal = Refusal::new(400, INVALID_PARAMS, "params.notifications is missing");
            return refused(Some(self.id), &refusal);
        };
        let capabilities = live.leg.server_info().and_then(|server| server.capabilities());
        let filter = filter.supported(capabilities);
        let stream = Stream::unstored(StreamKind::Get);
        let body = stream.body(Greeting::None);
        stream.push(&listen::acknowledged(self.id, &filter), Keep::Must);
        let (id, generation, replica) = (self.id.to_owned(), live.generation, self.ask.entry.replica);
        let listener = Listener { id, filter, stream, generation, replica };
        self.ask.entry.listen(self.ask.gateway, &live.leg, listener);
        body::events(body)
    }

    /// The retry of a parked call.
    async fn resumed(&self, responses: Vec<(String, Box<RawValue>)>, state: &str) -> Response {
        let invalid = |why: &str| refused(Some(self.id), &Refusal::new(400, INVALID_PARAMS, why));
        let key = &self.ask.gateway.seal_key;
        let opened = seal::open(key, state);
        let Some(opened) = opened.as_deref().and_then(seal::Parked::from_text) else {
            return invalid("requestState is not one of this server's");
        };
        let digest = seal::digest(self.method, self.params);
        let now = self.ask.gateway.shared.clock.now().0;
        if !opened.fits(self.ask.principal, &digest, now) {
            return invalid("requestState belongs to another request, another client, or is too old");
        }
        let Some(parked) = self.ask.gateway.unpark(&opened.call) else {
            return invalid("the call that this requestState belongs to is over");
        };
        let Parked { mut flow, lent, wants, .. } = parked;
        flow.rename(self.id, self.params);
        let mut waits = Waits::of(self, lent, responses);
        let left = waits.settle(&flow, wants);
        if left.is_empty() {
            return deliver(flow, Some(waits)).await;
        }
        waits.ask(flow, left)
    }
}

/// A server that was told another level by an earlier call must hear this one's.
fn set_level(leg: &Leg, level: &str) {
    let params = format!(r#"{{"level":{}}}"#, serde_json::Value::from(level));
    if let Ok(params) = RawValue::from_string(params)
        && let Ok(running) = leg.start(crate::upstream::leg::Call {
            on_drop: OnDrop::Leave,
            ..crate::upstream::leg::Call::new("logging/setLevel", Some(&params))
        })
    {
        // Its answer does not matter; the next message comes after it on the same pipe.
        drop(running);
    }
}

/// What a call needs to be parked.
struct Waits {
    lent: Lent,
    /// Whether this method's answer can ask for input.
    can_ask: bool,
    gateway: Arc<crate::gateway::Gateway>,
    principal: Arc<str>,
    digest: String,
    capabilities: Box<RawValue>,
    server_info: Option<Box<RawValue>>,
    /// Answers that nobody has asked for yet.
    given: Vec<(String, Box<RawValue>)>,
}

impl Waits {
    fn of(asked: &Asked<'_>, lent: Lent, given: Vec<(String, Box<RawValue>)>) -> Self {
        let info = lent.leg().server_info().and_then(|server| member(&server.raw, "serverInfo"));
        Self {
            server_info: info.map(ToOwned::to_owned),
            lent,
            can_ask: input::may_require_input(asked.method),
            gateway: Arc::clone(asked.ask.gateway),
            principal: Arc::clone(asked.ask.principal),
            digest: seal::digest(asked.method, asked.params),
            capabilities: asked.facts.client_capabilities.to_owned(),
            given,
        }
    }

    /// Gives the server the answers that are there; what is left must be asked for.
    fn settle(&mut self, flow: &Flow, wants: Vec<(String, ServerRequest)>) -> Vec<(String, ServerRequest)> {
        let mut left = Vec::new();
        for (name, request) in wants {
            match self.given.iter().position(|(key, _)| *key == name) {
                Some(at) => {
                    let (_, answer) = self.given.remove(at);
                    flow.leg().reply(&request.id, Ok(&answer));
                }
                None => left.push((name, request)),
            }
        }
        left
    }

    /// Parks the call and tells its client what the server wants.
    fn ask(self, flow: Flow, wants: Vec<(String, ServerRequest)>) -> Response {
        let Self { lent, gateway, principal, digest, capabilities, server_info, .. } = self;
        let cannot = wants.iter().find(|(_, request)| {
            !input::can_be_asked(&capabilities, &request.method, request.params.as_deref())
        });
        if let Some((_, request)) = cannot {
            // Dropping the flow tells the server.
            let capability = input::capability_of(&request.method).unwrap_or("elicitation");
            return refused(Some(flow.id()), &front::missing_capability(capability));
        }
        let shown: Vec<(String, &str, Option<&RawValue>)> = wants
            .iter()
            .map(|(name, request)| (name.clone(), request.method.as_str(), request.params.as_deref()))
            .collect();
        let id = flow.id().to_owned();
        let expires_ms = gateway.shared.clock.now().0.saturating_add(PARKED_MS);
        // Without randomness a call cannot be taken up again.
        let call = secret().unwrap_or_default();
        let state = seal::Parked { call: call.clone(), principal: principal.to_string(), digest, expires_ms };
        let state = seal::seal(&gateway.seal_key, &state.to_text());
        let result = input::input_required_result(&shown, Some(&state), server_info.as_deref());
        let text = build::result(&id, &result);
        drop(shown);
        gateway.park(call, Parked { flow, lent, wants, expires_ms });
        body::json(StatusCode::OK, text)
    }
}

/// The names under which a client is asked: the server's own where they are words.
fn named(wants: Vec<ServerRequest>) -> Vec<(String, ServerRequest)> {
    let name = |(n, request): (usize, ServerRequest)| {
        let own = crate::mcp::wire::text_of(&request.id).map(std::borrow::Cow::into_owned);
        (own.unwrap_or_else(|| format!("input-{}", n + 1)), request)
    };
    wants.into_iter().enumerate().map(name).collect()
}

fn at_once(out: Out) -> Response {
    match out {
        Out::Answer(status, text) => body::json(code(status), text),
        Out::Busy(text, secs) => busy(text, secs),
        Out::Notice(_) | Out::Request(..) | Out::Wants(_) => body::empty(StatusCode::ACCEPTED),
    }
}

/// The answer as JSON when nothing comes before it, else as an event stream.
async fn deliver(mut flow: Flow, mut waits: Option<Waits>) -> Response {
    let json_until = tokio::time::Instant::now() + JSON_WITHIN;
    loop {
        let first = tokio::select! {
            biased;
            out = flow.next() => Some(out),
            () = tokio::time::sleep_until(json_until) => None,
        };
        match (first, waits.take()) {
            (Some(Out::Wants(wants)), Some(mut asking)) => {
                let left = asking.settle(&flow, named(wants));
                if !left.is_empty() && asking.can_ask {
                    return asking.ask(flow, left);
                }
                asking.lent.owe(left.into_iter().map(|(_, request)| request).collect());
                waits = Some(asking);
            }
            (Some(out @ (Out::Answer(..) | Out::Busy(..))), _) => return at_once(out),
            (first, waits) => return streamed(flow, first, waits),
        }
    }
}

fn streamed(mut flow: Flow, first: Option<Out>, waits: Option<Waits>) -> Response {
    let stream = Stream::unstored(StreamKind::Post);
    let body = stream.body(Greeting::None);
    tokio::spawn(async move {
        let mut waits = waits;
        let mut next = first;
        loop {
            let out = match next.take() {
                Some(out) => out,
                None => tokio::select! {
                    biased;
                    // Dropping the flow tells the server.
                    () = stream.abandoned() => return,
                    out = flow.next() => out,
                },
            };
            match out {
                Out::Notice(text) | Out::Request(_, text) => {
                    if stream.push(&text, Keep::May) == Pushed::Dropped {
                        flow.dropped();
                    }
                }
                Out::Answer(_, text) | Out::Busy(text, _) => {
                    stream.finish_with(&text);
                    return;
                }
                Out::Wants(wants) => {
                    let Some(mut asking) = waits.take() else { continue };
                    let left = asking.settle(&flow, named(wants));
                    if !left.is_empty() && asking.can_ask {
                        if let body::Body::Full(text) = asking.ask(flow, left).into_body() {
                            stream.finish_with(&String::from_utf8_lossy(&text));
                        }
                        return;
                    }
                    asking.lent.owe(left.into_iter().map(|(_, request)| request).collect());
                    waits = Some(asking);
                }
            }
        }
    });
    body::events(body)
}
