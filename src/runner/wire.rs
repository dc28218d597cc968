//! What is said over a connection: one request, one answer, one end.
//!
//! ```text
//! daemon -> Request
//!        <- Started, with stdin, stdout, stderr   | Refused
//! daemon -> End (optional; closing is enough)
//!        <- Ended
//! ```
//! A frame is its length in four bytes, most significant first, and that many bytes of JSON. The
//! sides may be of different versions during an upgrade: a request says its version, unknown members
//! are skipped.
//!
//! Must never name a request's content in a fault: it holds secrets.

use crate::world::ErrorKind;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The version spoken here.
pub const VERSION: u32 = 1;
/// Longest request. Arguments and environment together: the kernel takes 2 MiB, with room for neither
/// side's own.
pub const REQUEST_BYTES_MAX: usize = 1024 * 1024;
/// Longest answer, and longest [`End`].
pub const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// Most arguments.
pub const ARGS_MAX: usize = 4096;
/// Most variables.
pub const ENV_MAX: usize = 1024;
/// Longest server name, beyond any server id.
pub const SERVER_BYTES_MAX: usize = 128;
/// Longest grace that may be asked for.
pub const GRACE_MAX: Duration = Duration::from_secs(60);
/// Bytes before each frame.
pub const HEAD_BYTES: usize = 4;

/// A process that is wanted.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`] of who asks.
    pub version: u32,
    /// The server it is for; for the journal.
    pub server: String,
    /// A path, or a name looked up on `PATH`.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Added to the base environment of the keeper, over it.
    pub env: BTreeMap<String, String>,
    /// Its working directory; the keeper's when `None`.
    pub cwd: Option<String>,
    /// What it may use.
    #[serde(default)]
    pub limits: Limits,
}

/// What a process and all it starts may use together; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// Billionths of a CPU.
    #[serde(default)]
    pub nano_cpus: Option<u64>,
    /// Processes and threads.
    #[serde(default)]
    pub pids: Option<u64>,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, server, program, args, env, cwd, limits } = self;
        f.debug_struct("Request")
            .field("version", version)
            .field("server", server)
            .field("program", program)
            .field("args", &args.len())
            .field("env", &env.keys().collect::<Vec<_>>())
            .field("cwd", cwd)
            .field("limits", limits)
            .finish()
    }
}

impl Request {
    /// What is wrong with it, before anything is started.
    #[must_use]
    pub fn complaint(&self) -> Option<Refusal> {
        let invalid = |cause: String| Some(Refusal { kind: RefusalKind::Invalid, cause });
        if self.version != VERSION {
            let cause = format!(
                "the runner speaks version {VERSION} and was asked in version {}; restart mcp-orchestrator-runner after an upgrade",
                self.version
            );
            return invalid(cause);
        }
        if self.args.len() > ARGS_MAX {
            return invalid(format!("it has {} arguments, {ARGS_MAX} are allowed", self.args.len()));
        }
        if self.env.len() > ENV_MAX {
            return invalid(format!("it has {} variables, {ENV_MAX} are allowed", self.env.len()));
        }
        let named = !self.server.is_empty()
            && self.server.len() <= SERVER_BYTES_MAX
            && self.server.bytes().all(|byte| byte.is_ascii_graphic());
        (!named).then(|| Refusal {
            kind: RefusalKind::Invalid,
            cause: "the request names no server, or one that is no id".to_owned(),
        })
    }
}

/// The answers of a keeper or of the service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It runs; its three streams come with this frame.
    Started {
        /// Its process id, which is also its group's.
        pid: u32,
    },
    /// It does not, and never will by this connection.
    Refused(Refusal),
    /// It ended, and nothing of it is left.
    Ended {
        /// `exited with code 1`.
        how: String,
        /// It exited with code 0.
        #[serde(default)]
        clean: bool,
        /// The kernel killed it, or a part of it, for memory; `None`: it does not look so, or nobody
        /// can tell.
        #[serde(default)]
        oom: Option<bool>,
    },
}

/// Why a process was not started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What kind of no it is.
    pub kind: RefusalKind,
    /// In words, without arguments and environment.
    pub cause: String,
}

/// Kinds of refusal; as [`ErrorKind`] has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// Program or working directory is not there.
    NotFound,
    /// It may not be executed, or we may not ask.
    Denied,
    /// The request is wrong.
    Invalid,
    /// Too many processes run.
    Quota,
    /// Anything else.
    Failed,
}

impl From<RefusalKind> for ErrorKind {
    fn from(kind: RefusalKind) -> Self {
        match kind {
            RefusalKind::NotFound => Self::NotFound,
            RefusalKind::Denied => Self::Denied,
            RefusalKind::Invalid => Self::Invalid,
            RefusalKind::Quota => Self::Quota,
            RefusalKind::Failed => Self::Failed,
        }
    }
}

/// The process shall end. Its input was closed before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Milliseconds until SIGTERM.
    pub asked_ms: u64,
    /// Milliseconds from then until SIGKILL.
    pub terminated_ms: u64,
}

impl End {
    /// With these graces, each at most [`GRACE_MAX`].
    #[must_use]
    pub fn within(asked: Duration, terminated: Duration) -> Self {
        let ms = |span: Duration| u64::try_from(span.min(GRACE_MAX).as_millis()).unwrap_or(u64::MAX);
        Self { asked_ms: ms(asked), terminated_ms: ms(terminated) }
    }

    /// Until SIGTERM, and from then until SIGKILL.
    #[must_use]
    pub fn graces(self) -> (Duration, Duration) {
        let span = |ms: u64| Duration::from_millis(ms).min(GRACE_MAX);
        (span(self.asked_ms), span(self.terminated_ms))
    }
}

