//! What survives a restart, in SQLite: port ledger, attempts, pinned images, run intents, what the
//! load balancer half remembers, and the key of the spec hashes.
//!
//! One writer, one transaction per save, and only the rows that changed. WAL with
//! `synchronous = FULL`: a save that returned has reached the disk, whatever happens to the power.
//! A save of attempts alone, at starts or to bring a server back, is behind the start of every container that died, and survives this process
//! only: who loses power has no containers to count the crashes of.
//! Sessions change too often for that and lie apart, see [`sessions`].
//! A file that cannot be trusted is moved aside, never deleted, and a new one is made: labels on
//! the containers are enough to rebuild the ledger. Run intents, pauses and the drain of this host are
//! what people asked for and stand nowhere else, so they are kept a second time in `intents.json` beside
//! the database; a generation number in both tells which one is newer.
//!
//! Invariant: no secret of a server is ever in here, and a database of a newer program is refused
//! and left exactly as it is (held by the tests of this module).

mod files;
mod intents;
mod offers;
pub mod records;
mod rows;
mod schema;
mod sessions;
#[cfg(test)]
mod tests;
mod usage;

use crate::model::fingerprint::HashKey;
use crate::model::memory::Memory;
use crate::model::time::Timestamp;
use crate::world::{Answer, ErrorKind, Store, WorldError};
use intents::{Mirror, Wishes};
use rusqlite::Connection;
use sessions::Sessions;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Longest value of [`SqliteStore::set_note`], in bytes: notes are small facts, not documents.
pub const NOTE_BYTES_MAX: usize = 64 * 1024;

/// The state store of one daemon or one-shot. Cloning shares the connections.
#[derive(Clone)]
pub struct SqliteStore {
    path: PathBuf,
    inner: Arc<Mutex<Inner>>,
}

/// A store that was opened, and what was in it.
#[derive(Debug)]
pub struct Opened {
    /// The store, for saves.
    pub store: SqliteStore,
    /// What was kept; empty in a new store.
    pub memory: Memory,
    /// The key of the spec hashes.
    pub key: HashKey,
    /// What was lost or restored while opening, in words for the log and for `status`.
    pub recovered: Option<String>,
}

/// What [`peek`] found.
#[derive(Debug)]
pub struct Peeked {
    /// What was kept.
    pub memory: Memory,
    /// The key of the spec hashes.
    pub key: HashKey,
}

