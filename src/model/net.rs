//! Ports and ranges, checked in the type.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A TCP port of this host, never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HostPort(std::num::NonZeroU16);

impl HostPort {
    /// The port, unless it is 0.
    #[must_use]
    pub fn new(port: u16) -> Option<Self> {
        std::num::NonZeroU16::new(port).map(Self)
    }

    /// The port as a number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The host ports that may be leased, both ends included (`[service] port_range_start/_end`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    /// Lowest port.
    pub start: HostPort,
    /// Highest port, at least `start`.
    pub end: HostPort,
}

impl PortRange {
    /// Whether `port` lies in the range.
    #[must_use]
    pub fn contains(&self, port: HostPort) -> bool {
        self.start <= port && port <= self.end
    }

    /// All ports of the range, lowest first.
    pub fn ports(&self) -> impl Iterator<Item = HostPort> + use<> {
        (self.start.get()..=self.end.get()).filter_map(HostPort::new)
    }

    /// How many ports the range has.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.end.get().saturating_sub(self.start.get())) + 1
    }

    /// Always false: a range has at least one port.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}
