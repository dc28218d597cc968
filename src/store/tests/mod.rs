//! The store as it is meant to be used; what happens to damaged files is in [`damage`].

mod damage;
mod records;
mod sessions;

use super::{NOTE_BYTES_MAX, Opened, SqliteStore, hint, open, peek};
use crate::model::balancer::BalancerMemory;
use crate::model::id::{ContainerId, ServerId};
use crate::model::memory::{
    Attempts, End, Ends, Intent, Lease, Memory, Nap, Pause, Pin, Raise, Recovery, Scope,
};
use crate::model::net::HostPort;
use crate::model::time::Timestamp;
use crate::world::{ErrorKind, Store as _};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const KEY: [u8; 32] = [7; 32];
const NOW: Timestamp = Timestamp(1_795_260_352_000);

fn opened(path: &Path) -> Opened {
    open(path, NOW, KEY).expect("opening")
}

fn save(store: &SqliteStore, memory: &Memory) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    runtime.block_on(store.save(memory)).expect("saving");
}

fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("state/state.db");
    (dir, path)
}

fn id(number: u32) -> ServerId {
    ServerId::new(&format!("server-{number}")).expect("id")
}

fn intent(by: &str) -> Intent {
    Intent { run: false, by: by.to_owned(), at: NOW, until: None, file_enabled: true, restart: None }
}

/// A memory that shows its number in every table, so that a mixture of two is seen.
fn numbered(number: u32) -> Memory {
    let at = Timestamp(i64::from(number));
    let mut memory = Memory::default();
    for server in 0..20 {
        let port = HostPort::new(8000).expect("port");
        memory.leases.insert(id(server), Lease { port, next: None, since: at, fixed: false });
        memory.attempts.insert(id(server), Attempts { crashes: number, ..Attempts::default() });
        let mark = number.to_string();
        let pin = Pin { reference: mark.clone(), image: mark.clone(), digest: None, pulled: None };
        memory.pins.insert(id(server), pin);
        memory.intents.insert(id(server), intent(&mark));
        memory.balancer.draining.insert(format!("server-{server}:8000"), at);
    }
    let pause = Pause { by: number.to_string(), at, until: Some(at) };
    memory.pauses.insert(Scope::Server(id(1)), pause.clone());
    memory.pauses.insert(Scope::Host, Pause { until: None, ..pause.clone() });
    memory.drain = Some(pause);
    memory.balancer.target_id = Some(number.to_string());
    memory
}

fn number_of(memory: &Memory) -> u32 {
    memory.balancer.target_id.as_ref().map_or(0, |text| text.parse().expect("number"))
}

fn files(path: &Path) -> Vec<String> {
    let dir = std::fs::read_dir(path.parent().expect("parent")).expect("directory");
    dir.map(|entry| entry.expect("entry").file_name().into_string().expect("name")).collect()
}

fn ids() -> impl Strategy<Value = ServerId> {
    "[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?".prop_filter_map("reserved", |text| ServerId::new(&text).ok())
}

fn times() -> impl Strategy<Value = Timestamp> {
    any::<i64>().prop_map(Timestamp)
}

fn maybe_time() -> impl Strategy<Value = Option<Timestamp>> {
    proptest::option::of(times())
}

fn ports() -> impl Strategy<Value = HostPort> {
    (1..=u16::MAX).prop_filter_map("zero", HostPort::new)
}

fn words() -> impl Strategy<Value = String> {
    "\\PC{0,12}"
}

fn naps() -> impl Strategy<Value = Nap> {
    (any::<bool>(), times(), any::<bool>(), any::<u32>(), words())
        .prop_map(|(awake, since, idle, used, run)| Nap { awake, since, idle, used: u64::from(used), run })
}

fn attempts() -> impl Strategy<Value = Attempts> {
    (
        (any::<u32>(), any::<u32>(), any::<bool>()),
        (maybe_time(), maybe_time(), maybe_time(), maybe_time(), maybe_time()),
        proptest::option::of(words()),
        proptest::option::of(words()),
    )
        .prop_map(
            |(
                (crashes, failures, up),
                (started, down_since, next_try, port_taken, quota_until),
                failed_spec,
                last_error,
            )| {
                Attempts {
                    crashes,
                    started,
                    down_since,
                    failures,
                    failed_spec,
                    next_try,
                    up,
                    port_taken,
                    quota_until,
                    last_error,
                }
            },
        )
}

