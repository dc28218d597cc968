//! Sessions and handshakes: what comes back, what is dropped, what a kill leaves, how long it takes.

use crate::model::id::ContainerId;
use crate::model::session::{
    LEG_INFO_BYTES_MAX, LEG_MEMORIES_MAX, LegEra, LegMemory, SESSION_BYTES_MAX, SESSIONS_MAX, SessionChange,
    SessionRecord,
};
use crate::model::time::Timestamp;
use crate::store::tests::{KEY, NOW, files, id, numbered, opened, place, save};
use crate::store::{SqliteStore, open, peek, schema};
use crate::world::fake::FakeSessions;
use crate::world::{ErrorKind, LegStore, SessionStore, Store as _};
use proptest::collection::vec;
use proptest::prelude::*;
use std::io::{BufRead as _, Read as _, Write as _};
use std::path::Path;
use std::time::Instant;

/// Runs a future of the store.
fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("runtime").block_on(future)
}

fn apply(store: &dyn SessionStore, changes: &[SessionChange]) {
    wait(store.apply(changes)).expect("keeping");
}

fn load(store: &dyn SessionStore) -> Vec<SessionRecord> {
    wait(store.load()).expect("reading")
}

/// A session as most are.
fn session(number: u32) -> SessionRecord {
    SessionRecord {
        id_hash: crate::model::fingerprint::sha256_hex(&number.to_string(), 64),
        server: id(number % 20),
        version: "2025-11-25".to_owned(),
        capabilities: r#"{"roots":{"listChanged":true},"sampling":{},"elicitation":{}}"#.to_owned(),
        client: r#"{"name":"an example client","version":"1.2.3"}"#.to_owned(),
        principal: "local".to_owned(),
        log_level: number.is_multiple_of(2).then(|| "info".to_owned()),
        subscriptions: (0..number % 3).map(|resource| format!("file:///data/{resource}.txt")).collect(),
        created: NOW,
        last_used: Timestamp(NOW.0 + i64::from(number)),
    }
}

fn puts(numbers: std::ops::Range<u32>) -> Vec<SessionChange> {
    numbers.map(|number| SessionChange::Put(session(number))).collect()
}

fn leg(number: usize, era: LegEra) -> LegMemory {
    LegMemory {
        container: ContainerId(format!("container-{number}")),
        era,
        version: "2025-11-25".to_owned(),
        info: r#"{"protocolVersion":"2025-11-25","x":1.0}"#.to_owned(),
    }
}

fn records() -> impl Strategy<Value = SessionRecord> {
    let lengths = prop_oneof![9 => Just(5), 1 => Just(SESSION_BYTES_MAX)];
    ((0..12_u32), lengths, -3..9_i64, "\\PC{0,8}", vec("\\PC{0,6}", 0..3)).prop_map(
        |(number, length, last_used, principal, subscriptions)| SessionRecord {
            client: "c".repeat(length),
            last_used: Timestamp(last_used),
            principal,
            subscriptions,
            ..session(number)
        },
    )
}

