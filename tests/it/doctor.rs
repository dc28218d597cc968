//! `doctor` and what is wrong: every check with its bad case, by the program itself, before an engine
//! that is played. What only a real engine or AWS can show is in `tests/live`.

use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// What the played engine answers to a path: status and body.
type Answers = fn(&str) -> (u16, Value);

/// A home of its own with an engine beside it.
struct Scene {
    dir: tempfile::TempDir,
    settings: Vec<(String, String)>,
}

impl Scene {
    fn new(servers: &Value) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("run")).expect("a directory");
        let config = json!({ "mcpServers": servers }).to_string();
        fs::write(dir.path().join("mcp.config.json"), config).expect("a file");
        Self { dir, settings: Vec::new() }
    }

    /// One server that needs nothing but a shell.
    fn plain() -> Self {
        Self::new(&json!({ "time": { "command": "sh" } }))
    }

    /// One server in a container.
    fn container() -> Self {
        let line = ["run", "-i", "--memory", "24m", "r.example/time:1"];
        Self::new(&json!({ "time": { "command": "docker", "args": line } }))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With an engine that answers like this.
    fn engine(self, answers: Answers) -> Self {
        let socket = self.path("docker.sock");
        let listener = UnixListener::bind(&socket).expect("a socket");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut lines = BufReader::new(stream.try_clone().expect("a stream")).lines();
                    let Some(Ok(first)) = lines.next() else { return };
                    for line in lines.by_ref() {
                        if line.is_ok_and(|line| line.is_empty()) {
                            break;
                        }
                    }
                    let (status, body) = answers(first.split(' ').nth(1).unwrap_or_default());
                    let body = body.to_string();
                    let head = format!(
                        "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                        body.len()
                    );
                    let mut stream = stream;
                    let _gone = stream.write_all((head + &body).as_bytes());
                });
            }
        });
        let host = format!("unix://{}", socket.display());
        self.with("DOCKER_HOST", &host)
    }

    fn run(&self, args: &[&str]) -> (String, i32) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-orchestrator"));
        command.args(args).env_clear().envs([("PATH", "/usr/bin:/bin"), ("COLUMNS", "80")]);
        command.env("HOME", self.dir.path()).env("XDG_STATE_HOME", self.path("state"));
        command.env("XDG_RUNTIME_DIR", self.path("run")).env("DOCKER_HOST", "unix:///nowhere/docker.sock");
        command.envs(self.settings.iter().cloned()).current_dir(self.dir.path()).stdin(Stdio::null());
        let output = command.output().expect("the program runs");
        (String::from_utf8(output.stdout).expect("text"), output.status.code().expect("an exit code"))
    }

    /// The checks on a topic, and the exit code.
    fn checks(&self, topic: &str) -> (Vec<Value>, i32) {
        let (out, code) = self.run(&["doctor", "--json"]);
        let value: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"));
        assert_eq!(value["schemaVersion"], 1);
        let all = value["checks"].as_array().expect("checks").clone();
        let worst = |word: &str| all.iter().any(|check| check["verdict"] == word);
        assert_eq!(code, i32::from(worst("fail")), "{out}");
        for check in &all {
            let bad = check["verdict"] == "warn" || check["verdict"] == "fail";
            assert_eq!(bad, check["remedy"].is_string(), "what is bad has a remedy: {check}");
        }
        (all.into_iter().filter(|check| check["topic"] == topic).collect(), code)
    }

    /// Fails unless a check on the topic ends like this and names these words, in evidence or remedy;
    /// the page says the same.
    #[track_caller]
    fn finds(&self, topic: &str, verdict: &str, words: &[&str]) {
        let (found, code) = self.checks(topic);
        let fits = |check: &&Value| {
            let said = format!("{} {}", check["evidence"], check["remedy"]);
            check["verdict"] == verdict && words.iter().all(|word| said.contains(word))
        };
        assert!(found.iter().any(|check| fits(&check)), "{topic} {verdict} {words:?}: {found:#?}");
        let (page, same) = self.run(&["doctor"]);
        assert_eq!(code, same);
        assert!(page.lines().all(|line| line.chars().count() <= 80), "{page}");
        let begins = |line: &str| line.split_whitespace().take(2).eq([verdict, topic]);
        assert!(page.lines().any(begins), "{page}");
    }
}

fn version(api: &str) -> Value {
    json!({ "Version": "28.1.1", "ApiVersion": api, "MinAPIVersion": "1.24" })
}

