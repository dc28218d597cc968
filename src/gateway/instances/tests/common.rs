//! What instances have in common: lists, limits, and what was given with an answer.

use super::{World, counted, each, soon};
use crate::gateway::lists::ListKind;
use crate::gateway::played::EXIT;
use crate::mcp::wire::Era;
use crate::model::time::Span;
use crate::model::traffic::{AtOnce, BreakerPolicy, TrafficPolicy};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn news_of_one_instance_are_told_once_to_everybody() {
    let world = Arc::new(World::new(Era::Legacy, 3, TrafficPolicy::default()).await);
    let mut heard = Vec::new();
    let mut clients = Vec::new();
    for _ in 0..3 {
        let client = world.open().await;
        heard.push(client.listen());
        clients.push(client);
    }
    let first = world.instance(1);
    let list = first.list(ListKind::Tools, Duration::from_secs(3)).await;
    assert_eq!(list.expect("a list").items.len(), 1);
    let asked = || ["time", "time-R2", "time-R3"].map(|name| world.backstage.count(name, "tools/list"));
    assert_eq!(asked().iter().sum::<usize>(), 1, "one instance's list serves");
    let news = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}).to_string();
    world.backstage.says("time-R2", &news);
    for heard in &mut heard {
        let told = tokio::time::timeout(Duration::from_secs(5), heard.recv()).await;
        assert_eq!(told.expect("in time").expect("news")["method"], "notifications/tools/list_changed");
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(heard.iter_mut().all(|heard| heard.try_recv().is_err()), "once");
    let list = first.list(ListKind::Tools, Duration::from_secs(3)).await;
    list.expect("a list");
    assert_eq!(asked().iter().sum::<usize>(), 2, "asked for again, once");
}

#[tokio::test(start_paused = true)]
async fn limits_are_of_all_instances_and_circuits_of_each() {
    let at_once = Some(AtOnce { max: 3, waiting_max: 10, wait: Span::secs(60) });
    let breaker = Some(BreakerPolicy { failures: 1, window: Span::secs(30), open_for: Span::secs(3600) });
    let policy = TrafficPolicy { at_once, breaker, ..TrafficPolicy::default() };
    let world = Arc::new(World::new(Era::Modern, 3, policy).await);
    let holds: Vec<_> = (0..5).map(|_| world.begin("hold")).collect();
    world.holds(3).await;
    assert_eq!(counted(world.backstage.holders()), each(1), "three at once, one at each");
    let waiting = || world.instance(1).traffic.view().waiting;
    soon("two wait", || waiting() == 2).await;
    // Who waited goes to whoever has room by then.
    world.backstage.answer("time-R2");
    soon("it is held there", || world.backstage.holders() == ["time", "time-R2", "time-R3"]).await;
    world.backstage.says("time-R3", EXIT);
    soon("the last one is let in", || waiting() == 0).await;
    for name in ["time", "time-R2", "time-R3"] {
        tokio::time::sleep(Duration::from_millis(100)).await;
        world.backstage.answer(name);
    }
    let mut lost = 0;
    for hold in holds {
        lost += usize::from(hold.await.expect("an end").is_err());
    }
    assert_eq!(lost, 1);
    world.all_up(3).await;
    assert!(world.instance(3).traffic.is_cut() && !world.instance(1).traffic.is_cut());
    for _ in 0..9 {
        assert_ne!(world.call("who").await.expect("the door is open"), "time-R3");
    }
    let client = world.open().await;
    client.who().await;
}

#[tokio::test(start_paused = true)]
async fn whoever_brings_a_state_is_sent_to_the_instance_that_gave_it() {
    let world = Arc::new(World::new(Era::Modern, 3, TrafficPolicy::default()).await);
    let mut states = Vec::new();
    for _ in 0..6 {
        let answer = world.modern("ask").await;
        states.push(answer["result"]["requestState"].as_str().expect("a state").to_owned());
    }
    for state in states.iter().rev() {
        let back = json!({"requestState": state, "inputResponses": {"q": {"roots": []}}});
        let answer = world.modern_with("ask", back).await;
        let name = answer["result"]["content"][0]["text"].as_str().expect("a text").to_owned();
        assert!(state.starts_with(&format!("of {name} ")), "{state} came to {name}");
    }
}
