//! All servers as one over real HTTP: batches, names that cannot stay, which instance had a call; and what
//! `export` leaves out.

use crate::doors::{Client, demo, served};
use crate::editing::site::{Site, eventually};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The version that has batches.
const WITH_BATCHES: &str = "2025-03-26";

fn call(id: u64, tool: &str, text: &str) -> Value {
    let params = json!({"name": tool, "arguments": {"text": text}});
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
}

/// The answers of a batch by id; none for one that wants none.
fn batch(client: &Client, messages: &Value) -> (u16, BTreeMap<String, Value>) {
    let reply = client.post(messages);
    let data =
        reply.body.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| !data.is_empty());
    let answers = data.map(|data| serde_json::from_str::<Value>(data).expect("JSON"));
    (reply.status, answers.map(|answer| (answer["id"].to_string(), answer)).collect())
}

#[test]
fn a_batch_goes_to_as_many_servers_as_it_names() {
    let ops = json!({"orchestrator": {"section": "ops"}});
    let servers = json!({"orchestrator": {"sections": {"ops": {}}},
        "mcpServers": {"a": demo(&json!({})), "b": demo(&ops), "c": demo(&ops)}});
    let site = Site::new(&servers.to_string());
    let _daemon = site.start(&[]);
    let all = Client::open_as(WITH_BATCHES, site.main(), "/mcp", "");
    eventually("all servers are listed", || all.tools().0.len() == 18);
    let text = |answer: &Value| answer["result"]["content"][0]["text"].clone();
    let messages = json!([
        call(1, "a__echo", "one"),
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        call(2, "b__echo", "two"),
        call(3, "nobody__echo", "x"),
        call(4, "c__echo", "four"),
        {"jsonrpc": "2.0", "id": 5, "method": "tools/list"},
        17,
        {"jsonrpc": "2.0", "id": 6, "method": "initialize", "params": {"protocolVersion": WITH_BATCHES}},
    ]);
    let (status, answers) = batch(&all, &messages);
    assert_eq!((status, answers.len()), (200, 7), "{answers:?}");
    assert_eq!(["1", "2", "4"].map(|id| text(&answers[id])), ["one", "two", "four"].map(Value::from));
    assert_eq!(answers["5"]["result"]["tools"].as_array().map(Vec::len), Some(18));
    let codes = ["3", "null", "6"].map(|id| answers[id]["error"]["code"].clone());
    assert_eq!(codes, [-32602, -32600, -32600].map(Value::from));
    // Those of a section, which knows no others.
    let section = Client::open_as(WITH_BATCHES, site.main(), "/mcp/~ops", "");
    let (_, answers) = batch(&section, &json!([call(1, "a__echo", "x"), call(2, "b__echo", "two")]));
    assert!(answers["1"]["error"].is_object() && text(&answers["2"]) == "two", "{answers:?}");
    // One server's own endpoint does not shake hands twice either.
    let own = Client::open_as(WITH_BATCHES, site.main(), "/mcp/a", "");
    let again = json!({"jsonrpc": "2.0", "id": 2, "method": "initialize", "params": {"protocolVersion": WITH_BATCHES}});
    let (_, answers) = batch(&own, &json!([call(1, "echo", "one"), again]));
    assert_eq!((text(&answers["1"]), &answers["2"]["error"]["code"]), (json!("one"), &json!(-32600)));

    let quiet = json!([{"jsonrpc": "2.0", "method": "notifications/initialized"}]);
    for client in [&all, &section, &own] {
        assert_eq!(batch(client, &quiet).0, 202);
        assert_eq!(batch(client, &json!([])).0, 400);
        let pings = |count: u64| {
            (0..count).map(|id| json!({"jsonrpc": "2.0", "id": id, "method": "ping"})).collect::<Value>()
        };
        assert_eq!(batch(client, &pings(256)).1.len(), 256);
        assert_eq!(batch(client, &pings(257)).0, 400);
    }
    let newer = Client::open(site.main(), "/mcp", "");
    let reply = newer.post(&json!([call(1, "a__echo", "x")]));
    assert!(reply.status == 400 && reply.body.contains("not part of this version"), "{}", reply.body);
}

