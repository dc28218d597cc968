//! Edits of settings.conf through a real daemon.

use super::refused;
use super::site::{Site, eventually};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;

const PATH: &str = "/api/v1/settings";
const CONF: &str = "# Settings of the team.\n\
    [service]\n\
    # every two minutes\n\
    reconciliation_interval_seconds = 120   # seconds\n\
    \n\
    [containers]\n\
    memory = 512m\n\
    [openapi]\n\
    api_key = planted-key-1\n";

fn site() -> Site {
    let site = Site::new(
        "{ \"mcpServers\": { \"one\": { \"url\": \"https://one.example/mcp\", \"disabled\": true } } }\n",
    );
    std::fs::write(site.settings(), CONF).expect("a file");
    site
}

fn conf(site: &Site) -> String {
    std::fs::read_to_string(site.settings()).expect("a file")
}

/// The row of a setting.
fn row(document: &Value, name: &str) -> Value {
    let sections = document["sections"].as_array().expect("sections").iter();
    let mut rows = sections.flat_map(|section| section["settings"].as_array().expect("settings"));
    rows.find(|row| row["name"] == name).unwrap_or_else(|| panic!("{name} is missing")).clone()
}

#[test]
fn settings_say_what_they_are_and_where_they_come_from() {
    let site = site();
    let _daemon = site.start(&[]);
    let reply = site.get(PATH);
    let document = reply.json();
    assert_eq!((reply.status, reply.header("etag")), (200, document["etag"].as_str().expect("a version")));
    assert!(!document.to_string().contains("planted"), "{document}");
    let interval = row(&document, "service.reconciliation_interval_seconds");
    assert_eq!(
        (&interval["value"], &interval["default"], &interval["origin"]),
        (&json!("120"), &json!("60"), &json!("file"))
    );
    assert!(
        interval["place"].as_str().is_some_and(|place| place.ends_with("settings.conf:4:35")),
        "{interval}"
    );
    assert_eq!((&interval["editable"], &interval["restart"]), (&json!(true), &json!(false)), "{interval}");
    let key = row(&document, "openapi.api_key");
    assert_eq!(
        (&key["value"], &key["set"], &key["editable"]),
        (&Value::Null, &json!(true), &json!(false)),
        "{key}"
    );
    let stack = row(&document, "service.stack");
    assert_eq!(stack["origin"], "environment");
    assert!(
        stack["whyNot"].as_str().is_some_and(|why| why.contains("MCP_ORCHESTRATOR__SERVICE__STACK")),
        "{stack}"
    );
    assert!(document["sections"].as_array().expect("sections").iter().all(|s| s["about"].is_string()));
    let page = site.get("/monitor/settings");
    let text = page.text();
    assert_eq!(page.status, 200);
    for said in [
        "reconciliation_interval_seconds",
        "value=\"120\"",
        "MCP_ORCHESTRATOR__SERVICE__STACK decides it",
        "a secret is not set over the network",
    ] {
        assert!(text.contains(said), "{said}");
    }
    assert!(!text.contains("planted"));
}

