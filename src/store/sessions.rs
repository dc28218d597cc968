//! Sessions and handshakes: many small changes, none of them worth waiting for the disk.
//!
//! A connection of their own to the same file, with `synchronous = NORMAL`: a change that returned
//! survives this process however it ends, and may be lost with the power, which ends the clients'
//! connections too. The main connection stays at FULL and flushes the one log as a whole, so a save
//! of the ledger is on disk whatever lies in the log before it. Never OFF: a log that is copied into
//! the file unflushed can spoil it for the ledger too.
//!
//! Must never keep more than [`SESSIONS_MAX`] sessions and [`LEG_MEMORIES_MAX`] handshakes, and
//! never a session's id, only its hash.

use crate::model::id::{ContainerId, ServerId};
use crate::model::session::{
    LEG_INFO_BYTES_MAX, LEG_MEMORIES_MAX, LegEra, LegMemory, SESSIONS_MAX, SessionChange, SessionRecord,
};
use crate::model::time::Timestamp;
use crate::store::{SqliteStore, schema};
use crate::world::{Answer, ErrorKind, LegStore, SessionStore, WorldError};
use rusqlite::{Connection, OptionalExtension as _, Row};

/// The tables that this module owns, for [`schema::MIGRATIONS`].
pub(super) const TABLES: &str = "
CREATE TABLE sessions (
    id_hash TEXT PRIMARY KEY,
    server TEXT NOT NULL,
    version TEXT NOT NULL,
    capabilities TEXT NOT NULL,
    client TEXT NOT NULL,
    principal TEXT NOT NULL,
    log_level TEXT,
    subscriptions TEXT NOT NULL,
    created INTEGER NOT NULL,
    last_used INTEGER NOT NULL
) STRICT;
CREATE INDEX sessions_by_use ON sessions (last_used, id_hash DESC);
CREATE TABLE legs (
    number INTEGER PRIMARY KEY,
    container TEXT NOT NULL UNIQUE,
    era TEXT NOT NULL,
    version TEXT NOT NULL,
    info TEXT NOT NULL
) STRICT;
";

const LOAD: &str = "SELECT id_hash, server, version, capabilities, client, principal, log_level, \
    subscriptions, created, last_used FROM sessions ORDER BY last_used DESC, id_hash";
const PUT: &str = "INSERT INTO sessions (id_hash, server, version, capabilities, client, principal, \
    log_level, subscriptions, created, last_used) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) \
    ON CONFLICT (id_hash) DO UPDATE SET server = excluded.server, version = excluded.version, \
    capabilities = excluded.capabilities, client = excluded.client, principal = excluded.principal, \
    log_level = excluded.log_level, subscriptions = excluded.subscriptions, \
    created = excluded.created, last_used = excluded.last_used";
const HAS: &str = "SELECT 1 FROM sessions WHERE id_hash = ?1";
const TOUCH: &str = "UPDATE sessions SET last_used = ?2 WHERE id_hash = ?1";
const REMOVE: &str = "DELETE FROM sessions WHERE id_hash = ?1";
const COUNT: &str = "SELECT count(*) FROM sessions";
const TRIM: &str = "DELETE FROM sessions WHERE id_hash IN \
    (SELECT id_hash FROM sessions ORDER BY last_used, id_hash DESC LIMIT ?1)";

/// The connection for what may be lost with the power.
pub(super) struct Sessions {
    connection: Connection,
    /// Sessions in the table; `None` after a failure, until they are counted again.
    held: Option<i64>,
}

impl Sessions {
    /// Takes over a connection to a database whose steps have all been taken.
    pub(super) fn new(connection: Connection) -> rusqlite::Result<Self> {
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        let held = connection.query_row(COUNT, [], |row| row.get(0))?;
        // Both tables are read once, so that a broken file is found now.
        let _newest: Option<i64> =
            connection.query_row("SELECT max(number) FROM legs", [], |row| row.get(0)).optional()?.flatten();
        Ok(Self { connection, held })
    }

