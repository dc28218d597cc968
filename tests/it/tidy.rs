//! The shape of the code: who may import whom, which names stay out of which floor, sizes, docs,
//! no forgotten file. ARCHITECTURE.md tells the reasons.
//!
//! It is a scan of text without comments and literals, so that it also sees what the compiler
//! does not reach. Invariant: every rule here is seen to fail on a planted file, in
//! [`every_rule_bites`]. Not held here: arguments and names (clippy).

mod text;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use text::{blank, functions, named, words};

/// Lines a file may have.
const FILE_LINES_MAX: usize = 600;
/// Lines a function may have, from its `fn` to its closing brace.
const FN_LINES_MAX: usize = 70;

/// What one module of `src/` may do.
struct Rule {
    module: &'static str,
    /// Modules of this crate it may name; `a::b` allows only that part of `a`.
    imports: &'static [&'static str],
    /// Names that must not stand in its code.
    without: &'static [&'static [&'static str]],
}

const ENGINE: &[&str] = &["bollard"];
const AWS: &[&str] = &["aws_config", "aws_sdk_*", "aws_smithy_*", "aws_sigv4", "aws_credential_types"];
const DATABASE: &[&str] = &["rusqlite"];
const WEB: &[&str] = &["warp"];
const TERMINAL: &[&str] = &["clap", "clap_complete", "clap_mangen"];
/// Files, environment and clock of this machine.
const HOST: &[&str] = &["std::env", "std::fs", "std::process", "SystemTime", "Instant", "rustix", "notify"];
/// The same where waits are counted on the runtime's clock, which a test can stop.
const HOST_BUT_WAITS: &[&str] =
    &["std::env", "std::fs", "std::process", "SystemTime", "std::time::Instant", "rustix", "notify::"];
/// What would make floor 0 anything but a function of its arguments.
const IMPURE: &[&str] = &[
    "tokio",
    "futures_util",
    "hyper",
    "hyper_util",
    "hyper_rustls",
    "rustls",
    "tokio_tungstenite",
    "tower_service",
    "tracing",
    "sd_notify",
    "async fn",
    "async move",
    "async {",
    ".await",
    "std::thread",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "HashMap",
    "HashSet",
    "rand",
];

const PURE: &[&[&str]] = &[IMPURE, HOST, ENGINE, AWS, DATABASE, WEB, TERMINAL];
const SERVICE: &[&[&str]] = &[HOST, ENGINE, AWS, DATABASE, WEB, TERMINAL];
const WAITING: &[&[&str]] = &[HOST_BUT_WAITS, ENGINE, AWS, DATABASE, WEB, TERMINAL];

