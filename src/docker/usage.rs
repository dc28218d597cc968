//! What containers use, as the engine counts it: one reading, without waiting for a second.

use crate::docker::DockerEngine;
use crate::docker::errors::deadline;
use crate::model::id::ContainerId;
use crate::model::usage::Counters;
use crate::world::{ErrorKind, WorldError};
use bollard::models::ContainerStatsResponse;
use bollard::query_parameters::StatsOptionsBuilder;
use futures_util::TryStreamExt as _;
use std::time::Duration;

/// Longest wait for one reading: nobody waits for it, and the next one comes soon.
const USAGE_WITHIN: Duration = Duration::from_secs(5);
/// What of a container's memory the kernel can take back at once, by the hierarchy's version.
const RECLAIMABLE: [&str; 2] = ["inactive_file", "total_inactive_file"];

impl DockerEngine {
    /// What a container has used by now; all unknown when it does not run.
    ///
    /// # Errors
    /// When the engine does not answer, or does not know the container.
    pub async fn usage(&self, id: &ContainerId) -> Result<Counters, WorldError> {
        let client = self.client()?;
        let doing = format!("reading what container {id} uses");
        let options = StatsOptionsBuilder::new().stream(false).one_shot(true).build();
        let mut readings = Box::pin(client.stats(id.as_str(), Some(options)));
        match deadline(&doing, USAGE_WITHIN, readings.try_next()).await? {
            Some(reading) => Ok(counters(&reading)),
            None => Err(WorldError::new(doing, ErrorKind::Failed, "the engine said nothing")),
        }
    }
}

fn counters(reading: &ContainerStatsResponse) -> Counters {
    let memory = reading.memory_stats.as_ref();
    let reclaimable = memory.and_then(|memory| {
        let parts = memory.stats.as_ref()?;
        RECLAIMABLE.iter().find_map(|name| parts.get(*name).copied())
    });
    let held = |bytes: u64| bytes.saturating_sub(reclaimable.unwrap_or(0));
    let networks = || reading.networks.iter().flatten().map(|(_, network)| network);
    let sum = |bytes: Vec<u64>| (!bytes.is_empty()).then(|| bytes.iter().sum());
    // A container that has ended has no processes: its zeros are not figures.
    let runs = reading.pids_stats.as_ref().and_then(|pids| pids.current).filter(|pids| *pids > 0);
    let processor = reading.cpu_stats.as_ref().and_then(|cpu| cpu.cpu_usage.as_ref());
    Counters {
        cpu_nanos: processor.and_then(|cpu| cpu.total_usage).filter(|_| runs.is_some()),
        memory_bytes: memory.and_then(|memory| memory.usage).map(held).filter(|_| runs.is_some()),
        memory_limit_bytes: memory.and_then(|memory| memory.limit),
        network_in_bytes: sum(networks().filter_map(|network| network.rx_bytes).collect()),
        network_out_bytes: sum(networks().filter_map(|network| network.tx_bytes).collect()),
        pids: runs,
    }
}

#[cfg(test)]
mod tests {
    use super::counters;
    use crate::model::usage::Counters;

    #[test]
    fn a_reading_is_translated() {
        let text = r#"{
            "cpu_stats": {"cpu_usage": {"total_usage": 123456789}, "online_cpus": 2},
            "memory_stats": {"usage": 5000, "limit": 9000, "stats": {"inactive_file": 1000, "anon": 7}},
            "networks": {"eth0": {"rx_bytes": 10, "tx_bytes": 1}, "eth1": {"rx_bytes": 5, "tx_bytes": 2}},
            "pids_stats": {"current": 3}
        }"#;
        let found = counters(&serde_json::from_str(text).unwrap());
        let expected = Counters {
            cpu_nanos: Some(123_456_789),
            memory_bytes: Some(4000),
            memory_limit_bytes: Some(9000),
            network_in_bytes: Some(15),
            network_out_bytes: Some(3),
            pids: Some(3),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_not_told_is_not_known() {
        let ended =
            r#"{"cpu_stats": {"cpu_usage": {"total_usage": 0}}, "memory_stats": {}, "pids_stats": {}}"#;
        assert_eq!(counters(&serde_json::from_str(ended).unwrap()), Counters::default());
        assert_eq!(counters(&serde_json::from_str("{}").unwrap()), Counters::default());
    }
}
