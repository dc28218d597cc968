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

/// Calls `wake` for everything the engine reports, once when it is lost and whenever it comes back.
pub async fn engine(engine: Arc<DockerEngine>, wake: impl Fn() + Send + Sync) {
    let mut lost = false;
    loop {
        // While it is away it is only asked whether it is there: no pass, and no call to AWS.
        if lost && engine.ping().await.is_err() {
            tokio::time::sleep(ENGINE_AGAIN).await;
            continue;
        }
        if lost {
            wake();
        }
        let watched = engine.watch(|_event| wake());
        // Of what happens before the stream stands nothing is heard: one more look, a little later.
        let once_more = async {
            if lost {
                tokio::time::sleep(ENGINE_AGAIN).await;
                wake();
            }
        };
        match tokio::join!(watched, once_more).0 {
            Ok(()) => tracing::info!("the engine's event stream ended"),
            Err(error) => tracing::warn!(MCP_ERROR_CODE = error.kind.code(), "{error}"),
        }
        lost = true;
        wake();
        tokio::time::sleep(ENGINE_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::engine;
    use crate::docker::DockerEngine;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// Answers `/_ping` and keeps every other request waiting.
    async fn answer(mut stream: tokio::net::UnixStream) {
        let mut bytes = vec![0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut bytes).await {
            if !String::from_utf8_lossy(&bytes[..count]).contains("/_ping") {
                std::future::pending::<()>().await;
            }
            let ok = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nOK";
            stream.write_all(ok.as_bytes()).await.expect("an answer");
        }
    }

    #[tokio::test]
    async fn an_engine_that_is_away_wakes_once_and_once_back_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("engine.sock");
        let wakes = Arc::new(AtomicUsize::new(0));
        let (docker, counted) =
            (Arc::new(DockerEngine::new(format!("unix://{}", path.display()), None)), Arc::clone(&wakes));
        let watching = tokio::spawn(engine(docker, move || {
            counted.fetch_add(1, Ordering::SeqCst);
        }));
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert_eq!(wakes.load(Ordering::SeqCst), 1, "lost, and then quiet");
        let listener = tokio::net::UnixListener::bind(&path).expect("a socket");
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                drop(tokio::spawn(answer(stream)));
            }
        });
        tokio::time::sleep(Duration::from_millis(3500)).await;
        assert_eq!(wakes.load(Ordering::SeqCst), 3, "back, and once more when the stream stands");
        watching.abort();
        serving.abort();
    }
}
