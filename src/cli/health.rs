//! `health`: whether servers answer, how often they failed and how fast they are, from the report and
//! from what the gateway counts.

use crate::cli::inside::plain;
use crate::cli::online::encode;
use crate::cli::shown::text;
use crate::cli::source::{Source, show};
use crate::terminal::failure::{Exit, Failure};
use crate::terminal::output;
use serde_json::{Value, json};

/// `health`. Fails while a server that is to run does not answer.
pub(super) async fn health(
    source: &Source,
    server: Option<&str>,
    (as_json, watch): (bool, bool),
) -> Result<Exit, Failure> {
    show(watch, async |_alone| {
        // Only the daemon has a connection to them.
        let views = match server {
            None => match source.client.get("/api/v1/servers").await? {
                Value::Object(mut page) => page.get_mut("items").map(Value::take).unwrap_or_default(),
                list => list,
            },
            Some(name) => json!([source.client.get(&format!("/api/v1/servers/{}", encode(name))).await?]),
        };
        let all: Vec<Value> = views.as_array().into_iter().flatten().map(one).collect();
        let well = all.iter().all(|one| matches!(text(one, "health").as_str(), "healthy" | "stopped"));
        let shown = if as_json {
            format!("{}\n", json!({ "schemaVersion": 1, "healthy": well, "servers": all }))
        } else {
            table(&all, (output::width(), output::colour()))
        };
        Ok((shown, if well { Exit::Done } else { Exit::Failed }))
    })
    .await
}

/// One server's health out of its view.
fn one(view: &Value) -> Value {
    let connection = view.get("connection").cloned().unwrap_or_default();
    let up = connection.get("up") == Some(&Value::Bool(true));
    let state = text(view, "state");
    let health = match (state.as_str(), up) {
        ("stopped", _) => "stopped",
        (_, true) => "healthy",
        ("changing" | "waiting", false) => "starting",
        _ => "unhealthy",
    };
    let reason = view.pointer("/reasons/0/text").cloned();
    let why = connection.get("why").filter(|why| why.is_string()).cloned().or(reason);
    let figure = |key: &str| connection.get(key).cloned().unwrap_or_default();
    json!({
        "server": view.get("id"),
        "health": health,
        "state": state,
        "why": why.filter(|_| !up && health != "stopped"),
        "restarts": view.get("restarts"),
        "nextTry": view.get("nextTry"),
        "sessions": figure("sessions"),
        "requests": figure("requests"),
        "errors": figure("errors"),
        "p95Millis": figure("p95Millis"),
    })
}

fn table(all: &[Value], (width, colour): (usize, bool)) -> String {
    let row = |one: &Value| {
        let p95 = one.get("p95Millis").and_then(Value::as_f64);
        vec![
            text(one, "server"),
            text(one, "health"),
            text(one, "restarts"),
            text(one, "requests"),
            text(one, "errors"),
            p95.map_or_else(|| "-".to_owned(), |millis| format!("{millis} ms")),
            one.get("why").and_then(Value::as_str).map(plain).unwrap_or_default(),
        ]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    let head = ["SERVER", "HEALTH", "RESTARTS", "REQUESTS", "ERRORS", "P95", "WHY"];
    output::table(&head, &rows, width, colour)
}

#[cfg(test)]
mod tests {
    use super::{one, table};
    use serde_json::json;

    #[test]
    fn health_is_what_the_connection_says() {
        let views = [
            json!({"id": "time", "state": "converged", "restarts": 0, "reasons": [],
                   "connection": {"up": true, "why": null, "sessions": 2, "requests": 10, "errors": 1, "p95Millis": 5.0}}),
            json!({"id": "web", "state": "converged", "restarts": 3, "reasons": [],
                   "connection": {"up": false, "why": "it does not answer\u{7}", "sessions": 0, "requests": 0, "errors": 0, "p95Millis": null}}),
            json!({"id": "new", "state": "waiting", "restarts": 0, "reasons": [{"text": "its image is pulled"}]}),
            json!({"id": "off", "state": "stopped", "restarts": 0, "reasons": [{"text": "disabled in the file"}],
                   "connection": {"up": false, "why": "it is not to run"}}),
        ];
        let all: Vec<_> = views.iter().map(one).collect();
        let expected = "\
SERVER  HEALTH     RESTARTS  REQUESTS  ERRORS  P95   WHY
time    healthy    0         10        1       5 ms
web     unhealthy  3         0         0       -     it does not answer
new     starting   0         -         -       -     its image is pulled
off     stopped    0         -         -       -
";
        assert_eq!(table(&all, (80, false)), expected);
    }
}
