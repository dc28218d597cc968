//! `doctor`: prints what the checks found.

use crate::cli::offline::running_daemon;
use crate::daemon::doctor::{self, Daemon};
use crate::daemon::{self, Home, Options};
use crate::doctor::{Check, Diagnosis, Verdict};
use crate::terminal::failure::{Exit, Failure};
use crate::terminal::output;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// The daemon is given this long for one answer.
const DAEMON_WITHIN: Duration = Duration::from_secs(5);
/// Servers whose tools are looked at.
const SERVERS_MAX: usize = 200;

/// `doctor`.
pub(super) async fn doctor(options: Options, as_json: bool) -> Result<Exit, Failure> {
    let diagnosis = match Home::find(options.clone()) {
        Ok(home) => {
            let daemon = ask_daemon(&home).await;
            doctor::examine(&home, daemon).await
        }
        // Settings that cannot be used are what is wrong; everything else depends on them.
        Err(failure) => broken_settings(&options, &failure)?,
    };
    if as_json {
        output::line(&diagnosis.json().to_string());
    } else {
        let colour = output::colour();
        let paint = |verdict: Verdict, word: &str| {
            let like = match verdict {
                Verdict::Ok => "ok",
                Verdict::Warn | Verdict::Unknown => "waiting",
                Verdict::Fail => "failed",
            };
            output::paint(like, word, colour)
        };
        output::data(&diagnosis.text(output::width(), &paint));
        output::tell(&diagnosis.sentence());
    }
    Ok(if diagnosis.worst() == Verdict::Fail { Exit::Failed } else { Exit::Done })
}

fn broken_settings(options: &Options, failure: &Failure) -> Result<Diagnosis, Failure> {
    let env = daemon::environment();
    let places = daemon::places(options, &env)?;
    let said = failure.to_string().replace("error: ", "").replace("\n  cause", "");
    let remedy = if said.contains("Permission denied") {
        "this user may not read it: run `sudo mcp-orchestrator doctor`, or join the group mcp-orchestrator"
            .to_owned()
    } else {
        format!("mend {}: `mcp-orchestrator validate` names each line", places.settings.display())
    };
    Ok(Diagnosis { checks: vec![Check::fail("settings", said, remedy)] })
}

/// What a daemon of this stack says, when one runs.
async fn ask_daemon(home: &Home) -> Daemon {
    let client = match running_daemon(home).await {
        Ok(Some(client)) => client,
        Ok(None) => return Daemon::None,
        Err(failure) => return Daemon::Silent(failure.to_string()),
    };
    let status = match tokio::time::timeout(DAEMON_WITHIN, client.get("/api/v1/status?wait=1")).await {
        Ok(Ok(status)) => status,
        Ok(Err(failure)) => return Daemon::Silent(failure.to_string()),
        Err(_late) => return Daemon::Silent("it does not answer".to_owned()),
    };
    let text = |key: &str| status.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let servers = status.pointer("/snapshot/report/servers").and_then(Value::as_object);
    let ids: Vec<String> =
        servers.into_iter().flatten().map(|(id, _)| id.clone()).take(SERVERS_MAX).collect();
    let asked = ids.into_iter().map(|id| {
        let client = client.clone();
        async move {
            let route = format!("/api/v1/servers/{id}/capabilities");
            let answer = tokio::time::timeout(DAEMON_WITHIN, client.get(&route)).await.ok()?.ok()?;
            let tools = answer.get("tools")?.as_array()?;
            let names = tools.iter().filter_map(|tool| Some(tool.get("name")?.as_str()?.to_owned()));
            Some((id, names.collect::<Vec<String>>()))
        }
    });
    let tools: BTreeMap<String, Vec<String>> =
        futures_util::future::join_all(asked).await.into_iter().flatten().collect();
    Daemon::Runs {
        version: text("version"),
        sentence: text("sentence"),
        well: status.get("well").and_then(Value::as_bool).unwrap_or(false),
        tools,
    }
}
