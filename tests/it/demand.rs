//! Servers that start with the first request and stop when nobody uses them: what the planner decides,
//! and what clients of a daemon with a local process see of it.

use crate::editing::site::{Daemon, Reply, Site, eventually};
use mcp_orchestrator::model::desired::Desired;
use mcp_orchestrator::model::id::{ContainerId, ImageId, ServerId};
use mcp_orchestrator::model::mark::Mark;
use mcp_orchestrator::model::memory::{Lease, Memory, Nap, Pause, Scope};
use mcp_orchestrator::model::net::HostPort;
use mcp_orchestrator::model::observed::{
    Contact, ContactState, Container, ContainerHealth, ContainerState, Observed, Seen, Use,
};
use mcp_orchestrator::model::op::{EdgeOp, EngineOp, Op};
use mcp_orchestrator::model::policy::Policy;
use mcp_orchestrator::model::server::ServerKind;
use mcp_orchestrator::model::time::{Span, Timestamp};
use mcp_orchestrator::plan::check::check;
use mcp_orchestrator::plan::report::RowState;
use mcp_orchestrator::plan::{Input, Plan, plan};
use mcp_orchestrator::world::fake::{Entry, EntryKind, edge_mark, nothing_seen, policy, server};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const BINARY: &str = env!("CARGO_BIN_EXE_mcp-orchestrator");
const NOW: Timestamp = Timestamp(1_000_000_000);
const IDLE: Span = Span::secs(60);

fn id() -> ServerId {
    ServerId::new("a").unwrap()
}

/// One server that may sleep, its container and its clients.
struct Bench {
    desired: Desired,
    observed: Observed,
    memory: Memory,
    now: Timestamp,
}

impl Bench {
    fn new(kind: EntryKind, on_demand: bool, idle: Option<Span>) -> Self {
        let mut entry = Entry::new("a", kind, "r/x:1");
        (entry.on_demand, entry.idle_timeout) = (on_demand, idle);
        let port = HostPort::new(8000).unwrap();
        let mut bench = Self {
            desired: Desired::default(),
            observed: Observed {
                edges: Some([(id(), port)].into()),
                contacts: Some(BTreeMap::new()),
                run: Some("now".to_owned()),
                ..nothing_seen()
            },
            memory: Memory::default(),
            now: NOW,
        };
        bench.desired.servers.insert(id(), server(&entry).unwrap());
        bench.memory.leases.insert(id(), Lease { port, next: None, since: NOW, fixed: false });
        bench.used(|_| ());
        bench
    }

    /// Its container is in this state.
    fn container(&mut self, state: ContainerState) {
        let ServerKind::Container(decl) = &self.desired.servers[&id()].kind else { panic!("none") };
        let mark = edge_mark(policy(0).unwrap().stack, &id(), decl);
        let mark = Mark { port: HostPort::new(8000), ..mark };
        let one = Container {
            id: ContainerId("a-c1".to_owned()),
            name: "mcp-a".to_owned(),
            mark: Some(mark),
            state,
            image: ImageId("sha256:x".to_owned()),
            created: NOW,
            host_ports: Vec::new(),
        };
        self.observed.containers = Seen::Known(vec![one]);
    }

    fn used(&mut self, change: impl FnOnce(&mut Use)) {
        change(self.observed.uses.entry(id()).or_default());
    }

    /// Time goes by without use.
    fn later(&mut self, span: Span) {
        self.now = self.now.after(span);
        self.used(|used| used.idle = Span(used.idle.0 + span.0));
    }

    /// A plan, which is sound, and is remembered.
    fn plan(&mut self) -> Plan {
        let policy: Policy = policy(20).unwrap();
        let (desired, observed, memory) = (&self.desired, &self.observed, &self.memory);
        let input = Input { desired, observed, memory, policy: &policy, now: self.now };
        let plan = plan(input);
        let broken = check(input, &plan);
        assert!(broken.is_empty(), "{broken:?}");
        self.memory = plan.memory.clone();
        plan
    }

    fn nap(&self) -> &Nap {
        &self.memory.naps[&id()]
    }
}

fn state(plan: &Plan) -> RowState {
    plan.report.servers[&id()].state
}

fn why(plan: &Plan) -> &str {
    &plan.report.servers[&id()].reasons[0].text
}

/// What is done, in words.
fn done(plan: &Plan) -> Vec<&'static str> {
    let word = |op: &Op| match op {
        Op::Edge(EdgeOp::Sleep { .. }) => "sleep",
        Op::Engine(EngineOp::Stop(_)) => "stop",
        Op::Engine(EngineOp::Start(_)) => "start",
        _ => op.kind(),
    };
    plan.actions.iter().map(|action| word(&action.op)).collect()
}

