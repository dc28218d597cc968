//! What was asked for and who did what: `tasks`, `audit`.
//!
//! Both also answer without a daemon, from the state file. What others wrote is shown without control
//! characters.

use crate::cli::args::Audit;
use crate::cli::inside::plain;
use crate::cli::online::encode;
use crate::cli::shown::text;
use crate::cli::source::{Source, show};
use crate::daemon::look;
use crate::model::record::AuditFilter;
use crate::model::time::{Span, Timestamp};
use crate::terminal::failure::{Exit, Failure};
use crate::terminal::output;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Widest column of a name.
const NAME_COLUMNS: usize = 18;

/// `tasks`.
pub(super) async fn tasks(
    source: &Source,
    limit: usize,
    (as_json, watch): (bool, bool),
) -> Result<Exit, Failure> {
    show(watch, async |alone| {
        let path = format!("/api/v1/tasks?limit={limit}");
        let (tasks, live) = match source.client.get(&path).await {
            Ok(found) => (entries(found), true),
            Err(failure) if alone && failure.exit == Exit::NoDaemon => {
                let tasks = look::tasks(&source.home()?, limit).await?;
                source.tell("the state file's records");
                (json!(tasks), false)
            }
            Err(failure) => return Err(failure),
        };
        let shown = if as_json {
            format!("{}\n", json!({ "schemaVersion": 1, "daemon": live, "tasks": tasks }))
        } else {
            task_table(&tasks, (output::width(), output::colour()))
        };
        Ok((shown, Exit::Done))
    })
    .await
}

/// `tasks ID`.
pub(super) async fn task(source: &Source, id: i64, (as_json, watch): (bool, bool)) -> Result<Exit, Failure> {
    show(watch, async |alone| {
        let (task, live) = match source.client.get(&format!("/api/v1/tasks/{id}")).await {
            Ok(task) => (task, true),
            Err(failure) if alone && failure.exit == Exit::NoDaemon => {
                let task = look::task(&source.home()?, id).await?;
                let task =
                    task.ok_or_else(|| Failure::new(Exit::Failed, format!("no task has the id {id}")))?;
                source.tell("the state file's records");
                (json!(task), false)
            }
            Err(failure) => return Err(failure),
        };
        let shown = if as_json {
            format!("{}\n", json!({ "schemaVersion": 1, "daemon": live, "task": task }))
        } else {
            card(&task, (output::width(), output::colour()))
        };
        Ok((shown, Exit::Done))
    })
    .await
}

/// `audit`.
pub(super) async fn audit(source: &Source, asked: &Audit) -> Result<Exit, Failure> {
    let Audit { server, by, result, kind, since, calls, limit, json: as_json, watch } = asked;
    let since = since.as_deref().map(point).transpose()?;
    let filters = [("server", server), ("by", by), ("result", result), ("kind", kind), ("since", &since)];
    let mut path = format!("/api/v1/audit?limit={limit}");
    if *calls {
        path.push_str("&calls=true");
    }
    for (name, value) in filters.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
        let _infallible = write!(path, "&{name}={}", encode(value));
    }
    show(*watch, async |alone| {
        let (lines, live) = match source.client.get(&path).await {
            Ok(found) => (entries(found), true),
            Err(failure) if alone && failure.exit == Exit::NoDaemon => {
                let (server, by, result, kind) = (server.clone(), by.clone(), result.clone(), kind.clone());
                let (calls, limit) = (*calls, usize::from(*limit));
                let since = since.as_deref().and_then(look::since);
                let filter =
                    AuditFilter { server, by, result, kind, since, calls, limit, ..AuditFilter::default() };
                let lines = look::audit(&source.home()?, &filter).await?;
                source.tell("the state file's records");
                (json!(lines), false)
            }
            Err(failure) => return Err(failure),
        };
        let shown = if as_json.json {
            format!("{}\n", json!({ "schemaVersion": 1, "daemon": live, "audit": lines }))
        } else {
            audit_table(&lines, (output::width(), output::colour()))
        };
        Ok((shown, Exit::Done))
    })
    .await
}

/// A point in time as the API takes it: a time back from now as it is, a date or a time in milliseconds.
fn point(text: &str) -> Result<String, Failure> {
    if look::since(text).is_some() {
        return Ok(text.to_owned());
    }
    let day = || text.parse::<jiff::civil::Date>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok();
    let at = text.parse::<jiff::Timestamp>().ok().or_else(|| day().map(|at| at.timestamp()));
    at.map(|at| at.as_millisecond().to_string()).ok_or_else(|| {
        Failure::new(Exit::Usage, format!("'{}' is not a time", plain(text)))
            .hint("write 90s, 30m, 2h, 7d, or a date such as 2026-01-31")
    })
}

