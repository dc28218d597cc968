//! What stands: `status`, `list-servers`, `ports`, `why`.
//!
//! Must never compute what a pass has computed: it shows the report.

use crate::cli::online::encode;
use crate::cli::source::{Source, show};
use crate::cli::{inside, usage};
use crate::model::id::ServerId;
use crate::model::time::Timestamp;
use crate::plan::display;
use crate::terminal::failure::{Exit, Failure};
use crate::terminal::output;
use futures_util::StreamExt as _;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;

/// The code of a server that there is not.
const UNKNOWN: &str = "MCPO-H002";
/// Servers whose settings are asked for at a time.
const ASKED_AT_ONCE: usize = 8;

pub(super) fn rows(status: &Value) -> Map<String, Value> {
    status.pointer("/snapshot/report/servers").and_then(Value::as_object).cloned().unwrap_or_default()
}

pub(super) fn text(row: &Value, key: &str) -> String {
    match row.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => "-".to_owned(),
    }
}

pub(super) fn exit(status: &Value) -> Exit {
    if status.get("well").and_then(Value::as_bool).unwrap_or(false) { Exit::Done } else { Exit::Failed }
}

/// Whether a look without a daemon is an answer: `status` is asked whether one runs.
const fn without(live: bool, exit: Exit) -> Exit {
    if live { exit } else { Exit::NoDaemon }
}

/// `status`.
pub(super) async fn status(
    source: &Source,
    (as_json, detailed): (bool, bool),
    watch: bool,
) -> Result<Exit, Failure> {
    show(watch, async |alone| {
        let query = if alone { "pass=1&wait=5" } else { "wait=0" };
        let answer = source.status(query, alone).await?;
        let (mut status, live) = (answer.value, answer.live);
        if detailed && live {
            let mut gateway = source.client.get("/api/v1/gateway").await?;
            let servers = gateway.get_mut("servers").map(Value::take);
            let used = usage::of(&source.client.get("/api/v1/servers").await?);
            if let (Value::Object(status), Some(servers)) = (&mut status, servers) {
                status.insert("gateway".to_owned(), servers);
                status.insert("usage".to_owned(), Value::Object(used));
            }
        }
        let text = if as_json { format!("{status}\n") } else { status_text(&status, detailed) };
        Ok((text, without(live, exit(&status))))
    })
    .await
}

/// The report in words and tables.
pub(super) fn status_text(status: &Value, detailed: bool) -> String {
    let (width, colour) = (output::width(), output::colour());
    let mut out = format!("{}\n", text(status, "sentence"));
    let all = rows(status);
    out.push_str(&server_table(&all));
    out.push_str(&whys(&all, detailed, width));
    let list = |path: &str| status.pointer(path).and_then(Value::as_array).into_iter().flatten();
    for reason in list("/snapshot/report/general") {
        out.push_str(&below(&sentence(reason), width));
    }
    out.push_str(&configuration(status, detailed));
    if let Some(used) = status.get("usage").and_then(Value::as_object) {
        out.push_str(&usage::table(used, width, colour));
    }
    for view in list("/gateway") {
        out.push_str(&inside::connection(view, width, colour));
    }
    for fault in list("/snapshot/faults").filter_map(Value::as_str) {
        out.push_str(&below(&format!("fault: {fault}"), width));
    }
    out
}

/// Why servers are not as they should be; every why where details are wanted.
pub(super) fn whys(rows: &Map<String, Value>, detailed: bool, width: usize) -> String {
    let mut out = String::new();
    for (id, row) in rows {
        let all = row.get("reasons").and_then(Value::as_array).into_iter().flatten();
        for reason in all.filter(|reason| detailed || matters(reason)) {
            out.push_str(&below(&format!("{id}: {}", sentence(reason)), width));
        }
    }
    out
}

/// A sentence below something, broken at blanks where it is wider than the terminal.
fn below(text: &str, width: usize) -> String {
    let mut out = String::new();
    display::wrapped(&mut out, "  ", text, width);
    out
}