const RUNNING: ContainerState = ContainerState::Running(ContainerHealth::None);

#[test]
fn it_is_started_when_a_request_waits_and_stopped_when_nobody_uses_it() {
    let mut bench = Bench::new(EntryKind::Stdio, true, Some(IDLE));
    bench.container(ContainerState::Exited(0));
    let asleep = bench.plan();
    assert_eq!((state(&asleep), done(&asleep)), (RowState::Asleep, vec![]));
    assert_eq!(asleep.report.servers[&id()].port, HostPort::new(8000));
    assert_eq!(why(&asleep), "asleep: starts with the first request");
    bench.used(|used| (used.waiting, used.count) = (1, 1));
    let woken = bench.plan();
    assert_eq!(done(&woken), ["start"]);
    assert_eq!(why(&woken), "somebody asks for it");
    bench.container(RUNNING);
    bench.used(|used| (used.waiting, used.idle) = (0, Span::ZERO));
    bench.later(Span::secs(59));
    assert_eq!(done(&bench.plan()), Vec::<&str>::new(), "it was used a minute ago");
    bench.later(Span::secs(1));
    bench.used(|used| used.busy = true);
    assert_eq!(done(&bench.plan()), Vec::<&str>::new(), "a call is under way");
    bench.used(|used| used.busy = false);
    let idle = bench.plan();
    assert_eq!(done(&idle), ["sleep", "stop"]);
    assert_eq!(idle.actions[1].after, [0], "requests are held before it is stopped");
    assert_eq!(why(&idle), "stopped: idle for 1 min; the next request starts it");
    bench.container(ContainerState::Exited(137));
    assert_eq!(state(&bench.plan()), RowState::Asleep);
    bench.used(|used| used.count += 1);
    assert_eq!(done(&bench.plan()), ["start"], "also where its caller did not wait");
}

#[test]
fn one_that_was_used_after_all_stays_awake() {
    let mut bench = Bench::new(EntryKind::Stdio, false, Some(IDLE));
    bench.container(RUNNING);
    let _first = bench.plan();
    bench.later(IDLE);
    assert_eq!(done(&bench.plan()), ["sleep", "stop"]);
    // The gateway refused: a request had come.
    bench.used(|used| (used.count, used.idle) = (used.count + 1, Span::ZERO));
    let awake = bench.plan();
    assert_eq!((done(&awake), bench.nap().awake), (vec![], true));
}

#[test]
fn it_sleeps_only_as_its_entry_says() {
    for (on_demand, idle) in [(true, None), (false, None)] {
        let mut bench = Bench::new(EntryKind::Stdio, on_demand, idle);
        bench.container(RUNNING);
        bench.later(Span::secs(1_000_000));
        assert_eq!(done(&bench.plan()), Vec::<&str>::new(), "{on_demand} {idle:?}");
    }
    // Without a word on how it is used nothing is concluded.
    let mut bench = Bench::new(EntryKind::Stdio, false, Some(IDLE));
    bench.container(RUNNING);
    bench.observed.uses.clear();
    let _first = bench.plan();
    bench.now = bench.now.after(Span::secs(1_000_000));
    assert_eq!(done(&bench.plan()), Vec::<&str>::new());
    // What is paused is left as it is, and neither woken nor stopped.
    let mut bench = Bench::new(EntryKind::Stdio, true, Some(IDLE));
    bench.container(RUNNING);
    let _first = bench.plan();
    let pause = Pause { by: "ada".to_owned(), at: NOW, until: None };
    bench.memory.pauses.insert(Scope::Server(id()), pause);
    bench.later(Span::secs(1_000_000));
    assert_eq!(done(&bench.plan()), Vec::<&str>::new());
}

#[test]
fn another_run_starts_nothing_that_starts_on_demand() {
    for (kind, on_demand, awake) in
        [(EntryKind::Stdio, true, false), (EntryKind::Stdio, false, true), (EntryKind::Process, true, false)]
    {
        let mut bench = Bench::new(kind, on_demand, Some(IDLE));
        if kind == EntryKind::Stdio {
            bench.container(ContainerState::Exited(137));
        }
        bench.used(|used| (used.waiting, used.count) = (1, 1));
        let _woken = bench.plan();
        assert!(bench.nap().awake);
        bench.observed.run = Some("next".to_owned());
        bench.used(|used| *used = Use::default());
        let _next = bench.plan();
        assert_eq!(bench.nap().awake, awake, "{kind:?} {on_demand}");
    }
}

