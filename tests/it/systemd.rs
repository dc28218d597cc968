//! The daemon under a service manager, which the test plays: it hears what is said, keeps sockets and
//! hands them to the next process, as systemd does.
//!
//! No engine is there: the daemon must be ready, serve and be replaced all the same.

mod manager;

use manager::{Client, Manager, Site, connect, eventually};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

fn two(site: &Site) -> serde_json::Value {
    json!({ "one": site.demo(), "two": site.demo() })
}

/// Asks for the tools of a server, which starts it.
fn initialize(port: u16, server: &str) -> String {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "it", "version": "1"}}})
    .to_string();
    let mut stream = connect(port).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    let head = format!(
        "POST /mcp/{server} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn ready_comes_once_everybody_can_connect_although_the_engine_is_away() {
    let site = Site::new();
    site.write(&two(&site));
    let manager = Manager::new(&site);
    let daemon = manager.start(&[]);
    let ready = manager.wait("READY=1");
    for port in [site.main, site.port(0), site.port(1)] {
        connect(port).unwrap_or_else(|error| panic!("{port} at READY=1: {error}"));
    }
    println!("READY=1 after {:?}", ready.duration_since(daemon.began));
    let heard = manager.heard();
    let at = |word: &str| heard.iter().position(|text| text.starts_with(word)).expect(word);
    assert!(at("STATUS=") < at("READY=1"), "{heard:?}");
    assert!(
        heard.iter().any(|text| text.contains("STATUS=") && text.contains("Docker not reachable")),
        "{heard:?}"
    );
    let mut names = manager.kept();
    names.sort();
    let edges = [0, 1].map(|n| format!("edge-{}", site.port(n)));
    assert_eq!(names, ["control", &edges[0], &edges[1], "main"]);
    assert_eq!(manager.end(daemon), Some(0));
    let heard = manager.heard();
    let stopping = heard.iter().position(|text| text.starts_with("STOPPING=1")).expect("STOPPING=1");
    assert!(heard[stopping..].iter().any(|text| text.starts_with("EXTEND_TIMEOUT_USEC=")), "{heard:?}");
    assert!(site.control().exists(), "its socket is kept");
}

#[test]
fn nobody_is_refused_over_restart_and_kill_9() {
    let site = Site::new();
    site.write(&two(&site));
    let manager = Manager::new(&site);
    let mut daemon = manager.start(&[]);
    manager.wait("READY=1");
    let clients = [site.main, site.port(0), site.port(1)].map(Client::start);
    let answered = || clients.iter().map(Client::answered).min().unwrap_or(0);
    for _ in 0..2 {
        let before = answered();
        eventually("load", || answered() > before + 20);
        assert_eq!(manager.end(daemon), Some(0));
        daemon = manager.start(&[]);
        manager.wait("READY=1");
    }
    let before = answered();
    eventually("load", || answered() > before + 20);
    for client in &clients {
        assert_eq!((client.refused(), client.unanswered()), (0, 0), "over restarts, port {}", client.port);
    }
    for _ in 0..2 {
        manager.kill(daemon);
        daemon = manager.start(&[]);
        manager.wait("READY=1");
        let before = answered();
        eventually("load", || answered() > before + 20);
    }
    for client in clients {
        let (port, slowest) = (client.port, client.slowest());
        let (answered, refused, unanswered) = client.end();
        println!("port {port}: {answered} answered, {unanswered} cut off by kill -9, slowest {slowest:?}");
        // What the killed process had accepted died with it: one client, one connection at a time.
        assert!(refused == 0 && unanswered <= 2, "{refused} refused, {unanswered} unanswered on {port}");
    }
    let status = site.command(&["status", "--json"]).output().expect("the program");
    // Not all is well without an engine, but there is an answer.
    assert_eq!(status.status.code(), Some(1), "the control socket was taken over: {status:?}");
    assert_eq!(manager.end(daemon), Some(0));
}

