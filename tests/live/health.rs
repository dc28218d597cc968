//! Health of containers on a real engine: every state, what the balancer's path answers meanwhile, the
//! page of an HTTP server, thresholds and periods, hung ones restarted, and those killed for memory.

use crate::gateway::client::{At, fixture_image, fixture_with};
use crate::support::{Daemon, Site, docker_run, engine, eventually, runs, text};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// An entry with keys of ours.
fn own(mut entry: Value, keys: &Value) -> Value {
    entry["orchestrator"] = keys.clone();
    entry
}

/// Asked every second, restarted late unless these keys say otherwise.
fn health(keys: &[(&str, Value)]) -> Value {
    let mut health = json!({ "interval": "1s", "timeout": "2s", "startPeriod": "120s" });
    for (key, value) in keys {
        health[key] = value.clone();
    }
    json!({ "health": health })
}

/// The fixture over stdio, as process 1 of its container, so that signals reach it.
fn stdio(args: &[&str]) -> Value {
    fixture_with(&["--init=false"], args)
}

/// The fixture over HTTP, published.
fn http() -> Value {
    let image = fixture_image();
    docker_run(&["-p", "8000", &image, "--http", "8000", "--host", "0.0.0.0", "--any-host"])
}

/// A server's row in `health --json`.
fn row(site: &Site, server: &str) -> Value {
    let shown = site.run(&["health", "--server", server, "--json"]);
    serde_json::from_str::<Value>(&shown.out).map(|all| all["servers"][0].clone()).unwrap_or_default()
}

/// Waits for a state; its row.
#[track_caller]
fn becomes(site: &Site, server: &str, state: &str) -> Value {
    eventually(&format!("{server} is {state}"), 60, || {
        let row = row(site, server);
        (row["health"] == state).then_some(row)
    })
}

/// Says that it is over, however a test ends.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a probe of this port and path is answered.
fn probe(port: u16, path: &str) -> u16 {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status")
}

/// What the balancer is told of a server, at its own port and on the main listener.
fn told(site: &Site, server: &str) -> [u16; 2] {
    let own = At::of(site, server).port;
    [probe(own, "/healthz"), probe(site.main_port(), &format!("/healthz/{server}"))]
}

/// A signal to the first process of a server's container.
#[track_caller]
fn signal(site: &Site, server: &str, signal: &str) {
    let path = format!("/containers/{}/kill?signal={signal}", site.id(server));
    assert_eq!(engine("POST", &path, &Value::Null).0, 204);
}

fn started(site: &Site, server: &str) -> String {
    text(&site.running(server), "/State/StartedAt")
}

fn site(name: &str, servers: &Value) -> (Site, Daemon) {
    let site = Site::new(name);
    site.write(servers);
    let daemon = site.daemon();
    (site, daemon)
}

#[test]
fn every_state_is_told_of_its_own_server_alone() {
    let late = ["--startup-delay", "6000"];
    let servers = json!({
        "well": own(stdio(&[]), &health(&[])),
        "slow": own(stdio(&[]), &health(&[("timeout", json!("8s"))])),
        "late": own(stdio(&late), &health(&[])),
        "gone": own(fixture_with(&[], &["--startup-delay", "nonsense"]), &json!({ "restart": { "delay": "90s", "maxDelay": "90s" } })),
    });
    let (site, _daemon) = site("health-states", &servers);
    becomes(&site, "late", "starting");
    assert_eq!(told(&site, "late"), [503, 503]);
    becomes(&site, "well", "healthy");
    becomes(&site, "late", "healthy");
    becomes(&site, "slow", "healthy");
    becomes(&site, "gone", "critical");
    for (server, status) in [("well", 200), ("slow", 200), ("late", 200), ("gone", 503)] {
        assert_eq!(told(&site, server), [status; 2], "{server}");
    }
    let (over, busy) = (AtomicBool::new(false), At::of(&site, "slow").open());
    let (id, since) = (site.id("slow"), started(&site, "slow"));
    std::thread::scope(|scope| {
        let _ends = Ends(&over);
        // It hardly reads any more: whatever it is asked waits for a second or two.
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                busy.call("nasty_stop_reading", &json!({ "ms": 1200 }));
            }
        });
        let seen = becomes(&site, "slow", "degraded");
        assert!(
            seen["latencyMillis"].as_u64() > seen["usualMillis"].as_u64().map(|usual| 4 * usual),
            "{seen}"
        );
        assert_eq!(told(&site, "slow"), [200; 2], "it goes on serving");
    });
    becomes(&site, "slow", "healthy");
    assert_eq!((site.id("slow"), started(&site, "slow")), (id, since), "and nothing is done about it");
    assert_eq!(site.run(&["health"]).code, 1);
}