/// What is in force of the files: what is wrong with that, and all of it where details are wanted.
fn configuration(status: &Value, detailed: bool) -> String {
    let mut out = String::new();
    let Some(now) = status.get("configuration") else { return out };
    let names = now.get("needsRestart").and_then(Value::as_array).cloned().unwrap_or_default();
    let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
    if !names.is_empty() {
        let text = format!("changed only by a restart: {} [MCPO-R001]", names.join(", "));
        out.push_str(&below(&text, output::width()));
    }
    if let Some(why) = now.pointer("/settings/refused").and_then(Value::as_str) {
        let why = why.replace('\n', "\n  ");
        out.push_str(&format!("  settings refused, those in force stay [MCPO-R002]:\n  {why}\n"));
    }
    if detailed {
        let since = now.get("since").and_then(Value::as_i64).map(Timestamp);
        let age = since.map(|since| format!(", {} old", crate::daemon::now().since(since)));
        out.push_str(&format!(
            "configuration generation {}{}\n",
            text(now, "generation"),
            age.unwrap_or_default()
        ));
        for file in ["config", "settings"] {
            if let Some(file) = now.get(file) {
                out.push_str(&format!("  {}: sha256 {}\n", text(file, "path"), text(file, "sha256")));
            }
        }
    }
    out
}

fn matters(reason: &Value) -> bool {
    matches!(reason.get("kind").and_then(Value::as_str), Some("blocked-by" | "waiting-on"))
}

fn sentence(reason: &Value) -> String {
    let kind = match reason.get("kind").and_then(Value::as_str) {
        Some("blocked-by") => "blocked by ",
        Some("waiting-on") => "waiting on ",
        Some("changed-because") => "changed because ",
        Some("left-alone") => "left alone because ",
        _ => "",
    };
    let code =
        reason.get("code").and_then(Value::as_str).map(|code| format!(" [{code}]")).unwrap_or_default();
    let now = crate::daemon::now();
    let until = reason.get("until").and_then(Value::as_i64).map(Timestamp).filter(|until| *until > now);
    let wait = until.map(|until| format!(" (in {})", until.since(now))).unwrap_or_default();
    format!("{kind}{}{wait}{code}", text(reason, "text"))
}

/// The rows of a server's instances, in the order of their numbers; none where it is one.
fn instances(row: &Value) -> Vec<(&String, &Value)> {
    let mut all: Vec<(&String, &Value)> =
        row.get("instances").and_then(Value::as_object).into_iter().flatten().collect();
    all.sort_by_key(|(id, _)| ServerId::instance(id).map_or(0, |id| id.replica_number()));
    all
}

pub(super) fn server_table(rows: &Map<String, Value>) -> String {
    let head = ["SERVER", "STATE", "TRANSPORT", "PORT", "CONTAINER", "IMAGE"];
    let mut cells: Vec<Vec<String>> = Vec::new();
    for (id, row) in rows {
        let instances = instances(row);
        let running = row.get("running").filter(|_| !instances.is_empty()).and_then(Value::as_u64);
        let state = running.map(|running| format!("{running} of {} run", instances.len()));
        cells.push(vec![
            id.clone(),
            text(row, "state"),
            text(row, "transport"),
            text(row, "port"),
            state.unwrap_or_else(|| text(row, "containerState")),
            text(row, "image"),
        ]);
        for (id, one) in instances {
            let (state, container) = (text(one, "state"), text(one, "containerState"));
            cells.push(vec![
                format!("  {id}"),
                state,
                String::new(),
                String::new(),
                container,
                String::new(),
            ]);
        }
    }
    output::table(&head, &cells, output::width(), output::colour())
}

/// `list-servers`.
pub(super) async fn list(
    source: &Source,
    state: Option<&str>,
    (as_json, watch): (bool, bool),
) -> Result<Exit, Failure> {
    show(watch, async |alone| {
        let answer = source.status(if alone { "wait=5" } else { "wait=0" }, alone).await?;
        let mut all = rows(&answer.value);
        if let Some(state) = state {
            all.retain(|_, row| text(row, "state") == state);
        }
        let shown = if as_json {
            format!("{}\n", json!({ "schemaVersion": 1, "daemon": answer.live, "servers": all }))
        } else {
            server_table(&all)
        };
        Ok((shown, Exit::Done))
    })
    .await
}