fn odd_names() -> Vec<String> {
    let x = |count| "x".repeat(count);
    vec![
        x(200),
        x(199) + "y",
        "größe".to_owned(),
        "a/b".to_owned(),
        "a b".to_owned(),
        "dup".to_owned(),
        "dup".to_owned(),
    ]
}

/// A server elsewhere whose tools have names that are taken nowhere.
fn odd(first: &str, message: &Value) -> (u16, String) {
    if !first.starts_with("POST") {
        return (405, String::new());
    }
    let Some(id) = message.get("id") else { return (202, String::new()) };
    let result = match message["method"].as_str() {
        Some("initialize") => json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                                     "serverInfo": {"name": "odd", "version": "1"}}),
        Some("tools/list") => {
            let tool = |name: &String| json!({"name": name, "inputSchema": {"type": "object"}});
            json!({"tools": odd_names().iter().map(tool).collect::<Vec<_>>()})
        }
        Some("tools/call") => json!({"content": [{"type": "text", "text": message["params"]["name"]}]}),
        _ => json!({}),
    };
    (200, json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string())
}

#[test]
fn names_that_clients_do_not_take_are_others_at_mcp_and_told_before_anybody_asks() {
    let entry = json!({"type": "http", "url": format!("http://{}/mcp", served(odd))});
    // Two ids that are one in the part that stays of them.
    let (b, c) = ("a".repeat(61) + "b", "a".repeat(61) + "c");
    let servers = json!({"mcpServers": {"odd": entry, b.as_str(): entry, c.as_str(): entry}});
    let site = Site::new(&servers.to_string());
    let _daemon = site.start(&[]);
    let log = || std::fs::read_to_string(site.path("log")).unwrap_or_default();
    let said =
        |what: &str| log().lines().filter(|line| line.contains("MCPO-G085") && line.contains(what)).count();
    eventually("twice the same name is told", || said("odd has more than one tool 'dup'") == 1);
    eventually("names that are too long are told", || said("is not taken everywhere") == 3);
    let shown = site.command(&["capabilities", "odd"]).output().expect("the program").stdout;
    let shown = String::from_utf8(shown).expect("text");
    assert!(shown.contains("[MCPO-G085]") && shown.lines().all(|line| line.chars().count() <= 80), "{shown}");

    let all = Client::open(site.main(), "/mcp", "");
    let names = all.tools().0;
    assert_eq!(names.len(), 3 * 6, "{names:?}");
    let mut reached = BTreeMap::<String, usize>::new();
    for name in &names {
        assert!(name.len() <= 64 && name.is_ascii(), "{name}");
        *reached.entry(all.call(name, &json!({})).expect("an answer")).or_default() += 1;
    }
    let distinct: BTreeSet<String> = odd_names().into_iter().collect();
    assert_eq!(reached, distinct.into_iter().map(|name| (name, 3)).collect(), "each once at each server");
    // The same names in another life of the daemon.
    drop(_daemon);
    let _daemon = site.start(&[]);
    let again = Client::open(site.main(), "/mcp", "");
    eventually("all are listed", || again.tools().0 == names);
}

#[test]
fn the_audit_says_which_instance_had_a_call() {
    let servers = json!({"mcpServers": {
        "many": demo(&json!({"orchestrator": {"replicas": 2}})),
        "one": demo(&json!({})),
    }});
    let site = Site::new(&servers.to_string());
    let _daemon = site.start(&[]);
    let main = site.main();
    let post = |path: &'static str, body: &Value| {
        Client { port: main, path, auth: String::new(), session: String::new() }.post(body).status
    };
    eventually("both answer", || {
        post("/openapi/one/echo", &json!({"text": "x"})) == 200
            && post("/openapi/many/echo", &json!({"text": "x"})) == 200
    });
    let calls = || {
        let output =
            site.command(&["audit", "--calls", "--json", "--limit", "200"]).output().expect("the program");
        let lines = serde_json::from_slice::<Value>(&output.stdout).expect("JSON")["audit"].clone();
        let lines = lines.as_array().cloned().unwrap_or_default();
        let of = |server: &str| {
            let own = lines.iter().filter(|line| line["server"] == server && line["what"] == "call slow");
            own.map(|line| line["replica"].as_u64()).collect::<BTreeSet<_>>()
        };
        (of("many"), of("one"))
    };
    eventually("both instances had one", || {
        std::thread::scope(|scope| {
            for path in ["/openapi/many/slow", "/openapi/many/slow", "/openapi/one/slow"] {
                scope.spawn(move || post(path, &json!({"seconds": 1, "steps": 1})));
            }
        });
        calls() == (BTreeSet::from([Some(1), Some(2)]), BTreeSet::from([None]))
    });
    let table = site.command(&["audit", "--calls"]).output().expect("the program").stdout;
    let table = String::from_utf8(table).expect("text");
    assert!(table.contains("many-R2") && table.lines().all(|line| line.chars().count() <= 80), "{table}");
}

