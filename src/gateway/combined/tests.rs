//! All servers as one, with servers as tests play them.

use crate::gateway::Gateway;
use crate::gateway::body::{Body, Response};
use crate::gateway::combined::{self, All, View};
use crate::gateway::offered::{GONE_AFTER, LISTED_WITHIN};
use crate::gateway::origin::{Door, Origin};
use crate::gateway::places::{Down, Offer, Opened, Opener, Place, Places};
use crate::gateway::played::{Act, Played, RETRY, Stage, events, id, place, shared};
use crate::gateway::slot::Shared;
use crate::mcp::front::Head;
use crate::mcp::wire::Era;
use crate::model::access::{Grant, ToolPolicy};
use crate::model::id::{SectionId, ServerId};
use crate::world::fake::FakeSessions;
use crate::world::{Answer, SessionStore};
use http_body_util::BodyExt as _;
use hyper::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

mod batches;
mod names;

/// A stage for each server.
struct Theatre(BTreeMap<ServerId, Arc<Stage>>);

impl Opener for Theatre {
    fn shared<'a>(&'a self, server: &'a ServerId, place: &'a Place) -> Answer<'a, Opened> {
        self.0[server].shared(server, place)
    }

    fn dedicated<'a>(&'a self, server: &'a ServerId, place: &'a Place) -> Answer<'a, Opened> {
        self.0[server].dedicated(server, place)
    }

    fn renew<'a>(&'a self, _server: &'a ServerId, _place: &'a Place) -> Answer<'a, ()> {
        Box::pin(async { Ok(()) })
    }
}

/// What a server does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Does {
    Answer,
    /// Nothing behind the handshake.
    Hang,
    /// Asks its client first, always under the same id.
    Ask,
    /// Its tools have names that are taken nowhere.
    Odd,
}

type Heard = Arc<Mutex<Vec<(String, Value)>>>;

struct World {
    gateway: Arc<Gateway>,
    places: Places,
    heard: Heard,
    /// Lines for the servers to say.
    say: Arc<Mutex<BTreeMap<String, mpsc::UnboundedSender<String>>>>,
    grant: Arc<Grant>,
    view: View,
    store: Arc<FakeSessions>,
}

fn tools(name: &str) -> Value {
    json!([
        {"name": "echo", "x": 1.0, "annotations": {"readOnlyHint": true}},
        {"name": "write", "description": name},
    ])
}

async fn play(name: String, era: Era, does: Does, mut played: Played, heard: Heard) {
    let mut waiting = None;
    while let Some(message) = played.heard.recv().await {
        heard.lock().unwrap().push((name.clone(), message.clone()));
        if does == Does::Hang {
            continue;
        }
        let answer = |request: &Value, mut result: Value| {
            if era == Era::Modern {
                result["resultType"] = "complete".into();
            }
            played.answer(request, &result);
        };
        match message["method"].as_str() {
            Some("tools/list") if does == Does::Odd => answer(&message, json!({"tools": names::odd()})),
            Some("tools/list") => answer(&message, json!({"tools": tools(&name)})),
            Some("prompts/list") => answer(&message, json!({"prompts": []})),
            Some("resources/list") => {
                answer(&message, json!({"resources": [{"uri": format!("file:///{name}"), "name": "r"}]}));
            }
            Some("resources/read") => {
                answer(&message, json!({"contents": [{"uri": message["params"]["uri"], "text": "t"}]}));
            }
            Some("tools/call") if does == Does::Ask => {
                played.tell(&json!({"jsonrpc": "2.0", "id": 1, "method": "roots/list"}));
                waiting = Some(message);
            }
            Some("tools/call") if message["params"]["name"] == "hold" => {
                let token = &message["params"]["_meta"]["progressToken"];
                let params = json!({"progressToken": token, "progress": 1});
                let method = "notifications/progress";
                played.tell(&json!({"jsonrpc": "2.0", "method": method, "params": params}));
            }
            Some("tools/call") => {
                let text = format!("{name} {}", message["params"]["name"].as_str().unwrap());
                let link = json!({"type": "resource_link", "uri": "file:///x", "name": "x"});
                answer(&message, json!({"content": [{"type": "text", "text": text}, link]}));
            }
            Some(_) if message.get("id").is_some() => answer(&message, json!({})),
            Some(_) => {}
            None => {
                let call = waiting.take().expect("one answer to one question");
                let text = json!([{"type": "text", "text": message["result"]["roots"]}]);
                answer(&call, json!({"content": text}));
            }
        }
    }
}

