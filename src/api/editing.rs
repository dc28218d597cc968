//! What is asked of whoever keeps the file with the servers, and what comes of it.
//!
//! The routes translate between this and HTTP; the daemon does it. Must never know where a file is,
//! nor how it is written.

use crate::config::edit::Change;
use crate::config::edit::outline::Outline;
use crate::config::error::Problem;
use crate::model::id::ServerId;
use crate::model::time::Timestamp;
use crate::plan::Plan;
use std::future::Future;
use std::pin::Pin;

/// A version of the file.
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// Its path.
    pub file: String,
    /// The text, with placeholders for secrets where it goes over the network.
    pub text: String,
    /// What tells it from other versions; the same for the same bytes, and nothing can be guessed
    /// from it.
    pub etag: String,
    /// What it has; `None` when it is of a form that is not changed here.
    pub outline: Option<Outline>,
    /// Why it cannot be written, when it cannot.
    pub read_only: Option<String>,
    /// Whether everything may be set over the network.
    pub full_control: bool,
}

/// Changes that are made together or not at all.
#[derive(Clone, Debug, Default)]
pub struct Edit {
    /// The changes, one after the other.
    pub changes: Vec<Change>,
    /// The version that they were made for (`If-Match`).
    pub if_match: Option<String>,
    /// They mean nothing without that version: a whole text.
    pub needs_match: bool,
    /// They come over the network: secrets are placeholders, and not everything may be set.
    pub far: bool,
    /// Nothing is written: what would be is to be shown.
    pub dry_run: bool,
    /// Removing more than half of the servers, or all, is meant.
    pub allow_mass_delete: bool,
}

/// What came of an edit of either file.
#[derive(Clone, Debug, Default)]
pub struct Edited {
    /// The version from now on.
    pub etag: String,
    /// Whether it differs from the one before.
    pub changed: bool,
    /// What changes in the text, line by line, without secrets where it goes over the network; with a dry
    /// run only.
    pub diff: String,
    /// What is wrong with the text, warnings included.
    pub problems: Vec<Problem>,
    /// Servers whose entry is other than before, in id order.
    pub servers: Vec<ServerId>,
    /// Settings in force at once, as `section.key`.
    pub applied: Vec<&'static str>,
    /// Settings in force after a restart.
    pub needs_restart: Vec<&'static str>,
    /// What a pass would do with it; with a dry run only.
    pub plan: Option<Box<(Plan, Timestamp)>>,
    /// Why it would be refused; with a dry run only.
    pub refused: Option<Box<Refused>>,
}

/// Why an edit was not made; nothing was changed.
#[derive(Clone, Debug, Default)]
pub struct Refused {
    /// Status of the answer.
    pub status: u16,
    /// A documented code.
    pub code: &'static str,
    /// What happened, the same for every refusal of this code.
    pub title: &'static str,
    /// What was wrong this time.
    pub detail: String,
    /// What helps this time.
    pub hint: Option<String>,
    /// Where in the new text, with line and column.
    pub problems: Vec<Problem>,
}

/// An answer.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Refused>> + Send + 'a>>;

/// Keeps the file with the servers; edits come one after the other.
pub trait Editor: Send + Sync {
    /// The file as it is now; `far` hides secrets.
    fn read(&self, far: bool) -> Answer<'_, Content>;
    /// Makes changes.
    fn edit(&self, edit: Edit) -> Answer<'_, Edited>;
}
