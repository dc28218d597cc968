//! Servers elsewhere over plain TCP and WebSocket that fail in the middle of a call, by every door: each
//! fault has its documented answer, the connection comes back by itself, and nothing is left of it.

use crate::editing::site::{Daemon, Reply, Site, eventually};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio_tungstenite::tungstenite::{self, Message};

/// Bytes of an answer that nobody wants.
const BIG: usize = 50 << 20;
/// Descriptors that may be more after all faults than before: a spare connection here or there.
const FDS_MORE: usize = 8;
/// Memory that may be more, in KiB; an answer of 50 MB is never held whole.
const MORE_KIB: u64 = 64 * 1024;
const MODERN: &str = "2026-07-28";

/// How a server says lines.
trait Line: Send {
    fn hear(&mut self) -> Option<String>;
    fn say(&mut self, text: &str) -> bool;
}

struct Plain(BufReader<TcpStream>);

impl Line for Plain {
    fn hear(&mut self) -> Option<String> {
        let mut line = String::new();
        (self.0.read_line(&mut line).ok()? > 0).then_some(line)
    }

    fn say(&mut self, text: &str) -> bool {
        let stream = self.0.get_mut();
        stream.write_all(text.as_bytes()).and_then(|()| stream.write_all(b"\n")).is_ok()
    }
}

struct Framed(Box<tungstenite::WebSocket<TcpStream>>);

impl Line for Framed {
    fn hear(&mut self) -> Option<String> {
        loop {
            match self.0.read().ok()? {
                Message::Text(text) => return Some(text.to_string()),
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }

    fn say(&mut self, text: &str) -> bool {
        self.0.send(Message::text(text)).is_ok()
    }
}

/// What a server has seen, and whether it has one tool more by now.
#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    more: AtomicBool,
    /// It takes no connection and closes each.
    away: AtomicBool,
}

/// A server on a port of its own; its port.
fn served(framed: bool) -> (u16, Arc<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let seen = Arc::new(Seen::default());
    let all = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if all.away.load(Ordering::SeqCst) {
                continue;
            }
            all.connections.fetch_add(1, Ordering::SeqCst);
            let seen = Arc::clone(&all);
            std::thread::spawn(move || {
                let mut line: Box<dyn Line> = if framed {
                    let Ok(socket) = tungstenite::accept(stream) else { return };
                    Box::new(Framed(Box::new(socket)))
                } else {
                    Box::new(Plain(BufReader::new(stream)))
                };
                while let Some(text) = line.hear() {
                    if !answer(&mut *line, &text, &seen) {
                        return;
                    }
                }
            });
        }
    });
    (port, seen)
}

/// Answers one message; false when the connection is to end.
fn answer(line: &mut dyn Line, text: &str, seen: &Seen) -> bool {
    let Ok(message) = serde_json::from_str::<Value>(text) else { return true };
    let Some(id) = message.get("id") else { return true };
    let said = |result: Value| json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string();
    let text = |text: &str| said(json!({"content": [{"type": "text", "text": text}]}));
    let reply = match message["method"].as_str() {
        Some("initialize") => said(json!({"protocolVersion": "2025-11-25",
            "capabilities": {"tools": {"listChanged": true}}, "serverInfo": {"name": "faulty", "version": "1"}})),
        Some("ping") => said(json!({})),
        Some("tools/list") => {
            let mut names = vec!["echo", "die", "half", "hang", "garbage", "odd", "big", "change"];
            names.extend(seen.more.load(Ordering::SeqCst).then_some("late"));
            let tool = |name: &&str| json!({"name": name, "inputSchema": {"type": "object"}});
            said(json!({"tools": names.iter().map(tool).collect::<Vec<_>>()}))
        }
        Some("tools/call") => match message["params"]["name"].as_str() {
            Some("die") => return false,
            Some("half") => {
                let whole = text("never whole");
                line.say(whole.get(..whole.len() / 2).unwrap_or_default());
                return false;
            }
            Some("hang") => return true,
            Some("garbage") => {
                return ["not JSON", "{\"jsonrpc\":", "[]", "42", "\u{0}"].iter().all(|text| line.say(text));
            }
            Some("odd") => said(json!(42)),
            Some("big") => text(&"x".repeat(BIG)),
            Some("change") => {
                seen.more.store(true, Ordering::SeqCst);
                line.say(r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#);
                text("changed")
            }
            name => text(name.unwrap_or("?")),
        },
        _ => json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "no"}}).to_string(),
    };
    line.say(&reply)
}

