//! Servers that start, end, crash and change under their clients.

use crate::gateway::client::{At, Client, LEGACY, QUIET, fixture, fixture_image, fixture_path, fixture_with};
use crate::gateway::wire::Ask;
use crate::support::{Site, docker_run, engine, eventually, inspect, runs, text};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A call that runs when its server dies is answered within this time.
const ERROR_WITHIN: Duration = Duration::from_secs(1);

/// The longest call takes 0.4 s; the rest is the machine's load and must not be a wait for something.
const CALL_WITHIN: Duration = Duration::from_secs(8);

/// Names of clients' own containers of a server.
fn legs(site: &Site, server: &str) -> BTreeSet<String> {
    let prefix = format!("{server}-L");
    site.names().into_iter().filter(|name| name.starts_with(&prefix)).collect()
}

#[test]
fn r19_a_crash_fails_what_runs_at_once_and_sessions_go_on() {
    let site = Site::new("gw-crash");
    site.write(&json!({ "old": fixture(&["--era", "legacy"]), "new": fixture(&["--era", "modern"]) }));
    let _daemon = site.daemon();
    for server in ["old", "new"] {
        let at = At::of(&site, server);
        let (client, waiting) = (at.open(), at.open());
        let stream = waiting.listen();
        let (id, began) = (site.id(server), text(&site.running(server), "/State/StartedAt"));
        std::thread::scope(|scope| {
            let hung = scope.spawn(|| (waiting.try_call("nasty_hang", &json!({})), Instant::now()));
            std::thread::sleep(Duration::from_millis(200));
            let begin = Instant::now();
            let crashed = client.try_call("nasty_crash", &json!({"ms": 300, "half": true}));
            assert!(crashed.as_ref().is_err_and(|answer| answer.contains("-32603")), "{crashed:?}");
            assert!(begin.elapsed() < ERROR_WITHIN + Duration::from_millis(300), "{:?}", begin.elapsed());
            let (hung, at) = hung.join().expect("a call");
            assert!(hung.as_ref().is_err_and(|answer| answer.contains("-32603")), "{hung:?}");
            assert!(at - begin < ERROR_WITHIN + Duration::from_millis(300), "{:?}", at - begin);
        });
        // What comes now waits until it is back.
        assert_eq!(client.call("echo", &json!({"message": "back"})), "back", "{server}");
        assert_eq!(waiting.call("echo", &json!({"message": "me too"})), "me too", "{server}");
        assert_eq!(site.id(server), id, "the same container");
        assert_ne!(text(&site.running(server), "/State/StartedAt"), began);
        let heard = stream.try_message(Duration::from_secs(5)).expect("news");
        assert!(heard["method"].as_str().is_some_and(|name| name.ends_with("/list_changed")), "{heard}");
        eventually("healthy again", 10, || {
            (Ask::new("GET", "/healthz").send(at.port).status == 200).then_some(())
        });
    }
}

#[test]
fn r19_what_was_subscribed_to_is_so_again_after_a_crash() {
    let site = Site::new("gw-resub");
    site.write(&json!({ "old": fixture(&["--era", "legacy"]) }));
    let _daemon = site.daemon();
    let client = At::of(&site, "old").open();
    let stream = client.listen();
    let uri = json!({"uri": "test://watched-resource"});
    client.request("resources/subscribe", &uri);
    let _crashed = client.try_call("nasty_crash", &json!({}));
    eventually("subscribed again", 20, || {
        (client.counters()["subscriptions"] == json!(["test://watched-resource"])).then_some(())
    });
    let _news = stream.rest(QUIET);
    client.call("test_touch_resource", &uri);
    assert_eq!(stream.message()["method"], "notifications/resources/updated");
}

