//! The tool proxy before a played server: what mcpo's clients send, and what they get.

mod mount;
mod scopes;

use crate::gateway::Gateway;
use crate::gateway::body::{Body, Response};
use crate::gateway::front::GatewayFront;
use crate::gateway::guard::key::Key;
use crate::gateway::guard::{Guard, Policy};
use crate::gateway::http::{Addresses, Entry, Front as _, Request};
use crate::gateway::places::{Down, Offer, Place, Places};
use crate::gateway::played::{Act, EXIT, Played, RETRY, Stage, id, place, shared};
use crate::gateway::toolproxy::ToolProxy;
use crate::mcp::wire::Era;
use crate::world::fake::FakeSessions;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

/// Of mcpo's first example, and what each tool of the test does.
fn tools() -> Value {
    let zone = json!({"type": "string", "description": "IANA timezone name"});
    json!([
        {"name": "get_current_time", "description": "Get current time in a specific timezone", "inputSchema":
            {"type": "object", "properties": {"timezone": zone}, "required": ["timezone"]}},
        {"name": "convert_time", "description": "Convert time between timezones", "inputSchema":
            {"type": "object", "properties": {"source_timezone": zone, "time": zone, "target_timezone": zone},
             "required": ["source_timezone", "time", "target_timezone"]}},
        {"name": "now", "inputSchema": {"type": "object", "properties": {}}},
        {"name": "sum", "inputSchema": {"type": "object", "properties": {
            "a": {"type": "integer", "minimum": 0}, "b": {"type": ["integer", "null"]}, "note": {"type": "string"},
            "tree": {"$ref": "#/$defs/Node"}}, "required": ["a"], "$defs": {"Node": {
            "type": "object", "properties": {"left": {"$ref": "#/$defs/Node"}, "value": {"enum": ["x", "y"]}},
            "additionalProperties": false}}},
         "outputSchema": {"type": "object", "properties": {"sum": {"type": "number"}}, "required": ["sum"]}},
        {"name": "fail", "inputSchema": {"type": "object"}},
        {"name": "hold", "inputSchema": {"type": "object"}},
        {"name": "odd name/with ü", "inputSchema": {"type": "object"}},
    ])
}

struct World {
    front: Arc<GatewayFront>,
    gateway: Arc<Gateway>,
    on_stage: UnboundedReceiver<Played>,
}

fn world(key: Option<&str>) -> World {
    let (stage, on_stage) = Stage::new(&[], Act::Serve(Era::Legacy));
    let gateway = Gateway::new(shared(&stage), Arc::new(FakeSessions::default()), [7; 32]);
    gateway.set_places(&[(id("time"), place("a", RETRY))].into_iter().collect());
    let front = GatewayFront {
        gateway: Arc::clone(&gateway),
        guard: Arc::new(Guard::new(Policy::default())),
        tools: Arc::new(ToolProxy::new(key.and_then(Key::new))),
        beside: OnceLock::new(),
        tls: Arc::default(),
    };
    World { front: Arc::new(front), gateway, on_stage }
}

/// Calls heard, of any server of this name.
type Heard = Arc<Mutex<Vec<Value>>>;

impl World {
    /// Has every server that comes on stage answer; tells what calls they heard.
    fn play(&mut self) -> Heard {
        let heard = Heard::default();
        let (_never, empty) = tokio::sync::mpsc::unbounded_channel();
        let mut on_stage = std::mem::replace(&mut self.on_stage, empty);
        let told = Arc::clone(&heard);
        tokio::spawn(async move {
            while let Some(server) = on_stage.recv().await {
                tokio::spawn(serve(server, Arc::clone(&told)));
            }
        });
        heard
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
        self.ask_at(Entry::Main, (method, path), headers, body).await
    }

