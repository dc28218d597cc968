//! Sessions as a state machine: any interleaving of what clients, servers and the world do to them.
//!
//! Servers are played, clients call what requests from the network call, and time is the runtime's.
//! Held here: every request gets its answer exactly once and on its own answer alone, whatever else
//! happens; and when all sessions have ended nothing of them is left anywhere.

use crate::gateway::body::{Body, Response};
use crate::gateway::hub::Entry;
use crate::gateway::legacy;
use crate::gateway::origin::{Door, Origin};
use crate::gateway::places::{END_WITHIN, Keeper, Opened, Opener, Place};
use crate::gateway::played::{Act, Played, RETRY, Stage, id, place, shared};
use crate::gateway::slot::Shared;
use crate::gateway::{Ask, Gateway};
use crate::mcp::front::Head;
use crate::mcp::wire::{Era, read};
use crate::model::id::ServerId;
use crate::world::Answer;
use crate::world::fake::FakeSessions;
use http_body_util::BodyExt as _;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// What one case does, one after the other, without waiting for what it began.
#[derive(Clone, Debug)]
enum Op {
    /// A client comes; it can be asked something or not.
    Open(bool),
    /// A call in a session.
    Call(usize, Kind),
    /// A server answers a call that it holds.
    Answer(usize),
    /// A server reports progress on such a call.
    Progress(usize),
    /// A client listens, or listens anew.
    Listen(usize),
    /// It stops listening.
    Unlisten(usize),
    /// It takes its last request back.
    Cancel(usize),
    /// A session ends.
    Delete(usize),
    /// All servers die.
    Crash,
    /// All servers have news.
    News,
    /// Time passes, in milliseconds.
    Wait(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Answered at once.
    Echo,
    /// Answered when the case says so.
    Hold,
    /// The server asks the client first.
    Ask,
}

fn op() -> impl Strategy<Value = Op> {
    let kind = prop_oneof![2 => Just(Kind::Echo), 2 => Just(Kind::Hold), 1 => Just(Kind::Ask)];
    prop_oneof![
        3 => any::<bool>().prop_map(Op::Open),
        8 => (0..4_usize, kind).prop_map(|(session, kind)| Op::Call(session, kind)),
        3 => (0..4_usize).prop_map(Op::Answer),
        2 => (0..4_usize).prop_map(Op::Progress),
        2 => (0..4_usize).prop_map(Op::Listen),
        1 => (0..4_usize).prop_map(Op::Unlisten),
        1 => (0..4_usize).prop_map(Op::Cancel),
        1 => (0..4_usize).prop_map(Op::Delete),
        1 => Just(Op::Crash),
        1 => Just(Op::News),
        3 => prop_oneof![Just(1_u64), Just(50), Just(600), Just(11_000)].prop_map(Op::Wait),
    ]
}

/// A call that a server holds: whom to tell, and the call.
type Held = (mpsc::UnboundedSender<String>, Value);

/// The servers' side.
#[derive(Default)]
struct Backstage {
    held: Mutex<Vec<Held>>,
    say: Mutex<Vec<mpsc::UnboundedSender<String>>>,
}

impl Backstage {
    /// Plays one server.
    async fn play(self: Arc<Self>, era: Era, mut played: Played) {
        let mut asking: BTreeMap<String, Value> = BTreeMap::new();
        self.say.lock().unwrap().push(played.say.clone());
        while let Some(heard) = played.heard.recv().await {
            let tag = heard.pointer("/params/arguments/tag").cloned().unwrap_or_default();
            match heard.pointer("/params/name").and_then(Value::as_str) {
                Some("Echo") => played.answer(&heard, &result(era, &tag)),
                Some("Hold") => self.held.lock().unwrap().push((played.say.clone(), heard)),
                Some("Ask") if era == Era::Modern && heard.pointer("/params/inputResponses").is_none() => {
                    let asks = json!({"q": {"method": "roots/list"}});
                    let wants =
                        json!({"resultType": "input_required", "inputRequests": asks, "requestState": tag});
                    played.answer(&heard, &wants);
                }
                Some("Ask") if era == Era::Modern => {
                    assert_eq!(
                        heard.pointer("/params/requestState"),
                        Some(&tag),
                        "the state of another call"
                    );
                    played.answer(&heard, &result(era, &tag));
                }
                Some("Ask") => {
                    let name = format!("q{}", asking.len());
                    played.tell(&json!({"jsonrpc": "2.0", "id": name, "method": "roots/list"}));
                    asking.insert(name, heard);
                }
                // An answer of a client, or an error: either lets the call go on.
                None if heard.get("method").is_none() => {
                    let asked = heard["id"].as_str().and_then(|name| asking.remove(name));
                    let call = asked.expect("an answer to a question of this server, once");
                    let tag = call.pointer("/params/arguments/tag").cloned().unwrap_or_default();
                    played.answer(&call, &result(era, &tag));
                }
                None if heard["method"] == "tools/list" => {
                    let mut none = json!({"tools": []});
                    if era == Era::Modern {
                        none["resultType"] = json!("complete");
                    }
                    played.answer(&heard, &none);
                }
                _ => {}
            }
        }
    }
}

impl Backstage {
    fn progress(&self, nth: usize) {
        let held = self.held.lock().unwrap();
        let Some((say, call)) = held.get(nth % held.len().max(1)) else { return };
        let params = json!({
            "progressToken": call["params"]["_meta"]["progressToken"], "progress": 1,
            "message": call["params"]["arguments"]["tag"],
        });
        let notice = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params});
        let _gone = say.send(notice.to_string());
    }

    fn crash(&self) {
        self.held.lock().unwrap().clear();
        for say in self.say.lock().unwrap().drain(..) {
            let _gone = say.send(crate::gateway::played::EXIT.to_owned());
        }
    }

    fn news(&self) {
        let news = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}).to_string();
        for say in self.say.lock().unwrap().iter() {
            let _gone = say.send(news.clone());
        }
    }
}

