//! Reload over the wire: which generation of the files answers, what a broken file changes (nothing),
//! what waits for a restart, and how much is logged.

use crate::gateway::client::{At, fixture_with};
use crate::gateway::wire::Ask;
use crate::support::{Daemon, Site, eventually, text};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

/// Longest that `systemctl reload` may wait, in seconds: a pass, and a slow machine.
const RELOAD_SECS: u64 = 20;

/// The service manager's end.
struct Systemd(UnixDatagram);

impl Systemd {
    fn of(site: &mut Site) -> Self {
        let path = site.path("notify");
        site.variable("NOTIFY_SOCKET", &path.display().to_string());
        let socket = UnixDatagram::bind(path).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(RELOAD_SECS))).expect("a socket");
        Self(socket)
    }

    /// The next message.
    #[track_caller]
    fn hear(&self) -> String {
        let mut bytes = [0; 8192];
        let length = self.0.recv(&mut bytes).expect("systemd hears something");
        String::from_utf8(bytes[..length].to_vec()).expect("text")
    }

    #[track_caller]
    fn hear_with(&self, word: &str) -> String {
        loop {
            let message = self.hear();
            if message.lines().any(|line| line == word) {
                return message;
            }
        }
    }

    /// `systemctl reload`: all that came until `READY=1`.
    #[track_caller]
    fn reload(&self, daemon: &Daemon) -> String {
        signal(daemon, Signal::HUP);
        let begins = self.hear_with("RELOADING=1");
        let since = begins.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
        assert!(since.is_some_and(|usec| usec.parse::<u64>().is_ok()), "{begins}");
        let mut heard = String::new();
        while !heard.lines().any(|line| line == "READY=1") {
            heard.push_str(&self.hear());
        }
        heard
    }
}

fn signal(daemon: &Daemon, signal: Signal) {
    let pid = i32::try_from(daemon.pid()).ok().and_then(Pid::from_raw).expect("a pid");
    kill_process(pid, signal).expect("a signal");
}

fn settings(site: &Site) -> PathBuf {
    site.path("settings.conf")
}

fn start(site: &Site) -> Daemon {
    let file = settings(site);
    let daemon = site.daemon_of(&mut site.program(&["--settings", &file.display().to_string(), "run"]));
    eventually("the daemon answers", 20, || (site.run(&["status", "--json"]).code != 4).then_some(()));
    daemon
}

/// What `status` says of the files.
fn configuration(site: &Site) -> Value {
    site.status()["configuration"].clone()
}

#[track_caller]
fn generation(site: &Site) -> u64 {
    configuration(site)["generation"].as_u64().expect("a number")
}

/// What the main listener says that it serves.
fn served(site: &Site) -> Option<u64> {
    let body = crate::support::get(site.ports.end - 1, "/readyz")?;
    serde_json::from_str::<Value>(&body).ok()?["generation"].as_u64()
}

fn echo(value: &str) -> Value {
    json!({ "env": fixture_with(&["-e", &format!("ANSWER={value}")], &["--era", "legacy"]) })
}

/// What the process behind the port has in its environment.
fn answer(at: &At) -> Option<String> {
    let client = std::panic::catch_unwind(|| at.open()).ok()?;
    client.try_call("nasty_env", &json!({"name": "ANSWER"})).ok()
}