    pub(super) const fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) const fn connection_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// All sessions, most recently used first; rows that mean nothing (any more) are removed.
    fn load(&mut self) -> rusqlite::Result<Vec<SessionRecord>> {
        let (mut records, mut strays) = (Vec::new(), Vec::new());
        let mut statement = self.connection.prepare(LOAD)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            match record(row)? {
                Ok(record) => records.push(record),
                Err(id_hash) => strays.push(id_hash),
            }
        }
        for id_hash in strays {
            self.held = None;
            self.connection.execute(REMOVE, [id_hash])?;
        }
        Ok(records)
    }

    fn apply(&mut self, changes: &[SessionChange]) -> rusqlite::Result<()> {
        let known = self.held.take();
        let transaction = schema::begin(&mut self.connection)?;
        let mut held = match known {
            Some(held) => held,
            None => transaction.query_row(COUNT, [], |row| row.get(0))?,
        };
        for change in changes {
            held += write(&transaction, change)?;
        }
        let surplus = held - bound(SESSIONS_MAX);
        if surplus > 0 {
            transaction.prepare_cached(TRIM)?.execute([surplus])?;
            held -= surplus;
        }
        transaction.commit()?;
        self.held = Some(held);
        Ok(())
    }

    fn load_legs(&self) -> rusqlite::Result<Vec<LegMemory>> {
        let mut statement =
            self.connection.prepare("SELECT container, era, version, info FROM legs ORDER BY number")?;
        let rows = statement.query_map([], |row| {
            let era: String = row.get(1)?;
            let Some(era) = LegEra::parse(&era) else { return Ok(None) };
            let container = ContainerId(row.get(0)?);
            Ok(Some(LegMemory { container, era, version: row.get(2)?, info: row.get(3)? }))
        })?;
        rows.filter_map(Result::transpose).collect()
    }

    fn put_leg(&mut self, leg: &LegMemory) -> rusqlite::Result<()> {
        let LegMemory { container, era, version, info } = leg;
        let transaction = schema::begin(&mut self.connection)?;
        let put = "INSERT OR REPLACE INTO legs (container, era, version, info) VALUES (?1, ?2, ?3, ?4)";
        transaction.execute(put, (container.as_str(), era.as_str(), version, info))?;
        let trim = "DELETE FROM legs WHERE number IN (SELECT number FROM legs ORDER BY number DESC LIMIT -1 OFFSET ?1)";
        transaction.execute(trim, [bound(LEG_MEMORIES_MAX)])?;
        transaction.commit()
    }

    fn remove_leg(&self, container: &ContainerId) -> rusqlite::Result<()> {
        self.connection.execute("DELETE FROM legs WHERE container = ?1", [container.as_str()])?;
        Ok(())
    }
}

/// A number of rows as SQLite has it.
fn bound(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

/// Writes one change; the result is how many rows there are more.
fn write(connection: &Connection, change: &SessionChange) -> rusqlite::Result<i64> {
    match change {
        SessionChange::Put(record) if record.fits() => {
            let SessionRecord {
                id_hash,
                server,
                version,
                capabilities,
                client,
                principal,
                log_level,
                subscriptions,
                created,
                last_used,
            } = record;
            let subscriptions = serde_json::to_string(subscriptions)
                .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
            let known = connection.prepare_cached(HAS)?.exists([id_hash])?;
            connection.prepare_cached(PUT)?.execute((
                id_hash,
                server.as_str(),
                version,
                capabilities,
                client,
                principal,
                log_level,
                subscriptions,
                created.0,
                last_used.0,
            ))?;
            Ok(i64::from(!known))
        }
        SessionChange::Put(SessionRecord { id_hash, .. }) | SessionChange::Remove(id_hash) => {
            Ok(-bound(connection.prepare_cached(REMOVE)?.execute([id_hash])?))
        }
        SessionChange::Touch { id_hash, last_used } => {
            connection.prepare_cached(TOUCH)?.execute((id_hash, last_used.0))?;
            Ok(0)
        }
    }
}

/// A row as a record, or the key of one that is none.
fn record(row: &Row<'_>) -> rusqlite::Result<Result<SessionRecord, String>> {
    let (id_hash, server, subscriptions): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(7)?);
    let (Ok(server), Ok(subscriptions)) = (ServerId::endpoint(&server), serde_json::from_str(&subscriptions))
    else {
        return Ok(Err(id_hash));
    };
    Ok(Ok(SessionRecord {
        id_hash,
        server,
        version: row.get(2)?,
        capabilities: row.get(3)?,
        client: row.get(4)?,
        principal: row.get(5)?,
        log_level: row.get(6)?,
        subscriptions,
        created: Timestamp(row.get(8)?),
        last_used: Timestamp(row.get(9)?),
    }))
}

impl SqliteStore {
    pub(super) fn with_sessions<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&mut Sessions) -> rusqlite::Result<T> + Send + 'static,
    ) -> Answer<'_, T> {
        self.blocking(move |inner| {
            work(&mut inner.sessions).map_err(|error| schema::sql_error(doing, &error))
        })
    }
}

impl SessionStore for SqliteStore {
    fn load(&self) -> Answer<'_, Vec<SessionRecord>> {
        self.with_sessions("reading sessions", |sessions| sessions.load())
    }

    fn apply<'a>(&'a self, changes: &'a [SessionChange]) -> Answer<'a, ()> {
        if changes.is_empty() {
            return Box::pin(std::future::ready(Ok(())));
        }
        let changes = changes.to_vec();
        self.with_sessions("keeping sessions", move |sessions| sessions.apply(&changes))
    }
}

impl LegStore for SqliteStore {
    fn load_legs(&self) -> Answer<'_, Vec<LegMemory>> {
        self.with_sessions("reading handshakes", |sessions| sessions.load_legs())
    }

    fn put_leg<'a>(&'a self, leg: &'a LegMemory) -> Answer<'a, ()> {
        if leg.info.len() > LEG_INFO_BYTES_MAX {
            let doing = format!("keeping the handshake with container {}", leg.container);
            let why = format!("it is longer than {LEG_INFO_BYTES_MAX} bytes");
            return Box::pin(std::future::ready(Err(WorldError::new(doing, ErrorKind::Invalid, why))));
        }
        let leg = leg.clone();
        self.with_sessions("keeping a handshake", move |sessions| sessions.put_leg(&leg))
    }

    fn remove_leg<'a>(&'a self, container: &'a ContainerId) -> Answer<'a, ()> {
        let container = container.clone();
        self.with_sessions("forgetting a handshake", move |sessions| sessions.remove_leg(&container))
    }
}