#[test]
fn it_is_served_from_the_start_before_it_ever_ran() {
    for kind in [EntryKind::Stdio, EntryKind::Process] {
        let mut bench = Bench::new(kind, true, None);
        bench.memory.leases.clear();
        bench.observed.edges = Some(BTreeMap::new());
        bench.observed.free_ports = Some(Seen::Known(vec![HostPort::new(8003).unwrap()]));
        let plan = bench.plan();
        assert_eq!(done(&plan), ["open_port"], "{kind:?}");
        assert_eq!((state(&plan), why(&plan)), (RowState::Changing, "asleep: starts with the first request"));
    }
}

#[test]
fn a_process_that_runs_and_sleeps_is_let_go() {
    let mut bench = Bench::new(EntryKind::Process, false, Some(IDLE));
    let up = Contact { state: ContactState::Up, uses: BTreeSet::new(), ends: (0, String::new()) };
    bench.observed.contacts = Some([(id(), up)].into());
    assert_eq!(state(&bench.plan()), RowState::Converged);
    bench.later(IDLE);
    assert_eq!(done(&bench.plan()), ["sleep"]);
    bench.observed.contacts = Some(BTreeMap::new());
    let asleep = bench.plan();
    assert_eq!((state(&asleep), done(&asleep)), (RowState::Asleep, vec![]));
}

/// A site with one process that starts on demand, and says so by a file.
fn started(own: &Value) -> (Site, Daemon) {
    let site = Site::new("{}");
    let entry = json!({
        "command": "sh",
        "args": ["-c", format!("echo >> {}; exec {BINARY} demo-server", site.path("starts").display())],
        "orchestrator": own,
    });
    site.write(&json!({ "mcpServers": { "lazy": entry } }).to_string());
    let daemon = site.start(&[]);
    (site, daemon)
}

/// How often its process was started.
fn starts(site: &Site) -> usize {
    read(&site.path("starts")).lines().count()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn is(site: &Site, state: &str) -> bool {
    site.get("/api/v1/servers/lazy").json()["state"] == state
}

/// A client of the server that can be asked nothing.
struct Client<'a> {
    site: &'a Site,
    session: String,
}

impl<'a> Client<'a> {
    fn new(site: &'a Site, path: &str) -> Self {
        let client = Self { site, session: String::new() };
        let hello = json!({
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        });
        let reply = client.ask(path, "initialize", &hello);
        assert_eq!(reply.status, 200, "{}", reply.body);
        Self { site, session: reply.header("mcp-session-id").to_owned() }
    }

    fn ask(&self, path: &str, method: &str, params: &Value) -> Reply {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let accept = ("Accept", "application/json, text/event-stream");
        let session = ("Mcp-Session-Id", self.session.as_str());
        let headers = [accept, session];
        let headers = if self.session.is_empty() { &headers[..1] } else { &headers };
        self.site.send("POST", path, &body.to_string(), headers)
    }

    /// The names of its tools.
    fn tools(&self, path: &str) -> Vec<String> {
        let reply = self.ask(path, "tools/list", &json!({}));
        let reply = answer(&reply);
        let tools = reply["result"]["tools"].as_array().unwrap_or_else(|| panic!("{reply}")).clone();
        tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
    }

    fn call(&self) -> Value {
        answer(&self.ask("/mcp/lazy", "tools/call", &json!({"name": "echo", "arguments": {"text": "hi"}})))
    }
}

/// The message in an answer, plain or as the last event of a stream.
fn answer(reply: &Reply) -> Value {
    let body = unchunked(&reply.body);
    let text = body.lines().filter_map(|line| line.strip_prefix("data: ")).next_back().unwrap_or(&body);
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {} {body}", reply.status))
}

