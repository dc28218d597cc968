//! The database file: how it is opened, which form it has, how an older form becomes today's.
//!
//! [`MIGRATIONS`] is append-only: entry `n` makes schema version `n + 1` from version `n`, each in
//! its own transaction together with its row in `migrations` and with `user_version`. Versions that
//! were once released are never edited. A higher version than is known here means that a newer
//! program wrote the file: it is refused and left alone.
//!
//! Must never touch a file before it has been checked: an unusable one keeps its bytes.

use crate::model::fingerprint::HashKey;
use crate::model::memory::Memory;
use crate::model::time::Timestamp;
use crate::store::sessions::{self, Sessions};
use crate::store::{files, records, rows, usage};
use crate::world::{ErrorKind, WorldError};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, Transaction, TransactionBehavior};
use std::path::Path;
use std::time::Duration;

/// Marks the file as ours (`PRAGMA application_id`): "MCPO".
const APPLICATION_ID: i64 = 0x4d43_504f;
/// How long a statement waits for a reader such as a backup, before it fails.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// What the write-ahead log shrinks to after a checkpoint, in bytes.
const WAL_BYTES_KEPT: i64 = 4 * 1024 * 1024;

/// `meta`: the 32 bytes of the spec hashes' key.
const HASH_KEY: &str = "hash_key";
/// `meta`: how often the run intents have changed.
const GENERATION: &str = "intents_generation";
/// `meta`: the last known target id of this host.
pub(super) const TARGET_ID: &str = "balancer_target_id";
/// `meta`: when servers were restarted lately that nobody wanted restarted.
pub(super) const UNWANTED: &str = "unwanted_restarts";

/// `meta`: who wants this host drained, as JSON.
pub(super) const DRAIN: &str = "host_drain";

/// Every version's way from the one before.
pub(super) const MIGRATIONS: &[Migration] = &[
    Migration { name: "ledger, attempts, pins, intents, balancer", sql: V1 },
    Migration { name: "sessions, handshakes", sql: sessions::TABLES },
    Migration { name: "tasks, audit", sql: records::TABLES },
    Migration { name: "usage", sql: usage::TABLES },
    Migration { name: "recoveries, pauses", sql: RECOVERIES },
    Migration { name: "calls", sql: records::CALLS },
    Migration { name: "dependency waits, memory raises", sql: WAITS },
    Migration { name: "naps, offers", sql: NAPS },
    Migration { name: "ends", sql: ENDS },
    Migration { name: "results of tasks apart", sql: records::RESULTS },
    Migration { name: "instances of calls", sql: records::REPLICAS },
];
/// The step that made the last table that [`peek`] cannot do without.
const PEEKED: usize = 1;

/// One step.
pub(super) struct Migration {
    /// What it brings, for the `migrations` table.
    pub(super) name: &'static str,
    /// Its statements.
    pub(super) sql: &'static str,
}

