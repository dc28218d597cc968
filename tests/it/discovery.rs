//! Discovery against samples of every client, against projects that are no servers, and as a program.
//!
//! The samples in `tests/fixtures/discovery` have the shapes that the clients' own documentation shows.
//! `INSTA_UPDATE=always cargo test --test it discovery` writes the snapshots anew.

mod strangers;

use crate::editing::site::{Site, eventually};
use mcp_orchestrator::discovery::{Confidence, Find, arrange, candidate, look, proof};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Columns of every output.
const WIDTH: usize = 80;

/// A tree of files: path to content and whether it may be executed.
pub(crate) type Tree = BTreeMap<String, (Vec<u8>, bool)>;

/// What is found in a tree, as the adapter would find it on a disk.
fn found(tree: &Tree) -> (Vec<Find>, Vec<String>) {
    let (mut finds, mut problems) = (Vec::new(), Vec::new());
    for (path, (bytes, executable)) in tree {
        if candidate(path).is_some() {
            let looked = look(path, bytes, *executable);
            finds.extend(looked.finds);
            problems.extend(looked.problem);
        }
    }
    let mut read = |path: &str| Some(String::from_utf8_lossy(&tree.get(path)?.0).into_owned());
    for find in &mut finds {
        proof::prove(find, &mut read);
    }
    arrange(&mut finds);
    (finds, problems)
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/discovery")
}

/// The files below `dir`, under `/w`.
fn on_disk(dir: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut open = vec![dir.to_owned()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(&at).expect("a directory").map(|entry| entry.expect("an entry")) {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let below = path.strip_prefix(dir).expect("below").display().to_string();
            let executable = fs::metadata(&path).expect("a file").permissions().mode() & 0o111 != 0;
            tree.insert(format!("/w/{below}"), (fs::read(&path).expect("a file"), executable));
        }
    }
    tree
}

#[test]
fn samples_of_every_client_are_understood() {
    let (finds, problems) = found(&on_disk(&fixtures()));
    let mut out = String::new();
    for find in &finds {
        writeln!(out, "{} [{} {}] {}", find.name, find.confidence, find.source, find.place).expect("written");
        writeln!(out, "  why: {}", find.why).expect("written");
        for note in &find.notes {
            writeln!(out, "  note: {note}").expect("written");
        }
        writeln!(out, "  {}", find.entry).expect("written");
        assert!(!find.shown().to_string().contains("planted"), "a secret is shown: {}", find.shown());
        assert!(find.proofs.is_empty());
    }
    for problem in &problems {
        writeln!(out, "problem: {problem}").expect("written");
    }
    insta::assert_snapshot!("discovery_samples", out);
}

/// What is in a project, whatever it is called.
fn contents_of(tree: &Tree) -> String {
    let name = |path: &String| path.split('/').nth(3).unwrap_or_default().to_owned();
    let name = tree.keys().next().map(name).unwrap_or_default();
    let mut out = String::new();
    for (path, (bytes, _)) in tree {
        let text = format!("{path}\n{}\n", String::from_utf8_lossy(bytes));
        out.push_str(&text.replace(&name, "NAME").replace(&name.replace('-', "_"), "NAME"));
    }
    out
}

#[test]
fn projects_that_are_no_servers_are_never_more_than_low() {
    let mut low = 0;
    let mut candidates = 0;
    let (mut shapes, mut contents) = (BTreeSet::new(), BTreeSet::new());
    for seed in 0..strangers::COUNT {
        let (shape, tree) = strangers::project(seed);
        shapes.insert(shape);
        contents.insert(contents_of(&tree));
        let looked_at = tree.keys().filter(|path| candidate(path).is_some()).count();
        assert!(looked_at > 0, "{shape} {seed} has nothing that is looked at");
        candidates += looked_at;
        let (finds, _) = found(&tree);
        for find in &finds {
            assert_eq!(find.confidence, Confidence::Low, "{shape} {seed}: {find:#?}");
        }
        low += finds.len();
    }
    println!("{} projects, {candidates} candidates, {low} finds, all low", contents.len());
    assert!(shapes.len() > 20, "kinds of projects: {shapes:?}");
    assert!(contents.len() >= 200, "only {} of them differ in more than their name", contents.len());
    assert!(low > 0, "the shapes are too tame: nothing reminds of a server");
}

