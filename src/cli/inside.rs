//! Looking inside a server: what it offers, and what it printed.
//!
//! What servers say of themselves is foreign text: it is shown without control characters, so that
//! no server can paint on somebody's terminal. `--json` has it as it is.

use crate::cli::client::Client;
use crate::cli::online::encode;
use crate::cli::shown::text;
use crate::model::id::ServerId;
use crate::plan::display;
use crate::terminal::failure::{Exit, Failure};
use crate::terminal::output;
use futures_util::StreamExt as _;
use serde_json::{Value, json};

/// Servers that are asked at a time what they offer.
const ASKED_AT_ONCE: usize = 8;
/// Seconds that the daemon waits for a new line before it answers without one.
const WAIT_SECS: u64 = 50;
/// Widest first column of a list.
const NAME_COLUMNS: usize = 36;

/// What a server can be listed by: the key in the answer, and what one of them is called.
const LISTS: [(&str, &str, &str); 4] = [
    ("tools", "TOOL", "name"),
    ("prompts", "PROMPT", "name"),
    ("resources", "RESOURCE", "uri"),
    ("resourceTemplates", "RESOURCE TEMPLATE", "uriTemplate"),
];

// ---- capabilities ---------------------------------------------------------------------------------

/// `capabilities [NAME]`.
pub(super) async fn capabilities(
    client: &Client,
    name: Option<&str>,
    as_json: bool,
) -> Result<Exit, Failure> {
    let Some(name) = name else { return all_capabilities(client, as_json).await };
    let mut found = offered(client, name).await?;
    if as_json {
        if let Value::Object(map) = &mut found {
            map.shift_insert(0, "schemaVersion".to_owned(), Value::from(1));
        }
        output::line(&found.to_string());
    } else {
        output::data(&card(&found, output::width(), output::colour()));
    }
    Ok(Exit::Done)
}

async fn offered(client: &Client, name: &str) -> Result<Value, Failure> {
    client.get(&format!("/api/v1/servers/{}/capabilities", encode(name))).await
}

/// One line per server. Only those that answer are asked: the others say why they do not.
async fn all_capabilities(client: &Client, as_json: bool) -> Result<Exit, Failure> {
    let gateway = client.get("/api/v1/gateway").await?;
    let mut views = gateway.get("servers").and_then(Value::as_array).cloned().unwrap_or_default();
    // The instances of a server offer what it offers.
    views.retain(|view| ServerId::instance(&text(view, "server")).is_ok_and(|id| id.replica_number() == 1));
    let asked = views.into_iter().map(|view| async move {
        let id = text(&view, "server");
        let found = match view.get("up") {
            Some(Value::Bool(true)) => offered(client, &id).await.map_err(|failure| failure.to_string()),
            _ => Err(text(&view, "why")),
        };
        (id, found)
    });
    let all: Vec<(String, Result<Value, String>)> =
        futures_util::stream::iter(asked).buffered(ASKED_AT_ONCE).collect().await;
    if as_json {
        let servers: Vec<Value> = all
            .into_iter()
            .map(|(id, found)| found.unwrap_or_else(|why| json!({ "server": id, "unavailable": why })))
            .collect();
        output::line(&json!({ "schemaVersion": 1, "servers": servers }).to_string());
    } else {
        output::data(&overview(&all, output::width(), output::colour()));
    }
    Ok(Exit::Done)
}

fn overview(all: &[(String, Result<Value, String>)], width: usize, colour: bool) -> String {
    let head = ["SERVER", "ERA", "VERSION", "TOOLS", "PROMPTS", "RESOURCES", "SAYS IT IS"];
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|(id, found)| {
            let Ok(found) = found else {
                return std::iter::once(id.clone()).chain(std::iter::repeat_n("-".to_owned(), 6)).collect();
            };
            let count = |key| found.get(key).and_then(Value::as_array).map_or(0, Vec::len).to_string();
            let counts = ["tools", "prompts", "resources"].map(count);
            let mut row = vec![id.clone(), text(found, "era"), text(found, "protocolVersion")];
            row.extend(counts);
            row.push(itself(found));
            row
        })
        .collect();
    let mut out = output::table(&head, &rows, width, colour);
    for (id, why) in all.iter().filter_map(|(id, found)| Some((id, found.as_ref().err()?))) {
        display::wrapped(&mut out, "  ", &format!("{id}: {}", plain(why)), width);
    }
    out
}

/// Name and version as the server gives them.
fn itself(found: &Value) -> String {
    let info = found.pointer("/info/serverInfo").or_else(|| {
        found.pointer("/info/_meta").and_then(|meta| meta.get("io.modelcontextprotocol/serverInfo"))
    });
    let Some(info) = info else { return "-".to_owned() };
    let title = info.get("title").or_else(|| info.get("name")).and_then(Value::as_str).unwrap_or("-");
    plain(&format!("{title} {}", info.get("version").and_then(Value::as_str).unwrap_or_default()))
}

