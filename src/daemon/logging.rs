//! Where log lines go: to the journal when systemd reads our stderr, else text for a terminal and
//! JSON for anything else.
//!
//! While the journal cannot be reached, lines go to stderr as JSON. What repeats itself is counted
//! ([`repeats`]), and how much is said can be changed while we run ([`level`]).
//!
//! Must never log twice, and never a secret: fields are names, ports, states, reasons.

pub mod journal;
pub mod level;
pub mod repeats;

use crate::config::settings::{LogFormat, level::Level};
use crate::daemon::logging::level::LevelSwitch;
use crate::daemon::logging::repeats::Repeats;
use std::io::IsTerminal;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

/// Others' events that are told on level WARNING only, unless an expression asks for more.
const QUIET: &str = "hyper=warn,aws_config=warn,aws_smithy_runtime=warn";

/// What may be changed of a running process's log.
#[derive(Clone, Debug)]
pub struct Log {
    /// How much is said.
    pub level: LevelSwitch,
    /// What was held back because it repeats itself.
    pub repeats: Repeats,
}

impl Log {
    /// Ends levels whose time is over, and tells what repeated itself; runs as long as the daemon.
    pub async fn run(self) {
        tokio::join!(self.level.run(crate::daemon::now), self.repeats.run());
    }
}

/// Starts logging; a second start in one process changes nothing.
#[must_use]
pub fn start(level: &str, format: LogFormat) -> Log {
    let (filter, handle) = reload::Layer::new(filter(level));
    let repeats = Repeats::default();
    let registry = tracing_subscriber::registry().with(filter).with(repeats.clone());
    let format = match format {
        LogFormat::Auto if under_journal() => LogFormat::Journald,
        LogFormat::Auto if std::io::stderr().is_terminal() => LogFormat::Text,
        LogFormat::Auto => LogFormat::Json,
        other => other,
    };
    let started = match format {
        LogFormat::Journald => registry.with(journal::layer(json())).try_init(),
        LogFormat::Json => registry.with(json()).try_init(),
        LogFormat::Auto | LogFormat::Text => {
            let ansi = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let layer = tracing_subscriber::fmt::layer()
                .with_writer(std::io::stderr)
                .with_ansi(ansi)
                .with_target(false);
            registry.with(layer).try_init()
        }
    };
    Log { level: LevelSwitch::new(level, started.is_ok().then_some(handle)), repeats }
}

/// One object per line on stderr.
fn json<S>() -> impl Layer<S>
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span>,
{
    tracing_subscriber::fmt::layer().json().with_writer(std::io::stderr)
}

/// The filter for a level word of settings.conf, or for a whole filter expression.
#[must_use]
pub fn filter(level: &str) -> EnvFilter {
    let read = crate::config::settings::level::read(level);
    read.ok().and_then(|level| expression(&level)).unwrap_or_else(|| EnvFilter::new(format!("info,{QUIET}")))
}

/// `None` for an expression that the filter does not take.
fn expression(level: &Level) -> Option<EnvFilter> {
    let text = if level.is_word { format!("{},{QUIET}", level.filter) } else { level.filter.clone() };
    EnvFilter::try_new(text).ok()
}

/// Whether stderr is the journal's own stream: `JOURNAL_STREAM` is inherited, its inode is not.
fn under_journal() -> bool {
    let Some(stream) = std::env::var("JOURNAL_STREAM").ok() else { return false };
    let Some((device, inode)) = stream.split_once(':') else { return false };
    let Ok(stat) = rustix::fs::fstat(std::io::stderr()) else { return false };
    device.parse() == Ok(stat.st_dev) && inode.parse() == Ok(stat.st_ino)
}
