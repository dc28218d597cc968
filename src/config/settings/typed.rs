//! The settings as types. Meaning, unit and range of every field are in
//! [`crate::config::settings::table`] under the same names.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::config::settings::check::{self, Auto};
use crate::config::units;
use crate::model::balancer::BalancerPolicy;
use crate::model::container::Opaque;
use crate::model::fingerprint::sha256_hex;
use crate::model::id::Stack;
use crate::model::net::{Cidr, HostPort, PortRange};
use crate::model::policy::{Ending, Policy};
use crate::model::server::{HealthPolicy, OomRaise, PullPolicy, RestartPolicy, RestartWhen};
use crate::model::time::Span;

/// Where the installed configuration lies; any other file is a developer's.
pub const INSTALLED_CONFIG: &str = "/etc/mcp-orchestrator/mcp.config.json";

/// The valid values by `section.key`; remembers which were read, for the test that all are.
pub(super) struct Values {
    texts: BTreeMap<String, String>,
    read: RefCell<BTreeSet<String>>,
}

impl Values {
    /// Values that [`check::complaint`] has nothing against.
    pub(super) fn new(texts: BTreeMap<String, String>) -> Self {
        Self { texts, read: RefCell::default() }
    }

    fn opt(&self, name: &str) -> Option<String> {
        self.read.borrow_mut().insert(name.to_owned());
        self.texts.get(name).cloned()
    }

    fn text(&self, name: &str) -> String {
        self.opt(name).unwrap_or_default()
    }

    fn number(&self, name: &str) -> u64 {
        self.opt(name).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    fn small(&self, name: &str) -> u32 {
        u32::try_from(self.number(name)).unwrap_or(u32::MAX)
    }

    fn count(&self, name: &str) -> usize {
        usize::try_from(self.number(name)).unwrap_or(usize::MAX)
    }

    fn span(&self, name: &str) -> Span {
        Span::secs(self.number(name))
    }

    fn opt_bool(&self, name: &str) -> Option<bool> {
        self.opt(name).as_deref().and_then(units::boolean)
    }

    fn flag(&self, name: &str) -> bool {
        self.opt_bool(name).unwrap_or(false)
    }

    fn opt_port(&self, name: &str) -> Option<HostPort> {
        let port = self.opt(name)?.parse().ok()?;
        HostPort::new(port)
    }

    fn words(&self, name: &str) -> Vec<String> {
        check::words(&self.text(name))
    }

    fn secret(&self, name: &str) -> Option<Opaque> {
        self.opt(name).map(Opaque::new)
    }

    fn address(&self, name: &str) -> Option<IpAddr> {
        self.opt(name)?.parse().ok()
    }

    fn auto<T>(&self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Auto<T> {
        self.opt(name).and_then(|text| parse(&text)).map_or(Auto::Auto, Auto::Is)
    }
}

macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident { $($(#[$more:meta])* $field:ident: $type:ty,)* })*) => {
        $($(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $($(#[$more])*
            #[doc = concat!("`", stringify!($field), "`, see the table of settings.")]
            pub $field: $type,)*
        })*
    };
}

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $first:ident = $first_word:literal, $($variant:ident = $word:literal,)* })*) => {
        $($(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub enum $name {
            #[default]
            #[doc = concat!("`", $first_word, "`")]
            $first,
            $(#[doc = concat!("`", $word, "`")] $variant,)*
        }

        impl $name {
            fn parse(text: &str) -> Self {
                match text {
                    $($word => Self::$variant,)*
                    _ => Self::$first,
                }
            }

            /// The word in settings.conf.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    Self::$first => $first_word,
                    $(Self::$variant => $word,)*
                }
            }
        })*
    };
}

