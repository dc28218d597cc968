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
    let said = failure.to_string();
    let named = problems(&said);
    if !named.is_empty() {
        return Ok(Diagnosis { checks: named });
    }
    let said = said.replace("error: ", "").replace("\n  cause", "");
    let remedy = if said.contains("Permission denied") {
        "this user may not read it: run `sudo mcp-orchestrator doctor`, or join the group mcp-orchestrator"
            .to_owned()
    } else {
        format!("mend {}: `mcp-orchestrator validate` names each line", places.settings.display())
    };
    Ok(Diagnosis { checks: vec![Check::fail("settings", said, remedy)] })
}

/// Each problem that a failure's text names, with its place, as a check; its hint is what helps.
fn problems(said: &str) -> Vec<Check> {
    let mut checks: Vec<Check> = Vec::new();
    for line in said.lines() {
        if let (Some(hint), Some(last)) = (line.strip_prefix("  hint: "), checks.last_mut()) {
            last.remedy = Some(hint.to_owned());
        } else if line.contains(": error[MCPO-C") {
            checks.push(Check::fail("settings", line, "`mcp-orchestrator validate` says more"));
        } else if line.contains(": warning[MCPO-C") {
            checks.push(Check::warn("settings", line, "`mcp-orchestrator validate` says more"));
        }
    }
    checks
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

#[cfg(test)]
mod tests {
    use super::problems;
    use crate::doctor::Verdict;

    #[test]
    fn each_problem_of_the_settings_is_a_check_with_its_own_remedy() {
        let said = "error: the settings cannot be used\n/s:1:2: error[MCPO-C011]: unknown section [servce]\n  \
                    hint: did you mean 'service'?\n/s:3:1: warning[MCPO-C014]: odd\n1 error, 1 warnings";
        let found = problems(said);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0].evidence, "/s:1:2: error[MCPO-C011]: unknown section [servce]");
        assert_eq!(found[0].remedy.as_deref(), Some("did you mean 'service'?"));
        assert_eq!((found[0].verdict, found[1].verdict), (Verdict::Fail, Verdict::Warn));
        assert!(found[1].remedy.is_some(), "what is bad has a remedy");
        assert!(problems("error: reading /s\n  cause: Permission denied").is_empty());
    }
}
