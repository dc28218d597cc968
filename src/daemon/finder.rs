//! Searches at intervals while the daemon runs, as `[discovery]` says, and whenever somebody asks.
//!
//! Must never do anything with what it finds but tell of it.

use crate::api::discovery::{Discovery, DiscoveryView};
use crate::config::settings::Discovery as Settings;
use crate::daemon::discovery::{Found, Search, search};
use crate::daemon::{Home, now};
use crate::discovery::Confidence;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// Requests for a search that may wait.
const ASKED_MAX: usize = 16;

/// The task's ends.
pub(super) struct Finder {
    homes: watch::Receiver<Arc<Home>>,
    view: watch::Sender<Arc<DiscoveryView>>,
    asked: mpsc::Receiver<oneshot::Sender<()>>,
}

/// A finder that follows the settings in force, and what the API has of it.
pub(super) fn finder(homes: watch::Receiver<Arc<Home>>) -> (Finder, Discovery) {
    let (ask, asked) = mpsc::channel(ASKED_MAX);
    let view = watch::Sender::new(Arc::new(view_of(&homes.borrow().settings.discovery, None)));
    let discovery = Discovery { view: view.subscribe(), ask };
    (Finder { homes, view, asked }, discovery)
}

impl Finder {
    /// Runs as long as the daemon.
    pub(super) async fn run(mut self) {
        let mut next = Instant::now();
        loop {
            let home = Arc::clone(&self.homes.borrow_and_update());
            let settings = &home.settings.discovery;
            let mut waiting = Vec::new();
            tokio::select! {
                () = tokio::time::sleep_until(next), if settings.enabled => {}
                changed = self.homes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if self.follow(settings) {
                        next = Instant::now();
                    }
                    continue;
                }
                asked = self.asked.recv() => match asked {
                    Some(reply) => waiting.push(reply),
                    None => return,
                },
            }
            while let Ok(reply) = self.asked.try_recv() {
                waiting.push(reply);
            }
            self.search(&home).await;
            next = Instant::now() + Duration::from_millis(settings.interval.0);
            for reply in waiting {
                let _gone = reply.send(());
            }
        }
    }

    /// Shows new settings; says whether they are other ones.
    fn follow(&self, before: &Settings) -> bool {
        let settings = self.homes.borrow().settings.discovery.clone();
        let others = settings != *before;
        self.view.send_modify(|view| {
            let view = Arc::make_mut(view);
            (view.enabled, view.paths) = (settings.enabled, settings.paths);
        });
        others
    }

    async fn search(&self, home: &Home) {
        let settings = &home.settings.discovery;
        let roots = settings.paths.iter().map(PathBuf::from).collect();
        let found = search(home, Search { roots, clients: true, engine: true }).await;
        let view = view_of(settings, Some(&found));
        tracing::debug!(finds = view.count, millis = found.millis, "searched for servers");
        self.view.send_replace(Arc::new(view));
    }
}

fn view_of(settings: &Settings, found: Option<&Found>) -> DiscoveryView {
    let sure = |found: &Found| found.finds.iter().filter(|find| find.confidence > Confidence::Low).count();
    DiscoveryView {
        enabled: settings.enabled,
        paths: settings.paths.clone(),
        at: found.map(|_| now().0),
        count: found.map_or(0, sure),
        found: found.map_or(serde_json::Value::Null, Found::json),
    }
}
