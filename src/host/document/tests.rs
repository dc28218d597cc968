//! What is on disk after a write, and after a write that was cut off.

use super::{backups, read, replace, writable};
use crate::model::time::Timestamp;
use crate::world::ErrorKind;
use std::io::{BufRead as _, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

/// Longest file read here.
const MAX: u64 = 1 << 20;

fn text(path: &Path) -> String {
    String::from_utf8(read(path, MAX).expect("readable").expect("there")).expect("text")
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("a directory");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn what_was_there_is_kept_a_number_of_times() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("mcp.config.json");
    assert_eq!(read(&path, MAX).expect("readable"), None);
    replace(&path, (None, b"0"), 3, Timestamp(0)).expect("written");
    for n in 1..=6_u8 {
        let (before, after) = (format!("{}", n - 1), format!("{n}"));
        let at = Timestamp(i64::from(n / 2));
        replace(&path, (Some(before.as_bytes()), after.as_bytes()), 3, at).expect("written");
    }
    let kept: Vec<String> = backups(&path).expect("a directory").iter().map(|path| text(path)).collect();
    assert_eq!((text(&path).as_str(), kept), ("6", ["3", "4", "5"].map(str::to_owned).to_vec()));
    assert_eq!(names(dir.path()).len(), 4, "nothing else is left: {:?}", names(dir.path()));
    replace(&path, (Some(b"6"), b"7"), 0, Timestamp(9)).expect("written");
    assert_eq!(names(dir.path()), ["mcp.config.json"]);
}

#[test]
fn mode_links_and_their_targets_stay() {
    let dir = tempfile::tempdir().expect("a directory");
    let (real, path) = (dir.path().join("real.json"), dir.path().join("mcp.config.json"));
    std::fs::write(&real, "old").expect("a file");
    std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o604)).expect("a mode");
    symlink("real.json", &path).expect("a link");
    let before = std::fs::metadata(&real).expect("a file");
    replace(&path, (Some(b"old"), b"new"), 1, Timestamp(0)).expect("written");
    assert!(path.symlink_metadata().expect("a link").is_symlink());
    let after = std::fs::metadata(&real).expect("a file");
    assert_eq!((text(&real).as_str(), after.mode()), ("new", before.mode()));
    assert_eq!((after.uid(), after.gid()), (before.uid(), before.gid()));
    let kept = backups(&real).expect("a directory");
    assert_eq!(std::fs::metadata(kept.first().expect("a backup")).expect("it").mode(), before.mode());
    let long = read(&real, 2).expect_err("it is longer");
    assert_eq!(long.kind, ErrorKind::Invalid);
}

#[test]
fn what_was_made_read_only_is_not_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("mcp.config.json");
    std::fs::write(&path, "old").expect("a file");
    writable(&path).expect("it is");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o444)).expect("a mode");
    let error = replace(&path, (Some(b"old"), b"new"), 1, Timestamp(0)).expect_err("read-only");
    assert_eq!((error.kind, text(&path).as_str()), (ErrorKind::Denied, "old"));
    assert_eq!(names(dir.path()), ["mcp.config.json"]);
    assert_eq!(writable(dir.path()).expect_err("no file").kind, ErrorKind::Denied);
}

/// Two contents as long as this are never mixed up with a short write.
fn content(number: u32) -> Vec<u8> {
    format!("{number:08}\n").repeat(20_000).into_bytes()
}

/// Not a test of its own: the process that [`a_killed_writer_leaves_the_old_or_the_new`] kills.
#[test]
#[ignore = "started by another test"]
fn child_that_writes() {
    let Some(path) = std::env::var_os("DOCUMENT_TEST_PATH") else {
        return;
    };
    let path = Path::new(&path);
    let mut out = std::io::stdout();
    for number in 1.. {
        let before = content(number - 1);
        replace(path, (Some(&before), &content(number)), 2, Timestamp(i64::from(number))).expect("written");
        writeln!(out, "wrote {number}").and_then(|()| out.flush()).expect("reporting");
    }
}

#[test]
fn a_killed_writer_leaves_the_old_or_the_new() {
    let program = std::env::current_exe().expect("this program");
    let name = format!("{}::child_that_writes", module_path!().split_once("::").expect("path").1);
    for round in 0..12_u64 {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("mcp.config.json");
        std::fs::write(&path, content(0)).expect("a file");
        let mut child = std::process::Command::new(&program)
            .args(["--exact", &name, "--ignored", "--nocapture"])
            .env("DOCUMENT_TEST_PATH", &path)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("child");
        let mut lines = std::io::BufReader::new(child.stdout.take().expect("stdout"));
        let mut line = String::new();
        while !line.contains("wrote 2") {
            line.clear();
            assert_ne!(lines.read_line(&mut line).expect("line"), 0, "the child ended early");
        }
        std::thread::sleep(std::time::Duration::from_micros(round * 1111));
        child.kill().expect("kill");
        child.wait().expect("wait");
        let mut rest = String::new();
        lines.read_to_string(&mut rest).expect("rest");
        let reported: u32 =
            rest.lines().rev().find_map(|line| line.strip_prefix("wrote ")?.parse().ok()).unwrap_or(2);
        let found = std::fs::read(&path).expect("a file");
        let number: u32 = std::str::from_utf8(&found[..8]).expect("digits").parse().expect("a number");
        assert!(number >= reported, "reported {reported}, found {number}");
        assert!(found == content(number), "round {round}: half of a file");
        for kept in backups(&path).expect("a directory") {
            let kept = std::fs::read(kept).expect("a backup");
            let number: u32 = std::str::from_utf8(&kept[..8]).expect("digits").parse().expect("a number");
            assert!(kept == content(number), "round {round}: half of a backup");
        }
        // What was cut off is in nobody's way.
        replace(&path, (Some(&found), b"{}"), 1, Timestamp(0)).expect("written");
        assert_eq!(names(dir.path()).iter().filter(|name| name.ends_with(".new")).count(), 0);
    }
}
