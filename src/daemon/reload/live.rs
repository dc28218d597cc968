//! Parts of a running daemon that follow the settings.
//!
//! What a pass uses comes with the wish; this is the rest: who may come in, how much runs at once,
//! how much is said. Must never change anything before all that the settings name could be read.

use crate::daemon::logging::level::LevelSwitch;
use crate::daemon::{Home, dashboard, serving, tls};
use crate::execute::Limits;
use crate::gateway::front::GatewayFront;
use crate::gateway::guard::sources::Sources;
use crate::gateway::guard::{Guard, Policy};
use crate::gateway::http::tls::Tls;
use crate::gateway::toolproxy::ToolProxy;
use crate::panel::Panel;
use crate::panel::access::Credentials;
use crate::terminal::failure::Failure;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// What the settings name and had to be read: the password, tokens.
pub(super) struct Loaded {
    policy: Policy,
    credentials: Credentials,
    tls: tls::Loaded,
    /// SHA-256 of the tokens, in hexadecimal.
    pub(super) tokens_sha256: Option<String>,
}

impl Loaded {
    /// Reads it.
    ///
    /// # Errors
    /// What cannot be read or used, and where.
    pub(super) fn of(home: &Home) -> Result<Self, String> {
        let (policy, tokens_sha256) = serving::guard_policy(home).map_err(said)?;
        let tls = tls::load(home).map_err(|problem| problem.to_string())?;
        Ok(Self { policy, credentials: credentials(home)?, tls, tokens_sha256 })
    }
}

/// The dashboard's user and password.
///
/// # Errors
/// What cannot be read or used.
pub(super) fn credentials(home: &Home) -> Result<Credentials, String> {
    dashboard::credentials(home).map_err(said)
}

fn said(failure: Failure) -> String {
    let cause = failure.cause.map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{}{cause}", failure.message)
}

/// The parts.
pub(in crate::daemon) struct Live {
    guard: Arc<Guard>,
    tools: Arc<ToolProxy>,
    panel: Arc<Panel>,
    sources: Arc<Sources>,
    limits: Limits,
    /// How much is said.
    pub(super) level: LevelSwitch,
    tokens_sha256: Option<String>,
    tls: Arc<Tls>,
    tls_sha256: Option<String>,
    /// Asks for the blocks of this host's network.
    learning: JoinHandle<()>,
}

impl Live {
    /// Parts as the start made them; begins to learn who may connect.
    pub(in crate::daemon) fn new(
        home: &Home,
        (front, panel): (&GatewayFront, Arc<Panel>),
        sources: &Arc<Sources>,
        (limits, level): (Limits, LevelSwitch),
    ) -> Self {
        let learning = tokio::spawn(serving::learn_sources(home.clone(), Arc::clone(sources)));
        let loaded = Loaded::of(home).ok();
        let (tokens_sha256, tls_sha256) =
            loaded.map(|loaded| (loaded.tokens_sha256, loaded.tls.sha256)).unwrap_or_default();
        let (guard, sources, tls) = (Arc::clone(&front.guard), Arc::clone(sources), Arc::clone(&front.tls));
        let tools = Arc::clone(&front.tools);
        Self { guard, tools, panel, sources, limits, level, tokens_sha256, tls, tls_sha256, learning }
    }

    /// SHA-256 of the tokens in force.
    pub(super) fn tokens(&self) -> Option<&str> {
        self.tokens_sha256.as_deref()
    }

    /// Follows the settings of `home`; `applied` names those that changed.
    pub(super) fn apply(&mut self, home: &Home, loaded: Loaded, applied: &[&str]) {
        let Loaded { policy, credentials, tls, tokens_sha256 } = loaded;
        // A file with the password may change while its name does not.
        self.panel.access().set(credentials);
        let gateway = applied.iter().any(|name| name.starts_with("gateway."));
        if gateway || self.tokens_sha256 != tokens_sha256 {
            self.guard.set(policy);
            self.tokens_sha256 = tokens_sha256;
        }
        if applied.contains(&"openapi.api_key") {
            self.tools.set_key(serving::tool_key(home));
        }
        if applied.contains(&"gateway.allowed_sources") {
            // An answer to the old question must not undo the new settings.
            self.learning.abort();
            self.sources.set(&serving::allowed_sources(home));
            self.learning = tokio::spawn(serving::learn_sources(home.clone(), Arc::clone(&self.sources)));
        }
        if self.tls_sha256 != tls.sha256 {
            let what = if tls.config.is_some() { "another certificate" } else { "no TLS" };
            tracing::info!("new connections to the main listener have {what}; open ones stay as they are");
            self.tls.set(tls.config);
            self.tls_sha256 = tls.sha256;
        }
        if applied.contains(&"service.max_parallel_operations") {
            self.limits.set_starts(home.parallel());
        }
        self.panel.figures().enable(home.settings.metrics.enabled);
        self.level.configure(&home.settings.logging.level);
    }
}
