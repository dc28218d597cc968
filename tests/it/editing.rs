//! Edits of mcp.config.json through a real daemon: over the network and over the control socket, by
//! one and by a hundred at once. No engine is there, and none is needed.

mod bulk;
mod lists;
mod settings;
pub(crate) mod site;

use serde_json::{Value, json};
use site::{Reply, Site, eventually};
use std::collections::BTreeSet;

/// A server that takes no port and is asked for by nobody.
fn off(url: &str) -> Value {
    json!({ "url": url, "disabled": true })
}

const TEXT: &str = r#"{
  // Servers of the team.
  "mcpServers": {
    "one": { "url": "https://one.example/mcp", "disabled": true, "headers": { "Authorization": "Bearer planted-1" } }, // mine
    "two": { "url": "https://two.example/mcp", "disabled": true, "x-kept": [1, 2] }
  },
  "orchestrator": { "sections": { "web": { "limits": { "memory": "1g" } } } }
}
"#;

#[track_caller]
fn refused(reply: &Reply, status: u16, code: &str) {
    let body = reply.json();
    assert_eq!((reply.status, body["code"].as_str()), (status, Some(code)), "{body}");
    assert!(body["hint"].is_string() || body["problems"].is_array(), "{body}");
}

#[test]
fn an_edit_is_shown_then_written_then_in_force() {
    let site = Site::new(TEXT);
    let _daemon = site.start(&[]);
    let entry = off("https://three.example/mcp");
    let shown = site.put("/api/v1/servers/three?dry_run=true&section=web", &entry);
    let preview = shown.json();
    assert_eq!((shown.status, &preview["accepted"]), (200, &json!(true)), "{preview}");
    let diff = preview["diff"].as_str().expect("a diff");
    assert!(diff.contains("+    \"three\": {\n") && !diff.contains("planted"), "{diff}");
    assert_eq!(preview["servers"], json!(["three"]));
    assert!(preview["plan"]["text"].is_string(), "{preview}");
    assert_eq!(site.text(), TEXT, "nothing is written");

    let task = site.put("/api/v1/servers/three?wait=30s&section=web", &entry);
    assert_eq!((task.status, &task.json()["state"]), (200, &json!("done")), "{}", task.json());
    assert!(
        site.text().starts_with(TEXT.split("    \"two\"").next().expect("a beginning")),
        "{}",
        site.text()
    );
    let view = site.get("/api/v1/servers/three").json();
    assert_eq!((&view["section"], &view["enabled"]), (&json!("web"), &json!(false)), "{view}");
    let memory = view["settings"].as_array().expect("settings").iter().find(|s| s["key"] == "limits.memory");
    assert_eq!(memory.map(|setting| &setting["origin"]), Some(&json!("section web")), "{view}");
    let audit = site.get("/api/v1/audit").json();
    let line =
        audit.as_array().expect("lines").iter().find(|line| line["what"] == "edit: put server 'three'");
    assert_eq!(
        line.map(|line| (&line["by"], &line["result"])),
        Some((&json!("admin"), &json!("ok"))),
        "{audit}"
    );

    let generation = |site: &Site| site.status()["configuration"]["generation"].as_u64().expect("a number");
    let before = generation(&site);
    let patched = site.patch("/api/v1/servers/two?wait=30s", &json!({"description": "the second"}));
    assert_eq!(patched.status, 200, "{}", patched.json());
    assert_eq!(generation(&site), before + 1, "one edit is one generation");
    assert!(site.text().contains(r#""x-kept": [1, 2], "description": "the second" }"#), "{}", site.text());
    assert_eq!(site.backups(), 2);
    let gone = site.delete("/api/v1/servers/three?wait=30s");
    assert_eq!(gone.status, 200, "{}", gone.json());
    assert_eq!(site.get("/api/v1/servers/three").status, 404);
    assert_eq!(site.delete("/api/v1/servers/three").status, 404);
}

#[test]
fn a_whole_text_goes_out_without_secrets_and_comes_back_with_them() {
    let site = Site::new(TEXT);
    let _daemon = site.start(&[]);
    let panel = site.get("/api/v1/panel");
    let document = panel.json();
    let content = document["content"].as_str().expect("a text");
    assert!(
        !content.contains("planted") && content.contains("Bearer") != content.contains("[redacted:"),
        "{content}"
    );
    assert_eq!(panel.header("etag"), document["etag"].as_str().expect("a version"));
    let new = json!({ "content": content.replace("two.example", "zwei.example") });
    refused(&site.put("/api/v1/panel", &new), 428, "MCPO-E002");
    refused(&site.matching("PUT", "/api/v1/panel", &new, "\"0\""), 412, "MCPO-E001");
    let done = site.matching("PUT", "/api/v1/panel?wait=30s", &new, panel.header("etag"));
    assert_eq!(done.status, 200, "{}", done.json());
    assert_eq!(site.text(), TEXT.replace("two.example", "zwei.example"));
    refused(&site.matching("PUT", "/api/v1/panel", &new, panel.header("etag")), 412, "MCPO-E001");
    let broken = json!({ "content": "{\"mcpServers\": {\n  \"a\": }" });
    let bad = site.matching("PUT", "/api/v1/panel", &broken, "*");
    refused(&bad, 422, "MCPO-E004");
    let place = &bad.json()["problems"][0];
    assert_eq!((&place["line"], &place["code"]), (&json!(2), &json!("MCPO-C002")), "{place}");
    let entry = site.get("/api/v1/servers/one/entry").json();
    assert_eq!(entry["section"], Value::Null);
    assert!(
        entry["entry"]["headers"]["Authorization"].as_str().is_some_and(|v| v.starts_with("[redacted:")),
        "{entry}"
    );
    let mut wanted = entry["entry"].clone();
    wanted["description"] = "changed".into();
    assert_eq!(site.put("/api/v1/servers/one?wait=30s", &wanted).status, 200);
    assert!(site.text().contains("Bearer planted-1"), "{}", site.text());
    // What others wrote meanwhile is not overwritten unseen.
    let seen = site.get("/api/v1/panel");
    site.write(&site.text().replace("zwei", "deux"));
    refused(
        &site.matching("PATCH", "/api/v1/servers/one", &json!({"description": "x"}), seen.header("etag")),
        412,
        "MCPO-E001",
    );
}

/// Entries that reach beyond a container, and some that do not.
const REACHING: &str = r#"{ "mcpServers": {
  "files": { "command": "docker", "args": ["run", "-i", "-v", "/srv/in:/in", "mcp/files"], "disabled": true },
  "tool": { "command": "npx", "args": ["-y", "tool"], "disabled": true },
  "plain": { "command": "docker", "args": ["run", "-i", "mcp/plain"], "disabled": true },
  "far": { "url": "https://far.example/mcp", "disabled": true },
  "further": { "url": "https://further.example/mcp", "disabled": true }
} }
"#;

