//! Changes mcp.config.json for the API: reads, works the change out, checks, writes, one at a time.
//!
//! ```text
//! read ─> version? ─> change ─> files it may read? ─> load ─> no new errors? ─> rights? ─> guard? ─> write
//!          412 428     404 409         403                         422           403        409      409
//! ```
//! The checks are those of the loader and the planner. Must never write a text with an error that the
//! one before did not have, and never let the network read a file by naming it.

use crate::api::configuration::Configuration;
use crate::api::editing::{Answer, Content, Edit, Edited, Editor, Refused};
use crate::config::edit::mask::{Masked, mask};
use crate::config::edit::rights::{self, Overreach, Version};
use crate::config::edit::{self, Change, Refusal, RefusalKind, outline};
use crate::config::error::Problem;
use crate::config::load::{self, Loaded};
use crate::config::text::FILE_BYTES_MAX;
use crate::daemon::{Home, files, now, sha256};
use crate::host::document;
use crate::model::desired::Desired;
use crate::model::fingerprint::HashKey;
use crate::model::id::ServerId;
use crate::model::policy::Policy;
use crate::model::time::Timestamp;
use crate::plan::Plan;
use crate::service::Request;
use crate::world::{ErrorKind, WorldError};
use similar::{Algorithm, TextDiff};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc, oneshot, watch};

/// Longest that a difference is worked out; what comes later is rougher, and as true.
const DIFF_WITHIN: Duration = Duration::from_millis(250);
/// Longest difference that is shown, in bytes.
const DIFF_BYTES_MAX: usize = 512 * 1024;
/// Lines around a change.
const CONTEXT_LINES: usize = 3;
/// Overreaches that a refusal names.
const NAMED_MAX: usize = 5;
/// Where the guard against removing much says no.
const GUARD: &str = "MCPO-P004";

/// The file with the servers, for editing.
pub(super) struct FileEditor {
    homes: watch::Receiver<Arc<Home>>,
    key: HashKey,
    told: watch::Receiver<Arc<Configuration>>,
    requests: mpsc::Sender<Request>,
    /// SHA-256 of what was written here last; held while an edit is made.
    written: Mutex<Option<String>>,
}

/// The file before an edit.
struct Before {
    bytes: Option<Vec<u8>>,
    etag: String,
}

impl FileEditor {
    pub(super) fn new(
        homes: watch::Receiver<Arc<Home>>,
        key: HashKey,
        told: watch::Receiver<Arc<Configuration>>,
        requests: mpsc::Sender<Request>,
    ) -> Self {
        Self { homes, key, told, requests, written: Mutex::new(None) }
    }

    fn before(&self, home: &Home) -> Result<Before, Refused> {
        let read =
            tokio::task::block_in_place(|| document::read(&home.places.config, files::CONFIG_BYTES_MAX));
        let bytes = read.map_err(|error| unwritable(&error))?;
        let etag = version_of(&self.key, bytes.as_deref().unwrap_or_default());
        Ok(Before { bytes, etag })
    }

    fn mask(&self, bytes: &[u8]) -> Masked {
        mask(String::from_utf8_lossy(bytes).trim_start_matches('\u{feff}'), &self.key)
    }

    async fn content(&self, far: bool) -> Result<Content, Refused> {
        let home = Arc::clone(&self.homes.borrow());
        let Before { bytes, etag } = self.before(&home)?;
        let bytes = bytes.unwrap_or_default();
        let file = home.places.config.display().to_string();
        let yaml = !edit::is_editable(&file);
        let text = match (far, yaml) {
            (true, true) => String::new(),
            (true, false) => self.mask(&bytes).text,
            (false, _) => String::from_utf8_lossy(&bytes).into_owned(),
        };
        let outline = outline::outline(&file, &text);
        let read_only = document::writable(&home.places.config).err().map(|error| error.to_string());
        let full_control = home.settings.dashboard.full_control;
        Ok(Content { file, text, etag, outline, read_only, full_control })
    }