#[test]
fn ports_of_removed_servers_are_closed_and_the_others_stay() {
    let site = Site::new();
    site.write(&json!({ "one": site.demo(), "two": site.demo(), "zoo": site.demo() }));
    let manager = Manager::new(&site);
    let daemon = manager.start(&[]);
    manager.wait("READY=1");
    let [one, two, zoo] = [0, 1, 2].map(|n| site.port(n));
    let closed = |port: u16| {
        eventually("the port is closed", || {
            connect(port).is_err() && !manager.kept().contains(&format!("edge-{port}"))
        });
    };
    // While the daemon runs.
    site.write(&json!({ "one": site.demo(), "zoo": site.demo() }));
    closed(two);
    assert_eq!(manager.end(daemon), Some(0));
    // While it does not: clients wait, until the next one closes the port.
    site.write(&json!({ "zoo": site.demo() }));
    connect(one).expect("kept meanwhile");
    let daemon = manager.start(&[("MCP_ORCHESTRATOR__SERVICE__ALLOW_MASS_DELETE", "true")]);
    manager.wait("READY=1");
    closed(one);
    connect(zoo).expect("it stays");
    assert_eq!(manager.end(daemon), Some(0));
    // Without the ledger a port that is kept is still one that may be given.
    std::fs::remove_dir_all(site.path("state")).expect("a directory");
    let daemon = manager.start(&[]);
    manager.wait("READY=1");
    eventually("the first port is open", || connect(one).is_ok());
    closed(zoo);
    assert_eq!(manager.end(daemon), Some(0));
}

#[test]
fn a_main_port_that_moved_is_closed() {
    let site = Site::new();
    site.write(&two(&site));
    let manager = Manager::new(&site);
    let daemon = manager.start(&[]);
    manager.wait("READY=1");
    assert_eq!(manager.end(daemon), Some(0));
    let elsewhere = site.spare().to_string();
    let daemon = manager.start(&[("MCP_ORCHESTRATOR__DASHBOARD__PORT", elsewhere.as_str())]);
    manager.wait("READY=1");
    connect(site.main).expect_err("nobody listens there");
    connect(site.spare()).expect("it listens there");
    assert_eq!(manager.kept().iter().filter(|name| *name == "main").count(), 1);
    assert_eq!(manager.end(daemon), Some(0));
}

/// The password of these tests' daemon: without one of its own it stays on loopback.
const OWN: (&str, &str) = ("MCP_ORCHESTRATOR__DASHBOARD__PASSWORD", "one of its own");

/// Listens where the socket unit does, which is not where the settings say.
fn unit(site: &Site) -> std::net::TcpListener {
    let listener = std::net::TcpListener::bind(("127.0.0.1", site.main)).expect("a free port");
    // As systemd has it.
    listener.set_nonblocking(true).expect("a socket");
    listener
}

