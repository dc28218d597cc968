//! What `cargo deb` and `cargo generate-rpm` would put into packages is what packaging/build.sh puts into
//! its own.

use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where Cargo.toml says that generated files are; here they are elsewhere.
const MADE: &str = "target/package/made/";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn metadata() -> Value {
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--offline", "--no-deps", "--format-version", "1"]).current_dir(root());
    let output = command.output().expect("cargo");
    let all: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    all["packages"][0]["metadata"].clone()
}

/// Generates into `made` and returns `mode`, `source` and `target` of every file, as build.sh has them.
fn laid_out(kind: &str, made: &Path) -> BTreeSet<(String, String)> {
    let script = r#"
        set -euo pipefail
        HERE=$1
        . "$HERE/packaging/install/layout.sh"
        generate "$2" /usr "$3"
        gzip -9nf "$3"/man/*.1
        : >"$3/changelog.gz"
        PACKAGE_KIND=$4 layout "$2" /usr "$3"
    "#;
    let mut command = Command::new("bash");
    command.args(["-c", script, "bash"]).arg(root()).arg(env!("CARGO_BIN_EXE_mcp-orchestrator"));
    let output = command.arg(made).arg(kind).output().expect("bash");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let file = |line: &str| {
        let words: Vec<&str> = line.split('\t').collect();
        (words[2].to_owned(), words[0].trim_start_matches('0').to_owned())
    };
    text.lines().map(file).collect()
}

/// Names of the files that `source` stands for; a `*` stands for a part of a name.
fn matching(source: &str, made: &Path) -> Vec<String> {
    let path = source.strip_prefix(MADE).map_or_else(|| root().join(source), |rest| made.join(rest));
    if source.starts_with("target/release/") {
        return vec![path.file_name().expect("a name").to_string_lossy().into_owned()];
    }
    let pattern = path.file_name().expect("a name").to_string_lossy().into_owned();
    let (before, after) = pattern.split_once('*').unwrap_or((&pattern, ""));
    let fits = |name: &str| {
        if pattern.contains('*') {
            name.starts_with(before) && name.ends_with(after)
        } else {
            name == pattern
        }
    };
    let all = std::fs::read_dir(path.parent().expect("a directory")).expect(source).flatten();
    let files = all.filter(|entry| entry.path().is_file());
    let names = files.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| fits(name)).collect()
}

/// Targets and modes of a list of assets.
fn assets(list: &Value, made: &Path) -> BTreeSet<(String, String)> {
    let mut out = BTreeSet::new();
    for asset in list.as_array().expect("a list") {
        let word = |at: usize, name: &str| {
            let value = if asset.is_array() { &asset[at] } else { &asset[name] };
            value.as_str().expect("text").to_owned()
        };
        let (source, target, mode) = (word(0, "source"), word(1, "dest"), word(2, "mode"));
        let names = matching(&source, made);
        assert!(!names.is_empty(), "nothing is {source}");
        for name in names {
            let name = if target.ends_with('/') { name } else { String::new() };
            let path = format!("/{}{name}", target.trim_start_matches('/'));
            assert!(out.insert((path.clone(), mode.clone())), "{path} twice");
        }
    }
    out
}

/// Besides the layout, both have these.
fn with(mut files: BTreeSet<(String, String)>, more: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    files.extend(more.iter().map(|(path, mode)| ((*path).to_owned(), (*mode).to_owned())));
    files
}

#[track_caller]
fn same(of: &str, theirs: &BTreeSet<(String, String)>, ours: &BTreeSet<(String, String)>) {
    let more: Vec<_> = theirs.difference(ours).collect();
    let less: Vec<_> = ours.difference(theirs).collect();
    assert!(more.is_empty() && less.is_empty(), "{of}: too many {more:?}, missing {less:?}");
}

#[test]
fn other_packers_are_given_the_same_files() {
    let metadata = metadata();
    let made = tempfile::tempdir().expect("a directory");
    let doc = "/usr/share/doc/mcp-orchestrator";
    let deb = with(
        laid_out("deb", made.path()),
        &[
            ("/etc/mcp-orchestrator/settings.conf", "644"),
            (&format!("{doc}/changelog.gz"), "644"),
            ("/usr/share/doc-base/mcp-orchestrator.mcp-orchestrator", "644"),
            ("/usr/share/lintian/overrides/mcp-orchestrator", "644"),
        ],
    );
    same("deb", &assets(&metadata["deb"]["assets"], made.path()), &deb);
    let rpm = with(
        laid_out("rpm", made.path()),
        &[
            ("/etc/mcp-orchestrator/settings.conf", "640"),
            (&format!("{doc}/CHANGELOG.md"), "644"),
            (&format!("{doc}/LICENSE-APACHE"), "644"),
            (&format!("{doc}/LICENSE-MIT"), "644"),
        ],
    );
    same("rpm", &assets(&metadata["generate-rpm"]["assets"], made.path()), &rpm);
}

#[test]
fn other_packers_are_given_the_same_scripts() {
    let metadata = metadata();
    let text = |path: &str| std::fs::read_to_string(root().join(path)).expect(path);
    let spec = text("packaging/rpm/mcp-orchestrator.spec");
    for (key, name) in [
        ("pre_install_script", "pre"),
        ("post_install_script", "post"),
        ("pre_uninstall_script", "preun"),
        ("post_uninstall_script", "postun"),
    ] {
        assert_eq!(metadata["generate-rpm"][key], format!("packaging/rpm/{name}"));
        assert!(spec.contains(&format!("%{name} -f %{{scripts}}/{name}\n")), "{name}");
        assert!(
            !text(&format!("packaging/rpm/{name}")).contains('%'),
            "no macros: they are not always expanded"
        );
    }
    // What `cargo deb` takes out of the directory, and what build.sh does.
    assert_eq!(metadata["deb"]["maintainer-scripts"], "packaging/debian");
    assert_eq!(metadata["deb"]["triggers-file"], "packaging/debian/triggers");
    let build = text("packaging/debian/package.sh");
    assert!(build.contains("for script in preinst postinst prerm postrm;"));
    for name in
        ["preinst", "postinst", "prerm", "postrm", "triggers", "description", "changelog", "copyright"]
    {
        assert!(root().join("packaging/debian").join(name).is_file(), "{name}");
    }
    let depends = metadata["deb"]["depends"].as_str().expect("text");
    assert!(build.contains(depends.trim_start_matches("$auto, ")), "{depends}");
    assert!(build.contains(metadata["deb"]["recommends"].as_str().expect("text")));
}
