//! `health`: how well servers are, since when, and how fast they answer.
//!
//! What needs a hand comes first, with the reason below its row: a terminal with few rows and columns shows
//! that. Must never show less of a reason than the daemon knows.

use crate::cli::inside::plain;
use crate::cli::online::encode;
use crate::cli::shown::text;
use crate::cli::source::{Source, show};
use crate::model::health::State;
use crate::model::time::{Span, Timestamp};
use crate::plan::display;
use crate::terminal::failure::{Exit, Failure};
use crate::terminal::output;
use serde_json::Value;

/// From what needs a hand first to what does not run; what is none of them comes last.
const ORDER: [State; 5] =
    [State::Critical, State::Unhealthy, State::Degraded, State::Starting, State::Healthy];

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
        let shown = if as_json {
            format!("{page}\n")
        } else {
            picture(&all, crate::daemon::now(), (output::width(), output::colour()))
        };
        Ok((shown, if well { Exit::Done } else { Exit::Failed }))
    })
    .await
}

/// Where a server comes among the others.
fn rank(one: &Value) -> usize {
    let word = one.get("health").and_then(Value::as_str).unwrap_or_default();
    ORDER.iter().position(|state| state.as_str() == word).unwrap_or(ORDER.len())
}

/// How many there are of each: `50 servers: 1 critical, 47 healthy, 2 stopped`.
fn sum(all: &[&Value]) -> String {
    let mut counts: Vec<(String, usize)> = Vec::new();
    for one in all {
        let word = text(one, "health");
        match counts.last_mut().filter(|(last, _)| *last == word) {
            Some((_, count)) => *count += 1,
            None => counts.push((word, 1)),
        }
    }
    let counts: Vec<String> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
    let total = all.len();
    format!("{total} server{}: {}", if total == 1 { "" } else { "s" }, counts.join(", "))
}

/// A server and, below it, its instances.
fn below(one: &Value) -> impl Iterator<Item = (&Value, bool)> {
    let instances = one.get("instances").and_then(Value::as_array).into_iter().flatten();
    std::iter::once((one, false)).chain(instances.map(|one| (one, true)))
}

