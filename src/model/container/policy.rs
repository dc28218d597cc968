//! Health check, restart, pull and security options of a container.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::container::{Opaque, is_default};

/// `--health-*` or `--no-healthcheck`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HealthCheck {
    /// `--no-healthcheck`: the image's check is switched off.
    Disabled,
    /// Fields given; the rest is the image's or the engine's default.
    Probe(HealthProbe),
}

/// `--health-*`; zero means "as the image or the engine has it". Times in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthProbe {
    /// `--health-cmd`, run by the container's shell.
    #[serde(skip_serializing_if = "is_default")]
    pub command: Option<Opaque>,
    /// `--health-interval`.
    #[serde(skip_serializing_if = "is_default")]
    pub interval_nanos: i64,
    /// `--health-timeout`.
    #[serde(skip_serializing_if = "is_default")]
    pub timeout_nanos: i64,
    /// `--health-start-period`.
    #[serde(skip_serializing_if = "is_default")]
    pub start_period_nanos: i64,
    /// `--health-start-interval` (Engine API 1.44).
    #[serde(skip_serializing_if = "is_default")]
    pub start_interval_nanos: i64,
    /// `--health-retries`.
    #[serde(skip_serializing_if = "is_default")]
    pub retries: i64,
}

/// `--restart`. It says what the service does; the engine's own policy stays `no`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// After an exit with another code than zero; zero retries: without end.
    OnFailure {
        /// How many times at most.
        max_retries: u32,
    },
    /// Always.
    Always,
    /// Always, unless stopped by hand.
    UnlessStopped,
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => f.write_str("no"),
            Self::OnFailure { max_retries: 0 } => f.write_str("on-failure"),
            Self::OnFailure { max_retries } => write!(f, "on-failure:{max_retries}"),
            Self::Always => f.write_str("always"),
            Self::UnlessStopped => f.write_str("unless-stopped"),
        }
    }
}

/// `--pull`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PullPolicy {
    /// When the image is not there.
    #[default]
    Missing,
    /// Before every creation.
    Always,
    /// Never; a missing image is an error.
    Never,
}

impl fmt::Display for PullPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "missing",
            Self::Always => "always",
            Self::Never => "never",
        })
    }
}

/// `--security-opt`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SecurityOption {
    /// `seccomp=FILE`: the profile itself is part of the declaration, so that a changed file is a
    /// changed container.
    SeccompProfile {
        /// File as written.
        path: String,
        /// Its content as compact JSON.
        profile: String,
    },
    /// Any other, as written (`no-new-privileges`, `label=disable`, `apparmor=…`).
    Plain(String),
}
