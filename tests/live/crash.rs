//! Death: of containers, of the daemon, of a one-shot run at any moment. What comes after must
//! find everything again, lose nothing and make nothing twice.

use crate::proxy::{Death, Proxy};
use crate::support::{
    PORT, SERVER, Site, broken, engine, eventually, get, http, inspect, label, long, runs, stdio, text,
    unix_now, volume_exists, volumes,
};
use mcp_orchestrator::daemon::message;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Longest from a container's death to its next start; the promise is far shorter, and measured in `benches/`.
const RESTART_WITHIN: Duration = Duration::from_secs(5);
/// Moments of death that are tried without `MCPO_LONG=1`, for each of the two ways to die.
const SAMPLES: usize = 4;

#[test]
fn a_container_that_dies_is_started_again_at_once() {
    let site = Site::new("death");
    site.write(&json!({ "time": stdio(&[]), "web": http(&["-p", "8000"]) }));
    let daemon = site.daemon();
    site.run(&["sync"]).exits(0);
    for server in ["time", "web"] {
        let before = site.running(server);
        let id = text(&before, "/Id");
        let (begin, since) = (Instant::now(), unix_now());
        assert_eq!(engine("POST", &format!("/containers/{id}/kill"), &Value::Null).0, 204);
        let after = eventually("it runs again", 20, || {
            let now = site.container(server).filter(runs)?;
            (text(&now, "/State/StartedAt") != text(&before, "/State/StartedAt")).then_some(now)
        });
        let took = begin.elapsed();
        let events = site.events(since);
        let mut later = events.iter().skip_while(|event| event.0 != "die" || event.1 != id);
        let died = later.next().map_or(0, |event| event.2);
        let started = later.find(|event| event.0 == "start" && event.1 == id).map_or(0, |event| event.2);
        let between = (started - died) / 1_000_000;
        println!(
            "{server}: seen running {} ms after the kill; {between} ms from death to start by the engine",
            took.as_millis()
        );
        assert_eq!(text(&after, "/Id"), id, "the same container");
        assert_eq!(label(&after, PORT), label(&before, PORT));
        assert!(took < RESTART_WITHIN, "{took:?}");
    }
    site.run(&["sync"]).exits(0);
    drop(daemon);
}

#[test]
fn a_container_that_dies_again_and_again_backs_off_and_why_names_the_next_try() {
    let site = Site::new("loop");
    site.write(&json!({ "bad": broken(&["-i"]), "good": stdio(&[]) }));
    let since = unix_now();
    let daemon = site.daemon();
    let row = eventually("it was restarted often enough", 40, || {
        let row = site.row("bad");
        (row["restarts"].as_u64() >= Some(4) && row["nextTry"].is_i64()).then_some(row)
    });
    assert_eq!(row["state"], "waiting", "{row}");
    let starts: Vec<i64> = site
        .events(since)
        .iter()
        .filter(|event| event.0 == "start" && event.2 > 0)
        .filter(|event| inspect(&event.1).is_some_and(|container| label(&container, SERVER) == "bad"))
        .map(|event| event.2)
        .collect();
    let gaps: Vec<i64> = starts.windows(2).map(|pair| (pair[1] - pair[0]) / 1_000_000).collect();
    assert!(gaps.len() >= 4, "{gaps:?}");
    // The first restart at once, then 1 s, 2 s, 4 s; never sooner.
    for (gap, least) in gaps.iter().zip([0, 900, 1900, 3900]) {
        assert!(*gap >= least, "milliseconds between starts: {gaps:?}");
    }
    let why = site.run(&["why", "bad"]).exits(0).says("MCPO-P042").says("exit code 2");
    assert!(why.all().contains("restart 5") && why.all().contains("(in "), "{}", why.out);
    assert!(runs(&site.running("good")));
    assert_eq!(site.run(&["status"]).code, 1);
    // What an alert would ask for: the kind of event, the server, its container.
    let ids: BTreeSet<String> = site.events(since).into_iter().map(|event| event.1).collect();
    let log = daemon.log();
    let entries = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let alerts: Vec<Value> = entries
        .map(|entry| entry["fields"].clone())
        .filter(|fields| fields["MESSAGE_ID"] == message::SERVER_ENDS.id && fields["MCP_SERVER"] == "bad")
        .collect();
    assert!(!alerts.is_empty(), "{log}");
    assert!(alerts.iter().any(|alert| ids.contains(&text(alert, "/CONTAINER_ID"))), "{alerts:?}");
    // The wait outlives the daemon.
    assert_eq!(daemon.stop(), 0);
    let daemon = site.daemon();
    let row = site.row("bad");
    assert!(row["restarts"].as_u64() >= Some(4), "{row}");
    drop(daemon);
}

