//! The promise of the loop: for any desired state, any reachable world and any fault script, once
//! faults stop a bounded number of passes leads to an empty plan, nothing foreign was touched, no
//! two servers share a port, nothing is leaked.
//!
//! `SIMULATION_SEEDS=N` runs N seeds instead; `SIMULATION_FROM=K` starts at K. A failing seed is
//! replayed by `mcp-orchestrator simulate --seed K`.

use mcp_orchestrator::simulate;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Seeds in an ordinary run.
const SEEDS: u64 = 10_000;
/// Failing seeds that are shown.
const SHOWN: usize = 5;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn every_seed_comes_to_rest() {
    let from = number("SIMULATION_FROM", 0);
    let until = from + number("SIMULATION_SEEDS", SEEDS);
    let next = AtomicU64::new(from);
    let failed: Mutex<Vec<(u64, Vec<String>)>> = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZeroUsize::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= until {
                        break;
                    }
                    let run = simulate::run(seed, false).expect("a scenario");
                    if !run.faults.is_empty() {
                        failed.lock().unwrap().push((seed, run.faults));
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap();
    failed.sort();
    let shown: Vec<String> = failed
        .iter()
        .take(SHOWN)
        .map(|(seed, faults)| format!("seed {seed}:\n  {}", faults.join("\n  ")))
        .collect();
    assert!(failed.is_empty(), "{} of {} seeds fail\n{}", failed.len(), until - from, shown.join("\n"));
}
