//! Tokens with scopes: what they see and may call by HTTP and over MCP, and where a token does not belong.

use super::{World, world};
use crate::gateway::guard::tokens::TokenSet;
use crate::gateway::guard::{Auth, Policy};
use crate::gateway::lists::ListKind;
use crate::gateway::places::{Offer, Place};
use crate::gateway::played::{RETRY, id, place};
use crate::model::access::ToolPolicy;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const TOKENS: &str = "\
bot:one tools=time/now,sum\n\
shown:two tools=time/clock\n\
other:three servers=git*\n\
all:four\n";

/// `now` is called `clock` by clients.
fn scoped() -> World {
    let mut world = world(None);
    world.play();
    let rename = BTreeMap::from([("now".to_owned(), "clock".to_owned())]);
    let offer = Arc::new(Offer { tools: ToolPolicy { rename, ..ToolPolicy::default() }, ..Offer::default() });
    let place = Place { offer, ..(*place("a", RETRY)).clone() };
    world.gateway.set_places(&[(id("time"), Arc::new(place))].into_iter().collect());
    let auth = Auth::Tokens(TokenSet::parse(TOKENS).expect("tokens"));
    world.front.guard.set(Policy { auth, ..Policy::default() });
    world
}

impl World {
    async fn with(&self, token: &str, (method, path): (&str, &str), body: &str) -> (u16, Value) {
        let token = format!("Bearer {token}");
        let answer = self.ask(method, path, &[("authorization", &token)], body).await;
        (answer.status().as_u16(), super::read(answer).await)
    }

    /// A request over MCP, without a session.
    async fn mcp(&self, token: &str, path: &str, (method, name): (&str, &str)) -> Value {
        let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {}});
        let mut params = json!({ "_meta": meta });
        if !name.is_empty() {
            params["name"] = name.into();
        }
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let token = format!("Bearer {token}");
        let mut headers = vec![
            ("authorization", token.as_str()),
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-method", method),
        ];
        if !name.is_empty() {
            headers.push(("mcp-name", name));
        }
        super::read(self.ask("POST", path, &headers, &body.to_string()).await).await
    }
}

fn paths(document: &Value) -> BTreeSet<&str> {
    document["paths"].as_object().expect("paths").keys().map(String::as_str).collect()
}

#[tokio::test(start_paused = true)]
async fn a_scope_names_a_tool_as_its_server_does_and_opens_it_under_the_name_that_is_shown() {
    let world = scoped();
    let (_, document) = world.with("one", ("GET", "/openapi/time/openapi.json"), "").await;
    assert_eq!(paths(&document), ["/clock", "/sum"].into());
    assert_eq!(world.with("one", ("POST", "/openapi/time/clock"), "{}").await.0, 200);
    for hidden in ["now", "hold", "get_current_time"] {
        let said = world.with("one", ("POST", &format!("/openapi/time/{hidden}")), "{}").await;
        assert_eq!(said, (404, json!({"detail": "Not Found"})), "{hidden}");
    }
    // A scope that names it as clients do opens nothing: servers' own names are what tools are told by.
    let (_, document) = world.with("two", ("GET", "/openapi/openapi.json"), "").await;
    assert_eq!(paths(&document), [].into());
    assert_eq!(world.with("two", ("POST", "/openapi/time/clock"), "{}").await.0, 404);
    assert_eq!(world.with("three", ("POST", "/openapi/time/clock"), "{}").await.0, 404);
    assert!(paths(&world.with("four", ("GET", "/openapi/time/openapi.json"), "").await.1).len() > 5);
    for (path, prefix) in [("/mcp/time", ""), ("/mcp", "time__")] {
        for (token, tool, good) in [
            ("one", "clock", true),
            ("one", "now", false),
            ("one", "hold", false),
            ("two", "clock", false),
            ("two", "now", false),
            ("three", "clock", false),
            ("four", "clock", true),
        ] {
            let said = world.mcp(token, path, ("tools/call", &format!("{prefix}{tool}"))).await;
            assert_eq!(said["result"]["content"].is_array(), good, "{path} {token} {tool}: {said}");
        }
        let listed = world.mcp("one", path, ("tools/list", "")).await;
        let tools = listed["result"]["tools"].as_array().unwrap_or_else(|| panic!("{listed}"));
        let names: BTreeSet<&str> = tools.iter().map(|tool| tool["name"].as_str().expect("a name")).collect();
        let wanted = ["clock", "sum"].map(|name| format!("{prefix}{name}"));
        assert_eq!(names, wanted.iter().map(String::as_str).collect(), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_of_a_scope_make_its_list_once_and_a_changed_list_anew() {
    let world = scoped();
    let entry = world.gateway.entry(&id("time")).expect("the server");
    let made = || entry.lists.last(ListKind::Tools).expect("tools").operations(&entry.slot.id).all().to_vec();
    for _ in 0..3 {
        assert_eq!(world.with("one", ("POST", "/openapi/time/clock"), "{}").await.0, 200);
    }
    let before = made();
    // One for the list of all, one for what its scope sees; no call made another.
    let sum = before.iter().find(|one| one.tool == "sum").expect("sum");
    assert_eq!(Arc::strong_count(sum), 3, "here, in the list, in what the scope sees");
    for _ in 0..3 {
        assert_eq!(world.with("one", ("POST", "/openapi/time/clock"), "{}").await.0, 200);
    }
    assert!(made().iter().zip(&before).all(|(new, old)| Arc::ptr_eq(new, old)));
    assert_eq!(Arc::strong_count(sum), 3);
    entry.lists.forget(ListKind::Tools);
    assert_eq!(world.with("one", ("POST", "/openapi/time/clock"), "{}").await.0, 200);
    assert_eq!(Arc::strong_count(sum), 1, "nothing of the old list is left");
}

#[tokio::test(start_paused = true)]
async fn a_token_in_the_address_opens_nothing_and_stands_in_no_answer() {
    let world = scoped();
    let bare = |path: String| {
        let world = &world;
        async move {
            let answer = world.ask("POST", &path, &[("content-type", "application/json")], "{}").await;
            (answer.status().as_u16(), format!("{:?}", answer.headers()), super::text(answer).await)
        }
    };
    for door in ["/openapi/time/clock", "/mcp/time", "/mcp"] {
        for query in
            ["access_token=four", "token=four", "api_key=four", "key=four", "authorization=Bearer%20four"]
        {
            let (status, headers, body) = bare(format!("{door}?{query}")).await;
            assert_eq!(status, 401, "{door}?{query}");
            assert!(!headers.contains("four") && !body.contains("four"), "{door}: {headers} {body}");
        }
        let before = world.with("four", ("POST", &format!("{door}?x=1")), "{}").await.0;
        assert_ne!(before, 401, "{door}");
    }
    // A form in the body is no place for one either (RFC 6750, 2.2).
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let answer = world.ask("POST", "/openapi/time/clock", &form, "access_token=four").await;
    assert_eq!(answer.status(), 401);
}