#[test]
fn a_hung_container_is_unhealthy_by_its_thresholds_and_well_again_by_itself() {
    let keys = health(&[("failureThreshold", json!(4)), ("recoveryThreshold", json!(4))]);
    let (site, _daemon) =
        site("health-hung", &json!({ "a": own(stdio(&[]), &keys), "b": own(stdio(&[]), &keys) }));
    for server in ["a", "b"] {
        becomes(&site, server, "healthy");
    }
    let (id, since) = (site.id("b"), started(&site, "b"));
    signal(&site, "b", "STOP");
    let seen = becomes(&site, "b", "unhealthy");
    assert_eq!(seen["failures"], 4, "{seen}");
    assert!(seen["why"].as_str().is_some_and(|why| why.contains("no answer to ping")), "{seen}");
    assert_eq!((told(&site, "a"), told(&site, "b")), ([200; 2], [503; 2]));
    site.run(&["why", "b"]).says("MCPO-P043").says("a restart, try 1 of 5");
    let (went_on, _) = (Instant::now(), signal(&site, "b", "CONT"));
    becomes(&site, "b", "healthy");
    // Four answers, a second from one question to the next; the first may have been put before.
    assert!(went_on.elapsed() >= Duration::from_millis(1_900), "{:?}", went_on.elapsed());
    assert_eq!((site.id("b"), started(&site, "b")), (id, since), "nobody restarted it");
    assert_eq!(told(&site, "b"), [200; 2]);
}

#[test]
fn a_container_that_goes_on_hanging_is_restarted_and_the_others_are_not() {
    let keys = health(&[("startPeriod", json!("1s"))]);
    let (site, _daemon) =
        site("health-restart", &json!({ "a": own(stdio(&[]), &keys), "b": own(stdio(&[]), &keys) }));
    for server in ["a", "b"] {
        becomes(&site, server, "healthy");
    }
    let (id, since, other) = (site.id("b"), started(&site, "b"), started(&site, "a"));
    signal(&site, "b", "STOP");
    becomes(&site, "b", "unhealthy");
    eventually("it was started again", 60, || {
        let now = site.container("b").filter(runs)?;
        (text(&now, "/State/StartedAt") != since).then_some(())
    });
    becomes(&site, "b", "healthy");
    assert_eq!(site.id("b"), id, "a restart comes before a new container");
    assert_eq!(started(&site, "a"), other);
    site.run(&["audit", "--server", "b", "--json"]).says("it does not answer: no answer to ping");
    assert_eq!(At::of(&site, "b").open().call("echo", &json!({ "message": "back" })), "back");
}

#[test]
fn the_page_of_an_http_server_counts_where_it_is_asked_for() {
    let page = |path: &str| own(http(), &health(&[("path", json!(path)), ("startPeriod", json!("1s"))]));
    let mut wrong = page("/no-such-page");
    wrong["orchestrator"]["restart"] = json!({ "policy": "never" });
    let (site, _daemon) = site("health-page", &json!({ "right": page("/health"), "wrong": wrong }));
    becomes(&site, "right", "healthy");
    let seen = becomes(&site, "wrong", "unhealthy");
    assert!(
        seen["why"].as_str().is_some_and(|why| why.contains("/no-such-page answers HTTP status 4")),
        "{seen}"
    );
    let main = |server: &str| probe(site.main_port(), &format!("/healthz/{server}"));
    assert_eq!((main("right"), main("wrong")), (200, 503));
}