fn docker(args: &[&str]) -> Value {
    json!({ "command": "docker", "args": args, "disabled": true })
}

#[test]
fn what_is_not_for_the_network_is_refused_there() {
    let site = Site::new(REACHING);
    let _daemon = site.start(&[]);
    let driven = "type=volume,target=/x,volume-driver=local,volume-opt=type=tmpfs";
    let mut allowed = docker(&["run", "-i", "--privileged", "mcp/x"]);
    allowed["orchestrator"] = json!({ "allow": ["privileged"] });
    let npx = |more: Value| {
        let mut entry = json!({ "command": "npx", "args": ["-y", "tool"], "disabled": true });
        entry.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        entry
    };
    let tries: &[(&str, Value)] = &[
        ("new", json!({ "command": "sh", "args": ["-c", "id"], "disabled": true })),
        ("new", docker(&["run", "-i", "-v", "/srv/in:/x", "mcp/x"])),
        ("new", docker(&["run", "-i", "--mount", "type=bind,source=/srv/in,target=/x", "mcp/x"])),
        ("new", docker(&["run", "-i", "--mount", driven, "mcp/x"])),
        ("new", docker(&["run", "-i", "--env-file", "/etc/hostname", "mcp/x"])),
        ("new", docker(&["run", "-i", "-e", "A=${file:/etc/hostname}", "mcp/x"])),
        ("new", json!({ "url": "https://x.example/", "headers": { "A": "${file:/etc/hostname}" } })),
        ("new", allowed),
        ("plain", docker(&["run", "-i", "-v", "./here:/x", "mcp/plain"])),
        ("files", docker(&["run", "-i", "-v", "/srv/in:/in", "mcp/other"])),
        ("files", docker(&["run", "-i", "-v", "/srv/in:/in", "-e", "A=b", "mcp/files"])),
        ("tool", npx(json!({ "env": { "NODE_OPTIONS": "-r x" } }))),
        ("far", npx(json!({}))),
    ];
    for (name, entry) in tries {
        let reply = site.put(&format!("/api/v1/servers/{name}"), entry);
        refused(&reply, 403, "MCPO-E005");
        let shown = site.put(&format!("/api/v1/servers/{name}?dry_run=true"), entry);
        assert!(shown.status == 403 || shown.json()["accepted"] == false, "{entry}");
    }
    refused(&site.put("/api/v1/panel/defaults", &json!({ "env": { "LD_PRELOAD": "x" } })), 403, "MCPO-E005");
    let whole = json!({ "content": REACHING.replace("\"tool\"]", "\"other\"]") });
    refused(&site.matching("PUT", "/api/v1/panel", &whole, "*"), 403, "MCPO-E005");
    assert_eq!(site.text(), REACHING, "nothing was written");
    let audit = site.get("/api/v1/audit?result=refused").json();
    assert!(audit.as_array().is_some_and(|lines| lines.len() >= tries.len()), "{audit}");
}

