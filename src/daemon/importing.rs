//! Writes finds into mcp.config.json, and takes that back.
//!
//! A change is proposed first, as a diff without secrets, and written when somebody agreed. What was
//! there before is kept as a backup beside the file, and a note says which one: as long as nobody else
//! changed the file since, `import --undo` brings it back.
//!
//! Must never write an entry that is an error, nor over a change that somebody made meanwhile.

use crate::config::edit::{self, Change};
use crate::config::foreign;
use crate::daemon::{Home, files, now, random_bytes, sha256};
use crate::discovery::diff::unified;
use crate::discovery::merge::{self, Outcome, Wish};
use crate::discovery::{Confidence, Find};
use crate::host::document;
use crate::model::fingerprint::HashKey;
use crate::terminal::failure::{Exit, Failure};
use crate::world::WorldError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What the note's name ends with.
const NOTE: &str = ".undo";
/// Longest note that is read, in bytes.
const NOTE_BYTES_MAX: u64 = 4096;

/// What would be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// The file.
    pub file: PathBuf,
    /// Its content, when there is one.
    pub before: Option<Vec<u8>>,
    /// Its content from then on.
    pub after: Vec<u8>,
    /// The difference, without secrets.
    pub diff: String,
}

/// What becomes of the finds.
#[derive(Clone, Debug, PartialEq)]
pub struct Merged {
    /// The change.
    pub proposal: Proposal,
    /// What becomes of each find, in their order.
    pub outcomes: Vec<Outcome>,
    /// What is doubtful about the new entries, a line each.
    pub warnings: Vec<String>,
}

impl Merged {
    /// How many entries are new.
    #[must_use]
    pub fn added(&self) -> usize {
        self.outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Add { .. })).count()
    }
}

/// What is known of the last change.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Note {
    schema_version: u32,
    /// SHA-256 of what was written.
    wrote: String,
    /// The name of the backup; `None` when there was no file before.
    backup: Option<String>,
    /// What was done, in words.
    what: String,
}

/// Works out what the file would be with the finds in it.
///
/// # Errors
/// A file that cannot be read or changed here.
pub async fn propose(home: &Home, finds: &[Find], wish: &Wish) -> Result<Merged, Failure> {
    let file = home.places.config.clone();
    let name = file.display().to_string();
    if !edit::is_editable(&name) {
        let failure = Failure::new(Exit::Usage, format!("writing {name}"));
        return Err(failure.cause("YAML is read and not written").hint("`discover --json` has the entries"));
    }
    let before = document::read(&file, files::CONFIG_BYTES_MAX).map_err(world)?;
    document::writable(&file).map_err(world)?;
    let old = before.as_deref().unwrap_or_default();
    let existing = existing(&name, old)?;
    let key = HashKey::new(random_bytes()?);
    let was = problems(home, &key, old).await;
    let mut outcomes = merge::plan(&existing, finds, wish);
    let (after, warnings) = loop {
        let after = changed(&name, old, &outcomes)?;
        let mut is = problems(home, &key, &after).await;
        is.retain(|(server, message), _| !was.contains_key(&(server.clone(), message.clone())));
        // What is an error is left out, and all is looked at again: each round leaves one out at least.
        if !leave(&mut outcomes, &is) {
            break (after, is.into_keys().map(|(server, message)| format!("{server}: {message}")).collect());
        }
    };
    let diff = unified(&name, &String::from_utf8_lossy(old), &String::from_utf8_lossy(&after));
    Ok(Merged { proposal: Proposal { file, before, after, diff }, outcomes, warnings })
}

fn world(error: WorldError) -> Failure {
    Failure::world(error, Exit::Failed)
}

/// The file's entries.
fn existing(name: &str, bytes: &[u8]) -> Result<Vec<(String, serde_json::Value)>, Failure> {
    if bytes.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    foreign::entries(name, bytes).map_err(|problem| {
        Failure::new(Exit::Usage, format!("the configuration cannot be used\n{problem}"))
            .hint("mend it first: `mcp-orchestrator validate`")
    })
}

/// The text with the new entries.
fn changed(name: &str, bytes: &[u8], outcomes: &[Outcome]) -> Result<Vec<u8>, Failure> {
    let changes: Vec<Change> = outcomes
        .iter()
        .filter_map(|outcome| match outcome {
            Outcome::Add { name, entry } => {
                Some(Change::Put { server: name.clone(), entry: entry.clone(), section: None, new: true })
            }
            Outcome::Same(_) | Outcome::Left(_) => None,
        })
        .collect();
    if changes.is_empty() {
        return Ok(bytes.to_vec());
    }
    edit::apply(name, bytes, &changes).map(String::into_bytes).map_err(|refusal| {
        let failure = Failure::new(Exit::Usage, format!("changing {name}")).cause(refusal.message);
        match refusal.hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })
}