/// The connections and what is known to be on disk.
struct Inner {
    connection: Connection,
    /// The connection for what may be lost with the power.
    sessions: Sessions,
    /// What the tables hold; `None` after a failed save, until they are read again.
    kept: Option<Memory>,
    /// Counts every change of what people asked for.
    generation: u64,
    mirror: Mirror,
    /// Held for as long as the store lives: two writers would overwrite each other's rows.
    _lock: std::fs::File,
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Opens the store at `path` (`…/state.db`), making directory (0700) and file (0600) as needed.
/// `fresh_key` becomes the key of the spec hashes if there is none yet: 32 random bytes.
/// Blocks on the disk: call it before the runtime has work, or on a blocking thread.
///
/// # Errors
/// `Denied` when directory or file cannot be used, `Conflict` when another process holds the
/// store, `Invalid` when a newer program wrote it, `Failed` for a disk that does not work;
/// [`hint`] has the remedy. A corrupt database is not an error: see [`Opened::recovered`].
pub fn open(path: &Path, now: Timestamp, fresh_key: [u8; 32]) -> Result<Opened, WorldError> {
    files::prepare_dir(path)?;
    let lock = files::lock(path)?;
    let mut notes = Vec::new();
    let existed = files::length(path)?;
    if existed == Some(0) {
        let aside = files::move_aside(path, now)?;
        notes.push(format!("{} was empty and was moved to {}", path.display(), aside.display()));
    }
    let database = match schema::open(path, now, fresh_key) {
        Ok(database) => database,
        Err(schema::Failure::Refused(error)) => return Err(error),
        Err(schema::Failure::Corrupt(why)) => {
            let aside = files::move_aside(path, now)?;
            notes.push(format!(
                "{} was unusable ({why}), was moved to {} and made anew",
                path.display(),
                aside.display()
            ));
            schema::open(path, now, fresh_key).map_err(|failure| failure.into_error(path))?
        }
    };
    let schema::Database { connection, sessions, memory, key, generation, dropped } = database;
    if dropped > 0 {
        notes.push(format!("{dropped} rows with names that are no server ids were dropped"));
    }
    let (mirror, mirrored) = Mirror::open(path, now, &mut notes)?;
    let inner = Inner { connection, sessions, kept: Some(memory), generation, mirror, _lock: lock };
    let store = SqliteStore { path: path.to_owned(), inner: Arc::new(Mutex::new(inner)) };
    let memory = store.locked(|inner| inner.settle(mirrored, existed.is_some(), &mut notes))?;
    let recovered = (!notes.is_empty()).then(|| notes.join("; "));
    Ok(Opened { store, memory, key, recovered })
}

/// Reads the store at `path` without changing, moving or locking anything, for commands that only
/// look; `None` when there is none, or one that holds nothing yet.
///
/// # Errors
/// As [`open`]; a corrupt database is `Failed` here.
pub fn peek(path: &Path) -> Result<Option<Peeked>, WorldError> {
    if files::length(path)?.is_none_or(|bytes| bytes == 0) {
        return Ok(None);
    }
    let Some((mut memory, key, generation)) = schema::peek(path)? else {
        return Ok(None);
    };
    if let Some(newer) = intents::read(path).ok().flatten().filter(|seen| seen.generation > generation) {
        newer.wishes.put_into(&mut memory);
    }
    Ok(Some(Peeked { memory, key }))
}

/// What helps against an error of [`open`], for the line under it.
#[must_use]
pub fn hint(error: &WorldError) -> Option<&'static str> {
    match error.kind {
        ErrorKind::Denied => Some(
            "the user that runs the daemon must own the state directory: chown it, or set XDG_STATE_HOME",
        ),
        ErrorKind::Conflict => {
            Some("another process of this program uses this state: stop it, or ask it instead")
        }
        ErrorKind::Invalid => {
            Some("install the version that wrote it again, or move the file away to start anew")
        }
        ErrorKind::NotFound
        | ErrorKind::Throttled
        | ErrorKind::Quota
        | ErrorKind::Unreachable
        | ErrorKind::TimedOut
        | ErrorKind::Failed => None,
    }
}

impl SqliteStore {
    /// Where the database is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A small fact kept under `key`, such as when something was last done.
    pub fn note<'a>(&'a self, key: &'a str) -> Answer<'a, Option<String>> {
        let key = schema::note_key(key);
        self.blocking(move |inner| {
            schema::meta_text(&inner.connection, &key)
                .map_err(|e| schema::sql_error(&format!("reading note {key}"), &e))
        })
    }

    /// Keeps a small fact under `key`, at most [`NOTE_BYTES_MAX`]; `None` removes it.
    pub fn set_note<'a>(&'a self, key: &'a str, value: Option<&'a str>) -> Answer<'a, ()> {
        let (key, value) = (schema::note_key(key), value.map(str::to_owned));
        self.blocking(move |inner| {
            let doing = format!("keeping note {key}");
            if value.as_ref().is_some_and(|text| text.len() > NOTE_BYTES_MAX) {
                return Err(WorldError::new(
                    doing,
                    ErrorKind::Invalid,
                    format!("it is longer than {NOTE_BYTES_MAX} bytes"),
                ));
            }
            let done = match value {
                Some(text) => schema::set_meta(&inner.connection, &key, &text),
                None => schema::remove_meta(&inner.connection, &key),
            };
            done.map_err(|error| schema::sql_error(&doing, &error))
        })
    }

    fn locked<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        // A panic in between rolled its transaction back; `kept` was taken out before it began.
        work(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Inner) -> Result<T, WorldError> + Send + 'static,
    ) -> Answer<'_, T> {
        let this = self.clone();
        Box::pin(async move {
            match tokio::task::spawn_blocking(move || this.locked(work)).await {
                Ok(answer) => answer,
                Err(error) => {
                    Err(WorldError::new("using the state store", ErrorKind::Failed, error.to_string()))
                }
            }
        })
    }
}

