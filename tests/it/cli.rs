//! What people see on the command line, as snapshots: help, errors, `validate`, plans.
//!
//! `INSTA_UPDATE=always cargo test --test it cli` writes them anew. Paths and versions are
//! replaced by words; everything else must be the same on every machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use clap::CommandFactory as _;
use mcp_orchestrator::cli::args::Cli;
use mcp_orchestrator::config::load::{Contents, Input, load};
use mcp_orchestrator::config::settings::{self, PolicyWorld, Settings};
use mcp_orchestrator::model::desired::Desired;
use mcp_orchestrator::model::fingerprint::HashKey;
use mcp_orchestrator::model::id::{ImageId, Stack};
use mcp_orchestrator::model::memory::Memory;
use mcp_orchestrator::model::net::HostPort;
use mcp_orchestrator::model::observed::{Image, Observed, Seen};
use mcp_orchestrator::model::policy::Policy;
use mcp_orchestrator::model::time::Timestamp;
use mcp_orchestrator::plan::report::ReasonKind;
use mcp_orchestrator::plan::{self, Plan, display};

/// Columns of every snapshot.
pub(crate) const WIDTH: usize = 80;

// ---- the program ---------------------------------------------------------------------------------

/// A home of its own: nothing of this machine's user or daemon is seen.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        let home = Self(tempfile::tempdir().expect("a directory"));
        for folder in ["state", "run"] {
            fs::create_dir(home.0.path().join(folder)).expect("a directory");
        }
        home
    }

    fn with(self, name: &str, text: &str) -> Self {
        fs::write(self.0.path().join(name), text).expect("a file");
        self
    }

    /// Runs the program here and tells all that is seen of it.
    fn run(&self, args: &[&str]) -> String {
        let folder = self.0.path();
        let output = Command::new(env!("CARGO_BIN_EXE_mcp-orchestrator"))
            .args(args)
            .env_clear()
            .env("COLUMNS", WIDTH.to_string())
            .env("HOME", folder)
            .env("XDG_STATE_HOME", folder.join("state"))
            .env("XDG_RUNTIME_DIR", folder.join("run"))
            .env("DOCKER_HOST", "unix:///nowhere/docker.sock")
            .current_dir(folder)
            .stdin(Stdio::null())
            .output()
            .expect("the program runs");
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        let mut out = format!("$ mcp-orchestrator {}\n{}", args.join(" "), text(&output.stdout));
        let errors = text(&output.stderr);
        if !errors.is_empty() {
            out.push_str("--- stderr\n");
            out.push_str(&errors);
        }
        out.push_str(&format!("--- exit {}\n", output.status.code().expect("an exit code")));
        filtered(&out, folder)
    }
}

/// Without what differs between machines and versions.
fn filtered(text: &str, folder: &Path) -> String {
    let real = folder.canonicalize().expect("a directory");
    let text = text.replace(&real.display().to_string(), "DIR").replace(&folder.display().to_string(), "DIR");
    let text = text.replace(env!("CARGO_PKG_VERSION"), "VERSION");
    let mut parts = text.split("/dev-");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str("/dev-HASH");
        out.push_str(part.trim_start_matches(|c: char| c.is_ascii_hexdigit()));
    }
    out
}

#[test]
fn help() {
    let home = Home::new();
    let mut out = home.run(&["--help"]);
    let command = Cli::command();
    for name in command.get_subcommands().map(clap::Command::get_name) {
        out.push('\n');
        out.push_str(&home.run(&[name, "--help"]));
    }
    assert!(out.lines().all(|line| line.chars().count() <= WIDTH), "{out}");
    insta::assert_snapshot!("help", out);
}