/// The list in an answer: as it is, or as the page's items.
fn entries(found: Value) -> Value {
    match found {
        Value::Object(mut page) => page.get_mut("items").map(Value::take).unwrap_or_default(),
        list => list,
    }
}

/// A moment, in UTC.
fn moment(at: Option<i64>) -> String {
    let at = at.and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
    at.map_or_else(|| "-".to_owned(), |at| at.strftime("%m-%d %H:%M:%S").to_string())
}

fn number(value: &Value, key: &str) -> Option<i64> {
    value.get(key).and_then(Value::as_i64)
}

fn short(name: &str) -> String {
    let name = plain(name);
    if name.chars().count() <= NAME_COLUMNS {
        return name;
    }
    name.chars().take(NAME_COLUMNS - 1).chain(['…']).collect()
}

fn servers(task: &Value) -> String {
    let names = task.get("servers").and_then(Value::as_array).into_iter().flatten();
    let names: Vec<&str> = names.filter_map(Value::as_str).collect();
    if names.is_empty() { "all".to_owned() } else { names.join(", ") }
}

fn took(task: &Value) -> String {
    let span = number(task, "asked").zip(number(task, "ended"));
    span.map_or_else(|| "-".to_owned(), |(asked, ended)| Timestamp(ended).since(Timestamp(asked)).to_string())
}

fn task_table(tasks: &Value, (width, colour): (usize, bool)) -> String {
    let row = |task: &Value| {
        vec![
            text(task, "id"),
            text(task, "state"),
            moment(number(task, "asked")),
            took(task),
            short(&text(task, "by")),
            plain(&format!("{} {}", text(task, "act"), servers(task))),
        ]
    };
    let rows: Vec<Vec<String>> = tasks.as_array().into_iter().flatten().map(row).collect();
    if rows.is_empty() {
        return "nothing was asked for so far\n".to_owned();
    }
    output::table(&["ID", "STATE", "ASKED (UTC)", "TOOK", "BY", "WHAT"], &rows, width, colour)
}

/// One task with what became of each server, and what was done for it.
fn card(task: &Value, (width, colour): (usize, bool)) -> String {
    let state = text(task, "state");
    let mut out = format!(
        "task {}: {} {}: {}\n",
        text(task, "id"),
        text(task, "act"),
        plain(&servers(task)),
        output::paint(&state, &state, colour)
    );
    let (by, via) = (plain(&text(task, "by")), text(task, "via"));
    let _infallible =
        writeln!(out, "  asked {} UTC by {by} ({via}), took {}", moment(number(task, "asked")), took(task));
    let row = |result: &Value| {
        let code = result.get("code").and_then(Value::as_str).map(|code| format!(" [{code}]"));
        let why = result.get("why").and_then(Value::as_str).map(plain).unwrap_or_default();
        let ok = if result.get("ok") == Some(&Value::Bool(true)) { "ok" } else { "failed" };
        vec![
            ok.to_owned(),
            text(result, "server"),
            text(result, "state"),
            format!("{why}{}", code.unwrap_or_default()),
        ]
    };
    let rows: Vec<Vec<String>> =
        task.get("results").and_then(Value::as_array).into_iter().flatten().map(row).collect();
    if !rows.is_empty() {
        out.push('\n');
        out.push_str(&output::table(&["RESULT", "SERVER", "STATE", "WHY"], &rows, width, colour));
    }
    let row = |line: &Value| {
        let took = line.get("millis").and_then(Value::as_u64);
        vec![
            text(line, "result"),
            text(line, "server"),
            took.map_or_else(|| "-".to_owned(), |millis| Span(millis).to_string()),
            what(line),
        ]
    };
    let rows: Vec<Vec<String>> =
        task.get("actions").and_then(Value::as_array).into_iter().flatten().map(row).collect();
    if !rows.is_empty() {
        out.push('\n');
        out.push_str(&output::table(&["RESULT", "SERVER", "TOOK", "DONE"], &rows, width, colour));
    }
    out
}

/// What a line of the audit says was done, and what went wrong.
fn what(line: &Value) -> String {
    let detail = line.get("detail").and_then(Value::as_str);
    plain(&detail.map_or_else(|| text(line, "what"), |detail| format!("{}: {detail}", text(line, "what"))))
}