fn changes() -> impl Strategy<Value = SessionChange> {
    let hash = || (0..12_u32).prop_map(|number| session(number).id_hash);
    let touch = (hash(), any::<i64>())
        .prop_map(|(id_hash, at)| SessionChange::Touch { id_hash, last_used: Timestamp(at) });
    prop_oneof![
        4 => records().prop_map(SessionChange::Put),
        2 => touch,
        1 => hash().prop_map(SessionChange::Remove),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_the_one_in_memory_does(steps in vec(vec(changes(), 0..9), 1..6)) {
        let (_dir, path) = place();
        let (store, fake) = (opened(&path).store, FakeSessions::default());
        for step in &steps {
            apply(&store, step);
            apply(&fake, step);
            prop_assert_eq!(load(&store), load(&fake));
        }
        drop(store);
        let again = opened(&path);
        prop_assert_eq!(again.recovered, None);
        prop_assert_eq!(load(&again.store), load(&fake));
    }
}

#[test]
fn the_longest_unused_go_first() {
    let (_dir, path) = place();
    let store = opened(&path).store;
    let max = u32::try_from(SESSIONS_MAX).expect("a number");
    apply(&store, &puts(0..max));
    assert_eq!(load(&store).len(), SESSIONS_MAX);
    // The oldest was heard of again, so the next ones go.
    let touched = SessionChange::Touch { id_hash: session(0).id_hash, last_used: Timestamp(i64::MAX) };
    apply(&store, &[touched]);
    apply(&store, &puts(max..max + 2));
    let kept = load(&store);
    assert_eq!(kept.len(), SESSIONS_MAX);
    assert_eq!(kept[0].id_hash, session(0).id_hash, "most recently used first");
    let has = |number| kept.iter().any(|record| record.id_hash == session(number).id_hash);
    assert!(has(max) && has(max + 1) && has(3) && !has(1) && !has(2));
    // The same sessions again are no more sessions, and a start counts them too.
    apply(&store, &puts(max..max + 2));
    assert_eq!(load(&store), kept);
    drop(store);
    let store = opened(&path).store;
    apply(&store, &puts(max + 2..max + 3));
    assert_eq!(load(&store).len(), SESSIONS_MAX);
}

#[test]
fn handshakes_are_kept_by_container_and_bounded() {
    let (_dir, path) = place();
    let store = opened(&path).store;
    let fake = FakeSessions::default();
    for store in [&store as &dyn LegStore, &fake] {
        wait(store.put_leg(&leg(1, LegEra::Legacy))).expect("keeping");
        wait(store.put_leg(&leg(2, LegEra::Modern))).expect("keeping");
        wait(store.put_leg(&leg(1, LegEra::Modern))).expect("keeping");
        wait(store.remove_leg(&ContainerId("container-9".to_owned()))).expect("nothing to forget");
        let all = [leg(2, LegEra::Modern), leg(1, LegEra::Modern)];
        assert_eq!(wait(store.load_legs()), Ok(all.to_vec()));
        for number in 2..LEG_MEMORIES_MAX + 3 {
            wait(store.put_leg(&leg(number, LegEra::Legacy))).expect("keeping");
        }
        let kept = wait(store.load_legs()).expect("reading");
        assert_eq!((kept.len(), &kept[0]), (LEG_MEMORIES_MAX, &leg(3, LegEra::Legacy)));
        wait(store.remove_leg(&kept[0].container)).expect("forgetting");
        assert_eq!(wait(store.load_legs()).expect("reading")[0], leg(4, LegEra::Legacy));
    }
    let long = LegMemory { info: "x".repeat(LEG_INFO_BYTES_MAX + 1), ..leg(1, LegEra::Legacy) };
    assert_eq!(wait(store.put_leg(&long)).expect_err("too long").kind, ErrorKind::Invalid);
    drop(store);
    assert_eq!(wait(opened(&path).store.load_legs()), wait(fake.load_legs()));
}

#[test]
fn sessions_do_not_weaken_the_ledger() {
    let (_dir, path) = place();
    let store = opened(&path).store;
    let level = |connection: &rusqlite::Connection| -> i64 {
        connection.query_row("PRAGMA synchronous", [], |row| row.get(0)).expect("pragma")
    };
    for _ in 0..2 {
        let levels = store.locked(|inner| (level(&inner.connection), level(inner.sessions.connection())));
        assert_eq!(levels, (2, 1), "FULL, and NORMAL: never OFF");
        apply(&store, &puts(0..3));
        save(&store, &numbered(1));
    }
    assert_eq!(load(&store).len(), 3);
    assert_eq!(peek(&path).expect("peek").map(|seen| seen.memory), Some(numbered(1)));
}

#[test]
fn all_changes_are_kept_or_none() {
    let (_dir, path) = place();
    let store = opened(&path).store;
    apply(&store, &puts(0..2));
    let trigger = "CREATE TRIGGER no BEFORE DELETE ON sessions BEGIN SELECT raise(ABORT, 'no'); END";
    store.locked(|inner| inner.connection.execute_batch(trigger).expect("trigger"));
    let mut changes = puts(5..9);
    changes.push(SessionChange::Remove(session(0).id_hash));
    wait(store.apply(&changes)).expect_err("refused half-way");
    assert_eq!(load(&store), [session(1), session(0)]);
    store.locked(|inner| inner.connection.execute_batch("DROP TRIGGER no").expect("trigger"));
    apply(&store, &changes);
    assert_eq!(load(&store).len(), 5);
}

#[test]
fn a_state_from_before_sessions_is_read_and_gets_them() {
    let (_dir, path) = place();
    std::fs::create_dir(path.parent().expect("parent")).expect("mkdir");
    let mut connection = rusqlite::Connection::open(&path).expect("open");
    connection.pragma_update(None, "journal_mode", "wal").expect("log");
    schema::migrate(&mut connection, 0, &schema::MIGRATIONS[..1], NOW).expect("the first form");
    let key = "INSERT INTO meta (key, value) VALUES ('hash_key', ?1)";
    connection.execute(key, [KEY]).expect("key");
    connection.execute("INSERT INTO leases VALUES ('server-1', 8000, NULL, 0, 0)", []).expect("lease");
    drop(connection);
    let before = peek(&path).expect("peek").expect("what the ledger holds is no secret of a newer form");
    assert_eq!(before.memory.leases.len(), 1);
    let upgraded = open(&path, NOW, [9; 32]).expect("opening");
    assert_eq!((upgraded.memory, upgraded.recovered), (before.memory, None));
    assert_eq!(upgraded.key.bytes(), &KEY);
    apply(&upgraded.store, &puts(0..1));
    assert_eq!(load(&upgraded.store), [session(0)]);
}

#[test]
fn rows_that_mean_nothing_any_more_are_dropped() {
    let (_dir, path) = place();
    let store = opened(&path).store;
    apply(&store, &puts(0..3));
    let text = format!(
        "UPDATE sessions SET server = 'Not An Id' WHERE id_hash = '{}'; UPDATE sessions SET subscriptions = '[' WHERE id_hash = '{}'; INSERT INTO legs (container, era, version, info) VALUES ('c', 'future', '', '')",
        session(0).id_hash,
        session(1).id_hash
    );
    store.locked(|inner| inner.connection.execute_batch(&text).expect("rows"));
    assert_eq!(load(&store), [session(2)]);
    let left: i64 = store.locked(|inner| {
        inner.connection.query_row("SELECT count(*) FROM sessions", [], |row| row.get(0)).expect("count")
    });
    assert_eq!(left, 1);
    assert_eq!(wait(store.load_legs()), Ok(Vec::new()));
}

#[test]
fn a_state_without_its_tables_is_moved_aside() {
    for table in ["sessions", "legs"] {
        let (_dir, path) = place();
        drop(opened(&path));
        let connection = rusqlite::Connection::open(&path).expect("open");
        connection.execute_batch(&format!("DROP TABLE {table}")).expect("drop");
        drop(connection);
        let again = opened(&path);
        assert!(again.recovered.is_some(), "{table}");
        assert!(files(&path).iter().any(|name| name.contains("corrupt")));
        apply(&again.store, &puts(0..1));
    }
}

/// Not a test of its own: the process that [`a_killed_process_keeps_what_it_reported`] kills.
#[test]
#[ignore = "started by another test"]
fn child_that_keeps_sessions() {
    let Some(path) = std::env::var_os("STORE_TEST_PATH") else {
        return;
    };
    let store = opened(Path::new(&path)).store;
    let mut out = std::io::stdout();
    for number in 1.. {
        apply(&store, &puts(number..number + 1));
        if number % 7 == 0 {
            save(&store, &numbered(number));
        }
        writeln!(out, "kept {number}").and_then(|()| out.flush()).expect("reporting");
    }
}

#[test]
fn a_killed_process_keeps_what_it_reported() {
    let program = std::env::current_exe().expect("this program");
    let name = format!("{}::child_that_keeps_sessions", module_path!().split_once("::").expect("path").1);
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
        while !line.contains("kept 9") {
            line.clear();
            assert_ne!(lines.read_line(&mut line).expect("line"), 0, "the child ended early");
        }
        std::thread::sleep(std::time::Duration::from_micros(round * 1777));
        child.kill().expect("kill");
        child.wait().expect("wait");
        let mut rest = String::new();
        lines.read_to_string(&mut rest).expect("rest");
        let last = rest.lines().rev().find_map(|line| line.strip_prefix("kept ")?.parse::<u32>().ok());
        let result = opened(&path);
        assert_eq!(result.recovered, None);
        let kept = load(&result.store);
        for number in 1..=last.unwrap_or(9) {
            assert!(kept.contains(&session(number)), "reported {last:?}, lost {number}");
        }
    }
}

