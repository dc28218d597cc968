//! What the gateway counts: calls by server, method and tool; and the access log, one event per
//! call that ended.
//!
//! The log is made of what is counted anyway; while nobody listens (`access=debug`, see
//! [`ACCESS`]) it costs one look at the filter. Must never look into arguments or results beyond a
//! tool's name, and never hold a session's id.

pub mod page;
pub mod prometheus;

use crate::gateway::audit::CallLog;
use crate::gateway::demand::Touch;
use crate::gateway::origin::Origin;
use crate::mcp::input::may_require_input;
use crate::model::id::ServerId;
use crate::model::record::CallRecord;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Different methods and tools that are told apart for one server; others share one line.
const KINDS_MAX: usize = 256;
/// Longest name of a tool that is kept.
const NAME_BYTES_MAX: usize = 128;
/// Upper ends of the duration classes, in microseconds; one more class has no end.
pub const BUCKETS_MICROS: [u64; 13] = [
    100,
    250,
    500,
    1_000,
    5_000,
    10_000,
    50_000,
    100_000,
    500_000,
    1_000_000,
    5_000_000,
    30_000_000,
    300_000_000,
];
/// Target of the access log's events, at level DEBUG: `--log-level info,access=debug`.
pub const ACCESS: &str = "access";
/// What is said of a call that was not let through.
pub const REFUSED: &str = "refused";
/// Bytes of a session's hash that are logged, in hexadecimal digits twice as many.
const SESSION_BYTES: usize = 4;

/// Calls of one method, or of one tool.
#[derive(Debug, Default)]
pub struct Kind {
    /// The method, as it is shown.
    method: Arc<str>,
    /// The tool, as it is shown; empty for what is none.
    tool: Arc<str>,
    /// Calls that ended.
    pub calls: AtomicU64,
    /// Those that ended with an error.
    pub errors: AtomicU64,
    /// Their durations together, in microseconds.
    pub micros: AtomicU64,
    /// Calls by duration, see [`BUCKETS_MICROS`].
    pub buckets: [AtomicU64; BUCKETS_MICROS.len() + 1],
}

impl Kind {
    fn of(method: &str, tool: &str) -> Arc<Self> {
        Arc::new(Self { method: Arc::from(shown(method)), tool: Arc::from(shown(tool)), ..Self::default() })
    }

    /// Calls by duration, one number per class.
    #[must_use]
    pub fn classes(&self) -> [u64; BUCKETS_MICROS.len() + 1] {
        std::array::from_fn(|class| self.buckets.get(class).map_or(0, |count| count.load(Relaxed)))
    }
}

/// The counters of one instance of a server.
#[derive(Debug, Default)]
pub struct ServerMetrics {
    /// The server, without its instance.
    server: Option<Arc<str>>,
    replica: u32,
    /// Whether it has other instances.
    several: Arc<AtomicBool>,
    calls: Option<Arc<CallLog>>,
    touch: Arc<Touch>,
    /// By method and tool, so that a call looks for its own without a copy of its names.
    kinds: Mutex<BTreeMap<String, BTreeMap<String, Arc<Kind>>>>,
    /// Bytes of requests.
    pub bytes_in: AtomicU64,
    /// Bytes of answers.
    pub bytes_out: AtomicU64,
    /// Requests that were answered with an HTTP status of 4xx or 5xx.
    pub refused: AtomicU64,
    /// Sessions opened.
    pub sessions_opened: AtomicU64,
    /// Progress and log messages dropped because their client read too slowly.
    pub dropped: AtomicU64,
}

impl ServerMetrics {
    /// Counters of a server.
    #[must_use]
    pub fn of(server: &ServerId) -> Arc<Self> {
        let (name, replica) = (Arc::from(server.server().as_str()), server.replica_number());
        Arc::new(Self { server: Some(name), replica, ..Self::default() })
    }

    /// Counters of an instance whose calls are noted there; `several` says whether it has others beside it.
    #[must_use]
    pub fn noting(
        server: &ServerId,
        calls: &Arc<CallLog>,
        (touch, several): (&Arc<Touch>, &Arc<AtomicBool>),
    ) -> Arc<Self> {
        let (touch, several) = (Arc::clone(touch), Arc::clone(several));
        let (replica, server) = (server.replica_number(), Some(Arc::from(server.server().as_str())));
        Arc::new(Self { server, replica, several, calls: Some(Arc::clone(calls)), touch, ..Self::default() })
    }

