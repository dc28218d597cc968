//! What this host and trees of local processes use, as `/proc` has it.
//!
//! Blocks for as long as the kernel takes to write a few small files: call it where that may be.
//! Must never read a command line or an environment, and never take what it may not read for 0.

use crate::model::time::Span;
use crate::model::usage::{Counters, HostCounters};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Where the kernel tells.
const PROC: &str = "/proc";
/// Processes of one tree that are looked at.
const PROCESSES_MAX: usize = 4096;
/// Nanoseconds of a tick in `/proc/*/stat`: the kernel shows hundredths of a second to programs.
const TICK_NANOS: u64 = 10_000_000;
/// Fields of `/proc/*/stat` behind the name, counted from 0 (`proc_pid_stat(5)` counts from 3).
const PARENT: usize = 1;
/// User and system time, and the same of children that were waited for.
const TIMES: std::ops::Range<usize> = 11..15;
const THREADS: usize = 17;

/// What a process, and all that it and its keeper started, uses; all unknown when it has ended or
/// may not be looked at. Memory is what is resident: pages that processes share count in each.
#[must_use]
pub fn of_process(pid: u32) -> Counters {
    tree(Path::new(PROC), pid).unwrap_or_default()
}

fn tree(proc: &Path, pid: u32) -> Option<Counters> {
    // What the process left behind is its keeper's child, and nobody else is.
    let keeper = *stat(proc, pid)?.get(PARENT)?;
    let keeper = u32::try_from(keeper).ok().filter(|keeper| *keeper > 1);
    let mut open = keeper.map_or_else(Vec::new, |keeper| children(proc, keeper));
    if !open.contains(&pid) {
        open = vec![pid];
    }
    let mut seen = BTreeSet::new();
    let (mut ticks, mut kib, mut tasks) = (0_u64, 0_u64, 0_u64);
    while let Some(pid) = open.pop() {
        if seen.len() >= PROCESSES_MAX || !seen.insert(pid) {
            continue;
        }
        // One that has ended meanwhile used nothing more.
        let Some(fields) = stat(proc, pid) else { continue };
        ticks += fields.get(TIMES).unwrap_or_default().iter().sum::<u64>();
        tasks += fields.get(THREADS).copied().unwrap_or(1);
        kib += resident_kib(proc, pid).unwrap_or(0);
        open.extend(children(proc, pid));
    }
    (tasks > 0).then(|| Counters {
        cpu_nanos: Some(ticks.saturating_mul(TICK_NANOS)),
        memory_bytes: Some(kib.saturating_mul(1024)),
        pids: Some(tasks),
        ..Counters::default()
    })
}

/// The fields behind the name, which may itself hold anything; what is no number is 0.
fn stat(proc: &Path, pid: u32) -> Option<Vec<u64>> {
    let text = std::fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_ascii_whitespace().map(|field| field.parse().unwrap_or(0)).collect())
}

fn resident_kib(proc: &Path, pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(proc.join(pid.to_string()).join("status")).ok()?;
    kib_of(&text, "VmRSS:")
}

