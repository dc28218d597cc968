//! `docs/reference` against the code it is generated from.
//!
//! `UPDATE_REFERENCE=1 cargo test --test it reference` writes the pages anew. Log fields
//! are described here, codes in `src/cli/codes.rs`; one that is not described, or that the code no
//! longer has, fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use mcp_orchestrator::api::{figures, openapi};
use mcp_orchestrator::cli::args::Cli;
use mcp_orchestrator::cli::codes;
use mcp_orchestrator::cli::json;
use mcp_orchestrator::config::{schema, settings};
use mcp_orchestrator::daemon::logging::repeats;
use mcp_orchestrator::daemon::message;
use mcp_orchestrator::terminal::failure::Exit;

/// Columns of the command line's page.
const WIDTH: usize = 100;
const COMMAND: &str = "UPDATE_REFERENCE=1 cargo test --test it reference";

/// Pages that are written by hand.
const BY_HAND: &[&str] = &["access.md", "openapi-proxy.md"];

/// What readers of the labels' page see for links into the code.
const WORDS: &[(&str, &str)] = &[
    ("[`MANAGER`]", "`mcp-orchestrator`"),
    (", see [`Role`]", ": server, replica or leg"),
    ("the [`Fingerprint`]", "the hash of what an object was made from"),
    (", beside those of [`crate::model::mark`]", " on target groups"),
];

/// Fields of log lines.
const LOG_FIELDS: &[(&str, &str)] = &[
    ("CONTAINER_ID", "the id of the container, as the engine has it"),
    ("MCP_ACTION", "the change that is made, in words"),
    ("MCP_DURATION_MS", "how long the request took, in milliseconds (access log)"),
    ("MCP_ERROR_CODE", "the code of the problem, see error-codes.md"),
    ("MCP_GENERATION", "the version of the files, see `status --json`"),
    ("MCP_METHOD", "the MCP method of the request (access log)"),
    ("MCP_PASS", "the number of the pass, from 1"),
    ("MCP_PORT", "the host port of the server"),
    ("MCP_PRINCIPAL", "the name of the token that the caller has (access log, audit of calls)"),
    ("MCP_REASON", "why, in words"),
    (
        "MCP_REPLICA",
        "the number of the instance that a request went to, where the server has several (access log, audit of calls)",
    ),
    ("MCP_REPEATED", "how often the event came again since it was told, see below"),
    ("MCP_SERVER", "the id of the server"),
    ("MCP_SESSION", "the first 8 digits of the session's hash, never its id (access log)"),
    (
        "MCP_STATUS",
        "what became of the request: `ok`, `error`, `refused`, or `abandoned` by its client (access log); `failed` for `error` (audit of calls)",
    ),
    ("MCP_TOOL", "the tool that was called (access log)"),
    ("MESSAGE_ID", "the kind of event, for those worth an alert; see below"),
];

#[test]
fn the_reference_is_current() {
    let folder = root().join("docs/reference");
    let pages = pages();
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        for stale in existing(&folder).difference(&pages.keys().cloned().collect()) {
            fs::remove_file(folder.join(stale)).expect("an old page goes");
        }
        for (name, text) in &pages {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is made");
            fs::write(path, text).expect("a page is written");
        }
    }
    let differs = |(name, text): &(&String, &String)| {
        fs::read_to_string(folder.join(name)).ok().as_ref() != Some(*text)
    };
    let mut stale: Vec<String> = pages.iter().filter(differs).map(|(name, _)| name.clone()).collect();
    stale.extend(existing(&folder).into_iter().filter(|name| !pages.contains_key(name)));
    assert!(stale.is_empty(), "docs/reference differs from the code in {}; run {COMMAND}", stale.join(", "));
}

/// The journal's catalog is written from the events, by the same command.
#[test]
fn the_catalog_is_current() {
    let path = root().join("packaging/mcp-orchestrator.catalog");
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        fs::write(&path, message::catalog()).expect("the catalog is written");
    }
    let known = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(known, message::catalog(), "run {COMMAND}");
    // Every field that a text names is one that entries have.
    let named = known.split('@').skip(1).step_by(2);
    for field in named {
        assert!(LOG_FIELDS.iter().any(|(name, _)| *name == field), "@{field}@ is no field");
    }
}