fn memories() -> impl Strategy<Value = Memory> {
    let leases = (ports(), proptest::option::of(ports()), times(), any::<bool>())
        .prop_map(|(port, next, since, fixed)| Lease { port, next, since, fixed });
    let attempts = attempts();
    let pins = (words(), words(), proptest::option::of(words()), maybe_time())
        .prop_map(|(reference, image, digest, pulled)| Pin { reference, image, digest, pulled });
    let intents = (any::<bool>(), words(), times(), maybe_time(), any::<bool>(), maybe_time()).prop_map(
        |(run, by, at, until, file_enabled, restart)| Intent { run, by, at, until, file_enabled, restart },
    );
    let balancer = (
        proptest::option::of(words()),
        btree_map(words(), times(), 0..4),
        btree_map(words(), times(), 0..4),
        btree_map(ids(), vec(ports(), 0..3), 0..4),
    )
        .prop_map(|(target_id, draining, empty_since, registered)| BalancerMemory {
            target_id,
            draining,
            empty_since,
            registered,
        });
    let recoveries = (any::<u32>(), times(), words(), words(), proptest::option::of(words())).prop_map(
        |(tries, last, why, spec, anew)| Recovery { tries, last, why, spec, anew: anew.map(ContainerId) },
    );
    let pauses = || (words(), times(), maybe_time()).prop_map(|(by, at, until)| Pause { by, at, until });
    let scopes = prop_oneof![Just(Scope::Host), ids().prop_map(Scope::Server)];
    let held = (btree_map(scopes, pauses(), 0..4), proptest::option::of(pauses()));
    let raises = (any::<i64>(), any::<i64>(), times()).prop_map(|(from, to, at)| Raise { from, to, at });
    let held = (
        held,
        btree_map(ids(), times(), 0..4),
        btree_map(ids(), raises, 0..4),
        (btree_map(ids(), naps(), 0..4), btree_map(ids(), ends(), 0..4)),
    );
    let recovered = (btree_map(ids(), recoveries, 0..4), vec(times(), 0..4), held);
    let maps = (btree_map(ids(), leases, 0..6), btree_map(ids(), attempts, 0..6), recovered);
    (maps, btree_map(ids(), pins, 0..6), btree_map(ids(), intents, 0..6), balancer).prop_map(
        |(
            (leases, attempts, (recoveries, unwanted, ((pauses, drain), waits, raises, (naps, ends)))),
            pins,
            intents,
            balancer,
        )| Memory {
            leases,
            attempts,
            pins,
            intents,
            recoveries,
            waits,
            raises,
            unwanted,
            pauses,
            drain,
            ends,
            naps,
            balancer,
        },
    )
}

fn ends() -> impl Strategy<Value = Ends> {
    let said = proptest::option::of(vec(words(), 0..3));
    let end = (times(), words(), proptest::option::of(any::<bool>()), said)
        .prop_map(|(at, how, oom, words)| End { at, how, oom, words });
    (vec(end, 0..4), words(), proptest::option::of(words())).prop_map(|(list, run, of)| Ends {
        list,
        run,
        words_of: of.map(ContainerId),
    })
}

/// As an ordinary user there is one owner; as root there are two, and it is the directory's that counts.
#[test]
fn what_root_makes_belongs_to_the_owner_of_the_directory() {
    let (_dir, path) = place();
    let state = path.parent().expect("parent");
    std::fs::create_dir(state).expect("mkdir");
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(state, Some(12_345), Some(12_346)).expect("chown");
    }
    let store = opened(&path).store;
    save(&store, &numbered(1));
    let owner = |path: &Path| {
        let found = path.metadata().expect("metadata");
        (found.uid(), found.gid())
    };
    let made: Vec<PathBuf> =
        state.read_dir().expect("reading").map(|entry| entry.expect("entry").path()).collect();
    assert!(made.len() >= 3, "{made:?}");
    for path in made {
        assert_eq!(owner(&path), owner(state), "{}", path.display());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_saved_comes_back(steps in vec(memories(), 1..5)) {
        let (_dir, path) = place();
        let store = opened(&path).store;
        for step in &steps {
            save(&store, step);
            let seen = peek(&path).expect("peek").expect("something");
            prop_assert_eq!(&seen.memory, step);
        }
        drop(store);
        let again = opened(&path);
        prop_assert_eq!(Some(&again.memory), steps.last());
        prop_assert_eq!(again.recovered, None);
        prop_assert_eq!(again.key.bytes(), &KEY);
    }
}

#[test]
fn files_are_private_and_nothing_is_said_at_first_start() {
    let (_dir, path) = place();
    assert!(peek(&path).expect("peek").is_none());
    let first = opened(&path);
    assert_eq!((first.memory, first.recovered), (Memory::default(), None));
    save(&first.store, &numbered(1));
    let mode = |path: &Path| std::fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
    assert_eq!(mode(path.parent().expect("parent")), 0o700);
    for name in files(&path) {
        assert_eq!(mode(&path.with_file_name(&name)), 0o600, "{name}");
    }
    drop(first.store);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("chmod");
    drop(opened(&path));
    assert_eq!(mode(&path), 0o600, "a mode that was widened is narrowed again");
}

#[test]
fn the_key_stays_and_a_lost_one_is_replaced() {
    let (_dir, path) = place();
    drop(opened(&path));
    assert_eq!(open(&path, NOW, [9; 32]).expect("opening").key.bytes(), &KEY);
    std::fs::remove_file(&path).expect("removing");
    assert_eq!(open(&path, NOW, [9; 32]).expect("opening").key.bytes(), &[9; 32]);
}

