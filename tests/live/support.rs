//! A stack of its own for each test: its directory, settings and ports, the program, and what it
//! made on the real engine.
//!
//! Everything a test makes carries the test's stack, or [`OTHERS`] with it, and goes when the test
//! ends, however it ends. Nothing sleeps for a fixed time: [`eventually`] polls up to a deadline.

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Label on what a test makes for somebody else's part; its value is the test's stack.
pub(crate) const OTHERS: &str = "mcpo-test-stack";
/// Label with the stack.
pub(crate) const STACK: &str = "io.mcp-orchestrator.stack";
/// Label with the server.
pub(crate) const SERVER: &str = "io.mcp-orchestrator.server";
/// Label with the leased port.
pub(crate) const PORT: &str = "io.mcp-orchestrator.port";
/// Host ports of one test; the last two are not in the range that servers get ports from.
const PORTS_EACH: u16 = 12;
/// Where ports of tests begin: below those that the kernel gives out.
const PORTS_FROM: u16 = 12_000;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(25);
/// Longest a command of the program may take, for `timeout`.
const COMMAND_SECS: &str = "120";

/// Environment that `tests/run.sh` sets.
fn given(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_unset| panic!("{name}: ./tests/run.sh sets it"))
}

/// The image whose entrypoint is the demo server.
pub(crate) fn image() -> String {
    given("MCPO_TEST_IMAGE")
}

/// Whether every sample is wanted, not only some.
pub(crate) fn long() -> bool {
    std::env::var_os("MCPO_LONG").is_some_and(|value| value == "1")
}

/// Polls until `look` finds something.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, secs: u64, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < Duration::from_secs(secs), "not within {secs} s: {what}");
        std::thread::sleep(LOOK);
    }
}

/// An entry that runs `docker` with these words after `run`.
pub(crate) fn docker_run(words: &[&str]) -> Value {
    let args: Vec<&str> = ["run"].into_iter().chain(words.iter().copied()).collect();
    json!({ "command": "docker", "args": args })
}

/// A stdio server with further flags.
pub(crate) fn stdio(flags: &[&str]) -> Value {
    let image = image();
    let words: Vec<&str> = ["-i"].into_iter().chain(flags.iter().copied()).chain([image.as_str()]).collect();
    docker_run(&words)
}

/// An HTTP server on port 8000 of its container, with further flags.
pub(crate) fn http(flags: &[&str]) -> Value {
    let image = image();
    let words: Vec<&str> = flags.iter().copied().chain([image.as_str(), "--http", "8000"]).collect();
    docker_run(&words)
}

/// A server whose process ends at once with an error.
pub(crate) fn broken(flags: &[&str]) -> Value {
    let image = image();
    let words: Vec<&str> = flags.iter().copied().chain([image.as_str(), "--http", "nonsense"]).collect();
    docker_run(&words)
}

// ---- the engine ------------------------------------------------------------------------------------

/// The engine's socket.
pub(crate) fn engine_socket() -> PathBuf {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    PathBuf::from(
        host.strip_prefix("unix://").filter(|path| !path.is_empty()).unwrap_or("/var/run/docker.sock"),
    )
}

/// A request to the engine: status and body.
pub(crate) fn engine(method: &str, path: &str, body: &Value) -> (u16, Value) {
    let mut stream = UnixStream::connect(engine_socket()).expect("a Docker engine");
    let body = if body.is_null() { String::new() } else { body.to_string() };
    // HTTP/1.0: the answer ends where the connection does.
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: docker\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let text = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, serde_json::from_str(text).unwrap_or_else(|_not_json| Value::String(text.to_owned())))
}

/// Percent-encodes a query value.
fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Containers with a label of this value.
fn labelled(label: &str, value: &str) -> Vec<Value> {
    let filters = json!({ "label": [format!("{label}={value}")] }).to_string();
    let (_, list) =
        engine("GET", &format!("/containers/json?all=1&filters={}", encode(&filters)), &Value::Null);
    list.as_array().cloned().unwrap_or_default()
}

/// What `docker inspect` says of a container, by name or id.
pub(crate) fn inspect(name: &str) -> Option<Value> {
    let (status, body) = engine("GET", &format!("/containers/{name}/json"), &Value::Null);
    (status == 200).then_some(body)
}