words! {
    /// What target groups hold.
    TargetType { Instance = "instance", Ip = "ip", }
    /// What runs containers.
    Engine { Docker = "docker", }
    /// What becomes of containers when the daemon ends.
    OnShutdown { Keep = "keep", Drain = "drain", Stop = "stop", }
    /// What Docker logs of stdio servers.
    StdioLogs { None = "none", Docker = "docker", }
    /// How MCP clients prove who they are.
    GatewayAuth { None = "none", Bearer = "bearer", Jwt = "jwt", }
    /// What a token may use whose scopes name nothing.
    Unscoped { All = "all", None = "none", }
    /// Oldest version of TLS that is spoken.
    TlsVersion { V12 = "1.2", V13 = "1.3", }
    /// How log lines look.
    LogFormat { Auto = "auto", Journald = "journald", Json = "json", Text = "text", }
}

/// What starts local processes (`[service] process_runner`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessRunner {
    /// The installed runner where there is one, else the daemon itself.
    Auto,
    /// The daemon itself.
    None,
    /// The runner that listens on this socket.
    At(String),
}

impl ProcessRunner {
    fn parse(text: &str) -> Self {
        match text {
            "auto" | "" => Self::Auto,
            "none" => Self::None,
            path => Self::At(path.to_owned()),
        }
    }
}

/// Who may connect (`[gateway] allowed_sources`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// Loopback and the VPC's blocks, too.
    pub auto: bool,
    /// Blocks named.
    pub blocks: Vec<Cidr>,
}

settings! {
    /// `[aws]`.
    Aws {
        region: Option<String>, alb_arn: Option<String>, listener_arn: Option<String>,
        vpc_id: Option<String>, endpoint_url: Option<String>, target_id: Option<String>,
        target_type: TargetType, enabled: Auto<bool>, deregistration_delay: Span, gc_grace: Span,
        rule_priority_start: u32, rule_priority_end: u32, target_groups_max: usize,
    }
    /// `[service]`.
    Service {
        reconciliation_interval: Span, port_range_start: HostPort, port_range_end: HostPort,
        stack: Option<Stack>, name_prefix: String, allow_mass_delete: bool, engine: Engine,
        docker_host: Option<String>, max_parallel_operations: Auto<usize>,
        max_parallel_replacements: usize, max_failed_replacements: usize, settle: Span,
        on_shutdown: OnShutdown, process_runner: ProcessRunner,
    }
    /// `[containers]`; `None` is the engine's own default.
    Containers {
        no_new_privileges: Option<bool>, init: Option<bool>, pids_limit: Option<i64>,
        memory_bytes: Option<i64>, nano_cpus: Option<i64>, cap_drop: Vec<String>,
        read_only: Option<bool>, pull: PullPolicy, log_max_size: Option<String>,
        stdio_logs: StdioLogs,
    }
    /// `[dashboard]`.
    Dashboard {
        host: IpAddr, port: HostPort, username: String, password: Opaque,
        password_hash: Option<Opaque>, password_file: Option<String>, path: String,
        full_control: bool,
    }
    /// `[gateway]`.
    Gateway {
        host: Auto<IpAddr>, allowed_sources: Sources, port: Option<HostPort>, auth: GatewayAuth,
        tokens_file: Option<String>, allowed_origins: Vec<String>, public_url: Option<String>,
    }
    /// `[openapi]`.
    OpenApi {
        port: Option<HostPort>, path_prefix: Option<String>, root_path: Option<String>,
        api_key: Option<Opaque>,
    }
    /// `[discovery]`.
    Discovery { enabled: bool, paths: Vec<String>, interval: Span, }
    /// `[health]`.
    Health { policy: HealthPolicy, max_parallel_probes: usize, }
    /// `[recovery]`.
    Recovery { policy: RestartPolicy, restarts_per_minute_max: usize, dependency_wait: Span, }
    /// `[storage]`.
    Storage {
        audit_days: u32, audit_rows_max: u64, audit_calls: bool, audit_calls_days: u32,
        audit_calls_rows_max: u64, history_hours: u32, config_backups: u32,
    }
    /// `[tls]`.
    Tls { cert_file: Option<String>, key_file: Option<String>, min_version: TlsVersion, }
    /// `[metrics]`.
    Metrics { enabled: bool, host: Option<IpAddr>, port: Option<HostPort>, }
    /// `[jwt]`.
    Jwt {
        issuer: Option<String>, audience: Vec<String>, jwks_url: Option<String>, jwks_cache: Span,
        algorithms: Vec<String>, leeway: Span, required_scopes: Vec<String>,
        scope_claims: Vec<String>, scope_prefix: String, unscoped: Unscoped,
    }
    /// `[logging]`.
    Logging { level: String, format: LogFormat, }
    /// All settings.
    Settings {
        aws: Aws, service: Service, containers: Containers, dashboard: Dashboard,
        gateway: Gateway, openapi: OpenApi, discovery: Discovery, health: Health,
        recovery: Recovery, storage: Storage, tls: Tls, metrics: Metrics, jwt: Jwt,
        logging: Logging,
    }
}

