//! Every key of mcp.config.json in tables: the single source of checking, "did you mean" and the
//! JSON Schema for editors.

use crate::config::codes;
use crate::config::error::Sink;
use crate::config::node::{Member, Node, Value};
use crate::config::text::{closest, did_you_mean};
use crate::config::units;

/// What a value looks like.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// A string.
    Text,
    /// The path of a URL, from its `/` on.
    UrlPath,
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Int {
        /// Smallest.
        min: i64,
        /// Largest.
        max: i64,
    },
    /// Seconds as a number, or a string such as `30s`, `500ms`, `5m`.
    Time,
    /// Bytes as a number, or a string such as `512m`.
    Size,
    /// CPUs, as a number or a string.
    Cpus,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of strings; numbers and booleans count as their text.
    Texts,
    /// A list of words of this list.
    Words(&'static [&'static str]),
    /// An object of strings; numbers and booleans count as their text, null takes a value away.
    TextMap,
    /// A rate: requests a second, or `{requests, per, burst}`.
    Rate,
    /// A boolean, or `{ttl, maxBytes, tools}`.
    Cache,
    /// A boolean, or bytes as [`Shape::Size`].
    Raise,
    /// An object of lengths of time, by the name or pattern of a tool.
    Times,
    /// An object of our own with these keys.
    Block(&'static [Key]),
    /// Whatever the client that coined it takes.
    Any,
}

/// Where a key may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// In an entry, a section and the global defaults.
    Every,
    /// In an entry only.
    Entry,
    /// In a section and the global defaults only.
    Inherited,
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its value.
    pub(crate) shape: Shape,
    /// Where it may stand.
    pub(crate) level: Level,
    /// Meaning in one sentence.
    pub(crate) meaning: &'static str,
}

const fn key(name: &'static str, shape: Shape, meaning: &'static str) -> Key {
    Key { name, shape, level: Level::Every, meaning }
}

const fn at(level: Level, key: Key) -> Key {
    Key { level, ..key }
}

/// Least and most of a rate's numbers.
const RATE_MIN: f64 = 1e-6;
const RATE_MAX: f64 = 1e6;

const COUNT: Shape = Shape::Int { min: 1, max: 1_000_000 };
const PORT: Shape = Shape::Int { min: 1, max: 65_535 };

/// Words of `allow`.
pub(crate) const ALLOW_WORDS: &[&str] = &[
    "privileged",
    "hostNetwork",
    "hostPid",
    "hostIpc",
    "dockerSocket",
    "hostPaths",
    "devices",
    "sharedWrites",
];

#[rustfmt::skip] // a table
const HEALTH: &[Key] = &[
    key("path", Shape::UrlPath, "Path probed on HTTP servers."),
    key("interval", Shape::Time, "Time between two probes."),
    key("timeout", Shape::Time, "Time for one probe."),
    key("failureThreshold", COUNT, "Failures in a row that make the server unhealthy."),
    key("recoveryThreshold", COUNT, "Successes in a row that make it healthy again."),
    key("startPeriod", Shape::Time, "Time within which a new instance must be ready."),
];

#[rustfmt::skip] // a table
const RESTART: &[Key] = &[
    key("policy", Shape::Choice(&["always", "on-failure", "unless-stopped", "never", "no"]), "Which ends are answered with a restart."),
    key("delay", Shape::Time, "Delay before the second restart in a row; it doubles from there."),
    key("maxDelay", Shape::Time, "Longest delay."),
    key("maxAttempts", Shape::Int { min: 0, max: 1_000_000 }, "Restarts in a row before giving up; 0: no limit."),
    key("resetAfter", Shape::Time, "Running this long forgets earlier crashes."),
    key("oomRaise", Shape::Raise, "A container that is killed for memory is made anew, once, with half as much again of its memory limit, or with this one. It holds until the declared limit is another one."),
];