fn audit_table(lines: &Value, (width, colour): (usize, bool)) -> String {
    let row = |line: &Value| {
        let took = line.get("millis").and_then(Value::as_u64);
        let mut server = text(line, "server");
        if let Some(replica) = line.get("replica").and_then(Value::as_u64).filter(|number| *number > 1) {
            let _infallible = write!(server, "-R{replica}");
        }
        vec![
            moment(number(line, "at")),
            text(line, "result"),
            short(&text(line, "by")),
            short(&server),
            took.map_or_else(|| "-".to_owned(), |millis| Span(millis).to_string()),
            what(line),
        ]
    };
    let rows: Vec<Vec<String>> = lines.as_array().into_iter().flatten().map(row).collect();
    if rows.is_empty() {
        return "nothing of that is in the audit\n".to_owned();
    }
    output::table(&["TIME (UTC)", "RESULT", "WHO", "SERVER", "TOOK", "WHAT"], &rows, width, colour)
}

#[cfg(test)]
mod tests {
    use super::{audit_table, card, entries, point, task_table};
    use serde_json::json;

    fn fits(shown: &str) {
        assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    }

    #[test]
    fn tasks_fit_and_show_what_became_of_each_server() {
        let task = json!({
            "id": 12, "act": "restart", "servers": ["time", "a-server-with-a-long-name-1", "a-server-with-a-long-name-2"],
            "by": "somebody-with-a-long-name (command line)", "via": "socket",
            "asked": 1_700_000_000_000_i64, "ended": 1_700_000_002_500_i64, "pass": 4, "state": "failed",
            "results": [
                {"server": "time", "ok": true, "state": "converged", "why": null, "code": null},
                {"server": "web", "ok": false, "state": "waiting", "why": "it \u{1b}[31mended", "code": "MCPO-P012"},
            ],
            "actions": [
                {"server": "time", "what": "stop container mcp-time", "result": "ok", "millis": 40},
                {"server": "web", "what": "start container mcp-web", "result": "failed", "detail": "no \u{1b}[31mspace", "millis": null},
            ],
        });
        let expected = "\
ID  STATE   ASKED (UTC)     TOOK  BY                  WHAT
12  failed  11-14 22:13:20  3 s   somebody-with-a-l…  restart time, a-server-wi…
";
        let shown = task_table(&json!([task]), (80, false));
        assert_eq!(shown, expected);
        fits(&shown);
        let expected = "\
task 12: restart time, a-server-with-a-long-name-1, a-server-with-a-long-name-2: failed
  asked 11-14 22:13:20 UTC by somebody-with-a-long-name (command line) (socket), took 3 s

RESULT  SERVER  STATE      WHY
ok      time    converged
failed  web     waiting    it ended [MCPO-P012]

RESULT  SERVER  TOOK   DONE
ok      time    40 ms  stop container mcp-time
failed  web     -      start container mcp-web: no space
";
        assert_eq!(card(&task, (80, false)), expected);
        assert_eq!(task_table(&json!([]), (80, false)), "nothing was asked for so far\n");
        assert_eq!(entries(json!({ "items": [1], "next": null })), json!([1]));
    }

    #[test]
    fn points_in_time_are_spans_dates_and_times() {
        let read = |text: &str| point(text).ok();
        assert_eq!(read("2h").as_deref(), Some("2h"));
        assert_eq!(read("2026-01-31").as_deref(), Some("1769817600000"));
        assert_eq!(read("2026-01-31T12:00:00Z").as_deref(), Some("1769860800000"));
        assert!(["soon", "2026-02-30", "-2h", ""].iter().all(|text| read(text).is_none()));
    }

    #[test]
    fn the_audit_fits() {
        let lines = json!([
            {"id": 2, "at": 1_700_000_000_000_i64, "by": "the loop", "via": "daemon", "what": "start container mcp-time",
             "server": "time", "result": "failed", "detail": "no such image", "code": "MCPO-W001", "millis": 12},
            {"id": 1, "at": 1_699_999_990_000_i64, "by": "10.0.0.9", "via": "http", "what": "sign in", "server": null,
             "result": "refused", "millis": null},
            {"id": 0, "at": 1_699_999_980_000_i64, "by": "ci", "via": "mcp", "what": "call now", "server": "time",
             "result": "ok", "millis": 3, "replica": 2},
        ]);
        let expected = "\
TIME (UTC)      RESULT   WHO       SERVER   TOOK   WHAT
11-14 22:13:20  failed   the loop  time     12 ms  start container mcp-time: no…
11-14 22:13:10  refused  10.0.0.9  -        -      sign in
11-14 22:13:00  ok       ci        time-R2  3 ms   call now
";
        let shown = audit_table(&lines, (80, false));
        assert_eq!(shown, expected);
        fits(&shown);
    }
}
