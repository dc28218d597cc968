//! What can be told without a daemon: from the state file, the configuration and the engine.
//!
//! For commands whose question that answers. Must never change anything, and never wait for AWS
//! where the answer does not need it.

use crate::api::recorder;
use crate::api::view::SettingView;
use crate::config::edit::outline;
use crate::config::load::{self, Contents};
use crate::daemon::{Home, files, one_shot, random_bytes};
use crate::model::fingerprint::HashKey;
use crate::model::id::ServerId;
use crate::model::memory::Lease;
use crate::model::record::{AuditEntry, AuditFilter, Task, TaskDetail, TaskState, WithResults};
use crate::model::time::Timestamp;
use crate::plan::report::Report;
use crate::store;
use crate::terminal::failure::{Exit, Failure};
use crate::world::{Records as _, WorldError};
use std::collections::BTreeMap;

fn failed(error: WorldError) -> Failure {
    Failure::world(error, Exit::Failed)
}

/// How the servers stand, as a pass would see them now: the engine and the load balancer are asked.
///
/// # Errors
/// Invalid files, or a state that cannot be read.
pub async fn report(home: &Home) -> Result<Report, Failure> {
    Ok(one_shot::preview(home).await?.plan.report)
}

/// The port ledger.
///
/// # Errors
/// When the state cannot be read.
pub fn leases(home: &Home) -> Result<BTreeMap<ServerId, Lease>, Failure> {
    let peeked = store::peek(&home.places.state(&home.stack)).map_err(failed)?;
    Ok(peeked.map(|peeked| peeked.memory.leases).unwrap_or_default())
}

/// Tasks, newest first, without what became of each server; those that the daemon's end cut off are
/// interrupted.
///
/// # Errors
/// When the state cannot be read.
pub async fn tasks(home: &Home, limit: usize) -> Result<Vec<Task>, Failure> {
    let Some(records) = store::records::peek(&home.places.state(&home.stack)).map_err(failed)? else {
        return Ok(Vec::new());
    };
    let tasks = records.tasks(None, limit, WithResults::None).await.map_err(failed)?;
    Ok(tasks.into_iter().map(cut_off).collect())
}

/// One task with what became of each server and what was done for it; `None` when it is not known.
///
/// # Errors
/// When the state cannot be read.
pub async fn task(home: &Home, id: i64) -> Result<Option<TaskDetail>, Failure> {
    let Some(records) = store::records::peek(&home.places.state(&home.stack)).map_err(failed)? else {
        return Ok(None);
    };
    let Some(task) = records.task(id).await.map_err(failed)?.map(cut_off) else { return Ok(None) };
    Ok(Some(recorder::detail(&records, task).await.map_err(failed)?))
}

/// A task that ran when the daemon ended.
fn cut_off(mut task: Task) -> Task {
    if task.state == TaskState::Running {
        task.state = TaskState::Interrupted;
    }
    task
}

/// A point in time, as the API's parameter `since` takes it.
#[must_use]
pub fn since(text: &str) -> Option<Timestamp> {
    crate::api::parameters::since(text, crate::api::now())
}

/// Lines of the audit, newest first.
///
/// # Errors
/// When the state cannot be read.
pub async fn audit(home: &Home, filter: &AuditFilter) -> Result<Vec<AuditEntry>, Failure> {
    match store::records::peek(&home.places.state(&home.stack)).map_err(failed)? {
        Some(records) => records.audit(filter).await.map_err(failed),
        None => Ok(Vec::new()),
    }
}

/// Effective settings of every server that the file has whole.
///
/// # Errors
/// When the system has no randomness to give.
pub async fn settings(home: &Home) -> Result<BTreeMap<ServerId, Vec<SettingView>>, Failure> {
    // Only the values matter here, so that any key will do.
    let read = files::read(home, &HashKey::new(random_bytes()?)).await;
    let all = read.loaded.effective.iter();
    Ok(all.map(|(id, values)| (id.clone(), values.iter().map(SettingView::of).collect())).collect())
}

/// Ids of the servers in the file, without reading anything that it refers to: for completions.
#[must_use]
pub fn names(home: &Home) -> Vec<String> {
    let Some(bytes) = files::configuration(&home.places.config) else { return Vec::new() };
    let nothing = Contents::new();
    let loaded = load::load(&load::Input {
        file: &home.places.config.display().to_string(),
        bytes: &bytes,
        env: &home.env,
        files: &nothing,
        credentials: &nothing,
        secrets_manager: &nothing,
        ssm: &nothing,
        settings: &home.settings,
        key: &HashKey::new([0; 32]),
    });
    let Some(desired) = loaded.desired else { return Vec::new() };
    let ids = desired.servers.keys().chain(desired.broken.keys());
    ids.map(ToString::to_string).collect()
}

/// Ids of the sections that the file declares, in its order: for completions.
#[must_use]
pub fn sections(home: &Home) -> Vec<String> {
    let Some(bytes) = files::configuration(&home.places.config) else { return Vec::new() };
    let Ok(text) = String::from_utf8(bytes) else { return Vec::new() };
    let outline = outline::outline(&home.places.config.display().to_string(), &text);
    outline.into_iter().flat_map(|outline| outline.sections).filter_map(|section| section.id).collect()
}