#[rustfmt::skip] // a table
const LIMITS: &[Key] = &[
    key("memory", Shape::Size, "Memory limit."),
    key("cpus", Shape::Cpus, "CPU limit."),
    key("pids", Shape::Int { min: -1, max: 4_194_304 }, "Most processes and threads; -1: no limit."),
];

#[rustfmt::skip] // a table
const RETRY: &[Key] = &[
    key("maxRetries", Shape::Int { min: 0, max: 100 }, "Further tries of a call that the server never got, or whose tool says that it only reads or may be repeated; 0: none."),
    key("delay", Shape::Time, "Wait before the first further try; it doubles from there. 200ms when absent."),
];

#[rustfmt::skip] // a table
const QUEUE: &[Key] = &[
    key("length", Shape::Int { min: 0, max: 10_000 }, "Calls that wait while maxConcurrentRequests are under way; others are refused. 100 when absent."),
    key("timeout", Shape::Time, "Longest wait there. 10s when absent."),
];

#[rustfmt::skip] // a table
const CIRCUIT_BREAKER: &[Key] = &[
    key("failureThreshold", Shape::Int { min: 1, max: 10_000 }, "Calls without an answer (too late, connection lost) within window that open the circuit. 5 when absent."),
    key("window", Shape::Time, "How long a failure counts. 30s when absent."),
    key("openFor", Shape::Time, "How long calls are refused before one may try. 30s when absent."),
];

#[rustfmt::skip] // a table
const TOOLS: &[Key] = &[
    key("allow", Shape::Texts, "Patterns (* and ?) of tools that are offered, by the server's own names; all when absent."),
    key("deny", Shape::Texts, "Patterns of tools that are not offered, whatever allow says."),
    at(Level::Entry, key("rename", Shape::TextMap, "Other names for tools: the server's own name and the one that clients see.")),
    key("readOnly", Shape::Bool, "Offer only tools that say of themselves that they only read (annotations.readOnlyHint)."),
    key("timeouts", Shape::Times, "How long single tools may stay silent, by name or pattern; instead of the entry's timeout."),
];