#[test]
fn errors() {
    let home = Home::new()
        .with("mcp.config.json", "{\"mcpServers\": {}}\n")
        .with("bad.conf", "[servce]\nstack = a\n[service]\nport_range_start = high\nport_rnge_end = 9\n")
        .with("bad.json", "{\n  \"mcpServers\": {\n    \"time\": {\"command\": \"docker\", \"args\": [\"run\", \"--detsch\", \"mcp/time\"]},\n}\n");
    let mut out = String::new();
    let calls: &[&[&str]] = &[
        &["--version"],
        &["frobnicate"],
        &["plan", "--jsn"],
        &["start-server"],
        &["--one-shot", "status"],
        &["status"],
        &["why", "time"],
        &["logs", "time", "--follow"],
        &["capabilities"],
        &["log-level"],
        &["log-level", "DEBG"],
        &["log-level", "DEBUG", "--for", "soon"],
        &["log-level", "--for", "5m"],
        &["--settings", "bad.conf", "plan"],
        &["--settings", "missing.conf", "plan"],
        &["--config", "bad.json", "plan"],
        &["--config", "bad.json", "--one-shot"],
        &["--config", "missing.json", "plan"],
        &["plan"],
    ];
    for args in calls {
        out.push_str(&home.run(args));
        out.push('\n');
    }
    insta::assert_snapshot!("errors", out);
}

#[test]
fn validate() {
    let home = Home::new()
        .with("mcp.config.json", &shipped("mcp.config.json"))
        .with("settings.conf", &shipped("settings.conf"))
        .with(
            "bad.json",
            "{\n  \"mcpServers\": {\n    \"time\": {\"command\": \"docker\", \"args\": [\"run\", \"--detsch\", \"mcp/time\"]},\n    \"search\": {\"command\": \"docker\", \"args\": [\"run\", \"--privileged\", \"mcp/search\"]},\n    \"key\": {\"url\": \"https://example.com/mcp\", \"headers\": {\"Authorization\": \"Bearer ${NOT_SET}\"}},\n    \"good\": {\"command\": \"docker\", \"args\": [\"run\", \"-i\", \"mcp/good\"]}\n  }\n}\n",
        )
        .with("bad.conf", "[service]\nport_range_start = 9500\n");
    let mut out = String::new();
    let calls: &[&[&str]] = &[
        &["validate"],
        &["validate", "--json"],
        &["--config", "bad.json", "validate"],
        &["--config", "bad.json", "validate", "--json"],
        &["--settings", "bad.conf", "validate"],
        &["--config", "bad.json", "--settings", "bad.conf", "validate"],
    ];
    for args in calls {
        out.push_str(&home.run(args));
        out.push('\n');
    }
    insta::assert_snapshot!("validate", out);
}