#[test]
fn r17_own_containers_go_with_their_session_and_with_the_daemon() {
    let site = Site::new("gw-own");
    site.write(&json!({ "old": fixture(&["--era", "legacy"]), "other": fixture(&["--era", "legacy"]) }));
    let daemon = site.daemon();
    let at = At::of(&site, "old");
    let open = || at.open_as(LEGACY, &json!({"elicitation": {}}));
    let (first, second) = (open(), open());
    let both = legs(&site, "old");
    assert_eq!(both.len(), 2, "{both:?}");
    for leg in &both {
        let leg = inspect(&site.name(leg)).expect("a container");
        assert!(runs(&leg));
        assert_eq!(
            (text(&leg, "/Config/StdinOnce"), text(&leg, "/Config/Tty")),
            ("true".to_owned(), "false".to_owned())
        );
    }
    assert_ne!(first.call("nasty_who", &json!({})), second.call("nasty_who", &json!({})), "one process each");
    // The greeting is the client's own, word for word.
    assert!(first.call("nasty_who", &json!({})).contains(r#""capabilities":{"elicitation":{}}"#));
    assert!((200..300).contains(&first.delete()));
    let left =
        eventually("its container is gone", 15, || Some(legs(&site, "old")).filter(|legs| legs.len() == 1));
    assert!(left.is_subset(&both));
    assert_eq!(second.call("echo", &json!({"message": "on"})), "on");
    // One whose server crashed is over: its client begins anew.
    let _crashed = second.try_call("nasty_crash", &json!({}));
    eventually("the session is over", 10, || {
        (second.post(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).status == 404).then_some(())
    });
    eventually("its container is gone", 15, || legs(&site, "old").is_empty().then_some(()));
    let third = open();
    assert_eq!(third.call("echo", &json!({"message": "anew"})), "anew");
    let shared = [site.id("old"), site.id("other")];
    assert_eq!(daemon.stop(), 0);
    assert_eq!(legs(&site, "old"), BTreeSet::new(), "nothing is left after the daemon's end");
    assert_eq!([site.id("old"), site.id("other")], shared, "but what is shared goes on");
}

#[test]
fn r20_requests_wait_for_a_server_that_starts() {
    let site = Site::new("gw-park");
    site.write(&json!({ "slow": fixture(&["--era", "legacy", "--startup-delay", "4000"]) }));
    let daemon = site.daemon();
    let at = At::of(&site, "slow");
    let begin = Instant::now();
    let probe = Ask::new("GET", "/healthz").send(at.port).status;
    // Many at once, both eras: all of them wait, none of them fails.
    std::thread::scope(|scope| {
        for n in 0..20 {
            let at = &at;
            scope.spawn(move || {
                if n % 2 == 0 {
                    assert_eq!(at.open().call("echo", &json!({"message": "a"})), "a");
                } else {
                    assert_eq!(at.modern_call("echo", &json!({"message": "b"})), "b");
                }
            });
        }
    });
    assert_eq!(probe, 503, "it did not answer yet");
    assert!(begin.elapsed() > Duration::from_secs(1), "the test asked too late: {:?}", begin.elapsed());
    let client = at.open();
    // After a kill too.
    let id = site.id("slow");
    assert_eq!(engine("POST", &format!("/containers/{id}/kill"), &Value::Null).0, 204);
    assert_eq!(client.call("echo", &json!({"message": "waited"})), "waited");
    // A stopped one is not waited for.
    site.run(&["stop-server", "slow"]).exits(0);
    let begin = Instant::now();
    match client.call_ask("echo", &json!({})).try_send(at.port) {
        Ok(reply) => {
            assert_eq!(reply.status, 503);
            assert!(!reply.header("retry-after").is_empty());
        }
        Err(refused) => assert!(refused.contains("refused"), "{refused}"),
    }
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    site.run(&["start-server", "slow"]).exits(0);
    let at = At::of(&site, "slow");
    let again = Client { at, ..client };
    assert_eq!(again.call("echo", &json!({"message": "again"})), "again", "the session outlives a stop");
    drop(daemon);
}

/// Calls until told to stop; every failure is kept.
fn stream_of_calls(client: &Client, stop: &AtomicBool, done: &AtomicUsize) -> Vec<String> {
    let mut failures = Vec::new();
    let mut turn = 0;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let text = format!("{} {turn}", &client.session[..8]);
        let arguments = json!({"message": text, "ms": if turn % 5 == 0 { 400 } else { 1 }});
        let begin = Instant::now();
        match client.try_call("nasty_slow", &arguments) {
            Ok(said) if said == text => {}
            other => failures.push(format!("{other:?}")),
        }
        if begin.elapsed() > CALL_WITHIN {
            failures.push(format!("it took {:?}", begin.elapsed()));
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
    failures
}

/// Changes a server twice while its clients call it; `entry` makes it with an environment.
fn changed_under_load(name: &str, entry: impl Fn(&str) -> Value) {
    let site = Site::new(name);
    let write = |value: &str| site.write(&json!({ "it": entry(&format!("COLOUR={value}")) }));
    write("red");
    let _daemon = site.daemon();
    let at = At::of(&site, "it");
    let clients: Vec<Client> = (0..8).map(|_| at.open()).collect();
    let colour = |client: &Client| client.call("nasty_env", &json!({"name": "COLOUR"}));
    assert_eq!(colour(&clients[0]), "red");
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let running: Vec<_> =
            clients.iter().map(|client| scope.spawn(|| stream_of_calls(client, &stop, &done))).collect();
        let mut old = site.id("it");
        for value in ["green", "blue"] {
            write(value);
            let new = eventually("it was replaced", 40, || {
                let new = site.container("it").filter(runs).map(|new| text(&new, "/Id"))?;
                (new != old && site.names().len() == 1).then_some(new)
            });
            assert_eq!(colour(&clients[0]), value);
            old = new;
        }
        stop.store(true, Ordering::Relaxed);
        for running in running {
            assert_eq!(running.join().expect("a client"), Vec::<String>::new());
        }
    });
    assert!(done.load(Ordering::Relaxed) > 100, "{done:?} calls");
    for client in &clients {
        assert_eq!(colour(client), "blue");
    }
}

#[test]
fn r21_a_changed_server_is_replaced_under_load_without_losing_a_request() {
    changed_under_load("gw-change", |env| fixture_with(&["-e", env], &["--era", "legacy"]));
}

#[test]
fn r21_a_changed_modern_server_is_replaced_under_load_without_losing_a_request() {
    changed_under_load("gw-chanmod", |env| fixture_with(&["-e", env], &["--era", "modern"]));
}

#[test]
fn r21_a_changed_http_server_behind_the_edge_is_replaced_without_losing_a_request() {
    changed_under_load("gw-chanhttp", |env| {
        let image = fixture_image();
        let words = [
            "--rm",
            "-e",
            env,
            &image,
            "--era",
            "legacy",
            "--http",
            "8000",
            "--host",
            "0.0.0.0",
            "--any-host",
        ];
        let mut entry = docker_run(&words);
        entry["orchestrator"] =
            json!({"transport": "http", "containerPort": 8000, "httpPath": "/mcp", "route": "edge"});
        entry
    });
}

#[test]
fn r21_sessions_hear_of_a_change_and_what_they_subscribed_to_goes_on() {
    let site = Site::new("gw-channews");
    let entry = |value: &str| {
        let colour = format!("COLOUR={value}");
        let of = |era: &str| fixture_with(&["-e", &colour], &["--era", era]);
        json!({ "old": of("legacy"), "new": of("modern") })
    };
    site.write(&entry("red"));
    let _daemon = site.daemon();
    let uri = json!({"uri": "test://watched-resource"});
    let servers = ["old", "new"];
    let sessions = servers.map(|server| {
        let client = At::of(&site, server).open();
        client.request("resources/subscribe", &uri);
        let stream = client.listen();
        (client, stream)
    });
    let ids = servers.map(|server| site.id(server));
    site.write(&entry("green"));
    for ((server, id), (client, stream)) in servers.iter().zip(&ids).zip(&sessions) {
        eventually("it was replaced", 20, || {
            site.container(server).filter(|new| runs(new) && text(new, "/Id") != *id).map(drop)
        });
        assert_eq!(client.call("nasty_env", &json!({"name": "COLOUR"})), "green");
        let heard = stream
            .try_message(Duration::from_secs(10))
            .unwrap_or_else(|error| panic!("{server}: no news: {error}"));
        assert!(heard["method"].as_str().is_some_and(|name| name.ends_with("/list_changed")), "{heard}");
        let _more = stream.rest(QUIET);
        client.call("test_touch_resource", &uri);
        let heard = stream
            .try_message(Duration::from_secs(5))
            .unwrap_or_else(|error| panic!("{server}: no update: {error}"));
        assert_eq!(heard["method"], "notifications/resources/updated", "{server}");
    }
}

#[test]
fn r21_clients_with_their_own_container_get_a_new_one_after_a_change() {
    let site = Site::new("gw-chanown");
    let entry = |value: &str| json!({ "old": fixture_with(&["-e", &format!("COLOUR={value}")], &["--era", "legacy"]) });
    site.write(&entry("red"));
    let _daemon = site.daemon();
    let at = At::of(&site, "old");
    let own = at.open_as(LEGACY, &json!({"sampling": {}}));
    let before = legs(&site, "old");
    let old = site.id("old");
    site.write(&entry("green"));
    eventually("it was replaced", 40, || {
        (site.container("old").filter(runs).map(|new| text(&new, "/Id"))? != old).then_some(())
    });
    eventually("the session is over, or in a new container", 40, || {
        let reply = own.call_ask("nasty_env", &json!({"name": "COLOUR"})).send(at.port);
        (reply.status == 404 || reply.try_body().is_ok_and(|body| body.contains("green"))).then_some(())
    });
    let again = at.open_as(LEGACY, &json!({"sampling": {}}));
    assert_eq!(again.call("nasty_env", &json!({"name": "COLOUR"})), "green");
    eventually("the old one is gone", 20, || legs(&site, "old").is_disjoint(&before).then_some(()));
}

#[test]
fn r21_a_removed_server_is_gone_and_another_is_not_touched() {
    let site = Site::new("gw-gone");
    let both = json!({ "old": fixture(&["--era", "legacy"]), "new": fixture(&["--era", "modern"]) });
    site.write(&both);
    let _daemon = site.daemon();
    let (old, new) = (At::of(&site, "old"), At::of(&site, "new"));
    let (client, other) = (old.open(), new.open());
    let own = old.open_as(LEGACY, &json!({"roots": {}}));
    let stream = client.listen();
    site.write(&json!({ "new": both["new"] }));
    eventually("its containers are gone", 30, || {
        (site.names() == BTreeSet::from(["new".to_owned()])).then_some(())
    });
    assert!(stream.ends(Duration::from_secs(10)), "its streams end");
    let late = client.call_ask("echo", &json!({})).try_send(old.port);
    assert!(late.as_ref().map_or(true, |reply| reply.status == 404), "{late:?}");
    assert!(own.call_ask("echo", &json!({})).try_send(old.port).map_or(true, |reply| reply.status == 404));
    assert_eq!(other.call("echo", &json!({"message": "here"})), "here");
}

#[test]
fn servers_that_cannot_start_say_so_and_refuse_at_once() {
    let site = Site::new("gw-false");
    let closed = site.fixed_port();
    let slow = format!("sleep 2; exec {} --era legacy", fixture_path());
    site.write(&json!({
        "false": {"command": "/bin/false"},
        "nowhere": {"command": "/no/such/program"},
        "away": {"type": "http", "url": format!("http://127.0.0.1:{closed}/mcp")},
        "box": fixture(&["--no-such-option"]),
        "slow": {"command": "/bin/sh", "args": ["-c", slow]},
    }));
    let _daemon = site.daemon();
    // What is really on its way is waited for.
    let slow = At::of(&site, "slow").open();
    assert_eq!(slow.call("echo", &json!({"message": "late"})), "late");
    for (server, code, why) in [
        ("false", "MCPO-P043", "exited with code 1"),
        ("nowhere", "MCPO-P043", "there is no such file"),
        ("away", "MCPO-P043", "refused"),
        ("box", "MCPO-P042", "it ended with exit code"),
    ] {
        eventually(&format!("{server} waits"), 40, || {
            let row = site.row(server);
            let reason = row["reasons"].as_array()?.iter().find(|reason| reason["code"] == code)?.clone();
            let text = reason["text"].as_str()?;
            (row["state"] == "waiting" && text.contains(why) && row["nextTry"].is_i64()).then_some(())
        });
        let at = At::of(&site, server);
        for modern in [false, true] {
            // Between two looks a try may have been under way, which is waited for.
            eventually(&format!("{server} refuses at once"), 60, || {
                let begin = Instant::now();
                let reply = match modern {
                    true => at.modern("1", "tools/list", "{}", "{}").send(at.port),
                    false => at.greet(LEGACY, &json!({})),
                };
                let again: u64 = reply.header("retry-after").parse().ok()?;
                let body = (reply.status == 503).then(|| reply.body())?;
                (begin.elapsed() < CALL_WITHIN && again >= 1 && body.contains("the next try is in"))
                    .then_some(())
            });
        }
        eventually("why names the next try", 60, || {
            let told = site.run(&["why", server]).exits(0).all();
            (told.contains(why) && told.contains("(in ") && told.contains(code)).then_some(())
        });
    }
    site.run(&["sync"]).exits(1);
    site.run(&["status"]).says("1 of 5 servers converged");
    // Mended, it comes without anybody's help.
    site.write(&json!({ "false": {"command": fixture_path(), "args": ["--era", "modern"]} }));
    site.run(&["--allow-mass-delete", "sync"]);
    let at = At::of(&site, "false");
    eventually("it answers", 40, || (at.greet(LEGACY, &json!({})).status == 200).then_some(()));
    assert_eq!(at.open().call("echo", &json!({"message": "mended"})), "mended");
    eventually("all is well", 40, || (site.run(&["sync"]).code == 0).then_some(()));
}

#[test]
fn a_container_goes_when_its_entry_becomes_a_process_or_a_url() {
    let site = Site::new("gw-kind");
    let http = crate::support::http(&[]);
    site.write(&json!({ "a": fixture(&["--era", "legacy"]), "b": http }));
    let _daemon = site.daemon();
    let at = At::of(&site, "a");
    let client = at.open();
    assert_eq!(client.call("echo", &json!({"message": "one"})), "one");
    let port = eventually("b is up", 40, || {
        let row = site.row("b");
        (row["state"] == "converged").then(|| row["port"].as_u64())?
    });
    let path = fixture_path();
    site.write(&json!({
        "a": {"command": path, "args": ["--era", "legacy"]},
        "b": {"command": path, "args": ["--era", "legacy"]},
    }));
    // While it changes, and after, the session goes on.
    eventually("the containers are gone", 60, || {
        assert_eq!(client.call("echo", &json!({"message": "on"})), "on");
        site.names().is_empty().then_some(())
    });
    assert_eq!(client.call("echo", &json!({"message": "two"})), "two");
    let b = At::of(&site, "b");
    assert_eq!(u64::from(b.port), port, "its port stays");
    assert_eq!(b.open().call("echo", &json!({"message": "b"})), "b");
    eventually("all is well", 40, || (site.run(&["sync"]).code == 0).then_some(()));
    site.nothing_to_do();
    // And back.
    site.write(
        &json!({ "a": fixture(&["--era", "legacy"]), "b": {"command": path, "args": ["--era", "legacy"]} }),
    );
    eventually("it is a container again", 60, || site.container("a").filter(runs).map(drop));
    eventually("the session goes on", 40, || client.try_call("echo", &json!({"message": "x"})).ok());
}
