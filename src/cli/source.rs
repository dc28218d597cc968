//! Where an answer comes from: the daemon, or without one the state file and the engine, where those
//! can answer.
//!
//! Must never pass a look of its own off as the daemon's word: it says so on standard error, and in
//! JSON as `"daemon": false`.

use crate::cli::client::Client;
use crate::daemon::{self, Home, Options};
use crate::terminal::failure::{Exit, Failure};
use crate::terminal::output;
use crate::terminal::screen::{Screen, waiting};
use serde_json::{Value, json};
use std::time::Duration;

/// Between two looks of `--watch`.
const EVERY: Duration = Duration::from_secs(1);

/// What is asked.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) client: Client,
    options: Options,
}

/// A report, and whose it is.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) value: Value,
    /// The daemon's.
    pub(super) live: bool,
}

impl Source {
    pub(super) const fn new(client: Client, options: Options) -> Self {
        Self { client, options }
    }

    /// The home to look around in without a daemon.
    pub(super) fn home(&self) -> Result<Home, Failure> {
        Home::find(self.options.clone())
    }

    /// The last pass's report; without a daemon and with `alone` what a look finds now.
    pub(super) async fn status(&self, query: &str, alone: bool) -> Result<Answer, Failure> {
        let path = format!("/api/v1/status?{query}");
        match waiting("waiting for the daemon", self.client.get(&path)).await {
            Ok(mut value) => {
                if let Value::Object(map) = &mut value {
                    map.insert("daemon".to_owned(), Value::Bool(true));
                }
                Ok(Answer { value, live: true })
            }
            Err(failure) if alone && failure.exit == Exit::NoDaemon => {
                let value = self.look().await.ok_or(failure)?;
                self.tell("state and Docker");
                Ok(Answer { value, live: false })
            }
            Err(failure) => Err(failure),
        }
    }

    /// `None` where there is nothing to see either.
    async fn look(&self) -> Option<Value> {
        let home = self.home().ok()?;
        let looking = async { (daemon::look::report(&home).await, daemon::look::leases(&home)) };
        let (report, leases) = waiting("no daemon answers: looking at Docker", looking).await;
        let report = report.ok().filter(|report| report.engine_known)?;
        Some(json!({
            "schemaVersion": 1,
            "daemon": false,
            "version": env!("CARGO_PKG_VERSION"),
            "sentence": report.sentence(),
            "reached": false,
            "well": false,
            "snapshot": { "pass": 0, "settled": false, "report": report, "leases": leases.unwrap_or_default() },
        }))
    }

    /// Says on standard error that the answer is not the daemon's.
    pub(super) fn tell(&self, whose: &str) {
        output::tell(&format!("no daemon answers at {}", self.client.socket().display()));
        output::tell(&format!(
            "  this is what {whose} say now; `systemctl start mcp-orchestrator` starts it"
        ));
    }
}

/// Prints what `frame` gives: once, or with `watch` again whenever it differs, until Ctrl-C. `frame`
/// is told whether it may answer without a daemon.
pub(super) async fn show(
    watch: bool,
    frame: impl AsyncFn(bool) -> Result<(String, Exit), Failure>,
) -> Result<Exit, Failure> {
    if !watch {
        let (text, exit) = frame(true).await?;
        output::data(&text);
        return Ok(exit);
    }
    let mut screen = Screen::new();
    let mut end = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let text = tokio::select! {
            _enough = end.as_mut() => return Ok(Exit::Done),
            text = frame(false) => text,
        };
        let text = match text {
            Ok((text, _)) => text,
            // It may come back: whoever watches wants to see that.
            Err(failure) if failure.exit == Exit::NoDaemon => format!("{failure}\n"),
            Err(failure) => return Err(failure),
        };
        if !screen.show(&text) {
            return Ok(Exit::Done);
        }
        tokio::select! {
            _enough = end.as_mut() => return Ok(Exit::Done),
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}
