//! Commands that talk to the daemon.

use crate::cli::args::{Command, Servers, Wait};
use crate::cli::client::Client;
use crate::cli::inside;
use crate::cli::offline::running_daemon;
use crate::daemon::{Home, Options};
use crate::terminal::failure::{Exit, Failure};
use crate::terminal::output;
use serde_json::{Map, Value, json};

/// One round of waiting for a result; progress is shown in between.
const ROUND_SECS: u64 = 1;
/// Rounds before giving up on a result.
const ROUNDS_MAX: u64 = 900;

/// Runs a command.
pub(super) async fn run(options: Options, command: Command) -> Result<Exit, Failure> {
    let allow = options.allow_mass_delete;
    let client = client(options).await?;
    match command {
        Command::Status { json, detailed, watch } => status(&client, json.json, detailed, watch).await,
        Command::ListServers { json, status } => list(&client, json.json, status.as_deref()).await,
        Command::Ports { json } => ports(&client, json.json).await,
        Command::Why { name, json } => why(&client, &name, json.json).await,
        Command::StartServer(servers) => act(&client, "start", Some(servers), None).await,
        Command::StopServer(servers) => act(&client, "stop", Some(servers), None).await,
        Command::RestartServer(servers) => act(&client, "restart", Some(servers), None).await,
        Command::Start(all) => act(&client, "start", None, Some(all.wait)).await,
        Command::Stop(all) => act(&client, "stop", None, Some(all.wait)).await,
        Command::Restart(all) => act(&client, "restart", None, Some(all.wait)).await,
        Command::Sync { wait, json } => sync(&client, allow, !wait.no_wait, json.json).await,
        Command::Capabilities { name, json } => {
            inside::capabilities(&client, name.as_deref(), json.json).await
        }
        Command::Logs { name, follow, tail, json } => {
            inside::logs(&client, &name, tail, (follow, json.json)).await
        }
        Command::Call { name, tool, arguments, json } => {
            call(&client, &name, &tool, &arguments, json.json).await
        }
        _offline => Err(Failure::new(Exit::Usage, "this command does not talk to the daemon")),
    }
}

/// The daemon of this stack, whether it runs or not.
pub(super) async fn client(options: Options) -> Result<Client, Failure> {
    let home = match Home::find(options.clone()) {
        Ok(home) => home,
        Err(wrong) => {
            // The daemon refused the file and runs: it is the one to say why.
            let home = Home::find_past_errors(options).map_err(|_same| wrong.clone())?;
            return running_daemon(&home).await?.ok_or(wrong);
        }
    };
    let running = running_daemon(&home).await?;
    Ok(running.unwrap_or_else(|| Client::new(home.places.socket(&home.stack))))
}

fn rows(status: &Value) -> Map<String, Value> {
    status.pointer("/snapshot/report/servers").and_then(Value::as_object).cloned().unwrap_or_default()
}

pub(super) fn text(row: &Value, key: &str) -> String {
    match row.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => "-".to_owned(),
    }
}

fn exit(status: &Value) -> Exit {
    if status.get("well").and_then(Value::as_bool).unwrap_or(false) { Exit::Done } else { Exit::Failed }
}

#[expect(clippy::fn_params_excessive_bools, reason = "each is a flag of the command line")]
async fn status(client: &Client, as_json: bool, detailed: bool, watch: bool) -> Result<Exit, Failure> {
    let mut pass = 0;
    loop {
        let mut status =
            client.get(&format!("/api/v1/status?pass={pass}&wait={}", if watch { 60 } else { 5 })).await?;
        if detailed {
            let mut gateway = client.get("/api/v1/gateway").await?;
            let servers = gateway.get_mut("servers").map(Value::take);
            if let (Value::Object(status), Some(servers)) = (&mut status, servers) {
                status.insert("gateway".to_owned(), servers);
            }
        }
        if as_json {
            output::line(&status.to_string());
        } else {
            if watch && output::colour() {
                output::data("\x1b[H\x1b[2J");
            }
            print_status(&status, detailed);
        }
        if !watch {
            return Ok(exit(&status));
        }
        pass = status.pointer("/snapshot/pass").and_then(Value::as_u64).unwrap_or(0) + 1;
    }
}

fn print_status(status: &Value, detailed: bool) {
    output::line(&text(status, "sentence"));
    let all = rows(status);
    output::data(&server_table(&all));
    for (id, row) in &all {
        let reasons = row.get("reasons").and_then(Value::as_array).cloned().unwrap_or_default();
        let shown = reasons.iter().filter(|reason| detailed || matters(reason));
        for reason in shown {
            output::line(&format!("  {id}: {}", sentence(reason)));
        }
    }
    let general =
        status.pointer("/snapshot/report/general").and_then(Value::as_array).cloned().unwrap_or_default();
    for reason in &general {
        output::line(&format!("  {}", sentence(reason)));
    }
    output::data(&configuration(status, detailed));
    for view in status.get("gateway").and_then(Value::as_array).into_iter().flatten() {
        output::data(&inside::connection(view, output::width(), output::colour()));
    }
    let faults = status.pointer("/snapshot/faults").and_then(Value::as_array).cloned().unwrap_or_default();
    for fault in faults.iter().filter_map(Value::as_str) {
        output::line(&format!("  fault: {fault}"));
    }
}

