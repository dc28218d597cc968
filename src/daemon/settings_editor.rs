//! Changes settings.conf for the API: reads, works the change out, checks, writes, one at a time.
//!
//! ```text
//! read ─> version? ─> whose? ─> change ─> load ─> no new errors? ─> what it names readable? ─> write
//!          412 428    403 409    409 422            422                  422                    409
//! ```
//! The checks are those of a start and of a reload. Must never write a text with an error that the one
//! before did not have, nor let the network make this process read a file by naming it.

use crate::api::configuration::Configuration;
use crate::api::editing::{Answer, Edited, Refused};
use crate::api::settings::{Edit, Found, SettingsEditor};
use crate::config::edit::rights::Overreach;
use crate::config::error::Problem;
use crate::config::settings::diff::{self, Main};
use crate::config::settings::edit::{self, Changes};
use crate::config::settings::layers::variable_name;
use crate::config::settings::reach::reach;
use crate::config::settings::table::{KEYS, Key};
use crate::config::settings::{self, Layer};
use crate::daemon::editor::{
    check_version, difference, erroneous, forbid, invalid, planned, refused, unwritable, version_of,
};
use crate::daemon::reload::{Listening, live};
use crate::daemon::{Home, SETTINGS_BYTES_MAX, dashboard, files, now, parse_settings, sha256};
use crate::host::document;
use crate::model::fingerprint::HashKey;
use crate::model::time::Timestamp;
use crate::plan::Plan;
use crate::service::Request;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::{Mutex, mpsc, watch};

/// settings.conf, for editing.
pub(super) struct ConfEditor {
    homes: watch::Receiver<Arc<Home>>,
    key: HashKey,
    told: watch::Receiver<Arc<Configuration>>,
    requests: mpsc::Sender<Request>,
    /// The main listener, as the start made it.
    listening: Listening,
    /// SHA-256 of what was written here last; held while an edit is made.
    written: Mutex<Option<String>>,
}

/// What a text means.
struct Meaning {
    loaded: settings::Loaded,
    /// Home with these settings, where they can be used.
    home: Option<Home>,
    /// Why what they name cannot be used.
    unusable: Option<String>,
}

impl ConfEditor {
    pub(super) fn new(
        homes: watch::Receiver<Arc<Home>>,
        key: HashKey,
        told: watch::Receiver<Arc<Configuration>>,
        requests: mpsc::Sender<Request>,
        listening: Listening,
    ) -> Self {
        Self { homes, key, told, requests, listening, written: Mutex::new(None) }
    }

    fn before(&self, home: &Home) -> Result<(Option<Vec<u8>>, String), Refused> {
        let path = &home.places.settings;
        let read = tokio::task::block_in_place(|| document::read(path, SETTINGS_BYTES_MAX));
        let bytes = read.map_err(|error| unwritable(&error))?;
        let etag = version_of(&self.key, bytes.as_deref().unwrap_or_default());
        Ok((bytes, etag))
    }

    async fn found(&self) -> Result<Found, Refused> {
        let home = Arc::clone(&self.homes.borrow());
        let (bytes, etag) = self.before(&home)?;
        let loaded = parse_settings(&home.options, &home.places, &home.env, bytes.as_deref());
        Ok(Found {
            file: home.places.settings.display().to_string(),
            etag,
            read_only: document::writable(&home.places.settings).err().map(|error| error.to_string()),
            full_control: home.settings.dashboard.full_control,
            problems: loaded.problems,
            effective: loaded.effective,
            needs_restart: self.told.borrow().needs_restart.clone(),
        })
    }

    async fn make(&self, edit: Edit) -> Result<Edited, Refused> {
        let mut written = self.written.lock().await;
        let home = Arc::clone(&self.homes.borrow());
        let (before, etag) = self.before(&home)?;
        let hash = before.as_deref().map(sha256);
        let known =
            hash.is_none() || hash == self.told.borrow().settings.sha256 || hash.as_ref() == written.as_ref();
        check_version((edit.if_match.as_deref(), false), &etag, known)?;
        if edit.far && !home.settings.dashboard.full_control {
            forbid(overreach(&edit.changes))?;
        }
        let file = home.places.settings.display().to_string();
        let old = before.as_deref().unwrap_or_default();
        let was = meaning(&home, before.as_deref());
        decided_elsewhere(&was, &edit.changes)?;
        let new = edit::apply(&file, old, &edit.changes).map_err(refused)?.into_bytes();
        if u64::try_from(new.len()).is_ok_and(|length| length > SETTINGS_BYTES_MAX) {
            return Err(Refused { detail: "the file would be longer than 1 MiB".to_owned(), ..invalid() });
        }
        let is = meaning(&home, Some(&new));
        let changed = new != old;
        let verdict = check(&was, &is, edit::unknown(&edit.changes)).and_then(|()| {
            let writable = document::writable(&home.places.settings);
            if changed { writable.map_err(|error| unwritable(&error)) } else { Ok(()) }
        });
        let refused = match verdict {
            Err(refused) if !edit.dry_run => return Err(refused),
            other => other.err().map(Box::new),
        };
        let (changes, next) = self.outlook(&home, &is);
        let plan = match next {
            Some(next) if edit.dry_run && refused.is_none() => self.plan(next).await?.map(Box::new),
            Some(_) | None => None,
        };
        if changed && !edit.dry_run {
            let (path, backups) = (&home.places.settings, home.settings.storage.config_backups);
            let contents = (before.as_deref(), new.as_slice());
            tokio::task::block_in_place(|| document::replace(path, contents, backups, now()))
                .map_err(|error| unwritable(&error))?;
            *written = Some(sha256(&new));
        }
        let shown = |bytes: &[u8]| edit::shown(&String::from_utf8_lossy(bytes), &self.key);
        let diff = if edit.dry_run { difference(&file, &shown(old), &shown(&new)) } else { String::new() };
        let diff::Changes { applied, needs_restart } = changes;
        let (etag, problems) = (version_of(&self.key, &new), is.loaded.problems);
        Ok(Edited {
            etag,
            changed,
            diff,
            problems,
            applied,
            needs_restart,
            plan,
            refused,
            ..Edited::default()
        })
    }

