//! Finds out which era a stdio server speaks, as a total state machine: events in, one step out.
//!
//! A dual-era server settles on the era of the first message it takes and refuses the other from
//! then on. One that refused `server/discover` settled on nothing, so `initialize` may follow on
//! the same process; one that said nothing, or refused both, gets a **new process**:
//!
//! ```text
//! sent              the server says                          step
//! server/discover   a result with a version of ours          settled: modern
//!                   -32022 naming another version of ours    ask again with that version
//!                   -32020, -32021                           settled: modern
//!                   any other error                          same process: initialize
//!                   nothing in time, exit                    new process, first line initialize
//! initialize        a result with a version of ours          send initialized; settled: legacy
//!                   an error or exit, after a discover       new process, first line initialize
//!                   an error or exit, before a discover      new process, first line discover
//!                   anything else                            failed
//! ```
//!
//! A process is replaced at most once, whatever the server does (`tests::it_always_ends`).
//!
//! Must never decide on one error code alone that a server is legacy.

use crate::mcp::handshake::{ServerInfo, versions};
use crate::mcp::wire::{
    Era, HEADER_MISMATCH, LEGACY_LATEST, MISSING_CAPABILITY, MODERN_LATEST, MODERN_VERSIONS, RpcError,
    UNSUPPORTED_VERSION, member,
};
use serde_json::value::RawValue;
use std::fmt;

/// What happened to the message sent last.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Its result came.
    Result(&'a RawValue),
    /// An error came.
    Error(&'a RpcError),
    /// Nothing came in time.
    Timeout,
    /// The process ended or closed its output.
    Closed,
}

/// What to do next.
#[derive(Clone, Debug)]
pub enum Step {
    /// Send this and report what happens.
    Send(First),
    /// Throw this process away, start another, and send this as its first line.
    Restart(First),
    /// Done. For a legacy server, `initialized` must be sent before anything else.
    Settled(Box<Verdict>),
    /// This server cannot be used.
    Failed(EraError),
}

/// A message that opens a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum First {
    /// `server/discover` with this version.
    Discover(String),
    /// `initialize` with this version.
    Initialize(String),
}

/// What was found out.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The era; the process is pinned to it.
    pub era: Era,
    /// The version both sides speak.
    pub version: String,
    /// What the server said about itself; `None` when a modern server only complained.
    pub server: Option<ServerInfo>,
}

/// Why a server cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EraError {
    /// It speaks none of our versions.
    NoCommonVersion {
        /// Those that it named.
        offered: Vec<String>,
    },
    /// It refused to open a connection.
    Refused {
        /// Its error code.
        code: i64,
        /// Its words.
        message: String,
    },
    /// It did not answer in time.
    Silent,
    /// The same, while it wrote lines that are no messages.
    Babbles {
        /// How many.
        lines: u64,
    },
    /// It ended.
    Ended,
    /// Its answer to `initialize` is none.
    Malformed,
}

impl fmt::Display for EraError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCommonVersion { offered } => {
                write!(f, "server speaks no protocol version of ours, only {}", offered.join(", "))
            }
            Self::Refused { code, message } => {
                write!(f, "server refused to open a connection: {message} (code {code})")
            }
            Self::Silent => f.write_str("server did not answer the first message in time"),
            Self::Babbles { lines } => write!(
                f,
                "server did not answer the first message in time; {lines} lines on its output are no messages (`logs` has them)"
            ),
            Self::Ended => f.write_str("server ended before it answered the first message"),
            Self::Malformed => f.write_str("server answered initialize with something else"),
        }
    }
}

impl std::error::Error for EraError {}

/// The probe of one server.
#[derive(Clone, Debug)]
pub struct Probe {
    sent: First,
    /// Whether this is the second process.
    restarted: bool,
    /// Whether this process was already asked for another modern version.
    asked_again: bool,
    /// Whether this process refused a discover before.
    refused_discover: bool,
}

impl Probe {
    /// Begins with a process. `known` is what an earlier probe of the same image and arguments
    /// found; it is tried first and dropped when contradicted. `restarted`: this process is the
    /// second one already.
    #[must_use]
    pub fn begin(known: Option<Era>, restarted: bool) -> (Self, First) {
        let sent = match known {
            Some(Era::Legacy) => First::Initialize(LEGACY_LATEST.to_owned()),
            Some(Era::Modern) | None => First::Discover(MODERN_LATEST.to_owned()),
        };
        (Self { sent: sent.clone(), restarted, asked_again: false, refused_discover: false }, sent)
    }

