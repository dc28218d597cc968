//! Which version of the files is in force, as surfaces show it.
//!
//! A generation is one accepted content of both files; it only grows, and the same files after a
//! restart of the daemon are the same generation. Hashes are of the files' bytes, so that
//! `sha256sum` tells whether what was written is what is served; they go no further than the control
//! socket, because a file may hold a password.

use crate::api::{Answered, Context, ok};
use crate::model::time::Timestamp;
use serde::Serialize;
use serde_json::json;

/// One of the files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct File {
    /// Where it is.
    pub path: String,
    /// SHA-256 of the content in force, in hexadecimal; `None`: no such file is in force.
    pub sha256: Option<String>,
    /// Why its newest content is not in force: `file:line:column: error[CODE]: …`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// The configuration in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Configuration {
    /// Counts accepted contents, from 1; 0 while none was accepted yet.
    pub generation: u64,
    /// Since when it is in force.
    pub since: Timestamp,
    /// mcp.config.json.
    pub config: File,
    /// settings.conf.
    pub settings: File,
    /// Settings whose new value waits for a restart, as `section.key`.
    pub needs_restart: Vec<&'static str>,
}

impl Configuration {
    /// Whether the newest content of both files is in force, but for what waits for a restart.
    #[must_use]
    pub const fn is_newest(&self) -> bool {
        self.config.refused.is_none() && self.settings.refused.is_none()
    }

    /// What is not as the files want it, in a few words for a status line.
    #[must_use]
    pub fn trouble(&self) -> Vec<&'static str> {
        let all = [
            (self.config.refused.is_some(), "mcp.config.json refused"),
            (self.settings.refused.is_some(), "settings.conf refused"),
            (!self.needs_restart.is_empty(), "new settings wait for a restart"),
        ];
        all.into_iter().filter_map(|(so, words)| so.then_some(words)).collect()
    }
}

/// `GET /healthz` of the control socket: this process, and what it serves.
pub(super) fn health(context: &Context) -> Answered {
    let Configuration { generation, since, config, settings, .. } = &**context.configuration.borrow();
    ok(&json!({
        "status": "ok",
        "version": env!("CARGO_PKG_VERSION"),
        "generation": generation,
        "since": since,
        "config": config.sha256,
        "settings": settings.sha256,
    }))
}
