//! Edits as people see them, and what holds for any.

use super::{Change, Orphans, RefusalKind, apply, mask, outline, tree};
use crate::model::fingerprint::HashKey;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

const MAP: &str = r#"// Servers of the team.
{
  "note": "kept", // by hand
  "mcpServers": {
    // What time it is.
    "time": {
      "command": "docker",
      "args": ["run", "-i", "mcp/time"], // small
      "x-mine": {"a": [1, 2]},
    },
    /* two of a kind */
    "My Search": {
      "url": "https://search.example/mcp",
      "orchestrator": { "section": "web" }
    } // the last one
  },

  "orchestrator": {
    "sections": {
      "web": { "limits": { "memory": "1g" } },
      "data": {}
    }
  }
}
"#;

const PANEL: &str = r#"{
  "configSchemaVersion": "1.0",
  "panelName": "Tools", // ours
  "sections": [
    {
      "id": "search",
      "servers": [
        { "name": "web", "runtimeDefinition": { "type": "docker_image", "image": "mcp/web:1" } }, // first
        { "name": "memory", "runtimeDefinition": { "type": "npx_command", "package": "memory" } }
      ]
    },
    { "id": "data", "servers": [] }
  ]
}
"#;

fn edited(text: &str, change: Change) -> String {
    apply("mcp.config.json", text.as_bytes(), &[change]).unwrap_or_else(|refusal| panic!("{refusal:?}"))
}

fn refused(text: &str, change: Change) -> RefusalKind {
    apply("mcp.config.json", text.as_bytes(), &[change]).expect_err("refused").kind
}

fn put(server: &str, entry: Json, section: Option<&str>) -> Change {
    Change::Put { server: server.into(), entry, section: section.map(str::to_owned), new: false }
}

fn patch(server: &str, patch: Json) -> Change {
    Change::Patch { server: server.into(), patch, section: None }
}

fn meaning(text: &str) -> Json {
    tree::read(text).unwrap_or_else(|| panic!("{text}")).json()
}