/// The table of ARCHITECTURE.md, floor by floor.
const RULES: &[Rule] = &[
    // Floor 0: facts and decisions.
    Rule { module: "model", imports: &[], without: PURE },
    Rule { module: "config", imports: &["model"], without: PURE },
    Rule { module: "plan", imports: &["model"], without: PURE },
    Rule { module: "mcp", imports: &["model"], without: PURE },
    // Tools of the protocol, as HTTP has them.
    Rule { module: "openapi", imports: &["model", "mcp"], without: PURE },
    // What requests are held to.
    Rule { module: "traffic", imports: &["model", "mcp"], without: PURE },
    Rule { module: "discovery", imports: &["model", "config"], without: PURE },
    Rule { module: "doctor", imports: &["model"], without: PURE },
    // Floor 1: what is asked of the world.
    Rule { module: "world", imports: &["model"], without: &[HOST, ENGINE, AWS, DATABASE, WEB, TERMINAL] },
    // Floor 2: adapters, one foreign API each.
    // `docker attach` hands out the byte streams that `upstream` reads frames from.
    Rule {
        module: "docker",
        imports: &["model", "world", "upstream::chunks", "upstream::leg"],
        without: &[AWS, DATABASE, WEB, TERMINAL],
    },
    Rule { module: "alb", imports: &["model", "world"], without: &[ENGINE, DATABASE, WEB, TERMINAL] },
    Rule { module: "store", imports: &["model", "world"], without: &[ENGINE, AWS, WEB, TERMINAL] },
    Rule {
        module: "upstream",
        imports: &["model", "mcp", "world"],
        without: &[ENGINE, AWS, DATABASE, WEB, TERMINAL],
    },
    // A process's pipes become the streams that `upstream` reads frames from.
    Rule {
        module: "runner",
        imports: &["world", "upstream::leg"],
        without: &[ENGINE, AWS, DATABASE, WEB, TERMINAL],
    },
    Rule { module: "host", imports: &["model", "world"], without: &[ENGINE, AWS, DATABASE, WEB, TERMINAL] },
    // Floor 3: the moving parts.
    Rule { module: "observe", imports: &["model", "world"], without: SERVICE },
    Rule { module: "execute", imports: &["model", "plan", "world"], without: SERVICE },
    Rule {
        module: "reconcile",
        imports: &["model", "plan", "world", "observe", "execute"],
        without: SERVICE,
    },
    Rule {
        module: "service",
        imports: &["model", "plan", "world", "execute", "reconcile"],
        without: SERVICE,
    },
    // The loop in the fake world. It takes no clock of its own.
    Rule {
        module: "simulate",
        imports: &["model", "plan", "world", "execute", "reconcile", "service"],
        without: SERVICE,
    },
    // Drives legs over real bytes: `upstream` is its way to them, and the only adapter it names.
    Rule {
        module: "gateway",
        imports: &["model", "mcp", "openapi", "traffic", "world", "upstream"],
        without: WAITING,
    },
    // What is used, for people who look; nothing waits for it.
    Rule { module: "usage", imports: &["model", "plan", "world", "service", "gateway"], without: WAITING },
    // Floor 4: surfaces.
    Rule {
        module: "api",
        imports: &["model", "config", "plan", "mcp", "world", "service", "gateway", "usage"],
        without: &[ENGINE, AWS, DATABASE, TERMINAL],
    },
    // The API over the network, and pages made from its views.
    Rule {
        module: "panel",
        imports: &["model", "plan", "mcp", "service", "gateway", "usage", "api"],
        without: &[HOST_BUT_WAITS, ENGINE, AWS, DATABASE, TERMINAL],
    },
    // What a process tells the person who started it.
    Rule { module: "terminal", imports: &["world"], without: &[ENGINE, AWS, DATABASE, WEB] },
    Rule {
        module: "cli",
        // `host::lock` finds the daemon of a stack.
        imports: &[
            "model",
            "config",
            "plan",
            "mcp",
            "discovery",
            "doctor",
            "world",
            "execute",
            "simulate",
            "daemon",
            "terminal",
            "host::lock",
        ],
        without: &[ENGINE, AWS, DATABASE, WEB],
    },
    // The composition root puts adapters and services together; their crates stay theirs.
    Rule {
        module: "daemon",
        imports: &[
            "model",
            "config",
            "plan",
            "mcp",
            "discovery",
            "doctor",
            "world",
            "docker",
            "alb",
            "store",
            "upstream",
            "runner",
            "host",
            "observe",
            "execute",
            "reconcile",
            "service",
            "gateway",
            "usage",
            "api",
            "panel",
            "terminal",
        ],
        without: &[ENGINE, AWS, DATABASE],
    },
    Rule { module: "main", imports: &[], without: &[ENGINE, AWS, DATABASE, WEB, TERMINAL, IMPURE] },
    Rule { module: "lib", imports: &[], without: &[ENGINE, AWS, DATABASE, WEB, IMPURE, HOST] },
];

/// Single files that may name what their module may not.
const EXCEPTIONS: &[(&str, &str)] = &[
    // The demo server is a whole small MCP server of its own; over HTTP it is one of warp's.
    ("cli/demo_server/http.rs", "warp"),
];

