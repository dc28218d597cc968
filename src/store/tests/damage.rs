//! Files that are cut, torn, overwritten, older, newer or another program's, and a process killed
//! while it writes.

use crate::model::memory::Memory;
use crate::store::tests::{KEY, NOW, files, number_of, numbered, opened, place, save};
use crate::store::{Opened, hint, open, peek, schema};
use crate::world::{ErrorKind, Store as _};
use std::io::{BufRead as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A database of several pages, closed, as bytes.
fn sound() -> Vec<u8> {
    let (_dir, path) = place();
    let store = opened(&path).store;
    save(&store, &numbered(5));
    drop(store);
    std::fs::read(&path).expect("reading")
}

/// Opens `bytes` as a state file; whatever they are, it must open.
fn open_bytes(bytes: &[u8]) -> (TempDir, PathBuf, Opened) {
    let (dir, path) = place();
    std::fs::create_dir(path.parent().expect("parent")).expect("mkdir");
    std::fs::write(&path, bytes).expect("writing");
    let result = opened(&path);
    (dir, path, result)
}

#[test]
fn a_file_cut_anywhere_is_moved_aside_whole() {
    let whole = sound();
    let mut noticed = 0;
    for length in (0..whole.len()).step_by(512) {
        let (_dir, path, result) = open_bytes(&whole[..length]);
        let Some(said) = result.recovered else {
            // Only what no row lies on may be lost unnoticed.
            assert_eq!(result.memory, numbered(5), "cut at {length}");
            continue;
        };
        assert_eq!(result.memory, Memory::default());
        noticed += 1;
        let aside = path.with_file_name("state.db.corrupt-20261121T112552Z");
        assert_eq!(std::fs::read(&aside).expect("aside"), &whole[..length], "{said}");
        save(&result.store, &numbered(6));
    }
    assert!(noticed > whole.len() / 512 - 8, "{noticed} of {}", whole.len() / 512);
}

#[test]
fn garbage_and_flipped_bytes_never_stop_a_start() {
    let whole = sound();
    for seed in 0..80_usize {
        let mut bytes = whole.clone();
        for step in 0..=seed % 7 {
            let place = (seed * 7919 + step * 104_729) % bytes.len();
            bytes[place] ^= u8::try_from(seed % 255 + 1).expect("byte");
        }
        let (_dir, _path, result) = open_bytes(&bytes);
        save(&result.store, &numbered(6));
    }
    // Every row can be read, but the list of free pages is wrong.
    let mut listed = whole.clone();
    listed[39] ^= 1;
    assert!(open_bytes(&listed).2.recovered.is_some());
    for bytes in [vec![0; 8192], b"SQLite format 3\0".to_vec(), b"{\"not\": \"ours\"}".repeat(99)] {
        assert!(open_bytes(&bytes).2.recovered.is_some());
    }
}

#[test]
fn another_programs_database_is_moved_aside() {
    let (_dir, path) = place();
    std::fs::create_dir(path.parent().expect("parent")).expect("mkdir");
    rusqlite::Connection::open(&path).expect("open").execute_batch("CREATE TABLE meta (a)").expect("table");
    assert!(opened(&path).recovered.is_some());
    drop(opened(&path));
    assert_eq!(files(&path).iter().filter(|name| name.contains("corrupt")).count(), 1);
}

#[test]
fn files_moved_aside_in_one_second_do_not_meet() {
    let (_dir, path, first) = open_bytes(b"garbage");
    drop(first);
    for _ in 0..3 {
        std::fs::write(&path, b"garbage").expect("writing");
        assert!(opened(&path).recovered.is_some());
    }
    assert_eq!(files(&path).iter().filter(|name| name.contains("corrupt")).count(), 4);
}

/// Every length the log can have after a power cut leads to a state that was once saved.
#[test]
fn a_torn_log_gives_an_earlier_state() {
    let (_dir, path) = place();
    let store = opened(&path).store;
    (1..=6).for_each(|number| save(&store, &numbered(number)));
    let database = std::fs::read(&path).expect("database");
    let log = std::fs::read(path.with_file_name("state.db-wal")).expect("log");
    let mut seen = std::collections::BTreeSet::new();
    // From the end of the first transactions, which make the tables.
    for length in (0..=log.len()).rev().step_by(512) {
        let (_dir, copy) = place();
        std::fs::create_dir(copy.parent().expect("parent")).expect("mkdir");
        std::fs::write(&copy, &database).expect("writing");
        std::fs::write(copy.with_file_name("state.db-wal"), &log[..length]).expect("writing");
        let result = opened(&copy);
        let number = number_of(&result.memory);
        assert_eq!(result.recovered, None, "at {length}");
        assert_eq!(result.memory, if number == 0 { Memory::default() } else { numbered(number) });
        seen.insert(number);
    }
    assert_eq!(seen.len(), 7, "{seen:?}");
}

#[test]
fn intents_survive_a_lost_database() {
    let (_dir, path) = place();
    let mut memory = numbered(2);
    let store = opened(&path).store;
    save(&store, &memory);
    drop(store);
    std::fs::write(&path, b"garbage").expect("writing");
    let again = opened(&path);
    assert_eq!(again.memory.intents, memory.intents);
    assert!(again.memory.leases.is_empty());
    assert_eq!((&again.memory.pauses, &again.memory.drain), (&memory.pauses, &memory.drain));
    assert_eq!(memory.pauses.len(), 2);
    let said = again.recovered.expect("it is said");
    assert!(said.contains("20 run intents, 2 pauses, the drain of this host were taken from"), "{said}");
    // The restored ones are in the database again, and later changes count on from there.
    memory.intents.clear();
    memory.pauses.clear();
    memory.drain = None;
    save(&again.store, &memory);
    drop(again.store);
    std::fs::remove_file(path.with_file_name("intents.json")).expect("removing");
    assert!(opened(&path).memory.intents.is_empty());
    std::fs::remove_file(&path).expect("removing");
    let mirrored = opened(&path).memory;
    assert!(mirrored.intents.is_empty(), "the mirror was written again");
    assert!(mirrored.pauses.is_empty() && mirrored.drain.is_none());
}

#[test]
fn a_mirror_of_an_older_program_has_no_pauses_and_is_read() {
    let (_dir, path) = place();
    std::fs::create_dir(path.parent().expect("parent")).expect("mkdir");
    let intents = serde_json::to_string(&numbered(1).intents).expect("JSON");
    let older = format!(r#"{{"version": 1, "generation": 7, "intents": {intents}}}"#);
    std::fs::write(path.with_file_name("intents.json"), older).expect("writing");
    let memory = opened(&path).memory;
    assert_eq!((memory.intents.len(), memory.pauses.len(), memory.drain), (20, 0, None));
}

#[test]
fn the_newer_copy_of_the_intents_wins() {
    let (_dir, path) = place();
    let store = opened(&path).store;
    let mirror = path.with_file_name("intents.json");
    save(&store, &numbered(1));
    let older = std::fs::read(&mirror).expect("mirror");
    save(&store, &numbered(2));
    drop(store);
    // An older mirror, as after a crash before it was written.
    std::fs::write(&mirror, &older).expect("writing");
    let again = opened(&path);
    assert_eq!((again.memory.intents, again.recovered), (numbered(2).intents, None));
    drop(again.store);
    // An older database, as after a backup was put back.
    let backup = std::fs::read(&path).expect("database");
    let store = opened(&path).store;
    save(&store, &numbered(3));
    drop(store);
    std::fs::write(&path, &backup).expect("writing");
    assert_eq!(peek(&path).expect("peek").map(|seen| seen.memory.intents), Some(numbered(3).intents));
    let again = opened(&path);
    assert_eq!(again.memory.intents, numbered(3).intents);
    assert!(again.recovered.is_some());
    drop(again.store);
    std::fs::write(&mirror, b"{").expect("writing");
    let again = opened(&path);
    assert_eq!(again.memory.intents, numbered(3).intents, "a broken mirror does no harm");
    assert!(again.recovered.is_some());
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let (_dir, path) = place();
    drop(opened(&path));
    let newer =
        "INSERT INTO migrations VALUES (99, 'later', 0); PRAGMA user_version = 99; CREATE TABLE later (x);";
    rusqlite::Connection::open(&path).expect("open").execute_batch(newer).expect("newer");
    let before = std::fs::read(&path).expect("bytes");
    let error = open(&path, NOW, KEY).expect_err("newer");
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert!(error.cause.contains("schema version 99"), "{error}");
    assert!(hint(&error).is_some() && peek(&path).is_err());
    assert_eq!(std::fs::read(&path).expect("bytes"), before);
    assert!(!files(&path).iter().any(|name| name.contains("corrupt")));
}

#[test]
fn an_older_schema_is_upgraded_and_keeps_its_rows() {
    let (_dir, path) = place();
    let store = opened(&path).store;
    save(&store, &numbered(4));
    drop(store);
    let known = schema::MIGRATIONS.len();
    let further = [
        ("tasks", "CREATE TABLE later_on (id INTEGER PRIMARY KEY) STRICT;"),
        ("bad", "CREATE TABLE half (x); SELECT nonsense FROM nowhere;"),
    ];
    let real = schema::MIGRATIONS.iter().map(|step| (step.name, step.sql));
    let steps: Vec<schema::Migration> =
        real.chain(further).map(|(name, sql)| schema::Migration { name, sql }).collect();
    let next = i64::try_from(known + 1).expect("few steps");
    let mut connection = rusqlite::Connection::open(&path).expect("open");
    schema::migrate(&mut connection, known, &steps[..=known], NOW).expect("upgrade");
    let count = |connection: &rusqlite::Connection, text: &str| -> i64 {
        connection.query_row(text, [], |row| row.get(0)).expect("count")
    };
    assert_eq!(count(&connection, "SELECT count(*) FROM leases"), 20);
    assert_eq!(count(&connection, "SELECT count(*) FROM later_on"), 0);
    assert_eq!(count(&connection, "PRAGMA user_version"), next);
    assert_eq!(count(&connection, "SELECT max(version) FROM migrations"), next);
    schema::migrate(&mut connection, known + 1, &steps, NOW).expect_err("a step that fails");
    assert_eq!(count(&connection, "PRAGMA user_version"), next, "and leaves nothing half done");
    assert_eq!(count(&connection, "SELECT count(*) FROM sqlite_schema WHERE name = 'half'"), 0);
}

#[test]
fn rows_whose_name_is_no_id_any_more_are_dropped() {
    let (_dir, path) = place();
    let store = opened(&path).store;
    save(&store, &numbered(4));
    drop(store);
    let row = "INSERT INTO leases VALUES ('Not An Id', 8000, NULL, 0, 0)";
    rusqlite::Connection::open(&path).expect("open").execute_batch(row).expect("row");
    let again = opened(&path);
    assert_eq!(again.memory, numbered(4));
    assert!(again.recovered.is_some());
    drop(again.store);
    assert_eq!(opened(&path).recovered, None);
}

#[test]
fn a_failed_save_is_made_good_by_the_next() {
    let (_dir, path) = place();
    let store = opened(&path).store;
    save(&store, &numbered(1));
    store
        .locked(|inner| inner.connection.execute_batch("ALTER TABLE pins RENAME TO hidden").expect("rename"));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    let error = runtime.block_on(store.save(&numbered(2))).expect_err("no table");
    assert_eq!(error.kind, ErrorKind::Failed);
    store
        .locked(|inner| inner.connection.execute_batch("ALTER TABLE hidden RENAME TO pins").expect("rename"));
    assert_eq!(peek(&path).expect("peek").map(|seen| seen.memory), Some(numbered(1)), "nothing half");
    save(&store, &numbered(3));
    drop(store);
    assert_eq!(opened(&path).memory, numbered(3));
}

/// Not a test of its own: the process that [`a_killed_writer_loses_nothing_it_reported`] kills.
#[test]
#[ignore = "started by another test"]
fn child_that_writes() {
    let Some(path) = std::env::var_os("STORE_TEST_PATH") else {
        return;
    };
    let store = opened(Path::new(&path)).store;
    let mut out = std::io::stdout();
    for number in 1.. {
        save(&store, &numbered(number));
        writeln!(out, "saved {number}").and_then(|()| out.flush()).expect("reporting");
    }
}

#[test]
fn a_killed_writer_loses_nothing_it_reported() {
    let program = std::env::current_exe().expect("this program");
    let name = format!("{}::child_that_writes", module_path!().split_once("::").expect("path").1);
    for round in 0..8_u64 {
        let (_dir, path) = place();
        let mut child = std::process::Command::new(&program)
            .args(["--exact", &name, "--ignored", "--nocapture"])
            .env("STORE_TEST_PATH", &path)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("child");
        let mut lines = std::io::BufReader::new(child.stdout.take().expect("stdout"));
        let mut line = String::new();
        while !line.contains("saved 2") {
            line.clear();
            assert_ne!(lines.read_line(&mut line).expect("line"), 0, "the child ended early");
        }
        std::thread::sleep(std::time::Duration::from_micros(round * 1777));
        child.kill().expect("kill");
        child.wait().expect("wait");
        let mut rest = String::new();
        lines.read_to_string(&mut rest).expect("rest");
        let reported =
            rest.lines().rev().find_map(|line| line.strip_prefix("saved ")?.parse().ok()).unwrap_or(2);
        let result = opened(&path);
        let number = number_of(&result.memory);
        assert!(number >= reported, "reported {reported}, found {number}");
        assert_eq!((result.memory, result.recovered), (numbered(number), None));
    }
}