/// `VmRSS:   1234 kB`.
fn kib_of(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

/// The children of all threads of a process.
fn children(proc: &Path, pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(proc.join(pid.to_string()).join("task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_ascii_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<u32>>())
        .collect()
}

/// What the host says of itself; `state` is a path on the disk that the state is on.
#[must_use]
pub fn of_host(state: &Path) -> HostCounters {
    host(Path::new(PROC), state)
}

fn host(proc: &Path, state: &Path) -> HostCounters {
    let read = |name: &str| std::fs::read_to_string(proc.join(name)).ok();
    let stat = read("stat").unwrap_or_default();
    let memory = read("meminfo").unwrap_or_default();
    let bytes = |key: &str| kib_of(&memory, key).map(|kib| kib.saturating_mul(1024));
    let disk = existing(state).and_then(|path| rustix::fs::statvfs(&path).ok());
    let first = |text: String| text.split_ascii_whitespace().next().and_then(hundredths);
    let cores = stat.lines().filter(|line| is_core(line)).count();
    HostCounters {
        name: read("sys/kernel/hostname").map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()),
        cores: u32::try_from(cores).ok().filter(|cores| *cores > 0),
        cpu_ticks: stat.lines().next().and_then(processor),
        load_hundredths: read("loadavg").and_then(first).and_then(|load| u32::try_from(load).ok()),
        memory_bytes: bytes("MemTotal:"),
        memory_available_bytes: bytes("MemAvailable:"),
        disk_bytes: disk.as_ref().map(|disk| disk.f_blocks.saturating_mul(disk.f_frsize)),
        disk_free_bytes: disk.map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
        uptime: read("uptime").and_then(first).map(|hundredths| Span::millis(hundredths.saturating_mul(10))),
    }
}

/// The nearest directory that is there.
fn existing(path: &Path) -> Option<PathBuf> {
    path.ancestors().find(|path| path.exists()).map(Path::to_path_buf)
}

fn is_core(line: &str) -> bool {
    line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// `cpu  user nice system idle iowait irq softirq steal …`: at work, and altogether.
fn processor(line: &str) -> Option<(u64, u64)> {
    let fields: Vec<u64> =
        line.strip_prefix("cpu ")?.split_ascii_whitespace().take(8).map_while(|n| n.parse().ok()).collect();
    let idle: u64 = fields.get(3..5)?.iter().sum();
    let all: u64 = fields.iter().sum();
    Some((all.saturating_sub(idle), all))
}

/// `1.25` as 125.
fn hundredths(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let part: u64 = format!("{part:0<2}").get(..2)?.parse().ok()?;
    Some(whole.parse::<u64>().ok()?.saturating_mul(100).saturating_add(part))
}

#[cfg(test)]
mod tests {
    use super::{hundredths, of_host, of_process, processor, tree};
    use crate::model::usage::Counters;
    use std::path::Path;

    fn process(proc: &Path, pid: u32, parent: u32, children: &str) {
        let dir = proc.join(pid.to_string());
        std::fs::create_dir_all(dir.join(format!("task/{pid}"))).unwrap();
        std::fs::write(dir.join(format!("task/{pid}/children")), children).unwrap();
        // The name may look like the fields behind it.
        let stat = format!("{pid} (a) S 1 (b)) S {parent} 1 1 0 -1 0 0 0 0 0 10 20 3 4 20 0 2 0 99 1 1");
        std::fs::write(dir.join("stat"), stat).unwrap();
        std::fs::write(dir.join("status"), "Name:\tx\nVmPeak:\t 9 kB\nVmRSS:\t    1024 kB\n").unwrap();
    }

    #[test]
    fn a_tree_is_the_process_and_all_that_its_keeper_adopted() {
        let dir = tempfile::tempdir().unwrap();
        process(dir.path(), 50, 7, "60 63 ");
        process(dir.path(), 60, 50, "61 62 ");
        process(dir.path(), 61, 60, "");
        process(dir.path(), 63, 50, "");
        process(dir.path(), 70, 7, "");
        // 62 has ended, 70 is somebody else's.
        let used = tree(dir.path(), 60).unwrap();
        assert_eq!((used.cpu_nanos, used.memory_bytes), (Some(3 * 370_000_000), Some(3 << 20)));
        assert_eq!((used.pids, used.network_in_bytes), (Some(6), None));
        assert_eq!(tree(dir.path(), 99), None);
        assert_eq!(of_process(u32::MAX), Counters::default());
        let own = of_process(std::process::id());
        assert!(own.pids >= Some(1) && own.memory_bytes > Some(1 << 20), "{own:?}");
    }

    #[test]
    fn the_host_tells_of_itself() {
        let host = of_host(Path::new("/nowhere/at/all"));
        assert!(host.cores >= Some(1) && host.uptime.is_some() && host.name.is_some(), "{host:?}");
        assert!(host.memory_available_bytes < host.memory_bytes, "{host:?}");
        assert!(host.disk_bytes > Some(0) && host.disk_free_bytes <= host.disk_bytes, "{host:?}");
        assert_eq!(processor("cpu  10 1 5 80 4 0 0 0 7 7"), Some((16, 100)));
        assert_eq!((processor("cpu0 1"), processor("cpu  1 2")), (None, None));
        assert_eq!(
            [hundredths("1.25"), hundredths("0.5"), hundredths("7"), hundredths("x")],
            [Some(125), Some(50), Some(700), None]
        );
    }
}