/// A good engine with an empty registry behind it.
fn good(path: &str) -> (u16, Value) {
    match path {
        _ if path.contains("/version") => (200, version("1.49")),
        _ if path.contains("/info") => (200, json!({ "SystemTime": now(), "OperatingSystem": "Debian" })),
        _ if path.contains("/containers/json") => (200, json!([])),
        _ if path.contains("/images/") => (404, json!({ "message": "no such image" })),
        _ if path.contains("/distribution/") => {
            (200, json!({ "Descriptor": { "digest": "sha256:x" }, "Platforms": [] }))
        }
        _ => (404, json!({ "message": "no such page" })),
    }
}

fn now() -> String {
    jiff::Timestamp::now().to_string()
}

#[test]
fn a_good_engine_is_good() {
    let scene = Scene::container().engine(good);
    for topic in ["engine", "clock", "images", "ports", "names", "config", "files"] {
        let (found, code) = scene.checks(topic);
        assert!(code == 0 && !found.is_empty(), "{topic}: {found:?}");
        assert!(found.iter().all(|check| check["verdict"] == "ok"), "{topic}: {found:?}");
    }
    assert!(scene.checks("memory").0.is_empty());
}

#[test]
fn engines_that_will_not_do() {
    Scene::container().finds("engine", "fail", &["1 of the servers are containers", "docker_host"]);
    let old = |path: &str| {
        if path.contains("/version") { (200, version("1.40")) } else { good(path) }
    };
    Scene::container().engine(old).finds("engine", "fail", &["API 1.40", "20.10"]);
    let weak = |path: &str| {
        let info = json!({ "SystemTime": now(), "Warnings": ["WARNING: No memory limit support"] });
        if path.contains("/info") { (200, info) } else { good(path) }
    };
    Scene::container().engine(weak).finds("engine", "warn", &["No memory limit support", "not kept"]);
    let silent = |_: &str| (500, json!({ "message": "out of order" }));
    Scene::container().engine(silent).finds("engine", "fail", &["out of order"]);
}

#[test]
fn clocks_that_differ() {
    let late = |path: &str| {
        let info = json!({ "SystemTime": "2020-01-01T00:00:00Z" });
        if path.contains("/info") { (200, info) } else { good(path) }
    };
    Scene::container().engine(late).finds("clock", "warn", &["differs by", "timedatectl"]);
}

#[test]
fn images_that_cannot_be_had() {
    let absent = |path: &str| {
        let answer = (404, json!({ "message": "manifest unknown" }));
        if path.contains("/distribution/") { answer } else { good(path) }
    };
    Scene::container().engine(absent).finds("images", "fail", &["r.example/time:1", "docker login"]);
    let denied = |path: &str| {
        let answer = (401, json!({ "message": "unauthorized: authentication required" }));
        if path.contains("/distribution/") { answer } else { good(path) }
    };
    Scene::container().engine(denied).finds("images", "fail", &["r.example/time:1", "docker login"]);
    let away = |path: &str| {
        let answer = (500, json!({ "message": "dial tcp: lookup r.example: no such host" }));
        if path.contains("/distribution/") { answer } else { good(path) }
    };
    Scene::container().engine(away).finds("images", "fail", &["no such host", "DNS"]);
    let scene = Scene::container().engine(good).with("MCP_ORCHESTRATOR__CONTAINERS__PULL", "never");
    scene.finds("images", "fail", &["never pulled", "docker load"]);
}

#[test]
fn containers_that_were_killed_for_memory() {
    let killed = |path: &str| {
        let labels = json!({
            "managed-by": "mcp-orchestrator", "io.mcp-orchestrator.stack": "killed",
            "io.mcp-orchestrator.server": "time", "io.mcp-orchestrator.role": "server",
        });
        let row = json!({
            "Id": "c1", "Names": ["/mcp-time"], "Labels": labels, "State": "exited",
            "Status": "Exited (137) 3 seconds ago", "ImageID": "sha256:x", "Created": 1,
        });
        match path {
            _ if path.contains("/containers/json") => (200, json!([row])),
            _ if path.contains("/containers/c1/json") => (
                200,
                json!({ "Id": "c1", "State": { "Status": "exited", "OOMKilled": true, "ExitCode": 137 } }),
            ),
            _ => good(path),
        }
    };
    let scene = Scene::container().engine(killed).with("MCP_ORCHESTRATOR__SERVICE__STACK", "killed");
    scene.finds("memory", "fail", &["time was killed for memory", "24 MiB", "36m"]);
    // Another stack's is not ours to tell of.
    let other = Scene::container().engine(killed).with("MCP_ORCHESTRATOR__SERVICE__STACK", "other");
    assert!(other.checks("memory").0.is_empty());
}