#[test]
fn a_server_is_added_as_its_neighbours_are_written() {
    let new = edited(
        MAP,
        put("new", json!({"command": "docker", "args": ["run", "mcp/new"], "env": {"A": "b"}}), None),
    );
    let expected = MAP.replace(
        "    } // the last one\n",
        "    }, // the last one\n    \"new\": {\n      \"command\": \"docker\",\n      \"args\": [\"run\", \"mcp/new\"],\n      \"env\": {\n        \"A\": \"b\"\n      }\n    }\n",
    );
    assert_eq!(new, expected);
    let first = edited("{\n\t\"mcpServers\": {}\n}\n", put("a", json!({"url": "http://a/"}), None));
    assert_eq!(first, "{\n\t\"mcpServers\": {\n\t\t\"a\": {\n\t\t\t\"url\": \"http://a/\"\n\t\t}\n\t}\n}\n");
    let line =
        edited(r#"{"mcpServers":{"a":{"url":"http://a/"}}}"#, put("b", json!({"url": "http://b/"}), None));
    assert_eq!(line, r#"{"mcpServers":{"a":{"url":"http://a/"}, "b": {"url": "http://b/"}}}"#);
    for nothing in ["", "  \n", "{}"] {
        let made = edited(nothing, put("a", json!({"url": "http://a/"}), None));
        assert_eq!(
            made,
            "{\n  \"mcpServers\": {\n    \"a\": {\n      \"url\": \"http://a/\"\n    }\n  }\n}\n"
                .trim_end()
                .to_owned()
                + if nothing == "{}" { "" } else { "\n" }
        );
    }
}

#[test]
fn only_what_differs_is_written_anew() {
    let new = edited(MAP, patch("time", json!({"disabled": true, "x-mine": {"a": [1, 3]}})));
    let expected = MAP.replace("{\"a\": [1, 2]},\n", "{\"a\": [1, 3]},\n      \"disabled\": true,\n");
    assert_eq!(new, expected);
    let new = edited(
        MAP,
        put(
            "my-search",
            json!({"url": "https://other.example/mcp", "orchestrator": {"section": "web"}}),
            None,
        ),
    );
    assert_eq!(new, MAP.replace("search.example", "other.example"));
    let same = edited(MAP, patch("time", json!({"command": "docker"})));
    assert_eq!(same, MAP);
    let moved = edited(
        MAP,
        Change::Patch { server: "my-search".into(), patch: json!({}), section: Some(Some("data".into())) },
    );
    assert_eq!(moved, MAP.replace("\"section\": \"web\"", "\"section\": \"data\""));
    let out =
        edited(MAP, Change::Patch { server: "my-search".into(), patch: json!({}), section: Some(None) });
    assert_eq!(meaning(&out)["mcpServers"]["My Search"], json!({"url": "https://search.example/mcp"}));
    let enabled = edited(
        r#"{"mcpServers": {"a": {"url": "http://a/", "enabled": false}}}"#,
        patch("a", json!({"disabled": false})),
    );
    assert_eq!(meaning(&enabled)["mcpServers"]["a"], json!({"url": "http://a/", "disabled": false}));
}

#[test]
fn what_goes_takes_its_lines_and_leaves_comments() {
    let new = edited(MAP, Change::Remove { server: "time".into() });
    let from = MAP.find("    \"time\"").unwrap();
    let to = MAP.find("    /* two").unwrap();
    assert_eq!(new, format!("{}{}", &MAP[..from], &MAP[to..]));
    let new = edited(MAP, Change::Remove { server: "My Search".into() });
    assert!(
        new.contains("    }\n    /* two of a kind */\n    // the last one\n  },")
            || new.contains("the last one"),
        "{new}"
    );
    assert_eq!(meaning(&new)["mcpServers"].as_object().unwrap().len(), 1);
    let none = edited(&new, Change::Remove { server: "time".into() });
    assert!(none.contains("// What time it is.") && none.contains("the last one"), "{none}");
    assert_eq!(meaning(&none)["mcpServers"], json!({}));
    let swallowed =
        "{\"mcpServers\": {\n  \"a\": {\"url\": \"http://a/\"}, // one\n  \"b\": {\"url\": \"http://b/\"} }}";
    let left = edited(swallowed, Change::Remove { server: "b".into() });
    assert_eq!(meaning(&left), json!({"mcpServers": {"a": {"url": "http://a/"}}}), "{left}");
}

#[test]
fn crlf_marks_and_tabs_stay() {
    let text = format!("\u{feff}{}", MAP.replace('\n', "\r\n").replace("  ", "\t"));
    let new = edited(&text, put("new", json!({"url": "http://n/"}), Some("data")));
    assert!(new.starts_with('\u{feff}') && !new.replace("\r\n", "").contains('\n'), "{new:?}");
    assert!(
        new.contains("\r\n\t\t\"new\": {\r\n\t\t\t\"url\": \"http://n/\",\r\n\t\t\t\"orchestrator\": {\r\n"),
        "{new:?}"
    );
}

#[test]
fn sections_come_change_and_go() {
    let new = edited(
        MAP,
        Change::PutSection {
            section: "web".into(),
            settings: json!({"limits": {"memory": "2g"}, "pull": "always"}),
            new: false,
        },
    );
    assert_eq!(
        new,
        MAP.replace("{ \"memory\": \"1g\" } }", "{ \"memory\": \"2g\" }, \"pull\": \"always\" }")
    );
    let bare = edited(
        "{\n  \"mcpServers\": {}\n}\n",
        Change::PutSection { section: "a".into(), settings: json!({}), new: true },
    );
    assert_eq!(
        bare,
        "{\n  \"mcpServers\": {},\n  \"orchestrator\": {\n    \"sections\": {\n      \"a\": {}\n    }\n  }\n}\n"
    );
    assert_eq!(
        refused(MAP, Change::PutSection { section: "web".into(), settings: json!({}), new: true }),
        RefusalKind::Taken
    );
    let remove = |servers| Change::RemoveSection { section: "web".into(), servers };
    assert_eq!(refused(MAP, remove(Orphans::Refuse)), RefusalKind::NotEmpty);
    let moved = meaning(&edited(MAP, remove(Orphans::Move(Some("data".into())))));
    assert_eq!(moved["orchestrator"]["sections"], json!({"data": {}}));
    assert_eq!(moved["mcpServers"]["My Search"]["orchestrator"]["section"], "data");
    let deleted = meaning(&edited(MAP, remove(Orphans::Delete)));
    assert_eq!(deleted["mcpServers"].as_object().unwrap().keys().collect::<Vec<_>>(), ["time"]);
    let defaults = meaning(&edited(MAP, Change::Defaults(json!({"pull": "never"}))));
    assert_eq!(defaults["orchestrator"]["globalDefaults"], json!({"pull": "never"}));
}

#[test]
fn a_panel_document_is_changed_in_its_own_form() {
    let image = json!({"runtimeDefinition": {"type": "docker_image", "image": "mcp/web:2"}});
    let new = edited(PANEL, patch("web", image.clone()));
    assert_eq!(new, PANEL.replace("mcp/web:1", "mcp/web:2"));
    assert_eq!(refused(PANEL, put("other", image.clone(), None)), RefusalKind::Invalid);
    let new = meaning(&edited(PANEL, put("other", image, Some("data"))));
    assert_eq!(new["sections"][1]["servers"][0]["name"], "other");
    let moved = edited(
        PANEL,
        Change::Patch { server: "web".into(), patch: json!({}), section: Some(Some("data".into())) },
    );
    let entry = r#"{ "name": "web", "runtimeDefinition": { "type": "docker_image", "image": "mcp/web:1" } }"#;
    assert!(moved.contains(entry) && moved.contains("// first"), "{moved}");
    let meant = meaning(&moved);
    assert_eq!(
        (
            meant["sections"][0]["servers"].as_array().unwrap().len(),
            &meant["sections"][1]["servers"][0]["name"]
        ),
        (1, &json!("web"))
    );
    let gone = meaning(&edited(
        PANEL,
        Change::RemoveSection { section: "search".into(), servers: Orphans::Move(Some("data".into())) },
    ));
    assert_eq!(gone["sections"].as_array().unwrap().len(), 1);
    assert_eq!(gone["sections"][0]["servers"].as_array().unwrap().len(), 2);
    let settings = json!({"environmentVars": {"A": "b"}});
    let put = meaning(&edited(PANEL, Change::PutSection { section: "search".into(), settings, new: false }));
    assert_eq!(put["sections"][0]["servers"].as_array().unwrap().len(), 2);
    assert_eq!(put["sections"][0]["environmentVars"], json!({"A": "b"}));
    let defaults = meaning(&edited(PANEL, Change::Defaults(json!({"resourceLimits": {"memory": "1g"}}))));
    assert_eq!(defaults["globalDefaults"]["resourceLimits"]["memory"], "1g");
}

#[test]
fn what_cannot_be_changed_is_said() {
    let remove = || Change::Remove { server: "a".into() };
    let yaml = apply("mcp-config.yaml", b"servers:\n  a: {}\n", &[remove()]).expect_err("refused");
    assert_eq!(yaml.kind, RefusalKind::Uneditable);
    assert_eq!(refused("{\"mcpServers\": {", remove()), RefusalKind::Uneditable);
    assert_eq!(refused("[]", remove()), RefusalKind::Uneditable);
    assert_eq!(refused(MAP, remove()), RefusalKind::Unknown);
    assert_eq!(refused(r#"{"mcpServers": {"a": {}, "a": {}}}"#, remove()), RefusalKind::Taken);
    assert_eq!(refused(MAP, put("x", json!(3), None)), RefusalKind::Invalid);
    assert_eq!(refused(MAP, put("x", json!({}), Some("nowhere"))), RefusalKind::Unknown);
    let new = Change::Put { server: "time".into(), entry: json!({}), section: None, new: true };
    assert_eq!(refused(MAP, new), RefusalKind::Taken);
}

#[test]
fn an_outline_has_what_is_written() {
    let found = outline::outline("mcp.config.json", MAP).unwrap();
    assert_eq!((found.form.as_str(), found.sections.len(), found.servers.len()), ("map", 2, 2));
    let search = &found.servers[1];
    assert_eq!((search.id.as_deref(), search.section.as_deref()), (Some("my-search"), Some("web")));
    let found = outline::outline("mcp.config.json", PANEL).unwrap();
    assert_eq!((found.form.as_str(), found.sections[0].name.as_str()), ("panel", "search"));
    assert!(found.sections[0].settings.is_empty(), "{:?}", found.sections[0]);
    assert_eq!(outline::outline("a.yaml", MAP), None);
}

const SECRETS: &str = r#"{
  // "API_TOKEN": "planted-in-a-comment"
  "mcpServers": {
    "a": {
      "command": "docker",
      "args": ["run", "-i", "-e", "API_KEY=planted-one", "--env=B=planted-two", "-ePLAIN=planted-three", "-e", "REF=${GH}", "img", "--token", "planted-four", "--api-key=planted-five", "postgres://u:planted-six@h/db", "--port", "80"],
      "env": { "A": "planted \"seven\"", "N": 471113, "R": "${credential:x}", "D": "${X:-planted-eight}" }
    },
    "b": { "url": "https://h/mcp?api_key=planted-nine", "headers": { "Authorization": "Bearer planted-ten" }, "auth_type": "bearer_token", "auth_value": "planted-eleven" }
  }
}
"#;

#[test]
fn secrets_are_hidden_and_come_back() {
    let masked = mask::mask(SECRETS, &HashKey::new([7; 32]));
    assert!(!masked.text.contains("planted") && !masked.text.contains("471113"), "{}", masked.text);
    for kept in [
        "REF=${GH}",
        "${credential:x}",
        "--port\", \"80\"",
        "bearer_token",
        "\"API_KEY=[redacted:",
        "--api-key=[redacted:",
    ] {
        assert!(masked.text.contains(kept), "{kept}: {}", masked.text);
    }
    assert!(meaning(&masked.text).is_object());
    assert_eq!(masked.reveal_text(&masked.text).unwrap(), SECRETS);
    let mut entries = meaning(&masked.text);
    masked.reveal(&mut entries).unwrap();
    assert_eq!(entries, meaning(SECRETS));
    assert!(masked.reveal_text("{\"a\": \"[redacted:0123456789abcdef]\"}").is_err());
    assert!(masked.reveal(&mut json!({"a": ["x [redacted:0123456789abcdef]"]})).is_err());
    assert!(!format!("{masked:?}").contains("planted"));
    let other = mask::mask(SECRETS, &HashKey::new([8; 32]));
    assert_ne!(other.text, masked.text, "the digits are keyed");
}

// ---- for any -------------------------------------------------------------------------------------

/// White space and comments between tokens, with a line end behind a line comment.
fn gap() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just(String::new()),
        3 => Just(" ".to_owned()),
        2 => Just("\n    ".to_owned()),
        1 => Just(" // \"x\": {, mark\n".to_owned()),
        1 => Just(" /* }, mark */ ".to_owned()),
    ]
}

fn value() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i32>().prop_map(Json::from),
        "[a-z\"\\\\/ü{}]{0,6}".prop_map(Json::from),
    ];
    leaf.prop_recursive(2, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::btree_map("[a-c]{1,2}", inner, 0..4)
                .prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    })
}