/// What is in force of the files: what is wrong with that, and all of it where details are wanted.
fn configuration(status: &Value, detailed: bool) -> String {
    let mut out = String::new();
    let Some(now) = status.get("configuration") else { return out };
    let names = now.get("needsRestart").and_then(Value::as_array).cloned().unwrap_or_default();
    let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
    if !names.is_empty() {
        out.push_str(&format!("  changed only by a restart: {} [MCPO-R001]\n", names.join(", ")));
    }
    if let Some(why) = now.pointer("/settings/refused").and_then(Value::as_str) {
        let why = why.replace('\n', "\n  ");
        out.push_str(&format!("  settings refused, those in force stay [MCPO-R002]:\n  {why}\n"));
    }
    if detailed {
        let since = now.get("since").and_then(Value::as_i64).map(crate::model::time::Timestamp);
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
    let until = reason
        .get("until")
        .and_then(Value::as_i64)
        .map(crate::model::time::Timestamp)
        .filter(|until| *until > now);
    let wait = until.map(|until| format!(" (in {})", until.since(now))).unwrap_or_default();
    format!("{kind}{}{wait}{code}", text(reason, "text"))
}

fn server_table(rows: &Map<String, Value>) -> String {
    let head = ["SERVER", "STATE", "TRANSPORT", "PORT", "CONTAINER", "IMAGE"];
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|(id, row)| {
            vec![
                id.clone(),
                text(row, "state"),
                text(row, "transport"),
                text(row, "port"),
                text(row, "containerState"),
                text(row, "image"),
            ]
        })
        .collect();
    output::table(&head, &cells, output::width(), output::colour())
}

async fn list(client: &Client, as_json: bool, state: Option<&str>) -> Result<Exit, Failure> {
    let status = client.get("/api/v1/status?wait=5").await?;
    let mut all = rows(&status);
    if let Some(state) = state {
        all.retain(|_, row| text(row, "state") == state);
    }
    if as_json {
        output::line(&json!({ "schemaVersion": 1, "servers": all }).to_string());
    } else {
        output::data(&server_table(&all));
    }
    Ok(Exit::Done)
}

async fn ports(client: &Client, as_json: bool) -> Result<Exit, Failure> {
    let status = client.get("/api/v1/status?wait=5").await?;
    let leases = status.pointer("/snapshot/leases").and_then(Value::as_object).cloned().unwrap_or_default();
    if as_json {
        output::line(&json!({ "schemaVersion": 1, "leases": leases }).to_string());
        return Ok(Exit::Done);
    }
    let mut cells: Vec<Vec<String>> = leases
        .iter()
        .map(|(id, lease)| {
            let why = if lease.get("fixed") == Some(&Value::Bool(true)) { "the file" } else { "the range" };
            vec![text(lease, "port"), id.clone(), why.to_owned(), text(lease, "next")]
        })
        .collect();
    cells.sort();
    output::data(&output::table(
        &["PORT", "SERVER", "CHOSEN BY", "MOVES TO"],
        &cells,
        output::width(),
        output::colour(),
    ));
    Ok(Exit::Done)
}

/// The id of a server that is called by its name in the file.
fn id_of<'a>(status: &'a Value, name: &'a str) -> &'a str {
    let names = status.get("names").and_then(Value::as_object);
    let found = names.into_iter().flatten().find(|(_, held)| held.as_str() == Some(name));
    found.filter(|_| !rows(status).contains_key(name)).map_or(name, |(id, _)| id)
}

async fn why(client: &Client, name: &str, as_json: bool) -> Result<Exit, Failure> {
    let status = client.get("/api/v1/status?wait=5").await?;
    let all = rows(&status);
    let name = id_of(&status, name);
    let Some(row) = all.get(name) else {
        let known: Vec<&str> = all.keys().map(String::as_str).collect();
        let near = known.iter().min_by_key(|id| strsim::damerau_levenshtein(id, name));
        let failure = Failure::new(Exit::Failed, format!("no server is called {name}"));
        return Err(near.map_or(failure.clone(), |near| failure.hint(format!("did you mean {near}?"))));
    };
    if as_json {
        output::line(&json!({ "schemaVersion": 1, "server": name, "row": row }).to_string());
        return Ok(Exit::Done);
    }
    output::line(&format!("{name}: {}", text(row, "state")));
    for reason in row.get("reasons").and_then(Value::as_array).cloned().unwrap_or_default() {
        output::line(&format!("  {}", sentence(&reason)));
    }
    if row.get("container").is_some_and(Value::is_string) {
        output::line(&format!("  container {}: {}", text(row, "container"), text(row, "containerState")));
        output::line(&format!("  restarts in a row: {}", text(row, "restarts")));
    }
    let intent = status.pointer("/snapshot/intents").and_then(|intents| intents.get(name));
    if let Some(intent) = intent {
        let word = if intent.get("run") == Some(&Value::Bool(true)) { "started" } else { "stopped" };
        output::line(&format!("  {word} by hand by {}", text(intent, "by")));
    }
    Ok(Exit::Done)
}

