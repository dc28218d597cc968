//! The main listener's TLS, the listener for figures and probes, and clients that are slow or large.

use crate::gateway::wire::Ask;
use crate::support::{Daemon, Site, eventually};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::json;
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

const BASIC: &str = "Basic YWRtaW46YSBsb25nIGVub3VnaCBwYXNzd29yZA==";

/// A site with one local process, whose main listener has a password of its own.
fn site(name: &str) -> Site {
    let mut site = Site::new(name);
    site.setting("DASHBOARD__PASSWORD", "a long enough password");
    site.setting("DASHBOARD__HOST", "127.0.0.1");
    let program = std::env::var("MCPO_BIN").expect("./tests/run.sh sets it");
    site.write(&json!({ "time": { "command": program, "args": ["demo-server"] } }));
    site
}

fn started(site: &Site) -> Daemon {
    let daemon = site.daemon();
    eventually("the main listener", 20, || TcpStream::connect(("127.0.0.1", site.main_port())).ok());
    daemon
}

// ---- TLS -------------------------------------------------------------------------------------------

struct Pair {
    certificate: String,
    key: String,
    der: CertificateDer<'static>,
}

fn pair() -> Pair {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    Pair { certificate: made.cert.pem(), key: made.signing_key.serialize_pem(), der: made.cert.der().clone() }
}

impl Pair {
    fn write(&self, site: &Site) {
        std::fs::write(site.path("key.pem"), &self.key).expect("a file");
        std::fs::write(site.path("cert.pem"), &self.certificate).expect("a file");
    }

    /// A connection to whoever has this certificate and to nobody else.
    fn connect(&self, port: u16) -> Option<BufReader<StreamOwned<ClientConnection, TcpStream>>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("a root");
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().expect("versions");
        let config = builder.with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("localhost").expect("a name");
        let mut session = ClientConnection::new(Arc::new(config), name).expect("a session");
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
        session.complete_io(&mut stream).ok()?;
        Some(BufReader::new(StreamOwned::new(session, stream)))
    }
}

/// The status of a GET over a connection that goes on.
fn status(stream: &mut BufReader<StreamOwned<ClientConnection, TcpStream>>, path: &str) -> u16 {
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {BASIC}\r\n\r\n");
    stream.get_mut().write_all(head.as_bytes()).expect("a request");
    let (mut line, mut length) = (String::new(), 0);
    stream.read_line(&mut line).expect("an answer");
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    loop {
        line.clear();
        stream.read_line(&mut line).expect("a header");
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse().expect("a length");
        }
    }
    stream.read_exact(&mut vec![0; length]).expect("a body");
    status
}

fn hang_up(daemon: &Daemon) {
    let pid = i32::try_from(daemon.pid()).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).expect("a signal");
}

#[test]
fn certificates_change_without_a_cut_and_broken_ones_do_not_count() {
    let mut site = site("tls");
    let (cert, key) = (site.path("cert.pem"), site.path("key.pem"));
    site.setting("TLS__CERT_FILE", &cert.display().to_string());
    site.setting("TLS__KEY_FILE", &key.display().to_string());
    let (old, new) = (pair(), pair());
    old.write(&site);
    site.run(&["validate"]).exits(0);
    let daemon = started(&site);
    let port = site.main_port();
    let mut before = old.connect(port).expect("the first certificate");
    assert_eq!(status(&mut before, "/readyz"), 200);
    assert_eq!(status(&mut before, "/api/v1/servers"), 200);
    assert!(new.connect(port).is_none());
    let plain = Ask::new("GET", "/healthz").send(port);
    assert_eq!(plain.status, 400, "plain HTTP is told what is spoken here");
    new.write(&site);
    hang_up(&daemon);
    eventually("the new certificate", 20, || new.connect(port));
    assert_eq!(status(&mut before, "/api/v1/servers"), 200, "an open connection goes on");
    assert!(old.connect(port).is_none());
    // Renewed badly: the key of another certificate, half a file, none.
    std::fs::write(&key, &old.key).expect("a file");
    hang_up(&daemon);
    let says = |text: &str| {
        eventually(text, 20, || site.run(&["status"]).all().contains(text).then_some(()));
    };
    says("MCPO-G025");
    assert!(new.connect(port).is_some(), "the one in force stays");
    site.run(&["validate"]).exits(2).says("MCPO-G025");
    std::fs::write(&cert, &new.certificate[..200]).expect("a file");
    says("it is not PEM");
    std::fs::remove_file(&cert).expect("it is there");
    says("MCPO-C007");
    assert!(new.connect(port).is_some() && daemon.log().contains("settings are refused"));
    assert!(!daemon.log().contains("PRIVATE KEY"), "{}", daemon.log());
    old.write(&site);
    // No signal: a changed file is noticed.
    eventually("mended by itself", 20, || old.connect(port));
    assert_eq!(status(&mut before, "/readyz"), 200);
}