/// What only the world knows of a [`Policy`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyWorld {
    /// The owner ([`Settings::stack`]).
    pub stack: Stack,
    /// Whether a load balancer is configured and in use.
    pub balancer_on: bool,
    /// `--allow-mass-delete`.
    pub allow_mass_delete: bool,
}

impl Settings {
    /// The stack: as said, else `default` for the installed configuration and
    /// `dev-<hash8 of uid and path>` for any other; `config_path` is absolute.
    /// `None` cannot be: the names built here follow the rules of a stack name.
    #[must_use]
    pub fn stack(&self, uid: u32, config_path: &str) -> Option<Stack> {
        if let Some(stack) = &self.service.stack {
            return Some(stack.clone());
        }
        if config_path == INSTALLED_CONFIG {
            return Stack::new("default").ok();
        }
        let hash = sha256_hex(&format!("{uid}\0{config_path}"), 8);
        Stack::new(&format!("dev-{hash}")).ok()
    }

    /// Whether the load balancer half works: as said, else when a listener or ALB is named.
    #[must_use]
    pub fn balancer_on(&self) -> bool {
        let named = self.aws.listener_arn.is_some() || self.aws.alb_arn.is_some();
        self.aws.enabled.or(named)
    }

    /// Address of edge ports and published direct ports.
    #[must_use]
    pub fn gateway_host(&self, balancer_on: bool) -> IpAddr {
        let found = if balancer_on { IpAddr::from([0, 0, 0, 0]) } else { IpAddr::from([127, 0, 0, 1]) };
        self.gateway.host.or(found)
    }

    /// The settings that a decision may depend on.
    #[must_use]
    pub fn policy(&self, world: &PolicyWorld) -> Policy {
        let (aws, service) = (&self.aws, &self.service);
        Policy {
            stack: world.stack.clone(),
            name_prefix: service.name_prefix.clone(),
            ports: PortRange { start: service.port_range_start, end: service.port_range_end },
            host: self.gateway_host(world.balancer_on).to_string(),
            allow_mass_delete: service.allow_mass_delete || world.allow_mass_delete,
            replacements_max: service.max_parallel_replacements,
            rollout_failures_max: service.max_failed_replacements,
            restarts_per_minute_max: self.recovery.restarts_per_minute_max,
            dependency_wait: self.recovery.dependency_wait,
            settle: service.settle,
            ending: Ending::None,
            balancer: BalancerPolicy {
                target_type: aws.target_type.as_str().to_owned(),
                deregistration_delay: aws.deregistration_delay,
                gc_grace: aws.gc_grace,
                priority_start: aws.rule_priority_start,
                priority_end: aws.rule_priority_end,
                target_groups_max: aws.target_groups_max,
                shared_port: self.gateway.port,
                leaving: false,
            },
        }
    }
}

