//! `set-server` and `remove-server`: edits of mcp.config.json over the control socket.
//!
//! Must never write the file itself: the daemon does, one edit at a time.

use crate::cli::client::Client;
use crate::cli::online::{encode, sync_result};
use crate::cli::shown::text;
use crate::terminal::failure::{Exit, Failure};
use crate::terminal::output;
use serde_json::Value;

/// Longest entry that is read from standard input, in bytes.
const ENTRY_BYTES_MAX: u64 = 1024 * 1024;

/// How an edit is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct How {
    /// Show what would be, and write nothing.
    pub(super) dry_run: bool,
    /// Removing much is meant.
    pub(super) allow_mass_delete: bool,
    /// Whether to wait for the result.
    pub(super) wait: bool,
    /// For programs.
    pub(super) json: bool,
}

/// `set-server`.
pub(super) async fn set(
    client: &Client,
    name: &str,
    (entry, patch): (&str, bool),
    section: Option<&str>,
    how: How,
) -> Result<Exit, Failure> {
    let entry = if entry == "-" { standard_input()? } else { entry.to_owned() };
    let entry: Value = serde_json::from_str(&entry).map_err(|error| {
        Failure::new(Exit::Usage, "the entry is not JSON")
            .cause(error.to_string())
            .hint("quote it: '{\"command\":\"docker\",\"args\":[\"run\",\"-i\",\"mcp/time\"]}'")
    })?;
    let mut path = format!("/api/v1/servers/{}?{}", encode(name), query(how));
    if let Some(section) = section {
        path.push_str(&format!("&section={}", encode(section)));
    }
    let body = entry.to_string();
    let answer = if patch { client.patch(&path, body).await? } else { client.put(&path, body).await? };
    show(client, &answer, how).await
}

/// `remove-server`.
pub(super) async fn remove(client: &Client, name: &str, how: How) -> Result<Exit, Failure> {
    let answer = client.delete(&format!("/api/v1/servers/{}?{}", encode(name), query(how))).await?;
    show(client, &answer, how).await
}

fn query(how: How) -> String {
    format!("dry_run={}&allow_mass_delete={}", how.dry_run, how.allow_mass_delete)
}

fn standard_input() -> Result<String, Failure> {
    use std::io::Read as _;
    let mut text = String::new();
    std::io::stdin().take(ENTRY_BYTES_MAX).read_to_string(&mut text).map_err(|error| {
        Failure::new(Exit::Failed, "reading the entry from standard input").cause(error.to_string())
    })?;
    Ok(text)
}

/// What would be, or what became of it.
async fn show(client: &Client, answer: &Value, how: How) -> Result<Exit, Failure> {
    if !how.dry_run {
        return sync_result(client, answer, how.wait, how.json).await;
    }
    let accepted = answer.get("accepted") == Some(&Value::Bool(true));
    if how.json {
        output::line(&answer.to_string());
        return Ok(if accepted { Exit::Done } else { Exit::Failed });
    }
    match answer.get("diff").and_then(Value::as_str) {
        None | Some("") => output::line("nothing changes in the file"),
        Some(diff) => output::data(diff),
    }
    for problem in answer.get("problems").and_then(Value::as_array).into_iter().flatten() {
        let place =
            format!("{}:{}:{}", text(problem, "file"), text(problem, "line"), text(problem, "column"));
        let (severity, code) = (text(problem, "severity"), text(problem, "code"));
        output::line(&format!("{place}: {severity}[{code}]: {}", text(problem, "message")));
    }
    if let Some(plan) = answer.pointer("/plan/text").and_then(Value::as_str) {
        output::data(plan);
    }
    if let Some(refused) = answer.get("refused").filter(|refused| refused.is_object()) {
        output::tell(&format!("refused: {} [{}]", text(refused, "detail"), text(refused, "code")));
    }
    Ok(if accepted { Exit::Done } else { Exit::Failed })
}
