//! Commands that work without a daemon: `validate`, `plan`, `--one-shot`.

use crate::cli::client::Client;
use crate::cli::inside::plain;
use crate::cli::online;
use crate::config::codes::{SECRET_UNAVAILABLE, UNSET_VARIABLE};
use crate::config::error::{Problem, Severity, render, to_json};
use crate::daemon::prepare::{self, Prepared};
use crate::daemon::{self, Home, Options, files, one_shot};
use crate::execute::learn::ActionResult;
use crate::execute::{Step, Teller};
use crate::host::lock;
use crate::model::fingerprint::HashKey;
use crate::model::observed::{Observed, Seen};
use crate::plan::report::{Report, RowState};
use crate::plan::{Plan, display};
use crate::terminal::failure::{Exit, Failure};
use crate::terminal::output;
use serde_json::{Value, json};
use std::sync::Arc;

/// What is wrong only where the values are not.
const ABSENT: [&str; 2] = [UNSET_VARIABLE, SECRET_UNAVAILABLE];

/// `validate`: every problem of both files; `elsewhere`: variables and secrets that are not here may be
/// there for the daemon.
pub(super) async fn validate(options: Options, as_json: bool, elsewhere: bool) -> Result<Exit, Failure> {
    let env = daemon::environment();
    let places = daemon::places(&options, &env)?;
    let (home, good, mut problems) = Home::assumed(options)?;
    let mut servers = None;
    if let Some(home) = home {
        // Only likeness to itself matters here, so that any key will do.
        let read = files::read(&home, &HashKey::new([0; 32])).await;
        servers = read.loaded.desired.as_ref().map(|desired| desired.servers.len());
        problems.extend(read.loaded.problems);
        if good {
            problems.extend(daemon::tls::check(&home));
        }
    }
    for problem in problems.iter_mut().filter(|problem| elsewhere && ABSENT.contains(&problem.code)) {
        problem.severity = Severity::Warning;
    }
    let bad = problems.iter().any(Problem::is_error);
    if as_json {
        output::line(
            &json!({ "schemaVersion": 1, "valid": !bad, "problems": to_json(&problems) }).to_string(),
        );
    } else if problems.is_empty() {
        let count = servers.unwrap_or(0);
        output::line(&format!(
            "{}: {count} server{} valid",
            places.config.display(),
            if count == 1 { "" } else { "s" }
        ));
    } else {
        output::data(&render(&problems));
    }
    Ok(if bad { Exit::Usage } else { Exit::Done })
}

/// `plan`: asked of the daemon when there is one, else made here.
pub(super) async fn plan(options: Options, as_json: bool, exit_code: bool) -> Result<Exit, Failure> {
    let home = Home::find(options)?;
    let changes = match running_daemon(&home).await? {
        Some(client) => {
            let answer = client.get("/api/v1/plan").await?;
            let text = answer.get("text").and_then(Value::as_str).unwrap_or_default().to_owned();
            let changes = answer.get("changes").and_then(Value::as_bool).unwrap_or(false);
            output::data(&if as_json { format!("{answer}\n") } else { text });
            changes
        }
        None => {
            let one_shot::Preview { plan, observed, problems } = one_shot::preview(&home).await?;
            for problem in &problems {
                output::tell(&problem.to_string());
            }
            let now = daemon::now();
            output::data(&if as_json {
                format!("{}\n", display::json(&plan))
            } else {
                display::text(&plan, now, output::width())
            });
            if let Some(exit) = unreachable(&observed) {
                return Ok(exit);
            }
            !plan.is_empty()
        }
    };
    Ok(if exit_code && changes { Exit::Changes } else { Exit::Done })
}