fn result(era: Era, tag: &Value) -> Value {
    let mut result = json!({"content": [{"type": "text", "text": tag}]});
    if era == Era::Modern {
        result["resultType"] = json!("complete");
    }
    result
}

/// One client.
struct Client {
    session: String,
    asks: bool,
    last: Option<u64>,
    listening: Option<JoinHandle<()>>,
}

#[derive(Clone)]
struct World {
    gateway: Arc<Gateway>,
    entry: Arc<Entry>,
    next: Arc<AtomicU64>,
}

/// Where requests of this test come from.
fn origin() -> Origin {
    Origin::new(&Arc::from("local"), Door::Mcp)
}

const JSON_OR_EVENTS: &str = "application/json, text/event-stream";

impl World {
    async fn post(&self, session: Option<&str>, body: Value) -> Response {
        let head = Head {
            content_type: Some("application/json"),
            accept: Some(JSON_OR_EVENTS),
            protocol_version: session.map(|_| "2025-11-25"),
            session,
            ..Head::default()
        };
        let (body, origin) = (body.to_string(), origin());
        let ask = self.ask(&head, &origin, body.as_bytes());
        legacy::post(&ask, read(body.as_bytes()).expect("a message")).await
    }

    fn ask<'a>(&'a self, head: &'a Head<'a>, origin: &'a Origin, body: &'a [u8]) -> Ask<'a> {
        let principal = &origin.identity;
        Ask { gateway: &self.gateway, entry: &self.entry, head, principal, origin, body, lens: None }
    }

    async fn open(&self, asks: bool) -> Option<Client> {
        let capabilities = if asks { json!({"roots": {}}) } else { json!({}) };
        let params = json!({"protocolVersion": "2025-11-25", "capabilities": capabilities,
                            "clientInfo": {"name": "machine", "version": "1"}});
        let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
        let response = self.post(None, hello).await;
        let session = response.headers().get("mcp-session-id")?.to_str().ok()?.to_owned();
        Some(Client { session, asks, last: None, listening: None })
    }

    /// Sends a call and reads its answer to the end; gives what is wrong with it.
    async fn call(self, session: String, id: u64, kind: Kind) -> Vec<String> {
        let tag = format!("{session}-{id}");
        let params = json!({"name": format!("{kind:?}"), "arguments": {"tag": tag},
                            "_meta": {"progressToken": 1}});
        let body = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
        let response = self.post(Some(&session), body).await;
        let status = response.status().as_u16();
        let (mut answers, mut wrong) = (0, Vec::new());
        let mut streamed = false;
        let mut messages = messages(response.into_body(), &mut streamed);
        while let Some(message) = messages.recv().await {
            if message["method"] == "roots/list" {
                let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": {"roots": []}});
                let taken = self.post(Some(&session), answer).await.status().as_u16();
                if !matches!(taken, 202 | 404) {
                    wrong.push(format!("{tag}: an answer got {taken}"));
                }
            } else if message["method"] == "notifications/progress" {
                if message.pointer("/params/message") != Some(&json!(tag)) || answers > 0 {
                    wrong.push(format!("{tag}: progress of another, or after the answer: {message}"));
                }
            } else {
                answers += 1;
                let own = message["id"] == id || (status == 404 && message["id"].is_null());
                let text = message.pointer("/result/content/0/text");
                if !own || text.is_some_and(|text| *text != json!(tag)) {
                    wrong.push(format!("{tag}: another's answer: {message}"));
                }
            }
        }
        let ended = self.gateway.sessions.find(&session, &self.entry.slot.id, "local").is_none();
        if answers > 1 || (answers == 0 && !(streamed && ended)) {
            wrong.push(format!("{tag}: {answers} answers, status {status}, ended {ended}"));
        }
        wrong
    }

    async fn cancel(&self, client: &Client) {
        let Some(id) = client.last else { return };
        let params = json!({"requestId": id});
        let body = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params});
        drop(self.post(Some(&client.session), body).await);
    }

    fn get(&self, session: &str) -> Response {
        let head = Head {
            accept: Some("text/event-stream"),
            protocol_version: Some("2025-11-25"),
            session: Some(session),
            ..Head::default()
        };
        legacy::get(&self.ask(&head, &origin(), b""))
    }

    fn delete(&self, client: Client) {
        if let Some(listening) = client.listening {
            listening.abort();
        }
        let head = Head { session: Some(&client.session), ..Head::default() };
        drop(legacy::delete(&self.ask(&head, &origin(), b"")));
    }
}