/// `list-servers --config`: effective settings and where each comes from.
pub(super) async fn settings(source: &Source, state: Option<&str>, as_json: bool) -> Result<Exit, Failure> {
    let answer = source.status("wait=5", true).await?;
    let all = rows(&answer.value);
    let wanted: Vec<&String> = all
        .iter()
        .filter(|(_, row)| state.is_none_or(|state| text(row, "state") == state))
        .map(|(id, _)| id)
        .collect();
    let found: Map<String, Value> = if answer.live {
        let asked = wanted.iter().map(|id| async move {
            let path = format!("/api/v1/servers/{}", encode(id));
            let settings = match source.client.get(&path).await {
                Ok(mut detail) => detail.get_mut("settings").map(Value::take).unwrap_or_default(),
                // It went from the file since it was listed.
                Err(failure) if failure.code == Some(UNKNOWN) => json!([]),
                Err(failure) => return Err(failure),
            };
            Ok(((*id).clone(), settings))
        });
        let all: Vec<Result<(String, Value), Failure>> =
            futures_util::stream::iter(asked).buffered(ASKED_AT_ONCE).collect().await;
        all.into_iter().collect::<Result<_, _>>()?
    } else {
        let all = crate::daemon::look::settings(&source.home()?).await?;
        let of = |id: &&String| {
            let known = all.iter().find(|(known, _)| known.as_str() == id.as_str());
            ((*id).clone(), known.map_or_else(|| json!([]), |(_, settings)| json!(settings)))
        };
        wanted.iter().map(of).collect()
    };
    if as_json {
        output::line(&json!({ "schemaVersion": 1, "daemon": answer.live, "servers": found }).to_string());
        return Ok(Exit::Done);
    }
    let mut out = String::new();
    for (id, settings) in &found {
        let _infallible = writeln!(out, "{id}");
        if settings.as_array().is_some_and(Vec::is_empty) {
            let _infallible = writeln!(out, "  its entry cannot be used: `why {id}` says what is wrong");
        } else {
            out.push_str(&indented(&setting_table(settings, |_| true)));
        }
    }
    output::data(&out);
    Ok(Exit::Done)
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

/// Settings as a table; a place is shown behind the origin.
fn setting_table(settings: &Value, keep: impl Fn(&Value) -> bool) -> String {
    let cells: Vec<Vec<String>> = settings
        .as_array()
        .into_iter()
        .flatten()
        .filter(|setting| keep(setting))
        .map(|setting| {
            let place = setting.get("place").and_then(Value::as_str);
            let origin = text(setting, "origin");
            let origin = place.map_or(origin.clone(), |place| format!("{origin}, {place}"));
            vec![text(setting, "key"), inside::plain(&text(setting, "value")), origin]
        })
        .collect();
    output::table(&["SETTING", "VALUE", "FROM"], &cells, output::width().saturating_sub(2), output::colour())
}

/// `ports`.
pub(super) async fn ports(source: &Source, as_json: bool, watch: bool) -> Result<Exit, Failure> {
    show(watch, async |alone| {
        let (leases, live) = match source.client.get("/api/v1/status?wait=0").await {
            Ok(status) => (status.pointer("/snapshot/leases").cloned().unwrap_or_default(), true),
            // The ledger is in the state file: neither daemon nor Docker is needed.
            Err(failure) if alone && failure.exit == Exit::NoDaemon => {
                let leases = crate::daemon::look::leases(&source.home()?)?;
                source.tell("the state file's leases");
                (json!(leases), false)
            }
            Err(failure) => return Err(failure),
        };
        let shown = if as_json {
            format!("{}\n", json!({ "schemaVersion": 1, "daemon": live, "leases": leases }))
        } else {
            lease_table(&leases)
        };
        Ok((shown, Exit::Done))
    })
    .await
}

fn lease_table(leases: &Value) -> String {
    let why =
        |lease: &Value| if lease.get("fixed") == Some(&Value::Bool(true)) { "the file" } else { "the range" };
    let cells = |(id, lease): (&String, &Value)| {
        vec![text(lease, "port"), id.clone(), why(lease).to_owned(), text(lease, "next")]
    };
    let mut cells: Vec<Vec<String>> = leases.as_object().into_iter().flatten().map(cells).collect();
    cells.sort_by_key(|row| row.first().and_then(|port| port.parse::<u16>().ok()));
    output::table(&["PORT", "SERVER", "CHOSEN BY", "MOVES TO"], &cells, output::width(), output::colour())
}

/// The id of a server that is called by its name in the file.
pub(super) fn id_of<'a>(status: &'a Value, name: &'a str) -> &'a str {
    let names = status.get("names").and_then(Value::as_object);
    let found = names.into_iter().flatten().find(|(_, held)| held.as_str() == Some(name));
    found.filter(|_| !rows(status).contains_key(name)).map_or(name, |(id, _)| id)
}

/// The row of a server, by its id or its name in the file.
pub(super) fn row_of(status: &Value, name: &str) -> Result<(String, Value), Failure> {
    let all = rows(status);
    let name = id_of(status, name);
    if let Some(row) = all.get(name) {
        return Ok((name.to_owned(), row.clone()));
    }
    if let Some(row) = all.values().find_map(|row| row.get("instances")?.get(name)) {
        return Ok((name.to_owned(), row.clone()));
    }
    let near = all.keys().min_by_key(|id| strsim::damerau_levenshtein(id, name));
    let failure = Failure::new(Exit::Failed, format!("no server is called {name}"));
    Err(near.map_or(failure.clone(), |near| failure.hint(format!("did you mean {near}?"))))
}

/// `why NAME`.
pub(super) async fn why(
    source: &Source,
    name: &str,
    (as_json, watch): (bool, bool),
) -> Result<Exit, Failure> {
    show(watch, async |alone| {
        let answer = source.status(if alone { "wait=5" } else { "wait=0" }, alone).await?;
        let (id, row) = row_of(&answer.value, name)?;
        let settings = settings_of(source, &id, answer.live).await;
        let shown = if as_json {
            let body = json!({
                "schemaVersion": 1, "daemon": answer.live, "server": id, "row": row, "settings": settings,
            });
            format!("{body}\n")
        } else {
            reasons(&answer.value, &id, &row) + &said(&settings)
        };
        Ok((shown, Exit::Done))
    })
    .await
}

/// Effective settings of one server; nothing where they cannot be had.
async fn settings_of(source: &Source, id: &str, live: bool) -> Value {
    if live {
        let server = ServerId::instance(id).map_or_else(|_| id.to_owned(), |id| id.server().to_string());
        let id = server.as_str();
        let detail = source.client.get(&format!("/api/v1/servers/{}", encode(id))).await;
        return detail
            .ok()
            .and_then(|mut detail| Some(detail.get_mut("settings")?.take()))
            .unwrap_or_default();
    }
    let Ok(home) = source.home() else { return Value::Null };
    let all = crate::daemon::look::settings(&home).await.unwrap_or_default();
    let server = ServerId::instance(id).map_or_else(|_| id.to_owned(), |id| id.server().to_string());
    all.iter()
        .find(|(known, _)| known.as_str() == server)
        .map_or(Value::Null, |(_, settings)| json!(settings))
}

/// Settings that somebody wrote for this server or its section; `list-servers --config` has all.
fn said(settings: &Value) -> String {
    let written = |setting: &Value| !matches!(text(setting, "origin").as_str(), "built in" | "settings");
    let table = setting_table(settings, written);
    if table.lines().count() < 2 { String::new() } else { indented(&table) }
}

fn reasons(status: &Value, id: &str, row: &Value) -> String {
    let mut out = format!("{id}: {}\n", text(row, "state"));
    for reason in row.get("reasons").and_then(Value::as_array).into_iter().flatten() {
        out.push_str(&below(&sentence(reason), output::width()));
    }
    let instances = instances(row);
    if let Some(running) = row.get("running").and_then(Value::as_u64) {
        let _infallible = writeln!(out, "  {running} of {} instances run", instances.len());
    }
    for (id, one) in &instances {
        let container = one.get("container").and_then(Value::as_str);
        let container = container.map(|name| format!(", container {name}: {}", text(one, "containerState")));
        let restarts = one.get("restarts").and_then(Value::as_u64).filter(|restarts| *restarts > 0);
        let restarts = restarts.map(|restarts| format!(", restarts in a row: {restarts}"));
        let (container, restarts) = (container.unwrap_or_default(), restarts.unwrap_or_default());
        out.push_str(&below(&format!("{id}: {}{container}{restarts}", text(one, "state")), output::width()));
    }
    if instances.is_empty() && row.get("container").is_some_and(Value::is_string) {
        let (container, state) = (text(row, "container"), text(row, "containerState"));
        let _infallible = writeln!(out, "  container {container}: {state}");
    }
    if instances.is_empty()
        && row.get("kind").and_then(Value::as_str).is_some_and(|kind| matches!(kind, "container" | "process"))
    {
        let _infallible = writeln!(out, "  restarts in a row: {}", text(row, "restarts"));
    }
    if let Some(intent) = status.pointer("/snapshot/intents").and_then(|intents| intents.get(id)) {
        let word = if intent.get("run") == Some(&Value::Bool(true)) { "started" } else { "stopped" };
        let _infallible = writeln!(out, "  {word} by hand by {}", text(intent, "by"));
    }
    out + &ends(row, crate::daemon::now(), output::width())
}

/// How it ended lately, newest first, with its last words.
fn ends(row: &Value, now: Timestamp, width: usize) -> String {
    let mut out = String::new();
    for end in row.get("ends").and_then(Value::as_array).into_iter().flatten() {
        let at = Timestamp(end.get("at").and_then(Value::as_i64).unwrap_or_default());
        let how = format!("{} ago: {}", now.since(at), inside::plain(&text(end, "how")));
        display::wrapped(&mut out, "    ", &how, width);
        let said = end.get("words").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        for line in said {
            let shown: String = inside::plain(line).chars().take(width.saturating_sub(8)).collect();
            let _infallible = writeln!(out, "      | {shown}");
        }
    }
    if out.is_empty() { out } else { format!("  ended lately:\n{out}") }
}

#[cfg(test)]
mod tests {
    use super::{configuration, ends, whys};
    use crate::model::time::Timestamp;
    use serde_json::json;

    #[test]
    fn reasons_are_no_wider_than_the_terminal() {
        let why = "the server to answer MCP: starting process no-such-program: no such program on the PATH";
        let row = json!({"reasons": [{"kind": "waiting-on", "text": why}, {"kind": "note", "text": "n"}]});
        let rows = json!({ "a-server": row }).as_object().expect("an object").clone();
        let shown = whys(&rows, false, 40);
        assert!(shown.lines().all(|line| line.len() <= 40 && line.starts_with("  ")), "{shown}");
        let words: Vec<&str> = shown.split_whitespace().collect();
        assert_eq!(words.join(" "), format!("a-server: waiting on {why}"));
        assert_eq!(whys(&rows, true, 200).lines().count(), 2);
    }

    #[test]
    fn ends_are_told_with_their_last_words() {
        let killed = json!({"at": 1_000, "how": "it was killed for memory (exit code 137)", "oom": true,
                            "words": ["allocating\u{7}", "more and more of it, on and on and on"]});
        let other = json!({"at": 500, "how": "it ended with exit code 1", "oom": false, "words": null});
        let shown = ends(&json!({ "ends": [killed, other] }), Timestamp(4_000_000), 40);
        let expected = "  ended lately:
    1 h 6 min ago: it was killed for
      memory (exit code 137)
      | allocating
      | more and more of it, on and on a
    1 h 6 min ago: it ended with exit
      code 1
";
        assert_eq!(shown, expected);
        assert_eq!(ends(&json!({}), Timestamp(0), 80), "");
    }

    #[test]
    fn what_is_not_in_force_is_named_and_details_are_there_when_wanted() {
        let file = |refused: Option<&str>| json!({"path": "/etc/x", "sha256": "ab12", "refused": refused});
        let status = |needs: &[&str], refused| {
            json!({"configuration": {"generation": 7, "since": 0, "config": file(None),
                                     "settings": file(refused), "needsRestart": needs}})
        };
        assert_eq!(configuration(&status(&[], None), false), "");
        assert_eq!(
            configuration(&status(&["service.stack", "gateway.port"], None), false),
            "  changed only by a restart: service.stack, gateway.port [MCPO-R001]\n"
        );
        let refused = configuration(&status(&[], Some("/etc/x:2:1: error[MCPO-C012]: y\n  hint: z")), false);
        assert_eq!(
            refused,
            "  settings refused, those in force stay [MCPO-R002]:\n  /etc/x:2:1: error[MCPO-C012]: y\n    hint: z\n"
        );
        let detailed = configuration(&status(&[], None), true);
        assert!(detailed.starts_with("configuration generation 7, "), "{detailed}");
        assert_eq!(detailed.matches("  /etc/x: sha256 ab12\n").count(), 2);
    }
}