impl Store for SqliteStore {
    fn save<'a>(&'a self, memory: &'a Memory) -> Answer<'a, ()> {
        let (memory, path) = (memory.clone(), self.path.clone());
        self.blocking(move |inner| inner.save(memory, &path))
    }
}

impl Inner {
    /// Brings tables and mirror to the newer of the two, and returns what is kept.
    fn settle(
        &mut self,
        mirrored: Option<intents::Kept>,
        existed: bool,
        notes: &mut Vec<String>,
    ) -> Result<Memory, WorldError> {
        let mut memory = self.kept.clone().unwrap_or_default();
        if let Some(seen) = mirrored.filter(|seen| seen.generation > self.generation) {
            if seen.wishes != Wishes::of(&memory) || !existed {
                let (what, from) = (seen.wishes.words(), self.mirror.path().display());
                notes.push(format!("{what} were taken from {from}"));
            }
            seen.wishes.put_into(&mut memory);
            self.write(&memory, seen.generation)
                .map_err(|error| schema::sql_error("restoring what was asked for by hand", &error))?;
        }
        self.mirror.keep(self.generation, Wishes::of(&memory))?;
        self.kept = Some(memory.clone());
        Ok(memory)
    }

    fn save(&mut self, memory: Memory, path: &Path) -> Result<(), WorldError> {
        let failed = |error: rusqlite::Error| {
            schema::sql_error(&format!("saving state to {}", path.display()), &error)
        };
        if self.kept.is_none() {
            self.generation = schema::generation(&self.connection).map_err(failed)?;
            self.kept = Some(rows::load(&self.connection).map_err(failed)?.memory);
        }
        let wishes = Wishes::of(&memory);
        let changed = self.kept.as_ref().is_none_or(|kept| Wishes::of(kept) != wishes);
        self.write(&memory, self.generation + u64::from(changed)).map_err(failed)?;
        self.mirror.keep(self.generation, wishes)?;
        self.kept = Some(memory);
        Ok(())
    }

    /// One transaction with what differs. Leaves `kept` empty when it fails, because a commit that
    /// reports an error may have happened all the same.
    fn write(&mut self, memory: &Memory, generation: u64) -> rusqlite::Result<()> {
        let kept = self.kept.take().unwrap_or_default();
        if kept != *memory || generation != self.generation {
            self.flush_commits(generation != self.generation || !only_attempts_differ(&kept, memory))?;
            let transaction = schema::begin(&mut self.connection)?;
            rows::save(&transaction, &kept, memory)?;
            if generation != self.generation {
                schema::set_generation(&transaction, generation)?;
            }
            transaction.commit()?;
            self.generation = generation;
        }
        self.kept = Some(kept);
        Ok(())
    }

    /// Whether a commit waits for the disk.
    fn flush_commits(&self, wait: bool) -> rusqlite::Result<()> {
        self.connection.pragma_update(None, "synchronous", if wait { "FULL" } else { "NORMAL" })
    }
}

fn only_attempts_differ(kept: &Memory, memory: &Memory) -> bool {
    let (attempts, recoveries) = (memory.attempts.clone(), memory.recoveries.clone());
    Memory {
        attempts,
        recoveries,
        ends: memory.ends.clone(),
        unwanted: memory.unwanted.clone(),
        ..kept.clone()
    } == *memory
}