/// What a call gave, by any door: HTTP status, JSON-RPC or documented code (0 and empty when it went well), and
/// all of it.
struct Gave {
    status: u16,
    code: String,
    body: String,
}

fn gave(reply: &Reply) -> Gave {
    let data =
        reply.body.lines().rev().find_map(|line| line.strip_prefix("data: ").filter(|d| !d.is_empty()));
    let body = data.unwrap_or(&reply.body).to_owned();
    let said: Value = serde_json::from_str(&body).unwrap_or_default();
    let code = match (&said["error"]["code"], &said["detail"]["code"]) {
        (Value::Number(code), _) => code.to_string(),
        (_, Value::String(code)) => code.clone(),
        _ => String::new(),
    };
    Gave { status: reply.status, code, body }
}

/// The doors: in a session at the server and at all of them, without one, and by HTTP with progress or not.
const DOORS: [&str; 6] = ["session", "modern", "all, session", "all, modern", "openapi", "openapi, events"];

fn call(site: &Site, door: usize, server: &str, tool: &str) -> Gave {
    let (path, name) = match door {
        0 | 1 => (format!("/mcp/{server}"), tool.to_owned()),
        2 | 3 => ("/mcp".to_owned(), format!("{server}__{tool}")),
        _ => (format!("/openapi/{server}/{tool}"), String::new()),
    };
    let both = ("Accept", "application/json, text/event-stream");
    let mut params = json!({"name": name, "arguments": {}});
    let message = |params: &Value| {
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string()
    };
    match door {
        0 | 2 => {
            let about = json!({"protocolVersion": "2025-11-25", "capabilities": {},
                               "clientInfo": {"name": "faults", "version": "1"}});
            let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": about});
            let opened = site.send("POST", &path, &hello.to_string(), &[both]);
            let session = opened.header("mcp-session-id");
            gave(&site.send("POST", &path, &message(&params), &[both, ("Mcp-Session-Id", session)]))
        }
        1 | 3 => {
            params["_meta"] = json!({"io.modelcontextprotocol/protocolVersion": MODERN,
                                     "io.modelcontextprotocol/clientCapabilities": {}});
            let head =
                [both, ("MCP-Protocol-Version", MODERN), ("Mcp-Method", "tools/call"), ("Mcp-Name", &name)];
            gave(&site.send("POST", &path, &message(&params), &head))
        }
        4 => gave(&site.send("POST", &path, "{}", &[("Accept", "*/*")])),
        _ => gave(&site.send("POST", &path, "{}", &[("Accept", "text/event-stream")])),
    }
}

fn descriptors(daemon: &Daemon) -> usize {
    std::fs::read_dir(Path::new("/proc").join(daemon.pid().to_string()).join("fd"))
        .expect("descriptors")
        .count()
}

