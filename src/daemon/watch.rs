//! Wakes the loop when a file or the engine says that something happened.
//!
//! Directories are watched, not files: editors replace files. Must never carry what happened; the
//! next pass looks for itself.

use crate::docker::DockerEngine;
use notify::{RecursiveMode, Watcher};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Between two tries to reach the engine's event stream.
const ENGINE_AGAIN: Duration = Duration::from_secs(1);

/// Watches the directories of `files` until the value is dropped; `changed` is called when one of
/// the files may have changed.
///
/// # Errors
/// When the kernel has no watch to give; the timer still notices changes.
pub fn files(
    files: &[PathBuf],
    changed: impl Fn() + Send + 'static,
) -> Result<notify::RecommendedWatcher, notify::Error> {
    let names: BTreeSet<PathBuf> = files.iter().cloned().collect();
    let mut watcher = notify::recommended_watcher(move |event: Result<notify::Event, notify::Error>| {
        let concerns = |event: &notify::Event| {
            !matches!(event.kind, notify::EventKind::Access(_))
                && event.paths.iter().any(|path| names.contains(path))
        };
        // An overflow says nothing about names: look.
        if event.as_ref().map_or(true, concerns) {
            changed();
        }
    })?;
    let dirs: BTreeSet<&Path> = files.iter().filter_map(|file| file.parent()).collect();
    for dir in dirs.into_iter().filter(|dir| dir.is_dir()) {
        watcher.watch(dir, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

/// Calls `wake` for everything the engine reports, and whenever it comes back.
pub async fn engine(engine: Arc<DockerEngine>, wake: impl Fn() + Send + Sync) {
    let mut lost = false;
    loop {
        if lost {
            wake();
        }
        match engine.watch(|_event| wake()).await {
            Ok(()) => tracing::info!("the engine's event stream ended"),
            Err(error) if !lost => tracing::warn!(MCP_ERROR_CODE = error.kind.code(), "{error}"),
            Err(_still_away) => {}
        }
        lost = true;
        tokio::time::sleep(ENGINE_AGAIN).await;
    }
}