    async fn make(&self, mut edit: Edit) -> Result<Edited, Refused> {
        let mut written = self.written.lock().await;
        let home = Arc::clone(&self.homes.borrow());
        let before = self.before(&home)?;
        let old = before.bytes.as_deref().unwrap_or_default();
        let hash = before.bytes.as_deref().map(sha256);
        let known =
            hash.is_none() || hash == self.told.borrow().config.sha256 || hash.as_ref() == written.as_ref();
        let asked = (edit.if_match.as_deref(), edit.needs_match);
        check_version(asked, &before.etag, known)?;
        if edit.far {
            let masked = self.mask(old);
            edit.changes.iter_mut().try_for_each(|change| reveal(change, &masked)).map_err(refused)?;
        }
        let file = home.places.config.display().to_string();
        let new = edit::apply(&file, old, &edit.changes).map_err(refused)?.into_bytes();
        if new.len() > FILE_BYTES_MAX {
            return Err(Refused { detail: "the file would be longer than 4 MiB".to_owned(), ..invalid() });
        }
        let strict = edit.far && !home.settings.dashboard.full_control;
        if strict {
            let needs = |bytes| load::needs(&file, bytes, &home.env);
            forbid(rights::new_files(&needs(old), &needs(&new)))?;
        }
        let (was, is) = (self.meaning(&home, old).await, self.meaning(&home, &new).await);
        let mut verdict = check_errors(&was, &is);
        if strict && verdict.is_ok() {
            let version = |bytes, loaded| Version { file: &file, bytes, loaded };
            verdict = forbid(rights::overreach(version(old, &was), version(&new, &is)));
        }
        let refused = match verdict {
            Err(refused) if !edit.dry_run => return Err(refused),
            other => other.err(),
        };
        let changed = new != old;
        let (servers, removes) = differing(&was, &is);
        let guarded = removes && !edit.allow_mass_delete;
        let plan = match is.desired {
            Some(desired) if edit.dry_run || guarded => {
                Some(Box::new(planned(&self.requests, (desired, None), edit.allow_mass_delete).await?))
            }
            Some(_) | None => None,
        };
        let held = plan.as_deref().filter(|_| guarded).map_or(Ok(()), |(plan, _)| check_guard(plan));
        let refused = match (refused, held) {
            (None, Err(held)) if !edit.dry_run => return Err(held),
            (refused, held) => refused.or(held.err()).map(Box::new),
        };
        if changed && !edit.dry_run {
            self.write(&home, (before.bytes.as_deref(), &new))?;
            *written = Some(sha256(&new));
        }
        let diff = if edit.dry_run { self.diff(&file, (old, &new), edit.far) } else { String::new() };
        let plan = plan.filter(|_| edit.dry_run);
        let (etag, problems) = (version_of(&self.key, &new), is.problems);
        Ok(Edited { etag, changed, diff, problems, servers, plan, refused, ..Edited::default() })
    }

    /// What a content means; that of no file is nothing.
    async fn meaning(&self, home: &Home, bytes: &[u8]) -> Loaded {
        if bytes.trim_ascii().is_empty() {
            return Loaded { desired: Some(Desired::default()), ..Loaded::default() };
        }
        files::interpret(home, &self.key, bytes).await
    }

    fn write(&self, home: &Home, contents: (Option<&[u8]>, &[u8])) -> Result<(), Refused> {
        let backups = home.settings.storage.config_backups;
        let path = &home.places.config;
        tokio::task::block_in_place(|| document::replace(path, contents, backups, now()))
            .map_err(|error| unwritable(&error))
    }

    fn diff(&self, file: &str, (old, new): (&[u8], &[u8]), far: bool) -> String {
        let shown = |bytes: &[u8]| {
            if far { self.mask(bytes).text } else { String::from_utf8_lossy(bytes).into_owned() }
        };
        let (old, new) = (shown(old), shown(new));
        difference(file, &old, &new)
    }
}