    /// Takes what happened and says what to do.
    #[must_use]
    pub fn on(&mut self, event: Event<'_>) -> Step {
        match self.sent.clone() {
            First::Discover(version) => self.on_discover(&version, event),
            First::Initialize(_) => self.on_initialize(event),
        }
    }

    fn on_discover(&mut self, version: &str, event: Event<'_>) -> Step {
        match event {
            Event::Result(result) => match versions(result, "supportedVersions") {
                Some(offered) => match newest_modern(&offered) {
                    Some(agreed) => {
                        settled(Era::Modern, agreed, Some(ServerInfo::of_discover(result, agreed)))
                    }
                    None => self.legacy_or(EraError::NoCommonVersion { offered }),
                },
                // A server that answers anything with a result of its own making.
                None => self.legacy_or(EraError::Malformed),
            },
            Event::Error(error) => match error.code {
                UNSUPPORTED_VERSION => self.on_other_version(version, error),
                HEADER_MISMATCH | MISSING_CAPABILITY => settled(Era::Modern, version, None),
                _ => self.same_process(),
            },
            Event::Timeout => self.legacy_or(EraError::Silent),
            Event::Closed => self.legacy_or(EraError::Ended),
        }
    }

    fn on_other_version(&mut self, version: &str, error: &RpcError) -> Step {
        let offered = supported(error);
        match newest_modern(&offered) {
            Some(other) if other != version && !self.asked_again => {
                self.asked_again = true;
                self.sent = First::Discover(other.to_owned());
                Step::Send(self.sent.clone())
            }
            // One that names versions of the other era takes a handshake.
            _ if offered.iter().any(|version| Era::of(version) == Some(Era::Legacy)) => self.same_process(),
            _ => self.legacy_or(EraError::NoCommonVersion { offered }),
        }
    }

    fn same_process(&mut self) -> Step {
        self.refused_discover = true;
        self.sent = First::Initialize(LEGACY_LATEST.to_owned());
        Step::Send(self.sent.clone())
    }

    fn on_initialize(&mut self, event: Event<'_>) -> Step {
        let why = match event {
            Event::Result(result) => {
                let Some(server) = ServerInfo::of_initialize(result) else {
                    return Step::Failed(EraError::Malformed);
                };
                let version = server.protocol_version.clone();
                return match Era::of(&version) {
                    Some(Era::Legacy) => settled(Era::Legacy, &version, Some(server)),
                    Some(Era::Modern) | None => {
                        Step::Failed(EraError::NoCommonVersion { offered: vec![version] })
                    }
                };
            }
            Event::Error(error) if error.code == UNSUPPORTED_VERSION => {
                EraError::NoCommonVersion { offered: supported(error) }
            }
            Event::Error(error) => refused(error),
            Event::Closed => EraError::Ended,
            // Slow and wrong look the same; a second process would only double the wait.
            Event::Timeout => return Step::Failed(EraError::Silent),
        };
        let first = if self.refused_discover {
            First::Initialize(LEGACY_LATEST.to_owned())
        } else {
            First::Discover(MODERN_LATEST.to_owned())
        };
        self.restart(first, why)
    }

    fn legacy_or(&mut self, why: EraError) -> Step {
        self.restart(First::Initialize(LEGACY_LATEST.to_owned()), why)
    }

    fn restart(&mut self, first: First, why: EraError) -> Step {
        if self.restarted {
            return Step::Failed(why);
        }
        self.restarted = true;
        self.asked_again = false;
        self.refused_discover = false;
        self.sent = first.clone();
        Step::Restart(first)
    }
}

fn settled(era: Era, version: &str, server: Option<ServerInfo>) -> Step {
    Step::Settled(Box::new(Verdict { era, version: version.to_owned(), server }))
}

fn refused(error: &RpcError) -> EraError {
    EraError::Refused { code: error.code, message: error.message.clone() }
}

fn supported(error: &RpcError) -> Vec<String> {
    member(&error.raw, "data").and_then(|data| versions(data, "supported")).unwrap_or_default()
}