/// The same projects with one real server among them: that one is found, so the test above would fail
/// if the judge were asleep.
#[test]
fn a_server_among_strangers_is_found() {
    for seed in 0..20 {
        let (shape, mut tree) = strangers::project(seed);
        for (path, content) in on_disk(&fixtures().join("python")) {
            tree.insert(path, content);
        }
        let (finds, _) = found(&tree);
        let sure: Vec<&str> = finds
            .iter()
            .filter(|find| find.confidence == Confidence::High)
            .map(|find| find.name.as_str())
            .collect();
        assert_eq!(sure, ["mcp-server-notes"], "{shape} {seed}");
    }
}

#[test]
fn whatever_is_in_a_file_nothing_panics() {
    let names = [
        "/p/.mcp.json",
        "/p/.vscode/settings.json",
        "/p/.codex/config.toml",
        "/p/mcp-config.yaml",
        "/p/pyproject.toml",
        "/p/package.json",
        "/p/scripts/mcp/x",
        "/p/mcp.json",
        "/p/.zed/settings.json",
    ];
    let tree = on_disk(&fixtures());
    let mut state = 7_u64;
    for (content, _) in tree.values() {
        for name in names {
            for _ in 0..20 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let mut bytes = content.clone();
                let at = usize::try_from(state >> 33).expect("small") % bytes.len().max(1);
                match state % 3 {
                    0 => bytes.truncate(at),
                    1 => bytes[at] = (state >> 20) as u8,
                    _ => bytes.splice(at..at, content.iter().take(40).copied()).for_each(drop),
                }
                let looked = look(name, &bytes, true);
                for mut find in looked.finds {
                    proof::prove(&mut find, &mut |_| Some(String::from_utf8_lossy(&bytes).into_owned()));
                }
            }
        }
    }
}

// ---- the program -----------------------------------------------------------------------------------

/// A home with the samples, and the program in it.
struct Home(tempfile::TempDir);

impl Home {
    fn new(config: &str) -> Self {
        let home = Self(tempfile::tempdir().expect("a directory"));
        for (path, (bytes, executable)) in on_disk(&fixtures()) {
            let path = home.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().expect("a directory")).expect("made");
            fs::write(&path, bytes).expect("written");
            if executable {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
            }
        }
        fs::create_dir(home.path().join("run")).expect("a directory");
        if !config.is_empty() {
            fs::write(home.config(), config).expect("written");
        }
        home
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn config(&self) -> PathBuf {
        self.path().join("mcp.config.json")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.config()).expect("a file")
    }

    /// Standard output, standard error, exit code.
    fn run(&self, args: &[&str]) -> (String, String, i32) {
        self.run_with("mcp.config.json", args)
    }

    fn run_with(&self, config: &str, args: &[&str]) -> (String, String, i32) {
        let output = Command::new(env!("CARGO_BIN_EXE_mcp-orchestrator"))
            .args(["--config", config])
            .args(args)
            .env_clear()
            .env("COLUMNS", WIDTH.to_string())
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.path())
            .env("XDG_STATE_HOME", self.path().join("state"))
            .env("XDG_RUNTIME_DIR", self.path().join("run"))
            .env("DOCKER_HOST", "unix:///nowhere/docker.sock")
            .current_dir(self.path())
            .stdin(Stdio::null())
            .output()
            .expect("the program runs");
        let text = |bytes: &[u8]| {
            let real = self.path().canonicalize().expect("a directory").display().to_string();
            String::from_utf8(bytes.to_vec()).expect("text").replace(&real, "DIR")
        };
        (text(&output.stdout), text(&output.stderr), output.status.code().expect("an exit code"))
    }
}

const CONFIG: &str = "{\n  // mine\n  \"mcpServers\": {\n    \"fetch\": {\"command\": \"uvx\", \"args\": [\"mcp-server-fetch\"], \"env\": {\"T\": \"planted-before\"}},\n    \"time\": {\"command\": \"true\"}, // keep\n  },\n}\n";

#[test]
fn discover_lists_and_writes_nothing_by_itself() {
    let home = Home::new(CONFIG);
    let (out, errors, exit) = home.run(&["discover", "w"]);
    assert_eq!(exit, 0, "{errors}");
    assert!(out.lines().all(|line| line.chars().count() <= WIDTH), "{out}");
    insta::assert_snapshot!("discover", out.lines().map(without_home).collect::<String>());
    let (json, _, _) = home.run(&["discover", "--json", "w"]);
    let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert!(value["finds"].as_array().expect("a list").len() > 15 && !json.contains("planted"), "{json}");
    let before = home.text();
    let (diff, said, exit) = home.run(&["discover", "--write", "w"]);
    assert_eq!((exit, home.text()), (1, before), "nothing is written without a yes: {said}");
    assert!(diff.contains("+") && !diff.contains("planted"), "{diff}");
}