/// Without the lengths of chunks, which are lines of their own.
fn unchunked(body: &str) -> String {
    let length = |line: &&str| !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_hexdigit());
    body.lines().filter(|line| !length(line)).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_process_starts_with_the_first_call_and_ends_when_nobody_uses_it() {
    let (site, daemon) = started(&json!({"startOnDemand": true, "idleTimeout": "2s"}));
    eventually("its listener is open", || is(&site, "asleep"));
    assert_eq!(site.get("/healthz/lazy").status, 200, "whoever asks is to be sent here");
    assert_eq!(starts(&site), 0);
    let shown = site.command(&["why", "lazy"]).output().expect("the program");
    let shown = String::from_utf8(shown.stdout).expect("text");
    assert!(shown.contains("asleep: starts with the first request"), "{shown}");
    // Nothing is kept yet: looking starts it, once.
    let client = Client::new(&site, "/mcp/lazy");
    let tools = client.tools("/mcp/lazy");
    assert!(tools.contains(&"echo".to_owned()), "{tools:?}");
    eventually("it is asleep again", || is(&site, "asleep"));
    eventually("it says why", || {
        let text = &site.get("/api/v1/servers/lazy").json()["reasons"][0]["text"];
        *text == "stopped: idle for 2 s; the next request starts it"
    });
    assert_eq!(starts(&site), 1);
    // From now on looking does not, at any door.
    let looks = |site: &Site| {
        let client = Client::new(site, "/mcp/lazy");
        assert_eq!(client.tools("/mcp/lazy"), tools);
        let all = Client::new(site, "/mcp");
        assert_eq!(all.tools("/mcp").len(), tools.len());
        assert!(site.get("/openapi/lazy/openapi.json").body.contains("/echo"), "the document");
        assert_eq!(site.get("/healthz/lazy").status, 200);
    };
    looks(&site);
    assert_eq!((starts(&site), is(&site, "asleep")), (1, true));
    // A session of before goes on, and its call starts the server.
    let said = client.call();
    assert!(said["result"]["content"][0]["text"].as_str().is_some_and(|text| text.contains("hi")), "{said}");
    assert_eq!(starts(&site), 2);
    eventually("it is asleep again", || is(&site, "asleep"));
    // Another run of the daemon knows what was kept.
    drop(daemon);
    let _daemon = site.start(&[]);
    eventually("its listener is open", || is(&site, "asleep"));
    looks(&site);
    assert_eq!((starts(&site), is(&site, "asleep")), (2, true));
    assert!(client.call()["result"].is_object());
    assert_eq!(starts(&site), 3);
}

#[test]
fn an_open_stream_keeps_it_awake_and_people_are_obeyed() {
    let (site, _daemon) = started(&json!({"startOnDemand": true, "idleTimeout": "1s"}));
    let started = site.command(&["start-server", "lazy"]).output().expect("the program");
    assert!(started.status.success(), "{started:?}");
    assert_eq!(starts(&site), 1);
    eventually("nobody uses it", || is(&site, "asleep"));
    let stopped = site.command(&["stop-server", "lazy"]).output().expect("the program");
    assert!(stopped.status.success(), "{stopped:?}");
    assert!(is(&site, "stopped"));
    assert_eq!(site.get("/healthz/lazy").status, 503);
    let refused = Client { site: &site, session: String::new() };
    let refused = refused.ask("/mcp/lazy", "initialize", &json!({"protocolVersion": "2025-11-25"}));
    assert_eq!((refused.status, starts(&site)), (503, 1), "{}", refused.body);
    let again = site.command(&["start-server", "lazy"]).output().expect("the program");
    assert!(again.status.success() && starts(&site) == 2, "{again:?}");
    let client = Client::new(&site, "/mcp/lazy");
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", site.main())).expect("a connection");
    let head = format!(
        "GET /mcp/lazy HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nMcp-Session-Id: {}\r\n\r\n",
        client.session
    );
    std::io::Write::write_all(&mut stream, head.as_bytes()).expect("written");
    assert!(client.call()["result"].is_object());
    let began = std::time::Instant::now();
    while began.elapsed() < std::time::Duration::from_secs(4) {
        assert!(is(&site, "converged"), "somebody listens");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    drop(stream);
    eventually("nobody listens any more", || is(&site, "asleep"));
}

#[test]
fn one_that_does_not_come_up_is_told_and_what_cannot_be_is_refused() {
    let site = Site::new("{}");
    let entry = json!({
        "command": "sh", "args": ["-c", "sleep 1; exit 3"],
        "orchestrator": {"startOnDemand": true},
    });
    site.write(&json!({ "mcpServers": { "lazy": entry } }).to_string());
    let _daemon = site.start(&[]);
    let client = Client { site: &site, session: String::new() };
    let reply = client.ask("/mcp/lazy", "initialize", &json!({"protocolVersion": "2025-11-25"}));
    assert_eq!(reply.status, 503, "{}", reply.body);
    assert!(reply.json()["error"]["message"].as_str().is_some_and(|text| text.contains("not available")));
    for (own, wrong) in [
        (json!({"idleTimeout": "0s"}), "'idleTimeout' is at least 1s"),
        (json!({"startOnDemand": true, "route": "direct"}), "'startOnDemand' needs the gateway"),
        (json!({"idleTimeout": "soon"}), "'idleTimeout' in orchestrator takes a length of time"),
        (json!({"startOnDemand": "yes"}), "'startOnDemand' in orchestrator takes"),
    ] {
        let entry = json!({"command": "docker", "args": ["run", "-p", "3000", "img"], "orchestrator": own});
        site.write(&json!({ "mcpServers": { "lazy": entry } }).to_string());
        let checked = site.command(&["validate"]).output().expect("the program");
        let text = String::from_utf8_lossy(&checked.stdout).into_owned();
        let text = text + &String::from_utf8_lossy(&checked.stderr);
        assert!(!checked.status.success() && text.contains(wrong), "{text}");
    }
}