/// Whether a volume exists.
pub(crate) fn volume_exists(name: &str) -> bool {
    engine("GET", &format!("/volumes/{name}"), &Value::Null).0 == 200
}

/// The text at a JSON pointer.
#[track_caller]
pub(crate) fn text(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => panic!("no {pointer} in {value}"),
    }
}

/// A label of an inspected container.
pub(crate) fn label(container: &Value, name: &str) -> String {
    let labels = container.pointer("/Config/Labels").and_then(Value::as_object);
    labels.and_then(|labels| labels.get(name)).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Whether an inspected container runs.
pub(crate) fn runs(container: &Value) -> bool {
    container.pointer("/State/Running") == Some(&Value::Bool(true))
}

/// Mounted volumes of an inspected container: destination to name.
pub(crate) fn volumes(container: &Value) -> BTreeMap<String, String> {
    let mounts = container.pointer("/Mounts").and_then(Value::as_array).cloned().unwrap_or_default();
    let volumes = mounts.iter().filter(|mount| mount["Type"] == "volume");
    volumes.map(|mount| (text(mount, "/Destination"), text(mount, "/Name"))).collect()
}

/// The body of a plain GET to a port of this host, when it answers with 200.
pub(crate) fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer
        .starts_with("HTTP/1.1 200")
        .then(|| answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned()))
}

// ---- the program -----------------------------------------------------------------------------------

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Done {
    /// Fails the test when the exit code is another.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "exit code; stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }

    /// Both outputs, white space folded: long lines are wrapped.
    pub(crate) fn all(&self) -> String {
        format!("{} {}", self.out, self.err).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Fails the test when the outputs lack this text.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.all().contains(text), "'{text}' is not in stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            code: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }
}

/// The test's own part of the world.
pub(crate) struct Site {
    dir: TempDir,
    /// The stack.
    pub(crate) stack: String,
    /// Ports of this test.
    pub(crate) ports: std::ops::Range<u16>,
    env: BTreeMap<String, String>,
}

/// A block of ports nobody listens on.
fn ports() -> std::ops::Range<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let run = u16::try_from(std::process::id() % 40).unwrap_or(0) * 500;
    loop {
        let from = PORTS_FROM + run + NEXT.fetch_add(PORTS_EACH, Ordering::Relaxed);
        let free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        if (from..from + PORTS_EACH).all(free) {
            return from..from + PORTS_EACH;
        }
    }
}

