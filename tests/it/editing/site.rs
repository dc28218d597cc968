//! A daemon with files of its own, and two ways to ask it: over the network and over its socket.

use rustix::process::Pid;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_mcp-orchestrator");
/// Longest wait for anything.
const WITHIN: Duration = Duration::from_secs(90);
/// Ports of one test.
const PORTS_EACH: u16 = 6;
/// Below those that the kernel gives out, and apart from other tests of this binary.
const PORTS_FROM: u16 = 18_000;
/// `admin:changeme`, good on loopback.
pub(crate) const BASIC: &str = "Basic YWRtaW46Y2hhbmdlbWU=";

/// Waits until something is so.
#[track_caller]
pub(crate) fn eventually(what: &str, so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !so() {
        assert!(begin.elapsed() < WITHIN, "not within {WITHIN:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Files, settings and ports of one daemon.
pub(crate) struct Site {
    dir: tempfile::TempDir,
    first: u16,
}

/// A running daemon; killed when the test ends.
pub(crate) struct Daemon(Child);

impl Daemon {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

/// An answer.
pub(crate) struct Reply {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn read(mut stream: impl Read) -> Self {
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text.as_str(), ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        Self { status, head: head.to_owned(), body: body.to_owned() }
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.body))
    }

    pub(crate) fn text(&self) -> &str {
        &self.body
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .filter(|(held, _)| held.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .next()
            .unwrap_or_default()
    }
}

impl Site {
    /// A site whose file has this text.
    pub(crate) fn new(text: &str) -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let run = u16::try_from(std::process::id() % 50).expect("small") * 100;
        let free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        let first = loop {
            let first = PORTS_FROM + run + NEXT.fetch_add(PORTS_EACH, Ordering::Relaxed);
            if (first..first + PORTS_EACH).all(free) {
                break first;
            }
        };
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["state", "run", "etc"] {
            std::fs::create_dir(dir.path().join(name)).expect("a directory");
        }
        let site = Self { dir, first };
        site.write(text);
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The process of a server that has its own name and this site in `WHO`.
    pub(crate) fn process(&self, server: &str) -> Option<Pid> {
        let mark = format!("WHO={server} of {}\0", self.config().display());
        let has = |path: PathBuf, what: &str| {
            std::fs::read(path).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(what))
        };
        let mut all = std::fs::read_dir("/proc").expect("processes").flatten();
        let found = all.find(|entry| {
            has(entry.path().join("environ"), &mark) && has(entry.path().join("cmdline"), "demo-server\0")
        })?;
        Pid::from_raw(found.file_name().to_str()?.parse().ok()?)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path("etc/mcp.config.json")
    }

    /// settings.conf; tests that want one write it before the start.
    pub(crate) fn settings(&self) -> PathBuf {
        self.path("etc/settings.conf")
    }

    pub(crate) fn text(&self) -> String {
        std::fs::read_to_string(self.config()).expect("a file")
    }

    /// Replaces the file, as editors do.
    pub(crate) fn write(&self, text: &str) {
        let new = self.path("new");
        std::fs::write(&new, text).expect("a file");
        std::fs::rename(new, self.config()).expect("a file");
    }

    /// What lies beside the file, itself included.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.path("etc")).expect("a directory");
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
    }

    pub(crate) fn backups(&self) -> usize {
        self.names().iter().filter(|name| name.ends_with(".bak")).count()
    }

    fn stack(&self) -> String {
        format!("edit{}", self.first)
    }

    pub(crate) fn main(&self) -> u16 {
        self.first + 4
    }

    /// A port for something else.
    pub(crate) fn spare(&self) -> u16 {
        self.first + 5
    }

    /// The program with these arguments.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let path = |name: &str| self.path(name).display().to_string();
        let mut command = Command::new(BINARY);
        command.arg("--config").arg(self.config());
        // Without it those of this machine are read.
        if self.settings().exists() {
            command.arg("--settings").arg(self.settings());
        }
        command.args(args).env_clear();
        command.envs([
            ("HOME", path("")),
            ("XDG_STATE_HOME", path("state")),
            ("XDG_RUNTIME_DIR", path("run")),
            ("PATH", std::env::var("PATH").unwrap_or_default()),
            ("MCP_ORCHESTRATOR__SERVICE__STACK", self.stack()),
            ("MCP_ORCHESTRATOR__SERVICE__DOCKER_HOST", format!("unix://{}", path("docker.sock"))),
            ("MCP_ORCHESTRATOR__SERVICE__PORT_RANGE_START", self.first.to_string()),
            ("MCP_ORCHESTRATOR__SERVICE__PORT_RANGE_END", (self.first + 3).to_string()),
            ("MCP_ORCHESTRATOR__DASHBOARD__PORT", self.main().to_string()),
        ]);
        command.stdin(Stdio::null());
        command
    }

    /// Starts the daemon with these variables, and waits until it answers.
    pub(crate) fn start(&self, env: &[(&str, &str)]) -> Daemon {
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(self.path("log")).expect("a log");
        let mut command = self.command(&["run"]);
        command.envs(env.iter().copied()).stdout(log.try_clone().expect("a log")).stderr(log);
        let daemon = Daemon(command.spawn().expect("the program"));
        eventually("the daemon answers", || TcpStream::connect(("127.0.0.1", self.main())).is_ok());
        eventually("the first pass is over", || {
            self.get("/api/v1/panel/health").json()["pass"].as_u64() > Some(0)
        });
        daemon
    }

    /// What the control socket says of the whole.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        let output = self.command(&["status", "--json"]).output().expect("the program");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Asks over the network.
    #[track_caller]
    pub(crate) fn send(&self, method: &str, path: &str, body: &str, headers: &[(&str, &str)]) -> Reply {
        let mut stream = TcpStream::connect(("127.0.0.1", self.main())).expect("a connection");
        stream.set_read_timeout(Some(WITHIN)).expect("a timeout");
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: {BASIC}\r\n"
        );
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            head += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        }
        stream.write_all((head + "\r\n" + body).as_bytes()).expect("written");
        Reply::read(stream)
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Reply {
        self.send("GET", path, "", &[])
    }

    #[track_caller]
    pub(crate) fn put(&self, path: &str, body: &Value) -> Reply {
        self.send("PUT", path, &body.to_string(), &[])
    }

    #[track_caller]
    pub(crate) fn patch(&self, path: &str, body: &Value) -> Reply {
        self.send("PATCH", path, &body.to_string(), &[])
    }

    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: &Value) -> Reply {
        self.send("POST", path, &body.to_string(), &[])
    }

    #[track_caller]
    pub(crate) fn delete(&self, path: &str) -> Reply {
        self.send("DELETE", path, "", &[])
    }

    /// With `If-Match`.
    #[track_caller]
    pub(crate) fn matching(&self, method: &str, path: &str, body: &Value, tag: &str) -> Reply {
        self.send(method, path, &body.to_string(), &[("If-Match", tag)])
    }

    /// Asks over the control socket: the status and the body.
    #[track_caller]
    pub(crate) fn socket(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let socket = self.path("run").join("mcp-orchestrator").join(self.stack()).join("control.sock");
        let mut stream = UnixStream::connect(socket).expect("a connection");
        stream.set_read_timeout(Some(WITHIN)).expect("a timeout");
        let body = body.to_string();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).expect("written");
        let reply = Reply::read(stream);
        (reply.status, reply.json())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(self.path("log")).unwrap_or_default());
        }
    }
}