#[test]
fn what_only_the_service_has_is_no_error_elsewhere() {
    let entry = r#"{"url": "https://example.com/mcp", "headers": {"A": "${NOT_SET} ${credential:none}"}}"#;
    let home = Home::new().with("mcp.config.json", &format!(r#"{{"mcpServers": {{"key": {entry}}}}}"#));
    let here = home.run(&["validate"]);
    assert!(here.contains("error[MCPO-C030]") && here.contains("error[MCPO-C031]"), "{here}");
    let there = home.run(&["validate", "--elsewhere"]);
    assert!(there.contains("warning[MCPO-C030]") && there.contains("warning[MCPO-C031]"), "{there}");
    assert!(there.contains("0 errors, 2 warnings"), "{there}");
    let bad = home.with("mcp.config.json", "{\"mcpServers\": {").run(&["validate", "--elsewhere"]);
    assert!(bad.contains("error["), "{bad}");
}

// ---- plans ---------------------------------------------------------------------------------------

/// A file of `etc/mcp-orchestrator`.
pub(crate) fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/mcp-orchestrator").join(name);
    fs::read_to_string(path).expect("a shipped file")
}

fn default_settings() -> Settings {
    let none = BTreeMap::new();
    settings::load(&settings::Input { file: None, env: &none, flags: &none })
        .settings
        .expect("defaults are valid")
}

fn policy() -> Policy {
    let stack = Stack::new("default").expect("a stack");
    default_settings().policy(&PolicyWorld { stack, balancer_on: false, allow_mass_delete: false })
}

fn desired(text: &str) -> Desired {
    let (env, none) = (BTreeMap::new(), Contents::new());
    let loaded = load(&Input {
        file: "/etc/mcp-orchestrator/mcp.config.json",
        bytes: text.as_bytes(),
        env: &env,
        files: &none,
        credentials: &none,
        secrets_manager: &none,
        ssm: &none,
        settings: &default_settings(),
        key: &HashKey::new([7; 32]),
    });
    loaded.desired.expect("a configuration")
}

/// A host with nothing on it but these images.
fn world(images: &[(&str, &[u16])]) -> Observed {
    let image = |(name, exposed): &(&str, &[u16])| {
        let id = ImageId(format!("sha256:{}", "a".repeat(64)));
        ((*name).to_owned(), Seen::Known(Some(Image { id, digest: None, exposed: exposed.to_vec() })))
    };
    Observed {
        images: images.iter().map(image).collect(),
        free_ports: Some(Seen::Known((8000..=9000).filter_map(HostPort::new).collect())),
        ..mcp_orchestrator::world::fake::nothing_seen()
    }
}

fn plan_of(text: &str, observed: &Observed, memory: &Memory) -> Plan {
    let (desired, policy, now) = (desired(text), policy(), Timestamp(0));
    plan::plan(plan::Input { desired: &desired, observed, memory, policy: &policy, now })
}

/// What `plan` prints for the shipped configuration on a host that has its image and nothing else.
pub(crate) fn shipped_plan() -> String {
    let plan =
        plan_of(&shipped("mcp.config.json"), &world(&[("mcp/example:latest", &[])]), &Memory::default());
    assert!(plan.questions.is_empty(), "{:?}", plan.questions);
    display::text(&plan, Timestamp(0), WIDTH)
}

const FLEET: &str = r#"{
  "mcpServers": {
    "time": {"command": "docker", "args": ["run", "-i", "--rm", "mcp/time"]},
    "search": {"command": "docker", "args": ["run", "-p", "3000", "-v", "/srv/search:/data", "mcp/search"], "env": {"TOKEN": "planted-secret"}},
    "maps": {"command": "docker", "args": ["run", "mcp/maps"]},
    "old": {"command": "docker", "args": ["run", "-i", "mcp/old"], "disabled": true},
    "pulled": {"command": "docker", "args": ["run", "-i", "mcp/pulled"]},
    "wrong": {"command": "docker", "args": ["run", "-i", "--detsch", "mcp/wrong"]}
  }
}"#;

#[test]
fn an_entry_without_a_usable_name_is_said_and_is_no_success() {
    let text = r#"{"mcpServers": {"health": {"command": "npx"}, "time": {"url": "http://a.example/mcp"}}}"#;
    let plan = plan_of(text, &world(&[]), &Memory::default());
    let [said] = plan.report.general.as_slice() else { panic!("{:?}", plan.report.general) };
    assert_eq!((said.kind, said.code), (ReasonKind::BlockedBy, Some("MCPO-P003")));
    assert!(display::text(&plan, Timestamp(0), WIDTH).contains("'health' gives no server id"), "{said:?}");
    // What the command says beside the plan: the place.
    let home = Home::new().with("mcp.config.json", text);
    for args in [["plan"], ["--one-shot"]] {
        let shown = home.run(&args);
        assert!(shown.contains("DIR/mcp.config.json:1:17: error[MCPO-C021]: server 'health'"), "{shown}");
    }
}

#[test]
fn plans() {
    let mut observed =
        world(&[("mcp/time", &[]), ("mcp/search", &[3000]), ("mcp/maps", &[80, 443]), ("mcp/old", &[])]);
    observed.images.insert("mcp/pulled".to_owned(), Seen::Known(None));
    let fleet = plan_of(FLEET, &observed, &Memory::default());
    let mut unseen = observed.clone();
    unseen.containers = Seen::Unknown("no engine listens on /var/run/docker.sock".to_owned());
    let blind = plan_of(FLEET, &unseen, &Memory::default());
    let empty = plan_of("{\"mcpServers\": {}}", &observed, &Memory::default());
    let text = |plan: &Plan| display::text(plan, Timestamp(0), WIDTH);
    let out = format!(
        "## fleet\n{}\n## engine unknown\n{}\n## empty\n{}",
        text(&fleet),
        text(&blind),
        text(&empty)
    );
    let json = format!("{:#}\n", display::json(&fleet));
    for shown in [&out, &json] {
        assert!(!shown.contains("planted-secret"), "a value of the environment is shown");
    }
    insta::assert_snapshot!("plan_text", out);
    insta::assert_snapshot!("plan_json", json);
}