#[test]
fn the_images_own_check_counts() {
    let check = ["--health-cmd", "/no-such-program", "--health-interval", "1s", "--health-retries", "1"];
    let mut sick = own(fixture_with(&check, &[]), &health(&[("startPeriod", json!("1s"))]));
    sick["orchestrator"]["restart"] = json!({ "policy": "never" });
    let (site, _daemon) = site("health-own", &json!({ "sick": sick, "well": own(stdio(&[]), &health(&[])) }));
    becomes(&site, "well", "healthy");
    let seen = becomes(&site, "sick", "unhealthy");
    assert!(seen["why"].as_str().is_some_and(|why| why.contains("own health check fails")), "{seen}");
    assert_eq!(told(&site, "sick"), [503; 2]);
}

/// Needs an engine that enforces limits: that the kernel killed it is the engine's own word, and an
/// engine that let it live fails this test.
#[test]
fn a_container_killed_for_memory_is_told_apart_with_advice() {
    let (_, info) = engine("GET", "/info", &Value::Null);
    assert_eq!(
        info["MemoryLimit"], true,
        "this engine has no memory limits (cgroup version {}): out of memory cannot be shown on it; enable the memory controller",
        info["CgroupVersion"]
    );
    let flags = ["--memory", "24m", "--memory-swap", "24m"];
    let keys = json!({ "restart": { "delay": "20s", "maxDelay": "20s" } });
    let hungry = own(fixture_with(&flags, &[]), &keys);
    let (site, daemon) =
        site("health-memory", &json!({ "hungry": hungry, "well": own(stdio(&[]), &health(&[])) }));
    for server in ["hungry", "well"] {
        becomes(&site, server, "healthy");
    }
    let eat = || {
        let answer = At::of(&site, "hungry").open().try_call("nasty_big", &json!({ "bytes": 300_000_000 }));
        assert!(
            answer.is_err(),
            "this engine does not enforce memory limits (cgroup version {}, driver {}): 300 MB were used within 24 MiB",
            info["CgroupVersion"],
            info["CgroupDriver"]
        );
    };
    // The first restart comes at once.
    let (id, since) = (site.id("hungry"), started(&site, "hungry"));
    eat();
    eventually("it was started again", 60, || {
        let now = site.container("hungry").filter(runs)?;
        (text(&now, "/State/StartedAt") != since).then_some(())
    });
    becomes(&site, "hungry", "healthy");
    eat();
    let ended = eventually("it ended again", 60, || site.container("hungry").filter(|now| !runs(now)));
    assert_eq!(
        (&ended["State"]["OOMKilled"], &ended["State"]["ExitCode"]),
        (&json!(true), &json!(137)),
        "{ended}"
    );
    assert_eq!(text(&ended, "/Id"), id);
    for words in ["it was killed for memory (exit code 137)", "which is 24 MiB, for example to 36m"] {
        eventually("why says so", 20, || site.run(&["why", "hungry"]).all().contains(words).then_some(()));
    }
    let told = site.run(&["why", "hungry"]).all();
    assert_eq!(told.matches(" ago: it was killed for memory (exit code 137)").count(), 2, "{told}");
    let view = site.run(&["status", "--json"]).json();
    let reasons = view["snapshot"]["report"]["servers"]["hungry"]["reasons"].to_string();
    assert!(reasons.contains("killed for memory") && reasons.contains("MCPO-P045"), "{reasons}");
    let found = site.run(&["doctor", "--json"]).json();
    let check = found["checks"].as_array().expect("checks").iter().find(|check| check["topic"] == "memory");
    let check = check.cloned().unwrap_or_default();
    assert_eq!(check["verdict"], "fail", "{found}");
    assert!(check["evidence"].as_str().is_some_and(|said| said.contains("24 MiB")), "{check}");
    assert_eq!(row(&site, "well")["health"], "healthy");
    // It is told when it runs again, and by the next daemon.
    drop(daemon);
    let _daemon = site.daemon();
    becomes(&site, "hungry", "healthy");
    let told = site.run(&["why", "hungry"]).all();
    assert_eq!(told.matches(" ago: it was killed for memory (exit code 137)").count(), 2, "{told}");
    assert!(told.contains("it was killed for memory lately, 2 times in a row; raise"), "{told}");
}