impl World {
    /// Servers by name, each with its era and what it does.
    fn new(servers: &[(&str, Era, Does)]) -> Self {
        Self::after(Arc::default(), servers)
    }

    /// The same, with what an earlier process kept.
    fn after(store: Arc<FakeSessions>, servers: &[(&str, Era, Does)]) -> Self {
        let (heard, say): (Heard, Arc<Mutex<BTreeMap<_, _>>>) = Default::default();
        let mut theatre = BTreeMap::new();
        let mut places = Places::new();
        for (name, era, does) in servers.iter().copied() {
            let (stage, mut on_stage) = Stage::new(&[], Act::Serve(era));
            theatre.insert(id(name), stage);
            places.insert(id(name), place(name, RETRY));
            let (heard, say, name) = (Arc::clone(&heard), Arc::clone(&say), name.to_owned());
            tokio::spawn(async move {
                while let Some(played) = on_stage.recv().await {
                    say.lock().unwrap().insert(name.clone(), played.say.clone());
                    tokio::spawn(play(name.clone(), era, does, played, Arc::clone(&heard)));
                }
            });
        }
        let (stage, _) = Stage::new(&[], Act::Refuse);
        let shared = Shared { opener: Arc::new(Theatre(theatre)), ..shared(&stage) };
        let gateway = Gateway::new(shared, Arc::clone(&store) as Arc<dyn SessionStore>, [7; 32]);
        gateway.set_places(&places);
        Self { gateway, places, heard, say, grant: Arc::default(), view: View::new(None), store }
    }

    /// Changes what is said of a server's place.
    fn change(&mut self, name: &str, change: impl FnOnce(&mut Place)) {
        let mut new = (*self.places[&id(name)]).clone();
        change(&mut new);
        self.places.insert(id(name), Arc::new(new));
        self.gateway.set_places(&self.places);
    }

    async fn send(&self, method: Method, head: &Head<'_>, body: &str) -> Response {
        let principal = Arc::from("local");
        let origin = Origin::new(&principal, Door::All);
        let all = All {
            gateway: &self.gateway,
            view: &self.view,
            head,
            principal: &principal,
            origin: &origin,
            grant: &self.grant,
            body: body.as_bytes(),
        };
        combined::endpoint(&all, &method).await
    }

    async fn open(&self, capabilities: &Value) -> Client<'_> {
        self.open_as("2025-11-25", capabilities).await
    }

    async fn open_as(&self, version: &str, capabilities: &Value) -> Client<'_> {
        let params = json!({"protocolVersion": version, "capabilities": capabilities,
            "clientInfo": {"name": "c", "version": "1"}});
        let body = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
        let answer = self.send(Method::POST, &head(None), &body.to_string()).await;
        let session = answer.headers()["mcp-session-id"].to_str().unwrap().to_owned();
        Client { world: self, session }
    }

    /// A modern request.
    async fn modern(&self, method: &str, name: Option<&str>, params: Value) -> Response {
        let mut params = params;
        params["_meta"] = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {}});
        let body = json!({"jsonrpc": "2.0", "id": 5, "method": method, "params": params}).to_string();
        let head = Head {
            protocol_version: Some("2026-07-28"),
            mcp_method: Some(method),
            mcp_name: name,
            ..head(None)
        };
        self.send(Method::POST, &head, &body).await
    }
}