/// Run by hand: `cargo test --lib how_long_sessions_take -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn how_long_sessions_take() {
    let (_dir, path) = place();
    let store = opened(&path).store;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("runtime");
    let time = |what: &str, store: &SqliteStore, batches: Vec<Vec<SessionChange>>| {
        let begin = Instant::now();
        for batch in &batches {
            runtime.block_on(store.apply(batch)).expect("keeping");
        }
        writeln!(std::io::stdout(), "{what}: {:?}", begin.elapsed()).expect("reporting");
    };
    let singly = |numbers| puts(numbers).into_iter().map(|change| vec![change]).collect();
    time("1,000 puts in one", &store, vec![puts(0..1000)]);
    time("256 times 1 put", &store, singly(1000..1256));
    time("the rest up to the bound", &store, vec![puts(1256..20_000)]);
    time("1,000 puts in one, full", &store, vec![puts(20_000..21_000)]);
    time("256 times 1 put, full", &store, singly(21_000..21_256));
    let touches = (5000..6000).map(|number| SessionChange::Touch {
        id_hash: session(number).id_hash,
        last_used: Timestamp(i64::MAX),
    });
    time("1,000 touches in one", &store, vec![touches.collect()]);
    let begin = Instant::now();
    for number in 0..32 {
        runtime.block_on(store.save(&numbered(number))).expect("saving");
    }
    writeln!(std::io::stdout(), "32 saves of the ledger: {:?}", begin.elapsed()).expect("reporting");
    let begin = Instant::now();
    assert_eq!(load(&store).len(), SESSIONS_MAX);
    writeln!(std::io::stdout(), "reading all: {:?}", begin.elapsed()).expect("reporting");
}