    async fn ask_at(
        &self,
        entry: Entry,
        (method, path): (&str, &str),
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response {
        let mut head = hyper::Request::builder().method(method).uri(path).header("host", "localhost");
        for (name, value) in headers {
            head = head.header(*name, *value);
        }
        let addresses =
            Addresses { peer: "127.0.0.1:4000".parse().unwrap(), local: "127.0.0.1:5000".parse().unwrap() };
        let mut request = match Request::new(head.body(()).unwrap(), Arc::new(entry), addresses) {
            Ok(request) => request,
            Err(refused) => return *refused,
        };
        let pass = match self.front.admit(&mut request) {
            Ok(pass) => pass,
            Err(refused) => return *refused,
        };
        request.body = bytes::Bytes::copy_from_slice(body.as_bytes());
        Arc::clone(&self.front).handle(request, pass).await
    }

    /// A call as clients of mcpo send it: status and answer.
    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let answer = self.ask("POST", path, &[("content-type", "application/json")], &body.to_string()).await;
        (answer.status().as_u16(), read(answer).await)
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let answer = self.ask("GET", path, &[], "").await;
        (answer.status().as_u16(), read(answer).await)
    }
}

async fn text(answer: Response) -> String {
    let all = answer.into_body().collect().await.expect("a body").to_bytes();
    String::from_utf8(all.to_vec()).expect("text")
}

async fn read(answer: Response) -> Value {
    let text = text(answer).await;
    serde_json::from_str(&text).unwrap_or(Value::String(text))
}

async fn serve(mut server: Played, heard: Heard) {
    while let Some(message) = server.heard.recv().await {
        let reply = |result: Value| server.answer(&message, &result);
        let said = |text: &str| json!({"content": [{"type": "text", "text": text}]});
        let arguments = &message["params"]["arguments"];
        match (message["method"].as_str(), message["params"]["name"].as_str()) {
            (Some("tools/list"), _) => reply(json!({ "tools": tools() })),
            (Some("resources/list"), _) => {
                reply(json!({"resources": [{"uri": "a:b", "name": "b", "x": 1.0}]}));
            }
            (Some("resources/read"), _) if message["params"]["uri"] == "a:b" => {
                reply(json!({"contents": [{"uri": "a:b", "text": "t"}]}));
            }
            (Some("prompts/list"), _) => reply(json!({"prompts": [{"name": "greet"}]})),
            (Some("prompts/get"), Some(name)) => {
                reply(json!({"description": format!("{name} {}", arguments["who"])}));
            }
            (Some("tools/call"), Some(name)) => {
                heard.lock().unwrap().push(message["params"].clone());
                match name {
                    "get_current_time" => {
                        let time = json!({"timezone": arguments["timezone"], "is_dst": false});
                        reply(said(&time.to_string()));
                    }
                    "sum" => reply(
                        json!({"structuredContent": {"sum": 3}, "content": [{"type": "text", "text": "x"}]}),
                    ),
                    "fail" => reply(json!({"isError": true, "content": [{"type": "text", "text": "no"}]})),
                    "hold" => progress(&server.say, &message),
                    name => reply(said(&format!("called {name}"))),
                }
            }
            (Some("notifications/cancelled"), _) => heard.lock().unwrap().push(message["method"].clone()),
            (Some(_), _) if message.get("id").is_some() => {
                let error = json!({"code": -32601, "message": "no such method"});
                server.tell(&json!({"jsonrpc": "2.0", "id": message["id"], "error": error}));
            }
            _ => {}
        }
    }
}

/// Tells progress, and answers a second later, unless the call says never.
fn progress(say: &UnboundedSender<String>, call: &Value) {
    let token = &call["params"]["_meta"]["progressToken"];
    for done in [1, 2] {
        if !token.is_null() {
            let params = json!({"progressToken": token, "progress": done, "total": 2});
            let _gone = say.send(
                json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}).to_string(),
            );
        }
    }
    if call["params"]["arguments"]["never"] == true {
        return;
    }
    let result = json!({"content": [{"type": "text", "text": "held"}]});
    let answer = json!({"jsonrpc": "2.0", "id": call["id"], "result": result}).to_string();
    let say = say.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let _gone = say.send(answer);
    });
}

