//! The checks of `fuzz/` over its seeds, the fixtures and pieces of both: the targets are compiled
//! and hold with every test run, whether or not somebody fuzzes.

use std::fs;
use std::path::{Path, PathBuf};

#[path = "../../fuzz/checks/mod.rs"]
mod checks;

/// Pieces that each seed is cut into, besides the whole: from the front and from the back.
const CUTS: usize = 4;

fn files_of(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<PathBuf> =
        fs::read_dir(&folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.is_file() && file.extension().is_none_or(|extension| extension != "snap"));
    files.sort();
    files
}

fn replay(target: &str, fixtures: &str) {
    let (_, check) = checks::TARGETS.iter().find(|(name, _)| *name == target).expect("a target");
    let seeds = files_of(&format!("fuzz/seeds/{target}"));
    assert!(!seeds.is_empty(), "no seeds for {target}");
    let mut count = 0;
    for file in seeds.into_iter().chain(files_of(fixtures)) {
        let bytes = fs::read(&file).unwrap();
        println!("{}", file.display());
        check(&bytes);
        for cut in (1..CUTS).map(|part| bytes.len() * part / CUTS) {
            check(&bytes[..cut]);
            check(&bytes[cut..]);
        }
        count += 1;
    }
    assert!(count > 3, "{count} files");
}

#[test]
fn config_holds_for_its_seeds() {
    replay("config", "tests/fixtures/config");
}

#[test]
fn settings_hold_for_their_seeds() {
    replay("settings", "tests/fixtures/config");
}

#[test]
fn docker_run_holds_for_its_seeds() {
    replay("docker_run", "tests/fixtures/docker-run");
}

#[test]
fn lines_hold_for_their_seeds() {
    replay("lines", "tests/fixtures/config");
}

#[test]
fn event_streams_hold_for_their_seeds() {
    replay("sse", "tests/fixtures/config");
}

/// `Cargo.toml`, `fuzz_targets/` and the table of checks name the same targets.
#[test]
fn every_target_is_named_everywhere() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/Cargo.toml")).unwrap();
    for (target, _) in checks::TARGETS {
        let file = format!("fuzz_targets/{target}.rs");
        assert!(manifest.contains(&format!("\npath = \"{file}\"\n")), "{target}");
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(&file).is_file(), "{file}");
    }
    let built = manifest.matches("\npath = \"fuzz_targets/").count();
    assert_eq!(built, checks::TARGETS.len(), "a target without a check in the table");
}