#[test]
fn every_code_is_described() {
    let described: BTreeSet<String> = all_codes().into_iter().map(|(code, ..)| code).collect();
    let used = used(|word| {
        let rest = word.strip_prefix("MCPO-")?;
        let fits = rest.len() == 4 && rest.starts_with(|c: char| c.is_ascii_uppercase());
        (fits && rest[1..].bytes().all(|byte| byte.is_ascii_digit())).then(|| word.to_owned())
    });
    same(&used, &described);
}

#[test]
fn every_log_field_is_described() {
    let described: BTreeSet<String> = LOG_FIELDS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let used = used(|word| {
        let ours = word.starts_with("MCP_") && !word.starts_with("MCP_ORCHESTRATOR") && word != "MCP_TOKEN";
        (ours || matches!(word, "CONTAINER_ID" | "MESSAGE_ID")).then(|| word.to_owned())
    });
    same(&used, &described);
}

fn same(used: &BTreeSet<String>, described: &BTreeSet<String>) {
    let missing: Vec<_> = used.difference(described).collect();
    let stale: Vec<_> = described.difference(used).collect();
    assert!(
        missing.is_empty(),
        "in src, not described in src/cli/codes.rs or tests/it/reference.rs: {missing:?}"
    );
    assert!(stale.is_empty(), "described, not in src: {stale:?}");
}

// ---- pages ---------------------------------------------------------------------------------------

fn pages() -> BTreeMap<String, String> {
    let mut pages = BTreeMap::new();
    let mut page = |name: &str, text: String| pages.insert(name.to_owned(), format!("{}\n", text.trim_end()));
    page("settings.md", settings::render::reference());
    page("mcp-config.md", schema::reference());
    page("cli.md", command_line());
    page("exit-codes.md", exit_codes());
    page("labels.md", labels());
    page("log-fields.md", log_fields());
    page("json.md", json::reference());
    page("metrics.md", metrics());
    page("api.md", openapi::reference());
    let mut index = String::from(
        "# Error codes\n\nA code is never given to another problem.\n\n| code | problem |\n|---|---|\n",
    );
    for (code, title, cause, remedy) in all_codes() {
        let _ = writeln!(index, "| [{code}](codes/{code}.md) | {title} |");
        page(
            &format!("codes/{code}.md"),
            format!("# {code}: {title}\n\n{cause}\n\n**What to do:** {remedy}\n"),
        );
    }
    page("error-codes.md", index);
    pages
}

fn all_codes() -> Vec<(String, String, String, String)> {
    let all = codes::all().into_iter().map(|doc| (doc.code, doc.title, doc.cause, doc.remedy));
    all.map(|(a, b, c, d)| (a.to_owned(), b.to_owned(), c.to_owned(), d.to_owned())).collect()
}

fn command_line() -> String {
    let mut root = Cli::command().term_width(WIDTH);
    root.build();
    let mut out = format!("# Command line\n\n```text\n{}```\n", root.render_long_help());
    for command in root.get_subcommands_mut().filter(|command| command.get_name() != "help") {
        let name = command.get_name().to_owned();
        let _ = write!(out, "\n## {name}\n\n```text\n{}```\n", command.render_long_help());
    }
    out
}

/// Every family of `/metrics`.
fn metrics() -> String {
    let mut out = String::from(
        "# Metrics\n\nText for Prometheus, version 0.0.4, at `/metrics`: on the main listener with the dashboard's\npassword, on the control socket, and without a password on the address that `[metrics] port` opens.\nNothing on the page comes from arguments or results. The packages have a dashboard for Grafana and\nalert rules: `packaging/grafana`, `packaging/prometheus`, installed among the examples.\n\nCounters begin with 0 when the daemon starts. A histogram has `_bucket`, `_sum` and `_count`. Labels\nbeside the names: `server` is the id, `replica` the number of an instance and left out where the server has\none, `action` a kind of change, `operation` one of the load balancer's\nAPI, `method` and `tool` those of MCP, up to a bound.\n\n| name | type | unit | labels | meaning |\n|---|---|---|---|---|\n",
    );
    for family in figures::families() {
        let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(
            out,
            "| `{}{}` | {} | {} | {} | {} |",
            mcp_orchestrator::gateway::metrics::page::PREFIX,
            family.name,
            family.kind.as_str(),
            family.unit(),
            labels.join(", "),
            family.about
        );
    }
    out
}