impl Site {
    /// A site whose stack's name ends with `name`.
    pub(crate) fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let stack = format!("{}-{name}", given("MCPO_TEST_STACK"));
        let ports = ports();
        let place = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(&path).expect("a directory");
            path.display().to_string()
        };
        let mut env = BTreeMap::from([
            ("HOME".to_owned(), place("home")),
            ("XDG_STATE_HOME".to_owned(), place("state")),
            ("XDG_RUNTIME_DIR".to_owned(), place("run")),
            ("DOCKER_CONFIG".to_owned(), place("docker")),
            ("PATH".to_owned(), std::env::var("PATH").unwrap_or_default()),
        ]);
        let settings = [
            ("SERVICE__STACK", stack.clone()),
            ("SERVICE__NAME_PREFIX", format!("{stack}-")),
            ("SERVICE__PORT_RANGE_START", ports.start.to_string()),
            ("SERVICE__PORT_RANGE_END", (ports.end - 3).to_string()),
            ("SERVICE__SETTLE_SECONDS", "1".to_owned()),
            ("SERVICE__DOCKER_HOST", format!("unix://{}", engine_socket().display())),
            ("DASHBOARD__PORT", (ports.end - 1).to_string()),
        ];
        env.extend(settings.map(|(key, value)| (format!("MCP_ORCHESTRATOR__{key}"), value)));
        let site = Self { dir, stack, ports, env };
        // What a test that was killed left behind.
        site.remove_all();
        site
    }

    /// With this setting (`SERVICE__SETTLE_SECONDS`).
    pub(crate) fn setting(&mut self, key: &str, value: &str) {
        self.variable(&format!("MCP_ORCHESTRATOR__{key}"), value);
    }

    /// With this variable in the program's environment.
    pub(crate) fn variable(&mut self, name: &str, value: &str) {
        self.env.insert(name.to_owned(), value.to_owned());
    }

    /// A port that servers get from no range.
    pub(crate) fn fixed_port(&self) -> u16 {
        self.ports.end - 2
    }

    /// The port of the main listener.
    pub(crate) fn main_port(&self) -> u16 {
        self.ports.end - 1
    }

    /// A path of the test's own.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where the program keeps its state.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.path("state").join("mcp-orchestrator").join(&self.stack)
    }

    /// The file with the servers.
    pub(crate) fn config(&self) -> PathBuf {
        self.path("mcp.config.json")
    }

    /// Replaces the file, as editors do.
    pub(crate) fn write_text(&self, text: &str) {
        let new = self.path("mcp.config.json.new");
        std::fs::write(&new, text).expect("a file");
        std::fs::rename(new, self.config()).expect("a file");
    }

    /// Replaces the file with these servers.
    pub(crate) fn write(&self, servers: &Value) {
        self.write_text(&json!({ "mcpServers": servers }).to_string());
    }

    /// The program with these arguments.
    pub(crate) fn program(&self, args: &[&str]) -> Command {
        let mut command = Command::new(given("MCPO_BIN"));
        self.dress(&mut command, args);
        command
    }

    /// The program in a mount namespace of its own, after this shell script; `$1` is `place`.
    pub(crate) fn in_namespace(&self, script: &str, place: &Path, args: &[&str]) -> Command {
        let flags = if rustix::process::geteuid().is_root() { "-m" } else { "-rm" };
        let mut command = Command::new("unshare");
        command.args([flags, "sh", "-ec", &format!("{script}; shift; exec \"$@\""), "sh"]);
        command.arg(place).arg(given("MCPO_BIN"));
        self.dress(&mut command, args);
        command
    }

    fn dress(&self, command: &mut Command, args: &[&str]) {
        command.arg("--config").arg(self.config()).args(args);
        command.env_clear().envs(&self.env).current_dir(self.dir.path()).stdin(Stdio::null());
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Done {
        let mut command = Command::new("timeout");
        command.args(["-k", "1", COMMAND_SECS]).arg(given("MCPO_BIN"));
        self.dress(&mut command, args);
        command.output().expect("the program").into()
    }

    /// Converges once.
    pub(crate) fn one_shot(&self) -> Done {
        self.run(&["--one-shot"])
    }

    /// Fails the test when a plan would change something.
    #[track_caller]
    pub(crate) fn nothing_to_do(&self) {
        self.run(&["plan", "--exit-code"]).exits(0);
    }

    /// The name of a server's container.
    pub(crate) fn name(&self, server: &str) -> String {
        format!("{}-{server}", self.stack)
    }

    /// A server's container.
    pub(crate) fn container(&self, server: &str) -> Option<Value> {
        inspect(&self.name(server))
    }

    /// A server's container, which must run.
    #[track_caller]
    pub(crate) fn running(&self, server: &str) -> Value {
        let container = self.container(server).unwrap_or_else(|| panic!("{server} has no container"));
        assert!(runs(&container), "{server} does not run: {}", container["State"]);
        container
    }

    /// The id of a server's container, which must run.
    #[track_caller]
    pub(crate) fn id(&self, server: &str) -> String {
        text(&self.running(server), "/Id")
    }

    /// The port on the label of a server's container, which must run.
    #[track_caller]
    pub(crate) fn port(&self, server: &str) -> u16 {
        label(&self.running(server), PORT).parse().expect("a port")
    }

    /// Names of all containers of the stack, without the prefix.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        let prefix = format!("/{}-", self.stack);
        let short = |row: &Value| text(row, "/Names/0").trim_start_matches(&prefix).to_owned();
        labelled(STACK, &self.stack).iter().map(short).collect()
    }

    /// A container somebody else made, running the demo server.
    pub(crate) fn somebody_elses(&self, name: &str, labels: &[(&str, &str)]) -> String {
        let mut all: BTreeMap<&str, &str> = labels.iter().copied().collect();
        all.insert(OTHERS, &self.stack);
        let body = json!({ "Image": image(), "OpenStdin": true, "Labels": all });
        let (status, made) = engine("POST", &format!("/containers/create?name={name}"), &body);
        assert_eq!(status, 201, "{made}");
        let id = text(&made, "/Id");
        assert_eq!(engine("POST", &format!("/containers/{id}/start"), &Value::Null).0, 204);
        id
    }

    /// What the engine reported about containers of the stack since `since` (Unix seconds): action
    /// and container id, in order.
    pub(crate) fn events(&self, since: u64) -> Vec<(String, String, i64)> {
        let filters =
            json!({ "type": ["container"], "label": [format!("{STACK}={}", self.stack)] }).to_string();
        let path = format!("/events?since={since}&until={}&filters={}", unix_now() + 1, encode(&filters));
        let (_, body) = engine("GET", &path, &Value::Null);
        let lines = match body {
            Value::String(lines) => lines,
            one => one.to_string(),
        };
        let events = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let event = |event: Value| {
            (text(&event, "/Action"), text(&event, "/Actor/ID"), event["timeNano"].as_i64().unwrap_or(0))
        };
        events.filter(|event| event.get("Action").is_some()).map(event).collect()
    }

    /// Starts the daemon and waits until it answers.
    pub(crate) fn daemon(&self) -> Daemon {
        let daemon = self.daemon_of(&mut self.program(&["run"]));
        eventually("the daemon answers", 20, || (self.run(&["status", "--json"]).code != 4).then_some(()));
        daemon
    }

    /// Starts a daemon by this command; its log goes to a file.
    pub(crate) fn daemon_of(&self, command: &mut Command) -> Daemon {
        let log = self.path("daemon.log");
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).expect("a log");
        command.stdout(file.try_clone().expect("a log")).stderr(file);
        Daemon { child: command.spawn().expect("the program"), log }
    }

    /// The daemon's status.
    pub(crate) fn status(&self) -> Value {
        self.run(&["status", "--json"]).json()
    }

    /// A server's row in the daemon's status.
    pub(crate) fn row(&self, server: &str) -> Value {
        let status = self.status();
        status.pointer(&format!("/snapshot/report/servers/{server}")).cloned().unwrap_or(Value::Null)
    }

    /// Removes everything the test made on the engine, but named volumes of its name prefix last.
    fn remove_all(&self) {
        let containers = [labelled(STACK, &self.stack), labelled(OTHERS, &self.stack)].concat();
        let mut gone = BTreeSet::new();
        for id in containers.iter().filter_map(|container| container["Id"].as_str()) {
            gone.extend(inspect(id).iter().flat_map(volumes).map(|(_, name)| name));
            engine("DELETE", &format!("/containers/{id}?force=1&v=1"), &Value::Null);
        }
        let filters = encode(&json!({ "name": [self.stack] }).to_string());
        let (_, named) = engine("GET", &format!("/volumes?filters={filters}"), &Value::Null);
        let named = named["Volumes"].as_array().cloned().unwrap_or_default();
        gone.extend(named.iter().map(|volume| text(volume, "/Name")));
        for volume in gone {
            engine("DELETE", &format!("/volumes/{volume}"), &Value::Null);
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.remove_all();
        let log = std::fs::read_to_string(self.path("daemon.log")).unwrap_or_default();
        if std::thread::panicking() && !log.is_empty() {
            eprintln!("---- the daemon's log:\n{log}");
        }
    }
}

/// Now, in Unix seconds.
pub(crate) fn unix_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs()
}

/// A running daemon; killed when the test ends.
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it still runs.
    pub(crate) fn alive(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// SIGTERM, and its exit code.
    pub(crate) fn stop(mut self) -> i32 {
        let pid =
            i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
        eventually("the daemon ends", 30, || self.child.try_wait().expect("a child")).code().unwrap_or(-1)
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("a signal");
        self.child.wait().expect("a child");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// All files below a directory, with their content.
pub(crate) fn files_below(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else if let Ok(content) = std::fs::read(&path) {
            files.push((path, content));
        }
    }
    files
}
