//! `docs/reference` against the code it is generated from.
//!
//! `UPDATE_REFERENCE=1 cargo test --test it reference` writes the pages anew. Codes and log fields
//! that stand in the code without a table of their own are described here; one that is not
//! described, or that the code no longer has, fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use mcp_orchestrator::cli::args::Cli;
use mcp_orchestrator::config::{codes, schema, settings};
use mcp_orchestrator::terminal::failure::Exit;

/// Columns of the command line's page.
const WIDTH: usize = 100;
const COMMAND: &str = "UPDATE_REFERENCE=1 cargo test --test it reference";

/// Codes outside the configuration: code, title, how it comes about, what to do.
const CODES: &[(&str, &str, &str, &str)] = &[
    (
        "MCPO-A001",
        "this host's target id is not known",
        "Instance metadata did not answer and `target_id` is empty.",
        "Allow IMDSv2 on the instance, or set `[aws] target_id`. Until then the last known id serves, or nothing is registered.",
    ),
    (
        "MCPO-A002",
        "target group name is taken",
        "A target group that is not ours has the name this server needs.",
        "Rename or delete that target group. It is never changed from here.",
    ),
    (
        "MCPO-A003",
        "no priority is free",
        "All rule priorities between `rule_priority_start` and `rule_priority_end` are in use on the listener.",
        "Widen the range in settings.conf. Other servers are not affected.",
    ),
    (
        "MCPO-A004",
        "target group quota is used up",
        "The load balancer has as many target groups as it may have.",
        "Set `[gateway] port`, so that new edge servers share one target group, or use a second load balancer.",
    ),
    (
        "MCPO-A005",
        "hosts differ",
        "Live hosts of this stack want different things of an object they share.",
        "Give all hosts the same entry. The shared object stays as it is until they agree.",
    ),
    (
        "MCPO-A006",
        "rule is behind a foreign one",
        "A rule of others has a lower priority number and catches this server's requests.",
        "Change that rule, or move our priorities before it with `rule_priority_start`.",
    ),
    (
        "MCPO-A007",
        "tags were removed",
        "An object looks like ours but lacks our tags. It is not adopted.",
        "Put the tags back, or delete the object.",
    ),
    (
        "MCPO-A008",
        "health check can hardly fail",
        "A direct server has no health path of its own, so that nearly every answer counts as healthy.",
        "Set `orchestrator.health.path`.",
    ),
    (
        "MCPO-A009",
        "all targets are unhealthy",
        "Every target of the server fails its health check. The load balancer then forwards to all of them.",
        "Look at the server's log, and from the target at its health path.",
    ),
    (
        "MCPO-A010",
        "object is left alone",
        "An object carries this stack's tags but cannot be placed, for example on another listener.",
        "Delete it by hand if nobody needs it.",
    ),
    (
        "MCPO-H001",
        "the daemon is stopping",
        "The loop has ended; no request is taken.",
        "Ask again once the daemon is up.",
    ),
    ("MCPO-H002", "no such server", "No server has this id.", "See `list-servers`."),
    (
        "MCPO-H003",
        "not done",
        "The loop took the request and could not do it; the detail says why.",
        "See `why NAME`.",
    ),
    (
        "MCPO-H004",
        "the server does not run",
        "A tool can be called only of a running server.",
        "See `why NAME`, then `start-server NAME`.",
    ),
    (
        "MCPO-H005",
        "calls go through stdio so far",
        "The server is reached over HTTP; `call` reaches stdio containers only.",
        "Call it on its own port.",
    ),
    (
        "MCPO-H006",
        "the call failed",
        "The server did not answer the call, or answered with an error.",
        "See the detail, and `docker logs` of the container.",
    ),
    (
        "MCPO-H400",
        "the body is not a call",
        "The body of the request is not `{\"tool\": …, \"arguments\": {…}}`.",
        "Send that.",
    ),
    (
        "MCPO-H404",
        "no such action",
        "The route names no action of a server.",
        "Use start, stop, restart or call.",
    ),
    (
        "MCPO-P001",
        "container without a readable server label",
        "It has our mark, but its server label is no id. It is left alone.",
        "Remove it by hand if nobody needs it.",
    ),
    (
        "MCPO-P002",
        "configuration cannot be used",
        "The file cannot be read as a configuration. The last good one stays in force and nothing is removed.",
        "Mend the file; `validate` names every problem. The daemon goes on by itself.",
    ),
    (
        "MCPO-P003",
        "entry without a usable name",
        "An entry has a name that gives no id, so what it runs cannot be told from what was removed. Nothing is removed.",
        "Give the entry a valid name.",
    ),
    (
        "MCPO-P004",
        "removal is held back",
        "The file lost more than half of at least four servers, or all of them.",
        "If that is meant: `--allow-mass-delete`, or `[service] allow_mass_delete = true`.",
    ),
    (
        "MCPO-P010",
        "host port belongs to another server",
        "Two servers want one host port.",
        "Choose another port, or leave it to the range.",
    ),
    (
        "MCPO-P011",
        "no free port",
        "Every port of the range is leased or in use. Only newcomers are affected.",
        "Widen the range in settings.conf.",
    ),
    (
        "MCPO-P012",
        "host port is taken by another process",
        "Something else on this host listens on the port.",
        "End that process. A port from the range moves by itself after a short wait; a port written in the entry does not.",
    ),
    (
        "MCPO-P021",
        "image is not on the engine",
        "`pull = never` and the image is not there.",
        "Pull or load the image, or change `pull`.",
    ),
    (
        "MCPO-P030",
        "container name is taken",
        "A container that is not ours has the name this server needs. It is never touched.",
        "Rename or remove it, or set `[service] name_prefix`.",
    ),
    (
        "MCPO-P031",
        "no port is named",
        "The server speaks HTTP, but neither its line nor its image names a port.",
        "Set `orchestrator.containerPort`.",
    ),
    (
        "MCPO-P032",
        "several ports are exposed",
        "The image exposes several ports and none is said to speak MCP.",
        "Set `orchestrator.containerPort`.",
    ),
    (
        "MCPO-P033",
        "direct route for a stdio server",
        "A stdio server has no port of its own.",
        "Use `edge` or `auto`.",
    ),
    (
        "MCPO-P034",
        "entry has a problem",
        "The entry is broken. What it runs stays as it is, and no other server is affected.",
        "Run `validate`.",
    ),
    (
        "MCPO-P040",
        "next try after a failure",
        "An action failed. The pause doubles with every failure in a row.",
        "See the text of the reason; `sync` and `restart-server` try at once.",
    ),
    (
        "MCPO-P041",
        "gave up",
        "The server ended as often in a row as `restart.maxAttempts` allows.",
        "Mend the cause, then `restart-server NAME`.",
    ),
    (
        "MCPO-P042",
        "waits before a restart",
        "The server ended. The first restart has no delay, the next ones do.",
        "See its log for why it ends.",
    ),
    (
        "MCPO-P050",
        "roll-out is stopped",
        "Several replacements failed, so the others are not begun.",
        "Mend what the failed ones have in common.",
    ),
    (
        "MCPO-P051",
        "replacement failed",
        "The new container did not come up. The old one stays or comes back.",
        "See the text of the reason; the next try is named.",
    ),
    (
        "MCPO-P060",
        "load balancer cannot be read",
        "AWS did not answer, so nothing of the load balancer is changed.",
        "Check credentials, region and network; it is asked again by itself.",
    ),
    (
        "MCPO-P061",
        "quota of the load balancer",
        "AWS refused to make a target group or rule because a quota is used up. The container runs; only its route is missing. Other servers are not affected.",
        "Ask AWS for a higher quota, or remove rules and target groups that nobody needs. It is tried again by itself.",
    ),
    (
        "MCPO-P070",
        "a pass found a fault of its own",
        "A plan broke an invariant and was refused, or the memory could not be written.",
        "Check the disk of the state directory. A broken invariant is a bug: report it with the log line.",
    ),
    (
        "MCPO-S001",
        "state was lost",
        "The state file could not be trusted. It was moved aside and a new one made from the containers' labels.",
        "Nothing needs doing. The old file is kept beside the new one.",
    ),
    (
        "MCPO-W001",
        "not found",
        "The thing asked for is not there.",
        "It is looked for again in the next pass.",
    ),
    (
        "MCPO-W002",
        "conflict",
        "A name, port or priority is taken, or the state of the thing does not allow the change.",
        "See the cause.",
    ),
    (
        "MCPO-W003",
        "refused as wrong",
        "The other side refused the request itself.",
        "See the cause: it is its own words.",
    ),
    (
        "MCPO-W004",
        "denied",
        "Credentials are missing, wrong or not enough.",
        "Check access to the Docker socket, the registry's password, or the IAM policy.",
    ),
    ("MCPO-W005", "throttled", "Too many requests.", "It is tried again later."),
    (
        "MCPO-W006",
        "quota",
        "A quota of the other side is used up.",
        "Ask for more, or remove what is not needed.",
    ),
    ("MCPO-W007", "unreachable", "Nobody answers.", "Check that the engine runs, or the network to AWS."),
    ("MCPO-W008", "timed out", "There was no answer within the time allowed.", "It is tried again later."),
    ("MCPO-W009", "failed", "The other side failed.", "See the cause: it is its own words."),
];