    /// The number of the instance, where there are several.
    fn replica(&self) -> Option<u32> {
        self.several.load(Relaxed).then_some(self.replica)
    }

    /// What will be said of a call to those who want to know who called what; `None` when nobody does.
    fn record(
        &self,
        origin: &Origin,
        (method, tool): (&str, &str),
        (kind, id): (Option<&Kind>, Option<&RawValue>),
    ) -> Option<Box<CallRecord>> {
        let wanted =
            may_require_input(method) && self.calls.as_ref().is_some_and(|calls| calls.is_heard(&origin.who));
        wanted.then(|| {
            let kind = kind.filter(|kind| *kind.method == *method && *kind.tool == *tool);
            let (method, tool) = match kind {
                Some(kind) => (Arc::clone(&kind.method), Arc::clone(&kind.tool)),
                None => (Arc::from(method), Arc::from(shown(tool))),
            };
            let by =
                if is_plain(&origin.who) { Arc::clone(&origin.who) } else { Arc::from(shown(&origin.who)) };
            let (via, server, request) = (origin.door.as_str(), self.server.clone(), origin.request_id(id));
            let replica = self.replica();
            Box::new(CallRecord { by, via, server, replica, method, tool, request, ..CallRecord::default() })
        })
    }

    /// Notes a call that its client may not make: it never came as far as a [`Timed`].
    pub fn refused_call(&self, origin: &Origin, (method, tool): (&str, &str), id: Option<&RawValue>) {
        if let (Some(call), Some(calls)) = (self.record(origin, (method, tool), (None, id)), &self.calls) {
            calls.note(CallRecord { result: REFUSED, ..*call });
        }
    }

    /// The counters of a method, and of a tool where one is called.
    #[must_use]
    pub fn kind(&self, method: &str, tool: &str) -> Arc<Kind> {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let (method, tool) = (cut(method), cut(tool));
        if let Some(kind) = kinds.get(method).and_then(|tools| tools.get(tool)) {
            return Arc::clone(kind);
        }
        let is_full = kinds.values().map(BTreeMap::len).sum::<usize>() >= KINDS_MAX;
        let (method, tool) = if is_full { ("other", "") } else { (method, tool) };
        let tools = kinds.entry(method.to_owned()).or_default();
        Arc::clone(tools.entry(tool.to_owned()).or_insert_with(|| Kind::of(method, tool)))
    }

    /// Every method and tool seen so far.
    #[must_use]
    pub fn kinds(&self) -> Vec<((String, String), Arc<Kind>)> {
        let kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let of_method = |(method, tools): (&String, &BTreeMap<String, Arc<Kind>>)| {
            let named =
                |(tool, kind): (&String, &Arc<Kind>)| ((method.clone(), tool.clone()), Arc::clone(kind));
            tools.iter().map(named).collect::<Vec<_>>()
        };
        kinds.iter().flat_map(of_method).collect()
    }
}

fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(NAME_BYTES_MAX)).unwrap_or(text)
}

/// One call being measured.
#[derive(Debug)]
pub struct Timed {
    server: Arc<ServerMetrics>,
    kind: Arc<Kind>,
    began: Instant,
    done: bool,
    logged: Option<Box<Logged>>,
    /// What is said of it at its end to those who want to know who called what.
    noted: Option<Box<CallRecord>>,
}

/// What the access log will say of a call.
#[derive(Debug)]
struct Logged {
    method: String,
    tool: String,
    session: String,
    principal: String,
}

impl Logged {
    fn new(method: &str, tool: &str) -> Box<Self> {
        let (session, principal) = (String::new(), String::new());
        Box::new(Self { method: shown(method), tool: shown(tool), session, principal })
    }
}

impl Timed {
    /// Starts.
    #[must_use]
    pub fn start(server: &Arc<ServerMetrics>, method: &str, tool: &str) -> Self {
        let logged =
            tracing::enabled!(target: ACCESS, tracing::Level::DEBUG).then(|| Logged::new(method, tool));
        Self {
            server: Arc::clone(server),
            kind: server.kind(method, tool),
            began: Instant::now(),
            done: false,
            logged,
            noted: None,
        }
    }

