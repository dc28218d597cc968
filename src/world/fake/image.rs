//! Images and what the programs in them do once started.
//!
//! Must never depend on the container's declaration: a program's fate is its image's.

use crate::model::id::ImageId;
use crate::model::observed::Image;
use crate::model::time::{Span, Timestamp};
use crate::world::fake::rng::Rng;

/// What the program in an image does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Runs for ever; answers on its ports after a while.
    Stable {
        /// From start to the first answer.
        serves_after: Span,
    },
    /// Ends at once, every time.
    CrashAtOnce {
        /// Exit code.
        exit: i64,
    },
    /// Ends after a while, every time.
    CrashAfter {
        /// From start to end.
        after: Span,
        /// Exit code.
        exit: i64,
    },
    /// Ends early the first times, then runs for ever.
    CrashTimes {
        /// How many times, over all containers of the image.
        times: u32,
        /// From start to end.
        after: Span,
    },
    /// Runs for ever, never answers, and fails its health check if it has one.
    NeverHealthy,
    /// The kernel kills it for memory, every time.
    OutOfMemory {
        /// From start to end.
        after: Span,
    },
    /// The kernel kills it for memory where its limit is lower than this; else it runs for ever.
    NeedsMemory {
        /// In bytes.
        bytes: i64,
        /// From start to end.
        after: Span,
    },
}

/// The end of a program that is already known when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) at: Timestamp,
    pub(crate) exit: i64,
    pub(crate) oom: bool,
}

/// What a program needs that ends for want of memory: more than an entry has, less than one step more.
const NEEDED: i64 = 300 * 1024 * 1024;
/// Time between start and end of a program that ends at once.
const AT_ONCE: Span = Span::millis(20);
/// Exit code of a program killed by SIGKILL.
pub(crate) const KILLED: i64 = 137;

impl Behaviour {
    /// Whether it may be expected to stay up, perhaps after some tries.
    #[must_use]
    pub const fn settles(self) -> bool {
        matches!(self, Self::Stable { .. } | Self::CrashTimes { .. })
    }

    /// When a program started at `now` with a memory limit ends, if it does; `earlier` counts starts
    /// before this one.
    pub(crate) fn end(self, now: Timestamp, earlier: u32, limit: i64) -> Option<End> {
        let end = |after, exit, oom| Some(End { at: now.after(after), exit, oom });
        match self {
            Self::Stable { .. } | Self::NeverHealthy => None,
            Self::CrashAtOnce { exit } => end(AT_ONCE, exit, false),
            Self::CrashAfter { after, exit } => end(after, exit, false),
            Self::CrashTimes { times, after } => (earlier < times).then(|| end(after, 1, false)).flatten(),
            Self::OutOfMemory { after } => end(after, KILLED, true),
            Self::NeedsMemory { bytes, after } => {
                (limit > 0 && limit < bytes).then(|| end(after, KILLED, true)).flatten()
            }
        }
    }

    /// When a program started at `now` answers on its ports, if it does.
    pub(crate) fn serves(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Stable { serves_after } => Some(now.after(serves_after)),
            Self::NeverHealthy => None,
            Self::CrashAtOnce { .. }
            | Self::CrashAfter { .. }
            | Self::CrashTimes { .. }
            | Self::NeedsMemory { .. }
            | Self::OutOfMemory { .. } => Some(now.after(Span::millis(100))),
        }
    }

    /// A behaviour; most programs are well behaved.
    #[must_use]
    pub fn generate(rng: &mut Rng) -> Self {
        let exit = i64::try_from(rng.below(3)).unwrap_or(1);
        let after = rng.millis(500, 90_000);
        match rng.below(16) {
            0 => Self::CrashAtOnce { exit },
            1 => Self::CrashAfter { after, exit },
            2 | 3 => Self::CrashTimes { times: u32::try_from(rng.between(1, 4)).unwrap_or(1), after },
            4 => Self::NeverHealthy,
            5 if exit == 2 => Self::NeedsMemory { bytes: NEEDED, after },
            5 => Self::OutOfMemory { after },
            _ => Self::Stable { serves_after: rng.millis(50, 5_000) },
        }
    }
}

/// Everything about an image, wherever it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFacts {
    /// What the engine says of it.
    pub image: Image,
    /// Paths its `VOLUME` lines name.
    pub volumes: Vec<String>,
    /// It has a `HEALTHCHECK`.
    pub health_check: bool,
    /// What its program does.
    pub behaviour: Behaviour,
    /// Starts so far, over all containers.
    pub starts: u32,
}

impl ImageFacts {
    /// An image named `reference` in its `version`th edition, with this program in it.
    #[must_use]
    pub fn new(reference: &str, version: u32, behaviour: Behaviour) -> Self {
        let hash = crate::model::fingerprint::sha256_hex(&format!("{reference}#{version}"), 64);
        let repository = reference.rsplit_once(':').map_or(reference, |(repository, _)| repository);
        let image = Image {
            id: ImageId(format!("sha256:{hash}")),
            digest: Some(format!("{repository}@sha256:{}", crate::model::fingerprint::sha256_hex(&hash, 64))),
            exposed: Vec::new(),
        };
        Self { image, volumes: Vec::new(), health_check: false, behaviour, starts: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::{Behaviour, ImageFacts};
    use crate::model::time::{Span, Timestamp};

    #[test]
    fn some_programs_settle_after_tries() {
        let behaviour = Behaviour::CrashTimes { times: 2, after: Span::secs(1) };
        let ends: Vec<bool> = (0..4).map(|n| behaviour.end(Timestamp(0), n, 0).is_some()).collect();
        assert_eq!(ends, [true, true, false, false]);
        assert!(behaviour.settles() && !Behaviour::NeverHealthy.settles());
    }

    #[test]
    fn editions_of_an_image_differ() {
        let (a, b) = [1, 2].map(|n| ImageFacts::new("r/x:1", n, Behaviour::NeverHealthy)).into();
        assert_ne!(a.image.id, b.image.id);
        assert!(a.image.digest.is_some_and(|d| d.starts_with("r/x@sha256:") && d.len() == 4 + 7 + 64));
    }
}
