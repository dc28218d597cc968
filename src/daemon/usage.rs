//! What counts, for [`crate::usage`]: the engine for containers, `/proc` for local processes and this
//! host, the gateway for requests.

use crate::daemon::Home;
use crate::daemon::opener::Connections;
use crate::docker::DockerEngine;
use crate::gateway::Gateway;
use crate::gateway::metrics::BUCKETS_MICROS;
use crate::gateway::overview::ServerView;
use crate::host::usage;
use crate::model::id::{ContainerId, ServerId};
use crate::model::usage::{Counters, HostCounters};
use crate::service::Handle;
use crate::usage::{Sources, Tallies, Tally};
use crate::world::{Answer, ErrorKind, Meter, WorldError};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// The counters of this daemon's servers.
struct Meters {
    engine: Arc<DockerEngine>,
    /// It knows the processes that it started.
    opener: Arc<Connections>,
    /// A path on the disk that the state is on.
    state: PathBuf,
}

impl Meters {
    /// Reads small files of the kernel, where waiting for it is no harm.
    async fn read<T: Send + 'static>(
        doing: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, WorldError> {
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|error| WorldError::new(doing, ErrorKind::Failed, error.to_string()))
    }
}

impl Meter for Meters {
    fn container<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, Counters> {
        Box::pin(self.engine.usage(id))
    }

    fn processes(&self) -> Answer<'_, BTreeMap<ServerId, (String, Counters)>> {
        let running = self.opener.processes.running();
        Box::pin(Self::read("reading what processes use", move || {
            let each = running.into_iter().filter_map(|(server, pids)| {
                let whose: Vec<String> = pids.iter().map(ToString::to_string).collect();
                let all = pids.into_iter().map(usage::of_process).reduce(together)?;
                Some((ServerId::instance(&server).ok()?, (whose.join(" "), all)))
            });
            each.collect()
        }))
    }

    fn host(&self) -> Answer<'_, HostCounters> {
        let state = self.state.clone();
        Box::pin(Self::read("reading what this host uses", move || usage::of_host(&state)))
    }
}

/// Several processes of one server; what is unknown of one is unknown of all.
fn together(one: Counters, other: Counters) -> Counters {
    let sum = |a: Option<u64>, b: Option<u64>| Some(a?.saturating_add(b?));
    Counters {
        cpu_nanos: sum(one.cpu_nanos, other.cpu_nanos),
        memory_bytes: sum(one.memory_bytes, other.memory_bytes),
        pids: sum(one.pids, other.pids),
        ..Counters::default()
    }
}

/// Everything that a reading asks.
pub(super) fn sources(
    (home, engine): (&Home, &Arc<DockerEngine>),
    opener: &Arc<Connections>,
    gateway: &Arc<Gateway>,
    handle: &Handle,
) -> Sources {
    let meters = Meters {
        engine: Arc::clone(engine),
        opener: Arc::clone(opener),
        state: home.places.state(&home.stack),
    };
    Sources { meter: Arc::new(meters), snapshots: handle.snapshot.clone(), tallies: tallies(gateway) }
}

/// What the gateway counted.
fn tallies(gateway: &Arc<Gateway>) -> Tallies {
    let gateway = Arc::clone(gateway);
    Arc::new(move || gateway.overview().into_iter().map(|view| (view.server.clone(), tally(&view))).collect())
}

fn tally(view: &ServerView) -> Tally {
    let mut classes = [0; BUCKETS_MICROS.len() + 1];
    for kind in &view.calls {
        for (sum, count) in classes.iter_mut().zip(kind.classes) {
            *sum += count;
        }
    }
    Tally {
        requests: view.calls.iter().map(|kind| kind.calls).sum(),
        errors: view.calls.iter().map(|kind| kind.errors).sum(),
        classes,
    }
}