#[test]
fn a_start_with_a_broken_certificate_fails() {
    let mut site = site("tls-start");
    let (cert, key) = (site.path("cert.pem"), site.path("key.pem"));
    site.setting("TLS__CERT_FILE", &cert.display().to_string());
    site.setting("TLS__KEY_FILE", &key.display().to_string());
    site.run(&["run"]).exits(2).says("MCPO-C007").says("cert.pem");
    let (one, other) = (pair(), pair());
    std::fs::write(&cert, &one.certificate).expect("a file");
    std::fs::write(&key, &other.key).expect("a file");
    let done = site.run(&["run"]).exits(2).says("MCPO-G025");
    assert!(!done.all().contains(other.key.lines().nth(1).expect("a line")), "{done:?}");
    site.setting("TLS__MIN_VERSION", "1.1");
    site.run(&["validate"]).exits(2).says("1.2, 1.3");
}

// ---- figures and probes ------------------------------------------------------------------------------

#[test]
fn figures_and_probes_have_an_address_of_their_own() {
    let mut site = site("figures");
    let own = site.fixed_port();
    site.setting("METRICS__PORT", &own.to_string());
    let _daemon = started(&site);
    eventually("the other listener", 20, || TcpStream::connect(("127.0.0.1", own)).ok());
    let get = |port: u16, path: &str| Ask::new("GET", path).send(port);
    eventually("a pass", 20, || (get(own, "/readyz").status == 200).then_some(()));
    let page = get(own, "/metrics");
    assert_eq!((page.status, page.header("content-type")), (200, "text/plain; version=0.0.4; charset=utf-8"));
    let page = page.body();
    for line in ["mcp_orchestrator_passes_total ", "mcp_orchestrator_server_up{server=\"time\"} "] {
        assert!(page.lines().any(|found| found.starts_with(line)), "{line} is not in\n{page}");
    }
    assert_eq!(get(own, "/healthz").body(), "ok\n");
    eventually("the server answers", 20, || (get(own, "/healthz/time").status == 200).then_some(()));
    assert_eq!(get(own, "/healthz/nobody").status, 404);
    for path in ["/", "/monitor", "/api/v1/servers", "/servers", "/mcp/time", "/metrics/x", "/openapi.json"] {
        assert_eq!(get(own, path).status, 404, "{path}");
    }
    for method in ["POST", "DELETE"] {
        assert_eq!(Ask::new(method, "/metrics").send(own).status, 405, "{method}");
        assert_eq!(Ask::new(method, "/healthz").send(own).status, 405, "{method}");
    }
    let rebound = Ask::new("GET", "/metrics").with("Host", "evil.example").send(own);
    assert_eq!(rebound.status, 403, "a page whose name was pointed here reads nothing");
    assert_eq!(get(site.main_port(), "/metrics").status, 401, "the main listener asks for the password");
    for method in ["POST", "TRACE", "PUT"] {
        assert_eq!(Ask::new(method, "/healthz").send(site.main_port()).status, 405, "{method}");
    }
}

#[test]
fn figures_can_be_turned_off() {
    let mut site = site("figures-off");
    site.setting("METRICS__ENABLED", "false");
    let _daemon = started(&site);
    let page = Ask::new("GET", "/metrics").with("Authorization", BASIC).send(site.main_port());
    assert_eq!(page.status, 404);
}