fn resident_kib(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn is_quiet(site: &Site) -> bool {
    let output = site.command(&["status", "--detailed", "--json"]).output().expect("the program");
    let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let rows = status["gateway"].as_array().cloned().unwrap_or_default();
    !rows.is_empty() && rows.iter().all(|row| row.to_string().contains("\"inFlight\":0"))
}

/// What clients of MCP get, what clients of HTTP get.
const FAULTS: [(&str, u16, &str); 5] = [
    ("die", 502, "MCPO-G064"),
    ("half", 502, "MCPO-G064"),
    ("hang", 504, "MCPO-G063"),
    ("garbage", 504, "MCPO-G063"),
    ("big", 502, "MCPO-G066"),
];

fn is_up(site: &Site, door: usize, server: &str) {
    eventually("the server answers", || call(site, door, server, "echo").body.contains("echo"));
}

/// Every fault of one server, by every door. Deaths are shared out: after each the next connection is waited
/// for longer.
fn every_fault(site: &Site, (server, turn): (&str, usize), seen: &Seen) {
    for (tool, status, code) in FAULTS {
        // Over WebSocket a message that is too long ends the connection, and there are no halves of one.
        let ends = matches!(tool, "die" | "half") || (tool, server) == ("big", "ws");
        if (tool, server) == ("half", "ws") {
            continue;
        }
        for (door, name) in DOORS.iter().enumerate() {
            if ends && (door + turn) % 2 != usize::from(tool == "half") {
                continue;
            }
            let connections = seen.connections.load(Ordering::SeqCst);
            let Gave { status: got, code: said, body } = call(site, door, server, tool);
            let short: String = body.chars().take(200).collect();
            if door < 4 {
                assert_eq!(said, "-32603", "{server} {tool} {name}: {got} {short}");
            } else {
                let status = if door == 5 { 200 } else { status };
                assert_eq!(got, status, "{server} {tool} {name}: {short}");
                let fits = said == code || ((tool, server) == ("big", "ws") && said == "MCPO-G064");
                assert!(fits, "{server} {tool} {name}: {short}");
            }
            // It comes back by itself, on another connection where that one is gone.
            is_up(site, door, server);
            let now = seen.connections.load(Ordering::SeqCst);
            assert!(!ends || now > connections, "{server} {tool} {name}: connected again");
        }
    }
    let odd = call(site, 4, server, "odd");
    assert_eq!((odd.status, odd.code.as_str()), (502, "MCPO-G066"), "{server}: {}", odd.body);
    // The tools change in the middle of a call: it has its answer, and the new one is there.
    for door in 0..DOORS.len() {
        seen.more.store(false, Ordering::SeqCst);
        let changed = call(site, door, server, "change");
        assert!(changed.body.contains("changed"), "{server}: {}", changed.body);
        eventually("the new tool is there", || call(site, door, server, "late").body.contains("late"));
    }
}

#[test]
fn every_fault_has_its_answer_at_every_door_and_leaves_nothing() {
    let ((tcp, tcp_seen), (ws, ws_seen)) = (served(false), served(true));
    let entry = |url: String| json!({"url": url, "timeout": 2});
    let servers = json!({
        "tcp": entry(format!("tcp://127.0.0.1:{tcp}")),
        "ws": entry(format!("ws://127.0.0.1:{ws}/")),
    });
    let site = Site::new(&json!({ "mcpServers": servers }).to_string());
    let daemon = site.start(&[]);
    for server in ["tcp", "ws"] {
        (0..DOORS.len()).for_each(|door| is_up(&site, door, server));
    }
    let (fds, memory) = (descriptors(&daemon), resident_kib(&daemon));
    std::thread::scope(|scope| {
        scope.spawn(|| every_fault(&site, ("tcp", 0), &tcp_seen));
        scope.spawn(|| every_fault(&site, ("ws", 1), &ws_seen));
    });
    eventually("nothing is under way", || is_quiet(&site));
    eventually("no descriptor is left", || descriptors(&daemon) <= fds + FDS_MORE);
    let more = resident_kib(&daemon).saturating_sub(memory);
    assert!(more <= MORE_KIB, "{more} KiB more than before");
}

#[test]
fn a_connection_that_is_lost_is_made_again_and_one_that_cannot_be_made_is_tried_again() {
    let ((tcp, tcp_seen), (ws, ws_seen)) = (served(false), served(true));
    for seen in [&tcp_seen, &ws_seen] {
        seen.away.store(true, Ordering::SeqCst);
    }
    let servers = json!({"tcp": {"url": format!("tcp://127.0.0.1:{tcp}")}, "ws": {"url": format!("ws://127.0.0.1:{ws}/")}});
    let site = Site::new(&json!({"mcpServers": servers}).to_string());
    let _daemon = site.start(&[]);
    for (server, seen) in [("tcp", &tcp_seen), ("ws", &ws_seen)] {
        let refused = call(&site, 4, server, "echo");
        assert_eq!((refused.status, refused.code.as_str()), (503, "MCPO-G062"), "{server}: {}", refused.body);
        assert_eq!(seen.connections.load(Ordering::SeqCst), 0);
        seen.away.store(false, Ordering::SeqCst);
        eventually("it is tried again", || call(&site, 4, server, "echo").body.contains("echo"));
        // Lost while nobody calls: the next call finds another.
        let before = seen.connections.load(Ordering::SeqCst);
        assert_eq!(call(&site, 4, server, "die").code, "MCPO-G064");
        eventually("it is made again", || seen.connections.load(Ordering::SeqCst) > before);
        eventually("and answers", || call(&site, 1, server, "echo").body.contains("echo"));
    }
}