/// Problems of a text by server and message, and whether each is an error.
async fn problems(home: &Home, key: &HashKey, bytes: &[u8]) -> BTreeMap<(String, String), bool> {
    if bytes.trim_ascii().is_empty() {
        return BTreeMap::new();
    }
    let loaded = files::interpret(home, key, bytes).await;
    let of_server = loaded.problems.into_iter().filter_map(|problem| {
        let error = problem.is_error();
        Some(((problem.server?, problem.message), error))
    });
    of_server.collect()
}

/// Leaves out new entries with errors; says whether there were any.
fn leave(outcomes: &mut [Outcome], problems: &BTreeMap<(String, String), bool>) -> bool {
    let mut left = false;
    for outcome in outcomes {
        let Outcome::Add { name, .. } = &*outcome else { continue };
        let wrong = problems.iter().find(|((server, _), error)| **error && server == name);
        if let Some(((_, message), _)) = wrong {
            *outcome = Outcome::Left(message.clone());
            left = true;
        }
    }
    left
}

/// Writes a proposal that somebody agreed to; says where the old content is.
///
/// # Errors
/// When the file changed meanwhile, or cannot be written.
pub fn write(home: &Home, proposal: &Proposal, what: &str) -> Result<Option<PathBuf>, Failure> {
    let Proposal { file, before, after, diff: _ } = proposal;
    let seen = document::read(file, files::CONFIG_BYTES_MAX).map_err(world)?;
    if seen != *before {
        let failure = Failure::new(Exit::Failed, format!("writing {}", file.display()));
        return Err(failure
            .cause("somebody changed it meanwhile")
            .hint("look at the new diff and agree again"));
    }
    // Without a backup there would be no way back.
    let backups = home.settings.storage.config_backups.max(1);
    document::replace(file, (before.as_deref(), after), backups, now()).map_err(world)?;
    let kept = before.as_ref().filter(|before| !before.is_empty());
    let backup = kept.and_then(|_| document::backups(file).ok()?.pop());
    let name = |path: &PathBuf| Some(path.file_name()?.to_string_lossy().into_owned());
    let note = Note {
        schema_version: 1,
        wrote: sha256(after),
        backup: backup.as_ref().and_then(name),
        what: what.to_owned(),
    };
    let text = serde_json::to_vec(&note).unwrap_or_default();
    document::replace(&note_of(file), (None, &text), 0, now()).map_err(world)?;
    Ok(backup)
}

fn note_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(NOTE);
    PathBuf::from(name)
}

/// What taking the last change back would write, and what that change was.
///
/// # Errors
/// When there is none, or somebody changed the file since.
pub fn propose_undo(home: &Home) -> Result<(Proposal, String), Failure> {
    let file = home.places.config.clone();
    let failed = |cause: &str| Failure::new(Exit::Failed, "undoing the last import").cause(cause);
    let note = document::read(&note_of(&file), NOTE_BYTES_MAX).map_err(world)?;
    let note: Option<Note> = note.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let Some(note) = note else { return Err(failed("there is none")) };
    let before = document::read(&file, files::CONFIG_BYTES_MAX).map_err(world)?;
    let is_ours = before.as_deref().is_some_and(|bytes| sha256(bytes) == note.wrote);
    let backup =
        note.backup.as_ref().filter(|name| !name.contains('/')).map(|name| file.with_file_name(name));
    if !is_ours {
        let failure = failed("the file was changed since");
        return Err(match &backup {
            Some(backup) => failure.hint(format!("the content before the import is in {}", backup.display())),
            None => failure,
        });
    }
    let after = match &backup {
        Some(backup) => document::read(backup, files::CONFIG_BYTES_MAX)
            .map_err(world)?
            .ok_or_else(|| failed(&format!("{} is gone", backup.display())))?,
        // There was no file: nothing is as good as an empty map, and an empty file is no configuration.
        None => b"{\n  \"mcpServers\": {}\n}\n".to_vec(),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let diff =
        unified(&file.display().to_string(), &text(before.as_deref().unwrap_or_default()), &text(&after));
    Ok((Proposal { file, before, after, diff }, note.what))
}

/// Takes the last change back; the state before this is kept as a backup, too.
///
/// # Errors
/// As [`write`].
pub fn undo(home: &Home, proposal: &Proposal) -> Result<(), Failure> {
    write(home, proposal, "undoing an import")?;
    // What was undone cannot be undone once more; its backup stays.
    let _gone = std::fs::remove_file(note_of(&proposal.file));
    Ok(())
}

/// The confidence that a word stands for.
///
/// # Errors
/// That it is none.
pub fn confidence(word: &str) -> Result<Confidence, String> {
    let known = Confidence::ALL.iter().find(|(_, name)| *name == word).map(|(confidence, _)| *confidence);
    known.ok_or_else(|| "it is high, medium or low".to_owned())
}
