//! Planted secrets: they reach the container's environment and nothing else that we write.

use crate::support::{Site, broken, docker_run, eventually, files_below, image, inspect, runs, stdio};
use serde_json::{Value, json};

/// Values that must be seen nowhere.
const LITERAL: &str = "planted-literal-7f3a";
const FLAG: &str = "planted-flag-91cc";
const VARIABLE: &str = "planted-variable-5e0d";
const FILE: &str = "planted-file-c2b8";
const ARGUMENT: &str = "planted-argument-44aa";
const ALL: [&str; 5] = [LITERAL, FLAG, VARIABLE, FILE, ARGUMENT];

/// Fails the test when one of the secrets is in `text`.
#[track_caller]
fn nothing_in(what: &str, text: &str) {
    for secret in ALL {
        assert!(!text.contains(secret), "{secret} is in {what}: {text}");
    }
}

/// The command lines of all processes that are not of a container.
fn processes() -> String {
    let mut all = String::new();
    for entry in std::fs::read_dir("/proc").expect("processes").flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        // The server itself is started with what its entry says.
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if !line.contains("demo-server") {
            all.push_str(&line);
            all.push('\n');
        }
    }
    all
}

fn servers(site: &Site, more: &str) -> Value {
    let (image, flag) = (image(), format!("FLAG={FLAG}{more}"));
    let mut first = stdio(&["-e", &flag]);
    first["env"] = json!({
        "LITERAL": LITERAL,
        "VARIABLE": "${env:PLANTED}",
        "FILE": format!("${{file:{}}}", site.path("secret.txt").display()),
    });
    let mut bad = broken(&["-i"]);
    bad["env"] = json!({ "LITERAL": LITERAL, "VARIABLE": "${PLANTED}" });
    // An argument of the server and a bad one, whose errors must not repeat them.
    let mut unset = stdio(&[]);
    unset["env"] = json!({ "A": LITERAL, "B": "${NOT_SET_ANYWHERE}" });
    let argument = docker_run(&["-i", "-e", &format!("X={ARGUMENT}"), &image]);
    json!({ "first": first, "bad": bad, "unset": unset, "argument": argument })
}

#[test]
fn planted_secrets_are_nowhere_but_in_the_container() {
    let mut site = Site::new("planted");
    site.variable("PLANTED", VARIABLE);
    site.setting("LOGGING__LEVEL", "DEBUG");
    std::fs::write(site.path("secret.txt"), format!("{FILE}\n")).expect("a file");
    site.write(&servers(&site, ""));

    for args in [&["validate"][..], &["validate", "--json"], &["plan"], &["plan", "--json"], &["--one-shot"]]
    {
        nothing_in(&args.join(" "), &site.run(args).all());
    }
    let env = site.running("first").pointer("/Config/Env").map(Value::to_string).unwrap_or_default();
    for secret in [LITERAL, FLAG, VARIABLE, FILE] {
        assert!(env.contains(secret), "{secret} reached the container: {env}");
    }

    let daemon = site.daemon_of(site.program(&["--log-level", "DEBUG", "run"]).env("RUST_BACKTRACE", "1"));
    eventually("the daemon answers", 20, || (site.run(&["status"]).code != 4).then_some(()));
    // A replacement, too, and a crash loop.
    site.write(&servers(&site, "-2"));
    site.run(&["sync"]);
    eventually("it was replaced", 20, || {
        let now = site.container("first").filter(runs)?;
        now.pointer("/Config/Env")?.to_string().contains(&format!("{FLAG}-2")).then_some(())
    });
    nothing_in("the process list", &processes());
    for args in [
        &["plan"][..],
        &["plan", "--json"],
        &["status", "--detailed"],
        &["status", "--json"],
        &["why", "first"],
        &["why", "bad", "--json"],
        &["why", "unset"],
        &["list-servers", "--json"],
        &["ports", "--json"],
        &["restart-server", "first"],
        &["call", "argument", "no-such-tool"],
        &["sync", "--json"],
    ] {
        nothing_in(&args.join(" "), &site.run(args).all());
    }
    let log = daemon.log();
    assert!(log.contains("DEBUG"), "the log is at DEBUG: {log}");
    nothing_in("the daemon's log", &log);
    assert_eq!(daemon.stop(), 0);
    for name in site.names() {
        let container = inspect(&site.name(&name)).expect("a container");
        nothing_in("labels", &container["Config"]["Labels"].to_string());
        nothing_in("the name", &container["Name"].to_string());
    }
    for dir in [site.path("state"), site.path("run"), site.path("home")] {
        for (path, content) in files_below(&dir) {
            nothing_in(&path.display().to_string(), &String::from_utf8_lossy(&content));
        }
    }
}