/// Everything one server offers.
fn card(found: &Value, width: usize, colour: bool) -> String {
    let mut out = format!(
        "{}: {}, {} {}\n",
        text(found, "server"),
        itself(found),
        text(found, "era"),
        text(found, "protocolVersion")
    );
    for (key, title, name) in LISTS {
        let Some(entries) = found.get(key).and_then(Value::as_array) else { continue };
        if entries.is_empty() {
            continue;
        }
        let rows: Vec<Vec<String>> = entries.iter().map(|entry| row(entry, name)).collect();
        out.push('\n');
        out.push_str(&output::table(&[title, "DESCRIPTION"], &rows, width, colour));
    }
    let problems = found.get("problems").and_then(Value::as_array).into_iter().flatten();
    for (at, problem) in problems.filter_map(Value::as_str).enumerate() {
        if at == 0 {
            out.push('\n');
        }
        display::wrapped(&mut out, "", &format!("{} [MCPO-G085]", plain(problem)), width);
    }
    out
}

fn row(entry: &Value, name: &str) -> Vec<String> {
    let says = ["description", "title", "name"].iter().filter(|key| **key != name);
    let says = says.filter_map(|key| entry.get(key)).find_map(Value::as_str);
    let first = says.unwrap_or_default().lines().map(str::trim).find(|line| !line.is_empty());
    let mut name = plain(&text(entry, name));
    if name.chars().count() > NAME_COLUMNS {
        name = name.chars().take(NAME_COLUMNS - 1).chain(['…']).collect();
    }
    vec![name, plain(first.unwrap_or_default())]
}

// ---- status ---------------------------------------------------------------------------------------

/// One server's connection and its calls, for `status --detailed`.
pub(super) fn connection(view: &Value, width: usize, colour: bool) -> String {
    let number = |key: &str| view.get(key).and_then(Value::as_u64).unwrap_or(0);
    let mut out = match view.get("up") {
        Some(Value::Bool(true)) => {
            format!("{}: speaks MCP, {} {}\n", text(view, "server"), text(view, "era"), text(view, "version"))
        }
        _ => {
            let why = format!("{}: no MCP connection: {}", text(view, "server"), plain(&text(view, "why")));
            let mut out = String::new();
            display::wrapped(&mut out, "", &why, width);
            out
        }
    };
    out.push_str(&format!(
        "  sessions {} shared, {} own; connections of their own {}; opened so far {}\n",
        number("sharedSessions"),
        number("ownSessions"),
        number("ownConnections"),
        number("sessionsOpened"),
    ));
    out.push_str(&format!(
        "  in flight {}, parked {}, queued {} B; refused {}, dropped {}\n",
        number("inFlight"),
        number("parked"),
        number("queuedBytes"),
        number("refused"),
        number("dropped"),
    ));
    out.push_str(&limits(view));
    let calls: Vec<Vec<String>> =
        view.get("calls").and_then(Value::as_array).into_iter().flatten().map(counted).collect();
    if !calls.is_empty() {
        let table =
            output::table(&["CALLS", "ERRORS", "MEDIAN", "METHOD"], &calls, width.saturating_sub(2), colour);
        out.extend(table.lines().map(|line| format!("  {line}\n")));
    }
    out
}

/// How the limits of its entry stand, where it has any.
fn limits(view: &Value) -> String {
    let Some(traffic) = view.get("traffic").filter(|traffic| traffic["limited"] == true) else {
        return String::new();
    };
    let number = |key: &str| traffic.get(key).and_then(Value::as_u64).unwrap_or(0);
    let denied = traffic.get("denied").and_then(Value::as_object);
    let why: Vec<String> = denied
        .into_iter()
        .flatten()
        .filter(|(_, count)| count.as_u64() != Some(0))
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    let why = if why.is_empty() { "none".to_owned() } else { why.join(", ") };
    format!(
        "  limits: {} at once, {} waiting; circuit {}; sent again {}; kept answers {} used of {}\n  turned away: {why}\n",
        number("running"),
        number("waiting"),
        text(traffic, "circuit"),
        number("retries"),
        number("cacheHits"),
        number("cacheHits") + number("cacheMisses"),
    )
}

fn counted(call: &Value) -> Vec<String> {
    let median = call.get("medianMillis").and_then(Value::as_f64);
    let tool = call.get("tool").and_then(Value::as_str).map(|tool| format!(" {tool}")).unwrap_or_default();
    vec![
        text(call, "calls"),
        text(call, "errors"),
        median.map_or_else(|| "-".to_owned(), |millis| format!("{millis:.1} ms")),
        plain(&format!("{}{tool}", text(call, "method"))),
    ]
}

// ---- logs -----------------------------------------------------------------------------------------

