//! What README.md, ARCHITECTURE.md and the decisions say, as far as code can check it: the plan
//! transcript, the commands, the tests that hold invariants, links to files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::cli::{WIDTH, shipped_plan};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The fenced block that holds `line`, without its fences.
fn block_with(text: &str, line: &str) -> String {
    let mut blocks = text.split("```").skip(1).step_by(2);
    let block = blocks.find(|block| block.lines().any(|found| found.trim() == line));
    let lines = block.unwrap_or_else(|| panic!("no block with '{line}'")).lines().skip(1);
    // A block in a list is indented as the list's text is.
    let lines: Vec<&str> = lines.map(|line| line.strip_prefix("   ").unwrap_or(line)).collect();
    lines.join("\n").trim_end_matches(' ').to_owned()
}

#[test]
fn the_plan_transcript_is_real() {
    let command = "$ mcp-orchestrator plan";
    let block = block_with(&read("README.md"), command);
    let shown = block.strip_prefix(&format!("{command}\n")).expect("the command stands first");
    assert_eq!(shown, shipped_plan(), "README.md (left) shows another plan than the program (right)");
    assert!(shown.lines().all(|line| line.chars().count() <= WIDTH));
}

#[test]
fn the_first_commands_are_there() {
    let text = read("README.md");
    let first = text.split("```").nth(1).expect("a block");
    assert_eq!(first.lines().nth(1), Some("./setup.sh demo"), "the first command");
    for script in ["./setup.sh", "./tests/run.sh"] {
        assert!(text.contains(script), "{script}");
        assert!(root().join(script).exists(), "{script}");
    }
    assert!(text.contains("<!-- benchmarks -->"), "the place of the figures");
}

/// `test: path::name` in ARCHITECTURE.md names a function that stands in that file.
#[test]
fn invariants_name_tests_that_exist() {
    let text = read("ARCHITECTURE.md");
    let mut named = 0;
    for word in text.split('`').skip(1).step_by(2) {
        let Some((file, test)) = word.split_once(".rs::") else { continue };
        let source = read(&format!("{file}.rs"));
        assert!(source.contains(&format!("fn {test}(")), "{word}: no such test");
        named += 1;
    }
    let invariants = text.lines().filter(|line| line.starts_with("| A")).count();
    assert!(invariants >= 10 && named >= invariants, "{invariants} invariants, {named} tests");
}

#[test]
fn modules_are_on_the_map() {
    let text = read("ARCHITECTURE.md");
    for entry in fs::read_dir(root().join("src")).expect("sources") {
        let name = entry.expect("an entry").file_name().to_string_lossy().trim_end_matches(".rs").to_owned();
        assert!(text.contains(&format!("`{name}`")), "ARCHITECTURE.md does not name {name}");
    }
}

#[test]
fn links_lead_somewhere() {
    let mut pages: Vec<PathBuf> = Vec::new();
    for folder in [root().to_owned(), root().join("docs/decisions"), root().join("docs/reference")] {
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        pages.extend(entries.map(|entry| entry.expect("an entry").path()));
    }
    let mut broken = BTreeSet::new();
    for page in pages.iter().filter(|page| page.extension().is_some_and(|ext| ext == "md")) {
        let text = fs::read_to_string(page).expect("a page");
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            let here = page.parent().expect("a folder");
            if !file.is_empty() && !file.contains("://") && !here.join(file).exists() {
                broken.insert(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}