/// Keys of an `orchestrator` block, of a section and of the global defaults.
#[rustfmt::skip] // a table
pub(crate) const ORCHESTRATOR: &[Key] = &[
    key("transport", Shape::Choice(&["auto", "stdio", "http", "sse"]), "How the server speaks MCP."),
    at(Level::Entry, key("containerPort", PORT, "Port inside the container that speaks MCP.")),
    key("tools", Shape::Block(TOOLS), "Which tools are offered, and under which names, wherever clients come in."),
    at(Level::Entry, key("forwardHeaders", Shape::Texts, "Headers of a client's request that a server behind a URL, or an HTTP container behind the gateway, gets with it, instead of the entry's own of the same name: names, beginnings before a *, and behind a ! what is left out of those. Clients with other values have other sessions and connections. Other servers get them from the tool proxy alone, as _meta.headers of a call.")),
    at(Level::Entry, key("openapiPath", Shape::UrlPath, "Path of the server in the tool proxy, beside its id: /openapi/team/git for /team/git. Documents and pages then name this one.")),
    key("httpPath", Shape::UrlPath, "Path of the MCP endpoint inside an HTTP server."),
    key("route", Shape::Choice(&["auto", "edge", "direct"]), "Through an edge listener of the daemon, or directly on the container's published port."),
    key("sharing", Shape::Choice(&["shared", "isolated"]), "One instance for all clients, or one for each."),
    key("replicas", Shape::Int { min: 1, max: 64 }, "Instances of the server, each a container or process of its own behind the server's one port. The gateway sends each request to the instance with the least to do, and a session's to the same one. The names of the further ones end in `-R2`, `-R3`, …; of a changed declaration one is replaced at a time. Not for servers reached by `url`; with `sharing` `isolated` every session has an instance of its own anyway."),
    key("health", Shape::Block(HEALTH), "How readiness and health are judged."),
    key("restart", Shape::Block(RESTART), "What happens when the server ends by itself."),
    key("retry", Shape::Block(RETRY), "Tries of a call that failed on the way."),
    key("limits", Shape::Block(LIMITS), "Limits of the container, or of a local process below the runner service."),
    at(Level::Entry, key("allow", Shape::Words(ALLOW_WORDS), "Dangerous things the entry may ask for.")),
    key("rateLimit", Shape::Rate, "Most calls of all clients together: a number a second, or {requests, per, burst}. Calls are those of tools, prompts and resources; lists are free."),
    key("rateLimitPerClient", Shape::Rate, "Most calls of each client, by the name of its token."),
    key("maxConcurrentRequests", COUNT, "Most calls at once; others wait, see queue."),
    key("queue", Shape::Block(QUEUE), "Where calls wait for one of maxConcurrentRequests."),
    key("maxRequestBytes", Shape::Size, "Longest call, in bytes of its params."),
    key("maxResponseBytes", Shape::Size, "Longest answer to a call, in bytes of its result."),
    key("circuitBreaker", Shape::Block(CIRCUIT_BREAKER), "Leaves a server alone that does not answer; off unless one of its keys is there."),
    key("cache", Shape::Cache, "Keep answers of tools that say that they only read: true (60 s, 16 MiB), or {ttl, maxBytes, tools}. With tools (patterns) only of those, also where they say only that they may be repeated."),
    at(Level::Entry, key("section", Shape::Text, "The section the server is in.")),
    key("startOnDemand", Shape::Bool, "Start with the first request that needs the server; lists are answered from those it gave when it ran last. Requests then go through the gateway."),
    key("idleTimeout", Shape::Time, "Stop after this time (at least 1s) without a request, open stream, subscription or session of its own; the next request starts the server again."),
    key("priority", Shape::Int { min: -1_000_000, max: 1_000_000 }, "Start order: higher first."),
    key("dependsOn", Shape::Texts, "Sections that must be up before the server is started, or restarted after it ended; it waits for [recovery] dependency_wait_seconds at most, and stops before they do. The innermost level that says it decides."),
    key("pull", Shape::Choice(&["missing", "always", "never"]), "When the image is pulled."),
    key("init", Shape::Bool, "A small init forwards signals and reaps processes."),
    key("noNewPrivileges", Shape::Bool, "Processes in the container cannot gain privileges."),
    key("readOnly", Shape::Bool, "Root file system read-only."),
    key("capAdd", Shape::Texts, "Capabilities added."),
    key("capDrop", Shape::Texts, "Capabilities taken away."),
    key("user", Shape::Text, "User inside the container."),
    key("network", Shape::Text, "Network of the container."),
    key("logMaxSize", Shape::Size, "Size at which json-file logs are rotated."),
    key("stdioLogs", Shape::Choice(&["none", "docker"]), "What Docker logs of a stdio server."),
    at(Level::Inherited, key("env", Shape::TextMap, "Environment of all servers below.")),
];

