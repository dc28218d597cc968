//! The main listener (`[dashboard] port`): every server behind one port.

use crate::gateway::client::{At, LEGACY, MODERN, fixture};
use crate::gateway::wire::Ask;
use crate::support::{Site, eventually};
use serde_json::{Value, json};

/// Two servers that answer, and where they are on the main listener.
fn two(site: &Site) -> [At; 2] {
    ["old", "new"].map(|server| {
        let edge = At::of(site, server);
        eventually("the server answers", 40, || {
            (Ask::new("GET", "/healthz").try_send(edge.port).ok()?.status == 200).then_some(())
        });
        At { port: site.main_port(), ..edge }
    })
}

fn servers() -> Value {
    json!({ "old": fixture(&["--era", "legacy"]), "new": fixture(&["--era", "modern"]) })
}

#[test]
fn every_server_answers_both_eras_on_the_main_port_to_this_host_alone() {
    let site = Site::new("gw-main");
    site.write(&servers());
    let _daemon = site.daemon();
    let probe = |path: &str| Ask::new("GET", path).send(site.main_port()).status;
    for at in two(&site) {
        for tail in ["", "/", "/mcp"] {
            let at = At { path: format!("{}{tail}", at.path), ..at.clone() };
            let client = at.open();
            assert_eq!(client.call("echo", &json!({"message": "one port"})), "one port", "{}", at.path);
            assert_eq!(at.modern_call("echo", &json!({"message": "two eras"})), "two eras", "{}", at.path);
            assert!((200..300).contains(&client.delete()));
        }
        // A session is the server's, not the port's.
        let mut client = at.open();
        let edge = At::of(&site, at.path.trim_start_matches("/mcp/"));
        client.at = edge;
        assert_eq!(client.call("echo", &json!({"message": "same"})), "same");
        // The pair of 2024-11-05 is told the address by which it can be reached.
        let stream = Ask::events(&format!("{}/sse", at.path)).send(at.port).stream();
        let first = stream.next(std::time::Duration::from_secs(5)).expect("an event");
        assert!(first.name == "endpoint" && first.data.starts_with(&format!("{}/messages?", at.path)));
        let server = at.path.trim_start_matches("/mcp/");
        assert_eq!(probe(&format!("/healthz/{server}")), 200);
        // Whoever comes by a proxy is not on this host.
        for (name, value) in [("Forwarded", "for=192.0.2.7"), ("X-Forwarded-For", "192.0.2.7")] {
            let asks = [
                at.post("{}"),
                Ask::events(&at.path),
                Ask::new("DELETE", &at.path),
                Ask::events(&format!("{}/sse", at.path)),
                at.modern("1", "tools/list", "{}", "{}"),
            ];
            for ask in asks {
                let refused = ask.with(name, value).send(at.port);
                let status = refused.status;
                assert_eq!((status, refused.json()["code"].as_str()), (403, Some("MCPO-G003")), "{name}");
            }
        }
    }
    assert_eq!((probe("/healthz"), probe("/healthz/none")), (200, 404));
    let nobody = At { port: site.main_port(), path: "/mcp/none".to_owned(), auth: None };
    assert_eq!(nobody.greet(LEGACY, &json!({})).status, 404);
}

#[test]
fn tokens_open_the_main_port_to_whoever_has_one_also_by_a_proxy() {
    let mut site = Site::new("gw-main-auth");
    std::fs::write(site.path("tokens"), "ci:s3cret-ci\nlaptop:s3cret-laptop\n").expect("a file");
    site.setting("GATEWAY__AUTH", "bearer");
    site.setting("GATEWAY__TOKENS_FILE", &site.path("tokens").display().to_string());
    site.write(&servers());
    let _daemon = site.daemon();
    for at in two(&site) {
        for auth in [None, Some("Bearer wrong"), Some("Basic Y2k6d3Jvbmc=")] {
            let at = At { auth: auth.map(str::to_owned), ..at.clone() };
            let refused = at.greet(LEGACY, &json!({}));
            assert_eq!((refused.status, refused.header("www-authenticate").is_empty()), (401, false));
            assert_eq!(at.modern("1", "tools/list", "{}", "{}").send(at.port).status, 401);
        }
        let ours = at.authorized("Bearer s3cret-ci");
        let client = ours.open();
        assert_eq!(client.call("echo", &json!({"message": "in"})), "in");
        assert_eq!(ours.modern_call("echo", &json!({"message": "in"})), "in");
        let proxied = client.call_ask("echo", &json!({"message": "by a proxy"}));
        assert_eq!(proxied.with("X-Forwarded-For", "192.0.2.7").send(at.port).status, 200);
        let mut thief = client.clone();
        thief.at = at.authorized("Bearer s3cret-laptop");
        assert_eq!(thief.post(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).status, 404);
        let server = at.path.trim_start_matches("/mcp/");
        let probe = Ask::new("GET", &format!("/healthz/{server}")).send(at.port);
        assert_eq!(probe.status, 200, "probes bring no token");
    }
}

#[test]
fn pages_of_allowed_origins_may_use_it_and_others_may_not() {
    let mut site = Site::new("gw-cors");
    std::fs::write(site.path("tokens"), "ci:s3cret-ci\n").expect("a file");
    site.setting("GATEWAY__AUTH", "bearer");
    site.setting("GATEWAY__TOKENS_FILE", &site.path("tokens").display().to_string());
    site.setting("GATEWAY__ALLOWED_ORIGINS", "https://chat.example.com");
    site.write(&servers());
    let _daemon = site.daemon();
    let [old, new] = two(&site);
    let page = "https://chat.example.com";
    for at in [&old, &new, &At::of(&site, "old")] {
        let ask = |origin: &str| {
            let ask = Ask::new("OPTIONS", &at.path).with("Origin", origin);
            let ask = ask.with("Access-Control-Request-Method", "POST");
            ask.with("Access-Control-Request-Headers", "authorization,mcp-session-id").send(at.port)
        };
        let allowed = ask(page);
        assert_eq!((allowed.status, allowed.header("access-control-allow-origin")), (204, page));
        for name in ["Authorization", "Mcp-Session-Id", "Mcp-Protocol-Version", "Last-Event-ID"] {
            assert!(allowed.header("access-control-allow-headers").contains(name), "{name}");
        }
        let refused = ask("https://evil.example");
        assert_eq!((refused.status, refused.header("access-control-allow-origin")), (403, ""));
        // And then the request itself.
        let at = at.authorized("Bearer s3cret-ci");
        let list = at.modern("1", "tools/list", "{}", "{}").with("Origin", page).send(at.port);
        assert_eq!((list.status, list.header("access-control-allow-origin")), (200, page), "{MODERN}");
        let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "page", "version": "1"}}});
        let opened = at.post(&hello.to_string()).with("Origin", page).send(at.port);
        assert_eq!(opened.status, 200);
        assert!(opened.header("access-control-expose-headers").contains("Mcp-Session-Id"));
        assert!(!opened.header("mcp-session-id").is_empty());
    }
}
