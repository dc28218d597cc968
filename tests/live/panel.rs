//! The dashboard and the API over the network: a real daemon with real containers, attacked,
//! steered, watched and killed.

use crate::gateway::wire::{Ask, Reply};
use crate::support::{Daemon, Site, docker_run, engine, eventually, http, image, stdio};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A password that is not the shipped one.
const PASSWORD: &str = "a long enough password";
/// `admin` and that password.
const BASIC: &str = "Basic YWRtaW46YSBsb25nIGVub3VnaCBwYXNzd29yZA==";
const WRONG: &str = "Basic YWRtaW46Z3Vlc3M=";

/// A site whose daemon has a password of its own.
fn site(name: &str) -> Site {
    let mut site = Site::new(name);
    site.setting("DASHBOARD__PASSWORD", PASSWORD);
    site.setting("DASHBOARD__HOST", "127.0.0.1");
    site
}

/// A daemon whose main listener is open.
fn started(site: &Site) -> Daemon {
    let daemon = site.daemon();
    eventually("the main listener", 20, || TcpStream::connect(("127.0.0.1", port(site))).ok());
    daemon
}

fn port(site: &Site) -> u16 {
    site.fixed_port() + 1
}

fn get(site: &Site, path: &str) -> Reply {
    Ask::new("GET", path).with("Authorization", BASIC).send(port(site))
}

fn post(site: &Site, path: &str, body: &str) -> Reply {
    let ask = Ask { body: body.to_owned(), ..Ask::new("POST", path) };
    ask.with("Authorization", BASIC).with("Content-Type", "application/json").send(port(site))
}

#[track_caller]
fn state(site: &Site, server: &str) -> String {
    let view = get(site, &format!("/api/v1/servers/{server}")).json();
    view["state"].as_str().unwrap_or_else(|| panic!("{view}")).to_owned()
}

fn settled(site: &Site) {
    eventually("all is settled", 60, || {
        let health = get(site, "/api/v1/panel/health").json();
        (health["settled"] == true && health["pass"].as_u64() > Some(0)).then_some(())
    });
}