#[test]
fn what_is_written_is_disabled_keeps_the_file_and_can_be_undone() {
    let home = Home::new(CONFIG);
    // Whoever ran this one would leave a trace.
    let (trap, trace) = (home.path().join("w/scripts/scripts/mcp/trap.sh"), home.path().join("trace"));
    fs::write(&trap, format!("#!/bin/sh\n# an MCP server\ntouch {}\n", trace.display())).expect("written");
    fs::set_permissions(&trap, fs::Permissions::from_mode(0o755)).expect("a mode");
    let (_, said, exit) = home.run(&["discover", "--write", "--yes", "w"]);
    assert_eq!(exit, 0, "{said}");
    let after = home.text();
    for line in ["// mine", "\"time\": {\"command\": \"true\"}, // keep"] {
        assert!(after.contains(line), "{after}");
    }
    assert!(after.contains("ghp-planted"), "values are written as they were found");
    let (json, _, _) = home.run(&["validate", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(value["valid"], true, "{json}");
    let again = home.run(&["discover", "--write", "--yes", "w"]);
    assert!(again.1.contains("nothing to write"), "what is there is recognised: {}", again.1);
    let (diff, said, exit) = home.run(&["import", "--undo", "--yes"]);
    assert_eq!((exit, home.text().as_str()), (0, CONFIG), "{said}");
    assert!(!diff.contains("planted"));
    assert_eq!(home.run(&["import", "--undo", "--yes"]).2, 1, "once");
    assert!(!trace.exists(), "something that was found was run");
}

#[test]
fn undo_never_overwrites_what_somebody_wrote_since() {
    let home = Home::new(CONFIG);
    assert_eq!(home.run(&["import", "w/cursor/.cursor/mcp.json", "--yes", "--enable"]).2, 0);
    let mine = home.text().replace("// mine", "// changed");
    fs::write(home.config(), &mine).expect("written");
    let (_, said, exit) = home.run(&["import", "--undo", "--yes"]);
    assert_eq!((exit, home.text()), (1, mine), "{said}");
    assert!(said.contains("changed since") && said.contains(".bak"), "{said}");
}

#[test]
fn import_says_what_it_does_and_refuses_what_is_none() {
    let home = Home::new("");
    let mut out = String::new();
    for args in [
        &["import", "w/windsurf/mcp_config.json", "--yes"][..],
        &["import", "w/windsurf/mcp_config.json", "--yes"],
        &["import", "w/vs-code/.vscode/mcp.json", "--yes"],
        &["import", "w/broken/.mcp.json"],
        &["import", "w/node/package.json"],
        &["import", "nowhere.json"],
        &["import"],
        &["import", "w/zed/.zed/settings.json", "--only", "nothing"],
        &["discover", "nowhere"],
        &["discover", "--least", "sure"],
    ] {
        let (printed, said, exit) = home.run(args);
        let said: String = said.lines().map(|line| format!("{}\n", without_times(line))).collect();
        writeln!(out, "$ mcp-orchestrator {}\n{printed}--- stderr\n{said}--- exit {exit}\n", args.join(" "))
            .expect("written");
    }
    assert!(!out.contains("planted"), "{out}");
    insta::assert_snapshot!("import", out);
    let entries: serde_json::Value = serde_json::from_str(&home.text()).expect("JSON");
    assert_eq!(entries["mcpServers"]["github"]["disabled"], true, "{entries}");
    fs::write(home.path().join("own.yaml"), "servers: []\n").expect("written");
    let (_, said, exit) = home.run_with("own.yaml", &["import", "w/zed/.zed/settings.json", "--yes"]);
    assert!(exit == 2 && said.contains("YAML is read and not written"), "{said}");
}

/// A path that is cut may have a part of the home's random name left.
fn without_home(line: &str) -> String {
    let cut = line.rfind('…').zip(line.find("/w/")).filter(|(cut, below)| cut < below);
    match cut {
        Some((cut, below)) => format!("{}…{}\n", &line[..cut], &line[below..]),
        None => format!("{line}\n"),
    }
}

/// Names of backups have the time in them.
fn without_times(line: &str) -> String {
    match (line.find("json.2"), line.find(".bak")) {
        (Some(start), Some(end)) => format!("{}json.TIME{}", &line[..start], &line[end..]),
        _ => line.to_owned(),
    }
}

#[test]
fn a_home_of_a_hundred_thousand_files_is_searched() {
    let home = Home::new(CONFIG);
    for folder in 0..200 {
        let folder = home.path().join(format!("w/many/d{}/e{folder}", folder % 20));
        fs::create_dir_all(&folder).expect("made");
        for file in 0..500 {
            fs::File::create(folder.join(format!("f{file}.txt"))).expect("made");
        }
    }
    let began = Instant::now();
    let (json, _, exit) = home.run(&["discover", "--json", "w"]);
    let took = began.elapsed();
    let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    println!("whole program {took:?}; search {}", value["searched"]);
    assert!(value["searched"]["entries"].as_u64().expect("a number") > 100_000);
    // The bound is loose for a loaded machine and a build without optimisation; the figure is printed.
    assert!(exit == 0 && took.as_secs() < 20, "{took:?}");
}

// ---- the daemon ------------------------------------------------------------------------------------

#[test]
fn the_daemon_searches_again_at_its_interval_and_runs_nothing() {
    let site = Site::new("{\"mcpServers\": {}}");
    let folder = site.path("projects");
    fs::create_dir_all(folder.join("later")).expect("a directory");
    let trace = site.path("trace").display().to_string();
    let entry = |name: &str| {
        let entry = serde_json::json!({ "command": "touch", "args": [trace] });
        serde_json::json!({ "mcpServers": { name: entry } }).to_string()
    };
    fs::write(folder.join(".mcp.json"), entry("first")).expect("written");
    let paths = folder.display().to_string();
    let _daemon = site.start(&[
        ("MCP_ORCHESTRATOR__DISCOVERY__ENABLED", "true"),
        ("MCP_ORCHESTRATOR__DISCOVERY__PATHS", &paths),
        ("MCP_ORCHESTRATOR__DISCOVERY__INTERVAL_SECONDS", "10"),
    ]);
    let found = |name: &str| site.get("/api/v1/discovery").text().contains(&format!("\"{name}\""));
    eventually("the first search is over", || found("first"));
    fs::write(folder.join("later/.mcp.json"), entry("second")).expect("written");
    eventually("the next one finds what is new", || found("second"));
    assert!(!Path::new(&trace).exists(), "something that was found was run");
    assert_eq!(site.text(), "{\"mcpServers\": {}}", "nothing is written");
}

// ---- doctor ----------------------------------------------------------------------------------------

#[test]
fn doctor_works_without_daemon_and_engine_and_says_what_helps() {
    let home = Home::new("{\"mcpServers\": {\"t\": {\"command\": \"no-such-program-here\"}}}\n");
    let (out, _, exit) = home.run(&["doctor"]);
    assert_eq!(exit, 1, "{out}");
    assert!(out.lines().all(|line| line.chars().count() <= WIDTH), "{out}");
    assert!(out.contains("no-such-program-here is not on the PATH"), "{out}");
    let (json, _, _) = home.run(&["doctor", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((value["verdict"].as_str(), value["schemaVersion"].as_u64()), (Some("fail"), Some(1)));
    let verdict = |topic: &str| {
        let checks = value["checks"].as_array().expect("a list");
        let found = checks.iter().find(|check| check["topic"] == topic);
        found.map(|check| check["verdict"].as_str().expect("a word").to_owned())
    };
    assert_eq!(verdict("engine").as_deref(), Some("warn"), "nothing needs it: {json}");
    assert_eq!(verdict("runtimes").as_deref(), Some("fail"));
    assert_eq!(verdict("config").as_deref(), Some("ok"));
    assert_eq!(verdict("daemon").as_deref(), Some("warn"));
}

#[test]
fn doctor_is_content_with_a_good_home() {
    let home = Home::new("{\"mcpServers\": {\"t\": {\"command\": \"sh\"}}}\n");
    let (out, said, exit) = home.run(&["doctor"]);
    assert_eq!(exit, 0, "{out}{said}");
    assert!(said.contains(" 0 fail"), "{said}");
}

#[test]
fn doctor_names_broken_files_and_missing_engines() {
    let home = Home::new(
        "{\"mcpServers\": {\"c\": {\"command\": \"docker\", \"args\": [\"run\", \"-i\", \"x:1\"]}, \"d\": {}}}\n",
    );
    fs::set_permissions(home.config(), fs::Permissions::from_mode(0o666)).expect("a mode");
    let (out, _, exit) = home.run(&["doctor"]);
    assert_eq!(exit, 1);
    for part in [
        "1 of the servers are containers",
        "everybody may write it",
        "chmod o-w",
        "MCPO-C023",
        "systemctl start docker",
    ] {
        assert!(
            out.replace('\n', " ").split_whitespace().collect::<Vec<_>>().join(" ").contains(part),
            "{part}: {out}"
        );
    }
    fs::write(home.path().join("settings.conf"), "[servce]\na = b\n").expect("written");
    let (out, _, exit) = home.run(&["doctor"]);
    assert!(exit == 1 && out.contains("servce"), "{out}");
}