#[test]
fn a_reload_is_done_when_the_new_generation_answers() {
    let mut site = Site::new("reload");
    std::fs::write(settings(&site), "[logging]\nlevel = INFO\n").expect("a file");
    let systemd = Systemd::of(&mut site);
    site.write(&echo("one"));
    let daemon = start(&site);
    let at = At::of(&site, "env");
    eventually("the first process answers", 30, || (answer(&at)? == "one").then_some(()));
    assert_eq!(served(&site), Some(1));

    site.write(&echo("two"));
    systemd.reload(&daemon);
    assert_eq!((generation(&site), served(&site)), (2, Some(2)), "with READY=1 it is in force");
    let sum = std::process::Command::new("sha256sum").arg(site.config()).output().expect("sha256sum");
    let sum = String::from_utf8(sum.stdout).expect("text");
    assert_eq!(text(&configuration(&site), "/config/sha256"), sum.split(' ').next().unwrap_or_default());
    eventually("the new process answers", 60, || (answer(&at)? == "two").then_some(()));
    assert_eq!(site.port("env"), at.port, "on the same port");

    systemd.reload(&daemon);
    assert_eq!(generation(&site), 2, "the same files are the same generation");
    assert!(daemon.log().contains("reload: nothing changed; generation 2 stays"), "{}", daemon.log());
    assert_eq!(daemon.stop(), 0);
    let daemon = start(&site);
    eventually("it is ready", 20, || served(&site));
    assert_eq!(generation(&site), 2, "and so they are after a restart");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_broken_file_is_refused_as_a_whole_and_mends_by_itself() {
    let mut site = Site::new("refused");
    let good = "[service]\nreconciliation_interval_seconds = 600\n";
    std::fs::write(settings(&site), good).expect("a file");
    let systemd = Systemd::of(&mut site);
    site.write(&echo("one"));
    let daemon = start(&site);
    let at = At::of(&site, "env");
    eventually("the process answers", 30, || (answer(&at)? == "one").then_some(()));

    site.write_text("{\n  \"mcpServers\": {\n    \"env\": nonsense\n}");
    let ready = systemd.reload(&daemon);
    assert!(ready.contains("mcp.config.json refused"), "{ready}");
    site.run(&["status"]).exits(1).says("mcp.config.json:3:12");
    assert_eq!((generation(&site), answer(&at).as_deref()), (1, Some("one")));

    site.write(&echo("two"));
    eventually("the mended file is in force", 30, || (served(&site)? == 2).then_some(()));
    eventually("and answers", 60, || (answer(&at)? == "two").then_some(()));

    let bad = "[service]\nreconciliation_interval_seconds = soon\n[logging]\nlevel = DEBUG\n";
    std::fs::write(settings(&site), bad).expect("a file");
    let ready = systemd.reload(&daemon);
    assert!(ready.contains("settings.conf refused"), "{ready}");
    let place = format!("{}:2:35: error[MCPO-C014]", settings(&site).display());
    site.run(&["status"]).exits(1).says(&place).says("MCPO-R002");
    site.run(&["log-level"]).exits(0).says("INFO");
    assert_eq!(generation(&site), 2, "nothing of it is in force");
    for gone in [false, true] {
        if gone {
            std::fs::remove_file(settings(&site)).expect("a file");
        } else {
            std::fs::write(settings(&site), "").expect("a file");
        }
        systemd.reload(&daemon);
        let why = text(&configuration(&site), "/settings/refused");
        assert!(why.contains(if gone { "No such file" } else { "the file is empty" }), "{why}");
    }
    std::fs::write(settings(&site), good).expect("a file");
    eventually("the mended settings are taken by themselves", 30, || {
        configuration(&site)["settings"]["refused"].is_null().then_some(())
    });
    eventually("all is well", 60, || (site.run(&["status"]).code == 0).then_some(()));
    assert_eq!(daemon.log().matches("settings are refused").count(), 3, "each once: {}", daemon.log());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn settings_apply_at_once_or_are_named() {
    let mut site = Site::new("applied");
    let tokens = site.path("tokens");
    let bearer = format!("[gateway]\nauth = bearer\ntokens_file = {}\n", tokens.display());
    std::fs::write(settings(&site), "[gateway]\nauth = none\n").expect("a file");
    std::fs::write(&tokens, "ci:first\n").expect("a file");
    let systemd = Systemd::of(&mut site);
    site.write(&echo("one"));
    let daemon = start(&site);
    let at = At::of(&site, "env");
    let status = |auth: Option<&str>| {
        let at = auth.map_or_else(|| at.clone(), |auth| at.authorized(auth));
        at.dress(Ask::post(&at.path, r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#)).send(at.port).status
    };
    eventually("it is open", 30, || (status(None) != 401).then_some(()));
    std::fs::write(settings(&site), &bearer).expect("a file");
    systemd.reload(&daemon);
    assert_eq!(status(None), 401, "tokens are asked for from now on");
    assert_ne!(status(Some("Bearer first")), 401);
    std::fs::write(&tokens, "ci:second\n").expect("a file");
    systemd.reload(&daemon);
    assert_eq!((status(Some("Bearer first")), generation(&site)), (401, 3), "new tokens are a generation");
    assert_ne!(status(Some("Bearer second")), 401);
    std::fs::write(&tokens, "\n").expect("a file");
    systemd.reload(&daemon);
    assert_ne!(status(Some("Bearer second")), 401, "tokens that cannot be used change nothing");
    site.run(&["status"]).exits(1).says("MCPO-R002").says("tokens");
    std::fs::write(&tokens, "ci:second\n").expect("a file");

    let port = site.fixed_port();
    std::fs::write(settings(&site), format!("{bearer}port = {port}\n[logging]\nlevel = DEBUG\n"))
        .expect("a file");
    for _ in 0..2 {
        systemd.reload(&daemon);
    }
    site.run(&["log-level"]).exits(0).says("DEBUG");
    site.run(&["status"]).says("changed only by a restart: gateway.port [MCPO-R001]");
    assert_eq!(configuration(&site)["needsRestart"], json!(["gateway.port"]));
    let said = daemon.log().matches("gateway.port changes only with a restart\"").count();
    assert_eq!(said, 2, "once, as text and as reason: {}", daemon.log());
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    assert_eq!(daemon.stop(), 0);
    let daemon = start(&site);
    eventually("the restart opened it", 20, || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    assert_eq!(configuration(&site)["needsRestart"], json!([]));
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn the_log_level_changes_while_it_runs() {
    let site = Site::new("level");
    site.write(&json!({}));
    std::fs::write(settings(&site), "").expect("a file");
    let daemon = start(&site);
    let level = |expected: &str| {
        eventually("the level", 20, || site.run(&["log-level"]).out.trim().eq(expected).then_some(()));
    };
    level("INFO");
    assert!(!daemon.log().contains("\"DEBUG\""), "{}", daemon.log());
    site.run(&["log-level", "debug"]).exits(0).says("DEBUG until reset, settings say INFO");
    site.run(&["sync"]).exits(0);
    assert!(daemon.log().contains("\"level\":\"DEBUG\""), "{}", daemon.log());
    site.run(&["log-level", "DEBG"]).exits(2).says("did you mean DEBUG?");
    site.run(&["log-level", "a[b=debug"]).exits(1).says("MCPO-H005");
    let view = site.run(&["log-level", "reset", "--json"]).exits(0).json();
    assert_eq!((view["level"].as_str(), view["configured"].as_str()), (Some("INFO"), Some("INFO")));
    site.run(&["log-level", "info,access=debug", "--for", "2s"]).exits(0).says("then INFO");
    level("INFO");
    signal(&daemon, Signal::USR1);
    level("DEBUG until reset, settings say INFO");
    signal(&daemon, Signal::USR2);
    level("INFO");
    assert_eq!(daemon.stop(), 0);
}