impl Editor for FileEditor {
    fn read(&self, far: bool) -> Answer<'_, Content> {
        Box::pin(self.content(far))
    }

    fn edit(&self, edit: Edit) -> Answer<'_, Edited> {
        Box::pin(self.make(edit))
    }
}

/// Versions of a file are told apart by a hash under the store's key: a plain one would let guesses at a
/// password in it be tried.
pub(super) fn version_of(key: &HashKey, bytes: &[u8]) -> String {
    format!("\"{}\"", key.keyed(&sha256(bytes)))
}

/// The caller's version, and whether the file changed behind its and our back: `known` is what was
/// read or written here last.
pub(super) fn check_version(
    (if_match, needs_match): (Option<&str>, bool),
    etag: &str,
    known: bool,
) -> Result<(), Refused> {
    if let Some(wanted) = if_match.map(str::trim) {
        let mut tags = wanted.split(',').map(str::trim);
        if wanted == "*" || tags.any(|tag| tag == etag) {
            return Ok(());
        }
        return Err(Refused {
            status: 412,
            code: "MCPO-E001",
            title: "the file was changed meanwhile",
            detail: format!("it is {etag} now, and the change was made for {wanted}"),
            ..Refused::default()
        });
    }
    if known && !needs_match {
        return Ok(());
    }
    let why =
        if known { "a whole text replaces one version of it" } else { "somebody else changed the file" };
    Err(Refused {
        status: 428,
        code: "MCPO-E002",
        title: "say which version is meant",
        detail: format!("{why}: If-Match is missing"),
        ..Refused::default()
    })
}

/// What a pass would do with these servers, under another policy where one is given.
pub(super) async fn planned(
    requests: &mpsc::Sender<Request>,
    (desired, policy): (Desired, Option<Policy>),
    allow_mass_delete: bool,
) -> Result<(Plan, Timestamp), Refused> {
    let (reply, answer) = oneshot::channel();
    let (desired, policy) = (Some(Arc::new(desired)), policy.map(Box::new));
    let gone = || Refused {
        status: 503,
        code: "MCPO-H001",
        title: "the daemon is stopping",
        detail: "the loop has ended".to_owned(),
        ..Refused::default()
    };
    let request = Request::Plan { desired, policy, allow_mass_delete, reply };
    requests.send(request).await.map_err(|_ended| gone())?;
    answer.await.map(|answer| *answer).map_err(|_ended| gone())
}

