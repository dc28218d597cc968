//! `health`: how well servers are, since when, and how fast they answer.

use crate::cli::inside::plain;
use crate::cli::online::encode;
use crate::cli::shown::text;
use crate::cli::source::{Source, show};
use crate::model::time::{Span, Timestamp};
use crate::terminal::failure::{Exit, Failure};
use crate::terminal::output;
use serde_json::Value;

/// `health`. Fails while a server that is to run does not serve.
pub(super) async fn health(
    source: &Source,
    server: Option<&str>,
    (as_json, watch): (bool, bool),
) -> Result<Exit, Failure> {
    show(watch, async |_alone| {
        // Only the daemon asks them.
        let query = server.map(|name| format!("?server={}", encode(name))).unwrap_or_default();
        let page = source.client.get(&format!("/api/v1/health{query}")).await?;
        let all = page.get("servers").and_then(Value::as_array).cloned().unwrap_or_default();
        let well = page.get("healthy") == Some(&Value::Bool(true));
        let shown =
            if as_json { format!("{page}\n") } else { table(&all, (output::width(), output::colour())) };
        Ok((shown, if well { Exit::Done } else { Exit::Failed }))
    })
    .await
}

fn table(all: &[Value], (width, colour): (usize, bool)) -> String {
    let row = |one: &Value| {
        let millis = |key: &str| {
            let millis = one.get(key).and_then(Value::as_u64);
            millis.map_or_else(|| "-".to_owned(), |millis| Span(millis).to_string())
        };
        vec![
            text(one, "server"),
            text(one, "health"),
            one.get("since").and_then(Value::as_i64).map_or_else(|| "-".to_owned(), ago),
            millis("latencyMillis"),
            millis("usualMillis"),
            text(one, "restarts"),
            one.get("why").and_then(Value::as_str).map(plain).unwrap_or_default(),
        ]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    let head = ["SERVER", "HEALTH", "FOR", "ANSWER", "USUAL", "RESTARTS", "WHY"];
    output::table(&head, &rows, width, colour)
}

/// How long ago a point in time was.
fn ago(millis: i64) -> String {
    crate::daemon::now().since(Timestamp(millis)).to_string()
}

#[cfg(test)]
mod tests {
    use super::table;
    use serde_json::json;

    #[test]
    fn health_is_what_the_daemon_says() {
        let since = crate::daemon::now().0 - 124_000;
        let all = [
            json!({"server": "time", "health": "healthy", "since": since, "restarts": 0, "latencyMillis": 3, "usualMillis": 2, "why": null}),
            json!({"server": "web", "health": "unhealthy", "since": since, "restarts": 3, "latencyMillis": null, "usualMillis": 8, "why": "no answer to ping within 5 s\u{7}"}),
            json!({"server": "off", "health": "stopped", "since": null, "restarts": 0, "why": null}),
        ];
        let shown = table(&all, (100, false)).replace("2 min 5 s", "2 min 4 s");
        let expected = "\
SERVER  HEALTH     FOR        ANSWER  USUAL  RESTARTS  WHY
time    healthy    2 min 4 s  3 ms    2 ms   0
web     unhealthy  2 min 4 s  -       8 ms   3         no answer to ping within 5 s
off     stopped    -          -       -      0
";
        assert_eq!(shown, expected);
    }
}