const V1: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE leases (
    server TEXT PRIMARY KEY,
    port INTEGER NOT NULL CHECK (port BETWEEN 1 AND 65535),
    next_port INTEGER CHECK (next_port BETWEEN 1 AND 65535),
    since INTEGER NOT NULL,
    fixed INTEGER NOT NULL CHECK (fixed IN (0, 1))
) STRICT, WITHOUT ROWID;
CREATE TABLE attempts (
    server TEXT PRIMARY KEY,
    crashes INTEGER NOT NULL,
    started INTEGER,
    down_since INTEGER,
    failures INTEGER NOT NULL,
    failed_spec TEXT,
    next_try INTEGER,
    up INTEGER NOT NULL CHECK (up IN (0, 1)),
    port_taken INTEGER,
    quota_until INTEGER,
    last_error TEXT
) STRICT, WITHOUT ROWID;
CREATE TABLE pins (
    server TEXT PRIMARY KEY,
    reference TEXT NOT NULL,
    image TEXT NOT NULL,
    digest TEXT,
    pulled INTEGER
) STRICT, WITHOUT ROWID;
CREATE TABLE intents (
    server TEXT PRIMARY KEY,
    run INTEGER NOT NULL CHECK (run IN (0, 1)),
    asked_by TEXT NOT NULL,
    asked_at INTEGER NOT NULL,
    valid_until INTEGER,
    file_enabled INTEGER NOT NULL CHECK (file_enabled IN (0, 1)),
    restart INTEGER
) STRICT, WITHOUT ROWID;
CREATE TABLE balancer_draining (target TEXT PRIMARY KEY, until INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE balancer_empty (target_group TEXT PRIMARY KEY, since INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE balancer_registered (server TEXT PRIMARY KEY, ports TEXT NOT NULL) STRICT, WITHOUT ROWID;
";

const RECOVERIES: &str = "
CREATE TABLE recoveries (
    server TEXT PRIMARY KEY,
    tries INTEGER NOT NULL,
    last INTEGER NOT NULL,
    why TEXT NOT NULL,
    spec TEXT NOT NULL,
    anew TEXT
) STRICT, WITHOUT ROWID;
CREATE TABLE pauses (
    scope TEXT PRIMARY KEY,
    asked_by TEXT NOT NULL,
    asked_at INTEGER NOT NULL,
    valid_until INTEGER
) STRICT, WITHOUT ROWID;
";

const WAITS: &str = "
CREATE TABLE dependency_waits (server TEXT PRIMARY KEY, since INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE memory_raises (
    server TEXT PRIMARY KEY,
    from_bytes INTEGER NOT NULL,
    to_bytes INTEGER NOT NULL,
    raised_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

const NAPS: &str = "
CREATE TABLE naps (
    server TEXT PRIMARY KEY,
    awake INTEGER NOT NULL CHECK (awake IN (0, 1)),
    since INTEGER NOT NULL,
    idle INTEGER NOT NULL CHECK (idle IN (0, 1)),
    used INTEGER NOT NULL,
    run TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE offers (
    number INTEGER PRIMARY KEY,
    server TEXT NOT NULL UNIQUE,
    text TEXT NOT NULL
) STRICT;
";

const ENDS: &str = "
CREATE TABLE ends (server TEXT PRIMARY KEY, text TEXT NOT NULL) STRICT, WITHOUT ROWID;
";

/// Made outside of the numbered steps, because it records them.
const MIGRATIONS_TABLE: &str = "CREATE TABLE IF NOT EXISTS migrations \
    (version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied INTEGER NOT NULL) STRICT";

/// An open database and what was in it.
pub(super) struct Database {
    pub(super) connection: Connection,
    pub(super) sessions: Sessions,
    pub(super) memory: Memory,
    pub(super) key: HashKey,
    pub(super) generation: u64,
    pub(super) dropped: usize,
}

/// Why a database cannot be used.
#[derive(Debug)]
pub(super) enum Failure {
    /// Its content cannot be trusted.
    Corrupt(String),
    /// It may be good, but not for us, or not now.
    Refused(WorldError),
}

impl Failure {
    pub(super) fn into_error(self, path: &Path) -> WorldError {
        match self {
            Self::Corrupt(why) => WorldError::new(opening(path), ErrorKind::Failed, why),
            Self::Refused(error) => error,
        }
    }

    /// Sorts an error of SQLite: the content's fault, or anything else's.
    fn of(path: &Path, error: &rusqlite::Error) -> Self {
        let content = match error {
            rusqlite::Error::SqliteFailure(inner, _) => match inner.code {
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => true,
                // What is no table of ours, or has other columns.
                ErrorCode::Unknown => inner.extended_code == rusqlite::ffi::SQLITE_ERROR,
                _ => false,
            },
            rusqlite::Error::SqlInputError { .. }
            | rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::Utf8Error(..)
            | rusqlite::Error::QueryReturnedNoRows => true,
            _ => false,
        };
        if content {
            Self::Corrupt(error.to_string())
        } else {
            Self::Refused(sql_error(&opening(path), error))
        }
    }
}

fn opening(path: &Path) -> String {
    format!("opening state {}", path.display())
}

/// Opens, checks, migrates and reads the database at `path`; makes it when there is none.
pub(super) fn open(path: &Path, now: Timestamp, fresh_key: [u8; 32]) -> Result<Database, Failure> {
    files::make_private(path).map_err(Failure::Refused)?;
    let failed = |error: rusqlite::Error| Failure::of(path, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    // Until the content is known to be good, closing must not write the log into the file.
    let late = |connection: &Connection, on| {
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, on).map(|_| ())
    };
    let connect = || {
        let connection = Connection::open_with_flags(path, flags)?;
        late(&connection, true)?;
        configure(&connection)?;
        Ok(connection)
    };
    let mut connection = connect().map_err(failed)?;
    let version = checked_version(&connection, path)?;
    keep_durably(&connection, path)?;
    migrate(&mut connection, version, MIGRATIONS, now).map_err(failed)?;
    let key = hash_key(&connection, Some(fresh_key)).map_err(failed)?;
    let generation = generation(&connection).map_err(failed)?;
    let rows::Loaded { memory, strays } = rows::load(&connection).map_err(failed)?;
    rows::drop_strays(&connection, &strays).map_err(failed)?;
    let sessions = connect().and_then(Sessions::new).map_err(failed)?;
    late(&connection, false).and_then(|()| late(sessions.connection(), false)).map_err(failed)?;
    Ok(Database { connection, sessions, memory, key, generation, dropped: strays.len() })
}

/// Another connection to a database that is open and sound.
pub(super) fn beside(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    configure(&connection)?;
    Ok(connection)
}

/// A connection that changes nothing.
pub(super) fn looking(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    configure(&connection)?;
    Ok(connection)
}

/// Reads a database without writing; `None` for one that was never filled.
pub(super) fn peek(path: &Path) -> Result<Option<(Memory, HashKey, u64)>, WorldError> {
    let read = || {
        let failed = |error: rusqlite::Error| Failure::of(path, &error);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        configure(&connection).map_err(failed)?;
        // One transaction, so that a running daemon's save falls before or after, not between.
        let connection = connection.transaction().map_err(failed)?;
        let version = checked_version(&connection, path)?;
        if version < PEEKED {
            return Ok(None);
        }
        let key = hash_key(&connection, None).map_err(failed)?;
        let generation = generation(&connection).map_err(failed)?;
        Ok(Some((rows::load(&connection).map_err(failed)?.memory, key, generation)))
    };
    read().map_err(|failure: Failure| failure.into_error(path))
}

/// What holds for every connection, readers too; writes nothing.
fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.pragma_update(None, "cell_size_check", true)
}

/// Every commit is on disk before it returns; the log never grows without end.
fn keep_durably(connection: &Connection, path: &Path) -> Result<(), Failure> {
    let failed = |error: rusqlite::Error| Failure::of(path, &error);
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0)).map_err(failed)?;
    if mode != "wal" {
        let cause = format!("its file system cannot keep a write-ahead log (SQLite offers '{mode}')");
        return Err(Failure::Refused(WorldError::new(opening(path), ErrorKind::Failed, cause)));
    }
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    connection.pragma_update_and_check(None, "journal_size_limit", WAL_BYTES_KEPT, |_| Ok(())).map_err(failed)
}

/// The schema version of a database that is sound and ours; 0 for a new one.
fn checked_version(connection: &Connection, path: &Path) -> Result<usize, Failure> {
    let failed = |error: rusqlite::Error| Failure::of(path, &error);
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
    let version = pragma(connection, "user_version").map_err(failed)?;
    let owner = pragma(connection, "application_id").map_err(failed)?;
    if (tables, version, owner) == (0, 0, 0) {
        return Ok(0);
    }
    if owner != APPLICATION_ID {
        return Err(Failure::Corrupt("it is not a state database of this program".to_owned()));
    }
    let verdict: String =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if verdict != "ok" {
        return Err(Failure::Corrupt(verdict));
    }
    let recorded: i64 = connection
        .query_row("SELECT coalesce(max(version), 0) FROM migrations", [], |row| row.get(0))
        .map_err(failed)?;
    let known = MIGRATIONS.len();
    match usize::try_from(version) {
        Ok(number) if recorded == version && number <= known => Ok(number),
        Ok(number) if recorded == version => {
            let cause = format!("it has schema version {number}, this program knows versions up to {known}");
            Err(Failure::Refused(WorldError::new(opening(path), ErrorKind::Invalid, cause)))
        }
        Ok(_) | Err(_) => {
            Err(Failure::Corrupt(format!("schema version {version}, but {recorded} steps were taken")))
        }
    }
}

/// Takes every step after `version`.
pub(super) fn migrate(
    connection: &mut Connection,
    version: usize,
    steps: &[Migration],
    now: Timestamp,
) -> rusqlite::Result<()> {
    for (number, step) in (1_i64..).zip(steps).skip(version) {
        let transaction = begin(connection)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.execute_batch(MIGRATIONS_TABLE)?;
        transaction.execute_batch(step.sql)?;
        let record = "INSERT INTO migrations (version, name, applied) VALUES (?1, ?2, ?3)";
        transaction.execute(record, (number, step.name, now.0))?;
        transaction.pragma_update(None, "user_version", number)?;
        transaction.commit()?;
    }
    Ok(())
}

/// Begins a transaction that writes: it waits its turn now rather than failing half-way.
pub(super) fn begin(connection: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}

fn hash_key(connection: &Connection, fresh: Option<[u8; 32]>) -> rusqlite::Result<HashKey> {
    let read = "SELECT value FROM meta WHERE key = ?1";
    let kept: Option<[u8; 32]> = connection.query_row(read, [HASH_KEY], |row| row.get(0)).optional()?;
    match (kept, fresh) {
        (Some(bytes), _) => Ok(HashKey::new(bytes)),
        (None, Some(bytes)) => {
            connection.execute("INSERT INTO meta (key, value) VALUES (?1, ?2)", (HASH_KEY, &bytes))?;
            Ok(HashKey::new(bytes))
        }
        (None, None) => Err(rusqlite::Error::QueryReturnedNoRows),
    }
}

/// How often the run intents have changed.
pub(super) fn generation(connection: &Connection) -> rusqlite::Result<u64> {
    let read = "SELECT value FROM meta WHERE key = ?1";
    let kept: Option<i64> = connection.query_row(read, [GENERATION], |row| row.get(0)).optional()?;
    kept.map_or(Ok(0), |number| {
        u64::try_from(number).map_err(|_negative| rusqlite::Error::IntegralValueOutOfRange(0, number))
    })
}

/// Keeps how often the run intents have changed.
pub(super) fn set_generation(connection: &Connection, generation: u64) -> rusqlite::Result<()> {
    let number = i64::try_from(generation).unwrap_or(i64::MAX);
    connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)", (GENERATION, number))?;
    Ok(())
}

/// The `meta` key of a note: a name space of its own, so that no note hits a key of the store's.
pub(super) fn note_key(key: &str) -> String {
    format!("note:{key}")
}

/// A text of `meta`.
pub(super) fn meta_text(connection: &Connection, key: &str) -> rusqlite::Result<Option<String>> {
    connection.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional()
}

/// Keeps a text in `meta`.
pub(super) fn set_meta(connection: &Connection, key: &str, value: &str) -> rusqlite::Result<()> {
    connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)", (key, value))?;
    Ok(())
}

/// Removes a key from `meta`.
pub(super) fn remove_meta(connection: &Connection, key: &str) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM meta WHERE key = ?1", [key])?;
    Ok(())
}

/// An error of SQLite as the world's. Statements carry no values, so it has no content in it.
pub(super) fn sql_error(doing: &str, error: &rusqlite::Error) -> WorldError {
    let kind = match error.sqlite_error_code() {
        Some(
            ErrorCode::PermissionDenied
            | ErrorCode::ReadOnly
            | ErrorCode::CannotOpen
            | ErrorCode::AuthorizationForStatementDenied,
        ) => ErrorKind::Denied,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => ErrorKind::Conflict,
        _ => ErrorKind::Failed,
    };
    WorldError::new(doing, kind, error.to_string())
}
