//! A service manager of one service, and a client that never stops.

use command_fds::{CommandFdExt as _, FdMapping};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_mcp-orchestrator");
/// Longest wait for anything.
const WITHIN: Duration = Duration::from_secs(60);
/// Ports of one test: four for servers, the main one, a spare one.
const PORTS_EACH: u16 = 6;
/// Below those that the kernel gives out.
const PORTS_FROM: u16 = 24_000;

/// Waits until something is so.
#[track_caller]
pub(crate) fn eventually(what: &str, so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !so() {
        assert!(begin.elapsed() < WITHIN, "not within {WITHIN:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A connection to a port of this host.
pub(crate) fn connect(port: u16) -> std::io::Result<TcpStream> {
    TcpStream::connect(("127.0.0.1", port))
}

/// Calls a tool without a session, in the modern way.
pub(crate) fn call(port: u16, server: &str, tool: &str, arguments: &Value) -> String {
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "it", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {}});
    let body = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call",
        "params": {"name": tool, "arguments": arguments, "_meta": meta}})
    .to_string();
    let head = format!(
        "POST /mcp/{server} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\n\
         Mcp-Method: tools/call\r\nMcp-Name: {tool}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = connect(port).expect("a connection");
    stream.set_read_timeout(Some(WITHIN)).expect("a timeout");
    stream.write_all((head + &body).as_bytes()).expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

// ---- a place -------------------------------------------------------------------------------------

/// Files, settings and ports of one daemon.
pub(crate) struct Site {
    dir: tempfile::TempDir,
    first: u16,
    /// Port of the main listener.
    pub(crate) main: u16,
}

impl Site {
    pub(crate) fn new() -> Self {
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
        for name in ["state", "run"] {
            std::fs::create_dir(dir.path().join(name)).expect("a directory");
        }
        Self { dir, first, main: first + 4 }
    }

    /// The port that the nth new server gets.
    pub(crate) fn port(&self, n: u16) -> u16 {
        self.first + n
    }

    /// A port that nobody has.
    pub(crate) fn spare(&self) -> u16 {
        self.first + 5
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn stack(&self) -> String {
        format!("it{}", self.first)
    }

    /// The control socket.
    pub(crate) fn control(&self) -> PathBuf {
        self.path("run").join("mcp-orchestrator").join(self.stack()).join("control.sock")
    }

    /// An entry with the demo server as a process.
    pub(crate) fn demo(&self) -> Value {
        json!({ "command": BINARY, "args": ["demo-server"] })
    }

    /// Replaces the file with these servers.
    pub(crate) fn write(&self, servers: &impl serde::Serialize) {
        let new = self.path("mcp.config.json.new");
        std::fs::write(&new, json!({ "mcpServers": servers }).to_string()).expect("a file");
        std::fs::rename(new, self.path("mcp.config.json")).expect("a file");
    }

    fn env(&self) -> BTreeMap<String, String> {
        let path = |name: &str| self.path(name).display().to_string();
        let setting = |key: &str, value: String| (format!("MCP_ORCHESTRATOR__{key}"), value);
        BTreeMap::from([
            ("HOME".to_owned(), path("")),
            ("XDG_STATE_HOME".to_owned(), path("state")),
            ("XDG_RUNTIME_DIR".to_owned(), path("run")),
            ("PATH".to_owned(), std::env::var("PATH").unwrap_or_default()),
            setting("SERVICE__STACK", self.stack()),
            setting("SERVICE__DOCKER_HOST", format!("unix://{}", path("docker.sock"))),
            setting("SERVICE__PORT_RANGE_START", self.first.to_string()),
            setting("SERVICE__PORT_RANGE_END", (self.first + 3).to_string()),
            setting("DASHBOARD__PORT", self.main.to_string()),
        ])
    }

    /// The program with these arguments.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.arg("--config").arg(self.path("mcp.config.json")).args(args);
        command.env_clear().envs(self.env()).stdin(Stdio::null());
        command
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(self.path("log")).unwrap_or_default());
        }
    }
}

