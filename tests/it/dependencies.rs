//! What is linked in: from one registry alone, under licences that deny.toml allows, and without what it
//! bans. `cargo deny` asks more and is not everywhere; this holds wherever the tests run.

use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Quoted words of a list of deny.toml, without what comments say.
fn listed(key: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml");
    let from = text.find(&format!("\n{key} = [")).unwrap_or_else(|| panic!("no {key}"));
    let list = &text[from..][..text[from..].find("\n]").expect("its end")];
    let lines = list.lines().skip(2).map(|line| line.split('#').next().unwrap_or_default());
    lines.filter_map(|line| line.split('"').nth(1)).map(str::to_owned).collect()
}

/// Whether an SPDX expression can be met with these licences alone.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let expression = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = expression.split_whitespace().collect();
    let (met, rest) = any_of(&words, allowed);
    met && rest.is_empty()
}

fn any_of<'a, 'w>(words: &'w [&'a str], allowed: &BTreeSet<String>) -> (bool, &'w [&'a str]) {
    let (mut met, mut rest) = all_of(words, allowed);
    while let Some((&"OR", more)) = rest.split_first() {
        let (other, after) = all_of(more, allowed);
        (met, rest) = (met | other, after);
    }
    (met, rest)
}

fn all_of<'a, 'w>(words: &'w [&'a str], allowed: &BTreeSet<String>) -> (bool, &'w [&'a str]) {
    let (mut met, mut rest) = one(words, allowed);
    while let Some((&"AND", more)) = rest.split_first() {
        let (other, after) = one(more, allowed);
        (met, rest) = (met & other, after);
    }
    (met, rest)
}

fn one<'a, 'w>(words: &'w [&'a str], allowed: &BTreeSet<String>) -> (bool, &'w [&'a str]) {
    match words {
        ["(", rest @ ..] => {
            let (met, rest) = any_of(rest, allowed);
            rest.split_first()
                .filter(|(word, _)| **word == ")")
                .map_or((false, rest), |(_, rest)| (met, rest))
        }
        [name, "WITH", exception, rest @ ..] => (allowed.contains(&format!("{name} WITH {exception}")), rest),
        [name, rest @ ..] => (allowed.contains(*name), rest),
        [] => (false, words),
    }
}

#[test]
fn expressions_are_read_as_spdx_has_them() {
    let allowed: BTreeSet<String> = ["MIT", "Apache-2.0", "ISC"].map(str::to_owned).into();
    for yes in
        ["MIT", "MIT/Apache-2.0", "GPL-3.0 OR MIT", "(MIT OR GPL-2.0) AND ISC", "GPL-3.0 OR MIT AND ISC"]
    {
        assert!(is_allowed(yes, &allowed), "{yes}");
    }
    for no in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "(MIT OR ISC) AND GPL-2.0",
        "(MIT",
        "MIT ISC",
        "Apache-2.0 WITH LLVM-exception",
    ] {
        assert!(!is_allowed(no, &allowed), "{no}");
    }
}

/// `cargo metadata` of this system.
fn metadata() -> Vec<u8> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--offline", "--locked", "--format-version", "1"]);
    // What is only for other systems need not even be here.
    command.args(["--filter-platform", "x86_64-unknown-linux-gnu"]).current_dir(root());
    let output = command.output().expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn what_is_linked_in_may_be() {
    let all: Value = serde_json::from_slice(&metadata()).expect("JSON");
    let allowed = listed("allow");
    let banned: BTreeSet<String> = listed("deny");
    assert!(allowed.contains("MIT") && banned.contains("openssl-sys"), "{allowed:?} {banned:?}");
    let nodes = all["resolve"]["nodes"].as_array().expect("nodes");
    let used: BTreeSet<&str> = nodes.iter().filter_map(|node| node["id"].as_str()).collect();
    let packages = all["packages"].as_array().expect("packages");
    let used: Vec<&Value> = packages
        .iter()
        .filter(|package| package["id"].as_str().is_some_and(|id| used.contains(id)))
        .collect();
    assert!(used.len() > 100, "{}", used.len());
    for package in used {
        let name = package["name"].as_str().expect("a name");
        if name == "mcp-orchestrator" {
            continue;
        }
        assert_eq!(package["source"], REGISTRY, "{name} comes from elsewhere");
        let licence = package["license"].as_str().unwrap_or_default();
        assert!(is_allowed(licence, &allowed), "{name} is under '{licence}'");
        assert!(!banned.contains(name), "{name} is banned");
    }
}

/// The bill of materials that packaging/build.sh writes.
fn bill(metadata: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut command = Command::new("python3");
    command.arg(root().join("packaging/sbom.py")).arg("1.2.3").env("SOURCE_DATE_EPOCH", "1700000000");
    let mut child = command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("python3");
    child.stdin.take().expect("its input").write_all(metadata).expect("a pipe");
    let output = child.wait_with_output().expect("a bill");
    assert!(output.status.success());
    output.stdout
}

#[test]
fn the_bill_of_materials_is_whole_and_the_same_each_time() {
    let metadata = metadata();
    let text = bill(&metadata);
    assert_eq!(text, bill(&metadata));
    let bill: Value = serde_json::from_slice(&text).expect("JSON");
    assert_eq!(
        (&bill["bomFormat"], &bill["metadata"]["component"]["version"]),
        (&"CycloneDX".into(), &"1.2.3".into())
    );
    let parts = bill["components"].as_array().expect("components");
    let names: BTreeSet<&str> = parts.iter().filter_map(|part| part["name"].as_str()).collect();
    assert!(["tokio", "rustls", "rusqlite"].iter().all(|name| names.contains(name)), "{names:?}");
    assert!(!names.contains("proptest"), "what only tests need is not linked in");
    for part in parts {
        let told = part["purl"].as_str().is_some_and(|purl| purl.starts_with("pkg:cargo/"));
        assert!(
            told && part["version"].is_string() && part["licenses"][0]["expression"].is_string(),
            "{part}"
        );
    }
}
