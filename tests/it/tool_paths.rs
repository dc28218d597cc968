//! Where the tool proxy is, over real HTTP: `[openapi] path_prefix` and `root_path`, the `openapiPath` of an
//! entry, changes of them, and values that cannot be meant.

use crate::doors::demo;
use crate::editing::site::{Reply, Site, eventually};
use serde_json::{Value, json};
use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

/// One request to a port.
fn ask(port: u16, method: &str, path: &str) -> Reply {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let body = if method == "POST" { r#"{"text":"here"}"# } else { "" };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("written");
    Reply::read(stream)
}

fn site(path: &str) -> Site {
    let chosen = json!({"orchestrator": {"openapiPath": path}});
    Site::new(&json!({"mcpServers": {"a": demo(&chosen), "b": demo(&json!({}))}}).to_string())
}

#[test]
fn the_tool_proxy_is_where_settings_and_entries_say_and_moves_with_them() {
    let site = site("/team/git");
    let settings = |more: &str| {
        let text = format!("[openapi]\nport = {}\n{more}", site.spare());
        std::fs::write(site.path("new.conf"), text).expect("a file");
        std::fs::rename(site.path("new.conf"), site.settings()).expect("a file");
    };
    settings("path_prefix = /tools\nroot_path = /gate\n");
    let _daemon = site.start(&[]);
    let (own, main) = (site.spare(), site.main());
    let post = |port: u16, path: &str| ask(port, "POST", path).status;
    for path in [
        "/tools/b/echo",
        "/gate/tools/b/echo",
        "/tools/team/git/echo",
        "/tools/a/echo",
        "/gate/tools/team/git/echo",
    ] {
        eventually(path, || post(own, path) == 200);
    }
    for path in [
        "/b/echo",
        "/gate/b/echo",
        "/team/git/echo",
        "/toolsb/echo",
        "/tools/gate/b/echo",
        "/gate/gate/tools/b/echo",
        "/openapi/b/echo",
        "/tools/team/echo",
        "/tools//b/echo",
        "/TOOLS/b/echo",
    ] {
        let reply = ask(own, "POST", path);
        assert_eq!((reply.status, reply.json()), (404, json!({"detail": "Not Found"})), "{path}");
    }
    for path in ["/tools/../b/echo", "/tools/%2e%2e/b/echo", "/tools%2Fb/echo", "/tools/./b/echo"] {
        assert_eq!(post(own, path), 400, "{path}");
    }
    let document = |port: u16, path: &str| ask(port, "GET", path).json();
    let at = |document: &Value| document["servers"][0]["url"].clone();
    assert_eq!(at(&document(own, "/tools/team/git/openapi.json")), "/gate/tools/team/git");
    assert_eq!(
        at(&document(own, "/tools/a/openapi.json")),
        "/gate/tools/team/git",
        "the one that was chosen"
    );
    assert_eq!(at(&document(own, "/gate/tools/b/openapi.json")), "/gate/tools/b");
    let index = document(own, "/openapi.json");
    assert_eq!(at(&index), "/gate/tools");
    assert!(index["paths"]["/team/git/echo"].is_object() && index["paths"]["/b/echo"].is_object(), "{index}");
    for (path, to) in [
        ("/", "/gate/tools/docs"),
        ("/tools/b", "/gate/tools/b/docs"),
        ("/tools/team/git/", "/gate/tools/team/git/docs"),
    ] {
        let reply = ask(own, "GET", path);
        assert_eq!((reply.status, reply.header("location")), (303, to), "{path}");
    }
    // Its page leads to its own document, and the main listener is as it was.
    assert!(ask(own, "GET", "/tools/b/docs").body.contains("/gate/tools/b"));
    assert_eq!((post(main, "/openapi/b/echo"), post(main, "/openapi/team/git/echo")), (200, 200));
    assert_eq!((post(main, "/tools/b/echo"), post(main, "/openapi/tools/b/echo")), (404, 404));
    assert_eq!(at(&document(main, "/openapi/a/openapi.json")), "/openapi/team/git");

    it_moves(&site, settings);
}

/// What changes holds at once, and what cannot be meant changes nothing.
fn it_moves(site: &Site, settings: impl Fn(&str)) {
    let own = site.spare();
    let post = |port: u16, path: &str| ask(port, "POST", path).status;
    settings("path_prefix = /other\n");
    eventually("it moved", || post(own, "/other/b/echo") == 200 && post(own, "/tools/b/echo") == 404);
    assert_eq!(ask(own, "GET", "/other/b/openapi.json").json()["servers"][0]["url"], "/other/b");
    settings("path_prefix = other\n");
    eventually("the mistake is told", || site.get("/api/v1/status").body.contains("path_prefix"));
    assert_eq!(post(own, "/other/b/echo"), 200, "and what was good goes on");
    settings("");
    eventually("it is at the root", || post(own, "/b/echo") == 200 && post(own, "/team/git/echo") == 200);
    site.write(&json!({"mcpServers": {"a": demo(&json!({})), "b": demo(&json!({}))}}).to_string());
    eventually("the path is gone", || post(own, "/team/git/echo") == 404 && post(own, "/a/echo") == 200);
}

#[test]
fn paths_that_cannot_be_meant_are_told_with_their_place() {
    let site = site("/team/git");
    let settings =
        |more: &str| std::fs::write(site.settings(), format!("[openapi]\n{more}\n")).expect("a file");
    let validate = || {
        let output = site.command(&["validate"]).output().expect("the program");
        let told = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(told).expect("text"))
    };
    for bad in [
        "tools",
        "/",
        "/tools/",
        "//tools",
        "/a//b",
        "/..",
        "/a/../b",
        "/a/./b",
        "/a b",
        "/a?b",
        "/a#b",
        "/a%2Fb",
        "/ä",
        "http://x/tools",
    ] {
        for key in ["path_prefix", "root_path"] {
            settings(&format!("port = {}\n{key} = {bad}", site.spare()));
            let (good, told) = validate();
            assert!(!good && told.contains(key) && told.contains("settings.conf:3"), "{key} = {bad}: {told}");
        }
    }
    for key in ["path_prefix", "root_path"] {
        settings(&format!("{key} = /tools"));
        let (good, told) = validate();
        assert!(!good && told.contains("set [openapi] port"), "without a port: {told}");
    }
    settings(&format!("port = {}\npath_prefix = /t/a-b_c.d\nroot_path = /g", site.spare()));
    let (good, told) = validate();
    assert!(good, "{told}");
    for bad in [
        json!("/"),
        json!(""),
        json!("team"),
        json!("/a//b"),
        json!("/a/../b"),
        json!("/a%2Fb"),
        json!("/ä"),
        json!("/a b"),
        json!("/a?b"),
        json!("/docs"),
        json!("/openapi.json"),
        json!("/b/x"),
        json!("/a"),
        json!(7),
        json!(["/x"]),
    ] {
        let chosen = json!({"orchestrator": {"openapiPath": bad}});
        site.write(&json!({"mcpServers": {"a": demo(&chosen), "b": demo(&json!({}))}}).to_string());
        let (good, told) = validate();
        assert!(!good && told.contains("openapiPath"), "{bad}: {told}");
    }
}