/// What is shipped for Grafana and Prometheus asks for names that exist.
#[test]
fn dashboards_and_alerts_name_what_is_there() {
    use mcp_orchestrator::gateway::metrics::page::{Kind, PREFIX};
    let known: BTreeSet<String> = figures::families()
        .flat_map(|family| {
            let endings: &[&str] =
                if family.kind == Kind::Histogram { &["_bucket", "_sum", "_count"] } else { &[""] };
            endings.iter().map(move |ending| format!("{PREFIX}{}{ending}", family.name))
        })
        .collect();
    for file in ["packaging/grafana/mcp-orchestrator.json", "packaging/prometheus/mcp-orchestrator.rules.yml"]
    {
        let text = fs::read_to_string(root().join(file)).expect("a file");
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let named: BTreeSet<String> =
            words.filter(|word| word.starts_with(PREFIX)).map(str::to_owned).collect();
        assert!(named.len() > 10, "{file} names {named:?}");
        let missing: Vec<_> = named.difference(&known).collect();
        assert!(missing.is_empty(), "{file} names {missing:?}, which /metrics does not have");
    }
    let dashboard =
        fs::read_to_string(root().join("packaging/grafana/mcp-orchestrator.json")).expect("a file");
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).expect("JSON");
    let ids: Vec<_> =
        dashboard["panels"].as_array().expect("panels").iter().map(|panel| &panel["id"]).collect();
    assert!(ids.len() > 20 && ids.windows(2).all(|pair| pair[0] != pair[1]));
}

fn exit_codes() -> String {
    let mut out = String::from("# Exit codes\n\n| code | meaning |\n|---|---|\n");
    for (exit, meaning) in Exit::ALL {
        let _ = writeln!(out, "| {} | {meaning} |", exit as u8);
    }
    out.push_str(
        "\nData goes to stdout, everything else to stderr. A reader that closes the pipe is no error.\n",
    );
    out
}

/// The constants of `model::mark` and the further tags of `model::balancer`, with their docs.
fn labels() -> String {
    let mut out = String::from(
        "# Labels and tags\n\nContainers carry labels, target groups and rules carry tags of the same names. An object\nwithout `managed-by=mcp-orchestrator` and the stack of this daemon is never changed.\n\n| name | meaning |\n|---|---|\n",
    );
    for file in ["model/mark.rs", "model/balancer.rs"] {
        let text = fs::read_to_string(root().join("src").join(file)).expect("the source is there");
        let mut doc = String::new();
        for line in text.lines() {
            if let Some(more) = line.strip_prefix("/// ") {
                let _ = write!(doc, "{}{more}", if doc.is_empty() { "" } else { " " });
                continue;
            }
            let value = line
                .strip_prefix("pub const ")
                .and_then(|rest| rest.split_once(": &str = \"")?.1.strip_suffix("\";"));
            if let Some(value) =
                value.filter(|value| value.starts_with("io.mcp-orchestrator.") || *value == "managed-by")
            {
                let words = |doc: String, (link, words): &(&str, &str)| doc.replace(link, words);
                let doc = WORDS.iter().fold(doc.clone(), words);
                assert!(!doc.contains("[`"), "{file}: say in WORDS what stands for the link in '{doc}'");
                let _ = writeln!(out, "| `{value}` | {} |", doc.trim_end_matches('.'));
            }
            doc.clear();
        }
    }
    out
}