/// A source file: its path from the root it was found under, its text, and its text with comments
/// and literals blanked.
struct Source {
    path: String,
    text: String,
    code: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), code: blank(text) }
    }

    /// `plan` for `plan/mod.rs`, `plan/x/y.rs` and `plan.rs`.
    fn module(&self) -> &str {
        self.path.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }

    fn at(&self, offset: usize) -> String {
        format!("{}:{}", self.path, self.code[..offset].matches('\n').count() + 1)
    }
}

// ---- the tests ---------------------------------------------------------------------------------

#[test]
fn imports_point_down() {
    none(sources("src").iter().flat_map(imports).collect());
}

#[test]
fn names_stay_out_of_their_floors() {
    none(sources("src").iter().flat_map(names).collect());
}

#[test]
fn paths_are_plain() {
    none(sources("src").iter().flat_map(plain_paths).collect());
}

#[test]
fn files_and_functions_are_small() {
    none(sources("src").iter().chain(&sources("tests")).flat_map(sizes).collect());
}

#[test]
fn every_file_says_what_it_is() {
    none(sources("src").iter().chain(&sources("tests")).flat_map(module_docs).collect());
}

#[test]
fn every_source_file_is_compiled() {
    none(forgotten(&sources("src"), &["lib.rs", "main.rs"]));
}

#[test]
fn no_test_file_is_forgotten() {
    for folder in ["tests/it", "tests/live"] {
        none(forgotten(&sources(folder), &["main.rs"]));
    }
}

#[test]
fn every_module_has_a_rule() {
    let found: BTreeSet<String> = sources("src").iter().map(|source| source.module().to_owned()).collect();
    let ruled: BTreeSet<String> = RULES.iter().map(|rule| rule.module.to_owned()).collect();
    assert_eq!(found, ruled, "src/ and the table of tests/it/tidy.rs name different modules");
}

/// The gateway may wait, but not on the machine's own clock.
const WAITING_FAULTS: &[(&str, &str, Check, &str)] = &[
    (
        "gateway/a.rs",
        "use std::time::{Duration, Instant};",
        names,
        "gateway/a.rs:1: gateway must not name std::time::Instant",
    ),
    (
        "gateway/a.rs",
        "notify::recommended_watcher()",
        names,
        "gateway/a.rs:1: gateway must not name notify::",
    ),
];

