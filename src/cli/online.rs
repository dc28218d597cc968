//! Commands that talk to the daemon.

use crate::cli::args::{Command, Edit, Pause, Servers, Wait};
use crate::cli::client::Client;
use crate::cli::offline::running_daemon;
use crate::cli::shown::{exit, row_of, server_table, status_text, text, whys};
use crate::cli::source::Source;
use crate::cli::{editing, health, inside, records, shown};
use crate::daemon::{Home, Options};
use crate::terminal::failure::{Exit, Failure};
use crate::terminal::output;
use crate::terminal::screen::{Progress, waiting};
use serde_json::{Value, json};

/// One round of waiting for a result; progress is shown in between.
const ROUND_SECS: u64 = 1;
/// Rounds before giving up on a result.
const ROUNDS_MAX: u64 = 900;

/// Rounds for which `drain` waits for calls under way, once no target is left.
const CALLS_ROUNDS_MAX: u64 = 30;

/// Runs a command.
pub(super) async fn run(options: Options, command: Command) -> Result<Exit, Failure> {
    let allow = options.allow_mass_delete;
    let client = client(options.clone()).await?;
    let source = Source::new(client.clone(), options);
    match command {
        Command::Status { json, detailed, watch } => {
            shown::status(&source, (json.json, detailed), watch).await
        }
        Command::ListServers { json, status, config: true, watch: _ } => {
            shown::settings(&source, status.as_deref(), json.json).await
        }
        Command::ListServers { json, status, config: false, watch } => {
            shown::list(&source, status.as_deref(), (json.json, watch)).await
        }
        Command::Ports { json, watch } => shown::ports(&source, json.json, watch).await,
        Command::Why { name, json, watch } => shown::why(&source, &name, (json.json, watch)).await,
        Command::Health { server, json, watch } => {
            health::health(&source, server.as_deref(), (json.json, watch)).await
        }
        Command::Tasks { id: Some(id), json, limit: _, watch } => {
            records::task(&source, id, (json.json, watch)).await
        }
        Command::Tasks { id: None, json, limit, watch } => {
            records::tasks(&source, limit.into(), (json.json, watch)).await
        }
        Command::Audit(asked) => records::audit(&source, &asked).await,
        Command::SetServer { name, entry, patch, section, edit } => {
            editing::set(&client, &name, (&entry, patch), section.as_deref(), how(edit, allow)).await
        }
        Command::RemoveServer { name, edit } => editing::remove(&client, &name, how(edit, allow)).await,
        Command::StartServer(servers) => act(&client, "start", Some(servers), None).await,
        Command::StopServer(servers) => act(&client, "stop", Some(servers), None).await,
        Command::RestartServer(servers) => act(&client, "restart", Some(servers), None).await,
        Command::Start(all) => act(&client, "start", None, Some(all.wait)).await,
        Command::Stop(all) => act(&client, "stop", None, Some(all.wait)).await,
        Command::Restart(all) => act(&client, "restart", None, Some(all.wait)).await,
        Command::Pause(pause) => pauses(&client, "pause", pause).await,
        Command::Resume(pause) => pauses(&client, "resume", pause).await,
        Command::Drain { undo, duration, wait } => {
            drain(&client, undo, duration.as_deref(), !wait.no_wait).await
        }
        Command::Sync { wait, json } => sync(&client, allow, !wait.no_wait, json.json).await,
        Command::Capabilities { name, server, json } => {
            inside::capabilities(&client, name.or(server).as_deref(), json.json).await
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

const fn how(edit: Edit, allow_mass_delete: bool) -> editing::How {
    let Edit { dry_run, wait, json } = edit;
    editing::How { dry_run, allow_mass_delete, wait: !wait.no_wait, json: json.json }
}

async fn act(
    client: &Client,
    verb: &str,
    servers: Option<Servers>,
    wait: Option<Wait>,
) -> Result<Exit, Failure> {
    let wait = wait.or_else(|| servers.as_ref().map(|servers| servers.wait)).is_none_or(|wait| !wait.no_wait);
    let query = asked(servers.as_ref().and_then(|servers| servers.duration.as_deref()))?;
    let whom = match &servers {
        Some(Servers { section: Some(section), .. }) => format!("sections/{}", encode(section)),
        Some(servers) => format!("servers/{}", joined(&servers.names)),
        None => "servers/all".to_owned(),
    };
    let answer = client.post(&format!("/api/v1/{whom}/{verb}?{query}"), String::new()).await?;
    let only = servers.map(|servers| match servers.section {
        Some(_) => named(&answer),
        None => servers.names,
    });
    finish(client, &answer, wait, false, only).await
}

/// `pause` and `resume`.
async fn pauses(client: &Client, verb: &str, pause: Pause) -> Result<Exit, Failure> {
    let Pause { names, section, duration, wait } = pause;
    let query = asked(duration.as_deref())?;
    let whom = match &section {
        Some(section) => format!("sections/{}", encode(section)),
        None if names.is_empty() => "servers/all".to_owned(),
        None => format!("servers/{}", joined(&names)),
    };
    let answer = client.post(&format!("/api/v1/{whom}/{verb}?{query}"), String::new()).await?;
    let only = Some(names).filter(|names| !names.is_empty());
    finish(client, &answer, !wait.no_wait, false, only).await
}

/// `drain`: asks for it, waits until targets are out, then for calls under way.
async fn drain(client: &Client, undo: bool, duration: Option<&str>, wait: bool) -> Result<Exit, Failure> {
    let query = format!("{}&undo={undo}", asked(duration)?);
    let answer = client.post(&format!("/api/v1/drain?{query}"), String::new()).await?;
    let _of_all_servers = finish(client, &answer, wait, false, None).await?;
    if !wait {
        return Ok(Exit::Done);
    }
    // `drain && reboot`: what else is the matter with servers is not the question here.
    let status = client.get("/api/v1/status").await?;
    let waits = status.pointer("/snapshot/report/drained/waits").and_then(Value::as_u64);
    let exit = if waits == (!undo).then_some(0) { Exit::Done } else { Exit::Failed };
    if undo {
        return Ok(exit);
    }
    let mut progress = Progress::default();
    let mut under_way = Vec::new();
    for _round in 0..CALLS_ROUNDS_MAX {
        under_way = calls(&client.get("/api/v1/gateway").await?);
        if under_way.is_empty() {
            break;
        }
        progress.say(&format!("calls under way: {}", under_way.join(", ")));
        tokio::time::sleep(std::time::Duration::from_secs(ROUND_SECS)).await;
    }
    drop(progress);
    output::line(&match under_way.as_slice() {
        [] => "no call is under way".to_owned(),
        some => format!("calls still under way: {}", some.join(", ")),
    });
    Ok(exit)
}

/// Servers with calls under way, and how many: `time (2)`.
fn calls(gateway: &Value) -> Vec<String> {
    let servers = gateway.get("servers").and_then(Value::as_array).into_iter().flatten();
    let count = |server: &Value| server.get("inFlight").and_then(Value::as_u64).unwrap_or(0);
    let busy = servers.filter(|server| count(server) > 0);
    busy.map(|server| format!("{} ({})", text(server, "server"), count(server))).collect()
}

fn joined(names: &[String]) -> String {
    names.iter().map(|name| encode(name)).collect::<Vec<_>>().join(",")
}

/// Who asks, and for how long.
fn asked(duration: Option<&str>) -> Result<String, Failure> {
    let who = std::env::var("SUDO_USER")
        .or_else(|_none| std::env::var("USER"))
        .unwrap_or_else(|_none| "somebody".to_owned());
    let mut query = format!("by={}", encode(&format!("{who} (command line)")));
    if let Some(duration) = duration {
        let secs = seconds(duration).ok_or_else(|| {
            Failure::new(Exit::Usage, format!("'{duration}' is not a time")).hint("write 90s, 30m or 2h")
        })?;
        query.push_str(&format!("&for={secs}"));
    }
    Ok(query)
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

/// What became of an edit.
pub(super) async fn sync_result(
    client: &Client,
    task: &Value,
    wait: bool,
    as_json: bool,
) -> Result<Exit, Failure> {
    finish(client, task, wait, as_json, Some(named(task)).filter(|_| !as_json)).await
}

/// The servers of a task.
fn named(task: &Value) -> Vec<String> {
    let servers = task.get("servers").and_then(Value::as_array);
    servers.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
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
    let mut progress = Progress::default();
    let mut status = Value::Null;
    for _round in 0..ROUNDS_MAX {
        status = client.get(&format!("/api/v1/status?pass={pass}&settled=true&wait={ROUND_SECS}")).await?;
        if status.get("reached") == Some(&Value::Bool(true)) {
            break;
        }
        progress.say(&text(&status, "sentence"));
    }
    drop(progress);
    if let Some(only) = only {
        let all = only.iter().filter_map(|name| row_of(&status, name).ok()).collect();
        output::data(&server_table(&all));
        output::data(&whys(&all, false, output::width()));
        let fine =
            all.values().all(|row| matches!(text(row, "state").as_str(), "converged" | "asleep" | "stopped"));
        return Ok(if fine { Exit::Done } else { Exit::Failed });
    }
    if as_json {
        output::line(&status.to_string());
    } else {
        output::data(&status_text(&status, false));
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
    let path = format!("/api/v1/servers/{}/call", encode(name));
    let result = waiting(&format!("{name} works on {tool}"), client.post(&path, body)).await?;
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
