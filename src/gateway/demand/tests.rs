//! Requests that wait for a server that sleeps, and calls that keep it awake.

use crate::gateway::Gateway;
use crate::gateway::known::Offers;
use crate::gateway::lists::ListKind;
use crate::gateway::places::{Down, Place, Places};
use crate::gateway::played::{Act, Played, RETRY, Stage, id, place, shared};
use crate::gateway::slot::{Shared, Unavailable};
use crate::mcp::wire::Era;
use crate::model::id::ServerId;
use crate::world::fake::FakeSessions;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;

const SOON: Duration = Duration::from_secs(5);

/// Offers that outlive a gateway.
#[derive(Default)]
struct Disk(Mutex<BTreeMap<ServerId, String>>);

impl Offers for Disk {
    fn recall(&self, server: &ServerId) -> Option<String> {
        self.0.lock().unwrap().get(server).cloned()
    }

    fn keep(&self, server: &ServerId, text: String) {
        self.0.lock().unwrap().insert(server.clone(), text);
    }
}

fn sleeper(down: Option<Down>, spec: &str) -> Places {
    let place = place("a", RETRY);
    let health = crate::model::server::HealthPolicy {
        start_period: crate::model::time::Span::secs(45),
        ..place.health.clone()
    };
    let (on_demand, spec) = (Some(spec.to_owned()), spec.to_owned());
    [(id("time"), Arc::new(Place { on_demand, spec, down, health, ..(*place).clone() }))].into()
}

fn asleep() -> Option<Down> {
    Some(Down::Asleep("asleep".to_owned()))
}

fn gateway(disk: &Arc<Disk>) -> (Arc<Gateway>, UnboundedReceiver<Played>) {
    let (stage, on_stage) = Stage::new(&[], Act::Serve(Era::Legacy));
    let offers = Arc::clone(disk) as Arc<dyn Offers>;
    let shared = Shared { offers, ..shared(&stage) };
    (Gateway::new(shared, Arc::new(FakeSessions::default()), [7; 32]), on_stage)
}

/// Runs it, lets it say what it offers, and puts it to sleep.
async fn ran(gateway: &Arc<Gateway>, on_stage: &mut UnboundedReceiver<Played>) -> Played {
    gateway.set_places(&sleeper(None, "s1"));
    let mut server = on_stage.recv().await.expect("a server");
    for (method, member) in [
        ("tools/list", "tools"),
        ("resources/list", "resources"),
        ("resources/templates/list", "resourceTemplates"),
    ] {
        let asked = server.hear(method).await;
        let mut result = json!({});
        result[member] = json!([{"name": "one", "uri": "x:1", "uriTemplate": "x:{n}"}]);
        server.answer(&asked, &result);
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    server
}

#[tokio::test(start_paused = true)]
async fn lists_are_kept_over_its_sleep_and_over_restarts_for_the_same_declaration() {
    let disk = Arc::new(Disk::default());
    {
        let (gateway, mut on_stage) = gateway(&disk);
        let _server = ran(&gateway, &mut on_stage).await;
        let entry = gateway.entry(&id("time")).unwrap();
        assert!(entry.resting().is_none(), "it answers itself while it runs");
        let count = gateway.uses()[&id("time")].count;
        gateway.set_places(&sleeper(asleep(), "s1"));
        assert!(entry.slot.live().is_some(), "whoever shall sleep is looked at first");
        gateway.put_to_sleep(&id("time"), count).await.expect("nobody uses it");
        assert!(entry.slot.live().is_none());
        gateway.set_places(&sleeper(asleep(), "s1"));
        assert_eq!(entry.list(ListKind::Tools, SOON).await.expect("a list").items.len(), 1);
        assert_eq!(gateway.uses()[&id("time")].count, count, "looking is no use");
        assert!(entry.health(&gateway).await.is_ok(), "whoever asks is sent here");
        assert!(on_stage.try_recv().is_err(), "and starts nothing");
    }
    let (gateway, mut on_stage) = gateway(&disk);
    gateway.set_places(&sleeper(asleep(), "s1"));
    let entry = gateway.entry(&id("time")).unwrap();
    let known = entry.resting().expect("what was kept");
    assert_eq!(known.greeting.server.as_ref().unwrap().name, "played");
    assert_eq!(entry.list(ListKind::Templates, SOON).await.expect("a list").items.len(), 1);
    assert!(entry.list(ListKind::Prompts, SOON).await.expect("a list").items.is_empty(), "it has none");
    let all = gateway.capabilities(&id("time")).await.expect("what was kept");
    assert_eq!(all["tools"][0]["name"], "one");
    // What another declaration offers nobody knows.
    gateway.set_places(&sleeper(asleep(), "s2"));
    assert!(entry.resting().is_none());
    assert!(on_stage.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_the_start_as_long_as_that_may_take() {
    let disk = Arc::new(Disk::default());
    let (gateway, mut on_stage) = gateway(&disk);
    gateway.set_places(&sleeper(asleep(), "s1"));
    let entry = gateway.entry(&id("time")).unwrap();
    let news = Arc::clone(&gateway.shared.news);
    let _old = tokio::time::timeout(Duration::from_secs(1), news.notified()).await;
    let before = tokio::time::Instant::now();
    let slot = Arc::clone(&entry.slot);
    let waits = tokio::spawn(async move { slot.ready().await.map(drop) });
    news.notified().await;
    let used = gateway.uses()[&id("time")];
    assert_eq!((used.waiting, used.count, used.busy), (1, 1, false));
    assert!(entry.health(&gateway).await.is_ok());
    let late = waits.await.unwrap().expect_err("nobody started it");
    assert!(matches!(&late, Unavailable::Late(why) if why.contains("after 45 s")), "{late}");
    assert_eq!(before.elapsed().as_secs(), 45);
    let slot = Arc::clone(&entry.slot);
    let waits = tokio::spawn(async move { slot.ready().await.map(drop) });
    tokio::time::sleep(Duration::from_secs(40)).await;
    gateway.set_places(&sleeper(None, "s1"));
    let _server = on_stage.recv().await.expect("a server");
    waits.await.unwrap().expect("it is up");
}

#[tokio::test(start_paused = true)]
async fn who_is_used_is_not_put_to_sleep() {
    let disk = Arc::new(Disk::default());
    let (gateway, mut on_stage) = gateway(&disk);
    let mut server = ran(&gateway, &mut on_stage).await;
    let entry = gateway.entry(&id("time")).unwrap();
    let seen = gateway.uses()[&id("time")].count;
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(gateway.uses()[&id("time")].idle.0 >= 100_000);
    let arguments = serde_json::value::RawValue::from_string("{}".to_owned()).unwrap();
    let calling = Arc::clone(&gateway);
    let call = tokio::spawn(async move { calling.call_tool(&id("time"), "one", &arguments).await });
    let asked = server.hear("tools/call").await;
    assert!(gateway.uses()[&id("time")].busy, "a call is under way");
    assert!(gateway.put_to_sleep(&id("time"), seen).await.is_err());
    tokio::time::sleep(Duration::from_secs(20)).await;
    server.answer(&asked, &json!({"content": []}));
    call.await.unwrap().expect("an answer");
    let used = gateway.uses()[&id("time")];
    assert!(!used.busy && used.idle.0 < 1_000, "its end counts: {used:?}");
    // It was used since it was looked at.
    assert!(gateway.put_to_sleep(&id("time"), seen).await.is_err());
    assert!(entry.slot.live().is_some());
    gateway.put_to_sleep(&id("time"), used.count).await.expect("nobody uses it");
}
