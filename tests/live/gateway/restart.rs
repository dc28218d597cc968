//! The daemon's own end, asked for and by `kill -9`, and two daemons on one engine.

use crate::gateway::client::{At, Client, LEGACY, fixture, port_of};
use crate::support::{Site, eventually, text};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

#[test]
fn sessions_outlive_kill_9_of_the_daemon_under_load_and_nothing_is_orphaned() {
    let site = Site::new("gw-kill");
    site.write(&json!({ "old": fixture(&["--era", "legacy"]), "new": fixture(&["--era", "modern"]) }));
    let daemon = site.daemon();
    let (old, new) = (At::of(&site, "old"), At::of(&site, "new"));
    let clients: Vec<Client> = (0..6).map(|n| if n % 2 == 0 { old.open() } else { new.open() }).collect();
    clients[0].request("resources/subscribe", &json!({"uri": "test://watched-resource"}));
    let own = old.open_as(LEGACY, &json!({"sampling": {}}));
    // One with all servers, too.
    let all = At { port: site.main_port(), path: "/mcp".to_owned(), ..old.clone() }.open();
    all.request("resources/subscribe", &json!({"uri": "mcp://old/test://watched-resource"}));
    assert_eq!(site.names().len(), 3, "{:?}", site.names());
    let before = ["old", "new"].map(|server| site.running(server));
    let who = [&clients[0], &clients[1]].map(|client| client.call("nasty_who", &json!({})));
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut daemon = Some(daemon);
    std::thread::scope(|scope| {
        for client in &clients {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    // Half-written lines are what a kill leaves: long messages make them likely.
                    let long = "x".repeat(200_000);
                    let _broken = client.try_call("echo", &json!({"message": long}));
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        eventually("load", 20, || (done.load(Ordering::Relaxed) > 30).then_some(()));
        daemon.take().expect("a daemon").kill();
        std::thread::sleep(Duration::from_millis(200));
        stop.store(true, Ordering::Relaxed);
    });
    let _daemon = site.daemon();
    let again = port_of(&site, "old");
    assert_eq!(again, old.port, "the same port");
    for (n, client) in clients.iter().enumerate() {
        let text = format!("after {n}");
        let said = eventually("the same session answers", 30, || {
            client.try_call("echo", &json!({"message": text})).ok()
        });
        assert_eq!(said, text);
    }
    for (before, server) in before.iter().zip(["old", "new"]) {
        let after = site.running(server);
        for what in ["/Id", "/State/StartedAt"] {
            assert_eq!(text(before, what), text(&after, what), "{server} ran all the time");
        }
    }
    let pid = |who: &str| serde_json::from_str::<serde_json::Value>(who).expect("JSON")["process"].clone();
    for (who, client) in who.iter().zip([&clients[0], &clients[1]]) {
        assert_eq!(pid(who), pid(&client.call("nasty_who", &json!({}))), "the same process");
    }
    // Nobody was greeted a second time, and subscriptions are still there.
    assert_eq!(clients[0].counters()["initializes"], 1);
    let said = eventually("the session with all servers answers", 30, || {
        all.try_call("old__echo", &json!({"message": "all"})).ok()
    });
    assert_eq!(said, "all");
    let (stream, among_all) = (clients[0].listen(), all.listen());
    clients[2].call("test_touch_resource", &json!({"uri": "test://watched-resource"}));
    assert_eq!(stream.message()["method"], "notifications/resources/updated");
    while among_all.message()["params"]["uri"] != "mcp://old/test://watched-resource" {}
    // A connection of one client's own died with the daemon; the protocol says 404.
    assert_eq!(own.post(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).status, 404);
    site.run(&["sync"]);
    let all = BTreeSet::from(["new".to_owned(), "old".to_owned()]);
    eventually("no container is orphaned", 20, || (site.names() == all).then_some(()));
}

#[test]
fn sessions_outlive_a_restart_of_the_daemon() {
    let site = Site::new("gw-restart");
    site.write(&json!({ "old": fixture(&["--era", "legacy"]) }));
    let daemon = site.daemon();
    let at = At::of(&site, "old");
    let (kept, ended) = (at.open(), at.open());
    ended.delete();
    let id = site.id("old");
    assert_eq!(kept.call("echo", &json!({"message": "before"})), "before");
    assert_eq!(daemon.stop(), 0);
    let _daemon = site.daemon();
    assert_eq!(port_of(&site, "old"), at.port);
    assert_eq!(kept.call("echo", &json!({"message": "after"})), "after");
    assert_eq!(
        ended.post(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).status,
        404,
        "an ended one stays ended"
    );
    assert_eq!(id, site.id("old"));
    assert_eq!(kept.counters()["initializes"], 1);
}

#[test]
fn two_daemons_on_one_engine_do_not_disturb_each_other() {
    let sites = [Site::new("gw-one"), Site::new("gw-two")];
    let entry = json!({ "old": fixture(&["--era", "legacy"]), "rest": fixture(&["--era", "modern"]) });
    let [mut first, second] = sites.each_ref().map(|site| {
        site.write(&entry);
        Some(site.daemon())
    });
    let ats = sites.each_ref().map(|site| At::of(site, "old"));
    assert_ne!(ats[0].port, ats[1].port);
    let clients = ats.each_ref().map(At::open);
    let owns = ats.each_ref().map(|at| at.open_as(LEGACY, &json!({"sampling": {}})));
    let (names, id) = (sites[1].names(), sites[1].id("old"));
    assert_eq!(names.len(), 3, "{names:?}");
    let second_is_fine = |what: &str| {
        assert_eq!(clients[1].call("echo", &json!({"message": what})), what);
        assert_eq!(owns[1].call("echo", &json!({"message": what})), what);
        assert_eq!((sites[1].names(), sites[1].id("old")), (names.clone(), id.clone()), "{what}");
    };
    second_is_fine("beside another");
    let mut stray = clients[0].clone();
    stray.at = ats[1].clone();
    assert_eq!(
        stray.post(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).status,
        404,
        "a session of the other daemon"
    );
    let _crashed = clients[0].try_call("nasty_crash", &json!({}));
    assert_eq!(clients[0].call("echo", &json!({"message": "back"})), "back");
    second_is_fine("after the other's server crashed");
    first.take().expect("a daemon").kill();
    second_is_fine("after the other was killed");
    let again = sites[0].daemon();
    sites[0].run(&["sync"]).exits(0);
    second_is_fine("after the other swept up what it had left");
    assert_eq!(clients[0].call("echo", &json!({"message": "again"})), "again");
    sites[0].write(&json!({ "rest": entry["rest"] }));
    eventually("the other removed a server of the same name", 30, || {
        (sites[0].names() == BTreeSet::from(["rest".to_owned()])).then_some(())
    });
    second_is_fine("after the other removed a server of the same name");
    assert_eq!(again.stop(), 0);
    second_is_fine("after the other ended");
    drop(second);
}
