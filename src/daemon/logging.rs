//! Where log lines go: to the journal when systemd reads our stderr, else text for a terminal and
//! JSON for anything else.
//!
//! Must never log twice, and never a secret: fields are names, ports, states, reasons.

use crate::config::settings::LogFormat;
use std::io::IsTerminal;
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

/// Levels as syslog has them, so that `journalctl -p info` shows what it says.
const PRIORITIES: PriorityMappings = PriorityMappings {
    error: Priority::Error,
    warn: Priority::Warning,
    info: Priority::Informational,
    debug: Priority::Debug,
    trace: Priority::Debug,
};

/// Changes the level of a running process.
pub type LevelHandle = reload::Handle<EnvFilter, tracing_subscriber::Registry>;

/// Starts logging; a second start in one process does nothing.
#[must_use]
pub fn start(level: &str, format: LogFormat) -> Option<LevelHandle> {
    let (filter, handle) = reload::Layer::new(filter(level));
    let registry = tracing_subscriber::registry().with(filter);
    let journal = || {
        let layer = tracing_journald::layer().ok()?;
        // Field names are the contract's: no prefix, so that `journalctl MCP_SERVER=…` works.
        let layer = layer.with_field_prefix(None).with_syslog_identifier("mcp-orchestrator".to_owned());
        Some(layer.with_priority_mappings(PRIORITIES))
    };
    let format = match format {
        LogFormat::Auto if under_journal() => LogFormat::Journald,
        LogFormat::Auto if std::io::stderr().is_terminal() => LogFormat::Text,
        LogFormat::Auto => LogFormat::Json,
        other => other,
    };
    let started = match (format, journal) {
        (LogFormat::Journald, journal) => registry.with(journal()).try_init(),
        (LogFormat::Json, _) => {
            registry.with(tracing_subscriber::fmt::layer().json().with_writer(std::io::stderr)).try_init()
        }
        _ => {
            let ansi = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let layer = tracing_subscriber::fmt::layer()
                .with_writer(std::io::stderr)
                .with_ansi(ansi)
                .with_target(false);
            registry.with(layer).try_init()
        }
    };
    started.ok().map(|()| handle)
}

/// The filter for a level word of settings.conf, or for a whole filter expression.
#[must_use]
pub fn filter(level: &str) -> EnvFilter {
    let quiet = "hyper=warn,aws_config=warn,aws_smithy_runtime=warn";
    let level = match level.to_ascii_uppercase().as_str() {
        "WARNING" => "warn".to_owned(),
        "DEBUG" | "INFO" | "ERROR" | "WARN" | "TRACE" => level.to_ascii_lowercase(),
        _ => return EnvFilter::try_new(level).unwrap_or_else(|_not_a_filter| EnvFilter::new("info")),
    };
    EnvFilter::new(format!("{level},{quiet}"))
}

/// Whether stderr is the journal's own stream: `JOURNAL_STREAM` is inherited, its inode is not.
fn under_journal() -> bool {
    let Some(stream) = std::env::var("JOURNAL_STREAM").ok() else { return false };
    let Some((device, inode)) = stream.split_once(':') else { return false };
    let Ok(stat) = rustix::fs::fstat(std::io::stderr()) else { return false };
    device.parse() == Ok(stat.st_dev) && inode.parse() == Ok(stat.st_ino)
}