/// Keys of an entry that have a meaning here.
#[rustfmt::skip] // a table
pub(crate) const ENTRY: &[Key] = &[
    key("command", Shape::Text, "Program; `docker` makes the entry a container."),
    key("args", Shape::Texts, "Its arguments; for docker the `run` command line."),
    key("env", Shape::TextMap, "Environment; merged over `-e` of a docker line. A local process has nothing else but HOME, LANG, LC_ALL, LOGNAME, PATH, SHELL, TERM, TMPDIR, TZ and USER."),
    key("envFile", Shape::Text, "File with KEY=VALUE lines; `env` wins over it."),
    key("cwd", Shape::Text, "Working directory of a process."),
    key("url", Shape::Text, "URL of a server elsewhere."),
    key("serverUrl", Shape::Text, "Another spelling of url."),
    key("httpUrl", Shape::Text, "Another spelling of url, for streamable HTTP."),
    key("host", Shape::Text, "Host of a tcp or websocket server, with port."),
    key("port", PORT, "Port of a tcp or websocket server, with host."),
    key("type", Shape::Choice(TYPES), "How the server speaks."),
    key("transport", Shape::Choice(TYPES), "Another spelling of type."),
    key("headers", Shape::TextMap, "Headers sent to a server elsewhere."),
    key("static_headers", Shape::TextMap, "Another spelling of headers; `headers` wins over it."),
    key("auth_type", Shape::Text, "none, bearer_token, api_key or authorization: sends auth_value in the header that stands for."),
    key("auth_value", Shape::Text, "See auth_type."),
    key("disabled", Shape::Bool, "Do not run it."),
    key("enabled", Shape::Bool, "Run it."),
    key("disabledTools", Shape::Texts, "Tools that are not offered, beside those of tools.deny; as mcpo, Cline and Windsurf have it."),
    key("client_header_forwarding", Shape::Any, "mcpo's rules for headers of clients: {enabled, whitelist, blacklist}; see forwardHeaders."),
    key("autoApprove", Shape::Any, "Tools a client calls without asking; passed through."),
    key("alwaysAllow", Shape::Any, "Tools a client calls without asking; passed through."),
    key("description", Shape::Text, "What the server is for."),
    key("tags", Shape::Texts, "Words to find it by."),
    key("timeout", Shape::Time, "Longest time for one request."),
    key("orchestrator", Shape::Block(ORCHESTRATOR), "Keys of this program."),
];

/// Values of `type`.
pub(crate) const TYPES: &[&str] = &[
    "stdio",
    "http",
    "streamable-http",
    "streamable_http",
    "streamableHttp",
    "sse",
    "websocket",
    "ws",
    "tcp",
];

/// Keys of other clients that are kept and look like none of ours.
const CLIENT_KEYS: &[&str] = &[
    "name",
    "id",
    "title",
    "icon",
    "version",
    "trust",
    "auth",
    "oauth",
    "extra_headers",
    "allowed_tools",
    "disallowed_tools",
    "includeTools",
    "excludeTools",
    "enabledTools",
    "tools",
    "toolFilter",
    "gallery",
    "dev",
    "initTimeout",
    "startupTimeout",
    "instructions",
    "spec_path",
    "registry",
    "metadata",
    "client_id",
    "scopes",
    "note",
    "comment",
    "_comment",
];

/// What is wrong with `node` as a value of `shape`; `None` when nothing is. Blocks are checked by
/// [`check_block`].
pub(crate) fn complaint(shape: Shape, node: &Node) -> Option<String> {
    let wants = |what: &str| Some(format!("takes {what}, not {}", node.kind()));
    match shape {
        Shape::Any => None,
        Shape::Text => node.as_text().is_none().then(|| wants("a string")).flatten(),
        Shape::UrlPath => {
            let odd = |c: char| c.is_whitespace() || c.is_control() || c == '#';
            let good = node.as_text().is_some_and(|path| path.starts_with('/') && !path.contains(odd));
            (!good).then(|| "takes a path such as /mcp".to_owned())
        }
        Shape::Bool => node.as_bool().is_none().then(|| wants("true or false")).flatten(),
        Shape::Int { min, max } => match node.as_number().map(str::parse::<i64>) {
            Some(Ok(number)) if (min..=max).contains(&number) => None,
            Some(_) => Some(format!("takes a whole number from {min} to {max}")),
            None => wants(&format!("a whole number from {min} to {max}")),
        },
        Shape::Time => with_unit(node, "a length of time", |text| units::span(text).err()),
        Shape::Size => with_unit(node, "a size", |text| units::size_bytes(text).err()),
        Shape::Cpus => with_unit(node, "a number of CPUs", |text| units::nano_cpus(text).err()),
        Shape::Choice(words) => match node.as_text() {
            Some(text) if words.contains(&text) => None,
            Some(_) => Some(format!("takes one of {}", words.join(", "))),
            None => wants(&format!("one of {}", words.join(", "))),
        },
        Shape::Texts | Shape::Words(_) => list_complaint(node),
        Shape::TextMap => map_complaint(node),
        Shape::Rate => rate_complaint(node),
        Shape::Cache | Shape::Raise if node.as_bool().is_some() => None,
        Shape::Raise => with_unit(node, "true, false or a size", |text| units::size_bytes(text).err()),
        Shape::Cache if node.is_object() => cache_complaint(node),
        Shape::Cache => wants("true, false or an object"),
        Shape::Times => times_complaint(node),
        Shape::Block(_) => (!node.is_object()).then(|| wants("an object")).flatten(),
    }
}

