//! What people asked for by hand a second time, in `intents.json` beside the database: starts, stops,
//! pauses, the drain of this host.
//!
//! A person asked for it, and unlike everything else in the store it cannot be found again in
//! labels. A generation number, not a clock, tells which copy is newer: clocks go back.
//!
//! Must never make a start fail because this copy is broken: it is moved aside like the database.

use crate::model::id::ServerId;
use crate::model::memory::{Intent, Memory, Pause, Scope};
use crate::model::time::Timestamp;
use crate::store::files;
use crate::world::WorldError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// The file's name.
const FILE_NAME: &str = "intents.json";
/// Form of the file.
const VERSION: u32 = 1;
/// Longest file that is read, in bytes: some 100,000 intents.
const FILE_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// The file's content.
#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    generation: u64,
    intents: BTreeMap<String, Intent>,
    /// Absent in files of older programs, as is what follows.
    #[serde(default)]
    pauses: BTreeMap<String, Pause>,
    #[serde(default)]
    drain: Option<Pause>,
}

/// What people asked for by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wishes {
    intents: BTreeMap<ServerId, Intent>,
    pauses: BTreeMap<Scope, Pause>,
    drain: Option<Pause>,
}

impl Wishes {
    /// Those of a memory.
    pub(super) fn of(memory: &Memory) -> Self {
        let Memory { intents, pauses, drain, .. } = memory;
        Self { intents: intents.clone(), pauses: pauses.clone(), drain: drain.clone() }
    }

    /// Puts them into a memory, in place of those it has.
    pub(super) fn put_into(self, memory: &mut Memory) {
        let Self { intents, pauses, drain } = self;
        (memory.intents, memory.pauses, memory.drain) = (intents, pauses, drain);
    }

    /// How many there are of which sort, in words.
    pub(super) fn words(&self) -> String {
        let mut words = format!("{} run intents", self.intents.len());
        if !self.pauses.is_empty() {
            words.push_str(&format!(", {} pauses", self.pauses.len()));
        }
        if self.drain.is_some() {
            words.push_str(", the drain of this host");
        }
        words
    }
}

/// Wishes and how often they had changed when they were kept.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) generation: u64,
    pub(super) wishes: Wishes,
}

/// The file, and which generation it is known to hold.
pub(super) struct Mirror {
    path: PathBuf,
    holds: Option<u64>,
}

impl Mirror {
    /// The mirror beside `database`, and what it holds. A broken one is moved aside and noted.
    pub(super) fn open(
        database: &Path,
        now: Timestamp,
        notes: &mut Vec<String>,
    ) -> Result<(Self, Option<Kept>), WorldError> {
        let path = path_beside(database);
        let kept = match read(database) {
            Ok(kept) => kept,
            Err(why) => {
                let aside = files::move_aside(&path, now)?;
                notes.push(format!(
                    "{} was unusable ({why}) and was moved to {}",
                    path.display(),
                    aside.display()
                ));
                None
            }
        };
        let holds = kept.as_ref().map(|kept| kept.generation);
        Ok((Self { path, holds }, kept))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes `wishes` unless the file holds this generation already. Nothing is written before
    /// the first wish.
    pub(super) fn keep(&mut self, generation: u64, wishes: Wishes) -> Result<(), WorldError> {
        if self.holds.unwrap_or(0) == generation {
            return Ok(());
        }
        let doing = || format!("writing {}", self.path.display());
        let Wishes { intents, pauses, drain } = wishes;
        let intents = intents.into_iter().map(|(id, intent)| (id.to_string(), intent)).collect();
        let pauses = pauses.into_iter().map(|(scope, pause)| (scope.to_string(), pause)).collect();
        let written = Written { version: VERSION, generation, intents, pauses, drain };
        let bytes = serde_json::to_vec_pretty(&written).map_err(|e| files::io_error(doing(), &e.into()))?;
        files::write_atomic(&self.path, &bytes).map_err(|e| files::io_error(doing(), &e))?;
        self.holds = Some(generation);
        Ok(())
    }
}

fn path_beside(database: &Path) -> PathBuf {
    files::dir_of(database).join(FILE_NAME)
}

/// What the file beside `database` holds; `None` when there is none, why not when it is broken.
pub(super) fn read(database: &Path) -> Result<Option<Kept>, String> {
    let file = match std::fs::File::open(path_beside(database)) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len > FILE_BYTES_MAX) {
        return Err(format!("longer than {FILE_BYTES_MAX} bytes"));
    }
    let written: Written = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    if written.version != VERSION {
        return Err(format!("version {} is not known", written.version));
    }
    // An id that stopped being one belongs to no server; the other wishes still hold.
    let intents =
        written.intents.into_iter().filter_map(|(id, intent)| Some((ServerId::instance(&id).ok()?, intent)));
    let pauses =
        written.pauses.into_iter().filter_map(|(scope, pause)| Some((Scope::try_from(scope).ok()?, pause)));
    let wishes = Wishes { intents: intents.collect(), pauses: pauses.collect(), drain: written.drain };
    Ok(Some(Kept { generation: written.generation, wishes }))
}