// ---- the manager ---------------------------------------------------------------------------------

#[derive(Default)]
struct Heard {
    messages: Vec<(Instant, String)>,
    store: Vec<(String, OwnedFd)>,
    /// Of socket units: they are handed on and never given away.
    held: Vec<(String, OwnedFd)>,
}

/// Plays systemd for one service.
pub(crate) struct Manager<'a> {
    site: &'a Site,
    heard: Arc<Mutex<Heard>>,
    /// Messages before these are of earlier processes.
    since: Mutex<usize>,
}

/// The main process of the service.
pub(crate) struct Daemon {
    child: Child,
    /// When it was started.
    pub(crate) began: Instant,
}

impl Daemon {
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.expect("a pid"), signal).expect("a signal");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

impl<'a> Manager<'a> {
    pub(crate) fn new(site: &'a Site) -> Self {
        let socket = UnixDatagram::bind(site.path("notify")).expect("a socket");
        let heard = Arc::new(Mutex::new(Heard::default()));
        let weak = Arc::downgrade(&heard);
        socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        std::thread::spawn(move || {
            while let Some(heard) = weak.upgrade() {
                if let Some((text, fds)) = receive(&socket) {
                    hear(&mut heard.lock().expect("a lock"), &text, fds);
                }
            }
        });
        Self { site, heard, since: Mutex::new(0) }
    }

    /// Listens for the service, as a socket unit does.
    pub(crate) fn hold(&self, name: &str, listener: std::net::TcpListener) {
        self.heard.lock().expect("a lock").held.push((name.to_owned(), listener.into()));
    }

    /// Starts the service with what is held and kept for it.
    pub(crate) fn start(&self, env: &[(&str, &str)]) -> Daemon {
        let mut command = Command::new("/bin/sh");
        // The number of a process is known to itself only.
        command.args(["-c", "export LISTEN_PID=$$; exec \"$0\" \"$@\"", BINARY, "--config"]);
        command.arg(self.site.path("mcp.config.json")).arg("run");
        command.env_clear().envs(self.site.env()).env("NOTIFY_SOCKET", self.site.path("notify"));
        let (mut names, mut fds) = (Vec::new(), Vec::new());
        {
            let heard = self.heard.lock().expect("a lock");
            for (name, fd) in heard.held.iter().chain(&heard.store) {
                names.push(name.clone());
                fds.push(fd.try_clone().expect("a descriptor"));
            }
            *self.since.lock().expect("a lock") = heard.messages.len();
        }
        command.env("LISTEN_FDS", names.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        command.envs(env.iter().copied());
        let mappings =
            (3..).zip(fds).map(|(child_fd, parent_fd)| FdMapping { parent_fd, child_fd }).collect();
        command.fd_mappings(mappings).expect("descriptors");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.site.path("log"));
        let log = log.expect("a log");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        let began = Instant::now();
        Daemon { child: command.spawn().expect("a process"), began }
    }

    /// Waits for a message of the process that was started last, and tells when it came.
    #[track_caller]
    pub(crate) fn wait(&self, text: &str) -> Instant {
        let since = *self.since.lock().expect("a lock");
        let found = || {
            let heard = self.heard.lock().expect("a lock");
            let mut rest = heard.messages.iter().skip(since);
            rest.find(|(_, message)| message == text).map(|(at, _)| *at)
        };
        eventually(text, || found().is_some());
        found().expect("found")
    }

    /// What was said so far, of the process that was started last.
    pub(crate) fn heard(&self) -> Vec<String> {
        let since = *self.since.lock().expect("a lock");
        let heard = self.heard.lock().expect("a lock");
        heard.messages.iter().skip(since).map(|(_, text)| text.clone()).collect()
    }