#[test]
fn the_socket_units_listener_is_served_and_its_first_connection_is_answered() {
    let site = Site::new();
    site.write(&two(&site));
    let manager = Manager::new(&site);
    manager.hold("mcp-orchestrator.socket", unit(&site));
    for _ in 0..2 {
        // Whoever starts the daemon waits in the queue, with what they ask already sent.
        let mut first = connect(site.main).expect("the unit listens");
        first.write_all(b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("room for it");
        first.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        let daemon = manager.start(&[OWN]);
        let mut answer = String::new();
        first.read_to_string(&mut answer).expect("an answer, not a reset");
        assert!(answer.starts_with("HTTP/1."), "{answer}");
        manager.wait("READY=1");
        assert!(manager::healthz(&connect(site.main).expect("a connection")));
        // What the unit holds is not kept a second time, and no other is bound.
        assert!(!manager.kept().contains(&"main".to_owned()), "{:?}", manager.kept());
        assert!(!manager.heard().iter().any(|text| text.contains("FDNAME=mcp-orchestrator.socket")));
        assert_eq!(manager.end(daemon), Some(0));
    }
    // Nobody is refused over restarts, either.
    let mut daemon = manager.start(&[OWN]);
    manager.wait("READY=1");
    let client = Client::start(site.main);
    for _ in 0..2 {
        let before = client.answered();
        eventually("load", || client.answered() > before + 20);
        assert_eq!(manager.end(daemon), Some(0));
        daemon = manager.start(&[OWN]);
        manager.wait("READY=1");
    }
    let (answered, refused, unanswered) = client.end();
    assert!(answered > 0 && (refused, unanswered) == (0, 0), "{refused} refused, {unanswered} unanswered");
    assert_eq!(manager.end(daemon), Some(0));
}

#[test]
fn each_address_of_the_socket_unit_is_served() {
    let site = Site::new();
    site.write(&json!({}));
    let manager = Manager::new(&site);
    manager.hold("mcp-orchestrator.socket", unit(&site));
    let other = std::net::TcpListener::bind(("127.0.0.1", site.spare())).expect("a free port");
    manager.hold("mcp-orchestrator.socket", other);
    let daemon = manager.start(&[]);
    manager.wait("READY=1");
    for port in [site.main, site.spare()] {
        assert!(manager::healthz(&connect(port).expect("a connection")), "{port}");
    }
    assert_eq!(manager.end(daemon), Some(0));
    connect(site.spare()).expect("the unit listens on");
}

#[test]
fn a_password_file_that_becomes_a_shipped_one_opens_nothing() {
    let site = Site::new();
    site.write(&json!({}));
    let file = site.path("password");
    std::fs::write(&file, "one of its own\n").expect("a file");
    let named = file.display().to_string();
    let manager = Manager::new(&site);
    let daemon = manager.start(&[("MCP_ORCHESTRATOR__DASHBOARD__PASSWORD_FILE", named.as_str())]);
    manager.wait("READY=1");
    // `admin:` and the password, in base64.
    let own = "YWRtaW46b25lIG9mIGl0cyBvd24=";
    let (shipped, another) = ("YWRtaW46Y2hhbmdlbWU=", "YWRtaW46YW5vdGhlciBvZiBpdHMgb3du");
    let status = |basic: &str| {
        let mut stream = connect(site.main).expect("a connection");
        let head = "GET /api/v1/servers HTTP/1.0\r\nHost: localhost\r\nAuthorization: Basic ";
        stream.write_all(format!("{head}{basic}\r\n\r\n").as_bytes()).expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(status(own), "200");
    let reload = |text: &str| {
        std::fs::write(&file, text).expect("a file");
        let before = manager.heard().len();
        daemon.signal(rustix::process::Signal::HUP);
        eventually("the reload ends", || {
            manager.heard().iter().skip(before).any(|text| text.starts_with("READY=1"))
        });
    };
    reload("changeme\n");
    assert_eq!((status(own).as_str(), status(shipped).as_str()), ("200", "401"));
    let said = site.command(&["status", "--detailed"]).output().expect("the program");
    let said = format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(said.contains("shipped"), "{said}");
    reload("another of its own\n");
    assert_eq!(status(another), "200");
    assert_eq!(manager.end(daemon), Some(0));
}

#[test]
fn a_request_under_way_is_answered_before_the_end() {
    let site = Site::new();
    site.write(&json!({ "one": site.demo() }));
    let manager = Manager::new(&site);
    let daemon = manager.start(&[]);
    manager.wait("READY=1");
    let port = site.port(0);
    let greeted = initialize(port, "one");
    assert!(greeted.contains("200 OK"), "{greeted}");
    let began = Instant::now();
    let call = std::thread::spawn(move || manager::call(port, "one", "slow", &json!({"seconds": 2})));
    eventually("the call is under way", || began.elapsed() > Duration::from_millis(500));
    assert_eq!(manager.end(daemon), Some(0));
    let answer = call.join().expect("no panic");
    assert!(answer.contains("200 OK") && answer.contains("\"result\""), "{answer}");
    assert!(began.elapsed() >= Duration::from_secs(2));
}

#[test]
fn the_watchdog_is_fed_while_the_process_moves() {
    let site = Site::new();
    site.write(&json!({}));
    let manager = Manager::new(&site);
    let daemon = manager.start(&[("WATCHDOG_USEC", "800000")]);
    let fed = || manager.heard().iter().filter(|text| text.as_str() == "WATCHDOG=1").count();
    manager.wait("READY=1");
    eventually("it is fed again and again", || fed() > 5);
    daemon.signal(rustix::process::Signal::STOP);
    // What was said before may still be on its way.
    std::thread::sleep(Duration::from_millis(300));
    let (before, status) = (fed(), manager.heard().len());
    std::thread::sleep(Duration::from_millis(1600));
    assert_eq!((fed(), manager.heard().len()), (before, status), "a process that stands still says nothing");
    daemon.signal(rustix::process::Signal::CONT);
    eventually("it is fed again", || fed() > before);
    assert_eq!(manager.end(daemon), Some(0));
    let daemon = manager.start(&[("WATCHDOG_USEC", "800000"), ("WATCHDOG_PID", "1")]);
    manager.wait("READY=1");
    let before = fed();
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(fed(), before, "the watchdog is for another process");
    assert_eq!(manager.end(daemon), Some(0));
}

#[test]
fn a_name_with_line_ends_says_nothing_to_the_manager() {
    let site = Site::new();
    let names = ["x\nWATCHDOG=trigger", "y\nFDSTOREREMOVE=1\nFDNAME=main", "STOPPING=1\r\n"];
    site.write(&names.iter().map(|name| ((*name).to_owned(), site.demo())).collect::<BTreeMap<_, _>>());
    let manager = Manager::new(&site);
    let daemon = manager.start(&[]);
    manager.wait("READY=1");
    let lines: Vec<String> =
        manager.heard().iter().flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    assert!(lines.iter().all(|line| !line.starts_with("WATCHDOG=trigger")), "{lines:?}");
    assert!(lines.iter().all(|line| line != "FDNAME=main" || manager.kept().contains(&"main".to_owned())));
    assert!(lines.iter().all(|line| !line.starts_with("STOPPING")), "{lines:?}");
    assert_eq!(manager.end(daemon), Some(0));
}

#[test]
fn children_inherit_neither_sockets_nor_the_managers_words() {
    let site = Site::new();
    let seen = site.path("seen");
    let script = format!(
        "(env; ls -l /proc/self/fd) > {0}.new; mv {0}.new {0}; exec {1} demo-server",
        seen.display(),
        env!("CARGO_BIN_EXE_mcp-orchestrator")
    );
    site.write(&json!({ "one": {"command": "/bin/sh", "args": ["-c", script]} }));
    let manager = Manager::new(&site);
    let watched = [("WATCHDOG_USEC", "5000000"), ("FDSTORE", "1024"), ("SEEN", "yes")];
    let daemon = manager.start(&watched);
    manager.wait("READY=1");
    assert_eq!(manager.end(daemon), Some(0));
    let daemon = manager.start(&watched);
    manager.wait("READY=1");
    let greeted = initialize(site.port(0), "one");
    assert!(greeted.contains("200 OK"), "{greeted}");
    let seen = std::fs::read_to_string(&seen).expect("what the child saw");
    assert!(seen.contains("PATH="), "{seen}");
    for name in ["SEEN", "LISTEN_", "NOTIFY_SOCKET", "WATCHDOG_", "FDSTORE"] {
        assert!(!seen.contains(name), "{name} in {seen}");
    }
    assert!(!seen.contains("socket:"), "{seen}");
    assert_eq!(manager.end(daemon), Some(0));
}