/// `logs NAME`.
pub(super) async fn logs(
    client: &Client,
    name: &str,
    tail: Option<usize>,
    (follow, as_json): (bool, bool),
) -> Result<Exit, Failure> {
    let route = format!("/api/v1/servers/{}/logs", encode(name));
    let tail = tail.map(|tail| format!("&tail={tail}")).unwrap_or_default();
    let answer = client.get(&format!("{route}?after=0{tail}")).await?;
    let mut newest = 0;
    let mut read = show(&answer, as_json, &mut newest);
    let end = tokio::signal::ctrl_c();
    tokio::pin!(end);
    while follow && read {
        let next = format!("{route}?after={newest}&wait={WAIT_SECS}");
        tokio::select! {
            // Somebody has seen enough.
            _ = &mut end => break,
            answer = client.get(&next) => read = show(&answer?, as_json, &mut newest),
        }
    }
    Ok(Exit::Done)
}

/// Prints lines; false when nobody reads any more.
fn show(answer: &Value, as_json: bool, newest: &mut u64) -> bool {
    let mut out = String::new();
    for line in answer.get("lines").and_then(Value::as_array).into_iter().flatten() {
        *newest = line.get("number").and_then(Value::as_u64).unwrap_or(*newest);
        if as_json {
            out.push_str(&line.to_string());
        } else {
            out.push_str(&plain(&text(line, "text")));
        }
        out.push('\n');
    }
    output::try_data(&out)
}

/// Foreign text without control characters and without the sequences that move cursors and paint.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' && chars.next_if_eq(&'[').is_some() {
            // Parameters, up to the letter that ends the sequence.
            while chars.next().is_some_and(|c| !('\u{40}'..='\u{7e}').contains(&c)) {}
        } else if c == '\t' {
            out.push(' ');
        } else if !c.is_control() {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{card, connection, overview, plain};
    use serde_json::json;

    #[test]
    fn a_card_fits_and_shows_first_lines_only() {
        let found = json!({
            "server": "time", "era": "legacy", "protocolVersion": "2025-11-25",
            "info": {"serverInfo": {"name": "mcp-time", "version": "1.2.0"}},
            "tools": [
                {"name": "get_current_time", "description": "\n Get the current time in one of many zones, with \u{1b}[31mdetails\u{1b}[0m and more.\nSecond line."},
                {"name": "x".repeat(60)},
            ],
            "prompts": [],
            "resources": [{"uri": "file:///a", "name": "a"}],
            "problems": ["time has more than one tool 'no\u{1b}[31mw': only the first is offered"],
        });
        let shown = card(&found, 80, false);
        let expected = "\
time: mcp-time 1.2.0, legacy 2025-11-25

TOOL                                  DESCRIPTION
get_current_time                      Get the current time in one of many zones…
xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…

RESOURCE   DESCRIPTION
file:///a  a

time has more than one tool 'now': only the first is offered [MCPO-G085]
";
        assert_eq!(shown, expected);
        assert!(shown.lines().all(|line| line.chars().count() <= 80));
        let all = [("time".to_owned(), Ok(found)), ("down".to_owned(), Err("it is starting".to_owned()))];
        let shown = overview(&all, 80, false);
        let expected = "\
SERVER  ERA     VERSION     TOOLS  PROMPTS  RESOURCES  SAYS IT IS
time    legacy  2025-11-25  2      0        1          mcp-time 1.2.0
down    -       -           -      -        -          -
  down: it is starting
";
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_connection_shows_its_calls() {
        let view = json!({
            "server": "time", "up": true, "era": "legacy", "version": "2025-11-25",
            "sharedSessions": 2, "ownSessions": 1, "ownConnections": 1, "sessionsOpened": 9,
            "inFlight": 1, "parked": 0, "queuedBytes": 12, "refused": 3, "dropped": 0,
            "calls": [
                {"method": "tools/call", "tool": "now", "calls": 12, "errors": 1, "medianMillis": 0.42},
                {"method": "ping", "calls": 1, "errors": 0},
            ],
        });
        let expected = "\
time: speaks MCP, legacy 2025-11-25
  sessions 2 shared, 1 own; connections of their own 1; opened so far 9
  in flight 1, parked 0, queued 12 B; refused 3, dropped 0
  CALLS  ERRORS  MEDIAN  METHOD
  12     1       0.4 ms  tools/call now
  1      0       -       ping
";
        assert_eq!(connection(&view, 80, false), expected);
        let down = json!({"server": "time", "up": false, "why": "it is starting"});
        let shown = connection(&down, 80, false);
        assert!(shown.starts_with("time: no MCP connection: it is starting\n"), "{shown}");
        let long = json!({"server": "time", "up": false, "why": "it ended ".repeat(20)});
        let shown = connection(&long, 80, false);
        assert!(shown.lines().all(|line| line.len() <= 80), "{shown}");
    }

    #[test]
    fn foreign_text_paints_nothing() {
        assert_eq!(plain("\u{1b}[2J\u{1b}[1;31mred\u{1b}[0m\tand\r\u{7}\u{9b}1m ünï"), "red and1m ünï");
    }
}
