//! Servers with several instances, against played ones.

mod common;

use crate::gateway::body::Response;
use crate::gateway::call::Failed;
use crate::gateway::hub::Entry;
use crate::gateway::origin::{Door, Origin};
use crate::gateway::places::{Down, Offer, Place, Places};
use crate::gateway::played::{Act, EXIT, Played, RETRY, Stage, events, id, mood, place, shared};
use crate::gateway::slot::Unavailable;
use crate::gateway::{Ask, Gateway, legacy, modern};
use crate::mcp::front::Head;
use crate::mcp::wire::{Era, read};
use crate::model::id::ServerId;
use crate::model::traffic::TrafficPolicy;
use crate::world::fake::FakeSessions;
use http_body_util::BodyExt as _;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Calls that wait until the test answers them: whose they are, and where to.
type Held = Vec<(String, mpsc::UnboundedSender<String>, Value)>;

#[derive(Default)]
struct Backstage {
    held: Mutex<Held>,
    say: Mutex<BTreeMap<String, mpsc::UnboundedSender<String>>>,
    heard: Mutex<Vec<(String, String)>>,
}

impl Backstage {
    async fn play(self: Arc<Self>, name: String, mut played: Played) {
        self.say.lock().unwrap().insert(name.clone(), played.say.clone());
        while let Some(message) = played.heard.recv().await {
            let method = message["method"].as_str().unwrap_or_default().to_owned();
            self.heard.lock().unwrap().push((name.clone(), method.clone()));
            match (method.as_str(), message["params"]["name"].as_str()) {
                ("tools/call", Some("hold")) => {
                    self.held.lock().unwrap().push((name.clone(), played.say.clone(), message));
                }
                ("tools/call", Some("ask")) if message["params"].get("requestState").is_none() => {
                    let asks = json!({"q": {"method": "roots/list"}});
                    let state = format!("of {name} {}", message["id"]);
                    let wants =
                        json!({"resultType": "input_required", "inputRequests": asks, "requestState": state});
                    played.answer(&message, &wants);
                }
                ("tools/call", _) => played.answer(&message, &text(&name)),
                ("tools/list", _) => played.answer(&message, &json!({"tools": [{"name": "who"}]})),
                _ if message.get("id").is_some() => played.answer(&message, &json!({})),
                _ => {}
            }
        }
    }

    fn holders(&self) -> Vec<String> {
        let mut holders: Vec<String> = self.held.lock().unwrap().iter().map(|held| held.0.clone()).collect();
        holders.sort();
        holders
    }

    /// Answers what one instance holds.
    fn answer(&self, name: &str) {
        self.held.lock().unwrap().retain(|(holder, say, call)| {
            if holder == name {
                let answer = json!({"jsonrpc": "2.0", "id": call["id"], "result": text(name)});
                let _gone = say.send(answer.to_string());
            }
            holder != name
        });
    }

    fn says(&self, name: &str, line: &str) {
        self.say.lock().unwrap()[name].send(line.to_owned()).expect("an instance");
    }

    fn count(&self, name: &str, method: &str) -> usize {
        let heard = self.heard.lock().unwrap();
        heard.iter().filter(|(whose, what)| whose == name && what == method).count()
    }
}

fn text(name: &str) -> Value {
    json!({"content": [{"type": "text", "text": name}], "resultType": "complete"})
}

struct World {
    stage: Arc<Stage>,
    gateway: Arc<Gateway>,
    backstage: Arc<Backstage>,
    policy: TrafficPolicy,
}

fn instance(number: u32) -> ServerId {
    if number == 1 { id("time") } else { id("time").replica(number) }
}

fn places(count: u32, policy: &TrafficPolicy) -> Places {
    let offer = Arc::new(Offer { traffic: policy.clone(), ..Offer::default() });
    let of = |number| Place { offer: Arc::clone(&offer), ..(*place(&format!("k{number}"), RETRY)).clone() };
    (1..=count).map(|number| (instance(number), Arc::new(of(number)))).collect()
}

