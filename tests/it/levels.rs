//! What the levels of the configuration hand down.

use crate::config::load_fixture;

#[test]
fn levels_hand_down_what_they_say_and_what_they_inherit() {
    let text = r#"{
        "orchestrator": {
            "globalDefaults": {"limits": {"memory": "1g", "cpus": 2}, "env": {"TOKEN": "planted-secret"}},
            "sections": {"My Section": {"limits": {"memory": "512m"}, "init": null}, "empty": {}}
        },
        "mcpServers": {"a": {"command": "x", "orchestrator": {"section": "My Section"}}}
    }"#;
    let loaded = load_fixture("a.json", text.as_bytes());
    let names: Vec<Option<&str>> = loaded.levels.iter().map(|level| level.section.as_deref()).collect();
    assert_eq!(names, [None, Some("my-section"), Some("empty")]);
    let value = |level: usize, key: &str| {
        let value = loaded.levels[level].values.iter().find(|value| value.key == key);
        value.map(|value| (value.value.clone(), format!("{:?}", value.origin), value.place.is_some()))
    };
    let is = |value: &str, origin: &str, written| Some((value.to_owned(), origin.to_owned(), written));
    assert_eq!(value(0, "limits.memory"), is("1g", "Global", true));
    assert_eq!(value(1, "limits.memory"), is("512m", "Section(\"My Section\")", true));
    assert_eq!(value(1, "limits.cpus"), is("2", "Global", true));
    assert_eq!(value(1, "restart.policy"), is("always", "Settings", false));
    assert_eq!(value(2, "limits.pids"), is("1024", "Settings", false));
    assert_eq!(value(1, "env.TOKEN"), is("[redacted]", "Global", true));
    assert!(!format!("{:?}", loaded.levels).contains("planted-secret"));
    // A server inherits what its section hands down.
    let own = loaded.effective.values().next().expect("the server");
    for inherited in loaded.levels[1].values.iter().filter(|value| value.place.is_some()) {
        assert!(own.contains(inherited), "{inherited:?}");
    }
}