#[test]
fn only_who_knows_the_password_comes_in() {
    let site = site("panel-auth");
    site.write(&json!({ "time": stdio(&["-e", "API_KEY=planted-secret-41"]) }));
    let _daemon = started(&site);
    settled(&site);
    let port = port(&site);
    let bare = |path: &str| Ask::new("GET", path).send(port);
    for (path, status) in [
        ("/health", 200),
        ("/healthz", 200),
        ("/readyz", 200),
        ("/docs", 200),
        ("/openapi.json", 200),
        ("/", 303),
        ("/ui", 303),
        ("/monitor", 401),
        ("/monitor/servers/time", 401),
        ("/api/v1/servers", 401),
        ("/api/v1/nothing", 401),
        ("/servers", 401),
        ("/metrics", 401),
        ("/nothing", 404),
    ] {
        let reply = bare(path);
        assert_eq!(reply.status, status, "{path}");
        let challenge = reply.header("www-authenticate").starts_with("Basic ");
        assert_eq!(challenge, status == 401, "{path}");
    }
    assert_eq!(bare("/health").body(), r#"{"status":"ok"}"#);
    for path in [
        "/monitor",
        "/monitor/servers/time",
        "/monitor/plan",
        "/monitor/tasks",
        "/monitor/audit",
        "/monitor/balancer",
        "/api/v1/servers",
        "/api/v1/servers/time",
        "/servers",
        "/metrics",
        "/api/v1/plan",
        "/api/v1/sections",
        "/api/v1/status",
        "/api/v1/audit",
    ] {
        let reply = get(&site, path);
        assert_eq!(reply.status, 200, "{path}");
        assert!(reply.header("content-security-policy").contains("default-src 'none'"), "{path}");
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(reply.header("x-frame-options"), "DENY", "{path}");
        assert!(!reply.header("x-request-id").is_empty(), "{path}");
        let text = reply.body();
        assert!(!text.contains("planted-secret"), "{path} shows a secret");
        assert!(!text.contains(PASSWORD), "{path} shows the password");
        assert!(!text.contains("<script>") && !text.contains("style="), "{path} has something inline");
    }
    let bearer = Ask::new("GET", "/api/v1/servers").with("Authorization", &format!("Bearer {PASSWORD}"));
    assert_eq!(bearer.send(port).status, 200);
    let unknown = get(&site, "/api/v1/servers/nobody");
    assert_eq!((unknown.status, unknown.header("content-type")), (404, "application/problem+json"));
    let problem = unknown.json();
    assert!(problem["code"] == "MCPO-H002" && problem["hint"].is_string(), "{problem}");
}

#[test]
fn guesses_are_slowed_down_and_a_hash_serves_as_well() {
    let mut site = site("panel-guess");
    let mut hash = site.program(&["hash-password"]);
    hash.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut hash = hash.spawn().expect("the program");
    writeln!(hash.stdin.take().expect("a pipe"), "{PASSWORD}").expect("a password");
    let hash = String::from_utf8(hash.wait_with_output().expect("an end").stdout).expect("text");
    assert!(hash.starts_with("$argon2id$"), "{hash}");
    std::fs::write(site.path("password"), &hash).expect("a file");
    let file = site.path("password").display().to_string();
    site.setting("DASHBOARD__PASSWORD_FILE", &file);
    site.write(&json!({}));
    let _daemon = started(&site);
    let ask = |credentials: &str| {
        Ask::new("GET", "/api/v1/servers").with("Authorization", credentials).send(port(&site))
    };
    assert_eq!(ask(BASIC).status, 200);
    let begun = Instant::now();
    for _ in 0..20 {
        assert_eq!(ask(BASIC).status, 200);
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "a right password is not hashed each time");
    for _ in 0..5 {
        assert_eq!(ask(WRONG).status, 401);
    }
    let slowed = ask(WRONG);
    assert_eq!(slowed.status, 429);
    assert!(slowed.header("retry-after").parse::<u64>().is_ok_and(|secs| secs >= 1));
    assert_eq!(ask(BASIC).status, 429, "also a right guess is not told");
    eventually("the right one comes in again", 10, || (ask(BASIC).status == 200).then_some(()));
    let audit = get(&site, "/api/v1/audit?result=refused").json();
    assert!(audit.as_array().is_some_and(|all| all.iter().any(|line| line["what"] == "sign in")), "{audit}");
    assert!(!audit.to_string().contains("guess"), "{audit}");
}

#[test]
fn the_shipped_password_is_good_on_loopback_only() {
    let mut site = Site::new("panel-shipped");
    site.setting("DASHBOARD__HOST", "0.0.0.0");
    site.write(&json!({}));
    let daemon = started(&site);
    let port = port(&site);
    let shipped = Ask::new("GET", "/monitor").with("Authorization", "Basic YWRtaW46Y2hhbmdlbWU=");
    let page = shipped.send(port);
    assert_eq!(page.status, 200);
    assert!(page.body().contains("loopback only"));
    let listens = std::fs::read_to_string("/proc/net/tcp").expect("sockets");
    let anywhere = format!("00000000:{port:04X}");
    let loopback = format!("0100007F:{port:04X}");
    assert!(listens.contains(&loopback) && !listens.contains(&anywhere), "{listens}");
    assert!(daemon.log().contains("loopback only"), "{}", daemon.log());
}

/// Every attack is refused, and changes nothing.
#[test]
fn pages_of_others_and_odd_requests_do_nothing() {
    let site = site("panel-attacks");
    site.write(&json!({ "time": stdio(&[]) }));
    let _daemon = started(&site);
    settled(&site);
    let port = port(&site);
    let stop = || Ask::new("POST", "/api/v1/servers/time/stop").with("Authorization", BASIC);
    let own = format!("http://127.0.0.1:{port}");
    let attacks: &[(&str, Ask, u16)] = &[
        (
            "a page of another site",
            stop().with("Origin", "http://evil.example").with("X-MCP-Orchestrator", "1"),
            403,
        ),
        ("a sandboxed frame", stop().with("Origin", "null").with("X-MCP-Orchestrator", "1"), 403),
        (
            "another port of this host",
            stop().with("Origin", "http://127.0.0.1:1").with("X-MCP-Orchestrator", "1"),
            403,
        ),
        ("a form of our own origin", stop().with("Origin", &own), 403),
        (
            "a site that hides its origin",
            stop().with("Sec-Fetch-Site", "cross-site").with("X-MCP-Orchestrator", "1"),
            403,
        ),
        ("a form's body", Ask { body: "x=1".to_owned(), ..stop().with("Content-Type", "text/plain") }, 415),
        ("a name that was pointed here", stop().with("Host", "evil.example"), 403),
        (
            "an image of another site",
            Ask::new("GET", "/api/v1/plan")
                .with("Authorization", BASIC)
                .with("Sec-Fetch-Site", "cross-site")
                .with("Sec-Fetch-Mode", "no-cors"),
            403,
        ),
        ("GET for an action", Ask::new("GET", "/api/v1/servers/time/stop").with("Authorization", BASIC), 405),
        ("no password", Ask::new("POST", "/api/v1/servers/time/stop"), 401),
        ("a path that steps up", Ask::new("GET", "/docs/../api/v1/servers"), 400),
        ("an escaped separator", Ask::new("GET", "/docs%2f..%2fapi"), 400),
        ("a body that is too large", post_of(5_000_000), 413),
    ];
    for (what, ask, status) in attacks {
        assert_eq!(ask.send(port).status, *status, "{what}");
    }
    let many: String = (0..80).map(|n| format!("X-{n}: y\r\n")).collect();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    write!(stream, "GET /monitor HTTP/1.1\r\nHost: 127.0.0.1\r\n{many}\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert_eq!(state(&site, "time"), "converged");
    assert_eq!(get(&site, "/api/v1/tasks").json(), json!([]), "none of them became a task");
    let allowed =
        stop().with("Origin", &own).with("Sec-Fetch-Site", "same-origin").with("X-MCP-Orchestrator", "1");
    assert_eq!(allowed.send(port).status, 202, "our own page may");
}

fn post_of(bytes: usize) -> Ask {
    let ask = Ask { body: "x".repeat(bytes), ..Ask::new("POST", "/api/v1/servers/time/call") };
    ask.with("Authorization", BASIC).with("Content-Type", "application/json")
}

#[test]
fn actions_are_tasks_that_end_when_the_loop_has_finished() {
    let site = site("panel-tasks");
    site.write(
        &json!({ "time": stdio(&[]), "web": http(&[]), "broken": docker_run(&["--privileged", &image()]) }),
    );
    let _daemon = started(&site);
    settled(&site);
    let before = site.id("time");
    let accepted = post(&site, "/api/v1/servers/time/restart", "");
    assert_eq!(accepted.status, 202);
    let place = accepted.header("location").to_owned();
    assert_eq!(accepted.json()["state"], "running");
    let ended = eventually("the task ends", 60, || {
        let task = get(&site, &place).json();
        (task["state"] != "running").then_some(task)
    });
    assert_eq!((&ended["state"], &ended["by"]), (&json!("done"), &json!("admin")), "{ended}");
    let container = site.running("time");
    let restarted = container["State"]["StartedAt"].as_str().unwrap_or_default().to_owned();
    assert!(site.id("time") != before || !restarted.is_empty());
    let stopped = post(&site, "/api/v1/servers/time,web/stop?wait=60s", "");
    assert_eq!(stopped.status, 200);
    let stopped = stopped.json();
    assert_eq!((&stopped["state"], stopped["results"].as_array().map(Vec::len)), (&json!("done"), Some(2)));
    assert_eq!((state(&site, "time"), state(&site, "web")), ("stopped".to_owned(), "stopped".to_owned()));
    let unknown = post(&site, "/api/v1/servers/time,nobody/start", "");
    assert_eq!(unknown.status, 404, "all or none");
    assert_eq!(state(&site, "time"), "stopped");
    let short = post(&site, "/servers/time/start", "{}").json();
    assert_eq!((&short["name"], &short["status"]), (&json!("time"), &json!("running")), "{short}");
    let result = post(&site, "/servers/time/call", r#"{"tool":"echo","arguments":{"text":"hello"}}"#);
    assert_eq!(result.status, 200);
    assert!(result.body().contains("hello"));
    let bad = post(&site, "/servers/nobody/start", "{}");
    assert_eq!(bad.status, 404);
    assert!(bad.json()["error"].is_string());
    let synced = post(&site, "/api/v1/sync?wait=60s", "").json();
    assert_eq!(synced["state"], "failed", "the broken entry is named: {synced}");
    let wrong: Vec<&Value> =
        synced["results"].as_array().expect("results").iter().filter(|r| r["ok"] == false).collect();
    assert!(wrong.len() == 1 && wrong[0]["server"] == "broken" && wrong[0]["code"].is_string(), "{wrong:?}");
    let audit = get(&site, "/api/v1/audit?server=time").json().to_string();
    for what in ["restart", "call echo", "start container"] {
        assert!(audit.contains(what), "{what} is in {audit}");
    }
    assert!(!audit.contains("hello"), "arguments are not kept: {audit}");
}

#[test]
fn the_command_line_acts_through_the_same_tasks() {
    let site = site("panel-cli");
    site.write(&json!({ "time": stdio(&[]) }));
    let _daemon = started(&site);
    settled(&site);
    site.run(&["stop-server", "time"]).exits(0);
    site.run(&["start-server", "time"]).exits(0);
    let tasks = get(&site, "/api/v1/tasks").json();
    let acts: Vec<&str> =
        tasks.as_array().expect("tasks").iter().filter_map(|task| task["act"].as_str()).collect();
    assert_eq!(acts, ["start", "stop"], "newest first");
    assert_eq!(tasks[0]["via"], "socket");
    assert!(tasks[0]["by"].as_str().is_some_and(|by| by.contains("command line")), "{tasks}");
}

#[test]
fn a_task_that_runs_when_the_daemon_is_killed_is_shown_as_interrupted() {
    let site = site("panel-killed");
    // It takes its time to stop: its init ignores what it is asked.
    let stubborn = docker_run(&["--stop-timeout", "60", "--stop-signal", "SIGCONT", "-i", &image()]);
    site.write(&json!({ "time": stubborn }));
    let daemon = started(&site);
    settled(&site);
    let task = post(&site, "/api/v1/servers/time/stop", "");
    let place = task.header("location").to_owned();
    assert_eq!(task.status, 202);
    assert_eq!(get(&site, &place).json()["state"], "running");
    daemon.kill();
    let _again = started(&site);
    let task = get(&site, &place).json();
    assert_eq!(task["state"], "interrupted", "{task}");
    engine("POST", &format!("/containers/{}/kill", site.name("time")), &Value::Null);
    eventually("the wish was kept", 60, || (state(&site, "time") == "stopped").then_some(()));
}

#[test]
fn events_tell_of_a_container_that_dies() {
    let site = site("panel-events");
    site.write(&json!({ "time": stdio(&[]), "other": stdio(&[]) }));
    let daemon = started(&site);
    settled(&site);
    let mut stream = TcpStream::connect(("127.0.0.1", port(&site))).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a socket");
    write!(stream, "GET /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {BASIC}\r\n\r\n")
        .expect("sent");
    let mut seen = String::new();
    let mut read = |until: &str, secs: u64| {
        let begun = Instant::now();
        let mut buffer = [0; 4096];
        while !seen.contains(until) && begun.elapsed() < Duration::from_secs(secs) {
            if let Ok(count) = stream.read(&mut buffer) {
                seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
                if count == 0 {
                    break;
                }
            }
        }
        std::mem::take(&mut seen)
    };
    let first = read("event: report", 20);
    assert!(first.contains("text/event-stream") && first.contains("event: report"), "{first}");
    engine("POST", &format!("/containers/{}/kill", site.name("time")), &Value::Null);
    let told = read(r#""changed":["time"]"#, 30);
    assert!(told.contains(r#""changed":["time"]"#), "only the one that died: {told}");
    settled(&site);
    // An open stream must not hold the end back.
    let begun = Instant::now();
    assert_eq!(daemon.stop(), 0);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn what_servers_use_is_read_beside_the_loop() {
    let site = site("panel-usage");
    site.write(&json!({ "time": stdio(&["-m", "64m"]), "web": http(&[]), "off": { "disabled": true, "command": "x" } }));
    let daemon = started(&site);
    settled(&site);
    let usage = |server: &str| get(&site, &format!("/api/v1/servers/{server}")).json()["usage"].clone();
    // An engine without controllers counts no processor time and no memory: then none is told.
    let (_, info) = engine("GET", "/info", &Value::Null);
    let counts = info["PidsLimit"] == true && info["MemoryLimit"] == true;
    for server in ["time", "web"] {
        let used = eventually("figures of both readings", 30, || {
            let used = usage(server);
            used["networkInBytesPerSecond"].is_number().then_some(used)
        });
        if counts {
            let memory = used["memoryBytes"].as_u64().unwrap_or_default();
            assert!((100 << 10..64 << 20).contains(&memory) && used["pids"].as_u64() > Some(0), "{used}");
            assert!(used["cpuPercent"].is_number(), "{used}");
        } else {
            for figure in ["cpuPercent", "memoryBytes", "pids"] {
                assert!(used[figure].is_null(), "{figure} is made up: {used}");
            }
        }
    }
    assert_eq!(usage("time")["memoryLimitBytes"].as_u64(), counts.then_some(64 << 20));
    assert!(usage("off").is_null());
    let call = r#"{"tool":"echo","arguments":{"text":"hello"}}"#;
    eventually("requests are counted", 30, || {
        post(&site, "/api/v1/servers/time/call", call);
        (usage("time")["requestsPerSecond"].as_f64() > Some(0.0)).then_some(())
    });
    let host = get(&site, "/api/v1/host").json();
    assert!(host["memoryBytes"].as_u64() > host["memoryAvailableBytes"].as_u64(), "{host}");
    let points = eventually("a point of the history", 90, || {
        let points = get(&site, "/api/v1/servers/time/history?hours=1").json()["points"].clone();
        points.get(0).is_some().then_some(points)
    });
    assert_eq!(points[0]["memoryBytes"].as_u64() > Some(0), counts, "{points}");
    for bad in ["hours=0", "hours=25", "hours=x", "hours=NaN"] {
        assert_eq!(get(&site, &format!("/api/v1/servers/time/history?{bad}")).status, 400, "{bad}");
    }
    assert_eq!(get(&site, "/api/v1/servers/nobody/history").status, 404);
    assert_eq!(daemon.stop(), 0);
    let _again = started(&site);
    let kept = get(&site, "/api/v1/servers/time/history?hours=1").json()["points"][0].clone();
    assert_eq!(kept, points[0], "it outlives the daemon");
}

#[test]
fn sections_say_what_they_hand_down() {
    let site = site("panel-sections");
    let text = json!({
        "orchestrator": { "sections": { "office": { "limits": { "memory": "64m" }, "env": { "KEY": "planted-secret-42" } } } },
        "mcpServers": { "off": { "disabled": true, "command": "x", "orchestrator": { "section": "office" } } },
    });
    site.write_text(&text.to_string());
    let _daemon = started(&site);
    settled(&site);
    let section = get(&site, "/api/v1/sections/office").json();
    let inherits = section["inherits"].as_array().expect("values").clone();
    let memory = inherits.iter().find(|value| value["key"] == "limits.memory").expect("a limit");
    assert_eq!((&memory["value"], &memory["origin"]), (&json!("64m"), &json!("section office")));
    for path in [
        "/monitor/sections",
        "/monitor/sections/office",
        "/monitor/add/server",
        "/monitor/add/section",
        "/monitor/servers/off/edit",
        "/monitor/sections/office/edit",
        "/monitor/defaults",
        "/monitor/file",
    ] {
        let page = get(&site, path);
        assert_eq!(page.status, 200, "{path}");
        let text = page.body();
        assert!(
            !text.contains("planted-secret") && !text.contains("<script>") && !text.contains("style="),
            "{path}"
        );
    }
    for path in ["/monitor/sections/nothing", "/monitor/servers/nobody/edit", "/monitor/add/nothing"] {
        assert_eq!(get(&site, path).status, 404, "{path}");
    }
}

#[test]
fn without_the_dashboard_probes_and_mcp_stay() {
    let site = site("panel-none");
    site.write(&json!({ "time": stdio(&[]) }));
    let mut command = site.program(&["--no-dashboard", "run"]);
    let _daemon = site.daemon_of(&mut command);
    let port = port(&site);
    eventually("the daemon is ready", 30, || {
        let ask = Ask::new("GET", "/readyz").try_send(port);
        ask.is_ok_and(|reply| reply.status == 200).then_some(())
    });
    for path in ["/monitor", "/ui", "/", "/api/v1/servers", "/servers", "/health"] {
        assert_eq!(get(&site, path).status, 404, "{path}");
    }
    for path in ["/healthz", "/readyz", "/metrics", "/docs"] {
        assert_eq!(get(&site, path).status, 200, "{path}");
    }
    let document = get(&site, "/openapi.json").json();
    assert!(document["paths"].get("/api/v1/servers").is_none() && document["paths"].get("/readyz").is_some());
    let initialize = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#;
    eventually("MCP is served", 40, || {
        (Ask::post("/mcp/time", initialize).send(port).status == 200).then_some(())
    });
}

#[test]
fn the_document_describes_what_is_answered() {
    let site = site("panel-openapi");
    site.write(&json!({ "time": stdio(&[]) }));
    let _daemon = started(&site);
    settled(&site);
    let document = get(&site, "/openapi.json").json();
    let paths = document["paths"].as_object().expect("paths").clone();
    assert!(paths.len() > 20, "{}", paths.len());
    for (path, operations) in &paths {
        let Some(operation) = operations.get("get") else { continue };
        if path == "/api/v1/events" {
            continue;
        }
        let asked = path.replace("{id}", if path.contains("tasks") { "1" } else { "time" });
        let reply = get(&site, &asked);
        let status = reply.status.to_string();
        let described = operation.pointer(&format!("/responses/{status}"));
        assert!(described.is_some(), "{asked} answers {status}, {operation}");
        let kind = reply.header("content-type").split(';').next().unwrap_or_default().to_owned();
        let kinds = described.and_then(|answer| answer["content"].as_object()).expect("content");
        assert!(kinds.contains_key(&kind), "{asked} answers {kind}, not {kinds:?}");
        let schema = kinds[&kind]["schema"].clone();
        if kind == "application/json" {
            fits(&reply.json(), &schema, &document, &asked);
        }
    }
}

/// Whether a value has what a schema requires, and nothing that it does not name.
fn fits(value: &Value, schema: &Value, document: &Value, at: &str) {
    if let Some(target) = schema["$ref"].as_str() {
        let schema = document.pointer(target.trim_start_matches('#')).unwrap_or_else(|| panic!("{target}"));
        return fits(value, schema, document, at);
    }
    if let Some(any) = schema["anyOf"].as_array() {
        if !value.is_null() {
            let real = any.iter().find(|one| one["type"] != "null").expect("a schema");
            fits(value, real, document, at);
        }
        return;
    }
    match value {
        Value::Object(object) if schema["properties"].is_object() => {
            let known = schema["properties"].as_object().expect("properties");
            for (key, value) in object {
                let schema = known.get(key).unwrap_or_else(|| panic!("{at}: {key} is not described"));
                fits(value, schema, document, &format!("{at}/{key}"));
            }
            for key in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                assert!(object.contains_key(key), "{at}: {key} is missing");
            }
        }
        Value::Array(values) if schema["items"].is_object() => {
            values.iter().for_each(|value| fits(value, &schema["items"], document, &format!("{at}[]")));
        }
        _ => {}
    }
}