fn newest_modern(offered: &[String]) -> Option<&'static str> {
    MODERN_VERSIONS.iter().rev().find(|ours| offered.iter().any(|theirs| theirs == *ours)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).expect("json")
    }

    fn error(text: &str) -> RpcError {
        RpcError::read(&raw(text))
    }

    const LEGACY: &str =
        r#"{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"s","version":"1"}}"#;
    const MODERN: &str = r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{}}"#;

    #[test]
    fn a_modern_server_is_settled_at_once() {
        let (mut probe, first) = Probe::begin(None, false);
        assert_eq!(first, First::Discover("2026-07-28".into()));
        assert!(matches!(probe.on(Event::Result(&raw(MODERN))), Step::Settled(v) if v.era == Era::Modern));
        let (mut probe, _) = Probe::begin(Some(Era::Modern), false);
        let complaint = error(r#"{"code":-32021,"message":"capability"}"#);
        assert!(
            matches!(probe.on(Event::Error(&complaint)), Step::Settled(v) if v.era == Era::Modern && v.server.is_none())
        );
    }

    #[test]
    fn a_refused_discover_is_followed_by_a_handshake_whatever_the_code() {
        for code in [-32601, -32600, -32602, -32000, 0] {
            let (mut probe, _) = Probe::begin(None, false);
            let no = error(&format!(r#"{{"code":{code},"message":"no"}}"#));
            assert!(
                matches!(probe.on(Event::Error(&no)), Step::Send(First::Initialize(v)) if v == "2025-11-25")
            );
            assert!(
                matches!(probe.on(Event::Result(&raw(LEGACY))), Step::Settled(v) if v.era == Era::Legacy)
            );
        }
        for event in [Event::Timeout, Event::Closed] {
            let (mut probe, _) = Probe::begin(None, false);
            assert!(matches!(probe.on(event), Step::Restart(First::Initialize(_))));
        }
    }

    #[test]
    fn a_known_verdict_saves_the_probe_and_gives_way_when_contradicted() {
        let (mut probe, first) = Probe::begin(Some(Era::Legacy), false);
        assert!(matches!(first, First::Initialize(_)));
        let no = error(r#"{"code":-32022,"message":"x","data":{"supported":["2026-07-28"]}}"#);
        assert!(matches!(probe.on(Event::Error(&no)), Step::Restart(First::Discover(_))));
        assert!(matches!(probe.on(Event::Result(&raw(MODERN))), Step::Settled(v) if v.era == Era::Modern));
    }

    #[test]
    fn what_speaks_nothing_of_ours_fails_with_its_versions() {
        let (mut probe, _) = Probe::begin(None, false);
        let no = error(r#"{"code":-32022,"message":"x","data":{"supported":["2030-01-01"]}}"#);
        assert!(matches!(probe.on(Event::Error(&no)), Step::Restart(First::Initialize(_))));
        let old = raw(r#"{"protocolVersion":"1999-01-01"}"#);
        let Step::Failed(why) = probe.on(Event::Result(&old)) else { panic!("failed") };
        assert_eq!(why.to_string(), "server speaks no protocol version of ours, only 1999-01-01");
    }

    proptest! {
        #[test]
        fn it_always_ends(known in 0_usize..3, choices in proptest::collection::vec(0_usize..9, 12)) {
            let known = [None, Some(Era::Legacy), Some(Era::Modern)][known];
            let (mut probe, mut first) = Probe::begin(known, false);
            let (mut restarts, mut ended, mut sends) = (0, false, 1);
            let answers = [LEGACY, MODERN, "{}", r#"{"protocolVersion":"2026-07-28"}"#];
            let errors = [
                r#"{"code":-32601,"message":""}"#, r#"{"code":-32020,"message":""}"#,
                r#"{"code":-32022,"message":"","data":{"supported":["2026-07-28"]}}"#,
            ];
            for choice in choices {
                let step = match choice {
                    0..=3 => probe.on(Event::Result(&raw(answers[choice]))),
                    4..=6 => probe.on(Event::Error(&error(errors[choice - 4]))),
                    7 => probe.on(Event::Timeout),
                    _ => probe.on(Event::Closed),
                };
                match step {
                    Step::Send(next) => {
                        // Never back from a handshake on the same process.
                        prop_assert!(!matches!((&first, &next), (First::Initialize(_), First::Discover(_))));
                        first = next;
                        sends += 1;
                    }
                    Step::Restart(next) => { restarts += 1; sends += 1; first = next; }
                    Step::Settled(verdict) => {
                        prop_assert_eq!(verdict.era == Era::Legacy, matches!(first, First::Initialize(_)));
                        ended = true;
                    }
                    Step::Failed(_) => ended = true,
                }
                if ended { break; }
            }
            prop_assert!(ended && restarts <= 1 && sends <= 6);
        }
    }
}