fn head(session: Option<&str>) -> Head<'_> {
    Head {
        content_type: Some("application/json"),
        accept: Some("application/json, text/event-stream"),
        session,
        ..Head::default()
    }
}

struct Client<'a> {
    world: &'a World,
    session: String,
}

impl Client<'_> {
    async fn post(&self, message: &Value) -> Response {
        self.world.send(Method::POST, &head(Some(&self.session)), &message.to_string()).await
    }

    async fn ask(&self, method: &str, params: Value) -> Value {
        let message = json!({"jsonrpc": "2.0", "id": 9, "method": method, "params": params});
        whole(self.post(&message).await).await
    }

    async fn listen(&self) -> mpsc::UnboundedReceiver<Value> {
        let answer = self.world.send(Method::GET, &head(Some(&self.session)), "").await;
        stream(answer)
    }

    async fn names(&self) -> Vec<String> {
        names(&self.ask("tools/list", json!({})).await)
    }
}

fn names(answer: &Value) -> Vec<String> {
    let tools = answer["result"]["tools"].as_array().unwrap_or_else(|| panic!("{answer}"));
    tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
}

fn stream(answer: Response) -> mpsc::UnboundedReceiver<Value> {
    match answer.into_body() {
        Body::Events(body) => events(body),
        other => panic!("{other:?}"),
    }
}

async fn whole(answer: Response) -> Value {
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&bytes).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&bytes)))
}

async fn next(stream: &mut mpsc::UnboundedReceiver<Value>) -> Value {
    tokio::time::timeout(Duration::from_secs(300), stream.recv()).await.expect("in time").expect("a message")
}

const BOTH: [(&str, Era, Does); 2] = [("a", Era::Legacy, Does::Answer), ("b", Era::Modern, Does::Answer)];