fn entry() -> impl Strategy<Value = Json> {
    prop::collection::btree_map("[a-d]{1,2}", value(), 0..4)
        .prop_map(|map| Json::Object(map.into_iter().collect()))
}

/// A value as somebody might write it.
fn written(value: &Json, gaps: &mut impl FnMut() -> String, trailing: bool) -> String {
    let end = |count: usize| if trailing && count > 0 { "," } else { "" };
    match value {
        Json::Object(members) => {
            let parts: Vec<String> = members
                .iter()
                .map(|(key, value)| {
                    format!("{}{}:{}{}{}", gaps(), json!(key), gaps(), written(value, gaps, trailing), gaps())
                })
                .collect();
            format!("{{{}{}{}}}", parts.join(","), end(parts.len()), gaps())
        }
        Json::Array(values) => {
            let parts: Vec<String> = values
                .iter()
                .map(|value| format!("{}{}{}", gaps(), written(value, gaps, trailing), gaps()))
                .collect();
            format!("[{}{}{}]", parts.join(","), end(parts.len()), gaps())
        }
        other => other.to_string(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn what_is_not_named_stays(
        entries in prop::collection::btree_map("[a-f]", entry(), 0..5),
        gaps in prop::collection::vec(gap(), 1..60),
        (name, new) in ("[a-h]", entry()),
        (act, trailing) in (0..3_u8, any::<bool>()),
        extra in value(),
    ) {
        let mut at = 0;
        let mut next = || { at += 1; gaps[at % gaps.len()].clone() };
        let sources: std::collections::BTreeMap<&String, String> =
            entries.iter().map(|(name, entry)| (name, written(entry, &mut next, trailing))).collect();
        let parts: Vec<String> =
            sources.iter().map(|(name, source)| format!("{}{}:{}{source}{}", next(), json!(name), next(), next())).collect();
        let end = if trailing && !parts.is_empty() { "," } else { "" };
        let text = format!("{}{{{}\"x\":{extra},\"mcpServers\":{{{}{end}{}}}{}}}\n", next(), next(), parts.join(","), next(), next());
        let before = meaning(&text);
        let change = match act {
            0 => Change::Remove { server: name.clone() },
            1 => put(&name, new.clone(), None),
            _ => patch(&name, new.clone()),
        };
        let there = entries.contains_key(&name);
        let result = apply("mcp.config.json", text.as_bytes(), &[change]);
        if !there && act != 1 {
            prop_assert_eq!(result.expect_err("refused").kind, RefusalKind::Unknown);
            return Ok(());
        }
        let after = result.expect("changed");
        let mut wanted = before.clone();
        let map = wanted["mcpServers"].as_object_mut().unwrap();
        match act {
            0 => { map.remove(&name); }
            1 => { map.insert(name.clone(), new.clone()); }
            _ => super::merge(map.get_mut(&name).unwrap(), &new),
        }
        let read = tree::read(&after);
        prop_assert!(read.is_some(), "not readable:\n{}\nwas:\n{}", after, text);
        prop_assert_eq!(read.unwrap().json(), wanted, "\n{}\nwas:\n{}", after, text);
        // Other entries and comments outside are there, byte for byte and in order.
        let mut from = 0;
        for (other, source) in sources.iter().filter(|(other, _)| **other != &name) {
            let found = after[from..].find(source.as_str());
            prop_assert!(found.is_some(), "'{}' was touched:\n{}\nwas:\n{}", other, after, text);
            from += found.unwrap() + source.len();
        }
        let marks = |text: &str| text.matches("mark").count();
        // One more may stand between its name and its value.
        let own = sources.get(&name).map_or(0, |source| marks(source) + 1);
        prop_assert!(marks(&after) + own >= marks(&text), "a comment is gone:\n{}\nwas:\n{}", after, text);
    }

    #[test]
    fn hiding_and_back_is_the_same(entry in entry(), env in entry(), gaps in prop::collection::vec(gap(), 1..20)) {
        let mut at = 0;
        let mut next = || { at += 1; gaps[at % gaps.len()].clone() };
        let all = json!({"mcpServers": {"a": {"env": env, "API_KEY": "${x:-y}", "more": entry}}});
        let text = written(&all, &mut next, false);
        let masked = mask::mask(&text, &HashKey::new([1; 32]));
        prop_assert_eq!(masked.reveal_text(&masked.text).unwrap(), text);
    }
}
