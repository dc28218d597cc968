//! Local processes: each with a keeper, of our own or of the runner service, as separate programs.

use mcp_orchestrator::runner::client::{Command, Process, Way, start};
use mcp_orchestrator::runner::wire::Limits;
use mcp_orchestrator::upstream::leg::LegIo;
use mcp_orchestrator::world::{ErrorKind, WorldError};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

const BIN: &str = env!("CARGO_BIN_EXE_mcp-orchestrator");
/// Far beyond what anything here takes, so that what never comes fails instead of hanging.
const LONG: Duration = Duration::from_secs(60);
/// Asks for the end of a process without waiting for its own.
const SHORT: Duration = Duration::from_millis(50);

fn base() -> BTreeMap<String, String> {
    BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into()), ("HOME".into(), "/".into())])
}

fn own() -> Way {
    Way::Own(PathBuf::from(BIN), base())
}

/// The service, as a process of its own; ended when dropped.
struct Service {
    child: Child,
    dir: TempDir,
}

impl Service {
    fn start(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut command = std::process::Command::new(BIN);
        command.args(["runner", "--socket"]).arg(dir.path().join("runner.sock")).args(args);
        command.env_clear().envs(base()).env("SECRET_OF_THE_SERVICE", "SECRET").stdin(Stdio::null());
        let log = std::fs::File::create(dir.path().join("log")).expect("a log");
        let service = Self { child: command.stderr(log).spawn().expect("the service"), dir };
        service.wait_for("takes requests");
        service
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("runner.sock")
    }

