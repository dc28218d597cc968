//! Local processes through the runner service: daemon and runner are separate programs, as installed.

use crate::gateway::client::{At, Client, fixture_path};
use crate::support::{Daemon, Site, eventually};
use serde_json::{Value, json};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Output, Stdio};

/// A user that nobody allowed anything.
const STRANGER: u32 = 65_534;

/// The runner of a site, as systemd would run it but for user and sandbox; killed when dropped.
struct Runner {
    child: Child,
}

impl Runner {
    fn start(site: &Site) -> Self {
        Self::with(site, &[])
    }

    fn with(site: &Site, args: &[&str]) -> Self {
        let socket = site.path("runner.sock");
        let log = std::fs::File::options().create(true).append(true).open(site.path("runner.log"));
        let mut command = Command::new(std::env::var("MCPO_BIN").expect("./tests/run.sh sets it"));
        command.args(["runner", "--socket"]).arg(&socket).args(args);
        command.env_clear().envs([("PATH", "/usr/bin:/bin"), ("HOME", "/tmp"), ("RUNNERS_OWN", "SECRET")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.expect("a log"));
        let child = command.spawn().expect("the runner");
        eventually("the runner listens", 20, || std::os::unix::net::UnixStream::connect(&socket).ok());
        Self { child }
    }

    fn kill(mut self) {
        self.child.kill().expect("a signal");
        self.child.wait().expect("a child");
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

fn site(name: &str) -> Site {
    let mut site = Site::new(name);
    let socket = site.path("runner.sock").display().to_string();
    site.setting("SERVICE__PROCESS_RUNNER", &socket);
    site.variable("DAEMONS_OWN", "SECRET");
    site
}

fn log(site: &Site) -> String {
    std::fs::read_to_string(site.path("runner.log")).unwrap_or_default()
}

fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

fn pid(client: &Client) -> String {
    let who: Value = serde_json::from_str(&client.call("nasty_who", &json!({}))).expect("JSON");
    who["pid"].to_string()
}

/// A process and those above it, by id.
fn ancestors(pid: &str) -> Vec<String> {
    let parent = |pid: &str| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        Some(status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().to_owned())
    };
    std::iter::successors(Some(pid.to_owned()), |pid| parent(pid)).collect()
}

/// Ignores the end of its input and SIGTERM, and has a child that left its group.
fn stubborn() -> Value {
    let script =
        format!("trap '' TERM; setsid sleep 1000 & {} --era legacy --ignore-eof; sleep 1000", fixture_path());
    json!({"command": "/bin/sh", "args": ["-c", script]})
}

/// Everybody whose command line has this word.
fn with_word(word: &str) -> Vec<String> {
    let all = std::fs::read_dir("/proc").expect("/proc").flatten();
    let found = all.filter_map(|entry| {
        let line = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
        line.contains(word).then(|| entry.file_name().to_string_lossy().into_owned())
    });
    found.filter(|pid| is_alive(pid)).collect()
}

#[test]
fn a_process_runs_below_the_runner_with_nothing_of_the_daemon() {
    let site = site("runner-env");
    let runner = Runner::start(&site);
    let marker = format!("{}-marker", site.stack);
    site.write(&json!({
        "local": {"command": fixture_path(), "args": ["--era", "legacy", "--instructions", marker],
                  "env": {"COLOUR": "red"}},
        "gone": {"command": "no-such-program-here"},
    }));
    let daemon = site.daemon();
    let client = At::of(&site, "local").open();
    let server = pid(&client);
    assert!(ancestors(&server).contains(&runner.child.id().to_string()));
    assert!(!ancestors(&server).contains(&daemon.pid().to_string()));
    let environment = std::fs::read_to_string(format!("/proc/{server}/environ")).expect("its environment");
    let mut names: Vec<&str> = environment.split('\0').filter(|variable| !variable.is_empty()).collect();
    names.sort_unstable();
    assert_eq!(names, ["COLOUR=red", "HOME=/tmp", "PATH=/usr/bin:/bin"]);
    // What it says beside its messages comes to the daemon itself.
    client.call("nasty_stderr", &json!({"bytes": 100}));
    eventually("its line is in the log", 20, || {
        (!site.run(&["logs", "local"]).out.trim().is_empty()).then_some(())
    });
    // An entry that cannot be started is its own affair, and told.
    eventually("why the other does not run is told", 20, || {
        site.run(&["status", "--detailed"]).all().contains("no such program on the PATH").then_some(())
    });
    let log = log(&site);
    assert!(
        log.contains(r#""MCP_SERVER":"local""#) && !log.contains(&marker) && !log.contains("SECRET"),
        "{log}"
    );
    assert_eq!(client.call("echo", &json!({"message": "on"})), "on");
    assert_eq!(daemon.stop(), 0);
    assert!(!is_alive(&server), "it ends with the daemon");
}

#[test]
fn kill_9_of_the_daemon_leaves_no_process_however_stubborn() {
    for through_runner in [true, false] {
        let mut site = site(if through_runner { "runner-kill" } else { "no-runner-kill" });
        let runner = through_runner.then(|| Runner::start(&site));
        if !through_runner {
            site.setting("SERVICE__PROCESS_RUNNER", "none");
        }
        let word = format!("{}-word", site.stack);
        let mut entry = stubborn();
        // A word in the command line of all of them by which they are found.
        entry["args"].as_array_mut().expect("arguments").push(json!(word));
        let polite = json!({"command": fixture_path(), "args": ["--era", "legacy", "--instructions", word]});
        site.write(&json!({"stubborn": entry, "polite": polite}));
        let daemon = site.daemon();
        let clients = ["stubborn", "polite"].map(|server| At::of(&site, server).open());
        let child = clients[0].call("nasty_child", &json!({}));
        let mut pids = clients.each_ref().map(pid).to_vec();
        pids.extend(with_word(&word));
        pids.extend(strays(&pids));
        pids.push(child);
        assert!(pids.iter().all(|pid| is_alive(pid)) && pids.len() >= 5, "{pids:?}");
        daemon.kill();
        eventually("nothing of them is left", 40, || {
            (pids.iter().all(|pid| !is_alive(pid)) && with_word(&word).is_empty()).then_some(())
        });
        drop(runner);
    }
}

/// Children of these processes that lead a session of their own.
fn strays(pids: &[String]) -> Vec<String> {
    let children = |pid: &String| std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let all = pids.iter().filter_map(|pid| children(pid).ok());
    all.flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn kill_9_of_the_runner_is_reported_and_survived() {
    let site = site("runner-gone");
    let runner = Runner::start(&site);
    site.write(&json!({"local": {"command": fixture_path(), "args": ["--era", "legacy"]}}));
    let daemon: Daemon = site.daemon();
    let client = At::of(&site, "local").open();
    let first = pid(&client);
    runner.kill();
    assert_eq!(client.call("echo", &json!({"message": "on"})), "on", "the server itself is not disturbed");
    assert_eq!(pid(&client), first);
    let _crashed = client.try_call("nasty_crash", &json!({}));
    eventually("the gateway says what is missing, and what helps", 30, || {
        let said = site.run(&["status", "--detailed"]).all();
        (said.contains("runner") && said.contains("systemctl status mcp-orchestrator-runner")).then_some(())
    });
    eventually("so does the log", 30, || daemon.log().contains("MCPO-G020").then_some(()));
    let _runner = Runner::start(&site);
    let said = eventually("the same session goes on once the runner is back", 40, || {
        client.try_call("echo", &json!({"message": "back"})).ok()
    });
    assert_eq!(said, "back");
    assert_ne!(pid(&client), first);
}

/// Connects as another user, sends a whole request, and prints what came.
const ASK: &str = r#"
import json, socket, struct, sys
request = {"version": 1, "server": "x", "program": "/bin/sh", "args": ["-c", "touch " + sys.argv[2]], "env": {}, "cwd": None}
body = json.dumps(request).encode()
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
try:
    connection.sendall(struct.pack(">I", len(body)) + body)
except OSError:
    pass
print(connection.recv(65536)[4:].decode())
"#;

#[test]
fn nobody_else_may_ask() {
    let site = site("runner-peer");
    let own = rustix::process::geteuid().as_raw();
    // Root may always ask, and be anybody; without root the stranger is this very user.
    let (root, stranger) = (own == 0, if own == 0 { STRANGER } else { own });
    let _runner = if root { Runner::start(&site) } else { Runner::with(&site, &["--allow-user", "0"]) };
    // The file's mode is not what is tested here.
    let open = |path| std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777));
    open(site.path("runner.sock")).and_then(|()| open(site.path(""))).expect("a mode");
    let ask = |user: u32| -> String {
        let mark = site.path(&format!("touched-by-{user}"));
        // Not the tests' own Python: other users cannot see it.
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-c", ASK]).arg(site.path("runner.sock")).arg(&mark);
        if root {
            command.uid(user).gid(user);
        }
        let Output { stdout, stderr, .. } = command.output().expect("python");
        format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr))
    };
    let said = ask(stranger);
    assert!(said.contains("denied") && said.contains(&format!("user {stranger} may not ask")), "{said}");
    assert!(!site.path(&format!("touched-by-{stranger}")).exists());
    assert!(log(&site).contains(&format!("user {stranger} asked for a process and may not")));
    if root {
        let said = ask(own);
        assert!(said.contains("started"), "{said}");
        eventually("it was run", 20, || site.path(&format!("touched-by-{own}")).exists().then_some(()));
    }
}