#[tokio::test(start_paused = true)]
async fn tools_of_all_servers_are_listed_and_called_in_both_eras() {
    let world = World::new(&BOTH);
    let client = world.open(&json!({})).await;
    let want = ["a__echo", "a__write", "b__echo", "b__write"];
    assert_eq!(client.names().await, want);
    let list = whole(world.modern("tools/list", None, json!({})).await).await;
    assert_eq!(names(&list), want);
    assert_eq!(
        (&list["result"]["resultType"], &list["result"]["tools"][0]["x"]),
        (&json!("complete"), &json!(1.0))
    );
    for server in ["a", "b"] {
        let call = json!({"name": format!("{server}__write")});
        let answer = client.ask("tools/call", call.clone()).await;
        assert_eq!(answer["id"], 9);
        assert_eq!(answer["result"]["content"][0]["text"], format!("{server} write"));
        assert_eq!(answer["result"]["content"][1]["uri"], format!("mcp://{server}/file:///x"));
        let name = format!("{server}__write");
        let answer = whole(world.modern("tools/call", Some(&name), call).await).await;
        assert_eq!(answer["result"]["content"][0]["text"], format!("{server} write"), "{answer}");
        let uri = format!("mcp://{server}/file:///{server}");
        let answer = client.ask("resources/read", json!({"uri": uri})).await;
        assert_eq!(answer["result"]["contents"][0]["uri"], uri);
        let answer = whole(world.modern("resources/read", Some(&uri), json!({"uri": uri})).await).await;
        assert_eq!(answer["result"]["contents"][0]["uri"], uri, "{answer}");
    }
    // A URI as a server wrote it, while one alone lists it.
    let answer = client.ask("resources/list", json!({})).await;
    assert_eq!(answer["result"]["resources"][1]["uri"], "mcp://b/file:///b");
    let answer = client.ask("resources/read", json!({"uri": "file:///b"})).await;
    assert_eq!(answer["result"]["contents"][0]["uri"], "mcp://b/file:///b");
    for name in ["c__echo", "echo", "a__", ""] {
        let answer = client.ask("tools/call", json!({"name": name})).await;
        assert_eq!(answer["error"]["code"], -32602, "{name}");
    }
    assert_eq!(client.ask("tasks/list", json!({})).await["error"]["code"], -32601);
    // Header and body must agree on the name among all servers.
    let answer = world.modern("tools/call", Some("echo"), json!({"name": "a__echo"})).await;
    assert_eq!(answer.status(), 400);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_takes_its_own_tools_away_and_nobodys_time() {
    let world = World::new(&[("a", Era::Legacy, Does::Answer), ("b", Era::Legacy, Does::Hang)]);
    let client = world.open(&json!({})).await;
    let began = Instant::now();
    assert_eq!(client.names().await, ["a__echo", "a__write"]);
    assert!(began.elapsed() <= LISTED_WITHIN + Duration::from_millis(10));
    let began = Instant::now();
    assert_eq!(client.names().await.len(), 2);
    assert!(began.elapsed() < Duration::from_millis(10), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_keeps_its_list_for_a_while_and_one_that_is_stopped_does_not() {
    let mut world = World::new(&BOTH);
    {
        let client = world.open(&json!({})).await;
        assert_eq!(client.names().await.len(), 4);
    }
    world.change("a", |place| place.down = Some(Down::Coming("it is being replaced".to_owned())));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.open(&json!({})).await.names().await.len(), 4);
    tokio::time::sleep(GONE_AFTER + Duration::from_secs(5)).await;
    assert_eq!(world.open(&json!({})).await.names().await, ["b__echo", "b__write"]);
    world.change("b", |place| place.down = Some(Down::Stopped("somebody stopped it".to_owned())));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(world.open(&json!({})).await.names().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn sessions_and_subscriptions_hear_that_lists_changed() {
    let mut world = World::new(&BOTH);
    let mut heard = Vec::new();
    let session = {
        let client = world.open(&json!({})).await;
        client.names().await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        heard.push(client.listen().await);
        client.session
    };
    let filter = json!({"notifications": {"toolsListChanged": true}});
    heard.push(stream(world.modern("subscriptions/listen", None, filter).await));
    let ack = next(&mut heard[1]).await;
    assert_eq!(ack["method"], "notifications/subscriptions/acknowledged");
    tokio::time::sleep(Duration::from_secs(5)).await;
    for stream in &mut heard {
        while stream.try_recv().is_ok() {}
    }
    let changed = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}).to_string();
    world.say.lock().unwrap()["a"].send(changed).unwrap();
    for stream in &mut heard {
        assert_eq!(next(stream).await["method"], "notifications/tools/list_changed");
    }
    // A server that goes is news, too: its prompts are, where somebody listens for them.
    world.change("b", |place| place.down = Some(Down::Stopped("stopped".to_owned())));
    for stream in &mut heard {
        while next(stream).await["method"] != "notifications/tools/list_changed" {}
    }
    drop(session);
}

#[tokio::test(start_paused = true)]
async fn progress_comes_back_and_a_cancellation_goes_to_the_one_server() {
    let world = World::new(&BOTH);
    let client = world.open(&json!({})).await;
    let call = json!({"jsonrpc": "2.0", "id": "x", "method": "tools/call",
        "params": {"name": "a__hold", "_meta": {"progressToken": "mine"}}});
    let mut answer = stream(client.post(&call).await);
    let progress = next(&mut answer).await;
    assert_eq!(progress["params"]["progressToken"], "mine");
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "x"}});
    assert_eq!(client.post(&cancel).await.status(), 202);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let heard = world.heard.lock().unwrap();
    let cancelled: Vec<&str> = heard
        .iter()
        .filter(|(_, message)| message["method"] == "notifications/cancelled")
        .map(|(server, _)| server.as_str())
        .collect();
    assert_eq!(cancelled, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn questions_of_two_servers_under_one_id_find_their_answers() {
    let world = World::new(&[("a", Era::Legacy, Does::Ask), ("b", Era::Legacy, Does::Ask)]);
    let client = world.open(&json!({"roots": {}})).await;
    let mut asked = Vec::new();
    for server in ["a", "b"] {
        let call = json!({"jsonrpc": "2.0", "id": server, "method": "tools/call",
            "params": {"name": format!("{server}__echo")}});
        let mut answer = stream(client.post(&call).await);
        let question = next(&mut answer).await;
        assert_eq!(question["method"], "roots/list");
        asked.push((server, question["id"].clone(), answer));
    }
    assert_ne!(asked[0].1, asked[1].1);
    for (server, question, answer) in asked.iter_mut().rev() {
        let reply = json!({"jsonrpc": "2.0", "id": question, "result": {"roots": format!("of {server}")}});
        assert_eq!(client.post(&reply).await.status(), 202);
        assert_eq!(client.post(&reply).await.status(), 400, "once");
        let done = next(answer).await;
        assert_eq!(done["id"], *server);
        assert_eq!(done["result"]["content"][0]["text"], format!("of {server}"));
    }
    // Both had an instance of its own, which ends with the session.
    let own = |world: &World| ["a", "b"].map(|server| world.gateway.entry(&id(server)).unwrap().own_count());
    assert_eq!(own(&world), [1, 1]);
    let answer = world.send(Method::DELETE, &head(Some(&client.session)), "").await;
    assert_eq!(answer.status(), 200);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!((own(&world), world.gateway.sessions().count()), ([0, 0], 0));
    assert_eq!(client.post(&json!({"jsonrpc": "2.0", "id": 1, "method": "ping"})).await.status(), 404);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_offered_or_granted_is_not_there() {
    let mut world = World::new(&BOTH);
    let rename = BTreeMap::from([("write".to_owned(), "put".to_owned())]);
    world.change("a", |place| {
        let tools = ToolPolicy { deny: vec!["echo".to_owned()], rename, ..ToolPolicy::default() };
        place.offer = Arc::new(Offer { tools, ..Offer::default() });
    });
    world.change("b", |place| {
        let tools = ToolPolicy { read_only: true, ..ToolPolicy::default() };
        let section = Some(SectionId("ops".to_owned()));
        place.offer = Arc::new(Offer { section, tools, ..Offer::default() });
    });
    let code = |answer: Value| answer["error"]["code"].as_i64();
    {
        let client = world.open(&json!({})).await;
        assert_eq!(client.names().await, ["a__put", "b__echo"]);
        let put = client.ask("tools/call", json!({"name": "a__put"})).await;
        assert_eq!(put["result"]["content"][0]["text"], "a write");
        for name in ["a__echo", "a__write", "b__write"] {
            assert_eq!(code(client.ask("tools/call", json!({"name": name})).await), Some(-32602), "{name}");
            let modern = world.modern("tools/call", Some(name), json!({"name": name})).await;
            assert_eq!(code(whole(modern).await), Some(-32602), "{name}");
        }
        assert_eq!(client.ask("tools/call", json!({"name": "b__echo"})).await["id"], 9);
    }
    world.view = View::new(Some(SectionId("ops".to_owned())));
    assert!(
        world.view.exists(&world.gateway) && !View::new(Some(SectionId("x".into()))).exists(&world.gateway)
    );
    assert_eq!(world.open(&json!({})).await.names().await, ["b__echo"]);
    let elsewhere = world.open(&json!({})).await.session;
    world.view = View::new(None);
    let other = Client { world: &world, session: elsewhere };
    assert_eq!(other.post(&json!({"jsonrpc": "2.0", "id": 1, "method": "ping"})).await.status(), 404);
    world.grant = Arc::new(Grant { tools: vec!["a/write".to_owned()], ..Grant::default() });
    let client = world.open(&json!({})).await;
    assert_eq!(client.names().await, ["a__put"]);
    assert_eq!(client.ask("resources/list", json!({})).await["result"]["resources"], json!([]));
    assert_eq!(code(client.ask("tools/call", json!({"name": "b__echo"})).await), Some(-32602));
    assert_eq!(code(client.ask("resources/read", json!({"uri": "mcp://a/file:///a"})).await), Some(-32002));
}

#[tokio::test(start_paused = true)]
async fn a_resource_that_changed_is_told_to_who_subscribed_under_its_name_among_all() {
    let world = World::new(&BOTH);
    let client = world.open(&json!({})).await;
    let answer = client.ask("resources/subscribe", json!({"uri": "mcp://a/file:///a"})).await;
    assert_eq!(answer["result"], json!({}));
    let mut outside = client.listen().await;
    let filter = json!({"notifications": {"resourceSubscriptions": ["mcp://a/file:///a", "mcp://none/x"]}});
    let mut modern = stream(world.modern("subscriptions/listen", None, filter).await);
    let ack = next(&mut modern).await;
    assert_eq!(ack["params"]["notifications"]["resourceSubscriptions"], json!(["mcp://a/file:///a"]));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let params = json!({"uri": "file:///a"});
    let updated = json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": params});
    world.say.lock().unwrap()["a"].send(updated.to_string()).unwrap();
    for stream in [&mut outside, &mut modern] {
        loop {
            let told = next(stream).await;
            if told["method"] == "notifications/resources/updated" {
                assert_eq!(told["params"]["uri"], "mcp://a/file:///a");
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_goes_on_in_the_next_process_with_what_it_subscribed_to() {
    let before = World::new(&BOTH);
    let session = {
        let client = before.open(&json!({})).await;
        let uri = json!({"uri": "mcp://a/file:///a"});
        assert_eq!(client.ask("resources/subscribe", uri).await["result"], json!({}));
        assert_eq!(client.ask("resources/subscribe", json!({"uri": "mcp://b/file:///b"})).await["id"], 9);
        assert_eq!(client.ask("resources/unsubscribe", json!({"uri": "mcp://b/file:///b"})).await["id"], 9);
        assert_eq!(client.ask("logging/setLevel", json!({"level": "error"})).await["result"], json!({}));
        client.session.clone()
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    let world = World::after(Arc::clone(&before.store), &BOTH);
    drop(before);
    world.gateway.sessions().restore(world.store.load().await.expect("what was kept"));
    let client = Client { world: &world, session };
    let mut outside = client.listen().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let asked = |method: &str| -> Vec<(String, Value)> {
        let heard = world.heard.lock().unwrap();
        let of = heard.iter().filter(|(_, message)| message["method"] == method);
        of.map(|(server, message)| (server.clone(), message["params"].clone())).collect()
    };
    let subscribed = asked("resources/subscribe");
    let right = ("a".to_owned(), json!({"uri": "file:///a"}));
    assert!(!subscribed.is_empty() && subscribed.iter().all(|one| *one == right), "{subscribed:?}");
    assert_eq!(asked("logging/setLevel"), [("a".to_owned(), json!({"level": "error"}))]);
    let params = json!({"uri": "file:///a"});
    let updated = json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": params});
    world.say.lock().unwrap()["a"].send(updated.to_string()).unwrap();
    while next(&mut outside).await["params"]["uri"] != "mcp://a/file:///a" {}
    assert_eq!(client.names().await.len(), 4);
    assert_eq!(asked("resources/subscribe"), subscribed, "no more than needed");
}

#[tokio::test(start_paused = true)]
async fn a_session_with_an_instance_of_its_own_below_ends_with_the_process() {
    let world = World::new(&[("a", Era::Legacy, Does::Answer)]);
    let client = world.open(&json!({"roots": {}})).await;
    assert_eq!(world.store.load().await.expect("what is kept").len(), 1);
    assert_eq!(client.ask("tools/call", json!({"name": "a__echo"})).await["id"], 9);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.store.load().await.expect("what is kept"), []);
    assert_eq!(client.names().await.len(), 2);
    let other = world.open(&json!({})).await;
    let gone = world.send(Method::DELETE, &head(Some(&other.session)), "").await;
    assert_eq!(gone.status(), 200);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.store.load().await.expect("what is kept"), []);
}