#[tokio::test(start_paused = true)]
async fn mcpos_own_examples_work_at_our_root() {
    let mut world = world(Some("top-secret"));
    let heard = world.play();
    let key = ("authorization", "Bearer top-secret");
    let json = ("content-type", "application/json");
    let body = r#"{"timezone": "America/New_York"}"#;
    let answer = world.ask_at(Entry::Tools, ("POST", "/time/get_current_time"), &[key, json], body).await;
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (200, &"application/json".parse().unwrap())
    );
    assert_eq!(read(answer).await, json!({"timezone": "America/New_York", "is_dst": false}));
    assert_eq!(heard.lock().unwrap()[0]["arguments"], json!({"timezone": "America/New_York"}));
    // Without, with a wrong one, and as a browser sends it.
    for (headers, status) in [
        (&[][..], 401),
        (&[("authorization", "Bearer wrong")], 403),
        (&[("authorization", "Basic YTpi")], 401),
        (&[("authorization", "Basic dXNlcjp0b3Atc2VjcmV0")], 200),
    ] {
        let answer = world.ask_at(Entry::Tools, ("POST", "/time/get_current_time"), headers, body).await;
        assert_eq!(answer.status().as_u16(), status, "{headers:?}");
        let body = read(answer).await;
        assert_eq!(body["detail"].is_string(), status != 200, "{body}");
    }
    let answer = world.ask_at(Entry::Tools, ("GET", "/time/openapi.json"), &[key], "").await;
    let document = read(answer).await;
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["servers"], json!([{"url": "/time"}]));
    assert_eq!(document["security"][0], json!({"HTTPBearer": []}));
    let post = &document["paths"]["/get_current_time"]["post"];
    assert_eq!(
        (&post["operationId"], &post["summary"], &post["description"]),
        (
            &json!("tool_get_current_time_post"),
            &json!("Get Current Time"),
            &json!("Get current time in a specific timezone")
        )
    );
    assert!(post["responses"]["422"].is_object());
}