    /// When what differs would be in force, and home from then on, but for what waits for a restart.
    fn outlook(&self, home: &Home, is: &Meaning) -> (diff::Changes, Option<Home>) {
        let Some(next) = &is.home else { return (diff::Changes::default(), None) };
        let shipped = dashboard::credentials(next).is_ok_and(|credentials| credentials.is_shipped());
        // The address itself changes with a restart only.
        let Listening { at: listening, held } = self.listening;
        let main = Main { listening, held, shipped };
        let settings = diff::in_force(&home.settings, &next.settings, main);
        (diff::diff(&home.settings, &next.settings, main), Some(Home { settings, ..next.clone() }))
    }

    /// What a pass would do under the settings of `next`; `None` where mcp.config.json cannot be used.
    async fn plan(&self, next: Home) -> Result<Option<(Plan, Timestamp)>, Refused> {
        let read = files::read(&next, &self.key).await;
        match read.loaded.desired {
            Some(desired) => planned(&self.requests, (desired, Some(next.policy())), false).await.map(Some),
            None => Ok(None),
        }
    }
}

impl SettingsEditor for ConfEditor {
    fn read(&self) -> Answer<'_, Found> {
        Box::pin(self.found())
    }

    fn edit(&self, edit: Edit) -> Answer<'_, Edited> {
        Box::pin(self.make(edit))
    }
}

/// What `bytes` mean as the content of the settings of `home`.
fn meaning(home: &Home, bytes: Option<&[u8]>) -> Meaning {
    let loaded = parse_settings(&home.options, &home.places, &home.env, bytes);
    let next = loaded.settings.clone().map(|settings| Home { settings, ..home.clone() });
    let unusable = next.as_ref().and_then(|next| live::Loaded::of(next).err()).map(live::Unusable::said);
    Meaning { loaded, home: next, unusable }
}

/// The settings that a change names.
fn named(changes: &Changes) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(|key| changes.contains_key(&format!("{}.{}", key.section, key.key)))
}

fn overreach(changes: &Changes) -> Vec<Overreach> {
    let found = |key: &'static Key| {
        let what = format!("[{}] {} is {}", key.section, key.key, reach(key)?);
        Some(Overreach { server: None, what })
    };
    named(changes).filter_map(found).collect()
}

/// What the environment or a flag decides stays as it is, whatever the file says.
fn decided_elsewhere(was: &Meaning, changes: &Changes) -> Result<(), Refused> {
    let found: Vec<String> = named(changes)
        .filter_map(|key| {
            let name = format!("{}.{}", key.section, key.key);
            match was.loaded.effective.get(&name)?.layer {
                Layer::Environment => {
                    Some(format!("{name} comes from {}", variable_name(key.section, key.key)))
                }
                Layer::Flag => Some(format!("{name} comes from a flag of the command line")),
                Layer::Default | Layer::File => None,
            }
        })
        .collect();
    if found.is_empty() {
        return Ok(());
    }
    Err(Refused {
        status: 409,
        code: "MCPO-E011",
        title: "the file does not decide it",
        detail: found.join("; "),
        ..Refused::default()
    })
}

/// Errors that the text before did not have, all at once.
fn check(was: &Meaning, is: &Meaning, unknown: Vec<Problem>) -> Result<(), Refused> {
    let name = |problem: &Problem| (problem.code, problem.message.clone());
    let known: BTreeSet<_> = was.loaded.problems.iter().map(name).collect();
    let fresh = is.loaded.problems.iter().filter(|p| p.is_error() && !known.contains(&name(p))).cloned();
    let found: Vec<Problem> = unknown.into_iter().chain(fresh).collect();
    if !found.is_empty() {
        return Err(erroneous(found));
    }
    match &is.unusable {
        Some(why) if was.unusable.as_ref() != Some(why) => Err(Refused { detail: why.clone(), ..invalid() }),
        Some(_) | None => Ok(()),
    }
}