    /// It came from there, under this id; the method and the tool again.
    #[must_use]
    pub fn by(mut self, origin: &Origin, (method, tool): (&str, &str), id: Option<&RawValue>) -> Self {
        self.noted = self.server.record(origin, (method, tool), (Some(&self.kind), id));
        if let Some(logged) = &mut self.logged {
            logged.principal = shown(&origin.who);
        }
        self
    }

    /// It belongs to the session with this hash.
    #[must_use]
    pub fn in_session(mut self, hash: &[u8]) -> Self {
        if let Some(logged) = &mut self.logged {
            let hash = hash.get(..SESSION_BYTES).unwrap_or(hash);
            logged.session = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        }
        self
    }

    /// It goes to another instance, and counts there; the method and the tool again.
    pub(crate) fn moves_to(&mut self, server: &Arc<ServerMetrics>, (method, tool): (&str, &str)) {
        if Arc::ptr_eq(&self.server, server) {
            return;
        }
        (self.server, self.kind) = (Arc::clone(server), server.kind(method, tool));
        if let Some(noted) = &mut self.noted {
            noted.replica = server.replica();
        }
    }

    /// A progress or log message of it was dropped.
    pub fn dropped(&self) {
        self.server.dropped.fetch_add(1, Relaxed);
    }

    /// It has ended, once.
    pub fn done(&mut self, well: bool, bytes_out: usize) {
        self.end(if well { "ok" } else { "error" }, bytes_out);
    }

    /// It was not let through.
    pub fn refused(&mut self) {
        self.end(REFUSED, 0);
    }

    fn end(&mut self, status: &'static str, bytes_out: usize) {
        if std::mem::replace(&mut self.done, true) {
            return;
        }
        self.server.touch.still();
        let took = self.began.elapsed();
        self.kind.calls.fetch_add(1, Relaxed);
        if status != "ok" {
            self.kind.errors.fetch_add(1, Relaxed);
        }
        self.kind.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
        if let Some(bucket) = self.kind.buckets.get(bucket(took)) {
            bucket.fetch_add(1, Relaxed);
        }
        if let (Some(mut call), Some(calls)) = (self.noted.take(), &self.server.calls) {
            call.result = if status == "error" { "failed" } else { status };
            call.millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            calls.note(*call);
        }
        self.server.bytes_out.fetch_add(u64::try_from(bytes_out).unwrap_or(u64::MAX), Relaxed);
        if let Some(logged) = self.logged.take() {
            logged.tell((self.server.server.as_ref(), self.server.replica()), status, took);
        }
    }
}

impl Logged {
    fn tell(
        &self,
        (server, replica): (Option<&Arc<str>>, Option<u32>),
        status: &'static str,
        took: Duration,
    ) {
        let Self { method, tool, session, principal } = self;
        let some = |text: &'_ String| (!text.is_empty()).then(|| text.clone());
        tracing::debug!(
            target: ACCESS,
            MCP_SERVER = server.map(tracing::field::display),
            MCP_REPLICA = replica,
            MCP_SESSION = some(session),
            MCP_PRINCIPAL = some(principal),
            MCP_METHOD = method.as_str(),
            MCP_TOOL = some(tool),
            MCP_DURATION_MS = (took.as_secs_f64() * 1e6).round() / 1e3,
            MCP_STATUS = status,
            "{method}{}{tool} {status} in {took:.1?}",
            if tool.is_empty() { "" } else { " " },
        );
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        // Whoever gave up before the answer counts as an error.
        self.end("abandoned", 0);
    }
}

/// A name that a client chose, as one line without control characters.
pub(crate) fn shown(name: &str) -> String {
    let name = cut(name);
    // As nearly all of them are: nothing to escape.
    if is_plain(name) { name.to_owned() } else { name.escape_debug().to_string() }
}

/// Whether a name is shown as it is.
fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"\"'\\".contains(&byte);
    name.len() <= NAME_BYTES_MAX && name.bytes().all(plain)
}

