//! Collects the facts for `doctor`, all groups side by side, each with a deadline.
//!
//! What does not answer in time is unknown, and keeps nothing else waiting. Must never change
//! anything: no lock is taken, no state file is made, nothing is pulled.

mod aws;
mod engine;
mod local;

use crate::daemon::{Home, files, random_bytes};
use crate::doctor::{Check, Diagnosis, judge};
use crate::model::desired::Desired;
use crate::model::fingerprint::HashKey;
use crate::model::id::ServerId;
use crate::model::memory::Memory;
use crate::model::server::{Server, ServerKind};
use crate::store;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// One group of checks.
const GROUP_WITHIN: Duration = Duration::from_secs(45);
/// Problems of the configuration that are told.
const PROBLEMS_MAX: usize = 5;

/// What the daemon of this stack says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Daemon {
    /// None runs.
    None,
    /// One runs and does not answer.
    Silent(String),
    /// One runs.
    Runs {
        /// Its version.
        version: String,
        /// How it is, in a sentence.
        sentence: String,
        /// Whether all is as it should be.
        well: bool,
        /// Tools of servers that answered, by id.
        tools: BTreeMap<String, Vec<String>>,
    },
}

/// What all groups know.
struct Case<'a> {
    home: &'a Home,
    /// The wish; empty when the file cannot be used.
    desired: Desired,
    /// What is remembered, where that can be read.
    memory: Memory,
    daemon: Daemon,
}

impl Case<'_> {
    /// Servers that shall run.
    fn servers(&self) -> impl Iterator<Item = &Server> {
        self.desired.servers.values().filter(|server| server.enabled)
    }

    fn containers(&self) -> usize {
        self.servers().filter(|server| matches!(server.kind, ServerKind::Container(_))).count()
    }

    fn daemon_runs(&self) -> bool {
        self.daemon != Daemon::None
    }
}

/// Runs all checks.
pub async fn examine(home: &Home, daemon: Daemon) -> Diagnosis {
    let key = HashKey::new(random_bytes().unwrap_or_default());
    let read = files::read(home, &key).await;
    let (memory, state) = match store::peek(&home.places.state(&home.stack)) {
        Ok(peeked) => (peeked.map(|peeked| peeked.memory).unwrap_or_default(), None),
        Err(error) => {
            let remedy = store::hint(&error).unwrap_or("look at the file's owner and mode");
            (Memory::default(), Some(Check::fail("state", error.to_string(), remedy)))
        }
    };
    let configuration = configuration(home, &read);
    let case = Case { home, desired: read.loaded.desired.unwrap_or_default(), memory, daemon };
    let groups: Vec<Vec<Check>> = futures_util::future::join_all([
        group("engine", Box::pin(engine::checks(&case))),
        group("ports", Box::pin(local::ports(&case))),
        group("files", Box::pin(local::files(&case))),
        group("runtimes", Box::pin(local::runtimes(&case))),
        group("systemd", Box::pin(local::systemd(&case))),
        group("alb", Box::pin(aws::checks(&case))),
    ])
    .await;
    let mut checks = configuration;
    checks.extend(state);
    checks.extend(daemon_check(&case.daemon));
    checks.extend(groups.into_iter().flatten());
    checks.extend(local::password(home));
    checks.push(names(&case));
    Diagnosis { checks }
}

/// Checks to come.
type Work<'a> = Pin<Box<dyn Future<Output = Vec<Check>> + Send + 'a>>;

/// A group that is late is unknown.
async fn group(topic: &'static str, work: Work<'_>) -> Vec<Check> {
    match tokio::time::timeout(GROUP_WITHIN, work).await {
        Ok(checks) => checks,
        Err(_late) => vec![Check::unknown(topic, format!("no answer within {} s", GROUP_WITHIN.as_secs()))],
    }
}

fn configuration(home: &Home, read: &files::Read) -> Vec<Check> {
    let file = home.places.config.display();
    let problems = &read.loaded.problems;
    let errors = problems.iter().filter(|problem| problem.is_error()).count();
    let mut checks = Vec::new();
    if let Some(desired) = read.loaded.desired.as_ref().filter(|_| problems.is_empty()) {
        checks.push(Check::ok(
            "config",
            format!("{file}: {} servers, nothing to complain of", desired.servers.len()),
        ));
    }
    for problem in problems.iter().take(PROBLEMS_MAX) {
        let server = problem.server.as_ref().map(|name| format!("server '{name}': ")).unwrap_or_default();
        let said = format!("{} [{}]: {server}{}", problem.place, problem.code, problem.message);
        let remedy =
            problem.hint.clone().unwrap_or_else(|| "`mcp-orchestrator validate` says more".to_owned());
        checks.push(if problem.is_error() {
            Check::fail("config", said, remedy)
        } else {
            Check::warn("config", said, remedy)
        });
    }
    if problems.len() > PROBLEMS_MAX {
        let said = format!("{} more problems, {errors} errors in all", problems.len() - PROBLEMS_MAX);
        checks.push(Check::warn("config", said, "`mcp-orchestrator validate` names all of them"));
    }
    for warning in &home.warnings {
        let remedy = warning.hint.clone().unwrap_or_else(|| "look at docs/reference/settings.md".to_owned());
        checks.push(Check::warn("settings", format!("{}: {}", warning.place, warning.message), remedy));
    }
    if home.warnings.is_empty() {
        let settings = &home.places.settings;
        let there = if settings.exists() { "read" } else { "not there, defaults hold" };
        checks
            .push(Check::ok("settings", format!("{}: {there}; stack '{}'", settings.display(), home.stack)));
    }
    checks
}

fn daemon_check(daemon: &Daemon) -> Option<Check> {
    let ours = env!("CARGO_PKG_VERSION");
    Some(match daemon {
        Daemon::None => {
            Check::warn("daemon", "none runs for this stack", "`systemctl start mcp-orchestrator`")
        }
        Daemon::Silent(why) => Check::fail(
            "daemon",
            why.replace('\n', ";"),
            "`systemctl status mcp-orchestrator`; the user must be root or in its group",
        ),
        Daemon::Runs { version, .. } if version != ours => {
            let said = format!("version {version} runs, this program is {ours}");
            Check::warn("daemon", said, "`systemctl restart mcp-orchestrator`: sessions and containers go on")
        }
        Daemon::Runs { sentence, well: true, .. } => Check::ok("daemon", sentence),
        Daemon::Runs { sentence, .. } => Check::warn("daemon", sentence, "`status --detailed`, `why NAME`"),
    })
}

fn names(case: &Case<'_>) -> Check {
    let known = |id: &ServerId| match &case.daemon {
        Daemon::Runs { tools, .. } => tools.get(id.as_str()).cloned(),
        Daemon::None | Daemon::Silent(_) => None,
    };
    let tools: BTreeMap<ServerId, Option<Vec<String>>> =
        case.servers().map(|server| (server.id.clone(), known(&server.id))).collect();
    judge::names(&tools)
}