/// What readers of the labels' page see for links into the code.
const WORDS: &[(&str, &str)] = &[
    ("[`MANAGER`]", "`mcp-orchestrator`"),
    (", see [`Role`]", ": server, replica or leg"),
    ("the [`Fingerprint`]", "the hash of what an object was made from"),
    (", beside those of [`crate::model::mark`]", " on target groups"),
];

/// Fields of log lines.
const LOG_FIELDS: &[(&str, &str)] = &[
    ("MCP_ACTION", "the change that is made, in words"),
    ("MCP_ERROR_CODE", "the code of the problem, see error-codes.md"),
    ("MCP_PASS", "the number of the pass, from 1"),
    ("MCP_PORT", "the host port of the server"),
    ("MCP_REASON", "why, in words"),
    ("MCP_SERVER", "the id of the server"),
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

#[test]
fn every_code_is_described() {
    let described: BTreeSet<String> = all_codes().into_iter().map(|(code, ..)| code).collect();
    let used = used(|word| {
        let rest = word.strip_prefix("MCPO-")?;
        let fits = rest.len() == 4 && rest.starts_with(|c: char| c.is_ascii_uppercase());
        (fits && rest[1..].bytes().all(|byte| byte.is_ascii_digit())).then(|| word.to_owned())
    });
    same(&used, &described);
    assert!(CODES.is_sorted_by(|a, b| a.0 < b.0), "codes are in order, each once");
}

#[test]
fn every_log_field_is_described() {
    let described: BTreeSet<String> = LOG_FIELDS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let used = used(|word| {
        (word.starts_with("MCP_") && !word.starts_with("MCP_ORCHESTRATOR")).then(|| word.to_owned())
    });
    same(&used, &described);
}

fn same(used: &BTreeSet<String>, described: &BTreeSet<String>) {
    let missing: Vec<_> = used.difference(described).collect();
    let stale: Vec<_> = described.difference(used).collect();
    assert!(missing.is_empty(), "in src, not described in tests/it/reference.rs: {missing:?}");
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
    let config = codes::code_docs().iter().map(|doc| (doc.code, doc.title, doc.cause, doc.remedy));
    let all = config.chain(CODES.iter().copied());
    let mut all: Vec<_> =
        all.map(|(a, b, c, d)| (a.to_owned(), b.to_owned(), c.to_owned(), d.to_owned())).collect();
    all.sort();
    all
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
    out
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
    found.into_iter().map(name).collect()
}

/// Every word of the sources that `pick` takes.
fn used(pick: impl Fn(&str) -> Option<String>) -> BTreeSet<String> {
    let mut files = Vec::new();
    walk(&root().join("src"), &mut files);
    let mut found = BTreeSet::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|ext| ext == "rs")) {
        let text = fs::read_to_string(file).expect("a source");
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'));
        found.extend(words.filter_map(&pick));
    }
    found
}
