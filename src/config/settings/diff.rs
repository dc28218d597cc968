//! What a changed settings.conf changes in a running daemon, and what only a restart changes.
//!
//! Why it is so: everything that a pass or a request reads anew applies at once; what was bound,
//! locked or connected at the start does not. A restart refuses no connection, so that nothing of
//! the second kind is rebuilt in place.
//!
//! Invariant: every setting of the table is classified, and a change of it is named
//! (`tests/it/reload.rs`). Must never let a weaker password into a listener that others reach.

use crate::config::settings::typed::Settings;
use std::net::IpAddr;

/// When a changed value is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applies {
    /// With the reload: whoever uses it reads the value in force.
    AtOnce,
    /// With the next start of the daemon.
    Restart,
}

/// One setting: when a change of it applies, and how it is compared and kept.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// `section.key`, as in the table of settings.
    pub name: &'static str,
    /// When a change applies.
    pub applies: Applies,
    same: fn(&Settings, &Settings) -> bool,
    keep: fn(&mut Settings, &Settings),
}

macro_rules! rows {
    ($($applies:ident $name:literal => $section:ident . $($field:ident).+;)*) => {
        /// Every setting, in the order of the table.
        pub const ROWS: &[Row] = &[$(Row {
            name: $name,
            applies: Applies::$applies,
            same: |a, b| a.$section.$($field).+ == b.$section.$($field).+,
            keep: |into, from| into.$section.$($field).+.clone_from(&from.$section.$($field).+),
        },)*];
    };
}

rows! {
    Restart "aws.region" => aws.region;
    Restart "aws.alb_arn" => aws.alb_arn;
    Restart "aws.listener_arn" => aws.listener_arn;
    Restart "aws.vpc_id" => aws.vpc_id;
    Restart "aws.endpoint_url" => aws.endpoint_url;
    Restart "aws.target_id" => aws.target_id;
    Restart "aws.target_type" => aws.target_type;
    Restart "aws.enabled" => aws.enabled;
    AtOnce "aws.deregistration_delay_seconds" => aws.deregistration_delay;
    AtOnce "aws.gc_grace_seconds" => aws.gc_grace;
    AtOnce "aws.rule_priority_start" => aws.rule_priority_start;
    AtOnce "aws.rule_priority_end" => aws.rule_priority_end;
    AtOnce "aws.target_groups_max" => aws.target_groups_max;
    AtOnce "service.reconciliation_interval_seconds" => service.reconciliation_interval;
    AtOnce "service.port_range_start" => service.port_range_start;
    AtOnce "service.port_range_end" => service.port_range_end;
    Restart "service.stack" => service.stack;
    AtOnce "service.name_prefix" => service.name_prefix;
    AtOnce "service.allow_mass_delete" => service.allow_mass_delete;
    Restart "service.engine" => service.engine;
    Restart "service.docker_host" => service.docker_host;
    AtOnce "service.max_parallel_operations" => service.max_parallel_operations;
    AtOnce "service.max_parallel_replacements" => service.max_parallel_replacements;
    AtOnce "service.max_failed_replacements" => service.max_failed_replacements;
    AtOnce "service.settle_seconds" => service.settle;
    AtOnce "service.on_shutdown" => service.on_shutdown;
    Restart "service.process_runner" => service.process_runner;
    AtOnce "containers.no_new_privileges" => containers.no_new_privileges;
    AtOnce "containers.init" => containers.init;
    AtOnce "containers.pids_limit" => containers.pids_limit;
    AtOnce "containers.memory" => containers.memory_bytes;
    AtOnce "containers.cpus" => containers.nano_cpus;
    AtOnce "containers.cap_drop" => containers.cap_drop;
    AtOnce "containers.read_only" => containers.read_only;
    AtOnce "containers.pull" => containers.pull;
    AtOnce "containers.log_max_size" => containers.log_max_size;
    AtOnce "containers.stdio_logs" => containers.stdio_logs;
    Restart "dashboard.host" => dashboard.host;
    Restart "dashboard.port" => dashboard.port;
    AtOnce "dashboard.username" => dashboard.username;
    AtOnce "dashboard.password" => dashboard.password;
    AtOnce "dashboard.password_hash" => dashboard.password_hash;
    AtOnce "dashboard.password_file" => dashboard.password_file;
    Restart "dashboard.path" => dashboard.path;
    AtOnce "dashboard.full_control" => dashboard.full_control;
    Restart "gateway.host" => gateway.host;
    AtOnce "gateway.allowed_sources" => gateway.allowed_sources;
    Restart "gateway.port" => gateway.port;
    AtOnce "gateway.auth" => gateway.auth;
    AtOnce "gateway.tokens_file" => gateway.tokens_file;
    AtOnce "gateway.allowed_origins" => gateway.allowed_origins;
    AtOnce "gateway.public_url" => gateway.public_url;
    Restart "openapi.port" => openapi.port;
    AtOnce "openapi.path_prefix" => openapi.path_prefix;
    AtOnce "openapi.root_path" => openapi.root_path;
    AtOnce "openapi.api_key" => openapi.api_key;
    AtOnce "discovery.enabled" => discovery.enabled;
    AtOnce "discovery.paths" => discovery.paths;
    AtOnce "discovery.interval_seconds" => discovery.interval;
    AtOnce "health.interval_seconds" => health.policy.interval;
    AtOnce "health.timeout_seconds" => health.policy.timeout;
    AtOnce "health.failure_threshold" => health.policy.failure_threshold;
    AtOnce "health.recovery_threshold" => health.policy.recovery_threshold;
    AtOnce "health.start_period_seconds" => health.policy.start_period;
    AtOnce "health.max_parallel_probes" => health.max_parallel_probes;
    AtOnce "recovery.policy" => recovery.policy.when;
    AtOnce "recovery.delay_seconds" => recovery.policy.delay;
    AtOnce "recovery.delay_max_seconds" => recovery.policy.delay_max;
    AtOnce "recovery.max_attempts" => recovery.policy.attempts_max;
    AtOnce "recovery.reset_after_seconds" => recovery.policy.reset_after;
    AtOnce "recovery.restarts_per_minute_max" => recovery.restarts_per_minute_max;
    AtOnce "recovery.oom_raise" => recovery.policy.oom_raise;
    AtOnce "recovery.dependency_wait_seconds" => recovery.dependency_wait;
    Restart "storage.audit_days" => storage.audit_days;
    Restart "storage.audit_rows_max" => storage.audit_rows_max;
    AtOnce "storage.audit_calls" => storage.audit_calls;
    Restart "storage.audit_calls_days" => storage.audit_calls_days;
    Restart "storage.audit_calls_rows_max" => storage.audit_calls_rows_max;
    AtOnce "storage.history_hours" => storage.history_hours;
    AtOnce "storage.config_backups" => storage.config_backups;
    AtOnce "tls.cert_file" => tls.cert_file;
    AtOnce "tls.key_file" => tls.key_file;
    AtOnce "tls.min_version" => tls.min_version;
    AtOnce "metrics.enabled" => metrics.enabled;
    Restart "metrics.host" => metrics.host;
    Restart "metrics.port" => metrics.port;
    AtOnce "jwt.issuer" => jwt.issuer;
    AtOnce "jwt.audience" => jwt.audience;
    AtOnce "jwt.jwks_url" => jwt.jwks_url;
    AtOnce "jwt.jwks_cache_seconds" => jwt.jwks_cache;
    AtOnce "jwt.algorithms" => jwt.algorithms;
    AtOnce "jwt.leeway_seconds" => jwt.leeway;
    AtOnce "jwt.required_scopes" => jwt.required_scopes;
    AtOnce "jwt.scope_claims" => jwt.scope_claims;
    AtOnce "jwt.scope_prefix" => jwt.scope_prefix;
    AtOnce "jwt.unscoped" => jwt.unscoped;
    AtOnce "logging.level" => logging.level;
    Restart "logging.format" => logging.format;
}