#[test]
fn commits_survive_a_power_cut() {
    let (_dir, path) = place();
    let store = opened(&path).store;
    let pragma = |name: &str| {
        store.locked(|inner| {
            let text = format!("SELECT CAST({name} AS TEXT) FROM pragma_{name}");
            inner.connection.query_row(&text, [], |row| row.get::<_, String>(0)).expect("pragma")
        })
    };
    assert_eq!(pragma("journal_mode"), "wal");
    assert_eq!(pragma("synchronous"), "2", "FULL: every commit is flushed");
    let mut memory = numbered(1);
    save(&store, &memory);
    assert_eq!(pragma("synchronous"), "2");
    memory.attempts.get_mut(&id(4)).expect("attempts").crashes = 9;
    save(&store, &memory);
    assert_eq!(pragma("synchronous"), "1", "NORMAL: nobody waits for the disk to count a crash");
    memory.leases.remove(&id(3));
    save(&store, &memory);
    assert_eq!(pragma("synchronous"), "2", "and with it what was not flushed before");
}

#[test]
fn only_changed_rows_are_written() {
    let (_dir, path) = place();
    let store = opened(&path).store;
    let changes = || store.locked(|inner| inner.connection.total_changes());
    let mut memory = numbered(1);
    save(&store, &memory);
    let before = changes();
    save(&store, &memory);
    assert_eq!(changes(), before, "nothing changed, nothing written");
    memory.leases.remove(&id(3));
    memory.attempts.get_mut(&id(4)).expect("attempts").crashes = 9;
    save(&store, &memory);
    assert_eq!(changes(), before + 2);
}

#[test]
fn a_second_writer_is_refused_and_a_reader_is_not() {
    let (_dir, path) = place();
    let first = opened(&path);
    save(&first.store, &numbered(3));
    let error = open(&path, NOW, KEY).expect_err("held");
    assert_eq!(error.kind, ErrorKind::Conflict);
    assert!(hint(&error).is_some());
    assert_eq!(peek(&path).expect("peek").map(|seen| seen.memory), Some(numbered(3)));
}

#[test]
fn a_directory_that_cannot_be_used_is_an_error_with_a_hint() {
    let dir = tempfile::tempdir().expect("directory");
    std::fs::write(dir.path().join("file"), "x").expect("writing");
    let error = open(&dir.path().join("file/state.db"), NOW, KEY).expect_err("a file is no directory");
    assert!(error.to_string().contains("file"), "{error}");
    // The superuser may read everything; what a read-only or foreign directory gives is forced.
    let denied =
        open(Path::new("/proc/mcp-orchestrator-test/state.db"), NOW, KEY).expect_err("not to be had");
    assert!(matches!(denied.kind, ErrorKind::Denied | ErrorKind::NotFound), "{denied:?}");
    let closed = dir.path().join("closed");
    std::fs::create_dir(&closed).expect("mkdir");
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o000)).expect("chmod");
    if std::fs::read_dir(&closed).is_err() {
        let error = open(&closed.join("state.db"), NOW, KEY).expect_err("closed");
        assert_eq!(error.kind, ErrorKind::Denied);
        assert!(hint(&error).is_some());
    }
    assert_eq!(files(&closed).len(), 2, "nothing was made elsewhere");
}

#[test]
fn notes_are_kept_apart_and_bounded() {
    let (_dir, path) = place();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    let store = opened(&path).store;
    runtime.block_on(store.set_note("hash_key", Some("text"))).expect("keeping");
    assert_eq!(runtime.block_on(store.note("hash_key")), Ok(Some("text".to_owned())));
    let long = "x".repeat(NOTE_BYTES_MAX + 1);
    assert!(runtime.block_on(store.set_note("long", Some(&long))).is_err());
    runtime.block_on(store.set_note("hash_key", None)).expect("removing");
    assert_eq!(runtime.block_on(store.note("hash_key")), Ok(None));
    drop(store);
    assert_eq!(opened(&path).key.bytes(), &KEY);
}

#[test]
fn what_servers_offer_is_kept_and_has_a_bound() {
    use crate::world::{OFFERS_MAX, OfferStore as _};
    let (_dir, path) = place();
    let name = |n: usize| ServerId::new(&format!("s{n}")).expect("an id");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    {
        let store = opened(&path).store;
        for n in 0..=OFFERS_MAX {
            runtime.block_on(store.put_offer(&name(n), format!("offer {n}"))).expect("kept");
        }
        runtime.block_on(store.put_offer(&name(1), "newer".to_owned())).expect("kept");
    }
    let offers = runtime.block_on(opened(&path).store.load_offers()).expect("reading");
    assert_eq!(offers.len(), OFFERS_MAX);
    assert_eq!(offers.last(), Some(&(name(1), "newer".to_owned())), "the newest is the last");
    assert!(!offers.iter().any(|(id, _)| *id == name(0)), "the oldest is forgotten");
}
