//! What a changed settings.conf changes in a running daemon: every setting of the table, one by one.

use std::collections::BTreeMap;

use mcp_orchestrator::config::settings::diff::{Applies, Changes, Main, ROWS, diff, in_force};
use mcp_orchestrator::config::settings::table::{KEYS, Key, Kind};
use mcp_orchestrator::config::settings::{Input, Settings, load};

/// Settings as a file with these lines has them.
#[track_caller]
fn settings(values: &BTreeMap<String, String>) -> Settings {
    let mut text = String::new();
    let mut section = "";
    // Sections are together, because names are sorted.
    for (name, value) in values {
        let (of, key) = name.split_once('.').expect("section.key");
        if of != section {
            text.push_str(&format!("[{of}]\n"));
            section = of;
        }
        text.push_str(&format!("{key} = {value}\n"));
    }
    let none = BTreeMap::new();
    let loaded = load(&Input { file: Some(("settings.conf", text.as_bytes())), env: &none, flags: &none });
    loaded.settings.unwrap_or_else(|| panic!("{:?}\n{text}", loaded.problems))
}

/// Values that make every single change one without a contradiction.
fn base() -> BTreeMap<String, String> {
    [
        ("dashboard.password", "base"),
        ("dashboard.host", "127.0.0.1"),
        ("tls.cert_file", "/cert"),
        ("tls.key_file", "/key"),
        ("metrics.port", "9991"),
        ("openapi.port", "9995"),
        ("jwt.issuer", "https://issuer.example"),
        ("jwt.audience", "base"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// A valid value that is not `now`; `None` where there is only one.
fn another(key: &Key, now: &str) -> Option<String> {
    let number = |min: u64| match now.parse::<u64>() {
        Ok(now) if now > min => (now - 1).to_string(),
        Ok(now) => (now + 1).to_string(),
        Err(_none) => min.to_string(),
    };
    let text = match key.kind {
        Kind::Text | Kind::Secret => "other".to_owned(),
        Kind::Path => "/other".to_owned(),
        Kind::Bool => (now != "true").to_string(),
        Kind::AutoBool => "true".to_owned(),
        Kind::Int { min, .. } | Kind::AutoInt { min, .. } | Kind::Seconds { min, .. } => number(min),
        Kind::Port => number(4321),
        Kind::Size => "17m".to_owned(),
        Kind::Cpus => "0.5".to_owned(),
        Kind::Choice(words) => words.iter().find(|word| **word != now).map(|word| (*word).to_owned())?,
        Kind::Words => "one, other".to_owned(),
        Kind::Choices(words) => words.iter().find(|word| **word != now).map(|word| (*word).to_owned())?,
        Kind::Sources => "10.1.0.0/16".to_owned(),
        Kind::Host | Kind::AutoHost => "127.0.0.7".to_owned(),
        Kind::Prefix => "other-".to_owned(),
        Kind::Url => "https://other.example".to_owned(),
        Kind::Route => "/other".to_owned(),
        Kind::Stack => "other".to_owned(),
        Kind::Runner => "none".to_owned(),
        Kind::Level => "DEBUG".to_owned(),
    };
    assert_ne!(text, now, "{}.{}", key.section, key.key);
    Some(text)
}

/// The listener as `old` bound it, and whether `new` has the shipped password.
fn main(old: &Settings, new: &Settings) -> Main {
    let shipped = |settings: &Settings| {
        let dashboard = &settings.dashboard;
        let own = dashboard.password_hash.is_some() || dashboard.password_file.is_some();
        !own && dashboard.password.expose() == "changeme"
    };
    let loopback = "127.0.0.1".parse().expect("an address");
    let listening = if shipped(old) { loopback } else { old.dashboard.host };
    Main { listening, held: None, shipped: shipped(new) }
}

#[test]
fn every_setting_is_classified_in_the_order_of_the_table() {
    let known: Vec<String> = KEYS.iter().map(|key| format!("{}.{}", key.section, key.key)).collect();
    let classified: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
    assert_eq!(classified, known, "say in src/config/settings/diff.rs when a change of it applies");
}

#[test]
fn a_change_of_every_setting_is_named_and_kept_or_applied() {
    let base = base();
    let old = settings(&base);
    for (key, row) in KEYS.iter().zip(ROWS) {
        let now = base.get(row.name).map_or(key.default, String::as_str);
        let Some(value) = another(key, now) else {
            assert_eq!(row.name, "service.engine", "the only setting with one value");
            continue;
        };
        let mut changed = base.clone();
        changed.insert(row.name.to_owned(), value.clone());
        let new = settings(&changed);
        let changes = diff(&old, &new, main(&old, &new));
        let force = in_force(&old, &new, main(&old, &new));
        let expected = match row.applies {
            Applies::AtOnce => Changes { applied: vec![row.name], needs_restart: vec![] },
            Applies::Restart => Changes { applied: vec![], needs_restart: vec![row.name] },
        };
        assert_eq!(changes, expected, "{} = {value}", row.name);
        let kept = if row.applies == Applies::Restart { &old } else { &new };
        assert!(force == *kept, "{} = {value}", row.name);
        assert!(diff(&new, &new, main(&new, &new)).is_empty());
    }
}

#[test]
fn what_waits_is_named_as_long_as_it_waits_and_the_rest_applies() {
    let mut values = base();
    let old = settings(&values);
    values.insert("service.stack".to_owned(), "other".to_owned());
    values.insert("service.settle_seconds".to_owned(), "9".to_owned());
    let new = settings(&values);
    let force = in_force(&old, &new, main(&old, &new));
    assert_eq!((force.service.stack.clone(), force.service.settle.0), (None, 9000));
    let again = diff(&force, &new, main(&old, &new));
    assert_eq!(again, Changes { applied: vec![], needs_restart: vec!["service.stack"] });
}

/// The shipped password never comes to a listener that others reach, and a listener does not move.
#[test]
fn passwords_and_the_address_of_the_listener_go_together() {
    let of = |password: &str| {
        let values = [("dashboard.password", password)];
        settings(&values.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
    };
    let (shipped, own) = (of("changeme"), of("a better one"));
    let opening = main(&shipped, &own);
    assert!(opening.listening.is_loopback() && !main(&own, &own).listening.is_loopback());
    let opened = diff(&shipped, &own, opening);
    let names = (vec!["dashboard.password"], vec!["dashboard.host"]);
    assert_eq!((opened.applied, opened.needs_restart), names, "valid at once, from afar after a restart");
    let force = in_force(&shipped, &own, opening);
    assert_eq!(diff(&force, &own, opening).needs_restart, ["dashboard.host"], "still so");
    // Where systemd's socket unit has the listener, its address counts.
    let near = Main { held: Some(opening.listening), ..opening };
    assert!(diff(&shipped, &own, near).needs_restart.is_empty(), "it stays where the unit has it");
    let wide = Main { held: Some("192.0.2.1".parse().expect("an address")), ..opening };
    assert_eq!(
        diff(&shipped, &own, wide).needs_restart,
        ["dashboard.host"],
        "others come in after a restart"
    );
    let closed = diff(&own, &shipped, main(&own, &shipped));
    assert_eq!((closed.applied, closed.needs_restart), (vec![], vec!["dashboard.password"]));
    assert!(in_force(&own, &shipped, main(&own, &shipped)) == own);
}
