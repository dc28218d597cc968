//! Names of tools that cannot stay as they are: told apart, called, and complained of.

use super::{Does, World};
use crate::gateway::played::id;
use crate::mcp::combine::{self, NAME_MAX};
use crate::mcp::wire::Era;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// What the names become here is what another tool is called there.
fn taken() -> String {
    combine::name(&id("odd"), "größe").strip_prefix("odd__").unwrap().to_owned()
}

fn own() -> [String; 8] {
    let x = |count| "x".repeat(count);
    [
        "größe".to_owned(),
        taken(),
        x(200),
        x(199) + "y",
        "a/b".to_owned(),
        "a b".to_owned(),
        "dup".to_owned(),
        "dup".to_owned(),
    ]
}

pub(super) fn odd() -> Value {
    own().iter().map(|name| json!({"name": name, "inputSchema": {"type": "object"}})).collect()
}

#[tokio::test(start_paused = true)]
async fn tools_whose_names_cannot_stay_are_called_by_what_they_became_and_complained_of() {
    // The ids of two are one when they are cut.
    let (b, c) = ("a".repeat(62) + "b", "a".repeat(62) + "c");
    let servers = ["odd", &b, &c];
    let world = World::new(&servers.map(|name| (name, Era::Legacy, Does::Odd)));
    // Complaints need no client.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let problems = |name: &str| world.gateway.entry(&id(name)).unwrap().offered.problems();
    let twice = |name: &str| problems(name).iter().filter(|text| text.contains("more than one tool")).count();
    assert_eq!((twice("odd"), twice(&b)), (2, 1), "{:?}", problems("odd"));
    assert!(problems(&c).iter().any(|text| text.contains("is not taken everywhere")), "{:?}", problems(&c));

    let client = world.open(&json!({})).await;
    let names = client.names().await;
    let distinct: BTreeSet<&String> = names.iter().collect();
    assert_eq!(distinct.len(), names.len(), "{names:?}");
    assert_eq!(names.len(), 6 + 7 + 7, "one of each pair that is one name: {names:?}");
    let mut reached = BTreeSet::new();
    for name in &names {
        assert!(name.len() <= NAME_MAX && name.is_ascii(), "{name}");
        let answer = client.ask("tools/call", json!({"name": name})).await;
        let text =
            answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{name} {answer}"));
        assert!(reached.insert(text.to_owned()), "{name} leads where another does: {text}");
    }
    let own: BTreeSet<String> = own().into();
    for server in [&b, &c] {
        let all = own.iter().map(|own| format!("{server} {own}")).collect::<BTreeSet<_>>();
        assert!(all.is_subset(&reached), "each of {server}");
    }
}