#[test]
fn a_setting_is_shown_then_written_then_in_force() {
    let site = site();
    let _daemon = site.start(&[]);
    let wish = json!({ "service.reconciliation_interval_seconds": 90, "containers.memory": null, "logging.format": "json", "containers.cap_drop": ["ALL"] });
    let shown = site.patch(&format!("{PATH}?dry_run=true"), &wish);
    let preview = shown.json();
    assert_eq!((shown.status, &preview["accepted"]), (200, &json!(true)), "{preview}");
    let diff = preview["diff"].as_str().expect("a diff");
    assert!(
        diff.contains("+reconciliation_interval_seconds = 90   # seconds\n")
            && diff.contains("-memory = 512m\n"),
        "{diff}"
    );
    assert!(!diff.contains("planted") && diff.contains("api_key = [redacted:"), "{diff}");
    assert_eq!(
        preview["applied"],
        json!(["service.reconciliation_interval_seconds", "containers.memory", "containers.cap_drop"])
    );
    assert_eq!(preview["needsRestart"], json!(["logging.format"]));
    assert!(preview["plan"]["text"].is_string(), "{preview}");
    assert_eq!(conf(&site), CONF, "nothing is written");

    let before = site.status()["configuration"]["generation"].as_u64().expect("a number");
    let done = site.patch(&format!("{PATH}?wait=30s"), &wish);
    assert_eq!((done.status, &done.json()["state"]), (200, &json!("done")), "{}", done.json());
    let wanted = CONF.replace("= 120 ", "= 90 ").replace("memory = 512m\n", "cap_drop = ALL\n")
        + "\n[logging]\nformat = json\n";
    assert_eq!(conf(&site), wanted);
    assert_eq!(site.backups(), 1);
    let status = site.status();
    assert_eq!(
        status["configuration"]["generation"].as_u64(),
        Some(before + 1),
        "one edit is one generation"
    );
    assert_eq!(status["configuration"]["needsRestart"], json!(["logging.format"]));
    let document = site.get(PATH).json();
    assert_eq!(row(&document, "logging.format")["waiting"], json!(true));
    assert_eq!(row(&document, "containers.memory")["origin"], "default");
    assert_eq!(done.header("etag"), document["etag"].as_str().expect("a version"));
    let audit = site.get("/api/v1/audit").json();
    let said = "edit: settings containers.cap_drop, containers.memory, logging.format and 1 more";
    assert!(
        audit.as_array().expect("lines").iter().any(|line| line["what"] == said && line["by"] == "admin"),
        "{audit}"
    );
}

#[test]
fn versions_are_held_and_all_that_is_wrong_is_said_at_once() {
    let site = site();
    let _daemon = site.start(&[]);
    let first = site.get(PATH);
    let wish = json!({ "health.interval_seconds": 10 });
    refused(&site.matching("PATCH", PATH, &wish, "\"0\""), 412, "MCPO-E001");
    assert_eq!(site.matching("PATCH", &format!("{PATH}?wait=30s"), &wish, first.header("etag")).status, 200);
    refused(
        &site.matching("PATCH", PATH, &json!({ "health.interval_seconds": 11 }), first.header("etag")),
        412,
        "MCPO-E001",
    );
    let bad = json!({
        "health.interval_seconds": "soon", "aws.regoin": "x", "service.port_range_start": 9500,
        "aws.rule_priority_start": 70000,
    });
    // The range's end is of the environment, below the new start.
    let reply = site.patch(
        PATH,
        &json!({ "health.interval_seconds": "soon", "aws.regoin": "x", "aws.rule_priority_start": 70000 }),
    );
    refused(&reply, 422, "MCPO-E004");
    assert_eq!(reply.json()["problems"].as_array().map(Vec::len), Some(3), "{}", reply.json());
    refused(&site.patch(PATH, &bad), 409, "MCPO-E011");
    let preview =
        site.patch(&format!("{PATH}?dry_run=true"), &json!({ "health.interval_seconds": 0 })).json();
    assert_eq!(
        (&preview["accepted"], &preview["refused"]["code"]),
        (&json!(false), &json!("MCPO-E004")),
        "{preview}"
    );
    refused(&site.patch(PATH, &json!({ "health.interval_seconds": [1] })), 400, "MCPO-H400");
    refused(&site.patch(PATH, &json!({ "aws.region": "a\nb = c" })), 422, "MCPO-E010");
    // Somebody else writes: an edit says which version it means.
    std::fs::write(site.settings(), CONF.replace("512m", "256m")).expect("a file");
    let now = site.get(PATH);
    let done = site.matching(
        "PATCH",
        &format!("{PATH}?wait=30s"),
        &json!({ "health.timeout_seconds": 4 }),
        now.header("etag"),
    );
    assert_eq!(done.status, 200, "{}", done.json());
    assert!(conf(&site).contains("256m") && conf(&site).contains("timeout_seconds = 4"), "{}", conf(&site));
}

