//! What `--json` prints, for programs: the one source of `docs/reference/json.md`.
//!
//! Invariant: a command prints the keys that stand here and no others at the top (held by
//! `tests/live/cli.rs` against a real daemon).

/// One key of a command's JSON.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name; of nested ones the path, with `*` for any name and `[]` for any element.
    pub path: &'static str,
    /// Its type.
    pub kind: &'static str,
    /// Meaning.
    pub about: &'static str,
}

/// One command.
#[derive(Clone, Copy, Debug)]
pub struct Doc {
    /// As it is written.
    pub command: &'static str,
    /// What is printed, when it is not one object.
    pub shape: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
}

const fn key(path: &'static str, kind: &'static str, about: &'static str) -> Key {
    Key { path, kind, about }
}

const VERSION: Key = key(
    "schemaVersion",
    "1",
    "Changes when a key goes or means something else; new keys may come at any time.",
);
const DAEMON: Key = key(
    "daemon",
    "boolean",
    "False: no daemon answers, and this is what the state file (and Docker, where it is needed) says.",
);

/// All commands.
#[rustfmt::skip] // as in a table
pub const DOCS: &[Doc] = &[
    Doc { command: "plan --json", shape: "", keys: &[
        VERSION,
        key("changes", "boolean", "Whether a pass would change anything."),
        key("actions", "array", "What it would do, in order."),
        key("actions[].index", "integer", "Its place in the list."),
        key("actions[].server", "string or null", "Whom it is for; null: all."),
        key("actions[].action", "string", "What, in words."),
        key("actions[].sign", "string", "`+`, `~` or `-`."),
        key("actions[].why", "string", "Why."),
        key("actions[].after", "array", "Indices of actions that must have succeeded."),
        key("report", "object", "As in `status --json`, `snapshot.report`."),
        key("nextLookMillis", "integer or null", "When something would have to be looked at again, in milliseconds since the epoch."),
        key("text", "string", "The plan as it is shown to people; only from a daemon."),
    ] },
    Doc { command: "validate --json", shape: "", keys: &[
        VERSION,
        key("valid", "boolean", "Whether there is no error."),
        key("problems", "array", "All of them."),
        key("problems[].severity", "string", "`error` or `warning`."),
        key("problems[].code", "string", "See error-codes.md."),
        key("problems[].place", "object", "`file`, `line` and `column`; line 0 is the whole file."),
        key("problems[].server", "string or null", "The entry concerned."),
        key("problems[].message", "string", "What is wrong."),
        key("problems[].hint", "string or null", "What helps."),
    ] },
    Doc { command: "status --json", shape: "", keys: &[
        VERSION,
        DAEMON,
        key("version", "string", "The daemon's version."),
        key("sentence", "string", "The state in a sentence."),
        key("reached", "boolean", "Whether the pass waited for has ended."),
        key("well", "boolean", "Whether everything is as the files want it."),
        key("configuration", "object", "Which contents of the files are in force; absent without a daemon."),
        key("snapshot", "object", "What the last pass found."),
        key("snapshot.pass", "integer", "Its number; 0 before the first."),
        key("snapshot.began", "integer", "When it began, in milliseconds since the epoch."),
        key("snapshot.report.servers.*", "object", "A server by id: `state`, `kind`, `reasons`, `transport`, `route`, `port`, `container`, `containerId`, `containerState`, `image`, `imageId`, `restarts`, `nextTry`, `paused`; of one with several instances `running`, how many of them run, and `instances`, such a row for each by id."),
        key("snapshot.report.general", "array", "Reasons that concern no single server."),
        key("snapshot.report.drained", "object", "This host is out of the load balancer, or on its way: `by`, `at`, `until`, and in `waits` how many servers are not out yet; absent otherwise."),
        key("snapshot.leases.*", "object", "The port that a server holds."),
        key("snapshot.intents.*", "object", "A start or stop by hand that holds."),
        key("snapshot.pauses.*", "object", "A pause by what it is for, `host`, `section:ID` or `server:ID`: `by`, `at`, `until`."),
        key("names", "object", "Names in the file that are not ids, by id; absent without a daemon."),
        key("gateway", "array", "Connections and figures of every server; only with `--detailed`."),
        key("usage.*", "object", "What a server that runs uses, by id: `cpuPercent`, `memoryBytes`, `memoryLimitBytes`, `networkInBytesPerSecond`, `networkOutBytesPerSecond`, `pids`, `requestsPerSecond` and others, `null` where not known; only with `--detailed`."),
    ] },
    Doc { command: "list-servers --json", shape: "", keys: &[
        VERSION,
        DAEMON,
        key("servers.*", "object", "A server by id, as in `status --json`."),
    ] },
    Doc { command: "list-servers --config --json", shape: "", keys: &[
        VERSION,
        DAEMON,
        key("servers.*", "array", "The effective settings of a server: `key`, `value`, `origin`, `place`. Environment values are `[redacted]`. Empty for an entry that cannot be used."),
    ] },
    Doc { command: "health --json", shape: "", keys: &[
        VERSION,
        key("healthy", "boolean", "Whether all servers that are to run are healthy or degraded."),
        key("servers", "array", "A server each."),
        key("servers[].server", "string", "Its id."),
        key("servers[].health", "string", "`starting`, `healthy`, `degraded`, `unhealthy`, `critical` or `stopped`."),
        key("servers[].state", "string", "Its state, as in `status --json`."),
        key("servers[].since", "integer or null", "Since when its health is so, in milliseconds since the epoch."),
        key("servers[].instances", "array", "Of a server with several instances such an object each, else empty. `--server time-R2` is that one alone."),
        key("servers[].why", "string or null", "What is the matter."),
        key("servers[].failures", "integer or null", "Questions in a row that it did not answer."),
        key("servers[].latencyMillis", "integer or null", "What the last answer took, in milliseconds."),
        key("servers[].usualMillis", "integer or null", "What an answer usually takes, in milliseconds."),
        key("servers[].restarts", "integer", "Restarts in a row."),
        key("servers[].nextTry", "integer or null", "When the next try is due, in milliseconds since the epoch."),
        key("servers[].sessions", "integer or null", "Sessions of clients."),
        key("servers[].requests", "integer or null", "Requests that ended, since the daemon started."),
        key("servers[].errors", "integer or null", "Those that failed."),
        key("servers[].p95Millis", "number or null", "95 of 100 took at most about this long, in milliseconds."),
    ] },
    Doc { command: "doctor --json", shape: "", keys: &[
        VERSION,
        key("verdict", "string", "The worst of all: `ok`, `unknown`, `warn` or `fail`."),
        key("sentence", "string", "How many ended in which way."),
        key("checks", "array", "All checks, several on one topic where there is more to say."),
        key("checks[].topic", "string", "`config`, `settings`, `state`, `daemon`, `engine`, `clock`, `memory`, `images`, `ports`, `files`, `runtimes`, `systemd`, `credentials`, `imds`, `alb`, `targets` or `names`."),
        key("checks[].verdict", "string", "`ok`, `unknown` (could not be found out), `warn` (will bite) or `fail` (does not work)."),
        key("checks[].evidence", "string", "What was seen; never a secret."),
        key("checks[].remedy", "string", "What helps; absent where nothing is wrong."),
    ] },
    Doc { command: "discover --json", shape: "", keys: &[
        VERSION,
        key("finds", "array", "Servers, the surest first; none of them is run."),
        key("finds[].name", "string", "What it is called there."),
        key("finds[].source", "string", "Where it comes from: a client such as `cursor`, `pyproject`, `package-json`, `script`, `image`, `container`."),
        key("finds[].place", "string", "The file, image or container."),
        key("finds[].confidence", "string", "`high`, `medium` or `low`."),
        key("finds[].why", "string", "Why so sure."),
        key("finds[].entry", "object", "The entry that would be written, without its secrets."),
        key("finds[].notes", "array", "What its reader should know."),
        key("strays", "array", "Containers of MCP servers that other tools made; they are never touched."),
        key("strays[].orphaned", "boolean or null", "Whether nobody is left who talks to it; null: that cannot be told."),
        key("notes", "array", "What could not be read or was cut short."),
        key("searched", "object", "`entries` of directories and `files` that were looked at, and `millis`."),
    ] },
    Doc { command: "ports --json", shape: "", keys: &[
        VERSION,
        DAEMON,
        key("leases.*", "object", "By server: `port`, `next` while it moves, `since`, `fixed` when the file chose it."),
    ] },
    Doc { command: "why NAME --json", shape: "", keys: &[
        VERSION,
        DAEMON,
        key("server", "string", "Its id."),
        key("row", "object", "As in `status --json`."),
        key("settings", "array", "As in `list-servers --config --json`; null where they cannot be had."),
    ] },
    Doc { command: "tasks --json", shape: "", keys: &[
        VERSION,
        DAEMON,
        key("tasks", "array", "Newest first, as `Task` in /openapi.json, with `results` empty."),
    ] },
    Doc { command: "tasks ID --json", shape: "", keys: &[
        VERSION,
        DAEMON,
        key("task", "object", "As `TaskDetail` in /openapi.json."),
    ] },
    Doc { command: "audit --json", shape: "", keys: &[
        VERSION,
        DAEMON,
        key("audit", "array", "Newest first, as `AuditEntry` in /openapi.json."),
    ] },
    Doc { command: "sync --json", shape: "", keys: &[
        VERSION,
        key("version", "string", "As in `status --json`, and so are all keys that follow."),
        key("sentence", "string", "The state in a sentence."),
        key("reached", "boolean", "Whether the pass waited for has ended."),
        key("well", "boolean", "Whether everything is as the files want it."),
        key("configuration", "object", "Which contents of the files are in force."),
        key("snapshot", "object", "What the last pass found."),
        key("names", "object", "Names in the file that are not ids, by id."),
    ] },
    Doc { command: "capabilities --json", shape: "", keys: &[
        VERSION,
        key("servers", "array", "As `capabilities NAME --json` each; of one that does not answer `server` and `unavailable`."),
    ] },
    Doc { command: "capabilities NAME --json", shape: "", keys: &[
        VERSION,
        key("server", "string", "Its id."),
        key("era", "string", "`legacy` or `modern`."),
        key("protocolVersion", "string", "The version of MCP that is spoken."),
        key("info", "object", "What the server says of itself, as it wrote it."),
        key("tools", "array", "As the server wrote them, and so are `prompts`, `resources` and `resourceTemplates`; each is there when the server has that kind."),
        key("prompts", "array", "See `tools`."),
        key("resources", "array", "See `tools`."),
        key("resourceTemplates", "array", "See `tools`."),
        key("problems", "array", "What is wrong with the names of its tools (MCPO-G085); empty where nothing is."),
    ] },
    Doc { command: "logs NAME --json", shape: "an object on each line", keys: &[
        key("number", "integer", "Counts up."),
        key("stream", "string", "`stderr` or `stdout`."),
        key("text", "string", "The line."),
    ] },
    Doc { command: "call NAME TOOL --json", shape: "the result of `tools/call`, as the server wrote it", keys: &[] },
    Doc { command: "log-level --json", shape: "", keys: &[
        VERSION,
        key("level", "string", "In force."),
        key("configured", "string", "What settings.conf says."),
        key("until", "integer or null", "When it goes back by itself, in milliseconds since the epoch."),
    ] },
];

/// The reference page.
#[must_use]
pub fn reference() -> String {
    let mut out = String::from(
        "# JSON of the command line\n\n\
         What `--json` prints on standard output: one object on one line, unless said otherwise. With\n\
         `--watch` another one follows whenever it differs. Times are milliseconds since the epoch.\n\
         Errors go to standard error as text, and the [exit code](exit-codes.md) tells them apart.\n\
         Keys may be added; one that goes or changes its meaning changes `schemaVersion`.\n",
    );
    for Doc { command, shape, keys } in DOCS {
        out.push_str(&format!("\n## {command}\n\n"));
        if !shape.is_empty() {
            out.push_str(&format!("Prints {shape}.\n\n"));
        }
        if keys.is_empty() {
            continue;
        }
        out.push_str("| key | type | meaning |\n|---|---|---|\n");
        for Key { path, kind, about } in *keys {
            out.push_str(&format!("| `{path}` | {kind} | {about} |\n"));
        }
    }
    out
}
