//! What servers and this host use: counters as they were read, and the points of the history.
//!
//! Invariant: what could not be read is `None`, never 0.

use crate::model::id::ServerId;
use crate::model::time::{Span, Timestamp};

/// What a container or a tree of processes has used by now, as its keeper counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Time on processors, in nanoseconds; counts up.
    pub cpu_nanos: Option<u64>,
    /// Memory held, in bytes, without what the kernel can take back at once.
    pub memory_bytes: Option<u64>,
    /// Most memory it may hold, in bytes.
    pub memory_limit_bytes: Option<u64>,
    /// Bytes received; counts up.
    pub network_in_bytes: Option<u64>,
    /// Bytes sent; counts up.
    pub network_out_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// What this host says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostCounters {
    /// Its name.
    pub name: Option<String>,
    /// Processors.
    pub cores: Option<u32>,
    /// Time of all processors: at work, and altogether, in the kernel's ticks; counts up.
    pub cpu_ticks: Option<(u64, u64)>,
    /// Runnable and waiting tasks over the last minute, in hundredths.
    pub load_hundredths: Option<u32>,
    /// Memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// What of it programs can have, in bytes.
    pub memory_available_bytes: Option<u64>,
    /// Size of the disk that the state is on, in bytes.
    pub disk_bytes: Option<u64>,
    /// What of it we may still use, in bytes.
    pub disk_free_bytes: Option<u64>,
    /// Time since it started.
    pub uptime: Option<Span>,
}

/// One point of a server's history: what happened since the point before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Point {
    /// The end of its time.
    pub at: Timestamp,
    /// Processors it used, in thousandths of one.
    pub cpu_millis: Option<u32>,
    /// Memory it held, in KiB.
    pub memory_kib: Option<u32>,
    /// Requests that ended.
    pub requests: u32,
    /// Those that failed.
    pub errors: u32,
    /// 95 of 100 requests took at most about this long, in microseconds.
    pub p95_micros: Option<u32>,
}

/// How fine a history is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Points a minute apart, or a few where there are very many servers.
    Minute,
    /// Points ten minutes apart.
    TenMinutes,
}

impl Step {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Minute, Self::TenMinutes];

    /// Time from a point to the next.
    #[must_use]
    pub const fn span(self) -> Span {
        match self {
            Self::Minute => Span::secs(60),
            Self::TenMinutes => Span::secs(600),
        }
    }

    /// Points that are kept of each server.
    #[must_use]
    pub const fn points(self) -> usize {
        match self {
            Self::Minute => 180,
            Self::TenMinutes => 144,
        }
    }

    /// How long a point is kept.
    #[must_use]
    pub const fn kept(self) -> Span {
        match self {
            Self::Minute => Span::secs(3 * 3600),
            Self::TenMinutes => Span::secs(24 * 3600),
        }
    }
}

/// A point of a server, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptPoint {
    /// The server.
    pub server: ServerId,
    /// How fine the history is that it belongs to.
    pub step: Step,
    /// The point.
    pub point: Point,
}

#[cfg(test)]
mod tests {
    use super::Step;

    #[test]
    fn what_is_kept_covers_its_time() {
        for step in Step::ALL {
            assert_eq!(step.span().0 * u64::try_from(step.points()).unwrap(), step.kept().0);
        }
    }
}