/// Settings that say what the password is: a listener that others reach keeps it.
const PASSWORD: [&str; 3] = ["dashboard.password", "dashboard.password_hash", "dashboard.password_file"];
/// The address of the main listener.
const MAIN_HOST: &str = "dashboard.host";

/// What became of changed settings; names as `section.key`, in the order of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// In force at once.
    pub applied: Vec<&'static str>,
    /// In force after a restart.
    pub needs_restart: Vec<&'static str>,
}

impl Changes {
    /// Nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.applied.is_empty() && self.needs_restart.is_empty()
    }
}

/// When a change of the setting `section.key` applies; `None` for one that does not exist.
#[must_use]
pub fn applies(section: &str, key: &str) -> Option<Applies> {
    let found = ROWS.iter().find(|row| row.name.split_once('.') == Some((section, key)));
    found.map(|row| row.applies)
}

/// The main listener, as new settings find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Main {
    /// The address by which it is reached.
    pub listening: IpAddr,
    /// The address of systemd's socket unit, which counts instead of the settings' where there is one.
    pub held: Option<IpAddr>,
    /// With the new settings its password is one that everybody can read in the documentation.
    pub shipped: bool,
}

impl Main {
    /// Whether the new settings would put the shipped password where others reach it.
    const fn is_exposed(self) -> bool {
        self.shipped && !self.listening.is_loopback()
    }

    /// By which address it would be reached with `settings`.
    fn host(self, settings: &Settings) -> IpAddr {
        if self.shipped && !self.is_exposed() {
            return self.listening;
        }
        self.held.unwrap_or(settings.dashboard.host)
    }
}

/// What differs between the settings in force and those of the file.
#[must_use]
pub fn diff(old: &Settings, new: &Settings, main: Main) -> Changes {
    let exposed = main.is_exposed();
    let mut changes = Changes::default();
    for row in ROWS.iter().filter(|row| !(row.same)(old, new)) {
        let waits = row.applies == Applies::Restart || (exposed && PASSWORD.contains(&row.name));
        if waits { &mut changes.needs_restart } else { &mut changes.applied }.push(row.name);
    }
    // A password of one's own opens the listener to others, and a listener moves with a restart.
    if main.host(&in_force(old, new, main)) != main.listening && !changes.needs_restart.contains(&MAIN_HOST) {
        changes.needs_restart.push(MAIN_HOST);
    }
    changes
}

/// The settings from now on: the new ones, but for what needs a restart.
#[must_use]
pub fn in_force(old: &Settings, new: &Settings, main: Main) -> Settings {
    let exposed = main.is_exposed();
    let mut settings = new.clone();
    for row in ROWS {
        if row.applies == Applies::Restart || (exposed && PASSWORD.contains(&row.name)) {
            (row.keep)(&mut settings, old);
        }
    }
    settings
}
