//! Parts of a running daemon that follow the settings.
//!
//! What a pass uses comes with the wish; this is the rest: who may come in, how much runs at once,
//! how much is said. Must never change anything before all that the settings name could be read.

use crate::config::error::Problem;
use crate::daemon::logging::level::LevelSwitch;
use crate::daemon::{Home, dashboard, serving, tls};
use crate::execute::Limits;
use crate::gateway::Gateway;
use crate::gateway::audit::CallLog;
use crate::gateway::front::GatewayFront;
use crate::gateway::guard::sources::Sources;
use crate::gateway::guard::{Guard, Policy};
use crate::gateway::http::tls::Tls;
use crate::gateway::toolproxy::ToolProxy;
use crate::panel::Panel;
use crate::panel::access::Credentials;
use crate::terminal::failure::Failure;
use rustls::ServerConfig;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// What the settings name and had to be read: the password, tokens, the certificate. Read once for all
/// that need it, as a file may be another one a moment later.
pub(in crate::daemon) struct Loaded {
    policy: Policy,
    pub(super) credentials: Credentials,
    tls: tls::Loaded,
    tokens_sha256: Option<String>,
}

/// What of it is known for as long as it stays so.
pub(in crate::daemon) struct Known {
    /// The dashboard's user and password.
    pub(in crate::daemon) credentials: Credentials,
    /// The password is one that everybody can read in the documentation. Of a hash it takes long to say.
    pub(in crate::daemon) shipped: bool,
    /// SHA-256 of the tokens, in hexadecimal.
    pub(in crate::daemon) tokens_sha256: Option<String>,
    tls_sha256: Option<String>,
}

impl Known {
    /// Whether this is a password of the documentation's; remembers the last answer.
    pub(super) fn is_shipped(&mut self, credentials: Credentials) -> bool {
        if self.credentials != credentials {
            self.shipped = credentials.is_shipped();
            self.credentials = credentials;
        }
        self.shipped
    }
}

/// What of it cannot be read or used, and where.
pub(in crate::daemon) enum Unusable {
    /// The password or tokens.
    Secret(Failure),
    /// A file that `[tls]` names.
    Certificate(Box<Problem>),
}

impl Unusable {
    /// In one sentence, for a reload that is refused.
    pub(in crate::daemon) fn said(self) -> String {
        match self {
            Self::Certificate(problem) => problem.to_string(),
            Self::Secret(failure) => {
                let cause = failure.cause.map(|cause| format!(": {cause}")).unwrap_or_default();
                format!("{}{cause}", failure.message)
            }
        }
    }
}

/// At the start, which it ends.
impl From<Unusable> for Failure {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::Secret(failure) => failure,
            Unusable::Certificate(problem) => tls::failure(&problem),
        }
    }
}

impl Loaded {
    /// Reads it.
    ///
    /// # Errors
    /// What cannot be read or used.
    pub(in crate::daemon) fn of(home: &Home) -> Result<Self, Unusable> {
        let (policy, tokens_sha256) = serving::guard_policy(home).map_err(Unusable::Secret)?;
        let tls = tls::load(home).map_err(Unusable::Certificate)?;
        Ok(Self { policy, credentials: credentials(home)?, tls, tokens_sha256 })
    }

    /// What the gateway and the main listener begin with, and the rest.
    pub(in crate::daemon) fn parted(self) -> (Policy, Option<Arc<ServerConfig>>, Known) {
        let Self { policy, credentials, tls, tokens_sha256 } = self;
        let shipped = credentials.is_shipped();
        (policy, tls.config, Known { credentials, shipped, tokens_sha256, tls_sha256: tls.sha256 })
    }
}

/// The dashboard's user and password.
///
/// # Errors
/// What cannot be read or used.
pub(super) fn credentials(home: &Home) -> Result<Credentials, Unusable> {
    dashboard::credentials(home).map_err(Unusable::Secret)
}

/// The parts.
pub(in crate::daemon) struct Live {
    gateway: Arc<Gateway>,
    guard: Arc<Guard>,
    tools: Arc<ToolProxy>,
    panel: Arc<Panel>,
    sources: Arc<Sources>,
    limits: Limits,
    /// How much is said.
    pub(super) level: LevelSwitch,
    tokens_sha256: Option<String>,
    tls: Arc<Tls>,
    calls: Arc<CallLog>,
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
        known: &Known,
    ) -> Self {
        let (tokens_sha256, tls_sha256) = (known.tokens_sha256.clone(), known.tls_sha256.clone());
        let learning = tokio::spawn(serving::learn_sources(home.clone(), Arc::clone(sources)));
        let (guard, sources, tls) = (Arc::clone(&front.guard), Arc::clone(sources), Arc::clone(&front.tls));
        let (tools, calls) = (Arc::clone(&front.tools), Arc::clone(front.gateway.calls()));
        let gateway = Arc::clone(&front.gateway);
        Self {
            gateway,
            guard,
            tools,
            panel,
            sources,
            limits,
            level,
            tokens_sha256,
            tls,
            calls,
            tls_sha256,
            learning,
        }
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
        let gateway = applied.iter().any(|name| name.starts_with("gateway.") || name.starts_with("jwt."));
        if gateway || self.tokens_sha256 != tokens_sha256 {
            self.guard.set(policy);
            self.tokens_sha256 = tokens_sha256;
        }
        if applied.contains(&"openapi.api_key") {
            self.tools.set_key(serving::tool_key(home));
        }
        if applied.iter().any(|name| matches!(*name, "openapi.path_prefix" | "openapi.root_path")) {
            self.tools.set_mount(serving::tool_mount(home));
        }
        if applied.contains(&"gateway.allowed_sources") {
            // An answer to the old question must not undo the new settings.
            self.learning.abort();
            self.sources.set(&serving::allowed_sources(home));
            self.learning = tokio::spawn(serving::learn_sources(home.clone(), Arc::clone(&self.sources)));
        }
        if self.tls_sha256 != tls.sha256 {
            let what = if tls.config.is_some() { "another certificate" } else { "no TLS" };
            tracing::info!(
                "new connections to the main listener and the tool proxy's port have {what}; open ones stay as they are"
            );
            self.tls.set(tls.config);
            self.tls_sha256 = tls.sha256;
        }
        if applied.contains(&"service.max_parallel_operations") {
            self.limits.set_starts(home.parallel());
            self.gateway.set_starts_max(home.parallel());
        }
        if applied.contains(&"health.max_parallel_probes") {
            self.gateway.set_probes_max(home.settings.health.max_parallel_probes);
        }
        self.calls.enable(home.settings.storage.audit_calls);
        self.panel.figures().enable(home.settings.metrics.enabled);
        self.level.configure(&home.settings.logging.level);
    }
}