// ---- slow and large ------------------------------------------------------------------------------------

/// How long the other end keeps a connection on which these words come, one a second.
fn kept(port: u16, words: &[&str]) -> (Duration, String) {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(1))).expect("a socket");
    let mut words = words.iter().copied().chain(std::iter::repeat("X"));
    let mut answer = String::new();
    while begun.elapsed() < Duration::from_secs(60) {
        if stream.write_all(words.next().unwrap_or_default().as_bytes()).is_err() {
            break;
        }
        let mut room = [0; 4096];
        match stream.read(&mut room) {
            Ok(0) => break,
            Ok(count) => {
                answer.push_str(&String::from_utf8_lossy(&room[..count]));
                break;
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_reset) => break,
        }
    }
    (begun.elapsed(), answer)
}

/// Half a minute for each, all at once.
#[test]
fn slow_clients_are_not_waited_for_and_hold_nobody_up() {
    let site = site("slow");
    let _daemon = started(&site);
    let port = site.main_port();
    let body = format!(
        "POST /api/v1/servers/time/call HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {BASIC}\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{"
    );
    std::thread::scope(|scope| {
        let head = scope.spawn(|| kept(port, &["GET / HTTP/1.1\r\n", "Host: 127.0.0.1\r\n", "X-Slow: "]));
        let body = scope.spawn(|| kept(port, &[&body]));
        let crowd: Vec<_> = (0..50).map(|_| scope.spawn(|| kept(port, &["G"]))).collect();
        let fast = Ask::new("GET", "/api/v1/servers").with("Authorization", BASIC);
        for _ in 0..20 {
            let begun = Instant::now();
            assert_eq!(fast.send(port).status, 200);
            assert!(begun.elapsed() < Duration::from_secs(5), "others are served meanwhile");
        }
        let limit = Duration::from_secs(45);
        let (took, answer) = head.join().expect("an end");
        assert!(took < limit && answer.is_empty(), "{took:?} {answer}");
        let (took, answer) = body.join().expect("an end");
        assert!(took < limit && answer.starts_with("HTTP/1.1 408 "), "{took:?} {answer}");
        for one in crowd {
            assert!(one.join().expect("an end").0 < limit);
        }
    });
}

#[test]
fn answers_are_numbered_by_us_and_large_requests_are_refused() {
    let site = site("large");
    let _daemon = started(&site);
    let port = site.main_port();
    let ask =
        || Ask::new("GET", "/api/v1/servers").with("Authorization", BASIC).with("X-Request-Id", "theirs");
    let numbers: BTreeSet<String> =
        (0..20).map(|_| ask().send(port).header("x-request-id").to_owned()).collect();
    assert!(numbers.len() == 20 && !numbers.contains("theirs"), "{numbers:?}");
    let long = "x".repeat(40_000);
    let large: [(&str, Ask, &[u16]); 4] = [
        ("a header", ask().with("X-Long", &long), &[431]),
        ("a path", Ask::new("GET", &format!("/{long}")), &[404, 414, 431]),
        (
            "a query",
            Ask::new("GET", &format!("/api/v1/servers?state={long}")).with("Authorization", BASIC),
            &[200, 400, 414, 431],
        ),
        (
            "credentials",
            Ask::new("GET", "/monitor").with("Authorization", &format!("Basic {}", &long[..20_000])),
            &[401],
        ),
    ];
    for (what, ask, statuses) in large {
        match ask.try_send(port) {
            Ok(reply) => assert!(statuses.contains(&reply.status), "{what}: {}", reply.status),
            // What is refused before it was read may be cut off.
            Err(why) => assert!(statuses.contains(&431), "{what}: {why}"),
        }
    }
    for path in ["/healthz", "/nothing", "/monitor", "/mcp/time", "/mcp/nobody"] {
        let reply = Ask::new("GET", path).send(port);
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{path}");
    }
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    write!(stream, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 400 "), "two names: {answer}");
    eventually("it still answers", 5, || (ask().send(port).status == 200).then_some(()));
}