/// Reads every setting; `None` only when a port with a default has none, which the table excludes
/// (test `every_default_is_valid`).
pub(super) fn read(values: &Values) -> Option<Settings> {
    Some(Settings {
        aws: read_aws(values),
        service: read_service(values)?,
        containers: read_containers(values),
        dashboard: Dashboard {
            host: values.address("dashboard.host").unwrap_or(IpAddr::from([127, 0, 0, 1])),
            port: values.opt_port("dashboard.port")?,
            username: values.text("dashboard.username"),
            password: Opaque::new(values.text("dashboard.password")),
            password_hash: values.secret("dashboard.password_hash"),
            password_file: values.opt("dashboard.password_file"),
            path: values.text("dashboard.path"),
            full_control: values.flag("dashboard.full_control"),
        },
        gateway: Gateway {
            host: values.auto("gateway.host", |text| text.parse().ok()),
            allowed_sources: sources(&values.words("gateway.allowed_sources")),
            port: values.opt_port("gateway.port"),
            auth: GatewayAuth::parse(&values.text("gateway.auth")),
            tokens_file: values.opt("gateway.tokens_file"),
            allowed_origins: values.words("gateway.allowed_origins"),
            public_url: values.opt("gateway.public_url").map(|url| url.trim_end_matches('/').to_owned()),
        },
        openapi: OpenApi {
            port: values.opt_port("openapi.port"),
            path_prefix: values.opt("openapi.path_prefix"),
            root_path: values.opt("openapi.root_path"),
            api_key: values.secret("openapi.api_key"),
        },
        discovery: Discovery {
            enabled: values.flag("discovery.enabled"),
            paths: values.words("discovery.paths"),
            interval: values.span("discovery.interval_seconds"),
        },
        health: read_health(values),
        recovery: read_recovery(values),
        storage: Storage {
            audit_days: values.small("storage.audit_days"),
            audit_rows_max: values.number("storage.audit_rows_max"),
            audit_calls: values.flag("storage.audit_calls"),
            audit_calls_days: values.small("storage.audit_calls_days"),
            audit_calls_rows_max: values.number("storage.audit_calls_rows_max"),
            history_hours: values.small("storage.history_hours"),
            config_backups: values.small("storage.config_backups"),
        },
        tls: Tls {
            cert_file: values.opt("tls.cert_file"),
            key_file: values.opt("tls.key_file"),
            min_version: TlsVersion::parse(&values.text("tls.min_version")),
        },
        metrics: Metrics {
            enabled: values.flag("metrics.enabled"),
            host: values.address("metrics.host"),
            port: values.opt_port("metrics.port"),
        },
        jwt: read_jwt(values),
        logging: Logging {
            level: values.text("logging.level"),
            format: LogFormat::parse(&values.text("logging.format")),
        },
    })
}

fn read_aws(values: &Values) -> Aws {
    Aws {
        region: values.opt("aws.region"),
        alb_arn: values.opt("aws.alb_arn"),
        listener_arn: values.opt("aws.listener_arn"),
        vpc_id: values.opt("aws.vpc_id"),
        endpoint_url: values.opt("aws.endpoint_url"),
        target_id: values.opt("aws.target_id"),
        target_type: TargetType::parse(&values.text("aws.target_type")),
        enabled: values.auto("aws.enabled", units::boolean),
        deregistration_delay: values.span("aws.deregistration_delay_seconds"),
        gc_grace: values.span("aws.gc_grace_seconds"),
        rule_priority_start: values.small("aws.rule_priority_start"),
        rule_priority_end: values.small("aws.rule_priority_end"),
        target_groups_max: values.count("aws.target_groups_max"),
    }
}

fn read_service(values: &Values) -> Option<Service> {
    Some(Service {
        reconciliation_interval: values.span("service.reconciliation_interval_seconds"),
        port_range_start: values.opt_port("service.port_range_start")?,
        port_range_end: values.opt_port("service.port_range_end")?,
        stack: values.opt("service.stack").and_then(|text| Stack::new(&text).ok()),
        name_prefix: values.text("service.name_prefix"),
        allow_mass_delete: values.flag("service.allow_mass_delete"),
        engine: Engine::parse(&values.text("service.engine")),
        docker_host: values.opt("service.docker_host"),
        max_parallel_operations: values.auto("service.max_parallel_operations", |text| text.parse().ok()),
        max_parallel_replacements: values.count("service.max_parallel_replacements"),
        max_failed_replacements: values.count("service.max_failed_replacements"),
        settle: values.span("service.settle_seconds"),
        on_shutdown: OnShutdown::parse(&values.text("service.on_shutdown")),
        process_runner: ProcessRunner::parse(&values.text("service.process_runner")),
    })
}