async fn soon(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..20_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

impl World {
    async fn new(era: Era, count: u32, policy: TrafficPolicy) -> Self {
        let (stage, mut on_stage) = Stage::new(&[], Act::Serve(era));
        let gateway = Gateway::new(shared(&stage), Arc::new(FakeSessions::default()), [7; 32]);
        let backstage = Arc::<Backstage>::default();
        let (theatre, behind) = (Arc::clone(&stage), Arc::clone(&backstage));
        tokio::spawn(async move {
            let mut nth = 0;
            while let Some(played) = on_stage.recv().await {
                let name = theatre.order()[nth].clone();
                nth += 1;
                tokio::spawn(Arc::clone(&behind).play(name, played));
            }
        });
        let world = Self { stage, gateway, backstage, policy };
        world.set(count);
        world.all_up(count).await;
        world
    }

    fn set(&self, count: u32) {
        self.gateway.set_places(&places(count, &self.policy));
    }

    async fn all_up(&self, count: u32) {
        let up = |number| self.instance(number).slot.live().is_some();
        soon("all instances are up", || (1..=count).all(up)).await;
    }

    fn instance(&self, number: u32) -> Arc<Entry> {
        self.gateway.entry(&instance(number)).expect("an instance")
    }

    /// A call that stands alone; which instance answered.
    async fn call(&self, tool: &str) -> Result<String, Failed> {
        let none = RawValue::from_string("{}".to_owned()).expect("JSON");
        let result = self.gateway.call_tool(&id("time"), tool, &none).await?;
        let result: Value = serde_json::from_str(result.get()).expect("JSON");
        Ok(result["content"][0]["text"].as_str().expect("a text").to_owned())
    }

    fn begin(self: &Arc<Self>, tool: &'static str) -> JoinHandle<Result<String, Failed>> {
        let world = Arc::clone(self);
        tokio::spawn(async move { world.call(tool).await })
    }

    async fn holds(&self, count: usize) {
        soon("calls are held", || self.backstage.held.lock().unwrap().len() == count).await;
    }

    async fn post(&self, head: &Head<'_>, body: &Value) -> Response {
        let (body, origin) = (body.to_string(), Origin::new(&Arc::from("local"), Door::Mcp));
        let entry = self.instance(1);
        let (gateway, principal, body) = (&self.gateway, &origin.identity, body.as_bytes());
        let ask = Ask { gateway, entry: &entry, head, principal, origin: &origin, body, lens: None };
        let message = read(body).expect("a message");
        if head.protocol_version == Some("2026-07-28") {
            modern::post(&ask, message).await
        } else {
            legacy::post(&ask, message).await
        }
    }

    /// A call of a modern client.
    async fn modern(&self, tool: &str) -> Value {
        self.modern_with(tool, json!({})).await
    }

    async fn modern_with(&self, tool: &str, more: Value) -> Value {
        let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {}});
        let mut params = json!({"name": tool, "arguments": {}, "_meta": meta});
        for (key, value) in more.as_object().expect("members") {
            params[key] = value.clone();
        }
        let body = json!({"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": params});
        let head = Head {
            protocol_version: Some("2026-07-28"),
            mcp_method: Some("tools/call"),
            mcp_name: Some(tool),
            ..head(None)
        };
        whole(self.post(&head, &body).await).await
    }

    async fn open(self: &Arc<Self>) -> Client {
        let params = json!({"protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": "c", "version": "1"}});
        let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
        let answer = self.post(&head(None), &hello).await;
        let session = answer.headers()["mcp-session-id"].to_str().expect("text").to_owned();
        Client { world: Arc::clone(self), session }
    }
}

fn head(session: Option<&str>) -> Head<'_> {
    Head {
        content_type: Some("application/json"),
        accept: Some("application/json, text/event-stream"),
        protocol_version: session.map(|_| "2025-11-25"),
        session,
        ..Head::default()
    }
}

async fn whole(answer: Response) -> Value {
    let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
    serde_json::from_slice(&bytes).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&bytes)))
}

/// A legacy client.
#[derive(Clone)]
struct Client {
    world: Arc<World>,
    session: String,
}

impl Client {
    async fn ask(&self, number: u32, method: &str, params: Value) -> Value {
        let body = json!({"jsonrpc": "2.0", "id": number, "method": method, "params": params});
        whole(self.world.post(&head(Some(&self.session)), &body).await).await
    }