fn with_unit(node: &Node, what: &str, parse: impl Fn(&str) -> Option<String>) -> Option<String> {
    // A mistyped value may be a secret in the wrong place, so it is not repeated.
    match node.as_number().or_else(|| node.as_text()) {
        Some(text) => parse(text).map(|_| format!("takes {what}, for example {}", example(what))),
        None => Some(format!("takes {what}, not {}", node.kind())),
    }
}

fn example(what: &str) -> &'static str {
    match what {
        "a size" | "true, false or a size" => "512m",
        "a number of CPUs" => "0.5",
        _ => "30, \"30s\" or \"500ms\"",
    }
}

fn list_complaint(node: &Node) -> Option<String> {
    let Value::List(items) = &node.value else {
        return Some(format!("takes a list of strings, not {}", node.kind()));
    };
    let odd = items.iter().find(|item| item.scalar().is_none())?;
    Some(format!("takes a list of strings; one element is {}", odd.kind()))
}

fn map_complaint(node: &Node) -> Option<String> {
    let Value::Object(members) = &node.value else {
        return Some(format!("takes an object of strings, not {}", node.kind()));
    };
    let odd = members.iter().find(|member| member.value.scalar().is_none() && !member.value.is_null())?;
    Some(format!("takes an object of strings; '{}' is {}", odd.key, odd.value.kind()))
}

fn rate_complaint(node: &Node) -> Option<String> {
    let range = RATE_MIN..=RATE_MAX;
    let positive = |node: &Node| {
        node.as_number().is_some_and(|text| text.parse::<f64>().is_ok_and(|rate| range.contains(&rate)))
    };
    let member_is_good = |member: &Member| match member.key.as_str() {
        "requests" | "burst" => positive(&member.value),
        "per" => complaint(Shape::Time, &member.value).is_none(),
        _ => false,
    };
    let good =
        positive(node) || (node.get("requests").is_some() && node.members().iter().all(member_is_good));
    (!good).then(|| "takes requests a second, or {requests, per, burst}".to_owned())
}

fn cache_complaint(node: &Node) -> Option<String> {
    let odd = node.members().iter().find_map(|member| {
        let shape = match member.key.as_str() {
            "ttl" => Shape::Time,
            "maxBytes" => Shape::Size,
            "tools" => Shape::Texts,
            _ => return Some(format!("has no key '{}'", member.key)),
        };
        complaint(shape, &member.value).map(|complaint| format!("has a '{}' that {complaint}", member.key))
    });
    odd.map(|odd| format!("takes true, false, or {{ttl, maxBytes, tools}}; this one {odd}"))
}

fn times_complaint(node: &Node) -> Option<String> {
    if !node.is_object() {
        return Some(format!("takes an object of lengths of time by tool, not {}", node.kind()));
    }
    let odd = node.members().iter().find_map(|member| {
        complaint(Shape::Time, &member.value).map(|complaint| (member.key.clone(), complaint))
    });
    odd.map(|(tool, complaint)| format!("for tool '{tool}' {complaint}"))
}