fn read_containers(values: &Values) -> Containers {
    let size = |name| values.opt(name).and_then(|text| units::size_bytes(&text).ok());
    Containers {
        no_new_privileges: values.opt_bool("containers.no_new_privileges"),
        init: values.opt_bool("containers.init"),
        pids_limit: values.opt("containers.pids_limit").and_then(|text| text.parse().ok()),
        memory_bytes: size("containers.memory"),
        nano_cpus: values.opt("containers.cpus").and_then(|text| units::nano_cpus(&text).ok()),
        cap_drop: values.words("containers.cap_drop"),
        read_only: values.opt_bool("containers.read_only"),
        pull: match values.text("containers.pull").as_str() {
            "always" => PullPolicy::Always,
            "never" => PullPolicy::Never,
            _ => PullPolicy::Missing,
        },
        log_max_size: values.opt("containers.log_max_size"),
        stdio_logs: match values.opt("containers.stdio_logs") {
            Some(text) => StdioLogs::parse(&text),
            None => StdioLogs::Docker,
        },
    }
}

fn read_jwt(values: &Values) -> Jwt {
    Jwt {
        issuer: values.opt("jwt.issuer"),
        audience: values.words("jwt.audience"),
        jwks_url: values.opt("jwt.jwks_url"),
        jwks_cache: values.span("jwt.jwks_cache_seconds"),
        algorithms: values.words("jwt.algorithms"),
        leeway: values.span("jwt.leeway_seconds"),
        required_scopes: values.words("jwt.required_scopes"),
        scope_claims: values.words("jwt.scope_claims"),
        scope_prefix: values.text("jwt.scope_prefix"),
        unscoped: Unscoped::parse(&values.text("jwt.unscoped")),
    }
}

fn read_health(values: &Values) -> Health {
    Health {
        policy: HealthPolicy {
            path: None,
            interval: values.span("health.interval_seconds"),
            timeout: values.span("health.timeout_seconds"),
            failure_threshold: values.small("health.failure_threshold"),
            recovery_threshold: values.small("health.recovery_threshold"),
            start_period: values.span("health.start_period_seconds"),
        },
        max_parallel_probes: values.count("health.max_parallel_probes"),
    }
}

fn read_recovery(values: &Values) -> Recovery {
    Recovery {
        policy: RestartPolicy {
            when: match values.text("recovery.policy").as_str() {
                "never" => RestartWhen::Never,
                "on-failure" => RestartWhen::OnFailure,
                _ => RestartWhen::Always,
            },
            delay: values.span("recovery.delay_seconds"),
            delay_max: values.span("recovery.delay_max_seconds"),
            attempts_max: values.opt("recovery.max_attempts").and_then(|text| text.parse().ok()),
            reset_after: values.span("recovery.reset_after_seconds"),
            oom_raise: if values.flag("recovery.oom_raise") { OomRaise::Half } else { OomRaise::No },
        },
        restarts_per_minute_max: values.count("recovery.restarts_per_minute_max"),
        dependency_wait: values.span("recovery.dependency_wait_seconds"),
    }
}

fn sources(words: &[String]) -> Sources {
    Sources {
        auto: words.iter().any(|word| word == "auto"),
        blocks: words.iter().filter_map(|word| Cidr::parse(word)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Values, read};
    use crate::config::settings::table::KEYS;
    use std::collections::BTreeSet;

    #[test]
    fn every_setting_is_read() {
        let defaults =
            KEYS.iter().map(|key| (format!("{}.{}", key.section, key.key), key.default.to_owned()));
        let values = Values::new(defaults.filter(|(_, value)| !value.is_empty()).collect());
        assert!(read(&values).is_some());
        let known: BTreeSet<String> = KEYS.iter().map(|key| format!("{}.{}", key.section, key.key)).collect();
        assert_eq!(*values.read.borrow(), known);
    }
}