#[test]
fn what_reaches_further_may_stay_and_the_socket_may_set_it() {
    let site = Site::new(REACHING);
    let daemon = site.start(&[]);
    // Without an engine tasks of containers last.
    for name in ["files", "tool"] {
        let change = json!({ "description": "mine", "orchestrator": { "limits": { "memory": "1g" } } });
        let reply = site.patch(&format!("/api/v1/servers/{name}"), &change);
        assert_eq!(reply.status, 202, "{name}: {}", reply.json());
    }
    let plain = docker(&["run", "-i", "-v", "data:/x", "mcp/other"]);
    assert_eq!(site.put("/api/v1/servers/plain", &plain).status, 202);
    let limits = json!({ "limits": { "memory": "1g" } });
    let next = json!({ "command": "npx", "args": ["-y", "next"], "disabled": true, "orchestrator": limits });
    assert_eq!(site.socket("PUT", "/api/v1/servers/tool?wait=30s", &next).0, 200);
    assert!(site.text().contains("\"next\""), "{}", site.text());
    let entry = r#"{"command":"uvx"}"#;
    let shown =
        site.command(&["set-server", "tool", entry, "--patch", "--dry-run"]).output().expect("the program");
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.status.success() && text.contains("uvx"), "{text}{shown:?}");
    let set =
        site.command(&["set-server", "tool", entry, "--patch", "--no-wait"]).output().expect("the program");
    assert!(set.status.success() && site.text().contains("\"uvx\""), "{set:?}");
    let why = site.command(&["why", "tool"]).output().expect("the program");
    let why = String::from_utf8_lossy(&why.stdout).into_owned();
    let limit = why.lines().find(|line| line.contains("limits.memory"));
    assert!(limit.is_some_and(|line| line.contains("1g") && line.contains("server, ")), "{why}");
    drop(daemon);
    let _daemon = site.start(&[("MCP_ORCHESTRATOR__DASHBOARD__FULL_CONTROL", "true")]);
    let reply = site.put("/api/v1/servers/new", &docker(&["run", "-i", "-v", "/srv/in:/x", "mcp/x"]));
    assert_eq!(reply.status, 202, "{}", reply.json());
}

#[test]
fn a_hundred_editors_lose_nothing() {
    let site = Site::new("{\n  // kept\n  \"mcpServers\": {}\n}\n");
    let _daemon = site.start(&[]);
    let names: Vec<String> = (0..100).map(|n| format!("s{n:02}")).collect();
    std::thread::scope(|scope| {
        for (n, name) in names.iter().enumerate() {
            let site = &site;
            scope.spawn(move || {
                let entry = off(&format!("https://{name}.example/mcp"));
                if n % 2 == 0 {
                    let reply = site.put(&format!("/api/v1/servers/{name}"), &entry);
                    assert_eq!(reply.status, 202, "{name}: {}", reply.json());
                    return;
                }
                // Whole texts, made anew until nobody came in between.
                for _ in 0..500 {
                    let panel = site.get("/api/v1/panel");
                    let text = panel.json()["content"].as_str().expect("a text").to_owned();
                    let line = format!("\"mcpServers\": {{\n    \"{name}\": {entry}, // by {name}\n");
                    let new = json!({ "content": text.replacen("\"mcpServers\": {", &line, 1) });
                    let reply = site.matching("PUT", "/api/v1/panel", &new, panel.header("etag"));
                    if reply.status == 202 {
                        return;
                    }
                    assert_eq!(reply.status, 412, "{name}: {}", reply.json());
                }
                panic!("{name} never came through");
            });
        }
    });
    let text = site.text();
    assert!(text.contains("// kept"), "{text}");
    for (n, name) in names.iter().enumerate() {
        assert!(text.contains(&format!("https://{name}.example/mcp")), "{name} is lost:\n{text}");
        assert!(
            n % 2 == 0 || text.contains(&format!("// by {name}")),
            "the comment of {name} is lost:\n{text}"
        );
    }
    eventually("all are known", || {
        site.get("/api/v1/servers").json().as_array().is_some_and(|all| all.len() == 100)
    });
    assert_eq!(site.backups(), 10, "bounded");
}