/// What differs between two texts of `file`, as a unified diff of a bounded length.
pub(super) fn difference(file: &str, old: &str, new: &str) -> String {
    if old == new {
        return String::new();
    }
    let diff = TextDiff::configure().algorithm(Algorithm::Myers).timeout(DIFF_WITHIN).diff_lines(old, new);
    let name = file.rsplit('/').next().unwrap_or_default();
    let mut text = diff.unified_diff().context_radius(CONTEXT_LINES).header(name, name).to_string();
    if text.len() > DIFF_BYTES_MAX {
        let end = (0..=DIFF_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push_str("\n… and more\n");
    }
    text
}

/// Puts back what was hidden from whoever wrote the change.
fn reveal(change: &mut Change, masked: &Masked) -> Result<(), Refusal> {
    match change {
        Change::Text(text) => *text = masked.reveal_text(text)?,
        Change::Put { entry: value, .. }
        | Change::Patch { patch: value, .. }
        | Change::PutSection { settings: value, .. }
        | Change::Defaults(value) => masked.reveal(value)?,
        Change::Remove { .. } | Change::RemoveSection { .. } => {}
    }
    Ok(())
}

/// Errors of the new text that the old one did not have.
fn check_errors(was: &Loaded, is: &Loaded) -> Result<(), Refused> {
    let name = |problem: &Problem| (problem.server.clone(), problem.code, problem.message.clone());
    let known: BTreeSet<_> = was.problems.iter().map(name).collect();
    let new: Vec<Problem> =
        is.problems.iter().filter(|p| p.is_error() && !known.contains(&name(p))).cloned().collect();
    let unusable = is.desired.is_none();
    if new.is_empty() && !unusable {
        return Ok(());
    }
    Err(erroneous(if new.is_empty() { is.problems.clone() } else { new }))
}

/// The refusal of a text with these errors.
pub(super) fn erroneous(shown: Vec<Problem>) -> Refused {
    let first = shown.first().map_or_else(
        || "it cannot be used".to_owned(),
        |problem| {
            let server =
                problem.server.as_ref().map(|server| format!("server '{server}': ")).unwrap_or_default();
            format!("{server}{}", problem.message)
        },
    );
    let more = if shown.len() > 1 { format!(" (and {} more)", shown.len() - 1) } else { String::new() };
    let hint = shown.first().and_then(|problem| problem.hint.clone());
    Refused { detail: format!("{first}{more}"), hint, problems: shown, ..invalid() }
}

pub(super) fn invalid() -> Refused {
    Refused { status: 422, code: "MCPO-E004", title: "the file would have an error", ..Refused::default() }
}

pub(super) fn forbid(found: Vec<Overreach>) -> Result<(), Refused> {
    if found.is_empty() {
        return Ok(());
    }
    let named = found.iter().take(NAMED_MAX).map(|over| match &over.server {
        Some(server) => format!("server '{server}' asks for {}", over.what),
        None => over.what.clone(),
    });
    let named: Vec<String> = named.collect();
    let more = found.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Err(Refused {
        status: 403,
        code: "MCPO-E005",
        title: "not over the network",
        detail: format!("{}{more}", named.join("; ")),
        ..Refused::default()
    })
}

fn check_guard(plan: &Plan) -> Result<(), Refused> {
    let reason = plan.report.general.iter().find(|reason| reason.code == Some(GUARD));
    reason.map_or(Ok(()), |reason| {
        Err(Refused {
            status: 409,
            code: "MCPO-E009",
            title: "too much would be removed",
            detail: reason.text.clone(),
            ..Refused::default()
        })
    })
}

/// Servers that are other than before, and whether some are gone.
fn differing(was: &Loaded, is: &Loaded) -> (Vec<ServerId>, bool) {
    let nothing = Desired::default();
    let (was, is) = (was.desired.as_ref().unwrap_or(&nothing), is.desired.as_ref().unwrap_or(&nothing));
    let all: BTreeSet<&ServerId> =
        [was, is].iter().flat_map(|desired| desired.servers.keys().chain(desired.broken.keys())).collect();
    let differs =
        |id: &ServerId| was.servers.get(id) != is.servers.get(id) || was.broken.get(id) != is.broken.get(id);
    let removes = all.iter().any(|id| was.claims(id) && !is.claims(id));
    (all.into_iter().filter(|id| differs(id)).cloned().collect(), removes)
}

pub(super) fn refused(refusal: Refusal) -> Refused {
    let Refusal { kind, message: detail, hint } = refusal;
    let (status, code, title) = match kind {
        RefusalKind::Uneditable => (409, "MCPO-E008", "the file cannot be changed from here"),
        RefusalKind::Unknown => (404, "MCPO-H002", "no such server or section"),
        RefusalKind::Taken => (409, "MCPO-E006", "the name is taken"),
        RefusalKind::NotEmpty => (409, "MCPO-E007", "the section has servers"),
        RefusalKind::Invalid => (422, "MCPO-E010", "the change makes no sense"),
    };
    Refused { status, code, title, detail, hint, problems: Vec::new() }
}

pub(super) fn unwritable(error: &WorldError) -> Refused {
    let status = if matches!(error.kind, ErrorKind::Denied | ErrorKind::Invalid) { 409 } else { 503 };
    Refused {
        status,
        code: "MCPO-E003",
        title: "the file cannot be written",
        detail: error.to_string(),
        ..Refused::default()
    }
}