#[test]
fn what_reaches_the_host_is_not_set_over_the_network() {
    let site = site();
    let daemon = site.start(&[]);
    for (name, value) in [
        ("dashboard.password", "planted-2"),
        ("dashboard.password_hash", "x"),
        ("dashboard.password_file", "/etc/shadow"),
        ("dashboard.username", "root"),
        ("dashboard.host", "0.0.0.0"),
        ("dashboard.full_control", "true"),
        ("service.process_runner", "/tmp/x.sock"),
        ("aws.endpoint_url", "http://elsewhere.example/"),
        ("gateway.auth", "none"),
        ("gateway.host", "0.0.0.0"),
        ("gateway.tokens_file", "/etc/hostname"),
        ("gateway.allowed_sources", "0.0.0.0/0"),
        ("openapi.api_key", ""),
        ("discovery.paths", "/"),
        ("tls.cert_file", "/etc/hostname"),
        ("metrics.host", "0.0.0.0"),
        ("jwt.issuer", "https://elsewhere.example/"),
    ] {
        for query in ["", "?dry_run=true"] {
            let reply =
                site.patch(&format!("{PATH}{query}"), &json!({ name: value, "health.interval_seconds": 7 }));
            refused(&reply, 403, "MCPO-E005");
            assert!(!reply.text().contains("planted"), "{}", reply.text());
        }
    }
    assert_eq!(conf(&site), CONF, "nothing was written");
    // The socket may.
    let (status, body) =
        site.socket("PATCH", &format!("{PATH}?wait=30s"), &json!({ "openapi.api_key": "planted 3 #" }));
    assert_eq!(status, 200, "{body}");
    assert!(conf(&site).contains("api_key = \"planted 3 #\"\n"), "{}", conf(&site));
    let (_, seen) = site.socket("GET", PATH, &json!({}));
    assert!(!seen.to_string().contains("planted"), "{seen}");
    assert_eq!(row(&seen, "openapi.api_key")["editable"], json!(true));
    let audit = site.get("/api/v1/audit").text().to_owned();
    assert!(audit.contains("refused") && !audit.contains("planted"), "{audit}");
    drop(daemon);
    let _daemon = site.start(&[("MCP_ORCHESTRATOR__DASHBOARD__FULL_CONTROL", "true")]);
    let reply = site.patch(&format!("{PATH}?wait=30s"), &json!({ "openapi.api_key": "planted-4" }));
    assert_eq!(reply.status, 200, "{}", reply.json());
}

#[test]
fn a_file_that_may_not_be_written_is_not_and_a_broken_one_says_where() {
    let site = site();
    let _daemon = site.start(&[]);
    let mode = |bits| {
        std::fs::set_permissions(site.settings(), std::fs::Permissions::from_mode(bits)).expect("a mode");
    };
    mode(0o444);
    let wish = json!({ "health.interval_seconds": 10 });
    refused(&site.patch(PATH, &wish), 409, "MCPO-E003");
    let document = site.get(PATH).json();
    assert_eq!(document["writable"], json!(false), "{document}");
    assert_eq!(row(&document, "health.interval_seconds")["editable"], json!(false));
    let preview = site.patch(&format!("{PATH}?dry_run=true"), &wish).json();
    assert_eq!(preview["refused"]["code"], "MCPO-E003", "{preview}");
    mode(0o644);
    std::fs::write(site.settings(), format!("{CONF}[health\n")).expect("a file");
    eventually("the broken file is noticed", || {
        site.status()["configuration"]["settings"]["refused"].is_string()
    });
    refused(&site.matching("PATCH", PATH, &wish, "*"), 409, "MCPO-E008");
    assert!(site.get("/monitor/settings").text().contains("not closed with"));
}

#[test]
fn many_editors_of_settings_lose_nothing() {
    let site = site();
    let _daemon = site.start(&[]);
    let names = [
        "health.interval_seconds",
        "health.timeout_seconds",
        "recovery.delay_seconds",
        "recovery.max_attempts",
        "storage.history_hours",
        "storage.config_backups",
        "discovery.interval_seconds",
        "aws.gc_grace_seconds",
    ];
    std::thread::scope(|scope| {
        for (n, name) in names.iter().enumerate() {
            let site = &site;
            scope.spawn(move || {
                for round in 0..4 {
                    let reply = site.patch(PATH, &json!({ *name: 20 + n + round * 10 }));
                    assert_eq!(reply.status, 202, "{name}: {}", reply.json());
                }
            });
        }
    });
    let document = site.get(PATH).json();
    for (n, name) in names.iter().enumerate() {
        assert_eq!(row(&document, name)["value"], json!((50 + n).to_string()), "{name}");
    }
    assert!(conf(&site).contains("# every two minutes") && conf(&site).contains("planted-key-1"));
}