#[test]
fn a_second_daemon_is_refused_and_a_one_shot_asks_the_first() {
    let site = Site::new("second");
    site.write(&json!({ "time": stdio(&[]) }));
    let mut daemon = site.daemon();
    site.run(&["sync"]).exits(0);
    let time = site.id("time");
    site.run(&["run"]).exits(1).says(&daemon.pid().to_string());
    site.write(&json!({ "time": stdio(&[]), "echo": stdio(&[]) }));
    eventually("the daemon saw the file", 10, || site.row("echo").is_object().then_some(()));
    site.one_shot().exits(0).says("asking it to sync").says("2 of 2 servers converged");
    assert_eq!(time, site.id("time"));
    assert!(runs(&site.running("echo")));
    assert!(daemon.alive(), "{}", daemon.log());
}

#[test]
fn two_addresses_of_one_engine_are_one_engine() {
    let mut site = Site::new("addresses");
    site.write(&json!({ "time": stdio(&[]) }));
    let mut daemon = site.daemon();
    site.run(&["sync"]).exits(0);
    let time = site.id("time");
    // As /run/docker.sock and /var/run/docker.sock are.
    let other = site.path("other.sock");
    std::os::unix::fs::symlink(crate::support::engine_socket(), &other).expect("a link");
    site.setting("SERVICE__DOCKER_HOST", &format!("unix://{}", other.display()));
    site.run(&["run"]).exits(1).says(&daemon.pid().to_string());
    site.one_shot().exits(0).says("asking it to sync").says("1 of 1 server converged");
    site.run(&["status"]).exits(0);
    assert_eq!(time, site.id("time"));
    assert!(daemon.alive(), "{}", daemon.log());
}

#[test]
fn a_one_shot_beside_a_daemon_uses_the_file_as_it_is_now() {
    let site = Site::new("fresh");
    site.write(&json!({ "time": stdio(&[]) }));
    let daemon = site.daemon();
    site.run(&["sync"]).exits(0);
    site.write(&json!({ "time": stdio(&[]), "echo": stdio(&[]) }));
    site.one_shot().exits(0).says("2 of 2 servers converged");
    assert!(runs(&site.running("echo")));
    drop(daemon);
}

#[test]
fn a_stdio_container_outlives_the_daemon_and_answers_before_and_after() {
    let site = Site::new("outlive");
    site.write(&json!({ "time": stdio(&[]) }));
    let daemon = site.daemon();
    site.run(&["sync"]).exits(0);
    let before = site.running("time");
    let call = |words: &str| {
        let arguments = json!({ "text": words }).to_string();
        site.run(&["call", "time", "echo", &arguments]).exits(0).says(words);
    };
    call("before");
    assert_eq!(daemon.stop(), 0);
    let daemon = site.daemon();
    site.run(&["sync"]).exits(0);
    call("after a restart");
    daemon.kill();
    let daemon = site.daemon();
    site.run(&["sync"]).exits(0);
    call("after a kill");
    let after = site.running("time");
    for pointer in ["/Id", "/State/StartedAt"] {
        assert_eq!(text(&before, pointer), text(&after, pointer));
    }
    drop(daemon);
}

/// From three servers to three others: one is replaced start-first, one stop-first with its volume
/// and port, one goes, one comes, one stays.
struct Change<'a> {
    site: &'a Site,
    volume: String,
    port: u16,
    stays: String,
    gone_volume: String,
}

impl<'a> Change<'a> {
    /// The state before, freshly made.
    fn begin(site: &'a Site) -> Self {
        site.write(&json!({
            "edge": stdio(&["-e", "A=1"]),
            "web": http(&["-p", "8000", "-v", "/data", "-e", "A=1"]),
            "goes": stdio(&["--rm", "-v", "/data"]),
            "stays": stdio(&[]),
        }));
        site.one_shot().exits(0);
        let volume = |server: &str| volumes(&site.running(server)).get("/data").cloned().expect("a volume");
        let change = Self {
            site,
            volume: volume("web"),
            port: site.port("web"),
            stays: site.id("stays"),
            gone_volume: volume("goes"),
        };
        site.write(&json!({
            "edge": stdio(&["-e", "A=2"]),
            "web": http(&["-p", "8000", "-v", "/data", "-e", "A=2"]),
            "stays": stdio(&[]),
            "comes": stdio(&[]),
        }));
        change
    }