#[test]
fn export_compose_says_what_it_leaves_out_beside_the_file_and_in_it() {
    let line = [
        "run",
        "-i",
        "--cpuset-mems",
        "0",
        "--log-driver",
        "splunk",
        "--log-opt",
        "splunk-token=planted-1",
        "--ulimit",
        "nofile=10:20",
        "--network",
        "back",
        "-p",
        "127.0.0.1:7777:7000",
        "-e",
        "KEY=planted-2",
        "mcp/x:1",
    ];
    let servers = json!({"mcpServers": {"x": {"command": "docker", "args": line}, "a": demo(&json!({}))}});
    let site = Site::new(&servers.to_string());
    let output = site.command(&["export", "compose"]).output().expect("the program");
    let (file, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}");
    for what in ["a: a local process", "x: --cpuset-mems: ", "x: --log-opt splunk-token: "] {
        assert!(file.contains(&format!("# left out, {what}")), "{what}\n{file}");
        assert!(told.contains(&format!("left out, {what}")), "{what}\n{told}");
    }
    for key in [
        r#"    ulimits: {"nofile":{"soft":10,"hard":20}}"#,
        r#"    networks: {"back":{}}"#,
        r#"    ports: ["127.0.0.1:7777:7000/tcp"]"#,
        r#"  "back": {"external":true}"#,
    ] {
        assert!(file.lines().any(|own| own == key), "{key}\n{file}");
    }
    assert!(!file.contains("planted") && !told.contains("planted"), "{file}{told}");
}

#[test]
fn tokens_of_a_systemd_credential_open_the_door_by_their_digest_and_within_their_scope() {
    let site = Site::new(&json!({"mcpServers": {"a": demo(&json!({})), "b": demo(&json!({}))}}).to_string());
    std::fs::create_dir(site.path("credentials")).expect("a directory");
    // Of "alpha".
    let digest = "8ed3f6ad685b959ead7022518e1af76cd816f8e8ec7ccdda1ed4018e8f2223f8";
    let lines = format!("ci:sha256:{digest} servers=a tools=a/echo\n");
    std::fs::write(site.path("credentials/gateway-tokens"), lines).expect("a file");
    let _daemon = site.start(&[
        ("MCP_ORCHESTRATOR__GATEWAY__AUTH", "bearer"),
        ("CREDENTIALS_DIRECTORY", &site.path("credentials").display().to_string()),
    ]);
    let status = |path: &'static str, auth: &str| {
        let client = Client { port: site.main(), path, auth: auth.to_owned(), session: String::new() };
        client.post(&json!({"text": "x"})).status
    };
    eventually("the token opens", || status("/openapi/a/echo", "Bearer alpha") == 200);
    for auth in ["", "Bearer beta", &format!("Bearer {digest}"), "Basic YWxwaGE="] {
        assert_eq!(status("/openapi/a/echo", auth), 401, "{auth}");
    }
    assert_eq!(status("/openapi/b/echo", "Bearer alpha"), 404, "of no server that it names");
    let all = Client::open(site.main(), "/mcp", "Bearer alpha");
    eventually("it sees what it names", || all.tools().0 == BTreeSet::from(["a__echo".to_owned()]));
    let log = std::fs::read_to_string(site.path("log")).expect("a log");
    assert!(!log.contains("alpha") && !log.contains(digest), "{log}");
}