/// Every kind of fault, planted once, is found at its line; the same words in comments and
/// literals are not.
#[test]
fn every_rule_bites() {
    let long_fn = format!("//! x\nfn f() {{\n{}}}\n", "    g();\n".repeat(FN_LINES_MAX));
    let long_file = format!("//! x\n{}", "// y\n".repeat(FILE_LINES_MAX));
    let faults: &[(&str, &str, Check, &str)] = &[
        (
            "plan/a.rs",
            "//! x\nuse crate::docker::Engine;\n",
            imports,
            "plan/a.rs:2: plan must not import docker::Engine",
        ),
        (
            "plan/a.rs",
            "use crate::{model::id, config::\n {error, load}};",
            imports,
            "plan/a.rs:1: plan must not import config::error",
        ),
        (
            "cli/a.rs",
            "fn f() { crate::host::paths::find() }",
            imports,
            "cli/a.rs:1: cli must not import host::paths",
        ),
        ("observe.rs", "use super::alb::find;", imports, "observe.rs:1: observe must not import alb"),
        ("main.rs", "use mcp_orchestrator::daemon;", imports, "main.rs:1: main must not import daemon"),
        ("model/a.rs", "\nuse tokio::time;", names, "model/a.rs:2: model must not name tokio"),
        ("config/a.rs", "use std::{env, io};", names, "config/a.rs:1: config must not name std::env"),
        (
            "plan/a.rs",
            "let t = std::time::SystemTime::now();",
            names,
            "plan/a.rs:1: plan must not name SystemTime",
        ),
        ("plan/a.rs", "async  fn f() {}", names, "plan/a.rs:1: plan must not name async fn"),
        ("mcp/a.rs", "use std::collections::HashMap;", names, "mcp/a.rs:1: mcp must not name HashMap"),
        ("service.rs", "use aws_config::load;", names, "service.rs:1: service must not name aws_config"),
        ("cli/a.rs", "use rusqlite::Connection;", names, "cli/a.rs:1: cli must not name rusqlite"),
        ("a/b.rs", "use super::super::c;", plain_paths, "a/b.rs:1: name the path from crate::"),
        ("a/b.rs", "pub use crate::model::id;", plain_paths, "a/b.rs:1: re-exports hide an import"),
        ("a/b.rs", "pub(crate) use crate::model::id;", plain_paths, "a/b.rs:1: re-exports hide an import"),
        ("a/b.rs", &long_fn, sizes, "a/b.rs:2: f has 72 lines, 70 allowed"),
        ("a/b.rs", &long_file, sizes, "a/b.rs: 601 lines, 600 allowed"),
        ("a/b.rs", "// x\nuse y;", module_docs, "a/b.rs:1: say in `//!` what the file is"),
    ];
    for (path, text, check, expected) in faults.iter().chain(WAITING_FAULTS) {
        let found = check(&Source::new(path, text));
        assert!(found.iter().any(|line| line.starts_with(expected)), "{expected}\nfound: {found:?}");
    }
    let left = [
        Source::new("lib.rs", "mod a;"),
        Source::new("a.rs", "mod c;"),
        Source::new("b.rs", ""),
        Source::new("a/c.rs", ""),
    ];
    assert_eq!(forgotten(&left, &["lib.rs"]), ["b.rs: no `mod` names this file"]);
    let clean = "//! crate::docker tokio\nuse crate::model::id; // crate::alb\nconst A: &str = \"crate::alb // tokio\";\n/* super::super */\nconst B: char = '\"'; const C: &str = r#\"async fn \"x\" \"#;\nfn f<'a>(x: &'a str) {}\n";
    let source = Source::new("plan/a.rs", clean);
    let found: Vec<String> = [imports as Check, names, plain_paths, sizes, module_docs]
        .into_iter()
        .flat_map(|check| check(&source))
        .collect();
    assert!(found.is_empty(), "{found:?}");
}

// ---- the checks --------------------------------------------------------------------------------

type Check = fn(&Source) -> Vec<String>;

fn imports(source: &Source) -> Vec<String> {
    let module = source.module();
    let Some(rule) = RULES.iter().find(|rule| rule.module == module) else { return Vec::new() };
    let allowed = |path: &str| {
        let inside = |other: &&&str| path == **other || path.starts_with(&format!("{other}::"));
        path.split("::").next() == Some(module) || rule.imports.iter().any(|entry| inside(&entry))
    };
    let mut found = Vec::new();
    for (offset, path) in named(&source.code, "crate::") {
        // In main.rs the library is another crate.
        if !allowed(&path) {
            found.push(format!("{}: {module} must not import {path}", source.at(offset)));
        }
    }
    for (offset, path) in named(&source.code, "mcp_orchestrator::") {
        if !(module == "main" && path.starts_with("cli")) {
            found.push(format!("{}: {module} must not import {path}", source.at(offset)));
        }
    }
    let top = source.path == format!("{module}.rs") || source.path == format!("{module}/mod.rs");
    for (offset, path) in if top { named(&source.code, "super::") } else { Vec::new() } {
        let first = path.split("::").next().unwrap_or_default();
        if path.contains("::")
            && first != module
            && RULES.iter().any(|rule| rule.module == first)
            && !allowed(&path)
        {
            found.push(format!("{}: {module} must not import {first}", source.at(offset)));
        }
    }
    found
}