    /// The next run finds everything as it should be.
    fn must_have_ended_well(&self, when: &str) {
        let Self { site, volume, port, stays, gone_volume } = self;
        let done = site.one_shot();
        assert_eq!(done.code, 0, "{when}: {}", done.all());
        let names: BTreeSet<String> = ["edge", "web", "stays", "comes"].map(str::to_owned).into();
        assert_eq!(site.names(), names, "{when}: no orphan, no double");
        for server in ["edge", "web"] {
            let env = site.running(server).pointer("/Config/Env").cloned().unwrap_or_default();
            assert!(
                env.as_array().is_some_and(|env| env.contains(&json!("A=2"))),
                "{when}: {server} has {env}"
            );
        }
        let web = site.running("web");
        assert_eq!(volumes(&web).get("/data"), Some(volume), "{when}: the volume moved along");
        assert_eq!(&site.port("web"), port, "{when}");
        assert_eq!(get(*port, "/health").as_deref(), Some("ok\n"), "{when}");
        assert_eq!(&site.id("stays"), stays, "{when}");
        assert!(runs(&site.running("comes")), "{when}");
        assert!(!volume_exists(gone_volume), "{when}: the volume of what went, with --rm, is gone");
        let mut ports: BTreeMap<u16, usize> = BTreeMap::new();
        for server in ["edge", "web", "stays", "comes"] {
            *ports.entry(site.port(server)).or_default() += 1;
        }
        assert_eq!(ports.len(), 4, "{when}: a port of its own for each: {ports:?}");
        assert_eq!(site.run(&["plan", "--exit-code"]).code, 0, "{when}: nothing is left to do");
    }
}

/// Runs the program behind a proxy until it ends; what it asked for.
fn run_behind(site: &mut Site, args: &[&str], death: Death) -> Vec<String> {
    let socket = site.path("proxy.sock");
    let proxy = Proxy::start(&socket, death);
    site.setting("SERVICE__DOCKER_HOST", &format!("unix://{}", socket.display()));
    let mut command = site.program(args);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    proxy.victim(command.spawn().expect("the program"));
    // A daemon that was not killed has done its work when all is well.
    let well = |site: &Site| args == ["run"] && site.run(&["status"]).code == 0;
    eventually("the program ends", 90, || (proxy.ended() || well(site)).then_some(()));
    proxy.end();
    site.setting("SERVICE__DOCKER_HOST", &format!("unix://{}", crate::support::engine_socket().display()));
    proxy.requests()
}

/// Moments to die at: all of them, or some from begin to end.
fn moments(count: usize) -> Vec<usize> {
    if long() {
        return (1..=count).collect();
    }
    // Other moments in every run: over time all are tried; the number is in the failure's words.
    let offset = usize::try_from(unix_now()).unwrap_or(0) % count.div_ceil(SAMPLES).max(1);
    (0..SAMPLES).map(|sample| (sample * count / SAMPLES + offset + 1).min(count)).collect()
}

fn die_at_every_moment(name: &str, args: &[&str], after: bool) {
    let count = {
        let mut site = Site::new(name);
        let change = Change::begin(&site);
        let Change { volume, port, stays, gone_volume, .. } = change;
        let requests = run_behind(&mut site, args, Death::Never);
        let change = Change { site: &site, volume, port, stays, gone_volume };
        change.must_have_ended_well("after a run in peace");
        requests.len()
    };
    println!("{count} requests to the engine");
    assert!(count > 15, "{count} requests");
    for moment in moments(count) {
        let death = if after { Death::After(moment) } else { Death::Before(moment) };
        let mut site = Site::new(name);
        let Change { volume, port, stays, gone_volume, .. } = Change::begin(&site);
        let requests = run_behind(&mut site, args, death);
        let when = format!("{death:?} of {count}, {}", requests.last().map_or("", String::as_str));
        Change { site: &site, volume, port, stays, gone_volume }.must_have_ended_well(&when);
    }
}

#[test]
fn a_one_shot_killed_before_any_request_leaves_nothing_that_the_next_does_not_mend() {
    die_at_every_moment("before", &["--one-shot"], false);
}

#[test]
fn a_one_shot_killed_before_any_answer_leaves_nothing_that_the_next_does_not_mend() {
    die_at_every_moment("answer", &["--one-shot"], true);
}

#[test]
fn a_daemon_killed_before_any_request_leaves_nothing_that_the_next_pass_does_not_mend() {
    die_at_every_moment("daemon", &["run"], false);
}

#[test]
fn a_container_that_was_made_but_never_named_is_not_made_twice() {
    let mut site = Site::new("fresh-start");
    site.write(&json!({ "a": stdio(&[]), "b": http(&["-p", "8000"]) }));
    let requests = run_behind(&mut site, &["--one-shot"], Death::Never);
    let creates: Vec<usize> = requests
        .iter()
        .enumerate()
        .filter(|(_, line)| line.contains("/containers/create"))
        .map(|(at, _)| at + 1)
        .collect();
    assert_eq!(creates.len(), 2, "{requests:?}");
    drop(site);
    for create in creates {
        let mut site = Site::new("fresh-start");
        site.write(&json!({ "a": stdio(&[]), "b": http(&["-p", "8000"]) }));
        run_behind(&mut site, &["--one-shot"], Death::After(create));
        site.one_shot().exits(0);
        assert_eq!(site.names(), ["a", "b"].map(str::to_owned).into(), "no double");
        assert_ne!(site.port("a"), site.port("b"));
        site.nothing_to_do();
    }
}