    fn way(&self) -> Way {
        Way::Service(self.socket())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn wait_for(&self, text: &str) {
        let begun = std::time::Instant::now();
        while !self.log().contains(text) {
            assert!(begun.elapsed() < LONG, "no '{text}' in {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(pid(self.child.id()), signal).expect("a signal");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if self.child.try_wait().expect("a child").is_none() {
            self.signal(Signal::TERM);
        }
        let _ended = self.child.wait();
    }
}

fn pid(id: u32) -> Pid {
    i32::try_from(id).ok().and_then(Pid::from_raw).expect("an id")
}

fn command(program: &str, args: &[&str]) -> Command {
    Command {
        server: "time".into(),
        program: program.into(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: BTreeMap::from([("ONLY".into(), "this".into())]),
        cwd: Some("/".into()),
        limits: Limits::default(),
    }
}

fn shell(script: &str) -> Command {
    command("/bin/sh", &["-c", script])
}

async fn all(stream: impl AsyncRead + Unpin) -> String {
    let (mut stream, mut text) = (stream, String::new());
    tokio::time::timeout(LONG, stream.read_to_string(&mut text)).await.expect("in time").expect("text");
    text
}

/// Nobody reaps orphans in some containers.
fn is_alive(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    test_kill_process(pid(id)).is_ok() && !stat.contains(") Z ")
}

/// Resolves when the process is no more.
async fn gone(id: u32) {
    let dead = async {
        while is_alive(id) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, dead).await.unwrap_or_else(|_| panic!("process {id} is still there"));
}

/// Starts a script whose first line tells an id.
async fn telling(way: &Way, script: &str) -> (LegIo, Process, u32) {
    let (mut io, process) = start(way, &shell(script)).await.expect("started");
    let mut lines = BufReader::new(io.stdout).lines();
    let line = tokio::time::timeout(LONG, lines.next_line()).await.expect("in time");
    let id = line.expect("text").expect("a line").parse().expect("an id");
    io.stdout = Box::new(lines.into_inner());
    (io, process, id)
}

#[tokio::test]
async fn streams_are_apart_and_the_environment_is_the_entrys_and_the_base() {
    let service = Service::start(&[]);
    for way in [own(), service.way()] {
        let script = "read line; echo \"out $line\"; echo err >&2; pwd; exit 3";
        let (io, mut process) = start(&way, &shell(script)).await.expect("started");
        let LegIo { stdout, mut stdin, stderr } = io;
        stdin.write_all(b"hello\n").await.expect("written");
        let (out, err) = tokio::join!(all(stdout), all(stderr.expect("stderr")));
        assert_eq!((out.as_str(), err.as_str()), ("out hello\n/\n", "err\n"));
        assert_eq!(process.ended().await.how, "exited with code 3");
        assert_eq!(process.stop(LONG, LONG).await.how, "exited with code 3");
        // Whatever the kernel was given, as the kernel has it.
        let (io, _process) = start(&way, &command("cat", &["/proc/self/environ"])).await.expect("started");
        let text = all(io.stdout).await;
        let mut found: Vec<&str> = text.split('\0').filter(|variable| !variable.is_empty()).collect();
        found.sort_unstable();
        assert_eq!(found, ["HOME=/", "ONLY=this", "PATH=/usr/bin:/bin"]);
        // And no descriptor beyond those that any child of this test has.
        let (io, _process) = start(&way, &command("ls", &["/proc/self/fd"])).await.expect("started");
        let usual = std::process::Command::new("ls").arg("/proc/self/fd").output().expect("a list").stdout;
        assert_eq!(all(io.stdout).await, String::from_utf8_lossy(&usual));
    }
    let log = service.log();
    assert!(log.contains(r#""MCP_SERVER":"time""#) && !log.contains("/proc/self"), "{log}");
}

#[tokio::test]
async fn a_dropped_process_takes_everybody_along() {
    let service = Service::start(&[]);
    for way in [own(), service.way()] {
        let script =
            "setsid sh -c 'setsid sleep 1000 & wait' & sleep 1000 & echo $!; trap '' TERM; sleep 1000";
        let (_io, process, grandchild) = telling(&way, script).await;
        let leader = process.id();
        let tree = descendants(leader);
        assert!(tree.contains(&grandchild) && tree.len() >= 4, "{tree:?}");
        drop(process);
        for id in tree.into_iter().chain([leader]) {
            gone(id).await;
        }
    }
}

/// Everybody below a process, as far as they can be seen by now.
fn descendants(id: u32) -> Vec<u32> {
    let list =
        |id: u32| std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    let children = |id: u32| -> Vec<u32> { list(id).split(' ').filter_map(|id| id.parse().ok()).collect() };
    let begun = std::time::Instant::now();
    loop {
        let (mut found, mut at) = (children(id), 0);
        while let Some(next) = found.get(at) {
            found.extend(children(*next));
            at += 1;
        }
        if found.len() >= 4 || begun.elapsed() > Duration::from_secs(10) {
            return found;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn what_a_process_leaves_behind_ends_with_it() {
    for script in
        ["sleep 1000 & echo $!; printf last; exit 0", "setsid sleep 1000 & echo $!; printf last; exit 0"]
    {
        let (io, mut process, left) = telling(&own(), script).await;
        assert_eq!(process.ended().await.how, "exited with code 0");
        assert!(!is_alive(left), "the end is told when nothing is left");
        assert_eq!(all(io.stdout).await, "last");
    }
}

#[tokio::test]
async fn stopping_asks_thrice() {
    let (io, process) = start(&own(), &shell("cat >/dev/null; exit 7")).await.expect("started");
    drop(io.stdin);
    assert_eq!(process.stop(LONG, LONG).await.how, "exited with code 7");
    let (_io, process) = start(&own(), &shell("exec sleep 1000")).await.expect("started");
    assert_eq!(process.stop(SHORT, LONG).await.how, "was ended by signal 15");
    let script = "trap '' TERM; sleep 1000 & echo $!; while true; do sleep 1; done";
    let (_io, process, grandchild) = telling(&own(), script).await;
    assert_eq!(process.stop(SHORT, SHORT).await.how, "was ended by signal 9");
    assert!(!is_alive(grandchild));
}

#[tokio::test]
async fn a_kill_by_others_is_told_with_what_is_known_of_memory() {
    let (_io, mut process) = start(&own(), &shell("exec sleep 1000")).await.expect("started");
    let id = i32::try_from(process.id()).ok().and_then(Pid::from_raw).expect("an id");
    kill_process(id, Signal::KILL).expect("a signal");
    let ended = process.ended().await;
    let known = ["was killed (SIGKILL), and not for memory", "was killed (SIGKILL): perhaps out of memory"];
    assert!(known.contains(&ended.how.as_str()), "{ended:?}");
    assert_ne!(ended.oom, Some(true));
    assert_eq!(ended.oom == Some(false), ended.how == known[0]);
}

#[tokio::test]
async fn what_cannot_be_started_is_named_without_its_arguments() {
    let service = Service::start(&[]);
    for way in [own(), service.way()] {
        let mut wanted = shell("SECRET");
        wanted.env.insert("TOKEN".into(), "SECRET".into());
        for (program, cwd, kind, words) in [
            ("no-such-program-here", "/", ErrorKind::NotFound, "on the PATH"),
            ("/no/such/file", "/", ErrorKind::NotFound, "no such file"),
            ("/etc/passwd", "/", ErrorKind::Denied, "executed"),
            ("/bin/sh", "/no/such/folder", ErrorKind::NotFound, "working directory /no/such/folder"),
            ("a\0b", "/", ErrorKind::Invalid, "NUL"),
        ] {
            (wanted.program, wanted.cwd) = (program.into(), Some(cwd.into()));
            let error = refused(&way, &wanted).await;
            let text = error.to_string();
            assert_eq!(error.kind, kind, "{text}");
            assert!(text.contains(words) && text.contains(program) && !text.contains("SECRET"), "{text}");
        }
        let mut large = shell("true");
        large.args = vec!["x".repeat(100_000); 12];
        assert!(refused(&way, &large).await.to_string().contains("longer than"));
        large.args = vec!["x".repeat(200_000)];
        assert!(refused(&way, &large).await.to_string().contains("too long"));
    }
    assert!(!service.log().contains("SECRET"), "{}", service.log());
}

async fn refused(way: &Way, command: &Command) -> WorldError {
    tokio::time::timeout(LONG, start(way, command)).await.expect("in time").expect_err("refused")
}

#[tokio::test]
async fn a_runner_that_is_away_is_named_with_what_helps() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("runner.sock");
    let way = Way::Service(path.clone());
    let error = refused(&way, &shell("true")).await;
    assert!(error.kind == ErrorKind::Unreachable && error.cause.contains("systemctl status"), "{error}");
    // A socket that nobody listens on any more.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
    assert_eq!(refused(&way, &shell("true")).await.kind, ErrorKind::Unreachable);
}

/// What comes back for these bytes.
fn answer(socket: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).expect("the service");
    stream.set_read_timeout(Some(LONG)).expect("a limit");
    stream.write_all(bytes).expect("written");
    stream.shutdown(std::net::Shutdown::Write).expect("an end");
    let mut answer = Vec::new();
    // A connection that is closed before all was read is reset, after the answer.
    let _reset = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn bad_requests_are_refused_and_harm_nobody() {
    let service = Service::start(&[]);
    let framed = |body: &str| {
        let mut frame = u32::try_from(body.len()).expect("short").to_be_bytes().to_vec();
        frame.extend(body.as_bytes());
        frame
    };
    let request = |version: u32, server: &str| {
        framed(&format!(
            r#"{{"version":{version},"server":"{server}","program":"true","args":[],"env":{{}},"cwd":null}}"#
        ))
    };
    let (io, _process) = start(&service.way(), &shell("cat")).await.expect("started");
    for (bytes, words) in [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), "longer than 1048576 bytes"),
        (framed("SECRET"), "not of the expected form"),
        (framed(r#"{"version":1}"#), "not of the expected form"),
        (framed("{}")[..5].to_vec(), "closed within a message"),
        (request(2, "time"), "restart mcp-orchestrator-runner"),
        (request(1, "two words"), "names no server"),
        (Vec::new(), ""),
    ] {
        let answer = answer(&service.socket(), &bytes);
        assert!(answer.contains(words) && !answer.contains("SECRET"), "{answer}");
        assert_eq!(answer.is_empty(), words.is_empty(), "{answer}");
    }
    let LegIo { stdout, mut stdin, .. } = io;
    stdin.write_all(b"still here\n").await.expect("written");
    drop(stdin);
    assert_eq!(all(stdout).await, "still here\n");
}

#[tokio::test]
async fn no_more_processes_than_allowed() {
    let service = Service::start(&["--processes-max", "2"]);
    let mut running = Vec::new();
    for _ in 0..2 {
        running.push(start(&service.way(), &shell("cat")).await.expect("started"));
    }
    let error = refused(&service.way(), &shell("cat")).await;
    assert!(error.kind == ErrorKind::Quota && error.cause.contains("2 processes"), "{error}");
    drop(running);
    let freed = async {
        while start(&service.way(), &shell("cat")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, freed).await.expect("there is room again");
}

#[tokio::test]
async fn a_killed_keeper_leaves_nothing_and_a_killed_service_disturbs_nobody() {
    let service = Service::start(&[]);
    let script = "setsid sleep 1000 & echo $!; trap '' TERM; while true; do sleep 1; done";
    let (_io, mut process, stray) = telling(&service.way(), script).await;
    let leader = process.id();
    kill_process(pid(parent(leader)), Signal::KILL).expect("a signal");
    assert_eq!(process.ended().await.how, "ended with its keeper");
    gone(leader).await;
    gone(stray).await;
    service.wait_for("a keeper was ended by signal 9");
    let (io, process) = start(&service.way(), &shell("cat")).await.expect("started");
    service.signal(Signal::KILL);
    gone(service.child.id()).await;
    let LegIo { stdout, mut stdin, .. } = io;
    stdin.write_all(b"still here\n").await.expect("written");
    let mut lines = BufReader::new(stdout).lines();
    assert_eq!(lines.next_line().await.expect("text").as_deref(), Some("still here"));
    drop(stdin);
    assert_eq!(process.stop(LONG, LONG).await.how, "exited with code 0");
}

fn parent(id: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent");
    line.trim().parse().expect("an id")
}

#[tokio::test]
async fn the_end_of_the_service_is_the_end_of_its_processes() {
    let mut service = Service::start(&[]);
    let (_io, mut process, stray) = telling(&service.way(), "setsid sleep 1000 & echo $!; sleep 1000").await;
    service.signal(Signal::TERM);
    assert_eq!(process.ended().await.how, "was ended by signal 15");
    gone(stray).await;
    assert!(service.child.wait().expect("its end").success());
    service = Service::start(&[]);
    let again = std::process::Command::new(BIN)
        .args(["runner", "--socket"])
        .arg(service.socket())
        .stdin(Stdio::null())
        .output()
        .expect("the program");
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(again.status.code() == Some(1) && said.contains("another process listens there"), "{said}");
}

#[test]
fn wrong_uses_are_told() {
    for (args, code, words) in [
        (&["runner"][..], 2, "mcp-orchestrator-runner.socket"),
        (&["runner", "--one"][..], 2, "started by the daemon"),
        (&["runner", "--socket", "/x", "--allow-user", "nobody-here"][..], 2, "there is no user nobody-here"),
        (&["runner", "--socket", "/no/such/folder/x"][..], 1, "listening on /no/such/folder/x"),
        (&["runner", "--one", "--socket", "/x"][..], 2, "cannot be used with"),
    ] {
        let done = std::process::Command::new(BIN).args(args).stdin(Stdio::null()).output().expect("a run");
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.code() == Some(code) && said.contains(words), "{args:?}: {said}");
    }
}