async fn act(
    client: &Client,
    verb: &str,
    servers: Option<Servers>,
    wait: Option<Wait>,
) -> Result<Exit, Failure> {
    let wait = wait.or_else(|| servers.as_ref().map(|servers| servers.wait)).is_none_or(|wait| !wait.no_wait);
    let who = std::env::var("SUDO_USER")
        .or_else(|_none| std::env::var("USER"))
        .unwrap_or_else(|_none| "somebody".to_owned());
    let mut query = format!("by={}", encode(&format!("{who} (command line)")));
    if let Some(duration) = servers.as_ref().and_then(|servers| servers.duration.as_deref()) {
        let secs = seconds(duration).ok_or_else(|| {
            Failure::new(Exit::Usage, format!("'{duration}' is not a time")).hint("write 90s, 30m or 2h")
        })?;
        query.push_str(&format!("&for={secs}"));
    }
    let names = servers.as_ref().map_or_else(
        || "all".to_owned(),
        |servers| servers.names.iter().map(|name| encode(name)).collect::<Vec<_>>().join(","),
    );
    let answer = client.post(&format!("/api/v1/servers/{names}/{verb}?{query}"), String::new()).await?;
    finish(client, &answer, wait, false, servers.map(|servers| servers.names)).await
}

/// `90`, `90s`, `30m`, `2h`, `1d`.
pub(super) fn seconds(text: &str) -> Option<u64> {
    let (number, unit) =
        text.find(|c: char| c.is_ascii_alphabetic()).map_or((text, "s"), |at| text.split_at(at));
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// `sync`, also for `--one-shot` beside a daemon.
#[expect(clippy::fn_params_excessive_bools, reason = "each is a flag of the command line")]
pub(super) async fn sync(
    client: &Client,
    allow_mass_delete: bool,
    wait: bool,
    as_json: bool,
) -> Result<Exit, Failure> {
    let answer =
        client.post(&format!("/api/v1/sync?allow_mass_delete={allow_mass_delete}"), String::new()).await?;
    finish(client, &answer, wait, as_json, None).await
}

/// Waits until a pass that began after the request has settled, and shows what became of it.
async fn finish(
    client: &Client,
    answer: &Value,
    wait: bool,
    as_json: bool,
    only: Option<Vec<String>>,
) -> Result<Exit, Failure> {
    if !wait {
        return Ok(Exit::Done);
    }
    let pass = answer.get("pass").and_then(Value::as_u64).unwrap_or(1);
    let mut last = String::new();
    let mut status = Value::Null;
    for _round in 0..ROUNDS_MAX {
        status = client.get(&format!("/api/v1/status?pass={pass}&settled=true&wait={ROUND_SECS}")).await?;
        if status.get("reached") == Some(&Value::Bool(true)) {
            break;
        }
        let sentence = text(&status, "sentence");
        if sentence != last {
            output::tell(&sentence);
            last = sentence;
        }
    }
    if let Some(only) = only {
        let mut all = rows(&status);
        let only: Vec<&str> = only.iter().map(|name| id_of(&status, name)).collect();
        all.retain(|id, _| only.contains(&id.as_str()));
        output::data(&server_table(&all));
        let fine = all.values().all(|row| matches!(text(row, "state").as_str(), "converged" | "stopped"));
        return Ok(if fine { Exit::Done } else { Exit::Failed });
    }
    if as_json {
        output::line(&status.to_string());
    } else {
        print_status(&status, false);
    }
    Ok(exit(&status))
}

async fn call(
    client: &Client,
    name: &str,
    tool: &str,
    arguments: &str,
    as_json: bool,
) -> Result<Exit, Failure> {
    let arguments: Box<serde_json::value::RawValue> = serde_json::from_str(arguments).map_err(|error| {
        Failure::new(Exit::Usage, "the arguments are not JSON")
            .cause(error.to_string())
            .hint("quote them: '{\"text\":\"hello\"}'")
    })?;
    let body = json!({ "tool": tool, "arguments": arguments }).to_string();
    let result = client.post(&format!("/api/v1/servers/{}/call", encode(name)), body).await?;
    let failed = result.get("isError") == Some(&Value::Bool(true));
    if as_json {
        output::line(&result.to_string());
    } else {
        for block in result.get("content").and_then(Value::as_array).cloned().unwrap_or_default() {
            match block.get("text").and_then(Value::as_str) {
                Some(text) => output::line(text),
                None => output::line(&block.to_string()),
            }
        }
    }
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

/// Percent-encodes what is not plain in a path or a query.
pub(super) fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::configuration;
    use serde_json::json;

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