fn names(source: &Source) -> Vec<String> {
    let module = source.module();
    let Some(rule) = RULES.iter().find(|rule| rule.module == module) else { return Vec::new() };
    let mut found = Vec::new();
    let excepted = |name: &str| EXCEPTIONS.contains(&(source.path.as_str(), name));
    for name in rule.without.iter().copied().flatten().filter(|name| !excepted(name)) {
        let mut places: Vec<usize> = match name.strip_suffix('*') {
            Some(prefix) => words(&source.code, prefix, false),
            None => words(&source.code, name, true),
        };
        if let Some(inner) = name.strip_prefix("std::") {
            let grouped = named(&source.code, "std::")
                .into_iter()
                .filter(|(_, path)| path == inner || path.starts_with(&format!("{inner}::")));
            places.extend(grouped.map(|(offset, _)| offset));
        }
        places.sort_unstable();
        places.dedup();
        found.extend(
            places.into_iter().map(|offset| format!("{}: {module} must not name {name}", source.at(offset))),
        );
    }
    found
}

fn plain_paths(source: &Source) -> Vec<String> {
    let climbing = words(&source.code, "super::super", true);
    let mut found: Vec<String> = climbing
        .into_iter()
        .map(|offset| format!("{}: name the path from crate::", source.at(offset)))
        .collect();
    for offset in words(&source.code, "use crate::", false) {
        let line = source.code[..offset].rsplit(['\n', ';', '}']).next().unwrap_or_default().trim();
        if line.starts_with("pub") && source.path != "lib.rs" {
            found.push(format!("{}: re-exports hide an import", source.at(offset)));
        }
    }
    found
}

fn sizes(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    let mut found = Vec::new();
    if lines > FILE_LINES_MAX {
        found.push(format!("{}: {lines} lines, {FILE_LINES_MAX} allowed", source.path));
    }
    for (offset, name, lines) in functions(&source.code) {
        if lines > FN_LINES_MAX {
            found.push(format!("{}: {name} has {lines} lines, {FN_LINES_MAX} allowed", source.at(offset)));
        }
    }
    found
}

fn module_docs(source: &Source) -> Vec<String> {
    let first = source.text.lines().next().unwrap_or_default();
    if first.starts_with("//! ") {
        Vec::new()
    } else {
        vec![format!("{}:1: say in `//!` what the file is", source.path)]
    }
}

/// Files that no chain of `mod x;` leads to from the roots.
fn forgotten(all: &[Source], roots: &[&str]) -> Vec<String> {
    let mut reached: BTreeSet<String> = BTreeSet::new();
    let mut open: Vec<String> = roots.iter().map(|root| (*root).to_owned()).collect();
    while let Some(path) = open.pop() {
        let Some(source) = all.iter().find(|source| source.path == path) else { continue };
        if !reached.insert(path.clone()) {
            continue;
        }
        let (folder, stem) = path.rsplit_once('/').unwrap_or(("", &path));
        let own = matches!(stem, "mod.rs" | "lib.rs" | "main.rs");
        let base = if own { folder.to_owned() } else { join(folder, stem.trim_end_matches(".rs")) };
        for offset in words(&source.code, "mod ", false) {
            let rest = &source.code[offset + "mod ".len()..];
            let name: String =
                rest.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if rest.trim_start()[name.len()..].trim_start().starts_with(';') {
                open.push(join(&base, &format!("{name}.rs")));
                open.push(join(&base, &format!("{name}/mod.rs")));
            }
        }
    }
    let left = all.iter().filter(|source| !reached.contains(&source.path));
    left.map(|source| format!("{}: no `mod` names this file", source.path)).collect()
}

// ---- files ---------------------------------------------------------------------------------------

fn none(found: Vec<String>) {
    assert!(found.is_empty(), "{} found:\n{}", found.len(), found.join("\n"));
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// All `.rs` files under a folder of the package, sorted.
fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files = Vec::new();
    walk(&root, &mut files);
    files.sort();
    assert!(!files.is_empty(), "{}: no source file", root.display());
    let read = |path: PathBuf| {
        Source::new(&path.strip_prefix(&root).unwrap().to_string_lossy(), &fs::read_to_string(&path).unwrap())
    };
    files.into_iter().map(read).collect()
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}