/// The messages of an answer.
fn messages(body: Body, streamed: &mut bool) -> mpsc::UnboundedReceiver<Value> {
    match body {
        Body::Events(events) => {
            *streamed = true;
            crate::gateway::played::events(events)
        }
        Body::Empty | Body::Other(_) => mpsc::unbounded_channel().1,
        full @ Body::Full(_) => {
            let (tell, told) = mpsc::unbounded_channel();
            tokio::spawn(async move {
                let bytes = full.collect().await.expect("a body").to_bytes();
                let _gone = tell.send(serde_json::from_slice(&bytes).expect("JSON"));
            });
            told
        }
    }
}

/// One case under way.
struct Run {
    era: Era,
    world: World,
    backstage: Arc<Backstage>,
    clients: Vec<Client>,
    calls: Vec<JoinHandle<Vec<String>>>,
}

impl Run {
    fn new(era: Era) -> Self {
        let (stage, mut on_stage) = Stage::new(&[], Act::Serve(era));
        let gateway = Gateway::new(shared(&stage), Arc::new(FakeSessions::default()), [7; 32]);
        let name = id("a");
        gateway.set_places(&BTreeMap::from([(name.clone(), place("one", RETRY))]));
        let entry = gateway.entry(&name).expect("a server");
        let backstage = Arc::new(Backstage::default());
        let behind = Arc::clone(&backstage);
        tokio::spawn(async move {
            while let Some(played) = on_stage.recv().await {
                tokio::spawn(Arc::clone(&behind).play(era, played));
            }
        });
        let world = World { gateway, entry, next: Arc::default() };
        Self { era, world, backstage, clients: Vec::new(), calls: Vec::new() }
    }

