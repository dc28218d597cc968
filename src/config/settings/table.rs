//! All settings in one table: the single source of parsing, checking, "did you mean",
//! `docs/reference` and the commented `settings.conf`.
//!
//! A setting that is not here does not exist; a test holds that every one is read into
//! [`crate::config::settings::Settings`].

/// What a setting's value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// Any text, never shown.
    Secret,
    /// A path of a file or directory.
    Path,
    /// `true` or `false`.
    Bool,
    /// `auto`, `true` or `false`.
    AutoBool,
    /// A whole number.
    Int {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// `auto` or a whole number.
    AutoInt {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// A TCP port, 1 to 65535.
    Port,
    /// A whole number of seconds.
    Seconds {
        /// Fewest.
        min: u64,
        /// Most.
        max: u64,
    },
    /// A size such as `10m`.
    Size,
    /// A number of CPUs such as `0.5`.
    Cpus,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Words separated by commas or spaces.
    Words,
    /// Some of these words, separated by commas or spaces.
    Choices(&'static [&'static str]),
    /// Addresses or CIDR blocks separated by commas or spaces, or `auto`.
    Sources,
    /// An IP address.
    Host,
    /// An IP address or `auto`.
    AutoHost,
    /// The beginning of container names.
    Prefix,
    /// An http or https URL.
    Url,
    /// The path of a page: starts with `/`.
    Route,
    /// A stack's name.
    Stack,
    /// How much is logged: a word, or a filter expression.
    Level,
    /// `auto`, `none` or the absolute path of a socket.
    Runner,
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Section of settings.conf.
    pub section: &'static str,
    /// Key in it.
    pub key: &'static str,
    /// Type and range.
    pub kind: Kind,
    /// Value when unset, as it would be written; empty: none.
    pub default: &'static str,
    /// An empty value means "none, as the engine has it" and not the default above.
    pub empty_is_none: bool,
    /// Meaning in one sentence.
    pub meaning: &'static str,
}

/// One section.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Its name.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
}

const DAY: u64 = 86_400;

const fn key(
    section: &'static str,
    key: &'static str,
    kind: Kind,
    default: &'static str,
    meaning: &'static str,
) -> Key {
    Key { section, key, kind, default, empty_is_none: false, meaning }
}

const fn container(name: &'static str, kind: Kind, default: &'static str, meaning: &'static str) -> Key {
    Key { section: "containers", key: name, kind, default, empty_is_none: true, meaning }
}

const fn int(min: u64, max: u64) -> Kind {
    Kind::Int { min, max }
}

const fn seconds(min: u64, max: u64) -> Kind {
    Kind::Seconds { min, max }
}

/// All sections in the order of the file.
#[rustfmt::skip] // one line for each, as in a table
pub const SECTIONS: &[Section] = &[
    section("aws", "The application load balancer. Without a listener or ALB named this half is off."),
    section("service", "The daemon itself."),
    section("containers", "Defaults for every container; what an entry says itself wins. An empty value means Docker's own default."),
    section("dashboard", "The page for operators and the REST API."),
    section("gateway", "How MCP clients get in."),
    section("openapi", "The OpenAPI tool proxy."),
    section("discovery", "Finding MCP servers in other programs' files."),
    section("health", "Defaults of health checks; sections and entries may say otherwise."),
    section("recovery", "Defaults of restarts after a crash; sections and entries may say otherwise."),
    section("storage", "What the state file keeps, and for how long."),
    section("tls", "TLS on the main listener and the tool proxy's own port."),
    section("metrics", "Prometheus figures."),
    section("jwt", "Tokens of MCP clients with [gateway] auth = jwt."),
    section("logging", "What is logged, and how."),
];

const fn section(name: &'static str, about: &'static str) -> Section {
    Section { name, about }
}