fn log_fields() -> String {
    let mut out = String::from(
        "# Log fields\n\nUnder systemd log lines go to the journal with these fields, for example\n`journalctl -u mcp-orchestrator MCP_SERVER=time`; in JSON they are members of `fields`.\n`SYSLOG_IDENTIFIER` is `mcp-orchestrator`. No field holds a secret.\n\n| field | meaning |\n|---|---|\n",
    );
    for (name, meaning) in LOG_FIELDS {
        let _ = writeln!(out, "| `{name}` | {meaning} |");
    }
    out.push_str(
        "\n## Access log\n\nOne event at level DEBUG under the target `access` for every MCP request that ended, off unless\nasked for: `--log-level info,access=debug`. It never has arguments, results or ids of sessions.\n",
    );
    out.push_str(&repeats());
    out.push_str(&level());
    out.push_str(
        "\n## Events\n\nEvents that an operator would alert on have a `MESSAGE_ID` that never changes:\n`journalctl -u mcp-orchestrator MESSAGE_ID=…`. With `packaging/mcp-orchestrator.catalog` in\n`/usr/lib/systemd/catalog` and after `journalctl --update-catalog`, `journalctl -x` explains each.\n\n| `MESSAGE_ID` | event |\n|---|---|\n",
    );
    for event in message::EVENTS {
        let _ = writeln!(out, "| `{}` | {} |", event.id, event.subject.replace('@', "`"));
    }
    out
}

fn repeats() -> String {
    format!(
        "\n## Repetition, length, and where lines go\n\n\
         The same event of the same server is told once. What comes again within {window} minutes is counted\n\
         and told at the end of that time, as `… (repeated 37 times)` with `MCP_REPEATED`, at most once in\n\
         {window} minutes. What servers print themselves is told line by line, up to {lines} lines of one server\n\
         in {within} seconds; further ones are counted, and `logs NAME` has the newest. A line of a server is\n\
         cut at 8 KiB and says so; nothing else is cut.\n\n\
         Under systemd entries go to the journal by its own protocol, large values as sealed memory. While\n\
         the journal cannot be reached, lines go to stderr as JSON; when it was not there at the start, they\n\
         stay there. On a terminal they are text, in a file or a container JSON (`[logging] format`).\n",
        window = repeats::WINDOW.as_secs() / 60,
        lines = repeats::LINES_MAX,
        within = repeats::LINES_WITHIN.as_secs(),
    )
}

fn level() -> String {
    String::from(
        "\n## Level\n\n\
         `mcp-orchestrator log-level` shows it, `log-level DEBUG --for 10m` changes it for a while, `log-level\n\
         reset` goes back to `[logging] level`. `kill -USR1` sets DEBUG and `kill -USR2` resets, where nothing\n\
         else reaches the daemon. A changed `[logging] level` in settings.conf ends what was set by hand.\n\
         `journalctl -p` knows these levels: ERROR is 3, WARNING 4, INFO 6, DEBUG 7.\n",
    )
}

// ---- files ---------------------------------------------------------------------------------------

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        if path.is_dir() { walk(&path, found) } else { found.push(path) }
    }
}

/// Pages that are there, relative to the folder.
fn existing(folder: &Path) -> BTreeSet<String> {
    let mut found = Vec::new();
    walk(folder, &mut found);
    let name = |path: PathBuf| path.strip_prefix(folder).expect("inside").to_string_lossy().into_owned();
    found.into_iter().map(name).filter(|name| !BY_HAND.contains(&name.as_str())).collect()
}

/// Every word of the sources that `pick` takes.
fn used(pick: impl Fn(&str) -> Option<String>) -> BTreeSet<String> {
    let mut files = Vec::new();
    walk(&root().join("src"), &mut files);
    let mut found = BTreeSet::new();
    // The table of codes names them all: it says nothing of their use.
    files.retain(|file| !file.ends_with("cli/codes.rs"));
    for file in files.iter().filter(|file| file.extension().is_some_and(|ext| ext == "rs")) {
        let text = fs::read_to_string(file).expect("a source");
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'));
        found.extend(words.filter_map(&pick));
    }
    found
}