    async fn step(&mut self, op: Op) {
        let many = self.clients.len().max(1);
        match op {
            Op::Open(asks) if self.clients.len() < 4 => self.clients.extend(self.world.open(asks).await),
            Op::Call(nth, kind) => {
                let Some(client) = self.clients.get_mut(nth % many) else { return };
                let kind = if client.asks || kind != Kind::Ask { kind } else { Kind::Echo };
                let id = self.world.next.fetch_add(1, Ordering::Relaxed) + 100;
                client.last = Some(id);
                self.calls.push(tokio::spawn(self.world.clone().call(client.session.clone(), id, kind)));
            }
            Op::Answer(nth) => answer(&self.backstage, self.era, nth),
            Op::Progress(nth) => self.backstage.progress(nth),
            Op::Listen(nth) => {
                let Some(client) = self.clients.get_mut(nth % many) else { return };
                let listening = listen(self.world.get(&client.session));
                if let Some(earlier) = client.listening.replace(listening) {
                    earlier.abort();
                }
            }
            Op::Unlisten(nth) => {
                let client = self.clients.get_mut(nth % many);
                if let Some(listening) = client.and_then(|client| client.listening.take()) {
                    listening.abort();
                }
            }
            Op::Cancel(nth) => {
                if let Some(client) = self.clients.get(nth % many) {
                    self.world.cancel(client).await;
                }
            }
            Op::Delete(nth) if nth < self.clients.len() => self.world.delete(self.clients.remove(nth)),
            Op::Open(_) | Op::Delete(_) => {}
            Op::Crash => self.backstage.crash(),
            Op::News => self.backstage.news(),
            Op::Wait(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
        }
    }
}

/// Reads what belongs to no request: no answer may be among it.
fn listen(response: Response) -> JoinHandle<()> {
    let mut heard = messages(response.into_body(), &mut false);
    tokio::spawn(async move {
        while let Some(message) = heard.recv().await {
            let fine = message.get("method").is_some() || message.get("error").is_some();
            assert!(fine, "an answer: {message}");
        }
    })
}

async fn run(era: Era, ops: Vec<Op>) {
    let mut run = Run::new(era);
    for op in ops {
        run.step(op).await;
        tokio::task::yield_now().await;
    }
    come_to_rest(era, &run.world, (run.clients, run.calls), &run.backstage).await;
}

fn answer(backstage: &Backstage, era: Era, nth: usize) {
    let mut held = backstage.held.lock().unwrap();
    if held.is_empty() {
        return;
    }
    let at = nth % held.len();
    let (say, call) = held.remove(at);
    let tag = &call["params"]["arguments"]["tag"];
    let text = json!({"jsonrpc": "2.0", "id": call["id"], "result": result(era, tag)}).to_string();
    let _gone = say.send(text);
}

/// Everything is answered, every session ends, and nothing is left.
async fn come_to_rest(
    era: Era,
    world: &World,
    (clients, calls): (Vec<Client>, Vec<JoinHandle<Vec<String>>>),
    backstage: &Backstage,
) {
    let mut wrong = Vec::new();
    let done = async {
        for call in calls {
            wrong.extend(call.await.expect("a call"));
        }
    };
    let answers = async {
        loop {
            answer(backstage, era, 0);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let limit = Duration::from_secs(600);
    tokio::select! {
        () = done => {}
        () = answers => {}
        () = tokio::time::sleep(limit) => panic!("calls go on for ever"),
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for session in world.gateway.sessions.of(&world.entry.slot.id) {
        assert_eq!(session.under_way(), (0, 0), "requests and questions of a session at rest");
    }
    clients.into_iter().for_each(|client| world.delete(client));
    // Instances of clients' own have a while to end.
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(world.gateway.sessions.count(), 0);
    assert_eq!(world.entry.own_count(), 0, "instances of clients' own");
    let live = world.entry.slot.ready().await.expect("a server");
    assert_eq!(live.leg.working(), 0, "requests that nobody waits for");
    assert_eq!(world.entry.slot.parked(), 0);
}

/// Servers whose instances take all the time they may have to end.
struct Stubborn {
    stage: Arc<Stage>,
    ended: Arc<AtomicU64>,
}

struct Slow(Arc<AtomicU64>);

impl Keeper for Slow {
    fn end(
        self: Box<Self>,
    ) -> Pin<Box<dyn Future<Output = Option<crate::gateway::places::HowEnded>> + Send>> {
        Box::pin(async move {
            tokio::time::sleep(END_WITHIN).await;
            self.0.fetch_add(1, Ordering::Relaxed);
            None
        })
    }
}

impl Opener for Stubborn {
    fn shared<'a>(&'a self, server: &'a ServerId, place: &'a Place) -> Answer<'a, Opened> {
        self.stage.shared(server, place)
    }

    fn dedicated<'a>(&'a self, server: &'a ServerId, place: &'a Place) -> Answer<'a, Opened> {
        Box::pin(async move {
            let opened = self.stage.dedicated(server, place).await?;
            Ok(Opened { keeper: Some(Box::new(Slow(Arc::clone(&self.ended)))), ..opened })
        })
    }

    fn renew<'a>(&'a self, server: &'a ServerId, place: &'a Place) -> Answer<'a, ()> {
        self.stage.renew(server, place)
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_waits_for_instances_that_take_their_time() {
    let (stage, _on_stage) = Stage::new(&[], Act::Serve(Era::Legacy));
    let ended = Arc::new(AtomicU64::new(0));
    let opener = Arc::new(Stubborn { stage: Arc::clone(&stage), ended: Arc::clone(&ended) });
    let shared = Shared { opener, ..shared(&stage) };
    let gateway = Gateway::new(shared, Arc::new(FakeSessions::default()), [7; 32]);
    let name = id("a");
    gateway.set_places(&BTreeMap::from([(name.clone(), place("one", RETRY))]));
    let entry = gateway.entry(&name).expect("a server");
    let world = World { gateway: Arc::clone(&gateway), entry, next: Arc::default() };
    for _ in 0..3 {
        world.open(true).await.expect("a session");
    }
    gateway.stop().await;
    assert_eq!(ended.load(Ordering::Relaxed), 3, "side by side, to their end");
}

fn case(era: Era, ops: Vec<Op>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(run(era, ops));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_answer_finds_its_request_at_a_legacy_server(ops in proptest::collection::vec(op(), 1..50)) {
        case(Era::Legacy, ops);
    }

    #[test]
    fn every_answer_finds_its_request_at_a_modern_server(ops in proptest::collection::vec(op(), 1..50)) {
        case(Era::Modern, ops);
    }
}