    /// Names of the sockets that are kept.
    pub(crate) fn kept(&self) -> Vec<String> {
        self.heard.lock().expect("a lock").store.iter().map(|(name, _)| name.clone()).collect()
    }

    /// SIGTERM, and the exit code.
    pub(crate) fn end(&self, mut daemon: Daemon) -> Option<i32> {
        daemon.signal(rustix::process::Signal::TERM);
        let begin = Instant::now();
        loop {
            if let Some(status) = daemon.child.try_wait().expect("a child") {
                return status.code();
            }
            assert!(begin.elapsed() < WITHIN, "it does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(&self, daemon: Daemon) {
        drop(daemon);
    }
}

fn receive(socket: &UnixDatagram) -> Option<(String, Vec<OwnedFd>)> {
    let mut bytes = [0; 8192];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got =
        recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(sent) = message {
            fds.extend(sent);
        }
    }
    Some((String::from_utf8_lossy(&bytes[..got.bytes]).trim_end().to_owned(), fds))
}

/// Does what systemd does with a message.
fn hear(heard: &mut Heard, text: &str, fds: Vec<OwnedFd>) {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let name = field("FDNAME=").unwrap_or("stored").to_owned();
    if field("FDSTOREREMOVE=") == Some("1") {
        heard.store.retain(|(kept, _)| *kept != name);
    } else if field("FDSTORE=") == Some("1") {
        heard.store.extend(fds.into_iter().map(|fd| (name.clone(), fd)));
    }
    // Descriptors of other messages are closed, which is the answer to BARRIER=1.
    heard.messages.push((Instant::now(), text.to_owned()));
}

// ---- a client ------------------------------------------------------------------------------------

#[derive(Default)]
struct Counts {
    stop: AtomicBool,
    answered: AtomicUsize,
    refused: AtomicUsize,
    unanswered: AtomicUsize,
    slowest_ms: AtomicUsize,
}

/// Connects every few milliseconds and asks for the health of a port.
pub(crate) struct Client {
    /// The port.
    pub(crate) port: u16,
    counts: Arc<Counts>,
    thread: JoinHandle<()>,
}

impl Client {
    pub(crate) fn start(port: u16) -> Self {
        let counts = Arc::new(Counts::default());
        let shared = Arc::clone(&counts);
        let thread = std::thread::spawn(move || {
            while !shared.stop.load(Ordering::Relaxed) {
                let begin = Instant::now();
                let counter = match connect(port) {
                    Err(_refused) => &shared.refused,
                    Ok(stream) if healthz(&stream) => &shared.answered,
                    Ok(_) => &shared.unanswered,
                };
                counter.fetch_add(1, Ordering::Relaxed);
                let took = usize::try_from(begin.elapsed().as_millis()).unwrap_or(usize::MAX);
                shared.slowest_ms.fetch_max(took, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Self { port, counts, thread }
    }

    pub(crate) fn answered(&self) -> usize {
        self.counts.answered.load(Ordering::Relaxed)
    }

    pub(crate) fn refused(&self) -> usize {
        self.counts.refused.load(Ordering::Relaxed)
    }

    pub(crate) fn unanswered(&self) -> usize {
        self.counts.unanswered.load(Ordering::Relaxed)
    }

    pub(crate) fn slowest(&self) -> Duration {
        Duration::from_millis(self.counts.slowest_ms.load(Ordering::Relaxed) as u64)
    }

    /// Ends it: connections answered, refused, and accepted without an answer.
    pub(crate) fn end(self) -> (usize, usize, usize) {
        self.counts.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic");
        let get = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        (get(&self.counts.answered), get(&self.counts.refused), get(&self.counts.unanswered))
    }
}

pub(crate) fn healthz(mut stream: &TcpStream) -> bool {
    let _set = stream.set_read_timeout(Some(WITHIN));
    let mut answer = String::new();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.starts_with("HTTP/1.1 ")
}
