//! What `/proc` says of a gateway's processes, apart from the stdio servers it has started.

use std::collections::BTreeMap;
use std::fs;
use std::ops::AddAssign;

use serde_json::{Value, json};

/// Name of the stdio server, told apart from the gateway in all readings.
const CHILD: &str = "fastmcp";
/// The kernel counts CPU time for user space in hundredths of a second.
const TICK_US: f64 = 10_000.0;

/// Some processes together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Share {
    /// User and system time, in ticks.
    pub cpu_ticks: u64,
    /// Resident memory in kB.
    pub rss_kb: u64,
    /// Open file descriptors.
    pub fds: usize,
    /// Threads.
    pub threads: u64,
    /// Processes.
    pub processes: usize,
}

impl AddAssign for Share {
    fn add_assign(&mut self, other: Self) {
        self.cpu_ticks += other.cpu_ticks;
        self.rss_kb += other.rss_kb;
        self.fds += other.fds;
        self.threads += other.threads;
        self.processes += other.processes;
    }
}

impl Share {
    /// CPU time since `before` for each of `calls` calls, in microseconds.
    #[must_use]
    pub fn us_per_call(&self, before: &Self, calls: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "ticks and calls of one run are small numbers")]
        let per_call = self.cpu_ticks.saturating_sub(before.cpu_ticks) as f64 / calls.max(1) as f64;
        per_call * TICK_US
    }

    /// For the report.
    #[must_use]
    pub fn json(&self) -> Value {
        #[expect(clippy::cast_precision_loss, reason = "kilobytes of memory fit")]
        let rss_mb = self.rss_kb as f64 / 1024.0;
        json!({"rss_mb": rss_mb, "fds": self.fds, "threads": self.threads, "processes": self.processes})
    }
}

/// One look at a gateway.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    /// The gateway itself: the process given and all below it but the stdio servers.
    pub bridge: Share,
    /// The stdio servers below it.
    pub child: Share,
    /// This program.
    pub own: Share,
    /// CPU time spent on the whole machine, in ticks.
    pub busy_ticks: u64,
}

impl Reading {
    /// Looks at `pid` and all below it; without one, only at the machine.
    #[must_use]
    pub fn take(pid: Option<u32>) -> Self {
        let mut reading = Self { busy_ticks: busy_ticks(), ..Self::default() };
        let own = std::process::id();
        reading.own = stat(own).map(|stat| share(own, &stat)).unwrap_or_default();
        for (name, share) in pid.map(tree).unwrap_or_default() {
            if name == CHILD {
                reading.child += share;
            } else {
                reading.bridge += share;
            }
        }
        reading
    }

    /// Cores that neither the gateway, nor its stdio servers, nor this program has used since
    /// `before`. For a server in a container that includes the server and the engine.
    #[must_use]
    pub fn other_cores(&self, before: &Self, seconds: f64) -> f64 {
        let known =
            |reading: &Self| reading.bridge.cpu_ticks + reading.child.cpu_ticks + reading.own.cpu_ticks;
        let busy = self.busy_ticks.saturating_sub(before.busy_ticks);
        let other = busy.saturating_sub(known(self).saturating_sub(known(before)));
        #[expect(clippy::cast_precision_loss, reason = "ticks of one run are a small number")]
        let ticks = other as f64;
        ticks * TICK_US / 1e6 / seconds
    }
}

struct Stat {
    name: String,
    parent: u32,
    cpu_ticks: u64,
    threads: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything.
    let (front, rest) = text.rsplit_once(") ")?;
    let name = front.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = rest.split(' ').collect();
    let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
    let parent = u32::try_from(number(1)?).ok()?;
    Some(Stat { name, parent, cpu_ticks: number(11)? + number(12)?, threads: number(17)? })
}

fn busy_ticks() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<u64> = fields.filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal
    [0, 1, 2, 5, 6].into_iter().filter_map(|at| ticks.get(at)).sum()
}

fn tree(root: u32) -> Vec<(String, Share)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let all: BTreeMap<u32, Stat> = pids.filter_map(|pid| Some((pid, stat(pid)?))).collect();
    let below = |mut pid: u32| {
        while let Some(stat) = all.get(&pid).filter(|_| pid != root) {
            pid = stat.parent;
        }
        pid == root
    };
    let found = all.iter().filter(|(pid, _)| below(**pid));
    found.map(|(pid, stat)| (stat.name.clone(), share(*pid, stat))).collect()
}

fn share(pid: u32, stat: &Stat) -> Share {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let rss =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
    Share {
        cpu_ticks: stat.cpu_ticks,
        rss_kb: rss.unwrap_or(0),
        fds: fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count),
        threads: stat.threads,
        processes: 1,
    }
}