/// The daemon of this stack, if one runs.
pub(super) async fn running_daemon(home: &Home) -> Result<Option<Client>, Failure> {
    let world = |error| Failure::world(error, Exit::Failed);
    // The address alone finds nearly every daemon, and without asking the engine.
    let mut holder = lock::holder(&home.stack, std::slice::from_ref(&home.docker_host)).map_err(world)?;
    if holder.is_none() {
        let names = home.engine_names(&home.engine()).await;
        holder = lock::holder(&home.stack, &names).map_err(world)?;
    }
    let Some(owner) = holder.flatten() else { return Ok(None) };
    Ok(home.socket_of(&owner)?.map(Client::new))
}

/// `--one-shot`.
pub(super) async fn one_shot(options: Options) -> Result<Exit, Failure> {
    let home = Home::find(options)?;
    let _log = daemon::logging::start("WARNING", home.settings.logging.format);
    let tell: Teller = Arc::new(|action, step| {
        let server = action.server.as_ref().map_or("", |id| id.as_str());
        match step {
            Step::Begins => {}
            Step::Progress(line) => output::tell(&format!("{server}: {line}")),
            Step::Ended(ActionResult::Done) => {
                output::tell(&format!("{server}: {} {}", action.op.sign(), action.op.describe()));
            }
            Step::Ended(ActionResult::Failed(error)) => output::tell(&format!("{server}: failed {error}")),
            Step::Ended(ActionResult::Skipped) => {}
        }
    });
    match one_shot::run(&home, tell).await? {
        one_shot::Outcome::Ran(outcome) => {
            let (plan, observed) = *outcome;
            print_results(&plan);
            if let Some(exit) = unreachable(&observed) {
                return Ok(exit);
            }
            Ok(if converged(&plan.report) { Exit::Done } else { Exit::Failed })
        }
        one_shot::Outcome::Daemon(Some(socket)) => {
            output::tell("a daemon of this stack runs: asking it to sync");
            online::sync(&Client::new(socket), home.options.allow_mass_delete, true, false).await
        }
        one_shot::Outcome::Daemon(None) => Err(Failure::new(
            Exit::Failed,
            format!("another one-shot run is at work on stack '{}'", home.stack),
        )),
    }
}

/// `prepare [NAME…]`.
pub(super) async fn prepare(options: Options, names: &[String], as_json: bool) -> Result<Exit, Failure> {
    let home = Home::find(options)?;
    let done = prepare::prepare(&home, names, &|line| output::tell(&line)).await?;
    let failed = done.iter().any(|(_, prepared)| matches!(prepared, Prepared::Failed(_)));
    let rows = done.iter().map(|(id, prepared)| {
        let (word, what) = match prepared {
            Prepared::There(what) => ("there", what),
            Prepared::Fetched(what) => ("fetched", what),
            Prepared::Left(why) => ("left", why),
            Prepared::Failed(why) => ("failed", why),
        };
        (id.to_string(), word, plain(what))
    });
    if as_json {
        let servers: Vec<Value> =
            rows.map(|(id, word, what)| json!({"server": id, "state": word, "what": what})).collect();
        output::line(&json!({ "schemaVersion": 1, "servers": servers }).to_string());
    } else {
        // Failures are read to their end.
        for (id, word, what) in rows {
            output::line(&format!("{id}: {word}: {what}"));
        }
    }
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

/// The exit code for a world that did not answer.
fn unreachable(observed: &Observed) -> Option<Exit> {
    if matches!(observed.containers, Seen::Unknown(_)) {
        return Some(Exit::NoEngine);
    }
    observed.balancer.is_unknown().then_some(Exit::NoAws)
}

fn converged(report: &Report) -> bool {
    let blocked = |kind| matches!(kind, crate::plan::report::ReasonKind::BlockedBy);
    report
        .servers
        .values()
        .all(|row| matches!(row.state, RowState::Converged | RowState::Stopped | RowState::Asleep))
        && !report.general.iter().any(|reason| blocked(reason.kind))
}

fn print_results(plan: &Plan) {
    let now = daemon::now();
    output::data(&display::rows(&plan.report, now, output::width()));
    output::line(&plan.report.sentence());
}
