//! Where the tool proxy is: a path before all servers, a proxy in front, a server's own path.

use super::{World, read, world};
use crate::gateway::http::Entry;
use crate::gateway::places::{Offer, Place};
use crate::gateway::played::{RETRY, id, place};
use crate::gateway::toolproxy::Mount;
use serde_json::{Value, json};
use std::sync::Arc;

impl World {
    /// By the port of its own: status, where it leads, and the answer.
    async fn own(&self, method: &str, path: &str) -> (u16, String, Value) {
        let answer = self.ask_at(Entry::Tools, (method, path), &[], "").await;
        let to = answer.headers().get("location").map(|to| to.to_str().unwrap().to_owned());
        (answer.status().as_u16(), to.unwrap_or_default(), read(answer).await)
    }

    fn mount(&self, prefix: &str, root: &str) {
        self.front.tools.set_mount(Mount { prefix: prefix.to_owned(), root: root.to_owned() });
    }
}

#[tokio::test(start_paused = true)]
async fn on_its_own_port_servers_are_below_a_prefix_and_behind_a_proxy() {
    let mut world = world(None);
    world.play();
    let lost = |said: (u16, String, Value)| said == (404, String::new(), json!({"detail": "Not Found"}));
    world.mount("/tools/all", "");
    assert_eq!(world.own("POST", "/tools/all/time/now").await.0, 200);
    // A beginning of another word is none, nor are the main listener's paths there.
    for path in ["/time/now", "/tools/time/now", "/tools/allx/time/now", "/openapi/time/now", "//time/now"] {
        assert!(lost(world.own("POST", path).await), "{path}");
    }
    assert!(lost(world.own("GET", "/time/openapi.json").await));
    assert_eq!(
        world.own("GET", "/tools/all/time/openapi.json").await.2["servers"][0]["url"],
        "/tools/all/time"
    );
    // What is of all servers mcpo leaves at the root.
    for path in ["/openapi.json", "/tools/all/openapi.json"] {
        let document = world.own("GET", path).await.2;
        assert_eq!(document["servers"][0]["url"], "/tools/all", "{path}");
        assert!(document["paths"]["/time/now"].is_object() && document["paths"].get("/now").is_none());
    }
    for (path, to) in [
        ("/", "/tools/all/docs"),
        ("/tools/all", "/tools/all/docs"),
        ("/tools/all/", "/tools/all/docs"),
        ("/tools/all/time", "/tools/all/time/docs"),
    ] {
        assert_eq!(
            world.own("GET", path).await,
            (303, to.to_owned(), Value::String(String::new())),
            "{path}"
        );
    }
    // The main listener stays as it is.
    assert_eq!(world.post("/openapi/time/now", json!({})).await.0, 200);
    assert_eq!(world.get("/openapi/time/openapi.json").await.1["servers"][0]["url"], "/openapi/time");
    assert_eq!(world.post("/tools/all/time/now", json!({})).await.0, 404);

    world.mount("/tools", "/gateway");
    for path in ["/tools/time/now", "/gateway/tools/time/now"] {
        assert_eq!(world.own("POST", path).await.0, 200, "cut by the proxy in front, or not: {path}");
    }
    assert!(lost(world.own("POST", "/gateway/time/now").await));
    let document = world.own("GET", "/tools/time/openapi.json").await.2;
    assert_eq!(document["servers"][0]["url"], "/gateway/tools/time");
    assert_eq!(world.own("GET", "/").await.1, "/gateway/tools/docs");
    world.mount("", "");
    assert_eq!(world.own("POST", "/time/now").await.0, 200, "a change holds at once");
}

#[tokio::test(start_paused = true)]
async fn a_server_is_at_a_path_of_its_own_too() {
    let mut world = world(None);
    world.play();
    let offer = Arc::new(Offer { openapi_path: Some("team/clock".to_owned()), ..Offer::default() });
    let place = Place { offer, ..(*place("a", RETRY)).clone() };
    world.gateway.set_places(&[(id("time"), Arc::new(place))].into_iter().collect());
    for path in
        ["/openapi/team/clock/now", "/openapi/time/now", "/openapi/team/clock/odd%20name/with%20%C3%BC"]
    {
        assert_eq!(world.post(path, json!({})).await.0, 200, "{path}");
    }
    for path in
        ["/openapi/team/now", "/openapi/team/clocks/now", "/openapi/team/clock/nothing", "/openapi/team"]
    {
        assert_eq!(world.post(path, json!({})).await, (404, json!({"detail": "Not Found"})), "{path}");
    }
    // Whichever way one came, documents name the path that was chosen.
    for path in ["/openapi/team/clock/openapi.json", "/openapi/time/openapi.json"] {
        assert_eq!(world.get(path).await.1["servers"][0]["url"], "/openapi/team/clock", "{path}");
    }
    let index = world.get("/openapi/openapi.json").await.1;
    assert_eq!(index["paths"]["/team/clock/now"]["post"]["operationId"], "tool_team_clock_now_post");
    assert!(index["paths"].get("/time/now").is_none());
    assert!(index["info"]["description"].as_str().unwrap().contains("(/openapi/team/clock/docs)"), "{index}");
    let answer = world.ask("GET", "/openapi/team/clock", &[], "").await;
    assert_eq!(answer.headers()["location"], "/openapi/team/clock/docs");
    world.mount("/tools", "/gateway");
    assert_eq!(world.own("POST", "/tools/team/clock/now").await.0, 200);
    let document = world.own("GET", "/tools/team/clock/openapi.json").await.2;
    assert_eq!(document["servers"][0]["url"], "/gateway/tools/team/clock");
}