/// What is wrong with what arrived.
#[derive(Debug)]
pub enum Fault {
    /// A frame is longer than this many bytes.
    TooLarge(usize),
    /// The connection closed within a frame.
    Truncated,
    /// A frame is not what was to come.
    Garbage,
    /// The connection failed.
    Io(std::io::Error),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge(max) => write!(f, "the message is longer than {max} bytes"),
            Self::Truncated => f.write_str("the connection closed within a message"),
            Self::Garbage => f.write_str("the message is not of the expected form"),
            Self::Io(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for Fault {}

/// The frame of `message`.
///
/// # Errors
/// When it is longer than `max`.
pub fn encode<T: Serialize>(message: &T, max: usize) -> Result<Vec<u8>, Fault> {
    let mut frame = vec![0; HEAD_BYTES];
    serde_json::to_writer(&mut frame, message).map_err(|_never| Fault::Garbage)?;
    let length = frame.len() - HEAD_BYTES;
    let head = u32::try_from(length).ok().filter(|_| length <= max).ok_or(Fault::TooLarge(max))?;
    for (place, byte) in frame.iter_mut().zip(head.to_be_bytes()) {
        *place = byte;
    }
    Ok(frame)
}

/// Takes the first frame out of what arrived; `None` while it is not all there.
///
/// # Errors
/// When it is longer than `max` or not a `T`.
pub fn decode<T: DeserializeOwned>(arrived: &mut Vec<u8>, max: usize) -> Result<Option<T>, Fault> {
    let Some((head, rest)) = arrived.split_first_chunk::<HEAD_BYTES>() else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
    if length > max {
        return Err(Fault::TooLarge(max));
    }
    let Some(body) = rest.get(..length) else { return Ok(None) };
    // The parser's own words may quote the content.
    let message = serde_json::from_slice(body).map_err(|_quoting| Fault::Garbage)?;
    arrived.drain(..HEAD_BYTES + length);
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request() -> Request {
        Request {
            version: VERSION,
            server: "time".into(),
            program: "npx".into(),
            args: vec!["-y".into(), "SECRET".into()],
            env: BTreeMap::from([("TOKEN".into(), "SECRET".into())]),
            cwd: None,
            limits: Limits { pids: Some(3), ..Limits::default() },
        }
    }

    #[test]
    fn frames_come_back_one_after_the_other() {
        let end = End::within(Duration::from_millis(7), Duration::from_secs(3600));
        let mut arrived = encode(&request(), REQUEST_BYTES_MAX).expect("a frame");
        arrived.extend(encode(&end, ANSWER_BYTES_MAX).expect("a frame"));
        assert_eq!(decode(&mut arrived, REQUEST_BYTES_MAX).expect("whole"), Some(request()));
        let end: End = decode(&mut arrived, ANSWER_BYTES_MAX).expect("whole").expect("a frame");
        assert_eq!(end.graces(), (Duration::from_millis(7), GRACE_MAX));
        assert!(arrived.is_empty());
    }

    #[test]
    fn every_part_of_a_frame_is_no_frame_yet() {
        let whole = encode(&request(), REQUEST_BYTES_MAX).expect("a frame");
        for length in 0..whole.len() {
            let mut part = whole[..length].to_vec();
            let found = decode::<Request>(&mut part, REQUEST_BYTES_MAX).expect("no fault");
            assert!(found.is_none() && part.len() == length, "{length}");
        }
    }

    #[test]
    fn what_is_too_large_is_refused_by_its_head_alone() {
        let mut head = u32::MAX.to_be_bytes().to_vec();
        assert!(matches!(decode::<Request>(&mut head, 10), Err(Fault::TooLarge(10))));
        assert!(matches!(encode(&request(), 10), Err(Fault::TooLarge(10))));
    }

    #[test]
    fn garbage_is_refused_without_being_quoted() {
        for body in ["", "{", "[]", "null", r#"{"version":"SECRET"}"#, "\u{0}SECRET", r#"{"version":1}"#] {
            let mut frame = u32::try_from(body.len()).expect("short").to_be_bytes().to_vec();
            frame.extend(body.as_bytes());
            let fault = decode::<Request>(&mut frame, REQUEST_BYTES_MAX).expect_err(body);
            assert!(!format!("{fault} {fault:?}").contains("SECRET"), "{fault}");
        }
        let shown = format!("{:?}", request());
        assert!(shown.contains("TOKEN") && !shown.contains("SECRET"), "{shown}");
    }

    #[test]
    fn bounds_of_a_request_are_told_by_name() {
        let complaint = |change: fn(&mut Request)| {
            let mut request = request();
            change(&mut request);
            request.complaint().map(|refusal| refusal.cause).unwrap_or_default()
        };
        assert_eq!(complaint(|_| {}), "");
        assert!(complaint(|request| request.version = 2).contains("restart mcp-orchestrator-runner"));
        assert!(complaint(|request| request.args = vec![String::new(); 5000]).contains("5000 arguments"));
        let many = |request: &mut Request| {
            request.env = (0..2000).map(|n| (n.to_string(), String::new())).collect();
        };
        assert!(complaint(many).contains("2000 variables"));
        for name in ["", "two\nlines", "ü"] {
            let refused = Request { server: name.into(), ..request() }.complaint();
            assert!(refused.is_some(), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_frame_or_not_but_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut arrived = bytes.clone();
            let _found = decode::<Request>(&mut arrived, 64);
            let mut arrived = bytes;
            let _found = decode::<Answer>(&mut arrived, 64);
        }
    }
}
