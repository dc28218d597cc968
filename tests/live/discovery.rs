//! Discovery and `doctor` against a real engine and a running daemon.

use crate::support::{Site, engine, eventually, image, stdio};
use serde_json::{Value, json};

/// The label of the official registry.
const LABEL: &str = "io.modelcontextprotocol.server.name";

fn finds(value: &Value) -> Vec<Value> {
    value["finds"].as_array().cloned().unwrap_or_default()
}

#[test]
fn containers_of_others_are_told_of_and_left_alone() {
    let site = Site::new("finds");
    site.write(&json!({ "mine": stdio(&[]) }));
    site.one_shot();
    let name = site.name("stray");
    let id = site.somebody_elses(&name, &[("docker-mcp", "true"), (LABEL, "io.github.ann/stray")]);
    let found = site.run(&["discover", "--json"]).exits(0).json();
    let strays = found["strays"].as_array().expect("a list");
    let stray = strays.iter().find(|stray| stray["name"] == name.as_str());
    let Some(stray) = stray else { panic!("{found}") };
    assert_eq!((&stray["tool"], &stray["orphaned"]), (&json!("Docker MCP gateway"), &Value::Null));
    assert!(!strays.iter().any(|stray| stray["name"] == site.name("mine").as_str()), "ours is none: {found}");
    site.run(&["discover"]).exits(0).says("never touched");
    let (status, seen) = engine("GET", &format!("/containers/{id}/json"), &Value::Null);
    assert!(status == 200 && seen["State"]["Running"] == true, "it goes on: {seen}");
}

/// An image that goes with the test.
struct Image(String);

impl Drop for Image {
    fn drop(&mut self) {
        engine("DELETE", &format!("/images/{}?force=1", self.0), &Value::Null);
    }
}

#[test]
fn images_that_say_what_they_are_are_found() {
    let site = Site::new("labelled");
    site.write(&json!({}));
    let id = site.somebody_elses(&site.name("maker"), &[]);
    let name = format!("mcpo-test/labelled:{}", site.stack);
    let tag = format!("repo=mcpo-test/labelled&tag={}", site.stack);
    let label = format!("changes=LABEL%20{LABEL}=io.github.ann/weather");
    let (status, made) = engine("POST", &format!("/commit?container={id}&{tag}&{label}"), &json!({}));
    assert_eq!(status, 201, "{made}");
    let _image = Image(name.clone());
    let found = site.run(&["discover", "--json"]).exits(0).json();
    let find = finds(&found).into_iter().find(|find| find["place"] == name.as_str()).unwrap_or_default();
    assert_eq!((&find["name"], &find["source"]), (&json!("weather"), &json!("image")), "{found}");
    assert_eq!(find["confidence"], "high", "{find}");
    let line = find["entry"]["args"].as_array().cloned().unwrap_or_default();
    assert!(find["entry"]["command"] == "docker" && line.contains(&json!(name)), "{find}");
}

#[test]
fn the_daemon_searches_when_it_is_asked_and_doctor_is_content() {
    let mut site = Site::new("doc");
    let folder = site.path("projects");
    std::fs::create_dir_all(&folder).expect("a directory");
    let entry = json!({"mcpServers": {"found": {"command": "true", "env": {"K": "planted"}}}});
    std::fs::write(folder.join(".mcp.json"), entry.to_string()).expect("a file");
    site.setting("DISCOVERY__PATHS", &folder.display().to_string());
    site.write(&json!({ "one": stdio(&[]) }));
    let daemon = site.daemon();
    eventually("it runs", 60, || {
        let status = site.run(&["status", "--json"]);
        (status.code == 0 && status.json()["snapshot"]["settled"] == true).then_some(())
    });
    let view = site.run(&["discover", "--rescan", "--json"]).exits(0).json();
    let names: Vec<Value> = finds(&view["found"]).iter().map(|find| find["name"].clone()).collect();
    assert!(names.contains(&json!("found")), "{view}");
    assert!(!view.to_string().contains("planted"), "{view}");
    let said = site.run(&["doctor", "--json"]);
    let value = said.json();
    let check = |topic: &str| {
        let checks = value["checks"].as_array().cloned().unwrap_or_default();
        checks.into_iter().find(|check| check["topic"] == topic).unwrap_or_default()
    };
    assert_eq!(check("engine")["verdict"], "ok", "{value}");
    assert_eq!(check("daemon")["verdict"], "ok", "{value}");
    assert_eq!(check("names")["verdict"], "ok", "{value}");
    let images = check("images");
    assert!(
        images["verdict"] == "ok" && images["evidence"].as_str().unwrap_or_default().contains(&image()),
        "{value}"
    );
    site.run(&["prepare"]).exits(0).says("one: there: image");
    assert_eq!(daemon.stop(), 0);
}