fn bucket(took: Duration) -> usize {
    BUCKETS_MICROS.iter().position(|end| took.as_micros() <= u128::from(*end)).unwrap_or(BUCKETS_MICROS.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::audit::AUDIT;
    use crate::gateway::guard::LOCAL;
    use crate::gateway::origin::Door;

    #[test]
    fn calls_are_told_apart_up_to_a_bound() {
        let metrics = Arc::new(ServerMetrics::default());
        Timed::start(&metrics, "tools/call", "a").done(true, 10);
        drop(Timed::start(&metrics, "tools/call", "a"));
        for n in 0..KINDS_MAX * 2 {
            Timed::start(&metrics, "tools/call", &format!("t{n}")).done(true, 0);
        }
        let kinds = metrics.kinds();
        assert!(kinds.len() <= KINDS_MAX + 1);
        let a = metrics.kind("tools/call", "a");
        assert_eq!((a.calls.load(Relaxed), a.errors.load(Relaxed)), (2, 1));
        assert_eq!(metrics.bytes_out.load(Relaxed), 10);
        assert_eq!(kinds.iter().map(|(_, kind)| kind.calls.load(Relaxed)).sum::<u64>(), 2 + 2 * 256);
    }

    #[test]
    fn durations_fall_into_their_class() {
        assert_eq!(bucket(Duration::from_micros(100)), 0);
        assert_eq!(bucket(Duration::from_micros(1_001)), 4);
        assert_eq!(bucket(Duration::from_millis(7)), 5);
        assert_eq!(bucket(Duration::from_secs(3600)), BUCKETS_MICROS.len());
    }

    /// Everything the access log writes while `work` runs, as JSON.
    fn logged(filter: &str, work: impl FnOnce()) -> String {
        use tracing_subscriber::layer::SubscriberExt as _;
        #[derive(Clone, Default)]
        struct Page(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Page {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().expect("a page").extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let page = Page::default();
        let writer = page.clone();
        let layer = tracing_subscriber::fmt::layer().json().with_writer(move || writer.clone());
        let filter = tracing_subscriber::EnvFilter::new(filter);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(filter).with(layer), work);
        let bytes = page.0.lock().expect("a page").clone();
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn who_called_what_is_told_of_those_who_proved_who_they_are() {
        let calls = CallLog::new(Arc::new(crate::gateway::played::RuntimeClock::default()));
        let metrics = ServerMetrics::noting(
            &ServerId::new("time").expect("an id"),
            &calls,
            (&Arc::default(), &Arc::default()),
        );
        let work = || {
            let by = |who| Origin::new(&Arc::from(who), Door::Mcp);
            let call =
                |who| Timed::start(&metrics, "tools/call", "get").by(&by(who), ("tools/call", "get"), None);
            call("ci").done(true, 7);
            call("ci").refused();
            metrics.refused_call(&by("ci"), ("tools/call", "hidden"), None);
            call(LOCAL).done(true, 7);
            Timed::start(&metrics, "tools/list", "").by(&by("ci"), ("tools/list", ""), None).done(true, 1);
        };
        let text = logged("info", work);
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let said: Vec<[&str; 4]> = lines
            .iter()
            .map(|line| {
                let field = |name: &str| line["fields"][name].as_str().unwrap_or_default();
                assert_eq!(line["target"], AUDIT);
                [field("MCP_PRINCIPAL"), field("MCP_SERVER"), field("MCP_TOOL"), field("MCP_STATUS")]
            })
            .collect();
        let want =
            [["ci", "time", "get", "ok"], ["ci", "time", "get", REFUSED], ["ci", "time", "hidden", REFUSED]];
        assert_eq!(said, want, "{text}");
        assert_eq!(logged("info,audit=off", work), "");
    }

    #[test]
    fn the_access_log_says_who_what_and_how_but_only_when_asked() {
        let metrics = ServerMetrics::of(&ServerId::new("time").expect("an id"));
        let work = || {
            let mut call = Timed::start(&metrics, "tools/call", "a\nb").in_session(&[0xab; 32]);
            call.done(true, 7);
            drop(Timed::start(&metrics, "ping", ""));
        };
        assert_eq!(logged("info", work), "");
        let text = logged("info,access=debug", work);
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines.len(), 2, "{text}");
        let fields = &lines[0]["fields"];
        assert_eq!(
            [&fields["MCP_SERVER"], &fields["MCP_SESSION"], &fields["MCP_METHOD"], &fields["MCP_TOOL"]],
            ["time", "abababab", "tools/call", "a\\nb"]
        );
        assert_eq!(
            (&lines[0]["fields"]["MCP_STATUS"], &lines[1]["fields"]["MCP_STATUS"]),
            (&"ok".into(), &"abandoned".into())
        );
        assert!(fields["MCP_DURATION_MS"].as_f64().expect("a number") >= 0.0);
    }
}