/// Checks an object of our own: unknown keys and wrong values are errors. `level` is where it
/// stands, `path` what to call it.
pub(crate) fn check_block(node: &Node, keys: &'static [Key], level: Level, path: &str, sink: &mut Sink<'_>) {
    let fits = |key: &&Key| key.level == Level::Every || key.level == level;
    for member in node.members() {
        let name = member.key.as_str();
        match keys.iter().find(|key| key.name == name) {
            None => {
                let known = keys.iter().filter(fits).map(|key| key.name);
                sink.error(codes::UNKNOWN_KEY, member.key_at, format!("unknown key '{name}' in {path}"));
                sink.hint(did_you_mean(name, known));
            }
            Some(key) if !fits(&key) => {
                sink.error(codes::UNKNOWN_KEY, member.key_at, format!("key '{name}' cannot stand in {path}"));
                sink.hint(match key.level {
                    Level::Entry => "it belongs to a single entry's orchestrator block",
                    Level::Inherited | Level::Every => "it belongs to the entry itself",
                });
            }
            Some(_) if member.value.is_null() => {}
            Some(key) => check_value(key, (&member.value, level), path, sink),
        }
    }
}

fn check_value(key: &Key, (node, level): (&Node, Level), path: &str, sink: &mut Sink<'_>) {
    let name = key.name;
    if let Some(complaint) = complaint(key.shape, node) {
        let message = format!("'{name}' in {path} {complaint}");
        sink.error(codes::INVALID_VALUE, node.at, message);
        propose(key.shape, node, sink);
        return;
    }
    if let Shape::Block(keys) = key.shape {
        check_block(node, keys, level, &format!("{path}.{name}"), sink);
    }
    let Shape::Words(words) = key.shape else {
        return;
    };
    for item in node.items() {
        let word = item.scalar().unwrap_or_default();
        if !words.contains(&word.as_str()) {
            let message = format!("unknown word '{word}' in {path}.{name}");
            sink.error(codes::UNKNOWN_ALLOW, item.at, message);
            sink.hint(did_you_mean(&word, words.iter().copied()));
        }
    }
}

/// Gives the last problem the word as a hint that was probably meant.
fn propose(shape: Shape, node: &Node, sink: &mut Sink<'_>) {
    if let (Shape::Choice(words), Some(text)) = (shape, node.as_text())
        && let Some(meant) = closest(text, words.iter().copied())
    {
        sink.hint(format!("did you mean '{meant}'?"));
    }
}

/// Checks an entry: values of known keys, and unknown keys that look like a typing error.
pub(crate) fn check_entry(entry: &Node, sink: &mut Sink<'_>) {
    for member in entry.members() {
        let name = member.key.as_str();
        let known = ENTRY.iter().find(|key| key.name == name);
        match known {
            Some(_) if member.value.is_null() => {}
            Some(key) if name == "orchestrator" => match complaint(key.shape, &member.value) {
                None => check_block(&member.value, ORCHESTRATOR, Level::Entry, name, sink),
                Some(complaint) => {
                    sink.error(codes::INVALID_VALUE, member.value.at, format!("'{name}' {complaint}"));
                }
            },
            Some(key) => {
                if let Some(complaint) = complaint(key.shape, &member.value) {
                    let message = format!("'{name}' {complaint}");
                    sink.error(codes::INVALID_VALUE, member.value.at, message);
                    propose(key.shape, &member.value, sink);
                }
            }
            None => suspect_typo(name, member.key_at, sink),
        }
    }
}

fn suspect_typo(name: &str, key_at: usize, sink: &mut Sink<'_>) {
    if CLIENT_KEYS.contains(&name) || name.starts_with("x-") {
        return;
    }
    if ORCHESTRATOR.iter().any(|key| key.name == name && key.level != Level::Inherited) {
        sink.warning(codes::PERHAPS_TYPO, key_at, format!("key '{name}' has no meaning here"));
        sink.hint(format!("write \"orchestrator\": {{\"{name}\": …}}"));
        return;
    }
    if let Some(meant) = closest(name, ENTRY.iter().map(|key| key.name)) {
        sink.warning(codes::PERHAPS_TYPO, key_at, format!("unknown key '{name}' is kept and has no effect"));
        sink.hint(format!("did you mean '{meant}'?"));
    }
}