/// What `status` says of a server: its state and all its words.
fn stands(site: &Site, server: &str) -> (String, String) {
    let status = site.run(&["status", "--json"]).json();
    let row = &status["snapshot"]["report"]["servers"][server];
    (row["state"].as_str().unwrap_or_default().to_owned(), row["reasons"].to_string())
}

#[test]
fn restart_policies_and_orders_by_hand_reach_local_processes() {
    let site = site("runner-policy");
    let _runner = Runner::start(&site);
    let fixture = |after: &str| {
        let script = format!("{} --era legacy{after}", fixture_path());
        json!({"command": "/bin/sh", "args": ["-c", script]})
    };
    let with = |mut entry: Value, restart: Value| {
        entry["orchestrator"] = json!({ "restart": restart });
        entry
    };
    site.write(&json!({
        "again": fixture(""),
        "once": with(fixture("; exit 0"), json!({"policy": "on-failure"})),
        "tired": with(json!({"command": "/bin/false"}), json!({"maxAttempts": 2, "delay": "100ms"})),
    }));
    let daemon = site.daemon();
    let client = At::of(&site, "again").open();

    // By hand: another process, the same session; stopped is stopped.
    let first = pid(&client);
    site.run(&["restart-server", "again"]).exits(0).says("converged");
    assert!(!is_alive(&first), "the old one is gone when the command returns");
    let second = pid(&client);
    assert_ne!(second, first);
    site.run(&["stop-server", "again"]).exits(0).says("stopped");
    eventually("its process ends", 20, || (!is_alive(&second)).then_some(()));
    assert!(client.try_call("echo", &json!({"message": "no"})).is_err());
    site.run(&["start-server", "again"]).exits(0).says("converged");
    assert_eq!(client.call("echo", &json!({"message": "on"})), "on");

    // An end by itself is answered with a restart, and told.
    let third = pid(&client);
    let _crashed = client.try_call("nasty_crash", &json!({"code": 3}));
    eventually("it is back", 20, || client.try_call("echo", &json!({"message": "back"})).ok());
    assert_ne!(pid(&client), third);
    eventually("the end is in the log as an event", 20, || {
        let event = "1c42b168a4b04a35b01ab35fcd7bfd00";
        daemon.log().lines().any(|line| line.contains(event) && line.contains("again")).then_some(())
    });

    // Unless its policy leaves it so; a start by hand starts it.
    let once = At::of(&site, "once").open();
    for order in ["start-server", "restart-server"] {
        let _crashed = once.try_call("nasty_crash", &json!({"code": 3}));
        let (_, why) = eventually("it is left as it is", 20, || {
            Some(stands(&site, "once")).filter(|(state, _)| state == "stopped")
        });
        assert!(why.contains("it exited with code 0 and its restart policy leaves it so"), "{why}");
        site.run(&[order, "once"]).exits(0).says("converged");
        assert_eq!(At::of(&site, "once").open().call("echo", &json!({"message": "on"})), "on", "{order}");
    }

    // One that always ends is given up.
    let (_, why) = eventually("it is given up", 60, || {
        Some(stands(&site, "tired")).filter(|(state, _)| state == "blocked")
    });
    assert!(why.contains("gave up after 2 restarts in a row") && why.contains("MCPO-P041"), "{why}");
    site.run(&["why", "tired"]).exits(0).says("restarts in a row: 2");
    site.run(&["restart-server", "tired"]).exits(1).says("tired");
    eventually("it is given up once more", 60, || (stands(&site, "tired").0 == "blocked").then_some(()));
    assert_eq!(daemon.stop(), 0);
}