#[test]
fn sections_and_removals_are_guarded() {
    let site = Site::new(TEXT);
    let _daemon = site.start(&[]);
    let made = site.post(
        "/api/v1/sections?wait=30s",
        &json!({ "name": "Data Tools", "settings": { "pull": "always" } }),
    );
    assert_eq!(made.status, 200, "{}", made.json());
    refused(&site.post("/api/v1/sections", &json!({ "name": "web" })), 409, "MCPO-E006");
    let moved = site.patch("/api/v1/servers/one?section=data-tools&wait=30s", &json!({}));
    assert_eq!(moved.status, 200, "{}", moved.json());
    let sections = site.get("/api/v1/sections").json();
    let of = |id: &str| {
        sections.as_array().expect("a list").iter().find(|s| s["id"] == id).cloned().unwrap_or_default()
    };
    assert_eq!(
        (&of("data-tools")["servers"], &of("data-tools")["name"]),
        (&json!(["one"]), &json!("Data Tools")),
        "{sections}"
    );
    assert_eq!((&of("web")["servers"], &of("web")["declared"]), (&json!([]), &json!(true)), "{sections}");
    assert_eq!(site.post("/api/v1/sections/web/start", &json!({})).status, 409, "it has no servers");
    refused(&site.delete("/api/v1/sections/data-tools"), 409, "MCPO-E007");
    let gone = site.delete("/api/v1/sections/data-tools?servers=move&to=web&wait=30s");
    assert_eq!(gone.status, 200, "{}", gone.json());
    assert_eq!(site.get("/api/v1/servers/one").json()["section"], "web");
    assert_eq!(
        site.put("/api/v1/sections/web?wait=30s", &json!({ "limits": { "memory": "2g" } })).status,
        200
    );
    assert!(site.text().contains(r#""web": { "limits": { "memory": "2g" } }"#), "{}", site.text());
    refused(&site.put("/api/v1/sections/web", &json!({ "limits": { "memory": "much" } })), 422, "MCPO-E004");
    refused(&site.put("/api/v1/servers/one?section=nowhere", &off("https://x.example/")), 404, "MCPO-H002");
    refused(&site.post("/api/v1/servers", &json!({ "name": "one", "entry": {} })), 409, "MCPO-E006");
    refused(
        &site.post("/api/v1/servers", &json!({ "name": "One", "entry": off("https://x.example/") })),
        422,
        "MCPO-E004",
    );
    refused(
        &site.post("/api/v1/servers", &json!({ "name": "docs", "entry": off("https://x.example/") })),
        422,
        "MCPO-E004",
    );
    let unreadable: [&str; 3] = ["[]", "{", "\"x\""];
    for body in unreadable {
        assert_eq!(site.send("PUT", "/api/v1/servers/one", body, &[]).status, 400, "{body}");
    }
    let schema = site.get("/api/v1/panel/schema").json();
    assert!(schema["properties"]["mcpServers"].is_object(), "{schema}");
}

#[test]
fn a_file_that_cannot_be_written_is_a_conflict() {
    use std::os::unix::fs::PermissionsExt as _;
    let site = Site::new(TEXT);
    let _daemon = site.start(&[]);
    std::fs::set_permissions(site.config(), std::fs::Permissions::from_mode(0o444)).expect("a mode");
    let document = site.get("/api/v1/panel").json();
    assert!(document["writable"] == false && document["readOnly"].is_string(), "{document}");
    refused(&site.delete("/api/v1/servers/one"), 409, "MCPO-E003");
    assert_eq!(site.text(), TEXT);
    let names: BTreeSet<String> = site.names();
    assert!(names.iter().all(|name| !name.ends_with(".new") && !name.ends_with(".bak")), "{names:?}");
}

#[test]
fn a_server_is_started_by_its_image_and_kept() {
    let site = Site::new(TEXT);
    let _daemon = site.start(&[]);
    // Without an engine it is not running in time, but it is in the file.
    let reply = site.post("/servers/clock/start", &json!({ "image": "mcp/example:latest" }));
    assert!(reply.status == 200 || reply.json()["error"].is_string(), "{}", reply.json());
    let found = site.get("/api/v1/servers/clock").json();
    assert_eq!(found["section"], "adhoc", "{found}");
    assert!(
        site.text().contains(r#""args": ["run", "--rm", "-i", "mcp/example:latest"]"#),
        "{}",
        site.text()
    );
    let other = site.post("/servers/two/start", &json!({ "image": "mcp/example:latest" }));
    assert_eq!(other.status, 409, "{}", other.json());
    let odd = site.post("/servers/odd/start", &json!({ "image": "--privileged" }));
    assert_eq!(odd.status, 400, "{}", odd.json());
    assert_eq!(site.post("/servers/nobody/start", &json!({})).status, 404);
}