/// All settings in the order of the file.
#[rustfmt::skip] // one line for each, as in a table
pub const KEYS: &[Key] = &[
    key("aws", "region", Kind::Text, "", "Region of the load balancer; empty: as the AWS SDK finds it (environment, profile, instance metadata)."),
    key("aws", "alb_arn", Kind::Text, "", "ARN of the load balancer; its listener is found when listener_arn is empty (HTTPS first, then HTTP)."),
    key("aws", "listener_arn", Kind::Text, "", "ARN of the listener that gets the rules."),
    key("aws", "vpc_id", Kind::Text, "", "VPC of the target groups; empty: the load balancer's."),
    key("aws", "endpoint_url", Kind::Url, "", "Another endpoint of the API, for tests and private endpoints."),
    key("aws", "target_id", Kind::Text, "", "Instance id or IP address that is registered; empty: asked from instance metadata (IMDSv2)."),
    key("aws", "target_type", Kind::Choice(&["instance", "ip"]), "instance", "What target groups hold."),
    key("aws", "enabled", Kind::AutoBool, "auto", "Whether the load balancer half works; auto: when a listener or ALB is named."),
    key("aws", "deregistration_delay_seconds", seconds(0, 3600), "30", "How long connections may last after a target is deregistered."),
    key("aws", "gc_grace_seconds", seconds(0, DAY), "30", "How long a rule and target group without targets wait before they go (another host may be joining)."),
    key("aws", "rule_priority_start", int(1, 50_000), "20000", "Lowest priority number of our listener rules."),
    key("aws", "rule_priority_end", int(1, 50_000), "39999", "Highest priority number of our listener rules."),
    key("aws", "target_groups_max", int(1, 1000), "100", "Target groups one load balancer may have; AWS fixes it at 100."),
    key("service", "reconciliation_interval_seconds", seconds(1, DAY), "60", "Time between two passes when nothing happens."),
    key("service", "port_range_start", Kind::Port, "8000", "Lowest host port given to servers."),
    key("service", "port_range_end", Kind::Port, "9000", "Highest host port given to servers."),
    key("service", "stack", Kind::Stack, "", "Owner of everything made here; empty: `default` for the installed configuration, `dev-<hash>` for any other file. Two stacks never touch each other's objects."),
    key("service", "name_prefix", Kind::Prefix, "mcp-", "Beginning of container names; change it to run two stacks with equal ids on one engine."),
    key("service", "allow_mass_delete", Kind::Bool, "false", "Whether one pass may remove more than half of the servers, or all of them."),
    key("service", "engine", Kind::Choice(&["docker"]), "docker", "What runs containers."),
    key("service", "docker_host", Kind::Text, "", "Address of the engine; empty: DOCKER_HOST, then unix:///var/run/docker.sock."),
    key("service", "max_parallel_operations", Kind::AutoInt { min: 1, max: 1000 }, "auto", "Starts of containers, and of local processes, at once, those of a higher priority first; auto: 2 x cores. Stops are not bound by it."),
    key("service", "max_parallel_replacements", int(1, 1000), "2", "Replacements of running containers at once."),
    key("service", "max_failed_replacements", int(1, 1000), "3", "Failed replacements after which a roll-out stops."),
    key("service", "settle_seconds", seconds(0, 600), "2", "How long a new container must run before it counts as up."),
    key("service", "on_shutdown", Kind::Choice(&["keep", "drain", "stop"]), "keep", "What becomes of containers when the daemon ends: keep them, drain (deregister and finish, containers stay) or stop them. Also at a restart of the daemon."),
    key("service", "process_runner", Kind::Runner, "auto", "What starts servers that are local processes: the runner that listens on this socket, or none for the daemon itself; auto: for the installed configuration /run/mcp-orchestrator-runner/runner.sock where it exists, else the daemon itself."),
    container("no_new_privileges", Kind::Bool, "true", "Processes in containers cannot gain privileges (--security-opt no-new-privileges)."),
    container("init", Kind::Bool, "true", "A small init forwards signals and reaps processes (--init)."),
    container("pids_limit", Kind::Int { min: 1, max: 4_194_304 }, "1024", "Most processes and threads in a container (--pids-limit)."),
    container("memory", Kind::Size, "", "Memory limit (--memory)."),
    container("cpus", Kind::Cpus, "", "CPU limit (--cpus)."),
    container("cap_drop", Kind::Words, "", "Capabilities taken away (--cap-drop), for example ALL."),
    container("read_only", Kind::Bool, "", "Root file system read-only (--read-only)."),
    container("pull", Kind::Choice(&["missing", "always", "never"]), "missing", "When images are pulled (--pull)."),
    container("log_max_size", Kind::Size, "10m", "Size at which json-file logs are rotated, where the entry names no log driver."),
    container("stdio_logs", Kind::Choice(&["none", "docker"]), "none", "What Docker logs of stdio servers, whose standard output is protocol traffic; an entry's own --log-driver wins."),
    key("dashboard", "host", Kind::Host, "0.0.0.0", "Address of the main listener; it is 127.0.0.1 while the password is the shipped one."),
    key("dashboard", "port", Kind::Port, "5000", "Port of the main listener."),
    key("dashboard", "username", Kind::Text, "admin", "User name of dashboard and API."),
    key("dashboard", "password", Kind::Secret, "changeme", "Password; better: password_hash, password_file or the systemd credential dashboard-password."),
    key("dashboard", "password_hash", Kind::Secret, "", "Argon2id hash of the password, made by `mcp-orchestrator hash-password`; wins over password."),
    key("dashboard", "password_file", Kind::Path, "", "File with the password or its hash; wins over password."),
    key("dashboard", "path", Kind::Route, "/monitor", "Path of the dashboard."),
    key("dashboard", "full_control", Kind::Bool, "false", "Whether `allow`, process commands, host paths and ${file:} may be set over HTTP."),
    key("gateway", "host", Kind::AutoHost, "auto", "Address of edge ports and of published direct ports; auto: loopback, all interfaces when an ALB is configured."),
    key("gateway", "allowed_sources", Kind::Sources, "auto", "Who may connect to edge ports; auto: loopback and the VPC's CIDR blocks. Direct ports have no such guard: the security group is theirs."),
    key("gateway", "port", Kind::Port, "", "A listener with /mcp and /healthz only, for the shared-target-group mode."),
    key("gateway", "auth", Kind::Choice(&["none", "bearer", "jwt"]), "none", "How MCP clients prove who they are; with none, /mcp and /openapi on the main listener answer direct loopback clients only."),
    key("gateway", "tokens_file", Kind::Path, "", "File with tokens, one per line: TOKEN, NAME:TOKEN or NAME:sha256:DIGEST; empty: the systemd credential gateway-tokens."),
    key("gateway", "allowed_origins", Kind::Words, "", "Names that requests may come under and origins of pages that may send them, beside loopback; empty: from other hosts any name, because load balancers keep their clients' one."),
    key("gateway", "public_url", Kind::Url, "", "Scheme, host and port that clients reach this host by, such as a load balancer's https://mcp.example.com; empty: as each request says."),
    key("openapi", "port", Kind::Port, "", "A port of its own for the tool proxy, for example 25530."),
    key("openapi", "path_prefix", Kind::Route, "", "Path on that port below which servers are, such as /tools; empty: its root. mcpo's --path-prefix."),
    key("openapi", "root_path", Kind::Route, "", "Path at which a reverse proxy in front has that port, such as /gateway: documents, pages and redirects begin with it. mcpo's --root-path."),
    key("openapi", "api_key", Kind::Secret, "", "Key that callers of the tool proxy must send."),
    key("discovery", "enabled", Kind::Bool, "false", "Whether other programs' files are searched at intervals; `discover` works always."),
    key("discovery", "paths", Kind::Words, "", "Directories searched."),
    key("discovery", "interval_seconds", seconds(10, 7 * DAY), "300", "Time between two searches."),
    key("health", "interval_seconds", seconds(1, DAY), "30", "Time between two probes of one server."),
    key("health", "timeout_seconds", seconds(1, 3600), "5", "Time for one probe."),
    key("health", "failure_threshold", int(1, 1000), "3", "Failures in a row that make a server unhealthy."),
    key("health", "recovery_threshold", int(1, 1000), "2", "Successes in a row that make it healthy again."),
    key("health", "start_period_seconds", seconds(1, DAY), "60", "Time within which a new container must be ready."),
    key("health", "max_parallel_probes", int(1, 1000), "8", "Probes at once."),
    key("recovery", "policy", Kind::Choice(&["always", "on-failure", "never"]), "always", "Which ends of a server are answered with a restart."),
    key("recovery", "delay_seconds", seconds(0, DAY), "1", "Delay before the second restart in a row; it doubles from there. The first has none."),
    key("recovery", "delay_max_seconds", seconds(1, DAY), "300", "Longest delay between restarts."),
    key("recovery", "max_attempts", int(1, 1_000_000), "", "Restarts in a row before giving up; empty: no limit."),
    key("recovery", "reset_after_seconds", seconds(1, 7 * DAY), "600", "Running this long forgets earlier crashes."),
    key("recovery", "restarts_per_minute_max", int(1, 10_000), "10", "Restarts of servers of this host, containers and local processes together, within a minute that nobody asked for; the first one of a server that was stable is not counted."),
    key("recovery", "oom_raise", Kind::Bool, "false", "Whether a container that is killed for memory is made anew, once, with half as much again of its memory limit; an entry's restart.oomRaise wins."),
    key("recovery", "dependency_wait_seconds", seconds(0, DAY), "120", "How long a server that is to be started waits for the sections it depends on (dependsOn); then it is started all the same."),
    key("storage", "audit_days", int(1, 3650), "90", "Days that tasks and audit entries are kept."),
    key("storage", "audit_rows_max", int(100, 100_000_000), "100000", "Most audit entries kept."),
    key("storage", "audit_calls", Kind::Bool, "true", "Whether it is kept who called what: clients' calls of tools, prompts and resources, without arguments and results."),
    key("storage", "audit_calls_days", int(1, 3650), "30", "Days that calls of clients are kept."),
    key("storage", "audit_calls_rows_max", int(100, 100_000_000), "100000", "Most calls of clients kept."),
    key("storage", "history_hours", int(1, 8760), "24", "Hours of figures kept for the charts."),
    key("storage", "config_backups", int(0, 1000), "10", "Backups of mcp.config.json kept when it is edited through the API."),
    key("tls", "cert_file", Kind::Path, "", "Certificate chain (PEM), the host's own first; TLS is on when it is set."),
    key("tls", "key_file", Kind::Path, "", "Private key (PEM). Both files are read again with every reload and when they change; open connections keep what they began with."),
    key("tls", "min_version", Kind::Choice(&["1.2", "1.3"]), "1.2", "Oldest version of TLS that is spoken."),
    key("metrics", "enabled", Kind::Bool, "true", "Whether /metrics answers."),
    key("metrics", "host", Kind::Host, "", "Address of the separate listener; empty: the main listener's."),
    key("metrics", "port", Kind::Port, "", "Port of a separate listener for /metrics and the probes, without a password and without TLS; empty: none. The main listener has them too."),
    key("jwt", "issuer", Kind::Url, "", "Issuer that tokens must name, exactly as they do."),
    key("jwt", "audience", Kind::Words, "", "Audiences of which a token must name one; empty: the URL of the endpoint it is used at, or [gateway] public_url."),
    key("jwt", "jwks_url", Kind::Url, "", "Where the issuer's keys are; empty: found from the issuer's metadata."),
    key("jwt", "jwks_cache_seconds", seconds(10, DAY), "3600", "Keys are asked for again after this long at the latest, sooner when their server says so or a token names one that is not known."),
    key("jwt", "algorithms", Kind::Choices(&["RS256", "PS256", "ES256", "EdDSA"]), "RS256, PS256, ES256, EdDSA", "Algorithms that tokens may be signed with."),
    key("jwt", "leeway_seconds", seconds(0, 600), "30", "How far the issuer's clock and this host's may differ."),
    key("jwt", "required_scopes", Kind::Words, "", "Scopes a token must have."),
    key("jwt", "scope_claims", Kind::Words, "scope, scp", "Claims that scopes stand in, as words or as a list."),
    key("jwt", "scope_prefix", Kind::Text, "mcp:", "How scopes begin that say what may be used: mcp:server:PATTERN, mcp:section:NAME, mcp:tool:PATTERN, mcp:read-only."),
    key("jwt", "unscoped", Kind::Choice(&["all", "none"]), "all", "What a token may use whose scopes name no server, section or tool."),
    key("logging", "level", Kind::Level, "INFO", "DEBUG, INFO, WARNING, ERROR, or a filter expression such as info,mcp_orchestrator=debug."),
    key("logging", "format", Kind::Choice(&["auto", "journald", "json", "text"]), "auto", "auto: journald under systemd, text on a terminal."),
];

/// The setting `key` of `section`.
#[must_use]
pub fn find(section: &str, key: &str) -> Option<&'static Key> {
    KEYS.iter().find(|known| known.section == section && known.key == key)
}

/// The keys of `section`.
pub fn keys_of(section: &str) -> impl Iterator<Item = &'static Key> + Clone + use<'_> {
    KEYS.iter().filter(move |known| known.section == section)
}