#[test]
fn ranges_of_ports_that_are_full() {
    let held = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = held.local_addr().expect("an address").port().to_string();
    let scene = Scene::plain()
        .with("MCP_ORCHESTRATOR__SERVICE__PORT_RANGE_START", &port)
        .with("MCP_ORCHESTRATOR__SERVICE__PORT_RANGE_END", &port);
    scene.finds("ports", "fail", &["0 of 1", "1 servers still need one", "port_range_end"]);
}

#[test]
fn names_that_are_too_long() {
    let name = "a".repeat(50);
    let scene = Scene::new(&json!({ name: { "command": "sh" } }));
    scene.finds("names", "warn", &["less than 32 characters", "shorter names"]);
}

#[test]
fn credentials_that_are_missing_shipped_or_broken() {
    Scene::plain().finds("credentials", "warn", &["shipped password", "hash-password"]);
    let missing = Scene::plain().with("MCP_ORCHESTRATOR__DASHBOARD__PASSWORD_FILE", "/nowhere/password");
    missing.finds("credentials", "fail", &["/nowhere/password"]);
    missing.finds("files", "fail", &["/nowhere/password is not there", "with [dashboard] password_file"]);
    let other = |name: &str| (format!("MCP_ORCHESTRATOR__{name}"), format!("/nowhere/{name}"));
    for (names, setting) in [
        (&["GATEWAY__TOKENS_FILE"][..], "[gateway] tokens_file"),
        (&["TLS__CERT_FILE", "TLS__KEY_FILE"], "[tls] cert_file"),
        (&["TLS__CERT_FILE", "TLS__KEY_FILE"], "[tls] key_file"),
    ] {
        let mut missing = Scene::plain();
        missing.settings.extend(names.iter().map(|name| other(name)));
        missing.finds("files", "fail", &["/nowhere/", " is not there", setting]);
    }
    let scene = Scene::container().engine(good);
    let docker = scene.path("docker");
    fs::create_dir(&docker).expect("a directory");
    fs::write(docker.join("config.json"), "{ not JSON").expect("a file");
    let docker = docker.display().to_string();
    scene.with("DOCKER_CONFIG", &docker).finds("credentials", "warn", &["config.json", "docker login"]);
}

#[test]
fn files_that_others_may_write_or_read() {
    let scene = Scene::new(&json!({ "time": { "command": "sh", "env": { "TOKEN": "planted" } } }));
    let config = scene.path("mcp.config.json");
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).expect("a mode");
    scene.finds("files", "warn", &["holds secrets", "chmod 640"]);
    assert!(!scene.run(&["doctor", "--json"]).0.contains("planted"));
    fs::set_permissions(&config, fs::Permissions::from_mode(0o666)).expect("a mode");
    scene.finds("files", "fail", &["everybody may write it", "chmod o-w"]);
    fs::remove_file(&config).expect("removed");
    scene.finds("files", "fail", &["mcp.config.json is not there"]);
}

#[test]
fn a_state_file_that_is_of_a_newer_version() {
    let scene = Scene::plain().with("MCP_ORCHESTRATOR__SERVICE__STACK", "newer");
    let place = scene.path("state/mcp-orchestrator/newer");
    fs::create_dir_all(&place).expect("a directory");
    let made = rusqlite::Connection::open(place.join("state.db")).expect("a database");
    made.execute_batch("CREATE TABLE t (x); PRAGMA user_version = 999999;").expect("a version");
    drop(made);
    scene.finds("state", "fail", &["newer"]);
}

#[test]
fn problems_of_both_files_are_told_with_their_place() {
    let scene = Scene::plain();
    fs::write(scene.path("mcp.config.json"), "{\"mcpServers\": {\"a\": {\"comand\": \"sh\"}}}")
        .expect("a file");
    scene.finds("config", "fail", &["mcp.config.json:1:", "MCPO-C"]);
    fs::write(scene.path("settings.conf"), "[service]\nport_rang_start = 1\n[servce]\nstack = x\n")
        .expect("a file");
    scene.finds("settings", "fail", &["settings.conf:2:", "port_rang_start", "port_range_start"]);
    scene.finds("settings", "fail", &["settings.conf:3:", "[servce]", "did you mean"]);
    let (text, _) = scene.run(&["doctor"]);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}