fn picture(all: &[Value], now: Timestamp, (width, colour): (usize, bool)) -> String {
    let mut all: Vec<&Value> = all.iter().collect();
    all.sort_by_cached_key(|one| (rank(one), text(one, "health"), text(one, "server")));
    let row = |one: &Value, below: bool| {
        let span = |key: &str| {
            let millis = one.get(key).and_then(Value::as_u64);
            millis.map_or_else(|| "-".to_owned(), |millis| Span(millis).to_string())
        };
        let since = one.get("since").and_then(Value::as_i64).map(Timestamp);
        vec![
            format!("{}{}", if below { "  " } else { "" }, text(one, "server")),
            text(one, "health"),
            since.map_or_else(|| "-".to_owned(), |since| now.since(since).to_string()),
            text(one, "restarts"),
            span("latencyMillis"),
            span("usualMillis"),
        ]
    };
    // Each instance of a server below it.
    let shown: Vec<(&Value, bool)> = all.iter().flat_map(|one| below(one)).collect();
    let rows: Vec<Vec<String>> = shown.iter().map(|(one, below)| row(one, *below)).collect();
    let head = ["SERVER", "HEALTH", "FOR", "RESTARTS", "ANSWER", "USUAL"];
    let table = output::table(&head, &rows, width, colour);
    let mut out = String::new();
    if all.len() > 1 {
        display::wrapped(&mut out, "", &sum(&all), width);
    }
    // The head, then a row for each.
    let mut lines = table.lines();
    out.extend(lines.next().map(|head| format!("{head}\n")));
    let mut told = String::new();
    for (line, (one, below)) in lines.zip(shown) {
        out.push_str(&format!("{line}\n"));
        let why = one.get("why").and_then(Value::as_str).map(plain).unwrap_or_default();
        let known = why.is_empty() || (below && told.contains(&why));
        if !known {
            display::wrapped(&mut out, if below { "    " } else { "  " }, &why, width);
        }
        if !below {
            told = why;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::picture;
    use crate::model::time::Timestamp;
    use serde_json::{Value, json};

    const NOW: Timestamp = Timestamp(1_000_000_000);

    fn one(server: &str, health: &str, why: &str) -> Value {
        let since = (!matches!(health, "stopped" | "asleep")).then_some(NOW.0 - 124_000);
        let latency = matches!(health, "healthy" | "degraded").then_some(3);
        json!({"server": server, "health": health, "since": since, "restarts": 0, "latencyMillis": latency,
               "usualMillis": 2, "why": Some(why).filter(|why| !why.is_empty())})
    }

    #[test]
    fn what_needs_a_hand_comes_first_with_its_reason() {
        let all = [
            one("time", "healthy", ""),
            one("off", "stopped", ""),
            one("web", "unhealthy", "no answer to ping within 5 s\u{7}"),
            one(
                "git",
                "critical",
                "it was killed (SIGKILL), and not for memory and then a long story of what follows",
            ),
        ];
        let expected = "\
4 servers: 1 critical, 1 unhealthy, 1 healthy, 1 stopped
SERVER  HEALTH     FOR        RESTARTS  ANSWER  USUAL
git     critical   2 min 4 s  0         -       2 ms
  it was killed (SIGKILL), and not for memory and then a long
    story of what follows
web     unhealthy  2 min 4 s  0         -       2 ms
  no answer to ping within 5 s
time    healthy    2 min 4 s  0         3 ms    2 ms
off     stopped    -          0         -       2 ms
";
        assert_eq!(picture(&all, NOW, (62, false)), expected);
        let mut time = one("time", "degraded", "1 of 2 instances serve; time-R2: no answer to ping");
        time["instances"] =
            json!([one("time", "healthy", ""), one("time-R2", "unhealthy", "no answer to ping")]);
        let expected = "\
SERVER     HEALTH     FOR        RESTARTS  ANSWER  USUAL
time       degraded   2 min 4 s  0         3 ms    2 ms
  1 of 2 instances serve; time-R2: no answer to ping
  time     healthy    2 min 4 s  0         3 ms    2 ms
  time-R2  unhealthy  2 min 4 s  0         -       2 ms
";
        assert_eq!(picture(&[time], NOW, (80, false)), expected);
        let single = picture(&all[..1], NOW, (80, false));
        assert_eq!(single.lines().count(), 2, "nothing is summed up of one: {single}");
    }

    #[test]
    fn fifty_in_all_states_fit_a_terminal() {
        let states = ["healthy", "degraded", "starting", "unhealthy", "critical", "stopped", "asleep"];
        let why = |state: &str| match state {
            "degraded" => "it answers after 3 s, usually 2 ms",
            "unhealthy" => "no answer to ping within 5 s",
            "critical" => {
                "connecting to tcp://mcp-with-a-long-name.example.internal:9000 failed: connection refused"
            }
            _ => "",
        };
        let all: Vec<Value> = (0..50)
            .map(|n| {
                // Most are well.
                let state = if n % 3 == 0 { states[(n / 3) % states.len()] } else { "healthy" };
                one(&format!("a-server-of-fifty-with-a-long-name-{n}"), state, why(state))
            })
            .collect();
        let shown = picture(&all, NOW, (80, false));
        assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0], "50 servers: 2 critical, 2 unhealthy, 3 degraded, 3 starting, 36 healthy, 2");
        assert_eq!(lines[1], "  asleep, 2 stopped");
        assert_eq!(
            lines[3..7],
            [
                "a-server-of-fifty-with-a-long-n…  critical   2 min 4 s  0         -       2 ms",
                "  connecting to tcp://mcp-with-a-long-name.example.internal:9000 failed:",
                "    connection refused",
                "a-server-of-fifty-with-a-long-n…  critical   2 min 4 s  0         -       2 ms",
            ]
        );
        // A server is a row, and one that is not well has its reason.
        assert_eq!(lines.len(), 3 + 50 + 2 * 2 + 2 + 3, "{shown}");
        let painted = picture(&all, NOW, (80, true));
        for word in ["\u{1b}[31mcritical", "\u{1b}[33mdegraded", "\u{1b}[32mhealthy", "\u{1b}[2mstopped"] {
            assert!(painted.contains(word), "{word:?}");
        }
    }
}