    /// Which instance answers it.
    async fn who(&self) -> String {
        let answer = self.ask(1, "tools/call", json!({"name": "who", "arguments": {}})).await;
        let text = answer.pointer("/result/content/0/text").and_then(Value::as_str);
        text.unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    fn hold(&self, number: u32) -> JoinHandle<Value> {
        let client = self.clone();
        tokio::spawn(async move {
            client.ask(number, "tools/call", json!({"name": "hold", "arguments": {}})).await
        })
    }

    fn listen(&self) -> mpsc::UnboundedReceiver<Value> {
        let head = Head { accept: Some("text/event-stream"), ..head(Some(&self.session)) };
        let (entry, origin) = (self.world.instance(1), Origin::new(&Arc::from("local"), Door::Mcp));
        let (gateway, principal) = (&self.world.gateway, &origin.identity);
        let ask =
            Ask { gateway, entry: &entry, head: &head, principal, origin: &origin, body: b"", lens: None };
        match legacy::get(&ask).into_body() {
            crate::gateway::body::Body::Events(body) => events(body),
            other => panic!("{other:?}"),
        }
    }
}

fn counted(mut names: Vec<String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for name in names.drain(..) {
        *counts.entry(name).or_default() += 1;
    }
    counts
}

fn each(count: usize) -> BTreeMap<String, usize> {
    ["time", "time-R2", "time-R3"].map(|name| (name.to_owned(), count)).into()
}

#[tokio::test(start_paused = true)]
async fn load_is_spread_and_goes_to_whoever_has_least_to_do() {
    for era in [Era::Legacy, Era::Modern] {
        let world = Arc::new(World::new(era, 3, TrafficPolicy::default()).await);
        let mut names = Vec::new();
        for nth in 0..18 {
            names.push(if nth % 2 == 0 {
                world.call("who").await.expect("an answer")
            } else {
                let answer = world.modern("who").await;
                answer["result"]["content"][0]["text"].as_str().expect("a text").to_owned()
            });
        }
        assert_eq!(counted(names), each(6), "equals take turns");
        let holds: Vec<_> = (0..6).map(|_| world.begin("hold")).collect();
        world.holds(6).await;
        assert_eq!(counted(world.backstage.holders()), each(2));
        // One is done and the others are not: it is the one with room.
        world.backstage.answer("time-R2");
        soon("two are answered", || world.instance(2).slot.live().expect("up").leg.working() == 0).await;
        for _ in 0..5 {
            assert_eq!(world.call("who").await.expect("an answer"), "time-R2");
        }
        for name in ["time", "time-R3"] {
            world.backstage.answer(name);
        }
        for hold in holds {
            hold.await.expect("an end").expect("an answer");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_hangs_is_left_out_until_it_answers() {
    let world = Arc::new(World::new(Era::Legacy, 3, TrafficPolicy::default()).await);
    let hung = world.stage.mood(&instance(2));
    hung.store(mood::HUNG, std::sync::atomic::Ordering::Relaxed);
    soon("it is found to hang", || world.instance(2).checkup.is_ill()).await;
    let mut names = Vec::new();
    for _ in 0..6 {
        names.push(world.call("who").await.expect("an answer"));
    }
    assert_eq!(counted(names).keys().collect::<Vec<_>>(), ["time", "time-R3"]);
    assert_eq!(world.instance(1).any_health(&world.gateway).await, Ok(()), "the server serves");
}

#[tokio::test(start_paused = true)]
async fn a_session_stays_at_its_instance_however_busy_that_is() {
    let world = Arc::new(World::new(Era::Legacy, 3, TrafficPolicy::default()).await);
    let mut clients = Vec::new();
    for _ in 0..3 {
        let client = world.open().await;
        let home = client.who().await;
        clients.push((client, home));
    }
    assert_eq!(counted(clients.iter().map(|(_, home)| home.clone()).collect()), each(1));
    let (client, home) = &clients[1];
    let holds: Vec<_> = (10..20).map(|number| client.hold(number)).collect();
    world.holds(10).await;
    assert_eq!(counted(world.backstage.holders()), [(home.clone(), 10)].into());
    for (client, home) in &clients {
        for _ in 0..4 {
            assert_eq!(client.who().await, *home);
        }
    }
    // Taken back where it was sent, and nowhere else.
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 10}});
    drop(world.post(&head(Some(&client.session)), &cancel).await);
    soon("the server is told", || world.backstage.count(home, "notifications/cancelled") == 1).await;
    let told = |name: &str| world.backstage.count(name, "notifications/cancelled");
    assert_eq!(["time", "time-R2", "time-R3"].map(told).iter().sum::<usize>(), 1);
    world.backstage.answer(home);
    for hold in holds {
        hold.await.expect("an answer");
    }
    // Over a restart of ours each finds its instance again.
    let records: Vec<_> =
        world.gateway.sessions().of_server(&id("time")).iter().map(|session| session.record()).collect();
    let after = Arc::new(World::new(Era::Legacy, 3, TrafficPolicy::default()).await);
    after.gateway.sessions().restore(records);
    for (client, home) in &clients {
        let client = Client { world: Arc::clone(&after), session: client.session.clone() };
        assert_eq!(client.who().await, *home);
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_dies_under_load_loses_what_was_under_way_there_alone() {
    for era in [Era::Legacy, Era::Modern] {
        let world = Arc::new(World::new(era, 3, TrafficPolicy::default()).await);
        let mut clients = Vec::new();
        for _ in 0..3 {
            clients.push(world.open().await);
        }
        let holds: Vec<_> = (0..6).map(|_| world.begin("hold")).collect();
        world.holds(6).await;
        world.backstage.says("time-R2", EXIT);
        soon("it came again", || world.stage.opened() > 3).await;
        let mut names = Vec::new();
        for client in &clients {
            names.push(client.who().await);
        }
        for _ in 0..6 {
            names.push(world.call("who").await.expect("an answer"));
        }
        assert_eq!(names.len(), 9, "nobody is refused");
        for name in ["time", "time-R3"] {
            world.backstage.answer(name);
        }
        let mut lost = 0;
        for hold in holds {
            lost += usize::from(hold.await.expect("an end").is_err());
        }
        assert_eq!(lost, 2, "what was under way there");
        world.all_up(3).await;
        let mut names = Vec::new();
        for _ in 0..6 {
            names.push(world.call("who").await.expect("an answer"));
        }
        assert_eq!(counted(names), each(2), "it is used again");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_and_sessions_go_elsewhere_while_their_instance_is_not_to_run() {
    let world = Arc::new(World::new(Era::Legacy, 2, TrafficPolicy::default()).await);
    let mut clients = Vec::new();
    for _ in 0..2 {
        let client = world.open().await;
        clients.push((client.who().await, client));
    }
    let mut down = places(2, &world.policy);
    let stopped = Some(Down::Stopped("drained".to_owned()));
    let place = Place { down: stopped, ..(*down[&instance(2)]).clone() };
    down.insert(instance(2), Arc::new(place));
    world.gateway.set_places(&down);
    soon("it is down", || world.instance(2).slot.live().is_none()).await;
    for (_, client) in &clients {
        assert_eq!(client.who().await, "time");
    }
    assert_eq!(world.call("who").await.expect("an answer"), "time");
    assert_eq!(world.instance(1).any_health(&world.gateway).await, Ok(()));
    assert_eq!(world.gateway.sessions().of(&instance(2)).len(), 0);
}

#[tokio::test(start_paused = true)]
async fn all_down_is_one_error_of_the_server() {
    let world = Arc::new(World::new(Era::Legacy, 3, TrafficPolicy::default()).await);
    let client = world.open().await;
    let down = |down: &dyn Fn(u32) -> Down| {
        let mut all = places(3, &world.policy);
        for number in 1..=3 {
            let place = Place { down: Some(down(number)), ..(*all[&instance(number)]).clone() };
            all.insert(instance(number), Arc::new(place));
        }
        world.gateway.set_places(&all);
    };
    down(&|_| Down::Stopped("it is stopped".to_owned()));
    soon("all are down", || world.instance(1).any_live(None).is_none()).await;
    let error = world.call("who").await.expect_err("nobody answers");
    assert_eq!(error.to_string(), "it is stopped");
    let answer = client.ask(3, "tools/call", json!({"name": "who"})).await;
    assert_eq!(answer["error"]["message"], "the server is not available: it is stopped");
    assert_eq!(world.modern("who").await["error"]["message"], answer["error"]["message"]);
    assert!(world.instance(1).any_health(&world.gateway).await.is_err());
    // Of several reasons the one that ends first; waiting is for all of them at once.
    down(&|number| match number {
        1 => Down::Stopped("it is stopped".to_owned()),
        2 => Down::Coming("its container is starting".to_owned()),
        _ => Down::Failed("no such image".to_owned(), None),
    });
    let waits = world.begin("who");
    soon("it waits", || world.instance(2).slot.parked() > 0).await;
    let error = waits.await.expect("an end").expect_err("nobody came");
    assert!(
        matches!(&error, Failed::Unavailable(Unavailable::Later(why)) if why.contains("starting")),
        "{error}"
    );
    let waits = world.begin("who");
    soon("it waits", || world.instance(2).slot.parked() > 0).await;
    let mut back = places(3, &world.policy);
    for number in [1, 2] {
        let why = Some(Down::Coming("later".to_owned()));
        let place = Place { down: why, ..(*back[&instance(number)]).clone() };
        back.insert(instance(number), Arc::new(place));
    }
    world.gateway.set_places(&back);
    assert_eq!(waits.await.expect("an end").expect("an answer"), "time-R3", "whichever comes first");
}

#[tokio::test(start_paused = true)]
async fn fewer_instances_under_load_lose_nothing() {
    let world = Arc::new(World::new(Era::Legacy, 3, TrafficPolicy::default()).await);
    let mut clients = Vec::new();
    for _ in 0..3 {
        let client = world.open().await;
        let answer = client.ask(2, "resources/subscribe", json!({"uri": "file:///x"})).await;
        assert!(answer.get("result").is_some(), "{answer}");
        clients.push((client.listen(), client));
    }
    let holds: Vec<_> = clients.iter().map(|(_, client)| client.hold(7)).collect();
    world.holds(3).await;
    let before = world.backstage.count("time", "resources/subscribe");
    assert_eq!((before, world.backstage.count("time-R3", "resources/subscribe")), (1, 1));
    world.set(1);
    assert!(world.gateway.contacts().contains_key(&instance(3)), "it has a request under way");
    assert_eq!(world.gateway.entries().len(), 1);
    for (heard, client) in &mut clients {
        assert_eq!(client.who().await, "time");
        if world.gateway.sessions().find(&client.session, &id("time"), "local").is_none() {
            panic!("the session goes on");
        }
        let _own = heard;
    }
    soon("what was subscribed to is subscribed to there", || {
        world.backstage.count("time", "resources/subscribe") == before + 2
    })
    .await;
    let mut told = 0;
    for (heard, _) in &mut clients {
        tokio::time::sleep(Duration::from_millis(10)).await;
        told += usize::from(
            heard.try_recv().is_ok_and(|heard| heard["method"] == "notifications/tools/list_changed"),
        );
    }
    assert_eq!(told, 2, "those who moved look at the lists again");
    for name in ["time", "time-R2", "time-R3"] {
        world.backstage.answer(name);
    }
    for hold in holds {
        let answer = hold.await.expect("an end");
        assert!(answer.get("result").is_some(), "{answer}");
    }
    soon("they are gone", || world.gateway.contacts().len() == 1).await;
    // With the last one the sessions end.
    world.set(3);
    world.all_up(3).await;
    world.gateway.set_places(&Places::new());
    assert_eq!((world.gateway.sessions().count(), world.gateway.entries().len()), (0, 0));
    soon("nothing is left", || world.gateway.contacts().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_twice_and_what_could_not_be_sent_goes_elsewhere() {
    let world = Arc::new(World::new(Era::Legacy, 2, TrafficPolicy::default()).await);
    let second = world.instance(2);
    // Its connection closes while nobody has looked yet.
    let live = second.slot.live().expect("up");
    live.leg.close(Duration::ZERO).await;
    for _ in 0..4 {
        let answer = world.modern("who").await;
        assert!(answer.get("result").is_some(), "{answer}");
    }
    let mut tried = 0;
    let closed = crate::upstream::error::CloseReason::Eof;
    let unsent = crate::upstream::error::CallError::Unsent(closed.clone());
    let sent = crate::upstream::error::CallError::Closed(closed);
    assert!(!second.may_go_elsewhere(&sent, &mut tried), "it may have been done");
    assert!(second.may_go_elsewhere(&unsent, &mut tried));
    assert!(!world.instance(1).may_go_elsewhere(&unsent, &mut tried), "each is tried once");
}

#[tokio::test(start_paused = true)]
async fn a_server_with_one_instance_looks_at_nothing() {
    let world = Arc::new(World::new(Era::Legacy, 1, TrafficPolicy::default()).await);
    let entry = world.instance(1);
    assert!(entry.is_one() && entry.least().is_none());
    let (at, _) = entry.anywhere(None, 0).await.expect("up");
    assert!(at.is_none());
    assert_eq!(world.call("who").await.expect("an answer"), "time");
    let client = world.open().await;
    assert_eq!(client.who().await, "time");
    world.set(3);
    world.all_up(3).await;
    assert_eq!(client.who().await, "time", "more of them move nobody");
    let mut names = Vec::new();
    for _ in 0..6 {
        names.push(world.call("who").await.expect("an answer"));
    }
    assert_eq!(counted(names), each(2));
}