#[tokio::test(start_paused = true)]
async fn a_server_is_known_by_its_id_and_by_its_name_in_the_file() {
    let mut world = world(None);
    world.play();
    for path in ["/openapi/time/now", "/openapi/Played%20Server/now"] {
        let answer = world.ask("POST", path, &[], "").await;
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(
            (answer.status().as_u16(), header("x-mcp-spec-hash"), header("x-mcp-server")),
            (200, "spec-a".to_owned(), "time".to_owned())
        );
    }
    let odd = world.post("/openapi/time/odd%20name/with%20%C3%BC", json!({})).await;
    assert_eq!(odd, (200, json!("called odd name/with ü")));
    for path in ["/openapi/nobody/now", "/openapi/time/nothing", "/openapi/time/nothing/now"] {
        assert_eq!(world.post(path, json!({})).await, (404, json!({"detail": "Not Found"})), "{path}");
    }
    assert_eq!(world.get("/openapi/time/now").await, (405, json!({"detail": "Method Not Allowed"})));
    for (path, allowed) in [("now", "POST"), ("tools", "GET, HEAD")] {
        let answer = world.ask("PUT", &format!("/openapi/time/{path}"), &[], "{}").await;
        assert_eq!((answer.status().as_u16(), answer.headers()["allow"].to_str().unwrap()), (405, allowed));
        assert_eq!(read(answer).await, json!({"detail": "Method Not Allowed"}));
    }
    let lead = world.ask("GET", "/openapi", &[], "").await;
    assert_eq!(
        (lead.status().as_u16(), &lead.headers()["location"]),
        (303, &"/openapi/docs".parse().unwrap())
    );
    // Nobody comes by a proxy where nobody needs a token.
    let far = world.ask("POST", "/openapi/time/now", &[("x-forwarded-for", "192.0.2.1")], "").await;
    assert_eq!(far.status().as_u16(), 403);
    // The REST API's document is not in the way, and servers' own ports have no tools.
    assert_eq!(
        world.ask_at(Entry::Edge(id("time")), ("POST", "/openapi/time/now"), &[], "").await.status().as_u16(),
        404
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_arguments_is_told_as_clients_know_it() {
    let mut world = world(None);
    let heard = world.play();
    let wrong = |body: &'static str| {
        let world = &world;
        async move {
            let answer = world.ask("POST", "/openapi/time/sum", &[], body).await;
            let status = answer.status().as_u16();
            let body = read(answer).await;
            let first = &body["detail"][0];
            (status, first["loc"].clone(), first["type"].as_str().unwrap_or_default().to_owned())
        }
    };
    for (body, loc, kind) in [
        ("{}", json!(["body", "a"]), "missing"),
        ("", json!(["body", "a"]), "missing"),
        (r#"{"a": "x"}"#, json!(["body", "a"]), "int_type"),
        (r#"{"a": -1}"#, json!(["body", "a"]), "greater_than_equal"),
        (
            r#"{"a": 1, "tree": {"left": {"value": "z"}}}"#,
            json!(["body", "tree", "left", "value"]),
            "literal_error",
        ),
        (
            r#"{"a": 1, "tree": {"left": {"more": 1}}}"#,
            json!(["body", "tree", "left", "more"]),
            "extra_forbidden",
        ),
        ("[1]", json!(["body"]), "model_attributes_type"),
        (r#"{"a": 1"#, json!(["body", 7]), "json_invalid"),
    ] {
        assert_eq!(wrong(body).await, (422, loc, kind.to_owned()), "{body}");
    }
    assert!(heard.lock().unwrap().is_empty(), "none of them reached the server");
    // What models write instead of what they mean: as mcpo takes it.
    for (body, arguments) in [
        (r#"{"a": "7", "b": null, "note": null}"#, json!({"a": 7, "b": null})),
        (r#"{"a": 1.0, "more": {"x": 1e2}}"#, json!({"a": 1.0, "more": {"x": 1e2}})),
    ] {
        let answer = world.ask("POST", "/openapi/time/sum", &[], body).await;
        assert_eq!((answer.status().as_u16(), read(answer).await), (200, json!({"sum": 3})));
        assert_eq!(heard.lock().unwrap().pop().expect("a call")["arguments"], arguments);
    }
}

#[tokio::test(start_paused = true)]
async fn errors_of_tools_and_servers_have_the_documented_answers() {
    let mut world = world(None);
    let heard = world.play();
    let (status, body) = world.post("/openapi/time/fail", json!({})).await;
    assert_eq!((status, body), (500, json!({"detail": {"message": "no", "code": "MCPO-G060"}})));
    // One that says nothing is given up, and told.
    let (status, body) = world.post("/openapi/time/hold", json!({"never": true})).await;
    assert_eq!((status, &body["detail"]["code"]), (504, &json!("MCPO-G063")));
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(heard.lock().unwrap().pop().expect("a word"), "notifications/cancelled");
    // A caller that goes away has cancelled.
    let call = world.post("/openapi/time/hold", json!({"never": true}));
    assert!(tokio::time::timeout(Duration::from_secs(1), call).await.is_err());
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(heard.lock().unwrap().pop().expect("a word"), "notifications/cancelled");
    let entry = world.gateway.entry(&id("time")).expect("it");
    assert_eq!(entry.slot.live().expect("a connection").leg.working(), 0, "nothing is left");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_dies_during_a_call_is_told_and_the_call_is_not_tried_again() {
    let world = world(None);
    let World { front, gateway, mut on_stage } = world;
    let (_never, none) = tokio::sync::mpsc::unbounded_channel();
    let world = World { front, gateway, on_stage: none };
    let calling = world.post("/openapi/time/now", json!({}));
    let dying = async {
        let mut server = on_stage.recv().await.expect("a server");
        let asked = server.hear("tools/list").await;
        server.answer(&asked, &json!({ "tools": tools() }));
        server.hear("tools/call").await;
        server.say.send(EXIT.to_owned()).expect("a server");
    };
    let ((status, body), ()) = tokio::join!(calling, dying);
    assert_eq!((status, &body["detail"]["code"]), (502, &json!("MCPO-G064")), "{body}");
    let mut next = on_stage.recv().await.expect("it comes back");
    let calling = world.post("/openapi/time/now", json!({}));
    let answering = async {
        let asked = next.hear("tools/list").await;
        next.answer(&asked, &json!({ "tools": tools() }));
        let call = next.hear("tools/call").await;
        assert!(next.heard.try_recv().is_err(), "one call, not two");
        next.answer(&call, &json!({"content": []}));
    };
    assert_eq!(tokio::join!(calling, answering).0, (200, json!([])));
    // One that is stopped says so at once, and its tools are gone.
    let stopped =
        Place { down: Some(Down::Stopped("it is stopped".to_owned())), ..(*place("a", RETRY)).clone() };
    let places: Places = [(id("time"), Arc::new(stopped))].into_iter().collect();
    world.gateway.set_places(&places);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let (status, body) = world.post("/openapi/time/now", json!({})).await;
    assert_eq!((status, &body["detail"]["code"]), (503, &json!("MCPO-G062")));
    let (_, index) = world.get("/openapi/openapi.json").await;
    assert_eq!(index["paths"], json!({}));
    assert!(index["x-mcp-unavailable"]["time"].as_str().is_some_and(|why| why.contains("stopped")));
    world.gateway.set_places(&Places::new());
    assert_eq!(world.post("/openapi/time/now", json!({})).await.0, 404);
}

#[tokio::test(start_paused = true)]
async fn progress_is_told_to_who_wants_to_hear_it() {
    let mut world = world(None);
    let heard = world.play();
    let events = ("accept", "text/event-stream");
    let answer = world.ask("POST", "/openapi/time/hold", &[events], "").await;
    assert_eq!(&answer.headers()["content-type"], "text/event-stream");
    let said = text(answer).await;
    assert_eq!(
        said,
        "event: progress\ndata: {\"progress\":1,\"total\":2}\n\n\
         event: progress\ndata: {\"progress\":2,\"total\":2}\n\n\
         event: result\ndata: \"held\"\n\n"
    );
    let said = text(world.ask("POST", "/openapi/time/fail", &[events], "").await).await;
    assert_eq!(
        said,
        "event: error\ndata: {\"status\":500,\"detail\":{\"message\":\"no\",\"code\":\"MCPO-G060\"}}\n\n"
    );
    let both = ("accept", "application/json, text/event-stream");
    assert_eq!(read(world.ask("POST", "/openapi/time/hold", &[both], "").await).await, json!("held"));
    // Going away cancels here too.
    heard.lock().unwrap().clear();
    let answer = world.ask("POST", "/openapi/time/hold", &[events], r#"{"never": true}"#).await;
    assert!(matches!(answer.body(), Body::Events(_)));
    drop(answer);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(heard.lock().unwrap().pop().expect("a word"), "notifications/cancelled");
}

#[tokio::test(start_paused = true)]
async fn one_server_that_hangs_holds_up_no_index() {
    let mut world = world(None);
    let mut server = world.on_stage.recv().await.expect("a server");
    let places: Places =
        [(id("time"), place("a", RETRY)), (id("hangs"), place("b", RETRY))].into_iter().collect();
    world.gateway.set_places(&places);
    let mut hanging = world.on_stage.recv().await.expect("a second one");
    let before = tokio::time::Instant::now();
    let answering = async {
        let asked = server.hear("tools/list").await;
        server.answer(&asked, &json!({ "tools": tools() }));
        hanging.hear("tools/list").await;
    };
    let ((status, index), ()) = tokio::join!(world.get("/openapi/openapi.json"), answering);
    assert_eq!((status, before.elapsed().as_millis()), (200, 1500));
    let ids: Vec<&Value> =
        index["paths"].as_object().unwrap().values().map(|path| &path["post"]["operationId"]).collect();
    assert!(ids.contains(&&json!("tool_time_get_current_time_post")), "{ids:?}");
    assert!(index["paths"]["/time/convert_time"].is_object());
    assert!(index["x-mcp-unavailable"]["hangs"].is_string());
    assert!(!index["components"]["schemas"].as_object().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn tools_appear_and_vanish_when_their_server_says_so() {
    let mut world = world(None);
    let mut server = world.on_stage.recv().await.expect("a server");
    for name in ["old", "new"] {
        let answering = async {
            let asked = server.hear("tools/list").await;
            server.answer(&asked, &json!({"tools": [{"name": name, "inputSchema": {"type": "object"}}]}));
        };
        let ((_, document), ()) = tokio::join!(world.get("/openapi/time/openapi.json"), answering);
        let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
        assert_eq!(paths, [&format!("/{name}")]);
        server.tell(&json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn resources_and_prompts_can_be_read() {
    let mut world = world(None);
    world.play();
    assert_eq!(
        world.get("/openapi/time/resources").await,
        (200, json!({"resources": [{"uri": "a:b", "name": "b", "x": 1.0}], "resourceTemplates": []}))
    );
    assert_eq!(world.get("/openapi/time/prompts").await, (200, json!({"prompts": [{"name": "greet"}]})));
    assert_eq!(world.get("/openapi/time/resources/read?uri=a%3Ab").await.1["contents"][0]["text"], "t");
    assert_eq!(
        world.get("/openapi/time/resources/read").await.1["detail"][0]["loc"],
        json!(["query", "uri"])
    );
    assert_eq!(
        world.get("/openapi/time/prompts/greet?who=you%20two").await.1,
        json!({"description": "greet \"you two\""})
    );
    assert_eq!(world.get("/openapi/time/tools").await.1["tools"].as_array().map(Vec::len), Some(7));
    assert_eq!(world.get("/openapi/time/resources/read?uri=none").await.0, 404);
}

/// What Open WebUI makes of a document: name, description and parameters of each tool.
fn tool_payloads(document: &Value) -> Vec<Value> {
    fn resolve(schema: &Value, components: &Value, depth: usize) -> Value {
        assert!(depth < 50, "Open WebUI follows references without end");
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            let parts = reference.trim_matches(['#', '/']).split('/').skip(1);
            let target = parts.fold(components, |at, part| &at[part]);
            assert!(target.is_object(), "{reference} leads nowhere");
            return resolve(target, components, depth + 1);
        }
        let mut schema = schema.clone();
        if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
            properties.values_mut().for_each(|property| *property = resolve(property, components, depth + 1));
        }
        if let Some(items) = schema.get_mut("items") {
            *items = resolve(items, components, depth + 1);
        }
        schema
    }
    let components = &document["components"];
    let operations = document["paths"].as_object().unwrap().values().map(|methods| &methods["post"]);
    let payload = |operation: &Value| {
        let schema = operation.pointer("/requestBody/content/application~1json/schema");
        let schema = schema.map(|schema| resolve(schema, components, 0)).unwrap_or_default();
        json!({"name": operation["operationId"], "description": operation["description"], "properties": schema["properties"], "required": schema["required"]})
    };
    operations.map(payload).collect()
}

#[tokio::test(start_paused = true)]
async fn open_webui_finds_understands_and_calls_every_tool() {
    let mut world = world(Some("key"));
    let heard = world.play();
    let auth = ("authorization", "Bearer key");
    let json_type = ("content-type", "application/json");
    for url in ["/openapi/time", "/openapi"] {
        let accept = ("accept", "application/json");
        let answer = world.ask("GET", &format!("{url}/openapi.json"), &[accept, json_type, auth], "").await;
        assert_eq!(answer.status().as_u16(), 200);
        let document = read(answer).await;
        let payloads = tool_payloads(&document);
        assert_eq!(payloads.len(), 7);
        let sum =
            payloads.iter().find(|tool| tool["name"].as_str().unwrap().ends_with("sum_post")).expect("sum");
        assert_eq!((&sum["properties"]["a"]["type"], &sum["required"]), (&json!("integer"), &json!(["a"])));
        assert_eq!(sum["properties"]["tree"]["properties"]["value"]["enum"], json!(["x", "y"]));
        for (path, methods) in document["paths"].as_object().unwrap() {
            let operation = &methods["post"];
            // With a body declared and nothing to send it gives up; without one it sends {}.
            let takes = operation["requestBody"]["content"].is_object();
            let body = match operation["x-mcp-tool"].as_str().unwrap() {
                "get_current_time" => json!({"timezone": "UTC"}),
                "convert_time" => {
                    json!({"source_timezone": "UTC", "time": "12:00", "target_timezone": "CET"})
                }
                "sum" => json!({"a": 1, "tree": {"left": {"value": "x"}}}),
                _ => json!({}),
            };
            assert_eq!(takes, body != json!({}), "{path}");
            let answer =
                world.ask("POST", &format!("{url}{path}"), &[json_type, auth], &body.to_string()).await;
            let status = answer.status().as_u16();
            let tool = operation["x-mcp-tool"].as_str().unwrap();
            assert_eq!(status, if tool == "fail" { 500 } else { 200 }, "{path}");
            read(answer).await;
            assert_eq!(heard.lock().unwrap().pop().expect("a call")["name"], tool);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn pages_of_allowed_origins_may_call_tools() {
    let mut world = world(Some("key"));
    world.play();
    let origin = ("origin", "http://localhost:3000");
    let question = [
        origin,
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type"),
    ];
    let answer = world.ask("OPTIONS", "/openapi/time/now", &question, "").await;
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["access-control-allow-origin"]),
        (204, &origin.1.parse().unwrap())
    );
    let answer = world.ask("POST", "/openapi/time/now", &[origin, ("authorization", "Bearer key")], "").await;
    assert_eq!(&answer.headers()["access-control-allow-origin"], origin.1);
    assert!(answer.headers()["access-control-expose-headers"].to_str().unwrap().contains("X-MCP-Spec-Hash"));
    let evil = world
        .ask(
            "POST",
            "/openapi/time/now",
            &[("origin", "http://evil.example"), ("authorization", "Bearer key")],
            "",
        )
        .await;
    assert_eq!(evil.status().as_u16(), 403);
}

#[tokio::test(start_paused = true)]
async fn headers_of_callers_reach_a_server_without_headers_within_the_call() {
    let mut world = world(None);
    let rules = ["x-user-*", "!x-user-secret"].map(str::to_owned).to_vec();
    let offer = Arc::new(Offer { forward_headers: rules, ..Offer::default() });
    let place = Place { offer, ..(*place("a", RETRY)).clone() };
    world.gateway.set_places(&[(id("time"), Arc::new(place))].into_iter().collect());
    let heard = world.play();
    let headers = [("x-user-name", "ann"), ("x-user-secret", "s"), ("x-other", "o")];
    let answer = world.ask("POST", "/openapi/time/get_current_time", &headers, r#"{"timezone":"UTC"}"#).await;
    assert_eq!(answer.status(), 200);
    let call = heard.lock().unwrap().first().cloned().expect("a call");
    assert_eq!(call["_meta"]["headers"], json!({"x-user-name": "ann"}), "{call}");
    assert_eq!(call["arguments"], json!({"timezone": "UTC"}));
}
